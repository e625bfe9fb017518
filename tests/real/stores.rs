//! What stores promise, kept by real ones: also when they are killed and come back.

use std::path::Path;
use std::time::{Duration, Instant};

use vestibule::store::{Bid, Leased, Location, Put, Stepped, Store, StoreError, Topic};
use vestibule_test_support::runtime;
use vestibule_test_support::stores::{Postgres, Redis};

use crate::store::contract;

const HOUR: Duration = Duration::from_secs(3600);

fn at(location: &str) -> Store {
    let location = Location::parse(location, Path::new("/")).expect("a location");
    Store::new(&location, runtime().handle().clone()).expect("a store")
}

#[tokio::test]
async fn redis_keeps_what_a_store_promises() {
    let redis = Redis::start(&[]);
    contract::holds(&at(&format!("redis://{}", redis.address()))).await;
}

#[tokio::test]
async fn valkey_keeps_what_a_store_promises() {
    let valkey = Redis::valkey();
    contract::holds(&at(&format!("redis://{}/2?prefix=another", valkey.address()))).await;
}

/// What a server counts, by the beginning of its line in `INFO`.
fn number_of(redis: &Redis, of: &str) -> u64 {
    let told = redis.cli(&["INFO", "all"]);
    let line = told.lines().find_map(|line| line.strip_prefix(of)).unwrap_or("0").to_owned();
    let number: String = line.chars().take_while(char::is_ascii_digit).collect();
    number.parse().unwrap()
}

#[tokio::test]
async fn of_twenty_thousand_sessions_a_page_is_two_questions() {
    let redis = Redis::start(&[]);
    let store = at(&format!("redis://{}", redis.address()));
    contract::records_that_vanish_while_they_are_listed_take_no_other_along(&store, 20_000).await;
    let asked = |of: &str| number_of(&redis, of);
    let before = [asked("total_reads_processed:"), asked("cmdstat_zscan:calls="), asked("cmdstat_pttl:calls=")];
    let (mut from, mut records) = (None, 0);
    loop {
        let page = store.list(vestibule::store::Filter::All, from).await.unwrap();
        records += page.records.len();
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    let after = [asked("total_reads_processed:"), asked("cmdstat_zscan:calls="), asked("cmdstat_pttl:calls=")];
    let [reads, pages, spans] = [0, 1, 2].map(|at| after[at] - before[at]);
    assert!(records > 19_000 && pages >= 64, "{records} {pages}");
    // Beside those of the questions for these numbers.
    assert!(reads <= 2 * pages + 20, "{reads} reads for {pages} pages");
    assert_eq!(spans, 0);
}

#[tokio::test]
async fn twenty_thousand_sessions_are_ended_by_a_few_hundred_round_trips() {
    let redis = Redis::start(&[]);
    let store = at(&format!("redis://{}", redis.address()));
    contract::records_that_vanish_while_they_are_listed_take_no_other_along(&store, 20_000).await;
    let asked = |of: &str| number_of(&redis, of);
    let before = [asked("total_reads_processed:"), asked("cmdstat_zscan:calls=")];
    let (mut from, mut gone) = (None, 0);
    loop {
        let swept = store.sweep(vestibule::store::Filter::All, u64::MAX / 4, from).await.unwrap();
        gone += swept.owners.len();
        from = swept.next;
        if from.is_none() {
            break;
        }
    }
    let after = [asked("total_reads_processed:"), asked("cmdstat_zscan:calls=")];
    let [reads, pages] = [0, 1].map(|at| after[at] - before[at]);
    // To list them, to take them away, to forget their names; and for these numbers.
    assert!(gone > 19_000 && reads <= 4 * pages + 20, "{gone} gone by {reads} reads, {pages} pages");
    assert_eq!(redis.cli(&["DBSIZE"]).trim().trim_start_matches("(integer) "), "0");
}

#[tokio::test]
async fn postgresql_keeps_what_a_store_promises() {
    let postgres = Postgres::start();
    contract::holds(&at(&postgres.location())).await;
    // Replicas that start at once make the tables once.
    let others = (0..6).map(|_| at(&postgres.location()));
    let asked = others.map(|store| tokio::spawn(async move { store.get(contract::fresh()).await }));
    for one in asked.collect::<Vec<_>>() {
        assert_eq!(one.await.unwrap().unwrap(), None);
    }
}

/// While it is away, every call is an error within its bound and none is a miss; afterwards all of it is there.
async fn comes_back(store: &Store, mut kill: impl FnMut(), mut begin: impl FnMut()) {
    let (handle, version) = contract::created(store, b"kept").await;
    let Leased::Granted(lease) = store.try_lease(handle, version, Bid::new(), HOUR).await.unwrap() else {
        panic!("no lease")
    };
    let position = store.read(Topic::Ended, None, Duration::ZERO).await.unwrap().position;
    let waiting = tokio::spawn({
        let (store, position) = (store.clone(), position.clone());
        async move { store.read(Topic::Ended, Some(position), Duration::from_secs(20)).await }
    });
    let (series, bid) = (contract::fresh(), Bid::new());
    let step = async || store.take_step(series, 1, bid, (HOUR, HOUR)).await;
    assert!(matches!(step().await, Ok(Stepped::Ours(_))));
    kill();
    let begun = Instant::now();
    for _ in 0..3 {
        for error in [
            store.get(handle).await.map(drop),
            store.try_lease(handle, version, Bid::new(), HOUR).await.map(drop),
            store.replace(lease, b"new".to_vec()).await.map(drop),
            store.delete(handle).await.map(drop),
            step().await.map(drop),
            store.publish(Topic::Ended, b"x".to_vec(), HOUR).await,
            store.read(Topic::Ended, Some(position.clone()), Duration::from_millis(10)).await.map(drop),
        ] {
            let error = error.expect_err("it is away");
            assert!(
                matches!(error, StoreError::Away(_) | StoreError::Timeout | StoreError::Busy(_)),
                "an outage is no other error: {error:?}"
            );
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(40), "each is bounded: {:?}", begun.elapsed());
    begin();
    let kept = contract::within(async || store.get(handle).await.ok()).await.expect("what was acknowledged");
    assert_eq!((kept.bytes.as_slice(), kept.version), (&b"kept"[..], version));
    let put = contract::within(async || store.replace(lease, b"new".to_vec()).await.ok()).await;
    assert!(matches!(put, Put::Kept(_)), "{put:?}");
    assert!(matches!(contract::within(async || step().await.ok()).await, Stepped::Ours(_)));
    let other = store.take_step(series, 1, Bid::new(), (HOUR, HOUR)).await.unwrap();
    assert!(matches!(other, Stepped::Busy(_)), "{other:?}");
    // Whoever followed goes on where it stopped, whether it noticed or not.
    let mut position = waiting.await.unwrap().map_or(position, |news| news.position);
    contract::within(async || store.publish(Topic::Ended, b"after".to_vec(), HOUR).await.ok()).await;
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        assert!(Instant::now() < end, "the news does not come");
        let Ok(news) = store.read(Topic::Ended, Some(position.clone()), Duration::from_secs(1)).await else { continue };
        if news.messages.contains(&b"after".to_vec()) {
            return;
        }
        position = news.position;
    }
}

#[tokio::test]
async fn redis_may_be_killed_and_nothing_acknowledged_is_lost() {
    let redis = Redis::start(&[]);
    let store = at(&format!("redis://{}", redis.address()));
    let redis = std::cell::RefCell::new(redis);
    comes_back(&store, || redis.borrow_mut().kill(), || redis.borrow_mut().begin()).await;
}

#[tokio::test]
async fn postgresql_may_be_killed_and_nothing_acknowledged_is_lost() {
    let postgres = Postgres::start();
    let store = at(&postgres.location());
    let postgres = std::cell::RefCell::new(postgres);
    comes_back(&store, || postgres.borrow_mut().kill(), || postgres.borrow_mut().begin()).await;
}

#[tokio::test]
async fn whoever_may_not_is_told_so_and_a_foreign_key_is_no_record() {
    let redis = Redis::start(&["--requirepass", "right"]);
    let address = redis.address();
    let error = at(&format!("redis://:wrong@{address}")).get(contract::fresh()).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
    let error = at(&format!("redis://{address}")).get(contract::fresh()).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
    let store = at(&format!("redis://:right@{address}"));
    let handle = contract::fresh();
    let key = [b"vestibule:s:", &handle.bytes()[..]].concat();
    let client = redis::Client::open(format!("redis://:right@{address}")).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    for (command, arguments) in [("SET", vec!["x"]), ("HSET", vec!["b", "x", "v", "many"]), ("HSET", vec!["b", "x"])] {
        let _: () = redis::cmd("DEL").arg(&key).query_async(&mut connection).await.unwrap();
        let _: redis::Value = redis::cmd(command).arg(&key).arg(&arguments).query_async(&mut connection).await.unwrap();
        let error = store.get(handle).await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt(_)), "{command}: {error:?}");
    }
}

#[tokio::test]
async fn a_cluster_keeps_what_a_store_promises_wherever_its_keys_go() {
    let nodes = Redis::cluster();
    let store = at(&format!("redis+cluster://{}", nodes[0].address()));
    contract::holds(&store).await;
    // A slot moves to another node: whoever asks the old one is sent on.
    let mut handles = Vec::new();
    for _ in 0..30 {
        handles.push(contract::created(&store, b"here").await.0);
    }
    let done = std::process::Command::new("redis-cli")
        .args(["--cluster", "rebalance", &nodes[0].address().to_string(), "--cluster-use-empty-masters"])
        .args(["--cluster-threshold", "1", "--cluster-weight", &weights(&nodes)])
        .output()
        .expect("redis-cli");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    for handle in handles {
        let kept = contract::within(async || store.get(handle).await.ok()).await;
        assert_eq!(kept.map(|kept| kept.bytes).as_deref(), Some(&b"here"[..]));
    }
}

#[tokio::test]
async fn what_a_cluster_acknowledged_is_at_a_replica_and_outlives_the_node_that_it_was_written_to() {
    let mut nodes = Redis::cluster_of(1);
    let addresses: Vec<_> = nodes.iter().map(|node| node.address().to_string()).collect();
    let store = at(&format!("redis+cluster://{}", addresses.join(",")));
    let mut leased = Vec::new();
    for _ in 0..30 {
        let (handle, version) = contract::created(&store, b"here").await;
        let series = contract::fresh();
        let begun = store.take_step(series, 1, Bid::new(), (HOUR, HOUR)).await.unwrap();
        assert!(matches!(begun, Stepped::Ours(_)), "{begun:?}");
        let lease = store.try_lease(handle, version, Bid::new(), HOUR).await.unwrap();
        assert!(matches!(lease, Leased::Granted(_)), "{lease:?}");
        leased.push((handle, version, series));
    }
    // At once: what nobody waited for would be lost as often as not.
    nodes[0].kill();
    for (handle, version, series) in leased {
        let again = contract::within(async || store.try_lease(handle, version, Bid::new(), HOUR).await.ok()).await;
        assert!(matches!(again, Leased::Busy(_)), "the lease is remembered: {again:?}");
        let spans = (HOUR, HOUR);
        let again = contract::within(async || store.take_step(series, 1, Bid::new(), spans).await.ok()).await;
        assert!(matches!(again, Stepped::Busy(_)), "and so is the step: {again:?}");
    }
}

/// Most of the slots for the first node.
fn weights(nodes: &[Redis]) -> String {
    let address = nodes[0].address().to_string();
    let id = std::process::Command::new("redis-cli")
        .args(["-p", address.rsplit(':').next().unwrap_or_default(), "cluster", "myid"])
        .output()
        .expect("redis-cli");
    format!("{}=2", String::from_utf8_lossy(&id.stdout).trim())
}

#[tokio::test]
async fn sentinels_name_another_master_and_the_store_goes_on_there() {
    let (mut servers, sentinels) = Redis::sentinels();
    let addresses: Vec<_> = sentinels.iter().map(|sentinel| sentinel.address().to_string()).collect();
    let store = at(&format!("redis+sentinel://{}/main", addresses.join(",")));
    contract::holds(&store).await;
    let (handle, _) = contract::created(&store, b"kept").await;
    // It is copied at once, but not before the answer.
    tokio::time::sleep(Duration::from_millis(300)).await;
    servers[0].kill();
    assert!(store.get(handle).await.is_err(), "an outage is no miss");
    let kept = contract::within(async || store.get(handle).await.ok()).await.expect("the record");
    assert_eq!(kept.bytes, b"kept");
    contract::within(async || store.create(contract::fresh(), contract::owner(), vec![1], HOUR).await.ok()).await;
}

#[tokio::test]
async fn a_user_with_few_rights_over_tls_is_enough() {
    let folder = vestibule_test_support::tempfile::tempdir().unwrap();
    let made = std::process::Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/real/make-certificates"))
        .arg(folder.path())
        .output()
        .expect("certificates");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (certificate, key) = (file("server.pem"), file("server.key"));
    let rights = "--user vestibule on >right ~vestibule:* resetchannels +eval +evalsha +script|load +hmget +hget +hset \
                  +exists +pexpire +pttl +del +zadd +zrem +zscan +zremrangebyscore +xadd +xread +xrange +xdel +time";
    let mut arguments: Vec<&str> = rights.split_whitespace().collect();
    arguments.extend(["--user", "default", "off", "--tls-auth-clients", "no", "--port", "0", "--tls-port", "{port}"]);
    arguments.extend(["--tls-cert-file", &certificate, "--tls-key-file", &key]);
    let redis = Redis::start(&arguments);
    let address = redis.address();
    let ca = file("ca.pem");
    contract::holds(&at(&format!("rediss://vestibule:right@{address}?ca_file={ca}"))).await;
    for location in [format!("rediss://vestibule:right@{address}"), format!("redis://vestibule:right@{address}")] {
        let error = at(&location).get(contract::fresh()).await.unwrap_err();
        assert!(matches!(error, StoreError::Away(_) | StoreError::Timeout), "{location}: {error:?}");
    }
    let wrong = at(&format!("rediss://vestibule:wrong@{address}?ca_file={ca}"));
    let error = wrong.get(contract::fresh()).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
}
