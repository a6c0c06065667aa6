//! `bester demo --federated`: two servers that get to know each other, and whose users meet.
//!
//! They are introduced with the commands that an operator uses, which are shown with what they print.

use super::server::{self, Home, LOOK_EVERY, Place, Server};
use super::{Demo, PATIENCE, Person, failed, interrupted, show};
use crate::cli::{Failure, OutputEnd};
use crate::password::Password;
use crossbeam_channel::Receiver;
use serde_json::{Value, json};
use std::time::Instant;

const A: &str = "a.example";
const B: &str = "b.example";
/// The room of b.example, as it is called on a.example.
const KITCHEN: &str = "kitchen@b.example";
/// Parts of an invitation that are as long as this and hexadecimal are its pin and its secret.
const HIDDEN_LEN: usize = 32;
const SHOWN_LEN: usize = 4;

/// The demo in a directory that the caller removes.
pub(super) fn run(parent: &Home, orders: &Receiver<()>) -> Result<(), Failure> {
    let homes = [parent.within("a", A)?, parent.within("b", B)?];
    let [a, b] = &homes;
    let shown = show(&[a, b], orders, |demo| {
        demo.two_servers(a, b)?;
        parent.remove()?;
        demo.line("directories", "removed")?;
        demo.say(
            "That was all. bester peer --help tells more, and so does README.md, under \"Servers that know\n\
             each other\".\n",
        )
    });
    drop(homes);
    shown
}

impl Demo<'_> {
    fn two_servers(&mut self, a: &Home, b: &Home) -> Result<(), OutputEnd> {
        let [a_port, b_port] = server::free_ports()?;
        let [alice_password] = a.fill(["alice"], Some(&Place { name: A, port: a_port }))?;
        let [bob_password] = b.fill(["bob"], Some(&Place { name: B, port: b_port }))?;
        self.say("Two servers start, each with a directory and a key of its own. Alice is at home on one, bob on the other.")?;
        let began = Instant::now();
        let (mut a_server, mut b_server) = (Server::start(a)?, Server::start(b)?);
        for (home, server, port) in [(a, &mut a_server, a_port), (b, &mut b_server, b_port)] {
            server.wait_until_ready(home, self.orders)?;
            let seconds = began.elapsed().as_secs_f32();
            self.line(home.owner(), &format!("ready after {seconds:.1} s, with TLS on 127.0.0.1:{port}"))?;
        }
        self.introduce(a, b)?;
        let mut alice = self.log_in(a, "alice", &alice_password)?;
        let mut bob = self.log_in(b, "bob", &bob_password)?;
        self.meet(&mut alice, &mut bob)?;
        drop(bob);
        self.one_server_is_away(a, &mut alice, &mut b_server)?;
        let mut b_server = self.it_is_back(a, b, &mut alice, &bob_password)?;

        self.say("Both are told to stop (SIGTERM).")?;
        drop(alice);
        for (home, server) in [(a, &mut a_server), (b, &mut b_server)] {
            server.end()?;
            self.line(home.owner(), "ended well, and its handlers with it")?;
        }
        Ok(())
    }

    fn introduce(&mut self, a: &Home, b: &Home) -> Result<(), OutputEnd> {
        self.say(
            "One command each, and they know each other. The invitation says where a.example is and by which\n\
             key it is known, and has a secret that lets one server in, once.",
        )?;
        let printed = self.command(a, &["peer", "invite"], "")?;
        let invitation = printed.lines().last().unwrap_or_default();
        self.expect(invitation.starts_with("bester-join/1/a.example/"), "there should be an invitation of a.example")?;
        self.line(B, &format!("is given  {}", shortened(invitation)))?;
        let joined = self.command(b, &["peer", "join", "-"], invitation)?;
        self.expect(joined.contains("a.example and this server know each other now"), "b.example should have joined")?;
        self.wait_for_link(a, B, "up")?;
        self.wait_for_link(b, A, "up")?;
        let checked = self.command(a, &["peer", "check", B], "")?;
        self.expect(checked.contains("back: round trip  OK"), "both should reach each other")
    }

    fn meet(&mut self, alice: &mut Person, bob: &mut Person) -> Result<(), OutputEnd> {
        self.say(
            "Bob makes a room on his server, and alice joins it from hers, where it is kitchen@b.example.\n\
             Her report says that her message is safe on the way; the answer follows.",
        )?;
        self.ask(bob, "chat", r#"{"join":"kitchen"}"#)?.good()?;
        self.sends_away(alice, r#"{"join":"kitchen@b.example"}"#)?;
        let answer = self.hears(alice)?;
        self.expect(
            answer["room"] == KITCHEN && answer["members"] == json!(["alice@a.example", "bob@b.example"]),
            "both should be in the kitchen",
        )?;
        let heard = self.hears(bob)?;
        self.expect(heard["joined"] == "alice@a.example", "bob should have heard that alice joined")?;
        self.ask(bob, "chat", r#"{"say":"good morning"}"#)?.good()?;
        let heard = self.hears(alice)?;
        self.expect(heard["from"] == "bob@b.example" && heard["said"] == "good morning", "alice should have heard bob")?;
        self.sends_away(alice, r#"{"say":"hello bob","room":"kitchen@b.example"}"#)?;
        self.both_hear(alice, bob, "hello bob")
    }

    fn one_server_is_away(&mut self, a: &Home, alice: &mut Person, b_server: &mut Server) -> Result<(), OutputEnd> {
        self.say("b.example is stopped.")?;
        b_server.end()?;
        self.line(B, "ended well")?;
        self.wait_for_link(a, B, "waiting")?;
        self.say(
            "Alice writes all the same, and joins again before: this chat forgets its rooms when it ends.\n\
             What she sends waits on the disk, for two days if it must.",
        )?;
        self.sends_away(alice, r#"{"join":"kitchen@b.example"}"#)?;
        self.sends_away(alice, r#"{"say":"lunch at one?","room":"kitchen@b.example"}"#)?;
        let waits = self.command(a, &["queue", "list"], "")?;
        self.expect(waits.contains("peer b.example\t2 messages"), "two messages should wait for b.example")?;
        let peers = self.command(a, &["peer", "list"], "")?;
        self.expect(peers.contains("waiting, next attempt in ") && peers.contains("\t2 messages"), "the list should say so, too")
    }

    /// Gives the server, which runs again.
    fn it_is_back(&mut self, a: &Home, b: &Home, alice: &mut Person, password: &Password) -> Result<Server, OutputEnd> {
        self.say(
            "It is started again. Bob makes the room anew, and then a.example is told to try at once; by\n\
             itself it does so after 5 s, and if that is in vain ever more rarely, up to every 5 minutes.\n\
             (Here after a minute, for bob to be first.)",
        )?;
        let mut server = Server::start(b)?;
        server.wait_until_ready(b, self.orders)?;
        self.line(B, "ready again")?;
        let mut bob = self.log_in(b, "bob", password)?;
        self.ask(&mut bob, "chat", r#"{"join":"kitchen"}"#)?.good()?;
        self.command(a, &["queue", "retry", "--peer", B], "")?;
        let heard = self.hears(&mut bob)?;
        self.expect(heard["joined"] == "alice@a.example", "bob should have heard that alice joined again")?;
        let answer = self.hears(alice)?;
        self.expect(answer["members"] == json!(["alice@a.example", "bob@b.example"]), "both should be in the kitchen again")?;
        self.both_hear(alice, &mut bob, "lunch at one?")?;
        self.wait_for(|| Ok(a.bester(&["queue", "list"], "")?.is_empty()), "nothing should wait for b.example any more")?;
        self.command(a, &["queue", "list"], "")?;
        self.line("", "(nothing waits any more)")?;
        Ok(server)
    }

    /// What alice has said comes back to her, too, as what was said in the room.
    fn both_hear(&mut self, alice: &mut Person, bob: &mut Person, words: &str) -> Result<(), OutputEnd> {
        for person in [bob, alice] {
            let heard = self.hears(person)?;
            let fine = heard["from"] == "alice@a.example" && heard["said"] == words;
            self.expect(fine, &format!("{} should have heard alice", person.name))?;
        }
        Ok(())
    }

    /// Sends something to the chat that goes to another server.
    fn sends_away(&mut self, person: &mut Person, data: &str) -> Result<(), OutputEnd> {
        let answer = self.ask(person, "chat", data)?;
        let counts: Value = serde_json::from_str(answer.report.data.get()).map_err(failed)?;
        self.expect(answer.report.is_good() && counts["queued"] == 1, "the message should be queued for b.example")
    }

    /// Carries out a command on a server, and shows it with what it prints.
    fn command(&mut self, home: &Home, args: &[&str], input: &str) -> Result<String, OutputEnd> {
        self.check_orders()?;
        self.line(home.owner(), &format!("$ bester {}", args.join(" ")))?;
        let printed = home.bester(args, input)?;
        for line in printed.lines() {
            self.line("", &shortened(&line.replace('\t', "  ")))?;
        }
        Ok(printed)
    }

    /// Waits until the link of a server to its peer is like this.
    fn wait_for_link(&mut self, home: &Home, peer: &str, state: &str) -> Result<(), OutputEnd> {
        let is_so = || {
            let list = home.bester(&["peer", "list", "--json"], "")?;
            let link: Value = serde_json::from_str(&list).map_err(failed)?;
            if link["state"] != state && link["state"] == "waiting" {
                // Its first attempt may have come before the other server knew it.
                home.bester(&["queue", "retry", "--peer", peer], "")?;
            }
            Ok(link["state"] == state)
        };
        self.wait_for(is_so, &format!("the link of {} to {peer} should be {state}", home.owner()))
    }

    fn wait_for(&mut self, is_so: impl Fn() -> Result<bool, Failure>, what: &str) -> Result<(), OutputEnd> {
        let deadline = Instant::now() + PATIENCE;
        while !is_so()? {
            if Instant::now() > deadline {
                return Err(failed(what).into());
            }
            if self.orders.recv_timeout(LOOK_EVERY).is_ok() {
                return Err(interrupted().into());
            }
        }
        Ok(())
    }
}

/// A line with what is long and secret in an invitation, or long and no secret, cut.
fn shortened(line: &str) -> String {
    let is_long = |part: &str| part.len() >= HIDDEN_LEN && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let short = |part: &str| match part.get(..SHOWN_LEN) {
        Some(beginning) if is_long(part) => format!("{beginning}…"),
        _ => part.to_owned(),
    };
    line.split('/').map(short).collect::<Vec<String>>().join("/")
}
