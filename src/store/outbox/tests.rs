use super::super::fake::{befriend, name, number, open, outgoing, reports, server};
use super::super::{Database, Verify};
use super::*;
use std::cell::RefCell;

const NOW: i64 = 1000;

fn settings() -> Settings {
    Settings { outbox_messages: 3, outbox_bytes: 10, peers: 2, ..Settings::default() }
}

fn put(database: &mut Database, outgoing: &Outgoing) -> (Place, bool) {
    let keep = |rows: Rows<'_>| Outboxes { rows, now: NOW, written: &|_| {} }.keep(outgoing, &settings());
    let kept = database.transact(keep).unwrap();
    database.check().unwrap();
    kept
}

fn sent(database: &mut Database, peer: PeerId, receipt: &Receipt) -> Vec<String> {
    let sent = |rows: Rows<'_>| Outboxes { rows, now: NOW, written: &|_| {} }.sent(peer, receipt);
    let told = database.transact(sent).unwrap();
    database.check().unwrap();
    told.iter().map(ToString::to_string).collect()
}

fn seqs(database: &Database, peer: PeerId) -> Vec<u64> {
    page(database.rows(), peer, 0, 1000, usize::MAX).unwrap().messages.iter().map(|(seq, _)| *seq).collect()
}

#[test]
fn a_message_is_read_as_it_was_kept() {
    let (_directory, _, mut database) = open(&["alice"]);
    let [b, c] = befriend(&mut database, ["b.example", "c.example"]);
    let pushed = outgoing(b, "s/1-1", "[1]", None);
    let led_to = Outgoing { hops: 7, ..outgoing(b, "s/1-2", "", Some("alice")) };
    let author = Author { id: None, ..led_to.author.clone().unwrap() };
    let without_id = Outgoing { author: Some(author), ..outgoing(b, "s/1-3", "3", None) };
    for (one, seq) in [&pushed, &led_to, &without_id].into_iter().zip(1..) {
        assert_eq!(put(&mut database, one), (Place::Queued(seq), false));
    }
    let kept = [pushed, led_to, without_id].map(Arc::new);
    let expected = |seqs: std::ops::Range<usize>, more| {
        let messages = seqs.map(|seq| (seq as u64, Arc::clone(&kept[seq - 1]))).collect();
        OutboxPage { messages, more }
    };
    let page = |peer, after, messages_max, bytes_max| page(database.rows(), peer, after, messages_max, bytes_max).unwrap();
    assert_eq!(page(b, 0, 9, 99), expected(1..4, false));
    assert_eq!(page(b, 1, 9, 99), expected(2..4, false));
    assert_eq!(page(b, 0, 2, 99), expected(1..3, true));
    assert_eq!(page(b, 0, 9, 3), expected(1..3, true), "nothing takes no room");
    assert_eq!(page(b, 0, 9, 4), expected(1..4, false));
    assert_eq!(page(b, 0, 0, 0), expected(1..2, true), "one always fits");
    assert_eq!(page(b, 3, 9, 99), OutboxPage::default());
    assert_eq!(page(c, 0, 9, 99), OutboxPage::default());
}

#[test]
fn a_full_outbox_refuses_and_takes_again_what_then_fits() {
    let (_directory, _, mut database) = open(&[]);
    let [b, c] = befriend(&mut database, ["b.example", "c.example"]);
    let place = |database: &mut Database, data: &str| put(database, &outgoing(b, "s/1-1", data, None)).0;
    assert_eq!(place(&mut database, "12345678901"), Place::Refused, "larger than an outbox");
    assert_eq!(place(&mut database, "1234567890"), Place::Queued(1), "just as large");
    assert_eq!(place(&mut database, "1"), Place::Refused, "too many bytes");
    assert_eq!(place(&mut database, ""), Place::Queued(2));
    assert_eq!(place(&mut database, ""), Place::Queued(3));
    assert_eq!(place(&mut database, ""), Place::Refused, "too many");
    assert_eq!(put(&mut database, &outgoing(c, "s/1-1", "1", None)).0, Place::Queued(1), "each has its own");
    assert!(sent(&mut database, b, &Receipt::Taken(vec![1, 3, 9])).is_empty());
    assert_eq!(seqs(&database, b), [2]);
    assert_eq!(place(&mut database, "1"), Place::Queued(4), "a number is used once");
}

#[test]
fn what_is_for_no_peer_is_not_kept() {
    let (_directory, _, mut database) = open(&[]);
    let [b] = befriend(&mut database, ["b.example"]);
    database.remove_peer(&server("b.example")).unwrap();
    assert_eq!(put(&mut database, &outgoing(b, "s/1-1", "", None)), (Place::Unknown, false));
    // What is said of it late is nothing.
    for receipt in [Receipt::Taken(vec![1]), Receipt::Deferred(vec![1]), Receipt::Refused(1), Receipt::Unreached] {
        assert!(sent(&mut database, b, &receipt).is_empty());
    }
}

#[test]
fn an_address_becomes_a_peer_as_long_as_there_is_room() {
    let (_directory, _, mut database) = open(&[]);
    let mut send = |address: &str, data: &str| {
        let to = Destination::Address(address.parse().unwrap());
        put(&mut database, &Outgoing { to, ..outgoing(PeerId(0), "s/1-1", data, None) })
    };
    assert_eq!(send("192.0.2.1:25", "1"), (Place::Queued(1), true));
    assert_eq!(send("192.0.2.1:25", "1"), (Place::Queued(2), false));
    assert_eq!(send("192.0.2.2:25", "12345678901"), (Place::Refused, true), "it is known from now on");
    assert_eq!(send("192.0.2.3:25", "1"), (Place::Queued(1), true), "in the place of that one");
    assert_eq!(send("192.0.2.4:25", "1"), (Place::Refused, false), "there are as many as there may be");
    assert_eq!(send("[::1]:25", "1"), (Place::Unknown, false), "it cannot be a name");
    let peers = database.peers().unwrap();
    assert!(peers.iter().all(|peer| peer.verify == Verify::Open));
    assert_eq!(peers.iter().map(|peer| seqs(&database, peer.id).len()).collect::<Vec<_>>(), [2, 1]);
}

#[test]
fn whoever_wrote_what_is_refused_is_told() {
    let (_directory, _, mut database) = open(&["alice"]);
    let [b] = befriend(&mut database, ["b.example"]);
    put(&mut database, &outgoing(b, "s/1-2", "hi", Some("alice")));
    assert!(sent(&mut database, b, &Receipt::Refused(9)).is_empty(), "there is no such message");
    assert_eq!(sent(&mut database, b, &Receipt::Refused(1)), ["alice"]);
    assert!(seqs(&database, b).is_empty());
    let report = |seq, text: &str| (seq, Reason::PeerRefused, "\"c-1\"".to_owned(), "s/1-2".to_owned(), text.to_owned());
    let first = report(1, r#"{"attempts":1,"messageId":"s/1-1","server":"b.example"}"#);
    assert_eq!(reports(&database, "alice"), std::slice::from_ref(&first));
    assert!(sent(&mut database, b, &Receipt::Refused(1)).is_empty(), "once");

    // Twice not now, and three times it was not there; one of those was before the message.
    sent(&mut database, b, &Receipt::Unreached);
    put(&mut database, &outgoing(b, "s/1-2", "hi", Some("alice")));
    for receipt in [Receipt::Deferred(vec![2, 7]), Receipt::Unreached, Receipt::Deferred(vec![2]), Receipt::Unreached] {
        assert!(sent(&mut database, b, &receipt).is_empty());
    }
    assert_eq!(sent(&mut database, b, &Receipt::Refused(2)), ["alice"]);
    let second = report(2, r#"{"attempts":5,"messageId":"s/1-1","server":"b.example"}"#);
    assert_eq!(reports(&database, "alice"), [first, second]);
}

#[test]
fn a_report_finds_room_in_a_full_mailbox() {
    let (_directory, _, mut database) = open(&["alice"]);
    let [b] = befriend(&mut database, ["b.example"]);
    let full = Bounds { messages: 1, bytes: 2 };
    let letter = super::super::fake::parcel("s/1-7", "hi", &["alice"]);
    let keep = |database: &mut Database| {
        let mut places = Vec::new();
        database.transact(|rows| Mailboxes(rows).keep(&letter, full, NOW, &mut places)).unwrap();
        places
    };
    assert_eq!(keep(&mut database), [Place::Queued(1)]);
    put(&mut database, &outgoing(b, "s/1-2", "hi", Some("alice")));
    assert_eq!(sent(&mut database, b, &Receipt::Refused(1)), ["alice"]);
    assert_eq!(reports(&database, "alice").len(), 1);
    assert_eq!(keep(&mut database), [Place::Refused]);
}

#[test]
fn nobody_is_told_who_has_no_account_any_longer() {
    let (_directory, _, mut database) = open(&["alice"]);
    let [b] = befriend(&mut database, ["b.example"]);
    for author in [None, Some("nobody"), Some("alice")] {
        put(&mut database, &outgoing(b, "s/1-2", "hi", author));
    }
    // Whoever has the name later is somebody else.
    database.remove(&name("alice")).unwrap();
    database.add(&name("alice"), &super::super::fake::hash()).unwrap();
    let author = page(database.rows(), b, 2, 9, 99).unwrap().messages[0].1.author.clone().unwrap();
    assert_eq!((author.user, &*author.message_id), (name("alice"), ""), "it is not this server's own");
    for seq in 1..=3 {
        assert!(sent(&mut database, b, &Receipt::Refused(seq)).is_empty());
    }
    assert!(seqs(&database, b).is_empty());
    assert_eq!(number(database.rows(), "SELECT count(*) FROM bodies"), 0);
}

#[test]
fn the_bodies_of_reports_are_told() {
    let (_directory, _, mut database) = open(&["alice"]);
    let [b] = befriend(&mut database, ["b.example"]);
    for _ in 0..2 {
        put(&mut database, &outgoing(b, "s/1-2", "hi", Some("alice")));
    }
    let written = RefCell::new(Vec::new());
    let note = |body| written.borrow_mut().push(body);
    database.transact(|rows| Outboxes { rows, now: NOW, written: &note }.give_up(b, &[1, 2], Reason::Expired)).unwrap();
    assert_eq!(*written.borrow(), [1, 2]);
}

#[test]
fn what_is_too_old_is_found_a_portion_at_a_time() {
    let (_directory, _, mut database) = open(&[]);
    let [a, b, c] = befriend(&mut database, ["a.example", "b.example", "c.example"]);
    let wide = Settings::default();
    // The one of a seems to be kept later than now.
    for (peer, kept) in [(a, 5000), (a, 10), (b, 10), (b, 11), (b, 500), (c, 10), (c, 10)] {
        let keep = |rows: Rows<'_>| Outboxes { rows, now: kept, written: &|_| {} }.keep(&outgoing(peer, "s/1-1", "123", None), &wide);
        database.transact(keep).unwrap();
    }
    let expired = |after, peers, messages, bytes| {
        let outboxes = Outboxes { rows: database.rows(), now: NOW, written: &|_| {} };
        let due = outboxes.expired(after, 500, peers, Portion { messages, bytes }).unwrap();
        (due.seqs, due.next)
    };
    assert_eq!(expired(0, 9, 9, 99), (vec![(a, vec![2]), (b, vec![1, 2]), (c, vec![1, 2])], None));
    assert_eq!(expired(0, 2, 9, 99), (vec![(a, vec![2]), (b, vec![1, 2])], Some(2)));
    assert_eq!(expired(2, 2, 9, 99), (vec![(c, vec![1, 2])], None));
    assert_eq!(expired(0, 9, 2, 99), (vec![(a, vec![2]), (b, vec![1])], Some(1)), "more of b");
    assert_eq!(expired(1, 9, 9, 4), (vec![(b, vec![1])], Some(1)));
    assert_eq!(expired(1, 9, 9, 1), (vec![(b, vec![1])], Some(1)), "one always fits");
    assert_eq!(expired(1, 9, 2, 99), (vec![(b, vec![1, 2])], Some(2)), "of c there is some, and of b no more");
}
