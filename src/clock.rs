//! Time as an argument: everything that expires asks a [`Clock`], so that tests move time instead of sleeping.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Counts from a moment that never changes, also while the machine sleeps, which [`std::time::Instant`] does not on Linux.
#[cfg(any(target_os = "linux", target_os = "android"))]
const SLEEPLESS: ClockId = ClockId::Boottime;
/// The nearest to it elsewhere.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const SLEEPLESS: ClockId = ClockId::Monotonic;

/// Whole seconds since the Unix epoch, the resolution of every claim and lifetime here (RFC 7519 §2, NumericDate).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnixTime(pub u64);

impl UnixTime {
    /// This moment later by `span`; saturates.
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span.as_secs()))
    }

    /// This moment earlier by `span`; saturates at the epoch.
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(span.as_secs()))
    }

    /// Time from `earlier` to this moment; zero when `earlier` lies in the future.
    pub fn since(self, earlier: UnixTime) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }
}

/// Where the present moment comes from.
pub trait Clock: std::fmt::Debug + Send + Sync + 'static {
    /// The present moment.
    fn now(&self) -> UnixTime;

    /// The same in microseconds, as exactly as it is known: for the order of things, never for their age.
    fn micros(&self) -> u64 {
        self.now().0.saturating_mul(1_000_000)
    }

    /// How long the machine has been up, asleep or awake: for spans that a clock which is set would falsify, and that one which
    /// stands still during a sleep would cut short.
    fn uptime(&self) -> Duration {
        // Never below zero; were it ever, nothing would seem to pass.
        Duration::try_from(clock_gettime(SLEEPLESS)).unwrap_or_default()
    }
}

/// A clock that can be handed around.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixTime {
        // A machine set before 1970 fails closed: everything looks issued in the future and is refused.
        UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs()))
    }

    fn micros(&self) -> u64 {
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
    }
}
