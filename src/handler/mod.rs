//! Handlers: programs that the server starts, talks to, and starts again. This room has two halves.
//!
//! **What a handler in Rust is written with** is in `program/`, and nothing else in the server uses it: see [`serve`] for
//! the shortest way, and [`Handler`] for all others.
//!
//! ```no_run
//! use bester::handler::{Answer, serve};
//!
//! fn main() -> std::io::Result<()> {
//!     serve(|message| Answer::reply(message.raw()))
//! }
//! ```
//!
//! **The server's half** is all the rest. Start reading at `supervisor.rs`, the table of when what is done, which knows no
//! process; `keeper.rs` is the thread that carries it out for one instance, as `orders.rs` lets others tell it, with
//! `process.rs` for births and deaths (`not_started.rs` for why there was no birth), `stderr.rs` for what a program
//! prints, `record.rs` for what the operator is told of it, and `dialer.rs` for those that get a connection a message.
//! `roster.rs` has all of them, replaces them and follows the configuration; `watch.rs` does so when their files change.
//! `informer.rs` listens for a handler's own questions. `by_hand.rs` starts a program for a person who tries it
//! out.
//!
//! What must not be here: which message goes to whom. That is the dispatcher's.

mod backoff;
pub mod by_hand;
mod dialer;
mod informer;
mod keeper;
mod not_started;
mod orders;
mod process;
mod program;
mod record;
pub mod roster;
mod running;
mod stderr;
mod supervisor;
pub mod watch;

pub use program::*;
