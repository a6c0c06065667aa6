//! Births that go well, births that do not, and what is left of either.

use super::*;
use crate::config::Config;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, geteuid, waitid};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Set for a test that has a process of its own.
const ALONE: &str = "BESTER_TEST_ALONE";

/// A handler with these keys, configured in this directory.
fn handler(directory: &Path, keys: &str) -> config::Handler {
    let text = format!(r#"{{"network": {{"tcp4": {{"port": 0}}}}, "handlers": {{"typeMap": {{"x": {{{keys}}}}}}}}}"#);
    let config = Config::from_text(&text, &directory.join("bester.conf")).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    config.handlers[&b"x"[..]].clone()
}

fn born(handler: &config::Handler) -> Result<Started, String> {
    let (kind, server) = (TypeName::new("x").expect("a type"), ServerName::new("a.example").expect("a name"));
    start(&Birth { handler, kind: &kind, server: &server, instance: 0 }).map_err(|error| error.to_string())
}

fn wait_for_death(process: &mut Process) -> String {
    loop {
        if let Some(words) = process.obituary() {
            return words.words;
        }
        poll(&mut [PollFd::new(&process.pidfd, PollFlags::IN)], None).expect("a death");
    }
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("/proc").count()
}

/// Other tests open descriptors and have children too, so this one runs in a process of its own.
#[test]
fn a_thousand_births_and_deaths_leave_nothing_behind() {
    if std::env::var_os(ALONE).is_none() {
        let program = std::env::current_exe().expect("this program");
        let name = "handler::process::tests::a_thousand_births_and_deaths_leave_nothing_behind";
        let alone = Command::new(program).args(["--exact", name, "--nocapture"]).env(ALONE, "1").output().expect("its end");
        let said = String::from_utf8_lossy(&alone.stdout).into_owned() + &String::from_utf8_lossy(&alone.stderr);
        assert!(alone.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let stays = |more: &str| handler(directory.path(), &format!(r#""handlerBinary": "sleep", "arguments": ["600"]{more}"#));
    let ends = |more: &str| handler(directory.path(), &format!(r#""handlerBinary": "true"{more}"#));
    let channels = ["", r#", "transport": "socket""#, r#", "unixDomainSocketPath": "u""#];
    let (staying, ending) = (channels.map(stays), channels.map(ends));
    let never = channels.map(|more| handler(directory.path(), &format!(r#""handlerBinary": "/nowhere/at/all"{more}"#)));
    let turn = |number: usize| {
        // Two at once, so that what one is given must not stay open in the other.
        let which = number % 3;
        let (mut first, second) = (born(&ending[which]).expect("a birth"), born(&staying[(number + 1) % 3]).expect("a birth"));
        assert_eq!(wait_for_death(&mut first.process), "exited with status 0");
        drop(second); // nobody has waited for this one
        if number.is_multiple_of(10) {
            born(&never[which]).expect_err("there is no such program");
        }
    };
    turn(0);
    let before = descriptors();
    (0..500).for_each(turn);
    assert_eq!(descriptors(), before);
    let children = waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT);
    assert_eq!(children.expect_err("no child is left, dead or alive"), Errno::CHILD);
}

#[test]
fn who_cannot_be_born_is_told_why() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = |name: &str| directory.path().join(name);
    let file = |name: &str, mode, text: &str| {
        fs::write(place(name), text).expect("a file");
        fs::set_permissions(place(name), Permissions::from_mode(mode)).expect("permissions");
    };
    file("plain", 0o644, "");
    file("lost", 0o755, "#!/nowhere/python3 -u\nx");
    file("windows", 0o755, "#!/bin/sh\r\n");
    file("good", 0o755, "#!/bin/sh\n");
    fs::create_dir(place("folder")).expect("a directory");
    for (keys, program, words) in [
        (r#""handlerBinary": "./gone""#, "gone", "there is no such program"),
        (r#""handlerBinary": "./plain/gone""#, "plain/gone", "there is no such program"),
        (r#""handlerBinary": "./folder""#, "folder", "it is not a file"),
        (r#""handlerBinary": "./plain""#, "plain", "it is not executable; run: chmod +x DIRECTORY/plain"),
        (r#""handlerBinary": "./lost""#, "lost", "its interpreter (first line: \"#!/nowhere/python3 -u\") is missing"),
        (r#""handlerBinary": "./windows""#, "windows", "its interpreter (first line: \"#!/bin/sh\\r\") is missing"),
        (r#""handlerBinary": "./good", "workingDirectory": "gone""#, "good", "its working directory DIRECTORY/gone does not exist"),
        (r#""handlerBinary": "./good", "workingDirectory": "plain""#, "good", "its working directory DIRECTORY/plain is not a directory"),
        (r#""handlerBinary": "./good", "user": "no one""#, "good", "there is no user \"no one\" in /etc/passwd"),
        (r#""handlerBinary": "./good", "group": "no one""#, "good", "there is no group \"no one\" in /etc/group"),
    ] {
        let words = format!("DIRECTORY/{program}: {words}").replace("DIRECTORY", &directory.path().display().to_string());
        assert_eq!(born(&handler(directory.path(), keys)).expect_err("a fault"), words);
    }
    born(&handler(directory.path(), r#""handlerBinary": "./good""#)).expect("nothing is wrong with it");
}

#[test]
fn somebody_else_may_not_do_what_is_not_permitted() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = |name: &str| directory.path().join(name);
    let open = |name: &str, mode| fs::set_permissions(place(name), Permissions::from_mode(mode)).expect("permissions");
    open("", 0o755);
    fs::create_dir(place("folder")).expect("a directory");
    fs::write(place("folder/good"), "#!/bin/sh\n").expect("a file");
    open("folder/good", 0o755);
    let keys = r#""handlerBinary": "./folder/good", "user": "4001", "group": "4001""#;
    let birth = || born(&handler(directory.path(), keys));
    let program = place("folder/good").display().to_string();
    if !geteuid().is_root() {
        let words = birth().expect_err("only root may");
        assert!(words.starts_with(&format!("{program} as user 4001: the server may not start it so")), "{words}");
        return;
    }
    birth().expect("root may");
    open("folder/good", 0o700);
    assert_eq!(birth().expect_err("root's alone"), format!("{program} as user 4001: user 4001 may not run it"));
    open("folder/good", 0o755);
    open("folder", 0o700);
    let words = format!("{program} as user 4001: {} is closed to user 4001", place("folder").display());
    assert_eq!(birth().expect_err("root's alone"), words);
    open("folder", 0o755);
    open("", 0o750);
    let words = format!("{program} as user 4001: {} is closed to user 4001", directory.path().display());
    assert_eq!(birth().expect_err("it cannot even enter its working directory"), words);
}

#[test]
fn what_the_system_says_is_put_into_words() {
    let directory = tempfile::tempdir().expect("a directory");
    let program = handler(directory.path(), r#""handlerBinary": "/bin/sh""#).program.expect("a program");
    for (error, words) in [
        (Errno::NOENT, "its loader is missing"),
        (Errno::NOEXEC, "it is no program of this machine"),
        (Errno::PERM, "the server may not start it so"),
        (Errno::AGAIN, "there are as many processes already"),
        (Errno::TXTBSY, "Text file busy"),
    ] {
        let said = NotStarted::because(&program, None, error.into()).to_string();
        assert!(said.starts_with(&format!("/bin/sh: {words}")), "{said}");
    }
    let elsewhere = handler(directory.path(), r#""unixDomainSocketPath": "u""#);
    assert!(born(&elsewhere).expect_err("somebody else runs it").contains("there is no program to start"));
}
