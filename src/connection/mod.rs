//! One thread per connection, whatever is at the other end: it reads, makes frames of bytes and events of frames.
//!
//! Start reading at `client.rs`, which serves a client, with `session.rs` for what the client has agreed on and
//! `login.rs` for passwords; `handler.rs` reads a handler's answers and `informer.rs` its questions. [`gate::Gate`] is
//! what a connection's thread and the dispatcher know of each other, `incoming.rs` bounds what all connections hold,
//! and `flusher.rs` finishes what slow connections did not take.
//!
//! What must not be here: who is logged in where, and which handler a message goes to. That is the dispatcher's.

pub mod client;
pub mod flusher;
pub mod gate;
pub mod handler;
pub mod incoming;
pub mod informer;
pub mod login;
mod session;
