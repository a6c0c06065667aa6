//! The other servers that this one knows.

use super::rows::{Rows, signed, unsigned};
use super::{Database, StoreError, calendar};
use crate::name::{PeerId, ServerName};
use crate::tls::Pin;
use crate::transport::HostPort;
use rusqlite::params;
use std::str::FromStr;

/// Keys that one peer may have: the one that it uses, and the one that it will use or did use.
const PINS_MAX: usize = 2;

/// Another server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its number.
    pub id: PeerId,
    /// Its name; of [`Verify::Open`], its address, an IPv6 number without its brackets.
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

/// Another server that is to become known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Newcomer {
    /// Its name.
    pub name: ServerName,
    /// Where it listens.
    pub addresses: Vec<HostPort>,
    /// How it proves that it is that one.
    pub verify: Verify,
}

impl Database {
    /// All peers, ordered by name.
    ///
    /// # Errors
    /// [`StoreError::BadPeer`], or the database's own trouble, as of all methods here.
    pub fn peers(&self) -> Result<Vec<Peer>, StoreError> {
        Peers(self.rows()).all()
    }

    /// Adds a peer, of `most` at most; gives its number. One of that name of which nothing was known but the address becomes
    /// this one, with what waits for it.
    ///
    /// # Errors
    /// [`StoreError::PeerTaken`], [`StoreError::PinsFull`], [`StoreError::PeersFull`].
    pub fn add_peer(&mut self, newcomer: &Newcomer, most: usize) -> Result<PeerId, StoreError> {
        self.transact(|rows| Peers(rows).add(newcomer, most, calendar::now()))
    }

    /// Changes the addresses of a peer and how it proves that it is that one, as `change` says; its name and number stay. Gives
    /// how it is now. `change` holds up everybody else who writes.
    ///
    /// # Errors
    /// [`StoreError::NoPeer`], [`StoreError::PinsFull`]; [`StoreError::PeerTaken`] if another peer has the key.
    pub fn change_peer(&mut self, name: &ServerName, change: impl FnOnce(&mut Peer)) -> Result<Peer, StoreError> {
        self.transact(|rows| {
            let peers = Peers(rows);
            let known = peers.all()?;
            let old = known.iter().find(|peer| peer.name == *name).ok_or_else(|| StoreError::NoPeer(name.clone()))?;
            let mut new = old.clone();
            change(&mut new);
            let new = Peer { id: old.id, name: old.name.clone(), ..new };
            peers.check_pins(&known, name, &new.verify)?;
            peers.update(new.id, &new.addresses, &new.verify)?;
            Ok(new)
        })
    }
}

/// The peers of a database.
pub(super) struct Peers<'a>(pub(super) Rows<'a>);

impl Peers<'_> {
    pub(super) fn all(&self) -> Result<Vec<Peer>, StoreError> {
        let mut all = Vec::new();
        let mut bad = None;
        self.0.each("SELECT peer, name, addresses, pins, verify FROM peers ORDER BY name", [], |row| {
            let text = |column| row.get::<_, String>(column);
            let (id, name) = (PeerId(unsigned(row.get(0)?)), text(1)?);
            match read(id, &name, &text(2)?, &text(3)?, &text(4)?) {
                Ok(peer) => all.push(peer),
                Err(detail) => bad = Some((name, detail)),
            }
            Ok(bad.is_none())
        })?;
        match bad {
            None => Ok(all),
            Some((name, detail)) => Err(StoreError::BadPeer { path: self.0.path.to_owned(), name, detail }),
        }
    }

    /// The number of the peer with this name.
    pub(super) fn find(&self, name: &ServerName) -> Result<Option<PeerId>, StoreError> {
        self.0.first("SELECT peer FROM peers WHERE name = ?1", [name.as_str()], |row| Ok(PeerId(unsigned(row.get(0)?))))
    }

    /// As [`Database::add_peer`].
    pub(super) fn add(&self, newcomer: &Newcomer, most: usize, now: i64) -> Result<PeerId, StoreError> {
        let Newcomer { name, addresses, verify } = newcomer;
        let known = self.all()?;
        self.check_pins(&known, name, verify)?;
        match known.iter().find(|peer| peer.name == *name) {
            None if self.make_room(most)? => self.insert(name, addresses, verify, now),
            None => Err(StoreError::PeersFull { most }),
            Some(peer) if peer.verify == Verify::Open => {
                self.update(peer.id, addresses, verify)?;
                Ok(peer.id)
            }
            Some(_) => Err(StoreError::PeerTaken(name.clone())),
        }
    }

    /// The peer that has this name because of its address, and whether it is new; none if there is no room for another. One of
    /// that name that has proved who it is, or will, is not new.
    pub(super) fn meet(&self, name: &ServerName, address: &HostPort, most: usize, now: i64) -> Result<Option<(PeerId, bool)>, StoreError> {
        if let Some(id) = self.find(name)? {
            return Ok(Some((id, false)));
        }
        if !self.make_room(most)? {
            return Ok(None);
        }
        self.insert(name, std::slice::from_ref(address), &Verify::Open, now).map(|id| Some((id, true)))
    }

    pub(super) fn update(&self, id: PeerId, addresses: &[HostPort], verify: &Verify) -> Result<(), StoreError> {
        let (pins, word) = written(verify);
        let sql = "UPDATE peers SET addresses = ?2, pins = ?3, verify = ?4 WHERE peer = ?1";
        self.0.execute(sql, params![signed(id.0), list(addresses), pins, word])?;
        Ok(())
    }

    fn insert(&self, name: &ServerName, addresses: &[HostPort], verify: &Verify, now: i64) -> Result<PeerId, StoreError> {
        let (pins, word) = written(verify);
        let sql = "INSERT INTO peers (name, addresses, pins, verify, added, last, messages, bytes, tries, seen)
                   VALUES (?1, ?2, ?3, ?4, ?5, 0, 0, 0, 0, 0)";
        self.0.execute(sql, params![name.as_str(), list(addresses), pins, word, now])?;
        Ok(PeerId(unsigned(self.0.connection.last_insert_rowid())))
    }

    /// Each key says who its owner is, so no two peers have the same.
    fn check_pins(&self, known: &[Peer], name: &ServerName, verify: &Verify) -> Result<(), StoreError> {
        let Verify::Pins(pins) = verify else { return Ok(()) };
        if pins.len() > PINS_MAX {
            return Err(StoreError::PinsFull(name.clone()));
        }
        let of_another = |peer: &Peer| peer.name != *name && pins.iter().any(|pin| peer.verify.has(pin));
        if known.iter().any(of_another) { Err(StoreError::PeerTaken(name.clone())) } else { Ok(()) }
    }

    /// Whether there is room for another peer. Those of which nothing is known but the address, and for which nothing waits,
    /// make room for it, the oldest first.
    fn make_room(&self, most: usize) -> Result<bool, StoreError> {
        let count = self.0.first("SELECT count(*) FROM peers", [], |row| row.get(0))?.map_or(0, unsigned);
        let over = count.saturating_add(1).saturating_sub(most as u64);
        if over == 0 {
            return Ok(true);
        }
        let sql = "DELETE FROM peers WHERE peer IN
                   (SELECT peer FROM peers WHERE verify = 'open' AND messages = 0 ORDER BY peer LIMIT ?1)";
        Ok(self.0.execute(sql, [signed(over)])? as u64 == over)
    }
}

impl Verify {
    /// Whether this key proves it.
    pub(super) fn has(&self, pin: &Pin) -> bool {
        matches!(self, Verify::Pins(pins) if pins.contains(pin))
    }
}

/// The name of a server of which nothing is known but its address; none for an address that cannot be one.
pub(super) fn name_of(address: &HostPort) -> Option<ServerName> {
    ServerName::new(&address.without_brackets()).ok()
}

/// As they stand in the table: the keys, and the word.
fn written(verify: &Verify) -> (String, &'static str) {
    match verify {
        Verify::Pins(pins) => (list(pins), "pins"),
        Verify::Nothing => (list::<Pin>(&[]), "nothing"),
        Verify::Open => (list::<Pin>(&[]), "open"),
    }
}

/// A JSON list of texts.
fn list<T: ToString>(items: &[T]) -> String {
    serde_json::Value::from(items.iter().map(ToString::to_string).collect::<Vec<_>>()).to_string()
}

/// The other way round.
fn unlist<T: FromStr<Err: ToString>>(text: &str) -> Result<Vec<T>, String> {
    let items: Vec<String> = serde_json::from_str(text).map_err(|e| e.to_string())?;
    items.iter().map(|item| item.parse().map_err(|e: T::Err| e.to_string())).collect()
}

fn read(id: PeerId, name: &str, addresses: &str, pins: &str, verify: &str) -> Result<Peer, String> {
    let name = ServerName::new(name).map_err(|e| e.to_string())?;
    let verify = match verify {
        "pins" => Verify::Pins(unlist(pins)?),
        "nothing" => Verify::Nothing,
        _ => Verify::Open,
    };
    Ok(Peer { id, name, addresses: unlist(addresses)?, verify })
}

#[cfg(test)]
mod tests;
