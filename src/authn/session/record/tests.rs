use proptest::prelude::*;
use serde_json::json;

use super::*;

fn record() -> Record {
    Record {
        marks: Marks::for_test(1),
        issued_at: UnixTime(1_000),
        expires_at: UnixTime(2_000),
        party: Party::of("https://id.example", "app"),
        mapping: [3; 8],
        access_expires_at: Some(UnixTime(1_300)),
        proof: Proof::default(),
        generation: 0,
        due: None,
        anew: None,
    }
}

fn mapped() -> Mapped {
    Mapped {
        name: "ada".to_owned(),
        groups: vec!["/admins".to_owned()],
        roles: vec!["admin".to_owned(), "bad\0role".to_owned(), "auditor".to_owned()],
        headers: vec![Some("ada".to_owned()), None, Some(String::new())],
    }
}

fn jwt(claims: &Value) -> String {
    joined(br#"{"alg":"RS256"}"#, claims.to_string().as_bytes(), &[9; 256])
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

#[test]
fn a_session_gives_back_what_it_was_made_of() {
    let id = jwt(&json!({"sub": "1", "email": "a@b"}));
    let access = jwt(&json!({"scope": "openid"}));
    let tokens = StoredTokens { id: &id, access: &access, refresh: Some("opaque"), access_expires_in: None };
    let userinfo = object(json!({"sub": "other", "name": "Ada"}));
    let packed = pack(&record(), &mapped(), Some(&userinfo), &tokens).unwrap();
    let (record, contents) = unpack(packed).unwrap();
    assert_eq!(contents.name(), "ada");
    assert_eq!(contents.roles().iter().collect::<Vec<_>>(), ["admin", "auditor"]);
    assert!(contents.groups().contains("/admins") && !contents.groups().contains("admins"));
    assert_eq!(contents.claims().unwrap(), object(json!({"sub": "1", "email": "a@b", "name": "Ada"})));
    let back = contents.tokens().unwrap();
    assert_eq!(back.id.unwrap().expose_secret(), id);
    assert_eq!(back.refresh.unwrap().expose_secret(), "opaque");
    assert_eq!(record.live_access_token(&contents, UnixTime(1_299)).unwrap().expose_secret(), access);
    assert!(record.live_access_token(&contents, UnixTime(1_300)).is_none());
    let headers = contents.headers().to_vec();
    assert_eq!(headers, [Some("ada".parse().unwrap()), None, Some("".parse().unwrap())]);
}

#[test]
fn when_to_renew_is_given_back_whatever_there_is_of_it() {
    let due = Due { at: UnixTime(1_100), stale_at: UnixTime(1_160) };
    for due in [None, Some(due)] {
        for anew in [None, Some(false), Some(true)] {
            let anew = anew.map(|by_browser| Anew { at: UnixTime(1_900), by_browser });
            let written = postcard::to_stdvec(&Record { due, anew, ..record() }).unwrap();
            let read: Record = postcard::from_bytes(&written).unwrap();
            assert_eq!((read.due, read.anew), (due, anew));
        }
    }
}

#[test]
fn userinfo_overrides_neither_who_nor_when_and_takes_its_own_verification_along() {
    let claims = object(json!({"sub": "1", "exp": 5, "acr": "1", "email": "a@b", "email_verified": true}));
    let userinfo = object(json!({"sub": "2", "exp": 9, "acr": "9", "auth_time": 1, "email": "other@b"}));
    let merged = merged(&claims, Some(&userinfo));
    assert_eq!(merged, object(json!({"sub": "1", "exp": 5, "acr": "1", "email": "other@b"})).clone());
}

#[test]
fn issuer_and_client_are_told_apart() {
    assert_ne!(Party::of("https://a", "b"), Party::of("https://ab", ""));
    assert_ne!(Party::of("https://a", "b"), Party::of("https://a", "c"));
}

#[test]
fn the_largest_claim_is_named() {
    let claims = object(json!({"sub": "1", "groups": ["a".repeat(50)], "name": "Ada"}));
    let error = PackError::largest_of(&claims, 20_000);
    assert_eq!((error.claim.as_str(), error.bytes), ("groups", 54));
}

#[test]
fn inflation_is_bounded() {
    assert!(inflate(&deflate(&vec![0; MAX_INFLATED], b""), b"").is_some());
    assert!(inflate(&deflate(&vec![0; MAX_INFLATED + 1], b""), b"").is_none());
}

#[test]
fn a_hot_layer_of_any_size_serves_as_dictionary() {
    let text =
        |seed: usize, length: usize| (0..length).map(|at| (at.wrapping_mul(at + seed) >> 3) as u8).collect::<Vec<_>>();
    for length in [0, 1, 2, 3, 500, 60_000, 65_520, 131_055, 131_056, 131_057, 140_000, MAX_INFLATED] {
        let hot = text(7, length);
        for cold in [text(3, 2_000), hot.clone(), b"x".to_vec(), Vec::new()] {
            let packed = deflate(&cold, &hot);
            assert_eq!(inflate(&packed, &hot), Some(cold), "{length}");
        }
    }
}

#[test]
fn groups_cost_their_room_only_once() {
    let groups: Vec<String> = (0..10).map(|group| format!("/{}", URL_SAFE_NO_PAD.encode([group * 23; 18]))).collect();
    let size = |groups: &[String]| {
        let claims = json!({"iss": "https://id.example.com/realms/demo", "sub": "1", "groups": groups});
        let (id, access) = (jwt(&claims), jwt(&claims));
        let tokens = StoredTokens { id: &id, access: &access, refresh: None, access_expires_in: None };
        let mapped = Mapped {
            name: "1".to_owned(),
            groups: groups.to_vec(),
            roles: groups.to_vec(),
            headers: vec![Some(groups.join(",")), Some(groups.join(","))],
        };
        pack(&record(), &mapped, None, &tokens).unwrap().len()
    };
    let cost = size(&groups) - size(&[]);
    let plain = groups.concat().len();
    assert!(cost < plain * 3 / 2, "ten groups of {plain} bytes cost {cost}");
}

proptest! {
    #[test]
    fn any_token_comes_back_byte_for_byte(id in token(), access in token(), refresh in proptest::option::of(token())) {
        let tokens =
            StoredTokens { id: &id, access: &access, refresh: refresh.as_deref(), access_expires_in: None };
        let (_, contents) = unpack(pack(&record(), &mapped(), None, &tokens).unwrap()).unwrap();
        let back = contents.tokens().unwrap();
        let text = |token: Option<SecretString>| token.map(|token| token.expose_secret().to_owned());
        prop_assert_eq!(text(back.id), Some(id));
        prop_assert_eq!(text(back.access), Some(access));
        prop_assert_eq!(text(back.refresh), refresh);
    }

    #[test]
    fn garbage_is_no_session(bytes: Vec<u8>) {
        // Whatever reads as one must at least not panic further on.
        if let Some((_, contents)) = unpack(bytes) {
            let _ = (contents.claims(), contents.tokens());
        }
    }
}

fn token() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{0,80}",
        "[A-Za-z0-9_-]{0,20}\\.[A-Za-z0-9_-]{0,20}\\.[A-Za-z0-9_-]{0,20}",
        "[A-Za-z0-9_=-]{0,9}(\\.[A-Za-z0-9_=-]{0,9}){0,5}",
    ]
}
