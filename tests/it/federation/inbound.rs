//! What other servers send has bounds: how often it goes round, how much of it there is, on how many connections.

use super::by_hand::{Key, Stranger, message, one_line, ping, send};
use super::{Place, is_sent, p99, two, within_in_one_of_three};
use crate::fault::{delivery, good};
use crate::world::{Client, frame};
use serde_json::json;
use std::time::{Duration, Instant};

/// a, which knows b by this key; the test is b.
fn a_and_the_key_of_b(limits: &str) -> (Place, Key) {
    let a = Place::with("a.example", "peers", limits);
    let b = Key::new("b.example");
    a.peer(&["add", &b.card("b.example", a.proxy.address())]);
    a.proxy.refuse_new();
    (a.started(), b)
}

#[test]
fn a_message_that_goes_round_ends_after_eight_hops() {
    let (a, b) = two();
    is_sent(&mut a.server().log_in("alice"), &["b.example"], json!({ "round": true }), "m");
    // b handles those with an odd number of hops, and a those with an even one.
    let (of_b, of_a) = (b.is_called(4), a.is_called(4));
    let hops = |calls: &[serde_json::Value]| calls.iter().map(|call| call["hops"].as_u64().expect("a number")).collect::<Vec<_>>();
    assert_eq!((hops(&of_b), hops(&of_a)), (vec![1, 3, 5, 7], vec![2, 4, 6, 8]));
    for place in [&a, &b] {
        place.outboxes_are_empty_within(Duration::from_secs(30));
        assert_eq!(place.calls().len(), 4);
    }
    let users: Vec<_> = of_b.iter().chain(&of_a).map(|call| call["from"]["user"].clone()).collect();
    assert!(users[0] == "alice" && users[1..].iter().all(|user| user.is_null()), "whose word led to it is not known further on: {users:?}");
}

#[test]
fn who_says_more_hops_than_there_may_be_is_told_so() {
    let (a, b) = a_and_the_key_of_b("");
    let mut b = Stranger::secure(&a, Some(&b)).greets("b.example");
    for (hops, reason) in [(json!(8), None), (json!(9), Some("loop")), (json!(1_u64 << 62), Some("loop"))] {
        let mut message = message("b.example", &format!("b.example/1-{hops}"));
        message["header"]["hops"] = hops;
        b.sends_json(&message);
        match reason {
            None => drop(b.is_taken()),
            Some(reason) => assert_eq!(b.is_told(reason)["header"]["temporary"], false),
        }
    }
    for hops in [json!(u64::MAX), json!(-1), json!(1.5), json!("1"), json!(null)] {
        let mut message = message("b.example", "b.example/1-x");
        message["header"]["hops"] = hops;
        b.sends_json(&message);
        b.is_told("malformed");
    }
    a.is_called(1);
}

#[test]
fn a_server_that_floods_is_heard_more_slowly_and_delays_no_client() {
    const MESSAGES: usize = 5000;
    const PER_SECOND: usize = 2500;
    const BURST: usize = 500;
    let (a, b) = a_and_the_key_of_b(&format!(r#""peerMessagesPerSecond": {PER_SECOND}, "peerMessageBurst": {BURST},"#));
    let mut b = Stranger::secure(&a, Some(&b)).greets("b.example");
    let mut alice = a.server().log_in("alice");
    let echo = |alice: &mut Client| {
        let began = Instant::now();
        alice.sends_message("echo", "1", "e");
        assert_eq!(delivery(alice), 1);
        good(alice, "e");
        began.elapsed()
    };
    echo(&mut alice);
    let began = Instant::now();
    std::thread::scope(|scope| {
        let socket = b.socket();
        scope.spawn(move || {
            for number in 0..MESSAGES {
                let mut message = message("b.example", &format!("b.example/1-{number}"));
                message["payload"]["data"] = json!({});
                send(&socket, &frame(message.to_string().as_bytes()));
            }
        });
        let flooding = scope.spawn(|| {
            for _ in 0..MESSAGES {
                b.is_taken();
            }
            began.elapsed()
        });
        within_in_one_of_three("an echo", Duration::from_millis(200), || {
            let times = (0..100).map(|_| echo(&mut alice)).collect();
            assert!(!flooding.is_finished(), "the flood is over too early");
            p99(times)
        });
        let took = flooding.join().expect("all are good");
        let least = Duration::from_secs_f64((MESSAGES - BURST) as f64 / PER_SECOND as f64);
        assert!(took >= least.mul_f64(0.95), "{took:?}, and {least:?} would be right");
    });
    assert_eq!(a.calls().len(), MESSAGES);
}

#[test]
fn a_server_has_so_many_connections_at_once() {
    let (a, b) = a_and_the_key_of_b(r#""connectionsPerPeer": 2,"#);
    let mut two = [Stranger::secure(&a, Some(&b)).greets("b.example"), Stranger::secure(&a, Some(&b)).greets("b.example")];
    let before = a.server().log().len();
    let mut third = Stranger::secure(&a, Some(&b));
    third.sends_json(&message("b.example", "b.example/1-1"));
    assert_eq!(third.is_told("busy")["header"]["temporary"], true);
    third.is_closed();
    assert!(one_line(&a, before, "is refused").contains("limits.connectionsPerPeer"));
    two.iter_mut().for_each(|one| {
        one.sends_json(&ping("b.example"));
        one.is_taken();
    });
    // Another server has its own, and a place that becomes free is one.
    let [one, _other] = two;
    drop(one);
    crate::fault::until("there is a place", || {
        let mut again = Stranger::secure(&a, Some(&b));
        again.sends_json(&ping("b.example"));
        (again.gets()["header"]["status"] == "good").then_some(())
    });
    assert_eq!(a.calls().len(), 0);
}
