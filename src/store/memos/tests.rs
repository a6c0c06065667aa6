use super::super::fake::open;
use super::*;

fn digest(number: u8) -> Digest {
    [number; 32]
}

#[test]
fn a_report_is_found_until_it_is_too_old() {
    let (_directory, _, database) = open(&[]);
    let memos = Memos::new(&database.connection, &database.path);
    memos.put(&digest(1), b"one", 100, 10).unwrap();
    let found = |number, since| memos.find(&digest(number), since).unwrap().map(|text| text.bytes().to_vec());
    assert_eq!(found(1, 100), Some(b"one".to_vec()));
    assert_eq!(found(1, 101), None);
    assert_eq!(found(2, 0), None);
    memos.put(&digest(1), b"two", 200, 10).unwrap();
    assert_eq!(found(1, 101), Some(b"two".to_vec()), "the same again is the newest");
}

#[test]
fn the_oldest_is_forgotten_first() {
    let (_directory, _, database) = open(&[]);
    let memos = Memos::new(&database.connection, &database.path);
    let known = || (0..9).filter(|&n| memos.find(&digest(n), 0).unwrap().is_some()).collect::<Vec<_>>();
    for n in 0..5 {
        memos.put(&digest(n), b"x", 100, 4).unwrap();
    }
    assert_eq!(known(), [1, 2, 3, 4]);
    // The bound was lowered.
    memos.put(&digest(5), b"x", 100, 2).unwrap();
    memos.put(&digest(6), b"x", 100, 2).unwrap();
    assert_eq!(known(), [5, 6]);
}

#[test]
fn what_is_too_old_goes_a_part_at_a_time() {
    let (_directory, _, database) = open(&[]);
    let memos = Memos::new(&database.connection, &database.path);
    assert!(!memos.is_due(1000, 2000).unwrap());
    for n in 0..6 {
        memos.put(&digest(n), b"x", i64::from(n), 100).unwrap();
    }
    assert!(memos.is_due(4, 2000).unwrap() && !memos.is_due(0, 2000).unwrap());
    assert_eq!(memos.forget(4, 2000, 3).unwrap(), 3);
    assert_eq!(memos.forget(4, 2000, 3).unwrap(), 1);
    assert!(!memos.is_due(4, 2000).unwrap());
    // From a time that is still to come: the clock was wrong.
    assert!(memos.is_due(0, 3).unwrap());
    assert_eq!(memos.forget(0, 3, 3).unwrap(), 2);
}
