//! Asking a running server something, or telling it to do something, over its control socket.
//!
//! One frame (four bytes of length, little endian, and JSON) goes out, one comes back.

use super::Failure;
use crate::admin::control::SOCKET;
use crate::config::Config;
use crate::frame::{PREFIX_BYTES, Packet, Slice};
use crate::transport::unix;
use serde::Deserialize;
use serde_json::{Value, json};
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the server may take to answer what it does at once.
pub(super) const AT_ONCE: Duration = Duration::from_secs(5);
/// How long it may take to replace handlers: programs start as slowly as they like, and others may have their turn before.
pub(super) const IN_ITS_TIME: Duration = Duration::from_secs(86_400);
/// The most bytes of an answer: all handlers with their last deaths.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why there is no good answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// There is no server, or its end left the socket behind.
    Nobody,
    /// The server says no, in words for people.
    Refused(String),
    /// It cannot be talked to.
    Io(io::Error),
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoAnswer::Nobody => f.write_str("no server runs here"),
            NoAnswer::Refused(words) => f.write_str(words),
            NoAnswer::Io(error) => write!(f, "the running server cannot be talked to: {error}"),
        }
    }
}

impl From<io::Error> for NoAnswer {
    fn from(error: io::Error) -> NoAnswer {
        NoAnswer::Io(named(error))
    }
}

impl NoAnswer {
    /// As the end of a command that can do nothing without a server.
    pub(super) fn into_failure(self, config: &Config) -> Failure {
        let directory = config.server.state_directory.display();
        match self {
            NoAnswer::Nobody => Failure::unavailable(format_args!("no server runs with the state directory {directory}")),
            NoAnswer::Refused(words) => Failure::unavailable(words),
            NoAnswer::Io(error) if error.kind() == ErrorKind::PermissionDenied => {
                Failure::not_permitted(format_args!("the server's socket in {directory} is for the user who runs it: {error}"))
            }
            error @ NoAnswer::Io(_) => Failure::unavailable(error),
        }
    }
}

/// Asks the server of this configuration; `kind` is the command, `data` its argument. Waits for the answer `within` this
/// time at most, and gives its data.
pub(super) fn ask(config: &Config, kind: &str, data: &Value, within: Duration) -> Result<Value, NoAnswer> {
    ask_at(&config.server.state_directory.join(SOCKET), kind, data, within)
}

fn ask_at(path: &Path, kind: &str, data: &Value, within: Duration) -> Result<Value, NoAnswer> {
    let deadline = Instant::now() + within;
    let mut stream = match unix::connect(path, within) {
        Ok(stream) => stream,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => return Err(NoAnswer::Nobody),
        Err(e) => return Err(e.into()),
    };
    stream.set_write_timeout(Some(within))?;
    let question = json!({ "command": { "type": kind, "data": data } }).to_string();
    match stream.write_all(&Packet::framed(Slice::from(question.as_bytes())).parts().concat()) {
        // A server that hears no more commands has said so and gone.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(error.into()),
        _ => {}
    }

    let mut length = [0; PREFIX_BYTES];
    read_exact(&mut stream, &mut length, deadline)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > ANSWER_BYTES_MAX {
        return Err(io::Error::other(format!("its answer has {length} bytes")).into());
    }
    let mut answer = Vec::new();
    while answer.len() < length {
        // Room for what comes, not for what is promised.
        let from = answer.len();
        answer.resize(length.min(from + (1 << 20)), 0);
        read_exact(&mut stream, &mut answer[from..], deadline)?;
    }
    let answer: Answer = serde_json::from_slice(&answer).map_err(io::Error::from)?;
    match (answer.status.as_str(), answer.message) {
        ("0", _) => Ok(answer.data),
        (_, Some(message)) => Err(NoAnswer::Refused(message)),
        (status, None) => Err(io::Error::other(format!("its answer has the status {status:?}")).into()),
    }
}

#[derive(Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    data: Value,
    #[serde(default)]
    message: Option<String>,
}

fn read_exact(stream: &mut UnixStream, bytes: &mut [u8], deadline: Instant) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut bytes[filled..]) {
            Ok(0) => return Err(io::Error::other("it hung up")),
            Ok(count) => filled += count,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Gives a timeout of a socket, which the system calls "resource temporarily unavailable", its name.
fn named(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => io::Error::new(ErrorKind::TimedOut, "it did not answer in time"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// Asks a server that hears one frame and answers with `answer`; gives what it heard as well.
    fn ask_one(answer: &'static [u8]) -> (Result<Value, NoAnswer>, String) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(SOCKET);
        let listener = UnixListener::bind(&path).unwrap();
        let server = crate::thread::spawn("server", 128 << 10, move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut length = [0; 4];
            stream.read_exact(&mut length).unwrap();
            let mut heard = vec![0; u32::from_le_bytes(length) as usize];
            stream.read_exact(&mut heard).unwrap();
            stream.write_all(answer).unwrap();
            String::from_utf8(heard).unwrap()
        });
        let asked = ask_at(&path, "restartHandler", &json!("chat"), PATIENCE);
        (asked, server.unwrap().join().unwrap())
    }

    #[test]
    fn a_good_answer_gives_its_data() {
        let (asked, heard) = ask_one(b"\x1a\0\0\0{\"status\":\"0\",\"data\":[1]} ");
        assert_eq!(asked.unwrap(), json!([1]));
        assert_eq!(heard, r#"{"command":{"data":"chat","type":"restartHandler"}}"#);
    }

    #[test]
    fn anything_but_a_good_answer_is_said() {
        for (answer, expected) in [
            (b"\x0e\0\0\0{\"status\":\"1\"}".as_slice(), "status \"1\""),
            (b"\x1d\0\0\0{\"status\":\"1\",\"message\":\"no\"}", "no"),
            (b"\x05\0\0\0hello", "expected value"),
            (b"\xff\xff\xff\xffhello", "4294967295 bytes"),
            (b"\x0e\0\0\0{\"sta", "hung up"),
            (b"", "hung up"),
        ] {
            let error = ask_one(answer).0.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn no_server_is_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(SOCKET);
        let ask = || ask_at(&path, "status", &Value::Null, PATIENCE);
        assert!(matches!(ask(), Err(NoAnswer::Nobody)));
        // A socket that a server left behind.
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        assert!(matches!(ask(), Err(NoAnswer::Nobody)));
    }

    #[test]
    fn a_server_that_says_nothing_is_not_waited_for_long() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(SOCKET);
        let _deaf = UnixListener::bind(&path).unwrap();
        let asked = ask_at(&path, "status", &Value::Null, Duration::from_millis(20));
        assert!(matches!(asked, Err(NoAnswer::Io(error)) if error.kind() == ErrorKind::TimedOut));
    }
}
