//! The provider is told who the client is in the one way that both sides agree on, and by nothing that could be copied later.

use std::time::{Duration, Instant};

use http::StatusCode;
use vestibule_test_support::forge::{header_of, payload_of};
use vestibule_test_support::real::RealProvider;
use vestibule_test_support::{ClientAuth, Endpoint, Reply, Stage, TestCa, TokenFault, Value, forge, json, tempfile};

const NO_SECRET: &str = "client_secret = unset";

fn stage(lines: &str) -> Stage {
    Stage::with(&format!("[provider]\n{lines}\n"))
}

fn keys(names: &[&str]) -> String {
    let files: Vec<_> = names.iter().map(|name| format!("{:?}", RealProvider::key_file(name))).collect();
    format!("client_keys_files = [{}]", files.join(", "))
}

/// What we publish.
async fn published(stage: &Stage) -> Vec<Value> {
    let reply = stage.browser().fetch(&stage.url("/auth/jwks")).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    reply.json()["keys"].as_array().expect("a key set").clone()
}

async fn assert_signs_in(stage: &Stage, what: &str) {
    let landed = stage.sign_in(&stage.browser(), "/there?x=1").await;
    assert_eq!(landed.status, StatusCode::OK, "{what}: {}", landed.text());
    assert_eq!(landed.json()["target"], "/there?x=1", "{what}");
    assert_eq!(stage.provider.token_calls().len(), 1, "{what}: one call and no trial");
}

/// Refused, with nothing said to the application and no userinfo asked for.
fn assert_refused(stage: &Stage, reply: &Reply, status: StatusCode, token_calls: usize) {
    assert_eq!(reply.status, status, "{}", reply.text());
    assert_eq!(stage.provider.token_calls().len(), token_calls);
    assert_eq!(stage.provider.count(Endpoint::Userinfo), 0);
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn every_way_of_saying_who_we_are_is_the_one_that_is_configured() {
    let folder = tempfile::tempdir().expect("a folder");
    let token = forge::SigningKey::generate(forge::Alg::Es256).token(&json!({"sub": "system:serviceaccount:a:b"}));
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, format!("{token}\n")).expect("a file");
    let signed = TestCa::new().sign(&["client.example"]);
    let certificate_file = folder.path().join("client.crt");
    std::fs::write(&certificate_file, &signed.certificate).expect("a file");
    let bare: String = signed.certificate.lines().filter(|line| !line.starts_with('-')).collect();
    let method = |name: &str| format!("client_auth_method = \"{name}\"");
    let private_key = |key: &str| format!("{NO_SECRET}\n{}\n{}", keys(&[key]), method("private_key_jwt"));
    for (lines, demanded) in [
        (method("client_secret_basic"), ClientAuth::Basic),
        (method("client_secret_post"), ClientAuth::Post),
        (method("client_secret_jwt"), ClientAuth::SecretJwt),
        (format!("{NO_SECRET}\n{}", method("none")), ClientAuth::Public),
        (format!("{NO_SECRET}\npublic_client = true"), ClientAuth::Public),
        (private_key("rs256"), ClientAuth::PrivateKeyJwt),
        (private_key("ps256"), ClientAuth::PrivateKeyJwt),
        (private_key("es256"), ClientAuth::PrivateKeyJwt),
        (private_key("eddsa"), ClientAuth::PrivateKeyJwt),
        (
            format!("{NO_SECRET}\nclient_assertion_file = {token_file:?}\n{}", method("kubernetes_service_account")),
            ClientAuth::Assertion(token.clone()),
        ),
        (
            format!("{NO_SECRET}\nclient_certificate_file = {certificate_file:?}\n{}", method("insecure_x_cert")),
            ClientAuth::XCert(bare.clone()),
        ),
    ] {
        let stage = Stage::builder().toml(&format!("[provider]\n{lines}\n")).start();
        stage.provider.set_metadata("token_endpoint_auth_methods_supported", Value::Null);
        let stage = stage.restart();
        let client_keys = if lines.contains("client_keys_files") { published(&stage).await } else { Vec::new() };
        stage.provider.demand(|demands| {
            demands.client_keys = client_keys;
            demands.auth = Some(demanded);
        });
        assert_signs_in(&stage, &lines).await;
    }
}

#[tokio::test]
async fn what_is_not_configured_is_chosen_from_the_metadata() {
    let with_keys = format!("{NO_SECRET}\n{}", keys(&["es256"]));
    for (lines, offered, demanded) in [
        ("", json!(null), ClientAuth::Basic),
        ("", json!(["client_secret_post", "client_secret_basic"]), ClientAuth::Basic),
        ("", json!(["private_key_jwt", "client_secret_post"]), ClientAuth::Post),
        ("", json!(["client_secret_jwt"]), ClientAuth::SecretJwt),
        (&with_keys, json!(["client_secret_basic", "private_key_jwt"]), ClientAuth::PrivateKeyJwt),
        // Real providers take public clients without saying so.
        ("client_secret = unset\npublic_client = true", json!(["client_secret_basic"]), ClientAuth::Public),
    ] {
        let stage = stage(lines);
        stage.provider.set_metadata("token_endpoint_auth_methods_supported", offered.clone());
        let stage = stage.restart();
        let client_keys = if lines == with_keys { published(&stage).await } else { Vec::new() };
        stage.provider.demand(|demands| {
            demands.client_keys = client_keys;
            demands.auth = Some(demanded);
        });
        assert_signs_in(&stage, &format!("{lines} {offered}")).await;
    }
}

#[tokio::test]
async fn what_the_metadata_exclude_is_told_before_anybody_is_sent_there() {
    let private_key = format!("{NO_SECRET}\n{}", keys(&["es256"]));
    for (lines, offered) in [
        ("client_auth_method = \"client_secret_jwt\"", json!(["client_secret_basic"])),
        ("client_auth_method = \"client_secret_jwt\"\nclient_signing_alg = \"HS512\"", json!(["client_secret_jwt"])),
        ("", json!(["private_key_jwt"])),
        (&private_key, json!(["client_secret_basic"])),
    ] {
        let stage = stage(lines);
        stage.provider.set_metadata("token_endpoint_auth_methods_supported", offered);
        stage.provider.set_metadata("token_endpoint_auth_signing_alg_values_supported", json!(["ES256", "HS256"]));
        let stage = stage.restart();
        let reply = stage.browser().get(&stage.url("/")).await;
        assert_refused(&stage, &reply, StatusCode::BAD_GATEWAY, 0);
        assert_eq!(stage.provider.count(Endpoint::Authorize), 0, "{lines}");
    }
}

#[tokio::test]
async fn an_assertion_says_who_for_whom_and_for_how_long_and_nothing_twice() {
    let stage = stage(&format!("{NO_SECRET}\n{}", keys(&["es256", "ps256"])));
    stage.provider.set_metadata("token_endpoint_auth_methods_supported", json!(["private_key_jwt"]));
    stage.provider.set_metadata("token_endpoint_auth_signing_alg_values_supported", json!(["RS256", "PS256"]));
    let stage = stage.restart();
    let client_keys = published(&stage).await;
    stage.provider.demand(|demands| {
        demands.client_keys = client_keys;
        demands.auth = Some(ClientAuth::PrivateKeyJwt);
    });
    for _ in 0..2 {
        let landed = stage.sign_in(&stage.browser(), "/").await;
        assert_eq!(landed.status, StatusCode::OK, "{}", landed.text());
    }
    let assertions: Vec<String> = stage.provider.token_calls().into_iter().map(assertion_of).collect();
    let [first, second] = &assertions[..] else { panic!("two calls") };
    // The first key is for what the provider does not take.
    assert_eq!(header_of(first)["alg"], "PS256");
    let claims = payload_of(first);
    assert_eq!((&claims["iss"], &claims["sub"]), (&json!("vestibule-test"), &json!("vestibule-test")));
    assert_eq!(claims["aud"], json!(stage.provider.issuer()), "one string, the issuer");
    assert_eq!(claims["exp"].as_u64().unwrap_or_default() - claims["iat"].as_u64().unwrap_or_default(), 60);
    assert_ne!(claims["jti"], payload_of(second)["jti"]);
}

fn assertion_of(call: vestibule_test_support::TokenCall) -> String {
    let [assertion] = &call.form.iter().filter(|(name, _)| name == "client_assertion").collect::<Vec<_>>()[..] else {
        panic!("one assertion")
    };
    assertion.1.clone()
}

#[tokio::test]
async fn older_servers_may_be_told_their_token_endpoint() {
    let stage = stage(&format!(
        "{NO_SECRET}\nclient_assertion_audience = \"token_endpoint\"\nclient_auth_method = \"private_key_jwt\"\n{}",
        keys(&["es256"])
    ));
    stage.provider.set_metadata("token_endpoint_auth_methods_supported", Value::Null);
    let stage = stage.restart();
    stage.provider.demand(|demands| demands.auth = Some(ClientAuth::PrivateKeyJwt));
    let reply = stage.sign_in(&stage.browser(), "/").await;
    assert_refused(&stage, &reply, StatusCode::BAD_GATEWAY, 1);
    let assertion = assertion_of(stage.provider.token_calls().remove(0));
    assert_eq!(payload_of(&assertion)["aud"], json!(format!("{}/token", stage.provider.issuer())));
}

#[tokio::test]
async fn a_client_that_is_not_believed_asks_once() {
    let stage = stage("");
    stage.provider.faults(|faults| faults.token = Some(TokenFault::InvalidClient));
    let reply = stage.sign_in(&stage.browser(), "/").await;
    assert_refused(&stage, &reply, StatusCode::BAD_GATEWAY, 1);
}

#[tokio::test]
async fn the_platforms_token_is_read_at_each_use() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    let key = forge::SigningKey::generate(forge::Alg::Es256);
    let (old, new) = (key.token(&json!({"jti": "old"})), key.token(&json!({"jti": "new"})));
    std::fs::write(&file, &old).expect("a file");
    let stage = stage(&format!("{NO_SECRET}\nclient_assertion_file = {file:?}"));
    for token in [&old, &new] {
        std::fs::write(&file, token).expect("a file");
        stage.provider.demand(|demands| demands.auth = Some(ClientAuth::Assertion(token.clone())));
        let landed = stage.sign_in(&stage.browser(), "/").await;
        assert_eq!(landed.status, StatusCode::OK, "{}", landed.text());
    }
    stage.upstream.forget();
    for broken in ["", "no token", "a.b.c"] {
        std::fs::write(&file, broken).expect("a file");
        let reply = stage.sign_in(&stage.browser(), "/").await;
        assert_eq!(reply.status, StatusCode::INTERNAL_SERVER_ERROR, "{}", reply.text());
        assert!(!reply.text().contains("token"), "{}", reply.text());
    }
    std::fs::remove_file(&file).expect("a file");
    let reply = stage.sign_in(&stage.browser(), "/").await;
    assert_eq!(reply.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(stage.provider.token_calls().len(), 2, "nothing was asked without a token");
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn our_public_keys_are_told_to_everybody_and_no_private_one() {
    let stage = stage(&keys(&["rs256", "es256", "eddsa", "rsa-oaep", "ecdh-es"]));
    let reply = stage.browser().fetch(&stage.url("/auth/jwks")).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.header("content-type"), Some("application/jwk-set+json"));
    assert_eq!(reply.header("cache-control"), Some("public, max-age=300"));
    assert!(!reply.headers.keys().any(|name| name.as_str().starts_with("access-control")));
    assert!(reply.set_cookies().is_empty());
    let keys = published(&stage).await;
    assert!(keys.len() >= 5, "{keys:?}");
    for key in &keys {
        for private in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
            assert!(key.get(private).is_none(), "{private}: {key}");
        }
        assert!(key["kid"].as_str().is_some_and(|kid| !kid.is_empty()) && key.get("use").is_some(), "{key}");
    }
    stage.upstream.assert_untouched();

    let without = Stage::start();
    let reply = without.browser().fetch(&without.url("/auth/jwks")).await;
    assert_eq!(reply.status, StatusCode::NOT_FOUND);
    without.upstream.assert_untouched();
}

#[tokio::test]
async fn keys_are_changed_without_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("key.pem");
    std::fs::copy(RealProvider::key_file("es256"), &file).expect("a copy");
    let stage =
        stage(&format!("{NO_SECRET}\nclient_keys_files = [{file:?}]\nclient_auth_method = \"private_key_jwt\""));
    stage.provider.set_metadata("token_endpoint_auth_methods_supported", Value::Null);
    let stage = stage.restart();
    let before = published(&stage).await;
    std::fs::copy(RealProvider::key_file("eddsa"), &file).expect("a copy");
    let end = Instant::now() + Duration::from_secs(20);
    let after = loop {
        let now = published(&stage).await;
        if now != before {
            break now;
        }
        assert!(Instant::now() < end, "the keys were not reloaded");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(after[0]["kty"], "OKP");
    stage.provider.demand(|demands| {
        demands.client_keys = after;
        demands.auth = Some(ClientAuth::PrivateKeyJwt);
    });
    assert_signs_in(&stage, "after the change").await;
}
