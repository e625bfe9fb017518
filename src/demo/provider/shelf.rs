//! A place for things that expire: bounded, the oldest make room.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::UnixTime;

/// The most things kept.
const PLACES: usize = 512;

/// Values by random key, all with the same lifetime.
#[derive(Debug)]
pub(super) struct Shelf<V> {
    lifetime: Duration,
    /// In the order of their expiry.
    items: VecDeque<(String, UnixTime, V)>,
}

impl<V> Shelf<V> {
    pub(super) fn new(lifetime: Duration) -> Self {
        Self { lifetime, items: VecDeque::new() }
    }

    pub(super) fn put(&mut self, key: String, value: V, now: UnixTime) {
        self.sweep(now);
        if self.items.len() >= PLACES {
            self.items.pop_front();
        }
        self.items.push_back((key, now.after(self.lifetime), value));
    }

    pub(super) fn get(&mut self, key: &str, now: UnixTime) -> Option<&mut V> {
        self.sweep(now);
        self.items.iter_mut().find(|(held, ..)| held == key).map(|(.., value)| value)
    }

    pub(super) fn remove_where(&mut self, mut unwanted: impl FnMut(&str, &V) -> bool) {
        self.items.retain(|(key, _, value)| !unwanted(key, value));
    }

    fn sweep(&mut self, now: UnixTime) {
        while self.items.front().is_some_and(|(_, expires, _)| *expires <= now) {
            self.items.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_expire_and_the_oldest_make_room() {
        let mut shelf = Shelf::new(Duration::from_secs(60));
        for index in 0..=PLACES {
            shelf.put(index.to_string(), index, UnixTime(100));
        }
        assert_eq!(shelf.get("0", UnixTime(100)), None);
        assert_eq!(shelf.get("1", UnixTime(159)), Some(&mut 1));
        assert_eq!(shelf.get("1", UnixTime(160)), None);
    }
}
