//! What was answered `good` is not lost: mailboxes, acknowledgements, messages that come again, readers that stop, and the end of
//! the server, by order or by force.

use crate::world::{Client, Home, Server, login_with};
use serde_json::{Value, json};
use std::time::Instant;

/// A type that keeps mail, and one that keeps none.
fn entries() -> String {
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/handlers/post.py");
    format!(
        r#""post": {{ "handlerBinary": "{program}", "offline": "queue" }},
           "news": {{ "handlerBinary": "{program}" }},
           "safe": {{ "handlerBinary": "{program}", "idempotent": true }},"#
    )
}

fn home(limits: &str) -> Home {
    Home::new(&entries(), &format!(r#""limits": {{ {limits} }},"#), &["alice", "bob", "carol"])
}

fn serve() -> Server {
    home("").serve()
}

/// Ends the server as a power switch would, as far as its process is concerned, and starts it again.
fn killed(mut server: Server) -> Server {
    server.signal("-KILL");
    server.wait();
    server.take_home().serve()
}

/// Has something sent, and gives the report.
fn post(client: &mut Client, kind: &str, to: &[&str], say: &Value) -> Value {
    client.sends_message(kind, &json!({ "to": to, "say": say }).to_string(), "p");
    client.gets_json()
}

#[track_caller]
fn queued(client: &mut Client, to: &[&str], say: &Value) {
    let report = post(client, "post", to, say);
    assert_eq!((&report["header"]["status"], &report["payload"]["data"]["queued"]), (&json!("good"), &json!(to.len())), "{report}");
}

/// A session with these options.
#[track_caller]
fn log_in_with(server: &Server, user: &str, options: &str) -> Client {
    let mut client = server.connect();
    client.sends(&login_with(user, options));
    let report = client.gets();
    assert!(report.contains(r#""status":"good""#), "{report}");
    client
}

/// What was said in the next delivery.
#[track_caller]
fn said(client: &mut Client) -> Value {
    client.gets_json()["payload"]["data"]["say"].clone()
}

/// The same, with its number and whether it may have come before.
#[track_caller]
fn said_with_mark(client: &mut Client) -> (Value, u64, bool) {
    let frame = client.gets_json();
    let header = &frame["header"];
    let mark = header["seq"].as_u64().zip(header["redelivered"].as_bool());
    let (seq, redelivered) = mark.unwrap_or_else(|| panic!("no mark: {frame}"));
    (frame["payload"]["data"]["say"].clone(), seq, redelivered)
}

fn acknowledge(client: &mut Client, seq: u64) {
    client.sends(&format!(r#"{{"payload":{{"type":"builtin","data":{{"command":{{"type":"ack","args":{{"seq":{seq}}}}}}}}}}}"#));
}

#[test]
fn mail_waits_for_who_is_away_through_a_kill() {
    let server = serve();
    let mut alice = server.log_in("alice");
    for n in 0..300 {
        queued(&mut alice, &["bob", "carol"], &json!(n));
    }
    let server = killed(server);
    let mut bob = server.log_in("bob");
    (0..300).for_each(|n| assert_eq!(said(&mut bob), n));
    bob.got_nothing();
    let mut carol = log_in_with(&server, "carol", r#"{"ack":true}"#);
    for n in 0..300 {
        let (said, seq, redelivered) = said_with_mark(&mut carol);
        assert_eq!((said, redelivered), (json!(n), true), "after a kill nobody knows whether it was delivered");
        if n % 32 == 0 {
            acknowledge(&mut carol, seq);
        }
    }
}

#[test]
fn what_is_not_acknowledged_comes_again_and_nothing_else() {
    let server = serve();
    let mut alice = server.log_in("alice");
    let mut bob = log_in_with(&server, "bob", r#"{"ack":true}"#);
    (1..=4).for_each(|n| queued(&mut alice, &["bob"], &json!(n)));
    let marks: Vec<_> = (1..=4).map(|_| said_with_mark(&mut bob)).collect();
    assert_eq!(marks, (1..=4).map(|n| (json!(n), n, false)).collect::<Vec<_>>());
    acknowledge(&mut bob, 1);
    bob.got_nothing();
    drop(bob);
    // A server that was stopped in good order knows what it has sent.
    let mut server = server.stop().serve();
    let mut bob = log_in_with(&server, "bob", r#"{"ack":true,"after":2}"#);
    assert_eq!([said_with_mark(&mut bob), said_with_mark(&mut bob)], [(json!(3), 3, true), (json!(4), 4, true)]);
    acknowledge(&mut bob, 4);
    bob.got_nothing();
    server = killed(server);
    let mut alice = server.log_in("alice");
    let mut bob = log_in_with(&server, "bob", r#"{"ack":true}"#);
    queued(&mut alice, &["bob"], &json!(5));
    assert_eq!(said_with_mark(&mut bob), (json!(5), 5, false), "numbers are not used again");
    bob.sends(r#"{"payload":{"type":"builtin","id":"a","data":{"command":{"type":"ack","args":{"seq":6}}}}}"#);
    let report = bob.gets();
    assert!(report.contains(r#""reason":"malformed""#) && report.contains(r#""id":"a""#), "{report}");
    bob.is_closed();
}

#[test]
fn a_reader_that_stops_loses_nothing_and_holds_nobody_up() {
    const COUNT: usize = 60;
    let server = home(r#""connectionsPerUser": 4"#).serve();
    let mut alice = server.log_in("alice");
    let mut bob = server.log_in("bob");
    let mut carol = server.log_in("carol");
    let large = "x".repeat(100_000);
    let began = Instant::now();
    for n in 0..COUNT {
        let report = post(&mut alice, "post", &["bob", "carol"], &json!([n, large]));
        let data = &report["payload"]["data"];
        assert_eq!(data["queued"].as_u64().zip(data["delivered"].as_u64()).map(|(a, b)| a + b), Some(2), "{report}");
        assert_eq!(said(&mut carol)[0], n);
    }
    assert!(began.elapsed().as_secs() < 10, "nobody waits for bob");
    (0..COUNT).for_each(|n| assert_eq!(said(&mut bob)[0], n));
    bob.got_nothing();
    // It has caught up, and is handed what comes.
    let report = post(&mut alice, "post", &["bob"], &json!("new"));
    assert_eq!(report["payload"]["data"]["delivered"], 1, "{report}");
    assert_eq!(said(&mut bob), "new");
}

#[test]
fn what_a_stuck_reader_did_not_get_is_in_its_mailbox_at_the_end_of_the_server() {
    let server = serve();
    let mut alice = server.log_in("alice");
    let bob = server.log_in("bob");
    let large = "x".repeat(100_000);
    for n in 0..50 {
        let report = post(&mut alice, "post", &["bob"], &json!([n, large]));
        assert_eq!(report["header"]["status"], "good", "{report}");
    }
    let server = server.stop().serve();
    drop(bob);
    // What the first connection's socket had taken is gone with it; from then on nothing is missing.
    let mut bob = server.log_in("bob");
    let mut next = said(&mut bob)[0].as_u64().expect("a number");
    assert!(next < 50);
    while next < 49 {
        next += 1;
        assert_eq!(said(&mut bob)[0], next);
    }
    bob.got_nothing();
}

#[test]
fn a_message_that_comes_again_is_handled_once_also_after_a_kill() {
    let server = serve();
    let once = json!({ "to": ["bob"], "say": "once" }).to_string();
    let mut reports = Vec::new();
    let mut ask = |server: &Server| {
        let mut alice = log_in_with(server, "alice", r#"{"dedupe":true}"#);
        alice.sends_message("post", &once, "id-1");
        reports.push(alice.gets_json());
    };
    ask(&server);
    ask(&server);
    let server = killed(server);
    ask(&server);
    assert_eq!(reports[0]["payload"]["data"]["queued"], 1, "{reports:?}");
    assert!(reports.iter().all(|report| *report == reports[0]), "{reports:?}");
    let mut bob = server.log_in("bob");
    assert_eq!(said(&mut bob), "once");
    bob.got_nothing();
}

#[test]
fn a_handler_that_may_be_asked_again_is() {
    let server = serve();
    let mut alice = server.log_in("alice");
    // It dies of this, twice; each of them is asked no more than that.
    alice.sends_message("safe", "{}", "a");
    let report = alice.gets_json();
    assert_eq!(report["header"]["reason"], "handlerCrashed", "{report}");
    server.wait_for_times("handler safe started", 2);
    let started = server.log().matches("handler safe started").count();
    assert!(started >= 2, "{}", server.log());
}

#[test]
fn a_server_that_stops_says_so_and_takes_no_more() {
    let home = home("");
    let slow = home.program("slow.py", "#!/usr/bin/env python3\nimport sys, time\nsys.stdin.buffer.read(5)\ntime.sleep(600)\n");
    let config = std::fs::read_to_string(home.path().join("bester.conf")).expect("a configuration");
    let slow = format!(r#""typeMap": {{ "slow": {{ "handlerBinary": "{}", "timeoutSeconds": 2 }},"#, slow.display());
    home.write("bester.conf", &config.replace(r#""typeMap": {"#, &slow));
    let mut server = home.serve();
    let mut alice = server.log_in("alice");
    let mut bob = log_in_with(&server, "bob", r#"{"ack":true}"#);
    alice.sends_message("slow", "1", "s");
    alice.got_nothing();
    server.signal("-TERM");
    let told = bob.gets_json();
    assert_eq!(told["header"]["messageType"], "draining", "{told}");
    let report = post(&mut alice, "post", &["bob"], &json!(1));
    assert_eq!((&report["header"]["reason"], &report["header"]["temporary"]), (&json!("draining"), &json!(true)), "{report}");
    let report = alice.gets_json();
    assert_eq!(report["header"]["reason"], "handlerTimeout", "what was under way is seen to its end: {report}");
    alice.is_closed();
    bob.is_closed();
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
}

#[test]
fn a_damaged_database_is_refused_with_the_file_and_what_to_do() {
    let server = serve();
    let mut alice = server.log_in("alice");
    (0..50).for_each(|n| queued(&mut alice, &["bob"], &json!([n, "x".repeat(2000)])));
    let home = server.stop();
    let path = home.path().join("state/bester.db");
    let mut bytes = std::fs::read(&path).expect("a database");
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 64].fill(0xA5);
    std::fs::write(&path, bytes).expect("a database");
    let mut server = home.serve_unready();
    // All that it says comes before its end, but is read by another thread.
    server.wait_for("backup");
    let status = server.wait();
    let log = server.log();
    assert_eq!(status.code(), Some(69), "{log}");
    assert!(log.contains("bester.db") && log.contains("damaged") && log.contains("backup"), "{log}");
}

#[test]
fn what_a_type_keeps_can_be_changed_while_the_server_runs() {
    let server = serve();
    let mut alice = server.log_in("alice");
    let offline = post(&mut alice, "news", &["bob"], &json!(1));
    assert_eq!(offline["header"]["reason"], "undelivered", "{offline}");
    let config = std::fs::read_to_string(server.home.path().join("bester.conf")).expect("a configuration");
    server.home.write("bester.conf", &config.replace(r#""news": {"#, r#""news": { "offline": "queue","#));
    let reload = server.home.bester(&["reload"]).good();
    assert!(reload.stdout.contains("news: changed"), "{reload:?}");
    assert_eq!(server.log().matches("handler news started").count(), 1, "its program has nothing to do with that");
    let kept = post(&mut alice, "news", &["bob"], &json!(2));
    assert_eq!(kept["payload"]["data"]["queued"], 1, "{kept}");
}
