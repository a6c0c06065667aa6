//! Tries the way to a peer, step by step, and says what to do about the one that fails.
//!
//! Called by `bester peer check`, and by a server whose peer asks it to try the way back.

use super::bell::Bell;
use super::wire::{self, Ours, Wire, Words};
use crate::protocol::server;
use crate::store::{Peer, Verify};
use crate::tls::{Pin, TlsError};
use crate::transport::HostPort;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// The `payload.id` of what is sent.
const ID: &str = "check";
/// How long the other server may take to try the way back.
const BACK_WITHIN: Duration = Duration::from_secs(60);
/// Steps of another server that are shown, and the length of each.
const STEPS_MAX: usize = 40;

/// What one step came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Which step; those of the way back begin with `back: `.
    pub step: String,
    /// Whether it was done.
    pub ok: bool,
    /// What was found, or what to do about it, in words for people.
    pub words: String,
}

/// What another server says of the way back.
#[derive(Deserialize)]
struct Back {
    steps: Vec<Step>,
}

/// Steps as they are sent and printed.
pub fn in_json(steps: &[Step]) -> Value {
    json!({ "steps": steps })
}

/// Tries the way to `peer`: for each address to look it up, to connect, to prove and have proved who is there, to ask the name, and
/// how long a message takes. With `back` the peer is asked to try the way to us. It ends with the first step that fails at the
/// last address.
pub fn check(peer: &Peer, ours: &Ours, back: bool) -> Vec<Step> {
    let mut steps = Steps(Vec::new());
    let bell = match Bell::new() {
        Ok(bell) => bell,
        Err(error) => return vec![Step { step: "start".to_owned(), ok: false, words: error.to_string() }],
    };
    if peer.addresses.is_empty() {
        steps.failed("resolve", "no address of it is known: bester peer add with its card adds one".to_owned());
    }
    for address in &peer.addresses {
        let Some(stream) = connect(&mut steps, address, ours, &bell) else { continue };
        let done = match &peer.verify {
            Verify::Pins(pins) => greet(&mut steps, stream, address, pins, peer, ours, back, &bell),
            Verify::Nothing | Verify::Open => {
                steps.ok("TLS", "not used: this peer proves nothing, and nothing is encrypted".to_owned());
                Some(())
            }
        };
        if done.is_some() {
            break;
        }
    }
    steps.0
}

struct Steps(Vec<Step>);

impl Steps {
    fn ok(&mut self, step: &str, words: Words) {
        self.0.push(Step { step: step.to_owned(), ok: true, words });
    }

    fn failed(&mut self, step: &str, words: Words) {
        self.0.push(Step { step: step.to_owned(), ok: false, words });
    }
}

fn connect(steps: &mut Steps, address: &HostPort, ours: &Ours, bell: &Bell) -> Option<TcpStream> {
    let numbers = match wire::resolve(address) {
        Ok(numbers) => numbers,
        Err(words) => {
            steps.failed("resolve", format!("{words}: is the address right, and does this machine know names (cat /etc/resolv.conf)?"));
            return None;
        }
    };
    let list: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    steps.ok("resolve", format!("{address} is {}", list.join(", ")));
    let mut trouble = None;
    for number in numbers {
        match wire::dial(number, ours.connect_by(), bell) {
            Ok(stream) => {
                steps.ok("connect", format!("{number} takes connections"));
                return Some(stream);
            }
            Err(words) => trouble = Some(words),
        }
    }
    let trouble = trouble.unwrap_or_default();
    let what = "does the other server run, does it listen on an address that others reach (network.tls), and do firewalls let it through?";
    steps.failed("connect", format!("{trouble}: {what}"));
    None
}

#[expect(clippy::too_many_arguments, reason = "they are what a step needs, once")]
fn greet(
    steps: &mut Steps,
    stream: TcpStream,
    address: &HostPort,
    pins: &[Pin],
    peer: &Peer,
    ours: &Ours,
    back: bool,
    bell: &Bell,
) -> Option<()> {
    let failed = |steps: &mut Steps, step: &str, words: Words| {
        steps.failed(step, words);
        None
    };
    let socket = match wire::secure(stream, &address.host, pins, ours, ours.connect_by()) {
        Ok(socket) => socket,
        Err(error @ TlsError::WrongPin(_)) => {
            steps.ok("TLS", "encrypted".to_owned());
            let what =
                "if it has a new key, have its operator run bester peer show there, and run bester peer add here with what that prints";
            return failed(steps, "pin", format!("{error}: {what}; if not, somebody else is at this address"));
        }
        Err(error) => return failed(steps, "TLS", format!("{error}: is this the port of network.tls there?")),
    };
    steps.ok("TLS", "encrypted".to_owned());
    steps.ok("pin", "it has the key that is known here".to_owned());
    let mut wire = match Wire::new(socket, ours) {
        Ok(wire) => wire,
        Err(words) => return failed(steps, "name", words),
    };
    if let Err(words) = wire.greet(&peer.name, ours, bell) {
        let what = "does it know this server (bester peer list there), by this name and with this key (bester peer show here)?";
        return failed(steps, "name", format!("{words}: {what}"));
    }
    steps.ok("name", format!("it is {}", peer.name));
    let before = Instant::now();
    let ping = server::command(ours.name.as_str(), ID, "ping", "null", None);
    match wire.command(ID, ping, ours, ours.report_by(), bell) {
        Ok(report) if report.good => steps.ok("round trip", format!("{:.1} ms", before.elapsed().as_secs_f64() * 1000.0)),
        Ok(report) => return failed(steps, "round trip", wire::said(&report)),
        Err(words) => return failed(steps, "round trip", words),
    }
    if back {
        dial_back(steps, &mut wire, ours, bell);
    }
    Some(())
}

fn dial_back(steps: &mut Steps, wire: &mut Wire, ours: &Ours, bell: &Bell) {
    let packet = server::command(ours.name.as_str(), ID, "dialBack", "null", None);
    let report = match wire.command(ID, packet, ours, Instant::now() + BACK_WITHIN, bell) {
        Ok(report) if report.good => report,
        Ok(report) => return steps.failed("back", wire::said(&report)),
        Err(words) => return steps.failed("back", words),
    };
    let data = report.data.as_ref().map_or(&b""[..], |data| data.bytes());
    match serde_json::from_slice::<Back>(data) {
        Ok(found) if !found.steps.is_empty() => {
            for Step { step, ok, words } in found.steps.into_iter().take(STEPS_MAX) {
                steps.0.push(Step { step: format!("back: {}", wire::plain(&step)), ok, words: wire::plain(&words) });
            }
        }
        _ => steps.failed("back", "it does not say whether it can reach this server".to_owned()),
    }
}
