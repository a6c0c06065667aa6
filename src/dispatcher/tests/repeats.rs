//! Messages that come again are handled once; requests that were lost are asked once more where that does no harm.

use super::*;

#[test]
fn a_message_that_comes_again_gets_the_same_report_and_is_handled_once() {
    let mut world = World::new();
    world.alice().asks_once("post", "0", "p");
    let other = world.session("alice");
    world.on(other).asks_once("post", "0", "p");
    world.handler("post").answers(&to(&["carol"], "1"));
    world.alice().gets(&["good 0/0/0 queued:1 #p"]);
    world.on(other).gets(&["good 0/0/0 queued:1 #p"]);
    world.on(other).asks_once("post", "0", "p");
    world.on(other).gets(&["good 0/0/0 queued:1 #p"]);
    assert_eq!(world.handler("post").asked(), Vec::<String>::new());
    assert_eq!(world.disk.waiting("carol"), 1);
    // A temporary failure is not remembered, a lasting one is.
    world.alice().asks_once("chat", "0", "q");
    world.handler("chat").answers(&to(&["carol"], "1"));
    world.alice().gets(&["bad undelivered temporary 0/1/0 #q"]);
    world.alice().asks_once("chat", "0", "q");
    world.handler("chat").answers(&to(&["nobody"], "1"));
    world.alice().asks_once("chat", "0", "q");
    world.alice().gets(&["bad undelivered 0/0/1 #q", "bad undelivered 0/0/1 #q"]);
    assert_eq!(world.handler("chat").asked(), Vec::<String>::new());
}

#[test]
fn what_comes_again_while_the_first_is_looked_up_is_handled_once_whoever_leaves() {
    let mut world = World::new();
    let other = world.session("alice");
    world.disk.rests = true;
    for id in ["p", "q"] {
        world.alice().asks_once("many", &format!("\"{id}\""), id);
    }
    for id in ["p", "q", "r"] {
        world.on(other).asks_once("many", &format!("\"{id}\""), id);
    }
    world.alice().disconnects();
    world.disk.rests = false;
    world.passes(Duration::from_millis(1));
    assert_eq!(world.handler("many").asked(), ["\"p\"", "\"q\"", "\"r\""]);
    (0..3).for_each(|_| world.handler("many").answers(&none()));
    world.on(other).gets(&["good 0/0/0 #p", "good 0/0/0 #q", "good 0/0/0 #r"]);
}

#[test]
fn what_waits_while_another_connection_looks_it_up_keeps_its_place() {
    let mut world = World::new();
    let other = world.session("alice");
    world.disk.rests = true;
    world.alice().asks_once("many", "1", "p");
    world.on(other).asks_once("many", "1", "p");
    world.on(other).asks_once("many", "2", "q");
    world.disk.rests = false;
    world.passes(Duration::from_millis(1));
    assert_eq!(world.handler("many").asked(), ["1", "2"]);
    world.handler("many").answers(&none());
    world.handler("many").answers(&none());
    world.alice().gets(&["good 0/0/0 #p"]);
    world.on(other).gets(&["good 0/0/0 #p", "good 0/0/0 #q"]);
}

#[test]
fn who_looks_a_message_up_and_is_closed_keeps_nobody_waiting() {
    let mut world = World::new();
    let other = world.session("alice");
    world.disk.rests = true;
    world.alice().asks_once("many", "1", "p");
    world.on(other).asks_once("many", "1", "p");
    world.alice().tells(Event::Overflowed);
    world.disk.rests = false;
    world.passes(Duration::from_millis(1));
    assert_eq!(world.handler("many").asked(), ["1"]);
    world.handler("many").answers(&none());
    world.on(other).gets(&["good 0/0/0 #p"]);
}

#[test]
fn what_comes_after_a_message_that_is_looked_up_waits_behind_it() {
    let mut world = World::new();
    world.disk.rests = true;
    world.alice().asks_once("many", "1", "p");
    world.alice().asks("many", "2", "q");
    assert_eq!(world.handler("many").asked(), Vec::<String>::new());
    world.disk.rests = false;
    world.passes(Duration::from_millis(1));
    assert_eq!(world.handler("many").asked(), ["1", "2"]);
}

#[test]
fn what_may_be_asked_again_is_once_more_in_the_old_order() {
    let mut world = World::new();
    for n in 1..=4 {
        world.alice().asks("safe", &n.to_string(), &n.to_string());
    }
    world.handler("safe").dies("was killed");
    world.alice().gets(&[]);
    world.handler("safe").comes_up();
    assert_eq!(world.handler("safe").asked(), ["1", "2", "3"]);
    world.handler("safe").answers(&none());
    world.handler("safe").dies("was killed");
    world.alice().gets(&["good 0/0/0 #1", "bad handlerCrashed temporary #2", "bad handlerCrashed temporary #3"]);
    world.handler("safe").comes_up();
    assert_eq!(world.handler("safe").asked(), ["4"]);
}
