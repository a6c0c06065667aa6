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
    /// Another server.
    Server {
        /// Its user, by its word.
        user: Option<&'a str>,
        /// Its name.
        server: &'a str,
        /// Whether it proved that this is its name.
        verified: bool,
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
            Speaker::Server { user, server, verified } => {
                body.extend_from_slice(br#"{"scope":"server""#);
                if let Some(user) = user {
                    body.extend_from_slice(br#","user":"#);
                    put_string(body, user);
                }
                body.extend_from_slice(br#","server":"#);
                put_string(body, server);
                body.extend_from_slice(if *verified { br#","verified":true}"# } else { br#","verified":false}"# });
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

/// What a handler with `"envelope":true` is told of a message.
#[derive(Debug, Clone, Copy)]
pub struct Enveloped<'a> {
    /// Of the request.
    pub message_id: MessageId<'a>,
    /// Who sent it.
    pub from: Speaker<'a>,
    /// How often it was passed on from server to server.
    pub hops: u8,
    /// The type.
    pub kind: &'a str,
    /// As in [`Payload::id`](super::client::Payload::id).
    pub id: Option<&'a Slice>,
}

/// Appends the text that such a handler gets. `data` is JSON.
pub fn envelope(body: &mut Vec<u8>, about: &Enveloped<'_>, data: &[u8]) {
    let Enveloped { message_id, from, hops, kind, id } = about;
    body.extend_from_slice(br#"{"header":{"messageId":"#);
    message_id.put(body);
    body.extend_from_slice(br#","from":"#);
    from.put(body);
    body.extend_from_slice(br#","hops":"#);
    put_number(body, u64::from(*hops));
    body.extend_from_slice(br#"},"payload":{"type":"#);
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

    fn enveloped(from: Speaker<'_>, hops: u8, kind: &str, data: &str, id: Option<&Slice>) -> String {
        let message_id = MessageId::Own { prefix: "a.example/5f-", number: 42 };
        let mut body = Vec::new();
        envelope(&mut body, &Enveloped { message_id, from, hops, kind, id }, data.as_bytes());
        String::from_utf8(body).expect("UTF-8")
    }

    #[test]
    fn names_are_escaped_and_data_is_not_touched() {
        let from = Speaker::Client { user: "alice", server: "a.example", session: 17 };
        let id = Slice::from(&br#""c\u00e4""#[..]);
        assert_eq!(
            enveloped(from, 0, "a\"b", r#"{"a" :1e999}"#, Some(&id)),
            concat!(
                r#"{"header":{"messageId":"a.example/5f-42","from":{"scope":"client","user":"alice","#,
                r#""server":"a.example","verified":true,"session":17},"hops":0},"#,
                r#""payload":{"type":"a\"b","data":{"a" :1e999},"id":"c\u00e4"}}"#
            )
        );
        assert!(enveloped(from, 0, "chat", "null", None).ends_with(r#""payload":{"type":"chat","data":null}}"#));
    }

    #[test]
    fn each_speaker_is_told_from_the_others() {
        let server = |user, verified| Speaker::Server { user, server: "b.example", verified };
        for (from, hops, expected) in [
            (
                Speaker::Handler { kind: "presence", server: "a.example" },
                0,
                r#""from":{"scope":"handler","type":"presence","server":"a.example","verified":true},"hops":0"#,
            ),
            (server(Some("bob\""), true), 3, r#""from":{"scope":"server","user":"bob\"","server":"b.example","verified":true},"hops":3"#),
            (server(None, false), 1, r#""from":{"scope":"server","server":"b.example","verified":false},"hops":1"#),
        ] {
            let text = enveloped(from, hops, "chat", "1", None);
            assert!(text.contains(expected), "{text}");
        }
    }
}
