//! A form whose session is over is kept, and sent after the sign-in of the same person: once, as it was, and by nobody else.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::json;
use vestibule_test_support::{Browser, PostingForm, Reply, Request, Stage, StoredCookie};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const KEPT: &str = "[session]\nkeep_posts = \"64KiB\"\n";
/// Bytes that parsing and writing again would change.
const BODY: &str = "b=2&a=1&a=%e4+%C3%A4&&empty&x=%zz&line=1%0A2";
const URL_ENCODED: &str = "application/x-www-form-urlencoded";
const SESSION: [&str; 2] = ["vestibule", "vestibule.idle"];

/// What a browser sends for a form on one of the application's pages.
fn form(stage: &Stage, target: &str) -> Request {
    Request::navigation(Method::POST, &stage.url(target))
        .from_page(&stage.url("/edit?id=7"))
        .header("referer", &stage.url("/edit?id=7"))
        .header("content-type", URL_ENCODED)
        .body(BODY)
}

/// Somebody who was away for too long.
async fn idle_browser(stage: &Stage) -> Browser {
    let browser = stage.signed_in_browser().await;
    stage.clock.advance(2 * HOUR);
    browser
}

/// What that form comes to: the page that asks whether to send it.
async fn until_asked(stage: &Stage, browser: &Browser, kept: Reply) -> (Reply, PostingForm) {
    assert_kept(stage, &kept);
    let page = browser.follow_reply(kept, 10).await;
    assert_eq!(page.status, StatusCode::OK, "{} {}", page.url, page.text());
    assert!(page.text().contains("Send it now"), "{}", page.text());
    let form = page.form().expect("a form");
    (page, form)
}

#[track_caller]
fn assert_kept(stage: &Stage, kept: &Reply) {
    assert_eq!(kept.status, StatusCode::SEE_OTHER, "{}", kept.text());
    assert_eq!(kept.location().path(), "/auth/kept-post");
    stage.upstream.assert_untouched();
}

/// Refused as ever, and nothing is kept.
#[track_caller]
fn assert_not_kept(stage: &Stage, reply: &Reply, what: &str) {
    assert!(matches!(reply.status.as_u16(), 401 | 403), "{what}: {} {}", reply.status, reply.text());
    assert_eq!(reply.next(), None, "{what}");
    let cookies = reply.set_cookies();
    assert!(!cookies.iter().any(|cookie| cookie.starts_with("vestibule.kept=")), "{what}: {cookies:?}");
    stage.upstream.assert_untouched();
}

#[track_caller]
fn assert_not_sent(stage: &Stage, reply: &Reply, status: u16, words: &str) {
    assert_eq!(reply.status, status, "{}", reply.text());
    assert!(reply.text().contains("Not sent") && reply.text().contains(words), "{}", reply.text());
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn a_form_whose_session_was_idle_too_long_is_sent_after_the_sign_in_once_and_byte_for_byte() {
    let stage = Stage::with(KEPT);
    let browser = idle_browser(&stage).await;
    let kept = browser.send(form(&stage, "/save?draft=%31&x")).await;
    assert!(kept.set_cookies().iter().any(|cookie| cookie.starts_with("vestibule.kept=")), "{:?}", kept.set_cookies());
    assert_eq!(kept.header("cache-control"), Some("private, no-store"));
    let (page, send) = until_asked(&stage, &browser, kept).await;
    stage.upstream.assert_untouched();
    assert!(
        !page.text().contains("<script") && !page.text().contains("%e4"),
        "nothing that was entered is in the page"
    );
    assert!(page.text().contains("the form to &#x2f;save."), "{}", page.text());
    assert_eq!(send.action.as_str(), stage.url("/save?draft=%31&x"));
    assert!(page.links().iter().any(|(url, _)| *url == stage.url("/edit?id=7")), "{:?}", page.links());

    let sent = browser.post(&page, &send).await;
    assert_eq!((sent.status, sent.url.as_str()), (StatusCode::OK, stage.url("/save?draft=%31&x").as_str()));
    let received = stage.upstream.last();
    assert_eq!((received.method.as_str(), received.target.as_str()), ("POST", "/save?draft=%31&x"));
    assert_eq!((received.body_text.as_str(), received.body_length), (BODY, BODY.len() as u64));
    assert_eq!(received.header("content-type"), [URL_ENCODED]);
    assert_eq!(received.header("content-length"), [BODY.len().to_string()]);
    assert_eq!(received.header("referer"), [stage.url("/edit?id=7")]);
    assert_eq!(received.header("origin"), [stage.origin()]);
    assert_eq!(received.header("x-forwarded-user").len(), 1);
    assert!(!received.header("cookie").iter().any(|line| line.contains("vestibule")));
    assert_eq!(stage.upstream.count(), 1);

    // The back button and a reload.
    stage.upstream.forget();
    assert_not_sent(&stage, &browser.post(&page, &send).await, 410, "sent already");
    assert_not_sent(&stage, &browser.get(page.url.as_str()).await, 410, "sent already");
}

#[tokio::test]
async fn forms_of_every_kind_are_kept_as_they_are() {
    let stage = Stage::with(KEPT);
    let every_byte: Vec<u8> = (0..=255).cycle().take(60_000).collect();
    let multipart = "multipart/form-data; boundary=----x\"y";
    for (content_type, body) in [
        (multipart, every_byte),
        ("text/plain;charset=UTF-8", b"a=b\r\n".to_vec()),
        ("Application/X-WWW-Form-Urlencoded; charset=x", b"a".to_vec()),
        (URL_ENCODED, Vec::new()),
        (URL_ENCODED, format!("vestibule_kept_post={}", "!".repeat(22)).into_bytes()),
    ] {
        let browser = idle_browser(&stage).await;
        let request = form(&stage, "/save").header("content-type", content_type).body(body.clone());
        let (page, send) = until_asked(&stage, &browser, browser.send(request).await).await;
        assert_eq!(browser.post(&page, &send).await.status, StatusCode::OK);
        let received = stage.upstream.last();
        assert_eq!(received.header("content-type"), [content_type]);
        assert_eq!(received.body_length, body.len() as u64);
        assert_eq!(received.body_text, String::from_utf8_lossy(&body));
        assert_eq!(stage.upstream.count(), 1);
    }
}

#[tokio::test]
async fn a_form_is_kept_past_the_lifetime_of_its_session_too_but_not_for_ever() {
    let stage = Stage::with(&format!("{KEPT}idle = \"24h\"\n[provider]\nstale_keys = \"90h\"\n"));
    let browser = stage.signed_in_browser().await;
    stage.clock.advance(24 * HOUR + MINUTE);
    assert!(stage.asks_to_sign_in(&browser.stolen_copy().get(&stage.url("/")).await));
    let (page, send) = until_asked(&stage, &browser, browser.send(form(&stage, "/save")).await).await;
    assert_eq!(browser.post(&page, &send).await.status, StatusCode::OK);
    assert_eq!(stage.upstream.last().body_text, BODY);

    stage.upstream.forget();
    let before = browser.cookie(&stage.origin(), "vestibule").unwrap();
    stage.clock.advance(36 * HOUR);
    assert_eq!(browser.cookie(&stage.origin(), "vestibule"), None, "its cookie is gone by then");
    browser.plant(StoredCookie { expires: None, ..before });
    assert_not_kept(&stage, &browser.send(form(&stage, "/save")).await, "long after");
}

#[tokio::test]
async fn a_form_on_a_route_that_wants_a_more_recent_sign_in_is_kept_until_then() {
    let stage = Stage::with(&format!("{KEPT}[[routes]]\npath = \"/pay\"\nmax_identity_age = \"10m\"\n"));
    let browser = stage.signed_in_browser().await;
    stage.clock.advance(30 * MINUTE);
    assert_eq!(browser.get(&stage.url("/other")).await.status, StatusCode::OK);
    stage.upstream.forget();
    let (page, send) = until_asked(&stage, &browser, browser.send(form(&stage, "/pay")).await).await;
    // Too old once more before the button is pressed: it waits on.
    stage.clock.advance(11 * MINUTE);
    let (page, send) = {
        let again = browser.post(&page, &send).await;
        until_asked(&stage, &browser, again).await
    };
    assert_eq!(browser.post(&page, &send).await.status, StatusCode::OK);
    assert_eq!((stage.upstream.count(), stage.upstream.last().body_text.as_str()), (1, BODY));
}

#[tokio::test]
async fn no_other_site_and_no_program_has_anything_kept() {
    let stage = Stage::with(KEPT);
    let browser = idle_browser(&stage).await;
    let page = || form(&stage, "/save");
    let evil =
        Request::navigation(Method::POST, &stage.url("/save")).from_page("https://evil.example/").form(&[("a", "b")]);
    let cases = [
        ("a form of another site", evil),
        ("another origin", page().header("origin", "https://evil.example")),
        ("another port", page().header("origin", "http://localhost:1")),
        ("another scheme", page().header("origin", &stage.origin().replace("http:", "https:"))),
        ("null", page().header("origin", "null")),
        ("no origin", page().without_header("origin")),
        ("two origins", page().append_header("origin", &stage.origin())),
        ("a sibling", page().header("sec-fetch-site", "same-site")),
        ("cross-site", page().header("sec-fetch-site", "cross-site")),
        ("nobody", page().header("sec-fetch-site", "none")),
        ("no word of the site", page().without_header("sec-fetch-site")),
        ("no word of the mode", page().without_header("sec-fetch-mode")),
        ("no word of the destination", page().without_header("sec-fetch-dest")),
        ("a script", page().header("sec-fetch-mode", "cors").header("sec-fetch-dest", "empty")),
        ("a frame", page().header("sec-fetch-dest", "iframe")),
        ("json", page().header("content-type", "application/json")),
        ("two types", page().append_header("content-type", URL_ENCODED)),
        ("no type", page().without_header("content-type")),
        ("a long type", page().header("content-type", &format!("{URL_ENCODED};{}", "x".repeat(300)))),
        ("compressed", page().header("content-encoding", "gzip")),
        ("another host", form(&stage, "/save").header("host", "127.0.0.1")),
    ];
    for (what, request) in cases {
        assert_not_kept(&stage, &browser.send(request).await, what);
    }
    for method in [Method::PUT, Method::PATCH, Method::DELETE] {
        let what = method.to_string();
        let request = Request::navigation(method, &stage.url("/save")).from_page(&stage.url("/")).form(&[("a", "b")]);
        assert_not_kept(&stage, &browser.send(request).await, &what);
    }
}

#[tokio::test]
async fn only_an_authentic_session_that_is_over_by_itself_has_a_form_kept() {
    let stage = Stage::with(KEPT);
    let browser = idle_browser(&stage).await;
    let session = browser.cookie(&stage.origin(), "vestibule").unwrap();
    let mut forged = session.value.clone().into_bytes();
    let middle = forged.len() / 2;
    forged[middle] = if forged[middle] == b'A' { b'B' } else { b'A' };
    let idle = browser.cookie(&stage.origin(), "vestibule.idle").unwrap().value;
    let other = Stage::with(&format!("{KEPT}secret = \"aN0ther-7mVt2_Kd9zLr4wNc8YbHs1PfJg6Ue3R\"\n"));
    let foreign = other.signed_in_browser().await.cookie(&other.origin(), "vestibule").unwrap().value;
    let cases =
        [("forged", String::from_utf8(forged).unwrap()), ("another purpose", idle), ("another secret", foreign)];
    for (what, value) in cases {
        let copy = browser.stolen_copy();
        copy.plant(StoredCookie { value, ..session.clone() });
        assert_not_kept(&stage, &copy.send(form(&stage, "/save")).await, what);
    }
    let without = browser.stolen_copy();
    without.forget(|cookie| SESSION.contains(&cookie.name.as_str()));
    assert_not_kept(&stage, &without.send(form(&stage, "/save")).await, "none");
    assert_kept(&stage, &browser.send(form(&stage, "/save")).await);
}

#[tokio::test]
async fn a_form_with_a_session_that_was_ended_is_not_kept_however_old_it_is() {
    let stage = Stage::with(&format!("{KEPT}[provider]\nstale_keys = \"90h\"\n"));
    let browser = stage.signed_in_browser().await;
    let copy = browser.stolen_copy();
    for cookie in browser.all_cookies() {
        copy.plant(StoredCookie { expires: None, ..cookie });
    }
    browser.click(&stage.url("/"), &stage.url("/auth/logout")).await;
    for away in [Duration::ZERO, 2 * HOUR, 23 * HOUR, 10 * HOUR] {
        stage.clock.advance(away);
        assert_not_kept(&stage, &copy.send(form(&stage, "/save")).await, "signed out");
    }
}

#[tokio::test]
async fn without_the_option_a_form_is_refused_as_ever() {
    let stage = Stage::start();
    let browser = idle_browser(&stage).await;
    assert_not_kept(&stage, &browser.send(form(&stage, "/save")).await, "off");
    assert_eq!(browser.get(&stage.url("/auth/kept-post?form=x")).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_somebody_else_filled_in_is_thrown_away() {
    let stage = Stage::with(KEPT);
    let browser = idle_browser(&stage).await;
    let kept = browser.send(form(&stage, "/save")).await;
    assert_kept(&stage, &kept);
    let address = kept.location();
    stage.provider.set_user(json!({"sub": "somebody-else", "preferred_username": "mallory"}));
    let page = browser.follow_reply(kept, 10).await;
    assert_not_sent(&stage, &page, 403, "somebody else");
    stage.provider.set_user(json!({"sub": "again-another"}));
    assert_not_sent(&stage, &browser.get(address.as_str()).await, 410, "kept for too long");
}

#[tokio::test]
async fn the_button_of_one_person_sends_nothing_as_another() {
    let stage = Stage::with(KEPT);
    let browser = idle_browser(&stage).await;
    let (page, send) = until_asked(&stage, &browser, browser.send(form(&stage, "/save")).await).await;
    browser.forget(|cookie| SESSION.contains(&cookie.name.as_str()));
    stage.provider.set_user(json!({"sub": "somebody-else"}));
    stage.sign_in(&browser, "/").await;
    stage.upstream.forget();
    assert_not_sent(&stage, &browser.post(&page, &send).await, 403, "somebody else");
    assert_not_sent(&stage, &browser.post(&page, &send).await, 410, "sent already");
}

#[tokio::test]
async fn a_form_that_a_thief_of_the_old_cookie_sent_does_not_open_in_its_persons_browser() {
    let stage = Stage::with(KEPT);
    let browser = idle_browser(&stage).await;
    let thief = browser.stolen_copy();
    let kept = thief.send(form(&stage, "/give-all-away")).await;
    assert_kept(&stage, &kept);
    stage.sign_in(&browser, "/").await;
    stage.upstream.forget();
    let page = browser.get(kept.location().as_str()).await;
    assert_not_sent(&stage, &page, 410, "kept for too long");
    // Nor with a form that does without the page, nor where their browser has a secret of its own.
    stage.clock.advance(2 * HOUR);
    let own = browser.send(form(&stage, "/save")).await;
    let (page, send) = until_asked(&stage, &browser, own).await;
    let id = kept.location().query_pairs().next().unwrap().1.into_owned();
    let fields = [(send.fields[0].0.clone(), id)];
    let forged = PostingForm { action: stage.url("/give-all-away").parse().unwrap(), fields: fields.to_vec() };
    assert_not_sent(&stage, &browser.post(&page, &forged).await, 410, "sent already");
    assert_eq!(browser.post(&page, &send).await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_button_counts_on_our_own_page_and_for_its_own_address_only() {
    let stage = Stage::with(KEPT);
    let browser = idle_browser(&stage).await;
    let (page, send) = until_asked(&stage, &browser, browser.send(form(&stage, "/save?a")).await).await;
    let (name, value) = (send.fields[0].0.as_str(), send.fields[0].1.as_str());
    let button = |target: &str| {
        Request::navigation(Method::POST, &stage.url(target)).form(&[(name, value)]).from_page(page.url.as_str())
    };
    for (what, request) in [
        ("another site", button("/save?a").header("origin", "https://evil.example")),
        ("null", button("/save?a").header("origin", "null")),
        ("no origin", button("/save?a").without_header("origin").without_header("sec-fetch-site")),
        ("a script", button("/save?a").header("sec-fetch-mode", "cors").header("sec-fetch-dest", "empty")),
        ("a frame", button("/save?a").header("sec-fetch-dest", "iframe")),
    ] {
        let reply = browser.send(request).await;
        assert_eq!(reply.status, StatusCode::FORBIDDEN, "{what}: {}", reply.text());
        stage.upstream.assert_untouched();
    }
    for target in ["/save", "/save?b", "/save?a&b", "/other"] {
        assert_not_sent(&stage, &browser.send(button(target)).await, 409, "has changed");
    }
    assert_eq!(browser.send(button("/save?a")).await.status, StatusCode::OK);
    assert_eq!((stage.upstream.count(), stage.upstream.last().body_text.as_str()), (1, BODY));
}

#[tokio::test]
async fn pressed_twice_at_once_the_button_sends_once() {
    let stage = Stage::with(KEPT);
    let browser = idle_browser(&stage).await;
    let (page, send) = until_asked(&stage, &browser, browser.send(form(&stage, "/save")).await).await;
    let tabs = [browser.tab(), browser.tab(), browser.tab(), browser.tab()];
    let [one, two, three, four] = tabs.each_ref().map(|tab| tab.post(&page, &send));
    let (one, two, three, four) = tokio::join!(one, two, three, four);
    let mut statuses = [one, two, three, four].map(|reply| reply.status.as_u16());
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 410, 410, 410]);
    assert_eq!(stage.upstream.count(), 1);
}

#[tokio::test]
async fn a_form_waits_on_while_the_application_is_away_and_is_not_sent_again_when_it_fails() {
    let stage = Stage::with(KEPT);
    let browser = idle_browser(&stage).await;
    let (page, send) = until_asked(&stage, &browser, browser.send(form(&stage, "/respond?status=500")).await).await;
    stage.upstream.take_down();
    for _ in 0..2 {
        assert_eq!(browser.post(&page, &send).await.status, StatusCode::BAD_GATEWAY);
    }
    assert_eq!(browser.get(page.url.as_str()).await.status, StatusCode::OK, "it waits");
    stage.upstream.assert_untouched();
    stage.upstream.bring_back();
    let sent = browser.post(&page, &send).await;
    assert_eq!((sent.status, stage.upstream.count()), (StatusCode::INTERNAL_SERVER_ERROR, 1));
    assert_eq!(browser.post(&page, &send).await.status, StatusCode::GONE);
    assert_eq!((stage.upstream.count(), stage.upstream.last().body_text.as_str()), (1, BODY));
}

#[tokio::test]
async fn forms_in_several_tabs_wait_each_for_themselves() {
    let stage = Stage::with(KEPT);
    let browser = idle_browser(&stage).await;
    let mut kept = Vec::new();
    for number in 0..3 {
        let request = form(&stage, &format!("/save/{number}")).body(format!("n={number}"));
        kept.push(browser.send(request).await);
    }
    let mut waiting = Vec::new();
    for reply in kept {
        waiting.push(until_asked(&stage, &browser, reply).await);
    }
    assert_eq!(stage.provider.count(vestibule_test_support::Endpoint::Authorize), 2, "one sign-in is enough for all");
    for (number, (page, send)) in waiting.iter().enumerate().rev() {
        assert_eq!(browser.post(page, send).await.status, StatusCode::OK);
        let received = stage.upstream.last();
        assert_eq!((received.target, received.body_text), (format!("/save/{number}"), format!("n={number}")));
    }
    assert_eq!(stage.upstream.count(), 3);
}

#[tokio::test]
async fn what_is_too_large_or_too_much_is_refused_before_it_is_read_and_the_person_is_told() {
    let stage = Stage::with("[session]\nkeep_posts = \"1KiB\"\nkeep_posts_total = \"7KiB\"\n");
    let browser = idle_browser(&stage).await;
    let of = |bytes: usize| form(&stage, "/save").body("x".repeat(bytes));
    let large = browser.send(of(1_025)).await;
    assert_not_kept(&stage, &large, "too large");
    assert!(large.text().contains("too large to be kept"), "{}", large.text());
    let kept = browser.send(of(1_024)).await;
    assert_kept(&stage, &kept);
    let full = browser.send(of(1_024)).await;
    assert_not_kept(&stage, &full, "full");
    assert!(full.text().contains("could not be kept"), "{}", full.text());
    let (page, send) = until_asked(&stage, &browser, kept).await;
    assert_eq!(browser.post(&page, &send).await.status, StatusCode::OK);
    stage.upstream.forget();
    // Room again.
    stage.clock.advance(2 * HOUR);
    assert_kept(&stage, &browser.send(of(1_024)).await);
    let metrics = Browser::new(stage.clock.clone()).fetch(&stage.admin_url("/metrics")).await.text();
    for (outcome, count) in [("kept", 2), ("sent", 1), ("post_too_large", 1), ("posts_full", 1)] {
        let line = format!("vestibule_kept_posts_total{{outcome=\"{outcome}\"}} {count}");
        assert!(metrics.contains(&line), "{line} in\n{metrics}");
    }
}

#[tokio::test]
async fn one_person_has_eight_forms_at_a_time_and_nobody_elses_room() {
    let stage = Stage::with(KEPT);
    let ada = idle_browser(&stage).await;
    stage.provider.set_user(json!({"sub": "grace"}));
    let grace = idle_browser(&stage).await;
    for _ in 0..8 {
        assert_kept(&stage, &ada.send(form(&stage, "/save")).await);
    }
    assert_not_kept(&stage, &ada.send(form(&stage, "/save")).await, "the ninth");
    assert_kept(&stage, &grace.send(form(&stage, "/save")).await);
}

#[tokio::test]
async fn a_form_is_kept_for_a_while() {
    let stage = Stage::with(&format!("{KEPT}keep_posts_for = \"5m\"\n"));
    let browser = idle_browser(&stage).await;
    let (page, send) = until_asked(&stage, &browser, browser.send(form(&stage, "/save")).await).await;
    stage.clock.advance(5 * MINUTE);
    assert_not_sent(&stage, &browser.post(&page, &send).await, 410, "kept for too long");
    assert_not_sent(&stage, &browser.get(page.url.as_str()).await, 410, "kept for too long");
}

#[tokio::test]
async fn after_a_restart_nothing_that_was_kept_is_there_and_nothing_else_is_sent_for_it() {
    let stage = Stage::with(KEPT);
    let browser = idle_browser(&stage).await;
    let (page, send) = until_asked(&stage, &browser, browser.send(form(&stage, "/save")).await).await;
    let stage = stage.restart();
    assert_not_sent(&stage, &browser.post(&page, &send).await, 410, "fill it in once more");
}

#[tokio::test]
async fn in_a_store_every_replica_has_it_a_restart_loses_nothing_and_one_of_all_sends_it() {
    let folder = vestibule_test_support::tempfile::tempdir().unwrap();
    let token = "kZ3_w8Rr-0QmXc61TtLp5VyNbE2uHsJd";
    let stage = Stage::with(&format!(
        "admin_token = {token:?}\n{KEPT}store = \"sqlite:{}/sessions.db\"\n",
        folder.path().display()
    ));
    let other = stage.replica();
    let browser = idle_browser(&stage).await;
    let kept = browser.send(form(&stage, "/save")).await;
    assert_kept(&stage, &kept);
    let lists = || async {
        let list = Request::new(Method::GET, &stage.admin_url("/sessions"));
        let list = list.header("authorization", &format!("Bearer {token}"));
        Browser::new(stage.clock.clone()).send(list).await.json()["sessions"].as_array().expect("a list").len()
    };
    assert_eq!(lists().await, 1, "a form is no session");
    browser.connect(&stage.origin(), other.address());
    let (page, send) = until_asked(&stage, &browser, kept).await;
    let stage_two = other.restart();
    let here = browser.stolen_copy();
    here.connect(&stage.origin(), stage.address());
    let there = browser.stolen_copy();
    there.connect(&stage.origin(), stage_two.address());
    let (one, two) = tokio::join!(here.post(&page, &send), there.post(&page, &send));
    let mut statuses = [one.status.as_u16(), two.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 410]);
    assert_eq!((stage.upstream.count(), stage.upstream.last().body_text.as_str()), (1, BODY));
}

#[tokio::test]
async fn whoever_lost_the_right_in_the_meantime_sends_nothing() {
    let routes = "[[routes]]\npath = \"/admin/*\"\nrequire = { roles = [\"admin\"] }\n";
    let stage = Stage::with(&format!("{KEPT}{routes}"));
    stage.provider.set_user(json!({"sub": "ada", "roles": ["admin"]}));
    let browser = idle_browser(&stage).await;
    let kept = browser.send(form(&stage, "/admin/save")).await;
    assert_kept(&stage, &kept);
    let address = kept.location();
    stage.provider.set_user(json!({"sub": "ada", "roles": ["user"]}));
    let page = browser.follow_reply(kept, 10).await;
    assert_eq!(page.status, StatusCode::FORBIDDEN, "{}", page.text());
    assert!(page.text().contains("Access denied"), "{}", page.text());
    stage.upstream.assert_untouched();
    assert_not_sent(&stage, &browser.get(address.as_str()).await, 410, "kept for too long");
}

#[tokio::test]
async fn a_session_that_ends_again_before_the_button_is_pressed_loses_nothing() {
    let stage = Stage::with(&format!("{KEPT}keep_posts_for = \"12h\"\n"));
    let browser = idle_browser(&stage).await;
    let (page, send) = until_asked(&stage, &browser, browser.send(form(&stage, "/save")).await).await;
    stage.clock.advance(2 * HOUR);
    let again = browser.post(&page, &send).await;
    assert_eq!(again.location(), page.url, "the same form, not one about it");
    let (page, send) = until_asked(&stage, &browser, again).await;
    assert_eq!(browser.post(&page, &send).await.status, StatusCode::OK);
    assert_eq!((stage.upstream.count(), stage.upstream.last().body_text.as_str()), (1, BODY));
}

#[tokio::test]
async fn the_button_needs_no_room_for_what_waits_already() {
    let stage =
        Stage::with("[session]\nkeep_posts = \"1KiB\"\nkeep_posts_total = \"7KiB\"\nkeep_posts_for = \"12h\"\n");
    let browser = idle_browser(&stage).await;
    let kept = browser.send(form(&stage, "/save").body("x".repeat(1_024))).await;
    let (page, send) = until_asked(&stage, &browser, kept).await;
    stage.clock.advance(2 * HOUR);
    assert_not_kept(&stage, &browser.send(form(&stage, "/save")).await, "there is no room");
    let again = browser.post(&page, &send).await;
    assert_eq!(again.status, StatusCode::SEE_OTHER, "{}", again.text());
    let (page, send) = until_asked(&stage, &browser, again).await;
    assert_eq!(browser.post(&page, &send).await.status, StatusCode::OK);
    assert_eq!((stage.upstream.count(), stage.upstream.last().body_length), (1, 1_024));
}

#[tokio::test]
async fn other_forms_of_the_same_length_go_on_as_they_are() {
    let stage = Stage::with(KEPT);
    let browser = stage.signed_in_browser().await;
    let mark = format!("vestibule_kept_post={}", "A".repeat(22));
    for body in ["x".repeat(mark.len()), mark.replace('=', "!"), mark.replace('A', "*"), mark.replace("post", "POST")] {
        let reply = browser.send(form(&stage, "/save").body(body.clone())).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
        let received = stage.upstream.last();
        assert_eq!((received.body_text.as_str(), received.header("content-type")), (body.as_str(), vec![URL_ENCODED]));
        assert_eq!(received.header("content-length"), [body.len().to_string()]);
    }
    stage.upstream.forget();
    assert_not_sent(&stage, &browser.send(form(&stage, "/save").body(mark)).await, 410, "sent already");
}

#[tokio::test]
async fn with_strict_cookies_and_with_a_stored_session_it_goes_the_same_way() {
    let folder = vestibule_test_support::tempfile::tempdir().unwrap();
    let store = format!("{KEPT}store = \"sqlite:{}/sessions.db\"\n", folder.path().display());
    for toml in [format!("{KEPT}[cookie]\nsame_site = \"strict\"\n"), store] {
        let stage = Stage::with(&toml);
        let browser = idle_browser(&stage).await;
        let (page, send) = until_asked(&stage, &browser, browser.send(form(&stage, "/save")).await).await;
        assert_eq!(browser.post(&page, &send).await.status, StatusCode::OK, "{toml}");
        assert_eq!((stage.upstream.count(), stage.upstream.last().body_text.as_str()), (1, BODY));
    }
}

#[tokio::test]
async fn without_a_session_the_address_of_a_form_asks_to_sign_in_and_the_login_endpoint_leads_there() {
    let stage = Stage::with(KEPT);
    let browser = idle_browser(&stage).await;
    let kept = browser.send(form(&stage, "/save")).await;
    let address = kept.location();
    assert!(stage.asks_to_sign_in(&browser.get(address.as_str()).await));
    let script = browser.fetch(address.as_str()).await;
    assert_eq!(script.status, StatusCode::UNAUTHORIZED);
    let rd = url::form_urlencoded::byte_serialize(address[url::Position::BeforePath..].as_bytes()).collect::<String>();
    let page = browser.follow(&stage.url(&format!("/auth/login?rd={rd}")), 10).await;
    assert_eq!((page.status, page.url.as_str()), (StatusCode::OK, address.as_str()), "{}", page.text());
    for query in ["", "?form=", "?form=x", &format!("?form={}", "A".repeat(22))] {
        assert_eq!(browser.get(&stage.url(&format!("/auth/kept-post{query}"))).await.status, 410, "{query}");
    }
    assert_eq!(browser.get(&format!("{address}&form=x")).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(browser.submit(address.as_str(), address.as_str(), &[]).await.status, StatusCode::METHOD_NOT_ALLOWED);
    stage.upstream.assert_untouched();
}
