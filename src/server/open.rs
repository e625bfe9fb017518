//! How many connections of clients are open: each worker counts its own, and whoever asks sums them up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The counters of all workers.
#[derive(Debug, Clone, Default)]
pub(super) struct AllOpen(Arc<Mutex<Vec<Counter>>>);

/// One worker's.
#[derive(Debug, Clone, Default)]
pub(super) struct Counter(Arc<AtomicU64>);

/// One connection, for as long as its socket lives.
#[derive(Debug)]
pub(super) struct Counted(Counter);

impl AllOpen {
    /// A counter for one more worker.
    pub(super) fn worker(&self) -> Counter {
        let counter = Counter::default();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(counter.clone());
        counter
    }

    /// All that are open at the moment.
    pub(super) fn sum(&self) -> u64 {
        let counters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counters.iter().map(|Counter(open)| open.load(Ordering::Relaxed)).sum()
    }
}

impl Counter {
    pub(super) fn count(&self) -> Counted {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted(self.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Counter(open) = &self.0;
        open.fetch_sub(1, Ordering::Relaxed);
    }
}
