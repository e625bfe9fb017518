//! The proxy's own access token on requests to an upstream (RFC 6749 §4.4).

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use vestibule::config::{self, Sources};
use vestibule_test_support::{Endpoint, FakeProvider, Reply, Request, Stage, TestClock, TokenFault, json};

const OWN: &str = "[upstream]\naccess_token = \"client_credentials\"\n\
                   [upstream.client_credentials]\nscopes = [\"orders.read\", \"orders.write\"]\n\
                   resource = \"https://orders.example.com\"\naudience = \"orders\"\n\
                   [[routes]]\npath = \"/open/*\"\naccess = \"public\"\n\
                   [[routes]]\npath = \"/respond\"\naccess = \"public\"\n";

async fn stage() -> Stage {
    let stage = Stage::with(OWN);
    stage.wait_for_provider().await;
    stage
}

async fn open(stage: &Stage) -> Reply {
    // A stranger's own credentials never stand in for ours.
    let request = Request::new(Method::GET, &stage.url("/open/x")).header("authorization", "Bearer of-a-stranger");
    stage.browser().send(request).await
}

fn calls(stage: &Stage) -> usize {
    stage.provider.count(Endpoint::Token)
}

#[tokio::test]
async fn every_request_carries_one_token_of_ours_that_was_fetched_once() {
    let stage = stage().await;
    let all = futures_util::future::join_all((0..20).map(|_| open(&stage))).await;
    let token = format!("Bearer {}", stage.provider.issued_tokens()[0]);
    for reply in all {
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.echoed("authorization").as_ref(), Some(&token));
    }
    assert_eq!(calls(&stage), 1);
    let form = stage.provider.token_calls()[0].form.clone();
    let field =
        |name: &str| form.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect::<Vec<_>>();
    assert_eq!(field("grant_type"), ["client_credentials"]);
    assert_eq!(field("scope"), ["orders.read orders.write"]);
    assert_eq!((field("resource"), field("audience")), (vec!["https://orders.example.com"], vec!["orders"]));
    // Whoever is signed in comes with the same token, and with who they are.
    let browser = stage.signed_in_browser().await;
    let reply = browser.get(&stage.url("/guarded")).await;
    assert_eq!(reply.echoed("authorization").as_ref(), Some(&token));
    assert_eq!(reply.echoed("x-forwarded-user").as_deref(), Some("248289761001"));
}

#[tokio::test]
async fn a_token_is_renewed_beside_requests_before_it_ends() {
    let stage = stage().await;
    let first = open(&stage).await.echoed("authorization");
    stage.clock.advance(Duration::from_secs(240));
    // The provider takes its time, and nobody waits for it.
    stage.provider.slow_down(Endpoint::Token, Duration::from_millis(300));
    for _ in 0..5 {
        assert_eq!(open(&stage).await.echoed("authorization"), first);
    }
    while stage.provider.token_calls().len() < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let renewed = loop {
        let now = open(&stage).await.echoed("authorization");
        if now != first {
            break now;
        }
    };
    assert!(renewed.is_some());
    assert_eq!(calls(&stage), 2);
    // A renewal that fails costs nothing while the token holds.
    stage.provider.take_down();
    stage.clock.advance(Duration::from_secs(240));
    assert_eq!(open(&stage).await.echoed("authorization"), renewed);
    stage.upstream.forget();
    stage.clock.advance(Duration::from_secs(60));
    let reply = open(&stage).await;
    assert_eq!((reply.status.as_u16(), reply.json()["code"].as_str()), (503, Some("upstream_token_unavailable")));
    assert_eq!(reply.header("retry-after"), Some("5"));
    stage.upstream.assert_untouched();
    // And it comes back by itself.
    stage.provider.bring_back();
    stage.clock.advance(Duration::from_secs(5));
    assert_eq!(open(&stage).await.status, 200);
}

#[tokio::test]
async fn without_a_token_nothing_reaches_the_upstream_and_the_provider_is_not_pestered() {
    for (fault, status, code) in [
        (TokenFault::InvalidClient, 502, "upstream_token_refused"),
        (TokenFault::UnknownTokenType, 502, "upstream_token_refused"),
        (TokenFault::Html, 502, "upstream_token_refused"),
        (TokenFault::ServerError, 503, "upstream_token_unavailable"),
    ] {
        let stage = stage().await;
        stage.provider.faults(|faults| faults.token = Some(fault));
        let replies = futures_util::future::join_all((0..10).map(|_| open(&stage))).await;
        for reply in replies {
            assert_eq!((reply.status.as_u16(), reply.json()["code"].as_str()), (status, Some(code)), "{fault:?}");
        }
        stage.upstream.assert_untouched();
        assert!(calls(&stage) <= 2, "{fault:?}: {} calls for ten requests", calls(&stage));
        stage.provider.heal();
        stage.clock.advance(Duration::from_secs(5));
        assert_eq!(open(&stage).await.status, 200, "{fault:?}");
    }
}

#[tokio::test]
async fn a_provider_that_does_not_offer_the_grant_is_named() {
    let clock = TestClock::new();
    let provider = Arc::new(FakeProvider::start(clock.clone()));
    provider.set_metadata("grant_types_supported", json!(["authorization_code"]));
    let stage = Stage::builder().provider(provider).clock(clock).toml(OWN).start();
    stage.wait_for_provider().await;
    let reply = open(&stage).await;
    assert_eq!((reply.status.as_u16(), reply.json()["code"].as_str()), (502, Some("upstream_token_refused")));
    assert_eq!(calls(&stage), 0);
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn a_token_that_the_upstream_no_longer_takes_is_fetched_anew_but_not_for_each_request() {
    let stage = stage().await;
    let (browser, url) = (stage.browser(), stage.url("/respond?status=401"));
    for _ in 0..5 {
        assert_eq!(browser.get(&url).await.status, 401);
    }
    assert_eq!(calls(&stage), 1, "a new token would be no better");
    stage.clock.advance(Duration::from_secs(11));
    for _ in 0..5 {
        assert_eq!(browser.get(&url).await.status, 401);
    }
    assert_eq!(calls(&stage), 2);
}

#[test]
fn what_contradicts_a_token_of_ours_is_told_before_the_start() {
    let base = "[provider]\nissuer = \"https://id.example.com\"\nclient_id = \"app\"\nredirect_uri = \"https://app.example.com/auth/callback\"\n";
    let rest = format!("[session]\nsecret = \"{}\"\n", config::generate_secret().unwrap());
    let upstream = "[upstream]\nurl = \"http://127.0.0.1:3000\"\naccess_token = \"client_credentials\"\n";
    let told = |text: String| match config::load(&Sources::toml(&text)) {
        Ok(_) => String::new(),
        Err(problems) => problems.iter().map(|problem| format!("{problem}\n")).collect::<String>(),
    };
    let secret = "client_secret = \"s3cr3t\"\n";
    assert_eq!(told(format!("{base}{secret}{rest}{upstream}")), "");
    for (provider, more, wanted) in [
        ("public_client = true\n", "", "upstream.access_token asks for client credentials, and the client has none"),
        ("client_secret = \"s3cr3t\"\ndpop = true\n", "", "is bound to a key (dpop)"),
        (secret, "[upstream.client_credentials]\nprovider = \"other\"\n", "no provider"),
        (secret, "[upstream.client_credentials]\nscopes = [\"a b\"]\n", "no scope"),
        (secret, "[upstream.client_credentials]\nresource = \"/x\"\n", "no absolute URI"),
        (secret, "[upstream.client_credentials]\naudience = \" \"\n", "is empty"),
        (secret, "request_headers = { set = { Authorization = \"x\" } }\n", "so does access_token"),
        (secret, "[[routes]]\npath = \"/x\"\npass_authorization = true\n", "contradicts access_token"),
    ] {
        let told = told(format!("{base}{provider}{rest}{upstream}{more}"));
        assert!(told.contains(wanted), "{more}: {told}");
    }
    let off = upstream.replace("client_credentials", "bearer") + "[upstream.client_credentials]\nscopes = [\"a\"]\n";
    assert!(told(format!("{base}{secret}{rest}{off}")).contains("means nothing without access_token"));
}
