//! A TCP socket with TLS on it. It has no thread and no descriptor more than without.
//!
//! The state of the connection, with its keys, is behind a lock, which is held to encrypt, to decrypt, and for system calls
//! that do not wait; never while anything waits. Whoever reads waits in the kernel for bytes, as on plain TCP, and takes the
//! lock only to have them decrypted: so what the dispatcher writes meanwhile goes out at once.
//!
//! Whoever writes is told how much was taken. What is encrypted cannot be taken back, also if the socket takes only a part
//! of it: then one byte less is told than was taken. So there is something left to be written, whoever writes comes back for it
//! once the socket takes more, and then what is left goes out first; the byte that is owed is then told as taken, and
//! not sent again.

use super::{read_fd, recv_now};
use crate::tls::{Pin, TlsError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, sendmsg};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};
use std::cell::RefCell;
use std::fmt;
use std::io::{self, BufRead, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How much is encrypted before the socket is asked to take it; so much may be left of it, and the lock is not held for longer
/// than this takes.
const PIECE_BYTES: usize = 32 << 10;
/// How much is read at once, at least and at most.
const READ_BYTES_MIN: usize = 2 << 10;
const READ_BYTES_MAX: usize = 64 << 10;

thread_local! {
    /// Where encrypted bytes stand until they are decrypted. A thread that reads one connection keeps what that needs.
    static READ: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A connected TCP socket on which the handshake is done.
pub struct TlsSocket {
    stream: TcpStream,
    proven: Option<Pin>,
    /// For whoever reads and for whoever writes, each for as long as it does not have to wait.
    state: Mutex<State>,
}

struct State {
    connection: Connection,
    /// Whether a byte was taken that was not told.
    owes: bool,
    /// What was read, and does not yet fit where it is to go: encrypted.
    left: Vec<u8>,
    /// Nothing more comes from the other side.
    ended: bool,
}

impl TlsSocket {
    /// Does the handshake of a server, until `deadline` at the latest.
    ///
    /// # Errors
    /// All but those of clients.
    pub fn accept(stream: TcpStream, config: &Arc<ServerConfig>, deadline: Instant) -> Result<TlsSocket, TlsError> {
        let connection = ServerConnection::new(Arc::clone(config))?;
        shake_hands(stream, connection.into(), deadline)
    }

    /// Does the handshake of a client, until `deadline` at the latest. `host` is who the server should be.
    ///
    /// # Errors
    /// Whatever it may be.
    pub fn connect(stream: TcpStream, config: &Arc<ClientConfig>, host: &str, deadline: Instant) -> Result<TlsSocket, TlsError> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Name(host.to_owned()))?;
        let connection = ClientConnection::new(Arc::clone(config), name)?;
        shake_hands(stream, connection.into(), deadline)
    }

    /// What the other side's key is known by, if it has shown one; then it has proven that it has it.
    pub fn peer_pin(&self) -> Option<Pin> {
        self.proven
    }

    /// The socket below: for its options, and to wait on.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Waits for bytes and appends them to `buffer`, within its capacity. 0 is the end of the input, with or without a word of
    /// the other side: a frame that is not whole tells what is missing.
    ///
    /// Errors: `WouldBlock` when the timeout of the stream is over, and also when something came that is no data, or not yet;
    /// so the caller has an eye on its deadlines, whatever comes.
    pub(super) fn read(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        if let Some(bytes) = self.lock().take_left(&self.stream, buffer)? {
            return Ok(bytes);
        }
        with_room(buffer.capacity() - buffer.len(), |scratch| {
            if read_fd(self.stream.as_fd(), scratch)? == 0 {
                return Ok(0);
            }
            self.lock().take(&self.stream, scratch, buffer)?.ok_or_else(|| ErrorKind::WouldBlock.into())
        })
    }

    /// Appends what is there to `buffer`, within its capacity. Whoever waits for more by the descriptor has to read until it
    /// would block: something may be here that the descriptor does not tell of.
    ///
    /// Errors: `WouldBlock` if there is nothing.
    pub(super) fn try_read(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let before = buffer.len();
        let mut state = self.lock();
        let mut taken = state.take_left(&self.stream, buffer)?;
        while taken != Some(0) && buffer.len() < buffer.capacity() {
            let read = with_room(buffer.capacity() - buffer.len(), |scratch| match recv_now(self.stream.as_fd(), scratch)? {
                0 => Ok(Some(0)),
                _ => state.take(&self.stream, scratch, buffer),
            });
            match read {
                Ok(read) => taken = read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // It is told when what came before it is taken.
                Err(_) if buffer.len() > before => break,
                Err(error) => return Err(error),
            }
        }
        match buffer.len() - before {
            0 if taken != Some(0) && buffer.len() < buffer.capacity() => Err(ErrorKind::WouldBlock.into()),
            bytes => Ok(bytes),
        }
    }

    /// Writes what the other side takes at once, perhaps only a part. Never blocks: `WouldBlock` if it takes nothing. What was
    /// not taken must come first the next time.
    pub(super) fn try_write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.lock();
        if !state.send(&self.stream)? {
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut told = usize::from(std::mem::take(&mut state.owes));
        let mut skipped = told;
        let mut taken = 0;
        for part in parts {
            let part = part.get(skipped.min(part.len())..).unwrap_or_default();
            skipped = if part.is_empty() { skipped } else { 0 };
            let piece = &part[..part.len().min(PIECE_BYTES - taken)];
            let bytes = if piece.is_empty() { 0 } else { state.connection.writer().write(piece)? };
            taken += bytes;
            if bytes < part.len() {
                break;
            }
        }
        told += taken;
        if !state.send(&self.stream)? && taken > 0 {
            state.owes = true;
            told -= 1;
        }
        if told == 0 && taken > 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(told) }
    }

    /// Writes all of it, and waits for that, each time at most as long as the stream's timeout for writing says.
    ///
    /// # Errors
    /// `WouldBlock` when nothing more is taken in time.
    pub fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        let timeout = self.stream.write_timeout()?.and_then(|timeout| timeout.try_into().ok());
        while !bytes.is_empty() {
            match self.try_write(&[IoSlice::new(bytes)]) {
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => match wait(&self.stream, PollFlags::OUT, timeout.as_ref()) {
                    Ok(true) => {}
                    Ok(false) => return Err(ErrorKind::WouldBlock.into()),
                    Err(error) => return Err(error),
                },
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// As of a plain socket; before it sends nothing more, it says so.
    pub(super) fn shutdown(&self, how: Shutdown) {
        if how == Shutdown::Write {
            let mut state = self.lock();
            state.connection.send_close_notify();
            let _ = state.send(&self.stream); // what does not go now is told by the end of the stream
        }
        // It fails when the other side was faster, which comes to the same.
        let _ = self.stream.shutdown(how);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for TlsSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Nothing of the keys.
impl fmt::Debug for TlsSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsSocket({:?})", self.stream)
    }
}

impl State {
    /// What came earlier. `None` if there is nothing, 0 at the end.
    fn take_left(&mut self, stream: &TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<usize>> {
        let left = std::mem::take(&mut self.left);
        self.take(stream, &left, buffer)
    }

    /// Decrypts what came after what is left, as far as there is room in `buffer`. `None` if that gives nothing, 0 at the
    /// end.
    fn take(&mut self, stream: &TcpStream, mut came: &[u8], buffer: &mut Vec<u8>) -> io::Result<Option<usize>> {
        let before = buffer.len();
        self.take_decrypted(buffer);
        while !came.is_empty() && buffer.len() < buffer.capacity() && !self.ended {
            self.connection.read_tls(&mut came)?;
            let processed = self.connection.process_new_packets();
            // What has to be answered (a change of keys, a complaint) goes out at once if it can, or with what is written
            // next. Whether the other side still reads says nothing about what came from it.
            let _ = self.send(stream);
            let now = processed.map_err(|error| {
                self.ended = true;
                io::Error::new(ErrorKind::InvalidData, error)
            })?;
            self.ended = now.peer_has_closed();
            self.take_decrypted(buffer);
        }
        if !self.ended {
            self.left.extend_from_slice(came);
        }
        match buffer.len() - before {
            0 if !self.ended => Ok(None),
            bytes => Ok(Some(bytes)),
        }
    }

    fn take_decrypted(&mut self, buffer: &mut Vec<u8>) {
        loop {
            let room = buffer.capacity() - buffer.len();
            let mut reader = self.connection.reader();
            let Ok(chunk) = reader.fill_buf() else { return }; // there is nothing more for now
            let bytes = chunk.len().min(room);
            if bytes == 0 {
                return;
            }
            buffer.extend_from_slice(&chunk[..bytes]);
            reader.consume(bytes);
        }
    }

    /// Has the socket take what is encrypted. Whether it took all.
    fn send(&mut self, stream: &TcpStream) -> io::Result<bool> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut Now(stream.as_fd())) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// Lends a buffer for what is encrypted, with about as much room as there is for what comes of it.
fn with_room<T>(room: usize, body: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    READ.with_borrow_mut(|scratch| {
        scratch.clear();
        scratch.reserve(room.clamp(READ_BYTES_MIN, READ_BYTES_MAX));
        body(scratch)
    })
}

/// A socket, as long as it does not have to be waited for.
struct Now<'a>(BorrowedFd<'a>);

impl Read for Now<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match recv(self.0, &mut *buffer, RecvFlags::DONTWAIT) {
                Err(Errno::INTR) => {}
                result => return Ok(result?.1),
            }
        }
    }
}

impl Write for Now<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        loop {
            match sendmsg(self.0, parts, &mut SendAncillaryBuffer::default(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether it is so before the time is over.
fn wait(stream: &TcpStream, flags: PollFlags, timeout: Option<&Timespec>) -> io::Result<bool> {
    loop {
        match poll(&mut [PollFd::new(stream, flags)], timeout) {
            Err(Errno::INTR) => {}
            result => return Ok(result? > 0),
        }
    }
}

fn shake_hands(stream: TcpStream, mut connection: Connection, deadline: Instant) -> Result<TlsSocket, TlsError> {
    connection.set_buffer_limit(Some(2 * PIECE_BYTES));
    let mut state = State { connection, owes: false, left: Vec::new(), ended: false };
    loop {
        let sent = state.send(&stream)?;
        if sent && !state.connection.is_handshaking() {
            break;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up by the kernel's own steps: none is no time at all.
        let timeout: Option<Timespec> = left.max(Duration::from_nanos(1)).try_into().ok();
        let flags = if sent { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
        if left.is_zero() || !wait(&stream, flags, timeout.as_ref())? {
            return Err(TlsError::TimedOut);
        }
        match state.connection.read_tls(&mut Now(stream.as_fd())) {
            Ok(0) => return Err(TlsError::Closed),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error.into()),
        }
        match state.connection.process_new_packets() {
            Ok(_) => {}
            Err(error) => {
                let _ = state.send(&stream); // the other side learns why, if it listens
                return Err(match error {
                    rustls::Error::InvalidMessage(_) if state.connection.protocol_version().is_none() => TlsError::NotTls,
                    error => error.into(),
                });
            }
        }
    }
    let shown = state.connection.peer_certificates().and_then(|chain| chain.first());
    let proven = shown.map(crate::tls::pin_of).transpose()?;
    Ok(TlsSocket { stream, proven, state: Mutex::new(state) })
}

#[cfg(test)]
mod tests;
