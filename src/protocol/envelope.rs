//! The envelope: a message with the word of the server on who sent it.

use super::report::{MessageId, put_number, put_string};
use crate::frame::Slice;

/// Who sent a message: `header.from`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker<'a> {
    /// A user.
    Client {
        /// The user's name.
        user: &'a str,
        /// This server's name.
        server: &'a str,
        /// The number of the user's connection.
        session: u64,
    },
    /// A handler that was not asked itself.
    Handler {
        /// Its type.
        kind: &'a str,
        /// This server's name.
        server: &'a str,
    },
}

impl Speaker<'_> {
    fn put(&self, body: &mut Vec<u8>) {
        match self {
            Speaker::Client { user, server, session } => {
                body.extend_from_slice(br#"{"scope":"client","user":"#);
                put_string(body, user);
                body.extend_from_slice(br#","server":"#);
                put_string(body, server);
                body.extend_from_slice(br#","verified":true,"session":"#);
                put_number(body, *session);
                body.push(b'}');
            }
            Speaker::Handler { kind, server } => {
                body.extend_from_slice(br#"{"scope":"handler","type":"#);
                put_string(body, kind);
                body.extend_from_slice(br#","server":"#);
                put_string(body, server);
                body.extend_from_slice(br#","verified":true}"#);
            }
        }
    }
}

/// Appends the text that a handler with `"envelope":true` gets. `data` is JSON, and `id` is as in
/// [`Payload::id`](super::client::Payload::id).
pub fn envelope(body: &mut Vec<u8>, message_id: MessageId<'_>, from: &Speaker<'_>, kind: &str, data: &[u8], id: Option<&Slice>) {
    body.extend_from_slice(br#"{"header":{"messageId":"#);
    message_id.put(body);
    body.extend_from_slice(br#","from":"#);
    from.put(body);
    body.extend_from_slice(br#","hops":0},"payload":{"type":"#);
    put_string(body, kind);
    body.extend_from_slice(br#","data":"#);
    body.extend_from_slice(data);
    if let Some(id) = id {
        body.extend_from_slice(br#","id":"#);
        body.extend_from_slice(id.bytes());
    }
    body.extend_from_slice(b"}}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_and_data_is_not_touched() {
        let from = Speaker::Client { user: "alice", server: "a.example", session: 17 };
        let id = Slice::from(&br#""c\u00e4""#[..]);
        let message_id = MessageId::Own { prefix: "a.example/5f-", number: 42 };
        let mut body = Vec::new();
        envelope(&mut body, message_id, &from, "a\"b", br#"{"a" :1e999}"#, Some(&id));
        assert_eq!(
            std::str::from_utf8(&body),
            Ok(concat!(
                r#"{"header":{"messageId":"a.example/5f-42","from":{"scope":"client","user":"alice","#,
                r#""server":"a.example","verified":true,"session":17},"hops":0},"#,
                r#""payload":{"type":"a\"b","data":{"a" :1e999},"id":"c\u00e4"}}"#
            ))
        );
        envelope(&mut body, message_id, &from, "chat", b"null", None);
        assert!(body.ends_with(br#""payload":{"type":"chat","data":null}}"#));
        body.clear();
        envelope(&mut body, message_id, &Speaker::Handler { kind: "presence", server: "a.example" }, "chat", b"1", None);
        let from = r#""from":{"scope":"handler","type":"presence","server":"a.example","verified":true},"hops":0"#;
        assert!(String::from_utf8_lossy(&body).contains(from), "{}", String::from_utf8_lossy(&body));
    }
}
