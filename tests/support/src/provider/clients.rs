//! What the fake provider demands of its client beyond a secret: assertions (RFC 7523), pushed (RFC 9126) and signed (RFC 9101)
//! requests, proofs of possession (RFC 9449). Each rule is written from the specification, not from the proxy.

use std::net::SocketAddr;

use aws_lc_rs::digest;
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value, json};

use super::endpoints::{json_answer, respond};
use super::faults::PushFault;
use super::{ProviderRequest, State};
use crate::forge::{self, encode};
use crate::listener::Answer;
use crate::random_text;

/// What it demands; nothing unless a test says so.
#[derive(Debug, Clone, Default)]
pub struct Demands {
    /// The client authenticates so, and in no other way.
    pub auth: Option<ClientAuth>,
    /// The client's public keys, as it publishes them.
    pub client_keys: Vec<Value>,
    /// Authorization requests are pushed.
    pub pushed: bool,
    /// Authorization requests are signed objects.
    pub signed: bool,
    /// Authorization requests are fetched from the client.
    pub by_reference: bool,
    /// Where they are fetched, whatever the reference says.
    pub fetched_from: Option<SocketAddr>,
    /// Tokens are bound to a key.
    pub dpop: bool,
    /// Proofs hold this nonce.
    pub nonce: Option<String>,
}

/// Ways of client authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAuth {
    /// None at all.
    Public,
    /// The secret in the header.
    Basic,
    /// The secret in the form.
    Post,
    /// An assertion signed with the secret.
    SecretJwt,
    /// An assertion signed with one of the keys.
    PrivateKeyJwt,
    /// Exactly this assertion.
    Assertion(String),
    /// This value in `X-Cert`.
    XCert(String),
}

/// A form or a query.
pub(super) type Fields = Vec<(String, String)>;

fn field<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

impl State {
    /// RFC 6749 §2.3: one way and no other beside it.
    pub(super) fn authenticate(&mut self, form: &[(String, String)], headers: &HeaderMap) -> Result<(), &'static str> {
        let has_header = headers.contains_key("authorization");
        let has_assertion = field(form, "client_assertion").is_some() || field(form, "client_assertion_type").is_some();
        let has_secret = field(form, "client_secret").is_some();
        let bare = !has_header && !has_secret && !has_assertion && !headers.contains_key("x-cert");
        let id_is_ours = field(form, "client_id") == Some(self.client_id.as_str());
        let right = match self.demands.auth.clone() {
            None => {
                self.is_our_client(headers, field(form, "client_id"), field(form, "client_secret")) && !has_assertion
            }
            Some(ClientAuth::Public) => bare && id_is_ours,
            Some(ClientAuth::Basic) => {
                has_header && self.is_our_client(headers, field(form, "client_id"), None) && !has_secret
            }
            Some(ClientAuth::Post) => {
                !has_header && self.is_our_client(headers, field(form, "client_id"), field(form, "client_secret"))
            }
            Some(ClientAuth::XCert(value)) => {
                !has_header
                    && !has_secret
                    && !has_assertion
                    && id_is_ours
                    && headers.get_all("x-cert").iter().eq([value.as_str()])
            }
            Some(method) => {
                !has_header
                    && !has_secret
                    && field(form, "client_id").is_none_or(|id| id == self.client_id)
                    && field(form, "client_assertion_type")
                        == Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
                    && self.is_right_assertion(&method, field(form, "client_assertion").unwrap_or_default())
            }
        };
        if right { Ok(()) } else { Err("invalid_client") }
    }

    /// RFC 7523 §3.
    fn is_right_assertion(&mut self, method: &ClientAuth, assertion: &str) -> bool {
        if let ClientAuth::Assertion(wanted) = method {
            return assertion == wanted;
        }
        let read = match method {
            ClientAuth::SecretJwt => forge::verify_hs256(self.client_secret.as_bytes(), assertion),
            _ => forge::verify(&self.demands.client_keys, assertion),
        };
        let Some((_, claims)) = read else { return false };
        let now = self.clock.unix();
        let expires = claims["exp"].as_u64().unwrap_or_default();
        claims["iss"] == self.client_id.as_str()
            && claims["sub"] == self.client_id.as_str()
            && claims["aud"] == json!(self.issuer)
            && (now + 1..=now + 300).contains(&expires)
            && self.is_first_use(&claims["jti"])
    }

    fn is_first_use(&mut self, jti: &Value) -> bool {
        let Some(jti) = jti.as_str().filter(|jti| jti.len() >= 16) else { return false };
        !self.seen.iter().any(|seen| seen == jti) && {
            self.seen.push(jti.to_owned());
            true
        }
    }

    /// RFC 9126 §2.
    pub(super) fn push(&mut self, request: &ProviderRequest) -> Answer {
        let form = request.form();
        match self.faults.push {
            Some(PushFault::Refused) => {
                let refusal = json!({ "error": "invalid_request", "error_description": "said by the fake provider" });
                return json_answer(StatusCode::BAD_REQUEST, &refusal);
            }
            Some(PushFault::ServerError) => {
                return respond(StatusCode::INTERNAL_SERVER_ERROR, "text/html", "<h1>no</h1>");
            }
            Some(PushFault::Html) => return respond(StatusCode::CREATED, "text/html", "<h1>no</h1>"),
            _ => {}
        }
        if self.authenticate(&form, &request.headers).is_err() {
            return json_answer(StatusCode::UNAUTHORIZED, &json!({ "error": "invalid_client" }));
        }
        if field(&form, "request_uri").is_some() {
            return json_answer(StatusCode::BAD_REQUEST, &json!({ "error": "invalid_request" }));
        }
        // RFC 9126 §2.2 leaves the form to the server.
        let place = match self.faults.push {
            Some(PushFault::ForeignReference) => "https://requests.elsewhere.example/r/",
            _ => "urn:ietf:params:oauth:request_uri:",
        };
        let reference = format!("{place}{}", random_text(24));
        self.pushed.insert(reference.clone(), form);
        let answer = match self.faults.push {
            Some(PushFault::RelativeReference) => json!({ "request_uri": "/requests/1", "expires_in": 60 }),
            Some(PushFault::ReferenceWithLineBreak) => {
                json!({ "request_uri": format!("{reference}\r\nx: y"), "expires_in": 60 })
            }
            Some(PushFault::NoReference) => json!({ "expires_in": 60 }),
            Some(PushFault::NoExpiry) => json!({ "request_uri": reference }),
            Some(PushFault::Megabytes) => {
                json!({ "request_uri": reference, "expires_in": 60, "padding": "x".repeat(5 << 20) })
            }
            _ => json!({ "request_uri": reference, "expires_in": 60 }),
        };
        json_answer(StatusCode::CREATED, &answer)
    }

    /// The parameters of an authorization request, however they came.
    pub(super) fn asked(
        &mut self,
        query: Fields,
        fetched: Option<Result<String, &'static str>>,
    ) -> Result<Fields, &'static str> {
        if let Some(object) = fetched.filter(|_| !self.demands.pushed) {
            return self.referred(&query, &object?);
        }
        if self.demands.by_reference {
            return Err("not by reference");
        }
        let fields = match field(&query, "request_uri") {
            Some(reference) => {
                // FAPI 2.0 §5.3.3.2: nothing beside.
                if query.len() != 2 || field(&query, "client_id") != Some(self.client_id.as_str()) {
                    return Err("something beside client_id and request_uri");
                }
                self.pushed.remove(reference).ok_or("an unknown reference, or one that was used")?
            }
            None if self.demands.pushed => return Err("not pushed"),
            None => query,
        };
        match field(&fields, "request") {
            Some(object) => self.opened(object),
            None if self.demands.signed => Err("not signed"),
            None => Ok(fields),
        }
    }

    /// Core §6.2: what stands beside the reference is in the object, too.
    fn referred(&self, query: &[(String, String)], object: &str) -> Result<Fields, &'static str> {
        let mut names: Vec<_> = query.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        if names != ["client_id", "request_uri", "response_type", "scope"] {
            return Err("something else than what has to stand beside a reference");
        }
        let fields = self.opened(object)?;
        let agrees = |(name, value): &(String, String)| name == "request_uri" || field(&fields, name) == Some(value);
        if query.iter().all(agrees) { Ok(fields) } else { Err("what stands beside the reference contradicts it") }
    }

    /// RFC 9101 §4 and §6.
    fn opened(&self, object: &str) -> Result<Fields, &'static str> {
        let (header, claims) =
            forge::verify(&self.demands.client_keys, object).ok_or("an object that nobody signed")?;
        let now = self.clock.unix();
        let right = header["typ"] == "oauth-authz-req+jwt"
            && claims["iss"] == self.client_id.as_str()
            && claims["client_id"] == self.client_id.as_str()
            && claims["aud"] == json!(self.issuer)
            && claims["exp"].as_u64().is_some_and(|expires| (now + 1..=now + 3600).contains(&expires))
            && claims["nbf"].as_u64().is_some_and(|begins| begins <= now)
            && ["sub", "request", "request_uri"].iter().all(|name| claims.get(*name).is_none());
        if !right {
            return Err("an object with wrong claims");
        }
        let about = ["iss", "aud", "exp", "nbf", "iat", "jti"];
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let claims: Map<String, Value> = claims.as_object().cloned().unwrap_or_default();
        let parameters = claims.iter().filter(|(name, _)| !about.contains(&name.as_str()));
        Ok(parameters.map(|(name, value)| (name.clone(), text(value))).collect())
    }

    /// RFC 9449 §4.3: the thumbprint of the key that the proof shows, where proofs are demanded.
    pub(super) fn possession(
        &mut self,
        headers: &HeaderMap,
        (method, url): (&str, &str),
        token: Option<&str>,
    ) -> Result<Option<String>, &'static str> {
        if !self.demands.dpop {
            return Ok(None);
        }
        let mut proofs = headers.get_all("dpop").iter();
        let (Some(proof), None) = (proofs.next(), proofs.next()) else { return Err("invalid_dpop_proof") };
        let proof = proof.to_str().unwrap_or_default();
        let jwk = forge::header_of(proof)["jwk"].clone();
        let (header, claims) = forge::verify(std::slice::from_ref(&jwk), proof).ok_or("invalid_dpop_proof")?;
        let ath = token.map(|token| encode(digest::digest(&digest::SHA256, token.as_bytes()).as_ref()));
        let right = header["typ"] == "dpop+jwt"
            && jwk.get("d").is_none()
            && claims["htm"] == method
            && claims["htu"] == url
            && claims["iat"].as_u64().is_some_and(|at| at.abs_diff(self.clock.unix()) <= 60)
            && claims.get("ath").and_then(Value::as_str) == ath.as_deref()
            && self.is_first_use(&claims["jti"]);
        if !right {
            return Err("invalid_dpop_proof");
        }
        if let Some(nonce) = &self.demands.nonce
            && claims["nonce"] != json!(nonce)
        {
            return Err("use_dpop_nonce");
        }
        // RFC 7638 §3.2, of an elliptic curve.
        let members = ["crv", "kty", "x", "y"].map(|name| format!("\"{name}\":{}", jwk[name]));
        let members = format!("{{{}}}", members.join(","));
        Ok(Some(encode(digest::digest(&digest::SHA256, members.as_bytes()).as_ref())))
    }

    /// With the nonce that proofs must hold; in the fault that never ends, always another.
    pub(super) fn with_nonce(&self, mut answer: Answer) -> Answer {
        if let Some(nonce) = &self.demands.nonce {
            let value = if self.faults.endless_nonces { random_text(9) } else { nonce.clone() };
            answer.headers_mut().insert("dpop-nonce", value.parse().expect("a nonce is plain text"));
        }
        answer
    }
}
