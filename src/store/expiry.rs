//! Deleting what lies for too long: a little at a time, so that nobody waits for it.

use super::calendar::{Calendar, limit};
use super::mailbox::Mailboxes;
use super::memos::Memos;
use super::{Database, Settings, StoreError};
use std::time::{Duration, Instant};

/// Mailboxes that are looked at, ...
const MAILBOXES: usize = 256;
/// ... and letters or memos that are deleted, in one go.
const ROWS: usize = 128;
/// How much time others have at least between two of them.
const PAUSE: Duration = Duration::from_millis(20);
/// How long it rests at most when nothing is left to do, ...
const REST_MAX: Duration = Duration::from_secs(60);
/// ... and at least.
const REST_MIN: Duration = Duration::from_secs(1);

/// Where it stands.
#[derive(Debug)]
pub(super) struct Expiry {
    mailbox_age: Duration,
    memo_age: Duration,
    calendar: Calendar,
    /// The number of the mailbox that was looked at last in this round.
    after: i64,
    next: Instant,
}

impl Expiry {
    pub(super) fn new(settings: &Settings, now: Instant, wall: i64) -> Self {
        let (mailbox_age, memo_age) = (settings.mailbox_age, settings.memo_age);
        Self { mailbox_age, memo_age, calendar: Calendar::new(now, wall), after: 0, next: now }
    }

    /// When it is to go on.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Goes on, if it is time.
    pub(super) fn go_on(&mut self, database: &mut Database, now: Instant, wall: i64) -> Result<(), StoreError> {
        if now < self.next {
            return Ok(());
        }
        let rest = (self.mailbox_age.min(self.memo_age) / 10).clamp(REST_MIN, REST_MAX);
        self.next = now + rest;
        if !self.calendar.look(now, wall) {
            return Ok(());
        }
        let more_memos = forget(database, limit(wall, self.memo_age), wall.saturating_sub(limit(0, self.memo_age)))?;
        let next = delete(database, self.after, limit(wall, self.mailbox_age), wall)?;
        self.after = next.unwrap_or(0);
        if more_memos || next.is_some() {
            self.next = now + PAUSE;
        }
        Ok(())
    }
}

/// Forgets some memos; says whether there may be more.
fn forget(database: &mut Database, limit: i64, end: i64) -> Result<bool, StoreError> {
    // Whether there is something to do is asked without holding up others that write.
    if !Memos::new(&database.connection, &database.path).is_due(limit, end)? {
        return Ok(false);
    }
    let forgotten = database.transact(|rows| Memos::new(rows.connection, rows.path).forget(limit, end, ROWS))?;
    Ok(forgotten == ROWS)
}

/// Deletes some letters; gives the mailbox after which to go on, unless this was the last.
fn delete(database: &mut Database, after: i64, limit: i64, now: i64) -> Result<Option<i64>, StoreError> {
    let find = |mailboxes: &Mailboxes<'_>| mailboxes.expired(after, limit, now, MAILBOXES, ROWS);
    let expired = find(&Mailboxes(database.rows()))?;
    if expired.rows.is_empty() {
        return Ok(expired.next);
    }
    database.transact(|rows| {
        // Again, for meanwhile others may have deleted them.
        let expired = find(&Mailboxes(rows))?;
        for (number, rows_of_it) in &expired.rows {
            Mailboxes(rows).delete(*number, rows_of_it)?;
        }
        Ok(expired.next)
    })
}

#[cfg(test)]
mod tests;
