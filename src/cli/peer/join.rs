//! Both ends of an invitation.

use super::{address_of, card, identity, ours, tell_server};
use crate::cli::status::age;
use crate::cli::{Failure, control, warn};
use crate::config::Config;
use crate::federation::invitation::{Invitation, Secret};
use crate::federation::joining::{self, NotJoined};
use crate::store::{Database, Newcomer, Peer, StoreError, Verify};
use crate::transport::HostPort;
use serde_json::json;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// `bester peer invite`: the invitation itself.
pub(super) fn invite(config: &Config) -> Result<String, Failure> {
    address_of(config)?;
    // Before the key, as it says better what somebody else than the server's user has to do.
    let mut database = Database::open(&config.database)?;
    let card = card(config)?;
    let secret = Secret::random().map_err(|error| Failure::unavailable(format_args!("there are no random numbers: {error}")))?;
    let age_max = config.limits.invite_age.as_secs();
    let until = now().saturating_add(age_max);
    database.invite(&secret.digest(), until.cast_signed())?;
    let address = card.address.clone();
    warn(format_args!("the other server joins with this, once, within {}: bester peer join INVITATION", age(age_max)));
    warn("whoever has it can join: send it in a way that nobody else can read");
    warn(format_args!("it says that this server is at {address} (federation.address changes that)"));
    if let Some(words) = unreachable(config, &address) {
        warn(words);
    }
    Ok(Invitation { card, secret, until }.to_string())
}

/// What is said when others are sent to an address where nobody can connect.
pub(super) fn unreachable(config: &Config, address: &HostPort) -> Option<String> {
    let listens = config.network.tls.as_ref()?.address;
    let is_here = address.host == "localhost" || address.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    (listens.ip().is_loopback() && !is_here).then(|| {
        let file = config.file.display();
        format!("but it listens on {listens}, for this machine only: set the address of network.tls in {file}, and start it again")
    })
}

/// `bester peer join`. Says what was done.
pub(super) fn join(config: &Config, invitation: &Invitation) -> Result<String, Failure> {
    let address = address_of(config)?;
    let ours = ours(config)?;
    let name = &invitation.card.server;
    if invitation.card.pin == identity(config)?.pin() {
        return Err(Failure::data("this is an invitation of this server itself: the other one joins with it"));
    }
    if *name == config.server.name {
        return Err(Failure::data(format_args!(
            "the invitation is one of a server called {name}, and so is this one: if it is another one, give one of them another server.name"
        )));
    }
    let mut database = Database::open(&config.database)?;
    let before = database.peers()?.into_iter().find(|peer| peer.name == *name);
    if let Some(peer) = before.as_ref().filter(|peer| has_pin(peer, invitation))
        && joining::is_known_to(peer, &ours).is_ok()
    {
        // It may not have been told when that was done.
        tell_server(config);
        return Ok(format!("{name} and this server know each other already"));
    }
    if let Some(late) = now().checked_sub(invitation.until).filter(|late| *late > 0) {
        return Err(Failure::data(format_args!("the invitation ended {} ago: ask for another", age(late))));
    }
    let host = joining::connect(invitation, &ours).map_err(|words| {
        let what = "does it run, and are address and key still those of the invitation? Its operator sees that with bester peer show";
        Failure::unavailable(format_args!("{name} is not reached: {words}: {what}"))
    })?;
    remember(&mut database, config, invitation, before.as_ref())?;
    // At once, as the other server connects to this one as soon as it lets it join.
    tell_server(config);
    match host.join(invitation, &[address], &ours) {
        Ok(()) => {
            // What was tried before was too early. Without a server there is nothing to be tried.
            let _ = control::ask(config, "retryPeer", &json!(name.as_str()), control::AT_ONCE);
            Ok(format!("{name} and this server know each other now"))
        }
        Err(NotJoined::Refused { words, temporary }) => {
            take_back(&mut database, invitation, before)?;
            tell_server(config);
            let words = format!("{name} does not let this server join: {words}");
            Err(if temporary { Failure::temporary(words) } else { Failure::data(words) })
        }
        Err(NotJoined::Unknown(words)) => {
            Err(Failure::temporary(format_args!("{name} did not say whether this server has joined ({words}): do the same again")))
        }
    }
}

fn has_pin(peer: &Peer, invitation: &Invitation) -> bool {
    matches!(&peer.verify, Verify::Pins(pins) if pins.contains(&invitation.card.pin))
}

/// Makes the server that invites a peer, before it makes us one: whatever happens in between, it can be done again.
fn remember(database: &mut Database, config: &Config, invitation: &Invitation, before: Option<&Peer>) -> Result<(), Failure> {
    let card = &invitation.card;
    match before {
        Some(peer) if has_pin(peer, invitation) => {
            database.change_peer(&card.server, |peer| {
                peer.addresses.retain(|address| *address != card.address);
                peer.addresses.insert(0, card.address.clone());
            })?;
        }
        Some(peer) if peer.verify != Verify::Open => {
            return Err(Failure::data(format_args!(
                "a server called {0} is known here already, without this key: bester peer remove {0} forgets that one",
                card.server
            )));
        }
        _ => {
            let verify = Verify::Pins(vec![card.pin]);
            let newcomer = Newcomer { name: card.server.clone(), addresses: vec![card.address.clone()], verify };
            database.add_peer(&newcomer, config.limits.peers)?;
        }
    }
    Ok(())
}

/// As it was before.
fn take_back(database: &mut Database, invitation: &Invitation, before: Option<Peer>) -> Result<(), StoreError> {
    let name = &invitation.card.server;
    match before {
        Some(before) => database.change_peer(name, |peer| *peer = before).map(drop),
        // Whoever could send to it so far has been quick: what he sent is given up.
        None => database.remove_peer(name).map(drop),
    }
}
