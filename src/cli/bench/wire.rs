//! What goes to a server and what comes from it, as far as the load looks at it. No I/O.

use super::ledger::Verdict;
use super::message::{END, Stamp, address};
use super::plan::Plan;
use crate::frame::PREFIX_BYTES;
use crate::protocol::report::put_string;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::io::Write;

/// Appends the frame of a message.
pub(super) fn put_message(plan: &Plan, from: usize, seq: u64, at: u64, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX_BYTES]);
    out.extend_from_slice(br#"{"payload":{"type":"#);
    put_string(out, &plan.kind);
    out.extend_from_slice(br#","data":"#);
    // There are at most 16 million senders, see SENDERS_MAX.
    let stamp = Stamp { run: plan.run, from: from as u32, seq, at };
    if plan.ring.fan_out == 1 {
        stamp.write(plan.size, out);
    } else {
        address(plan.ring.recipients(from).map(|index| plan.names[index].as_str()), out);
        stamp.write(plan.size, out);
        out.extend_from_slice(END);
    }
    if plan.ids {
        let _ = write!(out, r#","id":"{seq}""#); // a Vec takes everything
    }
    out.extend_from_slice(b"}}");
    // The plan keeps frames below a client's limit of 16 MiB.
    let length = (out.len() - start - PREFIX_BYTES) as u32;
    out[start..start + PREFIX_BYTES].copy_from_slice(&length.to_le_bytes());
}

/// What a frame of the server is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming<'a> {
    /// Somebody's data.
    Delivery(&'a [u8]),
    /// What became of a message of ours; which one, if it has an id that we gave.
    Report(Option<u64>, Verdict<'a>),
    /// Neither.
    Other,
}

/// Reads a frame.
pub(super) fn read(frame: &[u8]) -> Incoming<'_> {
    let Ok(Wire { header, payload }) = serde_json::from_slice::<Wire<'_>>(frame) else { return Incoming::Other };
    match (header.message_type, header.status) {
        ("receivedMessage", "good") => Incoming::Delivery(payload.data.map_or(b"null", |data| data.get().as_bytes())),
        ("statusReport", status) => {
            let seq = payload.id.and_then(|id| id.parse().ok());
            let counts = || serde_json::from_str::<Counts>(payload.data?.get()).ok();
            match status {
                "good" => Incoming::Report(seq, Verdict::Good(counts().map(|counts| counts.delivered))),
                _ => Incoming::Report(seq, Verdict::Bad(header.reason.unwrap_or("no reason"))),
            }
        }
        _ => Incoming::Other,
    }
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    header: Header<'a>,
    #[serde(borrow)]
    payload: Payload<'a>,
}

#[derive(Deserialize)]
struct Header<'a> {
    #[serde(rename = "messageType")]
    message_type: &'a str,
    status: &'a str,
    reason: Option<&'a str>,
}

#[derive(Deserialize)]
struct Payload<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    id: Option<&'a str>,
}

#[derive(Deserialize)]
struct Counts {
    delivered: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::plan::tests::plan;
    use crate::frame::Slice;
    use crate::protocol::reason::Reason;
    use crate::protocol::report::{self, Id, MessageId};

    fn sent(args: &[&str]) -> String {
        let mut out = Vec::new();
        put_message(&plan(args), 1, 7, 9, &mut out);
        let (length, body) = out.split_at(4);
        assert_eq!(length, (body.len() as u32).to_le_bytes());
        String::from_utf8(body.to_vec()).expect("UTF-8")
    }

    #[test]
    fn messages_are_as_the_plan_says() {
        let plain = sent(&["--clients", "3", "--no-id", "--size", "61"]);
        assert!(plain.starts_with(r#"{"payload":{"type":"bench","data":""#) && plain.ends_with("\"}}"), "{plain}");
        let wide = sent(&["--clients", "3", "--fan-out", "2", "-u", "b"]);
        let begin = r#"{"payload":{"type":"bench","data":{"to":["b1","b2"],"data":""#;
        assert!(wide.starts_with(begin) && wide.ends_with("\"},\"id\":\"7\"}}"), "{wide}");
    }

    #[test]
    fn what_a_server_sends_is_read() {
        let delivery = report::delivery("bench", MessageId::Own { prefix: "s/1-", number: 1 }, &Slice::from(&b" 1.0"[..]), None, None);
        assert_eq!(read(&delivery.body()), Incoming::Delivery(b"1.0"));
        let id = Id::Client(Slice::from(&br#""12""#[..]));
        let counts = report::Counts { delivered: 3, ..report::Counts::default() };
        let good = report::outcome("bench", Some(&id), MessageId::Own { prefix: "s/1-", number: 1 }, &counts);
        assert_eq!(read(&good.body()), Incoming::Report(Some(12), Verdict::Good(Some(3))));
        let busy = report::bad("bench", None, Reason::Busy, "too \"many\"");
        assert_eq!(read(&busy.body()), Incoming::Report(None, Verdict::Bad("busy")));
        for other in ["", "{}", r#"{"header":{"messageType":"x","status":"good"},"payload":{}}"#] {
            assert_eq!(read(other.as_bytes()), Incoming::Other);
        }
    }
}
