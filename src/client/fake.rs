//! A server for tests that does what its script says, for one connection or for several after each other.

use super::Address;
use crate::config::Framing;
use crate::frame::Decoder;
use crate::password::Password;
use crate::transport::HostPort;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a client may take to connect.
const PATIENCE: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };
const STACK_BYTES: usize = 256 << 10;
pub(crate) const LOGGED_IN: &str =
    r#"{"header":{"status":"good","messageType":"statusReport"},"payload":{"data":null,"type":"dummy","id":"auth_special"}}"#;

/// The server's side of a connection.
pub(crate) struct Peer {
    stream: Box<dyn Stream>,
    decoder: Decoder,
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

impl Peer {
    pub(crate) fn new(stream: impl Read + Write + Send + 'static) -> Peer {
        Peer { stream: Box::new(stream), decoder: Decoder::new(Framing::Length, 1 << 20) }
    }

    /// The text of the next frame; `None` at the end.
    pub(crate) fn gets(&mut self) -> Option<String> {
        loop {
            if let Some(frame) = self.decoder.frame().expect("a frame within the cap") {
                return Some(String::from_utf8(frame.bytes().to_vec()).expect("UTF-8"));
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(bytes) => self.decoder.feed(&buffer[..bytes]),
                // A client that leaves with something unread resets the connection.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("not readable within the timeout: {error}"),
            }
        }
    }

    pub(crate) fn sends(&mut self, text: &str) {
        let length = u32::try_from(text.len()).expect("short");
        self.sends_bytes(&[&length.to_le_bytes(), text.as_bytes()].concat());
    }

    pub(crate) fn sends_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("a client that reads");
    }

    /// Takes a login without options and reports it good.
    pub(crate) fn lets_in(&mut self) {
        self.lets_in_with("");
    }

    /// The same with these options: the text behind the credentials.
    pub(crate) fn lets_in_with(&mut self, options: &str) {
        let login = self.gets().expect("a login");
        let expected = format!(r#""authentication":{{"username":"alice","password":"correct horse"}}{options}}},"payload":"#);
        assert!(login.contains(&expected), "{login}");
        self.sends(LOGGED_IN);
    }

    /// The number of the next frame, an acknowledgement; `None` at the end.
    pub(crate) fn gets_ack(&mut self) -> Option<u64> {
        let frame = self.gets()?;
        let seq = frame.strip_prefix(r#"{"payload":{"type":"builtin","data":{"command":{"type":"ack","args":{"seq":"#);
        let seq = seq.and_then(|rest| rest.strip_suffix("}}}}}")).and_then(|seq| seq.parse().ok());
        Some(seq.unwrap_or_else(|| panic!("{frame} is no acknowledgement")))
    }
}

/// Listens on a free port and serves the first who connects. Join it, so that its asserts count.
pub(crate) fn server(script: impl FnOnce(Peer) + Send + 'static) -> (Address, JoinHandle<()>) {
    server_of(vec![Box::new(script)])
}

/// What a server does for one connection.
pub(crate) type Script = Box<dyn FnOnce(Peer) + Send>;

/// The same for one connection after the other.
pub(crate) fn server_of(scripts: Vec<Script>) -> (Address, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let body = move || {
        for script in scripts {
            assert_eq!(poll(&mut [PollFd::new(&listener, PollFlags::IN)], Some(&PATIENCE)), Ok(1), "nobody connects");
            let (stream, _) = listener.accept().expect("a client");
            stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
            script(Peer::new(stream));
        }
    };
    let thread = crate::thread::spawn("fake server", STACK_BYTES, body).expect("a thread");
    (Address::Tcp(HostPort { host: "127.0.0.1".to_owned(), port }), thread)
}

/// Alice's password.
pub(crate) fn password() -> Password {
    Password::new("correct horse".to_owned()).expect("short enough")
}

/// A delivery with this data.
pub(crate) fn delivery(kind: &str, data: &str) -> String {
    format!(
        r#"{{"header":{{"status":"good","messageType":"receivedMessage","messageId":"s/5f-1"}},"payload":{{"data":{data},"type":"{kind}"}}}}"#
    )
}

/// A delivery that is to be acknowledged.
pub(crate) fn marked(seq: u64, redelivered: bool, data: &str) -> String {
    let plain = delivery("chat", data);
    plain.replacen(r#""},"payload""#, &format!(r#"","seq":{seq},"redelivered":{redelivered}}},"payload""#), 1)
}

/// The word that the server stops.
pub(crate) const DRAINING: &str =
    r#"{"header":{"status":"good","messageType":"draining"},"payload":{"data":{"message":"soon"},"type":"builtin"}}"#;

/// A good report on the message with this id.
pub(crate) fn good(id: &str, data: &str) -> String {
    format!(r#"{{"header":{{"status":"good","messageType":"statusReport"}},"payload":{{"data":{data},"type":"x","id":"{id}"}}}}"#)
}

/// A bad report; `id` with its comma in front.
pub(crate) fn bad(reason: &str, temporary: bool, data: &str, id: &str) -> String {
    let header = format!(r#"{{"status":"bad","messageType":"statusReport","reason":"{reason}","temporary":{temporary}}}"#);
    format!(r#"{{"header":{header},"payload":{{"data":{data},"type":"x"{id}}}}}"#)
}
