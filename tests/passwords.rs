//! Names and passwords of programs (RFC 6749 §4.3): off, or taken with every care there is.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::Method;
use vestibule::config::{self, Sources};
use vestibule_test_support::{Endpoint, IdTokenFault, Reply, Request, Stage, TokenFault, UserinfoFault, json};

const ON: &str = "[provider]\ninsecure_password_grant = true\nscopes = [\"openid\", \"offline_access\"]\n\
                  [[routes]]\npath = \"/optional/*\"\naccess = \"optional\"\n\
                  [[routes]]\npath = \"/admin/*\"\nrequire = { roles = [\"nobody\"] }\n\
                  [[routes]]\npath = \"/vault\"\nrequire = { acr = [\"gold\"] }\n\
                  [[routes]]\npath = \"/basic\"\npass_authorization = true\naccess = \"optional\"\n";
const PASSWORD: &str = "correct horse: battery stäple";

async fn stage(more: &str) -> Stage {
    let stage = Stage::with(&format!("{ON}{more}"));
    stage.wait_for_provider().await;
    stage.provider.set_password("ada", PASSWORD);
    stage
}

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{password}")))
}

fn request(stage: &Stage, path: &str, authorization: &str) -> Request {
    Request::new(Method::GET, &stage.url(path)).header("authorization", authorization)
}

async fn ask(stage: &Stage, path: &str, name: &str, password: &str) -> Reply {
    stage.browser().send(request(stage, path, &basic(name, password))).await
}

#[track_caller]
fn assert_refused(stage: &Stage, reply: &Reply, status: u16, code: &str) {
    assert_eq!((reply.status.as_u16(), reply.json()["code"].as_str()), (status, Some(code)), "{}", reply.text());
    let challenge = reply.header("www-authenticate").unwrap_or_default();
    assert!(!challenge.to_ascii_lowercase().contains("basic"), "{challenge}");
    assert_eq!(challenge.is_empty(), status != 401, "{challenge}");
    assert!(reply.header("set-cookie").is_none());
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn a_program_with_a_password_is_who_the_provider_says_and_it_is_asked_once() {
    let stage = stage("").await;
    let all = futures_util::future::join_all((0..20).map(|_| ask(&stage, "/x", "ada", PASSWORD))).await;
    for reply in all {
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.echoed("x-forwarded-user").as_deref(), Some("248289761001"));
        assert_eq!(reply.echoed("authorization"), None, "the password is not the application's");
        assert!(reply.header("set-cookie").is_none());
    }
    assert_eq!((stage.provider.count(Endpoint::Token), stage.provider.count(Endpoint::Userinfo)), (1, 1));
    let form = stage.provider.token_calls()[0].form.clone();
    for (name, value) in [("grant_type", "password"), ("username", "ada"), ("password", PASSWORD), ("scope", "openid")]
    {
        assert!(form.contains(&(name.into(), value.into())), "{name}");
    }
    // Asked again once the verdict is old.
    stage.clock.advance(Duration::from_secs(300));
    assert_eq!(ask(&stage, "/optional/x", "ada", PASSWORD).await.status, 200);
    assert_eq!(stage.provider.count(Endpoint::Token), 2);
    stage.upstream.forget();
    assert_eq!(ask(&stage, "/admin/x", "ada", PASSWORD).await.status, 403);
    assert_refused(&stage, &ask(&stage, "/vault", "ada", PASSWORD).await, 401, "insufficient_proof");
    // Where the route passes it on, it is the application's to look at.
    let reply = ask(&stage, "/basic", "somebody", "else").await;
    assert_eq!((reply.status.as_u16(), reply.echoed("x-forwarded-user")), (200, None));
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_who_guesses_has_few_turns() {
    let stage = stage("").await;
    for path in ["/x", "/optional/x"] {
        assert_refused(&stage, &ask(&stage, path, "ada", "wrong").await, 401, "password_refused");
    }
    assert_eq!(stage.provider.count(Endpoint::Token), 1, "the same once more is known");
    let mut refused = 0;
    for turn in 0..20 {
        // Whatever the name is written like.
        let name = ["ada", "ADA", " Ada "][turn % 3];
        let reply = ask(&stage, "/x", name, &format!("guess {turn}")).await;
        if reply.status == 429 {
            assert!(reply.header("retry-after").is_some());
            assert_refused(&stage, &reply, 429, "too_many_passwords");
            refused += 1;
        }
    }
    assert_eq!((stage.provider.count(Endpoint::Token), refused), (10, 11));
    // Another name is another matter.
    assert_refused(&stage, &ask(&stage, "/x", "grace", "x").await, 401, "password_refused");
}

/// Whatever word the provider has for it, a guess is a guess.
#[tokio::test]
async fn a_wrong_password_that_is_denied_in_another_word_costs_a_turn_too() {
    let stage = stage("").await;
    stage.provider.faults(|faults| faults.denies = true);
    for guess in 0..10 {
        assert_refused(&stage, &ask(&stage, "/x", "ada", &format!("guess {guess}")).await, 401, "password_refused");
    }
    assert_refused(&stage, &ask(&stage, "/x", "ada", "one more").await, 429, "too_many_passwords");
    assert_eq!((stage.provider.count(Endpoint::Token), stage.provider.count(Endpoint::Userinfo)), (10, 0));
}

#[tokio::test]
async fn whoever_knows_only_a_name_locks_nobody_out() {
    let stage = Stage::with(&format!("trusted_proxies = [\"127.0.0.1\"]\n{ON}"));
    stage.wait_for_provider().await;
    stage.provider.set_password("ada", PASSWORD);
    let from = |address: &str, password: &str| {
        let request = request(&stage, "/x", &basic("ada", password)).header("x-forwarded-for", address);
        let browser = stage.browser();
        async move { browser.send(request).await }
    };
    let guess_until_held = async |address: &str| {
        for number in 0..60 {
            if from(address, &format!("guess {number} of {address}")).await.status == 429 {
                return;
            }
        }
        panic!("{address} was never held");
    };
    guess_until_held("192.0.2.66").await;
    // From elsewhere, of a password that nobody has seen yet.
    assert_eq!(from("198.51.100.7", PASSWORD).await.status, 200);
    // From everywhere: what was right goes on, also beside whoever guesses, and once its verdict is old.
    for host in 0..10 {
        guess_until_held(&format!("192.0.2.{host}")).await;
    }
    stage.clock.advance(Duration::from_secs(400));
    for address in ["198.51.100.7", "192.0.2.66", "203.0.113.5"] {
        assert_eq!(from(address, PASSWORD).await.status, 200, "{address}");
    }
    stage.upstream.forget();
    // Changed at the provider, it is a guess like any other.
    stage.provider.set_password("ada", "another");
    stage.clock.advance(Duration::from_secs(400));
    assert_refused(&stage, &from("203.0.113.5", PASSWORD).await, 401, "password_refused");
}

#[tokio::test]
async fn one_address_has_few_turns_for_all_names() {
    let stage = Stage::with(&format!("trusted_proxies = [\"127.0.0.1\"]\n{ON}"));
    stage.wait_for_provider().await;
    let from = |address: &'static str, number: usize| {
        request(&stage, "/x", &basic(&format!("name-{number}"), "x")).header("x-forwarded-for", address)
    };
    let mut codes = Vec::new();
    for number in 0..30 {
        codes.push(stage.browser().send(from("192.0.2.7", number)).await.status.as_u16());
    }
    assert!(codes[..20].iter().all(|code| *code == 401) && codes[29] == 429, "{codes:?}");
    assert_eq!(stage.browser().send(from("192.0.2.8", 99)).await.status, 401, "another address has its own");
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn a_token_that_is_over_at_once_costs_one_question_for_each_request() {
    let stage = stage("").await;
    stage.provider.set_token_life(Some(0));
    for calls in 1..=3 {
        ask(&stage, "/x", "ada", PASSWORD).await;
        assert_eq!(stage.provider.count(Endpoint::Token), calls);
    }
}

#[tokio::test]
async fn nothing_of_a_browser_gets_in_by_a_password() {
    let stage = stage("").await;
    for (name, value) in [
        ("origin", stage.origin()),
        ("origin", "null".to_owned()),
        ("sec-fetch-site", "none".to_owned()),
        ("sec-fetch-mode", "navigate".to_owned()),
    ] {
        let reply = stage.browser().send(request(&stage, "/x", &basic("ada", PASSWORD)).header(name, &value)).await;
        assert_refused(&stage, &reply, 403, "password_from_browser");
    }
    assert_eq!(stage.provider.count(Endpoint::Token), 0);
    // Beside a session, good or not, it is not clear who asks.
    let browser = stage.signed_in_browser().await;
    let cookies = browser.cookie_line(&stage.url("/"));
    let calls = stage.provider.count(Endpoint::Token);
    for line in [cookies.as_str(), "vestibule=x"] {
        let reply = stage.browser().send(request(&stage, "/x", &basic("ada", PASSWORD)).header("cookie", line)).await;
        assert_refused(&stage, &reply, 400, "password_beside_session");
    }
    assert_eq!(stage.provider.count(Endpoint::Token), calls);
}

#[tokio::test]
async fn what_is_no_name_and_password_never_reaches_the_provider() {
    let stage = stage("").await;
    let long = basic("ada", &"x".repeat(3000));
    for bad in ["Basic", "Basic !", "Basic YWRh", &basic("", "x"), &basic("ada", ""), &basic("a\nb", "x"), &long] {
        let reply = stage.browser().send(request(&stage, "/x", bad)).await;
        assert_refused(&stage, &reply, 400, "password_malformed");
    }
    let twice = request(&stage, "/x", &basic("ada", PASSWORD)).append_header("authorization", &basic("ada", "x"));
    assert_refused(&stage, &stage.browser().send(twice).await, 400, "password_malformed");
    assert_eq!(stage.provider.count(Endpoint::Token), 0);
}

#[tokio::test]
async fn nobody_is_let_in_before_the_id_token_holds() {
    for fault in [
        IdTokenFault::WrongKey,
        IdTokenFault::AlgNone,
        IdTokenFault::WrongAudience,
        IdTokenFault::WrongIssuer,
        IdTokenFault::Expired,
        IdTokenFault::WrongAccessTokenHash,
    ] {
        let stage = stage("").await;
        stage.provider.faults(|faults| faults.id_token = Some(fault));
        let reply = ask(&stage, "/x", "ada", PASSWORD).await;
        assert!(reply.status == 502 && reply.json()["code"].as_str().is_some_and(|code| code.starts_with("id_token_")));
        assert_eq!(stage.provider.count(Endpoint::Userinfo), 0, "{fault:?}");
        stage.upstream.assert_untouched();
    }
    let stage = stage("").await;
    stage.provider.faults(|faults| faults.id_token = Some(IdTokenFault::Missing));
    assert_refused(&stage, &ask(&stage, "/x", "ada", PASSWORD).await, 502, "password_answer");
    stage.provider.heal();
    stage.clock.advance(Duration::from_secs(15));
    stage.provider.faults(|faults| faults.userinfo = Some(UserinfoFault::OtherSubject));
    assert_refused(&stage, &ask(&stage, "/x", "ada", PASSWORD).await, 502, "password_answer");
    stage.provider.heal();
    stage.clock.advance(Duration::from_secs(15));
    stage.provider.falsify("nonce", json!("of-a-sign-in"));
    assert_eq!(ask(&stage, "/x", "ada", PASSWORD).await.json()["code"], "id_token_nonce");
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn a_provider_that_is_away_or_refuses_us_lets_nobody_in() {
    let stage = stage("").await;
    stage.provider.faults(|faults| faults.token = Some(TokenFault::ServerError));
    let reply = ask(&stage, "/x", "ada", PASSWORD).await;
    assert_eq!(reply.header("retry-after"), Some("5"));
    assert_refused(&stage, &reply, 503, "password_unavailable");
    stage.clock.advance(Duration::from_secs(2));
    stage.provider.faults(|faults| faults.token = Some(TokenFault::InvalidClient));
    assert_refused(&stage, &ask(&stage, "/x", "ada", PASSWORD).await, 502, "password_answer");
    stage.provider.heal();
    stage.clock.advance(Duration::from_secs(15));
    assert_eq!(ask(&stage, "/x", "ada", PASSWORD).await.status, 200);
}

#[tokio::test]
async fn where_it_is_off_a_password_is_nobody() {
    let stage = Stage::start();
    stage.wait_for_provider().await;
    stage.provider.set_password("ada", PASSWORD);
    assert_eq!(ask(&stage, "/x", "ada", PASSWORD).await.status, 401);
    assert_eq!(stage.provider.count(Endpoint::Token), 0);
    stage.upstream.assert_untouched();
}

#[test]
fn it_warns_and_stands_beside_nothing_that_it_contradicts() {
    let secret = config::generate_secret().unwrap();
    let rest = format!("[session]\nsecret = \"{secret}\"\n[upstream]\nurl = \"http://127.0.0.1:3000\"\n");
    let one = |name: &str| {
        format!(
            "[{name}]\nissuer = \"https://{name}.example.com\"\nclient_id = \"app\"\nclient_secret = \"s3cr3t-{name}\"\n\
             redirect_uri = \"https://app.example.com/auth/{name}\"\ninsecure_password_grant = true\n"
        )
    };
    let loaded = config::load(&Sources::toml(&(one("provider") + &rest))).unwrap_or_else(|all| panic!("{all:?}"));
    assert!(loaded.warnings.iter().any(|warning| warning.to_string().contains("RFC 9700 forbids")));
    let told = |text: String| match config::load(&Sources::toml(&text)) {
        Ok(_) => String::new(),
        Err(problems) => problems.iter().map(|problem| format!("{problem}\n")).collect::<String>(),
    };
    let several = told(one("providers.a") + &one("providers.b") + &rest);
    assert!(several.contains("a password does not say whose it is"), "{several}");
    let fapi2 = told(one("provider") + "profile = \"fapi2\"\n" + &rest);
    assert!(fapi2.contains("insecure_password_grant contradicts profile"), "{fapi2}");
}
