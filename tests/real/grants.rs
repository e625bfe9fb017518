//! Tokens that begin without a redirect, at real providers.

use vestibule_test_support::Stage;
use vestibule_test_support::real::RealProvider;

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
