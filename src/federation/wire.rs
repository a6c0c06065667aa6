//! One connection to another server: how it is made, and what goes over it.
//!
//! Nothing here waits without a deadline, and each wait ends when the [`Bell`] says that the thread is to end; only looking up
//! a name takes as long as the system lets it.

use super::bell::Bell;
use crate::config::{Framing, Limits};
use crate::frame::{Decoder, Frame, Packet};
use crate::name::ServerName;
use crate::outlet::{Bounds, Outlet, Sent, Total};
use crate::protocol::server::{self, Report};
use crate::store::{Peer, Verify};
use crate::tls::{self, Identity, Pin, TlsError, Trust};
use crate::transport::{HostPort, Sink, Socket, TlsSocket, tcp};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with, sockopt};
use serde::Deserialize;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

const READ_BYTES: usize = 16 << 10;
/// Connecting and the handshake have so long each, or `limits.peerReportSeconds` if that is less.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Addresses of one peer that are tried at most: each may take its time.
const NUMBERS_MAX: usize = 16;
/// Characters of what others say that are repeated.
const WORDS_MAX: usize = 300;
/// The `payload.id` of the greeting.
const HELLO: &str = "hello";

/// Who we are to other servers.
#[derive(Clone)]
pub struct Ours {
    /// Our name.
    pub name: ServerName,
    /// The key that we prove to have, at the moment.
    pub identity: Arc<dyn Fn() -> Option<Arc<Identity>> + Send + Sync>,
    /// How long we wait, and what we take.
    pub limits: Limits,
    /// Where we listen.
    pub listening: Arc<[SocketAddr]>,
}

impl fmt::Debug for Ours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ours({})", self.name)
    }
}

impl Ours {
    /// By when a connection must stand that is begun now.
    pub(super) fn connect_by(&self) -> Instant {
        Instant::now() + CONNECT_WITHIN.min(self.limits.peer_report)
    }

    /// By when there must be a report on what is sent now.
    pub(super) fn report_by(&self) -> Instant {
        Instant::now() + self.limits.peer_report
    }
}

/// Why there is no connection or no answer, in words for people.
pub(super) type Words = String;

/// A connection.
pub(super) struct Wire {
    socket: Arc<Socket>,
    outlet: Outlet,
    decoder: Decoder,
}

/// The numbers that a name stands for, without those that stand there twice.
pub(super) fn resolve(address: &HostPort) -> Result<Vec<SocketAddr>, Words> {
    let found = (address.host.as_str(), address.port).to_socket_addrs();
    let found = found.map_err(|error| format!("the name {} is not found: {error}", address.host))?;
    let mut numbers: Vec<SocketAddr> = Vec::new();
    for number in found {
        if !numbers.contains(&number) && numbers.len() < NUMBERS_MAX {
            numbers.push(number);
        }
    }
    if numbers.is_empty() { Err(format!("the name {} has no address", address.host)) } else { Ok(numbers) }
}

/// Connects to one number.
pub(super) fn dial(number: SocketAddr, deadline: Instant, bell: &Bell) -> Result<TcpStream, Words> {
    let failed = |error: io::Error| format!("{number} cannot be connected to: {error}");
    let begin = || -> io::Result<_> {
        let family = if number.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, Some(ipproto::TCP))?;
        match rustix::net::connect(&socket, &number) {
            Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Ok(socket),
            Err(error) => Err(error.into()),
        }
    };
    let socket = begin().map_err(failed)?;
    while !bell.wait(Some((socket.as_fd(), PollFlags::OUT)), Some(deadline)).map_err(failed)? {
        give_up(deadline, bell).map_err(failed)?;
    }
    let finish = || -> io::Result<TcpStream> {
        sockopt::socket_error(&socket)??;
        rustix::io::ioctl_fionbio(&socket, false)?;
        let stream = TcpStream::from(socket);
        tcp::set_options(&stream)?;
        Ok(stream)
    };
    finish().map_err(failed)
}

/// An error when there is no more time.
fn give_up(deadline: Instant, bell: &Bell) -> io::Result<()> {
    if bell.is_stopped() {
        return Err(io::Error::new(ErrorKind::Interrupted, "the link ends"));
    }
    if Instant::now() >= deadline {
        return Err(io::Error::new(ErrorKind::TimedOut, "no answer in time"));
    }
    Ok(())
}

/// Makes sure that whoever is there has one of these keys, and proves that we have ours.
pub(super) fn secure(stream: TcpStream, host: &str, pins: &[Pin], ours: &Ours, deadline: Instant) -> Result<Socket, TlsError> {
    let identity = (ours.identity)();
    let config = tls::client_config(&Trust::Pins(pins.to_vec()), identity.as_deref())?;
    TlsSocket::connect(stream, &config, host, deadline).map(Socket::from)
}

/// Connects to a peer that proves who it is, and greets it. All its addresses are tried in turn.
pub(super) fn open(peer: &Peer, ours: &Ours, bell: &Bell) -> Result<Wire, Words> {
    let mut trouble = "it has no address: add one with bester peer add".to_owned();
    let Verify::Pins(pins) = &peer.verify else { return Err("it proves nothing".to_owned()) };
    let mut tried = 0;
    for address in &peer.addresses {
        let numbers = match resolve(address) {
            Ok(numbers) => numbers,
            Err(words) => {
                trouble = words;
                continue;
            }
        };
        for number in numbers {
            if bell.is_stopped() || tried == NUMBERS_MAX {
                return Err(trouble);
            }
            tried += 1;
            let opened = dial(number, ours.connect_by(), bell)
                .and_then(|stream| secure(stream, &address.host, pins, ours, ours.connect_by()).map_err(|error| error.to_string()))
                .and_then(|socket| Wire::new(socket, ours))
                .and_then(|mut wire| wire.greet(&peer.name, ours, bell).map(|()| wire));
            match opened {
                Ok(wire) => return Ok(wire),
                Err(words) => trouble = format!("{address}: {words}"),
            }
        }
    }
    Err(trouble)
}

#[derive(Deserialize)]
struct Hello {
    server: String,
}

impl Wire {
    pub(super) fn new(socket: Socket, ours: &Ours) -> Result<Wire, Words> {
        let socket = Arc::new(socket);
        // The courier bounds what is on its way; all of it fits.
        let bounds = Bounds { bytes: usize::MAX, frames: usize::MAX };
        let outlet = Outlet::new(Sink::Socket(Arc::clone(&socket)), bounds, Total::new(usize::MAX));
        Ok(Wire { socket, outlet, decoder: Decoder::new(Framing::Length, ours.limits.frame_bytes_server) })
    }

    /// Writes these, or what the other side takes of them; the rest with [`Wire::flush`].
    pub(super) fn send(&self, packets: &[Packet]) -> Result<(), Words> {
        written(self.outlet.send(packets))
    }

    /// Writes what waits, as far as the other side takes it.
    pub(super) fn flush(&self) -> Result<(), Words> {
        if self.outlet.is_waiting() { written(self.outlet.flush()) } else { Ok(()) }
    }

    /// Waits until there may be something to read, or to write if something waits for that; or for the bell, or `deadline`.
    pub(super) fn wait(&self, bell: &Bell, deadline: Option<Instant>) -> Result<(), Words> {
        let flags = if self.outlet.is_waiting() { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        bell.wait(Some((self.socket.as_fd(), flags)), deadline).map(drop).map_err(broken)
    }

    /// Reads what is there, but no more than a few frames: whether there may be more. Nobody may wait before there is not.
    pub(super) fn read(&mut self, mut take: impl FnMut(Frame)) -> Result<bool, Words> {
        let read = self.socket.try_read(self.decoder.space(READ_BYTES));
        match read {
            Ok(0) => Err("it has closed the connection".to_owned()),
            Ok(_) => {
                while let Some(frame) = self.decoder.frame().map_err(|error| format!("its report is too large: {error}"))? {
                    take(frame);
                }
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(broken(error)),
        }
    }

    /// Sends this and waits for the report that `is_it`. A bad one without an id says why there will be no other.
    pub(super) fn ask(
        &mut self,
        packet: Packet,
        is_it: impl Fn(&Report) -> bool,
        ours: &Ours,
        deadline: Instant,
        bell: &Bell,
    ) -> Result<Report, Words> {
        self.send(&[packet])?;
        let (mut report, mut refusal) = (None, None);
        loop {
            let depth = ours.limits.depth;
            let more = self.read(|frame| match server::report(&frame, depth) {
                Ok(found) if report.is_none() && is_it(&found) => report = Some(found),
                Ok(found) if !found.good && found.id.is_none() => refusal = Some(said(&found)),
                Ok(_) => {}
                Err(error) => refusal = Some(format!("it answers with something that is no report: {}", plain(&error))),
            });
            if let Some(report) = report.take() {
                return Ok(report);
            }
            let more = more.map_err(|words| refusal.clone().unwrap_or(words))?;
            if !more {
                self.flush()?;
                give_up(deadline, bell).map_err(|error| refusal.clone().unwrap_or_else(|| error.to_string()))?;
                self.wait(bell, Some(deadline))?;
            }
        }
    }

    /// Sends a built-in command and waits for the report on it.
    pub(super) fn command(&mut self, id: &str, packet: Packet, ours: &Ours, deadline: Instant, bell: &Bell) -> Result<Report, Words> {
        let is_it = |report: &Report| report.id.as_ref().is_some_and(|found| found.as_str() == id);
        self.ask(packet, is_it, ours, deadline, bell)
    }

    /// Asks who is there.
    pub(super) fn greet(&mut self, name: &ServerName, ours: &Ours, bell: &Bell) -> Result<(), Words> {
        let packet = server::command(ours.name.as_str(), HELLO, "ping", "null", None);
        let report = self.command(HELLO, packet, ours, ours.report_by(), bell)?;
        if !report.good {
            return Err(said(&report));
        }
        let data = report.data.as_ref().map_or(&b""[..], |data| data.bytes());
        match serde_json::from_slice::<Hello>(data) {
            Ok(hello) if hello.server == name.as_str() => Ok(()),
            Ok(hello) => Err(format!("the server there says that its name is {}, and not {name}", plain(&hello.server))),
            Err(_) => Err("the server there does not say its name".to_owned()),
        }
    }
}

fn written(sent: Sent) -> Result<(), Words> {
    match sent {
        Sent::All | Sent::Waits | Sent::WaitsOn => Ok(()),
        Sent::Overflowed | Sent::Broken => Err("the connection is broken".to_owned()),
    }
}

fn broken(error: io::Error) -> Words {
    format!("the connection is broken: {error}")
}

/// What a bad report says.
pub(super) fn said(report: &Report) -> Words {
    let text = |text: &crate::protocol::text::Text| plain(text.as_str());
    let reason = report.reason.as_ref().map_or_else(|| "without a reason".to_owned(), text);
    let message = report.message.as_ref().map(|message| format!(" ({})", text(message)));
    format!("it refuses: {reason}{}", message.unwrap_or_default())
}

/// Words of others, short, and without what would break a line or move a cursor.
pub(super) fn plain(text: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().take(WORDS_MAX).map(shown).collect()
}
