//! Token buckets, one for each client or user: how often something may be done, and when it may be done again. Bounded,
//! however many ask.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::message::forwarded::network_of;

/// Each is locked on its own, so that workers hardly ever meet.
const SHARDS: usize = 16;
/// The most buckets of a shard; 65,536 in all, which is about 2 MiB.
const SHARD_SIZE: usize = 4096;

/// How often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// The time in which one more turn is earned. Never zero.
    pub interval: Duration,
    /// The most turns that can be saved up. Never zero.
    pub burst: u32,
}

/// Whose turns are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Per {
    /// The client's address, as far as it can be believed; of an IPv6 one the first 64 bits, which is what one customer gets.
    Client,
    /// Whoever is signed in, by issuer and subject; the client's address where nobody is.
    User,
}

/// No turn is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many in too short a time")]
pub struct TooMany {
    /// Until the next turn.
    pub retry_after: Duration,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Caller<'a> {
    Client(IpAddr),
    User(&'a [u8]),
}

/// A limit and how much of it everybody has used; shared by all workers.
#[derive(Debug)]
pub struct RateLimit {
    /// Whose turns are counted.
    pub per: Per,
    rate: Rate,
    started: Instant,
    hasher: RandomState,
    /// Hash of the caller → when its bucket will be full again, after `started` (generic cell rate algorithm).
    shards: [Mutex<HashMap<u64, Duration>>; SHARDS],
}

impl RateLimit {
    /// Full buckets for everybody.
    pub fn new(per: Per, rate: Rate) -> Self {
        Self { per, rate, started: Instant::now(), hasher: RandomState::new(), shards: Default::default() }
    }

    /// Takes a turn of a client.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn client(&self, address: IpAddr) -> Result<(), TooMany> {
        self.take(Caller::Client(network_of(address)), Instant::now())
    }

    /// Whether a client has a turn left, which this does not take.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn has_turn(&self, address: IpAddr) -> Result<(), TooMany> {
        self.left(Caller::Client(network_of(address)), Instant::now())
    }

    /// Takes a turn of a user, by whatever tells one from all others.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn user(&self, who: &[u8]) -> Result<(), TooMany> {
        self.take(Caller::User(who), Instant::now())
    }

    fn left(&self, caller: Caller<'_>, now: Instant) -> Result<(), TooMany> {
        let now = now.saturating_duration_since(self.started);
        let key = self.hasher.hash_one(caller);
        let full_at = self.shards[(key % SHARDS as u64) as usize].lock().unwrap_or_else(PoisonError::into_inner);
        self.missing(full_at.get(&key).map_or(now, |full| (*full).max(now)), now)
    }

    /// What a bucket that will be full at `full` lacks for one turn.
    fn missing(&self, full: Duration, now: Duration) -> Result<(), TooMany> {
        let saved_up = self.rate.interval.saturating_mul(self.rate.burst - 1);
        let missing = (full - now).saturating_sub(saved_up);
        if missing.is_zero() { Ok(()) } else { Err(TooMany { retry_after: missing }) }
    }

    fn take(&self, caller: Caller<'_>, now: Instant) -> Result<(), TooMany> {
        let now = now.saturating_duration_since(self.started);
        let key = self.hasher.hash_one(caller);
        // A remainder below 16.
        let shard = &self.shards[(key % SHARDS as u64) as usize];
        let mut full_at = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let full = full_at.get(&key).map_or(now, |full| (*full).max(now));
        self.missing(full, now)?;
        if full_at.len() >= SHARD_SIZE && !full_at.contains_key(&key) {
            make_room(&mut full_at, now);
        }
        full_at.insert(key, full + self.rate.interval);
        Ok(())
    }
}

/// A full bucket is as good as none. Where that is not enough, those that are nearest to full lose what little they lack:
/// whoever asks most is remembered longest.
fn make_room(full_at: &mut HashMap<u64, Duration>, now: Duration) {
    full_at.retain(|_, full| *full > now);
    if full_at.len() > SHARD_SIZE / 2 {
        let mut times: Vec<Duration> = full_at.values().copied().collect();
        let middle = times.len() / 2;
        let (_, middle, _) = times.select_nth_unstable(middle);
        let middle = *middle;
        full_at.retain(|_, full| *full > middle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limit(interval: Duration, burst: u32) -> RateLimit {
        RateLimit::new(Per::Client, Rate { interval, burst })
    }

    #[test]
    fn a_burst_passes_and_then_one_turn_comes_at_a_time() {
        let limit = limit(SECOND, 3);
        let at = |tenths: u32| limit.started + SECOND * tenths / 10;
        let ada = Caller::User(b"ada");
        for _ in 0..3 {
            assert_eq!(limit.take(ada, at(0)), Ok(()));
        }
        assert_eq!(limit.take(ada, at(0)), Err(TooMany { retry_after: SECOND }));
        assert_eq!(limit.take(ada, at(4)), Err(TooMany { retry_after: SECOND * 6 / 10 }));
        assert_eq!(limit.left(ada, at(4)), Err(TooMany { retry_after: SECOND * 6 / 10 }));
        assert_eq!([limit.left(ada, at(10)); 2], [Ok(()); 2], "to look costs no turn");
        assert_eq!(limit.take(Caller::User(b"bob"), at(4)), Ok(()), "everybody has turns of their own");
        assert_eq!(limit.take(ada, at(10)), Ok(()), "a refusal costs no turn");
        assert!(limit.take(ada, at(10)).is_err());
        for _ in 0..3 {
            assert_eq!(limit.take(ada, at(1000)), Ok(()), "turns are saved up, but not without end");
        }
        assert!(limit.take(ada, at(1000)).is_err());
    }

    #[test]
    fn addresses_of_one_customer_share_their_turns() {
        let caller = |text: &str| Caller::Client(network_of(text.parse().unwrap()));
        assert_eq!(caller("2001:db8::1"), caller("2001:db8::ffff:1"));
        assert_ne!(caller("2001:db8::1"), caller("2001:db8:0:1::1"));
        assert_eq!(caller("::ffff:192.0.2.1"), caller("192.0.2.1"));
        assert_ne!(caller("192.0.2.1"), caller("192.0.2.2"));
    }

    #[test]
    fn however_many_ask_the_table_is_bounded_and_whoever_asks_most_is_remembered() {
        let limit = limit(SECOND, 10);
        let now = limit.started;
        for _ in 0..10 {
            limit.take(Caller::User(b"greedy"), now).unwrap();
        }
        for number in 0..200_000_u32 {
            limit.take(Caller::Client(IpAddr::from(number.to_be_bytes())), now).unwrap();
        }
        let held: usize = limit.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert!(held <= SHARDS * SHARD_SIZE, "{held}");
        assert!(limit.take(Caller::User(b"greedy"), now).is_err());
    }
}
