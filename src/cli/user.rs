//! `bester user`: accounts, whether the server runs or not.
//!
//! The command writes the database itself and then tells a running server to look at it. The lines of an import and an
//! export are in `lines.rs`.

mod lines;

use super::control::{self, NoAnswer};
use super::{Failure, OutputEnd, output, print, read_new_password, warn};
use crate::admin::control::NAMES_MAX;
use crate::config::Config;
use crate::name::{BadName, Username};
use crate::password::{self, Password};
use crate::store::{Database, Imports, Standing, StoreError};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};

/// What `bester user --help` prints.
pub const HELP: &str = "\
Usage: bester user ACTION [NAME] [-c FILE]

Who may log in. This works while the server runs, and the server follows at once: the
sessions of somebody who was removed or disabled, or has a new password, are closed.

Actions:
  add NAME          make an account; asks for a password
  password NAME     give an account a new password; asks for it
  remove NAME       remove an account, and what waits in its mailbox
  disable NAME      let NAME log in no more, but keep the account
  enable NAME       let NAME log in again
  list              print the names, a line each; \"disabled\" stands behind a tab
  import FILE       add the accounts in FILE (- is standard input) and replace those that
                    there are already; does all of it or, if a line is wrong, nothing
  export            print all accounts as lines for import; they hold password hashes

Options:
  -c, --config FILE the configuration, which says where the accounts are (bester.conf)
      --json        with list: a JSON object a line
  -h, --help        print this

A password is asked for twice. Where standard input is no terminal its first line is the
password: bester user add alice < FILE. It is never an argument, which others could see.

A line of an import is {\"name\":\"alice\",\"password\":\"$argon2id$v=19$...\"}, the password being
an Argon2 hash in PHC form. With \"disabled\":true the account cannot log in.

A NAME has 1 to 64 characters of a-z, 0-9, '.', '_' and '-', and begins with a letter or digit.

Exit codes: 0 done, 64 called wrongly, 65 a bad or taken name, password or line, 67 no such
user, 69 the database cannot be used, 75 it is busy, 77 not permitted, 78 bad configuration.
";

/// Carries out `bester user` with the arguments that follow it.
///
/// # Errors
/// As in [`HELP`]; nothing is changed then. And 74 when there is no writing to standard output.
pub fn run(args: &[String]) -> Result<(), Failure> {
    let mut options = super::options();
    options.optflag("", "json", "");
    let matches = super::parse("user", &options, args)?;
    if matches.opt_present("help") {
        return print(HELP);
    }
    let action = Action::parse(&matches.free, matches.opt_present("json"))?;
    let config = super::config_from(&matches)?;
    let mut database = Database::open(&config.database)?;
    let ask = |name: &Username| {
        let password = read_new_password(name.as_str())?;
        let checked = password.check_new(config.accounts.password_minimum);
        checked.map_err(Failure::data)?;
        Ok(password)
    };
    let changed = match action {
        Action::Add(name) => add(&mut database, name, ask)?,
        Action::Password(name) => set_password(&mut database, name, ask)?,
        Action::Remove(name) => {
            database.remove(&name)?;
            vec![name]
        }
        Action::SetDisabled(name, disabled) => {
            database.set_disabled(&name, disabled)?;
            vec![name]
        }
        Action::Import(file) => {
            let (imports, names) = import_file(&mut database, &file)?;
            let Imports { added, replaced } = imports;
            // First, as the output may fail.
            tell_server(&config, &names);
            return output(|out| Ok(writeln!(out, "{added} added, {replaced} replaced")?));
        }
        Action::List { json } => return output(|out| list(&database, json, out)),
        Action::Export => {
            if io::stdout().is_terminal() {
                warn("these lines hold password hashes: show them to nobody");
            }
            return output(|out| export(&database, out));
        }
    };
    tell_server(&config, &changed);
    Ok(())
}

/// Tells a running server, if there is one, to look at the accounts of `names` again. The change is stored already, so
/// a server that does not confirm is worth a warning only.
fn tell_server(config: &Config, names: &[Username]) {
    if names.is_empty() {
        return;
    }
    // If they are too many for one question: at all of them.
    let names: Vec<&str> = names.iter().map(Username::as_str).collect();
    let data = if names.len() > NAMES_MAX { Value::Null } else { json!(names) };
    match control::ask(config, "accountsChanged", &data, control::AT_ONCE) {
        Ok(_) | Err(NoAnswer::Nobody) => {}
        Err(error) => {
            warn(format_args!("the change is stored, but the running server did not confirm it ({error}): start the server again"))
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Action {
    Add(Username),
    Password(Username),
    Remove(Username),
    SetDisabled(Username, bool),
    List {
        json: bool,
    },
    /// From this file, or `-`.
    Import(String),
    Export,
}

impl Action {
    fn parse(words: &[String], json: bool) -> Result<Self, Failure> {
        let wrong = |what: &str| Failure::usage(format_args!("{what} (see bester user --help)"));
        let Some((action, rest)) = words.split_first() else {
            return Err(wrong("an action is missing"));
        };
        let none = || match rest {
            [] => Ok(()),
            _ => Err(wrong(&format!("{action} takes no name"))),
        };
        let one = |what: &str| match rest {
            [one] => Ok(one.as_str()),
            _ => Err(wrong(&format!("{action} takes one {what}"))),
        };
        let name = || {
            let name = Username::new(one("name")?);
            name.map_err(|e: BadName| Failure::data(e))
        };
        let parsed = match action.as_str() {
            "add" => Self::Add(name()?),
            "password" => Self::Password(name()?),
            "remove" => Self::Remove(name()?),
            "disable" => Self::SetDisabled(name()?, true),
            "enable" => Self::SetDisabled(name()?, false),
            "list" => none().map(|()| Self::List { json })?,
            "import" => Self::Import(one("file")?.to_owned()),
            "export" => none().map(|()| Self::Export)?,
            other => return Err(wrong(&format!("there is no action {other:?}"))),
        };
        if json && !matches!(parsed, Self::List { .. }) {
            return Err(wrong(&format!("{action} knows no --json")));
        }
        Ok(parsed)
    }
}

fn add(
    database: &mut Database,
    name: Username,
    ask: impl FnOnce(&Username) -> Result<Password, Failure>,
) -> Result<Vec<Username>, Failure> {
    // Before anybody thinks of a password.
    if exists(database, &name)? {
        return Err(StoreError::Taken(name).into());
    }
    let hash = hash(&ask(&name)?)?;
    database.add(&name, &hash)?;
    Ok(vec![name])
}

fn set_password(
    database: &mut Database,
    name: Username,
    ask: impl FnOnce(&Username) -> Result<Password, Failure>,
) -> Result<Vec<Username>, Failure> {
    if !exists(database, &name)? {
        return Err(StoreError::Unknown(name).into());
    }
    let hash = hash(&ask(&name)?)?;
    database.set_password(&name, &hash, None)?;
    Ok(vec![name])
}

/// Whether there is such an account, sound or not.
pub(super) fn exists(database: &Database, name: &Username) -> Result<bool, StoreError> {
    // Not `account`, which fails over a record that is bad: a new password repairs it.
    let standings = database.standings(Some(std::slice::from_ref(name)))?;
    Ok(!matches!(standings[..], [(_, Standing::Removed)]))
}

fn hash(password: &Password) -> Result<password::Hash, Failure> {
    password::hash(password).map_err(Failure::unavailable)
}

fn list(database: &Database, json: bool, out: &mut dyn Write) -> Result<(), OutputEnd> {
    database.list(|listed| {
        let (name, disabled, created) = (&listed.name, listed.disabled, listed.created);
        if json {
            // Nothing in a name needs an escape.
            writeln!(out, r#"{{"name":"{name}","disabled":{disabled},"created":{created}}}"#)?;
        } else {
            let mark = if disabled { "\tdisabled" } else { "" };
            writeln!(out, "{name}{mark}")?;
        }
        Ok(())
    })
}

fn export(database: &Database, out: &mut dyn Write) -> Result<(), OutputEnd> {
    database.export(|account| Ok(lines::write(&account, out)?))
}

fn import_file(database: &mut Database, file: &str) -> Result<(Imports, Vec<Username>), Failure> {
    if file == "-" {
        return import(database, "standard input", &mut io::stdin().lock(), &mut |c| warn(c));
    }
    let opened = File::open(file);
    let opened = opened.map_err(|e| Failure::data(format_args!("cannot open {file}: {e}")))?;
    import(database, file, &mut BufReader::new(opened), &mut |c| warn(c))
}

/// Imports the lines of `input`, which people know as `source`; gives each bad line to `complain`.
fn import(
    database: &mut Database,
    source: &str,
    input: &mut dyn BufRead,
    complain: &mut dyn FnMut(String),
) -> Result<(Imports, Vec<Username>), Failure> {
    // All of them before the database is touched: whoever writes to standard input may be slow.
    let mut bad = 0_usize;
    let read = lines::read(input, &mut |number, what| {
        bad += 1;
        complain(format!("{source}, line {number}: {what}"));
    });
    let accounts = read.map_err(|e| Failure::input_output(format_args!("cannot read {source}: {e}")))?;
    if bad > 0 {
        let lines = if bad == 1 { "line is" } else { "lines are" };
        return Err(Failure::data(format_args!("{bad} {lines} wrong in {source}: nothing was imported")));
    }
    let names = accounts.iter().map(|account| account.name.clone()).collect();
    Ok((database.import(accounts)?, names))
}

#[cfg(test)]
mod tests;
