//! Where a store is, in one string: `redis://`, `rediss://`, `redis+cluster://`, `redis+sentinel://`, `postgres://`,
//! `sqlite:`. All that is wrong with it is told at once, and nothing of what it says: any part may be a password that was
//! written in the wrong place.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use tokio::runtime;

use super::StoreError;
use super::backend::Backend;
use crate::secret::SecretString;

/// A store that can be opened.
#[derive(Debug, Clone)]
pub enum Location {
    /// Redis or Valkey.
    Redis(Redis),
    /// PostgreSQL.
    Postgres(Postgres),
    /// A file.
    Sqlite(PathBuf),
}

/// What is wrong with it, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is its name")]
pub struct LocationProblem {
    pub what: &'static str,
    pub fix: &'static str,
}

/// One server of several.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is its name")]
pub struct Server {
    pub host: String,
    pub port: u16,
}

impl Server {
    fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

/// How the servers of Redis belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Together {
    /// There is one.
    Single,
    /// Each has some of the keys.
    Cluster,
    /// They are Sentinels, and know where the master of this name is.
    Sentinel(String),
}

/// Redis or Valkey.
#[derive(Debug, Clone)]
pub struct Redis {
    /// Never empty.
    pub servers: Vec<Server>,
    /// How they belong together.
    pub together: Together,
    /// `rediss`.
    pub tls: bool,
    /// Roots in the place of the public ones (`ca_file`).
    pub ca_file: Option<PathBuf>,
    /// An ACL user; none: `default`.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<SecretString>,
    /// The Sentinels' own (`sentinel_user`).
    pub sentinel_user: Option<String>,
    /// The Sentinels' own (`sentinel_password`).
    pub sentinel_password: Option<SecretString>,
    /// The number of the database.
    pub database: u32,
    /// What every key begins with (`prefix`); default `vestibule`.
    pub prefix: String,
}

/// How the server shows who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// No TLS.
    Disable,
    /// TLS with whoever answers.
    Require,
    /// A certificate of an authority that is trusted.
    VerifyCa,
    /// The same, for the name of the host. The default beyond this machine.
    VerifyFull,
}

/// PostgreSQL.
#[derive(Debug, Clone)]
pub struct Postgres {
    /// `None`: by a socket in the folder.
    pub server: Option<Server>,
    /// The folder of its socket (`host=/…`).
    pub socket: Option<PathBuf>,
    /// The role.
    pub user: String,
    /// Its password.
    pub password: Option<SecretString>,
    /// The database.
    pub database: String,
    /// `sslmode`.
    pub ssl: SslMode,
    /// Roots in the place of the public ones (`sslrootcert`).
    pub ca_file: Option<PathBuf>,
}

const FORMS: &str =
    "for example \"redis://host:6379\", \"postgres://user@host/database\" or \"sqlite:/var/lib/vestibule/sessions.db\"";

impl Location {
    /// Reads it; files that it names are relative to `folder`.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, Vec<LocationProblem>> {
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(vec![LocationProblem { what: "is no session store", fix: FORMS }]);
        };
        let (tls, form) = match scheme.split_once('+') {
            Some((base, form)) => (base == "rediss", if base.starts_with("redis") { form } else { "" }),
            None => (scheme == "rediss", scheme),
        };
        match form {
            "redis" | "rediss" | "cluster" | "sentinel" => Parts::read(rest, folder)?.redis(tls, form),
            "postgres" | "postgresql" => Parts::read(rest, folder)?.postgres(),
            "sqlite" => sqlite(rest, folder),
            _ => Err(vec![LocationProblem { what: "is no session store", fix: FORMS }]),
        }
    }

    /// Whether this program can use it.
    ///
    /// # Errors
    /// What is missing.
    pub fn is_built_in(&self) -> Result<(), &'static str> {
        match self {
            Self::Redis(_) if !cfg!(feature = "redis") => {
                Err("needs the feature `redis`, which this program was built without")
            }
            Self::Postgres(_) | Self::Sqlite(_) if !cfg!(feature = "sql") => {
                Err("needs the feature `sql`, which this program was built without")
            }
            _ => Ok(()),
        }
    }

    #[cfg_attr(not(feature = "sql"), allow(unused_variables, reason = "only pools want a runtime at once"))]
    pub(super) fn open(&self, control: &runtime::Handle) -> Result<Arc<dyn Backend>, StoreError> {
        match self {
            #[cfg(feature = "redis")]
            Self::Redis(location) => Ok(Arc::new(super::redis::Redis::new(location)?)),
            #[cfg(feature = "sql")]
            Self::Postgres(location) => Ok(Arc::new(super::sql::Sql::postgres(location, control)?)),
            #[cfg(feature = "sql")]
            Self::Sqlite(path) => Ok(Arc::new(super::sql::Sql::sqlite(path, control))),
            #[cfg(not(feature = "redis"))]
            Self::Redis(_) => Err(StoreError::Setup("this program was built without the feature `redis`".to_owned())),
            #[cfg(not(feature = "sql"))]
            Self::Postgres(_) | Self::Sqlite(_) => {
                Err(StoreError::Setup("this program was built without the feature `sql`".to_owned()))
            }
        }
    }
}

fn sqlite(rest: &str, folder: &Path) -> Result<Location, Vec<LocationProblem>> {
    let path = rest.strip_prefix("//").unwrap_or(rest);
    let fix = "for example \"sqlite:/var/lib/vestibule/sessions.db\"";
    let what = if path.is_empty() || path.ends_with('/') {
        "names no file"
    } else if path == ":memory:" {
        "would forget every session at a restart"
    } else if path.contains(['?', '%', '\0']) {
        "has more than the name of a file"
    } else {
        return Ok(Location::Sqlite(folder.join(path)));
    };
    Err(vec![LocationProblem { what, fix }])
}

/// `//user:password@host:port,…/path?name=value&…`.
struct Parts<'a> {
    folder: &'a Path,
    user: Option<String>,
    password: Option<SecretString>,
    servers: Vec<(String, Option<u16>)>,
    path: String,
    parameters: Vec<(&'a str, String)>,
    problems: Vec<LocationProblem>,
}

impl<'a> Parts<'a> {
    fn read(rest: &'a str, folder: &'a Path) -> Result<Self, Vec<LocationProblem>> {
        let Some(rest) = rest.strip_prefix("//") else {
            return Err(vec![LocationProblem { what: "lacks the // after the scheme", fix: FORMS }]);
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user_info, hosts) =
            authority.rsplit_once('@').map_or((None, authority), |(user, hosts)| (Some(user), hosts));
        let mut parts = Self {
            folder,
            user: None,
            password: None,
            servers: Vec::new(),
            path: String::new(),
            parameters: Vec::new(),
            problems: Vec::new(),
        };
        if rest.contains('#') || query.contains('#') {
            parts.problem("has a # in it", "write %23 where a name or password has one");
        }
        if let Some(user_info) = user_info {
            let (user, password) = user_info.split_once(':').map_or((user_info, None), |(user, it)| (user, Some(it)));
            parts.user = Some(parts.decoded(user)).filter(|user| !user.is_empty());
            parts.password = password.map(|password| SecretString::new(parts.decoded(password)));
            if user_info.contains('@') {
                parts.problem("has an @ in the user's name or password", "write %40 for it");
            }
        }
        for host in hosts.split(',').filter(|_| !hosts.is_empty()) {
            parts.server(host);
        }
        parts.path = parts.decoded(path);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = parts.decoded(value);
            if parts.parameters.iter().any(|(other, _)| *other == name) {
                parts.problem("has a parameter twice", "keep one of them");
            } else {
                parts.parameters.push((name, value));
            }
        }
        Ok(parts)
    }

    fn problem(&mut self, what: &'static str, fix: &'static str) {
        let problem = LocationProblem { what, fix };
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    fn decoded(&mut self, text: &str) -> String {
        let is_hex = |pair: Option<&str>| pair.is_some_and(|pair| pair.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let is_whole = text.match_indices('%').all(|(at, _)| is_hex(text.get(at + 1..at + 3)));
        match percent_decode_str(text).decode_utf8() {
            Ok(text) if is_whole && !text.contains('\0') => text.into_owned(),
            _ => {
                self.problem("has a % that begins no character", "write %25 where a name or password has one");
                String::new()
            }
        }
    }

    fn server(&mut self, text: &str) {
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, rest)) if host.parse::<std::net::Ipv6Addr>().is_ok() => match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if rest.is_empty() => (host, None),
                None => ("", None),
            },
            Some(_) => ("", None),
            None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':');
        if host.is_empty() || !host.bytes().all(is_name) || (host.contains(':') && !text.starts_with('[')) {
            self.problem("has a host that is no name or address", "write host:port, an IPv6 address in brackets");
        }
        let port = port.map(|port| port.parse().ok().filter(|port| *port > 0));
        if port == Some(None) {
            self.problem("has a port that is none", "write a number up to 65535 after the host");
        }
        self.servers.push((host.to_ascii_lowercase(), port.flatten()));
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.parameters.iter().position(|(other, _)| *other == name)?;
        Some(self.parameters.swap_remove(at).1)
    }

    fn file(&mut self, name: &str) -> Option<PathBuf> {
        self.take(name).map(|path| self.folder.join(path))
    }

    fn servers(&mut self, port: u16) -> Vec<Server> {
        let servers = std::mem::take(&mut self.servers).into_iter();
        servers.map(|(host, own)| Server { host, port: own.unwrap_or(port) }).collect()
    }

    fn done<T>(mut self, known: &'static str, value: T) -> Result<T, Vec<LocationProblem>> {
        if !self.parameters.is_empty() {
            self.problem("has a parameter that means nothing here", known);
        }
        if self.problems.is_empty() { Ok(value) } else { Err(self.problems) }
    }

    fn redis(mut self, tls: bool, form: &str) -> Result<Location, Vec<LocationProblem>> {
        let servers = self.servers(if form == "sentinel" { 26379 } else { 6379 });
        let path = std::mem::take(&mut self.path);
        let (name, number) = match form {
            "sentinel" => path.split_once('/').unwrap_or((&path, "")),
            _ => ("", path.as_str()),
        };
        let together = match form {
            "cluster" => Together::Cluster,
            "sentinel" => Together::Sentinel(name.to_owned()),
            _ => Together::Single,
        };
        if servers.is_empty() {
            self.problem("names no host", FORMS);
        }
        match &together {
            Together::Single if servers.len() > 1 => {
                self.problem("names several hosts", "write redis+cluster:// or redis+sentinel:// before them");
            }
            Together::Sentinel(name) if name.is_empty() => {
                self.problem(
                    "names no master",
                    "write redis+sentinel://host:26379/NAME with the name the Sentinels know",
                );
            }
            _ => {}
        }
        let database = if number.is_empty() { Some(0) } else { number.parse().ok() };
        match database {
            None => self.problem("has a database that is no number", "write a number after the last /, or nothing"),
            Some(1..) if together == Together::Cluster => {
                self.problem("has a number of a database, and a cluster has only one", "write nothing after the hosts");
            }
            Some(_) => {}
        }
        let sentinel_user = self.take("sentinel_user");
        let sentinel_password = self.take("sentinel_password").map(SecretString::new);
        let is_sentinel = matches!(together, Together::Sentinel(_));
        if !is_sentinel && (sentinel_user.is_some() || sentinel_password.is_some()) {
            self.problem("has a password for Sentinels and names none", "write redis+sentinel://, or remove it");
        }
        let ca_file = self.file("ca_file");
        if ca_file.is_some() && !tls {
            self.problem("has ca_file without TLS", "write rediss://");
        }
        let prefix = self.take("prefix").unwrap_or_else(|| "vestibule".to_owned());
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if prefix.is_empty() || prefix.len() > 64 || !prefix.bytes().all(is_plain) {
            self.problem("has a prefix that is no name", "use up to 64 letters, digits, -, _ and .");
        }
        let location = Location::Redis(Redis {
            servers,
            together,
            tls,
            ca_file,
            user: self.user.take(),
            password: self.password.take(),
            sentinel_user,
            sentinel_password,
            database: database.unwrap_or(0),
            prefix,
        });
        self.done("ca_file, prefix, sentinel_user and sentinel_password do", location)
    }

    fn postgres(mut self) -> Result<Location, Vec<LocationProblem>> {
        let servers = self.servers(5432);
        let socket = self.take("host").map(PathBuf::from);
        match (servers.as_slice(), &socket) {
            ([], None) => self.problem("names no host", "for example \"postgres://user@host/database\""),
            ([_], None) => {}
            ([], Some(socket)) if socket.is_absolute() => {}
            ([], Some(_)) => self.problem("has a host= that is no folder", "write the folder of the server's socket"),
            (_, Some(_)) => self.problem("names its host twice", "write it after the @, or as host= for a socket"),
            _ => self.problem("names several hosts", "write one, such as that of a proxy in front of them"),
        }
        let ca_file = self.file("sslrootcert");
        let server = servers.into_iter().next();
        let is_local = server.as_ref().is_none_or(Server::is_loopback);
        let mode = self.take("sslmode").map(Cow::from);
        let ssl = match mode.as_deref() {
            None if is_local && ca_file.is_none() => SslMode::Disable,
            None | Some("verify-full") => SslMode::VerifyFull,
            Some("verify-ca") => SslMode::VerifyCa,
            Some("require") => SslMode::Require,
            Some("disable") => SslMode::Disable,
            // Whoever is in between would choose.
            Some(_) => {
                self.problem("has another sslmode", "write verify-full, verify-ca, require or disable");
                SslMode::VerifyFull
            }
        };
        if ca_file.is_some() && matches!(ssl, SslMode::Disable | SslMode::Require) {
            self.problem("has sslrootcert, and its sslmode does not look at it", "write sslmode=verify-full");
        }
        let user = self.user.take().unwrap_or_default();
        if user.is_empty() {
            self.problem("names no user", "for example \"postgres://user@host/database\"");
        }
        let database = std::mem::take(&mut self.path);
        if database.is_empty() || database.contains('/') {
            self.problem("names no database", "for example \"postgres://user@host/database\"");
        }
        let location = Location::Postgres(Postgres {
            server,
            socket,
            user,
            password: self.password.take(),
            database,
            ssl,
            ca_file,
        });
        self.done("sslmode, sslrootcert and host do", location)
    }
}
