//! When a handler's program is started, ended and started again: a table of states and what moves them. No I/O.
//!
//! ```text
//!           Due                 Reachable
//!   Down ---------> Starting ---------------> Up
//!    ^                 |                      |
//!    |  StartFailed,   |   Lost, Replace      |  Lost, Replace
//!    |  Died           v                      v
//!    +-------------- Ending: ask, terminate, kill ----> Ended (after Stop)
//! ```

use super::backoff::Backoff;
use crate::connection::handler::Complaint;
use std::time::{Duration, Instant};

/// A program that closed its output is probably about to exit; how it did says more than that it did.
const OBITUARY_WITHIN: Duration = Duration::from_millis(100);
/// A program that was told to terminate because it cannot be trusted any longer is killed after this.
const REPLACED_WITHIN: Duration = Duration::from_millis(500);
/// A program that was told to terminate at the end of the server is killed after this.
const TERMINATE_WITHIN: Duration = Duration::from_secs(2);
/// A start that lasted so long went well.
const GOOD_AFTER: Duration = Duration::from_secs(60);

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Input {
    /// Time has passed.
    Due,
    /// It could not be started.
    StartFailed(Complaint),
    /// It runs and can be asked.
    Reachable,
    /// It answered well.
    Answered,
    /// Its channel is at its end.
    Closed(Complaint),
    /// It cannot be trusted any longer.
    Replace(Complaint),
    /// It is dead.
    Died(Complaint),
    /// The server stops.
    Stop,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Start it.
    Start,
    /// Tell the dispatcher that it can be asked.
    TellUp,
    /// Tell the dispatcher that it cannot be asked, and why.
    TellDown(Complaint),
    /// Tell the program that nothing more comes.
    CloseInput,
    /// Tell it to terminate.
    Terminate,
    /// Kill it.
    Kill,
    /// The end.
    Finish,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Down,
    Starting,
    Up,
    /// Its channel is closed; probably it dies by itself.
    Closed(Complaint),
    /// It was asked to end (at the end of the server).
    Asked,
    Terminated,
    Killed,
    Ended,
}

/// One handler's table.
#[derive(Debug)]
pub(super) struct Supervisor {
    state: State,
    stop: Duration,
    backoff: Backoff,
    stopping: bool,
    up_since: Option<Instant>,
    due: Option<Instant>,
}

impl Supervisor {
    /// Down, and due to be started at `now`. `stop` is how long it may take to end once its input is closed.
    pub(super) fn new(now: Instant, stop: Duration) -> Supervisor {
        Supervisor { state: State::Down, stop, backoff: Backoff::new(), stopping: false, up_since: None, due: Some(now) }
    }

    /// Whether the server stops, so that there will be no other start.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// When [`Input::Due`] is wanted.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Takes in what happened at `now`; what is to be done, in this order.
    pub(super) fn take(&mut self, now: Instant, input: Input) -> Vec<Action> {
        use {Action as A, Input as I, State as S};
        if input == I::Due && self.due.is_none_or(|due| now < due) {
            return Vec::new();
        }
        self.stopping |= input == I::Stop;
        match (self.state.clone(), input) {
            (S::Down, I::Due) => self.go(S::Starting, None, vec![A::Start]),
            (S::Down, I::Stop) => self.go(S::Ended, None, vec![A::Finish]),
            (S::Starting, I::Reachable) => {
                self.up_since = Some(now);
                self.go(S::Up, None, vec![A::TellUp])
            }
            (S::Starting, I::StartFailed(reason)) => self.died(now, Some(reason)),
            (S::Up, I::Answered) => {
                self.backoff.reset();
                Vec::new()
            }
            (S::Up, I::Closed(reason)) => self.go(S::Closed(reason), Some(now + OBITUARY_WITHIN), Vec::new()),
            (S::Starting, I::Closed(reason)) | (S::Up | S::Starting | S::Closed(_), I::Replace(reason)) => {
                self.go(S::Terminated, Some(now + REPLACED_WITHIN), vec![A::TellDown(reason), A::Terminate])
            }
            (S::Closed(reason), I::Due) => self.go(S::Terminated, Some(now + REPLACED_WITHIN), vec![A::TellDown(reason), A::Terminate]),
            (S::Starting | S::Up | S::Closed(_), I::Stop) => self.go(S::Asked, Some(now + self.stop), vec![A::CloseInput]),
            (S::Asked, I::Due) => self.go(S::Terminated, Some(now + TERMINATE_WITHIN), vec![A::Terminate]),
            (S::Terminated, I::Due) => self.go(S::Killed, None, vec![A::Kill]),
            (S::Starting | S::Up | S::Closed(_), I::Died(reason)) => self.died(now, Some(reason)),
            (S::Asked | S::Terminated | S::Killed, I::Died(_)) => self.died(now, None),
            _ => Vec::new(),
        }
    }

    fn died(&mut self, now: Instant, reason: Option<Complaint>) -> Vec<Action> {
        let mut actions: Vec<Action> = reason.map(Action::TellDown).into_iter().collect();
        if self.stopping {
            actions.push(Action::Finish);
            return self.go(State::Ended, None, actions);
        }
        if self.up_since.take().is_some_and(|since| since + GOOD_AFTER <= now) {
            self.backoff.reset();
        }
        let start_at = now + self.backoff.take();
        self.go(State::Down, Some(start_at), actions)
    }

    fn go(&mut self, state: State, due: Option<Instant>, actions: Vec<Action>) -> Vec<Action> {
        self.state = state;
        self.due = due;
        actions
    }
}

#[cfg(test)]
mod tests {
    use super::Action::*;
    use super::*;

    const STOP: Duration = Duration::from_secs(5);

    /// A supervisor, and its clock.
    struct World {
        supervisor: Supervisor,
        now: Instant,
    }

    impl World {
        fn new() -> World {
            let now = Instant::now();
            World { supervisor: Supervisor::new(now, STOP), now }
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
    }

    fn died() -> Input {
        Input::Died("exited with status 1".into())
    }

    fn told() -> Action {
        TellDown("exited with status 1".into())
    }

    #[test]
    fn a_program_that_exits_is_started_again_later_each_time() {
        let mut world = World::up();
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(world.takes(died()), [told()]);
            assert_eq!(world.after(seconds * 1000 - 1), []);
            assert_eq!(world.after(1), [Start]);
            assert_eq!(world.takes(Input::Reachable), [TellUp]);
        }
    }

    #[test]
    fn a_good_answer_or_a_minute_forgives() {
        let mut world = World::up();
        for forgive in [|world: &mut World| drop(world.takes(Input::Answered)), |world: &mut World| drop(world.after(60_000))] {
            for _ in 0..2 {
                assert_eq!(world.takes(died()), [told()]);
                assert_eq!(world.after(60_000), [Start]);
                world.takes(Input::Reachable);
            }
            forgive(&mut world);
            assert_eq!(world.takes(died()), [told()]);
            assert_eq!(world.after(1000), [Start]);
            world.takes(Input::Reachable);
        }
    }

    #[test]
    fn how_it_died_says_more_than_that_its_output_closed() {
        let mut world = World::up();
        assert_eq!(world.takes(Input::Closed("closed its output".into())), []);
        assert_eq!(world.takes(died()), [told()]);
    }

    #[test]
    fn one_that_closes_its_output_and_lives_on_is_ended() {
        let mut world = World::up();
        world.takes(Input::Closed("closed its output".into()));
        assert_eq!(world.after(100), [TellDown("closed its output".into()), Terminate]);
        assert_eq!(world.after(500), [Kill]);
        assert_eq!(world.takes(died()), []);
        assert_eq!(world.after(1000), [Start]);
    }

    #[test]
    fn one_that_cannot_be_trusted_is_ended_at_once() {
        let mut world = World::up();
        assert_eq!(world.takes(Input::Replace("wrote garbage".into())), [TellDown("wrote garbage".into()), Terminate]);
        assert_eq!(world.takes(Input::Replace("wrote garbage".into())), []);
        assert_eq!(world.takes(died()), []);
        assert_eq!(world.after(1000), [Start]);
    }

    #[test]
    fn at_the_end_it_is_asked_then_told_then_killed() {
        let mut world = World::up();
        assert_eq!(world.takes(Input::Stop), [CloseInput]);
        assert_eq!(world.after(4999), []);
        assert_eq!(world.after(1), [Terminate]);
        assert_eq!(world.after(2000), [Kill]);
        assert_eq!(world.takes(died()), [Finish]);
        assert_eq!(world.after(100_000), []);
    }

    #[test]
    fn whatever_it_is_doing_the_server_can_stop() {
        let ways: [&[Input]; 6] = [
            &[],
            &[Input::Due],
            &[Input::Due, Input::StartFailed("not found".into())],
            &[Input::Due, Input::Reachable],
            &[Input::Due, Input::Reachable, Input::Closed("x".into())],
            &[Input::Due, Input::Reachable, Input::Replace("x".into())],
        ];
        for way in ways {
            let mut world = World::new();
            for input in way {
                world.takes(input.clone());
            }
            let mut actions = world.takes(Input::Stop);
            actions.extend(world.takes(died()));
            assert_eq!(actions.last(), Some(&Finish), "{way:?}");
        }
    }
}
