use super::*;
use crate::authn::oidc::Party;
use crate::authn::proof::Proof;
use crate::authn::roles::Mapped;
use crate::authn::session::marks::Marks;
use crate::authn::session::record::{Due, StoredTokens, pack, unpack};

const NOW: UnixTime = UnixTime(1_000);

fn later(seconds: u64) -> UnixTime {
    UnixTime(NOW.0 + seconds)
}

fn record(id: u8, generation: u32) -> Record {
    Record {
        marks: Marks::for_test(id),
        issued_at: NOW,
        expires_at: later(86_400),
        party: Party::of("https://id.example", "app"),
        mapping: [3; 8],
        access_expires_at: None,
        proof: Proof::default(),
        generation,
        due: Some(Due { at: NOW, stale_at: later(10) }),
        anew: None,
    }
}

fn successor(id: u8, generation: u32, now: UnixTime) -> Box<Successor> {
    let mapped = Mapped { name: "ada".into(), groups: vec![], roles: vec![], headers: vec![] };
    let tokens = StoredTokens { id: "i", access: "a", refresh: Some("r"), access_expires_in: None };
    let opened = unpack(pack(&record(id, generation), &mapped, None, &tokens).unwrap()).unwrap();
    Box::new(Successor::new(opened, format!("sealed-{generation}"), None, now.after(Duration::from_secs(3_600))))
}

fn successors() -> Arc<Successors> {
    Arc::new(Successors::new(CookieJar::new(&crate::authn::session::cookie::Settings::named("v"), false)))
}

fn begin(all: &Arc<Successors>, record: &Record, now: UnixTime) -> Underway {
    match all.turn(record, now) {
        NextStep::Renew(underway) => underway,
        other => panic!("{other:?}"),
    }
}

fn shown(record: &Record) -> (SessionId, u32) {
    (record.marks.id, record.generation)
}

#[test]
fn one_renews_and_the_others_wait_for_it() {
    let all = successors();
    let old = record(1, 0);
    let underway = begin(&all, &old, NOW);
    let NextStep::Wait(waiting) = all.turn(&old, NOW) else { panic!("nobody waits") };
    assert!(waiting.done.has_changed().is_ok(), "not over yet");
    assert!(all.newest(shown(&old), NOW).is_none());
    underway.finish(Outcome::Renewed(successor(1, 1, NOW)), NOW);
    assert!(waiting.done.has_changed().is_err(), "whoever waits is woken");
    assert_eq!(all.newest(shown(&old), NOW).unwrap().sealed, "sealed-1");
    assert!(all.newest((old.marks.id, 1), NOW).is_none(), "the browser that has it needs it no more");
    assert!(all.newest(shown(&record(2, 0)), NOW).is_none(), "nobody else gets it");
}

#[test]
fn a_refresh_token_is_never_sent_again_unless_it_was_not_used() {
    let all = successors();
    let old = record(1, 4);
    begin(&all, &old, NOW).finish(Outcome::Lost, NOW);
    for seconds in [0, 60, 86_000] {
        assert!(matches!(all.turn(&old, later(seconds)), NextStep::Lost), "{seconds}");
        assert!(matches!(all.turn(&record(1, 3), later(seconds)), NextStep::Lost), "nor is an older one");
    }
    assert!(matches!(all.turn(&record(2, 4), NOW), NextStep::Renew(_)), "another session");

    // Panicking or being cut off in the middle counts as lost too.
    drop(begin(&all, &record(4, 0), NOW));
    assert!(matches!(all.turn(&record(4, 0), NOW), NextStep::Lost));

    begin(&all, &record(3, 0), NOW).finish(Outcome::Unused, NOW);
    assert!(matches!(all.turn(&record(3, 0), NOW), NextStep::Later));
    begin(&all, &record(3, 0), later(1)).finish(Outcome::Unused, later(1));
    assert!(matches!(all.turn(&record(3, 0), later(2)), NextStep::Later), "the pauses grow");
    let mut now = later(3);
    for _ in 0..20 {
        begin(&all, &record(3, 0), now).finish(Outcome::Unused, now);
        now = now.after(LONGEST_PAUSE);
    }
    begin(&all, &record(3, 0), now).finish(Outcome::Renewed(successor(3, 1, now)), now);
    assert!(matches!(all.turn(&record(3, 1), now), NextStep::Renew(_)), "the next generation starts afresh");
}

#[test]
fn old_cookies_get_the_newest_form_until_a_while_after_it_was_given() {
    let all = successors();
    let (first, second) = (record(1, 0), record(1, 1));
    begin(&all, &first, NOW).finish(Outcome::Renewed(successor(1, 1, NOW)), NOW);
    begin(&all, &second, NOW).finish(Outcome::Renewed(successor(1, 2, NOW)), NOW);
    let none = OwnCookies::default();
    let given = |record: &Record, now| all.cookies(shown(record), &none, now).map(|cookies| cookies[0].clone());
    // Nobody has taken it along for an hour, short of the idle time.
    assert!(given(&first, later(3_599)).is_some_and(|cookie| cookie.to_str().unwrap().starts_with("v=sealed-2;")));
    assert!(given(&second, later(3_599)).is_some());
    assert!(given(&first, later(3_601)).is_none(), "that cookie is idle");

    let all = successors();
    begin(&all, &first, NOW).finish(Outcome::Renewed(successor(1, 1, NOW)), NOW);
    let given = |now| all.cookies(shown(&first), &none, now).is_some();
    assert!(given(NOW) && given(later(59)));
    assert!(!given(later(60)), "a copy of the old cookie lives on for no longer than its access token");
    assert!(matches!(all.turn(&first, later(60)), NextStep::Superseded));
}

#[test]
fn what_other_replicas_have_too_is_kept_for_a_while_and_then_asked_for_again() {
    let all = successors();
    let old = record(1, 3);
    let shared = |now: UnixTime| {
        let successor = successor(1, 4, now);
        Outcome::Shared(Box::new(Successor { wanted_until: now.after(GRACE), ..*successor }))
    };
    let first = begin(&all, &old, NOW);
    assert!(!first.is_spent());
    first.finish(shared(NOW), NOW);
    assert!(!all.is_superseded(&old) && all.newest(shown(&old), later(59)).is_some());
    assert!(all.newest(shown(&old), later(60)).is_none());
    // Its token was sent: what is asked for is what came of it, however often that is put off.
    for seconds in [60, 61, 63] {
        let again = begin(&all, &old, later(seconds));
        assert!(again.is_spent());
        again.finish(Outcome::Unused, later(seconds));
    }
    begin(&all, &old, later(100)).finish(shared(later(100)), later(100));
    assert!(all.newest(shown(&old), later(159)).is_some());
    begin(&all, &old, later(160)).finish(Outcome::Superseded, later(160));
    assert!(all.is_superseded(&old) && matches!(all.turn(&old, later(200)), NextStep::Superseded));
    assert!(!begin(&all, &record(1, 4), later(200)).is_spent(), "the next one's was not");
    // The store forgot it.
    let other = record(2, 0);
    begin(&all, &other, NOW).finish(Outcome::Shared(successor(2, 1, NOW)), NOW);
    begin(&all, &other, later(4_000)).finish(Outcome::Lost, later(4_000));
    assert!(matches!(all.turn(&other, later(4_000)), NextStep::Renew(again) if again.is_spent()));
}

#[test]
fn while_a_session_is_renewed_again_older_cookies_still_get_what_there_is() {
    let all = successors();
    begin(&all, &record(1, 0), NOW).finish(Outcome::Renewed(successor(1, 1, NOW)), NOW);
    let underway = begin(&all, &record(1, 1), later(5));
    assert_eq!(all.newest((record(1, 0).marks.id, 0), later(5)).unwrap().sealed, "sealed-1");
    underway.finish(Outcome::Unused, later(5));
    assert_eq!(all.newest((record(1, 0).marks.id, 0), later(6)).unwrap().sealed, "sealed-1");
    assert!(matches!(all.turn(&record(1, 0), later(60)), NextStep::Superseded), "its own token stays spent");
    assert!(matches!(all.turn(&record(1, 1), later(60)), NextStep::Renew(_)));
}

#[test]
fn what_must_not_be_tried_all_the_time_is_tried_once_in_a_while() {
    let all = successors();
    let take =
        |seconds| all.take_turn_once_in(SessionId([1; 16]), Duration::from_secs(60), (later(seconds), later(86_400)));
    assert!(take(0) && !take(0) && !take(59) && take(60));
}

#[test]
fn memory_is_bounded_and_what_is_over_is_forgotten() {
    let mut shard = Shard::default();
    let id = |index: usize| {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(index as u64).to_le_bytes());
        SessionId(id)
    };
    for index in 0..MAX_WAITING + 100 {
        let slot = Slot {
            newest: Some(Arc::new(*successor(1, 1, later(index as u64)))),
            spent: Some(0),
            ..Slot::new(later(86_400))
        };
        shard.slots.insert(id(index), slot);
    }
    shard.tidy(later(3_000));
    let waiting = |shard: &Shard| shard.slots.values().filter(|slot| slot.newest.is_some()).count();
    assert!((MAX_WAITING / 2..=MAX_WAITING).contains(&waiting(&shard)), "{}", waiting(&shard));
    assert!(shard.slots[&id(MAX_WAITING + 99)].newest.is_some() && shard.slots[&id(0)].newest.is_none());
    assert_eq!(shard.slots.len(), MAX_WAITING + 100, "that their tokens are spent is not forgotten");
    shard.tidy(later(86_400));
    assert!(shard.slots.is_empty());

    for index in 0..MAX_SLOTS + 1 {
        shard.slots.insert(id(index), Slot::new(later(90_000 + index as u64)));
    }
    shard.tidy(later(86_401));
    assert!(shard.slots.len() < MAX_SLOTS && shard.slots.contains_key(&id(MAX_SLOTS)));
}
