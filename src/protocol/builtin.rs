//! Commands to the server itself: messages of the type `builtin`.

use super::client;
use super::fields::{Reader, unknown_command};
use super::json::{Broken, Kind, Value};
use super::reason::Reason;
use super::text::Text;
use crate::frame::Slice;

const DATA: &str = "payload.data";
const COMMAND: &str = "payload.data.command";
const ARGS: &str = "payload.data.command.args";

const COMMANDS: &[&str] = &["authenticate", "login", "logout", "changePassword", "register", "whoami", "handlers", "ping", "close"];

/// A command, with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Builtin {
    /// Logs in, or changes the user of a live connection. Also spelled `login`.
    Authenticate {
        /// The user's name, as it came.
        username: Text,
        /// The user's password.
        password: Text,
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
            Builtin::Close => "close",
        }
    }

    /// Whether it may be sent without being logged in.
    pub fn before_login(&self) -> bool {
        match self {
            Builtin::Authenticate { .. } | Builtin::Register { .. } | Builtin::Ping | Builtin::Close => true,
            Builtin::Logout | Builtin::ChangePassword { .. } | Builtin::Whoami | Builtin::Handlers => false,
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
            let [username, password, _] = args.texts(&["username", "password", "options"])?;
            let (username, password) = (required(username, "username")?, required(password, "password")?);
            Ok(Builtin::Authenticate { username, password })
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
        "ack" => Err((Reason::UnknownCommand, "this server does not support the command `ack` yet".to_string())),
        other => Err((Reason::UnknownCommand, unknown_command(other, COMMANDS))),
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

fn required(text: Option<Text>, key: &str) -> Result<Text, (Reason, String)> {
    text.ok_or_else(|| (Reason::Malformed, missing(&format!("{ARGS}.{key}"))))
}

/// The arguments, which can be read once the command is known.
struct Args<'r, 'a> {
    reader: &'r Reader<'a>,
    value: Option<Value>,
}

impl Args<'_, '_> {
    /// The strings by these names. `options` are checked, and give no text.
    fn texts<const N: usize>(&self, names: &'static [&'static str; N]) -> Result<[Option<Text>; N], (Reason, String)> {
        let Some(value) = self.value else {
            return Err((Reason::Malformed, missing(ARGS)));
        };
        let mut reader = self.reader.again(value, 0);
        let mut texts = [const { None }; N];
        let read = read_texts(&mut reader, names, &mut texts);
        match reader.verdict(read) {
            Some(fault) => Err(fault),
            None => Ok(texts),
        }
    }

    /// For commands without arguments: an object is ignored, as unknown keys are.
    fn none(&self, builtin: Builtin) -> Result<Builtin, (Reason, String)> {
        match self.value.map(|value| value.kind) {
            None | Some(Kind::Null | Kind::Object) => Ok(builtin),
            Some(_) => Err((Reason::Malformed, format!("{ARGS} is not an object"))),
        }
    }
}

fn read_texts(reader: &mut Reader<'_>, names: &'static [&'static str], texts: &mut [Option<Text>]) -> Result<(), Broken> {
    let Some(mut args) = reader.object(ARGS, names)? else {
        return Ok(());
    };
    while let Some(key) = reader.member(&mut args)? {
        if key == "options" {
            client::options(reader, "payload.data.command.args.options")?;
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
    Ok(())
}

#[cfg(test)]
mod tests;
