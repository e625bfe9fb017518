//! An operator lists and ends sessions on the admin listener, by a token; nobody else does, and nothing else ends.

use http::{Method, StatusCode};
use vestibule_test_support::{Browser, Reply, Request, Stage, Value, json, until};

use crate::providers::{Two, link};
use crate::session_streams::Stream;

pub(crate) const TOKEN: &str = "t0kEn-Wq8_Zr5mXv2Ky7Lb4Nc9Hd3Gs6Pf1Ja";

/// With sessions in cookies.
fn stage() -> Stage {
    with("")
}

fn with(toml: &str) -> Stage {
    Stage::with(&format!("admin_token = \"{TOKEN}\"\n{toml}"))
}

/// What an operator's client sends.
fn asking(stage: &Stage, method: Method, path: &str) -> Request {
    Request::new(method, &stage.admin_url(path)).header("authorization", &format!("Bearer {TOKEN}"))
}

async fn ask(stage: &Stage, method: Method, path: &str) -> Reply {
    stage.browser().send(asking(stage, method, path)).await
}

async fn end(stage: &Stage, path: &str) -> Value {
    let reply = ask(stage, Method::DELETE, path).await;
    assert_eq!(reply.status, StatusCode::OK, "{path}: {}", reply.text());
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    reply.json()
}

#[track_caller]
fn assert_refused(reply: &Reply, status: u16, code: &str) {
    assert_eq!(reply.status.as_u16(), status, "{}", reply.text());
    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    assert_eq!(reply.header("access-control-allow-origin"), None);
    let problem = reply.json();
    assert_eq!((problem["code"].as_str(), problem["status"].as_u64()), (Some(code), Some(status.into())), "{problem}");
    assert!(!reply.text().contains(TOKEN));
}

async fn signed_in(stage: &Stage, sub: &str) -> Browser {
    stage.provider.set_user(json!({ "sub": sub, "preferred_username": sub }));
    stage.signed_in_browser().await
}

#[tokio::test]
async fn without_a_token_in_the_configuration_there_is_no_such_path() {
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    for (method, path) in [(Method::GET, "/sessions"), (Method::DELETE, "/sessions?all=true")] {
        assert_eq!(ask(&stage, method, path).await.status, StatusCode::NOT_FOUND);
    }
    stage.assert_signed_in(&browser).await;
}

#[tokio::test]
async fn the_listeners_of_the_application_know_no_such_path() {
    let stage = stage();
    let browser = stage.signed_in_browser().await;
    let token = format!("Bearer {TOKEN}");
    let request = Request::new(Method::DELETE, &stage.url("/sessions?all=true")).header("authorization", &token);
    assert_eq!(stage.browser().send(request).await.status, StatusCode::UNAUTHORIZED);
    stage.upstream.assert_untouched();
    stage.assert_signed_in(&browser).await;
}

#[tokio::test]
async fn whoever_has_not_the_token_ends_nothing_and_is_told_how_to_ask() {
    let stage = stage();
    let browser = stage.signed_in_browser().await;
    let request = || Request::new(Method::DELETE, &stage.admin_url("/sessions?all=true"));
    let reply = stage.browser().send(request()).await;
    assert_refused(&reply, 401, "admin_token_missing");
    assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
    let right = format!("Bearer {TOKEN}");
    for wrong in [
        format!("Bearer {}", &TOKEN[..TOKEN.len() - 1]),
        format!("Bearer {TOKEN}x"),
        format!("Bearer  {TOKEN}"),
        format!("Basic {TOKEN}"),
        TOKEN.to_owned(),
    ] {
        let reply = stage.browser().send(request().header("authorization", &wrong)).await;
        assert_refused(&reply, 401, "admin_token_wrong");
        assert_eq!(reply.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
    }
    let twice = request().header("authorization", &right).append_header("authorization", &right);
    assert_refused(&stage.browser().send(twice).await, 401, "admin_token_wrong");
    stage.assert_signed_in(&browser).await;
}

#[tokio::test]
async fn whoever_guesses_is_answered_ten_times() {
    let stage = stage();
    let guess = || Request::new(Method::GET, &stage.admin_url("/sessions")).header("authorization", "Bearer guess");
    let mut answers = Vec::new();
    for _ in 0..30 {
        answers.push(stage.browser().send(guess()).await);
    }
    let refused: Vec<_> = answers.iter().filter(|reply| reply.status == StatusCode::TOO_MANY_REQUESTS).collect();
    assert!(refused.len() >= 10, "{}", refused.len());
    assert_refused(refused[0], 429, "admin_too_many_tokens");
    assert!(refused[0].header("retry-after").is_some());
    // Not even the right one is told from the wrong ones now; health goes on.
    assert_refused(&ask(&stage, Method::GET, "/sessions").await, 429, "admin_too_many_tokens");
    assert_eq!(stage.browser().send(Request::new(Method::GET, &stage.admin_url("/healthz"))).await.status, 200);
    until("it is answered again", async || {
        ask(&stage, Method::GET, "/sessions").await.status == StatusCode::NOT_IMPLEMENTED
    })
    .await;
}

#[tokio::test]
async fn no_page_in_a_browser_gets_an_answer_even_with_the_token() {
    let stage = stage();
    let browser = stage.signed_in_browser().await;
    for (name, value) in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "same-origin"),
        ("sec-fetch-mode", "cors"),
        ("referer", "http://127.0.0.1:9090/"),
        ("cookie", "a=b"),
    ] {
        let reply =
            stage.browser().send(asking(&stage, Method::DELETE, "/sessions?all=true").header(name, value)).await;
        assert_refused(&reply, 403, "admin_browser");
    }
    let preflight = asking(&stage, Method::OPTIONS, "/sessions")
        .header("origin", "https://evil.example")
        .header("access-control-request-method", "DELETE");
    assert_refused(&stage.browser().send(preflight).await, 403, "admin_browser");
    // A name that somebody else made an address of this machine.
    for host in ["evil.example", "localhost.evil.example"] {
        let rebound = asking(&stage, Method::DELETE, "/sessions?all=true").header("host", host);
        assert_refused(&stage.browser().send(rebound).await, 421, "admin_host");
    }
    let named = asking(&stage, Method::GET, "/sessions").header("host", "localhost:9090");
    assert_eq!(stage.browser().send(named).await.status, StatusCode::NOT_IMPLEMENTED);
    stage.assert_signed_in(&browser).await;
}

#[tokio::test]
async fn what_is_not_one_clear_choice_ends_nothing() {
    let stage = stage();
    let browser = signed_in(&stage, "ada").await;
    for query in [
        "",
        "?",
        "?all",
        "?all=false",
        "?all=true&user=ada",
        "?all=true&all=true",
        "?user=ada&user=bob",
        "?user=",
        "?users=ada",
        "?issuer=https://id.example",
    ] {
        let reply = ask(&stage, Method::DELETE, &format!("/sessions{query}")).await;
        assert_refused(&reply, 400, "admin_selection");
    }
    assert_refused(&ask(&stage, Method::DELETE, "/sessions?provider=other").await, 400, "admin_unknown");
    assert_refused(
        &ask(&stage, Method::DELETE, "/sessions?user=ada&issuer=https://id.example").await,
        400,
        "admin_unknown",
    );
    assert_refused(&ask(&stage, Method::DELETE, "/sessions/").await, 404, "admin_no_session");
    assert_refused(&ask(&stage, Method::DELETE, "/sessions/0123").await, 404, "admin_no_session");
    let both = format!("/sessions/{}?all=true", "0".repeat(32));
    assert_refused(&ask(&stage, Method::DELETE, &both).await, 400, "admin_selection");
    let reply = ask(&stage, Method::POST, "/sessions?all=true").await;
    assert_refused(&reply, 405, "admin_method");
    assert_eq!(reply.header("allow"), Some("GET, DELETE"));
    stage.assert_signed_in(&browser).await;
}

#[tokio::test]
async fn sessions_in_cookies_are_not_listed_and_end_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let stage = with(&format!("state_dir = \"{}\"", folder.path().display()));
    assert_refused(&ask(&stage, Method::GET, "/sessions").await, 501, "admin_no_list");
    assert_refused(&ask(&stage, Method::GET, &format!("/sessions/{}", "0".repeat(32))).await, 501, "admin_no_list");
    let (ada, bob) = (signed_in(&stage, "ada").await, signed_in(&stage, "bob").await);
    let copy = ada.stolen_copy();
    assert_eq!(end(&stage, "/sessions?user=nobody").await, json!({ "ended": "user" }));
    stage.assert_signed_in(&ada).await;
    assert_eq!(end(&stage, "/sessions?user=ada").await, json!({ "ended": "user" }));
    stage.assert_signed_out(&copy).await;
    stage.assert_signed_in(&bob).await;
    // Whoever signs in again is signed in.
    let ada = signed_in(&stage, "ada").await;
    for (path, name) in [("/sessions?provider=default", "provider"), ("/sessions?all=true", "all")] {
        let (ada, bob) = (signed_in(&stage, "ada").await, signed_in(&stage, "bob").await);
        assert_eq!(end(&stage, path).await, json!({ "ended": name }));
        stage.assert_signed_out(&ada).await;
        stage.assert_signed_out(&bob).await;
        stage.assert_signed_in(&signed_in(&stage, "ada").await).await;
    }
    // What has ended stays ended.
    let stage = stage.restart();
    for browser in [&ada, &bob, &copy] {
        stage.assert_signed_out(browser).await;
    }
}

#[tokio::test]
async fn what_streams_is_cut_within_a_second() {
    let stage = stage();
    for (path, is_everybodys) in
        [("/sessions?user=ada", false), ("/sessions?provider=default", true), ("/sessions?all=true", true)]
    {
        let (ada, bob) = (signed_in(&stage, "ada").await, signed_in(&stage, "bob").await);
        let mut events = Stream::events(&stage, &ada, "/sse").await;
        let mut socket = Stream::web_socket(&stage, &ada).await;
        let mut other_events = Stream::events(&stage, &bob, "/sse").await;
        end(&stage, path).await;
        tokio::join!(events.assert_cut(), socket.assert_told());
        if is_everybodys {
            other_events.assert_cut().await;
        } else {
            other_events.assert_ticks().await;
        }
    }
}

#[tokio::test]
async fn a_provider_s_sessions_end_and_those_of_another_go_on() {
    let two = Two::build("", Stage::builder().toml(&format!("admin_token = \"{TOKEN}\"")));
    let stage = &two.stage;
    let mut browsers = Vec::new();
    for name in ["Company account", "partner"] {
        let browser = stage.browser();
        let page = browser.get(&stage.url("/")).await;
        assert_eq!(browser.follow(&link(&page, name), 10).await.status, StatusCode::OK);
        browsers.push(browser);
    }
    let mut events = Stream::events(stage, &browsers[1], "/sse").await;
    // A user is somebody's.
    let reply = ask(stage, Method::DELETE, "/sessions?user=p-1").await;
    assert_refused(&reply, 400, "admin_unknown");
    assert!(reply.text().contains("company, partner"), "{}", reply.text());
    end(stage, "/sessions?user=p-1&provider=company").await;
    stage.assert_signed_in(&browsers[1]).await;
    end(stage, "/sessions?provider=partner").await;
    events.assert_cut().await;
    stage.assert_signed_in(&browsers[0]).await;
    stage.upstream.forget();
    assert_eq!(browsers[1].get(&stage.url("/")).await.status, StatusCode::UNAUTHORIZED);
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn a_user_of_a_tenant_is_named_with_the_tenants_issuer() {
    let builder = Stage::builder().toml(&format!("admin_token = \"{TOKEN}\""));
    let stage = crate::tenants::build(builder, ("[\"one\", \"two\"]", "one"), json!("one"), None, "");
    stage.provider.set_user(json!({ "sub": "ada", "preferred_username": "ada" }));
    let ada = stage.signed_in_browser().await;
    let of = |tenant: &str| format!("/sessions?user=ada&issuer={}/{tenant}/v2.0", stage.provider.issuer());
    assert_refused(&ask(&stage, Method::DELETE, "/sessions?user=ada").await, 400, "admin_unknown");
    assert_refused(&ask(&stage, Method::DELETE, &of("three")).await, 400, "admin_unknown");
    end(&stage, &of("two")).await;
    stage.assert_signed_in(&ada).await;
    end(&stage, &of("one")).await;
    stage.assert_signed_out(&ada).await;
}

#[cfg(feature = "sql")]
mod stored {
    use super::*;

    fn stored(folder: &tempfile::TempDir) -> Stage {
        with(&format!("[session]\nstore = \"sqlite:{}/sessions.db\"", folder.path().display()))
    }

    async fn list(stage: &Stage, path: &str) -> Vec<Value> {
        let (mut sessions, mut from) = (Vec::new(), String::new());
        loop {
            let reply = ask(stage, Method::GET, &format!("{path}{from}")).await;
            assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
            let page = reply.json();
            sessions.extend(page["sessions"].as_array().expect("a list").iter().cloned());
            let Some(next) = page["next"].as_str() else { return sessions };
            from = format!("{}from={next}", if path.contains('?') { '&' } else { '?' });
        }
    }

    /// The same browser at another replica.
    fn at(replica: &Stage, browser: &Browser) -> Browser {
        let copy = browser.stolen_copy();
        copy.connect(&replica.origin(), replica.address());
        copy
    }

    #[tokio::test]
    async fn sessions_in_a_store_are_listed_and_end_one_by_one_or_by_user() {
        let folder = tempfile::tempdir().unwrap();
        let stage = stored(&folder);
        assert_eq!(list(&stage, "/sessions").await, Vec::<Value>::new());
        let (grace, again, bob) =
            (signed_in(&stage, "grace").await, signed_in(&stage, "grace").await, signed_in(&stage, "bob").await);
        let all = list(&stage, "/sessions").await;
        assert_eq!(all.len(), 3);
        for session in &all {
            assert_eq!(session["provider"].as_str(), Some("default"));
            for moment in ["created", "changed", "expires"] {
                assert!(session[moment].as_str().is_some_and(|text| text.ends_with('Z')), "{session}");
            }
            let id = session["id"].as_str().expect("an id");
            assert_eq!(&ask(&stage, Method::GET, &format!("/sessions/{id}")).await.json(), session);
            // Ids are hexadecimal digits, which would spell some names.
            assert!(!session.to_string().contains("grace"));
        }
        assert_eq!(list(&stage, "/sessions?provider=default").await.len(), 3);
        let of_grace = list(&stage, "/sessions?user=grace").await;
        assert_eq!(of_grace.len(), 2);
        assert_eq!(of_grace[0]["subject"], of_grace[1]["subject"]);
        let of_bob = list(&stage, "/sessions?user=bob").await;
        assert_ne!(of_grace[0]["subject"], of_bob[0]["subject"]);

        let one = format!("/sessions/{}", of_bob[0]["id"].as_str().expect("an id"));
        assert_eq!(end(&stage, &one).await, json!({ "ended": "session", "deleted": 1 }));
        stage.assert_signed_out(&bob).await;
        assert_refused(&ask(&stage, Method::GET, &one).await, 404, "admin_no_session");
        assert_eq!(end(&stage, &one).await, json!({ "ended": "session", "deleted": 0 }));
        stage.assert_signed_in(&grace).await;
        assert_eq!(end(&stage, "/sessions?user=grace").await, json!({ "ended": "user", "deleted": 2 }));
        stage.assert_signed_out(&grace).await;
        stage.assert_signed_out(&again).await;
        assert_eq!(list(&stage, "/sessions").await, Vec::<Value>::new());
    }

    #[tokio::test]
    async fn a_long_list_comes_page_by_page_and_all_of_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let stage = stored(&folder);
        stage.provider.set_user(json!({ "sub": "ada", "preferred_username": "ada" }));
        let browsers = futures_util::future::join_all((0..210).map(|_| stage.signed_in_browser())).await;
        let listed = list(&stage, "/sessions?user=ada").await;
        let ids: std::collections::BTreeSet<_> = listed.iter().filter_map(|session| session["id"].as_str()).collect();
        assert_eq!((listed.len(), ids.len()), (210, 210));
        assert_eq!(end(&stage, "/sessions?all=true").await, json!({ "ended": "all", "deleted": 210 }));
        stage.assert_signed_out(&browsers[0]).await;
        stage.assert_signed_out(&browsers[209]).await;
    }

    #[tokio::test]
    async fn what_an_operator_ends_at_one_replica_has_ended_at_the_other_with_its_streams() {
        let folder = tempfile::tempdir().unwrap();
        let stage = stored(&folder);
        let replica = stage.replica();
        for path in ["/sessions/ID", "/sessions?user=ada", "/sessions?provider=default", "/sessions?all=true"] {
            let ada = signed_in(&stage, "ada").await;
            let there = at(&replica, &ada);
            replica.assert_signed_in(&there).await;
            let mut events = Stream::events(&replica, &there, "/sse").await;
            let mut socket = Stream::web_socket(&replica, &there).await;
            let id = list(&replica, "/sessions?user=ada").await[0]["id"].as_str().expect("an id").to_owned();
            let path = path.replace("ID", &id);
            end(&stage, &path).await;
            tokio::join!(events.assert_cut(), socket.assert_told());
            replica.assert_signed_out(&there).await;
        }
    }

    #[tokio::test]
    async fn a_store_that_is_away_lists_nothing_and_what_is_ended_is_told_when_it_is_back() {
        let folder = tempfile::tempdir().unwrap();
        let stage = with(&format!("[session]\nstore = \"sqlite:{}/missing/s.db\"", folder.path().display()));
        assert_refused(&ask(&stage, Method::GET, "/sessions").await, 503, "admin_store");
        let reply = ask(&stage, Method::DELETE, "/sessions?all=true").await;
        assert_eq!(reply.status, StatusCode::ACCEPTED, "{}", reply.text());
        assert!(reply.json()["pending"].is_string(), "{}", reply.text());
    }
}
