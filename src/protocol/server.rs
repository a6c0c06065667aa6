//! What servers say to each other.
//!
//! A message of another server has a header of its own each time: which message it is, how often it was passed on, and for
//! whom the other server speaks. What is answered are the reports that clients get too (`report.rs`), which [`report`] reads.

use super::client::{KIND_BYTES_MAX, Payload, Refusal};
use super::fields::Reader;
use super::json::{Broken, Kind};
use super::reason::Reason;
use super::report::{put_number, put_string};
use super::text::Text;
use crate::frame::{Frame, Packet, Slice};
use crate::name::BUILTIN;

/// How often a message may be passed on from one server to another.
pub const HOPS_MAX: u64 = 8;

/// How long a `messageId` may be: the longest name of a server, and what follows it.
pub const MESSAGE_ID_BYTES_MAX: usize = 253 + 1 + 32 + 1 + 20;

/// A message from another server that keeps all the rules that can be checked without knowing the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where it comes from.
    pub header: Header,
    /// What it is about.
    pub payload: Payload,
}

/// The header of a message from another server, with those of its fields that are there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Header {
    /// `header.server`: the name of the other server, as it says.
    pub server: Option<Text>,
    /// `header.messageId`.
    pub message_id: Option<Text>,
    /// `header.hops`; 1 if it is not there.
    pub hops: u64,
    /// `header.from`: the user of the other server, as it says.
    pub from: Option<Text>,
    /// `header.authentication.secret`: what shows that the other server was invited.
    pub secret: Option<Text>,
}

/// Reads a frame whose `header.scope` must be `server`; `data` may be nested `depth_max` deep.
pub fn parse(frame: &Frame, depth_max: usize) -> Result<Message, Refusal> {
    let mut reader = Reader::of_frame(frame, "the frame");
    let mut found = Found { data_depth_max: depth_max, hops: 1, ..Found::default() };
    let read = found.frame(&mut reader);
    let message = match reader.verdict(read) {
        None => found.message().map_err(|message| (Reason::Malformed, message)),
        Some(fault) => Err(fault),
    };
    message.map_err(|(reason, message)| {
        let kind = found.kind.filter(|kind| kind.as_str().len() <= KIND_BYTES_MAX);
        Refusal { reason, message, kind, id: found.id }
    })
}

#[derive(Default)]
struct Found {
    data_depth_max: usize,
    scope: Option<Text>,
    server: Option<Text>,
    message_id: Option<Text>,
    hops: u64,
    from: Option<Text>,
    secret: Option<Text>,
    kind: Option<Text>,
    data: Option<Slice>,
    id: Option<Slice>,
}

impl Found {
    fn frame(&mut self, reader: &mut Reader<'_>) -> Result<(), Broken> {
        if let Some(mut root) = reader.object("", &["header", "payload"])? {
            while let Some(key) = reader.member(&mut root)? {
                match key {
                    "header" => self.header(reader)?,
                    _ => self.payload(reader)?,
                }
            }
        }
        reader.end()
    }

    fn header(&mut self, reader: &mut Reader<'_>) -> Result<(), Broken> {
        let known = &["scope", "server", "messageId", "hops", "from", "authentication"];
        let Some(mut header) = reader.object("header", known)? else { return Ok(()) };
        while let Some(key) = reader.member(&mut header)? {
            match key {
                "scope" => self.scope = reader.text("header.scope")?,
                "server" => self.server = reader.text("header.server")?,
                "messageId" => self.message_id = reader.text("header.messageId")?,
                "hops" => self.hops = reader.whole_number("header.hops")?.unwrap_or_default(),
                "from" => self.from = reader.text("header.from")?,
                _ => self.authentication(reader)?,
            }
        }
        Ok(())
    }

    fn authentication(&mut self, reader: &mut Reader<'_>) -> Result<(), Broken> {
        let path = "header.authentication";
        let Some(mut object) = reader.object(path, &["method", "secret"])? else { return Ok(()) };
        while let Some(key) = reader.member(&mut object)? {
            match key {
                "secret" => self.secret = reader.text("header.authentication.secret")?,
                _ => {
                    let method = reader.text("header.authentication.method")?;
                    if method.is_some_and(|method| method.bytes() != b"invite") {
                        reader.problem(|| "header.authentication.method is not \"invite\"".to_owned());
                    }
                }
            }
        }
        Ok(())
    }

    fn payload(&mut self, reader: &mut Reader<'_>) -> Result<(), Broken> {
        let Some(mut payload) = reader.object("payload", &["type", "data", "id"])? else { return Ok(()) };
        while let Some(key) = reader.member(&mut payload)? {
            match key {
                "type" => self.kind = reader.text("payload.type")?,
                "data" => {
                    let data = reader.data("payload.data", self.data_depth_max)?;
                    self.data = Some(reader.slice(data));
                }
                // One that is as long as a `messageId` is one, which is longer than a client's may be.
                _ => {
                    let value = reader.value()?;
                    match reader.text_of(value, "payload.id") {
                        Ok(text) if text.bytes().len() <= MESSAGE_ID_BYTES_MAX => self.id = Some(reader.slice(value)),
                        Ok(_) => reader.problem(|| format!("payload.id is longer than {MESSAGE_ID_BYTES_MAX} bytes")),
                        Err(message) => reader.problem(|| message),
                    }
                }
            }
        }
        Ok(())
    }

    /// The message, when nothing that was read is wrong. On an error, what the report needs is still there.
    fn message(&mut self) -> Result<Message, String> {
        if self.scope.as_ref().is_none_or(|scope| scope.bytes() != b"server") {
            return Err("header.scope is not \"server\" on a connection of a server".to_owned());
        }
        if self.message_id.as_ref().is_some_and(|id| id.bytes().len() > MESSAGE_ID_BYTES_MAX) {
            return Err(format!("header.messageId is longer than {MESSAGE_ID_BYTES_MAX} bytes"));
        }
        let missing = |path: &str| format!("{path} is missing");
        let kind = self.kind.clone().ok_or_else(|| missing("payload.type"))?;
        let data = self.data.take().ok_or_else(|| missing("payload.data"))?;
        let header = Header {
            server: self.server.take(),
            message_id: self.message_id.take(),
            hops: self.hops,
            from: self.from.take(),
            secret: self.secret.take(),
        };
        Ok(Message { header, payload: Payload { kind, data, id: self.id.take() } })
    }
}

/// A message to another server; `server` is our name, `from` the user whose message led to it. Its `payload.id` is the
/// `message_id` again, so that the report on it can be told from others.
pub fn message(server: &str, message_id: &str, hops: u64, from: Option<&str>, kind: &str, data: &Slice) -> Packet {
    Packet::around(
        |body| {
            put_header(body, server);
            body.extend_from_slice(br#","messageId":"#);
            put_string(body, message_id);
            body.extend_from_slice(br#","hops":"#);
            put_number(body, hops);
            if let Some(from) = from {
                body.extend_from_slice(br#","from":"#);
                put_string(body, from);
            }
            body.extend_from_slice(br#"},"payload":{"type":"#);
            put_string(body, kind);
            body.extend_from_slice(br#","id":"#);
            put_string(body, message_id);
            body.extend_from_slice(br#","data":"#);
        },
        data.clone(),
        |body| body.extend_from_slice(b"}}"),
    )
}

/// A built-in command to another server, with this JSON text as its `args`; `secret` is that of an invitation.
pub fn command(server: &str, id: &str, command: &str, args: &str, secret: Option<&str>) -> Packet {
    Packet::write(|body| {
        put_header(body, server);
        if let Some(secret) = secret {
            body.extend_from_slice(br#","authentication":{"method":"invite","secret":"#);
            put_string(body, secret);
            body.push(b'}');
        }
        body.extend_from_slice(br#"},"payload":{"type":"#);
        put_string(body, BUILTIN);
        body.extend_from_slice(br#","id":"#);
        put_string(body, id);
        body.extend_from_slice(br#","data":{"command":{"type":"#);
        put_string(body, command);
        body.extend_from_slice(br#","args":"#);
        body.extend_from_slice(args.as_bytes());
        body.extend_from_slice(b"}}}}");
    })
}

/// The beginning of every header, without its closing brace.
fn put_header(body: &mut Vec<u8>, server: &str) {
    body.extend_from_slice(br#"{"header":{"scope":"server","server":"#);
    put_string(body, server);
}

/// A report of another server, with those of its fields that are there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Whether `header.status` is `good`.
    pub good: bool,
    /// `header.reason`.
    pub reason: Option<Text>,
    /// `header.temporary`.
    pub temporary: bool,
    /// `payload.id`.
    pub id: Option<Text>,
    /// `payload.data`, byte for byte.
    pub data: Option<Slice>,
    /// `payload.data.message`.
    pub message: Option<Text>,
}

/// Reads a report; `data` may be nested `depth_max` deep. What is not told by a bad one may be temporary or not: without
/// `temporary` it is not.
pub fn report(frame: &Frame, depth_max: usize) -> Result<Report, String> {
    let mut reader = Reader::of_frame(frame, "the report");
    let mut report = Report::default();
    let read = read_report(&mut reader, &mut report, depth_max);
    match reader.verdict(read) {
        None => Ok(report),
        Some((_, message)) => Err(message),
    }
}

fn read_report(reader: &mut Reader<'_>, report: &mut Report, depth_max: usize) -> Result<(), Broken> {
    if let Some(mut root) = reader.object("", &["header", "payload"])? {
        while let Some(key) = reader.member(&mut root)? {
            match key {
                "header" => read_report_header(reader, report)?,
                _ => read_report_payload(reader, report, depth_max)?,
            }
        }
    }
    reader.end()
}

fn read_report_header(reader: &mut Reader<'_>, report: &mut Report) -> Result<(), Broken> {
    let Some(mut header) = reader.object("header", &["status", "reason", "temporary"])? else { return Ok(()) };
    while let Some(key) = reader.member(&mut header)? {
        match key {
            "status" => report.good = reader.text("header.status")?.is_some_and(|status| status.bytes() == b"good"),
            "reason" => report.reason = reader.text("header.reason")?,
            _ => report.temporary = reader.truth("header.temporary")?.unwrap_or(false),
        }
    }
    Ok(())
}

fn read_report_payload(reader: &mut Reader<'_>, report: &mut Report, depth_max: usize) -> Result<(), Broken> {
    let Some(mut payload) = reader.object("payload", &["id", "data"])? else { return Ok(()) };
    while let Some(key) = reader.member(&mut payload)? {
        match key {
            "id" => report.id = reader.text("payload.id")?,
            _ => {
                let data = reader.data("payload.data", depth_max)?;
                report.data = Some(reader.slice(data));
                if data.kind == Kind::Object {
                    let mut inner = reader.again(data, 0);
                    if let Some(mut object) = inner.object("payload.data", &["message"])? {
                        while inner.member(&mut object)?.is_some() {
                            let value = inner.later()?;
                            report.message = inner.text_of(value, "payload.data.message").ok();
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
