//! The ways in which a handler is talked to, and one who sends to it and knows what is his.

use crate::fault::PROGRAM;
use crate::world::Client;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Standard input and output.
    Stdio,
    /// A socket on descriptor 3.
    Socket,
    /// A UNIX socket, with a connection for each message, ...
    Single,
    /// ... or one that is kept.
    Kept,
}

pub const WAYS: [Way; 4] = [Way::Stdio, Way::Socket, Way::Single, Way::Kept];

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Stdio => "stdio",
            Way::Socket => "socket",
            Way::Single => "single",
            Way::Kept => "kept",
        }
    }

    /// The name of the type for this fault.
    pub fn kind(self, fault: &str) -> String {
        format!("{}-{fault}", self.name())
    }

    pub fn is_unix(self) -> bool {
        matches!(self, Way::Single | Way::Kept)
    }

    /// The entry in `typeMap`; `program` in place of the usual one, further `arguments` and `keys`.
    pub fn entry(self, kind: &str, program: Option<&str>, arguments: &[&str], keys: &str) -> String {
        let (argument, transport) = match self {
            Way::Stdio => (String::new(), String::new()),
            Way::Socket => ("socket".into(), r#""transport": "socket","#.into()),
            Way::Single => (format!("unix=u-{kind}"), format!(r#""unixDomainSocketPath": "u-{kind}","#)),
            Way::Kept => (format!("unix=u-{kind}"), format!(r#""unixDomainSocketPath": "u-{kind}", "connection": "persistent","#)),
        };
        let arguments: Vec<&str> =
            Some(argument.as_str()).filter(|argument| !argument.is_empty()).into_iter().chain(arguments.iter().copied()).collect();
        let (program, arguments) = (program.unwrap_or(PROGRAM), Value::from(arguments));
        format!(r#""{kind}": {{ "handlerBinary": "{program}", "arguments": {arguments}, {transport} {keys} }},"#)
    }
}

/// A connection whose messages have ids that no other message has, which are also the answers to them.
pub struct Sender {
    client: Client,
    name: String,
    sent: u32,
    /// Without a report, and whether it was delivered.
    open: BTreeMap<String, Open>,
}

struct Open {
    kind: String,
    since: Instant,
    delivered: bool,
}

/// What became of a message.
#[derive(Debug)]
pub struct Report {
    pub id: String,
    pub kind: String,
    pub after: Duration,
    pub delivered: bool,
    /// `None` when it is good.
    pub bad: Option<Bad>,
}

#[derive(Debug)]
pub struct Bad {
    pub reason: String,
    pub temporary: bool,
    pub message: String,
}

impl Sender {
    /// `name` is this connection's alone.
    pub fn new(client: Client, name: &str) -> Sender {
        Sender { client, name: name.into(), sent: 0, open: BTreeMap::new() }
    }

    /// Sends a message with these steps; `$NONCE` stands for its id, which is given back.
    pub fn sends(&mut self, kind: &str, steps: &str) -> String {
        self.sent += 1;
        let id = format!("{}-{:06}", self.name, self.sent);
        self.open.insert(id.clone(), Open { kind: kind.into(), since: Instant::now(), delivered: false });
        self.client.sends_message(kind, &steps.replace("$NONCE", &id), &id);
        id
    }

    /// Sends a message that is answered well.
    pub fn asks(&mut self, kind: &str) -> String {
        self.sends(kind, r#"[["reply","$NONCE"]]"#)
    }

    /// Asks, and is answered well.
    #[track_caller]
    pub fn works(&mut self, kind: &str) {
        self.asks(kind);
        let report = self.gets();
        assert!(report.bad.is_none() && report.delivered, "{report:?}");
    }

    /// The next report. Whatever comes before it must belong to what this connection sent.
    #[track_caller]
    pub fn gets(&mut self) -> Report {
        loop {
            let frame = self.client.gets_json();
            let id = frame["payload"]["id"].as_str().unwrap_or_else(|| panic!("without an id: {frame}")).to_owned();
            let open = self.open.get_mut(&id).unwrap_or_else(|| panic!("{} has no such message under way: {frame}", self.name));
            assert_eq!(frame["payload"]["type"], *open.kind, "{frame}");
            if frame["header"]["messageType"] == "receivedMessage" {
                assert_eq!(frame["payload"]["data"], *id, "somebody else's answer: {frame}");
                assert!(!std::mem::replace(&mut open.delivered, true), "twice: {frame}");
                continue;
            }
            let open = self.open.remove(&id).expect("it is there");
            let bad = (frame["header"]["status"] != "good").then(|| Bad {
                reason: frame["header"]["reason"].as_str().expect("a reason").into(),
                temporary: frame["header"]["temporary"].as_bool().expect("true or false"),
                message: frame["payload"]["data"]["message"].as_str().expect("words").into(),
            });
            assert!(bad.is_none() || !open.delivered, "delivered, and yet it failed: {frame}");
            return Report { id, kind: open.kind, after: open.since.elapsed(), delivered: open.delivered, bad };
        }
    }

    /// All reports that are still to come, in the order of coming.
    #[track_caller]
    pub fn gets_all(&mut self) -> Vec<Report> {
        (0..self.open.len()).map(|_| self.gets()).collect()
    }

    /// Nothing comes that belongs to nobody.
    #[track_caller]
    pub fn got_nothing(&mut self) {
        self.client.got_nothing();
    }
}

/// The reports on messages of one type are in the order of sending.
#[track_caller]
pub fn are_in_order(reports: &[Report]) {
    let mut last: BTreeMap<&str, &str> = BTreeMap::new();
    for report in reports {
        let before = last.insert(&report.kind, &report.id);
        assert!(before.is_none_or(|before| before < report.id.as_str()), "{before:?} came before {report:?}");
    }
}
