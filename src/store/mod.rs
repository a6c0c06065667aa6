//! The one database of a server: an SQLite file that the server and the commands for users may open at the same time.
//!
//! `database.rs` opens it: permissions, who owns it, schema versions. What is in it is asked and changed by plain
//! functions inside whatever transaction they are called in: `accounts.rs`, `mailbox.rs` and `page.rs` (letters that wait for
//! their users), `outbox.rs` (messages that wait for other servers), `peers.rs` and `invitations.rs` (those servers, and how they become
//! known), `memos.rs` and `seen.rs` (reports, for clients and servers who send a message again), `runs.rs` (whether the last run
//! of the server ended well). `check.rs` says whether all that belongs together, `inspect.rs` is for operators. Commands use a
//! [`Database`] directly.
//!
//! A server has two threads, reached through a [`Store`] (`threads.rs`). `writer.rs` takes all that waits in its `queue.rs` into one
//! transaction (`group.rs`), waits for the disk, and tells the dispatcher what came of it, in the words of [`mail`]. When the
//! disk fails it answers so at once, and opens the database again when it works (`trouble.rs` says so in the log). In between it
//! deletes what lies for too long (`expiry.rs`), by a clock that is not believed blindly (`calendar.rs`). `reader.rs` answers
//! what only reads, and waits for nobody. What was sent but is not yet written down is kept in mind in `marks.rs`.
//!
//! This room knows nothing of connections or of the configuration. Its SQL stays inside it.

mod accounts;
mod calendar;
mod check;
mod database;
mod error;
mod expiry;
#[cfg(test)]
mod fake;
mod group;
mod inspect;
mod invitations;
pub mod mail;
mod mailbox;
mod marks;
mod memos;
mod outbox;
mod page;
mod peers;
#[cfg(test)]
mod property;
mod queue;
mod reader;
mod rows;
mod runs;
mod seen;
mod settings;
mod threads;
mod trouble;
mod writer;

pub use accounts::{Account, Imported, Imports, Listed, Standing};
pub use database::Database;
pub use error::StoreError;
pub use inspect::{GivenUp, Item, Mailbox, Outbox, OutboxTotals, Totals, Unsent, Which};
pub use peers::{Newcomer, Peer, Verify};
pub use settings::Settings;
pub use threads::{Store, Threads};
