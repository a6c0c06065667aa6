//! The thread that finishes what slow connections did not take at once.
//!
//! Spawned by `server.rs`; owns the registry of outlets in which something waits; waits with mio until one of them
//! can be written, or a new one is handed to it; ends when the last [`Flusher`] is dropped.

use crate::name::ConnId;
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
    sender: Sender<Slow>,
    waker: WakeOnDrop,
}

/// An outlet in which something waits, and whose it is, if somebody wants to know when it is empty.
type Slow = (Arc<Outlet>, Option<ConnId>);

#[derive(Debug)]
struct WakeOnDrop(Arc<Waker>);

impl Drop for WakeOnDrop {
    fn drop(&mut self) {
        let _ = self.0.wake(); // without the wake-up the thread only ends later
    }
}

impl Flusher {
    /// Starts the thread. At most `outlets_max` outlets can be on their way to it at once: one a connection. `empty` is told
    /// whose outlet is empty again; it may wait, which makes slow connections slower.
    pub fn start(outlets_max: usize, empty: impl Fn(ConnId) + Send + 'static) -> io::Result<(Flusher, JoinHandle<()>)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let (sender, receiver) = crossbeam_channel::bounded(outlets_max);
        // A waker that is dropped right after it was used takes its wake-up along, so the thread keeps one, too.
        let kept = Arc::clone(&waker);
        let body = move || {
            let _kept = kept;
            run(poll, &receiver, &empty);
        };
        let thread = crate::thread::spawn("flusher", 128 << 10, body)?;
        Ok((Flusher { sender, waker: WakeOnDrop(waker) }, thread))
    }

    /// Has an outlet seen to that said [`Sent::Waits`]. Once it is empty, it is said whose it is.
    pub fn take(&self, outlet: &Arc<Outlet>, whose: Option<ConnId>) {
        if self.sender.try_send((Arc::clone(outlet), whose)).is_err() {
            // An outlet says so once until it is empty again, so there is room for all; were there none, the
            // connection would be stuck, and it is better to end it.
            outlet.abort();
        }
        let _ = self.waker.0.wake(); // fails only if the thread is gone, at the end of the server
    }
}

fn run(mut poll: Poll, receiver: &Receiver<Slow>, empty: &dyn Fn(ConnId)) {
    let mut events = Events::with_capacity(EVENTS);
    let mut outlets: HashMap<Token, Slow> = HashMap::new();
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
            } else if let Some((outlet, whose)) = outlets.get(&event.token())
                && let Some(sent) = flush(&poll, outlet)
            {
                if let Some(whose) = whose.filter(|_| sent == Sent::All) {
                    empty(whose);
                }
                outlets.remove(&event.token());
            }
        }
        if !woken {
            continue;
        }
        // Some may have been ended by others, without an event: those that closed their own descriptor.
        outlets.retain(|_, (outlet, _)| !outlet.is_shut());
        loop {
            match receiver.try_recv() {
                Ok(slow) => {
                    next += 1;
                    let token = Token(next);
                    if register(&poll, token, &slow.0) {
                        outlets.insert(token, slow);
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

/// What became of the outlet, if it needs no more care.
fn flush(poll: &Poll, outlet: &Outlet) -> Option<Sent> {
    let sent = outlet.flush();
    if matches!(sent, Sent::Waits | Sent::WaitsOn) {
        return None;
    }
    // It fails when the descriptor is closed, which takes it out as well.
    let _ = outlet.with_fd(|fd| poll.registry().deregister(&mut SourceFd(&fd.as_raw_fd())));
    Some(sent)
}
