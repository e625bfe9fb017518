//! The clock that sign-ins and sign-outs are put in order by. One replica has its own. Several have that of the store which they
//! share, as far as it is known: asked again and again, and counted on in between by a clock that nobody sets and that goes on
//! while the machine sleeps: what is ended on waking ends what others began meanwhile.
//!
//! How far that may be off is known, too: a session counts as begun at the earliest moment that it can have been, and what
//! ends some ends all that began until the latest. So whatever began before the end has ended, whichever replica began it and
//! whatever its own clock says; and whoever signs in within that span afterwards, which is some milliseconds as a rule, signs
//! in once more.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::SKEW;
use crate::clock::SharedClock;

/// The finest that every store counts.
const GRAIN: Duration = Duration::from_millis(1);
/// How fast two clocks run apart, at most: one part in so many.
const DRIFT: u32 = 2_000;

/// Whose clock it is.
#[derive(Debug)]
pub(super) struct Timeline {
    clock: SharedClock,
    shared: Mutex<Shared>,
    /// The latest that it was when the store's clock was last set back: what began before that ends with what ends now.
    floor: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
enum Shared {
    /// There is no store: the order is this process's own.
    No,
    /// It has never answered.
    Unknown,
    Known(Sample),
}

/// What the store said.
#[derive(Debug, Clone, Copy)]
struct Sample {
    /// Microseconds since the Unix epoch.
    time: u64,
    /// By [`Clock::uptime`](crate::clock::Clock::uptime).
    at: Duration,
    /// How far it may be off.
    error: Duration,
}

impl Sample {
    fn error_at(&self, now: Duration) -> Duration {
        self.error + now.saturating_sub(self.at) / DRIFT
    }

    fn time_at(&self, now: Duration) -> u64 {
        self.time.saturating_add(micros(now.saturating_sub(self.at)))
    }
}

impl Timeline {
    pub(super) fn new(clock: SharedClock) -> Self {
        Self { clock, shared: Mutex::new(Shared::No), floor: AtomicU64::new(0) }
    }

    /// From now on it is that of a store.
    pub(super) fn share(&self) {
        let mut shared = self.shared();
        if matches!(*shared, Shared::No) {
            *shared = Shared::Unknown;
        }
    }

    /// The store was asked at `asked`, and said `now` that it is `time`, both by the clock's uptime. Counts if it is better than what
    /// is known.
    pub(super) fn heard(&self, time: u64, asked: Duration, now: Duration) {
        let half = now.saturating_sub(asked) / 2;
        let sample = Sample { time: time.saturating_add(micros(half)), at: now, error: half + GRAIN };
        let mut shared = self.shared();
        if let Shared::Known(known) = *shared {
            let error = known.error_at(now);
            let is_at_odds = known.time_at(now).abs_diff(sample.time) > micros(error + sample.error);
            if is_at_odds {
                // It was set, or another node answers, or ours stood still.
                self.floor.fetch_max(known.time_at(now).saturating_add(micros(error)), Ordering::Relaxed);
            } else if error < sample.error {
                return;
            }
        }
        *shared = Shared::Known(sample);
    }

    /// Now, in microseconds since the Unix epoch: the earliest and the latest that it can be. `None`: the order is our own.
    pub(super) fn now(&self) -> Option<(u64, u64)> {
        let (time, error) = match *self.shared() {
            Shared::No => return None,
            Shared::Unknown => (self.clock.micros(), SKEW),
            Shared::Known(sample) => {
                let now = self.clock.uptime();
                (sample.time_at(now), sample.error_at(now))
            }
        };
        let latest = time.saturating_add(micros(error));
        // Not by any distance: one mad word should end no sign-in of tomorrow.
        let floor = self.floor.load(Ordering::Relaxed).min(latest.saturating_add(micros(SKEW)));
        Some((time.saturating_sub(micros(error)), latest.max(floor)))
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::{Clock as _, SystemClock};

    const SECOND: Duration = Duration::from_secs(1);
    /// Far from what this machine's clock says.
    const TIME: u64 = 1_000_000_000_000;

    #[test]
    fn the_time_of_the_store_lies_within_what_is_said_of_it_however_long_it_took_to_ask() {
        let timeline = Timeline::new(Arc::new(SystemClock));
        assert_eq!(timeline.now(), None);
        timeline.share();
        let (earliest, latest) = timeline.now().unwrap();
        assert_eq!(latest - earliest, 2 * micros(SKEW), "not known, it is our own as far as that can be trusted");
        let asked = SystemClock.uptime();
        for (late, width) in [(200, 202), (20, 22), (100, 22), (20, 22)] {
            let late = Duration::from_millis(late);
            // When the store said so is known to be between both.
            timeline.heard(TIME, asked, asked + late);
            let (earliest, latest) = timeline.now().unwrap();
            let width = Duration::from_millis(width);
            assert!((micros(width)..micros(width + SECOND / 100)).contains(&(latest - earliest)), "{width:?}");
        }
        timeline.share();
        let since = micros(SystemClock.uptime() - asked);
        let (earliest, latest) = timeline.now().unwrap();
        assert!(earliest <= TIME + since && TIME + since <= latest, "it is not forgotten");
    }

    #[test]
    fn what_was_said_long_ago_counts_for_less() {
        let timeline = Timeline::new(Arc::new(SystemClock));
        let Some(long_ago) = SystemClock.uptime().checked_sub(100 * SECOND) else { return };
        timeline.heard(TIME, long_ago, long_ago);
        let (earliest, latest) = timeline.now().unwrap();
        assert!((TIME + 99_000_000..TIME + 101_000_000).contains(&earliest));
        assert!(latest - earliest >= 2 * 50_000, "{} µs", latest - earliest);
        let now = SystemClock.uptime();
        timeline.heard(2 * TIME, now, now + SECOND / 50);
        assert!(timeline.now().unwrap().0 > TIME + TIME / 2, "a newer word is better");
    }

    #[test]
    fn what_began_before_the_clock_of_the_store_was_set_back_still_ends() {
        let timeline = Timeline::new(Arc::new(SystemClock));
        let now = SystemClock.uptime();
        timeline.heard(TIME, now, now);
        let begun = timeline.now().unwrap().0;
        // Told less exactly than before, and believed all the same.
        timeline.heard(TIME - 10_000_000, now, now + SECOND / 10);
        let (earliest, latest) = timeline.now().unwrap();
        assert!(earliest < TIME - 9_000_000 && begun <= latest, "{earliest} {latest}");
        timeline.heard(TIME / 2, now, now);
        assert!(timeline.now().unwrap().1 <= TIME / 2 + 2 * micros(SKEW), "not by any distance");
    }
}
