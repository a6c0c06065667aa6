use super::super::fake::{befriend, name, number, open, outgoing, parcel, reports};
use super::super::mailbox::Bounds;
use super::*;

const DAY: i64 = 24 * 60 * 60;

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(seconds.unsigned_abs())
}

#[test]
fn old_letters_and_memos_go_a_little_at_a_time() {
    let (_directory, _, mut database) = open(&["alice", "bob"]);
    let (start, wall) = (Instant::now(), 100 * DAY);
    let bounds = Bounds { messages: 1000, bytes: 1000 };
    let letters = (ROWS + 10) as i64;
    database
        .transact(|rows| {
            for at in 0..letters {
                for user in ["alice", "bob"] {
                    Mailboxes(rows).keep(&parcel("s/1-1", "hi", &[user]), bounds, wall - 30 * DAY + at / 100, &mut Vec::new())?;
                }
                let mut digest = [0; 32];
                digest[..8].copy_from_slice(&at.to_le_bytes());
                Memos::new(rows.connection, rows.path).put(&digest, b"x", wall - 600 + at / 100, 1_000_000)?;
            }
            Ok(())
        })
        .unwrap();
    let left = |database: &Database| {
        database.check().unwrap();
        (number(database.rows(), "SELECT count(*) FROM mail"), number(database.rows(), "SELECT count(*) FROM memos"))
    };
    let mut expiry = Expiry::new(&Settings::default(), start, wall - 660);
    // Ten minutes after the start nothing is too old yet; after that, everything soon is.
    expiry.go_on(&mut database, start, wall - 660, &|_| {}).unwrap();
    assert_eq!(left(&database), (2 * letters, letters));
    assert_eq!(expiry.next(), start + REST_MAX);
    expiry.go_on(&mut database, start + REST_MAX - seconds(1), wall + DAY, &|_| {}).unwrap();
    assert_eq!(left(&database), (2 * letters, letters), "it was not time");

    let now = start + seconds(660);
    expiry.go_on(&mut database, now, wall, &|_| {}).unwrap();
    assert_eq!(left(&database), (2 * letters, letters), "just as old as they may be");
    // Of the first second.
    let now = now + REST_MAX;
    expiry.go_on(&mut database, now, wall + 1, &|_| {}).unwrap();
    let rows = ROWS as i64;
    assert_eq!(left(&database).1, letters - 100);
    assert_eq!(left(&database).0, 2 * letters - rows);
    assert_eq!(expiry.next(), now + PAUSE);
    expiry.go_on(&mut database, now + PAUSE, wall + 1, &|_| {}).unwrap();
    assert_eq!(left(&database).0, 2 * letters - 200);
    expiry.go_on(&mut database, now + PAUSE + REST_MAX, wall + 60, &|_| {}).unwrap();
    expiry.go_on(&mut database, now + 2 * PAUSE + REST_MAX, wall + 60, &|_| {}).unwrap();
    assert_eq!(left(&database), (0, 0));
    assert_eq!(Mailboxes(database.rows()).find(&name("alice")).unwrap().map(|(_, last)| last), Some(letters as u64));
}

#[test]
fn a_wrong_clock_deletes_nothing() {
    let (_directory, _, mut database) = open(&["alice"]);
    let (start, wall) = (Instant::now(), 100 * DAY);
    let bounds = Bounds { messages: 1000, bytes: 1000 };
    let put = |rows: super::super::rows::Rows<'_>| Mailboxes(rows).keep(&parcel("s/1-1", "hi", &["alice"]), bounds, wall, &mut Vec::new());
    database.transact(put).unwrap();
    let left = |database: &Database| number(database.rows(), "SELECT count(*) FROM mail");
    let mut expiry = Expiry::new(&Settings::default(), start, wall);
    let mut at = |after, wall| expiry.go_on(&mut database, start + seconds(after), wall, &|_| {}).map(|_| left(&database)).unwrap();
    assert_eq!(at(700, wall + 700), 1);
    assert_eq!(at(800, wall + 900 * DAY), 1, "it has jumped");
    assert_eq!(at(1300, wall + 900 * DAY + 500), 1, "it has gone right for less than ten minutes");
    assert_eq!(at(1400, wall + 900 * DAY + 600), 0, "it seems to be right after all");
}

#[test]
fn messages_for_other_servers_that_are_too_old_are_given_up() {
    let (_directory, _, mut database) = open(&["alice", "bob"]);
    let [b, c] = befriend(&mut database, ["b.example", "c.example"]);
    let (start, wall) = (Instant::now(), 100 * DAY);
    let messages = ROWS as i64 + 10;
    let put = |rows: super::super::rows::Rows<'_>| {
        for at in 0..messages {
            let outboxes = Outboxes { rows, now: wall - 2 * DAY + at / 100, written: &|_| {} };
            outboxes.keep(&outgoing(b, "s/1-2", "hi", Some("alice")), &Settings::default())?;
        }
        Outboxes { rows, now: wall - 2 * DAY, written: &|_| {} }.keep(&outgoing(c, "s/1-3", "hi", Some("bob")), &Settings::default())?;
        let seen = |number: i64| {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&number.to_le_bytes());
            Seen(rows).put(b, &digest, b"x", wall - 3 * DAY + number / 100, 1_000_000)
        };
        (0..messages).try_for_each(seen)
    };
    database.transact(put).unwrap();
    let left = |database: &Database| {
        database.check().unwrap();
        (number(database.rows(), "SELECT count(*) FROM outbox"), number(database.rows(), "SELECT count(*) FROM seen"))
    };
    let mut expiry = Expiry::new(&Settings::default(), start, wall - 660);
    let bodies = std::cell::Cell::new(0);
    let count = |_| bodies.set(bodies.get() + 1);
    let mut go_on = |database: &mut Database, now, wall| {
        let told = expiry.go_on(database, now, wall, &count).unwrap();
        (told.iter().map(ToString::to_string).collect::<Vec<_>>(), expiry.next())
    };
    // Ten minutes after the start nothing is too old yet; after that, everything soon is.
    assert_eq!(go_on(&mut database, start, wall - 660), (vec![], start + REST_MAX));
    let now = start + seconds(660);
    assert_eq!(go_on(&mut database, now, wall), (vec![], now + REST_MAX), "just as old as they may be");
    assert_eq!(left(&database), (messages + 1, messages));
    let now = now + REST_MAX;
    assert_eq!(go_on(&mut database, now, wall + 1), (vec!["alice".to_owned(), "bob".to_owned()], now + REST_MAX));
    assert_eq!(left(&database), (messages - 100, messages - 100), "of the first second");
    assert_eq!((reports(&database, "alice").len(), reports(&database, "bob").len(), bodies.get()), (100, 1, 101));
    let data = r#"{"attempts":0,"messageId":"s/1-1","server":"c.example"}"#;
    let expected = (1, Reason::Expired, "\"c-1\"".to_owned(), "s/1-3".to_owned(), data.to_owned());
    assert_eq!(reports(&database, "bob"), [expected]);
    let now = now + REST_MAX;
    assert_eq!(go_on(&mut database, now, wall + 60), (vec!["alice".to_owned()], now + REST_MAX));
    assert_eq!(left(&database), (0, 0));
}

#[test]
fn much_is_given_up_in_portions_and_a_wrong_clock_gives_up_nothing() {
    let (_directory, _, mut database) = open(&["alice"]);
    let [b] = befriend(&mut database, ["b.example"]);
    let (start, wall) = (Instant::now(), 100 * DAY);
    let put = |rows: super::super::rows::Rows<'_>| {
        let outboxes = Outboxes { rows, now: wall, written: &|_| {} };
        let keep = |_| outboxes.keep(&outgoing(b, "s/1-2", "hi", Some("alice")), &Settings::default());
        (0..=ROWS).try_for_each(|number| keep(number).map(drop))
    };
    database.transact(put).unwrap();
    let mut expiry = Expiry::new(&Settings::default(), start, wall);
    let mut at = |after, wall| {
        let now = start + after;
        expiry.go_on(&mut database, now, wall, &|_| {}).unwrap();
        database.check().unwrap();
        (number(database.rows(), "SELECT count(*) FROM outbox"), expiry.next() - now)
    };
    let all = ROWS as i64 + 1;
    assert_eq!(at(seconds(700), wall + 700), (all, REST_MAX));
    assert_eq!(at(seconds(800), wall + 5 * DAY), (all, REST_MAX), "it has jumped");
    assert_eq!(at(seconds(1300), wall + 5 * DAY + 500), (all, REST_MAX), "it has gone right for less than ten minutes");
    assert_eq!(at(seconds(1400), wall + 5 * DAY + 600), (1, PAUSE), "it seems to be right after all");
    assert_eq!(at(seconds(1400) + PAUSE, wall + 5 * DAY + 600), (0, REST_MAX));
}
