//! Where a handler asks: a UNIX socket of its own, for the owner of the server alone, or for the handler's own user. It has an [`Acceptor`], which
//! `server.rs` starts and stops, and whoever connects gets a thread.

use crate::config::{Handler, Identity};
use crate::connection::allowance::Allowance;
use crate::connection::informer::{self, Asked};
use crate::dispatcher::inlet::Inlet;
use crate::dispatcher::{Asker, Event};
use crate::frame::Frame;
use crate::logging::Quota;
use crate::name::{ConnId, ConnIds, RouteId, TypeName};
use crate::outlet::Total;
use crate::protocol;
use crate::transport::{Acceptor, unix};
use log::{error, warn};
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

const STACK_BYTES: usize = 128 << 10;
/// Connections of one process of a handler to its informer at once.
const CONNECTIONS_MAX: usize = 16;
/// How deep the data of a pushed answer lies in it.
const ANSWER_DEPTH: usize = 8;

/// How much all processes of a handler may ask and say together.
#[derive(Debug)]
pub(super) struct Voice {
    /// What they may say without being asked.
    pub(super) pushes: Arc<Allowance>,
    connections_max: AtomicUsize,
}

impl Voice {
    pub(super) fn new(pushes: Allowance, instances: usize) -> Voice {
        let voice = Voice { pushes: Arc::new(pushes), connections_max: AtomicUsize::new(0) };
        voice.is_of(instances);
        voice
    }

    /// There are so many processes, and one more while one is replaced.
    pub(super) fn is_of(&self, instances: usize) {
        self.connections_max.store(CONNECTIONS_MAX * (instances + 1), Ordering::Relaxed);
    }
}

/// What connections to informers share.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    /// Whose informer it is.
    pub(super) route: RouteId,
    /// How much the handler may ask and say.
    pub(super) voice: Arc<Voice>,
    /// To the dispatcher.
    pub(super) inbound: Inlet,
    /// Numbers for connections.
    pub(super) conns: ConnIds,
    /// Bytes that wait to go out.
    pub(super) outgoing: Arc<Total>,
    /// The largest frame (`limits.frameBytesHandler`), the deepest data, and the most names in it.
    pub(super) frame_bytes_max: usize,
    pub(super) depth_max: usize,
    pub(super) recipients_max: usize,
}

/// Listens for this handler.
pub(super) fn start(kind: &TypeName, handler: &Handler, shared: Shared) -> io::Result<Acceptor> {
    let identity = handler.program.as_ref().map_or(Ok(None), Identity::of).map_err(io::Error::other)?;
    let listener = listen_for(&handler.informer_socket, handler.informer_directory.as_deref(), identity.as_ref())?;
    let open = Arc::new(AtomicUsize::new(0));
    let mut quota = Quota::default();
    let kind = kind.clone();
    Acceptor::on(listener, format!("{kind} informer"), STACK_BYTES, &handler.informer_socket, move |stream| {
        serve(&kind, stream, &shared, &open, &mut quota)
    })
}

/// Listens at `path`, where `identity` alone may connect. Makes `directory`, which others can go through, but not look into.
fn listen_for(path: &Path, directory: Option<&Path>, identity: Option<&Identity>) -> io::Result<UnixListener> {
    if let Some(directory) = directory {
        unix::make_passage(directory)
            .map_err(|error| io::Error::new(error.kind(), format!("its directory {}: {error}", directory.display())))?;
    }
    let listener = unix::listen(path, 0o600)?;
    if let Some(identity) = identity {
        unix::give(path, identity.uid, identity.gid)?;
    }
    Ok(listener)
}

fn serve(kind: &TypeName, stream: UnixStream, shared: &Shared, open: &Arc<AtomicUsize>, quota: &mut Quota) {
    let most = shared.voice.connections_max.load(Ordering::Relaxed);
    if open.fetch_add(1, Ordering::Relaxed) >= most {
        open.fetch_sub(1, Ordering::Relaxed);
        let words = || format!("has {most} connections to its informer already; one more is refused");
        return quota.line(Instant::now(), words, &mut |line| warn!("handler {kind} {line}"));
    }
    let (conn, shared, counted) = (shared.conns.next(), shared.clone(), Arc::clone(open));
    let body = move || {
        let take = |frame: &Frame| shared.take(conn, frame);
        informer::serve(&shared.inbound, conn, stream, &shared.outgoing, shared.frame_bytes_max, take);
        counted.fetch_sub(1, Ordering::Relaxed);
    };
    if let Err(error) = crate::thread::spawn(format!("{kind} asks {}", conn.0), informer::STACK_BYTES, body) {
        open.fetch_sub(1, Ordering::Relaxed);
        error!("no thread for a connection of handler {kind} to its informer: {error}");
    }
}

impl Shared {
    /// What a frame asks of the dispatcher.
    fn take(&self, conn: ConnId, frame: &Frame) -> Result<Asked, String> {
        let question = protocol::informer::parse(frame, self.depth_max + ANSWER_DEPTH)?;
        if question.kind.as_str() != "push" {
            return Ok(Asked::Dispatcher(Event::Informed(conn, Asker::Handler, question)));
        }
        let data = question.data.ok_or("command.data is missing: push takes what the handler would answer")?;
        let answer = protocol::handler::parse(&Frame::from(data.bytes()), self.depth_max, self.recipients_max);
        let pause = self.voice.pushes.take(Instant::now(), 1);
        if !pause.is_zero() {
            // Whoever says too much is heard more slowly.
            std::thread::sleep(pause);
        }
        Ok(Asked::Dispatcher(Event::Pushed { conn, route: self.route, answer }))
    }
}
