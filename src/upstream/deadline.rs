//! A deadline that is moved on every request or frame and hardly ever reached: moving it later costs no timer operation.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// A point in time with at most one registered timer. The timer may ring early; then it is set anew.
#[derive(Debug, Default)]
pub(super) struct Deadline {
    at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// Moves the deadline.
    pub(super) fn set(&mut self, at: Instant) {
        self.at = Some(at);
        if let Some(timer) = &mut self.timer
            && timer.deadline() > at
        {
            timer.as_mut().reset(at);
        }
    }

    /// No deadline until the next [`Deadline::set`].
    pub(super) fn clear(&mut self) {
        self.at = None;
    }

    /// Whether a deadline is set.
    pub(super) fn is_set(&self) -> bool {
        self.at.is_some()
    }

    /// Ready once the deadline has passed; never without one.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= at {
                return Poll::Ready(());
            }
            timer.as_mut().reset(at);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;

    #[tokio::test]
    async fn rings_at_the_latest_setting_and_not_before() {
        let start = Instant::now();
        let mut deadline = Deadline::default();
        deadline.set(start + Duration::from_millis(20));
        let mut polled = tokio_test_poll(&mut deadline).await;
        assert!(polled.is_pending());
        deadline.set(start + Duration::from_millis(60));
        poll_fn(|cx| deadline.poll(cx)).await;
        assert!(start.elapsed() >= Duration::from_millis(60));
        deadline.set(Instant::now() + Duration::from_secs(3600));
        polled = tokio_test_poll(&mut deadline).await;
        assert!(polled.is_pending());
        deadline.set(Instant::now() + Duration::from_millis(10));
        poll_fn(|cx| deadline.poll(cx)).await;
        assert!(start.elapsed() < Duration::from_secs(5), "an earlier setting takes effect");
    }

    async fn tokio_test_poll(deadline: &mut Deadline) -> Poll<()> {
        poll_fn(|cx| Poll::Ready(deadline.poll(cx))).await
    }
}
