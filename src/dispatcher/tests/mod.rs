//! The dispatcher in a world of its own: a clock that only the test moves, people on connections, and handlers that
//! say what the test lets them say. Events go in, effects come out; no sockets, no threads, no waiting.
//!
//! [`World::handle`] checks with every event what must hold whatever happens, so each scenario is a test of that too.
//! `people.rs` and `words.rs` are its furniture, `property.rs` draws random events for `ledger.rs` to check; the other
//! files are scenarios, by what they are about.

mod answers;
mod delivering;
mod disk;
mod handlers;
mod inquiries;
mod ledger;
mod mail_books;
mod mail_ledger;
mod mail_property;
mod mailboxes;
mod people;
mod property;
mod pushes;
mod repeats;
mod replacing;
mod retried;
mod sending;
mod serving;
mod sessions;
mod words;

use super::{Asker, Dispatcher, Effect, Event, Form, Handed, RouteConfig, Settings, Unwritten, Window, Windows};
use crate::config::{FederationMode, Framing};
use crate::frame::Packet;
use crate::gate::CloseReason;
use crate::name::{ConnId, HandlerId, PeerId, RequestId, RouteId, ServerName, StartId, TypeName};
use crate::protocol::handler::Offline;
use crate::store::Standing;
use crate::store::mail::Outgoing;
use disk::Disk;
use people::{Handler, Person};
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use words::*;

/// The types, by their [`RouteId`]: plain with one request at a time, plain with three, two that get envelopes, one with
/// a connection for each request, one with two instances that have one request at a time, one that keeps what it sends for those
/// who are away, and one that may be asked again.
const KINDS: [&str; 8] = ["chat", "many", "room", "hall", "each", "team", "post", "safe"];
const CHAT: usize = 0;
const EACH: usize = 4;
/// The instances of their handlers: the type's place, which instance, and the name.
const ENDS: [(usize, usize, &str); 9] = [
    (0, 0, "chat"),
    (1, 0, "many"),
    (2, 0, "room"),
    (3, 0, "hall"),
    (4, 0, "each"),
    (5, 0, "team/0"),
    (5, 1, "team/1"),
    (6, 0, "post"),
    (7, 0, "safe"),
];
const TIMEOUT: Duration = Duration::from_secs(10);
const QUEUE_WAIT: Duration = Duration::from_secs(5);
const QUEUE: usize = 3;
const SESSIONS_PER_USER: usize = 3;
const CONNECTIONS_PER_PEER: usize = 2;
const FRAME_BYTES_SERVER: usize = 8 << 10;
const OPEN_PER_SECOND: usize = 2;
const ACKNOWLEDGE_WITHIN: Duration = Duration::from_secs(60);

struct World {
    dispatcher: Dispatcher,
    now: Instant,
    connections: BTreeMap<ConnId, Connection>,
    handlers: Vec<HandlerEnd>,
    /// For each start there was, its place in `handlers`.
    starts: Vec<usize>,
    drained: usize,
    disk: Disk,
    /// What was given to links.
    forwarded: Vec<(PeerId, u64, Arc<Outgoing>)>,
    /// How often new peers were told of.
    link_peers: usize,
    /// Several events are taken in before anything is written: [`World::settles`] ends that.
    batching: bool,
    /// What events led to, since this was last taken.
    effects: Vec<Effect>,
}

/// What has come to a connection.
#[derive(Default)]
struct Connection {
    inbox: Vec<Packet>,
    settled: Vec<usize>,
    verdicts: Vec<bool>,
    closed: Option<CloseReason>,
    forgotten: bool,
    /// Its socket takes nothing, but for so many packets.
    stuck: bool,
    room: usize,
    /// It was sent something that waits for its socket: so many packets at the end of its inbox.
    waits: bool,
    waiting: usize,
    /// What is to be written, and as what a mailbox takes it if its socket does not.
    collected: Vec<(Packet, Option<Handed>)>,
    watched: bool,
}

impl Connection {
    fn is_dirty(&self) -> bool {
        self.watched || !self.collected.is_empty()
    }

    /// Writes what was collected, as the thread around the dispatcher does, and says what the dispatcher is told then.
    fn flush(&mut self, conn: ConnId) -> Vec<Event> {
        let (waited, watched) = (self.waits, std::mem::take(&mut self.watched));
        let mut unwritten = Vec::new();
        for (packet, letter) in std::mem::take(&mut self.collected) {
            if !self.waits && (!self.stuck || self.room > 0) {
                self.room -= usize::from(self.stuck);
                self.inbox.push(packet);
                continue;
            }
            let begun = !std::mem::replace(&mut self.waits, true);
            if begun || letter.is_none() {
                self.inbox.push(packet);
                self.waiting += 1;
            }
            unwritten.extend(letter.map(|handed| Unwritten { handed, begun }));
        }
        let backlogged = !unwritten.is_empty() || self.waits != waited;
        let emptied = watched && !self.waits;
        let events = [backlogged.then(|| Event::Backlogged(conn, unwritten)), emptied.then_some(Event::Emptied(conn))];
        events.into_iter().flatten().collect()
    }

    /// Nobody writes any more what was collected.
    fn given_up(&mut self) -> Vec<Unwritten> {
        let letters = std::mem::take(&mut self.collected).into_iter().filter_map(|(_, letter)| letter);
        letters.map(|handed| Unwritten { handed, begun: false }).collect()
    }
}

/// What has come to an instance of a handler and has no answer yet.
#[derive(Default)]
struct HandlerEnd {
    /// Its last start, and the one before.
    start: u64,
    before: u64,
    asked: VecDeque<(StartId, RequestId, Packet)>,
    told: Vec<Packet>,
    abandoned: Vec<RequestId>,
    replaced: Vec<String>,
    retired: Vec<StartId>,
    /// How it is talked to, if not as its type is.
    form: Option<Form>,
}

fn route(kind: &str) -> RouteConfig {
    let instances = ENDS.iter().filter(|(place, ..)| KINDS[*place] == kind).count();
    let offline = if kind == "post" { Offline::Queue } else { Offline::Drop };
    let federated = matches!(kind, "room" | "post" | "chat");
    let kind = TypeName::new(kind).expect("a type");
    RouteConfig { idempotent: kind.as_str() == "safe", kind, instances, queue: QUEUE, queue_wait: QUEUE_WAIT, offline, federated }
}

fn form(kind: &str) -> Form {
    Form {
        envelope: matches!(kind, "room" | "hall"),
        per_message: kind == "each",
        framing: Framing::Length,
        in_flight: if matches!(kind, "chat" | "team") { 1 } else { 3 },
        timeout: TIMEOUT,
    }
}

fn settings() -> Settings {
    Settings {
        server: ServerName::new("a.example").expect("a server's name"),
        start: 0x5f,
        routes: KINDS.iter().map(|kind| route(kind)).collect(),
        sessions_per_user: SESSIONS_PER_USER,
        windows: Windows { unacknowledged: Window { letters: 4, bytes: 1000 }, unflushed: Window { letters: 3, bytes: 1000 } },
        acknowledge_within: ACKNOWLEDGE_WITHIN,
        federation: FederationMode::Peers,
        connections_per_peer: CONNECTIONS_PER_PEER,
        frame_bytes_server: FRAME_BYTES_SERVER,
        open_messages_per_second: OPEN_PER_SECOND,
        admin_info: r#"{"email":"admin@a.example"}"#.into(),
        listeners: vec!["tcp4://127.0.0.1:2223".into()],
    }
}

impl World {
    /// alice, bob and eve are there and logged in (connections 1, 2 and 3), carol has an account; all handlers are up.
    fn new() -> World {
        let mut world = World {
            dispatcher: Dispatcher::new(settings()),
            now: Instant::now(),
            connections: BTreeMap::new(),
            handlers: ENDS.iter().map(|_| HandlerEnd::default()).collect(),
            starts: Vec::new(),
            drained: 0,
            disk: Disk::default(),
            forwarded: Vec::new(),
            link_peers: 0,
            batching: false,
            effects: Vec::new(),
        };
        for name in ["alice", "bob", "eve", "carol"] {
            world.account(name, Standing::Active { revision: 1 });
        }
        for name in ["alice", "bob", "eve"] {
            world.session(name);
        }
        for (.., name) in ENDS {
            world.handler(name).comes_up();
        }
        world
    }

    /// Whose start it is.
    fn end(&mut self, start: StartId) -> &mut HandlerEnd {
        &mut self.handlers[self.starts[start.0 as usize - 1]]
    }

    /// Takes in an event, checks what must always hold, and gives everybody what is his. Then everybody does what that leads to.
    fn handle(&mut self, event: Event) {
        self.handle_alone(event);
        if !self.batching {
            self.settles();
        }
    }

    /// Everybody does what was collected for him to do, until there is nothing more.
    fn settles(&mut self) {
        loop {
            let dirty = self.connections.iter().find(|(_, connection)| connection.is_dirty()).map(|(conn, _)| *conn);
            if let Some(conn) = dirty {
                self.flush(conn);
            } else if let Some(told) = self.disk.works() {
                told.into_iter().for_each(|told| self.handle_alone(Event::Stored(told)));
            } else {
                return;
            }
        }
    }

    fn flush(&mut self, conn: ConnId) {
        let events = self.connections.get_mut(&conn).expect("a connection that was there").flush(conn);
        events.into_iter().for_each(|event| self.handle_alone(event));
    }

    /// The thread that finishes what slow sockets did not take says that this one has taken everything.
    fn is_emptied(&mut self, conn: ConnId) {
        if !self.connections[&conn].waits {
            self.handle(Event::Emptied(conn));
        }
    }

    fn handle_alone(&mut self, event: Event) {
        let tick = matches!(event, Event::Tick);
        let mut effects = Vec::new();
        self.dispatcher.handle(self.now, event, &mut effects);
        if tick {
            let next = self.dispatcher.next_deadline();
            assert!(next.is_none_or(|deadline| deadline > self.now), "a deadline that has passed would be waited for without end");
        }
        for effect in &effects {
            self.carry_out(effect);
        }
        let gone = effects.iter().filter_map(|effect| if let Effect::Forget(conn) = effect { Some(*conn) } else { None });
        let gone: Vec<ConnId> = gone.collect();
        self.effects.append(&mut effects);
        for conn in gone {
            let left = self.connections.get_mut(&conn).map(Connection::given_up).unwrap_or_default();
            if !left.is_empty() {
                self.handle_alone(Event::Backlogged(conn, left));
            }
        }
    }

    fn carry_out(&mut self, effect: &Effect) {
        match effect {
            Effect::Send(conn, packet) => {
                let to = self.connections.get_mut(conn).expect("a connection that was there");
                assert!(to.closed.is_none() && !to.forgotten, "{conn} was sent something after its end");
                to.collected.push((packet.clone(), None));
            }
            Effect::Hand(conn, packet, handed) => {
                let to = self.connections.get_mut(conn).expect("a connection that was there");
                assert!(to.closed.is_none() && !to.forgotten, "{conn} was handed something after its end");
                to.collected.push((packet.clone(), Some((**handed).clone())));
            }
            Effect::Watch(conn) => {
                let to = self.connections.get_mut(conn).expect("a connection that was there");
                to.watched |= !to.forgotten;
            }
            Effect::Write(write) => self.disk.write(write),
            Effect::Read(read) => self.disk.read(read),
            // Bytes are given back also when the connection is gone.
            Effect::Settle(conn, bytes) => {
                let connection = self.connections.get_mut(conn).expect("a connection that was there");
                connection.settled.push(*bytes);
            }
            Effect::Verdict(conn, verdict) => self.connection(*conn).verdicts.push(*verdict),
            Effect::Close(conn, reason) => {
                assert_eq!(self.connection(*conn).closed.replace(*reason), None, "{conn} was closed twice");
            }
            Effect::Forget(conn) => {
                let connection = self.connection(*conn);
                connection.forgotten = true;
                connection.watched = false;
            }
            Effect::Tell(id, packet) => self.end(*id).told.push(packet.clone()),
            Effect::Ask(id, request, packet) => {
                let end = self.end(*id);
                assert_eq!(id.0, end.start, "only the start that is up is asked");
                end.asked.push_back((*id, *request, packet.clone()));
            }
            Effect::Abandon(id, request) => self.end(*id).abandoned.push(*request),
            Effect::Replace(id, reason) => self.end(*id).replaced.push(reason.clone()),
            Effect::Retire(id) => {
                let busy = |start: &super::lane::Start| start.id.start == *id && !start.under_way.is_empty();
                assert!(!self.dispatcher.routes.all().flat_map(|route| route.starts()).any(busy), "who retires has answered everything");
                let end = self.end(*id);
                assert!(!end.retired.contains(id), "once is enough");
                end.retired.push(*id);
            }
            Effect::Detach(id) => self.end(*id).asked.retain(|(asked, ..)| asked != id),
            Effect::Forward(peer, seq, message) => self.forwarded.push((*peer, *seq, Arc::clone(message))),
            Effect::LinkPeers => self.link_peers += 1,
            Effect::Drained => self.drained += 1,
        }
    }

    fn connection(&mut self, conn: ConnId) -> &mut Connection {
        let connection = self.connections.get_mut(&conn).expect("a connection that was there");
        assert!(!connection.forgotten, "{conn} is gone");
        connection
    }

    /// Lets time pass, with a tick whenever the dispatcher wants one.
    fn passes(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(deadline) = self.dispatcher.next_deadline().filter(|deadline| *deadline <= end) {
            self.now = self.now.max(deadline);
            self.handle(Event::Tick);
        }
        self.now = end;
        self.handle(Event::Tick);
    }

    /// What the dispatcher still keeps that came with connections and messages, by name.
    fn left(&self) -> [(&'static str, usize); 9] {
        let routes = || self.dispatcher.routes.all();
        let under_way = routes().flat_map(|route| route.starts().map(|start| start.under_way.len())).sum();
        let messages = self.dispatcher.messages.len();
        [
            ("connections", self.dispatcher.sessions.len()),
            ("sessions of users", self.dispatcher.users.left()),
            ("messages", messages),
            ("messages that may come again", self.dispatcher.repeats.len()),
            ("orders to the disk", self.dispatcher.keepings.len()),
            ("letters on their way", self.dispatcher.users.keeping()),
            ("requests that wait", routes().map(|route| route.waiting()).sum()),
            ("requests under way", under_way),
            ("connections in lanes", routes().flat_map(|route| &route.lanes).map(|lane| lane.connections).sum()),
        ]
    }

    fn account(&mut self, name: &str, standing: Standing) {
        if standing == Standing::Removed {
            self.disk.accounts.remove(name);
            self.disk.mailboxes.entry(name.to_owned()).or_default().mail.clear();
        } else {
            self.disk.accounts.insert(name.to_owned());
        }
        self.handle(Event::AccountsChanged(vec![(username(name), standing)]));
    }

    fn connects(&mut self) -> Person<'_> {
        let conn = ConnId(self.connections.len() as u64 + 1);
        self.connections.insert(conn, Connection::default());
        self.handle(Event::Connected(conn));
        self.on(conn)
    }

    /// A connection that is logged in.
    fn session(&mut self, name: &str) -> ConnId {
        let mut person = self.connects();
        person.logs_in(name, 1);
        person.gets(&["good null #auth_special"]);
        assert_eq!(person.verdict(), Some(true));
        person.conn
    }

    fn on(&mut self, conn: ConnId) -> Person<'_> {
        Person { world: self, conn }
    }

    fn alice(&mut self) -> Person<'_> {
        self.on(ConnId(1))
    }

    fn bob(&mut self) -> Person<'_> {
        self.on(ConnId(2))
    }

    fn eve(&mut self) -> Person<'_> {
        self.on(ConnId(3))
    }

    /// An instance of a handler, by its name in [`ENDS`].
    fn handler(&mut self, name: &str) -> Handler<'_> {
        let place = ENDS.iter().position(|(.., known)| *known == name).expect("an instance of this world");
        Handler { world: self, place }
    }
}
