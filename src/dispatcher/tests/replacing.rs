//! A start of a handler takes the place of another without a message being lost; several instances share the work; types
//! come and go with the configuration.

use super::*;

#[test]
fn the_next_start_is_asked_once_the_old_one_has_answered() {
    let mut world = World::new();
    world.alice().asks("chat", "1", "x");
    world.alice().asks("chat", "2", "y");
    world.handler("chat").comes_up();
    assert_eq!(world.handler("chat").asked(), ["1"], "a message must not overtake the one before it");
    assert_eq!(world.handler("chat").retires(), 0, "it has something to answer");
    world.handler("chat").answers(&reply("1"));
    assert_eq!(world.handler("chat").asked(), ["2"]);
    assert_eq!(world.handler("chat").retires(), 1);
    world.handler("chat").answers(&reply("2"));
    world.alice().gets(&["chat 1 #x", "good 1/0/0 #x", "chat 2 #y", "good 1/0/0 #y"]);
}

#[test]
fn a_connection_waits_for_its_own_messages_and_no_other_does() {
    for kind in ["chat", "room", "each"] {
        let mut world = World::new();
        world.alice().asks(kind, "1", "x");
        world.handler(kind).comes_up();
        world.alice().asks(kind, "2", "y");
        world.bob().asks(kind, "3", "z");
        let asked = world.handler(kind).asked();
        assert!(asked.len() == 2 && asked[1].contains('3'), "{kind}: {asked:?}");
        world.handler(kind).answers_nth(1, &reply("3"));
        world.bob().gets(&[&format!("{kind} 3 #z"), "good 1/0/0 #z"]);
        assert_eq!(world.handler(kind).asked().len(), 1, "{kind}: what alice sent must not overtake what she sent before");
        world.handler(kind).answers(&reply("1"));
        assert_eq!(world.handler(kind).retires(), 1);
        world.handler(kind).answers(&reply("2"));
        world.alice().gets(&[&format!("{kind} 1 #x"), "good 1/0/0 #x", &format!("{kind} 2 #y"), "good 1/0/0 #y"]);
    }
}

#[test]
fn what_nobody_sent_waits_for_nobody() {
    let mut world = World::new();
    world.handler("room").pushes(&pass_on("hall", "1"));
    world.handler("hall").comes_up();
    world.handler("room").pushes(&pass_on("hall", "2"));
    assert_eq!(world.handler("hall").asked().len(), 2);
}

#[test]
fn an_old_start_that_dies_fails_its_own_requests_only() {
    let mut world = World::new();
    world.alice().asks("chat", "1", "x");
    let old = world.handler("chat").id();
    world.handler("chat").comes_up();
    world.alice().asks("chat", "2", "y");
    world.handle(Event::HandlerDown { id: old, reason: "was killed".into(), for_good: None });
    world.alice().gets(&["bad handlerCrashed temporary #x"]);
    assert_eq!(world.handler("chat").asked(), ["2"]);
    world.handler("chat").answers(&reply("2"));
    world.alice().gets(&["chat 2 #y", "good 1/0/0 #y"]);
}

#[test]
fn an_old_start_that_is_late_is_ended_and_the_next_goes_on() {
    let mut world = World::new();
    world.alice().asks("chat", "1", "x");
    world.handler("chat").comes_up();
    world.passes(Duration::from_secs(6));
    world.alice().asks("chat", "2", "y");
    world.passes(Duration::from_secs(4));
    world.alice().gets(&["bad handlerTimeout temporary #x"]);
    assert_eq!(world.handler("chat").replaced(), ["did not answer within 10 s"]);
    world.handler("chat").answers(&reply("2"));
    world.alice().gets(&["chat 2 #y", "good 1/0/0 #y"]);
}

#[test]
fn the_messages_of_a_connection_stay_with_one_instance() {
    let mut world = World::new();
    for n in 1..=2 {
        world.alice().asks("team", &format!("\"a{n}\""), "a");
        world.bob().asks("team", &format!("\"b{n}\""), "b");
    }
    for n in 1..=2 {
        assert_eq!(world.handler("team/0").asked(), [format!("\"a{n}\"")]);
        assert_eq!(world.handler("team/1").asked(), [format!("\"b{n}\"")]);
        world.handler("team/0").answers(&none());
        world.handler("team/1").answers(&none());
    }
    // Both are idle, and alice's place is where it was.
    world.alice().asks("team", "\"a3\"", "a");
    assert_eq!(world.handler("team/0").asked(), ["\"a3\""]);
    // The next one goes where less is under way.
    world.eve().asks("team", "\"e1\"", "e");
    assert_eq!(world.handler("team/1").asked(), ["\"e1\""]);
}

#[test]
fn an_instance_that_dies_costs_its_own_requests_and_the_rest_goes_to_the_others() {
    let mut world = World::new();
    for id in ["a1", "a2"] {
        world.alice().asks("team", "1", id);
    }
    world.bob().asks("team", "2", "b1");
    world.handler("team/0").dies("was killed");
    world.alice().gets(&["bad handlerCrashed temporary #a1"]);
    assert_eq!(world.handler("team/1").asked(), ["2"]);
    world.handler("team/1").answers(&reply("2"));
    world.bob().gets(&["team 2 #b1", "good 1/0/0 #b1"]);
    assert_eq!(world.handler("team/1").asked(), ["1"], "what waited for the dead one");
    world.handler("team/0").breaks("it is broken");
    world.handler("team/1").answers(&reply("1"));
    world.alice().gets(&["team 1 #a2", "good 1/0/0 #a2"]);
    world.handler("team/1").dies("was killed");
    world.alice().asks("team", "3", "waits");
    world.alice().gets(&[]);
    world.handler("team/1").breaks("it is broken, too");
    world.alice().gets(&["bad handlerUnavailable temporary #waits"]);
    world.alice().asks("team", "3", "a3");
    world.alice().gets(&["bad handlerUnavailable temporary #a3"]);
    world.handler("team/0").comes_up();
    world.alice().asks("team", "4", "a4");
    assert_eq!(world.handler("team/0").asked(), ["4"]);
}

#[test]
fn what_waits_while_all_are_down_goes_to_the_first_that_is_up() {
    let mut world = World::new();
    world.handler("team/0").dies("was killed");
    world.handler("team/1").dies("was killed");
    world.alice().asks("team", "1", "a");
    world.passes(Duration::from_millis(1));
    world.bob().asks("team", "2", "b");
    world.passes(Duration::from_millis(1));
    world.alice().asks("team", "3", "a");
    world.handler("team/1").comes_up();
    for data in ["1", "2", "3"] {
        assert_eq!(world.handler("team/1").asked(), [data], "in the order of coming");
        world.handler("team/1").answers(&none());
    }
}

#[test]
fn a_queue_is_for_all_instances_together() {
    let mut world = World::new();
    for _ in 0..QUEUE {
        world.alice().sends("team", "1");
        world.bob().sends("team", "1");
    }
    let refused = world.alice().frames().len() + world.bob().frames().len();
    assert_eq!(refused, 2 * QUEUE - (2 + QUEUE), "two are under way, and so many wait");
    world.eve().asks("team", "1", "x");
    world.eve().gets(&["bad busy temporary #x"]);
}

#[test]
fn types_come_change_and_go() {
    let mut world = World::new();
    let mut config = route("chat");
    world.alice().asks("chat", "1", "x");
    world.handle(Event::RouteRemoved(RouteId(0)));
    world.alice().asks("chat", "2", "y");
    world.alice().gets(&["bad unknownType #y"]);
    assert_eq!(world.handler("chat").retires(), 0);
    world.handler("chat").answers(&reply("1"));
    world.alice().gets(&["chat 1 #x", "good 1/0/0 #x"]);
    assert_eq!(world.handler("chat").retires(), 1, "what it was asked it has answered");
    config.queue = 1;
    world.handle(Event::RouteChanged(RouteId(0), config));
    world.alice().asks("chat", "3", "z");
    world.alice().asks("chat", "4", "full");
    world.alice().gets(&["bad handlerUnavailable temporary #full"]);
    world.handler("chat").comes_up();
    assert_eq!(world.handler("chat").asked(), ["3"]);
    let new = RouteConfig { kind: TypeName::new("new").expect("a type"), ..route("chat") };
    world.alice().asks("new", "1", "n");
    world.alice().gets(&["bad unknownType #n"]);
    world.handle(Event::RouteChanged(RouteId(KINDS.len() as u32), new));
    world.alice().asks("new", "1", "n");
    world.alice().gets(&[]);
}

#[test]
fn what_waits_for_a_type_that_goes_is_told_so() {
    let mut world = World::new();
    world.alice().asks("chat", "1", "x");
    world.alice().asks("chat", "2", "waits");
    world.handle(Event::RouteRemoved(RouteId(0)));
    world.alice().gets(&["bad handlerUnavailable temporary #waits"]);
}

#[test]
fn fewer_instances_end_when_they_have_answered() {
    let mut world = World::new();
    for id in ["a1", "a2"] {
        world.alice().asks("team", "1", id);
        world.bob().asks("team", "2", id);
    }
    world.handle(Event::RouteChanged(RouteId(5), RouteConfig { instances: 1, ..route("team") }));
    assert_eq!(world.handler("team/1").retires(), 0);
    world.handler("team/1").answers(&reply("2"));
    world.bob().gets(&["team 2 #a1", "good 1/0/0 #a1"]);
    assert_eq!(world.handler("team/1").retires(), 1);
    for data in ["1", "1", "2"] {
        assert_eq!(world.handler("team/0").asked(), [data]);
        world.handler("team/0").answers(&none());
    }
    world.handle(Event::RouteChanged(RouteId(5), route("team")));
    world.handler("team/1").comes_up();
    world.eve().sends("team", "3");
    world.alice().sends("team", "4");
    assert_eq!(world.handler("team/1").asked(), ["3"], "alice has her place with the other");
    assert_eq!(world.handler("team/0").asked(), ["4"]);
    // bob's place is gone, and so he leaves none.
    world.bob().disconnects();
    world.eve().disconnects();
    assert_eq!(world.left().iter().find(|(name, _)| *name == "connections in lanes"), Some(&("connections in lanes", 1)));
}

#[test]
fn a_start_that_is_no_longer_wanted_ends_at_once() {
    let mut world = World::new();
    world.handle(Event::RouteChanged(RouteId(5), RouteConfig { instances: 1, ..route("team") }));
    assert_eq!(world.handler("team/1").retires(), 1);
    world.handler("team/1").comes_up();
    assert_eq!(world.handler("team/1").retires(), 1, "there are fewer by now");
    world.handle(Event::RouteRemoved(RouteId(0)));
    assert_eq!(world.handler("chat").retires(), 1);
    world.handler("chat").comes_up();
    assert_eq!(world.handler("chat").retires(), 1, "the type is gone");
    assert!(world.effects.iter().filter(|effect| matches!(effect, Effect::Detach(_))).count() == 4);
}

#[test]
fn an_old_start_with_nothing_to_answer_ends_at_once() {
    let mut world = World::new();
    world.handler("chat").comes_up();
    assert_eq!(world.handler("chat").retires(), 1);
}

#[test]
fn how_an_old_start_ends_says_nothing_of_the_next() {
    let mut world = World::new();
    world.alice().asks("chat", "1", "x");
    let old = world.handler("chat").id();
    world.handler("chat").comes_up();
    world.handler("chat").dies("was killed");
    let for_good = Some("it asked not to be started again".into());
    world.handle(Event::HandlerDown { id: old, reason: "exited with status 125".into(), for_good });
    world.alice().gets(&["bad handlerCrashed temporary #x"]);
    world.alice().asks("chat", "2", "waits");
    world.alice().gets(&[]);
}

#[test]
fn who_is_gone_keeps_no_place() {
    let mut world = World::new();
    for data in ["1", "2"] {
        world.alice().sends("team", data);
    }
    world.alice().disconnects();
    world.handler("team/0").dies("was killed");
    assert_eq!(world.handler("team/1").asked(), ["2"], "what it sent is handled all the same");
    assert_eq!(world.left().iter().find(|(name, _)| *name == "connections in lanes"), Some(&("connections in lanes", 0)));
}
