//! What a handler answers.

use crate::frame::Slice;
use crate::protocol::handler::Offline;
use crate::protocol::json::{Broken, Scanner};
use crate::protocol::report::put_string;
use serde::Serialize;
use serde::de::DeserializeOwned;
use smallvec::{SmallVec, smallvec};
use std::fmt;

/// A JSON text that is handed on byte for byte: key order, `1.0`, numbers of forty digits and escapes stay as they are.
/// Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Raw(Slice);

impl Raw {
    /// Takes a text as it is, if it is JSON.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn new(text: impl AsRef<[u8]>) -> Result<Raw, Broken> {
        let mut scanner = Scanner::new(text.as_ref());
        scanner.value(usize::MAX)?;
        scanner.end()?;
        Ok(Raw(Slice::from(text.as_ref())))
    }

    pub(super) fn checked(text: Slice) -> Raw {
        Raw(text)
    }

    /// The text.
    pub fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    /// Its value.
    ///
    /// # Errors
    /// It is JSON, but no such value.
    pub fn parse<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_slice(self.bytes())
    }
}

/// It may be private, so only its length is printed.
impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Raw({} bytes)", self.bytes().len())
    }
}

/// What can be the data of an answer: whatever serde can write (texts, numbers, `serde_json::json!(…)`, structs of your
/// own), and a [`Raw`], which is not written again but copied.
pub trait Data {
    /// The JSON text of it.
    ///
    /// # Errors
    /// It cannot be written as JSON: a map whose keys are no texts, for example.
    fn into_raw(self) -> serde_json::Result<Raw>;
}

impl Data for Raw {
    fn into_raw(self) -> serde_json::Result<Raw> {
        Ok(self)
    }
}

impl Data for &Raw {
    fn into_raw(self) -> serde_json::Result<Raw> {
        Ok(self.clone())
    }
}

impl<T: Serialize> Data for T {
    fn into_raw(self) -> serde_json::Result<Raw> {
        serde_json::to_vec(&self).map(|text| Raw(Slice::from(&text[..])))
    }
}

/// What the server is to do about a message.
///
/// ```
/// use bester::handler::Answer;
///
/// let members = ["alice", "bob"];
/// Answer::reply("welcome").and(Answer::send(members, "carol is here"));
/// ```
#[derive(Debug, Clone)]
#[must_use = "it does nothing until it is given to the server"]
pub struct Answer {
    what: What,
    id: Option<String>,
}

#[derive(Debug, Clone)]
enum What {
    Commands(SmallVec<[Command; 1]>),
    Refusal { status: String, data: Option<Raw> },
}

#[derive(Debug, Clone)]
struct Command {
    word: &'static str,
    /// `commandData`, a JSON text.
    argument: Option<Vec<u8>>,
    data: Raw,
    offline: Option<Offline>,
}

/// A status by which a handler says that all is well.
const GOOD: [&str; 3] = ["0", "good", "ok"];

impl Answer {
    /// Deliver this to the connection that asked; if that was another server, send it to the handler there.
    pub fn reply(data: impl Data) -> Answer {
        Answer::command("reply", None, data)
    }

    /// Deliver this to these users, on each of their connections.
    pub fn send(users: impl IntoIterator<Item = impl AsRef<str>>, data: impl Data) -> Answer {
        Answer::command("sendClients", Some(array(users)), data)
    }

    /// Send this to the handlers of the same type on these servers, given by name or by address. It is kept on the disk until
    /// it is there.
    pub fn send_servers(servers: impl IntoIterator<Item = impl AsRef<str>>, data: impl Data) -> Answer {
        Answer::command("sendServers", Some(array(servers)), data)
    }

    /// Hand this to the handler of another type, and do what that one answers.
    pub fn hand_on(kind: &str, data: impl Data) -> Answer {
        let mut argument = Vec::new();
        put_string(&mut argument, kind);
        Answer::command("sendHandler", Some(argument), data)
    }

    /// Do nothing; all is well.
    pub fn none() -> Answer {
        Answer { what: What::Commands(SmallVec::new()), id: None }
    }

    /// Do nothing, and tell whoever asked that it was refused, with a status that is for programs and data that explains it.
    /// `0`, `good` and `ok` would mean that all is well; in their place the status is `1`.
    pub fn refuse(status: &str, data: impl Data) -> Answer {
        let status = if GOOD.contains(&status) { "1" } else { status };
        match data.into_raw() {
            Ok(data) => Answer { what: What::Refusal { status: status.to_owned(), data: Some(data) }, id: None },
            Err(error) => unwritable(&error),
        }
    }

    /// Do that as well. If one of the two is a refusal, that is what remains.
    pub fn and(mut self, other: Answer) -> Answer {
        self.id = self.id.or(other.id);
        self.what = match (self.what, other.what) {
            (What::Commands(mut commands), What::Commands(others)) => {
                commands.extend(others);
                What::Commands(commands)
            }
            (refusal @ What::Refusal { .. }, _) | (_, refusal) => refusal,
        };
        self
    }

    /// Do this for users who are away, whatever the configuration says: drop what is for them, or keep it in their mailboxes.
    /// It is meant for all of the answer so far, but for parts of which it was said before:
    ///
    /// ```
    /// use bester::handler::{Answer, Offline};
    ///
    /// let typing = Answer::send(["alice"], "bob is typing").offline(Offline::Drop);
    /// let said = Answer::send(["alice", "carol"], "bob: good morning");
    /// typing.and(said).offline(Offline::Queue); // nobody is told later who was typing
    /// ```
    pub fn offline(mut self, offline: Offline) -> Answer {
        if let What::Commands(commands) = &mut self.what {
            commands.iter_mut().for_each(|command| command.offline = command.offline.or(Some(offline)));
        }
        self
    }

    /// Ask for a [`Report`](super::Report) with this id on what became of it; for handlers that get envelopes. An id has at
    /// most 128 bytes.
    pub fn with_id(mut self, id: impl Into<String>) -> Answer {
        self.id = Some(id.into());
        self
    }

    fn command(word: &'static str, argument: Option<Vec<u8>>, data: impl Data) -> Answer {
        match data.into_raw() {
            Ok(data) => Answer { what: What::Commands(smallvec![Command { word, argument, data, offline: None }]), id: None },
            Err(error) => unwritable(&error),
        }
    }

    /// Appends its JSON text. `about` is the JSON string of the message's id, where the server gave one.
    pub(super) fn put(&self, about: Option<&str>, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"header":{"status":"#);
        let data = match &self.what {
            What::Refusal { status, data } => {
                put_string(out, status);
                data.as_ref()
            }
            What::Commands(commands) => {
                out.extend_from_slice(br#""0","#);
                match &commands[..] {
                    [] => {
                        out.extend_from_slice(br#""command":"none""#);
                        None
                    }
                    [one] => {
                        one.put(out);
                        Some(&one.data)
                    }
                    several => {
                        put_several(several, out);
                        None
                    }
                }
            }
        };
        if let Some(about) = about {
            out.extend_from_slice(br#","inReplyTo":"#);
            put_string(out, about);
        }
        if let Some(id) = &self.id {
            out.extend_from_slice(br#","id":"#);
            put_string(out, id);
        }
        out.push(b'}');
        if let Some(data) = data {
            out.extend_from_slice(br#","payload":{"data":"#);
            out.extend_from_slice(data.bytes());
            out.push(b'}');
        }
        out.push(b'}');
    }
}

impl Command {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#""command":""#);
        out.extend_from_slice(self.word.as_bytes());
        out.push(b'"');
        if let Some(argument) = &self.argument {
            out.extend_from_slice(br#","commandData":"#);
            out.extend_from_slice(argument);
        }
        if let Some(offline) = self.offline {
            out.extend_from_slice(br#","offline":""#);
            out.extend_from_slice(offline.as_str().as_bytes());
            out.push(b'"');
        }
    }
}

fn put_several(commands: &[Command], out: &mut Vec<u8>) {
    out.extend_from_slice(br#""commands":["#);
    for (place, command) in commands.iter().enumerate() {
        out.extend_from_slice(if place == 0 { b"{" } else { b",{" });
        command.put(out);
        out.extend_from_slice(br#","payload":{"data":"#);
        out.extend_from_slice(command.data.bytes());
        out.extend_from_slice(b"}}");
    }
    out.push(b']');
}

/// A JSON array of texts.
fn array(texts: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<u8> {
    let mut array = vec![b'['];
    for text in texts {
        if array.len() > 1 {
            array.push(b',');
        }
        put_string(&mut array, text.as_ref());
    }
    array.push(b']');
    array
}

/// In place of an answer whose data is not JSON: whoever asked must learn that it failed, and the log why.
fn unwritable(error: &serde_json::Error) -> Answer {
    super::say(format_args!("an answer cannot be written as JSON: {error}"));
    Answer::internal()
}

impl Answer {
    /// The handler itself has failed.
    pub(super) fn internal() -> Answer {
        Answer { what: What::Refusal { status: "internal".to_owned(), data: None }, id: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Frame;
    use crate::protocol::handler;
    use serde_json::json;
    use std::collections::BTreeMap;

    /// The text, which the server must understand.
    fn text(answer: &Answer, about: Option<&str>) -> String {
        let mut text = Vec::new();
        answer.put(about, &mut text);
        let read = handler::parse(&Frame::from(&text[..]), 100, 100).expect("an answer that keeps the rules");
        assert_eq!(read.in_reply_to.as_ref().map(|text| text.as_str()), about);
        String::from_utf8(text).expect("UTF-8")
    }

    #[test]
    fn answers_are_what_the_server_understands() {
        let raw = Raw::new(r#"{"b" : 1.0, "a":1e999}"#).expect("JSON");
        for (answer, expected) in [
            (Answer::reply(&raw), r#"{"header":{"status":"0","command":"reply"},"payload":{"data":{"b" : 1.0, "a":1e999}}}"#),
            (
                Answer::send(["alice", "b\"b"], "hi"),
                r#"{"header":{"status":"0","command":"sendClients","commandData":["alice","b\"b"]},"payload":{"data":"hi"}}"#,
            ),
            (
                Answer::send(Vec::<String>::new(), 1),
                r#"{"header":{"status":"0","command":"sendClients","commandData":[]},"payload":{"data":1}}"#,
            ),
            (
                Answer::send_servers(&["b.example".to_owned()], json!(null)),
                r#"{"header":{"status":"0","command":"sendServers","commandData":["b.example"]},"payload":{"data":null}}"#,
            ),
            (
                Answer::hand_on("audit", 7),
                r#"{"header":{"status":"0","command":"sendHandler","commandData":"audit"},"payload":{"data":7}}"#,
            ),
            (Answer::none(), r#"{"header":{"status":"0","command":"none"}}"#),
            (Answer::none().offline(Offline::Queue), r#"{"header":{"status":"0","command":"none"}}"#),
            (Answer::refuse("no", 1).offline(Offline::Queue), r#"{"header":{"status":"no"},"payload":{"data":1}}"#),
            (
                Answer::send(["bob"], 1).offline(Offline::Queue),
                r#"{"header":{"status":"0","command":"sendClients","commandData":["bob"],"offline":"queue"},"payload":{"data":1}}"#,
            ),
            (
                Answer::reply(1).offline(Offline::Drop).and(Answer::reply(2)).offline(Offline::Queue).and(Answer::reply(3)),
                concat!(
                    r#"{"header":{"status":"0","commands":[{"command":"reply","offline":"drop","payload":{"data":1}},"#,
                    r#"{"command":"reply","offline":"queue","payload":{"data":2}},{"command":"reply","payload":{"data":3}}]}}"#
                ),
            ),
            (Answer::none().and(Answer::reply(1)), r#"{"header":{"status":"0","command":"reply"},"payload":{"data":1}}"#),
            (Answer::refuse("notMember", "no"), r#"{"header":{"status":"notMember"},"payload":{"data":"no"}}"#),
            (Answer::refuse("ok", 1), r#"{"header":{"status":"1"},"payload":{"data":1}}"#),
            (Answer::reply(1).and(Answer::refuse("2", 2)), r#"{"header":{"status":"2"},"payload":{"data":2}}"#),
            (
                Answer::reply(1).and(Answer::send(["bob"], 2)).with_id("a-1"),
                concat!(
                    r#"{"header":{"status":"0","commands":[{"command":"reply","payload":{"data":1}},"#,
                    r#"{"command":"sendClients","commandData":["bob"],"payload":{"data":2}}],"id":"a-1"}}"#
                ),
            ),
        ] {
            assert_eq!(text(&answer, None), expected);
            let about = text(&answer, Some("a.example/5f-1"));
            assert!(about.contains(r#","inReplyTo":"a.example/5f-1""#), "{about}");
        }
    }

    #[test]
    fn what_is_no_json_never_becomes_a_frame() {
        for text in ["", "{", "1 2", "NaN", "\"\u{1}\""] {
            assert!(Raw::new(text).is_err(), "{text}");
        }
        let map = BTreeMap::from([((1, 2), 3)]);
        assert_eq!(text(&Answer::reply(&map), None), r#"{"header":{"status":"internal"}}"#);
    }
}
