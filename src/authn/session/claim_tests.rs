//! What a replica takes for one renewal it gives back where it sends nothing, whatever the store heard or said of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::record::Record;
use super::shared::SharedRenewals;
use super::stored::StoredSessions;
use super::stored::tests::{packed, record, sealers, ticket_of_record};
use super::successors::Outcome;
use crate::clock::{Clock as _, SystemClock};
use crate::store::{Fault, Store};

/// Long enough for a release that is told late, and shorter than whatever was taken would last.
const A_WHILE: Duration = Duration::from_secs(5);
/// Long enough for one that is tried again.
const A_MOMENT: Duration = Duration::from_millis(1_200);

fn shared() -> (Store, Arc<SharedRenewals>, Record) {
    let store = Store::memory(Handle::current());
    let shared = SharedRenewals::new(store.clone(), sealers().0, Handle::current());
    (store, shared, record())
}

/// Takes the step, and never hears that it is ours.
async fn claim_unheard(store: &Store, shared: &Arc<SharedRenewals>, record: &Record, is_spent: bool) {
    store.suffer(Some(Fault::Unheard));
    assert!(shared.claim(record, record.issued_at, is_spent, || ()).await.is_err());
    store.suffer(None);
}

#[tokio::test]
async fn a_step_whose_answers_were_lost_is_there_for_whoever_comes_next() {
    let (store, shared, record) = shared();
    claim_unheard(&store, &shared, &record, false).await;
    let next = tokio::time::timeout(A_WHILE, shared.claim(&record, record.issued_at, false, || ())).await;
    assert!(next.is_ok_and(|claimed| claimed.is_ok()), "the refresh token was never sent");
}

#[tokio::test]
async fn a_step_that_could_not_be_given_back_is_given_back_later() {
    let (store, shared, record) = shared();
    let step = shared.claim(&record, record.issued_at, false, || ()).await.unwrap();
    store.suffer(Some(Fault::Away));
    shared.give_back(step).await;
    tokio::time::sleep(A_MOMENT).await;
    store.suffer(None);
    let next = tokio::time::timeout(A_WHILE, shared.claim(&record, record.issued_at, false, || ())).await;
    assert!(next.is_ok_and(|claimed| claimed.is_ok()));
}

#[tokio::test]
async fn a_step_that_was_lost_is_not_given_back() {
    let (store, shared, record) = shared();
    let step = shared.claim(&record, record.issued_at, false, || ()).await.unwrap();
    shared.lose(step, &record, record.issued_at).await;
    claim_unheard(&store, &shared, &record, false).await;
    tokio::time::sleep(A_MOMENT).await;
    let next = shared.claim(&record, record.issued_at, false, || ()).await;
    assert!(matches!(next, Err(super::shared::Elsewhere::Lost)), "{next:?}");
}

#[tokio::test]
async fn a_step_for_what_was_sent_before_is_not_given_back() {
    let (store, shared, record) = shared();
    claim_unheard(&store, &shared, &record, true).await;
    let next = tokio::time::timeout(A_WHILE, shared.claim(&record, record.issued_at, false, || ())).await;
    assert!(next.is_err(), "it is taken until it counts as lost");
}

#[tokio::test]
async fn a_lease_whose_answers_were_lost_is_there_for_whoever_comes_next() {
    let store = Store::memory(Handle::current());
    let clock = Arc::new(SystemClock);
    let stored = StoredSessions::new(store.clone(), sealers().1, Duration::from_secs(60), Handle::current(), clock);
    let ticket = ticket_of_record();
    let expires_at = SystemClock.now().after(Duration::from_secs(86_400));
    stored.create(&ticket, &Record { expires_at, ..record() }, packed()).await.unwrap();
    let place = stored.ask(&ticket).await.unwrap().unwrap().place(ticket);
    store.suffer(Some(Fault::Unheard));
    assert!(matches!(stored.claim(&place, || (), || None).await, Err(Outcome::Unused)));
    store.suffer(None);
    let lease = tokio::time::timeout(A_WHILE, stored.claim(&place, || (), || None)).await;
    let lease = lease.expect("it is given back").expect("its refresh token was never sent");
    store.suffer(Some(Fault::Away));
    stored.give_back(lease).await;
    tokio::time::sleep(A_MOMENT).await;
    store.suffer(None);
    let again = tokio::time::timeout(A_WHILE, stored.claim(&place, || (), || None)).await;
    assert!(again.is_ok_and(|claimed| claimed.is_ok()));
}
