//! Two servers get to know each other with one command each, and forget each other with another.

use super::by_hand::{Key, Stranger, join};
use super::{Place, acknowledging, delivery, is_sent, two, two_with};
use crate::fault::until;
use serde_json::json;
use std::time::{Duration, Instant};

/// The parts of an invitation.
fn parts(invitation: &str) -> Vec<&str> {
    let parts: Vec<&str> = invitation.split('/').collect();
    assert_eq!(parts.len(), 7, "{invitation}");
    parts
}

#[test]
fn an_invitation_links_two_running_servers_both_ways() {
    let (a, b) = (Place::new("a.example").started(), Place::new("b.example").started());
    let invitation = a.peer(&["invite"]);
    assert_eq!(b.peer(&["join", &invitation]), "a.example and this server know each other now");
    a.is_linked_to(&b);
    b.is_linked_to(&a);
    for (from, to) in [(&a, &b), (&b, &a)] {
        let mut bob = acknowledging(to.server(), "bob");
        is_sent(&mut from.server().log_in("alice"), &[to.name], json!({ "n": 1 }), "m");
        let message = delivery(&mut bob);
        assert_eq!(message["payload"]["data"]["n"], 1);
        assert!(message["header"]["messageId"].as_str().is_some_and(|id| id.starts_with(to.name)), "{message}");
        let calls = to.is_called(1);
        assert_eq!(calls[0]["from"], json!({ "scope": "server", "user": "alice", "server": from.name, "verified": true }));
    }
    // It is on the disk, and another start needs no other invitation.
    let (mut a, mut b) = (a, b);
    a.stop();
    b.stop();
    a.start();
    b.start();
    a.is_linked_to(&b);
    b.is_linked_to(&a);
    assert_eq!(b.peer(&["join", &invitation]), "a.example and this server know each other already");
}

#[test]
fn an_invitation_is_for_one_server() {
    let (a, b) = (Place::new("a.example").started(), Place::new("b.example").started());
    let c = Place::new("c.example").started();
    let invitation = a.peer(&["invite"]);
    b.peer(&["join", &invitation]);
    let refused = c.home().bester(&["peer", "join", &invitation]);
    assert!(refused.code == Some(65) && refused.stderr.contains("ask for another"), "{refused:?}");
    assert!(c.peer(&["list"]).is_empty(), "who was refused forgets the other again");
    assert_eq!(a.log_count("an invitation is not accepted"), 1);
    // Not under the name of the one that has used it either; that one may show it again.
    let secret = parts(&invitation)[5].to_owned();
    let thief = Key::new("b.example");
    let mut stranger = Stranger::secure(&a, Some(&thief));
    stranger.sends_json(&join("b.example", &secret));
    stranger.is_told("forbidden");
    stranger.is_closed();
    let mut again = Stranger::secure(&a, Some(&Key::of(&b)));
    again.sends_json(&join("b.example", &secret));
    again.is_taken();
    assert_eq!(a.peer(&["list"]).lines().count(), 1);
    // And not without a key.
    let mut nobody = Stranger::secure(&a, None);
    nobody.sends_json(&join("b.example", &secret));
    nobody.is_told("forbidden");
    nobody.is_closed();
    let mut plain = Stranger::plain(&a);
    plain.sends_json(&join("b.example", &secret));
    plain.is_told("forbidden");
    plain.is_closed();
}

#[test]
fn an_invitation_that_was_changed_or_is_too_old_is_not_accepted() {
    let (a, b) = (Place::new("a.example").started(), Place::new("b.example").started());
    let invitation = a.peer(&["invite"]);
    let joins = |invitation: &str| b.home().bester(&["peer", "join", invitation]);
    let changed = |part: usize, text: &str| {
        let mut parts = parts(&invitation);
        parts[part] = text;
        parts.join("/")
    };
    let secret = parts(&invitation)[5];
    let other = format!("{}{}", &secret[..31], if secret.ends_with('0') { '1' } else { '0' });
    let refused = joins(&changed(5, &other));
    assert!(refused.code == Some(65) && refused.stderr.contains("forbidden"), "{refused:?}");
    let late = joins(&changed(6, "1000000000"));
    assert!(late.code == Some(65) && late.stderr.contains("ask for another"), "{late:?}");
    // With another key somebody else would be there, and nobody is shown the secret.
    let elsewhere = joins(&changed(4, &"0".repeat(64)));
    assert!(elsewhere.code == Some(69) && elsewhere.stderr.contains("another key"), "{elsewhere:?}");
    // Whatever it says itself, it is good for as long as the server that made it says.
    let database = rusqlite::Connection::open(a.home().path().join("state/bester.db")).expect("a database");
    database.execute("UPDATE invitations SET until = 1000000000", []).expect("it is there");
    let late = joins(&invitation);
    assert!(late.code == Some(65) && late.stderr.contains("too old"), "{late:?}");
    assert!(a.peer(&["list"]).is_empty() && b.peer(&["list"]).is_empty());
    assert!(!a.server().log().contains(secret) && !b.server().log().contains(secret));
}

#[test]
fn who_did_not_hear_that_it_has_joined_joins_again() {
    let (a, b) = (Place::new("a.example").started(), Place::new("b.example").started());
    let invitation = a.peer(&["invite"]);
    // What a says takes long enough for the connection to be cut meanwhile.
    a.proxy.delay(crate::proxy::Way::Back, Duration::from_millis(700));
    std::thread::scope(|scope| {
        let joining = scope.spawn(|| b.home().bester(&["peer", "join", &invitation]));
        a.server().wait_for("was invited and is a peer now");
        a.proxy.cut();
        let unknown = joining.join().expect("no panic");
        assert!(unknown.code == Some(75) && unknown.stderr.contains("do the same again"), "{unknown:?}");
    });
    a.proxy.heal();
    assert!(b.peer(&["join", &invitation]).starts_with("a.example and this server know each other"));
    a.is_linked_to(&b);
    b.is_linked_to(&a);
    assert_eq!((a.peer(&["list"]).lines().count(), b.peer(&["list"]).lines().count()), (1, 1));
}

#[test]
fn a_server_that_is_removed_loses_its_connections_at_once() {
    let (a, b) = two();
    a.is_linked_to(&b);
    b.is_linked_to(&a);
    let mut bob = acknowledging(b.server(), "bob");
    is_sent(&mut a.server().log_in("alice"), &["b.example"], json!({ "n": 1 }), "m");
    delivery(&mut bob);
    a.outboxes_are_empty_within(Duration::from_secs(10));
    assert_eq!((a.proxy.open(), b.proxy.open()), (1, 1));
    assert_eq!(a.peer(&["remove", "b.example"]), "b.example is forgotten, and 0 messages for it given up");
    // A link that is refused comes again, so it is not enough to look at one moment.
    let began = Instant::now();
    while a.proxy.open() + b.proxy.open() > 0 {
        assert!(began.elapsed() < Duration::from_secs(1), "{} and {} connections", a.proxy.open(), b.proxy.open());
        std::thread::yield_now();
    }
    // b tries again, and is nobody.
    a.server().wait_for("a server with the name b.example is refused");
    until("b sees it", || (b.list("a.example")["state"] != "up").then_some(()));
    assert!(b.list("a.example")["trouble"].as_str().is_some_and(|words| words.contains("you are no peer")));
    let mut alice = a.server().log_in("alice");
    super::sends(&mut alice, &["b.example"], json!({}), "gone");
    crate::fault::bad(&mut alice, "gone", "peerUnknown");
    // An invitation that it has used is of no use any longer, but another one is.
    b.peer(&["join", &a.peer(&["invite"])]);
    a.is_linked_to(&b);
    b.is_linked_to(&a);
}

#[test]
fn a_check_finds_the_step_that_fails() {
    let (a, b) = two_with(r#""peerReportSeconds": 3,"#, r#""peerReportSeconds": 3,"#);
    let steps = |place: &Place, name: &str| {
        let told = place.home().bester(&["peer", "check", name]);
        let last = told.stdout.lines().find(|line| line.contains("FAILED")).map(str::to_owned);
        (told.code, last.unwrap_or(told.stdout))
    };
    for (from, to) in [(&a, &b), (&b, &a)] {
        let (code, told) = steps(from, to.name);
        assert_eq!(code, Some(0), "{told}");
        for step in ["resolve", "connect", "TLS", "pin", "name", "round trip"] {
            let way_there = told.lines().any(|line| line.starts_with(&format!("{step} ")) && line.contains(" OK "));
            let way_back = told.lines().any(|line| line.starts_with(&format!("back: {step} ")) && line.contains(" OK "));
            assert!(way_there && way_back, "{step}: {told}");
        }
    }
    let fails = |place: &Place, name: &str, step: &str, words: &str| {
        let (code, line) = steps(place, name);
        assert!(code == Some(69) && line.starts_with(&format!("{step} ")) && line.contains(words), "{step}: {code:?} {line}");
    };
    b.proxy.refuse_new();
    fails(&a, "b.example", "connect", "does the other server run");
    fails(&b, "a.example", "back: connect", "does the other server run");
    b.proxy.heal();
    b.proxy.swallow(crate::proxy::Way::Back);
    fails(&a, "b.example", "TLS", "not done in time");
    b.proxy.heal();
    // Another key than the one that is known.
    let wrong = Key::new("b.example").card("b.example", b.proxy.address());
    a.peer(&["add", "--replace", &wrong]);
    fails(&a, "b.example", "pin", "another key");
    // b knows a by the key that it has, but a does not know the key of b: who asks is nobody.
    fails(&b, "a.example", "name", "you are no peer");
    a.peer(&["remove", "b.example"]);
    fails(&b, "a.example", "name", "you are no peer");
    // The name of another.
    let c = Key::of(&b).card("c.example", b.proxy.address());
    a.peer(&["add", &c]);
    fails(&a, "c.example", "name", "says that its name is b.example, and not c.example");
}
