//! Where each tenant of a provider has an issuer of its own, people of those that are named get in, each by their own issuer.

use std::sync::Arc;

use http::StatusCode;
use vestibule_test_support::{Browser, Endpoint, FakeProvider, Request, Stage, StageBuilder, TestClock, Value, json};

/// A provider with tenants; the ID token's `iss` and `tid`, and the `iss` of the callback.
fn stage(allowed: &str, tenant: &str, tid: Value, callback: Option<&str>) -> Stage {
    stage_with(allowed, tenant, tid, callback, "")
}

fn stage_with(allowed: &str, tenant: &str, tid: Value, callback: Option<&str>, more: &str) -> Stage {
    build(Stage::builder(), (allowed, tenant), tid, callback, more)
}

pub(crate) fn build(
    builder: StageBuilder,
    (allowed, tenant): (&str, &str),
    tid: Value,
    callback: Option<&str>,
    more: &str,
) -> Stage {
    let clock = TestClock::new();
    let provider = Arc::new(FakeProvider::start(clock.clone()));
    let issuer = provider.issuer();
    let of = |tenant: &str| format!("{issuer}/{tenant}/v2.0");
    provider.set_metadata("issuer", json!(of("{tenantid}")));
    provider.set_metadata("authorization_response_iss_parameter_supported", Value::Null);
    provider.faults(|faults| faults.callback_issuer = Some(callback.map(of)));
    provider.falsify("iss", json!(of(tenant)));
    provider.falsify("tid", tid);
    let toml = format!("[provider]\nissuer_template = \"{}\"\nallowed_tenants = {allowed}\n{more}", of("{tenantid}"));
    builder.clock(clock).provider(provider).toml(&toml).start()
}

#[tokio::test]
async fn people_of_the_tenants_that_are_named_get_in() {
    for (allowed, tenant, callback) in
        [("[\"one\", \"two\"]", "one", None), ("[\"one\", \"two\"]", "two", Some("two")), ("[\"*\"]", "three", None)]
    {
        let stage = stage(allowed, tenant, json!(tenant), callback);
        let page = stage.sign_in(&stage.browser(), "/").await;
        assert_eq!(page.status, StatusCode::OK, "{allowed} {tenant}: {}", page.text());
        let warned = stage.warnings().iter().any(|warning| warning.contains("every tenant"));
        assert_eq!(warned, allowed.contains('*'));
    }
}

#[tokio::test]
async fn nobody_of_another_tenant_or_with_an_issuer_that_is_not_their_tenants_gets_in() {
    for (allowed, tenant, tid) in [
        ("[\"one\"]", "two", json!("two")),
        ("[\"one\"]", "one", json!("two")),
        ("[\"one\"]", "two", json!("one")),
        ("[\"*\"]", "one", Value::Null),
        ("[\"*\"]", "{tenantid}", json!("{tenantid}")),
        ("[\"*\"]", "..", json!("..")),
    ] {
        let stage = stage(allowed, tenant, tid.clone(), None);
        let page = stage.browser().follow(&stage.url("/"), 12).await;
        assert_eq!(page.status, StatusCode::BAD_GATEWAY, "{allowed} {tenant} {tid}: {}", page.text());
        assert_eq!(stage.provider.count(Endpoint::Userinfo), 0, "{allowed} {tenant} {tid}");
        stage.upstream.assert_untouched();
    }
}

#[tokio::test]
async fn an_answer_of_another_tenant_than_the_id_tokens_is_refused() {
    for (callback, is_redeemed) in [("two", true), ("three", false), ("{tenantid}", false)] {
        let stage = stage("[\"one\", \"two\"]", "one", json!("one"), Some(callback));
        let page = stage.browser().follow(&stage.url("/"), 12).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST, "{callback}: {}", page.text());
        assert_eq!(stage.provider.count(Endpoint::Token) == 1, is_redeemed, "{callback}");
        assert_eq!(stage.provider.count(Endpoint::Userinfo), 0, "{callback}");
        stage.upstream.assert_untouched();
    }
}

const ONE_AND_TWO: &str = "[\"one\", \"two\"]";

/// Signed in as `same` with the session `s1` of `tenant`: each tenant gives its own names.
async fn signed_in(stage: &Stage, tenant: &str) -> Browser {
    stage.provider.set_user(json!({ "sub": "same", "sid": "s1", "preferred_username": "ada" }));
    stage.provider.falsify("iss", json!(format!("{}/{tenant}/v2.0", stage.provider.issuer())));
    stage.provider.falsify("tid", json!(tenant));
    let browser = stage.browser();
    let page = stage.sign_in(&browser, "/").await;
    assert_eq!(page.status, StatusCode::OK, "{tenant}: {}", page.text());
    browser
}

async fn status(stage: &Stage, browser: &Browser) -> StatusCode {
    browser.fetch(&stage.url("/")).await.status
}

#[tokio::test]
async fn a_tenant_signs_out_nobody_of_another() {
    for claims in [json!({ "sub": "same" }), json!({ "sid": "s1" }), json!({ "sub": "same", "sid": "s1" })] {
        let stage = stage(ONE_AND_TWO, "one", json!("one"), None);
        let (one, two) = (signed_in(&stage, "one").await, signed_in(&stage, "two").await);
        let mut claims = claims.clone();
        claims["iss"] = json!(format!("{}/two/v2.0", stage.provider.issuer()));
        claims["tid"] = json!("two");
        let token = stage.provider.logout_token(&claims);
        let told = Request::new(http::Method::POST, &stage.url("/auth/backchannel-logout"));
        let reply = stage.browser().send(told.form(&[("logout_token", &token)])).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
        assert_eq!(status(&stage, &one).await, StatusCode::OK, "{claims}");
        assert_eq!(status(&stage, &two).await, StatusCode::UNAUTHORIZED, "{claims}");
    }
}

#[tokio::test]
async fn a_frame_of_a_tenant_ends_no_session_of_another() {
    let stage = stage(ONE_AND_TWO, "one", json!("one"), None);
    let (one, two) = (signed_in(&stage, "one").await, signed_in(&stage, "two").await);
    let issuer = format!("{}/two/v2.0", stage.provider.issuer());
    let query = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("iss", &issuer)
        .append_pair("sid", "s1")
        .finish();
    assert_eq!(
        stage.browser().get(&stage.url(&format!("/auth/frontchannel-logout?{query}"))).await.status,
        StatusCode::OK
    );
    assert_eq!(status(&stage, &one).await, StatusCode::OK);
    assert_eq!(status(&stage, &two).await, StatusCode::UNAUTHORIZED);
}

/// `ada` of another tenant is somebody else.
#[tokio::test]
async fn roles_and_turns_of_a_name_are_for_that_name_in_one_tenant() {
    let more = "[identity]\nname_claim = \"preferred_username\"\nroles_claims = []\n\
                [identity.individual_roles]\n\"one:ada\" = [\"auditor\"]\n\
                [identity.headers]\n\"X-Roles\" = \"roles\"\n\
                [[routes]]\npath = \"/few\"\nrate_limit = { per = \"user\", rate = \"1/h\" }\n";
    let stage = stage_with(ONE_AND_TWO, "one", json!("one"), None, more);
    for (tenant, roles) in [("one", Some("auditor")), ("two", None)] {
        let browser = signed_in(&stage, tenant).await;
        assert_eq!(browser.get(&stage.url("/")).await.echoed("x-roles").as_deref(), roles, "{tenant}");
        assert_eq!(browser.fetch(&stage.url("/few")).await.status, StatusCode::OK, "{tenant}");
        assert_eq!(browser.fetch(&stage.url("/few")).await.status, StatusCode::TOO_MANY_REQUESTS, "{tenant}");
    }
}

/// Whose document has another template is another provider.
#[tokio::test]
async fn a_document_with_another_template_is_refused() {
    let clock = TestClock::new();
    let provider = Arc::new(FakeProvider::start(clock.clone()));
    let issuer = provider.issuer();
    provider.set_metadata("issuer", json!(format!("{issuer}/{{tenantid}}/v1.0")));
    let toml = format!("[provider]\nissuer_template = \"{issuer}/{{tenantid}}/v2.0\"\nallowed_tenants = [\"one\"]\n");
    let stage = Stage::builder().clock(clock).provider(provider).without_provider().toml(&toml).start();
    let page = stage.browser().follow(&stage.url("/"), 12).await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE, "{}", page.text());
    assert_eq!(stage.provider.count(Endpoint::Authorize), 0);
    stage.upstream.assert_untouched();
}
