//! Who asks too often is told when to come back, and nobody else notices.

use std::time::Duration;

use http::{Method, StatusCode};
use vestibule_test_support::{Browser, Endpoint, Reply, Request, Stage, json};

const PUBLIC: &str = "[[routes]]\npath = \"/*\"\naccess = \"public\"";
const PER_CLIENT: &str = "rate_limit = { per = \"client\", rate = \"2/h\" }";
const BEHIND: &str = "trusted_proxies = [\"127.0.0.1\"]";

/// As a client at `address`, for a stage that trusts us as its proxy.
async fn fetch_as(browser: &Browser, url: &str, address: &str) -> Reply {
    browser.send(Request::fetch(Method::GET, url).header("x-forwarded-for", address)).await
}

fn assert_held(reply: &Reply, code: &str) {
    assert_eq!(
        (reply.status, &reply.json()["code"]),
        (StatusCode::TOO_MANY_REQUESTS, &code.into()),
        "{}",
        reply.text()
    );
    let seconds: u64 = reply.header("retry-after").expect("Retry-After").parse().unwrap();
    assert!((1..=3600).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn a_client_that_asks_too_often_is_told_when_to_come_back() {
    let stage = Stage::with(&format!("{PUBLIC}\n{PER_CLIENT}\n[[routes]]\npath = \"/free\"\naccess = \"public\""));
    let browser = stage.browser();
    for _ in 0..2 {
        assert_eq!(browser.fetch(&stage.url("/x")).await.status, StatusCode::OK);
    }
    stage.upstream.forget();
    // A header of a stranger makes nobody else of it.
    let reply = fetch_as(&browser, &stage.url("/x"), "203.0.113.9").await;
    assert_held(&reply, "too_many_requests");
    assert!(reply.header("retry-after").unwrap().parse::<u64>().unwrap() > 1700);
    let page = browser.get(&stage.url("/x")).await;
    assert_eq!(page.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(page.text().contains("<html") && page.header("retry-after").is_some(), "{}", page.text());
    let call = Request::new(Method::POST, &stage.url("/x")).header("content-type", "application/grpc");
    assert_eq!(browser.send(call).await.header("grpc-status"), Some("8"));
    stage.upstream.assert_untouched();
    assert_eq!(browser.fetch(&stage.url("/free")).await.status, StatusCode::OK);
    let metrics = browser.fetch(&stage.admin_url("/metrics")).await.text();
    assert!(metrics.contains("vestibule_refusals_total{reason=\"too_many_requests\"} 3"), "{metrics}");
}

#[tokio::test]
async fn turns_come_back_with_time() {
    let limit = "rate_limit = { per = \"client\", rate = \"2/s\", burst = 1 }";
    let stage = Stage::with(&format!("{PUBLIC}\n{limit}"));
    let browser = stage.browser();
    assert_eq!(browser.fetch(&stage.url("/x")).await.status, StatusCode::OK);
    let reply = browser.fetch(&stage.url("/x")).await;
    assert_eq!((reply.status, reply.header("retry-after")), (StatusCode::TOO_MANY_REQUESTS, Some("1")));
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(browser.fetch(&stage.url("/x")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn clients_behind_a_trusted_proxy_are_told_apart_and_an_ipv6_network_is_one() {
    let stage = Stage::with(&format!("{BEHIND}\n{PUBLIC}\n{PER_CLIENT}"));
    let (browser, url) = (stage.browser(), stage.url("/x"));
    for address in ["203.0.113.9", "203.0.113.10", "2001:db8::1"] {
        for _ in 0..2 {
            assert_eq!(fetch_as(&browser, &url, address).await.status, StatusCode::OK, "{address}");
        }
    }
    for address in ["203.0.113.9", "203.0.113.10", "::ffff:203.0.113.9", "2001:db8::2"] {
        assert_held(&fetch_as(&browser, &url, address).await, "too_many_requests");
    }
    assert_eq!(fetch_as(&browser, &url, "2001:db8:0:1::1").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_client_is_counted_before_anybody_asks_who_it_is() {
    let stage = Stage::with(&format!("[[routes]]\npath = \"/*\"\n{PER_CLIENT}"));
    let browser = stage.browser();
    for _ in 0..2 {
        assert_eq!(browser.fetch(&stage.url("/x")).await.status, StatusCode::UNAUTHORIZED);
    }
    assert_held(&browser.fetch(&stage.url("/x")).await, "too_many_requests");
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn a_user_is_one_in_every_browser_and_no_stranger_uses_up_their_turns() {
    let limit = "rate_limit = { per = \"user\", rate = \"3/h\" }";
    let stage = Stage::with(&format!("[identity]\nname_claim = \"sub\"\n[[routes]]\npath = \"/api/*\"\n{limit}"));
    let (one, another) = (stage.signed_in_browser().await, stage.signed_in_browser().await);
    stage.provider.set_user(json!({ "sub": "bob" }));
    let bob = stage.signed_in_browser().await;
    let stranger = stage.browser();
    for _ in 0..5 {
        assert_eq!(stranger.fetch(&stage.url("/api/x")).await.status, StatusCode::UNAUTHORIZED);
    }
    for browser in [&one, &another, &one] {
        assert_eq!(browser.fetch(&stage.url("/api/x")).await.status, StatusCode::OK);
    }
    stage.upstream.forget();
    for browser in [&one, &another] {
        assert_held(&browser.fetch(&stage.url("/api/x")).await, "too_many_requests");
    }
    stage.upstream.assert_untouched();
    assert_eq!(bob.fetch(&stage.url("/api/x")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn nobody_spends_everybodys_sign_ins() {
    let stage = Stage::with(&format!("{BEHIND}\n[limits]\nsign_in_rate = \"1/h\"\nsign_in_burst = 3"));
    let browser = stage.browser();
    for path in ["/auth/login", "/auth/callback?state=x&code=y", "/auth/login"] {
        assert_ne!(fetch_as(&browser, &stage.url(path), "203.0.113.9").await.status, StatusCode::TOO_MANY_REQUESTS);
    }
    for path in ["/auth/login", "/auth/callback?state=x&code=y"] {
        assert_held(&fetch_as(&browser, &stage.url(path), "203.0.113.9").await, "too_many_sign_ins");
    }
    assert!(stage.provider.token_calls().is_empty());
    // Somebody else, and whoever comes through a proxy on this machine that names nobody.
    let other = fetch_as(&browser, &stage.url("/auth/login"), "203.0.113.10").await;
    assert_eq!(other.status, StatusCode::FOUND);
    for _ in 0..5 {
        assert_eq!(browser.fetch(&stage.url("/auth/login")).await.status, StatusCode::FOUND);
    }
}

#[tokio::test]
async fn where_a_sign_in_begins_with_a_call_of_the_provider_every_page_takes_a_turn() {
    let toml = format!("{BEHIND}\n[limits]\nsign_in_rate = \"1/h\"\nsign_in_burst = 3\n[provider]\n");
    let stage = Stage::with(&format!("{toml}pushed_authorization_requests = true"));
    let browser = stage.browser();
    let page = |address| {
        browser.send(Request::navigation(Method::GET, &stage.url("/page")).header("x-forwarded-for", address))
    };
    for _ in 0..3 {
        assert_eq!(page("203.0.113.9").await.status, StatusCode::FOUND);
    }
    for _ in 0..3 {
        let held = page("203.0.113.9").await;
        assert_eq!(held.status, StatusCode::TOO_MANY_REQUESTS, "{}", held.text());
        assert!(held.header("retry-after").is_some() && held.header("set-cookie").is_none());
    }
    assert_eq!(stage.provider.count(Endpoint::Push), 3, "the provider is not asked for whoever has no turn");
    stage.upstream.assert_untouched();
    assert_eq!(page("203.0.113.10").await.status, StatusCode::FOUND);
    // Where nothing is pushed, a page costs the provider nothing, and us no more than any other refusal.
    let stage = Stage::with(&toml);
    let browser = stage.browser();
    for _ in 0..5 {
        let page = browser
            .send(Request::navigation(Method::GET, &stage.url("/page")).header("x-forwarded-for", "203.0.113.9"))
            .await;
        assert_eq!(page.status, StatusCode::FOUND);
    }
}

#[tokio::test]
async fn by_default_six_hundred_sign_ins_at_once_are_fine_and_not_much_more() {
    let stage = Stage::with(BEHIND);
    let browser = stage.browser();
    let mut started = 0;
    // Ten come back in each second that this takes.
    while started < 3000 {
        let reply = fetch_as(&browser, &stage.url("/auth/login"), "203.0.113.9").await;
        if reply.status == StatusCode::TOO_MANY_REQUESTS {
            break;
        }
        assert_eq!(reply.status, StatusCode::FOUND);
        started += 1;
    }
    assert!((600..3000).contains(&started), "{started}");
}
