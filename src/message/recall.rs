//! What was made of the last request of a connection, for its next one: a client that keeps its connection sends the same
//! host and the same cookies again and again. It belongs to the connection, so that no two of them share anything, and ends
//! with it. Each thing counts only for exactly what it was made from.

use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::HeaderValue;

use super::forwarded::{Client, Forwarding};
use super::inbound::authority::Authority;

/// One connection's; a clone is the same one. The lock is never contended: a connection is one worker's.
#[derive(Debug, Clone, Default)]
pub struct Recall(Arc<Mutex<Held>>);

#[derive(Debug, Default)]
struct Held {
    /// What others have put here.
    put: Option<Box<dyn Any + Send>>,
    authority: Option<Authority>,
    forwarding: Option<Arc<Forwarding>>,
}

impl Recall {
    /// Takes out what was put here last, if it is a `T`.
    pub fn take<T: Any>(&self) -> Option<Box<T>> {
        self.held().put.take()?.downcast().ok()
    }

    /// Puts something in the place of whatever is here.
    pub fn put<T: Any + Send>(&self, value: Box<T>) {
        self.held().put = Some(value);
    }

    /// Lets go of all.
    pub fn forget(&self) {
        *self.held() = Held::default();
    }

    /// As [`Authority::parse`].
    pub(super) fn authority(&self, text: &[u8]) -> Option<Authority> {
        let held = &mut *self.held();
        match &held.authority {
            Some(known) if known.value() == text => Some(known.clone()),
            _ => {
                let authority = Authority::parse(text)?;
                Some(held.authority.insert(authority).clone())
            }
        }
    }

    /// As [`Forwarding::new`].
    pub(super) fn forwarding(&self, client: Client, authority: &HeaderValue) -> Arc<Forwarding> {
        let held = &mut *self.held();
        match &held.forwarding {
            Some(known) if known.is_of(&client, authority) => Arc::clone(known),
            _ => Arc::clone(held.forwarding.insert(Arc::new(Forwarding::new(client, authority.clone())))),
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // It is whole at any time, or it is not there.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::super::forwarded::{Peer, Scheme};
    use super::*;

    #[test]
    fn a_thing_is_taken_once_and_only_as_what_it_is() {
        let recall = Recall::default();
        recall.clone().put(Box::new(7_u32));
        assert_eq!(recall.take::<u32>().as_deref(), Some(&7));
        assert!(recall.take::<u32>().is_none());
        recall.put(Box::new(7_u32));
        assert!(recall.take::<u64>().is_none());
        recall.put(Box::new(7_u32));
        recall.forget();
        assert!(recall.take::<u32>().is_none());
    }

    #[test]
    fn what_is_known_of_a_host_counts_for_that_host_alone() {
        let recall = Recall::default();
        for (text, host) in [("A.example:1", "a.example"), ("A.example:1", "a.example"), ("b.example", "b.example")] {
            assert_eq!(recall.authority(text.as_bytes()).unwrap().host(), host);
            assert!(recall.authority(b"a b").is_none(), "what is no host is none after one, either");
        }
    }

    #[test]
    fn what_is_told_of_a_client_is_told_of_that_client_at_that_host_alone() {
        let recall = Recall::default();
        let client = |address: &str, scheme| {
            let peer = Peer::new(address.parse().unwrap());
            Client::derive(&HeaderMap::new(), &peer, scheme, &[])
        };
        for (address, scheme, host) in [
            ("192.0.2.1", Scheme::Http, "a.example"),
            ("192.0.2.1", Scheme::Http, "a.example"),
            ("192.0.2.1", Scheme::Http, "b.example"),
            ("192.0.2.1", Scheme::Https, "b.example"),
            ("192.0.2.2", Scheme::Https, "b.example"),
        ] {
            let forwarding = recall.forwarding(client(address, scheme), &HeaderValue::from_static(host));
            let told: Vec<_> = forwarding.fields().iter().map(|(_, value)| value.clone().unwrap()).collect();
            let scheme = scheme.as_str();
            assert_eq!(told, [address, address, scheme, host, &format!("for={address};host={host};proto={scheme}")]);
        }
    }
}
