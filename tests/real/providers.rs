//! A sign-in at each real provider, through the provider's own pages but without Chromium.

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
