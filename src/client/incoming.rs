//! What a server sends to a client. `data` stays as it came, byte for byte.

use crate::frame::Frame;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::fmt;

/// The `payload.id` of the report on a login.
pub const LOGIN_ID: &str = "auth_special";

/// A delivery or a report.
#[derive(Clone)]
pub struct Incoming {
    /// `header.messageType`: `receivedMessage`, `statusReport`, `deliveryReport`, `draining`, or what a newer server may send.
    pub message_type: String,
    /// `header.status`: `good` or `bad`.
    pub status: String,
    /// `header.reason` of a bad report.
    pub reason: Option<String>,
    /// Whether trying again may help.
    pub temporary: bool,
    /// `header.messageId` of a delivery.
    pub message_id: Option<String>,
    /// `header.seq` of what is to be acknowledged.
    pub seq: Option<u64>,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    /// `payload.type`.
    pub kind: String,
    /// `payload.data`; `null` if there is none.
    pub data: Box<RawValue>,
    /// `payload.id`.
    pub id: Option<String>,
}

/// A frame is not what a server sends.
#[derive(Debug)]
pub struct BadFrame(serde_json::Error);

impl Incoming {
    /// Reads a frame.
    ///
    /// # Errors
    /// It is not JSON, or a field is missing or of the wrong type.
    pub fn parse(frame: &Frame) -> Result<Incoming, BadFrame> {
        let Wire { header, payload } = serde_json::from_slice(frame.bytes()).map_err(BadFrame)?;
        Ok(Incoming {
            message_type: header.message_type,
            status: header.status,
            reason: header.reason,
            temporary: header.temporary.unwrap_or(false),
            message_id: header.message_id,
            seq: header.seq,
            redelivered: header.redelivered.unwrap_or(false),
            kind: payload.kind,
            data: payload.data.unwrap_or_else(|| RawValue::NULL.to_owned()),
            id: payload.id,
        })
    }

    /// Whether a handler had this sent to us.
    pub fn is_delivery(&self) -> bool {
        self.message_type == "receivedMessage"
    }

    /// Whether this says what became of a message that we sent.
    pub fn is_report(&self) -> bool {
        self.message_type == "statusReport"
    }

    /// Whether this says that something which was to be delivered later never will be.
    pub fn is_delivery_report(&self) -> bool {
        self.message_type == "deliveryReport"
    }

    /// Whether the server stops.
    pub fn is_draining(&self) -> bool {
        self.message_type == "draining"
    }

    /// Whether all is well.
    pub fn is_good(&self) -> bool {
        self.status == "good"
    }

    /// What a bad report says to people.
    pub fn words(&self) -> Option<String> {
        let data: Result<Words, _> = serde_json::from_str(self.data.get());
        data.ok().and_then(|data| data.message)
    }
}

/// Without the data, which is nobody's business.
impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Incoming { message_type, status, reason, kind, .. } = self;
        write!(f, "Incoming({message_type}, {status}, {}, {kind:?})", reason.as_deref().unwrap_or("no reason"))
    }
}

impl fmt::Display for BadFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server sent a frame that is no message: {}", self.0)
    }
}

impl std::error::Error for BadFrame {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[derive(Deserialize)]
struct Wire {
    header: Header,
    payload: Payload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    message_type: String,
    status: String,
    reason: Option<String>,
    temporary: Option<bool>,
    message_id: Option<String>,
    seq: Option<u64>,
    redelivered: Option<bool>,
}

#[derive(Deserialize)]
struct Payload {
    #[serde(rename = "type")]
    kind: String,
    data: Option<Box<RawValue>>,
    id: Option<String>,
}

#[derive(Deserialize)]
struct Words {
    message: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Packet, Slice};
    use crate::protocol::reason::Reason;
    use crate::protocol::report::{self, Id, Mark, MessageId};

    fn read(packet: &Packet) -> Incoming {
        Incoming::parse(&Frame::from(&*packet.body())).expect("a frame of a server")
    }

    #[test]
    fn the_data_of_a_delivery_stays_byte_for_byte() {
        let data = r#"{"b":1.0,"a":1e999, "a":123456789012345678901234567890,"s":"\u00e4\/"}"#;
        let id = Slice::from(&br#""c\u00e4""#[..]);
        let delivery =
            read(&report::delivery("chat", MessageId::Own { prefix: "a/5f-", number: 1 }, &Slice::from(data.as_bytes()), Some(&id), None));
        assert!(delivery.is_delivery() && !delivery.is_report() && delivery.is_good());
        assert_eq!(delivery.data.get(), data);
        assert_eq!((delivery.seq, delivery.redelivered), (None, false));
        assert_eq!((delivery.kind.as_str(), delivery.message_id.as_deref(), delivery.id.as_deref()), ("chat", Some("a/5f-1"), Some("cä")));
    }

    #[test]
    fn what_is_to_be_acknowledged_has_its_number() {
        let mark = Some(Mark { seq: 41, redelivered: true });
        let delivery = read(&report::delivery("chat", MessageId::Text("a/5f-1"), &Slice::from(&b"1"[..]), None, mark));
        assert_eq!((delivery.is_delivery(), delivery.seq, delivery.redelivered), (true, Some(41), true));
        let draining = read(&report::draining());
        assert!(draining.is_draining() && draining.is_good() && !draining.is_delivery() && !draining.is_report());
        let text = r#"{"header":{"status":"bad","messageType":"deliveryReport","reason":"expired","seq":7,"redelivered":false},
            "payload":{"type":"chat","id":"c-1","data":{"messageId":"a/5f-1","server":"b","attempts":9}}}"#;
        let failed = Incoming::parse(&Frame::from(text.as_bytes())).expect("a frame of a server");
        assert!(failed.is_delivery_report() && !failed.is_report() && !failed.is_draining() && !failed.is_good());
        assert_eq!((failed.seq, failed.redelivered, failed.reason.as_deref()), (Some(7), false, Some("expired")));
    }

    #[test]
    fn a_report_has_its_reason_and_words() {
        let bad = read(&report::bad("chat", Some(&Id::AuthSpecial), Reason::Busy, "too many \"logins\""));
        assert!(bad.is_report() && !bad.is_delivery() && !bad.is_good() && bad.temporary);
        assert_eq!((bad.reason.as_deref(), bad.id.as_deref()), (Some("busy"), Some(LOGIN_ID)));
        assert_eq!(bad.words().as_deref(), Some("too many \"logins\""));
        let good = read(&report::good("builtin", None, b"null"));
        assert!(good.is_good() && !good.temporary && good.id.is_none() && good.words().is_none());
        assert_eq!(good.data.get(), "null");
    }

    #[test]
    fn deep_data_costs_no_stack() {
        let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
        assert_eq!(
            read(&report::delivery("x", MessageId::Own { prefix: "s/1-", number: 1 }, &Slice::from(&deep[..]), None, None))
                .data
                .get()
                .len(),
            200_000
        );
    }

    #[test]
    fn what_no_server_sends_is_refused() {
        for text in ["", "{}", "[]", r#"{"header":{"status":"good"},"payload":{"type":"x","data":1}}"#, r#"{"header":null,"payload":null}"#]
        {
            assert!(Incoming::parse(&Frame::from(text.as_bytes())).is_err(), "{text}");
        }
    }
}
