//! A handler may be talked to in several ways; all of them carry messages, and all of them survive its absence.

use crate::fault::{Elsewhere, asks, bad, delivery, entry, fifo, good, meet, serve, times, until, works};
use crate::world::{Client, Home};
use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Instant;

#[test]
fn every_transport_carries_messages_in_every_framing() {
    let ways = [
        ("stdio", "", ""),
        ("stdio-lines", r#""lines""#, r#""framing": "lines""#),
        ("socket", r#""socket""#, r#""transport": "socket""#),
        ("socket-lines", r#""socket", "lines""#, r#""transport": "socket", "framing": "lines""#),
        ("unix", r#""unix=u1""#, r#""unixDomainSocketPath": "u1""#),
        ("unix-lines", r#""unix=u2", "lines""#, r#""transport": "unix", "unixDomainSocketPath": "u2", "framing": "lines""#),
        ("kept", r#""unix=u3""#, r#""unixDomainSocketPath": "u3", "connection": "persistent""#),
        ("kept-lines", r#""unix=u4", "lines""#, r#""unixDomainSocketPath": "u4", "connection": "persistent", "framing": "lines""#),
    ];
    let entries: String = ways.iter().map(|(kind, arguments, more)| entry(kind, arguments, more)).collect();
    let server = Home::new(&entries, "", &["alice"]).serve();
    let mut alice = server.log_in("alice");
    for (kind, ..) in ways {
        for turn in 0..3 {
            // A line break between tokens does not end a line, and one inside a text stays what it is.
            let steps = format!("[\n[\"reply\",\r\n{{\"turn\" : {turn}, \"text\":\"a\\nb\u{2028}\u{e4}\"}}]\n]");
            let data = asks(&mut alice, kind, &steps);
            assert_eq!(data, serde_json::json!({ "turn": turn, "text": "a\nb\u{2028}\u{e4}" }), "{kind}");
        }
    }
    let home = server.stop();
    for socket in ["u1", "u2", "u3", "u4"] {
        assert!(!home.path().join(socket).exists(), "{socket} was left behind");
    }
}

#[test]
fn a_socket_is_asked_once_or_kept() {
    let entries = entry("once", r#""unix=u1""#, r#""unixDomainSocketPath": "u1""#)
        + &entry("kept", r#""unix=u2""#, r#""unixDomainSocketPath": "u2", "connection": "persistent""#);
    let server = Home::new(&entries, "", &["alice"]).serve();
    let mut alice = server.log_in("alice");
    let mut numbers = |kind| [(); 3].map(|()| asks(&mut alice, kind, r#"[["number"]]"#).as_u64().expect("a number"));
    let once = numbers("once");
    assert!(once[0] < once[1] && once[1] < once[2], "{once:?}");
    let kept = numbers("kept");
    assert!(kept[0] == kept[1] && kept[1] == kept[2], "{kept:?}");
}

#[test]
fn connections_for_single_messages_do_not_wait_for_each_other() {
    let (server, mut alice) = serve(r#""unix=u""#, r#""unixDomainSocketPath": "u", "inFlight": 3"#);
    let gate = fifo(&server.home, "gate");
    alice.sends_message("x", r#"[["meet","gate"],["reply","slow"]]"#, "slow");
    for _ in 0..2 {
        // The first may come with the slow one, the second finds it under way.
        works(&mut alice, "x");
    }
    meet(&gate);
    assert_eq!(delivery(&mut alice), "slow");
    good(&mut alice, "slow");
}

#[test]
fn a_bad_connection_for_one_message_costs_only_that_message() {
    let (server, mut alice) = serve(r#""unix=u""#, r#""unixDomainSocketPath": "u", "inFlight": 2, "timeoutSeconds": 1"#);
    let gate = fifo(&server.home, "gate");
    let mut other = server.log_in("alice");
    let quoted = "wrote 'hello\\n' where a frame should start; is something printing to stdout?";
    let silent = "closed the connection without an answer";
    let wrong = "header.status is missing";
    for (steps, reason, words, logged) in [
        // What it printed is for the log alone.
        (r#"[["raw","hello\n"],["meet","gate"]]"#, "handlerCrashed", "handler x wrote what is no frame", quoted),
        (r#"[["raw","\u0009\u0000\u0000\u0000{"],["shut"]]"#, "handlerCrashed", silent, silent),
        (r#"[["say","{}"]]"#, "handlerProtocol", wrong, wrong),
    ] {
        alice.sends_message("x", steps, "bad");
        let message = bad(&mut alice, "bad", reason);
        assert!(message.contains(words) && !message.contains("hello"), "{message}");
        server.wait_for(logged);
        works(&mut other, "x");
    }
    meet(&gate);
    assert_eq!(server.log().matches("handler x started").count(), 1);
}

#[test]
fn a_program_of_somebody_else_is_asked_whenever_it_is_there() {
    let entry = r#""x": { "handlerBinary": "none", "unixDomainSocketPath": "u", "timeoutSeconds": 2 },"#;
    let server = Home::new(entry, "", &["alice"]).serve();
    let mut alice = server.log_in("alice");
    let gone = |alice: &mut Client| {
        alice.sends_message("x", r#"[["reply",1]]"#, "m");
        let message = bad(alice, "m", "handlerUnavailable");
        assert_eq!(message, "handler x cannot be reached");
    };
    gone(&mut alice);
    server.wait_for("WARN  handler: handler x cannot be reached: /");
    for _ in 0..2 {
        // It may also come while a message waits for it.
        alice.sends_message("x", r#"[["reply","came"]]"#, "m");
        let program = Elsewhere::start(server.home.path(), "u", &[]);
        let frame = alice.gets_json();
        if frame["header"]["reason"] != "handlerUnavailable" {
            assert_eq!(frame["payload"]["data"], "came", "{frame}");
            good(&mut alice, "m");
        }
        until("the program", || UnixStream::connect(server.home.path().join("u")).ok());
        works(&mut alice, "x");
        works(&mut alice, "x");
        program.kill();
        gone(&mut alice);
    }
    let home = server.stop();
    assert!(home.path().join("u").exists(), "the socket belongs to somebody else");
}

#[test]
fn a_kept_connection_to_a_program_of_somebody_else_is_made_again() {
    let entry = r#""x": { "unixDomainSocketPath": "u", "connection": "persistent", "framing": "lines" },"#;
    let server = Home::new(entry, "", &["alice"]).serve();
    let mut alice = server.log_in("alice");
    server.wait_for("WARN  handler: handler x cannot be reached: /");
    // What comes meanwhile waits.
    alice.sends_message("x", r#"[["reply","waited"]]"#, "m");
    let program = Elsewhere::start(server.home.path(), "u", &["lines"]);
    assert_eq!(delivery(&mut alice), "waited");
    good(&mut alice, "m");
    let gate = fifo(&server.home, "gate");
    alice.sends_message("x", r#"[["meet","gate"],["pause"]]"#, "lost");
    meet(&gate);
    program.kill();
    let message = bad(&mut alice, "lost", "handlerCrashed");
    assert_eq!(message, "handler x closed its connection");
    server.wait_for("handler x closed its connection");
    alice.sends_message("x", r#"[["reply","back"]]"#, "m");
    let _program = Elsewhere::start(server.home.path(), "u", &["lines"]);
    assert_eq!(delivery(&mut alice), "back");
    good(&mut alice, "m");
    works(&mut alice, "x");
    let home = server.stop();
    assert!(home.path().join("u").exists(), "the socket belongs to somebody else");
}

#[test]
fn a_socket_that_a_dead_program_left_is_no_obstacle() {
    let entries = entry("once", r#""unix=u1""#, r#""unixDomainSocketPath": "u1""#)
        + &entry("kept", r#""unix=u2""#, r#""unixDomainSocketPath": "u2", "connection": "persistent""#);
    let home = Home::new(&entries, "", &["alice"]);
    for socket in ["u1", "u2"] {
        drop(UnixListener::bind(home.path().join(socket)).expect("a socket"));
    }
    let server = home.serve();
    let mut alice = server.log_in("alice");
    for kind in ["once", "kept"] {
        works(&mut alice, kind);
        alice.sends_message(kind, r#"[["exit",7]]"#, "m");
        let message = bad(&mut alice, "m", "handlerCrashed");
        assert!(message.contains("exited with status 7") || message.contains("closed the connection"), "{message}");
        server.wait_for(&format!("handler {kind} exited with status 7"));
        works(&mut alice, kind);
    }
}

#[test]
fn a_socket_on_which_somebody_else_listens_is_left_alone() {
    let home = Home::new(&entry("x", r#""unix=u""#, r#""unixDomainSocketPath": "u""#), "", &["alice"]);
    let path = home.path().join("u");
    let listener = UnixListener::bind(&path).expect("a socket");
    let server = home.serve();
    server.wait_for("somebody listens there");
    UnixStream::connect(&path).expect("the socket is still there");
    let mut alice = server.log_in("alice");
    alice.sends_message("x", r#"[["reply","at last"]]"#, "m");
    drop(listener);
    assert_eq!(delivery(&mut alice), "at last");
    good(&mut alice, "m");
    // Its own program dies, and somebody else is quicker.
    alice.sends_message("x", r#"[["exit",1]]"#, "m");
    bad(&mut alice, "m", "handlerCrashed");
    server.wait_for("handler x exited with status 1");
    fs::remove_file(&path).expect("the program's socket");
    let listener = UnixListener::bind(&path).expect("a socket");
    server.wait_for_times("somebody listens there", 2);
    UnixStream::connect(&path).expect("the socket is still there");
    drop(listener);
    server.wait_for_times("handler x started", 2);
    works(&mut alice, "x");
}

#[test]
fn a_file_in_place_of_the_socket_is_left_alone() {
    let home = Home::new(&entry("x", r#""unix=u""#, r#""unixDomainSocketPath": "u""#), "", &[]);
    let path = home.write("u", "precious");
    let server = home.serve_unready();
    server.wait_for("u exists and is not a socket");
    assert_eq!(fs::read_to_string(&path).expect("the file"), "precious");
}

#[test]
fn a_program_that_does_not_listen_in_time_is_started_again() {
    let arguments = r#""unix=u", "begin=[[\"exit_unless\",\"there\",5]]""#;
    let (server, mut alice) = serve(arguments, r#""unixDomainSocketPath": "u", "connection": "persistent", "timeoutSeconds": 1"#);
    server.wait_for_times("exited with status 5", 2);
    server.home.write("there", "");
    alice.sends_message("x", r#"[["reply","up"]]"#, "m");
    assert_eq!(delivery(&mut alice), "up");
    good(&mut alice, "m");
    drop(server);

    let (server, _) =
        serve(r#""unix=u", "begin=[[\"pause\"]]""#, r#""unixDomainSocketPath": "u", "connection": "persistent", "timeoutSeconds": 1"#);
    server.wait_for("handler x did not listen at its socket within 1 s");
    server.wait_for_times("handler x started", 2);
    let log = server.log();
    let waited = times(&log, "did not listen")[0] - times(&log, "handler x started")[0];
    assert!((0.9..5.0).contains(&waited), "{waited} s");
}

#[test]
fn the_first_dialect_of_answers_is_understood() {
    let server = Home::new(&entry("x", r#""unix=u""#, r#""unixDomainSocketPath": "u""#), "", &["alice", "bob"]).serve();
    let (mut alice, mut bob) = (server.log_in("alice"), server.log_in("bob"));
    let says = |alice: &mut Client, text: &str| alice.sends_message("x", &serde_json::json!([["say", text]]).to_string(), "lol");
    says(&mut alice, r#"{"header":{"status":"0","command":{"type":"sendClients","data":["bob","alice"]}},"data":{"text" : 1.0}}"#);
    assert!(bob.gets().contains(r#""payload":{"data":{"text" : 1.0},"type":"x"}"#));
    assert!(alice.gets().contains(r#""payload":{"data":{"text" : 1.0},"type":"x","id":"lol"}"#));
    assert_eq!(good(&mut alice, "lol")["delivered"], 2);
    says(&mut alice, r#"{"header":{"status":"0","command":{"type":"sendServers","data":["b.example"]}},"data":1}"#);
    bad(&mut alice, "lol", "peerUnknown");
    says(&mut alice, r#"{"header":{"status":"1"},"data":"no"}"#);
    let refusal = alice.gets_json();
    assert_eq!(refusal["header"]["reason"], "handlerRefused");
    assert_eq!(refusal["payload"]["data"]["status"], "1");
    assert_eq!(refusal["payload"]["data"]["data"], "no");
    bob.got_nothing();
}

#[test]
fn a_program_that_fails_each_message_does_not_fill_the_log() {
    let home = Home::new(r#""x": { "unixDomainSocketPath": "u" },"#, "", &["alice"]);
    let listener = UnixListener::bind(home.path().join("u")).expect("a socket");
    let server = home.serve();
    let mut alice = server.log_in("alice");
    let began = Instant::now();
    for _ in 0..2000 {
        alice.sends_message("x", "1", "m");
        drop(listener.accept().expect("a connection"));
        bad(&mut alice, "m", "handlerCrashed");
    }
    let lines = server.log().matches("WARN  handler: handler x ").count();
    // A hundred a second, and in each how many more there were; of 2,000 that is few, unless the machine is slow just now.
    let lines_max = 101 * (began.elapsed().as_secs() as usize + 2);
    assert!((1..=lines_max).contains(&lines), "{lines} lines, {lines_max} at most");
}
