//! Who is connected: logins, logouts, and the ways in which a connection ends.

use super::Dispatcher;
use super::event::{About, Effect, Message};
use super::feed::Feed;
use super::peers::Remote;
use super::users::LoginError;
use crate::gate::CloseReason;
use crate::name::{ConnId, Username};
use crate::protocol::reason::Reason;
use crate::protocol::report;
use crate::store::Standing;
use foldhash::HashMap;
use log::{info, warn};
use std::collections::VecDeque;
use std::sync::Arc;

/// The table of client connections.
pub(super) type Sessions = HashMap<ConnId, Session>;

/// One client's connection, with or without a user.
#[derive(Debug, Default)]
pub(super) struct Session {
    pub(super) user: Option<Username>,
    /// Another server that speaks here; it has no user then.
    pub(super) server: Option<Arc<Remote>>,
    /// Messages for handlers that have no report yet.
    pub(super) under_way: usize,
    input_ended: bool,
    /// It was told to end; nothing more is sent to it.
    pub(super) closing: bool,
    /// Not everything that it was sent has left for its socket.
    pub(super) backlogged: bool,
    /// How far it has been fed from the mailbox. Kept after its end for as long as something may still leave for the socket.
    pub(super) feed: Option<Feed>,
    /// A page is on its way that was asked for before the last login or logout: it may be another user's, and is not sent.
    pub(super) stale_page: bool,
    /// It is looked up whether its last message came before.
    pub(super) looks_up: bool,
    /// Messages that came after that one.
    pub(super) held: VecDeque<Message>,
}

impl Session {
    /// Whether nothing will come of it any longer.
    fn is_done(&self) -> bool {
        self.input_ended && self.under_way == 0
    }

    /// Whether its input has ended: it gets only what its own messages cause.
    pub(super) fn is_ending(&self) -> bool {
        self.input_ended
    }

    /// Whether it is sent what lies in the mailbox, if there is anything.
    pub(super) fn can_be_fed(&self) -> bool {
        self.user.is_some() && !self.input_ended && !self.backlogged
    }
}

impl Dispatcher {
    pub(super) fn connected(&mut self, conn: ConnId, effects: &mut Vec<Effect>) {
        self.sessions.insert(conn, Session::default());
        if self.stopping {
            self.close(conn, CloseReason::Stopping, effects);
        }
    }

    /// `fed` is whether the session acknowledges what comes, and what its user has had before.
    pub(super) fn logged_in(
        &mut self,
        conn: ConnId,
        user: Username,
        revision: u64,
        fed: (bool, Option<u64>),
        about: &About,
        effects: &mut Vec<Effect>,
    ) {
        let (ack, after) = fed;
        let Some(session) = self.open_session(conn) else { return };
        let before = session.user.clone();
        if self.draining {
            return self.login_failed(conn, about, Reason::Draining, "this server is stopping", effects);
        }
        if self.users.is_news(&user, revision) {
            self.revised(&user, revision, conn, effects);
        }
        match self.users.add(&user, revision, conn, ack, self.settings.sessions_per_user) {
            Ok(()) => {
                self.end_feed(conn, effects);
                if let Some(before) = before.filter(|before| *before != user) {
                    self.users.remove(&before, conn);
                }
                info!("{conn}: {user} logged in");
                if let Some(session) = self.sessions.get_mut(&conn) {
                    session.user = Some(user.clone());
                    if let Some(in_table) = self.users.session(&user, conn) {
                        in_table.backlogged = session.backlogged;
                    }
                }
                effects.push(Effect::Send(conn, report::good(about.kind.as_str(), about.id.as_ref(), b"null")));
                effects.push(Effect::Verdict(conn, true));
                self.begin_feed(conn, &user, ack, after, effects);
            }
            Err(LoginError::Revoked) => {
                self.login_failed(conn, about, Reason::Authentication, "user name or password is wrong", effects);
            }
            Err(LoginError::TooMany) => {
                let message = format!("{user} has {} sessions already (limits.connectionsPerUser)", self.settings.sessions_per_user);
                self.login_failed(conn, about, Reason::Busy, &message, effects);
            }
        }
    }

    fn login_failed(&mut self, conn: ConnId, about: &About, reason: Reason, message: &str, effects: &mut Vec<Effect>) {
        effects.push(Effect::Send(conn, report::bad(about.kind.as_str(), about.id.as_ref(), reason, message)));
        effects.push(Effect::Verdict(conn, false));
        if self.sessions.get(&conn).is_some_and(|session| session.user.is_none()) {
            self.close(conn, CloseReason::Refused, effects);
        }
    }

    pub(super) fn logged_out(&mut self, conn: ConnId, about: &About, effects: &mut Vec<Effect>) {
        let Some(session) = self.open_session(conn) else { return };
        let user = session.user.take();
        match user {
            Some(user) => {
                self.end_feed(conn, effects);
                self.users.remove(&user, conn);
                effects.push(Effect::Send(conn, report::good(about.kind.as_str(), about.id.as_ref(), b"{}")));
                effects.push(Effect::Verdict(conn, true));
            }
            None => {
                let packet = report::bad(about.kind.as_str(), about.id.as_ref(), Reason::NotAuthenticated, "log in first");
                effects.push(Effect::Send(conn, packet));
                effects.push(Effect::Verdict(conn, false));
            }
        }
    }

    pub(super) fn password_changed(&mut self, conn: ConnId, user: Username, revision: u64, about: &About, effects: &mut Vec<Effect>) {
        // It may have been disabled or removed since.
        if self.users.sessions(user.as_str().as_bytes()).is_some() && self.users.is_news(&user, revision) {
            self.revised(&user, revision, conn, effects);
        }
        if self.open_session(conn).is_some() {
            effects.push(Effect::Send(conn, report::good(about.kind.as_str(), about.id.as_ref(), b"{}")));
            effects.push(Effect::Verdict(conn, true));
        }
    }

    /// An account has a new revision, which `conn` has brought or proved: the user's other sessions end.
    fn revised(&mut self, user: &Username, revision: u64, conn: ConnId, effects: &mut Vec<Effect>) {
        for session in self.users.apply(user.clone(), Standing::Active { revision }) {
            if session == conn {
                let ack = self.sessions.get(&conn).and_then(|session| session.feed.as_ref()).is_some_and(|feed| feed.ack);
                // Alone, he is within any bound, and the revision is the one just applied.
                let _ = self.users.add(user, revision, conn, ack, usize::MAX);
                self.catch_up(conn, effects);
            } else {
                self.close(session, CloseReason::Revoked, effects);
            }
        }
    }

    pub(super) fn registered(&mut self, conn: ConnId, user: Username, revision: u64, about: &About, effects: &mut Vec<Effect>) {
        info!("{conn}: account {user} registered");
        self.accounts_changed(vec![(user, Standing::Active { revision })], effects);
        if self.open_session(conn).is_some() {
            effects.push(Effect::Send(conn, report::good(about.kind.as_str(), about.id.as_ref(), b"{}")));
            effects.push(Effect::Verdict(conn, true));
        }
    }

    pub(super) fn refused(&mut self, conn: ConnId, about: &About, reason: Reason, message: &str, last: bool, effects: &mut Vec<Effect>) {
        if self.open_session(conn).is_some() {
            effects.push(Effect::Send(conn, report::bad(about.kind.as_str(), about.id.as_ref(), reason, message)));
        }
        effects.push(Effect::Settle(conn, 0));
        if last {
            self.close(conn, CloseReason::Refused, effects);
        }
    }

    pub(super) fn leaving(&mut self, conn: ConnId, about: &About, effects: &mut Vec<Effect>) {
        if self.open_session(conn).is_some() {
            effects.push(Effect::Send(conn, report::good(about.kind.as_str(), about.id.as_ref(), b"{}")));
            self.close(conn, CloseReason::Asked, effects);
        }
    }

    pub(super) fn input_ended(&mut self, conn: ConnId, effects: &mut Vec<Effect>) {
        let Some(session) = self.open_session(conn) else { return };
        session.input_ended = true;
        let user = session.user.clone();
        if let Some(user) = user {
            self.users.input_ended(&user, conn);
        }
        if self.sessions.get(&conn).is_some_and(Session::is_done) {
            self.close(conn, CloseReason::Ended, effects);
        }
    }

    /// A message of this connection is dealt with: its report, if it gets one, is written.
    pub(super) fn settle(&mut self, conn: ConnId, bytes: usize, effects: &mut Vec<Effect>) {
        // Also when the connection is gone: the bytes are counted until now.
        effects.push(Effect::Settle(conn, bytes));
        if let Some(session) = self.sessions.get_mut(&conn) {
            session.under_way = session.under_way.saturating_sub(1);
            if session.is_done() {
                self.close(conn, CloseReason::Ended, effects);
            }
        }
    }

    pub(super) fn disconnected(&mut self, conn: ConnId, effects: &mut Vec<Effect>) {
        self.give_up_held(conn, effects);
        self.end_feed(conn, effects);
        if let Some(Session { user: Some(user), .. }) = self.sessions.remove(&conn) {
            self.users.remove(&user, conn);
        }
        self.routes.forget(conn);
        self.stop_watching(conn);
        effects.push(Effect::Forget(conn));
    }

    /// More waits for a connection than may.
    pub(super) fn overflowed(&mut self, conn: ConnId, effects: &mut Vec<Effect>) {
        if self.stop_watching(conn) {
            warn!("a handler does not read who comes and goes; its connection to the informer is closed");
            effects.push(Effect::Close(conn, CloseReason::TooSlow));
        }
        self.close(conn, CloseReason::TooSlow, effects);
    }

    /// Ends a connection. What its messages still lead to is done all the same; nothing more is sent to it.
    pub(super) fn close(&mut self, conn: ConnId, reason: CloseReason, effects: &mut Vec<Effect>) {
        let Some(session) = self.open_session(conn) else { return };
        session.closing = true;
        let user = session.user.take();
        // Without acknowledgements, what still leaves for its socket is taken out of the mailbox then.
        if session.feed.as_ref().is_some_and(|feed| feed.ack) {
            self.end_feed(conn, effects);
        }
        if let Some(user) = user {
            self.users.remove(&user, conn);
        }
        effects.push(Effect::Close(conn, reason));
        self.give_up_held(conn, effects);
    }

    pub(super) fn accounts_changed(&mut self, standings: Vec<(Username, Standing)>, effects: &mut Vec<Effect>) {
        for (name, standing) in standings {
            for conn in self.users.apply(name, standing) {
                self.close(conn, CloseReason::Revoked, effects);
            }
        }
    }

    pub(super) fn accounts_reloaded(&mut self, standings: Vec<(Username, Standing)>, effects: &mut Vec<Effect>) {
        let removed = self.users.missing_in(&standings);
        self.accounts_changed(standings, effects);
        self.accounts_changed(removed.into_iter().map(|name| (name, Standing::Removed)).collect(), effects);
    }

    /// No new messages are taken. Those who count on the server's word are told why.
    pub(super) fn drain(&mut self, effects: &mut Vec<Effect>) {
        self.draining = true;
        let told = |session: &Session| !session.closing && session.feed.as_ref().is_some_and(|feed| feed.ack);
        let conns = self.sessions.iter().filter(|(_, session)| told(session)).map(|(conn, _)| *conn);
        effects.extend(conns.map(|conn| Effect::Send(conn, report::draining())));
    }

    pub(super) fn stop(&mut self, effects: &mut Vec<Effect>) {
        self.stopping = true;
        self.give_up_all(effects);
        let conns: Vec<ConnId> = self.sessions.keys().copied().collect();
        for conn in conns {
            self.close(conn, CloseReason::Stopping, effects);
        }
    }

    /// The session, unless the connection is gone or was told to end.
    pub(super) fn open_session(&mut self, conn: ConnId) -> Option<&mut Session> {
        self.sessions.get_mut(&conn).filter(|session| !session.closing)
    }
}
