//! What is encrypted to us is opened and then judged as if it had come in the clear (OpenID Connect Core §10.2, §16.14).

use http::StatusCode;
use vestibule_test_support::encryption::EncryptionKey;
use vestibule_test_support::real::RealProvider;
use vestibule_test_support::{EncryptionFault, Endpoint, IdTokenFault, Stage, json};

/// A proxy with the key, and a provider that encrypts to it.
fn stage(lines: &str) -> Stage {
    let file = RealProvider::key_file("rsa-oaep");
    let stage = Stage::with(&format!("[provider]\nclient_keys_files = [\"{file}\"]\n{lines}\n"));
    stage.provider.encrypt_to(key());
    stage
}

fn key() -> EncryptionKey {
    let pem = std::fs::read_to_string(RealProvider::key_file("rsa-oaep")).expect("the key of the tests");
    EncryptionKey::of_private_pem(&pem)
}

/// Refused for `reason`, before userinfo is asked and without the application's noticing.
async fn assert_refused(stage: &Stage, reason: &str) {
    let browser = stage.browser();
    let page = browser.follow(&stage.url("/asked"), 12).await;
    assert_eq!(page.status, StatusCode::BAD_GATEWAY, "{reason}: {}", page.text());
    let metrics = browser.fetch(&stage.admin_url("/metrics")).await.text();
    assert!(metrics.contains(&format!("\"{reason}\"")), "{reason} is not counted");
    assert_eq!(stage.provider.count(Endpoint::Userinfo), 0, "{reason}: userinfo was asked");
    assert_eq!(browser.fetch(&stage.url("/")).await.status, StatusCode::UNAUTHORIZED, "{reason}: there is a session");
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn an_encrypted_id_token_signs_somebody_in_and_serves_as_a_hint_afterwards() {
    for lines in ["", "require_encrypted_id_token = true", "response_type = \"code id_token\""] {
        let stage =
            stage(&format!("{lines}\npost_logout_redirect_uri = \"http://localhost:{{port}}/auth/signed-out\""));
        let browser = stage.browser();
        let page = stage.sign_in(&browser, "/there").await;
        assert_eq!(page.status, StatusCode::OK, "{lines}: {}", page.text());
        assert_eq!(page.echoed("x-forwarded-user").as_deref(), Some("248289761001"));
        browser.click(&stage.url("/"), &stage.url("/auth/logout")).await;
        let claims = browser.fetch(&stage.url("/auth/userinfo")).await;
        assert_ne!(claims.status, StatusCode::OK, "the session has ended");
    }
}

#[tokio::test]
async fn userinfo_may_be_signed_encrypted_or_both() {
    for (is_signed, is_encrypted) in [(true, false), (false, true), (true, true)] {
        let file = RealProvider::key_file("rsa-oaep");
        let stage = Stage::with(&format!("[provider]\nclient_keys_files = [\"{file}\"]\n"));
        stage.provider.set_claim("groups", json!(["/from-userinfo"]));
        stage.provider.only_in_userinfo(&["groups"]);
        if is_signed {
            stage.provider.sign_userinfo();
        }
        if is_encrypted {
            stage.provider.encrypt_to(key());
        }
        let page = stage.sign_in(&stage.browser(), "/").await;
        let groups = page.echoed("x-forwarded-groups");
        assert_eq!(groups.as_deref(), Some("/from-userinfo"), "{is_signed} {is_encrypted}: {}", page.text());
    }
}

#[tokio::test]
async fn encryption_makes_nothing_believable_that_is_not() {
    for (fault, reason) in [
        (EncryptionFault::Unsigned, "id_token_malformed"),
        (EncryptionFault::AlgNone, "id_token_algorithm"),
        (EncryptionFault::Twice, "id_token_malformed"),
        (EncryptionFault::Empty, "id_token_malformed"),
        (EncryptionFault::Tampered, "id_token_undecryptable"),
        (EncryptionFault::Sha1, "id_token_undecryptable"),
    ] {
        let stage = stage("");
        stage.provider.faults(|faults| faults.encryption = Some(fault));
        assert_refused(&stage, reason).await;
    }
    for (fault, reason) in [
        (IdTokenFault::TamperedSignature, "id_token_signature"),
        (IdTokenFault::WrongNonce, "id_token_nonce"),
        (IdTokenFault::WrongAudience, "id_token_audience"),
        (IdTokenFault::Expired, "id_token_expired"),
    ] {
        let stage = stage("");
        stage.provider.faults(|faults| faults.id_token = Some(fault));
        assert_refused(&stage, reason).await;
    }
}

#[tokio::test]
async fn what_is_not_encrypted_is_refused_where_encryption_is_required() {
    let plain = |stage: &Stage| stage.provider.faults(|faults| faults.encryption = Some(EncryptionFault::Plain));
    for lines in
        ["require_encrypted_id_token = true", "require_encrypted_id_token = true\nresponse_type = \"code id_token\""]
    {
        let stage = stage(lines);
        plain(&stage);
        assert_refused(&stage, "id_token_not_encrypted").await;
    }
    let stage = stage("");
    plain(&stage);
    assert_eq!(stage.sign_in(&stage.browser(), "/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_encrypted_id_token_is_refused_where_no_key_could_open_it_or_the_algorithm_is_not_named() {
    let without_key = Stage::start();
    without_key.provider.encrypt_to(key());
    assert_refused(&without_key, "id_token_undecryptable").await;
    assert_refused(&stage("decryption_algs = [\"ECDH-ES\"]"), "id_token_undecryptable").await;
    let stage = stage("decryption_algs = [\"RSA-OAEP\"]");
    stage.provider.faults(|faults| faults.encryption = Some(EncryptionFault::Sha1));
    assert_eq!(stage.sign_in(&stage.browser(), "/").await.status, StatusCode::OK, "named, so taken");
}

#[tokio::test]
async fn unsigned_userinfo_in_a_token_that_says_none_is_refused_though_encrypted() {
    let stage = stage("");
    stage.provider.faults(|faults| faults.userinfo_is_none = true);
    let page = stage.sign_in(&stage.browser(), "/").await;
    assert_eq!(page.status, StatusCode::BAD_GATEWAY, "{}", page.text());
    stage.upstream.assert_untouched();
}
