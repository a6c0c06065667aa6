//! What waits for another server has bounds, and who sent what never arrives is told, once.

use super::{Place, acknowledging, delivery, failure, is_sent, sends, sends_as, two, two_with};
use crate::fault::{good, until};
use crate::world::Client;
use serde_json::{Value, json};
use std::time::Duration;

/// a, which knows b and does not reach it, with room for three messages.
fn cut_off() -> (Place, Place) {
    let a = Place::with("a.example", "peers", r#""outboxMessages": 3,"#);
    let b = Place::new("b.example");
    super::know_each_other(&[&a, &b]);
    b.proxy.refuse_new();
    (a.started(), b)
}

/// The messages that wait for b.
fn waiting(a: &Place) -> Vec<Value> {
    let list = a.home().bester(&["queue", "show", "--peer", "b.example", "--json"]).good().stdout;
    list.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn an_outbox_that_is_full_refuses_for_now() {
    let (a, mut b) = cut_off();
    let mut alice = a.server().log_in("alice");
    for id in ["m-1", "m-2", "m-3"] {
        is_sent(&mut alice, &["b.example"], json!({ "id": id }), id);
    }
    sends(&mut alice, &["b.example"], json!({}), "m-4");
    let report = alice.gets_json();
    let (header, counts) = (&report["header"], &report["payload"]["data"]);
    assert!(header["status"] == "bad" && header["reason"] == "undelivered" && header["temporary"] == true, "{report}");
    assert!(counts["refused"] == 1 && counts["queued"] == 0 && counts["unknown"] == 0, "{report}");
    assert_eq!(a.list("b.example")["messages"], 3);
    // There is room again as soon as they have arrived, in their order.
    b.start();
    b.proxy.heal();
    let calls = b.is_called(3);
    assert!(["m-1", "m-2", "m-3"].iter().zip(&calls).all(|(id, call)| call["data"]["id"] == **id), "{calls:?}");
    a.outboxes_are_empty_within(Duration::from_secs(30));
    is_sent(&mut alice, &["b.example"], json!({}), "m-5");
    b.is_called(4);
}

#[test]
fn what_is_given_up_is_told_to_its_author_alone() {
    let (a, _b) = cut_off();
    let mut alice = a.server().log_in("alice");
    let ids: Vec<Value> = ["m-1", "m-2"].map(|id| is_sent(&mut alice, &["b.example"], json!({}), id)["messageId"].clone()).into();
    until("it was tried", || waiting(&a).iter().all(|message| message["attempts"] != 0).then_some(()));
    let first = waiting(&a)[0]["seq"].to_string();
    a.home().bester(&["queue", "drop", "--peer", "b.example", &first]).good();
    // A session that does not acknowledge neither gets to see it nor takes it away from those that do.
    alice.got_nothing();
    let mut other = a.server().log_in("alice");
    other.got_nothing();
    let mut reader = acknowledging(a.server(), "alice");
    let report = failure(&mut reader, "m-1", "expired", "b.example");
    assert!(report["payload"]["data"]["messageId"] == ids[0] && report["payload"]["type"] == "chat", "{report}");
    assert!(report["payload"]["data"]["attempts"].as_u64().is_some_and(|attempts| attempts > 0), "{report}");
    // With her there it comes at once; removing the peer gives up what is left.
    a.peer(&["remove", "b.example"]);
    let report = failure(&mut reader, "m-2", "expired", "b.example");
    assert_eq!(report["payload"]["data"]["messageId"], ids[1]);
    reader.got_nothing();
    alice.got_nothing();
    assert_eq!(a.home().bester(&["queue", "list"]).good().stdout, "");
}

#[test]
fn what_the_other_server_refuses_is_told_to_its_author() {
    let (a, b) = two();
    let mut alice = acknowledging(a.server(), "alice");
    let is_refused = |alice: &mut Client, kind: &str, data: Value, id: &str| {
        sends_as(kind, alice, &["b.example"], data, id);
        let message_id = good(alice, id)["messageId"].clone();
        let report = failure(alice, id, "peerRefused", "b.example");
        assert_eq!(report["payload"]["data"], json!({ "messageId": message_id, "server": "b.example", "attempts": 1 }));
        assert_eq!(report["payload"]["type"], kind);
    };
    // The type is none that others reach there, ...
    is_refused(&mut alice, "private", json!({}), "m-1");
    assert_eq!(b.calls().len(), 0);
    // ... and the handler does not want it.
    is_refused(&mut alice, "chat", json!({ "refuse": "b.example" }), "m-2");
    b.is_called(1);
    a.outboxes_are_empty_within(Duration::from_secs(30));
    alice.got_nothing();
}

#[test]
fn a_failure_that_nobody_has_asked_for_is_told_to_nobody() {
    let (a, b) = two();
    let mut alice = acknowledging(a.server(), "alice");
    let mut others = [(&a, "bob"), (&b, "alice"), (&b, "bob")].map(|(place, user)| acknowledging(place.server(), user));
    // b's handler sends it back, and a's refuses it: that is b's failure, and no user of b has sent it.
    is_sent(&mut alice, &["b.example"], json!({ "round": true, "refuse": "a.example" }), "m");
    b.is_called(1);
    a.is_called(1);
    for place in [&a, &b] {
        place.outboxes_are_empty_within(Duration::from_secs(30));
    }
    alice.got_nothing();
    others.iter_mut().for_each(Client::got_nothing);
    assert!([&a, &b].iter().all(|place| place.calls().len() == 1));
}

#[test]
fn what_finds_no_room_there_is_told_to_its_author() {
    let (a, b) = two_with("", r#""mailboxMessages": 1,"#);
    let mut alice = acknowledging(a.server(), "alice");
    is_sent(&mut alice, &["b.example"], json!({ "n": 1 }), "m-1");
    b.is_called(1);
    is_sent(&mut alice, &["b.example"], json!({ "n": 2 }), "m-2");
    // The handler there has done its work, so nothing is tried again.
    failure(&mut alice, "m-2", "peerRefused", "b.example");
    b.is_called(2);
    let mut bob = acknowledging(b.server(), "bob");
    assert_eq!(delivery(&mut bob)["payload"]["data"]["n"], 1);
    bob.got_nothing();
}

#[test]
fn what_the_other_server_cannot_handle_now_is_tried_again() {
    let (a, b) = two();
    let mut alice = acknowledging(a.server(), "alice");
    // The handler dies of it twice; the author hears of nothing.
    is_sent(&mut alice, &["b.example"], json!({ "dies": 2 }), "m");
    until("it is tried again", || (b.calls().len() == 3).then_some(()));
    let mut bob = acknowledging(b.server(), "bob");
    delivery(&mut bob);
    bob.got_nothing();
    a.outboxes_are_empty_within(Duration::from_secs(30));
    alice.got_nothing();
}
