//! A thousand people who sign in at the same moment, at a slow provider: each becomes who they are and nobody else.

use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use http::StatusCode;
use vestibule_test_support::{Browser, Endpoint, Stage, StageBuilder};

const PEOPLE: usize = 1_000;

fn stage() -> StageBuilder {
    Stage::builder().toml(
        "[provider]\nemail_domains = [\"example.com\"]\nmax_token_calls = 64\ntoken_queue_timeout = \"60s\"\n\
         [identity]\nname_claim = \"sub\"\n",
    )
}

/// Begins, and stands at the provider.
async fn begin(stage: &Stage, number: usize) -> (usize, Browser, vestibule_test_support::Reply) {
    let browser = stage.browser();
    let start = stage.url(&format!("/auth/login?email=person-{number}@example.com&rd=/page/{number}"));
    let challenge = browser.get(&start).await;
    (number, browser, challenge)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_sign_ins_at_once_never_mix() {
    let stage = stage().start();
    stage.provider.know_people_by_hint();
    stage.provider.slow_down(Endpoint::Token, Duration::from_millis(200));
    // All of them are under way before the first one comes back.
    let mut begun: Vec<_> = Vec::with_capacity(PEOPLE);
    for number in 0..PEOPLE {
        begun.push(begin(&stage, number).await);
    }
    stage.upstream.assert_untouched();
    let mut finishing: FuturesUnordered<_> = begun
        .into_iter()
        .rev()
        .map(|(number, browser, challenge)| async move {
            let landed = browser.follow_reply(challenge, 10).await;
            (number, landed)
        })
        .collect();
    let mut arrived = 0;
    while let Some((number, landed)) = finishing.next().await {
        assert_eq!(landed.status, StatusCode::OK, "{number}: {}", landed.text());
        assert_eq!(landed.json()["target"], format!("/page/{number}"));
        let user = landed.echoed("x-forwarded-user").unwrap_or_default();
        assert_eq!(user, format!("person-{number}%40example.com").replace("%40", "@"), "{number}");
        arrived += 1;
    }
    assert_eq!(arrived, PEOPLE);
    assert_eq!(stage.provider.token_calls().iter().filter(|call| call.accepted).count(), PEOPLE);
}
