//! The provider is away, slow, silent, or has changed its keys.
//!
//! What holds each row: `provider_faults::` (down at the start, back again, slow, new keys), `renewal::` (503, away, a provider
//! that hangs), `bearer::a_flood_of_unknown_key_ids_keeps_no_sign_in_from_new_keys`.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::{Method, StatusCode};
use vestibule_test_support::{Browser, Endpoint, FakeProvider, JwksFault, Request, Site, TokenFault, json};

use crate::house::{House, Kit, PASSES_TOKENS, Store};
use crate::load::{Load, open_pages, people};
use crate::table::{Cell, Table};

const PUBLIC: &str = "[[routes]]\npath = \"/public/*\"\naccess = \"public\"\n";
const BEARER: &str = "[bearer]\naccept = true\naudiences = [\"api\"]\n";
const EVERY_ENDPOINT: [Endpoint; 5] =
    [Endpoint::Discovery, Endpoint::Jwks, Endpoint::Authorize, Endpoint::Token, Endpoint::Userinfo];
/// Longer than anybody waits.
const NEVER: Duration = Duration::from_secs(120);

pub(crate) async fn run(kit: &Kit) -> Table {
    let mut table = Table::new("the provider", &Store::COLUMNS);
    let down = at_the_start(kit).await;
    // It knows nobody yet, so nothing depends on where sessions lie.
    for (what, best, cell) in down {
        table.row(what, best, [cell, Cell::of("the same", true)]);
    }
    let what = "refuses connections for 15 s (tokens 6 s, 5 people): still signed in, expired tokens passed on";
    table.row(what, "5/5, 100", both(|store| outage(kit, store, Outage::Refuses)).await);
    let what = "answers 503 for 15 s: the same";
    table.row(what, "5/5, 100", both(|store| outage(kit, store, Outage::Unavailable)).await);
    let what = "never answers for 15 s: still signed in, longest wait";
    table.row(what, "5/5, 11 s", both(|store| outage(kit, store, Outage::Silent)).await);
    let what = "takes 10 s to renew (tokens 25 s, 3 people × 4): still signed in, longest wait, alarms";
    table.row(what, "3/3, 10.1 s, 3", both(|store| slow_renewal(kit, store)).await);
    let what = "takes 10 s to redeem a code: signed in after";
    table.row(what, "10.0 s", both(|store| slow_sign_in(kit, store)).await);
    let what = "has new keys: sign-in with its key set there / 503 / there again";
    table.row(what, "app / an error / at once", both(|store| new_keys(kit, store)).await);
    let what = "is named by 50 bearer tokens with unknown key ids: fetches of its key set";
    table.row(what, "50", both(|store| strange_keys(kit, store)).await);
    table
}

/// The cell of each column, measured side by side.
async fn both<F: Future<Output = Cell>>(measure: impl Fn(Store) -> F) -> Vec<Cell> {
    join_all(Store::ALL.map(measure)).await
}

async fn at_the_start(kit: &Kit) -> [(&'static str, &'static str, Cell); 2] {
    let site = Site::without_provider(&kit.program);
    let launch = site.launch().env("VESTIBULE_CONFIG", site.file("vestibule.toml", PUBLIC));
    let _program = site.start_alone(launch);
    let browser = site.browser();
    let public = browser.get(&site.url("/public/page")).await.status;
    let guarded = browser.get(&site.url("/")).await.status;
    let text = format!("runs; public {}, guarded {}", public.as_u16(), guarded.as_u16());
    let down = Cell::of(text, public == StatusCode::OK && guarded == StatusCode::SERVICE_UNAVAILABLE);
    tokio::time::sleep(Duration::from_secs(10)).await;
    site.provider.bring_back();
    let back = tries(|| async { site.browser().follow(&site.url("/"), 10).await.status }).await;
    [
        ("is down at the start", "runs; public 200, guarded 500", down),
        ("comes 10 s later: a sign-in works", "at once", back),
    ]
}

/// How long until a sign-in ends in the application, and how many it took.
async fn tries<F: Future<Output = StatusCode>>(sign_in: impl Fn() -> F) -> Cell {
    let begun = Instant::now();
    let mut count = 1;
    while sign_in().await != StatusCode::OK {
        count += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let after = begun.elapsed().as_secs_f64();
    if count == 1 {
        return Cell::of(format!("first try, {after:.1} s"), after < 2.5);
    }
    Cell::of(format!("try {count}, {after:.1} s"), false)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outage {
    Refuses,
    Unavailable,
    Silent,
}

impl Outage {
    fn begin(self, provider: &FakeProvider) {
        match self {
            Self::Refuses => provider.take_down(),
            Self::Unavailable => provider.faults(|faults| faults.token = Some(TokenFault::Unavailable)),
            Self::Silent => EVERY_ENDPOINT.iter().for_each(|&endpoint| provider.slow_down(endpoint, NEVER)),
        }
    }

    fn end(self, provider: &FakeProvider) {
        match self {
            Self::Refuses => provider.bring_back(),
            Self::Unavailable | Self::Silent => provider.heal(),
        }
    }
}

async fn outage(kit: &Kit, store: Store, outage: Outage) -> Cell {
    let house = Arc::new(House::start(kit, store, PASSES_TOKENS).await);
    let life = Duration::from_secs(6);
    house.provider().set_token_life(Some(6));
    let people = people(&house, 5).await;
    outage.begin(house.provider());
    let span = Duration::from_secs(15);
    let tally = open_pages(&house, &people, Load { at_once: 1, span, life }).await;
    outage.end(house.provider());
    let signed_in = still_signed_in(&house, &people).await;
    let good = tally.failed + tally.stale + house.provider().reuse_alarms() == 0 && signed_in == people.len();
    let longest = tally.longest().as_secs_f64();
    match outage {
        Outage::Silent => Cell::of(format!("{signed_in}/5, {longest:.1} s"), good && longest <= 11.0),
        _ => Cell::of(format!("{signed_in}/5, {}", tally.stale), good),
    }
}

/// Who gets a page by one navigation, without having to sign in, and with an access token after a few seconds at the most.
async fn still_signed_in(house: &House, people: &[Browser]) -> usize {
    let mut count = 0;
    for browser in people {
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end {
            if browser.fetch(&house.url("/")).await.status != StatusCode::OK {
                break;
            }
            // It may lead by the provider, which asks nothing.
            let page = browser.follow(&house.url("/"), 10).await;
            if page.status == StatusCode::OK && page.echoed("authorization").is_some() {
                count += 1;
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    count
}

async fn slow_renewal(kit: &Kit, store: Store) -> Cell {
    let house = Arc::new(House::start(kit, store, PASSES_TOKENS).await);
    let life = Duration::from_secs(25);
    house.provider().set_token_life(Some(25));
    let people = people(&house, 3).await;
    house.provider().slow_down(Endpoint::Token, Duration::from_secs(10));
    let tally = open_pages(&house, &people, Load { at_once: 4, span: Duration::from_secs(35), life }).await;
    let (alarms, longest) = (house.provider().reuse_alarms(), tally.longest().as_secs_f64());
    let signed_in = people.len() - tally.signed_out.min(people.len());
    let good = tally.failed + tally.stale + tally.without + alarms == 0 && house.provider().refreshes() >= 3;
    Cell::of(format!("{signed_in}/3, {longest:.1} s, {alarms}"), good && longest <= 10.1)
}

async fn slow_sign_in(kit: &Kit, store: Store) -> Cell {
    let house = House::start(kit, store, "").await;
    house.provider().slow_down(Endpoint::Token, Duration::from_secs(10));
    let begun = Instant::now();
    let status = house.sign_in(&house.browser()).await.status;
    let after = begun.elapsed().as_secs_f64();
    Cell::of(format!("{after:.1} s"), status == StatusCode::OK && after < 10.5)
}

async fn new_keys(kit: &Kit, store: Store) -> Cell {
    let house = House::start(kit, store, "").await;
    let sign_in = || async { house.sign_in(&house.browser()).await.status };
    house.provider().rotate_keys();
    let first = sign_in().await;
    // Not within the same interval.
    let house = House::start(kit, store, "").await;
    let sign_in_again = || async { house.sign_in(&house.browser()).await.status };
    house.provider().rotate_keys();
    house.provider().faults(|faults| faults.jwks = Some(JwksFault::ServerError));
    let second = sign_in_again().await;
    house.provider().heal();
    let third = tries(sign_in_again).await;
    let good = first == StatusCode::OK && second.is_server_error();
    third.after(
        &format!("{} / {} / ", if first == StatusCode::OK { "app" } else { first.as_str() }, second.as_u16()),
        good,
    )
}

async fn strange_keys(kit: &Kit, store: Store) -> Cell {
    let house = House::start(kit, store, BEARER).await;
    let before = house.provider().count(Endpoint::Jwks);
    let mut refused = 0;
    for number in 0..50 {
        // Signed by a key of the provider, under names that it does not know.
        let claims = house.provider().logout_claims(&json!({ "aud": "api", "sub": "somebody" }));
        let token = house.provider().sign(&json!({ "typ": "at+jwt", "kid": format!("unknown-{number}") }), &claims);
        let request = Request::new(Method::GET, &house.url("/")).header("authorization", &format!("Bearer {token}"));
        refused += usize::from(house.browser().send(request).await.status == StatusCode::UNAUTHORIZED);
    }
    let fetches = house.provider().count(Endpoint::Jwks) - before;
    Cell::of(format!("{fetches}"), fetches <= 1 && refused == 50)
}
