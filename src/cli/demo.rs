//! `bester demo`: shows what the server does, with one that is gone afterwards.
//!
//! It uses what everybody else uses: the directory that `bester init` writes, `bester serve` as a process of its own,
//! and the client. What comes back is not only shown but compared with what should come, so a demo that ends well
//! means that this machine can run a server. `federated.rs` has what is shown with two of them.

mod federated;
mod server;

use super::{Failure, OutputEnd, no_free_arguments, outcome, output, parse, print, warn};
use crate::client::{Client, ClientError, Incoming};
use crate::password::Password;
use crate::signals::Signals;
use crossbeam_channel::Receiver;
use getopts::Options;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use server::{Home, Server};
use std::fmt;
use std::io::Write;
use std::time::{Duration, Instant};

/// What `bester demo --help` prints.
pub const HELP: &str = "\
Usage: bester demo [--federated]

Shows a whole conversation: starts a server of its own, with the sample handlers and two users,
alice and bob, lets them talk, and prints what each of them sends and gets. Then it ends the
server and removes everything. The server is in a temporary directory and listens on a UNIX
socket in it, so nothing else on this machine is touched or can interfere.

Most of the sample handlers need python3 (3.8 or later).

Options:
      --federated   show two servers instead, a.example with alice and b.example with bob: how one
                    invites the other, people of both in one room, and what becomes of messages
                    while one of them is away. They listen on free ports of 127.0.0.1, with TLS
  -h, --help        print this

Exit codes: 0 all went as it should, 64 called wrongly, 69 python3 is missing, 70 something did
not go as it should (the server's log is shown), 73 the directory cannot be written, 130
interrupted.
";

/// How long each thing that is waited for may take; far longer than it should.
const PATIENCE: Duration = Duration::from_secs(20);
const SOFTWARE: u8 = 70;
const INTERRUPTED: u8 = 130;
/// How wide the column is that says who does what.
const WHO_WIDTH: usize = 14;

fn failed(message: impl fmt::Display) -> Failure {
    Failure { code: SOFTWARE, message: message.to_string() }
}

fn interrupted() -> Failure {
    Failure { code: INTERRUPTED, message: "interrupted; everything was removed".to_owned() }
}

/// Carries out `bester demo` with the arguments that follow it.
///
/// # Errors
/// As in [`HELP`].
pub fn run(args: &[String]) -> Result<(), Failure> {
    let mut options = Options::new();
    options.optflag("", "federated", "").optflag("h", "help", "");
    let matches = parse("demo", &options, args)?;
    if matches.opt_present("help") {
        return print(HELP);
    }
    no_free_arguments("demo", &matches)?;
    server::check_python()?;
    // From here on Ctrl-C does not end this process: it is noticed at the next step, and cleaned up after.
    let (signals, orders) = Signals::of_command().map_err(|error| Failure::unavailable(format_args!("signals: {error}")))?;
    let shown = Home::new().and_then(|home| {
        if matches.opt_present("federated") {
            return federated::run(&home, &orders);
        }
        show(&[&home], &orders, |demo| demo.whole(&home))
    });
    signals.stop();
    shown
}

/// A demo in directories that the caller removes; `play` is what happens in it.
fn show(homes: &[&Home], orders: &Receiver<()>, play: impl FnOnce(&mut Demo<'_>) -> Result<(), OutputEnd>) -> Result<(), Failure> {
    let shown = output(|out| play(&mut Demo { out, orders, messages: 0 }));
    shown.map_err(|failure| {
        // Ctrl-C reaches the server, too, so what failed may only be what follows from it.
        if failure.code == INTERRUPTED || orders.try_recv().is_ok() {
            return interrupted();
        }
        if failure.code == SOFTWARE {
            for home in homes {
                warn(format_args!("this is {}'s log:", home.owner()));
                home.log().lines().for_each(|line| warn(format_args!("  {line}")));
            }
        }
        failure
    })
}

/// Somebody who is logged in.
struct Person {
    name: &'static str,
    client: Client,
}

struct Demo<'a> {
    out: &'a mut dyn Write,
    orders: &'a Receiver<()>,
    /// How many messages were sent: the last one's id.
    messages: u64,
}

impl Demo<'_> {
    fn whole(&mut self, home: &Home) -> Result<(), OutputEnd> {
        let [alice_password, bob_password] = home.fill(["alice", "bob"], None)?;
        self.say("A server starts, with a directory of its own, two users (alice and bob) and the sample handlers.")?;
        let began = Instant::now();
        let mut server = Server::start(home)?;
        server.wait_until_ready(home, self.orders)?;
        self.line("server", &format!("ready after {:.1} s, on a UNIX socket that nobody else can reach", began.elapsed().as_secs_f32()))?;

        self.say("Alice and bob connect and log in. Somebody else tries it as alice, and guesses.")?;
        let mut alice = self.log_in(home, "alice", &alice_password)?;
        let mut bob = self.log_in(home, "bob", &bob_password)?;
        self.wrong_password(home)?;
        self.echo_and_count(&mut alice, &mut bob)?;
        self.chat(&mut alice, &mut bob)?;
        self.one_is_away(home, &mut alice, bob, &bob_password)?;
        self.mistakes(&mut alice)?;

        self.say("The server is told to stop (SIGTERM).")?;
        drop(alice);
        server.end()?;
        self.line("server", "ended well, and its handlers with it")?;
        home.remove()?;
        self.line("directory", "removed")?;
        let bester = std::env::args().next().unwrap_or_else(|| "bester".to_owned());
        self.say(&format!(
            "That was all. A server of your own that you can talk to:\n\n    \
             {bester} init mine --user alice\n    \
             {bester} serve -c mine/bester.conf\n    \
             {bester} send -u alice -t echo '\"hello\"'    (in another terminal)\n"
        ))
    }

    fn wrong_password(&mut self, home: &Home) -> Result<(), OutputEnd> {
        let mut client = home.connect()?;
        let guess = Password::new("let me in".to_owned()).map_err(failed)?;
        match client.log_in("alice", &guess) {
            Err(crate::client::LoginError::Refused(report)) => {
                self.line("somebody else", &format!("not logged in: {}", of_report(&report)))?;
                self.expect(report.reason.as_deref() == Some("authentication"), "the wrong password should be what was wrong")
            }
            Err(error) => Err(failed(error).into()),
            Ok(()) => Err(failed("a wrong password was good enough").into()),
        }
    }

    fn echo_and_count(&mut self, alice: &mut Person, bob: &mut Person) -> Result<(), OutputEnd> {
        self.say(
            "What becomes of a message is for the handler of its type to say, a program of the operator's.\n\
             The handler echo sends data back, byte for byte; count counts its messages. After what a\n\
             message delivered, its sender gets a report on what became of it.",
        )?;
        let data = r#"{"hello": [1, 1.0, 1e999]}"#;
        let echoed = self.ask(alice, "echo", data)?.good()?;
        self.expect(echoed.iter().map(|data| data.get()).eq([data]), "alice should have got her own data")?;
        let mut count = Vec::new();
        for person in [alice, bob] {
            count.extend(self.ask(person, "count", r#""one more""#)?.good()?);
        }
        self.expect(count.iter().map(|data| data.get()).eq([r#"{"count":1}"#, r#"{"count":2}"#]), "the count should be 1, then 2")
    }

    fn chat(&mut self, alice: &mut Person, bob: &mut Person) -> Result<(), OutputEnd> {
        self.say(
            "The handler chat has rooms. It is told by the server who is speaking, so nobody can speak as\n\
             somebody else; and what one says is delivered to all who are in the room.",
        )?;
        self.ask(alice, "chat", r#"{"join":"kitchen"}"#)?.good()?;
        self.ask(bob, "chat", r#"{"join":"kitchen"}"#)?.good()?;
        let heard = self.hears(alice)?;
        self.expect(heard["joined"] == "bob", "alice should have heard that bob joined")?;
        self.ask(alice, "chat", r#"{"say":"hello bob"}"#)?.good()?;
        let heard = self.hears(bob)?;
        self.expect(heard["from"] == "alice" && heard["said"] == "hello bob", "bob should have heard alice")?;
        let who = self.ask(bob, "chat", r#"{"who":"kitchen"}"#)?.good_value()?;
        self.expect(who["members"] == json!(["alice", "bob"]), "both should be in the kitchen")
    }

    fn one_is_away(&mut self, home: &Home, alice: &mut Person, mut bob: Person, password: &Password) -> Result<(), OutputEnd> {
        self.say("Bob logs out, and misses something. When he is back he asks for the history.")?;
        self.ask(&mut bob, "builtin", r#"{"command":{"type":"logout"}}"#)?.good()?;
        self.ask(alice, "chat", r#"{"say":"is anybody there?"}"#)?.good()?;
        let mut bob = self.log_in(home, "bob", password)?;
        let history = self.ask(&mut bob, "chat", r#"{"history":"kitchen","last":1}"#)?.good_value()?;
        self.expect(history["history"][0]["said"] == "is anybody there?", "the history should have what bob missed")
    }

    fn mistakes(&mut self, alice: &mut Person) -> Result<(), OutputEnd> {
        self.say("Whatever cannot be done is reported too, and harms nobody.")?;
        let unknown = self.ask(alice, "weather", r#""here?""#)?.report;
        self.expect(unknown.reason.as_deref() == Some("unknownType"), "there should be no handler for the weather")?;
        let refused = self.ask(alice, "chat", r#"{"say":"hello","room":"cellar"}"#)?.report;
        self.expect(refused.reason.as_deref() == Some("handlerRefused"), "alice should not be heard in the cellar")
    }

    fn log_in(&mut self, home: &Home, name: &'static str, password: &Password) -> Result<Person, OutputEnd> {
        self.check_orders()?;
        let mut client = home.connect()?;
        client.log_in(name, password).map_err(|error| failed(format_args!("{name} cannot log in: {error}")))?;
        self.line(name, "logged in")?;
        Ok(Person { name, client })
    }

    /// Sends a message and shows everything up to the report on it.
    fn ask(&mut self, person: &mut Person, kind: &str, data: &str) -> Result<Answer, OutputEnd> {
        self.check_orders()?;
        self.line(&format!("{} sends", person.name), &format!("{kind:<8}{data}"))?;
        self.messages += 1;
        let id = format!("m-{}", self.messages);
        let data: &RawValue = serde_json::from_str(data).map_err(failed)?;
        person.client.message(kind, data, Some(&id)).map_err(failed)?;
        let mut deliveries = Vec::new();
        loop {
            let incoming = self.receive(person)?;
            if incoming.is_delivery() {
                self.delivery(person, &incoming)?;
                deliveries.push(incoming.data);
            } else if incoming.id.as_deref() == Some(&*id) {
                self.line(&format!("{} is told", person.name), &of_report(&incoming))?;
                return Ok(Answer { deliveries, report: incoming });
            }
        }
    }

    /// Waits for a delivery that somebody else's message brings.
    fn hears(&mut self, person: &mut Person) -> Result<Value, OutputEnd> {
        self.check_orders()?;
        let incoming = self.receive(person)?;
        self.delivery(person, &incoming)?;
        Ok(serde_json::from_str(incoming.data.get()).map_err(failed)?)
    }

    fn receive(&mut self, person: &mut Person) -> Result<Incoming, Failure> {
        let received = person.client.recv_frame(Some(Instant::now() + PATIENCE));
        let frame = received.and_then(|frame| frame.ok_or(ClientError::Closed));
        let frame = frame.map_err(|error| failed(format_args!("{} waits for something: {error}", person.name)))?;
        Incoming::parse(&frame).map_err(failed)
    }

    fn delivery(&mut self, person: &Person, incoming: &Incoming) -> Result<(), OutputEnd> {
        self.line(&format!("{} gets", person.name), &format!("{:<8}{}", incoming.kind, incoming.data))
    }

    fn expect(&self, fine: bool, what: &str) -> Result<(), OutputEnd> {
        if fine { Ok(()) } else { Err(failed(what).into()) }
    }

    fn check_orders(&self) -> Result<(), Failure> {
        if self.orders.try_recv().is_ok() { Err(interrupted()) } else { Ok(()) }
    }

    fn say(&mut self, text: &str) -> Result<(), OutputEnd> {
        writeln!(self.out, "\n{text}")?;
        Ok(self.out.flush()?)
    }

    fn line(&mut self, who: &str, what: &str) -> Result<(), OutputEnd> {
        writeln!(self.out, "    {who:<WHO_WIDTH$} {what}")?;
        Ok(self.out.flush()?)
    }
}

/// What a message brought its sender.
struct Answer {
    deliveries: Vec<Box<RawValue>>,
    report: Incoming,
}

impl Answer {
    fn good(self) -> Result<Vec<Box<RawValue>>, Failure> {
        let wrong = || failed(format_args!("this should have gone well: {}", of_report(&self.report)));
        if self.report.is_good() { Ok(self.deliveries) } else { Err(wrong()) }
    }

    /// The one delivery of a message that went well.
    fn good_value(self) -> Result<Value, Failure> {
        let deliveries = self.good()?;
        let [data] = &deliveries[..] else { return Err(failed("there should have been one delivery")) };
        serde_json::from_str(data.get()).map_err(failed)
    }
}

/// The counts in the report on a message that a handler answered.
#[derive(Deserialize)]
struct Counts {
    delivered: u64,
    queued: u64,
    offline: u64,
}

/// A report in words.
fn of_report(report: &Incoming) -> String {
    if !report.is_good() {
        let reason = report.reason.as_deref().unwrap_or("no reason");
        return format!("{reason}: {}", outcome::of_report(report).message);
    }
    let users = |count: u64| if count == 1 { "1 user".to_owned() } else { format!("{count} users") };
    match serde_json::from_str(report.data.get()) {
        Ok(Counts { delivered, queued, offline }) => {
            let queued = if queued == 0 { String::new() } else { format!("; {queued} queued on the disk") };
            let away = if offline == 0 { String::new() } else { format!("; {} away", users(offline)) };
            format!("good, delivered to {}{}{}", users(delivered), queued, away)
        }
        Err(_) => "good".to_owned(),
    }
}
