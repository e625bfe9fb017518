//! The whole story in headless Chromium: sign in by the provider's own form, be known to the application, stay signed in,
//! use several tabs, sign out at the provider too.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use vestibule_test_support::real::{Chromium, RealProvider};
use vestibule_test_support::{Endpoint, Stage, Value, json};

/// No story takes longer.
const DEADLINE: Duration = Duration::from_secs(60);

const IDENTITY: &str = r#"
[identity]
name_claim = "preferred_username"
roles_claims = ["groups", "roles", ["realm_access", "roles"]]
default_roles = ["user"]
[identity.role_mapping]
"/admins" = ["admin"]
"auditor" = ["reviewer"]
[identity.individual_roles]
"ada" = ["countess"]
"#;

const SIGNED_OUT: &str = "[provider]\npost_logout_redirect_uri = \"http://localhost:{port}/auth/signed-out\"\n";

#[tokio::test]
async fn a_person_signs_in_at_keycloak_stays_signed_in_and_signs_out() {
    within_a_minute(from_sign_in_to_sign_out(RealProvider::keycloak())).await;
}

#[tokio::test]
async fn a_person_signs_in_at_oidc_provider_stays_signed_in_and_signs_out() {
    within_a_minute(from_sign_in_to_sign_out(RealProvider::oidc_provider())).await;
}

#[tokio::test]
async fn tabs_opened_before_the_sign_in_at_keycloak_all_arrive() {
    within_a_minute(parallel_tabs(RealProvider::keycloak())).await;
}

#[tokio::test]
async fn tabs_opened_before_the_sign_in_at_oidc_provider_all_arrive() {
    within_a_minute(parallel_tabs(RealProvider::oidc_provider())).await;
}

async fn from_sign_in_to_sign_out(provider: RealProvider) {
    let stage = stage(&provider);
    let origin = stage.origin();
    let chromium = Chromium::start().await;

    chromium.goto(&stage.url("/hello?x=1")).await.unwrap();
    assert!(provider.asks_for_password(&chromium).await.unwrap());
    stage.upstream.assert_untouched();
    provider.sign_in(&chromium, "ada", &origin).await.unwrap();
    assert_known(&chromium.echo().await.unwrap());

    let asked_before = stage.upstream.count();
    chromium.client.refresh().await.unwrap();
    assert_known(&chromium.echo().await.unwrap());
    assert!(stage.upstream.count() > asked_before, "the page came from the application again");

    chromium.goto(&stage.url("/auth/logout")).await.unwrap();
    provider.confirm_sign_out(&chromium, &origin).await.unwrap();
    assert_eq!(chromium.client.current_url().await.unwrap().path(), "/auth/signed-out");
    stage.upstream.forget();

    chromium.goto(&stage.url("/hello?x=2")).await.unwrap();
    assert!(provider.asks_for_password(&chromium).await.unwrap(), "the provider still knows this person");
    stage.upstream.assert_untouched();
    provider.sign_in(&chromium, "ada", &origin).await.unwrap();
    assert_eq!(chromium.echo().await.unwrap()["target"], "/hello?x=2");
}

/// Who came, as the application was told.
fn assert_known(echo: &Value) {
    assert_eq!(echo["target"], "/hello?x=1");
    assert_eq!(header(echo, "x-forwarded-user").as_deref(), Some("ada"));
    assert_eq!(header(echo, "x-forwarded-email").as_deref(), Some("ada@example.com"));
    assert_eq!(list(echo, "x-forwarded-groups"), ["/admins", "/staff"].map(str::to_owned).into());
    assert_eq!(list(echo, "x-forwarded-roles"), ["admin", "countess", "reviewer", "user"].map(str::to_owned).into());
    let cookie = header(echo, "cookie").unwrap_or_default();
    assert!(!cookie.contains("vestibule"), "our cookies reached the application: {cookie}");
}

async fn parallel_tabs(provider: RealProvider) {
    let stage = stage(&provider);
    let origin = stage.origin();
    let chromium = Chromium::start().await;
    let mut tabs = vec![chromium.client.window().await.unwrap()];
    chromium.goto(&stage.url("/tab/0")).await.unwrap();
    for number in 1..4 {
        tabs.push(chromium.new_tab().await.unwrap());
        chromium.goto(&stage.url(&format!("/tab/{number}"))).await.unwrap();
    }
    stage.upstream.assert_untouched();
    for (turn, number) in [2, 0, 3, 1].into_iter().enumerate() {
        chromium.show(&tabs[number]).await.unwrap();
        match turn {
            0 => provider.sign_in(&chromium, "ada", &origin).await.unwrap(),
            _ => provider.finish_in_another_tab(&chromium, "ada", &origin).await.unwrap(),
        }
        assert_eq!(chromium.echo().await.unwrap()["target"], format!("/tab/{number}"));
    }
}

/// Chromium applies `form-action` to the redirects that follow a form: the page's policy must name the provider. And a page
/// without a referrer sends its form with `Origin: null`, which is refused.
#[tokio::test]
async fn a_sign_out_link_on_another_site_asks_first_and_its_button_reaches_the_provider() {
    within_a_minute(async {
        let stage = Stage::with(SIGNED_OUT);
        let chromium = Chromium::start().await;
        chromium.goto(&stage.url("/hello")).await.unwrap();
        assert_eq!(chromium.echo().await.unwrap()["target"], "/hello");

        follow_sign_out_link_on_another_site(&stage, &chromium).await;
        assert_eq!(stage.provider.count(Endpoint::EndSession), 0, "a link on another site signs nobody out");
        chromium.press("form button").await.unwrap();
        assert_signed_out(&stage, &chromium).await;
        assert_eq!(stage.provider.count(Endpoint::EndSession), 1);
    })
    .await;
}

#[tokio::test]
async fn the_sign_out_button_signs_out_at_keycloak_too() {
    within_a_minute(sign_out_by_the_button(RealProvider::keycloak())).await;
}

#[tokio::test]
async fn the_sign_out_button_signs_out_at_oidc_provider_too() {
    within_a_minute(sign_out_by_the_button(RealProvider::oidc_provider())).await;
}

async fn sign_out_by_the_button(provider: RealProvider) {
    let stage = stage(&provider);
    let origin = stage.origin();
    let chromium = Chromium::start().await;
    chromium.goto(&stage.url("/hello")).await.unwrap();
    provider.sign_in(&chromium, "ada", &origin).await.unwrap();

    follow_sign_out_link_on_another_site(&stage, &chromium).await;
    // Nothing has ended: another tab is still the application's.
    let page = chromium.client.window().await.unwrap();
    let another = chromium.new_tab().await.unwrap();
    chromium.goto(&stage.url("/still-here")).await.unwrap();
    assert_eq!(header(&chromium.echo().await.unwrap(), "x-forwarded-user").as_deref(), Some("ada"));

    chromium.show(&page).await.unwrap();
    chromium.press("form button").await.unwrap();
    provider.confirm_sign_out(&chromium, &origin).await.unwrap();
    assert_signed_out(&stage, &chromium).await;

    chromium.show(&another).await.unwrap();
    chromium.goto(&stage.url("/again")).await.unwrap();
    assert!(provider.asks_for_password(&chromium).await.unwrap(), "the provider still knows this person");
    stage.upstream.assert_untouched();
}

/// The upstream itself lives on 127.0.0.1, which is another site than localhost.
async fn follow_sign_out_link_on_another_site(stage: &Stage, chromium: &Chromium) {
    chromium.goto(&stage.upstream.url()).await.unwrap();
    let link = "location.href = arguments[0]";
    chromium.client.execute(link, vec![json!(stage.url("/auth/logout"))]).await.unwrap();
    chromium.wait_for_origin(&stage.origin()).await.unwrap();
    assert_eq!(chromium.client.current_url().await.unwrap().path(), "/auth/logout");
}

/// The browser arrives at the signed-out page without a session; the upstream forgets what reached it.
async fn assert_signed_out(stage: &Stage, chromium: &Chromium) {
    chromium
        .until("the signed-out page", || async {
            Ok(chromium.client.current_url().await?.path() == "/auth/signed-out")
        })
        .await
        .unwrap();
    stage.upstream.forget();
    let cookies = chromium.client.get_all_cookies().await.unwrap();
    let names = cookies.iter().map(|cookie| cookie.name()).collect::<Vec<_>>();
    assert!(!names.contains(&"vestibule") && !names.contains(&"vestibule.idle"), "a session is left: {names:?}");
}

fn stage(provider: &RealProvider) -> Stage {
    Stage::with(&format!("{}{IDENTITY}", provider.toml()))
}

async fn within_a_minute(story: impl Future<Output = ()>) {
    tokio::time::timeout(DEADLINE, story).await.expect("the story took longer than a minute");
}

/// A header that reached the application, at most once.
fn header(echo: &Value, name: &str) -> Option<String> {
    let fields = echo["headers"].as_array().unwrap();
    let values: Vec<&str> =
        fields.iter().filter(|field| field[0] == name).filter_map(|field| field[1].as_str()).collect();
    assert!(values.len() <= 1, "{name} came more than once: {values:?}");
    values.first().map(|&value| value.to_owned())
}

fn list(echo: &Value, name: &str) -> BTreeSet<String> {
    header(echo, name).unwrap_or_default().split(',').map(str::to_owned).collect()
}
