//! The way of an invitation: the server that was invited connects to the one that invites, and shows the secret.

use super::bell::Bell;
use super::invitation::Invitation;
use super::wire::{self, Ours, Wire, Words};
use crate::protocol::report::put_string;
use crate::protocol::server;
use crate::store::Peer;
use crate::transport::HostPort;

/// The `payload.id` of what is sent, and the command.
const JOIN: &str = "join";

/// Why a server did not join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotJoined {
    /// The other server said no.
    Refused {
        /// In words for people.
        words: String,
        /// Whether trying again may help.
        temporary: bool,
    },
    /// Nobody knows whether it has: there was no answer.
    Unknown(String),
}

/// A connection to the server that invites, which has proved its key.
pub struct Host {
    wire: Wire,
    bell: Bell,
}

/// Connects to the server that invites.
///
/// # Errors
/// In words: it is not there, or another one is.
pub fn connect(invitation: &Invitation, ours: &Ours) -> Result<Host, Words> {
    let bell = Bell::new().map_err(|error| error.to_string())?;
    let address = &invitation.card.address;
    let mut trouble = String::new();
    for number in wire::resolve(address)? {
        let connected = wire::dial(number, ours.connect_by(), &bell).and_then(|stream| {
            let secured = wire::secure(stream, &address.host, &[invitation.card.pin], ours, ours.connect_by());
            secured.map_err(|error| format!("{number}: {error}"))
        });
        match connected.and_then(|socket| Wire::new(socket, ours)) {
            Ok(wire) => return Ok(Host { wire, bell }),
            Err(words) => trouble = words,
        }
    }
    Err(trouble)
}

/// Whether `peer` takes us for a peer already.
///
/// # Errors
/// In words: why not.
pub fn is_known_to(peer: &Peer, ours: &Ours) -> Result<(), Words> {
    let bell = Bell::new().map_err(|error| error.to_string())?;
    wire::open(peer, ours, &bell).map(drop)
}

impl Host {
    /// Shows the secret, and says where we are. From then on we are a peer there.
    ///
    /// # Errors
    /// See there.
    pub fn join(mut self, invitation: &Invitation, addresses: &[HostPort], ours: &Ours) -> Result<(), NotJoined> {
        let mut args = br#"{"addresses":["#.to_vec();
        for (place, address) in addresses.iter().enumerate() {
            if place > 0 {
                args.push(b',');
            }
            put_string(&mut args, &address.to_string());
        }
        args.extend_from_slice(b"]}");
        let args = String::from_utf8_lossy(&args);
        let packet = server::command(ours.name.as_str(), JOIN, JOIN, &args, Some(invitation.secret.as_str()));
        // A refusal may have no id, when it is about the connection: then there is no other report.
        let is_it = |report: &server::Report| match &report.id {
            Some(id) => id.as_str() == JOIN,
            None => !report.good,
        };
        match self.wire.ask(packet, is_it, ours, ours.report_by(), &self.bell) {
            Ok(report) if report.good => Ok(()),
            Ok(report) => Err(NotJoined::Refused { words: wire::said(&report), temporary: report.temporary }),
            Err(words) => Err(NotJoined::Unknown(words)),
        }
    }
}
