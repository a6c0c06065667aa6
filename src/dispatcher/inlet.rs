//! How everything comes to the dispatcher's thread: a bounded channel, and a way to sleep on it.
//!
//! A thread that waits in the channel itself gives up the processor eight times a round trip before it sleeps, in the
//! hope that something comes. The one receiver here does so once, which lets those run who are about to send, and then
//! sleeps: measured, that is 10 to 20 % less processor time a message.

use super::run::Inbound;
use crossbeam_channel::{Receiver, Sender, TryRecvError};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Instant;

/// The sending side. A send waits while the channel is full.
pub struct Inlet {
    // Dropped before the sleeper is woken, which may find out that nobody is left.
    sender: Option<Sender<Inbound>>,
    sleeper: Arc<Sleeper>,
}

/// The receiving side, for one thread.
#[derive(Debug)]
pub struct Inbox {
    receiver: Receiver<Inbound>,
    sleeper: Arc<Sleeper>,
}

/// The dispatcher is at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended;

/// Why nothing was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nothing {
    /// The time is over.
    Yet,
    /// Nobody is left who could send anything.
    Ever,
}

#[derive(Debug, Default)]
struct Sleeper {
    asleep: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Sleeper {
    fn wake(&self) {
        // Pairs with the fence in `Inbox::receive`: either that looks after the send, or this looks after it said so.
        fence(Ordering::SeqCst);
        // It is said before anybody sleeps which thread it is.
        let asleep = self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed);
        if let Some(thread) = self.thread.get().filter(|_| asleep) {
            thread.unpark();
        }
    }
}

/// A channel for so many items.
pub fn channel(items_max: usize) -> (Inlet, Inbox) {
    let (sender, receiver) = crossbeam_channel::bounded(items_max);
    let sleeper = Arc::new(Sleeper::default());
    (Inlet { sender: Some(sender), sleeper: Arc::clone(&sleeper) }, Inbox { receiver, sleeper })
}

impl Inlet {
    /// Hands something to the dispatcher; waits while it has too much to do.
    pub fn send(&self, inbound: Inbound) -> Result<(), Ended> {
        let sent = self.sender.as_ref().is_some_and(|sender| sender.send(inbound).is_ok());
        self.sleeper.wake();
        if sent { Ok(()) } else { Err(Ended) }
    }
}

impl Clone for Inlet {
    fn clone(&self) -> Inlet {
        Inlet { sender: self.sender.clone(), sleeper: Arc::clone(&self.sleeper) }
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        self.sender = None;
        self.sleeper.wake();
    }
}

impl fmt::Debug for Inlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inlet")
    }
}

impl Inbox {
    /// The next item; waits for it, at most until `deadline`.
    pub fn receive(&self, deadline: Option<Instant>) -> Result<Inbound, Nothing> {
        self.sleeper.thread.get_or_init(std::thread::current);
        loop {
            let received = self.look();
            if !matches!(received, Err(Nothing::Yet)) {
                return received;
            }
            std::thread::yield_now();
            let received = self.look();
            if !matches!(received, Err(Nothing::Yet)) {
                return received;
            }
            self.sleeper.asleep.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            let received = self.look();
            if !matches!(received, Err(Nothing::Yet)) {
                self.sleeper.asleep.store(false, Ordering::Relaxed);
                return received;
            }
            match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => std::thread::park(),
                Some(left) if left.is_zero() => return Err(Nothing::Yet),
                Some(left) => std::thread::park_timeout(left),
            }
        }
    }

    /// What is there already, at most so many items.
    pub fn rest(&self, items_max: usize) -> impl Iterator<Item = Inbound> {
        self.receiver.try_iter().take(items_max)
    }

    /// What is there already.
    pub fn look(&self) -> Result<Inbound, Nothing> {
        self.receiver.try_recv().map_err(|error| match error {
            TryRecvError::Empty => Nothing::Yet,
            TryRecvError::Disconnected => Nothing::Ever,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn nothing_that_is_sent_is_slept_through() {
        const ITEMS: usize = 20_000;
        let (inlet, inbox) = channel(4);
        let receiving = crate::thread::spawn("receiving", 64 << 10, move || {
            let mut received = 0;
            while inbox.receive(None).is_ok() {
                received += 1 + inbox.rest(3).count();
            }
            received
        });
        let send = |inlet: Inlet| (0..ITEMS).for_each(|_| assert_eq!(inlet.send(Inbound::Quit), Ok(())));
        let other = inlet.clone();
        let sending = crate::thread::spawn("sending", 64 << 10, move || send(other)).expect("a thread");
        send(inlet);
        sending.join().expect("no panic");
        assert_eq!(receiving.expect("a thread").join().expect("no panic"), 2 * ITEMS);
    }

    #[test]
    fn the_wait_ends_in_time() {
        let (_inlet, inbox) = channel(1);
        let deadline = Instant::now() + Duration::from_millis(20);
        assert_eq!(inbox.receive(Some(deadline)).err(), Some(Nothing::Yet));
        assert!(Instant::now() >= deadline);
    }

    #[test]
    fn who_is_left_alone_is_told_also_in_his_sleep() {
        for round in 0..200 {
            let (inlet, inbox) = channel(1);
            let (done, told) = crossbeam_channel::bounded(1);
            let thread = crate::thread::spawn("receiving", 64 << 10, move || done.send(inbox.receive(None).err()));
            while !inlet.sleeper.asleep.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            // Between saying that it sleeps and sleeping it looks once more; in most rounds it is past that.
            (0..round).for_each(|_| std::thread::yield_now());
            drop(inlet);
            assert_eq!(told.recv_timeout(Duration::from_secs(20)), Ok(Some(Nothing::Ever)));
            thread.expect("a thread").join().expect("no panic").expect("somebody listens");
        }
    }

    #[test]
    fn what_was_sent_before_the_end_is_received() {
        let (inlet, inbox) = channel(1);
        assert_eq!(inlet.send(Inbound::Quit), Ok(()));
        drop(inlet);
        assert!(inbox.receive(None).is_ok());
        assert_eq!(inbox.receive(None).err(), Some(Nothing::Ever));
    }

    #[test]
    fn a_send_to_nobody_fails() {
        let (inlet, inbox) = channel(1);
        drop(inbox);
        assert_eq!(inlet.send(Inbound::Quit), Err(Ended));
    }
}
