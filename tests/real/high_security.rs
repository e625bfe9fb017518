//! Client authentication and everything of the high-security profile at real providers, each by a client that demands it.

use http::StatusCode;
use vestibule_test_support::forge::payload_of;
use vestibule_test_support::real::RealProvider;
use vestibule_test_support::{CertificateFiles, Stage, TestCa, json};

const IDENTITY: &str = "[identity]\nname_claim = \"preferred_username\"\n";

async fn sign_in(provider: RealProvider, what: &str) {
    let stage = Stage::with(&format!("{}{IDENTITY}", provider.toml()));
    let browser = provider.let_in(stage.browser());
    let page = provider.sign_in_without_browser(&browser, &stage.url("/hello?x=1")).await;
    assert_eq!(page.url.as_str(), stage.url("/hello?x=1"), "{what}: {} {}", page.status, page.text());
    assert_eq!(stage.upstream.count(), 1, "{what}: nothing reached the application before");
    assert_eq!(page.echoed("x-forwarded-user").as_deref(), Some("ada"), "{what}");
}

fn both() -> [RealProvider; 2] {
    [RealProvider::keycloak(), RealProvider::oidc_provider()]
}

fn keys(name: &str) -> String {
    format!("client_keys_files = [{:?}]", RealProvider::key_file(name))
}

fn certificate() -> String {
    let (certificate, key) = RealProvider::client_certificate();
    format!(
        "client_certificate_file = {certificate:?}\nclient_certificate_key_file = {key:?}\nca_file = {:?}",
        RealProvider::ca_file()
    )
}

/// The secret stays, with more lines after it.
fn with_secret(provider: RealProvider, client: &str, lines: &str) -> RealProvider {
    let secret = format!("client_secret = \"{}\"\n{lines}", provider.client_secret());
    provider.client_with(client, &secret)
}

#[tokio::test]
async fn assertions_signed_with_a_key_of_any_kind_are_believed() {
    for key in ["rs256", "ps256", "es256", "eddsa"] {
        for provider in both() {
            // An RSA key could be used with PS256, too, for which it is not registered.
            let only = if key == "rs256" { "client_signing_alg = \"RS256\"\n" } else { "" };
            let lines = format!("{only}{}\nclient_auth_method = \"private_key_jwt\"", keys(key));
            sign_in(provider.client_with("vestibule-private-key-jwt", &lines), key).await;
        }
    }
}

#[tokio::test]
async fn a_secret_is_sent_in_every_way_there_is() {
    for provider in both() {
        let lines = "client_auth_method = \"client_secret_jwt\"";
        sign_in(with_secret(provider, "vestibule-secret-jwt", lines), "client_secret_jwt").await;
    }
    let lines = "client_auth_method = \"client_secret_post\"";
    sign_in(with_secret(RealProvider::oidc_provider(), "vestibule-secret-post", lines), "client_secret_post").await;
}

#[tokio::test]
async fn pushed_requests_are_taken() {
    for provider in both() {
        let lines = "pushed_authorization_requests = true";
        sign_in(with_secret(provider, "vestibule-par", lines), "pushed").await;
    }
}

#[tokio::test]
async fn signed_requests_are_taken_pushed_or_not() {
    for pushed in [false, true] {
        for provider in both() {
            let lines =
                format!("request_object = \"value\"\npushed_authorization_requests = {pushed}\n{}", keys("es256"));
            sign_in(with_secret(provider, "vestibule-request-object", &lines), "signed").await;
        }
    }
}

/// Keycloak alone: oidc-provider takes no reference but its own (PAR).
#[tokio::test]
async fn keycloak_fetches_signed_requests_from_us_and_takes_no_others() {
    let client = |how: &str| {
        let lines = format!("request_object = \"{how}\"\n{}", keys("es256"));
        with_secret(RealProvider::keycloak(), "vestibule-request-uri", &lines)
    };
    sign_in(client("reference"), "fetched").await;
    let provider = client("value");
    let stage = Stage::with(&provider.toml());
    let page = provider.sign_in_without_browser(&stage.browser(), &stage.url("/")).await;
    assert_ne!(page.status, StatusCode::OK, "{}", page.text());
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn what_is_asked_for_in_detail_is_in_the_access_token() {
    let lines = "resource = \"https://api.example.com\"\nuserinfo = false\n\
                 authorization_details = '[{\"type\":\"payment\",\"amount\":\"7\"}]'";
    let provider = with_secret(RealProvider::oidc_provider(), "vestibule-rar", lines);
    let stage = Stage::with(&format!("{}{IDENTITY}[upstream]\naccess_token = \"bearer\"\n", provider.toml()));
    let page = provider.sign_in_without_browser(&stage.browser(), &stage.url("/hello")).await;
    assert_eq!(page.echoed("x-forwarded-user").as_deref(), Some("ada"), "{} {}", page.status, page.text());
    let token = page.echoed("authorization").expect("an access token");
    let claims = payload_of(token.strip_prefix("Bearer ").expect("a bearer token"));
    assert_eq!(claims["authorization_details"], json!([{ "type": "payment", "amount": "7" }]), "{claims}");
    assert_eq!(claims["aud"], "https://api.example.com");
}

#[tokio::test]
async fn another_certificate_than_the_registered_one_lets_nobody_in() {
    let signed = TestCa::new().sign(&["another.example.com"]);
    let files = CertificateFiles::new(&signed);
    let (certificate, key) = (files.path("tls.crt"), files.path("tls.key"));
    let lines = |method: &str| {
        format!(
            "client_certificate_file = {certificate:?}\nclient_certificate_key_file = {key:?}\nca_file = {:?}\n\
             client_auth_method = \"{method}\"",
            RealProvider::ca_file()
        )
    };
    for (provider, client, method) in [
        (RealProvider::oidc_provider(), "vestibule-mtls", "tls_client_auth"),
        (RealProvider::oidc_provider(), "vestibule-self-signed-mtls", "self_signed_tls_client_auth"),
        (RealProvider::keycloak_by_https(), "vestibule-mtls", "tls_client_auth"),
    ] {
        let provider = provider.client_with(client, &lines(method));
        let stage = Stage::with(&provider.toml());
        let browser = provider.let_in(stage.browser());
        let page = provider.sign_in_without_browser(&browser, &stage.url("/hello")).await;
        assert!(page.status.is_server_error(), "{client}: {} {}", page.status, page.text());
        assert_eq!(page.url.path(), "/auth/callback", "{client}");
        stage.upstream.assert_untouched();
    }
}

#[tokio::test]
async fn no_certificate_at_all_lets_nobody_in() {
    let lines = format!("public_client = true\nca_file = {:?}", RealProvider::ca_file());
    for (provider, client) in [
        (RealProvider::oidc_provider(), "vestibule-mtls"),
        (RealProvider::oidc_provider(), "vestibule-self-signed-mtls"),
        (RealProvider::keycloak_by_https(), "vestibule-mtls"),
    ] {
        let provider = provider.client_with(client, &lines);
        let stage = Stage::with(&provider.toml());
        let browser = provider.let_in(stage.browser());
        let page = provider.sign_in_without_browser(&browser, &stage.url("/hello")).await;
        assert_eq!(page.status, StatusCode::BAD_GATEWAY, "{client}: {}", page.text());
        assert_eq!(page.url.path(), "/auth/callback", "{client}");
        stage.upstream.assert_untouched();
    }
}

#[tokio::test]
async fn tokens_are_bound_to_a_key_with_nonces_and_without() {
    for provider in both() {
        sign_in(with_secret(provider, "vestibule-dpop", "dpop = true"), "DPoP").await;
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_it_is_wanted() {
    let lines = |method: &str| format!("{}\nclient_auth_method = \"{method}\"", certificate());
    let tls = lines("tls_client_auth");
    sign_in(RealProvider::keycloak_by_https().client_with("vestibule-mtls", &tls), "Keycloak").await;
    sign_in(RealProvider::oidc_provider().client_with("vestibule-mtls", &tls), "oidc-provider").await;
    let own = lines("self_signed_tls_client_auth");
    sign_in(RealProvider::oidc_provider().client_with("vestibule-self-signed-mtls", &own), "self-signed").await;
}

#[tokio::test]
async fn the_whole_profile_passes() {
    for provider in both() {
        let lines = format!("profile = \"fapi2\"\n{}", keys("ps256"));
        sign_in(provider.client_with("vestibule-fapi2", &lines), "FAPI 2.0").await;
    }
}
