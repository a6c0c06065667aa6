//! Those who are away get what was sent to them when they come, in order; those who acknowledge get it until they do.

use super::*;

impl World {
    /// A session that acknowledges.
    pub(super) fn ack_session(&mut self, name: &str) -> ConnId {
        let mut person = self.connects();
        person.logs_in_with(name, 1, true, None);
        person.conn
    }

    /// alice has something sent to these, and it is answered.
    #[track_caller]
    pub(super) fn alice_posts(&mut self, to_: &[&str], data: &str, report: &str) {
        self.alice().asks("post", "0", "p");
        self.handler("post").answers(&to(to_, data));
        self.alice().gets(&[&format!("{report} #p")]);
    }
}

#[test]
fn mail_waits_for_who_is_away_and_comes_before_anything_new() {
    let mut world = World::new();
    for n in 1..=7 {
        world.alice_posts(&["carol"], &n.to_string(), "good 0/0/0 queued:1");
    }
    let carol = world.session_with_mail("carol");
    world.on(carol).gets(&["good null #auth_special", "post 1", "post 2", "post 3", "post 4", "post 5", "post 6", "post 7"]);
    assert_eq!(world.disk.waiting("carol"), 0, "what has left for her socket is out of the mailbox");
    world.alice_posts(&["carol"], "8", "good 1/0/0");
    world.on(carol).gets(&["post 8"]);
}

impl World {
    pub(super) fn session_with_mail(&mut self, name: &str) -> ConnId {
        let mut person = self.connects();
        person.logs_in(name, 1);
        person.conn
    }
}

#[test]
fn a_type_that_drops_keeps_nothing_unless_its_answer_says_so() {
    let mut world = World::new();
    world.alice().asks("chat", "0", "a");
    world.handler("chat").answers(&to(&["carol"], "1"));
    world.alice().gets(&["bad undelivered temporary 0/1/0 #a"]);
    world.alice().asks("chat", "0", "b");
    world.handler("chat").answers(&to(&["carol"], "2").replacen(r#""status""#, r#""offline":"queue","status""#, 1));
    world.alice().gets(&["good 0/0/0 queued:1 #b"]);
    world.alice().asks("post", "0", "c");
    world.handler("post").answers(&to(&["carol"], "3").replacen(r#""status""#, r#""offline":"drop","status""#, 1));
    world.alice().gets(&["bad undelivered temporary 0/1/0 #c"]);
    let carol = world.session_with_mail("carol");
    world.on(carol).gets(&["good null #auth_special", "chat 2"]);
}

#[test]
fn nothing_is_reported_before_it_is_on_the_disk() {
    let mut world = World::new();
    world.disk.rests = true;
    world.alice().asks("post", "0", "p");
    world.handler("post").answers(&to(&["carol", "bob"], "1"));
    world.alice().gets(&[]);
    world.bob().gets(&["post 1"]);
    world.disk.rests = false;
    world.passes(Duration::from_millis(1));
    world.alice().gets(&["good 1/0/0 queued:1 #p"]);
}

#[test]
fn trouble_with_the_disk_is_temporary_and_hurts_only_what_needs_it() {
    let mut world = World::new();
    for (trouble, reason) in [(crate::store::mail::Trouble::Storage, "storage"), (crate::store::mail::Trouble::Busy, "busy")] {
        world.disk.trouble = Some(trouble);
        world.alice_posts(&["carol", "bob"], "1", &format!("bad {reason} temporary"));
        world.bob().gets(&["post 1"]);
        world.alice_posts(&["bob"], "2", "good 1/0/0");
        world.bob().gets(&["post 2"]);
    }
    world.disk.trouble = None;
    world.alice_posts(&["carol"], "3", "good 0/0/0 queued:1");
}

#[test]
fn a_full_mailbox_refuses_and_the_sender_is_told() {
    let mut world = World::new();
    for n in 0..disk::LETTERS_MAX {
        world.alice_posts(&["carol"], &n.to_string(), "good 0/0/0 queued:1");
    }
    world.alice_posts(&["carol", "bob"], "9", "bad undelivered temporary 1/0/0 refused:1");
}

#[test]
fn what_is_not_acknowledged_comes_again_with_the_same_number() {
    let mut world = World::new();
    let carol = world.ack_session("carol");
    world.on(carol).gets(&["good null #auth_special"]);
    world.alice_posts(&["carol"], "1", "good 0/0/0 queued:1");
    world.alice_posts(&["carol"], "2", "good 0/0/0 queued:1");
    world.on(carol).gets(&["post 1 @1", "post 2 @2"]);
    world.on(carol).acknowledges(1);
    world.on(carol).disconnects();
    let carol = world.ack_session("carol");
    world.on(carol).gets(&["good null #auth_special", "post 2 @@2"]);
    world.on(carol).acknowledges(2);
    assert_eq!(world.disk.waiting("carol"), 0);
    world.alice_posts(&["carol"], "3", "good 0/0/0 queued:1");
    world.on(carol).gets(&["post 3 @3"]);
}

#[test]
fn a_login_may_say_what_an_earlier_session_had() {
    let mut world = World::new();
    for n in 1..=3 {
        world.alice_posts(&["carol"], &n.to_string(), "good 0/0/0 queued:1");
    }
    let mut carol = world.connects();
    carol.logs_in_with("carol", 1, true, Some(2));
    carol.gets(&["good null #auth_special", "post 3 @3"]);
    assert_eq!(world.disk.waiting("carol"), 1);
    let mut carol = world.connects();
    carol.logs_in_with("carol", 1, true, Some(4));
    assert_eq!(carol.closed(), Some(CloseReason::Refused));
    carol.gets(&["good null #auth_special", "bad malformed"]);
}

#[test]
fn more_than_was_sent_cannot_be_acknowledged() {
    let mut world = World::new();
    let carol = world.ack_session("carol");
    world.alice_posts(&["carol"], "1", "good 0/0/0 queued:1");
    world.on(carol).acknowledges(2);
    world.on(carol).gets(&["good null #auth_special", "post 1 @1", "bad malformed #ack"]);
    assert_eq!(world.on(carol).closed(), Some(CloseReason::Refused));
    assert_eq!(world.disk.waiting("carol"), 1);
    world.bob().acknowledges(0);
    assert_eq!(world.bob().closed(), Some(CloseReason::Refused), "a session that did not ask for it has nothing to acknowledge");
}

#[test]
fn what_a_login_claims_too_much_no_acknowledgement_can_take_out() {
    let mut world = World::new();
    world.alice_posts(&["carol"], "1", "good 0/0/0 queued:1");
    world.disk.rests = true;
    let mut carol = world.connects();
    carol.logs_in_with("carol", 1, true, Some(9));
    let carol = carol.conn;
    // Nobody has looked yet whether there ever was such a number.
    world.on(carol).tells(|conn| Event::Acknowledged { conn, seq: 9, about: about("ack") });
    world.on(carol).tells(|conn| Event::Acknowledged { conn, seq: 10, about: about("ack") });
    world.disk.rests = false;
    world.passes(Duration::from_millis(1));
    assert_eq!(world.on(carol).closed(), Some(CloseReason::Refused));
    assert_eq!(world.disk.waiting("carol"), 1);
}

#[test]
fn the_window_is_what_a_client_may_leave_unacknowledged() {
    let mut world = World::new();
    let carol = world.ack_session("carol");
    for n in 1..=6 {
        world.alice_posts(&["carol"], &n.to_string(), "good 0/0/0 queued:1");
    }
    world.on(carol).gets(&["good null #auth_special", "post 1 @1", "post 2 @2", "post 3 @3", "post 4 @4"]);
    world.on(carol).acknowledges(2);
    world.on(carol).gets(&["post 5 @5", "post 6 @6"]);
    world.passes(ACKNOWLEDGE_WITHIN - Duration::from_secs(1));
    world.on(carol).acknowledges(3);
    world.passes(Duration::from_secs(30));
    assert_eq!(world.on(carol).closed(), None, "it made progress");
    world.passes(ACKNOWLEDGE_WITHIN);
    assert_eq!(world.on(carol).closed(), Some(CloseReason::Unacknowledged));
}

#[test]
fn all_sessions_get_a_copy_and_the_first_word_settles_it() {
    let mut world = World::new();
    let (first, second) = (world.ack_session("carol"), world.ack_session("carol"));
    let third = world.session("carol");
    world.alice_posts(&["carol"], "1", "good 0/0/0 queued:1");
    world.on(first).gets(&["good null #auth_special", "post 1 @1"]);
    world.on(second).gets(&["good null #auth_special", "post 1 @1"]);
    world.on(third).gets(&["post 1"]);
    assert_eq!(world.disk.waiting("carol"), 1, "who acknowledges nothing settles nothing as long as somebody does");
    world.on(second).acknowledges(1);
    assert_eq!(world.disk.waiting("carol"), 0);
    world.passes(ACKNOWLEDGE_WITHIN * 2);
    assert_eq!(world.on(first).closed(), None, "it has nothing left to acknowledge");
}

#[test]
fn what_is_kept_for_one_session_comes_to_all_from_the_mailbox() {
    let mut world = World::new();
    let (first, second) = (world.ack_session("carol"), world.session("carol"));
    world.on(second).stops_reading();
    world.alice_posts(&["carol"], "1", "good 0/0/0 queued:1");
    world.on(first).gets(&["good null #auth_special", "post 1 @1"]);
    assert_eq!(world.disk.waiting("carol"), 1, "it is kept once");
    world.on(second).reads_on();
    world.on(second).gets(&["post 1"]);
    world.on(first).acknowledges(1);
    assert_eq!(world.disk.waiting("carol"), 0);
}

#[test]
fn what_a_session_was_given_without_a_number_it_need_not_acknowledge() {
    let mut world = World::new();
    let (first, second) = (world.ack_session("carol"), world.ack_session("carol"));
    world.on(second).stops_reading();
    for n in 1..=2 {
        world.alice().asks("chat", "0", "c");
        world.handler("chat").answers(&to(&["carol"], &n.to_string()));
    }
    world.alice().gets(&["good 1/0/0 #c", "good 0/0/0 queued:1 #c"]);
    world.on(first).gets(&["good null #auth_special", "chat 1", "chat 2"]);
    world.on(second).reads_on();
    world.on(second).gets(&["good null #auth_special", "chat 1", "chat 2 @1"]);
    world.on(second).acknowledges(1);
    world.passes(ACKNOWLEDGE_WITHIN * 2);
    assert_eq!((world.on(first).closed(), world.on(second).closed()), (None, None));
    assert_eq!(world.disk.waiting("carol"), 0);
}

#[test]
fn a_session_that_is_behind_settles_nothing_beside_one_that_acknowledges() {
    let mut world = World::new();
    world.alice_posts(&["carol"], "1", "good 0/0/0 queued:1");
    let first = world.ack_session("carol");
    let second = world.session_with_mail("carol");
    world.on(second).gets(&["good null #auth_special", "post 1"]);
    assert_eq!(world.disk.waiting("carol"), 1);
    world.on(first).acknowledges(1);
    assert_eq!(world.disk.waiting("carol"), 0);
}

#[test]
fn what_one_session_has_had_waits_for_another_that_is_behind() {
    let mut world = World::new();
    world.alice_posts(&["carol"], "1", "good 0/0/0 queued:1");
    let mut slow = world.connects();
    slow.stops_reading();
    slow.logs_in("carol", 1);
    let slow = slow.conn;
    let fast = world.session_with_mail("carol");
    world.on(fast).gets(&["good null #auth_special", "post 1"]);
    assert_eq!(world.disk.waiting("carol"), 1);
    world.on(slow).reads_on();
    world.on(slow).gets(&["good null #auth_special", "post 1"]);
}

#[test]
fn a_reader_that_stops_gets_the_rest_from_its_mailbox() {
    let mut world = World::new();
    world.bob().stops_reading();
    world.alice_posts(&["bob", "eve"], "1", "good 2/0/0");
    world.alice_posts(&["bob", "eve"], "2", "good 1/0/0 queued:1");
    world.alice_posts(&["bob", "eve"], "3", "good 1/0/0 queued:1");
    world.eve().gets(&["post 1", "post 2", "post 3"]);
    assert_eq!(world.disk.waiting("bob"), 3);
    world.bob().gets(&["post 1"]);
    world.bob().reads_on();
    world.bob().gets(&["post 2", "post 3"]);
    assert_eq!(world.disk.waiting("bob"), 0);
    world.alice_posts(&["bob"], "4", "good 1/0/0");
    world.bob().gets(&["post 4"]);
}

#[test]
fn a_reader_that_stops_is_closed_when_what_it_did_not_read_is_lost() {
    let mut world = World::new();
    world.bob().stops_reading();
    world.disk.trouble = Some(crate::store::mail::Trouble::Storage);
    world.alice_posts(&["bob"], "1", "good 1/0/0");
    assert_eq!(world.bob().closed(), Some(CloseReason::TooSlow));
}

#[test]
fn a_letter_waits_until_the_window_has_room_for_it() {
    let mut world = World::new();
    let carol = world.ack_session("carol");
    let of = |bytes: usize| format!("\"{}\"", "x".repeat(bytes));
    world.alice_posts(&["carol"], &of(400), "good 0/0/0 queued:1");
    world.alice_posts(&["carol"], &of(700), "good 0/0/0 queued:1");
    world.on(carol).gets(&["good null #auth_special", &format!("post {} @1", of(400))]);
    world.on(carol).acknowledges(1);
    world.on(carol).gets(&[&format!("post {} @2", of(700))]);
}

#[test]
fn what_a_reader_that_stopped_did_not_get_it_gets_in_its_next_session() {
    let mut world = World::new();
    world.bob().stops_reading();
    for n in 1..=2 {
        world.alice().asks("post", "0", "p");
        world.handler("post").answers(&to(&["bob"], &n.to_string()));
    }
    world.bob().disconnects();
    world.alice_posts_after(3);
    let bob = world.session_with_mail("bob");
    world.on(bob).gets(&["good null #auth_special", "post 1", "post 2", "post 3"]);
}

impl World {
    fn alice_posts_after(&mut self, n: usize) {
        self.alice().frames();
        self.alice_posts(&["bob"], &n.to_string(), "good 0/0/0 queued:1");
    }
}

#[test]
fn a_reply_to_who_is_gone_waits_for_him() {
    let mut world = World::new();
    world.bob().asks("post", "0", "p");
    world.bob().disconnects();
    world.handler("post").answers(&reply("1"));
    let bob = world.ack_session("bob");
    world.on(bob).gets(&["good null #auth_special", "post 1 @1"]);
    world.on(bob).asks("post", "0", "q");
    world.handler("post").answers(&reply("2"));
    world.on(bob).gets(&["post 2 @2 #q", "good 0/0/0 queued:1 #q"]);
}

#[test]
fn nothing_overtakes_a_reply_to_who_is_gone() {
    let mut world = World::new();
    let other = world.session("bob");
    world.bob().asks("post", "0", "p");
    world.bob().disconnects();
    world.disk.rests = true;
    world.handler("post").answers(&reply("1"));
    // Nothing waits for its socket, but something is on its way into the mailbox.
    world.on(other).tells(Event::Emptied);
    world.alice().asks("post", "0", "q");
    world.handler("post").answers(&to(&["bob"], "2"));
    world.disk.rests = false;
    world.passes(Duration::from_millis(1));
    world.on(other).gets(&["post 1", "post 2"]);
}

#[test]
fn a_reply_that_is_queued_outlives_the_session_that_asked() {
    let mut world = World::new();
    let (live, asker, gone) = (world.session("carol"), world.ack_session("carol"), world.session("carol"));
    world.on(asker).asks("post", "0", "p");
    world.on(gone).asks("post", "0", "q");
    world.on(asker).stops_reading();
    world.handler("post").answers(&reply("1"));
    world.on(asker).disconnects();
    world.on(gone).disconnects();
    world.handler("post").answers(&reply("2"));
    world.on(live).gets(&["post 1", "post 2"]);
}

#[test]
fn who_acknowledges_and_has_ended_its_input_gets_the_reply_in_its_next_session() {
    let mut world = World::new();
    let carol = world.ack_session("carol");
    world.on(carol).asks("post", "0", "p");
    world.on(carol).tells(Event::InputEnded);
    world.handler("post").answers(&reply("1"));
    world.on(carol).gets(&["good null #auth_special", "good 0/0/0 queued:1 #p"]);
    let carol = world.ack_session("carol");
    world.on(carol).gets(&["good null #auth_special", "post 1 @1"]);
}

#[test]
fn who_has_ended_its_input_is_away_for_others() {
    let mut world = World::new();
    world.eve().asks("post", "0", "p");
    world.eve().tells(Event::InputEnded);
    world.alice().asks("many", "0", "m");
    world.handler("many").answers(&to(&["eve"], "1").replacen(r#""status""#, r#""offline":"queue","status""#, 1));
    world.alice().gets(&["good 0/0/0 queued:1 #m"]);
    assert_eq!(world.disk.waiting("eve"), 1);
    world.handler("post").answers(&none());
    world.eve().disconnects();
    let eve = world.session_with_mail("eve");
    world.on(eve).gets(&["good null #auth_special", "many 1"]);
}

#[test]
fn who_has_ended_its_input_is_sent_no_mail() {
    let mut world = World::new();
    world.alice_posts(&["carol"], "1", "good 0/0/0 queued:1");
    world.disk.rests = true;
    let carol = world.session_with_mail("carol");
    world.on(carol).asks("post", "0", "p");
    world.on(carol).tells(Event::InputEnded);
    world.disk.rests = false;
    world.passes(Duration::from_millis(1));
    world.handler("post").answers(&to(&["carol"], "2"));
    world.on(carol).gets(&["good null #auth_special", "post 2 #p", "good 1/0/0 #p"]);
    assert_eq!(world.disk.waiting("carol"), 1);
}

#[test]
fn a_page_that_was_asked_for_before_a_login_is_not_sent_after_it() {
    let mut world = World::new();
    world.alice_posts(&["carol"], "1", "good 0/0/0 queued:1");
    world.disk.rests = true;
    let conn = world.session_with_mail("carol");
    world.on(conn).logs_in("bob", 1);
    world.disk.rests = false;
    world.passes(Duration::from_millis(1));
    world.on(conn).gets(&["good null #auth_special", "good null #auth_special"]);
    world.alice_posts(&["bob"], "3", "good 1/0/0");
    world.on(conn).gets(&["post 3"]);
    assert_eq!(world.disk.waiting("carol"), 1);
}

#[test]
fn a_server_that_stops_tells_those_who_acknowledge_and_waits_for_the_disk() {
    let mut world = World::new();
    let carol = world.ack_session("carol");
    world.disk.rests = true;
    world.alice().asks("post", "0", "p");
    world.handler("post").answers(&to(&["carol"], "1"));
    world.handle(Event::Drain);
    assert_eq!(world.drained, 0);
    world.bob().gets(&[]);
    let told = world.on(carol).frames();
    assert!(told.last().is_some_and(|frame| frame.contains(r#""messageType":"draining""#)), "{told:?}");
    world.disk.rests = false;
    world.passes(Duration::from_millis(1));
    assert_eq!(world.drained, 1);
    world.alice().gets(&["good 0/0/0 queued:1 #p"]);
}
