use super::*;
use crate::store::Settings;
use crate::store::fake::{befriend, name, open, outgoing, reports, server};
use crate::store::mail::Receipt;

fn put(database: &mut Database, peer: PeerId, data: &str, author: Option<&str>, now: i64) {
    let keep = |rows: Rows<'_>| Outboxes { rows, now, written: &|_| {} }.keep(&outgoing(peer, "s/1-2", data, author), &Settings::default());
    database.transact(keep).unwrap();
}

fn sent(database: &mut Database, peer: PeerId, receipt: &Receipt) {
    database.transact(|rows| Outboxes { rows, now: 5, written: &|_| {} }.sent(peer, receipt)).unwrap();
}

fn all(database: &Database, peer: &str, data: bool) -> Vec<Unsent> {
    let mut all = Vec::new();
    let each = |unsent| {
        all.push(unsent);
        Ok::<_, StoreError>(())
    };
    database.outgoing(&server(peer), data, each).unwrap();
    all
}

#[test]
fn outboxes_are_listed_with_what_lies_in_them() {
    let (_directory, _, mut database) = open(&[]);
    let [b, a, _] = befriend(&mut database, ["b.example", "a.example", "c.example"]);
    assert_eq!((database.outboxes().unwrap(), database.outbox_totals().unwrap()), (vec![], OutboxTotals::default()));
    put(&mut database, b, "hello", None, 40);
    put(&mut database, b, "you", Some("alice"), 50);
    put(&mut database, a, "hi", None, 60);
    sent(&mut database, b, &Receipt::Taken(vec![1]));
    put(&mut database, b, "1", None, 70);
    let [of_a, of_b] = [("a.example", 1, 2, 60), ("b.example", 2, 4, 50)].map(|(peer, messages, bytes, oldest)| Outbox {
        peer: server(peer),
        messages,
        bytes,
        oldest,
    });
    assert_eq!(database.outboxes().unwrap(), [of_a, of_b]);
    assert_eq!(database.outbox_totals().unwrap(), OutboxTotals { outboxes: 2, messages: 3, bytes: 6 });
    sent(&mut database, b, &Receipt::Deferred(vec![2]));
    sent(&mut database, b, &Receipt::Unreached);
    let unsent = Unsent {
        seq: 2,
        kind: "chat".into(),
        message_id: "s/1-2".into(),
        bytes: 3,
        kept: 50,
        attempts: 2,
        author: Some("alice".into()),
        data: None,
    };
    assert_eq!(all(&database, "b.example", false)[0], unsent);
    assert_eq!(all(&database, "b.example", true)[0], Unsent { data: Some(b"you".to_vec()), ..unsent });
    assert!(all(&database, "c.example", true).is_empty());
}

#[test]
fn more_than_a_page_is_listed_in_order() {
    let (_directory, _, mut database) = open(&[]);
    let [b] = befriend(&mut database, ["b.example"]);
    for _ in 0..=PAGE {
        put(&mut database, b, "", None, 5);
    }
    let seqs: Vec<u64> = all(&database, "b.example", false).iter().map(|unsent| unsent.seq).collect();
    assert_eq!(seqs, (1..=PAGE.unsigned_abs() + 1).collect::<Vec<_>>());
    let stop = database.outgoing(&server("b.example"), false, |_| Err(StoreError::Busy));
    assert!(matches!(stop, Err(StoreError::Busy)));
}

#[test]
fn whoever_wrote_what_is_dropped_is_told() {
    let (_directory, _, mut database) = open(&["alice", "bob"]);
    let [b] = befriend(&mut database, ["b.example"]);
    for author in [Some("bob"), Some("alice"), Some("alice"), None, Some("nobody")] {
        put(&mut database, b, "hi", author, 5);
    }
    sent(&mut database, b, &Receipt::Unreached);
    let peer = server("b.example");
    assert_eq!(database.drop_outgoing(&peer, Which::Aside).unwrap(), GivenUp::default());
    assert_eq!(database.drop_outgoing(&peer, Which::One(9)).unwrap(), GivenUp::default());
    let told = |users: &[&str]| users.iter().map(|user| name(user)).collect();
    assert_eq!(database.drop_outgoing(&peer, Which::One(2)).unwrap(), GivenUp { messages: 1, told: told(&["alice"]) });
    let data = r#"{"attempts":1,"messageId":"s/1-1","server":"b.example"}"#;
    let report = |seq| (seq, Reason::Expired, "\"c-1\"".to_owned(), "s/1-2".to_owned(), data.to_owned());
    assert_eq!(reports(&database, "alice"), [report(1)]);
    assert_eq!(database.drop_outgoing(&peer, Which::All).unwrap(), GivenUp { messages: 4, told: told(&["alice", "bob"]) });
    assert_eq!((reports(&database, "alice"), reports(&database, "bob")), (vec![report(1), report(2)], vec![report(1)]));
    database.check().unwrap();
    assert!(database.outboxes().unwrap().is_empty());
}

#[test]
fn a_peer_is_removed_with_all_that_waits_for_it() {
    let (_directory, _, mut database) = open(&["alice"]);
    let [b, c] = befriend(&mut database, ["b.example", "c.example"]);
    let many = PORTION.messages as u64 + 1;
    for number in 0..many {
        put(&mut database, b, "hi", (number % 2 == 0).then_some("alice"), 5);
    }
    put(&mut database, c, "hi", Some("alice"), 5);
    let given_up = database.remove_peer(&server("b.example")).unwrap();
    assert_eq!(given_up, GivenUp { messages: many, told: [name("alice")].into() });
    assert_eq!(reports(&database, "alice").len() as u64, many.div_ceil(2));
    database.check().unwrap();
    assert_eq!(database.peers().unwrap().iter().map(|peer| peer.id).collect::<Vec<_>>(), [c]);
    assert_eq!(database.outbox_totals().unwrap().messages, 1);
}

#[test]
fn much_is_dropped_in_portions() {
    let (_directory, _, mut database) = open(&[]);
    let [b] = befriend(&mut database, ["b.example"]);
    let large = "1".repeat(3 << 20);
    for _ in 0..3 {
        put(&mut database, b, &large, None, 5);
    }
    let mut given_up = GivenUp::default();
    let more = database.transact(|rows| give_up_some(rows, b, 0, u64::MAX, &mut given_up)).unwrap();
    assert_eq!((more, given_up.messages), (true, 2));
    assert_eq!(database.drop_outgoing(&server("b.example"), Which::All).unwrap().messages, 1);
}

#[test]
fn whoever_is_no_peer_has_no_outbox() {
    let (_directory, _, mut database) = open(&[]);
    let nobody = server("x.example");
    assert!(matches!(database.outgoing(&nobody, false, |_| Ok(())), Err(StoreError::NoPeer(_))));
    assert!(matches!(database.drop_outgoing(&nobody, Which::All), Err(StoreError::NoPeer(_))));
}
