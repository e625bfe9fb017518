//! Configuration: defaults < TOML < environment < flags, read into checked [`Settings`]; all problems at once.
//!
//! `sources` reads the layers, `walk` finds what is wrong with each, `resolve` finds what is wrong with the whole. A new
//! option is a field in `raw`, a line in `env` if it deserves a short variable, its use in `resolve`, the example
//! file, and a test.

mod env;
mod problem;
mod raw;
mod resolve;
mod secret_files;
mod secrets;
mod shape;
mod sources;
#[cfg(test)]
mod tests;
mod text;
mod walk;

use std::net::SocketAddr;

pub use env::{CONFIG_VARIABLE, Variable, environment_markdown, environment_table};
pub use problem::{ConfigProblem, Place, Severity};
pub use secret_files::{Rotation, SecretFileError, SecretFiles, rotate};
pub use secrets::generate_secret;
pub use shape::schema;
pub use sources::{DEFAULT_FILE, FileSource, Sources};

use crate::secret::SecretString;
use crate::{acme, authn, endpoints, message, reply, route, server, telemetry, upstream};

/// Everything the program runs by: resolved and checked, no `Option` for required things.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The listener and its workers.
    pub server: server::Settings,
    /// The listener's certificate from an authority; `None`: from files, or none.
    pub acme: Option<acme::Settings>,
    /// Where the session's secrets are read from anew while the program runs; `None`: they are written in the configuration.
    pub secret_files: Option<SecretFiles>,
    /// Health, readiness, metrics and sessions.
    pub admin: Admin,
    /// The providers, by the index that routes and callbacks use; never empty.
    pub providers: Vec<authn::oidc::Settings>,
    /// The session.
    pub session: authn::session::Settings,
    /// Access tokens of API clients; `None`: they are not looked at.
    pub bearer: Option<authn::bearer::Settings>,
    /// Name, roles and identity headers.
    pub identity: authn::roles::Settings,
    /// Hosts, routes and endpoint paths.
    pub routes: route::Settings,
    /// The upstreams, by the index that routes use; the first is the one for what no route names.
    pub upstreams: Vec<upstream::UpstreamSettings>,
    /// How requests are read.
    pub message: message::Settings,
    /// Our endpoints.
    pub endpoints: endpoints::Settings,
    /// `Strict-Transport-Security` on https answers.
    pub hsts: Option<http::HeaderValue>,
    /// Templates.
    pub pages: reply::pages::Settings,
    /// Logs.
    pub telemetry: telemetry::Settings,
}

/// The admin listener.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Where it is; `None` switches it off.
    pub listen: Option<SocketAddr>,
    /// Who shows it may list and end sessions; `None`: nobody may. At least 32 bytes and not weak.
    pub token: Option<SecretString>,
}

/// A configuration the program can start with.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What to run by.
    pub settings: Settings,
    /// What to think about.
    pub warnings: Vec<ConfigProblem>,
}

/// Reads and checks a configuration, its routes and its templates.
///
/// # Errors
/// Every problem at once, warnings among them; at least one is an error.
pub fn load(sources: &Sources) -> Result<Loaded, Vec<ConfigProblem>> {
    load_with(sources, resolve::compile)
}

/// Reads of a configuration what a client of the admin listener needs. The rest of it may be missing or wrong.
///
/// # Errors
/// What is wrong with these keys, or with the syntax of the file.
pub fn load_admin(sources: &Sources) -> Result<Admin, Vec<ConfigProblem>> {
    resolve::admin(sources::merge(sources)?)
}

/// Compiles what only its own module can judge: routes and templates.
type Compile = fn(&route::Settings, &reply::pages::Settings) -> Vec<resolve::Finding>;

fn load_with(sources: &Sources, compile: Compile) -> Result<Loaded, Vec<ConfigProblem>> {
    let mut result = resolve::settings(sources::merge(sources)?, compile);
    let problems = match &mut result {
        Ok(loaded) => &mut loaded.warnings,
        Err(problems) => problems,
    };
    problems
        .sort_by(|one, other| (one.severity, &one.place, &one.key).cmp(&(other.severity, &other.place, &other.key)));
    result
}
