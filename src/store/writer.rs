//! The storage thread: the only one of a server that changes the database.
//!
//! * Spawned by [`Store::start`](super::Store::start), joined by [`Threads`](super::Threads).
//! * Owns a [`Database`], and hands it back at its end.
//! * Waits on the bounded queue of orders, which every [`Store`](super::Store) pushes to.
//! * Ends when that is closed, after everything that was ordered.
//!
//! It takes all that waits, as far as the first must not wait too long for the last, into one transaction with one commit.
//! What came of it is told after that. So a sync of the disk is paid once for everyone who came while the last one went
//! on. What lies for too long is deleted in between, a little at a time.
//!
//! When the disk fails, everything in that transaction has failed, and so has what is ordered from then on, at once; once a
//! second it is tried whether the disk works again. Acknowledgements and receipts are then carried out late.

use super::accounts::Accounts;
use super::error::Reach;
use super::expiry::Expiry;
use super::group::{Done, Failed, Group, Outcome};
use super::invitations::{Guest, Invitations};
use super::mail::{Digest, Receipt, Told, Trouble, Write};
use super::mailbox::{Aside, Settled};
use super::queue::{Size, Taken};
use super::rows::Rows;
use super::threads::{LOCK_WITHIN, Reply, Shared, Tell};
use super::trouble::Troubles;
use super::{Database, Settings, StoreError, calendar};
use crate::name::Username;
use crate::password::Hash;
use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is carried out together at most: bounds how long the first waits for the last.
const GROUP: Size = Size { rows: 1024, bytes: 4 << 20 };
/// Late receipts that are tried again at once.
const LATE_MAX: usize = 64;
/// How long it waits before it tries again what failed.
const RETRY: Duration = Duration::from_secs(1);

/// A change that somebody ordered.
#[derive(Debug)]
pub(super) enum Order {
    /// The dispatcher.
    Write(Write),
    /// A connection's thread, which has given up some time after `begin_by`.
    Change { change: Change, begin_by: Instant, reply: Reply<u64> },
}

/// A change of an account, or a new peer.
#[derive(Debug)]
pub(super) enum Change {
    Register { name: Username, password: Hash },
    Password { name: Username, password: Hash, expected: u64 },
    Accept { secret: Digest, guest: Guest },
}

impl Change {
    /// Gives the revision of the account, or the number of the peer.
    pub(super) fn carry_out(&self, rows: Rows<'_>, settings: &Settings, now: i64) -> Result<u64, StoreError> {
        let accounts = Accounts::new(rows.connection, rows.path);
        match self {
            Self::Accept { secret, guest } => Invitations(rows).accept(secret, guest, settings.peers, now).map(|peer| peer.0),
            Self::Register { name, password } => accounts.add(name, password),
            Self::Password { name, password, expected } => accounts.set_password(name, password, Some(*expected)),
        }
    }
}

pub(super) struct Writer {
    /// None while the disk has failed.
    database: Option<Database>,
    path: PathBuf,
    settings: Arc<Settings>,
    shared: Arc<Shared>,
    tell: Tell,
    expiry: Expiry,
    troubles: Troubles,
    /// Receipts that could not be written down. Without them what other servers have would lie in outboxes until it is too old,
    /// and whoever learns that it was refused would learn it only then, and wrongly.
    late: VecDeque<Write>,
    /// When late acknowledgements and receipts are tried again, and the disk if it has failed.
    retry: Instant,
}

impl Writer {
    pub(super) fn new(database: Database, settings: Arc<Settings>, shared: Arc<Shared>, tell: Tell) -> Self {
        let now = Instant::now();
        Self {
            path: database.path.clone(),
            database: Some(database),
            expiry: Expiry::new(&settings, now, calendar::now()),
            settings,
            shared,
            tell,
            troubles: Troubles::new("writing"),
            late: VecDeque::new(),
            retry: now,
        }
    }

    pub(super) fn run(mut self) -> Option<Database> {
        loop {
            match self.shared.orders.take(GROUP, Some(self.wake())) {
                Taken::Some(orders) => self.carry_out(orders),
                Taken::Nothing => {}
                Taken::Closed => break,
            }
            self.tend();
        }
        self.retry = Instant::now();
        self.reopen_if_due();
        while self.is_late() && Instant::now() >= self.retry {
            self.carry_out(Vec::new());
        }
        self.database
    }

    /// Whether something waits that could not be written down before.
    fn is_late(&self) -> bool {
        !self.late.is_empty() || self.shared.marks.is_late()
    }

    /// When there is something to do though nothing is ordered.
    fn wake(&self) -> Instant {
        let expiry = self.expiry.next();
        if self.database.is_none() {
            self.retry
        } else if self.is_late() {
            self.retry.min(expiry)
        } else {
            expiry
        }
    }

    fn tend(&mut self) {
        self.reopen_if_due();
        if self.is_late() && Instant::now() >= self.retry {
            self.carry_out(Vec::new());
        }
        let Some(database) = &mut self.database else { return };
        let shared = Arc::clone(&self.shared);
        match self.expiry.go_on(database, Instant::now(), calendar::now(), &|body| shared.marks.written(body)) {
            Ok(users) => self.tell(reported(users).into_iter().collect()),
            Err(error) => self.failed(Failed { reach: error.reach(), error }),
        }
    }

    fn carry_out(&mut self, orders: Vec<Order>) {
        let now = Instant::now();
        let mut all = Vec::new();
        let mut late = Vec::new();
        if now >= self.retry {
            late = self.shared.marks.late();
            all.extend(self.late.drain(..self.late.len().min(LATE_MAX)).map(Order::Write));
        }
        all.extend(orders.into_iter().filter_map(|order| in_time(order, now)));
        let orders = all;
        let shared = Arc::clone(&self.shared);
        let group = Group { settings: &self.settings, now: calendar::now(), written: &|body| shared.marks.written(body) };
        let result = match &mut self.database {
            Some(database) => group.carry_out(database, &late, &orders),
            None => Err(Failed { error: self.troubles.last(), reach: Reach::Group }),
        };
        match result {
            Ok(outcome) => {
                self.troubles.none(now);
                self.succeeded(orders, outcome);
            }
            Err(failed) => {
                let (error, reach) = (failed.error.clone(), failed.reach);
                self.give_up(orders, &error, reach);
                if self.database.is_some() {
                    self.failed(failed);
                }
            }
        }
    }

    fn succeeded(&self, orders: Vec<Order>, outcome: Outcome) {
        let marks = &self.shared.marks;
        outcome.caught_up.iter().for_each(|(user, up_to)| marks.caught_up(user, *up_to));
        outcome.aside.iter().for_each(say_aside);
        let mut told = Vec::new();
        for (order, done) in orders.into_iter().zip(outcome.done) {
            let write = match (order, done) {
                (Order::Change { reply, .. }, Done::Changed(result)) => {
                    // It fails when nobody waits any more, and then nobody needs it.
                    _ = reply.try_send(result);
                    continue;
                }
                (Order::Change { reply, .. }, Done::Failed(error)) => {
                    _ = reply.try_send(Err(error));
                    continue;
                }
                (Order::Change { .. }, _) => continue,
                (Order::Write(write), Done::Failed(error)) => {
                    log::error!("a change of a mailbox or an outbox is not possible: {}", error.with_causes());
                    marks.not_done(&write);
                    if let Write::Keep(ticket, _) = write {
                        told.push(Told::Kept(ticket, Err(Trouble::Storage)));
                    }
                    continue;
                }
                (Order::Write(Write::Keep(ticket, _)), Done::Kept(places, met)) => {
                    told.extend(met.map(Told::Met));
                    told.push(Told::Kept(ticket, Ok(places)));
                    continue;
                }
                (Order::Write(write), Done::Sent(users)) => {
                    // In its place among the others: mailboxes are told of in the order of their numbers.
                    told.extend(reported(users));
                    write
                }
                (Order::Write(write), Done::Settled(Settled::Some)) => {
                    if let Write::Settle { user, up_to, .. } = &write {
                        marks.settle_later(user, *up_to);
                    }
                    write
                }
                (Order::Write(write), Done::Settled(Settled::Beyond(last))) => {
                    if let Write::Settle { conn: Some(conn), .. } = write {
                        told.push(Told::Beyond { conn, last });
                    }
                    write
                }
                (Order::Write(write), _) => write,
            };
            marks.done(&write);
        }
        self.tell(told);
    }

    /// Answers orders of which nothing has happened.
    fn give_up(&mut self, orders: Vec<Order>, error: &StoreError, reach: Reach) {
        let busy = matches!(error, StoreError::Busy) && reach == Reach::Group;
        let trouble = if busy { Trouble::Busy } else { Trouble::Storage };
        let mut told = Vec::new();
        for order in orders {
            match order {
                Order::Change { reply, .. } => _ = reply.try_send(Err(error.clone())),
                Order::Write(write) => {
                    self.shared.marks.not_done(&write);
                    if let Write::Keep(ticket, _) = write {
                        told.push(Told::Kept(ticket, Err(trouble)));
                    } else if is_needed(&write) && self.late.len() < self.settings.queue {
                        self.late.push_back(write);
                    }
                }
            }
        }
        self.tell(told);
    }

    fn tell(&self, told: Vec<Told>) {
        if !told.is_empty() {
            (self.tell)(told);
        }
    }

    /// Makes of it what has to follow.
    fn failed(&mut self, Failed { error, reach }: Failed) {
        let now = Instant::now();
        self.retry = now + RETRY;
        let whole = self.database.as_ref().is_some_and(|database| database.connection.is_autocommit());
        if reach == Reach::Database || !whole {
            // What it remembers of the file may be wrong.
            self.database = None;
        }
        if !matches!(error, StoreError::Busy) {
            self.troubles.some(now, error);
        }
    }

    fn reopen_if_due(&mut self) {
        if self.database.is_some() || Instant::now() < self.retry {
            return;
        }
        match reopen(&self.path) {
            Ok(database) => {
                self.database = Some(database);
                self.retry = Instant::now();
                self.troubles.over(self.retry);
            }
            Err(error) => {
                // From now, as a disk may take its time to fail.
                self.retry = Instant::now() + RETRY;
                self.troubles.some(self.retry, error);
            }
        }
    }
}

/// Opens the database again, which is of use only if it takes changes and nothing in it has come to harm.
fn reopen(path: &Path) -> Result<Database, StoreError> {
    let mut database = Database::reopen(path)?;
    let timeout = database.connection.busy_timeout(LOCK_WITHIN);
    timeout.map_err(|error| StoreError::of(path, error))?;
    database.empty_log()?;
    database.prove_writable()?;
    database.check()?;
    Ok(database)
}

/// Whether it must be written down some time: counts of attempts need not.
fn is_needed(write: &Write) -> bool {
    matches!(write, Write::Sent(_, Receipt::Taken(_) | Receipt::Refused(_)))
}

fn reported(users: BTreeSet<Username>) -> Option<Told> {
    (!users.is_empty()).then(|| Told::Reported(users.into_iter().collect()))
}

/// Gives an order back unless it is too late for it.
fn in_time(order: Order, now: Instant) -> Option<Order> {
    match order {
        Order::Change { begin_by, reply, .. } if now > begin_by => {
            _ = reply.try_send(Err(StoreError::Busy));
            None
        }
        order => Some(order),
    }
}

fn say_aside(aside: &Aside) {
    let Aside { user, seq, kind, message_id, attempts } = aside;
    log::warn!(
        "message {message_id} of type {kind} is set aside: it was sent to {user} {attempts} times and not acknowledged \
         (bester queue retry {user} {seq}, or bester queue drop {user} {seq})"
    );
}

#[cfg(test)]
mod tests;
