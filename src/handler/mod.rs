//! Handlers: programs that the server starts, talks to, and starts again.
//!
//! Start reading at `supervisor.rs`, the table of when what is done, which knows no process; `keeper.rs` is the thread
//! that carries it out for one instance, as `orders.rs` lets others tell it, with `process.rs` for births and deaths
//! (`not_started.rs` for why there was no birth), `stderr.rs` for what a program prints, `record.rs` for what the
//! operator is told of it, and `dialer.rs` for those that get a connection a message.
//! `roster.rs` has all of them, replaces them and follows the configuration; `watch.rs` does so when their files change.
//! `informer.rs` listens for a handler's own questions.
//!
//! What must not be here: which message goes to whom. That is the dispatcher's.

mod backoff;
mod dialer;
mod informer;
mod keeper;
mod not_started;
mod orders;
mod process;
mod record;
pub mod roster;
mod running;
mod stderr;
mod supervisor;
pub mod watch;
