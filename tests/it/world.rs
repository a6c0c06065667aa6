//! A server of a test's own: in a directory of its own, on ports that the system chose, ended with the test.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The program under test.
pub const BESTER: &str = env!("CARGO_BIN_EXE_bester");

/// How long anything may take before a test gives up; far longer than it should.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// "password", hashed as cheaply as Argon2id allows, so that logins cost nothing.
pub const PASSWORD_HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$YmVuY2hiZW5jaGJlbmNoMQ$GPgRwXP4uvGqLqRSWmrCOJnlpTSgNMzp2LY+VIhF6yI";

/// A directory with a configuration, accounts and handlers, not yet served.
pub struct Home {
    directory: TempDir,
}

impl Home {
    /// `handlers` is the inside of `handlers.typeMap`, `more` are further blocks, each ended by a comma. The password
    /// of every user is "password".
    pub fn new(handlers: &str, more: &str, users: &[&str]) -> Home {
        Home::named("a.example", "", handlers, more, users)
    }

    /// The same for a server called `name`, with further listeners, each ended by a comma.
    pub fn named(name: &str, network: &str, handlers: &str, more: &str, users: &[&str]) -> Home {
        let home = Home::empty();
        home.write(
            "bester.conf",
            &format!(
                r#"{{
                    "server": {{ "name": "{name}", "stateDirectory": "state" }},
                    "network": {{
                        "tcp4": {{ "address": "127.0.0.1", "port": 0 }},
                        "tcp6": {{ "address": "::1", "port": 0 }},
                        "unix": {{ "address": "state/bester.sock" }},
                        {network}
                    }},
                    {more}
                    "handlers": {{ "typeMap": {{ {handlers} }} }},
                }}"#
            ),
        );
        let line = |name: &&str| format!("{{\"name\":\"{name}\",\"password\":\"{PASSWORD_HASH}\"}}\n");
        home.write("users.jsonl", &users.iter().map(line).collect::<String>());
        home.bester(&["user", "import", "users.jsonl"]).good();
        home
    }

    /// A directory with nothing in it.
    pub fn empty() -> Home {
        Home { directory: tempfile::tempdir().expect("a directory") }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, text).expect("a file");
        path
    }

    /// Writes an executable file.
    pub fn program(&self, name: &str, text: &str) -> PathBuf {
        let path = self.write(name, text);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("permissions");
        path
    }

    /// Runs a command in this directory to its end.
    pub fn bester(&self, args: &[&str]) -> Finished {
        self.bester_with_input(args, "")
    }

    pub fn bester_with_input(&self, args: &[&str], input: &str) -> Finished {
        let mut child = Command::new(BESTER)
            .args(args)
            .current_dir(self.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("bester runs");
        // It may not want its input, or be gone.
        let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
        let output = child.wait_with_output().expect("its end");
        Finished {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Serves this directory; returns once the server is ready.
    pub fn serve(self) -> Server {
        self.serve_as(|_| {})
    }

    /// Like [`Home::serve`], with the command changed before it runs.
    pub fn serve_as(self, change: impl FnOnce(&mut Command)) -> Server {
        self.spawn(&[], change).ready()
    }

    /// Like [`Home::serve`], with a program that becomes the server: it gets its command line as arguments.
    pub fn serve_under(self, program: &[&str]) -> Server {
        self.spawn(program, |_| {}).ready()
    }

    /// Starts to serve this directory and waits for nothing.
    pub fn serve_unready(self) -> Server {
        self.spawn(&[], |_| {})
    }

    fn spawn(self, program: &[&str], change: impl FnOnce(&mut Command)) -> Server {
        let words = [program, &[BESTER, "serve", "-c", "bester.conf"]].concat();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(self.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // The system's own Python, where there is one, starts ten times as fast as a wrapper that looks for another.
        command.env("PATH", format!("/usr/bin:/bin:{}", std::env::var("PATH").unwrap_or_default()));
        change(&mut command);
        let mut child = command.spawn().expect("bester runs");
        let log = Arc::new((Mutex::new(String::new()), Condvar::new()));
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let writer = Arc::clone(&log);
        std::thread::Builder::new()
            .spawn(move || {
                for line in stderr.lines().map_while(Result::ok) {
                    let mut text = writer.0.lock().expect("the log");
                    text.push_str(&line);
                    text.push('\n');
                    writer.1.notify_all();
                }
            })
            .expect("a thread");
        Server { home: self, child: Some(child), log, tcp4: None, tcp6: None, tls: None }
    }
}

/// What a command did.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// It went well.
    #[track_caller]
    pub fn good(self) -> Finished {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }
}

/// A running server.
pub struct Server {
    pub home: Home,
    child: Option<Child>,
    log: Arc<(Mutex<String>, Condvar)>,
    pub tcp4: Option<SocketAddr>,
    pub tcp6: Option<SocketAddr>,
    pub tls: Option<SocketAddr>,
}

impl Server {
    fn ready(mut self) -> Server {
        self.wait_for("is ready");
        let log = self.log();
        let address = |scheme: &str| {
            let (_, rest) = log.split_once(&format!("listening on {scheme}://"))?;
            rest.lines().next().expect("an address").parse().ok()
        };
        self.tcp4 = address("tcp4");
        self.tcp6 = address("tcp6");
        self.tls = address("tls");
        self
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running server").id()
    }

    /// Everything that was logged so far.
    pub fn log(&self) -> String {
        self.log.0.lock().unwrap_or_else(PoisonError::into_inner).clone() // a test that failed may have held it
    }

    /// Waits until `text` stands in the log.
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        self.wait_for_times(text, 1);
    }

    /// Waits until `text` stands in the log so many times.
    #[track_caller]
    pub fn wait_for_times(&self, text: &str, times: usize) {
        let missing = |log: &mut String| log.matches(text).count() < times;
        let (log, timeout) = self.log.1.wait_timeout_while(self.log.0.lock().expect("the log"), PATIENCE, missing).expect("the log");
        assert!(!timeout.timed_out(), "{text:?} is not in the log {times} times:\n{log}");
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.pid().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }

    /// Waits for the server's end.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + 2 * PATIENCE;
        let mut child = self.child.take().expect("a running server");
        loop {
            if let Some(status) = child.try_wait().expect("its status") {
                return status;
            }
            assert!(Instant::now() < deadline, "the server does not end:\n{}", self.log());
            std::thread::yield_now();
        }
    }

    /// Stops the server as an operator would. It must end well.
    pub fn stop(mut self) -> Home {
        self.signal("-TERM");
        assert_eq!(self.wait().code(), Some(0), "{}", self.log());
        self.take_home()
    }

    /// Ends the server as a power cut would.
    pub fn kill(mut self) -> Home {
        self.signal("-KILL");
        self.wait();
        self.take_home()
    }

    /// The directory of a server that has ended.
    pub fn take_home(mut self) -> Home {
        std::mem::replace(&mut self.home, Home::empty())
    }

    /// A connection over TCP and IPv4.
    pub fn connect(&self) -> Client {
        Client::new(Stream::Tcp(TcpStream::connect(self.tcp4.expect("an address")).expect("a connection")))
    }

    pub fn connect_tcp6(&self) -> Client {
        Client::new(Stream::Tcp(TcpStream::connect(self.tcp6.expect("an address")).expect("a connection")))
    }

    pub fn connect_unix(&self) -> Client {
        self.connect_unix_at("state/bester.sock")
    }

    /// A connection to a socket in the server's directory.
    pub fn connect_unix_at(&self, path: &str) -> Client {
        Client::unix(&self.home.path().join(path))
    }

    /// A connection that is logged in.
    #[track_caller]
    pub fn log_in(&self, user: &str) -> Client {
        let mut client = self.connect();
        client.log_in(user);
        client
    }
}

/// Whatever the test did, the server does not survive it.
impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the server's log\n{}", self.log());
        }
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A client that speaks raw frames.
pub struct Client {
    stream: Stream,
}

impl Client {
    /// A connection to a UNIX socket.
    pub fn unix(path: &Path) -> Client {
        Client::new(Stream::Unix(UnixStream::connect(path).expect("a connection")))
    }

    fn new(stream: Stream) -> Client {
        let client = Client { stream };
        client.set_patience(PATIENCE);
        client
    }

    /// How long [`Client::gets`] waits.
    pub fn set_patience(&self, patience: Duration) {
        match &self.stream {
            Stream::Tcp(stream) => stream.set_read_timeout(Some(patience)),
            Stream::Unix(stream) => stream.set_read_timeout(Some(patience)),
        }
        .expect("a timeout");
    }

    /// How long sending waits for the server to read.
    pub fn set_write_patience(&self, patience: Duration) {
        match &self.stream {
            Stream::Tcp(stream) => stream.set_write_timeout(Some(patience)),
            Stream::Unix(stream) => stream.set_write_timeout(Some(patience)),
        }
        .expect("a timeout");
    }

    /// Sends as much of these bytes as the other side takes; an error when it takes none in time.
    pub fn try_send_some(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.writer().write(bytes)
    }

    fn writer(&mut self) -> &mut dyn Write {
        match &mut self.stream {
            Stream::Tcp(stream) => stream,
            Stream::Unix(stream) => stream,
        }
    }

    fn reader(&mut self) -> &mut dyn Read {
        match &mut self.stream {
            Stream::Tcp(stream) => stream,
            Stream::Unix(stream) => stream,
        }
    }

    /// Sends bytes as they are.
    pub fn sends_bytes(&mut self, bytes: &[u8]) {
        self.writer().write_all(bytes).expect("the server reads");
    }

    /// Like [`Client::sends_bytes`], for when the server may have closed already.
    pub fn tries_to_send(&mut self, bytes: &[u8]) {
        let _ = self.writer().write_all(bytes);
    }

    /// Sends a frame.
    pub fn sends(&mut self, text: &str) {
        self.sends_bytes(&frame(text.as_bytes()));
    }

    /// Sends a message with an id.
    pub fn sends_message(&mut self, kind: &str, data: &str, id: &str) {
        self.sends(&format!(r#"{{"payload":{{"type":"{kind}","data":{data},"id":"{id}"}}}}"#));
    }

    /// The next frame; panics if there is none in time.
    #[track_caller]
    pub fn gets(&mut self) -> String {
        match self.receives() {
            Some(frame) => frame,
            None => panic!("the server closed the connection"),
        }
    }

    /// The next frame, or `None` if the server closed the connection; panics if there is neither in time.
    #[track_caller]
    pub fn receives(&mut self) -> Option<String> {
        let mut length = [0; 4];
        match self.reader().read_exact(&mut length) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset) => return None,
            Err(error) => panic!("no frame came: {error}"),
        }
        let mut body = vec![0; u32::from_le_bytes(length) as usize];
        self.reader().read_exact(&mut body).expect("a whole frame");
        Some(String::from_utf8(body).expect("UTF-8"))
    }

    /// Reads to the end of the connection; how many bytes came.
    pub fn reads_all(&mut self) -> usize {
        let mut count = 0;
        let mut buffer = vec![0; 1 << 16];
        loop {
            match self.reader().read(&mut buffer) {
                Ok(0) => return count,
                Ok(bytes) => count += bytes,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return count,
                Err(error) => panic!("the connection does not end: {error}"),
            }
        }
    }

    /// The next frame, if there is one already.
    pub fn looks(&mut self) -> Option<String> {
        self.set_patience(Duration::from_millis(1));
        let mut length = [0; 4];
        self.reader().read_exact(&mut length).ok()?;
        let mut body = vec![0; u32::from_le_bytes(length) as usize];
        self.reader().read_exact(&mut body).ok()?;
        String::from_utf8(body).ok()
    }

    /// The next frame, as JSON.
    #[track_caller]
    pub fn gets_json(&mut self) -> serde_json::Value {
        serde_json::from_str(&self.gets()).expect("JSON")
    }

    /// The server closes the connection, and sends nothing before.
    #[track_caller]
    pub fn is_closed(&mut self) {
        assert_eq!(self.receives(), None, "the connection should be closed");
    }

    /// Nothing has come for this connection: a question that is answered in order comes back first.
    #[track_caller]
    pub fn got_nothing(&mut self) {
        self.sends(r#"{"payload":{"type":"builtin","data":{"command":{"type":"ping"}},"id":"got-nothing"}}"#);
        let answer = self.gets();
        assert!(answer.contains("got-nothing"), "something came: {answer}");
    }

    #[track_caller]
    pub fn log_in(&mut self, user: &str) {
        self.sends(&login(user, "password"));
        let report = self.gets();
        assert!(report.contains(r#""status":"good""#) && report.contains("auth_special"), "{report}");
    }

    /// Nothing more comes from this side.
    pub fn ends_input(&mut self) {
        match &self.stream {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
        .expect("an open connection");
    }
}

/// A frame around these bytes.
pub fn frame(body: &[u8]) -> Vec<u8> {
    let mut bytes = (body.len() as u32).to_le_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

/// The text of a message that only logs in.
pub fn login(user: &str, password: &str) -> String {
    format!(
        r#"{{"header":{{"authentication":{{"username":"{user}","password":"{password}"}},"scope":"client"}},"payload":{{"type":"dummy","data":null}}}}"#
    )
}

/// The same, with these `options`; the password is everybody's.
pub fn login_with(user: &str, options: &str) -> String {
    login(user, "password").replacen(r#""scope""#, &format!(r#""options":{options},"scope""#), 1)
}

/// The `typeMap` entry of a sample handler.
pub fn sample(name: &str) -> String {
    let handlers = concat!(env!("CARGO_MANIFEST_DIR"), "/handlers");
    match name {
        "echo" => format!(r#""echo": {{ "handlerBinary": "{handlers}/echo/echo.py" }},"#),
        "chat" => format!(r#""chat": {{ "handlerBinary": "{handlers}/chat/chat.py", "envelope": true }},"#),
        "mail" => format!(r#""mail": {{ "handlerBinary": "{handlers}/mail/mail.py", "envelope": true, "offline": "queue" }},"#),
        "presence" => format!(r#""presence": {{ "handlerBinary": "{handlers}/presence/presence.py", "envelope": true }},"#),
        "count" => format!(r#""count": {{ "handlerBinary": "{handlers}/count/count.sh", "framing": "lines" }},"#),
        _ => panic!("there is no sample {name}"),
    }
}
