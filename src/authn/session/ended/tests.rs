use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::*;
use crate::authn::oidc::Party;
use crate::authn::session::SessionId;
use crate::clock::Clock;

const ISSUER: &str = "https://id.example";
const DAY: Duration = Duration::from_secs(86_400);

/// Seconds that only a test moves.
#[derive(Debug, Default)]
struct Stopped(AtomicU64);

impl Clock for Stopped {
    fn now(&self) -> UnixTime {
        UnixTime(self.0.load(Ordering::SeqCst))
    }
}

struct Scene {
    ended: EndedSessions,
    clock: Arc<Stopped>,
}

impl Scene {
    fn new(capacity: usize, unproven: usize) -> Self {
        let clock = Arc::new(Stopped(AtomicU64::new(1_700_000_000)));
        Self { ended: EndedSessions::with_capacity(Arc::<Stopped>::clone(&clock), capacity, unproven), clock }
    }

    fn pass(&self, span: Duration) {
        self.clock.0.fetch_add(span.as_secs(), Ordering::SeqCst);
    }

    fn sign_in(&self, sub: &str, sid: &str) -> Marks {
        let mut id = [0; 16];
        aws_lc_rs::rand::fill(&mut id).unwrap();
        Marks {
            id: SessionId(id),
            provider_session: (!sid.is_empty()).then(|| session(sid)),
            subject: subject(sub),
            begun: self.ended.next_turn(),
        }
    }

    fn told(&self, sid: &str, sub: Option<&str>) {
        self.ended.end_named(session(sid), sub.map(subject), Told::ByProvider, DAY);
    }
}

fn party() -> Party {
    Party::of(ISSUER, "app")
}

fn session(sid: &str) -> NameDigest {
    NameDigest::of_session(party(), ISSUER, sid)
}

fn subject(sub: &str) -> NameDigest {
    NameDigest::of_subject(party(), ISSUER, sub)
}

#[test]
fn an_ended_session_is_remembered_until_its_cookie_expires() {
    let scene = Scene::new(CAPACITY, UNPROVEN);
    let (ada, bob) = (scene.sign_in("ada", ""), scene.sign_in("bob", ""));
    assert!(!scene.ended.contains(&ada));
    scene.ended.end(&ada, scene.clock.now().after(DAY));
    assert!(scene.ended.contains(&ada) && !scene.ended.contains(&bob));
    scene.pass(DAY);
    // Each one that ends looks through another shard.
    for _ in 0..1024 {
        let other = scene.sign_in("eve", "");
        scene.ended.end(&other, scene.clock.now());
    }
    assert!(!scene.ended.contains(&ada), "what has expired is forgotten");
}

#[test]
fn a_subject_is_signed_out_everywhere_and_may_sign_in_again_in_the_same_second() {
    let scene = Scene::new(CAPACITY, UNPROVEN);
    let (first, second, bob) = (scene.sign_in("ada", "s1"), scene.sign_in("ada", "s2"), scene.sign_in("bob", "s3"));
    for _ in 0..3 {
        scene.ended.end_subject(subject("ada"), DAY);
        assert!(scene.ended.contains(&first) && scene.ended.contains(&second) && !scene.ended.contains(&bob));
        let again = scene.sign_in("ada", "s1");
        assert!(!scene.ended.contains(&again));
        scene.ended.end_subject(subject("ada"), DAY);
        assert!(scene.ended.contains(&again));
    }
    let other = NameDigest::of_subject(Party::of(ISSUER, "another"), ISSUER, "bob");
    scene.ended.end_subject(other, DAY);
    assert!(!scene.ended.contains(&bob), "another client's subject is another one");
    assert_ne!(session("x"), subject("x"), "a subject is no session");
}

#[test]
fn a_session_ends_by_its_name_and_only_whose_it_is() {
    let scene = Scene::new(CAPACITY, UNPROVEN);
    let (ada, other) = (scene.sign_in("ada", "s1"), scene.sign_in("ada", "s2"));
    scene.told("s1", Some("bob"));
    assert!(!scene.ended.contains(&ada));
    scene.told("s1", Some("ada"));
    assert!(scene.ended.contains(&ada) && !scene.ended.contains(&other));
    scene.told("s2", None);
    assert!(scene.ended.contains(&other));
    // The provider's session went on, and the person came back with it.
    let again = scene.sign_in("ada", "s2");
    assert!(!scene.ended.contains(&again));
    scene.told("s2", Some("bob"));
    assert!(scene.ended.contains(&again), "anyone's stays anyone's");
    for sub in ["a", "b", "c", "d", "e", "f"] {
        scene.told("s4", Some(sub));
    }
    scene.told("s4", Some("g"));
    assert!(scene.ended.names.any(&session("s4").0, |named| named.subjects.is_empty()), "too many are anyone's");
}

#[test]
fn what_is_too_much_becomes_one_moment_and_nothing_ended_comes_back() {
    let scene = Scene::new(64, 8);
    let mut dead = Vec::new();
    for number in 0..400 {
        let marks = scene.sign_in(&format!("u{number}"), &format!("s{number}"));
        match number % 3 {
            0 => scene.ended.end(&marks, scene.clock.now().after(DAY)),
            1 => scene.ended.end_subject(marks.subject, DAY),
            _ => scene.told(&format!("s{number}"), None),
        }
        dead.push(marks);
        scene.pass(Duration::from_secs(60));
        assert!(scene.ended.len() <= 64, "{}", scene.ended.len());
    }
    assert!(dead.iter().all(|marks| scene.ended.contains(marks)));
    assert!(!scene.ended.contains(&scene.sign_in("new", "new")));
}

#[test]
fn what_nobody_proved_pushes_out_the_oldest_of_its_kind_and_nothing_else() {
    let scene = Scene::new(1000, 16);
    let anyone = |sid: &str| scene.ended.end_named(session(sid), None, Told::ByAnyone, DAY);
    let (first, proven) = (scene.sign_in("ada", "first"), scene.sign_in("bob", "proven"));
    anyone("first");
    scene.told("proven", None);
    let made_up = |count: usize| (0..count).for_each(|number| anyone(&format!("made up {number}")));
    made_up(15);
    assert!(scene.ended.contains(&first), "there is room for it");
    for number in 0..200 {
        let latest = scene.sign_in("eve", &format!("s{number}"));
        anyone(&format!("s{number}"));
        assert!(scene.ended.contains(&latest), "the news counts, however full it is");
        assert!(scene.ended.names.len() <= 17, "{}", scene.ended.names.len());
    }
    assert!(scene.ended.contains(&proven) && !scene.ended.contains(&first));
    scene.pass(DAY + Duration::from_secs(61));
    anyone("one more");
    assert!(scene.ended.names.len() <= 17);
}

#[test]
fn what_is_told_again_is_new_again() {
    let scene = Scene::new(1000, 16);
    let anyone = |sid: &str| scene.ended.end_named(session(sid), None, Told::ByAnyone, DAY);
    let ada = scene.sign_in("ada", "kept");
    for number in 0..100 {
        anyone("kept");
        anyone(&format!("s{number}"));
        assert!(scene.ended.contains(&ada), "{number}");
    }
}

#[test]
fn issuers_with_the_same_names_are_told_apart() {
    let of =
        |issuer: &str| (NameDigest::of_session(party(), issuer, "s"), NameDigest::of_subject(party(), issuer, "s"));
    assert_ne!(of("https://id.example/one").0, of("https://id.example/two").0);
    assert_ne!(of("https://id.example/one").1, of("https://id.example/two").1);
    assert_ne!(of("a").0, of("a").1);
}

#[test]
fn turns_never_repeat_and_never_go_back_with_the_clock() {
    let scene = Scene::new(64, 8);
    let first = scene.ended.next_turn();
    let second = scene.ended.next_turn();
    scene.clock.0.fetch_sub(500, Ordering::SeqCst);
    let third = scene.ended.next_turn();
    assert!(first < second && second < third);
    scene.pass(DAY);
    assert_eq!(scene.ended.next_turn(), Turn(scene.clock.now().0 * 1_000_000));
}
