//! People are signed in inside a frame of another site's page, where that page may show the application, and nowhere else: what
//! comes with it is of use to no other page.

use std::time::Duration;

use http::{Method, StatusCode};
use vestibule_test_support::{Browser, Endpoint, Reply, Request, Stage};

const APP: &str = "https://app.example.com";
/// A page that may show the application.
const PORTAL: &str = "https://portal.example.net/home";
/// A page that may not.
const STRANGER: &str = "https://evil.example.org/";
const THEM: &str = "frame-ancestors 'self' https://portal.example.net";
const HTTPS: &str = "[provider]\nredirect_uri = \"https://app.example.com/auth/callback\"\n";
const FRAMED: &str =
    "[cookie]\nname = \"intranet\"\npartitioned = true\nframed_by = [\"https://portal.example.net\"]\n";
const SESSION: [&str; 2] = ["__Host-intranet", "__Host-intranet.idle"];

fn at(path: &str) -> String {
    format!("{APP}{path}")
}

fn start(more: &str) -> (Stage, Browser) {
    with(&format!("{FRAMED}{HTTPS}{more}"))
}

fn with(toml: &str) -> (Stage, Browser) {
    let stage = Stage::with(toml);
    let browser = stage.browser();
    browser.connect(APP, stage.address());
    (stage, browser)
}

/// The same, signed in inside the frame, with an upstream that has forgotten it.
async fn signed_in(more: &str) -> (Stage, Browser) {
    let (stage, browser) = start(more);
    let frame = browser.in_frame_of(PORTAL);
    let reply = frame.follow(&at("/"), 10).await;
    assert_eq!(reply.status, StatusCode::OK, "{}: {}", reply.url, reply.text());
    assert!(reply.echoed("x-forwarded-user").is_some(), "{}", reply.text());
    stage.upstream.forget();
    (stage, frame)
}

/// Every word of what sets a cookie and of what deletes one.
#[track_caller]
fn assert_partitioned(lines: &[String]) {
    assert!(!lines.is_empty());
    for line in lines {
        let words = "; HttpOnly; SameSite=None; Partitioned; Secure; Path=/";
        assert!(line.starts_with("__Host-intranet") && line.contains(words), "{line}");
        assert!(!line.to_ascii_lowercase().contains("domain"), "{line}");
    }
}

fn policies(reply: &Reply) -> Vec<String> {
    let values = reply.headers.get_all("content-security-policy").iter();
    values.map(|value| value.to_str().unwrap().to_owned()).collect()
}

/// Everything that a sign-in sets, one step at a time.
async fn walk(browser: &Browser, url: &str) -> (Reply, Vec<String>) {
    let mut reply = browser.get(url).await;
    let mut lines = Vec::new();
    for _ in 0..10 {
        if reply.url.as_str().starts_with(APP) {
            lines.extend(reply.set_cookies());
        }
        match browser.onward(&reply).await {
            Some(next) => reply = next,
            None => return (reply, lines),
        }
    }
    panic!("more than ten steps from {url}");
}

#[tokio::test]
async fn a_sign_in_inside_a_frame_ends_in_the_application_there_and_nowhere_else() {
    for mode in ["", "response_mode = \"form_post\"\n"] {
        let (stage, browser) = with(&format!("{FRAMED}{HTTPS}{mode}"));
        let frame = browser.in_frame_of(PORTAL);
        let asked = frame.get(&at("/page?x=1")).await;
        // Who frames it is asked before the provider is.
        assert!(asked.status == StatusCode::OK && asked.refresh().is_some(), "{} {}", asked.status, asked.text());
        assert_eq!(policies(&asked), [format!("default-src 'none'; {THEM}; base-uri 'none'")]);
        assert!(frame.shows(&asked) && !browser.in_frame_of(STRANGER).shows(&asked));
        stage.upstream.assert_untouched();

        let (shown, lines) = walk(&frame, &at("/page?x=1")).await;
        assert_eq!((shown.status, shown.url.as_str()), (StatusCode::OK, at("/page?x=1").as_str()), "{}", shown.text());
        assert!(shown.echoed("x-forwarded-user").is_some() && frame.shows(&shown));
        assert_partitioned(&lines);
        for name in SESSION {
            assert!(lines.iter().any(|line| line.starts_with(&format!("{name}="))), "{name}: {lines:?}");
            assert!(frame.cookie(APP, name).is_some());
            assert!(browser.cookie(APP, name).is_none() && browser.in_frame_of(STRANGER).cookie(APP, name).is_none());
        }
        assert_eq!(frame.rejected_cookies(), Vec::<String>::new());

        // A window is asked for itself, and keeps its own.
        let asked = browser.get(&at("/")).await;
        assert!(asked.refresh().is_some(), "{}", asked.text());
        let (window, lines) = walk(&browser, &at("/")).await;
        assert!(window.echoed("x-forwarded-user").is_some());
        assert_partitioned(&lines);
        let session = |browser: &Browser| browser.cookie(APP, SESSION[0]).unwrap().value;
        assert_ne!(session(&browser), session(&frame));
        assert_eq!(frame.get(&at("/again")).await.json()["target"], "/again");

        // The word that somebody was there goes into the same jar.
        stage.clock.advance(Duration::from_secs(20 * 60));
        let lines = frame.get(&at("/later")).await.set_cookies();
        assert!(lines.iter().any(|line| line.starts_with("__Host-intranet.idle=")), "{lines:?}");
        assert_partitioned(&lines);
    }
}

/// Where a sign-in begins, or would come back from the provider with a state that is none of ours.
fn beginnings(stage: &Stage) -> [String; 6] {
    let issuer: String = url::form_urlencoded::byte_serialize(stage.provider.issuer().as_bytes()).collect();
    [
        "/page".to_owned(),
        "/auth/login".to_owned(),
        "/auth/login?rd=%2Fpage".to_owned(),
        format!("/auth/login?iss={issuer}"),
        "/auth/callback?code=x&state=y".to_owned(),
        "/auth/callback?error=login_required&state=y".to_owned(),
    ]
}

#[tokio::test]
async fn in_a_frame_of_somebody_elses_page_no_sign_in_begins() {
    let (stage, browser) = start("");
    let frame = browser.in_frame_of(STRANGER);
    for path in beginnings(&stage) {
        let reply = frame.follow(&at(&path), 10).await;
        assert!(!frame.shows(&reply) && reply.refresh().is_some(), "{path}: {}", reply.text());
        assert!(frame.cookie(APP, SESSION[0]).is_none(), "{path}");
        // The page in the window may do the same by a script, and sees nothing of it.
        let fetched = frame.send(Request::fetch(Method::GET, &at(&path)).from_page(STRANGER)).await;
        assert_eq!(fetched.header("access-control-allow-origin"), None, "{path}");
    }
    assert_eq!(stage.provider.count(Endpoint::Authorize), 0, "the provider was not even asked");
    stage.upstream.assert_untouched();
    // Where frames are not looked at, none begins a sign-in at all.
    let (stage, browser) = with(HTTPS);
    let reply = browser.in_frame_of(PORTAL).get(&at("/page")).await;
    assert_eq!((reply.status, reply.set_cookies()), (StatusCode::UNAUTHORIZED, Vec::new()));
    stage.upstream.assert_untouched();
}

/// With requests that are pushed.
fn pushing(frames: &str) -> (Stage, Browser) {
    with(&format!("{frames}{HTTPS}pushed_authorization_requests = true\n"))
}

#[tokio::test]
async fn for_a_frame_of_somebody_elses_page_a_provider_that_takes_pushed_requests_is_not_called() {
    for frames in [FRAMED, ""] {
        let (stage, browser) = pushing(frames);
        // The seal of a sign-in that somebody began for themselves.
        let elsewhere = browser.stolen_copy();
        let mut reply = elsewhere.get(&at("/page")).await;
        while !reply.url.as_str().starts_with(&at("/auth/callback")) {
            let next = reply.next().or(reply.refresh()).expect("a way to the provider and back");
            if next.path() == "/auth/callback" {
                reply.url = next;
            } else {
                reply = elsewhere.get(next.as_str()).await;
            }
        }
        let state = reply.url.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
        assert_eq!(stage.provider.count(Endpoint::Push), 1);
        let frame = browser.in_frame_of(STRANGER);
        let known = ["error=login_required", "code=x"].map(|word| format!("/auth/callback?{word}&state={state}"));
        for path in beginnings(&stage).into_iter().chain(known) {
            // Again, too: the step that it is to take first has left a mark then.
            for _ in 0..3 {
                let reply = frame.follow(&at(&path), 10).await;
                assert!(!frame.shows(&reply), "{path}: {}", reply.text());
                assert_eq!(reply.header("location"), None, "{path}");
                for destination in ["image", "object", "empty"] {
                    let request = Request::new(Method::GET, &at(&path)).header("sec-fetch-mode", "no-cors");
                    let request = request.header("sec-fetch-dest", destination).from_page(STRANGER);
                    assert_eq!(browser.send(request).await.header("location"), None, "{path} {destination}");
                }
            }
        }
        let called = [Endpoint::Push, Endpoint::Token, Endpoint::Userinfo].map(|one| stage.provider.count(one));
        assert_eq!(called, [1, 0, 0], "{frames:?}");
        stage.upstream.assert_untouched();
    }
}

#[tokio::test]
async fn with_pushed_requests_people_sign_in_inside_frames_in_windows_and_with_browsers_that_say_nothing() {
    let (stage, browser) = pushing(FRAMED);
    let frame = browser.in_frame_of(PORTAL);
    for path in ["/page?x=1", "/auth/login?rd=%2Fpage%3Fx%3D1"] {
        let pushed = stage.provider.count(Endpoint::Push);
        let frame = browser.stolen_copy().in_frame_of(PORTAL);
        let shown = frame.follow(&at(path), 10).await;
        assert_eq!((shown.status, shown.url.as_str()), (StatusCode::OK, at("/page?x=1").as_str()), "{}", shown.text());
        assert!(frame.shows(&shown) && shown.echoed("x-forwarded-user").is_some());
        assert_eq!(stage.provider.count(Endpoint::Push), pushed + 1, "{path}");
    }
    // A page that loads its frame once more before anybody has signed in there.
    let first = frame.get(&at("/page")).await;
    assert!(frame.shows(&first) && first.refresh().is_some(), "{}", first.text());
    let second = frame.get(&at("/page")).await;
    assert_eq!(second.status, StatusCode::UNAUTHORIZED, "{}", second.text());
    let link = second.links().into_iter().find(|(_, label)| label == "Sign in").map(|(address, _)| address);
    let link = second.url.join(&link.expect("a way on")).unwrap();
    let clicked = frame.click(second.url.as_str(), link.as_str()).await;
    let shown = frame.follow_reply(clicked, 10).await;
    assert!(shown.status == StatusCode::OK && shown.echoed("x-forwarded-user").is_some(), "{}", shown.text());

    for frames in [FRAMED, ""] {
        let (stage, window) = pushing(frames);
        let shown = window.follow(&at("/page"), 10).await;
        assert!(shown.status == StatusCode::OK && shown.echoed("x-forwarded-user").is_some(), "{}", shown.text());
        let linked = window.stolen_copy();
        linked.forget(|_| true);
        let asked = linked.click(STRANGER, &at("/page")).await;
        assert!(asked.next().or(asked.refresh()).is_some(), "{}", asked.text());
        assert_eq!(stage.provider.count(Endpoint::Push), 2, "a link of another site begins a sign-in at once");
        for path in ["/page", "/auth/login"] {
            let silent = Request::new(Method::GET, &at(path)).header("accept", "text/html");
            let asked = linked.send(silent).await;
            assert!(asked.next().or(asked.refresh()).is_some(), "{path}: {}", asked.text());
        }
        assert_eq!(stage.provider.count(Endpoint::Push), 4);
    }
}

/// What a page gets by itself, for a request that a browser sends for it.
fn embedded(mode: &str, destination: &str, page: &str) -> Request {
    Request::new(Method::GET, &at("/x"))
        .header("sec-fetch-mode", mode)
        .header("sec-fetch-dest", destination)
        .from_page(page)
}

fn upgrade(origin: &str) -> Request {
    Request::new(Method::GET, &at("/ws"))
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("origin", origin)
}

async fn assert_refused(stage: &Stage, browser: &Browser, request: Request, what: &str) {
    assert!(browser.cookie(APP, SESSION[0]).is_some(), "the session comes along");
    let reply = browser.send(request.header("accept", "application/json")).await;
    assert_eq!(reply.status, StatusCode::FORBIDDEN, "{what}: {}", reply.text());
    assert!(reply.text().is_empty() || reply.json()["code"] == "foreign_origin", "{what}: {}", reply.text());
    assert_eq!(reply.set_cookies(), Vec::<String>::new(), "{what}");
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn what_the_page_around_a_frame_asks_for_with_the_frames_session_is_refused() {
    let (stage, frame) = signed_in("").await;
    for (mode, destination) in [
        ("no-cors", "image"),
        ("no-cors", "script"),
        ("no-cors", "style"),
        ("no-cors", "empty"),
        ("cors", "empty"),
        ("cors", "script"),
        ("navigate", "embed"),
        ("navigate", "object"),
        ("websocket", "websocket"),
    ] {
        let request = embedded(mode, destination, PORTAL);
        assert_refused(&stage, &frame, request, &format!("{mode} {destination}")).await;
    }
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        let request = Request::fetch(method.clone(), &at("/x")).from_page(PORTAL);
        assert_refused(&stage, &frame, request, &format!("fetch by {method}")).await;
        let bare = Request::new(method.clone(), &at("/x")).header("origin", "https://portal.example.net");
        assert_refused(&stage, &frame, bare, &format!("{method} without Fetch Metadata")).await;
    }
    assert_refused(&stage, &frame, Request::fetch(Method::HEAD, &at("/x")).from_page(PORTAL), "HEAD").await;
    let form = Request::navigation(Method::POST, &at("/x")).form(&[("a", "1")]).from_page(PORTAL);
    assert_refused(&stage, &frame, form, "a form into the frame").await;
    for origin in ["https://portal.example.net", "null", "https://evil.example.org"] {
        let bare = Request::new(Method::GET, &at("/x")).header("origin", origin);
        assert_refused(&stage, &frame, bare, "a fetch without Fetch Metadata").await;
        assert_refused(&stage, &frame, upgrade(origin), "a WebSocket").await;
    }
    let sandboxed = Request::fetch(Method::POST, &at("/x")).from_page(PORTAL).header("origin", "null");
    assert_refused(&stage, &frame, sandboxed, "a sandboxed frame").await;
    // Whoever knows Partitioned says so much; for others it is a cookie that comes along with anything.
    assert_refused(&stage, &frame, Request::new(Method::GET, &at("/x")), "silence").await;

    // What the application's own page asks for, and where the portal leads the frame.
    let page = at("/page");
    for request in [
        Request::fetch(Method::GET, &at("/x")).from_page(&page),
        Request::fetch(Method::POST, &at("/x")).from_page(&page),
        Request::navigation(Method::POST, &at("/x")).form(&[("a", "1")]).from_page(&page),
        Request::navigation(Method::GET, &at("/x")).from_page(&page),
        Request::navigation(Method::GET, &at("/x")).from_page(PORTAL),
    ] {
        let reply = frame.send(request.clone()).await;
        assert_eq!(reply.status, StatusCode::OK, "{request:?}: {}", reply.text());
        assert!(reply.echoed("x-forwarded-user").is_some(), "{request:?}");
    }
}

#[tokio::test]
async fn what_any_site_sends_with_a_windows_session_is_refused_and_a_link_works() {
    let (stage, window) = start("");
    assert_eq!(window.follow(&at("/"), 10).await.status, StatusCode::OK);
    stage.upstream.forget();
    let form = Request::navigation(Method::POST, &at("/x")).form(&[("a", "1")]).from_page(STRANGER);
    assert_refused(&stage, &window, form, "a form").await;
    let reply = window.click(STRANGER, &at("/linked")).await;
    assert_eq!((reply.status, reply.echoed("x-forwarded-user").is_some()), (StatusCode::OK, true));
    // A browser that knows no partitions brings it along with everything.
    let copy = window.cookie_line(APP);
    stage.upstream.forget();
    for (mode, destination) in [("no-cors", "image"), ("cors", "empty"), ("navigate", "object")] {
        let request =
            embedded(mode, destination, STRANGER).header("cookie", &copy).header("accept", "application/json");
        let elsewhere = stage.browser();
        elsewhere.connect(APP, stage.address());
        let reply = elsewhere.send(request).await;
        assert_eq!((reply.status, reply.json()["code"].as_str()), (StatusCode::FORBIDDEN, Some("foreign_origin")));
        stage.upstream.assert_untouched();
    }
}

#[tokio::test]
async fn where_strangers_may_read_the_page_around_a_frame_is_one_and_a_listed_origin_is_none() {
    let routes = "[[routes]]\npath = \"/pictures/*\"\naccess = \"optional\"\n[[routes]]\npath = \"/api/*\"\n\
                  allowed_origins = [\"https://portal.example.net\"]\n";
    let (stage, frame) = signed_in(routes).await;
    let picture = |page: &str| {
        let request = Request::new(Method::GET, &at("/pictures/logo")).header("sec-fetch-mode", "no-cors");
        request.header("sec-fetch-dest", "image").from_page(page)
    };
    let reply = frame.send(picture(PORTAL)).await;
    assert_eq!((reply.status, reply.echoed("x-forwarded-user")), (StatusCode::OK, None));
    let vary = "Cookie, Origin, Sec-Fetch-Site, Sec-Fetch-Mode, Sec-Fetch-Dest";
    assert_eq!(reply.header("vary"), Some(vary), "no cache mixes them up");
    let guarded = frame.send(Request::navigation(Method::GET, &at("/page")).from_page(&at("/page"))).await;
    assert_eq!(guarded.header("vary"), Some(vary), "nor the browser's own");
    let reply = frame.send(picture(&at("/page"))).await;
    assert!(reply.status == StatusCode::OK && reply.echoed("x-forwarded-user").is_some());
    stage.upstream.forget();
    let write = Request::fetch(Method::POST, &at("/pictures/logo")).from_page(PORTAL);
    assert_refused(&stage, &frame, write, "a write").await;

    for method in [Method::GET, Method::POST] {
        let reply = frame.send(Request::fetch(method, &at("/api/x")).from_page(PORTAL)).await;
        assert_eq!((reply.status, reply.echoed("x-forwarded-user").is_some()), (StatusCode::OK, true));
    }
    stage.upstream.forget();
    // Without an Origin nobody can be listed.
    let image = Request::new(Method::GET, &at("/api/x")).header("sec-fetch-mode", "no-cors");
    assert_refused(&stage, &frame, image.header("sec-fetch-dest", "image").from_page(PORTAL), "an image").await;
}

/// The applications' own answers, and ours: by address, and by what asks.
fn ours() -> Vec<(&'static str, Request)> {
    let page = |path: &str| Request::navigation(Method::GET, &at(path));
    vec![
        ("a sign-in", page("/page")),
        ("a sign-in by its address", page("/auth/login")),
        ("a callback of nobody", page("/auth/callback")),
        ("the question whether to sign out", page("/auth/logout").from_page(PORTAL)),
        ("the end", page("/auth/signed-out")),
        ("nothing", page("/auth/nothing")),
        ("another method", Request::navigation(Method::DELETE, &at("/auth/login"))),
        ("a challenge", Request::fetch(Method::GET, &at("/x"))),
        ("claims", Request::fetch(Method::GET, &at("/auth/userinfo"))),
        ("a redirect", page("/auth/logout").from_page(&at("/"))),
        ("a request with two readings", page("/a%5cb")),
    ]
}

#[tokio::test]
async fn every_answer_of_ours_names_the_pages_around_it_and_every_other_gets_it_beside_its_own() {
    let public = "[[routes]]\npath = \"/respond\"\naccess = \"public\"\n";
    let (_stage, browser) = start(public);
    let (_other, lax) = with(&format!("{HTTPS}{public}"));
    for (what, request) in ours() {
        let reply = browser.send(request.clone()).await;
        let [policy] = policies(&reply).try_into().unwrap_or_else(|all| panic!("{what}: {all:?}"));
        assert_eq!(policy.matches("frame-ancestors").count(), 1, "{what}: {policy}");
        assert!(policy.split("; ").any(|directive| directive == THEM), "{what}: {policy}");
        assert_eq!(reply.header("x-frame-options"), None, "{what}");

        let reply = lax.send(request).await;
        let [policy] = policies(&reply).try_into().unwrap_or_else(|all| panic!("{what}: {all:?}"));
        assert!(policy.split("; ").any(|directive| directive == "frame-ancestors 'none'"), "{what}: {policy}");
        let is_page = reply.refresh().is_none() && reply.text().contains("<main>");
        assert_eq!(reply.header("x-frame-options"), is_page.then_some("DENY"), "{what}");
    }

    let respond = |fields: &str| at(&format!("/respond?{fields}"));
    let own = "header=content-security-policy:frame-ancestors%20*&header=x-frame-options:SAMEORIGIN";
    for fields in ["status=200", "status=404", "status=500&header=content-type:text/html"] {
        assert_eq!(policies(&browser.get(&respond(fields)).await), [THEM], "{fields}");
        assert_eq!(policies(&lax.get(&respond(fields)).await), Vec::<String>::new(), "{fields}");
    }
    let reply = browser.get(&respond(own)).await;
    assert_eq!(policies(&reply), ["frame-ancestors *", THEM]);
    assert_eq!(reply.header("x-frame-options"), Some("SAMEORIGIN"));
    assert_eq!(policies(&lax.get(&respond(own)).await), ["frame-ancestors *"]);
    // One that has nothing but new header fields for a page would take away those that came with it.
    assert_eq!(policies(&browser.get(&respond("status=304")).await), Vec::<String>::new());
}

#[tokio::test]
async fn a_sign_out_inside_the_frame_takes_away_what_is_in_there() {
    let end = "post_logout_redirect_uri = \"https://app.example.com/auth/signed-out\"\n";
    let (stage, browser) = with(&format!("{FRAMED}{HTTPS}{end}"));
    let frame = browser.in_frame_of(PORTAL);
    for browser in [&browser, &frame] {
        assert_eq!(browser.follow(&at("/"), 10).await.status, StatusCode::OK);
    }
    let leave = || Request::navigation(Method::GET, &at("/auth/logout"));
    // The page around the frame leads there, or a page of the application embeds it: that is nobody's wish.
    for request in [leave().from_page(PORTAL), leave().from_page(&at("/")).without_header("sec-fetch-user")] {
        let asked = frame.send(request).await;
        assert!(asked.status == StatusCode::OK && asked.text().contains("Do you want to sign out"), "{}", asked.text());
        assert_eq!(asked.set_cookies(), Vec::<String>::new());
        assert!(frame.shows(&asked) && !browser.in_frame_of(STRANGER).shows(&asked));
    }
    let forged = Request::navigation(Method::POST, &at("/auth/logout")).form(&[]).from_page(PORTAL);
    assert_eq!(frame.send(forged).await.status, StatusCode::FORBIDDEN);
    assert!(frame.cookie(APP, SESSION[0]).is_some());

    let reply = frame.send(leave().from_page(&at("/"))).await;
    assert_eq!(reply.status, StatusCode::SEE_OTHER, "{}", reply.text());
    let lines = reply.set_cookies();
    assert_partitioned(&lines);
    for name in SESSION {
        let deleted = |line: &&String| line.starts_with(&format!("{name}=;")) && line.ends_with("; Max-Age=0");
        assert_eq!(lines.iter().filter(deleted).count(), 1, "{name}: {lines:?}");
    }
    assert!(frame.cookie(APP, "__Host-intranet.logout").is_some());
    let reply = frame.follow_reply(reply, 10).await;
    assert_eq!((reply.status, reply.url.path()), (StatusCode::OK, "/auth/signed-out"));
    assert_partitioned(&reply.set_cookies());
    assert!(frame.shows(&reply));
    let left: Vec<_> = frame.cookies(APP).into_iter().map(|cookie| cookie.name).collect();
    assert!(!left.iter().any(|name| SESSION.contains(&name.as_str()) || name.ends_with(".logout")), "{left:?}");
    assert_eq!(stage.provider.count(Endpoint::EndSession), 1);
    assert_eq!(browser.get(&at("/")).await.json()["target"], "/", "the window has a session of its own");
}

#[tokio::test]
async fn the_providers_own_frame_ends_what_it_names_and_nothing_by_a_cookie_that_came_along() {
    let (stage, browser) = start("");
    let frame = browser.in_frame_of(PORTAL);
    assert_eq!(frame.follow(&at("/"), 10).await.status, StatusCode::OK);
    let logout = at("/auth/frontchannel-logout");
    let reply = frame.get(&logout).await;
    assert_eq!((reply.status, reply.set_cookies()), (StatusCode::OK, Vec::new()));
    let [policy] = policies(&reply).try_into().unwrap();
    assert!(policy.ends_with(&format!("{THEM} {}", stage.provider.issuer())), "{policy}");
    assert_eq!(frame.get(&at("/")).await.json()["target"], "/", "still there");

    let near = Request::navigation(Method::GET, &logout).from_page("https://id.example.com/logout");
    let reply = frame.send(near).await;
    assert_partitioned(&reply.set_cookies());
    assert!(frame.get(&at("/")).await.refresh().is_some(), "a sign-in begins");
}

#[tokio::test]
async fn a_form_in_a_frame_whose_session_is_over_is_kept_and_sent_there() {
    let (stage, frame) = signed_in("[session]\nkeep_posts = \"64KiB\"\n").await;
    stage.clock.advance(Duration::from_secs(2 * 3_600));
    let form = Request::navigation(Method::POST, &at("/save")).form(&[("a", "1")]).from_page(&at("/edit"));
    let kept = frame.send(form).await;
    assert_eq!((kept.status, kept.location().path()), (StatusCode::SEE_OTHER, "/auth/kept-post"), "{}", kept.text());
    assert_partitioned(&kept.set_cookies());
    let page = frame.follow_reply(kept, 10).await;
    assert!(page.text().contains("Send it now") && frame.shows(&page), "{}", page.text());
    assert!(!frame.in_frame_of(STRANGER).shows(&page), "nobody else can lay it under a click");
    stage.upstream.assert_untouched();
    let sent = frame.post(&page, &page.form().unwrap()).await;
    assert_eq!(sent.status, StatusCode::OK, "{}", sent.text());
    assert_eq!((stage.upstream.count(), stage.upstream.last().body_text.as_str()), (1, "a=1"));
}

#[tokio::test]
async fn without_the_setting_a_frame_changes_nothing() {
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    let cookies = browser.cookie_line(&stage.origin());
    for (mode, destination) in [("no-cors", "image"), ("cors", "empty"), ("navigate", "iframe")] {
        let request = Request::new(Method::GET, &stage.url("/x")).header("cookie", &cookies);
        let request = request.header("sec-fetch-mode", mode).header("sec-fetch-dest", destination);
        let reply = stage.browser().send(request.header("sec-fetch-site", "cross-site")).await;
        assert_eq!((reply.status, reply.echoed("x-forwarded-user").is_some()), (StatusCode::OK, true), "{mode}");
        assert_eq!(policies(&reply), Vec::<String>::new());
    }
    let lines = browser.all_cookies();
    assert!(lines.iter().all(|cookie| cookie.partition.is_none() && cookie.same_site == "lax"), "{lines:?}");
}
