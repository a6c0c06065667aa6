//! Servers that know each other, on a network that can be as bad as networks are: each reaches the others through a
//! [`Proxy`] only, whose address is what they know of it, and stays the same when it starts again.

mod at_least_once;
mod by_hand;
mod inbound;
mod invitations;
mod modes;
mod outboxes;
mod plain;
mod rotation;
mod slow_peers;
mod spoofing;

use crate::fault::{good, until};
use crate::proxy::Proxy;
use crate::world::{Client, Home, Server, login_with};
use serde_json::{Value, json};
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/handlers/servers.py");

/// Type `chat` may be reached by other servers, `private` may not; both are `handlers/servers.py`. `echo` is the sample.
fn handlers() -> String {
    let entry = |kind: &str, federated: bool| {
        format!(r#""{kind}": {{ "handlerBinary": "{PROGRAM}", "envelope": true, "federated": {federated}, "queue": 10000 }},"#)
    };
    [entry("chat", true), entry("private", false), crate::world::sample("echo")].concat()
}

/// A server, and the network in front of it.
struct Place {
    name: &'static str,
    proxy: Proxy,
    server: Option<Server>,
    /// While it is not served.
    home: Option<Home>,
}

impl Place {
    /// A server that is not served yet, with alice and bob.
    fn new(name: &'static str) -> Place {
        Place::with(name, "peers", "")
    }

    /// The same with this `federation.mode` and further `limits`, each ended by a comma. They try each other again soon.
    fn with(name: &'static str, mode: &str, limits: &str) -> Place {
        let proxy = Proxy::new();
        let more = format!(
            r#""federation": {{ "mode": "{mode}", "address": "{}" }},
               "limits": {{ {limits} "peerRetrySeconds": 1, "peerRetrySecondsMax": 2, "drainSeconds": 2 }},"#,
            proxy.address()
        );
        let tls = r#""tls": { "address": "127.0.0.1", "port": 0 },"#;
        let home = Home::named(name, tls, &handlers(), &more, &["alice", "bob"]);
        Place { name, proxy, server: None, home: Some(home) }
    }

    fn start(&mut self) {
        self.start_under(&[]);
    }

    /// As [`Home::serve_under`].
    fn start_under(&mut self, program: &[&str]) {
        let home = self.home.take().expect("it is not served yet");
        let server = if program.is_empty() { home.serve() } else { home.serve_under(program) };
        self.proxy.lead_to(server.tls.expect("it listens with TLS"));
        self.server = Some(server);
    }

    fn started(mut self) -> Place {
        self.start();
        self
    }

    fn stop(&mut self) {
        self.home = self.server.take().map(Server::stop);
    }

    fn kill(&mut self) {
        self.home = self.server.take().map(Server::kill);
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("it is served")
    }

    fn home(&self) -> &Home {
        self.server.as_ref().map_or_else(|| self.home.as_ref().expect("it has a directory"), |server| &server.home)
    }

    /// Runs `bester peer`, which must go well; what it prints.
    #[track_caller]
    fn peer(&self, args: &[&str]) -> String {
        self.home().bester(&[&["peer"], args].concat()).good().stdout.trim_end().to_owned()
    }

    /// Its card.
    #[track_caller]
    fn card(&self) -> String {
        self.peer(&["show"])
    }

    /// Lets another one know this one.
    #[track_caller]
    fn introduces_itself_to(&self, other: &Place) {
        other.peer(&["add", &self.card()]);
    }

    /// What `bester peer list` says of a peer.
    #[track_caller]
    fn list(&self, peer: &str) -> Value {
        let list = self.peer(&["list", "--json"]);
        let all = list.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        all.into_iter().find(|entry| entry["name"] == peer).unwrap_or(Value::Null)
    }

    /// Waits until the link to a peer stands.
    #[track_caller]
    fn is_linked_to(&self, peer: &Place) {
        until(&format!("{} is linked to {}", self.name, peer.name), || (self.list(peer.name)["state"] == "up").then_some(()));
    }

    /// Waits until nothing is left for other servers, at most so long.
    #[track_caller]
    fn outboxes_are_empty_within(&self, time: Duration) {
        let deadline = Instant::now() + time;
        loop {
            let list = self.home().bester(&["queue", "list"]).good().stdout;
            if !list.contains("peer ") {
                return;
            }
            assert!(Instant::now() < deadline, "{}: {list}{}", self.name, self.peer(&["list"]));
        }
    }

    /// The messages of other servers that its handler got: all that it was told.
    fn calls(&self) -> Vec<Value> {
        // It is made when the handler starts.
        let text = fs::read_to_string(self.home().path().join("calls.log")).unwrap_or_default();
        text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Waits until the handler got so many; it must not have got more.
    #[track_caller]
    fn is_called(&self, times: usize) -> Vec<Value> {
        let calls = until(&format!("{times} calls"), || Some(self.calls()).filter(|calls| calls.len() >= times));
        assert_eq!(calls.len(), times, "{calls:?}");
        calls
    }

    fn log_count(&self, text: &str) -> usize {
        self.server().log().matches(text).count()
    }

    /// The address of a listener without TLS.
    fn plain_address(&self) -> SocketAddr {
        self.server().tcp4.expect("an address")
    }
}

/// Two servers that run and know each other.
fn two() -> (Place, Place) {
    two_with("", "")
}

/// The same with limits of each.
fn two_with(limits_of_a: &str, limits_of_b: &str) -> (Place, Place) {
    let mut a = Place::with("a.example", "peers", limits_of_a);
    let mut b = Place::with("b.example", "peers", limits_of_b);
    know_each_other(&[&a, &b]);
    a.start();
    b.start();
    (a, b)
}

/// By their cards.
fn know_each_other(all: &[&Place]) {
    for one in all {
        all.iter().filter(|other| other.name != one.name).for_each(|other| one.introduces_itself_to(other));
    }
}

/// A session that acknowledges, and sends nothing twice.
#[track_caller]
fn acknowledging(server: &Server, user: &str) -> Client {
    let mut client = server.connect();
    client.sends(&login_with(user, r#"{"ack":true,"dedupe":true}"#));
    let report = client.gets();
    assert!(report.contains(r#""status":"good""#) && report.contains("auth_special"), "{report}");
    client
}

#[track_caller]
fn acknowledges(client: &mut Client, delivery: &Value) {
    let seq = &delivery["header"]["seq"];
    assert!(seq.is_u64(), "{delivery}");
    client.sends(&format!(r#"{{"payload":{{"type":"builtin","data":{{"command":{{"type":"ack","args":{{"seq":{seq}}}}}}}}}}}"#));
}

/// The next delivery, which is acknowledged.
#[track_caller]
fn delivery(client: &mut Client) -> Value {
    let delivery = client.gets_json();
    assert_eq!(delivery["header"]["messageType"], "receivedMessage", "{delivery}");
    acknowledges(client, &delivery);
    delivery
}

/// The next frame: a report that something queued for another server failed. It is acknowledged.
#[track_caller]
fn failure(client: &mut Client, id: &str, reason: &str, server: &str) -> Value {
    let report = client.gets_json();
    let (header, payload) = (&report["header"], &report["payload"]);
    assert!(header["messageType"] == "deliveryReport" && header["status"] == "bad" && header["reason"] == reason, "{report}");
    assert!(payload["id"] == id && payload["data"]["server"] == server, "{report}");
    acknowledges(client, &report);
    report
}

/// Has a message of type `chat` sent to these servers, and there to bob.
fn sends(client: &mut Client, servers: &[&str], data: Value, id: &str) {
    sends_as("chat", client, servers, data, id);
}

fn sends_as(kind: &str, client: &mut Client, servers: &[&str], mut data: Value, id: &str) {
    data["servers"] = json!(servers);
    data["users"] = json!(["bob"]);
    client.sends_message(kind, &data.to_string(), id);
}

/// The same, and it is queued for all of them.
#[track_caller]
fn is_sent(client: &mut Client, servers: &[&str], data: Value, id: &str) -> Value {
    sends(client, servers, data, id);
    let counts = good(client, id);
    assert_eq!(counts["queued"], servers.len(), "{counts}");
    counts
}

/// Has something done several times if need be: on a machine that is busy with other things, a time says little once; but
/// whoever waits for another is late each time.
#[track_caller]
fn within_in_one_of_three(what: &str, bound: Duration, mut measure: impl FnMut() -> Duration) {
    let mut all = Vec::new();
    for _ in 0..3 {
        all.push(measure());
        if all.last().is_some_and(|took| *took <= bound) {
            return;
        }
    }
    panic!("{what}: {all:?}, and {bound:?} are allowed");
}

/// The 99th of a hundred.
fn p99(mut all: Vec<Duration>) -> Duration {
    all.sort();
    all[(all.len() * 99).div_ceil(100) - 1]
}
