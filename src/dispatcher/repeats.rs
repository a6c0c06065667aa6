//! Messages that may come again (`dedupe`): whoever did not hear what became of one sends it once more, on another connection
//! perhaps, and gets the same report. Its handler is not asked twice.
//!
//! Of what came before, the disk knows the report; what is under way, or being looked up, is known here. While a message is
//! looked up, those that came after it on the same connection wait behind it, so that all are handled in order.

use super::Dispatcher;
use super::event::{Effect, Message};
use super::keeping::trouble_in_words;
use super::requests::{self, Failure, MessageKey};
use crate::frame::{Packet, Slice};
use crate::name::ConnId;
use crate::protocol::report::{self, Id};
use crate::store::mail::{Digest, Memo, Read, Report, Trouble};
use foldhash::HashMap;
use std::time::Instant;

/// The messages with a digest that have no report yet.
pub(super) type Repeats = HashMap<Digest, Stage>;

/// Where such a message is.
#[derive(Debug)]
pub(super) enum Stage {
    /// It is looked up whether it came before. It came on these connections, each of which waits for that.
    LookedUp(Vec<(ConnId, Message)>),
    /// It is under way.
    UnderWay(MessageKey),
}

impl Dispatcher {
    /// A message that may have come before, or comes after one that is being looked up.
    pub(super) fn hold(&mut self, now: Instant, conn: ConnId, message: Message, effects: &mut Vec<Effect>) {
        if let Some(session) = self.open_session(conn) {
            session.held.push_back(message);
            self.take_on(now, conn, effects);
        }
    }

    /// Takes on what is held for a connection, up to the next message that must be looked up.
    fn take_on(&mut self, now: Instant, conn: ConnId, effects: &mut Vec<Effect>) {
        loop {
            let Some(session) = self.open_session(conn).filter(|session| !session.looks_up) else { return };
            let Some(message) = session.held.pop_front() else { return };
            match message.digest.as_deref() {
                None => self.dispatch(now, conn, message, effects),
                Some(&digest) => self.take_on_once(conn, digest, message, effects),
            }
        }
    }

    fn take_on_once(&mut self, conn: ConnId, digest: Digest, message: Message, effects: &mut Vec<Effect>) {
        match self.repeats.get_mut(&digest) {
            Some(Stage::UnderWay(key)) => {
                let key = *key;
                return self.shares_report(key, conn, message.bytes);
            }
            Some(Stage::LookedUp(waiting)) => waiting.push((conn, message)),
            None => {
                self.repeats.insert(digest, Stage::LookedUp(vec![(conn, message)]));
                effects.push(Effect::Read(Box::new(Read::Memo { digest })));
            }
        }
        // What a server sends is all looked up, and told in the order in which it was asked for: nothing need wait.
        if let Some(session) = self.sessions.get_mut(&conn).filter(|session| session.server.is_none()) {
            session.looks_up = true;
        }
    }

    /// What came on this connection is under way already, and gets its report with it.
    fn shares_report(&mut self, key: MessageKey, conn: ConnId, bytes: usize) {
        if let Some(repeat) = self.messages.get(key).and_then(|message| message.repeat.as_mut()) {
            repeat.others.push((conn, bytes));
        }
    }

    /// What the disk knows of a message.
    pub(super) fn looked_up(&mut self, now: Instant, digest: Digest, memo: Result<Option<Slice>, Trouble>, effects: &mut Vec<Effect>) {
        let Some(Stage::LookedUp(waiting)) = self.repeats.remove(&digest) else { return };
        let conns: Vec<ConnId> = waiting.iter().map(|(conn, _)| *conn).collect();
        for (conn, message) in waiting {
            let Some(session) = self.open_session(conn) else {
                self.settle(conn, message.bytes, effects);
                continue;
            };
            session.looks_up = false;
            let report = match (&memo, self.repeats.get(&digest)) {
                (Ok(None), Some(Stage::UnderWay(key))) => {
                    self.shares_report(*key, conn, message.bytes);
                    continue;
                }
                (Ok(None), _) => {
                    self.dispatch(now, conn, message, effects);
                    continue;
                }
                (Ok(Some(report)), _) => Packet::framed(report.clone()),
                (Err(trouble), _) => not_looked_up(*trouble, &message),
            };
            effects.push(Effect::Send(conn, report));
            self.settle(conn, message.bytes, effects);
        }
        conns.into_iter().for_each(|conn| self.take_on(now, conn, effects));
    }

    /// A connection is at its end: what is held for it was never taken on.
    pub(super) fn give_up_held(&mut self, conn: ConnId, effects: &mut Vec<Effect>) {
        let held = self.sessions.get_mut(&conn).map(|session| std::mem::take(&mut session.held));
        for message in held.into_iter().flatten() {
            self.settle(conn, message.bytes, effects);
        }
    }

    /// Has the report on a message that may come again remembered before it is told. Whether there is something to wait for.
    pub(super) fn remember(&mut self, key: MessageKey, effects: &mut Vec<Effect>) -> bool {
        let Some(message) = self.messages.get(key) else { return false };
        let Some(repeat) = message.repeat.as_mut().filter(|repeat| message.open == 0 && !repeat.settled) else { return false };
        repeat.settled = true;
        let (digest, peer) = (repeat.digest, repeat.peer);
        let Some(message) = self.messages.peek(key).filter(|message| !is_temporary(message)) else { return false };
        let id = message.id.clone().map(Id::Client);
        let report = Report::Ready(Slice::from(&*self.report_on(message, id.as_ref()).body()));
        self.keep_memo(key, Memo { digest, peer, report }, effects);
        true
    }
}

/// The report on a message of which nobody can tell whether it came before.
fn not_looked_up(trouble: Trouble, message: &Message) -> Packet {
    let (reason, words) = trouble_in_words(trouble);
    report::bad(message.kind.as_str(), message.id.clone().map(Id::Client).as_ref(), reason, words)
}

/// Whether it may help to send the message again.
fn is_temporary(message: &requests::Message) -> bool {
    match message.failure.as_deref() {
        // The handler has done its work: for another server, that is the end of it.
        None => !message.sender.is_server() && message.counts.failure().is_some_and(|(_, temporary, _)| temporary),
        Some(Failure::Reason(reason, _)) => reason.is_temporary(),
        Some(Failure::Refused { .. }) => false,
    }
}
