//! `[upstream]` and `[upstreams.NAME]`.

use std::collections::BTreeMap;

use http::uri::Authority;
use url::Url;

use super::Resolver;
use crate::config::problem::shown;
use crate::config::raw::{RawAccessToken, RawProtocol, RawUpstream};
use crate::config::walk::below;
use crate::server;
use crate::upstream::{Place, Protocol, UpstreamSettings};

mod tls;

/// The upstream of everything that no route names one for.
const DEFAULT: &str = "default";

impl Resolver {
    /// The one for everything else comes first: `[upstream]`, `[upstreams.default]`, or the only one.
    pub(super) fn upstreams(
        &mut self,
        single: Option<RawUpstream>,
        named: BTreeMap<String, RawUpstream>,
        server: &server::Settings,
    ) -> Option<Vec<UpstreamSettings>> {
        let mut upstreams = Vec::new();
        let mut whole = true;
        if let (Some(_), true) = (&single, named.contains_key(DEFAULT)) {
            self.error("upstreams.default", "is [upstream] once more", "keep one of them");
        }
        if single.is_none() && named.is_empty() {
            self.missing("upstream.url", "http://127.0.0.1:3000");
            return None;
        }
        let single = single.map(|raw| ("upstream".to_owned(), DEFAULT.to_owned(), raw));
        let named = named.into_iter().map(|(name, raw)| (below("upstreams", &name), name, raw));
        for (key, name, raw) in single.into_iter().chain(named) {
            match self.upstream(&key, name, raw, server) {
                Some(upstream) => upstreams.push(upstream),
                None => whole = false,
            }
        }
        upstreams.sort_by_key(|upstream| upstream.name != DEFAULT);
        whole.then_some(upstreams)
    }

    fn upstream(
        &mut self,
        key: &str,
        name: String,
        raw: RawUpstream,
        server: &server::Settings,
    ) -> Option<UpstreamSettings> {
        let default = UpstreamSettings::default();
        let at = |leaf: &str| format!("{key}.{leaf}");
        let place = self.upstream_url(&at("url"), raw.url, server);
        let protocol = self.protocol(&at("protocol"), raw.protocol, place.as_ref());
        let tls = self.upstream_tls(&at("tls"), raw.tls, place.as_ref());
        let host_header = raw.host.and_then(|host| self.host_header(&at("host"), host));
        let settings = UpstreamSettings {
            name,
            protocol,
            tls,
            host_header,
            access_token: raw.access_token == Some(RawAccessToken::Bearer),
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
            ..default
        };
        Some(UpstreamSettings { place: place?.0, ..settings })
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

    /// Where it is, and whether it is spoken to in TLS.
    fn upstream_url(&mut self, key: &str, written: Option<String>, server: &server::Settings) -> Option<(Place, bool)> {
        let example = "http://127.0.0.1:3000";
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
