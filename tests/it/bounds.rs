//! Every limit holds, and whoever meets one costs nobody else anything.

use crate::world::{Client, Home, PATIENCE, Server, frame, login, sample};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Sends what `data.data` is, or so many `data.bytes`, to the users in `data.to`.
const POST: &str = r#"#!/usr/bin/env python3
import json, struct, sys
while len(length := sys.stdin.buffer.read(4)) == 4:
    data = json.loads(sys.stdin.buffer.read(struct.unpack("<I", length)[0]))
    what = data.get("data", "x" * data.get("bytes", 0))
    answer = json.dumps({"header": {"status": "0", "command": "sendClients", "commandData": data["to"]}, "payload": {"data": what}}).encode()
    sys.stdout.buffer.write(struct.pack("<I", len(answer)) + answer)
    sys.stdout.buffer.flush()
"#;

/// Replies only while there is a file `go`.
const HOLD: &str = r#"#!/usr/bin/env python3
import os, struct, sys, time
while len(length := sys.stdin.buffer.read(4)) == 4:
    sys.stdin.buffer.read(struct.unpack("<I", length)[0])
    while not os.path.exists("go"):
        time.sleep(0.005)
    answer = b'{"header":{"status":"0","command":"reply"},"payload":{"data":"held"}}'
    sys.stdout.buffer.write(struct.pack("<I", len(answer)) + answer)
    sys.stdout.buffer.flush()
"#;

fn home(limits: &str) -> Home {
    let handlers = format!(
        r#"{} "post": {{ "handlerBinary": "post.py" }}, "hold": {{ "handlerBinary": "hold.py", "inFlight": 4096 }},"#,
        sample("echo")
    );
    let home = Home::new(&handlers, &format!(r#""limits": {{ {limits} }},"#), &["alice", "bob", "carol"]);
    home.program("post.py", POST);
    home.program("hold.py", HOLD);
    home
}

fn serve(limits: &str) -> Server {
    home(limits).serve()
}

/// A connection to which bytes are written one after the other, slowly.
fn raw(server: &Server, pace: Duration) -> TcpStream {
    let stream = TcpStream::connect(server.tcp4.expect("an address")).expect("a connection");
    stream.set_nodelay(true).expect("an option");
    stream.set_read_timeout(Some(pace)).expect("a timeout");
    stream
}

/// Writes `bytes` at the stream's pace until the server closes it; gives what the server said.
fn trickle(stream: &mut TcpStream, bytes: impl Iterator<Item = u8>) -> Vec<u8> {
    let mut said = Vec::new();
    let mut buffer = [0; 4096];
    for byte in bytes {
        // Once the server has closed, this may fail, and what it said is still to be read.
        let _ = stream.write_all(&[byte]);
        match stream.read(&mut buffer) {
            Ok(0) => return said,
            Ok(count) => said.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => return said,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the server reads all of it");
}

#[track_caller]
fn took(since: Instant, seconds: f64) {
    let took = since.elapsed().as_secs_f64();
    assert!(took > seconds - 0.1 && took < seconds + 1.0, "{took} s instead of {seconds} s");
}

#[track_caller]
fn expect_busy(client: &mut Client, words: &str) {
    let report = client.gets_json();
    assert_eq!((&report["header"]["reason"], &report["header"]["temporary"]), (&"busy".into(), &true.into()), "{report}");
    assert!(report["payload"]["data"]["message"].as_str().is_some_and(|message| message.contains(words)), "{report}");
}

/// Has `sender` post; gives the report.
#[track_caller]
fn post(sender: &mut Client, data: &str) -> serde_json::Value {
    sender.sends_message("post", data, "post");
    loop {
        let frame = sender.gets_json();
        if frame["header"]["messageType"] == "statusReport" {
            return frame;
        }
    }
}

/// A message through a handler and back takes no time that anybody would notice.
#[track_caller]
fn is_served(client: &mut Client) {
    let asked = Instant::now();
    client.sends_message("echo", "1", "prompt");
    assert!(client.gets().contains("receivedMessage"));
    assert!(client.gets().contains("prompt"));
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
}

/// Tries to connect and log in until it is possible.
#[track_caller]
fn gets_in(server: &Server, user: &str) -> Client {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut client = server.connect();
        client.tries_to_send(&frame(login(user, "password").as_bytes()));
        match client.receives() {
            Some(report) if report.contains("good") => return client,
            _ => assert!(Instant::now() < deadline, "{user} does not get in"),
        }
    }
}

#[test]
fn the_time_for_the_login_counts_from_the_connection_whatever_comes() {
    let server = serve(r#""loginSeconds": 1"#);
    let since = Instant::now();
    for mut silent in [server.connect(), server.connect_tcp6(), server.connect_unix()] {
        let report = silent.gets_json();
        took(since, 1.0);
        assert_eq!(report["header"]["reason"], "authentication");
        assert_eq!((&report["payload"]["type"], &report["payload"]["id"]), (&"builtin".into(), &"auth_special".into()));
        silent.is_closed();
    }
    // Bytes of a frame, a whole one now and then, or of nothing but pings: none of it buys time.
    let ping = frame(br#"{"payload":{"type":"builtin","data":{"command":{"type":"ping"}}}}"#);
    let endless = [&10_000u32.to_le_bytes()[..], &[b' '; 4000]].concat();
    for bytes in [endless, ping.repeat(100)] {
        let mut stream = raw(&server, Duration::from_millis(10));
        let since = Instant::now();
        let said = trickle(&mut stream, bytes.into_iter());
        took(since, 1.0);
        assert!(String::from_utf8_lossy(&said).contains("auth_special"));
    }
    // Who is in may be silent for longer.
    let mut alice = server.log_in("alice");
    let mut silent = server.connect();
    silent.gets();
    alice.got_nothing();
}

#[test]
fn a_frame_that_was_begun_must_come_in_time() {
    let server = serve(r#""frameSeconds": 1, "frameBytesPerSecond": 50000"#);
    for (begin, seconds) in
        [(&b"\x10"[..], 1.0), (&b"\x10\0\0\0"[..], 1.0), (&b"\x10\0\0\0{\"pay"[..], 1.0), (&b"\xa0\x86\x01\0{"[..], 2.0)]
    {
        let mut client = server.log_in("alice");
        let since = Instant::now();
        client.sends_bytes(begin);
        client.is_closed();
        took(since, seconds);
    }
    // One byte after the other helps nobody, while whole frames may come for ever.
    let mut stream = raw(&server, Duration::from_millis(20));
    stream.write_all(&frame(login("alice", "password").as_bytes())).expect("the server reads");
    let since = Instant::now();
    trickle(&mut stream, [&1000u32.to_le_bytes()[..], &[b' '; 996]].concat().into_iter());
    took(since, 1.0);
    let mut client = server.log_in("bob");
    client.set_patience(Duration::from_secs(3));
    let beyond = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < beyond {
        is_served(&mut client);
    }
    server.wait_for_times("limits.frameSeconds", 5);
}

#[test]
fn there_are_only_so_many_connections() {
    let server = serve(r#""connections": 3"#);
    let mut alice = server.log_in("alice");
    let mut stranger = server.connect();
    let mut unix = server.connect_unix();
    // Only who is answered is known to be counted.
    stranger.got_nothing();
    unix.got_nothing();
    for mut refused in [server.connect(), server.connect_tcp6(), server.connect_unix()] {
        let since = Instant::now();
        let report = refused.gets();
        assert_eq!(
            report,
            r#"{"header":{"status":"bad","messageType":"statusReport","reason":"busy","temporary":true},"payload":{"data":{"message":"this server has as many connections as it may (limits.connections)"},"type":"builtin","id":"auth_special"}}"#
        );
        refused.is_closed();
        assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    }
    is_served(&mut alice);
    drop(stranger);
    is_served(&mut gets_in(&server, "bob"));
    unix.got_nothing();
}

#[test]
fn a_user_has_only_so_many_sessions() {
    let server = serve(r#""connectionsPerUser": 2"#);
    let mut alices = [server.log_in("alice"), server.log_in("alice")];
    let mut third = server.connect_unix();
    third.sends(&login("alice", "password"));
    expect_busy(&mut third, "limits.connectionsPerUser");
    third.is_closed();
    // Somebody who is in stays who he is.
    let mut bob = server.log_in("bob");
    let args = r#"{"username":"alice","password":"password"}"#;
    let become_alice = format!(r#"{{"payload":{{"type":"builtin","data":{{"command":{{"type":"login","args":{args}}}}},"id":"l"}}}}"#);
    bob.sends(&become_alice);
    expect_busy(&mut bob, "limits.connectionsPerUser");
    bob.sends(r#"{"payload":{"type":"builtin","data":{"command":{"type":"whoami"}}}}"#);
    assert_eq!(bob.gets_json()["payload"]["data"]["user"], "bob");
    // The same user again on the same connection needs no other place.
    alices[0].sends(&become_alice);
    assert!(alices[0].gets().contains("good"));
    for alice in &mut alices {
        is_served(alice);
    }
    let [first, second] = alices;
    drop(first);
    is_served(&mut gets_in(&server, "alice"));
    drop(second);
}

#[test]
fn a_slow_reader_is_closed_and_nobody_else_waits() {
    for limit in [r#""outgoingBytes": 200000, "outgoingFrames": 1000000"#, r#""outgoingBytes": 1073741824, "outgoingFrames": 2"#] {
        let server = serve(limit);
        let mut alice = server.log_in("alice");
        let mut carol = server.log_in("carol");
        for mut bob in [server.connect(), server.connect_unix()] {
            bob.log_in("bob");
            let mut delivered = 0;
            let report = loop {
                let report = post(&mut alice, r#"{"to":["bob"],"bytes":150000}"#);
                if report["header"]["status"] == "bad" {
                    break report;
                }
                delivered += 1;
                is_served(&mut carol);
                assert!(delivered < 500, "bob is never too slow");
            };
            assert!(delivered > 1, "bob was closed before anything waited for him");
            assert_eq!(report["header"]["reason"], "undelivered", "{report}");
            assert_eq!(report["header"]["temporary"], true, "{report}");
            assert_eq!(report["payload"]["data"]["offline"], 1, "{report}");
            is_served(&mut carol);
            // What reached his socket is there, and then it ends, for he was disconnected.
            assert!(bob.reads_all() < delivered * 150_200);
        }
        server.wait_for_times("closed: it read too slowly", 2);
        server.log_in("bob").got_nothing();
    }
}

#[test]
fn all_slow_readers_together_are_bounded() {
    let limits = r#""outgoingBytes": 1073741824, "outgoingFrames": 1000000, "frameBytesHandler": 1048576, "outgoingBytesTotal": 1048576"#;
    let server = serve(limits);
    let mut alice = server.log_in("alice");
    for _ in 0..3 {
        let mut bob = server.log_in("bob");
        let mut carol = server.connect_unix();
        carol.log_in("carol");
        // As soon as more waits for the two than may, one is closed; the other is, as well, with more.
        let mut left = 2;
        for _ in 0..400 {
            let report = post(&mut alice, r#"{"to":["bob","carol"],"bytes":150000}"#);
            left = report["payload"]["data"]["delivered"].as_u64().expect("a count");
            is_served(&mut alice);
            if left == 0 {
                break;
            }
        }
        assert_eq!(left, 0, "the slow readers are still there");
        bob.reads_all();
        carol.reads_all();
    }
    // Nothing is counted for them any more.
    let mut bob = server.log_in("bob");
    assert_eq!(post(&mut alice, r#"{"to":["bob"],"bytes":900000}"#)["header"]["status"], "good");
    assert!(bob.gets().len() > 900_000);
}

#[test]
fn all_that_comes_in_together_is_bounded() {
    let server = serve(r#""inFlight": 4096, "frameBytes": 65536, "frameBytesServer": 65536, "incomingBytesTotal": 200000"#);
    let mut alice = server.log_in("alice");
    let mut bob = server.log_in("bob");
    bob.set_write_patience(Duration::from_millis(200));
    let message = frame(format!(r#"{{"payload":{{"type":"hold","data":"{}","id":"h"}}}}"#, "x".repeat(60_000)).as_bytes());
    let mut filled = 0;
    let stuck = loop {
        match bob.try_send_some(&message[filled % message.len()..]) {
            Ok(sent) => filled += sent,
            Err(error) => break error,
        }
        assert!(filled < 100 << 20, "the server reads on and on");
    };
    assert!(matches!(stuck.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{stuck}");
    is_served(&mut alice);
    is_served(&mut server.log_in("carol"));
    server.home.write("go", "");
    bob.set_write_patience(PATIENCE);
    let rest = message.len() - filled % message.len();
    bob.sends_bytes(&message[message.len() - rest..]);
    for _ in 0..(filled + rest) / message.len() {
        assert!(bob.gets().contains("held"));
        assert!(bob.gets().contains(r#""status":"good""#));
    }
    bob.got_nothing();
}

#[test]
fn a_handler_names_only_so_many_users() {
    let server = serve(r#""recipients": 3"#);
    let mut alice = server.log_in("alice");
    let mut bob = server.log_in("bob");
    let report = post(&mut alice, r#"{"to":["bob","bob","bob"],"data":"three"}"#);
    assert_eq!(report["payload"]["data"]["delivered"], 1, "{report}");
    assert!(bob.gets().contains("three"));
    let report = post(&mut alice, r#"{"to":["bob","alice","carol","nobody"],"data":"four"}"#);
    assert_eq!(report["header"]["reason"], "handlerProtocol", "{report}");
    bob.got_nothing();
    alice.got_nothing();
    server.wait_for("limits.recipients");
}

#[test]
fn all_who_log_in_at_once_get_in() {
    let home = home(r#""hashingAtOnce": 1, "connectionsPerUser": 40"#);
    // With a hash that costs what real ones do.
    home.bester_with_input(&["user", "add", "dave"], "battery staple").good();
    let server = home.serve();
    let mut alice = server.log_in("alice");
    let mut daves: Vec<Client> = (0..30).map(|_| server.connect()).collect();
    for dave in &mut daves {
        dave.sends(&login("dave", "battery staple"));
    }
    is_served(&mut alice);
    for dave in &mut daves {
        let report = dave.gets();
        assert!(report.contains("good"), "{report}");
    }
    // Those who are told no wait each on his own.
    let since = Instant::now();
    let mut wrong: Vec<Client> = (0..30).map(|_| server.connect()).collect();
    for client in &mut wrong {
        client.sends(&login("alice", "wrong"));
    }
    for client in &mut wrong {
        assert!(client.gets().contains(r#""reason":"authentication""#));
    }
    assert!(since.elapsed() < Duration::from_secs(4), "{:?}", since.elapsed());
}

/// How often the threads of a process have gone to sleep.
fn sleeps(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    let status = |task: fs::DirEntry| fs::read_to_string(task.path().join("status")).unwrap_or_default();
    let count = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        line.trim().parse::<u64>().ok()
    };
    tasks.filter_map(|task| count(status(task.ok()?))).sum()
}

#[test]
fn connections_that_wait_cost_nothing() {
    let server = serve(r#""frameSeconds": 2, "connectionsPerUser": 100"#);
    let message = frame(br#"{"payload":{"type":"echo","data":1,"id":"late"}}"#);
    let mut clients: Vec<Client> = (0..20).map(|_| server.log_in("alice")).collect();
    // Each begins a message, and ends it when it is almost too late.
    let since = Instant::now();
    for client in &mut clients {
        client.sends_bytes(&message[..10]);
    }
    std::thread::sleep(Duration::from_millis(1700).saturating_sub(since.elapsed()));
    for bytes in [&message[10..12], &message[12..]] {
        for client in &mut clients {
            client.sends_bytes(bytes);
        }
        server.connect().got_nothing(); // it has read the first part before it gets the second
    }
    for client in &mut clients {
        assert!(client.gets().contains("receivedMessage"));
        assert!(client.gets().contains("late"));
    }
    // Once more each may wake up, at the time when the message would have been too late.
    std::thread::sleep(Duration::from_millis(2500).saturating_sub(since.elapsed()));
    let before = sleeps(server.pid());
    std::thread::sleep(Duration::from_secs(1));
    let woken = sleeps(server.pid()) - before;
    assert!(woken < 20, "idle connections have been woken {woken} times in a second");
    clients.iter_mut().for_each(Client::got_nothing);
}

/// How long a process has computed, in seconds.
fn computed(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let (_, after_name) = stat.rsplit_once(") ").expect("its name");
    let ticks: u64 = after_name.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
    ticks as f64 / 100.0
}

#[test]
fn without_descriptors_the_server_waits_and_recovers() {
    let server = home(r#""loginSeconds": 60"#).serve_under(&["sh", "-c", "ulimit -n 64; exec \"$@\"", "sh"]);
    let mut alice = server.log_in("alice");
    let mut bob = server.connect_unix();
    bob.log_in("bob");
    is_served(&mut alice); // the handler has its descriptors
    let many: Vec<Client> = (0..100).map(|_| server.connect()).collect();
    server.wait_for("cannot accept");
    is_served(&mut alice);
    is_served(&mut bob);
    let before = computed(server.pid());
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(1) {
        std::thread::sleep(Duration::from_millis(100));
        is_served(&mut alice);
    }
    let busy = computed(server.pid()) - before;
    assert!(busy < 0.4, "the server has computed for {busy} s in a second");
    // Whoever could not be served was told so, or waits.
    let refused = many.into_iter().filter_map(|mut client| client.looks()).inspect(|report| assert!(report.contains("busy"), "{report}"));
    assert!(refused.count() > 0, "nobody was told");
    is_served(&mut gets_in(&server, "carol"));
    is_served(&mut alice);
    is_served(&mut bob);
    server.stop();
}
