//! Work that goes on when whoever asked for it has gone, and that a stop waits for: cut in the middle, it would leave a refresh token
//! or a code spent, and what came of it nobody's.

use std::sync::mpsc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

/// What is under way on the control runtime. Clones are the same.
#[derive(Debug, Clone)]
pub struct Errands {
    control: Handle,
    running: TaskTracker,
}

impl Errands {
    /// None yet.
    pub fn on(control: Handle) -> Self {
        Self { control, running: TaskTracker::new() }
    }

    /// The runtime, for what a stop does not wait for.
    pub fn control(&self) -> &Handle {
        &self.control
    }

    /// Runs it to its end, whatever becomes of the handle; up to the stop's bound.
    pub fn run<T>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T>
    where
        T: Send + 'static,
    {
        self.running.spawn_on(work, &self.control)
    }

    /// Blocks until all of it is over, or `cut`; `within` at most. To be called by no thread of the runtime.
    pub fn finish(&self, cut: CancellationToken, within: Duration) {
        self.running.close();
        let (running, (over, told)) = (self.running.clone(), mpsc::channel());
        self.control.spawn(async move {
            tokio::select! {
                () = running.wait() => {}
                () = cut.cancelled() => {}
            }
            // Whoever waits for no longer has had its time.
            let _ = over.send(());
        });
        // That the runtime is gone is an end, too.
        let _ = told.recv_timeout(within);
        if !self.running.is_empty() {
            let left = self.running.len();
            warn!(
                left,
                "the stop cut off renewals, sign-ins or sign-outs whose provider or store did not answer in time"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);
    const SHORT: Duration = Duration::from_millis(100);

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    }

    #[test]
    fn what_nobody_waits_for_any_more_is_finished() {
        let runtime = runtime();
        let errands = Errands::on(runtime.handle().clone());
        let done = Arc::new(AtomicBool::new(false));
        let is_done = Arc::clone(&done);
        drop(errands.run(async move {
            tokio::time::sleep(SHORT).await;
            is_done.store(true, Ordering::SeqCst);
        }));
        let begun = Instant::now();
        errands.finish(CancellationToken::new(), LONG);
        assert!(done.load(Ordering::SeqCst) && begun.elapsed() < LONG / 2);
        errands.finish(CancellationToken::new(), LONG);
        assert!(begun.elapsed() < LONG / 2, "nothing is nothing to wait for");
    }

    #[test]
    fn what_does_not_end_is_cut_with_all_else_and_never_waited_for_beyond_the_bound() {
        let runtime = runtime();
        let errands = Errands::on(runtime.handle().clone());
        drop(errands.run(std::future::pending::<()>()));
        let (begun, cut) = (Instant::now(), CancellationToken::new());
        errands.finish(cut.clone(), SHORT);
        assert!(begun.elapsed() >= SHORT && begun.elapsed() < LONG / 2);
        cut.cancel();
        errands.finish(cut, LONG);
        assert!(begun.elapsed() < LONG / 2);
    }
}
