//! `bester status`: what goes on in the running server.

use super::{Failure, control, no_free_arguments, parse, print};
use serde_json::Value;
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// What `bester status --help` prints.
pub const HELP: &str = "\
Usage: bester status [-c FILE] [--json]

Shows what goes on in the running server: who is connected, and for each instance of each handler
how it is, what it has to do, and how it died the last five times, with what it printed last.

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
    let status = joined(ask("status")?, ask("handlers")?);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    let text = if matches.opt_present("json") { format!("{status}\n") } else { in_words(&status, now) };
    print(&text)
}

/// What the dispatcher knows of each instance, with what its keeper knows.
fn joined(mut status: Value, handlers: Value) -> Value {
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
            "types": { "chat": { "asked": 7, "failed": 1, "instances": [
                { "up": true, "underWay": 1, "waiting": 2 }, { "up": false, "underWay": 0, "waiting": 0 },
            ] } },
        });
        let deaths = json!([{ "at": 9000.5, "how": "exited with status 1", "lastWords": ["Traceback", "ValueError: x"] }]);
        let handlers = json!({ "chat": [
            { "state": "answering", "pid": 12, "started": 9990.0, "starts": 1, "deaths": [] },
            { "state": "backing off", "pid": null, "started": 8000.0, "starts": 2, "deaths": deaths },
        ] });
        let text = in_words(&joined(status, handlers), 10_000.5);
        assert_eq!(
            text,
            "a.example: 3 connections, 2 sessions of 1 user, 0 messages under way\n\n\
             chat: asked 7 times, 1 not answered well\n  \
             0: answering, 1 under way, 2 waiting; process 12 for 10 s; 1 start\n  \
             1: backing off, 0 under way, 0 waiting; 2 starts\n    \
             16 min ago it exited with status 1\n      | Traceback\n      | ValueError: x\n"
        );
    }
}
