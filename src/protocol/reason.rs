//! Why something was not done: the closed list that reports choose from.

use std::fmt;

/// The `reason` of a bad report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A wrong password, an unknown user, or no login in time.
    Authentication,
    /// This needs a login first.
    NotAuthenticated,
    /// The frame or a field in it is not what the protocol asks for.
    Malformed,
    /// The frame is longer than the cap.
    TooLarge,
    /// The JSON is nested too deeply.
    TooDeep,
    /// No handler is configured for the type.
    UnknownType,
    /// There is no such built-in command.
    UnknownCommand,
    /// The server's rules do not allow it.
    Forbidden,
    /// A bound on connections, hashing or queues is reached.
    Busy,
    /// The handler is not running.
    HandlerUnavailable,
    /// The handler did not answer in time.
    HandlerTimeout,
    /// The handler ended with the request under way.
    HandlerCrashed,
    /// The handler's answer is against the protocol.
    HandlerProtocol,
    /// The handler said no.
    HandlerRefused,
    /// Handlers passed the message on to each other too often.
    Loop,
    /// Somebody was not reached.
    Undelivered,
    /// The answer names a server that is no peer.
    PeerUnknown,
    /// The other server does not take the message, and never will.
    PeerRefused,
    /// The other server was not reached in time.
    Expired,
    /// Another server sends too much.
    Rate,
    /// What is kept on the disk, accounts and messages, could not be read or written.
    Storage,
    /// The server is stopping.
    Draining,
    /// A fault of the server itself.
    Internal,
}

impl Reason {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Authentication => "authentication",
            Reason::NotAuthenticated => "notAuthenticated",
            Reason::Malformed => "malformed",
            Reason::TooLarge => "tooLarge",
            Reason::TooDeep => "tooDeep",
            Reason::UnknownType => "unknownType",
            Reason::UnknownCommand => "unknownCommand",
            Reason::Forbidden => "forbidden",
            Reason::Busy => "busy",
            Reason::HandlerUnavailable => "handlerUnavailable",
            Reason::HandlerTimeout => "handlerTimeout",
            Reason::HandlerCrashed => "handlerCrashed",
            Reason::HandlerProtocol => "handlerProtocol",
            Reason::HandlerRefused => "handlerRefused",
            Reason::Loop => "loop",
            Reason::Undelivered => "undelivered",
            Reason::PeerUnknown => "peerUnknown",
            Reason::PeerRefused => "peerRefused",
            Reason::Expired => "expired",
            Reason::Rate => "rate",
            Reason::Storage => "storage",
            Reason::Draining => "draining",
            Reason::Internal => "internal",
        }
    }

    /// Whether trying again later may help. (`undelivered` is decided by its counts, see [`super::report::Counts`].)
    pub fn is_temporary(self) -> bool {
        matches!(
            self,
            Reason::Busy
                | Reason::Rate
                | Reason::HandlerUnavailable
                | Reason::HandlerTimeout
                | Reason::HandlerCrashed
                | Reason::Storage
                | Reason::Draining
                | Reason::Undelivered
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
