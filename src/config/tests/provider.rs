//! The provider and what we are to it.

use super::*;

#[test]
fn a_client_without_a_secret_says_so() {
    let text = with(&[]).replace("client_secret = \"s3cr3t\"\n", "");
    let problems = all(&read(&Sources::toml(&text)).unwrap_err());
    assert!(problems.contains("provider.client_secret is missing") && problems.contains("public_client"), "{problems}");
    let text = with(&[]).replace("client_secret = \"s3cr3t\"\n", "public_client = true\n");
    assert!(read(&Sources::toml(&text)).unwrap().settings.providers[0].credentials.client_secret.is_none());
    assert!(errors(&[("provider", "public_client = true")]).contains("contradicts the client secret"));
}

#[test]
fn provider_urls_are_checked() {
    for (line, why) in [
        ("issuer = \"https://id.example.com/?x=1\"", "has a query or a fragment"),
        ("issuer = \"http://id.example.com\"", "works towards localhost only"),
        (
            "issuer = \"https://id.example.com/.well-known/openid-configuration\"",
            "is the address of the discovery document",
        ),
        ("redirect_uri = \"/auth/callback\"", "not an absolute http or https URL"),
        ("redirect_uri = \"https://app.example.com\"", "has no path of its own"),
        ("redirect_uri = \"https://app.example.com/cb#x\"", "has a query or a fragment"),
        ("redirect_uri = \"https://app.example.com/a%2Fb\"", "read in more than one way"),
        ("redirect_uri = \"https://app.example.com/a//b\"", "read in more than one way"),
        ("redirect_uri = \"https://app.example.com/auth/login\"", "which is that of endpoints.login too"),
        ("redirect_uri = \"http://app.example.com/auth/callback\"", "works towards localhost only"),
        ("backchannel_url = \"http://keycloak:8080\"", "works towards localhost only"),
        ("backchannel_url = \"https://keycloak/realms\"", "is more than scheme, host and port"),
        ("post_logout_redirect_uri = \"http://app.example.com/bye\"", "works towards localhost only"),
        ("client_id = \" \"", "is no client id"),
        ("scopes = [\"open\\\"id\"]", "no scope"),
        ("signing_algs = [\"none\"]", "not one of \"RS256\""),
        ("signing_algs = [\"HS256\", \"RS256\"]", "beside other algorithms"),
        ("signing_algs = [\"HS384\", \"HS512\"]", "names HS384 beside other algorithms"),
        ("signing_algs = []", "is an empty list"),
        ("authorization_params = { state = \"x\" }", "only Vestibule sets"),
        ("logout_params = { state = \"x\" }", "only Vestibule sets"),
        ("logout_hint_claim = \"email\"\nlogout_params = { logout_hint = \"x\" }", "contradicts logout_hint_claim"),
        ("logout_params = { post_logout_redirect_uri = \"x\" }", "has a key of its own"),
        ("authorization_params = { scope = \"x\" }", "has a key of its own"),
        ("authorization_params = { prompt = \"login\" }", "has a key of its own"),
        ("authorization_params = { resource = \"https://api.example.com\" }", "has a key of its own"),
        ("acr_values = [\"gold silver\"]", "names \"gold silver\""),
        ("required_acr = [\"\"]", "names \"\""),
        ("ui_locales = [\"d e\"]", "names \"d e\""),
        ("max_age = \"1500ms\"", "whole seconds"),
        ("max_token_age = \"10ms\"", "shorter than a second"),
        ("clock_skew = \"11m\"", "more than ten minutes"),
        ("login_hint = \"a\\nb\"", "control characters"),
        ("prompt = \"login none\"", "is none"),
        ("prompt = \"login  consent\"", "one space between"),
        ("claims = \"{\"", "reads in one way"),
        ("claims = \"{}\"", "has neither"),
        ("resource = \"/api\"", "no absolute URI"),
        ("authorization_details = \"{}\"", "no JSON list"),
        ("issuer_template = \"https://id.example.com/{tenantid}\"", "is missing beside issuer_template"),
        ("allowed_tenants = [\"t\"]", "means nothing without"),
        ("issuer_template = \"https://id.example.com/x\"\nallowed_tenants = [\"t\"]", "one {tenantid} in its path"),
        (
            "issuer_template = \"https://{tenantid}.example.com/\"\nallowed_tenants = [\"t\"]",
            "one {tenantid} in its path",
        ),
        (
            "issuer_template = \"https://evil.example/{tenantid}\"\nallowed_tenants = [\"t\"]",
            "another place than issuer",
        ),
        ("issuer_template = \"https://id.example.com/{tenantid}\"\nallowed_tenants = []", "is an empty list"),
        ("issuer_template = \"https://id.example.com/{tenantid}\"\nallowed_tenants = [\"*\", \"t\"]", "no tenant"),
        ("client_keys_files = [\"/nonexistent.pem\"]", "cannot be read"),
        ("client_keys_files = [\"Cargo.toml\"]", "names Cargo.toml"),
        ("decryption_algs = [\"RSA1_5\"]", "names \"RSA1_5\""),
        ("decryption_algs = []", "is an empty list"),
        ("require_encrypted_id_token = true", "nothing here could open"),
        ("timeout = \"0s\"", "is zero"),
        ("ca_file = \"/nonexistent.pem\"", "cannot be read"),
        ("ca_file = \"Cargo.toml\"", "holds no PEM certificate"),
        ("max_response = \"1B\"", "is out of range"),
    ] {
        let text = errors(&[("provider", line)]);
        assert!(text.contains(why), "{line}: {text}");
        assert_eq!(text.matches("error: ").count(), 1, "{line}: {text}");
    }
}

#[test]
fn http_works_towards_loopback_or_when_allowed() {
    let local = "issuer = \"http://127.0.0.1:8180\"\nredirect_uri = \"http://localhost:8080/auth/callback\"";
    let text = warnings(&[("provider", local)]);
    assert!(text.contains("provider.redirect_uri is http, so our cookies are not Secure"), "{text}");
    assert_eq!(text.matches("warning: ").count(), 1, "{text}");
    assert_eq!(settings(&[("provider", local)]).message.cookie_bases, ["vestibule"]);
    let allowed = "issuer = \"http://id.internal\"\nallow_insecure_http = true";
    let text = warnings(&[("provider", allowed)]);
    assert!(text.contains("provider.issuer is http beyond loopback"), "{text}");
    assert!(settings(&[("provider", allowed)]).providers[0].http.allow_insecure_http);
}

#[test]
fn the_redirect_uri_is_told_as_it_will_be_sent() {
    let text = warnings(&[("provider", "redirect_uri = \"https://APP.example.com:443/auth/callback\"")]);
    assert!(text.contains("is sent to the provider as \"https://app.example.com/auth/callback\""), "{text}");
}

#[test]
fn scopes_always_hold_openid() {
    assert_eq!(
        settings(&[("provider", "scopes = [\"email groups\"]")]).providers[0].scopes,
        ["openid", "email", "groups"]
    );
    let algs = settings(&[("provider", "signing_algs = [\"HS256\"]")]).providers[0].signing_algs.clone();
    assert_eq!(algs, [Algorithm::HS256]);
}

#[test]
fn how_the_client_proves_who_it_is_must_not_contradict_itself() {
    let folder = tempfile::tempdir().unwrap();
    let key = |name: &str| format!("{:?}", format!("{}/tests/real/keys/test-{name}.pem", env!("CARGO_MANIFEST_DIR")));
    let token = folder.path().join("token");
    std::fs::write(&token, "a.b.c").unwrap();
    let (keys, token) = (format!("client_keys_files = [{}]", key("es256")), format!("{token:?}"));
    for (lines, told) in [
        ("client_auth_method = \"none\"".to_owned(), "contradicts the client secret"),
        (format!("{keys}\nclient_auth_method = \"private_key_jwt\""), "contradicts the client secret"),
        ("client_auth_method = \"private_key_jwt\"".to_owned(), "client_keys_files is missing"),
        (
            format!("{keys}\nrequest_object = \"value\"\nclient_signing_alg = \"RS256\""),
            "holds no key that signs with one of RS256",
        ),
        (
            "client_auth_method = \"client_secret_jwt\"\nclient_signing_alg = \"RS256\"".to_owned(),
            "no algorithm for a secret",
        ),
        ("client_auth_method = \"tls_client_auth\"".to_owned(), "client_certificate_file is missing"),
        ("client_auth_method = \"kubernetes_service_account\"".to_owned(), "client_assertion_file is missing"),
        (format!("client_assertion_file = {token}"), "stands beside another proof"),
        (format!("client_assertion_file = {token}\nclient_auth_method = \"client_secret_post\""), "is not used by"),
        (format!("client_certificate_file = {}", key("es256")), "a certificate without its key"),
        (format!("client_certificate_key_file = {}", key("es256")), "a key without its certificate"),
        (
            format!("client_certificate_file = {0}\nclient_certificate_key_file = {0}", key("es256")),
            "holds no PEM certificate",
        ),
        ("client_keys_files = [\"/no/such/key\"]".to_owned(), "cannot be read"),
        ("client_keys_files = []".to_owned(), "an empty list"),
        ("request_object = \"value\"".to_owned(), "there are no keys"),
        (
            format!("{keys}\nrequest_object = \"reference\"\npushed_authorization_requests = true"),
            "pushed requests hold no reference",
        ),
        (format!("{keys}\nrequest_object = \"reference\"\n[endpoints]\nrequest = false"), "provider default fetches"),
        (format!("dpop_key_file = {}", key("es256")), "DPoP, which is off"),
        ("client_auth_method = \"guess\"".to_owned(), "client_auth_method"),
    ] {
        let problems = errors(&[("provider", &lines)]);
        assert!(problems.contains(told), "{lines}: {problems}");
    }
}

#[test]
fn the_high_security_profile_refuses_what_contradicts_it() {
    let key = format!("{}/tests/real/keys/test-es256.pem", env!("CARGO_MANIFEST_DIR"));
    let good = format!("profile = \"fapi2\"\nclient_keys_files = [{key:?}]\n");
    let text = |lines: &str| with(&[("provider", lines)]).replace("client_secret = \"s3cr3t\"\n", "");
    let settings = read(&Sources::toml(&text(&good))).unwrap_or_else(|problems| panic!("{}", all(&problems))).settings;
    let provider = &settings.providers[0];
    assert_eq!(provider.proof(), "private_key_jwt, pushed requests, DPoP, FAPI 2.0");
    let problems = errors(&[("provider", &good)]);
    assert!(problems.contains("provider.client_secret") && problems.contains("§5.3.3"), "{problems}");
    for (line, named) in [
        ("dpop = false", "provider.dpop"),
        ("pushed_authorization_requests = false", "provider.pushed_authorization_requests"),
        ("response_type = \"code id_token\"", "provider.response_type"),
        ("signing_algs = [\"RS256\"]", "provider.signing_algs"),
        ("client_assertion_audience = \"token_endpoint\"", "provider.client_assertion_audience"),
        ("client_signing_alg = \"RS256\"", "provider.client_signing_alg"),
        ("allow_insecure_http = true", "provider.allow_insecure_http"),
        ("client_auth_method = \"none\"", "provider.client_auth_method"),
        ("client_auth_method = \"client_secret_basic\"", "provider.client_auth_method"),
        ("client_auth_method = \"client_secret_jwt\"", "provider.client_auth_method"),
        ("client_auth_method = \"insecure_x_cert\"", "provider.client_auth_method"),
        ("client_assertion_file = \"/no/such/token\"", "provider.client_assertion_file"),
        ("insecure_password_grant = true", "provider.insecure_password_grant"),
        ("userinfo_signing_algs = [\"RS256\"]", "provider.userinfo_signing_algs"),
        ("authorization_signing_algs = [\"ES512\"]", "provider.authorization_signing_algs"),
        ("public_client = true", "provider.public_client"),
        ("discovery = false", "provider.discovery"),
        ("[provider.metadata]\nuserinfo_endpoint = \"https://id.example.com/userinfo\"", "provider.metadata"),
        ("request_object = \"reference\"", "provider.request_object"),
    ] {
        let problems = all(&read(&Sources::toml(&text(&format!("{good}{line}\n")))).err().unwrap_or_default());
        assert!(problems.contains(named) && problems.contains("fapi2"), "{line}: {problems}");
    }
    let problems = all(&read(&Sources::toml(&text("profile = \"fapi2\"\n"))).err().unwrap_or_default());
    assert!(problems.contains("there is no private key"), "{problems}");
}
