use super::super::fake::{name, number, open, parcel};
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
