//! What a handler with envelopes gets, read by the handler: the other end of `envelope.rs`.

use super::fields::Reader;
use super::json::{Broken, Kind};
use super::text::Text;
use crate::frame::{Frame, Slice};

/// The server has looked at the depth of `data` already, and allows no more than this.
const DEPTH_MAX: usize = 1000;

/// A message with the word of the server on where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `header.messageId`
    pub message_id: Text,
    /// `header.from`
    pub from: Origin,
    /// `header.hops`
    pub hops: u64,
    /// `payload.type`
    pub kind: Text,
    /// `payload.data`, byte for byte.
    pub data: Slice,
    /// `payload.id`
    pub id: Option<Text>,
}

/// `header.from`, with those of its fields that are there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// `client`, `server` or `handler`.
    pub scope: Option<Text>,
    /// The user who speaks.
    pub user: Option<Text>,
    /// The type whose handler speaks.
    pub kind: Option<Text>,
    /// The server on which they do.
    pub server: Option<Text>,
    /// Whether our server answers for it.
    pub verified: bool,
    /// The number of the user's connection.
    pub session: Option<u64>,
}

/// Reads a frame; nothing if it is none that asks: without a `header.messageId` it is a report.
pub fn parse(frame: &Frame) -> Result<Option<Request>, String> {
    let mut reader = Reader::of_frame(frame, "the frame");
    let mut found = Found::default();
    let read = found.frame(&mut reader);
    if let Some((_, message)) = reader.verdict(read) {
        return Err(message);
    }
    let missing = |path: &str| format!("{path} is missing");
    let Some(message_id) = found.message_id else {
        return if found.message_type { Ok(None) } else { Err(missing("header.messageId")) };
    };
    Ok(Some(Request {
        message_id,
        from: found.from.ok_or_else(|| missing("header.from"))?,
        hops: found.hops,
        kind: found.kind.ok_or_else(|| missing("payload.type"))?,
        data: found.data.ok_or_else(|| missing("payload.data"))?,
        id: found.id,
    }))
}

#[derive(Default)]
struct Found {
    message_id: Option<Text>,
    /// Whether there is a `header.messageType`.
    message_type: bool,
    from: Option<Origin>,
    hops: u64,
    kind: Option<Text>,
    data: Option<Slice>,
    id: Option<Text>,
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
        let Some(mut header) = reader.object("header", &["messageId", "from", "hops", "messageType"])? else { return Ok(()) };
        while let Some(key) = reader.member(&mut header)? {
            match key {
                "messageId" => self.message_id = reader.text("header.messageId")?,
                "from" => self.from = origin(reader)?,
                "hops" => self.hops = number(reader, "header.hops")?.unwrap_or_default(),
                _ => {
                    reader.value()?;
                    self.message_type = true;
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
                    let data = reader.data("payload.data", DEPTH_MAX)?;
                    self.data = Some(reader.slice(data));
                }
                _ => self.id = reader.text("payload.id")?,
            }
        }
        Ok(())
    }
}

fn origin(reader: &mut Reader<'_>) -> Result<Option<Origin>, Broken> {
    let known = &["scope", "user", "server", "verified", "session", "type"];
    let Some(mut from) = reader.object("header.from", known)? else { return Ok(None) };
    let mut origin = Origin::default();
    while let Some(key) = reader.member(&mut from)? {
        match key {
            "scope" => origin.scope = reader.text("header.from.scope")?,
            "user" => origin.user = reader.text("header.from.user")?,
            "server" => origin.server = reader.text("header.from.server")?,
            "type" => origin.kind = reader.text("header.from.type")?,
            "session" => origin.session = number(reader, "header.from.session")?,
            // Whatever is not plainly true is not verified.
            _ => origin.verified = reader.value()?.kind == Kind::True,
        }
    }
    Ok(Some(origin))
}

fn number(reader: &mut Reader<'_>, path: &str) -> Result<Option<u64>, Broken> {
    let value = reader.value()?;
    let number = std::str::from_utf8(reader.raw(value)).ok().and_then(|text| text.parse().ok());
    if number.is_none() {
        reader.problem(|| format!("{path} is not a whole number"));
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::super::envelope::{Enveloped, Speaker, envelope};
    use super::super::report::MessageId;
    use super::*;

    fn read(text: &str) -> Result<Option<Request>, String> {
        parse(&Frame::from(text.as_bytes()))
    }

    #[test]
    fn what_the_server_writes_is_read() {
        let from = Speaker::Client { user: "alice", server: "a.example", session: 17 };
        let id = Slice::from(&br#""c\u00e4""#[..]);
        let mut body = Vec::new();
        let message_id = MessageId::Own { prefix: "a.example/5f-", number: 42 };
        envelope(&mut body, &Enveloped { message_id, from, hops: 0, kind: "a\"b", id: Some(&id) }, br#"{"a" :1e999}"#);
        let request = parse(&Frame::from(&body[..])).expect("a good frame").expect("a message");
        assert_eq!(request.message_id.as_str(), "a.example/5f-42");
        assert_eq!((request.kind.as_str(), request.data.bytes(), request.hops), ("a\"b", &br#"{"a" :1e999}"#[..], 0));
        assert_eq!(request.id.as_ref().map(Text::as_str), Some("cä"));
        let origin = request.from;
        assert_eq!(origin.scope.as_ref().map(Text::as_str), Some("client"));
        assert_eq!(origin.user.as_ref().map(Text::as_str), Some("alice"));
        assert_eq!(origin.server.as_ref().map(Text::as_str), Some("a.example"));
        assert_eq!((origin.verified, origin.session, origin.kind), (true, Some(17), None));
    }

    #[test]
    fn a_report_is_no_message_and_neither_is_data_alone() {
        assert_eq!(read(r#"{"header":{"status":"good","messageType":"statusReport"},"payload":{"data":{},"type":"x"}}"#), Ok(None));
        for (text, words) in [
            (r#"{"header":{},"payload":{"type":"x","data":1}}"#, "header.messageId is missing"),
            ("[1]", "the frame is not an object"),
            ("{", "the frame is not JSON: expected"),
            (r#"{"header":{"messageId":"m"},"payload":{"type":"x","data":1}}"#, "header.from is missing"),
            (r#"{"header":{"messageId":"m","from":{}},"payload":{"type":"x"}}"#, "payload.data is missing"),
            (r#"{"header":{"messageId":"m","from":{"session":-1}},"payload":{"type":"x","data":1}}"#, "session is not a whole number"),
            (r#"{"header":{"messageId":"m","messageId":"n","from":{}},"payload":{"type":"x","data":1}}"#, "stands twice"),
        ] {
            let wrong = read(text).expect_err(text);
            assert!(wrong.contains(words), "{text}: {wrong}");
        }
    }
}
