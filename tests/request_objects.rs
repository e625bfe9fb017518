//! Where the provider fetches the request, the browser carries its address, and whoever serves it needs to know nothing.

use std::time::Duration;

use http::StatusCode;
use vestibule_test_support::real::RealProvider;
use vestibule_test_support::{Endpoint, Reply, Stage, Value, json};

fn lines() -> String {
    let key = RealProvider::key_file("es256");
    format!("[provider]\nrequest_object = \"reference\"\nclient_keys_files = [{key:?}]\n")
}

async fn stage() -> Stage {
    let stage = Stage::with(&lines());
    demand(&stage).await;
    stage
}

async fn demand(stage: &Stage) {
    let reply = stage.browser().fetch(&stage.url("/auth/jwks")).await;
    let keys = reply.json()["keys"].as_array().cloned().unwrap_or_default();
    stage.provider.demand(|demands| {
        demands.client_keys = keys;
        (demands.signed, demands.by_reference) = (true, true);
    });
}

fn reference(start: &Reply) -> String {
    let location = start.location();
    location.query_pairs().find(|(name, _)| name == "request_uri").expect("a reference").1.into_owned()
}

fn assert_gone(reply: &Reply, what: &str) {
    assert_eq!((reply.status, &reply.json()["code"]), (StatusCode::NOT_FOUND, &json!("request_object_gone")), "{what}");
}

#[tokio::test]
async fn the_provider_fetches_the_request_and_the_browser_carries_its_address() {
    let stage = stage().await;
    let browser = stage.browser();
    let start = browser.get(&stage.url("/there?x=1")).await;
    let names: Vec<_> = start.location().query_pairs().map(|(name, _)| name.into_owned()).collect();
    assert_eq!(names, ["response_type", "client_id", "scope", "request_uri"]);
    let reference = reference(&start);
    assert!(reference.starts_with(&stage.url("/auth/request/")) && reference.len() <= 512, "{reference}");
    let landed = browser.follow_reply(start, 10).await;
    assert_eq!(landed.status, StatusCode::OK, "{}", landed.text());
    assert_eq!(landed.json()["target"], "/there?x=1");
    assert_eq!(stage.provider.token_calls().len(), 1);
}

#[tokio::test]
async fn any_replica_serves_it_also_after_a_restart() {
    let stage = stage().await;
    let replica = stage.replica();
    let browser = stage.browser();
    let start = browser.get(&stage.url("/there")).await;
    stage.provider.demand(|demands| demands.fetched_from = Some(replica.address()));
    let landed = browser.follow_reply(start, 10).await;
    assert_eq!(landed.status, StatusCode::OK, "{}", landed.text());
    assert_eq!(landed.json()["target"], "/there");
}

#[tokio::test]
async fn the_object_lasts_two_minutes_and_nobody_makes_up_an_address() {
    let stage = stage().await;
    let browser = stage.browser();
    let reference = reference(&browser.get(&stage.url("/")).await);
    stage.clock.advance(Duration::from_secs(119));
    let stranger = stage.browser();
    let reply = stranger.fetch(&reference).await;
    assert_eq!(reply.status, StatusCode::OK);
    for (name, value) in [
        ("content-type", "application/oauth-authz-req+jwt"),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(reply.header(name), Some(value), "{name}");
    }
    assert!(reply.header("set-cookie").is_none() && reply.text().split('.').count() == 3);
    stage.clock.advance(Duration::from_secs(3));
    assert_gone(&stranger.fetch(&reference).await, "too old");
    let (place, sealed) = reference.rsplit_once('/').unwrap();
    let turned: String = sealed.chars().rev().collect();
    let state = start_state(&stage).await;
    for made_up in ["x", &turned, &state, &format!("{sealed}A")] {
        assert_gone(&stranger.fetch(&format!("{place}/{made_up}")).await, made_up);
    }
    for nowhere in ["/auth/request", "/auth/request/", "/auth/request/a/b"] {
        let reply = stranger.fetch(&stage.url(nowhere)).await;
        assert_eq!((reply.status, &reply.json()["code"]), (StatusCode::NOT_FOUND, &json!("no_endpoint")), "{nowhere}");
    }
    stage.upstream.assert_untouched();
}

/// A `state`: sealed by the same keys for something else.
async fn start_state(stage: &Stage) -> String {
    let plain = Stage::builder().provider(stage.provider.clone()).clock(stage.clock.clone()).start();
    let start = plain.browser().get(&plain.url("/")).await;
    let location = start.location();
    location.query_pairs().find(|(name, _)| name == "state").expect("a state").1.into_owned()
}

#[tokio::test]
async fn what_does_not_fit_into_an_address_goes_by_value_or_leaves_its_return_path() {
    let long = format!("/there?{}", "x".repeat(400));
    // The metadata do not say that objects are taken in the request itself.
    let stage = stage().await;
    let landed = stage.sign_in(&stage.browser(), &long).await;
    assert_eq!((landed.status, &landed.json()["target"]), (StatusCode::OK, &json!("/")), "{}", landed.text());

    // By the operator's word.
    let stated = format!("{}[provider.metadata]\nrequest_parameter_supported = true\n", lines());
    let by_operator = Stage::with(&stated);
    demand(&by_operator).await;
    by_operator.provider.demand(|demands| demands.by_reference = false);
    let landed = by_operator.sign_in(&by_operator.browser(), &long).await;
    assert_eq!((landed.status, &landed.json()["target"]), (StatusCode::OK, &json!(long)), "{}", landed.text());

    stage.provider.set_metadata("request_parameter_supported", json!(true));
    let stage = stage.restart();
    stage.provider.demand(|demands| demands.by_reference = false);
    let landed = stage.sign_in(&stage.browser(), &long).await;
    assert_eq!((landed.status, &landed.json()["target"]), (StatusCode::OK, &json!(long)), "{}", landed.text());
}

#[tokio::test]
async fn a_provider_that_takes_no_reference_is_told_of() {
    let stated = Stage::with(&format!("{}[provider.metadata]\nrequest_uri_parameter_supported = false\n", lines()));
    assert_eq!(stated.browser().get(&stated.url("/")).await.status, StatusCode::BAD_GATEWAY);
    stated.upstream.assert_untouched();
    for (name, value) in [
        ("request_uri_parameter_supported", json!(false)),
        // RFC 9126 §2.1: what is pushed is no reference.
        ("require_pushed_authorization_requests", json!(true)),
    ] {
        let stage = stage().await;
        stage.provider.set_metadata(name, value);
        let stage = stage.restart();
        let reply = stage.browser().get(&stage.url("/")).await;
        assert_eq!(reply.status, StatusCode::BAD_GATEWAY, "{name}: {}", reply.text());
        assert!(reply.header("location").is_none(), "{name}");
        let calls = [Endpoint::Authorize, Endpoint::Push, Endpoint::Token, Endpoint::Userinfo];
        assert!(calls.iter().all(|&call| stage.provider.count(call) == 0), "{name}");
        stage.upstream.assert_untouched();
    }
    let stage = stage().await;
    stage.provider.set_metadata("request_uri_parameter_supported", Value::Null);
    let stage = stage.restart();
    assert_eq!(stage.sign_in(&stage.browser(), "/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn who_fetches_too_often_is_told_when_to_come_back() {
    let stage = Stage::with(&format!("trusted_proxies = [\"127.0.0.1\"]\n{}", lines()));
    let reference = reference(&stage.browser().get(&stage.url("/")).await);
    let browser = stage.browser();
    let fetch = |address| {
        let request = vestibule_test_support::Request::fetch(http::Method::GET, &reference);
        browser.send(request.header("x-forwarded-for", address))
    };
    let mut fetched = 0;
    // A hundred come back in each second that this takes.
    while fetched < 5000 {
        let reply = fetch("203.0.113.9").await;
        if reply.status == StatusCode::TOO_MANY_REQUESTS {
            assert_eq!(reply.json()["code"], "too_many_request_objects");
            break;
        }
        assert_eq!(reply.status, StatusCode::OK);
        fetched += 1;
    }
    assert!((1000..5000).contains(&fetched), "{fetched}");
    assert_eq!(fetch("203.0.113.10").await.status, StatusCode::OK);
}
