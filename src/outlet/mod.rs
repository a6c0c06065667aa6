//! How a connection is written to: at once if it takes it, else from a bounded queue that the flusher empties.
//!
//! The dispatcher writes what it has for one destination in one system call that never blocks. What the other side
//! does not take stays here, and the flusher thread waits until it can be written. While something waits, everything
//! new goes behind it, so the order is kept. No lock is held while anything blocks.

pub mod flusher;
mod gather;

use crate::frame::Packet;
use crate::transport::Sink;
use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What may wait.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes; a single packet always fits an empty outlet.
    pub bytes: usize,
    /// Packets.
    pub frames: usize,
}

/// Bytes that wait in all outlets together.
#[derive(Debug)]
pub struct Total {
    bytes: AtomicUsize,
    bytes_max: usize,
}

impl Total {
    /// Nothing waits yet; at most `bytes_max` ever will.
    pub fn new(bytes_max: usize) -> Arc<Total> {
        Arc::new(Total { bytes: AtomicUsize::new(0), bytes_max })
    }

    fn take(&self, bytes: usize) -> bool {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= self.bytes_max;
        if !fits {
            self.give_back(bytes);
        }
        fits
    }

    fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What became of a batch of packets, or of what waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Everything is written.
    All,
    /// Something waits; the flusher must see to it. Said once for each time that the outlet fills.
    Waits,
    /// Something waits, and the flusher sees to it already.
    WaitsOn,
    /// More would wait than may. The outlet takes nothing any longer.
    Overflowed,
    /// The other side is gone. The outlet takes nothing any longer.
    Broken,
}

/// How far a batch of packets got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sending {
    /// What became of it.
    pub sent: Sent,
    /// So many of them are written, from the first to the last byte.
    pub whole: usize,
    /// The next is the first that waits.
    pub begun: bool,
}

/// The writing end of a connection.
#[derive(Debug)]
pub struct Outlet {
    sink: Sink,
    bounds: Bounds,
    total: Arc<Total>,
    state: Mutex<State>,
    /// Told when the outlet is shut.
    shut: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Packet>,
    /// How much of the first packet is written.
    offset: usize,
    /// What waits, in bytes, and is counted in the total.
    bytes: usize,
    with_flusher: bool,
    /// Shut when nothing waits any longer.
    finishing: bool,
    /// Nothing more is taken.
    shut: bool,
}

impl Outlet {
    /// An outlet in which nothing waits.
    pub fn new(sink: Sink, bounds: Bounds, total: Arc<Total>) -> Outlet {
        Outlet { sink, bounds, total, state: Mutex::default(), shut: Condvar::new() }
    }

    /// Writes these packets in their order, as far as the other side takes them, and keeps the rest.
    pub fn send(&self, packets: &[Packet]) -> Sent {
        self.send_or_leave(packets, |_| false).sent
    }

    /// The same, but of the rest, those that are to be left (by their place) do not wait here, as somebody else has them. The
    /// first of the rest always waits, if nothing else does: so there is something after which the outlet is empty again.
    pub fn send_or_leave(&self, packets: &[Packet], is_left: impl Fn(usize) -> bool) -> Sending {
        let mut state = self.lock();
        if state.shut || state.finishing {
            return Sending { sent: Sent::Broken, whole: 0, begun: false };
        }
        let was_empty = state.waiting.is_empty();
        let (mut whole, mut written) = (0, 0);
        if state.waiting.is_empty() {
            match self.write(packets, 0) {
                Ok(done) => (whole, written) = done,
                Err(_) => return Sending { sent: self.shut_down(&mut state, Sent::Broken), whole: 0, begun: false },
            }
            state.offset = written;
        }
        if whole == packets.len() && was_empty {
            return Sending { sent: Sent::All, whole, begun: false };
        }
        for (place, packet) in packets.iter().enumerate().skip(whole) {
            // Of the first, a part may be written already.
            let bytes = packet.wire_bytes() - std::mem::take(&mut written);
            let first = state.waiting.is_empty();
            if !first && is_left(place) {
                continue;
            }
            let fits = state.bytes + bytes <= self.bounds.bytes && state.waiting.len() < self.bounds.frames;
            if !(first || fits) || !self.total.take(bytes) {
                return Sending { sent: self.shut_down(&mut state, Sent::Overflowed), whole, begun: false };
            }
            state.bytes += bytes;
            state.waiting.push_back(packet.clone());
        }
        let with_flusher = std::mem::replace(&mut state.with_flusher, true);
        Sending { sent: if with_flusher { Sent::WaitsOn } else { Sent::Waits }, whole, begun: was_empty }
    }

    /// Whether something waits.
    pub fn is_waiting(&self) -> bool {
        !self.lock().waiting.is_empty()
    }

    /// Writes what waits, as far as the other side takes it. For the flusher.
    pub fn flush(&self) -> Sent {
        let mut state = self.lock();
        if state.shut {
            return Sent::Broken;
        }
        let offset = state.offset;
        let done = self.write(state.waiting.make_contiguous(), offset);
        let Ok((whole, offset)) = done else { return self.shut_down(&mut state, Sent::Broken) };
        state.waiting.drain(..whole);
        state.offset = offset;
        let left = state.waiting.iter().map(Packet::wire_bytes).sum::<usize>() - offset;
        self.total.give_back(state.bytes - left);
        state.bytes = left;
        if !state.waiting.is_empty() {
            return Sent::WaitsOn;
        }
        state.with_flusher = false;
        if state.finishing {
            self.sink.end();
            return self.shut_gently(&mut state);
        }
        Sent::All
    }

    /// Takes nothing more, writes what waits, then tells the other side that nothing more comes.
    pub fn finish(&self) {
        let mut state = self.lock();
        if state.shut {
            return;
        }
        state.finishing = true;
        if state.waiting.is_empty() {
            self.sink.end();
            self.shut_gently(&mut state);
        }
    }

    /// Ends both directions now. What waits is lost.
    pub fn abort(&self) {
        self.shut_down(&mut self.lock(), Sent::Broken);
    }

    /// Waits until the outlet is shut, at most until `deadline`.
    pub fn wait_shut(&self, deadline: Instant) {
        let mut state = self.lock();
        while !state.shut {
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return;
            }
            state = self.shut.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether nothing more will ever be written.
    pub fn is_shut(&self) -> bool {
        self.lock().shut
    }

    /// The descriptor, to wait until it takes more; `None` once it is closed.
    pub fn with_fd<T>(&self, body: impl FnOnce(BorrowedFd<'_>) -> T) -> Option<T> {
        self.sink.with_fd(body)
    }

    /// How many of `packets` are written as a whole, and how much of the next; `offset` of the first was before.
    fn write(&self, packets: &[Packet], mut offset: usize) -> io::Result<(usize, usize)> {
        let mut whole = 0;
        while whole < packets.len() {
            let mut written = match gather::gather(&packets[whole..], offset, |parts| self.sink.try_write(parts)) {
                Ok(written) => written + offset,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok((whole, offset)),
                Err(error) => return Err(error),
            };
            while let Some(packet) = packets.get(whole).filter(|packet| packet.wire_bytes() <= written) {
                written -= packet.wire_bytes();
                whole += 1;
            }
            offset = written;
        }
        Ok((whole, offset))
    }

    fn shut_gently(&self, state: &mut MutexGuard<'_, State>) -> Sent {
        state.shut = true;
        self.shut.notify_all();
        Sent::All
    }

    fn shut_down(&self, state: &mut MutexGuard<'_, State>, sent: Sent) -> Sent {
        self.sink.abort();
        self.total.give_back(std::mem::take(&mut state.bytes));
        state.waiting = VecDeque::new();
        state.shut = true;
        self.shut.notify_all();
        sent
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.total.give_back(self.lock().bytes);
    }
}

#[cfg(test)]
mod tests;
