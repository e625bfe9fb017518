//! Every fault of an ID token is refused: no session, no userinfo call, and nothing reaches the application (OpenID Connect
//! Core §3.1.3.7).

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use vestibule_test_support::forge::Alg;
use vestibule_test_support::{Endpoint, FakeProvider, IdTokenFault, JwksFault, Stage, TestClock, UserinfoFault, json};

macro_rules! refused {
    ($($sentence:ident: $fault:ident,)*) => {
        $(
            #[tokio::test]
            async fn $sentence() {
                assert_refused(IdTokenFault::$fault).await;
            }
        )*

        #[test]
        fn every_fault_has_a_sentence() {
            assert_eq!([$(IdTokenFault::$fault),*].len(), IdTokenFault::ALL.len());
        }
    };
}

refused! {
    a_token_signed_with_another_key_is_refused: WrongKey,
    a_token_with_one_bit_of_its_signature_flipped_is_refused: TamperedSignature,
    a_token_without_signature_is_refused: AlgNone,
    a_token_signed_with_the_public_key_as_hmac_secret_is_refused: Hs256WithPublicKey,
    a_token_signed_with_the_client_secret_is_refused_unless_registered: Hs256WithClientSecret,
    a_token_of_an_unknown_key_id_is_refused: UnknownKeyId,
    a_token_with_a_critical_extension_is_refused: CriticalHeader,
    a_token_of_another_issuer_is_refused: WrongIssuer,
    a_token_whose_issuer_has_one_more_slash_is_refused: IssuerWithSlash,
    a_token_for_another_audience_is_refused: WrongAudience,
    a_token_without_audience_is_refused: MissingAudience,
    a_token_with_an_audience_that_nobody_trusts_is_refused: ExtraAudience,
    a_token_with_another_authorized_party_is_refused: WrongAuthorizedParty,
    a_token_with_another_nonce_is_refused: WrongNonce,
    a_token_without_nonce_is_refused: MissingNonce,
    a_token_with_the_hash_of_another_access_token_is_refused: WrongAccessTokenHash,
    an_expired_token_is_refused: Expired,
    a_token_without_expiry_is_refused: MissingExpiry,
    a_token_whose_expiry_is_text_is_refused: ExpiryIsText,
    a_token_issued_in_the_future_is_refused: IssuedInTheFuture,
    a_token_without_time_of_issue_is_refused: MissingIssuedAt,
    a_token_that_is_not_yet_valid_is_refused: NotYetValid,
    a_token_without_subject_is_refused: MissingSubject,
    a_token_with_an_empty_subject_is_refused: EmptySubject,
    a_token_whose_subject_is_a_number_is_refused: SubjectIsNumber,
    garbage_is_refused: Garbage,
    a_token_answer_without_id_token_is_refused: Missing,
}

async fn assert_refused(fault: IdTokenFault) {
    let stage = Stage::start();
    stage.provider.faults(|faults| faults.id_token = Some(fault));
    let browser = stage.browser();
    let page = browser.follow(&stage.url("/asked"), 12).await;
    assert!(page.status.is_client_error() || page.status.is_server_error(), "{fault:?}: {}", page.status);
    assert_eq!(page.url.origin().ascii_serialization(), stage.origin());
    assert!(!stage.provider.token_calls().is_empty(), "the token was asked for");
    assert_eq!(
        stage.provider.count(Endpoint::Userinfo),
        0,
        "{fault:?}: userinfo was asked before the token was verified"
    );
    assert!(stage.provider.count(Endpoint::Jwks) <= 2, "{fault:?}: keys are fetched again at most once");
    assert_eq!(browser.fetch(&stage.url("/")).await.status, StatusCode::UNAUTHORIZED, "{fault:?}: there is a session");
    stage.upstream.assert_untouched();
    // Nothing lasting has happened: with a good token the same browser gets in.
    stage.provider.heal();
    let page = stage.sign_in(&browser, "/asked").await;
    assert_eq!(page.status, StatusCode::OK, "{fault:?}: {}", page.text());
}

#[tokio::test]
async fn every_asymmetric_algorithm_is_accepted() {
    for alg in Alg::ALL {
        let clock = TestClock::new();
        let provider = Arc::new(FakeProvider::start(clock.clone()));
        provider.sign_with(alg);
        let stage = Stage::builder().clock(clock).provider(provider).start();
        let page = stage.sign_in(&stage.browser(), "/").await;
        assert_eq!(page.status, StatusCode::OK, "{}: {}", alg.name(), page.text());
    }
}

#[tokio::test]
async fn the_client_secret_signs_where_the_client_is_registered_for_it() {
    let stage = Stage::with("[provider]\nsigning_algs = [\"HS256\"]");
    stage.provider.faults(|faults| faults.id_token = Some(IdTokenFault::Hs256WithClientSecret));
    let page = stage.sign_in(&stage.browser(), "/").await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text());
}

/// Core §3.3.2.11 and FAPI 1.0 Advanced §5.1: hashes that nobody has to send, and that are right where somebody does.
#[tokio::test]
async fn a_hash_of_another_code_or_state_is_refused_in_an_id_token_of_the_token_endpoint_too() {
    for (name, reason) in [("c_hash", "id_token_code_hash"), ("s_hash", "id_token_state_hash")] {
        for value in [json!(""), json!("LDktKdoQak3Pk0cnXxCltA")] {
            let stage = Stage::start();
            stage.provider.falsify(name, value);
            let browser = stage.browser();
            let page = browser.follow(&stage.url("/asked"), 12).await;
            assert_eq!(page.status, StatusCode::BAD_GATEWAY, "{name}: {}", page.text());
            let metrics = browser.fetch(&stage.admin_url("/metrics")).await.text();
            assert!(metrics.contains(&format!("\"{reason}\"")), "{reason} is not counted: {metrics}");
            assert_eq!(stage.provider.count(Endpoint::Userinfo), 0);
            stage.upstream.assert_untouched();
        }
    }
}

#[tokio::test]
async fn an_audience_trusted_by_name_is_accepted() {
    let stage = Stage::with("[provider]\ntrusted_audiences = [\"another-client\"]");
    stage.provider.faults(|faults| faults.id_token = Some(IdTokenFault::ExtraAudience));
    let page = stage.sign_in(&stage.browser(), "/").await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text());
}

#[tokio::test]
async fn keys_that_nobody_can_use_are_skipped_alone() {
    let clock = TestClock::new();
    let provider = Arc::new(FakeProvider::start(clock.clone()));
    provider.faults(|faults| faults.jwks = Some(JwksFault::UnusableKeysBesideGood));
    let stage = Stage::builder().clock(clock).provider(provider).start();
    let page = stage.sign_in(&stage.browser(), "/").await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text());
}

#[tokio::test]
async fn a_rotated_key_is_fetched_when_its_first_token_comes() {
    let stage = Stage::start();
    stage.provider.rotate_keys();
    let page = stage.sign_in(&stage.browser(), "/").await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text());
    assert_eq!(stage.provider.count(Endpoint::Jwks), 2);
}

#[tokio::test]
async fn clocks_may_differ_by_half_a_minute_and_no_more() {
    for (ahead, status) in [(20, StatusCode::OK), (90, StatusCode::UNAUTHORIZED)] {
        let ours = TestClock::new();
        let theirs = TestClock::new();
        theirs.advance(Duration::from_secs(ahead));
        let provider = Arc::new(FakeProvider::start(theirs));
        let stage = Stage::builder().clock(ours).provider(provider).start();
        let browser = stage.browser();
        browser.follow(&stage.url("/"), 12).await;
        let after = browser.fetch(&stage.url("/")).await;
        assert_eq!(after.status, status, "{ahead} s ahead");
    }
}

#[tokio::test]
async fn userinfo_that_is_not_about_this_person_never_counts() {
    for fault in [
        UserinfoFault::OtherSubject,
        UserinfoFault::MissingSubject,
        UserinfoFault::JsonArray,
        UserinfoFault::Html,
        UserinfoFault::ServerError,
    ] {
        let stage = Stage::start();
        stage.provider.set_claim("groups", json!(["/from-userinfo"]));
        stage.provider.only_in_userinfo(&["groups"]);
        stage.provider.faults(|faults| faults.userinfo = Some(fault));
        let page = stage.sign_in(&stage.browser(), "/").await;
        if page.status.is_success() {
            assert_eq!(page.echoed("x-forwarded-groups"), None, "{fault:?}");
        } else {
            stage.upstream.assert_untouched();
        }
    }
}

#[tokio::test]
async fn claims_that_only_userinfo_has_reach_the_application() {
    let stage = Stage::start();
    stage.provider.set_claim("groups", json!(["/from-userinfo"]));
    stage.provider.only_in_userinfo(&["groups"]);
    let page = stage.sign_in(&stage.browser(), "/").await;
    assert_eq!(page.echoed("x-forwarded-groups").as_deref(), Some("/from-userinfo"));
    assert_eq!(stage.provider.count(Endpoint::Userinfo), 1);
}
