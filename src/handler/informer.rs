//! Where a handler asks: a UNIX socket of its own, for the owner of the server alone. It has an [`Acceptor`], which
//! `server.rs` starts and stops, and whoever connects gets a thread.

use crate::connection::informer;
use crate::dispatcher::inlet::Inlet;
use crate::logging::Quota;
use crate::name::{ConnIds, TypeName};
use crate::outlet::Total;
use crate::transport::Acceptor;
use log::{error, warn};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

const STACK_BYTES: usize = 128 << 10;
/// Connections of one handler to its informer at once.
const CONNECTIONS_MAX: usize = 16;

/// What connections to informers share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// To the dispatcher.
    pub inbound: Inlet,
    /// Numbers for connections.
    pub conns: ConnIds,
    /// Bytes that wait to go out.
    pub outgoing: Arc<Total>,
}

/// Listens at `path` for the handler of this type.
pub fn start(kind: &TypeName, path: &Path, shared: Shared) -> io::Result<Acceptor> {
    let open = Arc::new(AtomicUsize::new(0));
    let mut quota = Quota::default();
    let kind = kind.clone();
    Acceptor::start(format!("{kind} informer"), STACK_BYTES, path, move |stream| serve(&kind, stream, &shared, &open, &mut quota))
}

fn serve(kind: &TypeName, stream: UnixStream, shared: &Shared, open: &Arc<AtomicUsize>, quota: &mut Quota) {
    if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
        open.fetch_sub(1, Ordering::Relaxed);
        let words = || format!("has {CONNECTIONS_MAX} connections to its informer already; one more is refused");
        return quota.line(Instant::now(), words, &mut |line| warn!("handler {kind} {line}"));
    }
    let (conn, shared, counted) = (shared.conns.next(), shared.clone(), Arc::clone(open));
    let body = move || {
        informer::serve(&shared.inbound, conn, stream, &shared.outgoing);
        counted.fetch_sub(1, Ordering::Relaxed);
    };
    if let Err(error) = crate::thread::spawn(format!("{kind} asks {}", conn.0), informer::STACK_BYTES, body) {
        open.fetch_sub(1, Ordering::Relaxed);
        error!("no thread for a connection of handler {kind} to its informer: {error}");
    }
}
