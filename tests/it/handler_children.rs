//! What a handler's program finds when it starts, and that nothing of it is left when it or the server has ended.

use crate::fault::{PROGRAM, asks, bad, ends, entry, serve, state, until, works};
use crate::world::{Home, Server};
use serde_json::{Value, json};
use std::fs;
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
    let expected = "BESTER_TYPE BESTER_SERVER BESTER_INFORMER COLOUR PATH HOME USER LOGNAME SHELL LANG LANGUAGE LC_ALL LC_CTYPE TZ TMPDIR";
    for name in &names {
        assert!(expected.split(' ').any(|expected| expected == *name), "{name} is in the environment");
    }
    assert!(["BESTER_TYPE", "COLOUR", "PATH", "LANG"].iter().all(|name| names.contains(name)), "{names:?}");
    let look = asks(&mut alice, "plain", r#"[["look"]]"#);
    assert_eq!(look["directory"], json!(base));
    assert_eq!(look["environment"]["LANG"], "theirs");
    assert!(look["environment"]["COLOUR"].is_null());
}

#[test]
fn a_child_has_default_signals_and_a_group_of_its_own() {
    // A shell leaves signals as it finds them; Python does not.
    let home = Home::new("", "", &[]);
    let script = home.program(
        "signals",
        "#!/bin/sh\nwhile read -r line; do\n  set -- $(sed -n 's/^Sig\\(Blk\\|Ign\\|Cgt\\):\\s*//p' /proc/$$/status) $(cut -d' ' -f5 /proc/$$/stat)\n  \
         echo \"{\\\"header\\\":{\\\"status\\\":\\\"0\\\",\\\"command\\\":\\\"reply\\\"},\\\"payload\\\":{\\\"data\\\":[\\\"$1\\\",\\\"$2\\\",\\\"$3\\\",$$,$4]}}\"\ndone\n",
    );
    let entries = format!(r#""x": {{ "handlerBinary": "{}", "framing": "lines" }},"#, script.display());
    let server = Home::new(&entries, "", &["alice"]).serve();
    let mut alice = server.log_in("alice");
    let seen = asks(&mut alice, "x", "1");
    let bits = |text: &str| u64::from_str_radix(text, 16).expect("a number");
    let seen_bits = |n: usize| bits(seen[n].as_str().expect("a number"));
    assert_eq!(seen_bits(0), 0, "blocked signals");
    // What this test itself was started with goes all the way through, and so does what the C library ignores in
    // processes that it spawns: its own signals 32 and 33. SIGPIPE, 13, does not.
    let own = fs::read_to_string("/proc/self/status").expect("our status");
    let own = own.lines().find_map(|line| line.strip_prefix("SigIgn:")).expect("a line");
    let allowed = (bits(own.trim()) | 3 << 31) & !(1 << 12);
    assert_eq!(seen_bits(1) & !allowed, 0, "ignored signals: {seen}");
    assert_eq!(seen[3], seen[4], "its group is its own: {seen}");
    assert_ne!(seen[3].as_u64(), Some(u64::from(server.pid())));
}

#[test]
fn children_die_with_a_server_that_is_killed() {
    let entries = entry("stdio", "", "")
        + &entry("socket", r#""socket""#, r#""transport": "socket""#)
        + &entry("unix", r#""unix=u""#, r#""unixDomainSocketPath": "u""#);
    let mut server = Home::new(&entries, "", &["alice"]).serve();
    let mut alice = server.log_in("alice");
    let pids = ["stdio", "socket", "unix"].map(|kind| pid(&asks(&mut alice, kind, r#"[["look"]]"#)));
    // Not even one that listens to nothing survives.
    alice.sends_message("stdio", r#"[["hang"]]"#, "m");
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
        let left = noted(&directory, "left");
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
