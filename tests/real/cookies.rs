//! What a real browser makes of our cookies: Chromium decides which of them travel, and which deletions count.

use std::future::Future;
use std::time::Duration;

use vestibule_test_support::real::{Chromium, RealProvider};
use vestibule_test_support::{EchoUpstream, Endpoint, Stage, json};

/// No story takes longer.
const DEADLINE: Duration = Duration::from_secs(60);

const STRICT: &str = "[cookie]\nsame_site = \"strict\"\n";

#[tokio::test]
async fn a_strict_session_is_there_after_a_sign_in_and_behind_a_link_on_another_site() {
    within_a_minute(async {
        // The provider's page posts the answer, so it is the provider that leads here.
        let stage = Stage::with(&format!("{STRICT}[provider]\nresponse_mode = \"form_post\"\n"));
        let elsewhere = AnotherSite::start();
        let chromium = Chromium::start().await;
        chromium.goto(&stage.url("/page?x=1")).await.unwrap();
        until_shown(&chromium, &stage, "/page?x=1").await;
        assert_eq!(stage.provider.count(Endpoint::Authorize), 1);
        let cookies = chromium.client.get_all_cookies().await.unwrap();
        for (name, same_site) in [("vestibule", "Strict"), ("vestibule.idle", "Strict"), ("vestibule.done", "Lax")] {
            let cookie = cookies.iter().find(|cookie| cookie.name() == name).unwrap();
            assert_eq!(cookie.same_site().map(|one| one.to_string()).as_deref(), Some(same_site), "{name}");
        }

        for target in ["/report?id=7&q=%27%22%3C", "/report?id=8", "/report?id=7&q=%27%22%3C"] {
            elsewhere.link(&chromium, &stage, target).await;
            until_shown(&chromium, &stage, target).await;
            assert_eq!(stage.provider.count(Endpoint::Authorize), 1, "the provider was not asked again");
        }
        // The hop leaves nothing behind that one would go back to.
        chromium.client.back().await.unwrap();
        chromium.wait_for_origin(&elsewhere.0.url()).await.unwrap();

        chromium.goto(&stage.url("/auth/logout")).await.unwrap();
        assert_no_session(&chromium).await;
        elsewhere.link(&chromium, &stage, "/after").await;
        until_shown(&chromium, &stage, "/after").await;
        assert_eq!(stage.provider.count(Endpoint::Authorize), 2);
    })
    .await;
}

#[tokio::test]
async fn a_strict_session_is_there_after_a_sign_in_at_keycloak() {
    within_a_minute(strict_sign_in(RealProvider::keycloak())).await;
}

#[tokio::test]
async fn a_strict_session_is_there_after_a_sign_in_at_oidc_provider() {
    within_a_minute(strict_sign_in(RealProvider::oidc_provider())).await;
}

async fn strict_sign_in(provider: RealProvider) {
    let stage = Stage::with(&format!("{}{STRICT}", provider.toml()));
    let elsewhere = AnotherSite::start();
    let chromium = Chromium::start().await;
    elsewhere.link(&chromium, &stage, "/hello").await;
    chromium.until("the sign-in form", || async { provider.asks_for_password(&chromium).await }).await.unwrap();
    stage.upstream.assert_untouched();
    provider.sign_in(&chromium, "ada", &stage.origin()).await.unwrap();
    until_shown(&chromium, &stage, "/hello").await;
    elsewhere.link(&chromium, &stage, "/again").await;
    until_shown(&chromium, &stage, "/again").await;
}

#[tokio::test]
async fn a_domains_session_is_shown_to_its_hosts_and_a_sign_out_at_one_of_them_deletes_it() {
    within_a_minute(async {
        let stage = Stage::with(
            "return_origins = [\"http://wiki.dev.localhost:{port}\"]\n[cookie]\ndomain = \"dev.localhost\"\n\
             [provider]\nredirect_uri = \"http://app.dev.localhost:{port}/auth/callback\"\n",
        );
        let at = |name: &str, path: &str| format!("http://{name}.dev.localhost:{}{path}", stage.address().port());
        let chromium = Chromium::start().await;
        chromium.goto(&at("wiki", "/page")).await.unwrap();
        chromium.wait_for_origin(&at("wiki", "")).await.unwrap();
        assert_eq!(chromium.echo().await.unwrap()["target"], "/page");
        chromium.goto(&at("app", "/other")).await.unwrap();
        assert_eq!(chromium.echo().await.unwrap()["target"], "/other");
        assert_eq!(stage.provider.count(Endpoint::Authorize), 1);
        let cookies = chromium.client.get_all_cookies().await.unwrap();
        let domain = |name: &str| {
            let cookie = cookies.iter().find(|cookie| cookie.name() == name).unwrap();
            cookie.domain().unwrap_or_default().trim_start_matches('.').to_owned()
        };
        assert_eq!((&*domain("vestibule"), &*domain("vestibule.login")), ("dev.localhost", "app.dev.localhost"));

        chromium.goto(&at("wiki", "/auth/logout")).await.unwrap();
        chromium.goto(&at("app", "/auth/signed-out")).await.unwrap();
        assert_no_session(&chromium).await;
    })
    .await;
}

/// A server on 127.0.0.1, which is another site than localhost. Its own, because a browser asks it for an icon, too.
struct AnotherSite(EchoUpstream);

impl AnotherSite {
    fn start() -> Self {
        Self(EchoUpstream::start())
    }

    /// Follows a link on one of its pages.
    async fn link(&self, chromium: &Chromium, stage: &Stage, target: &str) {
        chromium.goto(&self.0.url()).await.unwrap();
        let link = "const link = document.createElement('a'); link.href = arguments[0]; document.body.append(link); link.click()";
        chromium.client.execute(link, vec![json!(stage.url(target))]).await.unwrap();
    }
}

/// Waits until the application's own answer is shown.
async fn until_shown(chromium: &Chromium, stage: &Stage, target: &str) {
    chromium
        .until(target, || async {
            let text = chromium.text().await?;
            let echo: Option<vestibule_test_support::Value> = serde_json::from_str(&text).ok();
            Ok(chromium.is_at(&stage.origin()).await? && echo.is_some_and(|echo| echo["target"] == target))
        })
        .await
        .unwrap();
}

async fn assert_no_session(chromium: &Chromium) {
    let cookies = chromium.client.get_all_cookies().await.unwrap();
    let names = cookies.iter().map(|cookie| cookie.name()).collect::<Vec<_>>();
    assert!(!names.contains(&"vestibule") && !names.contains(&"vestibule.idle"), "a session is left: {names:?}");
}

async fn within_a_minute(story: impl Future<Output = ()>) {
    tokio::time::timeout(DEADLINE, story).await.expect("the story took longer than a minute");
}
