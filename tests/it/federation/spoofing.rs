//! Nobody is taken for a server that he is not, whatever he says and whatever he has copied, on whichever port.

use super::by_hand::{Key, Stranger, copied_by_client, copied_by_server, join, message, one_line, pin, ping, send};
use super::{Place, is_sent, two};
use crate::proxy::Proxy;
use crate::world::{PATIENCE, frame, login};
use bester::transport::TlsSocket;
use serde_json::{Value, json};
use std::net::TcpListener;
use std::time::Instant;

/// a, which knows b and c by these keys; the test has them, and nobody listens where b and c should be.
struct Scene {
    a: Place,
    b: Key,
    c: Key,
}

fn scene() -> Scene {
    let (b, c) = (Key::new("b.example"), Key::new("c.example"));
    let a = Place::new("a.example");
    for (key, name) in [(&b, "b.example"), (&c, "c.example")] {
        a.peer(&["add", &key.card(name, a.proxy.address())]);
    }
    // Their links come to nothing at once, and no server is refused because of them.
    a.proxy.refuse_new();
    Scene { a: a.started(), b, c }
}

impl Scene {
    /// What is in the log already.
    fn mark(&self) -> usize {
        self.a.server().log().len()
    }

    /// The server that says `first` on this connection is told no, and closed; the log has one line on it with these words.
    #[track_caller]
    fn is_refused(&self, mut stranger: Stranger, first: &Value, words: &str) {
        let before = self.mark();
        // It has more to say at once, which nobody hears.
        let second = message("b.example", "b.example/1-2");
        send(&stranger.socket(), &[frame(first.to_string().as_bytes()), frame(second.to_string().as_bytes())].concat());
        stranger.is_told("forbidden");
        stranger.is_closed();
        let line = one_line(&self.a, before, " is refused, from 127.0.0.1: ");
        assert!(line.contains(words), "{words}: {line}");
    }

    /// A peer is heard as ever, and nothing else came to the handler.
    #[track_caller]
    fn nothing_was_handled(&self) {
        let mut b = Stranger::secure(&self.a, Some(&self.b));
        b.sends_json(&message("b.example", "b.example/1-last"));
        b.is_taken();
        let calls = self.a.is_called(1);
        assert_eq!(calls[0]["from"], json!({ "scope": "server", "user": "eve", "server": "b.example", "verified": true }));
    }
}

#[test]
fn who_does_not_prove_a_name_does_not_get_it() {
    let scene = scene();
    let (a, stranger) = (&scene.a, Key::new("b.example"));
    let says = |name: &str| message(name, &format!("{name}/1-1"));
    let nameless = json!({ "header": { "scope": "server" }, "payload": { "type": "chat", "id": "lol", "data": {} } });
    let secure = |key: &Key| Stranger::secure(a, Some(key));
    scene.is_refused(Stranger::secure(a, None), &says("b.example"), "name b.example is refused, from 127.0.0.1: it has no certificate");
    scene.is_refused(Stranger::secure(a, None), &nameless, "it has no certificate");
    scene.is_refused(secure(&stranger), &says("b.example"), &format!("no peer has the key {}", stranger.pin()));
    scene.is_refused(secure(&stranger), &ping("b.example"), "no peer has the key");
    scene.is_refused(secure(&scene.b), &says("c.example"), "the name c.example is refused, from 127.0.0.1: its key is that of b.example");
    scene.is_refused(secure(&scene.b), &says("a.example"), "its key is that of b.example, and the name is our own");
    scene.is_refused(secure(&scene.b), &says("B.EXAMPLE"), "its key is that of b.example");
    scene.is_refused(secure(&scene.b), &says("b.example "), "its key is that of b.example");
    scene.is_refused(secure(&scene.b), &nameless, "it does not say its name");
    // What would break the line of the log, or is longer than it.
    scene.is_refused(secure(&scene.c), &says("b\nb.example"), r"the name b\nb.example is refused");
    scene.is_refused(secure(&scene.c), &says(&"b".repeat(200)), &format!("the name {} is refused", "b".repeat(80)));
    for name in ["b.example", "a.example"] {
        scene.is_refused(Stranger::plain(a), &says(name), "it does not use TLS");
    }
    scene.is_refused(Stranger::plain(a), &nameless, "it does not use TLS");
    scene.nothing_was_handled();
}

#[test]
fn a_copied_certificate_is_of_no_use_without_its_key() {
    let scene = scene();
    for _ in 0..3 {
        let before = scene.mark();
        let config = copied_by_client(&scene.b, pin(&scene.a));
        // In TLS 1.3 whoever connects is done before he hears of it.
        if let Ok(mut thief) = Stranger::secure_as(&scene.a, &config) {
            thief.tries_to_send(&message("b.example", "b.example/1-1"));
            thief.is_closed();
        }
        let line = one_line(&scene.a, before, " listener: 127.0.0.1:");
        assert!(line.contains("does not have the key to its certificate"), "{line}");
    }
    scene.nothing_was_handled();
}

#[test]
fn a_server_with_a_copied_certificate_gets_nothing() {
    let b = Key::new("b.example");
    let (mut a, network) = (Place::new("a.example"), Proxy::new());
    a.peer(&["add", &b.card("b.example", network.address())]);
    let thief = TcpListener::bind("127.0.0.1:0").expect("a port");
    network.lead_to(thief.local_addr().expect("an address"));
    a.start();
    is_sent(&mut a.server().log_in("alice"), &["b.example"], json!({}), "m");
    let config = copied_by_server(&b);
    for _ in 0..2 {
        let (stream, _) = thief.accept().expect("a connection");
        assert!(TlsSocket::accept(stream, &config, Instant::now() + PATIENCE).is_err(), "a takes it for b");
    }
    a.server().wait_for("b.example gets no messages");
    let line = one_line(&a, 0, "the other side does not have the key to its certificate");
    assert!(line.contains("b.example gets no messages"), "{line}");
    assert_eq!(a.list("b.example")["messages"], 1);
}

#[test]
fn a_message_of_another_server_is_not_taken_from_this_one() {
    let scene = scene();
    let mut b = Stranger::secure(&scene.a, Some(&scene.b)).greets("b.example");
    for id in ["c.example/1-1", "a.example/1-1", "b.example", "b.example/", "b.example.org/1-1", "B.EXAMPLE/1-1", "/1", "", "1"] {
        let before = scene.mark();
        b.sends_json(&message("b.example", id));
        let report = b.is_told("forbidden");
        assert_eq!(report["payload"]["id"], id);
        assert!(one_line(&scene.a, before, "a message of server b.example is refused").contains(&format!("{id:?}")));
    }
    let mut without = message("b.example", "b.example/1-1");
    without["header"].as_object_mut().expect("an object").remove("messageId");
    b.sends_json(&without);
    b.is_told("forbidden");
    let long = message("b.example", &format!("b.example/{}", "1".repeat(400)));
    b.sends_json(&long);
    b.is_told("malformed");
    // The connection lives all the same.
    b.sends_json(&ping("b.example"));
    b.is_taken();
    scene.nothing_was_handled();
}

#[test]
fn nobody_becomes_another_in_the_middle_of_a_connection() {
    let scene = scene();
    // A user is a user for as long as he is logged in: later headers are not read.
    for mut user in [Stranger::secure(&scene.a, Some(&scene.b)), Stranger::secure(&scene.a, None), Stranger::plain(&scene.a)] {
        user.sends(&login("alice", "password"));
        user.is_taken();
        user.sends_json(&message("b.example", "b.example/1-1"));
        let told = user.gets();
        assert_eq!(told["payload"]["data"]["scope"], "client", "{told}");
        assert_eq!(told["payload"]["data"]["user"], "alice", "{told}");
        user.is_taken();
        let mut builtin = ping("b.example");
        builtin["payload"]["data"]["command"]["type"] = json!("dialBack");
        user.sends_json(&builtin);
        user.is_told("unknownCommand");
        // Nor once he has logged out.
        user.sends(r#"{"payload":{"type":"builtin","id":"out","data":{"command":{"type":"logout"}}}}"#);
        user.is_taken();
        user.sends_json(&message("b.example", "b.example/1-1"));
        user.is_told("notAuthenticated");
    }
    // And a server is that server.
    let mut b = Stranger::secure(&scene.a, Some(&scene.b)).greets("b.example");
    for scope in [json!("client"), json!("Server"), json!(null), json!(1)] {
        let mut message = message("b.example", "b.example/1-1");
        message["header"]["scope"] = scope;
        b.sends_json(&message);
        b.is_told("malformed");
    }
    b.sends(&login("alice", "password"));
    b.is_told("malformed");
    for name in [json!("c.example"), json!("a.example"), json!("B.example"), json!(null)] {
        let mut b = Stranger::secure(&scene.a, Some(&scene.b)).greets("b.example");
        let before = scene.mark();
        let mut message = message("b.example", "b.example/1-1");
        message["header"]["server"] = name.clone();
        let malformed = name.is_null();
        b.sends_json(&message);
        b.is_told(if malformed { "malformed" } else { "forbidden" });
        if !malformed {
            b.is_closed();
            let line = one_line(&scene.a, before, "is refused");
            assert!(line.contains("server b.example") && line.contains("another name"), "{line}");
        }
    }
    // A secret of an invitation is no way either.
    let mut b = Stranger::secure(&scene.a, Some(&scene.b)).greets("b.example");
    b.sends_json(&join("c.example", "00112233445566778899aabbccddeeff"));
    b.is_told("forbidden");
    scene.nothing_was_handled();
}

#[test]
fn what_is_said_twice_is_not_said() {
    let scene = scene();
    let twice = [
        r#""scope":"server","scope":"server","server":"b.example","messageId":"b.example/1-1""#,
        r#""scope":"client","scope":"server","server":"b.example","messageId":"b.example/1-1""#,
        r#""scope":"server","scope":"client","server":"b.example","messageId":"b.example/1-1""#,
        r#""scope":"server","\u0073cope":"server","server":"b.example","messageId":"b.example/1-1""#,
        r#""scope":"server","server":"b.example","server":"c.example","messageId":"b.example/1-1""#,
        r#""scope":"server","server":"c.example","server":"b.example","messageId":"b.example/1-1""#,
        r#""scope":"server","server":"b.example","messageId":"b.example/1-1","messageId":"c.example/1-1""#,
        r#""scope":"server","server":"b.example","messageId":"c.example/1-1","messageId":"b.example/1-1""#,
        r#""scope":"server","server":"b.example","messageId":"b.example/1-1","hops":9,"hops":1"#,
        r#""scope":"server","server":"b.example","messageId":"b.example/1-1"},"header":{"scope":"server","server":"c.example""#,
    ];
    let payload = r#""payload":{"type":"chat","id":"m","data":{"users":[]}}"#;
    for header in twice {
        let frame = format!(r#"{{"header":{{{header}}},{payload}}}"#);
        for mut stranger in [Stranger::secure(&scene.a, Some(&scene.b)), Stranger::secure(&scene.a, None), Stranger::plain(&scene.a)] {
            stranger.sends(&frame);
            stranger.is_told("malformed");
            stranger.is_closed();
        }
        let mut b = Stranger::secure(&scene.a, Some(&scene.b)).greets("b.example");
        b.sends(&frame);
        b.is_told("malformed");
        b.sends_json(&ping("b.example"));
        b.is_taken();
    }
    scene.nothing_was_handled();
}

#[test]
fn a_peer_is_still_heard_while_others_say_to_be_it() {
    let (a, b) = two();
    a.is_linked_to(&b);
    let thief = Key::new("a.example");
    for _ in 0..20 {
        let mut stranger = Stranger::secure(&b, Some(&thief));
        stranger.sends_json(&message("a.example", "a.example/1-1"));
        stranger.is_told("forbidden");
    }
    is_sent(&mut a.server().log_in("alice"), &["b.example"], json!({}), "m");
    b.is_called(1);
    assert_eq!(b.log_count("with the name a.example is refused"), 20);
}
