//! Deleting what lies for too long: a little at a time, so that nobody waits for it. The authors of messages for other servers
//! are told.

use super::calendar::{Calendar, limit};
use super::mailbox::Mailboxes;
use super::memos::Memos;
use super::outbox::{Outboxes, Portion};
use super::seen::Seen;
use super::{Database, Settings, StoreError};
use crate::name::Username;
use crate::protocol::reason::Reason;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Mailboxes or outboxes that are looked at, ...
const MAILBOXES: usize = 256;
/// ... and letters, memos or messages that are deleted, in one go.
const ROWS: usize = 128;
/// Messages for other servers may be large.
const PORTION: Portion = Portion { messages: ROWS, bytes: 4 << 20 };
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
    outbox_age: Duration,
    seen_age: Duration,
    calendar: Calendar,
    /// The number of the mailbox that was looked at last in this round, ...
    after: i64,
    /// ... and that of the peer.
    after_peer: i64,
    next: Instant,
}

impl Expiry {
    pub(super) fn new(settings: &Settings, now: Instant, wall: i64) -> Self {
        let Settings { mailbox_age, memo_age, outbox_age, seen_age, .. } = *settings;
        Self { mailbox_age, memo_age, outbox_age, seen_age, calendar: Calendar::new(now, wall), after: 0, after_peer: 0, next: now }
    }

    /// When it is to go on.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Goes on, if it is time; gives who has a report in the mailbox now. `written` is told the numbers of their bodies, before
    /// anybody can be sent one.
    pub(super) fn go_on(
        &mut self,
        database: &mut Database,
        now: Instant,
        wall: i64,
        written: &dyn Fn(u64),
    ) -> Result<BTreeSet<Username>, StoreError> {
        if now < self.next {
            return Ok(BTreeSet::new());
        }
        let shortest = self.mailbox_age.min(self.memo_age).min(self.outbox_age).min(self.seen_age);
        self.next = now + (shortest / 10).clamp(REST_MIN, REST_MAX);
        if !self.calendar.look(now, wall) {
            return Ok(BTreeSet::new());
        }
        let more_memos = forget(database, limit(wall, self.memo_age), wall.saturating_sub(limit(0, self.memo_age)))?;
        let more_seen = forget_seen(database, limit(wall, self.seen_age), wall.saturating_sub(limit(0, self.seen_age)))?;
        let next = delete(database, self.after, limit(wall, self.mailbox_age), wall)?;
        self.after = next.unwrap_or(0);
        // At the end: nothing that fails may come between the reports and the word of them.
        let (told, next_peer) = give_up(database, self.after_peer, limit(wall, self.outbox_age), wall, written)?;
        self.after_peer = next_peer.unwrap_or(0);
        if more_memos || more_seen || next.is_some() || next_peer.is_some() {
            self.next = now + PAUSE;
        }
        Ok(told)
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

/// The same with what was seen of other servers.
fn forget_seen(database: &mut Database, limit: i64, end: i64) -> Result<bool, StoreError> {
    if !Seen(database.rows()).is_due(limit, end)? {
        return Ok(false);
    }
    let forgotten = database.transact(|rows| Seen(rows).forget(limit, end, ROWS))?;
    Ok(forgotten == ROWS)
}

/// Gives up some messages for other servers, and tells their authors: gives those. Gives also the peer after which to go on,
/// unless this was the last.
fn give_up(
    database: &mut Database,
    after: i64,
    limit: i64,
    now: i64,
    written: &dyn Fn(u64),
) -> Result<(BTreeSet<Username>, Option<i64>), StoreError> {
    let expired = Outboxes { rows: database.rows(), now, written }.expired(after, limit, MAILBOXES, PORTION)?;
    if expired.seqs.is_empty() {
        return Ok((BTreeSet::new(), expired.next));
    }
    database.transact(|rows| {
        let outboxes = Outboxes { rows, now, written };
        // Again, for meanwhile others may have deleted them.
        let expired = outboxes.expired(after, limit, MAILBOXES, PORTION)?;
        let mut told = BTreeSet::new();
        for (peer, seqs) in &expired.seqs {
            told.append(&mut outboxes.give_up(*peer, seqs, Reason::Expired)?);
        }
        Ok((told, expired.next))
    })
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
