//! The statements: the same for both databases but for the clock, the types and the number that a message gets.
//!
//! Times are milliseconds since the Unix epoch by the database's own clock, so that all replicas agree on when a lease ends.
//! Each statement is one step of its own. Creating and replacing may be asked twice: the second time, the same bytes are
//! there already.

/// What one database is asked.
#[derive(Debug)]
pub(super) struct Statements {
    pub(super) get: &'static str,
    pub(super) create: &'static str,
    pub(super) created: &'static str,
    pub(super) lease: &'static str,
    pub(super) leased: &'static str,
    pub(super) replace: &'static str,
    pub(super) replaced: &'static str,
    pub(super) release: &'static str,
    pub(super) delete: &'static str,
    pub(super) list: &'static str,
    pub(super) list_of: &'static str,
    pub(super) sweep: &'static str,
    pub(super) sweep_of: &'static str,
    pub(super) time: &'static str,
    pub(super) publish: &'static str,
    pub(super) read: &'static str,
    pub(super) take_step: &'static str,
    pub(super) step: &'static str,
    pub(super) finish_step: &'static str,
    pub(super) release_step: &'static str,
    pub(super) shorten_step: &'static str,
    pub(super) tidy: [&'static str; 4],
}

macro_rules! statements {
    ($name:ident, $now:literal) => {
        pub(super) const $name: Statements = Statements {
            get: concat!(
                "SELECT sealed, version FROM vestibule_sessions WHERE handle = $1 AND expires > ", $now),
            create: concat!(
                "INSERT INTO vestibule_sessions (handle, party, subject, sealed, version, fence, leased, created, changed, expires) ",
                "VALUES ($1, $2, $3, $4, 1, 0, 0, ", $now, ", ", $now, ", ", $now, " + $5) ",
                "ON CONFLICT (handle) DO NOTHING"),
            created: concat!(
                "SELECT 1 FROM vestibule_sessions WHERE handle = $1 AND version = 1 AND sealed = $2 AND expires > ", $now),
            // What is on the right of a = is what was there before. `fence`: whose the last lease was.
            lease: concat!(
                "UPDATE vestibule_sessions SET abandoned = CASE WHEN leased = 0 THEN 0 WHEN fence = $4 THEN abandoned ELSE 1 END, ",
                "fence = $4, leased = ", $now, " + $3 WHERE handle = $1 AND version = $2 AND (leased <= ", $now,
                " OR fence = $4) AND expires > ", $now, " RETURNING abandoned"),
            leased: concat!(
                "SELECT version, leased - ", $now, " FROM vestibule_sessions WHERE handle = $1 AND expires > ", $now),
            replace: concat!(
                "UPDATE vestibule_sessions SET sealed = $4, version = version + 1, leased = 0, changed = ", $now,
                " WHERE handle = $1 AND version = $2 AND fence = $3 AND expires > ", $now, " RETURNING version"),
            replaced: concat!(
                "SELECT version FROM vestibule_sessions WHERE handle = $1 AND version = $2 + 1 AND fence = $3 AND sealed = $4 ",
                "AND expires > ", $now),
            // That the one before was abandoned is true for the next one too: as if this one had ended long ago.
            release: concat!(
                "UPDATE vestibule_sessions SET leased = abandoned WHERE handle = $1 AND version = $2 AND fence = $3 AND expires > ",
                $now),
            delete: concat!(
                "DELETE FROM vestibule_sessions WHERE handle = $1 AND expires > ", $now),
            list: concat!(
                "SELECT handle, party, subject, version, created, changed, expires FROM vestibule_sessions ",
                "WHERE handle > $1 AND ($2 = 0 OR party = $3) AND ($2 < 2 OR subject = $4) AND expires > ", $now,
                " ORDER BY handle LIMIT $5"),
            // The same with the index of one person's to go by.
            list_of: concat!(
                "SELECT handle, party, subject, version, created, changed, expires FROM vestibule_sessions ",
                "WHERE handle > $1 AND $2 = 2 AND party = $3 AND subject = $4 AND expires > ", $now,
                " ORDER BY handle LIMIT $5"),
            // In the order and with the indexes of those two.
            sweep: concat!(
                "DELETE FROM vestibule_sessions WHERE handle IN (SELECT handle FROM vestibule_sessions ",
                "WHERE handle > $1 AND ($2 = 0 OR party = $3) AND ($2 < 2 OR subject = $4) AND created <= $6 AND expires > ",
                $now, " ORDER BY handle LIMIT $5) RETURNING handle, party, subject"),
            sweep_of: concat!(
                "DELETE FROM vestibule_sessions WHERE handle IN (SELECT handle FROM vestibule_sessions ",
                "WHERE handle > $1 AND $2 = 2 AND party = $3 AND subject = $4 AND created <= $6 AND expires > ",
                $now, " ORDER BY handle LIMIT $5) RETURNING handle, party, subject"),
            time: concat!("SELECT ", $now),
            publish: concat!("INSERT INTO vestibule_messages (topic, message, expires) VALUES ($1, $2, ", $now, " + $3)"),
            read: concat!(
                "SELECT number, message FROM vestibule_messages WHERE topic = $1 AND number > $2 AND expires > ", $now,
                " ORDER BY number LIMIT $3"),
            // `leased`: 0 is over, -1 is lost.
            take_step: concat!(
                "INSERT INTO vestibule_steps AS was (series, number, bid, leased, brought_by, brought_until, expires) ",
                "VALUES ($1, $2, $3, ", $now, " + $4, 0, 0, ", $now, " + $5) ON CONFLICT (series) DO UPDATE SET ",
                "number = excluded.number, bid = excluded.bid, leased = excluded.leased, expires = excluded.expires ",
                "WHERE was.expires <= ", $now, " OR was.number < excluded.number ",
                "OR (was.number = excluded.number AND was.bid = excluded.bid AND was.leased > 0)"),
            step: concat!(
                "SELECT number, leased, leased - ", $now, ", CASE WHEN brought_by >= $2 THEN brought END, brought_until - ", $now,
                " FROM vestibule_steps WHERE series = $1 AND expires > ", $now),
            finish_step: concat!(
                "INSERT INTO vestibule_steps AS was (series, number, bid, leased, brought, brought_by, brought_until, expires) ",
                "VALUES ($1, $2, $3, $4, $5, $2, ", $now, " + $6, ", $now, " + $7) ON CONFLICT (series) DO UPDATE SET ",
                "number = excluded.number, bid = excluded.bid, leased = excluded.leased, expires = excluded.expires, ",
                "brought = COALESCE(excluded.brought, was.brought), ",
                "brought_by = CASE WHEN excluded.brought IS NULL THEN was.brought_by ELSE excluded.brought_by END, ",
                "brought_until = CASE WHEN excluded.brought IS NULL THEN was.brought_until ELSE excluded.brought_until END ",
                "WHERE was.expires <= ", $now, " OR was.number < excluded.number ",
                "OR (was.number = excluded.number AND was.bid = excluded.bid)"),
            release_step: concat!(
                "UPDATE vestibule_steps SET number = number - 1, leased = 0 WHERE series = $1 AND number = $2 AND bid = $3 ",
                "AND expires > ", $now),
            shorten_step: concat!(
                "UPDATE vestibule_steps SET brought_until = ", $now, " + $3 WHERE series = $1 AND brought_by = $2 ",
                "AND brought_until > ", $now, " + $3"),
            tidy: [
                concat!("DELETE FROM vestibule_steps WHERE expires <= ", $now),
                concat!("UPDATE vestibule_steps SET brought = NULL WHERE brought IS NOT NULL AND brought_until <= ", $now),
                concat!("DELETE FROM vestibule_sessions WHERE expires <= ", $now),
                concat!("DELETE FROM vestibule_messages WHERE expires <= ", $now),
            ],
        };
    };
}

statements!(POSTGRES, "(extract(epoch FROM clock_timestamp()) * 1000)::bigint");
statements!(SQLITE, "CAST(unixepoch('subsec') * 1000 AS INTEGER)");

/// The tables of PostgreSQL.
pub(super) const POSTGRES_TABLES: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS vestibule_sessions (handle bytea PRIMARY KEY, party bytea NOT NULL, subject bytea NOT NULL, \
     sealed bytea NOT NULL, version bigint NOT NULL, fence bigint NOT NULL, leased bigint NOT NULL, \
     abandoned bigint NOT NULL DEFAULT 0, created bigint NOT NULL, changed bigint NOT NULL, expires bigint NOT NULL)",
    "CREATE INDEX IF NOT EXISTS vestibule_sessions_owner ON vestibule_sessions (subject, party)",
    "CREATE INDEX IF NOT EXISTS vestibule_sessions_expires ON vestibule_sessions (expires)",
    "CREATE TABLE IF NOT EXISTS vestibule_messages (number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \
     topic text NOT NULL, message bytea NOT NULL, expires bigint NOT NULL)",
    "CREATE TABLE IF NOT EXISTS vestibule_steps (series bytea PRIMARY KEY, number bigint NOT NULL, bid bigint NOT NULL, \
     leased bigint NOT NULL, brought bytea, brought_by bigint NOT NULL, brought_until bigint NOT NULL, expires bigint NOT NULL)",
];

/// The tables of SQLite; numbers are never given twice.
pub(super) const SQLITE_TABLES: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS vestibule_sessions (handle BLOB PRIMARY KEY, party BLOB NOT NULL, subject BLOB NOT NULL, \
     sealed BLOB NOT NULL, version INTEGER NOT NULL, fence INTEGER NOT NULL, leased INTEGER NOT NULL, \
     abandoned INTEGER NOT NULL DEFAULT 0, created INTEGER NOT NULL, changed INTEGER NOT NULL, expires INTEGER NOT NULL) \
     STRICT, WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS vestibule_sessions_owner ON vestibule_sessions (subject, party)",
    "CREATE INDEX IF NOT EXISTS vestibule_sessions_expires ON vestibule_sessions (expires)",
    "CREATE TABLE IF NOT EXISTS vestibule_messages (number INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, \
     message BLOB NOT NULL, expires INTEGER NOT NULL) STRICT",
    "CREATE TABLE IF NOT EXISTS vestibule_steps (series BLOB PRIMARY KEY, number INTEGER NOT NULL, bid INTEGER NOT NULL, \
     leased INTEGER NOT NULL, brought BLOB, brought_by INTEGER NOT NULL, brought_until INTEGER NOT NULL, \
     expires INTEGER NOT NULL) STRICT",
];

/// Whether the tables of PostgreSQL are there: a role that may not create any need not.
pub(super) const POSTGRES_READY: &str = "SELECT to_regclass('vestibule_sessions') IS NOT NULL AND to_regclass('vestibule_messages') IS NOT NULL \
     AND to_regclass('vestibule_steps') IS NOT NULL";

/// One at a time: two that create the same table at once would fail, and a message with a lower number that is seen later
/// would never be read.
pub(super) const POSTGRES_TURN: &str = "SELECT pg_advisory_xact_lock(8243119874422)";

/// Wakes whoever waits for news; holds no word of it.
pub(super) const POSTGRES_WAKE: &str = "SELECT pg_notify('vestibule_messages', '')";
