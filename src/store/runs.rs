//! Whether the last run of the server ended as it should: if not, what it had delivered last is not known.

use super::rows::{Rows, signed, unsigned};
use super::{Database, StoreError};

/// How a run begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// Letters with a body up to this number may have been delivered, though no attempt is counted for them.
    pub(super) suspect: u64,
    /// The highest number that a body had.
    pub(super) highest: u64,
}

impl Database {
    /// Begins a run of the server. It is on the disk from now on that it did not end.
    pub(super) fn begin_run(&mut self) -> Result<Run, StoreError> {
        self.transact(|rows| {
            let highest = highest(rows)?;
            let ended = counter(rows, "ended")? != 0;
            let suspect = if ended { unsigned(counter(rows, "suspect")?) } else { highest };
            set(rows, "ended", 0)?;
            set(rows, "suspect", signed(suspect))?;
            Ok(Run { suspect, highest })
        })
    }

    /// Ends a run of the server, with what has become of [`Run::suspect`].
    pub(super) fn end_run(&mut self, suspect: u64) -> Result<(), StoreError> {
        self.transact(|rows| {
            set(rows, "ended", 1)?;
            set(rows, "suspect", signed(suspect))
        })
    }

    /// Writes something that was not there before, and waits until it is on the disk.
    pub(super) fn prove_writable(&mut self) -> Result<(), StoreError> {
        self.transact(|rows| set(rows, "proofs", counter(rows, "proofs")?.wrapping_add(1)))
    }
}

fn highest(rows: Rows<'_>) -> Result<u64, StoreError> {
    let found = rows.first("SELECT seq FROM sqlite_sequence WHERE name = 'bodies'", [], |row| row.get(0))?;
    Ok(found.map_or(0, unsigned))
}

fn counter(rows: Rows<'_>, name: &str) -> Result<i64, StoreError> {
    Ok(rows.first("SELECT value FROM counters WHERE name = ?1", [name], |row| row.get(0))?.unwrap_or(0))
}

fn set(rows: Rows<'_>, name: &str, value: i64) -> Result<(), StoreError> {
    rows.execute("INSERT OR REPLACE INTO counters (name, value) VALUES (?1, ?2)", rusqlite::params![name, value])?;
    Ok(())
}

#[cfg(test)]
mod tests;
