//! A handler that listens on a UNIX socket of its own.
//!
//! One thread accepts, and each connection gets one that reads it, for the server may make one connection for each
//! message; all hand what comes to the one who asks for messages. They end with the process, which the server ends by a
//! signal: on this transport it has no input to close.

use super::message::Incoming;
use super::stream::{self, Latest, Line, Messages, Outbox, Stream};
use super::{Handler, say};
use crate::transport::unix;
use crossbeam_channel::Sender;
use std::fs::File;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

const STACK_BYTES: usize = 128 << 10;
/// Messages that wait to be taken; whoever reads the next one waits.
const WAITING_MAX: usize = 64;
/// As many as the server makes at most.
const CONNECTIONS_MAX: usize = 4096;
/// After an accept that failed for want of something.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) fn start(handler: &Handler, path: &Path) -> io::Result<(Messages, Outbox)> {
    let told = |error: io::Error| io::Error::new(error.kind(), format!("cannot listen at {}: {error}", path.display()));
    let listener = unix::listen(path, 0o600).map_err(told)?;
    let (incoming, messages) = crossbeam_channel::bounded(WAITING_MAX);
    let latest = Latest::default();
    let accepting = Accepting { handler: handler.clone(), incoming, latest: Arc::clone(&latest), open: Arc::default() };
    crate::thread::spawn("accept", STACK_BYTES, move || accepting.run(&listener))?;
    Ok(stream::listening(messages, latest))
}

struct Accepting {
    handler: Handler,
    incoming: Sender<Incoming>,
    latest: Latest,
    open: Arc<AtomicUsize>,
}

impl Accepting {
    fn run(&self, listener: &UnixListener) {
        loop {
            let served = match listener.accept() {
                Ok((stream, _)) => self.serve(stream),
                Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = served {
                say(format_args!("a connection cannot be served: {error}"));
                std::thread::sleep(PAUSE);
            }
        }
    }

    fn serve(&self, connection: UnixStream) -> io::Result<()> {
        if self.open.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
            return Err(io::Error::other(format!("there are {CONNECTIONS_MAX} already")));
        }
        let output = File::from(std::os::fd::OwnedFd::from(connection.try_clone()?));
        let line = Line::new(self.handler.form, self.handler.framing, output);
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&line));
        let stream = Stream::new(connection.into(), Arc::clone(&line));
        let (incoming, latest, open) = (self.incoming.clone(), Arc::clone(&self.latest), Arc::clone(&self.open));
        open.fetch_add(1, Ordering::Relaxed);
        let body = move || {
            read(stream, &incoming);
            let mut latest = latest.lock().unwrap_or_else(PoisonError::into_inner);
            if latest.as_ref().is_some_and(|latest| Arc::ptr_eq(latest, &line)) {
                *latest = None;
            }
            open.fetch_sub(1, Ordering::Relaxed);
        };
        let spawned = crate::thread::spawn("connection", STACK_BYTES, body);
        if spawned.is_err() {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
        spawned.map(drop)
    }
}

fn read(stream: Stream, incoming: &Sender<Incoming>) {
    for read in stream {
        match read {
            Ok(one) => {
                if incoming.send(one).is_err() {
                    return; // nobody asks for messages any longer
                }
            }
            Err(error) if super::is_gone(&error) => return,
            Err(error) => return say(format_args!("a connection is closed: {error}")),
        }
    }
}
