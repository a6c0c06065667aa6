//! A small blocking client, for our own commands and for programs in Rust.
//!
//! ```no_run
//! # use bester::client::{Address, Client, Incoming};
//! # use bester::password::Password;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let address = Address::parse("tcp://127.0.0.1:2223")?;
//! let mut client = Client::connect(&address, std::time::Duration::from_secs(10))?;
//! client.log_in("alice", &Password::new("correct horse".to_owned())?)?;
//! let data: Box<serde_json::value::RawValue> = serde_json::from_str(r#"{"say":"hello"}"#)?;
//! client.message("chat", &data, Some("c-1"))?;
//! while let Some(frame) = client.recv_frame(None)? {
//!     println!("{}", Incoming::parse(&frame)?.data);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Over TLS, a server is known by the pin of its key, or by authorities: see [`Client::connect_trusting`].
//!
//! It has no thread of its own: who wants to send and receive at the same time connects twice, or polls with a
//! deadline.

mod address;
mod error;
#[cfg(test)]
pub(crate) mod fake;
mod incoming;

pub use address::{Address, AddressError};
pub use error::{ClientError, LoginError};
pub use incoming::{BadFrame, Incoming, LOGIN_ID};

pub use crate::protocol::client::Options;
pub use crate::tls::Trust;

use crate::config::Framing;
use crate::frame::{Decoder, Frame, PREFIX_BYTES, TooLarge};
use crate::name::{BUILTIN, DUMMY};
use crate::password::Password;
use crate::protocol::report::{put_number, put_string};
use crate::tls::{self, TlsError};
use crate::transport::{HostPort, Socket, SocketReader, TlsSocket, unix};
use serde_json::value::RawValue;
use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The longest frame that is taken from a server, or sent. Servers let handlers answer with 4 MiB unless configured.
pub const FRAME_BYTES_MAX: usize = 16 << 20;

/// How much is read at once.
const READ_BYTES: usize = 16 << 10;
/// A server that is silent for so long is asked by the kernel whether it is still there: whoever only listens would
/// otherwise never learn that the machine at the other end is gone.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);

/// A connection to a server.
pub struct Client {
    socket: Arc<Socket>,
    reader: SocketReader,
    decoder: Decoder,
    login_deadline: Instant,
}

impl Client {
    /// Connects. `timeout` is for this and for [`Client::log_in`] together; a write may take as long, too. Over TLS, the server
    /// must have a certificate from an authority that this machine trusts.
    ///
    /// # Errors
    /// [`ClientError::Connect`], [`ClientError::Tls`].
    pub fn connect(address: &Address, timeout: Duration) -> Result<Client, ClientError> {
        Client::connect_trusting(address, timeout, &Trust::System)
    }

    /// The same; over TLS, `trust` says who may be the server.
    ///
    /// # Errors
    /// As of [`Client::connect`].
    pub fn connect_trusting(address: &Address, timeout: Duration, trust: &Trust) -> Result<Client, ClientError> {
        let login_deadline = Instant::now() + timeout;
        let socket = Arc::new(open(address, timeout, login_deadline, trust)?);
        let reader = SocketReader::new(Arc::clone(&socket));
        Ok(Client { socket, reader, decoder: Decoder::new(Framing::Length, FRAME_BYTES_MAX), login_deadline })
    }

    /// Logs in, and waits for the report on it. Nothing else may have been sent before.
    ///
    /// # Errors
    /// [`LoginError::Refused`] has the server's report. The connection is of no use after an error.
    pub fn log_in(&mut self, user: &str, password: &Password) -> Result<(), LoginError> {
        self.log_in_with(user, password, &Options::default())
    }

    /// The same with options for the session. With `ack`, what is delivered from mailboxes has an [`Incoming::seq`] and comes
    /// again in a later session unless it is acknowledged: see [`Client::ack`]. With `dedupe`, a message that was sent
    /// before, with the same id and data, gets the same report and is not handled again.
    ///
    /// # Errors
    /// As of [`Client::log_in`].
    pub fn log_in_with(&mut self, user: &str, password: &Password, options: &Options) -> Result<(), LoginError> {
        let mut frame = login_frame(user, password, options);
        let sent = self.send_frame(&frame);
        frame.fill(0);
        sent?;
        let frame = self.recv_frame(Some(self.login_deadline))?.ok_or(ClientError::Closed)?;
        let report = Incoming::parse(&frame).map_err(ClientError::from)?;
        match (report.is_report(), report.is_good()) {
            (true, true) if report.id.as_deref() == Some(LOGIN_ID) => Ok(()),
            (true, false) => Err(LoginError::Refused(Box::new(report))),
            _ => Err(LoginError::Unexpected(Box::new(report))),
        }
    }

    /// The connection and what came on it and was not asked for yet, for a loop that serves many of them.
    pub(crate) fn into_parts(self) -> (Arc<Socket>, Decoder) {
        (self.socket, self.decoder)
    }

    /// Sends a message. With an `id`, the server reports what became of it.
    ///
    /// # Errors
    /// As of [`Client::send_frame`].
    pub fn message(&mut self, kind: &str, data: &RawValue, id: Option<&str>) -> Result<(), ClientError> {
        self.send_frame(&message_frame(kind, data, id))
    }

    /// Says that everything up to this [`Incoming::seq`] is taken care of and need not come again. There is no answer. The server
    /// stops to deliver when too much is not acknowledged, and closes the connection when a higher number is than was sent.
    ///
    /// # Errors
    /// As of [`Client::send_frame`].
    pub fn ack(&mut self, seq: u64) -> Result<(), ClientError> {
        self.send_frame(&ack_frame(seq))
    }

    /// Says that nothing more is sent, and waits until the server has read all that was: it then closes the connection. What
    /// arrives meanwhile is passed over. (Closing at once may cost what was sent last.)
    ///
    /// # Errors
    /// [`ClientError::TimedOut`]: it has not closed so far. After others, too, nobody knows whether it has read everything.
    pub fn finish(mut self, timeout: Duration) -> Result<(), ClientError> {
        let deadline = Instant::now() + timeout;
        self.socket.shutdown(Shutdown::Write);
        while self.recv_frame(Some(deadline))?.is_some() {}
        Ok(())
    }

    /// Sends a frame with this text in it, whatever it is.
    ///
    /// # Errors
    /// [`ClientError::TooLarge`]: nothing was sent. [`ClientError::Io`]: the connection is of no use any longer.
    pub fn send_frame(&mut self, body: &[u8]) -> Result<(), ClientError> {
        let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= FRAME_BYTES_MAX);
        let length = length.ok_or(TooLarge { frame_bytes: body.len(), frame_bytes_max: FRAME_BYTES_MAX })?;
        // In one write: of two small ones, the second would wait until the first is acknowledged.
        let mut wire = Vec::with_capacity(PREFIX_BYTES + body.len());
        wire.extend_from_slice(&length.to_le_bytes());
        wire.extend_from_slice(body);
        let written = match &*self.socket {
            Socket::Tcp(stream) => (&*stream).write_all(&wire),
            Socket::Unix(stream) => (&*stream).write_all(&wire),
            Socket::Tls(tls) => tls.write_all(&wire),
        };
        wire.fill(0); // there may be a password in it
        Ok(written?)
    }

    /// Waits for the next frame, at most until `deadline`. `None`: the server has closed the connection.
    ///
    /// # Errors
    /// [`ClientError::TimedOut`] costs nothing: what came of a frame is kept. After others, the connection is of no use.
    pub fn recv_frame(&mut self, deadline: Option<Instant>) -> Result<Option<Frame>, ClientError> {
        loop {
            if let Some(frame) = self.decoder.frame()? {
                return Ok(Some(frame));
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Err(ClientError::TimedOut);
            }
            self.reader.set_timeout(left)?;
            match self.reader.read(self.decoder.space(READ_BYTES)) {
                Ok(0) if self.decoder.pending() == 0 => return Ok(None),
                Ok(0) => return Err(ClientError::Closed),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({:?}, {} bytes of a frame)", self.socket, self.decoder.pending())
    }
}

fn open(address: &Address, write_timeout: Duration, deadline: Instant, trust: &Trust) -> Result<Socket, ClientError> {
    let failed = |source| ClientError::Connect { address: address.clone(), source };
    match address {
        Address::Tcp(at) => Ok(Socket::Tcp(open_tcp(at, write_timeout, deadline).map_err(failed)?)),
        Address::Tls(at) => {
            let failed_tls = |source| ClientError::Tls { address: address.clone(), source };
            // Before anybody is bothered: there may be nothing to compare a certificate with.
            let config = tls::client_config(trust, None).map_err(failed_tls)?;
            let stream = open_tcp(at, write_timeout, deadline).map_err(failed)?;
            let socket = TlsSocket::connect(stream, &config, &at.host, deadline);
            socket.map(Socket::from).map_err(|error| match error {
                TlsError::Io(source) => failed(source),
                error => failed_tls(error),
            })
        }
        Address::Unix(path) => {
            let stream = unix::connect(path, deadline.saturating_duration_since(Instant::now())).map_err(failed)?;
            stream.set_write_timeout(Some(not_zero(write_timeout))).map_err(failed)?;
            Ok(Socket::Unix(stream))
        }
    }
}

/// Zero is not taken as a timeout: it would mean "for ever" to the kernel.
fn not_zero(timeout: Duration) -> Duration {
    timeout.max(Duration::from_millis(1))
}

fn open_tcp(HostPort { host, port }: &HostPort, write_timeout: Duration, deadline: Instant) -> io::Result<TcpStream> {
    let stream = connect_tcp(host, *port, deadline)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(not_zero(write_timeout)))?;
    rustix::net::sockopt::set_socket_keepalive(&stream, true)?;
    rustix::net::sockopt::set_tcp_keepidle(&stream, KEEPALIVE_AFTER)?;
    Ok(stream)
}

/// Tries all numbers of a name; the last error is the one that is told.
fn connect_tcp(host: &str, port: u16, deadline: Instant) -> io::Result<TcpStream> {
    let mut error = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for number in (host, port).to_socket_addrs()? {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        match TcpStream::connect_timeout(&number, left) {
            Ok(stream) => return Ok(stream),
            Err(failed) => error = failed,
        }
    }
    Err(error)
}

fn login_frame(user: &str, password: &Password, options: &Options) -> Vec<u8> {
    let mut body = br#"{"header":{"scope":"client","authentication":{"username":"#.to_vec();
    put_string(&mut body, user);
    body.extend_from_slice(br#","password":"#);
    // A password is made of a text, so nothing is lost.
    put_string(&mut body, &String::from_utf8_lossy(password.as_bytes()));
    body.push(b'}');
    put_options(&mut body, options);
    body.extend_from_slice(br#"},"payload":{"type":"#);
    put_string(&mut body, DUMMY);
    body.extend_from_slice(br#","data":null}}"#);
    body
}

/// Those that are mentioned: a server that knows none of them is not bothered.
fn put_options(body: &mut Vec<u8>, options: &Options) {
    let Options { ack, after, dedupe } = *options;
    let word = |value: Option<bool>| value.map(|value| value.to_string());
    let told = [("ack", word(ack)), ("after", after.map(|seq| seq.to_string())), ("dedupe", word(dedupe))];
    let mut between: &[u8] = br#","options":{"#;
    for (name, value) in told {
        let Some(value) = value else { continue };
        body.extend_from_slice(between);
        put_string(body, name);
        body.push(b':');
        body.extend_from_slice(value.as_bytes());
        between = b",";
    }
    if *options != Options::default() {
        body.push(b'}');
    }
}

fn ack_frame(seq: u64) -> Vec<u8> {
    let mut body = br#"{"payload":{"type":"#.to_vec();
    put_string(&mut body, BUILTIN);
    body.extend_from_slice(br#","data":{"command":{"type":"ack","args":{"seq":"#);
    put_number(&mut body, seq);
    body.extend_from_slice(b"}}}}}");
    body
}

fn message_frame(kind: &str, data: &RawValue, id: Option<&str>) -> Vec<u8> {
    let mut body = br#"{"payload":{"type":"#.to_vec();
    put_string(&mut body, kind);
    if let Some(id) = id {
        body.extend_from_slice(br#","id":"#);
        put_string(&mut body, id);
    }
    body.extend_from_slice(br#","data":"#);
    body.extend_from_slice(data.get().as_bytes());
    body.extend_from_slice(b"}}");
    body
}

#[cfg(test)]
mod tests;
