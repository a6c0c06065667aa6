//! How often memory is asked for on the way of a message, with everything in its place: a server with its threads and
//! sockets, ten clients that have 64 messages under way each, and a handler that sends each back.
//!
//! All of it runs in this process. What plays the clients and the handler asks for nothing once it has begun, so that
//! what is counted is the server's.

use bester::config::Config;
use bester::server;
use rustix::process::{Signal, getpid, kill_process};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::alloc::System;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const CLIENTS: usize = 10;
const TOGETHER: usize = 64;
const DATA_BYTES: usize = 128;
/// Rounds in which buffers grow to their size, and rounds that count.
const ROUNDS: [usize; 2] = [50, 50];
/// The bound, for each message: one for what is delivered, one for all that is shared by those that come together.
const ALLOCATIONS_MAX: usize = 2;
const PATIENCE: Duration = Duration::from_secs(20);
/// "password", hashed as cheaply as Argon2id allows.
const PASSWORD_HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$YmVuY2hiZW5jaGJlbmNoMQ$GPgRwXP4uvGqLqRSWmrCOJnlpTSgNMzp2LY+VIhF6yI";

fn main() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    write_files(home);
    let imported = Command::new(env!("CARGO_BIN_EXE_bester")).args(["user", "import", "users.jsonl"]).current_dir(home).output();
    assert!(imported.expect("it starts").status.success());
    let listener = UnixListener::bind(home.join("handler.sock")).expect("a free path");
    let handler = bester::thread::spawn("handler", 256 << 10, move || answer(&listener)).expect("a thread");
    let config = Config::load(&home.join("bester.conf")).expect("a good configuration");
    let server = bester::thread::spawn("server", 1 << 20, move || server::serve(&config)).expect("a thread");

    let mut clients: Vec<Client> = (0..CLIENTS).map(|number| Client::log_in(&home.join("state/bester.sock"), number)).collect();
    let asked_for = ROUNDS.map(|rounds| {
        let before = ALLOCATOR.stats();
        for _ in 0..rounds {
            clients.iter_mut().for_each(Client::send);
            clients.iter_mut().for_each(Client::receive);
        }
        let after = ALLOCATOR.stats();
        after.allocations + after.reallocations - before.allocations - before.reallocations
    });
    let messages = ROUNDS[1] * CLIENTS * TOGETHER;
    println!("{messages} messages, {} allocations", asked_for[1]);
    assert!(asked_for[1] > 0, "nothing is counted");
    assert!(asked_for[1] <= ALLOCATIONS_MAX * messages, "more than {ALLOCATIONS_MAX} for each of {messages}: {asked_for:?}");

    kill_process(getpid(), Signal::TERM).expect("it may");
    server.join().expect("no panic").expect("it stops");
    handler.join().expect("no panic");
}

fn write_files(home: &Path) {
    let conf = r#"{
        "server": { "name": "a.example", "stateDirectory": "state" },
        "network": { "unix": { "address": "state/bester.sock" } },
        "handlers": { "typeMap": { "echo": { "transport": "unix", "unixDomainSocketPath": "handler.sock", "connection": "persistent",
            "inFlight": 1024, "queue": 1024 } } },
        "limits": { "inFlight": 64, "connectionsPerUser": 10 },
    }"#;
    fs::write(home.join("bester.conf"), conf).expect("a file");
    let users = (0..CLIENTS).map(|number| format!("{{\"name\":\"user{number}\",\"password\":\"{PASSWORD_HASH}\"}}\n"));
    fs::write(home.join("users.jsonl"), users.collect::<String>()).expect("a file");
}

fn framed(body: &str) -> Vec<u8> {
    [&(body.len() as u32).to_le_bytes(), body.as_bytes()].concat()
}

/// The end of the first frame in `bytes`, if it is whole.
fn frame_end(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_le_bytes(*bytes.first_chunk()?) as usize;
    (bytes.len() >= 4 + length).then_some(4 + length)
}

/// Gives each whole frame in `buffer` to `take` and moves what is left to the front. How many bytes that is.
fn take_frames(buffer: &mut [u8], filled: usize, mut take: impl FnMut(&[u8])) -> usize {
    let mut start = 0;
    while let Some(end) = frame_end(&buffer[start..filled]) {
        take(&buffer[start + 4..start + end]);
        start += end;
    }
    buffer.copy_within(start..filled, 0);
    filled - start
}

/// Sends each message back to the user whose name it begins with.
fn answer(listener: &UnixListener) {
    let (mut stream, _) = listener.accept().expect("the server");
    let (mut buffer, mut filled) = (vec![0; 1 << 20], 0);
    let mut answers = Vec::with_capacity(4 << 20);
    loop {
        match stream.read(&mut buffer[filled..]) {
            Ok(0) | Err(_) => return,
            Ok(bytes) => filled += bytes,
        }
        answers.clear();
        filled = take_frames(&mut buffer, filled, |data| {
            let user = data[1..].split(|&b| b == b' ').next().unwrap_or_default();
            let at = answers.len();
            answers.extend_from_slice(&[0; 4]);
            answers.extend_from_slice(br#"{"header":{"status":"0","command":"sendClients","commandData":[""#);
            answers.extend_from_slice(user);
            answers.extend_from_slice(br#""]},"payload":{"data":"#);
            answers.extend_from_slice(data);
            answers.extend_from_slice(b"}}");
            let length = (answers.len() - at - 4) as u32;
            answers[at..at + 4].copy_from_slice(&length.to_le_bytes());
        });
        if stream.write_all(&answers).is_err() {
            return;
        }
    }
}

struct Client {
    stream: UnixStream,
    messages: Vec<u8>,
    buffer: Vec<u8>,
    filled: usize,
}

impl Client {
    fn log_in(path: &Path, number: usize) -> Client {
        let deadline = Instant::now() + PATIENCE;
        let mut stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "the server does not listen: {error}"),
            }
            std::thread::yield_now();
        };
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let login = format!(
            r#"{{"header":{{"authentication":{{"username":"user{number}","password":"password"}}}},"payload":{{"type":"dummy","data":null}}}}"#
        );
        stream.write_all(&framed(&login)).expect("it reads");
        let data = format!("\"user{number} {}\"", "x".repeat(DATA_BYTES));
        let message = framed(&format!(r#"{{"header":{{}},"payload":{{"type":"echo","data":{data}}}}}"#));
        let mut client = Client { stream, messages: message.repeat(TOGETHER), buffer: vec![0; 1 << 20], filled: 0 };
        client.await_frames(1, "statusReport");
        client
    }

    fn send(&mut self) {
        self.stream.write_all(&self.messages).expect("it reads");
    }

    fn receive(&mut self) {
        self.await_frames(TOGETHER, "receivedMessage");
    }

    fn await_frames(&mut self, count: usize, kind: &str) {
        let mut frames = 0;
        while frames < count {
            self.filled += self.stream.read(&mut self.buffer[self.filled..]).expect("an answer in time");
            self.filled = take_frames(&mut self.buffer, self.filled, |body| {
                assert!(body.windows(kind.len()).any(|window| window == kind.as_bytes()), "{}", String::from_utf8_lossy(body));
                frames += 1;
            });
        }
    }
}
