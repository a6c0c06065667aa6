//! The configurations that come with the program serve as they are.

use crate::world::{Client, Home, Server};
use std::fs;
use std::path::Path;
use std::process::Command;

const PROJECT: &str = env!("CARGO_MANIFEST_DIR");

/// Replaces each of `from`, of which there is at least one.
#[track_caller]
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "no {from:?} in:\n{text}");
    text.replace(from, to)
}

fn copy_handlers(to: &Path) {
    let copied = Command::new("cp").args(["-r", &format!("{PROJECT}/handlers")]).arg(to).status();
    assert!(copied.expect("cp runs").success());
}

/// Each of the sample handlers answers.
fn all_answer(client: &mut Client) {
    for (kind, data, answer) in [
        ("echo", "[1.0]", r#""data":[1.0]"#),
        ("count", "null", r#""count":1"#),
        ("chat", r#"{"join":"attic"}"#, "attic"),
        ("mail", r#"{"to":["alice"],"text":"hello"}"#, r#""from":"alice""#),
        ("presence", r#"{"who":true}"#, "alice"),
    ] {
        client.sends_message(kind, data, "m");
        let delivery = client.gets();
        assert!(delivery.contains("receivedMessage") && delivery.contains(answer), "{delivery}");
        let report = client.gets();
        assert!(report.contains(r#""delivered":1"#), "{report}");
    }
}

fn logs_in(client: &mut Client, user: &str, password: &str) {
    client.sends(&crate::world::login(user, password));
    let report = client.gets();
    assert!(report.contains(r#""status":"good""#), "{report}");
}

#[test]
fn the_example_runs_as_it_is() {
    let home = Home::empty();
    copy_handlers(home.path());
    let example = fs::read_to_string(format!("{PROJECT}/bester.conf.example")).expect("the example");
    // Only the ports are others: those in it may be taken on this machine.
    let example = replaced(&example, r#""port": 2224"#, r#""port": 0"#);
    home.write("bester.conf", &replaced(&example, r#""port": 2223"#, r#""port": 0"#));
    let checked = home.bester(&["check"]).good();
    assert!(!checked.stdout.contains("the default is"), "the example says that it shows defaults: {}", checked.stdout);
    home.bester_with_input(&["user", "add", "alice"], "correct horse").good();
    let server = home.serve();
    let socket = server.home.path().join("bester-state/bester.sock");
    for mut client in [server.connect(), server.connect_tcp6(), Client::unix(&socket)] {
        logs_in(&mut client, "alice", "correct horse");
        client.sends_message("echo", "1", "m");
        assert!(client.gets().contains("receivedMessage"));
        client.gets();
    }
    let mut client = server.connect();
    logs_in(&mut client, "alice", "correct horse");
    all_answer(&mut client);
    server.stop();
}

#[test]
fn the_example_is_what_the_program_prints() {
    let home = Home::empty();
    let printed = home.bester(&["config", "default"]).good().stdout;
    assert_eq!(printed, fs::read_to_string(format!("{PROJECT}/bester.conf.example")).expect("the example"));
}

/// Serves a directory that `bester init` wrote.
fn serve_initial(home: Home) -> Server {
    let text = fs::read_to_string(home.path().join("bester.conf")).expect("the configuration");
    let text = replaced(&text, r#""port": 2224"#, r#""port": 0"#);
    home.write("bester.conf", &replaced(&text, r#""port": 2223"#, r#""port": 0"#));
    home.serve()
}

#[test]
fn an_initial_directory_serves() {
    let home = Home::empty();
    let done = home.bester_with_input(&["init", ".", "--user", "alice"], "correct horse\n").good();
    assert!(done.stderr.contains("bester serve"), "{done:?}");
    let checked = home.bester(&["check"]).good();
    assert!(checked.stdout.contains("2223"), "{checked:?}");
    let server = serve_initial(home);
    let mut client = server.connect();
    logs_in(&mut client, "alice", "correct horse");
    all_answer(&mut client);
    let mut client = server.connect_unix();
    logs_in(&mut client, "alice", "correct horse");
    let home = server.stop();
    // A second time would overwrite something.
    let again = home.bester(&["init", "."]);
    assert_eq!(again.code, Some(73), "{again:?}");
}

#[test]
fn an_initial_directory_needs_no_user() {
    let home = Home::empty();
    let done = home.bester(&["init", "."]).good();
    assert!(done.stderr.contains("bester user add NAME"), "{done:?}");
    home.bester_with_input(&["user", "add", "bob"], "battery staple").good();
    let server = serve_initial(home);
    logs_in(&mut server.connect(), "bob", "battery staple");
    server.stop();
    // A bad name or password leaves nothing.
    let home = Home::empty();
    for (name, password) in [("Alice", "correct horse"), ("alice", "short"), ("alice", "")] {
        let failed = home.bester_with_input(&["init", "new", "--user", name], password);
        assert_eq!(failed.code, Some(65), "{failed:?}");
    }
    assert!(!home.path().join("new").exists());
}

/// A configuration and a handler as they were written for besterd, the first server of this protocol.
const BESTERD: &str = r#"{
    "network" : {
        "types" : ["unix", "tcp4", "tcp6"],
        "unix" : {"address" : "besterUnix"},
        "tcp4" : {"port" : "0", "address" : "127.0.0.1"},
        "tcp6" : {"port" : "0", "address" : "::1"}
    },
    "handlers" : {
        "availableTypes" : ["type1", "type2"],
        "typeMap" : {
            "type1" : {"handlerBinary" : "./testing/one.py", "unixDomainSocketPath" : "aSock"},
            "type2" : {"handlerBinary" : "none", "unixDomainSocketPath" : "bSock"},
            "type3" : {"handlerBinary" : "none", "unixDomainSocketPath" : "cSock"}
        }
    },
    "database" : {"type" : "redis", "redis" : {"address" : "127.0.0.1", "port" : "6379"}},
    "admin" : {"info" : {"contact" : "somebody"}}
}"#;

/// One connection a message; the command is an object, and the body stands beside the header.
const BESTERD_HANDLER: &str = r#"#!/usr/bin/env python3
import json, os, socket, struct
if os.path.exists("aSock"):
    os.remove("aSock")
listener = socket.socket(socket.AF_UNIX)
listener.bind("aSock")
listener.listen()
while True:
    connection, _ = listener.accept()
    stream = connection.makefile("rwb")
    data = json.loads(stream.read(struct.unpack("<I", stream.read(4))[0]))
    answer = {"header": {"status": "0", "command": {"type": "sendClients", "data": data["recipients"]}}, "data": data["message"]}
    text = json.dumps(answer).encode()
    stream.write(struct.pack("<I", len(text)) + text)
    stream.flush()
    connection.close()
"#;

#[test]
fn what_was_written_for_besterd_serves() {
    let home = Home::empty();
    fs::create_dir(home.path().join("testing")).expect("a directory");
    home.program("testing/one.py", BESTERD_HANDLER);
    // There is no Redis here, which it says, and nothing else.
    home.write("bester.conf", BESTERD);
    let checked = home.bester(&["check"]);
    assert_eq!(checked.code, Some(78), "{checked:?}");
    assert_eq!(checked.stderr.lines().count(), 1, "{checked:?}");
    assert!(checked.stderr.contains("database.type") && checked.stderr.contains("Redis"), "{checked:?}");
    let without: Vec<&str> = BESTERD.lines().filter(|line| !line.contains("redis")).collect();
    home.write("bester.conf", &without.join("\n"));
    for user in ["alice", "bob"] {
        home.bester_with_input(&["user", "add", user], "correct horse").good();
    }
    let server = home.serve();
    let mut alice = server.connect();
    let mut bob = Client::unix(&server.home.path().join("besterUnix"));
    logs_in(&mut alice, "alice", "correct horse");
    logs_in(&mut bob, "bob", "correct horse");
    server.wait_for("handler type1 is up");
    for _ in 0..3 {
        alice.sends_message("type1", r#"{"recipients":["bob"],"message":{"hello":1}}"#, "lol");
        let delivery = bob.gets_json();
        assert_eq!(delivery["payload"], serde_json::json!({"data": {"hello": 1}, "type": "type1"}));
        assert_eq!(alice.gets_json()["payload"]["id"], "lol");
    }
    // Nobody runs the one, and the other is not available.
    alice.sends_message("type3", "1", "lol");
    assert_eq!(alice.gets_json()["header"]["reason"], "unknownType");
    server.stop();
}
