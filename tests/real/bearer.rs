//! Access tokens that real providers gave: verified here, or explained by their introspection and userinfo endpoints.

use http::Method;
use vestibule_test_support::real::RealProvider;
use vestibule_test_support::{Request, Stage};

const CLIENT: &str = "vestibule-introspection";

/// Signs in, and shows the access token of that sign-in without any cookie.
async fn show(provider: RealProvider, more: &str, audience: &str) {
    let provider = provider.client(CLIENT);
    let stage = Stage::with(&format!(
        "{}{more}[bearer]\naccept = true\naudiences = [\"{audience}\"]\n[upstream]\naccess_token = \"bearer\"\n",
        provider.toml()
    ));
    let page = provider.sign_in_without_browser(&stage.browser(), &stage.url("/hello")).await;
    let (user, token) = (page.echoed("x-forwarded-user"), page.echoed("authorization").expect("an access token"));
    stage.upstream.forget();
    let browser = stage.browser();
    let ask =
        |token: &str| browser.send(Request::new(Method::GET, &stage.url("/hello")).header("authorization", token));
    let reply = ask(&token).await;
    assert_eq!(reply.status, 200, "{more} {}", reply.text());
    assert_eq!((reply.echoed("x-forwarded-user"), user.is_some()), (user, true));
    stage.upstream.forget();
    let (start, end) = token.split_at(token.len() - 8);
    let other = format!("{start}{}", if end == "AAAAAAAA" { "BBBBBBBB" } else { "AAAAAAAA" });
    assert_eq!(ask(&other).await.status, 401);
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn access_tokens_of_keycloak_are_verified_here_or_explained_there() {
    show(RealProvider::keycloak(), "", CLIENT).await;
    let opaque = "access_token_format = \"opaque\"\n";
    show(RealProvider::keycloak(), &format!("{opaque}introspection = \"json\"\n"), CLIENT).await;
    show(RealProvider::keycloak(), opaque, CLIENT).await;
}

#[tokio::test]
async fn opaque_access_tokens_of_oidc_provider_are_explained_plain_signed_or_by_userinfo() {
    for how in ["introspection = \"json\"\n", "introspection = \"jwt\"\n", ""] {
        show(RealProvider::oidc_provider(), &format!("access_token_format = \"opaque\"\n{how}"), CLIENT).await;
    }
}
