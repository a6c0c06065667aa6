//! `bester send`: one message, and what became of it.

use super::login::{self, Login, seconds};
use super::{Failure, outcome, parse, print, warn};
use crate::client::{Client, ClientError, Incoming, LoginError, Options};
use crate::frame::{Frame, Packet, Slice};
use crate::name::{BUILTIN, INTERNAL};
use crate::password::Password;
use crate::protocol::client::ID_BYTES_MAX;
use crate::tls::TlsError;
use serde_json::value::RawValue;
use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

/// What `bester send --help` prints.
pub const HELP: &str = "\
Usage: bester send [-s ADDRESS] [-u USER] -t TYPE [--dedupe [--retry SECONDS]] [DATA | -]

Logs in, sends one message, prints what comes back, and waits until the server has reported
what became of the message. DATA is JSON; - reads it from standard input; without it, null
is sent. Put -- in front of DATA that begins with a minus sign.

  bester send -t echo '{\"hello\":[1,2]}'
  bester send -t chat '{\"say\":\"good morning\",\"room\":\"kitchen\"}'
  bester send -t builtin '{\"command\":{\"type\":\"whoami\"}}'

Options:
  -s, --server ADDRESS      tcp://HOST:PORT, tls://HOST:PORT or unix:PATH
                            (tcp://127.0.0.1:2223)
      --pin PIN             with tls://, the server must have the key with this pin, which its
                            operator knows from bester check. Without it, its certificate must be
                            from an authority that this machine trusts
  -u, --user USER           who to log in as ($USER)
  -t, --type TYPE           the type of the message, which decides on its handler
      --text                DATA is text, not JSON (of standard input without its last line end)
      --timeout SECONDS     how long to wait for login and report together (30)
      --id ID               what we call the message (send; with --dedupe something random)
      --dedupe              have the server remember the message: if the same user sends the
                            same data with the same ID again within some minutes, it is not
                            handled again, and the report is the same; a reply
                            to the first time is not repeated
      --retry SECONDS       with --dedupe: for so long, connect and send again until there is a
                            report, though the connection is lost or the server is restarted
      --stay SECONDS        after a good report, print what arrives for so long (0)
      --frames              print whole messages of the server, reports too
      --password-file FILE  take the password from the first line of FILE
  -h, --help                print this

Of each delivery, its data is printed, on a line of its own: the handler's reply, and whatever
else arrives meanwhile. For a built-in command, the answer is printed in the same way.

The password comes from --password-file, or from the file that BESTER_PASSWORD_FILE names;
else it is asked for. Where standard input is no terminal, its first line is the password.

Exit codes:
   0  done: whatever the handler ordered has been carried out
  64  called wrongly
  65  the data is not JSON, or the server finds the message malformed, too large or too
      deep, or knows no such type or command
  67  a recipient is unknown
  69  there is no server, or the connection was lost
  70  the handler refused the message or made a mistake, or the server did
  74  reading or writing failed
  75  trying again may help: no report in time, recipients offline, mailboxes full, handler
      or server busy or stopping
  77  wrong password, another server than expected (--pin), or not allowed
";

/// The longest data that is read from standard input; servers take no longer messages unless configured.
const INPUT_BYTES_MAX: u64 = 1 << 20;
const TIMEOUT: Duration = Duration::from_secs(30);
/// The message's id, unless it is to be told from others: there is only one on the connection.
const ID: &str = "send";
/// How long we wait before we connect again: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Carries out `bester send` with the arguments that follow it.
///
/// # Errors
/// As in [`HELP`].
pub fn run(args: &[String]) -> Result<(), Failure> {
    let mut options = login::options();
    options
        .optopt("t", "type", "", "TYPE")
        .optflag("", "text", "")
        .optopt("", "timeout", "", "SECONDS")
        .optopt("", "stay", "", "SECONDS")
        .optopt("", "id", "", "ID")
        .optflag("", "dedupe", "")
        .optopt("", "retry", "", "SECONDS")
        .optflag("", "frames", "");
    let matches = parse("send", &options, args)?;
    if matches.opt_present("help") {
        return print(HELP);
    }
    let wrong = |what: &str| Failure::usage(format_args!("{what} (see bester send --help)"));
    let login = Login::new(&matches, |name| std::env::var(name).ok())?;
    let kind = matches.opt_str("type").ok_or_else(|| wrong("a message needs a type: -t TYPE"))?;
    let (timeout, stay) = (seconds(&matches, "timeout")?, seconds(&matches, "stay")?);
    let (timeout, stay) = (timeout.unwrap_or(TIMEOUT), stay.unwrap_or(Duration::ZERO));
    let (retry, dedupe) = (seconds(&matches, "retry")?, matches.opt_present("dedupe"));
    if retry.is_some() && !dedupe {
        return Err(wrong("--retry goes only with --dedupe: else the message might be handled twice"));
    }
    let id = match matches.opt_str("id") {
        Some(id) if id.len() > ID_BYTES_MAX => return Err(wrong("--id takes at most 128 bytes")),
        Some(id) => id,
        None if dedupe => random_id()?,
        None => ID.to_owned(),
    };
    let opted = Options { dedupe: dedupe.then_some(true), ..Options::default() };
    let source = match &matches.free[..] {
        [] => Source::Nothing,
        [one] if one == "-" => Source::Input,
        [one] => Source::Argument(one.clone()),
        _ => return Err(wrong("DATA is one argument: put it in quotes")),
    };
    let input_is_free = !matches!(source, Source::Input);
    let data = source.data(matches.opt_present("text"), &mut io::stdin().lock())?;
    let password = login.password(input_is_free)?;
    let order = Order { login, opted, kind, data, id, timeout, retry, stay, frames: matches.opt_present("frames") };
    order.carry_out(&password, &mut io::stdout().lock())
}

/// An id that nobody has used before.
fn random_id() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Failure::unavailable(format_args!("no random bytes for an id: {error}")))?;
    Ok(format!("{:032x}", u128::from_le_bytes(bytes)))
}

/// Where the data comes from.
enum Source {
    Nothing,
    Argument(String),
    Input,
}

impl Source {
    fn data(self, as_text: bool, input: &mut dyn Read) -> Result<Box<RawValue>, Failure> {
        let (text, name) = match self {
            Source::Nothing => return Ok(RawValue::NULL.to_owned()),
            Source::Argument(text) => (text, "DATA"),
            Source::Input => (read_input(input)?, "standard input"),
        };
        if as_text {
            let text = if name == "DATA" { &text } else { without_line_end(&text) };
            return serde_json::value::to_raw_value(text).map_err(Failure::data);
        }
        serde_json::from_str(&text).map_err(|error| Failure::data(format_args!("{name} is not JSON: {error}")))
    }
}

fn read_input(input: &mut dyn Read) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let read = input.take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes);
    let read = read.map_err(|error| Failure::input_output(format_args!("cannot read standard input: {error}")))?;
    if read as u64 > INPUT_BYTES_MAX {
        return Err(Failure::data(format_args!("standard input has more than {INPUT_BYTES_MAX} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to() + 1;
        Failure::data(format_args!("standard input is not UTF-8 at byte {at}"))
    })
}

fn without_line_end(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

/// What is to be done.
struct Order {
    login: Login,
    opted: Options,
    kind: String,
    data: Box<RawValue>,
    id: String,
    timeout: Duration,
    retry: Option<Duration>,
    stay: Duration,
    frames: bool,
}

impl Order {
    fn carry_out(&self, password: &Password, out: &mut dyn Write) -> Result<(), Failure> {
        let end = self.retry.map(|retry| Instant::now() + retry);
        let mut pause = PAUSE.0;
        let mut client = loop {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            let timeout = left.map_or(self.timeout, |left| left.min(self.timeout));
            let stopped = match self.report(password, timeout, out) {
                Ok(client) => break client,
                Err(stopped) => stopped,
            };
            let Some(end) = end.filter(|_| stopped.again) else { return Err(stopped.failure) };
            std::thread::sleep(pause.min(end.saturating_duration_since(Instant::now())));
            if Instant::now() >= end {
                return Err(stopped.failure);
            }
            if pause == PAUSE.0 {
                warn(format_args!("{}; trying again", stopped.failure));
            }
            pause = (pause * 2).min(PAUSE.1);
        };
        if self.stay.is_zero() { Ok(()) } else { self.linger(&mut client, out) }
    }

    /// Sends the message, and waits for a good report on it.
    fn report(&self, password: &Password, timeout: Duration, out: &mut dyn Write) -> Result<Client, Stopped> {
        let deadline = Instant::now() + timeout;
        let mut client = self.login.connect(password, timeout, &self.opted)?;
        client.message(&self.kind, &self.data, Some(&self.id))?;
        loop {
            let frame = client.recv_frame(Some(deadline)).map_err(|error| match error {
                ClientError::TimedOut => {
                    let failure = Failure::temporary(format_args!("no report within {} s", timeout.as_secs_f64()));
                    Stopped { failure, again: true }
                }
                error => error.into(),
            })?;
            let frame = frame.ok_or(ClientError::Closed)?;
            let incoming = Incoming::parse(&frame).map_err(ClientError::from)?;
            self.print(&incoming, &frame, out)?;
            if self.is_ours(&incoming) {
                if incoming.is_good() {
                    return Ok(client);
                }
                // The one report that says that nothing was begun, and will be different soon.
                let again = incoming.reason.as_deref() == Some("draining");
                return Err(Stopped { failure: outcome::of_report(&incoming), again });
            }
        }
    }

    /// Prints what arrives after the report. Nobody is waiting for anything any longer, so an end is no failure.
    fn linger(&self, client: &mut Client, out: &mut dyn Write) -> Result<(), Failure> {
        let deadline = Instant::now() + self.stay;
        loop {
            let frame = match client.recv_frame(Some(deadline)) {
                Ok(Some(frame)) => frame,
                Ok(None) | Err(ClientError::TimedOut) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let incoming = Incoming::parse(&frame).map_err(ClientError::from)?;
            self.print(&incoming, &frame, out)?;
        }
    }

    fn print(&self, incoming: &Incoming, frame: &Frame, out: &mut dyn Write) -> Result<(), Failure> {
        let is_answer = self.is_ours(incoming) && incoming.is_good() && matches!(self.kind.as_str(), BUILTIN | INTERNAL);
        let line = match self.frames {
            true => Packet::line(frame.all()),
            false if incoming.is_delivery() || is_answer => Packet::line(&Slice::from(incoming.data.get().as_bytes())),
            false => return Ok(()),
        };
        match out.write_all(&line.body()).and_then(|()| out.flush()) {
            // Whoever was reading wants no more, but the exit code still tells what became of the message.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            written => written.map_err(|error| Failure::input_output(format_args!("cannot write to standard output: {error}"))),
        }
    }

    /// Whether this is the report on our message. One that could not be read far enough is reported without its id.
    fn is_ours(&self, incoming: &Incoming) -> bool {
        let by_id = incoming.id.as_deref().map_or(!incoming.is_good(), |id| id == self.id);
        incoming.is_report() && by_id
    }
}

/// Why there is no good report.
struct Stopped {
    failure: Failure,
    /// Whether nothing is known of the message, so that it is to be sent again.
    again: bool,
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Stopped { failure, again: false }
    }
}

impl From<ClientError> for Stopped {
    fn from(error: ClientError) -> Self {
        let again = match &error {
            ClientError::Connect { source, .. } => source.kind() != ErrorKind::PermissionDenied,
            ClientError::Tls { source, .. } => matches!(source, TlsError::TimedOut | TlsError::Closed | TlsError::Refused(_)),
            ClientError::TimedOut | ClientError::Closed | ClientError::Io(_) => true,
            ClientError::TooLarge(_) | ClientError::BadFrame(_) => false,
        };
        Stopped { failure: error.into(), again }
    }
}

impl From<LoginError> for Stopped {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Client(error) => error.into(),
            LoginError::Refused(report) => Stopped { failure: outcome::of_report(&report), again: report.temporary },
            error @ LoginError::Unexpected(_) => Stopped { failure: error.into(), again: false },
        }
    }
}

#[cfg(test)]
mod tests;
