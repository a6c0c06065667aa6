//! Every fault of a handler, in every way in which one is talked to, alone and under load: what its sender is told, what
//! the log says, that it works again, that its neighbours do not notice, and that nobody gets what is not his.
//!
//! Each fault in each way has a type of its own, so that all can be at fault at the same time in one server.

mod rows;
mod starts;
mod yardstick;

use crate::fault::{ends, entry};
use crate::ways::{Report, Sender, WAYS, Way, are_in_order};
use crate::world::{Home, Server};
use rows::{Outcome, ROWS, Row};
use std::collections::VecDeque;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use yardstick::Yardstick;

/// Whose handler does nothing wrong.
const BYSTANDER: &str = "bystander";
/// So long may an answer of his take, among all that.
const BYSTANDER_WITHIN: Duration = Duration::from_secs(1);
/// So many faults are tried at once. With all of them, the two processors of a small machine would be busy starting.
const WORKERS: usize = 12;
/// From a death to a good answer.
const BACK_WITHIN: Duration = Duration::from_secs(2);
/// One who does not hear SIGTERM is dead so much later.
const STUBBORN: Duration = Duration::from_millis(500);

/// How many connections ask at once, and how often each.
const CROWD: usize = 3;
const ASKED: usize = 10;

#[test]
fn every_fault_costs_its_own_request_and_nothing_else() {
    let cases: Vec<(Way, &Row)> = ROWS.iter().flat_map(|row| WAYS.map(|way| (way, row))).collect();
    let one = |(way, row): &(Way, &Row)| {
        let keys = format!(r#""queueSeconds": 20, {}"#, row.keys);
        way.entry(&way.kind(row.name), None, row.arguments, &keys)
    };
    let server = serve(&cases.iter().map(one).collect::<Vec<_>>());
    all(&server, cases, |world, (way, row)| Case::new(world, *way, row).runs(), |(way, row)| way.kind(row.name));
}

/// A server with these types, a bystander's, and alice. Returns when all have started: the machine is busy until then.
fn serve(entries: &[String]) -> Server {
    let limits = r#""limits": { "connectionsPerUser": 1000 },"#;
    let server = Home::new(&(entry(BYSTANDER, "", r#""queue": 10000"#) + &entries.concat()), limits, &["alice"]).serve();
    server.wait_for_times(" is up\n", entries.len() + 1);
    server
}

/// What the cases have in common.
struct World<'a> {
    server: &'a Server,
    yardstick: Yardstick,
}

/// Runs all cases, some at the same time, while a bystander sends and is answered well.
fn all<C: Send>(server: &Server, cases: Vec<C>, run: impl Fn(&World<'_>, &C) + Sync, name: impl Fn(&C) -> String + Sync) {
    let cases = Mutex::new(VecDeque::from(cases));
    let failed = Mutex::new(Vec::new());
    let over = AtomicBool::new(false);
    let world = &World { server, yardstick: Yardstick::new() };
    let next = || cases.lock().expect("the cases").pop_front();
    let work = || {
        while let Some(case) = next() {
            // The others go on: all that is wrong is told at once.
            if catch_unwind(AssertUnwindSafe(|| run(world, &case))).is_err() {
                failed.lock().expect("the names").push(name(&case));
            }
        }
    };
    std::thread::scope(|scope| {
        let bystander = scope.spawn(|| stands_by(world, &over));
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                world.yardstick.measures();
            }
        });
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        workers.into_iter().for_each(|worker| worker.join().expect("it catches what goes wrong"));
        over.store(true, Ordering::Relaxed);
        let asked = bystander.join().expect("the bystander is answered well, in order and soon");
        assert!(asked > 100, "{asked}");
    });
    let failed = failed.into_inner().expect("the names");
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(server.log().matches(&format!("handler {BYSTANDER} started")).count(), 1);
}

/// Sends without end; how often.
fn stands_by(world: &World<'_>, over: &AtomicBool) -> usize {
    let mut sender = Sender::new(world.server.log_in("alice"), BYSTANDER);
    let mut asked = 0;
    while !over.load(Ordering::Relaxed) {
        for _ in 0..4 {
            sender.asks(BYSTANDER);
        }
        asked += 4;
        let reports = sender.gets_all();
        are_in_order(&reports);
        reports.iter().for_each(|report| world.is_bystanders(report));
    }
    asked
}

impl World<'_> {
    #[track_caller]
    fn is_bystanders(&self, report: &Report) {
        assert!(report.bad.is_none() && report.delivered, "{report:?}");
        let slack = self.yardstick.slack();
        assert!(report.after < BYSTANDER_WITHIN + slack, "a bystander had to wait, and not for {slack:?}: {report:?}");
    }
}

/// One fault in one way.
struct Case<'a> {
    world: &'a World<'a>,
    server: &'a Server,
    way: Way,
    row: &'a Row,
    kind: String,
    outcome: Outcome,
    /// How often it was started at first: a short deadline may be too short where all start at once.
    first: usize,
    /// How often it was at fault.
    faults: usize,
}

impl<'a> Case<'a> {
    fn new(world: &'a World<'a>, way: Way, row: &'a Row) -> Case<'a> {
        Case { world, server: world.server, way, row, kind: way.kind(row.name), outcome: row.outcome(way), first: 0, faults: 0 }
    }

    fn runs(&mut self) {
        let mut sender = Sender::new(self.server.log_in("alice"), &format!("{}/alone", self.kind));
        sender.works(&self.kind);
        self.first = self.started();
        self.alone(&mut sender);
        if !self.row.alone {
            self.under_load();
        }
        sender.works(&self.kind);
        sender.got_nothing();
        let late = self.row.keys.contains("timeoutSeconds") && self.world.yardstick.slack() > STUBBORN;
        assert!(self.started() == self.starts() || late, "{} starts of {}", self.started(), self.kind);
    }

    fn started(&self) -> usize {
        self.server.log().matches(&format!("handler {} started", self.kind)).count()
    }

    /// How many starts there must have been.
    fn starts(&self) -> usize {
        if self.outcome.replaced { self.first + self.faults } else { self.first }
    }

    /// Nothing else is under way.
    fn alone(&mut self, sender: &mut Sender) {
        sender.sends(&self.kind, self.row.steps);
        let report = sender.gets();
        let begun = Instant::now();
        self.was_at_fault(&report);
        self.is_back(sender, begun);
    }

    /// Its report is as it should be, and so is what the log says.
    #[track_caller]
    fn was_at_fault(&mut self, report: &Report) {
        self.faults += 1;
        match (self.outcome.reason, &report.bad) {
            // Whoever wastes an answer delivers nothing.
            (None, None) => assert_eq!(report.delivered, self.row.steps.contains("$NONCE"), "{report:?}"),
            (Some(reason), Some(bad)) => {
                assert_eq!(bad.reason, reason, "{report:?}");
                assert_eq!(bad.temporary, reason != "handlerProtocol", "{report:?}");
                assert!(self.outcome.is_told(&self.kind, &bad.message), "{report:?}");
            }
            (expected, _) => panic!("{expected:?} was expected: {report:?}"),
        }
        if let Some(line) = self.outcome.line(&self.kind) {
            self.server.wait_for_times(&line, self.faults);
            if self.outcome.replaced {
                // Between the two may stand what it printed last.
                let log = self.server.log();
                let mut lines = log.lines().filter(|logged| logged.contains(&line));
                assert!(lines.all(|logged| logged.ends_with("; it will be started again in 1 s")), "{}", self.kind);
            }
        }
    }

    /// It works again, soon after its death.
    #[track_caller]
    fn is_back(&self, sender: &mut Sender, begun: Instant) {
        if self.outcome.replaced {
            // Whoever was left behind is gone, or goes when he notices.
            if let Ok(left) = fs::read_to_string(self.server.home.path().join(format!("left-{}", self.kind))) {
                ends(left.parse().expect("a number"));
            }
            self.server.wait_for_times(&format!("handler {} started", self.kind), self.starts());
        }
        sender.works(&self.kind);
        if self.outcome.replaced {
            let within = BACK_WITHIN + if self.row.arguments.contains(&"stubborn") { STUBBORN } else { Duration::ZERO };
            assert!(begun.elapsed() < within + self.world.yardstick.slack(), "{} took {:?} to work again", self.kind, begun.elapsed());
        }
    }

    /// Several ask the faulty type and the bystander's at the same time.
    fn under_load(&mut self) {
        let Case { server, kind, row, .. } = &*self;
        let mut senders: Vec<Sender> = (0..CROWD).map(|n| Sender::new(server.log_in("alice"), &format!("{kind}/{n}"))).collect();
        let faulty = Mutex::new(String::new());
        let reports: Vec<Vec<Report>> = std::thread::scope(|scope| {
            let send = |(place, sender): (usize, &mut Sender)| {
                for turn in 0..ASKED {
                    sender.asks(kind);
                    sender.asks(BYSTANDER);
                    if place == 0 && turn == ASKED / 2 {
                        *faulty.lock().expect("its id") = sender.sends(kind, row.steps);
                    }
                }
                sender.gets_all()
            };
            let crowd: Vec<_> = senders.iter_mut().enumerate().map(|one| scope.spawn(move || send(one))).collect();
            crowd.into_iter().map(|one| one.join().expect("all reports")).collect()
        });
        let faulty = faulty.into_inner().expect("its id");
        let mut others = 0;
        // With connections of their own, requests under way at the same time may be answered in any order.
        let in_order = self.way != Way::Single || !self.row.keys.contains("inFlight");
        for reports in &reports {
            if in_order {
                are_in_order(reports);
            }
            for report in reports {
                if report.kind == BYSTANDER {
                    self.world.is_bystanders(report);
                } else if report.id == faulty {
                    self.was_at_fault(report);
                } else if let Some(bad) = &report.bad {
                    // Where the deadline is short, a busy machine may let it pass.
                    let late = bad.reason == "handlerTimeout" && self.row.keys.contains("timeoutSeconds");
                    assert!(bad.reason == "handlerCrashed" || late && self.world.yardstick.slack() > STUBBORN, "{report:?}");
                    others += usize::from(!late);
                } else {
                    assert!(report.delivered, "{report:?}");
                }
            }
        }
        assert!(others <= self.outcome.others, "{others} others fell with it");
        self.is_back(&mut senders[0], Instant::now());
        senders.iter_mut().for_each(Sender::got_nothing);
    }
}
