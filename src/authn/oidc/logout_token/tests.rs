//! Every way for a logout token to be wrong, and each that is right.

use std::sync::LazyLock;

use serde_json::json;

use super::*;
use crate::authn::oidc::Wish;
use crate::authn::oidc::id_token::{self, Expected, IdTokenError, Nonce};
use crate::authn::oidc::jose::Algorithm;
use crate::authn::oidc::jwks::KeySet;
use crate::authn::oidc::test_keys::{TestKey, hs256, key_set};
use crate::secret::SecretString;

const NOW: u64 = 1_700_000_000;
const DAY: u64 = 86_400;
const ISSUER: &str = "https://id.example/realm";

static RSA: LazyLock<TestKey> = LazyLock::new(|| TestKey::new(Algorithm::RS256));
static KEYS: LazyLock<KeySet> =
    LazyLock::new(|| KeySet::parse(key_set(&[RSA.jwk("k1")]).to_string().as_bytes()).unwrap());

fn good() -> Value {
    json!({
        "iss": ISSUER, "aud": "app", "sub": "248289761001", "sid": "s-1", "jti": "t-1",
        "iat": NOW, "exp": NOW + 120, "events": { EVENT: {} }
    })
}

/// `null` takes a claim out.
fn with(changes: Value) -> Value {
    let mut claims = good();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

fn signed(header: &Value, claims: &Value) -> String {
    RSA.sign(Algorithm::RS256, header, claims)
}

fn header(typ: &str) -> Value {
    json!({"alg": "RS256", "kid": "k1", "typ": typ})
}

fn judge(token: &str, algorithms: &[Algorithm]) -> Result<Logout, LogoutTokenError> {
    let secret = SecretString::new("the client's secret, which is long enough".into());
    let trusted = ["other".to_owned()];
    let rules = Rules { issuer: ISSUER, tenants: None, client_id: "app", trusted_audiences: &trusted, leeway: 30 };
    let trust = Trust { keys: &KEYS, secret: Some(&secret), algorithms };
    UnprovenLogout::read(token)?.verify(trust, rules, (UnixTime(NOW), Duration::from_secs(DAY)))
}

fn claims(changes: Value) -> Result<Logout, LogoutTokenError> {
    judge(&signed(&header("logout+jwt"), &with(changes)), &Algorithm::ASYMMETRIC)
}

#[test]
fn a_good_token_tells_who_and_which_session() {
    let told = claims(json!({})).unwrap();
    assert_eq!((told.subject.as_deref(), told.session.as_deref()), (Some("248289761001"), Some("s-1")));
    assert_eq!(told.begun_by, UnixTime(NOW + 31), "the second of its making, and the skew");
    assert_eq!(told.good_for, Duration::from_secs(150));
    let long = claims(json!({ "exp": NOW + DAY })).unwrap();
    assert_eq!(long.good_for, Duration::from_secs(DAY + 30), "as long as it counts");
    for right in [
        json!({ "sub": null }),
        json!({ "sid": null }),
        json!({ "aud": ["app"] }),
        json!({ "aud": ["other", "app"] }),
        json!({ "events": { EVENT: { "more": 1 }, "https://id.example/another": 7 } }),
        json!({ "unheard_of": [1, 2], "auth_time": NOW }),
        json!({ "iat": NOW + 30 }),
        json!({ "iat": NOW - 629, "exp": NOW - 29 }),
        json!({ "iat": NOW - 3_600, "exp": NOW + 1 }),
        json!({ "iat": NOW - DAY - 31, "exp": NOW + DAY }),
        json!({ "iat": NOW as f64 + 0.5 }),
    ] {
        assert!(claims(right.clone()).is_ok(), "{right}");
    }
}

#[test]
fn its_type_is_its_own_or_the_general_one() {
    for typ in ["logout+jwt", "LOGOUT+JWT", "application/logout+jwt", "Application/Logout+JWT", "JWT", "jwt"] {
        assert!(judge(&signed(&header(typ), &good()), &Algorithm::ASYMMETRIC).is_ok(), "{typ}");
    }
    assert!(judge(&signed(&json!({"alg": "RS256", "kid": "k1"}), &good()), &Algorithm::ASYMMETRIC).is_ok());
    for typ in ["at+jwt", "secevent+jwt", "logout", "logout+jwt2", "", " JWT", "text/jwt", "application/a/jwt", "JOSE"]
    {
        let refused = judge(&signed(&header(typ), &good()), &Algorithm::ASYMMETRIC);
        assert_eq!(refused, Err(LogoutTokenError::Kind), "{typ}");
    }
    let number = judge(&signed(&json!({"alg": "RS256", "kid": "k1", "typ": 1}), &good()), &Algorithm::ASYMMETRIC);
    assert_eq!(number, Err(LogoutTokenError::Malformed));
}

#[test]
fn each_claim_that_is_wrong_is_refused_by_name() {
    use LogoutTokenError as E;
    for (changes, error) in [
        (json!({ "iss": null }), E::Issuer),
        (json!({ "iss": "https://id.example/realm/" }), E::Issuer),
        (json!({ "iss": 1 }), E::ClaimType("iss")),
        (json!({ "aud": null }), E::Audience),
        (json!({ "aud": "another" }), E::Audience),
        (json!({ "aud": [] }), E::Audience),
        (json!({ "aud": ["app", "stranger"] }), E::Audience),
        (json!({ "azp": "another" }), E::Audience),
        (json!({ "iat": null }), E::NotYetValid),
        (json!({ "iat": NOW + 31 }), E::NotYetValid),
        (json!({ "nbf": NOW + 31 }), E::NotYetValid),
        (json!({ "iat": NOW - DAY - 32, "exp": NOW + 120 }), E::TooOld),
        (json!({ "iat": 0, "exp": NOW + 120 }), E::TooOld),
        (json!({ "iat": "now" }), E::ClaimType("iat")),
        (json!({ "exp": null }), E::Expired),
        (json!({ "exp": NOW - 30 }), E::Expired),
        (json!({ "exp": "later" }), E::ClaimType("exp")),
        (json!({ "jti": null }), E::Identifier),
        (json!({ "jti": "" }), E::Identifier),
        (json!({ "jti": 7 }), E::ClaimType("jti")),
        (json!({ "events": null }), E::Events),
        (json!({ "events": {} }), E::Events),
        (json!({ "events": [EVENT] }), E::Events),
        (json!({ "events": EVENT }), E::Events),
        (json!({ "events": { "http://schemas.openid.net/event/backchannel-logout/": {} } }), E::Events),
        (json!({ "events": { EVENT: true } }), E::Events),
        (json!({ "events": { EVENT: [] } }), E::Events),
        (json!({ "events": { EVENT: null } }), E::Events),
        (json!({ "nonce": "n" }), E::Nonce),
        (json!({ "sub": null, "sid": null }), E::Subject),
        (json!({ "sub": "" }), E::Subject),
        (json!({ "sid": "" }), E::Subject),
        (json!({ "sub": 1 }), E::ClaimType("sub")),
        (json!({ "sid": ["s-1"] }), E::ClaimType("sid")),
    ] {
        assert_eq!(claims(changes.clone()), Err(error), "{changes}");
    }
    let mut null = good();
    null["nonce"] = Value::Null;
    let refused = judge(&signed(&header("logout+jwt"), &null), &Algorithm::ASYMMETRIC);
    assert_eq!(refused, Err(E::Nonce), "a nonce of null is one");
}

#[test]
fn it_is_signed_as_the_clients_id_tokens_are() {
    use LogoutTokenError as E;
    let token = signed(&header("logout+jwt"), &good());
    assert!(judge(&token, &[Algorithm::RS256]).is_ok());
    assert_eq!(judge(&token, &[Algorithm::ES256]), Err(E::Algorithm));
    let secret = b"the client's secret, which is long enough";
    let symmetric = hs256(secret, &json!({"alg": "HS256", "typ": "logout+jwt"}), &good());
    assert_eq!(judge(&symmetric, &Algorithm::ASYMMETRIC), Err(E::Algorithm));
    assert!(judge(&symmetric, &[Algorithm::HS256]).is_ok());
    let stranger = TestKey::new(Algorithm::RS256).sign(Algorithm::RS256, &header("logout+jwt"), &good());
    assert_eq!(judge(&stranger, &[Algorithm::RS256]), Err(E::Signature));
    let unknown = signed(&json!({"alg": "RS256", "kid": "k2", "typ": "logout+jwt"}), &good());
    assert_eq!(judge(&unknown, &[Algorithm::RS256]), Err(E::UnknownKey));
    for (changed, error) in [
        (json!({"alg": "none", "typ": "logout+jwt"}), E::Algorithm),
        (json!({"alg": "RS256", "kid": "k1", "typ": "logout+jwt", "crit": ["x"], "x": 1}), E::Critical),
    ] {
        assert_eq!(judge(&signed(&changed, &good()), &Algorithm::ASYMMETRIC), Err(error), "{changed}");
    }
    assert_eq!(judge("a.b.c", &Algorithm::ASYMMETRIC), Err(E::Malformed));
    assert_eq!(judge("", &Algorithm::ASYMMETRIC), Err(E::Malformed));
}

#[test]
fn neither_kind_of_token_passes_for_the_other() {
    let id_token = json!({
        "iss": ISSUER, "aud": "app", "sub": "1", "sid": "s-1", "jti": "i", "nonce": "n", "iat": NOW, "exp": NOW + 300
    });
    let refused = judge(&signed(&header("JWT"), &id_token), &Algorithm::ASYMMETRIC);
    assert_eq!(refused, Err(LogoutTokenError::Events));

    let as_id_token = |header: &Value, changes| {
        let mut claims = with(changes);
        claims["nonce"] = json!("n");
        let rules = Rules { issuer: ISSUER, tenants: None, client_id: "app", trusted_audiences: &[], leeway: 30 };
        let trust = Trust { keys: &KEYS, secret: None, algorithms: &Algorithm::ASYMMETRIC };
        let wish = Wish::default();
        let expected = Expected {
            nonce: Nonce::Sent("n"),
            access_token: None,
            code: None,
            state: None,
            in_front: false,
            wish: &wish,
        };
        id_token::verify(&signed(header, &claims), trust, rules, expected, UnixTime(NOW)).map(|_| ())
    };
    assert_eq!(as_id_token(&header("JWT"), json!({})), Err(IdTokenError::Kind));
    assert_eq!(as_id_token(&header("logout+jwt"), json!({ "events": null })), Err(IdTokenError::Kind));
    assert_eq!(as_id_token(&header("application/Logout+JWT"), json!({ "events": null })), Err(IdTokenError::Kind));
    assert_eq!(as_id_token(&header("JWT"), json!({ "events": null })), Ok(()));
}
