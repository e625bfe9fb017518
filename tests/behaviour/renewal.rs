//! Renewal under rotation: a strict provider that takes each refresh token once, access tokens of seconds, many tabs.
//!
//! What holds each row: `renewal::` (one renewal however many ask, what has expired is not passed on, a grant that is over),
//! `stored_sessions::` (two replicas, an endpoint of three seconds), `shared_renewals::` (with cookies alone), and with real parts `real::sessions::`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use vestibule_test_support::{Endpoint, FakeProvider};

use crate::house::{House, Kit, PASSES_TOKENS, Store};
use crate::load::{Load, Tally, open_pages, people};
use crate::table::{Cell, Table};

const PEOPLE: usize = 20;
const AT_ONCE: usize = 8;
const LIFE: Duration = Duration::from_secs(3);

pub(crate) async fn run(kit: &Kit) -> Table {
    let title = "access tokens of 3 s, each refresh token taken once, 20 browsers × 8 requests";
    let mut table = Table::new(title, &Store::COLUMNS);
    one_replica(kit, &mut table).await;
    two_replicas(kit, &mut table).await;
    slow(kit, &mut table).await;
    without_rotation(kit, &mut table).await;
    not_renewed(kit, &mut table).await;
    ended(kit, &mut table).await;
    table
}

/// What the provider saw of renewals.
struct Calls {
    all: usize,
    accepted: usize,
    alarms: usize,
}

fn calls(provider: &FakeProvider) -> Calls {
    let is_refresh =
        |form: &[(String, String)]| form.iter().any(|(name, value)| name == "grant_type" && value == "refresh_token");
    let all = provider.token_calls().into_iter().filter(|call| is_refresh(&call.form)).count();
    Calls { all, accepted: provider.refreshes(), alarms: provider.reuse_alarms() }
}

async fn loaded(house: House, (count, at_once, span): (usize, usize, Duration), life: Duration) -> (Tally, Calls) {
    let house = Arc::new(house);
    house.provider().set_token_life(Some(life.as_secs()));
    house.provider().slow_down(Endpoint::Token, Duration::from_millis(100));
    let people = people(&house, count).await;
    let tally = open_pages(&house, &people, Load { at_once, span, life }).await;
    (tally, calls(house.provider()))
}

fn millis(span: Duration) -> String {
    format!("{:.0}", span.as_secs_f64() * 1e3)
}

fn nobody_noticed(tally: &Tally, calls: &Calls) -> Cell {
    Cell::of(
        format!("{} / {}", tally.signed_out, calls.alarms),
        tally.signed_out == 0 && calls.alarms == 0 && tally.failed == 0,
    )
}

async fn one_replica(kit: &Kit, table: &mut Table) {
    let span = kit.span(30, 8);
    let mut ours = Vec::new();
    for store in Store::ALL {
        ours.push(loaded(House::start(kit, store, PASSES_TOKENS).await, (PEOPLE, AT_ONCE, span), LIFE).await);
    }
    let cells = |cell: fn(&Tally, &Calls) -> Cell| ours.iter().map(move |(tally, calls)| cell(tally, calls));
    let requests =
        |tally: &Tally, _: &Calls| Cell::of(format!("{}, {}", tally.requests, tally.failed), tally.failed == 0);
    table.row("requests, failed", "9,600, 0", cells(requests));
    table.row("people sent to sign in again / reuse alarms", "0 / 0", cells(nobody_noticed));
    let once = |tally: &Tally, calls: &Calls| {
        // What was under way at the end nobody has seen.
        let each_once = calls.all == calls.accepted && calls.all <= tally.renewals + 2 * PEOPLE;
        Cell::of(format!("{}, {}", calls.all, calls.accepted), each_once)
    };
    table.row("refresh calls, accepted", "200, 200", cells(once));
    let stale = |tally: &Tally, _: &Calls| Cell::of(format!("{}", tally.stale), tally.stale == 0);
    table.row("requests with an expired access token", "0", cells(stale));
    let without = |tally: &Tally, _: &Calls| Cell::of(format!("{}", tally.without), tally.without == 0);
    table.row("requests without any", "0", cells(without));
    let latency = |tally: &Tally, _: &Calls| {
        let (half, most) = (tally.percentile(50), tally.percentile(99));
        let text = format!("{} / {}", millis(half), millis(most));
        Cell::of(text, half <= Duration::from_millis(9) && most <= Duration::from_millis(158))
    };
    table.row("latency p50 / p99, ms", "9 / 158", cells(latency));
}

async fn two_replicas(kit: &Kit, table: &mut Table) {
    let span = kit.span(30, 8);
    let mut cells = Vec::new();
    for store in Store::ALL {
        let house = House::replicated(kit, store, PASSES_TOKENS).await;
        let (tally, calls) = loaded(house, (PEOPLE, AT_ONCE, span), LIFE).await;
        let good = tally.failed + tally.signed_out + calls.alarms + tally.stale == 0;
        let text = format!("{} / {} / {} / {}", tally.failed, tally.signed_out, calls.alarms, tally.stale);
        cells.push(Cell::of(text, good));
    }
    table.row("two replicas in turns: failed / signed out / alarms / expired tokens", "0 / 0 / 0 / 0", cells);
}

async fn slow(kit: &Kit, table: &mut Table) {
    let both = Store::ALL.map(|store| async move {
        let house = Arc::new(House::start(kit, store, PASSES_TOKENS).await);
        let life = Duration::from_secs(6);
        house.provider().set_token_life(Some(6));
        let people = people(&house, 6).await;
        house.provider().slow_down(Endpoint::Token, Duration::from_secs(3));
        let span = kit.span(30, 12);
        let tally = open_pages(&house, &people, Load { at_once: AT_ONCE, span, life }).await;
        let (alarms, longest) = (house.provider().reuse_alarms(), tally.longest());
        let text = format!("{} / {alarms} / {:.1} s", tally.signed_out, longest.as_secs_f64());
        Cell::of(text, tally.failed + alarms + tally.stale == 0 && longest <= Duration::from_secs(3))
    });
    let what = "token endpoint takes 3 s (tokens 6 s, 6 people): signed out / alarms / longest wait";
    table.row(what, "0 / 6 / 3.0 s", futures_util::future::join_all(both).await);
}

async fn without_rotation(kit: &Kit, table: &mut Table) {
    let mut cells = Vec::new();
    for store in Store::ALL {
        let house = House::start(kit, store, PASSES_TOKENS).await;
        house.provider().keep_refresh_tokens();
        let (tally, calls) = loaded(house, (PEOPLE, AT_ONCE, kit.span(15, 6)), LIFE).await;
        let each = calls.all as f64 / tally.renewals.max(1) as f64;
        let text = format!("{} for {} renewals", calls.all, tally.renewals);
        cells.push(Cell::of(text, tally.failed == 0 && each < 1.5));
    }
    table.row("provider without rotation, 15 s: refresh calls (20 sessions)", "800, 8 for each", cells);
}

async fn not_renewed(kit: &Kit, table: &mut Table) {
    let both = Store::ALL.map(|store| async move {
        let toml = format!("{PASSES_TOKENS}[session]\nrenew = false\n");
        let house = House::start(kit, store, &toml).await;
        let (tally, calls) = loaded(house, (4, 1, kit.span(10, 6)), LIFE).await;
        let good = tally.failed + tally.stale + calls.all == 0 && tally.without > 0;
        let text = if tally.stale == 0 { "no, left out".to_owned() } else { format!("{} times", tally.stale) };
        Cell::of(text, good)
    });
    let what = "renewal switched off: expired access token passed on";
    table.row(what, "yes", futures_util::future::join_all(both).await);
}

/// At any moment of a token's life.
async fn ended(kit: &Kit, table: &mut Table) {
    let both = Store::ALL.map(|store| async move {
        let house = Arc::new(House::start(kit, store, PASSES_TOKENS).await);
        house.provider().set_token_life(Some(LIFE.as_secs()));
        house.provider().slow_down(Endpoint::Token, Duration::from_millis(100));
        let mut people = Vec::new();
        for _ in 0..8 {
            people.push(house.signed_in().await);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        house.provider().end_all_sign_ins();
        let begun = Instant::now();
        let let_in = people.iter().map(|browser| {
            let house = Arc::clone(&house);
            async move {
                while browser.fetch(&house.url("/")).await.status == StatusCode::OK {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                begun.elapsed()
            }
        });
        let mut spans = futures_util::future::join_all(let_in).await;
        spans.sort();
        let (half, most) = (spans[spans.len() / 2].as_secs_f64(), spans[spans.len() - 1].as_secs_f64());
        Cell::of(format!("{half:.1} s (at most {most:.1} s)"), half <= 1.5 && most <= LIFE.as_secs_f64())
    });
    table.row("account ended at the provider: let in for", "1.5 s", futures_util::future::join_all(both).await);
}
