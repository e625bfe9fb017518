//! Many requests on one connection, bodies that break off, and the connection's end.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use vestibule_test_support::h2::{frame, header_block, whole};
use vestibule_test_support::{H2Client, H2Frames, Stage, bytes, raw_request};

use super::{PUBLIC, get, with_cookies};

const SOON: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_hundred_streams_of_one_connection_are_served_side_by_side() {
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    let client = H2Client::connect(stage.address()).await;
    let started = Instant::now();
    let replies = join_all((0..100).map(|number| {
        let request =
            with_cookies(&stage, &browser, get(&stage, &format!("/slow?ms=300&n={number}"))).body(()).unwrap();
        client.send(request, "")
    }))
    .await;
    for (number, reply) in replies.into_iter().enumerate() {
        let reply = reply.unwrap();
        assert_eq!(
            (reply.status, &reply.json()["target"]),
            (StatusCode::OK, &format!("/slow?ms=300&n={number}").into())
        );
    }
    assert!(started.elapsed() < Duration::from_secs(10), "one after the other would be 30 s: {:?}", started.elapsed());
    assert_eq!(stage.upstream.count(), 100);
}

#[tokio::test]
async fn more_streams_than_the_limit_wait_or_are_turned_away_unserved() {
    let stage = Stage::with(&format!("[limits]\nh2_max_streams = 4\n{PUBLIC}"));
    let client = H2Client::connect(stage.address()).await;
    let replies = join_all((0..12).map(|_| client.get("http://localhost/slow?ms=50"))).await;
    assert!(replies.into_iter().all(|reply| reply.unwrap().status == StatusCode::OK));
    stage.upstream.forget();
    // A client that does not keep to it.
    let mut frames = H2Frames::connect(stage.address()).await;
    let host = stage.host();
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", "/slow?ms=500"), (":authority", host.as_str())];
    for number in 0..6 {
        frames.write(1, 0x5, number * 2 + 1, &header_block(&fields)).await;
    }
    let mut refused = Vec::new();
    while refused.len() < 2 {
        let frame = frames.read().await.expect("a frame");
        if frame.kind == 3 {
            assert_eq!(frame.payload, [0, 0, 0, 7], "REFUSED_STREAM");
            refused.push(frame.stream);
        }
    }
    assert_eq!(refused, [9, 11]);
    assert!(stage.upstream.count() <= 4);
}

#[tokio::test]
async fn large_bodies_pass_both_ways_while_others_are_served() {
    const BYTES: usize = 20 << 20;
    let stage = Stage::with(PUBLIC);
    let client = H2Client::connect(stage.address()).await;
    let upload = async {
        let (response, mut sending) =
            client.open(Request::post(stage.url("/up")).body(()).unwrap(), false).await.unwrap();
        let mut left = BYTES;
        while left > 0 {
            sending.reserve_capacity(left.min(64 << 10));
            let room = std::future::poll_fn(|cx| sending.poll_capacity(cx)).await.expect("an open stream").unwrap();
            let piece = room.min(left);
            left -= piece;
            sending.send_data(Bytes::from(vec![7; piece]), left == 0).unwrap();
        }
        whole(response).await.unwrap()
    };
    let get = async |path: &str| client.get(&stage.url(path)).await.unwrap();
    let large = format!("/big?bytes={BYTES}");
    let (up, down, small) = tokio::join!(upload, get(&large), async {
        for _ in 0..20 {
            assert_eq!(get("/small").await.status, StatusCode::OK);
        }
    });
    let () = small;
    assert_eq!(up.json()["body"]["length"], BYTES);
    assert_eq!(down.body.len(), BYTES);
    assert!(down.body.iter().all(|byte| *byte == b'x'));
}

/// An application that sends a head and one piece, tells when its client is gone, and its address.
async fn endless() -> (String, mpsc::UnboundedReceiver<&'static str>) {
    let (tell, told) = mpsc::unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut scrap = [0; 4096];
                let _ = stream.read(&mut scrap).await;
                let _ = tell.send("asked");
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\npiece").await;
                while matches!(stream.read(&mut scrap).await, Ok(count) if count > 0) {}
                let _ = tell.send("gone");
            });
        }
    });
    (url, told)
}

#[tokio::test]
async fn a_stream_that_is_reset_cancels_its_request_and_no_other() {
    let (url, mut told) = endless().await;
    let stage = Stage::with(&format!(
        "[upstream]\nurl = unset\n[upstreams.endless]\nurl = \"{url}\"\n[upstreams.echo]\nurl = \"{{upstream}}\"\n\
         [[routes]]\npath = \"/endless\"\naccess = \"public\"\nupstream = \"endless\"\n\
         [[routes]]\npath = \"/*\"\naccess = \"public\"\nupstream = \"echo\""
    ));
    let client = H2Client::connect(stage.address()).await;
    let (response, mut sending) = client.open(get(&stage, "/endless").body(()).unwrap(), true).await.unwrap();
    let mut body = response.await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "piece");
    assert_eq!(told.recv().await, Some("asked"));
    let slow = client.get("http://localhost/slow?ms=500");
    sending.send_reset(h2::Reason::CANCEL);
    let gone = async { timeout(SOON, told.recv()).await.expect("the application is told") };
    let (slow, gone) = tokio::join!(slow, gone);
    assert_eq!((slow.unwrap().status, gone), (StatusCode::OK, Some("gone")));
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_all_its_requests() {
    let (url, mut told) = endless().await;
    let stage = Stage::with(&format!("[upstream]\nurl = \"{url}\"\n{PUBLIC}"));
    let client = H2Client::connect(stage.address()).await;
    let (first, _sending) = client.open(get(&stage, "/").body(()).unwrap(), true).await.unwrap();
    let (second, _sending) = client.open(get(&stage, "/").body(()).unwrap(), true).await.unwrap();
    let _answers = (first.await.unwrap(), second.await.unwrap());
    drop(client);
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.extend(timeout(SOON, told.recv()).await.expect("the application is told"));
    }
    assert_eq!(seen.iter().filter(|what| **what == "gone").count(), 2);
}

#[tokio::test]
async fn an_application_that_dies_in_mid_body_never_looks_complete() {
    let stage = Stage::with(PUBLIC);
    let client = H2Client::connect(stage.address()).await;
    let (response, _sending) = client.open(get(&stage, "/die-mid-body").body(()).unwrap(), true).await.unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut body = response.into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "ten bytes!");
    let error = body.data().await.expect("no end of the stream").unwrap_err();
    assert!(error.is_reset() && error.is_remote(), "{error}");
    assert_eq!(client.get(&stage.url("/")).await.unwrap().status, StatusCode::OK, "the connection goes on");
}

#[tokio::test]
async fn a_stop_says_so_and_lets_requests_in_flight_finish() {
    let mut stage = Stage::with(PUBLIC);
    let address = stage.address();
    let client = H2Client::connect(address).await;
    let slow = client.get("http://localhost/slow?ms=700");
    let stop = async {
        while stage.upstream.count() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut idle = H2Frames::connect(address).await;
        stage.begin_stop();
        assert_eq!(timeout(SOON, idle.go_away()).await.expect("an end in time"), Some(0));
    };
    let (slow, ()) = tokio::join!(slow, stop);
    assert_eq!(slow.unwrap().status, StatusCode::OK);
    let after = client.get("http://localhost/").await;
    assert!(after.is_err(), "{after:?}");
    let started = Instant::now();
    stage.stop();
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_client_that_answers_no_ping_does_not_hold_up_a_stop() {
    let mut stage = Stage::with(PUBLIC);
    let mut frames = H2Frames::connect(stage.address()).await;
    assert_eq!(frames.read().await.map(|frame| frame.kind), Some(4));
    let started = Instant::now();
    let stop = std::thread::spawn(move || stage.stop());
    assert_eq!(frames.go_away().await, Some(0));
    stop.join().unwrap();
    assert!(started.elapsed() < Duration::from_millis(1_900), "{:?}", started.elapsed());
}

#[tokio::test]
async fn idle_connections_are_told_to_go_and_busy_ones_are_not() {
    let stage = Stage::with(&format!("[limits]\nidle_timeout = \"1s\"\n{PUBLIC}"));
    // Frame by frame: a client that still wants to say its own goodbye finds the connection closed.
    let mut idle = H2Frames::connect(stage.address()).await;
    let host = stage.host();
    let block = header_block(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", &host)]);
    assert!(idle.write_bytes(&frame(1, 0x5, 1, &block)).await);
    let busy = H2Client::connect(stage.address()).await;
    let slow = busy.get("http://localhost/slow?ms=2500");
    let started = Instant::now();
    let (slow, end) = tokio::join!(slow, timeout(SOON, idle.go_away()));
    assert_eq!(slow.unwrap().status, StatusCode::OK);
    assert_eq!(end.expect("an end in time"), Some(0));
    assert_eq!(stage.upstream.count(), 2, "the idle connection had served a request");
    assert!(started.elapsed() < Duration::from_millis(4_500), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_head_that_drips_has_one_deadline() {
    let stage = Stage::with(&format!("[limits]\nheader_timeout = \"1s\"\n{PUBLIC}"));
    let other = H2Client::connect(stage.address()).await;
    let mut frames = H2Frames::connect(stage.address()).await;
    let host = stage.host();
    let block = header_block(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", &host)]);
    let started = Instant::now();
    let dripping = async {
        for byte in frame(1, 0x5, 1, &block) {
            if !frames.write_bytes(&[byte]).await {
                break;
            }
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        frames.go_away().await
    };
    timeout(SOON, dripping).await.expect("an end in time");
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(900) && took < Duration::from_millis(4_500), "{took:?}");
    stage.upstream.assert_untouched();
    // Silence where the preface should go on is the same, in either protocol.
    let silent = raw_request(stage.address(), b"PRI * HTTP/2.0\r\n").await;
    assert!(silent.is_empty(), "{silent:?}");
    assert_eq!(other.get(&stage.url("/")).await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn the_preface_is_known_in_pieces_and_what_only_begins_like_it_is_http_1() {
    let stage = Stage::with(PUBLIC);
    let mut stream = tokio::net::TcpStream::connect(stage.address()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for piece in [&b"P"[..], b"RI * HT", b"TP/2.0\r\n\r\nSM\r\n", b"\r\n\0\0\0\x04", b"\0\0\0\0\0"] {
        stream.write_all(piece).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut head = [0; 9];
    timeout(SOON, stream.read_exact(&mut head)).await.unwrap().unwrap();
    assert_eq!(head[3], 4, "SETTINGS");

    for pieces in [
        &["P", "OST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"][..],
        &["PR", "OPFIND / HTTP/1.1\r\nHost: a\r\n\r\n"],
    ] {
        let mut stream = tokio::net::TcpStream::connect(stage.address()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        for piece in pieces {
            stream.write_all(piece.as_bytes()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut answer = [0; 12];
        timeout(SOON, stream.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200", "{pieces:?}");
    }
    let other = raw_request(stage.address(), b"PRI * HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(other.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&other));
}

#[tokio::test]
async fn a_stream_that_is_not_read_is_reset_though_others_of_its_connection_are_read() {
    const BYTES: u64 = 64 << 20;
    let folder = tempfile::tempdir().unwrap();
    std::fs::File::create(folder.path().join("large")).unwrap().set_len(BYTES).unwrap();
    let stage = Stage::with(&format!(
        "[limits]\nunread_timeout = \"1s\"\n[upstreams.site]\nfiles = {:?}\n[[routes]]\npath = \"/large\"\n\
         access = \"public\"\nupstream = \"site\"\n{PUBLIC}",
        folder.path()
    ));
    // What one stream leaves unread must not take the window of the others.
    let client =
        H2Client::connect_with(stage.address(), h2::client::Builder::new().initial_connection_window_size(1 << 20))
            .await;
    for (number, path) in ["/large".to_owned(), format!("/big?bytes={BYTES}")].iter().enumerate() {
        let request = Request::get(stage.url(path)).body(()).unwrap();
        let (response, _sending) = client.open(request, true).await.unwrap();
        let response = timeout(SOON, response).await.unwrap().unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let counted = format!("vestibule_refusals_total{{reason=\"unread\"}} {}", number + 1);
        let end = Instant::now() + SOON;
        while !stage.browser().fetch(&stage.admin_url("/metrics")).await.text().contains(&counted) {
            assert!(Instant::now() < end, "{path} is not given up");
            assert_eq!(client.get(&stage.url("/other")).await.unwrap().status, StatusCode::OK);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // What had come, and then no end that could be taken for the whole.
        let mut body = response.into_body();
        let mut length = 0;
        let outcome = loop {
            match timeout(SOON, body.data()).await.expect("an end") {
                Some(Ok(data)) => {
                    length += data.len() as u64;
                    body.flow_control().release_capacity(data.len()).unwrap();
                }
                outcome => break outcome,
            }
        };
        assert!(matches!(outcome, Some(Err(_))) && length < BYTES, "{path}: {length} {outcome:?}");
    }
    assert_eq!(client.get(&stage.url("/other")).await.unwrap().status, StatusCode::OK);
}
