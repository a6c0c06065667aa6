//! What a handler answers. The envelope in which it may get its messages is in `envelope.rs`, and handed on here.

use super::fields::{Reader, shown, unknown_command};
use super::json::{Broken, Kind, Value};
use super::text::Text;
use crate::frame::{Frame, Slice};
use smallvec::{SmallVec, smallvec};

pub use super::envelope::{Enveloped, Speaker, envelope};

const COMMANDS: &[&str] = &["sendClients", "sendServers", "sendHandler", "reply", "none"];

/// An answer that keeps the rules; nothing of it is carried out yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// `header.inReplyTo`: which message it is about, from a handler that gets envelopes.
    pub in_reply_to: Option<Text>,
    /// `header.id`, a JSON string with its quotes, byte for byte: the handler wants to know what became of the answer.
    pub id: Option<Slice>,
    /// What the handler says.
    pub outcome: Outcome,
}

/// What a handler wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The status was none that means success.
    Refused {
        /// `header.status`: any JSON, byte for byte.
        status: Slice,
        /// The data that came with it.
        data: Option<Slice>,
    },
    /// All of these are to be done; with none there is nothing to do.
    Commands(Commands),
}

/// What is to be done for a user who is away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Offline {
    /// Nothing: the delivery is for those who are here.
    #[default]
    Drop,
    /// It waits in the user's mailbox.
    Queue,
}

impl Offline {
    /// The word in answers and in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Offline::Drop => "drop",
            Offline::Queue => "queue",
        }
    }

    /// What such a word means.
    pub fn named(word: &str) -> Option<Offline> {
        [Offline::Drop, Offline::Queue].into_iter().find(|offline| offline.as_str() == word)
    }
}

/// Mostly one.
pub type Commands = SmallVec<[Command; 1]>;

/// Mostly one.
pub type Names = SmallVec<[Text; 1]>;

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// What and to whom.
    pub order: Order,
    /// The data to send, byte for byte. Always there, except for [`Order::None`].
    pub data: Option<Slice>,
    /// What the answer says about users who are away; `None` leaves it to the type's configuration.
    pub offline: Option<Offline>,
}

/// A command's word, with its `commandData`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// To all sessions of these users.
    SendClients(Names),
    /// To these servers.
    SendServers(Names),
    /// To the handler of this type.
    SendHandler(Text),
    /// To the connection that asked.
    Reply,
    /// Nothing.
    None,
}

/// An answer that breaks the rules: nothing of it may be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongAnswer {
    /// As in [`Answer`], if it could be read.
    pub in_reply_to: Option<Text>,
    /// As in [`Answer`], if it could be read.
    pub id: Option<Slice>,
    /// What is wrong, for the log and for whoever sent the message.
    pub message: String,
}

/// Reads an answer. `data` may be nested `depth_max` deep; a command may name `recipients_max` users or servers.
pub fn parse(frame: &Frame, depth_max: usize, recipients_max: usize) -> Result<Answer, WrongAnswer> {
    let mut reader = Reader::of_frame(frame, "the answer");
    let mut found = Found { data_depth_max: depth_max, recipients_max, ..Found::default() };
    let read = found.frame(&mut reader);
    let outcome = match reader.verdict(read) {
        None => found.outcome(&reader),
        Some((_, message)) => Err(message),
    };
    let (in_reply_to, id) = (found.in_reply_to, found.id);
    match outcome {
        Ok(outcome) => Ok(Answer { in_reply_to, id, outcome }),
        Err(message) => Err(WrongAnswer { in_reply_to, id, message }),
    }
}

/// What was read so far. What the fields mean depends on each other, so it is judged when all have been passed.
#[derive(Default)]
struct Found {
    data_depth_max: usize,
    recipients_max: usize,
    in_reply_to: Option<Text>,
    id: Option<Slice>,
    status: Option<Value>,
    command: Option<Value>,
    command_data: Option<Value>,
    commands: Option<Value>,
    offline: Option<Value>,
    payload: Payload,
    /// Where the first implementation's handlers have their data.
    outer_data: Option<Value>,
}

/// The inside of a `payload`: nothing without one, otherwise its `data`.
type Payload = Option<Option<Value>>;

/// What fields are called in messages: they stand in different places in the three forms of a command.
struct Words {
    command: &'static str,
    command_data: &'static str,
    data: &'static str,
}

const SINGLE: Words = Words { command: "header.command", command_data: "header.commandData", data: "payload.data" };
const ENTRY: Words = Words { command: "command", command_data: "commandData", data: "payload.data" };
const OBJECT: Words = Words { command: "header.command.type", command_data: "header.command.data", data: "data" };

impl Found {
    fn frame(&mut self, reader: &mut Reader<'_>) -> Result<(), Broken> {
        if let Some(mut root) = reader.object("", &["header", "payload", "data"])? {
            while let Some(key) = reader.member(&mut root)? {
                match key {
                    "header" => self.header(reader)?,
                    "payload" => self.payload = payload(reader, "payload", "payload.data", self.data_depth_max)?,
                    _ => self.outer_data = Some(reader.data("data", self.data_depth_max)?),
                }
            }
        }
        reader.end()
    }

    fn header(&mut self, reader: &mut Reader<'_>) -> Result<(), Broken> {
        let known = &["status", "command", "commandData", "commands", "inReplyTo", "id", "offline"];
        let Some(mut header) = reader.object("header", known)? else {
            return Ok(());
        };
        while let Some(key) = reader.member(&mut header)? {
            match key {
                "status" => self.status = Some(reader.value()?),
                "command" => self.command = Some(reader.value()?),
                "commandData" => self.command_data = Some(reader.value()?),
                // Each has `data` in it, with a limit of its own that is checked when they are read.
                "commands" => self.commands = Some(reader.later()?),
                "inReplyTo" => self.in_reply_to = reader.text("header.inReplyTo")?,
                "id" => self.id = reader.id("header.id")?,
                _ => self.offline = Some(reader.value()?),
            }
        }
        Ok(())
    }

    fn outcome(&self, reader: &Reader<'_>) -> Result<Outcome, String> {
        let Some(status) = self.status else {
            return Err(missing("header.status"));
        };
        let data = self.payload.flatten();
        if !is_success(reader, status) {
            let data = data.or(self.outer_data).map(|data| reader.slice(data));
            return Ok(Outcome::Refused { status: reader.slice(status), data });
        }
        let offline = offline(reader, self.offline, "header.offline")?;
        let command = match (self.command, self.commands) {
            (Some(_), Some(_)) => {
                return Err("header.command and header.commands stand side by side".to_string());
            }
            (None, Some(commands)) => return self.several(reader, commands, offline),
            (None, None) => return Err(missing("header.command")),
            (Some(command), None) => command,
        };
        let command = if command.kind == Kind::Object {
            let (kind, command_data) = command_object(reader, command)?;
            self.command(reader, &OBJECT, Some(kind), command_data, self.outer_data.or(data), offline)?
        } else {
            self.command(reader, &SINGLE, Some(command), self.command_data, data, offline)?
        };
        Ok(Outcome::Commands(smallvec![command]))
    }

    /// `header.commands`
    fn several(&self, reader: &Reader<'_>, commands: Value, for_all: Option<Offline>) -> Result<Outcome, String> {
        // The frame's object and its header are around it.
        let mut inner = reader.again(commands, 2);
        let mut entries = Vec::new();
        let read = self.entries(&mut inner, &mut entries);
        if let Some((_, message)) = inner.verdict(read) {
            return Err(message);
        }
        let commands = entries.into_iter().enumerate().map(|(index, entry)| {
            let data = entry.payload.unwrap_or(self.payload.flatten());
            let command = offline(reader, entry.offline, "offline")
                .and_then(|own| self.command(reader, &ENTRY, entry.command, entry.command_data, data, own.or(for_all)));
            command.map_err(|message| format!("header.commands[{index}]: {message}"))
        });
        commands.collect::<Result<Commands, _>>().map(Outcome::Commands)
    }

    fn entries(&self, reader: &mut Reader<'_>, entries: &mut Vec<Entry>) -> Result<(), Broken> {
        if !reader.array("header.commands")? {
            return Ok(());
        }
        while reader.element(entries.is_empty())? {
            let path = format!("header.commands[{}]", entries.len());
            let mut entry = Entry::default();
            if let Some(mut object) = reader.object(&path, &["command", "commandData", "payload", "offline"])? {
                while let Some(key) = reader.member(&mut object)? {
                    match key {
                        "command" => entry.command = Some(reader.value()?),
                        "commandData" => entry.command_data = Some(reader.value()?),
                        "payload" => {
                            let (path, data) = (format!("{path}.payload"), format!("{path}.payload.data"));
                            entry.payload = payload(reader, &path, &data, self.data_depth_max)?;
                        }
                        _ => entry.offline = Some(reader.value()?),
                    }
                }
            }
            entries.push(entry);
        }
        Ok(())
    }

    fn command(
        &self,
        reader: &Reader<'_>,
        words: &Words,
        command: Option<Value>,
        command_data: Option<Value>,
        data: Option<Value>,
        offline: Option<Offline>,
    ) -> Result<Command, String> {
        let Some(command) = command else {
            return Err(missing(words.command));
        };
        let order = self.order(reader, words, &reader.text_of(command, words.command)?, command_data)?;
        if order == Order::None {
            return Ok(Command { order, data: None, offline });
        }
        let Some(data) = data else {
            return Err(missing(words.data));
        };
        Ok(Command { order, data: Some(reader.slice(data)), offline })
    }

    fn order(&self, reader: &Reader<'_>, words: &Words, command: &Text, command_data: Option<Value>) -> Result<Order, String> {
        let argument = || command_data.ok_or_else(|| missing(words.command_data));
        match command.bytes() {
            b"sendClients" => Ok(Order::SendClients(self.recipients(reader, words, argument()?)?)),
            b"sendServers" => Ok(Order::SendServers(self.recipients(reader, words, argument()?)?)),
            b"sendHandler" => Ok(Order::SendHandler(reader.text_of(argument()?, words.command_data)?)),
            b"reply" => Ok(Order::Reply),
            b"none" => Ok(Order::None),
            _ => Err(unknown_command(command.as_str(), COMMANDS)),
        }
    }

    fn recipients(&self, reader: &Reader<'_>, words: &Words, value: Value) -> Result<Names, String> {
        let max = self.recipients_max;
        let (texts, count) = reader.texts_of(value, words.command_data, max)?;
        if count > max {
            return Err(format!("{} has {count} names, limits.recipients allows {max}", words.command_data));
        }
        Ok(texts)
    }
}

/// One of `header.commands`.
#[derive(Default)]
struct Entry {
    command: Option<Value>,
    command_data: Option<Value>,
    payload: Payload,
    offline: Option<Value>,
}

/// `null` is no payload.
fn payload(reader: &mut Reader<'_>, path: &str, data_path: &str, depth_max: usize) -> Result<Payload, Broken> {
    if reader.null()? {
        return Ok(None);
    }
    let Some(mut object) = reader.object(path, &["data"])? else {
        return Ok(None);
    };
    let mut data = None;
    while reader.member(&mut object)?.is_some() {
        data = Some(reader.data(data_path, depth_max)?);
    }
    Ok(Some(data))
}

/// The first implementation's form of `header.command`: its type, and its data.
fn command_object(reader: &Reader<'_>, command: Value) -> Result<(Value, Option<Value>), String> {
    // The frame's object and its header are around it.
    let mut reader = reader.again(command, 2);
    let (mut kind, mut data) = (None, None);
    let read = reader.object("header.command", &["type", "data"]).and_then(|object| {
        let Some(mut object) = object else {
            return Ok(());
        };
        while let Some(key) = reader.member(&mut object)? {
            let value = Some(reader.value()?);
            match key {
                "type" => kind = value,
                _ => data = value,
            }
        }
        Ok(())
    });
    match (reader.verdict(read), kind) {
        (Some((_, message)), _) => Err(message),
        (None, None) => Err(missing("header.command.type")),
        (None, Some(kind)) => Ok((kind, data)),
    }
}

fn is_success(reader: &Reader<'_>, status: Value) -> bool {
    match status.kind {
        Kind::Number => reader.raw(status) == b"0",
        Kind::String => reader.text_of(status, "header.status").is_ok_and(|text| [&b"0"[..], b"good", b"ok"].contains(&text.bytes())),
        _ => false,
    }
}

fn missing(path: &str) -> String {
    format!("{path} is missing")
}

/// Any other word fails the answer: to guess would break a promise that the handler counts on.
fn offline(reader: &Reader<'_>, value: Option<Value>, path: &str) -> Result<Option<Offline>, String> {
    let Some(value) = value else {
        return Ok(None);
    };
    let word = reader.text_of(value, path)?;
    match Offline::named(word.as_str()) {
        Some(offline) => Ok(Some(offline)),
        None => Err(format!("{path} is `{}`, neither `drop` nor `queue`", shown(word.as_str()))),
    }
}

#[cfg(test)]
mod tests;
