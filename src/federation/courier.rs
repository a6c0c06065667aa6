//! What a link does next: a state machine without a socket, a disk or a clock.
//!
//! It is told what happened ([`Event`]), at which time and with a random number, and orders what is to be done
//! ([`Order`]). Messages come to it from the dispatcher ([`Event::Offered`]) or, whenever those have a gap, from the outbox on
//! the disk, where all of them lie until the other server has them. It holds only what is on its way: when the connection is
//! lost it keeps the numbers alone, and reads the messages again.
//!
//! Numbers up to `known` were seen. Each of them is done with, or is on its way (`flights`), or is to be sent again (`again`).
//! What is above lies in the outbox; `behind` says that something may.

use crate::store::mail::{OutboxPage, Outgoing, Receipt};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the disk had no room for, or did not tell, is tried again after this.
const DISK_AGAIN: Duration = Duration::from_secs(1);

/// The bounds of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Messages on their way at once, ...
    pub messages: usize,
    /// ... and the bytes of their data, of which the last one may exceed it.
    pub bytes: usize,
    /// How long the other server may be silent while it owes a report.
    pub report: Duration,
    /// How long to wait before something is tried again: at first, ...
    pub retry_min: Duration,
    /// ... and, doubling, at most; each a fifth more or less.
    pub retry_max: Duration,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// This lies in the outbox now, under this number.
    Offered(u64, Arc<Outgoing>),
    /// More lies in the outbox than was offered.
    Missed,
    /// The answer to [`Order::Read`].
    Page(OutboxPage),
    /// There is no answer to [`Order::Read`].
    Unreadable,
    /// The connection that was ordered stands: messages may be sent.
    Connected,
    /// There is no connection, or none any longer.
    Lost,
    /// The other server reports.
    Reported(Reported),
    /// The disk has no room for what was ordered with [`Order::Settle`].
    Unsettled(Receipt),
    /// Somebody wants everything to be tried now.
    Retry,
    /// Time has passed.
    Tick,
}

/// A report of the other server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    /// The `messageId` of the message.
    pub id: Option<Box<str>>,
    /// What became of it.
    pub verdict: Verdict,
}

/// What the other server says of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It has it.
    Good,
    /// It does not take it now.
    NotNow,
    /// It will never take it.
    Never,
    /// It is too large; which one, cannot be told. The connection ends with this.
    TooLarge,
}

/// Something to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Connect.
    Connect,
    /// Send this. Those of one turn go out in this order.
    Send(u64, Arc<Outgoing>),
    /// Read what has a higher number than this from the outbox: at most so many messages and so many bytes, but one at least.
    Read {
        /// The number.
        after: u64,
        /// Messages.
        messages_max: usize,
        /// Bytes of their data.
        bytes_max: usize,
    },
    /// Write down what became of messages.
    Settle(Receipt),
    /// End the connection, for this reason; it is lost by that.
    Break(&'static str),
}

/// How the connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is being made.
    Connecting,
    /// It stands.
    Up,
    /// There is none until then.
    Waiting(Instant),
}

/// A message on its way.
#[derive(Debug)]
struct Flight {
    message: Arc<Outgoing>,
    /// How often it was answered with "not now".
    tries: u32,
}

/// A message that is to be sent again.
#[derive(Debug, Clone, Copy)]
struct Again {
    /// [`Courier::start`] if it was on its way when the connection was lost: nothing newer may come before it.
    due: Instant,
    tries: u32,
}

/// What was asked of the disk.
#[derive(Debug, Clone, Copy)]
struct Reading {
    after: u64,
    /// Up to here everything had been offered by then: it can be seen there, or it is gone.
    offered: u64,
}

/// The state machine.
#[derive(Debug)]
pub struct Courier {
    bounds: Bounds,
    /// Before everything else.
    start: Instant,
    state: State,
    since: Instant,
    /// Connections that came to nothing, one after the other.
    failures: u32,
    /// There was a report on this connection.
    useful: bool,
    /// Since when a report is owed, and none came.
    silent_since: Instant,
    known: u64,
    /// The highest number that was offered.
    offered: u64,
    behind: bool,
    reading: Option<Reading>,
    flights: BTreeMap<u64, Flight>,
    flight_bytes: usize,
    /// The number of each that is on its way.
    ids: HashMap<Box<str>, u64>,
    again: BTreeMap<u64, Again>,
    /// The same by the time: those of a lost connection first, by their numbers.
    due: BTreeSet<(Instant, u64)>,
    unsettled: Vec<Receipt>,
    /// The disk is left alone until then.
    disk_at: Option<Instant>,
}

impl Courier {
    /// Nothing is known of the outbox yet; [`Event::Tick`] begins.
    pub fn new(bounds: Bounds, now: Instant) -> Courier {
        Courier {
            bounds,
            start: now,
            state: State::Waiting(now),
            since: now,
            failures: 0,
            useful: false,
            silent_since: now,
            known: 0,
            offered: 0,
            behind: true,
            reading: None,
            flights: BTreeMap::new(),
            flight_bytes: 0,
            ids: HashMap::new(),
            again: BTreeMap::new(),
            due: BTreeSet::new(),
            unsettled: Vec::new(),
            disk_at: None,
        }
    }

    /// How the connection is, and since when.
    pub fn state(&self) -> (State, Instant) {
        (self.state, self.since)
    }

    /// Messages that the other server owes a report on.
    pub fn unanswered(&self) -> usize {
        self.flights.len()
    }

    /// Whether what is offered should wait, as there will be room for it: otherwise it would have to be read again.
    pub fn is_full(&self) -> bool {
        self.state == State::Up && !self.behind && self.reading.is_none() && !self.may_send()
    }

    /// When it must be told the time again, if nothing happens before.
    pub fn next_deadline(&self) -> Option<Instant> {
        let silence = || (!self.flights.is_empty()).then(|| self.silent_since + self.bounds.report);
        let again = || self.due.first().map(|(due, _)| *due).filter(|_| self.may_read());
        let of_state = match self.state {
            State::Connecting => None,
            State::Waiting(until) => Some(until),
            State::Up => [silence(), again()].into_iter().flatten().min(),
        };
        [of_state, self.disk_at].into_iter().flatten().min()
    }

    /// Takes in what happened and appends what is to be done. `random` is any number, another one each time.
    pub fn handle(&mut self, now: Instant, random: u32, event: Event, orders: &mut Vec<Order>) {
        match event {
            Event::Offered(seq, message) => self.offered(now, seq, message, orders),
            Event::Missed => self.behind = true,
            Event::Page(page) => self.page(now, page, orders),
            Event::Unreadable => {
                self.reading = None;
                self.behind = true;
                self.disk_at = Some(now + DISK_AGAIN);
            }
            Event::Connected => self.connected(now),
            Event::Lost => self.lost(now, random, orders),
            Event::Reported(reported) => self.reported(now, random, reported, orders),
            Event::Unsettled(receipt) => {
                self.unsettled.push(receipt);
                self.disk_at = Some(now + DISK_AGAIN);
            }
            Event::Retry => {
                self.failures = 0;
                let deferred: Vec<u64> = self.again.keys().copied().collect();
                for seq in deferred {
                    let again = self.remove_again(seq);
                    again.into_iter().for_each(|again| self.send_again(seq, Again { due: again.due.min(now), ..again }));
                }
                if let State::Waiting(until) = &mut self.state {
                    *until = now;
                }
            }
            Event::Tick => {}
        }
        self.go_on(now, random, orders);
    }

    /// What follows from the state and the time.
    fn go_on(&mut self, now: Instant, random: u32, orders: &mut Vec<Order>) {
        if self.disk_at.is_some_and(|at| at <= now) {
            // Nothing is sent before it is clear that there was room this time, which is by the next turn.
            self.disk_at = (!self.unsettled.is_empty()).then_some(now);
            self.unsettled.drain(..).for_each(|receipt| settle(orders, receipt));
        }
        match self.state {
            State::Waiting(until) if until <= now => {
                self.enter(now, State::Connecting);
                orders.push(Order::Connect);
            }
            State::Up if !self.flights.is_empty() && self.silent_since + self.bounds.report <= now => {
                orders.push(Order::Break("it owes a report and is silent (limits.peerReportSeconds)"));
                self.lost(now, random, orders);
            }
            State::Up => self.read(now, orders),
            State::Connecting | State::Waiting(_) => {}
        }
    }

    fn enter(&mut self, now: Instant, state: State) {
        self.state = state;
        self.since = now;
    }

    fn offered(&mut self, now: Instant, seq: u64, message: Arc<Outgoing>, orders: &mut Vec<Order>) {
        self.offered = self.offered.max(seq);
        if seq <= self.known {
            return; // it was in a page already
        }
        let next = seq == self.known + 1 && !self.behind && self.reading.is_none();
        // While anything is to be sent again, the outbox is being read, or there is more in it.
        if next && self.may_send() {
            self.known = seq;
            self.send(now, seq, Flight { message, tries: 0 }, orders);
        } else {
            self.behind = true;
        }
    }

    /// The first of those that were on their way when the connection was lost.
    fn first_lost(&self) -> Option<u64> {
        self.due.first().filter(|(due, _)| *due == self.start).map(|(_, seq)| *seq)
    }

    fn may_send(&self) -> bool {
        self.state == State::Up && self.unsettled.is_empty() && self.disk_at.is_none() && self.has_room()
    }

    fn has_room(&self) -> bool {
        self.flights.len() < self.bounds.messages && self.flight_bytes < self.bounds.bytes
    }

    fn send(&mut self, now: Instant, seq: u64, flight: Flight, orders: &mut Vec<Order>) {
        if self.flights.is_empty() {
            self.silent_since = now;
        }
        self.flight_bytes += flight.message.data.held();
        self.ids.insert(flight.message.message_id.clone(), seq);
        orders.push(Order::Send(seq, Arc::clone(&flight.message)));
        self.flights.insert(seq, flight);
    }

    /// The disk is asked only when half of the room is free, so that a page is worth it.
    fn may_read(&self) -> bool {
        let Bounds { messages, bytes, .. } = self.bounds;
        let room = self.flights.len() <= messages / 2 && self.flight_bytes <= bytes / 2;
        room && self.may_send() && self.reading.is_none()
    }

    /// Orders to read what is next, if that is on the disk.
    fn read(&mut self, now: Instant, orders: &mut Vec<Order>) {
        if !self.may_read() {
            return;
        }
        let after = match self.due.first() {
            Some((due, seq)) if *due <= now => seq.saturating_sub(1),
            _ if self.behind => self.known,
            _ => return,
        };
        self.behind = false;
        self.reading = Some(Reading { after, offered: self.offered });
        let (messages_max, bytes_max) = (self.bounds.messages - self.flights.len(), self.bounds.bytes - self.flight_bytes);
        orders.push(Order::Read { after, messages_max, bytes_max });
    }

    fn page(&mut self, now: Instant, page: OutboxPage, orders: &mut Vec<Order>) {
        let Some(Reading { after, offered }) = self.reading.take() else { return };
        if self.first_lost().is_some_and(|lost| lost <= after) {
            self.behind = true; // the connection was lost meanwhile, and those come before what is in the page
            return;
        }
        let mut whole = !page.more;
        // What is not in the page up to here is gone.
        let mut seen = after;
        for (seq, message) in page.messages {
            let due = self.again.get(&seq).filter(|again| again.due <= now).map(|again| again.tries);
            if due.is_some() || seq > self.known {
                if !self.may_send() {
                    whole = false;
                    break;
                }
                self.remove_again(seq);
                self.known = self.known.max(seq);
                self.send(now, seq, Flight { message, tries: due.unwrap_or(0) }, orders);
            }
            self.forget(seen, seq, now);
            seen = seq;
        }
        if whole {
            self.forget(seen, u64::MAX, now);
            self.known = self.known.max(offered);
        }
        self.behind |= !whole;
    }

    /// What was to be sent again and has a number between these is gone: too old, or dropped by an operator.
    fn forget(&mut self, from: u64, to: u64, now: Instant) {
        let Some(first) = from.checked_add(1).filter(|first| *first < to) else { return };
        let due = |(seq, again): (&u64, &Again)| (again.due <= now).then_some(*seq);
        let gone: Vec<u64> = self.again.range(first..to).filter_map(due).collect();
        gone.into_iter().for_each(|seq| _ = self.remove_again(seq));
    }

    fn send_again(&mut self, seq: u64, again: Again) {
        self.due.insert((again.due, seq));
        self.again.insert(seq, again);
    }

    fn remove_again(&mut self, seq: u64) -> Option<Again> {
        let again = self.again.remove(&seq)?;
        self.due.remove(&(again.due, seq));
        Some(again)
    }

    fn connected(&mut self, now: Instant) {
        if self.state == State::Connecting {
            self.enter(now, State::Up);
            self.useful = false;
        }
    }

    fn lost(&mut self, now: Instant, random: u32, orders: &mut Vec<Order>) {
        match self.state {
            State::Waiting(_) => return,
            State::Connecting => settle(orders, Receipt::Unreached),
            State::Up if self.flights.is_empty() => {}
            State::Up => settle(orders, Receipt::Deferred(self.flights.keys().copied().collect())),
        }
        let idle = self.flights.is_empty() && now.saturating_duration_since(self.since) >= self.bounds.retry_min;
        if self.state == State::Up && (self.useful || idle) {
            self.failures = 0;
        }
        for (seq, flight) in std::mem::take(&mut self.flights) {
            self.send_again(seq, Again { due: self.start, tries: flight.tries });
        }
        self.flight_bytes = 0;
        self.ids.clear();
        let delay = self.delay(self.failures, random);
        self.failures = self.failures.saturating_add(1);
        self.enter(now, State::Waiting(now + delay));
    }

    fn reported(&mut self, now: Instant, random: u32, reported: Reported, orders: &mut Vec<Order>) {
        let Reported { id, verdict } = reported;
        let seq = match (&id, verdict) {
            (Some(id), _) => self.ids.get(id).copied(),
            (None, Verdict::TooLarge) => self.largest(),
            (None, _) => None,
        };
        let Some(flight) = seq.and_then(|seq| self.flights.remove(&seq)) else { return };
        let seq = seq.unwrap_or_default();
        self.ids.remove(&flight.message.message_id);
        self.flight_bytes -= flight.message.data.held();
        self.silent_since = now;
        self.useful = true;
        match verdict {
            Verdict::Good => settle(orders, Receipt::Taken(vec![seq])),
            Verdict::Never | Verdict::TooLarge => settle(orders, Receipt::Refused(seq)),
            Verdict::NotNow => {
                let due = now + self.delay(flight.tries, random);
                self.send_again(seq, Again { due, tries: flight.tries.saturating_add(1) });
                settle(orders, Receipt::Deferred(vec![seq]));
            }
        }
    }

    /// If one of those on their way is too large, it is this one. (The other server may still be busy with those before it.)
    fn largest(&self) -> Option<u64> {
        let size = |message: &Outgoing| {
            let author = message.author.as_ref().map_or(0, |author| author.user.as_str().len());
            message.data.len() + message.kind.len() + author + 2 * message.message_id.len()
        };
        let largest = self.flights.iter().rev().max_by_key(|(_, flight)| size(&flight.message));
        largest.map(|(seq, _)| *seq)
    }

    /// How long to wait after so many failures before: from four to six fifths of what doubles each time.
    fn delay(&self, failures: u32, random: u32) -> Duration {
        let Bounds { retry_min, retry_max, .. } = self.bounds;
        let doubled = 2_u32.checked_pow(failures).and_then(|factor| retry_min.checked_mul(factor));
        let middle = doubled.unwrap_or(retry_max).min(retry_max);
        middle.mul_f64(0.8 + 0.4 * f64::from(random) / f64::from(u32::MAX))
    }
}

/// Orders to write something down, together with what is to be written down in the same turn.
fn settle(orders: &mut Vec<Order>, receipt: Receipt) {
    let mut earlier = orders.iter_mut().filter_map(|order| if let Order::Settle(receipt) = order { Some(receipt) } else { None });
    let joined = match &receipt {
        Receipt::Taken(seqs) => earlier.find_map(|earlier| if let Receipt::Taken(all) = earlier { Some((all, seqs)) } else { None }),
        Receipt::Deferred(seqs) => earlier.find_map(|earlier| if let Receipt::Deferred(all) = earlier { Some((all, seqs)) } else { None }),
        Receipt::Refused(_) | Receipt::Unreached => None,
    };
    match joined {
        Some((all, seqs)) => all.extend_from_slice(seqs),
        None => orders.push(Order::Settle(receipt)),
    }
}

#[cfg(test)]
mod tests;
