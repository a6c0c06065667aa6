use super::*;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const HASH: &str = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";

fn name(text: &str) -> Username {
    Username::new(text).unwrap()
}

fn hash() -> Hash {
    Hash::parse(HASH).unwrap()
}

fn open() -> (TempDir, PathBuf, Database) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state/bester.db");
    let database = Database::open(&path).unwrap();
    (directory, path, database)
}

fn writer(database: Database) -> Writer {
    Writer { database, failed: false }
}

/// An order to register `who`, and where its answer will be.
fn register(who: &str) -> (Order, Receiver<Result<u64, StoreError>>) {
    let (reply, answer) = bounded(1);
    let change = Change::Register { name: name(who), password: hash() };
    let order = Order { begin_by: Instant::now() + Duration::from_secs(60), work: Work::Change { change, reply } };
    (order, answer)
}

/// Carries out registrations as one group; gives their answers.
fn register_all(writer: &mut Writer, people: &[&str]) -> Vec<Result<u64, StoreError>> {
    let (orders, answers): (Vec<_>, Vec<_>) = people.iter().map(|who| register(who)).unzip();
    writer.carry_out(orders);
    answers.iter().map(|answer| answer.try_recv().unwrap()).collect()
}

fn people(path: &Path) -> Vec<String> {
    let standings = Database::open(path).unwrap().standings(None).unwrap();
    standings.iter().map(|(name, _)| name.to_string()).collect()
}

#[test]
fn a_store_does_what_it_is_asked() {
    let (_directory, path, database) = open();
    let (store, thread) = Store::start(database, 16).unwrap();
    assert_eq!(store.account(&name("alice")).unwrap(), None);
    let first = store.register(name("alice"), hash()).unwrap();
    let taken = store.register(name("alice"), hash());
    assert!(matches!(taken, Err(StoreError::Taken(_))));
    let second = store.change_password(name("alice"), hash(), first).unwrap();
    let changed = store.clone().change_password(name("alice"), hash(), first);
    assert!(matches!(changed, Err(StoreError::Changed(_))));
    assert_eq!(store.account(&name("alice")).unwrap().unwrap().revision, second);
    let alice = (name("alice"), Standing::Active { revision: second });
    let asked = Some(vec![name("alice")]);
    assert_eq!(store.standings(asked).unwrap()[0], alice);
    assert_eq!(store.standings(None).unwrap(), [alice]);
    drop(store);
    thread.join().unwrap();
    assert_eq!(people(&path), ["alice"]);
}

#[test]
fn many_threads_share_one_store() {
    let (_directory, path, database) = open();
    let (store, storage) = Store::start(database, 1024).unwrap();
    let start = |i| {
        let store = store.clone();
        crate::thread::spawn("client", 64 << 10, move || (0..50).all(|j| store.register(name(&format!("u{i}-{j}")), hash()).is_ok()))
    };
    let threads: Vec<_> = (0..8).map(|i| start(i).unwrap()).collect();
    assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
    drop(store);
    storage.join().unwrap();
    assert_eq!(people(&path).len(), 400);
}

#[test]
fn one_that_fails_in_a_group_takes_nobody_with_it() {
    let (_directory, path, database) = open();
    let mut writer = writer(database);
    register_all(&mut writer, &["bob"]);
    let trigger = "CREATE TRIGGER no_mallory BEFORE INSERT ON accounts WHEN new.name = 'mallory'
                   BEGIN SELECT raise(FAIL, 'no'); END";
    writer.database.connection.execute_batch(trigger).unwrap();
    let answers = register_all(&mut writer, &["alice", "bob", "mallory", "carol", "carol"]);
    assert!(matches!(answers[..], [Ok(_), Err(StoreError::Taken(_)), Err(StoreError::Sqlite { .. }), Ok(_), Err(StoreError::Taken(_)),]));
    assert_eq!(people(&path), ["alice", "bob", "carol"]);
    // The failed ones have not used up a revision of others either.
    assert_eq!(*answers[3].as_ref().unwrap(), answers[0].as_ref().unwrap() + 1);
}

#[test]
fn a_group_that_sqlite_undid_is_told_so() {
    let (_directory, path, database) = open();
    let mut writer = writer(database);
    let trigger = "CREATE TRIGGER no_mallory BEFORE INSERT ON accounts WHEN new.name = 'mallory'
                   BEGIN SELECT raise(ROLLBACK, 'no'); END";
    writer.database.connection.execute_batch(trigger).unwrap();
    let answers = register_all(&mut writer, &["alice", "mallory", "carol"]);
    assert!(answers.iter().all(Result::is_err), "{answers:?}");
    assert!(people(&path).is_empty());
    // Which is no reason to refuse the next.
    assert!(register_all(&mut writer, &["alice"])[0].is_ok());
}

#[test]
fn a_group_is_one_commit() {
    let (_directory, path, database) = open();
    let mut writer = writer(database);
    let log = PathBuf::from(format!("{}-wal", path.display()));
    let length = || std::fs::metadata(&log).unwrap().len();
    let before = length();
    let everybody: Vec<_> = (0..100).map(|i| format!("u{i}")).collect();
    let everybody: Vec<_> = everybody.iter().map(String::as_str).collect();
    let answers = register_all(&mut writer, &everybody);
    assert!(answers.iter().all(Result::is_ok));
    // A commit each would write at least the page of the counter a hundred times.
    assert!(length() - before < 50 * 4096, "{}", length() - before);
}

#[test]
fn an_answer_means_that_it_is_committed() {
    let (_directory, path, database) = open();
    let (store, thread) = Store::start(database, 16).unwrap();
    let other = Database::open(&path).unwrap();
    for who in ["alice", "bob", "carol"] {
        store.register(name(who), hash()).unwrap();
        assert!(other.account(&name(who)).unwrap().is_some());
    }
    drop(store);
    thread.join().unwrap();
}

#[test]
fn what_nobody_waits_for_any_more_is_not_begun() {
    let (_directory, path, database) = open();
    let (mut late, answer) = register("alice");
    late.begin_by = Instant::now() - Duration::from_millis(1);
    writer(database).carry_out(vec![late]);
    assert!(matches!(answer.try_recv(), Ok(Err(StoreError::Busy))));
    assert!(people(&path).is_empty());
}

#[test]
fn nothing_is_changed_after_the_disk_failed() {
    let (_directory, path, database) = open();
    let mut writer = writer(database);
    let io_error = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC);
    let error = StoreError::of(&path, rusqlite::Error::SqliteFailure(io_error, None));
    assert!(error.is_disk_failure());
    let full = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
    let error = StoreError::of(&path, rusqlite::Error::SqliteFailure(full, None));
    assert!(!error.is_disk_failure());

    writer.failed = true;
    let answers = register_all(&mut writer, &["alice"]);
    assert!(matches!(answers[..], [Err(StoreError::Stopped)]));
    assert!(people(&path).is_empty());
}

#[test]
fn another_writer_that_does_not_end_is_busy() {
    let (_directory, path, database) = open();
    let mut writer = writer(database);
    writer.database.connection.busy_timeout(Duration::ZERO).unwrap();
    let mut other = Database::open(&path).unwrap();
    let held = other.begin().unwrap();
    let answers = register_all(&mut writer, &["alice", "bob"]);
    assert!(matches!(answers[..], [Err(StoreError::Busy), Err(StoreError::Busy)]));
    drop(held);
    assert!(register_all(&mut writer, &["alice"])[0].is_ok());
}

#[test]
fn a_full_queue_and_a_missing_answer_are_busy() {
    let (orders, incoming) = bounded(1);
    let store = Store { orders };
    let ask = |patience| {
        let asked: Result<Vec<_>, _> = store.ask(patience, |reply| Work::Standings { names: None, reply });
        asked.unwrap_err()
    };
    // Nobody answers.
    assert!(matches!(ask(Duration::ZERO), StoreError::Busy));
    // That order still waits.
    assert!(matches!(ask(Duration::from_secs(60)), StoreError::Busy));
    drop(incoming);
    assert!(matches!(ask(Duration::from_secs(60)), StoreError::Stopped));
}
