//! The bounds of `[limits]` that are not the listener's, and those of a route.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::Resolver;
use crate::config::raw::{RawConfig, RawLimits, RawPer, RawRateLimit};
use crate::config::text::{Often, OftenOrOff};
use crate::rate::{Per, Rate, RateLimit};
use crate::route::Access;
use crate::server::Clients;
use crate::upstream::Pace;

/// Shorter, and the answer of an ordinary provider would not fit.
const SHORTEST_URI: usize = 2 * 1024;
/// What a request's head can hold at most, and with it `http::Uri`.
const LONGEST_URI: usize = 60 * 1024;

impl Resolver {
    pub(super) fn max_uri_bytes(&mut self, raw: &RawLimits, default: usize) -> usize {
        let bytes = raw.max_uri_bytes.as_ref().map_or(default, |size| size.0);
        if !(SHORTEST_URI..=LONGEST_URI).contains(&bytes) {
            self.error("limits.max_uri_bytes", "is out of range", "write a size from 2KiB to 60KiB");
        }
        bytes
    }

    /// A proxy speaks for many, so those that are trusted are not counted.
    pub(super) fn clients(&mut self, raw: &RawConfig) -> Option<Arc<Clients>> {
        let most = raw.limits.max_connections_per_client.and_then(NonZeroU32::new)?;
        if raw.limits.max_connections.is_some_and(|all| all < most.get()) {
            let what = "is above limits.max_connections, so it bounds nothing";
            self.error("limits.max_connections_per_client", what, "write a smaller number, or remove it");
        }
        let proxies = raw.trusted_proxies.iter().flatten().map(|network| network.0.trunc());
        Some(Clients::new(most, proxies.collect()))
    }

    pub(super) fn pace(&mut self, raw: &RawLimits, default: Option<Pace>) -> Option<Pace> {
        let default = default?;
        let grace = self.span("limits.body_grace", raw.body_grace.as_ref(), default.grace);
        let rate = raw.min_body_rate.as_ref().map_or(Some(default.rate), |rate| rate.0);
        if rate == Some(0) {
            self.error("limits.min_body_rate", "is zero", "write \"off\" where a body may come as slowly as it likes");
        }
        if rate.is_none() && raw.body_grace.is_some() {
            let what = "has no meaning beside min_body_rate = \"off\"";
            self.error("limits.body_grace", what, "remove one of them");
        }
        Some(Pace { rate: rate.filter(|rate| *rate > 0)?, grace })
    }

    pub(super) fn sign_in_rate(&mut self, raw: &RawLimits) -> Option<Rate> {
        let interval = match &raw.sign_in_rate {
            Some(OftenOrOff(None)) => {
                if raw.sign_in_burst.is_some() {
                    let what = "has no meaning beside sign_in_rate = \"off\"";
                    self.error("limits.sign_in_burst", what, "remove one of them");
                }
                return None;
            }
            Some(OftenOrOff(Some(Often((_, interval))))) => *interval,
            None => Duration::from_millis(100),
        };
        Some(Rate { interval, burst: raw.sign_in_burst.unwrap_or(600).max(1) })
    }

    pub(super) fn rate_limit(
        &mut self,
        key: &str,
        written: Option<RawRateLimit>,
        access: Access,
    ) -> Option<Arc<RateLimit>> {
        let RawRateLimit { per, rate: Often((count, interval)), burst } = written?;
        let per = match per {
            RawPer::Client => Per::Client,
            RawPer::User => Per::User,
        };
        if per == Per::User && access == Access::Public {
            let what = "is \"user\", which contradicts access = \"public\": nobody is known there";
            self.error(&format!("{key}.per"), what, "write per = \"client\"");
        }
        Some(Arc::new(RateLimit::new(per, Rate { interval, burst: burst.unwrap_or(count).max(1) })))
    }
}
