//! What a route changes on the way to the application is what was judged, and nothing a client can steer.

use http::Method;
use vestibule_test_support::{Request, Stage, raw_request};

const STRIPPED: &str = r#"
[[routes]]
path = "/app/*"
access = "public"
strip_prefix = "/app"
[[routes]]
path = "/old/*"
access = "public"
strip_prefix = "/old"
add_prefix = "/v2"
[[routes]]
path = "/new/*"
access = "public"
add_prefix = "/base"
[[routes]]
path = "/tools/*"
require = { roles = ["user"] }
strip_prefix = "/tools/"
[identity]
default_roles = ["user"]
"#;

async fn answer(stage: &Stage, target: &str, header: &str) -> String {
    let host = stage.host();
    let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{header}Connection: close\r\n\r\n");
    String::from_utf8_lossy(&raw_request(stage.address(), request.as_bytes()).await).into_owned()
}

#[tokio::test]
async fn a_prefix_is_stripped_or_replaced_byte_for_byte() {
    let stage = Stage::with(STRIPPED);
    for (asked, forwarded) in [
        ("/app/a%2Fb;v=1/c?q=/app&%41", "/a%2Fb;v=1/c?q=/app&%41"),
        ("/app", "/"),
        ("/app?q", "/?q"),
        ("/app/", "/"),
        ("/app/app/x", "/app/x"),
        ("/old/x//y?", "/v2/x//y?"),
        ("/old", "/v2"),
        ("/new/x", "/base/new/x"),
        ("http://{host}/app/x?y", "/x?y"),
    ] {
        let answer = answer(&stage, &asked.replace("{host}", &stage.host()), "").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{asked}: {answer}");
        assert_eq!(stage.upstream.last().target, forwarded, "{asked}");
    }
}

#[tokio::test]
async fn the_application_learns_its_prefix_from_us_only() {
    let stage = Stage::with(STRIPPED);
    let lie = "X-Forwarded-Prefix: /evil\r\nX_Forwarded_Prefix: /evil\r\n";
    for (path, prefix) in [("/app/x", &["/app"][..]), ("/old/x", &["/old"]), ("/new/x", &[])] {
        answer(&stage, path, lie).await;
        let seen = stage.upstream.last();
        assert_eq!(seen.header("x-forwarded-prefix"), prefix, "{path}");
        assert!(seen.header("x_forwarded_prefix").is_empty(), "{path}: {:?}", seen.headers);
    }
}

#[tokio::test]
async fn a_prefix_in_another_spelling_or_a_path_that_could_escape_is_400() {
    let stage = Stage::with(STRIPPED);
    for (path, reason) in [
        ("/app/..%2eadmin/../secret", "path_dot_segment"),
        ("/app/..%2e", ""),
        ("/app/%2e%2e/admin", "path_dot_segment"),
        ("/app/..%2fadmin", "path_dot_segment"),
        ("/app/..;/admin", "path_dot_segment"),
        ("/app//evil.example/x", "path_rewritten"),
        ("/app/%5cevil.example", "path_backslash"),
        ("/old/../../admin", "path_dot_segment"),
    ] {
        stage.upstream.forget();
        let answer = answer(&stage, path, "").await;
        if reason.is_empty() {
            // `...` is a name like any other, and stays one.
            assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
            assert_eq!(stage.upstream.last().target, "/..%2e");
            continue;
        }
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains(reason), "{path}: {answer}");
        stage.upstream.assert_untouched();
    }
    // A public route is met as written only; what else looks like it falls to the guarded rest.
    for path in ["/%61pp/x", "/APP/x", "/app%2Fx", "/app;v/x", "//app/x"] {
        stage.upstream.forget();
        let answer = answer(&stage, path, "").await;
        assert!(answer.starts_with("HTTP/1.1 4") && !answer.contains("HTTP/1.1 404"), "{path}: {answer}");
        stage.upstream.assert_untouched();
    }
}

#[tokio::test]
async fn a_guarded_route_met_by_another_spelling_of_its_prefix_is_refused() {
    let stage = Stage::with(STRIPPED);
    let browser = stage.signed_in_browser().await;
    let reply = browser.fetch(&stage.url("/tools/x?y")).await;
    assert_eq!((reply.status.as_u16(), stage.upstream.last().target.as_str()), (200, "/x?y"));
    assert_eq!(stage.upstream.last().header("x-forwarded-user").len(), 1);
    for path in ["/%74ools/x", "/tools;v/x", "/TOOLS/x"] {
        stage.upstream.forget();
        let reply = browser.fetch(&stage.url(path)).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["code"]), (400, &"path_prefix".into()), "{path}");
        stage.upstream.assert_untouched();
    }
}

#[tokio::test]
async fn header_fields_are_set_and_removed_and_ours_stay() {
    let stage = Stage::with(
        r#"
[upstream]
request_headers = { set = { "X-Environment" = "production", "X-Where" = "upstream" }, remove = ["X-Debug", "Accept-Language"] }
response_headers = { set = { "X-Frame-Options" = "DENY" }, remove = ["X-Powered-By", "Content-Type"] }
[[routes]]
path = "/*"
request_headers = { set = { "X-Where" = "route", "Authorization" = "Basic eDp5" }, remove = ["Cookie"] }
response_headers = { set = { "Cache-Control" = "public, max-age=60" }, remove = ["Set-Cookie"] }
"#,
    );
    let browser = stage.signed_in_browser().await;
    let path =
        "/respond?header=X-Powered-By:x&header=Set-Cookie:theirs%3D1&header=Cache-Control:no-store&header=X-Kept:1";
    let request = Request::fetch(Method::GET, &stage.url(path))
        .header("x_environment", "theirs")
        .header("x-debug", "1")
        .header("x_debug", "1")
        .header("x-kept", "1")
        .header("authorization", "Bearer theirs")
        .header("cookie", "theirs=1")
        .header("x-forwarded-user", "admin");
    let reply = browser.send(request).await;
    let seen = stage.upstream.last();
    for (name, values) in [
        ("x-environment", &["production"][..]),
        ("x_environment", &[]),
        ("x-where", &["route"]),
        ("x-debug", &[]),
        ("x_debug", &[]),
        ("x-kept", &["1"]),
        ("authorization", &["Basic eDp5"]),
        ("cookie", &[]),
    ] {
        assert_eq!(seen.header(name), values, "{name}");
    }
    assert!(seen.header("x-forwarded-user").len() == 1 && seen.header("x-forwarded-user") != ["admin"]);
    assert_eq!(reply.header("x-frame-options"), Some("DENY"));
    assert_eq!(reply.header("cache-control"), Some("public, max-age=60"));
    assert_eq!(
        reply.header("vary"),
        Some("Cookie"),
        "what a cache may keep is still another answer than the challenge"
    );
    for name in ["x-powered-by", "content-type", "set-cookie"] {
        assert_eq!(reply.header(name), None, "{name}");
    }
    assert_eq!(reply.header("x-kept"), Some("1"));
}
