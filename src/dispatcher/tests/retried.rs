//! Letters that were set aside and that the operator has sent again: another process has put them at the end of the mailbox,
//! and the dispatcher hears of it later, or not at all.

use super::*;
use crate::store::mail::Mail;

impl World {
    /// A session with acknowledgements, and all that comes to it at once.
    fn acknowledges(&mut self, name: &str) -> ConnId {
        let mut person = self.connects();
        person.logs_in_with(name, 1, true, None);
        person.gets(&["good null #auth_special"]);
        person.conn
    }

    #[track_caller]
    fn eve_posts(&mut self, to_: &str, data: &str, report: &str) {
        self.eve().asks("post", "0", "p");
        self.handler("post").answers(&to(&[to_], data));
        self.eve().gets(&[&format!("{report} #p")]);
    }

    fn sets_aside(&mut self, name: &str, seq: u64) -> Mail {
        let mailbox = self.disk.mailboxes.get_mut(name).expect("a mailbox");
        mailbox.mail.remove(&seq).expect("a letter")
    }

    /// The operator's command, as far as it changes the database.
    fn puts_back(&mut self, name: &str, mail: Mail) {
        let mailbox = self.disk.mailboxes.get_mut(name).expect("a mailbox");
        mailbox.last += 1;
        mailbox.mail.insert(mailbox.last, Mail { seq: mailbox.last, redelivered: true, ..mail });
    }

    /// A letter of carol's is set aside; her session has gone on to the next.
    fn with_one_aside(&mut self) -> (ConnId, Mail) {
        self.eve_posts("carol", "1", "good 0/0/0 queued:1");
        let aside = self.sets_aside("carol", 1);
        let carol = self.acknowledges("carol");
        self.eve_posts("carol", "2", "good 0/0/0 queued:1");
        self.on(carol).gets(&["post 2 @2"]);
        (carol, aside)
    }

    fn hears_of(&mut self, name: &str) {
        self.handle(Event::MailboxChanged(username(name)));
    }
}

#[test]
fn a_session_gets_what_is_sent_again_without_logging_in_again() {
    let mut world = World::new();
    let (carol, aside) = world.with_one_aside();
    world.puts_back("carol", aside);
    world.on(carol).gets(&[]);
    world.hears_of("carol");
    world.on(carol).gets(&["post 1 @@3"]);
    world.on(carol).acknowledges(2);
    assert_eq!(world.disk.waiting("carol"), 1, "what comes again is not what was acknowledged");
    world.on(carol).acknowledges(3);
    assert_eq!(world.disk.waiting("carol"), 0);
    world.eve_posts("carol", "4", "good 0/0/0 queued:1");
    world.on(carol).gets(&["post 4 @4"]);
    world.hears_of("carol");
    world.hears_of("nobody");
    world.on(carol).gets(&[]);
}

#[test]
fn who_is_sent_something_new_first_gets_what_lies_before_it_though_nobody_told_of_it() {
    let mut world = World::new();
    let (carol, aside) = world.with_one_aside();
    world.puts_back("carol", aside);
    world.eve_posts("carol", "4", "good 0/0/0 queued:1");
    world.on(carol).gets(&["post 1 @@3", "post 4 @4"]);
    world.on(carol).acknowledges(4);
    world.hears_of("carol");
    world.on(carol).gets(&[]);
    assert_eq!(world.disk.waiting("carol"), 0);
}

#[test]
fn what_is_sent_again_while_a_page_is_on_its_way_is_asked_for_after_it() {
    let mut world = World::new();
    let (carol, aside) = world.with_one_aside();
    world.disk.rests = true;
    world.hears_of("carol");
    world.disk.rests = false;
    let page = world.disk.works().expect("a page, read before there is anything");
    world.puts_back("carol", aside);
    world.hears_of("carol");
    world.on(carol).gets(&[]);
    page.into_iter().for_each(|told| world.handle(Event::Stored(told)));
    world.on(carol).gets(&["post 1 @@3"]);
}

#[test]
fn a_full_window_bounds_what_is_sent_again_too() {
    let mut world = World::new();
    let (carol, aside) = world.with_one_aside();
    for n in 3..=5 {
        world.eve_posts("carol", &n.to_string(), "good 0/0/0 queued:1");
    }
    world.on(carol).gets(&["post 3 @3", "post 4 @4", "post 5 @5"]);
    world.puts_back("carol", aside);
    world.hears_of("carol");
    world.on(carol).gets(&[]);
    world.on(carol).acknowledges(5);
    world.on(carol).gets(&["post 1 @@6"]);
}

#[test]
fn a_session_without_acknowledgements_gets_it_and_then_what_is_new() {
    let mut world = World::new();
    let aside = world.with_one_aside().1;
    let bobs = [ConnId(2), world.session("bob")];
    world.disk.mailboxes.entry("bob".into()).or_default().last = 7;
    world.puts_back("bob", aside);
    world.hears_of("bob");
    for bob in bobs {
        world.on(bob).gets(&["post 1"]);
    }
    assert_eq!(world.disk.waiting("bob"), 0, "all of them have it");
    world.eve_posts("bob", "2", "good 1/0/0");
    world.bob().gets(&["post 2"]);
}

#[test]
fn what_a_slow_reader_was_handed_does_not_hide_what_lies_before_it() {
    for told in [false, true] {
        let mut world = World::new();
        let aside = world.with_one_aside().1;
        let other = world.session("bob");
        world.disk.mailboxes.entry("bob".into()).or_default().last = 7;
        world.disk.rests = true;
        world.bob().stops_reading();
        world.eve().asks("post", "0", "p");
        world.handler("post").answers(&to(&["bob"], "2"));
        world.puts_back("bob", aside);
        if told {
            world.hears_of("bob");
        }
        world.disk.rests = false;
        world.passes(Duration::from_millis(1));
        world.on(other).gets(&["post 2", "post 1"]);
        world.bob().reads_on();
        world.bob().gets(&["post 2", "post 1"]);
        assert_eq!(world.disk.waiting("bob"), 0);
        world.eve().gets(&["good 1/0/0 #p"]);
        world.eve_posts("bob", "3", "good 1/0/0");
        world.bob().gets(&["post 3"]);
        world.on(other).gets(&["post 3"]);
    }
}

#[test]
fn nothing_new_is_handed_over_before_the_mailbox_was_read() {
    for told in [false, true] {
        let mut world = World::new();
        let aside = world.with_one_aside().1;
        let other = world.session("bob");
        world.disk.mailboxes.entry("bob".into()).or_default().last = 7;
        world.disk.rests = true;
        world.on(other).stops_reading();
        world.eve().asks("post", "0", "p");
        world.handler("post").answers(&to(&["bob"], "2"));
        world.puts_back("bob", aside);
        if told {
            world.hears_of("bob");
        } else {
            world.disk.rests = false;
            let kept = world.disk.works().expect("what the other one did not read");
            world.disk.rests = true;
            kept.into_iter().for_each(|told| world.handle(Event::Stored(told)));
        }
        world.eve().asks("post", "0", "q");
        world.handler("post").answers(&to(&["bob"], "3"));
        world.bob().gets(&["post 2"]);
        world.disk.rests = false;
        world.passes(Duration::from_millis(1));
        world.bob().gets(&["post 1", "post 3"]);
        world.on(other).reads_on();
        world.on(other).gets(&["post 2", "post 1", "post 3"]);
        assert_eq!(world.disk.waiting("bob"), 0);
    }
}
