//! We register ourselves at real providers, and change the registration there.

use vestibule_test_support::real::RealProvider;
use vestibule_test_support::{Stage, Value, tempfile};

/// Signs in twice as clients of its own making, the second time at another redirect URI.
async fn sign_in(provider: RealProvider, more: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let options = format!("dynamic_registration = true\nclient_name = \"Vestibule's tests\"\n{more}\n");
    let provider = provider.client_with("nobody", &options);
    let section = provider.toml().replace("client_id = \"nobody\"", "client_id = unset");
    let toml = format!(
        "state_dir = \"{}\"\n{section}[identity]\nname_claim = \"preferred_username\"\n",
        folder.path().display()
    );
    let mut clients = Vec::new();
    for _ in 0..2 {
        let stage = Stage::with(&toml);
        let page = provider.sign_in_without_browser(&stage.browser(), &stage.url("/hello")).await;
        assert_eq!(page.url.as_str(), stage.url("/hello"), "{} {}", page.status, page.text());
        assert_eq!(page.echoed("x-forwarded-user").as_deref(), Some("ada"));
        let files = std::fs::read_dir(folder.path()).expect("the folder").map(|entry| entry.expect("a file").path());
        let file = files.into_iter().find(|path| path.extension().is_some_and(|end| end == "json")).expect("a file");
        let kept: Value = serde_json::from_slice(&std::fs::read(file).expect("it")).expect("JSON");
        clients.push(kept["client_id"].clone());
    }
    assert_eq!(clients[0], clients[1], "the same client, changed (RFC 7592)");
}

#[tokio::test]
async fn a_client_that_registers_itself_signs_in_at_keycloak() {
    let provider = RealProvider::keycloak();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, provider.initial_access_token().await).expect("a file");
    sign_in(provider, &format!("registration_token_file = \"{}\"", file.display())).await;
}

#[tokio::test]
async fn a_client_that_registers_itself_signs_in_at_oidc_provider() {
    sign_in(RealProvider::oidc_provider(), "").await;
}
