//! `bester status`: what goes on in the running server.

use super::{Failure, control, no_free_arguments, parse, peer, print};
use crate::store::{Database, StoreError, Totals};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// What `bester status --help` prints.
pub const HELP: &str = "\
Usage: bester status [-c FILE] [--json]

Shows what goes on in the running server: who is connected, what waits in mailboxes (bester queue
tells more), whether the disk works, how the link to each other server is and what waits for it
(bester peer tells more; one that proves nothing is marked insecure), and for each instance of
each handler how it is, what it has to do, and how it died the last five times, with what it
printed last.

Whether the disk works is what the last messages that were to be kept or read met with. While there
is nothing to keep, nothing is tried. How many orders wait for the disk is told, too.

A handler is
  starting      its program runs, and cannot be asked yet
  ready         it can be asked, and has not answered since it was started
  answering     it has answered
  draining      it is being ended
  backing off   it died, and will be started again
  failed        it died too often or asked not to be started again: bester handler restart TYPE

Options:
  -c, --config FILE the configuration (bester.conf)
      --json        print all of it as one JSON object; times are seconds since 1970
  -h, --help        print this

Exit codes: 0 done, 64 called wrongly, 69 no server runs, 77 not permitted, 78 bad configuration.
";

/// Carries out `bester status` with the arguments that follow it.
///
/// # Errors
/// As in [`HELP`].
pub fn run(args: &[String]) -> Result<(), Failure> {
    let mut options = super::options();
    options.optflag("", "json", "");
    let matches = parse("status", &options, args)?;
    if matches.opt_present("help") {
        return print(HELP);
    }
    no_free_arguments("status", &matches)?;
    let config = super::config_from(&matches)?;
    let ask = |kind| control::ask(&config, kind, &Value::Null, control::AT_ONCE).map_err(|error| error.into_failure(&config));
    let (status, handlers, links) = (ask("status")?, ask("handlers")?, ask("peers")?);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    // The disk may fail just now, and then the rest is wanted all the more.
    let database = Database::open(&config.database);
    let totals = database.as_ref().map_err(Clone::clone).and_then(Database::totals);
    let mut status = joined(status, handlers, &totals, now);
    let peers = database.and_then(|database| peer::list::joined(&database, Some(&links)));
    // If it fails, the line about mailboxes says so; the links are known all the same.
    status["peers"] = peers.map_or(links, Value::Array);
    let text = if matches.opt_present("json") { format!("{status}\n") } else { in_words(&status, now) };
    print(&text)
}

/// What the dispatcher knows, with what the keeper of each instance knows and what lies in mailboxes.
fn joined(mut status: Value, handlers: Value, totals: &Result<Totals, StoreError>, now: f64) -> Value {
    status["mailboxes"] = match totals {
        Ok(Totals { mailboxes, letters, bytes, aside }) => {
            json!({ "mailboxes": mailboxes, "messages": letters, "bytes": bytes, "setAside": aside })
        }
        Err(error) => json!({ "error": error.with_causes() }),
    };
    // The dispatcher has no clock that shows the time of day.
    for fails in ["writingFails", "readingFails"] {
        for ago in status["storage"][fails].as_object_mut().into_iter().flat_map(|fails| fails.values_mut()) {
            *ago = json!(now - ago.as_f64().unwrap_or(0.0));
        }
    }
    let types = status["types"].as_object_mut();
    for (kind, entry) in types.into_iter().flatten() {
        let instances = entry["instances"].as_array_mut().into_iter().flatten();
        let known = handlers[kind].as_array().into_iter().flatten();
        for (instance, known) in instances.zip(known) {
            let (Some(instance), Some(known)) = (instance.as_object_mut(), known.as_object()) else { continue };
            instance.extend(known.clone());
        }
    }
    status
}

fn in_words(status: &Value, now: f64) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_words(&mut text, status, now);
    text
}

fn write_words(out: &mut String, status: &Value, now: f64) -> std::fmt::Result {
    let count = |key: &str, one: &str, many: &str| plural(&status[key], one, many);
    let (sessions, users) = (count("sessions", "session", "sessions"), count("users", "user", "users"));
    let (connections, under_way) = (count("connections", "connection", "connections"), count("messagesUnderWay", "message", "messages"));
    let draining = if status["draining"] == true { "; it is stopping" } else { "" };
    writeln!(out, "{}: {connections}, {sessions} of {users}, {under_way} under way{draining}", word(&status["server"]))?;
    write_kept(out, status, now)?;
    for peer in status["peers"].as_array().into_iter().flatten() {
        writeln!(out, "peer {}", peer::list::in_words(peer, now, "; "))?;
    }
    for (kind, entry) in status["types"].as_object().into_iter().flatten() {
        writeln!(out, "\n{kind}: asked {}, {} not answered well", plural(&entry["asked"], "time", "times"), entry["failed"])?;
        let instances = entry["instances"].as_array().map_or(&[][..], Vec::as_slice);
        for (number, instance) in instances.iter().enumerate() {
            let name = if instances.len() > 1 { format!("  {number}: ") } else { "  ".to_owned() };
            let state = if instance["state"].is_null() { "starting" } else { word(&instance["state"]) };
            write!(out, "{name}{state}, {} under way, {} waiting", instance["underWay"], instance["waiting"])?;
            if let Some(pid) = instance["pid"].as_u64() {
                write!(out, "; process {pid} for {}", ago(&instance["started"], now))?;
            }
            writeln!(out, "; {}", plural(&instance["starts"], "start", "starts"))?;
            for death in instance["deaths"].as_array().into_iter().flatten() {
                writeln!(out, "    {} ago it {}", ago(&death["at"], now), word(&death["how"]))?;
                for line in death["lastWords"].as_array().into_iter().flatten() {
                    writeln!(out, "      | {}", word(line))?;
                }
            }
        }
    }
    Ok(())
}

fn write_kept(out: &mut String, status: &Value, now: f64) -> std::fmt::Result {
    let mailboxes = &status["mailboxes"];
    if let Some(error) = mailboxes["error"].as_str() {
        writeln!(out, "mailboxes: not known: {error}")?;
    } else {
        let count = |key: &str, one: &str, many: &str| plural(&mailboxes[key], one, many);
        let (messages, bytes) = (count("messages", "message", "messages"), count("bytes", "byte", "bytes"));
        let boxes = count("mailboxes", "mailbox", "mailboxes");
        writeln!(out, "mailboxes: {messages} with {bytes} in {boxes}, {} set aside", mailboxes["setAside"])?;
    }
    let storage = &status["storage"];
    write!(out, "storage: {} waiting", plural(&storage["waiting"], "order", "orders"))?;
    let mut works = true;
    for (fails, what) in [("writingFails", "writing"), ("readingFails", "reading")] {
        if let Some(fails) = storage[fails].as_object() {
            works = false;
            write!(out, "; {what} has failed for {}, the last time {} ago", ago(&fails["since"], now), ago(&fails["last"], now))?;
        }
    }
    writeln!(out, "{}", if works { "; it works" } else { "" })
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

fn plural(count: &Value, one: &str, many: &str) -> String {
    counted(count.as_u64().unwrap_or(0), one, many)
}

/// A number and what it counts.
pub(super) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// How long ago something was, in the unit that people would say.
fn ago(at: &Value, now: f64) -> String {
    age((now - at.as_f64().unwrap_or(now)).max(0.0) as u64)
}

/// So many seconds, in the unit that people would say.
pub(super) fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn people_see_how_each_instance_is_and_how_it_died() {
        let status = json!({
            "server": "a.example", "draining": false, "connections": 3, "sessions": 2, "users": 1, "messagesUnderWay": 0,
            "storage": { "waiting": 0, "writingFails": null, "readingFails": null },
            "types": { "chat": { "asked": 7, "failed": 1, "instances": [
                { "up": true, "underWay": 1, "waiting": 2 }, { "up": false, "underWay": 0, "waiting": 0 },
            ] } },
        });
        let deaths = json!([{ "at": 9000.5, "how": "exited with status 1", "lastWords": ["Traceback", "ValueError: x"] }]);
        let handlers = json!({ "chat": [
            { "state": "answering", "pid": 12, "started": 9990.0, "starts": 1, "deaths": [] },
            { "state": "backing off", "pid": null, "started": 8000.0, "starts": 2, "deaths": deaths },
        ] });
        let totals = Totals { mailboxes: 2, letters: 3, bytes: 1, aside: 1 };
        let mut status = joined(status, handlers, &Ok(totals), 10_000.5);
        status["peers"] = json!([
            { "name": "b.example", "addresses": ["b:1"], "verify": "pins", "messages": 0, "state": "up", "since": 9940.0 },
            { "name": "c", "addresses": ["c:1"], "verify": "none", "messages": 2, "oldest": 9000, "state": "ready", "since": 9940.0 },
        ]);
        let text = in_words(&status, 10_000.5);
        assert_eq!(
            text,
            "a.example: 3 connections, 2 sessions of 1 user, 0 messages under way\n\
             mailboxes: 3 messages with 1 byte in 2 mailboxes, 1 set aside\n\
             storage: 0 orders waiting; it works\n\
             peer b.example; b:1; up for 60 s; 0 messages\n\
             peer c; c:1; ready for 60 s; 2 messages; 16 min; insecure: it proves nothing\n\n\
             chat: asked 7 times, 1 not answered well\n  \
             0: answering, 1 under way, 2 waiting; process 12 for 10 s; 1 start\n  \
             1: backing off, 0 under way, 0 waiting; 2 starts\n    \
             16 min ago it exited with status 1\n      | Traceback\n      | ValueError: x\n"
        );
    }

    #[test]
    fn people_see_that_the_disk_fails() {
        let status = json!({ "storage": { "waiting": 1, "writingFails": { "since": 40.2, "last": 0.5 }, "readingFails": null } });
        let status = joined(status, json!({}), &Err(StoreError::Busy), 10_000.0);
        assert_eq!(status["storage"]["writingFails"], json!({ "since": 9959.8, "last": 9999.5 }));
        let text = in_words(&status, 10_000.0);
        let (_, text) = text.split_once('\n').expect("lines");
        assert_eq!(
            text,
            "mailboxes: not known: the database is busy: try again\n\
             storage: 1 order waiting; writing has failed for 40 s, the last time 0 s ago\n"
        );
    }
}
