//! Where each tenant of a provider has an issuer of its own, people of those that are named get in, each by their own issuer.

use std::sync::Arc;

use http::StatusCode;
use vestibule_test_support::{Endpoint, FakeProvider, Stage, TestClock, Value, json};

/// A provider with tenants; the ID token's `iss` and `tid`, and the `iss` of the callback.
fn stage(allowed: &str, tenant: &str, tid: Value, callback: Option<&str>) -> Stage {
    let clock = TestClock::new();
    let provider = Arc::new(FakeProvider::start(clock.clone()));
    let issuer = provider.issuer();
    let of = |tenant: &str| format!("{issuer}/{tenant}/v2.0");
    provider.set_metadata("issuer", json!(of("{tenantid}")));
    provider.set_metadata("authorization_response_iss_parameter_supported", Value::Null);
    provider.faults(|faults| faults.callback_issuer = Some(callback.map(of)));
    provider.falsify("iss", json!(of(tenant)));
    provider.falsify("tid", tid);
    let toml = format!("[provider]\nissuer_template = \"{}\"\nallowed_tenants = {allowed}\n", of("{tenantid}"));
    Stage::builder().clock(clock).provider(provider).toml(&toml).start()
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
