//! What a run is to do: the options, read and checked.

use super::ledger::Ring;
use super::message::{DATA_BYTES_MIN, SENDERS_MAX};
use crate::cli::login::{self, Login, seconds};
use crate::cli::{Failure, no_free_arguments};
use crate::client::{Address, Trust};
use crate::name::{TypeName, Username};
use crate::password::Password;
use getopts::{Matches, Options};
use std::collections::HashSet;
use std::fs;
use std::time::Duration;

/// What the names of users begin with unless `-u` says otherwise, and the type of the messages.
const BENCH: &str = "bench";
const SIZE: usize = 128;
const WARM: Duration = Duration::from_secs(1);
const DURATION: Duration = Duration::from_secs(10);
const DRAIN: Duration = Duration::from_secs(5);
/// A day: the times in messages have room for three.
const RUN_MAX: Duration = Duration::from_secs(86_400);
/// Data of this size is still a frame that clients send, with the most recipients that have the longest names too.
const SIZE_MAX: usize = 8 << 20;
const IN_FLIGHT_MAX: usize = 1 << 16;
const THREADS_MAX: usize = 256;
const FAN_OUT_MAX: usize = 100_000;
/// Each sender is watched at each of its recipients.
const STREAMS_MAX: usize = 4 << 20;
const RATE_MAX: f64 = 1e8;

/// When messages are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Pace {
    /// Closed loop: each session keeps so many under way.
    InFlight(u64),
    /// Open loop: so many a second in all, whatever the server does.
    Rate(f64),
}

/// What a run is to do.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) address: Address,
    pub(super) trust: Trust,
    pub(super) kind: String,
    /// The user of each session; no two are the same.
    pub(super) names: Vec<String>,
    pub(super) ring: Ring,
    pub(super) pace: Pace,
    pub(super) size: usize,
    pub(super) ids: bool,
    pub(super) warm: Duration,
    pub(super) duration: Duration,
    pub(super) drain: Duration,
    pub(super) threads: usize,
    /// Tells this run's messages from those of others.
    pub(super) run: u32,
}

/// The options that a plan is made of, and `-h`.
pub(super) fn options() -> Options {
    let mut options = login::options();
    for name in ["clients", "in-flight", "rate", "size", "fan-out", "warm", "duration", "drain", "threads"] {
        options.optopt("", name, "", "NUMBER");
    }
    options.optopt("", "users", "", "FILE").optopt("t", "type", "", "TYPE");
    options.optflag("", "no-id", "").optflag("", "json", "").optflag("", "quiet", "");
    options
}

impl Plan {
    /// What `matches` say, and the password of all users.
    ///
    /// # Errors
    /// 64: an option is wrong; 65: a file or a name is; as of [`Login::password`].
    pub(super) fn new(matches: &Matches, environment: impl Fn(&str) -> Option<String>) -> Result<(Plan, Password), Failure> {
        let (plan, login) = Plan::without_password(matches, environment)?;
        Ok((plan, login.password(true)?))
    }

    fn without_password(matches: &Matches, environment: impl Fn(&str) -> Option<String>) -> Result<(Plan, Login), Failure> {
        no_free_arguments("bench", matches)?;
        // Nobody wants to put load on a server in his own name.
        let environment = |name: &str| if name == "USER" { Some(BENCH.to_owned()) } else { environment(name) };
        let login = Login::new(matches, environment)?;
        let kind = matches.opt_str("type").unwrap_or_else(|| BENCH.to_owned());
        TypeName::new(&kind).map_err(|error| Failure::usage(format_args!("-t: {error}")))?;
        let names = names(matches, &login.user)?;
        let clients = names.len();
        let fan_out = number(matches, "fan-out", 1, FAN_OUT_MAX)?.unwrap_or(1);
        if fan_out > clients {
            let words = format_args!("each message goes to {fan_out} of the clients, and there are {clients}: see --clients");
            return Err(Failure::usage(words));
        }
        if fan_out * clients > STREAMS_MAX {
            return Err(Failure::usage(format_args!("--clients times --fan-out is more than {STREAMS_MAX}")));
        }
        let in_flight = number(matches, "in-flight", 1, IN_FLIGHT_MAX)?;
        let pace = match (rate(matches)?, in_flight) {
            (None, in_flight) => Pace::InFlight(in_flight.unwrap_or(1) as u64),
            (Some(rate), None) => Pace::Rate(rate),
            (Some(_), Some(_)) => return Err(Failure::usage("--rate and --in-flight exclude each other")),
        };
        let time = |name, default| match seconds(matches, name)?.unwrap_or(default) {
            time if time <= RUN_MAX => Ok(time),
            _ => Err(Failure::usage(format_args!("--{name} takes at most {} seconds", RUN_MAX.as_secs()))),
        };
        let duration = time("duration", DURATION)?;
        if duration.is_zero() {
            return Err(Failure::usage("--duration takes more than 0 seconds"));
        }
        let run = getrandom::u32().map_err(|error| Failure::unavailable(format_args!("the system gives no random number: {error}")))?;
        let plan = Plan {
            address: login.address.clone(),
            trust: login.trust.clone(),
            kind,
            ring: Ring { clients, fan_out },
            pace,
            size: number(matches, "size", DATA_BYTES_MIN, SIZE_MAX)?.unwrap_or(SIZE),
            ids: !matches.opt_present("no-id"),
            warm: time("warm", WARM)?,
            duration,
            drain: time("drain", DRAIN)?,
            threads: number(matches, "threads", 1, THREADS_MAX)?.unwrap_or(1).min(clients),
            run,
            names,
        };
        Ok((plan, login))
    }

    /// When a message of an open loop should be sent, in nanoseconds: the sessions take turns, at equal distances.
    pub(super) fn intended(&self, rate: f64, index: usize, round: u64) -> u64 {
        let number = round * self.ring.clients as u64 + index as u64;
        (number as f64 * 1e9 / rate) as u64
    }
}

/// Who logs in: the names in the file of `--users`, or as many as are asked for that begin with `prefix`.
fn names(matches: &Matches, prefix: &str) -> Result<Vec<String>, Failure> {
    let clients = number(matches, "clients", 1, SENDERS_MAX)?;
    let names: Vec<String> = match matches.opt_str("users") {
        Some(_) if matches.opt_present("user") => return Err(Failure::usage("--users and -u exclude each other")),
        Some(file) => {
            let text = fs::read_to_string(&file).map_err(|error| Failure::data(format_args!("cannot read {file}: {error}")))?;
            let all = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
            let names: Vec<String> = all.take(clients.unwrap_or(SENDERS_MAX)).map(str::to_owned).collect();
            let wanted = clients.unwrap_or(1);
            if names.len() < wanted {
                return Err(Failure::data(format_args!("{wanted} users are needed, and {file} names {}", names.len())));
            }
            names
        }
        None => (0..clients.unwrap_or(1)).map(|index| format!("{prefix}{index}")).collect(),
    };
    let mut known = HashSet::new();
    for name in &names {
        Username::new(name).map_err(|error| Failure::data(format_args!("{name:?}: {error}")))?;
        // He would get everything twice.
        if !known.insert(name) {
            return Err(Failure::data(format_args!("{name} is named twice")));
        }
    }
    Ok(names)
}

fn number(matches: &Matches, name: &str, min: usize, max: usize) -> Result<Option<usize>, Failure> {
    let Some(text) = matches.opt_str(name) else { return Ok(None) };
    let number = text.parse().ok().filter(|number| (min..=max).contains(number));
    number.map(Some).ok_or_else(|| Failure::usage(format_args!("--{name} takes a number from {min} to {max}, not {text:?}")))
}

fn rate(matches: &Matches) -> Result<Option<f64>, Failure> {
    let Some(text) = matches.opt_str("rate") else { return Ok(None) };
    let rate = text.parse::<f64>().ok().filter(|rate| (0.001..=RATE_MAX).contains(rate));
    rate.map(Some).ok_or_else(|| Failure::usage(format_args!("--rate takes a number of messages a second, not {text:?}")))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn read(args: &[&str]) -> Result<Plan, Failure> {
        let matches = options().parse(args).expect("options that are there");
        Plan::without_password(&matches, |name| (name == "USER").then(|| "alice".to_owned())).map(|(plan, _)| plan)
    }

    /// The plan that these options make.
    pub(in crate::cli::bench) fn plan(args: &[&str]) -> Plan {
        read(args).expect("good options")
    }

    #[test]
    fn options_have_defaults() {
        let plain = plan(&[]);
        assert_eq!((plain.names, plain.pace, plain.size, plain.ids), (vec!["bench0".to_owned()], Pace::InFlight(1), 128, true));
        let all = plan(&["-u", "b-", "--clients", "3", "--rate", "0.5", "--threads", "9", "--fan-out", "3", "--no-id", "-t", "x"]);
        assert_eq!((all.names.join(" ").as_str(), all.pace, all.threads, all.ring.fan_out), ("b-0 b-1 b-2", Pace::Rate(0.5), 3, 3));
        assert_eq!((all.ids, all.kind.as_str()), (false, "x"));
    }

    #[test]
    fn wrong_options_are_refused() {
        for (code, args) in [
            (64, &["--clients", "0"][..]),
            (64, &["--clients", "many"]),
            (64, &["--clients", "2", "--fan-out", "3"]),
            (64, &["--clients", "100000", "--fan-out", "100"]),
            (64, &["--rate", "0"]),
            (64, &["--rate", "NaN"]),
            (64, &["--rate", "10", "--in-flight", "1"]),
            (64, &["--size", "60"]),
            (64, &["--duration", "0"]),
            (64, &["--duration", "86401"]),
            (64, &["--warm", "-1"]),
            (64, &["-t", "builtin"]),
            (64, &["-u", "a", "--users", "b"]),
            (64, &["-s", "ws://a:1"]),
            (64, &["free"]),
            (65, &["-u", "Alice"]),
            (65, &["--users", "/nowhere/at/all"]),
        ] {
            assert_eq!(read(args).map(|_| ()).map_err(|failure| failure.code), Err(code), "{args:?}");
        }
    }

    #[test]
    fn users_can_be_named_in_a_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("users");
        let file = file.to_str().expect("UTF-8");
        fs::write(file, "carol\n\ndave\r\nerin\n").expect("written");
        assert_eq!(plan(&["--users", file]).names, ["carol", "dave", "erin"]);
        assert_eq!(plan(&["--users", file, "--clients", "2"]).names, ["carol", "dave"]);
        assert_eq!(read(&["--users", file, "--clients", "4"]).map(|_| ()).map_err(|failure| failure.code), Err(65));
        fs::write(file, "carol\ncarol\n").expect("written");
        assert_eq!(read(&["--users", file]).map(|_| ()).map_err(|failure| failure.code), Err(65));
        fs::write(file, "").expect("written");
        assert_eq!(read(&["--users", file]).map(|_| ()).map_err(|failure| failure.code), Err(65));
    }
}
