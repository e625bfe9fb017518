//! An SQLite file, for one machine; PostgreSQL, for many.
//!
//! Whoever waits for news of PostgreSQL is woken by `NOTIFY` and reads the table: a notification that was lost with its
//! connection costs a second. Of SQLite the table is looked at again and again.

mod connect;
mod statements;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgListener, PgPool};
use sqlx::sqlite::SqlitePool;
use sqlx::{Executor as _, Row as _};
use tokio::runtime;
use tokio::sync::{Mutex, OnceCell};
use tokio::time::Instant;

use self::statements::{
    POSTGRES, POSTGRES_READY, POSTGRES_TABLES, POSTGRES_TURN, POSTGRES_WAKE, SQLITE, SQLITE_TABLES, Statements,
};
use super::backend::{Answer, Backend, Claim};
use super::location::Postgres;
use super::{
    Bid, Cursor, Filter, Handle, Kept, Listed, News, Owner, Page, Position, Put, StoreError, Swept, Topic, Version,
};

const PAGE: i64 = 200;
/// Records that are taken away by one statement.
const SWEEP: i64 = 1000;
const MESSAGES: i64 = 1000;
/// What has expired is cleared away no more often than this.
const TIDY: Duration = Duration::from_secs(60);
/// How long one may have to wait for a notification that was lost.
const POLL_POSTGRES: Duration = Duration::from_millis(900);
/// Nothing tells of a write of another process.
const POLL_SQLITE: Duration = Duration::from_millis(200);

#[derive(Debug)]
enum Pool {
    Postgres(PgPool),
    Sqlite(SqlitePool),
}

#[derive(Debug)]
pub(super) struct Sql {
    pool: Pool,
    /// Of SQLite.
    file: Option<PathBuf>,
    ready: OnceCell<()>,
    listener: Mutex<Option<PgListener>>,
    tidied: AtomicI64,
}

/// The same for both, each with its own types: `$pool` is the pool, `$sql` its statements.
macro_rules! each {
    ($self:ident, |$pool:ident, $sql:ident| $body:expr) => {
        match &$self.pool {
            Pool::Postgres($pool) => {
                let $sql: &'static Statements = &POSTGRES;
                $body
            }
            Pool::Sqlite($pool) => {
                let $sql: &'static Statements = &SQLITE;
                $body
            }
        }
    };
}

mod steps;

impl Sql {
    pub(super) fn postgres(location: &Postgres, control: &runtime::Handle) -> Result<Self, StoreError> {
        Ok(Self::new(Pool::Postgres(connect::postgres(location, control)?), None))
    }

    pub(super) fn sqlite(path: &Path, control: &runtime::Handle) -> Self {
        Self::new(Pool::Sqlite(connect::sqlite(path, control)), Some(path.to_owned()))
    }

    fn new(pool: Pool, file: Option<PathBuf>) -> Self {
        Self { pool, file, ready: OnceCell::new(), listener: Mutex::new(None), tidied: AtomicI64::new(0) }
    }

    /// The tables are there, as far as this process knows.
    async fn ready(&self) -> Result<(), StoreError> {
        self.ready.get_or_try_init(|| self.prepare()).await.copied().map_err(told)
    }

    async fn prepare(&self) -> Result<(), sqlx::Error> {
        match &self.pool {
            Pool::Postgres(pool) => {
                let mut transaction = pool.begin().await?;
                if !sqlx::query_scalar::<_, bool>(POSTGRES_READY).fetch_one(&mut *transaction).await? {
                    transaction.execute(POSTGRES_TURN).await?;
                    for statement in POSTGRES_TABLES {
                        transaction.execute(*statement).await?;
                    }
                }
                transaction.commit().await
            }
            Pool::Sqlite(pool) => {
                if let Some(file) = &self.file {
                    readable_by_us_alone(file)?;
                }
                for statement in SQLITE_TABLES {
                    pool.execute(*statement).await?;
                }
                Ok(())
            }
        }
    }

    /// Clears away what has expired, now and then.
    async fn tidy(&self) -> Result<(), sqlx::Error> {
        let now = i64::try_from(super::memory::now()).unwrap_or(i64::MAX);
        let last = self.tidied.load(Ordering::Relaxed);
        let is_due = now - last > i64::try_from(TIDY.as_millis()).unwrap_or(i64::MAX) || now < last;
        if is_due && self.tidied.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            for statement in each!(self, |_pool, sql| sql.tidy) {
                each!(self, |pool, _sql| pool.execute(statement).await.map(drop))?;
            }
        }
        Ok(())
    }

    /// The next records in order, `most` at most, by one question.
    async fn after(&self, from: Vec<u8>, filter: &Filter, most: i64) -> Result<Vec<Listed>, StoreError> {
        self.ready().await?;
        let (kind, party, subject) = bound(filter);
        each!(self, |pool, sql| {
            let list = if kind == 2 { sql.list_of } else { sql.list };
            let query = sqlx::query(list).bind(from).bind(kind).bind(&party[..]).bind(&subject[..]).bind(most);
            let rows = query.fetch_all(pool).await.map_err(told)?;
            let mut records = Vec::with_capacity(rows.len());
            for row in &rows {
                let bytes = |at: usize| row.try_get::<Vec<u8>, _>(at).map_err(told);
                let number = |at: usize| natural(row.try_get(at).map_err(told)?);
                records.push(Listed {
                    handle: Handle(array(&bytes(0)?)?),
                    owner: Owner { party: array(&bytes(1)?)?, subject: array(&bytes(2)?)? },
                    version: Version(number(3)?),
                    created: number(4)?,
                    changed: number(5)?,
                    expires: number(6)?,
                });
            }
            Ok(records)
        })
    }

    async fn since(&self, topic: Topic, after: i64) -> Result<Option<News>, StoreError> {
        each!(self, |pool, sql| {
            let rows = sqlx::query(sql.read).bind(topic.name()).bind(after).bind(MESSAGES).fetch_all(pool).await;
            let rows = rows.map_err(told)?;
            let mut news = News { messages: Vec::with_capacity(rows.len()), position: Position(after.to_string()) };
            for row in &rows {
                news.messages.push(row.try_get(1).map_err(told)?);
                news.position = Position(row.try_get::<i64, _>(0).map_err(told)?.to_string());
            }
            Ok((!rows.is_empty()).then_some(news))
        })
    }

    /// Returns when there may be news, or at `deadline`.
    async fn wait(&self, listener: &mut Option<PgListener>, deadline: Instant) -> Result<(), StoreError> {
        let (Pool::Postgres(_), Some(open)) = (&self.pool, listener.as_mut()) else {
            tokio::time::sleep_until(deadline.min(Instant::now() + POLL_SQLITE)).await;
            return Ok(());
        };
        match tokio::time::timeout_at(deadline.min(Instant::now() + POLL_POSTGRES), open.try_recv()).await {
            Ok(Ok(Some(_))) | Err(_) => {}
            // The connection is gone; the table is read, and the next wait has another.
            Ok(Ok(None) | Err(_)) => *listener = None,
        }
        Ok(())
    }
}

/// What a filter is to the statements.
fn bound(filter: &Filter) -> (i64, [u8; 16], [u8; 16]) {
    match filter {
        Filter::All => (0, [0; 16], [0; 16]),
        Filter::Party(party) => (1, *party, [0; 16]),
        Filter::Owner(owner) => (2, owner.party, owner.subject),
    }
}

/// Made before the database makes it, which would let everybody read it.
fn readable_by_us_alone(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map(drop)
}

fn told(error: impl Into<sqlx::Error>) -> StoreError {
    use sqlx::Error;
    match error.into() {
        error @ Error::PoolTimedOut => StoreError::Busy(Box::new(error)),
        Error::ColumnDecode { .. } | Error::Decode(_) | Error::ColumnNotFound(_) | Error::TypeNotFound { .. } => {
            StoreError::Corrupt("a column of another kind")
        }
        Error::Database(error) => by_code(error),
        error => StoreError::Away(Box::new(error)),
    }
}

/// SQLSTATE of PostgreSQL (appendix A of its manual), result codes of SQLite.
fn by_code(error: Box<dyn sqlx::error::DatabaseError>) -> StoreError {
    let code = error.code().map(|code| code.into_owned()).unwrap_or_default();
    let is_postgres = code.len() == 5;
    let error = Box::new(sqlx::Error::Database(error));
    if is_postgres {
        return match code.get(..2) {
            // No such role, no right, no such database or table.
            Some("28" | "3D" | "42") => StoreError::Refused(error),
            // Too many connections, no room, a read-only server, a conflict with another.
            Some("53" | "25" | "40" | "55") => StoreError::Busy(error),
            _ => StoreError::Away(error),
        };
    }
    match code.parse::<u32>().map(|code| code & 0xff) {
        Ok(5 | 6) => StoreError::Busy(error),
        Ok(3 | 8 | 14 | 23) => StoreError::Refused(error),
        Ok(11 | 26) => StoreError::Corrupt("a file that is no database"),
        _ => StoreError::Away(error),
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX).max(1)
}

/// Counters and times, none of which is below zero.
fn natural(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_| StoreError::Corrupt("a number below zero"))
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], StoreError> {
    bytes.try_into().map_err(|_| StoreError::Corrupt("a name of another length"))
}

impl Backend for Sql {
    fn get<'a>(&'a self, handle: &'a Handle) -> Answer<'a, Option<Kept>> {
        Box::pin(async move {
            self.ready().await?;
            each!(self, |pool, sql| {
                let row = sqlx::query(sql.get).bind(&handle.0[..]).fetch_optional(pool).await.map_err(told)?;
                let Some(row) = row else { return Ok(None) };
                let bytes: Vec<u8> = row.try_get(0).map_err(told)?;
                let version = natural(row.try_get(1).map_err(told)?)?;
                Ok(Some(Kept { bytes, version: Version(version) }))
            })
        })
    }

    fn create<'a>(&'a self, handle: &'a Handle, owner: &'a Owner, bytes: &'a [u8], ttl: Duration) -> Answer<'a, Put> {
        Box::pin(async move {
            self.ready().await?;
            self.tidy().await.map_err(told)?;
            each!(self, |pool, sql| {
                let insert =
                    sqlx::query(sql.create).bind(&handle.0[..]).bind(&owner.party[..]).bind(&owner.subject[..]);
                let insert = insert.bind(bytes).bind(millis(ttl)).execute(pool).await.map_err(told)?;
                if insert.rows_affected() == 0 {
                    let same = sqlx::query(sql.created).bind(&handle.0[..]).bind(bytes).fetch_optional(pool).await;
                    if same.map_err(told)?.is_none() {
                        return Ok(Put::Refused);
                    }
                }
                Ok(Put::Kept(Version(1)))
            })
        })
    }

    fn try_lease<'a>(&'a self, handle: &'a Handle, version: Version, bid: Bid, ttl: Duration) -> Answer<'a, Claim> {
        Box::pin(async move {
            self.ready().await?;
            each!(self, |pool, sql| {
                let lease = sqlx::query(sql.lease)
                    .bind(&handle.0[..])
                    .bind(whole(version.0))
                    .bind(millis(ttl))
                    .bind(whole(bid.0));
                if let Some(row) = lease.fetch_optional(pool).await.map_err(told)? {
                    return Ok(Claim::Ours { abandoned: row.try_get::<i64, _>(0).map_err(told)? == 1 });
                }
                let why = sqlx::query(sql.leased).bind(&handle.0[..]).fetch_optional(pool).await.map_err(told)?;
                let Some(row) = why else { return Ok(Claim::Gone) };
                if natural(row.try_get(0).map_err(told)?)? != version.0 {
                    return Ok(Claim::Newer);
                }
                // It may have been given back in between.
                let rest = row.try_get::<i64, _>(1).map_err(told)?;
                Ok(Claim::Busy(Duration::from_millis(u64::try_from(rest).unwrap_or(0))))
            })
        })
    }

    fn replace<'a>(&'a self, handle: &'a Handle, version: Version, bid: Bid, bytes: &'a [u8]) -> Answer<'a, Put> {
        Box::pin(async move {
            self.ready().await?;
            each!(self, |pool, sql| {
                for statement in [sql.replace, sql.replaced] {
                    let query = sqlx::query(statement).bind(&handle.0[..]).bind(whole(version.0)).bind(whole(bid.0));
                    if let Some(row) = query.bind(bytes).fetch_optional(pool).await.map_err(told)? {
                        return Ok(Put::Kept(Version(natural(row.try_get(0).map_err(told)?)?)));
                    }
                }
                Ok(Put::Refused)
            })
        })
    }

    fn release<'a>(&'a self, handle: &'a Handle, version: Version, bid: Bid) -> Answer<'a, bool> {
        Box::pin(async move {
            self.ready().await?;
            each!(self, |pool, sql| {
                let query = sqlx::query(sql.release).bind(&handle.0[..]).bind(whole(version.0)).bind(whole(bid.0));
                Ok(query.execute(pool).await.map_err(told)?.rows_affected() > 0)
            })
        })
    }

    fn delete<'a>(&'a self, handle: &'a Handle) -> Answer<'a, bool> {
        Box::pin(async move {
            self.ready().await?;
            each!(self, |pool, sql| {
                let gone = sqlx::query(sql.delete).bind(&handle.0[..]).execute(pool).await.map_err(told)?;
                Ok(gone.rows_affected() > 0)
            })
        })
    }

    fn find<'a>(&'a self, handle: &'a Handle) -> Answer<'a, Option<Listed>> {
        Box::pin(async move {
            // What comes after the one before it begins with it, if it is there.
            let before = u128::from_be_bytes(*handle.bytes()).checked_sub(1).map(u128::to_be_bytes);
            let from = before.map(|bytes| bytes.to_vec()).unwrap_or_default();
            let next = self.after(from, &Filter::All, 1).await?;
            Ok(next.into_iter().find(|listed| listed.handle == *handle))
        })
    }

    fn list<'a>(&'a self, filter: &'a Filter, from: Option<&'a str>) -> Answer<'a, Page> {
        Box::pin(async move {
            let from = from.map(hex_bytes).transpose()?.unwrap_or_default();
            let records = self.after(from, filter, PAGE).await?;
            let is_full = whole(records.len() as u64) == PAGE;
            let next = records.last().filter(|_| is_full).map(|last| Cursor(hex(last.handle.bytes())));
            Ok(Page { records, next })
        })
    }

    fn sweep<'a>(&'a self, filter: &'a Filter, until: u64, from: Option<&'a str>) -> Answer<'a, Swept> {
        Box::pin(async move {
            self.ready().await?;
            let from = from.map(hex_bytes).transpose()?.unwrap_or_default();
            let (kind, party, subject) = bound(filter);
            each!(self, |pool, sql| {
                let sweep = if kind == 2 { sql.sweep_of } else { sql.sweep };
                let query = sqlx::query(sweep).bind(from).bind(kind).bind(&party[..]).bind(&subject[..]);
                let rows = query.bind(SWEEP).bind(whole(until)).fetch_all(pool).await.map_err(told)?;
                let mut owners = Vec::with_capacity(rows.len());
                let mut last = Vec::new();
                for row in &rows {
                    let bytes = |at: usize| row.try_get::<Vec<u8>, _>(at).map_err(told);
                    last = bytes(0)?.max(last);
                    owners.push(Owner { party: array(&bytes(1)?)?, subject: array(&bytes(2)?)? });
                }
                // What somebody else deletes meanwhile is not among them, so that a few less are no end.
                Ok(Swept { owners, next: (!last.is_empty()).then(|| Cursor(hex(&last))) })
            })
        })
    }

    fn time(&self) -> Answer<'_, u64> {
        Box::pin(async move {
            each!(self, |pool, sql| {
                let millis: i64 = sqlx::query_scalar(sql.time).fetch_one(pool).await.map_err(told)?;
                Ok(natural(millis)?.saturating_mul(1000))
            })
        })
    }

    fn publish<'a>(&'a self, topic: Topic, message: &'a [u8], keep: Duration) -> Answer<'a, ()> {
        Box::pin(async move {
            self.ready().await?;
            self.tidy().await.map_err(told)?;
            let publish = async {
                match &self.pool {
                    Pool::Postgres(pool) => {
                        let mut turn = pool.begin().await?;
                        turn.execute(POSTGRES_TURN).await?;
                        let insert = sqlx::query(POSTGRES.publish).bind(topic.name()).bind(message).bind(millis(keep));
                        insert.execute(&mut *turn).await?;
                        turn.execute(POSTGRES_WAKE).await?;
                        turn.commit().await
                    }
                    Pool::Sqlite(pool) => {
                        let insert = sqlx::query(SQLITE.publish).bind(topic.name()).bind(message).bind(millis(keep));
                        insert.execute(pool).await.map(drop)
                    }
                }
            };
            publish.await.map_err(|error: sqlx::Error| told(error))
        })
    }

    fn read<'a>(&'a self, topic: Topic, after: Option<&'a str>, wait: Duration) -> Answer<'a, News> {
        Box::pin(async move {
            self.ready().await?;
            let Ok(after) = after.unwrap_or("0").parse() else { return Err(StoreError::Corrupt("a position")) };
            let deadline = Instant::now() + wait;
            let mut listener = self.listener.lock().await;
            if let (Pool::Postgres(pool), None) = (&self.pool, &*listener) {
                let mut open = PgListener::connect_with(pool).await.map_err(told)?;
                open.listen("vestibule_messages").await.map_err(told)?;
                *listener = Some(open);
            }
            loop {
                if let Some(news) = self.since(topic, after).await? {
                    return Ok(news);
                }
                if Instant::now() >= deadline {
                    return Ok(News { messages: Vec::new(), position: Position(after.to_string()) });
                }
                self.wait(&mut listener, deadline).await?;
            }
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hex_bytes(text: &str) -> Result<Vec<u8>, StoreError> {
    let pair = |at| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    (0..text.len()).step_by(2).map(pair).collect::<Option<_>>().ok_or(StoreError::Corrupt("a cursor"))
}
