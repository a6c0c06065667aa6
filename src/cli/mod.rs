//! The commands: one file each, and here what they share. Each has a function `run` that takes its arguments and
//! either is done or gives a [`Failure`], which `main` prints as one line and turns into the exit code.
//!
//! Passwords never come from an argument, where every other user of the machine could read them.

pub mod bench;
pub mod check;
pub mod config;
mod control;
pub mod demo;
pub mod frame;
pub mod handler;
pub mod init;
pub mod listen;
mod login;
mod outcome;
pub mod peer;
pub mod queue;
pub mod reload;
pub mod send;
pub mod serve;
pub mod status;
pub mod user;

use crate::config::Config;
use crate::password::{PASSWORD_BYTES_MAX, Password};
use crate::store::StoreError;
use getopts::{Matches, Options};
use std::ffi::OsString;
use std::fmt;
use std::io::{self, BufRead, BufWriter, ErrorKind, IsTerminal, Read, Write};
use std::path::Path;

/// What `bester --help` prints.
pub const HELP: &str = "\
Usage: bester COMMAND [OPTIONS]

A message server. For each type of message a program of yours, its handler, says who is to get
what; the server does the rest.

Set up and run a server:
  init DIR          make a directory with all that a server needs
  serve             run the server until it is told to stop
  check             say what a configuration means, and what is wrong with it
  config default    print a configuration in which every key is explained
  demo              show a whole conversation: a server of its own, two users, then gone again;
                    with --federated, two servers that get to know each other
  user              add, change, list, import and export accounts
  peer              introduce other servers, show and check the links to them, forget them
  queue             show what waits in mailboxes and for other servers, or drop it
  status            show what goes on in the running server
  reload            have the running server read its configuration again

Talk to a server:
  send              send one message and wait for the report on it
  listen            print each delivery as it arrives
  frame             turn lines into frames and back, for netcat

Write and run handlers:
  handler           try a handler by hand, without a server; or replace the one that runs

Measure a server:
  bench             put load on a server, and account for every message
  bench-handler     the handler that goes with it: sends back what it gets

bester COMMAND --help tells more. bester --version prints the version.
";

/// Carries out the command that these arguments name.
///
/// # Errors
/// What the command says; 64 if there is no such command.
pub fn run(args: Vec<OsString>) -> Result<(), Failure> {
    let text = |arg: OsString| arg.into_string().map_err(|_| Failure::usage("an argument is not UTF-8"));
    let args: Vec<String> = args.into_iter().map(text).collect::<Result<_, _>>()?;
    let Some((command, rest)) = args.split_first() else {
        return Err(Failure::usage("say what to do; bester --help lists the commands"));
    };
    match command.as_str() {
        "init" => init::run(rest),
        "serve" => serve::run(rest),
        "check" => check::run(rest),
        "config" => config::run(rest),
        "demo" => demo::run(rest),
        "user" => user::run(rest),
        "peer" => peer::run(rest),
        "queue" => queue::run(rest),
        "status" => status::run(rest),
        "reload" => reload::run(rest),
        "send" => send::run(rest),
        "listen" => listen::run(rest),
        "frame" => frame::run(rest),
        "handler" => handler::run(rest),
        "bench" => bench::run(rest),
        "bench-handler" => bench::handler::run(rest),
        "help" | "-h" | "--help" => print(HELP),
        "version" | "-V" | "--version" => print(concat!("bester ", env!("CARGO_PKG_VERSION"), "\n")),
        _ => Err(Failure::usage(format_args!("there is no command {command:?}; bester --help lists them"))),
    }
}

/// Prints a text as it is.
fn print(text: &str) -> Result<(), Failure> {
    output(|out| Ok(out.write_all(text.as_bytes())?))
}

/// For commands that take options only.
fn no_free_arguments(command: &str, matches: &Matches) -> Result<(), Failure> {
    match matches.free.first() {
        None => Ok(()),
        Some(free) => Err(Failure::usage(format_args!("bester {command} takes no {free:?} (see bester {command} --help)"))),
    }
}

/// The configuration that is read unless `-c` names another.
pub const CONFIG_FILE: &str = "bester.conf";

/// Why a command could not do what it should: an exit code after `sysexits.h`, and a message for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code of the process; never 0.
    pub code: u8,
    /// What is wrong and, where it is known, what to do; without a full stop. One line, but for a list of mistakes.
    pub message: String,
}

impl Failure {
    fn new(code: u8, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string() }
    }

    /// The command was called wrongly (64).
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(64, message)
    }

    /// What the user gave is wrong: a name, a password, a line of a file (65).
    pub fn data(message: impl fmt::Display) -> Self {
        Self::new(65, message)
    }

    /// There is no such account (67).
    pub fn no_user(message: impl fmt::Display) -> Self {
        Self::new(67, message)
    }

    /// Something that is needed does not work (69).
    pub fn unavailable(message: impl fmt::Display) -> Self {
        Self::new(69, message)
    }

    /// Something is done, but not rightly (70).
    pub fn software(message: impl fmt::Display) -> Self {
        Self::new(70, message)
    }

    /// Reading or writing failed (74).
    pub fn input_output(message: impl fmt::Display) -> Self {
        Self::new(74, message)
    }

    /// Trying again may help (75).
    pub fn temporary(message: impl fmt::Display) -> Self {
        Self::new(75, message)
    }

    /// The permissions of this process or of a file are wrong (77).
    pub fn not_permitted(message: impl fmt::Display) -> Self {
        Self::new(77, message)
    }

    /// The configuration is wrong (78).
    pub fn configuration(message: impl fmt::Display) -> Self {
        Self::new(78, message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(error.exit_code(), error.with_causes())
    }
}

/// The options that every command with a configuration has: `-c FILE` and `-h`.
pub fn options() -> Options {
    let mut options = Options::new();
    options.optopt("c", "config", "", "FILE").optflag("h", "help", "");
    options
}

/// Reads the options of `command` (`"user"`).
///
/// # Errors
/// 64, with the command whose help to look at.
pub fn parse(command: &str, options: &Options, args: &[String]) -> Result<Matches, Failure> {
    options.parse(args).map_err(|e| Failure::usage(format_args!("{e} (see bester {command} --help)")))
}

/// Loads the configuration that `-c` names, or [`CONFIG_FILE`].
///
/// # Errors
/// 78, with all its mistakes.
pub fn config_from(matches: &Matches) -> Result<Config, Failure> {
    let named = matches.opt_str("config");
    let file = named.as_deref().unwrap_or(CONFIG_FILE);
    Config::load(Path::new(file)).map_err(Failure::configuration)
}

/// Why a command's output ended early.
#[derive(Debug)]
pub enum OutputEnd {
    /// It could not be written.
    Write(io::Error),
    /// There was no more to write.
    Failure(Failure),
}

impl From<io::Error> for OutputEnd {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

impl From<Failure> for OutputEnd {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<StoreError> for OutputEnd {
    fn from(error: StoreError) -> Self {
        Self::Failure(error.into())
    }
}

/// Lets `body` write to standard output, buffered. A reader that wants no more (`| head`) is a good end.
///
/// # Errors
/// 74 when writing fails; what `body` says otherwise.
pub fn output(body: impl FnOnce(&mut dyn Write) -> Result<(), OutputEnd>) -> Result<(), Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    match body(&mut out).and_then(|()| Ok(out.flush()?)) {
        Ok(()) => Ok(()),
        Err(OutputEnd::Write(e)) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(OutputEnd::Write(e)) => Err(Failure::input_output(format_args!("cannot write to standard output: {e}"))),
        Err(OutputEnd::Failure(failure)) => Err(failure),
    }
}

/// Tells people something on standard error that is no failure.
pub fn warn(message: impl fmt::Display) {
    // eprintln! would panic where standard error is closed.
    let _ = writeln!(io::stderr(), "bester: {message}");
}

/// A new password for `who`: asked for twice where standard input is a terminal, else its first line.
///
/// # Errors
/// 65: there is none, it has more than 1,024 bytes, or the two differ; 69: the terminal cannot be used.
pub fn read_new_password(who: &str) -> Result<Password, Failure> {
    if !io::stdin().is_terminal() {
        return password_line(&mut io::stdin().lock(), "standard input");
    }
    let first = ask(&format!("New password for {who}: "))?;
    let second = ask("The same again: ")?;
    if first.as_bytes() != second.as_bytes() {
        return Err(Failure::data("the two passwords differ"));
    }
    Ok(first)
}

fn ask(prompt: &str) -> Result<Password, Failure> {
    match rpassword::prompt_password(prompt) {
        Ok(text) => Password::new(text).map_err(Failure::data),
        Err(e) if matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::Interrupted) => Err(Failure::data("no password was given")),
        Err(e) => Err(Failure::unavailable(format_args!("cannot ask for a password: {e}"))),
    }
}

/// The first line of `input`, which people know as `source`, without its end (`\n` or `\r\n`). What comes after it is
/// not looked at.
fn password_line(input: &mut dyn BufRead, source: &str) -> Result<Password, Failure> {
    let bytes_max = PASSWORD_BYTES_MAX + b"\r\n".len();
    // At once, so that no copy is left behind when it grows.
    let mut line = Vec::with_capacity(bytes_max);
    let read = input.take(bytes_max as u64).read_until(b'\n', &mut line);
    let read = read.map_err(|e| Failure::input_output(format_args!("cannot read the password from {source}: {e}")))?;
    if read == 0 {
        return Err(Failure::data(format_args!("there is no password in {source}")));
    }
    if line.ends_with(b"\n") {
        line.pop();
        if line.ends_with(b"\r") {
            line.pop();
        }
    }
    let text = String::from_utf8(line).map_err(|e| {
        e.into_bytes().fill(0);
        Failure::data(format_args!("the password in {source} is not UTF-8"))
    })?;
    Password::new(text).map_err(Failure::data)
}

#[cfg(test)]
mod tests;
