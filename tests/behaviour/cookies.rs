//! How big a session's cookies are with tokens of the size that Keycloak gives out, and whether a stock nginx in front passes
//! the answer that sets them.
//!
//! What holds each row: `login::the_callback_of_a_large_account_passes_a_stock_nginx`,
//! `stored_sessions::every_replica_knows_a_session_by_a_small_cookie`, `real::cookie_size::`, `real::behind_nginx::`.

use futures_util::future::join_all;
use http::StatusCode;
use vestibule_test_support::{Browser, StoredCookie, Value, json};

use crate::house::{House, Kit, PASSES_TOKENS, Store};
use crate::table::{Cell, Table};

/// A stock nginx passes this much with room to spare.
const SET_COOKIE: usize = 3_500;
/// Of a session in a store.
const TICKET: usize = 190;

/// An account, and how long its ID and access token are.
struct Account {
    groups: usize,
    id: usize,
    access: usize,
}

pub(crate) async fn run(kit: &Kit) -> Table {
    let mut table = Table::new("all tokens kept; cookies, their bytes, behind a stock nginx", &Store::COLUMNS);
    let accounts = [
        (Account { groups: 0, id: 1_116, access: 1_373 }, 3_634, "1 of 3,634 B / 1 of 190 B"),
        (Account { groups: 10, id: 1_556, access: 1_813 }, 4_006, "2 of 4,006 B, **502** / 1 of 190 B, passes"),
        (Account { groups: 200, id: 9_930, access: 10_188 }, 7_818, "2 of 7,818 B, **502** / 1 of 190 B, passes"),
    ];
    for (account, most, best) in accounts {
        let cells = join_all(Store::ALL.map(|store| signed_in(kit, store, &account, most))).await;
        let what = format!("{} groups: ID token {}, access token {} B", account.groups, account.id, account.access);
        table.row(&what, best, cells);
    }
    table
}

async fn signed_in(kit: &Kit, store: Store, account: &Account, most: usize) -> Cell {
    let house = House::behind_nginx(kit, store, PASSES_TOKENS).await;
    let missing = prepare(&house, account, (0, 0)).await;
    let rest = prepare(&house, account, missing).await;
    assert!(rest.0 <= 2 && rest.1 <= 2, "tokens of other sizes: {rest:?} B are missing");
    // First without nginx, then by it.
    let direct = house.browser_inside();
    let callback = callback_of(&house, &direct).await;
    // What goes along for as long as the session lives; what a sign-in leaves behind is gone soon.
    let (idle, session): (Vec<_>, Vec<_>) = direct
        .cookies(&house.origin())
        .into_iter()
        .filter(|one| ![".login", ".done"].iter().any(|end| one.name.ends_with(end)))
        .partition(|one| one.name.ends_with(".idle"));
    let weigh =
        |cookies: &[StoredCookie]| cookies.iter().map(|one| one.name.len() + one.value.len() + 1).sum::<usize>();
    let (bytes, beside) = (weigh(&session), weigh(&idle));
    let set: usize = callback.set_cookies().iter().map(|line| line.len() + "set-cookie: \r\n".len()).sum();
    let passes = callback_of(&house, &house.browser()).await.status == StatusCode::SEE_OTHER;
    let fits = account.groups > 10 && store == Store::Cookie || (passes && set < SET_COOKIE);
    let outcome = if passes { "passes" } else { "502" };
    let text = format!("{} of {bytes} B, idle time {beside} B, {outcome}", session.len());
    Cell::of(text, fits && bytes <= if store == Store::Cookie { most } else { TICKET })
}

/// The answer of a sign-in's callback.
async fn callback_of(house: &House, browser: &Browser) -> vestibule_test_support::Reply {
    let mut reply = browser.get(&house.url("/")).await;
    while !reply.url.path().ends_with("/callback") {
        reply = browser.step(&reply).await;
    }
    reply
}

/// Makes the tokens of the next sign-in this many bytes longer than they would be, and says how many are missing then.
async fn prepare(house: &House, account: &Account, (id, access): (usize, usize)) -> (usize, usize) {
    let provider = house.provider();
    // Base64 makes four bytes of three.
    let padding = |bytes: usize| incompressible(bytes * 3 / 4);
    let groups: Vec<_> = (0..account.groups)
        .map(|number| format!("/organisation/unit-{:03}/team-{:02}", number / 7, number % 7))
        .collect();
    let person = json!({
        "sub": "2f4b6d1c-6a86-4f43-9d0e-0c3f6d1e7a55", "name": "Ada Lovelace", "given_name": "Ada",
        "family_name": "Lovelace", "preferred_username": "ada", "email": "ada@example.com", "email_verified": true,
        "sid": "0b7f3c52-8a0d-4b43-9a65-9d1f3b8f6d11", "acr": "1", "typ": "ID",
    });
    let mut user = person.clone();
    user["jti"] = Value::from(padding(id));
    let mut token = json!({
        "iss": provider.issuer(), "aud": "account", "azp": provider.client_id(), "iat": 1_795_000_000, "exp": 1_795_000_300,
        "scope": "openid email profile", "allowed-origins": [house.origin()],
        "realm_access": { "roles": ["default-roles-demo", "offline_access", "uma_authorization"] },
        "resource_access": { "account": { "roles": ["manage-account", "manage-account-links", "view-profile"] } },
    });
    token.as_object_mut().expect("an object").extend(person.as_object().expect("an object").clone());
    token["jti"] = Value::from(padding(access));
    if account.groups > 0 {
        user["groups"] = json!(groups);
        token["groups"] = json!(groups);
    }
    provider.set_user(user);
    provider.issue_jwts(token);
    callback_of(house, &house.browser_inside()).await;
    let made = provider.issued_tokens();
    let (id_token, access_token) = (provider.id_tokens().pop().unwrap_or_default(), &made[made.len() - 2]);
    (account.id.saturating_sub(id_token.len()), account.access.saturating_sub(access_token.len()))
}

/// Letters and digits without a pattern, the same in every run.
fn incompressible(length: usize) -> String {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let next = || {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(letters[(state >> 58) as usize])
    };
    std::iter::repeat_with(next).take(length).collect()
}
