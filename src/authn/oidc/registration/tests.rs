use serde_json::json;

use super::*;
use crate::authn::oidc::provider::test_settings;
use crate::secret::SecretString;

const ISSUER: &str = "https://id.example";

fn registration() -> RegistrationSettings {
    RegistrationSettings {
        state_dir: PathBuf::new(),
        token_file: None,
        client_name: None,
        is_public: false,
        initiate_login_uri: Some("https://app.example/auth/login".parse().unwrap()),
        jwks_uri: Some("https://app.example/auth/jwks".parse().unwrap()),
        backchannel_logout_uri: Some("https://app.example/auth/backchannel-logout".parse().unwrap()),
        frontchannel_logout_uri: None,
        further_grants: Vec::new(),
    }
}

fn provider(methods: &[&str]) -> Metadata {
    let document = json!({
        "issuer": ISSUER,
        "authorization_endpoint": "https://id.example/authorize",
        "token_endpoint": "https://id.example/token",
        "jwks_uri": "https://id.example/jwks",
        "registration_endpoint": "https://id.example/register",
        "token_endpoint_auth_methods_supported": methods,
    });
    Metadata::parse(document.to_string().as_bytes(), &test_settings(ISSUER)).unwrap()
}

fn read(status: u16, body: &Value) -> Result<Kept, RegistrationError> {
    let settings = test_settings(ISSUER);
    let wanted = wanted::metadata(&registration(), &settings, &provider(&[]), None);
    let answer = http::Response::builder().status(status).header("content-type", "application/json");
    let answer = answer.body(body.to_string().into()).unwrap();
    message::read_answer(&answer, wanted, &settings, UnixTime(1000))
}

#[test]
fn what_is_registered_is_what_the_settings_imply() {
    let mut settings = test_settings(ISSUER);
    let of = |registration: &RegistrationSettings, settings: &Settings, methods: &[&str]| {
        Value::Object(wanted::metadata(registration, settings, &provider(methods), None))
    };
    assert_eq!(
        of(&registration(), &settings, &[]),
        json!({
            "application_type": "web",
            "redirect_uris": ["https://app.example/auth/callback"],
            "response_types": ["code"],
            "grant_types": ["authorization_code"],
            "token_endpoint_auth_method": "client_secret_basic",
            "initiate_login_uri": "https://app.example/auth/login",
        })
    );
    settings.response_type = crate::authn::oidc::response::ResponseType::CodeIdToken;
    settings.scopes.push("offline_access".to_owned());
    settings.signing_algs = vec![crate::authn::oidc::jose::Algorithm::ES256];
    settings.post_logout_redirect_uri = Some("https://app.example/bye".parse().unwrap());
    let named = RegistrationSettings { client_name: Some("Our app".to_owned()), ..registration() };
    let whole = of(&named, &settings, &["client_secret_post"]);
    assert_eq!(whole["client_name"], "Our app");
    assert_eq!(whole["post_logout_redirect_uris"], json!(["https://app.example/bye"]));
    assert_eq!(whole["response_types"], json!(["code id_token"]));
    assert_eq!(whole["grant_types"], json!(["authorization_code", "implicit", "refresh_token"]));
    assert_eq!(whole["token_endpoint_auth_method"], "client_secret_post");
    assert_eq!(whole["id_token_signed_response_alg"], "ES256");
    let further = RegistrationSettings { further_grants: vec!["refresh_token", "password"], ..registration() };
    let grants = json!(["authorization_code", "implicit", "refresh_token", "password"]);
    assert_eq!(of(&further, &settings, &[])["grant_types"], grants, "each once");
    let public = RegistrationSettings { is_public: true, ..registration() };
    assert_eq!(of(&public, &settings, &[])["token_endpoint_auth_method"], "none");
}

#[test]
fn a_client_with_keys_registers_them_and_how_it_uses_them() {
    let mut settings = test_settings(ISSUER);
    settings.security.profile = crate::authn::oidc::security::Profile::Fapi2;
    settings.security.pushed_requests = Some(true);
    settings.security.dpop = Some(crate::authn::oidc::security::DpopSource::Process);
    let mut provider = provider(&["private_key_jwt"]);
    let keys = keys(&["es256"]);
    let wanted = wanted::metadata(&registration(), &settings, &provider, Some(&keys));
    assert_eq!(wanted["token_endpoint_auth_method"], "private_key_jwt");
    assert_eq!(wanted["token_endpoint_auth_signing_alg"], "ES256");
    assert_eq!(wanted["jwks"], keys.public_jwks());
    assert_eq!(wanted["dpop_bound_access_tokens"], true);
    assert_eq!(wanted["require_pushed_authorization_requests"], true);
    assert!(!wanted.contains_key("require_signed_request_object") && !wanted.contains_key("backchannel_logout_uri"));
    provider.capabilities.backchannel_logout = true;
    let wanted = wanted::metadata(&registration(), &settings, &provider, None);
    assert_eq!(wanted["backchannel_logout_uri"], "https://app.example/auth/backchannel-logout");
    assert_eq!(wanted["backchannel_logout_session_required"], true);
    // A secret that came along is not used, so it cannot expire either.
    let body = json!({ "client_id": "c", "client_secret": "s", "client_secret_expires_at": 5000 });
    let answer = http::Response::builder().status(201).header("content-type", "application/json");
    let answer = answer.body(body.to_string().into()).unwrap();
    let kept = message::read_answer(&answer, wanted, &settings, UnixTime(1000)).unwrap();
    assert!(kept.credentials.client_secret.is_none() && kept.expires_at.is_none());
}

fn keys(names: &[&str]) -> ClientKeys {
    let file = |name: &&str| PathBuf::from(format!("{}/tests/real/keys/test-{name}.pem", env!("CARGO_MANIFEST_DIR")));
    ClientKeys::read(&names.iter().map(file).collect::<Vec<_>>()).unwrap()
}

#[test]
fn keys_say_who_we_are_where_the_provider_takes_that() {
    use crate::authn::oidc::jose::Algorithm;
    let mut settings = test_settings(ISSUER);
    let keys = keys(&["es256"]);
    let method = |offered: &[&str], settings: &Settings| {
        let wanted = wanted::metadata(&registration(), settings, &provider(offered), Some(&keys));
        wanted["token_endpoint_auth_method"].as_str().unwrap().to_owned()
    };
    assert_eq!(method(&["client_secret_basic", "private_key_jwt"], &settings), "private_key_jwt");
    assert_eq!(method(&["client_secret_post"], &settings), "client_secret_post");
    assert_eq!(method(&[], &settings), "client_secret_basic");
    // A key that does not sign so.
    settings.security.signing_alg = Some(Algorithm::RS256);
    assert_eq!(method(&["client_secret_basic", "private_key_jwt"], &settings), "client_secret_basic");
}

#[test]
fn of_the_algorithms_the_first_that_both_have_is_registered() {
    use crate::authn::oidc::jose::Algorithm;
    use crate::authn::oidc::response::ResponseMode;
    use crate::authn::oidc::security::RequestObject;
    let mut settings = test_settings(ISSUER);
    let mut provider = provider(&["private_key_jwt"]);
    settings.signing_algs = vec![Algorithm::EdDSA, Algorithm::PS256, Algorithm::ES256];
    provider.id_token_signing_algs = vec![Algorithm::RS256, Algorithm::ES256, Algorithm::PS256];
    settings.decryption.required = true;
    settings.response_mode = ResponseMode::QueryJwt;
    settings.security.signed_requests = Some(RequestObject::Value);
    let names = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let capabilities = &mut provider.capabilities;
    capabilities.id_token_encryption_algs = names(&["RSA-OAEP", "ECDH-ES+A256KW", "ECDH-ES"]);
    capabilities.id_token_encryption_encs = names(&["A128CBC-HS256", "A128GCM"]);
    capabilities.authorization_signing_algs = names(&["ES256", "RS256"]);
    capabilities.request_signing_algs = names(&["RS256", "ES256"]);
    let keys = keys(&["es256", "ecdh-es"]);
    let wanted = wanted::metadata(&registration(), &settings, &provider, Some(&keys));
    for (name, value) in [
        ("id_token_signed_response_alg", json!("PS256")),
        ("id_token_encrypted_response_alg", json!("ECDH-ES")),
        ("id_token_encrypted_response_enc", json!("A128CBC-HS256")),
        ("authorization_signed_response_alg", json!("ES256")),
        ("request_object_signing_alg", json!("ES256")),
        ("require_signed_request_object", json!(true)),
        ("token_endpoint_auth_signing_alg", json!("ES256")),
        ("initiate_login_uri", json!("https://app.example/auth/login")),
        ("jwks", keys.public_jwks()),
    ] {
        assert_eq!(wanted.get(name), Some(&value), "{name}");
    }
    assert!(!wanted.contains_key("request_uris") && !wanted.contains_key("jwks_uri"));

    // A provider that fetches our requests can fetch our keys; it is never told both.
    settings.security.signed_requests = Some(RequestObject::Reference);
    settings.request_objects_at = Some("https://app.example/auth/request".parse().unwrap());
    let wanted = wanted::metadata(&registration(), &settings, &provider, Some(&keys));
    assert_eq!(wanted["request_uris"], json!(["https://app.example/auth/request/*"]));
    assert_eq!(wanted["jwks_uri"], "https://app.example/auth/jwks");
    assert!(!wanted.contains_key("jwks"));
}

#[test]
fn what_the_provider_registers_instead_is_taken_where_we_can_do_it() {
    let body = |method: &str| json!({ "client_id": "c", "client_secret": "s", "token_endpoint_auth_method": method, "grant_types": ["x"] });
    let used = |method: &str| {
        let kept = read(201, &body(method)).unwrap();
        let settings = kept.settings(&test_settings(ISSUER));
        (settings.security.method.unwrap().name(), settings.credentials.client_secret.is_some())
    };
    assert_eq!(used("client_secret_basic"), ("client_secret_basic", true));
    assert_eq!(used("client_secret_post"), ("client_secret_post", true));
    assert_eq!(used("client_secret_jwt"), ("client_secret_jwt", true));
    for cannot in ["private_key_jwt", "tls_client_auth", "none", "guess"] {
        let error = read(201, &body(cannot)).unwrap_err();
        assert!(matches!(error, RegistrationError::Answer { field: "token_endpoint_auth_method" }), "{cannot}");
        assert!(error.is_refusal() && error.fix().contains("client_auth_method"), "{cannot}");
    }
    // Where the settings choose, the provider does not.
    let mut settings = test_settings(ISSUER);
    settings.security.method = Some(ClientAuthMethod::ClientSecretBasic);
    let wanted = wanted::metadata(&registration(), &settings, &provider(&[]), None);
    let answer = http::Response::builder().status(201).body(body("client_secret_post").to_string().into()).unwrap();
    assert!(message::read_answer(&answer, wanted, &settings, UnixTime(1000)).is_err());
}

#[test]
fn a_change_sends_back_what_the_provider_gave() {
    let mut kept = read(
        201,
        &json!({
            "client_id": "c", "client_secret": "s", "client_secret_expires_at": 0, "client_id_issued_at": 1,
            "registration_access_token": "t", "registration_client_uri": "https://id.example/register/c",
            "redirect_uris": ["https://app.example/auth/callback"], "application_type": "web",
            "token_endpoint_auth_method": "client_secret_basic", "subject_type": "pairwise", "software_id": null,
            "x_provider": { "tier": 2 },
        }),
    )
    .unwrap();
    kept.metadata.insert("client_name".to_owned(), json!("no longer wanted"));
    kept.registered.insert("client_name".to_owned(), json!("no longer wanted"));
    let wanted = Map::from_iter([("redirect_uris".to_owned(), json!(["https://app.example/other"]))]);
    let request = message::update(&kept, &wanted, &test_settings(ISSUER)).unwrap().unwrap();
    let sent: Value = serde_json::from_slice(request.body()).unwrap();
    assert_eq!(
        sent,
        json!({
            "subject_type": "pairwise", "x_provider": { "tier": 2 },
            "redirect_uris": ["https://app.example/other"], "client_id": "c", "client_secret": "s",
        })
    );
}

#[test]
fn an_answer_is_read_strictly() {
    let good = json!({
        "client_id": "c", "client_secret": "s", "client_secret_expires_at": 5000,
        "registration_access_token": "t", "registration_client_uri": "https://id.example/register/c",
        "redirect_uris": ["https://app.example/auth/callback"], "token_endpoint_auth_method": "client_secret_basic",
    });
    let kept = read(201, &good).unwrap();
    assert_eq!(kept.credentials.client_id, "c");
    assert_eq!(kept.credentials.client_secret.unwrap().expose_secret(), "s");
    assert_eq!((kept.expires_at, kept.registered_at), (Some(UnixTime(5000)), UnixTime(1000)));
    let forever = read(200, &json!({ "client_id": "c", "client_secret": "s", "client_secret_expires_at": 0 })).unwrap();
    assert_eq!(forever.expires_at, None);
    for (field, value) in [
        ("client_id", json!("")),
        ("client_id", Value::Null),
        ("client_id", json!(7)),
        ("client_secret", json!("a\nb")),
        ("client_secret_expires_at", json!("soon")),
        ("client_secret_expires_at", json!(-1)),
        ("registration_access_token", json!([])),
        ("registration_client_uri", json!("http://elsewhere.example/")),
        ("registration_client_uri", json!("nowhere")),
        ("redirect_uris", json!(["https://other.example/"])),
        ("token_endpoint_auth_method", json!("private_key_jwt")),
    ] {
        let mut body = good.clone();
        body[field] = value.clone();
        let error = read(201, &body).unwrap_err();
        assert!(
            matches!(error, RegistrationError::Answer { field: told } if told == field),
            "{field} {value}: {error}"
        );
    }
    let refused = json!({ "error": "invalid_redirect_uri", "error_description": "no\nhttp" });
    let error = read(400, &refused).unwrap_err();
    assert!(
        matches!(&error, RegistrationError::Refused { error, description } if error == "invalid_redirect_uri" && description == "nohttp")
    );
    for (status, body) in [(400, json!({})), (403, refused), (500, json!({})), (302, good)] {
        assert!(matches!(read(status, &body), Err(RegistrationError::Status(told)) if told == status));
    }
}

fn kept(expires_at: Option<u64>) -> Kept {
    Kept {
        credentials: Credentials { client_id: "c".to_owned(), client_secret: Some(SecretString::new("s".to_owned())) },
        expires_at: expires_at.map(UnixTime),
        registered_at: UnixTime(1000),
        token: None,
        client_uri: None,
        registered: Map::new(),
        metadata: Map::new(),
    }
}

#[test]
fn a_secret_is_renewed_while_it_still_works() {
    let minute = Duration::from_secs(60);
    assert!(!kept(None).is_due(UnixTime(u64::MAX), minute));
    let long = kept(Some(101_000));
    assert!(!long.is_due(UnixTime(90_999), minute) && long.is_due(UnixTime(91_000), minute), "the last tenth");
    let short = kept(Some(1_400));
    assert!(!short.is_due(UnixTime(1_219), minute) && short.is_due(UnixTime(1_220), minute), "three looks");
    let shortest = kept(Some(1_100));
    assert!(!shortest.is_due(UnixTime(1_049), minute) && shortest.is_due(UnixTime(1_050), minute), "half its life");
    assert!(shortest.is_alive(UnixTime(1_099)) && !shortest.is_alive(UnixTime(1_100)));
}

#[test]
fn a_registration_is_kept_whole_and_for_us_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let settings = test_settings(ISSUER);
    let file = StateFile::new(folder.path(), &settings.id, ISSUER);
    assert!(file.read(&settings).unwrap().is_none());
    file.write(&kept(Some(9))).unwrap();
    let read = file.read(&settings).unwrap().unwrap();
    assert_eq!((read.credentials.client_id.as_str(), read.expires_at), ("c", Some(UnixTime(9))));
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [path] = &names[..] else { panic!("{names:?}") };
    assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(StateFile::new(folder.path(), &settings.id, "https://other.example").read(&settings).unwrap().is_none());
    for garbage in ["", "{", "{}", "null"] {
        std::fs::write(path, garbage).unwrap();
        assert!(matches!(file.read(&settings), Err(RegistrationError::Garbage(_))), "{garbage}");
        assert_eq!(std::fs::read_to_string(path).unwrap(), garbage, "nothing is lost");
    }
}
