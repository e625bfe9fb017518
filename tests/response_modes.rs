//! However the answer comes back, what is in it is believed only in the way that was asked for, from whoever was asked.

use http::{Method, StatusCode};
use vestibule_test_support::{Browser, Endpoint, Reply, Request, ResponseFault, Stage, json};

fn stage(lines: &str) -> Stage {
    Stage::with(&format!("[provider]\n{lines}\n"))
}

const FORM_POST: &str = "response_mode = \"form_post\"";
const HYBRID: &str = "response_type = \"code id_token\"";

/// The page at the provider that posts itself.
async fn at_provider(stage: &Stage, browser: &Browser) -> Reply {
    let challenge = browser.get(&stage.url("/there?x=1")).await;
    browser.step(&challenge).await
}

#[tokio::test]
async fn every_way_back_ends_on_the_page_asked_for() {
    for lines in [
        "response_mode = \"query\"",
        FORM_POST,
        "response_mode = \"jwt\"",
        "response_mode = \"query.jwt\"",
        "response_mode = \"form_post.jwt\"",
        HYBRID,
        "response_type = \"code id_token\"\nresponse_mode = \"jwt\"",
    ] {
        let stage = stage(lines);
        let landed = stage.sign_in(&stage.browser(), "/there?x=1").await;
        assert_eq!(landed.status, StatusCode::OK, "{lines}: {}", landed.text());
        assert_eq!(landed.json()["target"], "/there?x=1", "{lines}");
        assert_eq!(landed.echoed("x-forwarded-user").as_deref(), Some("248289761001"), "{lines}");
        assert_eq!(stage.provider.token_calls().len(), 1, "{lines}");
    }
}

#[tokio::test]
async fn the_cookie_for_posts_from_the_providers_site_lives_for_minutes_and_holds_no_session() {
    let stage = stage(FORM_POST);
    let browser = stage.browser();
    let challenge = browser.get(&stage.url("/")).await;
    let [line] = &challenge.set_cookies()[..] else { panic!("{:?}", challenge.set_cookies()) };
    let line = line.to_ascii_lowercase();
    for part in ["vestibule.post=", "; samesite=none", "; secure", "; httponly", "; max-age=600", "; path=/"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    let landed = browser.follow_reply(challenge, 10).await;
    assert_eq!(landed.status, StatusCode::OK);
    let others: Vec<_> = browser.all_cookies().into_iter().filter(|cookie| cookie.name != "vestibule.post").collect();
    assert!(others.len() >= 2 && others.iter().all(|cookie| cookie.same_site == "lax"), "{others:?}");
}

/// Whoever asked for a form must not be handed a code in a URL, which ends in logs, and the other way round.
#[tokio::test]
async fn an_answer_in_another_mode_than_was_asked_for_is_refused() {
    let stage = stage(FORM_POST);
    stage.provider.faults(|faults| faults.response = Some(ResponseFault::OtherMode));
    let reply = stage.sign_in(&stage.browser(), "/").await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    assert_untouched(&stage);

    let stage = Stage::start();
    let browser = stage.browser();
    let start = browser.get(&stage.url("/there")).await;
    let mut callback = browser.step(&start).await.location();
    let fields: Vec<_> = callback.query_pairs().into_owned().collect();
    let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    callback.set_query(None);
    let page = stage.provider.issuer();
    let reply = browser.submit(&page, callback.as_str(), &fields).await;
    assert_eq!((reply.status, reply.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, Some("GET")));
    assert_untouched(&stage);
}

fn assert_untouched(stage: &Stage) {
    assert_eq!(stage.provider.count(Endpoint::Token) + stage.provider.count(Endpoint::Userinfo), 0);
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn a_signed_answer_of_somebody_else_for_somebody_else_or_of_another_time_is_refused() {
    for fault in [
        ResponseFault::JwtIssuer,
        ResponseFault::JwtNoIssuer,
        ResponseFault::JwtAudience,
        ResponseFault::JwtNoAudience,
        ResponseFault::JwtAudiences,
        ResponseFault::JwtExpired,
        ResponseFault::JwtNoExpiry,
        ResponseFault::JwtUnsigned,
        ResponseFault::JwtWrongKey,
        ResponseFault::JwtBesideOtherIssuer,
        ResponseFault::OtherMode,
    ] {
        let stage = stage("response_mode = \"jwt\"");
        stage.provider.faults(|faults| faults.response = Some(fault));
        let reply = stage.sign_in(&stage.browser(), "/").await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{fault:?}: {}", reply.text());
        assert_untouched(&stage);
    }
}

/// RFC 9207 §2.4: the `iss` in the token says it; one beside it that is the same does no harm.
#[tokio::test]
async fn a_signed_answer_beside_its_own_issuer_is_taken() {
    let stage = stage("response_mode = \"jwt\"");
    stage.provider.faults(|faults| faults.response = Some(ResponseFault::JwtBesideIssuer));
    assert_eq!(stage.sign_in(&stage.browser(), "/").await.status, StatusCode::OK);
}

/// JARM §3: an algorithm of its own at the provider.
#[tokio::test]
async fn signed_answers_have_algorithms_of_their_own() {
    use vestibule_test_support::IdTokenFault;
    const JARM: &str = "response_mode = \"jwt\"\n";
    let named = stage(&format!("{JARM}authorization_signing_algs = [\"ES256\"]"));
    let reply = named.sign_in(&named.browser(), "/").await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{}", reply.text());
    assert_untouched(&named);
    // ID tokens by the secret, the rest by a key that has to be fetched first.
    let mixed = stage(&format!("{JARM}signing_algs = [\"HS256\"]"));
    mixed.provider.faults(|faults| faults.id_token = Some(IdTokenFault::Hs256WithClientSecret));
    assert_eq!(mixed.sign_in(&mixed.browser(), "/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_id_token_that_does_not_belong_to_its_code_is_refused_before_the_code_is_redeemed() {
    for fault in [
        ResponseFault::MissingIdToken,
        ResponseFault::MissingCodeHash,
        ResponseFault::WrongCodeHash,
        ResponseFault::WrongNonceInFront,
    ] {
        let stage = stage(HYBRID);
        stage.provider.faults(|faults| faults.response = Some(fault));
        let reply = stage.sign_in(&stage.browser(), "/").await;
        assert_eq!(reply.status, StatusCode::BAD_GATEWAY, "{fault:?}: {}", reply.text());
        assert_untouched(&stage);
    }
}

/// Core §3.3.3.6: `iss` and `sub` of both ID tokens are the same.
#[tokio::test]
async fn two_id_tokens_about_two_people_are_refused_before_userinfo_is_asked() {
    let stage = stage(HYBRID);
    stage.provider.faults(|faults| faults.response = Some(ResponseFault::OtherSubjectInFront));
    let reply = stage.sign_in(&stage.browser(), "/").await;
    assert_eq!(reply.status, StatusCode::BAD_GATEWAY, "{}", reply.text());
    assert_eq!(stage.provider.count(Endpoint::Userinfo), 0);
    stage.upstream.assert_untouched();
}

/// Core §3.3.3.6: what both say is the same in both.
#[tokio::test]
async fn two_id_tokens_that_contradict_each_other_are_refused_before_userinfo_is_asked() {
    for (name, value) in [
        ("auth_time", json!(1)),
        ("acr", json!("gold")),
        ("azp", json!("vestibule-test")),
        ("email", json!("grace@example.com")),
        ("email_verified", json!(false)),
        ("preferred_username", json!("grace")),
    ] {
        let stage = stage(HYBRID);
        stage.provider.falsify("acr", json!("silver"));
        // The same is no contradiction.
        stage.provider.faults(|faults| drop(faults.front_claims.insert(name.to_owned(), value.clone())));
        let reply = stage.sign_in(&stage.browser(), "/").await;
        if name == "azp" {
            assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
            continue;
        }
        assert_eq!(reply.status, StatusCode::BAD_GATEWAY, "{name}: {}", reply.text());
        let metrics = stage.browser().fetch(&stage.admin_url("/metrics")).await.text();
        assert!(metrics.contains("\"id_token_contradictory\""), "{name}: {metrics}");
        assert_eq!(stage.provider.count(Endpoint::Userinfo), 0);
        stage.upstream.assert_untouched();
    }
    let stage = stage(HYBRID);
    stage.provider.faults(|faults| {
        for name in ["email", "preferred_username", "auth_time"] {
            faults.front_claims.insert(name.to_owned(), json!(null));
        }
        faults.front_claims.insert("uti".to_owned(), json!("of this token alone"));
    });
    assert_eq!(stage.sign_in(&stage.browser(), "/").await.status, StatusCode::OK, "what only one says");
}

/// RFC 9207 §2.4: an ID token says whose answer it is only where it is verified, and on an error nobody does.
#[tokio::test]
async fn an_error_beside_an_id_token_still_has_to_say_whose_it_is() {
    let stage = stage(HYBRID);
    let browser = stage.browser();
    let page = at_provider(&stage, &browser).await;
    let mut form = page.posting_form().unwrap();
    form.fields.retain(|(name, _)| name == "id_token" || name == "state");
    form.fields.push(("error".to_owned(), "temporarily_unavailable".to_owned()));
    let reply = browser.post(&page, &form).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{}", reply.text());
    assert_untouched(&stage);
}

#[tokio::test]
async fn a_form_of_another_browser_or_of_none_is_never_redeemed() {
    let stage = stage(FORM_POST);
    let page = at_provider(&stage, &stage.browser()).await;
    let form = page.posting_form().unwrap();
    let stranger = stage.browser();
    let reply = stranger.post(&page, &form).await;
    assert_eq!(reply.location().origin().ascii_serialization(), stage.provider.issuer(), "a fresh sign-in");
    assert_untouched(&stage);
    let browser = stage.browser();
    at_provider(&stage, &browser).await;
    browser.post(&page, &form).await;
    assert_untouched(&stage);
}

#[tokio::test]
async fn a_form_that_is_none_or_can_be_read_in_two_ways_is_refused() {
    let stage = stage(FORM_POST);
    let browser = stage.browser();
    let form = at_provider(&stage, &browser).await.posting_form().unwrap();
    let fields: Vec<_> = form.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let post = |fields: &[(&str, &str)]| Request::navigation(Method::POST, form.action.as_str()).form(fields);
    let send = |request: Request| browser.send(request.from_page("http://127.0.0.1:1/"));
    for name in ["code", "state", "iss"] {
        let twice: Vec<_> = fields.iter().copied().chain([(name, "x")]).collect();
        assert_eq!(send(post(&twice)).await.status, StatusCode::BAD_REQUEST, "{name}");
    }
    let json = post(&fields).header("content-type", "application/json").body(json!({ "code": "x" }).to_string());
    assert_eq!(send(json).await.status, StatusCode::BAD_REQUEST);
    let large = "x".repeat(100_000);
    assert_eq!(send(post(&[("code", &large)])).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    let mut in_query = form.action.clone();
    in_query.query_pairs_mut().extend_pairs(&fields);
    let empty = Request::navigation(Method::POST, in_query.as_str()).form(&[]);
    assert_eq!(send(empty).await.status, StatusCode::BAD_REQUEST, "the query is no form");
    assert_untouched(&stage);
    let landed = browser.follow_reply(send(post(&fields)).await, 5).await;
    assert_eq!(landed.json()["target"], "/there?x=1", "what was refused has spent nothing");
}

#[tokio::test]
async fn a_provider_that_does_not_offer_the_mode_is_named_in_the_refusal() {
    let stage = Stage::builder().toml(&format!("[provider]\n{FORM_POST}\n")).without_provider();
    let provider = {
        let clock = vestibule_test_support::TestClock::default();
        let provider = std::sync::Arc::new(vestibule_test_support::FakeProvider::start(clock.clone()));
        provider.set_metadata("response_modes_supported", json!(["query"]));
        (provider, clock)
    };
    let stage = stage.provider(provider.0).clock(provider.1).start();
    stage.wait_for_provider().await;
    let reply = stage.browser().get(&stage.url("/")).await;
    assert_eq!(reply.status, StatusCode::BAD_GATEWAY, "{}", reply.text());
    assert!(reply.text().contains("does not offer"), "{}", reply.text());
    assert_untouched(&stage);
}
