use super::*;
use tempfile::TempDir;

const HASH: &str = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
const OTHER: &str = "$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc";

fn name(text: &str) -> Username {
    Username::new(text).unwrap()
}

fn hash() -> Hash {
    Hash::parse(HASH).unwrap()
}

fn other() -> Hash {
    Hash::parse(OTHER).unwrap()
}

fn open() -> (TempDir, Database) {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::open(&directory.path().join("state/bester.db")).unwrap();
    (directory, database)
}

fn imported(text: &str, disabled: Option<bool>) -> Imported {
    Imported { name: name(text), password: other(), disabled }
}

fn found(database: &Database, text: &str) -> Account {
    database.account(&name(text)).unwrap().unwrap()
}

fn revision_counter(database: &Database) -> i64 {
    let sql = "SELECT value FROM counters WHERE name = 'revision'";
    database.connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn an_account_is_what_was_added() {
    let (_directory, mut database) = open();
    assert_eq!(database.account(&name("alice")).unwrap(), None);
    let revision = database.add(&name("alice"), &hash()).unwrap();
    let expected = Account { name: name("alice"), password: hash(), disabled: false, revision };
    assert_eq!(found(&database, "alice"), expected);
    assert!(!format!("{expected:?}").contains("argon2"));
}

#[test]
fn revisions_rise_with_every_change_and_never_come_again() {
    let (directory, mut database) = open();
    let (alice, bob) = (name("alice"), name("bob"));
    let mut revisions = vec![
        database.add(&alice, &hash()).unwrap(),
        database.add(&bob, &hash()).unwrap(),
        database.set_password(&alice, &other(), None).unwrap(),
        database.set_disabled(&alice, true).unwrap(),
        database.set_disabled(&alice, false).unwrap(),
        database.remove(&alice).unwrap(),
    ];
    drop(database);
    let mut database = Database::open(&directory.path().join("state/bester.db")).unwrap();
    revisions.push(database.remove(&bob).unwrap());
    revisions.push(database.add(&alice, &hash()).unwrap());
    assert!(revisions.is_sorted_by(|a, b| a < b), "{revisions:?}");
    assert_eq!(Some(&found(&database, "alice").revision), revisions.last());
}

#[test]
fn what_cannot_be_done_changes_nothing() {
    let (_directory, mut database) = open();
    let (alice, bob) = (name("alice"), name("bob"));
    let first = database.add(&alice, &hash()).unwrap();
    let second = database.set_password(&alice, &other(), Some(first)).unwrap();
    let before = found(&database, "alice");

    let taken = database.add(&alice, &hash());
    assert!(matches!(taken, Err(StoreError::Taken(n)) if n == alice));
    let changed = database.set_password(&alice, &hash(), Some(first));
    assert!(matches!(changed, Err(StoreError::Changed(n)) if n == alice));
    for unknown in [database.set_password(&bob, &hash(), None), database.set_disabled(&bob, true), database.remove(&bob)] {
        assert!(matches!(unknown, Err(StoreError::Unknown(n)) if n == bob));
    }
    // Nothing to do is no change either.
    assert_eq!(database.set_disabled(&alice, false).unwrap(), second);

    assert_eq!(found(&database, "alice"), before);
    assert_eq!(revision_counter(&database), second as i64);
}

#[test]
fn a_new_password_leaves_an_account_disabled() {
    let (_directory, mut database) = open();
    database.add(&name("alice"), &hash()).unwrap();
    database.set_disabled(&name("alice"), true).unwrap();
    database.set_password(&name("alice"), &other(), None).unwrap();
    let alice = found(&database, "alice");
    assert!(alice.disabled && alice.password == other());
}

#[test]
fn standings_tell_active_from_disabled_from_removed() {
    let (_directory, mut database) = open();
    let revision = database.add(&name("alice"), &hash()).unwrap();
    database.add(&name("bob"), &hash()).unwrap();
    database.set_disabled(&name("bob"), true).unwrap();
    let alice = (name("alice"), Standing::Active { revision });
    let bob = (name("bob"), Standing::Disabled);
    let carol = (name("carol"), Standing::Removed);
    assert_eq!(database.standings(None).unwrap(), [alice.clone(), bob.clone()]);
    let names = [name("carol"), name("alice"), name("bob")];
    assert_eq!(database.standings(Some(&names)).unwrap(), [carol, alice, bob]);
}

#[test]
fn an_import_adds_and_replaces() {
    let (_directory, mut database) = open();
    database.add(&name("alice"), &hash()).unwrap();
    database.add(&name("bob"), &hash()).unwrap();
    database.set_disabled(&name("bob"), true).unwrap();
    let before = found(&database, "alice").revision;
    let imports =
        database.import([imported("alice", None), imported("bob", None), imported("carol", Some(true)), imported("dave", None)]).unwrap();
    assert_eq!(imports, Imports { added: 2, replaced: 2 });
    assert!(found(&database, "alice").revision > before);
    for (who, disabled) in [("alice", false), ("bob", true), ("carol", true), ("dave", false)] {
        let account = found(&database, who);
        assert_eq!((account.disabled, account.password), (disabled, other()), "{who}");
    }
}

#[test]
fn an_import_is_done_wholly_or_not_at_all() {
    let (_directory, mut database) = open();
    database.add(&name("alice"), &hash()).unwrap();
    let trigger = "CREATE TRIGGER no_mallory BEFORE INSERT ON accounts WHEN new.name = 'mallory'
                   BEGIN SELECT raise(ABORT, 'no'); END";
    database.connection.execute_batch(trigger).unwrap();
    let (before, counter) = (found(&database, "alice"), revision_counter(&database));
    let people = ["alice", "bob", "mallory", "zoe"];
    let failed = database.import(people.map(|who| imported(who, None)));
    assert!(failed.is_err());
    assert_eq!(found(&database, "alice"), before);
    assert_eq!(database.standings(None).unwrap().len(), 1);
    assert_eq!(revision_counter(&database), counter);
}

#[test]
fn all_accounts_are_walked_in_order() {
    let (_directory, mut database) = open();
    // A whole number of pages and one more.
    for total in [2 * PAGE, 2 * PAGE + 1] {
        let everybody = (0..total).map(|i| imported(&format!("u{i:05}"), Some(i == 7)));
        database.import(everybody).unwrap();
        let mut listed = Vec::new();
        let mut exported = Vec::new();
        let each = |one| -> Result<(), StoreError> {
            listed.push(one);
            Ok(())
        };
        database.list(each).unwrap();
        let each = |one| -> Result<(), StoreError> {
            exported.push(one);
            Ok(())
        };
        database.export(each).unwrap();
        assert_eq!(listed.len(), total);
        assert!(listed.is_sorted_by(|a, b| a.name < b.name));
        assert!(listed.iter().all(|l| l.disabled == (l.name.as_str() == "u00007")));
        assert!(listed.iter().all(|l| l.created > 1_600_000_000));
        assert!(exported.iter().map(|a| &a.name).eq(listed.iter().map(|l| &l.name)));
        assert_eq!(database.standings(None).unwrap().len(), total);
    }
}

#[test]
fn a_slow_reader_of_an_export_holds_up_nobody() {
    let (directory, mut database) = open();
    database.import((0..10).map(|i| imported(&format!("u{i}"), None))).unwrap();
    let mut second = Database::open(&directory.path().join("state/bester.db")).unwrap();
    let mut shown = 0;
    let each = |_| -> Result<(), StoreError> {
        shown += 1;
        second.set_password(&name("u9"), &hash(), None)?;
        // Fails when a reader still needs the log.
        let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
        let busy = second.connection.query_row(sql, [], |row| row.get::<_, bool>(0));
        assert!(!busy.unwrap());
        Ok(())
    };
    database.export(each).unwrap();
    assert_eq!(shown, 10);
}

#[test]
fn an_account_written_by_hand_is_named() {
    let (_directory, mut database) = open();
    database.add(&name("alice"), &hash()).unwrap();
    let sql = "UPDATE accounts SET password = 'secret'";
    database.connection.execute_batch(sql).unwrap();
    let refused = database.account(&name("alice")).unwrap_err();
    assert!(matches!(&refused, StoreError::BadAccount { name, .. } if name == "alice"));
    assert!(!refused.to_string().contains("secret"), "{refused}");
    let sql = "UPDATE accounts SET name = 'Alice'";
    assert!(database.connection.execute_batch(sql).is_err());
    // The way out that the message names.
    assert!(database.set_password(&name("alice"), &other(), None).is_ok());
    assert!(database.account(&name("alice")).is_ok());
}
