//! Signing in, seen from the user agent: every detour a person takes ends in the application, on the page asked for.

use std::time::Duration;

use futures_util::future::join_all;
use http::{Method, StatusCode};
use url::Url;
use vestibule_test_support::{AuthorizeFault, Browser, Endpoint, Reply, Request, Stage, json};

/// The order in which eight tabs are finished.
const SHUFFLED: [usize; 8] = [3, 7, 0, 5, 1, 6, 2, 4];

#[tokio::test]
async fn a_person_signs_in_and_reaches_the_page_asked_for() {
    let stage = Stage::start();
    let browser = stage.browser();
    let challenge = browser.get(&stage.url("/hello?x=1&y=%2F")).await;
    assert!(matches!(challenge.status, StatusCode::FOUND | StatusCode::SEE_OTHER), "{}", challenge.status);
    assert_eq!(challenge.header("cache-control").map(|value| value.contains("no-store")), Some(true));
    assert_eq!(challenge.header("referrer-policy"), Some("no-referrer"));
    assert_authorization_request(&stage, &challenge.location());

    let at_provider = browser.step(&challenge).await;
    let callback = browser.step(&at_provider).await;
    assert_eq!(callback.status, StatusCode::SEE_OTHER);
    assert_eq!(callback.location().as_str(), stage.url("/hello?x=1&y=%2F"));
    assert_eq!(callback.header("cache-control").map(|value| value.contains("no-store")), Some(true));

    let page = browser.step(&callback).await;
    assert_landed(&page, "/hello?x=1&y=%2F");
    assert_eq!(page.echoed("x-forwarded-user").as_deref(), Some("248289761001"));
    assert_eq!(page.echoed("x-forwarded-email").as_deref(), Some("ada@example.com"));
    assert_eq!(page.echoed("x-forwarded-preferred-username").as_deref(), Some("ada"));
    assert_eq!(page.echoed("x-forwarded-groups").as_deref(), Some("/admins,/staff"));
    assert_eq!(page.echoed("cookie"), None, "our cookies stay here");
    assert_eq!(stage.provider.token_calls().len(), 1);
    assert_eq!(stage.upstream.count(), 1);
    assert!(browser.rejected_cookies().is_empty(), "{:?}", browser.rejected_cookies());
}

fn assert_authorization_request(stage: &Stage, url: &Url) {
    assert_eq!(url.origin().ascii_serialization(), stage.provider.issuer());
    let value = |name: &str| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    assert_eq!(value("response_type").as_deref(), Some("code"));
    assert_eq!(value("client_id").as_deref(), Some(stage.provider.client_id()));
    assert_eq!(value("redirect_uri"), Some(stage.url("/auth/callback")));
    assert_eq!(value("code_challenge_method").as_deref(), Some("S256"));
    assert_eq!(value("code_challenge").map(|challenge| challenge.len()), Some(43));
    assert!(value("scope").is_some_and(|scope| scope.split(' ').any(|word| word == "openid")));
    assert!(value("state").is_some_and(|state| state.len() >= 32));
    assert!(value("nonce").is_some_and(|nonce| nonce.len() >= 22));
}

#[tokio::test]
async fn session_cookies_are_out_of_reach_for_scripts_and_other_sites() {
    let stage = Stage::start();
    let browser = stage.browser();
    let mut seen = Vec::new();
    let mut reply = browser.get(&stage.url("/")).await;
    while reply.next().is_some() {
        seen.extend(reply.set_cookies().into_iter().filter(|_| reply.url.as_str().starts_with(&stage.origin())));
        reply = browser.step(&reply).await;
    }
    assert!(!seen.is_empty());
    for line in seen.iter().map(|line| line.to_ascii_lowercase()) {
        assert!(line.contains("; httponly") && line.contains("; samesite=lax") && line.contains("; path=/"), "{line}");
        assert!(!line.contains("domain=") && !line.contains("; secure"), "http on loopback has no Secure: {line}");
    }
}

#[tokio::test]
async fn the_login_endpoint_leads_back_to_where_it_was_asked_to() {
    let stage = Stage::start();
    let browser = stage.browser();
    let page = browser.follow(&stage.url("/auth/login?rd=%2Fthere%3Fa%3D1"), 6).await;
    assert_landed(&page, "/there?a=1");
}

#[tokio::test]
async fn the_login_endpoint_leads_nowhere_else() {
    let stage = Stage::start();
    for rd in
        ["//evil.example/", "/\\evil.example", "https://evil.example/", "/%09/evil.example", "javascript:alert(1)"]
    {
        let browser = stage.browser();
        let mut login = Url::parse(&stage.url("/auth/login")).unwrap();
        login.query_pairs_mut().append_pair("rd", rd);
        let page = browser.follow(login.as_str(), 6).await;
        assert_eq!(page.url.origin().ascii_serialization(), stage.origin(), "{rd}");
    }
}

#[tokio::test]
async fn eight_tabs_opened_one_after_another_and_finished_shuffled_all_arrive() {
    let stage = Stage::start();
    let browser = stage.browser();
    let mut tabs = Vec::new();
    for number in 0..8 {
        tabs.push(at_provider(&stage, &browser, number).await);
    }
    assert_one_small_login_cookie(&stage, &browser);
    finish_shuffled(&browser, tabs).await;
}

#[tokio::test]
async fn eight_tabs_opened_at_once_and_finished_shuffled_all_arrive() {
    let stage = Stage::start();
    let browser = stage.browser();
    let tabs = join_all((0..8).map(|number| at_provider(&stage, &browser, number))).await;
    assert_one_small_login_cookie(&stage, &browser);
    finish_shuffled(&browser, tabs).await;
}

#[tokio::test]
async fn eight_tabs_that_come_back_at_the_same_moment_all_arrive() {
    let stage = Stage::start();
    let browser = stage.browser();
    let mut tabs = Vec::new();
    for number in 0..8 {
        tabs.push(at_provider(&stage, &browser, number).await);
    }
    let pages = join_all(tabs.into_iter().map(|tab| browser.follow_reply(tab, 8))).await;
    for (number, page) in pages.iter().enumerate() {
        assert_landed(page, &format!("/tab/{number}"));
    }
}

async fn finish_shuffled(browser: &Browser, tabs: Vec<Reply>) {
    for number in SHUFFLED {
        let page = browser.follow_reply(tabs[number].clone(), 8).await;
        assert_landed(&page, &format!("/tab/{number}"));
    }
}

fn assert_one_small_login_cookie(stage: &Stage, browser: &Browser) {
    let cookies = browser.cookies(&stage.origin());
    let size: usize = cookies.iter().map(|cookie| cookie.name.len() + cookie.value.len()).sum();
    assert!(cookies.len() == 1 && size < 200, "login cookies pile up: {cookies:?}");
}

#[tokio::test]
async fn a_callback_that_is_reloaded_ends_in_the_application_and_is_redeemed_once() {
    let stage = Stage::start();
    let browser = stage.browser();
    let callback = callback_url(&stage, &browser, "/asked").await;
    assert_landed(&browser.follow(callback.as_str(), 4).await, "/asked");
    assert_landed(&browser.follow(callback.as_str(), 4).await, "/asked");
    assert_eq!(stage.provider.token_calls().len(), 1);
    assert_eq!(stage.provider.count(Endpoint::Authorize), 1);
}

#[tokio::test]
async fn the_back_button_to_the_provider_ends_in_the_application() {
    let stage = Stage::start();
    let browser = stage.browser();
    let challenge = browser.get(&stage.url("/asked")).await;
    let authorization_request = challenge.location();
    assert_landed(&browser.follow_reply(challenge, 6).await, "/asked");
    // The provider approves the same request again, with a fresh code and the old state.
    let again = browser.follow(authorization_request.as_str(), 8).await;
    assert_landed(&again, "/asked");
}

#[tokio::test]
async fn a_callback_twenty_minutes_late_is_not_redeemed_and_still_ends_on_the_page_asked_for() {
    let stage = Stage::start();
    let browser = stage.browser();
    let callback = callback_url(&stage, &browser, "/asked?late=1").await;
    stage.clock.advance(Duration::from_secs(20 * 60));
    let page = browser.follow(callback.as_str(), 8).await;
    assert_landed(&page, "/asked?late=1");
    assert_never_redeemed(&stage, &callback);
    assert_eq!(stage.provider.count(Endpoint::Authorize), 2);
}

#[tokio::test]
async fn a_restart_in_the_middle_of_a_sign_in_goes_unnoticed() {
    let stage = Stage::start();
    let browser = stage.browser();
    let callback = callback_url(&stage, &browser, "/asked").await;
    let stage = stage.restart();
    assert_landed(&browser.follow(callback.as_str(), 4).await, "/asked");
    assert_eq!(stage.provider.count(Endpoint::Authorize), 1);
}

#[tokio::test]
async fn another_replica_finishes_the_sign_in_and_honours_the_session() {
    let stage = Stage::start();
    let browser = stage.browser();
    let callback = callback_url(&stage, &browser, "/asked").await;
    let replica = stage.replica();
    browser.connect(&stage.origin(), replica.address());
    assert_landed(&browser.follow(callback.as_str(), 4).await, "/asked");
    browser.connect(&stage.origin(), stage.address());
    assert_landed(&browser.get(&stage.url("/asked")).await, "/asked");
    assert_eq!(stage.provider.count(Endpoint::Authorize), 1);
}

#[tokio::test]
async fn thirty_abandoned_sign_ins_do_not_hinder_the_next() {
    let stage = Stage::start();
    let browser = stage.browser();
    for number in 0..30 {
        at_provider(&stage, &browser, number).await;
    }
    assert_one_small_login_cookie(&stage, &browser);
    assert_landed(&stage.sign_in(&browser, "/asked").await, "/asked");
    let size: usize =
        browser.cookies(&stage.origin()).iter().map(|cookie| cookie.name.len() + cookie.value.len()).sum();
    assert!(size < 4096, "{size} bytes of cookies");
}

#[tokio::test]
async fn a_page_that_loads_twenty_scripts_signs_in_as_if_it_had_none() {
    let stage = Stage::start();
    let browser = stage.browser();
    let challenge = browser.get(&stage.url("/page")).await;
    let at_provider = browser.step(&challenge).await;
    let scripts = (0..20).map(|number| {
        let url = stage.url(&format!("/script-{number}.js"));
        let request = Request::new(Method::GET, &url)
            .header("accept", "*/*")
            .header("sec-fetch-mode", "no-cors")
            .header("sec-fetch-dest", "script");
        browser.send(request)
    });
    for reply in join_all(scripts).await {
        assert_eq!((reply.status, reply.set_cookies()), (StatusCode::UNAUTHORIZED, vec![]));
    }
    assert_one_small_login_cookie(&stage, &browser);
    assert_landed(&browser.follow_reply(at_provider, 4).await, "/page");
    assert_eq!(stage.provider.count(Endpoint::Authorize), 1);
}

#[tokio::test]
async fn a_start_asks_the_provider_nothing() {
    let stage = Stage::start();
    stage.provider.take_down();
    let before = stage.provider.requests().len();
    for number in 0..10 {
        let challenge = stage.browser().get(&stage.url(&format!("/{number}"))).await;
        assert!(challenge.location().as_str().starts_with(&stage.provider.issuer()));
    }
    assert_eq!(stage.provider.requests().len(), before);
}

#[tokio::test]
async fn the_same_callback_twice_at_once_is_redeemed_once_and_both_arrive() {
    let stage = Stage::start();
    let browser = stage.browser();
    let callback = callback_url(&stage, &browser, "/asked").await;
    stage.provider.slow_down(Endpoint::Token, Duration::from_millis(200));
    let pages = join_all([browser.follow(callback.as_str(), 8), browser.follow(callback.as_str(), 8)]).await;
    for page in pages {
        assert_landed(&page, "/asked");
    }
    let code = query_value(&callback, "code");
    let calls = stage.provider.token_calls();
    let redeemed = calls.iter().filter(|call| call.form.iter().any(|(_, value)| Some(value) == code.as_ref()));
    assert_eq!(redeemed.count(), 1);
}

#[tokio::test]
async fn a_return_path_of_two_kilobytes_survives_and_a_longer_one_gives_way_to_the_front_page() {
    let stage = Stage::start();
    let path = |length: usize| format!("/{}?{}", "p".repeat(length / 2), "q".repeat(length - length / 2 - 2));
    let asked = path(2_000);
    let challenge = stage.browser().get(&stage.url(&asked)).await;
    assert!(challenge.location().as_str().len() < 6_000, "{}", challenge.location().as_str().len());
    assert_landed(&stage.sign_in(&stage.browser(), &asked).await, &asked);
    assert_landed(&stage.sign_in(&stage.browser(), &path(2_100)).await, "/");
    let login = |length: usize| {
        let rd: String = url::form_urlencoded::byte_serialize(path(length).as_bytes()).collect();
        stage.url(&format!("/auth/login?rd={rd}"))
    };
    assert_landed(&stage.browser().follow(&login(2_000), 6).await, &asked);
    let refused = stage.browser().get(&login(2_100)).await;
    assert_eq!((refused.status, refused.set_cookies()), (StatusCode::BAD_REQUEST, vec![]));
    let fragment = stage.browser().get(&stage.url("/auth/login?rd=%2Fx%23y")).await;
    assert_eq!((fragment.status, fragment.set_cookies()), (StatusCode::BAD_REQUEST, vec![]));
}

/// Tokens with the claims and sizes of a stock Keycloak (the real one has a story of its own).
#[tokio::test]
async fn the_callback_of_a_large_account_passes_a_stock_nginx() {
    let stage = Stage::start();
    let uuid = |seed: u32| format!("{seed:08x}-4c1d-4b7e-9d2a-{:012x}", u64::from(seed) * 2_654_435_761 % (1 << 48));
    let groups: Vec<_> = ["engineering/backend", "engineering/platform", "finance", "office/berlin", "office/lisbon"]
        .iter()
        .flat_map(|group| [format!("/{group}"), format!("/{group}/leads")])
        .collect();
    let user = json!({
        "sub": uuid(77), "jti": uuid(78), "typ": "ID", "sid": uuid(79), "acr": "1", "name": "Grace Hopper",
        "given_name": "Grace", "family_name": "Hopper", "preferred_username": "grace", "email": "grace@example.com",
        "email_verified": true, "groups": groups,
    });
    let mut access = user.clone();
    for (name, value) in [
        ("iss", json!(stage.provider.issuer())),
        ("exp", json!(stage.clock.unix() + 300)),
        ("iat", json!(stage.clock.unix())),
        ("jti", json!(format!("onrtac:{}", uuid(80)))),
        ("aud", json!("account")),
        ("typ", json!("Bearer")),
        ("azp", json!("vestibule-test")),
        ("allowed-origins", json!([stage.origin()])),
        ("scope", json!("openid email profile")),
        ("realm_access", json!({"roles": ["default-roles-demo", "offline_access", "uma_authorization"]})),
        ("resource_access", json!({"account": {"roles": ["manage-account", "manage-account-links", "view-profile"]}})),
    ] {
        access[name] = value;
    }
    stage.provider.set_user(user);
    stage.provider.issue_jwts(access);
    let browser = stage.browser();
    let path = format!("/{}", "return-path/".repeat(40))[..400].to_owned();
    let challenge = browser.get(&stage.url(&path)).await;
    assert!(challenge.head_length() < 4_000, "the challenge's head takes {} bytes", challenge.head_length());
    let callback = browser.step(&browser.step(&challenge).await).await;
    assert_eq!((callback.status, callback.location().path()), (StatusCode::SEE_OTHER, path.as_str()));
    let set_cookies: usize = callback.set_cookies().iter().map(String::len).sum();
    assert!(callback.head_length() < 4_000, "the answer's head takes {} bytes", callback.head_length());
    assert!(set_cookies < 3_500, "{set_cookies}");
    let sessions = browser.cookies(&stage.origin()).into_iter().filter(|cookie| cookie.value.len() > 300).count();
    assert_eq!(sessions, 1, "the session is split");
    assert_eq!(browser.step(&callback).await.echoed("x-forwarded-groups").unwrap().split(',').count(), 10);
}

#[tokio::test]
async fn a_provider_that_gave_up_is_asked_again_and_not_for_ever() {
    let stage = Stage::start();
    stage.provider.faults(|faults| faults.authorize = Some(AuthorizeFault::TemporarilyUnavailable));
    let browser = stage.browser();
    let callback = callback_url(&stage, &browser, "/asked").await;
    let again = browser.get(callback.as_str()).await;
    assert!(again.location().as_str().starts_with(&stage.provider.issuer()), "{}", again.location());
    stage.provider.heal();
    assert_landed(&browser.follow_reply(again, 6).await, "/asked");

    stage.upstream.forget();
    stage.provider.faults(|faults| faults.authorize = Some(AuthorizeFault::TemporarilyUnavailable));
    let before = stage.provider.count(Endpoint::Authorize);
    let page = stage.sign_in(&stage.browser(), "/asked").await;
    assert_refused(&stage, &page);
    assert_eq!(stage.provider.count(Endpoint::Authorize) - before, 3);
    assert!(page.text().contains("gave up"), "{}", page.text());

    stage.provider.faults(|faults| faults.authorize = Some(AuthorizeFault::ServerError));
    let before = stage.provider.count(Endpoint::Authorize);
    assert_refused(&stage, &stage.sign_in(&stage.browser(), "/asked").await);
    assert_eq!(stage.provider.count(Endpoint::Authorize) - before, 1, "other errors are told at once");
}

#[tokio::test]
async fn cookies_switched_off_end_after_three_tries_on_a_page_that_says_so() {
    let stage = Stage::start();
    let browser = stage.browser();
    browser.switch_cookies_off();
    let page = browser.follow(&stage.url("/asked"), 12).await;
    assert_refused(&stage, &page);
    assert!(page.text().to_lowercase().contains("cookie"), "{}", page.text());
    assert_eq!(stage.provider.count(Endpoint::Authorize), 3);
    assert!(stage.provider.token_calls().is_empty());
}

#[tokio::test]
async fn callback_carried_to_another_browser_is_not_redeemed() {
    let stage = Stage::start();
    stage.provider.set_user(json!({ "sub": "mallory", "email": "mallory@example.com", "email_verified": true }));
    let attacker = stage.browser();
    let callback = callback_url(&stage, &attacker, "/gift").await;
    stage.provider.set_user(json!({ "sub": "ada" }));

    let victim = stage.browser();
    let first = victim.click("https://evil.example/", callback.as_str()).await;
    stage.upstream.assert_untouched();
    assert!(stage.provider.token_calls().is_empty());
    // What follows is a sign-in of the victim's own.
    let page = victim.follow_reply(first, 8).await;
    assert_never_redeemed(&stage, &callback);
    assert_landed(&page, "/gift");
    assert_eq!(page.echoed("x-forwarded-user").as_deref(), Some("ada"));
}

#[tokio::test]
async fn callback_carried_to_a_browser_in_the_middle_of_its_own_sign_in_is_not_redeemed() {
    let stage = Stage::start();
    let attacker = stage.browser();
    let callback = callback_url(&stage, &attacker, "/gift").await;
    let victim = stage.browser();
    at_provider(&stage, &victim, 1).await;
    victim.click("https://evil.example/", callback.as_str()).await;
    stage.upstream.assert_untouched();
    assert!(stage.provider.token_calls().is_empty());
}

#[tokio::test]
async fn callback_carried_to_a_signed_in_browser_leaves_its_session_alone() {
    let stage = Stage::start();
    let victim = stage.signed_in_browser().await;
    let attacker = stage.browser();
    stage.provider.set_user(json!({ "sub": "mallory" }));
    let callback = callback_url(&stage, &attacker, "/gift").await;
    let first = victim.click("https://evil.example/", callback.as_str()).await;
    let page = victim.follow_reply(first, 4).await;
    assert_never_redeemed(&stage, &callback);
    assert_eq!(page.echoed("x-forwarded-user").as_deref(), Some("248289761001"));
}

#[tokio::test]
async fn a_person_who_says_no_is_told_so_and_not_asked_again() {
    for fault in [AuthorizeFault::AccessDenied, AuthorizeFault::ErrorWithoutState] {
        let stage = Stage::start();
        stage.provider.faults(|faults| faults.authorize = Some(fault));
        let page = stage.sign_in(&stage.browser(), "/asked").await;
        assert_refused(&stage, &page);
        assert_eq!(stage.provider.count(Endpoint::Authorize), 1, "{fault:?}");
        assert!(stage.provider.token_calls().is_empty());
    }
}

#[tokio::test]
async fn an_error_description_is_never_shown() {
    let stage = Stage::start();
    stage.provider.faults(|faults| faults.authorize = Some(AuthorizeFault::ErrorWithMarkup));
    let page = stage.sign_in(&stage.browser(), "/asked").await;
    assert_refused(&stage, &page);
    assert!(!page.text().contains("marked up"), "{}", page.text());
}

#[tokio::test]
async fn an_answer_of_another_issuer_is_refused() {
    for fault in [AuthorizeFault::WrongIssuer, AuthorizeFault::MissingIssuer, AuthorizeFault::ErrorFromWrongIssuer] {
        let stage = Stage::start();
        stage.provider.faults(|faults| faults.authorize = Some(fault));
        let page = stage.sign_in(&stage.browser(), "/asked").await;
        assert_refused(&stage, &page);
        assert!(stage.provider.token_calls().is_empty(), "{fault:?}: the code went to the wrong provider");
    }
}

#[tokio::test]
async fn a_code_without_state_is_not_redeemed() {
    let stage = Stage::start();
    stage.provider.faults(|faults| faults.authorize = Some(AuthorizeFault::CodeWithoutState));
    let browser = stage.browser();
    let at_provider = at_provider(&stage, &browser, 1).await;
    browser.step(&at_provider).await;
    stage.upstream.assert_untouched();
    assert!(stage.provider.token_calls().is_empty());
}

#[tokio::test]
async fn a_code_of_another_transaction_signs_nobody_in() {
    let stage = Stage::start();
    stage.provider.faults(|faults| faults.authorize = Some(AuthorizeFault::CodeOfAnotherTransaction));
    let browser = stage.browser();
    let page = stage.sign_in(&browser, "/asked").await;
    assert_refused(&stage, &page);
    assert!(stage.provider.count(Endpoint::Authorize) <= 3);
    assert_eq!(browser.fetch(&stage.url("/")).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn duplicate_and_contradictory_parameters_are_400() {
    let stage = Stage::start();
    for extra in ["code=x", "state=x", "iss=http%3A%2F%2Fx", "error=access_denied", "error=a&error=b"] {
        let browser = stage.browser();
        let callback = callback_url(&stage, &browser, "/asked").await;
        let reply = browser.get(&format!("{callback}&{extra}")).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{extra}");
        stage.upstream.assert_untouched();
        assert_never_redeemed(&stage, &callback);
    }
}

#[tokio::test]
async fn a_state_with_any_character_changed_is_not_redeemed() {
    let stage = Stage::start();
    let browser = stage.browser();
    let callback = callback_url(&stage, &browser, "/asked").await;
    let state = query_value(&callback, "state").unwrap();
    for at in [0, state.len() / 2, state.len() - 2] {
        let mut changed: Vec<char> = state.chars().collect();
        changed[at] = if changed[at] == 'A' { 'B' } else { 'A' };
        let changed: String = changed.into_iter().collect();
        browser.get(&callback.as_str().replace(&state, &changed)).await;
        stage.upstream.assert_untouched();
        assert_never_redeemed(&stage, &callback);
    }
}

#[tokio::test]
async fn a_script_is_told_where_to_sign_in_and_starts_nothing() {
    let stage = Stage::start();
    let browser = stage.browser();
    let fetch = Request::fetch(Method::GET, &stage.url("/api/things"));
    let post = Request::fetch(Method::POST, &stage.url("/api/things")).body("{}");
    let bare = Request::new(Method::GET, &stage.url("/api/things"));
    let prefetch = Request::navigation(Method::GET, &stage.url("/next")).header("sec-purpose", "prefetch");
    for request in [fetch, post, bare, prefetch] {
        let reply = browser.send(request).await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
        assert!(
            reply.json()["sign_in_url"].as_str().is_some_and(|url| url.contains("/auth/login")),
            "{}",
            reply.text()
        );
        let challenge = reply.header("www-authenticate").unwrap();
        assert!(!challenge.to_lowercase().contains("basic") && !challenge.to_lowercase().contains("bearer"));
        assert!(reply.set_cookies().is_empty() && browser.all_cookies().is_empty());
    }
    stage.upstream.assert_untouched();
    assert_eq!(stage.provider.count(Endpoint::Authorize), 0);
}

/// Opens `/tab/NUMBER` in a tab and stops where the provider has approved: the answer's redirect is the callback.
async fn at_provider(stage: &Stage, browser: &Browser, number: usize) -> Reply {
    let challenge = browser.tab().get(&stage.url(&format!("/tab/{number}"))).await;
    browser.step(&challenge).await
}

/// The callback that a sign-in for `path` would go to next.
async fn callback_url(stage: &Stage, browser: &Browser, path: &str) -> Url {
    let challenge = browser.get(&stage.url(path)).await;
    browser.step(&challenge).await.location()
}

fn query_value(url: &Url, name: &str) -> Option<String> {
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// The application answered, and for this target.
#[track_caller]
fn assert_landed(page: &Reply, target: &str) {
    assert_eq!(page.status, StatusCode::OK, "{:#?}: {}", page.visited, page.text());
    assert_eq!(page.json()["target"], target, "{:#?}", page.visited);
}

/// A page of ours that is no redirect and no success, with the upstream untouched.
#[track_caller]
fn assert_refused(stage: &Stage, page: &Reply) {
    assert!(page.status.is_client_error() || page.status.is_server_error(), "{}: {}", page.status, page.text());
    assert_eq!(page.url.origin().ascii_serialization(), stage.origin());
    assert_eq!(page.header("content-type").map(|value| value.starts_with("text/html")), Some(true));
    stage.upstream.assert_untouched();
}

#[track_caller]
fn assert_never_redeemed(stage: &Stage, callback: &Url) {
    let code = query_value(callback, "code").expect("a callback with a code");
    let calls = stage.provider.token_calls();
    let redeemed = calls.iter().any(|call| call.form.iter().any(|(_, value)| *value == code));
    assert!(!redeemed, "the code was redeemed");
}
