//! What handlers say without being asked.

use super::*;
use crate::frame::Frame;
use crate::protocol::handler;

#[test]
fn a_push_is_carried_out_like_an_answer() {
    let mut world = World::new();
    world.alice().asks("room", "1", "x");
    world.handler("room").pushes(&to(&["alice", "bob"], "7"));
    // Nobody asked, so nobody's id stands on it, though alice waits for an answer.
    world.alice().gets(&["room 7"]);
    world.bob().gets(&["room 7"]);
    world.handler("room").answers(&reply("2"));
    world.alice().gets(&["room 2 #x", "good 1/0/0 #x"]);
    assert_eq!(world.handler("room").replaced(), [""; 0]);
}

#[test]
fn its_outcome_is_told_to_who_asks_for_it() {
    let mut world = World::new();
    let push = to(&["alice", "carol", "nobody"], "7").replacen(r#""status""#, r#""id":"p1","status""#, 1);
    world.handler("room").pushes(&push);
    let told = world.handler("room").told();
    assert_eq!(told.len(), 1);
    assert_eq!(short(&told[0]), "bad undelivered 1/1/1 #p1");
    assert!(told[0].contains(r#""names":{"offline":["carol"],"refused":[],"unknown":["nobody"]}"#), "{}", told[0]);
    world.handler("room").pushes(&to(&["alice"], "8"));
    assert_eq!(world.handler("room").told(), [""; 0]);
    world.alice().gets(&["room 7", "room 8"]);
}

#[test]
fn who_was_not_asked_cannot_reply_or_refuse() {
    let mut world = World::new();
    for wrong in [reply("1").replacen(r#""status""#, r#""id":"p","status""#, 1), r#"{"header":{"id":"p","status":"no"}}"#.into()] {
        world.handler("room").pushes(&wrong);
        let told = world.handler("room").told();
        assert_eq!(short(&told[0]), "bad handlerProtocol #p", "{wrong}");
    }
    let both = several(&[("sendClients", r#"["bob"]"#), ("reply", "null")], "1");
    world.handler("room").pushes(&both);
    world.bob().gets(&[]);
    assert_eq!(world.dispatcher.messages.len(), 0);
}

#[test]
fn what_it_hands_on_says_which_handler_spoke() {
    let mut world = World::new();
    world.handler("room").pushes(&pass_on("hall", "3"));
    let asked: Value = serde_json::from_str(&world.handler("hall").asked()[0]).expect("JSON");
    let from = serde_json::json!({"scope": "handler", "type": "room", "server": "a.example", "verified": true});
    assert_eq!(asked["header"]["from"], from);
    world.handler("hall").answers(&to(&["alice"], "4"));
    world.alice().gets(&["hall 4"]);
    world.handler("room").pushes(&pass_on("chat", "5"));
    world.handler("chat").answers(&reply("6"));
    assert_eq!(world.dispatcher.messages.len(), 0, "nobody is there to be told that it was wrong");
}

/// A connection to the informer of the type `room`.
fn informer(world: &mut World) -> ConnId {
    let conn = ConnId(900 + world.connections.len() as u64);
    world.connections.insert(conn, Connection::default());
    conn
}

#[test]
fn a_push_through_the_informer_gets_its_outcome_there() {
    let mut world = World::new();
    let conn = informer(&mut world);
    let mut push = |text: &str| {
        let answer = handler::parse(&Frame::from(text.as_bytes()), 100, 10);
        world.handle(Event::Pushed { conn, route: RouteId(0), answer });
        world.on(conn).frames().remove(0)
    };
    let done = push(&to(&["alice", "carol"], "7"));
    assert!(done.starts_with(r#"{"status":"0","data":{"messageId":"a.example/"#), "{done}");
    let counts =
        r#""delivered":1,"queued":0,"offline":1,"unknown":0,"refused":0,"names":{"offline":["carol"],"refused":[],"unknown":[]}}}"#;
    assert!(done.ends_with(counts), "{done}");
    assert!(push(&reply("1")).starts_with(r#"{"status":"1","data":null,"message":"reply goes to"#));
    assert!(push(r#"{"header":{"status":"0"}}"#).contains("header.command is missing"));
    world.alice().gets(&["chat 7"]);
    assert_eq!(world.on(conn).settled(), [0, 0, 0]);
}

#[test]
fn watchers_are_told_who_comes_and_goes() {
    let mut world = World::new();
    let conn = informer(&mut world);
    let watch = crate::protocol::informer::Question { kind: "watchClients".into(), data: None };
    world.handle(Event::Informed(conn, Asker::Handler, watch));
    assert_eq!(world.on(conn).frames(), [r#"{"status":"0","data":["alice","bob","eve"]}"#]);
    let carol = world.session("carol");
    let again = world.session("carol");
    world.on(carol).disconnects();
    assert_eq!(world.on(conn).frames(), [r#"{"event":{"type":"online","user":"carol"}}"#]);
    world.on(again).disconnects();
    assert_eq!(world.on(conn).frames(), [r#"{"event":{"type":"offline","user":"carol"}}"#]);
    // A changed password ends other sessions, and this one stays.
    world.bob().tells(|conn| Event::PasswordChanged { conn, user: username("bob"), revision: 2, about: about("p") });
    assert_eq!(world.on(conn).frames(), [""; 0], "bob was here all the time");
    world.account("bob", Standing::Removed);
    assert_eq!(world.on(conn).frames(), [r#"{"event":{"type":"offline","user":"bob"}}"#]);
    world.handle(Event::Overflowed(conn));
    assert_eq!(world.on(conn).closed(), Some(CloseReason::TooSlow));
    world.alice().disconnects();
    assert_eq!(world.on(conn).frames(), [""; 0]);
}
