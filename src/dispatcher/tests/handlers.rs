//! How handlers are asked: in which order, how many at a time, and what waits for how long.

use super::*;

#[test]
fn a_handler_of_one_request_at_a_time_gets_the_next_with_its_answer() {
    let mut world = World::new();
    for data in ["1", "2", "3"] {
        world.alice().asks("chat", data, data);
    }
    for data in ["1", "2", "3"] {
        assert_eq!(world.handler("chat").asked(), [data]);
        world.handler("chat").answers(&reply(data));
        world.alice().gets(&[&format!("chat {data} #{data}"), &format!("good 1/0/0 #{data}")]);
    }
}

#[test]
fn a_handler_gets_as_much_at_once_as_it_may_have_under_way_in_the_order_of_coming() {
    let mut world = World::new();
    for data in ["1", "2", "3", "4", "5"] {
        world.alice().asks("many", data, data);
    }
    assert_eq!(world.handler("many").asked(), ["1", "2", "3"]);
    world.handler("many").answers(&reply("1"));
    assert_eq!(world.handler("many").asked(), ["2", "3", "4"]);
    world.alice().gets(&["many 1 #1", "good 1/0/0 #1"]);
    world.handler("many").answers(&reply("2"));
    world.alice().gets(&["many 2 #2", "good 1/0/0 #2"]);
}

#[test]
fn types_do_not_wait_for_each_other() {
    let mut world = World::new();
    world.alice().sends("chat", "1");
    world.alice().sends("chat", "2");
    world.alice().asks("many", "3", "x");
    world.handler("many").answers(&reply("4"));
    world.alice().gets(&["many 4 #x", "good 1/0/0 #x"]);
}

#[test]
fn a_full_queue_is_told_at_once() {
    let mut world = World::new();
    for _ in 0..1 + QUEUE {
        world.alice().sends("chat", "0");
    }
    world.alice().asks("chat", "1", "x");
    world.alice().gets(&["bad busy temporary #x"]);
    world.handler("many").dies("exited with status 1");
    for _ in 0..QUEUE {
        world.alice().sends("many", "0");
    }
    world.alice().asks("many", "1", "x");
    world.alice().gets(&["bad handlerUnavailable temporary #x"]);
}

#[test]
fn nothing_waits_longer_than_it_may() {
    let mut world = World::new();
    world.handler("many").dies("exited with status 1");
    world.alice().asks("many", "1", "down");
    world.alice().asks("chat", "1", "first");
    world.passes(Duration::from_secs(2));
    world.alice().asks("chat", "2", "second");
    world.passes(QUEUE_WAIT - Duration::from_secs(2) - Duration::from_millis(1));
    world.alice().gets(&[]);
    world.passes(Duration::from_millis(1));
    let frames = world.alice().frames();
    assert_eq!(frames.iter().map(|frame| short(frame)).collect::<Vec<_>>(), ["bad handlerUnavailable temporary #down"]);
    assert!(frames[0].contains("exited with status 1"), "the sender is told why: {}", frames[0]);
    world.passes(Duration::from_secs(2));
    world.alice().gets(&["bad busy temporary #second"]);
    world.handler("chat").answers(&reply("1"));
    world.alice().gets(&["chat 1 #first", "good 1/0/0 #first"]);
    assert_eq!(world.handler("chat").asked(), [""; 0], "what was given up is not asked");
}

#[test]
fn what_waits_for_a_handler_is_asked_when_it_comes_up() {
    let mut world = World::new();
    world.handler("chat").dies("exited with status 1");
    world.alice().asks("chat", "1", "x");
    world.alice().asks("chat", "2", "y");
    world.passes(Duration::from_secs(4));
    world.handler("chat").comes_up();
    assert_eq!(world.handler("chat").asked(), ["1"]);
    world.handler("chat").answers(&reply("1"));
    world.alice().gets(&["chat 1 #x", "good 1/0/0 #x"]);
}

#[test]
fn the_deadline_for_an_answer_counts_from_the_asking() {
    let mut world = World::new();
    world.alice().sends("chat", "1");
    world.passes(Duration::from_secs(1));
    world.alice().asks("chat", "2", "x");
    world.passes(Duration::from_secs(4));
    world.handler("chat").answers(&none());
    world.passes(TIMEOUT - Duration::from_millis(1));
    world.alice().gets(&[]);
    world.handler("chat").answers(&reply("2"));
    world.alice().gets(&["chat 2 #x", "good 1/0/0 #x"]);
}

#[test]
fn a_plain_handler_that_is_late_is_replaced_and_all_that_it_was_asked_fails() {
    let mut world = World::new();
    for data in ["1", "2", "3", "4"] {
        world.alice().asks("many", data, data);
        world.passes(Duration::from_millis(1));
    }
    world.passes(Duration::from_secs(1));
    assert_eq!(world.handler("many").replaced(), [""; 0]);
    world.passes(Duration::from_secs(3));
    world.handler("many").answers(&none());
    assert_eq!(world.handler("many").asked(), ["2", "3", "4"]);
    world.alice().gets(&["good 0/0/0 #1"]);
    world.alice().asks("many", "5", "5");
    world.passes(Duration::from_secs(4));
    world.alice().asks("many", "6", "6");
    world.passes(Duration::from_secs(2));
    world.alice().gets(&[
        "bad busy temporary #5",
        "bad handlerTimeout temporary #2",
        "bad handlerCrashed temporary #3",
        "bad handlerCrashed temporary #4",
    ]);
    assert_eq!(world.handler("many").replaced(), ["did not answer within 10 s"]);
    world.handler("many").dies("was ended");
    world.handler("many").comes_up();
    assert_eq!(world.handler("many").asked(), ["6"], "what waited is asked of the next start");
    world.handler("many").answers(&reply("6"));
    world.alice().gets(&["many 6 #6", "good 1/0/0 #6"]);
}

#[test]
fn a_handler_that_dies_fails_what_it_was_asked_and_nothing_else() {
    let mut world = World::new();
    for data in ["1", "2", "3", "4"] {
        world.alice().asks("many", data, data);
    }
    world.alice().asks("chat", "1", "other");
    world.handler("many").dies("was killed by signal 9");
    let frames = world.alice().frames();
    let expected = ["bad handlerCrashed temporary #1", "bad handlerCrashed temporary #2", "bad handlerCrashed temporary #3"];
    assert_eq!(frames.iter().map(|frame| short(frame)).collect::<Vec<_>>(), expected);
    assert!(frames[0].contains("handler many was killed by signal 9"));
    world.handler("many").comes_up();
    assert_eq!(world.handler("many").asked(), ["4"]);
}

#[test]
fn answers_of_an_old_start_are_ignored() {
    let mut world = World::new();
    world.alice().asks("chat", "1", "x");
    world.handler("chat").dies("was killed");
    world.alice().gets(&["bad handlerCrashed temporary #x"]);
    let old = world.handler("chat").id().start;
    world.handler("chat").says(old, None, &to(&["bob"], "1"));
    world.handler("chat").comes_up();
    world.alice().asks("chat", "2", "y");
    world.handler("chat").says(old, None, &to(&["bob"], "1"));
    world.bob().gets(&[]);
    world.handler("chat").answers(&reply("2"));
    world.alice().gets(&["chat 2 #y", "good 1/0/0 #y"]);
    assert_eq!(world.handler("chat").replaced(), [""; 0]);
}

#[test]
fn the_end_of_an_old_start_is_not_the_end_of_the_next() {
    let mut world = World::new();
    let old = world.handler("chat").id();
    world.handler("chat").dies("was ended");
    world.handler("chat").comes_up();
    world.alice().asks("chat", "1", "x");
    world.handle(Event::HandlerDown { id: old, reason: "was ended".into(), for_good: None });
    world.handler("chat").answers(&reply("2"));
    world.alice().gets(&["chat 2 #x", "good 1/0/0 #x"]);
}

#[test]
fn a_handler_that_is_not_up_is_not_asked() {
    let mut world = World::new();
    world.handler("each").dies("refused the connection");
    world.alice().sends("each", "1");
    assert_eq!(world.handler("each").asked(), [""; 0]);
    world.alice().tells(|conn| Event::Asked(conn, super::super::Inquiry::Handlers, about("h")));
    let up = r#"{"chat":{"up":true},"each":{"up":false},"hall":{"up":true},"many":{"up":true},"post":{"up":true},"room":{"up":true},"safe":{"up":true},"team":{"up":true}}"#;
    world.alice().gets(&[&format!("good {up} #h")]);
}

#[test]
fn a_handler_with_a_connection_for_each_request_answers_in_any_order() {
    let mut world = World::new();
    for data in ["1", "2", "3"] {
        world.alice().asks("each", data, data);
    }
    world.handler("each").answers_nth(1, &reply("2"));
    world.alice().gets(&["each 2 #2", "good 1/0/0 #2"]);
    let id = world.handler("each").id();
    let (_, request, _) = world.handlers[EACH].asked[1];
    let refused = "handler each cannot be reached".to_owned();
    let reason = crate::protocol::reason::Reason::HandlerUnavailable;
    world.handle(Event::Unanswered { id, request, reason, message: refused.clone() });
    world.alice().gets(&["bad handlerUnavailable temporary #3"]);
    world.handle(Event::Unanswered { id, request, reason, message: refused });
    world.handler("each").answers(&reply("1"));
    world.alice().gets(&["each 1 #1", "good 1/0/0 #1"]);
    assert_eq!(world.alice().settled(), [1, 1, 1]);
}

#[test]
fn a_connection_that_failed_makes_room_for_the_next_request() {
    let mut world = World::new();
    for data in ["1", "2", "3", "4"] {
        world.alice().asks("each", data, data);
    }
    let id = world.handler("each").id();
    let (_, request, _) = world.handlers[EACH].asked.pop_front().expect("a request");
    let reason = crate::protocol::reason::Reason::HandlerCrashed;
    world.handle(Event::Unanswered { id, request, reason, message: "it hung up".into() });
    assert_eq!(world.handler("each").asked(), ["2", "3", "4"]);
}

#[test]
fn a_late_request_with_a_connection_of_its_own_is_abandoned() {
    let mut world = World::new();
    world.alice().asks("each", "1", "x");
    let (start, request, _) = world.handlers[EACH].asked[0];
    world.passes(TIMEOUT);
    world.alice().gets(&["bad handlerTimeout temporary #x"]);
    assert_eq!(world.handlers[EACH].abandoned, [request]);
    assert_eq!(world.handler("each").replaced(), ["did not answer within 10 s"]);
    world.handler("each").says(start, Some(request), &to(&["bob"], "1"));
    world.bob().gets(&[]);
}

#[test]
fn lines_are_asked_in_lines() {
    let mut world = World::new();
    world.handlers[CHAT].form = Some(Form { framing: Framing::Lines, ..form("chat") });
    world.handler("chat").comes_up();
    world.alice().sends("chat", "[1,\n2]");
    assert_eq!(world.handler("chat").asked(), ["[1, 2]\n"]);
}

#[test]
fn a_broken_handler_is_refused_at_once_and_so_is_what_waits_for_it() {
    let mut world = World::new();
    world.handler("chat").dies("exited with status 1");
    world.alice().asks("chat", "1", "waits");
    world.handler("chat").breaks("it is broken");
    let frames = world.alice().frames();
    assert_eq!(short(&frames[0]), "bad handlerUnavailable temporary #waits");
    assert!(frames[0].contains("handler chat is not running: it is broken"), "{}", frames[0]);
    world.alice().asks("chat", "2", "x");
    world.alice().gets(&["bad handlerUnavailable temporary #x"]);
    world.handler("chat").comes_up();
    world.alice().asks("chat", "3", "y");
    world.handler("chat").answers(&reply("3"));
    world.alice().gets(&["chat 3 #y", "good 1/0/0 #y"]);
}
