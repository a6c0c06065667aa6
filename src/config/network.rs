//! The block `network`: where clients connect; and who has which socket.

use super::block::{Block, Item, Reader};
use super::json::{Value, join};
use super::mistake::{Fault, Position};
use super::read::keys;
use super::{Network, TlsFiles, TlsListen, UnixListen};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// The kinds of listeners.
const LISTENERS: [&str; 4] = ["tcp4", "tcp6", "unix", "tls"];

impl Reader {
    /// Reads the whole block. Listeners that `types` leaves out are checked, and then left out.
    pub(super) fn network(&mut self, root: &Block<'_>, sockets: &mut Sockets) -> Network {
        let Some(item) = root.item("network") else {
            let wanted = "a block with at least one of tcp4, tcp6, unix and tls";
            self.note(root.at, "network".to_owned(), Fault::Missing(wanted));
            return Network::default();
        };
        let Some(block) = self.block(item, keys("network")) else {
            return Network::default();
        };
        let types = block.item("types").map(|item| self.listener_types(&block, &item));
        let used = |name| types.as_ref().is_none_or(|types| types.contains(&name));
        if types.is_none() && !LISTENERS.iter().any(|name| block.has(name)) {
            let wanted = "at least one of the blocks tcp4, tcp6, unix and tls";
            self.note(block.at, block.path.clone(), Fault::Missing(wanted));
        }
        // A block that is not used is checked all the same.
        let tcp4 = block.item("tcp4").and_then(|item| self.tcp(item, "network.tcp4"));
        let tcp6 = block.item("tcp6").and_then(|item| self.tcp(item, "network.tcp6"));
        let unix = block.item("unix").and_then(|item| self.unix(item, sockets, used("unix")));
        let tls = block.item("tls").and_then(|item| self.tls(item));
        Network {
            tcp4: tcp4.filter(|_| used("tcp4")),
            tcp6: tcp6.filter(|_| used("tcp6")),
            unix: unix.filter(|_| used("unix")),
            tls: tls.filter(|_| used("tls")),
        }
    }

    fn listener_types(&mut self, network: &Block<'_>, item: &Item<'_>) -> Vec<&'static str> {
        let mut types = Vec::new();
        let Some(list) = self.list(item) else {
            return types;
        };
        if list.is_empty() {
            self.fault(item, Fault::Missing("at least one of \"tcp4\", \"tcp6\", \"unix\" and \"tls\""));
        }
        for item in &list {
            let choices = LISTENERS.map(|name| (name, name));
            let Some(name) = self.choice(item, &choices) else {
                continue;
            };
            if types.contains(&name) {
                self.fault(item, Fault::Twice);
            } else if !network.has(name) {
                self.fault(item, Fault::NoBlock { within: "network", near: None });
            }
            types.push(name);
        }
        types
    }

    fn tcp(&mut self, item: Item<'_>, name: &str) -> Option<SocketAddr> {
        let block = self.block(item, keys(name))?;
        let six = name == "network.tcp6";
        let address = match block.item("address") {
            Some(item) => self.address(&item, six),
            None if six => Some(IpAddr::V6(Ipv6Addr::LOCALHOST)),
            None => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        };
        let Some(port) = block.item("port") else {
            self.note(block.at, join(&block.path, "port"), Fault::Missing("a port from 0 to 65535"));
            return None;
        };
        let port = self.port(&port)?;
        Some(SocketAddr::new(address?, port))
    }

    fn tls(&mut self, item: Item<'_>) -> Option<TlsListen> {
        let block = self.block(item, keys("network.tls"))?;
        let address = match block.item("address") {
            Some(item) => {
                let text = self.text(&item)?;
                let wanted = "an address such as \"0.0.0.0\", \"127.0.0.1\" or \"::\"";
                text.parse().ok().or_else(|| self.refuse(&item, wanted))
            }
            None => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        };
        let mut path = |key| block.item(key).map(|item| self.path(&item));
        let files = match (path("certificate"), path("key")) {
            (None, None) => Some(None),
            (Some(certificate), Some(key)) => certificate.zip(key).map(|(certificate, key)| Some(TlsFiles { certificate, key })),
            (certificate, _) => {
                let missing = if certificate.is_some() { "key" } else { "certificate" };
                let wanted = "a file in PEM: certificate and key are given both, or neither and the server makes its own";
                self.note(block.at, join(&block.path, missing), Fault::Missing(wanted));
                None
            }
        };
        let Some(port) = block.item("port") else {
            self.note(block.at, join(&block.path, "port"), Fault::Missing("a port from 0 to 65535"));
            return None;
        };
        let port = self.port(&port)?;
        Some(TlsListen { address: SocketAddr::new(address?, port), files: files? })
    }

    fn address(&mut self, item: &Item<'_>, six: bool) -> Option<IpAddr> {
        let text = self.text(item)?;
        let (address, wanted) = if six {
            (text.parse().map(IpAddr::V6), "an IPv6 address such as \"::1\" or \"::\"")
        } else {
            (text.parse().map(IpAddr::V4), "an IPv4 address such as \"127.0.0.1\" or \"0.0.0.0\"")
        };
        address.ok().or_else(|| self.refuse(item, wanted))
    }

    /// A number, or the same in quotes.
    fn port(&mut self, item: &Item<'_>) -> Option<u16> {
        let digits = match &item.node.value {
            Value::Number(digits) | Value::Text(digits) => digits.as_str(),
            _ => "",
        };
        // `parse` would let a plus sign pass.
        let port = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
        port.or_else(|| self.refuse(item, "a port from 0 to 65535"))
    }

    fn unix(&mut self, item: Item<'_>, sockets: &mut Sockets, used: bool) -> Option<UnixListen> {
        let block = self.block(item, keys("network.unix"))?;
        let mode = block.item("mode").map_or(Some(0o600), |item| self.mode(&item));
        let Some(address) = block.item("address") else {
            let wanted = "the path of the socket";
            self.note(block.at, join(&block.path, "address"), Fault::Missing(wanted));
            return None;
        };
        let path = self.socket(&address)?;
        if used {
            sockets.own(self, &path, address.node.at, &address.path);
        }
        Some(UnixListen { path, mode: mode? })
    }

    fn mode(&mut self, item: &Item<'_>) -> Option<u32> {
        let text = self.text(item)?;
        let octal = (3..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
        let mode = if octal { u32::from_str_radix(text, 8).ok() } else { None };
        mode.filter(|mode| *mode <= 0o777).or_else(|| self.refuse(item, "permission bits in octal digits such as \"0660\""))
    }
}

/// The sockets that the file names so far: path, key, and whether nothing else may have the path.
#[derive(Default)]
pub(super) struct Sockets {
    taken: Vec<(PathBuf, String, bool)>,
}

impl Sockets {
    /// Notes a path where the server itself will listen: nothing else may have it.
    pub(super) fn own(&mut self, reader: &mut Reader, path: &Path, at: Position, key: &str) {
        self.add(reader, path, at, key, true);
    }

    /// Notes a path; two may share it when neither is `sole`, such as two handlers that one foreign program serves.
    pub(super) fn add(&mut self, reader: &mut Reader, path: &Path, at: Position, key: &str, sole: bool) {
        let same = |(other, _, other_sole): &&(PathBuf, String, bool)| other == path && (sole || *other_sole);
        if let Some((_, other, _)) = self.taken.iter().find(same) {
            let fault = Fault::SharedSocket { path: path.to_owned(), other: other.clone() };
            reader.note(at, key.to_owned(), fault);
        }
        self.taken.push((path.to_owned(), key.to_owned(), sole));
    }
}
