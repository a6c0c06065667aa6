//! The dispatcher: the one owner of users, routes and requests. A state machine: events in, effects out.
//!
//! Nothing here does I/O, reads a clock or waits; it sees ids, never handles, so that scenarios and random
//! sequences of events can drive it in a test. `run.rs` is the thread around it. Start reading at
//! [`Dispatcher::handle`]: it only tells what goes where. `sessions.rs` minds who is connected, `asking.rs` takes a
//! message to its handler, `answering.rs` takes the answer to those whom it names, `pushing.rs` what a handler says
//! unasked. `serving.rs` takes what other servers say, and `sending.rs` has messages for them kept (`peers.rs` knows who they
//! are). `keeping.rs` has the disk keep what must not be lost, `feeding.rs` takes what lies in mailboxes to sessions (`feed.rs`
//! knows how far each is), `repeats.rs` recognises messages that come again, `storage.rs` remembers how the disk did.
//! `deadlines.rs` ends what takes too long; `handlers.rs` minds which handlers can be asked, `builtin.rs` and `inquiry.rs` answer
//! questions of clients, handlers and the operator. `users.rs`, `routes.rs` with `lane.rs`, and `requests.rs` are the tables.

mod answering;
mod asking;
mod builtin;
mod deadlines;
pub mod event;
mod feed;
mod feeding;
mod handlers;
pub mod inlet;
mod inquiry;
mod keeping;
mod lane;
mod peers;
mod pushing;
mod repeats;
mod requests;
mod routes;
pub mod run;
mod sending;
mod serving;
mod sessions;
mod storage;
#[cfg(test)]
mod tests;
mod users;

pub use event::{About, Asker, Effect, Event, Handed, Inquiry, Message, Transit, Unwritten};
pub use feed::{Window, Windows};
pub use lane::Form;
pub use peers::Proof;
pub use routes::RouteConfig;

use crate::config::FederationMode;
use crate::logging::Quota;
use crate::name::{ConnId, RequestId, ServerName};
use crate::protocol::report::MessageId;
use crate::store::mail::Told;
use feed::Patience;
use keeping::Keepings;
use peers::Peers;
use repeats::Repeats;
use requests::Messages;
use routes::Routes;
use sessions::Sessions;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use storage::Storage;
use users::Users;

/// What the dispatcher is told once.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The server's name, the first part of each `messageId`.
    pub server: ServerName,
    /// A number that no other start of this server has, the second part.
    pub start: u128,
    /// The handlers; their places are the [`RouteId`](crate::name::RouteId)s.
    pub routes: Vec<RouteConfig>,
    /// `limits.connectionsPerUser`.
    pub sessions_per_user: usize,
    /// What bounds all that sessions are sent from mailboxes.
    pub windows: Windows,
    /// `limits.ackSeconds`.
    pub acknowledge_within: Duration,
    /// `federation.mode`.
    pub federation: FederationMode,
    /// `limits.connectionsPerPeer`.
    pub connections_per_peer: usize,
    /// `limits.frameBytesServer`: what is larger is not sent to other servers.
    pub frame_bytes_server: usize,
    /// `limits.openMessagesPerSecond`.
    pub open_messages_per_second: usize,
    /// `admin.info`, as JSON text.
    pub admin_info: String,
    /// Where clients connect, such as `tcp4://127.0.0.1:2223`.
    pub listeners: Vec<String>,
}

/// The state machine.
#[derive(Debug)]
pub struct Dispatcher {
    settings: Settings,
    /// `<server>/<start>-`: what every `messageId` of this start begins with.
    message_id_prefix: Arc<str>,
    users: Users,
    sessions: Sessions,
    routes: Routes,
    messages: Messages,
    repeats: Repeats,
    peers: Peers,
    keepings: Keepings,
    storage: Storage,
    /// Until when sessions must acknowledge something.
    acknowledge_by: Patience,
    /// Sessions whose mailbox could not be read, and when to try again.
    read_again: VecDeque<(Instant, ConnId)>,
    /// Connections to informers that are told who comes and goes.
    watchers: Vec<ConnId>,
    /// Of what the log says of refused servers.
    refusals: Quota,
    /// The last number given to a message or request.
    counter: u64,
    /// No deadline of a request is earlier than this.
    next_deadline: Option<Instant>,
    draining: bool,
    drained: bool,
    /// Connections that come yet end at once.
    stopping: bool,
}

impl Settings {
    /// What each `messageId` of this start begins with.
    pub fn message_id_prefix(&self) -> String {
        format!("{}/{:032x}-", self.server, self.start)
    }
}

impl Dispatcher {
    /// A dispatcher without users; [`Event::AccountsChanged`] tells it of them.
    pub fn new(settings: Settings) -> Dispatcher {
        Dispatcher {
            message_id_prefix: settings.message_id_prefix().into(),
            routes: Routes::new(settings.routes.clone()),
            users: Users::default(),
            sessions: Sessions::default(),
            messages: Messages::default(),
            repeats: Repeats::default(),
            peers: Peers::new(settings.server.clone(), settings.federation, settings.open_messages_per_second),
            refusals: Quota::default(),
            keepings: Keepings::default(),
            storage: Storage::default(),
            acknowledge_by: Patience::default(),
            read_again: VecDeque::new(),
            watchers: Vec::new(),
            counter: 0,
            next_deadline: None,
            draining: false,
            drained: false,
            stopping: false,
            settings,
        }
    }

    /// Takes in what happened at `now` and appends what is to be done, in this order for each destination.
    pub fn handle(&mut self, now: Instant, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Connected(conn) => self.connected(conn, effects),
            Event::LoggedIn { conn, user, revision, ack, after, about } => {
                self.logged_in(conn, user, revision, (ack, after), &about, effects);
            }
            Event::LoggedOut(conn, about) => self.logged_out(conn, &about, effects),
            Event::PasswordChanged { conn, user, revision, about } => self.password_changed(conn, user, revision, &about, effects),
            Event::Registered { conn, user, revision, about } => self.registered(conn, user, revision, &about, effects),
            Event::Shown(conn, proof) => self.shown(conn, &proof, effects),
            Event::Greeted { conn, proof, server, about } => self.greeted(now, conn, &proof, server.as_ref(), &about, effects),
            Event::Message(conn, message) => self.message(now, conn, message, effects),
            Event::Acknowledged { conn, seq, about } => self.acknowledged(now, conn, seq, &about, effects),
            Event::Asked(conn, inquiry, about) => self.asked(conn, inquiry, &about, effects),
            Event::Refused { conn, about, reason, message, last } => self.refused(conn, &about, reason, &message, last, effects),
            Event::Done { conn, about, data } => self.done(conn, &about, &data, effects),
            Event::Leaving(conn, about) => self.leaving(conn, &about, effects),
            Event::InputEnded(conn) => self.input_ended(conn, effects),
            Event::Disconnected(conn) => self.disconnected(conn, effects),
            Event::Backlogged(conn, letters) => self.backlogged(conn, letters, effects),
            Event::Emptied(conn) => self.emptied(conn, effects),
            Event::Stored(told) => self.stored(now, told, effects),
            Event::Overflowed(conn) => self.overflowed(conn, effects),
            Event::AccountsChanged(standings) => self.accounts_changed(standings, effects),
            Event::AccountsReloaded(standings) => self.accounts_reloaded(standings, effects),
            Event::MailboxChanged(user) => self.mailbox_changed(&user, effects),
            Event::HandlerUp(id, form) => self.handler_up(now, id, form, effects),
            Event::HandlerDown { id, reason, for_good } => self.handler_down(now, id, &reason, for_good.as_deref(), effects),
            Event::Answered { id, request, answer } => self.answered(now, id, request, &answer, effects),
            Event::Unanswered { id, request, reason, message } => self.unanswered(now, id, request, reason, message, effects),
            Event::Informed(conn, asker, question) => self.informed(now, conn, asker, &question, effects),
            Event::Pushed { conn, route, answer } => self.pushed_on(now, conn, route, &answer, effects),
            Event::RouteChanged(route, config) => self.route_changed(now, route, config, effects),
            Event::RouteRemoved(route) => self.route_removed(route, effects),
            Event::PeersChanged(peers) => self.peers_changed(peers, effects),
            Event::Drain => self.drain(effects),
            Event::Stop => self.stop(effects),
            Event::Tick => self.tick(now, effects),
        }
        self.tell_watchers(effects);
        if self.draining && !self.drained && self.is_idle() {
            self.drained = true;
            effects.push(Effect::Drained);
        }
    }

    /// Whether nothing is under way, looked up, or on its way to the disk.
    fn is_idle(&self) -> bool {
        self.messages.len() == 0 && self.repeats.is_empty() && self.keepings.is_empty()
    }

    fn stored(&mut self, now: Instant, told: Told, effects: &mut Vec<Effect>) {
        self.storage.told(now, &told);
        match told {
            Told::Kept(ticket, result) => self.kept(now, ticket, result, effects),
            Told::Beyond { conn, last } => self.beyond(conn, last, effects),
            Told::Page(conn, page) => self.page_came(now, conn, page, effects),
            Told::Memo(digest, memo) => self.looked_up(now, digest, memo, effects),
            Told::Met(peers) => {
                self.peers_changed(peers, effects);
                effects.push(Effect::LinkPeers);
            }
            Told::Reported(users) => users.iter().for_each(|user| self.mailbox_changed(user, effects)),
        }
    }

    /// When [`Event::Tick`] is wanted next.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.next_deadline
    }

    fn next_number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn message_id(&self, number: u64) -> MessageId<'_> {
        MessageId::Own { prefix: &self.message_id_prefix, number }
    }

    /// The request that a handler means by `inReplyTo`.
    fn request_of(&self, in_reply_to: &str) -> Option<RequestId> {
        let number = in_reply_to.strip_prefix(&*self.message_id_prefix)?;
        number.parse().ok().map(RequestId)
    }
}
