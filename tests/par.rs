//! Where the request is pushed, the browser carries a reference and nothing else; what goes wrong there ends on a page at once.

use std::time::{Duration, Instant};

use http::StatusCode;
use vestibule_test_support::real::RealProvider;
use vestibule_test_support::{Endpoint, PushFault, Reply, Stage, Value, json};

const PUSHED: &str = "[provider]\npushed_authorization_requests = true\n";

/// Refused before anybody was sent anywhere.
fn assert_refused(stage: &Stage, reply: &Reply, status: StatusCode, what: &str) {
    assert_eq!(reply.status, status, "{what}: {}", reply.text());
    assert!(reply.header("location").is_none(), "{what}");
    let others = [Endpoint::Authorize, Endpoint::Token, Endpoint::Userinfo];
    assert!(others.iter().all(|&other| stage.provider.count(other) == 0), "{what}");
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn the_browser_carries_only_a_reference() {
    let stage = Stage::with(&format!("{PUSHED}ui_locales = [\"de\"]\n"));
    stage.provider.demand(|demands| demands.pushed = true);
    let browser = stage.browser();
    let start = browser.get(&stage.url("/there?x=1")).await;
    let location = start.location();
    let names: Vec<_> = location.query_pairs().map(|(name, _)| name.into_owned()).collect();
    assert_eq!(names, ["client_id", "request_uri"], "{location}");
    let [push] = &stage.provider.requests_of(Endpoint::Push)[..] else { panic!("one push") };
    for name in
        ["response_type", "redirect_uri", "scope", "state", "nonce", "code_challenge", "ui_locales", "client_id"]
    {
        assert_eq!(push.form().iter().filter(|(field, _)| field == name).count(), 1, "{name}");
    }
    let landed = browser.follow_reply(start, 10).await;
    assert_eq!(landed.status, StatusCode::OK, "{}", landed.text());
    assert_eq!(landed.json()["target"], "/there?x=1");
    assert_eq!((stage.provider.count(Endpoint::Push), stage.provider.token_calls().len()), (1, 1));
}

#[tokio::test]
async fn a_provider_that_demands_it_gets_it() {
    let stage = Stage::start();
    stage.provider.set_metadata("require_pushed_authorization_requests", json!(true));
    stage.provider.demand(|demands| demands.pushed = true);
    let stage = stage.restart();
    let landed = stage.sign_in(&stage.browser(), "/").await;
    assert_eq!(landed.status, StatusCode::OK, "{}", landed.text());
    assert_eq!(stage.provider.count(Endpoint::Push), 1);
}

#[tokio::test]
async fn what_the_provider_does_not_do_or_demands_is_told() {
    for (lines, name, value) in [
        (PUSHED, "pushed_authorization_request_endpoint", Value::Null),
        ("[provider]\npushed_authorization_requests = false\n", "require_pushed_authorization_requests", json!(true)),
        ("", "require_signed_request_object", json!(true)),
    ] {
        let stage = Stage::with(lines);
        stage.provider.set_metadata(name, value);
        let stage = stage.restart();
        let reply = stage.browser().get(&stage.url("/")).await;
        assert_refused(&stage, &reply, StatusCode::BAD_GATEWAY, name);
        assert_eq!(stage.provider.count(Endpoint::Push), 0, "{name}");
    }
}

#[tokio::test]
async fn a_reference_is_the_providers_own_whatever_it_looks_like() {
    let stage = Stage::with(PUSHED);
    stage.provider.demand(|demands| demands.pushed = true);
    stage.provider.faults(|faults| faults.push = Some(PushFault::ForeignReference));
    let landed = stage.sign_in(&stage.browser(), "/").await;
    assert_eq!(landed.status, StatusCode::OK, "{}", landed.text());
}

#[tokio::test]
async fn an_answer_that_is_none_ends_on_a_page() {
    for (fault, status) in [
        (PushFault::Refused, StatusCode::BAD_GATEWAY),
        (PushFault::ServerError, StatusCode::BAD_GATEWAY),
        (PushFault::Html, StatusCode::BAD_GATEWAY),
        (PushFault::Megabytes, StatusCode::SERVICE_UNAVAILABLE),
        (PushFault::RelativeReference, StatusCode::BAD_GATEWAY),
        (PushFault::ReferenceWithLineBreak, StatusCode::BAD_GATEWAY),
        (PushFault::NoReference, StatusCode::BAD_GATEWAY),
        (PushFault::NoExpiry, StatusCode::BAD_GATEWAY),
    ] {
        let stage = Stage::with(PUSHED);
        stage.provider.faults(|faults| faults.push = Some(fault));
        let reply = stage.browser().get(&stage.url("/")).await;
        assert_refused(&stage, &reply, status, &format!("{fault:?}"));
        assert_eq!(stage.provider.count(Endpoint::Push), 1, "{fault:?}: asked once");
        stage.provider.heal();
        let landed = stage.sign_in(&stage.browser(), "/").await;
        assert_eq!(landed.status, StatusCode::OK, "{fault:?}: {}", landed.text());
    }
}

#[tokio::test]
async fn redirects_and_silence_end_within_their_time() {
    let stage = Stage::with(&format!("{PUSHED}timeout = \"1s\"\n"));
    stage.provider.faults(|faults| faults.redirect = vec![Endpoint::Push]);
    let reply = stage.browser().get(&stage.url("/")).await;
    assert_refused(&stage, &reply, StatusCode::SERVICE_UNAVAILABLE, "redirect");
    stage.provider.heal();
    stage.provider.slow_down(Endpoint::Push, Duration::from_secs(30));
    let started = Instant::now();
    let reply = stage.browser().get(&stage.url("/")).await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_refused(&stage, &reply, StatusCode::SERVICE_UNAVAILABLE, "slow");
    assert_eq!(stage.provider.count(Endpoint::Push), 2);
}

#[tokio::test]
async fn pushed_requests_take_their_turn_with_the_other_calls() {
    let stage = Stage::with(&format!("{PUSHED}max_token_calls = 1\ntoken_queue_timeout = \"200ms\"\n"));
    stage.provider.slow_down(Endpoint::Push, Duration::from_secs(2));
    let (one, other) = (stage.browser(), stage.browser());
    let url = stage.url("/");
    let (first, second) = tokio::join!(one.get(&url), other.get(&url));
    let mut statuses = [first.status, second.status];
    statuses.sort();
    assert_eq!(statuses, [StatusCode::FOUND, StatusCode::SERVICE_UNAVAILABLE]);
}

#[tokio::test]
async fn signed_requests_hold_every_parameter_pushed_or_not() {
    let key = format!("request_object = \"value\"\nclient_keys_files = [{:?}]\n", RealProvider::key_file("es256"));
    for pushed in [false, true] {
        let stage = Stage::with(&format!(
            "[provider]\npushed_authorization_requests = {pushed}\n{key}claims = '{{\"id_token\":{{\"acr\":null}}}}'\n"
        ));
        let reply = stage.browser().fetch(&stage.url("/auth/jwks")).await;
        let keys = reply.json()["keys"].as_array().cloned().unwrap_or_default();
        stage.provider.demand(|demands| {
            demands.client_keys = keys;
            (demands.signed, demands.pushed) = (true, pushed);
        });
        let browser = stage.browser();
        let start = browser.get(&stage.url("/there")).await;
        let names: Vec<_> = start.location().query_pairs().map(|(name, _)| name.into_owned()).collect();
        let expected: &[&str] =
            if pushed { &["client_id", "request_uri"] } else { &["response_type", "client_id", "scope", "request"] };
        assert_eq!(names, expected);
        let landed = browser.follow_reply(start, 10).await;
        assert_eq!(landed.status, StatusCode::OK, "{}", landed.text());
        assert_eq!(landed.json()["target"], "/there");
    }
}
