//! Built-in commands that only ask. Those that change something come as events of their own, for their slow half
//! (hashing, the database) is done by the connection.

use super::Dispatcher;
use super::event::{About, Effect, Inquiry};
use crate::name::ConnId;
use crate::protocol::reason::Reason;
use crate::protocol::report;
use serde_json::{Map, Value, json};

impl Dispatcher {
    pub(super) fn asked(&mut self, conn: ConnId, inquiry: Inquiry, about: &About, effects: &mut Vec<Effect>) {
        let Some(session) = self.open_session(conn) else { return effects.push(Effect::Settle(conn, 0)) };
        let (user, is_server) = (session.user.clone(), session.server.is_some());
        let answer = match (inquiry, user) {
            (Inquiry::Ping, _) if is_server => Some(json!({ "server": self.settings.server.as_str() })),
            (Inquiry::Ping, _) => Some(json!({})),
            (_, None) => None,
            (Inquiry::Dummy, Some(_)) => Some(Value::Null),
            (Inquiry::Handlers, Some(_)) => Some(self.handlers()),
            (Inquiry::Whoami, Some(user)) => {
                let sessions = self.users.sessions(user.as_str().as_bytes()).map_or(0, <[_]>::len);
                Some(json!({
                    "user": user.as_str(),
                    "server": self.settings.server.as_str(),
                    "session": conn.0,
                    "sessions": sessions,
                }))
            }
        };
        let (kind, id) = (about.kind.as_str(), about.id.as_ref());
        let packet = match answer {
            Some(data) => report::good(kind, id, data.to_string().as_bytes()),
            None => report::bad(kind, id, Reason::NotAuthenticated, "log in first"),
        };
        effects.push(Effect::Send(conn, packet));
        effects.push(Effect::Settle(conn, 0));
    }

    fn handlers(&self) -> Value {
        let entry = |route: &super::routes::Route| (route.config.kind.to_string(), json!({ "up": route.is_up() }));
        Value::Object(self.routes.iter().map(entry).collect::<Map<_, _>>())
    }
}
