//! What is done with a card: a server becomes known, or is known by one more address and key.

use super::tell_server;
use crate::cli::{Failure, warn};
use crate::config::Config;
use crate::federation::invitation::Card;
use crate::name::ServerName;
use crate::store::{Database, Newcomer, Peer, StoreError, Verify};
use crate::transport::HostPort;

/// `bester peer add CARD`. Says what was done.
pub(super) fn card(config: &Config, card: &Card, replace: bool) -> Result<String, Failure> {
    let Card { server, address, pin } = card;
    let newcomer = Newcomer { name: server.clone(), addresses: vec![address.clone()], verify: Verify::Pins(vec![*pin]) };
    add(config, newcomer, replace, |peer| {
        if let Verify::Pins(pins) = &mut peer.verify
            && !replace
        {
            if !pins.contains(pin) {
                pins.push(*pin);
            }
            return Ok(());
        }
        // One that proved nothing does so from now on; the other way round it must be said.
        peer.verify = Verify::Pins(vec![*pin]);
        Ok(())
    })
}

/// `bester peer add NAME --verify none`. Says what was done.
pub(super) fn insecure(config: &Config, name: &ServerName, addresses: &[HostPort], replace: bool) -> Result<String, Failure> {
    let newcomer = Newcomer { name: name.clone(), addresses: addresses.to_vec(), verify: Verify::Nothing };
    let done = add(config, newcomer, replace, |peer| match &peer.verify {
        Verify::Pins(_) if !replace => {
            Err(Failure::data(format_args!("{} proves its key: --replace has it believed without a proof", peer.name)))
        }
        _ => {
            peer.verify = Verify::Nothing;
            Ok(())
        }
    })?;
    warn(format_args!(
        "whoever connects from an address of {name} is taken for it, and nothing is encrypted: only for a network that you trust"
    ));
    Ok(done)
}

/// Adds a peer, or has `change` change how a known one proves who it is.
fn add(
    config: &Config,
    newcomer: Newcomer,
    replace: bool,
    change: impl FnOnce(&mut Peer) -> Result<(), Failure>,
) -> Result<String, Failure> {
    let name = newcomer.name.clone();
    if name == config.server.name {
        return Err(Failure::data(format_args!("{name} is this server itself")));
    }
    let mut database = Database::open(&config.database)?;
    let known = database.peers()?.into_iter().find(|peer| peer.name == name && peer.verify != Verify::Open);
    let done = match known {
        None => {
            database.add_peer(&newcomer, config.limits.peers)?;
            format!("{name} is known now")
        }
        Some(old) => {
            let mut refused = Ok(());
            let new = database.change_peer(&name, |peer| {
                refused = change(peer);
                if refused.is_err() {
                    return;
                }
                if replace {
                    peer.addresses.clear();
                }
                // The newest is tried first.
                peer.addresses.retain(|address| !newcomer.addresses.contains(address));
                peer.addresses.splice(0..0, newcomer.addresses.iter().cloned());
            });
            refused?;
            let new = new.map_err(|error| match error {
                StoreError::PinsFull(_) => Failure::data(format_args!("{error}: --replace keeps the new one alone")),
                error => error.into(),
            })?;
            if new == old { format!("{name} is known as that already") } else { format!("{name} is known by that, too") }
        }
    };
    tell_server(config);
    Ok(if replace { format!("{name} is known by that alone") } else { done })
}
