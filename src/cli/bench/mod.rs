//! `bester bench`: load on a running server, with an account of every message.
//!
//! Start reading at [`run`]. `plan.rs` has the options, `crew.rs` logs in, `load.rs` is the loop of each thread with a
//! `session.rs` for each connection, `wire.rs` and `message.rs` know what is sent, `ledger.rs` and `stream.rs` what must
//! come of it, and `report.rs` tells. The handler for it is in `handler.rs`.

mod crew;
pub mod handler;
mod ledger;
mod load;
mod message;
mod plan;
mod report;
mod session;
mod stream;
mod wire;

use super::{Failure, output, parse, print, warn};
use crate::client::Client;
use crate::signals::Signals;
use crate::sys;
use crossbeam_channel::{Receiver, bounded, select};
use load::{Load, Part, Shared, Tally, nanos};
use plan::Plan;
use report::Figures;
use session::Session;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What `bester bench --help` prints.
pub const HELP: &str = "\
Usage: bester bench [-s ADDRESS] [-u PREFIX | --users FILE] [OPTIONS]

Puts load on a running server, says how fast it was, and accounts for every message: what was
lost, came twice, out of order or changed is counted, and is a failure. The server needs a type
with the handler bester bench-handler (or another that sends back what it gets, such as echo,
where --fan-out is not used), and accounts of the bench's own, all with the same password:

  for i in $(seq 0 9); do bester user add bench$i < password-file; done
  bester bench --clients 10 --in-flight 16 --password-file password-file
  bester bench --clients 10 --rate 5000 --size 1000 -s unix:state/bester.sock

Who sends where:
  -s, --server ADDRESS      tcp://HOST:PORT, tls://HOST:PORT or unix:PATH
                            (tcp://127.0.0.1:2223)
      --pin PIN             with tls://, the server must have the key with this pin, which its
                            operator knows from bester check. Without it, its certificate must be
                            from an authority that this machine trusts
  -u, --user PREFIX         log in as PREFIX0, PREFIX1 and so on (bench)
      --users FILE          log in as the users in FILE, a name a line
      --password-file FILE  take the password of all of them from the first line of FILE
      --clients N           how many log in (1; with --users, all in FILE)
  -t, --type TYPE           the type of the messages (bench)

What is sent, and when:
      --in-flight N         closed loop: each client keeps N messages under way (1). A message is
                            under way until its report comes or, without ids, it is back
      --rate R              open loop: R messages a second in all, at equal distances, whatever
                            the server does. Latencies count from when a message should have
                            been sent, so they show every stall in full
      --size BYTES          the data of each message, 61 or more (128)
      --fan-out N           each message goes to N clients: its sender, and the next ones (1)
      --no-id               no ids: the server delivers, and reports nothing but failures
      --warm SECONDS        what comes in this time is not in the figures (1)
      --duration SECONDS    how long to measure (10)
      --drain SECONDS       how long to wait for what is missing in the end; then it is lost (5)
      --threads N           threads that send and receive (1)

What is told:
      --json                one JSON object
      --quiet               no progress on standard error; else a line each second, if that is a
                            terminal
  -h, --help                print this

Latencies are in microseconds. \"delivery\" and \"report\" are from sending a message until it is
delivered and reported; \"sent late by\" (open loop) is the part of both that was spent before the
bench could write the message, because the connection took no more or the bench was too slow.

The limits of the server hold for the bench as for everybody. It does not read on where a client
has limits.inFlight messages under way; messages beyond the queue of the handler fail as busy; a
client that does not read fast enough what others send it (limits.outgoingFrames) is cut off.

The password comes from --password-file, or from the file that BESTER_PASSWORD_FILE names;
else it is asked for. Where standard input is no terminal, its first line is the password.
Ctrl-C ends the sending early.

Exit codes:
   0  every message is accounted for
  64  called wrongly
  65  a name, a file or the password is of no use
  69  there is no server, or a connection was lost
  70  a message was lost, doubled, out of order, changed or failed
  74  writing failed
  75  the server is busy
  77  wrong password, another server than expected (--pin), or not allowed
";

const STACK_BYTES: usize = 256 << 10;
const SECOND: Duration = Duration::from_secs(1);

/// Carries out `bester bench` with the arguments that follow it.
///
/// # Errors
/// As in [`HELP`].
pub fn run(args: &[String]) -> Result<(), Failure> {
    let matches = parse("bench", &plan::options(), args)?;
    if matches.opt_present("help") {
        return print(HELP);
    }
    let (plan, password) = Plan::new(&matches, |name| std::env::var(name).ok())?;
    let plan = Arc::new(plan);
    let progress = Progress { told: !matches.opt_present("quiet") && io::stderr().is_terminal() };
    if let Err(error) = sys::raise_descriptor_limit() {
        warn(format_args!("the limit of open files stays as it is: {error}"));
    }
    let clients = crew::log_in(&plan, password, |count| progress.tell(format_args!("{count} of {} logged in", plan.names.len())))?;
    let (signals, stop) = Signals::of_command().map_err(|error| crew::no_thread(&error))?;
    let result = carry_out(&plan, clients, &stop, &progress);
    signals.stop();
    let (shared, parts) = result?;

    let mut tally = Tally::new();
    let mut books = Vec::new();
    for part in parts {
        tally.add(part.tally);
        books.extend(part.books);
    }
    books.sort_unstable_by_key(|(index, _)| *index);
    let books = books.into_iter().map(|(_, book)| book).collect();
    let total = ledger::settle(books, &mut tally.faults);
    let time = Duration::from_nanos(shared.end().saturating_sub(nanos(plan.warm)));
    let broken = shared.broken();
    let figures = Figures { plan: &plan, time, tally: &tally, total, broken: broken.as_deref() };
    output(|out| match matches.opt_present("json") {
        true => Ok(writeln!(out, "{}", figures.json())?),
        false => Ok(out.write_all(figures.text().as_bytes())?),
    })?;
    match (&broken, figures.faults()) {
        (Some(broken), _) => Err(Failure::unavailable(broken)),
        (None, Some(faults)) => Err(Failure::software(format_args!("not every message is accounted for: {faults}"))),
        (None, None) => Ok(()),
    }
}

/// Runs the threads until they have nothing more to do.
fn carry_out(
    plan: &Arc<Plan>,
    clients: Vec<Client>,
    stop: &Receiver<()>,
    progress: &Progress,
) -> Result<(Arc<Shared>, Vec<Part>), Failure> {
    let unavailable = |error: io::Error| Failure::unavailable(format_args!("the bench cannot run: {error}"));
    let mut crews: Vec<Vec<Session>> = (0..plan.threads).map(|_| Vec::new()).collect();
    for (index, client) in clients.into_iter().enumerate() {
        crews[index % plan.threads].push(Session::new(plan, index, client).map_err(unavailable)?);
    }
    let loads: Result<Vec<Load>, io::Error> = crews.into_iter().map(|sessions| Load::new(Arc::clone(plan), sessions)).collect();
    let loads = loads.map_err(unavailable)?;
    let shared = Arc::new(Shared::new(plan, loads.len()));
    let (done, ends) = bounded::<()>(0);
    let mut threads = Vec::new();
    for load in loads {
        let (its_shared, done) = (Arc::clone(&shared), done.clone());
        let body = move || {
            let part = load.run(&its_shared);
            drop(done);
            part
        };
        threads.push(crate::thread::spawn("load", STACK_BYTES, body).map_err(|error| crew::no_thread(&error))?);
    }
    drop(done);
    progress.follow(plan, &shared, stop, &ends);
    let mut parts = Vec::new();
    for thread in threads {
        let part = thread.join().map_err(|_| Failure::software("a thread of the bench came to a bad end"))?;
        parts.push(part.map_err(unavailable)?);
    }
    Ok((shared, parts))
}

/// Tells how things are going.
struct Progress {
    told: bool,
}

impl Progress {
    fn tell(&self, words: std::fmt::Arguments<'_>) {
        if self.told {
            let _ = writeln!(io::stderr(), "{words}"); // who closed it does not want to know
        }
    }

    /// Until the last thread lets go of its end of `ends`.
    fn follow(&self, plan: &Plan, shared: &Shared, stop: &Receiver<()>, ends: &Receiver<()>) {
        let tick = crossbeam_channel::tick(SECOND);
        let mut before = (0, 0);
        loop {
            select! {
                recv(ends) -> _ => return,
                recv(stop) -> _ => shared.stop(),
                recv(tick) -> _ => {
                    let now = (shared.messages.load(Ordering::Relaxed), shared.deliveries.load(Ordering::Relaxed));
                    let outstanding = shared.outstanding.load(Ordering::Relaxed).max(0);
                    self.tell(format_args!(
                        "{:4} s {:>9} messages/s {:>9} deliveries/s, {outstanding} outstanding{}",
                        shared.start.elapsed().as_secs(),
                        now.0 - before.0,
                        now.1 - before.1,
                        if nanos(shared.start.elapsed()) < nanos(plan.warm) { ", warming up" } else { "" },
                    ));
                    before = now;
                }
            }
        }
    }
}
