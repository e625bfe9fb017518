//! What ends a session, what ends with it, and how soon.
//!
//! What holds each row: `logout::`, `backchannel_logout::`, `session_streams::`, `session::the_lifetime_is_enforced_from_inside_the_seal`,
//! `stored_sessions::`, and with real parts `real::sessions::keycloak_ends_a_session_at_both_replicas_with_every_copy_and_every_stream`.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use vestibule_test_support::{Browser, Endpoint, Request, json, script};

use crate::house::{House, Kit, Store};
use crate::table::{Cell, Table};

const UPGRADE: &str = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
/// What is open longer than this counts as not cut.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) async fn run(kit: &Kit) -> Table {
    let mut table = Table::new("end of a session", &Store::COLUMNS);
    let outs = join_all(Store::ALL.map(|store| sign_out(kit, store))).await;
    let [copy, told, streams] = columns(outs);
    table.row("copied cookie after a sign-out", "dead", copy);
    table.row("provider told at a sign-out", "yes, with `id_token_hint`", told);
    table.row("WebSocket, event stream after it", "both open after 10 s", streams);
    for (how, claims) in [("`sid`", json!({ "sid": "s1" })), ("`sub` alone", json!({ "sub": "ada" }))] {
        let best = if how == "`sid`" { "dead at once; both open" } else { "alive" };
        let cells = Store::ALL.map(|store| back_channel(kit, store, claims.clone()));
        table.row(&format!("back-channel logout by {how}: session; streams"), best, join_all(cells).await);
    }
    let lives = join_all(Store::ALL.map(|store| lifetime(kit, store))).await;
    let [streams, life] = columns(lives);
    table.row("streams after the session's life of 6 s", "both open 11 s later", streams);
    let foreign = join_all(Store::ALL.map(|store| foreign_link(kit, store))).await;
    table.row("sign-out link on a foreign site", "signs out", foreign);
    table.row("session life of 6 s while in use: over after", "5.5 s", life);
    table
}

/// Cells of one measurement each, by rows.
fn columns<const N: usize>(measured: Vec<[Cell; N]>) -> [Vec<Cell>; N] {
    let mut rows = std::array::from_fn(|_| Vec::new());
    for cells in measured {
        for (row, cell) in std::iter::zip(&mut rows, cells) {
            row.push(cell);
        }
    }
    rows
}

/// When a connection ended, if it did.
type Open = JoinHandle<Option<Instant>>;

/// A WebSocket and an event stream of whoever has these cookies, both open.
async fn streams(house: &House, browser: &Browser) -> [Open; 2] {
    let open = |target: &'static str, fields: &'static str, status: &'static str| async move {
        let cookies = browser.cookie_line(&house.origin());
        let host = house.origin().replace("http://", "");
        let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nCookie: {cookies}\r\n{fields}\r\n");
        let mut stream = TcpStream::connect(house.door()).await.expect("the door is open");
        stream.write_all(head.as_bytes()).await.expect("the head is taken");
        let answer = script::head(&mut stream).await;
        assert!(answer.starts_with(status), "{answer}");
        stream
    };
    let (socket, events) = (open("/ws", UPGRADE, "HTTP/1.1 101").await, open("/sse", "", "HTTP/1.1 200").await);
    [socket, events].map(|stream| tokio::spawn(end_of(stream)))
}

async fn end_of(mut stream: TcpStream) -> Option<Instant> {
    let mut scrap = vec![0; 4096];
    let over = async {
        // A reset is an end, and so is a close frame.
        while matches!(stream.read(&mut scrap).await, Ok(count) if count > 0 && scrap[0] != 0x88) {}
        Instant::now()
    };
    tokio::time::timeout(PATIENCE * 2, over).await.ok()
}

/// How long after `since` each ended.
async fn cut(open: impl IntoIterator<Item = Open>, since: Instant) -> Cell {
    let mut spans = Vec::new();
    for stream in open {
        let ended = tokio::time::timeout(PATIENCE, stream).await.ok().and_then(|ended| ended.expect("a reader"));
        spans.push(ended.map(|at| at.saturating_duration_since(since)));
    }
    let text = |span: &Option<Duration>| span.map_or("open".to_owned(), |span| format!("{:.1} s", span.as_secs_f64()));
    let good = spans.iter().all(|span| span.is_some_and(|span| span <= Duration::from_secs(1)));
    Cell::of(format!("cut after {}", spans.iter().map(text).collect::<Vec<_>>().join(", ")), good)
}

async fn is_dead(house: &House, browser: &Browser) -> bool {
    browser.fetch(&house.url("/")).await.status == StatusCode::UNAUTHORIZED
}

async fn sign_out(kit: &Kit, store: Store) -> [Cell; 3] {
    let toml = "[provider]\npost_logout_redirect_uri = \"http://localhost/auth/signed-out\"\n";
    let house = House::start(kit, store, toml).await;
    let browser = house.signed_in().await;
    let copy = browser.stolen_copy();
    let open = streams(&house, &browser).await;
    let since = Instant::now();
    let reply = browser.get(&house.url("/auth/logout")).await;
    let is_told = reply.next().is_some_and(|next| {
        next.as_str().starts_with(&house.provider().issuer())
            && next.query_pairs().any(|(name, _)| name == "id_token_hint")
    });
    let dead = is_dead(&house, &copy).await;
    let told = Cell::of(if is_told { "yes, with `id_token_hint`" } else { "no" }, is_told);
    [Cell::of(if dead { "dead" } else { "alive" }, dead), told, cut(open, since).await]
}

async fn back_channel(kit: &Kit, store: Store, claims: vestibule_test_support::Value) -> Cell {
    let house = House::replicated(kit, store, "").await;
    house.provider().set_user(json!({ "sub": "ada", "preferred_username": "ada", "sid": "s1" }));
    let browser = house.signed_in().await;
    let mut open = Vec::new();
    // At both replicas, whichever is told.
    for _ in 0..2 {
        open.extend(streams(&house, &browser).await);
    }
    let token = house.provider().logout_token(&claims);
    let since = Instant::now();
    let request = Request::new(Method::POST, &house.url("/auth/backchannel-logout")).form(&[("logout_token", &token)]);
    let answer = house.browser().send(request).await.status;
    let mut alive_for = None;
    for _ in 0..200 {
        let ended = is_dead(&house, &browser).await && is_dead(&house, &browser).await;
        if ended {
            alive_for = Some(since.elapsed().as_secs_f64());
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let streams = cut(open, since).await;
    let good = answer == StatusCode::OK && alive_for.is_some_and(|span| span < 1.0);
    let text = alive_for.map_or("alive".to_owned(), |span| format!("dead after {span:.2} s at both replicas"));
    streams.after(&format!("{text}; "), good)
}

async fn lifetime(kit: &Kit, store: Store) -> [Cell; 2] {
    let house = House::start(kit, store, "[session]\nlifetime = \"6s\"\n").await;
    let browser = house.signed_in().await;
    let since = Instant::now();
    let open = streams(&house, &browser).await;
    while !is_dead(&house, &browser).await {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let over = since.elapsed().as_secs_f64();
    let end = since + Duration::from_secs(6);
    [cut(open, end).await, Cell::of(format!("{over:.1} s"), (4.5..=6.2).contains(&over))]
}

async fn foreign_link(kit: &Kit, store: Store) -> Cell {
    let house = House::start(kit, store, "").await;
    let browser = house.signed_in().await;
    let page = browser.click("http://foreign.example/", &house.url("/auth/logout")).await;
    let signed_in = browser.fetch(&house.url("/")).await.status == StatusCode::OK;
    let untold = house.provider().count(Endpoint::EndSession) == 0;
    Cell::of(if signed_in { "asks" } else { "signs out" }, page.status == StatusCode::OK && signed_in && untold)
}
