//! Which answer belongs to which request, with envelopes and without.

use super::*;

#[test]
fn a_wrong_answer_costs_its_own_request_alone() {
    let mut world = World::new();
    for id in ["x", "y"] {
        world.alice().asks("many", "1", id);
    }
    world.handler("many").answers("[]");
    world.handler("many").answers(&reply("2"));
    world.alice().gets(&["bad handlerProtocol #x", "many 2 #y", "good 1/0/0 #y"]);
    assert_eq!(world.handler("many").replaced(), [""; 0]);
}

#[test]
fn an_answer_that_nobody_asked_for_replaces_a_plain_handler() {
    let mut world = World::new();
    world.handler("chat").pushes(&to(&["bob"], "1"));
    world.bob().gets(&[]);
    assert_eq!(world.handler("chat").replaced(), ["gave an answer that nobody had asked for"]);
    world.alice().sends("chat", "1");
    assert_eq!(world.handler("chat").asked(), [""; 0], "it is down until the next start");
}

#[test]
fn an_envelope_says_who_speaks() {
    let mut world = World::new();
    world.bob().message("room", r#"{"from": "alice"}"#, Some(r#""\u0031""#));
    let asked = world.handler("room").asked();
    let envelope = concat!(
        r#""from":{"scope":"client","user":"bob","server":"a.example","verified":true,"session":2},"hops":0},"#,
        r#""payload":{"type":"room","data":{"from": "alice"},"id":"\u0031"}}"#
    );
    assert!(asked[0].starts_with(r#"{"header":{"messageId":"a.example/"#) && asked[0].ends_with(envelope), "{asked:?}");
}

#[test]
fn answers_to_envelopes_come_in_any_order() {
    let mut world = World::new();
    for data in ["1", "2", "3"] {
        world.alice().asks("room", data, data);
    }
    world.handler("room").answers_nth(2, &reply("3"));
    world.handler("room").answers_nth(0, &reply("1"));
    world.alice().gets(&["room 3 #3", "good 1/0/0 #3", "room 1 #1", "good 1/0/0 #1"]);
    world.handler("room").answers(r#"{"header":{"status":"0"}}"#);
    world.alice().gets(&["bad handlerProtocol #2"]);
}

#[test]
fn an_answer_with_an_id_gets_its_outcome_back() {
    let mut world = World::new();
    let with_id = |answer: &str| answer.replacen("status", r#"id":"a\u002d1","status"#, 1);
    for kind in ["room", "chat", "each"] {
        world.alice().asks(kind, "1", "x");
        world.handler(kind).answers(&with_id(&to(&["alice", "nobody", "carol", "carol"], "2")));
        world.alice().gets(&[&format!("{kind} 2 #x"), "bad undelivered 1/1/1 #x"]);
    }
    let told = world.handler("room").told();
    let names = r#""names":{"offline":["carol"],"refused":[],"unknown":["nobody"]}"#;
    assert!(told[0].contains(names) && told[0].ends_with(r#""type":"room","id":"a\u002d1"}}"#), "{told:?}");
    assert!(!told[0].contains("header\":{\"messageId"), "it cannot be taken for a message");
    for plain in ["chat", "each"] {
        assert_eq!(world.handler(plain).told(), [""; 0], "there it would be taken for a message, or there is nobody to tell");
    }
    for (answer, reason) in [(to(&["bob"], "1").replacen('0', "no", 1), "handlerRefused"), (one("sendBob", "1", "1"), "handlerProtocol")] {
        world.alice().asks("room", "1", "x");
        world.handler("room").answers(&with_id(&answer));
        let told = world.handler("room").told();
        assert!(told.len() == 1 && told[0].contains(reason), "{told:?}");
    }
}

#[test]
fn answers_to_nothing_are_dropped() {
    let mut world = World::new();
    world.alice().asks("room", "1", "x");
    world.handler("room").pushes("[]");
    for id in ["", "a.example/0000000000000000000000000000005f-9999", "b.example/5f-1", "a.example/0000000000000000000000000000005f-"] {
        world.handler("room").pushes(&to(&["bob"], "1").replacen("status", &format!(r#"inReplyTo":"{id}","status"#), 1));
    }
    world.bob().gets(&[]);
    world.alice().gets(&[]);
    assert_eq!(world.handler("room").replaced(), [""; 0]);
    world.handler("room").answers(&reply("1"));
    world.alice().gets(&["room 1 #x", "good 1/0/0 #x"]);
}

#[test]
fn a_second_answer_is_dropped() {
    let mut world = World::new();
    world.alice().asks("room", "1", "x");
    let (.., packet) = world.handlers[2].asked[0].clone();
    world.handler("room").answers(&reply("1"));
    world.alice().gets(&["room 1 #x", "good 1/0/0 #x"]);
    world.handler("room").pushes(&in_reply_to(&packet, &reply("2")));
    world.alice().gets(&[]);
    assert_eq!(world.handler("room").replaced(), [""; 0]);
}

#[test]
fn nobody_answers_what_another_handler_was_asked() {
    let mut world = World::new();
    world.alice().asks("room", "1", "x");
    let (.., packet) = world.handlers[2].asked[0].clone();
    world.handler("hall").pushes(&in_reply_to(&packet, &to(&["bob"], "1")));
    world.bob().gets(&[]);
    world.handler("room").answers(&reply("1"));
    world.alice().gets(&["room 1 #x", "good 1/0/0 #x"]);
}

#[test]
fn a_late_envelope_fails_alone_while_others_are_answered() {
    let mut world = World::new();
    for data in ["1", "2", "3"] {
        world.alice().asks("room", data, data);
    }
    let (.., packet) = world.handlers[2].asked[0].clone();
    world.passes(Duration::from_secs(1));
    world.handler("room").answers_nth(1, &none());
    world.passes(TIMEOUT - Duration::from_secs(2));
    world.alice().asks("room", "4", "4");
    world.alice().gets(&["good 0/0/0 #2"]);
    world.passes(Duration::from_secs(1));
    world.alice().gets(&["bad handlerTimeout temporary #1", "bad handlerTimeout temporary #3"]);
    assert_eq!(world.handler("room").replaced(), [""; 0]);
    world.handler("room").pushes(&in_reply_to(&packet, &to(&["bob"], "1")));
    world.bob().gets(&[]);
    world.handler("room").answers_nth(2, &none());
    world.alice().gets(&["good 0/0/0 #4"]);
}

#[test]
fn what_is_late_makes_room_for_what_waits() {
    let mut world = World::new();
    for data in ["1", "2", "3"] {
        world.alice().sends("room", data);
    }
    world.passes(Duration::from_secs(6));
    world.handler("room").answers_nth(1, &none());
    world.alice().sends("room", "4");
    world.alice().asks("room", "5", "x");
    world.passes(Duration::from_secs(4));
    world.alice().gets(&["bad handlerTimeout temporary", "bad handlerTimeout temporary"]);
    assert_eq!(world.handler("room").asked().len(), 4, "two of them late, and the fourth and fifth message");
}

#[test]
fn a_handler_that_answers_no_envelope_in_time_is_replaced() {
    let mut world = World::new();
    for data in ["1", "2"] {
        world.alice().asks("room", data, data);
        world.passes(Duration::from_secs(1));
    }
    world.passes(TIMEOUT - Duration::from_secs(2));
    world.alice().gets(&["bad handlerTimeout temporary #1", "bad handlerCrashed temporary #2"]);
    assert_eq!(world.handler("room").replaced(), ["did not answer within 10 s"]);
}

#[test]
fn an_answer_from_before_the_asking_is_no_sign_of_life() {
    for before in [Duration::ZERO, Duration::from_secs(60)] {
        let mut world = World::new();
        world.alice().sends("room", "1");
        world.handler("room").answers(&none());
        world.passes(before);
        world.alice().asks("room", "2", "x");
        world.passes(TIMEOUT);
        world.alice().gets(&["bad handlerTimeout temporary #x"]);
        assert_eq!(world.handler("room").replaced(), ["did not answer within 10 s"]);
    }
}

#[test]
fn frames_that_answer_nothing_are_no_sign_of_life() {
    let mut world = World::new();
    world.alice().asks("room", "1", "x");
    for _ in 0..9 {
        world.passes(Duration::from_secs(1));
        let dropped = none().replacen("status", r#"inReplyTo":"a.example/0000000000000000000000000000005f-9","status"#, 1);
        world.handler("room").pushes(&dropped);
    }
    world.passes(Duration::from_secs(1));
    world.alice().gets(&["bad handlerTimeout temporary #x"]);
    assert_eq!(world.handler("room").replaced(), ["did not answer within 10 s"]);
}

#[test]
fn an_envelope_handler_of_one_request_at_a_time_names_it_all_the_same() {
    let mut world = World::new();
    let room = ENDS.iter().position(|(.., name)| *name == "room").expect("the room");
    world.handlers[room].form = Some(Form { in_flight: 1, ..form("room") });
    world.handler("room").comes_up();
    // Something must be answered, or it would be replaced for being late.
    world.alice().asks("room", "0", "0");
    world.passes(Duration::from_secs(9));
    let (.., late) = world.handlers[room].asked[0].clone();
    world.handler("room").answers(&none());
    world.alice().asks("room", "1", "1");
    world.handler("room").pushes(&in_reply_to(&late, &to(&["bob"], "late")));
    world.bob().gets(&[]);
    world.handler("room").answers(&reply("1"));
    world.alice().gets(&["good 0/0/0 #0", "room 1 #1", "good 1/0/0 #1"]);
}
