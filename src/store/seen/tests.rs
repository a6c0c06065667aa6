use super::super::Database;
use super::super::fake::{befriend, open, server};
use super::*;

fn put(database: &mut Database, peer: PeerId, numbers: std::ops::Range<u8>, most: usize) {
    for number in numbers {
        database.transact(|rows| Seen(rows).put(peer, &[number; 32], b"x", i64::from(number), most)).unwrap();
    }
    database.check().unwrap();
}

fn known(database: &Database) -> Vec<u8> {
    (0..=255).filter(|&n| Seen(database.rows()).find(&[n; 32], 0).unwrap().is_some()).collect()
}

#[test]
fn a_report_is_found_until_it_is_too_old() {
    let (_directory, _, mut database) = open(&[]);
    let [b] = befriend(&mut database, ["b.example"]);
    let put = |database: &mut Database, text: &[u8], at| {
        database.transact(|rows| Seen(rows).put(b, &[1; 32], text, at, 10)).unwrap();
        database.check().unwrap();
    };
    let found = |database: &Database, since| Seen(database.rows()).find(&[1; 32], since).unwrap().map(|text| text.bytes().to_vec());
    put(&mut database, b"one", 100);
    assert_eq!(found(&database, 100), Some(b"one".to_vec()));
    assert_eq!(found(&database, 101), None);
    put(&mut database, b"two", 200);
    assert_eq!(found(&database, 101), Some(b"two".to_vec()), "the same again is the newest");
}

#[test]
fn of_each_peer_the_oldest_is_forgotten_first() {
    let (_directory, _, mut database) = open(&[]);
    let [b, c] = befriend(&mut database, ["b.example", "c.example"]);
    put(&mut database, c, 100..103, 4);
    put(&mut database, b, 0..7, 4);
    put(&mut database, c, 103..104, 4);
    assert_eq!(known(&database), [3, 4, 5, 6, 100, 101, 102, 103], "none takes another's place");
    // The bound was lowered.
    put(&mut database, b, 7..8, 2);
    assert_eq!(known(&database), [5, 6, 7, 100, 101, 102, 103], "two at most at once");
    put(&mut database, b, 8..9, 2);
    assert_eq!(known(&database), [7, 8, 100, 101, 102, 103]);
}

#[test]
fn what_is_too_old_goes_a_part_at_a_time() {
    let (_directory, _, mut database) = open(&[]);
    let [b, c] = befriend(&mut database, ["b.example", "c.example"]);
    assert!(!Seen(database.rows()).is_due(1000, 2000).unwrap());
    put(&mut database, b, 0..3, 100);
    put(&mut database, c, 3..6, 100);
    let due = |database: &Database, limit, end| Seen(database.rows()).is_due(limit, end).unwrap();
    let forget = |database: &mut Database, limit, end| {
        let forgotten = database.transact(|rows| Seen(rows).forget(limit, end, 3)).unwrap();
        database.check().unwrap();
        forgotten
    };
    assert!(due(&database, 4, 2000) && !due(&database, 0, 2000));
    assert_eq!(forget(&mut database, 4, 2000), 3);
    assert_eq!(forget(&mut database, 4, 2000), 1);
    assert!(!due(&database, 4, 2000));
    // From a time that is still to come: the clock was wrong.
    assert!(due(&database, 0, 3));
    assert_eq!(forget(&mut database, 0, 3), 2);
}

#[test]
fn what_was_seen_of_a_peer_that_is_gone_stays_until_it_is_too_old() {
    let (_directory, _, mut database) = open(&[]);
    let [b] = befriend(&mut database, ["b.example"]);
    put(&mut database, b, 0..2, 100);
    database.remove_peer(&server("b.example")).unwrap();
    put(&mut database, b, 2..3, 100);
    assert_eq!(known(&database), [0, 1, 2]);
    // It came back, and sends one of them again.
    let [again] = befriend(&mut database, ["b.example"]);
    put(&mut database, again, 1..2, 100);
    assert_eq!(database.transact(|rows| Seen(rows).forget(9, 99, 9)).unwrap(), 3);
    database.check().unwrap();
}
