//! The first thing that a stranger sees works, and leaves nothing behind, however it ends.

use crate::world::{BESTER, PATIENCE};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

fn demo(temporary: &Path) -> Command {
    demo_with(&[], temporary)
}

fn demo_with(options: &[&str], temporary: &Path) -> Command {
    let mut command = Command::new(BESTER);
    command.arg("demo").args(options).env("TMPDIR", temporary).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Nothing is in there.
#[track_caller]
fn is_empty(directory: &Path) {
    let left: Vec<_> = std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_demo_shows_a_conversation_and_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().expect("a directory");
    let output = demo(temporary.path()).output().expect("bester runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), &*err), (Some(0), ""), "{out}");
    for words in ["bob gets", r#""from":"alice","said":"hello bob""#, "unknownType: ", "1 user away", "removed"] {
        assert!(out.contains(words), "{words:?} is missing in {out}");
    }
    is_empty(temporary.path());
}

#[test]
fn two_servers_get_to_know_each_other_and_leave_nothing_behind() {
    let temporary = tempfile::tempdir().expect("a directory");
    let output = demo_with(&["--federated"], temporary.path()).output().expect("bester runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), &*err), (Some(0), ""), "{out}");
    for words in [
        "$ bester peer invite",
        "a.example and this server know each other now",
        "back: round trip  OK",
        r#"bob gets       chat    {"room":"kitchen","from":"alice@a.example","said":"hello bob""#,
        r#"alice gets     chat    {"room":"kitchen@b.example","from":"bob@b.example","said":"good morning""#,
        "alice is told  good, delivered to 0 users; 1 queued on the disk",
        "peer b.example  2 messages",
        r#""said":"lunch at one?""#,
        "removed",
    ] {
        assert!(out.contains(words), "{words:?} is missing in {out}");
    }
    // Neither the secret nor the rest of an invitation is shown as a whole.
    let longest = out.split(|c: char| !c.is_ascii_hexdigit()).map(str::len).max();
    assert!(longest.is_some_and(|longest| longest < 32), "{out}");
    is_empty(temporary.path());
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind() {
    is_interrupted(&[], "ready after");
    is_interrupted(&["--federated"], "$ bester peer check");
}

/// It is interrupted once it has said this.
#[track_caller]
fn is_interrupted(options: &[&str], at: &str) {
    let temporary = tempfile::tempdir().expect("a directory");
    let mut child = demo_with(options, temporary.path()).spawn().expect("bester runs");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    while !lines.next().expect("more lines").expect("a line").contains(at) {}
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::INT).expect("it runs");
    let began = Instant::now();
    let status = child.wait().expect("its end");
    assert_eq!(status.code(), Some(130));
    assert!(began.elapsed() < PATIENCE);
    is_empty(temporary.path());
}

#[test]
fn whoever_stops_reading_stops_the_demo() {
    let temporary = tempfile::tempdir().expect("a directory");
    let mut child = demo(temporary.path()).spawn().expect("bester runs");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("its end").code(), Some(0));
    is_empty(temporary.path());
}
