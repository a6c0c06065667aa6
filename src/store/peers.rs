//! The other servers that this one knows.

use crate::name::{PeerId, ServerName};
use crate::tls::Pin;
use crate::transport::HostPort;

/// Another server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its number.
    pub id: PeerId,
    /// Its name; of [`Verify::Open`], its address.
    pub name: ServerName,
    /// Where it listens. They are tried in this order.
    pub addresses: Vec<HostPort>,
    /// How it proves that it is that one.
    pub verify: Verify,
}

/// How another server proves that it is the one that it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verify {
    /// With one of these keys: one or two.
    Pins(Vec<Pin>),
    /// Not at all: whoever connects from one of its addresses is believed. It is spoken to without TLS.
    Nothing,
    /// It is not believed anything; it is only sent to, without TLS.
    Open,
}
