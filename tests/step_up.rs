//! A route may ask for a stronger or a more recent sign-in than the session is: people sign in once more and come back, and a
//! provider that does not play along ends on a page and never in a circle (RFC 9470).

use std::time::Duration;

use http::StatusCode;
use vestibule_test_support::{AuthorizeFault, Endpoint, Stage, TokenFault, Value, json};

const ROUTES: &str = "
[[routes]]
path = \"/vault\"
require = { acr = [\"gold\", \"platinum\"] }
[[routes]]
path = \"/pay\"
require = { max_age = \"5m\" }
[[routes]]
path = \"/both\"
require = { acr = \"gold\", max_age = \"5m\", roles = \"admin\" }
[identity.role_mapping]
\"/admins\" = [\"admin\"]
";

fn last_asked(stage: &Stage, name: &str) -> Option<String> {
    stage.provider.requests_of(Endpoint::Authorize).last().and_then(|request| request.query_value(name))
}

#[tokio::test]
async fn a_session_that_is_too_weak_is_made_stronger_on_the_way() {
    let stage = Stage::with(ROUTES);
    stage.provider.offer_acr(&["gold"]);
    let browser = stage.signed_in_browser().await;
    assert_eq!(last_asked(&stage, "acr_values"), None);
    let page = browser.follow(&stage.url("/vault?x=1"), 10).await;
    assert_eq!(page.json()["target"], "/vault?x=1", "{}", page.text());
    assert_eq!(last_asked(&stage, "acr_values").as_deref(), Some("gold platinum"));
    assert_eq!(stage.upstream.count(), 1, "nothing reached the application before");
    let asked = stage.provider.count(Endpoint::Authorize);
    assert_eq!(browser.get(&stage.url("/vault")).await.status, StatusCode::OK, "the session has it now");
    assert_eq!(browser.get(&stage.url("/")).await.status, StatusCode::OK);
    assert_eq!(stage.provider.count(Endpoint::Authorize), asked);
}

#[tokio::test]
async fn whoever_signs_in_for_such_a_page_does_so_only_once() {
    let stage = Stage::with(ROUTES);
    stage.provider.offer_acr(&["gold"]);
    let page = stage.sign_in(&stage.browser(), "/both").await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text());
    assert_eq!(stage.provider.count(Endpoint::Authorize), 1);
    assert_eq!(last_asked(&stage, "max_age").as_deref(), Some("300"));
}

#[tokio::test]
async fn a_session_that_is_too_old_by_auth_time_is_renewed_on_the_way() {
    let stage = Stage::with(ROUTES);
    let browser = stage.signed_in_browser().await;
    assert_eq!(browser.get(&stage.url("/pay")).await.status, StatusCode::OK);
    stage.clock.advance(Duration::from_secs(331));
    stage.upstream.forget();
    assert_eq!(browser.get(&stage.url("/pay")).await.status, StatusCode::FOUND);
    stage.upstream.assert_untouched();
    assert_eq!(browser.get(&stage.url("/")).await.status, StatusCode::OK, "elsewhere it will do");
    let page = browser.follow(&stage.url("/pay"), 10).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text());
    assert_eq!(last_asked(&stage, "max_age").as_deref(), Some("300"));
}

/// The session stays as it was, and so does the application.
#[tokio::test]
async fn a_provider_that_does_not_play_along_ends_on_a_page() {
    for (path, name, value) in [
        ("/vault", "acr", json!("silver")),
        ("/vault", "acr", Value::Null),
        ("/pay", "auth_time", Value::Null),
        ("/pay", "auth_time", json!(1_000_000_000)),
        ("/pay", "auth_time", json!(9_000_000_000_u64)),
    ] {
        let stage = Stage::with(ROUTES);
        stage.provider.falsify(name, value.clone());
        let browser = stage.signed_in_browser().await;
        let page = browser.follow(&stage.url(path), 12).await;
        assert_eq!(page.status, StatusCode::BAD_GATEWAY, "{path} {name}={value}: {}", page.text());
        assert!(page.text().contains("in the way that this page asks for"), "{}", page.text());
        assert_eq!(stage.provider.count(Endpoint::Authorize), 2, "{path} {name}={value}");
        assert_eq!(stage.provider.count(Endpoint::Userinfo), 1, "{path} {name}={value}: only at the first sign-in");
        stage.upstream.assert_untouched();
        assert_eq!(browser.get(&stage.url("/")).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_provider_that_gives_up_each_time_ends_on_a_page_though_there_is_a_session() {
    let stage = Stage::with(ROUTES);
    let browser = stage.signed_in_browser().await;
    stage.clock.advance(Duration::from_secs(60));
    stage.provider.faults(|faults| faults.authorize = Some(AuthorizeFault::TemporarilyUnavailable));
    let page = browser.follow(&stage.url("/vault"), 20).await;
    assert_eq!(page.status, StatusCode::BAD_REQUEST, "{}", page.text());
    stage.provider.heal();
    stage.provider.faults(|faults| faults.token = Some(TokenFault::InvalidGrant));
    let page = browser.follow(&stage.url("/vault"), 20).await;
    assert_eq!(page.status, StatusCode::BAD_REQUEST, "{}", page.text());
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn a_program_is_told_what_is_missing() {
    let stage = Stage::with(ROUTES);
    let browser = stage.signed_in_browser().await;
    let reply = browser.fetch(&stage.url("/both")).await;
    assert_eq!((reply.status, reply.json()["code"].as_str()), (StatusCode::UNAUTHORIZED, Some("insufficient_proof")));
    let challenge = reply.header("www-authenticate").unwrap_or_default().to_owned();
    assert!(challenge.starts_with("Vestibule sign_in_url=\""), "{challenge}");
    let error = ", error=\"insufficient_user_authentication\", acr_values=\"gold\", max_age=\"300\"";
    assert!(challenge.ends_with(error), "{challenge}");
    assert!(reply.set_cookies().is_empty());
    let stranger = stage.browser().fetch(&stage.url("/both")).await;
    let challenge = stranger.header("www-authenticate").unwrap_or_default();
    assert!(!challenge.contains("error"), "whoever is not signed in is told only that: {challenge}");
    stage.upstream.assert_untouched();
}

/// What userinfo says of how somebody signed in counts for nothing.
#[tokio::test]
async fn userinfo_cannot_make_a_sign_in_stronger() {
    let stage = Stage::with(ROUTES);
    stage.provider.set_claim("acr", json!("gold"));
    stage.provider.only_in_userinfo(&["acr"]);
    let browser = stage.signed_in_browser().await;
    assert_eq!(browser.get(&stage.url("/vault")).await.status, StatusCode::FOUND);
    stage.upstream.assert_untouched();
}
