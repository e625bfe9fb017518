//! The relying-party tests of the OpenID Foundation's conformance suite, module by module, and the story that shows each; those
//! that no other file tells are here. A module is named as the suite names it, without the words that all of a plan begin with.

use std::collections::BTreeSet;
use std::path::Path;

use http::StatusCode;
use vestibule_test_support::forge::Alg;
use vestibule_test_support::real::RealProvider;
use vestibule_test_support::{AuthorizeFault, ClientAuth, Endpoint, IdTokenFault, ResponseFault, Stage, Value, json};

// Each line: the file below `tests/`, the story in it, and the modules that it tells.

/// `oidcc-client-test-…`: sign-in, configuration, registration, key rotation, renewal, signed requests.
const CORE: &str = "\
login::a_person_signs_in_and_reaches_the_page_asked_for: (the plain one), discovery-openid-config
id_token_faults::a_token_with_another_nonce_is_refused: nonce-invalid
response_modes::an_id_token_that_does_not_belong_to_its_code_is_refused_before_the_code_is_redeemed: nonce-unless-code-flow, missing-chash, invalid-chash
client_auth::every_way_of_saying_who_we_are_is_the_one_that_is_configured: client-secret-basic
id_token_faults::claims_that_only_userinfo_has_reach_the_application: scope-userinfo-claims
conformance::a_token_that_names_no_key_is_held_against_the_only_one_and_against_each_of_several: kid-absent-single-jwks, kid-absent-multiple-jwks
id_token_faults::keys_that_nobody_can_use_are_skipped_alone: ignores-unparseable-key-in-jwks
id_token_faults::a_token_without_time_of_issue_is_refused: missing-iat
id_token_faults::a_token_without_audience_is_refused: missing-aud
id_token_faults::a_token_for_another_audience_is_refused: invalid-aud
id_token_faults::a_token_without_subject_is_refused: missing-sub
id_token_faults::a_token_of_another_issuer_is_refused: invalid-iss
id_token_faults::a_token_without_signature_is_refused: idtoken-sig-none
id_token_faults::every_asymmetric_algorithm_is_accepted: idtoken-sig-rs256, discovery-jwks-uri-keys
id_token_faults::a_token_with_one_bit_of_its_signature_flipped_is_refused: invalid-sig-rs256
conformance::a_wrong_signature_is_refused_in_every_algorithm_and_by_the_secret: invalid-sig-es256, invalid-sig-hs256
id_token_faults::userinfo_that_is_not_about_this_person_never_counts: userinfo-invalid-sub
conformance::userinfo_is_asked_with_the_token_in_the_header_and_nowhere_else: userinfo-bearer-header
provider_answers::signed_userinfo_is_the_issuers_and_for_us: signed-userinfo
id_token_faults::a_token_with_the_hash_of_another_access_token_is_refused: invalid-athash
conformance::an_error_that_is_posted_ends_on_a_page_and_is_not_asked_about_again: form-post-error
verification::aggregated_and_distributed_claims_are_never_fetched_and_never_taken_for_the_claims_they_name: aggregated-claims, distributed-claims
real/high_security::a_client_certificate_is_shown_where_it_is_wanted: mtls-endpoint-aliases
provider_faults::a_discovery_document_that_cannot_be_used_is_as_good_as_none: discovery-issuer-mismatch
registration::whoever_registers_itself_signs_people_in_and_stays_registered_over_a_restart: dynamic-registration
id_token_faults::a_rotated_key_is_fetched_when_its_first_token_comes: signing-key-rotation
verification::keys_that_change_again_and_again_within_the_interval_keep_nobody_from_signing_in_or_staying_so: signing-key-rotation-just-before-signing
renewal::an_access_token_is_renewed_ahead_of_its_end_and_the_browser_gets_the_new_session: refresh-token
renewal::a_renewed_id_token_of_somebody_else_ends_the_session_before_its_access_token_is_used: refresh-token-invalid-issuer, refresh-token-invalid-sub, refresh-token-invalid-aud, refresh-token-invalid-azp
request_objects::the_provider_fetches_the_request_and_the_browser_carries_its_address: request-uri-signed-rs256
initiated_login::a_portal_starts_a_sign_in_that_ends_on_the_page_it_names: 3rd-party-init-login
";

/// `oidcc-client-test-…`: signing out.
const LOGOUT: &str = "\
logout::the_state_of_a_sign_out_goes_with_it_and_counts_in_the_browser_that_began_it: rp-init-logout
conformance::a_sign_out_that_comes_back_without_its_state_or_with_another_is_at_its_end: rp-init-logout-no-state, rp-init-logout-other-state
frontchannel_logout::a_frame_ends_the_session_that_it_names_without_its_cookie: rp-frontchannel-rpinitlogout, rp-frontchannel-opinitlogout
backchannel_logout::a_session_ends_by_its_name_in_every_copy_of_its_cookie_and_nobody_elses_does: rp-backchannel-rpinitlogout
backchannel_logout::whatever_is_no_logout_token_ends_nothing: rp-backchannel-rpinitlogout-alg-none, rp-backchannel-rpinitlogout-wrong-alg, rp-backchannel-rpinitlogout-wrong-issuer, rp-backchannel-rpinitlogout-wrong-aud, rp-backchannel-rpinitlogout-no-event, rp-backchannel-rpinitlogout-wrong-event, rp-backchannel-rpinitlogout-with-nonce
";

/// `fapi2-security-profile-final-client-test-…`, and those of FAPI 2.0 Message Signing for signed answers.
const FAPI2: &str = "\
real/high_security::the_whole_profile_passes: happy-path
bound_tokens::the_high_security_profile_turns_everything_on: happy-path-no-dpop-nonce, remove-authorization-response-iss
provider_faults::a_discovery_document_that_cannot_be_used_is_as_good_as_none: discovery-issuer-mismatch
conformance::in_the_high_security_profile_everything_wrong_is_found_out_as_ever: invalid-iss, invalid-missing-iss, invalid-aud, invalid-missing-aud, invalid-secondary-aud, invalid-null-alg, invalid-expired-exp, invalid-missing-exp, invalid-nonce, invalid-missing-nonce, invalid-authorization-response-iss
conformance::in_the_high_security_profile_whatever_is_merely_unusual_passes: valid-aud-as-array, token-endpoint-response-without-expires_in, refresh-token-test
conformance::in_the_high_security_profile_no_algorithm_counts_but_its_own: invalid-alternate-alg
login::a_state_with_any_character_changed_is_not_redeemed: authorization-response-with-invalid-state-fails
login::a_code_without_state_is_not_redeemed: authorization-response-with-missing-state-fails
bound_tokens::tokens_are_asked_for_and_used_with_a_proof: token-type-case-insensitivity
bound_tokens::a_nonce_is_given_back_and_remembered: rs-dpop-auth-scheme-case-insensitivity
response_modes::a_signed_answer_of_somebody_else_for_somebody_else_or_of_another_time_is_refused: jarm-without-iss-fails, jarm-with-invalid-iss-fails, jarm-without-aud-fails, jarm-with-invalid-aud-fails, jarm-without-exp-fails, jarm-with-expired-exp-fails, jarm-with-invalid-sig-fails, jarm-signature-alg-is-not-none
";

/// What the suite has and this is not made for.
///
/// | module | why not |
/// |---|---|
/// | `discovery-webfinger-acct`, `discovery-webfinger-url` | people are known by the domains of the settings, no stranger's server is asked |
/// | `missing-athash` | for access tokens from the authorization endpoint, which are never asked for |
/// | `userinfo-bearer-body` | the header is the way that every provider takes |
/// | `request-uri-signed-none` | what is not signed proves nothing |
/// | `session-management` | see `README.md`, Logout |
/// | grant management, and profiles of one country's banks | no part of signing people in |
const _LEFT_OUT: () = ();

#[test]
fn every_module_of_the_suite_has_its_story() {
    let mut modules = BTreeSet::new();
    for (plan, line) in
        [CORE, LOGOUT, FAPI2].into_iter().enumerate().flat_map(|(n, plan)| plan.lines().map(move |line| (n, line)))
    {
        let (told, names) = line.split_once(": ").expect("a story and its modules");
        let (file, story) = told.split_once("::").expect("a file and a story");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(file).with_extension("rs");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let is_told = text.contains(&format!("async fn {story}(")) || text.contains(&format!("    {story}: "));
        assert!(is_told, "{names}: there is no story {story} in {file}.rs");
        for name in names.split(", ") {
            assert!(modules.insert((plan, name)), "{name} is told twice");
        }
    }
    assert_eq!(modules.len(), 85);
}

fn stage(lines: &str) -> Stage {
    Stage::with(&format!("[provider]\n{lines}\n"))
}

/// Refused on a page of ours, and nothing came of it.
async fn assert_refused(stage: &Stage, what: &str) {
    let asked = stage.provider.count(Endpoint::Userinfo);
    let browser = stage.browser();
    let page = browser.follow(&stage.url("/asked"), 12).await;
    assert!(page.status.is_client_error() || page.status.is_server_error(), "{what}: {}", page.status);
    assert_eq!(page.url.origin().ascii_serialization(), stage.origin(), "{what}");
    assert_eq!(stage.provider.count(Endpoint::Userinfo), asked, "{what}: userinfo was asked");
    assert_eq!(browser.fetch(&stage.url("/")).await.status, StatusCode::UNAUTHORIZED, "{what}: there is a session");
    stage.upstream.assert_untouched();
}

async fn assert_signs_in(stage: &Stage, what: &str) {
    let page = stage.sign_in(&stage.browser(), "/").await;
    assert_eq!(page.status, StatusCode::OK, "{what}: {}", page.text());
    stage.upstream.forget();
}

#[tokio::test]
async fn a_token_that_names_no_key_is_held_against_the_only_one_and_against_each_of_several() {
    for several in [false, true] {
        let stage = Stage::start();
        stage.provider.sign_with(Alg::Es256);
        stage.provider.faults(|faults| faults.keys_without_names = true);
        if several {
            stage.provider.publish_another_key();
        }
        assert_signs_in(&stage, &format!("several: {several}")).await;
        stage.provider.faults(|faults| faults.id_token = Some(IdTokenFault::WrongKey));
        assert_refused(&stage, "a key that is none of theirs").await;
    }
}

#[tokio::test]
async fn a_wrong_signature_is_refused_in_every_algorithm_and_by_the_secret() {
    for alg in Alg::ALL {
        let stage = Stage::start();
        stage.provider.sign_with(alg);
        for fault in [IdTokenFault::TamperedSignature, IdTokenFault::WrongKey] {
            stage.provider.faults(|faults| faults.id_token = Some(fault));
            assert_refused(&stage, &format!("{} {fault:?}", alg.name())).await;
        }
    }
    let stage = stage("signing_algs = [\"HS256\"]");
    for fault in [IdTokenFault::Hs256WithPublicKey, IdTokenFault::AlgNone] {
        stage.provider.faults(|faults| faults.id_token = Some(fault));
        assert_refused(&stage, &format!("registered for HS256: {fault:?}")).await;
    }
}

/// RFC 6750 §2.1.
#[tokio::test]
async fn userinfo_is_asked_with_the_token_in_the_header_and_nowhere_else() {
    let stage = Stage::start();
    assert_signs_in(&stage, "the header").await;
    let [request] = &stage.provider.requests_of(Endpoint::Userinfo)[..] else { panic!("one call") };
    assert!(request.headers["authorization"].to_str().is_ok_and(|value| value.starts_with("Bearer ")));
    assert!(request.query().is_empty() && request.body.is_empty(), "{request:?}");
}

/// OAuth 2.0 Form Post Response Mode §2: errors are posted, too.
#[tokio::test]
async fn an_error_that_is_posted_ends_on_a_page_and_is_not_asked_about_again() {
    for lines in ["response_mode = \"form_post\"", "response_type = \"code id_token\""] {
        let stage = stage(lines);
        stage.provider.faults(|faults| faults.authorize = Some(AuthorizeFault::AccessDenied));
        assert_refused(&stage, lines).await;
        assert_eq!(stage.provider.count(Endpoint::Authorize), 1, "{lines}");
        assert_eq!(stage.provider.count(Endpoint::Token), 0, "{lines}");
    }
}

/// RP-Initiated Logout §3: whoever is sent back is signed out already.
#[tokio::test]
async fn a_sign_out_that_comes_back_without_its_state_or_with_another_is_at_its_end() {
    for query in ["", "?state=of-somebody-else", "?state=AAAA&state=BBBB", "?state=%FF%00"] {
        let stage = stage("post_logout_redirect_uri = \"http://localhost:{port}/auth/signed-out\"");
        let browser = stage.signed_in_browser().await;
        let leaving = browser.get(&stage.url("/auth/logout?rd=/bye")).await;
        browser.step(&leaving).await;
        let page = browser.get(&stage.url(&format!("/auth/signed-out{query}"))).await;
        assert!(page.status == StatusCode::OK || page.status == StatusCode::BAD_REQUEST, "{query}: {}", page.status);
        assert!(page.header("location").is_none(), "{query}");
        stage.upstream.assert_untouched();
        stage.assert_signed_out(&browser).await;
    }
}

/// A provider that demands all of the profile and signs with PS256.
async fn high_security() -> Stage {
    let key = RealProvider::key_file("es256");
    let stage = stage(&format!("client_secret = unset\nprofile = \"fapi2\"\nclient_keys_files = [{key:?}]"));
    stage.provider.sign_with(Alg::Ps256);
    stage.provider.set_metadata("token_endpoint_auth_methods_supported", json!(["private_key_jwt"]));
    let stage = stage.restart();
    let keys = stage.browser().fetch(&stage.url("/auth/jwks")).await.json()["keys"].as_array().cloned();
    stage.provider.demand(|demands| {
        demands.client_keys = keys.expect("a key set");
        demands.auth = Some(ClientAuth::PrivateKeyJwt);
        (demands.pushed, demands.dpop) = (true, true);
    });
    stage
}

#[tokio::test]
async fn in_the_high_security_profile_everything_wrong_is_found_out_as_ever() {
    let stage = high_security().await;
    for fault in IdTokenFault::ALL {
        stage.provider.faults(|faults| faults.id_token = Some(fault));
        assert_refused(&stage, &format!("{fault:?}")).await;
    }
    stage.provider.heal();
    for (name, value) in [("iss", Value::Null), ("iss", json!(1)), ("exp", json!(stage.clock.unix() - 31))] {
        stage.provider.falsify(name, value.clone());
        assert_refused(&stage, &format!("{name}: {value}")).await;
        stage.provider.heal();
    }
    for fault in [AuthorizeFault::WrongIssuer, AuthorizeFault::MissingIssuer, AuthorizeFault::ErrorFromWrongIssuer] {
        stage.provider.faults(|faults| faults.authorize = Some(fault));
        let calls = stage.provider.token_calls().len();
        assert_refused(&stage, &format!("{fault:?}")).await;
        assert_eq!(stage.provider.token_calls().len(), calls, "{fault:?}: the code went to the wrong provider");
    }
    stage.provider.heal();
    assert_signs_in(&stage, "nothing lasting has happened").await;
}

/// FAPI 2.0 Security Profile §5.4.1.
#[tokio::test]
async fn in_the_high_security_profile_no_algorithm_counts_but_its_own() {
    let stage = high_security().await;
    for alg in Alg::ALL {
        stage.provider.sign_with(alg);
        match alg.name() {
            "PS256" | "ES256" | "EdDSA" => assert_signs_in(&stage, alg.name()).await,
            other => assert_refused(&stage, other).await,
        }
    }
}

#[tokio::test]
async fn in_the_high_security_profile_whatever_is_merely_unusual_passes() {
    let stage = high_security().await;
    stage.provider.falsify("aud", json!([stage.provider.client_id()]));
    assert_signs_in(&stage, "a list of one audience").await;
    stage.provider.heal();
    stage.provider.set_token_life(None);
    assert_signs_in(&stage, "an access token without an end").await;
    // Refresh tokens that are used once, with a proof each time.
    stage.provider.set_token_life(Some(300));
    let browser = stage.signed_in_browser().await;
    for round in 1..=2 {
        stage.clock.advance(std::time::Duration::from_secs(600));
        stage.assert_signed_in(&browser).await;
        vestibule_test_support::until("the renewal", async || stage.provider.refreshes() == round).await;
    }
    assert_eq!(stage.provider.reuse_alarms(), 0);
}

/// FAPI 2.0 Message Signing §5.4: the profile with signed answers.
#[tokio::test]
async fn in_the_high_security_profile_signed_answers_are_held_to_it_too() {
    let key = RealProvider::key_file("es256");
    for fault in
        [None, Some(ResponseFault::JwtNoIssuer), Some(ResponseFault::JwtUnsigned), Some(ResponseFault::OtherMode)]
    {
        let stage = stage(&format!(
            "client_secret = unset\nprofile = \"fapi2\"\nresponse_mode = \"jwt\"\nclient_keys_files = [{key:?}]"
        ));
        stage.provider.sign_with(Alg::Es256);
        stage.provider.set_metadata("token_endpoint_auth_methods_supported", json!(["private_key_jwt"]));
        let stage = stage.restart();
        let keys = stage.browser().fetch(&stage.url("/auth/jwks")).await.json()["keys"].as_array().cloned();
        stage.provider.demand(|demands| {
            demands.client_keys = keys.expect("a key set");
            demands.auth = Some(ClientAuth::PrivateKeyJwt);
            (demands.pushed, demands.dpop) = (true, true);
        });
        stage.provider.faults(|faults| faults.response = fault);
        match fault {
            None => assert_signs_in(&stage, "signed").await,
            Some(fault) => {
                assert_refused(&stage, &format!("{fault:?}")).await;
                assert_eq!(stage.provider.token_calls().len(), 0, "{fault:?}");
            }
        }
    }
}
