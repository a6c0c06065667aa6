//! `bester send`: one message, and what became of it.

use super::login::{self, Login, seconds};
use super::{Failure, outcome, parse, print};
use crate::client::{Client, ClientError, Incoming};
use crate::frame::{Frame, Packet, Slice};
use crate::name::{BUILTIN, INTERNAL};
use crate::password::Password;
use serde_json::value::RawValue;
use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

/// What `bester send --help` prints.
pub const HELP: &str = "\
Usage: bester send [-s ADDRESS] [-u USER] -t TYPE [DATA | -]

Logs in, sends one message, prints what comes back, and waits until the server has reported
what became of the message. DATA is JSON; - reads it from standard input; without it, null
is sent. Put -- in front of DATA that begins with a minus sign.

  bester send -t echo '{\"hello\":[1,2]}'
  bester send -t chat '{\"say\":\"good morning\",\"room\":\"kitchen\"}'
  bester send -t builtin '{\"command\":{\"type\":\"whoami\"}}'

Options:
  -s, --server ADDRESS      tcp://HOST:PORT or unix:PATH (tcp://127.0.0.1:2223)
  -u, --user USER           who to log in as ($USER)
  -t, --type TYPE           the type of the message, which decides on its handler
      --text                DATA is text, not JSON (of standard input without its last line end)
      --timeout SECONDS     how long to wait for login and report together (30)
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
  75  trying again may help: no report in time, recipients offline, handler or server busy
  77  wrong password, or not allowed
";

/// The longest data that is read from standard input; servers take no longer messages unless configured.
const INPUT_BYTES_MAX: u64 = 1 << 20;
const TIMEOUT: Duration = Duration::from_secs(30);
/// The message's id: there is only one on the connection.
const ID: &str = "send";

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
    let source = match &matches.free[..] {
        [] => Source::Nothing,
        [one] if one == "-" => Source::Input,
        [one] => Source::Argument(one.clone()),
        _ => return Err(wrong("DATA is one argument: put it in quotes")),
    };
    let input_is_free = !matches!(source, Source::Input);
    let data = source.data(matches.opt_present("text"), &mut io::stdin().lock())?;
    let password = login.password(input_is_free)?;
    let order = Order { login, kind, data, timeout, stay, frames: matches.opt_present("frames") };
    order.carry_out(&password, &mut io::stdout().lock())
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
    kind: String,
    data: Box<RawValue>,
    timeout: Duration,
    stay: Duration,
    frames: bool,
}

impl Order {
    fn carry_out(&self, password: &Password, out: &mut dyn Write) -> Result<(), Failure> {
        let deadline = Instant::now() + self.timeout;
        let mut client = self.login.connect(password, self.timeout)?;
        client.message(&self.kind, &self.data, Some(ID))?;
        loop {
            let frame = client.recv_frame(Some(deadline)).map_err(|error| match error {
                ClientError::TimedOut => Failure::temporary(format_args!("no report within {} s", self.timeout.as_secs_f64())),
                error => error.into(),
            })?;
            let frame = frame.ok_or(ClientError::Closed)?;
            let incoming = Incoming::parse(&frame).map_err(ClientError::from)?;
            self.print(&incoming, &frame, out)?;
            if is_ours(&incoming) {
                if !incoming.is_good() {
                    return Err(outcome::of_report(&incoming));
                }
                break;
            }
        }
        if self.stay.is_zero() { Ok(()) } else { self.linger(&mut client, out) }
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
        let is_answer = is_ours(incoming) && incoming.is_good() && matches!(self.kind.as_str(), BUILTIN | INTERNAL);
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
}

/// Whether this is the report on our message. One that could not be read far enough is reported without its id.
fn is_ours(incoming: &Incoming) -> bool {
    let by_id = incoming.id.as_deref().map_or(!incoming.is_good(), |id| id == ID);
    incoming.is_report() && by_id
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Address;
    use crate::client::fake::{bad, delivery, good, password, server};

    fn order(address: Address) -> Order {
        let args = ["-u", "alice", "-s", &address.to_string()];
        let matches = login::options().parse(args).expect("options that are there");
        let login = Login::new(&matches, |_| None).expect("all told");
        let data = RawValue::from_string(r#"{ "a":1.0}"#.to_owned()).expect("JSON");
        Order { login, kind: "echo".to_owned(), data, timeout: Duration::from_secs(20), stay: Duration::ZERO, frames: false }
    }

    /// What is printed, and the failure, when a server answers a message with these frames and then closes.
    fn sent(frames: Vec<String>, change: impl FnOnce(&mut Order)) -> (String, Result<(), Failure>) {
        let (address, thread) = server(move |mut peer| {
            peer.lets_in();
            let message = peer.gets().expect("a message");
            assert!(message.contains(r#""id":"send","data":{ "a":1.0}}}"#), "{message}");
            frames.iter().for_each(|frame| peer.sends(frame));
        });
        let mut order = order(address);
        change(&mut order);
        let mut out = Vec::new();
        let result = order.carry_out(&password(), &mut out);
        thread.join().expect("what was expected");
        (String::from_utf8(out).expect("UTF-8"), result)
    }

    #[test]
    fn replies_are_printed_until_the_report_comes() {
        let frames =
            vec![delivery("echo", "{ \"a\":\n1.0}"), good("another", "1"), delivery("chat", "2"), good(ID, "3"), delivery("echo", "4")];
        assert_eq!(sent(frames.clone(), |_| ()), ("{ \"a\": 1.0}\n2\n".to_owned(), Ok(())));
        let stay = |order: &mut Order| order.stay = Duration::from_secs(20);
        assert_eq!(sent(frames.clone(), stay), ("{ \"a\": 1.0}\n2\n4\n".to_owned(), Ok(())));
        let (printed, result) = sent(frames.clone(), |order| order.frames = true);
        assert_eq!(printed, frames[..4].iter().map(|frame| frame.replace('\n', " ") + "\n").collect::<String>());
        assert_eq!(result, Ok(()));
    }

    #[test]
    fn the_answer_to_a_built_in_command_is_printed() {
        let builtin = |order: &mut Order| order.kind = "builtin".to_owned();
        assert_eq!(sent(vec![good(ID, r#"{"user":"alice"}"#)], builtin), ("{\"user\":\"alice\"}\n".to_owned(), Ok(())));
        let refusal = bad("unknownCommand", false, r#"{"message":"no"}"#, r#","id":"send""#);
        let (printed, result) = sent(vec![refusal], builtin);
        assert_eq!((printed.as_str(), result.map_err(|failure| failure.code)), ("", Err(65)));
    }

    #[test]
    fn a_bad_report_is_a_failure_with_or_without_its_id() {
        for id in [r#","id":"send""#, ""] {
            let refusal = bad("undelivered", true, r#"{"message":"all offline"}"#, id);
            let (printed, result) = sent(vec![delivery("echo", "1"), refusal], |order| order.stay = Duration::from_secs(20));
            let failure = result.expect_err("it was not delivered");
            assert_eq!((printed.as_str(), failure.code), ("1\n", 75));
            assert_eq!(failure.message, "all offline (trying again later may help)");
        }
        let others = bad("undelivered", false, "null", r#","id":"another""#);
        assert_eq!(sent(vec![others, good(ID, "null")], |_| ()).1, Ok(()));
    }

    #[test]
    fn without_a_report_nothing_is_good() {
        assert_eq!(sent(vec![delivery("echo", "1")], |_| ()).1.map_err(|failure| failure.code), Err(69));
        assert_eq!(sent(vec!["hello".to_owned()], |_| ()).1.map_err(|failure| failure.code), Err(69));
        let (address, thread) = server(|mut peer| {
            peer.lets_in();
            while peer.gets().is_some() {}
        });
        let mut order = order(address);
        order.timeout = Duration::from_millis(500);
        let failure = order.carry_out(&password(), &mut Vec::new()).expect_err("no report");
        assert_eq!((failure.code, failure.message.as_str()), (75, "no report within 0.5 s"));
        thread.join().expect("no panic");
    }

    #[test]
    fn who_is_not_let_in_sends_nothing() {
        let (address, thread) = server(|mut peer| {
            peer.gets();
            peer.sends(&bad("authentication", false, r#"{"message":"wrong"}"#, r#","id":"auth_special""#));
            assert_eq!(peer.gets(), None);
        });
        let failure = order(address).carry_out(&password(), &mut Vec::new()).expect_err("not let in");
        assert_eq!((failure.code, failure.message.as_str()), (77, "wrong"));
        thread.join().expect("what was expected");
    }

    #[test]
    fn a_reader_that_is_gone_does_not_change_the_exit_code() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(ErrorKind::BrokenPipe.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (address, thread) = server(|mut peer| {
            peer.lets_in();
            peer.gets();
            peer.sends(&delivery("echo", "1"));
            peer.sends(&bad("loop", false, "null", r#","id":"send""#));
        });
        let result = order(address).carry_out(&password(), &mut Gone);
        assert_eq!(result.map_err(|failure| failure.code), Err(70));
        thread.join().expect("no panic");
    }

    #[test]
    fn data_is_checked_before_anything_is_sent() {
        let data = |source: Source, as_text, input: &[u8]| {
            let data = source.data(as_text, &mut &*input);
            data.map(|data| data.get().to_owned()).map_err(|failure| failure.message)
        };
        let argument = |text: &str| Source::Argument(text.to_owned());
        assert_eq!(data(Source::Nothing, false, b"1").as_deref(), Ok("null"));
        assert_eq!(data(argument(" {\"b\":1e999, \"b\":1.0} "), false, b"").as_deref(), Ok("{\"b\":1e999, \"b\":1.0}"));
        assert_eq!(data(argument("say \"hi\"\n"), true, b"").as_deref(), Ok(r#""say \"hi\"\n""#));
        assert_eq!(data(Source::Input, false, b"[1]\n").as_deref(), Ok("[1]"));
        assert_eq!(data(Source::Input, true, b"a\nb\r\n").as_deref(), Ok(r#""a\nb""#));
        assert_eq!(data(argument("hello"), false, b""), Err("DATA is not JSON: expected value at line 1 column 1".to_owned()));
        assert_eq!(
            data(Source::Input, false, b"[1\n2]"),
            Err("standard input is not JSON: expected `,` or `]` at line 2 column 1".to_owned())
        );
        assert_eq!(data(Source::Input, true, b"ab\xff"), Err("standard input is not UTF-8 at byte 3".to_owned()));
        let long = vec![b'1'; 1 << 20];
        assert!(data(Source::Input, false, &long).is_ok());
        assert!(data(Source::Input, false, &[&long[..], b"1"].concat()).is_err());
    }

    #[test]
    fn wrong_arguments_are_refused_before_a_password_is_asked_for() {
        for (code, args) in [
            (64, &["-u", "alice", "1"][..]),
            (64, &["-u", "alice", "-t", "x", "1", "2"]),
            (64, &["-u", "alice", "-t", "x", "--timeout", "soon"]),
            (64, &["-u", "alice", "-t", "x", "-s", "ws://a:1"]),
            (64, &["--unknown"]),
            (65, &["-u", "alice", "-t", "x", "{"]),
        ] {
            let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
            assert_eq!(run(&args).map_err(|failure| failure.code), Err(code), "{args:?}");
        }
    }
}
