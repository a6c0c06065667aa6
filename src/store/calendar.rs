//! The time of day, and whether it can be trusted: what lies for too long is deleted, and a wrong clock must not do that.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// By how much the clock may go wrong against the monotonic one.
const JUMP_SECONDS: i64 = 60 * 60;
/// How long it must have gone right before it is trusted.
const CALM: Duration = Duration::from_secs(10 * 60);

/// Seconds since 1970, as the clock says.
pub(super) fn now() -> i64 {
    // A clock before 1970 is wrong, and 0 says so as well as anything.
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}

/// Watches the clock. It is trusted when it has not jumped for ten minutes, and not at once after a start: a machine without
/// a battery may learn only later what time it is.
#[derive(Debug)]
pub(super) struct Calendar {
    /// When both clocks were compared first, after the start or the last jump.
    reference: (Instant, i64),
    jumped: bool,
}

impl Calendar {
    pub(super) fn new(monotonic: Instant, wall: i64) -> Self {
        Self { reference: (monotonic, wall), jumped: false }
    }

    /// Compares both clocks; says whether the one on the wall can be trusted.
    pub(super) fn look(&mut self, monotonic: Instant, wall: i64) -> bool {
        let passed = monotonic.saturating_duration_since(self.reference.0);
        let expected = self.reference.1.saturating_add(i64::try_from(passed.as_secs()).unwrap_or(i64::MAX));
        if wall.abs_diff(expected) > JUMP_SECONDS.unsigned_abs() {
            self.reference = (monotonic, wall);
            self.jumped = true;
            return false;
        }
        let calm = passed >= CALM;
        self.jumped &= !calm;
        calm
    }

    /// Whether it has jumped less than ten minutes ago; unlike [`Calendar::look`], not at once after a start.
    pub(super) fn jumped(&self) -> bool {
        self.jumped
    }
}

/// What is older than `age` was kept before this.
pub(super) fn limit(wall: i64, age: Duration) -> i64 {
    wall.saturating_sub(i64::try_from(age.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the clock is trusted when the two clocks have gone on by these many seconds.
    fn check(steps: &[(u64, i64, bool)]) {
        let mut monotonic = Instant::now();
        let mut wall = 1_000_000;
        let mut calendar = Calendar::new(monotonic, wall);
        for (number, (by, wall_by, trusted)) in steps.iter().enumerate() {
            monotonic += Duration::from_secs(*by);
            wall += wall_by;
            assert_eq!(calendar.look(monotonic, wall), *trusted, "step {number} of {steps:?}");
        }
    }

    #[test]
    fn it_takes_ten_minutes_of_calm() {
        check(&[(0, 0, false), (599, 599, false), (1, 1, true), (100_000, 100_000, true)]);
    }

    #[test]
    fn a_jump_over_an_hour_takes_ten_minutes_again() {
        check(&[(600, 600, true), (1, 3602, false), (599, 599, false), (1, 1, true)]);
        check(&[(600, 600, true), (1, -3602, false), (599, 599, false), (1, 1, true)]);
        check(&[(599, 599, false), (1, 3602, false), (599, 599, false), (1, 1, true)]);
        check(&[(600, 10_000_000, false), (600, -10_000_000, false), (600, 600, true)]);
    }

    #[test]
    fn a_smaller_one_is_none_but_many_are() {
        check(&[(600, 600, true), (1, 3601, true), (1, 1, true)]);
        check(&[(600, 600, true), (1, -3599, true), (1, 1, true)]);
        check(&[(600, 600, true), (1, 2001, true), (1, 2001, false)]);
    }

    #[test]
    fn only_a_jump_makes_what_is_remembered_last_longer() {
        let (start, wall) = (Instant::now(), 1_000_000);
        let mut calendar = Calendar::new(start, wall);
        calendar.look(start, wall);
        assert!(!calendar.jumped(), "not the start");
        calendar.look(start, wall + 4000);
        assert!(calendar.jumped());
        calendar.look(start + CALM, wall + 4600);
        assert!(!calendar.jumped());
    }

    #[test]
    fn no_age_is_too_high() {
        assert_eq!(limit(100, Duration::from_secs(30)), 70);
        assert_eq!(limit(100, Duration::MAX), 100 - i64::MAX);
    }
}
