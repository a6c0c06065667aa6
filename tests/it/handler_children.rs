//! What a handler's program finds when it starts, and that nothing of it is left when it or the server has ended.

use crate::fault::{PROGRAM, asks, bad, ends, entry, serve, state, until, works};
use crate::world::{Home, Server};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::{Duration, Instant};

fn pid(look: &Value) -> u64 {
    look["pid"].as_u64().expect("a number")
}

/// The child of this process whose command line ends so.
fn child_of(parent: u32, command: &str) -> Option<u64> {
    let processes = fs::read_dir("/proc").expect("/proc").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u64>().ok());
    let ours = |pid: &u64| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let is_child = stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.split(' ').nth(1) == Some(&parent.to_string()));
        is_child && fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.ends_with(command))
    };
    processes.into_iter().find(ours)
}

/// The number in a file that a handler writes.
fn noted(directory: &Path, name: &str) -> u64 {
    until(name, || fs::read_to_string(directory.join(name)).ok()).trim().parse().expect("a number")
}

#[test]
fn a_child_has_its_own_descriptors_and_no_others() {
    let entries = entry("stdio", "", "")
        + &entry("socket", r#""socket""#, r#""transport": "socket""#)
        + &entry("unix", r#""unix=u""#, r#""unixDomainSocketPath": "u""#);
    // The shell gives the server some more, and 3 among them.
    let server = Home::new(&entries, "", &["alice"]).serve_as(|command| {
        let inner = format!("exec 3</dev/null 4</dev/null 9>/dev/null; exec {:?} serve -c bester.conf", command.get_program());
        let directory = command.get_current_dir().expect("a directory").to_owned();
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &inner]).current_dir(directory);
        shell.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
        *command = shell;
    });
    let open = |pid: u32, fd: u32| fs::read_link(format!("/proc/{pid}/fd/{fd}")).is_ok_and(|target| target == Path::new("/dev/null"));
    assert!(open(server.pid(), 4) && open(server.pid(), 9), "the server itself has them");
    let mut alice = server.log_in("alice");
    assert_eq!(asks(&mut alice, "stdio", r#"[["look"]]"#)["descriptors"], json!([0, 1, 2]));
    assert_eq!(asks(&mut alice, "socket", r#"[["look"]]"#)["descriptors"], json!([0, 1, 2, 3]));
    // Its listener and this connection are its own.
    assert_eq!(asks(&mut alice, "unix", r#"[["look"]]"#)["descriptors"], json!([0, 1, 2, 3, 4]));
}

#[test]
fn a_child_has_its_own_environment_and_directory() {
    let more = r#""environment": { "COLOUR": "blau ü=1", "LANG": "ours" }, "workingDirectory": "state""#;
    let entries = entry("x", r#""a b", "$HOME", """#, more)
        + &entry("plain", "", "")
        + r#""cat": { "handlerBinary": "cat", "environment": { "COLOUR": "red" } },"#;
    let home = Home::new(&entries, "", &["alice"]);
    let base = fs::canonicalize(home.path()).expect("the directory");
    let server = home.serve_as(|command| {
        command.env("SECRET_TOKEN", "hunter2").env("LD_LIBRARY_PATH_X", "x").env("LANG", "theirs").env("TZ", "UTC");
        command.env("BESTER_TYPE", "forged").env("BESTER_OTHER", "forged");
    });
    let mut alice = server.log_in("alice");
    let look = asks(&mut alice, "x", r#"[["look"]]"#);
    assert_eq!(look["directory"], json!(base.join("state")));
    assert_eq!(look["arguments"], json!(["a b", "$HOME", ""]));
    let environment = look["environment"].as_object().expect("an object");
    assert_eq!(environment["BESTER_TYPE"], "x");
    assert_eq!(environment["BESTER_SERVER"], "a.example");
    assert_eq!(environment["COLOUR"], "blau ü=1");
    assert_eq!(environment["LANG"], "ours");
    assert_eq!(environment["TZ"], "UTC");
    let informer = Path::new(environment["BESTER_INFORMER"].as_str().expect("a path"));
    assert!(informer.is_absolute() && informer.exists(), "{}", informer.display());
    // An interpreter adds some of its own; this program is none.
    let found = until("the program", || child_of(server.pid(), "cat\0"));
    let environment = fs::read(format!("/proc/{found}/environ")).expect("its environment");
    let names: Vec<&str> =
        std::str::from_utf8(&environment).expect("UTF-8").split_terminator('\0').map(|line| line.split('=').next().unwrap_or("")).collect();
    let expected = "BESTER_TYPE BESTER_SERVER BESTER_INSTANCE BESTER_INFORMER COLOUR \
                    PATH HOME USER LOGNAME SHELL LANG LANGUAGE LC_ALL LC_CTYPE TZ TMPDIR";
    for name in &names {
        assert!(expected.split(' ').any(|expected| expected == *name), "{name} is in the environment");
    }
    assert!(["BESTER_TYPE", "COLOUR", "PATH", "LANG"].iter().all(|name| names.contains(name)), "{names:?}");
    let look = asks(&mut alice, "plain", r#"[["look"]]"#);
    assert_eq!(look["directory"], json!(base));
    assert_eq!(look["environment"]["LANG"], "theirs");
    assert!(look["environment"]["COLOUR"].is_null());
}

/// The value in a line of a file in the process's directory in /proc.
fn proc_line(pid: u64, file: &str, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).expect("a running process");
    text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {text}")).trim().to_owned()
}

/// A set of signals: 1 for the first, 2 for the second.
fn signals(pid: u64, name: &str) -> u64 {
    u64::from_str_radix(&proc_line(pid, "status", name), 16).expect("a number")
}

#[test]
fn a_child_has_default_signals_and_a_group_of_its_own() {
    // Whoever starts the server ignores and blocks what it can, but for blocking what is to stop the server.
    let rude = "import os, signal, sys
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGALRM, signal.SIGCHLD, signal.SIGPIPE, 50})
os.execv(sys.argv[1], sys.argv[1:])";
    // It leaves signals as it finds them.
    let server = Home::new(r#""x": { "handlerBinary": "cat" },"#, "", &[]).serve_under(&["/usr/bin/env", "python3", "-c", rude]);
    let found = until("the program", || child_of(server.pid(), "cat\0"));
    let own = u64::from(server.pid());
    let (int, quit) = (1 << 1, 1 << 2);
    assert_eq!(signals(own, "SigIgn:") & (int | quit), quit, "the server was told to ignore one, and catches the other");
    assert_ne!(signals(own, "SigBlk:"), 0);
    for name in ["SigIgn:", "SigBlk:", "SigCgt:", "SigPnd:", "ShdPnd:"] {
        assert_eq!(signals(found, name), 0, "{name}");
    }
    let stat = fs::read_to_string(format!("/proc/{found}/stat")).expect("a running process");
    let group = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(2)).expect("a group").to_owned();
    assert_eq!(group, found.to_string());
    assert!(std::process::Command::new("kill").args(["-KILL", &found.to_string()]).status().expect("kill runs").success());
    server.wait_for("handler x was ended by signal 9 (SIGKILL)");
    server.stop();
}

#[test]
fn a_child_has_the_bounds_that_it_is_given_and_not_those_of_the_server() {
    let entries = r#"
        "plain": { "handlerBinary": "cat" },
        "bound": { "handlerBinary": "cat", "arguments": ["-u"],
                   "resources": { "files": 64, "memory": 1073741824, "processes": 500 } },"#;
    let server = Home::new(entries, "", &[]).serve_under(&["sh", "-c", "ulimit -Sn 333; exec \"$@\"", "sh"]);
    let bounds = |pid: u64, name: &str| {
        let line = proc_line(pid, "limits", name);
        let mut words = line.split_ascii_whitespace().map(str::to_owned);
        (words.next().expect("a soft limit"), words.next().expect("a hard limit"))
    };
    let both = |value: &str| (value.to_owned(), value.to_owned());
    let (soft, hard) = bounds(server.pid().into(), "Max open files");
    assert_eq!(soft, hard, "the server takes all that it can have");
    let plain = until("the program", || child_of(server.pid(), "cat\0"));
    assert_eq!(bounds(plain, "Max open files"), ("333".to_owned(), hard));
    assert_eq!(bounds(plain, "Max core file size"), both("0"));
    for name in ["Max address space", "Max processes"] {
        assert_eq!(bounds(plain, name), bounds(server.pid().into(), name));
    }
    let bound = until("the program", || child_of(server.pid(), "cat\0-u\0"));
    assert_eq!(bounds(bound, "Max open files"), both("64"));
    assert_eq!(bounds(bound, "Max core file size"), both("0"));
    assert_eq!(bounds(bound, "Max address space"), both("1073741824"));
    assert_eq!(bounds(bound, "Max processes"), both("500"));
}

/// Whom tests can run a handler as: root as nobody, others only as themselves. The keys, and the numbers that they mean.
fn guest() -> (String, u32, u32) {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if !uid.is_root() {
        return (format!(r#""user": "{uid}", "group": "{gid}""#), uid.as_raw(), gid.as_raw());
    }
    let users = fs::read_to_string("/etc/passwd").expect("users");
    let line = users.lines().find(|line| line.starts_with("nobody:")).expect("nobody");
    let number = |field: usize| line.split(':').nth(field).and_then(|field| field.parse().ok()).expect("a number");
    (r#""user": "nobody""#.to_owned(), number(2), number(3))
}

/// With the program `guest.py`, which anybody can reach.
fn open_home(entries: &str) -> Home {
    let home = Home::new(entries, "", &["alice"]);
    home.program("guest.py", &fs::read_to_string(PROGRAM).expect("the program"));
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
    home
}

#[test]
fn a_handler_runs_as_the_user_that_it_is_given() {
    let (keys, uid, gid) = guest();
    let entries = format!(
        r#""x": {{ "handlerBinary": "./guest.py", {keys} }},
           "group": {{ "handlerBinary": "./guest.py", "group": "{gid}", "environment": {{ "HOME": "/ours" }} }},"#
    );
    let server = open_home(&entries).serve_as(|command| {
        command.env("HOME", "/theirs").env("USER", "them").env("LOGNAME", "them");
    });
    let mut alice = server.log_in("alice");
    let look = asks(&mut alice, "x", r#"[["look", "informer", "reopen"]]"#);
    assert_eq!(look["user"], json!([uid, uid, uid]));
    let root = rustix::process::geteuid().is_root();
    // Only root can leave groups.
    let others = |look: &Value| if root { look["groups"][1].clone() } else { json!([]) };
    assert_eq!((&look["groups"][0], others(&look)), (&json!([gid, gid, gid]), json!([])));
    assert_eq!(look["tried"], json!({ "informer": null, "reopen": null }));
    let environment = &look["environment"];
    assert_eq!(environment["USER"], environment["LOGNAME"]);
    assert!(environment["USER"] != "them" && environment["HOME"] != "/theirs", "{environment}");
    if root {
        assert_eq!(environment["USER"], "nobody");
    }
    assert_eq!(environment["BESTER_INSTANCE"], "0");
    assert_eq!(proc_line(pid(&look), "status", "NoNewPrivs:"), "1");
    let known = |path: &str| fs::metadata(server.home.path().join(path)).expect("it is there");
    let socket = known("state-informers/informer-x.sock");
    assert_eq!((socket.uid(), socket.gid(), socket.mode() & 0o7777), (uid, gid, 0o600));
    assert_eq!(known("state-informers").mode() & 0o7777, 0o711);
    assert!(!server.home.path().join("state/informer-x.sock").exists());

    let look = asks(&mut alice, "group", r#"[["look"]]"#);
    let ours = rustix::process::geteuid().as_raw();
    assert_eq!(look["user"], json!([ours, ours, ours]));
    assert_eq!((&look["groups"][0], others(&look)), (&json!([gid, gid, gid]), json!([])));
    assert_eq!((&look["environment"]["HOME"], &look["environment"]["USER"]), (&json!("/ours"), &json!("them")));
    let locked_in = |pid: u64| proc_line(pid, "status", "NoNewPrivs:");
    assert_eq!(locked_in(pid(&look)), locked_in(server.pid().into()));
    let home = server.stop();
    assert_eq!(fs::read_dir(home.path().join("state-informers")).expect("the directory").count(), 0);
}

#[test]
fn a_server_that_is_not_root_says_that_it_cannot_start_somebody_else() {
    let home = open_home(r#""x": { "handlerBinary": "./guest.py", "user": "root" },"#);
    // Root tries as somebody who is not; he must be able to reach the program.
    let program = home.path().join("bester");
    fs::copy(crate::world::BESTER, &program).expect("a copy");
    for command in ["check", "serve"] {
        let mut tried = std::process::Command::new(&program);
        tried.args([command, "-c", "bester.conf"]).current_dir(home.path());
        if rustix::process::geteuid().is_root() {
            tried.uid(4001).gid(4001);
        }
        let output = tried.output().expect("bester runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("handlers.typeMap.x.user: root is not whom the server runs as (user "), "{said}");
        assert!(said.contains("run the server as root, or leave `user` and `group` out"), "{said}");
        assert_eq!(output.status.code(), Some(77), "{said}");
    }
}

#[test]
fn children_die_with_a_server_that_is_killed() {
    let entries = entry("stdio", "", "")
        + &entry("socket", r#""socket""#, r#""transport": "socket""#)
        + &entry("unix", r#""unix=u""#, r#""unixDomainSocketPath": "u""#)
        + &format!(r#""guest": {{ "handlerBinary": "./guest.py", {} }},"#, guest().0);
    let mut server = open_home(&entries).serve();
    let mut alice = server.log_in("alice");
    let pids = ["stdio", "socket", "unix", "guest"].map(|kind| pid(&asks(&mut alice, kind, r#"[["look"]]"#)));
    // Not even one that listens to nothing survives, nor one that is somebody else's by then.
    alice.sends_message("stdio", r#"[["hang"]]"#, "m");
    alice.sends_message("guest", r#"[["hang"]]"#, "m");
    for pid in [pids[0], pids[3]] {
        until("it ignores SIGTERM", || (signals(pid, "SigIgn:") & 1 << 14 != 0).then_some(()));
    }
    server.signal("-KILL");
    server.wait();
    for pid in pids {
        ends(pid);
    }
}

#[test]
fn a_server_that_stops_asks_its_handlers_to_end() {
    let (server, mut alice) = serve("", r#""stopSeconds": 60"#);
    let pid = pid(&asks(&mut alice, "x", r#"[["look"]]"#));
    let begun = Instant::now();
    let home = server.stop();
    assert!(begun.elapsed() < Duration::from_secs(10), "it ended with its input: {:?}", begun.elapsed());
    assert_eq!(state(pid), None, "the server collected it");
    assert!(!home.path().join("state/informer-x.sock").exists());
}

#[test]
fn a_handler_that_stays_is_told_and_then_killed() {
    // One ends when it is told to, the other does not; a child of each goes with it.
    let arguments = |stay: &str| format!(r#""begin=[[\"fork\"]]", "stay={stay}""#);
    let stops = |stay: &str| {
        let (server, mut alice) = serve(&arguments(stay), r#""stopSeconds": 1"#);
        works(&mut alice, "x");
        let directory = server.home.path().to_owned();
        let left = noted(&directory, "left-x");
        let begun = Instant::now();
        let home = server.stop();
        let took = begun.elapsed();
        let pid = noted(home.path(), "ended-input");
        assert_eq!(state(pid), None, "the server collected it");
        ends(left);
        took
    };
    let told = stops("pause");
    assert!((Duration::from_millis(990)..Duration::from_millis(2900)).contains(&told), "{told:?}");
    let killed = stops("hang");
    assert!((Duration::from_millis(2990)..Duration::from_secs(8)).contains(&killed), "{killed:?}");
}

#[test]
fn crashes_leave_no_processes_and_no_descriptors_behind() {
    let ways = [
        ("x", "", ""),
        ("s", r#""socket""#, r#""transport": "socket""#),
        ("u", r#""unix=u""#, r#""unixDomainSocketPath": "u""#),
        ("k", r#""unix=k""#, r#""unixDomainSocketPath": "k", "connection": "persistent""#),
    ];
    let entries: String = ways.iter().map(|(kind, arguments, more)| entry(kind, arguments, more)).collect();
    let server = Home::new(&entries, "", &["alice"]).serve();
    let mut alice = server.log_in("alice");
    let descriptors = |server: &Server| fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("a running server").count();
    let threads = |server: &Server| fs::read_dir(format!("/proc/{}/task", server.pid())).expect("a running server").count();
    let mut pids = Vec::new();
    let mut before = None;
    for turn in 1..=5 {
        for (kind, ..) in ways {
            pids.push(pid(&asks(&mut alice, kind, r#"[["look"]]"#)));
        }
        // A connection for a single message is closed just after its answer.
        let (fds, tasks) = *before.get_or_insert_with(|| (descriptors(&server), threads(&server)));
        until("no more descriptors and threads than at first", || (descriptors(&server) <= fds && threads(&server) <= tasks).then_some(()));
        for (kind, ..) in ways {
            alice.sends_message(kind, r#"[["exit",1]]"#, "m");
            bad(&mut alice, "m", "handlerCrashed");
        }
        for (kind, ..) in ways {
            server.wait_for_times(&format!("handler {kind} exited with status 1"), turn);
        }
    }
    for pid in pids {
        assert_eq!(state(pid), None, "{pid} is left");
    }
    assert!(server.log().contains(PROGRAM));
}
