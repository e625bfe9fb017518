//! What was found out about credentials that come with every request: one verdict for each digest, made once however many
//! requests wait for it, and kept until it is old.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use tokio::sync::OnceCell;

use crate::clock::{SharedClock, UnixTime};

/// Verdicts by the digests of what they are about.
#[derive(Debug)]
pub(super) struct Verdicts<V: Send + Sync + 'static> {
    known: Cache<[u8; 32], Arc<Entry<V>>>,
    clock: SharedClock,
}

/// One verdict, and until when it holds.
type Entry<V> = OnceCell<(V, UnixTime)>;

impl<V: Clone + Send + Sync + 'static> Verdicts<V> {
    /// Keeps each for the `longest` time at most.
    pub(super) fn new(longest: Duration, clock: SharedClock) -> Self {
        Self { known: Cache::builder().max_capacity(MOST).time_to_live(longest).build(), clock }
    }

    /// The verdict about what has this digest; `judge` makes it, and says until when it holds.
    pub(super) async fn of<F>(&self, digest: [u8; 32], judge: impl FnOnce() -> F) -> V
    where
        F: Future<Output = (V, UnixTime)>,
    {
        let entry = self.known.get_with(digest, || Arc::new(Entry::new()));
        if let Some((verdict, until)) = entry.get()
            && self.clock.now() < *until
        {
            return verdict.clone();
        }
        let entry = if entry.initialized() { self.in_place_of(&entry, digest) } else { entry };
        // Made while this request waited, so it is no old one, whatever the clock says.
        entry.get_or_init(judge).await.0.clone()
    }

    /// The entry of a verdict that is made anew, once however many find the old one.
    fn in_place_of(&self, old: &Arc<Entry<V>>, digest: [u8; 32]) -> Arc<Entry<V>> {
        let newer = self.known.entry(digest).and_upsert_with(|there| match there {
            Some(there) if !Arc::ptr_eq(there.value(), old) => there.into_value(),
            _ => Arc::new(Entry::new()),
        });
        newer.into_value()
    }
}

/// The most verdicts that are kept.
const MOST: u64 = 10_000;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures_util::future::join_all;

    use super::*;
    use crate::clock::Clock;

    #[derive(Debug, Default)]
    struct Moved(AtomicU64);

    impl Clock for Moved {
        fn now(&self) -> UnixTime {
            UnixTime(self.0.load(Ordering::Relaxed))
        }
    }

    #[tokio::test]
    async fn whoever_comes_while_one_verdict_is_made_gets_that_one_also_in_the_place_of_an_old_one() {
        let clock = Arc::new(Moved::default());
        let verdicts = Verdicts::new(Duration::from_secs(60), clock.clone());
        let made = AtomicU64::new(0);
        let judge = |until: u64| {
            let made = &made;
            move || async move {
                tokio::task::yield_now().await;
                (made.fetch_add(1, Ordering::Relaxed), UnixTime(until))
            }
        };
        assert_eq!(join_all((0..8).map(|_| verdicts.of([1; 32], judge(10)))).await, [0; 8]);
        clock.0.store(9, Ordering::Relaxed);
        assert_eq!(verdicts.of([1; 32], judge(10)).await, 0, "it still holds");
        clock.0.store(10, Ordering::Relaxed);
        assert_eq!(join_all((0..8).map(|_| verdicts.of([1; 32], judge(20)))).await, [1; 8], "it is old");
        assert_eq!(verdicts.of([2; 32], judge(20)).await, 2, "about something else");
    }

    #[tokio::test]
    async fn a_verdict_that_holds_for_no_time_answers_who_waited_and_is_made_once_for_each_who_comes_later() {
        let verdicts = Verdicts::new(Duration::from_secs(60), Arc::new(Moved::default()));
        let made = AtomicU64::new(0);
        let judge = || async {
            tokio::task::yield_now().await;
            (made.fetch_add(1, Ordering::Relaxed), UnixTime(0))
        };
        assert_eq!(join_all((0..8).map(|_| verdicts.of([1; 32], judge))).await, [0; 8]);
        assert_eq!(verdicts.of([1; 32], judge).await, 1);
        assert_eq!(verdicts.of([1; 32], judge).await, 2);
    }
}
