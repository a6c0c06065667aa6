//! Commands to the server itself: messages of the type `builtin`.

use super::client::{self, Options};
use super::fields::{Reader, unknown_command};
use super::json::{Broken, Kind, Value};
use super::reason::Reason;
use super::text::Text;
use crate::frame::Slice;

const DATA: &str = "payload.data";
const COMMAND: &str = "payload.data.command";
const ARGS: &str = "payload.data.command.args";

const COMMANDS: &[&str] = &["authenticate", "login", "logout", "changePassword", "register", "whoami", "handlers", "ping", "ack", "close"];

/// Why there is no command, and words for people.
type Fault = (Reason, String);

/// A command, with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Builtin {
    /// Logs in, or changes the user of a live connection. Also spelled `login`.
    Authenticate {
        /// The user's name, as it came.
        username: Text,
        /// The user's password.
        password: Text,
        /// What the session opts in to.
        options: Options,
    },
    /// Ends the session, not the connection.
    Logout,
    /// Changes the password of the connection's user.
    ChangePassword {
        /// `oldPassword`
        old: Text,
        /// `newPassword`
        new: Text,
    },
    /// Makes an account.
    Register {
        /// The name it should have.
        username: Text,
        /// The password it should have.
        password: Text,
        /// What shows that this is allowed.
        token: Option<Text>,
    },
    /// Asks who the server thinks is speaking.
    Whoami,
    /// Asks for the types and whether they are up.
    Handlers,
    /// Asks for a sign of life.
    Ping,
    /// Says that everything up to this number is taken care of.
    Ack {
        /// `header.seq` of a delivery.
        seq: u64,
    },
    /// Asks the server to close the connection.
    Close,
}

impl Builtin {
    /// The command's word on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Builtin::Authenticate { .. } => "authenticate",
            Builtin::Logout => "logout",
            Builtin::ChangePassword { .. } => "changePassword",
            Builtin::Register { .. } => "register",
            Builtin::Whoami => "whoami",
            Builtin::Handlers => "handlers",
            Builtin::Ping => "ping",
            Builtin::Ack { .. } => "ack",
            Builtin::Close => "close",
        }
    }

    /// Whether it may be sent without being logged in.
    pub fn before_login(&self) -> bool {
        match self {
            Builtin::Authenticate { .. } | Builtin::Register { .. } | Builtin::Ping | Builtin::Close => true,
            Builtin::Logout | Builtin::ChangePassword { .. } | Builtin::Whoami | Builtin::Handlers | Builtin::Ack { .. } => false,
        }
    }
}

/// Reads the `payload.data` of such a message.
pub fn parse(data: &Slice) -> Result<Builtin, (Reason, String)> {
    let malformed = |message: String| (Reason::Malformed, message);
    let mut reader = Reader::of_data(data, DATA);
    let mut command = Command::default();
    let read = command.read(&mut reader);
    if let Some(fault) = reader.verdict(read) {
        return Err(fault);
    }
    let Some(kind) = command.kind else {
        return Err(malformed(missing(command.missing())));
    };
    let args = Args { reader: &reader, value: command.args };
    match kind.as_str() {
        "authenticate" | "login" => {
            let ([username, password, _], options) = args.texts_and_options(&["username", "password", "options"])?;
            let (username, password) = (required(username, "username")?, required(password, "password")?);
            Ok(Builtin::Authenticate { username, password, options })
        }
        "changePassword" => {
            let [old, new] = args.texts(&["oldPassword", "newPassword"])?;
            let (old, new) = (required(old, "oldPassword")?, required(new, "newPassword")?);
            Ok(Builtin::ChangePassword { old, new })
        }
        "register" => {
            let [username, password, token] = args.texts(&["username", "password", "token"])?;
            let (username, password) = (required(username, "username")?, required(password, "password")?);
            Ok(Builtin::Register { username, password, token })
        }
        "logout" => args.none(Builtin::Logout),
        "whoami" => args.none(Builtin::Whoami),
        "handlers" => args.none(Builtin::Handlers),
        "ping" => args.none(Builtin::Ping),
        "close" => args.none(Builtin::Close),
        "ack" => args.seq().map(|seq| Builtin::Ack { seq }),
        other => Err((Reason::UnknownCommand, unknown_command(other, COMMANDS))),
    }
}

const SERVER_COMMANDS: &[&str] = &["ping", "join", "dialBack"];

/// A command of another server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerCommand {
    /// Asks for a sign of life, and our name.
    Ping,
    /// Was invited, and says where it listens.
    Join {
        /// `addresses`, as they came.
        addresses: Vec<Text>,
    },
    /// Asks whether it can be reached from here.
    DialBack,
}

/// Reads the `payload.data` of a command of another server; it may name `addresses_max` addresses.
pub fn parse_of_server(data: &Slice, addresses_max: usize) -> Result<ServerCommand, (Reason, String)> {
    let mut reader = Reader::of_data(data, DATA);
    let mut command = Command::default();
    let read = command.read(&mut reader);
    if let Some(fault) = reader.verdict(read) {
        return Err(fault);
    }
    let kind = command.kind.take().ok_or_else(|| (Reason::Malformed, missing(command.missing())))?;
    let args = Args { reader: &reader, value: command.args };
    match kind.as_str() {
        "ping" => Ok(ServerCommand::Ping),
        "dialBack" => Ok(ServerCommand::DialBack),
        "join" => args.addresses(addresses_max).map(|addresses| ServerCommand::Join { addresses }),
        other => Err((Reason::UnknownCommand, unknown_command(other, SERVER_COMMANDS))),
    }
}

#[derive(Default)]
struct Command {
    /// Whether `command` itself was there.
    here: bool,
    kind: Option<Text>,
    args: Option<Value>,
}

impl Command {
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), Broken> {
        if let Some(mut data) = reader.object(DATA, &["command"])? {
            while reader.member(&mut data)?.is_some() {
                self.here = true;
                let Some(mut command) = reader.object(COMMAND, &["type", "args"])? else {
                    continue;
                };
                while let Some(key) = reader.member(&mut command)? {
                    match key {
                        "type" => self.kind = reader.text("payload.data.command.type")?,
                        _ => self.args = Some(reader.value()?),
                    }
                }
            }
        }
        reader.end()
    }

    fn missing(&self) -> &'static str {
        if self.here { "payload.data.command.type" } else { COMMAND }
    }
}

fn missing(path: &str) -> String {
    format!("{path} is missing")
}

fn required<T>(value: Option<T>, key: &str) -> Result<T, Fault> {
    value.ok_or_else(|| (Reason::Malformed, missing(&format!("{ARGS}.{key}"))))
}

/// The arguments, which can be read once the command is known.
struct Args<'r, 'a> {
    reader: &'r Reader<'a>,
    value: Option<Value>,
}

impl Args<'_, '_> {
    /// The strings by these names.
    fn texts<const N: usize>(&self, names: &'static [&'static str; N]) -> Result<[Option<Text>; N], Fault> {
        self.texts_and_options(names).map(|(texts, _)| texts)
    }

    /// The strings by these names, and `options` if that is one of them, which gives no string.
    fn texts_and_options<const N: usize>(&self, names: &'static [&'static str; N]) -> Result<([Option<Text>; N], Options), Fault> {
        let mut texts = [const { None }; N];
        let options = self.read(|reader| read_texts(reader, names, &mut texts))?;
        Ok((texts, options))
    }

    /// The number of an `ack`.
    fn seq(&self) -> Result<u64, Fault> {
        let seq = self.read(|reader| {
            let mut seq = None;
            if let Some(mut args) = reader.object(ARGS, &["seq"])? {
                while reader.member(&mut args)?.is_some() {
                    seq = reader.whole_number(&format!("{ARGS}.seq"))?;
                }
            }
            Ok(seq)
        })?;
        required(seq, "seq")
    }

    /// The addresses of a `join`.
    fn addresses(&self, max: usize) -> Result<Vec<Text>, Fault> {
        let path = format!("{ARGS}.addresses");
        let value = self.read(|reader| {
            let mut value = None;
            if let Some(mut args) = reader.object(ARGS, &["addresses"])? {
                while reader.member(&mut args)?.is_some() {
                    value = Some(reader.value()?);
                }
            }
            Ok(value)
        })?;
        let (texts, count) = self.reader.texts_of(required(value, "addresses")?, &path, max).map_err(|words| (Reason::Malformed, words))?;
        match count {
            0 => Err((Reason::Malformed, format!("{path} is empty"))),
            _ if count > max => Err((Reason::Malformed, format!("{path} has {count} entries, {max} are allowed"))),
            _ => Ok(texts.into_vec()),
        }
    }

    fn read<T>(&self, read: impl FnOnce(&mut Reader<'_>) -> Result<T, Broken>) -> Result<T, Fault> {
        let Some(value) = self.value else {
            return Err((Reason::Malformed, missing(ARGS)));
        };
        let mut reader = self.reader.again(value, 0);
        let (read, found) = match read(&mut reader) {
            Ok(found) => (Ok(()), Some(found)),
            Err(broken) => (Err(broken), None),
        };
        match (reader.verdict(read), found) {
            (None, Some(found)) => Ok(found),
            (Some(fault), _) => Err(fault),
            // There is always one of both.
            (None, None) => Err((Reason::Malformed, missing(ARGS))),
        }
    }

    /// For commands without arguments: an object is ignored, as unknown keys are.
    fn none(&self, builtin: Builtin) -> Result<Builtin, Fault> {
        match self.value.map(|value| value.kind) {
            None | Some(Kind::Null | Kind::Object) => Ok(builtin),
            Some(_) => Err((Reason::Malformed, format!("{ARGS} is not an object"))),
        }
    }
}

fn read_texts(reader: &mut Reader<'_>, names: &'static [&'static str], texts: &mut [Option<Text>]) -> Result<Options, Broken> {
    let mut options = Options::default();
    let Some(mut args) = reader.object(ARGS, names)? else {
        return Ok(options);
    };
    while let Some(key) = reader.member(&mut args)? {
        if key == "options" {
            options = client::options(reader, "payload.data.command.args.options")?;
            continue;
        }
        if key == "token" && reader.null()? {
            continue;
        }
        let text = reader.text(&format!("{ARGS}.{key}"))?;
        for (place, _) in texts.iter_mut().zip(names).filter(|(_, name)| **name == key) {
            place.clone_from(&text);
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests;
