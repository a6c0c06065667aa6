//! What a handler gets.

use super::answer::{Answer, Raw};
use super::stream::Line;
use crate::protocol::request::{Origin, Request};
use crate::protocol::text::Text;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::io;
use std::sync::Arc;

/// A message that waits for its answer.
pub struct Message {
    data: Raw,
    /// In envelope form.
    request: Option<Box<Request>>,
    line: Arc<Line>,
}

/// Who is speaking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Speaker<'a> {
    /// A user of this server.
    User {
        /// The name that the user has logged in with.
        name: &'a str,
        /// This server.
        server: &'a str,
        /// The number of the user's connection; no two have the same while the server runs.
        session: u64,
        /// Whether the server answers for all of this.
        verified: bool,
    },
    /// Another server.
    Server {
        /// The other server; of one that is not known, the address that it was sent from.
        name: &'a str,
        /// The user over there, by the word of that server: another alice than the one here.
        user: Option<&'a str>,
        /// Whether this server knows the other one, which has proved that it is the one.
        verified: bool,
    },
    /// Another handler of this server, which spoke without being asked.
    Handler {
        /// The type that it handles.
        kind: &'a str,
        /// This server.
        server: &'a str,
    },
    /// Somebody of a kind that is not known here.
    Other,
}

impl Message {
    pub(super) fn new(data: Raw, request: Option<Box<Request>>, line: Arc<Line>) -> Message {
        Message { data, request, line }
    }

    /// The data, byte for byte as the sender wrote it.
    pub fn raw(&self) -> Raw {
        self.data.clone()
    }

    /// The value of the data.
    ///
    /// # Errors
    /// The data is JSON, but no such value. It is whatever the sender likes, so this is nothing to be surprised by.
    pub fn data<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        self.data.parse()
    }

    /// Who is speaking; `None` in plain form, where nobody says.
    pub fn from(&self) -> Option<Speaker<'_>> {
        self.request.as_ref().map(|request| speaker(&request.from))
    }

    /// The user of this server who is speaking, if it is one. To be used wherever a name gives rights: it is never the
    /// word of somebody else.
    pub fn user(&self) -> Option<&str> {
        match self.from() {
            Some(Speaker::User { name, verified: true, .. }) => Some(name),
            _ => None,
        }
    }

    /// The other server that sent it, if this server knows it and it has proved who it is. It speaks for its own users
    /// alone (see [`Speaker::Server`]): keep their names together with its own.
    pub fn peer(&self) -> Option<&str> {
        match self.from() {
            Some(Speaker::Server { name, verified: true, .. }) => Some(name),
            _ => None,
        }
    }

    /// The type of the message; `None` in plain form.
    pub fn kind(&self) -> Option<&str> {
        Some(self.request.as_ref()?.kind.as_str())
    }

    /// The id that the sender gave it.
    pub fn id(&self) -> Option<&str> {
        self.request.as_ref()?.id.as_ref().map(Text::as_str)
    }

    /// The id that the server gave it, for [`Outbox::answer`](super::Outbox::answer); `None` in plain form.
    pub fn message_id(&self) -> Option<&str> {
        Some(self.request.as_ref()?.message_id.as_str())
    }

    /// How many times it was sent from one server to another, which they allow 8 times. What is sent because of it has one
    /// more, and what is pushed begins anew: a handler must not push because of what a server has sent, or messages could go
    /// in circles for ever.
    pub fn hops(&self) -> u64 {
        self.request.as_ref().map_or(0, |request| request.hops)
    }

    /// Answers it. In envelope form that may be done in any order and by any thread; in plain form the messages must be
    /// answered in the order in which they came.
    ///
    /// # Errors
    /// The server is gone.
    pub fn answer(self, answer: Answer) -> io::Result<()> {
        self.ticket().answer(&answer, false)
    }

    /// What is needed to answer it.
    pub(super) fn ticket(&self) -> Ticket {
        let about = self.request.as_ref().map(|request| request.message_id.clone());
        Ticket { about, line: Arc::clone(&self.line) }
    }
}

pub(super) struct Ticket {
    about: Option<Text>,
    line: Arc<Line>,
}

impl Ticket {
    /// `later`: it need not go out before the next read.
    pub(super) fn answer(&self, answer: &Answer, later: bool) -> io::Result<()> {
        self.line.send(self.about.as_ref().map(Text::as_str), answer, later)
    }
}

/// Whose data it is, and how much; never the data itself.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("data", &self.data).field("from", &self.from()).field("message_id", &self.message_id()).finish()
    }
}

fn speaker(from: &Origin) -> Speaker<'_> {
    let server = from.server.as_ref().map_or("", Text::as_str);
    let user = from.user.as_ref().map(Text::as_str);
    match (from.scope.as_ref().map(Text::as_str), user, &from.kind) {
        (Some("client"), Some(name), _) => {
            Speaker::User { name, server, session: from.session.unwrap_or_default(), verified: from.verified }
        }
        (Some("server"), user, _) => Speaker::Server { name: server, user, verified: from.verified },
        (Some("handler"), _, Some(kind)) => Speaker::Handler { kind: kind.as_str(), server },
        _ => Speaker::Other,
    }
}

/// What comes to a handler that gets envelopes.
#[derive(Debug)]
#[non_exhaustive]
pub enum Incoming {
    /// A message, which wants an answer.
    Message(Message),
    /// What became of an answer or a push that had an id.
    Report(Report),
}

/// What became of an answer or a push with an id.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The id.
    pub id: String,
    /// Why not everything that was asked for has been done; `None` if it has.
    pub failure: Option<Failure>,
    /// Who was reached; not there when nothing was carried out.
    pub counts: Option<Counts>,
}

/// Why something was not done, or not all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// For programs: `undelivered`, for example.
    pub reason: String,
    /// Whether trying again later may help.
    pub temporary: bool,
    /// For people.
    pub message: String,
}

/// How many recipients fared how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Counts {
    /// What the deliveries have as their `messageId`.
    pub message_id: String,
    /// Handed to at least one connection that does not acknowledge.
    pub delivered: u64,
    /// On the disk: in the mailbox of somebody who is away, or until a connection that acknowledges has done so; or on the way
    /// to another server.
    #[serde(default)]
    pub queued: u64,
    /// Not logged in.
    pub offline: u64,
    /// No such account, or no server that is known.
    pub unknown: u64,
    /// Their mailbox is full, or too much is on the way to that server.
    #[serde(default)]
    pub refused: u64,
    /// Who those are that were not reached.
    #[serde(default)]
    pub names: Missed,
}

/// The names behind [`Counts`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Missed {
    /// Not logged in.
    pub offline: Vec<String>,
    /// No such account, or no server that is known.
    pub unknown: Vec<String>,
    /// Their mailbox is full, or too much is on the way to that server.
    pub refused: Vec<String>,
}

#[derive(Deserialize)]
struct WireReport {
    header: WireHeader,
    payload: WirePayload,
}

#[derive(Deserialize)]
struct WireHeader {
    status: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    temporary: bool,
}

#[derive(Deserialize)]
struct WirePayload {
    data: serde_json::Value,
    #[serde(default)]
    id: String,
}

impl Report {
    pub(super) fn parse(frame: &[u8]) -> serde_json::Result<Report> {
        let WireReport { header, payload } = serde_json::from_slice(frame)?;
        let message = payload.data.get("message").and_then(|words| words.as_str()).unwrap_or_default().to_owned();
        let failure = (header.status != "good").then_some(Failure { reason: header.reason, temporary: header.temporary, message });
        Ok(Report { id: payload.id, failure, counts: serde_json::from_value(payload.data).ok() })
    }
}
