//! The handler that does what its requests say, `handlers/fault.py`, and what tests need around it.

use crate::world::{Client, Home, PATIENCE, Server};
use serde_json::Value;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The program.
pub const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/handlers/fault.py");

/// Its entry in `typeMap`; `arguments` are JSON strings with commas between, `more` are further keys.
pub fn entry(kind: &str, arguments: &str, more: &str) -> String {
    format!(r#""{kind}": {{ "handlerBinary": "{PROGRAM}", "arguments": [{arguments}], {more} }},"#)
}

/// A server with this handler as type `x`, and alice on it.
pub fn serve(arguments: &str, more: &str) -> (Server, Client) {
    let server = Home::new(&entry("x", arguments, more), "", &["alice"]).serve();
    let alice = server.log_in("alice");
    (server, alice)
}

/// The `payload.data` of the next frame, a delivery.
#[track_caller]
pub fn delivery(client: &mut Client) -> Value {
    let mut frame = client.gets_json();
    assert_eq!(frame["header"]["messageType"], "receivedMessage", "{frame}");
    frame["payload"]["data"].take()
}

/// The `payload.data` of the next frame, a good report on the message with this id.
#[track_caller]
pub fn good(client: &mut Client, id: &str) -> Value {
    let mut frame = client.gets_json();
    let header = &frame["header"];
    assert!(header["messageType"] == "statusReport" && header["status"] == "good" && frame["payload"]["id"] == id, "{frame}");
    frame["payload"]["data"].take()
}

/// The words of the next frame, a bad report on the message with this id and for this reason.
#[track_caller]
pub fn bad(client: &mut Client, id: &str, reason: &str) -> String {
    let frame = client.gets_json();
    let header = &frame["header"];
    assert!(header["status"] == "bad" && header["reason"] == reason && frame["payload"]["id"] == id, "{reason} {id}: {frame}");
    frame["payload"]["data"]["message"].as_str().expect("words").to_owned()
}

/// Asks the handler for something and gets it.
#[track_caller]
pub fn works(client: &mut Client, kind: &str) {
    client.sends_message(kind, r#"[["reply","well"]]"#, "works");
    assert_eq!(delivery(client), "well");
    good(client, "works");
}

/// What a request's steps reply.
#[track_caller]
pub fn asks(client: &mut Client, kind: &str, steps: &str) -> Value {
    client.sends_message(kind, steps, "asks");
    let data = delivery(client);
    good(client, "asks");
    data
}

/// Makes a FIFO for the step `meet`.
pub fn fifo(home: &Home, name: &str) -> PathBuf {
    let path = home.path().join(name);
    assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo runs").success());
    path
}

/// Lets whoever waits at this FIFO go on; waits until he is there.
pub fn meet(path: &Path) {
    drop(OpenOptions::new().write(true).open(path).expect("the FIFO"));
}

/// Waits for something that nothing tells of.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// The process's state letter, or `None` when there is no such process.
pub fn state(pid: u64) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Waits until a process has ended. A zombie that nobody but us could collect has ended too, unless it is the server's.
#[track_caller]
pub fn ends(pid: u64) {
    until(&format!("the end of {pid}"), || matches!(state(pid), None | Some('Z')).then_some(()));
}

/// The handler, run by the test itself.
pub struct Elsewhere(Child);

impl Elsewhere {
    /// Listens at `socket`, a path in `home`, after whatever is there was removed.
    pub fn start(home: &Path, socket: &str, arguments: &[&str]) -> Elsewhere {
        let _ = fs::remove_file(home.join(socket)); // there may be none
        let mut command = Command::new(PROGRAM);
        command.env("PATH", format!("/usr/bin:/bin:{}", std::env::var("PATH").unwrap_or_default()));
        command.arg(format!("unix={socket}")).args(arguments).current_dir(home);
        Elsewhere(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("python runs"))
    }

    /// Kills it; its socket stays behind.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        self.end();
    }
}

/// The times of the lines of the log in which `text` stands, in seconds of the day.
pub fn times(log: &str, text: &str) -> Vec<f64> {
    let seconds = |line: &str| {
        let (_, rest) = line.split_once('T')?;
        let mut parts = rest.split('Z').next()?.split(':');
        let mut next = || parts.next()?.parse::<f64>().ok();
        Some(next()? * 3600.0 + next()? * 60.0 + next()?)
    };
    log.lines().filter(|line| line.contains(text)).filter_map(seconds).collect()
}
