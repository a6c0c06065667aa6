//! The peers as `bester peer list` shows them, and `bester status`.

use crate::cli::control::{self, NoAnswer};
use crate::cli::outcome::printable;
use crate::cli::status::{age, counted};
use crate::cli::{Failure, OutputEnd, output, warn};
use crate::config::Config;
use crate::store::{Database, Outbox, Peer, StoreError, Verify};
use serde_json::{Value, json};
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// `bester peer list`.
pub(super) fn run(config: &Config, json: bool) -> Result<(), Failure> {
    let database = Database::open(&config.database)?;
    let links = match control::ask(config, "peers", &Value::Null, control::AT_ONCE) {
        Ok(links) => Some(links),
        Err(NoAnswer::Nobody) => None,
        Err(error) => {
            warn(format_args!("how the links are is not known: {error}"));
            None
        }
    };
    let all = joined(&database, links.as_ref())?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    output(|out| list(&all, json, now, out))
}

/// What the database and the running server know of each peer: a JSON object each.
pub(in crate::cli) fn joined(database: &Database, links: Option<&Value>) -> Result<Vec<Value>, StoreError> {
    let (peers, outboxes) = (database.peers()?, database.outboxes()?);
    let links = links.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let one = |peer: Peer| {
        let outbox = outboxes.iter().find(|outbox| outbox.peer == peer.name);
        let link = links.iter().find(|link| link["name"] == peer.name.as_str());
        about(&peer, outbox, link)
    };
    Ok(peers.into_iter().map(one).collect())
}

fn about(peer: &Peer, outbox: Option<&Outbox>, link: Option<&Value>) -> Value {
    let (verify, pins) = match &peer.verify {
        Verify::Pins(pins) => ("pins", pins.iter().map(ToString::to_string).collect()),
        Verify::Nothing => ("none", Vec::new()),
        Verify::Open => ("open", Vec::new()),
    };
    let addresses: Vec<String> = peer.addresses.iter().map(ToString::to_string).collect();
    let (messages, bytes) = outbox.map_or((0, 0), |outbox| (outbox.messages, outbox.bytes));
    let of_link = |key: &str| link.map_or(Value::Null, |link| link[key].clone());
    json!({
        "name": peer.name.as_str(), "addresses": addresses, "verify": verify, "pins": pins,
        "messages": messages, "bytes": bytes, "oldest": outbox.map(|outbox| outbox.oldest),
        "state": of_link("state"), "since": of_link("since"), "unanswered": of_link("unanswered"),
        "nextAttempt": of_link("nextAttempt"), "trouble": of_link("trouble"), "troubleAt": of_link("troubleAt"),
    })
}

fn list(all: &[Value], json: bool, now: f64, out: &mut dyn Write) -> Result<(), OutputEnd> {
    for peer in all {
        if json { writeln!(out, "{peer}")? } else { writeln!(out, "{}", in_words(peer, now, "\t"))? }
    }
    Ok(())
}

/// One peer on one line.
pub(in crate::cli) fn in_words(peer: &Value, now: f64, between: &str) -> String {
    let word = |key: &str| peer[key].as_str().unwrap_or_default();
    let ago = |key: &str| peer[key].as_f64().map(|at| age((now - at).max(0.0) as u64));
    let addresses: Vec<&str> = peer["addresses"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let state =
        match (peer["state"].as_str(), peer["nextAttempt"].as_u64().or_else(|| peer["nextAttempt"].as_f64().map(|next| next as u64))) {
            (None, _) => "not linked".to_owned(),
            (Some(state), Some(next)) => format!("{state}, next attempt in {}", age(next)),
            (Some(state), None) => format!("{state} for {}", ago("since").unwrap_or_default()),
        };
    let messages = counted(peer["messages"].as_u64().unwrap_or(0), "message", "messages");
    let mut parts = vec![word("name").to_owned(), addresses.join(","), state, messages];
    parts.extend(ago("oldest"));
    match word("verify") {
        "none" => parts.push("insecure: it proves nothing".to_owned()),
        "open" => parts.push("insecure: nothing is known of it".to_owned()),
        _ => {}
    }
    if let (Some(trouble), Some(ago)) = (peer["trouble"].as_str(), ago("troubleAt")) {
        parts.push(format!("{ago} ago: {}", printable(trouble)));
    }
    parts.join(between)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::{PeerId, ServerName};

    fn peer(name: &str, verify: Verify) -> Peer {
        Peer {
            id: PeerId(1),
            name: ServerName::new(name).unwrap(),
            addresses: vec!["b:1".parse().unwrap(), "[::1]:2".parse().unwrap()],
            verify,
        }
    }

    fn words(peer: &Peer, outbox: Option<&Outbox>, link: Option<&Value>) -> String {
        in_words(&about(peer, outbox, link), 10_000.0, "|")
    }

    #[test]
    fn a_line_says_how_the_link_is_and_what_waits() {
        let pinned = peer("b.example", Verify::Pins(Vec::new()));
        assert_eq!(words(&pinned, None, None), "b.example|b:1,[::1]:2|not linked|0 messages");
        let up = json!({ "name": "b.example", "state": "up", "since": 9940.0, "unanswered": 1, "nextAttempt": null, "trouble": null });
        let outbox = Outbox { peer: pinned.name.clone(), messages: 1, bytes: 5, oldest: 2800 };
        assert_eq!(words(&pinned, Some(&outbox), Some(&up)), "b.example|b:1,[::1]:2|up for 60 s|1 message|2 h");
        let waiting = json!({ "state": "waiting", "since": 1.0, "nextAttempt": 12.0, "trouble": "no \u{1b} answer", "troubleAt": 9999.0 });
        let line = words(&pinned, None, Some(&waiting));
        assert_eq!(line, "b.example|b:1,[::1]:2|waiting, next attempt in 12 s|0 messages|1 s ago: no \\u{1b} answer");
    }

    #[test]
    fn whoever_proves_nothing_is_marked() {
        assert!(words(&peer("b", Verify::Nothing), None, None).ends_with("|insecure: it proves nothing"));
        assert!(words(&peer("b:1", Verify::Open), None, None).ends_with("|insecure: nothing is known of it"));
    }
}
