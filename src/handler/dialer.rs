//! For handlers that get a connection for each message: threads that connect, ask, wait for the one answer and close.
//!
//! Spawned by the keeper (the first) and by each other (one more than there are requests under way at once, up to the
//! handler's `inFlight`); each owns the connection that it is on; they wait for work on a channel; they end when the
//! [`Dialer`] is dropped.

use crate::connection::handler::{self, Complaint, Reading};
use crate::dispatcher::Event;
use crate::dispatcher::run::{Ask, Inbound};
use crate::frame::{Decoder, Packet};
use crate::logging::Quota;
use crate::name::RequestId;
use crate::protocol::reason::Reason;
use crate::transport::unix::Listening;
use crate::transport::{Socket, SocketReader, unix};
use crossbeam_channel::{Receiver, Sender};
use log::warn;
use std::collections::HashMap;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A handler whose socket is not there yet is tried again after this.
const RETRY: Duration = Duration::from_millis(20);
/// For so long at most, and for no more than half the time that the answer may take: whoever asked is to learn that
/// nobody is there before the answer is late.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// An answer is waited for so much longer than it may take: that it is late is for the dispatcher to say, which then ends the
/// connection.
const LATE_SLACK: Duration = Duration::from_secs(5);
/// For the answers of a dead handler that were not read yet.
const REST_WITHIN: Duration = Duration::from_secs(1);

/// What all threads of one dialer know.
#[derive(Debug)]
pub(super) struct Dialing {
    pub(super) kind: String,
    pub(super) path: PathBuf,
    /// The socket itself, where the program is ours: another start of it may have taken the path.
    pub(super) listening: Option<Arc<Listening>>,
    pub(super) reading: Reading,
    /// For the answer; connecting and writing have half of it, and no more than [`CONNECT_WITHIN`].
    pub(super) timeout: Duration,
    pub(super) threads_max: usize,
    pub(super) under_way: UnderWay,
}

/// The connections of requests under way; `None` before it is made. What is not in here was given up.
#[derive(Debug, Default)]
pub(super) struct UnderWay {
    table: Mutex<Table>,
    /// Told when a request is no longer in it.
    gone: Condvar,
}

#[derive(Debug, Default)]
struct Table {
    threads: usize,
    /// Those that wait for a request.
    idle: usize,
    /// The handler is dead or is being replaced: only answers that are already there count.
    over: bool,
    requests: HashMap<RequestId, Option<Arc<Socket>>>,
    /// Of what the log says about failures: a client has as many of them as it likes.
    quota: Quota,
}

impl UnderWay {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives up all requests, after the answers that are already there: their handler is dead or is being replaced.
    pub(super) fn abandon_all(&self) {
        let mut table = self.lock();
        table.over = true;
        table.requests.retain(|_, socket| socket.is_some());
        for socket in table.requests.values().flatten() {
            socket.shutdown(Shutdown::Both);
        }
        // What was written before can still be read, and then comes the end.
        let read = self.gone.wait_timeout_while(table, REST_WITHIN, |table| !table.requests.is_empty());
        read.unwrap_or_else(PoisonError::into_inner).0.requests.clear();
    }

    /// Whether this request is still wanted, and whether a failure of it is news.
    fn wanted(&self, request: RequestId) -> (bool, bool) {
        let table = self.lock();
        let wanted = table.requests.contains_key(&request);
        (wanted, wanted && !table.over)
    }

    /// One thread is busy now; whether there should be another.
    fn is_last_idle(&self, threads_max: usize) -> bool {
        let mut table = self.lock();
        table.idle -= 1;
        table.idle == 0 && table.threads < threads_max
    }

    /// A thread is idle again.
    fn done(&self, request: RequestId) {
        let mut table = self.lock();
        table.idle += 1;
        table.requests.remove(&request);
        drop(table);
        self.gone.notify_all();
    }
}

/// Hands requests to the threads.
#[derive(Debug)]
pub(super) struct Dialer {
    dialing: Arc<Dialing>,
    jobs: Sender<(RequestId, Packet)>,
}

impl Dialer {
    /// Starts the first thread.
    pub(super) fn start(dialing: Arc<Dialing>) -> io::Result<Dialer> {
        let (jobs, incoming) = crossbeam_channel::bounded(dialing.threads_max);
        spawn(&dialing, &incoming)?;
        Ok(Dialer { dialing, jobs })
    }
}

impl Ask for Dialer {
    fn ask(&self, request: RequestId, packet: Packet) {
        let mut table = self.dialing.under_way.lock();
        if table.over {
            return; // the dispatcher is about to learn it
        }
        table.requests.insert(request, None);
        drop(table);
        // The dispatcher asks no more than `inFlight` at once, so there is room; were there none, the deadline for
        // the answer would pass.
        let _ = self.jobs.try_send((request, packet));
    }

    fn abandon(&self, request: RequestId) {
        if let Some(Some(socket)) = self.dialing.under_way.lock().requests.remove(&request) {
            socket.shutdown(Shutdown::Both);
        }
    }
}

fn spawn(dialing: &Arc<Dialing>, jobs: &Receiver<(RequestId, Packet)>) -> io::Result<()> {
    let mut table = dialing.under_way.lock();
    let name = format!("{} dial {}", dialing.kind, table.threads);
    let (dialing, jobs) = (Arc::clone(dialing), jobs.clone());
    crate::thread::spawn(name, handler::STACK_BYTES, move || run(&dialing, &jobs))?;
    table.threads += 1;
    table.idle += 1;
    Ok(())
}

fn run(dialing: &Arc<Dialing>, jobs: &Receiver<(RequestId, Packet)>) {
    for (request, packet) in jobs {
        if dialing.under_way.is_last_idle(dialing.threads_max) {
            // Somebody must be there for the next request. Without another thread it takes its turn with this one.
            let _ = spawn(dialing, jobs);
        }
        let outcome = ask(dialing, request, &packet);
        let (wanted, news) = dialing.under_way.wanted(request);
        let event = match outcome {
            Ok(event) => wanted.then_some(event),
            Err(failure) => news.then(|| failure.tell(dialing, request)),
        };
        let sent = event.is_none_or(|event| dialing.reading.inbound.send(Inbound::One(event)).is_ok());
        // Whoever ends this handler waits for it, so that the answer is there before the news of the end.
        dialing.under_way.done(request);
        if !sent {
            return;
        }
    }
}

/// Why a request was not answered.
struct Failure {
    reason: Reason,
    complaint: Complaint,
}

impl Failure {
    fn tell(self, dialing: &Dialing, request: RequestId) -> Event {
        let Failure { reason, complaint: Complaint { told, logged } } = self;
        let message = format!("handler {} {told}", dialing.kind);
        let words = || format!("handler {} {logged}", dialing.kind);
        dialing.under_way.lock().quota.line(Instant::now(), words, &mut |line| warn!("{line}"));
        Event::Unanswered { id: dialing.reading.id, request, reason, message }
    }
}

fn ask(dialing: &Dialing, request: RequestId, packet: &Packet) -> Result<Event, Failure> {
    let stream = connect(dialing, request).map_err(|error| {
        let complaint = Complaint::with("cannot be reached", format_args!("{}: {error}", dialing.path.display()));
        Failure { reason: Reason::HandlerUnavailable, complaint }
    })?;
    exchange(dialing, request, stream, packet).map_err(|complaint| Failure { reason: Reason::HandlerCrashed, complaint })
}

/// Connects, and waits a while for a program that has not begun to listen.
fn connect(dialing: &Dialing, request: RequestId) -> io::Result<UnixStream> {
    let patience = (dialing.timeout / 2).min(CONNECT_WITHIN);
    let deadline = Instant::now() + patience;
    loop {
        let connected = match &dialing.listening {
            Some(listening) => listening.connect(patience).or_else(|_| unix::connect(&dialing.path, patience)),
            None => unix::connect(&dialing.path, patience),
        };
        let not_yet = match connected {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => error,
            result => return result,
        };
        let wanted = dialing.under_way.lock().requests.contains_key(&request);
        if !wanted || Instant::now() >= deadline {
            return Err(not_yet);
        }
        std::thread::sleep(RETRY);
    }
}

fn exchange(dialing: &Dialing, request: RequestId, stream: UnixStream, packet: &Packet) -> Result<Event, Complaint> {
    let broken = |error: io::Error| Complaint::with("broke the connection", error);
    let socket = Arc::new(Socket::Unix(stream));
    let mut reader = SocketReader::new(Arc::clone(&socket));
    reader.set_timeout(Some(dialing.timeout + LATE_SLACK)).map_err(broken)?;
    match dialing.under_way.lock().requests.get_mut(&request) {
        Some(place) => *place = Some(Arc::clone(&socket)),
        None => return Err("was not waited for".into()),
    }
    if let Socket::Unix(stream) = &*socket {
        let mut stream: &UnixStream = stream;
        for part in packet.parts() {
            stream.write_all(part).map_err(broken)?;
        }
    }
    let reading = &dialing.reading;
    let mut decoder = Decoder::new(reading.framing, reading.frame_bytes_max);
    loop {
        if let Some(frame) = handler::next_frame(reading, &mut decoder)? {
            return Ok(handler::answered(reading, &frame, Some(request)));
        }
        if reader.read(decoder.space(16 << 10)).map_err(broken)? == 0 {
            return Err("closed the connection without an answer".into());
        }
    }
}
