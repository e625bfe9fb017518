//! How and when a person proved who they are, by their ID token (OpenID Connect Core §2, `acr` and `auth_time`), in a few bytes
//! of the session; and what a route demands of it (step-up, RFC 9470).

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::clock::UnixTime;

/// What a session knows of it; zeros stand for what the ID token does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    at: UnixTime,
    acr: AcrDigest,
}

/// Stands for an `acr`, whose values may be long URIs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct AcrDigest([u8; 8]);

impl AcrDigest {
    fn of(acr: &str) -> Self {
        let mut short = [0; 8];
        short.copy_from_slice(&digest(&SHA256, acr.as_bytes()).as_ref()[..8]);
        Self(short)
    }
}

impl Proof {
    /// From verified claims of a provider whose clock may be off by `skew`. A time that is none, or lies in the future, is not
    /// there.
    pub(in crate::authn) fn of(claims: &Map<String, Value>, now: UnixTime, skew: Duration) -> Self {
        let at = claims.get("auth_time").and_then(Value::as_f64);
        let latest = now.after(skew).0 as f64;
        let at = at.filter(|seconds| (0.0..=latest).contains(seconds));
        Self {
            // The cast floors; what clocks may be apart never makes a proof younger than the session.
            at: at.map_or(UnixTime(0), |seconds| UnixTime(seconds as u64).min(now)),
            acr: claims.get("acr").and_then(Value::as_str).map_or(AcrDigest::default(), AcrDigest::of),
        }
    }

    /// With what a renewal says, as far as it says anything.
    pub(in crate::authn) fn or_newer(self, newer: Self) -> Self {
        Self {
            at: if newer.at == UnixTime(0) { self.at } else { newer.at },
            acr: if newer.acr == AcrDigest::default() { self.acr } else { newer.acr },
        }
    }
}

/// What a route demands. The default: nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProofDemand {
    acr: Vec<String>,
    digests: Vec<AcrDigest>,
    max_age: Option<Duration>,
    /// How far a provider's clock may be from ours.
    skew: Duration,
}

impl ProofDemand {
    /// One of `acr` (empty: any), and no longer than `max_age` ago by clocks that may be `skew` apart.
    pub fn new(acr: Vec<String>, max_age: Option<Duration>, skew: Duration) -> Self {
        Self { digests: acr.iter().map(|acr| AcrDigest::of(acr)).collect(), acr, max_age, skew }
    }

    /// Whether nothing is demanded.
    pub fn is_empty(&self) -> bool {
        self.acr.is_empty() && self.max_age.is_none()
    }

    /// Whether `proof` is enough now.
    pub fn is_met_by(&self, proof: Proof, now: UnixTime) -> bool {
        let is_strong = self.digests.is_empty() || self.digests.contains(&proof.acr);
        is_strong && self.max_age.is_none_or(|_| self.end_of(proof).is_some_and(|end| now < end))
    }

    /// When `proof` is too old; `None` where age does not matter, or there is no saying.
    pub fn end_of(&self, proof: Proof) -> Option<UnixTime> {
        let (age, at) = (self.max_age?, Some(proof.at).filter(|at| *at != UnixTime(0))?);
        // Held against the provider's clock, as at the sign-in; the second that has begun counts.
        Some(at.after(age).after(self.skew).after(Duration::from_secs(1)))
    }

    /// Whether whoever meets this meets `other` too.
    pub fn implies(&self, other: &Self) -> bool {
        let is_as_strong =
            other.acr.is_empty() || (!self.acr.is_empty() && self.acr.iter().all(|acr| other.acr.contains(acr)));
        let is_as_recent = other.max_age.is_none_or(|others| self.max_age.is_some_and(|own| own <= others));
        is_as_strong && is_as_recent
    }

    /// As `acr_values`.
    pub fn acr_values(&self) -> Option<String> {
        (!self.acr.is_empty()).then(|| self.acr.join(" "))
    }

    /// As `max_age`, in seconds.
    pub fn max_age(&self) -> Option<u32> {
        self.max_age.map(|age| u32::try_from(age.as_secs()).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: UnixTime = UnixTime(1_700_000_000);
    const SKEW: Duration = Duration::from_secs(30);

    fn proof(claims: Value) -> Proof {
        Proof::of(claims.as_object().unwrap(), NOW, SKEW)
    }

    fn demand(acr: &[&str], max_age: Option<u64>) -> ProofDemand {
        ProofDemand::new(acr.iter().map(|&acr| acr.to_owned()).collect(), max_age.map(Duration::from_secs), SKEW)
    }

    #[test]
    fn only_what_was_proven_in_time_and_in_one_of_the_ways_is_enough() {
        let met = |demand: ProofDemand, claims: Value| demand.is_met_by(proof(claims), NOW);
        let gold = || demand(&["platinum", "gold"], None);
        assert!(met(demand(&[], None), json!({})));
        assert!(met(gold(), json!({"acr": "gold"})));
        for claims in [json!({}), json!({"acr": "Gold"}), json!({"acr": ["gold"]}), json!({"acr": "platinum gold"})] {
            assert!(!met(gold(), claims.clone()), "{claims}");
        }
        let recent = || demand(&[], Some(60));
        assert!(met(recent(), json!({"auth_time": NOW.0})) && met(recent(), json!({"auth_time": NOW.0 - 90})));
        assert!(met(recent(), json!({"auth_time": NOW.0 + 30})));
        for time in [json!(NOW.0 - 91), json!(NOW.0 + 31), json!(1e300), json!(-1), json!("now"), json!(null)] {
            assert!(!met(recent(), json!({ "auth_time": time })), "{time}");
        }
        assert!(!met(recent(), json!({})), "nobody knows when");
        assert!(!met(demand(&["gold"], Some(60)), json!({"acr": "gold"})));
        assert!(!met(demand(&["gold"], Some(60)), json!({"auth_time": NOW.0})));
    }

    #[test]
    fn demands_are_compared_by_whom_they_let_in() {
        for (one, other, implies) in [
            (demand(&[], None), demand(&[], None), true),
            (demand(&["gold"], Some(5)), demand(&[], None), true),
            (demand(&[], None), demand(&["gold"], None), false),
            (demand(&["gold"], None), demand(&["silver", "gold"], None), true),
            (demand(&["silver", "gold"], None), demand(&["gold"], None), false),
            (demand(&[], Some(5)), demand(&[], Some(6)), true),
            (demand(&[], Some(6)), demand(&[], Some(5)), false),
            (demand(&[], None), demand(&[], Some(5)), false),
        ] {
            assert_eq!(one.implies(&other), implies, "{one:?} {other:?}");
        }
    }
}
