use std::convert::Infallible;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version};
use http_body_util::{BodyExt as _, StreamBody};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::head::{Answer, read};
use super::*;
use crate::message::Body;
use crate::upstream::body::Limits;
use crate::upstream::head::Ours;
use crate::upstream::socket::{SocketIo, Stream};

/// The answer's head in `pieces`, which come one after the other, and what is left behind it.
fn answer(pieces: &[&[u8]], method: &Method) -> Result<Option<(Answer, Vec<u8>)>, Error> {
    let (mut input, mut searched, mut head) = (BytesMut::new(), 0, head(method.clone()));
    for (index, piece) in pieces.iter().enumerate() {
        input.extend_from_slice(piece);
        if let Some(answer) = read(&mut input, &mut searched, &mut head)? {
            return Ok(Some((answer, [&input, pieces[index + 1..].concat().as_slice()].concat())));
        }
    }
    Ok(None)
}

fn get(text: &str) -> Result<Option<(Answer, Vec<u8>)>, Error> {
    answer(&[text.as_bytes()], &Method::GET)
}

#[test]
fn a_head_is_the_same_however_it_is_split() {
    const WHOLE: &[u8] = b"\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n\
        HTTP/1.1 299 Quite Fine\r\nConnection: x-hop, close\r\nconnection: keep-alive\r\nETag: \"x\"\r\nset-cookie: a=1\r\nSet-Cookie: b=\xff\r\nempty:\r\n\
        content-length: 3\r\n\r\nabc";
    let halves = (0..=WHOLE.len()).map(|at| vec![&WHOLE[..at], &WHOLE[at..]]);
    for (at, pieces) in halves.chain([WHOLE.chunks(1).collect()]).enumerate() {
        let (answer, rest) = answer(&pieces, &Method::GET).unwrap().unwrap();
        assert_eq!((answer.head.status.as_u16(), answer.head.version), (299, Version::HTTP_11), "split at {at}");
        let reason = answer.head.extensions.get::<hyper::ext::ReasonPhrase>().unwrap();
        assert_eq!(reason.as_bytes(), b"Quite Fine");
        let fields: Vec<_> =
            answer.head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let wanted: [(&str, &[u8]); 5] = [
            ("connection", b"x-hop, close"),
            ("etag", b"\"x\""),
            ("set-cookie", b"a=1"),
            ("set-cookie", b"b=\xff"),
            ("empty", b""),
        ];
        assert_eq!(fields, wanted);
        assert!(matches!(answer.framing, Framing::Length(3)) && !answer.keeps_alive);
        assert_eq!(rest, b"abc");
    }
    for end in 0..WHOLE.len() - 3 {
        assert!(answer(&[&WHOLE[..end]], &Method::GET).unwrap().is_none(), "{end} bytes are no head");
    }
}

#[test]
fn what_is_no_head_or_has_two_readings_is_refused() {
    for text in [
        "SSH-2.0",
        "\u{15}\u{3}",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.2 200 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 099 Odd\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: 1\r\n folded\r\n\r\n",
        "HTTP/1.1 200 OK\r\n x: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx : 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx y: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\n: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: a\rb\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 3, 4\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 3,\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: +3\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 0x3\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length:\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551616\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, identity\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: xchunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding:\r\n\r\n",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
    ] {
        assert!(get(text).is_err_and(|error| error.is_nonsense()), "{text:?}");
    }
}

#[test]
fn a_head_is_bounded() {
    let fields = |count: usize| (0..count).map(|index| format!("x-{index}: 1\r\n")).collect::<String>();
    assert!(get(&format!("HTTP/1.1 200 OK\r\n{}\r\n", fields(HEADERS))).unwrap().is_some());
    assert!(get(&format!("HTTP/1.1 200 OK\r\n{}\r\n", fields(HEADERS + 1))).is_err());
    let long = |length: usize| format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(length));
    assert!(get(&(long(60_000) + "\r\n\r\n")).unwrap().is_some());
    assert!(matches!(get(&(long(65_536) + "\r\n\r\n")), Err(Error::TooLarge)));
    assert!(matches!(get(&long(65_536)), Err(Error::TooLarge)), "without an end, too");
}

#[test]
fn an_answer_says_how_it_ends_and_whether_another_may_follow() {
    for (method, text, framing, keeps_alive) in [
        ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n", "Length(7)", true),
        ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 7, 7\r\nContent-Length: 7\r\n\r\n", "Length(7)", true),
        ("GET", "HTTP/1.1 200\ncontent-length: 7\n\n", "Length(7)", true),
        ("GET", "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked \r\n\r\n", "Chunked", true),
        ("GET", "HTTP/1.1 200 OK\r\n\r\n", "UntilClose", false),
        ("GET", "HTTP/1.1 200 OK\r\nconnection: keep-alive\r\n\r\n", "UntilClose", false),
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n", "Length(0)", true),
        ("HEAD", "HTTP/1.1 200 OK\r\n\r\n", "Length(0)", true),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", "Length(0)", true),
        ("GET", "HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n", "Length(0)", true),
        ("GET", "HTTP/1.1 101 Switching Protocols\r\n\r\n", "Length(0)", false),
        ("GET", "HTTP/1.1 200 OK\r\nconnection: x, Close\r\ncontent-length: 0\r\n\r\n", "Length(0)", false),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nconnection: close\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n",
            "Length(0)",
            false,
        ),
        ("GET", "HTTP/1.0 200 OK\r\ncontent-length: 7\r\n\r\n", "Length(7)", false),
        ("GET", "HTTP/1.0 200 OK\r\nconnection: Keep-Alive\r\ncontent-length: 7\r\n\r\n", "Length(7)", true),
    ] {
        let (answer, _) = answer(&[text.as_bytes()], &method.parse().unwrap()).unwrap().unwrap();
        assert!(format!("{:?}", answer.framing).starts_with(framing), "{text:?}: {:?}", answer.framing);
        assert_eq!(answer.keeps_alive, keeps_alive, "{text:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_head_or_refused_alike_however_they_are_split(
        tail in "[a-c:\r\n 0-9,]{0,60}", at in any::<prop::sample::Index>(),
    ) {
        let wire = format!("HTTP/1.1 200 OK\r\nContent-Length: {tail}\r\n\r\n");
        let at = at.index(wire.len());
        let outcome = |pieces: &[&[u8]]| {
            answer(pieces, &Method::GET).map_err(drop).map(|found| {
                found.map(|(answer, rest)| (answer.head.headers, format!("{:?}", answer.framing), rest))
            })
        };
        prop_assert_eq!(outcome(&[wire.as_bytes()]), outcome(&[&wire.as_bytes()[..at], &wire.as_bytes()[at..]]));
    }

    #[test]
    fn the_head_that_is_written_is_the_head_that_was_meant(
        path in "/[!-~&&[^#\"<>`{}|\\\\^]]{0,30}",
        fields in prop::collection::vec(("[a-z][a-z0-9-]{0,10}", "[!-~]([ -~]{0,20}[!-~])?"), 0..10),
    ) {
        let mut request = Request::builder().uri(path.as_str()).method("REPORT");
        for (name, value) in &fields {
            request = request.header(name, value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let mut ours = Ours::default();
        ours.put(HeaderName::from_static("x-ours"), Some(HeaderValue::from_static("1")));
        ours.put(HeaderName::from_static("a"), None);
        let head = Head { parts, ours, hints: None, expectation: None };
        let mut wire = Vec::new();
        head::write(&mut wire, &head, head::Length::Known(7));
        let mut read = [httparse::EMPTY_HEADER; 20];
        let mut parsed = httparse::Request::new(&mut read);
        prop_assert_eq!(parsed.parse(&wire).unwrap(), httparse::Status::Complete(wire.len()));
        prop_assert_eq!((parsed.method, parsed.path), (Some("REPORT"), Some(path.as_str())));
        let mut back = HeaderMap::new();
        for field in &*parsed.headers {
            let name: http::HeaderName = field.name.parse().unwrap();
            back.append(name, HeaderValue::from_bytes(field.value).unwrap());
        }
        let mut meant = head.parts.headers;
        prop_assert_eq!(back.remove("content-length"), meant.remove("content-length").or(Some(7.into())));
        head.ours.settle(&mut meant);
        prop_assert_eq!(back, meant);
    }
}

/// A connection, and its other end.
async fn pair() -> (Connection, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    server.set_nodelay(true).unwrap();
    let socket = Socket::new(Stream::Tcp(stream));
    (Connection::new(Io::Plain(SocketIo(Arc::clone(&socket))), socket), server)
}

fn head(method: Method) -> Head {
    let request = Request::builder().method(method).uri("/x?y").header("host", "app").body(()).unwrap();
    Head { parts: request.into_parts().0, ours: Ours::default(), hints: None, expectation: None }
}

async fn read_body(connection: &mut Connection) -> Result<(Vec<u8>, Option<HeaderMap>), BodyError> {
    let (mut data, mut trailers) = (Vec::new(), None);
    while let Some(frame) = poll_fn(|cx| connection.poll_frame(cx)).await.transpose()? {
        match frame.into_data() {
            Ok(some) => data.extend_from_slice(&some),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok((data, trailers))
}

async fn read_until(server: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    while !read.ends_with(end.as_bytes()) {
        let byte = tokio::time::timeout(Duration::from_secs(5), server.read_u8()).await;
        read.push(byte.unwrap_or_else(|_| panic!("{end:?} never came: {read:?}")).unwrap());
    }
    String::from_utf8(read).unwrap()
}

#[tokio::test]
async fn answers_that_come_byte_by_byte_are_whole_and_the_connection_is_good_for_the_next() {
    let (mut connection, mut server) = pair().await;
    for (method, wire, body) in [
        (Method::GET, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", "hello"),
        (
            Method::GET,
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;x\r\nhe\r\n3\r\nllo\r\n0\r\nx: 1\r\n\r\n",
            "hello",
        ),
        (Method::HEAD, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", ""),
        (Method::GET, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", ""),
    ] {
        let serve = async {
            read_until(&mut server, "\r\n\r\n").await;
            for byte in wire.bytes() {
                server.write_u8(byte).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let ask = async {
            connection.send(&mut head(method), RequestBody::empty()).await.unwrap();
            read_body(&mut connection).await.unwrap().0
        };
        let (got, ()) = tokio::join!(ask, serve);
        assert_eq!(got, body.as_bytes());
        assert!(connection.is_reusable() && connection.is_quiet(true) && connection.is_quiet(false), "{wire:?}");
    }
}

#[tokio::test]
async fn an_answer_that_the_end_of_the_connection_ends_is_whole_only_where_nothing_else_says_its_length() {
    for (wire, whole) in [
        ("HTTP/1.1 200 OK\r\n\r\nhello", true),
        ("HTTP/1.0 200 OK\r\n\r\nhello", true),
        ("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello", false),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", false),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", false),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx: 1\r\n", false),
    ] {
        let (mut connection, mut server) = pair().await;
        server.write_all(wire.as_bytes()).await.unwrap();
        connection.send(&mut head(Method::GET), RequestBody::empty()).await.unwrap();
        // Read before it closes: a reset would take away what was not.
        read_until(&mut server, "\r\n\r\n").await;
        drop(server);
        let body = read_body(&mut connection).await;
        assert_eq!(body.is_ok(), whole, "{wire:?}: {body:?}");
        assert!(!connection.is_reusable());
    }
}

#[tokio::test]
async fn no_bytes_behind_an_answer_become_the_next_one() {
    for wire in
        ["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK", "HTTP/1.1 204 None\r\n\r\n5\r\nhello\r\n"]
    {
        let (mut connection, mut server) = pair().await;
        server.write_all(wire.as_bytes()).await.unwrap();
        connection.send(&mut head(Method::GET), RequestBody::empty()).await.unwrap();
        read_body(&mut connection).await.unwrap();
        assert!(connection.is_answered() && !connection.is_reusable(), "{wire:?}");
    }
    let (mut connection, mut server) = pair().await;
    server.write_all(b"HTTP/1.1 204 None\r\n\r\n").await.unwrap();
    connection.send(&mut head(Method::GET), RequestBody::empty()).await.unwrap();
    assert!(connection.is_reusable() && connection.is_quiet(true));
    server.write_all(b"HTTP/1.1 200 Late\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let quiet = poll_fn(|cx| {
        while let Poll::Ready(turn) = tokio::task::coop::poll_proceed(cx) {
            turn.made_progress();
        }
        Poll::Ready(connection.is_quiet(false))
    });
    assert!(!quiet.await, "what comes later is not taken for an answer either, in whatever hurry the task is");
}

fn stream(frames: Vec<Frame<Bytes>>) -> RequestBody {
    let frames = futures_util::stream::iter(frames.into_iter().map(Ok::<_, Infallible>));
    watched(Body::stream(StreamBody::new(frames).map_err(Into::into)))
}

fn watched(body: Body) -> RequestBody {
    let idle = Duration::from_secs(60);
    let limits = Limits { idle, pace: None, most: None, term: None, is_http2: false, hold: None };
    RequestBody::watched(body, limits, &Arc::default()).0
}

#[tokio::test]
async fn a_body_goes_out_with_its_head_and_in_its_framing() {
    let mut trailers = HeaderMap::new();
    for name in ["x-sum", "x-unnamed", "content-type"] {
        trailers.insert(name, HeaderValue::from_static("1"));
    }
    let piece = |text: &'static str| Frame::data(Bytes::from_static(text.as_bytes()));
    let cases = [
        (RequestBody::empty(), "\r\n\r\n"),
        (watched(Body::full("hello")), "content-length: 5\r\n\r\nhello"),
        (stream(vec![]), "transfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        (stream(vec![piece("hello world"), piece(""), piece("!")]), "b\r\nhello world\r\n1\r\n!\r\n0\r\n\r\n"),
        (stream(vec![piece("a"), Frame::trailers(trailers)]), "1\r\na\r\n0\r\nx-sum: 1\r\n\r\n"),
    ];
    for (body, end) in cases {
        let (mut connection, mut server) = pair().await;
        let mut head = head(Method::POST);
        head.parts.headers.insert("trailer", HeaderValue::from_static("X-Sum, content-type"));
        let serve = async {
            let request = read_until(&mut server, end).await;
            assert!(request.starts_with("POST /x?y HTTP/1.1\r\nhost: app\r\n"), "{request}");
            server.write_all(b"HTTP/1.1 204 None\r\n\r\n").await.unwrap();
        };
        let (answer, ()) = tokio::join!(connection.send(&mut head, body), serve);
        assert_eq!(answer.unwrap().status(), 204);
        assert!(connection.is_reusable(), "{end:?}");
    }
}

#[tokio::test]
async fn a_body_of_another_length_than_announced_is_the_clients_fault() {
    struct Wrong(Option<Bytes>);
    impl http_body::Body for Wrong {
        type Data = Bytes;
        type Error = BodyError;
        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            Poll::Ready(self.0.take().map(|data| Ok(Frame::data(data))))
        }
        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(5)
        }
    }
    for text in ["four", "sixsix"] {
        let (mut connection, _server) = pair().await;
        let body = watched(Body::stream(Wrong(Some(Bytes::from_static(text.as_bytes())))));
        let outcome = connection.send(&mut head(Method::POST), body).await;
        assert!(matches!(outcome, Err(Error::RequestBody(_))), "{text}: {outcome:?}");
    }
}

#[tokio::test]
async fn an_answer_passes_while_its_request_is_still_on_the_way() {
    let (mut connection, mut server) = pair().await;
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel::<Result<Frame<Bytes>, BodyError>>();
    let frames = futures_util::stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
    let body = watched(Body::stream(StreamBody::new(Box::pin(frames))));
    let say = |text: &'static str| sender.send(Ok(Frame::data(Bytes::from_static(text.as_bytes())))).unwrap();
    server.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    connection.send(&mut head(Method::POST), body).await.unwrap();
    for _ in 0..3 {
        // Nobody reads the answer meanwhile.
        say("ping");
        read_until(&mut server, "4\r\nping\r\n").await;
        server.write_all(b"4\r\npong\r\n").await.unwrap();
        let frame = poll_fn(|cx| connection.poll_frame(cx)).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "pong");
    }
    server.write_all(b"0\r\n\r\n").await.unwrap();
    assert!(poll_fn(|cx| connection.poll_frame(cx)).await.is_none());
    assert!(connection.goes_on() && !connection.is_reusable());
    drop(sender);
    assert!(connection.finish().await, "once the request is written, too, the connection is as good as new");
    assert!(read_until(&mut server, "0\r\n\r\n").await.ends_with("0\r\n\r\n"));
}

#[tokio::test]
async fn a_request_that_breaks_beside_its_answer_breaks_the_answer() {
    let (mut connection, mut server) = pair().await;
    let (sender, receiver) = oneshot::channel::<()>();
    let failing = futures_util::stream::once(async move {
        let _ = receiver.await;
        Err::<Frame<Bytes>, BodyError>("gone".into())
    });
    let body = watched(Body::stream(StreamBody::new(Box::pin(failing))));
    server.write_all(b"HTTP/1.1 200 OK\r\n\r\nsome").await.unwrap();
    connection.send(&mut head(Method::POST), body).await.unwrap();
    drop(sender);
    let outcome = tokio::time::timeout(Duration::from_secs(5), read_body(&mut connection)).await.expect("an end");
    assert!(outcome.is_err() && !connection.goes_on());
    drop(server);
}

#[tokio::test]
async fn a_large_answer_is_read_in_bounded_pieces() {
    let (mut connection, mut server) = pair().await;
    let length = 3_000_000;
    let sent = tokio::spawn(async move {
        server.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").as_bytes()).await.unwrap();
        server.write_all(&vec![b'x'; length]).await.unwrap();
        server
    });
    connection.send(&mut head(Method::GET), RequestBody::empty()).await.unwrap();
    let (mut got, mut largest) = (0, 0);
    while let Some(frame) = poll_fn(|cx| connection.poll_frame(cx)).await {
        let piece = frame.unwrap().into_data().unwrap().len();
        (got, largest) = (got + piece, largest.max(piece));
    }
    assert_eq!(got, length);
    assert!(largest <= 2 * PIECE, "{largest}");
    connection.rest();
    assert!(connection.is_reusable() && connection.received.capacity() == 0, "an idle connection holds little");
    sent.await.unwrap();
}
