//! Dex, beyond a sign-in: refresh tokens, devices, passwords, userinfo, introspection, and keys that it changes all the time.

use std::time::{Duration, Instant};

use http::Method;
use vestibule_test_support::real::RealProvider;
use vestibule_test_support::{Request, Stage, Value};

const IDENTITY: &str = "[identity]\nname_claim = \"preferred_username\"\n";

fn scopes(more: &str) -> String {
    format!("scopes = [\"openid\", \"profile\", \"email\", \"groups\"{more}]\n")
}

#[tokio::test]
async fn a_session_of_dex_is_renewed_by_its_refresh_token() {
    let provider = RealProvider::dex();
    let session = "[session]\nlifetime = \"7d\"\nidle = \"7d\"\n[upstream]\naccess_token = \"bearer\"\n";
    let lines = scopes(", \"offline_access\"");
    let stage = Stage::with(&format!("{}{lines}{IDENTITY}{session}", provider.toml()));
    let browser = stage.browser();
    let page = provider.sign_in_without_browser(&browser, &stage.url("/hello")).await;
    assert_eq!(page.echoed("x-forwarded-user").as_deref(), Some("ada"), "{} {}", page.status, page.text());
    let first = page.echoed("authorization").expect("an access token");
    // Its tokens live a day, and a renewed ID token has to hold by our clock, too.
    stage.clock.advance(Duration::from_secs(24 * 3600 - 150));
    let end = Instant::now() + Duration::from_secs(20);
    let renewed = loop {
        let reply = browser.get(&stage.url("/hello")).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        match reply.echoed("authorization").expect("an access token") {
            token if token != first => break reply,
            _ => assert!(Instant::now() < end, "the session is not renewed"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(renewed.echoed("x-forwarded-groups").as_deref(), Some("/admins,/staff"));
}

#[tokio::test]
async fn a_password_of_dex_is_exchanged_and_a_wrong_one_is_refused() {
    let provider = RealProvider::dex();
    let lines = scopes("");
    let stage = Stage::with(&format!("{}{lines}insecure_password_grant = true\n{IDENTITY}", provider.toml()));
    stage.wait_for_provider().await;
    let ask = |authorization: &'static str| {
        let request = Request::new(Method::GET, &stage.url("/hello")).header("authorization", authorization);
        let browser = stage.browser();
        async move { browser.send(request).await }
    };
    // ada@example.com:ada-password, and ada@example.com:wrong.
    let reply = ask("Basic YWRhQGV4YW1wbGUuY29tOmFkYS1wYXNzd29yZA==").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.echoed("x-forwarded-user").as_deref(), Some("ada"));
    stage.upstream.forget();
    assert_eq!(ask("Basic YWRhQGV4YW1wbGUuY29tOndyb25n").await.json()["code"], "password_refused");
    stage.upstream.assert_untouched();
}

/// Its access tokens are JWTs that look like its ID tokens, so they are not taken for what they say of themselves.
#[tokio::test]
async fn access_tokens_of_dex_are_explained_by_introspection_and_by_userinfo() {
    for (how, is_taken) in [
        ("access_token_format = \"opaque\"\nintrospection = \"json\"\n", true),
        ("access_token_format = \"opaque\"\n", true),
        ("", false),
    ] {
        let provider = RealProvider::dex();
        let lines = scopes("");
        let stage = Stage::with(&format!(
            "{}{lines}{how}[bearer]\naccept = true\naudiences = [\"vestibule\"]\n\
             [upstream]\naccess_token = \"bearer\"\n",
            provider.toml()
        ));
        let page = provider.sign_in_without_browser(&stage.browser(), &stage.url("/hello")).await;
        let (user, token) = (page.echoed("x-forwarded-user"), page.echoed("authorization").expect("an access token"));
        assert!(user.is_some(), "{}", page.text());
        stage.upstream.forget();
        let ask = |token: &str| {
            let request = Request::new(Method::GET, &stage.url("/hello")).header("authorization", token);
            let browser = stage.browser();
            async move { browser.send(request).await }
        };
        let reply = ask(&token).await;
        if is_taken {
            assert_eq!(reply.status, 200, "{how} {}", reply.text());
            assert_eq!(reply.echoed("x-forwarded-user"), user, "{how}");
            stage.upstream.forget();
        } else {
            assert_eq!((reply.status.as_u16(), &reply.json()["code"]), (401, &"access_token_type".into()), "{how}");
        }
        let (start, _) = token.split_at(token.len() - 8);
        assert_eq!(ask(&format!("{start}AAAAAAAA")).await.status, 401, "{how}");
        stage.upstream.assert_untouched();
    }
}

#[tokio::test]
async fn keys_of_dex_change_and_people_sign_in_all_the_same() {
    let provider = RealProvider::dex();
    let stage = Stage::with(&format!("{}{}{IDENTITY}", provider.toml(), scopes("")));
    let anybody = stage.browser();
    let newest = async || {
        let keys = anybody.fetch(&format!("{}/keys", provider.issuer)).await.json();
        keys["keys"][0]["kid"].clone()
    };
    let before: Value = newest().await;
    // It looks every half minute whether it is time.
    let end = Instant::now() + Duration::from_secs(90);
    while newest().await == before {
        assert!(Instant::now() < end, "the keys never change");
        let page = provider.sign_in_without_browser(&stage.browser(), &stage.url("/hello")).await;
        assert_eq!(page.echoed("x-forwarded-user").as_deref(), Some("ada"), "{} {}", page.status, page.text());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    for _ in 0..2 {
        let page = provider.sign_in_without_browser(&stage.browser(), &stage.url("/hello")).await;
        assert_eq!(page.echoed("x-forwarded-user").as_deref(), Some("ada"), "{} {}", page.status, page.text());
    }
}
