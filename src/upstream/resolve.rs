//! Names and their addresses: resolved anew every few seconds while they are used, because the system's resolver tells no
//! lifetime. A lookup that fails changes nothing.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::address::{Address, Place};
use super::fleet::{Directory, Family, Instance, Listing};
use crate::telemetry::chain;

/// How long names are resolved without anybody asking for them.
const LINGER: Duration = Duration::from_secs(60);
/// How soon a name that never had an address is looked up again.
const SOON: Duration = Duration::from_secs(1);
/// The most instances that one name stands for.
const MOST: usize = 256;

type Answer = io::Result<Vec<SocketAddr>>;
type LookUp = dyn Fn(&str, u16) -> Answer + Send + Sync;

/// How a name and a port become addresses; may block.
#[derive(Clone)]
pub struct Lookup(Arc<LookUp>);

impl Lookup {
    /// One of one's own, for tests.
    pub fn new(look_up: impl Fn(&str, u16) -> Answer + Send + Sync + 'static) -> Self {
        Self(Arc::new(look_up))
    }
}

impl Default for Lookup {
    /// The system's.
    fn default() -> Self {
        Self::new(|host, port| Ok((host, port).to_socket_addrs()?.collect()))
    }
}

impl fmt::Debug for Lookup {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Lookup")
    }
}

/// Resolves `names` while they are used, for as long as the process lives.
pub(super) async fn run(directory: Arc<Directory>, mut names: Names) {
    let every = directory.settings.resolve_interval;
    let mut lookups = JoinSet::new();
    loop {
        directory.wanted().await;
        let mut unused = Duration::ZERO;
        while unused < LINGER {
            let begun = Instant::now();
            names.look_up(&directory, &mut lookups);
            // Most names are known at once. One that is not must not keep the others from being looked up again.
            names.collect(&directory, &mut lookups, begun + every).await;
            names.publish(&directory);
            let pause = if names.has_gaps() { every.min(SOON) } else { every };
            let next = Instant::now() + pause;
            names.collect(&directory, &mut lookups, next).await;
            tokio::time::sleep_until(next).await;
            unused = if directory.take_use() { Duration::ZERO } else { unused + begun.elapsed() };
        }
        directory.publish(Listing { fresh: false, ..names.listing() });
    }
}

/// What an upstream's places stand for.
#[derive(Debug)]
pub(super) struct Names {
    entries: Vec<Entry>,
    failure: Option<Arc<io::Error>>,
}

#[derive(Debug)]
struct Entry {
    /// `None` where an address is written, which is never resolved.
    name: Option<(String, u16)>,
    family: Arc<Family>,
    instances: Vec<Arc<Instance>>,
    fails: bool,
    /// Whether it is being looked up: one lookup at a time, however long it takes, since there is no way to end one.
    is_asked: bool,
}

/// What a lookup changed.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    Nothing,
    /// Addresses came or went.
    Moved {
        came: usize,
        gone: usize,
    },
    /// It failed, for the first time in a row.
    Failed,
}

impl Names {
    pub(super) fn new(places: &[Place]) -> Self {
        let entry = |place: &Place| {
            let fixed = |address| (None, vec![Instance::new(address, None)]);
            let (name, instances) = match place {
                Place::Unix(path) => fixed(Address::Unix(path.clone())),
                Place::Host { host, port } => match host.parse::<IpAddr>() {
                    Ok(ip) => fixed(Address::Tcp((ip, *port).into())),
                    Err(_) => (Some((host.clone(), *port)), Vec::new()),
                },
            };
            Entry { name, family: Arc::default(), instances, fails: false, is_asked: false }
        };
        Self { entries: places.iter().map(entry).collect(), failure: None }
    }

    /// Whether there is nothing to resolve.
    pub(super) fn is_settled(&self) -> bool {
        self.entries.iter().all(|entry| entry.name.is_none())
    }

    /// Each address once, in the order of the places.
    pub(super) fn listing(&self) -> Listing {
        let mut instances: Vec<Arc<Instance>> = Vec::new();
        for instance in self.entries.iter().flat_map(|entry| &entry.instances) {
            if !instances.iter().any(|known| known.address == instance.address) {
                instances.push(Arc::clone(instance));
            }
        }
        Listing { instances: instances.into(), fresh: false, failure: self.failure.clone() }
    }

    /// Whether a name stands for nothing yet.
    fn has_gaps(&self) -> bool {
        self.entries.iter().any(|entry| entry.instances.is_empty())
    }

    /// Begins to look up every name that is not being looked up already.
    fn look_up(&mut self, directory: &Directory, lookups: &mut JoinSet<(usize, Answer)>) {
        self.failure = None;
        for (index, entry) in self.entries.iter_mut().enumerate() {
            let Some((host, port)) = entry.name.clone().filter(|_| !entry.is_asked) else { continue };
            entry.is_asked = true;
            let Lookup(look_up) = directory.settings.lookup.clone();
            lookups.spawn(async move {
                let answer = tokio::task::spawn_blocking(move || look_up(&host, port)).await;
                (index, answer.unwrap_or_else(|_| Err(io::Error::other("the lookup was cut short"))))
            });
        }
    }

    /// Takes over and publishes each answer as it comes, until `end` or until none is waited for.
    async fn collect(&mut self, directory: &Directory, lookups: &mut JoinSet<(usize, Answer)>, end: Instant) {
        while let Ok(Some(found)) = timeout_at(end, lookups.join_next()).await {
            // Nothing in there panics, and nothing ends it.
            let Ok((index, answer)) = found else { continue };
            self.entries[index].is_asked = false;
            let change = self.take(index, answer);
            self.tell(index, &change, directory);
            self.publish(directory);
        }
    }

    /// Where nothing is known yet, whoever waits goes on waiting for the names that are still being looked up.
    fn publish(&self, directory: &Directory) {
        let listing = self.listing();
        if !listing.instances.is_empty() || !self.entries.iter().any(|entry| entry.is_asked) {
            directory.publish(Listing { fresh: true, ..listing });
        }
    }

    /// Takes over what a lookup found.
    fn take(&mut self, index: usize, answer: Answer) -> Change {
        let entry = &mut self.entries[index];
        let addresses = answer.map(|mut addresses| {
            addresses.retain(|address| is_of_one_host(address.ip()));
            addresses
        });
        let addresses = match addresses {
            Ok(addresses) if !addresses.is_empty() => addresses,
            other => {
                let nothing = || io::Error::new(io::ErrorKind::NotFound, "the name has no address to connect to");
                self.failure = Some(Arc::new(other.err().unwrap_or_else(nothing)));
                return if std::mem::replace(&mut entry.fails, true) { Change::Nothing } else { Change::Failed };
            }
        };
        entry.fails = false;
        if entry.instances.is_empty() {
            entry.family.prefer(addresses[0].is_ipv6());
        }
        entry.family.set_mixed(addresses.iter().any(SocketAddr::is_ipv6) && addresses.iter().any(SocketAddr::is_ipv4));
        let addresses: Vec<_> = addresses.into_iter().map(Address::Tcp).take(MOST).collect();
        let before = entry.instances.len();
        // The order stays: resolvers like to turn theirs.
        entry.instances.retain(|instance| addresses.contains(&instance.address));
        let gone = before - entry.instances.len();
        for address in addresses {
            if !entry.instances.iter().any(|known| known.address == address) {
                entry.instances.push(Instance::new(address, Some(Arc::clone(&entry.family))));
            }
        }
        match (entry.instances.len() + gone - before, gone) {
            (0, 0) => Change::Nothing,
            (came, gone) => Change::Moved { came, gone },
        }
    }

    fn tell(&self, index: usize, change: &Change, directory: &Directory) {
        let entry = &self.entries[index];
        let (upstream, host) = (&directory.settings.name, entry.name.as_ref().map_or("", |(host, _)| host));
        match change {
            Change::Nothing => {}
            Change::Moved { came, gone } => {
                tracing::info!(upstream, host, came, gone, "the addresses of an upstream's name have changed");
            }
            Change::Failed => tracing::warn!(
                upstream,
                host,
                reason = "upstream_lookup",
                cause = self.failure.as_ref().map(|error| chain(&**error)),
                "an upstream's name could not be resolved; what it stood for stays in use; look at the name and the DNS server"
            ),
        }
    }
}

/// Whether this is an address to connect to. `0.0.0.0` and `::`, which filtering resolvers answer for names that they hide,
/// would lead to this machine.
fn is_of_one_host(address: IpAddr) -> bool {
    let address = address.to_canonical();
    !(address.is_unspecified() || address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::timeout;

    use super::super::UpstreamSettings;
    use super::super::fleet::Fleet;
    use super::*;

    fn named(name: &str) -> Place {
        Place::Host { host: name.to_owned(), port: 80 }
    }

    fn found(addresses: &[&str]) -> Answer {
        Ok(addresses.iter().map(|ip| (ip.parse::<IpAddr>().unwrap(), 80).into()).collect())
    }

    fn listed(names: &Names) -> Vec<String> {
        names.listing().instances.iter().map(|instance| instance.address.to_string()).collect()
    }

    fn failed() -> Answer {
        Err(io::ErrorKind::TimedOut.into())
    }

    #[test]
    fn addresses_come_and_go_and_those_that_stay_keep_what_is_known_of_them() {
        let mut names = Names::new(&[named("app")]);
        assert!(names.has_gaps() && !names.is_settled() && listed(&names).is_empty());
        assert_eq!(names.take(0, found(&["10.0.0.1", "10.0.0.2"])), Change::Moved { came: 2, gone: 0 });
        let before = names.listing();
        assert_eq!(names.take(0, found(&["10.0.0.2", "10.0.0.1"])), Change::Nothing, "resolvers turn their answers");
        assert!(names.listing().same(&before));
        assert_eq!(names.take(0, found(&["10.0.0.3", "10.0.0.2", "10.0.0.3"])), Change::Moved { came: 1, gone: 1 });
        assert_eq!(listed(&names), ["10.0.0.2:80", "10.0.0.3:80"]);
        assert!(Arc::ptr_eq(&names.listing().instances[0], &before.instances[1]));
    }

    #[test]
    fn a_lookup_that_fails_or_finds_nothing_changes_nothing_and_is_told_once() {
        let mut names = Names::new(&[named("app")]);
        assert_eq!(names.take(0, failed()), Change::Failed);
        assert_eq!(names.listing().failure.unwrap().kind(), io::ErrorKind::TimedOut);
        names.take(0, found(&["10.0.0.1"]));
        for (answer, change) in
            [(failed(), Change::Failed), (Ok(Vec::new()), Change::Nothing), (failed(), Change::Nothing)]
        {
            assert_eq!(names.take(0, answer), change);
            assert_eq!(listed(&names), ["10.0.0.1:80"]);
        }
        assert_eq!(names.take(0, found(&["10.0.0.1"])), Change::Nothing);
        assert_eq!(names.take(0, failed()), Change::Failed, "told anew after it had gone well");
    }

    #[test]
    fn addresses_of_nobody_and_of_many_are_not_used() {
        let mut names = Names::new(&[named("app")]);
        let nobody = ["0.0.0.0", "::", "::ffff:0.0.0.0", "224.0.0.1", "ff02::1", "255.255.255.255"];
        assert_eq!(names.take(0, found(&nobody)), Change::Failed);
        assert!(listed(&names).is_empty() && names.listing().failure.is_some());
        names.take(0, found(&[&nobody[..], &["10.0.0.1"]].concat()));
        assert_eq!(listed(&names), ["10.0.0.1:80"]);
    }

    #[tokio::test]
    async fn a_name_that_takes_long_holds_no_other_back() {
        let (go, gate) = std::sync::mpsc::channel::<()>();
        let gate = std::sync::Mutex::new(gate);
        let asked = Arc::new(AtomicUsize::new(0));
        let lookup = Lookup::new({
            let asked = Arc::clone(&asked);
            move |host, _| match host {
                "slow" => {
                    let _ = gate.lock().unwrap().recv();
                    found(&["10.0.0.9"])
                }
                _ => found(&["10.0.0.1", "10.0.0.2"][..=asked.fetch_add(1, Ordering::SeqCst).min(1)]),
            }
        });
        let settings = UpstreamSettings {
            places: vec![named("slow"), named("quick")],
            lookup,
            resolve_interval: Duration::from_millis(20),
            ..UpstreamSettings::default()
        };
        let fleet = Fleet::start(&[settings], &tokio::runtime::Handle::current());
        let directory = &fleet.directories()[0];
        directory.want();
        let mut listing = directory.subscribe();
        // Known although the other is not, and looked up again.
        for count in [1, 2] {
            let known = listing.wait_for(|listing| listing.fresh && listing.instances.len() >= count);
            timeout(Duration::from_secs(10), known).await.expect("in time").unwrap();
            assert!(asked.load(Ordering::SeqCst) >= count);
            directory.note_use();
        }
        go.send(()).unwrap();
        let known = listing.wait_for(|listing| listing.instances.len() == 3);
        timeout(Duration::from_secs(10), known).await.expect("in time").unwrap();
        drop(go);
    }

    #[test]
    fn places_are_joined_and_each_address_is_there_once() {
        let address = |host: &str| Place::Host { host: host.to_owned(), port: 80 };
        let mut names =
            Names::new(&[address("10.0.0.1"), named("app"), address("::1"), Place::Unix("/run/app.sock".into())]);
        assert_eq!(listed(&names), ["10.0.0.1:80", "[::1]:80", "unix:/run/app.sock"]);
        names.take(1, found(&["10.0.0.1", "10.0.0.9"]));
        assert_eq!(listed(&names), ["10.0.0.1:80", "10.0.0.9:80", "[::1]:80", "unix:/run/app.sock"]);
        assert!(Names::new(&[address("10.0.0.1"), address("::1")]).is_settled());
    }

    #[test]
    fn of_two_families_under_one_name_the_resolvers_first_is_preferred() {
        let mut names = Names::new(&[named("localhost")]);
        let preferred = |names: &Names| {
            let listing = names.listing();
            listing.instances.iter().map(|instance| instance.is_preferred()).collect::<Vec<_>>()
        };
        names.take(0, found(&["::1", "127.0.0.1"]));
        assert_eq!(preferred(&names), [true, false]);
        names.take(0, found(&["127.0.0.1", "::1"]));
        assert_eq!(preferred(&names), [true, false], "once decided, the order says nothing");
        names.take(0, found(&["127.0.0.1"]));
        assert_eq!(preferred(&names), [true]);
    }

    #[test]
    fn a_name_stands_for_a_bounded_number_of_instances() {
        let mut names = Names::new(&[named("app")]);
        let many: Vec<_> = (0..1_000).map(|one| SocketAddr::from(([10, 0, (one >> 8) as u8, one as u8], 80))).collect();
        names.take(0, Ok(many));
        assert_eq!(names.listing().instances.len(), MOST);
    }
}
