//! A handler may ask the server out of band, on a socket of its own.

use crate::fault::{PROGRAM, entry};
use crate::world::{Client, Home, Server};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// alice twice and bob, of three users.
fn people() -> (Server, [Client; 3]) {
    let server =
        Home::new(&entry("x", "", ""), r#""admin": { "info": { "mail": "root@a.example" } },"#, &["alice", "bob", "carol"]).serve();
    let clients = ["alice", "alice", "bob"].map(|user| server.log_in(user));
    (server, clients)
}

fn informer(server: &Server) -> Client {
    server.connect_unix_at("state/informer-x.sock")
}

#[track_caller]
fn asks(client: &mut Client, command: &Value) -> Value {
    client.sends(&json!({ "command": command }).to_string());
    let mut answer = client.gets_json();
    assert_eq!(answer["status"], "0", "{command}: {answer}");
    answer["data"].take()
}

#[test]
fn who_is_there_is_told() {
    let (server, clients) = people();
    let mut informer = informer(&server);
    let mut names = asks(&mut informer, &json!({ "type": "listClients" }));
    names.as_array_mut().expect("an array").sort_by_key(Value::to_string);
    assert_eq!(names, json!(["alice", "bob"]));
    for (name, there) in [("alice", true), ("bob", true), ("carol", false), ("nobody", false), ("Alice", false)] {
        assert_eq!(asks(&mut informer, &json!({ "type": "isClient", "data": name })), there, "{name}");
    }
    let sessions = asks(&mut informer, &json!({ "type": "sessions" }));
    let users: Vec<&Value> = sessions.as_array().expect("an array").iter().map(|session| &session["user"]).collect();
    assert_eq!(users, ["alice", "alice", "bob"]);
    assert!(sessions[0]["session"].as_u64() < sessions[1]["session"].as_u64(), "{sessions}");
    let info = asks(&mut informer, &json!({ "type": "serverInfo" }));
    assert_eq!(info["clientCount"], "3");
    assert_eq!(info["adminInfo"], json!({ "mail": "root@a.example" }));
    let listeners = info["listeners"].as_object().expect("an object");
    assert_eq!(listeners.len(), 3);
    assert_eq!(listeners["listener0"]["address"], format!("tcp4://{}", server.tcp4.expect("an address")));
    // Those who go are missed.
    let [mut alice, again, bob] = clients;
    drop((again, bob));
    crate::fault::until("only one session", || (asks(&mut informer, &json!({ "type": "serverInfo" }))["clientCount"] == "1").then_some(()));
    assert_eq!(asks(&mut informer, &json!({ "type": "listClients" })), json!(["alice"]));
    assert_eq!(asks(&mut informer, &json!({ "type": "isClient", "data": "bob" })), false);
    alice.got_nothing();
}

#[test]
fn a_question_that_cannot_be_answered_ends_nothing() {
    let (server, _clients) = people();
    let mut informer = informer(&server);
    for (command, words) in [
        (json!({ "type": "listclients" }), "there is no such command"),
        (json!({ "type": "isClient" }), "command.data is missing"),
        (json!({ "type": "isClient", "data": ["alice"] }), "command.data is not a string"),
    ] {
        informer.sends(&json!({ "command": command }).to_string());
        let answer = informer.gets_json();
        assert_eq!(answer["status"], "1", "{answer}");
        assert_eq!(answer["data"], Value::Null);
        assert!(answer["message"].as_str().is_some_and(|message| message.contains(words)), "{answer}");
        assert_eq!(asks(&mut informer, &json!({ "type": "isClient", "data": "bob" })), true);
    }
    // Several at once are answered in their order.
    let questions: Vec<u8> = ["alice", "carol", "bob"]
        .iter()
        .flat_map(|name| crate::world::frame(json!({ "command": { "type": "isClient", "data": name } }).to_string().as_bytes()))
        .collect();
    informer.sends_bytes(&questions);
    for there in [true, false, true] {
        assert_eq!(informer.gets_json()["data"], there);
    }
}

#[test]
fn a_bad_frame_ends_its_own_connection_only() {
    let (server, [mut alice, ..]) = people();
    let mut other = informer(&server);
    for (bytes, answered) in [
        (crate::world::frame(b"nonsense"), true),
        (crate::world::frame(b""), true),
        (crate::world::frame(b"{}"), true),
        (crate::world::frame(br#"{"command":{}}"#), true),
        (crate::world::frame(br#"{"command":{"type":7}}"#), true),
        (crate::world::frame(br#"{"command":{"type":"listClients","type":"quit"}}"#), true),
        (b"\xff\xff\xff\x7f{}".to_vec(), false),
        (b"GET / HTTP/1.0\r\n\r\n".to_vec(), false),
    ] {
        let mut informer = informer(&server);
        informer.sends(r#"{"command":{"type":"isClient","data":"alice"}}"#);
        informer.sends_bytes(&bytes);
        assert_eq!(informer.gets_json()["data"], true);
        if answered {
            let answer = informer.gets_json();
            assert_eq!(answer["status"], "1", "{answer}");
            assert_eq!(answer["data"], Value::Null);
        }
        informer.is_closed();
        assert_eq!(asks(&mut other, &json!({ "type": "isClient", "data": "alice" })), true);
    }
    crate::fault::works(&mut alice, "x");
}

#[test]
fn quit_is_answered_and_ends_the_connection() {
    let (server, _clients) = people();
    let mut first = informer(&server);
    let mut second = informer(&server);
    assert_eq!(asks(&mut first, &json!({ "type": "quit" })), Value::Null);
    first.is_closed();
    assert_eq!(asks(&mut second, &json!({ "type": "isClient", "data": "bob" })), true);
    // Whoever has asked everything may close his side first.
    second.sends(r#"{"command":{"type":"isClient","data":"bob"}}"#);
    second.ends_input();
    assert_eq!(second.gets_json()["data"], true);
    second.is_closed();
}

#[test]
fn too_many_connections_are_refused_and_the_log_is_not_filled_with_it() {
    let (server, _clients) = people();
    let mut open: Vec<Client> = (0..32).map(|_| informer(&server)).collect();
    assert_eq!(asks(&mut open[31], &json!({ "type": "isClient", "data": "bob" })), true);
    let count = 2000;
    for _ in 0..count {
        informer(&server).is_closed();
    }
    server.wait_for("connections to its informer already");
    let lines = server.log().matches("connections to its informer already").count();
    assert!((1..count / 2).contains(&lines), "{lines} lines");
    assert_eq!(asks(&mut open[0], &json!({ "type": "isClient", "data": "bob" })), true);
}

#[test]
fn an_informer_lies_where_it_is_configured_and_is_private() {
    let entries = format!(
        r#""x": {{ "handlerBinary": "{PROGRAM}", "informerSocketPath": "asks/here" }}, "a:b": {{ "handlerBinary": "{PROGRAM}" }},
           "gone": {{ "unixDomainSocketPath": "u" }},"#
    );
    let home = Home::new(&entries, "", &["alice"]);
    fs::create_dir(home.path().join("asks")).expect("a directory");
    let server = home.serve();
    let mut alice = server.log_in("alice");
    for (kind, path) in [("x", "asks/here"), ("a:b", "state/informer-a%3Ab.sock"), ("", "state/informer-gone.sock")] {
        let mode = fs::metadata(server.home.path().join(path)).expect("the socket").permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{path}");
        let mut informer = server.connect_unix_at(path);
        assert_eq!(asks(&mut informer, &json!({ "type": "listClients" })), json!(["alice"]));
        if !kind.is_empty() {
            let look = crate::fault::asks(&mut alice, kind, r#"[["look"]]"#);
            let told = fs::canonicalize(look["environment"]["BESTER_INFORMER"].as_str().expect("a path")).expect("the socket");
            assert_eq!(told, fs::canonicalize(server.home.path().join(path)).expect("the socket"));
        }
    }
    let home = server.stop();
    for path in ["asks/here", "state/informer-a%3Ab.sock", "state/informer-gone.sock"] {
        assert!(!home.path().join(path).exists(), "{path} was left behind");
    }
}

#[test]
fn who_comes_and_goes_is_told_to_those_who_watch() {
    let (server, [alice, again, _bob]) = people();
    let mut watcher = informer(&server);
    assert_eq!(asks(&mut watcher, &json!({ "type": "watchClients" })), json!(["alice", "bob"]));
    let mut other = informer(&server);
    let carol = server.log_in("carol");
    let event = |kind: &str, user: &str| json!({ "event": { "type": kind, "user": user } });
    assert_eq!(watcher.gets_json(), event("online", "carol"));
    drop(carol);
    assert_eq!(watcher.gets_json(), event("offline", "carol"));
    // One session of two is nothing to tell.
    drop(again);
    crate::fault::until("one session less", || (asks(&mut other, &json!({ "type": "serverInfo" }))["clientCount"] == "2").then_some(()));
    assert_eq!(asks(&mut watcher, &json!({ "type": "isClient", "data": "alice" })), true);
    drop(alice);
    assert_eq!(watcher.gets_json(), event("offline", "alice"));
    // Who does not watch is told nothing.
    assert_eq!(asks(&mut other, &json!({ "type": "listClients" })), json!(["bob"]));
}
