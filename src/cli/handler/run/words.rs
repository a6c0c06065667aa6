//! What a server would do with an answer, in words and in numbers.

use crate::config::{Config, Offline};
use crate::protocol::handler::{Command, Names, Order, Outcome};
use crate::protocol::report::{Counts, Missed};
use crate::protocol::text::Text;
use std::collections::BTreeSet;

/// Of more names the first ones are shown.
const NAMES_SHOWN: usize = 10;

/// What would be done; or why it would not, though the answer is read without fault.
pub(super) fn of(outcome: &Outcome, config: &Config) -> Result<String, String> {
    let commands = match outcome {
        Outcome::Refused { status, data } => {
            let status = format!("refuses: status {}", String::from_utf8_lossy(status.bytes()));
            let data = data.as_ref().map(|data| format!(", data {}", String::from_utf8_lossy(data.bytes())));
            return Ok(status + data.as_deref().unwrap_or_default());
        }
        Outcome::Commands(commands) => commands,
    };
    let mut words = Vec::new();
    for Command { order, offline, .. } in commands {
        // What the configuration says of it is no news.
        let kept = match offline {
            Some(Offline::Queue) => ", in the mailboxes of those who are away",
            Some(Offline::Drop) => ", but to nobody who is away",
            None => "",
        };
        words.push(match order {
            Order::Reply => "replies".to_owned(),
            Order::SendClients(names) => format!("delivers to {}{kept}", listed(names)),
            Order::SendServers(names) => format!("sends to the servers {} (peerUnknown: this one knows none)", listed(names)),
            Order::SendHandler(kind) if config.handlers.contains_key(kind.bytes()) => {
                format!("hands it on to the handler of {}", kind.as_str())
            }
            Order::SendHandler(_) => return Err("sendHandler names a type that is not configured".into()),
            Order::None => "does nothing".to_owned(),
        });
    }
    Ok(if words.is_empty() { "does nothing".into() } else { words.join("; ") })
}

fn listed(names: &Names) -> String {
    if names.is_empty() {
        return "nobody".into();
    }
    let shown: Vec<&str> = names.iter().take(NAMES_SHOWN).map(Text::as_str).collect();
    let more = names.len() - shown.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    shown.join(", ") + &more
}

/// How those would fare who are named: `user` is there, everybody else is away. `asked`: there is one to reply to;
/// `offline`: what is configured.
pub(super) fn fate(outcome: &Outcome, user: &str, asked: bool, offline: Offline) -> (Counts, Missed) {
    let (mut counts, mut missed, mut seen) = (Counts::default(), Missed::default(), BTreeSet::new());
    let Outcome::Commands(commands) = outcome else { return (counts, missed) };
    for Command { order, offline: said, .. } in commands {
        let offline = said.unwrap_or(offline);
        match order {
            Order::Reply if asked && seen.insert(user) => counts.delivered += 1,
            Order::SendClients(names) => {
                for name in names.iter().map(Text::as_str).filter(|name| seen.insert(name)) {
                    if name == user {
                        counts.delivered += 1;
                    } else if offline == Offline::Queue {
                        counts.queued += 1;
                    } else {
                        counts.offline += 1;
                        missed.offline.push(name.to_owned());
                    }
                }
            }
            Order::SendServers(names) => {
                counts.unknown_servers += names.len() as u64;
                missed.unknown.extend(names.iter().map(|name| name.as_str().to_owned()));
            }
            Order::Reply | Order::SendHandler(_) | Order::None => {}
        }
    }
    (counts, missed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Frame;
    use crate::protocol::handler;
    use std::path::Path;

    #[test]
    fn an_answer_may_say_what_is_done_for_those_who_are_away() {
        let text = r#"{"network": {"tcp4": {"port": 1}}}"#;
        let config = Config::from_text(text, Path::new("/etc/bester/bester.conf")).expect("a good configuration");
        for (said, words, away) in [
            ("", "delivers to alice, bob", [1, 0]),
            (r#","offline":"queue""#, "delivers to alice, bob, in the mailboxes of those who are away", [1, 1]),
            (r#","offline":"drop""#, "delivers to alice, bob, but to nobody who is away", [0, 0]),
        ] {
            let answer = format!(
                r#"{{"header":{{"status":"0","command":"sendClients","commandData":["alice","bob"]{said}}},"payload":{{"data":1}}}}"#
            );
            let outcome = handler::parse(&Frame::from(answer.as_bytes()), 9, 9).expect("a good answer").outcome;
            assert_eq!(of(&outcome, &config).as_deref(), Ok(words));
            let queued = [Offline::Queue, Offline::Drop].map(|offline| {
                let (counts, missed) = fate(&outcome, "alice", true, offline);
                assert_eq!((counts.delivered, counts.queued + counts.offline), (1, 1));
                assert_eq!(missed.offline.len() as u64, counts.offline);
                counts.queued
            });
            assert_eq!(queued, away, "{said}");
        }
    }
}
