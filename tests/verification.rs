//! An ID token says what was asked for, in the way it was asked for, or it counts for nothing (OpenID Connect Core §3.1.3.7).

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use vestibule_test_support::forge::{Alg, SigningKey};
use vestibule_test_support::{Endpoint, FakeProvider, Reply, Request, Stage, TestClock, Value, json};

fn stage(lines: &str) -> Stage {
    Stage::with(&format!("[provider]\n{lines}\n"))
}

/// Somebody tries to sign in.
async fn try_to_sign_in(stage: &Stage) -> Reply {
    stage.browser().follow(&stage.url("/asked"), 12).await
}

/// Refused for `reason`, before userinfo is asked and without the application's noticing.
async fn assert_refused(stage: &Stage, reason: &str) {
    let browser = stage.browser();
    let page = browser.follow(&stage.url("/asked"), 12).await;
    assert_eq!(page.status, StatusCode::BAD_GATEWAY, "{reason}: {}", page.text());
    let metrics = browser.fetch(&stage.admin_url("/metrics")).await.text();
    assert!(metrics.contains(&format!("\"{reason}\"")), "{reason} is not counted: {metrics}");
    assert_eq!(stage.provider.count(Endpoint::Userinfo), 0, "{reason}: userinfo was asked");
    assert_eq!(browser.fetch(&stage.url("/")).await.status, StatusCode::UNAUTHORIZED, "{reason}: there is a session");
    stage.upstream.assert_untouched();
}

async fn assert_accepted(stage: &Stage, why: &str) {
    let page = try_to_sign_in(stage).await;
    assert_eq!(page.status, StatusCode::OK, "{why}: {}", page.text());
}

/// The parameters of the one authorization request.
fn asked(stage: &Stage, name: &str) -> Vec<String> {
    let requests = stage.provider.requests_of(Endpoint::Authorize);
    let request = requests.last().expect("an authorization request");
    request.query().into_iter().filter(|(key, _)| key == name).map(|(_, value)| value).collect()
}

#[tokio::test]
async fn everything_that_has_a_setting_is_asked_for_once_and_resources_in_the_token_request_too() {
    let stage = stage(
        "acr_values = [\"gold\", \"silver\"]\nlogin_hint = \"ada@example.com\"\nui_locales = [\"de\", \"en\"]\n\
         claims = '{\"userinfo\":{\"name\":null}}'\nprompt = \"login\"\nmax_age = \"1h\"\n\
         resource = [\"https://a.example/\", \"urn:b\"]\nauthorization_details = '[{\"type\":\"payment\"}]'",
    );
    assert_accepted(&stage, "all that was asked for").await;
    for (name, value) in [
        ("acr_values", "gold silver"),
        ("login_hint", "ada@example.com"),
        ("ui_locales", "de en"),
        ("claims", "{\"userinfo\":{\"name\":null}}"),
        ("prompt", "login"),
        ("max_age", "3600"),
        ("authorization_details", "[{\"type\":\"payment\"}]"),
    ] {
        assert_eq!(asked(&stage, name), [value], "{name}");
    }
    let resources = ["https://a.example/", "urn:b"];
    assert_eq!(asked(&stage, "resource"), resources);
    let form = &stage.provider.token_calls()[0].form;
    let sent: Vec<_> = form.iter().filter(|(name, _)| name == "resource").map(|(_, value)| value.as_str()).collect();
    assert_eq!(sent, resources);
}

#[tokio::test]
async fn whoever_signed_in_too_long_ago_or_nobody_knows_when_is_refused_once_max_age_is_asked_for() {
    let now = |stage: &Stage| stage.clock.unix();
    for (falsify, reason) in [
        ((|now| json!(now - 331)) as fn(u64) -> Value, "id_token_auth_time"),
        (|now| json!(now + 31), "id_token_auth_time"),
        (|_| Value::Null, "id_token_auth_time"),
        (|now| json!(now.to_string()), "id_token_claim_type"),
    ] {
        let stage = stage("max_age = \"5m\"");
        stage.provider.falsify("auth_time", falsify(now(&stage)));
        assert_refused(&stage, reason).await;
    }
    let stage = stage("max_age = \"5m\"");
    stage.provider.falsify("auth_time", json!(now(&stage) - 300));
    assert_accepted(&stage, "five minutes ago").await;
}

#[tokio::test]
async fn an_acr_that_is_none_of_those_required_is_refused() {
    let required = "required_acr = [\"gold\", \"platinum\"]";
    for acr in [Value::Null, json!("silver"), json!("Gold"), json!("gold platinum")] {
        let stage = stage(required);
        stage.provider.falsify("acr", acr);
        assert_refused(&stage, "id_token_acr").await;
    }
    let stage = stage(required);
    stage.provider.offer_acr(&["platinum"]);
    assert_accepted(&stage, "it is asked for as acr_values").await;
    assert_eq!(asked(&stage, "acr_values"), ["gold platinum"]);
}

/// Core §11: without consent a provider ignores the scope.
#[tokio::test]
async fn offline_access_is_asked_for_with_consent_unless_the_operator_says_otherwise() {
    for (lines, prompt) in [
        ("scopes = [\"offline_access\"]", &["consent"][..]),
        ("scopes = [\"offline_access\"]\nprompt = \"login consent\"", &["login consent"]),
        ("scopes = [\"offline_access\"]\nprompt = \"login\"", &["login"]),
        ("scopes = [\"offline_access\"]\nprompt = \"\"", &[]),
        ("scopes = [\"email\"]", &[]),
    ] {
        let stage = stage(lines);
        assert_accepted(&stage, lines).await;
        assert_eq!(asked(&stage, "prompt"), prompt, "{lines}");
        let warned = stage.warnings().iter().any(|warning| warning.contains("provider.prompt"));
        assert_eq!(warned, prompt == ["login"], "{lines}: {:?}", stage.warnings());
    }
}

/// Whatever its metadata deny is told in the place of a request that could only fail.
#[tokio::test]
async fn what_the_metadata_deny_is_not_asked_for_and_named() {
    for (lines, name, value) in [
        ("", "code_challenge_methods_supported", json!(["plain"])),
        ("", "grant_types_supported", json!(["client_credentials"])),
        ("", "response_types_supported", json!(["id_token"])),
        ("", "response_modes_supported", json!(["form_post"])),
        ("claims = '{\"userinfo\":{\"name\":null}}'", "claims_parameter_supported", json!(false)),
        ("prompt = \"create\"", "prompt_values_supported", json!(["login", "consent"])),
        ("authorization_details = '[{\"type\":\"a\"}]'", "authorization_details_types_supported", json!(["b"])),
        ("signing_algs = [\"ES256\"]", "id_token_signing_alg_values_supported", json!(["RS256"])),
        ("userinfo_signing_algs = [\"ES256\"]", "userinfo_signing_alg_values_supported", json!(["none", "RS256"])),
    ] {
        let clock = TestClock::new();
        let provider = Arc::new(FakeProvider::start(clock.clone()));
        provider.set_metadata(name, value);
        let stage = Stage::builder().clock(clock).provider(provider).toml(&format!("[provider]\n{lines}\n")).start();
        let page = try_to_sign_in(&stage).await;
        assert_eq!(page.status, StatusCode::BAD_GATEWAY, "{name}: {}", page.text());
        assert!(page.text().contains("does not offer"), "{name}: {}", page.text());
        assert_eq!(stage.provider.count(Endpoint::Authorize), 0, "{name}");
        let metrics = stage.browser().fetch(&stage.admin_url("/metrics")).await.text();
        assert!(metrics.contains("\"provider_unsupported\""), "{name}: {metrics}");
        stage.upstream.assert_untouched();
    }
}

#[tokio::test]
async fn a_required_acr_is_an_essential_claim_where_the_provider_reads_claims() {
    let clock = TestClock::new();
    let provider = Arc::new(FakeProvider::start(clock.clone()));
    provider.set_metadata("claims_parameter_supported", json!(true));
    provider.falsify("acr", json!("gold"));
    let toml = "[provider]\nrequired_acr = [\"gold\"]\n";
    let stage = Stage::builder().clock(clock).provider(provider).toml(toml).start();
    assert_accepted(&stage, "gold").await;
    assert_eq!(asked(&stage, "claims"), ["{\"id_token\":{\"acr\":{\"essential\":true,\"values\":[\"gold\"]}}}"]);
    assert!(asked(&stage, "acr_values").is_empty(), "both at once would be unspecified");
}

#[tokio::test]
async fn an_id_token_that_was_issued_too_long_ago_is_refused_where_that_is_set() {
    let long_ago = |stage: &Stage| stage.provider.falsify("iat", json!(stage.clock.unix() - 120));
    let stage = stage("max_token_age = \"1m\"");
    long_ago(&stage);
    assert_refused(&stage, "id_token_too_old").await;
    let stage = Stage::start();
    long_ago(&stage);
    assert_accepted(&stage, "an old iat does no harm by itself").await;
}

#[tokio::test]
async fn clocks_may_differ_by_the_skew_that_is_set() {
    for (skew, ahead, accepted) in [("0s", 5, false), ("2m", 90, true), ("2m", 150, false)] {
        let theirs = TestClock::new();
        let ours = TestClock::new();
        theirs.advance(Duration::from_secs(ahead));
        let provider = Arc::new(FakeProvider::start(theirs));
        let toml = format!("[provider]\nclock_skew = \"{skew}\"\n");
        let stage = Stage::builder().clock(ours).provider(provider).toml(&toml).start();
        match accepted {
            true => assert_accepted(&stage, skew).await,
            false => assert_refused(&stage, "id_token_not_yet_valid").await,
        }
    }
}

/// Core §5.6.2: what lies elsewhere is nobody's word yet.
#[tokio::test]
async fn aggregated_and_distributed_claims_are_never_fetched_and_never_taken_for_the_claims_they_name() {
    let stage =
        Stage::with("[identity.headers]\n\"X-Forwarded-User\" = \"name\"\n\"X-Address\" = { claim = \"address\" }\n");
    stage.provider.set_claim("_claim_names", json!({"address": "src1", "groups": "src2", "roles": "src2"}));
    let elsewhere = format!("{}/claims", stage.provider.issuer());
    let aggregated = "eyJhbGciOiJub25lIn0.eyJhZGRyZXNzIjoiZXZpbCJ9.";
    let sources = json!({"src1": {"JWT": aggregated}, "src2": {"endpoint": elsewhere, "access_token": "x"}});
    stage.provider.set_claim("_claim_sources", sources);
    stage.provider.set_claim("groups", Value::Null);
    let page = stage.sign_in(&stage.browser(), "/").await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text());
    for header in ["x-address", "x-forwarded-groups", "x-forwarded-roles"] {
        assert_eq!(page.echoed(header).unwrap_or_default(), "", "{header}");
    }
    assert_eq!(stage.provider.count(Endpoint::Unknown), 0, "a source was asked");
}

#[tokio::test]
async fn numbers_that_are_no_times_are_refused() {
    for (name, value, reason) in [
        ("exp", json!(1e300), "id_token_claim_type"),
        ("exp", json!(-1), "id_token_claim_type"),
        ("exp", json!(true), "id_token_claim_type"),
        ("iat", json!(1e300), "id_token_claim_type"),
        ("nbf", json!("now"), "id_token_claim_type"),
        ("aud", json!({"vestibule-test": true}), "id_token_claim_type"),
        ("aud", json!([]), "id_token_audience"),
        ("aud", json!(["vestibule-test", 1]), "id_token_claim_type"),
        ("azp", json!(["vestibule-test"]), "id_token_claim_type"),
    ] {
        let stage = Stage::start();
        stage.provider.falsify(name, value.clone());
        assert_refused(&stage, reason).await;
    }
}

#[tokio::test]
async fn an_audience_may_be_a_list_and_a_time_may_have_a_fraction() {
    let stage = Stage::start();
    stage.provider.falsify("aud", json!(["vestibule-test"]));
    stage.provider.falsify("iat", json!(stage.clock.unix() as f64 + 0.25));
    assert_accepted(&stage, "a list of one").await;
}

/// The provider publishes its next key, signs with it at once, and the old one is gone, twice within the fetch interval.
#[tokio::test]
async fn a_key_that_came_into_use_a_moment_ago_is_found() {
    let stage = stage("key_refetch_interval = \"1s\"");
    for _ in 0..2 {
        stage.clock.advance(Duration::from_secs(2));
        stage.provider.rotate_keys();
        let page = stage.sign_in(&stage.browser(), "/").await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.text());
    }
    assert_eq!(stage.provider.count(Endpoint::Jwks), 3);
}

/// Core §10.1.1: whatever the interval is, a token that the provider gave for a code, or for a refresh token, is held against
/// the keys of today.
#[tokio::test]
async fn keys_that_change_again_and_again_within_the_interval_keep_nobody_from_signing_in_or_staying_so() {
    let toml = "[upstream]\naccess_token = \"bearer\"\n[bearer]\naccept = true\naudiences = [\"api\"]\n";
    let stage = Stage::with(&format!("[provider]\nkey_refetch_interval = \"1h\"\n{toml}"));
    let fetches = || stage.provider.count(Endpoint::Jwks);
    let browser = stage.signed_in_browser().await;
    let before = fetches();
    for rotation in 1..=3 {
        stage.provider.rotate_keys();
        assert_accepted(&stage, "a new key").await;
        assert_eq!(fetches() - before, rotation);
        stage.clock.advance(Duration::from_secs(1));
    }
    stage.provider.rotate_keys();
    stage.provider.set_claim("groups", json!(["/new"]));
    stage.clock.advance(Duration::from_secs(600));
    let renewed = browser.get(&stage.url("/")).await;
    assert_eq!((renewed.status, renewed.echoed("x-forwarded-groups").as_deref()), (StatusCode::OK, Some("/new")));
    assert_eq!((stage.provider.refreshes(), fetches() - before), (1, 4));

    let claims = json!({ "iss": stage.provider.issuer(), "aud": "api", "sub": "x", "exp": stage.clock.unix() + 300 });
    let stranger = SigningKey::generate(Alg::Es256);
    stage.upstream.forget();
    for _ in 0..50 {
        let authorization = format!("Bearer {}", stranger.token(&claims));
        let request = Request::new(Method::GET, &stage.url("/")).header("authorization", &authorization);
        assert_eq!(stage.browser().send(request).await.status, StatusCode::UNAUTHORIZED);
    }
    stage.upstream.assert_untouched();
    assert_eq!(fetches() - before, 5, "one for all that anybody can make up");
    stage.provider.rotate_keys();
    assert_accepted(&stage, "after all that").await;
    assert_eq!(fetches() - before, 6);
}
