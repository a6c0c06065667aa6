//! A server gets another key, and those who know the new one hardly notice.

use super::by_hand::Key;
use super::{Place, acknowledging, delivery, is_sent, two};
use crate::fault::until;
use serde_json::json;

/// b has this key from now on, and its connections end.
fn is_replaced(b: &Place, all: &[&Place], key: &Key) {
    key.replaces_that_of(b);
    b.home().bester(&["reload"]).good();
    b.server().wait_for("certificate and key are read again");
    assert_eq!(super::by_hand::pin(b), key.pin());
    all.iter().for_each(|place| place.proxy.cut());
}

/// Both ways.
#[track_caller]
fn messages_arrive(a: &Place, b: &Place, id: &str) {
    for (from, to) in [(a, b), (b, a)] {
        let mut bob = acknowledging(to.server(), "bob");
        is_sent(&mut from.server().log_in("alice"), &[to.name], json!({ "id": id }), id);
        assert_eq!(delivery(&mut bob)["payload"]["data"]["id"], id);
        bob.got_nothing(); // what he acknowledged does not come to the next session
    }
}

#[test]
fn links_come_back_by_themselves_with_a_key_that_was_made_known_before() {
    let (a, b) = two();
    messages_arrive(&a, &b, "before");
    let new = Key::new("b.example");
    assert_eq!(a.peer(&["add", &new.card("b.example", b.proxy.address())]), "b.example is known by that, too");
    assert_eq!(a.list("b.example")["pins"].as_array().map(Vec::len), Some(2));
    // The old one is as good as before.
    messages_arrive(&a, &b, "both");
    is_replaced(&b, &[&a, &b], &new);
    messages_arrive(&a, &b, "after");
    a.is_linked_to(&b);
    b.is_linked_to(&a);
    // And then the old one is of no use any longer.
    assert_eq!(a.peer(&["add", "--replace", &b.card()]), "b.example is known by that alone");
    messages_arrive(&a, &b, "alone");
    assert_eq!(a.list("b.example")["pins"], json!([new.pin().to_string()]));
}

#[test]
fn a_key_that_nobody_knows_is_refused_in_plain_words_until_it_is_made_known() {
    let (a, b) = two();
    messages_arrive(&a, &b, "before");
    let new = Key::new("b.example");
    is_replaced(&b, &[&a, &b], &new);
    // a is told both of the server that it connects to, and of the one that connects to it.
    a.server().wait_for(&format!("the other side has another key than expected, with the pin {}", new.pin()));
    a.server().wait_for(&format!("a server with the name b.example is refused, from 127.0.0.1: no peer has the key {}", new.pin()));
    is_sent(&mut a.server().log_in("alice"), &["b.example"], json!({ "id": "waits" }), "waits");
    until("it is shown", || a.list("b.example")["trouble"].as_str().is_some_and(|words| words.contains("another key")).then_some(()));
    assert_eq!(a.list("b.example")["messages"], 1);
    let mut bob = acknowledging(b.server(), "bob");
    a.peer(&["add", &b.card()]);
    assert_eq!(delivery(&mut bob)["payload"]["data"]["id"], "waits");
    bob.got_nothing();
    drop(bob);
    messages_arrive(&a, &b, "after");
}
