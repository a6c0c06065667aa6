//! Servers of the first implementation, which prove nothing and have a connection for each message. The test is one.

use super::by_hand::Stranger;
use super::{Place, acknowledging, delivery, failure, is_sent};
use crate::fault::until;
use crate::world::frame;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

/// a, which knows old.example: it is where the listener is.
fn a_and_old() -> (Place, TcpListener) {
    let old = TcpListener::bind("127.0.0.1:0").expect("a port");
    let a = Place::new("a.example");
    let address = old.local_addr().expect("an address").to_string();
    let added = a.home().bester(&["peer", "add", "old.example", "--verify", "none", "--address", &address]).good();
    assert!(added.stderr.contains("nothing is encrypted"), "{added:?}");
    (a.started(), old)
}

/// The next connection, and the one frame that comes on it.
fn gets(old: &TcpListener) -> (TcpStream, Value) {
    let (mut stream, _) = old.accept().expect("a connection");
    stream.set_read_timeout(Some(crate::world::PATIENCE)).expect("a timeout");
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("a frame");
    let mut body = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut body).expect("a frame");
    (stream, serde_json::from_slice(&body).expect("JSON"))
}

/// Answers, and sees the connection end without another word.
fn answers(mut stream: TcpStream, header: &Value) {
    let report = json!({ "header": header, "payload": { "type": "chat", "data": null } }).to_string();
    stream.write_all(&frame(report.as_bytes())).expect("it reads");
    assert_eq!(stream.read_to_end(&mut Vec::new()).expect("the end"), 0, "one message a connection");
}

#[test]
fn what_an_old_server_sends_is_handled_each_time() {
    let (a, _old) = a_and_old();
    let mut bob = acknowledging(a.server(), "bob");
    // Its ids are no ids: the same one is another message.
    for number in 1..=3 {
        let mut old = Stranger::plain(&a);
        old.sends(r#"{"header":{"scope":"server"},"payload":{"type":"chat","id":"lol","data":{"users":["bob"],"n":1}}}"#);
        assert_eq!(old.is_taken()["payload"]["id"], "lol");
        drop(old);
        assert_eq!(delivery(&mut bob)["payload"]["data"]["n"], 1);
        let calls = a.is_called(number);
        assert_eq!(calls[number - 1]["from"], json!({ "scope": "server", "server": "old.example", "verified": false }));
    }
    // What is not for other servers is not for it.
    let mut old = Stranger::plain(&a);
    old.sends(r#"{"header":{"scope":"server"},"payload":{"type":"private","id":"lol","data":{"users":["bob"]}}}"#);
    old.is_told("unknownType");
    // It may say its name, but no other, and with TLS it is somebody else.
    for (mut stranger, name) in
        [(Stranger::plain(&a), "b.example"), (Stranger::plain(&a), "a.example"), (Stranger::secure(&a, None), "old.example")]
    {
        stranger
            .sends(&format!(r#"{{"header":{{"scope":"server","server":"{name}"}},"payload":{{"type":"chat","id":"lol","data":{{}}}}}}"#));
        stranger.is_told("forbidden");
        stranger.is_closed();
    }
    a.is_called(3);
}

#[test]
fn an_old_server_gets_each_message_on_a_connection_of_its_own() {
    let (a, old) = a_and_old();
    let mut alice = acknowledging(a.server(), "alice");
    for number in 1..=3 {
        is_sent(&mut alice, &["old.example"], json!({ "n": number }), &format!("m-{number}"));
        let (stream, message) = gets(&old);
        assert!(message["header"]["scope"] == "server" && message["payload"]["type"] == "chat", "{message}");
        assert!(message["payload"]["data"]["n"] == number && message["payload"]["id"].is_string(), "{message}");
        answers(stream, &json!({ "status": "good" }));
    }
    // Without an answer it is tried again, and what is refused is told.
    is_sent(&mut alice, &["old.example"], json!({ "n": 4 }), "m-4");
    let first = gets(&old).1;
    let (stream, second) = gets(&old);
    assert_eq!(first["payload"], second["payload"]);
    answers(stream, &json!({ "status": "bad" }));
    failure(&mut alice, "m-4", "peerRefused", "old.example");
    until("nothing is left", || (a.list("old.example")["messages"] == 0).then_some(()));
}

#[test]
fn an_old_server_is_shown_as_insecure() {
    let (a, _old) = a_and_old();
    assert!(a.peer(&["list"]).contains("insecure: it proves nothing"));
    assert_eq!(a.list("old.example")["verify"], "none");
    let status = a.home().bester(&["status"]).good().stdout;
    let line = status.lines().find(|line| line.starts_with("peer old.example")).expect("a line");
    assert!(line.contains("insecure: it proves nothing"), "{line}");
    let status: Value = serde_json::from_str(&a.home().bester(&["status", "--json"]).good().stdout).expect("JSON");
    assert_eq!(status["peers"][0]["verify"], "none");
    a.server().wait_for("the peer old.example proves nothing");
}
