use super::super::fake::{name, open, parcel};
use super::super::mailbox::{Bounds, Mailboxes};
use super::*;

fn write(database: &mut Database) {
    let bounds = Bounds { messages: 9, bytes: 99 };
    database.transact(|rows| Mailboxes(rows).keep(&parcel("s/1-1", "hi", &["alice"]), bounds, 5, &mut Vec::new())).unwrap();
}

#[test]
fn only_a_run_that_did_not_end_leaves_doubts() {
    let (_directory, path, mut database) = open(&["alice"]);
    assert_eq!(database.begin_run().unwrap(), Run { suspect: 0, highest: 0 });
    write(&mut database);
    database.end_run(0).unwrap();
    assert_eq!(database.begin_run().unwrap(), Run { suspect: 0, highest: 1 });
    write(&mut database);
    drop(database);

    let mut database = Database::open(&path).unwrap();
    assert_eq!(database.begin_run().unwrap(), Run { suspect: 2, highest: 2 });
    // Also when that one does not last.
    assert_eq!(database.begin_run().unwrap(), Run { suspect: 2, highest: 2 });
    write(&mut database);
    database.end_run(2).unwrap();
    assert_eq!(database.begin_run().unwrap(), Run { suspect: 2, highest: 3 }, "the doubts about older ones stay");
}

#[test]
fn numbers_of_bodies_never_come_again() {
    let (_directory, path, mut database) = open(&["alice"]);
    write(&mut database);
    database.transact(|rows| Mailboxes(rows).clear(&name("alice"))).unwrap();
    drop(database);
    let mut database = Database::open(&path).unwrap();
    assert_eq!(database.begin_run().unwrap().highest, 1);
    write(&mut database);
    assert_eq!(super::super::fake::number(database.rows(), "SELECT max(body) FROM bodies"), 2);
}

#[test]
fn to_prove_that_it_can_be_written_is_to_write() {
    let (_directory, path, mut database) = open(&[]);
    let log = std::path::PathBuf::from(format!("{}-wal", path.display()));
    let length = || std::fs::metadata(&log).unwrap().len();
    for _ in 0..3 {
        let before = length();
        database.prove_writable().unwrap();
        assert!(length() > before);
    }
    database.connection.pragma_update(None, "query_only", "on").unwrap();
    assert!(database.prove_writable().is_err());
}
