use super::super::Settings;
use super::super::fake::{befriend, open, outgoing, parcel};
use super::super::mailbox::{Bounds, Mailboxes};
use super::super::outbox::Outboxes;
use super::super::seen::Seen;
use super::*;

#[test]
fn what_does_not_belong_together_is_found() {
    for (sql, what) in [
        ("DELETE FROM mail WHERE box = 1 AND seq = 1", "counts of a mailbox are not those of what lies in it: alice"),
        ("UPDATE mailboxes SET messages = 3 WHERE box = 2", "counts of a mailbox are not those of what lies in it: bob"),
        ("UPDATE mailboxes SET bytes = bytes - 1 WHERE box = 1", "counts of a mailbox"),
        ("UPDATE mailboxes SET last = 1 WHERE box = 1", "counts of a mailbox"),
        ("DELETE FROM mailboxes WHERE box = 2", "lies in no mailbox: 2 1"),
        ("DELETE FROM bodies WHERE body = 1", "a letter has no text, or another one: 1 1"),
        ("UPDATE bodies SET data = x'00' WHERE body = 1", "a letter has no text, or another one: 1 1"),
        ("UPDATE bodies SET waiting = 1 WHERE body = 1", "the text of letters is not counted right: 1"),
        ("INSERT INTO bodies (message_id, kind, data, waiting) VALUES ('s/1-1', 'chat', x'00', 0)", ""),
        ("INSERT INTO bodies (message_id, kind, data, waiting) VALUES ('s/1-1', 'chat', x'00', 1)", "not counted right: 3"),
        ("DELETE FROM outbox WHERE seq = 1", "counts of an outbox are not those of what lies in it: b.example"),
        ("UPDATE peers SET messages = 1 WHERE name = 'b.example'", "counts of an outbox are not those of what lies in it: b.example"),
        ("UPDATE peers SET bytes = bytes + 1 WHERE name = 'b.example'", "counts of an outbox"),
        ("UPDATE peers SET last = 1 WHERE name = 'b.example'", "counts of an outbox"),
        ("UPDATE peers SET messages = 1 WHERE name = 'c.example'", "counts of an outbox are not those of what lies in it: c.example"),
        ("DELETE FROM peers WHERE name = 'b.example'", "a message lies in the outbox of no peer: 1 1"),
        ("UPDATE outbox SET data = x'00' WHERE seq = 2", "a message in an outbox has another text: 1 2"),
        ("DELETE FROM seen", "what was seen of a peer is not counted right: b.example"),
        ("UPDATE peers SET seen = 1 WHERE name = 'c.example'", "what was seen of a peer is not counted right: c.example"),
    ] {
        let (_directory, _, mut database) = open(&["alice", "bob"]);
        let bounds = Bounds { messages: 9, bytes: 99 };
        for users in [&["alice", "bob"][..], &["alice"]] {
            let keep = |rows: Rows<'_>| Mailboxes(rows).keep(&parcel("s/1-1", "hi", users), bounds, 5, &mut Vec::new());
            database.transact(keep).unwrap();
        }
        let [b, _] = befriend(&mut database, ["b.example", "c.example"]);
        for _ in 0..2 {
            let keep = |rows: Rows<'_>| {
                Seen(rows).put(b, &[1; 32], b"x", 5, 9)?;
                Outboxes { rows, now: 5, written: &|_| {} }.keep(&outgoing(b, "s/1-1", "hi", None), &Settings::default())
            };
            database.transact(keep).unwrap();
        }
        database.check().unwrap();
        database.connection.execute(sql, []).unwrap();
        match database.check() {
            Ok(()) => assert_eq!(what, "", "{sql}"),
            Err(error) => {
                assert!(
                    matches!(&error, StoreError::Damaged { detail, .. } if !what.is_empty() && detail.contains(what)),
                    "{sql}: {error}"
                );
                let words = error.to_string();
                assert!(words.contains("bester.db") && words.contains("sqlite3 '"), "{words}");
            }
        }
    }
}
