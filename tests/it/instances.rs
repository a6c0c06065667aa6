//! Several processes for one type.

use crate::fault::{asks, bad, delivery, entry, fifo, good, meet, works};
use crate::world::{Client, Home, Server};
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn serve(users: &[&str]) -> (Server, Vec<Client>) {
    let server = Home::new(&entry("x", "", r#""instances": 3"#), "", &["alice"]).serve();
    server.wait_for_times("is up", 3);
    let clients = users.iter().map(|user| server.log_in(user)).collect();
    (server, clients)
}

fn instance(client: &mut Client) -> Value {
    asks(client, "x", r#"[["look"]]"#)["environment"]["BESTER_INSTANCE"].take()
}

#[test]
fn each_connection_stays_with_one_and_they_share_the_work() {
    let (_server, mut clients) = serve(&["alice"; 3]);
    let first: Vec<Value> = clients.iter_mut().map(instance).collect();
    let all: BTreeSet<&str> = first.iter().filter_map(Value::as_str).collect();
    assert_eq!(all, BTreeSet::from(["0", "1", "2"]));
    for (client, first) in clients.iter_mut().zip(&first).rev() {
        for _ in 0..3 {
            assert_eq!(instance(client), *first);
        }
    }
}

#[test]
fn the_death_of_one_costs_its_own_requests_only() {
    let (server, mut clients) = serve(&["alice"; 3]);
    let gate = fifo(&server.home, "gate");
    let mut others = clients.split_off(1);
    let lost = instance(&mut clients[0]);
    let kept: Vec<Value> = others.iter_mut().map(instance).collect();
    others[0].sends_message("x", r#"[["meet","gate"],["reply","whole"]]"#, "slow");
    let end = fifo(&server.home, "end");
    clients[0].sends_message("x", r#"[["meet","end"],["exit",7]]"#, "lost");
    clients[0].sends_message("x", r#"[["reply","next"]]"#, "next");
    clients[0].sends_message("builtin", r#"{"command":{"type":"ping"}}"#, "here");
    good(&mut clients[0], "here"); // so the one before waits
    meet(&end);
    assert!(bad(&mut clients[0], "lost", "handlerCrashed").contains("exited with status 7"));
    // What waited for the dead one is asked of another at once: a start would take a second.
    assert_eq!(delivery(&mut clients[0]), "next");
    good(&mut clients[0], "next");
    assert_eq!(server.log().matches("handler x started").count(), 3);
    meet(&gate);
    assert_eq!(delivery(&mut others[0]), "whole");
    good(&mut others[0], "slow");
    assert_eq!(others.iter_mut().map(instance).collect::<Vec<_>>(), kept);
    assert!(kept.contains(&instance(&mut clients[0])));
    server.wait_for_times("handler x started", 4);
    server.wait_for_times("is up", 4);
    // The next connection goes where there is nobody.
    assert_eq!(instance(&mut server.log_in("alice")), lost);
}

#[test]
fn a_queue_is_not_lost_when_all_are_gone() {
    let (server, mut clients) = serve(&["alice"; 3]);
    clients.iter_mut().for_each(|client| works(client, "x"));
    for client in &mut clients {
        client.sends_message("x", r#"[["exit",0]]"#, "lost");
        client.sends_message("x", r#"[["reply","kept"]]"#, "kept");
    }
    for client in &mut clients {
        bad(client, "lost", "handlerCrashed");
        assert_eq!(delivery(client), json!("kept"));
        good(client, "kept");
    }
    server.stop();
}
