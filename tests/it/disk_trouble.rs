//! The disk fails under a running server: what must be kept is refused, everything else goes on, and it ends when it ends.

use crate::disk::Disk;
use crate::fault::until;
use crate::world::{BESTER, Client, Home, Server};
use serde_json::Value;
use std::fs;
use std::time::{Duration, Instant};

/// So long after the trouble everything is as before.
const BACK_WITHIN: Duration = Duration::from_secs(5);

/// A server with the type `post`, which keeps what is for users who are away, and `echo`, which does not.
fn serve() -> (Server, Disk, Client) {
    let handler = format!(r#""handlerBinary": "{BESTER}", "arguments": ["bench-handler"]"#);
    let handlers = format!(r#""post": {{ {handler}, "offline": "queue" }}, "echo": {{ {handler} }},"#);
    let home = Home::new(&handlers, "", &["alice", "bob"]);
    let disk = Disk::of(&home);
    let server = home.serve_as(|command| disk.put_under(command));
    let alice = server.log_in("alice");
    (server, disk, alice)
}

/// Sends bob, who is away, a message; gives the report.
#[track_caller]
fn posts(alice: &mut Client, id: &str) -> Value {
    alice.sends_message("post", &format!(r#"{{"to":["bob"],"data":"{id}"}}"#), id);
    let report = alice.gets_json();
    assert_eq!(report["payload"]["id"], id, "{report}");
    report
}

fn is_good(report: &Value) -> bool {
    report["header"]["status"] == "good"
}

#[track_caller]
fn echoes(alice: &mut Client) {
    alice.sends_message("echo", r#""here""#, "e");
    let (delivery, report) = (alice.gets_json(), alice.gets_json());
    assert_eq!(delivery["payload"]["data"], "here", "{delivery}");
    assert!(is_good(&report), "{report}");
}

/// The processor time that the server has taken, its handlers left out.
fn processor(server: &Server) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", server.pid())).expect("a process");
    let words: Vec<&str> = stat.rsplit_once(") ").expect("a name").1.split(' ').collect();
    let ticks: u64 = words[11..13].iter().map(|word| word.parse::<u64>().expect("ticks")).sum();
    Duration::from_millis(ticks * 10)
}

/// What bob gets when he comes, in order.
#[track_caller]
fn mail_of_bob(server: &Server) -> Vec<String> {
    let mut alice = server.log_in("alice");
    assert!(is_good(&posts(&mut alice, "last")));
    let mut bob = server.log_in("bob");
    let mut mail = Vec::new();
    while mail.last().is_none_or(|id| id != "last") {
        mail.push(bob.gets_json()["payload"]["data"].as_str().expect("an id").to_owned());
    }
    mail
}

#[track_caller]
fn check(order: &str) {
    let (server, disk, mut alice) = serve();
    let mut good = Vec::new();
    for number in 0..3 {
        assert!(is_good(&posts(&mut alice, &format!("before{number}"))), "{order}");
        good.push(format!("before{number}"));
    }

    disk.order(order);
    for number in 0..3 {
        let report = posts(&mut alice, &format!("amid{number}"));
        let header = &report["header"];
        assert!(header["reason"] == "storage" && header["temporary"] == true, "{order}: {report}");
        echoes(&mut alice);
    }
    // Meanwhile it may try again, but now and then. Nobody asks for anything in this time.
    let (began, before, tries) = (Instant::now(), processor(&server), disk.failures().len());
    until("the end of what is measured", || (began.elapsed() > Duration::from_millis(1500)).then_some(()));
    let used = processor(&server) - before;
    assert!(used < Duration::from_millis(300), "{order}: {used:?} of processor time in a second and a half");
    assert!(disk.failures().len() < tries + 20, "{order}: it tries again all the time: {:?}", disk.failures());
    assert!(server.log().lines().count() < 60, "{order}: it logs too much");
    echoes(&mut alice);

    disk.order("ok");
    let ended = Instant::now();
    let mut tries = 0;
    until("a good report", || {
        tries += 1;
        let id = format!("after{tries}");
        let report = posts(&mut alice, &id);
        if is_good(&report) {
            good.push(id)
        } else {
            assert_eq!(report["header"]["reason"], "storage", "{order}")
        }
        is_good(&report).then_some(())
    });
    assert!(ended.elapsed() < BACK_WITHIN, "{order}: {:?} after the trouble", ended.elapsed());
    echoes(&mut alice);
    drop(alice);

    // Whatever the program believes by now, after a power cut it is so.
    let mut server = server;
    server.signal("-KILL");
    server.wait();
    let home = server.take_home();
    disk.cut(1, 0);
    let server = home.serve_as(|command| disk.put_under(command));
    good.push("last".into());
    let mail = mail_of_bob(&server);
    assert_eq!(mail, good, "{order}");
    server.stop();
}

#[test]
fn a_full_disk_refuses_what_must_be_kept_and_nothing_else() {
    check("writes ENOSPC");
}

#[test]
fn a_disk_that_cannot_write_does_so_too() {
    check("writes EIO");
}

#[test]
fn a_disk_that_can_only_be_read_does_so_too() {
    check("all EROFS");
}

#[test]
fn a_sync_that_fails_is_a_failure() {
    check("syncs EIO");
}

#[test]
fn a_sync_that_fails_and_forgets_what_was_written_is_a_failure() {
    check("drops EIO");
}
