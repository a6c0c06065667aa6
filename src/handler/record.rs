//! What is told of an instance of a handler: how it is, and how it died the last times. Written by its keeper, read by
//! whoever answers the operator.

use super::supervisor::{ANSWERING, FAILED, READY};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// So many deaths are remembered.
const DEATHS_MAX: usize = 5;

/// Shared by a keeper and all who ask; goes on with the keeper that takes its place.
#[derive(Debug, Clone, Default)]
pub(super) struct Record(Arc<Mutex<Entries>>);

#[derive(Debug, Default)]
struct Entries {
    state: &'static str,
    pid: Option<u32>,
    started: Option<SystemTime>,
    starts: u64,
    /// Whether this start has answered since its keeper last looked, which it need not do for long.
    answered: Option<Arc<AtomicBool>>,
    deaths: VecDeque<Death>,
}

/// How it died once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Death {
    at: SystemTime,
    how: String,
    last_words: Vec<String>,
}

impl Death {
    /// It died just now; `last_words` are the last lines that it printed.
    pub(super) fn now(how: String, last_words: Vec<String>) -> Death {
        Death { at: SystemTime::now(), how, last_words }
    }
}

impl Record {
    /// One that begins with the deaths of this one.
    pub(super) fn successor(&self) -> Record {
        let entries = self.lock();
        let next = Entries { starts: entries.starts, deaths: entries.deaths.clone(), ..Entries::default() };
        Record(Arc::new(Mutex::new(next)))
    }

    /// Its state, in one word.
    pub(super) fn is(&self, state: &'static str) {
        self.lock().state = state;
    }

    /// Its program was started.
    pub(super) fn started(&self, pid: u32) {
        let mut entries = self.lock();
        entries.pid = Some(pid);
        entries.started = Some(SystemTime::now());
        entries.starts += 1;
    }

    /// It can be asked; this becomes true with its first good answer.
    pub(super) fn answers(&self, answered: Arc<AtomicBool>) {
        self.lock().answered = Some(answered);
    }

    /// It died.
    pub(super) fn died(&self, death: Death) {
        let mut entries = self.lock();
        entries.pid = None;
        entries.answered = None;
        if entries.deaths.len() == DEATHS_MAX {
            entries.deaths.pop_front();
        }
        entries.deaths.push_back(death);
    }

    /// Whether it is not started again by itself.
    pub(super) fn has_failed(&self) -> bool {
        self.lock().state == FAILED
    }

    /// When it was last started.
    pub(super) fn last_start(&self) -> Option<SystemTime> {
        self.lock().started
    }

    /// All of it, as JSON for the operator: times are seconds since 1970.
    pub(super) fn told(&self) -> Value {
        let entries = self.lock();
        let death = |death: &Death| json!({ "at": seconds(death.at), "how": death.how, "lastWords": death.last_words });
        let answered = entries.answered.as_ref().is_some_and(|answered| answered.load(Ordering::Relaxed));
        let state = if entries.state == READY && answered { ANSWERING } else { entries.state };
        json!({
            "state": state,
            "pid": entries.pid,
            "started": entries.started.map(seconds),
            "starts": entries.starts,
            "deaths": entries.deaths.iter().map(death).collect::<Vec<_>>(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn seconds(time: SystemTime) -> f64 {
    let millis = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis();
    millis as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_five_deaths_are_told_and_go_on() {
        let record = Record::default();
        for n in 1..=6 {
            record.started(n);
            record.is(READY);
            let answered = Arc::new(AtomicBool::new(false));
            record.answers(Arc::clone(&answered));
            assert_eq!(record.told()["state"], "ready");
            answered.store(true, Ordering::Relaxed);
            assert_eq!(record.told()["state"], "answering");
            record.died(Death::now(format!("exited with status {n}"), vec!["oh".into()]));
        }
        let next = record.successor();
        next.is("starting");
        let told = next.told();
        assert_eq!(told["state"], "starting");
        assert_eq!(told["starts"], 6);
        let deaths: Vec<&str> = told["deaths"].as_array().expect("a list").iter().filter_map(|death| death["how"].as_str()).collect();
        assert_eq!(deaths, (2..=6).map(|n| format!("exited with status {n}")).collect::<Vec<_>>());
        assert_eq!(told["deaths"][0]["lastWords"][0], "oh");
    }
}
