//! `bester queue`: what operators see of mailboxes and do with them, while the server runs and without it.

use crate::fault::{good, until};
use crate::world::{Client, Finished, Home, Server};
use serde_json::{Value, json};

/// Sends `data` to those whom its first part names.
const POST: &str = r#"#!/usr/bin/env python3
import json, sys, struct
while len(length := sys.stdin.buffer.read(4)) == 4:
    to, data = json.loads(sys.stdin.buffer.read(struct.unpack("<I", length)[0]))
    answer = {"header": {"status": "0", "command": "sendClients", "commandData": to}, "payload": {"data": data}}
    answer = json.dumps(answer).encode()
    sys.stdout.buffer.write(struct.pack("<I", len(answer)) + answer)
    sys.stdout.buffer.flush()
"#;

/// A message that was sent in one session and not acknowledged is set aside.
fn serve() -> Server {
    let limits = r#""limits": { "deliveryAttempts": 1 },"#;
    let home = Home::new(r#""post": { "handlerBinary": "post", "offline": "queue" }"#, limits, &["alice", "bob", "carol"]);
    home.program("post", POST);
    home.serve()
}

/// alice has something sent to somebody, in whose mailbox it then is.
#[track_caller]
fn posts(alice: &mut Client, to: &str, data: &str) {
    alice.sends_message("post", &format!("[[\"{to}\"],{data}]"), "p");
    assert_eq!(good(alice, "p")["queued"], 1);
}

/// A session that acknowledges.
#[track_caller]
fn acknowledging(server: &Server, user: &str) -> Client {
    let mut client = server.connect();
    client.sends(&format!(r#"{{"header":{{"authentication":{{"username":"{user}","password":"password"}},"options":{{"ack":true}}}}}}"#));
    let report = client.gets();
    assert!(report.contains(r#""status":"good""#) && report.contains("auth_special"), "{report}");
    client
}

#[track_caller]
fn gets(client: &mut Client) -> (Value, Value) {
    let mut frame = client.gets_json();
    assert_eq!(frame["header"]["messageType"], "receivedMessage", "{frame}");
    (frame["payload"]["data"].take(), frame["header"]["seq"].take())
}

#[track_caller]
fn acknowledges(client: &mut Client, seq: &Value) {
    client.sends(&format!(r#"{{"payload":{{"type":"builtin","data":{{"command":{{"type":"ack","args":{{"seq":{seq}}}}}}}}}}}"#));
}

fn queue(home: &Home, args: &[&str]) -> Finished {
    home.bester(&[&["queue"], args].concat())
}

#[track_caller]
fn done(home: &Home, args: &[&str]) -> String {
    let finished = queue(home, args).good();
    assert_eq!(finished.stderr, "");
    finished.stdout
}

#[track_caller]
fn lines(home: &Home, args: &[&str]) -> Vec<Value> {
    let text = done(home, &[args, &["--json"]].concat());
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// bob is sent this and does not acknowledge it.
#[track_caller]
fn is_set_aside(server: &Server, alice: &mut Client, data: &str, times: usize) {
    posts(alice, "bob", data);
    let mut bob = acknowledging(server, "bob");
    assert_eq!(gets(&mut bob).0.to_string(), data);
    drop(bob);
    server.wait_for_times("is set aside", times);
}

#[test]
fn what_waits_is_shown_with_and_without_a_server_and_its_data_only_if_that_is_asked_for() {
    let server = serve();
    let mut alice = server.log_in("alice");
    for (to, data) in [("bob", r#""first secret""#), ("bob", r#""second secret""#), ("carol", "3")] {
        posts(&mut alice, to, data);
    }
    let looks = |home: &Home| {
        let (list, show) = (lines(home, &["list"]), lines(home, &["show", "bob"]));
        let boxes: Vec<_> = list.iter().map(|line| json!([line["user"], line["messages"], line["bytes"], line["setAside"]])).collect();
        assert_eq!(boxes, [json!(["bob", 2, 29, 0]), json!(["carol", 1, 1, 0])]);
        let letters: Vec<_> =
            show.iter().map(|line| json!([line["seq"], line["type"], line["bytes"], line["attempts"], line["setAside"]])).collect();
        assert_eq!(letters, [json!([1, "post", 14, 0, false]), json!([2, "post", 15, 0, false])]);
        assert!(show.iter().all(|line| line["messageId"].as_str().is_some_and(|id| id.starts_with("a.example/"))), "{show:?}");
        let [list, show] = [&["list"][..], &["show", "bob"]].map(|args| done(home, args));
        assert_eq!((list.lines().count(), show.lines().count()), (2, 2), "{list}{show}");
        assert!(list.starts_with("bob\t2 messages\t29 bytes\t"), "{list}");
        for text in [list, show, done(home, &["show", "bob", "--json"])] {
            assert!(!text.contains("secret"), "{text}");
        }
        assert!(done(home, &["show", "bob", "--data"]).contains("\n\t\"second secret\"\n"));
        let data: Vec<Value> = lines(home, &["show", "bob", "--data"]).into_iter().map(|mut line| line["data"].take()).collect();
        assert_eq!(data, ["first secret", "second secret"]);
        assert_eq!(done(home, &["show", "alice"]), "");
    };
    looks(&server.home);
    let status = server.home.bester(&["status"]).good().stdout;
    assert!(status.contains("\nmailboxes: 3 messages with 30 bytes in 2 mailboxes, 0 set aside\n"), "{status}");
    assert!(status.contains("\nstorage: 0 orders waiting; it works\n"), "{status}");
    let status: Value = serde_json::from_str(&server.home.bester(&["status", "--json"]).good().stdout).expect("JSON");
    assert_eq!(status["mailboxes"], json!({ "mailboxes": 2, "messages": 3, "bytes": 30, "setAside": 0 }));
    assert_eq!(status["storage"], json!({ "waiting": 0, "writingFails": null, "readingFails": null }));
    assert!(!server.log().contains("secret"));
    let home = server.stop();
    looks(&home);
}

#[test]
fn what_is_dropped_is_counted_and_comes_no_more() {
    let server = serve();
    let mut alice = server.log_in("alice");
    is_set_aside(&server, &mut alice, "1", 1);
    for data in ["2", "3", "4"] {
        posts(&mut alice, "bob", data);
    }
    posts(&mut alice, "carol", "5");
    let home = &server.home;
    assert_eq!(done(home, &["drop", "bob", "3"]), "1 message for bob dropped\n");
    assert_eq!(done(home, &["drop", "bob", "--aside"]), "1 message for bob dropped\n");
    let mut bob = server.log_in("bob");
    assert_eq!([gets(&mut bob).0, gets(&mut bob).0], [2, 4]);
    bob.got_nothing();
    assert_eq!(done(home, &["drop", "carol", "--all"]), "1 message for carol dropped\n");
    server.log_in("carol").got_nothing();
    drop(bob);
    until("their ends", || home.bester(&["status", "--json"]).good().stdout.contains(r#""users":1"#).then_some(()));
    posts(&mut alice, "carol", "6");
    // And without a server.
    let home = server.stop();
    assert_eq!(done(&home, &["drop", "carol", "--all"]), "1 message for carol dropped\n");
    assert_eq!(done(&home, &["drop", "carol", "--all"]), "0 messages for carol dropped\n");
    assert_eq!(done(&home, &["list"]), "");
}

#[test]
fn what_is_sent_again_reaches_who_is_logged_in() {
    let server = serve();
    let mut alice = server.log_in("alice");
    is_set_aside(&server, &mut alice, r#""again""#, 1);
    let home = &server.home;
    assert!(done(home, &["list"]).ends_with("\t1 set aside\n"));
    assert!(done(home, &["show", "bob"]).ends_with("\tsent 1 time\tset aside\n"));
    let (mut bob, mut other) = (acknowledging(&server, "bob"), server.log_in("bob"));
    bob.got_nothing();
    other.got_nothing();
    assert_eq!(done(home, &["retry", "bob"]), "1 message for bob to be sent again\n");
    let again = bob.gets_json();
    assert_eq!((&again["payload"]["data"], &again["header"]["redelivered"]), (&json!("again"), &json!(true)));
    let seq = again["header"]["seq"].clone();
    assert_eq!(gets(&mut other), ("again".into(), Value::Null));
    assert_eq!(lines(home, &["list"])[0]["setAside"], 0);
    acknowledges(&mut bob, &seq);
    until("an empty mailbox", || done(home, &["list"]).is_empty().then_some(()));
    assert_eq!(done(home, &["retry", "bob"]), "0 messages for bob to be sent again\n");
    bob.got_nothing();
    server.stop();
}

#[test]
fn who_has_gone_past_it_gets_it_too_and_does_not_acknowledge_it_before() {
    let server = serve();
    let mut alice = server.log_in("alice");
    for (times, data) in [(1, "1"), (2, "2")] {
        is_set_aside(&server, &mut alice, data, times);
    }
    let mut bob = acknowledging(&server, "bob");
    posts(&mut alice, "bob", "3");
    assert_eq!(gets(&mut bob), (3.into(), 3.into()));
    let home = &server.home;
    assert_eq!(done(home, &["retry", "bob", "2"]), "1 message for bob to be sent again\n");
    assert_eq!(gets(&mut bob), (2.into(), 4.into()));
    acknowledges(&mut bob, &3.into());
    until("one and one aside", || (lines(home, &["list"])[0]["messages"] == 2).then_some(()));
    drop(bob);
    // It was sent twice in vain; then the third one comes again, and is not what the client says that it had.
    server.wait_for_times("is set aside", 3);
    let home = server.stop();
    assert_eq!(done(&home, &["retry", "bob"]), "2 messages for bob to be sent again\n");
    let server = home.serve();
    let mut bob = server.connect();
    bob.sends(r#"{"header":{"authentication":{"username":"bob","password":"password"},"options":{"ack":true,"after":4}}}"#);
    assert!(bob.gets().contains("auth_special"));
    assert_eq!([gets(&mut bob), gets(&mut bob)], [(1.into(), 5.into()), (2.into(), 6.into())]);
    server.stop();
}

#[test]
fn what_cannot_be_done_has_its_exit_code_and_changes_nothing() {
    let server = serve();
    let mut alice = server.log_in("alice");
    posts(&mut alice, "bob", "1");
    let home = &server.home;
    for (args, code, words) in [
        (&[][..], 64, "action"),
        (&["frobnicate"], 64, "frobnicate"),
        (&["drop", "bob"], 64, "--aside"),
        (&["drop", "bob", "1", "--all"], 64, "--all"),
        (&["list", "--frobnicate"], 64, "frobnicate"),
        (&["show", "Bob"], 65, "a-z"),
        (&["drop", "bob", "9"], 65, "no message 9 for bob"),
        (&["retry", "bob", "1"], 65, "no message 1 for bob is set aside"),
        (&["show", "dave"], 67, "dave"),
        (&["retry", "dave"], 67, "dave"),
        (&["drop", "dave", "--all"], 67, "dave"),
        (&["list", "-c", "no-such-file"], 78, "no-such-file"),
    ] {
        let finished = queue(home, args);
        assert_eq!(finished.code, Some(code), "{args:?}: {finished:?}");
        assert!(finished.stderr.starts_with("bester: ") && finished.stderr.contains(words), "{args:?}: {finished:?}");
        assert_eq!(finished.stdout, "");
    }
    // Another process holds the database.
    let database = rusqlite::Connection::open(home.path().join("state/bester.db")).expect("the database");
    database.execute_batch("BEGIN IMMEDIATE").expect("nobody else writes");
    let finished = queue(home, &["drop", "bob", "--all"]);
    assert_eq!(finished.code, Some(75), "{finished:?}");
    database.execute_batch("ROLLBACK").expect("the end of it");
    assert_eq!(lines(home, &["list"])[0]["messages"], 1);
    server.stop();
}
