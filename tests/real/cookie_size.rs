//! How big a real session is: ID, access and refresh token of Keycloak with ten groups, in one cookie.

use http::StatusCode;
use vestibule_test_support::real::RealProvider;
use vestibule_test_support::{Browser, Reply, Stage};

/// A stock nginx reads an upstream's answer head into 4 KiB; this leaves it room for its own.
const ANSWER_HEAD: usize = 4_000;
/// What products that pass behind a stock nginx stay under.
const SET_COOKIE: usize = 3_500;
/// Cookies of ours that are not the session (login, idle time) are smaller than this.
const SMALL_COOKIE: usize = 300;

#[tokio::test]
async fn a_keycloak_session_with_ten_groups_fits_in_one_cookie_and_its_callback_behind_a_stock_nginx() {
    let provider = RealProvider::keycloak();
    let stage = Stage::with(&provider.toml());
    let browser = stage.browser();
    let path = long_path();

    let callback = sign_in_by_form(&stage, &browser, &path).await;
    assert_eq!(callback.status, StatusCode::SEE_OTHER, "{}", callback.text());
    assert_eq!(callback.location().as_str(), stage.url(&path));
    assert_small(&callback);
    assert!(browser.rejected_cookies().is_empty(), "{:?}", browser.rejected_cookies());

    let page = browser.step(&callback).await;
    let groups = page.echoed("x-forwarded-groups").unwrap_or_default();
    assert_eq!(groups.split(',').count(), 10, "{groups}");
}

/// A return path of 400 bytes.
pub(super) fn long_path() -> String {
    format!("/{}", "return-path/".repeat(40))[..400].to_owned()
}

/// The callback's answer fits through a stock nginx, with the session in one cookie.
#[track_caller]
pub(super) fn assert_small(callback: &Reply) {
    let lines = callback.set_cookies();
    let total: usize = lines.iter().map(|line| line.len() + "set-cookie: \r\n".len()).sum();
    let sessions = lines.iter().filter(|line| line.len() > SMALL_COOKIE).count();
    assert_eq!(sessions, 1, "the session is split: {lines:#?}");
    assert!(total < SET_COOKIE, "{total} bytes of Set-Cookie: {lines:#?}");
    assert!(callback.head_length() < ANSWER_HEAD, "the answer's head takes {} bytes", callback.head_length());
}

/// Goes through Keycloak's login form as a person of ten groups; returns the callback's answer.
pub(super) async fn sign_in_by_form(stage: &Stage, browser: &Browser, path: &str) -> Reply {
    let form = browser.follow(&stage.url(path), 3).await;
    let approved = RealProvider::keycloak().submit_form(browser, &form, "grace").await;
    assert!(approved.location().as_str().starts_with(&stage.url("/auth/callback")), "{}", approved.location());
    browser.step(&approved).await
}
