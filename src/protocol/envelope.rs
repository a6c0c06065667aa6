//! The envelope: a message with the word of the server on who sent it.

use super::report::put_string;
use crate::frame::Slice;
use std::io::Write;

/// Who sent a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct From<'a> {
    /// The user's name.
    pub user: &'a str,
    /// This server's name.
    pub server: &'a str,
    /// The number of the user's connection.
    pub session: u64,
}

/// The text that a handler with `"envelope":true` gets. `data` is JSON, and `id` is as in
/// [`Payload::id`](super::client::Payload::id).
pub fn envelope(message_id: &str, from: &From<'_>, kind: &str, data: &[u8], id: Option<&Slice>) -> Slice {
    let mut body = Vec::with_capacity(256 + data.len());
    body.extend_from_slice(br#"{"header":{"messageId":"#);
    put_string(&mut body, message_id);
    body.extend_from_slice(br#","from":{"scope":"client","user":"#);
    put_string(&mut body, from.user);
    body.extend_from_slice(br#","server":"#);
    put_string(&mut body, from.server);
    // Writing to memory cannot fail.
    let _ = write!(body, r#","verified":true,"session":{}}},"hops":0}},"payload":{{"type":"#, from.session);
    put_string(&mut body, kind);
    body.extend_from_slice(br#","data":"#);
    body.extend_from_slice(data);
    if let Some(id) = id {
        body.extend_from_slice(br#","id":"#);
        body.extend_from_slice(id.bytes());
    }
    body.extend_from_slice(b"}}");
    Slice::from(&body[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_and_data_is_not_touched() {
        let from = From { user: "alice", server: "a.example", session: 17 };
        let id = Slice::from(&br#""c\u00e4""#[..]);
        let slice = envelope("a.example/5f-42", &from, "a\"b", br#"{"a" :1e999}"#, Some(&id));
        assert_eq!(
            std::str::from_utf8(slice.bytes()),
            Ok(concat!(
                r#"{"header":{"messageId":"a.example/5f-42","from":{"scope":"client","user":"alice","#,
                r#""server":"a.example","verified":true,"session":17},"hops":0},"#,
                r#""payload":{"type":"a\"b","data":{"a" :1e999},"id":"c\u00e4"}}"#
            ))
        );
        let slice = envelope("m", &from, "chat", b"null", None);
        assert!(slice.bytes().ends_with(br#""payload":{"type":"chat","data":null}}"#));
    }
}
