//! `bester user` while the server runs: what it changes holds at once.

use crate::world::{BESTER, Client, Finished, Home, PASSWORD_HASH, Server, login, sample};
use std::process::Command;
use std::time::{Duration, Instant};

/// Runs `bester user ARGS` at a terminal, answers each prompt with a line, and prints what the terminal showed.
const TERMINAL: &str = r#"
import os, pty, sys, termios, time
bester, args, lines = sys.argv[1], sys.argv[2].split(), sys.argv[3:]
child, terminal = pty.fork()
if child == 0:
    os.execv(bester, ["bester", "user", *args])
shown = b""
for line in lines:
    while not shown.endswith(b": "):
        shown += os.read(terminal, 1000)
    while termios.tcgetattr(terminal)[3] & termios.ECHO:
        time.sleep(0.001)
    os.write(terminal, line.encode() + b"\n")
    shown += b"|"
while True:
    try:
        more = os.read(terminal, 1000)
    except OSError:
        break
    if not more:
        break
    shown += more
sys.stdout.write(shown.decode())
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"#;

/// A command and its end take effect on sessions within this.
const SOON: Duration = Duration::from_secs(1);

fn serve(users: &[&str]) -> Server {
    Home::new(&sample("chat"), "", users).serve()
}

/// `bester user` with this as its standard input. It says nothing, and neither does the server about it.
#[track_caller]
fn user(server: &Server, args: &[&str], input: &str) -> Finished {
    server.home.bester_with_input(&[&["user"], args].concat(), input)
}

#[track_caller]
fn done(server: &Server, args: &[&str], input: &str) {
    let finished = user(server, args, input).good();
    assert_eq!((&*finished.stdout, &*finished.stderr), ("", ""));
}

#[track_caller]
fn fails(server: &Server, args: &[&str], input: &str, code: i32, words: &str) {
    let finished = user(server, args, input);
    assert_eq!(finished.code, Some(code), "{finished:?}");
    assert!(finished.stderr.contains(words) && finished.stderr.starts_with("bester: "), "{finished:?}");
}

#[track_caller]
fn expect_login(server: &Server, user: &str, password: &str, status: &str) -> Client {
    let mut client = server.connect();
    client.sends(&login(user, password));
    let report = client.gets_json();
    assert_eq!(report["header"]["status"], status, "{user}: {report}");
    if status == "bad" {
        assert_eq!(report["header"]["reason"], "authentication", "{report}");
        client.is_closed();
    }
    client
}

#[track_caller]
fn list(server: &Server) -> String {
    user(server, &["list"], "").good().stdout
}

#[track_caller]
fn closed_soon(clients: &mut [Client]) {
    let since = Instant::now();
    for client in clients {
        client.is_closed();
    }
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
}

/// Has a client open a room and its members talk: shows whether somebody can be sent to.
#[track_caller]
fn hears(speaker: &mut Client, listener: &mut Client, words: &str) {
    for client in [&mut *speaker, &mut *listener] {
        client.sends_message("chat", r#"{"join":"room"}"#, "join");
        while !client.gets().contains("delivered") {}
    }
    speaker.sends_message("chat", &format!(r#"{{"say":"{words}","room":"room"}}"#), "say");
    while !listener.gets().contains(words) {}
}

#[test]
fn a_new_user_can_log_in_and_be_sent_to_at_once() {
    let server = serve(&["alice"]);
    expect_login(&server, "bob", "battery staple", "bad");
    done(&server, &["add", "bob"], "battery staple\nnot looked at\n");
    let mut bob = expect_login(&server, "bob", "battery staple", "good");
    let mut alice = server.log_in("alice");
    hears(&mut alice, &mut bob, "hello bob");
    assert_eq!(list(&server), "alice\nbob\n");
    // The line's end, of either kind, is no part of the password.
    done(&server, &["add", "carol"], "battery staple\r\n");
    expect_login(&server, "carol", "battery staple", "good");
    server.stop();
}

#[test]
fn the_sessions_of_a_removed_user_end() {
    let server = serve(&["alice", "bob"]);
    let mut bobs = [server.log_in("bob"), server.log_in("bob")];
    let mut alice = server.log_in("alice");
    done(&server, &["remove", "bob"], "");
    closed_soon(&mut bobs);
    expect_login(&server, "bob", "password", "bad");
    assert_eq!(list(&server), "alice\n");
    // The next of that name is another: he has his own password, and the old sessions stay closed.
    done(&server, &["add", "bob"], "battery staple");
    expect_login(&server, "bob", "password", "bad");
    let mut bob = expect_login(&server, "bob", "battery staple", "good");
    hears(&mut bob, &mut alice, "I am new");
}

#[test]
fn a_disabled_user_is_kept_out_until_enabled() {
    let server = serve(&["alice", "bob"]);
    let mut bobs = [server.log_in("bob"), server.connect_unix()];
    bobs[1].log_in("bob");
    done(&server, &["disable", "bob"], "");
    closed_soon(&mut bobs);
    expect_login(&server, "bob", "password", "bad");
    assert_eq!(list(&server), "alice\nbob\tdisabled\n");
    done(&server, &["disable", "bob"], "");
    done(&server, &["enable", "bob"], "");
    let mut bob = expect_login(&server, "bob", "password", "good");
    assert_eq!(list(&server), "alice\nbob\n");
    // Enabling who is not disabled changes nothing.
    done(&server, &["enable", "bob"], "");
    bob.got_nothing();
}

#[test]
fn a_new_password_holds_at_once() {
    let server = serve(&["alice", "bob"]);
    let mut bobs = [server.log_in("bob"), server.log_in("bob")];
    let mut alice = server.log_in("alice");
    done(&server, &["password", "bob"], "battery staple\n");
    closed_soon(&mut bobs);
    expect_login(&server, "bob", "password", "bad");
    expect_login(&server, "bob", "battery staple", "good");
    alice.got_nothing();
}

#[test]
fn an_import_adds_and_replaces_at_once() {
    let server = serve(&["alice", "bob", "carol"]);
    let mut alice = server.log_in("alice");
    let mut bobs = [server.log_in("bob")];
    let mut carols = [server.log_in("carol")];
    done(&server, &["password", "bob"], "battery staple");
    closed_soon(&mut bobs);
    let lines = format!(
        "{{\"name\":\"bob\",\"password\":\"{PASSWORD_HASH}\"}}\n\n{{\"name\":\"carol\",\"password\":\"{PASSWORD_HASH}\",\"disabled\":true}}\n{{\"name\":\"dave\",\"password\":\"{PASSWORD_HASH}\"}}"
    );
    let imported = user(&server, &["import", "-"], &lines).good();
    assert_eq!(imported.stdout, "1 added, 2 replaced\n");
    closed_soon(&mut carols);
    expect_login(&server, "bob", "password", "good");
    expect_login(&server, "dave", "password", "good");
    expect_login(&server, "carol", "password", "bad");
    alice.got_nothing();
    // All or nothing.
    let bad = user(&server, &["import", "-"], "{\"name\":\"erin\"}\n");
    assert_eq!(bad.code, Some(65), "{bad:?}");
    assert!(bad.stderr.contains("standard input, line 1:"), "{bad:?}");
    assert_eq!(list(&server), "alice\nbob\ncarol\tdisabled\ndave\n");
}

#[test]
fn an_import_of_thousands_takes_effect() {
    let server = serve(&["alice"]);
    let mut alices = [server.log_in("alice")];
    let line = |name: &str, more: &str| format!("{{\"name\":\"{name}\",\"password\":\"{PASSWORD_HASH}\"{more}}}\n");
    let mut lines: String = (0..3000).map(|n| line(&format!("user{n}"), "")).collect();
    lines.push_str(&line("alice", r#","disabled":true"#));
    let imported = user(&server, &["import", "-"], &lines).good();
    assert_eq!((&*imported.stdout, &*imported.stderr), ("3000 added, 1 replaced\n", ""));
    closed_soon(&mut alices);
    expect_login(&server, "user2999", "password", "good");
}

#[test]
fn an_export_is_an_import() {
    let server = serve(&["alice", "bob"]);
    done(&server, &["disable", "bob"], "");
    done(&server, &["add", "carol"], "battery staple");
    let exported = user(&server, &["export"], "").good().stdout;
    assert_eq!(exported.lines().count(), 3);
    assert!(exported.starts_with(&format!("{{\"name\":\"alice\",\"password\":\"{PASSWORD_HASH}\"}}\n")), "{exported}");
    assert!(exported.contains("\"disabled\":true") && !exported.contains("battery staple"), "{exported}");
    let other = serve(&[]);
    assert_eq!(user(&other, &["import", "-"], &exported).good().stdout, "3 added, 0 replaced\n");
    expect_login(&other, "carol", "battery staple", "good");
    expect_login(&other, "bob", "password", "bad");
    assert_eq!(user(&other, &["export"], "").good().stdout, exported);
    let json = user(&other, &["list", "--json"], "").good().stdout;
    let bob: serde_json::Value = serde_json::from_str(json.lines().nth(1).expect("bob")).expect("JSON");
    assert_eq!((&bob["name"], &bob["disabled"]), (&"bob".into(), &true.into()));
}

#[test]
fn what_cannot_be_done_has_its_exit_code_and_changes_nothing() {
    let server = serve(&["alice"]);
    let mut alice = server.log_in("alice");
    fails(&server, &[], "", 64, "action");
    fails(&server, &["frobnicate"], "", 64, "frobnicate");
    fails(&server, &["add"], "", 64, "name");
    fails(&server, &["add", "bob", "password"], "password", 64, "name");
    fails(&server, &["list", "alice"], "", 64, "list");
    fails(&server, &["add", "bob", "--frobnicate"], "", 64, "frobnicate");
    fails(&server, &["add", "Bob"], "password", 65, "a-z");
    fails(&server, &["add", "alice"], "password", 65, "alice");
    fails(&server, &["add", "bob"], "", 65, "no password");
    fails(&server, &["add", "bob"], "short\n", 65, "8");
    fails(&server, &["add", "bob"], &"x".repeat(1025), 65, "1024");
    fails(&server, &["password", "alice"], "short\n", 65, "8");
    fails(&server, &["import", "no-such-file"], "", 65, "no-such-file");
    fails(&server, &["password", "bob"], "password", 67, "bob");
    for action in ["remove", "disable", "enable"] {
        fails(&server, &[action, "bob"], "", 67, "bob");
    }
    fails(&server, &["list", "-c", "no-such-file"], "", 78, "no-such-file");
    assert_eq!(list(&server), "alice\n");
    alice.got_nothing();
}

#[test]
fn a_password_is_asked_for_twice_at_a_terminal_and_not_shown() {
    let server = serve(&["alice"]);
    let terminal = |args: &str, lines: &[&str]| {
        let output = Command::new("python3").args(["-c", TERMINAL, BESTER, args]).args(lines).current_dir(server.home.path()).output();
        let output = output.expect("python3 runs");
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        (output.status.code(), shown)
    };
    let (code, shown) = terminal("add bob", &["battery staple", "battery staple "]);
    assert_eq!(code, Some(65), "{shown}");
    assert!(shown.contains("differ"), "{shown}");
    expect_login(&server, "bob", "battery staple", "bad");

    let (code, shown) = terminal("add bob", &["battery  stäple", "battery  stäple"]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("New password for bob: ") && shown.contains("The same again: "), "{shown}");
    assert!(!shown.contains("battery"), "{shown}");
    expect_login(&server, "bob", "battery  stäple", "good");

    let (code, shown) = terminal("password alice", &["correct horse", "correct horse"]);
    assert_eq!(code, Some(0), "{shown}");
    expect_login(&server, "alice", "correct horse", "good");
    // Nobody is asked in vain.
    let (code, shown) = terminal("add alice", &[]);
    assert_eq!(code, Some(65), "{shown}");
    assert!(!shown.contains("password"), "{shown}");
}

#[test]
fn accounts_can_be_changed_while_no_server_runs() {
    let home = serve(&["alice", "bob"]).stop();
    home.bester(&["user", "remove", "bob"]).good();
    home.bester_with_input(&["user", "add", "carol"], "battery staple").good();
    let server = home.serve();
    expect_login(&server, "bob", "password", "bad");
    expect_login(&server, "carol", "battery staple", "good");
}
