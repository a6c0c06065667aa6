//! Handlers are replaced while people send to them: by hand, with the configuration, with their file. Nothing is lost.

use crate::fault::{PROGRAM, delivery, ends, entry, good, works};
use crate::ways::{Report, Sender, Way, are_in_order};
use crate::world::{Client, Finished, Home, Server};
use serde_json::Value;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

/// Connections that send at the same time, and how much each has under way to each type.
const CROWD: usize = 4;
const UNDER_WAY: usize = 4;
/// Of what is sent every other message is of this kind, and takes the handler a while.
const SLOW: &str = r#"[["work",0.004],["reply","$NONCE"]]"#;
const QUICK: &str = r#"[["reply","$NONCE"]]"#;

/// A type for each way to talk to a handler, and one with two processes; `keys` are the same for all.
fn entries(keys: &str) -> Vec<(&'static str, String)> {
    let with = |more: &str| format!("{more} {keys}");
    vec![
        ("stdio", Way::Stdio.entry("stdio", None, &[], &with(""))),
        ("socket", Way::Socket.entry("socket", None, &[], &with(""))),
        ("single", Way::Single.entry("single", None, &[], &with(""))),
        ("kept", Way::Kept.entry("kept", None, &[], &with(""))),
        ("envelope", Way::Stdio.entry("envelope", None, &[], &with(r#""envelope": true,"#))),
        ("two", Way::Stdio.entry("two", None, &[], &with(r#""instances": 2,"#))),
    ]
}

fn home(entries: &str) -> Home {
    Home::new(entries, r#""limits": { "connectionsPerUser": 1000 },"#, &["alice"])
}

/// Says that it is over, whatever happens.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does something while a crowd sends to these types. Each message is answered well, once and in order; how many there
/// were.
#[track_caller]
fn while_sending(server: &Server, kinds: &[&str], body: impl FnOnce()) -> usize {
    let over = AtomicBool::new(false);
    let send = |place: usize| {
        let mut sender = Sender::new(server.log_in("alice"), &format!("crowd{place}"));
        // One that is quick overtakes one that is not, if it is let.
        let mut ask = {
            let mut works = [SLOW, QUICK].into_iter().cycle();
            move |sender: &mut Sender, kind: &str| _ = sender.sends(kind, works.next().expect("it goes on"))
        };
        for kind in kinds {
            (0..UNDER_WAY).for_each(|_| ask(&mut sender, kind));
        }
        let mut reports = Vec::new();
        while !over.load(Ordering::Relaxed) {
            let report = sender.gets();
            ask(&mut sender, &report.kind);
            reports.push(report);
        }
        reports.extend(sender.gets_all());
        let sent = reports.len();
        reports.iter().for_each(is_good);
        // Where answers name their request, both starts are asked at the same time.
        reports.retain(|report| report.kind != "envelope");
        are_in_order(&reports);
        sender.got_nothing();
        sent
    };
    std::thread::scope(|scope| {
        let over = Over(&over);
        let crowd: Vec<_> = (0..CROWD).map(|place| scope.spawn(move || send(place))).collect();
        body();
        drop(over);
        crowd.into_iter().map(|one| one.join().expect("each message is answered well")).sum()
    })
}

#[track_caller]
fn is_good(report: &Report) {
    assert!(report.bad.is_none() && report.delivered, "{report:?}");
}

/// The server's word on the instances of a type.
fn instances(server: &Server, kind: &str) -> Vec<Value> {
    let status: Value = serde_json::from_str(&server.home.bester(&["status", "--json"]).good().stdout).expect("JSON");
    status["types"][kind]["instances"].as_array().expect("a list").clone()
}

/// The processes of a type.
fn pids(server: &Server, kind: &str) -> Vec<u64> {
    instances(server, kind).iter().map(|instance| instance["pid"].as_u64().expect("a process")).collect()
}

fn restart(server: &Server, kind: &str) -> Finished {
    server.home.bester(&["handler", "restart", kind])
}

/// All processes of a type are others than these, which have ended.
#[track_caller]
fn are_replaced(server: &Server, kind: &str, before: &[u64]) {
    let now = pids(server, kind);
    assert!(now.len() == before.len() && now.iter().all(|pid| !before.contains(pid)), "{kind}: {before:?}, {now:?}");
    before.iter().for_each(|pid| ends(*pid));
}

#[test]
fn a_restart_loses_nothing() {
    let entries = entries("");
    let server = home(&entries.iter().map(|(_, entry)| entry.as_str()).collect::<String>()).serve();
    let kinds: Vec<&str> = entries.iter().map(|(kind, _)| *kind).collect();
    server.wait_for_times(" is up\n", 7);
    let one = |kind: &str| {
        for turn in 1..=2 {
            let before = pids(&server, kind);
            let finished = restart(&server, kind).good();
            assert_eq!((finished.stdout.as_str(), finished.stderr.as_str()), ("", ""));
            are_replaced(&server, kind, &before);
            assert!(instances(&server, kind).iter().all(|instance| instance["starts"] == turn + 1), "{kind}");
        }
    };
    let sent = while_sending(&server, &kinds, || {
        std::thread::scope(|scope| {
            let replacing: Vec<_> = kinds.iter().map(|kind| scope.spawn(|| one(kind))).collect();
            replacing.into_iter().for_each(|one| one.join().expect("it is replaced"));
        });
    });
    assert!(sent > 1000, "{sent}");
    let log = server.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    assert_eq!(restart(&server, "stdjo").code, Some(69));
}

#[test]
fn a_new_program_that_dies_at_its_start_is_not_swapped_in() {
    // It is as the old one was until then.
    let begin = r#"begin=[["if_there","sick",[["print","no such table\n"],["exit",4]]]]"#;
    let ways = [("stdio", Way::Stdio), ("socket", Way::Socket), ("single", Way::Single), ("kept", Way::Kept)];
    let server = home(&ways.map(|(kind, way)| way.entry(kind, None, &[begin], "")).concat()).serve();
    let mut first = Sender::new(server.log_in("alice"), "first");
    ways.iter().for_each(|(kind, _)| first.works(kind));
    let one = |kind: &str| {
        let before = pids(&server, kind);
        let finished = restart(&server, kind);
        assert_eq!(finished.code, Some(69), "{finished:?}");
        assert!(
            finished.stderr.contains("the new one exited with status 4 (it printed last: no such table); nothing was changed"),
            "{finished:?}"
        );
        assert_eq!(pids(&server, kind), before);
        server.wait_for(&format!(
            "WARN  handler: handler {kind} exited with status 4 (it printed last: no such table); it was to take the place of another"
        ));
    };
    let kinds = ways.map(|(kind, _)| kind);
    while_sending(&server, &kinds, || {
        server.home.write("sick", "");
        std::thread::scope(|scope| {
            let replacing = kinds.map(|kind| scope.spawn(|| one(kind)));
            replacing.into_iter().for_each(|one| one.join().expect("it is not replaced"));
        });
        fs::remove_file(server.home.path().join("sick")).expect("the file");
        for kind in kinds {
            let before = pids(&server, kind);
            restart(&server, kind).good();
            are_replaced(&server, kind, &before);
        }
    });
}

#[test]
fn a_restart_revives_what_is_not_started_again() {
    let begin = r#""begin=[[\"if_there\",\"sick\",[[\"exit\",4]]]]""#;
    let home = Home::new(&(entry("broken", begin, "") + &entry("asked", "", "")), "", &["alice"]);
    home.write("sick", "");
    let server = home.serve();
    let mut alice = server.log_in("alice");
    works(&mut alice, "asked");
    let refused = |alice: &mut Client, kind: &str, words: &str| {
        alice.sends_message(kind, r#"[["reply",1]]"#, "m");
        let report = alice.gets_json();
        assert_eq!(report["header"]["reason"], "handlerUnavailable");
        assert_eq!(report["header"]["temporary"], true);
        let message = report["payload"]["data"]["message"].as_str().expect("words");
        assert_eq!(message, format!("handler {kind} is not running: {words}"));
        assert_eq!(instances(&server, kind)[0]["state"], "failed");
    };
    let revived = |alice: &mut Client, kind: &str| {
        restart(&server, kind).good();
        works(alice, kind);
        assert_eq!(instances(&server, kind)[0]["state"], "answering");
    };
    alice.sends_message("asked", r#"[["exit",125]]"#, "m");
    assert_eq!(alice.gets_json()["header"]["reason"], "handlerCrashed");
    server.wait_for(
        "ERROR handler: handler asked exited with status 125; that says not to start it again; this does: bester handler restart asked",
    );
    refused(&mut alice, "asked", "it exited with status 125, which says not to start it again until its operator does");
    revived(&mut alice, "asked");

    let line = "ERROR handler: handler broken exited with status 4; it is broken, for it died 5 times within 60 s without a good answer";
    server.wait_for(line);
    refused(&mut alice, "broken", "it is broken until its operator starts it again (it died 5 times, and exited with status 4 last)");
    let status = server.home.bester(&["status"]).good().stdout;
    assert!(status.contains("\nbroken: asked 1 time, 1 not answered well\n  failed, 0 under way, 0 waiting; 5 starts\n"), "{status}");
    assert_eq!(restart(&server, "broken").code, Some(69), "it is as broken as it was");
    fs::remove_file(server.home.path().join("sick")).expect("the file");
    revived(&mut alice, "broken");
}

/// Changes the configuration.
fn edit(server: &Server, from: &str, to: &str) {
    let text = fs::read_to_string(server.home.path().join("bester.conf")).expect("the configuration");
    assert!(text.contains(from), "{from}: {text}");
    server.home.write("bester.conf", &text.replace(from, to));
}

#[test]
fn a_reload_adds_removes_and_changes() {
    let stays = entry("stays", "", "");
    let gone = entry("gone", "", "");
    let server =
        home(&(entries(r#""timeoutSeconds": 10"#).into_iter().map(|(_, entry)| entry).collect::<String>() + &stays + &gone)).serve();
    server.wait_for_times(" is up\n", 9);
    let reload = |arguments: &[&str]| server.home.bester(&[&["reload"], arguments].concat());
    let mut alice = server.log_in("alice");
    works(&mut alice, "gone");
    assert_eq!(reload(&[]).good().stdout, "nothing has changed\n");

    let changed = ["stdio", "socket", "single", "kept", "envelope", "two"];
    let before: Vec<Vec<u64>> = changed.iter().map(|kind| pids(&server, kind)).collect();
    let (stayed, left) = (pids(&server, "stays"), pids(&server, "gone"));
    let sent = while_sending(&server, &["stays", "stdio", "socket", "single", "kept", "envelope", "two"], || {
        // A mistake, and all stays as it is.
        edit(&server, r#""gone":"#, r#""gone": 7, "new":"#);
        for arguments in [&[][..], &["--dry-run"]] {
            let finished = reload(arguments);
            assert_eq!(finished.code, Some(78), "{finished:?}");
            assert!(finished.stderr.contains("handlers.typeMap.gone"), "{finished:?}");
        }
        server.signal("-HUP");
        server.wait_for("WARN  admin: the configuration is not reloaded: ");
        works(&mut alice, "gone");

        // All at once.
        edit(&server, r#""gone": 7, "new":"#, r#""new":"#);
        edit(&server, r#""timeoutSeconds": 10"#, r#""timeoutSeconds": 9"#);
        edit(&server, r#""stays": {"#, r#""stays": { "queue": 300,"#);
        edit(&server, r#""name": "a.example""#, r#""name": "b.example""#);
        let mut expected = vec!["server.name: would need a restart of the server".to_owned()];
        let mut kinds = [&changed[..], &["stays", "gone", "new"]].concat();
        kinds.sort_unstable();
        let line = |kind: &str| {
            let done = match kind {
                "stays" => "changed",
                "gone" => "removed",
                "new" => "added",
                _ => "replaced",
            };
            format!("handlers.typeMap.{kind}: would be {done}")
        };
        expected.extend(kinds.iter().map(|kind| line(kind)));
        assert_eq!(reload(&["--dry-run"]).good().stdout.lines().collect::<Vec<_>>(), expected);
        assert_eq!(pids(&server, "stdio"), before[0], "it was only said");
        let done = reload(&[]).good().stdout;
        let mut done: Vec<&str> = done.lines().collect();
        let mut expected: Vec<String> = expected.iter().map(|line| line.replace("would need", "needs").replace("would be ", "")).collect();
        done.sort_unstable();
        expected.sort_unstable();
        assert_eq!(done, expected);
    });
    assert!(sent > 1000, "{sent}");
    for (kind, before) in changed.iter().zip(&before) {
        are_replaced(&server, kind, before);
    }
    assert_eq!(pids(&server, "stays"), stayed);
    left.iter().for_each(|pid| ends(*pid));
    works(&mut alice, "new");
    alice.sends_message("gone", "1", "m");
    assert_eq!(alice.gets_json()["header"]["reason"], "unknownType");
    // The same as the signal says.
    edit(&server, r#""new":"#, r#""gone":"#);
    server.signal("-HUP");
    server.wait_for("INFO  admin: reloaded: handlers.typeMap.gone: added");
    works(&mut alice, "gone");
    alice.sends_message("new", "1", "m");
    assert_eq!(alice.gets_json()["header"]["reason"], "unknownType");
    let log = server.log();
    assert_eq!(log.matches("WARN").count(), 1, "the mistake alone: {log}");
}

#[test]
fn a_reload_with_a_program_that_dies_leaves_the_old_one() {
    let server = home(&entry("x", r#""begin=[[\"if_there\",\"none\",[]]]""#, "")).serve();
    server.wait_for("handler x is up");
    let before = pids(&server, "x");
    while_sending(&server, &["x"], || {
        edit(&server, r#"[\"if_there\",\"none\",[]]"#, r#"[\"exit\",4]"#);
        let finished = server.home.bester(&["reload"]);
        assert_eq!(finished.code, Some(69), "{finished:?}");
        let words = "handlers.typeMap.x: failed: the new one exited with status 4; nothing was changed";
        assert!(finished.stdout.contains(words) && finished.stderr.contains(words), "{finished:?}");
    });
    assert_eq!(pids(&server, "x"), before);
}

#[test]
fn a_handler_whose_file_changes_is_replaced() {
    let text = |comment: &str| format!("#!/bin/sh\n# {comment}\nexec {PROGRAM} \"$@\"\n");
    let home = home(r#""x": { "handlerBinary": "./program", "watch": true }, "y": { "handlerBinary": "./program" },"#);
    home.program("program", &text("first"));
    let server = home.serve();
    server.wait_for_times(" is up\n", 2);
    let (before, other) = (pids(&server, "x"), pids(&server, "y"));
    while_sending(&server, &["x", "y"], || {
        // What it was when it was looked at first is what runs: the file must be changed after that.
        let mut turn = 0;
        crate::fault::until("it is looked at", || {
            turn += 1;
            server.home.program("next", &text(&format!("second {}", "x".repeat(turn % 7))));
            fs::rename(server.home.path().join("next"), server.home.path().join("program")).expect("a file");
            (0..150).find_map(|_| {
                std::thread::park_timeout(std::time::Duration::from_millis(20));
                server.log().contains("INFO  handler: handler x is replaced").then_some(())
            })
        });
        are_replaced(&server, "x", &before);
        let second = pids(&server, "x");
        // One that does not work is not taken.
        server.home.program("next", "#!/bin/sh\nexit 3\n");
        fs::rename(server.home.path().join("next"), server.home.path().join("program")).expect("a file");
        server.wait_for("WARN  handler: handler x stays as it is, until its file changes again: the new one exited with status 3");
        assert_eq!(pids(&server, "x"), second);
    });
    assert_eq!(pids(&server, "y"), other, "nobody watches its file");
}

#[test]
fn the_status_shows_how_each_instance_is_and_how_it_died() {
    let server = home(&(entry("x", "", "") + &entry("two", "", r#""instances": 2"#))).serve();
    server.wait_for_times(" is up\n", 3);
    let mut alice = server.log_in("alice");
    assert_eq!(instances(&server, "two").iter().map(|one| one["state"].as_str()).collect::<Vec<_>>(), [Some("ready"); 2]);
    alice.sends_message("x", r#"[["print","begin\nlast words\n"],["reply",1],["exit",3]]"#, "m");
    assert_eq!(delivery(&mut alice), 1);
    good(&mut alice, "m");
    server.wait_for("handler x exited with status 3 (it printed last: last words); it will be started again in 1 s");
    let x = instances(&server, "x").remove(0);
    assert_eq!((&x["state"], &x["pid"], &x["up"]), (&"backing off".into(), &Value::Null, &false.into()), "{x}");
    server.wait_for_times("handler x started", 2);
    works(&mut alice, "x");
    works(&mut alice, "two");
    let x = instances(&server, "x").remove(0);
    assert_eq!((&x["state"], &x["starts"], &x["up"]), (&"answering".into(), &2.into(), &true.into()), "{x}");
    let deaths = x["deaths"].as_array().expect("a list");
    assert_eq!(deaths.len(), 1);
    assert_eq!(deaths[0]["how"], "exited with status 3");
    assert_eq!(deaths[0]["lastWords"], serde_json::json!(["begin", "last words"]));
    let text = server.home.bester(&["status"]).good().stdout;
    for words in [
        "a.example: 1 connection, 1 session of 1 user, 0 messages under way\n",
        "\ntwo: asked 1 time, 0 not answered well\n  0: answering, 0 under way, 0 waiting; process ",
        "\n  1: ready, 0 under way, 0 waiting; process ",
        "\nx: asked 2 times, 0 not answered well\n  answering, 0 under way, 0 waiting; process ",
        " ago it exited with status 3\n      | begin\n      | last words\n",
    ] {
        assert!(text.contains(words), "{words:?}: {text}");
    }
    assert_eq!(server.stop().bester(&["status"]).code, Some(69));
}
