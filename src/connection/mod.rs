//! Whoever connects gets a thread here, which reads, makes frames of the bytes, and events of the frames.
//!
//! Start reading at `client.rs`, which serves a client, with `session.rs` for what the client has agreed on and
//! `login.rs` for passwords, and goes on in `server.rs` when another server speaks; `handler.rs` reads a handler's answers, `allowance.rs` bounds what it says unasked, and
//! `informer.rs` reads its questions.
//!
//! What must not be here: who is logged in where, and which handler a message goes to. That is the dispatcher's.

pub mod allowance;
pub mod client;
pub mod handler;
pub mod informer;
pub mod login;
pub mod server;
mod session;
