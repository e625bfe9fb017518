//! Sessions, and what the application learns of who is signed in.

use super::*;

#[test]
fn session_rules() {
    for (section, line, why) in [
        ("session", "idle = \"25h\"", "is longer than session.lifetime"),
        ("session", "idle = \"0s\"", "is zero"),
        ("session", "lifetime = \"500ms\"", "is shorter than a second"),
        ("session", "lifetime = \"500days\"", "is longer than 400 days"),
        ("session", "store = \"redis://:hunter2@db:6379:7\"", "session.store"),
        ("session", "store = \"postgres:hunter2\"", "lacks the // after the scheme"),
        ("session", "store = \"sqlite::memory:\"", "would forget every session at a restart"),
        ("session", "store = \"hunter2\"", "is no session store"),
        ("session", "store_grace = \"2h\"", "would go on for hours"),
        ("session", "store_file = \"/nowhere/hunter\"", "cannot be read"),
        ("session", "store = \"sqlite:a.db\"\nshare = \"sqlite:b.db\"", "session.share is not needed"),
        ("session", "share = \"sqlite:a.db\"\nshare_file = \"b\"", "says again what session.share does already"),
        ("session", "store = \"sqlite:a.db\"\nstore_file = \"b\"", "says again what session.store does already"),
        ("session", "store = \"cokie\"", "did you mean \"cookie\"?"),
    ] {
        let text = errors(&[(section, line)]);
        assert!(text.contains(why), "{line}: {text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
    assert_eq!(settings(&[("session", "lifetime = \"10m\"")]).session.idle, Duration::from_secs(600));
}

#[test]
fn identity_headers_are_checked() {
    for (line, why) in [
        ("\"X-Forwarded-For\" = \"name\"", "does something of its own"),
        ("\"Authorization\" = \"name\"", "does something of its own"),
        ("\"content_length\" = \"name\"", "does something of its own"),
        ("\"If-Match\" = \"name\"", "does something of its own"),
        ("\"X Y\" = \"name\"", "is no header name"),
        ("\"X-Team\" = \"name\"\n\"x_team\" = \"roles\"", "is the same name as \"X-Team\""),
        (
            "\"X-Team\" = \"team\"",
            "is \"team\", not one of \"name\", \"roles\", \"groups\", \"email\", \"provider\", \"subject\", \"client_certificate_subject\", \"client_certificate_san\", or a table",
        ),
        ("\"X-Team\" = { claim = [] }", "names no claim"),
        ("\"X-Team\" = { clam = \"x\" }", "did you mean \"claim\"?"),
        ("\"X-Team\" = {}", "lacks the key \"claim\"\n    for example X-Team = { claim = \"department\" }"),
    ] {
        let text = errors(&[("identity.headers", line)]);
        assert!(text.contains(why), "{line}: {text}");
    }
}

#[test]
fn identity_comes_out_as_written() {
    let identity = settings(&[
        ("identity", "name_claim = [\"a\", \"b\"]\nroles_claims = [\"https://x/roles\", [\"r\", \"s\"]]\nlist_format = \"json\"\n"),
        ("identity.role_mapping", "\"/admins\" = \"admin\"\n\"/staff\" = [\"editor\", \"user\"]\n"),
        ("identity.headers", "\"X-Sub\" = \"subject\"\n\"X-Dept\" = { claim = [\"org\", \"dept\"] }\n"),
    ])
    .identity;
    let path = |names: &[&str]| ClaimPath(names.iter().map(|name| name.to_string()).collect());
    assert_eq!(identity.name_claim, path(&["a", "b"]));
    assert_eq!(identity.roles_claims, [path(&["https://x/roles"]), path(&["r", "s"])]);
    let mapping = identity.role_mapping.unwrap();
    assert_eq!(mapping["/admins"], ["admin"]);
    assert_eq!(mapping["/staff"], ["editor", "user"]);
    let headers: Vec<_> = identity.headers.iter().map(|(name, source)| (name.as_str(), source.clone())).collect();
    assert_eq!(
        headers,
        [("x-dept", HeaderSource::Claim(path(&["org", "dept"]))), ("x-sub", HeaderSource::Claim(path(&["sub"])))]
    );
    assert!(warnings(&[("identity", "trust_unverified_email = true")]).contains("verified or not"));
    assert!(warnings(&[("identity.role_mapping", "")]).contains("no claim gives any role"));
}

#[test]
fn a_name_is_written_with_whose_it_is() {
    let tenants = "issuer_template = \"https://id.example.com/{tenantid}\"\nallowed_tenants = [\"one\", \"two\"]";
    let roles = |name: &str| format!("{name:?} = [\"auditor\"]");
    let told =
        |provider: &str, name: &str| errors(&[("provider", provider), ("identity.individual_roles", &roles(name))]);
    for bad in ["ada", "three:ada", "default:ada", ":ada"] {
        let text = told(tenants, bad);
        assert!(text.contains("does not say in which tenant") && text.contains(&format!("\"one:{bad}\"")), "{text}");
    }
    let names = |name: &str| settings(&[("provider", tenants), ("identity.individual_roles", &roles(name))]);
    assert!(names("two:ada").identity.individual_roles.contains_key("two:ada"));
    let any = "issuer_template = \"https://id.example.com/{tenantid}\"\nallowed_tenants = [\"*\"]";
    assert!(told(any, "ada").contains("\"TENANT:ada\""));
    settings(&[("provider", any), ("identity.individual_roles", &roles("whichever:ada"))]);
}
