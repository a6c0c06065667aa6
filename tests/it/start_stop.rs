//! How a server starts, or says why not; and how it ends, and what is left then.

use crate::world::{BESTER, Client, Home, PATIENCE, Server, frame, login, sample};
use std::fs::{self, Permissions};
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Replies only while there is a file `go`; has a child of its own, both of whose numbers are in `pids`.
const HOLD: &str = r#"#!/usr/bin/env python3
import os, struct, subprocess, sys, time
child = subprocess.Popen(["sleep", "1000"])
with open("pids.new", "w") as pids:
    pids.write(f"{os.getpid()} {child.pid}")
os.rename("pids.new", "pids")
while len(length := sys.stdin.buffer.read(4)) == 4:
    sys.stdin.buffer.read(struct.unpack("<I", length)[0])
    with open("held", "w"):
        pass
    while not os.path.exists("go"):
        time.sleep(0.005)
    answer = b'{"header":{"status":"0","command":"reply"},"payload":{"data":"held"}}'
    sys.stdout.buffer.write(struct.pack("<I", len(answer)) + answer)
    sys.stdout.buffer.flush()
"#;

const HOLDING: &str = r#""hold": { "handlerBinary": "hold.py" },"#;

fn home() -> Home {
    let home = Home::new(&format!("{}{HOLDING}", sample("echo")), "", &["alice", "bob"]);
    home.program("hold.py", HOLD);
    home
}

/// Changes the configuration.
#[track_caller]
fn configure(home: &Home, from: &str, to: &str) {
    let text = fs::read_to_string(home.path().join("bester.conf")).expect("the configuration");
    assert!(text.contains(from), "{text}");
    home.write("bester.conf", &text.replacen(from, to, 1));
}

/// Everything in a directory and below, with its mode, size and time of change.
fn listing(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let known = path.symlink_metadata().expect("an entry");
            found.push(format!("{} {:o} {} {:?}", path.display(), known.permissions().mode(), known.len(), known.modified().ok()));
            if known.is_dir() {
                open.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The server does not start: one line names the thing. `bester check` says the same unless only a start can tell.
#[track_caller]
fn refuses(home: &Home, code: i32, words: &[&str], checkable: bool) {
    let commands: &[&str] = if checkable { &["check", "serve"] } else { &["serve"] };
    for command in commands {
        let before = listing(home.path());
        let finished = home.bester(&[command, "-c", "bester.conf"]);
        assert_eq!(finished.code, Some(code), "{command}: {finished:?}");
        let told = finished.stderr.lines().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(told, "{command}: no line with {words:?}: {finished:?}");
        if *command == "check" {
            assert_eq!(listing(home.path()), before, "check changed something");
        }
    }
}

fn mode(home: &Home, name: &str, mode: u32) {
    fs::set_permissions(home.path().join(name), Permissions::from_mode(mode)).expect("permissions");
}

fn await_file(path: &Path) {
    let deadline = Instant::now() + PATIENCE;
    while !path.exists() {
        assert!(Instant::now() < deadline, "there is no {}", path.display());
        std::thread::yield_now();
    }
}

/// The numbers of the handler and its child.
fn handler_pids(server: &Server) -> Vec<u32> {
    let path = server.home.path().join("pids");
    await_file(&path);
    let text = fs::read_to_string(path).expect("its numbers");
    text.split(' ').map(|pid| pid.parse().expect("a number")).collect()
}

/// Whether a process is there and does anything: one that only waits for its parent to look is gone.
fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[track_caller]
fn are_gone(pids: &[u32]) {
    let deadline = Instant::now() + PATIENCE;
    while pids.iter().any(|pid| is_alive(*pid)) {
        assert!(Instant::now() < deadline, "{pids:?} are left behind");
        std::thread::yield_now();
    }
}

fn sockets(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "sock")).collect()
}

/// Has a request under way at the handler that holds it.
fn hold(server: &Server) -> Client {
    let mut client = server.log_in("alice");
    client.sends_message("hold", "1", "held");
    await_file(&server.home.path().join("held"));
    client
}

/// Waits until nobody listens at a port.
fn await_closed(address: SocketAddr) {
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(address).is_ok() {
        assert!(Instant::now() < deadline, "{address} is still listened on");
        std::thread::yield_now();
    }
}

#[test]
fn a_taken_port_is_named() {
    let home = home();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    configure(&home, r#""address": "127.0.0.1", "port": 0"#, &format!(r#""address": "127.0.0.1", "port": {port}"#));
    refuses(&home, 69, &[&format!("127.0.0.1:{port}")], false);
    drop(taken);
    home.serve().stop();
}

#[test]
fn a_handler_that_is_missing_or_no_program_is_named() {
    let home = home();
    mode(&home, "hold.py", 0o644);
    refuses(&home, 77, &["handlers.typeMap.hold.handlerBinary", "hold.py", "chmod +x"], true);
    fs::remove_file(home.path().join("hold.py")).expect("a file");
    refuses(&home, 69, &["handlers.typeMap.hold.handlerBinary", "hold.py", "does not exist"], true);
    home.program("hold.py", "#!/usr/bin/env no-such-interpreter\n");
    refuses(&home, 69, &["handlers.typeMap.hold.handlerBinary", "no-such-interpreter"], true);
}

#[test]
fn a_path_too_long_for_a_socket_is_named() {
    let home = home();
    let long = "s".repeat(108);
    configure(&home, "state/bester.sock", &long);
    refuses(&home, 78, &["network.unix.address", "107"], true);
    configure(&home, &long, "state/bester.sock");
    configure(&home, r#""hold.py""#, &format!(r#""hold.py", "informerSocketPath": "{long}""#));
    refuses(&home, 78, &["informerSocketPath", "107"], true);
}

#[test]
fn what_others_could_read_is_named() {
    let home = home();
    for (name, key, wrong, right) in [("state", "server.stateDirectory", 0o750, 0o700), ("state/bester.db", "database.path", 0o640, 0o600)]
    {
        mode(&home, name, wrong);
        refuses(&home, 77, &[key, name, &format!("chmod {right:04o}")], true);
        mode(&home, name, right);
    }
    home.serve().stop();
}

#[test]
fn a_state_directory_is_for_one_server() {
    let server = home().serve();
    configure(&server.home, "state/bester.sock", "state/other.sock");
    refuses(&server.home, 69, &["another server", "state"], false);
    assert!(!server.home.path().join("state/other.sock").exists());
    server.log_in("alice").got_nothing();
    server.connect_unix().got_nothing();
    server.stop();
}

#[test]
fn an_unknown_key_is_named_and_so_is_the_nearest() {
    let home = home();
    configure(&home, r#""server": {"#, r#""limits": { "loginSecond": 3, "inFlight": 0 }, "servre": {}, "server": {"#);
    refuses(&home, 78, &["limits.loginSecond", "loginSeconds"], true);
    refuses(&home, 78, &["servre", "server"], true);
    refuses(&home, 78, &["limits.inFlight"], true);
    let wrong = home.bester(&["serve", "-c", "no-such-file"]);
    assert!(wrong.code == Some(78) && wrong.stderr.contains("no-such-file"), "{wrong:?}");
    let wrong = home.bester(&["serve", "now"]);
    assert!(wrong.code == Some(64) && wrong.stderr.contains("now"), "{wrong:?}");
}

#[test]
fn a_socket_that_a_dead_server_left_is_no_obstacle() {
    let home = home();
    for name in ["bester.sock", "control.sock", "informer-echo.sock"] {
        drop(UnixListener::bind(home.path().join("state").join(name)).expect("a socket"));
    }
    let server = home.serve();
    let mut client = server.connect_unix();
    client.log_in("alice");
    server.stop();
}

#[test]
fn a_socket_that_somebody_listens_on_is_left_to_him() {
    let home = home();
    let state = home.path().join("state");
    for name in ["bester.sock", "informer-echo.sock"] {
        let theirs = UnixListener::bind(state.join(name)).expect("a socket");
        refuses(&home, 69, &[name], false);
        UnixStream::connect(state.join(name)).expect("he is still there");
        drop(theirs);
        sockets(&state).iter().for_each(|path| fs::remove_file(path).expect("a socket"));
    }
    // What is no socket is in the way, and stays.
    home.write("state/bester.sock", "precious");
    refuses(&home, 78, &["network.unix.address", "not a socket"], true);
    assert_eq!(fs::read_to_string(home.path().join("state/bester.sock")).expect("the file"), "precious");
}

#[test]
fn a_check_changes_nothing() {
    let home = home();
    for missing in ["users.jsonl", "state/bester.db"] {
        let before = listing(home.path());
        let checked = home.bester(&["check"]).good();
        assert_eq!(listing(home.path()), before);
        assert!(checked.stdout.contains("hold.py") && checked.stdout.contains("bester.sock"), "{checked:?}");
        fs::remove_file(home.path().join(missing)).expect("a file");
    }
    fs::remove_dir_all(home.path().join("state")).expect("the state");
    let before = listing(home.path());
    home.bester(&["check"]).good();
    assert_eq!(listing(home.path()), before);
    let server = home.serve();
    let before = listing(server.home.path());
    server.home.bester(&["check"]).good();
    assert_eq!(listing(server.home.path()), before);
    assert!(!server.log().contains("connection"), "{}", server.log());
}

#[test]
fn told_to_stop_it_finishes_and_leaves_nothing_behind() {
    for signal in ["-TERM", "-INT"] {
        let mut server = home().serve();
        let pids = handler_pids(&server);
        let mut alice = hold(&server);
        let mut bob = server.connect_unix();
        bob.log_in("bob");
        let mut stranger = server.connect_tcp6();
        stranger.got_nothing();
        let address = server.tcp4.expect("an address");
        server.signal(signal);
        await_closed(address);
        assert!(is_alive(server.pid()));
        // What is new is refused, what was asked before is answered.
        let deadline = Instant::now() + PATIENCE;
        loop {
            bob.sends_message("echo", "1", "new");
            let mut report = bob.gets_json();
            while report["header"]["messageType"] != "statusReport" {
                report = bob.gets_json();
            }
            if report["header"]["reason"] == "draining" {
                assert_eq!(report["header"]["temporary"], true);
                break;
            }
            assert!(Instant::now() < deadline, "{report}");
        }
        stranger.sends(&login("bob", "password"));
        let report = stranger.gets_json();
        assert_eq!((&report["header"]["reason"], &report["payload"]["id"]), (&"draining".into(), &"auth_special".into()), "{report}");
        stranger.is_closed();
        server.home.write("go", "");
        assert!(alice.gets().contains("receivedMessage"));
        assert!(alice.gets().contains(r#""delivered":1"#));
        alice.is_closed();
        bob.is_closed();
        assert_eq!(server.wait().code(), Some(0), "{}", server.log());
        are_gone(&pids);
        assert_eq!(sockets(&server.home.path().join("state")), [] as [PathBuf; 0]);
        let mut left: Vec<_> =
            fs::read_dir(server.home.path().join("state")).expect("the state").map(|e| e.expect("an entry").file_name()).collect();
        left.sort();
        assert_eq!(left, ["bester.db"]);
        assert!(server.log().contains("stopped"));
    }
}

#[test]
fn the_second_order_to_stop_hurries() {
    let mut server = home().serve();
    let pids = handler_pids(&server);
    let mut alice = hold(&server);
    server.signal("-TERM");
    await_closed(server.tcp4.expect("an address"));
    server.wait_for("stopping");
    let since = Instant::now();
    server.signal("-TERM");
    alice.reads_all();
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
    assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
    are_gone(&pids);
    assert_eq!(sockets(&server.home.path().join("state")), [] as [PathBuf; 0]);
}

#[test]
fn what_is_not_finished_in_time_is_reported() {
    let home = home();
    configure(&home, r#""server": {"#, r#""limits": { "drainSeconds": 1 }, "server": {"#);
    let mut server = home.serve();
    let mut alice = hold(&server);
    server.signal("-TERM");
    server.wait_for("WARN  server: requests are still under way after 1 s\n");
    let report = alice.gets();
    assert!(report.contains(r#""reason":"draining""#), "{report}");
    alice.is_closed();
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
}

#[test]
fn a_client_that_does_not_read_delays_the_end_by_little() {
    let mut server = home().serve();
    let mut alice = server.log_in("alice");
    let data = format!(r#""{}""#, "x".repeat(400_000));
    let message = frame(format!(r#"{{"payload":{{"type":"echo","data":{data}}}}}"#).as_bytes());
    for _ in 0..12 {
        alice.sends_bytes(&message);
    }
    let mut bob = server.log_in("bob");
    bob.got_nothing();
    let since = Instant::now();
    server.signal("-TERM");
    bob.is_closed();
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
    assert!(since.elapsed() < Duration::from_secs(12), "{:?}", since.elapsed());
}

#[test]
fn killed_it_can_start_again() {
    let mut server = home().serve();
    let pids = handler_pids(&server);
    let mut alice = hold(&server);
    server.signal("-KILL");
    assert_eq!(server.wait().code(), None);
    alice.is_closed();
    assert!(!sockets(&server.home.path().join("state")).is_empty(), "a killed server leaves its sockets");
    // The handler notices that its input has ended; what it holds may take as long as it likes.
    server.home.write("go", "");
    are_gone(&pids[..1]);
    Command::new("kill").args(["-9", &pids[1].to_string()]).status().expect("kill runs");
    let server = server.take_home().serve();
    let mut client = server.connect_unix();
    client.log_in("alice");
    client.sends_message("echo", "1", "m");
    assert!(client.gets().contains("receivedMessage"));
    server.stop();
}

#[test]
fn its_log_need_not_be_read_for_it_to_end() {
    // Nobody reads standard error, and there is more of it than a pipe holds.
    let home = home();
    configure(&home, r#""server": {"#, r#""log": { "all": "trace" }, "server": {"#);
    let mut child = Command::new(BESTER)
        .args(["serve"])
        .current_dir(home.path())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("bester runs");
    let socket = home.path().join("state/bester.sock");
    await_file(&socket);
    let mut clients = 0;
    let deadline = Instant::now() + PATIENCE;
    while clients < 3000 {
        assert!(Instant::now() < deadline, "{clients}");
        let Ok(mut stream) = UnixStream::connect(&socket) else { continue };
        let mut byte = [0];
        let ping = frame(br#"{"payload":{"type":"builtin","data":{"command":{"type":"ping"}}}}"#);
        std::io::Write::write_all(&mut stream, &ping).expect("the server reads");
        assert!(stream.read(&mut byte).expect("an answer") > 0);
        clients += 1;
    }
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill runs");
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("its status") {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().expect("it can be killed");
            panic!("the server does not end");
        }
        std::thread::yield_now();
    };
    assert_eq!(status.code(), Some(0));
}
