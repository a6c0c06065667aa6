//! From a message to its handler: what can be handed over at once is, the rest waits, and nothing waits for ever.

use super::Dispatcher;
use super::event::{Effect, Message};
use super::requests::{self, Failure, MessageKey, Request, Waiting};
use crate::frame::{Packet, Slice};
use crate::name::{BUILTIN, ConnId, Generation, RequestId, RouteId};
use crate::protocol::client::KIND_BYTES_MAX;
use crate::protocol::reason::Reason;
use crate::protocol::report::{self, Id, MessageId};
use crate::protocol::{handler, report::Counts};
use log::info;
use std::time::Instant;

impl Dispatcher {
    pub(super) fn message(&mut self, now: Instant, conn: ConnId, message: Message, effects: &mut Vec<Effect>) {
        let draining = self.draining;
        let Some(session) = self.open_session(conn) else { return effects.push(Effect::Settle(conn, message.bytes)) };
        session.under_way += 1;
        let user = session.user.clone();
        let route = self.routes.find(message.kind.bytes());
        let (user, route) = match (user, route) {
            (Some(user), Some(route)) if !draining => (user, route),
            (user, _) => {
                let (reason, words) = match user {
                    None => (Reason::NotAuthenticated, "log in first"),
                    Some(_) if draining => (Reason::Draining, "this server is stopping"),
                    Some(_) => (Reason::UnknownType, "no handler is configured for this type"),
                };
                let kind = Some(message.kind.as_str()).filter(|kind| kind.len() <= KIND_BYTES_MAX);
                let id = message.id.map(Id::Client);
                effects.push(Effect::Send(conn, report::bad(kind.unwrap_or(BUILTIN), id.as_ref(), reason, words)));
                return self.settle(conn, message.bytes, effects);
            }
        };
        let number = self.next_number();
        let Message { kind, data, id, bytes } = message;
        let waiting = requests::Message { number, conn, user, kind, id, bytes, open: 0, counts: Counts::default(), failure: None };
        let key = self.messages.add(waiting);
        self.ask(now, route, key, 0, data, effects);
        self.finish(key, effects);
    }

    /// Makes a request of a message that is under way. [`Dispatcher::finish`] must follow.
    pub(super) fn ask(&mut self, now: Instant, route_id: RouteId, key: MessageKey, hops: u8, data: Slice, effects: &mut Vec<Effect>) {
        let id = RequestId(self.next_number());
        let route = self.routes.get(route_id);
        let full = route.waiting.len() >= route.config.queue;
        let at_once = route.waiting.is_empty() && route.has_room();
        if full && !at_once {
            let failure = queue_failure(route, "its queue is full");
            return self.fail(key, failure);
        }
        let request = Request { id, message: key, hops, deadline: now };
        if let Some(message) = self.messages.get(key) {
            message.open += 1;
        }
        if at_once {
            self.hand_over(now, route_id, request, data, effects);
        } else {
            let deadline = now + route.config.queue_wait;
            route.waiting.push_back(Waiting { request: Request { deadline, ..request }, data });
            self.wake_at(deadline);
        }
    }

    /// Hands over what waits for a handler, as far as it may be asked.
    pub(super) fn pump(&mut self, now: Instant, route_id: RouteId, effects: &mut Vec<Effect>) {
        loop {
            let route = self.routes.get(route_id);
            if !route.has_room() {
                return;
            }
            let Some(Waiting { request, data }) = route.waiting.pop_front() else { return };
            self.hand_over(now, route_id, request, data, effects);
        }
    }

    fn hand_over(&mut self, now: Instant, route_id: RouteId, mut request: Request, data: Slice, effects: &mut Vec<Effect>) {
        let route = self.routes.get(route_id);
        let deadline = now + route.config.timeout;
        request.deadline = deadline;
        let (id, framing) = (request.id, route.config.framing);
        let packet = if route.config.envelope {
            let Some(message) = self.messages.get(request.message) else { return };
            let message_id = MessageId { prefix: &self.message_id_prefix, number: id.0 };
            let server = self.settings.server.as_str();
            let from = handler::Speaker { user: message.user.as_str(), server, session: message.conn.0 };
            let kind = route.config.kind.as_str();
            Packet::write_as(framing, |body| handler::envelope(body, message_id, &from, kind, data.bytes(), message.id.as_ref()))
        } else {
            Packet::new(framing, data)
        };
        route.under_way.push_back(request);
        self.wake_at(deadline);
        effects.push(Effect::Ask(route_id, id, packet));
    }

    pub(super) fn handler_up(&mut self, now: Instant, route_id: RouteId, generation: Generation, effects: &mut Vec<Effect>) {
        // Whoever starts handlers says when one has ended. Were it forgotten, the next start would answer for this one.
        if let Some(before) = self.routes.get(route_id).up.filter(|before| *before != generation) {
            self.handler_down(route_id, before, "was started again".into(), effects);
        }
        let route = self.routes.get(route_id);
        info!("handler {} is up", route.config.kind);
        route.up = Some(generation);
        self.pump(now, route_id, effects);
    }

    pub(super) fn handler_down(&mut self, route_id: RouteId, generation: Generation, reason: String, effects: &mut Vec<Effect>) {
        let route = self.routes.get(route_id);
        // When the dispatcher itself had it replaced, it is down already.
        if route.up.is_some_and(|up| up != generation) {
            return;
        }
        if route.up.take().is_none() {
            route.down_reason = reason;
            return;
        }
        route.end_complaints();
        let message = format!("handler {} {reason}", route.config.kind);
        route.down_reason = reason;
        for request in std::mem::take(&mut route.under_way) {
            self.request_failed(&request, Failure::Reason(Reason::HandlerCrashed, message.clone()), effects);
        }
    }

    /// A start of a handler that can no longer be trusted with answers: what it was asked comes to nothing.
    pub(super) fn replace(&mut self, route_id: RouteId, reason: &str, effects: &mut Vec<Effect>) {
        let route = self.routes.get(route_id);
        let Some(generation) = route.up else { return };
        effects.push(Effect::Replace { route: route_id, generation, reason: reason.to_owned() });
        self.handler_down(route_id, generation, reason.to_owned(), effects);
    }

    pub(super) fn unanswered(
        &mut self,
        now: Instant,
        route_id: RouteId,
        id: RequestId,
        reason: Reason,
        message: String,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(request) = self.routes.get(route_id).take(id) {
            self.request_failed(&request, Failure::Reason(reason, message), effects);
            self.pump(now, route_id, effects);
        }
    }

    pub(super) fn tick(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.next_deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        self.next_deadline = None;
        for route in self.routes.ids() {
            self.fail_late(now, route, effects);
            self.fail_waiting(now, route, effects);
            let route = self.routes.get(route);
            // Each queue is in the order of its deadlines, so the first is the earliest.
            let firsts = [route.waiting.front().map(|waiting| &waiting.request), route.under_way.front()];
            let deadline = firsts.into_iter().flatten().map(|request| request.deadline).min();
            if let Some(deadline) = deadline {
                self.wake_at(deadline);
            }
        }
    }

    /// Requests that the handler was asked and did not answer in time.
    fn fail_late(&mut self, now: Instant, route_id: RouteId, effects: &mut Vec<Effect>) {
        loop {
            let route = self.routes.get(route_id);
            let Some(request) = route.under_way.pop_front_if(|request| request.deadline <= now) else { break };
            let timeout = route.config.timeout;
            let reason = format!("did not answer within {} s", timeout.as_secs());
            let message = format!("handler {} {reason}", route.config.kind);
            // In envelope form a late answer is told from the next one by its id, so that one late request says
            // nothing of the others, unless nothing at all was answered meanwhile.
            let silent = route.answered.is_none_or(|answered| answered + timeout <= request.deadline);
            let trusted = route.config.envelope && !silent;
            if route.config.per_message {
                effects.push(Effect::Abandon(route_id, request.id));
            }
            self.request_failed(&request, Failure::Reason(Reason::HandlerTimeout, message), effects);
            if !trusted {
                self.replace(route_id, &reason, effects);
            }
        }
        self.pump(now, route_id, effects);
    }

    /// Requests that waited for the handler for too long.
    fn fail_waiting(&mut self, now: Instant, route_id: RouteId, effects: &mut Vec<Effect>) {
        loop {
            let route = self.routes.get(route_id);
            let late = |waiting: &mut Waiting| waiting.request.deadline <= now;
            let Some(Waiting { request, .. }) = route.waiting.pop_front_if(late) else { return };
            let words = format!("it had no room for {} s", route.config.queue_wait.as_secs());
            let failure = queue_failure(route, &words);
            self.request_failed(&request, failure, effects);
        }
    }

    fn wake_at(&mut self, deadline: Instant) {
        self.next_deadline = Some(self.next_deadline.map_or(deadline, |next| next.min(deadline)));
    }

    /// Notes why (a part of) a message came to nothing; what is noted first is what is reported.
    pub(super) fn fail(&mut self, key: MessageKey, failure: Failure) {
        if let Some(message) = self.messages.get(key) {
            message.failure.get_or_insert_with(|| Box::new(failure));
        }
    }

    /// The server does not wait for any handler any longer: what is under way gets its report.
    pub(super) fn give_up_all(&mut self, effects: &mut Vec<Effect>) {
        for route_id in self.routes.ids() {
            let route = self.routes.get(route_id);
            let message = format!("this server stopped before handler {} had answered", route.config.kind);
            let (under_way, waiting) = (std::mem::take(&mut route.under_way), std::mem::take(&mut route.waiting));
            for request in under_way.into_iter().chain(waiting.into_iter().map(|waiting| waiting.request)) {
                self.request_failed(&request, Failure::Reason(Reason::Draining, message.clone()), effects);
            }
        }
    }

    fn request_failed(&mut self, request: &Request, failure: Failure, effects: &mut Vec<Effect>) {
        self.fail(request.message, failure);
        self.request_done(request.message, effects);
    }

    /// One request of a message is no longer open.
    pub(super) fn request_done(&mut self, key: MessageKey, effects: &mut Vec<Effect>) {
        if let Some(message) = self.messages.get(key) {
            message.open = message.open.saturating_sub(1);
        }
        self.finish(key, effects);
    }

    /// Reports on a message when nothing of it is open any longer.
    pub(super) fn finish(&mut self, key: MessageKey, effects: &mut Vec<Effect>) {
        let Some(message) = self.messages.take_finished(key) else { return };
        let bad = message.failure.is_some() || message.counts.failure().is_some();
        let wanted = bad || message.id.is_some();
        if wanted && self.open_session(message.conn).is_some() {
            let id = message.id.map(Id::Client);
            let (kind, id) = (message.kind.as_str(), id.as_ref());
            let packet = match message.failure.as_deref() {
                None => report::outcome(kind, id, self.message_id(message.number), &message.counts),
                Some(Failure::Reason(reason, words)) => report::bad(kind, id, *reason, words),
                Some(Failure::Refused { handler, status, data }) => {
                    report::refused(kind, id, handler, status.bytes(), data.as_ref().map(Slice::bytes))
                }
            };
            effects.push(Effect::Send(message.conn, packet));
        }
        self.settle(message.conn, message.bytes, effects);
    }
}

fn queue_failure(route: &super::routes::Route, full: &str) -> Failure {
    let kind = &route.config.kind;
    if route.up.is_some() {
        Failure::Reason(Reason::Busy, format!("handler {kind} is busy: {full}"))
    } else {
        Failure::Reason(Reason::HandlerUnavailable, format!("handler {kind} is not running: {}", route.down_reason))
    }
}
