//! The block `federation`: other servers.

use super::block::{Item, Reader};
use super::read::keys;
use super::{Federation, FederationMode};
use crate::transport::HostPort;

impl Reader {
    /// Reads the whole block.
    pub(super) fn federation(&mut self, item: Option<Item<'_>>) -> Federation {
        let mut federation = Federation { mode: FederationMode::Peers, address: None };
        let Some(block) = item.and_then(|item| self.block(item, keys("federation"))) else { return federation };
        let modes = [("off", FederationMode::Off), ("peers", FederationMode::Peers), ("open", FederationMode::Open)];
        if let Some(mode) = block.item("mode").and_then(|item| self.choice(&item, &modes)) {
            federation.mode = mode;
        }
        federation.address = block.item("address").and_then(|item| self.host_port(&item));
        federation
    }

    fn host_port(&mut self, item: &Item<'_>) -> Option<HostPort> {
        let text = self.text(item)?;
        text.parse().ok().or_else(|| self.refuse(item, "HOST:PORT, such as \"chat.example.org:2224\""))
    }
}
