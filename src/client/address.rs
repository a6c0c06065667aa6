//! Where a server listens, as people write it.

use crate::transport::HostPort;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A host and a port.
    Tcp(HostPort),
    /// The same, with TLS.
    Tls(HostPort),
    /// The path of a UNIX socket.
    Unix(PathBuf),
}

/// Why a text is not an address that we can connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressError {
    /// A way to connect that exists, but not in this version.
    Later(&'static str),
    /// No way to connect that we know.
    Scheme(String),
    /// There is nothing.
    Empty,
    /// The host or the port is wrong or missing.
    HostPort(String),
}

impl Address {
    /// Reads `tcp://HOST:PORT`, `HOST:PORT`, `tls://HOST:PORT`, `unix:PATH`, or a path with a slash in it.
    ///
    /// # Errors
    /// An address of another form, or of a kind that this version does not have.
    pub fn parse(text: &str) -> Result<Address, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(AddressError::Empty) } else { Ok(Address::Unix(path.into())) };
        }
        match text.split_once("://") {
            Some(("tcp", rest)) => Ok(Address::Tcp(host_port(rest)?)),
            Some(("tls", rest)) => Ok(Address::Tls(host_port(rest)?)),
            Some(("ws", _)) => Err(AddressError::Later("ws://")),
            Some(("wss", _)) => Err(AddressError::Later("wss://")),
            Some((scheme, _)) => Err(AddressError::Scheme(scheme.to_owned())),
            None if text.is_empty() => Err(AddressError::Empty),
            None if text.contains('/') => Ok(Address::Unix(text.into())),
            None => Ok(Address::Tcp(host_port(text)?)),
        }
    }
}

fn host_port(text: &str) -> Result<HostPort, AddressError> {
    text.parse().map_err(|_| AddressError::HostPort(text.to_owned()))
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        Address::parse(text)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(at) => write!(f, "tcp://{at}"),
            Address::Tls(at) => write!(f, "tls://{at}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AddressError::Later(scheme) => {
                write!(f, "this version has no {scheme} addresses: use tcp://HOST:PORT, tls://HOST:PORT or unix:PATH")
            }
            AddressError::Scheme(scheme) => {
                write!(f, "there are no {scheme}:// addresses: use tcp://HOST:PORT, tls://HOST:PORT or unix:PATH")
            }
            AddressError::Empty => f.write_str("the address is empty: use tcp://HOST:PORT, tls://HOST:PORT or unix:PATH"),
            AddressError::HostPort(text) => write!(f, "{text:?} is not HOST:PORT with a port from 1 to 65535"),
        }
    }
}

impl std::error::Error for AddressError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        let table = [
            ("tcp://127.0.0.1:2223", "tcp://127.0.0.1:2223"),
            ("localhost:65535", "tcp://localhost:65535"),
            ("tcp://[::1]:1", "tcp://[::1]:1"),
            ("[fe80::1]:22", "tcp://[fe80::1]:22"),
            ("tls://a.example:2224", "tls://a.example:2224"),
            ("tls://[::1]:1", "tls://[::1]:1"),
            ("unix:bester.socket", "unix:bester.socket"),
            ("unix:/run/bester", "unix:/run/bester"),
            ("./bester.socket", "unix:./bester.socket"),
            ("/run/a:1", "unix:/run/a:1"),
        ];
        for (text, canonical) in table {
            let address = Address::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(address.to_string(), canonical);
            assert_eq!(Address::parse(canonical), Ok(address), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_connected_to_is_refused() {
        for scheme in ["ws://", "wss://"] {
            let refused = Address::parse(&format!("{scheme}a.example:1"));
            assert_eq!(refused, Err(AddressError::Later(scheme)));
            assert!(refused.unwrap_err().to_string().contains("this version has no"));
        }
        assert_eq!(Address::parse("http://a:1"), Err(AddressError::Scheme("http".to_owned())));
        for empty in ["", "unix:"] {
            assert_eq!(Address::parse(empty), Err(AddressError::Empty));
        }
        for wrong in [
            "localhost",
            ":1",
            "a:",
            "a:0",
            "a:65536",
            "a:+1",
            "a:-1",
            "a:x",
            "::1:1",
            "[::1]",
            "[]:1",
            "[a]:1",
            "tcp://",
            "tcp://a:1/",
            "tls://",
            "tls://a",
            "a b:1",
            "u@a:1",
        ] {
            assert!(matches!(Address::parse(wrong), Err(AddressError::HostPort(_))), "{wrong}");
        }
    }
}
