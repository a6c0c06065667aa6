//! The pipes of a child process. A read on a pipe cannot be ended from outside, and a grandchild may hold the other
//! end open for ever, so the reader waits on the pipe and on a waker.

use super::read_fd;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use rustix::io::Errno;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
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
    stop: Arc<PipeStop>,
    /// What may still be read once it is stopped: somebody else may hold the pipe and write for ever.
    left: usize,
}

impl PipeReader {
    /// Waits for bytes. After [`PipeStop::order`]: what is there is still read, then the input is at its end.
    pub(super) fn read(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        loop {
            // Readiness comes once for each change, so the pipe is read until it is empty before the next wait.
            if self.left == 0 {
                return Ok(0);
            }
            match read_fd(self.fd.as_fd(), buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(bytes) if self.stop.is_ordered() => {
                    self.left = self.left.saturating_sub(bytes);
                    return Ok(bytes);
                }
                result => return result,
            }
            if self.stop.is_ordered() {
                return Ok(0);
            }
            match self.poll.poll(&mut self.events, None) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {} // what it was is seen by looking again
            }
        }
    }
}

/// Ends the reading of a pipe. The flag is looked at after each read: whoever writes without end leaves no moment in
/// which the reader waits and a wake-up alone would reach it.
#[derive(Debug)]
pub struct PipeStop {
    ordered: AtomicBool,
    waker: Waker,
}

impl PipeStop {
    /// What is in the pipe is still read, then the input is at its end.
    pub fn order(&self) {
        self.ordered.store(true, Ordering::SeqCst);
        let _ = self.waker.wake(); // fails only if there is no reader any longer
    }

    fn is_ordered(&self) -> bool {
        self.ordered.load(Ordering::SeqCst)
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
pub fn pipe_ends(stdin: OwnedFd, stdout: OwnedFd) -> io::Result<(PipeReader, PipeWriter, Arc<PipeStop>)> {
    for fd in [&stdin, &stdout] {
        rustix::io::ioctl_fionbio(fd, true)?;
    }
    let poll = Poll::new()?;
    poll.registry().register(&mut SourceFd(&stdout.as_raw_fd()), PIPE, Interest::READABLE)?;
    let waker = Waker::new(poll.registry(), WAKER)?;
    let stop = Arc::new(PipeStop { ordered: AtomicBool::new(false), waker });
    let reader = PipeReader { fd: stdout, poll, events: Events::with_capacity(2), stop: Arc::clone(&stop), left: LEFT_BYTES_MAX };
    Ok((reader, PipeWriter { fd: Mutex::new(Some(stdin)) }, stop))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_writes_for_ever_is_not_read_for_ever() {
        // Unlike a pipe, whose writer may be slower than its reader for a moment, this never runs dry.
        let endless = std::fs::File::open("/dev/random").expect("random numbers");
        let (_stdin, ours) = io::pipe().expect("a pipe");
        let (mut reader, _writer, stop) = pipe_ends(ours.into(), endless.into()).expect("our ends");
        stop.order();
        let mut buffer = Vec::with_capacity(64 << 10);
        let mut read = 0;
        loop {
            buffer.clear();
            match reader.read(&mut buffer).expect("bytes, or the end") {
                0 => break,
                bytes => read += bytes,
            }
            assert!(read <= 2 * LEFT_BYTES_MAX, "no end in sight");
        }
        assert!(read >= LEFT_BYTES_MAX, "what is there is still read");
    }
}
