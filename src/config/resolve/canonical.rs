//! `https_redirect`, `canonical_host` and `hsts`: all of them speak of the redirect URI's origin.

use http::HeaderValue;
use url::Url;

use super::{Resolver, host_of};
use crate::config::raw::RawHsts;
use crate::message::Scheme;
use crate::route::Canonical;

impl Resolver {
    /// `can_be_https`: whether a request can come over https at all. Nothing is said where the redirect URI is unknown: that has
    /// been told.
    pub(super) fn canonical(
        &mut self,
        https: Option<bool>,
        host: Option<&str>,
        can_be_https: bool,
        redirect_uri: Option<&Url>,
    ) -> Canonical {
        let Some((uri, own)) = redirect_uri.and_then(|uri| Some((uri, host_of(uri)?))) else {
            return Canonical::default();
        };
        let https = https == Some(true);
        if https && uri.scheme() != "https" {
            let what = "contradicts provider.redirect_uri, which is http";
            self.error("https_redirect", what, "make the redirect URI https, or remove this");
        }
        if https && !can_be_https {
            let what = "is on, but no listener speaks TLS, and nobody is believed who says that a request came over https: behind \
                        a proxy that ends TLS, requests would be redirected for ever";
            self.warn("https_redirect", what, "name that proxy in trusted_proxies, or add [tls]");
        }
        let host = host.and_then(|host| self.host("canonical_host", host));
        if let Some(host) = host.as_ref().filter(|host| **host != own) {
            let what =
                format!("is {host}, but people sign in on {own}, the redirect URI's host: they would go in a circle");
            self.error("canonical_host", what, format!("write \"{own}\", or change provider.redirect_uri"));
        }
        let scheme = if uri.scheme() == "https" { Scheme::Https } else { Scheme::Http };
        Canonical { https, one_host: host.is_some(), scheme: Some(scheme), host: own, port: uri.port() }
    }

    /// The field value of `Strict-Transport-Security` (RFC 6797 §6.1).
    pub(super) fn hsts(&mut self, raw: Option<&RawHsts>, redirect_uri: Option<&Url>) -> Option<HeaderValue> {
        const YEAR: u64 = 365 * 24 * 3600;
        let (seconds, include_subdomains, preload) = match raw? {
            RawHsts::Age(age) => (age.0.as_secs(), false, false),
            RawHsts::Policy(policy) => {
                let on = |switch: Option<bool>| switch == Some(true);
                (policy.max_age.0.as_secs(), on(policy.include_subdomains), on(policy.preload))
            }
        };
        if redirect_uri.is_some_and(|uri| uri.scheme() != "https") {
            let what = "contradicts provider.redirect_uri, which is http: browsers would never come back to it";
            self.error("hsts", what, "make the redirect URI https, or remove this");
        }
        if preload && (!include_subdomains || seconds < YEAR) {
            let what = "asks for preloading, which takes include_subdomains = true and a max_age of a year";
            self.error("hsts.preload", what, "add them, or remove preload");
        }
        let subdomains = if include_subdomains { "; includeSubDomains" } else { "" };
        let preload = if preload { "; preload" } else { "" };
        HeaderValue::try_from(format!("max-age={seconds}{subdomains}{preload}")).ok()
    }
}
