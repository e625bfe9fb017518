//! Provider metadata that the operator states, alone or over single members of the discovered ones.

use std::time::{Duration, Instant};

use vestibule::config::{self, Sources};
use vestibule_test_support::{Endpoint, FakeProvider, Stage, TestClock, json, tempfile};

fn stated(provider: &FakeProvider, keys: &str) -> String {
    let issuer = provider.issuer();
    format!(
        "[provider]\ndiscovery = false\n[provider.metadata]\nauthorization_endpoint = \"{issuer}/authorize\"\n\
         token_endpoint = \"{issuer}/token\"\n{keys}\nauthorization_response_iss_parameter_supported = true\n"
    )
}

fn stage(provider: std::sync::Arc<FakeProvider>, clock: TestClock, toml: &str) -> Stage {
    Stage::builder().clock(clock).provider(provider).toml(toml).start()
}

fn provider() -> (std::sync::Arc<FakeProvider>, TestClock) {
    let clock = TestClock::default();
    (std::sync::Arc::new(FakeProvider::start(clock.clone())), clock)
}

#[tokio::test]
async fn a_provider_without_discovery_lets_its_people_in() {
    let (provider, clock) = provider();
    let keys = format!("jwks_uri = \"{}/keys\"", provider.issuer());
    let stage = stage(provider.clone(), clock, &stated(&provider, &keys));
    stage.signed_in_browser().await;
    assert_eq!(provider.count(Endpoint::Discovery), 0);
    assert_eq!(provider.count(Endpoint::Userinfo), 0, "none is stated");
}

#[tokio::test]
async fn what_is_stated_counts_at_the_callback_as_what_is_discovered() {
    use vestibule_test_support::AuthorizeFault;
    let (provider, clock) = provider();
    let stage = stage(provider.clone(), clock, &stated(&provider, &format!("jwks = '{}'", provider.key_set())));
    provider.faults(|faults| faults.authorize = Some(AuthorizeFault::MissingIssuer));
    let reply = stage.sign_in(&stage.browser(), "/").await;
    assert_eq!(reply.status, 400, "{}", reply.text());
    assert!(reply.text().contains("sign") && stage.upstream.requests().is_empty());
    assert_eq!((provider.count(Endpoint::Token), provider.count(Endpoint::Userinfo)), (0, 0));
}

#[tokio::test]
async fn keys_of_the_configuration_need_no_call_and_are_the_only_ones() {
    let (provider, clock) = provider();
    let stage = stage(provider.clone(), clock, &stated(&provider, &format!("jwks = '{}'", provider.key_set())));
    stage.signed_in_browser().await;
    provider.rotate_keys();
    let reply = stage.sign_in(&stage.browser(), "/").await;
    assert_eq!(reply.status, 502, "{}", reply.text());
    assert_eq!((provider.count(Endpoint::Jwks), provider.count(Endpoint::Discovery)), (0, 0));
    assert!(stage.upstream.requests().is_empty());
}

#[tokio::test]
async fn keys_from_a_file_are_taken_in_anew_when_it_changes() {
    let (provider, clock) = provider();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    std::fs::write(&path, provider.key_set().to_string()).unwrap();
    let ours = format!("jwks_file = \"{}\"", path.display());
    let stage = stage(provider.clone(), clock, &stated(&provider, &ours));
    stage.signed_in_browser().await;

    // A token with a new key looks into the file at once.
    provider.rotate_keys();
    std::fs::write(&path, provider.key_set().to_string()).unwrap();
    stage.signed_in_browser().await;

    // A key that is taken out is gone without any token's asking.
    let gone = provider.key_set().to_string();
    let (other, _) = self::provider();
    other.rotate_keys();
    std::fs::write(&path, other.key_set().to_string()).unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while stage.sign_in(&stage.browser(), "/").await.status != 502 {
        assert!(Instant::now() < end, "a key that is no longer in the file is still believed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    // A file that cannot be used takes nothing away from what is known: the keys before it stay.
    std::fs::write(&path, gone).unwrap();
    while stage.sign_in(&stage.browser(), "/").await.status != 200 {
        assert!(Instant::now() < end, "a key that is back is not believed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    std::fs::write(&path, "not keys").unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    stage.signed_in_browser().await;
    assert_eq!((provider.count(Endpoint::Jwks), provider.count(Endpoint::Discovery)), (0, 0));
}

#[tokio::test]
async fn a_stated_member_stands_above_the_discovered_one() {
    let (provider, clock) = provider();
    let nowhere = format!("{}/nowhere", provider.issuer());
    provider.set_metadata("token_endpoint", json!(nowhere));
    provider.set_metadata("jwks_uri", json!(null));
    let members =
        format!("[provider.metadata]\ntoken_endpoint = \"{0}/token\"\njwks_uri = \"{0}/keys\"\n", provider.issuer());
    let stage = stage(provider.clone(), clock, &members);
    stage.signed_in_browser().await;
    assert_eq!(provider.count(Endpoint::Unknown), 0);
    assert!(provider.count(Endpoint::Discovery) > 0 && provider.count(Endpoint::Userinfo) > 0);
}

fn problems(provider: &str) -> String {
    let text = format!(
        "[provider]\nissuer = \"https://id.example.com\"\nclient_id = \"app\"\npublic_client = true\n\
         redirect_uri = \"https://app.example.com/auth/callback\"\n{provider}\n[session]\nsecret = \"{}\"\n\
         [upstream]\nurl = \"http://127.0.0.1:3000\"\n",
        config::generate_secret().unwrap()
    );
    match config::load(&Sources::toml(&text)) {
        Ok(_) => String::new(),
        Err(problems) => format!("{problems:?}"),
    }
}

#[test]
fn what_is_missing_contradicts_or_is_insecure_is_told_before_the_start() {
    const KEYS: &str =
        r#"jwks = '{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}'"#;
    const WHOLE: &str = "discovery = false\n[provider.metadata]\nauthorization_endpoint = \"https://id.example.com/a\"\n\
                         token_endpoint = \"https://id.example.com/t\"\n";
    assert_eq!(problems(&format!("{WHOLE}{KEYS}")), "");
    assert_eq!(problems("[provider.metadata]\nuserinfo_endpoint = \"https://elsewhere.example.com/u\""), "");
    for (written, key, what) in [
        ("discovery = false".to_owned(), "metadata.authorization_endpoint", "is missing"),
        (WHOLE.to_owned(), "metadata.jwks_uri", "is missing"),
        (format!("{WHOLE}jwks_uri = \"https://id.example.com/k\"\n{KEYS}"), "metadata.jwks", "stands beside jwks_uri"),
        (format!("{WHOLE}jwks = '{{}}'"), "metadata.jwks", "cannot be used"),
        (format!("{WHOLE}jwks_file = \"/nowhere/keys.json\""), "metadata.jwks_file", "cannot be used"),
        (format!("{WHOLE}{KEYS}\nissuer = \"https://other.example.com\""), "metadata.issuer", "is not a known key"),
    ] {
        let problems = problems(&written);
        assert!(problems.contains(key) && problems.contains(what), "{written}: {problems}");
    }
    for url in ["http://id.example.com/x", "http://127.0.0.1/x", "/x", "https://id.example.com/x#y"] {
        for discovery in ["", WHOLE] {
            let section = if discovery.is_empty() { "[provider.metadata]\n" } else { KEYS };
            let problems = problems(&format!("{discovery}{section}\nend_session_endpoint = \"{url}\""));
            assert!(problems.contains("metadata.end_session_endpoint"), "{url}: {problems}");
        }
    }
}
