//! A person fills in a form in Chromium for longer than their session lasts, signs in at a real provider, and the application gets it.

use std::time::Duration;

use vestibule_test_support::real::{Chromium, RealProvider};
use vestibule_test_support::{EchoUpstream, Received, Stage};

/// No story takes longer.
const DEADLINE: Duration = Duration::from_secs(90);
const PAGE: &str = "<!doctype html><meta charset=utf-8><title>A form</title><form method=post action='/save?draft=1'>\
    <input name=title><textarea name=text></textarea><button>Save</button></form>";
const TITLE: &str = "Zo\u{eb} & <b>+%20";
const TEXT: &str = "one\ntwo  \u{1f600}";

#[tokio::test]
async fn a_form_is_sent_after_a_sign_in_at_keycloak() {
    tokio::time::timeout(DEADLINE, story(RealProvider::keycloak())).await.expect("the story took too long");
}

#[tokio::test]
async fn a_form_is_sent_after_a_sign_in_at_oidc_provider() {
    tokio::time::timeout(DEADLINE, story(RealProvider::oidc_provider())).await.expect("the story took too long");
}

async fn story(provider: RealProvider) {
    let stage = Stage::with(&format!(
        "{}[session]\nidle = \"1m\"\nkeep_posts = \"64KiB\"\n[upstream]\nurl = unset\n\
         [upstreams.default]\nurl = \"{{upstream}}\"\n\
         [upstreams.page]\nrespond = {{ status = 200, content_type = \"text/html\", body = {PAGE:?} }}\n\
         [[routes]]\npath = \"/*\"\nupstream = \"default\"\n[[routes]]\npath = \"/form\"\nupstream = \"page\"\n",
        provider.toml()
    ));
    let chromium = Chromium::start().await;
    chromium.goto(&stage.url("/form")).await.unwrap();
    provider.sign_in(&chromium, "ada", &stage.origin()).await.unwrap();
    fill_in(&chromium).await;
    chromium.press("form button").await.unwrap();
    until_at(&chromium, &stage.url("/save?draft=1")).await;
    let [as_ever] = &posts(&stage.upstream)[..] else { panic!("one form") };
    stage.upstream.forget();

    chromium.goto(&stage.url("/form")).await.unwrap();
    fill_in(&chromium).await;
    forget_the_provider(&chromium, &provider).await;
    stage.clock.advance(Duration::from_secs(61));
    chromium.press("form button").await.unwrap();
    chromium.until("the sign-in form", || async { provider.asks_for_password(&chromium).await }).await.unwrap();
    provider.sign_in(&chromium, "ada", &stage.origin()).await.unwrap();
    let asked = chromium.text().await.unwrap();
    assert!(asked.contains("Send what you entered?") && asked.contains("the form to /save."), "{asked}");
    assert!(posts(&stage.upstream).is_empty());
    assert!(
        chromium.client.find_all(vestibule_test_support::fantoccini::Locator::Css("script")).await.unwrap().is_empty()
    );

    chromium.press("main form button").await.unwrap();
    until_at(&chromium, &stage.url("/save?draft=1")).await;
    let [sent] = &posts(&stage.upstream)[..] else { panic!("one form") };
    for field in ["content-type", "content-length", "origin", "referer", "x-forwarded-user", "sec-fetch-site"] {
        assert_eq!(sent.header(field), as_ever.header(field), "{field}");
    }
    assert_eq!((&sent.target, &sent.body_text), (&as_ever.target, &as_ever.body_text));

    // Back to the page with the button, which the browser may show as it was: there is nothing left to send.
    chromium.client.back().await.unwrap();
    chromium.until("the page", || async { Ok(!chromium.text().await?.contains("\"target\"")) }).await.unwrap();
    if chromium.text().await.unwrap().contains("Send what you entered?") {
        chromium.press("main form button").await.unwrap();
    }
    chromium.until("the refusal", || async { Ok(chromium.text().await?.contains("Not sent")) }).await.unwrap();
    assert_eq!(posts(&stage.upstream).len(), 1);
}

async fn fill_in(chromium: &Chromium) {
    for (css, text) in [("input", TITLE), ("textarea", TEXT)] {
        let fill = "document.querySelector(arguments[0]).value = arguments[1]";
        chromium.client.execute(fill, vec![css.into(), text.into()]).await.unwrap();
    }
}

/// The provider's own session ends, in a tab of its own.
async fn forget_the_provider(chromium: &Chromium, provider: &RealProvider) {
    let form = chromium.client.window().await.unwrap();
    chromium.new_tab().await.unwrap();
    // With a slash: cookies of a path are shown below it.
    chromium.goto(&format!("{}/", provider.issuer)).await.unwrap();
    chromium.client.delete_all_cookies().await.unwrap();
    chromium.client.close_window().await.unwrap();
    chromium.show(&form).await.unwrap();
}

async fn until_at(chromium: &Chromium, url: &str) {
    chromium
        .until(url, || async {
            let loaded = chromium.client.execute("return document.readyState", Vec::new()).await? == "complete";
            Ok(loaded && chromium.client.current_url().await?.as_str() == url)
        })
        .await
        .unwrap();
}

/// The forms that reached the application; a browser asks it for an icon, too.
fn posts(upstream: &EchoUpstream) -> Vec<Received> {
    upstream.requests().into_iter().filter(|request| request.method == "POST").collect()
}
