//! What `federation.mode` opens: nothing, what is known, or a little to everybody. That nobody is connected to is seen in the
//! system calls of the server.

use super::by_hand::{Key, Stranger, message, one_line};
use super::{Place, acknowledging, failure, is_sent, sends};
use crate::fault::{bad, until};
use serde_json::{Value, json};
use std::fs;
use std::net::TcpListener;
use std::time::Duration;

/// Where the attempts to connect are written down; `-D` has the server itself as our child, `-yy` tells TCP from what only looks
/// where packets would go.
const WATCHED: [&str; 8] = ["strace", "-D", "-f", "-yy", "-e", "trace=connect", "-o", "connects"];

/// The attempts to connect over TCP so far.
fn attempts(place: &Place) -> Vec<String> {
    let text = fs::read_to_string(place.home().path().join("connects")).expect("a file");
    text.lines().filter(|line| line.contains("connect(") && line.contains("<TCP")).map(str::to_owned).collect()
}

/// a with this mode, watched, and b; they know each other.
fn watched(mode: &str) -> (Place, Place) {
    let (mut a, b) = (Place::with("a.example", mode, ""), Place::new("b.example"));
    super::know_each_other(&[&a, &b]);
    a.start_under(&WATCHED);
    let b = b.started();
    a.is_linked_to(&b);
    (a, b)
}

/// b was connected to, which was seen, and nobody else.
#[track_caller]
fn was_connected_to_alone(a: &Place, b: &Place) {
    let port = format!("htons({})", b.proxy.address().port());
    let attempts = until("the link to b", || Some(attempts(a)).filter(|attempts| !attempts.is_empty()));
    assert!(attempts.iter().all(|line| line.contains(&port)), "{attempts:?}");
}

#[test]
fn off_is_off() {
    let a = Place::with("a.example", "off", "").started();
    for mut stranger in [Stranger::plain(&a), Stranger::secure(&a, None)] {
        let before = a.server().log().len();
        stranger.sends_json(&message("b.example", "b.example/1-1"));
        stranger.is_told("forbidden");
        stranger.is_closed();
        assert!(one_line(&a, before, "is refused").contains("federation.mode is off"));
    }
    let mut alice = a.server().log_in("alice");
    sends(&mut alice, &["b.example", "127.0.0.1:2224"], json!({}), "m");
    bad(&mut alice, "m", "peerUnknown");
    for args in [&["invite"][..], &["show"]] {
        let told = a.home().bester(&[&["peer"], args].concat());
        assert!(told.code == Some(78) && told.stderr.contains("federation.mode is off"), "{told:?}");
    }
    assert_eq!(a.calls().len(), 0);
}

#[test]
fn who_is_no_peer_is_not_connected_to() {
    let (a, b) = watched("peers");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a listener");
    let mut alice = a.server().log_in("alice");
    let here = listener.local_addr().expect("an address").to_string();
    let own = a.server().tls.expect("an address").to_string();
    for (number, name) in [&here, &own, "c.example", "c.example:2224", "a.example", "192.0.2.1:80"].into_iter().enumerate() {
        let id = format!("m-{number}");
        sends(&mut alice, &[name], json!({}), &id);
        bad(&mut alice, &id, "peerUnknown");
    }
    // Others named with it still get theirs, also by their address.
    sends(&mut alice, &["c.example", "b.example"], json!({}), "both");
    let report = alice.gets_json();
    assert!(report["payload"]["data"]["queued"] == 1 && report["payload"]["data"]["unknown"] == 1, "{report}");
    is_sent(&mut alice, &[&b.proxy.address().to_string()], json!({}), "address");
    b.is_called(2);
    was_connected_to_alone(&a, &b);
    assert!(listener.accept().is_err(), "somebody has connected");
}

#[test]
fn an_open_server_connects_to_nobody_who_is_not_public() {
    let (a, b) = watched("open");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    let mut alice = acknowledging(a.server(), "alice");
    let mut places: Vec<String> = ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "127.1.2.3", "0.0.0.0", "[::]"]
        .iter()
        .map(|host| format!("{host}:{port}"))
        .collect();
    places.extend(
        ["10.0.0.1:80", "192.168.1.1:80", "169.254.169.254:80", "100.64.0.1:80", "[fe80::1]:80", "[fd00::1]:80"].map(str::to_owned),
    );
    places.push(a.server().tls.expect("an address").to_string());
    places.push(a.plain_address().to_string());
    for (number, place) in places.iter().enumerate() {
        let id = format!("m-{number}");
        if place.starts_with("[:") {
            // This is nobody's name, not even for a moment.
            sends(&mut alice, &[place], json!({}), &id);
            bad(&mut alice, &id, "peerUnknown");
            continue;
        }
        is_sent(&mut alice, &[place], json!({}), &id);
        let report = failure(&mut alice, &id, "peerRefused", &place.replace(['[', ']'], ""));
        assert_eq!(report["payload"]["type"], "chat");
    }
    // A peer is a peer all the same, wherever it is.
    is_sent(&mut alice, &["b.example"], json!({}), "peer");
    b.is_called(1);
    was_connected_to_alone(&a, &b);
    assert!(listener.accept().is_err(), "somebody has connected");
    a.outboxes_are_empty_within(Duration::from_secs(10));
}

#[test]
fn an_open_server_takes_little_from_strangers_and_believes_nothing() {
    let a = Place::with("a.example", "open", "").started();
    let b = Key::new("b.example");
    a.peer(&["add", &b.card("b.example", a.proxy.address())]);
    a.proxy.refuse_new();
    // Neither a name, nor a user, nor an id, whether it has a key or not.
    let thief = Key::new("b.example");
    let strangers = [Stranger::plain(&a), Stranger::secure(&a, None), Stranger::secure(&a, Some(&thief))];
    for (number, mut stranger) in strangers.into_iter().enumerate() {
        stranger.sends_json(&message("b.example", "b.example/1-1"));
        stranger.is_taken();
        let call = a.is_called(number + 1).pop().expect("a call");
        assert_eq!(call["from"], json!({ "scope": "server", "server": "127.0.0.1", "verified": false }), "{call}");
        // Only what is meant for other servers.
        let mut private = message("b.example", "b.example/1-2");
        private["payload"]["type"] = json!("private");
        // More than that many in a second are refused, also of what comes to nothing.
        let told = until("it is not too much", || {
            stranger.sends_json(&private);
            Some(stranger.gets()).filter(|told| told["header"]["reason"] != "rate")
        });
        assert_eq!(told["header"]["reason"], "unknownType", "{told}");
    }
    // The peer is believed, and what a stranger has used is none of its ids.
    let mut peer = Stranger::secure(&a, Some(&b));
    peer.sends_json(&message("b.example", "b.example/1-1"));
    peer.is_taken();
    assert_eq!(a.is_called(4)[3]["from"]["verified"], true);
}

#[test]
fn on_an_open_server_a_peer_with_the_name_of_another_is_a_stranger() {
    let a = Place::with("a.example", "open", r#""peerMessageBurst": 1, "peerMessagesPerSecond": 1,"#);
    let (b, c) = (Key::new("b.example"), Key::new("c.example"));
    for (key, name) in [(&b, "b.example"), (&c, "c.example")] {
        a.peer(&["add", &key.card(name, a.proxy.address())]);
    }
    a.proxy.refuse_new();
    let a = a.started();
    let mut thief = Stranger::secure(&a, Some(&b));
    thief.sends_json(&message("c.example", "c.example/1-1"));
    thief.is_taken();
    // What c sends then under the same id is another message, and c may send as much as before.
    let mut c = Stranger::secure(&a, Some(&c));
    c.sends_json(&message("c.example", "c.example/1-1"));
    c.is_taken();
    let from: Vec<Value> = a.is_called(2).iter().map(|call| call["from"]["server"].clone()).collect();
    assert_eq!(from, ["127.0.0.1", "c.example"]);
}

#[test]
fn an_open_server_refuses_what_a_stranger_sends_too_often() {
    let a = Place::with("a.example", "open", r#""openMessagesPerSecond": 5,"#).started();
    let mut stranger = Stranger::plain(&a);
    const MESSAGES: usize = 60;
    for number in 0..MESSAGES {
        let id = format!("x/{number}");
        stranger.sends_json(&message("x", &id));
    }
    let reports: Vec<Value> = (0..MESSAGES).map(|_| stranger.gets()).collect();
    let (taken, refused): (Vec<&Value>, Vec<&Value>) = reports.iter().partition(|report| report["header"]["status"] == "good");
    assert!(refused.iter().all(|report| report["header"]["reason"] == "rate" && report["header"]["temporary"] == true), "{refused:?}");
    // However slow this machine is: in each second five at most.
    assert!(taken.len() >= 5 && refused.len() >= MESSAGES / 2, "{} are taken", taken.len());
    a.is_called(taken.len());
}
