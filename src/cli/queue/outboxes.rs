//! What waits for other servers.

use super::{end_json, one_line, since};
use crate::cli::control;
use crate::cli::outcome::printable;
use crate::cli::peer::tell_authors;
use crate::cli::status::counted;
use crate::cli::{Failure, OutputEnd};
use crate::config::Config;
use crate::name::ServerName;
use crate::protocol::report::put_string;
use crate::store::{Database, Outbox, StoreError, Unsent, Which};
use serde_json::json;
use std::io::Write;

/// The outboxes in which something lies.
pub(super) fn list(database: &Database, json: bool, now: i64, out: &mut dyn Write) -> Result<(), OutputEnd> {
    for Outbox { peer, messages, bytes, oldest } in database.outboxes()? {
        if json {
            // Nothing in a name needs an escape.
            writeln!(out, r#"{{"peer":"{peer}","messages":{messages},"bytes":{bytes},"oldest":{oldest}}}"#)?;
        } else {
            let (messages, bytes) = (counted(messages, "message", "messages"), counted(bytes, "byte", "bytes"));
            writeln!(out, "peer {peer}\t{messages}\t{bytes}\t{}", since(oldest, now))?;
        }
    }
    Ok(())
}

/// `with` is whether to show the data, and whether as JSON.
pub(super) fn show(database: &Database, peer: &ServerName, with: (bool, bool), now: i64, out: &mut dyn Write) -> Result<(), OutputEnd> {
    let (data, json) = with;
    database.outgoing(peer, data, |unsent| {
        if json {
            return Ok(out.write_all(&in_json(&unsent))?);
        }
        let Unsent { seq, kind, message_id, bytes, kept, attempts, author, data } = unsent;
        let (bytes, tries) = (counted(bytes, "byte", "bytes"), counted(attempts, "time", "times"));
        let (kind, id) = (printable(&kind), printable(&message_id));
        let author = author.map_or_else(String::new, |author| format!("\tof {}", printable(&author)));
        writeln!(out, "{seq}\t{kind}\t{id}\t{bytes}\t{}\ttried {tries}{author}", since(kept, now))?;
        if let Some(data) = data {
            writeln!(out, "\t{}", printable(&String::from_utf8_lossy(&one_line(data))))?;
        }
        Ok(())
    })
}

fn in_json(unsent: &Unsent) -> Vec<u8> {
    let Unsent { seq, kind, message_id, bytes, kept, attempts, author, data } = unsent;
    let mut line = format!(r#"{{"seq":{seq},"type":"#).into_bytes();
    put_string(&mut line, kind);
    line.extend_from_slice(br#","messageId":"#);
    put_string(&mut line, message_id);
    line.extend_from_slice(format!(r#","bytes":{bytes},"kept":{kept},"attempts":{attempts}"#).as_bytes());
    if let Some(author) = author {
        line.extend_from_slice(br#","author":"#);
        put_string(&mut line, author);
    }
    end_json(&mut line, data.as_deref());
    line
}

/// Says what was done.
pub(super) fn retry(config: &Config, database: &Database, peer: &ServerName) -> Result<String, Failure> {
    if !database.peers()?.iter().any(|known| known.name == *peer) {
        return Err(StoreError::NoPeer(peer.clone()).into());
    }
    let asked = control::ask(config, "retryPeer", &json!(peer.as_str()), control::AT_ONCE);
    asked.map(|_| format!("{peer} is tried now")).map_err(|error| error.into_failure(config))
}

/// Says what was done.
pub(super) fn discard(config: &Config, database: &mut Database, peer: &ServerName, which: Which) -> Result<String, Failure> {
    let given_up = database.drop_outgoing(peer, which)?;
    tell_authors(config, &given_up);
    match (given_up.messages, which) {
        (0, Which::One(seq)) => Err(Failure::data(format_args!("there is no message {seq} for {peer}"))),
        (count, _) => Ok(format!("{} for {peer} given up", counted(count, "message", "messages"))),
    }
}
