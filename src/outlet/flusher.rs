//! The thread that finishes what slow connections did not take at once.
//!
//! Spawned by `server.rs`; owns the registry of outlets in which something waits; waits with mio until one of them
//! can be written, or a new one is handed to it; ends when the last [`Flusher`] is dropped.

use crate::outlet::{Outlet, Sent};
use crossbeam_channel::{Receiver, Sender, TryRecvError};
use log::error;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use std::collections::HashMap;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::JoinHandle;

const WAKER: Token = Token(usize::MAX);
const EVENTS: usize = 256;

/// Hands outlets to the flusher thread.
#[derive(Debug)]
pub struct Flusher {
    // The sender must go first: the thread ends when it wakes up and finds the channel without one.
    sender: Sender<Arc<Outlet>>,
    waker: WakeOnDrop,
}

#[derive(Debug)]
struct WakeOnDrop(Arc<Waker>);

impl Drop for WakeOnDrop {
    fn drop(&mut self) {
        let _ = self.0.wake(); // without the wake-up the thread only ends later
    }
}

impl Flusher {
    /// Starts the thread. At most `outlets_max` outlets can be on their way to it at once: one a connection.
    pub fn start(outlets_max: usize) -> io::Result<(Flusher, JoinHandle<()>)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let (sender, receiver) = crossbeam_channel::bounded(outlets_max);
        // A waker that is dropped right after it was used takes its wake-up along, so the thread keeps one, too.
        let kept = Arc::clone(&waker);
        let body = move || {
            let _kept = kept;
            run(poll, &receiver);
        };
        let thread = crate::thread::spawn("flusher", 128 << 10, body)?;
        Ok((Flusher { sender, waker: WakeOnDrop(waker) }, thread))
    }

    /// Has an outlet seen to that said [`Sent::Waits`].
    pub fn take(&self, outlet: &Arc<Outlet>) {
        if self.sender.try_send(Arc::clone(outlet)).is_err() {
            // An outlet says so once until it is empty again, so there is room for all; were there none, the
            // connection would be stuck, and it is better to end it.
            outlet.abort();
        }
        let _ = self.waker.0.wake(); // fails only if the thread is gone, at the end of the server
    }
}

fn run(mut poll: Poll, receiver: &Receiver<Arc<Outlet>>) {
    let mut events = Events::with_capacity(EVENTS);
    let mut outlets: HashMap<Token, Arc<Outlet>> = HashMap::new();
    let mut next = 0;
    loop {
        if let Err(error) = poll.poll(&mut events, None) {
            if error.kind() != io::ErrorKind::Interrupted {
                error!("waiting for slow connections: {error}");
                return;
            }
            continue;
        }
        let mut woken = false;
        for event in &events {
            if event.token() == WAKER {
                woken = true;
            } else if outlets.get(&event.token()).is_some_and(|outlet| flush(&poll, outlet)) {
                outlets.remove(&event.token());
            }
        }
        if !woken {
            continue;
        }
        // Some may have been ended by others, without an event: those that closed their own descriptor.
        outlets.retain(|_, outlet| !outlet.is_shut());
        loop {
            match receiver.try_recv() {
                Ok(outlet) => {
                    next += 1;
                    let token = Token(next);
                    if register(&poll, token, &outlet) {
                        outlets.insert(token, outlet);
                    }
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return,
            }
        }
    }
}

/// Readiness is told once for each change; an outlet that can be written already is told of at once, and
/// [`Outlet::flush`] writes until the other side takes no more.
fn register(poll: &Poll, token: Token, outlet: &Outlet) -> bool {
    let registered = outlet.with_fd(|fd| poll.registry().register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::WRITABLE));
    match registered {
        Some(Ok(())) => true,
        Some(Err(error)) => {
            error!("a slow connection is ended, for it cannot be waited for: {error}");
            outlet.abort();
            false
        }
        None => false,
    }
}

/// Whether the outlet needs no more care.
fn flush(poll: &Poll, outlet: &Outlet) -> bool {
    if matches!(outlet.flush(), Sent::Waits | Sent::WaitsOn) {
        return false;
    }
    // It fails when the descriptor is closed, which takes it out as well.
    let _ = outlet.with_fd(|fd| poll.registry().deregister(&mut SourceFd(&fd.as_raw_fd())));
    true
}
