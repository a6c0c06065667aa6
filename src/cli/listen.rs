//! `bester listen`: what arrives for a user, a line each.

use super::login::{self, Login, seconds};
use super::{Failure, OutputEnd, no_free_arguments, outcome, output, parse, print, warn};
use crate::client::{ClientError, Incoming};
use crate::frame::{Frame, Packet, Slice};
use crate::password::Password;
use crate::protocol::report::put_string;
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// What `bester listen --help` prints.
pub const HELP: &str = "\
Usage: bester listen [-s ADDRESS] [-u USER] [-n COUNT] [-t SECONDS] [--frames]

Logs in and prints what arrives, each delivery as a line of JSON, at once:

  {\"type\":\"chat\",\"data\":{\"room\":\"kitchen\",\"from\":\"bob\",\"said\":\"good morning\"}}

Once it is logged in, it says \"listening as USER on ADDRESS\" on standard error; scripts can
wait for that line. It ends with the connection, or with Ctrl-C, or as told:

Options:
  -s, --server ADDRESS      tcp://HOST:PORT or unix:PATH (tcp://127.0.0.1:2223)
  -u, --user USER           who to log in as ($USER)
  -n, --count COUNT         end after so many deliveries
  -t, --time SECONDS        end after so many seconds
      --frames              print whole messages of the server, with messageId and the like;
                            reports too, which -n does not count
      --password-file FILE  take the password from the first line of FILE
  -h, --help                print this

The password comes from --password-file, or from the file that BESTER_PASSWORD_FILE names;
else it is asked for. Where standard input is no terminal, its first line is the password.

Exit codes: 0 all of COUNT arrived, or the time is over and no COUNT was asked for; 64 called
wrongly, 65 no password to be read, 69 there is no server or the connection was lost, 74
writing failed, 75 the time is over before COUNT was reached, or the server is busy, 77 wrong
password.
";

/// How long connecting and logging in may take together.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Carries out `bester listen` with the arguments that follow it.
///
/// # Errors
/// As in [`HELP`].
pub fn run(args: &[String]) -> Result<(), Failure> {
    let mut options = login::options();
    options.optopt("n", "count", "", "COUNT").optopt("t", "time", "", "SECONDS").optflag("", "frames", "");
    let matches = parse("listen", &options, args)?;
    if matches.opt_present("help") {
        return print(HELP);
    }
    no_free_arguments("listen", &matches)?;
    let count = matches.opt_str("count").map(|text| text.parse::<u64>().ok().filter(|count| *count > 0).ok_or(text));
    let count = count.transpose().map_err(|text| Failure::usage(format_args!("--count takes a number from 1, not {text:?}")))?;
    let order = Order {
        login: Login::new(&matches, |name| std::env::var(name).ok())?,
        count,
        time: seconds(&matches, "time")?,
        frames: matches.opt_present("frames"),
    };
    let password = order.login.password(true)?;
    output(|out| order.carry_out(&password, out))
}

/// What is to be done.
struct Order {
    login: Login,
    count: Option<u64>,
    time: Option<Duration>,
    frames: bool,
}

impl Order {
    fn carry_out(&self, password: &Password, out: &mut dyn Write) -> Result<(), OutputEnd> {
        let mut client = self.login.connect(password, LOGIN_TIMEOUT)?;
        // Not with eprintln!, which would panic where standard error is closed.
        let _ = writeln!(io::stderr(), "listening as {} on {}", self.login.user, self.login.address);
        let deadline = self.time.map(|time| Instant::now() + time);
        let mut deliveries = 0;
        loop {
            let frame = match client.recv_frame(deadline) {
                Err(ClientError::TimedOut) => return Ok(self.time_is_over(deliveries)?),
                received => received.and_then(|frame| frame.ok_or(ClientError::Closed)).map_err(Failure::from)?,
            };
            let incoming = Incoming::parse(&frame).map_err(ClientError::from).map_err(Failure::from)?;
            self.print(&incoming, &frame, out)?;
            deliveries += u64::from(incoming.is_delivery());
            if self.count == Some(deliveries) {
                return Ok(());
            }
        }
    }

    fn time_is_over(&self, deliveries: u64) -> Result<(), Failure> {
        match self.count {
            None => Ok(()),
            Some(count) => Err(Failure::temporary(format_args!("{deliveries} of {count} deliveries came in time"))),
        }
    }

    fn print(&self, incoming: &Incoming, frame: &Frame, out: &mut dyn Write) -> Result<(), OutputEnd> {
        if !incoming.is_good() {
            warn(outcome::of_report(incoming));
        }
        let line = match self.frames {
            true => frame.all().clone(),
            false if incoming.is_delivery() => entry(incoming),
            false => return Ok(()),
        };
        out.write_all(&Packet::line(&line).body())?;
        Ok(out.flush()?)
    }
}

fn entry(incoming: &Incoming) -> Slice {
    let mut entry = br#"{"type":"#.to_vec();
    put_string(&mut entry, &incoming.kind);
    entry.extend_from_slice(br#","data":"#);
    entry.extend_from_slice(incoming.data.get().as_bytes());
    entry.push(b'}');
    Slice::from(&entry[..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Address;
    use crate::client::fake::{Peer, bad, delivery, good, password, server};

    fn order(address: &Address) -> Order {
        let args = ["-u", "alice", "-s", &address.to_string()];
        let matches = login::options().parse(args).expect("options that are there");
        Order { login: Login::new(&matches, |_| None).expect("all told"), count: None, time: None, frames: false }
    }

    /// What is printed, and the exit code.
    fn heard(script: impl FnOnce(&mut Peer) + Send + 'static, change: impl FnOnce(&mut Order)) -> (String, u8) {
        let (address, thread) = server(move |mut peer| {
            peer.lets_in();
            script(&mut peer);
        });
        let mut order = order(&address);
        change(&mut order);
        let mut out = Vec::new();
        let code = match order.carry_out(&password(), &mut out) {
            Ok(()) => 0,
            Err(OutputEnd::Failure(failure)) => failure.code,
            Err(OutputEnd::Write(error)) => panic!("{error}"),
        };
        thread.join().expect("what was expected");
        (String::from_utf8(out).expect("UTF-8"), code)
    }

    fn speak(peer: &mut Peer) {
        peer.sends(&delivery("chat", "{\n\"a\":1.0}"));
        peer.sends(&good("x", "1"));
        peer.sends(&bad("draining", true, "null", ""));
        peer.sends(&delivery("ec\\\"ho", "2"));
    }

    const SPOKEN: &str = "{\"type\":\"chat\",\"data\":{ \"a\":1.0}}\n{\"type\":\"ec\\\"ho\",\"data\":2}\n";

    #[test]
    fn each_delivery_is_a_line_and_a_lost_connection_a_failure() {
        assert_eq!(heard(speak, |_| ()), (SPOKEN.to_owned(), 69));
    }

    #[test]
    fn whole_frames_are_printed_when_asked_for() {
        let (printed, code) = heard(speak, |order| (order.frames, order.count) = (true, Some(2)));
        let lines: Vec<&str> = printed.lines().collect();
        assert_eq!((lines.len(), code), (4, 0));
        assert_eq!((lines[0], lines[1]), (delivery("chat", "{ \"a\":1.0}").as_str(), good("x", "1").as_str()));
    }

    #[test]
    fn it_ends_when_enough_has_come() {
        let last = |peer: &mut Peer| {
            speak(peer);
            peer.sends(&delivery("chat", "3"));
            while peer.gets().is_some() {}
        };
        assert_eq!(heard(last, |order| order.count = Some(2)), (SPOKEN.to_owned(), 0));
        assert_eq!(heard(speak, |order| order.count = Some(3)), (SPOKEN.to_owned(), 69));
    }

    #[test]
    fn it_ends_when_the_time_is_over() {
        let stay = |peer: &mut Peer| {
            speak(peer);
            while peer.gets().is_some() {}
        };
        let time = Some(Duration::from_millis(500));
        assert_eq!(heard(stay, |order| order.time = time), (SPOKEN.to_owned(), 0));
        assert_eq!(heard(stay, |order| (order.time, order.count) = (time, Some(3))), (SPOKEN.to_owned(), 75));
        assert_eq!(heard(stay, |order| (order.time, order.count) = (time, Some(2))), (SPOKEN.to_owned(), 0));
    }

    #[test]
    fn wrong_arguments_are_refused() {
        for args in [&["-n", "0"][..], &["-n", "-1"], &["-n", "many"], &["-t", "x"], &["chat"], &["-s", "nowhere"]] {
            let args: Vec<String> = ["-u", "alice"].iter().chain(args).map(|&arg| arg.to_owned()).collect();
            assert_eq!(run(&args).map_err(|failure| failure.code), Err(64), "{args:?}");
        }
    }
}
