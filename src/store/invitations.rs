//! Invitations: whoever knows the secret of one may become a peer with the key that it proves to have. Once, by one server.

use super::mail::Digest;
use super::peers::Peers;
use super::rows::{Rows, signed};
use super::{Database, Newcomer, StoreError, Verify, calendar};
use crate::name::{PeerId, ServerName};
use crate::tls::Pin;
use crate::transport::HostPort;
use rusqlite::params;

/// Invitations at a time; the one that ends first makes room for a new one.
const MOST: u64 = 1000;
/// Addresses of one peer that are kept of those that it says, ...
const ADDRESSES_MAX: usize = 8;
/// ... and bytes of the host in one: no name is longer.
const HOST_BYTES_MAX: usize = 253;

/// A server that has an invitation, and proved to have a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Guest {
    pub(super) name: ServerName,
    pub(super) addresses: Vec<HostPort>,
    pub(super) pin: Pin,
}

impl Database {
    /// Writes an invitation down, by the SHA-256 of its secret. It can be used until then, in seconds since 1970.
    ///
    /// # Errors
    /// The database's own trouble.
    pub fn invite(&mut self, secret: &Digest, until: i64) -> Result<(), StoreError> {
        self.transact(|rows| Invitations(rows).put(secret, until, calendar::now()))
    }
}

/// The invitations of a database.
pub(super) struct Invitations<'a>(pub(super) Rows<'a>);

impl Invitations<'_> {
    /// Writes one down, and forgets those that are too old.
    pub(super) fn put(&self, secret: &Digest, until: i64, now: i64) -> Result<(), StoreError> {
        self.0.execute("DELETE FROM invitations WHERE until < ?1", [now])?;
        let sql = "DELETE FROM invitations WHERE digest IN
                   (SELECT digest FROM invitations ORDER BY until DESC LIMIT -1 OFFSET ?1)";
        self.0.execute(sql, [signed(MOST - 1)])?;
        self.0.execute("INSERT OR REPLACE INTO invitations (digest, until) VALUES (?1, ?2)", params![secret, until])?;
        Ok(())
    }

    /// Uses one up: its guest is a peer from now on, of `most` at most. Gives the number of the peer.
    pub(super) fn accept(&self, secret: &Digest, guest: &Guest, most: usize, now: i64) -> Result<PeerId, StoreError> {
        let (name, pin) = (guest.name.as_str(), guest.pin.to_string());
        let sql = "UPDATE invitations SET used_by = ?3, used_pin = ?4
                   WHERE digest = ?1 AND until >= ?2 AND (used_by IS NULL OR (used_by = ?3 AND used_pin = ?4))";
        if self.0.execute(sql, params![secret, now, name, pin])? == 0 {
            return Err(StoreError::NoInvitation);
        }
        let fits = |address: &&HostPort| address.host.len() <= HOST_BYTES_MAX;
        let addresses: Vec<HostPort> = guest.addresses.iter().filter(fits).take(ADDRESSES_MAX).cloned().collect();
        let peers = Peers(self.0);
        let known = peers.all()?;
        match known.into_iter().find(|peer| peer.name == guest.name && peer.verify.has(&guest.pin)) {
            Some(peer) => {
                peers.update(peer.id, &addresses, &peer.verify)?;
                Ok(peer.id)
            }
            None => {
                let verify = Verify::Pins(vec![guest.pin]);
                peers.add(&Newcomer { name: guest.name.clone(), addresses, verify }, most, now)
            }
        }
    }

    /// Forgets what a peer has used: one that was removed does not come back without a new invitation.
    pub(super) fn forget(&self, name: &ServerName) -> Result<(), StoreError> {
        self.0.execute("DELETE FROM invitations WHERE used_by = ?1", [name.as_str()])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
