//! A map that is read on every signed-in request and hardly ever written: reading takes no lock and writes nothing that
//! cores share.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwapOption;

use crate::random::unforeseeable;

/// Each is copied when it is written to, so many keep that cheap. A power of two.
const SHARDS: usize = 1024;

/// What names an entry: random, or a digest.
pub(super) type Key = [u8; 16];

type Shard<K, V> = HashMap<K, V>;

/// The map. Whoever writes takes turns with all others who do: the counting wants that.
#[derive(Debug)]
pub(super) struct Table<V, K = Key> {
    count: AtomicUsize,
    shards: Box<[ArcSwapOption<Shard<K, V>>]>,
    /// Odd, and known to nobody.
    factor: u64,
}

impl<V: Clone, K: Copy + Eq + Hash + AsRef<[u8]>> Table<V, K> {
    pub(super) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| ArcSwapOption::empty()).collect();
        Self { count: AtomicUsize::new(0), shards, factor: unforeseeable() | 1 }
    }

    /// The shard of a key. Multiply-shift (Dietzfelbinger and others, 1997) by what nobody knows: whoever makes up names, and
    /// sees to it that their digests begin alike, fills no shard with them.
    fn place(&self, key: &K) -> usize {
        let head = key.as_ref().first_chunk().map_or(0, |head| u64::from_le_bytes(*head));
        (head.wrapping_mul(self.factor) >> (u64::BITS - SHARDS.trailing_zeros())) as usize
    }

    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Whether `key` has an entry that `is_it` says yes to.
    pub(super) fn any(&self, key: &K, is_it: impl FnOnce(&V) -> bool) -> bool {
        self.len() > 0
            && self.shards[self.place(key)].load().as_ref().and_then(|shard| shard.get(key)).is_some_and(is_it)
    }

    /// Puts what `change` makes of the entry; drops what `keep` says no to from the same shard.
    pub(super) fn put(&self, key: K, keep: impl Fn(&V) -> bool, change: impl FnOnce(Option<V>) -> V) {
        let at = self.place(&key);
        let old = self.shards[at].load_full();
        let mut shard = old.as_deref().cloned().unwrap_or_default();
        shard.retain(|_, value| keep(value));
        let value = change(shard.remove(&key));
        shard.insert(key, value);
        self.store(at, old.as_deref(), shard);
    }

    /// Puts many at once into a map that is empty; `merge` makes one of two under the same key.
    pub(super) fn fill(&self, entries: impl IntoIterator<Item = (K, V)>, merge: impl Fn(V, V) -> V) {
        let mut shards: Vec<Shard<K, V>> = (0..SHARDS).map(|_| Shard::new()).collect();
        for (key, value) in entries {
            let shard = &mut shards[self.place(&key)];
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
    pub(super) fn for_each(&self, mut see: impl FnMut(&K, &V)) {
        for shard in &self.shards {
            if let Some(shard) = &*shard.load() {
                shard.iter().for_each(|(key, value)| see(key, value));
            }
        }
    }

    /// What is new is there before it is counted, and counted before whoever put it is told.
    fn store(&self, at: usize, old: Option<&Shard<K, V>>, shard: Shard<K, V>) {
        let (before, after) = (old.map_or(0, HashMap::len), shard.len());
        self.shards[at].store((after > 0).then(|| shard.into()));
        self.count.fetch_add(after, Ordering::AcqRel);
        self.count.fetch_sub(before, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::hash::Hasher;

    use super::*;
    use crate::random::random;

    thread_local! {
        static COMPARED: Cell<usize> = const { Cell::new(0) };
    }

    /// A key that counts how often it is compared with another.
    #[derive(Clone, Copy, Eq)]
    struct Counted(Key);

    impl PartialEq for Counted {
        fn eq(&self, other: &Self) -> bool {
            COMPARED.set(COMPARED.get() + 1);
            self.0 == other.0
        }
    }

    impl Hash for Counted {
        fn hash<H: Hasher>(&self, state: &mut H) {
            self.0.hash(state);
        }
    }

    impl AsRef<[u8]> for Counted {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    fn fresh() -> Counted {
        Counted(random())
    }

    /// How many keys a look-up compares on average, of one that is there, and of one that is not.
    fn compared(entries: usize) -> [f64; 2] {
        const LOOKED_UP: usize = 2_000;
        let table = Table::new();
        let keys: Vec<_> = (0..entries).map(|_| fresh()).collect();
        table.fill(keys.iter().map(|key| (*key, ())), |(), ()| ());
        let others: Vec<_> = (0..LOOKED_UP).map(|_| fresh()).collect();
        [keys, others].map(|keys| {
            COMPARED.set(0);
            let found = keys.iter().cycle().take(LOOKED_UP).filter(|key| table.any(key, |()| true)).count();
            assert!(found == LOOKED_UP || found == 0, "{found}");
            f64::from(u32::try_from(COMPARED.get()).unwrap()) / f64::from(u32::try_from(LOOKED_UP).unwrap())
        })
    }

    #[test]
    fn a_look_up_among_a_hundred_thousand_compares_no_more_keys_than_among_ten() {
        for entries in [10, 1_000, 100_000] {
            let [there, not_there] = compared(entries);
            // One that is there once; of the others those few whose hashes are alike in seven bits.
            assert!((1.0..1.5).contains(&there), "{entries}: {there}");
            assert!(not_there < 0.5, "{entries}: {not_there}");
        }
    }

    #[test]
    fn keys_that_begin_alike_are_spread_over_the_shards() {
        let table = Table::new();
        let mut alike = Vec::new();
        for _ in 0..10_000 {
            let mut key: Key = random();
            // More than anybody finds so many of.
            key[..5].copy_from_slice(b"alike");
            alike.push((key, ()));
        }
        table.fill(alike, |(), ()| ());
        let most = table.shards.iter().filter_map(|shard| shard.load().as_ref().map(|shard| shard.len())).max();
        assert!(most.is_some_and(|most| most < 200), "{most:?}");
    }
}
