//! Where a handler asks: a UNIX socket of its own, for the owner of the server alone.
//!
//! Spawned by `server.rs` for each handler; owns the listening socket; waits in `accept`; ends when the socket is
//! shut down.

use crate::connection::informer;
use crate::dispatcher::inlet::Inlet;
use crate::name::{ConnIds, TypeName};
use crate::outlet::Total;
use crate::transport::unix;
use log::{error, warn};
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const MODE: u32 = 0o600;
const STACK_BYTES: usize = 128 << 10;
/// Connections of one handler to its informer at once.
const CONNECTIONS_MAX: usize = 16;
/// After an accept that failed.
const PAUSE: Duration = Duration::from_millis(100);

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

/// A handler's informer.
#[derive(Debug)]
pub struct Informer {
    listener: Arc<UnixListener>,
    path: PathBuf,
    thread: JoinHandle<()>,
}

impl Informer {
    /// Listens at `path`.
    pub fn start(kind: &TypeName, path: &Path, shared: Shared) -> io::Result<Informer> {
        let listener = Arc::new(unix::listen(path, MODE)?);
        let accepting = Arc::clone(&listener);
        let kind_ = kind.clone();
        let thread = crate::thread::spawn(format!("{kind} informer"), STACK_BYTES, move || accept(&kind_, &accepting, &shared))?;
        Ok(Informer { listener, path: path.to_owned(), thread })
    }

    /// Ends the thread and removes the socket.
    pub fn stop(self) {
        let _ = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
        let _ = std::fs::remove_file(&self.path);
        let _ = self.thread.join(); // its panic is in the log
    }
}

fn accept(kind: &TypeName, listener: &UnixListener, shared: &Shared) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        match listener.accept() {
            Ok((stream, _)) => serve(kind, stream, shared, &open),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return, // shut down
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                error!("the informer of handler {kind} cannot accept: {error}");
                std::thread::sleep(PAUSE);
            }
        }
    }
}

fn serve(kind: &TypeName, stream: UnixStream, shared: &Shared, open: &Arc<AtomicUsize>) {
    if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
        open.fetch_sub(1, Ordering::Relaxed);
        warn!("handler {kind} has {CONNECTIONS_MAX} connections to its informer already; one more is refused");
        return;
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
