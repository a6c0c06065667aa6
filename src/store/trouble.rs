//! What is said of a disk that fails: one line when it begins and one when it is over, however often it was tried in between.

use super::StoreError;
use std::time::{Duration, Instant};

/// How long it must work again until it is said so: on a full disk, small changes may go on while large ones fail.
const SURE_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Troubles {
    what: &'static str,
    /// Since when, the last time, and what was wrong then.
    current: Option<(Instant, Instant, StoreError)>,
    damage_told: bool,
}

impl Troubles {
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, current: None, damage_told: false }
    }

    /// It failed.
    pub(super) fn some(&mut self, now: Instant, error: StoreError) {
        if let Some(words) = self.begin(now, error) {
            log::error!("{words}");
        }
    }

    /// It worked.
    pub(super) fn none(&mut self, now: Instant) {
        if self.current.as_ref().is_some_and(|(_, last, _)| now.saturating_duration_since(*last) >= SURE_AFTER) {
            self.over(now);
        }
    }

    /// It surely works again.
    pub(super) fn over(&mut self, now: Instant) {
        if let Some(words) = self.end(now) {
            log::warn!("{words}");
        }
    }

    /// Gives words, if they were not said yet.
    fn begin(&mut self, now: Instant, error: StoreError) -> Option<String> {
        let damaged = matches!(error, StoreError::Damaged { .. });
        let new = self.current.is_none() || (damaged && !self.damage_told);
        let words = new.then(|| format!("{} fails, and is tried again: {}", self.what, error.with_causes()));
        self.damage_told |= damaged;
        let since = self.current.as_ref().map_or(now, |(since, ..)| *since);
        self.current = Some((since, now, error));
        words
    }

    fn end(&mut self, now: Instant) -> Option<String> {
        self.damage_told = false;
        let (since, ..) = self.current.take()?;
        Some(format!("{} works again, after {} s", self.what, now.saturating_duration_since(since).as_secs()))
    }

    /// What was wrong the last time.
    pub(super) fn last(&self) -> StoreError {
        self.current.as_ref().map_or(StoreError::Busy, |(_, _, error)| error.clone())
    }
}

#[cfg(test)]
mod tests;
