//! How many requests may be sent to a second instance: a share of all of them, so that an outage is not made worse by
//! everybody asking twice.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What the share is counted over.
const WINDOW: Duration = Duration::from_secs(10);
/// One in so many requests.
const SHARE: u64 = 5;
/// Always allowed in one window, so that little traffic is helped too.
const FLOOR: u64 = 100;

/// The budget of one upstream, on one worker.
#[derive(Debug, Default)]
pub(super) struct Budget {
    requests: AtomicU64,
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    start: Duration,
    /// [`Budget::requests`] at the start, less what counts of those before it.
    base: u64,
    spent: u64,
}

impl Budget {
    /// One more request came.
    pub(super) fn earn(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether one more may be sent again; if so it is counted.
    pub(super) fn spend(&self, now: Duration) -> bool {
        let requests = self.requests.load(Ordering::Relaxed);
        // A panic between two statements below leaves numbers that are still numbers.
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let age = now.saturating_sub(window.start);
        if age >= WINDOW {
            // Those of one window's length at the pace since the last one began.
            let recent = u128::from(requests - window.base) * WINDOW.as_millis() / age.as_millis().max(1);
            *window = Window { start: now, base: requests - u64::try_from(recent).unwrap_or(requests), spent: 0 };
        }
        let allowed = FLOOR + (requests - window.base) / SHARE;
        let may = window.spent < allowed;
        window.spent += u64::from(may);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn spend_all(budget: &Budget, now: Duration) -> u64 {
        (0..100_000).take_while(|_| budget.spend(now)).count() as u64
    }

    #[test]
    fn a_fifth_of_the_requests_and_a_floor_may_be_sent_again() {
        let budget = Budget::default();
        assert_eq!(spend_all(&budget, at(1)), FLOOR);
        (0..1_000).for_each(|_| budget.earn());
        assert_eq!(spend_all(&budget, at(2)), 200);
        assert_eq!(spend_all(&budget, at(9)), 0);
    }

    #[test]
    fn a_new_window_counts_the_pace_of_the_last_and_not_its_sum() {
        let budget = Budget::default();
        (0..36_000).for_each(|_| budget.earn());
        // An hour at ten a second: a hundred in a window.
        assert_eq!(spend_all(&budget, at(3_600)), FLOOR + 20);
        assert_eq!(spend_all(&budget, at(3_605)), 0);
        // Nothing since: only what the last window carried over, thinned out by the time that passed.
        assert_eq!(spend_all(&budget, at(7_200)), FLOOR);
    }
}
