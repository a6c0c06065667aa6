//! Telling a running server that accounts have changed.
//!
//! One frame (four bytes of length, little endian, and JSON) over the server's control socket, one frame back.

use crate::admin::control::{NAMES_MAX, SOCKET};
use crate::cli::warn;
use crate::config::Config;
use crate::frame::{PREFIX_BYTES, Packet, Slice};
use crate::name::Username;
use crate::transport::unix;
use serde::Deserialize;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the server may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// The most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Tells a running server, if there is one, to look at the accounts of `names` again. The change is stored already, so
/// a server that does not confirm is worth a warning only.
pub(super) fn tell_server(config: &Config, names: &[Username]) {
    if names.is_empty() {
        return;
    }
    let socket = config.server.state_directory.join(SOCKET);
    if let Err(e) = tell(&socket, names, ANSWER_WITHIN) {
        warn(format_args!(
            "the change is stored, but the running server did not confirm it ({e}): \
             start the server again"
        ));
    }
}

/// Does it over the socket at `path`; also good when nobody listens there.
fn tell(path: &Path, names: &[Username], within: Duration) -> io::Result<()> {
    let deadline = Instant::now() + within;
    let mut stream = match unix::connect(path, within) {
        Ok(stream) => stream,
        // There is no server, or its end left the socket behind.
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            return Ok(());
        }
        Err(e) => return Err(named(e)),
    };
    stream.set_write_timeout(Some(within))?;
    stream.write_all(&question(names).parts().concat()).map_err(named)?;

    let mut length = [0; PREFIX_BYTES];
    read_exact(&mut stream, &mut length, deadline)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > ANSWER_BYTES_MAX {
        return Err(io::Error::other(format!("its answer has {length} bytes")));
    }
    let mut answer = vec![0; length];
    read_exact(&mut stream, &mut answer, deadline)?;
    let answer: Answer = serde_json::from_slice(&answer)?;
    match (answer.status.as_str(), answer.message) {
        ("0", _) => Ok(()),
        (_, Some(message)) => Err(io::Error::other(format!("it says: {message}"))),
        (status, None) => Err(io::Error::other(format!("its answer has the status {status:?}"))),
    }
}

#[derive(Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    message: Option<String>,
}

/// To look at these accounts or, if they are too many for one question, at all of them.
fn question(names: &[Username]) -> Packet {
    let data = if names.len() > NAMES_MAX {
        "null".to_owned()
    } else {
        // Nothing in a name needs an escape.
        let names: Vec<_> = names.iter().map(|name| format!("\"{name}\"")).collect();
        format!("[{}]", names.join(","))
    };
    let json = format!(r#"{{"command":{{"type":"accountsChanged","data":{data}}}}}"#);
    Packet::framed(Slice::from(json.as_bytes()))
}

fn read_exact(stream: &mut UnixStream, bytes: &mut [u8], deadline: Instant) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(named(ErrorKind::TimedOut.into()));
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut bytes[filled..]) {
            Ok(0) => return Err(io::Error::other("it hung up")),
            Ok(count) => filled += count,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(named(e)),
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

    fn names(count: usize) -> Vec<Username> {
        let name = |i| Username::new(&format!("u{i}")).unwrap();
        (0..count).map(name).collect()
    }

    /// Tells a server that hears one frame and answers with `answer`; gives what it heard.
    fn tell_one(answer: &'static [u8], names: &[Username]) -> (io::Result<()>, String) {
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
        let told = tell(&path, names, PATIENCE);
        (told, server.unwrap().join().unwrap())
    }

    #[test]
    fn a_server_is_told_the_names_and_confirms() {
        let good = b"\x1a\0\0\0{\"status\":\"0\",\"data\":null}";
        let (told, heard) = tell_one(good, &names(2));
        assert!(told.is_ok(), "{told:?}");
        assert_eq!(heard, r#"{"command":{"type":"accountsChanged","data":["u0","u1"]}}"#);
        let (told, heard) = tell_one(good, &names(1001));
        assert!(told.is_ok(), "{told:?}");
        assert_eq!(heard, r#"{"command":{"type":"accountsChanged","data":null}}"#);
        assert!(tell_one(good, &names(1000)).1.contains("\"u999\""));
    }

    #[test]
    fn anything_but_a_good_answer_is_said() {
        for (answer, expected) in [
            (b"\x0e\0\0\0{\"status\":\"1\"}".as_slice(), "status \"1\""),
            (b"\x1d\0\0\0{\"status\":\"1\",\"message\":\"no\"}", "it says: no"),
            (b"\x05\0\0\0hello", "expected value"),
            (b"\xff\xff\xff\xffhello", "4294967295 bytes"),
            (b"\x0e\0\0\0{\"sta", "hung up"),
            (b"", "hung up"),
        ] {
            let error = tell_one(answer, &names(1)).0.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn no_server_is_fine() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(SOCKET);
        assert!(tell(&path, &names(1), PATIENCE).is_ok());
        // A socket that a server left behind.
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        assert!(tell(&path, &names(1), PATIENCE).is_ok());
    }

    #[test]
    fn a_server_that_says_nothing_is_not_waited_for_long() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(SOCKET);
        let _deaf = UnixListener::bind(&path).unwrap();
        let told = tell(&path, &names(1), Duration::from_millis(20));
        assert_eq!(told.unwrap_err().kind(), ErrorKind::TimedOut);
    }
}
