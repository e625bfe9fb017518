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
//! In the seal lie whose it is, where it goes, and, in one of its own, what it says: that is opened when it is sent, and not to
//! show that it is there. What is done with it is for the endpoints to decide.

mod shelf;

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// Where they signed in.
    pub party: Party,
    /// Who they are there (`iss`, `sub`).
    pub subject: NameDigest,
}

/// A post as it came, less what it says.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptPost {
    /// Whose it is.
    pub person: Person,
    /// Path and query, byte for byte.
    pub target: String,
    /// `Content-Type`, byte for byte.
    pub content_type: String,
    /// The page that the form was on.
    pub referer: Option<String>,
}

impl fmt::Debug for KeptPost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptPost").finish_non_exhaustive()
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
    /// Whose it is, and where it goes.
    pub fn post(&self) -> &KeptPost {
        &self.seen.post
    }

    /// What it says; `None`: that is not what was kept.
    pub fn body(&self) -> Option<Vec<u8>> {
        self.seen.sealers.body.open(self.seen.sealed.body.to_vec()).ok()
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

/// A post that was found, and what its body is opened with.
pub struct Seen {
    /// Whose it is, and where it goes.
    pub post: KeptPost,
    id: PostId,
    sealed: Sealed,
    sealers: Sealers,
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seen").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Of one post.
struct Sealers {
    head: RecordSealer,
    body: RecordSealer,
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
    pub async fn keep(
        &self,
        room: Room,
        secret: &BrowserSecret,
        post: &KeptPost,
        body: &[u8],
    ) -> Result<PostId, NotKept> {
        let id = PostId(random());
        // Once, unless the secrets are replaced in between.
        let (key, sealers) = loop {
            let key = self.ring.current();
            if let Some(sealers) = self.sealers(key, secret, id) {
                break (key, sealers);
            }
        };
        // Texts and bytes: fails for nothing but want of memory. An empty record opens as no post.
        let head = postcard::to_stdvec(post).unwrap_or_default();
        let sealed = Sealed { key, head: sealers.head.seal(&head).into(), body: sealers.body.seal(body).into() };
        let until = self.clock.now().after(self.settings.life);
        match &self.store {
            None => self.shelf.put(id, room, Some(sealed), until),
            Some(_) => {
                self.write(id, post.person.subject, &sealed).await.map_err(|Away| NotKept::Away)?;
                // So much of the store is ours until then.
                self.shelf.put(id, room, None, until);
            }
        }
        Ok(id)
    }

    /// Finds a post, which stays where it is; its body is not opened. `None`: it was sent, was kept too long, lay in a process that is gone, or is
    /// another browser's.
    ///
    /// # Errors
    /// [`Away`].
    pub async fn look(&self, id: PostId, secret: &BrowserSecret) -> Result<Option<Seen>, Away> {
        let sealed = match &self.store {
            None => self.shelf.get(id, self.clock.now()),
            Some(store) => {
                let kept = store.get(Handle::new(id.0)).await.map_err(away)?;
                kept.and_then(|kept| Sealed::unpack(Bytes::from(kept.bytes)))
            }
        };
        Ok(sealed.and_then(|sealed| {
            let sealers = self.sealers(sealed.key, secret, id)?;
            let head = sealers.head.open(sealed.head.to_vec()).ok()?;
            Some(Seen { post: postcard::from_bytes(&head).ok()?, id, sealed, sealers })
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
            Some(_) => self.write(seen.id, seen.post.person.subject, &seen.sealed).await,
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

    fn sealers(&self, key: KeyId, secret: &BrowserSecret, id: PostId) -> Option<Sealers> {
        let parts = [b"kept post", self.origin.as_str().as_bytes(), secret.0.as_bytes(), &id.0[..]];
        let key = self.ring.derive_key(key, &parts)?;
        let sealer = |part: &[u8]| RecordSealer::new(&key, &[b"kept post", part, &id.0]);
        Some(Sealers { head: sealer(b"head"), body: sealer(b"body") })
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
            person: Person { party: Party::of("https://id.example", "app"), subject: Marks::for_test(7).subject },
            target: "/a?b=%20c".to_owned(),
            content_type: "multipart/form-data; boundary=x".to_owned(),
            referer: None,
        }
    }

    fn kept(posts: &KeptPosts, secret: &BrowserSecret, body: &[u8]) -> PostId {
        let post = post();
        now(posts.keep(posts.room(&post.person, body.len() as u64).unwrap(), secret, &post, body)).unwrap()
    }

    #[test]
    fn a_post_is_opened_by_the_browser_that_sent_it_and_taken_once() {
        let (posts, post) = (posts(), post());
        let secret = BrowserSecret::new();
        let body: Vec<u8> = (0..=255).collect();
        let id = kept(&posts, &secret, &body);
        let look = |id, secret: &BrowserSecret| now(posts.look(id, secret)).unwrap();
        assert!(look(id, &BrowserSecret::new()).is_none() && look(PostId(random()), &secret).is_none());
        let shown = BrowserSecret::shown(secret.as_str().as_bytes()).unwrap();
        let (first, second) = (look(id, &shown).unwrap(), look(id, &secret).unwrap());
        assert_eq!(first.post, post);
        let taken = now(posts.take(first)).unwrap().unwrap();
        assert_eq!((taken.post(), taken.body()), (&post, Some(body)));
        assert!(now(posts.take(second)).unwrap().is_none() && look(id, &secret).is_none());
        now(posts.put_back(taken));
        assert_eq!(look(id, &secret).unwrap().post, post);
    }

    /// With its last bits flipped where `change` says so.
    fn put_anew(posts: &KeptPosts, id: PostId, change: impl Fn(&mut Sealed)) {
        let mut sealed = posts.shelf.get(id, UnixTime(1_000)).unwrap();
        change(&mut sealed);
        let room = posts.room(&post().person, 0).unwrap();
        posts.shelf.put(id, room, Some(sealed), UnixTime(1_060));
    }

    fn spoilt(bytes: &Bytes) -> Bytes {
        bytes.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at + 1 == bytes.len())).collect()
    }

    #[test]
    fn what_it_says_is_opened_when_it_is_sent_and_not_before() {
        let (posts, secret) = (posts(), BrowserSecret::new());
        let look = |id| now(posts.look(id, &secret)).unwrap();
        let id = kept(&posts, &secret, b"a=b");
        put_anew(&posts, id, |sealed| sealed.body = spoilt(&sealed.body));
        let seen = look(id).unwrap();
        assert_eq!(seen.post, post());
        assert_eq!(now(posts.take(seen)).unwrap().unwrap().body(), None);
        let id = kept(&posts, &secret, b"a=b");
        put_anew(&posts, id, |sealed| sealed.head = spoilt(&sealed.head));
        assert!(look(id).is_none());
        // Each part opens in its own place alone.
        let (one, other) = (kept(&posts, &secret, b"a=b"), kept(&posts, &secret, b"c=d"));
        let body = posts.shelf.get(other, UnixTime(1_000)).unwrap().body;
        put_anew(&posts, one, |sealed| sealed.body = body.clone());
        assert_eq!(now(posts.take(look(one).unwrap())).unwrap().unwrap().body(), None);
        put_anew(&posts, other, |sealed| sealed.body = sealed.head.clone());
        assert_eq!(now(posts.take(look(other).unwrap())).unwrap().unwrap().body(), None);
    }

    #[test]
    fn what_lies_on_the_shelf_shows_nothing() {
        let posts = posts();
        let id = kept(&posts, &BrowserSecret::new(), &(0..=255).collect::<Vec<_>>());
        let sealed = posts.shelf.get(id, UnixTime(1_000)).unwrap().packed();
        let holds = |text: &[u8]| sealed.windows(text.len()).any(|window| window == text);
        assert!(!holds(b"/a?b") && !holds(b"multipart") && !holds(&(0..32).collect::<Vec<_>>()));
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
