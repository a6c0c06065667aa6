//! The one database of a server: an SQLite file that the server and the commands for users may open at the same time.
//!
//! `database.rs` opens it: permissions, who owns it, schema versions. `accounts.rs` has everything that can be asked
//! of the accounts. `writer.rs` is the server's storage thread, reached through a [`Store`]; commands use a
//! [`Database`] directly.
//!
//! This room knows nothing of connections or of the configuration. Its SQL stays inside it.

mod accounts;
mod database;
mod error;
mod writer;

pub use accounts::{Account, Imported, Imports, Listed, Standing};
pub use database::Database;
pub use error::StoreError;
pub use writer::Store;
