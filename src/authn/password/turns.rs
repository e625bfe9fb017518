//! How often the provider is asked about passwords. Whoever guesses has few turns: of their address, of their address for one
//! name, and of the name, wherever they ask from. Whoever shows a password that was right has turns that nobody else can use up,
//! since nobody else knows it: no name is locked by those who know only the name.
//!
//! | whose turns | saved up | one more each |
//! |---|---|---|
//! | an address, for all names (loopback stands for many) | 20 (400) | 1 s (50 ms) |
//! | an address, for one name | 10 | 30 s |
//! | a name, from anywhere | 50 | 6 s |
//! | a password that was right within a week, from anywhere | 20 | 1 s |
//!
//! One address earns a fifth of what its name does, so that it alone never uses up the name's.

use std::net::IpAddr;
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::message::forwarded::network_of;
use crate::rate::{Per, Rate, RateLimit, TooMany};

const BY_CLIENT: Rate = Rate { interval: Duration::from_secs(1), burst: 20 };
/// A proxy on this machine that is not named in `trusted_proxies` lends its address to all its clients.
const BY_LOOPBACK: Rate = Rate { interval: Duration::from_millis(50), burst: 400 };
const BY_CLIENT_AND_NAME: Rate = Rate { interval: Duration::from_secs(30), burst: 10 };
const BY_NAME: Rate = Rate { interval: Duration::from_secs(6), burst: 50 };
const BY_PASSWORD: Rate = Rate { interval: Duration::from_secs(1), burst: 20 };

/// Passwords that are remembered to have been right, at most; the longest unused are forgotten first.
const MOST_RIGHT: u64 = 10_000;
/// How long they are.
const RIGHT_FOR: Duration = Duration::from_secs(7 * 86_400);

/// A name and its password, keyed.
type Digest = [u8; 32];

/// The turns that are left.
#[derive(Debug)]
pub(super) struct Turns {
    by_client: RateLimit,
    by_loopback: RateLimit,
    by_client_and_name: RateLimit,
    by_name: RateLimit,
    by_password: RateLimit,
    /// Only the provider's word puts anything in, so nobody pushes out another's by guessing.
    right: Cache<Digest, ()>,
}

impl Turns {
    pub(super) fn new() -> Self {
        let of = |rate| RateLimit::new(Per::User, rate);
        Self {
            by_client: RateLimit::new(Per::Client, BY_CLIENT),
            by_loopback: RateLimit::new(Per::Client, BY_LOOPBACK),
            by_client_and_name: of(BY_CLIENT_AND_NAME),
            by_name: of(BY_NAME),
            by_password: of(BY_PASSWORD),
            right: Cache::builder()
                .max_capacity(MOST_RIGHT)
                .time_to_live(RIGHT_FOR)
                // The default policy may turn away what is new.
                .eviction_policy(EvictionPolicy::lru())
                .build(),
        }
    }

    /// Takes one.
    pub(super) fn take(&self, user: &str, password: &Digest, client: IpAddr) -> Result<(), TooMany> {
        if self.right.get(password).is_some() {
            return self.by_password.user(password);
        }
        let network = network_of(client);
        let of_all_names = if client.to_canonical().is_loopback() { &self.by_loopback } else { &self.by_client };
        of_all_names.client(client)?;
        // Providers take a name in any case for the same person's.
        let name = user.trim().to_lowercase();
        self.by_client_and_name.user(format!("{network} {name}").as_bytes())?;
        self.by_name.user(name.as_bytes())
    }

    /// The provider says so.
    pub(super) fn was_right(&self, password: &Digest) {
        self.right.insert(*password, ());
    }

    /// It is not any more.
    pub(super) fn was_wrong(&self, password: &Digest) {
        self.right.invalidate(password);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// How many of `tries` wrong passwords have a turn.
    fn guesses(turns: &Turns, user: &str, from: &str, tries: u8) -> usize {
        (0..tries).filter(|number| turns.take(user, &[*number; 32], address(from)).is_ok()).count()
    }

    #[test]
    fn whoever_guesses_uses_up_their_own_turns_and_nobody_elses() {
        let turns = Turns::new();
        assert_eq!(guesses(&turns, "ada", "192.0.2.1", 100), 10);
        assert_eq!(guesses(&turns, " ADA", "192.0.2.1", 100), 0, "the same name");
        assert_eq!(guesses(&turns, "ada", "198.51.100.1", 1), 1, "another address still has its own");
        assert!(guesses(&turns, "grace", "192.0.2.1", 100) < 10, "that address has none for any name");
        assert_eq!(guesses(&turns, "ada", "2001:db8::1", 10) + guesses(&turns, "ada", "2001:db8::2", 10), 10);
    }

    #[test]
    fn a_name_has_fewer_turns_than_addresses_there_are_and_a_password_that_was_right_goes_on() {
        let turns = Turns::new();
        let right = [200; 32];
        turns.was_right(&right);
        let from_everywhere: usize = (0..20).map(|host| guesses(&turns, "ada", &format!("192.0.2.{host}"), 10)).sum();
        assert!((50..55).contains(&from_everywhere), "{from_everywhere}");
        for from in ["192.0.2.1", "203.0.113.1"] {
            assert!(turns.take("ada", &right, address(from)).is_ok(), "{from}");
        }
        let more = (0..100).filter(|_| turns.take("ada", &right, address("203.0.113.1")).is_ok()).count();
        assert!((18..40).contains(&more), "it has its own bound: {more}");
        turns.was_wrong(&right);
        assert!(!turns.right.contains_key(&right), "it was changed");
    }

    #[test]
    fn names_are_sprayed_from_nowhere_without_end() {
        let turns = Turns::new();
        let sprayed = |from: &str| {
            let turn = |number: u16| turns.take(&format!("name {number}"), &[1; 32], address(from)).is_ok();
            (0..2000).filter(|number| turn(*number)).count()
        };
        let few = sprayed("192.0.2.1");
        assert!((20..40).contains(&few), "{few}");
        for loopback in ["127.0.0.1", "::1"] {
            let all = sprayed(loopback);
            assert!((20..1000).contains(&all), "{loopback}: {all}");
        }
        assert!(sprayed("::ffff:127.0.0.1") < 400, "it has its own turns no more often than it is written");
    }
}
