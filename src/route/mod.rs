//! Host + path + method → what happens with a request. The most specific route wins (host, then path, then method); a rule
//! that demands more also wins on the case-folded, slash- and `;`-tolerant reading, while `public` matches bytes exactly.

mod canonical;
mod demand;
mod pattern;
mod rewrite;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Method;

pub use self::canonical::{Canonical, Elsewhere};
use self::pattern::{Pattern, eq_folded, folded_segments};
pub use self::rewrite::{Rewrite, RewriteError};
use crate::authn::proof::ProofDemand;
use crate::authn::session::marks::NameDigest;
use crate::message::edits::Edits;
use crate::message::{Inbound, Origin, RequestPath};
use crate::rate::{Per, RateLimit, TooMany};

/// Who may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Access {
    /// Everyone, without a look at the session.
    Public,
    /// Everyone; identity headers when signed in.
    Optional,
    /// Signed in.
    #[default]
    Required,
}

/// What a signed-in person must have. Several keys must all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Require {
    /// Any of these roles; empty: no demand.
    pub roles: Vec<String>,
    /// All of these roles.
    pub all_roles: Vec<String>,
    /// Any of these groups.
    pub groups: Vec<String>,
    /// All of these groups.
    pub all_groups: Vec<String>,
    /// How and when they proved who they are.
    pub proof: ProofDemand,
}

impl Require {
    /// Whether nothing is demanded.
    pub fn is_empty(&self) -> bool {
        let lists = [&self.roles, &self.all_roles, &self.groups, &self.all_groups];
        lists.iter().all(|list| list.is_empty()) && self.proof.is_empty()
    }
}

/// What a CORS preflight on this route meets: it carries no cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Preflight {
    /// 403 without CORS headers.
    #[default]
    Refuse,
    /// Forwarded anonymously.
    Forward,
}

/// One entry of `[[routes]]`, checked. `Default` is the route that everything else falls to: required, no demands.
#[derive(Debug, Clone, Default)]
pub struct Route {
    /// For logs: `name`, or the host and pattern as written.
    pub name: String,
    /// Lower case; `None`: any host.
    pub host: Option<String>,
    /// The pattern: `/x` exact, `/x/*` everything below and `/x`, `{id}` one segment. `None`: everything.
    pub path: Option<String>,
    /// Empty: any. GET covers HEAD.
    pub methods: Vec<Method>,
    /// Who may pass.
    pub access: Access,
    /// What they must have.
    pub require: Require,
    /// Index into the upstreams.
    pub upstream: usize,
    /// Names (lower case) of the headers that change the request after judgement and are let through here.
    pub pass_headers: Vec<String>,
    /// Pass on the client's own `Authorization` on a guarded route.
    pub pass_authorization: bool,
    /// Foreign origins allowed to make unsafe requests and WebSocket upgrades with a session.
    pub allowed_origins: Vec<Origin>,
    /// Upgrades let through beside `websocket` (lower case; `h2c` never).
    pub upgrades: Vec<String>,
    /// What a preflight meets.
    pub preflight: Preflight,
    /// An identity older than this must sign in anew.
    pub max_identity_age: Option<Duration>,
    /// The providers to sign in at, as indexes; empty: any.
    pub providers: Vec<usize>,
    /// How the path changes on its way to the upstream.
    pub rewrite: Option<Box<Rewrite>>,
    /// The largest request body, in bytes; `None`: any.
    pub max_body: Option<u64>,
    /// How often it may be used.
    pub rate_limit: Option<Arc<RateLimit>>,
    /// Header fields that are set and removed, after those of the upstream.
    pub edits: Option<Box<Edits>>,
}

impl Route {
    /// Takes a turn of a client, where the route counts clients.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn take_turn(&self, client: IpAddr) -> Result<(), TooMany> {
        match &self.rate_limit {
            Some(limit) if limit.per == Per::Client => limit.client(client),
            _ => Ok(()),
        }
    }

    /// Takes a turn of whoever was admitted, where the route counts users.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn take_turn_of_user(&self, user: Option<&NameDigest>, client: IpAddr) -> Result<(), TooMany> {
        match (&self.rate_limit, user) {
            (Some(limit), Some(user)) if limit.per == Per::User => limit.user(user.as_bytes()),
            (Some(limit), None) if limit.per == Per::User => limit.client(client),
            _ => Ok(()),
        }
    }
}

/// Our own endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// Starts a sign-in.
    Login,
    /// The answer of the provider with this index; the path of its redirect URI.
    Callback(usize),
    /// Signs out.
    Logout,
    /// Where a sign-out ends.
    SignedOut,
    /// Where a form that was kept over a sign-in is sent after all.
    KeptPost,
    /// The provider ends a session with a token.
    BackchannelLogout,
    /// The provider's page ends a session in a frame.
    FrontchannelLogout,
    /// Claims for the front end.
    Userinfo,
    /// Our public keys.
    Jwks,
    /// Starts a device authorization for an API client.
    Device,
    /// Tokens for API clients.
    Token,
    /// Our request objects, each at an address of its own below the path.
    RequestObject,
}

impl Endpoint {
    /// Its name in the configuration and in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Callback(_) => "callback",
            Self::Logout => "logout",
            Self::SignedOut => "signed_out",
            Self::KeptPost => "kept_post",
            Self::BackchannelLogout => "backchannel_logout",
            Self::FrontchannelLogout => "frontchannel_logout",
            Self::Userinfo => "userinfo",
            Self::Jwks => "jwks",
            Self::Device => "device",
            Self::Token => "token",
            Self::RequestObject => "request",
        }
    }

    /// Whether it lies below its path, one segment deep, and not at it.
    fn is_below(self) -> bool {
        self == Self::RequestObject
    }

    fn is_at(self, own: &str, path: &str) -> bool {
        if !self.is_below() {
            return own == path;
        }
        let name = path.strip_prefix(own).and_then(|rest| rest.strip_prefix('/'));
        name.is_some_and(|name| !name.is_empty() && !name.contains('/'))
    }
}

/// The routes as configured.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Hosts that are served; empty: any.
    pub hosts: Vec<String>,
    /// The routes.
    pub routes: Vec<Route>,
    /// The prefix of our endpoints, such as `/auth`; what lies below it and is no endpoint is 404.
    pub prefix: String,
    /// The endpoints that are switched on, with their whole paths.
    pub endpoints: Vec<(Endpoint, String)>,
    /// The largest request body of what falls through to no route, in bytes; `None`: any.
    pub max_body: Option<u64>,
    /// Where requests should have come to.
    pub canonical: Canonical,
}

/// What a request is for.
#[derive(Debug, Clone, Copy)]
pub enum Target<'r> {
    /// Another origin of ours: a redirect.
    Elsewhere(Elsewhere<'r>),
    /// One of ours.
    Endpoint(Endpoint),
    /// Under our prefix, but nothing there: 404, never forwarded.
    NoEndpoint,
    /// Forwarded without a look at the session.
    Public(PublicRoute<'r>),
    /// Forwarded after admission.
    Guarded(GuardedRoute<'r>),
}

/// A route with `access = "public"`, as resolved.
#[derive(Debug, Clone, Copy)]
pub struct PublicRoute<'r>(&'r Route);

impl<'r> PublicRoute<'r> {
    /// The route.
    pub fn route(self) -> &'r Route {
        self.0
    }
}

/// Any other route, as resolved.
#[derive(Debug, Clone, Copy)]
pub struct GuardedRoute<'r>(&'r Route);

impl<'r> GuardedRoute<'r> {
    /// For tests of what comes after routing.
    #[cfg(test)]
    pub(crate) fn for_test(route: &'r Route) -> Self {
        Self(route)
    }

    /// The route.
    pub fn route(self) -> &'r Route {
        self.0
    }
}

/// Why a request has no route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// Readings of the path meet different routes: 400.
    #[error("the path can be read in ways that meet different routes")]
    AmbiguousPath,
    /// Hosts are listed and this is none of them: 421.
    #[error("this host is not served here")]
    UnlistedHost,
}

/// A mistake among the routes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteProblem {
    /// Not a pattern.
    #[error("{0}")]
    Pattern(String),
    /// Two routes with the same host, pattern and a method in common.
    #[error("the same host, path and method as routes[{other}]")]
    Duplicate {
        /// The earlier one.
        other: usize,
    },
}

/// The compiled routes.
#[derive(Debug)]
pub struct Routes {
    /// The most specific first.
    compiled: Vec<Compiled>,
    /// What everything else falls to.
    fallback: Route,
    /// Hosts that are served, lower case; empty: any.
    hosts: Vec<String>,
    endpoints: Vec<(Endpoint, String)>,
    canonical: Canonical,
    /// The prefix and every endpoint beside it, as a lenient upstream reads them.
    ours: Vec<Ours>,
}

#[derive(Debug)]
struct Ours {
    segments: Vec<String>,
    and_below: bool,
}

impl Ours {
    fn new(path: &str, and_below: bool) -> Self {
        Self { segments: folded_segments(path).map(str::to_owned).collect(), and_below }
    }

    fn covers(&self, reading: &str) -> bool {
        let mut path = folded_segments(reading);
        self.segments.iter().all(|segment| path.next().is_some_and(|text| eq_folded(segment, text)))
            && (self.and_below || path.next().is_none())
    }
}

#[derive(Debug)]
struct Compiled {
    route: Route,
    pattern: Pattern,
    /// Host, path, methods: the greater, the more specific.
    rank: (bool, Vec<u8>, bool),
    /// Index in the settings.
    index: usize,
}

impl Routes {
    /// Compiles; problems come with the index of their route, all at once.
    ///
    /// # Errors
    /// Every [`RouteProblem`].
    pub fn new(settings: Settings) -> Result<Self, Vec<(usize, RouteProblem)>> {
        let mut problems = Vec::new();
        let mut compiled: Vec<Compiled> = Vec::with_capacity(settings.routes.len());
        for (index, route) in settings.routes.into_iter().enumerate() {
            match Compiled::new(route, index) {
                Ok(next) => {
                    if let Some(earlier) = compiled.iter().find(|earlier| earlier.is_same_as(&next)) {
                        problems.push((index, RouteProblem::Duplicate { other: earlier.index }));
                    }
                    compiled.push(next);
                }
                Err(problem) => problems.push((index, RouteProblem::Pattern(problem))),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut hosts: Vec<String> = settings.hosts.iter().map(|host| normalised_host(host)).collect();
        if !hosts.is_empty() {
            hosts.extend(compiled.iter().filter_map(|one| one.route.host.clone()));
        }
        // Of two that differ in case only, the stricter one first: it counts where neither matches as written.
        compiled.sort_by_cached_key(|one| {
            Reverse((one.rank.clone(), one.route.level(), one.route.demands_more_than_sign_in()))
        });
        let prefix = settings.prefix.trim_end_matches('/');
        let prefix = (!prefix.is_empty()).then(|| Ours::new(prefix, true));
        // What lies below the prefix is covered with it, and every request is held against each of these.
        let is_apart = |path: &str| !prefix.as_ref().is_some_and(|prefix| prefix.covers(path));
        let apart = settings.endpoints.iter().filter(|(_, path)| is_apart(path));
        let apart: Vec<_> = apart.map(|(endpoint, path)| Ours::new(path, endpoint.is_below())).collect();
        Ok(Self {
            compiled,
            fallback: Route { name: "default".to_owned(), max_body: settings.max_body, ..Route::default() },
            hosts,
            ours: prefix.into_iter().chain(apart).collect(),
            endpoints: settings.endpoints,
            canonical: settings.canonical,
        })
    }

    /// Warnings for `vestibule check`: a route of one host opens a path that a host-less route guards, or a rewritten path
    /// lies where another route guards it.
    pub fn warnings(&self) -> Vec<(usize, String)> {
        let with_host = self.compiled.iter().filter(|one| one.route.host.is_some());
        let mut warnings: Vec<(usize, String)> = with_host.flat_map(|one| self.opened_by(one)).collect();
        let rewriting = self.compiled.iter().filter(|one| one.route.rewrite.is_some());
        warnings.extend(rewriting.flat_map(|one| self.opened_by_rewriting(one)));
        warnings.sort();
        warnings
    }

    /// Both lead to the same upstream, where the rewritten path of one is what the other guards.
    fn opened_by_rewriting<'r>(&'r self, one: &'r Compiled) -> impl Iterator<Item = (usize, String)> + 'r {
        let behind = one.behind();
        let others = self.compiled.iter().filter(|other| other.index != one.index && other.guards_on_purpose());
        let is_opened = move |other: &&Compiled| {
            one.route.upstream == other.route.upstream
                && behind.as_ref().zip(other.behind()).is_some_and(|(one, other)| one.overlaps(&other))
                && methods_meet(&one.route.methods, &other.route.methods)
                && !one.route.demands_all_of(&other.route)
        };
        others.filter(is_opened).map(|other| {
            let (path, guarded) = (one.written_path(), other.written_path());
            let what = format!("`{path}`, rewritten, reaches what `{guarded}` (routes[{}]) guards", other.index);
            (one.index, what)
        })
    }

    fn opened_by<'r>(&'r self, one: &'r Compiled) -> impl Iterator<Item = (usize, String)> + 'r {
        let without_host = self.compiled.iter().filter(|other| other.route.host.is_none());
        let is_opened = |other: &&Compiled| {
            one.pattern.overlaps(&other.pattern)
                && methods_meet(&one.route.methods, &other.route.methods)
                && !one.route.demands_all_of(&other.route)
        };
        without_host.filter(|other| other.guards_on_purpose()).filter(is_opened).map(|other| {
            let host = one.route.host.as_deref().unwrap_or_default();
            let (path, guarded) = (one.written_path(), other.written_path());
            (
                one.index,
                format!("on host {host}, `{path}` lets in whom `{guarded}` (routes[{}]) would refuse", other.index),
            )
        })
    }

    /// The one target of a request.
    ///
    /// # Errors
    /// [`RouteError`].
    pub fn resolve(&self, inbound: &Inbound) -> Result<Target<'_>, RouteError> {
        match self.elsewhere(inbound) {
            Some(elsewhere) => Ok(Target::Elsewhere(elsewhere)),
            None => self.resolve_parts(inbound.host(), inbound.method(), inbound.path()),
        }
    }

    fn elsewhere(&self, inbound: &Inbound) -> Option<Elsewhere<'_>> {
        let host = inbound.host();
        // What is not served here is refused, not sent on.
        if !self.canonical.is_on() || !self.serves(host) {
            return None;
        }
        let named = self.compiled.iter().filter_map(|one| one.route.host.as_deref()).find(|named| *named == host);
        let listed = self.hosts.iter().find(|listed| *listed == host).map(String::as_str);
        let listed = named.map(|host| (host, true)).or(listed.map(|host| (host, false)));
        self.canonical.elsewhere(inbound.client().scheme, host, inbound.path().raw(), listed)
    }

    fn serves(&self, host: &str) -> bool {
        self.hosts.is_empty() || self.hosts.iter().any(|listed| listed == host)
    }

    /// As [`Routes::resolve`]; `host` is lower case, without port.
    pub(crate) fn resolve_parts(
        &self,
        host: &str,
        method: &Method,
        path: &RequestPath,
    ) -> Result<Target<'_>, RouteError> {
        if !self.serves(host) {
            return Err(RouteError::UnlistedHost);
        }
        if let Some((endpoint, _)) = self.endpoints.iter().find(|(endpoint, own)| endpoint.is_at(own, path.raw())) {
            return Ok(Target::Endpoint(*endpoint));
        }
        let request = Asked { host, method, raw: path.raw() };
        let mut met = path.readings().map(|reading| self.meet(&request, reading));
        let first = met.next().unwrap_or(Met::Route(&self.fallback));
        if met.any(|other| !other.is(&first)) {
            return Err(RouteError::AmbiguousPath);
        }
        Ok(match first {
            Met::Ours => Target::NoEndpoint,
            Met::Route(route) if route.is_open() => Target::Public(PublicRoute(route)),
            Met::Route(route) => Target::Guarded(GuardedRoute(route)),
        })
    }

    /// What one reading of a request meets: the most specific route that matches as written, unless a more specific one
    /// that matches leniently demands more.
    fn meet(&self, request: &Asked<'_>, reading: &str) -> Met<'_> {
        if self.is_ours(reading) {
            return Met::Ours;
        }
        let exact = self.compiled.iter().position(|one| one.matches(request, reading));
        let (rank, route) = match exact {
            Some(at) => (Some(&self.compiled[at].rank), &self.compiled[at].route),
            None => (None, &self.fallback),
        };
        let lenient = self.compiled[..exact.unwrap_or(self.compiled.len())]
            .iter()
            // Of two that differ in case only, the one that matches as written counts.
            .take_while(|one| Some(&one.rank) > rank)
            .find(|one| one.matches_leniently(request, reading) && one.route.wins_leniently_over(route));
        Met::Route(lenient.map_or(route, |one| &one.route))
    }

    /// Whether a lenient reading lies under our prefix or at one of our endpoints. Never the upstream's, whatever it is.
    fn is_ours(&self, reading: &str) -> bool {
        self.ours.iter().any(|one| one.covers(reading))
    }
}

/// What the patterns are held against.
#[derive(Debug, Clone, Copy)]
struct Asked<'a> {
    host: &'a str,
    method: &'a Method,
    raw: &'a str,
}

/// What a reading meets.
#[derive(Debug, Clone, Copy)]
enum Met<'r> {
    /// Our prefix, and nothing to be found there.
    Ours,
    Route(&'r Route),
}

impl Met<'_> {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Ours, Self::Ours) => true,
            (Self::Route(one), Self::Route(another)) => std::ptr::eq(*one, *another),
            _ => false,
        }
    }
}

impl Compiled {
    fn new(mut route: Route, index: usize) -> Result<Self, String> {
        let pattern = route.path.as_deref().map_or(Ok(Pattern::everything()), Pattern::parse)?;
        route.host = route.host.as_deref().map(normalised_host);
        let rank = (route.host.is_some(), pattern.rank(), !route.methods.is_empty());
        Ok(Self { route, pattern, rank, index })
    }

    /// As written; an open route matches byte for byte, so that no other spelling of its path is open.
    fn matches(&self, request: &Asked<'_>, reading: &str) -> bool {
        self.is_host(request.host)
            && (self.route.methods.is_empty() || covers(&self.route.methods, request.method))
            && self.pattern.matches_reading(reading)
            && (!self.route.is_open() || self.pattern.matches_raw(request.raw))
    }

    /// As a lenient upstream reads it, methods in any case. Never an open route: that matches as written or not at all.
    fn matches_leniently(&self, request: &Asked<'_>, reading: &str) -> bool {
        let is_method = |listed: &Method| listed.as_str().eq_ignore_ascii_case(request.method.as_str());
        let methods = &self.route.methods;
        !self.route.is_open()
            && self.is_host(request.host)
            && (methods.is_empty() || covers(methods, request.method) || methods.iter().any(is_method))
            && self.pattern.matches_folded(reading)
    }

    fn is_host(&self, host: &str) -> bool {
        self.route.host.as_deref().is_none_or(|own| own == host)
    }

    /// Whether no request could tell which of the two it is for.
    fn is_same_as(&self, other: &Self) -> bool {
        self.route.host == other.route.host
            && self.pattern == other.pattern
            && self.route.methods.is_empty() == other.route.methods.is_empty()
            && methods_meet(&self.route.methods, &other.route.methods)
    }

    /// What guards everything is there to be opened; only what demands more than a sign-in is meant everywhere.
    fn guards_on_purpose(&self) -> bool {
        !self.pattern.is_everything() || self.route.demands_more_than_sign_in()
    }

    /// The pattern as the upstream sees it.
    fn behind(&self) -> Option<Pattern> {
        let Some(rewrite) = &self.route.rewrite else { return Some(self.pattern.clone()) };
        Pattern::parse(&rewrite.pattern(self.written_path())?).ok()
    }

    fn written_path(&self) -> &str {
        self.route.path.as_deref().unwrap_or("/*")
    }
}

/// GET covers HEAD.
fn covers(methods: &[Method], method: &Method) -> bool {
    methods.contains(method) || (method == Method::HEAD && methods.contains(&Method::GET))
}

/// Whether some method fits both lists; an empty one is any.
fn methods_meet(one: &[Method], another: &[Method]) -> bool {
    one.is_empty()
        || another.is_empty()
        || one.iter().any(|method| covers(another, method))
        || another.iter().any(|method| covers(one, method))
}

fn normalised_host(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}
