//! What every kind of store does; [`super::Store`] bounds it.

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::steps::{Step, Stepped};
use super::{Bid, Filter, Handle, Kept, Listed, News, Owner, Page, Put, StoreError, Swept, Topic, Version};

/// The answer to one call.
pub(super) type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// What came of asking for a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    Ours { abandoned: bool },
    Busy(Duration),
    Newer,
    Gone,
}

/// What may be done once; see [`super::steps`].
pub(super) trait Steps {
    fn take_step<'a>(&'a self, step: &'a Step, lease: Duration, keep: Duration) -> Answer<'a, Stepped>;

    fn finish_step<'a>(
        &'a self,
        step: &'a Step,
        brought: Option<(&'a [u8], Duration)>,
        keep: Duration,
    ) -> Answer<'a, bool>;

    fn release_step<'a>(&'a self, step: &'a Step) -> Answer<'a, bool>;

    fn shorten_step<'a>(&'a self, series: &'a Handle, number: u64, life: Duration) -> Answer<'a, ()>;
}

/// One kind of store. Each call is one step: all of it happens, or none.
pub(super) trait Backend: Steps + fmt::Debug + Send + Sync + 'static {
    fn get<'a>(&'a self, handle: &'a Handle) -> Answer<'a, Option<Kept>>;

    fn create<'a>(&'a self, handle: &'a Handle, owner: &'a Owner, bytes: &'a [u8], ttl: Duration) -> Answer<'a, Put>;

    fn try_lease<'a>(&'a self, handle: &'a Handle, version: Version, bid: Bid, ttl: Duration) -> Answer<'a, Claim>;

    fn replace<'a>(&'a self, handle: &'a Handle, version: Version, bid: Bid, bytes: &'a [u8]) -> Answer<'a, Put>;

    fn release<'a>(&'a self, handle: &'a Handle, version: Version, bid: Bid) -> Answer<'a, bool>;

    fn delete<'a>(&'a self, handle: &'a Handle) -> Answer<'a, bool>;

    fn find<'a>(&'a self, handle: &'a Handle) -> Answer<'a, Option<Listed>>;

    fn list<'a>(&'a self, filter: &'a Filter, from: Option<&'a str>) -> Answer<'a, Page>;

    /// Some hundred records at a time, so that each call is short; one step for each of them.
    fn sweep<'a>(&'a self, filter: &'a Filter, until: u64, from: Option<&'a str>) -> Answer<'a, Swept>;

    fn time(&self) -> Answer<'_, u64>;

    fn publish<'a>(&'a self, topic: Topic, message: &'a [u8], keep: Duration) -> Answer<'a, ()>;

    fn read<'a>(&'a self, topic: Topic, after: Option<&'a str>, wait: Duration) -> Answer<'a, News>;
}
