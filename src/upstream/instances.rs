//! The instances of one upstream as one worker uses them: a pool for each, and the choice between them.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::{Instant, timeout};

use super::UpstreamError;
use super::balance::{self, Dice};
use super::budget::Budget;
use super::fleet::{Directory, Instance, Listing, Trouble};
use super::pool::Pool;
use crate::telemetry::chain;

/// The instances of one upstream, on one worker.
#[derive(Debug)]
pub(super) struct Instances {
    directory: Arc<Directory>,
    /// The one there is, where that can't change: neither chosen nor counted.
    only: Option<Arc<Pool>>,
    view: ArcSwap<View>,
    updating: Mutex<()>,
    dice: Dice,
    budget: Budget,
    start: Instant,
}

/// What this worker knows of the directory's listing.
#[derive(Debug, Default)]
struct View {
    members: Vec<Arc<Member>>,
    fresh: bool,
    failure: Option<Arc<io::Error>>,
}

#[derive(Debug)]
struct Member {
    instance: Arc<Instance>,
    pool: Arc<Pool>,
    in_flight: AtomicUsize,
}

/// Where a request goes.
#[derive(Debug)]
pub(super) enum Chosen<'a> {
    /// There is no other.
    Only(&'a Arc<Pool>),
    /// One of those there are at the moment.
    One(Busy),
}

/// A request in flight; ends when it is dropped.
#[derive(Debug)]
pub(super) struct Busy(Arc<Member>);

/// The instances that one request has failed at.
#[derive(Debug, Default)]
pub(super) struct Tried {
    client: Option<IpAddr>,
    instances: Vec<Arc<Instance>>,
    /// Those that took the request and gave no answer: their fault, or the request's.
    suspects: Vec<(Arc<Instance>, Trouble)>,
}

impl Instances {
    /// For one worker, on its runtime.
    pub(super) fn new(directory: &Arc<Directory>) -> Arc<Self> {
        let instances = Arc::new(Self {
            only: directory.only().map(|address| Pool::new(&directory.settings, address)),
            directory: Arc::clone(directory),
            view: ArcSwap::default(),
            updating: Mutex::new(()),
            dice: Dice::new(),
            budget: Budget::default(),
            start: Instant::now(),
        });
        if instances.only.is_none() {
            instances.update();
            tokio::spawn(follow(Arc::downgrade(&instances)));
        }
        instances
    }

    /// The less loaded of two instances that are well and not `tried`; one that is not well where no other is left.
    ///
    /// # Errors
    /// [`UpstreamError::Connect`] where the upstream's name stands for nothing, [`UpstreamError::ConnectTimeout`] where that
    /// is not known in time.
    pub(super) async fn choose(&self, tried: &Tried) -> Result<Chosen<'_>, UpstreamError> {
        if let Some(only) = &self.only {
            return Ok(Chosen::Only(only));
        }
        self.directory.note_use();
        if !self.view.load().fresh {
            // Boxed, because it is rare and would make every request's future larger.
            Box::pin(self.catch_up()).await?;
        }
        let view = self.view.load();
        let member = self.pick(&view.members, tried).ok_or_else(|| view.unknown())?;
        member.instance.try_out();
        if view.members.len() > 1 && tried.instances.is_empty() {
            self.budget.earn();
        }
        member.in_flight.fetch_add(1, Ordering::Relaxed);
        Ok(Chosen::One(Busy(Arc::clone(member))))
    }

    fn pick<'m>(&self, members: &'m [Arc<Member>], tried: &Tried) -> Option<&'m Arc<Member>> {
        let choose = |usable: &dyn Fn(&Instance) -> bool| {
            let load = |one: usize| members[one].in_flight.load(Ordering::Relaxed);
            balance::choose(members.len(), &self.dice, |one| usable(&members[one].instance), load)
        };
        choose(&|one| one.is_well() && one.is_preferred() && !tried.has(one))
            .or_else(|| choose(&|one| one.is_well() && !tried.has(one)))
            // None is well: rather one that may be ill than none at all.
            .or_else(|| choose(&|one| one.is_preferred() && !tried.has(one)))
            .or_else(|| choose(&|one| !tried.has(one)))
            .or_else(|| choose(&|_| true))
            .map(|one| &members[one])
    }

    /// Whether a request that failed may go to another instance: there is one, and not too many requests have done so lately.
    pub(super) fn may_go_on(&self, tried: &Tried) -> bool {
        let may = self.untried(tried) > 0 && self.budget.spend(self.start.elapsed());
        if may {
            self.directory.count_retry();
        }
        may
    }

    /// How many instances a request could still be sent to.
    pub(super) fn untried(&self, tried: &Tried) -> usize {
        if self.only.is_some() {
            return 0;
        }
        self.view.load().members.iter().filter(|member| !tried.has(&member.instance)).count()
    }

    /// Whether a request could be sent to another instance than the first.
    pub(super) fn has_several(&self) -> bool {
        self.only.is_none() && self.view.load().members.len() > 1
    }

    /// Notes that `chosen` failed, `whatever_is_asked` or perhaps because of this request, which makes every instance fail that
    /// takes it.
    pub(super) fn failed(
        &self,
        chosen: &Chosen<'_>,
        error: &UpstreamError,
        whatever_is_asked: bool,
        tried: &mut Tried,
    ) {
        let Chosen::One(Busy(member)) = chosen else { return };
        // Nothing could be used instead of the last one.
        if self.has_several() {
            let trouble = Trouble { reason: error.code(), cause: chain(error) };
            if whatever_is_asked {
                self.directory.failed(&member.instance, &trouble, None);
            } else {
                tried.suspects.push((Arc::clone(&member.instance), trouble));
            }
        }
        tried.instances.push(Arc::clone(&member.instance));
    }

    /// Notes that `chosen` answered what others had not; what is to be kept for as long as the answer lasts.
    pub(super) fn succeeded(&self, chosen: Chosen<'_>, tried: &Tried) -> Option<Busy> {
        let Chosen::One(busy) = chosen else { return None };
        for (suspect, trouble) in &tried.suspects {
            self.directory.failed(suspect, trouble, None);
        }
        self.directory.succeeded(&busy.0.instance);
        Some(busy)
    }

    /// Notes that nobody answered: whose fault it is remains open, so that it counts once for each client.
    pub(super) fn gave_up(&self, tried: &Tried) {
        for (suspect, trouble) in &tried.suspects {
            self.directory.failed(suspect, trouble, tried.client);
        }
    }

    /// Waits until the upstream's name is resolved. Addresses that were known before nobody used them wait for half the time.
    async fn catch_up(&self) -> Result<(), UpstreamError> {
        let mut listing = self.directory.subscribe();
        self.directory.want();
        let is_known = !self.view.load().members.is_empty();
        let limit = self.directory.settings.connect_timeout / if is_known { 2 } else { 1 };
        let outcome = timeout(limit, listing.wait_for(|listing| listing.fresh)).await.is_ok();
        self.update();
        if outcome || is_known { Ok(()) } else { Err(UpstreamError::ConnectTimeout) }
    }

    /// Takes over the directory's listing: new instances join, those that are gone keep what they are doing and nothing else.
    fn update(&self) {
        // A panic below leaves a view as it was.
        let _updating = self.updating.lock().unwrap_or_else(PoisonError::into_inner);
        let Listing { instances, fresh, failure } = self.directory.listing();
        let known = self.view.load();
        let member = |instance: &Arc<Instance>| {
            let same = known.members.iter().find(|member| Arc::ptr_eq(&member.instance, instance));
            same.cloned().unwrap_or_else(|| {
                Arc::new(Member {
                    instance: Arc::clone(instance),
                    pool: Pool::new(&self.directory.settings, instance.address.clone()),
                    in_flight: AtomicUsize::new(0),
                })
            })
        };
        let members: Vec<_> = instances.iter().map(member).collect();
        let is_gone = |known: &&Arc<Member>| !members.iter().any(|member| Arc::ptr_eq(member, known));
        known.members.iter().filter(is_gone).for_each(|gone| gone.pool.retire());
        self.view.store(Arc::new(View { members, fresh, failure }));
    }

    #[cfg(test)]
    pub(super) fn forget_idle(&self) {
        self.view.load().members.iter().for_each(|member| member.pool.forget_idle());
        self.only.iter().for_each(|pool| pool.forget_idle());
    }

    #[cfg(test)]
    pub(super) fn well_count(&self) -> usize {
        self.view.load().members.iter().filter(|member| member.instance.is_well()).count()
    }

    #[cfg(test)]
    pub(super) fn idle_count(&self) -> usize {
        let pools = self.view.load().members.iter().map(|member| member.pool.idle_count()).sum::<usize>();
        pools + self.only.as_ref().map_or(0, |pool| pool.idle_count())
    }
}

impl View {
    fn unknown(&self) -> UpstreamError {
        let cause = self.failure.as_ref().map(|error| io::Error::new(error.kind(), Arc::clone(error)));
        UpstreamError::Connect(cause.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
    }
}

impl Chosen<'_> {
    pub(super) fn pool(&self) -> &Arc<Pool> {
        match self {
            Self::Only(pool) => pool,
            Self::One(Busy(member)) => &member.pool,
        }
    }
}

impl Tried {
    /// Nothing yet, of a request of this client.
    pub(super) fn of(client: Option<IpAddr>) -> Self {
        Self { client, ..Self::default() }
    }

    fn has(&self, instance: &Instance) -> bool {
        self.instances.iter().any(|tried| std::ptr::eq(&**tried, instance))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Keeps the view up to date, so that no request has to look.
async fn follow(instances: Weak<Instances>) {
    let Some(mut listing) = instances.upgrade().map(|instances| instances.directory.subscribe()) else { return };
    // What came between the first look and this one.
    listing.mark_changed();
    while listing.changed().await.is_ok() {
        let Some(instances) = instances.upgrade() else { return };
        instances.update();
    }
}

/// What each of several tries to connect may take, `left` of them within what is left until `end`.
pub(super) fn share(end: Instant, now: Instant, left: usize) -> Instant {
    let left = u32::try_from(left.max(1)).unwrap_or(u32::MAX);
    now + end.saturating_duration_since(now).checked_div(left).unwrap_or(Duration::ZERO)
}
