//! The slowest that a request's body may come. Only the time in which the client is waited for counts, so that an
//! application that reads slowly is never held against the client.

use std::time::Duration;

/// The rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Bytes per second on average. Never zero.
    pub rate: u64,
    /// How long a body may fall behind.
    pub grace: Duration,
}

/// One body under the rule: each wait uses time up, each byte earns some, never more than the grace.
#[derive(Debug)]
pub(super) struct Paced {
    pace: Pace,
    left: Duration,
}

impl Paced {
    pub(super) fn new(pace: Pace) -> Self {
        Self { left: pace.grace, pace }
    }

    /// How long the next bytes may take.
    pub(super) fn left(&self) -> Duration {
        self.left
    }

    /// `bytes` came after `wait`.
    pub(super) fn came(&mut self, bytes: usize, wait: Duration) {
        let nanos = (bytes as u64).saturating_mul(1_000_000_000) / self.pace.rate;
        self.left = (self.left.saturating_sub(wait) + Duration::from_nanos(nanos)).min(self.pace.grace);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// How long a body lasts that brings `bytes` every second.
    fn lasts(bytes: usize) -> Option<u32> {
        let mut paced = Paced::new(Pace { rate: 240, grace: SECOND * 60 });
        (1..10_000).find(|_| {
            let cut = paced.left() < SECOND;
            paced.came(bytes, SECOND);
            cut
        })
    }

    #[test]
    fn a_body_that_drips_is_cut_and_one_that_keeps_up_is_not() {
        assert_eq!(lasts(0), Some(61));
        assert_eq!(lasts(120), Some(120));
        assert_eq!(lasts(240), None);
    }

    #[test]
    fn nothing_is_saved_up_beyond_the_grace() {
        let mut paced = Paced::new(Pace { rate: 240, grace: SECOND * 60 });
        paced.came(1 << 30, SECOND);
        assert_eq!(paced.left(), SECOND * 60);
    }
}
