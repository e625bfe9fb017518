//! What real providers sign, encrypt and say about a sign-in is taken, and what they do not do is found out.

use http::StatusCode;
use vestibule_test_support::real::RealProvider;
use vestibule_test_support::{Reply, Stage};

async fn sign_in(provider: &RealProvider, lines: &str) -> Reply {
    let stage = Stage::with(&format!("{}{lines}", provider.toml()));
    let browser = stage.browser();
    provider.sign_in_without_browser(&browser, &stage.url("/hello")).await
}

#[track_caller]
fn assert_signed_in(page: &Reply, what: &str) {
    assert_eq!(page.status, StatusCode::OK, "{what}: {}", page.text());
    assert!(page.echoed("x-forwarded-user").is_some_and(|user| !user.is_empty()), "{what}: {}", page.text());
}

fn with_key(key: &str) -> String {
    format!("client_keys_files = [\"{}\"]\nrequire_encrypted_id_token = true\n", RealProvider::key_file(key))
}

#[tokio::test]
async fn encrypted_id_tokens_are_opened() {
    for (client, key) in [("vestibule-jwe", "rsa-oaep"), ("vestibule-jwe-ecdh", "ecdh-es")] {
        for provider in [RealProvider::keycloak(), RealProvider::oidc_provider()] {
            let provider = provider.client(client);
            assert_signed_in(&sign_in(&provider, &with_key(key)).await, client);
            let page = sign_in(&provider, "").await;
            assert_eq!(page.status, StatusCode::BAD_GATEWAY, "{client} without the key: {}", page.text());
        }
    }
}

#[tokio::test]
async fn signed_answers_are_taken_in_the_address_and_in_a_form() {
    for mode in ["query.jwt", "form_post.jwt"] {
        for provider in [RealProvider::keycloak(), RealProvider::oidc_provider()] {
            let lines = format!("response_mode = \"{mode}\"\n");
            assert_signed_in(&sign_in(&provider.client("vestibule-jarm"), &lines).await, mode);
        }
    }
}

#[tokio::test]
async fn encrypted_answers_are_opened() {
    for mode in ["query.jwt", "form_post.jwt"] {
        for (provider, key) in [(RealProvider::keycloak(), "rsa-oaep"), (RealProvider::oidc_provider(), "ecdh-es")] {
            let provider = provider.client("vestibule-jarm-jwe");
            let lines = format!("response_mode = \"{mode}\"\n");
            let keys = format!("{lines}client_keys_files = [\"{}\"]\n", RealProvider::key_file(key));
            assert_signed_in(&sign_in(&provider, &keys).await, mode);
            let page = sign_in(&provider, &lines).await;
            assert_eq!(page.status, StatusCode::BAD_REQUEST, "{mode} without the key: {}", page.text());
        }
    }
}

#[tokio::test]
async fn an_id_token_beside_the_code_is_taken() {
    let hybrid = "response_type = \"code id_token\"\n";
    for mode in ["", "response_mode = \"form_post.jwt\"\n"] {
        for provider in [RealProvider::keycloak(), RealProvider::oidc_provider()] {
            let page = sign_in(&provider.client("vestibule-hybrid"), &format!("{hybrid}{mode}")).await;
            assert_signed_in(&page, &format!("hybrid {mode}"));
        }
    }
}

#[tokio::test]
async fn signed_and_encrypted_userinfo_is_read() {
    for provider in [RealProvider::keycloak(), RealProvider::oidc_provider()] {
        assert_signed_in(&sign_in(&provider.client("vestibule-signed-userinfo"), "").await, "signed");
    }
    let keys = format!("client_keys_files = [\"{}\"]\n", RealProvider::key_file("rsa-oaep"));
    let both = RealProvider::keycloak().client("vestibule-jwe-userinfo");
    assert_signed_in(&sign_in(&both, &keys).await, "encrypted");
}

#[tokio::test]
async fn how_and_when_somebody_signed_in_is_asked_for_and_held_against_the_answer() {
    let keycloak = RealProvider::keycloak().client("vestibule-step-up");
    let lines = "max_age = \"5m\"\nacr_values = [\"gold\"]\nrequired_acr = [\"gold\", \"silver\"]\n";
    assert_signed_in(&sign_in(&keycloak, lines).await, "keycloak");
    // It ignores what it does not know, and gives what it has.
    let page = sign_in(&keycloak, "authorization_params = { x = \"y\" }\nrequired_acr = [\"platinum\"]\n").await;
    assert_ne!(page.status, StatusCode::OK, "{}", page.text());
    let node = RealProvider::oidc_provider();
    let claims = "max_age = \"5m\"\nclaims = '{\"id_token\":{\"email\":{\"essential\":true}}}'\n";
    assert_signed_in(&sign_in(&node, claims).await, "oidc-provider");
}

#[tokio::test]
async fn keycloak_makes_a_session_stronger_on_the_way_to_a_page_that_asks_for_it() {
    let keycloak = RealProvider::keycloak().client("vestibule-step-up");
    let routes =
        "acr_values = [\"silver\"]\n[[routes]]\npath = \"/vault\"\nrequire = { acr = \"gold\", max_age = \"5m\" }\n";
    let stage = Stage::with(&format!("{}{routes}", keycloak.toml()));
    let browser = stage.browser();
    assert_signed_in(&keycloak.sign_in_without_browser(&browser, &stage.url("/hello")).await, "silver");
    stage.upstream.forget();
    let asked = browser.follow(&stage.url("/vault"), 5).await;
    assert_ne!(asked.url.origin().ascii_serialization(), stage.origin(), "{}", asked.text());
    stage.upstream.assert_untouched();
    let page = keycloak.pass_pages(&browser, asked, "ada").await;
    assert_signed_in(&page, "gold");
    assert_eq!(page.url.as_str(), stage.url("/vault"));
}

/// The application itself demands it (RFC 9470), and sees by a header whether it was done.
#[tokio::test]
async fn keycloak_makes_a_session_as_strong_as_the_application_demands() {
    let keycloak = RealProvider::keycloak().client("vestibule-step-up");
    let lines = "acr_values = [\"silver\"]\n[identity.headers]\n\"X-Forwarded-User\" = \"name\"\n\
                 \"X-Acr\" = { claim = \"acr\" }\n";
    let stage = Stage::with(&format!("{}{lines}", keycloak.toml()));
    let browser = stage.browser();
    assert_signed_in(&keycloak.sign_in_without_browser(&browser, &stage.url("/hello")).await, "silver");
    let challenge = "Bearer error=\"insufficient_user_authentication\", acr_values=\"gold\", max_age=\"300\"";
    let mut query = url::form_urlencoded::Serializer::new("/until?".to_owned());
    query.append_pair("name", "x-acr").append_pair("value", "gold");
    let path = query.append_pair("header", &format!("www-authenticate:{challenge}")).finish();
    let asked = browser.follow(&stage.url(&path), 6).await;
    assert_ne!(asked.url.origin().ascii_serialization(), stage.origin(), "{}", asked.text());
    let page = keycloak.pass_pages(&browser, asked, "ada").await;
    assert_signed_in(&page, "gold");
    assert_eq!(page.echoed("x-acr").as_deref(), Some("gold"));
    assert_eq!(page.json()["target"], path);
}
