//! Why there is no connection with TLS.

use super::Pin;
use super::verify::WrongPin;
use rustls::CertificateError;
use std::fmt;
use std::io;

/// Why a handshake failed, or could not begin.
#[derive(Debug)]
pub enum TlsError {
    /// It was not done in time.
    TimedOut,
    /// The other side closed the connection before it was done.
    Closed,
    /// What the other side sent is no TLS.
    NotTls,
    /// The other side has another key than it should: this one.
    WrongPin(Pin),
    /// The other side's certificate is of no use, or it does not have the key to it.
    Certificate(CertificateError),
    /// The other side refused; its word for it.
    Refused(String),
    /// Where we connect to has a name that no certificate could have.
    Name(String),
    /// This machine has no certificates of authorities that it trusts, or none that can be read.
    NoRoots(String),
    /// Something else that one of both sides does not do as it should, or cannot do.
    Protocol(rustls::Error),
    /// Reading or writing failed.
    Io(io::Error),
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> TlsError {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::Other(other)) => match other.0.downcast_ref::<WrongPin>() {
                Some(WrongPin(seen)) => TlsError::WrongPin(*seen),
                None => TlsError::Certificate(CertificateError::Other(other)),
            },
            rustls::Error::InvalidCertificate(error) => TlsError::Certificate(error),
            rustls::Error::AlertReceived(alert) => TlsError::Refused(format!("{alert:?}")),
            error => TlsError::Protocol(error),
        }
    }
}

impl From<io::Error> for TlsError {
    fn from(error: io::Error) -> TlsError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => TlsError::Closed,
            io::ErrorKind::TimedOut => TlsError::TimedOut,
            _ => TlsError::Io(error),
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::TimedOut => f.write_str("the TLS handshake was not done in time"),
            TlsError::Closed => f.write_str("the other side closed the connection before the TLS handshake was done"),
            TlsError::NotTls => f.write_str("the other side speaks no TLS there"),
            TlsError::WrongPin(seen) => write!(f, "the other side has another key than expected, with the pin {seen}"),
            TlsError::Certificate(CertificateError::UnknownIssuer) => {
                f.write_str("no authority that this machine trusts has signed the certificate: give the pin of its key")
            }
            TlsError::Certificate(CertificateError::BadSignature) => {
                f.write_str("the other side does not have the key to its certificate, or the certificate was changed")
            }
            TlsError::Certificate(error) => write!(f, "the certificate of the other side is of no use: {error}"),
            TlsError::Refused(alert) => write!(f, "the other side refused the TLS handshake ({alert})"),
            TlsError::Name(host) => write!(f, "{host:?} is no name or number of a host"),
            TlsError::NoRoots(why) => write!(f, "this machine has no certificates of authorities to compare with ({why}): give a pin"),
            TlsError::Protocol(error) => write!(f, "the TLS handshake failed: {error}"),
            TlsError::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for TlsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            TlsError::Protocol(error) => Some(error),
            TlsError::Io(error) => Some(error),
            _ => None,
        }
    }
}
