//! `bester listen`: what arrives for a user, a line each.

use super::login::{self, Login, seconds};
use super::{Failure, OutputEnd, no_free_arguments, outcome, output, parse, print, warn};
use crate::client::{Client, ClientError, Incoming, Options};
use crate::frame::{Frame, Packet, Slice};
use crate::password::Password;
use crate::protocol::report::{put_number, put_string};
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// What `bester listen --help` prints.
pub const HELP: &str = "\
Usage: bester listen [-s ADDRESS] [-u USER] [-n COUNT] [-t SECONDS] [--ack [--after SEQ]] [--frames]

Logs in and prints what arrives, each delivery as a line of JSON, at once:

  {\"type\":\"chat\",\"data\":{\"room\":\"kitchen\",\"from\":\"bob\",\"said\":\"good morning\"}}

Once it is logged in, it says \"listening as USER on ADDRESS\" on standard error; scripts can
wait for that line. It ends with the connection, or with Ctrl-C, or as told:

With --ack nothing that waits in the user's mailbox is lost on the way: what has been printed is
acknowledged, and whatever is not comes again at the next login, with \"redelivered\":true. Such
deliveries have a number, which rises:

  {\"type\":\"chat\",\"seq\":41,\"redelivered\":false,\"data\":{\"said\":\"good morning\"}}

Options:
  -s, --server ADDRESS      tcp://HOST:PORT, tls://HOST:PORT or unix:PATH
                            (tcp://127.0.0.1:2223)
      --pin PIN             with tls://, the server must have the key with this pin, which its
                            operator knows from bester check. Without it, its certificate must be
                            from an authority that this machine trusts
  -u, --user USER           who to log in as ($USER)
  -n, --count COUNT         end after so many deliveries
  -t, --time SECONDS        end after so many seconds
      --ack                 acknowledge what has been printed
      --after SEQ           with --ack: everything up to the number SEQ was taken care of before,
                            and need not come again
      --frames              print whole messages of the server, with messageId and the like;
                            reports too, which -n does not count
      --password-file FILE  take the password from the first line of FILE
  -h, --help                print this

The password comes from --password-file, or from the file that BESTER_PASSWORD_FILE names;
else it is asked for. Where standard input is no terminal, its first line is the password.

Exit codes: 0 all of COUNT arrived, or the time is over and no COUNT was asked for; 64 called
wrongly, 65 no password to be read, 69 there is no server or the connection was lost, 74
writing failed, 75 the time is over before COUNT was reached, or the server is busy or stops,
77 wrong password, or another server than expected (--pin).
";

/// How long connecting and logging in may take together.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the server may take to read the last acknowledgement.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);
/// After so many deliveries they are acknowledged though more are there. Servers let twice as many be unacknowledged unless
/// configured, and so they need not pause.
const ACK_EVERY: u32 = 32;
/// The highest number that a server takes.
const SEQ_MAX: u64 = i64::MAX as u64;

/// Carries out `bester listen` with the arguments that follow it.
///
/// # Errors
/// As in [`HELP`].
pub fn run(args: &[String]) -> Result<(), Failure> {
    let mut options = login::options();
    options.optopt("n", "count", "", "COUNT").optopt("t", "time", "", "SECONDS").optflag("", "frames", "");
    options.optflag("", "ack", "").optopt("", "after", "", "SEQ");
    let matches = parse("listen", &options, args)?;
    if matches.opt_present("help") {
        return print(HELP);
    }
    no_free_arguments("listen", &matches)?;
    let count = matches.opt_str("count").map(|text| text.parse::<u64>().ok().filter(|count| *count > 0).ok_or(text));
    let count = count.transpose().map_err(|text| Failure::usage(format_args!("--count takes a number from 1, not {text:?}")))?;
    let after = matches.opt_str("after").map(|text| text.parse::<u64>().ok().filter(|seq| *seq <= SEQ_MAX).ok_or(text));
    let after = after.transpose().map_err(|text| Failure::usage(format_args!("--after takes the number of a delivery, not {text:?}")))?;
    let ack = matches.opt_present("ack");
    if after.is_some() && !ack {
        return Err(Failure::usage("--after goes only with --ack (see bester listen --help)"));
    }
    let order = Order {
        opted: Options { ack: ack.then_some(true), after, dedupe: None },
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
    opted: Options,
    count: Option<u64>,
    time: Option<Duration>,
    frames: bool,
}

impl Order {
    fn carry_out(&self, password: &Password, out: &mut dyn Write) -> Result<(), OutputEnd> {
        let mut client = self.login.connect(password, LOGIN_TIMEOUT, &self.opted).map_err(Failure::from)?;
        // Not with eprintln!, which would panic where standard error is closed.
        let _ = writeln!(io::stderr(), "listening as {} on {}", self.login.user, self.login.address);
        let deadline = self.time.map(|time| Instant::now() + time);
        let (mut owed, mut deliveries) = (Owed::default(), 0);
        let result = loop {
            // What is here already; only when that is nothing, or enough, is it worth a flush and an acknowledgement.
            let mut received = client.recv_frame(Some(Instant::now()));
            if matches!(received, Err(ClientError::TimedOut)) {
                owed.settle(&mut client, out)?;
                received = client.recv_frame(deadline);
            }
            let frame = match received {
                Err(ClientError::TimedOut) => break self.time_is_over(deliveries),
                received => received.and_then(|frame| frame.ok_or(ClientError::Closed)).map_err(Failure::from)?,
            };
            let incoming = Incoming::parse(&frame).map_err(ClientError::from).map_err(Failure::from)?;
            self.print(&incoming, &frame, out)?;
            if self.opted.ack == Some(true) {
                owed.add(incoming.seq);
            }
            if incoming.is_draining() {
                break Err(Failure::temporary("the server is stopping"));
            }
            deliveries += u64::from(incoming.is_delivery());
            if self.count == Some(deliveries) {
                break Ok(());
            }
            if owed.count >= ACK_EVERY {
                owed.settle(&mut client, out)?;
            }
        };
        owed.settle(&mut client, out)?;
        if owed.settled {
            // Whoever closes while something is on the way to him may take back what he sent last.
            if let Err(error) = client.finish(FINISH_TIMEOUT) {
                warn(format_args!("what came last may come again: {error}"));
            }
        }
        Ok(result?)
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
        Ok(out.write_all(&Packet::line(&line).body())?)
    }
}

/// What was printed and is not acknowledged.
#[derive(Default)]
struct Owed {
    /// The highest number of it.
    seq: Option<u64>,
    count: u32,
    /// Whether anything was acknowledged.
    settled: bool,
}

impl Owed {
    fn add(&mut self, seq: Option<u64>) {
        self.seq = self.seq.max(seq);
        self.count += u32::from(seq.is_some());
    }

    /// Acknowledges it, once it is certain that it is written.
    fn settle(&mut self, client: &mut Client, out: &mut dyn Write) -> Result<(), OutputEnd> {
        out.flush()?;
        self.count = 0;
        if let Some(seq) = self.seq.take() {
            client.ack(seq).map_err(Failure::from)?;
            self.settled = true;
        }
        Ok(())
    }
}

fn entry(incoming: &Incoming) -> Slice {
    let mut entry = br#"{"type":"#.to_vec();
    put_string(&mut entry, &incoming.kind);
    if let Some(seq) = incoming.seq {
        entry.extend_from_slice(br#","seq":"#);
        put_number(&mut entry, seq);
        entry.extend_from_slice(if incoming.redelivered { br#","redelivered":true"# } else { br#","redelivered":false"# });
    }
    entry.extend_from_slice(br#","data":"#);
    entry.extend_from_slice(incoming.data.get().as_bytes());
    entry.push(b'}');
    Slice::from(&entry[..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Address;
    use crate::client::fake::{DRAINING, Peer, bad, delivery, good, marked, password, server};

    fn order(address: &Address) -> Order {
        let args = ["-u", "alice", "-s", &address.to_string()];
        let matches = login::options().parse(args).expect("options that are there");
        let login = Login::new(&matches, |_| None).expect("all told");
        Order { login, opted: Options::default(), count: None, time: None, frames: false }
    }

    /// What is printed, and the exit code.
    fn heard(script: impl FnOnce(&mut Peer) + Send + 'static, change: impl FnOnce(&mut Order)) -> (String, u8) {
        let mut out = Vec::new();
        let (address, thread) = server(move |mut peer| {
            peer.lets_in();
            script(&mut peer);
        });
        let code = code(&address, change, &mut out);
        thread.join().expect("what was expected");
        (String::from_utf8(out).expect("UTF-8"), code)
    }

    /// The same where each delivery is acknowledged.
    fn acknowledged(script: impl FnOnce(&mut Peer) + Send + 'static, change: impl FnOnce(&mut Order)) -> (String, u8) {
        let mut out = Vec::new();
        let (address, thread) = server(move |mut peer| {
            peer.lets_in_with(r#","options":{"ack":true}"#);
            script(&mut peer);
        });
        let acknowledging = |order: &mut Order| {
            order.opted.ack = Some(true);
            change(order);
        };
        let code = code(&address, acknowledging, &mut out);
        thread.join().expect("what was expected");
        (String::from_utf8(out).expect("UTF-8"), code)
    }

    fn code(address: &Address, change: impl FnOnce(&mut Order), out: &mut dyn Write) -> u8 {
        let mut order = order(address);
        change(&mut order);
        match order.carry_out(&password(), out) {
            Ok(()) => 0,
            Err(OutputEnd::Failure(failure)) => failure.code,
            Err(OutputEnd::Write(_)) => 74,
        }
    }

    /// Frames in one piece, so that all of them are there at once.
    fn sends_at_once(peer: &mut Peer, frames: &[String]) {
        let wire = frames.iter().map(|frame| [&(frame.len() as u32).to_le_bytes(), frame.as_bytes()].concat());
        peer.sends_bytes(&wire.collect::<Vec<_>>().concat());
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
    fn what_was_printed_is_acknowledged_when_nothing_more_is_there() {
        let script = |peer: &mut Peer| {
            sends_at_once(peer, &[marked(41, true, "1"), delivery("chat", "2"), marked(43, false, "3")]);
            assert_eq!(peer.gets_ack(), Some(43));
            sends_at_once(peer, &[delivery("chat", "4"), bad("draining", true, "null", "")]);
            sends_at_once(peer, &[marked(44, false, "5")]);
            assert_eq!(peer.gets_ack(), Some(44));
        };
        let printed = concat!(
            "{\"type\":\"chat\",\"seq\":41,\"redelivered\":true,\"data\":1}\n{\"type\":\"chat\",\"data\":2}\n",
            "{\"type\":\"chat\",\"seq\":43,\"redelivered\":false,\"data\":3}\n{\"type\":\"chat\",\"data\":4}\n",
            "{\"type\":\"chat\",\"seq\":44,\"redelivered\":false,\"data\":5}\n"
        );
        assert_eq!(acknowledged(script, |_| ()), (printed.to_owned(), 69));
        // Who has not asked for it acknowledges nothing, whatever the server sends.
        let silent = |peer: &mut Peer| {
            sends_at_once(peer, &[marked(41, false, "1")]);
            assert_eq!(peer.gets(), None);
        };
        assert_eq!(heard(silent, |order| order.count = Some(1)).1, 0);
    }

    #[test]
    fn of_many_deliveries_some_are_acknowledged_on_the_way() {
        let script = |peer: &mut Peer| {
            sends_at_once(peer, &(1..=70).map(|seq| marked(seq, false, "0")).collect::<Vec<_>>());
            let mut acks = Vec::new();
            while acks.last() != Some(&70) {
                acks.push(peer.gets_ack().expect("all of them are acknowledged"));
            }
            assert!(acks.contains(&32) && acks.is_sorted() && acks.len() < 10, "{acks:?}");
        };
        let (printed, code) = acknowledged(script, |_| ());
        assert_eq!((printed.lines().count(), code), (70, 69));
    }

    #[test]
    fn enough_is_acknowledged_before_it_ends_and_no_more() {
        let script = |peer: &mut Peer| {
            let report = good("x", "1");
            sends_at_once(peer, &[marked(41, false, "1"), report, marked(42, false, "2"), marked(43, false, "3")]);
            assert_eq!(peer.gets_ack(), Some(42));
            assert_eq!(peer.gets(), None, "it says that it is at its end, and waits");
            // To who is gone, the first of these could still be sent.
            for seq in 44..64 {
                peer.sends(&marked(seq, false, "4"));
            }
        };
        let (printed, code) = acknowledged(script, |order| order.count = Some(2));
        assert_eq!((printed.lines().count(), code), (2, 0));
    }

    #[test]
    fn what_was_not_written_is_not_acknowledged() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                Ok(bytes.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::StorageFull.into())
            }
        }
        let (address, thread) = server(|mut peer| {
            peer.lets_in_with(r#","options":{"ack":true,"after":40}"#);
            peer.sends(&marked(41, false, "1"));
            assert_eq!(peer.gets(), None);
        });
        let opted = Options { ack: Some(true), after: Some(40), dedupe: None };
        assert_eq!(code(&address, |order| order.opted = opted, &mut Full), 74);
        thread.join().expect("what was expected");
    }

    #[test]
    fn a_server_that_stops_is_left_with_all_acknowledged() {
        let script = |peer: &mut Peer| {
            sends_at_once(peer, &[marked(41, false, "1"), DRAINING.to_owned(), marked(42, false, "2")]);
            assert_eq!(peer.gets_ack(), Some(41));
            assert_eq!(peer.gets(), None);
        };
        let (printed, code) = acknowledged(script, |_| ());
        assert_eq!((printed.lines().count(), code), (1, 75));
    }

    #[test]
    fn what_never_will_be_delivered_is_acknowledged_and_not_counted() {
        let report = marked(41, false, "null").replacen("receivedMessage", "deliveryReport", 1).replacen("good", "bad", 1);
        let script = move |peer: &mut Peer| {
            sends_at_once(peer, &[report, marked(42, false, "2")]);
            assert_eq!(peer.gets_ack(), Some(42));
            assert_eq!(peer.gets(), None);
        };
        let (printed, code) = acknowledged(script, |order| order.count = Some(1));
        assert_eq!((printed.lines().count(), code), (1, 0));
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
        for args in [
            &["-n", "0"][..],
            &["-n", "-1"],
            &["-n", "many"],
            &["-t", "x"],
            &["chat"],
            &["-s", "nowhere"],
            &["--after", "1"],
            &["--ack", "--after", "-1"],
            &["--ack", "--after", "9223372036854775808"],
        ] {
            let args: Vec<String> = ["-u", "alice"].iter().chain(args).map(|&arg| arg.to_owned()).collect();
            assert_eq!(run(&args).map_err(|failure| failure.code), Err(64), "{args:?}");
        }
    }
}
