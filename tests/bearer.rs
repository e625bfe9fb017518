//! Access tokens of programs: verified here or explained by the provider, and refused whenever something is wrong.

use std::time::Duration;

use http::Method;
use vestibule::config::{self, Sources};
use vestibule_test_support::forge::{self, Alg, SigningKey};
use vestibule_test_support::{Endpoint, IntrospectionFault, Reply, Request, Stage, json, raw_request};

const BEARER: &str = "[bearer]\naccept = true\naudiences = [\"api\"]\n\
                      [[routes]]\npath = \"/optional/*\"\naccess = \"optional\"\n\
                      [[routes]]\npath = \"/admin/*\"\nrequire = { roles = [\"nobody\"] }\n\
                      [[routes]]\npath = \"/recent\"\nmax_identity_age = \"1h\"\n\
                      [[routes]]\npath = \"/vault\"\nrequire = { acr = [\"gold\"], max_age = \"5m\" }\n\
                      [[routes]]\npath = \"/basic\"\npass_authorization = true\naccess = \"optional\"\n";
const JSON: &str = "[provider]\naccess_token_format = \"opaque\"\nintrospection = \"json\"\n";
const SIGNED: &str = "[provider]\naccess_token_format = \"opaque\"\nintrospection = \"jwt\"\n";
const USERINFO: &str = "[provider]\naccess_token_format = \"opaque\"\n";

fn stage(more: &str) -> Stage {
    Stage::with(&format!("{more}{BEARER}"))
}

async fn ask(stage: &Stage, path: &str, token: &str) -> Reply {
    let request = Request::new(Method::GET, &stage.url(path)).header("authorization", &format!("Bearer {token}"));
    stage.browser().send(request).await
}

#[track_caller]
fn assert_refused(stage: &Stage, reply: &Reply, status: u16, code: &str) {
    assert_eq!((reply.status.as_u16(), reply.json()["code"].as_str()), (status, Some(code)), "{}", reply.text());
    let challenge = reply.header("www-authenticate");
    match status {
        400 => assert_eq!(challenge, Some("Bearer error=\"invalid_request\"")),
        401 => assert_eq!(challenge, Some("Bearer error=\"invalid_token\"")),
        _ => assert_eq!(challenge, None),
    }
    assert!(reply.header("set-cookie").is_none());
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn a_program_with_an_access_token_is_who_the_token_says() {
    let stage = stage("");
    for typ in [Some("at+jwt"), Some("application/at+jwt"), Some("AT+JWT"), Some("JWT"), None] {
        let reply = ask(&stage, "/x", &stage.provider.jwt_token(typ, &json!({}))).await;
        assert_eq!(reply.status, 200, "{typ:?} {}", reply.text());
        assert_eq!(reply.echoed("x-forwarded-user").as_deref(), Some("248289761001"));
        assert_eq!(reply.echoed("x-forwarded-groups").as_deref(), Some("/admins,/staff"));
        assert_eq!(reply.echoed("authorization"), None, "the token is not the application's");
    }
    let several = stage.provider.jwt_token(Some("at+jwt"), &json!({ "aud": ["other", "api"] }));
    assert_eq!(ask(&stage, "/x", &several).await.status, 200);
    let keycloak = stage.provider.jwt_token(Some("JWT"), &json!({ "typ": "Bearer", "client_id": null }));
    assert_eq!(ask(&stage, "/x", &keycloak).await.status, 200);
    assert_eq!((stage.provider.count(Endpoint::Userinfo), stage.provider.count(Endpoint::Introspect)), (0, 0));
}

#[tokio::test]
async fn a_token_of_another_kind_issuer_audience_or_time_is_refused() {
    let stage = stage("");
    let now = stage.clock.unix();
    for (typ, claims, code) in [
        // Attack rows 20, 46, 60: another application's token, no expiry, an unknown issuer.
        (Some("at+jwt"), json!({ "aud": "another-api" }), "access_token_audience"),
        (Some("at+jwt"), json!({ "aud": null }), "access_token_audience"),
        (Some("at+jwt"), json!({ "aud": ["a", 7] }), "access_token_malformed"),
        (Some("at+jwt"), json!({ "aud": [] }), "access_token_audience"),
        (Some("at+jwt"), json!({ "iss": "https://other.example.com" }), "access_token_issuer"),
        (Some("at+jwt"), json!({ "iss": format!("{}/", stage.provider.issuer()) }), "access_token_issuer"),
        (Some("at+jwt"), json!({ "iss": null }), "access_token_issuer"),
        (Some("at+jwt"), json!({ "exp": null }), "access_token_expired"),
        (Some("at+jwt"), json!({ "exp": now - 60 }), "access_token_expired"),
        (Some("at+jwt"), json!({ "nbf": now + 600 }), "access_token_expired"),
        (Some("at+jwt"), json!({ "iat": now + 600 }), "access_token_expired"),
        (Some("at+jwt"), json!({ "sub": "" }), "access_token_malformed"),
        (Some("at+jwt"), json!({ "cnf": { "jkt": "x" } }), "access_token_bound"),
        // Never an ID, refresh or logout token.
        (Some("JWT"), json!({ "client_id": null }), "access_token_type"),
        (Some("JWT"), json!({ "nonce": "n" }), "access_token_type"),
        (Some("at+jwt"), json!({ "nonce": "n" }), "access_token_type"),
        (None, json!({ "at_hash": "x" }), "access_token_type"),
        (Some("JWT"), json!({ "typ": "ID" }), "access_token_type"),
        (Some("JWT"), json!({ "typ": "Refresh" }), "access_token_type"),
        (Some("logout+jwt"), json!({}), "access_token_type"),
        (Some("token-introspection+jwt"), json!({}), "access_token_type"),
        (Some("JWT"), json!({ "events": {} }), "access_token_type"),
    ] {
        let token = stage.provider.jwt_token(typ, &claims);
        for path in ["/x", "/optional/x"] {
            assert_refused(&stage, &ask(&stage, path, &token).await, 401, code);
        }
    }
    // The provider's own ID token of a whole sign-in.
    let browser = stage.signed_in_browser().await;
    let id_token = stage.provider.id_tokens()[0].clone();
    assert_refused(&stage, &ask(&stage, "/x", &id_token).await, 401, "access_token_type");
    // A good session does not help a bad token.
    for token in [stage.provider.jwt_token(Some("at+jwt"), &json!({ "aud": "x" })), "x".to_owned()] {
        let request = Request::new(Method::GET, &stage.url("/x")).header("authorization", &format!("Bearer {token}"));
        assert_eq!(browser.send(request).await.status, 401);
        stage.upstream.assert_untouched();
    }
    assert_eq!(browser.get(&stage.url("/x")).await.status, 200, "and the session is still there");
}

/// RFC 9470 §3: the program learns what to ask its next token for.
#[tokio::test]
async fn a_token_of_too_weak_a_sign_in_is_told_what_is_demanded() {
    let stage = stage("");
    let now = stage.clock.unix();
    for (claims, status) in [
        (json!({}), 401),
        (json!({ "acr": "gold" }), 401),
        (json!({ "acr": "silver", "auth_time": now }), 401),
        (json!({ "acr": "gold", "auth_time": now - 600 }), 401),
        (json!({ "acr": "gold", "auth_time": now - 60 }), 200),
    ] {
        let reply = ask(&stage, "/vault", &stage.provider.jwt_token(Some("at+jwt"), &claims)).await;
        assert_eq!(reply.status, status, "{claims} {}", reply.text());
        if status == 200 {
            assert_eq!(stage.upstream.count(), 1);
            continue;
        }
        stage.upstream.assert_untouched();
        assert_eq!(reply.json()["code"], "insufficient_proof");
        let challenge = "Bearer error=\"insufficient_user_authentication\", acr_values=\"gold\", max_age=\"300\"";
        assert_eq!(reply.header("www-authenticate"), Some(challenge));
    }
}

/// Whoever makes up tokens, each of which the provider has to be asked about, holds up no sign-in and no other question.
#[tokio::test]
async fn made_up_tokens_hold_up_no_sign_in() {
    // The sign-in asks for its own userinfo.
    for (how, endpoint, questions) in [(JSON, Endpoint::Introspect, 1), (USERINFO, Endpoint::Userinfo, 2)] {
        let stage = stage(&format!("{how}max_token_calls = 4\ntoken_queue_timeout = \"300ms\"\n"));
        stage.provider.slow_down(endpoint, Duration::from_secs(3));
        let tokens: Vec<_> = (0..8).map(|number| format!("made-up-{number}")).collect();
        let asked = futures_util::future::join_all(tokens.iter().map(|token| ask(&stage, "/x", token)));
        let browser = stage.browser();
        let signed_in = async {
            while stage.provider.count(endpoint) == 0 {
                tokio::task::yield_now().await;
            }
            stage.sign_in(&browser, "/there").await
        };
        let (replies, landed) = tokio::join!(asked, signed_in);
        assert_eq!(landed.status, 200, "{how}: {}", landed.text());
        assert_eq!(stage.upstream.count(), 1, "{how}: the sign-in's");
        assert_eq!(stage.provider.count(endpoint), questions, "{how}: a quarter of the turns");
        let unavailable = replies.iter().filter(|reply| reply.status == 503).count();
        assert_eq!((unavailable, replies.len()), (7, 8), "{how}");
    }
}

#[tokio::test]
async fn a_forged_token_is_refused() {
    let stage = stage("");
    let good = stage.provider.jwt_token(Some("at+jwt"), &json!({}));
    let claims = json!({
        "iss": stage.provider.issuer(), "aud": "api", "sub": "admin", "client_id": "x", "iat": stage.clock.unix(),
        "exp": stage.clock.unix() + 300,
    });
    let stray = SigningKey::generate(Alg::Es256);
    for (token, code) in [
        (forge::tampered(&good), "access_token_signature"),
        (forge::unsigned(&claims), "access_token_malformed"),
        (stray.token(&claims), "access_token_signature"),
        (forge::hs256(stage.provider.client_secret().as_bytes(), None, &claims), "access_token_malformed"),
        ("not-a-token".to_owned(), "access_token_malformed"),
        // Attack row 65.
        ("x".to_owned(), "access_token_malformed"),
    ] {
        assert_refused(&stage, &ask(&stage, "/x", &token).await, 401, code);
    }
}

#[tokio::test]
async fn the_header_has_one_reading_or_is_refused() {
    let stage = stage("");
    let good = stage.provider.jwt_token(Some("at+jwt"), &json!({}));
    let raw = |path: &str, fields: &str| {
        let text = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{fields}Connection: close\r\n\r\n", stage.host());
        let address = stage.address();
        async move { String::from_utf8_lossy(&raw_request(address, text.as_bytes()).await).into_owned() }
    };
    for (fields, status, code) in [
        // Attack row 79.
        (format!("Authorization: Bearer {good}\r\nAuthorization: Bearer {good}\r\n"), "400", "authorization_repeated"),
        (format!("Authorization: Basic YTpi\r\nauthorization: Bearer {good}\r\n"), "400", "authorization_repeated"),
        (format!("Authorization: Bearer {good}, Bearer {good}\r\n"), "400", "authorization_malformed"),
        ("Authorization: Bearer\r\n".to_owned(), "400", "authorization_malformed"),
        (format!("Authorization: Bearer {}\r\n", "a".repeat(16 * 1024 + 1)), "400", "authorization_too_large"),
        ("Authorization: Basic YTpi\r\n".to_owned(), "401", "authorization_scheme"),
        (format!("Authorization: DPoP {good}\r\n"), "401", "authorization_scheme"),
    ] {
        for path in ["/x", "/optional/x"] {
            let answer = raw(path, &fields).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(code), "{fields}: {answer}");
        }
    }
    stage.upstream.assert_untouched();
    // Where the application does its own authentication, another scheme is its own.
    assert!(raw("/basic", "Authorization: Basic YTpi\r\n").await.starts_with("HTTP/1.1 200"));
    assert!(raw("/basic", "Authorization: Bearer x\r\n").await.starts_with("HTTP/1.1 401"));
    // Without any, the challenge names both ways.
    let answer = raw("/x", "").await;
    assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("www-authenticate: Bearer\r\n"), "{answer}");
}

#[tokio::test]
async fn policy_is_asked_each_time_whatever_is_known_of_the_token() {
    let stage = stage("");
    let token = stage.provider.jwt_token(Some("at+jwt"), &json!({}));
    assert_eq!(ask(&stage, "/x", &token).await.status, 200);
    stage.upstream.forget();
    // Attack row 148.
    let reply = ask(&stage, "/admin/x", &token).await;
    assert_eq!((reply.status.as_u16(), reply.json()["code"].as_str()), (403, Some("missing_role")));
    assert_refused(&stage, &ask(&stage, "/recent", &token).await, 401, "identity_too_old");
    let recent = stage.provider.jwt_token(Some("at+jwt"), &json!({ "auth_time": stage.clock.unix() - 60 }));
    assert_eq!(ask(&stage, "/recent", &recent).await.status, 200);
    stage.upstream.forget();
    stage.clock.advance(Duration::from_secs(331));
    assert_refused(&stage, &ask(&stage, "/x", &token).await, 401, "access_token_expired");
}

#[tokio::test]
async fn a_flood_of_unknown_key_ids_keeps_no_sign_in_from_new_keys() {
    let stage = stage("");
    let before = stage.provider.count(Endpoint::Jwks);
    let claims = json!({ "iss": stage.provider.issuer(), "aud": "api", "sub": "x" });
    for _ in 0..20 {
        let token = SigningKey::generate(Alg::Es256).token(&claims);
        assert_refused(&stage, &ask(&stage, "/x", &token).await, 401, "access_token_signature");
    }
    assert_eq!(stage.provider.count(Endpoint::Jwks), before + 1, "one fetch for all of them");
    stage.provider.rotate_keys();
    stage.signed_in_browser().await;
    assert_eq!(stage.provider.count(Endpoint::Jwks), before + 2);
}

#[tokio::test]
async fn an_opaque_token_is_explained_by_the_introspection_endpoint() {
    for format in [JSON, SIGNED] {
        let stage = stage(format);
        let token = stage.provider.opaque_token();
        for _ in 0..5 {
            let reply = ask(&stage, "/x", &token).await;
            assert_eq!(reply.status, 200, "{}", reply.text());
            assert_eq!(reply.echoed("x-forwarded-user").as_deref(), Some("248289761001"));
        }
        assert_eq!(stage.provider.count(Endpoint::Introspect), 1, "the verdict is kept");
        let asked = &stage.provider.requests_of(Endpoint::Introspect)[0].form();
        assert!(asked.contains(&("token_type_hint".to_owned(), "access_token".to_owned())), "{asked:?}");
        stage.upstream.forget();
        stage.provider.revoke(&token);
        stage.clock.advance(Duration::from_secs(61));
        assert_refused(&stage, &ask(&stage, "/x", &token).await, 401, "access_token_inactive");
        assert_refused(&stage, &ask(&stage, "/x", "nobodys").await, 401, "access_token_inactive");
        assert_eq!(stage.provider.count(Endpoint::Userinfo), 0);
    }
}

#[tokio::test]
async fn many_that_show_one_token_make_one_call() {
    let stage = stage(JSON);
    stage.provider.slow_down(Endpoint::Introspect, Duration::from_millis(300));
    let token = stage.provider.opaque_token();
    let replies = futures_util::future::join_all((0..20).map(|_| ask(&stage, "/x", &token))).await;
    assert!(replies.iter().all(|reply| reply.status == 200));
    assert_eq!(stage.provider.count(Endpoint::Introspect), 1);
}

#[tokio::test]
async fn what_introspection_says_must_be_active_ours_and_in_time() {
    for (format, status) in [(JSON, 401), (SIGNED, 401)] {
        let stage = stage(format);
        let now = stage.clock.unix();
        for (members, code) in [
            (json!({ "active": "true" }), "access_token_inactive"),
            (json!({ "active": null }), "access_token_inactive"),
            (json!({ "active": 1 }), "access_token_inactive"),
            // Attack rows 46 and 137: another client's token, another issuer's.
            (json!({ "aud": "another-api" }), "access_token_audience"),
            (json!({ "aud": null }), "access_token_audience"),
            (json!({ "iss": "https://other.example.com" }), "access_token_issuer"),
            (json!({ "exp": now - 60 }), "access_token_expired"),
            (json!({ "nbf": now + 600 }), "access_token_expired"),
            (json!({ "exp": "soon" }), "access_token_malformed"),
            (json!({ "sub": null }), "access_token_malformed"),
            (json!({ "token_type": "DPoP" }), "access_token_bound"),
            // A refresh or ID token, which some servers explain as well.
            (json!({ "token_type": "N_A" }), "access_token_type"),
            (json!({ "token_type": "refresh_token" }), "access_token_type"),
            (json!({ "token_type": 1 }), "access_token_malformed"),
            (json!({ "token_type": null, "aud": null, "client_id": "vestibule-test" }), "access_token_type"),
            (json!({ "typ": "Refresh" }), "access_token_type"),
            (json!({ "typ": "ID" }), "access_token_type"),
            (json!({ "token_use": "refresh_token" }), "access_token_type"),
            (json!({ "token_use": "id" }), "access_token_type"),
            (json!({ "nonce": "n" }), "access_token_type"),
            (json!({ "at_hash": "h" }), "access_token_type"),
            (json!({ "events": {} }), "access_token_type"),
            (json!({ "cnf": { "x5t#S256": "x" } }), "access_token_bound"),
        ] {
            stage.provider.introspect_as(members);
            let token = stage.provider.opaque_token();
            assert_refused(&stage, &ask(&stage, "/x", &token).await, status, code);
        }
        // Without an audience it is for the client that it was given to.
        stage.provider.introspect_as(json!({ "aud": null, "client_id": stage.provider.client_id() }));
        assert_eq!(ask(&stage, "/x", &stage.provider.opaque_token()).await.status, 200);
        for good in [json!({ "token_type": null }), json!({ "token_type": "bearer", "token_use": "access_token" })] {
            stage.provider.introspect_as(good);
            assert_eq!(ask(&stage, "/x", &stage.provider.opaque_token()).await.status, 200);
        }
    }
}

/// RFC 9701 §5 with a key that came into use a moment ago, and encrypted besides.
#[tokio::test]
async fn a_signed_explanation_is_believed_by_new_keys_and_through_its_encryption() {
    use vestibule_test_support::encryption::EncryptionKey;
    use vestibule_test_support::real::RealProvider;
    let stage = stage(SIGNED);
    stage.wait_for_provider().await;
    stage.provider.rotate_keys();
    assert_eq!(ask(&stage, "/x", &stage.provider.opaque_token()).await.status, 200);
    assert_eq!(stage.provider.count(Endpoint::Jwks), 2);

    let file = RealProvider::key_file("rsa-oaep");
    let pem = std::fs::read_to_string(&file).expect("the key of the tests");
    for how in [SIGNED, USERINFO] {
        let stage = self::stage(&format!(
            "{how}client_keys_files = [\"{file}\"]\nclient_auth_method = \"client_secret_basic\"\n"
        ));
        stage.provider.encrypt_to(EncryptionKey::of_private_pem(&pem));
        stage.provider.sign_userinfo();
        assert_eq!(ask(&stage, "/x", &stage.provider.opaque_token()).await.status, 200, "{how}");
        stage.upstream.forget();
        let without_key = self::stage(how);
        without_key.provider.encrypt_to(EncryptionKey::of_private_pem(&pem));
        let reply = ask(&without_key, "/x", &without_key.provider.opaque_token()).await;
        assert_refused(&without_key, &reply, 502, "access_token_answer");
    }
}

/// Introspection answers have an algorithm of their own (RFC 9701 §6), and so have access tokens.
#[tokio::test]
async fn explanations_and_tokens_have_algorithms_of_their_own() {
    let stage = stage(&format!("{SIGNED}introspection_signing_algs = [\"ES256\"]\n"));
    assert_refused(&stage, &ask(&stage, "/x", &stage.provider.opaque_token()).await, 502, "access_token_answer");
    let stage = self::stage(&format!("{SIGNED}signing_algs = [\"ES256\"]\n"));
    assert_eq!(ask(&stage, "/x", &stage.provider.opaque_token()).await.status, 200);
    let stage = self::stage("[provider]\naccess_token_signing_algs = [\"ES256\"]\n");
    let token = stage.provider.jwt_token(Some("at+jwt"), &json!({}));
    assert_refused(&stage, &ask(&stage, "/x", &token).await, 401, "access_token_malformed");
}

#[tokio::test]
async fn where_rfc_9068_is_kept_to_every_other_jwt_is_refused() {
    let stage = stage("[provider]\naccess_token_format = \"at+jwt\"\n");
    for typ in [Some("at+jwt"), Some("application/at+jwt"), Some("AT+JWT")] {
        assert_eq!(ask(&stage, "/x", &stage.provider.jwt_token(typ, &json!({}))).await.status, 200);
    }
    stage.upstream.forget();
    for (typ, claims, code) in [
        (Some("JWT"), json!({}), "access_token_type"),
        (None, json!({}), "access_token_type"),
        (Some("JWT"), json!({ "typ": "Bearer" }), "access_token_type"),
        (Some("at+jwt"), json!({ "client_id": null }), "access_token_malformed"),
        (Some("at+jwt"), json!({ "jti": null }), "access_token_malformed"),
        (Some("at+jwt"), json!({ "iat": null }), "access_token_malformed"),
    ] {
        let token = stage.provider.jwt_token(typ, &claims);
        assert_refused(&stage, &ask(&stage, "/x", &token).await, 401, code);
    }
}

/// What userinfo says of a sign-in is nobody's word: only ID and access tokens tell when and how there was one.
#[tokio::test]
async fn userinfo_has_no_say_in_how_somebody_signed_in() {
    let stage = stage(&format!(
        "[identity.headers]\n\"X-Issuer\" = {{ claim = \"iss\" }}\n\"X-Acr\" = {{ claim = \"acr\" }}\n{USERINFO}"
    ));
    stage.provider.set_claim("iss", json!("https://other.example.com"));
    stage.provider.set_claim("acr", json!("gold"));
    stage.provider.set_claim("auth_time", json!(stage.clock.unix()));
    stage.provider.set_claim("exp", json!(1));
    let token = stage.provider.opaque_token();
    let reply = ask(&stage, "/x", &token).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.echoed("x-issuer"), Some(stage.provider.issuer()));
    assert_eq!(reply.echoed("x-acr").unwrap_or_default(), "");
    stage.upstream.forget();
    assert_refused(&stage, &ask(&stage, "/recent", &token).await, 401, "identity_too_old");
    let vault = ask(&stage, "/vault", &token).await;
    assert_eq!((vault.status.as_u16(), vault.json()["code"].as_str()), (401, Some("insufficient_proof")));
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn a_sign_in_in_the_future_is_none() {
    let stage = stage("");
    let token = |ahead| stage.provider.jwt_token(Some("at+jwt"), &json!({ "auth_time": stage.clock.unix() + ahead }));
    assert_refused(&stage, &ask(&stage, "/recent", &token(31)).await, 401, "identity_too_old");
    assert_eq!(ask(&stage, "/recent", &token(30)).await.status, 200, "clocks differ");
    let patient = self::stage("[provider]\nclock_skew = \"2m\"\n");
    let gold = json!({ "acr": "gold", "auth_time": patient.clock.unix() - 400 });
    assert_eq!(ask(&patient, "/vault", &patient.provider.jwt_token(Some("at+jwt"), &gold)).await.status, 200);
}

/// A token past its end is good for as long as clocks may differ, and is judged once in all that time.
#[tokio::test]
async fn a_token_at_its_end_is_asked_about_once() {
    let stage = stage(JSON);
    stage.provider.introspect_as(json!({ "exp": stage.clock.unix() - 10 }));
    let token = stage.provider.opaque_token();
    for _ in 0..3 {
        assert_eq!(ask(&stage, "/x", &token).await.status, 200);
    }
    assert_eq!(stage.provider.count(Endpoint::Introspect), 1);
    stage.upstream.forget();
    stage.clock.advance(Duration::from_secs(20));
    assert_refused(&stage, &ask(&stage, "/x", &token).await, 401, "access_token_expired");
    assert_eq!(stage.provider.count(Endpoint::Introspect), 2);
}

#[tokio::test]
async fn an_answer_that_is_not_to_be_believed_lets_nobody_in() {
    use IntrospectionFault::*;
    for (format, fault, status, code) in [
        (SIGNED, NotSigned, 502, "access_token_answer"),
        (SIGNED, OtherType, 502, "access_token_answer"),
        (SIGNED, OtherIssuer, 502, "access_token_answer"),
        (SIGNED, OtherAudience, 502, "access_token_answer"),
        (SIGNED, WrongKey, 502, "access_token_answer"),
        (SIGNED, Unsigned, 502, "access_token_answer"),
        (JSON, Html, 502, "access_token_answer"),
        (JSON, Unauthorized, 502, "access_token_answer"),
        (JSON, ServerError, 503, "access_token_unavailable"),
    ] {
        let stage = stage(format);
        stage.provider.faults(|faults| faults.introspection = Some(fault));
        let token = stage.provider.opaque_token();
        assert_refused(&stage, &ask(&stage, "/optional/x", &token).await, status, code);
        stage.provider.heal();
        stage.clock.advance(Duration::from_secs(10));
        assert_eq!(ask(&stage, "/x", &token).await.status, 200, "{fault:?}");
    }
}

#[tokio::test]
async fn an_opaque_token_is_explained_by_userinfo_where_nothing_else_is_set() {
    let stage = stage(USERINFO);
    assert!(stage.warnings().iter().any(|warning| warning.contains("bearer.accept")), "{:?}", stage.warnings());
    let token = stage.provider.opaque_token();
    assert_eq!(ask(&stage, "/x", &token).await.status, 200);
    assert_eq!(ask(&stage, "/x", &token).await.status, 200);
    assert_eq!((stage.provider.count(Endpoint::Userinfo), stage.provider.count(Endpoint::Introspect)), (1, 0));
    stage.upstream.forget();
    assert_refused(&stage, &ask(&stage, "/x", "nobodys").await, 401, "access_token_inactive");
}

#[tokio::test]
async fn the_application_gets_the_token_only_where_it_is_to() {
    let stage = stage("[upstream]\naccess_token = \"bearer\"\n");
    let token = stage.provider.jwt_token(Some("at+jwt"), &json!({}));
    let reply = ask(&stage, "/x", &token).await;
    assert_eq!(reply.echoed("authorization"), Some(format!("Bearer {token}")));
}

#[tokio::test]
async fn where_no_tokens_are_taken_a_token_is_nothing() {
    let stage = Stage::start();
    let token = stage.provider.jwt_token(Some("at+jwt"), &json!({}));
    let reply = ask(&stage, "/x", &token).await;
    assert_eq!((reply.status.as_u16(), reply.json()["code"].as_str()), (401, Some("no_session")));
    stage.upstream.assert_untouched();
}

#[test]
fn a_configuration_that_would_take_anybodys_token_is_refused() {
    let secret = config::generate_secret().unwrap();
    let one = "issuer = \"https://id.example.com\"\nclient_id = \"app\"\npublic_client = true\n";
    let load = |providers: String, bearer: &str| {
        let text = format!(
            "public_url = \"https://app.example.com\"\n{providers}\n[bearer]\n{bearer}\n[session]\nsecret = \"{secret}\"\n\
             [upstream]\nurl = \"http://127.0.0.1:3000\"\n"
        );
        config::load(&Sources::toml(&text)).err().map(|problems| format!("{problems:?}")).unwrap_or_default()
    };
    let opaque = "access_token_format = \"opaque\"\n";
    let tenants = "issuer_template = \"https://id.example.com/{tenantid}\"\nallowed_tenants = [\"one\"]\n";
    let two =
        |more: &str| format!("[providers.a]\n{one}{more}[providers.b]\n{}", one.replace("id.example", "id2.example"));
    assert_eq!(load(format!("[provider]\n{one}"), "accept = true\naudiences = [\"api\"]"), "");
    assert_eq!(load(two(""), "accept = true\naudiences = [\"api\"]"), "");
    for (providers, bearer, key) in [
        (format!("[provider]\n{one}"), "accept = true", "bearer.audiences"),
        (format!("[provider]\n{one}"), "accept = true\naudiences = []", "bearer.audiences"),
        (format!("[provider]\n{one}"), "audiences = [\"api\"]", "bearer.audiences"),
        (format!("[provider]\n{one}introspection = \"json\"\n"), "", "provider.introspection"),
        (two(opaque), "accept = true\naudiences = [\"api\"]", "bearer.accept"),
        // Userinfo names no tenant, so every tenant's token would be taken.
        (format!("[provider]\n{one}{opaque}{tenants}"), "accept = true\naudiences = [\"api\"]", "tenants"),
    ] {
        let problems = load(providers, bearer);
        assert!(problems.contains(key), "{bearer}: {problems}");
    }
}
