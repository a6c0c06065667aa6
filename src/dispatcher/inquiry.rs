//! What handlers may ask out of band, through their informer.

use super::Dispatcher;
use super::event::Effect;
use crate::gate::CloseReason;
use crate::name::ConnId;
use crate::protocol::informer::{self, Question};
use crate::protocol::text::Text;
use serde_json::{Value, json};

impl Dispatcher {
    pub(super) fn informed(&mut self, conn: ConnId, question: &Question, effects: &mut Vec<Effect>) {
        let answer = match question.kind.as_str() {
            "listClients" => Ok(self.users.online().map(|name| json!(name.as_str())).collect()),
            "isClient" => self.is_client(question),
            "serverInfo" => Ok(self.server_info()),
            "sessions" => Ok(self.session_list()),
            "quit" => Ok(Value::Null),
            _ => Err("there is no such command; there are listClients, isClient, serverInfo, sessions and quit".to_owned()),
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

    fn is_client(&self, question: &Question) -> Result<Value, String> {
        let data = question.data.as_ref().ok_or("command.data is missing: isClient takes a user name")?;
        let name: Text = informer::text(data)?;
        Ok(json!(self.users.sessions(name.bytes()).is_some_and(|sessions| !sessions.is_empty())))
    }

    fn server_info(&self) -> Value {
        let listener = |(number, address): (usize, &String)| (format!("listener{number}"), json!({ "address": address }));
        let listeners: serde_json::Map<String, Value> = self.settings.listeners.iter().enumerate().map(listener).collect();
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
}
