//! Handlers: programs that the server starts, talks to, and starts again.
//!
//! Start reading at `supervisor.rs`, the table of when what is done, which knows no process; `keeper.rs` is the thread
//! that carries it out for one handler, with `process.rs` for births and deaths, `stderr.rs` for what a program prints
//! and `dialer.rs` for those that get a connection a message. `informer.rs` listens for a handler's own questions.
//!
//! What must not be here: which message goes to whom. That is the dispatcher's.

mod backoff;
mod dialer;
pub mod informer;
mod keeper;
mod process;
mod running;
mod stderr;
mod supervisor;

pub use keeper::{Handle, Spec, keep};
