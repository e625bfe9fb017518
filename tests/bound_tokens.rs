//! Tokens that are bound to a key are asked for and used with a proof of it, and others are not taken in their place.

use http::StatusCode;
use vestibule_test_support::forge::{header_of, payload_of};
use vestibule_test_support::real::RealProvider;
use vestibule_test_support::{ClientAuth, Endpoint, ProviderRequest, Reply, Stage, TokenFault, Value, json, tempfile};

const DPOP: &str = "[provider]\ndpop = true\n";

fn bound(lines: &str) -> Stage {
    let stage = Stage::with(&format!("{DPOP}{lines}"));
    stage.provider.demand(|demands| demands.dpop = true);
    stage
}

fn proof(request: &ProviderRequest) -> String {
    let [proof] = &request.headers.get_all("dpop").iter().collect::<Vec<_>>()[..] else { panic!("one proof") };
    proof.to_str().expect("plain text").to_owned()
}

#[track_caller]
fn assert_refused(stage: &Stage, reply: &Reply, token_calls: usize) {
    assert_eq!(reply.status, StatusCode::BAD_GATEWAY, "{}", reply.text());
    assert_eq!(stage.provider.token_calls().len(), token_calls);
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn tokens_are_asked_for_and_used_with_a_proof() {
    let stage = bound("");
    let landed = stage.sign_in(&stage.browser(), "/there").await;
    assert_eq!(landed.status, StatusCode::OK, "{}", landed.text());
    let requests = [Endpoint::Token, Endpoint::Userinfo].map(|endpoint| stage.provider.requests_of(endpoint));
    let [[token], [userinfo]] = [&requests[0][..], &requests[1][..]] else { panic!("one call each: {requests:?}") };
    let (at_token, at_userinfo) = (proof(token), proof(userinfo));
    assert_eq!(header_of(&at_token)["alg"], "ES256");
    assert_eq!(header_of(&at_token)["jwk"], header_of(&at_userinfo)["jwk"]);
    assert!(payload_of(&at_token).get("ath").is_none() && payload_of(&at_userinfo).get("ath").is_some());
    let [authorize] = &stage.provider.requests_of(Endpoint::Authorize)[..] else { panic!("one request") };
    assert_eq!(authorize.query_value("dpop_jkt").map(|jkt| jkt.len()), Some(43));
}

#[tokio::test]
async fn a_nonce_is_given_back_and_remembered() {
    let stage = bound("");
    stage.provider.demand(|demands| demands.nonce = Some("first-nonce".to_owned()));
    for (sign_in, token_calls) in [(1, 2), (2, 3)] {
        let landed = stage.sign_in(&stage.browser(), "/").await;
        assert_eq!(landed.status, StatusCode::OK, "{sign_in}: {}", landed.text());
        assert_eq!(stage.provider.token_calls().len(), token_calls, "{sign_in}");
    }
    // It was learnt at the token endpoint, which is at the same server.
    assert_eq!(stage.provider.count(Endpoint::Userinfo), 2);
    stage.provider.demand(|demands| demands.nonce = Some("second-nonce".to_owned()));
    let landed = stage.sign_in(&stage.browser(), "/").await;
    assert_eq!(landed.status, StatusCode::OK, "{}", landed.text());
    assert_eq!(stage.provider.token_calls().len(), 5);
    let proofs: Vec<_> = stage.provider.requests_of(Endpoint::Token).iter().map(proof).collect();
    let used: Vec<_> = proofs.iter().map(|proof| payload_of(proof)["nonce"].clone()).collect();
    let nonces = [Value::Null, json!("first-nonce"), json!("first-nonce"), json!("first-nonce"), json!("second-nonce")];
    assert_eq!(used, nonces);
}

#[tokio::test]
async fn a_second_try_has_a_new_assertion_too() {
    let key = RealProvider::key_file("es256");
    let stage = bound(&format!(
        "client_secret = unset\nclient_keys_files = [{key:?}]\nclient_auth_method = \"private_key_jwt\"\n"
    ));
    stage.provider.set_metadata("token_endpoint_auth_methods_supported", Value::Null);
    let stage = stage.restart();
    let keys = stage.browser().fetch(&stage.url("/auth/jwks")).await.json()["keys"].as_array().cloned();
    stage.provider.demand(|demands| {
        demands.client_keys = keys.expect("a key set");
        demands.auth = Some(ClientAuth::PrivateKeyJwt);
        demands.nonce = Some("a-nonce".to_owned());
    });
    let landed = stage.sign_in(&stage.browser(), "/").await;
    assert_eq!(landed.status, StatusCode::OK, "{}", landed.text());
}

#[tokio::test]
async fn a_nonce_that_is_never_right_is_tried_once_more_and_no_oftener() {
    let stage = bound("");
    stage.provider.demand(|demands| demands.nonce = Some("never".to_owned()));
    stage.provider.faults(|faults| faults.endless_nonces = true);
    let reply = stage.sign_in(&stage.browser(), "/").await;
    assert_refused(&stage, &reply, 2);
    assert_eq!(stage.provider.count(Endpoint::Userinfo), 0);
}

#[tokio::test]
async fn a_bearer_token_is_not_taken_for_a_bound_one_nor_the_other_way_round() {
    let stage = bound("");
    stage.provider.faults(|faults| faults.token = Some(TokenFault::BearerInstead));
    let reply = stage.sign_in(&stage.browser(), "/").await;
    assert_refused(&stage, &reply, 1);
    assert_eq!(stage.provider.count(Endpoint::Userinfo), 0);

    let stage = Stage::with("");
    stage.provider.demand(|demands| demands.dpop = true);
    let reply = stage.sign_in(&stage.browser(), "/").await;
    assert_refused(&stage, &reply, 1);
    assert_eq!(stage.provider.count(Endpoint::Userinfo), 0);
}

#[tokio::test]
async fn with_a_key_in_a_file_any_replica_finishes_a_sign_in() {
    let stage = bound(&format!("dpop_key_file = {:?}\n", RealProvider::key_file("es256")));
    let replica = stage.replica();
    let browser = stage.browser();
    let start = browser.get(&stage.url("/there")).await;
    browser.connect(&stage.origin(), replica.address());
    let landed = browser.follow_reply(start, 10).await;
    assert_eq!(landed.status, StatusCode::OK, "{}", landed.text());
    assert_eq!(stage.provider.token_calls().len(), 1);
}

#[tokio::test]
async fn without_one_a_restart_in_the_middle_begins_the_sign_in_anew() {
    let stage = bound("");
    let browser = stage.browser();
    let start = browser.get(&stage.url("/there")).await;
    let stage = stage.restart();
    let landed = browser.follow_reply(start, 10).await;
    assert_eq!(landed.status, StatusCode::OK, "{}", landed.text());
    assert_eq!(landed.json()["target"], "/there");
    assert_eq!(stage.provider.token_calls().len(), 2);
}

#[tokio::test]
async fn a_provider_that_does_not_take_our_signature_is_told_of() {
    let stage = bound("");
    stage.provider.set_metadata("dpop_signing_alg_values_supported", json!(["RS256"]));
    let stage = stage.restart();
    let reply = stage.browser().get(&stage.url("/")).await;
    assert_refused(&stage, &reply, 0);
}

#[tokio::test]
async fn of_the_keys_in_a_file_the_one_is_shown_that_the_provider_takes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    let key = |name: &str| {
        let text = std::fs::read_to_string(RealProvider::key_file(name).replace(".pem", ".jwk.json")).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()
    };
    std::fs::write(&file, json!({ "keys": [key("eddsa"), key("es256")] }).to_string()).unwrap();
    let lines = format!("dpop_key_file = {file:?}\n");
    let stage = bound(&lines);
    stage.provider.set_metadata("dpop_signing_alg_values_supported", json!(["ES256"]));
    let stage = stage.restart();
    let landed = stage.sign_in(&stage.browser(), "/").await;
    assert_eq!(landed.status, StatusCode::OK, "{}", landed.text());

    let stage = bound(&lines);
    stage.provider.set_metadata("dpop_signing_alg_values_supported", json!(["PS256"]));
    let stage = stage.restart();
    let reply = stage.browser().get(&stage.url("/")).await;
    assert_refused(&stage, &reply, 0);
}

/// All of `profile = "fapi2"` at once: pushed requests, an assertion, bound tokens, `iss`.
#[tokio::test]
async fn the_high_security_profile_turns_everything_on() {
    let key = RealProvider::key_file("es256");
    let lines = format!("[provider]\nclient_secret = unset\nprofile = \"fapi2\"\nclient_keys_files = [{key:?}]\n");
    let stage = Stage::with(&lines);
    stage.provider.sign_with(vestibule_test_support::forge::Alg::Es256);
    stage.provider.set_metadata("token_endpoint_auth_methods_supported", json!(["private_key_jwt"]));
    stage.provider.set_metadata("authorization_response_iss_parameter_supported", Value::Null);
    let stage = stage.restart();
    let keys = stage.browser().fetch(&stage.url("/auth/jwks")).await.json()["keys"].as_array().cloned();
    stage.provider.demand(|demands| {
        demands.client_keys = keys.expect("a key set");
        demands.auth = Some(ClientAuth::PrivateKeyJwt);
        (demands.pushed, demands.dpop) = (true, true);
    });
    let landed = stage.sign_in(&stage.browser(), "/").await;
    assert_eq!(landed.status, StatusCode::OK, "{}", landed.text());
    stage.upstream.forget();
    // RFC 9207, whether the metadata promise it or not.
    let token_calls = stage.provider.token_calls().len();
    stage.provider.faults(|faults| faults.authorize = Some(vestibule_test_support::AuthorizeFault::MissingIssuer));
    let reply = stage.sign_in(&stage.browser(), "/").await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{}", reply.text());
    assert_eq!(stage.provider.token_calls().len(), token_calls);
    stage.upstream.assert_untouched();
    // RS256 is not among the profile's algorithms.
    stage.provider.heal();
    stage.provider.sign_with(vestibule_test_support::forge::Alg::Rs256);
    let reply = stage.sign_in(&stage.browser(), "/").await;
    assert_eq!(reply.status, StatusCode::BAD_GATEWAY, "{}", reply.text());
    stage.upstream.assert_untouched();
}
