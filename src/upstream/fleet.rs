//! What the process knows of every upstream's instances: which addresses there are, which ones are left out, and why. All
//! workers share it. They only read, unless something fails.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::address::Address;
use super::eject::{Ejection, Rule};
use super::resolve::Names;
use super::{UpstreamSettings, health, resolve};
use crate::message::forwarded::network_of;
use crate::telemetry::metrics::{Metrics, Sample};

/// All upstreams, in the order of their settings.
#[derive(Debug, Clone)]
pub struct Fleet(Arc<[Arc<Directory>]>);

impl Fleet {
    /// What resolves names and asks instances how they are runs on `background`, beside the workers.
    pub fn start(upstreams: &[UpstreamSettings], background: &Handle) -> Self {
        let directories = upstreams.iter().map(|settings| Directory::start(settings.clone(), background));
        Self(directories.collect())
    }

    pub(super) fn directories(&self) -> &[Arc<Directory>] {
        &self.0
    }

    /// Shows the instances at each scrape.
    pub fn show(&self, metrics: &Metrics) {
        let gauge = |name, help, read: fn(&Instance) -> bool| {
            let fleet = self.clone();
            metrics.gauges(name, help, move || fleet.samples(read));
        };
        let up = "Whether an instance gets requests: neither ejected nor failing its checks.";
        gauge("upstream_instance_up", up, |instance| !instance.is_ejected() && instance.is_well());
        let ejected = "Whether an instance is left out because requests to it failed.";
        gauge("upstream_instance_ejected", ejected, Instance::is_ejected);
        let fleet = self.clone();
        let retries = "Requests that were sent to a second instance after the first had failed.";
        metrics.counters("upstream_retries", retries, move || {
            let sample = |directory: &Arc<Directory>| {
                let labels = vec![("upstream", directory.settings.name.clone())];
                Sample { labels, value: directory.retries.load(Ordering::Relaxed) }
            };
            fleet.0.iter().map(sample).collect()
        });
    }

    fn samples(&self, read: fn(&Instance) -> bool) -> Vec<Sample> {
        let mut samples = Vec::new();
        for directory in self.0.iter() {
            for instance in directory.listing().instances.iter() {
                let labels =
                    vec![("upstream", directory.settings.name.clone()), ("instance", instance.address.to_string())];
                samples.push(Sample { labels, value: u64::from(read(instance)) });
            }
        }
        samples
    }
}

/// The instances of one upstream.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) settings: UpstreamSettings,
    listing: watch::Sender<Listing>,
    /// Whether any of it can change.
    has_names: bool,
    /// Whether anybody asked since the last lookup.
    used: AtomicBool,
    wanted: Notify,
    retries: AtomicU64,
}

/// The instances at one time.
#[derive(Debug, Clone, Default)]
pub(super) struct Listing {
    pub(super) instances: Arc<[Arc<Instance>]>,
    /// Whether names are being resolved; where not, whoever wants an instance asks and waits.
    pub(super) fresh: bool,
    /// Why the last lookup gave nothing.
    pub(super) failure: Option<Arc<io::Error>>,
}

impl Listing {
    /// Whether both list the same.
    pub(super) fn same(&self, other: &Self) -> bool {
        let same = |(one, other): (&Arc<Instance>, &Arc<Instance>)| Arc::ptr_eq(one, other);
        self.fresh == other.fresh
            && self.failure.is_some() == other.failure.is_some()
            && self.instances.len() == other.instances.len()
            && self.instances.iter().zip(other.instances.iter()).all(same)
    }
}

impl Directory {
    fn start(settings: UpstreamSettings, background: &Handle) -> Arc<Self> {
        let names = Names::new(&settings.places);
        let has_names = !names.is_settled();
        let listing = Listing { fresh: !has_names, ..names.listing() };
        let directory = Arc::new(Self {
            listing: watch::Sender::new(listing),
            has_names,
            used: AtomicBool::new(false),
            wanted: Notify::new(),
            retries: AtomicU64::new(0),
            settings,
        });
        if has_names {
            background.spawn(resolve::run(Arc::clone(&directory), names));
        }
        if let Some(tls) = &directory.settings.tls {
            background.spawn(Arc::clone(tls).watch());
        }
        if let Some(checks) = directory.settings.health.clone() {
            background.spawn(health::run(Arc::clone(&directory), checks));
        }
        directory
    }

    /// The address, where there is one and it can't change.
    pub(super) fn only(&self) -> Option<Address> {
        match &*self.listing().instances {
            [only] if !self.has_names => Some(only.address.clone()),
            _ => None,
        }
    }

    pub(super) fn listing(&self) -> Listing {
        self.listing.borrow().clone()
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Listing> {
        self.listing.subscribe()
    }

    /// Tells those who follow, if it is news.
    pub(super) fn publish(&self, listing: Listing) {
        self.listing.send_if_modified(|known| {
            let news = !known.same(&listing);
            *known = listing;
            news
        });
    }

    /// Keeps names resolved. One look at most, so that workers write nothing that others read.
    pub(super) fn note_use(&self) {
        if self.has_names && !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// Whether there was any use since the last call.
    pub(super) fn take_use(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    /// Has names resolved that are not, for want of use.
    pub(super) fn want(&self) {
        self.wanted.notify_one();
    }

    /// Until [`Directory::want`].
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// A request goes to a second instance.
    pub(super) fn count_retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// A request to one of several instances failed there; `of`: perhaps only because it was this client's.
    pub(super) fn failed(&self, instance: &Instance, trouble: &Trouble, of: Option<IpAddr>) {
        let rule = Rule { after: self.settings.eject_after, span: self.settings.eject_for };
        let Some(span) = instance.failed(rule, of) else { return };
        tracing::warn!(
            upstream = %self.settings.name,
            instance = %instance.address,
            reason = trouble.reason,
            cause = trouble.cause,
            seconds = span.as_secs_f64(),
            "an instance of the upstream failed several times in a row and is left out; see that it runs and listens there"
        );
        self.tell_if_none_is_well();
    }

    /// A request was answered by an instance.
    pub(super) fn succeeded(&self, instance: &Instance) {
        if instance.succeeded() {
            tracing::info!(
                upstream = %self.settings.name,
                instance = %instance.address,
                "an instance of the upstream answers again"
            );
        }
    }

    pub(super) fn tell_if_none_is_well(&self) {
        let listing = self.listing();
        if listing.instances.len() > 1 && !listing.instances.iter().any(|instance| instance.is_well()) {
            tracing::error!(
                upstream = %self.settings.name,
                instances = listing.instances.len(),
                "no instance of the upstream is well, so requests go to all of them"
            );
        }
    }
}

/// What went wrong with a request, for the operator.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) reason: &'static str,
    pub(super) cause: String,
}

/// One instance, and how it is.
pub(super) struct Instance {
    pub(super) address: Address,
    /// Where it shares a name with addresses of the other family.
    family: Option<Arc<Family>>,
    start: Instant,
    /// Whether `ejection` holds anything.
    troubled: AtomicBool,
    /// Milliseconds since the start; 0 while it is not left out.
    out_until: AtomicU64,
    ejection: Mutex<Ejection>,
    fails_checks: AtomicBool,
}

/// Which addresses of a name to use while it has IPv4 and IPv6 ones: both usually lead to the same process, and one of them
/// often nowhere (`localhost`).
#[derive(Debug, Default)]
pub(super) struct Family {
    is_mixed: AtomicBool,
    prefers_v6: AtomicBool,
}

impl Family {
    pub(super) fn set_mixed(&self, mixed: bool) {
        self.is_mixed.store(mixed, Ordering::Relaxed);
    }

    pub(super) fn prefer(&self, v6: bool) {
        self.prefers_v6.store(v6, Ordering::Relaxed);
    }
}

impl Instance {
    pub(super) fn new(address: Address, family: Option<Arc<Family>>) -> Arc<Self> {
        Arc::new(Self {
            address,
            family,
            start: Instant::now(),
            troubled: AtomicBool::new(false),
            out_until: AtomicU64::new(0),
            ejection: Mutex::default(),
            fails_checks: AtomicBool::new(false),
        })
    }

    /// Neither left out nor failing its checks. Asks the clock only in trouble.
    pub(super) fn is_well(&self) -> bool {
        let out_until = self.out_until.load(Ordering::Relaxed);
        !self.fails_checks.load(Ordering::Relaxed) && (out_until == 0 || millis(self.now()) >= out_until)
    }

    /// Whether it is left out because requests to it failed, or has yet to be tried out since.
    fn is_ejected(&self) -> bool {
        self.out_until.load(Ordering::Relaxed) != 0
    }

    /// Whether it is of the family that works.
    pub(super) fn is_preferred(&self) -> bool {
        let Some(family) = &self.family else { return true };
        !family.is_mixed.load(Ordering::Relaxed) || family.prefers_v6.load(Ordering::Relaxed) == self.address.is_v6()
    }

    /// What the active checks found.
    pub(super) fn set_checks(&self, pass: bool) {
        self.fails_checks.store(!pass, Ordering::Relaxed);
    }

    /// A request goes there: where its time of being left out is over, this one shows how it is, and all others wait.
    pub(super) fn try_out(&self) {
        if !self.is_ejected() {
            return;
        }
        let mut ejection = self.ejection();
        ejection.begin_trial(self.now());
        self.note(&ejection);
    }

    fn failed(&self, rule: Rule, of: Option<IpAddr>) -> Option<Duration> {
        let mut ejection = self.ejection();
        let out = match of {
            None => ejection.failed(self.now(), rule),
            Some(client) => ejection.suspected(self.now(), rule, network_of(client.to_canonical())),
        };
        self.note(&ejection);
        out
    }

    /// Whether it had been left out.
    fn succeeded(&self) -> bool {
        if !self.is_preferred()
            && let Some(family) = &self.family
        {
            family.prefer(self.address.is_v6());
        }
        if !self.troubled.load(Ordering::Relaxed) {
            return false;
        }
        let mut ejection = self.ejection();
        let is_back = ejection.succeeded(self.now());
        self.note(&ejection);
        is_back
    }

    fn note(&self, ejection: &Ejection) {
        self.troubled.store(!ejection.is_clean(), Ordering::Relaxed);
        self.out_until.store(ejection.out_until().map_or(0, millis), Ordering::Relaxed);
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn ejection(&self) -> MutexGuard<'_, Ejection> {
        // A panic between two statements leaves a record that is still one.
        self.ejection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Instance").field("address", &self.address).finish_non_exhaustive()
    }
}

/// At least one, because 0 means never.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}
