//! Redis 5 and later, or Valkey.
//!
//! A record is a hash that expires by itself; two sorted sets name it, one of its owner and one of the 64 that together name
//! all records: no key is looked for by `SCAN`, which would walk through everybody else's. What replicas tell one another
//! lies in a stream: whoever was away reads on where it stopped, which publish and subscribe alone would not give.

mod link;
mod scripts;
mod steps;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use redis::streams::{StreamReadOptions, StreamReadReply};
use redis::{AsyncTypedCommands as _, Cmd, FromRedisValue, RedisResult, Script, Value};

use self::link::{Connection, Link};
use self::scripts::CORRUPT;
use super::backend::{Answer, Backend, Claim};
use super::location::{Redis as Location, Together};
use super::{
    Bid, Cursor, Filter, Handle, Kept, Listed, News, Owner, Page, Position, Put, StoreError, Swept, Topic, Version,
};

/// Sorted sets that name all records.
const SHARDS: u8 = 64;
/// Nobody waits longer for news in one call.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How long a replica may take to have what was written, in milliseconds: others wait behind it on the same connection.
const SETTLED: u64 = 20;
/// How long nobody waits for the replicas of a cluster after none had answered.
const UNSETTLED: Duration = Duration::from_secs(1);
/// Messages that are read at once.
const MESSAGES: usize = 1000;

#[derive(Debug)]
pub(super) struct Redis {
    prefix: String,
    /// Who waits until a replica has what was written.
    settling: Settling,
    link: Link,
    /// Waiting for news holds a connection.
    reader: Link,
    scripts: Scripts,
}

/// Whether a replica can take the place of a server.
#[derive(Debug)]
enum Settling {
    /// There is one server.
    Never,
    /// Behind Sentinels there is one.
    Always,
    /// The nodes of a cluster may have some. Milliseconds after the first moment, before which it is no use to wait: where
    /// there is none, waiting would hold up all others on the connection. 0: the last who waited found one.
    From(Instant, AtomicU64),
}

impl Settling {
    fn of(together: &Together) -> Self {
        match together {
            Together::Single => Self::Never,
            Together::Sentinel(_) => Self::Always,
            Together::Cluster => Self::From(Instant::now(), AtomicU64::new(0)),
        }
    }

    fn is_due(&self) -> bool {
        match self {
            Self::Never => false,
            Self::Always => true,
            Self::From(begun, from) => match from.load(Ordering::Relaxed) {
                0 => true,
                // Then one alone finds out, for all others who write at the same time.
                next if begun.elapsed() >= Duration::from_millis(next) => {
                    from.compare_exchange(next, later(*begun), Ordering::Relaxed, Ordering::Relaxed).is_ok()
                }
                _ => false,
            },
        }
    }

    fn tell(&self, replicas: i64) {
        if let Self::From(begun, from) = self {
            from.store(if replicas > 0 { 0 } else { later(*begun) }, Ordering::Relaxed);
        }
    }
}

/// When it may be of use again to wait.
fn later(begun: Instant) -> u64 {
    u64::try_from((begun.elapsed() + UNSETTLED).as_millis()).unwrap_or(u64::MAX)
}

#[derive(Debug)]
struct Scripts {
    create: Script,
    lease: Script,
    replace: Script,
    release: Script,
    index: Script,
    publish: Script,
    time: Script,
    take_step: Script,
    finish_step: Script,
    release_step: Script,
    bring: Script,
    shorten: Script,
}

impl Redis {
    pub(super) fn new(location: &Location) -> Result<Self, StoreError> {
        Ok(Self {
            prefix: location.prefix.clone(),
            settling: Settling::of(&location.together),
            link: Link::new(location, Some(Duration::from_secs(10)))?,
            reader: Link::new(location, Some(LONGEST_WAIT * 2))?,
            scripts: Scripts {
                create: Script::new(scripts::CREATE),
                lease: Script::new(scripts::LEASE),
                replace: Script::new(scripts::REPLACE),
                release: Script::new(scripts::RELEASE),
                index: Script::new(scripts::INDEX),
                publish: Script::new(scripts::PUBLISH),
                time: Script::new(scripts::TIME),
                take_step: Script::new(scripts::TAKE_STEP),
                finish_step: Script::new(scripts::FINISH_STEP),
                release_step: Script::new(scripts::RELEASE_STEP),
                bring: Script::new(scripts::BRING),
                shorten: Script::new(scripts::SHORTEN),
            },
        })
    }

    fn key(&self, kind: &str, name: &[u8]) -> Vec<u8> {
        [self.prefix.as_bytes(), b":", kind.as_bytes(), b":", name].concat()
    }

    fn record(&self, handle: &Handle) -> Vec<u8> {
        self.key("s", handle.bytes())
    }

    /// The two sets that name a record.
    fn indexes(&self, handle: &Handle, owner: &Owner) -> [Vec<u8>; 2] {
        [self.key("all", &[handle.bytes()[0] % SHARDS]), self.key("of", &packed(owner))]
    }

    /// Runs a script on one key.
    async fn run<T: redis::FromRedisValue>(
        &self,
        again: bool,
        script: &Script,
        key: &[u8],
        arguments: &[&[u8]],
    ) -> Result<T, StoreError> {
        self.link
            .ask(again, |mut connection| async move {
                let mut invocation = script.key(key);
                for argument in arguments {
                    invocation.arg(*argument);
                }
                invocation.invoke_async(&mut connection).await
            })
            .await
    }

    /// Waits a moment until a replica has what was written to `key`, so that a fail-over does not take it back.
    async fn settle(&self, key: &[u8]) {
        if self.settling.is_due() {
            let wait = |connection: Connection| connection.settle(key, SETTLED);
            // Written it is in any case.
            if let Ok(replicas) = self.link.ask(false, wait).await {
                self.settling.tell(replicas);
            }
        }
    }

    /// What can be told of each record.
    async fn rows(&self, handles: impl Iterator<Item = &Handle>) -> Result<Vec<Row>, StoreError> {
        self.together(&handles.map(|handle| row_of(&self.record(handle))).collect::<Vec<_>>()).await
    }

    /// The answers to many commands, each of one key, that may be asked twice. In one round trip; in a cluster in one for each, all
    /// at once: the keys lie in as many slots.
    async fn together<T: FromRedisValue>(&self, asked: &[Cmd]) -> Result<Vec<T>, StoreError> {
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        let ask = move |mut connection: Connection| async move {
            if let Connection::Cluster(_) = connection {
                let each = asked.iter().map(|command| {
                    let mut connection = connection.clone();
                    async move { command.query_async(&mut connection).await }
                });
                return try_join_all(each).await;
            }
            let mut together = redis::pipe();
            for command in asked {
                together.add_command(command.clone());
            }
            let answers: Vec<Value> = together.query_async(&mut connection).await?;
            answers.into_iter().map(|answer| Ok(redis::from_redis_value(answer)?)).collect::<RedisResult<_>>()
        };
        self.link.ask(true, ask).await
    }
}

/// Owner, version, created, changed.
type Row = (Option<Vec<u8>>, Option<u64>, Option<u64>, Option<u64>);

fn row_of(key: &[u8]) -> Cmd {
    let mut command = redis::cmd("HMGET");
    command.arg(key).arg(&["o", "v", "c", "m"]);
    command
}

/// `None`: it is not there (any more).
fn listed(handle: Handle, row: Row, expires: u64) -> Result<Option<Listed>, StoreError> {
    let (Some(owner), Some(version), Some(created), Some(changed)) = row else { return Ok(None) };
    let owner = unpacked(&owner).ok_or(StoreError::Corrupt("an owner of another length"))?;
    Ok(Some(Listed { handle, owner, version: Version(version), created, changed, expires }))
}

fn packed(owner: &Owner) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&owner.party);
    bytes[16..].copy_from_slice(&owner.subject);
    bytes
}

fn unpacked(bytes: &[u8]) -> Option<Owner> {
    let (party, subject) = bytes.split_at_checked(16)?;
    Some(Owner { party: party.try_into().ok()?, subject: subject.try_into().ok()? })
}

fn millis(span: Duration) -> Vec<u8> {
    span.as_millis().max(1).to_string().into_bytes()
}

fn number(number: u64) -> Vec<u8> {
    number.to_string().into_bytes()
}

fn written(answer: i64) -> Result<Put, StoreError> {
    match u64::try_from(answer) {
        Ok(0) => Ok(Put::Refused),
        Ok(version) => Ok(Put::Kept(Version(version))),
        Err(_) => Err(StoreError::Corrupt("fields that are no record's")),
    }
}

impl Backend for Redis {
    fn get<'a>(&'a self, handle: &'a Handle) -> Answer<'a, Option<Kept>> {
        Box::pin(async move {
            let key = self.record(handle);
            let fields = |mut connection: Connection| {
                let key = &key;
                async move { redis::cmd("HMGET").arg(key).arg(&["b", "v"]).query_async(&mut connection).await }
            };
            let fields: (Option<Vec<u8>>, Option<Vec<u8>>) = self.link.ask(true, fields).await?;
            match fields {
                (None, None) => Ok(None),
                (Some(bytes), Some(version)) if bytes.len() <= super::LARGEST => {
                    let version = std::str::from_utf8(&version).ok().and_then(|text| text.parse().ok());
                    let version = version.map(Version).ok_or(StoreError::Corrupt("a version that is no number"))?;
                    Ok(Some(Kept { bytes, version }))
                }
                _ => Err(StoreError::Corrupt("fields that are no record's")),
            }
        })
    }

    fn create<'a>(&'a self, handle: &'a Handle, owner: &'a Owner, bytes: &'a [u8], ttl: Duration) -> Answer<'a, Put> {
        Box::pin(async move {
            let ttl = millis(ttl);
            // Named first: a record that no list shows would be one that nobody could end.
            for index in self.indexes(handle, owner) {
                let () = self.run(true, &self.scripts.index, &index, &[handle.bytes(), &ttl]).await?;
            }
            let (key, owner) = (self.record(handle), packed(owner));
            let arguments: [&[u8]; 3] = [bytes, &owner, &ttl];
            let put = written(self.run(true, &self.scripts.create, &key, &arguments).await?)?;
            self.settle(&key).await;
            Ok(put)
        })
    }

    fn try_lease<'a>(&'a self, handle: &'a Handle, version: Version, bid: Bid, ttl: Duration) -> Answer<'a, Claim> {
        Box::pin(async move {
            let arguments: [&[u8]; 3] = [&number(version.0), &millis(ttl), &number(bid.0)];
            let key = self.record(handle);
            let answer: Vec<i64> = self.run(true, &self.scripts.lease, &key, &arguments).await?;
            let span = |millis: i64| u64::try_from(millis).unwrap_or(0);
            if answer.first() == Some(&1) {
                self.settle(&key).await;
            }
            match *answer {
                [1, abandoned] => Ok(Claim::Ours { abandoned: abandoned == 1 }),
                [2, rest] => Ok(Claim::Busy(Duration::from_millis(span(rest)))),
                [3] => Ok(Claim::Newer),
                [4] => Ok(Claim::Gone),
                _ => Err(StoreError::Corrupt("fields that are no record's")),
            }
        })
    }

    fn replace<'a>(&'a self, handle: &'a Handle, version: Version, bid: Bid, bytes: &'a [u8]) -> Answer<'a, Put> {
        Box::pin(async move {
            let arguments: [&[u8]; 3] = [&number(version.0), &number(bid.0), bytes];
            let key = self.record(handle);
            let put = written(self.run(true, &self.scripts.replace, &key, &arguments).await?)?;
            self.settle(&key).await;
            Ok(put)
        })
    }

    fn release<'a>(&'a self, handle: &'a Handle, version: Version, bid: Bid) -> Answer<'a, bool> {
        Box::pin(async move {
            let arguments: [&[u8]; 2] = [&number(version.0), &number(bid.0)];
            match self.run(true, &self.scripts.release, &self.record(handle), &arguments).await? {
                CORRUPT => Err(StoreError::Corrupt("fields that are no record's")),
                answer => Ok(answer == 1),
            }
        })
    }

    fn delete<'a>(&'a self, handle: &'a Handle) -> Answer<'a, bool> {
        Box::pin(async move {
            let key = self.record(handle);
            let remove = |mut connection: Connection| {
                let key = &key;
                async move {
                    let owner: Option<Vec<u8>> =
                        redis::cmd("HGET").arg(key).arg("o").query_async(&mut connection).await?;
                    let was: bool = redis::cmd("DEL").arg(key).query_async(&mut connection).await?;
                    Ok((owner, was))
                }
            };
            let (owner, was) = self.link.ask(true, remove).await?;
            if let Some(owner) = owner.as_deref().and_then(unpacked) {
                for index in self.indexes(handle, &owner) {
                    let (index, name) = (&index, handle.bytes());
                    let forget = |mut connection: Connection| async move { connection.zrem(index, name).await };
                    self.link.ask(true, forget).await?;
                }
            }
            if was {
                // What is taken away once must not come back.
                self.settle(&key).await;
            }
            Ok(was)
        })
    }

    fn find<'a>(&'a self, handle: &'a Handle) -> Answer<'a, Option<Listed>> {
        Box::pin(async move {
            let key = self.record(handle);
            let fields = |mut connection: Connection| {
                let key = &key;
                async move {
                    let row = row_of(key).query_async(&mut connection).await?;
                    // Of Redis 7 only as a time; of every version as a span.
                    let left: i64 = redis::cmd("PTTL").arg(key).query_async(&mut connection).await?;
                    Ok((row, left))
                }
            };
            let (row, left) = self.link.ask(true, fields).await?;
            let left = u64::try_from(left).unwrap_or(0);
            listed(*handle, row, super::memory::now().saturating_add(left))
        })
    }

    fn list<'a>(&'a self, filter: &'a Filter, from: Option<&'a str>) -> Answer<'a, Page> {
        Box::pin(async move {
            let bad = || StoreError::Corrupt("a cursor");
            let (shard, cursor) = from.unwrap_or("0:0").split_once(':').ok_or_else(bad)?;
            let shard: u8 = shard.parse().map_err(|_| bad())?;
            let (index, shards) = match filter {
                Filter::Owner(owner) => (self.key("of", &packed(owner)), 1),
                Filter::All | Filter::Party(_) => (self.key("all", &[shard]), SHARDS),
            };
            let scan = |mut connection: Connection| {
                let index = &index;
                async move {
                    redis::cmd("ZSCAN").arg(index).arg(cursor).arg("COUNT").arg(200).query_async(&mut connection).await
                }
            };
            let (cursor, names): (String, Vec<(Vec<u8>, f64)>) = self.link.ask(true, scan).await?;
            let named = |(name, expires): (Vec<u8>, f64)| match <[u8; 16]>::try_from(name) {
                // Milliseconds, which are whole for as long as there are that many.
                Ok(bytes) => Ok((Handle(bytes), expires.max(0.0) as u64)),
                Err(_) => Err(StoreError::Corrupt("a name that is no handle")),
            };
            let named: Vec<_> = names.into_iter().map(named).collect::<Result<_, _>>()?;
            let rows = self.rows(named.iter().map(|(handle, _)| handle)).await?;
            let mut records = Vec::with_capacity(rows.len());
            for ((handle, expires), row) in named.into_iter().zip(rows) {
                records.extend(listed(handle, row, expires)?.filter(|listed| filter.admits(&listed.owner)));
            }
            let next = match cursor.as_str() {
                "0" => (shard + 1 < shards).then(|| format!("{}:0", shard + 1)),
                cursor => Some(format!("{shard}:{cursor}")),
            };
            Ok(Page { records, next: next.map(Cursor) })
        })
    }

    fn sweep<'a>(&'a self, filter: &'a Filter, until: u64, from: Option<&'a str>) -> Answer<'a, Swept> {
        Box::pin(async move {
            let Page { mut records, next } = self.list(filter, from).await?;
            records.retain(|listed| listed.created <= until);
            let remove = |listed: &Listed| redis::cmd("DEL").arg(self.record(&listed.handle)).clone();
            let was: Vec<bool> = self.together(&records.iter().map(remove).collect::<Vec<_>>()).await?;
            // Only now: as long as a record is there, some list shows it.
            let mut indexes: HashMap<_, Vec<&[u8]>> = HashMap::new();
            for listed in &records {
                for index in self.indexes(&listed.handle, &listed.owner) {
                    indexes.entry(index).or_default().push(listed.handle.bytes());
                }
            }
            let forget = |(index, names): (&Vec<u8>, &Vec<&[u8]>)| redis::cmd("ZREM").arg(index).arg(names).clone();
            let _: Vec<u64> = self.together(&indexes.iter().map(forget).collect::<Vec<_>>()).await?;
            if let Some(last) = records.last().filter(|_| was.contains(&true)) {
                // One for all of them. What another node of a cluster takes back in a fail-over has ended all the same: whoever takes
                // many away has told that.
                self.settle(&self.record(&last.handle)).await;
            }
            let gone = records.iter().zip(was).filter(|(_, was)| *was);
            Ok(Swept { owners: gone.map(|(listed, _)| listed.owner).collect(), next })
        })
    }

    fn time(&self) -> Answer<'_, u64> {
        Box::pin(async move {
            // By a script, so that in a cluster it is one node's whoever asks.
            let key = self.key("told", Topic::Ended.name().as_bytes());
            let (seconds, micros): (u64, u64) = self.run(true, &self.scripts.time, &key, &[]).await?;
            Ok(seconds.saturating_mul(1_000_000).saturating_add(micros))
        })
    }

    fn publish<'a>(&'a self, topic: Topic, message: &'a [u8], keep: Duration) -> Answer<'a, ()> {
        Box::pin(async move {
            let key = self.key("told", topic.name().as_bytes());
            self.run(true, &self.scripts.publish, &key, &[message, &millis(keep)]).await
        })
    }

    fn read<'a>(&'a self, topic: Topic, after: Option<&'a str>, wait: Duration) -> Answer<'a, News> {
        Box::pin(async move {
            let (key, after) = (self.key("told", topic.name().as_bytes()), after.unwrap_or("0-0"));
            // 0 would mean for ever.
            let wait = usize::try_from(wait.min(LONGEST_WAIT).as_millis()).unwrap_or(1).max(1);
            let options = StreamReadOptions::default().block(wait).count(MESSAGES);
            let read = |mut connection: Connection| {
                let (key, options) = (&key, &options);
                async move {
                    let reply: RedisResult<Option<StreamReadReply>> =
                        connection.xread_options(&[key], &[after], options).await;
                    reply
                }
            };
            // Not asked again behind a connection that broke: whoever reads wants to know that something may be missing.
            let reply = self.reader.ask(false, read).await?;
            let mut news = News { messages: Vec::new(), position: Position(after.to_owned()) };
            for entry in reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids) {
                // What somebody else put there must not keep the rest from being heard.
                news.messages.extend(entry.get("m"));
                news.position = Position(entry.id);
            }
            Ok(news)
        })
    }
}
