//! What connections of other servers ask of this room: to become a peer, and whether the way back works.

use super::links::Links;
use crate::connection::server::Introduction;
use crate::name::ServerName;
use crate::protocol::reason::Reason;
use crate::store::mail::Digest;
use crate::store::{Store, StoreError};
use crate::tls::Pin;
use crate::transport::HostPort;
use log::{error, info};
use serde_json::json;
use std::sync::Arc;

/// Has it done.
#[derive(Debug)]
pub struct Introducer {
    /// Our name.
    pub own: ServerName,
    /// The peers.
    pub store: Store,
    /// All links; none with `federation.mode` `off`.
    pub links: Option<Arc<Links>>,
}

impl Introducer {
    fn links(&self) -> Result<&Links, (Reason, String)> {
        self.links.as_deref().ok_or_else(|| (Reason::Forbidden, "this server has nothing to do with others".to_owned()))
    }
}

impl Introduction for Introducer {
    fn join(&self, secret: Digest, name: ServerName, addresses: Vec<HostPort>, key: Pin) -> Result<String, (Reason, String)> {
        let links = self.links()?;
        if name == self.own {
            return Err((Reason::Forbidden, format!("{name} is the name of this server: give yours another (server.name)")));
        }
        self.store.accept_invitation(secret, name.clone(), addresses, key).map_err(refusal)?;
        info!("server {name} was invited and is a peer now; its key is {key}");
        // It is on the disk, whatever comes of this.
        if let Err(words) = links.refresh() {
            error!("the new peer {name} is not linked: {words}");
        }
        Ok(json!({ "server": self.own.as_str() }).to_string())
    }

    fn dial_back(&self, name: &str) -> Result<String, (Reason, String)> {
        let name = ServerName::new(name).map_err(|error| (Reason::Malformed, error.to_string()))?;
        Ok(self.links()?.dial_back(&name).to_string())
    }
}

fn refusal(error: StoreError) -> (Reason, String) {
    match error {
        StoreError::NoInvitation => {
            (Reason::Forbidden, "there is no such invitation, or it is too old, or was used: ask for another".to_owned())
        }
        StoreError::PeerTaken(name) => {
            (Reason::Forbidden, format!("another server is known here as {name}, or by your key: bester peer remove here forgets it"))
        }
        StoreError::PeersFull { .. } => (Reason::Busy, "this server has as many peers as it may".to_owned()),
        StoreError::Busy => (Reason::Busy, "the database is busy; try again".to_owned()),
        StoreError::Stopped => (Reason::Draining, "this server is stopping".to_owned()),
        error => {
            error!("an invitation: {}", error.with_causes());
            (Reason::Storage, "the peers cannot be used at the moment".to_owned())
        }
    }
}
