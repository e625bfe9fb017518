//! What the provider answers beside ID tokens is believed in the form that was registered, by keys that may be new, and for what
//! its `Content-Type` says it is.

use std::sync::Arc;

use http::StatusCode;
use vestibule_test_support::forge::{Alg, SigningKey};
use vestibule_test_support::{Endpoint, FakeProvider, Reply, Stage, TestClock, TokenFault, Value, json, tempfile};

fn stage(lines: &str) -> Stage {
    let stage = Stage::with(&format!("[provider]\n{lines}\n"));
    stage.provider.set_claim("groups", json!(["/from-userinfo"]));
    stage.provider.only_in_userinfo(&["groups"]);
    stage
}

async fn sign_in(stage: &Stage) -> Reply {
    stage.sign_in(&stage.browser(), "/asked").await
}

async fn assert_believed(stage: &Stage, what: &str) {
    let page = sign_in(stage).await;
    let groups = page.echoed("x-forwarded-groups");
    assert_eq!(groups.as_deref(), Some("/from-userinfo"), "{what}: {}", page.text());
}

/// Refused for `reason`, with a page, and without the application's noticing.
async fn assert_refused(stage: &Stage, reason: &str, what: &str) {
    let browser = stage.browser();
    let page = browser.follow(&stage.url("/asked"), 12).await;
    assert_eq!(page.status, StatusCode::BAD_GATEWAY, "{what}: {}", page.text());
    assert!(page.text().contains("Request id"), "{what}: {}", page.text());
    let metrics = browser.fetch(&stage.admin_url("/metrics")).await.text();
    assert!(metrics.contains(&format!("\"{reason}\"")), "{what}: {reason} is not counted: {metrics}");
    assert_eq!(browser.fetch(&stage.url("/")).await.status, StatusCode::UNAUTHORIZED, "{what}: there is a session");
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn userinfo_signed_with_a_key_that_came_into_use_a_moment_ago_is_believed() {
    for alg in [Alg::Es256, Alg::Rs256] {
        let stage = stage("");
        stage.wait_for_provider().await;
        stage.provider.sign_userinfo_with(alg);
        assert_believed(&stage, "a new key").await;
        assert_eq!(stage.provider.count(Endpoint::Jwks), 2, "fetched once more");
    }
}

/// A client whose ID tokens are signed with its secret has no use for keys until something else is signed with one.
#[tokio::test]
async fn a_client_registered_for_hs256_believes_userinfo_that_is_signed_with_a_key() {
    let stage = stage("signing_algs = [\"HS256\"]");
    stage.provider.faults(|faults| {
        faults.id_token = Some(vestibule_test_support::IdTokenFault::Hs256WithClientSecret);
    });
    stage.provider.sign_userinfo_with(Alg::Es256);
    assert_believed(&stage, "ES256").await;
}

/// Core §5.3.2: issuer and audience belong into a signed answer; whoever else is an audience does no harm.
#[tokio::test]
async fn signed_userinfo_is_the_issuers_and_for_us() {
    for (claims, what) in [
        (json!({ "iss": null }), "no issuer"),
        (json!({ "iss": "https://other.example.com" }), "another issuer"),
        (json!({ "iss": 1 }), "an issuer that is a number"),
        (json!({ "aud": null }), "no audience"),
        (json!({ "aud": "another-client" }), "another audience"),
        (json!({ "aud": [] }), "an empty audience"),
        (json!({ "aud": ["vestibule-test", 1] }), "an audience that is a number"),
        (json!({ "exp": 1 }), "long past"),
        (json!({ "nbf": 99_999_999_999_u64 }), "not yet"),
        (json!({ "events": {} }), "a logout token"),
        (json!({ "sub": "somebody-else" }), "another subject"),
        (json!({ "sub": null }), "no subject"),
    ] {
        let stage = stage("");
        stage.provider.sign_userinfo();
        let Value::Object(claims) = claims else { unreachable!("written as an object above") };
        stage.provider.faults(|faults| faults.userinfo_claims = claims);
        assert_refused(&stage, "userinfo", what).await;
    }
    let stage = stage("");
    stage.provider.sign_userinfo();
    stage.provider.faults(|faults| {
        faults.userinfo_claims.insert("aud".to_owned(), json!(["another-client", "vestibule-test"]));
    });
    assert_believed(&stage, "two audiences").await;
}

/// Each is registered with an algorithm of its own (OpenID Connect Registration §2).
#[tokio::test]
async fn what_is_set_for_id_tokens_says_nothing_of_userinfo_and_the_other_way_round() {
    let stage = stage("signing_algs = [\"RS256\"]");
    stage.provider.sign_userinfo_with(Alg::Es256);
    assert_believed(&stage, "ES256 beside RS256").await;
    for (lines, signs, what) in [
        ("userinfo_signing_algs = [\"ES256\"]", Some(Alg::Rs256), "another algorithm"),
        ("userinfo_signing_algs = [\"ES256\"]", None, "not signed at all"),
    ] {
        let stage = self::stage(lines);
        if let Some(alg) = signs {
            stage.provider.sign_userinfo_with(alg);
        }
        assert_refused(&stage, "userinfo", what).await;
    }
    let named = self::stage("userinfo_signing_algs = [\"ES256\"]");
    named.provider.sign_userinfo_with(Alg::Es256);
    assert_believed(&named, "as it is named").await;
    let offered = with_metadata("", &[("userinfo_signing_alg_values_supported", json!(["RS256"]))]);
    offered.provider.set_claim("groups", json!([]));
    offered.provider.sign_userinfo_with(Alg::Es256);
    assert_refused(&offered, "userinfo", "not offered by the metadata").await;
}

/// A stage whose provider says `members` of itself from the start.
fn with_metadata(lines: &str, members: &[(&str, Value)]) -> Stage {
    let clock = TestClock::new();
    let provider = Arc::new(FakeProvider::start(clock.clone()));
    for (name, value) in members {
        provider.set_metadata(name, value.clone());
    }
    Stage::builder().clock(clock).provider(provider).toml(&format!("[provider]\n{lines}\n")).start()
}

#[tokio::test]
async fn a_good_answer_that_says_it_is_something_else_is_refused_and_named() {
    for kind in ["text/html; charset=utf-8", "text/plain", "application/octet-stream", "application/jwt", ""] {
        let stage = stage("");
        stage.wait_for_provider().await;
        stage.provider.answer_as(Endpoint::Token, kind);
        assert_refused(&stage, "provider_media_type", &format!("a token answer as {kind:?}")).await;
        assert_eq!(stage.provider.count(Endpoint::Userinfo), 0);
        stage.provider.heal();
        stage.provider.answer_as(Endpoint::Userinfo, "text/html");
        assert_refused(&stage, "provider_media_type", "userinfo").await;
        let pushing = self::stage("pushed_authorization_requests = true");
        pushing.wait_for_provider().await;
        pushing.provider.answer_as(Endpoint::Push, kind);
        let page = pushing.browser().get(&pushing.url("/asked")).await;
        assert_eq!(page.status, StatusCode::BAD_GATEWAY, "a pushed request as {kind:?}: {}", page.text());
        pushing.upstream.assert_untouched();
    }
}

#[tokio::test]
async fn a_document_or_key_set_that_says_it_is_something_else_is_as_good_as_none_and_named() {
    for endpoint in [Endpoint::Discovery, Endpoint::Jwks] {
        let clock = TestClock::new();
        let provider = Arc::new(FakeProvider::start(clock.clone()));
        provider.answer_as(endpoint, "text/html");
        let stage = Stage::builder().clock(clock).provider(provider).without_provider().start();
        let is_told = |reply: &Reply| {
            let reason = reply.json()["reason"].as_str().unwrap_or_default().to_owned();
            reason.contains("not JSON") && reason.contains("text/html")
        };
        stage.wait_for_readiness("the content type", is_told).await;
        let page = stage.browser().get(&stage.url("/")).await;
        assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE, "{endpoint:?}: {}", page.text());
        stage.provider.heal();
        stage.wait_for_provider().await;
        assert_eq!(sign_in(&stage).await.status, StatusCode::OK, "{endpoint:?}");
    }
}

#[tokio::test]
async fn the_media_types_that_are_registered_for_these_answers_are_taken() {
    for (endpoint, kind) in [
        (Endpoint::Jwks, "application/jwk-set+json"),
        (Endpoint::Jwks, "Application/JSON;charset=UTF-8"),
        (Endpoint::Discovery, "application/json; charset=utf-8"),
        (Endpoint::Token, "application/json;charset=ISO-8859-1"),
    ] {
        let clock = TestClock::new();
        let provider = Arc::new(FakeProvider::start(clock.clone()));
        provider.answer_as(endpoint, kind);
        let stage = Stage::builder().clock(clock).provider(provider).start();
        assert_eq!(sign_in(&stage).await.status, StatusCode::OK, "{endpoint:?} {kind}");
    }
}

#[tokio::test]
async fn a_token_answer_that_can_be_read_in_two_ways_is_refused() {
    let stage = stage("");
    stage.provider.faults(|faults| faults.token = Some(TokenFault::Doubled));
    assert_refused(&stage, "token_response", "access_token stands twice").await;
    assert_eq!(stage.provider.count(Endpoint::Userinfo), 0);
}

/// OpenID Federation 1.0 §5.2.1: whoever speaks for the provider's address has no say in its keys.
#[tokio::test]
async fn keys_come_signed_or_not_at_all_where_the_operator_knows_the_signer() {
    let signer = SigningKey::generate(Alg::Es256);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("signer.json");
    std::fs::write(&file, json!({ "keys": [signer.jwk()] }).to_string()).unwrap();
    let toml = format!("[provider]\nsigned_jwks_key_file = {:?}\n", file.display().to_string());
    let of = |signer: Option<SigningKey>| {
        let clock = TestClock::new();
        let provider = Arc::new(FakeProvider::start(clock.clone()));
        if let Some(signer) = signer {
            provider.sign_key_set(signer);
        }
        Stage::builder().clock(clock).provider(provider).toml(&toml).without_provider().start()
    };
    for (signed_by, cause) in [(None, "signed_jwks_uri"), (Some(SigningKey::generate(Alg::Es256)), "signed key set")] {
        let stage = of(signed_by);
        let is_told = |reply: &Reply| reply.json()["reason"].as_str().is_some_and(|reason| reason.contains(cause));
        stage.wait_for_readiness(cause, is_told).await;
        let page = stage.browser().get(&stage.url("/")).await;
        assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE, "{cause}: {}", page.text());
        assert_eq!(stage.provider.count(Endpoint::Jwks), 0, "an unsigned key set is never asked for");
        stage.upstream.assert_untouched();
    }
    let stage = of(Some(signer));
    stage.wait_for_provider().await;
    assert_eq!(sign_in(&stage).await.status, StatusCode::OK);
    stage.provider.rotate_keys();
    assert_eq!(sign_in(&stage).await.status, StatusCode::OK, "a key that came into use a moment ago");
    assert_eq!((stage.provider.count(Endpoint::Jwks), stage.provider.count(Endpoint::SignedJwks)), (0, 2));
}
