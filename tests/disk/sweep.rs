//! Does with a database what a server does with it, under the disk of `tests/disk`, and says what was answered good. A test
//! has it fail at the n-th write or sync, for every n.
//!
//! ```text
//! disk-sweep DATABASE LATER     LATER is the file of BESTER_DISK_LATER
//! ```
//!
//! Prints a line for each answer, when it has come: what was done and "good" or "bad". What is bad is tried again until the
//! disk works again. "gone" says of letters that were acknowledged or are too old that they were seen to be gone; "sent" and
//! "refused" say it of messages for another server, of which that one was said to have them, or never to take them.

use bester::frame::Slice;
use bester::name::{PeerId, ServerName, Username};
use bester::password::Hash;
use bester::store::mail::{
    Author, Destination, Keep, Letter, Memo, Outgoing, Parcel, Place, Receipt, Recipient, Report, Ticket, Told, Write,
};
use bester::store::{Database, Newcomer, Settings, Store, StoreError, Verify};
use bester::tls::Pin;
use crossbeam_channel::Receiver;
use std::error::Error;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Cheap ones, of the words "password" and "another one".
const FIRST: &str = "$argon2id$v=19$m=8,t=1,p=1$YmVuY2hiZW5jaGJlbmNoMQ$GPgRwXP4uvGqLqRSWmrCOJnlpTSgNMzp2LY+VIhF6yI";
const SECOND: &str = "$argon2id$v=19$m=8,t=1,p=1$YmVuY2hiZW5jaGJlbmNoMg$GPgRwXP4uvGqLqRSWmrCOJnlpTSgNMzp2LY+VIhF6yI";
/// More than are needed until a disk that works again is used again: they take ten seconds.
const TRIES: u64 = 200;
/// Pauses, which are the only waiting here that goes by the true clock.
const TRY_AGAIN: Duration = Duration::from_millis(50);
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// How often it is looked whether letters are gone.
const LOOKS: u32 = 2000;
/// Letters are kept for an hour here.
const HOUR: Duration = Duration::from_secs(3600);
/// So many seconds after the first letter all others are kept, ...
const OTHERS: u64 = 2000;
/// ... and in these steps it becomes too old, and only that one. A clock must be seen to go right for ten minutes.
const STEPS: [u64; 3] = [2700, 3400, 4500];

fn main() -> Outcome<()> {
    let words: Vec<String> = std::env::args().collect();
    let [_, path, later] = &words[..] else { return Err("disk-sweep DATABASE LATER".into()) };
    let path = Path::new(path);
    let server = ServerName::new("b.example")?;
    let newcomer = Newcomer { name: server.clone(), addresses: Vec::new(), verify: Verify::Pins(vec![Pin::of(b"key")]) };
    let peer = again("add b.example", || {
        let mut database = Database::open(path).ok()?;
        match database.add_peer(&newcomer, 9) {
            // The first try may have been carried out although its answer was bad.
            Err(StoreError::PeerTaken(_)) => database.peers().ok()?.first().map(|peer| peer.id),
            result => result.ok(),
        }
    })?;
    // A server that cannot start is started again by its operator.
    let (answers, told) = crossbeam_channel::unbounded();
    let settings = Settings { mailbox_age: HOUR, memo_age: HOUR, start_prefix: "a.example/1-".into(), ..Settings::default() };
    let (store, threads) = again("start", || {
        let answers = answers.clone();
        let tell = move |told: Vec<Told>| told.into_iter().for_each(|told| drop(answers.send(told)));
        let database = Database::open(path).ok()?;
        Store::start(database, settings.clone(), tell).ok()
    })?;
    let mut sweep = Sweep { store, told, tickets: 0, peer };

    let (alice, bob, carol, dave) = (name("alice")?, name("bob")?, name("carol")?, name("dave")?);
    let first = Hash::parse(FIRST)?;
    again("register carol", || match sweep.store.register(carol.clone(), first.clone()) {
        // The first try may have been carried out although its answer was bad.
        Err(StoreError::Taken(_)) => Some(0),
        result => result.ok(),
    })?;
    let second = Hash::parse(SECOND)?;
    again("password alice", || {
        let revision = sweep.store.account(&alice).ok()??.revision;
        sweep.store.change_password(alice.clone(), second.clone(), revision).ok()
    })?;
    sweep.keep("old", &[&dave])?;
    let later = Path::new(later);
    make_it_later(later, OTHERS)?;
    let one = sweep.keep("one", &[&bob])?;
    let two = sweep.keep("two", &[&bob, &carol])?;
    let tried = vec![one.seq + 1];
    sweep.write(Write::Tried { user: bob.clone(), seqs: tried })?;
    sweep.write(Write::Settle { user: bob.clone(), up_to: one.seq, reports: true, conn: None })?;
    for receipt in [Receipt::Unreached, Receipt::Deferred(vec![two.sent]), Receipt::Taken(vec![one.sent]), Receipt::Refused(two.sent)] {
        sweep.write(Write::Sent(peer, receipt))?;
    }
    sweep.keep("three", &[&bob])?;
    sweep.await_gone(path, &bob, "one", || Ok(()))?;
    sweep.await_sent(path, &server, &one, "sent")?;
    sweep.await_sent(path, &server, &two, "refused")?;

    // In steps, so that the clock is seen to go right.
    let mut step = 0;
    sweep.await_gone(path, &dave, "old", || {
        // On and on: what has failed is not tried again before a minute has passed.
        make_it_later(later, STEPS[step.min(STEPS.len() - 1)] + step as u64 / 2)?;
        step += 1;
        Ok(())
    })?;
    let Sweep { store, told, .. } = sweep;
    drop((store, told));
    threads.finish();
    println!("end good");
    Ok(())
}

fn name(text: &str) -> Outcome<Username> {
    Ok(Username::new(text)?)
}

/// In place: the file is mapped, and must never be shorter.
fn make_it_later(file: &Path, seconds: u64) -> io::Result<()> {
    OpenOptions::new().write(true).open(file)?.write_all(&seconds.to_ne_bytes())
}

/// Until it goes well.
fn again<T>(what: &str, mut act: impl FnMut() -> Option<T>) -> Outcome<T> {
    for _ in 0..TRIES {
        if let Some(value) = act() {
            println!("{what} good");
            return Ok(value);
        }
        println!("{what} bad");
        std::thread::sleep(TRY_AGAIN);
    }
    Err(format!("{what} does not become good").into())
}

struct Sweep {
    store: Store,
    told: Receiver<Told>,
    tickets: u64,
    peer: PeerId,
}

/// A letter that was kept, and the message for the other server with it.
struct Kept {
    text: String,
    /// The letter's number for the first of its users.
    seq: u64,
    /// The message's.
    sent: u64,
}

impl Sweep {
    fn write(&self, write: Write) -> Outcome<()> {
        self.store.write(vec![write]).map_err(|_| "too much waits".into())
    }

    /// Keeps a letter for these users and for the other server, with a memo. Each try is a letter of its own: "what#1", "what#2".
    fn keep(&mut self, what: &str, users: &[&Username]) -> Outcome<Kept> {
        for tries in 1..=TRIES {
            let text = format!("{what}#{tries}");
            let places = self.try_to_keep(&text, users)?;
            if let (Some(Place::Queued(seq)), Some(Place::Queued(sent))) = (places.first(), places.last()) {
                println!("keep {text} {} good", users.iter().map(|user| user.as_str()).collect::<Vec<_>>().join(","));
                return Ok(Kept { text, seq: *seq, sent: *sent });
            }
            println!("keep {text} bad");
            std::thread::sleep(TRY_AGAIN);
        }
        Err(format!("{what} cannot be kept").into())
    }

    fn try_to_keep(&mut self, text: &str, users: &[&Username]) -> Outcome<Vec<Place>> {
        self.tickets += 1;
        let data = Slice::from(format!("\"{text}\"").as_bytes());
        let message_id = format!("a.example/1-{}", self.tickets).into();
        let author = Some(Author { user: name("dave")?, id: None, message_id: format!("a.example/1-{}", self.tickets).into() });
        let (message_id_out, to) = (format!("a.example/1-{}-1", self.tickets).into(), Destination::Peer(self.peer));
        let outgoing = Outgoing { to, message_id: message_id_out, kind: "post".into(), data: data.clone(), hops: 1, author };
        let letter = Arc::new(Letter { message_id, kind: "post".into(), data: data.clone(), asker: None, report: None });
        let recipients = users.iter().map(|user| Recipient { user: (*user).clone(), counts: true, handed: false }).collect();
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&self.tickets.to_ne_bytes());
        let memo = Some(Memo { digest, peer: self.tickets.is_multiple_of(2).then_some(self.peer), report: Report::Ready(data) });
        let keep = Keep { parcels: vec![Parcel { letter, recipients }], outgoing: vec![Arc::new(outgoing)], memo };
        self.write(Write::Keep(Ticket(self.tickets), Arc::new(keep)))?;
        loop {
            match self.told.recv()? {
                Told::Kept(ticket, result) if ticket.0 == self.tickets => return Ok(result.unwrap_or_default()),
                _ => {}
            }
        }
    }

    /// Waits until a message does not lie in the outbox any longer.
    fn await_sent(&mut self, path: &Path, server: &ServerName, kept: &Kept, word: &str) -> Outcome<()> {
        for _ in 0..LOOKS {
            self.write(Write::Sent(self.peer, Receipt::Taken(Vec::new())))?;
            let mut there = false;
            let seen = Database::open(path).and_then(|database| {
                database.outgoing(server, false, |unsent| {
                    there |= unsent.seq == kept.sent;
                    Ok::<_, StoreError>(())
                })
            });
            if seen.is_ok() && !there {
                println!("{word} {} good", kept.text);
                return Ok(());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Err(format!("{} stays in the outbox", kept.text).into())
    }

    /// Waits until no letter of a user begins like this any longer. The storage thread is kept awake meanwhile.
    fn await_gone(&mut self, path: &Path, user: &Username, what: &str, mut each: impl FnMut() -> Outcome<()>) -> Outcome<()> {
        // Not by the clock, which goes too fast here.
        for _ in 0..LOOKS {
            each()?;
            self.write(Write::Settle { user: user.clone(), up_to: 0, reports: true, conn: None })?;
            let mut there = false;
            let seen = Database::open(path).and_then(|database| {
                database.letters(user, true, |item| {
                    let data = item.data.unwrap_or_default();
                    there |= data.strip_prefix(b"\"").is_some_and(|data| data.starts_with(what.as_bytes()));
                    Ok::<_, StoreError>(())
                })
            });
            if seen.is_ok() && !there {
                println!("gone {what} good");
                return Ok(());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Err(format!("{what} does not go").into())
    }
}
