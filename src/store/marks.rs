//! What is known of letters that have been sent, as long as the disk does not know it yet.
//!
//! A letter that comes a second time says so. But a session's end, or an acknowledgement, may wait to be written down when the
//! next session already reads the mailbox on the other thread; and it may never be written down.

use super::mail::Write;
use super::runs::Run;
use crate::name::Username;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
pub(super) struct Marks {
    /// Held for a look or a change, never while anything waits for a disk.
    state: Mutex<State>,
    /// Users with late acknowledgements at most.
    late_max: usize,
}

#[derive(Debug)]
struct State {
    /// Users about whom orders wait: how many, and up to which number letters may have been sent.
    waiting: HashMap<Username, (usize, u64)>,
    /// The highest number that each of these acknowledged, though it could not be written down.
    late: HashMap<Username, u64>,
    run: Run,
}

impl Marks {
    pub(super) fn new(run: Run, late_max: usize) -> Self {
        let state = State { waiting: HashMap::new(), late: HashMap::new(), run };
        Self { state: Mutex::new(state), late_max }
    }

    /// It waits from now on.
    pub(super) fn ordered(&self, write: &Write) {
        if let Some((user, up_to)) = sent(write) {
            let mut state = self.state();
            let (orders, highest) = state.waiting.entry(user.clone()).or_default();
            *orders += 1;
            *highest = up_to.max(*highest);
        }
    }

    /// It is on the disk.
    pub(super) fn done(&self, write: &Write) {
        if let Some((user, _)) = sent(write) {
            self.state().over(user);
        }
    }

    /// It was not carried out: an acknowledgement is to be done later, and attempts are not counted.
    pub(super) fn not_done(&self, write: &Write) {
        let Some((user, up_to)) = sent(write) else { return };
        let mut state = self.state();
        match write {
            Write::Settle { .. } => state.settle_later(user, up_to, self.late_max),
            _ => state.run.suspect = state.run.highest,
        }
        state.over(user);
    }

    /// More of this acknowledgement is to be done later.
    pub(super) fn settle_later(&self, user: &Username, up_to: u64) {
        self.state().settle_later(user, up_to, self.late_max);
    }

    pub(super) fn is_late(&self) -> bool {
        !self.state().late.is_empty()
    }

    /// The late acknowledgements.
    pub(super) fn late(&self) -> Vec<(Username, u64)> {
        self.state().late.iter().map(|(user, up_to)| (user.clone(), *up_to)).collect()
    }

    /// One of them is on the disk.
    pub(super) fn caught_up(&self, user: &Username, up_to: u64) {
        let mut state = self.state();
        if state.late.get(user) == Some(&up_to) {
            state.late.remove(user);
        }
    }

    /// A body has this number, and nobody could be sent it yet.
    pub(super) fn written(&self, body: u64) {
        let mut state = self.state();
        state.run.highest = body.max(state.run.highest);
    }

    /// Up to which number letters of `user` may have been sent as far as orders wait that say so, and up to which body
    /// letters of all users may have been.
    pub(super) fn sent(&self, user: &Username) -> (u64, u64) {
        let state = self.state();
        let waiting = state.waiting.get(user).map_or(0, |(_, up_to)| *up_to);
        let late = state.late.get(user).copied().unwrap_or(0);
        (waiting.max(late), state.run.suspect)
    }

    /// What [`Database::end_run`](super::Database::end_run) is to know.
    pub(super) fn suspect_at_end(&self) -> u64 {
        let state = self.state();
        if state.late.is_empty() { state.run.suspect } else { state.run.highest }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whoever panicked with it has changed one entry or none.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn over(&mut self, user: &Username) {
        if let Some((orders, _)) = self.waiting.get_mut(user) {
            *orders = orders.saturating_sub(1);
            if *orders == 0 {
                self.waiting.remove(user);
            }
        }
    }

    fn settle_later(&mut self, user: &Username, up_to: u64, late_max: usize) {
        if let Some(highest) = self.late.get_mut(user) {
            *highest = up_to.max(*highest);
        } else if self.late.len() < late_max {
            self.late.insert(user.clone(), up_to);
        } else {
            // It comes again, and says so.
            self.run.suspect = self.run.highest;
        }
    }
}

/// About whom it says that letters up to a number were sent.
fn sent(write: &Write) -> Option<(&Username, u64)> {
    match write {
        Write::Keep(..) | Write::Sent(..) => None,
        Write::Settle { user, up_to, .. } => Some((user, *up_to)),
        Write::Tried { user, seqs } => Some((user, seqs.iter().copied().max().unwrap_or(0))),
    }
}

#[cfg(test)]
mod tests;
