//! Why connections end; the same words wherever it is told.

use std::fmt;

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The client closed it.
    Ended,
    /// The client asked for it.
    Asked,
    /// What it sent was refused, and it has been told why.
    Refused,
    /// It read too slowly.
    TooSlow,
    /// Its user was removed or disabled, or has another password now.
    Revoked,
    /// It is no peer any longer, or proves with another key who it is.
    NoPeer,
    /// The server is stopping.
    Stopping,
    /// It did not acknowledge what it was sent.
    Unacknowledged,
    /// A frame was not complete in time.
    FrameTimeout,
    /// It began to speak TLS where none is spoken.
    Tls,
    /// The connection broke.
    Broken,
}

impl CloseReason {
    /// Whether what was written before must still get through: if not, it ends at once.
    pub fn is_polite(self) -> bool {
        !matches!(self, CloseReason::TooSlow | CloseReason::Broken | CloseReason::FrameTimeout | CloseReason::Tls)
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CloseReason::Ended => "the client closed it",
            CloseReason::Asked => "the client asked for it",
            CloseReason::Refused => "what it sent was refused",
            CloseReason::TooSlow => "it read too slowly (limits.outgoingBytes, limits.outgoingFrames)",
            CloseReason::Revoked => "its user was removed, disabled or given another password",
            CloseReason::NoPeer => "the server at the other end is no peer any longer, or has another key",
            CloseReason::Stopping => "the server is stopping",
            CloseReason::Unacknowledged => "it acknowledged nothing in time (limits.ackSeconds)",
            CloseReason::FrameTimeout => "a frame was not complete in time (limits.frameSeconds)",
            CloseReason::Tls => "it speaks TLS on a port without it: the one of network.tls is for that",
            CloseReason::Broken => "the connection broke",
        })
    }
}
