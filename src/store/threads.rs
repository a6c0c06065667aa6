//! How everybody else reaches the storage threads, and how they are started and ended.

use super::invitations::Guest;
use super::mail::{Digest, OutboxPage, Read, Receipt, Report, Told, Write};
use super::marks::Marks;
use super::queue::{Full, Queue, Size};
use super::reader::{Question, Reader};
use super::runs::Run;
use super::writer::{Change, Order, Writer};
use super::{Account, Database, Peer, Settings, Standing, StoreError};
use crate::name::{PeerId, ServerName, Username};
use crate::password::Hash;
use crate::tls::Pin;
use crate::transport::HostPort;
use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// An order that could not be begun within this time is not carried out.
const BEGIN_WITHIN: Duration = Duration::from_secs(2);
/// How long the storage threads wait for another process that is writing.
pub(super) const LOCK_WITHIN: Duration = Duration::from_secs(2);
/// How long an answer is waited for. Longer than the other two together, so that whoever is told "busy" can be sure
/// that nothing happens later, unless the disk itself hangs.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// SQLite's parser and its sorter stay far below this.
const STACK_BYTES: usize = 1 << 20;

/// A handle onto the storage threads: one writes, one only reads, so that no question waits for a disk to sync.
///
/// [`Store::write`] and [`Store::read`] never wait: they are for the dispatcher, which is told the answers. All other
/// methods block, up to 5 s: they are for threads of connections. Those fail with [`StoreError::Busy`] when too much waits
/// or the answer does not come in time, and with [`StoreError::Stopped`] once the threads have been told to end.
#[derive(Debug, Clone)]
pub struct Store(Arc<Shared>);

/// Where what is told goes to.
pub(super) type Tell = Arc<dyn Fn(Vec<Told>) + Send + Sync>;

/// What a [`Store`] and the threads have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) orders: Queue<Order>,
    pub(super) questions: Queue<Question>,
    pub(super) marks: Marks,
}

impl Shared {
    /// For tests and for [`Store::start`].
    pub(super) fn new(settings: &Settings, run: Run) -> Self {
        Self {
            orders: Queue::new(Size { rows: settings.queue, bytes: settings.queue_bytes }),
            questions: Queue::new(Size { rows: settings.queue, bytes: usize::MAX }),
            marks: Marks::new(run, settings.queue),
        }
    }

    /// As [`Store::write`].
    fn write(&self, writes: Vec<Write>) -> Result<(), Vec<Write>> {
        writes.iter().for_each(|write| self.marks.ordered(write));
        let sized = writes.into_iter().map(|write| {
            let size = size(&write);
            (Order::Write(write), size)
        });
        let mut refused = Vec::new();
        for order in self.orders.push_all(sized) {
            let Order::Write(write) = order else { continue };
            self.marks.not_done(&write);
            if matches!(write, Write::Keep(..) | Write::Sent(..)) {
                refused.push(write);
            }
        }
        if refused.is_empty() { Ok(()) } else { Err(refused) }
    }
}

impl Store {
    /// Starts the storage threads, which say to `tell` what they are to tell the dispatcher; it may wait, for nobody waits
    /// for the threads without a bound.
    ///
    /// # Errors
    /// The system has no thread left, or the database cannot be used.
    pub fn start(
        mut database: Database,
        settings: Settings,
        tell: impl Fn(Vec<Told>) + Send + Sync + 'static,
    ) -> io::Result<(Self, Threads)> {
        let failed = |error: StoreError| io::Error::other(error.with_causes());
        match database.empty_log() {
            // Whoever reads it now will be gone by the time that the log is emptied as a matter of course.
            Ok(()) | Err(StoreError::Busy) => {}
            Err(error) => return Err(failed(error)),
        }
        let run = database.begin_run().map_err(failed)?;
        let timeout = database.connection.busy_timeout(LOCK_WITHIN);
        timeout.map_err(io::Error::other)?;
        let second = Database::reopen(&database.path).map_err(failed)?;
        let shared = Arc::new(Shared::new(&settings, run));
        let settings = Arc::new(settings);
        let tell: Tell = Arc::new(tell);
        let mut threads = Threads { shared: Arc::clone(&shared), writer: None, reader: None };
        let reader = Reader::new(second, Arc::clone(&settings), Arc::clone(&shared), Arc::clone(&tell));
        threads.reader = Some(crate::thread::spawn("storage reader", STACK_BYTES, move || reader.run())?);
        let writer = Writer::new(database, settings, Arc::clone(&shared), tell);
        threads.writer = Some(crate::thread::spawn("storage", STACK_BYTES, move || writer.run())?);
        Ok((Self(shared), threads))
    }

    /// Orders changes, which are carried out in this order, each as a whole, and together with others as soon as the disk
    /// is free. Never waits.
    ///
    /// # Errors
    /// Too much waits already, or the threads end: what fits is taken, and what is given back will not be carried out. Only
    /// [`Write::Keep`] and [`Write::Sent`] are ever given back. An acknowledgement for which there is no room is carried out when
    /// there is some; attempts that are not counted make letters say that they may have come before.
    pub fn write(&self, writes: Vec<Write>) -> Result<(), Vec<Write>> {
        self.0.write(writes)
    }

    /// Asks something. Never waits.
    ///
    /// # Errors
    /// Too much waits already, or the threads end: the question is given back.
    pub fn read(&self, read: Read) -> Result<(), Read> {
        match self.0.questions.push(Question::Read(read), ONE) {
            Err(Full::Now(Question::Read(read)) | Full::Forever(Question::Read(read))) => Err(read),
            _ => Ok(()),
        }
    }

    /// The account of `name`, if there is one.
    ///
    /// # Errors
    /// [`StoreError::BadAccount`], or the database's trouble.
    pub fn account(&self, name: &Username) -> Result<Option<Account>, StoreError> {
        let name = name.clone();
        ask(&self.0.questions, ANSWER_WITHIN, |begin_by, reply| Question::Account { name, begin_by, reply })
    }

    /// How accounts stand: those of `names` in that order, or all that there are.
    ///
    /// # Errors
    /// The database's trouble.
    pub fn standings(&self, names: Option<Vec<Username>>) -> Result<Vec<(Username, Standing)>, StoreError> {
        ask(&self.0.questions, ANSWER_WITHIN, |begin_by, reply| Question::Standings { names, begin_by, reply })
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

    /// The other servers that are known, ordered by name.
    ///
    /// # Errors
    /// [`StoreError::BadPeer`], or the database's trouble.
    pub fn peers(&self) -> Result<Vec<Peer>, StoreError> {
        ask(&self.0.questions, ANSWER_WITHIN, |begin_by, reply| Question::Peers { begin_by, reply })
    }

    /// What waits for another server and has a higher number than `after`, in order: at most so many messages, and at most
    /// so many bytes of their data, but always one message if there is one.
    ///
    /// # Errors
    /// The database's trouble.
    pub fn outbox(&self, peer: PeerId, after: u64, messages_max: usize, bytes_max: usize) -> Result<OutboxPage, StoreError> {
        ask(&self.0.questions, ANSWER_WITHIN, |begin_by, reply| Question::Outbox { peer, after, messages_max, bytes_max, begin_by, reply })
    }

    /// Uses up an invitation, whose secret has this digest, for a server that proved to have the key `pin`: from now on it is a
    /// peer. The same server may do so again, with other addresses too; a few of them are kept. That it does not have the name of
    /// this server is for others to see to.
    ///
    /// # Errors
    /// [`StoreError::NoInvitation`], [`StoreError::PeerTaken`], [`StoreError::PeersFull`], or the database's trouble.
    pub fn accept_invitation(&self, secret: Digest, name: ServerName, addresses: Vec<HostPort>, pin: Pin) -> Result<(), StoreError> {
        self.change(Change::Accept { secret, guest: Guest { name, addresses, pin } }).map(drop)
    }

    fn change(&self, change: Change) -> Result<u64, StoreError> {
        ask(&self.0.orders, ANSWER_WITHIN, |begin_by, reply| Order::Change { change, begin_by, reply })
    }
}

/// Has room for the one answer, so that answering never waits.
pub(super) type Reply<T> = Sender<Result<T, StoreError>>;

const ONE: Size = Size { rows: 1, bytes: 0 };

/// Orders or asks something and waits for the answer.
fn ask<T, Q>(queue: &Queue<Q>, patience: Duration, question: impl FnOnce(Instant, Reply<T>) -> Q) -> Result<T, StoreError> {
    let now = Instant::now();
    let (reply, answer) = bounded(1);
    queue.push(question(now + BEGIN_WITHIN, reply), ONE).map_err(|full| match full {
        Full::Now(_) => StoreError::Busy,
        Full::Forever(_) => StoreError::Stopped,
    })?;
    match answer.recv_deadline(now + patience) {
        Ok(answer) => answer,
        Err(RecvTimeoutError::Timeout) => Err(StoreError::Busy),
        Err(RecvTimeoutError::Disconnected) => Err(StoreError::Stopped),
    }
}

/// What a change counts for while it waits.
fn size(write: &Write) -> Size {
    match write {
        Write::Keep(_, keep) => {
            let letters = keep.parcels.iter().map(|parcel| parcel.letter.bytes() + parcel.letter.message_id.len());
            let memo = keep.memo.as_ref().map_or(0, |memo| match &memo.report {
                Report::Ready(text) => text.len(),
                Report::Outcome { id, message_id, .. } => id.len() + message_id.as_ref().map_or(0, |id| id.len()),
            });
            let outgoing = keep.outgoing.iter().map(|outgoing| outgoing.data.len() + outgoing.message_id.len());
            let rows = keep.rows() + keep.outgoing.len();
            Size { rows: rows.max(1), bytes: letters.sum::<usize>() + outgoing.sum::<usize>() + memo }
        }
        Write::Settle { .. } => ONE,
        Write::Sent(_, Receipt::Taken(seqs) | Receipt::Deferred(seqs)) => Size { rows: seqs.len().max(1), bytes: 0 },
        Write::Sent(..) => ONE,
        Write::Tried { seqs, .. } => Size { rows: seqs.len().max(1), bytes: 0 },
    }
}

/// The storage threads, for whoever is to end them. Dropping it does so, too.
#[derive(Debug)]
pub struct Threads {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<Option<Database>>>,
    reader: Option<JoinHandle<()>>,
}

impl Threads {
    /// Takes no orders and questions any more, waits until all that were taken are done, and closes the database. The next
    /// run then knows that this one told all it had to tell. Others may still have a [`Store`]; what they ask for is refused.
    pub fn finish(self) {
        drop(self);
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.orders.close();
        self.shared.questions.close();
        // Their panics are in the log. The reader ends first: the last to close the database empties its log.
        let _ = self.reader.take().map(JoinHandle::join);
        let database = self.writer.take().and_then(|writer| writer.join().ok()).flatten();
        if let Some(mut database) = database
            && let Err(error) = database.end_run(self.shared.marks.suspect_at_end())
        {
            log::error!("the end of this run is not on the disk: {}", error.with_causes());
        }
    }
}

#[cfg(test)]
mod tests;
