//! A clock that tests move instead of sleeping.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use vestibule::clock::{Clock, UnixTime};

/// The machine's time plus whatever a test has advanced it by. It goes on ticking, so that the stamps of a real provider
/// never lie in its future. Clones are the same clock.
#[derive(Debug, Clone, Default)]
pub struct TestClock {
    offset_seconds: Arc<AtomicI64>,
}

impl TestClock {
    /// Starts at the real present.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the time forward by the whole seconds of `span`.
    pub fn advance(&self, span: Duration) {
        self.offset_seconds.fetch_add(whole_seconds(span), Ordering::SeqCst);
    }

    /// Moves the time back by the whole seconds of `span`.
    pub fn rewind(&self, span: Duration) {
        self.offset_seconds.fetch_sub(whole_seconds(span), Ordering::SeqCst);
    }

    /// Seconds since the Unix epoch.
    pub fn unix(&self) -> u64 {
        let real = SystemTime::now().duration_since(UNIX_EPOCH).expect("a machine set after 1970").as_secs();
        real.checked_add_signed(self.offset_seconds.load(Ordering::SeqCst)).expect("a time after 1970")
    }
}

impl Clock for TestClock {
    fn now(&self) -> UnixTime {
        UnixTime(self.unix())
    }

    fn micros(&self) -> u64 {
        let real = SystemTime::now().duration_since(UNIX_EPOCH).expect("a machine set after 1970").as_micros();
        let offset = i128::from(self.offset_seconds.load(Ordering::SeqCst)) * 1_000_000;
        u64::try_from(i128::try_from(real).expect("a time that fits") + offset).expect("a time after 1970")
    }
}

fn whole_seconds(span: Duration) -> i64 {
    i64::try_from(span.as_secs()).expect("a span that fits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_are_the_same_clock() {
        let clock = TestClock::new();
        let other = clock.clone();
        let before = other.unix();
        clock.advance(Duration::from_secs(3600));
        assert!((before + 3600..before + 3610).contains(&other.unix()));
    }
}
