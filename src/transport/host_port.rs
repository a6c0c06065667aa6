//! A host and a port, as people write them.

use std::fmt;
use std::str::FromStr;

/// Where something listens: a host, by name or number, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// The name or number, an IPv6 number without its brackets.
    pub host: String,
    /// The port; not 0.
    pub port: u16,
}

/// A text is not `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadHostPort(String);

impl FromStr for HostPort {
    type Err = BadHostPort;

    fn from_str(text: &str) -> Result<HostPort, BadHostPort> {
        let wrong = || BadHostPort(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        // Only in brackets, or nobody could tell where an IPv6 number ends and the port begins.
        let host = match host.strip_prefix('[') {
            Some(host) => host.strip_suffix(']').filter(|host| host.parse::<std::net::Ipv6Addr>().is_ok()),
            None => Some(host).filter(|host| !host.contains([':', '/', '@', ' '])),
        };
        let host = host.filter(|host| !host.is_empty()).ok_or_else(wrong)?;
        // Digits alone: Rust would take a sign.
        let digits = port.bytes().all(|b| b.is_ascii_digit());
        let port = port.parse().ok().filter(|port| digits && *port != 0).ok_or_else(wrong)?;
        Ok(HostPort { host: host.to_owned(), port })
    }
}

impl HostPort {
    /// As a name of a server, in which no brackets may be: what follows the last colon is the port without them, too.
    pub fn without_brackets(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HostPort { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl fmt::Display for BadHostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not HOST:PORT with a port from 1 to 65535", self.0)
    }
}

impl std::error::Error for BadHostPort {}
