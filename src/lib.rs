//! Vestibule: an authenticating reverse proxy.
//!
//! It stands in front of an application, signs people in with OpenID Connect, keeps the session in a sealed cookie and
//! forwards each request with identity and role headers that the application can trust.
//!
//! The module map, lowest layer first; a module imports only from layers below its own:
//!
//! | layer | module | what it is for |
//! |---|---|---|
//! | 1 | [`clock`], [`secret`] | time as an argument; strings that are never shown |
//! | 1 | [`errands`] | work that goes on whoever goes away, and that a stop waits for |
//! | 1 | `random` | bytes that nobody can guess |
//! | 1 | `keepalive` | a TCP peer that vanished is noticed where nobody writes |
//! | 1 | `files` | key and certificate files: read within a bound, looked at again |
//! | 1 | `pem` | what such files hold, and no word of it |
//! | 1 | [`telemetry`] | log subscriber, access log, metrics |
//! | 2 | [`message`] | HTTP as we trust it: one canonical reading of each request |
//! | 2 | [`provider_http`] | the bounded HTTP client towards providers |
//! | 2 | [`store`] | sealed bytes and messages that replicas share: memory, Redis, SQL |
//! | 3 | [`rate`] | token buckets |
//! | 3 | [`authn`] | every way to become an [`authn::Identity`]; the folder a security review reads |
//! | 4 | [`route`] | host + path + method → endpoint, public or guarded route |
//! | 5 | [`policy`] | guarded route × identity → permit or denial (pure) |
//! | 6 | [`admission`] | who asks, and may they |
//! | 6 | [`upstream`] | forwarding: instances and their pools, hop-by-hop rules, identity headers, WebSocket; files and fixed answers |
//! | 6 | [`server`] | listeners, TLS, accept loops, one runtime per core, drain |
//! | 7 | [`acme`] | certificates from an authority (feature `acme`) |
//! | 7 | [`reply`] | rejections, challenges and denials as HTTP; pages |
//! | 8 | [`endpoints`] | our own: login, callback, logout, userinfo, tokens for programs, keys, request objects, health |
//! | 9 | [`gateway`] | the request path; read this first |
//! | 10 | [`config`] | TOML, environment and flags → checked settings |
//! | 11 | [`app`] | composition root |
//! | 12 | `demo` | development provider and sample application (feature `demo`) |
//!
//! On top of them stands the binary: arguments → settings → run.

pub mod acme;
pub mod admission;
pub mod app;
pub mod authn;
pub mod clock;
pub mod config;
#[cfg(feature = "demo")]
pub mod demo;
pub mod endpoints;
pub mod errands;
mod files;
pub mod gateway;
mod keepalive;
pub mod message;
mod pem;
pub mod policy;
pub mod provider_http;
mod random;
pub mod rate;
pub mod reply;
pub mod route;
pub mod secret;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod upstream;
