//! What handlers say without being asked, and how they are told what became of what they say.

use super::Dispatcher;
use super::event::Effect;
use super::requests::{Message, Request, Sender};
use crate::config::Framing;
use crate::frame::Slice;
use crate::name::{ConnId, HandlerId, RequestId, RouteId};
use crate::protocol::handler::{Answer, Outcome, WrongAnswer};
use crate::protocol::informer;
use crate::protocol::reason::Reason;
use crate::protocol::report::{self, Counts, Id, MessageId, Missed};
use crate::protocol::text::Text;
use std::time::Instant;

impl Dispatcher {
    /// Carries out what a handler says without being asked, as if it were an answer.
    pub(super) fn pushed(
        &mut self,
        now: Instant,
        route: RouteId,
        told: Told,
        answer: &Result<Answer, WrongAnswer>,
        effects: &mut Vec<Effect>,
    ) {
        if self.stopping || !self.routes.knows(route) {
            return told.of_failure("", None, Reason::Draining, "this server is stopping", effects);
        }
        let wrong = match answer {
            Ok(Answer { outcome: Outcome::Refused { .. }, id, .. }) => Some(("it refuses a message and does not say which", id)),
            Err(wrong) => Some((wrong.message.as_str(), &wrong.id)),
            Ok(_) => None,
        };
        if let Some((words, id)) = wrong {
            let route = self.routes.get(route);
            route.complain(now, format_args!("wrote something wrong that names no request (header.inReplyTo): {words}; dropped"));
            return told.of_failure(route.config.kind.as_str(), id.as_ref(), Reason::HandlerProtocol, words, effects);
        }
        let number = self.next_number();
        let kind = Text::from(self.routes.kind(route));
        let sender = Sender::Handler;
        let message = Message { number, sender, kind, id: None, bytes: 0, open: 0, counts: Counts::default(), failure: None, repeat: None };
        let message = self.messages.add(message);
        let request = Request { id: RequestId(number), message, hops: 0, deadline: now, again: None };
        self.carry_out(now, route, told, &request, answer, effects);
        self.finish(message, effects);
    }

    /// The same through the informer, where each gets an answer.
    pub(super) fn pushed_on(
        &mut self,
        now: Instant,
        conn: ConnId,
        route: RouteId,
        answer: &Result<Answer, WrongAnswer>,
        effects: &mut Vec<Effect>,
    ) {
        self.pushed(now, route, Told::Informer(conn), answer, effects);
    }
}

/// Who is told what became of an answer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Told {
    Nobody,
    /// The handler, where its messages come from, if it asks for that with an id.
    Handler(HandlerId, Framing),
    /// The handler, on its connection to the informer.
    Informer(ConnId),
}

impl Told {
    /// Whether the outcome matters to anybody.
    pub(super) fn wants(self, id: Option<&Slice>) -> bool {
        match self {
            Told::Nobody => false,
            Told::Handler(..) => id.is_some(),
            Told::Informer(_) => true,
        }
    }

    /// Nothing of it was done.
    pub(super) fn of_failure(self, kind: &str, id: Option<&Slice>, reason: Reason, words: &str, effects: &mut Vec<Effect>) {
        match (self, id) {
            (Told::Nobody, _) | (Told::Handler(..), None) => {}
            (Told::Handler(handler, framing), Some(id)) => {
                let report = report::bad(kind, Some(&Id::Client(id.clone())), reason, words);
                effects.push(Effect::Tell(handler.start, report.framed_as(framing)));
            }
            (Told::Informer(conn), _) => effects.extend([Effect::Send(conn, informer::failure(words)), Effect::Settle(conn, 0)]),
        }
    }

    /// It was carried out, and its recipients fared like this.
    pub(super) fn of_outcome(
        self,
        kind: &str,
        id: Option<&Slice>,
        message_id: MessageId<'_>,
        counts: &Counts,
        missed: &Missed,
        effects: &mut Vec<Effect>,
    ) {
        match (self, id) {
            (Told::Nobody, _) | (Told::Handler(..), None) => {}
            (Told::Handler(handler, framing), Some(id)) => {
                let report = report::outcome_for_handler(kind, &Id::Client(id.clone()), message_id, counts, missed);
                effects.push(Effect::Tell(handler.start, report.framed_as(framing)));
            }
            (Told::Informer(conn), _) => {
                let data = report::outcome_data(message_id, counts, missed);
                effects.extend([Effect::Send(conn, informer::success(&data)), Effect::Settle(conn, 0)]);
            }
        }
    }
}
