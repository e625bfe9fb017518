//! What may be done once, whoever does it, where no record of it lies in the store: the steps of a series, each taken by one
//! replica alone. A session in cookies is such a series, and each of its refresh tokens a step.
//!
//! A series has one small mark: its last step, whose that is, and what became of it. What a step brought lies beside it for as
//! long as others may need it. A step is over when its holder says so, or lost: by its holder's word, or when that fell
//! silent. Nobody gets it again.

use std::time::{Duration, Instant};

use super::{Bid, Handle, Store, StoreError, TIMEOUT, end_of, fits};

/// The right to take one step, for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub(super) series: Handle,
    pub(super) number: u64,
    pub(super) bid: Bid,
    until: Instant,
}

impl Step {
    /// What a step is that was asked for just now and whose answer was lost: enough to give it back.
    pub fn asked_for(series: Handle, number: u64, bid: Bid, lease: Duration) -> Self {
        Self { series, number, bid, until: end_of(lease) }
    }

    /// Whether it is ours for at least `span` more.
    pub fn lasts(&self, span: Duration) -> bool {
        Instant::now() + span < self.until
    }
}

/// What a step brought, sealed by whoever took it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brought {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// For how long they stay.
    pub left: Duration,
}

/// What came of asking for a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stepped {
    /// It is ours alone.
    Ours(Step),
    /// Another has it, for so long at most.
    Busy(Duration),
    /// It is over, or a later one has begun. With what the last one brought that is as late as this, if that is still there.
    Over(Option<Brought>),
    /// Whoever had it fell silent, or said that nothing came of it.
    Lost,
}

impl Store {
    /// Asks for the step `number`, from 1, of a series, for `lease`. The series is remembered for `keep`. May be asked again
    /// with the same bid where the answer was lost.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn take_step(
        &self,
        series: Handle,
        number: u64,
        bid: Bid,
        (lease, keep): (Duration, Duration),
    ) -> Result<Stepped, StoreError> {
        // Counted from before the question, as with a lease.
        let step = Step::asked_for(series, number, bid, lease);
        self.bounded(TIMEOUT, move |backend| async move { backend.take_step(&step, lease, keep).await }).await
    }

    /// The step is over: what it brought stays for `life`, or with `None` it is lost. Says whether it was still ours; one whose
    /// time ran out is, unless another came after it. May be asked again where the answer was lost.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn finish_step(
        &self,
        step: Step,
        brought: Option<(Vec<u8>, Duration)>,
        keep: Duration,
    ) -> Result<bool, StoreError> {
        if let Some((bytes, _)) = &brought {
            fits(bytes)?;
        }
        self.bounded(TIMEOUT, move |backend| async move {
            let brought = brought.as_ref().map(|(bytes, life)| (bytes.as_slice(), *life));
            backend.finish_step(&step, brought, keep).await
        })
        .await
    }

    /// Gives the step back: nothing was begun. Says whether it was still ours.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn release_step(&self, step: Step) -> Result<bool, StoreError> {
        self.bounded(TIMEOUT, move |backend| async move { backend.release_step(&step).await }).await
    }

    /// What the step `number` brought stays for no longer than `life` from now on.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn shorten_step(&self, series: Handle, number: u64, life: Duration) -> Result<(), StoreError> {
        self.bounded(TIMEOUT, move |backend| async move { backend.shorten_step(&series, number, life).await }).await
    }
}
