//! When a handler's program is started, ended and started again: a table of states and what moves them. No I/O.
//!
//! ```text
//!                  Due               Reachable          Answered
//!   BackingOff ---------> Starting -----------> Ready -----------> Answering
//!       ^  ^                 |                    |                    |
//!       |  '- StartFailed ---|                    |  Closed, Replace, Died
//!       |                    v                    v                    v
//!       '------------- Closed, Draining (asked, terminated, killed) ---'
//!                            |
//!                            v
//!            Failed (until its operator restarts it)     Ended (after Stop, Leave)
//! ```

use super::backoff::Backoff;
use crate::connection::handler::Complaint;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A program that closed its output is probably about to exit; how it did says more than that it did.
const OBITUARY_WITHIN: Duration = Duration::from_millis(100);
/// A program that was told to terminate because it cannot be trusted any longer is killed after this.
const REPLACED_WITHIN: Duration = Duration::from_millis(500);
/// A program that was asked to end and then told to terminate is killed after this.
const TERMINATE_WITHIN: Duration = Duration::from_secs(2);
/// A start that lasted so long went well.
const GOOD_AFTER: Duration = Duration::from_secs(60);
/// So many deaths without a good answer between them, ...
pub(super) const DEATHS_MAX: usize = 5;
/// ... within this time, and it is broken.
pub(super) const DEATHS_WITHIN: Duration = Duration::from_secs(60);
/// What [`Supervisor::state`] says of one that can be asked and has not answered yet, ...
pub(super) const READY: &str = "ready";
/// ... that has answered well, ...
pub(super) const ANSWERING: &str = "answering";
/// ... and that is not started again by itself.
pub(super) const FAILED: &str = "failed";
/// Between two starts.
pub(super) const STARTS_APART: Duration = Duration::from_secs(1);

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Input {
    /// Time has passed.
    Due,
    /// It could not be started. What is for want of something that others give back is no fault of the handler.
    StartFailed { why: Complaint, shortage: bool },
    /// It runs and can be asked.
    Reachable,
    /// It answered well.
    Answered,
    /// Its channel is at its end.
    Closed(Complaint),
    /// It cannot be trusted any longer.
    Replace(Complaint),
    /// It is dead, and may have asked not to be started again.
    Died { why: Complaint, not_again: bool },
    /// Another start is to take its place: no more starts until it is known how that went.
    Hold,
    /// That one failed.
    Resume,
    /// That one is up: this one ends when it has answered what it was asked.
    Leave,
    /// It ends for good: it has answered what it was asked, or the server stops.
    Stop,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Start it.
    Start,
    /// Tell the dispatcher that it can be asked.
    TellUp,
    /// Tell the dispatcher that it cannot be asked, why, and what comes next.
    TellDown(Complaint, Next),
    /// Tell the program that nothing more comes.
    CloseInput,
    /// Tell it to terminate.
    Terminate,
    /// Kill it.
    Kill,
    /// The end.
    Finish,
}

/// What comes after a death.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// It is started again after this time.
    StartsIn(Duration),
    /// It is not started again while another start is being tried in its place.
    Held,
    /// It is not started again, because it asked for that, ...
    AskedNotTo,
    /// ... or because it is broken.
    Broken,
    /// It has ended for good.
    Ends,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    BackingOff,
    Starting,
    /// It can be asked, and has not answered yet.
    Ready,
    /// It can be asked, and has answered well.
    Answering,
    /// Its channel is closed; probably it dies by itself.
    Closed(Complaint),
    /// It is being ended.
    Draining(Step),
    /// It is not started again.
    Failed,
    Ended,
}

/// How it was told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Asked,
    Terminated,
    Killed,
}

/// One handler's table.
#[derive(Debug)]
pub(super) struct Supervisor {
    state: State,
    stop: Duration,
    /// Whether the program is ours to judge; one that somebody else runs is tried again for ever.
    ours: bool,
    backoff: Backoff,
    /// Deaths since the last good answer.
    deaths: VecDeque<Instant>,
    held: bool,
    /// There will be no other start.
    over: bool,
    started: Option<Instant>,
    up_since: Option<Instant>,
    /// What comes after the death of this start, once that is decided and told.
    next: Option<Next>,
    due: Option<Instant>,
}

impl Supervisor {
    /// Not running, and due to be started at `first`. `stop` is how long it may take to end once its input is closed;
    /// `ours` is whether we start the program.
    pub(super) fn new(first: Instant, stop: Duration, ours: bool) -> Supervisor {
        Supervisor {
            state: State::BackingOff,
            stop,
            ours,
            backoff: Backoff::new(),
            deaths: VecDeque::new(),
            held: false,
            over: false,
            started: None,
            up_since: None,
            next: None,
            due: Some(first),
        }
    }

    /// In one word, for people.
    pub(super) fn state(&self) -> &'static str {
        match self.state {
            State::BackingOff => "backing off",
            State::Starting => "starting",
            State::Ready => READY,
            State::Answering => ANSWERING,
            State::Closed(_) | State::Draining(_) => "draining",
            State::Failed => FAILED,
            State::Ended => "ended",
        }
    }

    /// When [`Input::Due`] is wanted.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Takes in what happened at `now`; what is to be done, in this order.
    pub(super) fn take(&mut self, now: Instant, input: Input) -> Vec<Action> {
        use {Action as A, Input as I, State as S, Step::*};
        match (self.state.clone(), input) {
            (_, I::Due) if self.due.is_none_or(|due| now < due) => Vec::new(),
            (S::Ended, _) => Vec::new(),

            (S::BackingOff, I::Due) => {
                self.started = Some(now);
                self.next = None;
                self.go(S::Starting, None, vec![A::Start])
            }
            (S::Starting, I::Reachable) => {
                self.up_since = Some(now);
                self.go(S::Ready, None, vec![A::TellUp])
            }
            (S::Starting, I::StartFailed { why, shortage }) => {
                let next = if shortage { self.again() } else { self.judge(now, false) };
                self.after(now, next.clone(), vec![A::TellDown(why, next)])
            }

            (S::Ready | S::Answering | S::Closed(_), I::Answered) => {
                self.backoff.reset();
                self.deaths.clear();
                if self.state == S::Ready {
                    self.state = S::Answering;
                }
                Vec::new()
            }
            (S::Ready | S::Answering, I::Closed(why)) => self.go(S::Closed(why), Some(now + OBITUARY_WITHIN), Vec::new()),
            (S::Closed(why), I::Due)
            | (S::Starting, I::Closed(why))
            | (S::Starting | S::Ready | S::Answering | S::Closed(_), I::Replace(why)) => {
                let next = self.judge(now, false);
                self.go(S::Draining(Terminated), Some(now + REPLACED_WITHIN), vec![A::TellDown(why, next), A::Terminate])
            }
            (S::Starting | S::Ready | S::Answering | S::Closed(_), I::Died { why, not_again }) => {
                let next = self.judge(now, not_again);
                self.after(now, next.clone(), vec![A::TellDown(why, next)])
            }

            (S::Draining(Asked), I::Due) => self.go(S::Draining(Terminated), Some(now + TERMINATE_WITHIN), vec![A::Terminate]),
            (S::Draining(Terminated), I::Due) => self.go(S::Draining(Killed), None, vec![A::Kill]),
            (S::Draining(_), I::Died { why, .. }) => match self.next.clone() {
                Some(next) => self.after(now, if self.over { Next::Ends } else { next }, Vec::new()),
                None => {
                    let next = self.judge(now, false);
                    self.after(now, next.clone(), vec![A::TellDown(why, next)])
                }
            },

            (state, I::Hold) => {
                self.held = true;
                if state == S::BackingOff {
                    self.due = None;
                }
                Vec::new()
            }
            (state, I::Resume) => {
                self.held = false;
                if state == S::BackingOff && self.due.is_none() {
                    self.due = Some(self.started.map_or(now, |started| now.max(started + STARTS_APART)));
                }
                Vec::new()
            }

            (S::BackingOff | S::Failed, I::Leave | I::Stop) => self.go(S::Ended, None, vec![A::Finish]),
            (S::Starting, I::Leave) | (S::Starting | S::Ready | S::Answering | S::Closed(_), I::Stop) => {
                self.over = true;
                self.go(S::Draining(Asked), Some(now + self.stop), vec![A::CloseInput])
            }
            (_, I::Leave | I::Stop) => {
                self.over = true;
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// What comes after the death of this start.
    fn judge(&mut self, now: Instant, not_again: bool) -> Next {
        if self.over {
            return self.decide(Next::Ends);
        }
        if self.up_since.is_some_and(|since| since + GOOD_AFTER <= now) {
            self.backoff.reset();
        }
        if self.ours {
            self.deaths.push_back(now);
            self.deaths.retain(|death| now.saturating_duration_since(*death) < DEATHS_WITHIN);
            if not_again {
                return self.decide(Next::AskedNotTo);
            }
            if self.deaths.len() >= DEATHS_MAX {
                return self.decide(Next::Broken);
            }
        }
        self.again()
    }

    fn again(&mut self) -> Next {
        let next = if self.held { Next::Held } else { Next::StartsIn(self.backoff.take()) };
        self.decide(next)
    }

    fn decide(&mut self, next: Next) -> Next {
        self.up_since = None;
        self.next = Some(next.clone());
        next
    }

    /// It is dead, and this is what comes next.
    fn after(&mut self, now: Instant, next: Next, mut actions: Vec<Action>) -> Vec<Action> {
        match next {
            Next::StartsIn(_) if self.held => self.go(State::BackingOff, None, actions),
            Next::StartsIn(delay) => self.go(State::BackingOff, Some(now + delay), actions),
            Next::Held => {
                let due = (!self.held).then_some(now + STARTS_APART);
                self.go(State::BackingOff, due, actions)
            }
            Next::AskedNotTo | Next::Broken => self.go(State::Failed, None, actions),
            Next::Ends => {
                actions.push(Action::Finish);
                self.go(State::Ended, None, actions)
            }
        }
    }

    fn go(&mut self, state: State, due: Option<Instant>, actions: Vec<Action>) -> Vec<Action> {
        self.state = state;
        self.due = due;
        actions
    }
}

#[cfg(test)]
mod tests;
