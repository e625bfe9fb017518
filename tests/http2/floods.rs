//! Frames that cost us more than their sender: the connection is ended, memory stays bounded, others are served.

use std::time::Duration;

use http::StatusCode;
use tokio::time::timeout;
use vestibule_test_support::h2::{frame, header_block};
use vestibule_test_support::{H2Client, H2Frames, Stage};

use super::PUBLIC;

/// RFC 9113 §7.
const NO_ERROR: u32 = 0;
const ENHANCE_YOUR_CALM: u32 = 11;

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
    for (name, one) in [
        ("ping", frame(6, 0, 0, &[0; 8])),
        ("settings", frame(4, 0, 0, &[])),
        ("settings with content", frame(4, 0, 0, &[0, 3, 0, 0, 0, 100])),
        ("priority", frame(2, 0, 1, &[0, 0, 0, 0, 0])),
        ("unknown", frame(0x2a, 0, 0, b"grease")),
    ] {
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
    let host = stage.host();
    let block =
        header_block(&[(":method", "GET"), (":scheme", "http"), (":path", "/slow?ms=100"), (":authority", &host)]);
    let pair = |number: usize| {
        let stream = u32::try_from(number).unwrap() * 2 + 1;
        [frame(1, 0x5, stream, &block), frame(3, 0, stream, &[0, 0, 0, 8])].concat()
    };
    let end = end_of(&stage, 100, |number| (number * 1_000..(number + 1) * 1_000).flat_map(pair).collect()).await;
    assert_eq!(end, Some(ENHANCE_YOUR_CALM));
    assert!(told(&stage).await);
    assert!(stage.upstream.count() < 2_000, "{}", stage.upstream.count());
}

/// The same slowly enough that each request is seen before it is taken back.
#[tokio::test]
async fn requests_taken_back_after_a_look_end_the_connection_too() {
    let stage = Stage::with(PUBLIC);
    let host = stage.host();
    let block =
        header_block(&[(":method", "GET"), (":scheme", "http"), (":path", "/slow?ms=500"), (":authority", &host)]);
    let mut frames = H2Frames::connect(stage.address()).await;
    let flooding = async {
        for number in 0..20_000 {
            let stream = number * 2 + 1;
            let open = frames.write(1, 0x5, stream, &block).await;
            tokio::time::sleep(Duration::from_micros(300)).await;
            if !open || !frames.write(3, 0, stream, &[0, 0, 0, 8]).await {
                break;
            }
        }
        frames.go_away().await
    };
    let end = timeout(Duration::from_secs(30), flooding).await.expect("the connection's end");
    assert!(matches!(end, Some(NO_ERROR | ENHANCE_YOUR_CALM)), "{end:?}");
    assert!(told(&stage).await);
}

/// CVE-2024-27316 and its relatives.
#[tokio::test]
async fn a_header_block_without_an_end_ends_the_connection() {
    let stage = Stage::with(PUBLIC);
    let host = stage.host();
    let block = header_block(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", &host)]);
    let more = header_block(&[("x-more", "some value of a field that goes on and on")]);
    let end = end_of(&stage, 10_000, |number| match number {
        0 => frame(1, 0, 1, &block),
        _ => frame(9, 0, 1, &more),
    })
    .await;
    assert_eq!(end, Some(ENHANCE_YOUR_CALM));
    assert_eq!(stage.upstream.count(), 1, "the other client's");
}

/// CVE-2026-47774: one byte for each crumb, once the first is in the table.
#[tokio::test]
async fn crumbs_by_the_thousand_end_the_connection() {
    let stage = Stage::with(PUBLIC);
    let host = stage.host();
    let mut block = header_block(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", &host)]);
    // RFC 7541 §6.2.1: with indexing; then §6.1: the table's newest, again and again.
    block.extend([0x40, 6]);
    block.extend(b"cookie");
    block.push(100);
    block.extend([b'a'; 100]);
    block.extend([0x80 | 62; 15_000]);
    let end = end_of(&stage, 1, |_| frame(1, 0x5, 1, &block)).await;
    assert_eq!(end, Some(ENHANCE_YOUR_CALM));
    assert_eq!(stage.upstream.count(), 1, "the other client's");
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
