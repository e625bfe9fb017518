//! Large, slow and broken-off bodies, upgrades and waits, against an application that is written here byte by byte.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use vestibule::upstream::UpstreamSettings;
use vestibule_test_support::{Request, Stage, raw_request};

const PUBLIC: &str = "[[routes]]\npath = \"/*\"\naccess = \"public\"";
const MIB: u64 = 1 << 20;
/// What the kernel may hold of a body on its two ways through the loopback, and we with it.
const IN_BETWEEN: u64 = 32 * MIB;

/// An application that does with each connection what `serve` does; its address.
async fn application<F, Served>(serve: F) -> String
where
    F: Fn(TcpStream) -> Served + Send + 'static,
    Served: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    url
}

/// A stage whose application is `url`, open to everybody.
fn in_front_of(url: &str) -> Stage {
    Stage::with(&format!("[upstream]\nurl = \"{url}\"\n{PUBLIC}"))
}

/// Reads to the blank line; what came beyond it stays unread.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

async fn connect(stage: &Stage, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect(stage.address()).await.unwrap();
    stream.write_all(head.replace("{host}", &stage.host()).as_bytes()).await.unwrap();
    stream
}

/// A piece whose length is prime, so that one that is lost, doubled or displaced changes the whole.
fn piece() -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..65_521).map(|_| next()).collect()
}

/// The pieces that make up `total` bytes.
fn pieces(piece: &[u8], total: u64) -> impl Iterator<Item = &[u8]> {
    let length = piece.len() as u64;
    (0..total.div_ceil(length)).map(move |number| &piece[..(total - number * length).min(length) as usize])
}

fn hex(digest: &digest::Digest) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes of memory that this process holds, at their highest while `what` runs, less those before.
async fn memory_growth(what: impl Future<Output = ()>) -> u64 {
    fn resident() -> u64 {
        let pages: u64 =
            std::fs::read_to_string("/proc/self/statm").unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        pages * 4096
    }
    let before = resident();
    let over = Arc::new(AtomicBool::new(false));
    let watcher = std::thread::spawn({
        let over = over.clone();
        move || {
            let mut most = before;
            while !over.load(Ordering::Relaxed) {
                most = most.max(resident());
                std::thread::sleep(Duration::from_millis(10));
            }
            most - before
        }
    });
    what.await;
    over.store(true, Ordering::Relaxed);
    watcher.join().unwrap()
}

#[tokio::test]
async fn two_hundred_mebibytes_pass_both_ways_unchanged_and_in_flat_memory() {
    const TOTAL: u64 = 200 * MIB;
    let piece = piece();
    let mut sum = digest::Context::new(&digest::SHA256);
    pieces(&piece, TOTAL).for_each(|piece| sum.update(piece));
    let sum = hex(&sum.finish());

    let down = application({
        let piece = piece.clone();
        move |mut stream| {
            let piece = piece.clone();
            async move {
                head(&mut stream).await;
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {TOTAL}\r\n\r\n");
                stream.write_all(head.as_bytes()).await.unwrap();
                for piece in pieces(&piece, TOTAL) {
                    stream.write_all(piece).await.unwrap();
                }
            }
        }
    })
    .await;
    let stage = Stage::with(&format!(
        "[upstream]\nurl = unset\n[upstreams.up]\nurl = \"{{upstream}}\"\n[upstreams.down]\nurl = \"{down}\"\n\
         [[routes]]\npath = \"/up\"\naccess = \"public\"\nupstream = \"up\"\n\
         [[routes]]\npath = \"/*\"\naccess = \"public\"\nupstream = \"down\""
    ));
    let growth = memory_growth(async {
        for framing in [format!("Content-Length: {TOTAL}"), "Transfer-Encoding: chunked".to_owned()] {
            let chunked = framing.ends_with("chunked");
            let request = format!("POST /up HTTP/1.1\r\nHost: {{host}}\r\nConnection: close\r\n{framing}\r\n\r\n");
            let mut stream = connect(&stage, &request).await;
            for piece in pieces(&piece, TOTAL) {
                if chunked {
                    stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await.unwrap();
                }
                stream.write_all(piece).await.unwrap();
                if chunked {
                    stream.write_all(b"\r\n").await.unwrap();
                }
            }
            if chunked {
                stream.write_all(b"0\r\n\r\n").await.unwrap();
            }
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(&sum), "{framing}: {answer}");
        }
        let mut stream = connect(&stage, "GET /down HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").await;
        let head = head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let (mut seen, mut total, mut buffer) = (digest::Context::new(&digest::SHA256), 0, vec![0; 256 * 1024]);
        loop {
            let count = stream.read(&mut buffer).await.unwrap();
            if count == 0 {
                break;
            }
            seen.update(&buffer[..count]);
            total += count as u64;
        }
        assert_eq!((total, hex(&seen.finish())), (TOTAL, sum.clone()));
    })
    .await;
    // Other tests run in the same process: this tells a body that is gathered from one that is not.
    assert!(growth < TOTAL / 2, "{} MiB more", growth / MIB);
}

#[tokio::test]
async fn an_application_that_reads_slowly_slows_the_client_down() {
    const TOTAL: u64 = 64 * MIB;
    let (go, gate) = oneshot::channel::<()>();
    let gate = Arc::new(std::sync::Mutex::new(Some(gate)));
    let url = application(move |mut stream| {
        let gate = gate.lock().unwrap().take();
        async move {
            head(&mut stream).await;
            if let Some(gate) = gate {
                gate.await.unwrap();
            }
            let (mut total, mut buffer) = (0, vec![0; 256 * 1024]);
            while total < TOTAL {
                total += stream.read(&mut buffer).await.unwrap() as u64;
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        }
    })
    .await;
    let stage = in_front_of(&url);
    let request = format!("POST / HTTP/1.1\r\nHost: {{host}}\r\nConnection: close\r\nContent-Length: {TOTAL}\r\n\r\n");
    let mut stream = connect(&stage, &request).await;
    let piece = vec![7; 64 * 1024];
    let mut sent = 0;
    while let Ok(written) = timeout(Duration::from_millis(500), stream.write(&piece)).await {
        sent += written.unwrap() as u64;
        assert!(sent < IN_BETWEEN, "{} MiB were taken in for an application that reads nothing", sent / MIB);
    }
    go.send(()).unwrap();
    while sent < TOTAL {
        let left = (TOTAL - sent).min(piece.len() as u64) as usize;
        sent += stream.write(&piece[..left]).await.unwrap() as u64;
    }
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_client_that_reads_slowly_slows_the_application_down() {
    const TOTAL: u64 = 64 * MIB;
    let written = Arc::new(AtomicU64::new(0));
    let url = application({
        let written = written.clone();
        move |mut stream| {
            let written = written.clone();
            async move {
                head(&mut stream).await;
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {TOTAL}\r\n\r\n");
                stream.write_all(head.as_bytes()).await.unwrap();
                let piece = vec![7; 64 * 1024];
                while written.load(Ordering::Relaxed) < TOTAL {
                    let count = stream.write(&piece).await.unwrap();
                    written.fetch_add(count as u64, Ordering::Relaxed);
                }
            }
        }
    })
    .await;
    let stage = in_front_of(&url);
    let mut stream = connect(&stage, "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").await;
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 200"));
    // Until nothing moves any more.
    let mut before = u64::MAX;
    while before != written.load(Ordering::Relaxed) {
        before = written.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(before < IN_BETWEEN, "{} MiB were taken in for a client that reads nothing", before / MIB);
    let (mut total, mut buffer) = (0, vec![0; 256 * 1024]);
    while total < TOTAL {
        let count = stream.read(&mut buffer).await.unwrap();
        assert!(count > 0, "{total}");
        total += count as u64;
    }
}

#[tokio::test]
async fn a_refusal_of_the_application_reaches_a_client_that_is_still_sending() {
    const TOTAL: u64 = 50 * MIB;
    let url = application(|mut stream| async move {
        head(&mut stream).await;
        let refusal = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 9\r\nConnection: close\r\n\r\ntoo large";
        stream.write_all(refusal).await.unwrap();
        let mut scrap = vec![0; 64 * 1024];
        let reading = async { while matches!(stream.read(&mut scrap).await, Ok(count) if count > 0) {} };
        let _ = timeout(Duration::from_millis(700), reading).await;
    })
    .await;
    let stage = in_front_of(&url);
    let request = format!("POST / HTTP/1.1\r\nHost: {{host}}\r\nContent-Length: {TOTAL}\r\n\r\n");
    let clients = (0..5).map(|_| async {
        let stream = connect(&stage, &request).await;
        let (mut read, mut write) = stream.into_split();
        let sending = tokio::spawn(async move {
            let piece = vec![7; 64 * 1024];
            for _ in 0..TOTAL / piece.len() as u64 {
                if write.write_all(&piece).await.is_err() {
                    return;
                }
                // A client with a line of its own, not one that is done before it is told.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        while !answer.ends_with(b"too large") {
            let count = timeout(Duration::from_secs(5), read.read(&mut buffer)).await.expect("an answer").unwrap();
            assert!(count > 0, "{}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&buffer[..count]);
        }
        sending.abort();
        String::from_utf8(answer).unwrap()
    });
    for answer in futures_util::future::join_all(clients).await {
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_while_the_application_thinks_is_noticed_at_once() {
    let (asked, mut questions) = mpsc::unbounded_channel();
    let (ended, mut ends) = mpsc::unbounded_channel();
    let url = application(move |mut stream| {
        let (asked, ended) = (asked.clone(), ended.clone());
        async move {
            head(&mut stream).await;
            asked.send(()).unwrap();
            let _ = stream.read_u8().await;
            let _ = ended.send(());
        }
    })
    .await;
    let stage = in_front_of(&url);
    let stream = connect(&stage, "GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").await;
    questions.recv().await.unwrap();
    drop(stream);
    timeout(Duration::from_secs(1), ends.recv()).await.expect("the application is told").unwrap();
}

#[tokio::test]
async fn a_client_that_goes_away_in_mid_stream_is_noticed_at_once() {
    let (ended, mut ends) = mpsc::unbounded_channel();
    let url = application(move |mut stream| {
        let ended = ended.clone();
        async move {
            head(&mut stream).await;
            let mut event = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: x\n\n";
            while stream.write_all(event.as_bytes()).await.is_ok() {
                event = "data: x\n\n";
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let _ = ended.send(());
        }
    })
    .await;
    let stage = in_front_of(&url);
    let mut stream = connect(&stage, "GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").await;
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 200"));
    let _ = stream.read_u8().await.unwrap();
    drop(stream);
    timeout(Duration::from_secs(1), ends.recv()).await.expect("the application is told").unwrap();
}

#[tokio::test]
async fn an_answer_that_breaks_off_in_any_way_breaks_off_for_the_client() {
    for (framing, reset) in
        [("Content-Length: 1000", false), ("Content-Length: 1000", true), ("chunked", false), ("chunked", true)]
    {
        let url = application(move |mut stream| async move {
            head(&mut stream).await;
            let answer = if framing == "chunked" {
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nten bytes!\r\n".to_owned()
            } else {
                format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\nten bytes!")
            };
            stream.write_all(answer.as_bytes()).await.unwrap();
            // Time for the beginning to arrive, since a reset may overtake it.
            tokio::time::sleep(Duration::from_millis(100)).await;
            if reset {
                stream.set_zero_linger().unwrap();
            }
        })
        .await;
        let stage = in_front_of(&url);
        let mut stream = connect(&stage, "GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").await;
        let head = head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{framing} {reset}: {head}");
        let mut body = Vec::new();
        // The end of the connection or a reset, and never the end of the body.
        let _ = timeout(Duration::from_secs(2), stream.read_to_end(&mut body)).await.expect("an end");
        let body = String::from_utf8(body).unwrap();
        assert!(body.contains("ten bytes!") && !body.contains("\r\n0\r\n"), "{framing} {reset}: {body}");
        let announced = head.to_ascii_lowercase().contains("content-length: 1000");
        assert_eq!(announced, framing != "chunked", "{head}");
    }
}

#[tokio::test]
async fn an_answer_may_take_as_long_as_the_limit_says_and_a_minute_by_default() {
    let defaults = UpstreamSettings::default();
    assert!(defaults.response_timeout >= Duration::from_secs(60) && defaults.idle_timeout >= Duration::from_secs(60));
    // The same at a sixtieth: 35 s of 60.
    let stage = Stage::with(&format!("[upstream]\nresponse_timeout = \"1s\"\n{PUBLIC}"));
    assert_eq!(stage.browser().fetch(&stage.url("/slow?ms=583")).await.status, StatusCode::OK);
    // An answer that has begun has no such limit.
    let reply = stage.browser().fetch(&stage.url("/sse?events=4&every_ms=500")).await;
    assert_eq!((reply.status, reply.text().matches("tick").count()), (StatusCode::OK, 4));
}

#[tokio::test]
async fn informational_answers_end_here() {
    let url = application(|mut stream| async move {
        head(&mut stream).await;
        let answers = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n\
                       HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        stream.write_all(answers.as_bytes()).await.unwrap();
        let _ = stream.read_u8().await;
    })
    .await;
    let stage = in_front_of(&url);
    let request = format!("GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", stage.host());
    let answer = String::from_utf8(raw_request(stage.address(), request.as_bytes()).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nok"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
}

#[tokio::test]
async fn a_client_that_waits_for_100_gets_it_only_when_its_body_is_wanted() {
    const ROUTES: &str = "[[routes]]\npath = \"/public/*\"\naccess = \"public\"";
    let stage = Stage::with(ROUTES);
    let ask = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: {{host}}\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
        )
    };
    let mut stream = connect(&stage, &ask("/public/x")).await;
    assert_eq!(head(&mut stream).await, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(stage.upstream.last().body_text, "hello");

    stage.upstream.forget();
    let refused = raw_request(stage.address(), ask("/x").replace("{host}", &stage.host()).as_bytes()).await;
    let refused = String::from_utf8(refused).unwrap();
    assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");
    stage.upstream.assert_untouched();
    stage.upstream.take_down();
    let away = raw_request(stage.address(), ask("/public/x").replace("{host}", &stage.host()).as_bytes()).await;
    assert!(away.starts_with(b"HTTP/1.1 502"), "{}", String::from_utf8_lossy(&away));
}

const UPGRADE: &str = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn switching(accept: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

#[tokio::test]
async fn a_101_that_does_not_fit_the_request_is_502_and_opens_no_tunnel() {
    let (ended, mut ends) = mpsc::unbounded_channel();
    let url = application(move |mut stream| {
        let ended = ended.clone();
        async move {
            head(&mut stream).await;
            stream.write_all(switching("d3Jvbmcgb24gcHVycG9zZSE=").as_bytes()).await.unwrap();
            let mut smuggled = Vec::new();
            let _ = stream.read_to_end(&mut smuggled).await;
            ended.send(smuggled).unwrap();
        }
    })
    .await;
    let stage = in_front_of(&url);
    let request = format!("GET /ws HTTP/1.1\r\nHost: {}\r\n{UPGRADE}\r\nGET /admin HTTP/1.1\r\n\r\n", stage.host());
    let answer = String::from_utf8(raw_request(stage.address(), request.as_bytes()).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    let smuggled = timeout(Duration::from_secs(2), ends.recv()).await.expect("the connection is closed").unwrap();
    assert_eq!(smuggled, b"", "nothing passed the tunnel that never was");
    // A 101 that nobody asked for is no answer either.
    let plain = format!("GET /plain HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", stage.host());
    let answer = String::from_utf8(raw_request(stage.address(), plain.as_bytes()).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
}

#[tokio::test]
async fn a_session_that_ends_before_the_101_gets_no_tunnel() {
    let (asked, mut questions) = mpsc::unbounded_channel();
    let (ended, mut ends) = mpsc::unbounded_channel();
    let url = application(move |mut stream| {
        let (asked, ended) = (asked.clone(), ended.clone());
        async move {
            head(&mut stream).await;
            let (go, gate) = oneshot::channel::<()>();
            asked.send(go).unwrap();
            gate.await.unwrap();
            stream.write_all(switching(&derive_accept_key(b"dGhlIHNhbXBsZSBub25jZQ==")).as_bytes()).await.unwrap();
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            ended.send(rest).unwrap();
        }
    })
    .await;
    let stage = Stage::with(&format!(
        "[upstream]\nurl = unset\n[upstreams.main]\nurl = \"{{upstream}}\"\n[upstreams.tunnels]\nurl = \"{url}\"\n\
         [[routes]]\npath = \"/*\"\nupstream = \"main\"\n[[routes]]\npath = \"/tunnels/*\"\nupstream = \"tunnels\""
    ));
    let browser = stage.signed_in_browser().await;
    let copy = browser.stolen_copy();
    let cookies = copy.cookies(&stage.origin());
    let cookies = cookies.iter().map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect::<Vec<_>>();
    let request =
        format!("GET /tunnels/x HTTP/1.1\r\nHost: {{host}}\r\nCookie: {}\r\n{UPGRADE}\r\n", cookies.join("; "));

    let mut open = connect(&stage, &request).await;
    questions.recv().await.unwrap().send(()).unwrap();
    assert!(head(&mut open).await.starts_with("HTTP/1.1 101"), "with a live session it opens");

    let mut late = connect(&stage, &request).await;
    let go = questions.recv().await.unwrap();
    assert_eq!(browser.send(Request::navigation(Method::GET, &stage.url("/auth/logout"))).await.status, 303);
    go.send(()).unwrap();
    let answer = head(&mut late).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    let _ = late.write_all(b"\x81\x80\0\0\0\0").await;
    let mut rests = Vec::new();
    for _ in 0..2 {
        rests.push(timeout(Duration::from_secs(2), ends.recv()).await.expect("the connection is closed").unwrap());
    }
    // The one that had opened is told that the session has ended; into the late one not a byte came.
    rests.sort();
    assert_eq!((rests[0].as_slice(), rests[1][..2].as_ref()), (&b""[..], &[0x88, 0x8f][..]), "{rests:?}");
}

#[tokio::test]
async fn a_head_that_drips_is_cut_in_time_and_others_are_served_meanwhile() {
    let stage = Stage::with(&format!("[limits]\nheader_timeout = \"1s\"\n{PUBLIC}"));
    let started = Instant::now();
    let dripping: Vec<_> = (0..20)
        .map(|_| {
            let address = stage.address();
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.unwrap();
                let mut answer = [0; 1];
                loop {
                    // Each byte is news, and still the head has one deadline.
                    if stream.write_all(b"a").await.is_err() {
                        return;
                    }
                    match timeout(Duration::from_millis(50), stream.read(&mut answer)).await {
                        Ok(_) => return,
                        Err(_) => assert!(started.elapsed() < Duration::from_secs(10), "never cut"),
                    }
                }
            })
        })
        .collect();
    let browser = stage.browser();
    for _ in 0..10 {
        let asked = Instant::now();
        assert_eq!(browser.fetch(&stage.url("/")).await.status, StatusCode::OK);
        assert!(asked.elapsed() < Duration::from_millis(900), "{:?}", asked.elapsed());
    }
    for stream in dripping {
        stream.await.unwrap();
    }
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn connections_over_the_cap_wait_and_do_not_fail() {
    let stage = Stage::with(&format!("[limits]\nmax_connections = 4\n{PUBLIC}"));
    let (browser, url) = (stage.browser(), stage.url("/slow?ms=100"));
    // Six times as many as there is room for, each on a connection of its own.
    let replies = futures_util::future::join_all((0..24).map(|_| browser.fetch(&url))).await;
    assert!(replies.iter().all(|reply| reply.status == StatusCode::OK), "{replies:?}");
}
