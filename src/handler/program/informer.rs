//! What a handler asks the server, out of band.

use super::answer::Answer;
use super::message::Counts;
use crate::config::Framing;
use crate::frame::{Decoder, Frame, Packet};
use crate::transport::{Socket, SocketReader, unix};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// An answer may have all users in it.
const FRAME_BYTES_MAX: usize = 256 << 20;
const READ_BYTES: usize = 16 << 10;
/// The server answers at once; this is for one that does not any longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection to the handler's informer, on which it asks one question after the other. A handler may have 16 at once.
pub struct Informer {
    socket: Arc<Socket>,
    reader: SocketReader,
    decoder: Decoder,
}

impl fmt::Debug for Informer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Informer")
    }
}

/// Why a question has no answer.
#[derive(Debug)]
#[non_exhaustive]
pub enum InformerError {
    /// The server cannot be talked to.
    Io(io::Error),
    /// The server says what is wrong with the question.
    Refused(String),
    /// What the server says is no answer.
    Answer(serde_json::Error),
}

impl fmt::Display for InformerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InformerError::Io(error) => write!(f, "the informer cannot be talked to: {error}"),
            InformerError::Refused(words) => write!(f, "the informer refuses: {words}"),
            InformerError::Answer(error) => write!(f, "the informer's answer is not understood: {error}"),
        }
    }
}

impl std::error::Error for InformerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            InformerError::Io(error) => Some(error),
            InformerError::Refused(_) => None,
            InformerError::Answer(error) => Some(error),
        }
    }
}

impl From<io::Error> for InformerError {
    fn from(error: io::Error) -> InformerError {
        InformerError::Io(error)
    }
}

impl From<InformerError> for io::Error {
    fn from(error: InformerError) -> io::Error {
        match error {
            InformerError::Io(error) => error,
            other => io::Error::other(other.to_string()),
        }
    }
}

/// What the server tells of itself.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ServerInfo {
    /// How many connections are logged in, as a text.
    pub client_count: String,
    /// `admin.info` of the configuration.
    #[serde(default)]
    pub admin_info: serde_json::Value,
    /// Where clients connect.
    #[serde(default)]
    pub listeners: BTreeMap<String, serde_json::Value>,
}

/// A connection that is logged in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Session {
    /// The user.
    pub user: String,
    /// The number of the connection, as in an envelope.
    pub session: u64,
}

impl Informer {
    /// Connects to the informer that the server names in the handler's environment.
    ///
    /// # Errors
    /// There is none, which is so where no server has started the program; or nobody listens there.
    pub fn from_environment() -> Result<Informer, InformerError> {
        match std::env::var_os("BESTER_INFORMER") {
            Some(path) => Informer::connect(path),
            None => Err(io::Error::new(ErrorKind::NotFound, "BESTER_INFORMER is not set").into()),
        }
    }

    /// Connects to an informer's socket.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(path: impl AsRef<Path>) -> Result<Informer, InformerError> {
        let socket = Arc::new(Socket::Unix(unix::connect(path.as_ref(), PATIENCE)?));
        let mut reader = SocketReader::new(Arc::clone(&socket));
        reader.set_timeout(Some(PATIENCE))?;
        Ok(Informer { socket, reader, decoder: Decoder::new(Framing::Length, FRAME_BYTES_MAX) })
    }

    /// The names of the users who are logged in.
    ///
    /// # Errors
    /// There is no answer.
    pub fn list_clients(&mut self) -> Result<Vec<String>, InformerError> {
        self.ask(r#"{"command":{"type":"listClients"}}"#)
    }

    /// Whether a user is logged in.
    ///
    /// # Errors
    /// There is no answer.
    pub fn is_client(&mut self, name: &str) -> Result<bool, InformerError> {
        self.ask(&serde_json::json!({ "command": { "type": "isClient", "data": name } }).to_string())
    }

    /// The connections that are logged in.
    ///
    /// # Errors
    /// There is no answer.
    pub fn sessions(&mut self) -> Result<Vec<Session>, InformerError> {
        self.ask(r#"{"command":{"type":"sessions"}}"#)
    }

    /// What the server tells of itself.
    ///
    /// # Errors
    /// There is no answer.
    pub fn server_info(&mut self) -> Result<ServerInfo, InformerError> {
        self.ask(r#"{"command":{"type":"serverInfo"}}"#)
    }

    /// Has an answer carried out that belongs to no message, and says what became of it. A plain handler can speak in this
    /// way without having been asked.
    ///
    /// # Errors
    /// There is no answer, or it breaks the rules: a `reply`, for example, with nobody to reply to.
    pub fn push(&mut self, answer: &Answer) -> Result<Counts, InformerError> {
        let mut question = br#"{"command":{"type":"push","data":"#.to_vec();
        answer.put(None, &mut question);
        question.extend_from_slice(b"}}");
        self.ask_bytes(&question)
    }

    /// Who is logged in, and from then on each user who comes or goes. A user comes with the first connection and goes with
    /// the last.
    ///
    /// # Errors
    /// There is no answer.
    pub fn watch_clients(mut self) -> Result<(Vec<String>, Changes), InformerError> {
        let names = self.ask(r#"{"command":{"type":"watchClients"}}"#)?;
        self.reader.set_timeout(None)?;
        Ok((names, Changes(self)))
    }

    fn ask<T: DeserializeOwned>(&mut self, question: &str) -> Result<T, InformerError> {
        self.ask_bytes(question.as_bytes())
    }

    fn ask_bytes<T: DeserializeOwned>(&mut self, question: &[u8]) -> Result<T, InformerError> {
        let packet = Packet::write(|body| body.extend_from_slice(question));
        if let Socket::Unix(stream) = &*self.socket {
            let mut stream: &std::os::unix::net::UnixStream = stream;
            for part in packet.parts() {
                stream.write_all(part)?;
            }
        }
        let frame = self.frame()?.ok_or_else(|| io::Error::new(ErrorKind::UnexpectedEof, "the server has closed the connection"))?;
        let Reply { status, data, message } = serde_json::from_slice(frame.bytes()).map_err(InformerError::Answer)?;
        if status != "0" {
            return Err(InformerError::Refused(message.unwrap_or(status)));
        }
        serde_json::from_str(data.get()).map_err(InformerError::Answer)
    }

    /// The next frame; nothing at the end.
    fn frame(&mut self) -> io::Result<Option<Frame>> {
        loop {
            let frame = self.decoder.frame().map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
            if frame.is_some() {
                return Ok(frame);
            }
            match self.reader.read(self.decoder.space(READ_BYTES)) {
                Ok(0) => return Ok(None),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    // The answer may still come, and would be taken for that to the next question.
                    self.socket.shutdown(std::net::Shutdown::Both);
                    return Err(io::Error::new(ErrorKind::TimedOut, "the server does not answer"));
                }
                read => drop(read?),
            }
        }
    }
}

#[derive(Deserialize)]
struct Reply<'a> {
    status: String,
    #[serde(borrow)]
    data: &'a RawValue,
    message: Option<String>,
}

/// Somebody comes or goes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// This user is logged in now.
    Online(String),
    /// This user is no longer logged in.
    Offline(String),
}

/// Who comes and goes: waits for the next, and ends with the server.
#[derive(Debug)]
pub struct Changes(Informer);

#[derive(Deserialize)]
struct Notice {
    event: Option<Event>,
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    user: String,
}

impl Iterator for Changes {
    type Item = Result<Change, InformerError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let frame = match self.0.frame() {
                Ok(frame) => frame?,
                Err(error) => return Some(Err(error.into())),
            };
            let notice: Notice = match serde_json::from_slice(frame.bytes()) {
                Ok(notice) => notice,
                Err(error) => return Some(Err(InformerError::Answer(error))),
            };
            match notice.event {
                Some(Event { kind, user }) if kind == "online" => return Some(Ok(Change::Online(user))),
                Some(Event { kind, user }) if kind == "offline" => return Some(Ok(Change::Offline(user))),
                // Other events may come to be.
                _ => {}
            }
        }
    }
}
