//! HTTP/2 to an upstream, against servers made of h2, and of bare frames where h2 would not misbehave.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::stream;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Method, Request};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::head::Ours;
use super::http2::SEND_BUFFER;
use super::tests::{Fake, fake, get, request};
use super::*;
use crate::telemetry::metrics::Metrics;

fn h2c(settings: &mut UpstreamSettings) {
    settings.protocol = Protocol::H2;
}

/// Serves each stream with `answer`, which gets the number of its connection and of its request there.
async fn serve<A, F>(stream: TcpStream, connection: usize, answer: A)
where
    A: Fn(Request<RecvStream>, SendResponse<Bytes>, usize, usize) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(100).initial_window_size(1 << 20);
    let Ok(mut serving) = builder.handshake(stream).await else { return };
    let mut count = 0;
    while let Some(Ok((request, respond))) = serving.accept().await {
        tokio::spawn(answer(request, respond, connection, count));
        count += 1;
    }
}

async fn h2_fake<A, F>(answer: A) -> Fake
where
    A: Fn(Request<RecvStream>, SendResponse<Bytes>, usize, usize) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    fake(h2c, move |stream, connection| {
        let answer = answer.clone();
        async move { serve(stream, connection, answer).await }
    })
    .await
}

fn say(mut respond: SendResponse<Bytes>, text: &'static str) {
    if let Ok(mut body) = respond.send_response(Response::new(()), false) {
        let _ = body.send_data(Bytes::from_static(text.as_bytes()), true);
    }
}

async fn read(mut body: RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut whole = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        whole.extend_from_slice(&data);
    }
    Ok(whole)
}

fn streamed(frames: impl futures_util::Stream<Item = Frame<Bytes>> + Send + 'static) -> Body {
    use futures_util::StreamExt;
    Body::stream(StreamBody::new(Box::pin(frames.map(Ok))))
}

#[tokio::test]
async fn a_hundred_requests_at_once_share_a_few_connections() {
    let most = Arc::new(AtomicUsize::new(0));
    let now = Arc::new(AtomicUsize::new(0));
    let counters = (Arc::clone(&most), Arc::clone(&now));
    let fake = h2_fake(move |request, respond, _, _| {
        let (most, now) = counters.clone();
        async move {
            assert_eq!(request.uri().to_string(), "http://app/x");
            assert!(!request.headers().contains_key("host"));
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(100)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            say(respond, "ok");
        }
    })
    .await;
    let answers = futures_util::future::join_all((0..150).map(|_| fake.text(get()))).await;
    assert!(answers.iter().all(|answer| answer == "ok"));
    assert!(fake.connections() <= 2 && most.load(Ordering::SeqCst) == 150, "{} {most:?}", fake.connections());
    // And again on the same.
    let connections = fake.connections();
    assert_eq!(fake.text(request(Method::POST, Body::Empty)).await, "ok");
    assert_eq!(fake.connections(), connections);
}

#[tokio::test]
async fn a_refused_stream_is_sent_again_with_its_body() {
    for length in [3, 50_000] {
        let fake = h2_fake(|request, mut respond, _, count| async move {
            if count == 0 {
                tokio::time::sleep(Duration::from_millis(30)).await;
                respond.send_reset(Reason::REFUSED_STREAM);
                return;
            }
            let length =
                request.headers().get("content-length").map_or("0", |length| length.to_str().unwrap()).to_owned();
            let body = read(request.into_body()).await.unwrap();
            assert_eq!(body.len().to_string(), length);
            assert!(body.iter().all(|byte| *byte == b'x'));
            say(respond, "ok");
        })
        .await;
        assert_eq!(fake.text(request(Method::POST, Body::full(vec![b'x'; length]))).await, "ok");
        assert_eq!(fake.text(get()).await, "ok");
        assert_eq!(fake.connections(), 1);
    }
}

#[tokio::test]
async fn a_body_too_large_to_keep_is_not_sent_twice() {
    let fake = h2_fake(|request, mut respond, _, _| async move {
        let mut body = request.into_body();
        let mut read = 0;
        while read < 200_000 {
            let Some(Ok(data)) = body.data().await else { return };
            let _ = body.flow_control().release_capacity(data.len());
            read += data.len();
        }
        respond.send_reset(Reason::REFUSED_STREAM);
    })
    .await;
    let pieces = stream::unfold((), |()| async { Some((Frame::data(Bytes::from(vec![b'x'; 16 * 1024])), ())) });
    let failed = fake.send(request(Method::POST, streamed(pieces))).await.unwrap_err();
    assert!(matches!(failed, UpstreamError::Closed(_)), "{failed:?}");
}

/// Reads one frame: type, stream, payload.
async fn frame(stream: &mut TcpStream) -> Option<(u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).await.ok()?;
    Some((head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
}

#[tokio::test]
async fn what_is_above_the_last_stream_of_a_goaway_is_sent_again_on_a_new_connection() {
    let fake = fake(h2c, |mut stream, connection| async move {
        if connection > 0 {
            return serve(stream, connection, |request, respond, _, _| async move {
                read(request.into_body()).await.unwrap();
                say(respond, "ok");
            })
            .await;
        }
        stream.read_exact(&mut [0; 24]).await.unwrap();
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        loop {
            // HEADERS; a GOAWAY that names no stream at all.
            if matches!(frame(&mut stream).await, None | Some((1, ..))) {
                break;
            }
        }
        stream.write_all(&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await.unwrap();
        while frame(&mut stream).await.is_some() {}
    })
    .await;
    assert_eq!(fake.text(request(Method::POST, Body::full("pay"))).await, "ok");
    assert_eq!(fake.connections(), 2);
}

#[tokio::test]
async fn a_goaway_lets_begun_answers_end_and_the_next_request_gets_a_new_connection() {
    let fake = fake(h2c, |stream, _| async move {
        let Ok(mut serving) = h2::server::handshake(stream).await else { return };
        let Some(Ok((_, mut respond))) = serving.accept().await else { return };
        serving.graceful_shutdown();
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let _ = body.send_data(Bytes::from_static(b"late"), true);
        });
        while let Some(Ok(_)) = serving.accept().await {}
    })
    .await;
    let first = fake.send(get()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(fake.text(get()).await, "late");
    assert_eq!(first.into_body().collect().await.unwrap().to_bytes(), "late");
    assert_eq!(fake.connections(), 2);
}

#[tokio::test]
async fn an_answer_that_is_reset_is_an_error_whatever_the_reason() {
    for reason in [Reason::CANCEL, Reason::NO_ERROR, Reason::INTERNAL_ERROR] {
        let fake = h2_fake(move |_, mut respond, _, count| async move {
            if count > 0 {
                return say(respond, "ok");
            }
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            body.send_data(Bytes::from_static(b"half"), false).unwrap();
            tokio::time::sleep(Duration::from_millis(30)).await;
            body.send_reset(reason);
        })
        .await;
        let response = fake.send(get()).await.unwrap();
        assert!(response.into_body().collect().await.is_err(), "{reason:?}");
        // Only the stream is lost.
        assert_eq!((fake.text(get()).await, fake.connections()), ("ok".to_owned(), 1));
    }
    let dies = fake(h2c, |stream, _| async move {
        let Ok(mut serving) = h2::server::handshake(stream).await else { return };
        let Some(Ok((_, mut respond))) = serving.accept().await else { return };
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        body.send_data(Bytes::from_static(b"half"), false).unwrap();
        let _ = tokio::time::timeout(Duration::from_millis(50), serving.accept()).await;
    })
    .await;
    assert!(dies.send(get()).await.unwrap().into_body().collect().await.is_err());
}

#[tokio::test]
async fn both_directions_flow_at_once_with_trailers_both_ways() {
    let fake = h2_fake(|request, mut respond, _, _| async move {
        for (name, value) in [("te", "trailers"), ("grpc-timeout", "5S"), ("content-type", "application/grpc")] {
            assert_eq!(request.headers()[name], value);
        }
        assert!(!request.headers().contains_key("content-length"));
        let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let mut answer = respond.send_response(head, false).unwrap();
        let mut body = request.into_body();
        while let Some(Ok(data)) = body.data().await {
            answer.send_data(data, false).unwrap();
        }
        let mut trailers = body.trailers().await.unwrap().unwrap();
        assert!(!trailers.contains_key("cookie"), "{trailers:?}");
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        answer.send_trailers(trailers).unwrap();
    })
    .await;
    let (say, said) = mpsc::unbounded_channel();
    let frames = stream::unfold(said, |mut said| async move { Some((said.recv().await?, said)) });
    let mut call = request(Method::POST, streamed(frames));
    for (name, value) in [("te", "trailers"), ("grpc-timeout", "5S"), ("content-type", "application/grpc")] {
        call.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    // The head comes before any byte of the body.
    let mut answer = fake.send(call).await.unwrap().into_body();
    for message in ["one", "two", "three"] {
        say.send(Frame::data(Bytes::from_static(message.as_bytes()))).unwrap();
        assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), message);
    }
    let fields = [("x-sum", "3"), ("cookie", "stolen=1")];
    let trailers: HeaderMap =
        fields.map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).into_iter().collect();
    say.send(Frame::trailers(trailers)).unwrap();
    drop(say);
    let trailers = answer.frame().await.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(
        (&trailers["x-sum"], &trailers["grpc-status"]),
        (&HeaderValue::from_static("3"), &HeaderValue::from_static("0"))
    );
    assert!(answer.frame().await.is_none());
}

#[tokio::test]
async fn an_answer_of_trailers_alone_and_one_to_head_are_whole() {
    let fake = h2_fake(|request, mut respond, _, _| async move {
        let head = Response::builder().header("grpc-status", "12").header("content-length", "7");
        let head =
            if request.method() == Method::HEAD { head } else { Response::builder().header("grpc-status", "12") };
        respond.send_response(head.body(()).unwrap(), true).unwrap();
    })
    .await;
    let answer = fake.send(request(Method::POST, Body::full("call"))).await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "12");
    assert!(answer.body().is_end_stream());
    let answer = fake.send(request(Method::HEAD, Body::Empty)).await.unwrap();
    assert_eq!(answer.headers()["content-length"], "7");
}

#[tokio::test]
async fn an_answer_that_comes_while_the_body_is_sent_arrives_and_ends_the_upload() {
    let ended = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&ended);
    let fake = h2_fake(move |request, mut respond, _, _| {
        let log = Arc::clone(&log);
        async move {
            let head = Response::builder().status(413).body(()).unwrap();
            let mut answer = respond.send_response(head, false).unwrap();
            answer.send_data(Bytes::from_static(b"big"), true).unwrap();
            let reason = read(request.into_body()).await.unwrap_err().reason();
            log.lock().unwrap().push(reason);
        }
    })
    .await;
    for _ in 0..5 {
        let pieces = stream::unfold((), |()| async { Some((Frame::data(Bytes::from(vec![b'x'; 16 * 1024])), ())) });
        let response = fake.send(request(Method::POST, streamed(pieces))).await.unwrap();
        assert_eq!(response.status(), 413);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "big");
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(*ended.lock().unwrap(), [Some(Reason::CANCEL); 5]);
    assert_eq!(fake.connections(), 1);
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_the_stream_and_nothing_else() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let fake = h2_fake(move |mut request, mut respond, _, count| {
        let tell = tell.clone();
        async move {
            let mut answer = None;
            match count {
                // Waits for an answer, reads one, and sends and reads at once.
                0 => {}
                1 | 2 => answer = Some(respond.send_response(Response::new(()), false).unwrap()),
                _ => return say(respond, "ok"),
            }
            if count == 2 {
                let _ = request.body_mut().data().await;
            }
            let reset = std::future::poll_fn(|cx| match &mut answer {
                Some(answer) => answer.poll_reset(cx),
                None => respond.poll_reset(cx),
            });
            tell.send(reset.await.unwrap()).unwrap();
        }
    })
    .await;
    let unanswered = tokio::time::timeout(Duration::from_millis(50), fake.send(get())).await;
    assert!(unanswered.is_err());
    assert_eq!(told.recv().await, Some(Reason::CANCEL));
    drop(fake.send(get()).await.unwrap());
    assert_eq!(told.recv().await, Some(Reason::CANCEL));
    let first = stream::once(async { Frame::data(Bytes::from_static(b"x")) });
    let never = futures_util::StreamExt::chain(first, stream::pending());
    drop(fake.send(request(Method::POST, streamed(never))).await.unwrap());
    assert_eq!(told.recv().await, Some(Reason::CANCEL));
    assert_eq!((fake.text(get()).await, fake.connections()), ("ok".to_owned(), 1));
}

#[tokio::test]
async fn a_body_that_the_client_breaks_off_is_the_clients_fault() {
    let fake = h2_fake(|request, respond, _, _| async move {
        if read(request.into_body()).await.is_ok() {
            say(respond, "ok");
        }
    })
    .await;
    let frames = [Ok(Frame::data(Bytes::from_static(b"x"))), Err("gone".into())];
    let broken = Body::stream(StreamBody::new(stream::iter(frames)));
    let failed = fake.send(request(Method::POST, broken)).await.unwrap_err();
    assert!(matches!(failed, UpstreamError::RequestBody), "{failed:?}");
}

#[tokio::test]
async fn a_body_that_stands_still_on_either_side_is_reset_at_the_application_and_told_by_its_side() {
    let quick = |settings: &mut UpstreamSettings| {
        h2c(settings);
        settings.idle_timeout = Duration::from_millis(150);
    };
    let (tell, mut told) = mpsc::unbounded_channel();
    let fake = fake(quick, move |stream, connection| {
        let tell = tell.clone();
        serve(stream, connection, move |request, mut respond, _, count| {
            let tell = tell.clone();
            async move {
                // It takes nothing of it, and holds it until it is told.
                let reset = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
                tell.send((count, reset.unwrap())).unwrap();
                drop(request);
            }
        })
    })
    .await;
    let failed = fake.send(request(Method::POST, streamed(stream::pending()))).await.unwrap_err();
    assert!(matches!(failed, UpstreamError::BodyIdle), "{failed:?}");
    assert_eq!(told.recv().await, Some((0, Reason::CANCEL)));
    let pieces = stream::repeat_with(|| Frame::data(Bytes::from(vec![b'x'; 16 * 1024])));
    let failed = fake.send(request(Method::POST, streamed(pieces))).await.unwrap_err();
    assert!(matches!(failed, UpstreamError::IdleTimeout), "{failed:?}");
    assert_eq!(told.recv().await, Some((1, Reason::CANCEL)));
    assert_eq!(fake.connections(), 1);
}

#[tokio::test]
async fn an_answer_ends_with_the_body_of_its_request_and_the_body_is_to_blame() {
    let quick = |settings: &mut UpstreamSettings| {
        h2c(settings);
        settings.idle_timeout = Duration::from_millis(200);
    };
    let mut fake = fake(quick, move |stream, connection| {
        serve(stream, connection, |request, mut respond, _, _| async move {
            let mut answer = respond.send_response(Response::new(()), false).unwrap();
            // It goes on, so that only the request's body stands still.
            while answer.send_data(Bytes::from_static(b"hi"), false).is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            drop(request);
        })
    })
    .await;
    let metrics = Metrics::new();
    fake.upstreams.metrics = metrics.worker();
    let answer = fake.send(request(Method::POST, streamed(stream::pending()))).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(5), answer.into_body().collect()).await.expect("an end");
    assert!(ended.is_err());
    let told = metrics.render();
    assert!(told.contains("vestibule_streams_cut_total{reason=\"body_idle\"} 1"), "{told}");
}

#[tokio::test]
async fn bodies_that_clients_break_off_never_take_an_instance_out() {
    let change = |settings: &mut UpstreamSettings| {
        h2c(settings);
        settings.eject_after = 1;
        // Nobody listens there, so that the other one gets every request.
        settings.places.push(Place::Host { host: "127.0.0.1".to_owned(), port: 1 });
    };
    let fake = fake(change, |stream, connection| {
        serve(stream, connection, |request, respond, _, _| async move {
            if read(request.into_body()).await.is_ok() {
                say(respond, "ok");
            }
        })
    })
    .await;
    for _ in 0..4 {
        let frames = [Ok(Frame::data(Bytes::from_static(b"x"))), Err("gone".into())];
        let broken = Body::stream(StreamBody::new(stream::iter(frames)));
        let failed = fake.send(request(Method::POST, broken)).await.unwrap_err();
        assert!(matches!(failed, UpstreamError::RequestBody), "{failed:?}");
    }
    assert!(fake.well() > 0, "the instance did nothing wrong");
}

#[tokio::test]
async fn what_is_not_http2_is_invalid_and_a_wait_is_bounded() {
    let fake_http1 = fake(h2c, |mut stream, _| async move {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        let _ = stream.read(&mut [0; 1000]).await;
    })
    .await;
    let failed = fake_http1.send(get()).await.unwrap_err();
    assert!(matches!(failed, UpstreamError::Invalid), "{failed:?}");
    let slow = fake(
        |settings| {
            h2c(settings);
            settings.response_timeout = Duration::from_millis(100);
        },
        |stream, connection| {
            serve(stream, connection, |_, respond, _, _| async move {
                std::future::pending::<()>().await;
                drop(respond);
            })
        },
    )
    .await;
    assert!(matches!(slow.send(get()).await, Err(UpstreamError::ResponseTimeout)));
}

#[tokio::test]
async fn an_upgrade_goes_over_http1_to_the_same_instance() {
    let fake = fake(h2c, |mut stream, _| async move {
        let asked = super::tests::read_request(&mut stream).await.unwrap_or_default();
        assert!(asked.starts_with("GET /x HTTP/1.1\r\n"), "{asked}");
        super::tests::say(&mut stream, super::tests::OK).await;
    })
    .await;
    let mut asks = get();
    asks.headers_mut().insert("authorization", HeaderValue::from_static("Negotiate abc"));
    assert_eq!(fake.text(asks).await, "ok");
}

#[tokio::test]
async fn connections_without_streams_are_closed_after_their_time() {
    let closed = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&closed);
    let fake = fake(
        |settings| {
            h2c(settings);
            settings.pool_idle = Duration::from_millis(100);
        },
        move |stream, connection| {
            let closed = Arc::clone(&count);
            async move {
                serve(stream, connection, |_, respond, _, _| async { say(respond, "ok") }).await;
                closed.fetch_add(1, Ordering::SeqCst);
            }
        },
    )
    .await;
    assert_eq!(fake.text(get()).await, "ok");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(closed.load(Ordering::SeqCst), 1);
    assert_eq!((fake.text(get()).await, fake.connections()), ("ok".to_owned(), 2));
}

/// Answers its first request and then nothing more but `pongs` pings; tells of each ping.
async fn falls_silent(mut stream: TcpStream, mut pongs: usize, pinged: mpsc::UnboundedSender<Instant>) {
    stream.read_exact(&mut [0; 24]).await.unwrap();
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    let mut is_first = true;
    while let Some((kind, id, payload)) = frame(&mut stream).await {
        match kind {
            // HEADERS: `:status: 200` (RFC 7541 appendix A) and the end.
            1 if std::mem::take(&mut is_first) => {
                let head = [&[0, 0, 1, 1, 5][..], &id.to_be_bytes(), &[0x88]].concat();
                stream.write_all(&head).await.unwrap();
            }
            // PING.
            6 => {
                pinged.send(Instant::now()).unwrap();
                if pongs > 0 {
                    pongs -= 1;
                    stream.write_all(&[&[0, 0, 8, 6, 1, 0, 0, 0, 0], &payload[..]].concat()).await.unwrap();
                }
            }
            _ => {}
        }
    }
}

/// What is asked of a connection that has fallen silent, and when; its request gets its answer on another one.
async fn pings_of_one_that_falls_silent(pongs: usize, silent: Duration) -> Vec<Instant> {
    let (ping, mut pings) = mpsc::unbounded_channel();
    let change = |settings: &mut UpstreamSettings| {
        h2c(settings);
        settings.h2_ping = (silent, Duration::from_millis(300));
    };
    let fake = fake(change, move |stream, connection| {
        let ping = ping.clone();
        async move {
            match connection {
                0 => falls_silent(stream, pongs, ping).await,
                _ => serve(stream, connection, |_, respond, _, _| async { say(respond, "ok") }).await,
            }
        }
    })
    .await;
    assert_eq!(fake.text(get()).await, "");
    // What was heard so far says nothing about the next request.
    sleep(silent * 3).await;
    assert_eq!(fake.text(get()).await, "ok");
    assert_eq!(fake.connections(), 2);
    std::iter::from_fn(|| pings.try_recv().ok()).collect()
}

#[tokio::test]
async fn a_connection_that_answers_no_ping_is_given_up_and_its_request_goes_to_another() {
    assert_eq!(pings_of_one_that_falls_silent(0, Duration::from_millis(100)).await.len(), 1);
}

/// Servers of gRPC take it for an attack.
#[tokio::test]
async fn while_a_stream_only_waits_it_is_asked_for_seldom() {
    let silent = Duration::from_millis(40);
    let pings = pings_of_one_that_falls_silent(1, silent).await;
    assert_eq!(pings.len(), 2);
    assert!(pings[1] - pings[0] >= silent * 30, "{:?}", pings[1] - pings[0]);
}

#[tokio::test]
async fn an_answer_that_takes_long_is_waited_for_where_pings_are_answered() {
    let change = |settings: &mut UpstreamSettings| {
        h2c(settings);
        settings.h2_ping = (Duration::from_millis(100), Duration::from_secs(1));
    };
    let fake = fake(change, |stream, connection| {
        serve(stream, connection, |_, respond, _, count| async move {
            sleep(Duration::from_millis(1500) * u32::from(count > 0)).await;
            say(respond, "ok");
        })
    })
    .await;
    assert_eq!(fake.text(get()).await, "ok");
    sleep(Duration::from_millis(300)).await;
    assert_eq!((fake.text(get()).await, fake.connections()), ("ok".to_owned(), 1));
}

#[tokio::test]
async fn what_nobody_reads_waits_within_bounds_both_ways() {
    // Down: an endless answer whose reader has only seen its head.
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let fake = h2_fake(move |_, mut respond, _, _| {
        let count = Arc::clone(&count);
        async move {
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            loop {
                body.reserve_capacity(16 * 1024);
                let Some(Ok(room)) = std::future::poll_fn(|cx| body.poll_capacity(cx)).await else { return };
                body.send_data(Bytes::from(vec![b'x'; room]), false).unwrap();
                count.fetch_add(room, Ordering::SeqCst);
            }
        }
    })
    .await;
    let answer = fake.send(get()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!((1..=256 * 1024).contains(&sent.load(Ordering::SeqCst)), "{sent:?}");
    drop(answer);

    // Up: an endless body that the upstream does not read, into windows of 64 KiB for all of the connection.
    let fake = h2_fake(|request, respond, _, _| async move {
        tokio::time::sleep(Duration::from_secs(5)).await;
        drop((request, respond));
    })
    .await;
    let taken = Arc::new(AtomicUsize::new(0));
    let pieces = stream::unfold(Arc::clone(&taken), |taken| async move {
        taken.fetch_add(16 * 1024, Ordering::SeqCst);
        Some((Frame::data(Bytes::from(vec![b'x'; 16 * 1024])), taken))
    });
    let upload = fake.send(request(Method::POST, streamed(pieces)));
    assert!(tokio::time::timeout(Duration::from_millis(300), upload).await.is_err());
    let taken = taken.load(Ordering::SeqCst);
    assert!((60 * 1024..64 * 1024 + SEND_BUFFER + 32 * 1024).contains(&taken), "{taken}");
}

#[tokio::test]
async fn a_hint_before_the_answer_is_said_while_the_answer_is_waited_for() {
    let (go, wait) = tokio::sync::watch::channel(false);
    let fake = h2_fake(move |_, mut respond, _, _| {
        let mut wait = wait.clone();
        async move {
            let hint = |status: u16| Response::builder().status(status).header("link", "</a.css>").body(()).unwrap();
            respond.send_informational(hint(103)).unwrap();
            respond.send_informational(hint(102)).unwrap();
            wait.wait_for(|go| *go).await.unwrap();
            say(respond, "whole");
        }
    })
    .await;
    let hints = message::EarlyHints::default();
    let upstream = fake.upstreams.upstream(0).unwrap();
    let request = (get(), Ours::default(), Some(hints.clone()));
    let trust = &fake.upstreams.trust;
    let mut flight = Flight::new(&upstream.settings, trust, request, None, Admitted::default()).unwrap();
    let mut answer = std::pin::pin!(fake.upstreams.fly(upstream, &mut flight));
    let hint = std::future::poll_fn(|cx| {
        assert!(answer.as_mut().poll(cx).is_pending(), "nothing but a hint came");
        if hints.is_any() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    });
    hint.await;
    let mut said = Vec::new();
    let _ = hints.poll_write(false, |bytes| {
        said.extend_from_slice(bytes);
        std::task::Poll::Ready(Ok(bytes.len()))
    });
    assert_eq!(said, b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n");
    go.send(true).unwrap();
    let body = answer.await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert!(body == "whole" && !hints.is_any());
}

#[tokio::test]
async fn a_server_of_http_2_is_not_told_that_a_client_waits() {
    let fake = h2_fake(|request, respond, _, _| async move {
        assert!(!request.headers().contains_key("expect"));
        assert_eq!(read(request.into_body()).await.unwrap(), b"hello");
        say(respond, "whole");
    })
    .await;
    let body = stream::once(async { Frame::data(Bytes::from_static(b"hello")) });
    let mut asking = request(Method::POST, streamed(body));
    asking.headers_mut().insert(header::EXPECT, HeaderValue::from_static("100-continue"));
    assert_eq!(fake.text(asking).await, "whole");
}
