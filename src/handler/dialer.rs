//! For handlers that get a connection for each message: threads that connect, ask, wait for the one answer and close.
//!
//! Spawned by the keeper (the first) and by each other (as many as there are requests under way at once, up to the
//! handler's `inFlight`); each owns the connection that it is on; they wait for work on a channel; they end when the
//! [`Dialer`] is dropped.

use crate::connection::handler::{self, Reading};
use crate::dispatcher::Event;
use crate::dispatcher::run::{Ask, Inbound};
use crate::frame::{Decoder, Packet};
use crate::name::RequestId;
use crate::protocol::reason::Reason;
use crate::transport::{Socket, Source, unix};
use crossbeam_channel::{Receiver, Sender};
use log::warn;
use std::collections::HashMap;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A handler whose socket is not there yet is tried again after this.
const RETRY: Duration = Duration::from_millis(20);

/// What all threads of one dialer know.
#[derive(Debug)]
pub(super) struct Dialing {
    pub(super) kind: String,
    pub(super) path: PathBuf,
    pub(super) reading: Reading,
    /// For connecting, for writing, and for the answer.
    pub(super) timeout: Duration,
    pub(super) threads_max: usize,
    pub(super) under_way: UnderWay,
}

/// The connections of requests under way; `None` before it is made. What is not in here was given up.
#[derive(Debug, Default)]
pub(super) struct UnderWay(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    threads: usize,
    requests: HashMap<RequestId, Option<Arc<Socket>>>,
}

impl UnderWay {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives up all requests: their handler is dead or is being replaced.
    pub(super) fn abandon_all(&self) {
        for socket in self.lock().requests.drain().filter_map(|(_, socket)| socket) {
            socket.shutdown(Shutdown::Both);
        }
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
        self.dialing.under_way.lock().requests.insert(request, None);
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
    Ok(())
}

fn run(dialing: &Arc<Dialing>, jobs: &Receiver<(RequestId, Packet)>) {
    for (request, packet) in jobs {
        let more = !jobs.is_empty() && dialing.under_way.lock().threads < dialing.threads_max;
        if more {
            // Without another thread the requests that wait take their turn with this one.
            let _ = spawn(dialing, jobs);
        }
        let event = ask(dialing, request, &packet);
        let given_up = dialing.under_way.lock().requests.remove(&request).is_none();
        if !given_up && dialing.reading.inbound.send(Inbound::One(event)).is_err() {
            return;
        }
    }
}

fn ask(dialing: &Dialing, request: RequestId, packet: &Packet) -> Event {
    let unanswered = |reason, words: String| Event::Unanswered {
        route: dialing.reading.route,
        request,
        reason,
        message: format!("handler {} {words}", dialing.kind),
    };
    let stream = match connect(dialing, request) {
        Ok(stream) => stream,
        Err(error) => {
            warn!("handler {} cannot be reached at {}: {error}", dialing.kind, dialing.path.display());
            return unanswered(Reason::HandlerUnavailable, "cannot be reached".into());
        }
    };
    match exchange(dialing, request, stream, packet) {
        Ok(event) => event,
        Err(words) => {
            warn!("handler {} {words}", dialing.kind);
            unanswered(Reason::HandlerCrashed, words)
        }
    }
}

/// Connects, and waits a while for a program that has not begun to listen.
fn connect(dialing: &Dialing, request: RequestId) -> io::Result<UnixStream> {
    let deadline = Instant::now() + dialing.timeout;
    loop {
        let not_yet = match unix::connect(&dialing.path, dialing.timeout) {
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

fn exchange(dialing: &Dialing, request: RequestId, stream: UnixStream, packet: &Packet) -> Result<Event, String> {
    let broken = |error: io::Error| format!("broke the connection: {error}");
    for part in packet.parts() {
        (&stream).write_all(part).map_err(broken)?;
    }
    let socket = Arc::new(Socket::Unix(stream));
    socket.set_read_timeout(Some(dialing.timeout)).map_err(broken)?;
    match dialing.under_way.lock().requests.get_mut(&request) {
        Some(place) => *place = Some(Arc::clone(&socket)),
        None => return Err("was not waited for".into()),
    }
    let reading = &dialing.reading;
    let mut source = Source::Socket(socket);
    let mut decoder = Decoder::new(reading.framing, reading.frame_bytes_max);
    loop {
        if let Some(frame) = handler::next_frame(reading, &mut decoder)? {
            return Ok(handler::answered(reading, &frame, Some(request)));
        }
        if source.read(decoder.space(16 << 10)).map_err(broken)? == 0 {
            return Err("closed the connection without an answer".into());
        }
    }
}
