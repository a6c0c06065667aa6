//! The pipes of a child process. A read on a pipe cannot be ended from outside, and a grandchild may hold the other
//! end open for ever, so the reader waits on the pipe and on a waker.

use super::read_fd;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use rustix::io::Errno;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

const PIPE: Token = Token(0);
const WAKER: Token = Token(1);
/// Once the reading is stopped; more than a pipe holds.
const LEFT_BYTES_MAX: usize = 8 << 20;

/// A child's standard output.
#[derive(Debug)]
pub struct PipeReader {
    fd: OwnedFd,
    poll: Poll,
    events: Events,
    stopped: bool,
    /// What may still be read once it is stopped: somebody else may hold the pipe and write for ever.
    left: usize,
}

impl PipeReader {
    /// Waits for bytes. After the waker was used: what is there is still read, then the input is at its end.
    pub(super) fn read(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        loop {
            // Readiness comes once for each change, so the pipe is read until it is empty before the next wait.
            if self.left == 0 {
                return Ok(0);
            }
            match read_fd(self.fd.as_fd(), buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(bytes) if self.stopped => {
                    self.left = self.left.saturating_sub(bytes);
                    return Ok(bytes);
                }
                result => return result,
            }
            if self.stopped {
                return Ok(0);
            }
            match self.poll.poll(&mut self.events, None) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => self.stopped |= self.events.iter().any(|event| event.token() == WAKER),
            }
        }
    }
}

/// A child's standard input.
#[derive(Debug)]
pub struct PipeWriter {
    /// Closing a pipe is the only way to say that nothing more comes. The lock is held for single system calls that
    /// do not block.
    fd: Mutex<Option<OwnedFd>>,
}

impl PipeWriter {
    pub(super) fn try_write(&self, parts: &[IoSlice<'_>]) -> Result<usize, Errno> {
        self.with_fd(|fd| rustix::io::writev(fd, parts)).unwrap_or(Err(Errno::PIPE))
    }

    pub(super) fn close(&self) {
        self.fd.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    pub(super) fn with_fd<T>(&self, body: impl FnOnce(BorrowedFd<'_>) -> T) -> Option<T> {
        let fd = self.fd.lock().unwrap_or_else(PoisonError::into_inner);
        fd.as_ref().map(|fd| body(fd.as_fd()))
    }
}

/// Our ends of the pipes to a child's standard input and output, and what ends the reading.
pub fn pipe_ends(stdin: OwnedFd, stdout: OwnedFd) -> io::Result<(PipeReader, PipeWriter, Arc<Waker>)> {
    for fd in [&stdin, &stdout] {
        rustix::io::ioctl_fionbio(fd, true)?;
    }
    let poll = Poll::new()?;
    poll.registry().register(&mut SourceFd(&stdout.as_raw_fd()), PIPE, Interest::READABLE)?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
    let reader = PipeReader { fd: stdout, poll, events: Events::with_capacity(2), stopped: false, left: LEFT_BYTES_MAX };
    Ok((reader, PipeWriter { fd: Mutex::new(Some(stdin)) }, waker))
}
