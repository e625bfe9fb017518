//! One connection that comes back by itself: to a server, to the master that Sentinels name, or to a cluster.

use std::fmt;
use std::time::{Duration, Instant};

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr};
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ErrorKind, IntoConnectionInfo, Pipeline, RedisConnectionInfo,
    RedisError, RedisFuture, RedisResult, ServerErrorKind, TlsCertificates, TlsMode, Value,
};
use tokio::sync::Mutex;

use crate::files;
use crate::store::StoreError;
use crate::store::location::{Redis as Location, Server, Together};

/// For one attempt; a call has twice as long.
const CONNECT: Duration = Duration::from_secs(1);
/// Nobody asks again so soon after an attempt that failed.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection of either kind; clones share it.
#[derive(Clone)]
pub(super) enum Connection {
    One(MultiplexedConnection),
    Cluster(Box<ClusterConnection>),
}

impl Connection {
    /// Waits until a replica has what was written to `key`, for so many milliseconds at most. Says how many have.
    pub(super) async fn settle(self, key: &[u8], millis: u64) -> RedisResult<i64> {
        let mut wait = redis::cmd("WAIT");
        wait.arg(1).arg(millis);
        match self {
            Self::One(mut connection) => wait.query_async(&mut connection).await,
            Self::Cluster(mut connection) => {
                // Of the node that was written to, which has one connection: it counts what came by that.
                let route = Route::with_key(key, SlotAddr::Master);
                let route = RoutingInfo::SingleNode(SingleNodeRoutingInfo::SpecificNode(route));
                Ok(redis::from_redis_value(connection.route_command(wait, route).await?)?)
            }
        }
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(connection) => connection.req_packed_command(cmd),
            Self::Cluster(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::One(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}

/// Whom to connect to.
enum Target {
    Single(Box<Client>),
    Sentinel(Box<Mutex<SentinelClient>>),
    Cluster(Box<ClusterClient>),
}

/// A connection, or the want of one.
pub(super) struct Link {
    target: Target,
    /// An answer may take this long; `None`: whoever asks has a bound.
    patience: Option<Duration>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connection: Option<Connection>,
    /// Counts connections, so that one that broke is dropped once.
    generation: u64,
    failed: Option<(Instant, RedisError)>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

impl Link {
    /// Opens nothing.
    pub(super) fn new(location: &Location, patience: Option<Duration>) -> Result<Self, StoreError> {
        let target = target(location, patience)?;
        Ok(Self { target, patience, state: Mutex::default() })
    }

    /// Asks; once more on a new connection where the old one had broken and `again` allows it.
    pub(super) async fn ask<T, F>(&self, again: bool, call: impl Fn(Connection) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let (generation, connection) = self.connection().await?;
        let error = match call(connection).await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if !is_lost(&error) {
            return Err(told(error));
        }
        self.drop_connection(generation).await;
        // A server that became a replica has done nothing.
        if !(again || matches!(error.kind(), ErrorKind::Server(ServerErrorKind::ReadOnly))) {
            return Err(told(error));
        }
        let (generation, connection) = self.connection().await?;
        match call(connection).await {
            Ok(value) => Ok(value),
            Err(error) => {
                if is_lost(&error) {
                    self.drop_connection(generation).await;
                }
                Err(told(error))
            }
        }
    }

    /// Whoever comes while one connects waits for the same connection.
    async fn connection(&self) -> Result<(u64, Connection), StoreError> {
        let mut state = self.state.lock().await;
        if let Some(connection) = &state.connection {
            return Ok((state.generation, connection.clone()));
        }
        if let Some((at, error)) = &state.failed
            && at.elapsed() < PAUSE
        {
            return Err(told(error.clone()));
        }
        let connected = match tokio::time::timeout(CONNECT, self.connect()).await {
            Ok(connected) => connected,
            Err(_) => Err((ErrorKind::Io, "no connection in time").into()),
        };
        match connected {
            Ok(connection) => {
                state.connection = Some(connection.clone());
                state.generation += 1;
                Ok((state.generation, connection))
            }
            Err(error) => {
                state.failed = Some((Instant::now(), error.clone()));
                Err(told(error))
            }
        }
    }

    async fn drop_connection(&self, generation: u64) {
        let mut state = self.state.lock().await;
        if state.generation == generation {
            state.connection = None;
        }
    }

    async fn connect(&self) -> RedisResult<Connection> {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(self.patience);
        Ok(match &self.target {
            Target::Single(client) => {
                Connection::One(client.get_multiplexed_async_connection_with_config(&config).await?)
            }
            Target::Sentinel(client) => {
                let mut client = client.lock().await;
                Connection::One(client.get_async_connection_with_config(&config).await?)
            }
            Target::Cluster(client) => Connection::Cluster(Box::new(client.get_async_connection().await?)),
        })
    }
}

/// Whether another connection may do better.
fn is_lost(error: &RedisError) -> bool {
    use ServerErrorKind::{ClusterDown, MasterDown, ReadOnly};
    error.is_timeout()
        || error.is_io_error()
        || error.is_unrecoverable_error()
        || matches!(error.kind(), ErrorKind::Server(ReadOnly | MasterDown | ClusterDown))
}

fn told(error: RedisError) -> StoreError {
    use ServerErrorKind::{BusyLoading, ClusterDown, MasterDown, NoPerm, ReadOnly, TryAgain};
    let code = error.code().unwrap_or_default();
    if error.is_timeout() {
        return StoreError::Timeout;
    }
    match error.kind() {
        ErrorKind::Server(BusyLoading | ClusterDown | MasterDown | ReadOnly | TryAgain) => {
            StoreError::Busy(Box::new(error))
        }
        ErrorKind::AuthenticationFailed | ErrorKind::Server(NoPerm) => StoreError::Refused(Box::new(error)),
        _ if matches!(code, "WRONGPASS" | "NOAUTH" | "NOPERM") => StoreError::Refused(Box::new(error)),
        // Out of memory, too many clients, a script of another's that runs for long, too few replicas.
        _ if matches!(code, "OOM" | "BUSY" | "NOREPLICAS" | "MISCONF") => StoreError::Busy(Box::new(error)),
        _ if code == "WRONGTYPE" => StoreError::Corrupt("a key of another kind"),
        ErrorKind::UnexpectedReturnType | ErrorKind::Parse => StoreError::Corrupt("an answer of another kind"),
        _ => StoreError::Away(Box::new(error)),
    }
}

fn target(location: &Location, patience: Option<Duration>) -> Result<Target, StoreError> {
    let setup = |error: RedisError| StoreError::Setup(error.to_string());
    let certificates = certificates(location)?;
    let settings = redis_settings(location);
    let addresses = location.servers.iter().map(|server| address(server, location.tls));
    Ok(match &location.together {
        Together::Single => {
            let address = addresses.into_iter().next().ok_or_else(|| StoreError::Setup("no host".to_owned()))?;
            let info = address.into_connection_info().map_err(setup)?.set_redis_settings(settings);
            Target::Single(Box::new(match certificates {
                Some(certificates) => Client::build_with_tls(info, certificates).map_err(setup)?,
                None => Client::open(info).map_err(setup)?,
            }))
        }
        Together::Sentinel(name) => {
            let builder = SentinelClientBuilder::new(addresses, name, SentinelServerType::Master).map_err(setup)?;
            let mut builder = builder.set_client_to_redis_db(i64::from(location.database));
            if let Some(user) = &location.user {
                builder = builder.set_client_to_redis_username(user);
            }
            if let Some(password) = &location.password {
                builder = builder.set_client_to_redis_password(password.expose_secret());
            }
            if let Some(user) = &location.sentinel_user {
                builder = builder.set_client_to_sentinel_username(user);
            }
            if let Some(password) = &location.sentinel_password {
                builder = builder.set_client_to_sentinel_password(password.expose_secret());
            }
            if let Some(certificates) = certificates {
                builder = builder
                    .set_client_to_redis_tls_mode(TlsMode::Secure)
                    .set_client_to_redis_certificates(certificates.clone())
                    .set_client_to_sentinel_certificates(certificates);
            }
            Target::Sentinel(Box::new(Mutex::new(builder.build().map_err(setup)?)))
        }
        Together::Cluster => {
            let mut builder = ClusterClient::builder(addresses).connection_timeout(CONNECT).retries(4);
            if let Some(patience) = patience {
                builder = builder.response_timeout(patience);
            }
            if let Some(user) = &location.user {
                builder = builder.username(user);
            }
            if let Some(password) = &location.password {
                builder = builder.password(password.expose_secret());
            }
            if let Some(certificates) = certificates {
                builder = builder.tls(TlsMode::Secure).certs(certificates);
            }
            Target::Cluster(Box::new(builder.build().map_err(setup)?))
        }
    })
}

fn address(server: &Server, tls: bool) -> ConnectionAddr {
    let (host, port) = (server.host.clone(), server.port);
    if tls {
        ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(host, port)
    }
}

fn redis_settings(location: &Location) -> RedisConnectionInfo {
    let mut settings = RedisConnectionInfo::default().set_db(i64::from(location.database));
    if let Some(user) = &location.user {
        settings = settings.set_username(user);
    }
    if let Some(password) = &location.password {
        settings = settings.set_password(password.expose_secret());
    }
    settings
}

/// `None`: no TLS.
fn certificates(location: &Location) -> Result<Option<TlsCertificates>, StoreError> {
    let read = |path: &std::path::PathBuf| {
        let unusable = |error: std::io::Error| StoreError::Setup(format!("{}: {error}", path.display()));
        files::bounded(path, files::LARGEST).map(|bytes| bytes.to_vec()).map_err(unusable)
    };
    let root_cert = location.ca_file.as_ref().map(read).transpose()?;
    Ok(location.tls.then_some(TlsCertificates { client_tls: None, root_cert }))
}
