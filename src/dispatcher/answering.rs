//! From a handler's answer to those whom it names. All of it is checked before any of it is done.

use super::Dispatcher;
use super::event::Effect;
use super::requests::{Failure, MessageKey, Request};
use super::users::Named;
use crate::frame::{Packet, Slice};
use crate::name::{ConnId, Generation, RequestId, RouteId};
use crate::protocol::handler::{Answer, Command, Order, Outcome, WrongAnswer};
use crate::protocol::reason::Reason;
use crate::protocol::report::{self, Counts, Id, MessageId, Missed};
use crate::protocol::text::Text;
use foldhash::{HashMap, HashSet};
use std::time::Instant;

/// How often handlers may pass one message on (`sendHandler`).
const HOPS_MAX: u8 = 4;

impl Dispatcher {
    pub(super) fn answered(
        &mut self,
        now: Instant,
        route_id: RouteId,
        generation: Generation,
        request: Option<RequestId>,
        answer: &Result<Answer, WrongAnswer>,
        effects: &mut Vec<Effect>,
    ) {
        let route = self.routes.get(route_id);
        if route.up != Some(generation) || self.stopping {
            return; // an answer of a start that was given up, or that came too late, to a request that has its report
        }
        let id = if route.config.per_message {
            request
        } else if route.config.envelope {
            match in_reply_to(answer).map(|text| self.request_of(text)) {
                Some(id) => id,
                None => {
                    let route = self.routes.get(route_id);
                    return match answer {
                        Ok(_) => route.complain(now, "spoke without being asked (no header.inReplyTo); dropped"),
                        Err(wrong) => {
                            route.complain(now, format_args!("gave an answer that names no request; dropped: {}", wrong.message));
                        }
                    };
                }
            }
        } else {
            match route.under_way.front() {
                Some(request) => Some(request.id),
                None => return self.replace(route_id, "gave an answer that nobody had asked for", effects),
            }
        };
        let route = self.routes.get(route_id);
        let Some(request) = id.and_then(|id| route.take(id)) else {
            return route.complain(now, "answered a request that is not under way (late, or header.inReplyTo is wrong); dropped");
        };
        route.answered = Some(now);
        self.carry_out(now, route_id, &request, answer, effects);
        self.request_done(request.message, effects);
        self.pump(now, route_id, effects);
    }

    fn carry_out(
        &mut self,
        now: Instant,
        route_id: RouteId,
        request: &Request,
        answer: &Result<Answer, WrongAnswer>,
        effects: &mut Vec<Effect>,
    ) {
        let (checked, id) = match answer {
            Ok(Answer { outcome: Outcome::Commands(commands), id, .. }) => (self.check(request, commands).map(|()| commands), id),
            Ok(Answer { outcome: Outcome::Refused { status, data }, id, .. }) => {
                let route = self.routes.get(route_id);
                if let Some(id) = id.clone().filter(|_| route.is_told_outcomes()) {
                    let words = "the message was refused, as the answer says";
                    let report = report::bad(route.config.kind.as_str(), Some(&Id::Client(id)), Reason::HandlerRefused, words);
                    route.tell(route_id, report, effects);
                }
                let failure = Failure::Refused { handler: route.config.kind.to_string(), status: status.clone(), data: data.clone() };
                return self.fail(request.message, failure);
            }
            Err(wrong) => (Err((Reason::HandlerProtocol, wrong.message.clone())), &wrong.id),
        };
        match checked {
            Ok(commands) => {
                let Some(number) = self.messages.get(request.message).map(|message| message.number) else { return };
                let wanted = id.clone().filter(|_| self.routes.get(route_id).is_told_outcomes());
                let mut tally = Tally {
                    route: route_id,
                    number,
                    deliveries: Deliveries::default(),
                    counts: Counts::default(),
                    unknown: HashSet::default(),
                    missed: wanted.as_ref().map(|_| Missed::default()),
                };
                self.users.begin_answer();
                for command in commands {
                    self.command(now, request, command, &mut tally, effects);
                }
                if let Some(message) = self.messages.get(request.message) {
                    message.counts.add(tally.counts);
                }
                if let (Some(id), Some(missed)) = (wanted, &tally.missed) {
                    let packet = report::outcome_for_handler(
                        self.routes.kind(route_id),
                        &Id::Client(id),
                        self.message_id(number),
                        &tally.counts,
                        missed,
                    );
                    self.routes.get(route_id).tell(route_id, packet, effects);
                }
            }
            Err((reason, words)) => {
                let route = self.routes.get(route_id);
                route.complain(now, format_args!("gave an answer that is not carried out: {words}"));
                if let Some(id) = id.clone().filter(|_| route.is_told_outcomes()) {
                    let report = report::bad(route.config.kind.as_str(), Some(&Id::Client(id)), reason, &words);
                    route.tell(route_id, report, effects);
                }
                let words = format!("handler {}: {words}", route.config.kind);
                self.fail(request.message, Failure::Reason(reason, words));
            }
        }
    }

    fn check(&self, request: &Request, commands: &[Command]) -> Result<(), (Reason, String)> {
        for command in commands {
            if let Order::SendHandler(kind) = &command.order {
                if self.routes.find(kind.bytes()).is_none() {
                    return Err((Reason::HandlerProtocol, "sendHandler names a type that is not configured".into()));
                }
                if request.hops >= HOPS_MAX {
                    return Err((Reason::Loop, format!("handlers passed the message on more than {HOPS_MAX} times")));
                }
            }
        }
        Ok(())
    }

    fn command<'a>(&mut self, now: Instant, request: &Request, command: &'a Command, tally: &mut Tally<'a>, effects: &mut Vec<Effect>) {
        match (&command.order, &command.data) {
            (Order::None, _) | (_, None) => {}
            (Order::SendClients(names), Some(data)) => self.send_clients(request.message, names, data, tally, effects),
            (Order::Reply, Some(data)) => self.reply(request.message, data, tally, effects),
            (Order::SendServers(names), _) => names.iter().for_each(|name| tally.unknown(name.as_str(), true)),
            (Order::SendHandler(next), Some(data)) => {
                if let Some(route) = self.routes.find(next.bytes()) {
                    self.ask(now, route, request.message, request.hops + 1, data.clone(), effects);
                }
            }
        }
    }

    fn send_clients<'a>(&mut self, key: MessageKey, names: &'a [Text], data: &Slice, tally: &mut Tally<'a>, effects: &mut Vec<Effect>) {
        let Some(message) = self.messages.get(key) else { return };
        let message_id = MessageId { prefix: &self.message_id_prefix, number: tally.number };
        let origin = Origin { kind: self.routes.kind(tally.route), message_id };
        self.users.begin_round();
        for name in names {
            let (account, counts) = match self.users.once(name.bytes()) {
                Named::First { account, counts } => (account, counts),
                Named::Again => continue,
                Named::Nobody => {
                    tally.unknown(name.as_str(), false);
                    continue;
                }
            };
            let mut reached = false;
            for session in &account.sessions {
                let asker = session.conn == message.conn;
                if asker || !session.ending {
                    reached = true;
                    let id = message.id.as_ref().filter(|_| asker);
                    effects.push(tally.deliveries.to(session.conn, &origin, data, id));
                }
            }
            if counts {
                tally.count(|| name.as_str(), reached);
            }
        }
    }

    fn reply(&mut self, key: MessageKey, data: &Slice, tally: &mut Tally<'_>, effects: &mut Vec<Effect>) {
        let Some(message) = self.messages.get(key) else { return };
        let (conn, user, id) = (message.conn, message.user.clone(), message.id.clone());
        let open = self.open_session(conn).is_some();
        if open {
            let origin = Origin { kind: self.routes.kind(tally.route), message_id: self.message_id(tally.number) };
            effects.push(tally.deliveries.to(conn, &origin, data, id.as_ref()));
        }
        // Who is gone may have no account any longer; he counts all the same.
        if self.users.count(&user) || self.users.sessions(user.as_str().as_bytes()).is_none() {
            tally.count(|| user.as_str(), open);
        }
    }
}

/// What an answer leads to: each recipient counts once, whatever it names him for.
struct Tally<'a> {
    /// Whose answer.
    route: RouteId,
    /// The number of the message.
    number: u64,
    deliveries: Deliveries,
    counts: Counts,
    /// Names without an account, and of servers.
    unknown: HashSet<(&'a str, bool)>,
    /// Whom it did not reach, if the handler wants to know.
    missed: Option<Missed>,
}

impl<'a> Tally<'a> {
    fn count<'n>(&mut self, name: impl Fn() -> &'n str, reached: bool) {
        if reached {
            self.counts.delivered += 1;
        } else {
            self.counts.offline += 1;
            if let Some(missed) = &mut self.missed {
                missed.offline.push(name().to_owned());
            }
        }
    }

    fn unknown(&mut self, name: &'a str, server: bool) {
        if !self.unknown.insert((name, server)) {
            return;
        }
        *(if server { &mut self.counts.unknown_servers } else { &mut self.counts.unknown_users }) += 1;
        if let Some(missed) = &mut self.missed {
            missed.unknown.push(name.to_owned());
        }
    }
}

/// The deliveries that an answer leads to. Each is encoded once, however many sessions and commands it is for: an answer
/// of many commands with one large payload for all must not become as many large packets.
#[derive(Default)]
struct Deliveries {
    /// The last one: mostly there is one only, or one for many sessions.
    last: Option<(Which, Packet)>,
    /// Those of large data.
    large: HashMap<Which, Packet>,
}

/// What deliveries say of where they come from; the same for all of an answer.
struct Origin<'a> {
    kind: &'a str,
    message_id: MessageId<'a>,
}

/// A delivery, by where its data stands in the answer, which is kept until all is done, and whether the id is in it.
type Which = (*const [u8], bool);

/// Encoding less data than this again costs no more than looking for it.
const LARGE_BYTES: usize = 4 << 10;

impl Deliveries {
    /// The delivery to one session; `id`, which is always the same, for the one that asked.
    fn to(&mut self, conn: ConnId, origin: &Origin<'_>, data: &Slice, id: Option<&Slice>) -> Effect {
        let which = (std::ptr::from_ref(data.bytes()), id.is_some());
        if let Some((_, packet)) = self.last.as_ref().filter(|(last, _)| *last == which) {
            return Effect::Send(conn, packet.clone());
        }
        let encode = || report::delivery(origin.kind, origin.message_id, data, id);
        let packet = if data.bytes().len() < LARGE_BYTES { encode() } else { self.large.entry(which).or_insert_with(encode).clone() };
        self.last = Some((which, packet.clone()));
        Effect::Send(conn, packet)
    }
}

fn in_reply_to(answer: &Result<Answer, WrongAnswer>) -> Option<&str> {
    let text = match answer {
        Ok(answer) => answer.in_reply_to.as_ref(),
        Err(wrong) => wrong.in_reply_to.as_ref(),
    };
    text.map(Text::as_str)
}
