//! `bester queue`: what waits in mailboxes, and in the outboxes of other servers, whether the server runs or not.
//!
//! As with accounts, the command reads and writes the database itself, and tells a running server what it must know.
//! Outboxes are in `outboxes.rs`.

mod outboxes;

use super::control::{self, NoAnswer};
use super::outcome::printable;
use super::status::{age, counted};
use super::{Failure, OutputEnd, output, print, user, warn};
use crate::config::Config;
use crate::name::{BadName, ServerName, Username};
use crate::protocol::report::put_string;
use crate::store::{Database, Item, Mailbox, StoreError, Which};
use serde_json::json;
use serde_json::value::RawValue;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// What `bester queue --help` prints.
pub const HELP: &str = "\
Usage: bester queue ACTION [USER | --peer NAME] [SEQ] [-c FILE]

What waits in the mailboxes of users, and for other servers. This works while the server runs,
and without one.

Actions:
  list              the mailboxes in which something waits: the user, how many messages and
                    bytes, how old the first is, and how many messages are set aside; then the same
                    of other servers, with \"peer\" in front of the name
  show USER         the messages in a mailbox: number, type, messageId, bytes, age, in how many
                    sessions it was sent without being acknowledged, and whether it is set aside
  retry USER [SEQ]  have all messages that were set aside sent again, or this one. They get new
                    numbers, at the end of the mailbox; who is logged in gets them at once
  drop USER SEQ     delete this message
  drop USER --aside delete the messages that were set aside
  drop USER --all   delete all messages in the mailbox
  show --peer NAME  the messages for another server: number, type, messageId, bytes, age, how often
                    it was tried, and whose message led to it
  retry --peer NAME have the running server try it now, and not only when it is time
  drop --peer NAME SEQ
                    give up this message; its sender is told
  drop --peer NAME --all
                    give up all messages for that server; their senders are told

Options:
  -c, --config FILE the configuration, which says where the mailboxes are (bester.conf)
      --peer NAME   what waits for this server, and not for a user
      --data        with show: what is in each message, too; otherwise nobody gets to see that
      --json        with list and show: a JSON object a line; times are seconds since 1970
  -h, --help        print this

A message is set aside when it was sent in limits.deliveryAttempts sessions and none of them
acknowledged it. It still takes its place in the mailbox, and goes when it is too old.

Exit codes: 0 done, 64 called wrongly, 65 a bad name, or there is no such message, 67 no such
user or peer, 69 the database cannot be used, or no server runs that could retry, 75 it is busy,
77 not permitted, 78 bad configuration.
";

/// Carries out `bester queue` with the arguments that follow it.
///
/// # Errors
/// As in [`HELP`]; nothing is changed then. And 74 when there is no writing to standard output.
pub fn run(args: &[String]) -> Result<(), Failure> {
    let mut options = super::options();
    options.optflag("", "json", "").optflag("", "data", "").optflag("", "aside", "").optflag("", "all", "");
    options.optopt("", "peer", "", "NAME");
    let matches = super::parse("queue", &options, args)?;
    if matches.opt_present("help") {
        return print(HELP);
    }
    let flags: Vec<&str> = ["json", "data", "aside", "all"].into_iter().filter(|flag| matches.opt_present(flag)).collect();
    let action = Action::parse(&matches.free, &flags, matches.opt_str("peer").as_deref())?;
    let config = super::config_from(&matches)?;
    let mut database = Database::open(&config.database)?;
    let done = match action {
        Action::List { json } => {
            return output(|out| {
                list(&database, json, now(), out)?;
                outboxes::list(&database, json, now(), out)
            });
        }
        Action::ShowPeer { peer, data, json } => return output(|out| outboxes::show(&database, &peer, (data, json), now(), out)),
        Action::RetryPeer(peer) => outboxes::retry(&config, &database, &peer)?,
        Action::DropPeer(peer, which) => outboxes::discard(&config, &mut database, &peer, which)?,
        Action::Show { user, data, json } => return output(|out| show(&database, &user, (data, json), now(), out)),
        Action::Retry(user, which) => {
            let done = retry(&mut database, &user, which)?;
            tell_server(&config, &user);
            done
        }
        Action::Drop(user, which) => discard(&mut database, &user, which)?,
    };
    output(|out| Ok(writeln!(out, "{done}")?))
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
}

/// Has a running server, if there is one, look at a mailbox again. The change is stored already, so a server that does
/// not confirm is worth a warning only.
fn tell_server(config: &Config, user: &Username) {
    match control::ask(config, "mailboxChanged", &json!(user.as_str()), control::AT_ONCE) {
        Ok(_) | Err(NoAnswer::Nobody) => {}
        Err(error) => {
            warn(format_args!("the running server did not confirm ({error}): who is logged in may get them only at the next login"))
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Action {
    List { json: bool },
    Show { user: Username, data: bool, json: bool },
    Retry(Username, Which),
    Drop(Username, Which),
    ShowPeer { peer: ServerName, data: bool, json: bool },
    RetryPeer(ServerName),
    DropPeer(ServerName, Which),
}

impl Action {
    fn parse(words: &[String], flags: &[&str], peer: Option<&str>) -> Result<Self, Failure> {
        let Some((action, rest)) = words.split_first() else {
            return Err(wrong("an action is missing"));
        };
        let known: &[&str] = match action.as_str() {
            "list" => &["json"],
            "show" => &["json", "data"],
            "retry" => &[],
            "drop" => &["aside", "all"],
            other => return Err(wrong(&format!("there is no action {other:?}"))),
        };
        if let Some(flag) = flags.iter().find(|flag| !known.contains(flag)) {
            return Err(wrong(&format!("{action} knows no --{flag}")));
        }
        let has = |flag| flags.contains(&flag);
        if let Some(peer) = peer {
            return Self::parse_for_peer(action, rest, &has, peer);
        }
        let (user, seq) = match rest {
            [] if action == "list" => return Ok(Self::List { json: has("json") }),
            _ if action == "list" => return Err(wrong("list takes no user")),
            [] => return Err(wrong(&format!("{action} takes a user"))),
            [user] => (user, None),
            [user, seq] if action != "show" => (user, Some(seq)),
            _ => return Err(wrong(&format!("{} are too many words for {action}", rest.len()))),
        };
        let user = Username::new(user).map_err(|e: BadName| Failure::data(e))?;
        let number = seq.map(number).transpose()?;
        match action.as_str() {
            "show" => Ok(Self::Show { user, data: has("data"), json: has("json") }),
            "retry" => Ok(Self::Retry(user, number.unwrap_or(Which::Aside))),
            _ => match (number, has("aside"), has("all")) {
                (Some(one), false, false) => Ok(Self::Drop(user, one)),
                (None, true, false) => Ok(Self::Drop(user, Which::Aside)),
                (None, false, true) => Ok(Self::Drop(user, Which::All)),
                _ => Err(wrong("drop takes one of these: the number of a message, --aside, --all")),
            },
        }
    }

    /// With `--peer`.
    fn parse_for_peer(action: &str, rest: &[String], has: &dyn Fn(&'static str) -> bool, peer: &str) -> Result<Self, Failure> {
        let peer = ServerName::new(peer).map_err(|e: BadName| Failure::data(e))?;
        match (action, rest) {
            ("list", _) => Err(wrong("list knows no --peer: it has all of them")),
            ("show", []) => Ok(Self::ShowPeer { peer, data: has("data"), json: has("json") }),
            ("retry", []) => Ok(Self::RetryPeer(peer)),
            ("drop", [seq]) if !has("all") && !has("aside") => Ok(Self::DropPeer(peer, number(seq)?)),
            ("drop", []) if has("all") && !has("aside") => Ok(Self::DropPeer(peer, Which::All)),
            ("drop", _) => Err(wrong("drop --peer takes one of these: the number of a message, --all")),
            _ => Err(wrong(&format!("{action} takes nothing beside --peer NAME"))),
        }
    }
}

fn wrong(what: &str) -> Failure {
    Failure::usage(format_args!("{what} (see bester queue --help)"))
}

fn number(text: &String) -> Result<Which, Failure> {
    match text.parse() {
        Ok(seq) if seq > 0 => Ok(Which::One(seq)),
        _ => Err(wrong(&format!("{text:?} is no number of a message"))),
    }
}

fn list(database: &Database, json: bool, now: i64, out: &mut dyn Write) -> Result<(), OutputEnd> {
    database.mailboxes(|Mailbox { user, letters, bytes, aside, oldest }| {
        if json {
            // Nothing in a name needs an escape.
            writeln!(out, r#"{{"user":"{user}","messages":{letters},"bytes":{bytes},"oldest":{oldest},"setAside":{aside}}}"#)?;
        } else {
            let (letters, bytes) = (counted(letters, "message", "messages"), counted(bytes, "byte", "bytes"));
            let aside = if aside > 0 { format!("\t{aside} set aside") } else { String::new() };
            writeln!(out, "{user}\t{letters}\t{bytes}\t{}{aside}", since(oldest, now))?;
        }
        Ok(())
    })
}

/// `with` is whether to show the data, and whether as JSON.
fn show(database: &Database, user: &Username, with: (bool, bool), now: i64, out: &mut dyn Write) -> Result<(), OutputEnd> {
    let (data, json) = with;
    there_is(database, user)?;
    database.letters(user, data, |item| {
        if json {
            return Ok(out.write_all(&in_json(&item))?);
        }
        let Item { seq, kind, message_id, bytes, kept, attempts, aside, data } = item;
        let (bytes, tries) = (counted(bytes, "byte", "bytes"), counted(attempts, "time", "times"));
        let aside = if aside { "\tset aside" } else { "" };
        let (kind, id) = (printable(&kind), printable(&message_id));
        writeln!(out, "{seq}\t{kind}\t{id}\t{bytes}\t{}\tsent {tries}{aside}", since(kept, now))?;
        if let Some(data) = data {
            writeln!(out, "\t{}", printable(&String::from_utf8_lossy(&one_line(data))))?;
        }
        Ok(())
    })
}

fn in_json(item: &Item) -> Vec<u8> {
    let mut line = format!(r#"{{"seq":{},"type":"#, item.seq).into_bytes();
    put_string(&mut line, &item.kind);
    line.extend_from_slice(br#","messageId":"#);
    put_string(&mut line, &item.message_id);
    let (bytes, kept, attempts, aside) = (item.bytes, item.kept, item.attempts, item.aside);
    line.extend_from_slice(format!(r#","bytes":{bytes},"kept":{kept},"attempts":{attempts},"setAside":{aside}"#).as_bytes());
    end_json(&mut line, item.data.as_deref());
    line
}

/// Appends the data, if there is any, and ends the line.
fn end_json(line: &mut Vec<u8>, data: Option<&[u8]>) {
    if let Some(data) = data {
        line.extend_from_slice(br#","data":"#);
        match serde_json::from_slice::<&RawValue>(data) {
            Ok(_) => line.extend(one_line(data.to_vec())),
            // Something else has written it.
            Err(_) => put_string(line, &String::from_utf8_lossy(data)),
        }
    }
    line.extend_from_slice(b"}\n");
}

/// JSON without line breaks: in JSON they stand only between tokens.
fn one_line(mut data: Vec<u8>) -> Vec<u8> {
    data.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
    data
}

/// How old something is, in the unit that people would say.
fn since(kept: i64, now: i64) -> String {
    age(u64::try_from(now.saturating_sub(kept)).unwrap_or(0))
}

/// Says what was done.
fn retry(database: &mut Database, user: &Username, which: Which) -> Result<String, Failure> {
    there_is(database, user)?;
    match (database.retry(user, which)?, which) {
        (0, Which::One(seq)) => Err(Failure::data(format_args!("no message {seq} for {user} is set aside"))),
        (count, _) => Ok(format!("{} for {user} to be sent again", counted(count, "message", "messages"))),
    }
}

/// Says what was done.
fn discard(database: &mut Database, user: &Username, which: Which) -> Result<String, Failure> {
    there_is(database, user)?;
    match (database.discard(user, which)?, which) {
        (0, Which::One(seq)) => Err(Failure::data(format_args!("there is no message {seq} for {user}"))),
        (count, _) => Ok(format!("{} for {user} dropped", counted(count, "message", "messages"))),
    }
}

/// A mailbox stays when its user goes, for the sake of its numbers.
fn there_is(database: &Database, user: &Username) -> Result<(), StoreError> {
    if user::exists(database, user)? { Ok(()) } else { Err(StoreError::Unknown(user.clone())) }
}

#[cfg(test)]
mod tests;
