//! The mailboxes: what happens to letters, in whatever transaction it happens.
//!
//! A mailbox has a number, `box`, and counts what lies in it. It stays when its user is removed, so that the numbers of its
//! letters, `seq`, never come again. A body is stored once and knows how many rows of `mail` refer to it; it goes with
//! the last.

use super::StoreError;
use super::mail::{Letter, Parcel, Place};
use super::rows::{Rows, signed, unsigned};
use crate::frame::Slice;
use crate::name::Username;
use rusqlite::params;
use std::path::Path;

/// The bounds of one mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

/// A row of `mail`, as far as it takes to delete it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lying {
    pub(super) seq: i64,
    pub(super) body: i64,
    pub(super) bytes: i64,
}

/// What a user has taken care of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UpTo {
    /// Up to this number.
    pub(super) seq: u64,
    /// Reports about messages to other servers, too.
    pub(super) reports: bool,
    /// If there never was such a number, nothing at all.
    pub(super) strict: bool,
}

/// What became of an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    All,
    /// So many at once are enough; there may be more.
    Some,
    /// There never was such a number; this is the highest that there was.
    Beyond(u64),
}

/// A letter that was sent too often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Aside {
    pub(super) user: Username,
    pub(super) seq: u64,
    pub(super) kind: String,
    pub(super) message_id: String,
    pub(super) attempts: u64,
}

/// The mailboxes of a database.
pub(super) struct Mailboxes<'a>(pub(super) Rows<'a>);

impl<'a> Mailboxes<'a> {
    pub(super) fn new(connection: &'a rusqlite::Connection, path: &'a Path) -> Self {
        Self(Rows { connection, path })
    }

    /// Puts a letter into the mailboxes of all whom it is for, and tells where it is for each of them. Gives the number
    /// of its body, if it has one now.
    pub(super) fn keep(&self, parcel: &Parcel, bounds: Bounds, now: i64, places: &mut Vec<Place>) -> Result<Option<u64>, StoreError> {
        let bytes = parcel.letter.bytes() as u64;
        let mut boxes = Vec::with_capacity(parcel.recipients.len());
        for recipient in &parcel.recipients {
            let state = self.state(&recipient.user)?;
            places.push(match &state {
                None => Place::Unknown,
                Some(state) if state.messages >= bounds.messages || state.bytes.saturating_add(bytes) > bounds.bytes => Place::Refused,
                Some(state) => {
                    boxes.push((&recipient.user, state.number, state.last + 1));
                    Place::Queued(state.last + 1)
                }
            });
        }
        if boxes.is_empty() {
            return Ok(None);
        }
        let body = self.write_body(&parcel.letter, boxes.len())?;
        for (user, number, seq) in boxes {
            let number = match number {
                Some(number) => {
                    let sql = "UPDATE mailboxes SET last = ?2, messages = messages + 1, bytes = bytes + ?3 WHERE box = ?1";
                    self.0.execute(sql, params![number, signed(seq), signed(bytes)])?;
                    number
                }
                None => {
                    let sql = "INSERT INTO mailboxes (user, last, messages, bytes) VALUES (?1, ?2, 1, ?3)";
                    self.0.execute(sql, params![user.as_str(), signed(seq), signed(bytes)])?;
                    self.0.connection.last_insert_rowid()
                }
            };
            let sql = "INSERT INTO mail (box, seq, body, bytes, kept, attempts, aside) VALUES (?1, ?2, ?3, ?4, ?5, 0, 0)";
            self.0.execute(sql, params![number, signed(seq), body, signed(bytes), now])?;
        }
        Ok(Some(unsigned(body)))
    }

    fn write_body(&self, letter: &Letter, waiting: usize) -> Result<i64, StoreError> {
        let (asker, id) = letter.asker.as_ref().map(|(conn, id)| (conn.0.cast_signed(), id.bytes())).unzip();
        // Of a report, everybody is to know the id.
        let report = letter.report.as_ref();
        let id = report.map_or(id, |report| report.id.as_ref().map(Slice::bytes));
        let reason = report.map(|report| report.reason.as_str());
        let sql = "INSERT INTO bodies (message_id, kind, data, asker, id, reason, waiting) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let params = params![&*letter.message_id, &*letter.kind, letter.data.bytes(), asker, id, reason, signed(waiting as u64)];
        self.0.execute(sql, params)?;
        Ok(self.0.connection.last_insert_rowid())
    }

    /// How the mailbox of a user with an account is filled.
    fn state(&self, user: &Username) -> Result<Option<State>, StoreError> {
        let sql = "SELECT m.box, m.last, m.messages, m.bytes
                   FROM accounts a LEFT JOIN mailboxes m ON m.user = a.name WHERE a.name = ?1";
        self.0.first(sql, [user.as_str()], |row| {
            let number: Option<i64> = row.get(0)?;
            if number.is_none() {
                return Ok(State::default());
            }
            Ok(State { number, last: unsigned(row.get(1)?), messages: unsigned(row.get(2)?), bytes: unsigned(row.get(3)?) })
        })
    }

    /// The number of a user's mailbox, and the highest that a letter in it had.
    pub(super) fn find(&self, user: &Username) -> Result<Option<(i64, u64)>, StoreError> {
        let sql = "SELECT box, last FROM mailboxes WHERE user = ?1";
        self.0.first(sql, [user.as_str()], |row| Ok((row.get(0)?, unsigned(row.get(1)?))))
    }

    /// Deletes what a user has taken care of, but not what was set aside, and not more than `most` at once. Gives also how many were deleted.
    pub(super) fn settle(&self, user: &Username, up_to: UpTo, most: usize) -> Result<(Settled, usize), StoreError> {
        let UpTo { seq: up_to, reports, strict } = up_to;
        let found = self.find(user)?;
        let last = found.map_or(0, |(_, last)| last);
        if strict && up_to > last {
            return Ok((Settled::Beyond(last), 0));
        }
        let Some((number, _)) = found else {
            return Ok((Settled::All, 0));
        };
        let sql = "SELECT seq, body, bytes FROM mail m WHERE box = ?1 AND seq <= ?2 AND aside = 0
                   AND (?4 OR NOT EXISTS (SELECT 1 FROM bodies b WHERE b.body = m.body AND b.reason IS NOT NULL))
                   ORDER BY seq LIMIT ?3";
        let rows = self.lying(sql, params![number, signed(up_to), signed(most as u64), reports])?;
        self.delete(number, &rows)?;
        Ok((if rows.len() == most { Settled::Some } else { Settled::All }, rows.len()))
    }

    /// Rows of `mail`, asked for with seq, body and bytes.
    pub(super) fn lying(&self, sql: &str, params: impl rusqlite::Params) -> Result<Vec<Lying>, StoreError> {
        let mut all = Vec::new();
        self.0.each(sql, params, |row| {
            all.push(Lying { seq: row.get(0)?, body: row.get(1)?, bytes: row.get(2)? });
            Ok(true)
        })?;
        Ok(all)
    }

    /// Deletes these rows of one mailbox, and the bodies that nobody else waits for.
    pub(super) fn delete(&self, number: i64, rows: &[Lying]) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        for row in rows {
            self.0.execute("DELETE FROM mail WHERE box = ?1 AND seq = ?2", params![number, row.seq])?;
            // Most bodies are for one mailbox.
            if self.0.execute("DELETE FROM bodies WHERE body = ?1 AND waiting <= 1", [row.body])? == 0 {
                self.0.execute("UPDATE bodies SET waiting = waiting - 1 WHERE body = ?1", [row.body])?;
            }
        }
        let bytes = rows.iter().fold(0_i64, |sum, row| sum.saturating_add(row.bytes));
        let sql = "UPDATE mailboxes SET messages = messages - ?2, bytes = bytes - ?3 WHERE box = ?1";
        self.0.execute(sql, params![number, signed(rows.len() as u64), bytes])?;
        Ok(())
    }

    /// Deletes all that a user has; what letters he gets later go on with the same numbers.
    pub(super) fn clear(&self, user: &Username) -> Result<(), StoreError> {
        let Some((number, _)) = self.find(user)? else {
            return Ok(());
        };
        let rows = self.lying("SELECT seq, body, bytes FROM mail WHERE box = ?1", [number])?;
        self.delete(number, &rows)
    }

    /// Counts that letters were sent in vain, and sets those aside that were sent so `often`.
    pub(super) fn tried(&self, user: &Username, seqs: &[u64], often: u32, aside: &mut Vec<Aside>) -> Result<(), StoreError> {
        let Some((number, _)) = self.find(user)? else {
            return Ok(());
        };
        for &seq in seqs {
            let sql = "UPDATE mail SET attempts = attempts + 1, aside = attempts + 1 >= ?3
                       WHERE box = ?1 AND seq = ?2 AND aside = 0 RETURNING attempts, aside, body";
            let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?, row.get::<_, i64>(2)?));
            let Some((attempts, true, body)) = self.0.first(sql, params![number, signed(seq), often], read)? else {
                continue;
            };
            let named =
                self.0.first("SELECT kind, message_id FROM bodies WHERE body = ?1", [body], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let (kind, message_id) = named.unwrap_or_default();
            aside.push(Aside { user: user.clone(), seq, kind, message_id, attempts: unsigned(attempts) });
        }
        Ok(())
    }

    /// What was kept before `limit` at the beginning of mailboxes: in at most so many mailboxes with a higher number than
    /// `after`, and about so many letters. What seems to be kept later than `now` is passed over: the clock was wrong.
    pub(super) fn expired(&self, after: i64, limit: i64, now: i64, boxes: usize, letters: usize) -> Result<Expired, StoreError> {
        let mut numbers: Vec<i64> = Vec::new();
        let sql = "SELECT box FROM mailboxes WHERE box > ?1 AND messages > 0 ORDER BY box LIMIT ?2";
        self.0.each(sql, params![after, signed(boxes as u64)], |row| {
            numbers.push(row.get(0)?);
            Ok(true)
        })?;
        let mut expired = Expired { rows: Vec::new(), next: numbers.last().copied().filter(|_| numbers.len() == boxes) };
        let mut left = letters;
        for number in numbers {
            let mut rows = Vec::new();
            self.0.each("SELECT seq, body, bytes, kept FROM mail WHERE box = ?1 ORDER BY seq", [number], |row| {
                let kept: i64 = row.get(3)?;
                if kept < limit {
                    rows.push(Lying { seq: row.get(0)?, body: row.get(1)?, bytes: row.get(2)? });
                    left = left.saturating_sub(1);
                }
                Ok(left > 0 && (kept < limit || kept > now))
            })?;
            if !rows.is_empty() {
                expired.rows.push((number, rows));
            }
            if left == 0 {
                // Of this one there may be more.
                expired.next = Some(number - 1);
                break;
            }
        }
        Ok(expired)
    }
}

/// What lies for too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expired {
    /// By mailbox.
    pub(super) rows: Vec<(i64, Vec<Lying>)>,
    /// After which mailbox to go on, unless this was the last.
    pub(super) next: Option<i64>,
}

/// How a mailbox is filled; without a number there is none yet.
#[derive(Debug, Default)]
struct State {
    number: Option<i64>,
    last: u64,
    messages: u64,
    bytes: u64,
}

#[cfg(test)]
mod tests;
