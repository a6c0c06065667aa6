use super::super::fake::{Office, befriend, hash, keep, name, newcomer, open, outgoing, pin, reports, server};
use super::super::mail::{Destination, Keep, Memo, Outgoing, Place, Ticket, Trouble};
use super::super::{Verify, Which};
use super::*;
use crate::frame::Slice;
use crate::name::ConnId;
use crate::protocol::report::Counts;
use std::path::{Path, PathBuf};

fn people(path: &Path) -> Vec<String> {
    let standings = Database::open(path).unwrap().standings(None).unwrap();
    standings.iter().map(|(name, _)| name.to_string()).collect()
}

fn quiet(database: Database) -> (Store, Threads) {
    Store::start(database, Settings::default(), |_| {}).unwrap()
}

#[test]
fn a_store_does_what_it_is_asked() {
    let (_directory, path, database) = open(&[]);
    let (store, threads) = quiet(database);
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
    threads.finish();
    assert_eq!(people(&path), ["alice"]);
}

#[test]
fn many_threads_share_one_store() {
    let (_directory, path, database) = open(&[]);
    let (store, storage) = quiet(database);
    let start = |i| {
        let store = store.clone();
        let register = move |j| {
            let user = name(&format!("u{i}-{j}"));
            // What was answered is seen by the next question.
            store.register(user.clone(), hash()).is_ok() && store.account(&user).unwrap().is_some()
        };
        crate::thread::spawn("client", 64 << 10, move || (0..50).all(register))
    };
    let threads: Vec<_> = (0..8).map(|i| start(i).unwrap()).collect();
    assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
    storage.finish();
    assert_eq!(people(&path).len(), 400);
}

#[test]
fn an_answer_means_that_it_is_committed() {
    let (_directory, path, database) = open(&["alice"]);
    let office = Office::start(database, Settings::default());
    let other = Database::open(&path).unwrap();
    for round in 1..20 {
        office.store.register(name(&format!("u{round}")), hash()).unwrap();
        assert!(other.account(&name(&format!("u{round}"))).unwrap().is_some());
        assert_eq!(office.queue("alice", "s/1-1", "hi"), round);
        assert_eq!(other.totals().unwrap().letters, round);
    }
}

#[test]
fn it_ends_with_all_that_was_ordered_whoever_still_holds_it() {
    let (_directory, path, database) = open(&["alice"]);
    let office = Office::start(database, Settings::default());
    let store = office.store.clone();
    let told = office.told.clone();
    let order = |n| Write::Keep(Ticket(n), Arc::new(keep("s/1-1", "hi", &["alice"])));
    store.write((0..500).map(order).collect()).unwrap();
    store.write(vec![Write::Settle { user: name("alice"), up_to: 100, reports: true, conn: None }]).unwrap();
    office.finish();
    let tickets: Vec<Told> = told.try_iter().collect();
    let expected: Vec<Told> = (0..500).map(|n| Told::Kept(Ticket(n), Ok(vec![Place::Queued(n + 1)]))).collect();
    assert_eq!(tickets, expected, "in their order");
    for ending in ["-wal", "-shm"] {
        assert!(!PathBuf::from(format!("{}{ending}", path.display())).exists(), "{ending}");
    }
    assert!(matches!(store.account(&name("alice")), Err(StoreError::Stopped)));
    assert!(matches!(store.register(name("bob"), hash()), Err(StoreError::Stopped)));
    let page = Read::Page { conn: ConnId(1), user: name("alice"), after: 0, reports: true, letters_max: 1, bytes_max: 1 };
    assert_eq!(store.read(page.clone()), Err(page));
    assert_eq!(store.write(vec![order(1)]), Err(vec![order(1)]));
    let mut database = Database::open(&path).unwrap();
    assert_eq!(database.totals().unwrap().letters, 400);
    assert_eq!(database.begin_run().unwrap().suspect, 0);
}

#[test]
fn letters_are_new_after_a_clean_end_and_doubtful_after_another() {
    let (_directory, path, database) = open(&["alice"]);
    let office = Office::start(database, Settings::default());
    office.queue("alice", "s/1-1", "one");
    office.finish();
    let office = Office::open(&path, Settings::default());
    office.queue("alice", "s/1-2", "two");
    let page = |office: &Office| office.page("alice", 0).into_iter().map(|(seq, _, again)| (seq, again)).collect::<Vec<_>>();
    assert_eq!(page(&office), [(1, false), (2, false)]);
    // As if it were killed: its files as they are at this moment.
    let copy = tempfile::tempdir().unwrap();
    for ending in ["", "-wal"] {
        std::fs::copy(format!("{}{ending}", path.display()), copy.path().join(format!("bester.db{ending}"))).unwrap();
    }
    std::fs::set_permissions(copy.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    for entry in std::fs::read_dir(copy.path()).unwrap() {
        std::fs::set_permissions(entry.unwrap().path(), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    let killed = Office::open(&copy.path().join("bester.db"), Settings::default());
    killed.queue("alice", "s/2-1", "three");
    assert_eq!(page(&killed), [(1, true), (2, true), (3, false)]);
    killed.tried("alice", &[3]);
    killed.settled();
    assert_eq!(page(&killed), [(1, true), (2, true), (3, true)]);
}

#[test]
fn a_second_delivery_says_so_before_the_first_is_written_down() {
    let (_directory, path, database) = open(&["alice"]);
    let office = Office::start(database, Settings::default());
    for _ in 0..3 {
        office.queue("alice", "s/1-1", "hi");
    }
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    office.settle("alice", 1, None);
    office.tried("alice", &[2]);
    let again = |office: &Office| office.page("alice", 0).into_iter().map(|(_, _, again)| again).collect::<Vec<_>>();
    assert_eq!(again(&office), [true, true, false]);
    other.execute_batch("COMMIT").unwrap();
    office.settled();
    assert_eq!(again(&office), [true, false]);
}

#[test]
fn questions_do_not_wait_for_whoever_writes() {
    let (_directory, path, database) = open(&["alice"]);
    let office = Office::start(database, Settings::default());
    office.queue("alice", "s/1-1", "hi");
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE; UPDATE counters SET value = value + 1").unwrap();
    let order = Write::Keep(Ticket(2), Arc::new(keep("s/1-1", "hi", &["alice"])));
    office.store.write(vec![order]).unwrap();
    assert_eq!(office.page("alice", 0).len(), 1);
    assert!(office.store.account(&name("alice")).unwrap().is_some());
    // Nobody waits for ever either, and another process is no trouble with the disk.
    assert_eq!(office.hear(), Told::Kept(Ticket(2), Err(Trouble::Busy)));
    drop(other);
    assert_eq!(office.queue("alice", "s/1-1", "hi"), 2);
}

#[test]
fn an_acknowledgement_of_more_than_there_was_is_told() {
    let (_directory, _, database) = open(&["alice"]);
    let office = Office::start(database, Settings::default());
    office.queue("alice", "s/1-1", "hi");
    office.settle("alice", 2, Some(7));
    assert_eq!(office.hear(), Told::Beyond { conn: ConnId(7), last: 1 });
    assert_eq!(office.page("alice", 0).len(), 1);
    office.settle("alice", 1, Some(7));
    office.settled();
    assert_eq!(office.page("alice", 0), []);
}

#[test]
fn a_message_is_remembered_with_what_became_of_it() {
    let (_directory, _, database) = open(&["alice"]);
    let office = Office::start(database, Settings { mailbox_messages: 1, ..Settings::default() });
    let order = |number: u8, users: &[&str], offline| {
        let counts = Counts { offline, ..Counts::default() };
        let report = Report::Outcome { kind: "chat".into(), id: Slice::from(&b"\"c\""[..]), message_id: Some("s/1-1".into()), counts };
        Keep { memo: Some(Memo { digest: [number; 32], peer: None, report }), ..keep("s/1-1", "hi", users) }
    };
    let memo = |number: u8| {
        office.store.read(Read::Memo { digest: [number; 32] }).unwrap();
        match office.hear() {
            Told::Memo(_, Ok(found)) => found.map(|text| String::from_utf8(text.bytes().to_vec()).unwrap()),
            told => panic!("{told:?}"),
        }
    };
    assert_eq!(memo(1), None);
    office.keep(order(1, &["alice"], 2));
    assert_eq!(
        memo(1).as_deref(),
        Some(
            r#"{"header":{"status":"good","messageType":"statusReport"},"payload":{"data":{"messageId":"s/1-1","delivered":0,"queued":1,"offline":2,"unknown":0,"refused":0},"type":"chat","id":"c"}}"#
        )
    );
    office.keep(order(2, &["alice"], 0));
    assert_eq!(memo(2), None, "a full mailbox is temporary");
    office.keep(order(3, &["nobody"], 0));
    assert!(memo(3).unwrap().contains(r#""status":"bad""#), "a name that is not known stays so");
    office
        .keep(Keep { memo: Some(Memo { digest: [4; 32], peer: None, report: Report::Ready(Slice::from(&b"{}"[..])) }), ..Keep::default() });
    assert_eq!(memo(4).as_deref(), Some("{}"));
}

#[test]
fn a_message_that_is_remembered_for_too_long_is_not_found() {
    let (_directory, path, database) = open(&[]);
    let office = Office::start(database, Settings::default());
    let memo = Memo { digest: [1; 32], peer: None, report: Report::Ready(Slice::from(&b"{}"[..])) };
    office.keep(Keep { memo: Some(memo), ..Keep::default() });
    let find = || {
        office.store.read(Read::Memo { digest: [1; 32] }).unwrap();
        office.hear()
    };
    assert!(matches!(find(), Told::Memo(_, Ok(Some(_)))));
    rusqlite::Connection::open(&path).unwrap().execute("UPDATE memos SET at = at - 601", []).unwrap();
    assert_eq!(find(), Told::Memo([1; 32], Ok(None)));
}

/// For these servers.
fn sending(outgoing: Vec<Outgoing>) -> Keep {
    Keep { outgoing: outgoing.into_iter().map(Arc::new).collect(), ..Keep::default() }
}

#[test]
fn a_message_for_a_server_lies_in_its_outbox_until_it_has_it() {
    let (_directory, _, mut database) = open(&["alice"]);
    let [b, c] = befriend(&mut database, ["b.example", "c.example"]);
    let office = Office::start(database, Settings { outbox_messages: 2, ..Settings::default() });
    assert_eq!(office.store.peers().unwrap().iter().map(|peer| peer.id).collect::<Vec<_>>(), [b, c]);
    let message = outgoing(b, "s/1-2", "hi", Some("alice"));
    let all = vec![message.clone(), message.clone(), message.clone(), outgoing(PeerId(99), "s/1-3", "hi", None)];
    let told = office.keep(Keep { outgoing: sending(all).outgoing, ..keep("s/1-1", "hi", &["alice", "nobody"]) });
    let places = vec![Place::Queued(1), Place::Unknown, Place::Queued(1), Place::Queued(2), Place::Refused, Place::Unknown];
    assert_eq!(told, Told::Kept(Ticket(1), Ok(places)), "those of servers follow those of users");
    let page = |after| office.store.outbox(b, after, 1, 99).unwrap();
    let message = Arc::new(message);
    assert_eq!(page(0), OutboxPage { messages: vec![(1, Arc::clone(&message))], more: true });
    assert_eq!(page(1), OutboxPage { messages: vec![(2, message)], more: false });
    office.store.write(vec![Write::Sent(b, Receipt::Taken(vec![1, 2]))]).unwrap();
    office.settled();
    assert_eq!(page(0), OutboxPage::default());
}

#[test]
fn a_server_that_was_not_known_is_told_before_what_is_for_it() {
    let (_directory, _, mut database) = open(&[]);
    befriend(&mut database, ["b.example"]);
    let office = Office::start(database, Settings::default());
    let to = |address: &str| Destination::Address(address.parse().unwrap());
    let send = |addresses: &[&str]| {
        let message = |address| Outgoing { to: to(address), ..outgoing(PeerId(0), "s/1-1", "hi", None) };
        office.store.write(vec![Write::Keep(Ticket(1), Arc::new(sending(addresses.iter().map(|one| message(one)).collect())))]).unwrap();
    };
    let queued = |seqs: &[u64]| Told::Kept(Ticket(1), Ok(seqs.iter().map(|seq| Place::Queued(*seq)).collect()));
    send(&["192.0.2.1:25", "192.0.2.2:25", "192.0.2.1:25"]);
    assert_eq!(office.hear(), Told::Met(office.store.peers().unwrap()));
    assert_eq!(office.hear(), queued(&[1, 1, 2]));
    assert_eq!(office.store.peers().unwrap().len(), 3);
    send(&["192.0.2.1:25"]);
    assert_eq!(office.hear(), queued(&[3]), "it is known");
}

#[test]
fn reports_are_told_in_the_order_of_their_numbers() {
    let (_directory, path, mut database) = open(&["alice", "bob"]);
    let [b] = befriend(&mut database, ["b.example"]);
    let office = Office::start(database, Settings::default());
    office.keep(sending(["alice", "bob"].map(|author| outgoing(b, "s/1-2", "hi", Some(author))).to_vec()));
    let keeping = |ticket| Write::Keep(Ticket(ticket), Arc::new(keep("s/1-3", "hi", &["alice"])));
    let refused = |seq| Write::Sent(b, Receipt::Refused(seq));
    office.store.write(vec![keeping(1), refused(1), keeping(2), refused(1), refused(2)]).unwrap();
    let kept = |ticket, seq| Told::Kept(Ticket(ticket), Ok(vec![Place::Queued(seq)]));
    let reported = |user| Told::Reported(vec![name(user)]);
    let expected = [kept(1, 1), reported("alice"), kept(2, 3), reported("bob")];
    for told in expected {
        assert_eq!(office.hear(), told);
    }
    let database = Database::open(&path).unwrap();
    assert_eq!((reports(&database, "alice").len(), reports(&database, "bob").len()), (1, 1));
}

#[test]
fn a_message_of_a_server_is_remembered_with_what_became_of_it() {
    let (_directory, path, mut database) = open(&["alice"]);
    let [b] = befriend(&mut database, ["b.example"]);
    let office = Office::start(database, Settings { seen: 2, mailbox_messages: 1, ..Settings::default() });
    let order = |number: u8, users: &[&str]| {
        let report =
            Report::Outcome { kind: "chat".into(), id: "\"b/1-1\"".as_bytes().into(), message_id: None, counts: Counts::default() };
        Keep { memo: Some(Memo { digest: [number; 32], peer: Some(b), report }), ..keep("s/1-1", "hi", users) }
    };
    let memo = |number: u8| {
        office.store.read(Read::Memo { digest: [number; 32] }).unwrap();
        match office.hear() {
            Told::Memo(_, Ok(found)) => found.map(|text| String::from_utf8(text.bytes().to_vec()).unwrap()),
            told => panic!("{told:?}"),
        }
    };
    let good = r#"{"header":{"status":"good","messageType":"statusReport"},"payload":{"data":null,"type":"chat","id":"b/1-1"}}"#;
    office.keep(order(1, &["alice"]));
    assert_eq!(memo(1).as_deref(), Some(good));
    office.keep(order(2, &["alice"]));
    assert!(memo(2).unwrap().contains(r#""status":"bad""#), "a mailbox that is full is no reason to send it again");
    // For three days, not for ten minutes.
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute("UPDATE seen SET at = at - 3 * 24 * 60 * 60 + 60", []).unwrap();
    assert_eq!(memo(1).as_deref(), Some(good));
    other.execute("UPDATE seen SET at = at - 61", []).unwrap();
    assert_eq!(memo(1), None);
    other.execute("UPDATE seen SET at = at + 3 * 24 * 60 * 60", []).unwrap();
    office.keep(order(3, &[]));
    assert_eq!((memo(1), memo(3).as_deref()), (None, Some(good)), "as many as there may be");
    Database::open(&path).unwrap().check().unwrap();
}

#[test]
fn an_invitation_is_on_the_disk_when_it_is_accepted() {
    let (_directory, path, mut database) = open(&[]);
    database.invite(&[1; 32], i64::MAX).unwrap();
    let office = Office::start(database, Settings { peers: 1, ..Settings::default() });
    let accept = |secret, who: &str| office.store.accept_invitation([secret; 32], server(who), vec![], pin(who));
    assert!(matches!(accept(2, "b.example"), Err(StoreError::NoInvitation)));
    accept(1, "b.example").unwrap();
    let mut other = Database::open(&path).unwrap();
    assert_eq!(other.peers().unwrap()[0].verify, Verify::Pins(vec![pin("b.example")]));
    accept(1, "b.example").unwrap();
    other.invite(&[2; 32], i64::MAX).unwrap();
    assert!(matches!(accept(2, "c.example"), Err(StoreError::PeersFull { most: 1 })));
    assert!(matches!(accept(1, "c.example"), Err(StoreError::NoInvitation)));
    other.remove_peer(&server("b.example")).unwrap();
    accept(2, "c.example").unwrap();
    assert_eq!(office.store.peers().unwrap(), other.peers().unwrap());
}

#[test]
fn a_command_may_drop_what_a_server_keeps() {
    let (_directory, path, mut database) = open(&["alice"]);
    let [b] = befriend(&mut database, ["b.example"]);
    let office = Office::start(database, Settings::default());
    office.keep(sending(vec![outgoing(b, "s/1-2", "hi", Some("alice"))]));
    let mut other = Database::open(&path).unwrap();
    assert_eq!(other.drop_outgoing(&server("b.example"), Which::All).unwrap().messages, 1);
    office.store.write(vec![Write::Sent(b, Receipt::Taken(vec![1])), Write::Sent(b, Receipt::Refused(1))]).unwrap();
    office.settled();
    other.check().unwrap();
    assert_eq!(reports(&other, "alice").len(), 1, "and no second one");
    assert_eq!(other.add_peer(&newcomer("c.example"), 9).unwrap(), PeerId(b.0 + 1));
}

/// A store whose threads never come.
fn alone(settings: &Settings) -> Store {
    Store(Arc::new(Shared::new(settings, Run { suspect: 0, highest: 9 })))
}

#[test]
fn what_finds_no_room_is_given_back_or_remembered() {
    let store = alone(&Settings { queue: 3, queue_bytes: 10, ..Settings::default() });
    let order = |n, data| Write::Keep(Ticket(n), Arc::new(keep("s/1-1", data, &["alice", "bob"])));
    let settle = |up_to| Write::Settle { user: name("alice"), up_to, reports: true, conn: None };
    assert_eq!(store.write(vec![order(1, "large as it is")]), Ok(()), "into an empty queue");
    assert_eq!(store.write(vec![order(2, ""), settle(5)]), Err(vec![order(2, "")]));
    store.0.orders.take(Size { rows: 9, bytes: 99 }, None);
    let tried = Write::Tried { user: name("bob"), seqs: vec![4] };
    let sent = |receipt| Write::Sent(PeerId(1), receipt);
    let two = Receipt::Taken(vec![1, 2]);
    let refused = store.write(vec![order(3, ""), order(4, ""), sent(two.clone()), settle(6), settle(7), tried, sent(Receipt::Refused(3))]);
    assert_eq!(refused, Err(vec![order(4, ""), sent(two), sent(Receipt::Refused(3))]), "a receipt is for its link to give again");
    assert_eq!(store.0.marks.late(), [(name("alice"), 7)]);
    assert_eq!(store.0.marks.sent(&name("bob")), (0, 9));
}

#[test]
fn a_full_queue_and_a_missing_answer_are_busy() {
    let store = alone(&Settings { queue: 1, ..Settings::default() });
    let ask = |patience| {
        let asked = ask(&store.0.questions, patience, |begin_by, reply| Question::Standings { names: None, begin_by, reply });
        asked.unwrap_err()
    };
    // Nobody answers.
    assert!(matches!(ask(Duration::ZERO), StoreError::Busy));
    // That question still waits.
    assert!(matches!(ask(Duration::from_secs(60)), StoreError::Busy));
    let page = Read::Page { conn: ConnId(1), user: name("alice"), after: 0, reports: true, letters_max: 1, bytes_max: 1 };
    assert_eq!(store.read(page.clone()), Err(page));
    store.0.questions.close();
    assert!(matches!(ask(Duration::from_secs(60)), StoreError::Stopped));
}
