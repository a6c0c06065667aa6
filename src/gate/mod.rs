//! What a connection's thread and the dispatcher know of each other: how many messages are under way, what became
//! of a login, and whether the connection is to end.
//!
//! The thread takes a place for each message and waits when there is none left: it then does not read, and the
//! client feels it. The dispatcher gives the place back. The lock is held for a few instructions only.

mod close;
mod incoming;

pub use close::CloseReason;
pub use incoming::Incoming;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A place that gives itself back.
#[derive(Debug)]
pub struct Entry(Arc<Gate>);

impl Drop for Entry {
    fn drop(&mut self) {
        self.0.settle(1, 0);
    }
}

/// Shared by a connection's thread and the dispatcher's.
#[derive(Debug)]
pub struct Gate {
    in_flight_max: usize,
    /// The thread adds, the dispatcher takes away.
    under_way: AtomicUsize,
    bytes: AtomicUsize,
    state: Mutex<State>,
    /// Whether the state says so, to be seen without the lock.
    closing: AtomicBool,
    /// Whether the thread waits for a change. Telling nobody would cost a system call a message all the same.
    waiting: AtomicBool,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    verdict: Option<bool>,
    closing: Option<CloseReason>,
    lingering: bool,
}

impl Gate {
    /// A gate with `in_flight_max` places.
    pub fn new(in_flight_max: usize) -> Gate {
        Gate {
            in_flight_max,
            under_way: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            state: Mutex::default(),
            closing: AtomicBool::new(false),
            waiting: AtomicBool::new(false),
            changed: Condvar::new(),
        }
    }

    /// Whether there is a place for one message more when `others` that did not enter yet have theirs.
    pub fn has_room_beside(&self, others: usize) -> bool {
        self.under_way.load(Ordering::SeqCst) + others < self.in_flight_max
    }

    /// Takes places for messages of so many bytes together, when there is room for them. Only the connection's own thread
    /// enters, so the room cannot be gone since it looked.
    pub fn enter(&self, messages: usize, bytes: usize) {
        self.under_way.fetch_add(messages, Ordering::SeqCst);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Waits for a place and takes it. False if the connection is to end.
    pub fn wait_and_enter(&self) -> bool {
        let open = self.has_room_beside(0) || self.wait_for_room();
        if open {
            self.enter(1, 0);
        }
        open
    }

    /// Waits for a place that gives itself back. `None` if the connection is to end.
    pub fn entry(self: &Arc<Gate>) -> Option<Entry> {
        self.wait_and_enter().then(|| Entry(Arc::clone(self)))
    }

    /// Waits until there is a place. False if the connection is to end.
    pub fn wait_for_room(&self) -> bool {
        let state = self.wait_while(|state| !self.has_room_beside(0) && state.closing.is_none());
        state.closing.is_none()
    }

    /// Waits until nothing is under way. False if the connection is to end.
    pub fn wait_idle(&self) -> bool {
        let state = self.wait_while(|state| self.under_way.load(Ordering::SeqCst) > 0 && state.closing.is_none());
        state.closing.is_none()
    }

    /// Waits for what became of the login (or logout, ...) that the dispatcher was just told of. False also if the
    /// connection is to end.
    pub fn wait_verdict(&self) -> bool {
        let mut state = self.wait_while(|state| state.verdict.is_none() && state.closing.is_none());
        state.verdict.take().unwrap_or(false)
    }

    /// Waits until the dispatcher has ordered the end of the connection.
    pub fn wait_closing(&self) -> CloseReason {
        let state = self.wait_while(|state| state.closing.is_none());
        state.closing.unwrap_or(CloseReason::Ended)
    }

    /// Says that the thread will see the connection to its end by itself and must not be woken from a read.
    pub fn linger(&self) {
        self.lock().lingering = true;
    }

    /// Takes [`Gate::linger`] back.
    pub fn linger_no_longer(&self) {
        self.lock().lingering = false;
    }

    /// Whether the connection is to end.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// The bytes of what is under way.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// For the dispatcher: so many messages of so many bytes together are dealt with.
    pub fn settle(&self, messages: usize, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.under_way.fetch_sub(messages, Ordering::SeqCst);
        // Either the thread, which said that it waits before it looked, saw this change, or this sees that it waits.
        if self.waiting.load(Ordering::SeqCst) {
            let _state = self.lock();
            self.changed.notify_all();
        }
    }

    /// For the dispatcher: what became of what the thread waits for.
    pub fn decide(&self, verdict: bool) {
        self.lock().verdict = Some(verdict);
        self.changed.notify_all();
    }

    /// For the dispatcher: the connection is to end. Returns whether the thread lingers by itself.
    pub fn close(&self, reason: CloseReason) -> bool {
        let mut state = self.lock();
        state.closing.get_or_insert(reason);
        self.closing.store(true, Ordering::SeqCst);
        let lingering = state.lingering;
        drop(state);
        self.changed.notify_all();
        lingering
    }

    fn wait_while(&self, condition: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        self.waiting.store(true, Ordering::SeqCst);
        while condition(&state) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        self.waiting.store(false, Ordering::SeqCst);
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_place_given_back_wakes_the_thread() {
        let gate = Arc::new(Gate::new(1));
        gate.enter(1, 7);
        assert!(!gate.has_room_beside(0));
        let (done, woken) = crossbeam_channel::bounded(1);
        let theirs = Arc::clone(&gate);
        let thread = crate::thread::spawn("waiting", 64 << 10, move || done.send(theirs.wait_for_room()));
        // It says so under the lock that it waits with, so from here on it must be told.
        while !gate.waiting.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        gate.settle(1, 7);
        assert_eq!(woken.recv_timeout(Duration::from_secs(20)), Ok(true));
        thread.expect("a thread").join().expect("no panic").expect("somebody listens");
        assert!(gate.has_room_beside(0) && !gate.has_room_beside(1));
    }

    #[test]
    fn an_entry_gives_its_place_back() {
        let gate = Arc::new(Gate::new(1));
        let entry = gate.entry().expect("a place");
        assert!(!gate.has_room_beside(0));
        drop(entry);
        assert!(gate.has_room_beside(0));
    }

    #[test]
    fn the_end_of_a_connection_ends_every_wait() {
        let gate = Arc::new(Gate::new(1));
        gate.enter(1, 1);
        assert!(!gate.is_closing());
        assert!(!gate.close(CloseReason::Revoked));
        assert!(gate.is_closing());
        assert!(!gate.wait_for_room() && gate.entry().is_none() && !gate.wait_idle() && !gate.wait_verdict());
        assert_eq!(gate.wait_closing(), CloseReason::Revoked);
    }
}
