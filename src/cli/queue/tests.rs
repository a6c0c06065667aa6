use super::*;
use crate::frame::Slice;
use crate::password;
use crate::store::mail::{Author, Destination, Keep, Letter, Outgoing, Parcel, Place, Recipient, Ticket, Told, Write as Order};
use crate::store::{Newcomer, Settings, Store, Verify};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

const HASH: &str = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
/// Sent once and not acknowledged, a message is set aside.
const ATTEMPTS: u32 = 1;

fn name(text: &str) -> Username {
    Username::new(text).unwrap()
}

/// A database with alice and bob, after a server put these into mailboxes and sent some in vain.
fn mailboxes(letters: &[(&str, &str)], tried: &[(&str, u64)]) -> (TempDir, Database) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state/bester.db");
    let mut database = Database::open(&path).unwrap();
    let hash = password::Hash::parse(HASH).unwrap();
    ["alice", "bob"].iter().for_each(|user| _ = database.add(&name(user), &hash).unwrap());
    let (tell, told) = crossbeam_channel::unbounded();
    let settings = Settings { attempts: ATTEMPTS, ..Settings::default() };
    let (store, threads) = Store::start(database, settings, move |all| all.into_iter().for_each(|one| tell.send(one).unwrap())).unwrap();
    for (number, (user, data)) in (1..).zip(letters) {
        let letter = Letter {
            message_id: format!("a.example/5f-{number}").into(),
            kind: "post".into(),
            data: Slice::from(data.as_bytes()),
            asker: None,
            report: None,
        };
        let recipients = vec![Recipient { user: name(user), counts: true, handed: false }];
        let keep = Keep { parcels: vec![Parcel { letter: Arc::new(letter), recipients }], outgoing: Vec::new(), memo: None };
        store.write(vec![Order::Keep(Ticket(number), Arc::new(keep))]).unwrap();
        let kept = told.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(matches!(&kept, Told::Kept(_, Ok(places)) if matches!(places[..], [Place::Queued(_)])), "{kept:?}");
    }
    for (user, seq) in tried {
        store.write(vec![Order::Tried { user: name(user), seqs: vec![*seq] }]).unwrap();
    }
    threads.finish();
    let database = Database::open(&path).unwrap();
    (directory, database)
}

fn text(body: impl FnOnce(&mut dyn Write) -> Result<(), OutputEnd>) -> String {
    let mut out = Vec::new();
    body(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn listed(database: &Database, json: bool) -> String {
    text(|out| list(database, json, now(), out))
}

fn shown(database: &Database, user: &str, data: bool, json: bool) -> String {
    text(|out| show(database, &name(user), (data, json), now(), out))
}

#[test]
fn arguments_are_an_action_and_what_it_needs() {
    let parse = |words: &[&str], flags: &[&str]| {
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        Action::parse(&words, flags, None)
    };
    let bob = || name("bob");
    assert_eq!(parse(&["list"], &["json"]), Ok(Action::List { json: true }));
    assert_eq!(parse(&["show", "bob"], &[]), Ok(Action::Show { user: bob(), data: false, json: false }));
    assert_eq!(parse(&["show", "bob"], &["json", "data"]), Ok(Action::Show { user: bob(), data: true, json: true }));
    assert_eq!(parse(&["retry", "bob"], &[]), Ok(Action::Retry(bob(), Which::Aside)));
    assert_eq!(parse(&["retry", "bob", "7"], &[]), Ok(Action::Retry(bob(), Which::One(7))));
    assert_eq!(parse(&["drop", "bob", "7"], &[]), Ok(Action::Drop(bob(), Which::One(7))));
    assert_eq!(parse(&["drop", "bob"], &["aside"]), Ok(Action::Drop(bob(), Which::Aside)));
    assert_eq!(parse(&["drop", "bob"], &["all"]), Ok(Action::Drop(bob(), Which::All)));
    for (words, flags, code) in [
        (&[][..], &[][..], 64),
        (&["frobnicate"], &[], 64),
        (&["list", "bob"], &[], 64),
        (&["list"], &["data"], 64),
        (&["show"], &[], 64),
        (&["show", "bob", "7"], &[], 64),
        (&["show", "bob"], &["all"], 64),
        (&["retry"], &[], 64),
        (&["retry", "bob"], &["all"], 64),
        (&["retry", "bob", "seven"], &[], 64),
        (&["retry", "bob", "0"], &[], 64),
        (&["retry", "bob", "7", "8"], &[], 64),
        (&["drop", "bob"], &[], 64),
        (&["drop", "bob", "7"], &["aside"], 64),
        (&["drop", "bob", "7"], &["all"], 64),
        (&["drop", "bob"], &["aside", "all"], 64),
        (&["drop", "bob"], &["json"], 64),
        (&["drop", "Bob"], &["all"], 65),
    ] {
        let failure = parse(words, flags).unwrap_err();
        assert_eq!(failure.code, code, "{words:?} {flags:?}: {failure}");
        assert!(code != 64 || failure.message.contains("bester queue --help"), "{failure}");
    }
}

#[test]
fn a_list_has_the_mailboxes_in_which_something_waits() {
    let (_directory, database) = mailboxes(&[], &[]);
    assert_eq!((listed(&database, false), listed(&database, true)), (String::new(), String::new()));
    let (_directory, database) = mailboxes(&[("bob", "\"hello\""), ("bob", "1"), ("alice", "2")], &[("bob", 1)]);
    let later = |seconds| text(|out| list(&database, false, now() + seconds, out));
    assert_eq!(later(7200), "alice\t1 message\t1 byte\t2 h\nbob\t2 messages\t8 bytes\t2 h\t1 set aside\n");
    let json = listed(&database, true);
    let lines: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    let bob = &lines[1];
    assert_eq!((&bob["user"], &bob["messages"], &bob["bytes"], &bob["setAside"]), (&json!("bob"), &json!(2), &json!(8), &json!(1)));
    assert!((now() - bob["oldest"].as_i64().unwrap()).abs() < 60, "{bob}");
}

#[test]
fn the_data_is_shown_only_if_that_was_asked_for() {
    let data = "{\"a\":1.0,\n\"b\":\"\u{9b}31m\\n\"}";
    let (_directory, database) = mailboxes(&[("bob", data), ("bob", "2")], &[("bob", 2)]);
    let first = format!("1\tpost\ta.example/5f-1\t{} bytes\t0 s\tsent 0 times\n", data.len());
    let second = "2\tpost\ta.example/5f-2\t1 byte\t0 s\tsent 1 time\tset aside\n";
    let at = |with| text(|out| show(&database, &name("bob"), with, 0, out));
    assert_eq!(at((false, false)), format!("{first}{second}"));
    assert_eq!(at((true, false)), format!("{first}\t{{\"a\":1.0, \"b\":\"\\u{{9b}}31m\\n\"}}\n{second}\t2\n"));
    let json = shown(&database, "bob", false, true);
    assert!(!json.contains("data") && !json.contains("1.0"), "{json}");
    let json = shown(&database, "bob", true, true);
    let lines: Vec<&str> = json.lines().collect();
    assert!(lines[0].ends_with(",\"data\":{\"a\":1.0, \"b\":\"\u{9b}31m\\n\"}}"), "as it came, but on one line: {json}");
    let second: serde_json::Value = serde_json::from_str(lines[1]).unwrap();
    assert!(second["kept"].as_i64().unwrap() > 1_600_000_000);
    let rest = json!({ "seq": 2, "type": "post", "messageId": "a.example/5f-2", "bytes": 1, "attempts": 1, "setAside": true, "data": 2 });
    for (key, value) in rest.as_object().unwrap() {
        assert_eq!(&second[key], value, "{key}");
    }
    assert_eq!(lines.len(), 2);
}

#[test]
fn what_is_no_json_does_not_break_the_line() {
    let item = Item {
        seq: 1,
        kind: "x".into(),
        message_id: "y".into(),
        bytes: 3,
        kept: 0,
        attempts: 0,
        aside: false,
        data: Some(b"{\n\xff".into()),
    };
    let line = String::from_utf8(in_json(&item)).unwrap();
    let line: serde_json::Value = serde_json::from_str(line.strip_suffix('\n').unwrap()).unwrap();
    assert_eq!(line["data"], "{\n\u{fffd}");
}

#[test]
fn only_what_was_set_aside_is_sent_again() {
    let (_directory, mut database) = mailboxes(&[("bob", "1"), ("bob", "2"), ("bob", "3")], &[("bob", 1), ("bob", 2)]);
    let aside = |database: &Database| shown(database, "bob", false, false).matches("set aside").count();
    assert_eq!(aside(&database), 2);
    for seq in [3, 9] {
        let failure = retry(&mut database, &name("bob"), Which::One(seq)).unwrap_err();
        assert_eq!((failure.code, failure.message), (65, format!("no message {seq} for bob is set aside")));
    }
    let done = |database: &mut Database, which| retry(database, &name("bob"), which).unwrap();
    assert_eq!(done(&mut database, Which::One(2)), "1 message for bob to be sent again");
    assert_eq!(aside(&database), 1);
    assert_eq!(done(&mut database, Which::Aside), "1 message for bob to be sent again");
    assert_eq!(done(&mut database, Which::Aside), "0 messages for bob to be sent again");
    assert_eq!((aside(&database), shown(&database, "bob", false, false).lines().count()), (0, 3));
}

#[test]
fn what_is_dropped_is_counted() {
    let letters = [("bob", "1"), ("bob", "2"), ("bob", "3"), ("bob", "4"), ("alice", "5")];
    let (_directory, mut database) = mailboxes(&letters, &[("bob", 1)]);
    let failure = discard(&mut database, &name("bob"), Which::One(9)).unwrap_err();
    assert_eq!((failure.code, &*failure.message), (65, "there is no message 9 for bob"));
    let mut done = |which| discard(&mut database, &name("bob"), which).unwrap();
    assert_eq!(done(Which::One(3)), "1 message for bob dropped");
    assert_eq!(done(Which::Aside), "1 message for bob dropped");
    assert_eq!(done(Which::Aside), "0 messages for bob dropped");
    assert_eq!(done(Which::All), "2 messages for bob dropped");
    assert_eq!(shown(&database, "bob", false, false), "");
    assert_eq!(shown(&database, "alice", false, false).lines().count(), 1);
}

#[test]
fn there_is_no_mailbox_without_an_account() {
    let (_directory, mut database) = mailboxes(&[("bob", "1")], &[]);
    database.remove(&name("bob")).unwrap();
    for user in ["bob", "nobody"] {
        let user = name(user);
        let codes = [
            retry(&mut database, &user, Which::Aside).unwrap_err().code,
            discard(&mut database, &user, Which::All).unwrap_err().code,
            match show(&database, &user, (false, false), 0, &mut Vec::new()) {
                Err(OutputEnd::Failure(failure)) => failure.code,
                other => panic!("{other:?}"),
            },
        ];
        assert_eq!(codes, [67; 3], "{user}");
    }
}

#[test]
fn outboxes_are_asked_for_with_the_name_of_a_server() {
    let parse = |words: &[&str], flags: &[&str]| {
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        Action::parse(&words, flags, Some("b.example"))
    };
    let peer = || ServerName::new("b.example").unwrap();
    assert_eq!(parse(&["show"], &["data"]), Ok(Action::ShowPeer { peer: peer(), data: true, json: false }));
    assert_eq!(parse(&["retry"], &[]), Ok(Action::RetryPeer(peer())));
    assert_eq!(parse(&["drop", "7"], &[]), Ok(Action::DropPeer(peer(), Which::One(7))));
    assert_eq!(parse(&["drop"], &["all"]), Ok(Action::DropPeer(peer(), Which::All)));
    for (words, flags) in [
        (&["list"][..], &[][..]),
        (&["show", "bob"], &[]),
        (&["retry", "7"], &[]),
        (&["drop"], &[]),
        (&["drop"], &["aside"]),
        (&["drop"], &["aside", "all"]),
        (&["drop", "7"], &["all"]),
        (&["drop", "seven"], &[]),
        (&["show"], &["all"]),
    ] {
        let failure = parse(words, flags).unwrap_err();
        assert!(failure.code == 64 && failure.message.contains("bester queue --help"), "{words:?} {flags:?}: {failure}");
    }
    assert_eq!(Action::parse(&["show".to_owned()], &[], Some("b example")).unwrap_err().code, 65);
}

/// A database in which these wait for b.example, of alice, and nobody's.
fn outbox(messages: &[(&str, bool)]) -> (TempDir, Database) {
    let (directory, mut database) = mailboxes(&[], &[]);
    let path = directory.path().join("state/bester.db");
    let verify = Verify::Pins(vec!["2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683".parse().unwrap()]);
    let peer = Newcomer { name: ServerName::new("b.example").unwrap(), addresses: Vec::new(), verify };
    let id = database.add_peer(&peer, 1).unwrap();
    let (tell, told) = crossbeam_channel::unbounded();
    let tell = move |all: Vec<Told>| all.into_iter().for_each(|one| tell.send(one).unwrap());
    let (store, threads) = Store::start(Database::open(&path).unwrap(), Settings::default(), tell).unwrap();
    for (number, (data, of_alice)) in (1..).zip(messages) {
        let author = of_alice.then(|| Author { user: name("alice"), id: None, message_id: "a.example/5f-9".into() });
        let message_id = format!("a.example/5f-{number}").into();
        let data = Slice::from(data.as_bytes());
        let outgoing = Outgoing { to: Destination::Peer(id), message_id, kind: "post".into(), data, hops: 1, author };
        let keep = Keep { outgoing: vec![Arc::new(outgoing)], ..Keep::default() };
        store.write(vec![Order::Keep(Ticket(number), Arc::new(keep))]).unwrap();
        let kept = told.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(matches!(&kept, Told::Kept(_, Ok(places)) if matches!(places[..], [Place::Queued(_)])), "{kept:?}");
    }
    threads.finish();
    (directory, database)
}

#[test]
fn what_waits_for_another_server_is_shown_without_its_data_unless_that_was_asked_for() {
    let (_directory, database) = outbox(&[("[1,\n2]", true), ("3", false)]);
    let peer = ServerName::new("b.example").unwrap();
    let at = now();
    assert_eq!(text(|out| outboxes::list(&database, false, at + 7200, out)), "peer b.example\t2 messages\t7 bytes\t2 h\n");
    let line: serde_json::Value = serde_json::from_str(&text(|out| outboxes::list(&database, true, at, out))).unwrap();
    assert_eq!((&line["peer"], &line["messages"], &line["bytes"]), (&json!("b.example"), &json!(2), &json!(7)));
    let show = |with| text(|out| outboxes::show(&database, &peer, with, 0, out));
    let first = "1\tpost\ta.example/5f-1\t6 bytes\t0 s\ttried 0 times\tof alice\n";
    let second = "2\tpost\ta.example/5f-2\t1 byte\t0 s\ttried 0 times\n";
    assert_eq!(show((false, false)), format!("{first}{second}"));
    assert_eq!(show((true, false)), format!("{first}\t[1, 2]\n{second}\t3\n"));
    let lines = show((true, true));
    let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["author"], &lines[0]["data"], &lines[1]["author"]), (&json!("alice"), &json!([1, 2]), &json!(null)));
    assert!(!show((false, true)).contains("data"));
}

#[test]
fn whoever_sent_what_is_dropped_is_told() {
    let (directory, mut database) = outbox(&[("1", true), ("2", false), ("3", true)]);
    let file = directory.path().join("bester.conf");
    let text = r#"{ "network": { "tcp4": { "port": 0 } }, "server": { "name": "a.example" },
                    "handlers": { "typeMap": { "x": { "handlerBinary": "cat" } } } }"#;
    std::fs::write(&file, text).unwrap();
    let config = Config::load(&file).unwrap();
    let peer = ServerName::new("b.example").unwrap();
    let mut discard = |which| outboxes::discard(&config, &mut database, &peer, which);
    assert_eq!(discard(Which::One(1)).unwrap(), "1 message for b.example given up");
    assert_eq!(discard(Which::One(1)).unwrap_err().code, 65);
    assert_eq!(discard(Which::All).unwrap(), "2 messages for b.example given up");
    assert_eq!(outboxes::retry(&config, &database, &peer).unwrap_err().code, 69);
    assert_eq!(outboxes::retry(&config, &database, &ServerName::new("c").unwrap()).unwrap_err().code, 67);
    assert!(listed(&database, false).starts_with("alice\t2 messages\t"), "two reports");
}
