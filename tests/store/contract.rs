//! What every store promises, asked of one after the other.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use vestibule::store::{
    Bid, Filter, Handle, LARGEST, Lease, Leased, Owner, Put, Step, Stepped, Store, StoreError, Topic, Version,
};

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);
/// How long anything that must happen may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// All of it.
pub(crate) async fn holds(store: &Store) {
    a_record_is_what_was_written_and_only_once(store).await;
    a_lease_is_one_holders_and_ends_with_the_write(store).await;
    a_holder_that_fell_silent_is_told_of_and_writes_no_more(store).await;
    a_lease_whose_answer_was_lost_is_still_its_bidders(store).await;
    whatever_is_deleted_or_has_expired_never_comes_back(store).await;
    of_many_who_ask_at_once_one_gets_the_lease(store).await;
    large_records_and_all_bytes_are_kept(store).await;
    records_are_listed_by_whose_they_are(store).await;
    records_that_vanish_while_they_are_listed_take_no_other_along(store, 500).await;
    many_are_taken_away_together_and_nothing_newer_and_nobody_elses(store, 1_300).await;
    what_is_told_reaches_everybody_once_and_in_order(store).await;
    a_step_is_taken_once_and_what_it_brought_is_there_for_others(store).await;
    a_step_that_brought_nothing_is_nobodys_again(store).await;
    of_many_who_ask_at_once_one_takes_the_step(store).await;
}

pub(crate) fn fresh() -> Handle {
    let mut id = [0; 16];
    aws_lc_rs::rand::fill(&mut id).unwrap();
    Handle::new(id)
}

pub(crate) fn owner() -> Owner {
    let mut subject = [0; 16];
    aws_lc_rs::rand::fill(&mut subject).unwrap();
    Owner { party: [7; 16], subject }
}

pub(crate) async fn created(store: &Store, bytes: &[u8]) -> (Handle, Version) {
    let handle = fresh();
    match store.create(handle, owner(), bytes.to_vec(), HOUR).await {
        Ok(Put::Kept(version)) => (handle, version),
        other => panic!("{other:?}"),
    }
}

async fn granted(store: &Store, handle: Handle, version: Version, ttl: Duration) -> Lease {
    match store.try_lease(handle, version, Bid::new(), ttl).await.unwrap() {
        Leased::Granted(lease) => lease,
        other => panic!("{other:?}"),
    }
}

async fn bytes(store: &Store, handle: Handle) -> Option<Vec<u8>> {
    store.get(handle).await.unwrap().map(|kept| kept.bytes)
}

async fn a_record_is_what_was_written_and_only_once(store: &Store) {
    assert_eq!(store.get(fresh()).await.unwrap(), None);
    let (handle, version) = created(store, b"one").await;
    let kept = store.get(handle).await.unwrap().unwrap();
    assert_eq!((kept.bytes.as_slice(), kept.version), (&b"one"[..], version));
    assert_eq!(store.create(handle, owner(), b"two".to_vec(), HOUR).await.unwrap(), Put::Refused);
    assert_eq!(
        store.create(handle, owner(), b"one".to_vec(), HOUR).await.unwrap(),
        Put::Kept(version),
        "a write whose answer was lost is asked again"
    );
    assert_eq!(bytes(store, handle).await.as_deref(), Some(&b"one"[..]));
}

async fn a_lease_is_one_holders_and_ends_with_the_write(store: &Store) {
    let (handle, first) = created(store, b"one").await;
    let lease = granted(store, handle, first, HOUR).await;
    assert!(lease.lasts(SECOND) && !lease.lasts(HOUR));
    let busy = store.try_lease(handle, first, Bid::new(), HOUR).await.unwrap();
    assert!(matches!(busy, Leased::Busy(rest) if rest <= HOUR && rest > HOUR / 2), "{busy:?}");
    assert!(store.release(lease).await.unwrap());
    let lease = granted(store, handle, first, HOUR).await;
    let Put::Kept(second) = store.replace(lease, b"two".to_vec()).await.unwrap() else { panic!("refused") };
    assert!(second > first);
    assert_eq!(store.replace(lease, b"two".to_vec()).await.unwrap(), Put::Kept(second), "asked again");
    assert_eq!(store.replace(lease, b"three".to_vec()).await.unwrap(), Put::Refused, "a late write");
    assert!(!store.release(lease).await.unwrap());
    assert_eq!(bytes(store, handle).await.as_deref(), Some(&b"two"[..]));
    assert_eq!(store.try_lease(handle, first, Bid::new(), HOUR).await.unwrap(), Leased::Newer);
    granted(store, handle, second, HOUR).await;
}

async fn a_holder_that_fell_silent_is_told_of_and_writes_no_more(store: &Store) {
    let (handle, version) = created(store, b"one").await;
    let silent = granted(store, handle, version, Duration::from_millis(300)).await;
    let next = within(async || match store.try_lease(handle, version, Bid::new(), HOUR).await.unwrap() {
        Leased::Abandoned(lease) => Some(lease),
        Leased::Busy(_) => None,
        other => panic!("{other:?}"),
    });
    let next = next.await;
    assert!(!silent.lasts(Duration::ZERO), "it was over for its holder first");
    assert_eq!(store.replace(silent, b"late".to_vec()).await.unwrap(), Put::Refused);
    assert!(!store.release(silent).await.unwrap());
    assert_eq!(bytes(store, handle).await.as_deref(), Some(&b"one"[..]));
    assert!(matches!(store.replace(next, b"two".to_vec()).await.unwrap(), Put::Kept(_)));

    // Late, but nobody came in between: what the provider answered is not lost.
    let (handle, version) = created(store, b"one").await;
    let late = granted(store, handle, version, Duration::from_millis(50)).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(matches!(store.replace(late, b"two".to_vec()).await.unwrap(), Put::Kept(_)));
}

async fn a_lease_whose_answer_was_lost_is_still_its_bidders(store: &Store) {
    let (handle, version) = created(store, b"one").await;
    let bid = Bid::new();
    let ask = async |bid, ttl| store.try_lease(handle, version, bid, ttl).await.unwrap();
    assert!(matches!(ask(bid, Duration::from_millis(400)).await, Leased::Granted(_)));
    assert!(matches!(ask(bid, HOUR).await, Leased::Granted(_)), "the same question, the same answer");
    tokio::time::sleep(Duration::from_millis(600)).await;
    let busy = ask(Bid::new(), HOUR).await;
    assert!(matches!(busy, Leased::Busy(rest) if rest > HOUR / 2), "it lasts from the last question on: {busy:?}");
    let Leased::Granted(lease) = ask(bid, Duration::from_millis(50)).await else { panic!("not granted") };
    // Ours as long as nobody came in between, and then with its mark, however often it is asked.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(matches!(ask(bid, Duration::from_millis(50)).await, Leased::Granted(_)));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let other = Bid::new();
    for _ in 0..2 {
        assert!(matches!(ask(other, HOUR).await, Leased::Abandoned(_)));
    }
    assert!(matches!(ask(bid, HOUR).await, Leased::Busy(_)));
    assert_eq!(store.replace(lease, b"late".to_vec()).await.unwrap(), Put::Refused);
    let Leased::Abandoned(lease) = ask(other, HOUR).await else { panic!("not abandoned") };
    assert!(store.release(lease).await.unwrap());
    for bid in [other, Bid::new()] {
        let Leased::Abandoned(lease) = ask(bid, HOUR).await else { panic!("given back, it bears the mark still") };
        assert!(store.release(lease).await.unwrap());
    }
}

async fn whatever_is_deleted_or_has_expired_never_comes_back(store: &Store) {
    let (handle, version) = created(store, b"one").await;
    let lease = granted(store, handle, version, HOUR).await;
    assert!(store.delete(handle).await.unwrap());
    assert!(!store.delete(handle).await.unwrap());
    assert_eq!(store.replace(lease, b"two".to_vec()).await.unwrap(), Put::Refused);
    assert_eq!(store.try_lease(handle, version, Bid::new(), HOUR).await.unwrap(), Leased::Gone);
    assert_eq!(store.get(handle).await.unwrap(), None);

    let handle = fresh();
    let Put::Kept(version) = store.create(handle, owner(), b"x".to_vec(), SECOND).await.unwrap() else { panic!() };
    let lease = granted(store, handle, version, HOUR).await;
    // A write does not lengthen its life.
    assert!(matches!(store.replace(lease, b"y".to_vec()).await.unwrap(), Put::Kept(_)));
    within(async || store.get(handle).await.unwrap().is_none().then_some(())).await;
    assert_eq!(store.replace(lease, b"z".to_vec()).await.unwrap(), Put::Refused);
}

async fn of_many_who_ask_at_once_one_gets_the_lease(store: &Store) {
    let (handle, version) = created(store, b"one").await;
    let asking = (0..32).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.try_lease(handle, version, Bid::new(), HOUR).await.unwrap() })
    });
    let mut granted = 0;
    for one in asking.collect::<Vec<_>>() {
        match one.await.unwrap() {
            Leased::Granted(_) => granted += 1,
            Leased::Busy(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(granted, 1);
}

async fn large_records_and_all_bytes_are_kept(store: &Store) {
    let mut large: Vec<u8> = (0..LARGEST).map(|at| (at % 251) as u8).collect();
    let (handle, _) = created(store, &large).await;
    assert!(bytes(store, handle).await.as_deref() == Some(&large));
    large.push(0);
    assert!(matches!(store.create(fresh(), owner(), large, HOUR).await, Err(StoreError::TooLarge)));
    let every: Vec<u8> = (0..=255).collect();
    let (handle, _) = created(store, &every).await;
    assert_eq!(bytes(store, handle).await, Some(every));
    let (handle, _) = created(store, b"").await;
    assert_eq!(bytes(store, handle).await, Some(Vec::new()));
}

async fn listed(store: &Store, filter: Filter) -> Vec<Handle> {
    let (mut all, mut from) = (Vec::new(), None);
    for _ in 0..10_000 {
        let page = store.list(filter, from).await.unwrap();
        for record in page.records {
            assert!(record.created <= record.changed && record.changed < record.expires, "{record:?}");
            all.push(record.handle);
        }
        let Some(next) = page.next else {
            all.sort();
            all.dedup();
            return all;
        };
        from = Some(next);
    }
    panic!("the list has no end")
}

async fn records_are_listed_by_whose_they_are(store: &Store) {
    let (mut ada, mut bob) = (owner(), owner());
    // Of their own, whatever other tests left behind.
    ada.party = ada.subject;
    bob.party = ada.party;
    let mut of_ada = Vec::new();
    let mut of_bob = Vec::new();
    for number in 0..450 {
        let (handle, owner) = (fresh(), if number % 3 == 0 { bob } else { ada });
        store.create(handle, owner, vec![1; 8], HOUR).await.unwrap();
        let found = store.find(handle).await.unwrap().expect("it is there");
        assert_eq!((found.handle, found.owner), (handle, owner));
        if owner == ada { of_ada.push(handle) } else { of_bob.push(handle) }
    }
    of_ada.sort();
    of_bob.sort();
    assert_eq!(listed(store, Filter::Owner(ada)).await, of_ada);
    assert_eq!(listed(store, Filter::Owner(bob)).await, of_bob);
    assert_eq!(listed(store, Filter::Owner(Owner { party: [0; 16], subject: ada.subject })).await, []);
    assert_eq!(listed(store, Filter::Party(ada.party)).await.len(), 450);
    let all = listed(store, Filter::All).await;
    assert!(of_ada.iter().chain(&of_bob).all(|handle| all.binary_search(handle).is_ok()));
    for handle in &of_bob {
        assert!(store.delete(*handle).await.unwrap());
    }
    assert_eq!(listed(store, Filter::Owner(bob)).await, []);
    assert_eq!(listed(store, Filter::Party(ada.party)).await, of_ada);
    let gone = of_bob[0];
    store.delete(gone).await.unwrap();
    assert_eq!(store.find(gone).await.unwrap(), None);
    assert_eq!(store.find(fresh()).await.unwrap(), None);
}

pub(crate) async fn records_that_vanish_while_they_are_listed_take_no_other_along(store: &Store, count: usize) {
    let (mut ada, mut bob) = (owner(), owner());
    ada.party = ada.subject;
    bob.party = ada.party;
    let mut handles: Vec<_> = (0..count).map(|_| fresh()).collect();
    for some in handles.chunks(100) {
        let create = |(at, handle): (usize, &Handle)| {
            let (store, handle, owner) = (store.clone(), *handle, if at % 10 == 0 { bob } else { ada });
            async move { store.create(handle, owner, vec![1; 8], HOUR).await.unwrap() }
        };
        futures_util::future::join_all(some.iter().enumerate().map(create)).await;
    }
    handles.sort();
    let (mut seen, mut gone, mut from) = (HashSet::new(), HashSet::new(), None);
    loop {
        let page = store.list(Filter::Party(ada.party), from).await.unwrap();
        assert!(page.records.iter().all(|record| record.owner == ada || record.owner == bob));
        seen.extend(page.records.iter().map(|record| record.handle));
        // One that was seen, and one that was not, whichever that is.
        let unseen = handles.iter().find(|handle| !seen.contains(*handle) && !gone.contains(*handle)).copied();
        for handle in [page.records.last().map(|record| record.handle), unseen].into_iter().flatten() {
            store.delete(handle).await.unwrap();
            gone.insert(handle);
        }
        let Some(next) = page.next else { break };
        from = Some(next);
    }
    handles.retain(|handle| !gone.contains(handle));
    assert!(handles.iter().all(|handle| seen.contains(handle)), "none that stays is left out");
    let left = listed(store, Filter::Party(ada.party)).await;
    assert_eq!(left, handles);
    let of_both = [listed(store, Filter::Owner(ada)).await, listed(store, Filter::Owner(bob)).await];
    assert!(of_both[1].len() < of_both[0].len());
    let mut of_both = of_both.concat();
    of_both.sort();
    assert_eq!(of_both, handles);
}

/// As many by one person, a tenth by another, half of both too late; of a party of their own.
async fn many(store: &Store, count: usize) -> (Owner, Owner, u64) {
    let (mut ada, mut bob) = (owner(), owner());
    ada.party = ada.subject;
    bob.party = ada.party;
    let create = |count: usize| async move {
        for at in (0..count).step_by(20) {
            let some = (at..count.min(at + 20)).map(|at| {
                let owner = if at % 10 == 0 { bob } else { ada };
                store.create(fresh(), owner, vec![1; 8], HOUR)
            });
            for put in futures_util::future::join_all(some).await {
                assert!(matches!(put, Ok(Put::Kept(_))), "{put:?}");
            }
        }
    };
    create(count / 2).await;
    let until = store.time().await.unwrap() / 1000;
    // By the store's own clock.
    while store.time().await.unwrap() / 1000 <= until + 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    create(count - count / 2).await;
    (ada, bob, until)
}

async fn swept(store: &Store, filter: Filter, until: u64) -> Vec<Owner> {
    let (mut owners, mut from) = (Vec::new(), None);
    loop {
        let some = store.sweep(filter, until, from).await.unwrap();
        owners.extend(some.owners);
        let Some(next) = some.next else { return owners };
        from = Some(next);
    }
}

/// Of all that this store holds, so that nothing else may be in it that is wanted later.
pub(crate) async fn many_are_taken_away_together_and_nothing_newer_and_nobody_elses(store: &Store, count: usize) {
    let (ada, bob, until) = many(store, count).await;
    let left = async |filter| listed(store, filter).await.len();
    let both = Filter::Party(ada.party);
    let before = [left(Filter::Owner(ada)).await, left(Filter::Owner(bob)).await];
    assert_eq!((before[0] + before[1], left(both).await), (count, count));
    let gone = swept(store, Filter::Owner(bob), until).await;
    assert!(gone.iter().all(|owner| *owner == bob) && gone.len().abs_diff(before[1] / 2) <= 1, "{}", gone.len());
    assert_eq!(left(Filter::Owner(ada)).await, before[0], "nobody else's");
    assert_eq!(left(Filter::Owner(bob)).await, before[1] - gone.len());
    let others = swept(store, both, until).await;
    assert!(others.iter().all(|owner| *owner == ada));
    assert_eq!(gone.len() + others.len(), count / 2);
    assert_eq!(left(both).await, count - count / 2, "what was created later stays");
    assert_eq!(swept(store, both, until).await, []);
    let all = swept(store, Filter::All, u64::MAX / 4).await;
    assert!(all.len() >= count - count / 2 && all.contains(&ada) && all.contains(&bob));
    assert_eq!((left(Filter::All).await, left(Filter::Owner(ada)).await, left(both).await), (0, 0, 0));
}

async fn what_is_told_reaches_everybody_once_and_in_order(store: &Store) {
    let told = |number: u32| store.publish(Topic::Ended, number.to_be_bytes().to_vec(), HOUR);
    let start = store.read(Topic::Ended, None, Duration::ZERO).await.unwrap().position;
    for number in 0..10 {
        told(number).await.unwrap();
    }
    store.publish(Topic::Ended, b"short".to_vec(), Duration::from_millis(1)).await.unwrap();
    for _reader in 0..2 {
        let mut position = start.clone();
        let mut heard = Vec::new();
        while heard.len() < 10 {
            let news = store.read(Topic::Ended, Some(position), SECOND).await.unwrap();
            heard.extend(news.messages.into_iter().filter(|message| message.len() == 4));
            position = news.position;
        }
        assert_eq!(heard, (0..10_u32).map(|number| number.to_be_bytes().to_vec()).collect::<Vec<_>>());
        let rest = store.read(Topic::Ended, Some(position), Duration::from_millis(100)).await.unwrap();
        assert!(rest.messages.iter().all(|message| message == b"short"), "{rest:?}");
    }
    // Whoever waits is woken.
    let latest = store.read(Topic::Ended, None, Duration::ZERO).await.unwrap().position;
    let waiting = tokio::spawn({
        let (store, latest) = (store.clone(), latest.clone());
        async move {
            let mut position = latest;
            loop {
                let news = store.read(Topic::Ended, Some(position), Duration::from_secs(20)).await.unwrap();
                if news.messages.iter().any(|message| message == b"wake") {
                    return Instant::now();
                }
                position = news.position;
            }
        }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    store.publish(Topic::Ended, b"wake".to_vec(), HOUR).await.unwrap();
    let sent = Instant::now();
    let heard = waiting.await.unwrap();
    assert!(heard.saturating_duration_since(sent) < SECOND, "{:?}", heard - sent);
    let late = store.read(Topic::Ended, None, Duration::ZERO).await.unwrap();
    assert!(late.messages.iter().any(|message| message == b"wake"), "whoever starts later hears of it too");
}

/// Of a series that is remembered for an hour.
async fn stepped(store: &Store, series: Handle, number: u64, bid: Bid, lease: Duration) -> Stepped {
    store.take_step(series, number, bid, (lease, HOUR)).await.unwrap()
}

async fn taken(store: &Store, series: Handle, number: u64) -> Step {
    match stepped(store, series, number, Bid::new(), HOUR).await {
        Stepped::Ours(step) => step,
        other => panic!("{other:?}"),
    }
}

/// What a step that is over brought.
async fn brought(store: &Store, series: Handle, number: u64) -> Option<Vec<u8>> {
    match stepped(store, series, number, Bid::new(), HOUR).await {
        Stepped::Over(brought) => brought.map(|brought| {
            assert!(!brought.left.is_zero() && brought.left <= HOUR, "{brought:?}");
            brought.bytes
        }),
        other => panic!("{other:?}"),
    }
}

async fn a_step_is_taken_once_and_what_it_brought_is_there_for_others(store: &Store) {
    let (series, other) = (fresh(), fresh());
    let bid = Bid::new();
    for _ in 0..2 {
        let Stepped::Ours(step) = stepped(store, series, 1, bid, HOUR).await else { panic!("asked again") };
        assert!(step.lasts(SECOND) && !step.lasts(HOUR));
    }
    let busy = stepped(store, series, 1, Bid::new(), HOUR).await;
    assert!(matches!(busy, Stepped::Busy(rest) if rest <= HOUR && rest > HOUR / 2), "{busy:?}");
    let _other_series = taken(store, other, 1).await;
    let Stepped::Ours(first) = stepped(store, series, 1, bid, HOUR).await else { panic!() };
    for _ in 0..2 {
        assert!(store.finish_step(first, Some((b"one".to_vec(), HOUR)), HOUR).await.unwrap(), "asked again");
    }
    assert_eq!(brought(store, series, 1).await.as_deref(), Some(&b"one"[..]));
    assert!(
        matches!(stepped(store, series, 1, bid, HOUR).await, Stepped::Over(Some(_))),
        "not even by whoever took it"
    );
    // While the next is under way, whoever is two behind still gets what there is.
    let second = taken(store, series, 2).await;
    assert_eq!(brought(store, series, 1).await.as_deref(), Some(&b"one"[..]));
    assert!(store.finish_step(second, Some((b"two".to_vec(), HOUR)), HOUR).await.unwrap());
    assert!(!store.finish_step(first, Some((b"late".to_vec(), HOUR)), HOUR).await.unwrap());
    for number in [1, 2] {
        assert_eq!(brought(store, series, number).await.as_deref(), Some(&b"two"[..]), "{number}");
    }
    // It goes, and that it was taken stays.
    store.shorten_step(series, 1, Duration::from_millis(1)).await.unwrap();
    assert!(brought(store, series, 2).await.is_some(), "that was another step's");
    store.shorten_step(series, 2, Duration::from_millis(200)).await.unwrap();
    store.shorten_step(series, 2, HOUR).await.unwrap();
    within(async || brought(store, series, 2).await.is_none().then_some(())).await;
    assert_eq!(brought(store, series, 1).await, None);
    // Given back, it is the next one's.
    let third = taken(store, series, 3).await;
    assert!(store.release_step(third).await.unwrap());
    assert!(!store.release_step(third).await.unwrap());
    assert_eq!(brought(store, series, 2).await, None);
    let third = taken(store, series, 3).await;
    assert!(store.finish_step(third, Some((vec![0; 20_000], Duration::from_millis(1))), HOUR).await.unwrap());
    within(async || brought(store, series, 3).await.is_none().then_some(())).await;
    let too_large = vec![0; LARGEST + 1];
    let fourth = taken(store, series, 4).await;
    let refused = store.finish_step(fourth, Some((too_large, HOUR)), HOUR).await;
    assert!(matches!(refused, Err(StoreError::TooLarge)), "{refused:?}");
    // The first of all too.
    let series = fresh();
    let first = taken(store, series, 1).await;
    assert!(store.release_step(first).await.unwrap());
    taken(store, series, 1).await;
    // A series that nobody knows any more begins anew, and a step that was taken in it is taken all the same.
    let series = fresh();
    let Stepped::Ours(step) = store.take_step(series, 7, Bid::new(), (HOUR, Duration::from_millis(50))).await.unwrap()
    else {
        panic!("a new series")
    };
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(store.finish_step(step, Some((b"seven".to_vec(), HOUR)), HOUR).await.unwrap());
    assert_eq!(brought(store, series, 7).await.as_deref(), Some(&b"seven"[..]));
}

async fn a_step_that_brought_nothing_is_nobodys_again(store: &Store) {
    let series = fresh();
    let first = taken(store, series, 1).await;
    assert!(store.finish_step(first, None, HOUR).await.unwrap());
    assert_eq!(stepped(store, series, 1, Bid::new(), HOUR).await, Stepped::Lost);
    // Whoever falls silent.
    let series = fresh();
    let bid = Bid::new();
    let Stepped::Ours(silent) = stepped(store, series, 1, bid, Duration::from_millis(100)).await else { panic!() };
    within(async || match stepped(store, series, 1, Bid::new(), HOUR).await {
        Stepped::Lost => Some(()),
        Stepped::Busy(_) => None,
        other => panic!("{other:?}"),
    })
    .await;
    // What comes late is there for all that.
    assert!(store.finish_step(silent, Some((b"late".to_vec(), HOUR)), HOUR).await.unwrap());
    assert_eq!(brought(store, series, 1).await.as_deref(), Some(&b"late"[..]));
    // And what a step brought outlives that the next one is lost.
    let second = taken(store, series, 2).await;
    assert!(store.finish_step(second, None, HOUR).await.unwrap());
    assert_eq!(brought(store, series, 1).await.as_deref(), Some(&b"late"[..]));
    assert_eq!(stepped(store, series, 2, Bid::new(), HOUR).await, Stepped::Lost);
    taken(store, series, 3).await;
}

async fn of_many_who_ask_at_once_one_takes_the_step(store: &Store) {
    let series = fresh();
    let asking = (0..32).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { stepped(&store, series, 1, Bid::new(), HOUR).await })
    });
    let mut taken = 0;
    for one in asking.collect::<Vec<_>>() {
        match one.await.unwrap() {
            Stepped::Ours(_) => taken += 1,
            Stepped::Busy(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(taken, 1);
}

/// Asks until there is an answer.
pub(crate) async fn within<T>(ask: impl AsyncFn() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = ask().await {
            return value;
        }
        assert!(Instant::now() < end, "it does not happen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
