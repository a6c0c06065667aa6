//! One transaction with all that waited.

use super::error::Reach;
use super::mail::{Keep, Memo, Place, Report, Write};
use super::mailbox::{Aside, Bounds, Mailboxes, Settled, UpTo};
use super::memos::Memos;
use super::outbox::Outboxes;
use super::peers::Peers;
use super::rows::Rows;
use super::seen::Seen;
use super::writer::Order;
use super::{Database, Peer, Settings, StoreError};
use crate::frame::Slice;
use crate::name::Username;
use crate::protocol::report::{Id, MessageId, for_server, outcome};
use rusqlite::Transaction;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::Path;

/// Letters that acknowledgements delete in one transaction.
const SETTLED_MAX: usize = 4096;
/// Late acknowledgements in one transaction.
const LATE_MAX: usize = 64;

/// What came of one order.
#[derive(Debug)]
pub(super) enum Done {
    /// Of a [`Write::Keep`]; and all peers, if it was for a server that was none before.
    Kept(Vec<Place>, Option<Vec<Peer>>),
    /// Of a [`Write::Settle`].
    Settled(Settled),
    /// Of a [`Write::Tried`].
    Tried,
    /// Of a [`Write::Sent`]: who has a report in the mailbox now.
    Sent(BTreeSet<Username>),
    /// Of a change that a connection's thread ordered.
    Changed(Result<u64, StoreError>),
    /// It could not be done, for a reason that is its own.
    Failed(StoreError),
}

/// What came of all of them.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Of each order, in their order.
    pub(super) done: Vec<Done>,
    /// Of late acknowledgements, those that are through.
    pub(super) caught_up: Vec<(Username, u64)>,
    /// Letters that are not sent any more.
    pub(super) aside: Vec<Aside>,
}

/// Why nothing was done at all.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: StoreError,
    pub(super) reach: Reach,
}

/// What a transaction is done with.
pub(super) struct Group<'a> {
    pub(super) settings: &'a Settings,
    /// Seconds since 1970.
    pub(super) now: i64,
    /// Hears of the number of each new body before anybody can be sent it.
    pub(super) written: &'a dyn Fn(u64),
}

impl Group<'_> {
    /// Carries everything out, or nothing of it has happened.
    pub(super) fn carry_out(&self, database: &mut Database, late: &[(Username, u64)], orders: &[Order]) -> Result<Outcome, Failed> {
        // What cannot be done for a reason of its own is rare. To be able to undo it alone costs time for each of the
        // others, so that is done only when it is known that there is one.
        match self.all(database, late, orders, false) {
            Err(Failed { reach: Reach::One, .. }) => self.all(database, late, orders, true),
            result => result,
        }
    }

    fn all(&self, database: &mut Database, late: &[(Username, u64)], orders: &[Order], apart: bool) -> Result<Outcome, Failed> {
        let (mut transaction, path) = database.begin().map_err(reached)?;
        let mut outcome = Outcome { done: Vec::with_capacity(orders.len()), ..Outcome::default() };
        let left = Cell::new(SETTLED_MAX);
        for (user, up_to) in late.iter().take(LATE_MAX) {
            let savepoint = transaction.savepoint().map_err(|error| reached(StoreError::of(path, error)))?;
            let settled = match settle(&Mailboxes::new(&savepoint, path), user, UpTo { seq: *up_to, reports: false, strict: true }, &left) {
                // It will not be possible later either.
                Err(error) if apart && error.reach() == Reach::One => Settled::All,
                settled => {
                    savepoint.commit().map_err(|error| reached(StoreError::of(path, error)))?;
                    settled.map_err(reached)?
                }
            };
            if settled != Settled::Some {
                outcome.caught_up.push((user.clone(), *up_to));
            }
        }
        for order in orders {
            // What a connection's thread orders may have to be undone for many reasons.
            let one = if apart || matches!(order, Order::Change { .. }) {
                self.one_apart(&mut transaction, path, order, &left, &mut outcome.aside)?
            } else {
                self.one(&transaction, path, order, &left, &mut outcome.aside).map_err(reached)?
            };
            outcome.done.push(one);
        }
        transaction.commit().map_err(|error| {
            let error = StoreError::of(path, error);
            let reach = error.reach();
            Failed { error, reach: if reach == Reach::One { Reach::Database } else { reach } }
        })?;
        Ok(outcome)
    }

    /// Carries one out so that it can be undone alone.
    fn one_apart(
        &self,
        transaction: &mut Transaction<'_>,
        path: &Path,
        order: &Order,
        left: &Cell<usize>,
        aside: &mut Vec<Aside>,
    ) -> Result<Done, Failed> {
        let fail = |error| reached(StoreError::of(path, error));
        let savepoint = transaction.savepoint().map_err(fail)?;
        let before = aside.len();
        let done = self.one(&savepoint, path, order, left, aside);
        let undone = match &done {
            Ok(Done::Changed(Err(error))) | Err(error) => Some(error.clone()),
            Ok(_) => None,
        };
        match undone {
            None => savepoint.commit().map_err(fail)?,
            Some(error) => {
                aside.truncate(before);
                // Undoes this one alone ...
                drop(savepoint);
                // ... unless SQLite has undone the transaction, as it does for some errors. What came before is gone
                // then, and what came next would be a transaction each.
                if transaction.is_autocommit() {
                    let reach = if error.reach() == Reach::Database { Reach::Database } else { Reach::Group };
                    return Err(Failed { error, reach });
                }
            }
        }
        match done {
            Err(error) if error.reach() == Reach::One => Ok(Done::Failed(error)),
            other => other.map_err(reached),
        }
    }

    fn one(
        &self,
        rows: &rusqlite::Connection,
        path: &Path,
        order: &Order,
        left: &Cell<usize>,
        aside: &mut Vec<Aside>,
    ) -> Result<Done, StoreError> {
        let rows = Rows { connection: rows, path };
        let mailboxes = Mailboxes(rows);
        match order {
            Order::Change { change, .. } => match change.carry_out(rows, self.settings, self.now) {
                Err(error) if !matches!(error.reach(), Reach::One) => Err(error),
                result => Ok(Done::Changed(result)),
            },
            Order::Write(Write::Keep(_, keep)) => self.keep(rows, keep),
            Order::Write(Write::Settle { user, up_to, reports, conn }) => {
                settle(&mailboxes, user, UpTo { seq: *up_to, reports: *reports, strict: conn.is_some() }, left).map(Done::Settled)
            }
            Order::Write(Write::Tried { user, seqs }) => {
                mailboxes.tried(user, seqs, self.settings.attempts, aside)?;
                Ok(Done::Tried)
            }
            Order::Write(Write::Sent(peer, receipt)) => self.outboxes(rows).sent(*peer, receipt).map(Done::Sent),
        }
    }

    fn outboxes<'a>(&'a self, rows: Rows<'a>) -> Outboxes<'a> {
        Outboxes { rows, now: self.now, written: self.written }
    }

    fn keep(&self, rows: Rows<'_>, keep: &Keep) -> Result<Done, StoreError> {
        let bounds = Bounds { messages: self.settings.mailbox_messages as u64, bytes: self.settings.mailbox_bytes as u64 };
        let mut places = Vec::with_capacity(keep.rows() + keep.outgoing.len());
        for parcel in &keep.parcels {
            if let Some(body) = Mailboxes(rows).keep(parcel, bounds, self.now, &mut places)? {
                (self.written)(body);
            }
        }
        let mut met = false;
        for outgoing in &keep.outgoing {
            let (place, is_new) = self.outboxes(rows).keep(outgoing, self.settings)?;
            met |= is_new;
            places.push(place);
        }
        if let Some(memo) = &keep.memo
            && let Some(report) = report(memo, keep, &places)
        {
            match memo.peer {
                Some(peer) => Seen(rows).put(peer, &memo.digest, report.bytes(), self.now, self.settings.seen)?,
                None => Memos::new(rows.connection, rows.path).put(&memo.digest, report.bytes(), self.now, self.settings.memos)?,
            }
        }
        // Last, so that it knows all of them.
        let met = if met { Some(Peers(rows).all()?) } else { None };
        Ok(Done::Kept(places, met))
    }
}

/// Deletes not more than is left to be deleted in this transaction.
fn settle(mailboxes: &Mailboxes<'_>, user: &Username, up_to: UpTo, left: &Cell<usize>) -> Result<Settled, StoreError> {
    let (settled, deleted) = mailboxes.settle(user, up_to, left.get())?;
    left.set(left.get().saturating_sub(deleted));
    Ok(settled)
}

fn reached(error: StoreError) -> Failed {
    Failed { reach: error.reach(), error }
}

/// The text of the report that is to be remembered; none if it is temporary.
fn report(memo: &Memo, keep: &Keep, places: &[Place]) -> Option<Slice> {
    match &memo.report {
        Report::Ready(text) => Some(text.clone()),
        Report::Outcome { kind, id, message_id, counts } => {
            let mut counts = *counts;
            counts.add(keep.tally(places));
            if message_id.is_some() && counts.failure().is_some_and(|(_, temporary, _)| temporary) {
                return None;
            }
            let id = Id::Client(id.clone());
            let packet = match message_id {
                Some(message_id) => outcome(kind, Some(&id), MessageId::Text(message_id), &counts),
                None => for_server(kind, Some(&id), &counts),
            };
            Some(Slice::from(&*packet.body()))
        }
    }
}
