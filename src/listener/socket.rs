//! Listening sockets: TCP over IPv4 and IPv6, with and without TLS, and UNIX.

use crate::config::UnixListen;
use crate::tls;
use crate::transport::{Socket, tcp, unix};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with, sockopt};
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;

/// Connections that wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// A socket that listens.
#[derive(Debug)]
pub enum Listening {
    /// `network.tcp4` or `network.tcp6`.
    Tcp(TcpListener, SocketAddr),
    /// `network.tls`, with who we are there.
    Tls(TcpListener, SocketAddr, Arc<tls::Shared>),
    /// `network.unix`.
    Unix(UnixListener, PathBuf),
}

/// An address that cannot be listened on.
#[derive(Debug)]
pub struct ListenError {
    /// Which one.
    pub address: String,
    /// Why.
    pub source: io::Error,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}: {}", self.address, self.source)
    }
}

impl std::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl Listening {
    /// Listens on a TCP address; port 0 has the system choose one.
    pub fn tcp(address: SocketAddr) -> Result<Listening, ListenError> {
        let scheme = if address.is_ipv4() { "tcp4" } else { "tcp6" };
        let (listener, address) = listen(scheme, address)?;
        Ok(Listening::Tcp(listener, address))
    }

    /// The same, for connections with TLS.
    pub fn tls(address: SocketAddr, shared: Arc<tls::Shared>) -> Result<Listening, ListenError> {
        let (listener, address) = listen("tls", address)?;
        Ok(Listening::Tls(listener, address, shared))
    }

    /// Listens on a UNIX socket.
    pub fn unix(listen: &UnixListen) -> Result<Listening, ListenError> {
        let failed = |source| ListenError { address: format!("unix:{}", listen.path.display()), source };
        let listener = unix::listen(&listen.path, listen.mode).map_err(failed)?;
        Ok(Listening::Unix(listener, listen.path.clone()))
    }

    /// `tcp4`, `tcp6`, `tls` or `unix`.
    pub fn scheme(&self) -> &'static str {
        match self {
            Listening::Tcp(_, SocketAddr::V4(_)) => "tcp4",
            Listening::Tcp(_, SocketAddr::V6(_)) => "tcp6",
            Listening::Tls(..) => "tls",
            Listening::Unix(..) => "unix",
        }
    }

    /// The number and the port, if it has any.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Listening::Tcp(_, address) | Listening::Tls(_, address, _) => Some(*address),
            Listening::Unix(..) => None,
        }
    }

    /// Who we are there, if connections are to begin with a TLS handshake.
    pub(super) fn identity(&self) -> Option<&Arc<tls::Shared>> {
        match self {
            Listening::Tls(_, _, shared) => Some(shared),
            Listening::Tcp(..) | Listening::Unix(..) => None,
        }
    }

    /// Waits for the next connection; of TLS nothing is done yet. `InvalidInput` once it is shut.
    pub(super) fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        match self {
            Listening::Tcp(listener, _) | Listening::Tls(listener, ..) => {
                let (stream, address) = listener.accept()?;
                // It fails when the client is gone already, which the first read will find out.
                let _ = tcp::set_options(&stream);
                Ok((Socket::Tcp(stream), Some(address)))
            }
            Listening::Unix(listener, _) => Ok((Socket::Unix(listener.accept()?.0), None)),
        }
    }

    /// The next connection, if one is waiting.
    pub(super) fn accept_now(&self) -> io::Result<Option<(Socket, Option<SocketAddr>)>> {
        let mut waiting = [PollFd::new(self, PollFlags::IN)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        if poll(&mut waiting, Some(&at_once))? == 0 { Ok(None) } else { self.accept().map(Some) }
    }

    /// Wakes whoever accepts, for the last time, and removes a socket file.
    pub(super) fn shut(&self) {
        let _ = rustix::net::shutdown(self, rustix::net::Shutdown::Both);
        if let Listening::Unix(_, path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn listen(scheme: &str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), ListenError> {
    let listen = || -> io::Result<(TcpListener, SocketAddr)> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, Some(ipproto::TCP))?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        if address.is_ipv6() {
            // IPv4 has a listener of its own.
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        rustix::net::bind(&socket, &address)?;
        rustix::net::listen(&socket, BACKLOG)?;
        let listener = TcpListener::from(socket);
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    listen().map_err(|source| ListenError { address: format!("{scheme}://{address}"), source })
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listening::Tcp(listener, _) | Listening::Tls(listener, ..) => listener.as_fd(),
            Listening::Unix(listener, _) => listener.as_fd(),
        }
    }
}

impl fmt::Display for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listening::Tcp(_, address) | Listening::Tls(_, address, _) => write!(f, "{}://{address}", self.scheme()),
            Listening::Unix(_, path) => write!(f, "unix:{}", path.display()),
        }
    }
}
