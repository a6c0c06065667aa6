//! Servers that take connections and do nothing with them delay nobody else.

use super::by_hand::Key;
use super::{Place, acknowledging, delivery, is_sent, p99, sends, within_in_one_of_three};
use crate::fault::{good, until};
use serde_json::json;
use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

const DEAD: usize = 17;
const GOOD: [&str; 3] = ["b.example", "c.example", "d.example"];
/// Messages of which the time is taken.
const MESSAGES: usize = 200;
const BOUND: Duration = Duration::from_millis(200);

#[test]
fn a_peer_that_is_silent_delays_nobody() {
    let mut a = Place::with("a.example", "peers", r#""peerReportSeconds": 2,"#);
    // Nobody accepts: the system takes the connections, and what comes on them.
    let dead: Vec<TcpListener> = (0..DEAD).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    let key = Key::new("dead");
    let names: Vec<String> = (0..DEAD).map(|number| format!("dead{number}.example")).collect();
    let pin = key.pin().to_string();
    for (number, (name, listener)) in names.iter().zip(&dead).enumerate() {
        // A key of its own; no handshake comes so far that it matters.
        let pin = format!("{number:02x}{}", &pin[2..]);
        a.peer(&["add", &format!("bester-peer/1/{name}/{}/{pin}", listener.local_addr().expect("an address"))]);
    }
    let alive: Vec<Place> = GOOD.iter().map(|name| Place::new(name)).collect();
    for place in &alive {
        super::know_each_other(&[&a, place]);
    }
    a.start();
    let alive: Vec<Place> = alive.into_iter().map(Place::started).collect();
    alive.iter().for_each(|place| a.is_linked_to(place));

    let mut alice = a.server().log_in("alice");
    let mut bobs: Vec<_> = alive.iter().map(|place| acknowledging(place.server(), "bob")).collect();
    let mut number = 0;
    let mut sends_many = |of_report: bool| {
        let mut times = Vec::new();
        for _ in 0..MESSAGES {
            number += 1;
            let (to, id) = (number % GOOD.len(), format!("m-{number}"));
            let began = Instant::now();
            sends(&mut alice, &[&names[number % DEAD], GOOD[to]], json!({ "n": number }), &id);
            assert_eq!(good(&mut alice, &id)["queued"], 2);
            if of_report {
                times.push(began.elapsed());
            }
            assert_eq!(delivery(&mut bobs[to])["payload"]["data"]["n"], number);
            if !of_report {
                times.push(began.elapsed());
            }
        }
        p99(times)
    };
    within_in_one_of_three("a report on what is for a dead peer", BOUND, || sends_many(true));
    within_in_one_of_three("a message for another peer", BOUND, || sends_many(false));

    // They were tried more than once by now, and what was needed for that was given back.
    for listener in &dead {
        until("it is tried again and again", || {
            listener.accept().expect("a connection");
            Some(())
        });
        listener.accept().expect("another connection");
    }
    let process = format!("/proc/{}", a.server().pid());
    let count = |what: &str| fs::read_dir(format!("{process}/{what}")).expect("a process").count();
    let threads = fs::read_dir(format!("{process}/task")).expect("a process").filter_map(Result::ok);
    let names_of_threads = threads.filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok());
    assert_eq!(names_of_threads.filter(|name| name.starts_with("peer ")).count(), DEAD + GOOD.len());
    // For each link a connection and a bell, and what else a server has.
    assert!(count("fd") <= 2 * (DEAD + GOOD.len()) + 60, "{} descriptors", count("fd"));
    assert!(count("task") <= DEAD + GOOD.len() + 40, "{} threads", count("task"));
    a.stop();
}

#[test]
fn a_server_that_stops_waits_for_no_handshake() {
    let mut a = Place::new("a.example");
    let dead: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    for (number, listener) in dead.iter().enumerate() {
        let name = format!("dead{number}.example");
        a.peer(&["add", &Key::new(&name).card(&name, listener.local_addr().expect("an address"))]);
    }
    a.start();
    let silent: Vec<_> = dead.iter().map(|listener| listener.accept().expect("a connection")).collect();
    is_sent(&mut a.server().log_in("alice"), &["dead0.example"], json!({}), "m");
    // What waits for them is on the disk. A handshake may take 5 s, and the end of the server 2 s.
    let began = Instant::now();
    a.stop();
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    drop(silent);
    assert_eq!(a.list("dead0.example")["messages"], 1);
}
