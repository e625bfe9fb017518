//! Frames that cost us more than their sender: the connection is ended, memory stays bounded, others are served.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use http::StatusCode;
use tokio::time::timeout;
use vestibule_test_support::h2::{frame, header_block};
use vestibule_test_support::{H2Client, H2Frames, Site, Stage};

use super::PUBLIC;

/// RFC 9113 §7.
const NO_ERROR: u32 = 0;
const ENHANCE_YOUR_CALM: u32 = 11;

/// A request's header block.
fn get(host: &str, path: &str) -> Vec<u8> {
    header_block(&[(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", host)])
}

/// Frames that ask for nothing.
fn idle_talk() -> [(&'static str, Vec<u8>); 6] {
    [
        ("ping", frame(6, 0, 0, &[0; 8])),
        ("settings", frame(4, 0, 0, &[])),
        ("settings with content", frame(4, 0, 0, &[0, 3, 0, 0, 0, 100])),
        ("priority", frame(2, 0, 1, &[0, 0, 0, 0, 0])),
        ("window update", frame(8, 0, 0, &[0, 0, 0, 1])),
        ("unknown", frame(0x2a, 0, 0, b"grease")),
    ]
}

/// The `number`th thousand of requests that are taken back at once.
fn taken_back(host: &str, number: usize) -> Vec<u8> {
    let block = get(host, "/slow?ms=100");
    let pair = |number: usize| {
        let stream = u32::try_from(number).unwrap() * 2 + 1;
        [frame(1, 0x5, stream, &block), frame(3, 0, stream, &[0, 0, 0, 8])].concat()
    };
    (number * 1_000..(number + 1) * 1_000).flat_map(pair).collect()
}

/// The `number`th piece of a header block without an end.
fn endless(host: &str, number: usize) -> Vec<u8> {
    match number {
        0 => frame(1, 0, 1, &get(host, "/")),
        _ => frame(9, 0, 1, &header_block(&[("x-more", "some value of a field that goes on and on")])),
    }
}

/// A request of which most is 15,000 crumbs of a cookie.
fn crumbs(host: &str) -> Vec<u8> {
    let mut block = get(host, "/");
    // RFC 7541 §6.2.1: with indexing; then §6.1: the table's newest, again and again.
    block.extend([0x40, 6]);
    block.extend(b"cookie");
    block.push(100);
    block.extend([b'a'; 100]);
    block.extend([0x80 | 62; 15_000]);
    frame(1, 0x5, 1, &block)
}

/// Takes each request back once it has been looked at, until the connection ends or for `most` of them; how it ended.
async fn take_back_slowly(address: SocketAddr, host: &str, most: u32) -> Option<u32> {
    let block = get(host, "/slow?ms=500");
    let mut frames = H2Frames::connect(address).await;
    let flooding = async {
        for number in 0..most {
            let stream = number * 2 + 1;
            let open = frames.write(1, 0x5, stream, &block).await;
            tokio::time::sleep(Duration::from_micros(300)).await;
            if !open || !frames.write(3, 0, stream, &[0, 0, 0, 8]).await {
                break;
            }
        }
        frames.go_away().await
    };
    timeout(Duration::from_secs(30), flooding).await.expect("the connection's end")
}

/// Writes `flood` until nobody takes it any more or it was written `most` times, and tells how the connection ended, while
/// another client is served.
async fn end_of(stage: &Stage, most: usize, flood: impl FnMut(usize) -> Vec<u8>) -> Option<u32> {
    let other = H2Client::connect(stage.address()).await;
    let end = H2Frames::connect(stage.address()).await.flood(most, flood).await;
    assert_eq!(other.get(&stage.url("/")).await.unwrap().status, StatusCode::OK);
    end
}

async fn told(stage: &Stage) -> bool {
    for _ in 0..100 {
        let metrics = stage.browser().fetch(&stage.admin_url("/metrics")).await.text();
        if metrics.lines().any(|line| line.contains("http2_flood") && !line.ends_with(" 0")) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

#[tokio::test]
async fn pings_settings_priorities_and_empty_data_end_the_connection() {
    for (name, one) in idle_talk() {
        let stage = Stage::with(PUBLIC);
        let many = one.repeat(100);
        assert_eq!(end_of(&stage, 1_000, |_| many.clone()).await, Some(NO_ERROR), "{name}");
        assert!(told(&stage).await, "{name}");
        stage.browser().fetch(&stage.url("/")).await;
    }
}

/// CVE-2023-44487.
#[tokio::test]
async fn requests_taken_back_at_once_end_the_connection() {
    let stage = Stage::with(PUBLIC);
    let end = end_of(&stage, 100, |number| taken_back(&stage.host(), number)).await;
    assert_eq!(end, Some(ENHANCE_YOUR_CALM));
    assert!(told(&stage).await);
    assert!(stage.upstream.count() < 2_000, "{}", stage.upstream.count());
}

/// The same slowly enough that each request is seen before it is taken back.
#[tokio::test]
async fn requests_taken_back_after_a_look_end_the_connection_too() {
    let stage = Stage::with(PUBLIC);
    let end = take_back_slowly(stage.address(), &stage.host(), 20_000).await;
    assert!(matches!(end, Some(NO_ERROR | ENHANCE_YOUR_CALM)), "{end:?}");
    assert!(told(&stage).await);
}

/// CVE-2024-27316 and its relatives.
#[tokio::test]
async fn a_header_block_without_an_end_ends_the_connection() {
    let stage = Stage::with(PUBLIC);
    let end = end_of(&stage, 10_000, |number| endless(&stage.host(), number)).await;
    assert_eq!(end, Some(ENHANCE_YOUR_CALM));
    assert_eq!(stage.upstream.count(), 1, "the other client's");
}

/// CVE-2026-47774: one byte for each crumb, once the first is in the table.
#[tokio::test]
async fn crumbs_by_the_thousand_end_the_connection() {
    let stage = Stage::with(PUBLIC);
    let end = end_of(&stage, 1, |_| crumbs(&stage.host())).await;
    assert_eq!(end, Some(ENHANCE_YOUR_CALM));
    assert_eq!(stage.upstream.count(), 1, "the other client's");
}

/// One flood after the other against the program itself: had each frame or each connection left anything behind, there would be
/// more of it in the end.
#[tokio::test]
async fn floods_leave_nothing_behind_in_the_programs_memory() {
    const PROGRAM: &str = env!("CARGO_BIN_EXE_vestibule");
    /// The most that ten rounds may add once two have been, in bytes: 52 for each of a thousand frames that a connection takes.
    const COST: u64 = 1 << 19;
    const ROUNDS: usize = 12;
    let site = Site::of(PROGRAM);
    let program = site.start(site.launch().env("VESTIBULE_CONFIG", site.file("open.toml", PUBLIC))).await;
    let (address, host) = (site.address(), format!("localhost:{}", site.port));
    type Make<'m> = Box<dyn Fn(usize) -> Vec<u8> + 'm>;
    let mut floods: Vec<(&str, usize, Make<'_>)> = vec![
        ("requests taken back", 100, Box::new(|number| taken_back(&host, number))),
        ("continuations", 10_000, Box::new(|number| endless(&host, number))),
        ("crumbs", 1, Box::new(|_| crumbs(&host))),
    ];
    for (name, one) in idle_talk() {
        let many = one.repeat(100);
        floods.push((name, 1_000, Box::new(move |_| many.clone())));
    }
    for (name, most, make) in &floods {
        let mut before = 0;
        for round in 0..ROUNDS {
            let end = H2Frames::connect(address).await.flood(*most, make).await;
            assert!(matches!(end, Some(NO_ERROR | ENHANCE_YOUR_CALM)), "{name}: {end:?}");
            assert_eq!(site.browser().fetch(&site.url("/")).await.status, StatusCode::OK, "{name}");
            if round == 1 {
                program.forget_peak_memory();
                before = program.peak_memory();
            }
        }
        let growth = program.peak_memory().saturating_sub(before);
        assert!(growth < COST, "{name}: {} KiB more", growth / 1024);
    }
    // Of these, ten at a time, each connection has some hundreds looked at: 200 bytes for each.
    const SEEN_COST: u64 = 1 << 21;
    let mut before = 0;
    for round in 0..7 {
        let ends = join_all((0..10).map(|_| take_back_slowly(address, &host, 1_000))).await;
        assert!(ends.iter().all(Option::is_some), "{ends:?}");
        if round == 2 {
            program.forget_peak_memory();
            before = program.peak_memory();
        }
    }
    let growth = program.peak_memory().saturating_sub(before);
    assert!(growth < SEEN_COST, "requests taken back after a look: {} KiB more", growth / 1024);
}

#[tokio::test]
async fn what_an_ordinary_client_does_is_no_flood() {
    let stage = Stage::with(PUBLIC);
    let client = H2Client::connect(stage.address()).await;
    for _ in 0..300 {
        let reply = client.get(&stage.url("/big?bytes=100000")).await.unwrap();
        assert_eq!((reply.status, reply.body.len()), (StatusCode::OK, 100_000));
    }
    for number in 0..300 {
        let (response, mut sending) = client
            .open(http::Request::get(stage.url(&format!("/slow?ms=20&n={number}"))).body(()).unwrap(), true)
            .await
            .unwrap();
        if number % 2 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            sending.send_reset(h2::Reason::CANCEL);
        } else {
            assert_eq!(response.await.unwrap().status(), StatusCode::OK);
        }
    }
    assert_eq!(client.get(&stage.url("/")).await.unwrap().status, StatusCode::OK);
}
