//! Access tokens of five seconds at real providers, one of which takes each refresh token once: nobody notices.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::StatusCode;
use vestibule_test_support::real::RealProvider;
use vestibule_test_support::{Browser, Stage, json};

/// People, each with a browser of their own.
const PEOPLE: usize = 6;
/// Requests of one page at once.
const AT_ONCE: usize = 8;
/// Three access tokens of each person.
const SPAN: Duration = Duration::from_secs(14);

const PROXY: &str = "[identity]\nname_claim = \"preferred_username\"\n[upstream]\naccess_token = \"bearer\"\n";

#[tokio::test]
async fn access_tokens_of_keycloak_live_for_seconds_and_nobody_is_signed_out() {
    let lifespan = json!({ "attributes": { "access.token.lifespan": "5" } });
    nobody_notices(RealProvider::keycloak().registered(&lifespan).await).await;
}

#[tokio::test]
async fn oidc_provider_takes_each_refresh_token_once_and_nobody_is_signed_out() {
    nobody_notices(RealProvider::oidc_provider().client("vestibule-refresh")).await;
}

async fn nobody_notices(provider: RealProvider) {
    let stage = Arc::new(Stage::with(&format!("{}{PROXY}", provider.toml())));
    let mut people = Vec::new();
    for _ in 0..PEOPLE {
        let browser = stage.browser();
        let page = provider.sign_in_without_browser_as(&browser, &stage.url("/"), "ada").await;
        assert_eq!(page.echoed("x-forwarded-user").as_deref(), Some("ada"), "{} {}", page.url, page.text());
        people.push(tokio::spawn(open_pages(Arc::clone(&stage), browser)));
    }
    for person in people {
        let tokens = person.await.expect("a page failed");
        assert!((3..=6).contains(&tokens), "{tokens} access tokens in {SPAN:?}");
    }
}

/// One page after the other, each of many requests; how many access tokens the application saw of this person.
async fn open_pages(stage: Arc<Stage>, browser: Browser) -> usize {
    let begun = Instant::now();
    let mut tokens: Vec<String> = Vec::new();
    while begun.elapsed() < SPAN {
        let url = stage.url("/");
        let requests = (0..AT_ONCE).map(|_| browser.fetch(&url));
        for reply in join_all(requests).await {
            assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
            let token = reply.echoed("authorization").expect("the access token");
            if !tokens.contains(&token) {
                tokens.push(token);
            }
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    tokens.len()
}
