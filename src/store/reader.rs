//! The reading thread, so that no question waits for a disk to sync.
//!
//! * Spawned by [`Store::start`](super::Store::start), joined by [`Threads`](super::Threads).
//! * Owns a [`Database`] of its own on the same file.
//! * Waits on the bounded queue of questions, which every [`Store`](super::Store) pushes to.
//! * Ends when that is closed, after everything that was asked.
//!
//! Each answer is of everything that was committed before the question.

use super::calendar::{self, Calendar};
use super::error::Reach;
use super::mail::{OutboxPage, Read, Told, Trouble};
use super::mailbox::Mailboxes;
use super::memos::Memos;
use super::outbox;
use super::page::Asked;
use super::queue::{Size, Taken};
use super::seen::Seen;
use super::threads::{Reply, Shared, Tell};
use super::trouble::Troubles;
use super::{Account, Database, Peer, Settings, Standing, StoreError};
use crate::name::{PeerId, Username};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Questions that are taken at once.
const GROUP: Size = Size { rows: 64, bytes: usize::MAX };
/// How long it waits before it opens the database again.
const RETRY: Duration = Duration::from_secs(1);

/// A question.
#[derive(Debug)]
pub(super) enum Question {
    /// The dispatcher's.
    Read(Read),
    /// Of a connection's thread, which has given up some time after `begin_by`.
    Account { name: Username, begin_by: Instant, reply: Reply<Option<Account>> },
    /// The same.
    Standings { names: Option<Vec<Username>>, begin_by: Instant, reply: Reply<Vec<(Username, Standing)>> },
    /// Of whoever starts the links to other servers.
    Peers { begin_by: Instant, reply: Reply<Vec<Peer>> },
    /// Of such a link.
    Outbox { peer: PeerId, after: u64, messages_max: usize, bytes_max: usize, begin_by: Instant, reply: Reply<OutboxPage> },
}

pub(super) struct Reader {
    /// None while the disk has failed.
    database: Option<Database>,
    path: PathBuf,
    settings: Arc<Settings>,
    shared: Arc<Shared>,
    tell: Tell,
    calendar: Calendar,
    troubles: Troubles,
    /// Not opened again before this.
    retry: Instant,
}

impl Reader {
    pub(super) fn new(database: Database, settings: Arc<Settings>, shared: Arc<Shared>, tell: Tell) -> Self {
        let now = Instant::now();
        Self {
            path: database.path.clone(),
            database: Some(database),
            settings,
            shared,
            tell,
            calendar: Calendar::new(now, calendar::now()),
            troubles: Troubles::new("reading"),
            retry: now,
        }
    }

    pub(super) fn run(mut self) {
        while let Taken::Some(questions) = self.shared.questions.take(GROUP, None) {
            questions.into_iter().for_each(|question| self.answer(question));
        }
    }

    fn answer(&mut self, question: Question) {
        let late = |begin_by: Instant| Instant::now() > begin_by;
        // An answer fails when nobody waits any more, and then nobody needs it.
        match question {
            Question::Account { begin_by, reply, .. } if late(begin_by) => _ = reply.try_send(Err(StoreError::Busy)),
            Question::Standings { begin_by, reply, .. } if late(begin_by) => _ = reply.try_send(Err(StoreError::Busy)),
            Question::Peers { begin_by, reply } if late(begin_by) => _ = reply.try_send(Err(StoreError::Busy)),
            Question::Outbox { begin_by, reply, .. } if late(begin_by) => _ = reply.try_send(Err(StoreError::Busy)),
            Question::Peers { reply, .. } => _ = reply.try_send(self.ask(Database::peers)),
            Question::Outbox { peer, after, messages_max, bytes_max, reply, .. } => {
                let page = self.ask(|database| outbox::page(database.rows(), peer, after, messages_max, bytes_max));
                _ = reply.try_send(page);
            }
            Question::Account { name, reply, .. } => _ = reply.try_send(self.ask(|database| database.account(&name))),
            Question::Standings { names, reply, .. } => {
                _ = reply.try_send(self.ask(|database| database.standings(names.as_deref())));
            }
            Question::Read(Read::Page { conn, user, after, reports, letters_max, bytes_max }) => {
                // Before the mailbox, as what waits now may be written down in between.
                let (tried, suspect) = self.shared.marks.sent(&user);
                let settings = Arc::clone(&self.settings);
                let start_prefix = &settings.start_prefix;
                let asked = Asked { user: &user, after, reports, letters_max, bytes_max, start_prefix, tried, suspect };
                let page = self.ask(|database| Mailboxes(database.rows()).page(&asked));
                (self.tell)(vec![Told::Page(conn, page.map_err(|error| trouble(&error)))]);
            }
            Question::Read(Read::Memo { digest }) => {
                let wall = calendar::now();
                self.calendar.look(Instant::now(), wall);
                // By a clock that has just jumped nothing is too old.
                let jumped = self.calendar.jumped();
                let since = |age| if jumped { i64::MIN } else { calendar::limit(wall, age) };
                let (since_memo, since_seen) = (since(self.settings.memo_age), since(self.settings.seen_age));
                let memo = self.ask(|database| match Memos::new(&database.connection, &database.path).find(&digest, since_memo)? {
                    None => Seen(database.rows()).find(&digest, since_seen),
                    memo => Ok(memo),
                });
                (self.tell)(vec![Told::Memo(digest, memo.map_err(|error| trouble(&error)))]);
            }
        }
    }

    fn ask<T>(&mut self, question: impl FnOnce(&Database) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let now = Instant::now();
        if self.database.is_none() && now >= self.retry {
            match Database::reopen(&self.path) {
                Ok(database) => self.database = Some(database),
                Err(error) => {
                    self.retry = Instant::now() + RETRY;
                    self.troubles.some(now, error);
                }
            }
        }
        let Some(database) = &self.database else {
            return Err(self.troubles.last());
        };
        let answer = question(database);
        match &answer {
            Ok(_) => self.troubles.none(now),
            Err(error) if error.reach() == Reach::Database => {
                self.troubles.some(now, error.clone());
                self.database = None;
                self.retry = now + RETRY;
            }
            Err(
                error @ (StoreError::BadAccount { .. } | StoreError::BadPeer { .. } | StoreError::Lost { .. } | StoreError::Sqlite { .. }),
            ) => {
                log::error!("{}", error.with_causes())
            }
            Err(_) => {}
        }
        answer
    }
}

fn trouble(error: &StoreError) -> Trouble {
    if matches!(error, StoreError::Busy) { Trouble::Busy } else { Trouble::Storage }
}
