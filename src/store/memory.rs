//! A store in this process: for tests of whatever uses one.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

use super::backend::{Answer, Backend, Claim, Steps};
use super::steps::{Brought, Step, Stepped};
use super::{
    Bid, Cursor, Filter, Handle, Kept, Listed, News, Owner, Page, Position, Put, StoreError, Swept, Topic, Version,
};

const PAGE: usize = 200;

#[derive(Debug, Default)]
pub(super) struct Memory {
    inner: Mutex<Inner>,
    told: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    records: BTreeMap<Handle, Entry>,
    series: HashMap<Handle, Mark>,
    topics: HashMap<Topic, Vec<Message>>,
    last: u64,
}

#[derive(Debug)]
struct Entry {
    bytes: Vec<u8>,
    owner: Owner,
    version: u64,
    /// Whose the last lease was; 0: nobody's.
    bid: u64,
    /// 0: nobody has it.
    leased_until: u64,
    abandoned: bool,
    created: u64,
    changed: u64,
    expires: u64,
}

/// Of a series of steps.
#[derive(Debug)]
struct Mark {
    number: u64,
    bid: u64,
    state: State,
    /// By which step, what, and until when.
    brought: Option<(u64, Vec<u8>, u64)>,
    expires: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    LeasedUntil(u64),
    Over,
    Lost,
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

    fn held(&mut self, handle: &Handle, version: Version, bid: Bid, now: u64) -> Option<&mut Entry> {
        self.live(handle, now).filter(|entry| entry.version == version.0 && entry.bid == bid.0)
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
        let (created, changed) = (now, now);
        let entry =
            Entry { bytes, owner, version: 1, bid: 0, leased_until: 0, abandoned: false, created, changed, expires };
        inner.records.insert(*handle, entry);
        answer(Put::Kept(Version(1)))
    }

    fn try_lease<'a>(&'a self, handle: &'a Handle, version: Version, bid: Bid, ttl: Duration) -> Answer<'a, Claim> {
        let now = now();
        let mut inner = self.inner();
        let Some(entry) = inner.live(handle, now) else { return answer(Claim::Gone) };
        if entry.version != version.0 {
            return answer(Claim::Newer);
        }
        if entry.leased_until == 0 || entry.bid != bid.0 {
            if entry.leased_until > now {
                return answer(Claim::Busy(Duration::from_millis(entry.leased_until - now)));
            }
            (entry.bid, entry.abandoned) = (bid.0, entry.leased_until > 0);
        }
        entry.leased_until = now.saturating_add(millis(ttl));
        answer(Claim::Ours { abandoned: entry.abandoned })
    }

    fn replace<'a>(&'a self, handle: &'a Handle, version: Version, bid: Bid, bytes: &'a [u8]) -> Answer<'a, Put> {
        let now = now();
        let mut inner = self.inner();
        let next = Version(version.0 + 1);
        if inner.held(handle, next, bid, now).is_some_and(|entry| entry.bytes == bytes) {
            return answer(Put::Kept(next));
        }
        let Some(entry) = inner.held(handle, version, bid, now) else { return answer(Put::Refused) };
        entry.bytes = bytes.to_vec();
        entry.version += 1;
        entry.leased_until = 0;
        entry.changed = now;
        answer(Put::Kept(Version(entry.version)))
    }

    fn release<'a>(&'a self, handle: &'a Handle, version: Version, bid: Bid) -> Answer<'a, bool> {
        let mut inner = self.inner();
        let entry = inner.held(handle, version, bid, now());
        // That the one before was abandoned is true for the next one too: as if this one had ended long ago.
        answer(entry.map(|entry| entry.leased_until = u64::from(entry.abandoned)).is_some())
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
        let last = from.and_then(|from| u128::from_str_radix(from, 16).ok()).map(|last| Handle(last.to_be_bytes()));
        let inner = self.inner();
        let rest = inner.records.range((last.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded));
        let fitting = rest.filter(|(_, entry)| entry.expires > now && filter.admits(&entry.owner));
        let records: Vec<_> = fitting.take(PAGE).map(|(handle, entry)| entry.listed(handle)).collect();
        let last = records.last().filter(|_| records.len() == PAGE);
        let next = last.map(|last| Cursor(format!("{:032x}", u128::from_be_bytes(*last.handle.bytes()))));
        answer(Page { records, next })
    }

    fn sweep<'a>(&'a self, filter: &'a Filter, until: u64, from: Option<&'a str>) -> Answer<'a, Swept> {
        let now = now();
        let last = from.and_then(|from| u128::from_str_radix(from, 16).ok()).map(|last| Handle(last.to_be_bytes()));
        let mut inner = self.inner();
        let rest = inner.records.range((last.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded));
        let is_meant = |entry: &Entry| entry.expires > now && entry.created <= until && filter.admits(&entry.owner);
        let fitting = rest.filter(|(_, entry)| is_meant(entry));
        let handles: Vec<_> = fitting.take(PAGE).map(|(handle, _)| *handle).collect();
        let gone = handles.iter().filter_map(|handle| inner.records.remove(handle));
        let owners = gone.map(|entry| entry.owner).collect();
        let last = handles.last().filter(|_| handles.len() == PAGE);
        let next = last.map(|last| Cursor(format!("{:032x}", u128::from_be_bytes(*last.bytes()))));
        answer(Swept { owners, next })
    }

    fn time(&self) -> Answer<'_, u64> {
        answer(now().saturating_mul(1000))
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

impl Steps for Memory {
    fn take_step<'a>(&'a self, step: &'a Step, lease: Duration, keep: Duration) -> Answer<'a, Stepped> {
        let now = now();
        let mut inner = self.inner();
        inner.series.retain(|_, mark| mark.expires > now);
        let mark = inner.series.entry(step.series).or_insert_with(|| Mark::before(step));
        let is_own = mark.bid == step.bid.0 && matches!(mark.state, State::LeasedUntil(_));
        if mark.number > step.number || (mark.number == step.number && !is_own) {
            let brought = mark.brought.as_ref().filter(|(by, _, until)| *by >= step.number && *until > now);
            return answer(match mark.state {
                State::LeasedUntil(until) if mark.number == step.number && until > now => {
                    Stepped::Busy(Duration::from_millis(until - now))
                }
                State::LeasedUntil(_) | State::Lost if mark.number == step.number => Stepped::Lost,
                _ => Stepped::Over(brought.map(|(_, bytes, until)| Brought {
                    bytes: bytes.clone(),
                    left: Duration::from_millis(until - now),
                })),
            });
        }
        (mark.number, mark.bid) = (step.number, step.bid.0);
        mark.state = State::LeasedUntil(now.saturating_add(millis(lease)));
        mark.expires = mark.expires.max(now.saturating_add(millis(keep)));
        answer(Stepped::Ours(*step))
    }

    fn finish_step<'a>(
        &'a self,
        step: &'a Step,
        brought: Option<(&'a [u8], Duration)>,
        keep: Duration,
    ) -> Answer<'a, bool> {
        let now = now();
        let mut inner = self.inner();
        let mark = inner.series.entry(step.series).or_insert_with(|| Mark::before(step));
        if mark.number > step.number || (mark.number == step.number && mark.bid != step.bid.0) {
            return answer(false);
        }
        (mark.number, mark.bid) = (step.number, step.bid.0);
        mark.state = if brought.is_some() { State::Over } else { State::Lost };
        mark.expires = mark.expires.max(now.saturating_add(millis(keep)));
        if let Some((bytes, life)) = brought {
            mark.brought = Some((step.number, bytes.to_vec(), now.saturating_add(millis(life))));
        }
        answer(true)
    }

    fn release_step<'a>(&'a self, step: &'a Step) -> Answer<'a, bool> {
        let mut inner = self.inner();
        let is_own = |mark: &&mut Mark| mark.number == step.number && mark.bid == step.bid.0;
        let mark = inner.series.get_mut(&step.series).filter(is_own);
        answer(mark.map(|mark| (mark.number, mark.state) = (step.number.saturating_sub(1), State::Over)).is_some())
    }

    fn shorten_step<'a>(&'a self, series: &'a Handle, number: u64, life: Duration) -> Answer<'a, ()> {
        let end = now().saturating_add(millis(life));
        let mut inner = self.inner();
        let brought = inner.series.get_mut(series).and_then(|mark| mark.brought.as_mut());
        if let Some((_, _, until)) = brought.filter(|(by, ..)| *by == number) {
            *until = end.min(*until);
        }
        answer(())
    }
}

impl Mark {
    fn before(step: &Step) -> Self {
        Self { number: step.number.saturating_sub(1), bid: 0, state: State::Over, brought: None, expires: 0 }
    }
}
