//! Where clients connect: a thread that accepts for each address, and who is admitted (`admission.rs`).
//!
//! Spawned by `server.rs`; each thread owns nothing but a look at its listening socket; waits in `accept`; ends when
//! the socket is shut down. A connection that cannot be served, for want of a place, a descriptor or a thread, is
//! refused with a report, and nothing else suffers. A TLS handshake is done by the connection's own thread (`handshake.rs`).

pub mod admission;
mod handshake;
mod socket;

pub use socket::{ListenError, Listening};

use crate::connection::client::{self, Shared};
use crate::logging::Quota;
use crate::name::{BUILTIN, ConnIds};
use crate::outlet::{Bounds, Outlet, Total};
use crate::protocol::reason::Reason;
use crate::protocol::report::{self, Id};
use crate::transport::{Sink, Socket};
use admission::Admission;
use handshake::Doorman;
use log::{error, warn};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const STACK_BYTES: usize = 128 << 10;
/// After an accept that failed for want of something: from here, doubling, ...
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// ... to here.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// So many refused connections are kept open a little longer, so that what they were told is not lost by a reset.
const REFUSED_KEPT: usize = 16;

/// What the threads of all listeners share.
#[derive(Debug, Clone)]
pub struct Accepting {
    /// For the connections.
    pub clients: Arc<Shared>,
    /// Who may connect.
    pub admission: Arc<Admission>,
    /// Numbers for connections.
    pub conns: ConnIds,
}

/// A thread that accepts.
#[derive(Debug)]
pub struct Listener {
    listening: Arc<Listening>,
    thread: JoinHandle<()>,
}

impl Listener {
    /// Starts to accept.
    pub fn start(listening: Listening, accepting: Accepting) -> io::Result<Listener> {
        let listening = Arc::new(listening);
        let theirs = Arc::clone(&listening);
        let thread = crate::thread::spawn(format!("accept {}", listening.scheme()), STACK_BYTES, move || accept(&theirs, &accepting))?;
        Ok(Listener { listening, thread })
    }

    /// Accepts no more, and gives the address free.
    pub fn stop(self) {
        self.listening.shut();
        let _ = self.thread.join(); // its panic is in the log
    }
}

fn accept(listening: &Listening, accepting: &Accepting) {
    let mut refused = Refusing::new(listening.identity().is_some());
    let doorman = listening.identity().map(|shared| Arc::new(Doorman::new(Arc::clone(shared), accepting.clients.limits.tls)));
    let mut pause = PAUSE_MIN;
    loop {
        match listening.accept() {
            Ok((socket, address)) => {
                pause = PAUSE_MIN;
                serve(listening, doorman.as_ref(), (socket, address), accepting, &mut refused);
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return, // shut down
            // The client was gone before it was accepted.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {}
            Err(error) => {
                error!("{listening} cannot accept: {error}");
                refused.without_descriptor(listening);
                std::thread::sleep(pause);
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

fn serve(
    listening: &Listening,
    doorman: Option<&Arc<Doorman>>,
    (socket, address): (Socket, Option<SocketAddr>),
    accepting: &Accepting,
    refused: &mut Refusing,
) {
    let accepted = Instant::now();
    let place = match accepting.admission.admit(address.map(|address| address.ip())) {
        Ok(place) => place,
        Err(why) => {
            refused.log(listening, &why.to_string());
            return refused.refuse(socket, &why.to_string());
        }
    };
    let conn = accepting.conns.next();
    let from = address.map_or_else(|| listening.to_string(), |address| address.to_string());
    let (clients, doorman) = (Arc::clone(&accepting.clients), doorman.cloned());
    // The thread takes the socket only once it runs: if there is none, the socket is still here to be told so.
    let handed = Arc::new(Mutex::new(Some(socket)));
    let theirs = Arc::clone(&handed);
    let take = |handed: &Mutex<Option<Socket>>| handed.lock().ok().and_then(|mut socket| socket.take());
    let body = move || {
        let _place = place;
        let socket = take(&theirs);
        let let_in = |socket| match &doorman {
            Some(doorman) => doorman.let_in(socket, accepted, &from),
            None => Some(socket),
        };
        if let Some(socket) = socket.and_then(let_in) {
            let address = address.map(|address| address.ip());
            client::serve(&clients, conn, socket, address, accepted, &from);
        }
    };
    if let Err(error) = crate::thread::spawn(format!("client {}", conn.0), client::STACK_BYTES, body) {
        refused.log(listening, &format!("there is no thread for it: {error}"));
        if let Some(socket) = take(&handed) {
            refused.refuse(socket, "this server has no thread left");
        }
    }
}

/// Says no.
struct Refusing {
    /// Whether there is nobody yet whom words could reach: there was no handshake.
    with_tls: bool,
    kept: VecDeque<Arc<Socket>>,
    /// Given up for a moment when there is no other descriptor, to accept a connection and tell it so.
    spare: Option<File>,
    total: Arc<Total>,
    /// Of what the log says about it.
    quota: Quota,
}

impl Refusing {
    fn new(with_tls: bool) -> Refusing {
        let spare = File::open("/dev/null").ok();
        Refusing { with_tls, kept: VecDeque::new(), spare, total: Total::new(usize::MAX), quota: Quota::default() }
    }

    /// Logs a refusal. Whoever connects must not be able to fill the log.
    fn log(&mut self, listening: &Listening, why: &str) {
        let words = || format!("a connection is refused: {why}");
        self.quota.line(Instant::now(), words, &mut |line| warn!("{listening}: {line}"));
    }

    fn refuse(&mut self, socket: Socket, words: &str) {
        let socket = Arc::new(socket);
        let bounds = Bounds { bytes: 0, frames: 1 };
        let sink = Sink::Socket(Arc::clone(&socket));
        // A new socket takes a report at once; one that does not is not worth more trouble.
        if self.with_tls {
            let _ = sink.try_write(&[IoSlice::new(&handshake::NOT_NOW)]);
        } else {
            let outlet = Outlet::new(sink, bounds, Arc::clone(&self.total));
            outlet.send(&[report::bad(BUILTIN, Some(&Id::AuthSpecial), Reason::Busy, words)]);
        }
        socket.shutdown(Shutdown::Write);
        self.kept.push_back(socket);
        if self.kept.len() > REFUSED_KEPT {
            self.kept.pop_front();
        }
    }

    /// There was no descriptor for a connection that waits to be accepted.
    fn without_descriptor(&mut self, listening: &Listening) {
        self.kept.clear();
        if self.spare.take().is_some() {
            // Only if one is waiting still: this must not wait for the next.
            if let Ok(Some((socket, _))) = listening.accept_now() {
                self.refuse(socket, "this server has no descriptor left");
                self.kept.clear();
            }
        }
        self.spare = File::open("/dev/null").ok();
    }
}
