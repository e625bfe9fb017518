//! An application that answers `insufficient_user_authentication` (RFC 9470) gets people who have signed in as it demands, and
//! programs get its answer; whatever it says, nobody goes round in a circle.

use http::{Method, StatusCode};
use url::Url;
use url::form_urlencoded::Serializer;
use vestibule_test_support::{Browser, Endpoint, Reply, Request, Stage, json};

const TOML: &str = "[identity.headers]\n\"X-Acr\" = { claim = \"acr\" }\n\"X-Auth-Time\" = { claim = \"auth_time\" }\n";
const GOLD: &str = "Bearer error=\"insufficient_user_authentication\", acr_values=\"gold\"";

/// A page that the application shows only to whoever signed in with `gold`.
fn until_gold(challenge: &str) -> String {
    let mut query = Serializer::new("/until?".to_owned());
    query.append_pair("name", "x-acr").append_pair("value", "gold");
    query.append_pair("header", &format!("www-authenticate:{challenge}")).finish()
}

/// A page that nobody ever is shown.
fn never(challenges: &[&str]) -> String {
    let mut query = Serializer::new("/respond?status=401".to_owned());
    for challenge in challenges {
        query.append_pair("header", &format!("www-authenticate:{challenge}"));
    }
    query.finish()
}

fn last_asked(stage: &Stage, name: &str) -> Option<String> {
    stage.provider.requests_of(Endpoint::Authorize).last().and_then(|request| request.query_value(name))
}

async fn stage_and_browser(toml: &str) -> (Stage, Browser) {
    let stage = Stage::with(toml);
    stage.provider.offer_acr(&["gold"]);
    let browser = stage.signed_in_browser().await;
    (stage, browser)
}

#[tokio::test]
async fn a_person_signs_in_as_the_application_demands_and_is_back_where_they_were() {
    let (stage, browser) = stage_and_browser(TOML).await;
    let path = until_gold(&format!("{GOLD}, max_age=\"5\""));
    let redirect = browser.get(&stage.url(&path)).await;
    assert_eq!((redirect.status, redirect.location().path()), (StatusCode::FOUND, "/auth/login"));
    assert_eq!(redirect.header("cache-control"), Some("no-store"));
    assert_eq!(redirect.header("www-authenticate"), None);
    assert!(redirect.text().is_empty(), "nothing of the application's answer");
    let page = browser.follow_reply(redirect, 10).await;
    assert_eq!(page.json()["target"], path, "{}", page.text());
    assert_eq!(last_asked(&stage, "acr_values").as_deref(), Some("gold"));
    assert_eq!(last_asked(&stage, "max_age").as_deref(), Some("5"));
    assert_eq!(stage.provider.count(Endpoint::Authorize), 2);
}

#[tokio::test]
async fn an_application_that_is_never_content_ends_on_a_page() {
    for challenge in [GOLD, "Bearer error=insufficient_user_authentication"] {
        let (stage, browser) = stage_and_browser(TOML).await;
        let page = browser.follow(&stage.url(&never(&[challenge])), 30).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST, "{challenge}: {}", page.text());
        assert!(page.text().contains("not in the way"), "{}", page.text());
        assert!(stage.provider.count(Endpoint::Authorize) <= 4, "{challenge}");
        assert_eq!(browser.get(&stage.url("/")).await.status, StatusCode::OK, "elsewhere the session will do");
    }
}

#[tokio::test]
async fn a_provider_that_does_not_play_along_ends_on_a_page() {
    let (stage, browser) = stage_and_browser(TOML).await;
    stage.provider.falsify("acr", json!("silver"));
    let page = browser.follow(&stage.url(&until_gold(GOLD)), 20).await;
    assert_eq!(page.status, StatusCode::BAD_GATEWAY, "{}", page.text());
    assert_eq!(stage.provider.count(Endpoint::Authorize), 2);
}

/// Where several challenges stand, in one line or in several, the one is found; and what only looks like it is none.
#[tokio::test]
async fn challenges_are_read_by_their_grammar() {
    for challenges in [
        &[
            "Basic realm=\"a, Bearer error=x\", bearer Error = \"insufficient_user_authentication\" , ACR_VALUES=\"gold\"",
        ][..],
        &[
            "Negotiate",
            "Bearer realm=\"x\", error=\"insufficient_user_authentication\", acr_values=\"gold\", max_age=30",
        ],
        &["Newauth abc==, , Bearer error=insufficient_user_authentication,acr_values=gold"],
        &[
            "Bearer error=\"insufficient\\_user_authentication\", acr_values=\"go\\ld\", error_description=\"a \\\"b\\\", c\"",
        ],
    ] {
        let (stage, browser) = stage_and_browser(TOML).await;
        let redirect = browser.get(&stage.url(&never(challenges))).await;
        assert_eq!(redirect.status, StatusCode::FOUND, "{challenges:?}");
        let provider = browser.step(&redirect).await.location();
        let asked = provider.query_pairs().find(|(name, _)| name == "acr_values").map(|(_, value)| value.into_owned());
        assert_eq!(asked.as_deref(), Some("gold"), "{challenges:?}");
    }
}

/// What can't be read in one way, asks for too much or is about something else goes to whoever asked, as it is.
#[tokio::test]
async fn what_is_no_clear_demand_passes_unchanged() {
    let (stage, browser) = stage_and_browser(TOML).await;
    let error = "Bearer error=\"insufficient_user_authentication\"";
    let long = format!("{error}, acr_values=\"{}\"", "gold ".repeat(200));
    for challenges in [
        &["Bearer error=\"invalid_token\""][..],
        &["Bearer realm=\"error=insufficient_user_authentication\""],
        &["Basic error=\"insufficient_user_authentication\", acr_values=\"gold\""],
        &["Bearer error=\"insufficient_user_authentication\", error=\"invalid_token\""],
        &["Bearer error=\"insufficient_user_authentication\", acr_values=\"a\", Acr_Values=\"b\""],
        &[
            "Bearer error=\"insufficient_user_authentication\", acr_values=\"a\"",
            "Bearer error=\"insufficient_user_authentication\", acr_values=\"b\"",
        ],
        &["Bearer error=\"insufficient_user_authentication\", acr_values=\"gold"],
        &["Bearer error=\"insufficient_user_authentication\" acr_values=\"gold\""],
        &["Bearer error=\"insufficient_user_authentication\", acr_values=\"go\\\"ld\""],
        &["Bearer error=\"insufficient_user_authentication\", acr_values=\"\""],
        &["Bearer error=\"insufficient_user_authentication\", max_age=\"-1\""],
        &["Bearer error=\"insufficient_user_authentication\", max_age=\"5m\""],
        &["Bearer error=\"insufficient_user_authentication\", max_age=99999999999"],
        &[long.as_str()],
        &[],
    ] {
        let reply = browser.get(&stage.url(&never(challenges))).await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{challenges:?}");
        let headers: Vec<_> =
            reply.headers.get_all("www-authenticate").iter().map(|one| one.to_str().unwrap()).collect();
        assert_eq!(headers, challenges);
        assert!(!reply.text().is_empty());
    }
    assert_eq!(stage.provider.count(Endpoint::Authorize), 1);
}

/// Of a session's program the application's answer stays, and the address where its person can do as is demanded is added.
#[tokio::test]
async fn a_program_gets_the_answer_and_the_address_of_such_a_sign_in() {
    let (stage, browser) = stage_and_browser(TOML).await;
    let url = stage.url(&until_gold(GOLD));
    let asked = stage.provider.count(Endpoint::Authorize);
    let requests = [
        Request::fetch(Method::GET, &url),
        Request::fetch(Method::POST, &url).header("origin", &stage.origin()).body("x"),
        Request::navigation(Method::POST, &url).from_page(&stage.url("/")).form(&[("a", "b")]),
        Request::navigation(Method::GET, &url).header("sec-fetch-dest", "iframe"),
        // As much as some browsers and proxies leave of the fields: what is no navigation by every one of them is none.
        Request::new(Method::GET, &url).header("accept", "text/html").header("sec-fetch-mode", "cors"),
        Request::new(Method::GET, &url).header("accept", "text/html").header("sec-fetch-mode", "no-cors"),
        Request::new(Method::GET, &url).header("accept", "text/html").header("sec-fetch-dest", "document"),
    ];
    let mut sign_in = None;
    for request in requests {
        let reply = browser.send(request.clone()).await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{request:?}");
        let headers: Vec<_> =
            reply.headers.get_all("www-authenticate").iter().map(|one| one.to_str().unwrap()).collect();
        assert_eq!((headers.len(), headers[0]), (2, GOLD), "{headers:?}");
        assert!(reply.text().contains("\"target\""), "the application's own words: {}", reply.text());
        let address = headers[1].strip_prefix("Vestibule sign_in_url=\"").and_then(|rest| rest.strip_suffix('"'));
        sign_in = address.map(str::to_owned);
    }
    assert_eq!(stage.provider.count(Endpoint::Authorize), asked);
    let mut sign_in = Url::parse(&sign_in.expect("an address")).unwrap();
    sign_in.query_pairs_mut().append_pair("rd", "/settings");
    let page = browser.follow(sign_in.as_str(), 10).await;
    assert_eq!((page.status, page.url.path()), (StatusCode::OK, "/settings"), "{}", page.text());
    assert_eq!(last_asked(&stage, "acr_values").as_deref(), Some("gold"));
    assert_eq!(browser.fetch(&url).await.status, StatusCode::OK, "and now the application is content");
}

#[tokio::test]
async fn whoever_is_not_signed_in_by_a_session_gets_the_answer_alone() {
    let toml = "[bearer]\naccept = true\naudiences = [\"api\"]\n[[routes]]\npath = \"/until\"\naccess = \"optional\"\n";
    let stage = Stage::with(toml);
    let url = stage.url(&until_gold(GOLD));
    let token = stage.provider.jwt_token(Some("at+jwt"), &json!({}));
    let navigation = || Request::navigation(Method::GET, &url);
    for request in [navigation(), navigation().header("authorization", &format!("Bearer {token}"))] {
        let reply = stage.browser().send(request).await;
        assert_eq!((reply.status, reply.header("www-authenticate")), (StatusCode::UNAUTHORIZED, Some(GOLD)));
        assert_eq!(reply.headers.get_all("www-authenticate").iter().count(), 1);
    }
    assert_eq!(stage.provider.count(Endpoint::Authorize), 0);
}

#[tokio::test]
async fn it_can_be_switched_off_for_an_upstream() {
    let (stage, browser) = stage_and_browser("[upstream]\nstep_up = false").await;
    let reply = browser.get(&stage.url(&until_gold(GOLD))).await;
    assert_eq!((reply.status, reply.header("www-authenticate")), (StatusCode::UNAUTHORIZED, Some(GOLD)));
    assert_eq!(
        browser.fetch(&stage.url(&until_gold(GOLD))).await.headers.get_all("www-authenticate").iter().count(),
        1
    );
}

fn demand_of(reply: &Reply) -> String {
    let location = reply.location();
    location.query_pairs().find(|(name, _)| name == "demand").expect("a demand").1.into_owned()
}

/// Nobody can put a demand into a link for others: one that was made up, altered, made for another session or grew old is a plain
/// sign-in.
#[tokio::test]
async fn a_demand_that_is_not_ours_counts_for_nothing() {
    let (stage, browser) = stage_and_browser(TOML).await;
    let demand = demand_of(&browser.get(&stage.url(&until_gold(GOLD))).await);
    let login = async |query: &str| {
        let reply = browser.get(&stage.url(&format!("/auth/login?{query}"))).await;
        assert_eq!(reply.status, StatusCode::FOUND, "{query}: {}", reply.text());
        reply.location().query_pairs().find(|(name, _)| name == "acr_values").map(|(_, value)| value.into_owned())
    };
    assert_eq!(login(&format!("demand={demand}")).await.as_deref(), Some("gold"));
    let (front, back) = demand.split_at(30);
    for query in [
        "acr_values=weak&max_age=99999".to_owned(),
        "demand=".to_owned(),
        "demand=gold".to_owned(),
        format!("demand={front}"),
        format!("demand={front}{}{}", if back.starts_with('A') { 'B' } else { 'A' }, &back[1..]),
    ] {
        assert_eq!(login(&query).await, None, "{query}");
    }
    let stranger = stage.browser();
    let someone_else = stage.signed_in_browser().await;
    for other in [&stranger, &someone_else] {
        let reply = other.get(&stage.url(&format!("/auth/login?demand={demand}"))).await;
        assert_eq!(reply.status, StatusCode::FOUND, "{}", reply.text());
        let asked = |name: &str| reply.location().query_pairs().any(|(one, _)| one == name);
        assert!(!asked("acr_values") && !asked("max_age") && !asked("prompt"), "{}", reply.location());
    }
    let twice = stage.browser().get(&stage.url(&format!("/auth/login?demand={demand}&demand={demand}"))).await;
    assert_eq!(twice.status, StatusCode::BAD_REQUEST);
    stage.clock.advance(std::time::Duration::from_secs(601));
    assert_eq!(login(&format!("demand={demand}")).await, None, "of the past");
}
