//! `bester peer`: the other servers that this one knows, whether it runs or not.
//!
//! As with accounts, the command reads and writes the database itself, and tells a running server to look at it. `join.rs` has
//! both ends of an invitation, `add.rs` what is done with a card, `list.rs` how peers are shown.

mod add;
mod join;
pub(super) mod list;

use super::control::{self, NoAnswer};
use super::{Failure, output, print, warn};
use crate::config::{Config, FederationMode};
use crate::federation::Ours;
use crate::federation::check::{self, Step};
use crate::federation::invitation::{Card, Invitation};
use crate::name::ServerName;
use crate::store::{Database, GivenUp, StoreError};
use crate::tls::{Identity, IdentityFlaw, Paths};
use crate::transport::HostPort;
use serde_json::{Value, json};
use std::io::{self, Read, Write};
use std::sync::Arc;

/// What `bester peer --help` prints.
pub const HELP: &str = "\
Usage: bester peer ACTION [NAME] [-c FILE]

The other servers that this one knows, exchanges messages with, and can tell from all others by
their keys. This works while the server runs, and the server follows at once.

Two servers get to know each other with one command each: bester peer invite on one prints an
invitation, bester peer join on the other takes it.

Actions:
  invite            print an invitation for one other server, good for limits.inviteHours. Whoever
                    has it can join: send it in a way that nobody else can read
  join INVITATION   take up the invitation of another server: both know each other from then on. If
                    it fails half-way, do it again. With - it is the first line of standard input,
                    where no other user of this machine can see it
  show              print the card of this server: name, address and pin. There is no secret in it
  add CARD          make a server known by its card, or a known one by another address or key of
                    its own: it may have two keys while it changes from one to the other
  add NAME          the same for a server of the first implementation, which has no TLS: with
                    --verify none and --address. Whoever connects from there is believed
  list              the servers that are known: name, addresses, how the link to each is, how many
                    messages wait for it, how old the first is, and what went wrong the last time
  remove NAME       forget a server. Messages that wait for it are given up, and their senders are
                    told; its connections are closed within a second
  check NAME        try each step on the way to it, and back, and say what to do about what fails

Options:
  -c, --config FILE the configuration (bester.conf)
      --address HOST:PORT
                    with add NAME: where it listens; may stand several times
      --verify none with add NAME: nothing proves that it is that one, and nothing is encrypted
      --replace     with add: forget all other addresses and keys of it
      --json        with list and check: JSON, an object a line; times are seconds since 1970
  -h, --help        print this

A NAME is what the other server calls itself (server.name). When it gets a new key, run bester peer
show there and bester peer add here with what that prints; until then messages wait. Later bester
peer add --replace with the same card forgets the old key.

Exit codes: 0 done, 64 called wrongly, 65 a bad card or invitation, or a taken name, 67 no such
peer, 69 the other server or the database cannot be reached, 75 trying again may help, 77 not
permitted, 78 bad configuration.
";

/// Carries out `bester peer` with the arguments that follow it.
///
/// # Errors
/// As in [`HELP`]. And 74 when there is no writing to standard output.
pub fn run(args: &[String]) -> Result<(), Failure> {
    let mut options = super::options();
    options.optmulti("", "address", "", "HOST:PORT").optopt("", "verify", "", "none");
    options.optflag("", "replace", "").optflag("", "json", "");
    let matches = super::parse("peer", &options, args)?;
    if matches.opt_present("help") {
        return print(HELP);
    }
    let given = Given {
        addresses: matches.opt_strs("address"),
        verify: matches.opt_str("verify"),
        replace: matches.opt_present("replace"),
        json: matches.opt_present("json"),
    };
    let action = Action::parse(&matches.free, &given)?;
    let config = super::config_from(&matches)?;
    let done = match action {
        Action::Show => card(&config)?.to_string(),
        Action::Invite => join::invite(&config)?,
        Action::Join(invitation) => join::join(&config, &invitation.read()?)?,
        Action::AddCard(card, replace) => add::card(&config, &card, replace)?,
        Action::AddInsecure { name, addresses, replace } => add::insecure(&config, &name, &addresses, replace)?,
        Action::List { json } => return list::run(&config, json),
        Action::Remove(name) => remove(&config, &name)?,
        Action::Check { name, json } => return check(&config, &name, json),
    };
    output(|out| Ok(writeln!(out, "{done}")?))
}

/// The options that not every action knows.
#[derive(Debug, Default)]
struct Given {
    addresses: Vec<String>,
    verify: Option<String>,
    replace: bool,
    json: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Action {
    Invite,
    Join(Source),
    Show,
    AddCard(Card, bool),
    AddInsecure { name: ServerName, addresses: Vec<HostPort>, replace: bool },
    List { json: bool },
    Remove(ServerName),
    Check { name: ServerName, json: bool },
}

/// Where an invitation comes from.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    Argument(Box<Invitation>),
    StandardInput,
}

/// A line is longer than any invitation.
const LINE_BYTES_MAX: u64 = 4096;

impl Source {
    fn read(self) -> Result<Invitation, Failure> {
        if let Source::Argument(invitation) = self {
            return Ok(*invitation);
        }
        let mut text = String::new();
        let read = io::stdin().lock().take(LINE_BYTES_MAX).read_to_string(&mut text);
        read.map_err(|e| Failure::input_output(format_args!("cannot read the invitation from standard input: {e}")))?;
        text.lines().next().unwrap_or_default().trim().parse().map_err(Failure::data)
    }
}

impl Action {
    fn parse(words: &[String], given: &Given) -> Result<Self, Failure> {
        let wrong = |what: &str| Failure::usage(format_args!("{what} (see bester peer --help)"));
        let Some((action, rest)) = words.split_first() else {
            return Err(wrong("an action is missing"));
        };
        let one = |what: &str| match rest {
            [one] => Ok(one.as_str()),
            _ => Err(wrong(&format!("{action} takes one {what}"))),
        };
        let none = || if rest.is_empty() { Ok(()) } else { Err(wrong(&format!("{action} takes nothing else"))) };
        let name = |text: &str| ServerName::new(text).map_err(Failure::data);
        let add = action == "add";
        for (flag, is_given, knows) in [
            ("--address", !given.addresses.is_empty(), add),
            ("--verify", given.verify.is_some(), add),
            ("--replace", given.replace, add),
            ("--json", given.json, action == "list" || action == "check"),
        ] {
            if is_given && !knows {
                return Err(wrong(&format!("{action} knows no {flag}")));
            }
        }
        match action.as_str() {
            "invite" => none().map(|()| Self::Invite),
            "join" => match one("invitation")? {
                "-" => Ok(Self::Join(Source::StandardInput)),
                text => Ok(Self::Join(Source::Argument(Box::new(text.parse().map_err(Failure::data)?)))),
            },
            "show" => none().map(|()| Self::Show),
            "add" => match (one("card or name")?, given.verify.as_deref(), &given.addresses[..]) {
                (text, None, []) => Ok(Self::AddCard(text.parse().map_err(Failure::data)?, given.replace)),
                (_, None, _) => Err(wrong("--address goes with --verify none: a card says where its server is")),
                (_, Some("none"), []) => Err(wrong("--verify none goes with --address HOST:PORT")),
                (text, Some("none"), texts) => {
                    let addresses = texts.iter().map(|text| text.parse().map_err(Failure::data)).collect::<Result<_, _>>()?;
                    Ok(Self::AddInsecure { name: name(text)?, addresses, replace: given.replace })
                }
                (_, Some(other), _) => Err(wrong(&format!("--verify {other:?} is not none"))),
            },
            "list" => none().map(|()| Self::List { json: given.json }),
            "remove" => Ok(Self::Remove(name(one("name")?)?)),
            "check" => Ok(Self::Check { name: name(one("name")?)?, json: given.json }),
            other => Err(wrong(&format!("there is no action {other:?}"))),
        }
    }
}

/// What has to be so before servers can know each other.
fn address_of(config: &Config) -> Result<HostPort, Failure> {
    let file = config.file.display();
    if config.federation.mode == FederationMode::Off {
        return Err(Failure::configuration(format_args!("federation.mode is off in {file}: other servers are neither heard nor sent to")));
    }
    if config.network.tls.is_none() {
        let words = "has no network.tls, where other servers connect: add the block (bester config default shows it)";
        return Err(Failure::configuration(format_args!("{file} {words}")));
    }
    let address = config.address_for_peers();
    address.ok_or_else(|| {
        Failure::configuration(format_args!("where other servers reach this one is not known: set federation.address in {file}"))
    })
}

/// The key of this server, which is made if there is none.
fn identity(config: &Config) -> Result<Arc<Identity>, Failure> {
    let files = config.network.tls.as_ref().and_then(|tls| tls.files.as_ref());
    let identity = match files {
        Some(files) => Identity::load(&Paths { certificate: files.certificate.clone(), key: files.key.clone() }),
        None => Identity::own(&config.server.state_directory, &config.server.name),
    };
    identity.map(Arc::new).map_err(|error| {
        let message = match &error.flaw {
            IdentityFlaw::Io(e) if e.kind() == io::ErrorKind::PermissionDenied => format!("{error}: run this as the server's user"),
            _ => error.to_string(),
        };
        Failure { code: error.exit_code(), message }
    })
}

/// Who we are to other servers.
fn ours(config: &Config) -> Result<Ours, Failure> {
    let identity = identity(config)?;
    let identity = Arc::new(move || Some(Arc::clone(&identity)));
    Ok(Ours { name: config.server.name.clone(), identity, limits: config.limits.clone(), listening: Arc::new([]) })
}

fn card(config: &Config) -> Result<Card, Failure> {
    let address = address_of(config)?;
    Ok(Card { server: config.server.name.clone(), address, pin: identity(config)?.pin() })
}

/// Tells a running server, if there is one, to look at the peers again. The change is stored already, so a server that does not
/// confirm is worth a warning only.
fn tell_server(config: &Config) {
    match control::ask(config, "peersChanged", &Value::Null, control::AT_ONCE) {
        Ok(_) | Err(NoAnswer::Nobody) => {}
        Err(error) => {
            warn(format_args!("the change is stored, but the running server did not confirm it ({error}): start the server again"))
        }
    }
}

/// Has a running server look at the mailboxes where there is a report now, as messages were given up.
pub(super) fn tell_authors(config: &Config, given_up: &GivenUp) {
    for user in &given_up.told {
        match control::ask(config, "mailboxChanged", &json!(user.as_str()), control::AT_ONCE) {
            Ok(_) => {}
            Err(NoAnswer::Nobody) => return,
            Err(error) => {
                return warn(format_args!("the running server did not confirm ({error}): senders may be told only at their next login"));
            }
        }
    }
}

fn remove(config: &Config, name: &ServerName) -> Result<String, Failure> {
    let mut database = Database::open(&config.database)?;
    let given_up = database.remove_peer(name)?;
    tell_server(config);
    tell_authors(config, &given_up);
    let GivenUp { messages, told } = given_up;
    let messages = super::status::counted(messages, "message", "messages");
    let told = if told.is_empty() { String::new() } else { "; their senders are told".to_owned() };
    Ok(format!("{name} is forgotten, and {messages} for it given up{told}"))
}

fn check(config: &Config, name: &ServerName, json: bool) -> Result<(), Failure> {
    let database = Database::open(&config.database)?;
    let peer = database.peers()?.into_iter().find(|peer| peer.name == *name);
    let peer = peer.ok_or_else(|| StoreError::NoPeer(name.clone()))?;
    let steps = check::check(&peer, &ours(config)?, true);
    output(|out| show(&steps, json, out))?;
    match steps.iter().rev().find(|step| !step.ok) {
        None => Ok(()),
        Some(step) => Err(Failure::unavailable(format_args!("{name} is not reached as it should be: {} failed", step.step))),
    }
}

fn show(steps: &[Step], json: bool, out: &mut dyn Write) -> Result<(), super::OutputEnd> {
    if json {
        return Ok(writeln!(out, "{}", check::in_json(steps))?);
    }
    for Step { step, ok, words } in steps {
        writeln!(out, "{step:<18}{:<8}{words}", if *ok { "OK" } else { "FAILED" })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
