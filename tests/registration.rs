//! Dynamic client registration, kept over restarts, renewed in time and never made twice.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::Method;
use vestibule::config::{self, Sources};
use vestibule_test_support::real::RealProvider;
use vestibule_test_support::{
    ClientAuth, Endpoint, FakeProvider, RegistrationRules, Stage, TestClock, Value, json, tempfile, until,
};

struct Place {
    folder: tempfile::TempDir,
    provider: Arc<FakeProvider>,
    clock: TestClock,
}

impl Place {
    fn new(rules: RegistrationRules) -> Self {
        let clock = TestClock::default();
        let provider = Arc::new(FakeProvider::start(clock.clone()));
        provider.let_clients_register(rules);
        Self { folder: tempfile::tempdir().unwrap(), provider, clock }
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn toml(&self, more: &str) -> String {
        format!(
            "state_dir = \"{}\"\n[provider]\nclient_id = unset\nclient_secret = unset\ndynamic_registration = true\n\
             refresh_interval = \"1s\"\n{more}\n",
            self.state().display()
        )
    }

    fn stage(&self, more: &str) -> Stage {
        Stage::builder().clock(self.clock.clone()).provider(self.provider.clone()).toml(&self.toml(more)).start()
    }

    fn calls(&self, method: Method) -> usize {
        self.provider.requests_of(Endpoint::Register).iter().filter(|request| request.method == method).count()
    }

    /// The one file of the registration.
    fn file(&self) -> PathBuf {
        let files = std::fs::read_dir(self.state()).unwrap().map(|entry| entry.unwrap().path());
        let files: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "json")).collect();
        let [file] = &files[..] else { panic!("{files:?}") };
        file.clone()
    }
}

#[tokio::test]
async fn whoever_registers_itself_signs_people_in_and_stays_registered_over_a_restart() {
    let place = Place::new(RegistrationRules { manageable: true, ..RegistrationRules::default() });
    let stage = place.stage("client_name = \"Our application\"");
    let browser = stage.signed_in_browser().await;
    let registered: Value = serde_json::from_str(&place.provider.requests_of(Endpoint::Register)[0].body).unwrap();
    assert_eq!(registered["client_name"], "Our application");
    assert_eq!(registered["redirect_uris"][0], stage.url("/auth/callback"));
    let client = place.provider.known_client();

    let stage = stage.restart();
    assert_eq!(browser.get(&stage.url("/")).await.status, 200, "the session goes on");
    stage.signed_in_browser().await;
    assert_eq!((place.provider.known_client(), place.calls(Method::POST)), (client, 1));
}

#[tokio::test]
async fn two_that_share_a_folder_register_once() {
    let place = Place::new(RegistrationRules::default());
    place.provider.slow_down(Endpoint::Register, Duration::from_millis(300));
    let builder = || {
        let builder = Stage::builder().clock(place.clock.clone()).provider(place.provider.clone());
        builder.public_port(18_999).toml(&place.toml("")).without_provider().start()
    };
    let (one, two) = (builder(), builder());
    one.wait_for_provider().await;
    two.wait_for_provider().await;
    assert_eq!(place.calls(Method::POST), 1);
    let browser = one.browser();
    browser.connect(&two.origin(), two.address());
    assert_eq!(two.sign_in(&browser, "/").await.status, 200);
}

#[tokio::test]
async fn a_secret_is_renewed_before_it_expires_and_nobody_is_signed_out() {
    for manageable in [true, false] {
        let place = Place::new(RegistrationRules { secret_life: 600, manageable, ..RegistrationRules::default() });
        let stage = place.stage("");
        let browser = stage.signed_in_browser().await;
        let before = place.provider.known_client();
        place.clock.advance(Duration::from_secs(599));
        until("the renewal", async || place.provider.count(Endpoint::Register) == 2).await;
        assert_eq!(place.provider.known_client() == before, manageable, "changed where it can be, else made anew");
        // A refresh token is the client's that it was given to: one that was made anew sends it to nobody.
        assert_eq!(browser.fetch(&stage.url("/")).await.status, 200, "the session goes on");
        assert_eq!(browser.follow(&stage.url("/"), 10).await.status, 200, "and is renewed by the browser");
        until("the file", async || {
            std::fs::read_to_string(place.file()).unwrap().contains(&place.provider.known_client())
        })
        .await;
        // What the provider knows and what is used are the same again within a moment.
        let end = Instant::now() + Duration::from_secs(20);
        while stage.sign_in(&stage.browser(), "/").await.status != 200 {
            assert!(Instant::now() < end, "the renewed registration is not used");
        }
    }
}

#[tokio::test]
async fn another_redirect_uri_changes_the_registration_where_it_can_be_changed() {
    for manageable in [true, false] {
        let place = Place::new(RegistrationRules { manageable, ..RegistrationRules::default() });
        place.stage("").signed_in_browser().await;
        let client = place.provider.known_client();
        // Another port, another redirect URI.
        place.stage("").signed_in_browser().await;
        let wanted = if manageable { (1, 1) } else { (2, 0) };
        assert_eq!((place.calls(Method::POST), place.calls(Method::PUT)), wanted);
        assert_eq!(place.provider.known_client() == client, manageable);
    }
}

#[tokio::test]
async fn an_initial_access_token_is_shown_and_without_it_nobody_can_sign_in() {
    let token = "initial-access-token-of-the-tests";
    let place = Place::new(RegistrationRules { initial_token: Some(token.to_owned()), ..RegistrationRules::default() });
    let stage = Stage::builder().clock(place.clock.clone()).provider(place.provider.clone());
    let stage = stage.toml(&place.toml("")).without_provider().start();
    stage.wait_for_readiness("the refusal", |reply| reply.text().contains("registration")).await;
    let reply = stage.sign_in(&stage.browser(), "/").await;
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert!(stage.upstream.requests().is_empty() && place.provider.count(Endpoint::Authorize) == 0);
    drop(stage);

    let file = place.folder.path().join("token");
    std::fs::write(&file, format!("{token}\n")).unwrap();
    place.stage(&format!("registration_token_file = \"{}\"", file.display())).signed_in_browser().await;
}

#[tokio::test]
async fn a_provider_that_refuses_or_offers_none_is_asked_again_slowly() {
    let place =
        Place::new(RegistrationRules { refusal: Some("invalid_client_metadata"), ..RegistrationRules::default() });
    let stage = Stage::builder().clock(place.clock.clone()).provider(place.provider.clone());
    let stage = stage.toml(&place.toml("")).without_provider().start();
    stage.wait_for_readiness("the refusal", |reply| reply.text().contains("invalid_client_metadata")).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(place.provider.count(Endpoint::Register) <= 2, "{}", place.provider.count(Endpoint::Register));
    drop(stage);
    let place = Place::new(RegistrationRules::default());
    place.provider.set_metadata("registration_endpoint", Value::Null);
    let stage = Stage::builder().clock(place.clock.clone()).provider(place.provider.clone());
    let stage = stage.toml(&place.toml("")).without_provider().start();
    stage.wait_for_readiness("the refusal", |reply| reply.text().contains("offers no dynamic")).await;
    assert_eq!(place.provider.count(Endpoint::Register), 0);
}

#[tokio::test]
async fn whoever_loads_pages_while_registrations_fail_makes_no_more_of_them() {
    let place = Place::new(RegistrationRules { is_down: true, ..RegistrationRules::default() });
    let stage = Stage::builder().clock(place.clock.clone()).provider(place.provider.clone());
    let stage = stage.toml(&place.toml("")).without_provider().start();
    stage.wait_for_readiness("the failure", |reply| reply.text().contains("registration")).await;
    // Two hundred pages within ten seconds, of which as many pass for real as a try could take.
    for _ in 0..10 {
        let browser = stage.browser();
        let address = stage.url("/");
        let pages = (0..20).map(|_| browser.get(&address));
        for reply in join_all(pages).await {
            assert_eq!(reply.status, 503, "{}", reply.text());
        }
        place.clock.advance(Duration::from_secs(1));
    }
    let made = place.calls(Method::POST);
    assert!((2..=6).contains(&made), "{made} registrations");
    assert!(stage.upstream.requests().is_empty() && place.provider.count(Endpoint::Authorize) == 0);

    place.provider.let_clients_register(RegistrationRules::default());
    place.clock.advance(Duration::from_secs(60));
    assert_eq!(stage.sign_in(&stage.browser(), "/").await.status, 200, "whoever comes then need not come again");
    assert_eq!(place.calls(Method::POST), made + 1);
}

#[tokio::test]
async fn another_method_than_was_asked_for_is_used_where_it_can_be_and_else_told_once() {
    let rules = |method| RegistrationRules { auth_method: Some(method), ..RegistrationRules::default() };
    let place = Place::new(rules("client_secret_post"));
    place.provider.demand(|demands| demands.auth = Some(ClientAuth::Post));
    let stage = place.stage("");
    stage.signed_in_browser().await;
    stage.restart().signed_in_browser().await;
    assert_eq!(place.calls(Method::POST), 1);

    let place = Place::new(rules("private_key_jwt"));
    let stage = Stage::builder().clock(place.clock.clone()).provider(place.provider.clone());
    let stage = stage.toml(&place.toml("")).without_provider().start();
    stage.wait_for_readiness("the refusal", |reply| reply.text().contains("token_endpoint_auth_method")).await;
    assert_eq!(stage.sign_in(&stage.browser(), "/").await.status, 503);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(place.calls(Method::POST), 1, "no client is made again and again");
    assert!(stage.upstream.requests().is_empty() && place.provider.count(Endpoint::Authorize) == 0);
}

#[tokio::test]
async fn a_key_that_changes_is_registered() {
    let place = Place::new(RegistrationRules { manageable: true, ..RegistrationRules::default() });
    place
        .provider
        .set_metadata("token_endpoint_auth_methods_supported", json!(["client_secret_basic", "private_key_jwt"]));
    let file = place.folder.path().join("key.pem");
    let copy = |name: &str| std::fs::copy(RealProvider::key_file(name), &file).unwrap();
    copy("es256");
    let stage = place.stage(&format!("client_keys_files = [{file:?}]"));
    let registered = || {
        let requests = place.provider.requests_of(Endpoint::Register);
        let last: Value = serde_json::from_str(&requests.last().unwrap().body).unwrap();
        last["jwks"]["keys"].as_array().cloned().unwrap_or_default()
    };
    let keys = registered();
    assert_eq!((place.calls(Method::POST), keys[0]["kty"].as_str()), (1, Some("EC")));
    place.provider.demand(|demands| {
        demands.auth = Some(ClientAuth::PrivateKeyJwt);
        demands.client_keys = keys;
    });
    stage.signed_in_browser().await;
    copy("eddsa");
    until("the change", async || place.calls(Method::PUT) == 1).await;
    assert_eq!((place.calls(Method::POST), registered()[0]["kty"].as_str()), (1, Some("OKP")));
}

#[tokio::test]
async fn a_file_that_holds_no_registration_is_neither_used_nor_lost() {
    let place = Place::new(RegistrationRules::default());
    drop(place.stage(""));
    let file = place.file();
    for garbage in ["{", "{\"issuer\": \"https://other.example.com\"}"] {
        std::fs::write(&file, garbage).unwrap();
        let stage = Stage::builder().clock(place.clock.clone()).provider(place.provider.clone());
        let stage = stage.toml(&place.toml("")).without_provider().start();
        stage.wait_for_readiness("the problem", |reply| reply.text().contains("holds no registration")).await;
        assert_eq!(stage.sign_in(&stage.browser(), "/").await.status, 503);
        assert!(stage.upstream.requests().is_empty());
        assert_eq!((std::fs::read_to_string(&file).unwrap().as_str(), place.calls(Method::POST)), (garbage, 1));
    }
    std::fs::rename(&file, file.with_extension("aside")).unwrap();
    place.stage("").signed_in_browser().await;
    assert_eq!(place.calls(Method::POST), 2);
}

#[test]
fn what_contradicts_a_registration_is_told() {
    let secret = config::generate_secret().unwrap();
    let problems = |top: &str, provider: &str| {
        let text = format!(
            "{top}\n[provider]\nissuer = \"https://id.example.com\"\nredirect_uri = \"https://app.example.com/cb\"\n{provider}\n\
             [session]\nsecret = \"{secret}\"\n[upstream]\nurl = \"http://127.0.0.1:3000\"\n"
        );
        config::load(&Sources::toml(&text)).err().map(|problems| format!("{problems:?}")).unwrap_or_default()
    };
    let state = "state_dir = \"/var/lib/vestibule\"";
    assert_eq!(problems(state, "dynamic_registration = true"), "");
    assert_eq!(problems(state, "dynamic_registration = true\npublic_client = true"), "");
    for (top, provider, key) in [
        ("", "dynamic_registration = true", "state_dir"),
        (state, "dynamic_registration = true\nclient_id = \"app\"", "client_id"),
        (state, "dynamic_registration = true\nclient_secret = \"what the provider shows\"", "client_secret"),
        (state, "dynamic_registration = true\nregistration_token_file = \"/nowhere\"", "registration_token_file"),
        ("", "client_id = \"app\"\npublic_client = true\nclient_name = \"x\"", "client_name"),
        (state, "dynamic_registration = true\nclient_auth_method = \"tls_client_auth\"", "client_auth_method"),
        (
            state,
            "dynamic_registration = true\nprofile = \"fapi2\"\nclient_certificate_file = \"/x\"",
            "client_keys_files",
        ),
    ] {
        let problems = problems(top, provider);
        assert!(problems.contains(key), "{provider}: {problems}");
    }
    assert!(!Path::new("/var/lib/vestibule/client").exists());
}
