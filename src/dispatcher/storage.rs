//! How the disk has done, as far as the dispatcher was told. For the operator; nothing else depends on it.

use crate::store::mail::{Told, Trouble};
use serde_json::{Value, json};
use std::time::Instant;

/// What was told of writing and reading.
#[derive(Debug, Default)]
pub(super) struct Storage {
    writing: Option<Failing>,
    reading: Option<Failing>,
}

/// It failed, and did not work since.
#[derive(Debug, Clone, Copy)]
struct Failing {
    since: Instant,
    last: Instant,
}

impl Storage {
    pub(super) fn told(&mut self, now: Instant, told: &Told) {
        let (failing, trouble) = match told {
            Told::Kept(_, result) => (&mut self.writing, result.as_ref().err()),
            Told::Page(_, result) => (&mut self.reading, result.as_ref().err()),
            Told::Memo(_, result) => (&mut self.reading, result.as_ref().err()),
            Told::Beyond { .. } | Told::Met(_) | Told::Reported(_) => return,
        };
        *failing = match trouble {
            None => None,
            Some(Trouble::Storage) => Some(Failing { since: failing.map_or(now, |failing| failing.since), last: now }),
            // Nobody asked the disk.
            Some(Trouble::Busy) => return,
        };
    }

    /// For the operator, with how many orders wait. Whether it works is what the last order or question said: while there is
    /// none, nothing is tried.
    pub(super) fn status(&self, now: Instant, waiting: usize) -> Value {
        let told = |failing: &Option<Failing>| {
            let seconds = |then: Instant| now.saturating_duration_since(then).as_secs_f64();
            failing.map_or(Value::Null, |Failing { since, last }| json!({ "since": seconds(since), "last": seconds(last) }))
        };
        json!({ "waiting": waiting, "writingFails": told(&self.writing), "readingFails": told(&self.reading) })
    }
}
