//! People who open one page after the other, each page of several requests at once, and what became of those.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::StatusCode;
use vestibule_test_support::Browser;

use crate::house::House;

/// What one person does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) at_once: usize,
    pub(crate) span: Duration,
    /// Of an access token.
    pub(crate) life: Duration,
}

/// A page each.
const PACE: Duration = Duration::from_millis(500);

/// What became of requests.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) requests: usize,
    /// Not answered by the application.
    pub(crate) failed: usize,
    /// How often somebody had to sign in again.
    pub(crate) signed_out: usize,
    /// Sent when the access token that the application got had expired.
    pub(crate) stale: usize,
    pub(crate) oldest: Duration,
    /// Answered by the application, which got no access token.
    pub(crate) without: usize,
    /// Access tokens that came after each person's first.
    pub(crate) renewals: usize,
    took: Vec<Duration>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.signed_out += other.signed_out;
        self.stale += other.stale;
        self.oldest = self.oldest.max(other.oldest);
        self.without += other.without;
        self.renewals += other.renewals;
        self.took.extend(other.took);
    }

    /// How long at most `percent` of all requests took.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let mut took = self.took.clone();
        took.sort();
        took[(took.len() * percent / 100).min(took.len() - 1)]
    }

    pub(crate) fn longest(&self) -> Duration {
        self.percentile(100)
    }
}

/// So many people, who sign in before it begins.
pub(crate) async fn people(house: &House, count: usize) -> Vec<Browser> {
    let mut people = Vec::new();
    for _ in 0..count {
        people.push(house.signed_in().await);
    }
    people
}

/// All of them open pages, side by side.
pub(crate) async fn open_pages(house: &Arc<House>, people: &[Browser], load: Load) -> Tally {
    let all = people.iter().map(|browser| tokio::spawn(one(Arc::clone(house), browser.clone(), load)));
    let mut whole = Tally::default();
    for tally in join_all(all).await {
        whole.add(tally.expect("a person goes on to the end"));
    }
    whole
}

async fn one(house: Arc<House>, browser: Browser, load: Load) -> Tally {
    let (mut tally, mut tokens) = (Tally::default(), BTreeSet::new());
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let begun = Instant::now();
    while begun.elapsed() < load.span {
        pace.tick().await;
        let mut out = false;
        for (sent, took, reply) in join_all((0..load.at_once).map(|_| ask(&house, &browser))).await {
            tally.requests += 1;
            tally.took.push(took);
            let Some(reply) = reply.filter(|reply| reply.status == StatusCode::OK) else {
                tally.failed += 1;
                out = true;
                continue;
            };
            let Some(token) = reply.echoed("authorization") else {
                tally.without += 1;
                continue;
            };
            let token = token.trim_start_matches("Bearer ").to_owned();
            let made = house.provider().issued_at(&token).expect("a token of this provider");
            let over = sent.saturating_duration_since(made + load.life);
            tally.stale += usize::from(!over.is_zero());
            tally.oldest = tally.oldest.max(over);
            tokens.insert(token);
        }
        if out {
            tally.signed_out += 1;
            house.sign_in(&browser).await;
        }
    }
    tally.renewals = tokens.len().saturating_sub(1);
    tally
}

type Asked = (Instant, Duration, Option<vestibule_test_support::Reply>);

/// A script's request; `None` where the connection broke.
async fn ask(house: &House, browser: &Browser) -> Asked {
    let (tab, url, sent) = (browser.tab(), house.url("/"), Instant::now());
    // A connection that breaks off fails its task.
    let reply = tokio::spawn(async move { tab.fetch(&url).await }).await.ok();
    (sent, sent.elapsed(), reply)
}
