//! One message to a server that proves nothing: a connection without TLS, one frame, one report, the end.
//!
//! Where nothing is known of the other server, its address may come from anybody: it is looked up once, and what was found is
//! judged and connected to. What is not public is refused for good, without a connection.

use super::bell::Bell;
use super::public;
use super::wire::{self, Ours, Wire, Words};
use crate::frame::Packet;
use crate::protocol::server::Report;
use crate::store::{Peer, Verify};
use crate::transport::{HostPort, Socket};
use std::net::{SocketAddr, UdpSocket};

/// Why there is no report.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// Trying again may help.
    Now(Words),
    /// It must not be tried.
    Never(Words),
}

/// Sends this and waits for the one report. The addresses are tried in turn, until one can be connected to.
pub(super) fn exchange(peer: &Peer, ours: &Ours, bell: &Bell, packet: Packet) -> Result<Report, Failed> {
    let mut trouble = Failed::Now("it has no address: add one with bester peer add".to_owned());
    for address in &peer.addresses {
        let numbers = match numbers(peer, address, ours) {
            Ok(numbers) => numbers,
            Err(failed) => {
                trouble = failed;
                continue;
            }
        };
        for number in numbers {
            match wire::dial(number, ours.connect_by(), bell) {
                // It may have the message from here on: another address must not get it as well.
                Ok(stream) => {
                    let deadline = ours.report_by();
                    let asked = Wire::new(Socket::Tcp(stream), ours).and_then(|mut wire| wire.ask(packet, |_| true, ours, deadline, bell));
                    return asked.map_err(Failed::Now);
                }
                Err(words) => trouble = Failed::Now(format!("{address}: {words}")),
            }
        }
    }
    Err(trouble)
}

/// The numbers that may be connected to.
fn numbers(peer: &Peer, address: &HostPort, ours: &Ours) -> Result<Vec<SocketAddr>, Failed> {
    let mut numbers = wire::resolve(address).map_err(Failed::Now)?;
    if peer.verify == Verify::Open {
        let forbidden = |number: &SocketAddr| public::check(*number, &ours.listening).err().or_else(|| is_here(*number));
        if let Some((number, what)) = numbers.iter().find_map(|number| Some((number, forbidden(number)?))) {
            return Err(Failed::Never(format!(
                "{address} is {number}: it is {what}, and no server of which nothing is known may be there"
            )));
        }
        // Exactly one is tried, so that nobody learns of others by how long it takes.
        numbers.truncate(1);
    }
    Ok(numbers)
}

/// Whatever it is called outside, this machine can be reached by it.
fn is_here(number: SocketAddr) -> Option<&'static str> {
    UdpSocket::bind((number.ip(), 0)).is_ok().then_some("an address of this machine")
}
