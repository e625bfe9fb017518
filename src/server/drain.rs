//! How a stop goes: readiness says no while new connections are still served (grace), then listeners close and requests
//! finish, then tunnels get their goodbye, then whatever is left is cut. Every step is bounded.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The bounds.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How long new connections are still served after the signal. Default 5 s.
    pub grace: Duration,
    /// How long requests in flight may take after that. Default 20 s.
    pub timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { grace: Duration::from_secs(5), timeout: Duration::from_secs(20) }
    }
}

/// The state of the stop, shared by everything that takes part in it. Clones are the same drain.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    /// Cancelled when the stop begins: readiness is 503 from here on.
    pub draining: CancellationToken,
    /// Cancelled when listeners close: idle connections end, tunnels say goodbye.
    pub closing: CancellationToken,
    /// Cancelled when the time is over: everything left is cut.
    pub cut: CancellationToken,
    /// The open tunnels.
    pub tunnels: TaskTracker,
}

impl Drain {
    /// Goes through the steps once `signal` resolves, or a worker is gone.
    pub async fn run(self, signal: impl Future<Output = ()>, settings: Settings) {
        tokio::select! {
            () = signal => self.draining.cancel(),
            () = self.draining.cancelled() => {}
        }
        tokio::time::sleep(settings.grace).await;
        self.closing.cancel();
        tokio::time::sleep(settings.timeout).await;
        self.cut.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Instant, sleep, timeout};

    #[tokio::test]
    async fn the_steps_come_in_order_and_each_in_its_time() {
        let drain = Drain::default();
        let settings = Settings { grace: Duration::from_millis(60), timeout: Duration::from_millis(60) };
        let start = Instant::now();
        let steps = tokio::spawn(drain.clone().run(sleep(Duration::from_millis(30)), settings));
        drain.draining.cancelled().await;
        assert!(!drain.closing.is_cancelled());
        drain.closing.cancelled().await;
        assert!(start.elapsed() >= Duration::from_millis(90) && !drain.cut.is_cancelled());
        timeout(Duration::from_secs(5), drain.cut.cancelled()).await.unwrap();
        steps.await.unwrap();
    }

    #[tokio::test]
    async fn whatever_begins_the_drain_it_comes_to_its_end() {
        let drain = Drain::default();
        let settings = Settings { grace: Duration::ZERO, timeout: Duration::ZERO };
        let steps = tokio::spawn(drain.clone().run(std::future::pending(), settings));
        drain.draining.cancel();
        timeout(Duration::from_secs(5), drain.cut.cancelled()).await.unwrap();
        steps.await.unwrap();
    }
}
