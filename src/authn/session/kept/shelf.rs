//! Where kept posts lie: sealed, for a while, and never more of them than there is room for. Room is taken before a byte of a
//! body is read, so that those on their way count too.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf as _, BufMut as _, Bytes};

use super::{PostId, Settings};
use crate::authn::session::marks::NameDigest;
use crate::authn::session::seal::KeyId;
use crate::clock::UnixTime;

/// What a post takes beside its body, in bytes: its address, its type, the seal.
pub const HEAD: usize = 5 * 1024;
/// The most that one person has at a time: a form in each of several tabs.
const PER_PERSON: u32 = 8;

/// Why a post is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotKept {
    /// Larger than `session.keep_posts`.
    #[error("the form is larger than what is kept of one")]
    TooLarge,
    /// All of `session.keep_posts_total` is taken.
    #[error("there is no room for more forms")]
    Full,
    /// This person has too many already.
    #[error("there are too many forms of one person")]
    TooMany,
    /// The session store takes nothing.
    #[error("the session store is away")]
    Away,
}

impl NotKept {
    /// The constant reason code for the log.
    pub fn code(self) -> &'static str {
        match self {
            Self::TooLarge => "post_too_large",
            Self::Full => "posts_full",
            Self::TooMany => "posts_too_many",
            Self::Away => "session_store_away",
        }
    }
}

/// What is taken.
#[derive(Debug, Default)]
struct Ledger {
    bytes: usize,
    of: HashMap<NameDigest, u32>,
}

/// Room for one post, free again when this is dropped.
#[derive(Debug)]
pub struct Room {
    ledger: Arc<Mutex<Ledger>>,
    person: NameDigest,
    bytes: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut ledger = held(&self.ledger);
        ledger.bytes = ledger.bytes.saturating_sub(self.bytes);
        if let Some(count) = ledger.of.get_mut(&self.person) {
            *count -= 1;
            if *count == 0 {
                ledger.of.remove(&self.person);
            }
        }
    }
}

/// A post as nobody can read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) key: KeyId,
    pub(super) head: Bytes,
    pub(super) body: Bytes,
}

impl Sealed {
    /// As a store has it.
    pub(super) fn packed(&self) -> Vec<u8> {
        let mut packed = self.key.to_vec();
        // A head is bounded by what a request may be.
        packed.put_u32(u32::try_from(self.head.len()).unwrap_or(u32::MAX));
        packed.extend_from_slice(&self.head);
        packed.extend_from_slice(&self.body);
        packed
    }

    /// Of what a store has.
    pub(super) fn unpack(mut packed: Bytes) -> Option<Self> {
        let mut key = KeyId::default();
        packed.try_copy_to_slice(&mut key).ok()?;
        let length = usize::try_from(packed.try_get_u32().ok()?).ok()?;
        let head = (length <= packed.len()).then(|| packed.split_to(length))?;
        Some(Self { key, head, body: packed })
    }
}

/// One of them.
#[derive(Debug)]
pub(super) struct Lying {
    /// `None`: it lies in the store, and this is only its room.
    sealed: Option<Sealed>,
    until: UnixTime,
    _room: Room,
}

#[derive(Debug)]
pub(super) struct Shelf {
    settings: Settings,
    ledger: Arc<Mutex<Ledger>>,
    posts: Mutex<HashMap<PostId, Lying>>,
}

impl Shelf {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, ledger: Arc::default(), posts: Mutex::default() }
    }

    pub(super) fn room(&self, person: NameDigest, length: u64, now: UnixTime) -> Result<Room, NotKept> {
        let length = usize::try_from(length).ok().filter(|length| *length <= self.settings.largest);
        let bytes = length.ok_or(NotKept::TooLarge)? + HEAD;
        // Those whose time is over make room first.
        drop(self.posts(now));
        let mut ledger = held(&self.ledger);
        if ledger.of.get(&person).is_some_and(|count| *count >= PER_PERSON) {
            return Err(NotKept::TooMany);
        }
        if bytes > self.settings.total.saturating_sub(ledger.bytes) {
            return Err(NotKept::Full);
        }
        ledger.bytes += bytes;
        *ledger.of.entry(person).or_default() += 1;
        Ok(Room { ledger: Arc::clone(&self.ledger), person, bytes })
    }

    pub(super) fn put(&self, id: PostId, room: Room, sealed: Option<Sealed>, until: UnixTime) {
        self.put_back(id, Lying { sealed, until, _room: room });
    }

    pub(super) fn get(&self, id: PostId, now: UnixTime) -> Option<Sealed> {
        self.posts(now).get(&id).and_then(|lying| lying.sealed.clone())
    }

    pub(super) fn remove(&self, id: PostId, now: UnixTime) -> Option<Lying> {
        self.posts(now).remove(&id)
    }

    pub(super) fn put_back(&self, id: PostId, lying: Lying) {
        held(&self.posts).insert(id, lying);
    }

    /// All whose time is not over.
    fn posts(&self, now: UnixTime) -> MutexGuard<'_, HashMap<PostId, Lying>> {
        let mut posts = held(&self.posts);
        posts.retain(|_, lying| now < lying.until);
        posts
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each is whole at any time.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::authn::session::marks::Marks;

    const NOW: UnixTime = UnixTime(1_000);

    fn shelf(largest: usize, total: usize) -> Shelf {
        Shelf::new(Settings { largest, total, life: Duration::from_secs(60) })
    }

    fn person(number: u8) -> NameDigest {
        Marks::for_test(number).subject
    }

    fn sealed() -> Sealed {
        Sealed { key: [7; 4], head: Bytes::from_static(&[1, 2, 3]), body: Bytes::from_static(&[4, 5]) }
    }

    #[test]
    fn a_store_gives_back_what_it_was_given() {
        let packed = sealed().packed();
        assert_eq!(Sealed::unpack(packed.clone().into()), Some(sealed()));
        for cut in 0..packed.len() - 2 {
            assert_eq!(Sealed::unpack(packed[..cut].to_vec().into()), None, "{cut}");
        }
    }

    fn put(shelf: &Shelf, room: Room) -> PostId {
        let id = PostId(crate::random::random());
        shelf.put(id, room, Some(sealed()), NOW.after(Duration::from_secs(60)));
        id
    }

    #[test]
    fn there_is_room_for_so_many_bytes_and_those_on_their_way_count() {
        let shelf = shelf(1_000, 2 * (HEAD + 1_000));
        assert_eq!(shelf.room(person(1), 1_001, NOW).unwrap_err(), NotKept::TooLarge);
        assert_eq!(shelf.room(person(1), u64::MAX, NOW).unwrap_err(), NotKept::TooLarge);
        let first = shelf.room(person(1), 1_000, NOW).unwrap();
        let second = shelf.room(person(2), 1_000, NOW).unwrap();
        assert_eq!(shelf.room(person(3), 0, NOW).unwrap_err(), NotKept::Full);
        drop(first);
        let third = shelf.room(person(3), 0, NOW).unwrap();
        let id = put(&shelf, third);
        assert_eq!(shelf.room(person(1), 1_000, NOW).unwrap_err(), NotKept::Full);
        assert!(shelf.remove(id, NOW).is_some() && shelf.remove(id, NOW).is_none());
        drop((second, shelf.room(person(1), 1_000, NOW).unwrap()));
        assert_eq!(held(&shelf.ledger).bytes, 0);
        assert!(held(&shelf.ledger).of.is_empty());
    }

    #[test]
    fn one_person_cannot_take_all_the_room() {
        let shelf = shelf(1_000, 1 << 20);
        let ids: Vec<_> = (0..PER_PERSON).map(|_| put(&shelf, shelf.room(person(1), 1, NOW).unwrap())).collect();
        assert_eq!(shelf.room(person(1), 1, NOW).unwrap_err(), NotKept::TooMany);
        assert!(shelf.room(person(2), 1, NOW).is_ok());
        let taken = shelf.remove(ids[0], NOW).unwrap();
        assert_eq!(shelf.room(person(1), 1, NOW).unwrap_err(), NotKept::TooMany, "it may come back");
        shelf.put_back(ids[0], taken);
        assert!(shelf.remove(ids[0], NOW).is_some());
        assert!(shelf.room(person(1), 1, NOW).is_ok());
    }

    #[test]
    fn what_is_kept_too_long_is_gone_and_its_room_is_free() {
        let shelf = shelf(1_000, HEAD + 1_000);
        let id = put(&shelf, shelf.room(person(1), 1_000, NOW).unwrap());
        let last = NOW.after(Duration::from_secs(59));
        assert_eq!(shelf.get(id, last), Some(sealed()));
        assert_eq!(shelf.room(person(1), 0, last).unwrap_err(), NotKept::Full);
        let over = NOW.after(Duration::from_secs(60));
        assert_eq!(shelf.get(id, over), None);
        assert!(shelf.room(person(1), 1_000, over).is_ok());
    }
}
