//! From a handler's answer to those whom it names. All of it is checked before any of it is done.

use super::Dispatcher;
use super::event::{Effect, Handed};
use super::keeping::{Conns, Gathered, Outcome as Pending};
use super::pushing::Told;
use super::requests::{Failure, MessageKey, Request, Sender};
use super::users::{Named, UserSession};
use crate::frame::{Packet, Slice};
use crate::name::{ConnId, HandlerId, RequestId, RouteId};
use crate::protocol::handler::{Answer, Command, Offline, Order, Outcome, WrongAnswer};
use crate::protocol::reason::Reason;
use crate::protocol::report::{self, Counts, MessageId, Missed};
use crate::protocol::server::HOPS_MAX as HOPS_MAX_SERVERS;
use crate::protocol::text::Text;
use crate::store::mail::{Letter, Recipient};
use foldhash::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

/// How often handlers may pass one message on (`sendHandler`).
const HOPS_MAX: u8 = 4;

impl Dispatcher {
    pub(super) fn answered(
        &mut self,
        now: Instant,
        handler: HandlerId,
        request: Option<RequestId>,
        answer: &Result<Answer, WrongAnswer>,
        effects: &mut Vec<Effect>,
    ) {
        if self.stopping || !self.routes.knows(handler.route) {
            return;
        }
        let named = in_reply_to(answer).map(|text| self.request_of(text));
        // Otherwise it is an answer of a start that was given up, and what it was asked has its report.
        let Some(start) = self.routes.get(handler.route).start(handler) else { return };
        let form = start.form;
        let request = if form.tells_by_order() {
            start.under_way.pop_front()
        } else if form.per_message {
            request.and_then(|id| start.take(id))
        } else {
            named.flatten().and_then(|id| start.take(id))
        };
        let Some(request) = request else {
            if form.tells_by_order() {
                return self.replace(now, handler, "gave an answer that nobody had asked for", effects);
            }
            if !form.per_message && named.is_none() {
                return self.pushed(now, handler.route, Told::Handler(handler, form.framing), answer, effects);
            }
            let words = "answered a request that is not under way (late, or header.inReplyTo is wrong); dropped";
            return self.routes.get(handler.route).complain(now, words);
        };
        start.answered = Some(now);
        let told = if form.is_told_outcomes() { Told::Handler(handler, form.framing) } else { Told::Nobody };
        self.carry_out(now, handler.route, told, &request, answer, effects);
        self.request_done(request.message, effects);
        self.answered_one(now, handler, effects);
    }

    pub(super) fn carry_out(
        &mut self,
        now: Instant,
        route_id: RouteId,
        told: Told,
        request: &Request,
        answer: &Result<Answer, WrongAnswer>,
        effects: &mut Vec<Effect>,
    ) {
        let (checked, id) = match answer {
            Ok(Answer { outcome: Outcome::Commands(commands), id, .. }) => (self.check(request, commands).map(|()| commands), id),
            Ok(Answer { outcome: Outcome::Refused { status, data }, id, .. }) => {
                let route = self.routes.get(route_id);
                route.failed += 1;
                let handler = route.config.kind.to_string();
                told.of_failure(&handler, id.as_ref(), Reason::HandlerRefused, "the message was refused, as the answer says", effects);
                let failure = Failure::Refused { handler, status: status.clone(), data: data.clone() };
                return self.fail(request.message, failure);
            }
            Err(wrong) => (Err((Reason::HandlerProtocol, wrong.message.clone())), &wrong.id),
        };
        match checked {
            Ok(commands) => {
                let Some(number) = self.messages.get(request.message).map(|message| message.number) else { return };
                let mut tally = Tally {
                    route: route_id,
                    offline: self.routes.get(route_id).config.offline,
                    number,
                    deliveries: Deliveries::default(),
                    gathered: Gathered::default(),
                    counts: Counts::default(),
                    unknown: HashSet::default(),
                    missed: told.wants(id.as_ref()).then(Missed::default),
                };
                self.users.begin_answer();
                for command in commands {
                    self.command(now, request, command, &mut tally, effects);
                }
                let Tally { gathered, counts, missed, .. } = tally;
                if !gathered.is_empty() {
                    let outcome = Pending { told, id: id.clone(), route: route_id, number, counts, missed };
                    return self.keep_for_answer(request.message, gathered, outcome, effects);
                }
                if let Some(message) = self.messages.get(request.message) {
                    message.counts.add(counts);
                }
                if let Some(missed) = &missed {
                    told.of_outcome(self.routes.kind(route_id), id.as_ref(), self.message_id(number), &counts, missed, effects);
                }
            }
            Err((reason, words)) => {
                let route = self.routes.get(route_id);
                route.failed += 1;
                route.complain(now, format_args!("gave an answer that is not carried out: {words}"));
                told.of_failure(route.config.kind.as_str(), id.as_ref(), reason, &words, effects);
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
            if matches!(command.order, Order::SendServers(_) | Order::Reply) && self.is_passed_on_too_often(request.message, &command.order)
            {
                return Err((Reason::Loop, format!("the message was passed on from server to server more than {HOPS_MAX_SERVERS} times")));
            }
            if command.order == Order::Reply && self.messages.conn(request.message).is_none() {
                return Err((
                    Reason::HandlerProtocol,
                    "reply goes to the connection that asked, and this answers nobody (is header.inReplyTo missing?)".into(),
                ));
            }
        }
        Ok(())
    }

    /// Whether an answer would send a message to a server more often than messages may be.
    fn is_passed_on_too_often(&self, key: MessageKey, order: &Order) -> bool {
        let sender = self.messages.peek(key).map(|message| &message.sender);
        let leaves = matches!(order, Order::SendServers(_)) || sender.is_some_and(Sender::is_server);
        leaves && sender.is_some_and(|sender| u64::from(sender.hops()) >= HOPS_MAX_SERVERS)
    }

    fn command<'a>(&mut self, now: Instant, request: &Request, command: &'a Command, tally: &mut Tally<'a>, effects: &mut Vec<Effect>) {
        match (&command.order, &command.data) {
            (Order::None, _) | (_, None) => {}
            (Order::SendClients(names), Some(data)) => {
                let queue = command.offline.unwrap_or(tally.offline) == Offline::Queue;
                self.send_clients(request.message, names, data, queue, tally, effects);
            }
            (Order::Reply, Some(data)) => {
                let queue = command.offline.unwrap_or(tally.offline) == Offline::Queue;
                self.reply(request.message, data, queue, tally, effects);
            }
            (Order::SendServers(names), Some(data)) => self.send_servers(request.message, names, data, tally),
            (Order::SendHandler(next), Some(data)) => {
                if let Some(route) = self.routes.find(next.bytes()) {
                    self.ask(now, route, request.message, request.hops + 1, data.clone(), effects);
                }
            }
        }
    }

    fn send_clients<'a>(
        &mut self,
        key: MessageKey,
        names: &'a [Text],
        data: &Slice,
        queue: bool,
        tally: &mut Tally<'a>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(message) = self.messages.peek(key) else { return };
        let asked_by = message.sender.conn();
        let origin = Origin {
            kind: self.routes.kind(tally.route),
            message_id: MessageId::Own { prefix: &self.message_id_prefix, number: tally.number },
            asker: asked_by.filter(|_| !message.sender.is_server()).zip(message.id.as_ref()),
        };
        let mut letter = None;
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
            let mut here = false;
            let by_mailbox = account.goes_to_mailbox(queue, asked_by);
            for session in &account.sessions {
                let asker = Some(session.conn) == asked_by;
                if !asker && session.ending {
                    continue;
                }
                here = true;
                if by_mailbox && !session.is_given_at_once(queue) {
                    continue;
                }
                let packet = tally.deliveries.to(session.conn, &origin, data);
                effects.push(if queue {
                    let letter = Arc::clone(letter.get_or_insert_with(|| origin.letter(data)));
                    Effect::Hand(session.conn, packet, Box::new(Handed { user: account.name.clone(), letter, alone: false }))
                } else {
                    Effect::Send(session.conn, packet)
                });
            }
            if by_mailbox {
                let letter = letter.get_or_insert_with(|| origin.letter(data));
                let is_here = |session: &UserSession| !session.ending || Some(session.conn) == asked_by;
                let given = |session: &&UserSession| is_here(session) && session.is_given_at_once(queue);
                let had: Conns = account.sessions.iter().filter(given).map(|session| session.conn).collect();
                let recipient = Recipient { user: account.name.clone(), counts, handed: !had.is_empty() };
                tally.gathered.add(letter, recipient, had);
            } else if counts {
                tally.count(|| name.as_str(), here);
            }
        }
    }

    /// A delivery to the connection that asked. If it is gone, or is fed from the mailbox, that is where it goes.
    fn reply(&mut self, key: MessageKey, data: &Slice, queue: bool, tally: &mut Tally<'_>, effects: &mut Vec<Effect>) {
        let Some(message) = self.messages.peek(key) else { return };
        let Sender::Client(conn, user) = message.sender.clone() else { return self.reply_to_server(key, data, tally) };
        let open = self.open_session(conn).is_some();
        let sessions = self.users.sessions(user.as_str().as_bytes());
        let exists = sessions.is_some();
        let sessions = sessions.unwrap_or_default();
        let session = sessions.iter().find(|session| session.conn == conn);
        let at_once = open && session.is_none_or(|session| session.is_given_at_once(queue));
        let handed = queue && session.is_some();
        // Who is gone may have no account any longer; he counts all the same.
        let counts = self.users.count(&user) || !exists;
        let Some(message) = self.messages.peek(key) else { return };
        let origin = Origin {
            kind: self.routes.kind(tally.route),
            message_id: MessageId::Own { prefix: &self.message_id_prefix, number: tally.number },
            asker: message.id.as_ref().map(|id| (conn, id)),
        };
        if at_once {
            let packet = tally.deliveries.to(conn, &origin, data);
            effects.push(if handed {
                Effect::Hand(conn, packet, Box::new(Handed { user: user.clone(), letter: origin.letter(data), alone: true }))
            } else {
                Effect::Send(conn, packet)
            });
        } else if exists && (open || queue) {
            // It comes to his other sessions too, for this one may go before it has had it, and then nothing may overtake it.
            let sessions = self.users.account(&user).map(|account| &mut account.sessions[..]).unwrap_or_default();
            sessions.iter_mut().for_each(|session| session.live = false);
            let recipient = Recipient { user, counts, handed: false };
            return tally.gathered.add(&origin.letter(data), recipient, Conns::new());
        }
        if counts {
            tally.count(|| user.as_str(), at_once);
        }
    }
}

/// What an answer leads to: each recipient counts once, whatever it names him for.
pub(super) struct Tally<'a> {
    /// Whose answer.
    pub(super) route: RouteId,
    /// What its type says of users who are away.
    offline: Offline,
    /// The number of the message.
    number: u64,
    deliveries: Deliveries,
    /// What it has for mailboxes and other servers.
    pub(super) gathered: Gathered,
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

    /// A server that is sent to, but not this.
    pub(super) fn refused(&mut self, name: &str) {
        self.counts.refused_servers += 1;
        if let Some(missed) = &mut self.missed {
            missed.refused.push(name.to_owned());
        }
    }

    /// A server that cannot be sent to.
    pub(super) fn unknown_server(&mut self, name: &str) {
        self.counts.unknown_servers += 1;
        if let Some(missed) = &mut self.missed {
            missed.unknown.push(name.to_owned());
        }
    }

    pub(super) fn unknown(&mut self, name: &'a str, server: bool) {
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
    /// The connection that asked, and the id that it gave.
    asker: Option<(ConnId, &'a Slice)>,
}

impl Origin<'_> {
    /// The same for mailboxes.
    fn letter(&self, data: &Slice) -> Arc<Letter> {
        Arc::new(Letter {
            message_id: self.message_id.to_string().into(),
            kind: self.kind.into(),
            data: data.clone(),
            asker: self.asker.map(|(conn, id)| (conn, id.clone())),
            report: None,
        })
    }
}

/// A delivery, by where its data stands in the answer, which is kept until all is done, and whether the id is in it.
type Which = (*const [u8], bool);

/// Encoding less data than this again costs no more than looking for it.
const LARGE_BYTES: usize = 4 << 10;

impl Deliveries {
    /// The delivery to one session. Only for the one that asked the id, which is always the same, is in it.
    fn to(&mut self, conn: ConnId, origin: &Origin<'_>, data: &Slice) -> Packet {
        let id = origin.asker.filter(|(asker, _)| *asker == conn).map(|(_, id)| id);
        let which = (std::ptr::from_ref(data.bytes()), id.is_some());
        if let Some((_, packet)) = self.last.as_ref().filter(|(last, _)| *last == which) {
            return packet.clone();
        }
        let encode = || report::delivery(origin.kind, origin.message_id, data, id, None);
        let packet = if data.bytes().len() < LARGE_BYTES { encode() } else { self.large.entry(which).or_insert_with(encode).clone() };
        self.last = Some((which, packet.clone()));
        packet
    }
}

fn in_reply_to(answer: &Result<Answer, WrongAnswer>) -> Option<&str> {
    let text = match answer {
        Ok(answer) => answer.in_reply_to.as_ref(),
        Err(wrong) => wrong.in_reply_to.as_ref(),
    };
    text.map(Text::as_str)
}
