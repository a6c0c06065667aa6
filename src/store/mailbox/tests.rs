use super::super::fake::{keep, name, number, open, parcel};
use super::super::mail::Recipient;
use super::super::page::Asked;
use super::super::{Database, StoreError};
use super::*;
use std::sync::Arc;

const WIDE: Bounds = Bounds { messages: 1000, bytes: 1 << 20 };

/// Puts a letter in mailboxes.
fn put(database: &mut Database, parcel: &Parcel, bounds: Bounds, now: i64) -> Vec<Place> {
    let mut places = Vec::new();
    database.transact(|rows| Mailboxes(rows).keep(parcel, bounds, now, &mut places)).unwrap();
    database.check().unwrap();
    places
}

fn settle(database: &mut Database, user: &str, up_to: u64, strict: bool) -> Settled {
    let settled = database.transact(|rows| Mailboxes(rows).settle(&name(user), UpTo { seq: up_to, reports: true, strict }, 1000)).unwrap();
    database.check().unwrap();
    settled.0
}

fn tried(database: &mut Database, user: &str, seqs: &[u64], often: u32) -> Vec<(u64, u64)> {
    let mut aside = Vec::new();
    database.transact(|rows| Mailboxes(rows).tried(&name(user), seqs, often, &mut aside)).unwrap();
    database.check().unwrap();
    aside.iter().map(|aside| (aside.seq, aside.attempts)).collect()
}

/// All numbers in a mailbox that would be sent.
fn seqs(database: &Database, user: &str) -> Vec<u64> {
    let user = name(user);
    let asked =
        Asked { user: &user, after: 0, reports: true, letters_max: 1000, bytes_max: usize::MAX, start_prefix: "", tried: 0, suspect: 0 };
    Mailboxes(database.rows()).page(&asked).unwrap().mail.iter().map(|mail| mail.seq).collect()
}

fn bodies(database: &Database) -> i64 {
    number(database.rows(), "SELECT count(*) FROM bodies")
}

#[test]
fn a_letter_is_stored_once_and_goes_with_its_last_row() {
    let (_directory, _, mut database) = open(&["alice", "bob", "carol"]);
    let places = put(&mut database, &parcel("s/1-1", "hi", &["alice", "nobody", "bob", "carol"]), WIDE, 5);
    assert_eq!(places, [Place::Queued(1), Place::Unknown, Place::Queued(1), Place::Queued(1)]);
    assert_eq!(bodies(&database), 1);
    assert_eq!(settle(&mut database, "alice", 1, true), Settled::All);
    assert_eq!(settle(&mut database, "bob", 1, true), Settled::All);
    assert_eq!((bodies(&database), seqs(&database, "carol")), (1, vec![1]));
    assert_eq!(settle(&mut database, "carol", 1, true), Settled::All);
    assert_eq!(bodies(&database), 0);
}

#[test]
fn nothing_is_left_of_a_letter_for_nobody() {
    let (_directory, _, mut database) = open(&["alice"]);
    assert_eq!(put(&mut database, &parcel("s/1-1", "hi", &["nobody"]), WIDE, 5), [Place::Unknown]);
    assert_eq!(put(&mut database, &parcel("s/1-1", "hi", &["alice"]), Bounds { messages: 9, bytes: 1 }, 5), [Place::Refused]);
    assert_eq!((bodies(&database), number(database.rows(), "SELECT count(*) FROM mailboxes")), (0, 0));
}

#[test]
fn a_full_mailbox_refuses_and_takes_again_what_then_fits() {
    let (_directory, _, mut database) = open(&["alice"]);
    let bounds = Bounds { messages: 3, bytes: 10 };
    let mut place = |data: &str| put(&mut database, &parcel("s/1-1", data, &["alice"]), bounds, 5)[0];
    assert_eq!(place("12345678901"), Place::Refused, "larger than a mailbox");
    assert_eq!(place("1234567890"), Place::Queued(1), "just as large");
    assert_eq!(place(""), Place::Queued(2), "nothing takes no room");
    assert_eq!(place("1"), Place::Refused, "too many bytes");
    assert_eq!(place(""), Place::Queued(3));
    assert_eq!(place(""), Place::Refused, "too many");
    settle(&mut database, "alice", 1, true);
    assert_eq!(put(&mut database, &parcel("s/1-1", "12345", &["alice"]), bounds, 5), [Place::Queued(4)], "a refused one uses up no number");
}

#[test]
fn numbers_never_come_again() {
    let (_directory, path, mut database) = open(&["alice"]);
    let alice = parcel("s/1-1", "hi", &["alice"]);
    put(&mut database, &alice, WIDE, 5);
    put(&mut database, &alice, WIDE, 5);
    settle(&mut database, "alice", 2, true);
    drop(database);
    let mut database = Database::open(&path).unwrap();
    assert_eq!(put(&mut database, &alice, WIDE, 5), [Place::Queued(3)]);
    database.remove(&name("alice")).unwrap();
    assert_eq!((bodies(&database), number(database.rows(), "SELECT count(*) FROM mail")), (0, 0));
    database.check().unwrap();
    assert_eq!(put(&mut database, &alice, WIDE, 5), [Place::Unknown]);
    database.add(&name("alice"), &super::super::fake::hash()).unwrap();
    assert_eq!(put(&mut database, &alice, WIDE, 5), [Place::Queued(4)]);
}

#[test]
fn who_is_removed_takes_only_his_own_along() {
    let (_directory, _, mut database) = open(&["alice", "bob"]);
    put(&mut database, &parcel("s/1-1", "both", &["alice", "bob"]), WIDE, 5);
    put(&mut database, &parcel("s/1-2", "one", &["alice"]), WIDE, 5);
    database.remove(&name("alice")).unwrap();
    database.check().unwrap();
    assert_eq!((bodies(&database), seqs(&database, "bob")), (1, vec![1]));
}

#[test]
fn who_is_disabled_gets_mail() {
    let (_directory, _, mut database) = open(&["alice"]);
    database.set_disabled(&name("alice"), true).unwrap();
    assert_eq!(put(&mut database, &parcel("s/1-1", "hi", &["alice"]), WIDE, 5), [Place::Queued(1)]);
}

#[test]
fn only_what_there_was_can_be_settled() {
    let (_directory, _, mut database) = open(&["alice"]);
    assert_eq!(settle(&mut database, "alice", 1, true), Settled::Beyond(0));
    assert_eq!(settle(&mut database, "alice", 0, true), Settled::All);
    assert_eq!(settle(&mut database, "alice", 7, false), Settled::All);
    for _ in 0..3 {
        put(&mut database, &parcel("s/1-1", "hi", &["alice"]), WIDE, 5);
    }
    assert_eq!(settle(&mut database, "alice", 4, true), Settled::Beyond(3));
    assert_eq!(settle(&mut database, "alice", u64::MAX, true), Settled::Beyond(3));
    assert_eq!(seqs(&database, "alice"), [1, 2, 3], "nothing is deleted then");
    assert_eq!(settle(&mut database, "alice", 2, true), Settled::All);
    assert_eq!(seqs(&database, "alice"), [3]);
    assert_eq!(settle(&mut database, "alice", 1, true), Settled::All, "once more");
    assert_eq!(settle(&mut database, "alice", u64::MAX, false), Settled::All);
    assert_eq!(settle(&mut database, "alice", 3, true), Settled::All, "there was such a number");
}

#[test]
fn much_is_settled_a_part_at_a_time() {
    let (_directory, _, mut database) = open(&["alice"]);
    for _ in 0..5 {
        put(&mut database, &parcel("s/1-1", "hi", &["alice"]), WIDE, 5);
    }
    let mut part = |most| {
        database.transact(|rows| Mailboxes(rows).settle(&name("alice"), UpTo { seq: 5, reports: true, strict: true }, most)).unwrap()
    };
    assert_eq!(part(0), (Settled::Some, 0));
    assert_eq!(part(3), (Settled::Some, 3));
    assert_eq!(part(3), (Settled::All, 2));
    assert!(seqs(&database, "alice").is_empty());
}

#[test]
fn what_is_sent_too_often_is_set_aside() {
    let (_directory, _, mut database) = open(&["alice"]);
    for _ in 0..3 {
        put(&mut database, &parcel("s/1-1", "hi", &["alice"]), WIDE, 5);
    }
    assert!(tried(&mut database, "alice", &[1, 2, 9], 3).is_empty());
    assert!(tried(&mut database, "alice", &[2], 3).is_empty());
    assert_eq!(tried(&mut database, "alice", &[1, 2], 3), [(2, 3)]);
    assert_eq!(seqs(&database, "alice"), [1, 3]);
    assert!(tried(&mut database, "alice", &[2], 3).is_empty(), "it is aside already");
    // An acknowledgement is for what can be sent.
    settle(&mut database, "alice", 3, true);
    assert!(seqs(&database, "alice").is_empty());
    assert_eq!(number(database.rows(), "SELECT messages FROM mailboxes"), 1, "it still counts");
    let full = put(&mut database, &parcel("s/1-1", "hi", &["alice"]), Bounds { messages: 1, bytes: 100 }, 5);
    assert_eq!(full, [Place::Refused]);
    assert_eq!(database.retry(&name("alice"), super::super::Which::Aside).unwrap(), 1);
    assert_eq!(seqs(&database, "alice"), [4]);
    assert!(tried(&mut database, "alice", &[4], 3).is_empty(), "counted anew");
    settle(&mut database, "alice", 3, true);
    assert_eq!(seqs(&database, "alice"), [4], "what was acknowledged is not what comes again");
}

#[test]
fn what_is_old_goes_and_what_follows_stays() {
    let (_directory, _, mut database) = open(&["alice", "bob", "carol"]);
    for kept in [10, 20, 900, 30, 40] {
        put(&mut database, &parcel("s/1-1", "hi", &["alice", "carol"]), WIDE, kept);
    }
    put(&mut database, &parcel("s/1-1", "hi", &["bob"]), WIDE, 35);
    tried(&mut database, "carol", &[1], 1);
    let find = |after, boxes, letters| Mailboxes(database.rows()).expired(after, 35, 500, boxes, letters).unwrap();
    let all = find(0, 100, 100);
    let seqs: Vec<Vec<i64>> = all.rows.iter().map(|(_, rows)| rows.iter().map(|row| row.seq).collect()).collect();
    // The third is from a time that is still to come; the clock was wrong, and it holds up nothing.
    assert_eq!(seqs, [[1, 2, 4], [1, 2, 4]], "what was set aside goes, too");
    assert_eq!(all.next, None);

    let some = find(0, 100, 2);
    assert_eq!((some.rows.len(), some.rows[0].1.len()), (1, 2));
    assert_eq!(some.next, Some(some.rows[0].0 - 1), "the same once more");
    let first = find(0, 1, 100);
    assert_eq!((first.rows.len(), first.next), (1, Some(first.rows[0].0)));
}

#[test]
fn a_page_ends_where_it_is_full() {
    let (_directory, _, mut database) = open(&["alice"]);
    for data in ["12345", "123", "1", ""] {
        put(&mut database, &parcel("s/1-1", data, &["alice"]), WIDE, 5);
    }
    let alice = name("alice");
    let page = |after, letters_max, bytes_max| {
        let asked = Asked { user: &alice, after, reports: true, letters_max, bytes_max, start_prefix: "", tried: 0, suspect: 0 };
        let page = Mailboxes(database.rows()).page(&asked).unwrap();
        (page.mail.iter().map(|mail| mail.seq).collect::<Vec<_>>(), page.more)
    };
    assert_eq!(page(0, 9, 99), (vec![1, 2, 3, 4], false));
    assert_eq!(page(0, 4, 99), (vec![1, 2, 3, 4], false));
    assert_eq!(page(0, 2, 99), (vec![1, 2], true));
    assert_eq!(page(0, 0, 99), (vec![1], true));
    assert_eq!(page(0, 9, 8), (vec![1, 2], true));
    assert_eq!(page(0, 9, 7), (vec![1], true));
    assert_eq!(page(0, 9, 0), (vec![1], true), "always one");
    assert_eq!(page(2, 9, 1), (vec![3, 4], false));
    assert_eq!(page(4, 9, 99), (vec![], false));
    assert_eq!(page(u64::MAX, 9, 99), (vec![], false));
}

#[test]
fn a_letter_comes_out_as_it_went_in() {
    let (_directory, _, mut database) = open(&["alice"]);
    let sent = parcel("s/1-1", "{\"a\":1.0,\"b\":\"\u{e4}\"}", &["alice"]);
    put(&mut database, &sent, WIDE, 5);
    put(&mut database, &Parcel { letter: Letter { asker: None, ..(*sent.letter).clone() }.into(), ..sent.clone() }, WIDE, 5);
    let alice = name("alice");
    let mail = |start_prefix, tried, suspect| {
        let asked = Asked { user: &alice, after: 0, reports: true, letters_max: 9, bytes_max: 99, start_prefix, tried, suspect };
        Mailboxes(database.rows()).page(&asked).unwrap().mail
    };
    assert_eq!(mail("s/1-", 0, 0)[0].letter, sent.letter);
    assert_eq!(mail("s/1-", 0, 0)[1].letter.asker, None);
    // Its number may be another connection's by now.
    assert_eq!(mail("s/2-", 0, 0)[0].letter.asker, None);
    let redelivered = |tried, suspect| mail("", tried, suspect).iter().map(|mail| mail.redelivered).collect::<Vec<_>>();
    assert_eq!(redelivered(0, 0), [false, false]);
    assert_eq!(redelivered(1, 0), [true, false]);
    assert_eq!(redelivered(0, 1), [true, false]);
    super::super::fake::number(database.rows(), "SELECT count(*) FROM mail");
    tried(&mut database, "alice", &[2], 20);
    let mail = Mailboxes(database.rows())
        .page(&Asked { user: &alice, after: 1, reports: true, letters_max: 9, bytes_max: 99, start_prefix: "", tried: 0, suspect: 0 })
        .unwrap()
        .mail;
    assert!(mail[0].redelivered);
}

#[test]
fn a_lost_text_is_not_passed_over() {
    let (_directory, _, mut database) = open(&["alice"]);
    put(&mut database, &parcel("s/1-1", "hi", &["alice"]), WIDE, 5);
    put(&mut database, &parcel("s/1-2", "hi", &["alice"]), WIDE, 5);
    database.connection.execute("DELETE FROM bodies WHERE body = 1", []).unwrap();
    let alice = name("alice");
    let asked = Asked { user: &alice, after: 0, reports: true, letters_max: 9, bytes_max: 99, start_prefix: "", tried: 0, suspect: 0 };
    let lost = Mailboxes(database.rows()).page(&asked).unwrap_err();
    assert!(matches!(lost, StoreError::Lost { seq: 1, .. }), "{lost:?}");
    assert!(lost.to_string().contains("bester queue drop alice 1"), "{lost}");
}

#[test]
fn those_who_were_handed_it_count_as_delivered_if_nothing_else_is_possible() {
    let counts = |recipients: &[(&str, bool, bool, Place)]| {
        let mut all = keep("s/1-1", "hi", &[]);
        all.parcels.clear();
        // Each in a parcel of his own, and all in one.
        let row = |(user, counts, handed, _): &(&str, bool, bool, Place)| Recipient { user: name(user), counts: *counts, handed: *handed };
        all.parcels = recipients.iter().map(|one| Parcel { recipients: vec![row(one)], ..parcel("s/1-1", "hi", &[]) }).collect();
        let places: Vec<Place> = recipients.iter().map(|one| one.3).collect();
        let counts = all.tally(&places);
        (counts.delivered, counts.queued, counts.unknown_users, counts.refused)
    };
    let (queued, refused, unknown) = (Place::Queued(1), Place::Refused, Place::Unknown);
    assert_eq!(counts(&[("a", true, false, queued), ("b", true, false, refused), ("c", true, false, unknown)]), (0, 1, 1, 1));
    assert_eq!(counts(&[("a", true, true, queued), ("b", true, true, refused), ("c", true, true, unknown)]), (2, 1, 0, 0));
    assert_eq!(counts(&[("a", false, false, queued), ("b", false, false, refused)]), (0, 0, 0, 0));
    assert_eq!(counts(&[("a", true, false, queued), ("a", false, false, queued)]), (0, 1, 0, 0), "once");
    assert_eq!(counts(&[("a", true, false, queued), ("a", false, false, refused)]), (0, 0, 0, 1), "by the worst");
    assert_eq!(counts(&[("a", false, false, refused), ("a", true, false, queued)]), (0, 0, 0, 1), "in any order");
    assert_eq!(counts(&[("a", true, false, queued)]), (0, 1, 0, 0));
    assert_eq!(counts(&[("a", true, true, refused)]), (1, 0, 0, 0));
    assert_eq!(counts(&[("a", false, false, refused)]), (0, 0, 0, 0));
}

#[test]
fn reports_about_other_servers_wait_for_a_session_that_acknowledges() {
    use super::super::mail::{Letter, Parcel, Undelivered};
    use crate::frame::Slice;
    use crate::protocol::reason::Reason;
    let (_directory, _, mut database) = open(&["alice"]);
    let (letter, report) = (parcel("s/1-1", "hi", &["alice"]), parcel("s/1-2", "{}", &["alice"]));
    let id = Some(Slice::from(&b"\"m\""[..]));
    let undelivered = Some(Undelivered { reason: Reason::PeerRefused, id });
    let report = Parcel { letter: Arc::new(Letter { report: undelivered.clone(), ..(*report.letter).clone() }), ..report };
    for parcel in [&report, &letter] {
        database.transact(|rows| Mailboxes(rows).keep(parcel, Bounds { messages: 9, bytes: 99 }, 7, &mut Vec::new())).unwrap();
    }
    let user = name("alice");
    let seen = |database: &Database, reports| {
        let asked = Asked { user: &user, after: 0, reports, letters_max: 9, bytes_max: 99, start_prefix: "", tried: 0, suspect: 0 };
        let page = Mailboxes(database.rows()).page(&asked).unwrap();
        page.mail.into_iter().map(|mail| (mail.seq, mail.letter.report.clone())).collect::<Vec<_>>()
    };
    assert_eq!(seen(&database, true), [(1, undelivered.clone()), (2, None)]);
    assert_eq!(seen(&database, false), [(2, None)]);
    let settle = |database: &mut Database, reports| {
        database.transact(|rows| Mailboxes(rows).settle(&name("alice"), UpTo { seq: 2, reports, strict: true }, 9)).unwrap()
    };
    assert_eq!(settle(&mut database, false), (Settled::All, 1));
    assert_eq!(seen(&database, true), [(1, undelivered)]);
    assert_eq!(settle(&mut database, true), (Settled::All, 1));
    assert_eq!(seen(&database, true), []);
}
