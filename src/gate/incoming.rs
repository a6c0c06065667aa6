//! How many bytes came in and are not yet dealt with, in all connections together (`limits.incomingBytesTotal`).
//! When that is used up, whoever holds more than a little has to wait before reading on. The little is for everybody: otherwise a few with large
//! messages could keep everybody else from sending small ones.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// What a connection may hold although the total is used up; no more than a stranger may send before login.
const ALLOWANCE_BYTES: usize = 16 << 10;

/// The total, shared by all connections.
#[derive(Debug)]
pub struct Incoming {
    bytes: AtomicUsize,
    bytes_max: usize,
    /// Held for telling and while beginning to wait, never while anything else is done.
    telling: Mutex<()>,
    room: Condvar,
}

impl Incoming {
    /// Nothing has come in yet.
    pub fn new(bytes_max: usize) -> Arc<Incoming> {
        Arc::new(Incoming { bytes: AtomicUsize::new(0), bytes_max, telling: Mutex::new(()), room: Condvar::new() })
    }

    /// Counts bytes that came in.
    pub fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::SeqCst);
    }

    /// Counts bytes that are dealt with.
    pub fn give_back(&self, bytes: usize) {
        let before = self.bytes.fetch_sub(bytes, Ordering::SeqCst);
        let crossed = before > self.bytes_max && before - bytes <= self.bytes_max;
        if crossed {
            // Under the lock, so that nobody can be between looking at the total and beginning to wait.
            let _telling = self.telling.lock().unwrap_or_else(PoisonError::into_inner);
            self.room.notify_all();
        }
    }

    /// Whether a connection that holds `held` bytes may read.
    fn has_room(&self, held: usize) -> bool {
        held <= ALLOWANCE_BYTES || self.bytes.load(Ordering::SeqCst) <= self.bytes_max
    }

    /// Waits, at most for `timeout`, until a connection that holds `held` bytes may read.
    pub fn wait(&self, held: usize, timeout: Duration) -> bool {
        if self.has_room(held) {
            return true;
        }
        let telling = self.telling.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |(): &mut ()| !self.has_room(held);
        drop(self.room.wait_timeout_while(telling, timeout, full));
        self.has_room(held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_holders_are_let_through_when_the_total_is_used_up() {
        let incoming = Incoming::new(100 << 10);
        incoming.add((100 << 10) + 1);
        assert!(incoming.has_room(ALLOWANCE_BYTES));
        assert!(!incoming.wait(ALLOWANCE_BYTES + 1, Duration::ZERO));
    }

    #[test]
    fn who_waits_is_told_when_there_is_room() {
        const TIMEOUT: Duration = Duration::from_secs(20);
        let began = std::time::Instant::now();
        // Whether the thread waits already cannot be seen; in so many rounds it does in some.
        for round in 0..200 {
            let incoming = Incoming::new(100 << 10);
            incoming.add(200 << 10);
            let waiting = Arc::clone(&incoming);
            let thread = crate::thread::spawn("waiting", 64 << 10, move || waiting.wait(50 << 10, TIMEOUT)).expect("a thread");
            (0..round).for_each(|_| std::thread::yield_now());
            incoming.give_back(150 << 10);
            assert!(thread.join().expect("no panic"));
            assert!(began.elapsed() < TIMEOUT, "nobody told it, it only looked again in the end");
        }
    }
}
