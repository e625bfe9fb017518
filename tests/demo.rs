//! The demo shows what it promises, and is gone as soon as it is told to stop.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vestibule::app::StartError;
use vestibule::demo::{Demo, DemoError, Options};
use vestibule_test_support::{Browser, Reply, TestClock};

struct Show {
    demo: Option<Demo>,
    origin: String,
    issuer: String,
    browser: Browser,
}

impl Show {
    fn start() -> Self {
        let clock = TestClock::new();
        let options = Options { listen: "127.0.0.1:0".parse().unwrap() };
        let demo = loop {
            match Demo::start(options, Arc::new(clock.clone())) {
                // Another test was given the port between its choice and its use.
                Err(DemoError::Start(StartError::Listen(_))) => {}
                demo => break demo.unwrap(),
            }
        };
        let origin = format!("http://localhost:{}", demo.address().port());
        let issuer = demo.issuer().to_owned();
        Self { demo: Some(demo), origin, issuer, browser: Browser::new(clock) }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    /// Goes to `path` and ends at the provider's form.
    async fn form(&self, path: &str) -> Reply {
        // Until the provider is known, which is a matter of milliseconds, there is no form.
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let reply = self.browser.follow(path, 3).await;
            if reply.status != StatusCode::SERVICE_UNAVAILABLE || Instant::now() > end {
                assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
                assert!(reply.text().contains("choose who you are"), "{}", reply.text());
                return reply;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Fills in the form, and follows where it leads.
    async fn choose(&self, form: &Reply, person: &str) -> Reply {
        let request: Vec<_> = form.url.query_pairs().into_owned().collect();
        let mut fields: Vec<_> = request.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        fields.push(("user", person));
        let target = format!("{}/authorize", self.issuer);
        let reply = self.browser.submit(form.url.as_str(), &target, &fields).await;
        self.browser.follow_reply(reply, 5).await
    }

    async fn sign_in(&self, path: &str, person: &str) -> Reply {
        let form = self.form(&self.url(path)).await;
        let reply = self.choose(&form, person).await;
        assert_eq!(reply.url.path(), path, "{:#?}", reply.visited);
        reply
    }

    /// Returns how long it took.
    fn stop(&mut self) -> Option<Duration> {
        let demo = self.demo.take()?;
        let started = Instant::now();
        // On a thread of its own: runtimes end there, which they may not on one of theirs.
        let stopped = thread::spawn(move || demo.stop()).join();
        assert!(stopped.is_ok() || thread::panicking(), "the demo's end panicked");
        Some(started.elapsed())
    }
}

impl Drop for Show {
    fn drop(&mut self) {
        self.stop();
    }
}

#[tokio::test]
async fn ada_is_an_admin_and_the_application_is_told_who_she_is() {
    let show = Show::start();
    let home = show.sign_in("/", "ada").await;
    assert_eq!(home.status, StatusCode::OK);
    assert!(home.text().contains("Hello, ada"), "{}", home.text());
    let admin = show.browser.get(&show.url("/admin")).await;
    assert_eq!(admin.status, StatusCode::OK, "{}", admin.text());
    // A program is shown the request line by line.
    let seen = show.browser.fetch(&show.url("/")).await.text();
    for header in [
        "x-forwarded-user: ada",
        "x-forwarded-email: ada@example.com",
        "x-forwarded-preferred-username: ada",
        "x-forwarded-groups: /admins",
        "x-forwarded-roles: admin,auditor",
    ] {
        assert!(seen.lines().any(|line| line == header), "{header} is not in\n{seen}");
    }
    assert!(!seen.contains("cookie:"), "our cookies reached the application:\n{seen}");
}

#[tokio::test]
async fn grace_is_an_editor_and_is_refused_the_admin_page() {
    let show = Show::start();
    let admin = show.sign_in("/admin", "grace").await;
    assert_eq!(admin.status, StatusCode::FORBIDDEN);
    assert!(admin.text().contains("Access denied"), "{}", admin.text());
    let editor = show.browser.get(&show.url("/editor")).await;
    assert_eq!(editor.status, StatusCode::OK, "{}", editor.text());
}

#[tokio::test]
async fn alans_address_is_not_verified_so_the_application_is_not_told_it() {
    let show = Show::start();
    show.sign_in("/", "alan").await;
    let seen = show.browser.fetch(&show.url("/")).await.text();
    assert!(seen.contains("x-forwarded-user: alan") && !seen.contains("x-forwarded-email"), "{seen}");
    assert!(!seen.contains("x-forwarded-roles"), "{seen}");
}

#[tokio::test]
async fn signing_out_ends_at_the_signed_out_page_and_the_provider_asks_again() {
    let show = Show::start();
    let home = show.sign_in("/", "ada").await;
    let reply = show.browser.click(home.url.as_str(), &show.url("/auth/logout")).await;
    let end = show.browser.follow_reply(reply, 5).await;
    assert_eq!((end.status, end.url.path()), (StatusCode::OK, "/auth/signed-out"), "{:#?}", end.visited);
    assert!(end.visited.iter().any(|url| url.as_str().starts_with(&show.issuer)), "{:#?}", end.visited);
    assert_eq!(show.browser.fetch(&show.url("/")).await.status, StatusCode::UNAUTHORIZED);
    show.form(&show.url("/")).await;
}

#[tokio::test]
async fn switching_the_user_asks_again_and_the_next_one_is_there() {
    let show = Show::start();
    show.sign_in("/", "ada").await;
    let form = show.form(&format!("{}/switch", show.issuer)).await;
    let home = show.choose(&form, "grace").await;
    assert!(home.text().contains("Hello, grace"), "{}", home.text());
}

#[tokio::test]
async fn it_stops_at_once_whatever_streams_are_open() {
    let mut show = Show::start();
    show.sign_in("/", "ada").await;
    let cookies: Vec<_> =
        show.browser.cookies(&show.origin).into_iter().map(|one| format!("{}={}", one.name, one.value)).collect();
    let mut stream = TcpStream::connect(show.demo.as_ref().unwrap().address()).await.unwrap();
    let host = show.origin.trim_start_matches("http://");
    let head = format!("GET /events HTTP/1.1\r\nHost: {host}\r\nCookie: {}\r\n\r\n", cookies.join("; "));
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut seen = String::new();
    while !seen.contains("data: ") {
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).await.unwrap();
        assert!(count > 0, "the stream ended: {seen}");
        seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    let took = show.stop().unwrap();
    assert!(took < Duration::from_secs(1), "{took:?}");
}
