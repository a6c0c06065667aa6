//! What can go wrong between a client and its server.

use super::Address;
use super::incoming::{BadFrame, Incoming};
use crate::frame::TooLarge;
use crate::tls::TlsError;
use std::fmt;
use std::io;

/// Why there is no connection, or none any longer.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody could be connected to.
    Connect {
        /// Where.
        address: Address,
        /// Why not.
        source: io::Error,
    },
    /// There is no TLS with whoever was connected to, or it is not who it should be.
    Tls {
        /// Where.
        address: Address,
        /// Why not.
        source: TlsError,
    },
    /// Nothing came in time. The connection is still good.
    TimedOut,
    /// The server closed the connection while something was expected of it.
    Closed,
    /// Reading or writing failed.
    Io(io::Error),
    /// A frame is longer than we take.
    TooLarge(TooLarge),
    /// A frame is no message.
    BadFrame(BadFrame),
}

/// Why there was no login.
#[derive(Debug)]
pub enum LoginError {
    /// The server said no: its report.
    Refused(Box<Incoming>),
    /// The server sent something else first.
    Unexpected(Box<Incoming>),
    /// It was not asked, or did not answer.
    Client(ClientError),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Connect { address, source } => write!(f, "cannot connect to {address}: {source}"),
            ClientError::Tls { address, source } => write!(f, "cannot connect to {address}: {source}"),
            ClientError::TimedOut => f.write_str("the server did not answer in time"),
            ClientError::Closed => f.write_str("the server closed the connection"),
            ClientError::Io(error) => write!(f, "the connection to the server is lost: {error}"),
            ClientError::TooLarge(error) => error.fmt(f),
            ClientError::BadFrame(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ClientError::Connect { source, .. } | ClientError::Io(source) => Some(source),
            ClientError::Tls { source, .. } => Some(source),
            ClientError::TooLarge(error) => Some(error),
            ClientError::BadFrame(error) => Some(error),
            ClientError::TimedOut | ClientError::Closed => None,
        }
    }
}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        ClientError::Io(error)
    }
}

impl From<TooLarge> for ClientError {
    fn from(error: TooLarge) -> Self {
        ClientError::TooLarge(error)
    }
}

impl From<BadFrame> for ClientError {
    fn from(error: BadFrame) -> Self {
        ClientError::BadFrame(error)
    }
}

impl fmt::Display for LoginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoginError::Refused(report) => {
                let words = report.words();
                f.write_str(words.as_deref().or(report.reason.as_deref()).unwrap_or("the server refused the login without a word"))
            }
            LoginError::Unexpected(_) => f.write_str("the server's first answer is no report on the login"),
            LoginError::Client(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LoginError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LoginError::Client(error) => Some(error),
            LoginError::Refused(_) | LoginError::Unexpected(_) => None,
        }
    }
}

impl From<ClientError> for LoginError {
    fn from(error: ClientError) -> Self {
        LoginError::Client(error)
    }
}
