//! The storage thread of a server.
//!
//! * Spawned by [`Store::start`], whose caller joins it.
//! * Owns the server's [`Database`].
//! * Waits on the bounded channel of orders, which every [`Store`] sends to.
//! * Ends when the last [`Store`] is dropped, after everything that was ordered.
//!
//! It takes all orders that wait. What only reads is answered at once; all changes go into one transaction with one
//! commit, and are answered after it. So a sync of the disk is paid once for everyone who came while the last one went
//! on.

use super::accounts::Accounts;
use super::{Account, Database, Standing, StoreError};
use crate::name::Username;
use crate::password::Hash;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Orders that are carried out together, at most: bounds how long the first of them waits for its answer.
const GROUP_MAX: usize = 256;
/// An order that could not be begun within this time is not carried out.
const BEGIN_WITHIN: Duration = Duration::from_secs(2);
/// How long the storage thread waits for another process that is writing.
const LOCK_WITHIN: Duration = Duration::from_secs(2);
/// How long an answer is waited for. Longer than the other two together, so that whoever is told "busy" can be sure
/// that nothing happens later, unless the disk itself hangs.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// SQLite's parser and its sorter stay far below this.
const STACK_BYTES: usize = 1 << 20;

/// A handle onto the storage thread. Its methods block, up to 5 s: they are for threads of connections.
///
/// All of them fail with [`StoreError::Busy`] when too much waits or the answer does not come in time, and with
/// [`StoreError::Stopped`] when the thread has ended or takes no more changes.
#[derive(Debug, Clone)]
pub struct Store {
    orders: Sender<Order>,
}

impl Store {
    /// Starts the storage thread; at most `queue` orders wait for it. It ends with the last clone of the [`Store`].
    ///
    /// # Errors
    /// The system has no thread left, or SQLite refuses its settings.
    pub fn start(database: Database, queue: usize) -> io::Result<(Self, JoinHandle<()>)> {
        let timeout = database.connection.busy_timeout(LOCK_WITHIN);
        timeout.map_err(io::Error::other)?;
        let (orders, incoming) = bounded(queue);
        let mut writer = Writer { database, failed: false };
        let thread = crate::thread::spawn("storage", STACK_BYTES, move || writer.run(&incoming))?;
        Ok((Self { orders }, thread))
    }

    /// The account of `name`, if there is one.
    ///
    /// # Errors
    /// [`StoreError::BadAccount`], or the database's trouble.
    pub fn account(&self, name: &Username) -> Result<Option<Account>, StoreError> {
        let name = name.clone();
        self.ask(ANSWER_WITHIN, |reply| Work::Account { name, reply })
    }

    /// Adds an account; gives its revision.
    ///
    /// # Errors
    /// [`StoreError::Taken`], or the database's trouble.
    pub fn register(&self, name: Username, password: Hash) -> Result<u64, StoreError> {
        self.change(Change::Register { name, password })
    }

    /// Gives an account another password if it is still at the revision `expected`; gives the new revision.
    ///
    /// # Errors
    /// [`StoreError::Unknown`], [`StoreError::Changed`], or the database's trouble.
    pub fn change_password(&self, name: Username, password: Hash, expected: u64) -> Result<u64, StoreError> {
        self.change(Change::Password { name, password, expected })
    }

    /// How accounts stand: those of `names` in that order, or all that there are.
    ///
    /// # Errors
    /// The database's trouble.
    pub fn standings(&self, names: Option<Vec<Username>>) -> Result<Vec<(Username, Standing)>, StoreError> {
        self.ask(ANSWER_WITHIN, |reply| Work::Standings { names, reply })
    }

    fn change(&self, change: Change) -> Result<u64, StoreError> {
        self.ask(ANSWER_WITHIN, |reply| Work::Change { change, reply })
    }

    fn ask<T>(&self, patience: Duration, work: impl FnOnce(Reply<T>) -> Work) -> Result<T, StoreError> {
        let now = Instant::now();
        let (reply, answer) = bounded(1);
        let order = Order { begin_by: now + BEGIN_WITHIN, work: work(reply) };
        self.orders.try_send(order).map_err(|e| match e {
            TrySendError::Full(_) => StoreError::Busy,
            TrySendError::Disconnected(_) => StoreError::Stopped,
        })?;
        match answer.recv_deadline(now + patience) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => Err(StoreError::Busy),
            Err(RecvTimeoutError::Disconnected) => Err(StoreError::Stopped),
        }
    }
}

/// Has room for the one answer, so that answering never waits.
type Reply<T> = Sender<Result<T, StoreError>>;

#[derive(Debug)]
struct Order {
    /// Whoever ordered it has given up some time after this.
    begin_by: Instant,
    work: Work,
}

#[derive(Debug)]
enum Work {
    Account { name: Username, reply: Reply<Option<Account>> },
    Standings { names: Option<Vec<Username>>, reply: Reply<Vec<(Username, Standing)>> },
    Change { change: Change, reply: Reply<u64> },
}

#[derive(Debug)]
enum Change {
    Register { name: Username, password: Hash },
    Password { name: Username, password: Hash, expected: u64 },
}

impl Change {
    fn carry_out(&self, accounts: &Accounts<'_>) -> Result<u64, StoreError> {
        match self {
            Self::Register { name, password } => accounts.add(name, password),
            Self::Password { name, password, expected } => accounts.set_password(name, password, Some(*expected)),
        }
    }
}

struct Writer {
    database: Database,
    /// The disk has failed during a change. What it holds now is not known, and a later sync that succeeds would say
    /// nothing about what the failed one should have written: no change is taken any more.
    failed: bool,
}

impl Writer {
    fn run(&mut self, incoming: &Receiver<Order>) {
        while let Ok(first) = incoming.recv() {
            let rest = incoming.try_iter().take(GROUP_MAX - 1);
            let orders = std::iter::once(first).chain(rest).collect();
            self.carry_out(orders);
        }
    }

    fn carry_out(&mut self, orders: Vec<Order>) {
        let mut changes = Vec::new();
        let mut replies = Vec::new();
        for Order { begin_by, work } in orders {
            // Nobody waits for these any more, or not for long enough.
            let late = Instant::now() > begin_by;
            match work {
                Work::Account { reply, .. } if late => answer(&reply, Err(StoreError::Busy)),
                Work::Standings { reply, .. } if late => answer(&reply, Err(StoreError::Busy)),
                Work::Change { reply, .. } if late => answer(&reply, Err(StoreError::Busy)),
                Work::Account { name, reply } => answer(&reply, self.database.account(&name)),
                Work::Standings { names, reply } => {
                    answer(&reply, self.database.standings(names.as_deref()));
                }
                Work::Change { change, reply } => {
                    changes.push(change);
                    replies.push(reply);
                }
            }
        }
        if changes.is_empty() {
            return;
        }
        match self.change(&changes) {
            Ok(results) => replies.iter().zip(results).for_each(|(reply, result)| answer(reply, result)),
            Err(e) => replies.iter().for_each(|reply| answer(reply, Err(e.clone()))),
        }
    }

    /// Carries out `changes` in one transaction: each has its own result, or the whole group fails and nothing of it
    /// has happened.
    fn change(&mut self, changes: &[Change]) -> Result<Vec<Result<u64, StoreError>>, StoreError> {
        if self.failed {
            return Err(StoreError::Stopped);
        }
        let results = change_all(&mut self.database, changes);
        if let Err(e) = &results {
            log::error!("accounts were not changed: {}", e.with_causes());
            if e.is_disk_failure() {
                log::error!("the disk failed: no more changes until the server is started again");
                self.failed = true;
            }
        }
        results
    }
}

fn change_all(database: &mut Database, changes: &[Change]) -> Result<Vec<Result<u64, StoreError>>, StoreError> {
    let (mut transaction, path) = database.begin()?;
    let fail = |e| StoreError::of(path, e);
    let mut results = Vec::with_capacity(changes.len());
    for change in changes {
        let savepoint = transaction.savepoint().map_err(fail)?;
        let result = change.carry_out(&Accounts::new(&savepoint, path));
        match result {
            Ok(_) => savepoint.commit().map_err(fail)?,
            Err(ref e) => {
                // Undoes this change alone ...
                drop(savepoint);
                // ... unless SQLite has undone the transaction, as it does for some errors. What came before is gone
                // then, and what came next would be a transaction each.
                if transaction.is_autocommit() {
                    return Err(e.clone());
                }
            }
        }
        results.push(result);
    }
    transaction.commit().map_err(fail)?;
    Ok(results)
}

fn answer<T>(reply: &Reply<T>, result: Result<T, StoreError>) {
    if let Err(e) = &result
        && e.is_trouble()
    {
        log::error!("{}", e.with_causes());
    }
    send(reply, result);
}

fn send<T>(reply: &Reply<T>, result: Result<T, StoreError>) {
    // It fails when nobody waits any more, and then nobody needs it.
    let _ = reply.try_send(result);
}

#[cfg(test)]
mod tests;
