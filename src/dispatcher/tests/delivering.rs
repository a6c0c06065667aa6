//! Who gets what, and what the sender is told of it.

use super::*;
use std::ptr;

#[test]
fn a_report_comes_after_what_the_message_delivered_to_its_own_sender() {
    let mut world = World::new();
    world.alice().asks("chat", r#""hi""#, "c-1");
    world.alice().gets(&[]);
    world.handler("chat").answers(&to(&["alice", "bob"], r#""hello""#));
    world.alice().gets(&[r#"chat "hello" #c-1"#, "good 2/0/0 #c-1"]);
    world.bob().gets(&[r#"chat "hello""#]);
    world.eve().gets(&[]);
    assert_eq!(world.alice().settled(), [4], "its bytes are given back once");
}

#[test]
fn without_an_id_there_is_a_report_only_on_a_failure() {
    let mut world = World::new();
    world.alice().sends("chat", "1");
    world.handler("chat").answers(&to(&["alice"], "1"));
    world.alice().gets(&["chat 1"]);
    world.alice().sends("chat", "2");
    world.handler("chat").answers(&to(&["nobody"], "2"));
    world.alice().gets(&["bad undelivered 0/0/1"]);
    assert_eq!(world.alice().settled(), [1, 1]);
}

#[test]
fn ids_and_data_go_out_byte_for_byte() {
    let mut world = World::new();
    let (id, data) = (r#""\u00e4\/""#, r#"{"b" : 1.0,"a":1e999,"a":12345678901234567890123456789012345678901}"#);
    world.alice().message("chat", data, Some(id));
    assert_eq!(world.handler("chat").asked(), [data]);
    world.handler("chat").answers(&reply(data));
    let frames = world.alice().frames();
    assert!(frames[0].contains(&format!(r#""payload":{{"data":{data},"type":"chat","id":{id}}}"#)), "{}", frames[0]);
    assert!(frames[1].ends_with(&format!(r#","type":"chat","id":{id}}}}}"#)), "{}", frames[1]);
}

#[test]
fn all_sessions_get_it_but_the_id_is_for_the_one_that_asked() {
    let mut world = World::new();
    let second = world.session("alice");
    world.on(second).asks("chat", "1", "x");
    world.handler("chat").answers(&to(&["alice"], "1"));
    world.alice().gets(&["chat 1"]);
    world.on(second).gets(&["chat 1 #x", "good 1/0/0 #x"]);
}

#[test]
fn a_name_that_stands_twice_counts_once() {
    let mut world = World::new();
    world.alice().asks("chat", "1", "x");
    world.handler("chat").answers(&to(&["bob", "carol", "ghost", "bob", "ghost", "carol"], "1"));
    world.bob().gets(&["chat 1"]);
    world.alice().gets(&["bad undelivered 1/1/1 #x"]);
}

#[test]
fn the_same_names_count_again_in_the_next_answer() {
    let mut world = World::new();
    for _ in 0..2 {
        world.alice().asks("chat", "1", "x");
        world.handler("chat").answers(&to(&["bob"], "1"));
        world.alice().gets(&["good 1/0/0 #x"]);
        world.bob().gets(&["chat 1"]);
    }
}

#[test]
fn who_is_away_makes_a_report_bad_when_nobody_was_reached() {
    let mut world = World::new();
    world.alice().asks("chat", "1", "x");
    world.handler("chat").answers(&to(&["carol"], "1"));
    world.alice().gets(&["bad undelivered temporary 0/1/0 #x"]);
    world.alice().asks("chat", "1", "y");
    world.handler("chat").answers(&to(&["carol", "bob"], "1"));
    world.alice().gets(&["good 1/1/0 #y"]);
}

#[test]
fn reply_reaches_the_connection_that_asked_and_no_other() {
    let mut world = World::new();
    let second = world.session("alice");
    world.alice().asks("chat", "1", "x");
    world.handler("chat").answers(&reply("2"));
    world.alice().gets(&["chat 2 #x", "good 1/0/0 #x"]);
    world.on(second).gets(&[]);
}

#[test]
fn a_reply_to_a_connection_that_is_gone_is_nobodys() {
    let mut world = World::new();
    let second = world.session("alice");
    world.on(second).asks("chat", "1", "x");
    world.on(second).disconnects();
    world.handler("chat").answers(&several(&[("reply", "null"), ("sendClients", r#"["bob"]"#)], "1"));
    world.alice().gets(&[]);
    world.bob().gets(&["chat 1"]);
}

#[test]
fn nothing_to_do_is_good_with_zeros() {
    let mut world = World::new();
    for answer in [none(), to(&[], "1"), one("sendServers", "[]", "1"), several(&[], "1")] {
        world.alice().asks("chat", "1", "x");
        world.handler("chat").answers(&answer);
        world.alice().gets(&["good 0/0/0 #x"]);
    }
}

#[test]
fn servers_are_no_peers() {
    let mut world = World::new();
    world.alice().asks("chat", "1", "x");
    world.handler("chat").answers(&one("sendServers", r#"["b.example","c.example","b.example"]"#, "1"));
    world.alice().gets(&["bad peerUnknown 0/0/2 #x"]);
    world.alice().asks("chat", "1", "x");
    let commands = [("sendServers", r#"["b.example"]"#), ("sendClients", r#"["bob","ghost"]"#)];
    world.handler("chat").answers(&several(&commands, "1"));
    world.alice().gets(&["bad undelivered 1/0/2 #x"]);
    world.bob().gets(&["chat 1"]);
}

#[test]
fn several_commands_are_all_carried_out_and_counted_together() {
    let mut world = World::new();
    world.alice().asks("chat", "1", "x");
    let commands = [("reply", "null"), ("sendClients", r#"["bob","carol"]"#), ("sendHandler", r#""many""#), ("none", "null")];
    world.handler("chat").answers(&several(&commands, "2"));
    world.alice().gets(&["chat 2 #x"]);
    world.bob().gets(&["chat 2"]);
    assert_eq!(world.handler("many").asked(), ["2"]);
    world.handler("many").answers(&to(&["eve"], "3"));
    world.eve().gets(&["many 3"]);
    world.alice().gets(&["good 3/1/0 #x"]);
}

#[test]
fn all_commands_are_checked_before_any_is_carried_out() {
    let mut world = World::new();
    let to_bob = ("sendClients", r#"["bob"]"#);
    for wrong in [("sendHandler", r#""nothing""#), ("sendclients", r#"["bob"]"#), ("sendClients", "null")] {
        world.alice().asks("chat", "1", "x");
        world.handler("chat").answers(&several(&[to_bob, wrong], "1"));
        world.alice().gets(&["bad handlerProtocol #x"]);
        world.bob().gets(&[]);
    }
    assert_eq!(world.handler("chat").replaced(), [""; 0], "a sound frame costs its own request only");
}

#[test]
fn four_handlers_may_pass_a_message_on_and_the_fifth_may_not() {
    let mut world = World::new();
    world.alice().asks("chat", "0", "x");
    for data in ["1", "2", "3", "4"] {
        world.handler("chat").answers(&pass_on("chat", data));
        assert_eq!(world.handler("chat").asked(), [data]);
    }
    world.handler("chat").answers(&several(&[("sendClients", r#"["bob"]"#), ("sendHandler", r#""many""#)], "5"));
    world.alice().gets(&["bad loop #x"]);
    world.bob().gets(&[]);
    assert_eq!(world.handler("many").asked(), [""; 0]);
}

#[test]
fn what_was_passed_on_is_delivered_under_the_last_type_and_the_first_message_id() {
    let mut world = World::new();
    world.alice().asks("chat", "1", "x");
    world.handler("chat").answers(&pass_on("room", "2"));
    world.handler("room").answers(&reply("3"));
    let frames = world.alice().frames();
    assert!(frames[0].contains(r#""type":"room""#) && frames[1].contains(r#""type":"chat""#), "{frames:?}");
    let id = |frame: &str, path: &str| serde_json::from_str::<Value>(frame).expect("JSON").pointer(path).cloned();
    assert_eq!(id(&frames[0], "/header/messageId"), id(&frames[1], "/payload/data/messageId"));
    assert!(frames[0].contains(r#""messageId":"a.example/0000000000000000000000000000005f-"#));
}

#[test]
fn an_unknown_type_is_told_to_its_sender() {
    let mut world = World::new();
    world.alice().asks("nothing", "1", "x");
    world.alice().sends("nothing", "12");
    world.alice().gets(&["bad unknownType #x", "bad unknownType"]);
    assert_eq!(world.alice().settled(), [1, 2]);
}

#[test]
fn a_type_that_is_too_long_is_not_repeated() {
    let mut world = World::new();
    world.alice().asks(&"x".repeat(100_000), "1", "x");
    let frames = world.alice().frames();
    assert!(frames[0].contains(r#""reason":"unknownType""#) && frames[0].contains(r#""type":"builtin""#) && frames[0].len() < 1000);
}

#[test]
fn a_refusal_has_the_handlers_own_words() {
    let mut world = World::new();
    world.alice().asks("chat", "1", "x");
    world.handler("chat").answers(r#"{"header":{"status":{"no":1.0}},"payload":{"data":["why"]}}"#);
    let frames = world.alice().frames();
    assert_eq!(frames.iter().map(|frame| short(frame)).collect::<Vec<_>>(), ["bad handlerRefused #x"]);
    assert!(frames[0].contains(r#""status":{"no":1.0},"data":["why"]}"#), "{}", frames[0]);
}

#[test]
fn what_went_wrong_first_is_reported_when_all_is_done() {
    let mut world = World::new();
    world.alice().asks("chat", "1", "x");
    world.handler("chat").answers(&several(&[("sendHandler", r#""many""#), ("sendHandler", r#""room""#)], "2"));
    world.handler("many").answers(r#"{"header":{"status":"1"}}"#);
    world.alice().gets(&[]);
    world.handler("room").answers(r#"{"header":{"status":"0"}}"#);
    world.alice().gets(&["bad handlerRefused #x"]);
    assert_eq!(world.alice().settled(), [1]);
}

#[test]
fn passing_on_into_a_full_queue_is_busy_and_the_rest_is_done() {
    let mut world = World::new();
    for _ in 0..1 + QUEUE {
        world.eve().sends("chat", "0");
    }
    world.alice().asks("many", "1", "x");
    world.handler("many").answers(&several(&[("sendHandler", r#""chat""#), ("sendClients", r#"["bob"]"#)], "1"));
    world.bob().gets(&["many 1"]);
    world.alice().gets(&["bad busy temporary #x"]);
}

#[test]
fn commands_may_have_payloads_of_their_own() {
    let mut world = World::new();
    world.alice().asks("chat", "1", "x");
    let own = r#"{"command":"sendClients","commandData":["bob","alice"],"payload":{"data":3}}"#;
    let common = r#"{"command":"sendClients","commandData":["alice","bob"]}"#;
    world
        .handler("chat")
        .answers(&format!(r#"{{"header":{{"status":"0","commands":[{common},{own},{common},{own}]}},"payload":{{"data":2}}}}"#));
    world.bob().gets(&["chat 2", "chat 3", "chat 2", "chat 3"]);
    world.alice().gets(&["chat 2 #x", "chat 3 #x", "chat 2 #x", "chat 3 #x", "good 2/0/0 #x"]);
}

#[test]
fn one_payload_for_many_commands_is_encoded_once() {
    let mut world = World::new();
    world.alice().asks("chat", "1", "x");
    let commands = [("sendClients", r#"["bob"]"#), ("sendClients", r#"["eve","bob"]"#), ("reply", "null"), ("sendClients", r#"["alice"]"#)];
    world.effects.clear();
    world.handler("chat").answers(&several(&commands, "2"));
    let bodies = |world: &World, conn: u64| {
        let sent = |effect: &Effect| match effect {
            Effect::Send(to, packet) if *to == ConnId(conn) && packet.body().ends_with(b"}}") => Some(packet.parts()[1].as_ptr()),
            _ => None,
        };
        world.effects.iter().filter_map(sent).collect::<Vec<_>>()
    };
    let (bob, eve, alice) = (bodies(&world, 2), bodies(&world, 3), bodies(&world, 1));
    assert_eq!((bob.len(), eve.len(), alice.len()), (2, 1, 3));
    assert!(ptr::eq(bob[0], bob[1]) && ptr::eq(bob[0], eve[0]), "without an id");
    assert!(ptr::eq(alice[0], alice[1]), "with the id of the sender");
    world.alice().gets(&["chat 2 #x", "chat 2 #x", "good 3/0/0 #x"]);
}
