//! Pools that connect when they are first used, and again whenever they have to.

use std::path::Path;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgSslMode};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use tokio::runtime;

use crate::store::StoreError;
use crate::store::location::{Postgres, SslMode};

/// Of one process at the database.
const CONNECTIONS: u32 = 8;
/// A call waits for a connection no longer than this.
const ACQUIRE: Duration = Duration::from_millis(1500);

pub(super) fn postgres(location: &Postgres, control: &runtime::Handle) -> Result<PgPool, StoreError> {
    let mut options = PgConnectOptions::new_without_pgpass()
        .username(&location.user)
        .database(&location.database)
        .application_name("vestibule")
        .ssl_mode(match location.ssl {
            SslMode::Disable => PgSslMode::Disable,
            SslMode::Require => PgSslMode::Require,
            SslMode::VerifyCa => PgSslMode::VerifyCa,
            SslMode::VerifyFull => PgSslMode::VerifyFull,
        })
        .disable_statement_logging();
    if let Some(server) = &location.server {
        options = options.host(&server.host).port(server.port);
    }
    if let Some(socket) = &location.socket {
        options = options.socket(socket);
    }
    if let Some(password) = &location.password {
        options = options.password(password.expose_secret());
    }
    if let Some(path) = &location.ca_file {
        let unusable = |error: std::io::Error| StoreError::Setup(format!("{}: {error}", path.display()));
        let pem = crate::files::bounded(path, crate::files::LARGEST).map_err(unusable)?;
        options = options.ssl_root_cert_from_pem(pem.to_vec());
    }
    // The pool starts its keeper at once.
    let _entered = control.enter();
    Ok(PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(ACQUIRE).connect_lazy_with(options))
}

pub(super) fn sqlite(path: &Path, control: &runtime::Handle) -> SqlitePool {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // What was acknowledged is on the disk: a refresh token that is forgotten is a person who is signed out.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_millis(1000))
        .disable_statement_logging();
    let _entered = control.enter();
    SqlitePoolOptions::new().max_connections(4).acquire_timeout(ACQUIRE).connect_lazy_with(options)
}
