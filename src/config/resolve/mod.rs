//! What was written → what to run by. Each section is resolved on its own, so that every problem is found; the settings come
//! out only when there is none.

mod acme;
mod admin;
mod answers;
mod api_clients;
mod asking;
mod bearer;
mod canonical;
mod client_credentials;
mod cookie;
mod decryption;
mod edits;
mod endpoints;
mod identity;
mod limits;
mod listeners;
mod metadata;
mod own;
mod provider;
mod registration;
mod rewrite;
mod routes;
mod security;
mod session;
mod tenants;
mod upstreams;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use url::Url;

use self::upstreams::Around;
use super::env::variable_for;
use super::problem::{ConfigProblem, Place, nearest, shown};
use super::raw::{RawConfig, RawDrain, RawLimits, RawLog, RawLogFormat, RawPages};
use super::sources::Merged;
use super::text::{Network, Span};
use super::{Admin, Compile, Loaded, Settings};
use crate::authn::session::cookie::{CookieJar, SameSite};
use crate::message::headers::IdentityNames;
use crate::message::{self, Origin, Windows};
use crate::reply::pages::{self, Page, Pages};
use crate::route::{self, Routes};
use crate::upstream::UpstreamSettings;
use crate::{server, telemetry};

pub(super) fn settings(merged: Merged, compile: Compile) -> Result<Loaded, Vec<ConfigProblem>> {
    let mut resolver = Resolver {
        places: merged.places,
        broken: merged.broken,
        problems: merged.problems,
        identity_names: IdentityNames::default(),
    };
    let settings = resolver.everything(merged.raw, compile);
    let problems = resolver.problems;
    match settings {
        Some(settings) if problems.iter().all(ConfigProblem::is_warning) => Ok(Loaded { settings, warnings: problems }),
        _ => Err(problems),
    }
}

/// What says where and by whom a running proxy is administered, and nothing else: whoever asks it needs no more.
pub(super) fn admin(merged: Merged) -> Result<Admin, Vec<ConfigProblem>> {
    let mut resolver = Resolver {
        places: merged.places,
        broken: merged.broken,
        problems: merged.problems,
        identity_names: IdentityNames::default(),
    };
    let admin = resolver.admin(&merged.raw);
    let is_about_it = |problem: &ConfigProblem| problem.key.starts_with("admin_") && !problem.is_warning();
    let problems: Vec<_> = resolver.problems.into_iter().filter(is_about_it).collect();
    if problems.is_empty() { Ok(admin) } else { Err(problems) }
}

/// What a module says about its own settings.
pub(super) struct Finding {
    pub(super) key: String,
    pub(super) what: String,
    pub(super) fix: &'static str,
    pub(super) warning: bool,
}

/// Compiles routes and templates, which only their own modules can judge.
pub(super) fn compile(routes: &route::Settings, pages: &pages::Settings) -> Vec<Finding> {
    let at =
        |index: usize, what: String, warning| Finding { key: format!("routes[{index}].path"), what, fix: "", warning };
    let mut findings: Vec<_> = match Routes::new(routes.clone()) {
        Ok(routes) => routes.warnings().into_iter().map(|(index, what)| at(index, what, true)).collect(),
        Err(problems) => problems.into_iter().map(|(index, problem)| at(index, problem.to_string(), false)).collect(),
    };
    if let Err(problems) = Pages::new(pages) {
        findings.extend(problems.into_iter().map(|problem| Finding {
            key: format!("pages.{}", page_key(problem.page)),
            what: format!("cannot be used as a template: {}", problem.message),
            fix: "templates are minijinja; `vestibule check` renders each once with sample values",
            warning: false,
        }));
    }
    findings
}

struct Resolver {
    places: BTreeMap<String, Place>,
    broken: BTreeSet<String>,
    problems: Vec<ConfigProblem>,
    /// The headers that only we may set.
    identity_names: IdentityNames,
}

impl Resolver {
    fn everything(&mut self, mut raw: RawConfig, compile: Compile) -> Option<Settings> {
        let (mut identity, certificate_headers) = self.identity(std::mem::take(&mut raw.identity));
        let acme = self.acme(&raw);
        let server = self.server(&raw, &certificate_headers, acme.as_ref());
        let admin = self.admin(&raw);
        let admin_listen = admin.listen;
        let is_admin = |listener: &server::Listener| admin_listen.is_some() && listener.address.tcp() == admin_listen;
        if admin_listen.is_some_and(|address| address.port() != 0) && server.listeners.iter().any(is_admin) {
            self.error(
                "admin_listen",
                "is the address of another listener",
                "give it a port of its own, or write \"off\"",
            );
        }
        let mut providers = self.providers(&mut raw);
        let bearer = self.bearer(raw.bearer, providers.as_deref().unwrap_or_default());
        let redirect_uri = providers.as_ref().map(|providers| providers[0].redirect_uri.clone());
        let canonical = self.canonical(
            raw.https_redirect,
            raw.canonical_host.as_deref(),
            raw.trusted_proxies.as_ref().is_some_and(|networks| !networks.is_empty())
                || server.listeners.iter().any(|listener| listener.tls.is_some()),
            redirect_uri.as_ref(),
        );
        let hsts = self.hsts(raw.hsts.as_ref(), redirect_uri.as_ref());
        let state_dir = raw.state_dir.as_ref().map(|path| self.file("state_dir", path));
        let cookie = self.cookie(raw.cookie, redirect_uri.as_ref());
        let secret_files = self.secret_files(&raw.session);
        let keeps_posts = raw.session.keep_posts.is_some();
        let session = self.session(raw.session, cookie.clone(), state_dir);
        self.distinct_secrets(session.as_ref(), providers.as_deref().unwrap_or_default());
        self.own_admin_token(&admin, session.as_ref(), providers.as_deref().unwrap_or_default());
        let return_origins = self.origins("return_origins", raw.return_origins);
        let hosts = self.hosts(raw.hosts, redirect_uri.as_ref());
        let known = providers.as_deref().unwrap_or_default();
        let api_clients = self.api_clients(raw.api_clients, &raw.endpoints, bearer.is_some(), known);
        let mut endpoints = self.endpoints(raw.endpoints, known, return_origins, (api_clients, keeps_posts));
        endpoints.settings.accepts_bearer = bearer.is_some();
        registration::reached_at(providers.as_deref_mut().unwrap_or_default(), &endpoints.paths);
        self.has_request_objects(providers.as_deref().unwrap_or_default());
        endpoints.settings.sign_in_rate = self.sign_in_rate(&raw.limits);
        if let Some(identity) = &mut identity {
            self.names_of_several(identity, providers.as_deref().unwrap_or_default());
            let names = identity.headers.iter().map(|(name, _)| name);
            self.identity_names = IdentityNames::new(names.chain(certificate_headers.iter().map(|(name, _)| name)));
        }
        let around = Around {
            server: &server,
            providers: providers.as_deref().unwrap_or_default(),
            has_sign_in: endpoints.settings.login_path.is_some(),
        };
        let mut upstreams = self.upstreams(raw.upstream, raw.upstreams, &around);
        registration::further_grants(
            providers.as_deref_mut().unwrap_or_default(),
            endpoints.settings.api_clients,
            upstreams.as_deref().unwrap_or_default(),
        );
        let pace = self.pace(&raw.limits, UpstreamSettings::default().pace);
        upstreams.iter_mut().flatten().for_each(|upstream| upstream.pace = pace);
        let max_body = raw.limits.max_body.clone();
        let mut raw_routes = raw.routes;
        for route in raw_routes.iter_mut().filter(|route| route.max_body.is_none()) {
            route.max_body.clone_from(&max_body);
        }
        let max_uri_bytes = self.max_uri_bytes(&raw.limits, message::Settings::default().max_uri_bytes);
        let routes = self.routes(raw_routes, upstreams.as_deref(), &hosts, providers.as_deref());
        self.cookie_path_covers(&cookie.path, &endpoints.paths, &routes);
        let trusted_proxies = self.trusted_proxies(raw.trusted_proxies);
        let pages = self.pages(raw.pages);
        let telemetry = self.log(raw.log);
        let routes = route::Settings {
            hosts,
            routes,
            prefix: endpoints.prefix,
            endpoints: endpoints.paths,
            max_body: max_body.and_then(|size| size.0),
            canonical,
        };
        // Even where the rest is wrong, so that these problems come with the others.
        self.take(compile(&routes, &pages));

        let (providers, session) = (providers?, session?);
        let (upstreams, identity) = (upstreams?, identity?);
        let secure = providers[0].redirect_uri.scheme() == "https";
        Some(Settings {
            server,
            acme,
            admin,
            secret_files,
            message: message::Settings {
                trusted_proxies,
                identity_names: self.identity_names.clone(),
                cookie_bases: CookieJar::new(&session.cookie, secure).bases().to_vec(),
                max_uri_bytes,
                windows: match session.cookie.same_site {
                    SameSite::Partitioned => Windows::AndFrames,
                    SameSite::Lax | SameSite::Strict => Windows::Own,
                },
            },
            routes,
            endpoints: endpoints.settings,
            providers,
            session,
            bearer,
            identity,
            upstreams,
            hsts,
            pages,
            telemetry,
        })
    }

    fn take(&mut self, findings: Vec<Finding>) {
        for Finding { key, what, fix, warning } in findings {
            if warning {
                self.warn(&key, what, fix);
            } else {
                self.error(&key, what, fix);
            }
        }
    }

    fn server(
        &mut self,
        raw: &RawConfig,
        headers: &listeners::CertificateHeaders,
        acme: Option<&crate::acme::Settings>,
    ) -> server::Settings {
        let default = server::Settings::default();
        let workers = raw.workers.and_then(|workers| NonZeroUsize::new(workers as usize));
        let RawLimits {
            header_timeout,
            idle_timeout,
            unread_timeout,
            max_header_bytes,
            max_headers,
            h2_max_streams,
            max_connections,
            ..
        } = &raw.limits;
        let max_header_bytes = max_header_bytes.as_ref().map_or(default.max_header_bytes, |size| size.0);
        // Below 8 KiB an ordinary request with a session cookie would not fit.
        if !(8 * 1024..=1024 * 1024).contains(&max_header_bytes) {
            self.error("limits.max_header_bytes", "is out of range", "write a size from 8KiB to 1MiB");
        }
        server::Settings {
            listeners: self.listeners(raw, headers, acme),
            reload_interval: default.reload_interval,
            workers: workers.unwrap_or(default.workers),
            header_timeout: self.span("limits.header_timeout", header_timeout.as_ref(), default.header_timeout),
            idle_timeout: self.span("limits.idle_timeout", idle_timeout.as_ref(), default.idle_timeout),
            unread_timeout: self.span("limits.unread_timeout", unread_timeout.as_ref(), default.unread_timeout),
            max_header_bytes,
            max_headers: max_headers.map_or(default.max_headers, |count| count as usize),
            h2_max_streams: h2_max_streams.unwrap_or(default.h2_max_streams),
            h2_ping: default.h2_ping,
            max_connections: max_connections.map_or(default.max_connections, |count| count as usize),
            clients: self.clients(raw),
            max_requests: raw.limits.max_requests_per_connection.unwrap_or(default.max_requests),
            drain: self.drain(&raw.drain),
        }
    }

    fn drain(&mut self, raw: &RawDrain) -> server::drain::Settings {
        let default = server::drain::Settings::default();
        // Both may be nothing at all: a test or a single instance need not wait.
        let grace = raw.grace.as_ref().map_or(default.grace, |span| span.0);
        let timeout = raw.timeout.as_ref().map_or(default.timeout, |span| span.0);
        if grace.saturating_add(timeout) >= Duration::from_secs(30) {
            let key = if raw.timeout.is_some() { "drain.timeout" } else { "drain.grace" };
            self.warn(
                key,
                "makes a stop take 30 s or more, grace and timeout together",
                "Kubernetes and most supervisors kill after 30 s: raise their limit too, or stay below",
            );
        }
        server::drain::Settings { grace, timeout }
    }

    fn trusted_proxies(&mut self, raw: Option<Vec<Network>>) -> Vec<ipnet::IpNet> {
        let networks: Vec<_> = raw.unwrap_or_default().into_iter().map(|network| network.0.trunc()).collect();
        if networks.iter().any(|network| network.prefix_len() == 0) {
            self.warn(
                "trusted_proxies",
                "trusts every address: whoever connects can claim any client address, host and scheme",
                "name the networks of your proxies",
            );
        }
        networks
    }

    fn log(&mut self, raw: RawLog) -> telemetry::Settings {
        const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
        let default = telemetry::Settings::default();
        let level = raw.level.unwrap_or(default.level);
        let directive = level.contains(['=', ',', '[']);
        if !LEVELS.contains(&level.to_ascii_lowercase().as_str()) && !directive {
            let near = nearest(&level, LEVELS).map(|near| format!("did you mean {near:?}? "));
            let fix = format!(
                "{}write one of {}, or a directive such as \"vestibule=debug\"",
                near.unwrap_or_default(),
                LEVELS.join(", ")
            );
            self.error("log.level", format!("is {}, no level", shown(&level)), fix);
        } else if EnvFilter::try_new(&level).is_err() {
            self.error(
                "log.level",
                format!("is {}, no filter directive", shown(&level)),
                "for example \"info,vestibule=debug\"",
            );
        }
        let format = match raw.format {
            Some(RawLogFormat::Text) => telemetry::LogFormat::Text,
            Some(RawLogFormat::Json) => telemetry::LogFormat::Json,
            None => default.format,
        };
        telemetry::Settings { format, level, access_log: raw.access_log.unwrap_or(default.access_log) }
    }

    fn pages(&mut self, raw: RawPages) -> pages::Settings {
        let RawPages {
            choose_provider,
            sign_in_failed,
            access_denied,
            signed_out,
            confirm_sign_out,
            send_form,
            unavailable,
            error,
        } = raw;
        let written = [
            (Page::ChooseProvider, choose_provider),
            (Page::SignInFailed, sign_in_failed),
            (Page::AccessDenied, access_denied),
            (Page::SignedOut, signed_out),
            (Page::ConfirmSignOut, confirm_sign_out),
            (Page::SendForm, send_form),
            (Page::Unavailable, unavailable),
            (Page::Error, error),
        ];
        let mut templates = BTreeMap::new();
        for (page, path) in written {
            let Some(path) = path else { continue };
            let key = format!("pages.{}", page_key(page));
            let path = self.file(&key, &path);
            if self.readable(&key, &path) {
                templates.insert(page, path);
            }
        }
        pages::Settings { templates }
    }
}

fn page_key(page: Page) -> &'static str {
    match page {
        Page::ChooseProvider => "choose_provider",
        Page::SignInFailed => "sign_in_failed",
        Page::AccessDenied => "access_denied",
        Page::SignedOut => "signed_out",
        Page::ConfirmSignOut => "confirm_sign_out",
        Page::SendForm => "send_form",
        Page::Unavailable => "unavailable",
        Page::Error => "error",
    }
}

// What every section uses.
impl Resolver {
    /// Where `key` was written, or the closest thing around it.
    fn place(&self, key: &str) -> Place {
        let mut key = key;
        loop {
            if let Some(place) = self.places.get(key) {
                return place.clone();
            }
            match key.rfind(['.', '[']) {
                Some(end) => key = &key[..end],
                None => return Place::Nowhere,
            }
        }
    }

    fn error(&mut self, key: &str, what: impl Into<String>, fix: impl Into<String>) {
        let place = self.place(key);
        self.problems.push(ConfigProblem::error(key, place, what, fix));
    }

    fn warn(&mut self, key: &str, what: impl Into<String>, fix: impl Into<String>) {
        let place = self.place(key);
        self.problems.push(ConfigProblem::warning(key, place, what, fix));
    }

    /// Tells that `key` is missing, unless it was written and not understood.
    fn missing(&mut self, key: &str, example: &str) {
        if self.broken.contains(key) {
            return;
        }
        let (section, leaf) = key.rsplit_once('.').unwrap_or(("", key));
        let mut fix = if section.is_empty() || section.ends_with(']') {
            format!("write {leaf} = {example:?}")
        } else {
            format!("write {leaf} = {example:?} in [{section}]")
        };
        if let Some(variable) = variable_for(key) {
            fix += &format!(", or set {variable}={example}");
        }
        self.error(key, "is missing", fix);
    }

    /// A duration of at least a millisecond.
    fn span(&mut self, key: &str, written: Option<&Span>, default: Duration) -> Duration {
        let Some(Span(span)) = written else { return default };
        if span.is_zero() {
            self.error(
                key,
                "is zero",
                format!("write a duration such as {:?}", humantime::format_duration(default).to_string()),
            );
        }
        *span
    }

    /// A path as this process can open it: relative ones in a file start from that file's folder.
    fn file(&self, key: &str, path: &Path) -> PathBuf {
        match self.place(key) {
            Place::File { name, .. } => Path::new(&name).parent().unwrap_or(Path::new("")).join(path),
            _ => path.to_owned(),
        }
    }

    fn readable(&mut self, key: &str, path: &Path) -> bool {
        // The kind first: opening a pipe would wait for its writer.
        let why = match std::fs::metadata(path) {
            Ok(data) if !data.is_file() => "it is no file".to_owned(),
            Ok(_) => match std::fs::File::open(path) {
                Ok(_) => return true,
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        self.error(
            key,
            format!("names {}, which cannot be read: {why}", path.display()),
            "name a file that this process may read",
        );
        false
    }

    /// The text of a small file that holds a secret, as written.
    fn secret_file(&mut self, key: &str, path: &Path) -> Option<String> {
        const LARGEST: u64 = 64 * 1024;
        let path = self.file(key, path);
        if !self.readable(key, &path) {
            return None;
        }
        let mut bytes = Vec::new();
        let read = std::fs::File::open(&path)
            .and_then(|file| std::io::Read::read_to_end(&mut std::io::Read::take(file, LARGEST + 1), &mut bytes));
        let what = match (read, String::from_utf8(bytes)) {
            (Err(error), _) => format!("cannot be read: {error}"),
            (Ok(size), _) if size as u64 > LARGEST => "is larger than any secret".to_owned(),
            (Ok(_), Err(_)) => "is not UTF-8 text".to_owned(),
            (Ok(_), Ok(text)) if text.trim().is_empty() => "is empty".to_owned(),
            (Ok(_), Ok(text)) => return Some(text),
        };
        self.error(
            key,
            format!("names {}, which {what}", path.display()),
            "name a file that holds the secret and nothing else",
        );
        None
    }

    /// Web origins, as they stand in an `Origin` header.
    fn origins(&mut self, key: &str, written: Option<Vec<String>>) -> Vec<Origin> {
        let texts = written.unwrap_or_default().into_iter().enumerate();
        texts.filter_map(|(index, text)| self.origin(&format!("{key}[{index}]"), &text)).collect()
    }

    fn origin(&mut self, key: &str, text: &str) -> Option<Origin> {
        let url = super::text::WebUrl::parse(text).map(|url| url.0.0);
        let bare = url.filter(|url| url.path() == "/" && url.query().is_none() && url.fragment().is_none());
        let origin = bare.as_ref().and_then(Origin::of);
        if origin.is_none() {
            let fix = "write scheme, host and port alone, such as \"https://www.example.com\"";
            self.error(key, format!("is {}, no origin", shown(text)), fix);
        }
        origin
    }

    /// A host as requests are compared with it: lower case, no port, no trailing dot, IPv6 in brackets.
    fn host(&mut self, key: &str, text: &str) -> Option<String> {
        let parsed = url::Host::parse(text.trim_end_matches('.')).ok().filter(|_| !text.contains(['*', '/', '@']));
        let host = parsed.map(|host| host.to_string()).filter(|host| !host.is_empty());
        if host.is_none() {
            let fix = "write a host name or address alone, such as \"app.example.com\": no scheme, port, path or *";
            self.error(key, format!("is {}, no host", shown(text)), fix);
        }
        host
    }

    fn hosts(&mut self, written: Option<Vec<String>>, redirect_uri: Option<&Url>) -> Vec<String> {
        let listed = written.is_some();
        let mut hosts = Vec::new();
        for (index, text) in written.unwrap_or_default().iter().enumerate() {
            hosts.extend(self.host(&format!("hosts[{index}]"), text));
        }
        let own = redirect_uri.and_then(host_of);
        match own {
            Some(own) if listed && !hosts.contains(&own) => {
                let what = format!("does not list {own}, the redirect URI's host: no sign-in could ever end");
                self.error("hosts", what, format!("add \"{own}\""));
            }
            _ => {}
        }
        hosts
    }
}

/// The host of a URL in the form of [`Resolver::host`].
fn host_of(url: &Url) -> Option<String> {
    url.host().map(|host| host.to_string().trim_end_matches('.').to_owned())
}

/// Whether a URL's host is this machine: `localhost`, a name below it (RFC 6761 §6.3), or a loopback address.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            name == "localhost" || name.ends_with(".localhost")
        }
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
