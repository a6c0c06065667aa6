use super::Action::*;
use super::*;
use std::fmt::Write;

const STOP: Duration = Duration::from_secs(5);

/// A supervisor, and its clock.
struct World {
    supervisor: Supervisor,
    now: Instant,
}

impl World {
    fn new() -> World {
        let now = Instant::now();
        World { supervisor: Supervisor::new(now, STOP, true), now }
    }

    fn up() -> World {
        let mut world = World::new();
        assert_eq!(world.after(0), [Start]);
        assert_eq!(world.takes(Input::Reachable), [TellUp]);
        world
    }

    fn takes(&mut self, input: Input) -> Vec<Action> {
        self.supervisor.take(self.now, input)
    }

    fn after(&mut self, millis: u64) -> Vec<Action> {
        self.now += Duration::from_millis(millis);
        self.takes(Input::Due)
    }

    /// Takes the time until the next start, and that start; gives the milliseconds.
    fn starts_after(&mut self) -> u128 {
        let due = self.supervisor.due().expect("it is going to be started");
        let waited = due - self.now;
        self.now = due;
        assert_eq!(self.takes(Input::Due), [Start]);
        assert_eq!(self.takes(Input::Reachable), [TellUp]);
        waited.as_millis()
    }
}

fn died() -> Input {
    Input::Died { why: "died".into(), not_again: false }
}

fn down(next: Next) -> Action {
    TellDown("died".into(), next)
}

fn in_seconds(seconds: u64) -> Next {
    Next::StartsIn(Duration::from_secs(seconds))
}

/// A way into each state, by its name.
const STATES: [(&str, &[&str]); 11] = [
    ("backing off", &[]),
    ("held", &["hold"]),
    ("starting", &["due"]),
    ("ready", &["due", "reachable"]),
    ("answering", &["due", "reachable", "answered"]),
    ("closed", &["due", "reachable", "closed"]),
    ("asked", &["due", "reachable", "stop"]),
    ("terminated", &["due", "reachable", "replace"]),
    ("killed", &["due", "reachable", "replace", "due"]),
    ("failed", &["due", "reachable", "not again"]),
    ("ended", &["stop"]),
];

const INPUTS: [&str; 13] = [
    "due",
    "start failed",
    "no room",
    "reachable",
    "answered",
    "closed",
    "replace",
    "died",
    "not again",
    "hold",
    "resume",
    "leave",
    "stop",
];

fn input(name: &str) -> Input {
    let why = || Complaint::from("died");
    match name {
        "due" => Input::Due,
        "start failed" => Input::StartFailed { why: why(), shortage: false },
        "no room" => Input::StartFailed { why: why(), shortage: true },
        "reachable" => Input::Reachable,
        "answered" => Input::Answered,
        "closed" => Input::Closed(why()),
        "replace" => Input::Replace(why()),
        "died" => died(),
        "not again" => Input::Died { why: why(), not_again: true },
        "hold" => Input::Hold,
        "resume" => Input::Resume,
        "leave" => Input::Leave,
        "stop" => Input::Stop,
        _ => unreachable!("{name}"),
    }
}

/// What the table says for every state and every input: the actions, and the state after them. An input that is not
/// listed does nothing in that state.
const TABLE: &str = "
backing off  due           Start -> Starting
backing off  hold          -> BackingOff
backing off  leave         Finish -> Ended
backing off  stop          Finish -> Ended
held         resume        -> BackingOff, due
held         leave         Finish -> Ended
held         stop          Finish -> Ended
starting     start failed  down: in 1 s -> BackingOff, due
starting     no room       down: in 1 s -> BackingOff, due
starting     reachable     TellUp -> Ready
starting     closed        down: in 1 s, Terminate -> Draining(Terminated), due
starting     replace       down: in 1 s, Terminate -> Draining(Terminated), due
starting     died          down: in 1 s -> BackingOff, due
starting     not again     down: AskedNotTo -> Failed
starting     leave         CloseInput -> Draining(Asked), due, over
starting     stop          CloseInput -> Draining(Asked), due, over
ready        answered      -> Answering
ready        closed        -> Closed, due
ready        replace       down: in 1 s, Terminate -> Draining(Terminated), due
ready        died          down: in 1 s -> BackingOff, due
ready        not again     down: AskedNotTo -> Failed
ready        leave         -> Ready, over
ready        stop          CloseInput -> Draining(Asked), due, over
answering    closed        -> Closed, due
answering    replace       down: in 1 s, Terminate -> Draining(Terminated), due
answering    died          down: in 1 s -> BackingOff, due
answering    not again     down: AskedNotTo -> Failed
answering    leave         -> Answering, over
answering    stop          CloseInput -> Draining(Asked), due, over
closed       due           down: in 1 s, Terminate -> Draining(Terminated), due
closed       replace       down: in 1 s, Terminate -> Draining(Terminated), due
closed       died          down: in 1 s -> BackingOff, due
closed       not again     down: AskedNotTo -> Failed
closed       leave         -> Closed, due, over
closed       stop          CloseInput -> Draining(Asked), due, over
asked        due           Terminate -> Draining(Terminated), due, over
asked        died          down: Ends, Finish -> Ended, over
asked        not again     down: Ends, Finish -> Ended, over
terminated   due           Kill -> Draining(Killed)
terminated   died          -> BackingOff, due
terminated   not again     -> BackingOff, due
terminated   leave         -> Draining(Terminated), due, over
terminated   stop          -> Draining(Terminated), due, over
killed       died          -> BackingOff, due
killed       not again     -> BackingOff, due
killed       leave         -> Draining(Killed), over
killed       stop          -> Draining(Killed), over
failed       leave         Finish -> Ended
failed       stop          Finish -> Ended
";

fn told(actions: &[Action]) -> String {
    let one = |action: &Action| match action {
        TellDown(_, Next::StartsIn(delay)) => format!("down: in {} s", delay.as_secs()),
        TellDown(_, next) => format!("down: {next:?}"),
        action => format!("{action:?}"),
    };
    actions.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn told_state(supervisor: &Supervisor) -> String {
    let mut text = match &supervisor.state {
        State::Closed(_) => "Closed".to_owned(),
        state => format!("{state:?}"),
    };
    text.push_str(if supervisor.due.is_some() { ", due" } else { "" });
    text.push_str(if supervisor.over { ", over" } else { "" });
    text
}

#[test]
fn the_whole_table() {
    let mut table = String::from("\n");
    for (state, way) in STATES {
        for name in INPUTS {
            let mut world = World::new();
            // Time enough for whatever is due, and far less than what forgives.
            let mut take = |name: &str| {
                world.now += Duration::from_secs(6);
                let actions = world.takes(input(name));
                (told(&actions), told_state(&world.supervisor))
            };
            let before = way.iter().fold(None, |_, name| Some(take(name))).map(|(_, state)| state);
            let (actions, after) = take(name);
            let before = before.unwrap_or_else(|| told_state(&World::new().supervisor));
            if !actions.is_empty() || before != after {
                let arrow = if actions.is_empty() { "->" } else { " ->" };
                writeln!(table, "{state:<12} {name:<13} {actions}{arrow} {after}").expect("a string");
            }
        }
    }
    assert_eq!(table, TABLE);
}

#[test]
fn a_program_that_exits_is_started_again_later_each_time_until_it_is_broken() {
    let mut world = World::up();
    for seconds in [1, 2, 4, 8] {
        assert_eq!(world.takes(died()), [down(in_seconds(seconds))]);
        assert_eq!(world.after(seconds * 1000 - 1), []);
        assert_eq!(world.starts_after(), 1);
    }
    assert_eq!(world.takes(died()), [down(Next::Broken)]);
    assert_eq!(world.supervisor.state(), "failed");
    assert_eq!(world.after(3_600_000), []);
}

#[test]
fn deaths_that_are_far_apart_break_nothing_and_the_delay_ends_at_a_minute() {
    let mut world = World::up();
    for seconds in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
        world.now += Duration::from_secs(15);
        assert_eq!(world.takes(died()), [down(in_seconds(seconds))]);
        world.starts_after();
    }
}

#[test]
fn what_we_end_counts_as_a_death() {
    let mut world = World::up();
    for seconds in [1, 2, 4, 8] {
        assert_eq!(world.takes(Input::Replace("died".into())), [down(in_seconds(seconds)), Terminate]);
        assert_eq!(world.takes(died()), []);
        assert_eq!(world.starts_after(), u128::from(seconds) * 1000);
    }
    assert_eq!(world.takes(Input::Replace("died".into())), [down(Next::Broken), Terminate]);
    assert_eq!(world.after(500), [Kill]);
    assert_eq!(world.takes(died()), []);
    assert_eq!(world.supervisor.state(), "failed");
}

#[test]
fn a_start_that_fails_counts_too_unless_something_was_short() {
    for shortage in [false, true] {
        let mut world = World::new();
        let failed = |world: &mut World| {
            world.now = world.supervisor.due().expect("a start");
            assert_eq!(world.takes(Input::Due), [Start]);
            world.takes(Input::StartFailed { why: "died".into(), shortage })
        };
        for seconds in [1, 2, 4, 8] {
            assert_eq!(failed(&mut world), [down(in_seconds(seconds))]);
        }
        assert_eq!(failed(&mut world), [down(if shortage { in_seconds(16) } else { Next::Broken })]);
    }
}

#[test]
fn who_runs_it_himself_is_tried_again_for_ever() {
    let now = Instant::now();
    let mut world = World { supervisor: Supervisor::new(now, STOP, false), now };
    world.starts_after();
    for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
        assert_eq!(world.takes(died()), [down(in_seconds(seconds))]);
        world.starts_after();
    }
}

#[test]
fn a_good_answer_or_a_minute_forgives() {
    let forgive = [|world: &mut World| drop(world.takes(Input::Answered)), |world: &mut World| drop(world.after(60_000))];
    for forgive in forgive {
        let mut world = World::up();
        for _ in 0..9 {
            for seconds in [1, 2, 4] {
                assert_eq!(world.takes(died()), [down(in_seconds(seconds))]);
                world.starts_after();
            }
            forgive(&mut world);
        }
    }
}

#[test]
fn an_answer_that_is_read_after_the_end_of_the_output_forgives_as_well() {
    let mut world = World::up();
    assert_eq!(world.takes(died()), [down(in_seconds(1))]);
    world.starts_after();
    world.takes(Input::Closed("closed its output".into()));
    world.takes(Input::Answered);
    assert_eq!(world.takes(died()), [down(in_seconds(1))]);
}

#[test]
fn how_it_died_says_more_than_that_its_output_closed() {
    let mut world = World::up();
    assert_eq!(world.takes(Input::Closed("closed its output".into())), []);
    assert_eq!(world.takes(died()), [down(in_seconds(1))]);
    world.starts_after();
    world.takes(Input::Closed("closed its output".into()));
    assert_eq!(world.after(100), [TellDown("closed its output".into(), in_seconds(2)), Terminate]);
    assert_eq!(world.after(500), [Kill]);
    assert_eq!(world.takes(died()), []);
}

#[test]
fn at_the_end_it_is_asked_then_told_then_killed() {
    let mut world = World::up();
    assert_eq!(world.takes(Input::Stop), [CloseInput]);
    assert_eq!(world.after(4999), []);
    assert_eq!(world.after(1), [Terminate]);
    assert_eq!(world.after(2000), [Kill]);
    assert_eq!(world.takes(died()), [down(Next::Ends), Finish]);
    assert_eq!(world.after(100_000), []);
}

#[test]
fn whatever_it_is_doing_the_server_can_stop() {
    for (state, way) in STATES {
        let mut world = World::new();
        for name in way {
            world.now += Duration::from_secs(6);
            world.takes(input(name));
        }
        let mut actions = world.takes(Input::Stop);
        actions.extend(world.takes(died()));
        let ended = actions.last() == Some(&Finish) || state == "ended";
        assert!(ended && world.supervisor.state() == "ended", "{state}: {actions:?}");
    }
}

#[test]
fn while_another_is_tried_in_its_place_it_is_not_started() {
    let mut world = World::up();
    world.takes(Input::Hold);
    assert_eq!(world.takes(died()), [down(Next::Held)]);
    assert_eq!(world.after(100_000), []);
    world.takes(Input::Resume);
    assert_eq!(world.starts_after(), 0);
    // No sooner than a second after the last start.
    world.takes(died());
    world.takes(Input::Hold);
    world.takes(Input::Resume);
    assert_eq!(world.starts_after(), 1000);
    // It had answered badly, and was still being ended when the other one failed.
    world.takes(Input::Hold);
    world.takes(Input::Replace("died".into()));
    world.takes(Input::Resume);
    world.takes(died());
    assert!(world.starts_after() <= 1000);
}

#[test]
fn one_whose_place_is_taken_ends_with_its_next_death() {
    let mut world = World::up();
    assert_eq!(world.takes(Input::Leave), []);
    assert_eq!(world.takes(died()), [down(Next::Ends), Finish]);
}
