//! Our cookies go where they are needed and nowhere else, come back when they are needed, and are gone when they are deleted.

use std::time::Duration;

use http::{Method, StatusCode};
use vestibule_test_support::{Browser, Endpoint, Reply, Request, Stage, StoredCookie};

const STRICT: &str = "[cookie]\nsame_site = \"strict\"\n";
/// A page of another site, that links here.
const MAIL: &str = "https://mail.example.net/inbox";

fn asked_to_sign_in(stage: &Stage) -> usize {
    stage.provider.count(Endpoint::Authorize)
}

/// The cookies as a browser keeps them: name, Domain (empty: the host's own), Path and SameSite.
fn kept(browser: &Browser) -> Vec<(String, String, String, String)> {
    let told = |cookie: StoredCookie| {
        let domain = if cookie.host_only { String::new() } else { cookie.domain };
        (cookie.name, domain, cookie.path, cookie.same_site)
    };
    let mut all: Vec<_> = browser.all_cookies().into_iter().map(told).collect();
    all.sort();
    all
}

fn is_hop_to(reply: &Reply, url: &str) -> bool {
    reply.status == StatusCode::OK && reply.refresh().is_some_and(|next| next.as_str() == url)
}

#[tokio::test]
async fn a_strict_session_lands_through_a_page_of_our_own() {
    let stage = Stage::with(STRICT);
    let browser = stage.browser();
    let page = stage.url("/page?x=1&y=%27%22%3C");
    let at_provider = browser.get(&page).await;
    let callback = browser.step(&at_provider).await;
    let landing = browser.step(&callback).await;
    assert_eq!(landing.url.path(), "/auth/callback");
    assert!(is_hop_to(&landing, &page), "{} {}", landing.status, landing.text());
    assert_eq!(landing.header("cache-control"), Some("private, no-store"));
    assert_eq!(landing.header("referrer-policy"), Some("no-referrer"));
    assert_eq!(landing.links(), [(page.clone(), "Continue".to_owned())]);
    stage.upstream.assert_untouched();
    let strict = |name: &str| browser.cookie(&stage.origin(), name).unwrap().same_site;
    assert_eq!((strict("vestibule"), strict("vestibule.idle")), ("strict".to_owned(), "strict".to_owned()));
    assert_eq!((strict("vestibule.login"), strict("vestibule.done")), ("lax".to_owned(), "lax".to_owned()));
    // Straight on, as a redirect would lead, the session would not have come along.
    let redirected = browser.click(callback.url.as_str(), &stage.url("/elsewhere")).await;
    assert!(is_hop_to(&redirected, &stage.url("/elsewhere")));

    let there = browser.follow_reply(landing, 1).await;
    assert_eq!(there.json()["target"], "/page?x=1&y=%27%22%3C");
    assert_eq!(asked_to_sign_in(&stage), 1);
}

#[tokio::test]
async fn a_strict_session_survives_an_answer_that_comes_by_post_and_a_silent_renewal() {
    let stage = Stage::with(&format!("{STRICT}[provider]\nresponse_mode = \"form_post\"\n"));
    let browser = stage.browser();
    let reply = browser.follow(&stage.url("/page"), 10).await;
    assert_eq!(reply.json()["target"], "/page");
    assert_eq!(asked_to_sign_in(&stage), 1);

    let stage = Stage::with(&format!("{STRICT}[session]\nrenew = false\nrenew_every = \"10m\"\n"));
    let browser = stage.signed_in_browser().await;
    let session = |browser: &Browser| browser.cookie(&stage.origin(), "vestibule").unwrap().value;
    let first = session(&browser);
    stage.clock.advance(Duration::from_secs(11 * 60));
    let reply = browser.follow(&stage.url("/again"), 10).await;
    assert_eq!(reply.json()["target"], "/again");
    assert_eq!(asked_to_sign_in(&stage), 2);
    assert_ne!(session(&browser), first);
}

/// Sessions in a file, which the cookie does not come along to at the callback.
#[cfg(feature = "sql")]
fn stored_and_strict(folder: &tempfile::TempDir) -> Stage {
    let store = format!("store = \"sqlite:{}/sessions.db\"", folder.path().display());
    Stage::with(&format!("{STRICT}[session]\n{store}\nrenew = false\nrenew_every = \"10m\"\n"))
}

#[cfg(feature = "sql")]
#[tokio::test]
async fn a_strict_session_in_a_store_is_renewed_silently_under_its_own_name() {
    let folder = tempfile::tempdir().unwrap();
    let stage = stored_and_strict(&folder);
    let browser = stage.signed_in_browser().await;
    let (id, tab) = (browser.cookie(&stage.origin(), "vestibule").unwrap().value, browser.stolen_copy());
    stage.clock.advance(Duration::from_secs(600));
    assert_eq!(browser.follow(&stage.url("/page"), 10).await.json()["target"], "/page");
    assert_eq!(asked_to_sign_in(&stage), 2);
    // Whatever was under way with the old cookie goes on.
    for browser in [&tab, &browser] {
        assert_eq!(browser.fetch(&stage.url("/")).await.status, StatusCode::OK);
    }
    let late = stage.replica();
    tab.connect(&late.origin(), late.address());
    assert_eq!(tab.fetch(&late.url("/")).await.status, StatusCode::OK);
    let renewed = browser.cookie(&stage.origin(), "vestibule").unwrap().value;
    assert_ne!(renewed, id, "sealed anew, and the same ticket");
    assert_eq!(browser.get(&stage.url("/auth/logout")).await.status.as_u16() / 100, 3);
    stage.assert_signed_out(&browser).await;
}

#[cfg(feature = "sql")]
#[tokio::test]
async fn a_new_sign_in_with_a_strict_session_removes_the_old_one_from_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let stage = stored_and_strict(&folder);
    let browser = stage.signed_in_browser().await;
    let old = browser.stolen_copy();
    assert_eq!(browser.follow(&stage.url("/auth/login?rd=/page"), 10).await.json()["target"], "/page");
    // Behind the answer, so there is something to wait for; what was read is good for five seconds.
    vestibule_test_support::until("the old session is gone", async || {
        stage.clock.advance(Duration::from_secs(6));
        old.fetch(&stage.url("/")).await.status == StatusCode::UNAUTHORIZED
    })
    .await;
    assert_eq!(browser.fetch(&stage.url("/")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_callback_that_comes_twice_still_ends_in_the_application_with_a_strict_session() {
    let stage = Stage::with(STRICT);
    let browser = stage.browser();
    let callback = browser.step(&browser.get(&stage.url("/page")).await).await.location();
    for turn in 1..=2 {
        // By the provider's page each time: no session comes along that could tell.
        let reply = browser.click(&stage.provider.issuer(), callback.as_str()).await;
        let reply = browser.follow_reply(reply, 10).await;
        assert_eq!(reply.json()["target"], "/page");
        assert_eq!(asked_to_sign_in(&stage), turn);
    }
}

#[tokio::test]
async fn a_link_on_another_site_finds_a_strict_session_without_asking_the_provider() {
    let stage = Stage::with(STRICT);
    let browser = stage.signed_in_browser().await;
    let page = stage.url("/report?id=7");
    for _ in 0..2 {
        let hop = browser.click(MAIL, &page).await;
        assert!(is_hop_to(&hop, &page), "{} {}", hop.status, hop.text());
        stage.upstream.assert_untouched();
        let there = browser.follow_reply(hop, 1).await;
        assert_eq!(there.json()["target"], "/report?id=7");
        let cookie = there.echoed("cookie").unwrap_or_default();
        assert!(!cookie.contains("vestibule"), "{cookie}");
        stage.upstream.forget();
        stage.clock.advance(Duration::from_secs(11));
    }
    assert_eq!(asked_to_sign_in(&stage), 1, "the sign-in itself");
    // A page of a sibling host is of the same site: the session comes along at once.
    let typed_in = browser.get(&page).await;
    assert_eq!(typed_in.json()["target"], "/report?id=7");
}

#[tokio::test]
async fn whoever_is_signed_out_takes_one_hop_and_signs_in_and_a_browser_that_misleads_goes_in_no_circle() {
    let stage = Stage::with(STRICT);
    let browser = stage.browser();
    let page = stage.url("/report");
    let there = browser.follow_reply(browser.click(MAIL, &page).await, 10).await;
    assert_eq!(there.json()["target"], "/report");
    let hops = there.visited.iter().filter(|url| url.as_str() == page).count();
    assert_eq!((hops, asked_to_sign_in(&stage)), (3, 1), "{:#?}", there.visited);

    // As if each request came from another site, whoever asks.
    let stage = Stage::with(STRICT);
    let browser = stage.browser();
    let page = stage.url("/report");
    assert!(is_hop_to(&browser.click(MAIL, &page).await, &page));
    let second = browser.click(MAIL, &page).await;
    assert!(stage.asks_to_sign_in(&second), "{} {}", second.status, second.text());
    // Another address, or the same one later, is another link.
    let other = stage.url("/other");
    assert!(is_hop_to(&browser.click(MAIL, &other).await, &other));
    stage.clock.advance(Duration::from_secs(11));
    assert!(is_hop_to(&browser.click(MAIL, &page).await, &page));
    // Without cookies what a page of ours asks for is still not from another site.
    browser.switch_cookies_off();
    let own = browser.click(&stage.url("/"), &page).await;
    assert!(stage.asks_to_sign_in(&own));
    // Who does not say where they come from is asked at once, and programs are told what they always are.
    let silent = browser.send(Request::navigation(Method::GET, &page).without_header("sec-fetch-site")).await;
    assert!(stage.asks_to_sign_in(&silent));
    let script = browser.send(Request::fetch(Method::GET, &page).from_page(MAIL)).await;
    assert_eq!(script.status, StatusCode::UNAUTHORIZED);
    assert_eq!(script.set_cookies(), Vec::<String>::new());
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn a_lax_session_takes_no_hop() {
    let stage = Stage::start();
    let browser = stage.browser();
    assert!(stage.asks_to_sign_in(&browser.click(MAIL, &stage.url("/")).await));
    let browser = stage.signed_in_browser().await;
    assert_eq!(browser.click(MAIL, &stage.url("/x")).await.json()["target"], "/x");
}

#[tokio::test]
async fn a_link_to_the_signed_out_page_does_not_tell_somebody_with_a_strict_session_that_it_is_over() {
    let back = "[provider]\npost_logout_redirect_uri = \"http://localhost:{port}/auth/signed-out\"\n";
    let stage = Stage::with(&format!("{STRICT}{back}"));
    let browser = stage.signed_in_browser().await;
    let page = stage.url("/auth/signed-out");
    let hop = browser.click(MAIL, &page).await;
    assert!(is_hop_to(&hop, &page), "{}", hop.text());
    assert!(browser.follow_reply(hop, 1).await.text().contains("still signed in"));
    // A sign-out that went through the provider ends there at once.
    let out = browser.follow(&stage.url("/auth/logout"), 5).await;
    assert!(out.text().contains("You have been signed out"), "{}", out.text());
    assert!(!kept(&browser).iter().any(|(name, ..)| name == "vestibule" || name == "vestibule.idle"));
}

const DOMAIN: &str = "return_origins = [\"http://wiki.example.com\", \"https://wiki.example.com\"]\n\
    [provider]\nredirect_uri = \"https://app.example.com/auth/callback\"\n[cookie]\ndomain = \"example.com\"\n";
const APP: &str = "https://app.example.com";
const WIKI: &str = "https://wiki.example.com";
/// Somebody else's.
const SIBLING: &str = "https://evil.example.com/";

async fn browser_of_domain(stage: &Stage) -> Browser {
    let browser = stage.browser();
    for origin in [APP, WIKI, "https://example.com"] {
        browser.connect(origin, stage.address());
    }
    stage.wait_for_provider().await;
    browser
}

#[tokio::test]
async fn a_domains_session_is_shown_to_its_hosts_and_what_a_sign_in_needs_to_its_own_host_alone() {
    let stage = Stage::with(DOMAIN);
    let browser = browser_of_domain(&stage).await;
    // From an alias, over the redirect URI's host, and back.
    let there = browser.follow(&format!("{WIKI}/page?x=1"), 10).await;
    assert_eq!((there.url.as_str(), there.status), ("https://wiki.example.com/page?x=1", StatusCode::OK));
    assert_eq!(browser.rejected_cookies(), Vec::<String>::new());
    let text = |one: (&str, &str, &str, &str)| (one.0.into(), one.1.into(), one.2.into(), one.3.into());
    let expected = [
        ("__Host-vestibule.done", "", "/", "lax"),
        ("__Host-vestibule.login", "", "/", "lax"),
        ("__Secure-vestibule", "example.com", "/", "lax"),
        ("__Secure-vestibule.idle", "example.com", "/", "lax"),
    ];
    assert_eq!(kept(&browser), expected.map(text));
    assert!(browser.all_cookies().iter().all(|cookie| cookie.secure && cookie.http_only));
    for origin in [APP, WIKI] {
        let reply = browser.get(&format!("{origin}/again")).await;
        assert_eq!(reply.json()["target"], "/again");
        let cookie = reply.echoed("cookie").unwrap_or_default();
        assert!(!cookie.contains("vestibule"), "{cookie}");
    }
    // A sign-out at any of them: the deletion says what the session was set with.
    let out = browser.click(&format!("{WIKI}/page"), &format!("{WIKI}/auth/logout?rd=/bye")).await;
    assert_eq!(out.status, StatusCode::SEE_OTHER);
    let left = kept(&browser).into_iter().map(|(name, ..)| name).collect::<Vec<_>>();
    assert!(!left.contains(&"__Secure-vestibule".to_owned()), "{left:?}");
    assert!(!left.contains(&"__Secure-vestibule.idle".to_owned()), "{left:?}");
    stage.upstream.forget();
    for origin in [APP, WIKI] {
        assert_eq!(browser.get(&format!("{origin}/")).await.status, StatusCode::FOUND);
    }
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn where_a_domains_cookies_are_not_kept_the_way_ends_on_a_page() {
    let stage = Stage::with(DOMAIN);
    let browser = browser_of_domain(&stage).await;
    let mut reply = browser.get(&format!("{WIKI}/")).await;
    let mut steps = 0;
    while reply.next().is_some() && steps < 40 {
        reply = browser.step(&reply).await;
        // As it is with a domain that browsers take for a public suffix.
        browser.forget(|cookie| !cookie.host_only);
        steps += 1;
    }
    assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{steps} steps: {}", reply.text());
    assert_eq!(asked_to_sign_in(&stage), 3);
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn a_cookie_tossed_by_a_sibling_host_is_not_believed_and_ends_in_no_circle() {
    // Two cookies of one name, told apart by the browser by path or by domain; one of them never goes away.
    for (domain, tossed) in
        [("example.com", "Domain=example.com; Path=/p"), ("app.example.com", "Domain=example.com; Path=/")]
    {
        let stage = Stage::with(&DOMAIN.replace("domain = \"example.com\"", &format!("domain = \"{domain}\"")));
        let browser = browser_of_domain(&stage).await;
        browser.follow(&format!("{APP}/"), 10).await;
        let other = browser_of_domain(&stage).await;
        other.follow(&format!("{APP}/"), 10).await;
        let theirs = other.cookie(APP, "__Secure-vestibule").unwrap().value;
        for (name, value) in [("", "x"), ("", &theirs), (".idle", "x")] {
            let victim = browser.stolen_copy();
            assert_eq!(victim.get(&format!("{APP}/p")).await.status, StatusCode::OK);
            victim.set_cookie(SIBLING, &format!("__Secure-vestibule{name}={value}; {tossed}; Secure"));
            stage.upstream.forget();
            let before = asked_to_sign_in(&stage);
            let mut reply = victim.get(&format!("{APP}/p")).await;
            for _ in 0..40 {
                let Some(_) = reply.next() else { break };
                reply = victim.step(&reply).await;
            }
            assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{tossed}: {}", reply.text());
            assert!(asked_to_sign_in(&stage) - before <= 3);
            stage.upstream.assert_untouched();
        }
        // What a sign-in is bound to can't be tossed at all.
        for name in ["__Host-vestibule.login", "__Host-vestibule.done"] {
            browser.set_cookie(SIBLING, &format!("{name}=x; Domain=example.com; Path=/; Secure"));
        }
        assert_eq!(browser.rejected_cookies().len(), 2);
    }
}

#[tokio::test]
async fn a_hosts_own_session_cannot_be_tossed_over() {
    let stage = Stage::with("[provider]\nredirect_uri = \"https://app.example.com/auth/callback\"");
    let browser = browser_of_domain(&stage).await;
    browser.follow(&format!("{APP}/"), 10).await;
    for tossed in ["__Host-vestibule=x; Domain=example.com; Path=/; Secure", "__host-vestibule=x; Domain=example.com"] {
        browser.set_cookie(SIBLING, tossed);
    }
    assert_eq!(browser.rejected_cookies().len(), 2);
    // Names that are not ours are the application's, whatever they look like.
    for tossed in ["vestibule=x; Domain=example.com", "__Secure-vestibule=x; Domain=example.com; Secure"] {
        browser.set_cookie(SIBLING, tossed);
    }
    let reply = browser.get(&format!("{APP}/")).await;
    assert_eq!(reply.status, StatusCode::OK);
    let cookie = reply.echoed("cookie").unwrap();
    assert!(cookie.contains("vestibule=x") && !cookie.contains("__Host-"), "{cookie}");
}

#[tokio::test]
async fn a_session_below_a_path_is_shown_there_and_its_deletion_finds_it() {
    let stage = Stage::with(
        "[endpoints]\nprefix = \"/app/auth\"\n[cookie]\npath = \"/app\"\nsame_site = \"strict\"\n\
         [provider]\nredirect_uri = \"https://app.example.com/app/auth/callback\"\n",
    );
    let browser = browser_of_domain(&stage).await;
    let there = browser.follow(&format!("{APP}/app/page"), 10).await;
    assert_eq!(there.json()["target"], "/app/page");
    assert_eq!(browser.rejected_cookies(), Vec::<String>::new());
    let session = browser.cookie(APP, "__Secure-vestibule").unwrap();
    assert_eq!((session.path.as_str(), session.same_site.as_str()), ("/app", "strict"));
    assert!(session.secure && session.http_only && session.host_only);
    assert_eq!(browser.cookie(APP, "__Host-vestibule.login").unwrap().path, "/");
    stage.upstream.forget();
    assert_eq!(browser.get(&format!("{APP}/other")).await.status, StatusCode::FOUND);
    stage.upstream.assert_untouched();
    let out = browser.click(&format!("{APP}/app/page"), &format!("{APP}/app/auth/logout")).await;
    assert_eq!(out.status, StatusCode::SEE_OTHER);
    assert!(browser.cookie(APP, "__Secure-vestibule").is_none());
    assert!(browser.cookie(APP, "__Secure-vestibule.idle").is_none());
}

#[tokio::test]
async fn two_applications_on_one_host_with_a_name_each_do_not_notice_one_another() {
    let (one, two) = (Stage::with("[cookie]\nname = \"one\""), Stage::with("[cookie]\nname = \"two\""));
    let browser = browser_of(&one, &two);
    for round in ["/first", "/second"] {
        for stage in [&one, &two] {
            let reply = browser.follow(&stage.url(round), 10).await;
            assert_eq!(reply.json()["target"], round);
        }
    }
    assert_eq!((asked_to_sign_in(&one), asked_to_sign_in(&two)), (1, 1));
    browser.get(&one.url("/auth/logout")).await;
    assert_eq!(browser.get(&two.url("/third")).await.json()["target"], "/third");
    assert!(one.asks_to_sign_in(&browser.get(&one.url("/third")).await));
    // Path and port isolate nothing: each sees the other's, as a stranger's.
    let cookie = browser.get(&two.url("/")).await.echoed("cookie").unwrap_or_default();
    assert!(cookie.contains("one.login=") && !cookie.contains("two=") && !cookie.contains("two."), "{cookie}");
}

#[tokio::test]
async fn two_applications_of_one_name_take_turns_with_a_clean_sign_in_each() {
    for secret in ["Another-secret_4fQz8mWk2Xv6Lr0Tn9Jb3Hs7Pd1Gy", ""] {
        let one = Stage::start();
        // Of the same secret, too: a session belongs to an origin, port included.
        let two = match secret {
            "" => Stage::start(),
            secret => Stage::with(&format!("[session]\nsecret = \"{secret}\"")),
        };
        let browser = browser_of(&one, &two);
        for turn in 1..=3 {
            for stage in [&one, &two] {
                let reply = browser.follow(&stage.url("/page"), 4).await;
                assert_eq!(reply.json()["target"], "/page", "turn {turn}");
                assert_eq!(asked_to_sign_in(stage), turn, "one sign-in each turn");
                // A person takes longer than a circle.
                stage.clock.advance(Duration::from_secs(31));
                browser.forget(|cookie| cookie.name == "vestibule.done");
            }
        }
        for stage in [&one, &two] {
            assert_eq!(stage.upstream.count(), 3, "nothing but the pages");
        }
    }
}

fn browser_of(one: &Stage, two: &Stage) -> Browser {
    let browser = one.browser();
    browser.connect(&two.origin(), two.address());
    browser
}
