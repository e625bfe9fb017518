//! Who may open which route.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::json;
use vestibule_test_support::{Endpoint, Request, Stage, raw_request};

const ROUTES: &str = r#"
[[routes]]
path = "/public/*"
access = "public"
[[routes]]
path = "/maybe/*"
access = "optional"
[[routes]]
path = "/admin/*"
require = { roles = ["admin", "root"] }
[[routes]]
path = "/both/*"
require = { all_roles = ["admin", "auditor"], groups = ["/staff"] }
[[routes]]
path = "/read-only"
methods = ["GET"]
access = "public"
[[routes]]
path = "/fresh"
max_identity_age = "5m"
"#;

#[tokio::test]
async fn a_public_route_needs_nobody_and_never_says_who() {
    let stage = Stage::with(ROUTES);
    let browser = stage.signed_in_browser().await;
    let reply = browser.get(&stage.url("/public/x")).await;
    assert_eq!((reply.status, reply.echoed("x-forwarded-user")), (StatusCode::OK, None));
    let reply = stage.browser().fetch(&stage.url("/public/x")).await;
    assert_eq!(reply.status, StatusCode::OK);
}

#[tokio::test]
async fn an_optional_route_says_who_when_it_knows() {
    let stage = Stage::with(ROUTES);
    let browser = stage.signed_in_browser().await;
    let reply = browser.get(&stage.url("/maybe/x")).await;
    assert_eq!(reply.echoed("x-forwarded-user").as_deref(), Some("248289761001"));
    assert!(reply.headers.get_all("vary").iter().any(|vary| vary == "Cookie"));
    let bad = Request::new(Method::GET, &stage.url("/maybe/x")).header("cookie", "vestibule=garbage");
    let reply = stage.browser().send(bad.header("x-forwarded-user", "admin")).await;
    assert_eq!((reply.status, reply.echoed("x-forwarded-user")), (StatusCode::OK, None));
}

#[tokio::test]
async fn roles_and_groups_decide_and_a_denied_person_gets_the_page() {
    let stage = Stage::with(ROUTES);
    stage.provider.set_user(json!({"sub": "g", "roles": ["admin"], "groups": ["/staff"]}));
    let grace = stage.signed_in_browser().await;
    assert_eq!(grace.get(&stage.url("/admin/x")).await.status, StatusCode::OK);
    stage.upstream.forget();
    let denied = grace.get(&stage.url("/both/x")).await;
    assert_eq!(denied.status, StatusCode::FORBIDDEN);
    assert_eq!(denied.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(denied.text().contains("Access denied"), "{}", denied.text());
    let ways_on =
        [(stage.url("/"), "Go to the front page"), (stage.url("/auth/logout?rd=%2Fboth%2Fx"), "Use another account")];
    assert_eq!(denied.links(), ways_on.map(|(url, label)| (url, label.to_owned())));
    let problem = grace.fetch(&stage.url("/both/x")).await;
    assert_eq!((problem.status, problem.json()["code"].clone()), (StatusCode::FORBIDDEN, json!("missing_role")));
    stage.upstream.assert_untouched();

    stage.provider.set_user(json!({"sub": "a", "roles": ["admin", "auditor"], "groups": ["/others"]}));
    let ada = stage.signed_in_browser().await;
    let problem = ada.fetch(&stage.url("/both/x")).await;
    assert_eq!((problem.status, problem.json()["code"].clone()), (StatusCode::FORBIDDEN, json!("missing_group")));
    stage.upstream.assert_untouched();

    stage.provider.set_user(json!({"sub": "b", "roles": ["admin", "auditor"], "groups": ["/staff"]}));
    let both = stage.signed_in_browser().await;
    assert_eq!(both.get(&stage.url("/both/x")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_denied_person_comes_back_as_somebody_else() {
    let post_logout = "[provider]\npost_logout_redirect_uri = \"http://localhost:{port}/auth/signed-out\"\n";
    let stage = Stage::with(&format!("{post_logout}{ROUTES}"));
    stage.provider.set_user(json!({"sub": "nobody"}));
    let browser = stage.signed_in_browser().await;
    let denied = browser.get(&stage.url("/admin/x?page=2")).await;
    assert_eq!(denied.status, StatusCode::FORBIDDEN);
    stage.upstream.assert_untouched();

    stage.provider.set_user(json!({"sub": "root", "roles": ["root"]}));
    let (way, _) = denied.links().pop().unwrap();
    let end = browser.follow_reply(browser.click(&stage.url("/admin/x?page=2"), &way).await, 10).await;
    assert_eq!((end.status, end.url.as_str()), (StatusCode::OK, stage.url("/admin/x?page=2").as_str()));
    assert_eq!(end.echoed("x-forwarded-user").as_deref(), Some("root"));
    assert_eq!(stage.provider.count(Endpoint::EndSession), 1);
}

#[tokio::test]
async fn where_signing_out_is_switched_off_nobody_is_sent_there() {
    let stage = Stage::with(&format!("[endpoints]\nlogout = false\n{ROUTES}"));
    let browser = stage.signed_in_browser().await;
    let denied = browser.get(&stage.url("/admin/x")).await;
    assert_eq!(denied.links(), [(stage.url("/"), "Go to the front page".to_owned())]);
}

#[tokio::test]
async fn no_spelling_of_a_guarded_path_is_less_guarded() {
    let stage = Stage::with(ROUTES);
    stage.provider.set_user(json!({"sub": "nobody"}));
    let browser = stage.signed_in_browser().await;
    let spellings = [
        "/Admin/x",
        "/ADMIN",
        "/admin",
        "/admin/",
        "/admin;x=1/y",
        "//admin/x",
        "/admin//x",
        "/%61dmin/x",
        "/%41dmin/x",
        "/public/../admin/x",
        "/public/%2e%2e/admin/x",
        "/public/..%2fadmin/x",
        "/public/..;/admin/x",
        "/public/%5cadmin",
        "/public%2f..%2fadmin",
        "/public/%252e%252e/admin",
        "/./admin/x",
        "/public/.%2e/admin",
        "/admin%2fx",
        "/admin%00",
        "/%2fadmin/x",
        "/public%2fx",
        "/public;/x",
        "//public/x",
        "/Public/x",
        "/%70ublic/x",
    ];
    for path in spellings {
        stage.upstream.forget();
        let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", stage.host());
        let answer = raw_request(stage.address(), head.as_bytes()).await;
        let status = String::from_utf8_lossy(&answer[..answer.len().min(12)]).into_owned();
        assert!(["HTTP/1.1 400", "HTTP/1.1 401"].contains(&status.as_str()), "{path}: {status}");
        stage.upstream.assert_untouched();
    }
    for path in ["/Admin/x", "/ADMIN", "/admin", "/admin/", "/admin//x", "/%61dmin/x"] {
        stage.upstream.forget();
        let reply = browser.get(&stage.url(path)).await;
        assert_eq!(reply.status, StatusCode::FORBIDDEN, "{path}");
        stage.upstream.assert_untouched();
    }
}

#[tokio::test]
async fn what_was_judged_is_what_is_forwarded() {
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    let session = browser.cookies(&stage.origin());
    let cookies = session.iter().map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect::<Vec<_>>();
    for target in ["/a%2Fb", "/a//b", "/a;x=1/b", "/a%25b", "/%e2%82%ac?q=%2f&r=//", "/a%20b?", "/?a=b%00c"] {
        stage.upstream.forget();
        let head = format!(
            "GET {target} HTTP/1.1\r\nHost: {}\r\nCookie: {}\r\nConnection: close\r\n\r\n",
            stage.host(),
            cookies.join("; ")
        );
        let answer = raw_request(stage.address(), head.as_bytes()).await;
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{target}: {}", String::from_utf8_lossy(&answer));
        assert_eq!(stage.upstream.last().target, target);
    }
}

#[tokio::test]
async fn get_covers_head_and_nothing_else() {
    let stage = Stage::with(ROUTES);
    let browser = stage.browser();
    for method in [Method::GET, Method::HEAD] {
        let reply = browser.send(Request::new(method, &stage.url("/read-only"))).await;
        assert_eq!(reply.status, StatusCode::OK);
    }
    stage.upstream.forget();
    let reply = browser.send(Request::new(Method::POST, &stage.url("/read-only"))).await;
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    for method in ["TRACE", "CONNECT"] {
        let head = format!("{method} /public/x HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", stage.host());
        let answer = raw_request(stage.address(), head.as_bytes()).await;
        assert!(answer.starts_with(b"HTTP/1.1 4"), "{method}: {}", String::from_utf8_lossy(&answer));
    }
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn an_old_identity_signs_in_anew_where_the_route_says_so() {
    let stage = Stage::with(ROUTES);
    let browser = stage.signed_in_browser().await;
    assert_eq!(browser.get(&stage.url("/fresh")).await.status, StatusCode::OK);
    stage.clock.advance(Duration::from_secs(301));
    stage.upstream.forget();
    assert_eq!(browser.get(&stage.url("/fresh")).await.status, StatusCode::FOUND);
    stage.upstream.assert_untouched();
    assert_eq!(browser.get(&stage.url("/other")).await.status, StatusCode::OK);
    assert_eq!(browser.follow(&stage.url("/fresh"), 10).await.status, StatusCode::OK);
}

#[tokio::test]
async fn unknown_and_switched_off_paths_under_the_prefix_are_404_and_never_forwarded() {
    let stage = Stage::with("[endpoints]\nuserinfo = false");
    let browser = stage.signed_in_browser().await;
    for path in ["/auth", "/auth/", "/auth/nothing", "/auth/userinfo", "/AUTH/login", "/auth/login/", "/auth/Callback"]
    {
        let reply = browser.get(&stage.url(path)).await;
        assert_eq!(reply.status, StatusCode::NOT_FOUND, "{path}");
    }
    let reply = browser
        .send(Request::navigation(Method::POST, &stage.url("/auth/signed-out")).from_page(&stage.origin()))
        .await;
    assert_eq!((reply.status, reply.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, Some("GET")));
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn hosts_that_are_not_listed_are_misdirected() {
    let stage = Stage::with("hosts = [\"localhost\", \"alias.example\"]");
    stage.wait_for_provider().await;
    let get = |host: &str| {
        let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\nAccept: text/html\r\nConnection: close\r\n\r\n");
        let address = stage.address();
        async move { String::from_utf8_lossy(&raw_request(address, head.as_bytes()).await).into_owned() }
    };
    assert!(get("other.example").await.starts_with("HTTP/1.1 421"));
    // A sign-in on an alias would leave its cookies where nobody reads them: first to the redirect URI's host.
    let alias = get("ALIAS.example.").await;
    assert!(alias.starts_with("HTTP/1.1 302"), "{alias}");
    assert!(alias.contains(&format!("location: {}/auth/login?rd=%2F\r\n", stage.origin())), "{alias}");
    assert!(!alias.contains("set-cookie"), "{alias}");
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn several_upstreams_are_chosen_by_host_and_path() {
    let other = vestibule_test_support::EchoUpstream::start();
    let routes = format!(
        "[upstream]\nurl = unset\n[upstreams.main]\nurl = \"{{upstream}}\"\n[upstreams.other]\nurl = \"{}\"\nhost = \"inner.example\"\n\
         [[routes]]\npath = \"/*\"\nupstream = \"main\"\n[[routes]]\npath = \"/api/*\"\nupstream = \"other\"\naccess = \"public\"\n\
         [[routes]]\nhost = \"api.example\"\nupstream = \"other\"\naccess = \"public\"\n",
        other.url()
    );
    let stage = Stage::with(&routes);
    let browser = stage.browser();
    assert_eq!(browser.fetch(&stage.url("/api/x")).await.echoed("host").as_deref(), Some("inner.example"));
    browser.connect("http://api.example", stage.address());
    assert_eq!(browser.send(Request::new(Method::GET, "http://api.example/y")).await.status, StatusCode::OK);
    assert_eq!(other.count(), 2);
    let signed_in = stage.signed_in_browser().await;
    let reply = signed_in.get(&stage.url("/z")).await;
    assert_eq!(reply.echoed("host"), Some(stage.host()));
    assert_eq!((other.count(), stage.upstream.count()), (2, 1));
}

#[tokio::test]
async fn userinfo_tells_the_front_end_who_and_no_tokens() {
    let stage = Stage::start();
    stage
        .provider
        .set_user(json!({"sub": "u1", "name": "Ada", "secret_note": "x", "roles": ["admin"], "groups": ["/a"]}));
    let browser = stage.signed_in_browser().await;
    let reply = browser.fetch(&stage.url("/auth/userinfo")).await;
    assert_eq!((reply.status, reply.header("cache-control")), (StatusCode::OK, Some("no-store")));
    let told = reply.json();
    assert_eq!((&told["sub"], &told["name"], &told["groups"]), (&json!("u1"), &json!("Ada"), &json!(["/a"])));
    assert!(told["roles"].as_array().unwrap().contains(&json!("admin")), "{told}");
    for absent in ["secret_note", "nonce", "at_hash", "id_token", "access_token"] {
        assert!(told.get(absent).is_none(), "{absent}: {told}");
    }
    for token in stage.provider.id_tokens() {
        assert!(!reply.text().contains(&token));
    }
    let foreign = Request::fetch(Method::GET, &stage.url("/auth/userinfo")).from_page("https://evil.example/");
    assert_eq!(browser.send(foreign).await.status, StatusCode::FORBIDDEN);
    let forced = Request::new(Method::GET, &stage.url("/auth/userinfo")).header("origin", "https://evil.example");
    assert_eq!(browser.send(forced).await.status, StatusCode::FORBIDDEN);
    let signed_out = stage.browser().fetch(&stage.url("/auth/userinfo")).await;
    assert_eq!((signed_out.status, stage.provider.count(Endpoint::Authorize)), (StatusCode::UNAUTHORIZED, 1));
}

// A sign-in that is asked for anew is no circle: the session came, and was only too old.
#[tokio::test]
async fn a_route_that_asks_for_very_fresh_sign_ins_never_ends_on_the_page_of_lost_sessions() {
    let stage = Stage::with("[[routes]]\npath = \"/fresh\"\nmax_identity_age = \"2s\"");
    let browser = stage.signed_in_browser().await;
    for _ in 0..6 {
        stage.clock.advance(Duration::from_secs(4));
        stage.upstream.forget();
        let asked = browser.get(&stage.url("/fresh")).await;
        assert_eq!(asked.status, StatusCode::FOUND, "{}", asked.text());
        stage.upstream.assert_untouched();
        let reply = browser.follow_reply(asked, 10).await;
        assert_eq!((reply.status, reply.url.path()), (StatusCode::OK, "/fresh"), "{}", reply.text());
    }
}
