//! What an operator may ask of mailboxes and do with what lies in them, beside a running server or without one.

mod outboxes;

pub use outboxes::{GivenUp, Outbox, OutboxTotals, Unsent};

use super::mailbox::Mailboxes;
use super::rows::{signed, unsigned};
use super::{Database, StoreError, calendar};
use crate::name::Username;
use rusqlite::params;

/// A mailbox in which something lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    /// Whose it is.
    pub user: Username,
    /// Letters in it, those that were set aside included.
    pub letters: u64,
    /// Bytes of their data.
    pub bytes: u64,
    /// Letters that were set aside.
    pub aside: u64,
    /// When the first of them was kept, in seconds since 1970.
    pub oldest: i64,
}

/// A letter as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its number in the mailbox.
    pub seq: u64,
    /// `payload.type`.
    pub kind: String,
    /// `header.messageId`.
    pub message_id: String,
    /// Bytes of its data.
    pub bytes: u64,
    /// When it was kept, in seconds since 1970.
    pub kept: i64,
    /// How often it was sent without being acknowledged.
    pub attempts: u64,
    /// Whether it was set aside: it is not sent until an operator says so.
    pub aside: bool,
    /// `payload.data`, if that was asked for.
    pub data: Option<Vec<u8>>,
}

/// Which letters of a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The one with this number.
    One(u64),
    /// Those that were set aside.
    Aside,
    /// All.
    All,
}

/// What lies in all mailboxes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Mailboxes in which something lies.
    pub mailboxes: u64,
    /// Letters in them.
    pub letters: u64,
    /// Bytes of their data.
    pub bytes: u64,
    /// Letters that were set aside.
    pub aside: u64,
}

/// Mailboxes or letters that are read at once while walking through all of them.
const PAGE: i64 = 256;
/// Letters that are changed or deleted in one transaction, so that a running server need not wait for long.
const PORTION: i64 = 1024;

impl Database {
    /// Shows every mailbox in which something lies to `each`, ordered by name. Nothing is locked meanwhile, so `each` may
    /// take its time.
    ///
    /// # Errors
    /// The first error of `each` ends it.
    pub fn mailboxes<E: From<StoreError>>(&self, mut each: impl FnMut(Mailbox) -> Result<(), E>) -> Result<(), E> {
        let sql = "SELECT user, messages, bytes, (SELECT count(*) FROM mail WHERE box = m.box AND aside = 1),
                          (SELECT kept FROM mail WHERE box = m.box ORDER BY seq LIMIT 1)
                   FROM mailboxes m WHERE user > ?1 AND messages > 0 ORDER BY user LIMIT ?2";
        // Sorts before every name.
        let mut last = String::new();
        loop {
            let mut page = Vec::new();
            self.rows().each(sql, params![last, PAGE], |row| {
                let oldest = row.get::<_, Option<i64>>(4)?.unwrap_or(0);
                let (letters, bytes, aside) = (unsigned(row.get(1)?), unsigned(row.get(2)?), unsigned(row.get(3)?));
                page.push((row.get::<_, String>(0)?, letters, bytes, aside, oldest));
                Ok(true)
            })?;
            for (name, letters, bytes, aside, oldest) in page.iter() {
                let user = Username::new(name).map_err(|e| self.bad(name, &e))?;
                each(Mailbox { user, letters: *letters, bytes: *bytes, aside: *aside, oldest: *oldest })?;
            }
            match page.pop() {
                Some((name, ..)) => last = name,
                None => return Ok(()),
            }
        }
    }

    /// Shows every letter of a user to `each`, in order, with its data if `data` says so. Nothing is locked meanwhile, so
    /// `each` may take its time; letters that go meanwhile may be left out.
    ///
    /// # Errors
    /// [`StoreError::Unknown`]; the first error of `each` ends it.
    pub fn letters<E: From<StoreError>>(&self, user: &Username, data: bool, mut each: impl FnMut(Item) -> Result<(), E>) -> Result<(), E> {
        let sql = "SELECT seq, body, kind, message_id, bytes, kept, attempts, aside FROM mail LEFT JOIN bodies USING (body)
                   WHERE box = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3";
        let Some(number) = self.mailbox_of(user)? else {
            return Ok(());
        };
        let mut last = 0_i64;
        loop {
            let mut page = Vec::new();
            let after = last;
            self.rows().each(sql, params![number, after, PAGE], |row| {
                last = row.get(0)?;
                let item = Item {
                    seq: unsigned(last),
                    kind: row.get::<_, Option<String>>(2)?.unwrap_or_default(),
                    message_id: row.get::<_, Option<String>>(3)?.unwrap_or_default(),
                    bytes: unsigned(row.get(4)?),
                    kept: row.get(5)?,
                    attempts: unsigned(row.get(6)?),
                    aside: row.get(7)?,
                    data: None,
                };
                page.push((row.get::<_, i64>(1)?, item));
                Ok(true)
            })?;
            if page.is_empty() {
                return Ok(());
            }
            for (body, mut item) in page {
                if data {
                    // One at a time, as each may be large.
                    let found = self.rows().first("SELECT data FROM bodies WHERE body = ?1", [body], |row| row.get(0))?;
                    let Some(found) = found else { continue };
                    item.data = Some(found);
                }
                each(item)?;
            }
        }
    }

    /// Has letters that were set aside sent again; gives how many there were.
    ///
    /// They are at the end of the mailbox from then on, under new numbers and as old as what came just now: sessions have gone
    /// past the old ones, and an acknowledgement, or what a client says at its login that it had, would delete them unsent. They
    /// have one attempt left behind them, as they were sent before, and say so.
    ///
    /// # Errors
    /// [`StoreError::Unknown`].
    pub fn retry(&mut self, user: &Username, which: Which) -> Result<u64, StoreError> {
        self.retry_at(user, which, calendar::now())
    }

    pub(super) fn retry_at(&mut self, user: &Username, which: Which, now: i64) -> Result<u64, StoreError> {
        let Some(number) = self.mailbox_of(user)? else {
            return Ok(0);
        };
        let (first, last, _) = which.range();
        let find = "SELECT seq FROM mail WHERE box = ?1 AND seq BETWEEN ?2 AND ?3 AND aside = 1 ORDER BY seq LIMIT ?4";
        let renumber = "UPDATE mail SET seq = (SELECT last FROM mailboxes WHERE box = ?1), kept = ?3, attempts = 1, aside = 0
                        WHERE box = ?1 AND seq = ?2";
        let mut all = 0;
        loop {
            let changed = self.transact(|rows| {
                let mut seqs: Vec<i64> = Vec::new();
                rows.each(find, params![number, first, last, PORTION], |row| {
                    seqs.push(row.get(0)?);
                    Ok(true)
                })?;
                for seq in &seqs {
                    rows.execute("UPDATE mailboxes SET last = last + 1 WHERE box = ?1", [number])?;
                    rows.execute(renumber, params![number, seq, now])?;
                }
                Ok(seqs.len())
            })?;
            all += changed as u64;
            if (changed as i64) < PORTION {
                return Ok(all);
            }
        }
    }

    /// Deletes letters; gives how many there were.
    ///
    /// # Errors
    /// [`StoreError::Unknown`].
    pub fn discard(&mut self, user: &Username, which: Which) -> Result<u64, StoreError> {
        let Some(number) = self.mailbox_of(user)? else {
            return Ok(0);
        };
        let (first, last, aside) = which.range();
        let sql = "SELECT seq, body, bytes FROM mail WHERE box = ?1 AND seq BETWEEN ?2 AND ?3 AND aside >= ?4 ORDER BY seq LIMIT ?5";
        let mut all = 0;
        loop {
            let deleted = self.transact(|rows| {
                let lying = Mailboxes(rows).lying(sql, params![number, first, last, aside, PORTION])?;
                Mailboxes(rows).delete(number, &lying)?;
                Ok(lying.len())
            })?;
            all += deleted as u64;
            if (deleted as i64) < PORTION {
                return Ok(all);
            }
        }
    }

    /// What lies in all mailboxes together. Takes time in proportion to the number of mailboxes, not of letters.
    ///
    /// # Errors
    /// The database's own trouble.
    pub fn totals(&self) -> Result<Totals, StoreError> {
        let sql = "SELECT count(*), coalesce(sum(messages), 0), coalesce(sum(bytes), 0), (SELECT count(*) FROM mail WHERE aside = 1)
                   FROM mailboxes WHERE messages > 0";
        let read = |row: &rusqlite::Row<'_>| {
            let number = |column| row.get(column).map(unsigned);
            Ok(Totals { mailboxes: number(0)?, letters: number(1)?, bytes: number(2)?, aside: number(3)? })
        };
        Ok(self.rows().first(sql, [], read)?.unwrap_or_default())
    }

    /// The number of a user's mailbox; none if nothing was ever kept for him.
    fn mailbox_of(&self, user: &Username) -> Result<Option<i64>, StoreError> {
        match Mailboxes(self.rows()).find(user)? {
            Some((number, _)) => Ok(Some(number)),
            None if self.account(user)?.is_some() => Ok(None),
            None => Err(StoreError::Unknown(user.clone())),
        }
    }

    fn bad(&self, name: &str, detail: &dyn std::error::Error) -> StoreError {
        StoreError::BadAccount { path: self.path.clone(), name: name.to_owned(), detail: detail.to_string() }
    }
}

impl Which {
    /// The first number, the last one, and whether only letters that were set aside.
    fn range(self) -> (i64, i64, bool) {
        match self {
            Which::One(seq) => (signed(seq), signed(seq), false),
            Which::Aside => (0, i64::MAX, true),
            Which::All => (0, i64::MAX, false),
        }
    }
}

#[cfg(test)]
mod tests;
