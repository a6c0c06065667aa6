//! Logins, changes of accounts, and the ways in which a connection ends.

use super::*;
use crate::protocol::reason::Reason;

const PASSED_BY: &str = "bad authentication #auth_special";

fn changes_password(person: &mut Person<'_>, name: &str, revision: u64) {
    person.tells(|conn| Event::PasswordChanged { conn, user: username(name), revision, about: about("p") });
}

/// eve has this sent to `name`, and it counts so.
#[track_caller]
fn reach(world: &mut World, name: &str, expected: &str) {
    world.eve().asks("chat", "7", "r");
    world.handler("chat").answers(&to(&[name], "7"));
    world.eve().gets(&[&format!("{expected} #r")]);
}

const REACHED: &str = "good 1/0/0";
const OFFLINE: &str = "bad undelivered temporary 0/1/0";
const UNKNOWN: &str = "bad undelivered 0/0/1";

#[test]
fn a_login_is_reported_before_anything_else_and_decided_once() {
    let mut world = World::new();
    let conn = world.connects().conn;
    world.on(conn).logs_in("carol", 1);
    assert_eq!(world.on(conn).verdict(), Some(true));
    world.on(conn).gets(&["good null #auth_special"]);
    reach(&mut world, "carol", REACHED);
    world.on(conn).gets(&["chat 7"]);
}

#[test]
fn a_message_without_a_user_is_refused() {
    let mut world = World::new();
    world.connects().asks("chat", "1", "x");
    let mut stranger = world.on(ConnId(4));
    stranger.gets(&["bad notAuthenticated #x"]);
    assert_eq!((stranger.settled(), stranger.closed()), (vec![1], None));
}

#[test]
fn a_proof_from_before_a_change_is_void() {
    let mut world = World::new();
    for standing in [Standing::Active { revision: 2 }, Standing::Disabled, Standing::Removed] {
        world.account("carol", standing);
        world.connects().logs_in("carol", 1);
        let conn = ConnId(world.connections.len() as u64);
        world.on(conn).gets(&[PASSED_BY]);
        assert_eq!((world.on(conn).verdict(), world.on(conn).closed()), (Some(false), Some(CloseReason::Refused)));
    }
}

#[test]
fn old_news_of_an_account_is_no_news() {
    let mut world = World::new();
    world.account("bob", Standing::Active { revision: 5 });
    let conn = world.connects().conn;
    world.on(conn).logs_in("bob", 5);
    world.account("bob", Standing::Active { revision: 3 });
    assert_eq!(world.on(conn).closed(), None);
    world.connects().logs_in("bob", 3);
    world.on(ConnId(5)).gets(&[PASSED_BY]);
    world.account("bob", Standing::Disabled);
    world.account("bob", Standing::Active { revision: 5 });
    world.connects().logs_in("bob", 5);
    world.on(ConnId(6)).gets(&[PASSED_BY]);
    world.account("bob", Standing::Active { revision: 7 });
    world.connects().logs_in("bob", 7);
    world.on(ConnId(7)).gets(&["good null #auth_special"]);
}

#[test]
fn a_user_has_so_many_sessions_and_no_more() {
    let mut world = World::new();
    world.session("alice");
    let third = world.session("alice");
    let fourth = world.connects().conn;
    world.on(fourth).logs_in("alice", 1);
    world.on(fourth).gets(&["bad busy temporary #auth_special"]);
    assert_eq!((world.on(fourth).verdict(), world.on(fourth).closed()), (Some(false), Some(CloseReason::Refused)));
    world.on(third).logs_in("alice", 1);
    world.on(third).gets(&["good null #auth_special"]);
    world.on(third).disconnects();
    world.session("alice");
}

#[test]
fn a_live_connection_can_change_its_user() {
    let mut world = World::new();
    world.bob().logs_in("carol", 1);
    world.bob().gets(&["good null #auth_special"]);
    reach(&mut world, "bob", OFFLINE);
    world.bob().gets(&[]);
    reach(&mut world, "carol", REACHED);
    world.bob().gets(&["chat 7"]);
}

#[test]
fn a_failed_change_of_the_user_changes_nothing() {
    let mut world = World::new();
    for _ in 0..SESSIONS_PER_USER - 1 {
        world.session("alice");
    }
    world.account("carol", Standing::Active { revision: 2 });
    for (name, report) in [("alice", "bad busy temporary #auth_special"), ("carol", PASSED_BY), ("bob", PASSED_BY)] {
        world.bob().logs_in(name, u64::from(name != "bob"));
        world.bob().gets(&[report]);
        assert_eq!((world.bob().verdict(), world.bob().closed()), (Some(false), None), "{name}");
        reach(&mut world, "bob", REACHED);
        world.bob().gets(&["chat 7"]);
    }
}

#[test]
fn a_proof_with_a_new_password_ends_the_sessions_of_the_old_one() {
    let mut world = World::new();
    let second = world.session("bob");
    world.on(second).logs_in("bob", 2);
    assert_eq!(world.bob().closed(), Some(CloseReason::Revoked));
    world.on(second).gets(&["good null #auth_special"]);
    assert_eq!((world.on(second).verdict(), world.on(second).closed()), (Some(true), None));
    world.account("bob", Standing::Active { revision: 2 });
    reach(&mut world, "bob", REACHED);
    world.on(second).gets(&["chat 7"]);
}

#[test]
fn logout_leaves_a_connection_without_a_user() {
    let mut world = World::new();
    world.bob().tells(|conn| Event::LoggedOut(conn, about("o")));
    world.bob().gets(&["good {} #o"]);
    assert_eq!(world.bob().verdict(), Some(true));
    reach(&mut world, "bob", OFFLINE);
    world.bob().asks("chat", "1", "x");
    world.bob().tells(|conn| Event::LoggedOut(conn, about("o")));
    world.bob().gets(&["bad notAuthenticated #x", "bad notAuthenticated #o"]);
    assert_eq!(world.bob().verdict(), Some(false));
    world.bob().logs_in("bob", 1);
    world.bob().gets(&["good null #auth_special"]);
    reach(&mut world, "bob", REACHED);
}

#[test]
fn a_password_change_keeps_only_the_session_that_made_it() {
    let mut world = World::new();
    let second = world.session("bob");
    changes_password(&mut world.on(second), "bob", 2);
    world.on(second).gets(&["good {} #p"]);
    assert_eq!((world.on(second).verdict(), world.on(second).closed()), (Some(true), None));
    assert_eq!(world.bob().closed(), Some(CloseReason::Revoked));
    assert_eq!(world.alice().closed(), None);
    world.account("bob", Standing::Active { revision: 2 });
    reach(&mut world, "bob", REACHED);
    world.on(second).gets(&["chat 7"]);
    world.connects().logs_in("bob", 1);
    world.on(ConnId(5)).gets(&[PASSED_BY]);
}

#[test]
fn a_password_change_on_a_connection_that_was_closed_ends_the_others_all_the_same() {
    let mut world = World::new();
    let second = world.session("bob");
    world.handle(Event::Overflowed(second));
    changes_password(&mut world.on(second), "bob", 2);
    assert_eq!(world.bob().closed(), Some(CloseReason::Revoked));
    world.account("alice", Standing::Disabled);
    changes_password(&mut world.alice(), "alice", 2);
    world.connects().logs_in("alice", 2);
    world.on(ConnId(5)).gets(&[PASSED_BY]);
}

#[test]
fn a_password_change_does_not_bring_back_who_was_removed() {
    let mut world = World::new();
    world.account("bob", Standing::Removed);
    changes_password(&mut world.bob(), "bob", 2);
    reach(&mut world, "bob", UNKNOWN);
}

#[test]
fn a_session_ends_with_its_account() {
    for standing in [Standing::Active { revision: 2 }, Standing::Disabled, Standing::Removed] {
        let mut world = World::new();
        let second = world.session("bob");
        world.bob().asks("chat", "1", "x");
        world.account("bob", standing);
        for conn in [ConnId(2), second] {
            assert_eq!(world.on(conn).closed(), Some(CloseReason::Revoked));
        }
        world.handler("chat").answers(&to(&["bob", "eve"], "1"));
        world.bob().gets(&[]);
        world.eve().gets(&["chat 1"]);
        assert_eq!(world.bob().settled(), [1]);
        reach(&mut world, "bob", if standing == Standing::Removed { UNKNOWN } else { OFFLINE });
    }
}

#[test]
fn what_is_the_same_as_before_ends_nothing() {
    let mut world = World::new();
    world.account("bob", Standing::Active { revision: 1 });
    assert_eq!(world.bob().closed(), None);
}

#[test]
fn a_registered_account_is_known_but_not_logged_in() {
    let mut world = World::new();
    world.account("alice", Standing::Active { revision: 9 });
    let conn = world.connects().conn;
    world.on(conn).tells(|conn| Event::Registered { conn, user: username("dave"), revision: 8, about: about("r") });
    world.on(conn).gets(&["good {} #r"]);
    assert_eq!(world.on(conn).verdict(), Some(true));
    reach(&mut world, "dave", OFFLINE);
    world.on(conn).logs_in("dave", 8);
    world.on(conn).gets(&["good null #auth_special"]);
}

#[test]
fn an_idle_connection_whose_input_ends_is_closed() {
    let mut world = World::new();
    world.alice().tells(Event::InputEnded);
    assert_eq!(world.alice().closed(), Some(CloseReason::Ended));
    world.connects().tells(Event::InputEnded);
    assert_eq!(world.on(ConnId(4)).closed(), Some(CloseReason::Ended));
}

#[test]
fn after_the_end_of_input_a_connection_gets_what_its_own_messages_cause_and_then_the_end() {
    let mut world = World::new();
    world.bob().asks("many", "1", "x");
    world.bob().asks("many", "2", "y");
    world.bob().tells(Event::InputEnded);
    reach(&mut world, "bob", OFFLINE);
    world.bob().gets(&[]);
    world.handler("many").answers(&to(&["bob"], "1"));
    world.bob().gets(&["many 1 #x", "good 1/0/0 #x"]);
    assert_eq!(world.bob().closed(), None);
    world.handler("many").answers(&reply("2"));
    world.bob().gets(&["many 2 #y", "good 1/0/0 #y"]);
    assert_eq!(world.bob().closed(), Some(CloseReason::Ended));
}

#[test]
fn after_the_end_of_input_the_end_comes_at_the_latest_with_the_deadline() {
    let mut world = World::new();
    world.bob().sends("chat", "1");
    world.bob().tells(Event::InputEnded);
    world.passes(TIMEOUT);
    world.bob().gets(&["bad handlerTimeout temporary"]);
    assert_eq!(world.bob().closed(), Some(CloseReason::Ended));
}

#[test]
fn a_slow_reader_is_closed_and_offline_from_then_on() {
    let mut world = World::new();
    world.handle(Event::Overflowed(ConnId(2)));
    assert_eq!(world.bob().closed(), Some(CloseReason::TooSlow));
    reach(&mut world, "bob", OFFLINE);
    world.bob().asks("chat", "1", "x");
    world.bob().gets(&[]);
    assert_eq!(world.bob().settled(), [1], "its place is free again, though there is no report");
    world.handle(Event::Overflowed(ConnId(2)));
    world.bob().disconnects();
    assert!(world.connections[&ConnId(2)].forgotten);
}

#[test]
fn what_a_connection_sent_before_it_went_is_done_all_the_same() {
    let mut world = World::new();
    world.alice().asks("chat", "1", "x");
    world.alice().disconnects();
    world.handler("chat").answers(&to(&["bob", "alice"], "1"));
    world.bob().gets(&["chat 1"]);
    world.alice().gets(&[]);
}

#[test]
fn what_the_connection_found_wrong_is_told_to_the_client() {
    let mut world = World::new();
    for last in [false, true] {
        let message = "payload.data is missing".to_owned();
        world.alice().tells(|conn| Event::Refused { conn, about: about("m"), reason: Reason::Malformed, message, last });
        world.alice().gets(&["bad malformed #m"]);
        assert_eq!((world.alice().settled(), world.alice().closed().is_some()), (vec![0], last));
    }
    reach(&mut world, "alice", OFFLINE);
}

#[test]
fn who_asks_for_the_end_gets_a_report_first() {
    let mut world = World::new();
    world.alice().tells(|conn| Event::Leaving(conn, about("l")));
    world.alice().gets(&["good {} #l"]);
    assert_eq!(world.alice().closed(), Some(CloseReason::Asked));
}

#[test]
fn a_server_that_drains_finishes_what_is_under_way_and_takes_nothing_new() {
    let mut world = World::new();
    world.alice().asks("chat", "1", "x");
    world.handle(Event::Drain);
    world.bob().asks("chat", "2", "y");
    world.bob().logs_in("carol", 1);
    world.bob().gets(&["bad draining temporary #y", "bad draining temporary #auth_special"]);
    assert_eq!((world.bob().closed(), world.drained), (None, 0));
    world.connects().logs_in("carol", 1);
    world.on(ConnId(4)).gets(&["bad draining temporary #auth_special"]);
    assert_eq!(world.on(ConnId(4)).closed(), Some(CloseReason::Refused));
    world.handler("chat").answers(&pass_on("many", "1"));
    assert_eq!(world.drained, 0);
    world.handler("many").answers(&reply("2"));
    world.alice().gets(&["many 2 #x", "good 1/0/0 #x"]);
    assert_eq!(world.drained, 1);
    world.handle(Event::Drain);
    world.passes(TIMEOUT);
    assert_eq!(world.drained, 1);
}

#[test]
fn an_idle_server_has_drained_at_once() {
    let mut world = World::new();
    world.handle(Event::Drain);
    assert_eq!(world.drained, 1);
}

#[test]
fn stopping_ends_every_connection_that_is_there_or_comes_yet() {
    let mut world = World::new();
    world.handle(Event::Stop);
    world.connects();
    for conn in 1..=4 {
        assert_eq!(world.on(ConnId(conn)).closed(), Some(CloseReason::Stopping));
    }
}

#[test]
fn a_connection_that_is_not_known_is_not_answered() {
    let mut world = World::new();
    let conn = ConnId(77);
    world.connections.insert(conn, Connection::default());
    world.on(conn).asks("chat", "1", "x");
    world.on(conn).logs_in("carol", 1);
    world.on(conn).tells(Event::InputEnded);
    world.handle(Event::Overflowed(conn));
    world.on(conn).gets(&[]);
    assert_eq!(world.on(conn).settled().len(), 1, "the bytes of its message are given back");
    world.on(conn).disconnects();
    reach(&mut world, "carol", OFFLINE);
}
