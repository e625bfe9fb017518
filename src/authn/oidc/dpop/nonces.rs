//! Nonces that servers give for DPoP proofs (RFC 9449 §8 and §9).

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use url::{Origin, Url};

use crate::authn::oidc::jose::json_object;

/// The last nonce of each server.
#[derive(Debug, Default)]
pub(in crate::authn::oidc) struct Nonces {
    /// The one that changed last stands last.
    by_origin: Mutex<Vec<(Origin, String)>>,
}

impl Nonces {
    /// What the next proof for this server must hold, if it gave anything yet.
    pub(in crate::authn::oidc) fn of(&self, url: &Url) -> Option<String> {
        let origin = url.origin();
        let known = self.by_origin.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().find(|(other, _)| *other == origin).map(|(_, nonce)| nonce.clone())
    }

    /// Looks into the head of any answer, a good one too (§8.2).
    pub(in crate::authn::oidc) fn learn(&self, url: &Url, headers: &HeaderMap) {
        let Some(nonce) = nonce(headers) else { return };
        let origin = url.origin();
        let mut known = self.by_origin.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(other, _)| *other != origin);
        if known.len() == MAX_SERVERS {
            known.remove(0);
        }
        known.push((origin, nonce.to_owned()));
    }
}

/// Whether the request was refused for want of a nonce and the answer brings one: by an authorization server (§8) or by a
/// resource server (§9).
pub(in crate::authn::oidc) fn is_nonce_challenge(answer: &Response<Bytes>) -> bool {
    nonce(answer.headers()).is_some()
        && match answer.status() {
            StatusCode::BAD_REQUEST => {
                json_object(answer.body()).is_ok_and(|body| body.get("error").is_some_and(|error| error == WANTED))
            }
            StatusCode::UNAUTHORIZED => {
                let challenges = answer.headers().get_all(header::WWW_AUTHENTICATE);
                challenges.iter().any(|value| value.to_str().is_ok_and(asks_for_nonce))
            }
            _ => false,
        }
}

/// `DPoP-Nonce`, once and of NQCHAR only (§8.1).
fn nonce(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all("dpop-nonce").iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let nonce = value.to_str().ok()?;
    let plain = nonce.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e));
    (plain && (1..=MAX_NONCE).contains(&nonce.len())).then_some(nonce)
}

/// Whether a `WWW-Authenticate` value (RFC 9110 §11.6.1) has a DPoP challenge with `error="use_dpop_nonce"`.
fn asks_for_nonce(value: &str) -> bool {
    let mut ours = false;
    for element in elements(value) {
        let (name, parameter) = element.split_once('=').unwrap_or((element, ""));
        // A space before the first `=` ends the name of a scheme, with which a new challenge begins.
        let name = match name.trim().split_once([' ', '\t']) {
            Some((scheme, name)) => {
                ours = scheme.eq_ignore_ascii_case("DPoP");
                name.trim()
            }
            None if !element.contains('=') => {
                ours = name.trim().eq_ignore_ascii_case("DPoP");
                continue;
            }
            None => name.trim(),
        };
        if ours && name.eq_ignore_ascii_case("error") && parameter.trim().trim_matches('"') == WANTED {
            return true;
        }
    }
    false
}

/// The elements of a list, of which quoted ones may hold commas (RFC 9110 §5.6).
fn elements(value: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    value
        .split(move |letter| {
            let ends = letter == ',' && !quoted;
            quoted ^= letter == '"' && !escaped;
            escaped = quoted && letter == '\\' && !escaped;
            ends
        })
        .map(str::trim)
        .filter(|element| !element.is_empty())
}

const WANTED: &str = "use_dpop_nonce";

/// How many servers are remembered: a provider has one or two.
const MAX_SERVERS: usize = 64;

/// The longest nonce, in bytes.
const MAX_NONCE: usize = 1024;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn gives(nonce: &str) -> HeaderMap {
        [(http::HeaderName::from_static("dpop-nonce"), HeaderValue::from_str(nonce).unwrap())].into_iter().collect()
    }

    #[test]
    fn each_server_has_its_last_nonce() {
        let nonces = Nonces::default();
        let (token, api) = (url("https://id.example/token"), url("https://api.example/x"));
        assert_eq!(nonces.of(&token), None);
        nonces.learn(&token, &gives("one"));
        nonces.learn(&api, &gives("other"));
        nonces.learn(&token, &gives("two"));
        nonces.learn(&token, &HeaderMap::new());
        assert_eq!(nonces.of(&url("https://id.example:443/par?x")).as_deref(), Some("two"));
        assert_eq!(nonces.of(&api).as_deref(), Some("other"));
        assert_eq!(nonces.of(&url("http://id.example/token")), None);
    }

    #[test]
    fn what_is_no_nonce_is_not_remembered() {
        let nonces = Nonces::default();
        let token = url("https://id.example/token");
        for odd in ["", "two words", "quo\"te", "back\\slash", &"n".repeat(MAX_NONCE + 1)] {
            nonces.learn(&token, &gives(odd));
            assert_eq!(nonces.of(&token), None, "{odd:.20}");
        }
        let mut twice = gives("one");
        twice.append("dpop-nonce", HeaderValue::from_static("two"));
        nonces.learn(&token, &twice);
        assert_eq!(nonces.of(&token), None);
    }

    #[test]
    fn only_so_many_servers_are_remembered() {
        let nonces = Nonces::default();
        let server = |number: usize| url(&format!("https://{number}.example/"));
        for number in 0..=MAX_SERVERS {
            nonces.learn(&server(number), &gives("n"));
        }
        assert_eq!(nonces.of(&server(0)), None);
        assert!((1..=MAX_SERVERS).all(|number| nonces.of(&server(number)).is_some()));
    }

    #[test]
    fn a_challenge_is_told_from_other_refusals() {
        let answer = |status: u16, challenge: &str, body: &'static str, nonce: bool| {
            let mut answer = Response::builder().status(status).header("www-authenticate", challenge);
            if nonce {
                answer = answer.header("dpop-nonce", "n");
            }
            is_nonce_challenge(&answer.body(Bytes::from_static(body.as_bytes())).unwrap())
        };
        let wanted = r#"{"error": "use_dpop_nonce", "error_description": "use it"}"#;
        assert!(answer(400, "x", wanted, true));
        assert!(!answer(400, "x", wanted, false));
        assert!(!answer(200, "x", wanted, true));
        assert!(!answer(400, "x", r#"{"error": "invalid_grant"}"#, true));
        assert!(!answer(400, "x", r#"{"error": "invalid_grant", "error": "use_dpop_nonce"}"#, true));
        assert!(!answer(400, "DPoP error=\"use_dpop_nonce\"", "{}", true));
        for (challenge, asks) in [
            // §9.
            (r#"DPoP error="use_dpop_nonce", error_description="Resource server requires nonce in DPoP proof""#, true),
            ("dpop error=use_dpop_nonce", true),
            (r#"Bearer realm="a, b", DPoP algs="ES256 PS256", error="use_dpop_nonce""#, true),
            (r#"Negotiate, DPoP realm="x\", y", error = "use_dpop_nonce""#, true),
            (r#"DPoP error="invalid_token""#, false),
            (r#"Bearer error="use_dpop_nonce""#, false),
            (r#"DPoP algs="ES256", Bearer error="use_dpop_nonce""#, false),
            (r#"DPoP realm=", error=use_dpop_nonce""#, false),
            ("DPoP, Negotiate, error=\"use_dpop_nonce\"", false),
            ("", false),
        ] {
            assert_eq!(answer(401, challenge, "", true), asks, "{challenge}");
            assert!(!answer(401, challenge, "", false), "{challenge}");
        }
    }
}
