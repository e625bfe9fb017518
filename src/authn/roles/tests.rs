use proptest::prelude::*;
use serde_json::json;

use super::*;

const AT_DEFAULT: Whose<'_> = Whose { provider: "default", tenant: None };

fn claims(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn path(names: &[&str]) -> ClaimPath {
    ClaimPath(names.iter().map(|&name| name.to_owned()).collect())
}

fn strings(items: &[&str]) -> Vec<String> {
    items.iter().map(|&item| item.to_owned()).collect()
}

fn table(entries: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
    entries.iter().map(|(key, roles)| ((*key).to_owned(), strings(roles))).collect()
}

fn map(settings: Settings, value: Value) -> Result<Mapped, MapError> {
    Mapper::new(settings).map(&claims(value), AT_DEFAULT)
}

fn roles(settings: Settings, value: Value) -> Vec<String> {
    map(settings, value).unwrap().roles
}

/// The one header of settings with only this source.
fn header(source: HeaderSource, list_format: ListFormat, value: Value) -> Option<String> {
    let headers = vec![(HeaderName::from_static("x-one"), source)];
    map(Settings { headers, list_format, ..Settings::default() }, value).unwrap().headers.remove(0)
}

fn keycloak() -> Value {
    json!({
        "iss": "https://id.example.com/realms/demo", "sub": "f:1:ada", "aud": "app", "exp": 2, "iat": 1, "nonce": "n",
        "at_hash": "h", "preferred_username": "ada", "name": "Ada Lovelace", "email": "ada@example.com",
        "email_verified": true, "groups": ["/admins", "/staff/night shift"],
        "realm_access": {"roles": ["offline_access", "auditor"]},
        "resource_access": {"app": {"roles": ["editor"]}, "account": {"roles": ["view-profile"]}},
    })
}

fn entra() -> Value {
    json!({
        "iss": "https://login.example.com/t/v2.0", "sub": "AAAA", "oid": "0000-1", "tid": "t", "name": "Ada Lovelace",
        "preferred_username": "ada@example.com", "email": "ada@example.com", "roles": ["Task.Write", "Task.Read"],
        "groups": ["6f1c-1", "6f1c-2"],
    })
}

fn auth0() -> Value {
    json!({
        "iss": "https://tenant.example.com/", "sub": "auth0|5f7c", "nickname": "ada", "email": "ada@example.com",
        "email_verified": false, "https://example.com/roles": ["admin", "editor"],
        "https://example.com/app.metadata": {"plan.name": "gold"},
    })
}

#[test]
fn a_keycloak_like_user_has_groups_and_realm_roles_by_default() {
    let mapped = map(Settings::default(), keycloak()).unwrap();
    assert_eq!(mapped.name, "f:1:ada");
    assert_eq!(mapped.groups, ["/admins", "/staff/night shift"]);
    assert_eq!(mapped.roles, ["/admins", "/staff/night shift", "offline_access", "auditor"]);
    let expected = [
        Some("f:1:ada"),
        Some("ada@example.com"),
        Some("ada"),
        Some("/admins,/staff/night shift"),
        Some("/admins,/staff/night shift,offline_access,auditor"),
    ];
    assert_eq!(mapped.headers.iter().map(Option::as_deref).collect::<Vec<_>>(), expected);
}

#[test]
fn an_entra_like_user_has_application_roles_and_an_email_only_when_it_is_trusted() {
    let mapped = map(Settings::default(), entra()).unwrap();
    assert_eq!(mapped.roles, ["6f1c-1", "6f1c-2", "Task.Write", "Task.Read"]);
    assert_eq!(mapped.headers[1], None);
    let trusting = Settings { trust_unverified_email: true, ..Settings::default() };
    assert_eq!(map(trusting, entra()).unwrap().headers[1].as_deref(), Some("ada@example.com"));
}

#[test]
fn an_auth0_like_user_has_roles_from_a_claim_named_by_a_url() {
    let roles_claims = vec![path(&["https://example.com/roles"])];
    assert_eq!(roles(Settings { roles_claims, ..Settings::default() }, auth0()), ["admin", "editor"]);
    let plan = HeaderSource::Claim(path(&["https://example.com/app.metadata", "plan.name"]));
    assert_eq!(header(plan, ListFormat::Comma, auth0()).as_deref(), Some("gold"));
}

#[test]
fn a_plain_name_is_never_taken_apart() {
    let dotted = Settings { roles_claims: vec![path(&["realm_access.roles"])], ..Settings::default() };
    assert_eq!(roles(dotted.clone(), keycloak()), [""; 0]);
    assert_eq!(roles(dotted, json!({"sub": "a", "realm_access.roles": ["x"]})), ["x"]);
}

#[test]
fn nested_paths_reach_as_deep_as_they_are_written_and_no_further() {
    for (names, expected) in [
        (&["resource_access", "app", "roles"][..], &["editor"][..]),
        (&["resource_access", "other", "roles"], &[]),
        (&["resource_access", "app"], &[]),
        (&["resource_access"], &[]),
        (&["groups", "0"], &[]),
        (&["sub", "roles"], &[]),
        (&[], &[]),
    ] {
        let settings = Settings { roles_claims: vec![path(names)], ..Settings::default() };
        assert_eq!(roles(settings, keycloak()), expected, "{names:?}");
    }
}

#[test]
fn a_roles_claim_is_read_by_its_json_type() {
    for (claim, expected) in [
        (json!("admin"), &["admin"][..]),
        (json!("admin editor,auditor"), &["admin editor,auditor"]),
        (json!(["a", 7, "b"]), &["a", "7", "b"]),
        (json!(["a", null, true, ["b"], {"c": "d"}]), &["a"]),
        (json!([]), &[]),
        (json!({"admin": true}), &[]),
        (json!(true), &[]),
        (json!(7), &[]),
        (json!(null), &[]),
    ] {
        assert_eq!(roles(Settings::default(), json!({"sub": "s", "roles": claim})), expected, "{claim}");
    }
}

#[test]
fn the_union_of_roles_keeps_the_order_of_first_appearance() {
    let settings = Settings {
        individual_roles: table(&[("ada", &["auditor", "a"])]),
        default_roles: strings(&["user", "b"]),
        ..Settings::default()
    };
    let claims = json!({"sub": "ada", "roles": ["b", "c"], "groups": ["a", "b", "a"]});
    assert_eq!(roles(settings, claims), ["a", "b", "c", "auditor", "user"]);
}

#[test]
fn with_a_mapping_only_named_values_give_roles() {
    let mapping = table(&[("/admins", &["admin", "operator"]), ("auditor", &["reader"]), ("/ADMINS", &["no"])]);
    let settings = Settings { role_mapping: Some(mapping), ..Settings::default() };
    assert_eq!(roles(settings.clone(), keycloak()), ["admin", "operator", "reader"]);
    assert_eq!(roles(settings.clone(), json!({"sub": "s", "roles": ["admin", "/admins "]})), [""; 0]);
    let nothing = Settings { role_mapping: Some(BTreeMap::new()), ..settings };
    assert_eq!(roles(nothing, keycloak()), [""; 0]);
}

#[test]
fn individual_roles_go_by_the_exact_name_and_default_roles_to_everyone() {
    let settings = Settings {
        name_claim: path(&["preferred_username"]),
        role_mapping: Some(BTreeMap::new()),
        individual_roles: table(&[("ada", &["auditor"]), ("Ada", &["no"]), ("f:1:ada", &["no"])]),
        default_roles: strings(&["user"]),
        ..Settings::default()
    };
    assert_eq!(roles(settings.clone(), keycloak()), ["auditor", "user"]);
    assert_eq!(roles(settings, entra()), ["user"]);
}

#[test]
fn a_name_is_a_string_or_a_number_and_never_empty() {
    for (claim, expected) in [
        (json!("ada"), Ok("ada")),
        (json!(42), Ok("42")),
        (json!(" "), Ok(" ")),
        (json!(""), Err(MapError::NameMissing)),
        (json!(null), Err(MapError::NameMissing)),
        (json!(true), Err(MapError::NameMissing)),
        (json!(["ada"]), Err(MapError::NameMissing)),
        (json!({"name": "ada"}), Err(MapError::NameMissing)),
    ] {
        let name = map(Settings::default(), json!({"sub": claim})).map(|mapped| mapped.name);
        assert_eq!(name, expected.map(str::to_owned), "{claim}");
    }
    assert_eq!(map(Settings::default(), json!({})), Err(MapError::NameMissing));
}

#[test]
fn an_email_counts_only_when_it_is_verified() {
    let settings = Settings {
        name_claim: path(&["email"]),
        roles_claims: vec![path(&["email"])],
        individual_roles: table(&[("ada@example.com", &["admin"])]),
        headers: vec![
            (HeaderName::from_static("x-email"), HeaderSource::Email),
            (HeaderName::from_static("x-claim"), HeaderSource::Claim(path(&["email"]))),
        ],
        ..Settings::default()
    };
    for verified in [json!(true), json!("true")] {
        let ada = json!({"sub": "s", "email": "ada@example.com", "email_verified": verified});
        let mapped = map(settings.clone(), ada).unwrap();
        assert_eq!(mapped.name, "ada@example.com");
        assert_eq!(mapped.roles, ["ada@example.com", "admin"]);
        assert_eq!(mapped.headers, [Some("ada@example.com".to_owned()), Some("ada@example.com".to_owned())]);
    }
    for verified in [json!(false), json!("false"), json!("True"), json!(1), json!(["true"]), json!(null)] {
        let ada = claims(json!({"sub": "s", "email": "ada@example.com", "email_verified": verified}));
        let by_email = Mapper::new(settings.clone());
        assert_eq!(by_email.map(&ada, AT_DEFAULT), Err(MapError::NameUnverifiedEmail), "{verified}");
        let by_sub = Mapper::new(Settings { name_claim: path(&["sub"]), ..settings.clone() });
        let mapped = by_sub.map(&ada, AT_DEFAULT).unwrap();
        assert_eq!((mapped.roles.len(), mapped.headers), (0, vec![None, None]), "{verified}");
        let trusting = Mapper::new(Settings { trust_unverified_email: true, ..settings.clone() });
        assert_eq!(trusting.map(&ada, AT_DEFAULT).unwrap().roles, ["ada@example.com", "admin"]);
    }
    assert_eq!(map(settings, json!({"sub": "s", "email_verified": true})), Err(MapError::NameMissing));
}

#[test]
fn any_claim_becomes_a_header_by_its_json_type() {
    let none = None::<&str>;
    for (claim, comma, json) in [
        (json!("R&D, Köln"), Some("R&D, K%C3%B6ln"), Some("R&D, K%C3%B6ln")),
        (json!(12.5), Some("12.5"), Some("12.5")),
        (json!(false), Some("false"), Some("false")),
        (json!(null), none, none),
        (json!([]), none, none),
        (json!(["a,b", "ü", 1, true]), Some("a%2Cb,%C3%BC,1,true"), Some(r#"["a,b","\u00fc",1,true]"#)),
        (
            json!({"b": "ü 5%", "a": [1]}),
            Some(r#"{"b":"\u00fc 5%25","a":[1]}"#),
            Some(r#"{"b":"\u00fc 5%25","a":[1]}"#),
        ),
        (
            json!("a\r\nX-Forwarded-Roles: admin"),
            Some("a%0D%0AX-Forwarded-Roles: admin"),
            Some("a%0D%0AX-Forwarded-Roles: admin"),
        ),
        (json!(""), Some(""), Some("")),
    ] {
        let source = HeaderSource::Claim(path(&["x"]));
        let set = json!({"sub": "s", "x": claim});
        assert_eq!(header(source.clone(), ListFormat::Comma, set.clone()).as_deref(), comma, "{claim}");
        assert_eq!(header(source, ListFormat::Json, set).as_deref(), json, "{claim}");
    }
}

#[test]
fn a_claim_that_is_not_there_has_no_header() {
    let mapped = map(Settings::default(), json!({"sub": "s"})).unwrap();
    assert_eq!(mapped.headers, [Some("s".to_owned()), None, None, None, None]);
}

#[test]
fn a_claim_that_is_too_big_is_named() {
    let groups: Vec<String> = (0..1000).map(|index| format!("/department/{index}")).collect();
    let error = map(Settings::default(), json!({"sub": "s", "groups": groups})).unwrap_err();
    assert_eq!(error.code(), "identity_header_too_large");
    let text = error.to_string();
    assert!(text.contains("the claim groups is too big") && text.contains("x-forwarded-groups"), "{text}");

    let fits = "x".repeat(MAX_HEADER_BYTES);
    assert!(map(Settings::default(), json!({"sub": fits})).is_ok());
    let error = map(Settings::default(), json!({"sub": fits + "x"})).unwrap_err();
    let header = HeaderName::from_static("x-forwarded-user");
    assert_eq!(error, MapError::TooLarge { header, claim: "sub".to_owned(), bytes: MAX_HEADER_BYTES + 1 });
}

#[test]
fn userinfo_shows_what_is_allowed_and_never_what_belongs_to_the_protocol() {
    let userinfo_claims = strings(&["nonce", "at_hash", "access_token", "name", "groups", "roles", "absent"]);
    let mapper = Mapper::new(Settings { default_roles: strings(&["user"]), userinfo_claims, ..Settings::default() });
    let mut claims = claims(keycloak());
    claims.insert("access_token".to_owned(), json!("secret"));
    claims.insert("roles".to_owned(), json!(["from the claim"]));
    let mapped = mapper.map(&claims, AT_DEFAULT).unwrap();
    let view = Value::Object(mapper.userinfo_view(&claims, &mapped));
    let expected = json!({"name": "Ada Lovelace", "groups": claims["groups"], "roles": mapped.roles});
    assert_eq!(view, expected);
}

proptest! {
    #[test]
    fn whatever_the_claims_say_each_header_is_clean_and_decodes_to_them(
        name in any::<String>().prop_filter("not empty", |name| !name.is_empty()),
        groups in prop::collection::vec("[ -~é\r\n%,]{0,6}", 0..5),
        json in any::<bool>(),
    ) {
        let list_format = if json { ListFormat::Json } else { ListFormat::Comma };
        let settings = Settings { list_format, ..Settings::default() };
        let mapped = map(settings, json!({"sub": name, "groups": groups})).unwrap();
        for value in mapped.headers.iter().flatten() {
            prop_assert!(value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && value.trim() == value);
        }
        prop_assert_eq!(mapped.headers[0].as_deref().and_then(decode), Some(name));
        let header = mapped.headers[3].as_deref();
        let read = match list_format {
            ListFormat::Comma => decode_list(header),
            ListFormat::Json => header.map_or(Some(vec![]), |text| serde_json::from_str(text).ok()),
        };
        prop_assert_eq!(read, Some(groups));
    }
}
