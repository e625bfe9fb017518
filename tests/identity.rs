//! The application learns who somebody is from us or not at all.

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::json;
use vestibule_test_support::{Request, Stage, UserinfoFault};

/// Every header of the last request at the upstream whose name folds to one of ours.
fn identity_headers(stage: &Stage) -> Vec<(String, String)> {
    const OURS: [&str; 12] = [
        "xforwardeduser",
        "xforwardedemail",
        "xforwardedpreferredusername",
        "xforwardedgroups",
        "xforwardedroles",
        "xforwardedaccesstoken",
        "remoteuser",
        "xremoteuser",
        "xwebauthuser",
        "xauthrequestuser",
        "xvestibuleuser",
        "sslclientsdn",
    ];
    let folded = |name: &str| name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    let headers = stage.upstream.last().headers;
    headers.into_iter().filter(|(name, _)| OURS.contains(&folded(name).as_str())).collect()
}

fn field(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[tokio::test]
async fn the_default_headers_say_who_with_which_groups_and_roles() {
    let stage = Stage::start();
    stage.provider.set_user(json!({
        "sub": "u-1", "email": "ada@example.com", "email_verified": true, "preferred_username": "ada",
        "groups": ["/admins", "/a,b"], "realm_access": {"roles": ["offline"]}, "roles": "single"
    }));
    let browser = stage.signed_in_browser().await;
    browser.get(&stage.url("/")).await;
    let mut seen = identity_headers(&stage);
    seen.sort();
    assert_eq!(
        seen,
        [
            field("x-forwarded-email", "ada@example.com"),
            field("x-forwarded-groups", "/admins,/a%2Cb"),
            field("x-forwarded-preferred-username", "ada"),
            field("x-forwarded-roles", "/admins,/a%2Cb,single,offline"),
            field("x-forwarded-user", "u-1"),
        ]
    );
}

#[tokio::test]
async fn mapping_individual_and_default_roles_and_names_work_together() {
    let stage = Stage::with(
        r#"
[identity]
name_claim = "preferred_username"
roles_claims = ["groups", ["realm_access", "roles"], "https://example.com/roles"]
default_roles = ["user"]
[identity.role_mapping]
"/admins" = ["admin", "operator"]
"uma" = ["api"]
"red" = ["painter"]
[identity.individual_roles]
"ada" = ["auditor"]
[identity.headers]
"X-Roles" = "roles"
"X-Who" = "name"
"X-Department" = { claim = ["org", "department"] }
"#,
    );
    stage.provider.set_user(json!({
        "sub": "u-1", "preferred_username": "ada", "groups": ["/admins", "/unknown"], "realm_access": {"roles": ["uma"]},
        "https://example.com/roles": ["red"], "org": {"department": "Zähler"}
    }));
    let browser = stage.signed_in_browser().await;
    let reply = browser.get(&stage.url("/")).await;
    assert_eq!(reply.echoed("x-roles").as_deref(), Some("admin,operator,api,painter,auditor,user"));
    assert_eq!(reply.echoed("x-who").as_deref(), Some("ada"));
    assert_eq!(reply.echoed("x-department").as_deref(), Some("Z%C3%A4hler"));
    assert_eq!(reply.echoed("x-forwarded-user"), None);
}

#[tokio::test]
async fn lists_are_json_where_the_configuration_says_so() {
    let stage = Stage::with("[identity]\nlist_format = \"json\"");
    stage.provider.set_user(json!({"sub": "u-1", "groups": ["/a,b", "/\u{fc}", "100%"]}));
    let browser = stage.signed_in_browser().await;
    let groups = browser.get(&stage.url("/")).await.echoed("x-forwarded-groups").unwrap();
    assert!(groups.is_ascii(), "{groups}");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&groups).unwrap(), json!(["/a,b", "/\u{fc}", "100%"]));
}

#[tokio::test]
async fn roles_go_to_an_email_only_when_it_is_verified() {
    for (trust, verified, status) in [
        (false, json!(true), StatusCode::OK),
        (false, json!(false), StatusCode::INTERNAL_SERVER_ERROR),
        (true, json!(false), StatusCode::OK),
    ] {
        let stage = Stage::with(&format!(
            "[identity]\nname_claim = \"email\"\ntrust_unverified_email = {trust}\n\
             [identity.individual_roles]\n\"ada@example.com\" = [\"admin\"]"
        ));
        stage.provider.set_user(json!({"sub": "u-1", "email": "ada@example.com", "email_verified": verified}));
        let reply = stage.sign_in(&stage.browser(), "/").await;
        assert_eq!(reply.status, status, "{trust} {verified}");
        if status == StatusCode::OK {
            assert_eq!(reply.echoed("x-forwarded-roles").as_deref(), Some("admin"));
        } else {
            stage.upstream.assert_untouched();
        }
    }
}

#[tokio::test]
async fn an_unverified_email_counts_for_nothing_unless_it_is_trusted() {
    for (trust, verified, expected) in
        [(false, json!(false), None), (false, json!(null), None), (true, json!(false), Some("ada@example.com"))]
    {
        let stage = Stage::with(&format!("[identity]\ntrust_unverified_email = {trust}"));
        stage.provider.set_user(json!({"sub": "u-1", "email": "ada@example.com", "email_verified": verified}));
        let browser = stage.signed_in_browser().await;
        let reply = browser.get(&stage.url("/")).await;
        assert_eq!(reply.echoed("x-forwarded-email").as_deref(), expected);
        assert_eq!(reply.echoed("x-forwarded-user").as_deref(), Some("u-1"));
    }
}

#[tokio::test]
async fn claims_of_userinfo_count_and_its_failure_fails_the_sign_in() {
    let stage = Stage::start();
    stage.provider.set_user(json!({"sub": "u-1", "preferred_username": "ada", "groups": ["/admins"]}));
    stage.provider.only_in_userinfo(&["groups", "preferred_username"]);
    let browser = stage.signed_in_browser().await;
    let reply = browser.get(&stage.url("/")).await;
    assert_eq!(reply.echoed("x-forwarded-groups").as_deref(), Some("/admins"));
    for fault in [
        UserinfoFault::OtherSubject,
        UserinfoFault::MissingSubject,
        UserinfoFault::JsonArray,
        UserinfoFault::Html,
        UserinfoFault::ServerError,
    ] {
        stage.upstream.forget();
        stage.provider.faults(|faults| faults.userinfo = Some(fault));
        let other = stage.browser();
        let reply = stage.sign_in(&other, "/").await;
        assert_eq!(reply.status, StatusCode::BAD_GATEWAY, "{fault:?}");
        assert!(other.cookie(&stage.origin(), "vestibule").is_none(), "{fault:?}");
        stage.upstream.assert_untouched();
    }
}

#[tokio::test]
async fn a_name_that_is_missing_ends_the_sign_in_with_a_page() {
    let stage = Stage::with("[identity]\nname_claim = \"preferred_username\"");
    stage.provider.set_user(json!({"sub": "u-1"}));
    stage.wait_for_provider().await;
    let browser = stage.browser();
    let reply = stage.sign_in(&browser, "/").await;
    assert_eq!(reply.status, StatusCode::INTERNAL_SERVER_ERROR, "{}", reply.text());
    assert!(browser.cookie(&stage.origin(), "vestibule").is_none());
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn a_changed_mapping_takes_hold_of_sessions_that_exist() {
    let stage = Stage::start();
    stage.provider.set_user(json!({"sub": "u-1", "groups": ["/admins"]}));
    let browser = stage.signed_in_browser().await;
    let changed = Stage::builder()
        .toml("[identity.role_mapping]\n\"/admins\" = [\"chief\"]")
        .clock(stage.clock.clone())
        .provider(stage.provider.clone())
        .upstream(stage.upstream.clone())
        .public_port(stage.address().port())
        .start();
    browser.connect(&stage.origin(), changed.address());
    let reply = browser.get(&stage.url("/")).await;
    assert_eq!(reply.echoed("x-forwarded-roles").as_deref(), Some("chief"));
}

#[tokio::test]
async fn the_access_token_goes_along_where_the_upstream_asks_for_it_until_it_expires() {
    let stage = Stage::with("[session]\nrenew = false\n[upstream]\naccess_token = \"bearer\"");
    let browser = stage.signed_in_browser().await;
    let get = || Request::navigation(Method::GET, &stage.url("/")).header("authorization", "Basic YTpi");
    let reply = browser.send(get()).await;
    let bearer = reply.echoed("authorization").expect("an access token");
    assert!(bearer.starts_with("Bearer ") && bearer.len() > 20, "{bearer}");
    stage.clock.advance(std::time::Duration::from_secs(3_000));
    browser.send(get()).await;
    stage.clock.advance(std::time::Duration::from_secs(3_000));
    let reply = browser.send(get()).await;
    assert_eq!((reply.status, reply.echoed("authorization")), (StatusCode::OK, None));
}

#[tokio::test]
async fn a_clients_own_authorization_passes_only_where_the_route_says_so() {
    let stage = Stage::with("[[routes]]\npath = \"/basic/*\"\npass_authorization = true");
    let browser = stage.signed_in_browser().await;
    let send = |path: &str| {
        let request = Request::navigation(Method::GET, &stage.url(path)).header("authorization", "Basic YTpi");
        let browser = browser.tab();
        async move { browser.send(request).await.echoed("authorization") }
    };
    assert_eq!(send("/").await, None);
    assert_eq!(send("/basic/x").await.as_deref(), Some("Basic YTpi"));
}

#[tokio::test]
async fn names_outside_the_list_pass_untouched() {
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    let request = Request::navigation(Method::GET, &stage.url("/"))
        .header("x-user-agent", "a")
        .header("x-auth-token", "b")
        .header("x_api_key", "c")
        .header("x-users", "d")
        .header("remote-userx", "e");
    let reply = browser.send(request).await;
    for (name, value) in
        [("x-user-agent", "a"), ("x-auth-token", "b"), ("x_api_key", "c"), ("x-users", "d"), ("remote-userx", "e")]
    {
        assert_eq!(reply.echoed(name).as_deref(), Some(value), "{name}");
    }
}

#[tokio::test]
async fn headers_that_change_the_request_after_judgement_need_a_route_that_lets_them_through() {
    let stage = Stage::with("[[routes]]\npath = \"/wp/*\"\npass_headers = [\"X-HTTP-Method-Override\"]");
    let browser = stage.signed_in_browser().await;
    let names = ["x-original-url", "x-rewrite-url", "x-http-method", "x-http-method-override", "x-method-override"];
    let send = |path: &str| {
        let request = Request::navigation(Method::GET, &stage.url(path));
        let request = names.iter().fold(request, |request, name| request.header(name, "DELETE"));
        let browser = browser.tab();
        async move { browser.send(request).await }
    };
    let reply = send("/").await;
    assert!(names.iter().all(|name| reply.echoed(name).is_none()), "{}", reply.text());
    let reply = send("/wp/x").await;
    let passed: Vec<_> = names.iter().filter(|name| reply.echoed(name).is_some()).collect();
    assert_eq!(passed, [&"x-http-method-override"]);
}

/// Law: whatever the client sends, on whatever path, signed in or not, the upstream sees each identity header at most once,
/// and only with our value.
#[tokio::test]
async fn every_spelling_of_an_identity_header_from_outside_is_gone_on_every_path() {
    let stage = Stage::with(
        "[[routes]]\npath = \"/public/*\"\naccess = \"public\"\n[[routes]]\npath = \"/maybe/*\"\naccess = \"optional\"",
    );
    let signed_in = stage.signed_in_browser().await;
    signed_in.get(&stage.url("/")).await;
    let ours = identity_headers(&stage);
    assert!(ours.len() >= 3, "{ours:?}");
    let stranger = stage.browser();
    let mut runner = TestRunner::deterministic();
    for _ in 0..150 {
        let spoofed = spoofed_headers().new_tree(&mut runner).unwrap().current();
        for (browser, path, expected) in [
            (&signed_in, "/x", &ours[..]),
            (&signed_in, "/maybe/x", &ours[..]),
            (&signed_in, "/public/x", &[]),
            (&stranger, "/public/x", &[]),
            (&stranger, "/maybe/x", &[]),
        ] {
            let request = spoofed.iter().fold(Request::new(Method::GET, &stage.url(path)), |request, (name, value)| {
                request.append_header(name.as_str(), value.to_str().unwrap())
            });
            stage.upstream.forget();
            let reply = browser.send(request).await;
            assert_eq!(reply.status, StatusCode::OK, "{spoofed:?}");
            assert_eq!(identity_headers(&stage), expected, "{path} {spoofed:?}");
        }
    }
}

fn spoofed_headers() -> impl Strategy<Value = HeaderMap> {
    let names = prop::sample::select(vec![
        "X-Forwarded-User",
        "X-Forwarded-Email",
        "X-Forwarded-Preferred-Username",
        "X-Forwarded-Groups",
        "X-Forwarded-Roles",
        "X-Forwarded-Access-Token",
        "Remote-User",
        "X-Remote-User",
        "X-WebAuth-User",
        "X-Auth-Request-User",
        "X-Vestibule-User",
        "SSL_CLIENT_S_DN",
    ]);
    let separators = prop::collection::vec(
        prop::sample::select(vec!['-', '_', '.', '~', '!', '#', '$', '*', '+', '^', '`', '|']),
        8,
    );
    let cases = prop::collection::vec(any::<bool>(), 40);
    let connection = any::<bool>();
    prop::collection::vec((names, separators, cases, connection), 1..5).prop_map(|picks| {
        let mut headers = HeaderMap::new();
        for (name, separators, cases, connection) in picks {
            let mut separator = separators.iter().cycle();
            let spelled = name.chars().zip(cases.iter().cycle()).map(|(c, upper)| match c {
                '-' | '_' => *separator.next().unwrap(),
                c if *upper => c.to_ascii_uppercase(),
                c => c.to_ascii_lowercase(),
            });
            let spelled = spelled.collect::<String>();
            headers.append(HeaderName::from_bytes(spelled.as_bytes()).unwrap(), HeaderValue::from_static("admin"));
            if connection {
                // Hop-by-hop abuse: what we add must not be taken away by a name in `Connection`.
                headers.append("connection", format!("{name}, X-Forwarded-User").parse().unwrap());
            }
        }
        headers
    })
}
