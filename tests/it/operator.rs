//! Orders of the operator that come at the wrong moment, or cannot be carried out, leave the handlers as they should be.

use crate::fault::{delivery, entry, good};
use crate::world::{BESTER, Home, Server};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A handler that starts up for as long as the file `wait` is there, and does not sleep meanwhile.
const SLOW: &str = r#"#!/usr/bin/env python3
import os, sys, struct
while os.path.exists("wait"):
    pass
while len(length := sys.stdin.buffer.read(4)) == 4:
    data = sys.stdin.buffer.read(struct.unpack("<I", length)[0])
    answer = b'{"header":{"status":"0","command":"reply"},"payload":{"data":' + data + b"}}"
    sys.stdout.buffer.write(struct.pack("<I", len(answer)) + answer)
    sys.stdout.buffer.flush()
"#;

/// The second instance ends at once if the file `fail` is there.
const FRAGILE: &str = r#"#!/bin/sh
[ "$BESTER_INSTANCE" = 1 ] && [ -e fail ] && exit 4
exec cat
"#;

/// Dies of a connection on which nothing comes, as a simple program does.
const SIMPLE: &str = r#"#!/usr/bin/env python3
import os, socket, struct
listener = socket.socket(socket.AF_UNIX)
listener.bind("u")
listener.listen()
while True:
    stream, _ = listener.accept()
    data = stream.recv(struct.unpack("<I", stream.recv(4))[0])
    answer = b'{"header":{"status":"0","command":"reply"},"payload":{"data":' + data + b"}}"
    stream.sendall(struct.pack("<I", len(answer)) + answer)
    stream.close()
"#;

/// Begins a command in the server's directory.
fn begins(server: &Server, args: &[&str]) -> Child {
    let mut command = Command::new(BESTER);
    command.args(args).current_dir(server.home.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("bester runs")
}

/// What a command printed that ended well.
#[track_caller]
fn ends(child: Child) -> String {
    let output = child.wait_with_output().expect("its end");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

fn reload(server: &Server) -> String {
    server.home.bester(&["reload"]).good().stdout
}

/// Has other handlers in the configuration.
fn configure(server: &Server, from: &str, to: &str) {
    let path = server.home.path().join("bester.conf");
    let text = std::fs::read_to_string(&path).expect("the configuration");
    assert!(text.contains(from), "{from} is not in {text}");
    std::fs::write(&path, text.replace(from, to)).expect("the configuration");
}

fn instances(server: &Server) -> Vec<serde_json::Value> {
    let status = server.home.bester(&["status", "--json"]).good().stdout;
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    status["types"]["x"]["instances"].as_array().expect("a list").clone()
}

#[test]
fn a_reload_waits_for_a_replacement_under_way_and_is_not_undone_by_it() {
    let home = Home::new(r#""x": { "handlerBinary": "slow", "instances": 1 }"#, "", &["alice"]);
    home.program("slow", SLOW);
    let server = home.serve();
    server.wait_for("handler x is up");
    server.home.write("wait", "");
    let mut restart = begins(&server, &["handler", "restart", "x"]);
    server.wait_for_times("handler x started", 2);
    configure(&server, r#""instances": 1"#, r#""instances": 2"#);
    let mut reloading = begins(&server, &["reload"]);
    let until = Instant::now() + Duration::from_millis(300);
    while Instant::now() < until && reloading.try_wait().expect("its state").is_none() {
        std::thread::yield_now();
    }
    assert!(restart.try_wait().expect("its state").is_none(), "the new one has not started up");
    std::fs::remove_file(server.home.path().join("wait")).expect("the file");
    ends(restart);
    assert_eq!(ends(reloading), "handlers.typeMap.x: changed\n");
    assert_eq!(reload(&server), "nothing has changed\n");
    assert_eq!(instances(&server).len(), 2);
    server.stop();
}

#[test]
fn a_type_that_is_removed_and_back_at_once_is_not_mixed_up_with_a_replacement_under_way() {
    let home = Home::new(r#""x": { "handlerBinary": "slow" }"#, "", &["alice"]);
    home.program("slow", SLOW);
    let server = home.serve();
    server.wait_for("handler x is up");
    server.home.write("wait", "");
    let restart = begins(&server, &["handler", "restart", "x"]);
    server.wait_for_times("handler x started", 2);
    configure(&server, r#""x": {"#, r#""y": {"#);
    let mut removing = begins(&server, &["reload"]);
    let until = Instant::now() + Duration::from_millis(300);
    while Instant::now() < until && removing.try_wait().expect("its state").is_none() {
        std::thread::yield_now();
    }
    configure(&server, r#""y": {"#, r#""x": {"#);
    let adding = begins(&server, &["reload"]);
    std::fs::remove_file(server.home.path().join("wait")).expect("the file");
    ends(restart);
    ends(removing);
    ends(adding);
    let mut alice = server.log_in("alice");
    alice.sends_message("x", "1", "m");
    assert_eq!(delivery(&mut alice), 1);
    good(&mut alice, "m");
    assert_eq!(instances(&server)[0]["state"], "answering", "the one that is told of is the one that is asked");
    server.stop();
}

#[test]
fn a_program_that_cannot_be_started_leaves_the_informer_where_it_was() {
    let home = Home::new(&entry("x", "", ""), "", &["alice"]);
    home.program("broken", "#!/bin/sh\nexit 3\n");
    let server = home.serve();
    server.wait_for("handler x is up");
    let path = server.home.path().join("bester.conf");
    let before = std::fs::read_to_string(&path).expect("the configuration");
    let handlers = r#""x": { "handlerBinary": "broken", "informerSocketPath": "elsewhere" }"#;
    std::fs::write(&path, before.replace(&entry("x", "", ""), handlers)).expect("the configuration");
    let refused = server.home.bester(&["reload"]);
    assert_eq!(refused.code, Some(69));
    assert!(refused.stderr.contains("exited with status 3; nothing was changed"), "{refused:?}");
    std::fs::write(&path, before).expect("the configuration");
    assert_eq!(reload(&server), "nothing has changed\n");
    UnixStream::connect(server.home.path().join("state/informer-x.sock")).expect("the informer of the old one");
    assert!(!server.home.path().join("elsewhere").exists());
    server.stop();
}

#[test]
fn the_informer_belongs_to_the_user_that_the_handler_has_by_now() {
    let own = rustix::process::geteuid();
    let other = if own.as_raw() == 65534 { 65533 } else { 65534 };
    let home = Home::new(r#""x": { "handlerBinary": "slow", "informerSocketPath": "i/x.sock" }"#, "", &["alice"]);
    home.program("slow", SLOW);
    std::fs::create_dir(home.path().join("i")).expect("a directory");
    for directory in ["", "i"] {
        std::fs::set_permissions(home.path().join(directory), std::fs::Permissions::from_mode(0o755)).expect("permissions");
    }
    let server = home.serve();
    server.wait_for("handler x is up");
    configure(&server, r#""slow","#, &format!(r#""slow", "user": "{other}", "group": "{other}","#));
    let owner = || std::fs::metadata(server.home.path().join("i/x.sock")).expect("a socket").uid();
    if own.is_root() {
        assert_eq!(reload(&server), "handlers.typeMap.x: replaced\n");
        assert_eq!(owner(), other);
    } else {
        // Only root may start programs as another user.
        let refused = server.home.bester(&["reload"]);
        assert!(refused.code == Some(77) && refused.stderr.contains(&other.to_string()), "{refused:?}");
        assert_eq!(owner(), own.as_raw());
    }
    server.stop();
}

#[test]
fn a_replacement_that_fails_halfway_says_so_and_is_undone_by_a_reload() {
    let home = Home::new(r#""x": { "handlerBinary": "fragile", "instances": 2, "arguments": [] }"#, "", &["alice"]);
    home.program("fragile", FRAGILE);
    let server = home.serve();
    server.wait_for("handler x (instance 1) is up");
    server.home.write("fail", "");
    configure(&server, r#""arguments": []"#, r#""arguments": ["new"]"#);
    let refused = server.home.bester(&["reload"]);
    assert!(refused.stderr.contains("status 4; 1 of 2 instances are replaced, the others go on as they were"), "{refused:?}");
    configure(&server, r#""arguments": ["new"]"#, r#""arguments": []"#);
    std::fs::remove_file(server.home.path().join("fail")).expect("the file");
    assert_eq!(reload(&server), "handlers.typeMap.x: started again\n");
    for instance in instances(&server) {
        let arguments = std::fs::read(format!("/proc/{}/cmdline", instance["pid"])).expect("a process");
        assert!(!arguments.ends_with(b"\0new\0"), "{instance}");
    }
    assert_eq!(reload(&server), "nothing has changed\n");
    server.stop();
}

#[test]
fn why_a_new_program_does_not_start_is_told_to_whom_ordered_it() {
    let home = Home::new(r#""x": { "handlerBinary": "fragile" }"#, "", &["alice"]);
    home.program("fragile", FRAGILE);
    let server = home.serve();
    server.wait_for("handler x is up");
    let path = server.home.path().join("fragile");
    for (text, mode, words) in [
        (
            "#!/bin/sh\necho 'no such table' >&2\nexit 3\n",
            0o755,
            "exited with status 3 (it printed last: no such table); nothing was changed",
        ),
        ("", 0o644, "/fragile: it is not executable; run: chmod +x"),
    ] {
        std::fs::write(&path, text).expect("a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("permissions");
        let refused = server.home.bester(&["handler", "restart", "x"]);
        assert!(refused.code == Some(69) && refused.stderr.contains(words), "{words}: {refused:?}");
    }
    server.stop();
}

#[test]
fn a_program_of_somebody_else_that_accepts_nothing_does_not_hold_up_the_end() {
    let home = Home::new(r#""x": { "unixDomainSocketPath": "u", "connection": "persistent", "timeoutSeconds": 3600 }"#, "", &["alice"]);
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("a socket");
    bind(&socket, &SocketAddrUnix::new(home.path().join("u")).expect("a short path")).expect("a free path");
    listen(&socket, 0).expect("a listener");
    // The one place that there is.
    let _waits = UnixStream::connect(home.path().join("u")).expect("a connection");
    home.serve().stop();
}

#[test]
fn one_command_too_many_is_told_so() {
    let server = Home::new(&entry("x", "", ""), "", &["alice"]).serve();
    let socket = server.home.path().join("state/control.sock");
    let idle: Vec<UnixStream> = (0..16).map(|_| UnixStream::connect(&socket).expect("a connection")).collect();
    for _ in 0..5 {
        let refused = server.home.bester(&["status"]);
        assert!(refused.code == Some(69) && refused.stderr.contains("has 16 commands under way"), "{refused:?}");
    }
    drop(idle);
    server.stop();
}

#[test]
fn what_waits_for_its_turn_when_the_server_stops_is_not_told_that_it_was_done() {
    let home = Home::new(r#""x": { "handlerBinary": "slow" }"#, "", &["alice"]);
    home.program("slow", SLOW);
    let server = home.serve();
    server.wait_for("handler x is up");
    server.home.write("wait", "");
    let restarts = [(); 3].map(|()| begins(&server, &["handler", "restart", "x"]));
    server.wait_for_times("handler x started", 2);
    // That all three are heard is not certain, and that the first one is has just been seen.
    let home = server.stop();
    for restart in restarts {
        let output = restart.wait_with_output().expect("its end");
        assert_eq!(output.status.code(), Some(69), "{output:?}");
    }
    drop(home);
}

#[test]
fn a_program_that_bears_no_empty_connection_is_replaced() {
    let home = Home::new(r#""x": { "handlerBinary": "simple", "unixDomainSocketPath": "u" }"#, "", &["alice"]);
    home.program("simple", SIMPLE);
    let server = home.serve();
    let mut alice = server.log_in("alice");
    for turn in 0..3 {
        alice.sends_message("x", &turn.to_string(), "m");
        assert_eq!(delivery(&mut alice), turn);
        good(&mut alice, "m");
        server.home.bester(&["handler", "restart", "x"]).good();
        server.wait_for_times("handler x has ended", turn + 1);
    }
    assert!(!server.log().contains("Traceback"), "{}", server.log());
    let home = server.stop();
    assert!(!home.path().join("u").exists());
}

#[test]
fn replaced_handlers_keep_no_descriptors() {
    let kinds: Vec<String> = (0..8).map(|kind| format!("x{kind}")).collect();
    let entries: String = kinds.iter().map(|kind| entry(kind, "", "")).collect();
    let server = Home::new(&entries, "", &["alice"]).serve();
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("descriptors").count();
    server.wait_for_times("is up", kinds.len());
    let before = descriptors();
    for (done, kind) in kinds.iter().enumerate() {
        server.home.bester(&["handler", "restart", kind]).good();
        server.wait_for_times("has ended", done + 1);
    }
    // The last one may not be looked after yet.
    let deadline = Instant::now() + Duration::from_secs(10);
    while descriptors() > before + 2 {
        assert!(Instant::now() < deadline, "{before} descriptors before, {} now", descriptors());
        std::thread::yield_now();
    }
    server.stop();
}
