use super::super::fake::{name, open, parcel};
use super::super::mailbox::Bounds;
use super::*;

const BOUNDS: super::super::mailbox::Bounds = Bounds { messages: 10_000, bytes: 1 << 20 };

fn put(database: &mut Database, users: &[&str], data: &str, kept: i64) {
    database.transact(|rows| Mailboxes(rows).keep(&parcel("s/1-7", data, users), BOUNDS, kept, &mut Vec::new())).unwrap();
}

fn set_aside(database: &mut Database, user: &str, seqs: &[u64]) {
    database.transact(|rows| Mailboxes(rows).tried(&name(user), seqs, 1, &mut Vec::new())).unwrap();
}

fn all(database: &Database, user: &str, data: bool) -> Vec<Item> {
    let mut items = Vec::new();
    let each = |item| {
        items.push(item);
        Ok::<_, StoreError>(())
    };
    database.letters(&name(user), data, each).unwrap();
    items
}

fn mailboxes(database: &Database) -> Vec<Mailbox> {
    let mut mailboxes = Vec::new();
    let each = |mailbox| {
        mailboxes.push(mailbox);
        Ok::<_, StoreError>(())
    };
    database.mailboxes(each).unwrap();
    mailboxes
}

#[test]
fn mailboxes_are_listed_with_what_lies_in_them() {
    let (_directory, _, mut database) = open(&["alice", "bob", "carol"]);
    assert_eq!((mailboxes(&database), database.totals().unwrap()), (vec![], Totals::default()));
    put(&mut database, &["carol", "alice"], "hello", 50);
    put(&mut database, &["carol"], "you", 60);
    put(&mut database, &["bob"], "gone", 40);
    database.discard(&name("bob"), Which::All).unwrap();
    set_aside(&mut database, "carol", &[2]);
    assert_eq!(
        mailboxes(&database),
        [
            Mailbox { user: name("alice"), letters: 1, bytes: 5, aside: 0, oldest: 50 },
            Mailbox { user: name("carol"), letters: 2, bytes: 8, aside: 1, oldest: 50 },
        ]
    );
    assert_eq!(database.totals().unwrap(), Totals { mailboxes: 2, letters: 3, bytes: 13, aside: 1 });
}

#[test]
fn more_than_a_page_is_listed_in_order() {
    let users: Vec<String> = (0..2 * PAGE + 1).map(|i| format!("u{i:04}")).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    let (_directory, _, mut database) = open(&users[..1]);
    let import =
        |name: &&str| super::super::Imported { name: super::super::fake::name(name), password: super::super::fake::hash(), disabled: None };
    database.import(users.iter().map(import)).unwrap();
    put(&mut database, &users, "hi", 5);
    let listed: Vec<String> = mailboxes(&database).iter().map(|mailbox| mailbox.user.to_string()).collect();
    assert_eq!(listed, users);
    for _ in 0..PAGE {
        put(&mut database, &users[..1], "hi", 5);
    }
    let seqs: Vec<u64> = all(&database, users[0], false).iter().map(|item| item.seq).collect();
    assert_eq!(seqs, (1..=PAGE.unsigned_abs() + 1).collect::<Vec<_>>());
    assert_eq!(all(&database, users[0], true).len(), seqs.len());
    let stop = database.letters(&name(users[0]), false, |_| Err(StoreError::Busy));
    assert!(matches!(stop, Err(StoreError::Busy)));
}

#[test]
fn data_is_shown_only_when_asked_for() {
    let (_directory, _, mut database) = open(&["alice"]);
    put(&mut database, &["alice"], "hello", 50);
    set_aside(&mut database, "alice", &[1]);
    let item = Item { seq: 1, kind: "chat".into(), message_id: "s/1-7".into(), bytes: 5, kept: 50, attempts: 1, aside: true, data: None };
    assert_eq!(all(&database, "alice", false), std::slice::from_ref(&item));
    assert_eq!(all(&database, "alice", true), [Item { data: Some(b"hello".to_vec()), ..item }]);
}

#[test]
fn what_was_set_aside_is_sent_again_or_deleted() {
    let (_directory, _, mut database) = open(&["alice"]);
    for _ in 0..5 {
        put(&mut database, &["alice"], "hi", 50);
    }
    set_aside(&mut database, "alice", &[1, 2, 4, 5]);
    let state = |database: &Database| {
        database.check().unwrap();
        all(database, "alice", false).iter().map(|item| (item.seq, item.aside, item.attempts)).collect::<Vec<_>>()
    };
    let alice = name("alice");
    assert_eq!(database.retry(&alice, Which::One(3)).unwrap(), 0, "it is not aside");
    assert_eq!(database.retry(&alice, Which::One(2)).unwrap(), 1);
    assert_eq!(state(&database), [(1, true, 1), (3, false, 0), (4, true, 1), (5, true, 1), (6, false, 1)]);
    assert_eq!(mailboxes(&database)[0].oldest, 50);
    assert_eq!(database.discard(&alice, Which::One(9)).unwrap(), 0);
    assert_eq!(database.discard(&alice, Which::One(3)).unwrap(), 1);
    assert_eq!(database.discard(&alice, Which::One(5)).unwrap(), 1);
    assert_eq!(database.discard(&alice, Which::Aside).unwrap(), 2);
    assert_eq!(state(&database), [(6, false, 1)]);
    assert!(mailboxes(&database)[0].oldest > 50, "it is not thrown away at once for its age");
    set_aside(&mut database, "alice", &[6]);
    assert_eq!(database.retry(&alice, Which::All).unwrap(), 1);
    put(&mut database, &["alice"], "hi", 50);
    assert_eq!(state(&database), [(7, false, 1), (8, false, 0)], "a number is used once");
    assert_eq!(database.discard(&alice, Which::One(8)).unwrap(), 1);
    assert_eq!(database.discard(&alice, Which::All).unwrap(), 1);
    assert_eq!(state(&database), []);
    assert_eq!(super::super::fake::number(database.rows(), "SELECT count(*) FROM bodies"), 0);
}

#[test]
fn much_is_done_in_portions() {
    let (_directory, _, mut database) = open(&["alice"]);
    let many = (PORTION + 1).unsigned_abs();
    for _ in 0..many {
        put(&mut database, &["alice"], "hi", 50);
    }
    set_aside(&mut database, "alice", &(1..=many).collect::<Vec<_>>());
    assert_eq!(database.retry(&name("alice"), Which::Aside).unwrap(), many);
    assert_eq!(database.discard(&name("alice"), Which::All).unwrap(), many);
}

#[test]
fn nobody_has_no_mailbox() {
    let (_directory, _, mut database) = open(&["alice"]);
    let nobody = name("nobody");
    assert!(matches!(database.retry(&nobody, Which::All), Err(StoreError::Unknown(_))));
    assert!(matches!(database.discard(&nobody, Which::All), Err(StoreError::Unknown(_))));
    assert!(matches!(database.letters(&nobody, false, |_| Ok(())), Err(StoreError::Unknown(_))));
    assert_eq!(database.discard(&name("alice"), Which::All).unwrap(), 0);
    assert_eq!(all(&database, "alice", false), []);
}
