//! What a client gets: deliveries, and reports on what became of its messages.
//!
//! They are written by hand, for `data` and ids go out as the bytes that came in.

use super::reason::Reason;
use crate::frame::{Packet, Slice};
use serde_json::json;
use std::fmt;
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
    /// In the recipient's mailbox, on the disk.
    pub queued: u64,
    /// Known users without a session.
    pub offline: u64,
    /// Names without an account.
    pub unknown_users: u64,
    /// Servers that are no peers.
    pub unknown_servers: u64,
    /// Users whose mailbox is full.
    pub refused: u64,
    /// Servers whose outbox is full.
    pub refused_servers: u64,
}

impl Counts {
    /// Adds what another part of the same message did.
    pub fn add(&mut self, other: Counts) {
        self.delivered += other.delivered;
        self.queued += other.queued;
        self.offline += other.offline;
        self.unknown_users += other.unknown_users;
        self.unknown_servers += other.unknown_servers;
        self.refused += other.refused;
        self.refused_servers += other.refused_servers;
    }

    /// What is wrong with them: the reason, whether it is temporary, and words for people.
    pub fn failure(&self) -> Option<(Reason, bool, String)> {
        let unknown = self.unknown_users + self.unknown_servers;
        let mailboxes = |count| plural(count, "mailbox is full", "mailboxes are full");
        let outboxes = |count| plural(count, "server has too many messages waiting", "servers have too many messages waiting");
        let full = match (self.refused, self.refused_servers) {
            (0, 0) => None,
            (users, 0) => Some(mailboxes(users)),
            (0, servers) => Some(outboxes(servers)),
            (users, servers) => Some(format!("{}, and {}", mailboxes(users), outboxes(servers))),
        };
        let and_full = || full.as_ref().map_or(String::new(), |full| format!("; {full}"));
        if self.unknown_servers > 0 && self.unknown_users == 0 {
            let servers = plural(self.unknown_servers, "server is no peer", "servers are no peers");
            return Some((Reason::PeerUnknown, false, format!("{servers} of this one{}", and_full())));
        }
        if unknown > 0 {
            let names = plural(unknown, "recipient is", "recipients are");
            return Some((Reason::Undelivered, false, format!("{names} unknown here{}", and_full())));
        }
        if let Some(full) = full {
            return Some((Reason::Undelivered, true, full));
        }
        if self.offline > 0 && self.delivered + self.queued == 0 {
            let users = plural(self.offline, "recipient is", "recipients are all");
            return Some((Reason::Undelivered, true, format!("{users} offline")));
        }
        None
    }

    /// Appends the fields of a report's `data`, without the braces around them.
    fn put_fields(&self, body: &mut Vec<u8>, message_id: MessageId<'_>) {
        body.extend_from_slice(br#""messageId":"#);
        message_id.put(body);
        // All of them are always there, so that a client can rely on them.
        body.extend_from_slice(br#","delivered":"#);
        put_number(body, self.delivered);
        body.extend_from_slice(br#","queued":"#);
        put_number(body, self.queued);
        body.extend_from_slice(br#","offline":"#);
        put_number(body, self.offline);
        body.extend_from_slice(br#","unknown":"#);
        put_number(body, self.unknown_users + self.unknown_servers);
        body.extend_from_slice(br#","refused":"#);
        put_number(body, self.refused + self.refused_servers);
    }
}

/// What a message is known by everywhere: `<server>/<start>-<number>`.
#[derive(Debug, Clone, Copy)]
pub enum MessageId<'a> {
    /// Of a message that came since the server was started.
    Own {
        /// The part that all messages of this start of the server have in common; it needs no escapes.
        prefix: &'a str,
        /// The part that is this message's own.
        number: u64,
    },
    /// The whole of it, of any message: it was kept.
    Text(&'a str),
}

impl MessageId<'_> {
    /// Appends it as a JSON string.
    pub fn put(self, body: &mut Vec<u8>) {
        match self {
            MessageId::Own { prefix, number } => {
                body.push(b'"');
                body.extend_from_slice(prefix.as_bytes());
                put_number(body, number);
                body.push(b'"');
            }
            MessageId::Text(text) => put_string(body, text),
        }
    }
}

/// The whole of it, without quotes.
impl fmt::Display for MessageId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MessageId::Own { prefix, number } => write!(f, "{prefix}{number}"),
            MessageId::Text(text) => f.write_str(text),
        }
    }
}

/// What a delivery carries that is to be acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Its number in the user's mailbox: `header.seq`.
    pub seq: u64,
    /// `header.redelivered`: it may have been delivered before.
    pub redelivered: bool,
}

fn plural(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Data that is not smaller than this is not copied into deliveries.
const LARGE_BYTES: usize = 4 << 10;

/// What a handler ordered for a user. `id` only for the connection that asked, `mark` only for one that acknowledges.
pub fn delivery(kind: &str, message_id: MessageId<'_>, data: &Slice, id: Option<&Slice>, mark: Option<Mark>) -> Packet {
    let before = |body: &mut Vec<u8>| {
        body.extend_from_slice(br#"{"header":{"status":"good","messageType":"receivedMessage","messageId":"#);
        message_id.put(body);
        if let Some(mark) = mark {
            put_mark(body, mark);
        }
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

/// The report for another server on a message of its whose recipients fared like this. It is not sent again whatever the
/// report says, for its handler has done its work: what could only be tried again, here, has failed for good. Users who are
/// away, of a type that keeps nothing for them, are no failure: the other server cannot know better.
pub fn for_server(kind: &str, id: Option<&Id>, counts: &Counts) -> Packet {
    let counts = Counts { offline: 0, ..*counts };
    match counts.failure() {
        None => good(kind, id, b"null"),
        Some((reason, _, words)) => bad_with(kind, id, reason, false, &words, |_| {}),
    }
}

/// What tells a user that a message to another server came to nothing; `id` is that of the user's message.
pub fn undelivered(kind: &str, message_id: MessageId<'_>, data: &[u8], reason: Reason, id: Option<&Slice>, mark: Mark) -> Packet {
    Packet::write(|body| {
        // Writing to memory cannot fail.
        let _ = write!(
            body,
            r#"{{"header":{{"status":"bad","messageType":"deliveryReport","reason":"{reason}","temporary":false,"messageId":"#
        );
        message_id.put(body);
        put_mark(body, mark);
        body.extend_from_slice(br#"},"payload":{"data":"#);
        body.extend_from_slice(data);
        put_kind_and_id(body, kind, id.map(Slice::bytes));
    })
}

/// Whom a handler's answer did not reach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Missed {
    /// Users who are not here.
    pub offline: Vec<String>,
    /// Users and servers that there are not.
    pub unknown: Vec<String>,
    /// Users whose mailbox is full.
    pub refused: Vec<String>,
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
    let names = json!({ "offline": missed.offline, "unknown": missed.unknown, "refused": missed.refused });
    // Writing to memory cannot fail.
    let _ = write!(body, r#","names":{names}"#);
}

/// The word to a session that acknowledges that the server stops: what it has not acknowledged comes again at its next login.
pub fn draining() -> Packet {
    Packet::write(|body| {
        body.extend_from_slice(br#"{"header":{"status":"good","messageType":"draining"},"payload":{"data":{"message":"#);
        put_string(body, "the server is stopping: acknowledge what you have, and log in again later");
        body.push(b'}');
        put_kind_and_id(body, "builtin", None);
    })
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

fn put_mark(body: &mut Vec<u8>, Mark { seq, redelivered }: Mark) {
    body.extend_from_slice(br#","seq":"#);
    put_number(body, seq);
    body.extend_from_slice(if redelivered { br#","redelivered":true"# } else { br#","redelivered":false"# });
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
    // Nearly all counts.
    if number < 10 {
        return body.push(b'0' + number as u8);
    }
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
        let packet = delivery(
            "chat",
            MessageId::Own { prefix: "a.example/5f-", number: 42 },
            &Slice::from(&br#"{"a":1e999,"a":1.0}"#[..]),
            Some(&id),
            None,
        );
        assert_eq!(
            text(&packet),
            r#"{"header":{"status":"good","messageType":"receivedMessage","messageId":"a.example/5f-42"},"payload":{"data":{"a":1e999,"a":1.0},"type":"chat","id":"c\u00e4"}}"#
        );
    }

    #[test]
    fn large_data_is_shared_and_keeps_little_else_alive() {
        let message_id = MessageId::Own { prefix: "s/1-", number: 7 };
        let kept = |data: &Slice| {
            let packet = delivery("chat", message_id, data, None, None);
            let copied = delivery("chat", message_id, &Slice::from(data.bytes()), None, None);
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
            text(&outcome("chat", Some(&Id::AuthSpecial), MessageId::Own { prefix: "s/1-", number: 2 }, &away)),
            r#"{"header":{"status":"bad","messageType":"statusReport","reason":"undelivered","temporary":true},"payload":{"data":{"message":"2 recipients are all offline","messageId":"s/1-2","delivered":0,"queued":0,"offline":2,"unknown":0,"refused":0},"type":"chat","id":"auth_special"}}"#
        );
    }

    #[test]
    fn what_is_to_be_acknowledged_says_so() {
        let marked = |mark| text(&delivery("chat", MessageId::Text("old\"1"), &Slice::from(&b"1"[..]), None, Some(mark)));
        assert_eq!(
            marked(Mark { seq: 41, redelivered: false }),
            r#"{"header":{"status":"good","messageType":"receivedMessage","messageId":"old\"1","seq":41,"redelivered":false},"payload":{"data":1,"type":"chat"}}"#
        );
        assert!(marked(Mark { seq: u64::MAX, redelivered: true }).contains(r#""seq":18446744073709551615,"redelivered":true}"#));
        let ids = [MessageId::Own { prefix: "a/5f-", number: 42 }, MessageId::Text("a/5f-42")];
        assert_eq!(ids.map(|id| id.to_string()), ["a/5f-42", "a/5f-42"]);
        let large = Slice::from(&vec![b'1'; LARGE_BYTES][..]);
        let [own, kept] = ids.map(|id| delivery("chat", id, &large, None, Some(Mark { seq: 1, redelivered: true })).body().into_owned());
        assert_eq!(own, kept);
    }

    #[test]
    fn draining_is_told_in_these_words() {
        assert_eq!(
            text(&draining()),
            r#"{"header":{"status":"good","messageType":"draining"},"payload":{"data":{"message":"the server is stopping: acknowledge what you have, and log in again later"},"type":"builtin"}}"#
        );
    }

    #[test]
    fn a_report_can_be_made_again_of_its_text() {
        let counts = Counts { delivered: 1, queued: 2, ..Counts::default() };
        let id = Id::Client(Slice::from(&br#""c\u00e4""#[..]));
        let packet = outcome("chat", Some(&id), MessageId::Own { prefix: "s/1-", number: 2 }, &counts);
        let again = Packet::framed(Slice::from(&*packet.body()));
        assert_eq!(again.parts().concat(), packet.parts().concat());
        assert_eq!(outcome("chat", Some(&id), MessageId::Text("s/1-2"), &counts).body(), packet.body());
    }

    #[test]
    fn recipients_who_are_queued_or_refused_decide_the_report() {
        let failure = |counts: Counts| counts.failure().map(|(reason, temporary, words)| (reason.as_str(), temporary, words));
        let failed = |reason, temporary, words: &str| Some((reason, temporary, words.to_owned()));
        let counts = Counts { queued: 1, offline: 1, ..Counts::default() };
        assert_eq!(failure(counts), None, "somebody gets it");
        assert_eq!(failure(Counts { refused: 1, ..counts }), failed("undelivered", true, "1 mailbox is full"));
        let full = Counts { refused: 2, ..Counts::default() };
        assert_eq!(failure(full), failed("undelivered", true, "2 mailboxes are full"));
        let unknown = Counts { unknown_users: 1, unknown_servers: 1, ..full };
        assert_eq!(failure(unknown), failed("undelivered", false, "2 recipients are unknown here; 2 mailboxes are full"));
        let servers = Counts { unknown_servers: 1, refused: 1, ..Counts::default() };
        assert_eq!(failure(servers), failed("peerUnknown", false, "1 server is no peer of this one; 1 mailbox is full"));
        let mut sum = Counts { delivered: 1, queued: 2, offline: 3, unknown_users: 4, unknown_servers: 5, refused: 6, refused_servers: 7 };
        sum.add(sum);
        assert_eq!(
            sum,
            Counts { delivered: 2, queued: 4, offline: 6, unknown_users: 8, unknown_servers: 10, refused: 12, refused_servers: 14 }
        );
        let id = Id::Client(Slice::from(&b"\"i\""[..]));
        let missed = Missed { offline: vec![], unknown: vec![], refused: vec!["bob".to_owned()] };
        let report =
            text(&outcome_for_handler("chat", &id, MessageId::Text("s/1-2"), &Counts { refused: 1, ..Counts::default() }, &missed));
        let data = r#"{"message":"1 mailbox is full","messageId":"s/1-2","delivered":0,"queued":0,"offline":0,"unknown":0,"refused":1,"names":{"offline":[],"refused":["bob"],"unknown":[]}}"#;
        assert!(report.contains(&format!(r#""payload":{{"data":{data},"type":"chat""#)), "{report}");
    }

    #[test]
    fn numbers_are_written_in_full() {
        for number in [0, 1, 9, 10, 11, 99, 100, u64::MAX] {
            let mut body = Vec::new();
            put_number(&mut body, number);
            assert_eq!(body, number.to_string().into_bytes());
        }
    }

    #[test]
    fn odd_types_are_escaped() {
        assert_eq!(
            text(&good("a\"\u{1}", None, b"null")),
            r#"{"header":{"status":"good","messageType":"statusReport"},"payload":{"data":null,"type":"a\"\u0001"}}"#
        );
    }
}
