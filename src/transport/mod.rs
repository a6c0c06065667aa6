//! What bytes come from and go to: TCP and UNIX sockets, TCP with TLS on it (`tls.rs`), and the pipes of a child process.
//!
//! Each has a reading half, which belongs to the connection's own thread and may block, and a writing half, which
//! never blocks. On a socket both are the same descriptor: it stays blocking, and writes say that they will not wait.

mod acceptor;
mod host_port;
mod pipe;
mod socket;
pub mod tcp;
mod tls;
pub mod unix;

pub use acceptor::Acceptor;
pub use host_port::{BadHostPort, HostPort};
pub use pipe::{PipeReader, PipeStop, PipeWriter, pipe_ends};
pub use socket::{Socket, SocketReader};
pub use tls::TlsSocket;

use rustix::buffer::spare_capacity;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, send, sendmsg};
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// The reading half.
#[derive(Debug)]
pub enum Source {
    /// A socket.
    Socket(SocketReader),
    /// A child's standard output.
    Pipe(PipeReader),
}

impl Source {
    /// Waits for bytes and appends them to `buffer`, within its capacity. 0 is the end of the input.
    pub fn read(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Source::Socket(socket) => socket.read(buffer),
            Source::Pipe(pipe) => pipe.read(buffer),
        }
    }
}

fn read_fd(fd: BorrowedFd<'_>, buffer: &mut Vec<u8>) -> io::Result<usize> {
    loop {
        match rustix::io::read(fd, spare_capacity(buffer)) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

/// Appends bytes that are there to `buffer`, within its capacity.
fn recv_now(fd: BorrowedFd<'_>, buffer: &mut Vec<u8>) -> io::Result<usize> {
    loop {
        match recv(fd, spare_capacity(buffer), RecvFlags::DONTWAIT) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result?.0),
        }
    }
}

/// The writing half.
#[derive(Debug)]
pub enum Sink {
    /// A socket.
    Socket(Arc<Socket>),
    /// A child's standard input.
    Pipe(PipeWriter),
}

impl Sink {
    /// Writes what the other side takes at once, perhaps only a part. Never blocks: `WouldBlock` if it takes nothing. What was
    /// not taken must come first the next time: some of it may be on its way already.
    pub fn try_write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        if let Sink::Socket(socket) = self
            && let Socket::Tls(tls) = &**socket
        {
            return tls.try_write(parts);
        }
        loop {
            let written = match self {
                Sink::Socket(socket) => {
                    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                    match parts {
                        [part] => send(socket, part, flags),
                        _ => sendmsg(socket, parts, &mut SendAncillaryBuffer::default(), flags),
                    }
                }
                Sink::Pipe(pipe) => pipe.try_write(parts),
            };
            match written {
                Err(rustix::io::Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
    }

    /// Tells the other side that nothing more comes.
    pub fn end(&self) {
        match self {
            Sink::Socket(socket) => socket.shutdown(Shutdown::Write),
            Sink::Pipe(pipe) => pipe.close(),
        }
    }

    /// Ends both directions at once.
    pub fn abort(&self) {
        match self {
            Sink::Socket(socket) => socket.shutdown(Shutdown::Both),
            Sink::Pipe(pipe) => pipe.close(),
        }
    }

    /// The descriptor, to wait until it takes more; `None` once it is closed.
    pub fn with_fd<T>(&self, body: impl FnOnce(BorrowedFd<'_>) -> T) -> Option<T> {
        match self {
            Sink::Socket(socket) => Some(body(socket.as_fd())),
            Sink::Pipe(pipe) => pipe.with_fd(body),
        }
    }
}
