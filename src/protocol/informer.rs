//! What a handler asks the server out of band, and what it is told.

use super::fields::Reader;
use super::json::Broken;
use super::report::put_string;
use super::text::Text;
use crate::frame::{Frame, Packet, Slice};

const TYPE: &str = "command.type";
const DATA: &str = "command.data";

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// `command.type`: what is asked.
    pub kind: Text,
    /// `command.data`, its argument, byte for byte.
    pub data: Option<Slice>,
}

/// Reads a question. Its argument may be nested `depth_max` deep.
pub fn parse(frame: &Frame, depth_max: usize) -> Result<Question, String> {
    let mut reader = Reader::of_frame(frame, "the frame");
    let mut found = Found::default();
    let read = found.frame(&mut reader, depth_max);
    match (reader.verdict(read), found.kind) {
        (Some((_, message)), _) => Err(message),
        (None, Some(kind)) => Ok(Question { kind, data: found.data }),
        (None, None) if found.here => Err(format!("{TYPE} is missing")),
        (None, None) => Err("command is missing".to_string()),
    }
}

#[derive(Default)]
struct Found {
    /// Whether `command` itself was there.
    here: bool,
    kind: Option<Text>,
    data: Option<Slice>,
}

impl Found {
    fn frame(&mut self, reader: &mut Reader<'_>, depth_max: usize) -> Result<(), Broken> {
        if let Some(mut root) = reader.object("", &["command"])? {
            while reader.member(&mut root)?.is_some() {
                self.here = true;
                let Some(mut command) = reader.object("command", &["type", "data"])? else {
                    continue;
                };
                while let Some(key) = reader.member(&mut command)? {
                    match key {
                        "type" => self.kind = reader.text(TYPE)?,
                        _ => {
                            let data = reader.data(DATA, depth_max)?;
                            self.data = Some(reader.slice(data));
                        }
                    }
                }
            }
        }
        reader.end()
    }
}

/// An answer with this JSON text as its data.
pub fn success(data: &[u8]) -> Packet {
    Packet::write(|body| {
        body.extend_from_slice(br#"{"status":"0","data":"#);
        body.extend_from_slice(data);
        body.push(b'}');
    })
}

/// An answer that says why there is none.
pub fn failure(message: &str) -> Packet {
    Packet::write(|body| {
        body.extend_from_slice(br#"{"status":"1","data":null,"message":"#);
        put_string(body, message);
        body.push(b'}');
    })
}

/// Something that happened to a user, on a connection that watches.
pub fn event(kind: &str, user: &str) -> Packet {
    Packet::write(|body| {
        body.extend_from_slice(br#"{"event":{"type":"#);
        put_string(body, kind);
        body.extend_from_slice(br#","user":"#);
        put_string(body, user);
        body.extend_from_slice(b"}}");
    })
}

/// The string that an argument is.
pub fn text(data: &Slice) -> Result<Text, String> {
    let mut reader = Reader::of_data(data, DATA);
    let value = reader.value();
    match value.and_then(|value| reader.end().map(|()| value)) {
        Ok(value) => reader.text_of(value, DATA),
        Err(broken) => Err(format!("{DATA} is not JSON: {broken}")),
    }
}

/// The strings of the array that an argument is; at most `max`.
pub fn texts(data: &Slice, max: usize) -> Result<Vec<Text>, String> {
    let mut reader = Reader::of_data(data, DATA);
    let value = reader.value();
    let value = value.and_then(|value| reader.end().map(|()| value));
    let value = value.map_err(|broken| format!("{DATA} is not JSON: {broken}"))?;
    let (texts, count) = reader.texts_of(value, DATA, max)?;
    if count > max {
        return Err(format!("{DATA} has {count} names, {max} are allowed"));
    }
    Ok(texts.into_vec())
}

#[cfg(test)]
mod tests;
