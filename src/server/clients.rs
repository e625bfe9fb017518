//! How many connections one client address may have at the same time. Nothing here costs anything where it is off.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;
use tokio::sync::OwnedSemaphorePermit;

use super::open::Counted;
use crate::message::forwarded::{is_within, network_of};

/// The open connections of each client; shared by all workers.
#[derive(Debug)]
pub struct Clients {
    most: NonZeroU32,
    /// Who speaks for many.
    exempt: Vec<IpNet>,
    open: Mutex<HashMap<IpAddr, u32>>,
}

impl Clients {
    /// `most` for each address, any number for those in `exempt`.
    pub fn new(most: NonZeroU32, exempt: Vec<IpNet>) -> Arc<Self> {
        Arc::new(Self { most, exempt, open: Mutex::default() })
    }

    /// A place for one more connection of `address`; `None` where it has as many as it may.
    fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Entered> {
        let address = address.to_canonical();
        if is_within(address, &self.exempt) {
            return Some(Entered { clients: Arc::clone(self), address: None });
        }
        let address = network_of(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_default();
        if *count >= self.most.get() {
            return None;
        }
        *count += 1;
        Some(Entered { clients: Arc::clone(self), address: Some(address) })
    }
}

/// One connection among those of its client.
#[derive(Debug)]
struct Entered {
    clients: Arc<Clients>,
    address: Option<IpAddr>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut open = self.clients.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&address) {
            *count -= 1;
            // Who is gone is not remembered, so that the table is as large as the connections are many.
            if *count == 0 {
                open.remove(&address);
            }
        }
    }
}

/// A connection's place under both caps, for as long as its socket lives.
#[derive(Debug)]
pub(super) struct Place {
    _worker: OwnedSemaphorePermit,
    _counted: Counted,
    client: Option<Entered>,
}

impl Place {
    /// Of a connection whose client is not known yet.
    pub(super) fn new(worker: OwnedSemaphorePermit, counted: Counted) -> Self {
        Self { _worker: worker, _counted: counted, client: None }
    }

    /// Among the connections of `address`, which is the client's; `None` where it has as many as it may.
    pub(super) fn of_client(mut self, clients: Option<&Arc<Clients>>, address: IpAddr) -> Option<Self> {
        if let Some(clients) = clients {
            self.client = Some(clients.enter(address)?);
        }
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 network counts as such however it is written, and a network of IPv6 says nothing about IPv4.
    const NETWORKS: [&str; 3] = ["10.0.0.0/8", "::ffff:172.16.0.0/108", "fd00::/8"];

    #[test]
    fn each_address_has_its_places_and_gives_them_back() {
        let clients =
            Clients::new(NonZeroU32::new(2).unwrap(), NETWORKS.map(|network| network.parse().unwrap()).to_vec());
        let enter = |text: &str| clients.enter(text.parse().unwrap());
        let (first, second) = (enter("192.0.2.1").unwrap(), enter("::ffff:192.0.2.1").unwrap());
        assert!(enter("192.0.2.1").is_none());
        let others: Vec<_> = (0..9).map(|_| enter("10.0.0.1").unwrap()).chain(enter("192.0.2.2")).collect();
        assert_eq!(others.len(), 10);
        for address in ["172.16.0.1", "::ffff:172.16.0.1", "fd00::1"] {
            let many: Vec<_> = (0..9).filter_map(|_| enter(address)).collect();
            assert_eq!(many.len(), 9, "{address}");
        }
        let neighbours = [enter("2001:db8::1").unwrap(), enter("2001:db8::2").unwrap()];
        assert!(enter("2001:db8::3:0").is_none(), "one network of 64 bits is one client");
        assert!(enter("2001:db8:0:1::1").is_some());
        drop(neighbours);
        drop(first);
        let third = enter("192.0.2.1").unwrap();
        drop((second, third, others));
        assert!(clients.open.lock().unwrap().is_empty());
    }
}
