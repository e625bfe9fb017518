//! A connection may be kept and carry anybody's requests: each is judged by its own cookies, at its own moment.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use vestibule_test_support::{Browser, Stage};

const MINUTE: Duration = Duration::from_secs(60);

/// A connection that is kept, as a gateway in front keeps it.
struct Kept(TcpStream);

impl Kept {
    async fn open(stage: &Stage) -> Self {
        Self(TcpStream::connect(stage.address()).await.unwrap())
    }

    /// The status of a program's request with these cookies, and the person that the upstream was told, if it was asked.
    async fn ask(&mut self, stage: &Stage, cookies: &str) -> (u16, Option<String>) {
        stage.upstream.forget();
        let head = format!("GET / HTTP/1.1\r\nHost: {}\r\nCookie: {cookies}\r\n\r\n", stage.host());
        self.0.write_all(head.as_bytes()).await.unwrap();
        let status = self.answer().await;
        let person = (stage.upstream.count() > 0).then(|| stage.upstream.last().header("x-forwarded-user").join("|"));
        (status, person)
    }

    async fn answer(&mut self) -> u16 {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(timeout(Duration::from_secs(10), self.0.read_u8()).await.expect("in time").expect("an answer"));
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let length =
            head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()).expect("a length");
        self.0.read_exact(&mut vec![0; length.parse().unwrap()]).await.unwrap();
        head["http/1.1 ".len()..][..3].parse().unwrap()
    }
}

async fn signed_in(stage: &Stage, sub: &str) -> Browser {
    stage.provider.set_user(json!({ "sub": sub }));
    stage.signed_in_browser().await
}

fn is_let_in(sub: &str) -> (u16, Option<String>) {
    (200, Some(sub.to_owned()))
}

#[tokio::test]
async fn each_request_of_a_kept_connection_is_whoever_it_says() {
    let stage = Stage::start();
    let (ada, bob) = (signed_in(&stage, "ada").await, signed_in(&stage, "bob").await);
    let [ada, bob] = [ada, bob].map(|browser| browser.cookie_line(&stage.origin()));
    let mut kept = Kept::open(&stage).await;
    for (cookies, sub) in [(&ada, "ada"), (&ada, "ada"), (&bob, "bob"), (&ada, "ada"), (&bob, "bob")] {
        assert_eq!(kept.ask(&stage, cookies).await, is_let_in(sub));
        // Whoever shows nothing is nobody.
        assert_eq!(kept.ask(&stage, "own=1").await, (401, None));
        assert_eq!(kept.ask(&stage, cookies).await, is_let_in(sub));
    }
    // One's session with the other's idle cookie is neither's.
    let one =
        |cookies: &'_ str, name: &str| cookies.split("; ").find(|cookie| cookie.starts_with(name)).unwrap().to_owned();
    let (session, idle) = (one(&ada, "vestibule="), one(&bob, "vestibule.idle="));
    assert_eq!(kept.ask(&stage, &format!("{session}; {idle}")).await, (401, None));
    // One character of a session that has just come is another.
    let middle = session.len() / 2;
    let other = if session.as_bytes()[middle] == b'A' { "B" } else { "A" };
    let altered = ada.replacen(&session, &[&session[..middle], other, &session[middle + 1..]].concat(), 1);
    assert_eq!(kept.ask(&stage, &ada).await, is_let_in("ada"));
    assert_eq!(kept.ask(&stage, &altered).await, (401, None));
    assert_eq!(kept.ask(&stage, &ada).await, is_let_in("ada"));
}

#[tokio::test]
async fn a_sign_out_holds_at_the_next_request_of_every_connection() {
    let stage = Stage::start();
    let ada = signed_in(&stage, "ada").await;
    let cookies = ada.cookie_line(&stage.origin());
    let mut kept = Kept::open(&stage).await;
    for _ in 0..2 {
        assert_eq!(kept.ask(&stage, &cookies).await, is_let_in("ada"));
    }
    assert_eq!(ada.get(&stage.url("/auth/logout")).await.status, StatusCode::SEE_OTHER);
    for _ in 0..2 {
        assert_eq!(kept.ask(&stage, &cookies).await, (401, None));
    }
}

#[tokio::test]
async fn idle_time_and_lifetime_end_on_a_kept_connection_too() {
    let stage = Stage::with("[session]\nlifetime = \"3h\"");
    let ada = signed_in(&stage, "ada").await;
    let (mut unused, mut kept) = (Kept::open(&stage).await, Kept::open(&stage).await);
    let at_first = ada.cookie_line(&stage.origin());
    assert_eq!(unused.ask(&stage, &at_first).await, is_let_in("ada"));
    let mut cookies = String::new();
    for _ in 0..3 {
        stage.clock.advance(50 * MINUTE);
        assert_eq!(ada.get(&stage.url("/")).await.status, StatusCode::OK);
        cookies = ada.cookie_line(&stage.origin());
        assert_eq!(kept.ask(&stage, &cookies).await, is_let_in("ada"));
    }
    assert_eq!(unused.ask(&stage, &at_first).await, (401, None), "its idle time is over");
    stage.clock.advance(29 * MINUTE);
    assert_eq!(kept.ask(&stage, &cookies).await, is_let_in("ada"));
    stage.clock.advance(MINUTE);
    assert_eq!(kept.ask(&stage, &cookies).await, (401, None), "its lifetime is over");
}
