//! Several providers side by side: whoever may choose chooses, a route may insist on one, and no answer of one is ever taken
//! for another's.

use std::sync::Arc;

use http::{Method, StatusCode};
use url::Url;
use vestibule_test_support::{Browser, Endpoint, FakeProvider, Reply, Request, Stage, StageBuilder, TestClock, json};

/// A stage with two providers: `company`, the stage's own, and `partner`.
pub(crate) struct Two {
    pub(crate) stage: Stage,
    partner: Arc<FakeProvider>,
}

impl Two {
    fn start(toml: &str) -> Self {
        Self::build(toml, Stage::builder())
    }

    pub(crate) fn build(toml: &str, builder: StageBuilder) -> Self {
        let clock = TestClock::default();
        let company = Arc::new(FakeProvider::start(clock.clone()));
        let partner = Arc::new(FakeProvider::start(clock.clone()));
        partner.set_user(json!({ "sub": "p-1", "preferred_username": "ada", "email": "eve@partner.example",
            "email_verified": true, "groups": ["/admins"] }));
        let unset = "issuer = unset\nclient_id = unset\nclient_secret = unset\nredirect_uri = unset\n";
        let section = |name: &str, provider: &FakeProvider, more: &str| {
            format!(
                "[providers.{name}]\nissuer = \"{}\"\nclient_id = \"{}\"\nclient_secret = \"{}\"\n{more}\n",
                provider.issuer(),
                provider.client_id(),
                provider.client_secret(),
            )
        };
        let toml = format!(
            "public_url = \"http://localhost:{{port}}\"\n[provider]\n{unset}{}{}{toml}",
            section("company", &company, "name = \"Company account\"\nemail_domains = [\"company.example\"]"),
            section("partner", &partner, "email_domains = [\"partner.example\"]"),
        );
        let stage = builder.clock(clock).provider(company).toml(&toml).start();
        Self { stage, partner }
    }

    fn browser(&self) -> Browser {
        self.stage.browser()
    }
}

/// The address of the link with this text.
pub(crate) fn link(page: &Reply, text: &str) -> String {
    let links = page.links();
    let found = links.iter().find(|(_, label)| label.contains(text));
    let (address, _) = found.unwrap_or_else(|| panic!("no link {text:?} among {links:?}"));
    page.url.join(address).unwrap().into()
}

#[tokio::test]
async fn a_person_chooses_one_of_several_providers_and_reaches_the_page_asked_for() {
    let two = Two::start("");
    for (name, provider) in [("Company account", &two.stage.provider), ("partner", &two.partner)] {
        let browser = two.browser();
        let page = browser.get(&two.stage.url("/hello?x=1")).await;
        assert_eq!(page.status, StatusCode::UNAUTHORIZED);
        assert_eq!(page.header("cache-control"), Some("no-store"));
        two.stage.upstream.assert_untouched();
        let landed = browser.follow(&link(&page, name), 10).await;
        assert_eq!((landed.status, landed.url.path()), (StatusCode::OK, "/hello"), "{}", landed.text());
        assert_eq!(provider.count(Endpoint::Token), 1, "{name}");
        two.stage.upstream.forget();
    }
}

#[tokio::test]
async fn each_provider_has_a_callback_of_its_own() {
    let two = Two::start("");
    let browser = two.browser();
    for (id, provider) in [("company", &two.stage.provider), ("partner", &two.partner)] {
        let start = browser.get(&two.stage.url(&format!("/auth/login?provider={id}"))).await;
        let location = start.location();
        assert_eq!(location.origin().ascii_serialization(), provider.issuer());
        let sent = location.query_pairs().find(|(name, _)| name == "redirect_uri").unwrap().1.into_owned();
        assert_eq!(sent, two.stage.url(&format!("/auth/callback/{id}")));
    }
}

/// RFC 9700 §4.4: what one provider answered is brought to the callback of another.
#[tokio::test]
async fn an_answer_at_the_callback_of_another_provider_is_never_redeemed() {
    let two = Two::start("");
    let browser = two.browser();
    let start = browser.get(&two.stage.url("/auth/login?provider=partner&rd=/there")).await;
    let answer = browser.step(&start).await.location();
    let mut moved = answer.clone();
    moved.set_path("/auth/callback/company");
    let reply = browser.get(moved.as_str()).await;
    assert_ne!(reply.status, StatusCode::SEE_OTHER, "{}", reply.text());
    for issuer in [two.stage.provider.issuer(), two.partner.issuer()] {
        let pairs: Vec<_> = answer.query_pairs().filter(|(name, _)| name != "iss").collect();
        let mut moved = Url::parse(&two.stage.url("/auth/callback/company")).unwrap();
        moved.query_pairs_mut().extend_pairs(pairs).append_pair("iss", &issuer);
        browser.get(moved.as_str()).await;
    }
    assert_eq!(two.stage.provider.count(Endpoint::Token) + two.partner.count(Endpoint::Token), 0);
    two.stage.upstream.assert_untouched();
    let page = browser.get(answer.as_str()).await;
    assert_eq!(page.location().path(), "/there", "at its own callback it still works");
}

#[tokio::test]
async fn a_route_that_names_a_provider_is_not_opened_by_a_session_of_another() {
    let routes = "[[routes]]\npath = \"/inner/*\"\nprovider = \"company\"\n";
    let two = Two::start(routes);
    let browser = two.browser();
    let landed = browser.follow(&two.stage.url("/auth/login?provider=partner"), 10).await;
    assert_eq!(landed.status, StatusCode::OK, "{}", landed.text());
    two.stage.upstream.forget();

    let refused = browser.send(Request::fetch(http::Method::GET, &two.stage.url("/inner/x"))).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (StatusCode::UNAUTHORIZED, Some("other_provider")));
    two.stage.upstream.assert_untouched();
    let landed = browser.follow(&two.stage.url("/inner/x"), 10).await;
    assert_eq!((landed.status, landed.url.path()), (StatusCode::OK, "/inner/x"), "{}", landed.text());
    assert_eq!(two.stage.provider.count(Endpoint::Token), 1);
}

#[tokio::test]
async fn a_host_chooses_the_provider() {
    let routes = "[[routes]]\nhost = \"localhost\"\nprovider = \"company\"\n\
                  [[routes]]\nhost = \"partner.example\"\nprovider = \"partner\"\n\
                  [[routes]]\nhost = \"both.example\"\nprovider = [\"company\", \"partner\"]\n";
    let two = Two::start(routes);
    let browser = two.browser();
    let start = browser.get(&two.stage.url("/x")).await;
    assert_eq!(start.location().origin().ascii_serialization(), two.stage.provider.issuer());
    // People sign in where the cookies live, at the provider of the host that they came to.
    let port = two.stage.address().port();
    for (host, provider) in [("partner.example", Some(two.partner.issuer())), ("both.example", None)] {
        let alias = format!("http://{host}:{port}");
        browser.connect(&alias, two.stage.address());
        let away = browser.get(&format!("{alias}/x?y=1")).await;
        assert_eq!(away.location().origin().ascii_serialization(), two.stage.origin(), "{host}");
        let named = away.location().query_pairs().any(|(name, value)| name == "provider" && value == "partner");
        assert_eq!(named, provider.is_some(), "{host}");
        if let Some(provider) = provider {
            let start = browser.step(&away).await;
            assert_eq!(start.location().origin().ascii_serialization(), provider, "{host}");
        }
    }
    two.stage.upstream.assert_untouched();
}

#[tokio::test]
async fn an_email_address_leads_to_the_provider_of_its_domain() {
    let two = Two::start("");
    let browser = two.browser();
    let ask = |email: &str| {
        let mut url = Url::parse(&two.stage.url("/auth/login")).unwrap();
        url.query_pairs_mut().append_pair("email", email).append_pair("rd", "/there");
        url.to_string()
    };
    let start = browser.get(&ask(" eve@PARTNER.example ")).await;
    let location = start.location();
    assert_eq!(location.origin().ascii_serialization(), two.partner.issuer());
    assert!(location.query_pairs().any(|(name, value)| name == "login_hint" && value == "eve@PARTNER.example"));

    for email in
        ["eve@evil.example@partner.example", "eve@sub.partner.example", "partner.example", "@partner.example", ""]
    {
        let page = browser.get(&ask(email)).await;
        assert_eq!(page.status, StatusCode::OK, "{email}");
        assert!(page.text().contains("No sign-in service is known"), "{email}: {}", page.text());
    }
}

#[tokio::test]
async fn a_provider_that_is_not_there_is_a_plain_refusal() {
    let two = Two::start("");
    for query in
        ["provider=nobody", "provider=", "provider=company&provider=partner", "email=a@b.example&email=c@d.example"]
    {
        let reply = two.browser().get(&two.stage.url(&format!("/auth/login?{query}"))).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{query}");
        assert!(reply.set_cookies().is_empty(), "{query}");
    }
    assert_eq!(two.stage.provider.count(Endpoint::Authorize) + two.partner.count(Endpoint::Authorize), 0);
}

/// `ada` at the partner is somebody else.
#[tokio::test]
async fn roles_of_a_name_are_for_that_name_at_one_provider() {
    let toml = "[identity]\nname_claim = \"preferred_username\"\nroles_claims = []\n\
                [identity.individual_roles]\n\"company:ada\" = [\"auditor\"]\n\
                [identity.headers]\n\"X-Name\" = \"name\"\n\"X-Roles\" = \"roles\"\n\"X-Provider\" = \"provider\"\n";
    let two = Two::start(toml);
    for (id, roles) in [("company", Some("auditor")), ("partner", None)] {
        let landed = two.browser().follow(&two.stage.url(&format!("/auth/login?provider={id}&rd=/me")), 10).await;
        assert_eq!(landed.echoed("x-name").as_deref(), Some("ada"), "{}", landed.text());
        assert_eq!(landed.echoed("x-roles").as_deref(), roles);
        assert_eq!(landed.echoed("x-provider").as_deref(), Some(id));
    }
}

#[tokio::test]
async fn turns_of_a_user_are_those_of_one_person_at_one_provider() {
    let toml = "[identity]\nname_claim = \"preferred_username\"\n\
                [[routes]]\npath = \"/few\"\nrate_limit = { per = \"user\", rate = \"1/h\" }\n";
    let two = Two::start(toml);
    for id in ["company", "partner"] {
        let browser = two.browser();
        browser.follow(&two.stage.url(&format!("/auth/login?provider={id}&rd=/x")), 10).await;
        assert_eq!(browser.fetch(&two.stage.url("/few")).await.status, StatusCode::OK, "{id}");
        assert_eq!(browser.fetch(&two.stage.url("/few")).await.status, StatusCode::TOO_MANY_REQUESTS, "{id}");
    }
}

const STRONG: &str = "[[routes]]\npath = \"/vault\"\nrequire = { acr = [\"gold\"], max_age = \"5m\" }\n\
                      [[routes]]\npath = \"/inner\"\nprovider = \"company\"\nrequire = { acr = \"gold\" }\n\
                      [[routes]]\npath = \"/fresh\"\nmax_identity_age = \"1h\"\n";

/// Another provider would make another person of them.
#[tokio::test]
async fn a_sign_in_that_is_too_weak_or_too_old_is_renewed_at_the_provider_of_the_session() {
    let two = Two::start(STRONG);
    two.partner.offer_acr(&["gold"]);
    let browser = two.browser();
    browser.follow(&two.stage.url("/auth/login?provider=partner"), 10).await;
    let start = browser.get(&two.stage.url("/vault")).await;
    assert_eq!(start.status, StatusCode::FOUND, "{}", start.text());
    assert_eq!(start.location().origin().ascii_serialization(), two.partner.issuer());
    let landed = browser.follow_reply(start, 10).await;
    assert_eq!((landed.status, landed.url.path()), (StatusCode::OK, "/vault"), "{}", landed.text());
    two.stage.clock.advance(std::time::Duration::from_secs(3500));
    assert_eq!(browser.get(&two.stage.url("/")).await.status, StatusCode::OK);
    two.stage.clock.advance(std::time::Duration::from_secs(200));
    let start = browser.get(&two.stage.url("/fresh")).await;
    assert_eq!(start.location().origin().ascii_serialization(), two.partner.issuer());
    // A route that wants another provider wants another person, too.
    let start = browser.get(&two.stage.url("/inner")).await;
    assert_eq!(start.location().origin().ascii_serialization(), two.stage.provider.issuer());
    assert!(start.location().query_pairs().any(|(name, value)| name == "acr_values" && value == "gold"));
}

#[tokio::test]
async fn a_link_to_sign_in_asks_for_what_the_page_behind_it_demands() {
    let two = Two::start(STRONG);
    let browser = two.browser();
    let chooser = browser.get(&two.stage.url("/vault")).await;
    assert_eq!(chooser.status, StatusCode::UNAUTHORIZED);
    let asked = async |url: &str| {
        let location = two.browser().get(url).await.location();
        let value =
            |name: &str| location.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
        (location.origin().ascii_serialization(), value("acr_values"), value("max_age"))
    };
    let (company, partner) = (two.stage.provider.issuer(), two.partner.issuer());
    let (gold, age) = (Some("gold".to_owned()), Some("300".to_owned()));
    assert_eq!(asked(&link(&chooser, "partner")).await, (partner.clone(), gold.clone(), age.clone()));
    let query = "/auth/login?email=eve@partner.example&rd=/vault";
    assert_eq!(asked(&two.stage.url(query)).await, (partner.clone(), gold.clone(), age.clone()));
    let third = format!("/auth/login?iss={partner}&target_link_uri={}", two.stage.url("/vault?x=1"));
    assert_eq!(asked(&two.stage.url(&third)).await, (partner.clone(), gold.clone(), age));
    // Only one of them will do there.
    assert_eq!(asked(&two.stage.url("/auth/login?rd=/inner")).await, (company, gold, None));
    assert_eq!(asked(&two.stage.url("/auth/login?provider=partner&rd=/other")).await, (partner, None, None));
    two.stage.upstream.assert_untouched();
}

#[tokio::test]
async fn a_sign_in_that_failed_once_asks_for_as_much_the_second_time() {
    let two = Two::start(STRONG);
    let browser = two.browser();
    let start = browser.get(&two.stage.url("/auth/login?provider=partner&rd=/vault")).await;
    let answer = browser.step(&start).await.location();
    two.stage.clock.advance(std::time::Duration::from_secs(601));
    let again = browser.get(answer.as_str()).await;
    assert_eq!(again.location().origin().ascii_serialization(), two.partner.issuer());
    assert!(again.location().query_pairs().any(|(name, value)| name == "acr_values" && value == "gold"));
}

#[tokio::test]
async fn whoever_is_not_signed_in_is_not_signed_out_at_any_of_several_providers() {
    let two = Two::start("");
    let request = Request::navigation(http::Method::GET, &two.stage.url("/auth/logout")).from_page(&two.stage.url("/"));
    let reply = two.browser().send(request).await;
    assert_eq!((reply.status, reply.location().path()), (StatusCode::SEE_OTHER, "/auth/signed-out"));
    assert_eq!(reply.location().origin().ascii_serialization(), two.stage.origin());
}

#[tokio::test]
async fn a_sign_out_revokes_at_the_provider_of_the_session_alone() {
    let two = Two::start("");
    let browser = two.browser();
    browser.follow(&two.stage.url("/auth/login?provider=partner"), 10).await;
    browser
        .send(Request::navigation(http::Method::GET, &two.stage.url("/auth/logout")).from_page(&two.stage.url("/")))
        .await;
    for _ in 0..100 {
        if two.partner.revoked_tokens().len() >= 2 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!((two.partner.revoked_tokens().len(), two.stage.provider.count(Endpoint::Revocation)), (2, 0));
}

/// Two clients at one issuer: the token says for which of them it was made (RFC 9068 §2.2).
#[tokio::test]
async fn access_tokens_of_two_clients_at_one_issuer_are_told_apart() {
    let clock = TestClock::default();
    let provider = Arc::new(FakeProvider::start(clock.clone()));
    let section = |name: &str, client: &str| {
        format!(
            "[providers.{name}]\nissuer = \"{}\"\nclient_id = \"{client}\"\nclient_secret = \"s3cr3t-of-{name}\"\n",
            provider.issuer()
        )
    };
    let toml = format!(
        "public_url = \"http://localhost:{{port}}\"\n[provider]\nissuer = unset\nclient_id = unset\n\
         client_secret = unset\nredirect_uri = unset\n{}{}[bearer]\naccept = true\naudiences = [\"api\"]\n\
         [[routes]]\npath = \"/second\"\nprovider = \"second\"\n\
         [identity.headers]\n\"X-Provider\" = \"provider\"\n",
        section("first", "client-1"),
        section("second", "client-2"),
    );
    let stage = Stage::builder().clock(clock).provider(Arc::clone(&provider)).toml(&toml).start();
    let ask = async |path: &str, claims: serde_json::Value| {
        let token = provider.jwt_token(Some("at+jwt"), &claims);
        let request = Request::new(http::Method::GET, &stage.url(path));
        stage.browser().send(request.header("authorization", &format!("Bearer {token}"))).await
    };
    for (claims, whose) in [
        (json!({ "client_id": "client-1" }), "first"),
        (json!({ "client_id": "client-2" }), "second"),
        (json!({ "client_id": null, "scope": "x", "azp": "client-2" }), "second"),
        (json!({ "client_id": "a-machine" }), "first"),
    ] {
        let reply = ask("/x", claims.clone()).await;
        assert_eq!(reply.echoed("x-provider").as_deref(), Some(whose), "{claims}: {}", reply.text());
    }
    stage.upstream.forget();
    assert_eq!(ask("/second", json!({ "client_id": "client-1" })).await.status, StatusCode::UNAUTHORIZED);
    stage.upstream.assert_untouched();
    assert_eq!(ask("/second", json!({ "client_id": "client-2" })).await.status, StatusCode::OK);
}

#[tokio::test]
async fn one_provider_away_keeps_nobody_from_the_other() {
    let two = Two::start("");
    two.partner.take_down();
    let browser = two.browser();
    let landed = browser.follow(&two.stage.url("/auth/login?provider=company"), 10).await;
    assert_eq!(landed.status, StatusCode::OK, "{}", landed.text());
}

#[tokio::test]
async fn signing_out_ends_at_the_provider_of_the_session() {
    let two = Two::start("");
    let browser = two.browser();
    browser.follow(&two.stage.url("/auth/login?provider=partner"), 10).await;
    let reply = browser
        .send(Request::navigation(http::Method::GET, &two.stage.url("/auth/logout")).from_page(&two.stage.url("/")))
        .await;
    assert_eq!(reply.location().origin().ascii_serialization(), two.partner.issuer());
}

/// Both know a subject and a session of the same name.
#[tokio::test]
async fn a_logout_token_of_one_provider_ends_nothing_of_another() {
    let two = Two::start("");
    // Both begin with the same key.
    two.partner.rotate_keys();
    let claims = json!({ "sub": "same", "sid": "s1", "preferred_username": "ada" });
    two.stage.provider.set_user(claims.clone());
    two.partner.set_user(claims.clone());
    let company = two.browser();
    company.follow(&two.stage.url("/auth/login?provider=company"), 10).await;
    let partner = two.browser();
    partner.follow(&two.stage.url("/auth/login?provider=partner"), 10).await;
    let tell = async |token: String| {
        let request = Request::new(http::Method::POST, &two.stage.url("/auth/backchannel-logout"));
        two.browser().send(request.form(&[("logout_token", &token)])).await.status
    };
    // In the name of one, by the other's key.
    let stolen = json!({ "sub": "same", "iss": two.stage.provider.issuer() });
    assert_eq!(tell(two.partner.logout_token(&stolen)).await, StatusCode::BAD_REQUEST);
    for claims in [json!({ "sub": "same" }), json!({ "sid": "s1" })] {
        assert_eq!(tell(two.partner.logout_token(&claims)).await, StatusCode::OK);
    }
    assert_eq!(company.fetch(&two.stage.url("/")).await.status, StatusCode::OK);
    assert_eq!(partner.fetch(&two.stage.url("/")).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(tell(two.stage.provider.logout_token(&json!({ "sid": "s1" }))).await, StatusCode::OK);
    assert_eq!(company.fetch(&two.stage.url("/")).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_program_says_at_which_provider_its_person_answers() {
    let two = Two::start("[api_clients]\ngrants = [\"device_code\"]\n[bearer]\naccept = true\naudiences = [\"api\"]\n");
    two.stage.wait_for_provider().await;
    let ask = |path: &str, form: &[(&str, &str)]| {
        let request = Request::new(Method::POST, &two.stage.url(path)).form(form);
        let browser = two.browser();
        async move { browser.send(request).await }
    };
    for form in [&[][..], &[("provider", "other")][..]] {
        let reply = ask("/auth/device", form).await;
        assert_eq!((reply.status.as_u16(), reply.json()["error"].as_str()), (400, Some("invalid_request")));
    }
    let device = ask("/auth/device", &[("provider", "partner")]).await.json();
    two.partner.answer_device(device["user_code"].as_str().expect("a user code"), true);
    let code = device["device_code"].as_str().expect("a device code");
    let grant = ("grant_type", "urn:ietf:params:oauth:grant-type:device_code");
    let reply = ask("/auth/token", &[grant, ("device_code", code)]).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!((two.partner.count(Endpoint::Token), two.stage.provider.count(Endpoint::Token)), (1, 0));
    assert_eq!(two.stage.provider.count(Endpoint::Device), 0);
}
