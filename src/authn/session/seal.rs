//! Sealing: AES-256-GCM-SIV (RFC 8452) under a key ring, so that a repeated random nonce costs no more than the knowledge
//! that two texts were equal. The first secret seals, all open.
//!
//! A sealed text is `version (1) ‖ key id (4) ‖ nonce (12) ‖ ciphertext ‖ tag (16)` in base64url without padding. The key
//! id stands in clear, so that opening is one attempt and never a trial of all keys. The associated data is
//! length-delimited: format version, key id, purpose, cookie name, public origin; one text can therefore never stand for
//! another, nor for another application's.

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::Simd;
use base64::engine::general_purpose::{NO_PAD, URL_SAFE_NO_PAD};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::message::Origin;
use crate::random::random;
use crate::secret::SecretString;

/// Raised whenever an older record would be misread. 2: what a session can be ended by, and how somebody proved who they are.
/// 3: names of sessions and subjects are told apart by issuer, and when a session is renewed. 4: when its claims are.
const FORMAT: u8 = 4;
const KEY_ID_LEN: usize = 4;
const TAG_LEN: usize = 16;
const HEAD_LEN: usize = 1 + KEY_ID_LEN + NONCE_LEN;
/// Records are padded to a multiple of this, so that their length tells little about what is in them.
const BLOCK: usize = 64;
/// The longest text that is opened on the stack, in bytes.
const SMALL: usize = 256;
const MASTER_SALT: &[u8] = b"vestibule key ring 1";

/// A prefix of a hash of the key, in clear in each sealed text.
pub type KeyId = [u8; KEY_ID_LEN];

/// What a sealed text is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The session.
    Session,
    /// What says which record of a store is the session, and opens it.
    Ticket,
    /// A renewed session, on its way from replica to replica: no cookie.
    Renewed,
    /// The time of the last request.
    Idle,
    /// The `state` of an authorization request.
    Login,
    /// The `state` of a sign-out.
    Logout,
    /// A device code for an API client.
    DeviceCode,
    /// A refresh token for an API client.
    RefreshToken,
    /// What an application demands of a sign-in.
    Demand,
    /// The address of a request object.
    Request,
}

impl Purpose {
    fn label(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Ticket => "ticket",
            Self::Renewed => "renewed session",
            Self::Idle => "idle",
            Self::Login => "login state",
            Self::Logout => "logout state",
            Self::DeviceCode => "device code",
            Self::RefreshToken => "refresh token of an API client, with its sign-in",
            Self::Demand => "demand",
            Self::Request => "request object",
        }
    }
}

/// The keys derived from `session.secrets`. Never empty. Clones are the same ring, and so are its sealers: where the secrets
/// are replaced, all of them go on with the new ones.
#[derive(Clone)]
pub struct KeyRing(Arc<Ring>);

struct Ring {
    masters: ArcSwap<Vec<Master>>,
    sealers: Mutex<Vec<Derived>>,
    /// Counts the replacements.
    epoch: Arc<AtomicU64>,
}

/// What one sealer is for, and its keys, as long as there is the sealer.
struct Derived {
    purpose: Purpose,
    name: String,
    origin: Origin,
    keys: Weak<ArcSwap<Vec<SealKey>>>,
}

struct Master {
    id: KeyId,
    prk: Prk,
    /// For values derived rather than sealed: nonce and PKCE verifier.
    derive: hmac::Key,
}

/// Why a text does not open. To a stranger all of these are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Not base64url, too short, or another format version.
    #[error("the sealed text is malformed")]
    Malformed,
    /// Sealed under a key that is not in the ring (any more).
    #[error("the sealed text's key is not in the ring")]
    UnknownKey,
    /// Altered, or sealed for something else.
    #[error("the sealed text does not authenticate")]
    Forged,
    /// Authentic, but of a shape this version does not read.
    #[error("the sealed record is of another version")]
    Record,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyRing [secret]")
    }
}

impl KeyRing {
    /// Derives the keys (HKDF-SHA256, RFC 5869). The secrets' strength is the configuration's concern.
    pub fn new(secrets: &[SecretString]) -> Self {
        let masters = ArcSwap::from_pointee(secrets.iter().map(Master::of).collect());
        Self(Arc::new(Ring { masters, sealers: Mutex::default(), epoch: Arc::default() }))
    }

    /// Goes on with other secrets: what is sealed from now on is sealed with the first of these, and what was sealed with one
    /// that is not among them opens no more. An empty list changes nothing.
    pub fn replace(&self, secrets: &[SecretString]) {
        if secrets.is_empty() {
            return;
        }
        let masters: Vec<_> = secrets.iter().map(Master::of).collect();
        let mut sealers = self.0.sealers.lock().unwrap_or_else(PoisonError::into_inner);
        sealers.retain(|sealer| match sealer.keys.upgrade() {
            Some(keys) => {
                keys.store(Arc::new(seal_keys(&masters, sealer.purpose, &sealer.name, &sealer.origin)));
                true
            }
            None => false,
        });
        // Last: whoever derives with a key can seal with it.
        self.0.masters.store(Arc::new(masters));
        self.0.epoch.fetch_add(1, Ordering::Release);
    }

    /// A sealer for one purpose, cookie name and public origin.
    pub fn sealer<T>(&self, purpose: Purpose, name: &str, origin: &Origin) -> Sealer<T> {
        let mut sealers = self.0.sealers.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = Arc::new(ArcSwap::from_pointee(seal_keys(&self.0.masters.load(), purpose, name, origin)));
        sealers.push(Derived { purpose, name: name.to_owned(), origin: origin.clone(), keys: Arc::downgrade(&keys) });
        let epoch = Arc::clone(&self.0.epoch);
        Sealer { keys, epoch, decoder: Simd::url_safe(NO_PAD), record: PhantomData }
    }

    /// The id of the key that seals.
    pub fn current(&self) -> KeyId {
        self.0.masters.load().first().map_or_else(KeyId::default, |master| master.id)
    }

    /// A value that anyone with the ring can derive again: HMAC-SHA256 over the length-delimited `parts`, base64url (43
    /// characters). `None` when `key` is not in the ring.
    pub fn derive(&self, key: KeyId, parts: &[&[u8]]) -> Option<String> {
        Some(URL_SAFE_NO_PAD.encode(self.tag(key, parts)?))
    }

    /// The same as a key.
    pub(super) fn derive_key(&self, key: KeyId, parts: &[&[u8]]) -> Option<[u8; 32]> {
        self.tag(key, parts)?.as_ref().try_into().ok()
    }

    fn tag(&self, key: KeyId, parts: &[&[u8]]) -> Option<hmac::Tag> {
        let masters = self.0.masters.load();
        let master = masters.iter().find(|master| master.id == key)?;
        Some(hmac::sign(&master.derive, &delimited(parts)))
    }
}

impl Master {
    fn of(secret: &SecretString) -> Self {
        let prk = Salt::new(HKDF_SHA256, MASTER_SALT).extract(secret.expose_secret().as_bytes());
        let mut id = KeyId::default();
        expand(&prk, b"key id", &mut id);
        let mut derive = [0; 32];
        expand(&prk, b"derived values", &mut derive);
        Self { id, prk, derive: hmac::Key::new(hmac::HMAC_SHA256, &derive) }
    }
}

fn seal_keys(masters: &[Master], purpose: Purpose, name: &str, origin: &Origin) -> Vec<SealKey> {
    let of = |master: &Master| {
        let mut key = [0; 32];
        expand(&master.prk, purpose.label().as_bytes(), &mut key);
        let context = [purpose.label().as_bytes(), name.as_bytes(), origin.as_str().as_bytes()];
        SealKey::new(master.id, &key, &context)
    };
    masters.iter().map(of).collect()
}

/// Seals and opens records of type `T` for one purpose.
pub struct Sealer<T> {
    keys: Arc<ArcSwap<Vec<SealKey>>>,
    epoch: Arc<AtomicU64>,
    /// As strict as the plain engine, and a tenth of its time.
    decoder: Simd,
    record: PhantomData<fn(T) -> T>,
}

impl<T> fmt::Debug for Sealer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer [secret]")
    }
}

struct SealKey {
    id: KeyId,
    key: LessSafeKey,
    associated: Vec<u8>,
}

impl<T> Sealer<T> {
    /// Seals bytes under the first key.
    pub fn seal_bytes(&self, record: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(self.keys.load()[0].seal(record))
    }

    /// Changes whenever the secrets do: what was opened before may not open any more.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Opens a sealed text: the record's bytes and the id of the key that sealed it.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_bytes(&self, text: &[u8]) -> Result<(Vec<u8>, KeyId), OpenError> {
        let mut bytes = self.decoder.decode(text).map_err(|_| OpenError::Malformed)?;
        let (record, id) = self.open_in_place(&mut bytes)?;
        bytes.truncate(record);
        Ok((bytes, id))
    }

    /// Opens what was decoded; the record's bytes stand at its front, and this many.
    fn open_in_place(&self, bytes: &mut [u8]) -> Result<(usize, KeyId), OpenError> {
        let id = key_id_of(bytes)?;
        let keys = self.keys.load();
        let key = keys.iter().find(|key| key.id == id).ok_or(OpenError::UnknownKey)?;
        Ok((key.open(bytes)?, id))
    }
}

impl SealKey {
    fn new(id: KeyId, key: &[u8; 32], context: &[&[u8]]) -> Self {
        Self {
            id,
            // Infallible: the key length is AES-256's own.
            key: LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, key).expect("a 32-byte key")),
            associated: delimited(&[&[&[FORMAT], &id[..]], context].concat()),
        }
    }

    fn seal(&self, record: &[u8]) -> Vec<u8> {
        let nonce = random::<NONCE_LEN>();
        let padded = (record.len() + 1).next_multiple_of(BLOCK);
        let mut text = Vec::with_capacity(HEAD_LEN + padded + TAG_LEN);
        text.push(FORMAT);
        text.extend_from_slice(&self.id);
        text.extend_from_slice(&nonce);
        text.extend_from_slice(record);
        // ISO/IEC 7816-4 padding: one marker byte, then zeros.
        text.push(0x80);
        text.resize(HEAD_LEN + padded, 0);
        let (nonce, associated) = (Nonce::assume_unique_for_key(nonce), Aad::from(&self.associated));
        let sealed = self.key.seal_in_place_separate_tag(nonce, associated, &mut text[HEAD_LEN..]);
        // Fails only past the length limit of RFC 8452 §6 (2^36 bytes).
        text.extend_from_slice(sealed.expect("a record within the cipher's limit").as_ref());
        text
    }

    /// The record's bytes stand at the front, and this many.
    fn open(&self, bytes: &mut [u8]) -> Result<usize, OpenError> {
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&bytes[1 + KEY_ID_LEN..HEAD_LEN]);
        let padded = self
            .key
            .open_within(Nonce::assume_unique_for_key(nonce), Aad::from(&self.associated), bytes, HEAD_LEN..)
            .map_err(|_| OpenError::Forged)?;
        unpadded(padded).ok_or(OpenError::Record)
    }
}

/// The key id of a text that is long enough, and of this format.
fn key_id_of(bytes: &[u8]) -> Result<KeyId, OpenError> {
    if bytes.len() < HEAD_LEN + TAG_LEN + BLOCK {
        return Err(OpenError::Malformed);
    }
    if bytes[0] != FORMAT {
        let is_older = (1..FORMAT).contains(&bytes[0]);
        return Err(if is_older { OpenError::Record } else { OpenError::Malformed });
    }
    let mut id = KeyId::default();
    id.copy_from_slice(&bytes[1..1 + KEY_ID_LEN]);
    Ok(id)
}

/// Seals and opens the one record that `context` names, with a key of its own that whoever keeps the record does not have.
pub(super) struct RecordSealer(SealKey);

impl RecordSealer {
    pub(super) fn new(key: &[u8; 32], context: &[&[u8]]) -> Self {
        Self(SealKey::new(KeyId::default(), key, context))
    }

    pub(super) fn seal(&self, record: &[u8]) -> Vec<u8> {
        self.0.seal(record)
    }

    pub(super) fn open(&self, mut bytes: Vec<u8>) -> Result<Vec<u8>, OpenError> {
        if key_id_of(&bytes)? != self.0.id {
            return Err(OpenError::UnknownKey);
        }
        let record = self.0.open(&mut bytes)?;
        bytes.truncate(record);
        Ok(bytes)
    }
}

/// How many bytes stand before the marker.
fn unpadded(mut bytes: &[u8]) -> Option<usize> {
    while let [rest @ .., 0, 0, 0, 0, 0, 0, 0, 0] = bytes {
        bytes = rest;
    }
    while let [rest @ .., 0] = bytes {
        bytes = rest;
    }
    let [record @ .., 0x80] = bytes else { return None };
    Some(record.len())
}

impl<T: Serialize + DeserializeOwned> Sealer<T> {
    /// Seals a record.
    pub fn seal(&self, record: &T) -> String {
        // Infallible for the plain structs that are sealed here: no map of unknown length, no custom serializer.
        self.seal_bytes(&postcard::to_stdvec(record).expect("a plain record"))
    }

    /// Seals a record under this key, as long as it is in the ring; else under the first.
    pub fn seal_under(&self, key: KeyId, record: &T) -> String {
        let keys = self.keys.load();
        let key = keys.iter().find(|other| other.id == key).unwrap_or(&keys[0]);
        // Infallible for the same reason.
        URL_SAFE_NO_PAD.encode(key.seal(&postcard::to_stdvec(record).expect("a plain record")))
    }

    /// Opens a record.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&self, text: &[u8]) -> Result<(T, KeyId), OpenError> {
        let (mut small, mut large): ([u8; SMALL], Vec<u8>);
        // Decoded, it is shorter: the time of the last request comes with every one, and needs no allocation.
        let bytes = if text.len() <= SMALL {
            small = [0; SMALL];
            let length = self.decoder.decode_slice(text, &mut small).map_err(|_| OpenError::Malformed)?;
            &mut small[..length]
        } else {
            large = self.decoder.decode(text).map_err(|_| OpenError::Malformed)?;
            large.as_mut_slice()
        };
        let (record, key) = self.open_in_place(bytes)?;
        match postcard::take_from_bytes(&bytes[..record]) {
            Ok((record, [])) => Ok((record, key)),
            _ => Err(OpenError::Record),
        }
    }
}

/// `length ‖ bytes` for each part, so that no two lists of parts give the same bytes.
fn delimited(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn expand(prk: &Prk, label: &[u8], out: &mut [u8]) {
    // Infallible: HKDF-SHA256 gives up to 8,160 bytes (RFC 5869 §2.3), and at most 32 are asked for here.
    prk.expand(&[label], Length(out.len())).and_then(|okm| okm.fill(out)).expect("a short HKDF output");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn origin(text: &str) -> Origin {
        Origin::of(&url::Url::parse(text).unwrap()).unwrap()
    }

    fn ring(secrets: &[&str]) -> KeyRing {
        KeyRing::new(&secrets.iter().map(|secret| SecretString::new((*secret).to_owned())).collect::<Vec<_>>())
    }

    fn sealer(ring: &KeyRing) -> Sealer<String> {
        ring.sealer(Purpose::Session, "__Host-vestibule", &origin("https://app.example.com"))
    }

    #[test]
    fn what_was_sealed_for_one_thing_opens_as_nothing_else() {
        let ring = ring(&["one"]);
        let text = sealer(&ring).seal_bytes(b"record");
        let home = origin("https://app.example.com");
        let others: [Sealer<String>; 3] = [
            ring.sealer(Purpose::Idle, "__Host-vestibule", &home),
            ring.sealer(Purpose::Session, "__Host-vestibule2", &home),
            ring.sealer(Purpose::Session, "__Host-vestibule", &origin("https://other.example.com")),
        ];
        for other in others {
            assert_eq!(other.open_bytes(text.as_bytes()), Err(OpenError::Forged));
        }
    }

    #[test]
    fn the_first_key_seals_and_every_key_of_the_ring_opens() {
        let old = sealer(&ring(&["old"])).seal_bytes(b"record");
        let both = sealer(&ring(&["new", "old"]));
        assert_eq!(both.open_bytes(old.as_bytes()).unwrap().0, b"record");
        let fresh = both.seal_bytes(b"record");
        assert_eq!(sealer(&ring(&["old"])).open_bytes(fresh.as_bytes()), Err(OpenError::UnknownKey));
        assert!(sealer(&ring(&["new"])).open_bytes(fresh.as_bytes()).is_ok());
    }

    #[test]
    fn all_sealers_of_a_ring_go_on_with_other_secrets() {
        let secrets = |all: &[&str]| all.iter().map(|one| SecretString::new((*one).to_owned())).collect::<Vec<_>>();
        let ring = ring(&["old"]);
        let home = origin("https://app.example.com");
        let (session, idle): (Sealer<String>, Sealer<String>) =
            (sealer(&ring), ring.sealer(Purpose::Idle, "idle", &home));
        let (old, old_key) = (session.seal_bytes(b"record"), ring.current());
        let epoch = session.epoch();
        ring.clone().replace(&secrets(&["new", "old"]));
        assert!(session.epoch() > epoch && idle.epoch() == session.epoch());
        assert!(session.open_bytes(old.as_bytes()).is_ok());
        let new = session.seal_bytes(b"record");
        assert_eq!(sealer(&self::ring(&["old"])).open_bytes(new.as_bytes()), Err(OpenError::UnknownKey));
        assert!(sealer(&self::ring(&["new"])).open_bytes(new.as_bytes()).is_ok());
        assert_ne!(ring.current(), old_key);
        assert!(ring.derive(old_key, &[b"nonce"]).is_some());
        let under = session.seal_under(old_key, &"record".to_owned());
        assert_eq!(session.open(under.as_bytes()).unwrap().1, old_key);
        ring.replace(&secrets(&["new"]));
        assert_eq!(session.open_bytes(old.as_bytes()), Err(OpenError::UnknownKey));
        assert!(ring.derive(old_key, &[b"nonce"]).is_none());
        let text = idle.seal_bytes(b"record");
        assert!(
            self::ring(&["new"]).sealer::<String>(Purpose::Idle, "idle", &home).open_bytes(text.as_bytes()).is_ok()
        );
        ring.replace(&[]);
        assert!(session.open_bytes(new.as_bytes()).is_ok(), "no secret at all is none");
    }

    #[test]
    fn what_an_older_release_sealed_is_told_apart_from_garbage() {
        let sealer = sealer(&ring(&["one"]));
        let mut bytes = URL_SAFE_NO_PAD.decode(sealer.seal_bytes(b"record")).unwrap();
        let mut open_as = |format| {
            bytes[0] = format;
            sealer.open_bytes(URL_SAFE_NO_PAD.encode(&bytes).as_bytes())
        };
        for format in 1..FORMAT {
            assert_eq!(open_as(format), Err(OpenError::Record), "{format}");
        }
        for format in [0, FORMAT + 1, 255] {
            assert_eq!(open_as(format), Err(OpenError::Malformed), "{format}");
        }
        assert!(open_as(FORMAT).is_ok());
    }

    #[test]
    fn a_stored_record_opens_with_its_own_key_and_under_its_own_name() {
        let of = |key, name: &[u8]| RecordSealer::new(&[key; 32], &[b"record", name]);
        let sealer = of(1, b"one");
        let sealed = sealer.seal(b"record");
        assert_eq!(sealer.open(sealed.clone()).unwrap(), b"record");
        for other in [of(2, b"one"), of(1, b"two"), RecordSealer::new(&[1; 32], &[b"recordone"])] {
            assert_eq!(other.open(sealed.clone()), Err(OpenError::Forged));
        }
        // What a ring sealed is none of them, and neither is what another release wrote.
        let of_ring = URL_SAFE_NO_PAD.decode(super::tests::sealer(&ring(&["one"])).seal_bytes(b"record")).unwrap();
        assert_eq!(sealer.open(of_ring), Err(OpenError::UnknownKey));
        for (format, error) in [(FORMAT - 1, OpenError::Record), (FORMAT + 1, OpenError::Malformed)] {
            let mut other = sealed.clone();
            other[0] = format;
            assert_eq!(sealer.open(other), Err(error));
        }
    }

    #[test]
    fn records_are_padded_to_whole_blocks() {
        let sealer = sealer(&ring(&["one"]));
        let lengths = |range: std::ops::Range<usize>| {
            range.map(|length| sealer.seal_bytes(&vec![7; length]).len()).collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(lengths(0..64).len(), 1);
        assert_eq!(lengths(0..65).len(), 2);
    }

    #[test]
    fn derived_values_need_the_same_key_and_the_same_parts() {
        let ring = ring(&["one", "two"]);
        let value = ring.derive(ring.current(), &[b"nonce", b"ab", b"c"]).unwrap();
        assert_eq!(value.len(), 43);
        assert_eq!(ring.derive(ring.current(), &[b"nonce", b"ab", b"c"]).unwrap(), value);
        assert_ne!(ring.derive(ring.current(), &[b"nonce", b"a", b"bc"]).unwrap(), value);
        assert_eq!(ring.derive([0; 4], &[b"nonce"]), None);
    }

    proptest! {
        #[test]
        fn opening_gives_back_what_was_sealed(record: Vec<u8>) {
            let sealer = sealer(&ring(&["one"]));
            let text = sealer.seal_bytes(&record);
            prop_assert_eq!(sealer.open_bytes(text.as_bytes()).unwrap().0, record);
        }

        #[test]
        fn any_flipped_bit_is_refused(record: Vec<u8>, at: prop::sample::Index, bit in 0..8u8) {
            let sealer = sealer(&ring(&["one"]));
            let text = sealer.seal_bytes(&record);
            let mut bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(sealer.open_bytes(URL_SAFE_NO_PAD.encode(&bytes).as_bytes()).is_err());
        }

        #[test]
        fn no_altered_or_made_up_record_opens(record: Vec<u8>, garbage: Vec<u8>, at: prop::sample::Index, bit in 0..8u8) {
            let sealer = RecordSealer::new(&[1; 32], &[b"one"]);
            let mut sealed = sealer.seal(&record);
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert!(sealer.open(sealed).is_err());
            prop_assert!(sealer.open(garbage).is_err());
        }

        #[test]
        fn garbage_never_opens_and_never_panics(text: Vec<u8>) {
            prop_assert!(sealer(&ring(&["one"])).open_bytes(&text).is_err());
        }
    }
}
