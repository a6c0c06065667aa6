//! What is under way: messages, whose they are, and the requests to handlers that each has led to.
//!
//! A message leads to one request, to the handler of its type; every `sendHandler` in an answer leads to one more.
//! When none of them is open any longer, the message gets its report.

use crate::frame::Slice;
use crate::name::{ConnId, RequestId, RouteId, Username};
use crate::protocol::reason::Reason;
use crate::protocol::report::Counts;
use crate::protocol::text::Text;
use std::collections::HashMap;
use std::time::Instant;

/// The two tables.
#[derive(Debug, Default)]
pub(super) struct Requests {
    messages: HashMap<MessageKey, Message>,
    requests: HashMap<RequestId, Request>,
}

/// The number at the end of a message's `messageId`.
pub(super) type MessageKey = u64;

/// A client's message that has no report yet.
#[derive(Debug)]
pub(super) struct Message {
    /// Who sent it, and on which connection.
    pub(super) conn: ConnId,
    pub(super) user: Username,
    pub(super) kind: Text,
    pub(super) id: Option<Slice>,
    /// What it counts against its connection's bytes under way.
    pub(super) bytes: usize,
    /// How many requests it waits for.
    pub(super) open: usize,
    pub(super) counts: Counts,
    /// The first thing that went wrong with one of its requests.
    pub(super) failure: Option<Failure>,
}

/// Why a request came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// Something of ours or of the handler's went wrong.
    Reason(Reason, String),
    /// The handler said no.
    Refused { handler: String, status: Slice, data: Option<Slice> },
}

/// A request to a handler.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) message: MessageKey,
    pub(super) route: RouteId,
    /// How many handlers passed it on before.
    pub(super) hops: u8,
    pub(super) data: Slice,
    /// While it waits: when it has waited for too long. Once asked: when the answer is late.
    pub(super) deadline: Instant,
}

impl Requests {
    pub(super) fn add_message(&mut self, key: MessageKey, message: Message) {
        self.messages.insert(key, message);
    }

    pub(super) fn add(&mut self, id: RequestId, request: Request) {
        self.requests.insert(id, request);
    }

    pub(super) fn get(&mut self, id: RequestId) -> Option<&mut Request> {
        self.requests.get_mut(&id)
    }

    pub(super) fn message(&mut self, key: MessageKey) -> Option<&mut Message> {
        self.messages.get_mut(&key)
    }

    /// Takes a request out: it was answered, or came to nothing.
    pub(super) fn take(&mut self, id: RequestId) -> Option<Request> {
        self.requests.remove(&id)
    }

    /// Takes a message out if it waits for nothing any longer.
    pub(super) fn take_finished(&mut self, key: MessageKey) -> Option<Message> {
        let message = self.messages.get(&key)?;
        if message.open > 0 { None } else { self.messages.remove(&key) }
    }

    /// How many messages and requests are in the tables.
    #[cfg(test)]
    pub(super) fn left(&self) -> (usize, usize) {
        (self.messages.len(), self.requests.len())
    }

    /// Whether nothing is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
}
