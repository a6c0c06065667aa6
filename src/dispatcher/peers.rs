//! The other servers: which there are, and who may speak as one of them.

use crate::config::FederationMode;
use crate::name::{PeerId, ServerName};
use crate::store::mail::Destination;
use crate::store::{Peer, Verify};
use crate::tls::Pin;
use crate::transport::HostPort;
use foldhash::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

/// Addresses whose messages are counted at once; beyond that, nothing more is taken from new ones for a while.
const SOURCES_MAX: usize = 65_536;

/// What is known of the other side of a connection, whatever it says itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// The key of a certificate, which it proved to have.
    pub key: Option<Pin>,
    /// Where it connects from; nothing of a UNIX socket.
    pub address: Option<IpAddr>,
    /// Nothing is encrypted.
    pub plain: bool,
}

/// Another server on a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Remote {
    /// Which peer; none if nothing is known of it.
    pub(super) peer: Option<PeerId>,
    /// Its name; of one that is no peer, the address that it connects from.
    pub(super) name: Box<str>,
    /// Whether it proved that this is its name.
    pub(super) verified: bool,
    /// The address, if what it sends is counted by that.
    source: Option<IpAddr>,
}

/// The table of peers.
#[derive(Debug)]
pub(super) struct Peers {
    /// Our own name, which is nobody else's.
    own: ServerName,
    mode: FederationMode,
    /// What an address may send in a second that is no peer.
    open_per_second: usize,
    peers: HashMap<PeerId, Peer>,
    by_name: HashMap<ServerName, PeerId>,
    by_address: HashMap<HostPort, PeerId>,
    /// The same of those of which nothing else is known.
    open: HashMap<HostPort, PeerId>,
    by_key: HashMap<Pin, PeerId>,
    /// What those have sent that are no peers, in the current second.
    sent: HashMap<IpAddr, usize>,
    second: Option<Instant>,
}

impl Peers {
    pub(super) fn new(own: ServerName, mode: FederationMode, open_per_second: usize) -> Peers {
        Peers {
            own,
            mode,
            open_per_second,
            peers: HashMap::default(),
            by_name: HashMap::default(),
            by_address: HashMap::default(),
            open: HashMap::default(),
            by_key: HashMap::default(),
            sent: HashMap::default(),
            second: None,
        }
    }

    /// There are these now. Gives those of before that are gone, or prove in another way who they are.
    pub(super) fn replace(&mut self, peers: Vec<Peer>) -> HashSet<PeerId> {
        let before = std::mem::take(&mut self.peers);
        (self.by_name, self.by_address, self.open, self.by_key) = Default::default();
        for peer in peers {
            self.by_name.insert(peer.name.clone(), peer.id);
            let by_address = if peer.verify == Verify::Open { &mut self.open } else { &mut self.by_address };
            by_address.extend(peer.addresses.iter().map(|address| (address.clone(), peer.id)));
            if let Verify::Pins(pins) = &peer.verify {
                self.by_key.extend(pins.iter().map(|pin| (*pin, peer.id)));
            }
            self.peers.insert(peer.id, peer);
        }
        let same = |peer: &Peer| self.peers.get(&peer.id).is_some_and(|now| now.verify == peer.verify && now.name == peer.name);
        before.values().filter(|peer| !same(peer)).map(|peer| peer.id).collect()
    }

    /// Whether a connection of which this is known may be a peer's.
    pub(super) fn know(&self, proof: &Proof) -> bool {
        match (self.mode, proof.key) {
            (FederationMode::Off, _) => false,
            (_, Some(key)) => self.by_key.contains_key(&key),
            (_, None) => proof.plain && self.at(proof.address).next().is_some(),
        }
    }

    /// The peers that are believed because they connect from there.
    fn at(&self, address: Option<IpAddr>) -> impl Iterator<Item = &Peer> {
        let address = address.map(|address| address.to_canonical());
        let is_there = move |at: &HostPort| address.is_some() && at.host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical()) == address;
        self.peers.values().filter(move |peer| peer.verify == Verify::Nothing && peer.addresses.iter().any(is_there))
    }

    /// Who it is that says to be the server of this name, or why nobody may say so: for the log. It is always the same that is
    /// told to the other side.
    pub(super) fn judge(&self, proof: &Proof, claimed: Option<&str>) -> Result<Remote, String> {
        if self.mode == FederationMode::Off {
            return Err("federation.mode is off".to_owned());
        }
        match self.peer_of(proof, claimed) {
            Ok(peer) => {
                let verified = matches!(peer.verify, Verify::Pins(_));
                Ok(Remote { peer: Some(peer.id), name: peer.name.as_str().into(), verified, source: None })
            }
            Err(_) if self.mode == FederationMode::Open => {
                let name = proof.address.map_or("unknown".into(), |address| address.to_canonical().to_string().into());
                Ok(Remote { peer: None, name, verified: false, source: proof.address })
            }
            Err(why) => Err(why),
        }
    }

    fn peer_of(&self, proof: &Proof, claimed: Option<&str>) -> Result<&Peer, String> {
        let Some(key) = proof.key else {
            let mut there = self.at(proof.address).filter(|peer| claimed.is_none_or(|name| name == peer.name.as_str()));
            return match (proof.plain, there.next(), there.next()) {
                (true, Some(peer), None) => Ok(peer),
                (true, ..) => Err("it does not use TLS, and is not known by its address".to_owned()),
                (false, ..) => Err("it has no certificate".to_owned()),
            };
        };
        let peer = self.by_key.get(&key).and_then(|id| self.peers.get(id));
        let Some(peer) = peer else { return Err(format!("no peer has the key {key} (bester peer add makes one known)")) };
        match claimed {
            Some(name) if name == peer.name.as_str() => Ok(peer),
            Some(name) if name == self.own.as_str() => Err(format!("its key is that of {}, and the name is our own", peer.name)),
            Some(_) => Err(format!("its key is that of {}", peer.name)),
            None => Err(format!("it does not say its name (header.server); its key is that of {}", peer.name)),
        }
    }

    /// Whether somebody who is no peer sends more than he may.
    pub(super) fn is_too_much(&mut self, now: Instant, remote: &Remote) -> bool {
        let Some(source) = remote.source else { return false };
        if self.second.is_none_or(|second| now.saturating_duration_since(second).as_secs() >= 1) {
            self.second = Some(now);
            self.sent.clear();
        }
        if self.sent.len() >= SOURCES_MAX && !self.sent.contains_key(&source) {
            return true;
        }
        let sent = self.sent.entry(source).or_default();
        *sent += 1;
        *sent > self.open_per_second
    }

    /// Where a name in a handler's answer leads: the name of a peer, or an address of one; with `open`, any other address.
    pub(super) fn destination(&self, name: &str) -> Option<Destination> {
        if self.mode == FederationMode::Off || name == self.own.as_str() {
            return None;
        }
        if let Some(peer) = self.by_name.get(name.as_bytes()) {
            return Some(Destination::Peer(*peer));
        }
        let address: HostPort = name.parse().ok()?;
        match self.by_address.get(&address) {
            Some(peer) => Some(Destination::Peer(*peer)),
            None => (self.mode == FederationMode::Open).then_some(Destination::Address(address)),
        }
    }

    /// The peer to which a message goes, if there is one by now.
    pub(super) fn find(&self, destination: &Destination) -> Option<PeerId> {
        match destination {
            Destination::Peer(peer) => Some(*peer),
            Destination::Address(address) => self.open.get(address).copied(),
        }
    }

    /// The name of a peer.
    pub(super) fn name(&self, peer: PeerId) -> Option<&str> {
        self.peers.get(&peer).map(|peer| peer.name.as_str())
    }
}

/// Who sent a message that came from another server.
#[derive(Debug, Clone)]
pub(super) struct Abroad {
    pub(super) remote: Arc<Remote>,
    /// The user, by the other server's word.
    pub(super) user: Option<Box<str>>,
    /// How often it was passed on from server to server.
    pub(super) hops: u8,
}
