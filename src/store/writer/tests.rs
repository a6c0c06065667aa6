use super::super::fake::{befriend, hash, keep, name, number, open, outgoing, reports};
use super::super::mail::{Destination, Keep, Outgoing, Place, Ticket};
use super::super::runs::Run;
use super::*;
use crossbeam_channel::{Receiver, bounded, unbounded};
use std::fs;

fn writer(mut database: Database, settings: Settings) -> (Writer, Receiver<Told>) {
    let (tell, told) = unbounded();
    let run = database.begin_run().unwrap();
    let shared = Arc::new(Shared::new(&settings, run));
    let tell = move |all: Vec<Told>| all.into_iter().for_each(|one| _ = tell.send(one));
    (Writer::new(database, Arc::new(settings), shared, Arc::new(tell)), told)
}

fn quiet(database: Database) -> Writer {
    writer(database, Settings::default()).0
}

fn connection(writer: &Writer) -> &rusqlite::Connection {
    &writer.database.as_ref().unwrap().connection
}

type Answer = Receiver<Result<u64, StoreError>>;

/// An order to register `who`, and where its answer will be.
fn register(who: &str) -> (Order, Answer) {
    let (reply, answer) = bounded(1);
    let change = Change::Register { name: name(who), password: hash() };
    (Order::Change { change, begin_by: Instant::now() + Duration::from_secs(60), reply }, answer)
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

fn keeping(ticket: u64, data: &str, users: &[&str]) -> Order {
    Order::Write(Write::Keep(Ticket(ticket), Arc::new(keep("s/1-1", data, users))))
}

/// As the store does it.
fn write(writer: &Writer, write: Write) -> Order {
    writer.shared.marks.ordered(&write);
    Order::Write(write)
}

fn settling(writer: &Writer, user: &str, up_to: u64) -> Order {
    write(writer, Write::Settle { user: name(user), up_to, reports: true, conn: None })
}

fn letters(path: &Path) -> u64 {
    let database = Database::open(path).unwrap();
    database.check().unwrap();
    database.totals().unwrap().letters
}

/// Makes the disk refuse all changes until the database is opened anew.
fn break_disk(writer: &Writer) {
    connection(writer).pragma_update(None, "query_only", "on").unwrap();
}

/// Makes it impossible to open the database again, and possible.
fn hide(path: &Path, hidden: bool) {
    let place = path.parent().unwrap();
    let other = place.with_file_name("elsewhere");
    let (from, to) = if hidden { (place, &*other) } else { (&*other, place) };
    fs::rename(from, to).unwrap();
}

#[test]
fn one_that_fails_in_a_group_takes_nobody_with_it() {
    let (_directory, path, database) = open(&[]);
    let mut writer = quiet(database);
    register_all(&mut writer, &["bob"]);
    let trigger = "CREATE TRIGGER no_mallory BEFORE INSERT ON accounts WHEN new.name = 'mallory'
                   BEGIN SELECT raise(FAIL, 'no'); END";
    connection(&writer).execute_batch(trigger).unwrap();
    let answers = register_all(&mut writer, &["alice", "bob", "mallory", "carol", "carol"]);
    assert!(matches!(answers[..], [Ok(_), Err(StoreError::Taken(_)), Err(StoreError::Sqlite { .. }), Ok(_), Err(StoreError::Taken(_)),]));
    assert_eq!(people(&path), ["alice", "bob", "carol"]);
    // The failed ones have not used up a revision of others either.
    assert_eq!(*answers[3].as_ref().unwrap(), answers[0].as_ref().unwrap() + 1);
}

#[test]
fn a_letter_that_cannot_be_kept_is_undone_as_a_whole_and_alone() {
    let (_directory, path, database) = open(&["alice", "bob", "mallory"]);
    let (mut writer, told) = writer(database, Settings::default());
    let trigger = "CREATE TRIGGER no_mallory BEFORE INSERT ON mailboxes WHEN new.user = 'mallory'
                   BEGIN SELECT raise(FAIL, 'no'); END";
    connection(&writer).execute_batch(trigger).unwrap();
    let (change, answer) = register("carol");
    let orders = vec![keeping(1, "x", &["alice"]), keeping(2, "y", &["alice", "bob", "mallory"]), change, keeping(3, "z", &["bob"])];
    writer.carry_out(orders);
    assert!(answer.try_recv().unwrap().is_ok());
    let told: Vec<Told> = told.try_iter().collect();
    let expected = [
        Told::Kept(Ticket(1), Ok(vec![Place::Queued(1)])),
        Told::Kept(Ticket(2), Err(Trouble::Storage)),
        Told::Kept(Ticket(3), Ok(vec![Place::Queued(1)])),
    ];
    assert_eq!(told, expected);
    assert_eq!(letters(&path), 2);
    assert!(writer.database.is_some(), "it is no trouble with the disk");
}

#[test]
fn a_group_that_sqlite_undid_is_told_so() {
    let (_directory, path, database) = open(&[]);
    let mut writer = quiet(database);
    let trigger = "CREATE TRIGGER no_mallory BEFORE INSERT ON accounts WHEN new.name = 'mallory'
                   BEGIN SELECT raise(ROLLBACK, 'no'); END";
    connection(&writer).execute_batch(trigger).unwrap();
    let answers = register_all(&mut writer, &["alice", "mallory", "carol"]);
    assert!(answers.iter().all(Result::is_err), "{answers:?}");
    assert!(people(&path).is_empty());
    // Which is no reason to refuse the next.
    assert!(register_all(&mut writer, &["alice"])[0].is_ok());
}

#[test]
fn a_group_is_one_commit() {
    let (_directory, path, database) = open(&["bob"]);
    let mut writer = quiet(database);
    let log = PathBuf::from(format!("{}-wal", path.display()));
    let length = || fs::metadata(&log).unwrap().len();
    let before = length();
    let (mut orders, answers): (Vec<_>, Vec<_>) = (0..100).map(|i| register(&format!("u{i}"))).unzip();
    orders.extend((0..100).map(|i| keeping(i, "hi", &["bob"])));
    writer.carry_out(orders);
    assert!(answers.iter().all(|answer| answer.try_recv().unwrap().is_ok()));
    // A commit each would write at least the page of a counter two hundred times.
    assert!(length() - before < 70 * 4096, "{}", length() - before);
}

#[test]
fn what_nobody_waits_for_any_more_is_not_begun() {
    let (_directory, path, database) = open(&[]);
    let (mut late, answer) = register("alice");
    if let Order::Change { begin_by, .. } = &mut late {
        *begin_by = Instant::now() - Duration::from_millis(1);
    }
    quiet(database).carry_out(vec![late]);
    assert!(matches!(answer.try_recv(), Ok(Err(StoreError::Busy))));
    assert!(people(&path).is_empty());
}

#[test]
fn another_writer_that_does_not_end_is_busy() {
    let (_directory, path, database) = open(&["bob"]);
    let (mut writer, told) = writer(database, Settings::default());
    connection(&writer).busy_timeout(Duration::ZERO).unwrap();
    let mut other = Database::open(&path).unwrap();
    let held = other.begin().unwrap();
    let answers = register_all(&mut writer, &["alice", "carol"]);
    assert!(matches!(answers[..], [Err(StoreError::Busy), Err(StoreError::Busy)]));
    writer.carry_out(vec![keeping(1, "hi", &["bob"])]);
    assert_eq!(told.try_recv(), Ok(Told::Kept(Ticket(1), Err(Trouble::Busy))));
    drop(held);
    assert!(register_all(&mut writer, &["alice"])[0].is_ok());
}

#[test]
fn a_full_disk_fails_one_group_and_not_the_next() {
    let (_directory, path, database) = open(&["alice"]);
    let (mut writer, told) = writer(database, Settings { mailbox_bytes: 1 << 30, ..Settings::default() });
    writer.carry_out(vec![keeping(1, "hi", &["alice"])]);
    let pages = number(writer.database.as_ref().unwrap().rows(), "PRAGMA page_count");
    connection(&writer).pragma_update(None, "max_page_count", pages).unwrap();
    let large = "x".repeat(100_000);
    let orders = vec![keeping(2, "", &["alice"]), settling(&writer, "alice", 1), keeping(3, &large, &["alice"])];
    writer.carry_out(orders);
    writer.carry_out(vec![keeping(4, "small", &["alice"])]);
    let told: Vec<Told> = told.try_iter().collect();
    let expected = [
        Told::Kept(Ticket(1), Ok(vec![Place::Queued(1)])),
        Told::Kept(Ticket(2), Err(Trouble::Storage)),
        Told::Kept(Ticket(3), Err(Trouble::Storage)),
        Told::Kept(Ticket(4), Ok(vec![Place::Queued(2)])),
    ];
    assert_eq!(told, expected);
    assert!(matches!(writer.troubles.last(), StoreError::Sqlite { .. }), "which was said");
    assert_eq!(letters(&path), 2);
    // What was acknowledged is not forgotten, but need not be tried at once.
    assert_eq!(writer.shared.marks.late(), [(name("alice"), 1)]);
    writer.retry = Instant::now();
    writer.tend();
    assert_eq!(letters(&path), 1);
    assert!(!writer.shared.marks.is_late());
}

#[test]
fn a_disk_that_fails_is_opened_again_when_it_works() {
    let (_directory, path, database) = open(&["alice"]);
    let (mut writer, told) = writer(database, Settings::default());
    writer.carry_out((0..3).map(|n| keeping(n, "hi", &["alice"])).collect());
    assert_eq!(told.try_iter().count(), 3);
    break_disk(&writer);
    hide(&path, true);
    let attempts = write(&writer, Write::Tried { user: name("alice"), seqs: vec![2] });
    let orders = vec![keeping(7, "hi", &["alice"]), settling(&writer, "alice", 1), attempts];
    writer.carry_out(orders);
    assert_eq!(told.try_recv(), Ok(Told::Kept(Ticket(7), Err(Trouble::Storage))));
    assert!(writer.database.is_none());
    assert!(writer.wake() > Instant::now(), "it does not try all the time");
    // Nobody waits meanwhile.
    assert!(matches!(register_all(&mut writer, &["bob"])[0], Err(StoreError::Sqlite { .. })));
    for _ in 0..3 {
        writer.retry = Instant::now();
        writer.tend();
        assert!(writer.database.is_none());
        assert!(writer.retry > Instant::now());
    }
    hide(&path, false);
    writer.tend();
    assert!(writer.database.is_none(), "it was not yet time");
    writer.retry = Instant::now();
    writer.tend();
    assert!(writer.database.is_some());
    assert_eq!(letters(&path), 2, "what was acknowledged meanwhile is settled");
    assert_eq!(writer.shared.marks.sent(&name("alice")), (0, 3), "attempts that were not counted are not forgotten");
    writer.carry_out(vec![keeping(8, "hi", &["alice"])]);
    assert_eq!(told.try_recv(), Ok(Told::Kept(Ticket(8), Ok(vec![Place::Queued(4)]))));
    assert!(register_all(&mut writer, &["bob"])[0].is_ok());
}

#[test]
fn a_database_that_came_to_harm_is_not_used_again() {
    let (_directory, path, database) = open(&["alice"]);
    let (mut writer, told) = writer(database, Settings::default());
    writer.carry_out(vec![keeping(1, "hi", &["alice"])]);
    break_disk(&writer);
    writer.carry_out(vec![keeping(2, "hi", &["alice"])]);
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute("UPDATE mailboxes SET messages = 2", []).unwrap();
    writer.retry = Instant::now();
    writer.tend();
    assert!(writer.database.is_none());
    assert!(matches!(writer.troubles.last(), StoreError::Damaged { .. }));
    writer.carry_out(vec![keeping(3, "hi", &["alice"])]);
    assert_eq!(told.try_iter().last(), Some(Told::Kept(Ticket(3), Err(Trouble::Storage))));
    other.execute("UPDATE mailboxes SET messages = 1", []).unwrap();
    writer.retry = Instant::now();
    writer.tend();
    assert!(writer.database.is_some());
}

#[test]
fn a_database_that_can_only_be_read_is_not_used_again() {
    let (_directory, path, database) = open(&["alice"]);
    let mut writer = quiet(database);
    break_disk(&writer);
    writer.carry_out(vec![keeping(1, "hi", &["alice"])]);
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("CREATE TRIGGER no BEFORE INSERT ON counters BEGIN SELECT raise(ABORT, 'no'); END").unwrap();
    writer.retry = Instant::now();
    writer.tend();
    assert!(writer.database.is_none());
    other.execute_batch("DROP TRIGGER no").unwrap();
    writer.retry = Instant::now();
    writer.tend();
    assert!(writer.database.is_some());
}

#[test]
fn the_end_does_not_wait_for_a_disk_that_fails() {
    let (_directory, path, database) = open(&["alice"]);
    let (mut writer, told) = writer(database, Settings::default());
    let shared = Arc::clone(&writer.shared);
    writer.carry_out(vec![keeping(1, "hi", &["alice"])]);
    break_disk(&writer);
    hide(&path, true);
    shared.orders.push(keeping(2, "hi", &["alice"]), Size { rows: 1, bytes: 0 }).unwrap();
    let settle = settling(&writer, "alice", 1);
    shared.orders.push(settle, Size { rows: 1, bytes: 0 }).unwrap();
    shared.orders.close();
    assert!(writer.run().is_none());
    assert_eq!(told.try_iter().last(), Some(Told::Kept(Ticket(2), Err(Trouble::Storage))));
    hide(&path, false);
    let run = Database::open(&path).unwrap().begin_run().unwrap();
    assert_eq!(run, Run { suspect: 1, highest: 1 }, "it did not end well");
}

#[test]
fn a_large_acknowledgement_is_done_in_parts() {
    let (_directory, path, database) = open(&["alice"]);
    let (mut writer, _told) = writer(database, Settings { mailbox_messages: 10_000, ..Settings::default() });
    writer.carry_out((0..5000).map(|n| keeping(n, "", &["alice"])).collect());
    let settle = settling(&writer, "alice", 4990);
    writer.carry_out(vec![settle]);
    assert_eq!(letters(&path), 5000 - 4096);
    assert_eq!(writer.shared.marks.sent(&name("alice")).0, 4990, "what is left of it may have been sent");
    assert!(writer.wake() <= Instant::now(), "it goes on at once");
    writer.tend();
    assert_eq!(letters(&path), 10);
    assert_eq!(writer.shared.marks.sent(&name("alice")).0, 0);
}

#[test]
fn what_is_set_aside_is_not_settled() {
    let (_directory, path, database) = open(&["alice"]);
    let (mut writer, _told) = writer(database, Settings { attempts: 2, ..Settings::default() });
    let tried = |writer: &Writer| write(writer, Write::Tried { user: name("alice"), seqs: vec![1] });
    writer.carry_out(vec![keeping(1, "hi", &["alice"]), tried(&writer), keeping(2, "hi", &["alice"]), tried(&writer)]);
    let settle = settling(&writer, "alice", 2);
    writer.carry_out(vec![settle]);
    assert_eq!(Database::open(&path).unwrap().totals().unwrap().aside, 1);
    assert_eq!(letters(&path), 1);
}

/// A letter for `user`, and messages for servers.
fn sending(ticket: u64, user: &str, outgoing: Vec<Outgoing>) -> Order {
    let keep = Keep { outgoing: outgoing.into_iter().map(Arc::new).collect(), ..keep("s/1-1", "hi", &[user]) };
    Order::Write(Write::Keep(Ticket(ticket), Arc::new(keep)))
}

fn unsent(path: &Path) -> u64 {
    let database = Database::open(path).unwrap();
    database.check().unwrap();
    database.outbox_totals().unwrap().messages
}

#[test]
fn what_an_answer_has_for_users_and_for_servers_is_kept_together() {
    let (_directory, path, mut database) = open(&["alice"]);
    let [b] = befriend(&mut database, ["b.example"]);
    let (mut writer, told) = writer(database, Settings::default());
    let trigger = "CREATE TRIGGER no_bad BEFORE INSERT ON outbox WHEN new.message_id = 'bad' BEGIN SELECT raise(FAIL, 'no'); END";
    connection(&writer).execute_batch(trigger).unwrap();
    let message = |id: &str| outgoing(b, id, "hi", None);
    let to = Destination::Address("192.0.2.1:25".parse().unwrap());
    let met = Outgoing { to, ..message("good") };
    let orders = vec![
        sending(1, "alice", vec![message("good")]),
        sending(2, "alice", vec![met, message("good"), message("bad")]),
        sending(3, "alice", vec![message("good")]),
    ];
    writer.carry_out(orders);
    let told: Vec<Told> = told.try_iter().collect();
    let queued = |seq| Ok(vec![Place::Queued(seq), Place::Queued(seq)]);
    let expected = [Told::Kept(Ticket(1), queued(1)), Told::Kept(Ticket(2), Err(Trouble::Storage)), Told::Kept(Ticket(3), queued(2))];
    assert_eq!(told, expected);
    assert_eq!((letters(&path), unsent(&path)), (2, 2));
    assert_eq!(Database::open(&path).unwrap().peers().unwrap().len(), 1, "whom it met is forgotten, too");
}

#[test]
fn receipts_that_a_failing_disk_did_not_take_are_written_down_later() {
    let (_directory, path, mut database) = open(&["alice"]);
    let [b] = befriend(&mut database, ["b.example"]);
    let (mut writer, told) = writer(database, Settings { queue: 2, ..Settings::default() });
    writer.carry_out(vec![sending(1, "alice", (0..4).map(|_| outgoing(b, "s/1-2", "hi", Some("alice"))).collect())]);
    let sent = |receipt| Order::Write(Write::Sent(b, receipt));
    break_disk(&writer);
    hide(&path, true);
    let receipts = [Receipt::Unreached, Receipt::Taken(vec![1]), Receipt::Deferred(vec![2]), Receipt::Refused(2), Receipt::Taken(vec![3])];
    writer.carry_out(receipts.map(sent).into());
    assert!(writer.database.is_none());
    assert_eq!(writer.late.len(), 2, "those that must be written down, as far as there is room");
    hide(&path, false);
    assert_eq!(unsent(&path), 4);
    told.try_iter().for_each(drop);
    writer.retry = Instant::now();
    writer.tend();
    assert_eq!(unsent(&path), 2);
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [Told::Reported(vec![name("alice")])]);
    assert!(reports(&Database::open(&path).unwrap(), "alice")[0].4.contains(r#""attempts":1,"#));
    assert!(!writer.is_late() && writer.wake() > Instant::now());
}

#[test]
fn the_end_writes_late_receipts_down_if_it_can() {
    let (_directory, path, mut database) = open(&["alice"]);
    let [b] = befriend(&mut database, ["b.example"]);
    let (mut writer, _told) = writer(database, Settings::default());
    let many = LATE_MAX as u64 + 1;
    writer.carry_out(vec![sending(1, "alice", (0..many).map(|_| outgoing(b, "s/1-2", "hi", None)).collect())]);
    break_disk(&writer);
    writer.carry_out((1..=many).map(|seq| Order::Write(Write::Sent(b, Receipt::Taken(vec![seq])))).collect());
    assert_eq!(unsent(&path), many);
    writer.shared.orders.close();
    assert!(writer.run().is_some());
    assert_eq!(unsent(&path), 0);
}

#[test]
fn a_receipt_that_is_not_possible_is_not_tried_for_ever() {
    let (_directory, _, mut database) = open(&["alice"]);
    let [b] = befriend(&mut database, ["b.example"]);
    let (mut writer, told) = writer(database, Settings::default());
    writer.carry_out(vec![sending(1, "alice", vec![outgoing(b, "s/1-2", "hi", None)])]);
    connection(&writer).execute_batch("CREATE TRIGGER no BEFORE DELETE ON outbox BEGIN SELECT raise(FAIL, 'no'); END").unwrap();
    told.try_iter().for_each(drop);
    let orders = vec![keeping(2, "hi", &["alice"]), Order::Write(Write::Sent(b, Receipt::Taken(vec![1])))];
    writer.carry_out(orders);
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [Told::Kept(Ticket(2), Ok(vec![Place::Queued(2)]))]);
    assert!(!writer.is_late());
}

#[test]
fn messages_that_are_too_old_are_told_to_those_who_wrote_them() {
    let (_directory, path, mut database) = open(&["alice"]);
    let [b] = befriend(&mut database, ["b.example"]);
    let (mut writer, told) = writer(database, Settings::default());
    writer.carry_out(vec![sending(1, "alice", vec![outgoing(b, "s/1-2", "hi", Some("alice"))])]);
    told.try_iter().for_each(drop);
    connection(&writer).execute("UPDATE outbox SET kept = kept - 48 * 60 * 60 - 1", []).unwrap();
    writer.tend();
    assert_eq!((unsent(&path), told.try_iter().count()), (1, 0), "the clock is not trusted yet");
    writer.expiry = Expiry::new(&writer.settings, Instant::now() - Duration::from_secs(601), calendar::now() - 601);
    writer.tend();
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [Told::Reported(vec![name("alice")])]);
    assert_eq!((unsent(&path), writer.shared.marks.sent(&name("alice"))), (0, (0, 0)));
    // Attempts that are not counted put it in doubt, too.
    writer.shared.marks.not_done(&Write::Tried { user: name("alice"), seqs: vec![2] });
    assert_eq!(writer.shared.marks.sent(&name("alice")), (0, 2));
}
