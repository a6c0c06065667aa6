//! From a message to its handler: what can be handed over at once is, the rest waits, and nothing waits for ever.

use super::Dispatcher;
use super::event::{Effect, Message};
use super::repeats::Stage;
use super::requests::{self, Failure, MessageKey, Repeat, Request, Sender, Waiting};
use super::routes::Route;
use super::sessions::Session;
use crate::frame::{Packet, Slice};
use crate::name::{BUILTIN, ConnId, HandlerId, RequestId, RouteId};
use crate::protocol::client::KIND_BYTES_MAX;
use crate::protocol::handler::{self, Enveloped, Speaker};
use crate::protocol::reason::Reason;
use crate::protocol::report::{self, Counts, Id, MessageId};
use std::sync::Arc;
use std::time::Instant;

/// Why nothing new is taken on.
pub(super) const STOPPING: &str = "this server is stopping";

impl Dispatcher {
    pub(super) fn message(&mut self, now: Instant, conn: ConnId, message: Message, effects: &mut Vec<Effect>) {
        let Some(session) = self.open_session(conn) else { return effects.push(Effect::Settle(conn, message.bytes)) };
        session.under_way += 1;
        if message.digest.is_some() || session.looks_up {
            return self.hold(now, conn, message, effects);
        }
        self.dispatch(now, conn, message, effects);
    }

    /// A message that did not come before, of a connection that is open.
    pub(super) fn dispatch(&mut self, now: Instant, conn: ConnId, message: Message, effects: &mut Vec<Effect>) {
        let route = self.routes.find(message.kind.bytes());
        let accepted = match self.sessions.get(&conn) {
            Some(Session { server: Some(remote), .. }) => {
                let remote = Arc::clone(remote);
                self.accept_transit(now, conn, remote, &message, route)
            }
            Some(Session { user: Some(_), .. }) if self.draining => Err((Reason::Draining, STOPPING)),
            Some(Session { user: Some(user), .. }) => match route {
                Some(route) => Ok((Sender::Client(conn, user.clone()), route)),
                None => Err((Reason::UnknownType, "no handler is configured for this type")),
            },
            _ => Err((Reason::NotAuthenticated, "log in first")),
        };
        let (sender, route) = match accepted {
            Ok(accepted) => accepted,
            Err((reason, words)) => {
                let kind = Some(message.kind.as_str()).filter(|kind| kind.len() <= KIND_BYTES_MAX);
                let id = message.id.map(Id::Client);
                effects.push(Effect::Send(conn, report::bad(kind.unwrap_or(BUILTIN), id.as_ref(), reason, words)));
                return self.settle(conn, message.bytes, effects);
            }
        };
        let number = self.next_number();
        let Message { kind, data, id, bytes, digest, .. } = message;
        let peer = if let Sender::Server(_, abroad) = &sender { abroad.remote.peer } else { None };
        let repeat = digest.as_deref().map(|digest| Box::new(Repeat { digest: *digest, peer, settled: false, others: Vec::new() }));
        let (counts, failure) = (Counts::default(), None);
        let key = self.messages.add(requests::Message { number, sender, kind, id, bytes, open: 0, counts, failure, repeat });
        if let Some(digest) = digest {
            self.repeats.insert(*digest, Stage::UnderWay(key));
        }
        self.ask(now, route, key, 0, data, effects);
        self.finish(key, effects);
    }

    /// Makes a request of a message that is under way. [`Dispatcher::finish`] must follow.
    pub(super) fn ask(&mut self, now: Instant, route_id: RouteId, key: MessageKey, hops: u8, data: Slice, effects: &mut Vec<Effect>) {
        let one_lane = self.routes.get(route_id).lanes.len() == 1;
        let conn = self.messages.conn(key).filter(|conn| !one_lane && self.sessions.contains_key(conn));
        let route = self.routes.get(route_id);
        route.asked += 1;
        let place = route.lane_for(conn);
        let at_once = route.lanes[place].waiting.is_empty() && route.is_free(place);
        let deadline = now + route.config.queue_wait;
        if !at_once {
            let failure = if route.is_broken() {
                Some(not_running(route))
            } else if route.waiting() >= route.config.queue {
                Some(queue_failure(route, "its queue is full"))
            } else {
                None
            };
            if let Some(failure) = failure {
                route.failed += 1;
                return self.fail(key, failure);
            }
        }
        if let Some(message) = self.messages.get(key) {
            message.open += 1;
        }
        let waiting = Waiting { message: key, hops, deadline, data, retried: false };
        if at_once {
            self.hand_over(now, route_id, place, waiting, effects);
        } else {
            self.routes.get(route_id).lanes[place].waiting.push_back(waiting);
            self.wake_at(deadline);
            self.pump(now, route_id, place, effects);
        }
    }

    /// Hands over what waits for an instance of a handler, as far as it may be asked.
    pub(super) fn pump(&mut self, now: Instant, route_id: RouteId, place: usize, effects: &mut Vec<Effect>) {
        loop {
            let Dispatcher { routes, messages, .. } = self;
            let route = routes.get(route_id);
            let Some(next) = route.next(place, |key| messages.conn(key)) else { return };
            let Some(waiting) = route.lanes[place].waiting.remove(next) else { return };
            self.hand_over(now, route_id, place, waiting, effects);
        }
    }

    fn hand_over(&mut self, now: Instant, route_id: RouteId, place: usize, waiting: Waiting, effects: &mut Vec<Effect>) {
        let id = RequestId(self.next_number());
        let Waiting { message: key, hops, data, retried, .. } = waiting;
        let route = self.routes.get(route_id);
        let again = (route.config.idempotent && !retried).then(|| data.clone());
        let Some(start) = route.lanes.get_mut(place).and_then(|lane| lane.up.as_mut()) else { return };
        let (handler, form) = (start.id, start.form);
        let deadline = now + form.timeout;
        let packet = if form.envelope {
            let Some(message) = self.messages.get(key) else { return };
            let message_id = MessageId::Own { prefix: &self.message_id_prefix, number: id.0 };
            let server = self.settings.server.as_str();
            let from = match &message.sender {
                Sender::Client(conn, user) => Speaker::Client { user: user.as_str(), server, session: conn.0 },
                Sender::Server(_, abroad) => {
                    Speaker::Server { user: abroad.user.as_deref(), server: &abroad.remote.name, verified: abroad.remote.verified }
                }
                Sender::Handler => Speaker::Handler { kind: message.kind.as_str(), server },
            };
            let about =
                Enveloped { message_id, from, hops: message.sender.hops(), kind: route.config.kind.as_str(), id: message.id.as_ref() };
            Packet::write_as(form.framing, |body| handler::envelope(body, &about, data.bytes()))
        } else {
            Packet::new(form.framing, data)
        };
        start.under_way.push_back(Request { id, message: key, hops, deadline, again });
        self.wake_at(deadline);
        effects.push(Effect::Ask(handler.start, id, packet));
    }

    pub(super) fn unanswered(
        &mut self,
        now: Instant,
        handler: HandlerId,
        id: RequestId,
        reason: Reason,
        message: String,
        effects: &mut Vec<Effect>,
    ) {
        let request = self.routes.get(handler.route).start(handler).and_then(|start| start.take(id));
        if let Some(request) = request {
            self.request_lost(now, handler, request, reason, message, effects);
            self.answered_one(now, handler, effects);
        }
    }

    /// There will be no answer to a request. It is asked once more, before all that waits, where that does no harm.
    pub(super) fn request_lost(
        &mut self,
        now: Instant,
        handler: HandlerId,
        request: Request,
        reason: Reason,
        words: String,
        effects: &mut Vec<Effect>,
    ) {
        let Request { message, hops, again, .. } = request;
        let route = self.routes.get(handler.route);
        let lasting = matches!(reason, Reason::HandlerCrashed | Reason::HandlerTimeout) && !route.is_broken();
        match (again, route.lanes.get_mut(handler.place())) {
            (Some(data), Some(lane)) if lasting => {
                let deadline = now + route.config.queue_wait;
                let place = lane.waiting.iter().take_while(|waiting| waiting.retried).count();
                lane.waiting.insert(place, Waiting { message, hops, deadline, data, retried: true });
                self.wake_at(deadline);
            }
            _ => self.request_failed(handler.route, message, Failure::Reason(reason, words), effects),
        }
    }

    /// A request less is under way: there is room for another, or the start has answered its last.
    pub(super) fn answered_one(&mut self, now: Instant, handler: HandlerId, effects: &mut Vec<Effect>) {
        let route = self.routes.get(handler.route);
        if !route.leaving.is_empty() && route.leaving.iter().any(|start| start.id == handler && start.under_way.is_empty()) {
            effects.push(Effect::Retire(handler.start));
        }
        self.pump(now, handler.route, handler.place(), effects);
    }

    /// Notes why (a part of) a message came to nothing; what is noted first is what is reported.
    pub(super) fn fail(&mut self, key: MessageKey, failure: Failure) {
        if let Some(message) = self.messages.get(key) {
            message.failure.get_or_insert_with(|| Box::new(failure));
        }
    }

    pub(super) fn request_failed(&mut self, route: RouteId, key: MessageKey, failure: Failure, effects: &mut Vec<Effect>) {
        self.routes.get(route).failed += 1;
        self.fail(key, failure);
        self.request_done(key, effects);
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
        if self.remember(key, effects) {
            return;
        }
        let Some(mut message) = self.messages.take_finished(key) else { return };
        // What a handler said without being asked has its outcome by now: that does not wait for what others make of it.
        let Some(conn) = message.sender.conn() else { return };
        let id = message.id.take().map(Id::Client);
        let wanted = id.is_some() || message.sender.is_server() || message.failure.is_some() || message.counts.failure().is_some();
        if let Some(repeat) = message.repeat.take() {
            self.repeats.remove(&repeat.digest);
            for (conn, bytes) in repeat.others {
                if self.open_session(conn).is_some() {
                    effects.push(Effect::Send(conn, self.report_on(&message, id.as_ref())));
                }
                self.settle(conn, bytes, effects);
            }
        }
        if wanted && self.open_session(conn).is_some() {
            effects.push(Effect::Send(conn, self.report_on(&message, id.as_ref())));
        }
        self.settle(conn, message.bytes, effects);
    }

    pub(super) fn report_on(&self, message: &requests::Message, id: Option<&Id>) -> Packet {
        let kind = message.kind.as_str();
        match message.failure.as_deref() {
            None if message.sender.is_server() => report::for_server(kind, id, &message.counts),
            None => report::outcome(kind, id, self.message_id(message.number), &message.counts),
            Some(Failure::Reason(reason, words)) => report::bad(kind, id, *reason, words),
            Some(Failure::Refused { handler, status, data }) => {
                report::refused(kind, id, handler, status.bytes(), data.as_ref().map(Slice::bytes))
            }
        }
    }
}

/// Why a request cannot wait any longer.
pub(super) fn queue_failure(route: &Route, full: &str) -> Failure {
    if route.is_up() { Failure::Reason(Reason::Busy, format!("handler {} is busy: {full}", route.config.kind)) } else { not_running(route) }
}

/// Why a request cannot be handed over.
pub(super) fn not_running(route: &Route) -> Failure {
    Failure::Reason(Reason::HandlerUnavailable, format!("handler {} is not running: {}", route.config.kind, route.down_reason()))
}
