//! A handler speaks without being asked.

use crate::fault::{asks, bad, delivery, entry, good, works};
use crate::world::{Client, Home, Server, sample};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const TO_BOB: &str = r#"{"header":{"status":"0","command":"sendClients","commandData":["bob"]},"payload":{"data":"news"}}"#;

/// alice and bob, of three users, a handler with envelopes, a plain one, and another.
fn people(limits: &str) -> (Server, [Client; 2]) {
    let entries = [entry("x", "", r#""envelope": true"#), entry("plain", "", ""), entry("other", "", "")].concat();
    let server = Home::new(&entries, &format!(r#""limits": {{ {limits} }},"#), &["alice", "bob", "carol"]).serve();
    let clients = ["alice", "bob"].map(|user| server.log_in(user));
    (server, clients)
}

#[test]
fn what_is_pushed_is_delivered_and_what_came_of_it_is_told() {
    let (_server, [mut alice, mut bob]) = people("");
    alice.sends_message("x", &json!([["say", TO_BOB], ["reply", "done"]]).to_string(), "m");
    let frame = bob.gets_json();
    assert_eq!((&frame["payload"]["data"], &frame["payload"]["type"]), (&json!("news"), &json!("x")), "{frame}");
    assert!(frame["payload"]["id"].is_null() && frame["header"]["messageId"].is_string(), "{frame}");
    assert_eq!(delivery(&mut alice), "done");
    good(&mut alice, "m");
    // The outcome comes as a frame, which the handler takes for a request; its data is kept as the report is.
    let wanted =
        r#"{"header":{"status":"0","id":"p1","command":"sendClients","commandData":["bob","carol","nobody"]},"payload":{"data":1}}"#;
    alice.sends_message("x", &json!([["say", wanted], ["outcome"]]).to_string(), "m");
    assert_eq!(delivery(&mut bob), 1);
    let outcome = delivery(&mut alice);
    assert_eq!((&outcome["header"]["reason"], &outcome["payload"]["id"]), (&json!("undelivered"), &json!("p1")), "{outcome}");
    let names = json!({ "offline": ["carol"], "unknown": ["nobody"], "refused": [] });
    assert_eq!((&outcome["payload"]["data"]["names"], &outcome["payload"]["data"]["delivered"]), (&names, &json!(1)), "{outcome}");
    good(&mut alice, "m");
    bob.got_nothing();
}

#[test]
fn a_plain_handler_pushes_through_its_informer() {
    let (server, [mut alice, mut bob]) = people("");
    let mut informer = server.connect_unix_at("state/informer-plain.sock");
    let mut push = |answer: &str| {
        informer.sends(&format!(r#"{{"command":{{"type":"push","data":{answer}}}}}"#));
        informer.gets_json()
    };
    let outcome = push(TO_BOB);
    assert_eq!((&outcome["status"], &outcome["data"]["delivered"]), (&json!("0"), &json!(1)), "{outcome}");
    let frame = bob.gets_json();
    assert_eq!((&frame["payload"]["type"], &frame["header"]["messageId"]), (&json!("plain"), &outcome["data"]["messageId"]), "{frame}");
    for (wrong, words) in [
        (r#"{"header":{"status":"0","command":"reply"},"payload":{"data":1}}"#, "answers nobody"),
        (r#"{"header":{"status":"0","command":"dance"},"payload":{"data":1}}"#, "dance"),
        (r#"{"header":{"status":"no"}}"#, "refuses a message"),
        ("7", "the answer"),
    ] {
        let outcome = push(wrong);
        assert_eq!(outcome["status"], "1", "{outcome}");
        assert!(outcome["message"].as_str().is_some_and(|message| message.contains(words)), "{outcome}");
    }
    // As deep as data may be.
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    assert_eq!(push(&TO_BOB.replace(r#""news""#, &deep))["status"], "0");
    assert_eq!(delivery(&mut bob).to_string(), deep);
    works(&mut alice, "plain");
}

#[test]
fn a_handler_that_pushes_too_much_is_heard_more_slowly_and_nobody_else() {
    let (server, [mut alice, mut bob]) = people(r#""pushesPerSecond": 1000, "pushBurst": 500"#);
    let none = r#"{"header":{"status":"0","command":"none"}}"#;
    works(&mut alice, "x");
    let begun = Instant::now();
    alice.sends_message("x", &json!([["flood", none, 3], ["reply", "done"]]).to_string(), "m");
    for _ in 0..10 {
        works(&mut bob, "other");
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(delivery(&mut alice), "done");
    // 3000 of them, 500 at once; what the last read brought is heard before it waits.
    let waited = begun.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_secs(6)).contains(&waited), "{waited:?}");
    good(&mut alice, "m");
    // One that is made to wait is not waited for when it dies.
    let begun = Instant::now();
    alice.sends_message("x", &json!([["flood", none, 1], ["exit", 3]]).to_string(), "m");
    bad(&mut alice, "m", "handlerCrashed");
    assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
    server.wait_for("handler x exited with status 3");
    works(&mut alice, "x");
    server.stop();
}

#[test]
fn presence_tells_those_who_asked_who_comes_and_goes() {
    let server = Home::new(&sample("presence"), "", &["alice", "bob"]).serve();
    let mut alice = server.log_in("alice");
    alice.sends_message("presence", r#"{"watch":true}"#, "w");
    let answer: Value = delivery(&mut alice);
    assert_eq!(answer["who"], json!(["alice"]), "{answer}");
    good(&mut alice, "w");
    let bob = server.log_in("bob");
    assert_eq!(delivery(&mut alice), json!({ "online": "bob" }));
    drop(bob);
    assert_eq!(delivery(&mut alice), json!({ "offline": "bob" }));
    alice.sends_message("presence", r#"{"watch":false}"#, "w");
    delivery(&mut alice);
    good(&mut alice, "w");
    drop(server.log_in("bob"));
    alice.got_nothing();
}

#[test]
fn what_a_client_writes_is_never_taken_for_who_it_is() {
    let (_server, [mut alice, _]) = people("");
    let forged = json!({ "header": { "messageId": "a.example/1-1", "from": { "scope": "client", "user": "bob", "verified": true } } });
    alice.sends(&json!({
        "header": { "from": { "user": "bob" }, "authentication": null, "messageId": "m" },
        "payload": { "type": "x", "data": [["echo"], ["skip", forged.to_string()]], "id": "i", "from": { "user": "bob" }, "user": "bob" },
        "from": { "user": "bob" },
    })
    .to_string());
    let envelope = delivery(&mut alice);
    let from = &envelope["header"]["from"];
    assert_eq!(
        (&from["scope"], &from["user"], &from["server"], &from["verified"]),
        (&json!("client"), &json!("alice"), &json!("a.example"), &json!(true))
    );
    good(&mut alice, "i");
    assert_eq!(asks(&mut alice, "plain", r#"[["reply",1]]"#), 1);
}
