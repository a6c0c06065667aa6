//! The thread of one peer, which keeps a connection to it and sends what lies in its outbox.
//!
//! Spawned by `links.rs`; owns the [`Courier`] and the connection; waits on the socket and on a bell, which the dispatcher
//! (through a [`Post`]), and commands ring; ends when it is stopped, at the latest after the time that connecting may take.
//!
//! In turns it takes in what happened (reports, messages, the time), carries out what the courier orders, and writes all that may be
//! sent in one piece. A peer that proves nothing has no connection that stays: it is connected to for each message.

use super::bell::Bell;
use super::courier::{self, Courier, Event, Order, Reported, State, Verdict};
use super::single;
use super::wire::{self, Ours, Wire, Words};
use crate::dispatcher::run::Carrier;
use crate::frame::Packet;
use crate::protocol::reason::Reason;
use crate::protocol::server::{self, Report};
use crate::store::mail::{OutboxPage, Outgoing, Receipt, Write};
use crate::store::{Peer, Store, StoreError, Verify};
use crossbeam_channel::{Receiver, Sender};
use log::{debug, info, warn};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// TLS and a page of the outbox.
pub(super) const STACK_BYTES: usize = 512 << 10;
/// Messages that wait between the dispatcher and a link; those for which there is no room are read from the outbox.
const POST_MESSAGES: usize = 64;
/// The same in bytes that are kept alive.
const POST_BYTES: usize = 4 << 20;
/// Bytes on their way to one peer, of which the last message may exceed it.
const FLIGHT_BYTES: usize = 4 << 20;
/// Messages that are taken in before anything is sent.
const TURN_MAX: usize = 256;
/// What the peer has is written down so late, with all that it has by then: each of these writes is one that others wait for, and
/// what is lost of them when the power fails is sent again and known there. There are never more of them than fit into a turn.
const TAKEN_WITHIN: Duration = Duration::from_millis(20);
const TAKEN_MAX: usize = 256;
/// The outbox is looked into so soon after the start, as what the dispatcher said before it knew the link is lost, ...
const LOOK_FIRST: Duration = Duration::from_secs(1);
/// ... and from then on so often, for what was put there by others.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Where messages lie until a peer has them.
pub(super) trait Outbox: Send {
    /// What follows `after`.
    fn page(&self, after: u64, messages_max: usize, bytes_max: usize) -> Result<OutboxPage, StoreError>;
    /// Writes down what became of some; gives back what there is no room for.
    fn settle(&self, receipts: Vec<Receipt>) -> Vec<Receipt>;
}

/// That of a peer in the database.
pub(super) struct Kept {
    pub(super) store: Store,
    pub(super) peer: crate::name::PeerId,
}

impl Outbox for Kept {
    fn page(&self, after: u64, messages_max: usize, bytes_max: usize) -> Result<OutboxPage, StoreError> {
        self.store.outbox(self.peer, after, messages_max, bytes_max)
    }

    fn settle(&self, receipts: Vec<Receipt>) -> Vec<Receipt> {
        let writes = receipts.into_iter().map(|receipt| Write::Sent(self.peer, receipt)).collect();
        let refused = self.store.write(writes).err().unwrap_or_default();
        refused.into_iter().filter_map(|write| if let Write::Sent(_, receipt) = write { Some(receipt) } else { None }).collect()
    }
}

/// What others share with a link's thread.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) bell: Bell,
    /// The thread waits, and wants to hear of messages.
    wants: AtomicBool,
    /// It takes messages at all at the moment.
    open: AtomicBool,
    /// There was something in the outbox that it was not told.
    missed: AtomicBool,
    /// Bytes between the dispatcher and the link.
    bytes: AtomicUsize,
    retry: AtomicBool,
    /// Held to read or to write a few words.
    status: Mutex<Status>,
}

/// How a link is.
#[derive(Debug, Clone)]
pub(super) struct Status {
    pub(super) state: State,
    pub(super) since: Instant,
    pub(super) unanswered: usize,
    /// What went wrong the last time, and when.
    pub(super) trouble: Option<(Words, Instant)>,
}

impl Shared {
    pub(super) fn new() -> std::io::Result<Shared> {
        let now = Instant::now();
        let status = Status { state: State::Waiting(now), since: now, unanswered: 0, trouble: None };
        Ok(Shared {
            bell: Bell::new()?,
            wants: AtomicBool::new(false),
            open: AtomicBool::new(false),
            missed: AtomicBool::new(false),
            bytes: AtomicUsize::new(0),
            retry: AtomicBool::new(false),
            status: Mutex::new(status),
        })
    }

    /// Has it try everything now.
    pub(super) fn retry(&self) {
        self.retry.store(true, Ordering::SeqCst);
        self.bell.ring();
    }

    pub(super) fn status(&self) -> Status {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        // Whoever panicked with it had written all of it or nothing.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The dispatcher's end.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) shared: Arc<Shared>,
    pub(super) messages: Sender<(u64, Arc<Outgoing>)>,
}

/// A post and what comes out of it.
pub(super) fn post(shared: &Arc<Shared>) -> (Post, Receiver<(u64, Arc<Outgoing>)>) {
    let (messages, incoming) = crossbeam_channel::bounded(POST_MESSAGES);
    (Post { shared: Arc::clone(shared), messages }, incoming)
}

impl Carrier for Post {
    fn carry(&self, seq: u64, message: Arc<Outgoing>) {
        let Shared { bell, wants, open, missed, bytes, .. } = &*self.shared;
        let size = message.data.held();
        let before = bytes.fetch_add(size, Ordering::SeqCst);
        let fits = open.load(Ordering::SeqCst) && (before == 0 || before.saturating_add(size) <= POST_BYTES);
        if !fits || self.messages.try_send((seq, message)).is_err() {
            bytes.fetch_sub(size, Ordering::SeqCst);
            missed.store(true, Ordering::SeqCst);
        }
        // Either the thread, which said that it waits before it looked, saw this, or this sees that it waits.
        if wants.swap(false, Ordering::SeqCst) {
            bell.ring();
        }
    }
}

/// The thread's side of everything.
pub(super) struct Link {
    pub(super) peer: Peer,
    pub(super) ours: Ours,
    pub(super) outbox: Box<dyn Outbox>,
    pub(super) shared: Arc<Shared>,
    pub(super) messages: Receiver<(u64, Arc<Outgoing>)>,
}

impl Link {
    /// Runs until it is stopped.
    pub(super) fn run(self) {
        let now = Instant::now();
        let limits = &self.ours.limits;
        let single = !matches!(self.peer.verify, Verify::Pins(_));
        let bounds = courier::Bounds {
            messages: if single { 1 } else { limits.peer_in_flight },
            bytes: FLIGHT_BYTES,
            report: limits.peer_report,
            retry_min: limits.peer_retry_min,
            retry_max: limits.peer_retry_max,
        };
        let running = Running {
            link: &self,
            courier: Courier::new(bounds, now),
            wire: None,
            single,
            packets: Vec::new(),
            more: false,
            taken: Vec::new(),
            settle_at: None,
            look_at: now + LOOK_FIRST,
            told: None,
        };
        running.run();
        debug!("the link to {} has ended", self.peer.name);
    }
}

struct Running<'a> {
    link: &'a Link,
    courier: Courier,
    wire: Option<Wire>,
    /// A connection for each message.
    single: bool,
    /// To be sent with the next write.
    packets: Vec<Packet>,
    /// There may be more to read without waiting.
    more: bool,
    /// What the peer has, and is not written down yet.
    taken: Vec<u64>,
    /// When that is done, if there is something.
    settle_at: Option<Instant>,
    look_at: Instant,
    /// What the log says about the link already.
    told: Option<Words>,
}

impl Running<'_> {
    fn run(mut self) {
        let shared = &*self.link.shared;
        while !shared.bell.is_stopped() {
            self.turn();
            self.show();
            self.wait();
        }
        // Nobody is left who would try again what is refused: it is sent again after the next start, and known there.
        self.write_down_taken();
    }

    fn turn(&mut self) {
        let shared = &*self.link.shared;
        if shared.retry.swap(false, Ordering::SeqCst) {
            self.tell(Event::Retry);
        }
        let now = Instant::now();
        if now >= self.look_at {
            self.look_at = now + LOOK_EVERY;
            self.tell(Event::Missed);
        }
        if shared.missed.swap(false, Ordering::SeqCst) {
            self.tell(Event::Missed);
        }
        self.read();
        for _ in 0..TURN_MAX {
            if self.courier.is_full() {
                break;
            }
            let Ok((seq, message)) = self.link.messages.try_recv() else { break };
            shared.bytes.fetch_sub(message.data.held(), Ordering::SeqCst);
            self.tell(Event::Offered(seq, message));
        }
        self.tell(Event::Tick);
        self.write();
        if self.taken.len() >= TAKEN_MAX || self.settle_at.is_some_and(|at| at <= Instant::now()) {
            let refused = self.write_down_taken();
            refused.into_iter().for_each(|receipt| self.tell(Event::Unsettled(receipt)));
        }
    }

    /// Gives back what there is no room for.
    fn write_down_taken(&mut self) -> Vec<Receipt> {
        self.settle_at = None;
        match std::mem::take(&mut self.taken) {
            taken if taken.is_empty() => Vec::new(),
            taken => self.link.outbox.settle(vec![Receipt::Taken(taken)]),
        }
    }

    /// Tells the courier, and carries out what it orders.
    fn tell(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let mut orders = Vec::new();
            self.courier.handle(Instant::now(), random(), event, &mut orders);
            self.link.shared.open.store(self.courier.state().0 == State::Up, Ordering::SeqCst);
            let mut receipts = Vec::new();
            for order in orders {
                match order {
                    Order::Settle(Receipt::Taken(seqs)) => {
                        self.settle_at.get_or_insert_with(|| Instant::now() + TAKEN_WITHIN);
                        self.taken.extend(seqs);
                    }
                    Order::Settle(receipt) => receipts.push(receipt),
                    order => events.extend(self.carry_out(order)),
                }
            }
            if !receipts.is_empty() {
                let refused = self.link.outbox.settle(receipts);
                // Before anything else: what is not written down must be known before more is sent.
                refused.into_iter().rev().for_each(|receipt| events.push_front(Event::Unsettled(receipt)));
            }
        }
    }

    fn carry_out(&mut self, order: Order) -> Option<Event> {
        match order {
            Order::Connect if self.single => Some(Event::Connected),
            Order::Connect => Some(self.connect()),
            Order::Send(_, message) if self.single => Some(self.exchange(&message)),
            Order::Send(_, message) => {
                self.packets.push(self.packet(&message));
                None
            }
            Order::Read { after, messages_max, bytes_max } => Some(match self.link.outbox.page(after, messages_max, bytes_max) {
                Ok(page) => Event::Page(page),
                Err(error) => {
                    debug!("the outbox of {} is not read: {}", self.link.peer.name, error.with_causes());
                    Event::Unreadable
                }
            }),
            Order::Settle(_) => None, // done above
            Order::Break(why) => {
                self.hang_up(why.to_owned());
                None
            }
        }
    }

    fn packet(&self, message: &Outgoing) -> Packet {
        packet(&self.link.ours, message)
    }

    fn connect(&mut self) -> Event {
        let Link { peer, ours, shared, .. } = self.link;
        self.show();
        match wire::open(peer, ours, &shared.bell) {
            Ok(wire) => {
                info!("the link to {} is up", peer.name);
                self.told = None;
                self.wire = Some(wire);
                // There may be something behind the report on the greeting.
                self.more = true;
                Event::Connected
            }
            Err(words) => {
                self.hang_up(words);
                Event::Lost
            }
        }
    }

    /// Sends one message on a connection of its own.
    fn exchange(&mut self, message: &Outgoing) -> Event {
        let Link { peer, ours, shared, .. } = self.link;
        match single::exchange(peer, ours, &shared.bell, self.packet(message)) {
            Ok(report) => {
                self.told = None;
                Event::Reported(Reported { id: Some(message.message_id.clone()), verdict: verdict(&report, true) })
            }
            Err(single::Failed::Never(words)) => {
                self.news(words);
                Event::Reported(Reported { id: Some(message.message_id.clone()), verdict: Verdict::Never })
            }
            Err(single::Failed::Now(words)) => {
                self.hang_up(words);
                Event::Lost
            }
        }
    }

    fn hang_up(&mut self, words: Words) {
        self.wire = None;
        self.packets.clear();
        self.more = false;
        if !self.link.shared.bell.is_stopped() {
            self.news(words);
        }
    }

    /// Says what went wrong; but the same again and again, for as long as a peer is away, is no news.
    fn news(&mut self, words: Words) {
        let Link { peer, shared, .. } = self.link;
        if self.told.as_ref() == Some(&words) {
            debug!("{}: {words}", peer.name);
        } else {
            warn!("{} gets no messages: {words}", peer.name);
            self.told = Some(words.clone());
        }
        shared.lock().trouble = Some((words, Instant::now()));
    }

    /// Takes in the reports that are there.
    fn read(&mut self) {
        let Some(wire) = &mut self.wire else { return };
        let depth = self.link.ours.limits.depth;
        let (mut events, mut trouble) = (Vec::new(), None);
        let read = wire.read(|frame| match server::report(&frame, depth) {
            Ok(report) => {
                if !report.good && report.id.is_none() {
                    trouble = Some(wire::said(&report));
                }
                let id = report.id.as_ref().map(|id| id.as_str().into());
                events.push(Event::Reported(Reported { verdict: verdict(&report, id.is_some()), id }));
            }
            Err(error) => trouble = Some(format!("it sends something that is no report: {}", wire::plain(&error))),
        });
        events.into_iter().for_each(|event| self.tell(event));
        match read {
            Ok(more) => self.more = more,
            Err(words) => {
                self.hang_up(trouble.unwrap_or(words));
                self.tell(Event::Lost);
            }
        }
    }

    /// Writes what may be sent.
    fn write(&mut self) {
        let Some(wire) = &self.wire else {
            self.packets.clear();
            return;
        };
        let written = match &self.packets[..] {
            [] => wire.flush(),
            packets => wire.send(packets),
        };
        self.packets.clear();
        if let Err(words) = written {
            self.hang_up(words);
            self.tell(Event::Lost);
        }
    }

    fn wait(&mut self) {
        let Link { shared, messages, .. } = self.link;
        let wants = self.courier.state().0 == State::Up && !self.courier.is_full();
        shared.wants.store(wants, Ordering::SeqCst);
        let news = wants && (!messages.is_empty() || shared.missed.load(Ordering::SeqCst));
        if !news && !self.more {
            let deadlines = [self.courier.next_deadline(), self.settle_at, Some(self.look_at)];
            let deadline = deadlines.into_iter().flatten().min();
            let waited = match &self.wire {
                Some(wire) => wire.wait(&shared.bell, deadline),
                None => shared.bell.wait(None, deadline).map(drop).map_err(|error| error.to_string()),
            };
            match waited {
                Ok(()) => self.more = self.wire.is_some(),
                Err(words) => {
                    self.hang_up(words);
                    self.tell(Event::Lost);
                }
            }
        }
        shared.wants.store(false, Ordering::SeqCst);
    }

    fn show(&self) {
        let (state, since) = self.courier.state();
        let mut status = self.link.shared.lock();
        (status.state, status.since, status.unanswered) = (state, since, self.courier.unanswered());
    }
}

/// The frame of a message.
pub(super) fn packet(ours: &Ours, message: &Outgoing) -> Packet {
    let from = message.author.as_ref().map(|author| author.user.as_str());
    let Outgoing { message_id, kind, data, hops, .. } = message;
    server::message(ours.name.as_str(), message_id, u64::from(*hops), from, kind, data)
}

fn verdict(report: &Report, has_id: bool) -> Verdict {
    let too_large = report.reason.as_ref().is_some_and(|reason| reason.as_str() == Reason::TooLarge.as_str());
    match (report.good, report.temporary) {
        (true, _) => Verdict::Good,
        (false, true) => Verdict::NotNow,
        (false, false) if too_large && !has_id => Verdict::TooLarge,
        (false, false) => Verdict::Never,
    }
}

/// Where there are no random numbers, all links wait for the same time.
fn random() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX / 2)
}

#[cfg(test)]
mod tests;
