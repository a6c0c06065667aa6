//! Two servers in one thread, each a dispatcher, a disk and a link, with everything that can go wrong between and in them, in an
//! order that a number decides: so a run that fails can be run again.
//!
//! Alice of each server sends to bob of the other. Their handlers pass on what comes from here, and have bob given what comes
//! from there. Connections are lost with all that is on them, disks do what they were ordered in their time, and a server
//! that is killed keeps what its disk has done and nothing else.

mod disk;
mod side;

use super::courier::Verdict;
use side::Side;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const SEEDS: u64 = 1000;
/// What happens in a run, before everything is healed.
const STEPS: usize = 400;
/// After that everything must come to rest within so many turns.
const TURNS_MAX: usize = 20_000;

/// Numbers that look random and are always the same (splitmix64).
struct Dice(u64);

impl Dice {
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, most: u64) -> u64 {
        self.number() % most
    }
}

/// What is on its way from one server to the other and back.
#[derive(Default)]
struct Cable {
    /// Frames of the link, and reports.
    there: Vec<Vec<u8>>,
    back: Vec<Vec<u8>>,
    /// The connection stands.
    up: bool,
    /// None can be made.
    cut: bool,
}

struct Simulation {
    dice: Dice,
    now: Instant,
    /// A and B.
    sides: [Side; 2],
    /// From A to B, and from B to A.
    cables: [Cable; 2],
    /// The number of the last message that was sent.
    last: u64,
    /// By number: from which side, and whether alice was told that it is good.
    sent: BTreeMap<u64, (usize, bool)>,
}

impl Simulation {
    fn new(seed: u64) -> Simulation {
        let now = Instant::now();
        let mut sides = [Side::new("a.example", "b.example", now), Side::new("b.example", "a.example", now)];
        sides.iter_mut().for_each(|side| side.starts(now));
        Simulation { dice: Dice(seed), now, sides, cables: Default::default(), last: 0, sent: BTreeMap::new() }
    }

    /// Something happens, if it can.
    fn step(&mut self) {
        let place = self.dice.below(2) as usize;
        match self.dice.below(100) {
            0..20 => self.alice_sends(place),
            20..40 => _ = self.sides[place].handler_answers(self.now),
            40..60 => _ = self.disk_works(place),
            60..80 => _ = self.cable_carries(place),
            80..90 => _ = self.sides[place].bob_acknowledges(self.now),
            90..94 => self.connection_breaks(place),
            94 => self.cables[place].cut = !self.cables[place].cut,
            95 => self.killed(place),
            _ => {
                let time = Duration::from_millis(self.dice.below(8_000));
                self.time_passes(time);
            }
        }
        self.links_work();
    }

    fn alice_sends(&mut self, place: usize) {
        self.last += 1;
        self.sent.insert(self.last, (place, false));
        self.sides[place].alice_sends(self.now, self.last);
    }

    fn disk_works(&mut self, place: usize) -> bool {
        let writes = self.dice.below(2) == 0;
        self.sides[place].disk_works(self.now, writes)
    }

    /// The first frame of one direction arrives.
    fn cable_carries(&mut self, place: usize) -> bool {
        let cable = &mut self.cables[place];
        let back = self.dice.below(2) == 0;
        let lane = if back { &mut cable.back } else { &mut cable.there };
        if lane.is_empty() {
            return false;
        }
        let frame = lane.remove(0);
        if back {
            self.sides[place].report_arrives(self.now, self.dice.number() as u32, &frame);
        } else {
            self.sides[1 - place].frame_arrives(self.now, &frame);
        }
        true
    }

    fn connection_breaks(&mut self, place: usize) {
        let cable = &mut self.cables[place];
        (cable.there, cable.back) = Default::default();
        if std::mem::take(&mut cable.up) {
            self.sides[place].link_lost(self.now, self.dice.number() as u32);
            self.sides[1 - place].peer_gone(self.now);
        }
    }

    fn killed(&mut self, place: usize) {
        // What the disk was ordered it may have done before, though nobody was told.
        let done = self.dice.below(4);
        self.sides[place].is_killed(done as usize);
        for direction in 0..2 {
            let cable = &mut self.cables[direction];
            (cable.there, cable.back) = Default::default();
            if std::mem::take(&mut cable.up) {
                match direction == place {
                    true => self.sides[1 - place].peer_gone(self.now),
                    false => self.sides[1 - place].link_lost(self.now, self.dice.number() as u32),
                }
            }
        }
        self.sides[place].starts(self.now);
    }

    fn time_passes(&mut self, time: Duration) {
        self.now += time;
        for side in &mut self.sides {
            side.ticks(self.now, self.dice.number() as u32);
        }
    }

    /// What links order is done, and what came to people is noted.
    fn links_work(&mut self) -> bool {
        let mut worked = false;
        for place in 0..2 {
            let (wants_connection, frames, broke) = self.sides[place].link_orders(self.now, self.dice.number() as u32);
            if broke {
                self.connection_breaks(place);
            }
            if wants_connection {
                worked = true;
                let cable = &mut self.cables[place];
                cable.up = !cable.cut;
                match cable.up {
                    true => {
                        self.sides[1 - place].peer_comes(self.now);
                        self.sides[place].link_connected(self.now, self.dice.number() as u32);
                    }
                    false => self.sides[place].link_lost(self.now, self.dice.number() as u32),
                }
            }
            if self.cables[place].up {
                self.cables[place].there.extend(frames);
            }
        }
        for place in 0..2 {
            let reports = self.sides[place].take_reports();
            if self.cables[1 - place].up {
                self.cables[1 - place].back.extend(reports);
            }
            for number in self.sides[place].take_good() {
                worked = true;
                self.sent.entry(number).and_modify(|(_, good)| *good = true);
            }
        }
        worked
    }

    /// Everything is healed and comes to rest.
    fn comes_to_rest(&mut self) {
        self.cables.iter_mut().for_each(|cable| cable.cut = false);
        let mut idle = 0;
        for _ in 0..TURNS_MAX {
            let mut worked = self.links_work();
            for place in 0..2 {
                worked |= self.sides[place].handler_answers(self.now);
                worked |= self.disk_works(place);
                worked |= self.cable_carries(place);
                worked |= self.sides[place].bob_acknowledges(self.now);
            }
            idle = if worked { 0 } else { idle + 1 };
            if idle > 20 {
                if self.sides.iter().all(Side::is_empty) {
                    return;
                }
                self.time_passes(Duration::from_secs(1));
                idle = 0;
            }
        }
        panic!("it does not come to rest: {:?}", self.sides.iter().map(Side::left).collect::<Vec<_>>());
    }

    /// What must be true in the end.
    fn check(&self) -> (usize, usize) {
        let mut good = 0;
        for (number, (from, was_good)) in &self.sent {
            let given = self.sides[1 - from].given(*number);
            assert!(given <= 1, "message {number} was given to bob {given} times");
            assert!(!was_good || given == 1, "message {number} was good, and is lost");
            good += usize::from(*was_good);
        }
        (good, self.sides.iter().map(|side| side.handled).sum())
    }
}

#[test]
fn what_was_good_comes_to_the_other_server_once_whatever_happens() {
    let first = std::env::var("BESTER_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = first.map_or(0..SEEDS, |seed| seed..seed + 1);
    let (mut good, mut runs) = (0, 0);
    for seed in seeds {
        let run = || {
            let mut simulation = Simulation::new(seed);
            (0..STEPS).for_each(|_| simulation.step());
            simulation.comes_to_rest();
            simulation.check()
        };
        let (of_run, _) = std::panic::catch_unwind(run).unwrap_or_else(|_| panic!("BESTER_SEED={seed} fails"));
        good += of_run;
        runs += 1;
    }
    // Were nearly nothing good, this would be a test of nothing.
    assert!(good > 10 * runs, "only {good} messages were good in {runs} runs");
}

/// How a report of the other server reads.
fn verdict(report: &crate::protocol::server::Report) -> Verdict {
    match (report.good, report.temporary) {
        (true, _) => Verdict::Good,
        (false, true) => Verdict::NotNow,
        (false, false) => Verdict::Never,
    }
}
