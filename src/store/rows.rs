//! What all files with SQL share: statements that are prepared once, and numbers that SQLite has no type for.

use super::StoreError;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Params, Row};
use std::path::Path;

/// A database, inside whatever transaction it is in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) connection: &'a Connection,
    pub(super) path: &'a Path,
}

impl Rows<'_> {
    pub(super) fn prepare(&self, sql: &str) -> Result<CachedStatement<'_>, StoreError> {
        self.connection.prepare_cached(sql).map_err(|e| self.fail(e))
    }

    /// Carries out a change; gives how many rows it changed.
    pub(super) fn execute(&self, sql: &str, params: impl Params) -> Result<usize, StoreError> {
        self.prepare(sql)?.execute(params).map_err(|e| self.fail(e))
    }

    /// The first row, if there is one.
    pub(super) fn first<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        self.prepare(sql)?.query_row(params, read).optional().map_err(|e| self.fail(e))
    }

    /// Shows each row to `read`, until that says that it has enough.
    pub(super) fn each(
        &self,
        sql: &str,
        params: impl Params,
        mut read: impl FnMut(&Row<'_>) -> rusqlite::Result<bool>,
    ) -> Result<(), StoreError> {
        let mut statement = self.prepare(sql)?;
        let mut rows = statement.query(params).map_err(|e| self.fail(e))?;
        while let Some(row) = rows.next().map_err(|e| self.fail(e))? {
            if !read(row).map_err(|e| self.fail(e))? {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn fail(&self, error: rusqlite::Error) -> StoreError {
        StoreError::of(self.path, error)
    }
}

/// SQLite has no unsigned numbers. None of ours comes near 2^63, but what others ask for may.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The other way round: no number that we write is below 0.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
