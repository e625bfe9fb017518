//! A logout token ends what it names and nothing else, and whatever is no logout token ends nothing (OpenID Connect
//! Back-Channel Logout 1.0).

use std::time::Duration;

use http::{Method, StatusCode};
use vestibule_test_support::forge::{self, Alg, SigningKey};
use vestibule_test_support::{Browser, Endpoint, Reply, Request, Stage, Value, json};

use crate::session_streams::Stream;

const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
const FORM: &str = "application/x-www-form-urlencoded";

fn address(stage: &Stage) -> String {
    stage.url("/auth/backchannel-logout")
}

/// As a provider does: no cookie, no origin, no browser.
async fn post(stage: &Stage, fields: &[(&str, &str)]) -> Reply {
    stage.browser().send(Request::new(Method::POST, &address(stage)).form(fields)).await
}

async fn tell(stage: &Stage, token: &str) -> Reply {
    post(stage, &[("logout_token", token)]).await
}

fn assert_done(reply: &Reply) {
    assert_eq!((reply.status, reply.text().as_str()), (StatusCode::OK, ""));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert!(reply.set_cookies().is_empty());
}

fn assert_refused(reply: &Reply, what: &str) {
    assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{what}: {}", reply.text());
    assert_eq!(reply.header("cache-control"), Some("no-store"), "{what}");
    assert_eq!(reply.header("content-type"), Some("application/json"), "{what}");
    assert_eq!(reply.json()["error"], "invalid_request", "{what}");
    assert!(reply.json()["error_description"].is_string(), "{what}");
    assert!(reply.set_cookies().is_empty(), "{what}");
}

/// Somebody signed in, in a session that the provider calls `sid`.
async fn signed_in(stage: &Stage, sub: &str, sid: &str) -> Browser {
    stage.provider.set_user(json!({ "sub": sub, "preferred_username": sub, "sid": sid }));
    stage.signed_in_browser().await
}

#[tokio::test]
async fn a_session_ends_by_its_name_in_every_copy_of_its_cookie_and_nobody_elses_does() {
    let stage = Stage::start();
    let (ada, phone) = (signed_in(&stage, "ada", "s1").await, signed_in(&stage, "ada", "s2").await);
    let bob = signed_in(&stage, "bob", "s3").await;
    let copy = ada.stolen_copy();
    for claims in [json!({ "sid": "s1" }), json!({ "sid": "s1", "sub": "ada" })] {
        assert_done(&tell(&stage, &stage.provider.logout_token(&claims)).await);
        stage.assert_ended(&ada).await;
    }
    stage.assert_ended(&copy).await;
    stage.assert_signed_in(&phone).await;
    stage.assert_signed_in(&bob).await;
    // A browser that is sent on signs in anew.
    assert_eq!(stage.sign_in(&ada, "/").await.status, StatusCode::OK);
    assert_eq!(stage.provider.count(Endpoint::EndSession), 0);
}

#[tokio::test]
async fn the_session_of_somebody_else_does_not_end_by_its_name() {
    let stage = Stage::start();
    let ada = signed_in(&stage, "ada", "s1").await;
    assert_done(&tell(&stage, &stage.provider.logout_token(&json!({ "sid": "s1", "sub": "bob" }))).await);
    stage.assert_signed_in(&ada).await;
}

#[tokio::test]
async fn a_subject_is_signed_out_everywhere_and_signs_in_again_at_once() {
    let stage = Stage::start();
    let (ada, phone) = (signed_in(&stage, "ada", "s1").await, signed_in(&stage, "ada", "s2").await);
    let bob = signed_in(&stage, "bob", "s3").await;
    for _ in 0..3 {
        assert_done(&tell(&stage, &stage.provider.logout_token(&json!({ "sub": "ada" }))).await);
        stage.assert_ended(&ada).await;
        stage.assert_ended(&phone).await;
        // Well within the second.
        let again = signed_in(&stage, "ada", "s1").await;
        stage.assert_signed_in(&again).await;
    }
    stage.assert_signed_in(&bob).await;
}

#[tokio::test]
async fn a_person_who_comes_back_with_the_same_session_of_the_provider_is_signed_in() {
    let stage = Stage::start();
    let ada = signed_in(&stage, "ada", "s1").await;
    assert_done(&tell(&stage, &stage.provider.logout_token(&json!({ "sid": "s1" }))).await);
    stage.assert_ended(&ada).await;
    assert_eq!(stage.sign_in(&ada, "/").await.status, StatusCode::OK);
    stage.assert_signed_in(&ada).await;
}

#[tokio::test]
async fn what_streams_is_cut_within_a_second() {
    let stage = Stage::start();
    for claims in [json!({ "sid": "s1" }), json!({ "sub": "ada" })] {
        let (ada, bob) = (signed_in(&stage, "ada", "s1").await, signed_in(&stage, "bob", "s2").await);
        let mut events = Stream::events(&stage, &ada, "/sse").await;
        let mut socket = Stream::web_socket(&stage, &ada).await;
        let mut other_events = Stream::events(&stage, &bob, "/sse").await;
        let mut other_socket = Stream::web_socket(&stage, &bob).await;
        assert_done(&tell(&stage, &stage.provider.logout_token(&claims)).await);
        tokio::join!(events.assert_cut(), socket.assert_told());
        other_events.assert_ticks().await;
        other_socket.assert_echoes().await;
    }
}

#[tokio::test]
async fn nothing_that_is_there_besides_and_nothing_that_is_unknown_matters() {
    let stage = Stage::start();
    let ada = signed_in(&stage, "ada", "s1").await;
    let nobody = stage.provider.logout_token(&json!({ "sid": "another" }));
    assert_done(&post(&stage, &[("logout_token", &nobody), ("extra", "1"), ("extra", "2")]).await);
    assert_done(&tell(&stage, &stage.provider.logout_token(&json!({ "sub": "nobody", "trace": [1] }))).await);
    stage.assert_signed_in(&ada).await;
    let token = stage.provider.logout_token(&json!({ "sid": "s1", "aud": [stage.provider.client_id()] }));
    let request = Request::new(Method::POST, &address(&stage))
        .form(&[("logout_token", &token)])
        .header("content-type", "Application/X-WWW-Form-Urlencoded; charset=utf-8")
        .header("origin", "https://evil.example");
    // From wherever it comes, and whoever's cookies come along.
    assert_done(&ada.send(request).await);
    stage.assert_ended(&ada).await;
}

#[tokio::test]
async fn its_type_may_be_written_in_every_way_that_means_the_same() {
    let stage = Stage::start();
    for typ in ["logout+jwt", "JWT", "jwt", "Logout+JWT", "application/logout+jwt", "APPLICATION/JWT"] {
        let ada = signed_in(&stage, "ada", "s1").await;
        let claims = stage.provider.logout_claims(&json!({ "sid": "s1" }));
        assert_done(&tell(&stage, &stage.provider.sign(&json!({ "typ": typ }), &claims)).await);
        stage.assert_ended(&ada).await;
    }
    let ada = signed_in(&stage, "ada", "s1").await;
    let claims = stage.provider.logout_claims(&json!({ "sid": "s1" }));
    assert_done(&tell(&stage, &stage.provider.sign(&json!({}), &claims)).await);
    stage.assert_ended(&ada).await;
}

/// Every one of them is signed by the provider.
fn wrong_claims(now: u64, client: &str) -> Vec<(&'static str, Value)> {
    vec![
        ("no issuer", json!({ "iss": null })),
        ("another issuer", json!({ "iss": "https://other.example.com" })),
        ("no audience", json!({ "aud": null })),
        ("another audience", json!({ "aud": "another-client" })),
        ("an audience nobody trusts", json!({ "aud": [client, "another-client"] })),
        ("no time of issue", json!({ "iat": null })),
        ("issued in the future", json!({ "iat": now + 600, "exp": now + 700 })),
        ("a time of issue that is text", json!({ "iat": now.to_string() })),
        ("issued before any session", json!({ "iat": now - 90_000, "exp": now + 100 })),
        ("no expiry", json!({ "exp": null })),
        ("expired", json!({ "iat": now - 300, "exp": now - 100 })),
        ("not valid yet", json!({ "nbf": now + 600 })),
        ("no identifier", json!({ "jti": null })),
        ("an empty identifier", json!({ "jti": "" })),
        ("an identifier that is a number", json!({ "jti": 1 })),
        ("no events", json!({ "events": null })),
        ("other events", json!({ "events": { "http://schemas.openid.net/event/other": {} } })),
        ("events that are a list", json!({ "events": [EVENT] })),
        ("events that are text", json!({ "events": EVENT })),
        ("an event that is no object", json!({ "events": { EVENT: "yes" } })),
        ("a nonce", json!({ "nonce": "n" })),
        ("nobody", json!({ "sub": null, "sid": null })),
        ("an empty session", json!({ "sid": "" })),
        ("an empty subject", json!({ "sub": "" })),
        ("a session that is a number", json!({ "sid": 1 })),
        ("a subject that is a list", json!({ "sub": ["ada"] })),
    ]
}

#[tokio::test]
async fn whatever_is_no_logout_token_ends_nothing() {
    let stage = Stage::start();
    let ada = signed_in(&stage, "ada", "s1").await;
    let (userinfo, provider) = (stage.provider.count(Endpoint::Userinfo), &stage.provider);
    let who = json!({ "sub": "ada", "sid": "s1" });
    let claims = provider.logout_claims(&who);
    let typed = json!({ "typ": "logout+jwt" });
    let key = provider.signing_key();
    let stranger = SigningKey::generate(Alg::Es256);
    let mut wrong: Vec<(String, String)> = Vec::new();
    for (what, changes) in wrong_claims(stage.clock.unix(), provider.client_id()) {
        let mut all = who.clone();
        all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        wrong.push((what.to_owned(), provider.logout_token(&all)));
    }
    for typ in ["at+jwt", "secevent+jwt", "logout", "", "JOSE", "application/json", "text/jwt"] {
        wrong.push((format!("typ {typ:?}"), provider.sign(&json!({ "typ": typ }), &claims)));
    }
    let mut doubled = claims.to_string();
    doubled.insert_str(1, "\"sub\":\"ada\",");
    let good = provider.logout_token(&who);
    let (head, rest) = good.split_once('.').unwrap();
    let (_, signature) = rest.split_once('.').unwrap();
    wrong.extend([
        ("no signature".to_owned(), forge::unsigned(&claims)),
        ("one bit flipped".to_owned(), forge::tampered(&good)),
        ("another's key".to_owned(), stranger.token_with_header(&json!({ "alg": "ES256", "kid": key.kid() }), &claims)),
        ("an unknown key".to_owned(), stranger.token(&claims)),
        ("the client secret".to_owned(), forge::hs256(provider.client_secret().as_bytes(), None, &claims)),
        ("the public key".to_owned(), forge::hs256(key.public_pem().as_bytes(), Some(key.kid()), &claims)),
        (
            "a critical extension".to_owned(),
            provider.sign(&json!({ "typ": "logout+jwt", "crit": ["x"], "x": 1 }), &claims),
        ),
        ("a name twice".to_owned(), format!("{head}.{}.{signature}", forge::encode(doubled.as_bytes()))),
        ("an ID token".to_owned(), provider.id_tokens().pop().unwrap()),
        (
            "an ID token in its clothes".to_owned(),
            provider.sign(
                &typed,
                &json!({
                    "iss": provider.issuer(), "aud": provider.client_id(), "sub": "ada", "sid": "s1", "nonce": "n",
                    "iat": stage.clock.unix(), "exp": stage.clock.unix() + 300,
                }),
            ),
        ),
        ("garbage".to_owned(), "a.b.c".to_owned()),
        ("five parts".to_owned(), format!("{good}.x.y")),
        ("nothing".to_owned(), String::new()),
    ]);
    for (what, token) in &wrong {
        assert_refused(&tell(&stage, token).await, what);
        stage.assert_signed_in(&ada).await;
    }
    stage.upstream.forget();
    assert_refused(&post(&stage, &[]).await, "no token");
    assert_refused(&post(&stage, &[("logout_token", &good), ("logout_token", &good)]).await, "two tokens");
    assert_refused(&post(&stage, &[("LOGOUT_TOKEN", &good)]).await, "another parameter");
    let large = format!("x={}", "x".repeat(80 * 1024));
    for (what, request) in [
        ("JSON", Request::new(Method::POST, &address(&stage)).body(json!({ "logout_token": good }).to_string())),
        ("a query", Request::new(Method::POST, &format!("{}?logout_token={good}", address(&stage))).form(&[])),
        (
            "text",
            Request::new(Method::POST, &address(&stage))
                .header("content-type", "text/plain")
                .body(format!("logout_token={good}")),
        ),
        ("a large body", Request::new(Method::POST, &address(&stage)).header("content-type", FORM).body(large)),
    ] {
        assert_refused(&stage.browser().send(request).await, what);
    }
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::HEAD] {
        let reply =
            stage.browser().send(Request::new(method, &format!("{}?logout_token={good}", address(&stage)))).await;
        assert_eq!((reply.status, reply.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, Some("POST")));
    }
    stage.upstream.assert_untouched();
    stage.assert_signed_in(&ada).await;
    assert_eq!(stage.provider.count(Endpoint::Userinfo), userinfo, "nobody was asked about anybody");
    assert!(stage.provider.count(Endpoint::Jwks) <= 2, "keys are fetched again at most once");
    // After all that, the good one still counts.
    assert_done(&tell(&stage, &good).await);
    stage.assert_ended(&ada).await;
}

/// §2.6 item 1: by the keys that ID tokens are encrypted to, and never in the clear where those are never.
#[tokio::test]
async fn an_encrypted_token_is_opened_and_a_plain_one_refused_where_encryption_is_required() {
    use vestibule_test_support::encryption::EncryptionKey;
    use vestibule_test_support::real::RealProvider;
    let file = RealProvider::key_file("rsa-oaep");
    let pem = std::fs::read_to_string(&file).expect("the key of the tests");
    for required in [false, true] {
        let stage = Stage::with(&format!(
            "[provider]\nclient_keys_files = [\"{file}\"]\nrequire_encrypted_id_token = {required}\n"
        ));
        stage.provider.encrypt_to(EncryptionKey::of_private_pem(&pem));
        let (ada, bob) = (signed_in(&stage, "ada", "s1").await, signed_in(&stage, "bob", "s2").await);
        let token = |sid: &str| stage.provider.logout_token(&json!({ "sid": sid }));
        let plain = tell(&stage, &token("s2")).await;
        match required {
            true => assert_refused(&plain, "in the clear"),
            false => assert_done(&plain),
        }
        let encrypted = stage.provider.encrypt(&token("s1"));
        assert_refused(&tell(&stage, &forge::tampered(&encrypted)).await, "one bit flipped");
        let twice = stage.provider.encrypt(&encrypted);
        assert_refused(&tell(&stage, &twice).await, "encrypted twice");
        let unsigned = stage.provider.encrypt(&forge::unsigned(&stage.provider.logout_claims(&json!({ "sid": "s1" }))));
        assert_refused(&tell(&stage, &unsigned).await, "unsigned inside");
        stage.assert_signed_in(&ada).await;
        assert_done(&tell(&stage, &encrypted).await);
        stage.assert_ended(&ada).await;
        if required {
            stage.assert_signed_in(&bob).await;
        }
        assert_refused(&tell(&stage, &encrypted).await, "again");
    }
    let without_key = Stage::start();
    let ada = signed_in(&without_key, "ada", "s1").await;
    without_key.provider.encrypt_to(EncryptionKey::of_private_pem(&pem));
    let encrypted = without_key.provider.encrypt(&without_key.provider.logout_token(&json!({ "sid": "s1" })));
    assert_refused(&tell(&without_key, &encrypted).await, "no key opens it");
    without_key.assert_signed_in(&ada).await;
}

/// A provider may try again for some minutes, or tell those of its queue at last.
#[tokio::test]
async fn a_token_that_comes_late_ends_what_had_begun_and_not_who_came_back_since() {
    let stage = Stage::start();
    for who in [json!({ "sid": "s1" }), json!({ "sub": "ada" })] {
        let ada = signed_in(&stage, "ada", "s1").await;
        let mut late = who.clone();
        late["exp"] = json!(stage.clock.unix() + 86_400);
        let late = stage.provider.logout_token(&late);
        stage.clock.advance(Duration::from_secs(300));
        let again = signed_in(&stage, "ada", "s1").await;
        assert_done(&tell(&stage, &late).await);
        stage.assert_ended(&ada).await;
        stage.assert_signed_in(&again).await;
        // Once, and whatever `exp` says not for longer than that is remembered.
        for _ in 0..4 {
            assert_refused(&tell(&stage, &late).await, "again");
            stage.clock.advance(Duration::from_secs(200));
        }
        stage.assert_signed_in(&again).await;
    }
}

/// Some try again for an hour and more, with the token that they made at first.
#[tokio::test]
async fn a_token_counts_for_as_long_as_the_provider_says() {
    let stage = Stage::with("[session]\nidle = \"12h\"");
    for who in [json!({ "sid": "s1" }), json!({ "sub": "ada" })] {
        let (ada, bob) = (signed_in(&stage, "ada", "s1").await, signed_in(&stage, "bob", "s2").await);
        let mut late = who.clone();
        late["exp"] = json!(stage.clock.unix() + 2 * 3_600);
        let late = stage.provider.logout_token(&late);
        stage.clock.advance(Duration::from_secs(3_600));
        let again = signed_in(&stage, "ada", "s1").await;
        assert_done(&tell(&stage, &late).await);
        stage.assert_ended(&ada).await;
        stage.assert_signed_in(&again).await;
        stage.assert_signed_in(&bob).await;
        stage.upstream.forget();
        assert_refused(&tell(&stage, &late).await, "again");
        stage.clock.advance(Duration::from_secs(3_700));
        assert_refused(&tell(&stage, &late).await, "past its exp");
        stage.assert_signed_in(&again).await;
    }
}

/// A restart forgets which tokens came, and whoever gets hold of one later ends nothing with it.
#[tokio::test]
async fn a_token_of_before_a_restart_ends_nobody_who_signed_in_since() {
    let stage = Stage::start();
    let ada = signed_in(&stage, "ada", "s1").await;
    let token = stage.provider.logout_token(&json!({ "sub": "ada", "exp": stage.clock.unix() + 86_400 }));
    assert_done(&tell(&stage, &token).await);
    stage.assert_ended(&ada).await;
    stage.clock.advance(Duration::from_secs(120));
    let stage = stage.restart();
    let again = signed_in(&stage, "ada", "s1").await;
    assert_done(&tell(&stage, &token).await);
    stage.assert_signed_in(&again).await;
}

#[tokio::test]
async fn a_token_counts_once() {
    let stage = Stage::start();
    let ada = signed_in(&stage, "ada", "s1").await;
    let token = stage.provider.logout_token(&json!({ "sub": "ada" }));
    assert_done(&tell(&stage, &token).await);
    stage.assert_ended(&ada).await;
    let again = signed_in(&stage, "ada", "s1").await;
    assert_refused(&tell(&stage, &token).await, "again");
    stage.assert_signed_in(&again).await;
    // The same identifier in another token is the same one again.
    let twin = |jti: &str| stage.provider.logout_token(&json!({ "sub": "ada", "jti": jti }));
    assert_refused(&tell(&stage, &forge::tampered(&twin("one"))).await, "tampered");
    assert_done(&tell(&stage, &twin("one")).await);
    assert_refused(&tell(&stage, &twin("one")).await, "a twin");
}

#[tokio::test]
async fn a_rotated_key_is_fetched_when_its_first_token_comes_and_not_for_every_stranger() {
    let stage = Stage::start();
    let ada = signed_in(&stage, "ada", "s1").await;
    stage.provider.rotate_keys();
    assert_done(&tell(&stage, &stage.provider.logout_token(&json!({ "sid": "s1" }))).await);
    stage.assert_ended(&ada).await;
    assert_eq!(stage.provider.count(Endpoint::Jwks), 2);
    let stranger = SigningKey::generate(Alg::Es256);
    for _ in 0..20 {
        let token = stranger.token(&stage.provider.logout_claims(&json!({ "sub": "ada" })));
        assert_refused(&tell(&stage, &token).await, "a stranger's");
    }
    assert_eq!(stage.provider.count(Endpoint::Jwks), 2);
}

#[tokio::test]
async fn the_client_secret_signs_where_the_client_is_registered_for_it() {
    let stage = Stage::with("[provider]\nsigning_algs = [\"HS256\"]");
    stage.provider.faults(|faults| faults.id_token = Some(vestibule_test_support::IdTokenFault::Hs256WithClientSecret));
    let ada = signed_in(&stage, "ada", "s1").await;
    let claims = stage.provider.logout_claims(&json!({ "sid": "s1" }));
    assert_refused(&tell(&stage, &stage.provider.sign(&json!({ "typ": "logout+jwt" }), &claims)).await, "RS256");
    assert_done(&tell(&stage, &forge::hs256(stage.provider.client_secret().as_bytes(), None, &claims)).await);
    stage.assert_ended(&ada).await;
}

#[tokio::test]
async fn whoever_asks_too_often_is_told_when_to_come_back_and_the_provider_is_not() {
    let stage = Stage::with("trusted_proxies = [\"127.0.0.1\"]");
    let ada = signed_in(&stage, "ada", "s1").await;
    let stranger = SigningKey::generate(Alg::Es256);
    let flood = stranger.token_with_header(
        &json!({ "alg": "ES256", "kid": stage.provider.signing_key().kid() }),
        &stage.provider.logout_claims(&json!({ "sub": "ada" })),
    );
    let send = |token: String, from: &'static str| {
        let request = Request::new(Method::POST, &address(&stage)).form(&[("logout_token", &token)]);
        let (request, browser) = (request.header("x-forwarded-for", from), stage.browser());
        async move { browser.send(request).await }
    };
    let mut held = None;
    for _ in 0..4000 {
        let reply = send(flood.clone(), "203.0.113.9").await;
        if reply.status == StatusCode::TOO_MANY_REQUESTS {
            held = Some(reply);
            break;
        }
        assert_refused(&reply, "a flood");
    }
    let held = held.expect("the flood was held");
    assert!(held.header("retry-after").is_some());
    // What has no right shape costs nothing, and takes no turn.
    assert_refused(&send("a.b.c".to_owned(), "203.0.113.9").await, "garbage");
    stage.assert_signed_in(&ada).await;
    assert_done(&send(stage.provider.logout_token(&json!({ "sid": "s1" })), "198.51.100.7").await);
    stage.assert_ended(&ada).await;
}

#[tokio::test]
async fn a_session_of_an_older_release_is_a_clean_new_sign_in() {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let stage = Stage::start();
    let ada = stage.signed_in_browser().await;
    let sealed = ada.cookie(&stage.origin(), "vestibule").unwrap().value;
    let mut bytes = URL_SAFE_NO_PAD.decode(sealed).unwrap();
    bytes[0] = 1;
    ada.set_cookie(&stage.origin(), &format!("vestibule={}; Path=/", URL_SAFE_NO_PAD.encode(bytes)));
    let reply = ada.fetch(&stage.url("/")).await;
    assert_eq!((reply.status, &reply.json()["code"]), (StatusCode::UNAUTHORIZED, &"session_version".into()));
    stage.upstream.assert_untouched();
    assert_eq!(stage.sign_in(&ada, "/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn it_can_be_moved_and_switched_off() {
    let stage = Stage::with("[endpoints]\nbackchannel_logout = \"/bye\"\nfrontchannel_logout = false");
    let ada = signed_in(&stage, "ada", "s1").await;
    assert_eq!(tell(&stage, "x").await.status, StatusCode::NOT_FOUND);
    let request = |token: &str| Request::new(Method::POST, &stage.url("/bye")).form(&[("logout_token", token)]);
    assert_done(&stage.browser().send(request(&stage.provider.logout_token(&json!({ "sid": "s1" })))).await);
    stage.assert_ended(&ada).await;
    let reply = stage.browser().fetch(&stage.url("/auth/frontchannel-logout")).await;
    assert_eq!(reply.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_late_answer_never_revives_a_session_that_the_provider_ended() {
    let stage = Stage::start();
    let ada = signed_in(&stage, "ada", "s1").await;
    stage.clock.advance(Duration::from_secs(600));
    let slow = tokio::spawn({
        let (browser, url) = (ada.tab(), stage.url("/slow?ms=400"));
        async move { browser.get(&url).await }
    });
    while stage.upstream.count() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_done(&tell(&stage, &stage.provider.logout_token(&json!({ "sub": "ada" }))).await);
    let late = slow.await.unwrap();
    assert_eq!((late.status, late.set_cookies()), (StatusCode::OK, vec![]));
}
