//! What every store promises, asked of one after the other.

use std::time::{Duration, Instant};

use vestibule::store::{Filter, Handle, LARGEST, Lease, Leased, Owner, Put, Store, StoreError, Topic, Version};

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);
/// How long anything that must happen may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// All of it.
pub(crate) async fn holds(store: &Store) {
    a_record_is_what_was_written_and_only_once(store).await;
    a_lease_is_one_holders_and_ends_with_the_write(store).await;
    a_holder_that_fell_silent_is_told_of_and_writes_no_more(store).await;
    whatever_is_deleted_or_has_expired_never_comes_back(store).await;
    of_many_who_ask_at_once_one_gets_the_lease(store).await;
    large_records_and_all_bytes_are_kept(store).await;
    records_are_listed_by_whose_they_are(store).await;
    what_is_told_reaches_everybody_once_and_in_order(store).await;
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
    match store.try_lease(handle, version, ttl).await.unwrap() {
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
    let busy = store.try_lease(handle, first, HOUR).await.unwrap();
    assert!(matches!(busy, Leased::Busy(rest) if rest <= HOUR && rest > HOUR / 2), "{busy:?}");
    assert!(store.release(lease).await.unwrap());
    let lease = granted(store, handle, first, HOUR).await;
    let Put::Kept(second) = store.replace(lease, b"two".to_vec()).await.unwrap() else { panic!("refused") };
    assert!(second > first);
    assert_eq!(store.replace(lease, b"two".to_vec()).await.unwrap(), Put::Kept(second), "asked again");
    assert_eq!(store.replace(lease, b"three".to_vec()).await.unwrap(), Put::Refused, "a late write");
    assert!(!store.release(lease).await.unwrap());
    assert_eq!(bytes(store, handle).await.as_deref(), Some(&b"two"[..]));
    assert_eq!(store.try_lease(handle, first, HOUR).await.unwrap(), Leased::Newer);
    granted(store, handle, second, HOUR).await;
}

async fn a_holder_that_fell_silent_is_told_of_and_writes_no_more(store: &Store) {
    let (handle, version) = created(store, b"one").await;
    let silent = granted(store, handle, version, Duration::from_millis(300)).await;
    let next = within(async || match store.try_lease(handle, version, HOUR).await.unwrap() {
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

async fn whatever_is_deleted_or_has_expired_never_comes_back(store: &Store) {
    let (handle, version) = created(store, b"one").await;
    let lease = granted(store, handle, version, HOUR).await;
    assert!(store.delete(handle).await.unwrap());
    assert!(!store.delete(handle).await.unwrap());
    assert_eq!(store.replace(lease, b"two".to_vec()).await.unwrap(), Put::Refused);
    assert_eq!(store.try_lease(handle, version, HOUR).await.unwrap(), Leased::Gone);
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
        tokio::spawn(async move { store.try_lease(handle, version, HOUR).await.unwrap() })
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

async fn what_is_told_reaches_everybody_once_and_in_order(store: &Store) {
    let told = |number: u32| store.publish(Topic::Ended, number.to_be_bytes().to_vec(), HOUR);
    let start = store.read(Topic::Ended, None, Duration::ZERO).await.unwrap().position;
    for number in 0..10 {
        told(number).await.unwrap();
    }
    store.publish(Topic::Renewed, b"another topic".to_vec(), HOUR).await.unwrap();
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
