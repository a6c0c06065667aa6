//! What goes to the disk before a message gets its report, and what becomes of it there.

use super::Dispatcher;
use super::event::{Effect, Handed, Unwritten};
use super::pushing::Told;
use super::requests::{Failure, MessageKey};
use crate::frame::Slice;
use crate::gate::CloseReason;
use crate::name::{ConnId, RouteId, Username};
use crate::protocol::reason::Reason;
use crate::protocol::report::{Counts, Missed};
use crate::store::mail::{Keep, Letter, Mail, Memo, Outgoing, Parcel, Place, Recipient, Report, Ticket, Trouble, Write};
use foldhash::{HashMap, HashSet};
use log::warn;
use smallvec::SmallVec;
use std::sync::Arc;
use std::time::Instant;

/// The orders to keep something that have no answer yet.
pub(super) type Keepings = HashMap<Ticket, Keeping>;

/// Mostly one.
pub(super) type Conns = SmallVec<[ConnId; 1]>;

/// An order to keep something.
#[derive(Debug)]
pub(super) struct Keeping {
    keep: Arc<Keep>,
    /// For each recipient, the sessions that have the letter already.
    had: Vec<Conns>,
    cause: Cause,
}

/// What something is kept for.
#[derive(Debug)]
enum Cause {
    /// An answer of a handler.
    Answer { message: MessageKey, outcome: Box<Outcome> },
    /// The memo of a message, and nothing else.
    Memo(MessageKey),
    /// This connection did not read what it was handed.
    Unwritten(ConnId),
}

/// An answer whose outcome is known only when all is kept.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) told: Told,
    pub(super) id: Option<Slice>,
    pub(super) route: RouteId,
    /// The number of the message.
    pub(super) number: u64,
    /// What was counted without what is kept.
    pub(super) counts: Counts,
    pub(super) missed: Option<Missed>,
}

/// Letters that are gathered for mailboxes, and messages for other servers.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    parcels: Vec<Parcel>,
    had: Vec<Conns>,
    outgoing: Vec<Arc<Outgoing>>,
}

impl Gathered {
    pub(super) fn is_empty(&self) -> bool {
        self.parcels.is_empty() && self.outgoing.is_empty()
    }

    /// A message for another server.
    pub(super) fn send(&mut self, outgoing: Outgoing) {
        self.outgoing.push(Arc::new(outgoing));
    }

    /// A letter for one user more. Those of one letter come one after the other.
    pub(super) fn add(&mut self, letter: &Arc<Letter>, recipient: Recipient, had: Conns) {
        self.had.push(had);
        match self.parcels.last_mut().filter(|parcel| Arc::ptr_eq(&parcel.letter, letter)) {
            Some(parcel) => parcel.recipients.push(recipient),
            None => self.parcels.push(Parcel { letter: Arc::clone(letter), recipients: vec![recipient] }),
        }
    }
}

impl Dispatcher {
    /// Has everything kept that an answer has for mailboxes. The message waits for it.
    pub(super) fn keep_for_answer(&mut self, message: MessageKey, gathered: Gathered, outcome: Outcome, effects: &mut Vec<Effect>) {
        let memo = self.memo_of_outcome(message, &outcome);
        if let Some(message) = self.messages.get(message) {
            message.open += 1;
        }
        self.keep(gathered, memo, Cause::Answer { message, outcome: Box::new(outcome) }, effects);
    }

    /// Has the report on a message remembered. The message waits for it.
    pub(super) fn keep_memo(&mut self, key: MessageKey, memo: Memo, effects: &mut Vec<Effect>) {
        if let Some(message) = self.messages.get(key) {
            message.open += 1;
        }
        self.keep(Gathered::default(), Some(memo), Cause::Memo(key), effects);
    }

    /// A connection did not take what it was handed: it goes to the mailbox, and comes from there when there is room.
    pub(super) fn keep_unwritten(&mut self, conn: ConnId, letters: Vec<Unwritten>, effects: &mut Vec<Effect>) {
        let mut gathered = Gathered::default();
        for Unwritten { handed: Handed { user, letter, alone }, begun } in letters {
            let account = self.users.account(&user);
            let sessions = account.map(|account| account.that_had(alone)).unwrap_or_default();
            let had = sessions.iter().filter(|session| session.live).map(|session| session.conn);
            let had = had.chain(begun.then_some(conn)).collect();
            gathered.add(&letter, Recipient { user, counts: false, handed: true }, had);
        }
        if !gathered.is_empty() {
            self.keep(gathered, None, Cause::Unwritten(conn), effects);
        }
    }

    /// For each letter of a page, whether this connection was handed it: those that are on their way to the disk may be there
    /// before it is told.
    pub(super) fn had_on_its_way(&self, conn: ConnId, page: &[Mail]) -> Vec<bool> {
        let mut had: HashSet<(&str, &[u8])> = HashSet::default();
        for Keeping { keep, had: conns, .. } in self.keepings.values() {
            let handed = keep.recipients().zip(conns).filter(|(_, conns)| conns.contains(&conn));
            had.extend(handed.map(|((letter, _), _)| (&*letter.message_id, letter.data.bytes())));
        }
        page.iter().map(|mail| !had.is_empty() && had.contains(&(&*mail.letter.message_id, mail.letter.data.bytes()))).collect()
    }

    fn keep(&mut self, gathered: Gathered, memo: Option<Memo>, cause: Cause, effects: &mut Vec<Effect>) {
        let Gathered { parcels, had, outgoing } = gathered;
        for recipient in parcels.iter().flat_map(|parcel| &parcel.recipients) {
            if let Some(account) = self.users.account(&recipient.user) {
                account.keeping += 1;
            }
        }
        let ticket = Ticket(self.next_number());
        let keep = Arc::new(Keep { parcels, outgoing, memo });
        effects.push(Effect::Write(Write::Keep(ticket, Arc::clone(&keep))));
        self.keepings.insert(ticket, Keeping { keep, had, cause });
    }

    /// The memo that goes to the disk together with the mail, when nothing else of the message is open.
    fn memo_of_outcome(&mut self, key: MessageKey, outcome: &Outcome) -> Option<Memo> {
        let message = self.messages.get(key)?;
        // The request that was answered is still counted.
        let last = message.open == 1 && message.failure.is_none();
        let mut counts = message.counts;
        let repeat = message.repeat.as_mut().filter(|repeat| last && !repeat.settled)?;
        repeat.settled = true;
        let (digest, peer) = (repeat.digest, repeat.peer);
        counts.add(outcome.counts);
        let (kind, id, number) = (message.kind.as_str().into(), message.id.clone()?, message.number);
        let is_server = message.sender.is_server();
        let message_id = (!is_server).then(|| self.message_id(number).to_string().into());
        Some(Memo { digest, peer, report: Report::Outcome { kind, id, message_id, counts } })
    }

    pub(super) fn kept(&mut self, now: Instant, ticket: Ticket, result: Result<Vec<Place>, Trouble>, effects: &mut Vec<Effect>) {
        let Some(Keeping { keep, had, cause }) = self.keepings.remove(&ticket) else { return };
        let places = result.as_deref().unwrap_or_default();
        for (((letter, recipient), had), place) in keep.recipients().zip(&had).zip(places) {
            if let Place::Queued(seq) = place {
                self.arrived(now, &recipient.user, *seq, letter, had, effects);
            }
        }
        for (_, recipient) in keep.recipients() {
            self.kept_one(&recipient.user, effects);
        }
        self.forward(&keep, places, effects);
        match cause {
            Cause::Answer { message, outcome } => {
                match result {
                    Ok(places) => self.answer_kept(message, *outcome, &keep, &places, effects),
                    Err(trouble) => self.answer_not_kept(message, &outcome, trouble, effects),
                }
                self.request_done(message, effects);
            }
            // Without it the same message would be handled again, but nobody sends it again who has its report.
            Cause::Memo(message) => self.request_done(message, effects),
            Cause::Unwritten(conn) => {
                let lost = match result {
                    Ok(places) => places.iter().filter(|place| **place == Place::Refused).count(),
                    Err(_) => keep.rows(),
                };
                if lost > 0 {
                    warn!("{conn}: it does not read, and {lost} of its messages found no place in the mailbox: they are lost");
                    self.close(conn, CloseReason::TooSlow, effects);
                }
            }
        }
    }

    /// A letter less is on its way into a user's mailbox.
    fn kept_one(&mut self, user: &Username, effects: &mut Vec<Effect>) {
        let Some(account) = self.users.account(user) else { return };
        account.keeping = account.keeping.saturating_sub(1);
        if account.keeping == 0 {
            let conns: Conns = account.sessions.iter().map(|session| session.conn).collect();
            conns.into_iter().for_each(|conn| self.catch_up(conn, effects));
        }
    }

    fn answer_kept(&mut self, key: MessageKey, outcome: Outcome, keep: &Keep, places: &[Place], effects: &mut Vec<Effect>) {
        let Outcome { told, id, route, number, mut counts, missed } = outcome;
        counts.add(keep.tally(places));
        if let Some(message) = self.messages.get(key) {
            message.counts.add(counts);
        }
        if let Some(mut missed) = missed {
            for ((_, recipient), place) in keep.recipients().zip(places).filter(|((_, recipient), _)| !recipient.handed) {
                let name = || recipient.user.to_string();
                match place {
                    Place::Queued(_) => {}
                    Place::Refused => missed.refused.push(name()),
                    Place::Unknown => missed.unknown.push(name()),
                }
            }
            for (outgoing, place) in keep.sent(places) {
                match place {
                    Place::Queued(_) => {}
                    Place::Refused => missed.refused.extend(self.name_of(&outgoing.to)),
                    Place::Unknown => missed.unknown.extend(self.name_of(&outgoing.to)),
                }
            }
            told.of_outcome(self.routes.kind(route), id.as_ref(), self.message_id(number), &counts, &missed, effects);
        }
    }

    fn answer_not_kept(&mut self, key: MessageKey, outcome: &Outcome, trouble: Trouble, effects: &mut Vec<Effect>) {
        let (reason, words) = trouble_in_words(trouble);
        if let Some(message) = self.messages.get(key) {
            message.counts.add(outcome.counts);
        }
        self.fail(key, Failure::Reason(reason, words.to_owned()));
        outcome.told.of_failure(self.routes.kind(outcome.route), outcome.id.as_ref(), reason, words, effects);
    }
}

/// How a report tells of trouble with the disk.
pub(super) fn trouble_in_words(trouble: Trouble) -> (Reason, &'static str) {
    match trouble {
        Trouble::Busy => (Reason::Busy, "too many messages wait for the disk; try again"),
        Trouble::Storage => (Reason::Storage, "the message could not be kept on the disk; try again later"),
    }
}
