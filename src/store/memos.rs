//! The reports that are remembered, in the order in which they were made.

use super::StoreError;
use super::mail::Digest;
use super::rows::{Rows, signed};
use crate::frame::Slice;
use rusqlite::{Connection, params};
use std::path::Path;

/// The memos of a database.
pub(super) struct Memos<'a>(Rows<'a>);

impl<'a> Memos<'a> {
    pub(super) fn new(connection: &'a Connection, path: &'a Path) -> Self {
        Self(Rows { connection, path })
    }

    /// Remembers a report, of at most `most` together. The same message again is a new memo.
    pub(super) fn put(&self, digest: &Digest, report: &[u8], now: i64, most: usize) -> Result<(), StoreError> {
        self.0.execute("INSERT OR REPLACE INTO memos (digest, report, at) VALUES (?1, ?2, ?3)", params![digest, report, now])?;
        let last = self.0.connection.last_insert_rowid();
        let first_kept = last.saturating_sub(signed(most as u64)).saturating_add(1);
        if first_kept > 1 {
            // Two, so that it comes down to a bound that was lowered.
            let sql = "DELETE FROM memos WHERE n IN (SELECT n FROM memos WHERE n < ?1 ORDER BY n LIMIT 2)";
            self.0.execute(sql, [first_kept])?;
        }
        Ok(())
    }

    /// The report on a message, if it was made at `since` or later.
    pub(super) fn find(&self, digest: &Digest, since: i64) -> Result<Option<Slice>, StoreError> {
        let sql = "SELECT report FROM memos WHERE digest = ?1 AND at >= ?2";
        self.0.first(sql, params![digest, since], |row| Ok(Slice::from(row.get_ref(0)?.as_blob()?)))
    }

    /// Whether the first that is remembered is from before `limit`, or from after `end`, when the clock was wrong.
    pub(super) fn is_due(&self, limit: i64, end: i64) -> Result<bool, StoreError> {
        let first = self.0.first("SELECT at FROM memos ORDER BY n LIMIT 1", [], |row| row.get::<_, i64>(0))?;
        Ok(first.is_some_and(|at| at < limit || at > end))
    }

    /// Forgets such ones among the first `portion`.
    pub(super) fn forget(&self, limit: i64, end: i64, portion: usize) -> Result<usize, StoreError> {
        let sql = "DELETE FROM memos WHERE n IN (SELECT n FROM memos ORDER BY n LIMIT ?3) AND (at < ?1 OR at > ?2)";
        self.0.execute(sql, params![limit, end, signed(portion as u64)])
    }
}

#[cfg(test)]
mod tests;
