use super::super::mailbox::Mailboxes;
use super::super::page::Asked;
use super::*;
use crate::name::Username;
use crate::password::Hash;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use tempfile::TempDir;

const STACK_BYTES: usize = 1 << 20;

/// A version that nobody has released.
fn one_migration_more() -> Vec<&'static str> {
    [MIGRATIONS, &["ALTER TABLE accounts ADD COLUMN note TEXT"]].concat()
}

fn name(text: &str) -> Username {
    Username::new(text).unwrap()
}

fn hash() -> Hash {
    Hash::parse("$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4").unwrap()
}

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    DirBuilder::new().mode(0o700).create(&state).unwrap();
    (directory, state.join("bester.db"))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    PathBuf::from(format!("{}{ending}", path.display()))
}

#[test]
fn what_is_missing_is_made_for_the_owner_alone() {
    let (directory, _) = place();
    let path = directory.path().join("new/state/bester.db");
    let mut database = Database::open(&path).unwrap();
    database.add(&name("alice"), &hash()).unwrap();
    for made in ["new", "new/state"] {
        assert_eq!(mode(&directory.path().join(made)), 0o700, "{made}");
    }
    for ending in ["", "-wal", "-shm"] {
        assert_eq!(mode(&beside(&path, ending)), 0o600, "{ending}");
    }
    drop(database);
    assert!(Database::open(&path).unwrap().account(&name("alice")).unwrap().is_some());
}

#[test]
fn what_others_may_use_is_refused() {
    let (_directory, path) = place();
    let open = Database::open(&path).unwrap();
    for (exposed, loose, tight) in [
        (directory_of(&path).to_owned(), 0o750, 0o700),
        (path.clone(), 0o604, 0o600),
        (beside(&path, "-wal"), 0o620, 0o600),
        (beside(&path, "-shm"), 0o640, 0o600),
    ] {
        set_mode(&exposed, loose);
        let refused = Database::open(&path).unwrap_err();
        assert!(
            matches!(&refused, StoreError::Exposed { path, mode }
                if path.file_name() == exposed.file_name() && *mode == loose),
            "{refused}"
        );
        set_mode(&exposed, tight);
    }
    drop(open);
    assert!(Database::open(&path).is_ok());
}

#[test]
fn what_belongs_to_somebody_else_is_refused() {
    let path = Path::new("/x");
    assert!(judge(path, 7, 0o600, 7).is_ok());
    for (owner, us) in [(7, 8), (7, 0), (0, 7)] {
        let refused = judge(path, owner, 0o600, us);
        assert!(matches!(refused, Err(StoreError::Foreign { .. })));
    }
}

#[test]
fn a_link_leads_to_the_checks_of_where_it_points() {
    let (directory, path) = place();
    let real = directory.path().join("elsewhere");
    fs::create_dir(&real).unwrap();
    set_mode(&real, 0o755);
    fs::write(real.join("bester.db"), "").unwrap();
    set_mode(&real.join("bester.db"), 0o600);
    std::os::unix::fs::symlink(real.join("bester.db"), &path).unwrap();
    let refused = Database::open(&path).unwrap_err();
    assert!(matches!(refused, StoreError::Exposed { .. }), "{refused}");
    set_mode(&real, 0o700);
    let database = Database::open(&path).unwrap();
    assert_eq!(database.path, real.join("bester.db").canonicalize().unwrap());
}

#[test]
fn files_of_others_are_refused_and_left_alone() {
    let (_directory, path) = place();
    let check = |what: &str| {
        set_mode(&path, 0o600);
        let before = fs::read(&path).unwrap();
        let refused = Database::open(&path).unwrap_err();
        assert!(matches!(refused, StoreError::NotOurs { .. }), "{what}: {refused}");
        assert!(refused.to_string().contains("bester.db"));
        assert_eq!(fs::read(&path).unwrap(), before, "{what}");
        fs::remove_file(&path).unwrap();
    };

    fs::write(&path, "hello").unwrap();
    check("a short text");
    fs::write(&path, "hello ".repeat(5000)).unwrap();
    check("a long text");

    for sql in ["CREATE TABLE accounts (name TEXT)", "PRAGMA application_id = 7", "PRAGMA user_version = 1"] {
        let other = Connection::open(&path).unwrap();
        other.execute_batch(sql).unwrap();
        other.close().unwrap();
        check(sql);
    }
}

#[test]
fn tables_are_brought_up_to_date_with_what_is_in_them() {
    let (_directory, path) = place();
    let mut old = Database::open(&path).unwrap();
    let revision = old.add(&name("alice"), &hash()).unwrap();
    drop(old);

    let new = Database::open_prepared(path.clone(), &one_migration_more()).unwrap();
    let alice = new.account(&name("alice")).unwrap().unwrap();
    assert_eq!(alice.revision, revision);
    let notes = "SELECT count(*) FROM accounts WHERE note IS NULL";
    let notes: i64 = new.connection.query_row(notes, [], |row| row.get(0)).unwrap();
    assert_eq!(notes, 1);
    drop(new);
    // Not once more.
    Database::open_prepared(path.clone(), &one_migration_more()).unwrap();

    let refused = Database::open(&path).unwrap_err();
    assert!(matches!(refused, StoreError::Newer { found: 4, known: 3, .. }));
}

#[test]
fn a_database_without_mailboxes_gets_them() {
    let (_directory, path) = place();
    let mut old = Database::open_prepared(prepare(&path).unwrap(), &MIGRATIONS[..1]).unwrap();
    old.add(&name("alice"), &hash()).unwrap();
    drop(old);
    let mut new = Database::open(&path).unwrap();
    new.check().unwrap();
    assert!(new.account(&name("alice")).unwrap().is_some());
    // Nothing in it can have been sent before.
    assert_eq!(new.begin_run().unwrap().suspect, 0);
}

#[test]
fn letters_of_an_older_database_are_deliveries() {
    let (_directory, path) = place();
    let mut old = Database::open_prepared(prepare(&path).unwrap(), &MIGRATIONS[..2]).unwrap();
    old.add(&name("alice"), &hash()).unwrap();
    let letter = "INSERT INTO bodies (message_id, kind, data, id, waiting) VALUES ('s/1-1', 'chat', x'31', x'2231', 1);
                  INSERT INTO mailboxes (user, last, messages, bytes) VALUES ('alice', 1, 1, 1);
                  INSERT INTO mail (box, seq, body, bytes, kept, attempts, aside) VALUES (1, 1, 1, 1, 5, 0, 0)";
    old.connection.execute_batch(letter).unwrap();
    drop(old);
    let new = Database::open(&path).unwrap();
    new.check().unwrap();
    assert!(new.peers().unwrap().is_empty());
    let user = name("alice");
    let asked = Asked { user: &user, after: 0, reports: true, letters_max: 9, bytes_max: 99, start_prefix: "", tried: 0, suspect: 0 };
    let page = Mailboxes(new.rows()).page(&asked).unwrap();
    assert_eq!((page.mail.len(), page.mail.first().and_then(|mail| mail.letter.report.clone())), (1, None));
}

#[test]
fn what_was_open_once_is_not_made_again() {
    let (_directory, path) = place();
    drop(Database::open(&path).unwrap());
    assert!(Database::reopen(&path).is_ok());
    fs::remove_file(&path).unwrap();
    let gone = Database::reopen(&path).unwrap_err();
    assert!(matches!(gone, StoreError::Sqlite { .. }), "{gone:?}");
    assert!(!path.exists());
    fs::write(&path, "").unwrap();
    let emptied = Database::reopen(&path).unwrap_err();
    assert!(matches!(emptied, StoreError::Damaged { .. }), "{emptied:?}");
}

#[test]
fn a_failed_step_leaves_the_old_version() {
    let (_directory, path) = place();
    drop(Database::open(&path).unwrap());
    let broken = [MIGRATIONS, &["CREATE TABLE fine (x); CREATE TABLE accounts (x)"]].concat();
    assert!(Database::open_prepared(path.clone(), &broken).is_err());
    let database = Database::open(&path).unwrap();
    assert!(database.connection.prepare("SELECT x FROM fine").is_err());
}

#[test]
fn commits_are_safe_on_the_disk() {
    let (_directory, path) = place();
    let database = Database::open(&path).unwrap();
    let pragma = |name: &str| {
        let value = |row: &rusqlite::Row<'_>| row.get::<_, rusqlite::types::Value>(0);
        database.connection.pragma_query_value(None, name, value).unwrap()
    };
    assert_eq!(pragma("journal_mode"), String::from("wal").into());
    for (name, value) in [("synchronous", 2), ("foreign_keys", 1), ("busy_timeout", 5000)] {
        assert_eq!(pragma(name), i64::from(value).into(), "{name}");
    }
}

#[test]
fn damage_is_named() {
    let (_directory, path) = place();
    let mut database = Database::open(&path).unwrap();
    for i in 0..200 {
        database.add(&name(&format!("user{i}")), &hash()).unwrap();
    }
    assert!(database.standings(None).is_ok());
    drop(database);
    let mut bytes = fs::read(&path).unwrap();
    let accounts = bytes.chunks_mut(4096).filter(|page| page.windows(9).any(|part| part == b"$argon2id"));
    accounts.for_each(|page| page.fill(0x5a));
    fs::write(&path, bytes).unwrap();

    let database = Database::open(&path).unwrap();
    let damage = database.standings(None).unwrap_err();
    assert!(matches!(damage, StoreError::Damaged { .. }), "{damage:?}");
    assert!(damage.to_string().contains("bester.db"));
    let damage = database.check().unwrap_err();
    assert!(matches!(damage, StoreError::Damaged { .. }), "{damage:?}");
}

#[test]
fn several_processes_may_make_it_at_once() {
    for _ in 0..20 {
        let (_directory, path) = place();
        let path = Arc::new(path);
        let open = |i| {
            let path = Arc::clone(&path);
            crate::thread::spawn("opener", STACK_BYTES, move || {
                let mut database = Database::open(&path)?;
                database.add(&name(&format!("user{i}")), &hash())
            })
        };
        let threads: Vec<_> = (0..8).map(|i| open(i).unwrap()).collect();
        for thread in threads {
            thread.join().unwrap().unwrap();
        }
        let database = Database::open(&path).unwrap();
        assert_eq!(database.standings(None).unwrap().len(), 8);
    }
}

#[test]
fn a_lock_held_for_too_long_is_busy() {
    let (_directory, path) = place();
    let mut one = Database::open(&path).unwrap();
    let mut other = Database::open(&path).unwrap();
    other.connection.busy_timeout(Duration::ZERO).unwrap();
    let held = one.begin().unwrap();
    let refused = other.add(&name("alice"), &hash()).unwrap_err();
    assert!(matches!(refused, StoreError::Busy), "{refused}");
    drop(held);
    assert!(other.add(&name("alice"), &hash()).is_ok());
}

#[test]
fn the_log_is_emptied_unless_somebody_reads() {
    let (_directory, path) = place();
    let mut database = Database::open(&path).unwrap();
    let log = || std::fs::metadata(path.with_extension("db-wal")).unwrap().len();
    database.prove_writable().unwrap();
    assert!(log() > 0);
    database.connection.busy_timeout(Duration::ZERO).unwrap();
    let mut reader = Database::open(&path).unwrap();
    let reading = reader.connection.transaction().unwrap();
    reading.query_row("SELECT count(*) FROM accounts", [], |_| Ok(())).unwrap();
    database.prove_writable().unwrap();
    assert!(matches!(database.empty_log(), Err(StoreError::Busy)));
    drop(reading);
    database.empty_log().unwrap();
    assert_eq!(log(), 0);
}
