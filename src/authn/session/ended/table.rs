//! A map that is read on every signed-in request and hardly ever written: reading takes no lock and writes nothing that
//! cores share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwapOption;

/// Each is copied when it is written to, so many keep that cheap.
const SHARDS: usize = 1024;

/// What names an entry: random, or a digest.
pub(super) type Key = [u8; 16];

type Shard<V> = HashMap<Key, V>;

/// The map. Whoever writes takes turns with all others who do: the counting wants that.
#[derive(Debug)]
pub(super) struct Table<V> {
    count: AtomicUsize,
    shards: Box<[ArcSwapOption<Shard<V>>]>,
}

impl<V: Clone> Table<V> {
    pub(super) fn new() -> Self {
        Self { count: AtomicUsize::new(0), shards: (0..SHARDS).map(|_| ArcSwapOption::empty()).collect() }
    }

    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Whether `key` has an entry that `is_it` says yes to.
    pub(super) fn any(&self, key: &Key, is_it: impl FnOnce(&V) -> bool) -> bool {
        self.len() > 0 && self.shards[place(key)].load().as_ref().and_then(|shard| shard.get(key)).is_some_and(is_it)
    }

    /// Puts what `change` makes of the entry; drops what `keep` says no to from the same shard.
    pub(super) fn put(&self, key: Key, keep: impl Fn(&V) -> bool, change: impl FnOnce(Option<V>) -> V) {
        let at = place(&key);
        let old = self.shards[at].load_full();
        let mut shard = old.as_deref().cloned().unwrap_or_default();
        shard.retain(|_, value| keep(value));
        let value = change(shard.remove(&key));
        shard.insert(key, value);
        self.store(at, old.as_deref(), shard);
    }

    /// Puts many at once into a map that is empty; `merge` makes one of two under the same key.
    pub(super) fn fill(&self, entries: impl IntoIterator<Item = (Key, V)>, merge: impl Fn(V, V) -> V) {
        let mut shards: Vec<Shard<V>> = (0..SHARDS).map(|_| Shard::new()).collect();
        for (key, value) in entries {
            let shard = &mut shards[place(&key)];
            let value = match shard.remove(&key) {
                Some(old) => merge(old, value),
                None => value,
            };
            shard.insert(key, value);
        }
        for (at, shard) in shards.into_iter().enumerate() {
            self.store(at, None, shard);
        }
    }

    /// Drops what `keep` says no to from one shard in turn (`at` may be any number) or from all.
    pub(super) fn retain(&self, at: Option<usize>, keep: impl Fn(&V) -> bool) {
        let places = at.map_or(0..SHARDS, |at| at % SHARDS..at % SHARDS + 1);
        for at in places {
            let Some(old) = self.shards[at].load_full() else { continue };
            if !old.values().all(&keep) {
                let mut shard = Shard::clone(&old);
                shard.retain(|_, value| keep(value));
                self.store(at, Some(&old), shard);
            }
        }
    }

    /// Everything in it, a shard at a time.
    pub(super) fn for_each(&self, mut see: impl FnMut(&Key, &V)) {
        for shard in &self.shards {
            if let Some(shard) = &*shard.load() {
                shard.iter().for_each(|(key, value)| see(key, value));
            }
        }
    }

    /// What is new is there before it is counted, and counted before whoever put it is told.
    fn store(&self, at: usize, old: Option<&Shard<V>>, shard: Shard<V>) {
        let (before, after) = (old.map_or(0, HashMap::len), shard.len());
        self.shards[at].store((after > 0).then(|| shard.into()));
        self.count.fetch_add(after, Ordering::AcqRel);
        self.count.fetch_sub(before, Ordering::AcqRel);
    }
}

fn place(key: &Key) -> usize {
    usize::from(u16::from_le_bytes([key[0], key[1]])) % SHARDS
}
