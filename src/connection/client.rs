//! The thread of a client's connection: it reads, makes frames of the bytes, and keeps the deadlines.
//!
//! Spawned by a listener for each accepted connection; owns the reading half, the decoder and what was agreed so far
//! (`session.rs`); waits in `read`, at the [`Gate`] while too much is under way, and for memory that other
//! connections use; ends when the client goes, when it breaks the rules, or when the dispatcher closes it.

use super::allowance::Allowances;
use super::login::Login;
use super::server::Introduction;
use super::session::{Flow, Session};
use crate::config::{Framing, Limits};
use crate::dispatcher::inlet::Inlet;
use crate::dispatcher::run::{Inbound, Port};
use crate::dispatcher::{Event, Proof};
use crate::frame::Decoder;
use crate::gate::CloseReason;
use crate::gate::{Gate, Incoming};
use crate::logging::Quota;
use crate::name::ConnId;
use crate::outlet::{Bounds, Outlet, Total};
use crate::transport::{Sink, Socket, SocketReader};
use log::{debug, info, warn};
use std::io;
use std::net::{IpAddr, Shutdown};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The stack of a connection's thread; what is touched of it is resident for each idle connection.
pub const STACK_BYTES: usize = 256 << 10;

/// How much is read at once from a client that says little: an idle connection keeps a buffer of this size.
const READ_BYTES_MIN: usize = 2 << 10;
/// How much from one that has more to say: the double each time that it was not enough, up to this.
const READ_BYTES_MAX: usize = 64 << 10;
/// How much more at once while a large frame comes in, at most.
const GROW_BYTES_MAX: usize = 256 << 10;
/// How long the other side may take to read what is left for it at the end.
const FLUSH_WITHIN: Duration = Duration::from_secs(10);
/// How long is listened for its end then: a socket closed with unread bytes in it would be reset, and the last report
/// lost on its way.
const LINGER: Duration = Duration::from_secs(2);
/// What is read and thrown away while lingering, at most.
const LINGER_BYTES: usize = 4 << 20;

/// What all clients' connections share.
#[derive(Debug)]
pub struct Shared {
    /// To the dispatcher.
    pub inbound: Inlet,
    /// All bounds.
    pub limits: Limits,
    /// Proves who somebody is.
    pub login: Login,
    /// Bytes that came in and are not dealt with.
    pub incoming: Arc<Incoming>,
    /// Bytes that wait to go out.
    pub outgoing: Arc<Total>,
    /// What other servers may send.
    pub server_allowances: Allowances,
    /// Whether there are peers that are known by their address alone.
    pub plain_peers: Arc<AtomicBool>,
    /// What connections of other servers need.
    pub introduction: Arc<dyn Introduction>,
    /// Of those who say to be servers, what the log says when they are refused. Held to write a line.
    pub refusals: Mutex<Quota>,
}

impl Shared {
    /// Whether a connection without TLS may be a peer's.
    pub(super) fn has_plain_peers(&self) -> bool {
        self.plain_peers.load(Ordering::Relaxed)
    }

    /// A line in the log for each refusal, but not so many that they fill it.
    pub(super) fn log_refusal(&self, line: impl FnOnce() -> String) {
        let mut quota = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        quota.line(Instant::now(), line, &mut |line| warn!("{line}"));
    }
}

/// Serves one client, or one other server, until it is gone. `address` is where it connected from, and `accepted` is when; `from`
/// is for the log.
pub fn serve(shared: &Arc<Shared>, conn: ConnId, socket: Socket, address: Option<IpAddr>, accepted: Instant, from: &str) {
    let proof = Proof { key: socket.peer_pin(), address, plain: !matches!(socket, Socket::Tls(_)) };
    match proof.key {
        Some(pin) => debug!("{conn} from {from}, with the key {pin}"),
        None => debug!("{conn} from {from}"),
    }
    let socket = Arc::new(socket);
    let limits = &shared.limits;
    let gate = Arc::new(Gate::new(limits.in_flight));
    let bounds = Bounds { bytes: limits.outgoing_bytes, frames: limits.outgoing_frames };
    let outlet = Arc::new(Outlet::new(Sink::Socket(Arc::clone(&socket)), bounds, Arc::clone(&shared.outgoing)));
    let port = Port { outlet: Arc::clone(&outlet), gate: Arc::clone(&gate), socket: Arc::clone(&socket) };
    let told =
        shared.inbound.send(Inbound::Attach(conn, port)).is_ok() && shared.inbound.send(Inbound::One(Event::Connected(conn))).is_ok();
    if !told {
        return; // the server is at its end
    }
    let mut client = Client {
        shared,
        reader: SocketReader::new(Arc::clone(&socket)),
        socket: &socket,
        decoder: Decoder::new(Framing::Length, limits.frame_bytes_before_login),
        read_bytes: READ_BYTES_MIN,
        counted: 0,
        frame_began: None,
        read_timeout: None,
        session: Session::new(Arc::clone(shared), conn, Arc::clone(&gate), proof, accepted),
    };
    client.session.show_proof();
    let end = client.read_all();
    let user = client.session.user_for_log();
    let reason = client.part(end, &gate, &outlet);
    shared.incoming.give_back(client.counted);
    outlet.abort();
    let _ = shared.inbound.send(Inbound::One(Event::Disconnected(conn))); // nobody listens at the end of the server
    match reason {
        CloseReason::Ended | CloseReason::Asked | CloseReason::Stopping | CloseReason::Refused => {
            debug!("{conn} ({user}, {from}) closed: {reason}")
        }
        reason => info!("{conn} ({user}, {from}) closed: {reason}"),
    }
}

/// Why reading stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The client sends nothing more.
    Input,
    /// The session came to its end; the client has been, or is being, told.
    Session,
    /// The connection is of no use any longer.
    Broken(CloseReason),
}

struct Client<'a> {
    shared: &'a Arc<Shared>,
    reader: SocketReader,
    socket: &'a Socket,
    decoder: Decoder,
    /// How much is read at once.
    read_bytes: usize,
    /// What the decoder holds, as counted in the total of incoming bytes.
    counted: usize,
    frame_began: Option<Instant>,
    /// What the socket's own timeout is set to.
    read_timeout: Option<Duration>,
    session: Session,
}

impl Client<'_> {
    fn read_all(&mut self) -> End {
        loop {
            if let Some(end) = self.wait_for_memory().or_else(|| self.keep_deadlines()) {
                return end;
            }
            // A large frame is read in steps that grow with what came of it, never with what it promises.
            let missing = self.decoder.announced().unwrap_or(0).saturating_sub(self.decoder.pending());
            let space = self.read_bytes.max(missing.min(self.decoder.pending()).min(GROW_BYTES_MAX));
            match self.reader.read(self.decoder.space(space)) {
                Ok(0) => {
                    self.session.flush();
                    return End::Input;
                }
                Ok(bytes) if bytes >= self.read_bytes => self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    if let Some(end) = self.forget_old_deadline() {
                        return end;
                    }
                    continue;
                }
                Err(_) => return End::Broken(CloseReason::Broken),
            }
            if let Some(end) = self.take_frames() {
                return end;
            }
        }
    }

    fn take_frames(&mut self) -> Option<End> {
        loop {
            self.decoder.set_frame_bytes_max(self.session.frame_bytes_max());
            match self.decoder.frame() {
                Ok(Some(frame)) => {
                    self.frame_began = None;
                    if self.session.frame(&frame) == Flow::End {
                        return Some(End::Session);
                    }
                }
                Ok(None) => break,
                // Words would be as strange to it as its own are here.
                Err(error) if self.session.is_stranger() && is_tls(error.frame_bytes) => return Some(End::Broken(CloseReason::Tls)),
                Err(error) => {
                    self.session.too_large(&error);
                    return Some(End::Session);
                }
            }
        }
        self.session.flush();
        if self.session.is_closing() {
            return Some(End::Session);
        }
        self.count_pending();
        if self.decoder.pending() > 0 {
            self.frame_began.get_or_insert_with(Instant::now);
        }
        None
    }

    fn count_pending(&mut self) {
        let pending = self.decoder.pending();
        if pending > self.counted {
            self.shared.incoming.add(pending - self.counted);
        } else if pending < self.counted {
            self.shared.incoming.give_back(self.counted - pending);
        }
        self.counted = pending;
    }

    /// Waits while all connections together hold too much, unless this one holds little.
    fn wait_for_memory(&mut self) -> Option<End> {
        while !self.shared.incoming.wait(self.counted + self.session.bytes_under_way(), Duration::from_secs(1)) {
            if self.session.is_closing() {
                return Some(End::Session);
            }
            if let Some(end) = self.check_deadlines() {
                return Some(end);
            }
        }
        None
    }

    /// Sees to it that the next read ends in time. A timeout that is set stays set as long as it is early enough, so
    /// that frames which come in pieces do not cost a system call each.
    fn keep_deadlines(&mut self) -> Option<End> {
        let Some(deadline) = self.deadline() else {
            if self.session.has_just_begun() {
                return self.set_read_timeout(None);
            }
            return None;
        };
        if let Some(end) = self.check_deadlines() {
            return Some(end);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let early_enough = self.read_timeout.is_some_and(|timeout| timeout <= left + Duration::from_millis(500));
        if early_enough { None } else { self.set_read_timeout(Some(left)) }
    }

    /// A timeout that was set for a deadline which is no longer there has woken the thread once; it must not again.
    fn forget_old_deadline(&mut self) -> Option<End> {
        if self.deadline().is_none() { self.set_read_timeout(None) } else { None }
    }

    fn deadline(&self) -> Option<Instant> {
        [self.session.login_deadline(), self.frame_deadline()].into_iter().flatten().min()
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) -> Option<End> {
        if self.read_timeout == timeout {
            return None;
        }
        self.read_timeout = timeout;
        let set = self.reader.set_timeout(timeout);
        set.is_err().then_some(End::Broken(CloseReason::Broken))
    }

    fn frame_deadline(&self) -> Option<Instant> {
        let limits = &self.shared.limits;
        let bytes = self.decoder.announced().unwrap_or(0).min(limits.frame_bytes);
        let by_length = Duration::from_secs((bytes / limits.frame_bytes_per_second.max(1)) as u64);
        self.frame_began.map(|began| began + limits.frame.max(by_length))
    }

    fn check_deadlines(&mut self) -> Option<End> {
        let now = Instant::now();
        if self.session.login_deadline().is_some_and(|deadline| deadline <= now) {
            self.session.login_too_late();
            return Some(End::Session);
        }
        if self.frame_deadline().is_some_and(|deadline| deadline <= now) {
            return Some(End::Broken(CloseReason::FrameTimeout));
        }
        None
    }

    /// Sees the connection to its end: what was asked gets its report, and reports get through.
    fn part(&mut self, end: End, gate: &Gate, outlet: &Outlet) -> CloseReason {
        match end {
            End::Broken(reason) => reason,
            End::Input => {
                self.session.input_ended();
                let reason = gate.wait_closing();
                outlet.wait_shut(Instant::now() + FLUSH_WITHIN);
                reason
            }
            End::Session => {
                let reason = gate.wait_closing();
                outlet.wait_shut(Instant::now() + FLUSH_WITHIN);
                if reason.is_polite() {
                    self.discard_until_end(Instant::now() + LINGER);
                }
                reason
            }
        }
    }

    fn discard_until_end(&mut self, deadline: Instant) {
        let mut discarded = 0;
        let mut buffer = Vec::with_capacity(READ_BYTES_MAX);
        while discarded < LINGER_BYTES {
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO || self.reader.set_timeout(Some(left)).is_err() {
                break;
            }
            buffer.clear();
            match self.reader.read(&mut buffer) {
                // The time is not over yet, or the look at it ends the loop.
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Ok(0) | Err(_) => break,
                Ok(bytes) => discarded += bytes,
            }
        }
        self.socket.shutdown(Shutdown::Both);
    }
}

/// Whether a length is none, but the beginning of a TLS handshake: the kind of the record, and a version from 3.1 on.
fn is_tls(length: usize) -> bool {
    matches!(length.to_le_bytes(), [0x16, 3, 1..=4, ..])
}
