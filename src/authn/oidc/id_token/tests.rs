//! Every way for an ID token to be wrong, and each algorithm being right.

use std::sync::LazyLock;

use serde_json::json;

use super::*;
use crate::authn::oidc::jwks::KeySet;
use crate::authn::oidc::test_keys::{TestKey, b64, hmac, hs256, key_set};
use crate::secret::SecretString;

const NOTHING: Wish = Wish { login_hint: None, acr_values: None, max_age: None, renewing: None, replaces: None };
const NOW: u64 = 1_700_000_000;
const NONCE: &str = "n-0S6_WzA2Mj";
const ACCESS_TOKEN: &str = "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y";

static RSA: LazyLock<TestKey> = LazyLock::new(|| TestKey::new(Algorithm::RS256));
static KEYS: LazyLock<KeySet> = LazyLock::new(|| keys(&[RSA.jwk("k1")]));

fn keys(jwks: &[Value]) -> KeySet {
    KeySet::parse(key_set(jwks).to_string().as_bytes()).unwrap()
}

fn good() -> Value {
    json!({
        "iss": "https://id.example/realm", "aud": "app", "sub": "248289761001", "nonce": NONCE,
        "iat": NOW, "exp": NOW + 300, "name": "Ada"
    })
}

fn with(changes: Value) -> Value {
    let mut claims = good();
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn without(name: &str) -> Value {
    let mut claims = good();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn rs256(claims: &Value) -> String {
    RSA.sign(Algorithm::RS256, &json!({"alg": "RS256", "kid": "k1"}), claims)
}

fn judge_with(token: &str, keys: &KeySet, algorithms: &[Algorithm]) -> Result<VerifiedClaims, IdTokenError> {
    let secret = SecretString::new("the client's secret, which is long enough".into());
    let trusted = ["other".to_owned()];
    let rules = Rules {
        issuer: "https://id.example/realm",
        tenants: None,
        client_id: "app",
        trusted_audiences: &trusted,
        leeway: 30,
    };
    let expected = Expected {
        nonce: Nonce::Sent(NONCE),
        access_token: Some(ACCESS_TOKEN),
        code: None,
        state: None,
        in_front: false,
        wish: &NOTHING,
    };
    verify(token, Trust { keys, secret: Some(&secret), algorithms }, rules, expected, UnixTime(NOW))
}

fn judge(token: &str) -> Result<VerifiedClaims, IdTokenError> {
    judge_with(token, &KEYS, &Algorithm::ASYMMETRIC)
}

#[test]
fn a_good_token_gives_its_claims() {
    let verified = judge(&rs256(&good())).unwrap();
    assert_eq!(verified.subject(), "248289761001");
    assert_eq!(verified.claims()["name"], "Ada");
}

#[test]
fn every_algorithm_verifies_with_its_own_key_and_hash_only() {
    for algorithm in Algorithm::ASYMMETRIC {
        let key = TestKey::new(algorithm);
        let set = keys(&[key.jwk("k")]);
        let hash = digest::digest(algorithm.digest(), ACCESS_TOKEN.as_bytes());
        let at_hash = b64(&hash.as_ref()[..hash.as_ref().len() / 2]);
        let header = json!({"alg": algorithm.name(), "kid": "k"});
        let token = key.sign(algorithm, &header, &with(json!({ "at_hash": at_hash })));
        assert!(judge_with(&token, &set, &[algorithm]).is_ok(), "{algorithm:?}");

        let mut signature = token.rsplit_once('.').unwrap().1.to_owned();
        signature.replace_range(4..5, if &signature[4..5] == "A" { "B" } else { "A" });
        let forged = format!("{}.{signature}", token.rsplit_once('.').unwrap().0);
        assert_eq!(judge_with(&forged, &set, &[algorithm]).unwrap_err(), IdTokenError::Signature, "{algorithm:?}");
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token.rsplit_once('.').unwrap().1).unwrap();
        let cut = format!("{}.{}", token.rsplit_once('.').unwrap().0, b64(&bytes[1..]));
        assert_eq!(judge_with(&cut, &set, &[algorithm]).unwrap_err(), IdTokenError::Signature, "{algorithm:?}");
        let empty = format!("{}.", token.rsplit_once('.').unwrap().0);
        assert_eq!(judge_with(&empty, &set, &[algorithm]).unwrap_err(), IdTokenError::Signature, "{algorithm:?}");

        for other in Algorithm::ASYMMETRIC.into_iter().filter(|other| *other != algorithm) {
            assert_eq!(
                judge_with(&token, &set, &[other]).unwrap_err(),
                IdTokenError::Algorithm,
                "{algorithm:?} {other:?}"
            );
            // The same signature under another name.
            let renamed = key.sign(algorithm, &json!({"alg": other.name(), "kid": "k"}), &good());
            let refused = judge_with(&renamed, &set, &Algorithm::ASYMMETRIC);
            assert!(
                matches!(refused, Err(IdTokenError::Algorithm | IdTokenError::Signature)),
                "{algorithm:?} {other:?}"
            );
        }
    }
}

#[test]
fn hs256_needs_the_secret_and_to_be_asked_for() {
    let header = json!({"alg": "HS256"});
    let token = hs256(b"the client's secret, which is long enough", &header, &good());
    let none = KeySet::default();
    assert!(judge_with(&token, &none, &[Algorithm::HS256]).is_ok());
    assert_eq!(judge(&token).unwrap_err(), IdTokenError::Algorithm);
    let forged = hs256(b"another secret", &header, &good());
    assert_eq!(judge_with(&forged, &none, &[Algorithm::HS256]).unwrap_err(), IdTokenError::Signature);
    for secret in [None, Some(SecretString::new(String::new()))] {
        let rules = Rules {
            issuer: "https://id.example/realm",
            tenants: None,
            client_id: "app",
            trusted_audiences: &[],
            leeway: 30,
        };
        let trust = Trust { keys: &none, secret: secret.as_ref(), algorithms: &[Algorithm::HS256] };
        let expected = Expected {
            nonce: Nonce::Sent(NONCE),
            access_token: None,
            code: None,
            state: None,
            in_front: false,
            wish: &NOTHING,
        };
        let keyless = hs256(b"", &header, &good());
        assert_eq!(verify(&keyless, trust, rules, expected, UnixTime(NOW)).unwrap_err(), IdTokenError::UnknownKey);
    }
}

#[test]
fn the_longer_hmacs_follow_the_same_rules() {
    let secret = b"the client's secret, which is long enough";
    let none = KeySet::default();
    for algorithm in [Algorithm::HS384, Algorithm::HS512] {
        let mac = algorithm.hmac().unwrap();
        let header = json!({"alg": algorithm.name()});
        let hash = digest::digest(algorithm.digest(), ACCESS_TOKEN.as_bytes());
        let at_hash = b64(&hash.as_ref()[..hash.as_ref().len() / 2]);
        let token = hmac(mac, secret, &header, &with(json!({ "at_hash": at_hash })));
        assert!(judge_with(&token, &none, &[algorithm]).is_ok());
        assert_eq!(judge(&token).unwrap_err(), IdTokenError::Algorithm);
        let forged = hmac(mac, b"another secret", &header, &good());
        assert_eq!(judge_with(&forged, &none, &[algorithm]).unwrap_err(), IdTokenError::Signature);
        for bytes in RSA.public_bytes() {
            let confused = hmac(mac, &bytes, &header, &good());
            assert_eq!(judge(&confused).unwrap_err(), IdTokenError::Algorithm);
            assert_eq!(judge_with(&confused, &KEYS, &[algorithm]).unwrap_err(), IdTokenError::Signature);
        }
        // The same MAC under a shorter name.
        let renamed = hmac(mac, secret, &json!({"alg": "HS256"}), &good());
        assert_eq!(judge_with(&renamed, &none, &[Algorithm::HS256]).unwrap_err(), IdTokenError::Signature);
    }
}

#[test]
fn a_public_key_is_never_a_secret() {
    for bytes in RSA.public_bytes() {
        for header in [json!({"alg": "HS256"}), json!({"alg": "HS256", "kid": "k1"})] {
            let token = hs256(&bytes, &header, &good());
            assert_eq!(judge(&token).unwrap_err(), IdTokenError::Algorithm);
            assert_eq!(judge_with(&token, &KEYS, &[Algorithm::HS256]).unwrap_err(), IdTokenError::Signature);
        }
    }
}

#[test]
fn bad_headers_are_refused() {
    let stranger = TestKey::new(Algorithm::RS256);
    let embedded = json!({
        "alg": "RS256", "jwk": stranger.jwk("k1"), "jku": "https://evil.example/jwks", "x5u": "https://evil.example/x5u"
    });
    let cases = [
        (r#"{"alg":"none"}"#, IdTokenError::Algorithm),
        (r#"{"alg":"NonE","kid":"k1"}"#, IdTokenError::Algorithm),
        (r#"{"alg":"rs256","kid":"k1"}"#, IdTokenError::Algorithm),
        (r#"{"alg":"RSA-OAEP","kid":"k1"}"#, IdTokenError::Algorithm),
        (r#"{"alg":"ES256","kid":"k1"}"#, IdTokenError::Algorithm),
        (r#"{"alg":"RS256","kid":"k2"}"#, IdTokenError::UnknownKey),
        (r#"{"alg":"RS256","kid":"k1","crit":["exp"]}"#, IdTokenError::Critical),
        (r#"{"alg":"RS256","kid":"k1","crit":[]}"#, IdTokenError::Critical),
        (r#"{"alg":"RS256","kid":"k1","crit":null}"#, IdTokenError::Critical),
        (r#"{"alg":"RS256","kid":"k1","b64":false}"#, IdTokenError::Critical),
        (r#"{"alg":"dir","enc":"A256GCM"}"#, IdTokenError::Malformed),
        (r#"{"alg":"RS256","kid":"k1","enc":"A256GCM"}"#, IdTokenError::Malformed),
        (r#"{"kid":"k1"}"#, IdTokenError::Malformed),
        (r#"{"alg":null,"kid":"k1"}"#, IdTokenError::Malformed),
        (r#"{"alg":["RS256"],"kid":"k1"}"#, IdTokenError::Malformed),
        (r#"{"alg":"RS256","kid":1}"#, IdTokenError::Malformed),
        (r#"{"alg":"RS256","alg":"RS256","kid":"k1"}"#, IdTokenError::Malformed),
        (r#"{"alg":"none","alg":"RS256","kid":"k1"}"#, IdTokenError::Malformed),
        (r#"{"alg":"RS256","kid":"k0","kid":"k1"}"#, IdTokenError::Malformed),
        (r#"["RS256"]"#, IdTokenError::Malformed),
        (r#"{"alg":"RS256","kid":"k1"} x"#, IdTokenError::Malformed),
        ("", IdTokenError::Malformed),
    ];
    for (header, expected) in cases {
        let token = RSA.sign_text(Algorithm::RS256, header, &good().to_string());
        assert_eq!(judge(&token).unwrap_err(), expected, "{header}");
    }
    let token = stranger.sign(Algorithm::RS256, &embedded, &good());
    assert_eq!(judge(&token).unwrap_err(), IdTokenError::UnknownKey);
    let token = stranger.sign(Algorithm::RS256, &json!({"alg": "RS256", "kid": "k1"}), &good());
    assert_eq!(judge(&token).unwrap_err(), IdTokenError::Signature);
    // Where a header carries a key it is overlooked, not obeyed.
    let overlooked = RSA.sign(Algorithm::RS256, &embedded, &good());
    assert!(judge(&overlooked).is_ok());
}

#[test]
fn what_is_not_a_token_is_malformed() {
    let token = rs256(&good());
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (header, payload) = signed.split_once('.').unwrap();
    let mut odd = payload.to_owned();
    odd.push('A');
    let cases = [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        signed.to_owned(),
        format!("{token}."),
        format!(".{token}"),
        format!("{token}.x.y"),
        ".".repeat(60_000),
        format!("{token}="),
        format!("{token}\n"),
        format!(" {token}"),
        format!("{header}=.{payload}.{signature}"),
        format!("{header}..{payload}.{signature}"),
        token.replace(signature, &format!("+/{}", &signature[2..])),
        "x".repeat(64 * 1024 + 1),
        format!("{token}{}", "A".repeat(64 * 1024)),
        "ä.ö.ü".to_owned(),
    ];
    for case in cases {
        assert_eq!(judge(&case).unwrap_err(), IdTokenError::Malformed, "{}", case.chars().take(80).collect::<String>());
    }
    // Padded or changed after signing: the signature is over the text, so it says so first.
    for payload in [format!("{payload}="), odd] {
        let refused = judge(&format!("{header}.{payload}.{signature}")).unwrap_err();
        assert_eq!(refused, IdTokenError::Signature);
    }
}

#[test]
fn claims_that_can_be_read_two_ways_are_malformed() {
    let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(40), "]".repeat(40));
    let cases = [
        r#"{"sub":"a","sub":"b"}"#,
        r#"{"aud":"app","aud":"evil"}"#,
        r#"{"a":{"b":1,"b":2}}"#,
        r#"{"exp":1e999}"#,
        r#"{"sub":"a"}{}"#,
        r#"[]"#,
        r#""text""#,
        "{",
        &deep,
    ];
    for claims in cases {
        let token = RSA.sign_text(Algorithm::RS256, r#"{"alg":"RS256","kid":"k1"}"#, claims);
        assert_eq!(judge(&token).unwrap_err(), IdTokenError::Malformed, "{claims}");
    }
}

#[test]
fn wrong_claims_are_refused() {
    use IdTokenError::*;
    let cases = [
        (without("iss"), Issuer),
        (with(json!({"iss": "https://id.example/realm/"})), Issuer),
        (with(json!({"iss": "https://ID.example/realm"})), Issuer),
        (with(json!({"iss": ""})), Issuer),
        (with(json!({"iss": ["https://id.example/realm"]})), ClaimType("iss")),
        (without("aud"), Audience),
        (with(json!({"aud": "App"})), Audience),
        (with(json!({"aud": []})), Audience),
        (with(json!({"aud": ["other"]})), Audience),
        (with(json!({"aud": ["app", "stranger"]})), Audience),
        (with(json!({"aud": "app other"})), Audience),
        (with(json!({"aud": {"app": true}})), ClaimType("aud")),
        (with(json!({"aud": ["app", 1]})), ClaimType("aud")),
        (with(json!({"aud": null})), ClaimType("aud")),
        (with(json!({"azp": "other"})), AuthorizedParty),
        (with(json!({"aud": ["app", "other"], "azp": "other"})), AuthorizedParty),
        (with(json!({"azp": ""})), AuthorizedParty),
        (with(json!({"azp": ["app"]})), ClaimType("azp")),
        (without("exp"), Expired),
        (with(json!({"exp": NOW - 30})), Expired),
        (with(json!({"exp": 0})), Expired),
        (with(json!({"exp": (NOW + 300).to_string()})), ClaimType("exp")),
        (with(json!({"exp": 1e300})), ClaimType("exp")),
        (with(json!({"exp": -1})), ClaimType("exp")),
        (with(json!({"exp": u64::MAX})), ClaimType("exp")),
        (with(json!({"exp": true})), ClaimType("exp")),
        (with(json!({"exp": null})), ClaimType("exp")),
        (without("iat"), NotYetValid),
        (with(json!({"iat": NOW + 31})), NotYetValid),
        (with(json!({"iat": "now"})), ClaimType("iat")),
        (with(json!({"iat": -5})), ClaimType("iat")),
        (with(json!({"nbf": NOW + 31})), NotYetValid),
        (with(json!({"nbf": "now"})), ClaimType("nbf")),
        (without("nonce"), Nonce),
        (with(json!({"nonce": ""})), Nonce),
        (with(json!({"nonce": format!("{NONCE}x")})), Nonce),
        (with(json!({"nonce": &NONCE[1..]})), Nonce),
        (with(json!({"nonce": [NONCE]})), ClaimType("nonce")),
        (with(json!({"at_hash": ""})), AccessTokenHash),
        (with(json!({"at_hash": "77QmUPtjPfzWtF2AnpK9RR"})), AccessTokenHash),
        (with(json!({"at_hash": b64(digest::digest(&digest::SHA256, ACCESS_TOKEN.as_bytes()))})), AccessTokenHash),
        (with(json!({"at_hash": null})), ClaimType("at_hash")),
        (without("sub"), Subject),
        (with(json!({"sub": ""})), Subject),
        (with(json!({"sub": "x".repeat(256)})), Subject),
        (with(json!({"sub": "ä"})), Subject),
        (with(json!({"sub": 7})), ClaimType("sub")),
        (with(json!({"sub": null})), ClaimType("sub")),
    ];
    for (claims, expected) in cases {
        assert_eq!(judge(&rs256(&claims)).unwrap_err(), expected, "{claims}");
    }
}

#[test]
fn unusual_but_right_claims_are_accepted() {
    // The example of Core appendix A.3.
    let at_hash = "77QmUPtjPfzWtF2AnpK9RQ";
    let cases = [
        with(json!({ "at_hash": at_hash })),
        with(json!({"aud": ["app"]})),
        with(json!({"aud": ["other", "app"]})),
        with(json!({"aud": ["other", "app"], "azp": "app"})),
        with(json!({"exp": NOW - 29})),
        with(json!({"exp": NOW as f64 - 29.0})),
        with(json!({"exp": NOW as f64 + 0.5})),
        with(json!({"iat": NOW + 30, "nbf": NOW + 30})),
        with(json!({"iat": NOW as f64 + 30.9})),
        with(json!({"iat": 0})),
        with(json!({"sub": "x".repeat(255)})),
    ];
    for claims in cases {
        assert!(judge(&rs256(&claims)).is_ok(), "{claims}");
    }
}

#[test]
fn an_empty_nonce_is_never_expected() {
    let rules = Rules {
        issuer: "https://id.example/realm",
        tenants: None,
        client_id: "app",
        trusted_audiences: &[],
        leeway: 30,
    };
    let trust = Trust { keys: &KEYS, secret: None, algorithms: &Algorithm::ASYMMETRIC };
    let token = rs256(&with(json!({"nonce": ""})));
    let expected = Expected {
        nonce: Nonce::Sent(""),
        access_token: None,
        code: None,
        state: None,
        in_front: false,
        wish: &NOTHING,
    };
    assert_eq!(verify(&token, trust, rules, expected, UnixTime(NOW)).unwrap_err(), IdTokenError::Nonce);
}

#[test]
fn tokens_without_kid_try_every_fitting_key() {
    let (a, b, ec) = (TestKey::new(Algorithm::RS256), TestKey::new(Algorithm::RS256), TestKey::new(Algorithm::ES256));
    let set = keys(&[ec.jwk("e"), a.jwk("a"), b.jwk("b")]);
    let header = json!({"alg": "RS256"});
    for key in [&a, &b] {
        assert!(judge_with(&key.sign(Algorithm::RS256, &header, &good()), &set, &Algorithm::ASYMMETRIC).is_ok());
    }
    let stranger = RSA.sign(Algorithm::RS256, &header, &good());
    let refused = judge_with(&stranger, &set, &Algorithm::ASYMMETRIC).unwrap_err();
    assert_eq!(refused, IdTokenError::UnknownKey);
}

#[test]
fn two_keys_of_one_name_are_both_tried() {
    let other = TestKey::new(Algorithm::RS256);
    let set = keys(&[other.jwk("k1"), RSA.jwk("k1")]);
    assert!(judge_with(&rs256(&good()), &set, &Algorithm::ASYMMETRIC).is_ok());
}

#[test]
fn a_key_without_a_name_fits_any() {
    let mut jwk = RSA.jwk("");
    jwk.as_object_mut().unwrap().remove("kid");
    assert!(judge_with(&rs256(&good()), &keys(&[jwk.clone()]), &Algorithm::ASYMMETRIC).is_ok());
    let stranger = TestKey::new(Algorithm::RS256);
    let token = stranger.sign(Algorithm::RS256, &json!({"alg": "RS256", "kid": "k1"}), &good());
    let refused = judge_with(&token, &keys(&[jwk]), &Algorithm::ASYMMETRIC).unwrap_err();
    assert_eq!(refused, IdTokenError::UnknownKey);
}

#[test]
fn any_changed_character_is_refused() {
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::ES512, Algorithm::EdDSA] {
        let key = TestKey::new(algorithm);
        let set = keys(&[key.jwk("k1")]);
        let token = key.sign(algorithm, &json!({"alg": algorithm.name(), "kid": "k1"}), &good());
        assert!(judge_with(&token, &set, &Algorithm::ASYMMETRIC).is_ok());
        for index in 0..token.len() {
            let other = if &token[index..=index] == "B" { "C" } else { "B" };
            let mut changed = token.clone();
            changed.replace_range(index..=index, other);
            assert!(judge_with(&changed, &set, &Algorithm::ASYMMETRIC).is_err(), "{algorithm:?} at {index}");
        }
    }
}

proptest::proptest! {
    #[test]
    fn no_text_is_a_token_or_a_panic(
        text in "[A-Za-z0-9_=. -]{0,80}",
        header in proptest::collection::vec(proptest::num::u8::ANY, 0..60),
        claims in proptest::collection::vec(proptest::num::u8::ANY, 0..60),
    ) {
        for token in [text.clone(), format!("{}.{}.{}", b64(&header), b64(&claims), b64(&text))] {
            proptest::prop_assert!(judge(&token).is_err());
        }
        proptest::prop_assert!(KeySet::parse(&header).is_err());
    }
}
