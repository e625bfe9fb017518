//! A sign-in at each real provider, alone and side by side, through the provider's own pages but without Chromium.

use vestibule_test_support::real::RealProvider;
use vestibule_test_support::{Reply, Stage};

const GROUPS: &str = "scopes = [\"openid\", \"profile\", \"email\", \"groups\"]\n";
const IDENTITY: &str = "[identity]\nname_claim = \"preferred_username\"\n";

#[tokio::test]
async fn a_person_signs_in_at_keycloak() {
    assert_groups(&sign_in(RealProvider::keycloak(), "").await);
}

#[tokio::test]
async fn a_person_signs_in_at_oidc_provider() {
    assert_groups(&sign_in(RealProvider::oidc_provider(), "").await);
}

#[tokio::test]
async fn a_person_signs_in_at_dex() {
    assert_groups(&sign_in(RealProvider::dex(), GROUPS).await);
}

#[track_caller]
fn assert_groups(page: &Reply) {
    assert_eq!(page.echoed("x-forwarded-groups").as_deref(), Some("/admins,/staff"));
}

/// The application's page; who came has been checked, groups are the caller's to check where the client tells them.
async fn sign_in(provider: RealProvider, more: &str) -> Reply {
    let stage = Stage::with(&format!("{}{more}{IDENTITY}", provider.toml()));
    let browser = stage.browser();
    let page = provider.sign_in_without_browser(&browser, &stage.url("/hello?x=1")).await;
    assert_eq!(page.url.as_str(), stage.url("/hello?x=1"), "{} {}", page.status, page.text());
    assert_eq!(stage.upstream.count(), 1, "nothing reached the application before");
    assert_eq!(page.echoed("x-forwarded-user").as_deref(), Some("ada"));
    assert_eq!(page.echoed("x-forwarded-email").as_deref(), Some("ada@example.com"));
    page
}

#[tokio::test]
async fn a_public_client_needs_no_secret_at_any_provider() {
    let client = |provider: RealProvider| provider.client_with("vestibule-public", "public_client = true");
    sign_in(client(RealProvider::keycloak()), "").await;
    sign_in(client(RealProvider::oidc_provider()), "").await;
    sign_in(client(RealProvider::dex()), GROUPS).await;
}

#[tokio::test]
async fn id_tokens_of_every_signature_algorithm_in_use_are_taken() {
    for alg in ["ps256", "es256", "es384", "es512", "eddsa"] {
        let name = format!("vestibule-{alg}");
        sign_in(RealProvider::keycloak().client(&name), "").await;
        sign_in(RealProvider::oidc_provider().client(&name), "").await;
    }
}

#[tokio::test]
async fn people_of_three_real_providers_sign_in_side_by_side() {
    let providers =
        [("keycloak", RealProvider::keycloak()), ("node", RealProvider::oidc_provider()), ("dex", RealProvider::dex())];
    let sections = providers.iter().map(|(name, provider)| provider.toml_as(name)).collect::<String>();
    let unset = "issuer = unset\nclient_id = unset\nclient_secret = unset\nredirect_uri = unset\n";
    let headers = "[identity.headers]\n\"X-Forwarded-User\" = \"name\"\n\"X-Forwarded-Provider\" = \"provider\"\n";
    let toml = format!("public_url = \"http://localhost:{{port}}\"\n[provider]\n{unset}{sections}{IDENTITY}{headers}");
    let stage = Stage::with(&toml);
    for (name, provider) in providers {
        let browser = stage.browser();
        let start = stage.url(&format!("/auth/login?provider={name}&rd=/hello"));
        let page = provider.sign_in_without_browser(&browser, &start).await;
        assert_eq!(page.url.path(), "/hello", "{name}: {} {}", page.status, page.text());
        assert_eq!(page.echoed("x-forwarded-user").as_deref(), Some("ada"));
        assert_eq!(page.echoed("x-forwarded-provider").as_deref(), Some(name));
    }
}
