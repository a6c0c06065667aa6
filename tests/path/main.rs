//! The way of a message through the server, without the threads and sockets: bytes of clients become messages, the
//! dispatcher makes a request of each, the handler's bytes become answers, and each leads to a delivery and a report.
//!
//! Without an argument it is a test of that. With a number, it sends so many messages, for `scripts/instructions`, which
//! counts the instructions that one takes.

use bester::config::{FederationMode, Framing};
use bester::dispatcher::{Dispatcher, Effect, Event, Form, Message, RouteConfig, Settings, Window, Windows};
use bester::frame::Decoder;
use bester::name::{ConnId, HandlerId, RouteId, ServerName, StartId, TypeName, Username};
use bester::protocol::handler::Offline;
use bester::protocol::{client, handler};
use bester::store::Standing;
use std::time::{Duration, Instant};

/// The only start of the only handler.
const HANDLER: HandlerId = HandlerId { route: RouteId(0), instance: 0, start: StartId(1) };
/// So many clients ...
const CLIENTS: u64 = 10;
/// ... send so many messages with each write.
const TOGETHER: usize = 64;
/// The size of each message's data.
const DATA_BYTES: usize = 128;
/// More messages by default than are on their way at once, so that all places are used again.
const MESSAGES: usize = 10_000;
const DEPTH_MAX: usize = 100;
const RECIPIENTS_MAX: usize = 10_000;
const FRAME_BYTES_MAX: usize = 1 << 20;

fn main() {
    let messages = std::env::args().nth(1).and_then(|argument| argument.parse().ok()).unwrap_or(MESSAGES);
    let mut path = Path::new();
    let mut sent = 0;
    while sent < messages {
        for client in 0..CLIENTS {
            path.send(client);
            sent += TOGETHER;
        }
    }
    assert_eq!((path.deliveries, path.reports, path.settled), (sent, sent, sent));
}

struct Path {
    dispatcher: Dispatcher,
    effects: Vec<Effect>,
    now: Instant,
    clients: Vec<Client>,
    answers: Decoder,
    deliveries: usize,
    reports: usize,
    settled: usize,
}

struct Client {
    conn: ConnId,
    decoder: Decoder,
    /// What it writes, and what the handler answers to that.
    messages: Vec<u8>,
    answers: Vec<u8>,
}

fn frames(body: &str) -> Vec<u8> {
    let frame = [&(body.len() as u32).to_le_bytes(), body.as_bytes()].concat();
    frame.repeat(TOGETHER)
}

impl Path {
    fn new() -> Path {
        let route = RouteConfig {
            kind: TypeName::new("echo").expect("a type"),
            instances: 1,
            queue: 1024,
            queue_wait: Duration::from_secs(60),
            offline: Offline::Drop,
            federated: false,
            idempotent: false,
        };
        let window = Window { letters: 64, bytes: 1 << 20 };
        let form =
            Form { envelope: false, per_message: false, framing: Framing::Length, in_flight: 1024, timeout: Duration::from_secs(60) };
        let settings = Settings {
            server: ServerName::new("bester.example").expect("a name"),
            start: 0x5f,
            routes: vec![route],
            sessions_per_user: 10,
            windows: Windows { unacknowledged: window, unflushed: window },
            acknowledge_within: Duration::from_secs(60),
            federation: FederationMode::Peers,
            connections_per_peer: 2,
            frame_bytes_server: 1 << 20,
            open_messages_per_second: 2,
            admin_info: "{}".to_owned(),
            listeners: Vec::new(),
        };
        let mut path = Path {
            dispatcher: Dispatcher::new(settings),
            effects: Vec::new(),
            now: Instant::now(),
            clients: Vec::new(),
            answers: Decoder::new(Framing::Length, FRAME_BYTES_MAX),
            deliveries: 0,
            reports: 0,
            settled: 0,
        };
        for number in 0..CLIENTS {
            let user = Username::new(&format!("user{number}")).expect("a name");
            let conn = ConnId(number);
            path.dispatch(Event::AccountsChanged(vec![(user.clone(), Standing::Active { revision: 1 })]));
            path.dispatch(Event::Connected(conn));
            let about = bester::dispatcher::About { kind: "dummy".into(), id: None };
            path.dispatch(Event::LoggedIn { conn, user: user.clone(), revision: 1, ack: false, after: None, about });
            let data = format!("\"{user} {}\"", "x".repeat(DATA_BYTES - user.as_str().len() - 3));
            let message = format!(r#"{{"header":{{}},"payload":{{"type":"echo","data":{data},"id":"1"}}}}"#);
            let answer =
                format!(r#"{{"header":{{"status":"0","command":"sendClients","commandData":["{user}"]}},"payload":{{"data":{data}}}}}"#);
            let decoder = Decoder::new(Framing::Length, FRAME_BYTES_MAX);
            path.clients.push(Client { conn, decoder, messages: frames(&message), answers: frames(&answer) });
        }
        path.dispatch(Event::HandlerUp(HANDLER, form));
        path.effects.clear();
        path
    }

    fn dispatch(&mut self, event: Event) {
        self.dispatcher.handle(self.now, event, &mut self.effects);
    }

    /// One client writes, the handler answers, and the client gets what it is to get.
    fn send(&mut self, client: u64) {
        let Client { conn, decoder, messages, answers } = &mut self.clients[client as usize];
        let dispatcher = &mut self.dispatcher;
        decoder.feed(messages);
        let mut events = Vec::new();
        while let Some(frame) = decoder.frame().expect("a small frame") {
            let message = client::parse(&frame, false, DEPTH_MAX).expect("a message");
            let client::Payload { kind, data, id } = message.payload.expect("a payload");
            let bytes = frame.bytes().len();
            events.push(Event::Message(*conn, Message { kind, data, id, bytes, digest: None, transit: None }));
        }
        events.into_iter().for_each(|event| dispatcher.handle(self.now, event, &mut self.effects));
        let mut asked = 0;
        for effect in self.effects.drain(..) {
            if let Effect::Ask(_, _, packet) = effect {
                assert_eq!(packet.body().len(), DATA_BYTES);
                asked += 1;
            }
        }
        assert_eq!(asked, TOGETHER);
        self.answers.feed(answers);
        let mut events = Vec::new();
        while let Some(frame) = self.answers.frame().expect("a small frame") {
            let answer = handler::parse(&frame, DEPTH_MAX, RECIPIENTS_MAX);
            events.push(Event::Answered { id: HANDLER, request: None, answer });
        }
        events.into_iter().for_each(|event| dispatcher.handle(self.now, event, &mut self.effects));
        for effect in self.effects.drain(..) {
            match effect {
                Effect::Send(to, packet) if to == *conn => {
                    let report = packet.body().starts_with(br#"{"header":{"status":"good","messageType":"statusReport""#);
                    *(if report { &mut self.reports } else { &mut self.deliveries }) += 1;
                }
                Effect::Settle(to, _) if to == *conn => self.settled += 1,
                other => panic!("{other:?} for nobody"),
            }
        }
    }
}
