//! What wakes a link's thread while it waits for its socket: a bell that others ring.

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Rung by any thread, heard by one.
#[derive(Debug)]
pub(super) struct Bell {
    fd: OwnedFd,
    stopped: AtomicBool,
}

impl Bell {
    /// # Errors
    /// The system has no descriptor left.
    pub(super) fn new() -> io::Result<Bell> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Bell { fd, stopped: AtomicBool::new(false) })
    }

    /// Ends the wait that goes on, or the next one.
    pub(super) fn ring(&self) {
        // It fails only when it was rung 2^64 times and nobody heard.
        let _ = rustix::io::write(&self.fd, &1_u64.to_ne_bytes());
    }

    /// The thread is to end; from now on every wait ends at once.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.ring();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Waits until the socket is ready, if one is given with what for, until the bell was rung, or until `deadline`. Whether the
    /// socket is ready.
    pub(super) fn wait(&self, socket: Option<(BorrowedFd<'_>, PollFlags)>, deadline: Option<Instant>) -> io::Result<bool> {
        if self.is_stopped() {
            return Ok(false);
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // What does not fit is longer than anybody waits.
        let timeout: Option<Timespec> = left.and_then(|left| left.try_into().ok());
        let own = PollFd::new(&self.fd, PollFlags::IN);
        let (rung, ready) = match socket {
            Some((socket, flags)) => {
                let mut both = [own, PollFd::from_borrowed_fd(socket, flags)];
                ended(poll(&mut both, timeout.as_ref()))?;
                let [own, socket] = both;
                (!own.revents().is_empty(), !socket.revents().is_empty())
            }
            None => {
                let mut own = [own];
                ended(poll(&mut own, timeout.as_ref()))?;
                let [own] = own;
                (!own.revents().is_empty(), false)
            }
        };
        if rung {
            let _ = rustix::io::read(&self.fd, &mut [0; 8]);
        }
        Ok(ready)
    }
}

/// A wait that a signal ended has ended.
fn ended(polled: Result<usize, Errno>) -> io::Result<()> {
    match polled {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn a_wait_ends_with_the_bell_the_socket_or_the_time() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let bell = Arc::new(Bell::new().expect("a bell"));
        let soon = || Some(Instant::now() + Duration::from_millis(10));
        let late = || Some(Instant::now() + Duration::from_secs(20));
        let socket = || Some((ours.as_fd(), PollFlags::IN));
        assert!(!bell.wait(socket(), soon()).expect("a wait"));
        assert!(!bell.wait(None, soon()).expect("a wait"));
        bell.ring();
        bell.ring();
        let before = Instant::now();
        assert!(!bell.wait(socket(), late()).expect("a wait"));
        assert!(!bell.wait(None, soon()).expect("a wait"), "it was heard");
        rustix::io::write(&theirs, b"x").expect("room");
        assert!(bell.wait(socket(), late()).expect("a wait"));
        let other = Arc::clone(&bell);
        let thread = crate::thread::spawn("waiting", 64 << 10, move || other.wait(None, None)).expect("a thread");
        bell.stop();
        assert!(!thread.join().expect("no panic").expect("a wait"));
        assert!(!bell.wait(socket(), late()).expect("a wait"), "and it stays stopped");
        assert!(before.elapsed() < Duration::from_secs(15));
    }
}
