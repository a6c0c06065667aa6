//! TCP and UNIX sockets, of clients, of handlers and of other servers.

use super::{TlsSocket, read_fd, recv_now};
use crate::tls::Pin;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

/// A connected socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP over IPv4 or IPv6.
    Tcp(TcpStream),
    /// A UNIX socket, or one end of a socketpair.
    Unix(UnixStream),
    /// TCP with TLS on it.
    Tls(Box<TlsSocket>),
}

impl Socket {
    /// Ends one or both directions; a thread that waits for bytes on it wakes up.
    pub fn shutdown(&self, how: Shutdown) {
        // It fails when the other side was faster, which comes to the same.
        let _ = match self {
            Socket::Tcp(stream) => stream.shutdown(how),
            Socket::Unix(stream) => stream.shutdown(how),
            Socket::Tls(tls) => {
                tls.shutdown(how);
                Ok(())
            }
        };
    }

    /// What the other side's key is known by, where TLS has proven that it has one.
    pub fn peer_pin(&self) -> Option<Pin> {
        match self {
            Socket::Tls(tls) => tls.peer_pin(),
            Socket::Tcp(_) | Socket::Unix(_) => None,
        }
    }

    /// Appends bytes that are there to `buffer`, within its capacity. 0 is the end of the input. With TLS, more may be there
    /// than the descriptor tells of: whoever waits on that reads first until there is nothing.
    ///
    /// Errors: `WouldBlock` if there are none yet.
    pub fn try_read(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Socket::Tls(tls) => tls.try_read(buffer),
            Socket::Tcp(_) | Socket::Unix(_) => recv_now(self.as_fd(), buffer),
        }
    }
}

impl From<TlsSocket> for Socket {
    fn from(tls: TlsSocket) -> Socket {
        Socket::Tls(Box::new(tls))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Unix(stream) => stream.as_fd(),
            Socket::Tls(tls) => tls.as_fd(),
        }
    }
}

/// The reading half of a socket, for one thread.
#[derive(Debug)]
pub struct SocketReader {
    socket: Arc<Socket>,
    /// Of waiting on a UNIX socket; a TCP socket keeps its own.
    timeout: Option<Timespec>,
}

impl SocketReader {
    /// Reads from this socket, without a timeout.
    pub fn new(socket: Arc<Socket>) -> SocketReader {
        SocketReader { socket, timeout: None }
    }

    /// How long a read may wait; `None` is for ever.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        // Zero would be refused on TCP: it means "for ever" to the kernel.
        let timeout = timeout.map(|timeout| timeout.max(Duration::from_millis(1)));
        match &*self.socket {
            Socket::Tcp(stream) => stream.set_read_timeout(timeout)?,
            Socket::Tls(tls) => tls.stream().set_read_timeout(timeout)?,
            // What does not fit is longer than anybody waits.
            Socket::Unix(_) => self.timeout = timeout.and_then(|timeout| timeout.try_into().ok()),
        }
        Ok(())
    }

    /// Waits for bytes and appends them to `buffer`, within its capacity. 0 is the end of the input.
    ///
    /// Errors: `WouldBlock` when the timeout is over; with TLS also earlier, when something came of which nothing can be
    /// given yet.
    pub fn read(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        match &*self.socket {
            Socket::Tcp(stream) => return read_fd(stream.as_fd(), buffer),
            Socket::Tls(tls) => return tls.read(buffer),
            Socket::Unix(_) => {}
        }
        // A thread that blocks in a read on a UNIX socket is also woken each time that the other side takes something
        // from it. A poll is not, which is worth the call: two switches of threads for each message and its answer.
        loop {
            match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], self.timeout.as_ref()) {
                Ok(0) => return Err(io::ErrorKind::WouldBlock.into()),
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            match self.socket.try_read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;
    use std::time::Instant;

    fn tcp() -> (Socket, Socket) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let ours = TcpStream::connect(listener.local_addr().expect("an address")).expect("a listener");
        (Socket::Tcp(ours), Socket::Tcp(listener.accept().expect("a connection").0))
    }

    fn unix() -> (Socket, Socket) {
        let (ours, theirs) = UnixStream::pair().expect("a socketpair");
        (Socket::Unix(ours), Socket::Unix(theirs))
    }

    fn write(socket: &Socket, bytes: &[u8]) {
        match socket {
            Socket::Tcp(stream) => (&*stream).write_all(bytes),
            Socket::Unix(stream) => (&*stream).write_all(bytes),
            Socket::Tls(tls) => tls.write_all(bytes),
        }
        .expect("room for it");
    }

    #[test]
    fn a_read_waits_until_there_is_something_or_the_time_is_over() {
        for (ours, theirs) in [tcp(), unix()] {
            let mut reader = SocketReader::new(Arc::new(ours));
            let mut buffer = Vec::with_capacity(16);
            let timeout = Duration::from_millis(20);
            reader.set_timeout(Some(timeout)).expect("a socket");
            let before = Instant::now();
            assert_eq!(reader.read(&mut buffer).expect_err("nothing").kind(), io::ErrorKind::WouldBlock);
            assert!(before.elapsed() >= timeout);
            reader.set_timeout(None).expect("a socket");
            write(&theirs, b"abc");
            assert_eq!(reader.read(&mut buffer).expect("bytes"), 3);
            theirs.shutdown(Shutdown::Write);
            assert_eq!(reader.read(&mut buffer).expect("the end"), 0);
            assert_eq!(buffer, b"abc");
        }
    }

    #[test]
    fn a_shutdown_ends_a_read() {
        for (ours, _theirs) in [tcp(), unix()] {
            let ours = Arc::new(ours);
            let mut reader = SocketReader::new(Arc::clone(&ours));
            let thread = crate::thread::spawn("reading", 64 << 10, move || reader.read(&mut Vec::with_capacity(16)));
            ours.shutdown(Shutdown::Read);
            assert_eq!(thread.expect("a thread").join().expect("no panic").expect("the end"), 0);
        }
    }

    #[test]
    fn a_try_never_waits() {
        for (ours, theirs) in [tcp(), unix()] {
            let mut buffer = Vec::with_capacity(16);
            assert_eq!(ours.try_read(&mut buffer).expect_err("nothing").kind(), io::ErrorKind::WouldBlock);
            write(&theirs, b"abc");
            SocketReader::new(Arc::new(ours)).read(&mut buffer).expect("bytes");
            assert_eq!(buffer, b"abc");
        }
    }
}
