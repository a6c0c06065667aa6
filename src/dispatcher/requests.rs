//! What is under way: messages, whose they are, and the requests to handlers that each has led to.
//!
//! A message leads to one request, to the handler of its type; every `sendHandler` in an answer leads to one more.
//! What an answer has for mailboxes is an order to the disk. When nothing of all that is open any longer, the message gets its
//! report. Requests stand in the queues of their route.

use super::peers::Abroad;
use crate::frame::Slice;
use crate::name::{ConnId, PeerId, RequestId, Username};
use crate::protocol::reason::Reason;
use crate::protocol::report::Counts;
use crate::protocol::text::Text;
use crate::store::mail::Digest;
use std::time::Instant;

/// The messages that have no report yet, by their place in a list that is used again and again.
#[derive(Debug, Default)]
pub(super) struct Messages {
    places: Vec<Option<Message>>,
    free: Vec<MessageKey>,
}

/// The place of a message, as long as it is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MessageKey(usize);

/// A message that is under way: a client's, which has no report yet, or what a handler said without being asked.
#[derive(Debug)]
pub(super) struct Message {
    /// The number at the end of its `messageId`.
    pub(super) number: u64,
    pub(super) sender: Sender,
    pub(super) kind: Text,
    pub(super) id: Option<Slice>,
    /// What it counts against its connection's bytes under way.
    pub(super) bytes: usize,
    /// How many requests, and orders to the disk, it waits for.
    pub(super) open: usize,
    pub(super) counts: Counts,
    /// The first thing that went wrong with one of its requests.
    pub(super) failure: Option<Box<Failure>>,
    /// Of a message that may come again.
    pub(super) repeat: Option<Box<Repeat>>,
}

/// What is known of a message that may come again.
#[derive(Debug)]
pub(super) struct Repeat {
    pub(super) digest: Digest,
    /// The peer that sent it.
    pub(super) peer: Option<PeerId>,
    /// Its report is remembered, or it need not be.
    pub(super) settled: bool,
    /// It has come again already, on these connections, with so many bytes: they get the same report.
    pub(super) others: Vec<(ConnId, usize)>,
}

/// Whose message it is.
#[derive(Debug, Clone)]
pub(super) enum Sender {
    /// A user's, on this connection.
    Client(ConnId, Username),
    /// Of another server, on this connection.
    Server(ConnId, Box<Abroad>),
    /// Of a handler that was not asked.
    Handler,
}

impl Sender {
    /// The connection that asked.
    pub(super) fn conn(&self) -> Option<ConnId> {
        match self {
            Sender::Client(conn, _) | Sender::Server(conn, _) => Some(*conn),
            Sender::Handler => None,
        }
    }

    /// How often it was passed on from server to server before it came to this one.
    pub(super) fn hops(&self) -> u8 {
        if let Sender::Server(_, abroad) = self { abroad.hops } else { 0 }
    }

    /// Whether another server waits for the report.
    pub(super) fn is_server(&self) -> bool {
        matches!(self, Sender::Server(..))
    }
}

/// Why a request came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// Something of ours or of the handler's went wrong.
    Reason(Reason, String),
    /// The handler said no.
    Refused { handler: String, status: Slice, data: Option<Slice> },
}

/// A request that a handler was asked.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) id: RequestId,
    pub(super) message: MessageKey,
    /// How many handlers passed it on before.
    pub(super) hops: u8,
    /// When the answer is late.
    pub(super) deadline: Instant,
    /// What was asked, if it may be asked once more should there be no answer.
    pub(super) again: Option<Slice>,
}

/// A request that no handler was asked yet.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) message: MessageKey,
    pub(super) hops: u8,
    /// When it has waited for too long.
    pub(super) deadline: Instant,
    pub(super) data: Slice,
    /// It was asked before, without an answer.
    pub(super) retried: bool,
}

impl Messages {
    pub(super) fn add(&mut self, message: Message) -> MessageKey {
        match self.free.pop() {
            Some(key) => {
                self.places[key.0] = Some(message);
                key
            }
            None => {
                self.places.push(Some(message));
                MessageKey(self.places.len() - 1)
            }
        }
    }

    pub(super) fn get(&mut self, key: MessageKey) -> Option<&mut Message> {
        self.places.get_mut(key.0)?.as_mut()
    }

    pub(super) fn peek(&self, key: MessageKey) -> Option<&Message> {
        self.places.get(key.0)?.as_ref()
    }

    /// The connection whose message it is.
    pub(super) fn conn(&self, key: MessageKey) -> Option<ConnId> {
        self.peek(key)?.sender.conn()
    }

    /// Takes a message out if it waits for nothing any longer.
    pub(super) fn take_finished(&mut self, key: MessageKey) -> Option<Message> {
        let place = self.places.get_mut(key.0)?;
        let finished = place.take_if(|message| message.open == 0);
        if finished.is_some() {
            self.free.push(key);
        }
        finished
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }
}
