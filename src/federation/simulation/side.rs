//! One of the two servers, with its people, its handler and its link.

use super::disk::Disk;
use super::verdict;
use crate::config::{FederationMode, Framing};
use crate::dispatcher::{About, Dispatcher, Effect, Event, Form, Message, Proof, RouteConfig, Settings, Transit, Window, Windows};
use crate::federation::courier::{self, Bounds, Courier, Order, Reported};
use crate::frame::{Frame, Packet, Slice};
use crate::name::{ConnId, HandlerId, PeerId, RequestId, RouteId, ServerName, StartId, TypeName, Username};
use crate::protocol::handler::{self, Offline};
use crate::protocol::report::Id;
use crate::protocol::server;
use crate::protocol::text::Text;
use crate::store::mail::{Outgoing, Read, Told, Write};
use crate::store::{Peer, Standing, Verify};
use crate::tls::Pin;
use serde_json::Value;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

const ALICE: ConnId = ConnId(1);
const BOB: ConnId = ConnId(2);
const PEER: PeerId = PeerId(1);
const BOUNDS: Bounds = Bounds {
    messages: 4,
    bytes: 1 << 20,
    report: Duration::from_secs(30),
    retry_min: Duration::from_secs(5),
    retry_max: Duration::from_secs(60),
};

pub(super) struct Side {
    name: &'static str,
    other: &'static str,
    disk: Disk,
    dispatcher: Dispatcher,
    courier: Courier,
    /// How often it was started.
    starts: u64,
    /// Ordered of the disk, and not yet done.
    writes: VecDeque<Write>,
    reads: VecDeque<Read>,
    link_reads: VecDeque<(u64, usize)>,
    /// What the handler was asked.
    asked: VecDeque<Packet>,
    /// The connection on which the other server speaks, and the last number that one had.
    peer: Option<ConnId>,
    conns: u64,
    reports: Vec<Vec<u8>>,
    /// The numbers of messages that alice was told are good.
    good: Vec<u64>,
    /// What bob has and did not acknowledge.
    unacknowledged: Option<u64>,
    orders: Vec<Order>,
    /// Messages of the other server that the handler was asked.
    pub(super) handled: usize,
}

fn settings(name: &str, start: u64) -> Settings {
    let window = Window { letters: 4, bytes: 1 << 20 };
    Settings {
        server: ServerName::new(name).expect("a name"),
        start: u128::from(start),
        routes: vec![RouteConfig {
            kind: TypeName::new("room").expect("a type"),
            instances: 1,
            queue: 1000,
            queue_wait: Duration::from_secs(600),
            offline: Offline::Queue,
            federated: true,
            idempotent: false,
        }],
        sessions_per_user: 9,
        windows: Windows { unacknowledged: window, unflushed: window },
        acknowledge_within: Duration::from_secs(86_400),
        federation: FederationMode::Peers,
        connections_per_peer: 4,
        frame_bytes_server: 1 << 20,
        open_messages_per_second: 1,
        admin_info: "{}".to_owned(),
        listeners: Vec::new(),
    }
}

fn pin(name: &str) -> Pin {
    Pin::of(name.as_bytes())
}

impl Side {
    pub(super) fn new(name: &'static str, other: &'static str, now: Instant) -> Side {
        Side {
            name,
            other,
            disk: Disk::default(),
            dispatcher: Dispatcher::new(settings(name, 0)),
            courier: Courier::new(BOUNDS, now),
            starts: 0,
            writes: VecDeque::new(),
            reads: VecDeque::new(),
            link_reads: VecDeque::new(),
            asked: VecDeque::new(),
            peer: None,
            conns: 0,
            reports: Vec::new(),
            good: Vec::new(),
            unacknowledged: None,
            orders: Vec::new(),
            handled: 0,
        }
    }

    /// It is killed; its disk had done so much more of what it was ordered.
    pub(super) fn is_killed(&mut self, done: usize) {
        for write in self.writes.drain(..).take(done) {
            self.disk.write(&write);
        }
        self.writes.clear();
        self.reads.clear();
        self.link_reads.clear();
        self.asked.clear();
        self.reports.clear();
        self.orders.clear();
        self.peer = None;
        self.unacknowledged = None;
    }

    /// It is started, its handler is up, and its people log in.
    pub(super) fn starts(&mut self, now: Instant) {
        self.starts += 1;
        self.conns = 2;
        self.dispatcher = Dispatcher::new(settings(self.name, self.starts));
        self.courier = Courier::new(BOUNDS, now);
        let user = |name: &str| Username::new(name).expect("a name");
        let standing = Standing::Active { revision: 1 };
        self.tell(now, Event::AccountsChanged(vec![(user("alice"), standing), (user("bob"), standing)]));
        let peer = Peer {
            id: PEER,
            name: ServerName::new(self.other).expect("a name"),
            addresses: vec!["other.example:2224".parse().expect("an address")],
            verify: Verify::Pins(vec![pin(self.other)]),
        };
        self.tell(now, Event::PeersChanged(vec![peer]));
        let form =
            Form { envelope: true, per_message: false, framing: Framing::Length, in_flight: 8, timeout: Duration::from_secs(86_400) };
        self.tell(now, Event::HandlerUp(HandlerId { route: RouteId(0), instance: 0, start: StartId(1) }, form));
        for (conn, name, ack) in [(ALICE, "alice", false), (BOB, "bob", true)] {
            self.tell(now, Event::Connected(conn));
            let about = About { kind: Text::from("dummy"), id: Some(Id::AuthSpecial) };
            self.tell(now, Event::LoggedIn { conn, user: user(name), revision: 1, ack, after: None, about });
        }
        self.courier(now, 0, courier::Event::Tick);
    }

    /// Takes in what happened, and notes what that leads to.
    fn tell(&mut self, now: Instant, event: Event) {
        let mut effects = Vec::new();
        self.dispatcher.handle(now, event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Send(conn, packet) => self.sent(conn, &packet),
                Effect::Ask(_, _, packet) => self.asked.push_back(packet),
                Effect::Write(write) => self.writes.push_back(write),
                Effect::Read(read) => self.reads.push_back(*read),
                Effect::Forward(_, seq, message) => self.courier(now, 0, courier::Event::Offered(seq, message)),
                Effect::Watch(conn) => self.tell(now, Event::Emptied(conn)),
                _ => {}
            }
        }
    }

    fn sent(&mut self, conn: ConnId, packet: &Packet) {
        let body = packet.body();
        if Some(conn) == self.peer {
            return self.reports.push(body.into_owned());
        }
        let frame: Value = serde_json::from_slice(&body).expect("JSON");
        if conn == BOB {
            self.unacknowledged = frame["header"]["seq"].as_u64().or(self.unacknowledged);
        } else if let Some(number) = frame["payload"]["id"].as_str().and_then(|id| id.parse::<u64>().ok()) {
            self.good.extend((frame["header"]["status"] == "good").then_some(number));
        }
    }

    pub(super) fn take_good(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.good)
    }

    /// What is to go back to the other server.
    pub(super) fn take_reports(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.reports)
    }

    pub(super) fn alice_sends(&mut self, now: Instant, number: u64) {
        let id = Some(Slice::from(format!("\"{number}\"").as_bytes()));
        let data = Slice::from(number.to_string().as_bytes());
        let message = Message { kind: Text::from("room"), data, id, bytes: 1, digest: None, transit: None };
        self.tell(now, Event::Message(ALICE, message));
    }

    /// The handler answers what it was asked first: what comes from here goes there, what comes from there goes to bob.
    pub(super) fn handler_answers(&mut self, now: Instant) -> bool {
        let Some(packet) = self.asked.pop_front() else { return false };
        let asked: Value = serde_json::from_slice(&packet.body()).expect("JSON");
        let id = &asked["header"]["messageId"];
        let data = &asked["payload"]["data"];
        let command = if asked["header"]["from"]["scope"] == "server" {
            self.handled += 1;
            r#""command":"sendClients","commandData":["bob"]"#.to_owned()
        } else {
            format!(r#""command":"sendServers","commandData":["{}"]"#, self.other)
        };
        let answer = format!(r#"{{"header":{{"status":"0","inReplyTo":{id},{command}}},"payload":{{"data":{data}}}}}"#);
        let answer = handler::parse(&Frame::from(answer.as_bytes()), 100, 10);
        let handler = HandlerId { route: RouteId(0), instance: 0, start: StartId(1) };
        self.tell(now, Event::Answered { id: handler, request: None::<RequestId>, answer });
        true
    }

    /// The disk does the next thing: of what is to be written, or of what is to be read.
    pub(super) fn disk_works(&mut self, now: Instant, writes: bool) -> bool {
        if writes {
            let Some(write) = self.writes.pop_front() else { return false };
            let told = self.disk.write(&write);
            told.into_iter().for_each(|told| self.tell(now, Event::Stored(told)));
        } else if let Some(read) = self.reads.pop_front() {
            let told: Told = self.disk.read(&read);
            self.tell(now, Event::Stored(told));
        } else if let Some((after, most)) = self.link_reads.pop_front() {
            let page = self.disk.outbox(after, most);
            self.courier(now, 0, courier::Event::Page(page));
        } else {
            return false;
        }
        true
    }

    pub(super) fn bob_acknowledges(&mut self, now: Instant) -> bool {
        let Some(seq) = self.unacknowledged.take() else { return false };
        let about = About { kind: Text::from("builtin"), id: None };
        self.tell(now, Event::Acknowledged { conn: BOB, seq, about });
        true
    }

    /// The other server's link has connected.
    pub(super) fn peer_comes(&mut self, now: Instant) {
        self.peer_gone(now);
        self.conns += 1;
        let conn = ConnId(self.conns);
        self.peer = Some(conn);
        self.tell(now, Event::Connected(conn));
        let proof = Proof { key: Some(pin(self.other)), address: None, plain: false };
        let about = About { kind: Text::from("builtin"), id: None };
        self.tell(now, Event::Greeted { conn, proof, server: Some(Text::from(self.other)), about });
    }

    pub(super) fn peer_gone(&mut self, now: Instant) {
        if let Some(conn) = self.peer.take() {
            self.tell(now, Event::Disconnected(conn));
        }
    }

    /// A frame of the other server's link.
    pub(super) fn frame_arrives(&mut self, now: Instant, frame: &[u8]) {
        let Some(conn) = self.peer else { return };
        let server::Message { header, payload } = server::parse(&Frame::from(frame), 100).expect("a message");
        let id = header.message_id.expect("an id");
        let digest = Some(Box::new(crate::tls::digest(id.bytes())));
        let transit = Some(Box::new(Transit { message_id: Some(id), hops: header.hops, from: header.from }));
        let message = Message { kind: payload.kind, data: payload.data, id: payload.id, bytes: 1, digest, transit };
        self.tell(now, Event::Message(conn, message));
    }

    fn courier(&mut self, now: Instant, random: u32, event: courier::Event) {
        self.courier.handle(now, random, event, &mut self.orders);
    }

    pub(super) fn link_connected(&mut self, now: Instant, random: u32) {
        self.courier(now, random, courier::Event::Connected);
    }

    pub(super) fn link_lost(&mut self, now: Instant, random: u32) {
        self.courier(now, random, courier::Event::Lost);
    }

    /// A report of the other server.
    pub(super) fn report_arrives(&mut self, now: Instant, random: u32, frame: &[u8]) {
        let report = server::report(&Frame::from(frame), 100).expect("a report");
        let verdict = verdict(&report);
        let id = report.id.map(|id| id.as_str().into());
        self.courier(now, random, courier::Event::Reported(Reported { id, verdict }));
    }

    pub(super) fn ticks(&mut self, now: Instant, random: u32) {
        self.tell(now, Event::Tick);
        self.courier(now, random, courier::Event::Tick);
    }

    /// Does what the link orders: whether it wants a connection, what it sends, and whether it ends the one that it has.
    pub(super) fn link_orders(&mut self, now: Instant, random: u32) -> (bool, Vec<Vec<u8>>, bool) {
        let (mut connects, mut frames, mut breaks) = (false, Vec::new(), false);
        self.courier(now, random, courier::Event::Tick);
        for order in std::mem::take(&mut self.orders) {
            match order {
                Order::Connect => connects = true,
                Order::Send(_, message) => frames.push(self.frame(&message)),
                Order::Read { after, messages_max, .. } => self.link_reads.push_back((after, messages_max)),
                Order::Settle(receipt) => self.writes.push_back(Write::Sent(PEER, receipt)),
                Order::Break(_) => breaks = true,
            }
        }
        (connects, frames, breaks)
    }

    fn frame(&self, message: &Outgoing) -> Vec<u8> {
        let from = message.author.as_ref().map(|author| author.user.as_str());
        let Outgoing { message_id, hops, kind, data, .. } = message;
        server::message(self.name, message_id, u64::from(*hops), from, kind, data).body().into_owned()
    }

    /// How often bob was given the message of this number.
    pub(super) fn given(&self, number: u64) -> usize {
        let data = number.to_string();
        self.disk.letters.iter().filter(|letter| letter.data.bytes() == data.as_bytes()).count()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.disk.is_empty() && self.writes.is_empty() && self.asked.is_empty()
    }

    pub(super) fn left(&self) -> String {
        let Side { name, writes, asked, courier, .. } = self;
        format!("{name}: {}, {} to write, {} asked, {:?}", self.disk.left(), writes.len(), asked.len(), courier.state())
    }
}
