//! `[[routes]]`. Patterns and duplicates are judged by [`crate::route::Routes`] itself.

use std::time::Duration;

use http::Method;
use http::header::AUTHORIZATION;

use super::{Resolver, host_of};
use crate::authn::oidc;
use crate::authn::oidc::ask::LONGEST_MAX_AGE;
use crate::authn::proof::ProofDemand;
use crate::config::problem::{nearest, shown};
use crate::config::raw::{OneOrMany, RawAccess, RawPreflight, RawRequire, RawRoute};
use crate::config::shape::one_of;
use crate::config::text::Span;
use crate::message::edits::Edits;
use crate::route::{Access, Preflight, Require, Route};
use crate::upstream::UpstreamSettings;

/// The headers that change a request after judgement; a route may let them through.
const REWRITING: [&str; 5] =
    ["x-original-url", "x-rewrite-url", "x-http-method", "x-http-method-override", "x-method-override"];

/// What a route is judged against.
struct Around<'a> {
    upstreams: &'a [UpstreamSettings],
    providers: &'a [oidc::Settings],
    /// The hosts that are served; empty: any.
    hosts: &'a [String],
    /// The redirect URI's.
    own_host: Option<String>,
}

impl Resolver {
    /// Where the upstreams are unknown, so are their names, and nothing is said about them.
    pub(super) fn routes(
        &mut self,
        written: Vec<RawRoute>,
        upstreams: Option<&[UpstreamSettings]>,
        hosts: &[String],
        providers: Option<&[oidc::Settings]>,
    ) -> Vec<Route> {
        let catches_all = |raw: &RawRoute| {
            raw.host.is_none() && raw.methods.is_none() && raw.path.as_deref().is_none_or(|path| path == "/*")
        };
        let caught = written.iter().any(catches_all);
        let around = Around {
            upstreams: upstreams.unwrap_or_default(),
            providers: providers.unwrap_or_default(),
            hosts,
            own_host: providers.and_then(|providers| host_of(&providers[0].redirect_uri)),
        };
        let routes: Vec<Route> =
            written.into_iter().enumerate().map(|(index, raw)| self.route(index, raw, &around)).collect();
        let Some(upstreams) = upstreams else { return routes };
        self.authorizations(&routes, upstreams);
        // With [upstream] or an only one, the first is right by itself.
        let undecided = upstreams.len() > 1 && upstreams.iter().all(|upstream| upstream.name != "default");
        if undecided && !caught {
            let what = "do not say which one gets what no route names";
            self.error("upstreams", what, "call that one [upstreams.default], or add a route with path = \"/*\"");
        }
        for (index, upstream) in upstreams.iter().enumerate().filter(|_| upstreams.len() > 1) {
            // The first serves what falls through; with a route that catches all, nothing does.
            let falls_through = index == 0 && !caught;
            if !falls_through && !routes.iter().any(|route| route.upstream == index) {
                let key = match upstream.name.as_str() {
                    "default" if self.places.contains_key("upstream") => "upstream".to_owned(),
                    name => crate::config::walk::below("upstreams", name),
                };
                self.warn(&key, "is used by no route", "name it in a route: upstream = \"…\"");
            }
        }
        routes
    }

    fn route(&mut self, index: usize, raw: RawRoute, around: &Around<'_>) -> Route {
        let at = |leaf: &str| format!("routes[{index}].{leaf}");
        let rewrite = self.rewrite(index, &raw);
        let edits = self.edits(&format!("routes[{index}]"), raw.request_headers, raw.response_headers);
        let access = match raw.access {
            Some(RawAccess::Public) => Access::Public,
            Some(RawAccess::Optional) => Access::Optional,
            Some(RawAccess::Required) | None => Access::Required,
        };
        let demands = [
            ("roles", &raw.require.roles),
            ("all_roles", &raw.require.all_roles),
            ("groups", &raw.require.groups),
            ("all_groups", &raw.require.all_groups),
            ("acr", &raw.require.acr),
        ];
        for (leaf, _) in
            demands.iter().filter(|(_, list)| matches!(list, Some(OneOrMany::Many(list)) if list.is_empty()))
        {
            // It reads like "nobody" and would mean "everybody".
            let key = at(&format!("require.{leaf}"));
            self.error(&key, "is an empty list, which demands nothing", "name what is required, or remove it");
        }
        // Sessions of any of them may come; the exact one is not known when a session is opened.
        let skew = around.providers.iter().map(|provider| provider.clock_skew).max().unwrap_or_default();
        let require = self.require(&at("require"), raw.require, skew);
        if access == Access::Public && !require.is_empty() {
            let what = "contradicts access = \"public\": nobody is known there";
            self.error(&at("require"), what, "remove one of them");
        }
        let providers = self.route_providers(&at("provider"), raw.provider, access, around.providers);
        if access == Access::Public && raw.max_identity_age.is_some() {
            let what = "contradicts access = \"public\": nobody is known there";
            self.error(&at("max_identity_age"), what, "remove one of them");
        }
        let host = raw.host.as_deref().and_then(|host| self.host(&at("host"), host));
        if let Some(host) = &host {
            self.reachable(&at("host"), host, access, around);
        }
        let shown_host = raw.host.as_deref().unwrap_or_default();
        let name = raw.name.unwrap_or_else(|| format!("{shown_host}{}", raw.path.as_deref().unwrap_or("/*")));
        let max_identity_age = raw.max_identity_age.map(|span| {
            if span.0.as_secs() == 0 {
                self.error(&at("max_identity_age"), "is shorter than a second", "for example \"15m\"");
            }
            span.0
        });
        Route {
            name,
            host,
            path: raw.path,
            methods: self.methods(&at("methods"), raw.methods),
            access,
            require,
            upstream: self.upstream_index(&at("upstream"), raw.upstream, around.upstreams),
            pass_headers: self.pass_headers(&at("pass_headers"), raw.pass_headers),
            pass_authorization: raw.pass_authorization.unwrap_or(false),
            allowed_origins: self.origins(&at("allowed_origins"), raw.allowed_origins),
            upgrades: self.upgrades(&at("upgrades"), raw.upgrades),
            preflight: match raw.preflight {
                Some(RawPreflight::Refuse) | None => Preflight::Refuse,
                Some(RawPreflight::Forward) => Preflight::Forward,
            },
            max_identity_age,
            providers,
            rewrite,
            max_body: raw.max_body.and_then(|size| size.0),
            rate_limit: self.rate_limit(&at("rate_limit"), raw.rate_limit, access),
            edits,
        }
    }

    fn route_providers(
        &mut self,
        key: &str,
        written: Option<OneOrMany>,
        access: Access,
        providers: &[oidc::Settings],
    ) -> Vec<usize> {
        let Some(written) = written.map(OneOrMany::into_vec) else { return Vec::new() };
        if access == Access::Public {
            self.error(key, "contradicts access = \"public\": nobody signs in there", "remove one of them");
        }
        if written.is_empty() {
            self.error(key, "is an empty list: nobody could ever sign in", "name providers, or remove it");
        }
        let mut found = Vec::new();
        for id in written {
            match providers.iter().position(|provider| provider.id == id) {
                Some(index) => found.push(index),
                None if providers.is_empty() => {}
                None => {
                    let ids: Vec<_> = providers.iter().map(|provider| provider.id.as_str()).collect();
                    let fix = match nearest(&id, ids.iter().copied()) {
                        Some(near) => format!("did you mean {near:?}?"),
                        None => format!("write {}, or add [providers.NAME]", one_of(&ids)),
                    };
                    self.error(key, format!("names {}, no provider", shown(&id)), fix);
                }
            }
        }
        found
    }

    /// One `Authorization`, from one place.
    fn authorizations(&mut self, routes: &[Route], upstreams: &[UpstreamSettings]) {
        let sets = |edits: &Option<Box<Edits>>| edits.as_ref().is_some_and(|edits| edits.request.sets(&AUTHORIZATION));
        let own = |route: &Route| upstreams.get(route.upstream).is_some_and(|upstream| upstream.own_token.is_some());
        for (index, _) in routes.iter().enumerate().filter(|(_, route)| route.pass_authorization && own(route)) {
            let what = "contradicts access_token = \"client_credentials\" of its upstream";
            self.error(&format!("routes[{index}].pass_authorization"), what, "remove one of them");
        }
        for (index, route) in routes.iter().enumerate().filter(|(_, route)| sets(&route.edits)) {
            let other = match upstreams.get(route.upstream) {
                Some(upstream) if upstream.access_token => "access_token = \"bearer\" of its upstream",
                _ if own(route) => "access_token = \"client_credentials\" of its upstream",
                _ if route.pass_authorization => "pass_authorization = true",
                _ => continue,
            };
            let key = format!("routes[{index}].request_headers.set");
            self.error(&key, format!("sets Authorization, and so does {other}"), "remove one of them");
        }
    }

    /// Our cookies live on the redirect URI's host, and a sign-in ends there.
    fn reachable(&mut self, key: &str, host: &str, access: Access, around: &Around<'_>) {
        if !around.hosts.is_empty() && !around.hosts.iter().any(|listed| listed == host) {
            self.error(
                key,
                format!("is {host}, which hosts does not list, so it gets 421"),
                "add it to hosts, or remove the route",
            );
        }
        let Some(own) = around.own_host.as_deref().filter(|own| *own != host) else { return };
        if access != Access::Public {
            let what =
                format!("is {host}, but people sign in on {own}, the redirect URI's host: nobody is signed in here");
            let fix = format!("write host = \"{own}\", leave host out, or use access = \"public\"");
            self.warn(key, what, fix);
        }
    }

    fn methods(&mut self, key: &str, written: Option<OneOrMany>) -> Vec<Method> {
        let Some(written) = written.map(OneOrMany::into_vec) else { return Vec::new() };
        if written.is_empty() {
            self.error(key, "is an empty list", "name methods, or remove it: then all are meant");
        }
        let mut methods = Vec::new();
        for text in written {
            match Method::from_bytes(text.as_bytes()) {
                Ok(Method::TRACE | Method::CONNECT) => {
                    self.error(key, format!("names {text}, which is always refused"), "remove it")
                }
                // RFC 9110 §9.1: methods are case-sensitive, so `get` is not GET.
                Ok(_) if text.bytes().any(|byte| byte.is_ascii_lowercase()) => {
                    self.error(key, format!("names {text:?}"), format!("write {:?}", text.to_ascii_uppercase()));
                }
                Ok(method) => methods.push(method),
                Err(_) => {
                    self.error(key, format!("names {}, no method", shown(&text)), "for example [\"GET\", \"POST\"]")
                }
            }
        }
        methods
    }

    fn upstream_index(&mut self, key: &str, written: Option<String>, upstreams: &[UpstreamSettings]) -> usize {
        let Some(name) = written else { return 0 };
        if let Some(index) = upstreams.iter().position(|upstream| upstream.name == name) {
            return index;
        }
        if !upstreams.is_empty() {
            let names: Vec<_> = upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
            let fix = match nearest(&name, names.iter().copied()) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("write {}, or add [upstreams.NAME]", one_of(&names)),
            };
            self.error(key, format!("is {}, and there is no such upstream", shown(&name)), fix);
        }
        0
    }

    fn pass_headers(&mut self, key: &str, written: Option<Vec<String>>) -> Vec<String> {
        let names: Vec<_> = written.unwrap_or_default().iter().map(|name| name.to_ascii_lowercase()).collect();
        for name in names.iter().filter(|name| !REWRITING.contains(&name.as_str())) {
            let fix = match nearest(name, REWRITING) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("write {}; other headers pass by themselves", one_of(&REWRITING)),
            };
            self.error(key, format!("names {}, which is none of the headers that are held back", shown(name)), fix);
        }
        names
    }

    fn upgrades(&mut self, key: &str, written: Option<Vec<String>>) -> Vec<String> {
        let names: Vec<_> = written.unwrap_or_default().iter().map(|name| name.to_ascii_lowercase()).collect();
        for name in &names {
            // An h2c tunnel would carry requests that nobody judges.
            if name.split('/').next() == Some("h2c") {
                self.error(key, "names h2c, which is never let through", "remove it");
            } else if http::HeaderName::from_bytes(name.split('/').next().unwrap_or_default().as_bytes()).is_err() {
                // RFC 9110 §7.8: protocol names are tokens, like header names.
                self.error(key, format!("names {}, no protocol", shown(name)), "for example [\"tcp\"]");
            }
        }
        names
    }

    fn require(&mut self, at: &str, raw: RawRequire, skew: Duration) -> Require {
        let list = |written: Option<OneOrMany>| written.map(OneOrMany::into_vec).unwrap_or_default();
        let acr = list(raw.acr);
        // They travel in a parameter separated by spaces, and in a quoted text (RFC 9470 §3).
        let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
        if let Some(bad) = acr.iter().find(|acr| acr.is_empty() || !acr.bytes().all(is_plain)) {
            let what = format!("names {}, which is empty or has spaces, quotes or other letters", shown(bad));
            self.error(&format!("{at}.acr"), what, "for example [\"gold\"]");
        }
        let max_age = raw.max_age.map(|Span(age)| age);
        if max_age.is_some_and(|age| age.as_secs() == 0 || age > LONGEST_MAX_AGE) {
            self.error(&format!("{at}.max_age"), "is shorter than a second, or too long", "for example \"5m\"");
        }
        Require {
            roles: list(raw.roles),
            all_roles: list(raw.all_roles),
            groups: list(raw.groups),
            all_groups: list(raw.all_groups),
            proof: ProofDemand::new(acr, max_age, skew),
        }
    }
}
