//! Tokens that begin without a redirect, at real providers.

use std::time::Duration;

use http::Method;
use vestibule_test_support::real::RealProvider;
use vestibule_test_support::{Browser, Reply, Request, Stage, Value};

const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";

#[tokio::test]
async fn the_proxys_own_tokens_of_keycloak_and_oidc_provider_go_to_the_upstream() {
    for (provider, more) in [
        (RealProvider::keycloak(), "scopes = [\"profile\"]\n"),
        (RealProvider::oidc_provider(), ""),
        (RealProvider::oidc_provider(), "resource = \"urn:vestibule:api\"\n"),
    ] {
        let provider = provider.client("vestibule-service");
        let stage = Stage::with(&format!(
            "{}[upstream]\naccess_token = \"client_credentials\"\n[upstream.client_credentials]\n{more}\
             [[routes]]\npath = \"/open\"\naccess = \"public\"\n",
            provider.toml()
        ));
        stage.wait_for_provider().await;
        let (one, two) = tokio::join!(async { stage.browser().get(&stage.url("/open")).await }, async {
            stage.browser().get(&stage.url("/open")).await
        });
        assert_eq!(one.status, 200, "{more} {}", one.text());
        let token = one.echoed("authorization").expect("a token of ours");
        assert!(token.starts_with("Bearer ") && two.echoed("authorization") == Some(token), "{more}");
    }
}

async fn post(stage: &Stage, path: &str, form: &[(&str, &str)]) -> Reply {
    stage.browser().send(Request::new(Method::POST, &stage.url(path)).form(form)).await
}

async fn poll(stage: &Stage, device: &Value) -> Reply {
    let code = device["device_code"].as_str().expect("a device code");
    post(stage, "/auth/token", &[("grant_type", DEVICE_CODE), ("device_code", code)]).await
}

/// Starts here, says yes at the provider's pages, and gets in with the token, also with the next one.
async fn device_flow(provider: RealProvider, more: &str) {
    let client = provider.client_id().to_owned();
    let stage = Stage::with(&format!(
        "{}{more}[api_clients]\ngrants = [\"device_code\", \"refresh_token\"]\n\
         [bearer]\naccept = true\naudiences = [\"{client}\"]\n",
        provider.toml()
    ));
    stage.wait_for_provider().await;
    let reply = post(&stage, "/auth/device", &[]).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let device = reply.json();
    assert_eq!(poll(&stage, &device).await.json()["error"], "authorization_pending");
    let person = Browser::new(stage.clock.clone());
    let page = device["verification_uri_complete"].as_str().expect("a page with the code in it");
    provider.sign_in_without_browser(&person, page).await;
    // The provider's clock is the machine's.
    tokio::time::sleep(Duration::from_secs(device["interval"].as_u64().expect("an interval"))).await;
    let reply = poll(&stage, &device).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let mut tokens = reply.json();
    for _ in 0..2 {
        let authorization = format!("Bearer {}", tokens["access_token"].as_str().expect("an access token"));
        let request = Request::new(Method::GET, &stage.url("/hello")).header("authorization", &authorization);
        let reply = stage.browser().send(request).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert!(reply.echoed("x-forwarded-user").is_some());
        let Some(refresh_token) = tokens["refresh_token"].as_str().map(str::to_owned) else { return };
        let form = [("grant_type", "refresh_token"), ("refresh_token", refresh_token.as_str())];
        let reply = post(&stage, "/auth/token", &form).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        tokens = reply.json();
    }
    assert_eq!(poll(&stage, &device).await.json()["error"], "invalid_grant");
}

#[tokio::test]
async fn a_person_lets_a_program_in_by_another_device_at_keycloak() {
    device_flow(RealProvider::keycloak().client("vestibule-device"), "").await;
}

#[tokio::test]
async fn a_person_lets_a_program_in_by_another_device_at_oidc_provider() {
    let provider = RealProvider::oidc_provider().client("vestibule-device");
    device_flow(provider, "access_token_format = \"opaque\"\n").await;
}

#[tokio::test]
async fn a_person_lets_a_program_in_by_another_device_at_dex() {
    // It knows the secret of a device in the form only.
    let lines = "scopes = [\"openid\", \"profile\", \"offline_access\"]\naccess_token_format = \"opaque\"\n\
                 client_auth_method = \"client_secret_post\"\n";
    device_flow(RealProvider::dex(), lines).await;
}

#[tokio::test]
async fn a_password_of_keycloak_is_exchanged_and_a_wrong_one_is_refused() {
    let provider = RealProvider::keycloak().client("vestibule-direct");
    let stage = Stage::with(&format!("{}insecure_password_grant = true\n", provider.toml()));
    stage.wait_for_provider().await;
    let ask = |authorization: &'static str| {
        let request = Request::new(Method::GET, &stage.url("/hello")).header("authorization", authorization);
        let browser = stage.browser();
        async move { browser.send(request).await }
    };
    // ada:ada-password, and ada:wrong.
    let reply = ask("Basic YWRhOmFkYS1wYXNzd29yZA==").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(reply.echoed("x-forwarded-user").is_some() && reply.echoed("authorization").is_none());
    stage.upstream.forget();
    assert_eq!(ask("Basic YWRhOndyb25n").await.json()["code"], "password_refused");
    stage.upstream.assert_untouched();
}
