//! A sign-in at each real provider, alone and side by side, through the provider's own pages but without Chromium.

use vestibule_test_support::Stage;
use vestibule_test_support::real::RealProvider;

const IDENTITY: &str = "[identity]\nname_claim = \"preferred_username\"\n";

#[tokio::test]
async fn a_person_signs_in_at_keycloak() {
    sign_in(RealProvider::keycloak(), "").await;
}

#[tokio::test]
async fn a_person_signs_in_at_oidc_provider() {
    sign_in(RealProvider::oidc_provider(), "").await;
}

#[tokio::test]
async fn a_person_signs_in_at_dex() {
    sign_in(RealProvider::dex(), "scopes = [\"openid\", \"profile\", \"email\", \"groups\"]\n").await;
}

async fn sign_in(provider: RealProvider, more: &str) {
    let stage = Stage::with(&format!("{}{more}{IDENTITY}", provider.toml()));
    let browser = stage.browser();
    let page = provider.sign_in_without_browser(&browser, &stage.url("/hello?x=1")).await;
    assert_eq!(page.url.as_str(), stage.url("/hello?x=1"), "{} {}", page.status, page.text());
    assert_eq!(stage.upstream.count(), 1, "nothing reached the application before");
    assert_eq!(page.echoed("x-forwarded-user").as_deref(), Some("ada"));
    assert_eq!(page.echoed("x-forwarded-email").as_deref(), Some("ada@example.com"));
    assert_eq!(page.echoed("x-forwarded-groups").as_deref(), Some("/admins,/staff"));
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
