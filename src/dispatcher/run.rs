//! The dispatcher's thread.
//!
//! Spawned by `server.rs`; owns the [`Dispatcher`] and the table from ids to outlets; waits on the one channel that
//! all connections send to, or for the next deadline; ends with [`Inbound::Quit`].
//!
//! In turns, it takes what waits (up to a bound) and handles it, writes what that leads to to each handler at once, and
//! to some of the clients for whom something was collected, to each all of it. It never blocks: outlets take what they
//! can, everything else is `try_send`.

use super::inlet::{Inbox, Nothing};
use super::{Dispatcher, Effect, Event, Handed, Unwritten};
use crate::frame::Packet;
use crate::gate::CloseReason;
use crate::gate::{Entry, Gate, Incoming};
use crate::name::{ConnId, PeerId, RequestId, StartId};
use crate::outlet::flusher::Flusher;
use crate::outlet::{Outlet, Sent};
use crate::store::Store;
use crate::store::mail::{Outgoing, Read, Told, Trouble, Write};
use crate::transport::Socket;
use crossbeam_channel::Sender;
use foldhash::HashMap;
use std::collections::VecDeque;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// After so many events nothing more is taken in before the handlers are written to.
const BATCH_MAX: usize = 128;
/// How many clients are written to before it looks again what came in. So a delivery to thousands does not hold up
/// others, and while it goes on, more comes together for those at the end: fewer, larger writes. Measured on a fan-out to
/// 100 with 4 messages under way: twice the deliveries with 8, half as many more with 32; but with 50 clients of one
/// message each, 8 makes the batches for the handler so small that a quarter is lost, and 32 costs nothing.
const PORTS_MAX: usize = 32;
/// With so many packets collected for clients, they are written before anything more is taken in.
const COLLECTED_MAX: usize = 64 << 10;
/// The room of a longer list of packets is given back.
const KEPT_PACKETS: usize = 256;

/// What comes to the dispatcher's thread.
#[derive(Debug)]
pub enum Inbound {
    /// One event.
    One(Event),
    /// All that came in with one read.
    Many(Vec<Event>),
    /// All that one read of a handler's answers made; its place is given back once they are dealt with.
    Answers(Vec<Event>, Entry),
    /// A connection that can be written to; before any event of it.
    Attach(ConnId, Port),
    /// A start of a handler that can be asked; before its `HandlerUp`.
    AttachHandler(StartId, Link, Box<dyn Minder>),
    /// A peer whose link takes messages.
    AttachPeer(PeerId, Box<dyn Carrier>),
    /// A peer that has no link any longer.
    DetachPeer(PeerId),
    /// The end of the thread.
    Quit,
}

impl Inbound {
    /// How many events that is.
    fn len(&self) -> usize {
        match self {
            Inbound::Many(events) | Inbound::Answers(events, _) => events.len(),
            _ => 1,
        }
    }
}

/// How a client's or informer's connection is reached.
#[derive(Debug)]
pub struct Port {
    /// Writes to it.
    pub outlet: Arc<Outlet>,
    /// Tells its thread what it must know.
    pub gate: Arc<Gate>,
    /// Wakes its thread.
    pub socket: Arc<Socket>,
}

/// How a handler is reached.
#[derive(Debug)]
pub enum Link {
    /// One stream for all requests, and how many it was ever given.
    Stream(Arc<Outlet>, Arc<AtomicUsize>),
    /// A connection for each request.
    PerMessage(Box<dyn Ask + Send>),
}

/// Hands single requests to a handler. Never blocks.
pub trait Ask: std::fmt::Debug {
    /// Begins with a request; what becomes of it comes as an event.
    fn ask(&self, request: RequestId, packet: Packet);
    /// Gives a request up; nothing more of it must come.
    fn abandon(&self, request: RequestId);
}

/// The link to another server. Never blocks.
pub trait Carrier: std::fmt::Debug + Send {
    /// This lies in the peer's outbox, under this number. A link that has too much to do may leave it there: it reads the
    /// outbox when it has not.
    fn carry(&self, seq: u64, message: Arc<Outgoing>);
}

/// Whoever minds one start of a handler. None of it blocks.
pub trait Minder: std::fmt::Debug + Send {
    /// It cannot be trusted any longer, for this reason: it is to be ended and started again.
    fn replace(&self, reason: String);
    /// It takes no more requests: probably it is about to exit.
    fn closed(&self);
    /// It is asked nothing more, and has answered everything.
    fn retire(&self);
}

/// The thread's side of everything.
pub struct Runner {
    /// The state machine.
    pub dispatcher: Dispatcher,
    /// Where everything comes from.
    pub inbox: Inbox,
    /// Finishes what slow connections do not take.
    pub flusher: Flusher,
    /// Bytes that came in and are not dealt with.
    pub incoming: Arc<Incoming>,
    /// Keeps what must not be lost.
    pub store: Store,
    /// Told once when the last message under way has its report, after the order to stop.
    pub drained: Sender<()>,
    /// Told when there are peers that have no link yet.
    pub link_peers: Sender<()>,
}

#[derive(Default)]
struct Tables {
    ports: HashMap<ConnId, Attached>,
    links: HashMap<StartId, Linked>,
    carriers: HashMap<PeerId, Box<dyn Carrier>>,
    /// Of all connections, also those that are gone.
    settled_bytes: usize,
    /// Those for which something was collected, in the order of the first of it.
    dirty_ports: VecDeque<ConnId>,
    dirty_links: Vec<StartId>,
    /// What connections that are gone were handed, and nobody has written any more.
    left: Vec<(ConnId, Vec<Unwritten>)>,
    writes: Vec<Write>,
    reads: Vec<Read>,
    /// How many dirty ports and packets for them there are.
    collected: usize,
}

struct Linked {
    link: Link,
    minder: Box<dyn Minder>,
    packets: Vec<Packet>,
}

struct Attached {
    port: Port,
    packets: Vec<Packet>,
    /// Those of the packets that go to a mailbox if they are not written at once: their places, in order.
    letters: Vec<(usize, Handed)>,
    /// Somebody wants to know when everything has left.
    watched: bool,
    settled: (usize, usize),
    closing: Option<CloseReason>,
    dirty: bool,
}

impl Runner {
    /// Runs until [`Inbound::Quit`], or until nobody is left who could send anything.
    pub fn run(mut self) {
        let mut tables = Tables::default();
        let mut effects = Vec::new();
        let mut quit = false;
        while !quit {
            quit = self.take_in(&mut tables, &mut effects);
            self.write_to_store(&mut tables, &mut effects);
            self.write_to_handlers(&mut tables);
            self.write_to_clients(&mut tables, &mut effects);
            self.write_to_store(&mut tables, &mut effects);
            self.write_to_handlers(&mut tables);
        }
        while !tables.dirty_ports.is_empty() {
            self.write_to_clients(&mut tables, &mut effects);
            self.write_to_store(&mut tables, &mut effects);
        }
    }

    /// Takes what waits, or waits for something if there is nothing left to write. Whether that was the last.
    fn take_in(&mut self, tables: &mut Tables, effects: &mut Vec<Effect>) -> bool {
        debug_assert!(tables.dirty_links.is_empty(), "it may wait now, and nobody would write to them");
        let first = match tables.collected {
            0 => self.inbox.receive(self.dispatcher.next_deadline()),
            1..COLLECTED_MAX => self.inbox.look(),
            COLLECTED_MAX.. => Err(Nothing::Yet),
        };
        let now = Instant::now();
        let mut quit = false;
        match first {
            Ok(first) => {
                let mut next = Some(first);
                let mut taken = 0;
                while let Some(inbound) = next {
                    taken += inbound.len();
                    quit |= tables.take(&mut self.dispatcher, now, inbound, effects);
                    let more = taken < BATCH_MAX && effects.len() < COLLECTED_MAX;
                    next = if more { self.inbox.look().ok() } else { None };
                }
            }
            Err(Nothing::Yet) => {}
            Err(Nothing::Ever) => quit = true,
        }
        self.dispatcher.handle(now, Event::Tick, effects);
        self.carry_out(tables, effects);
        quit
    }

    /// Carries out all effects; what is to be written is collected.
    fn carry_out(&mut self, tables: &mut Tables, effects: &mut Vec<Effect>) {
        for effect in effects.drain(..) {
            self.carry_out_one(tables, effect);
        }
        while let Some((conn, unwritten)) = tables.left.pop() {
            self.dispatcher.handle(Instant::now(), Event::Backlogged(conn, unwritten), effects);
            effects.drain(..).for_each(|effect| self.carry_out_one(tables, effect));
        }
        self.incoming.give_back(std::mem::take(&mut tables.settled_bytes));
    }

    /// Hands over what is for the storage threads. What they have no room for comes back at once.
    fn write_to_store(&mut self, tables: &mut Tables, effects: &mut Vec<Effect>) {
        if tables.writes.is_empty() && tables.reads.is_empty() {
            return;
        }
        let now = Instant::now();
        if let Err(refused) = self.store.write(std::mem::take(&mut tables.writes)) {
            // Of the others that are given back none is the dispatcher's: links order them, and try again themselves.
            let tickets = refused.into_iter().filter_map(|write| if let Write::Keep(ticket, _) = write { Some(ticket) } else { None });
            tickets.for_each(|ticket| self.dispatcher.handle(now, Event::Stored(Told::Kept(ticket, Err(Trouble::Busy))), effects));
        }
        for read in tables.reads.drain(..) {
            let told = match self.store.read(read) {
                Ok(()) => continue,
                Err(Read::Page { conn, .. }) => Told::Page(conn, Err(Trouble::Busy)),
                Err(Read::Memo { digest }) => Told::Memo(digest, Err(Trouble::Busy)),
            };
            self.dispatcher.handle(now, Event::Stored(told), effects);
        }
        self.carry_out(tables, effects);
    }

    /// Writes what was collected for handlers.
    fn write_to_handlers(&mut self, tables: &mut Tables) {
        for start in tables.dirty_links.drain(..) {
            let Some(Linked { link: Link::Stream(outlet, given), minder, packets }) = tables.links.get_mut(&start) else { continue };
            // Before it can have read any of them: whoever reads its answers must know.
            given.fetch_add(packets.len(), Ordering::SeqCst);
            match outlet.send(packets) {
                Sent::All | Sent::WaitsOn => {}
                Sent::Waits => self.flusher.take(outlet, None),
                // It may hold no more than it may have under way; what is beyond that, it was given up for.
                Sent::Overflowed => minder.replace("does not read its requests".into()),
                Sent::Broken => minder.closed(),
            }
            packets.clear();
        }
    }

    /// Writes what was collected for some clients, those first that have waited the longest.
    fn write_to_clients(&mut self, tables: &mut Tables, effects: &mut Vec<Effect>) {
        for _ in 0..PORTS_MAX {
            let Some(conn) = tables.dirty_ports.pop_front() else { break };
            tables.collected -= 1;
            let Some(attached) = tables.ports.get_mut(&conn) else { continue };
            tables.collected -= attached.packets.len();
            let watched = attached.watched;
            let (sent, unwritten) = attached.flush(conn, &self.flusher);
            let events = [
                (!unwritten.is_empty() || sent == Sent::Waits).then(|| Event::Backlogged(conn, unwritten)),
                (watched && sent == Sent::All).then_some(Event::Emptied(conn)),
                (sent == Sent::Overflowed).then_some(Event::Overflowed(conn)),
            ];
            for event in events.into_iter().flatten() {
                self.dispatcher.handle(Instant::now(), event, effects);
            }
        }
        self.carry_out(tables, effects);
    }

    fn carry_out_one(&mut self, tables: &mut Tables, effect: Effect) {
        match effect {
            Effect::Send(conn, packet) => tables.touch(conn, |attached| attached.packets.push(packet)),
            Effect::Hand(conn, packet, handed) => tables.touch(conn, |attached| {
                attached.letters.push((attached.packets.len(), *handed));
                attached.packets.push(packet);
            }),
            Effect::Watch(conn) => tables.touch(conn, |attached| attached.watched = true),
            Effect::Write(write) => tables.writes.push(write),
            Effect::Read(read) => tables.reads.push(*read),
            Effect::Settle(conn, bytes) => {
                tables.settled_bytes += bytes;
                tables.touch(conn, |attached| {
                    attached.settled.0 += 1;
                    attached.settled.1 += bytes;
                });
            }
            Effect::Close(conn, reason) => tables.touch(conn, |attached| attached.closing = Some(reason)),
            Effect::Verdict(conn, verdict) => {
                if let Some(attached) = tables.ports.get(&conn) {
                    attached.port.gate.decide(verdict);
                }
            }
            Effect::Forget(conn) => {
                if let Some(mut attached) = tables.ports.remove(&conn).filter(|attached| attached.dirty) {
                    tables.collected -= attached.packets.len();
                    let unwritten = attached.unwritten(0, false);
                    if !unwritten.is_empty() {
                        tables.left.push((conn, unwritten));
                    }
                }
            }
            Effect::Ask(start, request, packet) => match tables.links.get(&start) {
                Some(Linked { link: Link::PerMessage(link), .. }) => link.ask(request, packet),
                _ => tables.write_to_handler(start, packet),
            },
            Effect::Tell(start, packet) => tables.write_to_handler(start, packet),
            Effect::Abandon(start, request) => {
                if let Some(Linked { link: Link::PerMessage(link), .. }) = tables.links.get(&start) {
                    link.abandon(request);
                }
            }
            Effect::Replace(start, reason) => tables.mind(start, |minder| minder.replace(reason)),
            Effect::Retire(start) => tables.mind(start, |minder| minder.retire()),
            Effect::Detach(start) => _ = tables.links.remove(&start),
            Effect::Forward(peer, seq, message) => {
                if let Some(carrier) = tables.carriers.get(&peer) {
                    carrier.carry(seq, message);
                }
            }
            Effect::LinkPeers => {
                let _ = self.link_peers.try_send(()); // one word for all that are new is enough
            }
            Effect::Drained => {
                let _ = self.drained.try_send(()); // nobody listens once the time to drain is over
            }
        }
    }
}

impl Tables {
    /// Whether this was the last.
    fn take(&mut self, dispatcher: &mut Dispatcher, now: Instant, inbound: Inbound, effects: &mut Vec<Effect>) -> bool {
        match inbound {
            Inbound::One(Event::Emptied(conn)) if !self.is_empty(conn) => {}
            Inbound::One(event) => dispatcher.handle(now, event, effects),
            Inbound::Many(events) => events.into_iter().for_each(|event| dispatcher.handle(now, event, effects)),
            Inbound::Answers(events, _place) => events.into_iter().for_each(|event| dispatcher.handle(now, event, effects)),
            Inbound::Attach(conn, port) => {
                self.ports.insert(conn, Attached::new(port));
            }
            Inbound::AttachHandler(start, link, minder) => {
                self.links.insert(start, Linked { link, minder, packets: Vec::new() });
            }
            Inbound::AttachPeer(peer, carrier) => _ = self.carriers.insert(peer, carrier),
            Inbound::DetachPeer(peer) => _ = self.carriers.remove(&peer),
            Inbound::Quit => return true,
        }
        false
    }

    /// Whether a connection that was said to be empty is so: it may have filled up again since, and then that is said again, or
    /// something may be collected for it, and then it is said once that is written.
    fn is_empty(&mut self, conn: ConnId) -> bool {
        let Some(attached) = self.ports.get_mut(&conn) else { return false };
        attached.watched |= !attached.packets.is_empty();
        attached.packets.is_empty() && !attached.port.outlet.is_waiting()
    }

    fn write_to_handler(&mut self, start: StartId, packet: Packet) {
        let Some(Linked { link: Link::Stream(..), packets, .. }) = self.links.get_mut(&start) else { return };
        packets.push(packet);
        if packets.len() == 1 {
            self.dirty_links.push(start);
        }
    }

    fn mind(&self, start: StartId, order: impl FnOnce(&dyn Minder)) {
        if let Some(Linked { minder, .. }) = self.links.get(&start) {
            order(&**minder);
        }
    }

    fn touch(&mut self, conn: ConnId, change: impl FnOnce(&mut Attached)) {
        let Some(attached) = self.ports.get_mut(&conn) else { return };
        let before = attached.packets.len();
        change(attached);
        self.collected += attached.packets.len() - before;
        if !std::mem::replace(&mut attached.dirty, true) {
            self.dirty_ports.push_back(conn);
            self.collected += 1;
        }
    }
}

impl Attached {
    fn new(port: Port) -> Attached {
        Attached { port, packets: Vec::new(), letters: Vec::new(), watched: false, settled: (0, 0), closing: None, dirty: false }
    }

    /// Writes what was collected, then lets the connection's thread know what concerns it. What is for a mailbox, as it was not
    /// written, is given back.
    fn flush(&mut self, conn: ConnId, flusher: &Flusher) -> (Sent, Vec<Unwritten>) {
        self.dirty = false;
        let (mut sent, mut unwritten) = (Sent::All, Vec::new());
        let watched = std::mem::take(&mut self.watched);
        if watched || !self.packets.is_empty() {
            let is_letter = |place| self.letters.binary_search_by_key(&place, |(letter, _)| *letter).is_ok();
            let sending = self.port.outlet.send_or_leave(&self.packets, is_letter);
            sent = sending.sent;
            if sent != Sent::All {
                unwritten = self.unwritten(sending.whole, sending.begun);
            }
            self.letters.clear();
            self.packets.clear();
            self.packets.shrink_to(KEPT_PACKETS);
        }
        if sent == Sent::Waits {
            flusher.take(&self.port.outlet, Some(conn));
        }
        let (messages, bytes) = std::mem::take(&mut self.settled);
        if messages > 0 {
            self.port.gate.settle(messages, bytes);
        }
        if let Some(reason) = self.closing.take() {
            let lingering = self.port.gate.close(reason);
            if reason.is_polite() {
                self.port.outlet.finish();
            } else {
                self.port.outlet.abort();
            }
            if !lingering {
                self.port.socket.shutdown(Shutdown::Read);
            }
        }
        (sent, unwritten)
    }

    /// The letters of which the first `whole` packets have none; `begun` says whether the next one waits to be written.
    fn unwritten(&mut self, whole: usize, begun: bool) -> Vec<Unwritten> {
        let letters = self.letters.drain(..).filter(|(place, _)| *place >= whole);
        letters.map(|(place, handed)| Unwritten { handed, begun: begun && place == whole }).collect()
    }
}

#[cfg(test)]
mod tests;
