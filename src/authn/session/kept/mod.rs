//! Posts that came when their session was over, kept until their person has signed in again.
//!
//! A post is sealed with a key that is derived from the server's secret and from one that only the browser has which sent it
//! (`base.kept`), and is bound to our public origin and to its own random id. So whoever reads the shelf opens nothing; the id,
//! which stands in an address, opens nothing; and nobody can put a form of theirs under somebody else's hands: with an expired
//! cookie that was stolen one could make us keep a form for its person, but that person's browser cannot open it.
//!
//! They lie in this process, or in the session store where there is one: there a replica finds what another has kept, a restart
//! loses nothing, and taking one away is one step, so that of all replicas one sends it. Bounds hold for what each process keeps.
//!
//! In the seal lie whose it is, where it goes, and what it says. What is done with it is for the endpoints to decide.

mod shelf;

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use tracing::warn;

pub use self::shelf::{HEAD, NotKept, Room};
use self::shelf::{Lying, Sealed, Shelf};
use super::marks::NameDigest;
use super::seal::{KeyId, KeyRing, RecordSealer};
use super::stored::Away;
use crate::authn::oidc::Party;
use crate::clock::SharedClock;
use crate::message::Origin;
use crate::random::random;
use crate::store::{Handle, Owner, Put, Store, StoreError};
use crate::telemetry::chain;

/// A browser's secret: 32 bytes in base64url.
const SECRET_LEN: usize = 43;

/// Stands for the provider in the records of a store, so that no form is taken for a session.
pub(super) const FORMS: [u8; 16] = *b"vestibule: forms";

/// `session.keep_posts` and what goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// The largest body, in bytes.
    pub largest: usize,
    /// All of them together, in bytes, each with [`HEAD`] beside its body. Default 16 MiB.
    pub total: usize,
    /// How long one is kept. Default 15 min.
    pub life: Duration,
}

/// Whose session it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Person {
    /// Where they signed in.
    pub party: Party,
    /// Who they are there (`iss`, `sub`).
    pub subject: NameDigest,
}

/// A post as it came.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptPost {
    /// Where its person signed in.
    pub party: Party,
    /// Who they are there.
    pub subject: NameDigest,
    /// Path and query, byte for byte.
    pub target: String,
    /// `Content-Type`, byte for byte.
    pub content_type: String,
    /// The page that the form was on.
    pub referer: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

impl fmt::Debug for KeptPost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptPost").field("bytes", &self.body.len()).finish_non_exhaustive()
    }
}

/// Names a post that is kept. Random; whoever knows it opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PostId([u8; 16]);

impl PostId {
    /// The length of its text.
    pub const LEN: usize = 22;

    /// Of its text.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut id = [0; 16];
        let is_whole = text.len() == Self::LEN && URL_SAFE_NO_PAD.decode_slice(text, &mut id) == Ok(id.len());
        is_whole.then_some(Self(id))
    }
}

impl fmt::Display for PostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

/// A post that was taken away, for good unless it is put back.
#[derive(Debug)]
pub struct Taken {
    seen: Seen,
    /// Its room, where it was kept by this process.
    lying: Option<Lying>,
}

impl Taken {
    /// What it says.
    pub fn post(&self) -> &KeptPost {
        &self.seen.post
    }
}

/// What a browser opens its posts with.
pub struct BrowserSecret(String);

impl BrowserSecret {
    /// A new one.
    pub fn new() -> Self {
        Self(URL_SAFE_NO_PAD.encode(random::<32>()))
    }

    /// The one that a browser shows, if it has the shape of ours.
    pub fn shown(value: &[u8]) -> Option<Self> {
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
        let well_formed = value.len() == SECRET_LEN && value.iter().all(is_plain);
        well_formed.then(|| Self(String::from_utf8_lossy(value).into_owned()))
    }

    /// For its cookie.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for BrowserSecret {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for BrowserSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BrowserSecret [secret]")
    }
}

/// A post that was opened, and what it was opened from.
#[derive(Debug)]
pub struct Seen {
    /// What it says.
    pub post: KeptPost,
    id: PostId,
    sealed: Sealed,
}

/// All of them: in the session store, where there is one, so that every replica has them; else in this process.
pub struct KeptPosts {
    settings: Settings,
    ring: KeyRing,
    origin: Origin,
    shelf: Shelf,
    store: Option<Store>,
    clock: SharedClock,
}

impl fmt::Debug for KeptPosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptPosts").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl KeptPosts {
    /// For one public origin.
    pub fn new(settings: Settings, ring: KeyRing, origin: Origin, store: Option<Store>, clock: SharedClock) -> Self {
        Self { settings, ring, origin, shelf: Shelf::new(settings), store, clock }
    }

    /// How long one is kept.
    pub fn life(&self) -> Duration {
        self.settings.life
    }

    /// Room for a body of `length` bytes, before it is read. Given back when it is dropped.
    ///
    /// # Errors
    /// [`NotKept`].
    pub fn room(&self, person: &Person, length: u64) -> Result<Room, NotKept> {
        self.shelf.room(person.subject, length, self.clock.now())
    }

    /// Keeps a post in the room that was made for it.
    ///
    /// # Errors
    /// [`NotKept::Away`].
    pub async fn keep(&self, room: Room, secret: &BrowserSecret, post: &KeptPost) -> Result<PostId, NotKept> {
        let id = PostId(random());
        // Once, unless the secrets are replaced in between.
        let (key, sealer) = loop {
            let key = self.ring.current();
            if let Some(sealer) = self.sealer(key, secret, id) {
                break (key, sealer);
            }
        };
        // Texts and bytes: fails for nothing but want of memory. An empty record opens as no post.
        let packed = postcard::to_stdvec(post).unwrap_or_default();
        let sealed = Sealed { key, bytes: sealer.seal(&packed) };
        let until = self.clock.now().after(self.settings.life);
        match &self.store {
            None => self.shelf.put(id, room, Some(sealed), until),
            Some(_) => {
                self.write(id, post.subject, &sealed).await.map_err(|Away| NotKept::Away)?;
                // So much of the store is ours until then.
                self.shelf.put(id, room, None, until);
            }
        }
        Ok(id)
    }

    /// Opens a post, which stays where it is. `None`: it was sent, was kept too long, lay in a process that is gone, or is
    /// another browser's.
    ///
    /// # Errors
    /// [`Away`].
    pub async fn look(&self, id: PostId, secret: &BrowserSecret) -> Result<Option<Seen>, Away> {
        let sealed = match &self.store {
            None => self.shelf.get(id, self.clock.now()),
            Some(store) => {
                let kept = store.get(Handle::new(id.0)).await.map_err(away)?;
                kept.and_then(|kept| Sealed::unpack(&kept.bytes))
            }
        };
        Ok(sealed.and_then(|sealed| {
            let packed = self.sealer(sealed.key, secret, id)?.open(sealed.bytes.clone()).ok()?;
            Some(Seen { post: postcard::from_bytes(&packed).ok()?, id, sealed })
        }))
    }

    /// Takes a post away. Of several at the same time, at any replica, one gets it.
    ///
    /// # Errors
    /// [`Away`]; it may be gone then all the same.
    pub async fn take(&self, seen: Seen) -> Result<Option<Taken>, Away> {
        let lying = self.shelf.remove(seen.id, self.clock.now());
        let is_ours = match &self.store {
            None => lying.is_some(),
            Some(store) => store.delete(Handle::new(seen.id.0)).await.map_err(away)?,
        };
        Ok(is_ours.then_some(Taken { seen, lying }))
    }

    /// Puts one back that was not sent after all. One that cannot be is gone.
    pub async fn put_back(&self, Taken { seen, lying }: Taken) {
        let written = match &self.store {
            None => Ok(()),
            Some(_) => self.write(seen.id, seen.post.subject, &seen.sealed).await,
        };
        if let (Ok(()), Some(lying)) = (written, lying) {
            self.shelf.put_back(seen.id, lying);
        }
    }

    async fn write(&self, id: PostId, subject: NameDigest, sealed: &Sealed) -> Result<(), Away> {
        let Some(store) = &self.store else { return Err(Away) };
        let owner = Owner { party: FORMS, subject: *subject.as_bytes() };
        let put = store.create(Handle::new(id.0), owner, sealed.packed(), self.settings.life).await.map_err(away)?;
        // Nobody else has this id.
        if matches!(put, Put::Kept(_)) { Ok(()) } else { Err(Away) }
    }

    fn sealer(&self, key: KeyId, secret: &BrowserSecret, id: PostId) -> Option<RecordSealer> {
        let parts = [b"kept post", self.origin.as_str().as_bytes(), secret.0.as_bytes(), &id.0[..]];
        let key = self.ring.derive_key(key, &parts)?;
        Some(RecordSealer::new(&key, &[b"kept post", &id.0]))
    }
}

fn away(error: StoreError) -> Away {
    warn!(error = chain(&error), "the session store gives no answer about a form that is kept");
    Away
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::authn::session::marks::Marks;
    use crate::clock::{Clock, UnixTime};
    use crate::secret::SecretString;

    #[derive(Debug)]
    struct Standing;

    impl Clock for Standing {
        fn now(&self) -> UnixTime {
            UnixTime(1_000)
        }
    }

    fn now<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    fn posts() -> KeptPosts {
        let settings = Settings { largest: 1_000, total: 100_000, life: Duration::from_secs(60) };
        let ring = KeyRing::new(&[SecretString::new("Xq7-mVt2_Kd9zLr4wNc8YbHs1PfJg6Ue3Ra5TiOo0".to_owned())]);
        let origin = Origin::of(&url::Url::parse("https://app.example").unwrap()).unwrap();
        KeptPosts::new(settings, ring, origin, None, Arc::new(Standing))
    }

    fn post() -> KeptPost {
        KeptPost {
            party: Party::of("https://id.example", "app"),
            subject: Marks::for_test(7).subject,
            target: "/a?b=%20c".to_owned(),
            content_type: "multipart/form-data; boundary=x".to_owned(),
            referer: None,
            body: (0..=255).collect(),
        }
    }

    #[test]
    fn a_post_is_opened_by_the_browser_that_sent_it_and_taken_once() {
        let (posts, post) = (posts(), post());
        let person = Person { party: post.party, subject: post.subject };
        let secret = BrowserSecret::new();
        let id = now(posts.keep(posts.room(&person, 256).unwrap(), &secret, &post)).unwrap();
        let look = |id, secret: &BrowserSecret| now(posts.look(id, secret)).unwrap();
        assert!(look(id, &BrowserSecret::new()).is_none() && look(PostId(random()), &secret).is_none());
        let shown = BrowserSecret::shown(secret.as_str().as_bytes()).unwrap();
        let (first, second) = (look(id, &shown).unwrap(), look(id, &secret).unwrap());
        assert_eq!(first.post, post);
        let taken = now(posts.take(first)).unwrap().unwrap();
        assert!(now(posts.take(second)).unwrap().is_none() && look(id, &secret).is_none());
        now(posts.put_back(taken));
        assert_eq!(look(id, &secret).unwrap().post, post);
    }

    #[test]
    fn what_lies_on_the_shelf_shows_nothing() {
        let (posts, post) = (posts(), post());
        let person = Person { party: post.party, subject: post.subject };
        let id = now(posts.keep(posts.room(&person, 256).unwrap(), &BrowserSecret::new(), &post)).unwrap();
        let sealed = posts.shelf.get(id, UnixTime(1_000)).unwrap().packed();
        let holds = |text: &[u8]| sealed.windows(text.len()).any(|window| window == text);
        assert!(!holds(b"/a?b") && !holds(b"multipart") && !holds(&post.body[..32]));
    }

    #[test]
    fn an_id_is_its_text_and_nothing_else_is() {
        let id = PostId(random());
        assert_eq!(PostId::parse(id.to_string().as_bytes()), Some(id));
        for text in ["", "x", &"A".repeat(21), &"A".repeat(23), &"=".repeat(22), &format!("{}B", "A".repeat(21))] {
            assert_eq!(PostId::parse(text.as_bytes()), None, "{text}");
        }
        assert!(BrowserSecret::shown(&[b'A'; 42]).is_none() && BrowserSecret::shown(&[b'='; 43]).is_none());
    }
}
