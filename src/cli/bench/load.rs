//! A thread of the load: one loop that writes and reads for its part of the sessions.
//!
//! Spawned by `mod.rs`, one for each of `--threads`; owns its sessions and their books; waits with mio on the sockets and
//! on a timer for the next message that is due; ends when everything came that should, or the drain is over, or a
//! connection is lost. Reading is edge-triggered: a socket is read until it is empty.

use super::ledger::{Book, Faults, Verdict};
use super::message::Stamp;
use super::plan::{Pace, Plan};
use super::session::Session;
use super::wire::{self, Incoming};
use crate::client::FRAME_BYTES_MAX;
use crate::config::Framing;
use crate::frame::Decoder;
use hdrhistogram::Histogram;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::fd::OwnedFd;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const READ_BYTES: usize = 64 << 10;
const EVENTS: usize = 1024;
const TIMER: Token = Token(usize::MAX);
/// How often the loop looks at what other threads say when nothing comes: while it sends, and once all is sent.
const LOOK: Duration = Duration::from_millis(100);
const LOOK_IN_DRAIN: Duration = Duration::from_millis(10);
/// When everything has come, whatever comes again must come within this time.
const SETTLE: u64 = 100_000_000;

/// What the threads of a run have in common. Times are nanoseconds since `start`.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) start: Instant,
    /// When nothing more is sent; earlier than planned if somebody says so.
    end: AtomicU64,
    /// Threads that still send.
    sending: AtomicUsize,
    /// Deliveries and reports that have not come yet; in between, one thread may have told and another not.
    pub(super) outstanding: AtomicI64,
    /// Messages whose report came, or without ids that came back; and deliveries.
    pub(super) messages: AtomicU64,
    pub(super) deliveries: AtomicU64,
    /// The first connection that was lost.
    broken: Mutex<Option<String>>,
}

impl Shared {
    pub(super) fn new(plan: &Plan, threads: usize) -> Shared {
        Shared {
            start: Instant::now(),
            end: AtomicU64::new(nanos(plan.warm + plan.duration)),
            sending: AtomicUsize::new(threads),
            outstanding: AtomicI64::new(0),
            messages: AtomicU64::new(0),
            deliveries: AtomicU64::new(0),
            broken: Mutex::new(None),
        }
    }

    fn now(&self) -> u64 {
        nanos(self.start.elapsed())
    }

    /// When sending ended, or is to end.
    pub(super) fn end(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }

    /// Nothing more is sent from now on.
    pub(super) fn stop(&self) {
        self.end.fetch_min(self.now(), Ordering::Relaxed);
    }

    fn lost(&self, name: &str, error: &io::Error) {
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        broken.get_or_insert_with(|| format!("the connection of {name} is lost: {error}"));
        drop(broken);
        self.stop();
    }

    /// Which connection was lost, if one was.
    pub(super) fn broken(&self) -> Option<String> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What a thread brings home.
pub(super) struct Part {
    pub(super) books: Vec<(usize, Book)>,
    pub(super) tally: Tally,
}

/// What was counted and measured.
pub(super) struct Tally {
    pub(super) faults: Faults,
    /// Within the measured time: messages that were done with, and deliveries.
    pub(super) messages: u64,
    pub(super) deliveries: u64,
    /// Messages that should have been sent, and could not be.
    pub(super) unsent: u64,
    /// From when a message should have been sent until it was delivered, and reported, in nanoseconds.
    pub(super) delivery: Histogram<u64>,
    pub(super) report: Histogram<u64>,
    /// From when it should have been sent until it was.
    pub(super) behind: Histogram<u64>,
}

impl Tally {
    pub(super) fn new() -> Tally {
        // From 100 ns to an hour, three digits. It fails only below 1, below twice the lower bound, or above five digits.
        let histogram = || Histogram::new_with_bounds(100, 3_600_000_000_000, 3).expect("bounds and digits that it allows");
        let faults = Faults::default();
        Tally { faults, messages: 0, deliveries: 0, unsent: 0, delivery: histogram(), report: histogram(), behind: histogram() }
    }

    pub(super) fn add(&mut self, other: Tally) {
        self.faults.add(other.faults);
        self.messages += other.messages;
        self.deliveries += other.deliveries;
        self.unsent += other.unsent;
        for (mine, theirs) in [(&mut self.delivery, other.delivery), (&mut self.report, other.report), (&mut self.behind, other.behind)] {
            // It fails only for values out of bounds, and `new` gives all of them the same.
            mine.add(theirs).expect("histograms of the same bounds");
        }
    }
}

/// What the other threads have not been told yet.
#[derive(Default)]
struct News {
    outstanding: i64,
    messages: u64,
    deliveries: u64,
}

/// A part of the sessions, and the loop for them.
pub(super) struct Load {
    plan: Arc<Plan>,
    poll: Poll,
    timer: OwnedFd,
    sessions: Vec<Session>,
    touched: Vec<usize>,
    /// Lent to the session that reads.
    spare: Decoder,
    /// Whose turn is next in an open loop: a place in `sessions`, and how many turns each had.
    turn: (usize, u64),
    tally: Tally,
    news: News,
}

impl Load {
    pub(super) fn new(plan: Arc<Plan>, sessions: Vec<Session>) -> io::Result<Load> {
        let poll = Poll::new()?;
        for (place, session) in sessions.iter().enumerate() {
            session.register(poll.registry(), Token(place))?;
        }
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
        let (tally, news, spare) = (Tally::new(), News::default(), decoder());
        Ok(Load { plan, poll, timer, sessions, touched: Vec::new(), spare, turn: (0, 0), tally, news })
    }

    pub(super) fn run(mut self, shared: &Shared) -> io::Result<Part> {
        let mut events = Events::with_capacity(EVENTS);
        (0..self.sessions.len()).for_each(|place| self.touch(place));
        let mut sending = true;
        let mut quiet_since = None;
        // With TLS something may have come with the login of which no event tells.
        for place in 0..self.sessions.len() {
            let result = self.ready(place, false, false, shared);
            self.check(place, result, shared);
        }
        loop {
            let now = shared.now();
            let end = shared.end();
            let due = if sending { self.schedule(now.min(end)) } else { None };
            self.serve_touched(shared, sending);
            if sending && now >= end {
                sending = false;
                self.tally.unsent += self.sessions.iter().map(|session| session.owed).sum::<u64>();
                self.tell(shared);
                shared.sending.fetch_sub(1, Ordering::AcqRel);
            }
            self.tell(shared);
            if !sending {
                let quiet = shared.sending.load(Ordering::Acquire) == 0 && shared.outstanding.load(Ordering::Acquire) <= 0;
                quiet_since = quiet.then(|| quiet_since.unwrap_or(now));
                let settled = quiet_since.is_some_and(|since| now - since >= SETTLE);
                if settled || now >= end + nanos(self.plan.drain) || shared.broken().is_some() {
                    break;
                }
            }
            let timeout = if sending { LOOK.min(Duration::from_nanos(end - now)) } else { LOOK_IN_DRAIN };
            self.wait(&mut events, shared, due, timeout)?;
            for event in events.iter().filter(|event| event.token() != TIMER) {
                let place = event.token().0;
                let result = self.ready(place, event.is_writable(), event.is_read_closed() || event.is_error(), shared);
                self.check(place, result, shared);
            }
        }
        let books = self.sessions.into_iter().map(|session| (session.index, session.book)).collect();
        Ok(Part { books, tally: self.tally })
    }

    /// Waits for events, until `due` at most.
    fn wait(&mut self, events: &mut Events, shared: &Shared, due: Option<u64>, timeout: Duration) -> io::Result<()> {
        let mut timeout = timeout;
        if let Some(due) = due {
            let left = Duration::from_nanos(due.saturating_sub(shared.now()));
            if left.is_zero() {
                timeout = left;
            } else if left < timeout {
                // A poll would wait for whole milliseconds.
                let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
                let value = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
                timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: zero, it_value: value })?;
            }
        }
        match self.poll.poll(events, Some(timeout)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    /// Open loop: notes whose messages are due, and says when the next one is.
    fn schedule(&mut self, now: u64) -> Option<u64> {
        let Pace::Rate(rate) = self.plan.pace else { return None };
        loop {
            let (place, round) = self.turn;
            let due = self.plan.intended(rate, self.sessions[place].index, round);
            if due >= now {
                return Some(due);
            }
            self.sessions[place].owed += 1;
            self.touch(place);
            self.turn = if place + 1 < self.sessions.len() { (place + 1, round) } else { (0, round + 1) };
        }
    }

    fn touch(&mut self, place: usize) {
        if !std::mem::replace(&mut self.sessions[place].touched, true) {
            self.touched.push(place);
        }
    }

    /// Has all that were touched send what they can.
    fn serve_touched(&mut self, shared: &Shared, sending: bool) {
        while let Some(place) = self.touched.pop() {
            self.sessions[place].touched = false;
            loop {
                let more = sending && self.pump(place, shared.now());
                let result = self.sessions[place].flush(self.poll.registry(), Token(place));
                let failed = result.is_err();
                self.check(place, result, shared);
                if !more || failed || !self.sessions[place].has_room() {
                    break;
                }
            }
        }
    }

    /// Makes the messages that this session should send now. Whether there are more, and no room for them.
    fn pump(&mut self, place: usize, now: u64) -> bool {
        let session = &mut self.sessions[place];
        while session.has_room() {
            let at = match self.plan.pace {
                Pace::InFlight(messages) if session.book.under_way() < messages => now,
                Pace::Rate(rate) if session.owed > 0 => {
                    session.owed -= 1;
                    // A message has the time at which it should have been sent: a server that stalls is not forgiven.
                    let at = self.plan.intended(rate, session.index, session.book.sent());
                    if at >= nanos(self.plan.warm) {
                        self.tally.behind.saturating_record(now.saturating_sub(at));
                    }
                    at
                }
                Pace::InFlight(_) | Pace::Rate(_) => return false,
            };
            session.put(&self.plan, at);
            self.news.outstanding += (self.plan.ring.fan_out + usize::from(self.plan.ids)).cast_signed() as i64;
        }
        true
    }

    fn ready(&mut self, place: usize, writable: bool, ends: bool, shared: &Shared) -> io::Result<()> {
        if writable {
            self.sessions[place].unblock(self.poll.registry(), Token(place))?;
        }
        self.touch(place);
        let spare = || std::mem::replace(&mut self.spare, decoder());
        let mut input = self.sessions[place].rest.take().unwrap_or_else(spare);
        loop {
            let read = self.sessions[place].read(&mut input, READ_BYTES);
            let now = shared.now();
            while let Some(frame) = input.frame().map_err(|error| io::Error::new(ErrorKind::InvalidData, error))? {
                self.take(place, frame.bytes(), now);
            }
            match read {
                Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "the server closed it")),
                // Less than there is room for means that the socket is empty; its end would have been told.
                Ok(bytes) if bytes < READ_BYTES && !ends => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if input.pending() > 0 {
            self.sessions[place].rest = Some(input);
        } else {
            self.spare = input;
        }
        Ok(())
    }

    /// Enters a frame that came at `now`.
    fn take(&mut self, place: usize, frame: &[u8], now: u64) {
        let Load { plan, tally, news, sessions, .. } = self;
        let session = &mut sessions[place];
        let book = &mut session.book;
        let measured = nanos(plan.warm)..nanos(plan.warm + plan.duration);
        let in_time = u64::from(measured.contains(&now));
        match wire::read(frame) {
            Incoming::Delivery(data) => {
                let Some(stamp) = Stamp::read(data, plan.size) else {
                    tally.faults.wrong += 1;
                    return;
                };
                if stamp.run != plan.run {
                    tally.faults.unexpected += 1;
                    return;
                }
                let is_new = book.deliver(stamp.from as usize, stamp.seq, &mut tally.faults);
                if is_new {
                    news.outstanding -= 1;
                    news.deliveries += 1;
                    tally.deliveries += in_time;
                    if measured.contains(&stamp.at) {
                        tally.delivery.saturating_record(now.saturating_sub(stamp.at));
                    }
                    if !plan.ids && stamp.from as usize == session.index {
                        news.messages += 1;
                        tally.messages += in_time;
                    }
                }
            }
            Incoming::Report(seq, verdict) => {
                let failed = matches!(verdict, Verdict::Bad(_));
                let is_new = book.report(seq, verdict, &mut tally.faults);
                if failed && (is_new || (!plan.ids && seq.is_none())) {
                    news.outstanding -= plan.ring.fan_out.cast_signed() as i64;
                }
                if is_new {
                    news.outstanding -= 1;
                    let at = session.forget(plan, seq.unwrap_or_default());
                    if !failed {
                        news.messages += 1;
                        tally.messages += in_time;
                        if let Some(at) = at.filter(|at| measured.contains(at)) {
                            tally.report.saturating_record(now.saturating_sub(at));
                        }
                    }
                }
            }
            Incoming::Other => tally.faults.unexpected += 1,
        }
    }

    fn check(&self, place: usize, result: io::Result<()>, shared: &Shared) {
        if let Err(error) = result {
            shared.lost(&self.plan.names[self.sessions[place].index], &error);
        }
    }

    fn tell(&mut self, shared: &Shared) {
        let news = std::mem::take(&mut self.news);
        shared.messages.fetch_add(news.messages, Ordering::Relaxed);
        shared.deliveries.fetch_add(news.deliveries, Ordering::Relaxed);
        shared.outstanding.fetch_add(news.outstanding, Ordering::AcqRel);
    }
}

fn decoder() -> Decoder {
    Decoder::new(Framing::Length, FRAME_BYTES_MAX)
}
