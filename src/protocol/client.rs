//! A message from a client.

use super::fields::Reader;
use super::json::Broken;
use super::reason::Reason;
use super::text::Text;
use crate::frame::{Frame, Slice};
use std::fmt;

pub use super::fields::ID_BYTES_MAX;

/// A longer type cannot be a configured one, and is not repeated in reports.
pub const KIND_BYTES_MAX: usize = 128;

/// The opt-ins that there are.
const OPTIONS: &[&str] = &["ack", "after", "dedupe"];

/// Who the other side says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// A user's program; also when nothing was said.
    Client,
    /// Another server.
    Server,
}

/// What a user logs in with.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The name, as it came.
    pub username: Text,
    /// The password, as it came.
    pub password: Text,
}

/// Neither is anybody's business.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

/// What a client opts in to when it logs in. `None` is what was not mentioned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// It acknowledges deliveries.
    pub ack: Option<bool>,
    /// An earlier session had taken care of everything up to this number.
    pub after: Option<u64>,
    /// A message that comes again is to have the same report, and to be handled once.
    pub dedupe: Option<bool>,
}

/// The header of a message, which counts until the login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// `header.scope`.
    pub scope: Scope,
    /// `header.authentication`.
    pub authentication: Option<Credentials>,
    /// `header.options`.
    pub options: Options,
}

/// What the message is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// `payload.type`.
    pub kind: Text,
    /// `payload.data`, byte for byte.
    pub data: Slice,
    /// `payload.id`, a JSON string with its quotes, byte for byte.
    pub id: Option<Slice>,
}

/// A message that keeps all the rules that can be checked without knowing the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The header, if it was to be read.
    pub header: Option<Header>,
    /// Nothing when the message only logs in.
    pub payload: Option<Payload>,
}

/// Why a frame is no message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// `Malformed` or `TooDeep`.
    pub reason: Reason,
    /// Words for people.
    pub message: String,
    /// `payload.type`, if it could be read and could be a type.
    pub kind: Option<Text>,
    /// `payload.id`, as in [`Payload::id`], if it could be read.
    pub id: Option<Slice>,
}

/// Reads a frame. The header is passed over unless `read_header`; `data` may be nested `depth_max` deep.
pub fn parse(frame: &Frame, read_header: bool, depth_max: usize) -> Result<Message, Refusal> {
    let mut reader = Reader::of_frame(frame, "the frame");
    let mut found = Found { data_depth_max: depth_max, ..Found::default() };
    let read = found.frame(&mut reader, read_header);
    let message = match reader.verdict(read) {
        None => found.message(read_header).map_err(|message| (Reason::Malformed, message)),
        Some(fault) => Err(fault),
    };
    message.map_err(|(reason, message)| {
        let kind = found.kind.filter(|kind| kind.as_str().len() <= KIND_BYTES_MAX);
        Refusal { reason, message, kind, id: found.id }
    })
}

/// Whether the header of a frame says that it is another server's, which may say other things than a client.
pub fn is_of_server(frame: &Frame) -> bool {
    let mut reader = Reader::of_frame(frame, "the frame");
    let mut found = Found::default();
    let read = found.scope_alone(&mut reader);
    // Data may be nested more deeply than what is only passed over.
    !matches!(reader.verdict(read), Some((Reason::Malformed, _))) && found.server
}

/// What was read so far.
#[derive(Default)]
struct Found {
    data_depth_max: usize,
    server: bool,
    authentication: Option<Credentials>,
    options: Options,
    payload: PayloadForm,
    kind: Option<Text>,
    data: Option<Slice>,
    id: Option<Slice>,
}

#[derive(Default)]
enum PayloadForm {
    #[default]
    Missing,
    Null,
    Empty,
    Full,
}

impl Found {
    fn frame(&mut self, reader: &mut Reader<'_>, read_header: bool) -> Result<(), Broken> {
        if let Some(mut root) = reader.object("", &["header", "payload"])? {
            while let Some(key) = reader.member(&mut root)? {
                match key {
                    "payload" => self.payload(reader)?,
                    _ if read_header => self.header(reader)?,
                    _ => {
                        reader.value()?;
                    }
                }
            }
        }
        reader.end()
    }

    fn header(&mut self, reader: &mut Reader<'_>) -> Result<(), Broken> {
        let known = &["scope", "authentication", "options"];
        let Some(mut header) = reader.object("header", known)? else {
            return Ok(());
        };
        while let Some(key) = reader.member(&mut header)? {
            match key {
                "scope" => self.scope(reader)?,
                "authentication" => self.authentication = credentials(reader, "header.authentication")?,
                _ => self.options = options(reader, "header.options")?,
            }
        }
        Ok(())
    }

    fn scope_alone(&mut self, reader: &mut Reader<'_>) -> Result<(), Broken> {
        let Some(mut root) = reader.object("", &["header"])? else { return Ok(()) };
        while reader.member(&mut root)?.is_some() {
            let Some(mut header) = reader.object("header", &["scope"])? else { continue };
            while reader.member(&mut header)?.is_some() {
                self.scope(reader)?;
            }
        }
        reader.end()
    }

    fn scope(&mut self, reader: &mut Reader<'_>) -> Result<(), Broken> {
        let Some(scope) = reader.text("header.scope")? else {
            return Ok(());
        };
        match scope.as_str() {
            "client" => {}
            "server" => self.server = true,
            _ => reader.problem(|| "header.scope is neither \"client\" nor \"server\"".to_string()),
        }
        Ok(())
    }

    fn payload(&mut self, reader: &mut Reader<'_>) -> Result<(), Broken> {
        if reader.null()? {
            self.payload = PayloadForm::Null;
            return Ok(());
        }
        let Some(mut payload) = reader.object("payload", &["type", "data", "id"])? else {
            return Ok(());
        };
        while let Some(key) = reader.member(&mut payload)? {
            match key {
                "type" => self.kind = reader.text("payload.type")?,
                "data" => {
                    let data = reader.data("payload.data", self.data_depth_max)?;
                    self.data = Some(reader.slice(data));
                }
                _ => self.id = reader.id("payload.id")?,
            }
        }
        self.payload = if payload.is_empty() { PayloadForm::Empty } else { PayloadForm::Full };
        Ok(())
    }

    /// The message, when nothing that was read is wrong. On an error, everything found is still there.
    fn message(&mut self, read_header: bool) -> Result<Message, String> {
        let payload = match self.payload {
            PayloadForm::Full => Some(self.full_payload()?),
            // Programs that only want to log in may leave out what they have no use for.
            _ if self.authentication.is_some() => None,
            PayloadForm::Missing => return Err("payload is missing".to_string()),
            PayloadForm::Null => return Err("payload is not an object".to_string()),
            PayloadForm::Empty => return Err("payload.type is missing".to_string()),
        };
        let scope = if self.server { Scope::Server } else { Scope::Client };
        let header = read_header.then(|| Header { scope, authentication: self.authentication.take(), options: self.options });
        Ok(Message { header, payload })
    }

    fn full_payload(&mut self) -> Result<Payload, String> {
        if self.data.is_none() && self.kind.is_some() {
            return Err("payload.data is missing".to_string());
        }
        match (self.kind.take(), self.data.take()) {
            (Some(kind), Some(data)) => Ok(Payload { kind, data, id: self.id.take() }),
            _ => Err("payload.type is missing".to_string()),
        }
    }
}

fn credentials(reader: &mut Reader<'_>, path: &str) -> Result<Option<Credentials>, Broken> {
    let Some(mut object) = reader.object(path, &["username", "password"])? else {
        return Ok(None);
    };
    let (mut username, mut password) = (None, None);
    while let Some(key) = reader.member(&mut object)? {
        let text = reader.text(&format!("{path}.{key}"))?;
        match key {
            "username" => username = text,
            _ => password = text,
        }
    }
    for (text, key) in [(&username, "username"), (&password, "password")] {
        if text.is_none() {
            // Does not replace what is wrong with it when it is there.
            reader.problem(|| format!("{path}.{key} is missing"));
        }
    }
    Ok(username.zip(password).map(|(username, password)| Credentials { username, password }))
}

/// Opt-ins. Others than those that are known are passed over, as unknown keys are everywhere.
pub(super) fn options(reader: &mut Reader<'_>, path: &str) -> Result<Options, Broken> {
    let mut options = Options::default();
    let Some(mut object) = reader.object(path, OPTIONS)? else {
        return Ok(options);
    };
    while let Some(key) = reader.member(&mut object)? {
        if reader.null()? {
            continue;
        }
        let path = format!("{path}.{key}");
        match key {
            "ack" => options.ack = reader.truth(&path)?,
            "after" => options.after = reader.whole_number(&path)?,
            _ => options.dedupe = reader.truth(&path)?,
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests;
