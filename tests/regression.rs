//! What went wrong once, here or elsewhere in this field, stays mended: one sentence for each way in, and the application
//! untouched wherever a request is refused.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use vestibule_test_support::{Request, Stage, raw_request};

const PUBLIC: &str = "[[routes]]\npath = \"/*\"\naccess = \"public\"";

async fn answer(stage: &Stage, request: &str) -> String {
    let request = request.replace("{host}", &stage.host());
    String::from_utf8_lossy(&raw_request(stage.address(), request.as_bytes()).await).into_owned()
}

/// An application that reads one request head at a time and answers with `respond(connection, request)`, byte for byte.
async fn scripted(respond: impl Fn(usize, &str) -> String + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let respond = std::sync::Arc::new(respond);
    tokio::spawn(async move {
        for connection in 0.. {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            let respond = std::sync::Arc::clone(&respond);
            tokio::spawn(async move {
                let mut pending = Vec::new();
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    pending.extend_from_slice(&buffer[..count]);
                    while let Some(end) = pending.windows(4).position(|four| four == b"\r\n\r\n") {
                        let head: Vec<u8> = pending.drain(..end + 4).collect();
                        let answer = respond(connection, &String::from_utf8_lossy(&head));
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    address
}

fn in_front_of(application: SocketAddr, routes: &str) -> Stage {
    Stage::with(&format!("workers = 1\n[upstream]\nurl = \"http://{application}\"\n{routes}"))
}

// CVE-2026-41059, CVE-2025-66490: the application decodes the path and cuts it at `#` or `?`.
#[tokio::test]
async fn an_encoded_fragment_or_query_mark_opens_nothing() {
    let stage = Stage::with(
        "[[routes]]\npath = \"/foo/{id}/bar\"\naccess = \"public\"\n[[routes]]\npath = \"/open/*\"\naccess = \"public\"",
    );
    let browser = stage.browser();
    for path in [
        "/foo/secret%23/bar",
        "/foo/secret%3f/bar",
        "/foo/secret%3Fx=1/bar",
        "/foo/secret%2523/bar",
        "/foo/secret%253f/bar",
        "/foo%23/x/bar",
    ] {
        let reply = browser.fetch(&stage.url(path)).await;
        assert!([400, 401].contains(&reply.status.as_u16()), "{path}: {}", reply.status);
        stage.upstream.assert_untouched();
    }
    // Where nothing changes by it, it is a character like any other.
    assert_eq!(browser.fetch(&stage.url("/open/c%23/why%3f")).await.status, StatusCode::OK);
    assert_eq!(stage.upstream.last().target, "/open/c%23/why%3f");
}

// CVE-2016-5385 and its relatives: `Proxy` becomes HTTP_PROXY in CGI applications.
#[tokio::test]
async fn a_proxy_header_never_becomes_an_applications_proxy() {
    let stage = Stage::with(PUBLIC);
    let request = Request::new(Method::GET, &stage.url("/"))
        .header("proxy", "http://evil.example:3128")
        .header("proxy-authorization", "Basic YTpi")
        .header("proxy-connection", "keep-alive");
    stage.browser().send(request).await;
    let seen = stage.upstream.last();
    assert!(!seen.headers.iter().any(|(name, _)| name.starts_with("proxy")), "{:?}", seen.headers);
}

#[tokio::test]
async fn what_we_write_is_there_once_and_in_our_spelling() {
    let stage = Stage::with(PUBLIC);
    let spoof = "POST / HTTP/1.1\r\nHost: {host}\r\nX_Request_Id: spoofed\r\nX-Request.Id: spoofed\r\nX-Request-Id: spoofed\r\n\
                 X_Forwarded_For: spoofed\r\nX.Real.IP: spoofed\r\nX_Forwarded_Port: 443\r\nX-Forwarded-Scheme: https\r\n\
                 Transfer-Encoding: chunked\r\nTrailer: X-Request-Id, X_Request_Id, X-Real-IP, Forwarded\r\nConnection: close\r\n\r\n\
                 1\r\na\r\n0\r\nX-Request-Id: spoofed\r\nX_Request_Id: spoofed\r\nX-Real-IP: spoofed\r\nForwarded: spoofed\r\n\r\n";
    assert!(answer(&stage, spoof).await.starts_with("HTTP/1.1 200"));
    let seen = stage.upstream.last();
    let spoofed: Vec<_> = seen.headers.iter().chain(&seen.trailers).filter(|(_, value)| value == "spoofed").collect();
    assert!(spoofed.is_empty(), "{spoofed:?}");
    assert_eq!(seen.header("x-request-id").len(), 1);
    assert!(
        !seen.headers.iter().any(|(name, _)| name.contains("port") || name.contains("scheme")),
        "{:?}",
        seen.headers
    );
}

// The application takes a bearer token from us; a stranger's must not stand in for it on an open route.
#[tokio::test]
async fn an_anonymous_request_brings_no_bearer_token_where_the_application_gets_ours() {
    let stage = Stage::with(&format!("[upstream]\naccess_token = \"bearer\"\n{PUBLIC}"));
    let forged = Request::new(Method::GET, &stage.url("/")).header("authorization", "Bearer forged");
    assert_eq!(stage.browser().send(forged).await.echoed("authorization"), None);
    let plain = Stage::with(PUBLIC);
    let own = Request::new(Method::GET, &plain.url("/")).header("authorization", "Bearer own");
    assert_eq!(plain.browser().send(own).await.echoed("authorization").as_deref(), Some("Bearer own"));
}

// NTLM and Negotiate sign in a connection, not a request: one that is shared would speak for the next person.
#[tokio::test]
async fn a_connection_that_somebody_has_signed_in_is_not_given_to_the_next() {
    for scheme in ["NTLM TlRMTVNTUAABAAAA", "Negotiate YIIB", "negotiate YIIB"] {
        let application = scripted(|connection, _| {
            let body = format!("connection {connection}");
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        })
        .await;
        let stage = in_front_of(application, PUBLIC);
        let one =
            stage.browser().send(Request::new(Method::GET, &stage.url("/")).header("authorization", scheme)).await;
        let two = stage.browser().fetch(&stage.url("/")).await;
        assert_ne!(one.text(), two.text(), "{scheme}");
    }
    let application = scripted(|connection, _| {
        format!("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Negotiate\r\nWWW-Authenticate: NTLM\r\nX-N: {connection}\r\nContent-Length: 0\r\n\r\n")
    })
    .await;
    let stage = in_front_of(application, PUBLIC);
    let seen: BTreeSet<_> =
        [stage.browser().fetch(&stage.url("/")).await, stage.browser().fetch(&stage.url("/")).await]
            .iter()
            .map(|reply| reply.header("x-n").map(str::to_owned))
            .collect();
    assert_eq!(seen.len(), 2, "{seen:?}");
}

// CVE-2024-33452, CVE-2026-71324: bytes behind an answer that has no body are nobody's next answer.
#[tokio::test]
async fn what_an_application_sends_too_much_never_answers_the_next_person() {
    const SMUGGLED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nevil!";
    for (method, first) in [
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 52\r\n\r\n"),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    ] {
        let application = scripted(move |_, head| match head.contains(" /first ") {
            true => format!("{first}{SMUGGLED}"),
            false => "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine".to_owned(),
        })
        .await;
        let stage = in_front_of(application, PUBLIC);
        for _ in 0..5 {
            let both = format!(
                "{method} /first HTTP/1.1\r\nHost: {{host}}\r\n\r\nGET /second HTTP/1.1\r\nHost: {{host}}\r\nConnection: close\r\n\r\n"
            );
            let text = answer(&stage, &both).await;
            assert!(!text.contains("evil!"), "{method} {first:?}: {text}");
            let next = stage.browser().fetch(&stage.url("/second")).await;
            assert_eq!(next.text(), "fine", "{method} {first:?}");
        }
    }
}

// Omnibox prerendering and speculation rules fetch what nobody has clicked on; a picture signs nobody out either.
#[tokio::test]
async fn what_a_browser_fetches_by_itself_signs_nobody_out() {
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    let logout = || Request::navigation(Method::GET, &stage.url("/auth/logout"));
    for request in [
        logout().header("sec-purpose", "prefetch;prerender"),
        logout().header("sec-purpose", "prefetch").header("sec-fetch-site", "same-origin"),
        logout()
            .header("sec-fetch-site", "same-origin")
            .header("sec-fetch-mode", "no-cors")
            .header("sec-fetch-dest", "image"),
        logout()
            .header("sec-fetch-site", "same-origin")
            .header("sec-fetch-mode", "navigate")
            .header("sec-fetch-dest", "iframe"),
    ] {
        let reply = browser.send(request.clone()).await;
        assert_eq!(reply.status, StatusCode::OK, "{request:?}");
        assert_eq!(browser.get(&stage.url("/")).await.status, StatusCode::OK, "{request:?}");
    }
    assert_eq!(browser.get(&stage.url("/auth/logout")).await.status, StatusCode::SEE_OTHER);
}

// CVE-2022-29226, CVE-2026-34457, CVE-2026-40575, CVE-2023-27487, CVE-2024-47070: nothing but a session opens a guarded page.
#[tokio::test]
async fn no_header_of_a_stranger_opens_a_guarded_page() {
    let stage = Stage::with("[[routes]]\npath = \"/public/*\"\naccess = \"public\"");
    for (name, value) in [
        ("authorization", "Bearer x"),
        ("authorization", "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9."),
        ("authorization", "Basic YWRtaW46YWRtaW4="),
        ("user-agent", "GoogleHC/1.0"),
        ("user-agent", "kube-probe/1.30"),
        ("x-forwarded-uri", "/public/x"),
        ("x-original-uri", "/public/x"),
        ("x-original-url", "/public/x"),
        ("x-rewrite-url", "/public/x"),
        ("x-envoy-original-path", "/public/x"),
        ("x-forwarded-method", "OPTIONS"),
        ("x-http-method-override", "OPTIONS"),
        ("x-forwarded-prefix", "/public"),
        ("x-forwarded-host", "127.0.0.1"),
        ("x-forwarded-for", "a"),
        ("x-real-ip", "127.0.0.1"),
        ("forwarded", "for=127.0.0.1;host=localhost"),
        ("x-forwarded-user", "admin"),
        ("x-vestibule-user", "admin"),
        ("ssl_client_verify", "SUCCESS"),
        ("cookie", "vestibule=admin"),
        ("cookie", "vestibule=2~; vestibule.1="),
        ("cookie", "vestibule=99999999999999999999~x"),
        ("cookie", ";=;;vestibule=;vestibule.idle=;="),
    ] {
        for method in [Method::GET, Method::HEAD, Method::POST, Method::OPTIONS, Method::DELETE] {
            let request = Request::new(method.clone(), &stage.url("/private")).header(name, value);
            let reply = stage.browser().send(request).await;
            assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{method} {name}: {value}");
            assert!(reply.set_cookies().is_empty(), "{method} {name}: {value}");
            stage.upstream.assert_untouched();
        }
    }
}

// CVE-2025-64763, CVE-2026-48743, CVE-2024-32638: the body of a request that was answered without it is never a request.
#[tokio::test]
async fn the_body_of_a_refused_request_is_never_read_as_the_next_one() {
    let stage = Stage::with("[[routes]]\npath = \"/public/*\"\naccess = \"public\"");
    const INNER: &str = "GET /public/smuggled HTTP/1.1\r\nHost: {host}\r\n\r\n";
    let inner = INNER.replace("{host}", &stage.host());
    let length = inner.len();
    for start in [
        "GET /private HTTP/1.1\r\nAccept: text/html",
        "POST /private HTTP/1.1",
        "GET /auth/login HTTP/1.1",
        "GET /auth/callback?state=x&code=y HTTP/1.1",
        "POST /auth/logout HTTP/1.1",
        "GET /auth/nothing HTTP/1.1",
        "HEAD /private HTTP/1.1",
        "OPTIONS /private HTTP/1.1\r\nOrigin: https://a.example\r\nAccess-Control-Request-Method: PUT",
        "GET /public/%2e%2e/x HTTP/1.1",
        "POST /private HTTP/1.1\r\nExpect: 100-continue",
        "POST /private HTTP/1.1\r\nContent-Type: application/grpc",
    ] {
        for framed in [
            format!("Content-Length: {length}\r\n\r\n{inner}"),
            format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{inner}\r\n0\r\n\r\n"),
            format!("Content-Length: {}\r\n\r\n{inner}", length + 10),
        ] {
            let text = answer(&stage, &format!("{start}\r\nHost: {{host}}\r\n{framed}")).await;
            assert!(text.starts_with("HTTP/1.1 "), "{start}: {text}");
            assert!(stage.upstream.requests().is_empty(), "{start} {framed:?}: {text}");
        }
    }
}

// CVE-2026-48743 and request-queue poisoning: an application that answers before it has read the body may take the rest of
// the body for the next request, so nobody else's request follows on that connection.
#[tokio::test]
async fn a_connection_whose_request_was_answered_too_early_is_not_used_again() {
    let application = scripted(|connection, _| {
        let body = format!("connection {connection}");
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    })
    .await;
    let stage = in_front_of(application, PUBLIC);
    let mut client = TcpStream::connect(stage.address()).await.unwrap();
    let head = format!("POST /early HTTP/1.1\r\nHost: {}\r\nContent-Length: 10\r\n\r\nhalf:", stage.host());
    client.write_all(head.as_bytes()).await.unwrap();
    let mut early = vec![0; 4096];
    let count = client.read(&mut early).await.unwrap();
    let early = String::from_utf8_lossy(&early[..count]).into_owned();
    assert!(early.ends_with("connection 0"), "{early}");
    client.write_all(b"other").await.unwrap();
    // Once the rest of the body is through, the connection would be free.
    for _ in 0..20 {
        let next = stage.browser().fetch(&stage.url("/next")).await;
        assert_ne!(next.text(), "connection 0");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

// CVE-2017-1000070, CVE-2020-5233, CVE-2020-11053, CVE-2020-4037, CVE-2019-20479, CVE-2022-23527: the path itself is the
// return address.
#[tokio::test]
async fn a_path_that_looks_like_another_host_is_never_a_way_there() {
    let stage = Stage::start();
    let ours = url::Url::parse(&stage.origin()).unwrap().origin();
    for path in [
        "//evil.example",
        "//evil.example/%2f..",
        "///evil.example",
        "/;//evil.example",
        "/.//evil.example",
        "/%2fevil.example",
        "/%5cevil.example",
        "/\\evil.example",
        "/%09/evil.example",
        "/%0d%0aLocation:%20https://evil.example",
        "/@evil.example",
        "/https://evil.example",
        "/..//evil.example",
        "/%252fevil.example",
        "/x/..//evil.example",
        "/?//evil.example",
        "/%3f//evil.example",
    ] {
        for host in [stage.host(), format!("alias.example:{}", stage.address().port())] {
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/html\r\nConnection: close\r\n\r\n");
            let text = String::from_utf8_lossy(&raw_request(stage.address(), request.as_bytes()).await).into_owned();
            let location = text.lines().find_map(|line| line.strip_prefix("location: "));
            assert!(text.starts_with("HTTP/1.1 400") || text.starts_with("HTTP/1.1 302"), "{path}: {text}");
            assert!(!text.to_ascii_lowercase().contains("\nlocation: https://evil"), "{path}: {text}");
            if let Some(location) = location {
                let to = url::Url::parse(&stage.origin()).unwrap().join(location).unwrap();
                let is_provider = location.starts_with(&stage.provider.issuer());
                assert!(is_provider || to.origin() == ours, "{path} on {host}: {location}");
            }
            stage.upstream.assert_untouched();
        }
        if path.contains('\\') {
            continue;
        }
        let browser = stage.browser();
        let started = browser.get(&format!("{}{path}", stage.origin())).await;
        if started.status == StatusCode::FOUND {
            let page = browser.follow_reply(started, 10).await;
            assert_eq!(url::Url::parse(page.url.as_str()).unwrap().origin(), ours, "{path}");
            stage.upstream.forget();
        }
    }
}

// CVE-2021-39155, CVE-2026-77560: a host is one host in every spelling.
#[tokio::test]
async fn no_spelling_of_a_host_is_less_guarded() {
    let stage = Stage::with(
        "[[routes]]\npath = \"/*\"\naccess = \"public\"\n[[routes]]\nhost = \"admin.example\"\npath = \"/*\"\naccess = \"required\"",
    );
    for host in ["admin.example", "ADMIN.example", "Admin.Example.", "admin.example:80", "admin.example.:8080"] {
        for target in ["/".to_owned(), format!("http://{host}/"), format!("HTTP://{}/", host.to_uppercase())] {
            let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            let text = String::from_utf8_lossy(&raw_request(stage.address(), request.as_bytes()).await).into_owned();
            assert!(text.starts_with("HTTP/1.1 401") || text.starts_with("HTTP/1.1 400"), "{target} {host}: {text}");
            stage.upstream.assert_untouched();
        }
    }
}

// RFC 9213: some caches listen to a field of their own instead of Cache-Control.
#[tokio::test]
async fn no_cache_keeps_an_answer_with_a_cookie_of_ours() {
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    stage.clock.advance(Duration::from_secs(1_800));
    let told = "/respond?status=200&header=Cache-Control:public,max-age=600&header=CDN-Cache-Control:max-age=600\
                &header=Surrogate-Control:max-age=600&header=Some-CDN-Cache-Control:max-age=600&header=Expires:Fri,%2001%20Jan%202100%2000:00:00%20GMT";
    let reply = browser.get(&stage.url(told)).await;
    assert!(!reply.set_cookies().is_empty(), "the idle cookie is due");
    let cached: Vec<_> =
        reply.headers.iter().filter(|(_, value)| value.to_str().is_ok_and(|v| v.contains("max-age=600"))).collect();
    assert!(cached.is_empty(), "{cached:?}");
    assert_eq!(reply.header("cache-control"), Some("private, no-store"));
}

// CVE-2021-20718, CVE-2025-3891, CVE-2023-28625, CVE-2023-27496, CVE-2024-21493: nothing that is sent to an endpoint ends it.
#[tokio::test]
async fn junk_at_our_endpoints_is_answered_and_nothing_else() {
    let stage = Stage::start();
    let long = "a".repeat(20_000);
    for path in
        ["/auth/login", "/auth/callback", "/auth/logout", "/auth/signed-out", "/auth/userinfo", "/auth", "/auth/x"]
    {
        for query in [
            "",
            "?",
            "?&&==&",
            "?state",
            "?state=&code=",
            "?state=x",
            "?rd=",
            "?rd=%",
            "?rd=%ff%00",
            "?error=%0d%0a",
            "?state=AQ",
        ] {
            for head in ["GET", "POST", "PUT", "HEAD", "OPTIONS", "GeT"] {
                for extra in ["", "Cookie: \r\n", "Cookie: ;;=;vestibule;vestibule.login=\r\n", "Content-Length: 0\r\n"]
                {
                    let request =
                        format!("{head} {path}{query} HTTP/1.1\r\nHost: {{host}}\r\n{extra}Connection: close\r\n\r\n");
                    let text = answer(&stage, &request).await;
                    assert!(text.starts_with("HTTP/1.1 ") && !text.starts_with("HTTP/1.1 5"), "{request}: {text}");
                }
            }
        }
        let text =
            answer(&stage, &format!("GET {path}?state={long} HTTP/1.1\r\nHost: {{host}}\r\nConnection: close\r\n\r\n"))
                .await;
        assert!(text.starts_with("HTTP/1.1 ") && !text.starts_with("HTTP/1.1 5"), "{path}: {text}");
    }
    stage.upstream.assert_untouched();
    assert!(stage.provider.token_calls().is_empty());
    assert_eq!(stage.sign_in(&stage.browser(), "/").await.status, StatusCode::OK);
}

// A tunnel outlives every later check: what is not opened towards the person is closed towards the application.
#[tokio::test]
async fn an_upgrade_whose_session_has_ended_meanwhile_leaves_no_tunnel_behind() {
    let (closed, mut was_closed) = tokio::sync::mpsc::channel::<()>(1);
    let (asked, mut was_asked) = tokio::sync::mpsc::channel::<()>(1);
    let (go, goes) = tokio::sync::oneshot::channel::<()>();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut goes = Some(goes);
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 8192];
            let count = stream.read(&mut buffer).await.unwrap();
            let head = String::from_utf8_lossy(&buffer[..count]).into_owned();
            if !head.contains("GET /ws ") {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
                continue;
            }
            let (closed, goes, asked) = (closed.clone(), goes.take().unwrap(), asked.clone());
            tokio::spawn(async move {
                asked.send(()).await.unwrap();
                goes.await.unwrap();
                let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
                let answer = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
                closed.send(()).await.unwrap();
            });
        }
    });
    let stage = in_front_of(address, "");
    let browser = stage.browser();
    assert_eq!(stage.sign_in(&browser, "/").await.status, StatusCode::OK);
    let cookies: Vec<_> =
        browser.cookies(&stage.origin()).iter().map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect();
    let mut socket = TcpStream::connect(stage.address()).await.unwrap();
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {}\r\nCookie: {}\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        stage.host(),
        cookies.join("; ")
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    was_asked.recv().await.unwrap();
    assert_eq!(browser.get(&stage.url("/auth/logout")).await.status, StatusCode::SEE_OTHER);
    go.send(()).unwrap();
    let mut buffer = [0; 4096];
    let count = socket.read(&mut buffer).await.unwrap();
    assert!(buffer[..count].starts_with(b"HTTP/1.1 401"), "{}", String::from_utf8_lossy(&buffer[..count]));
    // The person's connection stays open; the application's does not.
    tokio::time::timeout(Duration::from_secs(5), was_closed.recv())
        .await
        .expect("the application's connection is closed");
}
