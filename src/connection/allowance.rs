//! How much a handler may say without being asked: so much at once, and so much each second. What is more waits.

use std::sync::{Mutex, PoisonError};
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

#[cfg(test)]
mod tests {
    use super::*;

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
