//! The table of accounts, and all that is asked of it.
//!
//! Each change of an account gives it a new *revision* from a counter that never gives a number twice, also not to a
//! user who was removed and added again. So a session that remembers the revision it logged in with can tell whether
//! that account is still the same.

use super::mailbox::Mailboxes;
use super::outbox::forget_author;
use super::rows::Rows;
use super::{Database, StoreError, calendar};
use crate::name::Username;
use crate::password::Hash;
use rusqlite::{Connection, OptionalExtension, Row, named_params};
use std::path::Path;

/// Accounts that are read at once while walking through all of them.
const PAGE: usize = 1000;

/// An account, for a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Who logs in.
    pub name: Username,
    /// What his password is compared with.
    pub password: Hash,
    /// Whether logins are refused.
    pub disabled: bool,
    /// Of its last change.
    pub revision: u64,
}

/// An account as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Whose it is.
    pub name: Username,
    /// Whether logins are refused.
    pub disabled: bool,
    /// When it was made, in seconds since 1970.
    pub created: i64,
}

/// What an import says of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// Whose it is.
    pub name: Username,
    /// The hash of his password.
    pub password: Hash,
    /// Whether logins are refused; none leaves it as it is, and a new account open.
    pub disabled: Option<bool>,
}

/// What an import did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Imports {
    /// Accounts that are new.
    pub added: usize,
    /// Accounts that were there and have another password now.
    pub replaced: usize,
}

/// How an account stands, for the sessions that use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Sessions of this revision may go on.
    Active {
        /// Of the account's last change.
        revision: u64,
    },
    /// There may be no session.
    Disabled,
    /// There is no such account.
    Removed,
}

impl Database {
    /// The account of `name`, if there is one.
    ///
    /// # Errors
    /// [`StoreError::BadAccount`] or the database's own trouble, as of all methods here.
    pub fn account(&self, name: &Username) -> Result<Option<Account>, StoreError> {
        self.accounts().account(name)
    }

    /// Adds an account; gives its revision.
    ///
    /// # Errors
    /// [`StoreError::Taken`].
    pub fn add(&mut self, name: &Username, password: &Hash) -> Result<u64, StoreError> {
        self.write(|accounts| accounts.add(name, password))
    }

    /// Gives an account another password; gives the new revision. With `expected_old_revision` only an account of
    /// that revision is changed.
    ///
    /// # Errors
    /// [`StoreError::Unknown`], [`StoreError::Changed`].
    pub fn set_password(&mut self, name: &Username, password: &Hash, expected_old_revision: Option<u64>) -> Result<u64, StoreError> {
        self.write(|accounts| accounts.set_password(name, password, expected_old_revision))
    }

    /// Refuses an account's logins, or allows them again; gives its revision, which is the old one if it was so
    /// already.
    ///
    /// # Errors
    /// [`StoreError::Unknown`].
    pub fn set_disabled(&mut self, name: &Username, disabled: bool) -> Result<u64, StoreError> {
        self.write(|accounts| accounts.set_disabled(name, disabled))
    }

    /// Removes an account and what lies in its mailbox; gives the revision of the removal, which is higher than any that the account had.
    ///
    /// # Errors
    /// [`StoreError::Unknown`].
    pub fn remove(&mut self, name: &Username) -> Result<u64, StoreError> {
        self.write(|accounts| accounts.remove(name))
    }

    /// Adds and replaces accounts, all of them or, on an error, none.
    ///
    /// Other processes wait until `imported` is at its end, so it should not have to wait for anything itself.
    ///
    /// # Errors
    /// The database's own trouble.
    pub fn import(&mut self, imported: impl IntoIterator<Item = Imported>) -> Result<Imports, StoreError> {
        self.write(|accounts| accounts.import(imported))
    }

    /// Shows every account to `each`, ordered by name. What changes meanwhile may be shown as it was or as it is:
    /// nothing is locked, so `each` may take its time.
    ///
    /// # Errors
    /// The first error of `each` ends it.
    pub fn list<E: From<StoreError>>(&self, each: impl FnMut(Listed) -> Result<(), E>) -> Result<(), E> {
        let read = |accounts: &Accounts<'_>, row: &Row<'_>| {
            Ok(Listed { name: accounts.name(row)?, disabled: accounts.get(row, 1)?, created: accounts.get(row, 2)? })
        };
        let name = |listed: &Listed| listed.name.clone();
        self.accounts().walk("name, disabled, created", read, name, each)
    }

    /// Shows every account with the hash of its password to `each`; otherwise as [`Database::list`].
    ///
    /// # Errors
    /// The first error of `each` ends it, or the first account that cannot be used.
    pub fn export<E: From<StoreError>>(&self, each: impl FnMut(Account) -> Result<(), E>) -> Result<(), E> {
        let name = |account: &Account| account.name.clone();
        self.accounts().walk(ACCOUNT, Accounts::read, name, each)
    }

    /// How the accounts of `names` stand, in that order; or with none, all that there are, ordered by name. Nobody
    /// is [`Standing::Removed`] then: who is missing is.
    ///
    /// # Errors
    /// The database's own trouble.
    pub fn standings(&self, names: Option<&[Username]>) -> Result<Vec<(Username, Standing)>, StoreError> {
        let accounts = self.accounts();
        if let Some(names) = names {
            let standing = |name: &Username| Ok((name.clone(), accounts.standing(name)?));
            return names.iter().map(standing).collect();
        }
        let read = |accounts: &Accounts<'_>, row: &Row<'_>| {
            let standing = Standing::of(accounts.get(row, 1)?, accounts.revision(row, 2)?);
            Ok((accounts.name(row)?, standing))
        };
        let name = |(name, _): &(Username, Standing)| name.clone();
        let mut all = Vec::new();
        accounts.walk("name, disabled, revision", read, name, |one| {
            all.push(one);
            Ok::<_, StoreError>(())
        })?;
        Ok(all)
    }
}

impl Standing {
    fn of(disabled: bool, revision: u64) -> Self {
        if disabled { Self::Disabled } else { Self::Active { revision } }
    }
}

/// The columns of an [`Account`].
const ACCOUNT: &str = "name, password, disabled, revision";

/// The accounts of a database, inside whatever transaction it is in.
pub(super) struct Accounts<'a> {
    connection: &'a Connection,
    path: &'a Path,
}

impl<'a> Accounts<'a> {
    pub(super) fn new(connection: &'a Connection, path: &'a Path) -> Self {
        Self { connection, path }
    }

    pub(super) fn account(&self, name: &Username) -> Result<Option<Account>, StoreError> {
        let sql = format!("SELECT {ACCOUNT} FROM accounts WHERE name = :name");
        let prepared = self.connection.prepare(&sql);
        let mut statement = prepared.map_err(|e| self.fail(e))?;
        let queried = statement.query(named_params! { ":name": name.as_str() });
        let mut rows = queried.map_err(|e| self.fail(e))?;
        let row = rows.next().map_err(|e| self.fail(e))?;
        row.map(|row| self.read(row)).transpose()
    }

    pub(super) fn add(&self, name: &Username, password: &Hash) -> Result<u64, StoreError> {
        let revision = self.next_revision()?;
        let added = self.change(
            "INSERT INTO accounts (name, password, disabled, revision, created)
             VALUES (:name, :password, 0, :revision, :created) ON CONFLICT DO NOTHING",
            named_params! {
                ":name": name.as_str(),
                ":password": password.as_str(),
                ":revision": signed(revision),
                ":created": calendar::now(),
            },
        )?;
        if added { Ok(revision) } else { Err(StoreError::Taken(name.clone())) }
    }

    pub(super) fn set_password(&self, name: &Username, password: &Hash, expected_old_revision: Option<u64>) -> Result<u64, StoreError> {
        let (_, old_revision) = self.state(name)?;
        if expected_old_revision.is_some_and(|expected| expected != old_revision) {
            return Err(StoreError::Changed(name.clone()));
        }
        let revision = self.next_revision()?;
        self.change(
            "UPDATE accounts SET password = :password, revision = :revision WHERE name = :name",
            named_params! {
                ":name": name.as_str(),
                ":password": password.as_str(),
                ":revision": signed(revision),
            },
        )?;
        Ok(revision)
    }

    fn set_disabled(&self, name: &Username, disabled: bool) -> Result<u64, StoreError> {
        let (is_disabled, old_revision) = self.state(name)?;
        if is_disabled == disabled {
            return Ok(old_revision);
        }
        let revision = self.next_revision()?;
        self.change(
            "UPDATE accounts SET disabled = :disabled, revision = :revision WHERE name = :name",
            named_params! {
                ":name": name.as_str(),
                ":disabled": disabled,
                ":revision": signed(revision),
            },
        )?;
        Ok(revision)
    }

    fn remove(&self, name: &Username) -> Result<u64, StoreError> {
        let removed = self.change("DELETE FROM accounts WHERE name = :name", named_params! { ":name": name.as_str() })?;
        if !removed {
            return Err(StoreError::Unknown(name.clone()));
        }
        let rows = Rows { connection: self.connection, path: self.path };
        Mailboxes(rows).clear(name)?;
        forget_author(rows, name)?;
        self.next_revision()
    }

    fn import(&self, imported: impl IntoIterator<Item = Imported>) -> Result<Imports, StoreError> {
        let mut imports = Imports::default();
        for Imported { name, password, disabled } in imported {
            match self.add(&name, &password) {
                Ok(_) => imports.added += 1,
                Err(StoreError::Taken(_)) => {
                    self.set_password(&name, &password, None)?;
                    imports.replaced += 1;
                }
                Err(e) => return Err(e),
            }
            if let Some(disabled) = disabled {
                self.set_disabled(&name, disabled)?;
            }
        }
        Ok(imports)
    }

    fn standing(&self, name: &Username) -> Result<Standing, StoreError> {
        match self.state(name) {
            Ok((disabled, revision)) => Ok(Standing::of(disabled, revision)),
            Err(StoreError::Unknown(_)) => Ok(Standing::Removed),
            Err(e) => Err(e),
        }
    }

    /// Whether an account is disabled, and its revision.
    fn state(&self, name: &Username) -> Result<(bool, u64), StoreError> {
        let sql = "SELECT disabled, revision FROM accounts WHERE name = :name";
        let params = named_params! { ":name": name.as_str() };
        let read = |row: &Row<'_>| Ok((row.get(0)?, unsigned(row.get(1)?)));
        let found = self.connection.query_row(sql, params, read).optional();
        let found = found.map_err(|e| self.fail(e))?;
        found.ok_or_else(|| StoreError::Unknown(name.clone()))
    }

    fn next_revision(&self) -> Result<u64, StoreError> {
        let sql = "UPDATE counters SET value = value + 1 WHERE name = 'revision' RETURNING value";
        let revision = self.connection.query_row(sql, [], |row| row.get(0));
        revision.map(unsigned).map_err(|e| self.fail(e))
    }

    /// Carries out a change of one row; says whether there was one.
    fn change(&self, sql: &str, params: &[(&str, &dyn rusqlite::ToSql)]) -> Result<bool, StoreError> {
        let changed = self.connection.execute(sql, params);
        changed.map(|rows| rows == 1).map_err(|e| self.fail(e))
    }

    /// Shows every account, in the order of names, to `each`.
    ///
    /// No query is open while `each` runs. One that stays open for as long as the reader of an export is slow would
    /// keep SQLite from emptying its log, which would grow with everything that the server writes meanwhile.
    fn walk<T, E: From<StoreError>>(
        &self,
        columns: &str,
        read: impl Fn(&Self, &Row<'_>) -> Result<T, StoreError>,
        name: impl Fn(&T) -> Username,
        mut each: impl FnMut(T) -> Result<(), E>,
    ) -> Result<(), E> {
        let sql = format!("SELECT {columns} FROM accounts WHERE name > ? ORDER BY name LIMIT {PAGE}");
        // Sorts before every name.
        let mut last = String::new();
        loop {
            let page = self.page(&sql, &last, &read)?;
            match page.last() {
                Some(end) => last = name(end).to_string(),
                None => return Ok(()),
            }
            page.into_iter().try_for_each(&mut each)?;
        }
    }

    fn page<T>(&self, sql: &str, after: &str, read: impl Fn(&Self, &Row<'_>) -> Result<T, StoreError>) -> Result<Vec<T>, StoreError> {
        let prepared = self.connection.prepare(sql);
        let mut statement = prepared.map_err(|e| self.fail(e))?;
        let mut rows = statement.query([after]).map_err(|e| self.fail(e))?;
        let mut page = Vec::new();
        while let Some(row) = rows.next().map_err(|e| self.fail(e))? {
            page.push(read(self, row)?);
        }
        Ok(page)
    }

    fn read(&self, row: &Row<'_>) -> Result<Account, StoreError> {
        let name = self.name(row)?;
        let password: String = self.get(row, 1)?;
        let password = Hash::parse(&password).map_err(|e| self.bad(name.as_str(), &e))?;
        Ok(Account { name, password, disabled: self.get(row, 2)?, revision: self.revision(row, 3)? })
    }

    /// The name of an account, always the first column.
    fn name(&self, row: &Row<'_>) -> Result<Username, StoreError> {
        let name: String = self.get(row, 0)?;
        Username::new(&name).map_err(|e| self.bad(&name, &e))
    }

    fn revision(&self, row: &Row<'_>, column: usize) -> Result<u64, StoreError> {
        self.get(row, column).map(unsigned)
    }

    fn get<T: rusqlite::types::FromSql>(&self, row: &Row<'_>, column: usize) -> Result<T, StoreError> {
        row.get(column).map_err(|e| self.fail(e))
    }

    fn bad(&self, name: &str, detail: &dyn std::error::Error) -> StoreError {
        StoreError::BadAccount { path: self.path.to_owned(), name: name.to_owned(), detail: detail.to_string() }
    }

    fn fail(&self, error: rusqlite::Error) -> StoreError {
        StoreError::of(self.path, error)
    }
}

// SQLite has no unsigned numbers. The table keeps revisions above 0, and no counter of changes comes near 2^63.
fn unsigned(revision: i64) -> u64 {
    revision.cast_unsigned()
}

fn signed(revision: u64) -> i64 {
    revision.cast_signed()
}

#[cfg(test)]
mod tests;
