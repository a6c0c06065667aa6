//! What a client gets: deliveries, and reports on what became of its messages.
//!
//! They are written by hand, for `data` and ids go out as the bytes that came in.

use super::reason::Reason;
use crate::frame::{Packet, Slice};
use serde_json::json;
use std::io::Write;

/// What ties a report to the message that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Id {
    /// The report on a login.
    AuthSpecial,
    /// The `payload.id` of the message: a JSON string with its quotes, as it came.
    Client(Slice),
}

/// How many recipients fared how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Handed to a session.
    pub delivered: u64,
    /// Known users without a session.
    pub offline: u64,
    /// Names without an account.
    pub unknown_users: u64,
    /// Servers that are no peers.
    pub unknown_servers: u64,
}

impl Counts {
    /// Adds what another part of the same message did.
    pub fn add(&mut self, other: Counts) {
        self.delivered += other.delivered;
        self.offline += other.offline;
        self.unknown_users += other.unknown_users;
        self.unknown_servers += other.unknown_servers;
    }

    /// What is wrong with them: the reason, whether it is temporary, and words for people.
    pub fn failure(&self) -> Option<(Reason, bool, String)> {
        let unknown = self.unknown_users + self.unknown_servers;
        if self.unknown_servers > 0 && self.unknown_users == 0 {
            let servers = plural(self.unknown_servers, "server is no peer", "servers are no peers");
            return Some((Reason::PeerUnknown, false, format!("{servers} of this one")));
        }
        if unknown > 0 {
            let names = plural(unknown, "recipient is", "recipients are");
            return Some((Reason::Undelivered, false, format!("{names} unknown here")));
        }
        if self.offline > 0 && self.delivered == 0 {
            let users = plural(self.offline, "recipient is", "recipients are all");
            return Some((Reason::Undelivered, true, format!("{users} offline")));
        }
        None
    }

    /// Appends the fields of a report's `data`, without the braces around them.
    fn put_fields(&self, body: &mut Vec<u8>, message_id: MessageId<'_>) {
        body.extend_from_slice(br#""messageId":"#);
        message_id.put(body);
        // `queued` and `refused` belong to durable queues; they are always there so that a client can rely on them.
        let (delivered, offline, unknown) = (self.delivered, self.offline, self.unknown_users + self.unknown_servers);
        body.extend_from_slice(br#","delivered":"#);
        put_number(body, delivered);
        body.extend_from_slice(br#","queued":0,"offline":"#);
        put_number(body, offline);
        body.extend_from_slice(br#","unknown":"#);
        put_number(body, unknown);
        body.extend_from_slice(br#","refused":0"#);
    }
}

/// What a message is known by everywhere: `<server>/<start>-<number>`.
#[derive(Debug, Clone, Copy)]
pub struct MessageId<'a> {
    /// The part that all messages of this start of the server have in common; it needs no escapes.
    pub prefix: &'a str,
    /// The part that is this message's own.
    pub number: u64,
}

impl MessageId<'_> {
    /// Appends it as a JSON string.
    pub fn put(self, body: &mut Vec<u8>) {
        body.push(b'"');
        body.extend_from_slice(self.prefix.as_bytes());
        put_number(body, self.number);
        body.push(b'"');
    }
}

fn plural(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Data that is not smaller than this is not copied into deliveries.
const LARGE_BYTES: usize = 4 << 10;

/// What a handler ordered for a user. `id` only for the connection that asked.
pub fn delivery(kind: &str, message_id: MessageId<'_>, data: &Slice, id: Option<&Slice>) -> Packet {
    let before = |body: &mut Vec<u8>| {
        body.extend_from_slice(br#"{"header":{"status":"good","messageType":"receivedMessage","messageId":"#);
        message_id.put(body);
        body.extend_from_slice(br#"},"payload":{"data":"#);
    };
    let after = |body: &mut Vec<u8>| put_kind_and_id(body, kind, id.map(Slice::bytes));
    // A delivery may wait for long, and must not keep much more alive than itself.
    if data.len() >= LARGE_BYTES && data.held() <= 2 * data.len() {
        return Packet::around(before, data.clone(), after);
    }
    Packet::write(|body| {
        before(body);
        body.extend_from_slice(data.bytes());
        after(body);
    })
}

/// A good report with this JSON text as its `data`.
pub fn good(kind: &str, id: Option<&Id>, data: &[u8]) -> Packet {
    good_with(kind, id, |body| body.extend_from_slice(data))
}

/// The report on a message whose recipients fared like this, good or bad.
pub fn outcome(kind: &str, id: Option<&Id>, message_id: MessageId<'_>, counts: &Counts) -> Packet {
    match counts.failure() {
        None => good_with(kind, id, |body| {
            body.push(b'{');
            counts.put_fields(body, message_id);
            body.push(b'}');
        }),
        Some((reason, temporary, words)) => bad_with(kind, id, reason, temporary, &words, |body| {
            body.push(b',');
            counts.put_fields(body, message_id);
        }),
    }
}

/// Whom a handler's answer did not reach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Missed {
    /// Users who are not here.
    pub offline: Vec<String>,
    /// Users and servers that there are not.
    pub unknown: Vec<String>,
}

/// What became of a handler's answer, for the handler: as [`outcome`], with the names beside the counts.
pub fn outcome_for_handler(kind: &str, id: &Id, message_id: MessageId<'_>, counts: &Counts, missed: &Missed) -> Packet {
    match counts.failure() {
        None => good_with(kind, Some(id), |body| body.extend_from_slice(&outcome_data(message_id, counts, missed))),
        Some((reason, temporary, words)) => bad_with(kind, Some(id), reason, temporary, &words, |body| {
            body.push(b',');
            put_outcome(body, message_id, counts, missed);
        }),
    }
}

/// The same, without the report around it: a JSON object of the counts and names.
pub fn outcome_data(message_id: MessageId<'_>, counts: &Counts, missed: &Missed) -> Vec<u8> {
    let mut data = vec![b'{'];
    put_outcome(&mut data, message_id, counts, missed);
    data.push(b'}');
    data
}

fn put_outcome(body: &mut Vec<u8>, message_id: MessageId<'_>, counts: &Counts, missed: &Missed) {
    counts.put_fields(body, message_id);
    let names = json!({ "offline": missed.offline, "unknown": missed.unknown, "refused": [] });
    // Writing to memory cannot fail.
    let _ = write!(body, r#","names":{names}"#);
}

/// A bad report with words for people.
pub fn bad(kind: &str, id: Option<&Id>, reason: Reason, words: &str) -> Packet {
    bad_with(kind, id, reason, reason.is_temporary(), words, |_| {})
}

/// The report on a message that its handler refused, with the handler's own status and data.
pub fn refused(kind: &str, id: Option<&Id>, handler: &str, status: &[u8], data: Option<&[u8]>) -> Packet {
    let words = format!("handler {handler} refused the message");
    bad_with(kind, id, Reason::HandlerRefused, false, &words, |body| {
        body.extend_from_slice(br#","status":"#);
        body.extend_from_slice(status);
        body.extend_from_slice(br#","data":"#);
        body.extend_from_slice(data.unwrap_or(b"null"));
    })
}

fn good_with(kind: &str, id: Option<&Id>, data: impl FnOnce(&mut Vec<u8>)) -> Packet {
    Packet::write(|body| {
        body.extend_from_slice(br#"{"header":{"status":"good","messageType":"statusReport"},"payload":{"data":"#);
        data(body);
        put_kind_and_id(body, kind, id.map(id_bytes));
    })
}

/// `more` appends further fields of the report's `data`, each with a comma before it.
fn bad_with(kind: &str, id: Option<&Id>, reason: Reason, temporary: bool, words: &str, more: impl FnOnce(&mut Vec<u8>)) -> Packet {
    Packet::write(|body| {
        // Writing to memory cannot fail.
        let _ = write!(
            body,
            r#"{{"header":{{"status":"bad","messageType":"statusReport","reason":"{reason}","temporary":{temporary}}},"payload":{{"data":{{"message":"#
        );
        put_string(body, words);
        more(body);
        body.push(b'}');
        put_kind_and_id(body, kind, id.map(id_bytes));
    })
}

fn id_bytes(id: &Id) -> &[u8] {
    match id {
        Id::AuthSpecial => br#""auth_special""#,
        Id::Client(text) => text.bytes(),
    }
}

fn put_kind_and_id(body: &mut Vec<u8>, kind: &str, id: Option<&[u8]>) {
    body.extend_from_slice(br#","type":"#);
    put_string(body, kind);
    if let Some(id) = id {
        body.extend_from_slice(br#","id":"#);
        body.extend_from_slice(id);
    }
    body.extend_from_slice(b"}}");
}

/// Appends a number.
pub fn put_number(body: &mut Vec<u8>, number: u64) {
    body.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends `text` as a JSON string.
pub fn put_string(body: &mut Vec<u8>, text: &str) {
    let plain = text.bytes().all(|b| b >= b' ' && b != b'"' && b != b'\\');
    if plain {
        body.push(b'"');
        body.extend_from_slice(text.as_bytes());
        body.push(b'"');
    } else {
        body.extend_from_slice(json!(text).to_string().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(packet: &Packet) -> String {
        String::from_utf8(packet.body().to_vec()).expect("reports are UTF-8")
    }

    #[test]
    fn data_and_ids_go_out_as_they_came() {
        let id = Slice::from(&br#""c\u00e4""#[..]);
        let packet =
            delivery("chat", MessageId { prefix: "a.example/5f-", number: 42 }, &Slice::from(&br#"{"a":1e999,"a":1.0}"#[..]), Some(&id));
        assert_eq!(
            text(&packet),
            r#"{"header":{"status":"good","messageType":"receivedMessage","messageId":"a.example/5f-42"},"payload":{"data":{"a":1e999,"a":1.0},"type":"chat","id":"c\u00e4"}}"#
        );
    }

    #[test]
    fn large_data_is_shared_and_keeps_little_else_alive() {
        let message_id = MessageId { prefix: "s/1-", number: 7 };
        let kept = |data: &Slice| {
            let packet = delivery("chat", message_id, data, None);
            let copied = delivery("chat", message_id, &Slice::from(data.bytes()), None);
            assert_eq!(packet.parts().concat(), copied.parts().concat());
            let body = [
                &br#"{"header":{"status":"good","messageType":"receivedMessage","messageId":"s/1-7"},"payload":{"data":"#[..],
                data.bytes(),
                br#","type":"chat"}}"#,
            ]
            .concat();
            assert_eq!(packet.body(), body);
            assert_eq!(packet.parts().concat(), [&(body.len() as u32).to_le_bytes(), &body[..]].concat());
            packet.parts().iter().any(|part| part.as_ptr() == data.bytes().as_ptr())
        };
        let frame = Slice::from(&vec![b'1'; 4 * LARGE_BYTES][..]);
        assert!(kept(&frame));
        assert!(kept(&frame.slice(1, 1 + 2 * LARGE_BYTES)));
        assert!(!kept(&frame.slice(1, 2 * LARGE_BYTES)), "it would keep more than the double alive");
        assert!(!kept(&Slice::from(&vec![b'1'; LARGE_BYTES - 1][..])), "it is small");
    }

    #[test]
    fn a_report_tells_what_was_wrong_with_the_counts() {
        let mut counts = Counts { delivered: 1, offline: 1, ..Counts::default() };
        assert_eq!(counts.failure(), None);
        counts.unknown_servers = 1;
        assert_eq!(counts.failure().map(|f| (f.0, f.1)), Some((Reason::PeerUnknown, false)));
        counts.unknown_users = 1;
        assert_eq!(counts.failure().map(|f| (f.0, f.1)), Some((Reason::Undelivered, false)));
        let away = Counts { offline: 2, ..Counts::default() };
        assert_eq!(away.failure().map(|f| (f.0, f.1)), Some((Reason::Undelivered, true)));
        assert_eq!(
            text(&outcome("chat", Some(&Id::AuthSpecial), MessageId { prefix: "s/1-", number: 2 }, &away)),
            r#"{"header":{"status":"bad","messageType":"statusReport","reason":"undelivered","temporary":true},"payload":{"data":{"message":"2 recipients are all offline","messageId":"s/1-2","delivered":0,"queued":0,"offline":2,"unknown":0,"refused":0},"type":"chat","id":"auth_special"}}"#
        );
    }

    #[test]
    fn odd_types_are_escaped() {
        assert_eq!(
            text(&good("a\"\u{1}", None, b"null")),
            r#"{"header":{"status":"good","messageType":"statusReport"},"payload":{"data":null,"type":"a\"\u0001"}}"#
        );
    }
}
