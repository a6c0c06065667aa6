//! What a connection may do: logging in, asking, changing its user, and ending.

use crate::world::{Client, Home, PATIENCE, Server, login, sample};
use std::fs;
use std::time::{Duration, Instant};

/// Sends `data.data` to the users in `data.to`.
const POST: &str = r#"#!/usr/bin/env python3
import json, struct, sys
while len(length := sys.stdin.buffer.read(4)) == 4:
    data = json.loads(sys.stdin.buffer.read(struct.unpack("<I", length)[0]))
    answer = json.dumps({"header": {"status": "0", "command": "sendClients", "commandData": data["to"]}, "payload": {"data": data["data"]}}).encode()
    sys.stdout.buffer.write(struct.pack("<I", len(answer)) + answer)
    sys.stdout.buffer.flush()
"#;

/// Replies only while there is a file `go`.
const HOLD: &str = r#"#!/usr/bin/env python3
import os, struct, sys, time
while len(length := sys.stdin.buffer.read(4)) == 4:
    data = sys.stdin.buffer.read(struct.unpack("<I", length)[0])
    with open("held", "ab") as held:
        held.write(b".")
    while not os.path.exists("go"):
        time.sleep(0.005)
    answer = b'{"header":{"status":"0","command":"reply"},"payload":{"data":%d}}' % len(data)
    sys.stdout.buffer.write(struct.pack("<I", len(answer)) + answer)
    sys.stdout.buffer.flush()
"#;

pub fn serve_with(more: &str) -> Server {
    let handlers = format!(
        r#"{} "post": {{ "handlerBinary": "post.py" }}, "hold": {{ "handlerBinary": "hold.py", "inFlight": 4096 }},"#,
        sample("echo")
    );
    let home = Home::new(&handlers, more, &["alice", "bob", "carol"]);
    home.program("post.py", POST);
    home.program("hold.py", HOLD);
    home.serve()
}

pub fn serve() -> Server {
    serve_with("")
}

pub fn builtin(command: &str, args: &str, id: &str) -> String {
    format!(r#"{{"payload":{{"type":"builtin","data":{{"command":{{"type":"{command}","args":{args}}}}},"id":"{id}"}}}}"#)
}

fn authenticate(user: &str, password: &str, id: &str) -> String {
    builtin("authenticate", &format!(r#"{{"username":"{user}","password":"{password}"}}"#), id)
}

pub fn good(kind: &str, id: &str, data: &str) -> String {
    format!(r#"{{"header":{{"status":"good","messageType":"statusReport"}},"payload":{{"data":{data},"type":"{kind}","id":"{id}"}}}}"#)
}

#[track_caller]
pub fn expect_bad(client: &mut Client, reason: &str, kind: &str, id: Option<&str>) {
    let report = client.gets_json();
    assert_eq!(report["header"]["reason"], reason, "{report}");
    assert_eq!(report["payload"]["type"], kind, "{report}");
    assert_eq!(report["payload"]["id"].as_str(), id, "{report}");
}

#[track_caller]
pub fn who_am_i(client: &mut Client) -> serde_json::Value {
    client.sends(&builtin("whoami", "{}", "who"));
    let report = client.gets_json();
    assert_eq!(report["payload"]["id"], "who", "{report}");
    report["payload"]["data"].clone()
}

/// Has `sender` post to these users; gives the report.
#[track_caller]
pub fn post(sender: &mut Client, to: &[&str], data: &str) -> serde_json::Value {
    let to = serde_json::to_string(to).expect("JSON");
    sender.sends_message("post", &format!(r#"{{"to":{to},"data":{data}}}"#), "post");
    loop {
        let frame = sender.gets_json();
        if frame["header"]["messageType"] == "statusReport" {
            assert_eq!(frame["payload"]["id"], "post", "{frame}");
            return frame;
        }
    }
}

fn await_file(server: &Server, name: &str, bytes: u64) {
    let deadline = Instant::now() + PATIENCE;
    let path = server.home.path().join(name);
    while fs::metadata(&path).map_or(0, |known| known.len()) < bytes {
        assert!(Instant::now() < deadline, "{name} has no {bytes} bytes");
        std::thread::yield_now();
    }
}

#[test]
fn a_login_is_reported_exactly_once() {
    let server = serve();
    for scope in [r#","scope":"client""#, ""] {
        for payload in ["", r#","payload":null"#, r#","payload":{}"#, r#","payload":{"type":"dummy","data":[1],"id":"d"}"#] {
            let mut client = server.connect();
            client.sends(&format!(r#"{{"header":{{"authentication":{{"username":"alice","password":"password"}}{scope}}}{payload}}}"#));
            let kind = if payload.contains("dummy") { "dummy" } else { "builtin" };
            assert_eq!(client.gets(), good(kind, "auth_special", "null"), "{payload}");
            client.got_nothing();
        }
    }
}

#[test]
fn the_first_message_may_log_in_and_ask() {
    let server = serve();
    let mut client = server.connect();
    client.sends(r#"{"header":{"authentication":{"username":"alice","password":"password"}},"payload":{"type":"echo","data":1,"id":"m"}}"#);
    assert_eq!(client.gets(), good("echo", "auth_special", "null"));
    assert!(client.gets().contains("receivedMessage"));
    assert_eq!(client.gets_json()["payload"]["id"], "m");
    client.got_nothing();

    let mut client = server.connect();
    client.sends(
        r#"{"header":{"authentication":{"username":"alice","password":"password"}},"payload":{"type":"builtin","data":{"command":{"type":"whoami"}},"id":"w"}}"#,
    );
    assert_eq!(client.gets(), good("builtin", "auth_special", "null"));
    let report = client.gets_json();
    assert_eq!((&report["payload"]["id"], &report["payload"]["data"]["user"]), (&"w".into(), &"alice".into()));
}

#[test]
fn ids_are_echoed_or_absent() {
    let server = serve();
    let mut client = server.log_in("alice");
    for id in ["a", "", "auth_special", r"\u0061\n\/", "ä", "a", "x\\\"y"] {
        client.sends_message("echo", "1", id);
        let end = format!(r#","id":"{id}"}}}}"#);
        for _ in 0..2 {
            let frame = client.gets();
            assert!(frame.ends_with(&end), "{frame}");
        }
    }
    // Without an id there is a delivery and no report, or a report on what failed.
    client.sends(r#"{"payload":{"type":"echo","data":1}}"#);
    let delivery = client.gets();
    assert!(delivery.contains("receivedMessage") && delivery.ends_with(r#""data":1,"type":"echo"}}"#), "{delivery}");
    client.got_nothing();
    client.sends(r#"{"payload":{"type":"nothing","data":1}}"#);
    expect_bad(&mut client, "unknownType", "nothing", None);
    client.sends(r#"{"payload":{"type":"post","data":{"to":["nobody"],"data":1}}}"#);
    expect_bad(&mut client, "undelivered", "post", None);
    // Of the commands and of dummy, each has a report.
    client.sends(r#"{"payload":{"type":"builtin","data":{"command":{"type":"ping"}}}}"#);
    assert_eq!(client.gets(), r#"{"header":{"status":"good","messageType":"statusReport"},"payload":{"data":{},"type":"builtin"}}"#);
    client.sends(r#"{"payload":{"type":"dummy","data":null}}"#);
    assert_eq!(client.gets(), r#"{"header":{"status":"good","messageType":"statusReport"},"payload":{"data":null,"type":"dummy"}}"#);
    client.got_nothing();
}

#[test]
fn all_sessions_of_a_user_get_what_is_sent_to_him() {
    let server = serve();
    let mut alice = server.log_in("alice");
    let mut bobs = [server.log_in("bob"), server.connect_tcp6(), server.connect_unix()];
    bobs[1].log_in("bob");
    bobs[2].log_in("bob");
    let report = post(&mut alice, &["bob", "bob", "alice"], r#""hello""#);
    assert_eq!(report["payload"]["data"]["delivered"], 2, "{report}");
    for bob in &mut bobs {
        let delivery = bob.gets_json();
        assert_eq!(delivery["payload"], serde_json::json!({"data": "hello", "type": "post"}), "no id, which is of the asker");
        assert_eq!(who_am_i(bob)["sessions"], 3);
    }
    // One of them asks: it alone gets the id, the others the same delivery without.
    bobs[0].sends_message("post", r#"{"to":["bob"],"data":2}"#, "own");
    assert_eq!(bobs[0].gets_json()["payload"]["id"], "own");
    assert_eq!(bobs[0].gets_json()["payload"]["data"]["delivered"], 1);
    for bob in &mut bobs[1..] {
        assert_eq!(bob.gets_json()["payload"].get("id"), None);
    }
    // A reply goes to the asking session alone.
    bobs[0].sends_message("echo", "3", "m");
    bobs[0].gets();
    bobs[0].gets();
    for bob in &mut bobs {
        bob.got_nothing();
    }
}

#[test]
fn messages_of_one_connection_and_type_stay_in_order() {
    let server = serve();
    let mut clients = [server.log_in("alice"), server.log_in("bob"), server.log_in("alice")];
    let count = 500;
    for client in &mut clients {
        let message = |n| crate::world::frame(format!(r#"{{"payload":{{"type":"echo","data":{n},"id":"{n}"}}}}"#).as_bytes());
        let all: Vec<u8> = (0..count).flat_map(message).collect();
        client.sends_bytes(&all);
    }
    for client in &mut clients {
        for n in 0..count {
            let delivery = client.gets_json();
            assert_eq!(delivery["payload"]["data"], n);
            let report = client.gets_json();
            assert_eq!((&report["payload"]["id"], &report["header"]["status"]), (&n.to_string().into(), &"good".into()));
        }
        client.got_nothing();
    }
}

#[test]
fn after_the_end_of_input_all_reports_still_come_and_nothing_of_others() {
    let server = serve();
    let mut alice = server.log_in("alice");
    let mut bob = server.log_in("bob");
    for n in 0..3 {
        bob.sends_message("hold", "null", &n.to_string());
    }
    await_file(&server, "held", 1);
    bob.ends_input();
    // The server has seen the end of the input once bob is not there for others any more.
    let deadline = Instant::now() + PATIENCE;
    let mut early = 0;
    loop {
        let report = post(&mut alice, &["bob"], r#""for bob""#);
        if report["header"]["status"] == "bad" {
            assert_eq!(report["header"]["reason"], "undelivered");
            assert_eq!(report["header"]["temporary"], true);
            break;
        }
        early += 1;
        assert!(Instant::now() < deadline, "bob is still there");
    }
    server.home.write("go", "");
    let mut frames = Vec::new();
    while let Some(frame) = bob.receives() {
        frames.push(frame);
    }
    let count = |what: &str| frames.iter().filter(|frame| frame.contains(what)).count();
    assert_eq!(count("for bob"), early, "{frames:#?}");
    assert_eq!(count(r#""delivered":1"#), 3, "{frames:#?}");
    assert_eq!(frames.len(), early + 6, "{frames:#?}");
}

#[test]
fn a_message_before_the_end_of_input_is_answered_over_every_transport() {
    let server = serve();
    for mut client in [server.connect(), server.connect_tcp6(), server.connect_unix()] {
        client.sends(
            r#"{"header":{"authentication":{"username":"alice","password":"password"}},"payload":{"type":"echo","data":1,"id":"m"}}"#,
        );
        client.ends_input();
        assert!(client.gets().contains("auth_special"));
        assert!(client.gets().contains("receivedMessage"));
        assert!(client.gets().contains(r#""delivered":1"#));
        client.is_closed();
    }
}

#[test]
fn with_too_much_under_way_the_server_stops_reading_from_that_client_alone() {
    let server = serve_with(r#""limits": { "inFlight": 4 },"#);
    let mut alice = server.log_in("alice");
    let mut bob = server.log_in("bob");
    for n in 0..4 {
        bob.sends_message("hold", "null", &n.to_string());
    }
    await_file(&server, "held", 1);
    // Far more than sockets hold: the rest cannot be sent until the server reads.
    let filler = " ".repeat(1_000_000);
    let mut filled = 0;
    bob.set_write_patience(Duration::from_millis(200));
    let message = crate::world::frame(format!(r#"{{"payload":{{"type":"echo","data":1,"id":"e"}}}}{filler}"#).as_bytes());
    let stuck = loop {
        match bob.try_send_some(&message[filled % message.len()..]) {
            Ok(sent) => filled += sent,
            Err(error) => break error,
        }
        assert!(filled < 200 << 20, "the server reads on and on");
    };
    assert!(matches!(stuck.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "{stuck}");
    // Meanwhile others are served.
    let asked = Instant::now();
    for _ in 0..20 {
        alice.sends_message("echo", "1", "a");
        alice.gets();
        alice.gets();
    }
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    // And bob, too, once there is an answer.
    server.home.write("go", "");
    bob.set_write_patience(PATIENCE);
    let rest = message.len() - filled % message.len();
    bob.sends_bytes(&message[message.len() - rest..]);
    let echoes = (filled + rest) / message.len();
    for _ in 0..2 * (4 + echoes) {
        let frame = bob.gets();
        assert!(frame.contains(r#""status":"good""#), "{frame}");
    }
    bob.got_nothing();
}

#[test]
fn a_logout_leaves_a_connection_without_a_user() {
    let server = serve();
    let mut alice = server.log_in("alice");
    let mut bob = server.log_in("bob");
    // It waits for what was sent before.
    bob.sends_message("echo", "1", "m");
    bob.sends(&builtin("logout", "{}", "out"));
    bob.sends_message("echo", "2", "n");
    assert!(bob.gets().contains("receivedMessage"));
    assert!(bob.gets().contains(r#""id":"m""#));
    assert_eq!(bob.gets(), good("builtin", "out", "{}"));
    expect_bad(&mut bob, "notAuthenticated", "echo", Some("n"));
    for command in ["whoami", "handlers", "logout"] {
        bob.sends(&builtin(command, "{}", "x"));
        expect_bad(&mut bob, "notAuthenticated", "builtin", Some("x"));
    }
    bob.sends(&builtin("changePassword", r#"{"oldPassword":"password","newPassword":"another one"}"#, "x"));
    expect_bad(&mut bob, "notAuthenticated", "builtin", Some("x"));
    bob.sends_message("dummy", "null", "x");
    expect_bad(&mut bob, "notAuthenticated", "dummy", Some("x"));
    bob.got_nothing(); // a ping is answered
    let report = post(&mut alice, &["bob"], "1");
    assert_eq!((&report["header"]["reason"], &report["payload"]["data"]["offline"]), (&"undelivered".into(), &1.into()));
    // A header does not log in any more, a command does.
    bob.sends(&login("bob", "password"));
    expect_bad(&mut bob, "notAuthenticated", "dummy", None);
    bob.sends(&authenticate("carol", "password", "in"));
    assert_eq!(bob.gets(), good("builtin", "in", "null"));
    assert_eq!(who_am_i(&mut bob)["user"], "carol");
    assert_eq!(post(&mut alice, &["carol"], "1")["header"]["status"], "good");
    assert!(bob.gets().contains("receivedMessage"));
}

#[test]
fn after_a_logout_the_bounds_of_before_login_apply() {
    let server = serve_with(r#""limits": { "loginSeconds": 1 },"#);
    let mut client = server.log_in("alice");
    let large = format!(r#"{{"payload":{{"type":"echo","data":"{}","id":"m"}}}}"#, "x".repeat(17_000));
    client.sends(&large);
    assert!(client.gets().contains("receivedMessage"));
    client.gets();
    client.sends(&builtin("logout", "{}", "out"));
    client.gets();
    client.sends(&large);
    expect_bad(&mut client, "tooLarge", "builtin", None);
    client.is_closed();

    let mut client = server.log_in("alice");
    client.sends(&builtin("logout", "{}", "out"));
    client.gets();
    let out = Instant::now();
    expect_bad(&mut client, "authentication", "builtin", Some("auth_special"));
    assert!(out.elapsed() > Duration::from_millis(900), "{:?}", out.elapsed());
    client.is_closed();

    // Who logs in again in time stays.
    let mut client = server.log_in("alice");
    client.sends(&builtin("logout", "{}", "out"));
    client.gets();
    client.sends(&authenticate("alice", "password", "in"));
    assert_eq!(client.gets(), good("builtin", "in", "null"));
    client.sends(&large);
    assert!(client.gets().contains("receivedMessage"));
    client.gets();
    let beyond = Instant::now() + Duration::from_millis(1300);
    while Instant::now() < beyond {
        client.got_nothing();
    }

    let mut client = server.log_in("alice");
    client.sends(&builtin("logout", "{}", "out"));
    client.gets();
    client.sends(&authenticate("alice", "wrong", "in"));
    expect_bad(&mut client, "authentication", "builtin", Some("in"));
    client.is_closed();
}

#[test]
fn authenticate_changes_the_user_or_nothing() {
    let server = serve();
    let mut alice = server.log_in("alice");
    let mut client = server.connect();
    client.sends(&authenticate("bob", "password", "in"));
    assert_eq!(client.gets(), good("builtin", "in", "null"));
    assert_eq!(who_am_i(&mut client)["user"], "bob");
    client.sends(&authenticate("carol", "wrong", "no"));
    expect_bad(&mut client, "authentication", "builtin", Some("no"));
    client.sends(&authenticate("nobody", "password", "no"));
    expect_bad(&mut client, "authentication", "builtin", Some("no"));
    assert_eq!(who_am_i(&mut client)["user"], "bob");
    // To the answer of what was asked as bob, nothing has changed.
    client.sends_message("echo", "1", "as bob");
    client.sends(&builtin("login", r#"{"username":"carol","password":"password","options":{"ack":false}}"#, "yes"));
    assert!(client.gets().contains("receivedMessage"));
    assert!(client.gets().contains("as bob"));
    assert_eq!(client.gets(), good("builtin", "yes", "null"));
    let who = who_am_i(&mut client);
    assert_eq!((&who["user"], &who["sessions"]), (&"carol".into(), &1.into()));
    assert_eq!(post(&mut alice, &["bob"], "1")["header"]["reason"], "undelivered");
    assert_eq!(post(&mut alice, &["carol"], "1")["header"]["status"], "good");
    assert!(client.gets().contains("receivedMessage"));
}

#[test]
fn close_answers_and_closes() {
    let server = serve();
    let mut client = server.log_in("alice");
    client.sends_message("echo", "1", "m");
    client.sends(&builtin("close", "{}", "bye"));
    client.tries_to_send(&crate::world::frame(br#"{"payload":{"type":"echo","data":2,"id":"late"}}"#));
    assert!(client.gets().contains("receivedMessage"));
    assert!(client.gets().contains(r#""id":"m""#));
    assert_eq!(client.gets(), good("builtin", "bye", "{}"));
    client.is_closed();
    let mut stranger = server.connect_unix();
    stranger.sends(&builtin("close", "{}", "bye"));
    assert_eq!(stranger.gets(), good("builtin", "bye", "{}"));
    stranger.is_closed();
}

#[test]
fn the_handlers_are_told_of() {
    let server = serve();
    server.wait_for("handler hold is up");
    server.wait_for("handler post is up");
    server.wait_for("handler echo is up");
    let mut client = server.log_in("alice");
    client.sends(&builtin("handlers", "{}", "h"));
    assert_eq!(client.gets(), good("builtin", "h", r#"{"echo":{"up":true},"hold":{"up":true},"post":{"up":true}}"#));
}
