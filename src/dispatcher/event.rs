//! Everything that can move the dispatcher, and everything that it orders. Plain data: no handles, no sockets.

use super::lane::Form;
use super::peers::Proof;
use super::routes::RouteConfig;
use crate::frame::{Packet, Slice};
use crate::gate::CloseReason;
use crate::name::{ConnId, HandlerId, PeerId, RequestId, RouteId, StartId, Username};
use crate::protocol::handler::{Answer, WrongAnswer};
use crate::protocol::informer::Question;
use crate::protocol::reason::Reason;
use crate::protocol::report::Id;
use crate::protocol::text::Text;
use crate::store::mail::{Digest, Letter, Outgoing, Read, Told, Write};
use crate::store::{Peer, Standing};
use std::sync::Arc;

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// A client connected; it has no user yet.
    Connected(ConnId),
    /// A connection proved that it may speak for a user.
    LoggedIn {
        /// Which connection.
        conn: ConnId,
        /// The user.
        user: Username,
        /// The account's revision at the time of the proof; one from before a revocation is void.
        revision: u64,
        /// Whether the session acknowledges what it has taken care of.
        ack: bool,
        /// What the user has had in an earlier session, up to this number.
        after: Option<u64>,
        /// What to report on.
        about: About,
    },
    /// A connection gave up its user; all its earlier messages have their reports.
    LoggedOut(ConnId, About),
    /// A user's password was changed by a session of his own, which stays; the others end.
    PasswordChanged {
        /// The session that did it.
        conn: ConnId,
        /// The user.
        user: Username,
        /// The account's revision from now on.
        revision: u64,
        /// What to report on.
        about: About,
    },
    /// A connection made an account; it is not logged in by that.
    Registered {
        /// Which connection.
        conn: ConnId,
        /// The new user.
        user: Username,
        /// The new account's revision.
        revision: u64,
        /// What to report on.
        about: About,
    },
    /// This is known of the other side: the verdict is whether it is a peer, or, before it has said anything, whether it may be.
    Shown(ConnId, Proof),
    /// The other side says that it is another server.
    Greeted {
        /// Which connection.
        conn: ConnId,
        /// What is known of it.
        proof: Proof,
        /// `header.server`: the name that it says to have.
        server: Option<Text>,
        /// What to report on, if it is refused.
        about: About,
    },
    /// A message for a handler.
    Message(ConnId, Message),
    /// A client has taken care of all that was sent to it, up to this number.
    Acknowledged {
        /// Which connection.
        conn: ConnId,
        /// The number.
        seq: u64,
        /// What to report on, if it is wrong.
        about: About,
    },
    /// A built-in command that only asks.
    Asked(ConnId, Inquiry, About),
    /// A message that the connection itself found wrong.
    Refused {
        /// Which connection.
        conn: ConnId,
        /// What to report on.
        about: About,
        /// Why.
        reason: Reason,
        /// Why, in words for people.
        message: String,
        /// Whether the connection ends with this report.
        last: bool,
    },
    /// Something that the connection has done itself: this JSON text is the report's data.
    Done {
        /// Which connection.
        conn: ConnId,
        /// What to report on.
        about: About,
        /// The data.
        data: String,
    },
    /// `close`: a good report, then the end; all earlier messages have theirs.
    Leaving(ConnId, About),
    /// The client will send nothing more, but may be waiting for reports.
    InputEnded(ConnId),
    /// The connection is gone.
    Disconnected(ConnId),
    /// A connection's socket did not take everything, and these of what it was handed.
    Backlogged(ConnId, Vec<Unwritten>),
    /// A connection's socket has taken everything that was sent.
    Emptied(ConnId),
    /// More waits for this connection than may; it is too slow.
    Overflowed(ConnId),
    /// What the storage threads tell.
    Stored(Told),
    /// What is known of these accounts now.
    AccountsChanged(Vec<(Username, Standing)>),
    /// These are all accounts that there are now.
    AccountsReloaded(Vec<(Username, Standing)>),
    /// Somebody else than the server's storage threads has put letters at the end of this user's mailbox.
    MailboxChanged(Username),
    /// A handler can be asked. It takes the place of a start that could be asked before.
    HandlerUp(HandlerId, Form),
    /// A handler can no longer be asked, and what it was asked will not be answered.
    HandlerDown {
        /// Which start.
        id: HandlerId,
        /// How it ended, in words for people.
        reason: String,
        /// Why there will be no other start unless somebody orders one, if there will be none.
        for_good: Option<String>,
    },
    /// A frame from a handler.
    Answered {
        /// Which start.
        id: HandlerId,
        /// The request that it can only belong to, where each request has a connection of its own.
        request: Option<RequestId>,
        /// What it says.
        answer: Result<Answer, WrongAnswer>,
    },
    /// A request that has a connection of its own could not be handed over, or got no answer.
    Unanswered {
        /// Which start.
        id: HandlerId,
        /// Which request.
        request: RequestId,
        /// Why.
        reason: Reason,
        /// Why, in words for people.
        message: String,
    },
    /// A question of a handler, or of a command on this machine.
    Informed(ConnId, Asker, Question),
    /// A handler speaks without being asked, through its informer.
    Pushed {
        /// The connection to the informer, which is told what became of it.
        conn: ConnId,
        /// Whose handler.
        route: RouteId,
        /// What it says.
        answer: Result<Answer, WrongAnswer>,
    },
    /// There is a type more, or one has another configuration. A new one has the next [`RouteId`].
    RouteChanged(RouteId, RouteConfig),
    /// A type is no longer configured. What its handler was asked it may still answer.
    RouteRemoved(RouteId),
    /// These are all other servers that are known now.
    PeersChanged(Vec<Peer>),
    /// No new messages from now on; the server is stopping.
    Drain,
    /// Every connection ends.
    Stop,
    /// Time has passed.
    Tick,
}

/// Who asks out of band.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// A handler, through its informer.
    Handler,
    /// The operator, with a command on this machine.
    Operator,
}

/// What a connection was handed and its socket did not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unwritten {
    /// The delivery.
    pub handed: Handed,
    /// A part of it was taken: the rest follows when there is room, and nothing may come before.
    pub begun: bool,
}

/// What a connection is handed, as a mailbox takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handed {
    /// Whose it is.
    pub user: Username,
    /// The delivery.
    pub letter: Arc<Letter>,
    /// No other session of the user was handed it: it is a reply.
    pub alone: bool,
}

/// What a report is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// The message's type.
    pub kind: Text,
    /// The id that the report carries, if any.
    pub id: Option<Id>,
}

/// A message as its client sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `payload.type`.
    pub kind: Text,
    /// `payload.data`.
    pub data: Slice,
    /// `payload.id`, a JSON string with its quotes.
    pub id: Option<Slice>,
    /// What it counts against the bytes that its connection has under way.
    pub bytes: usize,
    /// Set if it may have come before, and is to be handled once only.
    pub digest: Option<Box<Digest>>,
    /// Set if it comes from another server.
    pub transit: Option<Box<Transit>>,
}

/// What another server says of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transit {
    /// `header.messageId`.
    pub message_id: Option<Text>,
    /// `header.hops`.
    pub hops: u64,
    /// `header.from`.
    pub from: Option<Text>,
}

/// A built-in command that only asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inquiry {
    /// Who am I, and where?
    Whoami,
    /// Which types are there, and are their handlers up?
    Handlers,
    /// Is anybody there?
    Ping,
    /// A message of type `dummy`.
    Dummy,
}

/// Something to be done.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Write this to a connection.
    Send(ConnId, Packet),
    /// Hand this delivery to a connection. What its socket does not take goes to the user's mailbox, and not into a queue: then
    /// there is an [`Event::Backlogged`].
    Hand(ConnId, Packet, Box<Handed>),
    /// Say with [`Event::Emptied`] when all that was sent so far has left for the connection's socket.
    Watch(ConnId),
    /// One message of this connection is dealt with, and so are its bytes. Exactly one for each event that came of a
    /// message, also when the connection is gone by then.
    Settle(ConnId, usize),
    /// Whether what the connection asked for and waits for (a login, a logout, ...) was done.
    Verdict(ConnId, bool),
    /// End a connection.
    Close(ConnId, CloseReason),
    /// Forget a connection that is gone.
    Forget(ConnId),
    /// Ask a handler.
    Ask(StartId, RequestId, Packet),
    /// Tell a handler what became of its answer.
    Tell(StartId, Packet),
    /// Nobody waits any longer for the answer to this request, which has a connection of its own.
    Abandon(StartId, RequestId),
    /// This start of a handler cannot be trusted any longer, for this reason: end it and start it again.
    Replace(StartId, String),
    /// This start of a handler is asked nothing more and has answered everything: it may end.
    Retire(StartId),
    /// Nothing more is written to this start of a handler.
    Detach(StartId),
    /// Change something on the disk. What one event leads to is done together or not at all.
    Write(Write),
    /// Read something from the disk.
    Read(Box<Read>),
    /// This lies in the outbox of a peer, under this number: its link may send it.
    Forward(PeerId, u64, Arc<Outgoing>),
    /// There are new peers, which have no links yet.
    LinkPeers,
    /// The last message under way has its report; said once, after [`Event::Drain`].
    Drained,
}
