//! `[upstream]` and `[upstreams.NAME]`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use http::header::AUTHORIZATION;
use http::uri::{Authority, PathAndQuery};
use url::Url;

use super::Resolver;
use crate::authn::oidc;
use crate::config::problem::shown;
use crate::config::raw::{RawAccessToken, RawHealth, RawProtocol, RawUpstream};
use crate::config::walk::below;
use crate::server;
use crate::upstream::{HealthSettings, Place, Protocol, UpstreamSettings};

mod tls;

/// What upstreams have to agree with.
pub(super) struct Around<'a> {
    pub(super) server: &'a server::Settings,
    pub(super) providers: &'a [oidc::Settings],
    /// There is a sign-in endpoint.
    pub(super) has_sign_in: bool,
}

/// The upstream of everything that no route names one for.
const DEFAULT: &str = "default";
const EXAMPLE: &str = "http://127.0.0.1:3000";

impl Resolver {
    /// The one for everything else comes first: `[upstream]`, `[upstreams.default]`, or the only one.
    pub(super) fn upstreams(
        &mut self,
        single: Option<RawUpstream>,
        named: BTreeMap<String, RawUpstream>,
        around: &Around<'_>,
    ) -> Option<Vec<UpstreamSettings>> {
        let mut upstreams = Vec::new();
        let mut whole = true;
        if let (Some(_), true) = (&single, named.contains_key(DEFAULT)) {
            self.error("upstreams.default", "is [upstream] once more", "keep one of them");
        }
        if single.is_none() && named.is_empty() {
            self.missing("upstream.url", EXAMPLE);
            return None;
        }
        let single = single.map(|raw| ("upstream".to_owned(), DEFAULT.to_owned(), raw));
        let named = named.into_iter().map(|(name, raw)| (below("upstreams", &name), name, raw));
        for (key, name, raw) in single.into_iter().chain(named) {
            match self.upstream(&key, name, raw, around) {
                Some(upstream) => upstreams.push(upstream),
                None => whole = false,
            }
        }
        upstreams.sort_by_key(|upstream| upstream.name != DEFAULT);
        whole.then_some(upstreams)
    }

    fn upstream(&mut self, key: &str, name: String, raw: RawUpstream, around: &Around<'_>) -> Option<UpstreamSettings> {
        let default = UpstreamSettings::default();
        if raw.respond.is_some() || raw.files.is_some() {
            return self.own_upstream(key, name, raw);
        }
        let at = |leaf: &str| format!("{key}.{leaf}");
        for (leaf, _) in
            [("index", raw.index.is_some()), ("fallback", raw.fallback.is_some())].iter().filter(|one| one.1)
        {
            self.error(&at(leaf), "means nothing without files", "write files = \"/srv/site\", or remove it");
        }
        let edits = self.edits(key, raw.request_headers, raw.response_headers);
        let passes_a_token = raw.access_token.is_some_and(|token| token != RawAccessToken::Off);
        if passes_a_token && edits.as_ref().is_some_and(|edits| edits.request.sets(&AUTHORIZATION)) {
            self.error(
                &at("request_headers.set"),
                "sets Authorization, and so does access_token",
                "remove one of them",
            );
        }
        let shows_certificate = raw.tls.as_ref().is_some_and(|tls| tls.client_certificate_file.is_some());
        let own_token = if raw.access_token == Some(RawAccessToken::ClientCredentials) {
            Some(self.client_credentials(key, raw.client_credentials, shows_certificate, around.providers))
        } else {
            if raw.client_credentials.is_some() {
                let what = "means nothing without access_token = \"client_credentials\"";
                self.error(&at("client_credentials"), what, "write that too, or remove it");
            }
            None
        };
        let (places, is_https) = self.places(key, raw.url, raw.urls, around.server).unzip();
        let first = places.as_ref().and_then(|places| Some((places.first()?.clone(), is_https?)));
        let is_named = |place: &Place| matches!(place, Place::Host { host, .. } if host.parse::<IpAddr>().is_err());
        if raw.resolve_interval.is_some() && places.as_ref().is_some_and(|places| !places.iter().any(is_named)) {
            self.warn(&at("resolve_interval"), "does nothing: no address is a host name", "");
        }
        if raw.step_up == Some(true) && !around.has_sign_in {
            let what = "does nothing: endpoints.login = false leaves no place to send people to";
            self.warn(&at("step_up"), what, "switch endpoints.login on, or write step_up = false");
        }
        let has_server_name = raw.tls.as_ref().is_some_and(|tls| tls.server_name.is_some());
        if is_https == Some(true) && !has_server_name && places.as_ref().is_some_and(|places| !share_a_host(places)) {
            let what = "name several hosts, and only one name is looked for in certificates";
            self.error(
                &at("urls"),
                what,
                format!("write server_name in [{key}.tls]: a name that all certificates have"),
            );
        }
        let protocol = self.protocol(&at("protocol"), raw.protocol, first.as_ref());
        let tls = self.upstream_tls(&at("tls"), raw.tls, first.as_ref());
        let host_header = raw.host.and_then(|host| self.host_header(&at("host"), host));
        let settings = UpstreamSettings {
            name,
            protocol,
            tls,
            host_header,
            step_up: raw.step_up.unwrap_or(true),
            access_token: raw.access_token == Some(RawAccessToken::Bearer),
            own_token,
            edits,
            connect_timeout: self.span(&at("connect_timeout"), raw.connect_timeout.as_ref(), default.connect_timeout),
            response_timeout: self.span(
                &at("response_timeout"),
                raw.response_timeout.as_ref(),
                default.response_timeout,
            ),
            idle_timeout: self.span(&at("idle_timeout"), raw.idle_timeout.as_ref(), default.idle_timeout),
            total_timeout: raw.total_timeout.map(|span| span.0).filter(|span| !span.is_zero()),
            // Zero keeps no connection.
            pool_idle: raw.pool_idle.map_or(default.pool_idle, |span| span.0),
            pool_size: raw.pool_size.map_or(default.pool_size, |size| size as usize),
            resolve_interval: self.span(
                &at("resolve_interval"),
                raw.resolve_interval.as_ref(),
                default.resolve_interval,
            ),
            eject_after: raw.eject_after.unwrap_or(default.eject_after),
            eject_for: self.span(&at("eject_for"), raw.eject_for.as_ref(), default.eject_for),
            health: raw.health.and_then(|health| self.health(&at("health"), health)),
            ..default
        };
        Some(UpstreamSettings { places: places?, ..settings })
    }

    fn protocol(&mut self, key: &str, written: Option<RawProtocol>, place: Option<&(Place, bool)>) -> Protocol {
        match written {
            None | Some(RawProtocol::Http1) => Protocol::Http1,
            Some(RawProtocol::H2) => Protocol::H2,
            Some(RawProtocol::Auto) => {
                if let Some((_, false)) = place {
                    let fix = "write \"h2\" if the application speaks HTTP/2, else \"http1\"";
                    self.error(key, "is \"auto\", which only TLS can tell, and the url is not https", fix);
                }
                Protocol::Auto
            }
        }
    }

    /// `url`, or each of `urls`; and whether they are spoken to in TLS.
    fn places(
        &mut self,
        key: &str,
        url: Option<String>,
        urls: Option<Vec<String>>,
        server: &server::Settings,
    ) -> Option<(Vec<Place>, bool)> {
        let Some(urls) = urls else {
            let (place, is_https) = self.upstream_url(&below(key, "url"), url, server)?;
            return Some((vec![place], is_https));
        };
        let key = below(key, "urls");
        if url.is_some() {
            self.error(&key, "stands beside url", "keep one of them");
        }
        if urls.is_empty() {
            self.error(&key, "is empty", format!("write the address of each instance, such as [\"{EXAMPLE}\"]"));
        }
        let mut places = Vec::new();
        let mut whole = !urls.is_empty();
        let mut scheme = None;
        for (index, url) in urls.into_iter().enumerate() {
            let key = format!("{key}[{index}]");
            match self.upstream_url(&key, Some(url), server) {
                Some((place, _)) if places.contains(&place) => self.error(&key, "is there twice", "keep one of them"),
                Some((_, is_https)) if *scheme.get_or_insert(is_https) != is_https => {
                    self.error(&key, "has another scheme than the first", "speak to all of them in TLS, or to none");
                }
                Some((place, _)) => places.push(place),
                None => whole = false,
            }
        }
        whole.then_some((places, scheme.unwrap_or(false)))
    }

    fn health(&mut self, key: &str, raw: RawHealth) -> Option<HealthSettings> {
        let default = HealthSettings::default();
        let at = |leaf: &str| below(key, leaf);
        let settings = HealthSettings {
            interval: self.span(&at("interval"), raw.interval.as_ref(), default.interval),
            timeout: self.span(&at("timeout"), raw.timeout.as_ref(), default.timeout),
            healthy_after: raw.healthy_after.unwrap_or(default.healthy_after),
            unhealthy_after: raw.unhealthy_after.unwrap_or(default.unhealthy_after),
            expect: raw.expect.map_or(default.expect, |statuses| statuses.0),
            path: String::new(),
        };
        if settings.timeout > settings.interval {
            let key = at(if raw.timeout.is_some() { "timeout" } else { "interval" });
            self.error(&key, "leaves a question unanswered when the next is due", "make the timeout the shorter one");
        }
        let Some(path) = raw.path else {
            self.missing(&at("path"), "/healthz");
            return None;
        };
        if !path.starts_with('/') || path.contains('#') || path.parse::<PathAndQuery>().is_err() {
            self.error(&at("path"), format!("is {}, no path", shown(&path)), "write a path such as \"/healthz\"");
        }
        Some(HealthSettings { path, ..settings })
    }

    /// Where it is, and whether it is spoken to in TLS.
    fn upstream_url(&mut self, key: &str, written: Option<String>, server: &server::Settings) -> Option<(Place, bool)> {
        let example = EXAMPLE;
        let Some(text) = written else {
            self.missing(key, example);
            return None;
        };
        if let Some(path) = text.strip_prefix("unix:") {
            // As a path and as a URL without host.
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.starts_with('/') {
                return Some((Place::Unix(path.into()), false));
            }
            self.error(
                key,
                format!("is {}, no socket", shown(&text)),
                "write the whole path, as in \"unix:/run/app.sock\"",
            );
            return None;
        }
        let bare = !text.contains("://");
        let fix = if bare { format!("write \"http://{text}\"") } else { format!("for example \"{example}\"") };
        let url = match Url::parse(&text) {
            Ok(url) if !bare => url,
            _ => {
                self.error(key, format!("is {}, no URL", shown(&text)), if text.contains('@') { "" } else { &fix });
                return None;
            }
        };
        let scheme = url.scheme();
        if !matches!(scheme, "http" | "https") {
            self.error(
                key,
                format!("has the scheme {scheme:?}"),
                "write http://host:port, https://host:port or unix:/path",
            );
            return None;
        }
        if !url.username().is_empty() || url.password().is_some() {
            self.error(key, "carries credentials", "write http://host:port without them");
            return None;
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            let fix = "write http://host:port; requests are forwarded with their own path";
            self.error(key, "is more than host and port", fix);
            return None;
        }
        let port = url.port_or_known_default().filter(|port| *port != 0);
        // A socket address has no brackets.
        let host = url.host_str().map(|host| host.trim_matches(['[', ']']).to_owned()).filter(|host| !host.is_empty());
        let Some((host, port)) = host.zip(port) else {
            self.error(key, format!("is {}, without host or port", shown(&text)), fix);
            return None;
        };
        let mut own = server.listeners.iter().filter_map(|listener| listener.address.tcp());
        if let Some(own) = own.find(|own| own.port() == port && super::is_loopback(&url)) {
            let what = format!("is this proxy itself, which listens on {own}");
            self.error(key, what, "write the application's address, or listen elsewhere");
        }
        Some((Place::Host { host, port }, scheme == "https"))
    }

    fn host_header(&mut self, key: &str, host: String) -> Option<String> {
        let sound = host.parse::<Authority>().is_ok() && !host.contains('@') && !host.is_empty();
        if !sound {
            self.error(
                key,
                format!("is {}, no host", shown(&host)),
                "write a host with or without port, such as \"app.internal\"",
            );
        }
        sound.then_some(host)
    }
}

/// Whether one certificate name can fit all of them.
fn share_a_host(places: &[Place]) -> bool {
    let host = |place: &Place| match place {
        Place::Host { host, .. } => host.clone(),
        Place::Unix(_) => String::new(),
    };
    places.windows(2).all(|two| host(&two[0]) == host(&two[1]))
}
