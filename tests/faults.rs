//! Whoever breaks off, falls silent or holds on costs a bounded piece of memory and nobody else's time.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::StatusCode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::timeout;
use vestibule_test_support::script::{application, connect, head, silent};
use vestibule_test_support::{Site, Stage};

const PROGRAM: &str = env!("CARGO_BIN_EXE_vestibule");
const PUBLIC: &str = "[[routes]]\npath = \"/*\"\naccess = \"public\"";
const GET: &str = "GET / HTTP/1.1\r\nHost: {host}\r\n\r\n";
/// How long anything that happens at once may take on a busy machine.
const SOON: Duration = Duration::from_secs(5);

/// A stage whose application is `url`, open to everybody, and whose own application answers below `/others`.
fn in_front_of(url: &str, toml: &str) -> Stage {
    Stage::with(&format!(
        "{toml}\n[upstream]\nurl = unset\n[upstreams.others]\nurl = \"{{upstream}}\"\n[upstreams.faulty]\nurl = \"{url}\"\n\
         [[routes]]\npath = \"/*\"\naccess = \"public\"\nupstream = \"faulty\"\n\
         [[routes]]\npath = \"/others/*\"\naccess = \"public\"\nupstream = \"others\""
    ))
}

/// Others are served while whatever it is goes on.
async fn assert_others_are_served(stage: &Stage) {
    let browser = stage.browser();
    for _ in 0..10 {
        let reply = timeout(SOON, browser.fetch(&stage.url("/others/x"))).await.expect("others are served");
        assert_eq!(reply.status, StatusCode::OK);
    }
}

/// Everything to the end, however that comes, or to that of an answer of ours.
async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    let reading =
        async { while !bytes.ends_with(b"}") && stream.read_buf(&mut bytes).await.is_ok_and(|count| count > 0) {} };
    timeout(SOON, reading).await.expect("an end");
    String::from_utf8(bytes).unwrap()
}

/// The answers that were cut, by reason.
async fn cuts(stage: &Stage) -> Vec<String> {
    let metrics = stage.browser().fetch(&stage.admin_url("/metrics")).await.text();
    let cuts = metrics.lines().filter_map(|line| line.strip_prefix("vestibule_streams_cut_total"));
    cuts.map(str::to_owned).collect()
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
    let stage = in_front_of(&url, "");
    let stream = connect(stage.address(), GET).await;
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
    let stage = in_front_of(&url, "");
    let mut stream = connect(stage.address(), GET).await;
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 200"));
    let _ = stream.read_u8().await.unwrap();
    drop(stream);
    timeout(Duration::from_secs(1), ends.recv()).await.expect("the application is told").unwrap();
}

#[tokio::test]
async fn a_client_that_goes_away_while_sending_ends_the_request_as_an_error() {
    let (url, mut ends) = silent().await;
    let stage = in_front_of(&url, "");
    for (framing, sent) in
        [("Content-Length: 1000", "ten bytes!"), ("Transfer-Encoding: chunked", "a\r\nten bytes!\r\n")]
    {
        let request = format!("POST / HTTP/1.1\r\nHost: {{host}}\r\n{framing}\r\n\r\n{sent}");
        drop(connect(stage.address(), &request).await);
        let (asked, body) = timeout(SOON, ends.recv()).await.expect("the application is told").unwrap();
        assert!(asked.starts_with("POST / HTTP/1.1\r\n"), "{asked}");
        // As far as it came, and never the end of the body.
        assert!(body.len() <= sent.len() && !body.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&body));
    }
}

/// How an application's connection ends in the middle of an answer.
#[derive(Debug, Clone, Copy)]
enum End {
    Finished,
    Reset,
    /// Not at all: what came last is what is wrong.
    Never,
}

#[tokio::test]
async fn an_upload_that_nobody_takes_after_the_answer_is_let_go_in_time() {
    let (ended, mut ends) = mpsc::unbounded_channel();
    let url = application(move |mut stream| {
        let ended = ended.clone();
        async move {
            head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            tokio::time::sleep(Duration::from_secs(2)).await;
            // What the system holds, and then the end, not the rest of what the client goes on sending.
            let mut buffer = vec![0; 64 * 1024];
            while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
            let _ = ended.send(());
        }
    })
    .await;
    let stage = in_front_of(&url, "[upstreams.faulty]\nidle_timeout = \"500ms\"");
    let mut stream =
        connect(stage.address(), "POST / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let chunk = [b"10000\r\n".as_slice(), &[b'x'; 0x10000], b"\r\n"].concat();
    stream.write_all(&chunk).await.unwrap();
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 200"));
    let sending = async { while stream.write_all(&chunk).await.is_ok() {} };
    tokio::select! {
        ended = timeout(SOON, ends.recv()) => drop(ended.expect("the connection is let go")),
        () = async { sending.await; std::future::pending().await } => {}
    }
    assert_others_are_served(&stage).await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_in_any_way_breaks_off_for_the_client() {
    const LENGTH: &str = "Content-Length: 1000\r\n\r\nten bytes!";
    for (answer, end) in [
        (LENGTH, End::Finished),
        (LENGTH, End::Reset),
        ("Transfer-Encoding: chunked\r\n\r\na\r\nten bytes!\r\n", End::Finished),
        ("Transfer-Encoding: chunked\r\n\r\na\r\nten bytes!\r\n", End::Reset),
        ("Transfer-Encoding: chunked\r\n\r\n14\r\nten bytes!", End::Finished),
        ("Transfer-Encoding: chunked\r\n\r\na\r\nten bytes!\r\nzz\r\n", End::Never),
        ("Transfer-Encoding: chunked\r\n\r\na\r\nten bytes!and more\r\n", End::Never),
        ("Transfer-Encoding: chunked\r\n\r\na\r\nten bytes!\r\nfffffffffffffffff\r\n", End::Never),
        ("Transfer-Encoding: chunked\r\n\r\na\r\nten bytes!\r\n-1\r\n", End::Never),
    ] {
        let url = application(move |mut stream| async move {
            head(&mut stream).await;
            // Time for the beginning to arrive, since what is wrong may overtake it.
            let (good, bad) = answer.split_at(answer.find("ten bytes!").unwrap() + "ten bytes!".len());
            stream.write_all(format!("HTTP/1.1 200 OK\r\n{good}").as_bytes()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            stream.write_all(bad.as_bytes()).await.unwrap();
            match end {
                End::Finished => {}
                End::Reset => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    stream.set_zero_linger().unwrap();
                }
                End::Never => drop(stream.read_u8().await),
            }
        })
        .await;
        let stage = in_front_of(&url, "");
        let mut stream = connect(stage.address(), GET).await;
        let head = head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{answer:?} {end:?}: {head}");
        let mut body = Vec::new();
        // The end of the connection or a reset, and never the end of the body.
        let _ = timeout(SOON, stream.read_to_end(&mut body)).await.expect("an end");
        let body = String::from_utf8(body).unwrap();
        assert!(body.contains("ten bytes!") && !body.contains("\r\n0\r\n"), "{answer:?} {end:?}: {body}");
        let announced = head.to_ascii_lowercase().contains("content-length: 1000");
        assert_eq!(announced, answer == LENGTH, "{head}");
        let metrics = stage.browser().fetch(&stage.admin_url("/metrics")).await.text();
        assert!(metrics.contains("vestibule_streams_cut_total{reason=\"upstream_broke_off\"} 1"), "{metrics}");
    }
}

#[tokio::test]
async fn an_application_that_is_silent_or_drips_its_head_is_504_and_let_go() {
    for drips in [false, true] {
        let (ended, mut ends) = mpsc::unbounded_channel();
        let url = application(move |mut stream| {
            let ended = ended.clone();
            async move {
                head(&mut stream).await;
                if drips {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX-Slow: ").await;
                    while timeout(Duration::from_millis(20), stream.read_u8()).await.is_err() {
                        let _ = stream.write_all(b"a").await;
                    }
                } else {
                    let _ = stream.read_u8().await;
                }
                let _ = ended.send(());
            }
        })
        .await;
        let stage = in_front_of(&url, "[upstreams.faulty]\nresponse_timeout = \"1s\"");
        let waiting = join_all((0..20).map(|_| async {
            let mut stream = connect(stage.address(), GET).await;
            timeout(SOON, head(&mut stream)).await.expect("an answer")
        }));
        let (answers, ()) = tokio::join!(waiting, assert_others_are_served(&stage));
        for answer in answers {
            assert!(answer.starts_with("HTTP/1.1 504"), "{drips} {answer}");
        }
        for _ in 0..20 {
            timeout(SOON, ends.recv()).await.expect("its connections are closed").unwrap();
        }
    }
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
async fn a_body_that_drips_arrives_byte_by_byte_and_one_that_stands_still_is_cut() {
    let (came, mut bytes) = mpsc::unbounded_channel();
    let url = application(move |mut stream| {
        let came = came.clone();
        async move {
            head(&mut stream).await;
            while let Ok(byte) = stream.read_u8().await {
                let _ = came.send(Some(byte));
            }
            let _ = came.send(None);
        }
    })
    .await;
    let stage = in_front_of(&url, "[upstreams.faulty]\nidle_timeout = \"2s\"");
    let mut stream = connect(stage.address(), "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000\r\n\r\n").await;
    let started = Instant::now();
    // For longer than it may stand still.
    for byte in (0..=255).cycle().take_while(|_| started.elapsed() < Duration::from_millis(2500)) {
        stream.write_u8(byte).await.unwrap();
        let arrived = timeout(SOON, bytes.recv()).await.expect("each byte arrives before the next is sent");
        assert_eq!(arrived, Some(Some(byte)));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_others_are_served(&stage).await;
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("\"code\":\"body_idle\""), "{answer}");
    assert_eq!(timeout(SOON, bytes.recv()).await.expect("the application is told"), Some(None));
    let metrics = stage.browser().fetch(&stage.admin_url("/metrics")).await.text();
    assert!(metrics.contains("vestibule_refusals_total{reason=\"body_idle\"} 1"), "{metrics}");
}

#[tokio::test]
async fn an_upload_that_the_application_stops_taking_is_504_and_let_go() {
    let (go, wait) = watch::channel(false);
    let (ended, mut ends) = mpsc::unbounded_channel();
    let url = application(move |mut stream| {
        let (mut wait, ended) = (wait.clone(), ended.clone());
        async move {
            head(&mut stream).await;
            wait.wait_for(|go| *go).await.unwrap();
            let mut body = Vec::new();
            let _ = stream.read_to_end(&mut body).await;
            let _ = ended.send(body);
        }
    })
    .await;
    // Silence of the application alone would be told after an hour.
    let stage = in_front_of(&url, "[upstreams.faulty]\nidle_timeout = \"500ms\"\nresponse_timeout = \"1h\"");
    let mut stream =
        connect(stage.address(), "POST / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let chunk = [b"10000\r\n".as_slice(), &[b'x'; 0x10000], b"\r\n"].concat();
    let (mut reading, mut writing) = stream.split();
    let sending = async { while writing.write_all(&chunk).await.is_ok() {} };
    let answer = tokio::select! {
        answer = rest(&mut reading) => answer,
        () = async { sending.await; std::future::pending().await } => unreachable!("it waits for the answer"),
    };
    assert!(answer.starts_with("HTTP/1.1 504") && answer.contains("\"code\":\"upstream_idle\""), "{answer}");
    // What the system held, and then the end of the connection, not that of the body.
    go.send(true).unwrap();
    let body = timeout(SOON, ends.recv()).await.expect("the connection is let go").unwrap();
    assert!(!body.ends_with(b"0\r\n\r\n"), "{} bytes", body.len());
    assert_others_are_served(&stage).await;
}

#[tokio::test]
async fn an_answer_that_stands_still_is_cut_and_told_as_that() {
    for framing in ["Content-Length: 1000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\na\r\n"] {
        let (ended, mut ends) = mpsc::unbounded_channel();
        let url = application(move |mut stream| {
            let ended = ended.clone();
            async move {
                head(&mut stream).await;
                stream.write_all(format!("HTTP/1.1 200 OK\r\n{framing}ten bytes!").as_bytes()).await.unwrap();
                let _ = ended.send(stream.read_u8().await.is_err());
            }
        })
        .await;
        let stage = in_front_of(&url, "[upstreams.faulty]\nidle_timeout = \"500ms\"");
        let mut stream = connect(stage.address(), GET).await;
        assert!(head(&mut stream).await.starts_with("HTTP/1.1 200"));
        let body = rest(&mut stream).await;
        assert!(body.contains("ten bytes!") && !body.contains("\r\n0\r\n"), "{framing:?}: {body}");
        let is_closed = timeout(SOON, ends.recv()).await.expect("the application is told");
        assert_eq!(is_closed, Some(true), "{framing:?}");
        assert_eq!(cuts(&stage).await, ["{reason=\"upstream_idle\"} 1"], "{framing:?}");
    }
}

#[tokio::test]
async fn an_answer_that_ends_with_its_requests_body_is_told_as_the_clients() {
    let (ended, mut ends) = mpsc::unbounded_channel();
    let url = application(move |mut stream| {
        let ended = ended.clone();
        async move {
            head(&mut stream).await;
            let mut piece = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n";
            // It goes on, so that only the request's body stands still.
            while stream.write_all(piece.as_bytes()).await.is_ok() {
                piece = "2\r\nhi\r\n";
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let _ = ended.send(());
        }
    })
    .await;
    let stage = in_front_of(&url, "[upstreams.faulty]\nidle_timeout = \"1s\"");
    let request = "POST / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n";
    let mut stream = connect(stage.address(), request).await;
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 200"));
    let body = rest(&mut stream).await;
    assert!(body.contains("hi") && !body.contains("\r\n0\r\n"), "{body}");
    timeout(SOON, ends.recv()).await.expect("the application is told").unwrap();
    assert_eq!(cuts(&stage).await, ["{reason=\"body_idle\"} 1"]);
}

#[tokio::test]
async fn clients_that_say_nothing_give_their_place_back() {
    let limits = "[limits]\nmax_connections = 4\nidle_timeout = \"1s\"\nheader_timeout = \"1s\"";
    let stage = Stage::with(&format!("{limits}\n{PUBLIC}"));
    let mut held = Vec::new();
    for said in ["", "G", "GET / HTTP/1.1\r\nHo", "GET / HTTP/1.1\r\nHost: x\r\n"] {
        held.push(connect(stage.address(), said).await);
    }
    // All places are taken, and none of them for good.
    let reply = timeout(SOON, stage.browser().fetch(&stage.url("/"))).await.expect("a place");
    assert_eq!(reply.status, StatusCode::OK);
    for mut stream in held {
        let _ = timeout(SOON, stream.read_to_end(&mut Vec::new())).await.expect("its end");
    }
}

/// What could still become the preface of HTTP/2 is a head that has begun, after any silence.
#[tokio::test]
async fn a_head_that_begins_after_a_silence_and_does_not_end_is_told() {
    let stage = Stage::with(&format!("[limits]\nheader_timeout = \"400ms\"\n{PUBLIC}"));
    for begun in ["GET / HT", "PRI * HTTP/2.0\r\n"] {
        let mut stream = connect(stage.address(), "").await;
        // As long as it takes to be one that waits in silence.
        tokio::time::sleep(Duration::from_millis(1300)).await;
        stream.write_all(begun.as_bytes()).await.unwrap();
        let _ = timeout(SOON, stream.read_to_end(&mut Vec::new())).await.expect("its end");
    }
    let metrics = stage.browser().fetch(&stage.admin_url("/metrics")).await.text();
    assert!(metrics.contains("vestibule_refusals_total{reason=\"head_timeout\"} 2"), "{metrics}");
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn open_connections_are_counted_and_tunnels_among_them() {
    let stage = Stage::with(&format!("workers = 2\n{PUBLIC}"));
    let until = async |open: usize| {
        let end = Instant::now() + SOON;
        loop {
            let metrics = stage.browser().fetch(&stage.admin_url("/metrics")).await.text();
            if metrics.contains(&format!("\nvestibule_connections {open}\n")) {
                return;
            }
            assert!(Instant::now() < end, "not {open}: {metrics}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    until(0).await;
    let upgrade = "GET /ws HTTP/1.1\r\nHost: {host}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut tunnel = connect(stage.address(), upgrade).await;
    assert!(head(&mut tunnel).await.starts_with("HTTP/1.1 101"));
    let others = [connect(stage.address(), GET).await, connect(stage.address(), "").await];
    until(3).await;
    drop(others);
    until(1).await;
    drop(tunnel);
    until(0).await;
}

#[tokio::test]
async fn connections_over_the_cap_wait_and_do_not_fail() {
    let stage = Stage::with(&format!("[limits]\nmax_connections = 4\n{PUBLIC}"));
    let (browser, url) = (stage.browser(), stage.url("/slow?ms=100"));
    // Six times as many as there is room for, each on a connection of its own.
    let replies = join_all((0..24).map(|_| browser.fetch(&url))).await;
    assert!(replies.iter().all(|reply| reply.status == StatusCode::OK), "{replies:?}");
}

#[tokio::test]
async fn clients_that_wait_for_news_are_all_told_at_once() {
    let (news, _) = broadcast::channel::<()>(1);
    let (asked, mut questions) = mpsc::unbounded_channel();
    let url = application({
        let news = news.clone();
        move |mut stream| {
            let (mut news, asked) = (news.subscribe(), asked.clone());
            async move {
                // Again and again on the same connection, as long polling does.
                while head(&mut stream).await.ends_with("\r\n\r\n") {
                    asked.send(()).unwrap();
                    news.recv().await.unwrap();
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnews").await.unwrap();
                }
            }
        }
    })
    .await;
    let stage = in_front_of(&url, "");
    let mut clients = join_all((0..50).map(|_| TcpStream::connect(stage.address()))).await;
    for _ in 0..3 {
        for client in clients.iter_mut().flatten() {
            client.write_all(GET.replace("{host}", &stage.host()).as_bytes()).await.unwrap();
        }
        for _ in 0..50 {
            timeout(SOON, questions.recv()).await.expect("everybody's question arrives").unwrap();
        }
        assert_others_are_served(&stage).await;
        news.send(()).unwrap();
        for client in clients.iter_mut().flatten() {
            let answer = timeout(SOON, head(client)).await.expect("news");
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            let mut body = [0; 4];
            client.read_exact(&mut body).await.unwrap();
            assert_eq!(&body, b"news");
        }
    }
}

/// Holds `count` connections open, most of them in the middle of something, and asks with others meanwhile.
pub(crate) async fn held_open(count: usize) {
    const KIB: u64 = 1024;
    // What a connection may cost, a head that has begun included.
    const EACH: u64 = 18 * KIB;
    let site = Site::of(PROGRAM);
    let config = format!("{PUBLIC}\n[limits]\nheader_timeout = \"10m\"\nidle_timeout = \"10m\"\n");
    let program = site.start(site.launch().env("VESTIBULE_CONFIG", site.file("open.toml", &config))).await;
    let browser = site.browser();
    assert_eq!(browser.fetch(&site.url("/")).await.status, StatusCode::OK);
    let before = program.memory();
    let mut held = Vec::with_capacity(count);
    // A few at a time, so that none is in the backlog when the last is asked for.
    for start in (0..count).step_by(100) {
        let few = (start..count.min(start + 100)).map(|number| {
            let address = site.address();
            async move {
                match number % 3 {
                    0 => connect(address, "").await,
                    1 => connect(address, "GET / HTTP/1.1\r\nHost: {host}\r\nX-Half: ").await,
                    _ => {
                        // Kept open after an answer.
                        let mut stream = connect(address, "GET /auth/nothing HTTP/1.1\r\nHost: {host}\r\n\r\n").await;
                        assert!(head(&mut stream).await.starts_with("HTTP/1.1 404"));
                        stream
                    }
                }
            }
        });
        held.extend(join_all(few).await);
    }
    for _ in 0..20 {
        let reply = timeout(SOON, browser.fetch(&site.url("/"))).await.expect("others are served");
        assert_eq!(reply.status, StatusCode::OK);
    }
    let each = program.memory().saturating_sub(before) / count as u64;
    assert!(each < EACH, "{each} bytes for each of {count} connections");
    // All of them are still there: an answer to those that had begun to ask.
    for stream in held.iter_mut().skip(1).step_by(3) {
        stream.write_all(b"x\r\n\r\n").await.unwrap();
    }
    for stream in held.iter_mut().skip(1).step_by(3) {
        let answer = timeout(Duration::from_secs(60), head(stream)).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[tokio::test]
async fn a_thousand_connections_held_open_cost_little_and_hold_up_nobody() {
    held_open(1_000).await;
}
