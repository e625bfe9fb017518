//! What one request means.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use vestibule_test_support::h2::{header_block, whole};
use vestibule_test_support::{H2Client, H2Frames, Stage, bytes};

use super::{PUBLIC, echoed, get, with_cookies};

#[tokio::test]
async fn a_session_in_crumbs_is_one_and_the_application_is_asked_in_http_1() {
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    let client = H2Client::connect(stage.address()).await;
    let request = get(&stage, "/page?x=1").header("cookie", "theme=dark").header("X_Forwarded_User", "root");
    let request = with_cookies(&stage, &browser, request).header("cookie", "lang=en").body(()).unwrap();
    let reply = client.send(request, "").await.unwrap();
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    let echo = reply.json();
    assert_eq!(echo["target"], "/page?x=1");
    assert_eq!(echoed(&echo, "x-forwarded-user"), ["248289761001"]);
    assert_eq!(echoed(&echo, "cookie"), ["theme=dark; lang=en"]);
    assert_eq!(echoed(&echo, "host"), [stage.host()]);
    let wire = String::from_utf8(stage.upstream.last().wire()).unwrap();
    assert!(wire.contains("GET /page?x=1 HTTP/1.1\r\n"), "{wire}");
    for field in ["connection", "transfer-encoding", "keep-alive"] {
        assert!(!reply.headers.contains_key(field), "{field}");
    }
}

#[tokio::test]
async fn a_cookie_of_ours_in_two_crumbs_is_no_session() {
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    let client = H2Client::connect(stage.address()).await;
    let request = with_cookies(&stage, &browser, get(&stage, "/"));
    let request = with_cookies(&stage, &browser, request).body(()).unwrap();
    let reply = client.send(request, "").await.unwrap();
    assert_eq!((reply.status, reply.json()["code"].as_str()), (StatusCode::UNAUTHORIZED, Some("session_cookie_twice")));
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn requests_without_one_reading_are_refused() {
    let stage = Stage::with(PUBLIC);
    let client = H2Client::connect(stage.address()).await;
    let host = stage.host();
    for (method, uri, hosts, status, code) in [
        ("GET", format!("http://{host}/"), vec!["other"], 400, "host_contradicted"),
        ("GET", format!("http://{host}/"), vec![&host, &host], 400, "host_repeated"),
        ("GET", "http://user@localhost/".to_owned(), vec![], 400, "host_invalid"),
        ("GET", format!("ftp://{host}/"), vec![], 400, "target_invalid"),
        ("GET", format!("http://{host}/a/%2e%2e/b"), vec![], 400, "path_dot_segment"),
        ("GET", format!("http://{host}/a%00"), vec![], 400, "path_control_byte"),
        ("TRACE", format!("http://{host}/"), vec![], 405, "method_refused"),
        ("CONNECT", host.clone(), vec![], 405, "method_refused"),
    ] {
        let mut request = Request::builder().method(method).uri(&uri);
        for host in &hosts {
            request = request.header("host", *host);
        }
        let reply = client.send(request.body(()).unwrap(), "").await.unwrap();
        assert_eq!((reply.status.as_u16(), reply.json()["code"].as_str()), (status, Some(code)), "{method} {uri}");
    }
    assert_eq!(client.get(&stage.url("/")).await.unwrap().status, StatusCode::OK);
    assert_eq!(stage.upstream.count(), 1);
}

/// The first HEADERS or RST_STREAM frame of stream 1: the status byte of HPACK's static table, or the error code; that of
/// GOAWAY where h2 ends the connection for it, as it may (RFC 9113 §5.4.2).
async fn outcome(stage: &Stage, fields: &[(&str, &str)]) -> Result<u8, u32> {
    let mut frames = H2Frames::connect(stage.address()).await;
    frames.write(1, 0x5, 1, &header_block(fields)).await;
    loop {
        let frame = frames.read().await.unwrap_or_else(|| panic!("no frame for {fields:?}"));
        match frame.kind {
            1 if frame.stream == 1 => return Ok(frame.payload[0]),
            3 if frame.stream == 1 => return Err(u32::from_be_bytes(frame.payload.try_into().unwrap())),
            7 => return Err(u32::from_be_bytes(frame.payload[4..8].try_into().unwrap())),
            _ => {}
        }
    }
}

#[tokio::test]
async fn malformed_requests_are_reset_or_refused() {
    // RFC 7541 appendix A: indexed 200, 400.
    const OK: Result<u8, u32> = Ok(0x88);
    const BAD_REQUEST: Result<u8, u32> = Ok(0x8c);
    const PROTOCOL_ERROR: Result<u8, u32> = Err(1);
    let stage = Stage::with(PUBLIC);
    let host = stage.host();
    let usual = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", host.as_str())];
    let with = |field| [&usual[..], &[field]].concat();
    let without = |name: &str| usual.iter().copied().filter(|(known, _)| *known != name).collect::<Vec<_>>();
    for (fields, wanted) in [
        (usual.to_vec(), OK),
        (with(("te", "trailers")), OK),
        (without(":authority"), BAD_REQUEST),
        (with(("connection", "close")), PROTOCOL_ERROR),
        (with(("keep-alive", "timeout=5")), PROTOCOL_ERROR),
        (with(("proxy-connection", "keep-alive")), PROTOCOL_ERROR),
        (with(("transfer-encoding", "chunked")), PROTOCOL_ERROR),
        (with(("upgrade", "websocket")), PROTOCOL_ERROR),
        (with(("te", "gzip")), PROTOCOL_ERROR),
        (with(("X-Upper", "x")), PROTOCOL_ERROR),
        (with(("content-length", "5")), PROTOCOL_ERROR),
        (with((":status", "200")), PROTOCOL_ERROR),
        (without(":method"), PROTOCOL_ERROR),
        (without(":scheme"), PROTOCOL_ERROR),
        (without(":path"), PROTOCOL_ERROR),
        ([&without(":path")[..], &[(":path", "*")]].concat(), BAD_REQUEST),
        ([&without(":path")[..], &[(":path", "?x")]].concat(), BAD_REQUEST),
    ] {
        stage.upstream.forget();
        assert_eq!(outcome(&stage, &fields).await, wanted, "{fields:?}");
        assert_eq!(stage.upstream.count(), usize::from(wanted == OK), "{fields:?}");
    }
}

#[tokio::test]
async fn a_body_of_another_length_than_announced_never_ends_well() {
    let stage = Stage::with(PUBLIC);
    let client = H2Client::connect(stage.address()).await;
    let request = Request::post(stage.url("/")).header("content-length", "5").body(()).unwrap();
    let error = client.send(request, "four").await.unwrap_err();
    assert_eq!(error.reason(), Some(h2::Reason::PROTOCOL_ERROR));
    assert!(stage.upstream.requests().iter().all(|request| !request.complete));
    assert_eq!(client.get(&stage.url("/")).await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn heads_too_large_and_too_many_fields_are_431() {
    let stage = Stage::with(&format!("[limits]\nmax_header_bytes = \"16KiB\"\nmax_headers = 20\n{PUBLIC}"));
    let client = H2Client::connect(stage.address()).await;
    let fields = |count: usize| {
        (0..count)
            .fold(get(&stage, "/"), |request, number| request.header(format!("x-{number}"), "1"))
            .body(())
            .unwrap()
    };
    let crumbs = |count: usize| (0..count).fold(get(&stage, "/"), |request, _| request.header("cookie", "a=1"));
    assert_eq!(client.send(fields(20), "").await.unwrap().status, StatusCode::OK);
    assert_eq!(client.send(crumbs(200).body(()).unwrap(), "").await.unwrap().status, StatusCode::OK, "one field");
    stage.upstream.forget();
    for request in [
        fields(21),
        get(&stage, "/").header("x-big", "x".repeat(17_000)).body(()).unwrap(),
        // Each crumb counts with what it costs to hold (RFC 9113 §6.5.2): 32 bytes and its own.
        crumbs(500).body(()).unwrap(),
    ] {
        let status = client.send(request, "").await.map(|reply| reply.status);
        assert_eq!(status.unwrap(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    stage.upstream.assert_untouched();
    assert_eq!(client.send(fields(1), "").await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn a_refused_body_resets_its_stream_and_nothing_else() {
    let stage = Stage::start();
    let client = H2Client::connect(stage.address()).await;
    let request = Request::post(stage.url("/x")).header("content-length", "1000000").body(()).unwrap();
    let (response, mut sending) = client.open(request, false).await.unwrap();
    sending.send_data(Bytes::from(vec![b'x'; 10_000]), false).unwrap();
    let reply = whole(response).await.unwrap();
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{}", reply.text());
    assert_eq!(reply.json()["code"], "no_session");
    let reason = std::future::poll_fn(|cx| sending.poll_reset(cx)).await.unwrap();
    assert_eq!(reason, h2::Reason::NO_ERROR);
    assert_eq!(client.get(&stage.url("/x")).await.unwrap().status, StatusCode::UNAUTHORIZED);
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn grpc_is_refused_in_its_own_words() {
    let stage = Stage::with("[[routes]]\npath = \"/admin/*\"\nrequire = { roles = [\"admin\"] }");
    let browser = stage.signed_in_browser().await;
    let client = H2Client::connect(stage.address()).await;
    let call = |path: &str, signed_in: bool, content_type: &str| {
        let request = Request::post(stage.url(path)).header("content-type", content_type).header("te", "trailers");
        if signed_in { with_cookies(&stage, &browser, request) } else { request }.body(()).unwrap()
    };
    for content_type in ["application/grpc", "application/grpc+proto"] {
        for (path, signed_in, status, message) in [
            ("/demo.Echo/Say", false, "16", "no_session"),
            ("/admin/demo.Echo/Say", true, "7", "missing_role"),
            ("/demo.Echo/..", true, "13", "path_dot_segment"),
            ("/auth/none", false, "12", "no_endpoint"),
        ] {
            let reply = client.send(call(path, signed_in, content_type), "\0\0\0\0\0").await.unwrap();
            assert_eq!((reply.status, reply.head_only), (StatusCode::OK, true), "{path}");
            assert_eq!(reply.headers["grpc-status"], status, "{path}");
            assert_eq!(reply.headers["grpc-message"], message, "{path}");
            assert_eq!(reply.headers["content-type"], "application/grpc");
        }
    }
    let script = client.send(call("/demo.Echo/Say", false, "application/grpc-web+proto"), "x").await.unwrap();
    assert_eq!(script.status, StatusCode::UNAUTHORIZED);
    assert!(script.json()["sign_in_url"].is_string());
    stage.upstream.assert_untouched();
    let reply = client.send(call("/demo.Echo/Say", true, "application/grpc"), "\0\0\0\0\0").await.unwrap();
    assert_eq!((reply.status, stage.upstream.count()), (StatusCode::OK, 1));
    assert_eq!(stage.upstream.last().header("te"), ["trailers"]);
    stage.upstream.take_down();
    let reply = client.send(call("/demo.Echo/Say", true, "application/grpc"), "\0\0\0\0\0").await.unwrap();
    assert!(reply.headers["grpc-status"] == "14" && reply.head_only);
}

#[tokio::test]
async fn trailers_pass_both_ways_and_none_of_them_is_ours() {
    let stage = Stage::with(PUBLIC);
    let client = H2Client::connect(stage.address()).await;
    let request = Request::post(stage.url("/trailers"))
        .header("te", "trailers")
        .header("trailer", "x-sum, x-forwarded-user, cookie")
        .body(())
        .unwrap();
    let (response, mut sending) = client.open(request, false).await.unwrap();
    sending.send_data(Bytes::from_static(b"body"), false).unwrap();
    let mut trailers = HeaderMap::new();
    for (name, value) in [("x-sum", "42"), ("x-forwarded-user", "root"), ("cookie", "a=1")] {
        trailers.insert(name, value.parse().unwrap());
    }
    sending.send_trailers(trailers).unwrap();
    let reply = whole(response).await.unwrap();
    assert_eq!((reply.status, reply.text()), (StatusCode::OK, "body".to_owned()));
    assert_eq!(reply.trailers.expect("trailers")["x-checksum"], "abc");
    let received = stage.upstream.last();
    assert_eq!(received.trailers, [("x-sum".to_owned(), "42".to_owned())]);
    assert_eq!(received.header("te"), ["trailers"]);
}

#[tokio::test]
async fn answers_without_a_body_and_with_fields_of_a_connection_are_put_right() {
    let stage = Stage::with(PUBLIC);
    let client = H2Client::connect(stage.address()).await;
    let head = Request::head(stage.url("/big?bytes=5000")).body(()).unwrap();
    let reply = client.send(head, "").await.unwrap();
    assert_eq!((reply.status, reply.body.len(), reply.head_only), (StatusCode::OK, 0, true));
    assert_eq!(reply.headers["content-length"], "5000");
    for status in [204, 304] {
        let reply = client.get(&stage.url(&format!("/respond?status={status}"))).await.unwrap();
        assert_eq!((reply.status.as_u16(), reply.body.len()), (status, 0));
    }
    let path = "/respond?header=Connection:X-Hop&header=X-Hop:1&header=Keep-Alive:timeout%3D5&header=X-Kept:1";
    let reply = client.get(&stage.url(path)).await.unwrap();
    assert_eq!(reply.headers["x-kept"], "1");
    for field in ["connection", "keep-alive", "x-hop", "transfer-encoding", "upgrade"] {
        assert!(!reply.headers.contains_key(field), "{field}");
    }
}

#[tokio::test]
async fn methods_paths_and_bodies_are_forwarded_as_they_are() {
    let stage = Stage::with(PUBLIC);
    let client = H2Client::connect(stage.address()).await;
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::from_bytes(b"PROPFIND").unwrap()]
    {
        for length in [None, Some("5")] {
            let mut request = Request::builder().method(method.clone()).uri(stage.url("/a%2Fb//c;x?q=%41"));
            if let Some(length) = length {
                request = request.header("content-length", length);
            }
            let reply = client.send(request.body(()).unwrap(), "hello").await.unwrap();
            assert_eq!(reply.status, StatusCode::OK, "{method}");
            let received = stage.upstream.last();
            assert_eq!((&received.method, received.body_text.as_str()), (&method, "hello"));
            assert_eq!(received.target, "/a%2Fb//c;x?q=%41");
        }
    }
    let waiting = Request::post(stage.url("/")).header("expect", "100-continue").body(()).unwrap();
    assert_eq!(client.send(waiting, "x").await.unwrap().status, StatusCode::OK);
    assert!(stage.upstream.last().header("expect").is_empty());
}

#[tokio::test]
async fn head_is_answered_with_the_fields_of_get_and_no_content_whoever_answers() {
    let stage = Stage::with(
        "[upstreams.fixed]\nrespond = { status = 200, body = \"fixed\" }\n[[routes]]\npath = \"/fixed\"\naccess = \"public\"\nupstream = \"fixed\"",
    );
    let client = H2Client::connect(stage.address()).await;
    for (path, status) in [("/guarded", 401), ("/a/%2e%2e/b", 400), ("/fixed", 200)] {
        // What a refusal says depends on who asks.
        let ask = async |method| {
            let request = Request::builder().method(method).uri(stage.url(path)).body(()).unwrap();
            client.send(request, "").await.unwrap_or_else(|error| panic!("{path}: {error}"))
        };
        let (get, head) = (ask(Method::GET).await, ask(Method::HEAD).await);
        assert_eq!((get.status.as_u16(), head.status.as_u16()), (status, status), "{path}");
        assert!(head.head_only && !get.body.is_empty(), "{path}");
        assert_eq!(head.headers.get("content-type"), get.headers.get("content-type"), "{path}");
        assert!(head.headers["content-length"] == get.body.len().to_string() || status != 200, "{path}");
    }
    stage.upstream.assert_untouched();
}
