//! What handlers say, and what clients hear, in few words.

use crate::dispatcher::About;
use crate::frame::{Packet, Slice};
use crate::name::Username;
use crate::protocol::report::Id;
use crate::protocol::text::Text;
use serde_json::Value;

/// The answer with `inReplyTo`, if what was asked is an envelope.
pub(super) fn in_reply_to(packet: &Packet, answer: &str) -> String {
    let asked: Value = serde_json::from_slice(&packet.body()).unwrap_or_default();
    match &asked["header"]["messageId"] {
        Value::String(id) => answer.replacen(r#"{"header":{"#, &format!(r#"{{"header":{{"inReplyTo":"{id}","#), 1),
        _ => answer.to_owned(),
    }
}

pub(super) fn to(names: &[&str], data: &str) -> String {
    one("sendClients", &serde_json::json!(names).to_string(), data)
}

pub(super) fn reply(data: &str) -> String {
    one("reply", "null", data)
}

pub(super) fn none() -> String {
    one("none", "null", "null")
}

pub(super) fn pass_on(kind: &str, data: &str) -> String {
    one("sendHandler", &format!("\"{kind}\""), data)
}

pub(super) fn one(command: &str, command_data: &str, data: &str) -> String {
    format!(r#"{{"header":{{"status":"0","command":"{command}","commandData":{command_data}}},"payload":{{"data":{data}}}}}"#)
}

/// An answer of several commands, each `(command, commandData)`, with one payload for all.
pub(super) fn several(commands: &[(&str, &str)], data: &str) -> String {
    let entry = |(command, command_data): &(&str, &str)| format!(r#"{{"command":"{command}","commandData":{command_data}}}"#);
    let commands: Vec<String> = commands.iter().map(entry).collect();
    format!(r#"{{"header":{{"status":"0","commands":[{}]}},"payload":{{"data":{data}}}}}"#, commands.join(","))
}

/// What a client got, in short: `chat "hi" #id` is a delivery, `good 1/0/0 #id` a report with its counts (delivered,
/// offline, unknown; what is queued or refused behind it), `bad busy temporary #id` one without. A delivery that is to be
/// acknowledged has `@` and its number, `@@` if it may have come before.
pub(super) fn short(frame: &str) -> String {
    let frame: Value = serde_json::from_str(frame).expect("JSON");
    let (header, payload) = (&frame["header"], &frame["payload"]);
    let data = &payload["data"];
    let mut words = match (header["messageType"].as_str(), header["status"].as_str()) {
        (Some("receivedMessage"), Some("good")) => vec![payload["type"].as_str().expect("a type").to_owned(), data.to_string()],
        (Some("statusReport"), Some("good")) if data["delivered"].is_null() => vec!["good".into(), data.to_string()],
        (Some("statusReport"), Some(status)) => vec![status.into()],
        _ => return frame.to_string(),
    };
    words.extend(header["reason"].as_str().map(str::to_owned));
    words.extend((header["temporary"] == true).then(|| "temporary".into()));
    if !data["delivered"].is_null() {
        words.push(format!("{}/{}/{}", data["delivered"], data["offline"], data["unknown"]));
        let others = ["queued", "refused"].iter().filter(|count| data[**count] != 0);
        words.extend(others.map(|count| format!("{count}:{}", data[*count])));
    }
    if let Some(seq) = header["seq"].as_u64() {
        words.push(format!("{}{seq}", if header["redelivered"] == true { "@@" } else { "@" }));
    }
    words.extend(payload["id"].as_str().map(|id| format!("#{id}")));
    words.join(" ")
}

pub(super) fn username(name: &str) -> Username {
    Username::new(name).expect("a user's name")
}

pub(super) fn slice(text: &str) -> Slice {
    Slice::from(text.as_bytes())
}

pub(super) fn about(id: &str) -> About {
    About { kind: Text::from("builtin"), id: Some(Id::Client(slice(&format!("\"{id}\"")))) }
}
