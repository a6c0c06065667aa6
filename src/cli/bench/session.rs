//! One logged-in connection of the load, which never blocks: what it still has to write, what it has read of a frame, and
//! its book.

use super::ledger::Book;
use super::plan::{Pace, Plan};
use super::wire;
use crate::client::Client;
use crate::frame::Decoder;
use crate::transport::{Sink, Socket};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

/// Once so much waits to be written, no more messages are made.
const OUT_BYTES_MAX: usize = 256 << 10;
/// A buffer that grew beyond this is given back when it is empty.
const OUT_BYTES_KEPT: usize = 64 << 10;

pub(super) struct Session {
    /// Its place in the plan.
    pub(super) index: usize,
    pub(super) book: Book,
    /// Messages that should have been sent already.
    pub(super) owed: u64,
    /// It has something to do before the loop waits again.
    pub(super) touched: bool,
    /// What came of a frame; most of the time there is nothing, and no memory for it.
    pub(super) rest: Option<Decoder>,
    /// Closed loop with ids: when each message was sent, from the first that has no report.
    times: VecDeque<u64>,
    /// The sequence number of the first of them.
    first: u64,
    socket: Arc<Socket>,
    sink: Sink,
    out: Vec<u8>,
    written: usize,
    /// The socket takes no more for now, and the loop is told when it does.
    blocked: bool,
}

impl Session {
    pub(super) fn new(plan: &Plan, index: usize, client: Client) -> io::Result<Session> {
        let (socket, decoder) = client.into_parts();
        Ok(Session {
            index,
            book: Book::new(plan.ring, index, plan.ids),
            owed: 0,
            touched: false,
            times: VecDeque::new(),
            first: 0,
            rest: (decoder.pending() > 0).then_some(decoder),
            sink: Sink::Socket(Arc::clone(&socket)),
            socket,
            out: Vec::new(),
            written: 0,
            blocked: false,
        })
    }

    pub(super) fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut SourceFd(&self.socket.as_fd().as_raw_fd()), token, Interest::READABLE)
    }

    /// Reads what there is into `decoder`; `WouldBlock` if that is nothing.
    pub(super) fn read(&mut self, decoder: &mut Decoder, space: usize) -> io::Result<usize> {
        self.socket.try_read(decoder.space(space))
    }

    /// Whether one more message may be made.
    pub(super) fn has_room(&self) -> bool {
        self.out.len() - self.written < OUT_BYTES_MAX
    }

    /// Makes the next message, to be sent with the next flush.
    pub(super) fn put(&mut self, plan: &Plan, at: u64) {
        wire::put_message(plan, self.index, self.book.sent(), at, &mut self.out);
        self.book.send();
        if plan.ids && matches!(plan.pace, Pace::InFlight(_)) {
            self.times.push_back(at);
        }
    }

    /// When a message that is reported now should have been sent; `None` if its report is too late to tell.
    pub(super) fn forget(&mut self, plan: &Plan, seq: u64) -> Option<u64> {
        if let Pace::Rate(rate) = plan.pace {
            return Some(plan.intended(rate, self.index, seq));
        }
        let at = self.times.get(usize::try_from(seq.checked_sub(self.first)?).ok()?).copied();
        let done = self.book.reported() - self.first;
        self.times.drain(..(done as usize).min(self.times.len()));
        self.first += done;
        at
    }

    /// The socket takes more again.
    pub(super) fn unblock(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.blocked = false;
        registry.reregister(&mut SourceFd(&self.socket.as_fd().as_raw_fd()), token, Interest::READABLE)
    }

    /// Writes as much as the socket takes.
    pub(super) fn flush(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        while !self.blocked && self.written < self.out.len() {
            match self.sink.try_write(&[IoSlice::new(&self.out[self.written..])]) {
                Ok(bytes) => self.written += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.blocked = true;
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    registry.reregister(&mut SourceFd(&self.socket.as_fd().as_raw_fd()), token, interest)?;
                }
                Err(error) => return Err(error),
            }
        }
        if self.written == self.out.len() {
            self.out.clear();
            self.out.shrink_to(OUT_BYTES_KEPT);
            self.written = 0;
        } else if self.written >= OUT_BYTES_MAX {
            self.out.drain(..self.written);
            self.written = 0;
        }
        Ok(())
    }
}
