//! What handlers may ask out of band, through their informer, and the operator with commands on this machine.

use super::Dispatcher;
use super::event::{Asker, Effect};
use super::lane::Lane;
use super::routes::Route;
use crate::gate::CloseReason;
use crate::name::ConnId;
use crate::protocol::informer::{self, Question};
use crate::protocol::text::Text;
use serde_json::{Map, Value, json};
use std::time::Instant;

impl Dispatcher {
    pub(super) fn informed(&mut self, now: Instant, conn: ConnId, asker: Asker, question: &Question, effects: &mut Vec<Effect>) {
        let answer = match (asker, question.kind.as_str()) {
            (Asker::Operator, "status") => Ok(self.status(now)),
            (Asker::Operator, _) => Err("there is no such command".to_owned()),
            (_, "listClients") => Ok(self.client_list()),
            (_, "watchClients") => Ok(self.watch_clients(conn)),
            (_, "isClient") => self.is_client(question),
            (_, "serverInfo") => Ok(self.server_info()),
            (_, "sessions") => Ok(self.session_list()),
            (_, "quit") => Ok(Value::Null),
            _ => Err("there is no such command; there are listClients, watchClients, isClient, serverInfo, sessions, push and quit".into()),
        };
        let packet = match answer {
            Ok(data) => informer::success(data.to_string().as_bytes()),
            Err(message) => informer::failure(&message),
        };
        effects.push(Effect::Send(conn, packet));
        effects.push(Effect::Settle(conn, 0));
        if question.kind.as_str() == "quit" {
            effects.push(Effect::Close(conn, CloseReason::Asked));
        }
    }

    fn client_list(&self) -> Value {
        self.users.online().map(|name| json!(name.as_str())).collect()
    }

    fn watch_clients(&mut self, conn: ConnId) -> Value {
        if !self.watchers.contains(&conn) {
            self.watchers.push(conn);
        }
        self.users.watch(true);
        self.client_list()
    }

    /// Whether this connection was told who comes and goes.
    pub(super) fn stop_watching(&mut self, conn: ConnId) -> bool {
        let Some(place) = self.watchers.iter().position(|watcher| *watcher == conn) else { return false };
        self.watchers.swap_remove(place);
        self.users.watch(!self.watchers.is_empty());
        true
    }

    /// Tells who has come and gone to those who want to know.
    pub(super) fn tell_watchers(&mut self, effects: &mut Vec<Effect>) {
        if self.watchers.is_empty() {
            return;
        }
        for (user, online) in self.users.news() {
            let packet = informer::event(if online { "online" } else { "offline" }, user.as_str());
            effects.extend(self.watchers.iter().map(|conn| Effect::Send(*conn, packet.clone())));
        }
    }

    fn is_client(&self, question: &Question) -> Result<Value, String> {
        let data = question.data.as_ref().ok_or("command.data is missing: isClient takes a user name")?;
        let name: Text = informer::text(data)?;
        Ok(json!(self.users.sessions(name.bytes()).is_some_and(|sessions| !sessions.is_empty())))
    }

    fn server_info(&self) -> Value {
        let listener = |(number, address): (usize, &String)| (format!("listener{number}"), json!({ "address": address }));
        let listeners: Map<String, Value> = self.settings.listeners.iter().enumerate().map(listener).collect();
        // The configuration is valid JSON; were it not, the operator would have been told at the start.
        let admin_info: Value = serde_json::from_str(&self.settings.admin_info).unwrap_or(Value::Null);
        json!({ "clientCount": self.user_sessions().count().to_string(), "adminInfo": admin_info, "listeners": listeners })
    }

    fn session_list(&self) -> Value {
        let mut sessions: Vec<(ConnId, &str)> = self.user_sessions().collect();
        sessions.sort_unstable();
        sessions.into_iter().map(|(conn, user)| json!({ "user": user, "session": conn.0 })).collect()
    }

    fn user_sessions(&self) -> impl Iterator<Item = (ConnId, &str)> {
        let user = |session: &super::sessions::Session| session.user.is_some();
        let with_user = self.sessions.iter().filter(move |(_, session)| user(session));
        with_user.filter_map(|(conn, session)| session.user.as_ref().map(|user| (*conn, user.as_str())))
    }

    /// How many connections each other server has to this one.
    fn server_connections(&self) -> Value {
        let mut servers: std::collections::BTreeMap<&str, usize> = std::collections::BTreeMap::new();
        for remote in self.sessions.values().filter_map(|session| session.server.as_ref()) {
            *servers.entry(&remote.name).or_default() += 1;
        }
        json!(servers)
    }

    /// What goes on, for the operator.
    fn status(&self, now: Instant) -> Value {
        let types: Map<String, Value> = self.routes.iter().map(|route| (route.config.kind.to_string(), type_status(route))).collect();
        json!({
            "server": self.settings.server.as_str(),
            "draining": self.draining,
            "connections": self.sessions.len(),
            "sessions": self.user_sessions().count(),
            "users": self.users.online().count(),
            "messagesUnderWay": self.messages.len(),
            "servers": self.server_connections(),
            "storage": self.storage.status(now, self.keepings.len()),
            "types": types,
        })
    }
}

fn type_status(route: &Route) -> Value {
    let lane = |lane: &Lane| {
        let under_way = lane.up.as_ref().map_or(0, |start| start.under_way.len());
        json!({ "up": lane.up.is_some(), "underWay": under_way, "waiting": lane.waiting.len() })
    };
    json!({
        "asked": route.asked,
        "failed": route.failed,
        "instances": route.lanes.iter().map(lane).collect::<Vec<_>>(),
    })
}
