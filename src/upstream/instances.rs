//! The instances of one upstream: a pool for each address that its name stands for.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::{Instant, timeout_at};

use super::address::Address;
use super::pool::{Lease, Pool};
use super::{Place, UpstreamError, UpstreamSettings};

/// The addresses of one upstream, on one worker.
#[derive(Debug)]
pub(super) struct Instances {
    settings: UpstreamSettings,
    /// What is resolved anew for each connection; `None` where an address is configured.
    name: Option<(String, u16)>,
    /// In the resolver's order. The lock is never contended: only this worker takes it.
    pools: Mutex<Vec<Arc<Pool>>>,
}

impl Instances {
    pub(super) fn new(settings: &UpstreamSettings) -> Self {
        let (name, address) = match &settings.place {
            Place::Unix(path) => (None, Some(Address::Unix(path.clone()))),
            Place::Host { host, port } => match host.parse::<IpAddr>() {
                Ok(ip) => (None, Some(Address::Tcp((ip, *port).into()))),
                Err(_) => (Some((host.clone(), *port)), None),
            },
        };
        let pools = address.map(|address| Pool::new(settings, address)).into_iter().collect();
        Self { settings: settings.clone(), name, pools: Mutex::new(pools) }
    }

    /// Whether any instance is [unreliable](Pool::is_unreliable).
    pub(super) fn is_unreliable(&self) -> bool {
        self.pools().iter().any(|pool| pool.is_unreliable())
    }

    /// An unused connection that is still good.
    pub(super) fn check_out(&self, alone: bool) -> Option<Lease> {
        self.pools().iter().find_map(|pool| pool.check_out(alone))
    }

    /// A new connection: every address of the name in the resolver's order, each with its share of what is left of the time.
    pub(super) async fn connect(&self, alone: bool) -> Result<Lease, UpstreamError> {
        let deadline = Instant::now() + self.settings.connect_timeout;
        let pools = match &self.name {
            Some(name) => self.resolve(name, deadline).await?,
            None => self.pools().clone(),
        };
        let mut last = UpstreamError::Connect(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        for (index, pool) in pools.iter().enumerate() {
            let now = Instant::now();
            let left = u32::try_from(pools.len() - index).unwrap_or(u32::MAX);
            match pool.connect(alone, now + deadline.saturating_duration_since(now) / left).await {
                Ok(lease) => return Ok(lease),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// A pool for each address that the name has now; those of addresses that are gone close with their last lease.
    async fn resolve(&self, name: &(String, u16), deadline: Instant) -> Result<Vec<Arc<Pool>>, UpstreamError> {
        let addresses = timeout_at(deadline, tokio::net::lookup_host((name.0.as_str(), name.1)))
            .await
            .map_err(|_| UpstreamError::ConnectTimeout)?
            .map_err(UpstreamError::Connect)?;
        let mut pools = self.pools();
        let known = std::mem::take(&mut *pools);
        *pools = addresses
            .map(Address::Tcp)
            .map(|address| match known.iter().find(|pool| *pool.address() == address) {
                Some(pool) => Arc::clone(pool),
                None => Pool::new(&self.settings, address),
            })
            .collect();
        Ok(pools.clone())
    }

    fn pools(&self) -> MutexGuard<'_, Vec<Arc<Pool>>> {
        // A panic between two statements above leaves a list that is still a list.
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn forget_idle(&self) {
        self.pools().iter().for_each(|pool| pool.forget_idle());
    }

    #[cfg(test)]
    pub(super) fn idle_count(&self) -> usize {
        self.pools().iter().map(|pool| pool.idle_count()).sum()
    }
}
