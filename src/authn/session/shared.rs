//! Renewals of sessions that lie in cookies, where several replicas get the same cookie: each refresh token is a step of a
//! series in a store that they share (see [`crate::store::Step`]), so that one of them sends it and no other ever does, also
//! where that one fell silent in the middle. The newer form of the session lies beside it, sealed for nothing else, until a
//! browser has taken it along and [`GRACE`] longer, for whoever still shows the older one.
//!
//! Asked only for sessions that are due. While the store is away nobody sends a refresh token: a session goes on with the
//! access token that it has, and is renewed when the store is back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::SessionId;
use super::ended::SKEW;
use super::record::{self, Record};
use super::seal::Sealer;
use super::stored::{AGAIN, LEASE, OUTAGE, POLL, give_back_late};
use super::successors::GRACE;
use crate::clock::UnixTime;
use crate::store::{Bid, Brought, Step, Stepped, Store, StoreError};
use crate::telemetry::chain;

/// The store, as far as renewals go.
pub(in crate::authn) struct SharedRenewals {
    store: Store,
    sealer: Sealer<()>,
    control: runtime::Handle,
    is_away: AtomicBool,
}

impl std::fmt::Debug for SharedRenewals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedRenewals").field("store", &self.store).finish_non_exhaustive()
    }
}

/// How a renewal ended without us.
#[derive(Debug)]
pub(super) enum Elsewhere {
    /// Another replica has this newer form, packed, and it is there for so long.
    Renewed(Vec<u8>, Duration),
    /// It was renewed, and the browser has had the newer form for a while.
    Superseded,
    /// The refresh token was sent, and nothing came back.
    Lost,
    /// It was not sent.
    Unused,
}

impl SharedRenewals {
    pub(super) fn new(store: Store, sealer: Sealer<()>, control: runtime::Handle) -> Arc<Self> {
        Arc::new(Self { store, sealer, control, is_away: AtomicBool::new(false) })
    }

    /// The right to send the refresh token of a session, once for all replicas. `is_busy` is told that another has it;
    /// a token that `is_spent` is lost, for everybody.
    pub(super) async fn claim(
        &self,
        record: &Record,
        now: UnixTime,
        is_spent: bool,
        is_busy: impl Fn(),
    ) -> Result<Step, Elsewhere> {
        // One for all attempts: a step whose answer was lost is still ours, and nothing was sent.
        let (begun, bid) = (Instant::now(), Bid::new());
        let (series, number) = (record.marks.id.into(), number(record));
        loop {
            let taken = self.store.take_step(series, number, bid, (LEASE, keep(record, now))).await;
            self.heard(&taken);
            match taken {
                Ok(Stepped::Ours(step)) if is_spent => {
                    // The store has forgotten what is known here.
                    self.lose(step, record, now).await;
                    return Err(Elsewhere::Lost);
                }
                Ok(Stepped::Ours(step)) => return Ok(step),
                Ok(Stepped::Over(Some(brought))) => return Err(self.newer_form(record, brought)),
                Ok(Stepped::Over(None)) => return Err(Elsewhere::Superseded),
                Ok(Stepped::Lost) => {
                    info!(
                        "the refresh token of a session was sent by a replica, and nothing came back; it is not sent again"
                    );
                    return Err(Elsewhere::Lost);
                }
                Ok(Stepped::Busy(_)) if begun.elapsed() < LEASE * 2 => {
                    is_busy();
                    sleep(POLL).await;
                }
                Err(_) if begun.elapsed() < OUTAGE => sleep(AGAIN).await,
                Ok(Stepped::Busy(_)) => return Err(Elsewhere::Unused),
                Err(_) => {
                    // It may be ours all the same. Kept, it counts as lost when its time is over.
                    if !is_spent {
                        self.give_back_late(Step::asked_for(series, number, bid, LEASE));
                    }
                    return Err(Elsewhere::Unused);
                }
            }
        }
    }

    /// Whoever writes to the store may have put another session, or an older form, in its place.
    fn newer_form(&self, record: &Record, Brought { bytes, left }: Brought) -> Elsewhere {
        let opened = self.sealer.open_bytes(&bytes).ok().map(|(packed, _)| packed);
        let is_newer = |packed: &Vec<u8>| {
            record::unpack(packed.clone()).is_some_and(|(newer, _)| {
                newer.marks.id == record.marks.id && newer.party == record.party && newer.generation > record.generation
            })
        };
        match opened.filter(is_newer) {
            Some(packed) => Elsewhere::Renewed(packed, left),
            None => {
                // Perhaps of a secret that this replica does not have yet: it looks again after a while.
                warn!("what another replica renewed cannot be read here");
                Elsewhere::Unused
            }
        }
    }

    /// Nothing was sent: whoever comes next may.
    pub(super) async fn give_back(&self, step: Step) {
        let told = self.store.release_step(step).await;
        self.heard(&told);
        if told.is_err() {
            self.give_back_late(step);
        }
    }

    fn give_back_late(&self, step: Step) {
        let store = self.store.clone();
        self.control.spawn(async move { give_back_late(|| store.release_step(step), || step.lasts(AGAIN)).await });
    }

    /// The refresh token may be spent, and nothing came back. Unwritten, its time runs out, which says the same.
    pub(super) async fn lose(&self, step: Step, record: &Record, now: UnixTime) {
        self.heard(&self.store.finish_step(step, None, keep(record, now)).await);
    }

    /// Hands the newer form of `old` to the other replicas, for `life` unless a browser takes it along before. Says whether
    /// they can have it now; if not, as soon as the store is back.
    pub(super) async fn publish(
        self: &Arc<Self>,
        step: Step,
        packed: &[u8],
        (old, life): (&Record, Duration),
        now: UnixTime,
    ) -> bool {
        let publication = (self.sealer.seal_bytes(packed).into_bytes(), life);
        let keep = keep(old, now);
        let told = self.store.finish_step(step, Some(publication.clone()), keep).await;
        self.heard(&told);
        if told.is_err() {
            let this = Arc::clone(self);
            self.control.spawn(async move { this.publish_late(step, publication, keep).await });
        }
        told.is_ok_and(|is_ours| is_ours)
    }

    async fn publish_late(&self, step: Step, publication: (Vec<u8>, Duration), keep: Duration) {
        while step.lasts(AGAIN) {
            sleep(AGAIN).await;
            if self.store.finish_step(step, Some(publication.clone()), keep).await.is_ok() {
                return;
            }
        }
        // At other replicas it counts as lost: there the next navigation goes by the provider.
        warn!("a renewed session could not be handed to other replicas");
    }

    /// The form of this generation is in its browser's hands: the others keep it for [`GRACE`] longer and no more.
    pub(super) fn shorten(self: &Arc<Self>, id: SessionId, generation: u32) {
        let this = Arc::clone(self);
        // Unheard, it lies there for as long as nobody had taken it.
        self.control.spawn(async move {
            this.heard(&this.store.shorten_step(id.into(), generation.into(), GRACE).await);
        });
    }

    /// Says so to the log when the store goes and when it comes.
    fn heard<T>(&self, answer: &Result<T, StoreError>) {
        match answer {
            Ok(_) if self.is_away.load(Ordering::Relaxed) => {
                if self.is_away.swap(false, Ordering::Relaxed) {
                    info!("replicas share their renewals again");
                }
            }
            Ok(_) => {}
            Err(error) => {
                if !self.is_away.swap(true, Ordering::Relaxed) {
                    warn!(
                        error = chain(error),
                        "the store by which replicas share renewals is away: sessions are renewed when it is back"
                    );
                }
            }
        }
    }
}

/// The step that a session's refresh token is: the one that brings its next generation.
fn number(record: &Record) -> u64 {
    u64::from(record.generation) + 1
}

/// A mark outlives the session, whichever replica's clock says that it is over.
fn keep(record: &Record, now: UnixTime) -> Duration {
    record.expires_at.since(now) + SKEW
}
