//! A store in this process: for tests of whatever uses one.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

use super::backend::{Answer, Backend, Claim};
use super::{Cursor, Filter, Handle, Kept, Listed, News, Owner, Page, Position, Put, StoreError, Topic, Version};

const PAGE: usize = 200;

#[derive(Debug, Default)]
pub(super) struct Memory {
    inner: Mutex<Inner>,
    told: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    records: BTreeMap<Handle, Entry>,
    topics: HashMap<Topic, Vec<Message>>,
    last: u64,
}

#[derive(Debug)]
struct Entry {
    bytes: Vec<u8>,
    owner: Owner,
    version: u64,
    fence: u64,
    /// 0: nobody has it.
    leased_until: u64,
    created: u64,
    changed: u64,
    expires: u64,
}

#[derive(Debug)]
struct Message {
    number: u64,
    bytes: Vec<u8>,
    expires: u64,
}

impl Entry {
    fn listed(&self, handle: &Handle) -> Listed {
        Listed {
            handle: *handle,
            owner: self.owner,
            version: Version(self.version),
            created: self.created,
            changed: self.changed,
            expires: self.expires,
        }
    }
}

impl Inner {
    fn live(&mut self, handle: &Handle, now: u64) -> Option<&mut Entry> {
        self.records.get_mut(handle).filter(|entry| entry.expires > now)
    }

    fn held(&mut self, handle: &Handle, version: Version, fence: u64, now: u64) -> Option<&mut Entry> {
        self.live(handle, now).filter(|entry| entry.version == version.0 && entry.fence == fence)
    }
}

impl Memory {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn since(&self, topic: Topic, after: u64, now: u64) -> (Vec<Vec<u8>>, u64) {
        let mut inner = self.inner();
        let messages = inner.topics.entry(topic).or_default();
        messages.retain(|message| message.expires > now);
        let new = messages.iter().filter(|message| message.number > after);
        let last = new.clone().map(|message| message.number).max().unwrap_or(after);
        (new.map(|message| message.bytes.clone()).collect(), last)
    }
}

/// Milliseconds since the Unix epoch.
pub(super) fn now() -> u64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn answer<'a, T: Send + 'a>(value: T) -> Answer<'a, T> {
    Box::pin(std::future::ready(Ok(value)))
}

impl Backend for Memory {
    fn get<'a>(&'a self, handle: &'a Handle) -> Answer<'a, Option<Kept>> {
        let mut inner = self.inner();
        let entry = inner.live(handle, now());
        answer(entry.map(|entry| Kept { bytes: entry.bytes.clone(), version: Version(entry.version) }))
    }

    fn create<'a>(&'a self, handle: &'a Handle, owner: &'a Owner, bytes: &'a [u8], ttl: Duration) -> Answer<'a, Put> {
        let now = now();
        let mut inner = self.inner();
        inner.records.retain(|_, entry| entry.expires > now);
        if let Some(entry) = inner.records.get(handle) {
            let is_same = entry.version == 1 && entry.bytes == bytes;
            return answer(if is_same { Put::Kept(Version(1)) } else { Put::Refused });
        }
        let expires = now.saturating_add(millis(ttl));
        let (bytes, owner) = (bytes.to_vec(), *owner);
        let entry = Entry { bytes, owner, version: 1, fence: 0, leased_until: 0, created: now, changed: now, expires };
        inner.records.insert(*handle, entry);
        answer(Put::Kept(Version(1)))
    }

    fn try_lease<'a>(&'a self, handle: &'a Handle, version: Version, ttl: Duration) -> Answer<'a, Claim> {
        let now = now();
        let mut inner = self.inner();
        let Some(entry) = inner.live(handle, now) else { return answer(Claim::Gone) };
        if entry.version != version.0 {
            return answer(Claim::Newer);
        }
        if entry.leased_until > now {
            return answer(Claim::Busy(Duration::from_millis(entry.leased_until - now)));
        }
        let abandoned = entry.leased_until > 0;
        entry.fence += 1;
        entry.leased_until = now.saturating_add(millis(ttl));
        answer(Claim::Fenced { fence: entry.fence, abandoned })
    }

    fn replace<'a>(&'a self, handle: &'a Handle, version: Version, fence: u64, bytes: &'a [u8]) -> Answer<'a, Put> {
        let now = now();
        let mut inner = self.inner();
        let next = Version(version.0 + 1);
        if inner.held(handle, next, fence, now).is_some_and(|entry| entry.bytes == bytes) {
            return answer(Put::Kept(next));
        }
        let Some(entry) = inner.held(handle, version, fence, now) else { return answer(Put::Refused) };
        entry.bytes = bytes.to_vec();
        entry.version += 1;
        entry.leased_until = 0;
        entry.changed = now;
        answer(Put::Kept(Version(entry.version)))
    }

    fn release<'a>(&'a self, handle: &'a Handle, version: Version, fence: u64) -> Answer<'a, bool> {
        let mut inner = self.inner();
        let entry = inner.held(handle, version, fence, now());
        answer(entry.map(|entry| entry.leased_until = 0).is_some())
    }

    fn delete<'a>(&'a self, handle: &'a Handle) -> Answer<'a, bool> {
        let now = now();
        answer(self.inner().records.remove(handle).is_some_and(|entry| entry.expires > now))
    }

    fn find<'a>(&'a self, handle: &'a Handle) -> Answer<'a, Option<Listed>> {
        let mut inner = self.inner();
        answer(inner.live(handle, now()).map(|entry| entry.listed(handle)))
    }

    fn list<'a>(&'a self, filter: &'a Filter, from: Option<&'a str>) -> Answer<'a, Page> {
        let now = now();
        let skip = from.and_then(|from| from.parse::<usize>().ok()).unwrap_or(0);
        let inner = self.inner();
        let fitting = inner.records.iter().filter(|(_, entry)| entry.expires > now && filter.admits(&entry.owner));
        let records: Vec<_> = fitting.skip(skip).take(PAGE).map(|(handle, entry)| entry.listed(handle)).collect();
        let next = (records.len() == PAGE).then(|| Cursor((skip + PAGE).to_string()));
        answer(Page { records, next })
    }

    fn publish<'a>(&'a self, topic: Topic, message: &'a [u8], keep: Duration) -> Answer<'a, ()> {
        let mut inner = self.inner();
        inner.last += 1;
        let message =
            Message { number: inner.last, bytes: message.to_vec(), expires: now().saturating_add(millis(keep)) };
        inner.topics.entry(topic).or_default().push(message);
        drop(inner);
        self.told.notify_waiters();
        answer(())
    }

    fn read<'a>(&'a self, topic: Topic, after: Option<&'a str>, wait: Duration) -> Answer<'a, News> {
        Box::pin(async move {
            let Ok(after) = after.unwrap_or("0").parse() else { return Err(StoreError::Corrupt("a position")) };
            let deadline = tokio::time::Instant::now() + wait;
            loop {
                let mut told = std::pin::pin!(self.told.notified());
                told.as_mut().enable();
                let (messages, last) = self.since(topic, after, now());
                let is_late = messages.is_empty() && tokio::time::timeout_at(deadline, told).await.is_err();
                if is_late || !messages.is_empty() {
                    return Ok(News { messages, position: Position(last.to_string()) });
                }
            }
        })
    }
}
