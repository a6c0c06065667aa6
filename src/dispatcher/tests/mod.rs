//! The dispatcher in a world of its own: a clock that only the test moves, people on connections, and handlers that
//! say what the test lets them say. Events go in, effects come out; no sockets, no threads, no waiting.
//!
//! [`World::handle`] checks with every event what must hold whatever happens, so each scenario is a test of that too.
//! `people.rs` and `words.rs` are its furniture, `property.rs` draws random events for `ledger.rs` to check; the other
//! files are scenarios, by what they are about.

mod answers;
mod delivering;
mod handlers;
mod inquiries;
mod ledger;
mod people;
mod property;
mod sessions;
mod words;

use super::{Dispatcher, Effect, Event, RouteConfig, Settings};
use crate::config::Framing;
use crate::frame::Packet;
use crate::gate::CloseReason;
use crate::name::{ConnId, Generation, RequestId, RouteId, ServerName, TypeName};
use crate::store::Standing;
use people::{Handler, Person};
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};
use words::*;

/// The types, by their [`RouteId`]: plain with one request at a time, plain with three, two that get envelopes, and
/// one with a connection for each request.
const KINDS: [&str; 5] = ["chat", "many", "room", "hall", "each"];
const CHAT: usize = 0;
const EACH: usize = 4;
const TIMEOUT: Duration = Duration::from_secs(10);
const QUEUE_WAIT: Duration = Duration::from_secs(5);
const QUEUE: usize = 3;
const SESSIONS_PER_USER: usize = 3;

struct World {
    dispatcher: Dispatcher,
    now: Instant,
    connections: BTreeMap<ConnId, Connection>,
    handlers: Vec<HandlerEnd>,
    drained: usize,
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
}

/// What has come to a handler and has no answer yet.
#[derive(Default)]
struct HandlerEnd {
    generation: u64,
    asked: VecDeque<(RequestId, Packet)>,
    told: Vec<Packet>,
    abandoned: Vec<RequestId>,
    replaced: Vec<String>,
}

fn settings() -> Settings {
    let route = |kind: &&str| RouteConfig {
        kind: TypeName::new(kind).expect("a type"),
        envelope: matches!(*kind, "room" | "hall"),
        per_message: *kind == "each",
        framing: Framing::Length,
        in_flight: if *kind == "chat" { 1 } else { 3 },
        queue: QUEUE,
        queue_wait: QUEUE_WAIT,
        timeout: TIMEOUT,
    };
    Settings {
        server: ServerName::new("a.example").expect("a server's name"),
        start: 0x5f,
        routes: KINDS.iter().map(route).collect(),
        sessions_per_user: SESSIONS_PER_USER,
        admin_info: r#"{"email":"admin@a.example"}"#.into(),
        listeners: vec!["tcp4://127.0.0.1:2223".into()],
    }
}

impl World {
    /// alice, bob and eve are there and logged in (connections 1, 2 and 3), carol has an account; all handlers are up.
    fn new() -> World {
        World::with(settings())
    }

    fn with(settings: Settings) -> World {
        let handlers = settings.routes.iter().map(|_| HandlerEnd::default()).collect();
        let dispatcher = Dispatcher::new(settings);
        let mut world = World { dispatcher, now: Instant::now(), connections: BTreeMap::new(), handlers, drained: 0, effects: Vec::new() };
        for name in ["alice", "bob", "eve", "carol"] {
            world.account(name, Standing::Active { revision: 1 });
        }
        for name in ["alice", "bob", "eve"] {
            world.session(name);
        }
        for kind in KINDS {
            world.handler(kind).comes_up();
        }
        world
    }

    /// Takes in an event, checks what must always hold, and gives everybody what is his.
    fn handle(&mut self, event: Event) {
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
        self.effects.append(&mut effects);
    }

    fn carry_out(&mut self, effect: &Effect) {
        match effect {
            Effect::Send(conn, packet) => {
                let to = self.connections.get_mut(conn).expect("a connection that was there");
                assert!(to.closed.is_none() && !to.forgotten, "{conn} was sent something after its end");
                to.inbox.push(packet.clone());
            }
            // Bytes are given back also when the connection is gone.
            Effect::Settle(conn, bytes) => {
                let connection = self.connections.get_mut(conn).expect("a connection that was there");
                connection.settled.push(*bytes);
            }
            Effect::Verdict(conn, verdict) => self.connection(*conn).verdicts.push(*verdict),
            Effect::Close(conn, reason) => {
                assert_eq!(self.connection(*conn).closed.replace(*reason), None, "{conn} was closed twice");
            }
            Effect::Forget(conn) => self.connection(*conn).forgotten = true,
            Effect::Tell(route, packet) => self.handlers[route.index()].told.push(packet.clone()),
            Effect::Ask(route, request, packet) => self.handlers[route.index()].asked.push_back((*request, packet.clone())),
            Effect::Abandon(route, request) => self.handlers[route.index()].abandoned.push(*request),
            Effect::Replace { route, generation, reason } => {
                let handler = &mut self.handlers[route.index()];
                assert_eq!(generation.0, handler.generation, "only the start that is up can be replaced");
                handler.replaced.push(reason.clone());
                handler.asked.clear();
            }
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
    fn left(&self) -> [(&'static str, usize); 6] {
        let routes = || self.dispatcher.routes.iter();
        let messages = self.dispatcher.messages.len();
        let requests: usize = self.dispatcher.routes.iter().map(|route| route.under_way.len() + route.waiting.len()).sum();
        [
            ("connections", self.dispatcher.sessions.len()),
            ("sessions of users", self.dispatcher.users.left()),
            ("messages", messages),
            ("requests", requests),
            ("requests that wait", routes().map(|route| route.waiting.len()).sum()),
            ("requests under way", routes().map(|route| route.under_way.len()).sum()),
        ]
    }

    fn account(&mut self, name: &str, standing: Standing) {
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

    fn handler(&mut self, kind: &str) -> Handler<'_> {
        let place = KINDS.iter().position(|known| *known == kind).expect("a type of this world");
        Handler { world: self, place }
    }
}
