//! Whatever a handler does wrong costs its own requests and nothing else; afterwards it works again.

use crate::fault::{asks, bad, delivery, ends, entry, fifo, good, meet, serve, times, until, works};
use crate::world::{Client, Home, Server};
use serde_json::json;
use std::fs;
use std::time::{Duration, Instant};

/// Sends a request that ends badly; waits until the log tells of it as well; gives the words for the sender.
#[track_caller]
fn fails(server: &Server, alice: &mut Client, steps: &str, reason: &str, line: &str) -> String {
    let before = server.log().matches(line).count();
    alice.sends_message("x", steps, "fails");
    let message = bad(alice, "fails", reason);
    server.wait_for_times(line, before + 1);
    message
}

/// A server with these types, and alice on it.
fn serve_types(entries: &[String]) -> (Server, Client) {
    let server = Home::new(&entries.concat(), "", &["alice"]).serve();
    let alice = server.log_in("alice");
    (server, alice)
}

#[test]
fn an_answer_that_was_written_counts_though_its_writer_is_dead() {
    let entries = [
        entry("x0", "", ""),
        entry("x1", r#""socket""#, r#""transport": "socket""#),
        entry("x2", r#""unix=u""#, r#""unixDomainSocketPath": "u""#),
    ];
    let (server, mut alice) = serve_types(&entries);
    for turn in 1..=2 {
        for kind in ["x0", "x1", "x2"] {
            alice.sends_message(kind, r#"[["fill",200000],["exit",0]]"#, "m");
            assert_eq!(delivery(&mut alice).as_str().map(str::len), Some(200_000));
            good(&mut alice, "m");
        }
        for kind in ["x0", "x1", "x2"] {
            server.wait_for_times(&format!("handler {kind} exited with status 0"), turn);
            works(&mut alice, kind);
        }
    }
    // Its good answer forgave it each time: it was started a second later, not two.
    let log = server.log();
    for kind in ["x0", "x1", "x2"] {
        let started = times(&log, &format!("handler {kind} started"));
        let ended = times(&log, &format!("handler {kind} exited"));
        for (ended, started) in ended.iter().zip(&started[1..]) {
            assert!((0.9..1.9).contains(&(started - ended)), "{log}");
        }
    }
}

#[test]
fn a_handler_that_exits_at_once_is_started_less_and_less_often() {
    let (server, mut alice) = serve_types(&[entry("x", r#""begin=[[\"exit_unless\",\"there\",4]]""#, ""), entry("other", "", "")]);
    server.wait_for("handler x exited with status 4");
    // The others do not notice.
    works(&mut alice, "other");
    server.wait_for_times("handler x exited with status 4", 3);
    server.home.write("there", "");
    let log = server.log();
    let (started, ended) = (times(&log, "handler x started"), times(&log, "handler x exited"));
    for (n, expected) in [(0, 1.0), (1, 2.0)] {
        let waited = started[n + 1] - ended[n];
        assert!((expected - 0.05..expected + 0.8).contains(&waited), "{waited} s and not {expected} s: {log}");
    }
    // It comes back after four more seconds, which is less than a message waits.
    works(&mut alice, "x");
}

#[test]
fn a_program_that_cannot_be_started_is_unavailable() {
    let home = Home::new("", "", &[]);
    let interpreter = home.program("interpreter", "#!/bin/sh\n");
    let script = home.program("secret-name", &format!("#!{}\n", interpreter.display()));
    // It goes after the configuration was checked: the handler has run once then.
    let entries = format!(r#""x": {{ "handlerBinary": "{}", "queue": 1 }},"#, script.display()) + &entry("other", "", "");
    let server = Home::new(&entries, "", &["alice"]).serve();
    let mut alice = server.log_in("alice");
    server.wait_for("handler x exited with status 0");
    fs::remove_file(interpreter).expect("the interpreter");
    server.wait_for("handler x cannot be started: /");
    server.wait_for("secret-name: its interpreter (first line: \"#!/");
    let begun = Instant::now();
    alice.sends_message("x", "1", "waits");
    // There is room for one; the second is told at once.
    alice.sends_message("x", "2", "full");
    let message = bad(&mut alice, "full", "handlerUnavailable");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(message, "handler x is not running: cannot be started");
    works(&mut alice, "other");
    let message = bad(&mut alice, "waits", "handlerUnavailable");
    assert_eq!(message, "handler x is not running: cannot be started", "no path is told to clients");
    let waited = begun.elapsed();
    assert!((Duration::from_millis(4900)..Duration::from_secs(8)).contains(&waited), "{waited:?}");
}

#[test]
fn a_handler_that_is_busy_keeps_a_bounded_queue() {
    let (server, mut alice) = serve_types(&[entry("x", "", r#""queue": 2"#), entry("other", "", "")]);
    let gate = fifo(&server.home, "gate");
    alice.sends_message("x", r#"[["meet","gate"],["reply",0]]"#, "m0");
    alice.sends_message("x", r#"[["reply",1]]"#, "m1");
    alice.sends_message("x", r#"[["reply",2]]"#, "m2");
    alice.sends_message("x", r#"[["reply",3]]"#, "m3");
    let message = bad(&mut alice, "m3", "busy");
    assert_eq!(message, "handler x is busy: its queue is full");
    let begun = Instant::now();
    works(&mut alice, "other");
    assert!(begun.elapsed() < Duration::from_secs(2), "another type had to wait: {:?}", begun.elapsed());
    meet(&gate);
    for n in 0..3 {
        assert_eq!(delivery(&mut alice), n);
        good(&mut alice, &format!("m{n}"));
    }
}

#[test]
fn what_waits_too_long_for_a_busy_handler_is_told_so() {
    let (server, mut alice) = serve("", "");
    let gate = fifo(&server.home, "gate");
    alice.sends_message("x", r#"[["meet","gate"],["reply",0]]"#, "slow");
    let begun = Instant::now();
    alice.sends_message("x", r#"[["reply",1]]"#, "waits");
    let message = bad(&mut alice, "waits", "busy");
    assert_eq!(message, "handler x is busy: it had no room for 5 s");
    assert!(begun.elapsed() >= Duration::from_millis(4900), "{:?}", begun.elapsed());
    meet(&gate);
    assert_eq!(delivery(&mut alice), 0);
    good(&mut alice, "slow");
    works(&mut alice, "x");
}

#[test]
fn others_under_way_fall_with_a_plain_handler_that_is_late() {
    let (server, mut alice) = serve("", r#""timeoutSeconds": 1, "inFlight": 3"#);
    let gate = fifo(&server.home, "gate");
    alice.sends_message("x", r#"[["meet","gate"],["reply",0]]"#, "before");
    alice.sends_message("x", r#"[["hang"]]"#, "late");
    // This one is asked half a second after the late one.
    let begun = Instant::now();
    until("half a second", || (begun.elapsed() > Duration::from_millis(500)).then_some(()));
    alice.sends_message("x", r#"[["reply",1]]"#, "behind");
    meet(&gate);
    assert_eq!(delivery(&mut alice), 0);
    good(&mut alice, "before");
    bad(&mut alice, "late", "handlerTimeout");
    assert_eq!(bad(&mut alice, "behind", "handlerCrashed"), "handler x did not answer within 1 s");
    works(&mut alice, "x");
}

#[test]
fn only_the_late_request_of_an_envelope_handler_fails() {
    let (server, mut alice) = serve("", r#""envelope": true, "timeoutSeconds": 1"#);
    alice.sends_message("x", r#"[["keep"]]"#, "late");
    let begun = Instant::now();
    until("half a second", || (begun.elapsed() > Duration::from_millis(500)).then_some(()));
    works(&mut alice, "x");
    let message = bad(&mut alice, "late", "handlerTimeout");
    assert_eq!(message, "handler x did not answer within 1 s");
    // The late answer reaches nobody.
    assert_eq!(asks(&mut alice, "x", r#"[["release","late"],["reply","in time"]]"#), "in time");
    server.wait_for("answered a request that is not under way");
    alice.got_nothing();
    assert_eq!(server.log().matches("handler x started").count(), 1, "it was not replaced");
    // One that answers nothing at all is.
    alice.sends_message("x", r#"[["hang"]]"#, "late");
    bad(&mut alice, "late", "handlerTimeout");
    server.wait_for("handler x did not answer within 1 s; it will be started again");
    works(&mut alice, "x");
}

#[test]
fn what_is_no_frame_ends_a_handler() {
    let cases = [
        ("l1", "hello \u{1b}[2J\u{e4}\n".to_owned(), r"wrote 'hello \x1b[2J\xe4' where a line of JSON should start".to_owned()),
        ("x2", "x".repeat(5000), format!("wrote '{}' where a frame should start", "x".repeat(64))),
        ("l3", "[]\n".to_owned(), "wrote '[]' where a line of JSON should start".to_owned()),
        ("l5", "{}\nhello\n".to_owned(), "wrote 'hello' where a line of JSON should start".to_owned()),
    ];
    // All at the same time, since there is a second between two starts.
    let one = |kind: &str| if kind.starts_with('l') { entry(kind, r#""lines""#, r#""framing": "lines""#) } else { entry(kind, "", "") };
    let entries: Vec<String> = cases.iter().map(|(kind, ..)| one(kind)).collect();
    let (server, mut alice) = serve_types(&entries);
    for (kind, text, words) in &cases {
        alice.sends_message(kind, &json!([["raw", text], ["pause"]]).to_string(), "m");
        let frame = alice.gets_json();
        let whole = text.starts_with("{}"); // a sound frame before it is an answer, though a wrong one
        assert_eq!(frame["header"]["reason"], if whole { "handlerProtocol" } else { "handlerCrashed" }, "{frame}");
        let line = format!("WARN  handler: handler {kind} {words}");
        server.wait_for(&line);
        let log = server.log();
        let lines: Vec<&str> = log.lines().filter(|logged| logged.contains(&line)).collect();
        assert_eq!(lines.len(), 1, "{log}");
        assert!(lines[0].contains("is something printing to stdout?"), "{log}");
    }
    for (kind, ..) in &cases {
        works(&mut alice, kind);
    }
}

#[test]
fn what_follows_an_answer_that_nobody_asked_for_is_not_read() {
    let line = "handler x gave an answer that nobody had asked for";
    let begin = r#""begin=[[\"exit_unless\",\"once\",1]]""#;
    let (server, mut alice) = serve(begin, "");
    server.home.write("once", "");
    works(&mut alice, "x");
    alice.sends_message("x", r#"[["reply",1],["say","{}"],["say","nonsense"]]"#, "m");
    assert_eq!(delivery(&mut alice), 1);
    good(&mut alice, "m");
    server.wait_for(line);
    works(&mut alice, "x");
}

#[test]
fn a_flood_on_standard_error_is_bounded_and_holds_nobody_up() {
    let (server, mut alice) = serve_types(&[entry("x", "", ""), entry("other", "", "")]);
    alice.sends_message("x", &json!([["print", "flood flood flood\n", 300_000], ["reply", "done"]]).to_string(), "m");
    works(&mut alice, "other");
    assert_eq!(delivery(&mut alice), "done");
    good(&mut alice, "m");
    alice.sends_message(
        "x",
        &json!([["print", "l".repeat(9000)], ["print", "\u{1b}[31m\u{202e}fake\r2026 ERROR\0\n"], ["exit", 0]]).to_string(),
        "m",
    );
    bad(&mut alice, "m", "handlerCrashed");
    server.wait_for("handler x exited");
    server.wait_for_times("handler x started", 2);
    let log = server.log();
    let flood = log.matches("handler x: flood flood flood").count();
    assert!((100..2000).contains(&flood), "{flood} lines");
    assert!(log.contains(" more lines are not shown: more than 100 a second)"), "nothing was left out");
    assert!(log.lines().all(|line| line.len() < 4300), "a long line");
    assert!(!log.contains(['\u{1b}', '\u{202e}', '\r', '\0']), "a control character");
    works(&mut alice, "x");
}

#[test]
fn a_flood_of_frames_that_nobody_asked_for_is_bounded_and_holds_nobody_up() {
    let (server, mut alice) = serve_types(&[entry("x", "", r#""envelope": true"#), entry("other", "", "")]);
    asks(&mut alice, "x", r#"[["reply",1]]"#);
    let before = resident_kib(server.pid());
    let frame = r#"{"header":{"status":"0","command":"sendClients","commandData":["alice"],"inReplyTo":"?"},"payload":{"data":1}}"#;
    alice.sends_message("x", &json!([["flood", frame, 100], ["reply", "done"]]).to_string(), "m");
    server.wait_for("answered a request that is not under way");
    let begun = Instant::now();
    works(&mut server.log_in("alice"), "other");
    let waited = begun.elapsed();
    assert_eq!(delivery(&mut alice), "done");
    good(&mut alice, "m");
    let grown = resident_kib(server.pid()).saturating_sub(before);
    let lines = server.log().matches("answered a request that is not under way").count();
    assert!((1..2000).contains(&lines), "{lines} lines");
    assert!(grown < 32 << 10, "{grown} KiB more than before");
    assert!(waited < Duration::from_secs(5), "{waited:?}");
    alice.sends_message("x", r#"[["exit",0]]"#, "m");
    bad(&mut alice, "m", "handlerCrashed");
    server.wait_for(" more lines are not shown: more than 100 a second)");
}

fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn what_a_handler_prints_stands_in_the_log_under_its_name() {
    let (server, mut alice) = serve("", "");
    let text = "l".repeat(9000) + "\u{1b}[31m\u{202e}fake\r2026 ERROR\0\tend\nlast words";
    let message = fails(&server, &mut alice, &json!([["print", text], ["exit", 0]]).to_string(), "handlerCrashed", "exited with status 0");
    assert_eq!(message, "handler x exited with status 0");
    server.wait_for_times("handler x started", 2);
    let log = server.log();
    let pieces: Vec<usize> = log.lines().filter_map(|line| line.split_once("handler x: ll")).map(|(_, rest)| rest.len() + 2).collect();
    assert_eq!(pieces[..2], [4096, 4096], "{log}");
    assert!(log.contains(r"l\u{1b}[31m\u{202e}fake\r2026 ERROR\u{0} end"), "{log}");
    assert!(log.contains("INFO  handler: handler x: last words\n"), "{log}");
    assert!(!log.contains(['\u{1b}', '\u{202e}', '\r', '\0']), "{log}");
}

#[test]
fn a_handler_that_closes_its_output_is_replaced() {
    let (server, mut alice) = serve("", "");
    let pid = asks(&mut alice, "x", r#"[["look"]]"#)["pid"].as_u64().expect("a number");
    let message = fails(&server, &mut alice, r#"[["close",1],["pause"]]"#, "handlerCrashed", "handler x closed its output");
    assert_eq!(message, "handler x closed its output");
    works(&mut alice, "x");
    ends(pid);
}

#[test]
fn a_handler_that_closes_its_input_is_replaced() {
    let (server, mut alice) = serve("", r#""inFlight": 2"#);
    let gate = fifo(&server.home, "gate");
    alice.sends_message("x", r#"[["reply",1],["close",0],["meet","gate"],["pause"]]"#, "m");
    assert_eq!(delivery(&mut alice), 1);
    good(&mut alice, "m");
    meet(&gate);
    alice.sends_message("x", r#"[["reply",2]]"#, "m");
    let report = bad(&mut alice, "m", "handlerCrashed");
    assert!(report.to_string().contains("handler x closed its input"), "{report}");
    server.wait_for("handler x closed its input; it will be started again");
    works(&mut alice, "x");
}

#[test]
fn full_pipes_in_both_directions_block_nobody() {
    let (server, mut alice) = serve_types(&[entry("x", "", r#""envelope": true"#), entry("other", "", "")]);
    let mut bob = server.log_in("alice");
    let gate = fifo(&server.home, "gate");
    // It reads nothing while 3 MiB wait for it, and then writes 3 MiB before it reads any of them.
    alice.sends_message("x", &format!(r#"[["meet","gate"],["fill",{}]]"#, 3 << 20), "first");
    let ballast = "y".repeat(600 << 10);
    for n in 0..5 {
        alice.sends_message("x", &format!(r#"[["reply",{n}],["skip","{ballast}"]]"#), &format!("m{n}"));
    }
    works(&mut bob, "other");
    meet(&gate);
    assert_eq!(delivery(&mut alice).as_str().map(str::len), Some(3 << 20));
    good(&mut alice, "first");
    for n in 0..5 {
        assert_eq!(delivery(&mut alice), n);
        good(&mut alice, &format!("m{n}"));
    }
    works(&mut alice, "x");
    assert_eq!(server.log().matches("handler x started").count(), 1);
}

#[test]
fn an_answer_may_be_as_large_as_is_allowed_and_no_larger() {
    let limits = r#""limits": { "frameBytesHandler": 1000 },"#;
    let server = Home::new(&(entry("x", "", "") + &entry("l", r#""lines""#, r#""framing": "lines""#)), limits, &["alice"]).serve();
    let mut alice = server.log_in("alice");
    for kind in ["x", "l"] {
        let around = r#"{"header": {"status": "0", "command": "reply"}, "payload": {"data": ""}}"#.len();
        let fits = 1000 - around;
        assert_eq!(asks(&mut alice, kind, &format!(r#"[["fill",{fits}]]"#)).as_str().map(str::len), Some(fits));
        alice.sends_message(kind, &format!(r#"[["fill",{}]]"#, fits + 1), "m");
        let message = bad(&mut alice, "m", "handlerCrashed");
        server.wait_for(&format!("WARN  handler: handler {kind} wrote"));
        assert!(message.contains("more than the 1000 allowed here") || message.contains("should start"), "{message}");
        works(&mut alice, kind);
    }
}
