//! What other servers say: who may speak as one, and what is taken from those who may.

use super::Dispatcher;
use super::asking::STOPPING;
use super::event::{About, Effect, Message, Transit};
use super::peers::{Abroad, Proof, Remote};
use super::requests::Sender;
use crate::gate::CloseReason;
use crate::name::{ConnId, RouteId};
use crate::protocol::reason::Reason;
use crate::protocol::report;
use crate::protocol::server::HOPS_MAX;
use crate::protocol::text::Text;
use crate::store::Peer;
use log::{info, warn};
use std::sync::Arc;
use std::time::Instant;

/// How much is shown in the log of what others say of themselves.
const SHOWN_CHARS_MAX: usize = 80;

impl Dispatcher {
    pub(super) fn peers_changed(&mut self, peers: Vec<Peer>, effects: &mut Vec<Effect>) {
        let gone = self.peers.replace(peers);
        let speaks = |remote: &Arc<Remote>| remote.peer.is_some_and(|peer| gone.contains(&peer));
        let conns = self.sessions.iter().filter(|(_, session)| session.server.as_ref().is_some_and(speaks));
        let conns: Vec<ConnId> = conns.map(|(conn, _)| *conn).collect();
        conns.into_iter().for_each(|conn| self.close(conn, CloseReason::NoPeer, effects));
    }

    /// A connection asks whether a peer speaks on it, or, before a word was said, whether that may be. With `federation.mode`
    /// `open` somebody who proves to be one peer and says to be another is neither.
    pub(super) fn shown(&mut self, conn: ConnId, proof: &Proof, effects: &mut Vec<Effect>) {
        let speaks = self.open_session(conn).and_then(|session| session.server.as_ref()).map(|remote| remote.peer.is_some());
        effects.push(Effect::Verdict(conn, speaks.unwrap_or_else(|| self.peers.know(proof))));
    }

    /// A connection says that another server speaks on it.
    pub(super) fn greeted(
        &mut self,
        now: Instant,
        conn: ConnId,
        proof: &Proof,
        server: Option<&Text>,
        about: &About,
        effects: &mut Vec<Effect>,
    ) {
        if self.open_session(conn).is_none() {
            return;
        }
        let claimed = server.map(Text::as_str);
        let judged = match self.peers.judge(proof, claimed) {
            Ok(_) if self.draining => Err((Reason::Draining, STOPPING)),
            Ok(remote) if self.connections_of(&remote) >= self.settings.connections_per_peer => {
                self.log_refusal(now, conn, proof, claimed, "it has as many connections as it may (limits.connectionsPerPeer)");
                Err((Reason::Busy, "you have as many connections as you may (limits.connectionsPerPeer)"))
            }
            Ok(remote) => Ok(remote),
            Err(why) => {
                self.log_refusal(now, conn, proof, claimed, &why);
                Err((Reason::Forbidden, "of other servers only peers are heard here: you are no peer, or did not prove it"))
            }
        };
        match judged {
            Ok(remote) => {
                let how = if remote.verified { "" } else { " (not verified)" };
                info!("{conn}: server {} speaks{how}", remote.name);
                if let Some(session) = self.open_session(conn) {
                    session.server = Some(Arc::new(remote));
                }
                effects.push(Effect::Verdict(conn, true));
            }
            Err((reason, words)) => {
                effects.push(Effect::Send(conn, report::bad(about.kind.as_str(), about.id.as_ref(), reason, words)));
                effects.push(Effect::Verdict(conn, false));
                self.close(conn, CloseReason::Refused, effects);
            }
        }
    }

    /// How many connections this server has; those of which nothing is known are counted by their address.
    fn connections_of(&self, remote: &Remote) -> usize {
        let same = |other: &Arc<Remote>| other.peer == remote.peer && other.name == remote.name;
        self.sessions.values().filter(|session| !session.closing && session.server.as_ref().is_some_and(same)).count()
    }

    /// One line for each refusal, but not so many that they fill the log.
    fn log_refusal(&mut self, now: Instant, conn: ConnId, proof: &Proof, claimed: Option<&str>, why: &str) {
        let line = || {
            let shown = |text: &str| text.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect::<String>();
            let name = claimed.map_or("no name".to_owned(), |name| format!("the name {}", shown(name)));
            let from = proof.address.map_or("a UNIX socket".to_owned(), |address| address.to_string());
            format!("{conn}: a server with {name} is refused, from {from}: {why}")
        };
        self.refusals.line(now, line, &mut |line| warn!("{line}"));
    }

    /// Whether a message of another server may go to its handler: whose it is, and to which.
    pub(super) fn accept_transit(
        &mut self,
        now: Instant,
        conn: ConnId,
        remote: Arc<Remote>,
        message: &Message,
        route: Option<RouteId>,
    ) -> Result<(Sender, RouteId), (Reason, &'static str)> {
        let nothing = Transit { message_id: None, hops: 1, from: None };
        let transit = message.transit.as_deref().unwrap_or(&nothing);
        if self.draining {
            return Err((Reason::Draining, STOPPING));
        }
        if self.peers.is_too_much(now, &remote) {
            return Err((Reason::Rate, "you send too much; try again later"));
        }
        let is_own = |id: &Text| id.as_str().strip_prefix(&*remote.name).is_some_and(|rest| rest.len() > 1 && rest.starts_with('/'));
        if remote.verified && !transit.message_id.as_ref().is_some_and(is_own) {
            let words = "header.messageId does not begin with your name and a slash";
            let id = transit.message_id.as_ref().map_or("", Text::as_str);
            let shown: String = id.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect();
            let line = || format!("{conn}: a message of server {} is refused: its id {shown:?} is not one of that server", remote.name);
            self.refusals.line(now, line, &mut |line| warn!("{line}"));
            return Err((Reason::Forbidden, words));
        }
        if transit.hops > HOPS_MAX {
            return Err((Reason::Loop, "the message was passed on from server to server too often"));
        }
        let Some(route) = route.filter(|route| self.routes.get(*route).config.federated) else {
            return Err((Reason::UnknownType, "no handler for other servers is configured for this type"));
        };
        let user = transit.from.as_ref().filter(|_| remote.peer.is_some()).map(|user| user.as_str().into());
        Ok((Sender::Server(conn, Box::new(Abroad { remote, user, hops: transit.hops as u8 })), route))
    }

    /// The connection has done something itself.
    pub(super) fn done(&mut self, conn: ConnId, about: &About, data: &str, effects: &mut Vec<Effect>) {
        if self.open_session(conn).is_some() {
            effects.push(Effect::Send(conn, report::good(about.kind.as_str(), about.id.as_ref(), data.as_bytes())));
        }
        effects.push(Effect::Settle(conn, 0));
    }
}
