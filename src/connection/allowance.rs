//! How much a handler may say without being asked, or another server at all: so much at once, and so much each second. What
//! is more waits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// What is left, for all that speak for one handler.
#[derive(Debug)]
pub struct Allowance {
    per_second: f64,
    burst: f64,
    left: Mutex<Left>,
}

#[derive(Debug)]
struct Left {
    /// Below zero, it was taken before it was there.
    amount: f64,
    at: Instant,
}

impl Allowance {
    /// `burst` at once, and `per_second` each second after that.
    pub fn new(per_second: usize, burst: usize) -> Allowance {
        let left = Mutex::new(Left { amount: burst as f64, at: Instant::now() });
        Allowance { per_second: per_second as f64, burst: burst as f64, left }
    }

    /// Takes `amount` at `now`; how long to wait before anything more is said.
    pub fn take(&self, now: Instant, amount: usize) -> Duration {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let earned = now.saturating_duration_since(left.at).as_secs_f64() * self.per_second;
        left.amount = (left.amount + earned).min(self.burst) - amount as f64;
        left.at = left.at.max(now);
        Duration::from_secs_f64((-left.amount / self.per_second).max(0.0))
    }
}

/// What each of several may say, whatever connections it has.
#[derive(Debug)]
pub struct Allowances {
    per_second: usize,
    burst: usize,
    /// Of those that have a connection. Held for a look-up only.
    by_name: Mutex<HashMap<Box<str>, Weak<Allowance>>>,
}

impl Allowances {
    /// As of [`Allowance::new`], for each.
    pub fn new(per_second: usize, burst: usize) -> Allowances {
        Allowances { per_second, burst, by_name: Mutex::default() }
    }

    /// What the one of this name has.
    pub fn of(&self, name: &str) -> Arc<Allowance> {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(allowance) = by_name.get(name).and_then(Weak::upgrade) {
            return allowance;
        }
        by_name.retain(|_, allowance| allowance.strong_count() > 0);
        let allowance = Arc::new(Allowance::new(self.per_second, self.burst));
        by_name.insert(name.into(), Arc::downgrade(&allowance));
        allowance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_connections_of_one_share_what_it_has() {
        let allowances = Allowances::new(10, 5);
        let now = Instant::now();
        let first = allowances.of("b.example");
        assert_eq!(first.take(now, 5), Duration::ZERO);
        assert_eq!(allowances.of("b.example").take(now, 1), Duration::from_millis(100));
        assert_eq!(allowances.of("c.example").take(now, 1), Duration::ZERO);
        drop(first);
        allowances.of("d.example");
        assert_eq!(allowances.by_name.lock().unwrap().len(), 1, "those that are gone are forgotten");
    }

    #[test]
    fn what_is_more_than_the_burst_waits_for_its_time() {
        let allowance = Allowance::new(10, 5);
        let now = Instant::now();
        assert_eq!(allowance.take(now, 5), Duration::ZERO);
        assert_eq!(allowance.take(now, 2), Duration::from_millis(200));
        let later = now + Duration::from_millis(200);
        assert_eq!(allowance.take(later, 1), Duration::from_millis(100));
        assert_eq!(allowance.take(later + Duration::from_secs(60), 5), Duration::ZERO, "no more than the burst is saved up");
        assert_eq!(allowance.take(later + Duration::from_secs(60), 1), Duration::from_millis(100));
    }
}
