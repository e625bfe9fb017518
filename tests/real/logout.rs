//! Real providers end sessions: by the back channel, in a frame, and tokens are of no use after a sign-out.

use std::time::Duration;

use http::{Method, StatusCode};
use vestibule_test_support::real::RealProvider;
use vestibule_test_support::{Browser, Request, Stage, free_port, json};

const IDENTITY: &str = "[identity]\nname_claim = \"preferred_username\"\n";

/// A proxy that a client of its own is registered for, at the port that the registration names.
async fn stage(provider: &RealProvider, port: u16) -> Stage {
    Stage::builder().port(port).toml(&format!("{}{IDENTITY}", provider.toml())).start()
}

fn backchannel(port: u16) -> String {
    format!("http://127.0.0.1:{port}/auth/backchannel-logout")
}

async fn signed_in(provider: &RealProvider, stage: &Stage, name: &str) -> Browser {
    let browser = stage.browser();
    let page = provider.sign_in_without_browser_as(&browser, &stage.url("/"), name).await;
    assert_eq!(page.echoed("x-forwarded-user").as_deref(), Some(name), "{} {}", page.url, page.text());
    browser
}

/// Within the seconds that a provider may take to tell.
async fn assert_ended(stage: &Stage, browser: &Browser) {
    for _ in 0..100 {
        let reply = browser.fetch(&stage.url("/")).await;
        if reply.status == StatusCode::UNAUTHORIZED {
            assert_eq!(reply.json()["code"], "session_ended");
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the session lives on");
}

#[tokio::test]
async fn keycloak_ends_sessions_by_the_back_channel_one_by_one_and_of_a_person() {
    for session_required in ["true", "false"] {
        let port = free_port();
        let attributes = json!({ "attributes": {
            "backchannel.logout.url": backchannel(port), "backchannel.logout.session.required": session_required,
        }});
        let provider = RealProvider::keycloak().registered(&attributes).await;
        let (person, other) = (provider.new_person().await, provider.new_person().await);
        let stage = stage(&provider, port).await;
        let (here, there) = (signed_in(&provider, &stage, &person).await, signed_in(&provider, &stage, &person).await);
        let bystander = signed_in(&provider, &stage, &other).await;
        provider.end_all_sessions_of(&person).await;
        assert_ended(&stage, &here).await;
        assert_ended(&stage, &there).await;
        stage.assert_signed_in(&bystander).await;
        let again = signed_in(&provider, &stage, &person).await;
        stage.assert_signed_in(&again).await;
    }
}

#[tokio::test]
async fn keycloak_ends_a_session_in_a_frame_of_its_sign_out_page() {
    let port = free_port();
    let registration = json!({ "frontchannelLogout": true, "attributes": {
        "frontchannel.logout.url": format!("http://localhost:{port}/auth/frontchannel-logout"),
        "frontchannel.logout.session.required": "true",
    }});
    let provider = RealProvider::keycloak().registered(&registration).await;
    let (person, other) = (provider.new_person().await, provider.new_person().await);
    let stage = stage(&provider, port).await;
    let (browser, bystander) =
        (signed_in(&provider, &stage, &person).await, signed_in(&provider, &stage, &other).await);
    let confirm = browser.get(&format!("{}/protocol/openid-connect/logout", provider.issuer)).await;
    let answer = provider.submit_form(&browser, &confirm, &person).await;
    let page = browser.follow_reply(answer, 5).await;
    let text = page.text();
    let frame = text.split("<iframe").nth(1).and_then(|frame| frame.split("src=\"").nth(1)?.split('"').next());
    let frame = frame.unwrap_or_else(|| panic!("no frame in {text}")).replace("&amp;", "&");
    assert!(frame.contains("sid=") && frame.contains("iss="), "{frame}");
    let request = Request::new(Method::GET, &frame).header("sec-fetch-dest", "iframe");
    // Another site's frame brings no Lax cookie.
    let framed = stage.browser().send(request.header("sec-fetch-site", "cross-site")).await;
    assert_eq!(framed.status, StatusCode::OK, "{}", framed.text());
    let policy = framed.header("content-security-policy").unwrap().to_owned();
    assert!(policy.ends_with(&format!("frame-ancestors {}", page.url.origin().ascii_serialization())), "{policy}");
    assert_ended(&stage, &browser).await;
    stage.assert_signed_in(&bystander).await;
}

#[tokio::test]
async fn oidc_provider_ends_a_session_by_the_back_channel() {
    let port = free_port();
    let registration =
        json!({ "backchannel_logout_uri": backchannel(port), "backchannel_logout_session_required": true });
    let provider = RealProvider::oidc_provider().registered(&registration).await;
    let stage = stage(&provider, port).await;
    let (browser, bystander) = (signed_in(&provider, &stage, "ada").await, signed_in(&provider, &stage, "grace").await);
    let confirm = browser.get(&format!("{}/session/end", provider.issuer)).await;
    provider.pass_pages(&browser, confirm, "ada").await;
    assert_ended(&stage, &browser).await;
    stage.assert_signed_in(&bystander).await;
}

#[tokio::test]
async fn the_access_token_of_a_session_that_was_signed_out_is_of_no_use() {
    for (provider, userinfo) in
        [(RealProvider::keycloak(), "protocol/openid-connect/userinfo"), (RealProvider::oidc_provider(), "me")]
    {
        let upstream = "[upstream]\naccess_token = \"bearer\"\n";
        let stage = Stage::with(&format!("{}{IDENTITY}{upstream}", provider.toml()));
        let browser = stage.browser();
        let page = provider.sign_in_without_browser(&browser, &stage.url("/")).await;
        let bearer = page.echoed("authorization").expect("the access token");
        let userinfo = format!("{}/{userinfo}", provider.issuer);
        let anybody = stage.browser();
        let ask = || anybody.send(Request::new(Method::GET, &userinfo).header("authorization", &bearer));
        assert_eq!(ask().await.status, StatusCode::OK, "{}", provider.issuer);
        // Not followed: the provider's own session is not what ends here.
        assert_eq!(browser.get(&stage.url("/auth/logout")).await.status, StatusCode::SEE_OTHER);
        let mut status = StatusCode::OK;
        for _ in 0..100 {
            status = ask().await.status;
            if status == StatusCode::UNAUTHORIZED {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{}", provider.issuer);
    }
}
