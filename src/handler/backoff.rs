//! How long to wait before a program is started again: a second, then twice as long each time, up to a minute.

use std::time::Duration;

const DELAY_MIN: Duration = Duration::from_secs(1);
const DELAY_MAX: Duration = Duration::from_secs(60);

/// The next delay.
#[derive(Debug)]
pub(super) struct Backoff {
    delay: Duration,
}

impl Backoff {
    pub(super) fn new() -> Backoff {
        Backoff { delay: DELAY_MIN }
    }

    /// How long to wait this time.
    pub(super) fn take(&mut self) -> Duration {
        let delay = self.delay;
        self.delay = (delay * 2).min(DELAY_MAX);
        delay
    }

    /// All went well for a while.
    pub(super) fn reset(&mut self) {
        *self = Backoff::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_minute() {
        let mut backoff = Backoff::new();
        let delays: Vec<u64> = (0..8).map(|_| backoff.take().as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60]);
        backoff.reset();
        assert_eq!(backoff.take().as_secs(), 1);
    }
}
