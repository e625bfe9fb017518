//! What `tests/bench/run` needs beside the proxy: a provider, and a cookie of somebody who is signed in.
//!
//! Speaks lines of JSON. First it tells where its provider is; then each line on stdin is the origin of a proxy
//! (`http://localhost:PORT`, or `https://localhost:PORT` and a file with the certificate to trust), answered by the `Cookie`
//! header of a fresh sign-in there; it ends with its stdin. With `*COUNT` behind the origin that many people sign in, one after
//! another, with ES256. `LOCATION +COUNT` fills a store of sessions, in which one lies already, with as many more.

use std::io::{BufRead as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt as _;
use vestibule::store::{Filter, Handle, Location, Owner, Put, Store};
use vestibule_test_support::forge::Alg;
use vestibule_test_support::{Browser, FakeProvider, TestClock, TlsClient, Value, json, runtime};

/// What a session cookie weighs at a provider with ten groups and tokens of the usual size.
const WANTED_BYTES: usize = 1536;
/// A cookie that is smaller holds no session.
const TICKET_BYTES: usize = 256;
/// How near is near enough.
const TOLERANCE: usize = 100;
/// Records that are written at the same time.
const AT_ONCE: usize = 256;
/// How long the sessions of a filled store live: the proxy's default.
const LIFE: Duration = Duration::from_secs(24 * 3600);

fn main() {
    let clock = TestClock::new();
    let provider = FakeProvider::start(clock.clone());
    provider.set_user(ada());
    say(&json!({
        "issuer": provider.issuer(),
        "client_id": provider.client_id(),
        "client_secret": provider.client_secret(),
    }));
    let mut signs_with_es256 = false;
    for origin in std::io::stdin().lock().lines() {
        let origin = origin.expect("stdin can be read");
        let (origin, root) =
            origin.trim().split_once(' ').map_or((origin.trim(), None), |(origin, file)| (origin, Some(file)));
        if let Some(count) = root.and_then(|count| count.strip_prefix('*')?.parse::<u32>().ok()) {
            if !std::mem::replace(&mut signs_with_es256, true) {
                provider.sign_with(Alg::Es256);
            }
            say(&many(origin, count, &provider, &clock));
            continue;
        }
        if let Some(count) = root.and_then(|count| count.strip_prefix('+')?.parse().ok()) {
            say(&runtime().block_on(fill(origin, count)));
            continue;
        }
        let tls = root.map(|file| TlsClient::trusting_pem(&std::fs::read_to_string(file).expect("a certificate")));
        say(&signed_in(origin, tls.as_ref(), &provider, &clock));
    }
}

/// Signs in until the cookie has the wanted weight: a claim of incompressible text makes up what is missing.
fn signed_in(origin: &str, tls: Option<&TlsClient>, provider: &FakeProvider, clock: &TestClock) -> Value {
    let mut padding: usize = 64;
    let mut cookies = Vec::new();
    for _ in 0..6 {
        provider.set_claim("picture", json!(format!("https://id.example.com/{}", incompressible(padding))));
        cookies = runtime().block_on(sign_in(origin, tls, clock));
        let bytes = weight(&cookies);
        // What lies in a store makes no cookie larger.
        if bytes.abs_diff(WANTED_BYTES) <= TOLERANCE || bytes < TICKET_BYTES {
            break;
        }
        // Hex digits compress to about half and base64 adds a third: two bytes of the cookie for three of the claim.
        padding = if bytes < WANTED_BYTES {
            padding + (WANTED_BYTES - bytes) * 3 / 2
        } else {
            padding.saturating_sub((bytes - WANTED_BYTES) * 3 / 2).max(1)
        };
    }
    json!({ "cookie": header(&cookies), "cookies": cookies.len(), "session_bytes": weight(&cookies) })
}

fn header(cookies: &[(String, String)]) -> String {
    cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
}

fn many(origin: &str, count: u32, provider: &FakeProvider, clock: &TestClock) -> Value {
    let before = provider.connections();
    let sign_in = |number| {
        provider.set_claim("sub", json!(format!("person-{number}")));
        header(&runtime().block_on(sign_in(origin, None, clock)))
    };
    let people = (0..count).map(sign_in).collect::<Vec<_>>();
    provider.set_user(ada());
    // Each browser comes on one of its own; the others are the proxy's.
    let connections = provider.connections() - before - people.len();
    json!({ "signed_in": count, "connections": connections, "cookies": people })
}

/// Writes records as the proxy writes them, through its own store: keys, fields and indexes are the real ones. What stands in
/// each is random, of the length of a record that is there: nobody can tell it from a sealed one, and nobody has its key. Each
/// is somebody else's, at the provider of that record.
async fn fill(location: &str, count: usize) -> Value {
    let location = Location::parse(location, Path::new("/")).expect("a location");
    let store = Store::new(&location, runtime().handle().clone()).expect("a store");
    let mut page = store.list(Filter::All, None).await.expect("a list");
    // There are pages with nothing on them.
    while let (true, Some(next)) = (page.records.is_empty(), page.next.take()) {
        page = store.list(Filter::All, Some(next)).await.expect("a list");
    }
    let sample = *page.records.first().expect("a session to go by");
    let length = store.get(sample.handle).await.expect("an answer").expect("the record").bytes.len();
    futures_util::stream::iter(0..count)
        .for_each_concurrent(AT_ONCE, |_| {
            let store = store.clone();
            async move {
                let owner = Owner { party: sample.owner.party, subject: random() };
                let mut bytes = vec![0; length];
                aws_lc_rs::rand::fill(&mut bytes).expect("random bytes");
                let put = store.create(Handle::new(random()), owner, bytes, LIFE).await.expect("the store takes it");
                assert!(matches!(put, Put::Kept(_)), "there was one already");
            }
        })
        .await;
    json!({ "written": count, "bytes": length })
}

fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).expect("random bytes");
    bytes
}

async fn sign_in(origin: &str, tls: Option<&TlsClient>, clock: &TestClock) -> Vec<(String, String)> {
    let mut browser = Browser::new(clock.clone());
    if let Some(tls) = tls {
        browser = browser.with_tls(tls.clone());
    }
    let port = origin.rsplit(':').next().and_then(|port| port.parse().ok()).expect("an origin with a port");
    browser.connect(origin, SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let reply = browser.follow(&format!("{origin}/"), 10).await;
    assert_eq!(reply.status, 200, "the sign-in ended at {}: {}", reply.url, reply.text());
    browser.cookies(&format!("{origin}/")).into_iter().map(|cookie| (cookie.name, cookie.value)).collect()
}

fn weight(cookies: &[(String, String)]) -> usize {
    cookies.iter().map(|(_, value)| value.len()).max().unwrap_or_default()
}

/// Hex digits without a pattern, the same in every run.
fn incompressible(length: usize) -> String {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    (0..length)
        .map(|_| {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            char::from_digit(u32::try_from(state >> 60).expect("four bits"), 16).expect("a digit")
        })
        .collect()
}

/// Ten groups, as in a company's directory.
fn ada() -> Value {
    let groups: Vec<String> =
        ["admins", "staff", "engineering", "finance", "lisbon", "release", "oncall", "vpn", "wiki", "press"]
            .iter()
            .map(|name| format!("/{name}"))
            .collect();
    json!({
        "sub": "2f4b6d1c-6a86-4f43-9d0e-0c3f6d1e7a55",
        "name": "Ada Lovelace",
        "given_name": "Ada",
        "family_name": "Lovelace",
        "preferred_username": "ada",
        "email": "ada@example.com",
        "email_verified": true,
        "groups": groups,
    })
}

#[allow(clippy::print_stdout, reason = "its lines on stdout are its interface")]
fn say(line: &Value) {
    println!("{line}");
    std::io::stdout().flush().expect("stdout can be written");
}
