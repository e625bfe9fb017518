//! The fake provider's answers.

use std::convert::Infallible;
use std::time::Instant;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::{Map, Value, json};
use url::{Url, form_urlencoded};

use super::faults::{AuthorizeFault, DiscoveryFault, Endpoint, JwksFault, TokenFault, UserinfoFault};
use super::refresh::Refreshable;
use super::{Grant, ProviderRequest, Shared, State, TokenCall, by_reference};
use crate::forge::{self, encode};
use crate::listener::Answer;
use crate::{random_text, trace};

/// Appended to a path by the redirect fault: the copy answers well, so that whoever follows is found out.
const REDIRECTED: &str = "/redirected";
const FIVE_MEGABYTES: usize = 5 << 20;
const HTML: &str = "<!doctype html><title>Welcome</title><h1>Please accept our cookies</h1>";

pub(super) async fn answer(request: Request<Incoming>, shared: Shared) -> Answer {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let path = head.uri.path().strip_suffix(REDIRECTED).unwrap_or(head.uri.path());
    let record = ProviderRequest {
        endpoint: endpoint(path),
        method: head.method.clone(),
        target: head.uri.to_string(),
        headers: head.headers.clone(),
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    let (delay, redirects) = {
        let mut state = shared.lock().unwrap();
        state.requests.push(record.clone());
        let redirects = state.faults.redirect.contains(&record.endpoint) && !head.uri.path().ends_with(REDIRECTED);
        (state.faults.delay.get(&record.endpoint).copied(), redirects)
    };
    if let Some(delay) = delay {
        tokio::time::sleep(delay).await;
    }
    let from = shared.lock().unwrap().demands.fetched_from;
    let fetched = by_reference::fetched(&record, from).await;
    let mut state = shared.lock().unwrap();
    if redirects {
        return found(&format!("{}{}{REDIRECTED}", state.issuer, path));
    }
    let content_type = state.faults.content_type.get(&record.endpoint).copied();
    let mut answer = match record.endpoint {
        Endpoint::Discovery => state.discovery(),
        Endpoint::Jwks => state.key_set(),
        Endpoint::SignedJwks => state.signed_key_set(),
        Endpoint::Authorize => state.authorize(&record, fetched),
        Endpoint::Token => {
            let answer = state.token(&record);
            state.with_nonce(answer)
        }
        Endpoint::Userinfo => {
            let answer = state.userinfo(&record.headers);
            state.with_nonce(answer)
        }
        Endpoint::Introspect => state.introspect(&record),
        Endpoint::EndSession => state.end_session(&record),
        Endpoint::Push => state.push(&record),
        Endpoint::Device => state.authorize_device(&record),
        Endpoint::Register => state.register(&record),
        Endpoint::Revocation => state.revoke(&record),
        Endpoint::Unknown => page(StatusCode::NOT_FOUND, "nothing here"),
    };
    match content_type {
        Some("") => drop(answer.headers_mut().remove(header::CONTENT_TYPE)),
        Some(kind) => drop(answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind))),
        None => {}
    }
    answer
}

fn endpoint(path: &str) -> Endpoint {
    match path {
        "/.well-known/openid-configuration" => Endpoint::Discovery,
        "/keys" => Endpoint::Jwks,
        "/keys.jwt" => Endpoint::SignedJwks,
        "/authorize" => Endpoint::Authorize,
        "/token" => Endpoint::Token,
        "/userinfo" => Endpoint::Userinfo,
        "/introspect" => Endpoint::Introspect,
        path if path.starts_with("/register") => Endpoint::Register,
        "/end-session" => Endpoint::EndSession,
        "/revoke" => Endpoint::Revocation,
        "/par" => Endpoint::Push,
        "/device" => Endpoint::Device,
        _ => Endpoint::Unknown,
    }
}

impl State {
    fn discovery(&self) -> Answer {
        let issuer = &self.issuer;
        let mut metadata = json!({
            "issuer": issuer,
            "authorization_endpoint": format!("{issuer}/authorize"),
            "token_endpoint": format!("{issuer}/token"),
            "jwks_uri": format!("{issuer}/keys"),
            "userinfo_endpoint": format!("{issuer}/userinfo"),
            "introspection_endpoint": format!("{issuer}/introspect"),
            "end_session_endpoint": format!("{issuer}/end-session"),
            "revocation_endpoint": format!("{issuer}/revoke"),
            "response_types_supported": ["code", "id_token code"],
            "response_modes_supported": ["query", "form_post", "query.jwt", "form_post.jwt"],
            "grant_types_supported": [
                "authorization_code", "refresh_token", "client_credentials", "password",
                "urn:ietf:params:oauth:grant-type:device_code",
            ],
            "device_authorization_endpoint": format!("{issuer}/device"),
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported":
                ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "code_challenge_methods_supported": ["S256"],
            "scopes_supported": ["openid", "profile", "email"],
            "authorization_response_iss_parameter_supported": true,
            "pushed_authorization_request_endpoint": format!("{issuer}/par"),
        });
        match self.faults.discovery {
            None => {}
            Some(DiscoveryFault::OtherIssuer) => metadata["issuer"] = json!("https://other.example.com"),
            Some(DiscoveryFault::IssuerWithSlash) => metadata["issuer"] = json!(format!("{issuer}/")),
            Some(DiscoveryFault::Html) => return page(StatusCode::OK, HTML),
            Some(DiscoveryFault::FiveMegabytes) => metadata["padding"] = json!("x".repeat(FIVE_MEGABYTES)),
            Some(DiscoveryFault::JsonArray) => metadata = json!([metadata]),
            Some(DiscoveryFault::NoTokenEndpoint) => metadata["token_endpoint"] = Value::Null,
            Some(DiscoveryFault::ServerError) => return page(StatusCode::INTERNAL_SERVER_ERROR, HTML),
            Some(DiscoveryFault::NotFound) => return page(StatusCode::NOT_FOUND, HTML),
        }
        if let Value::Object(members) = &mut metadata {
            members.extend(self.metadata.clone());
            members.retain(|_, value| !value.is_null());
        }
        json_answer(StatusCode::OK, &metadata)
    }

    fn key_set(&self) -> Answer {
        let mut keys: Vec<Value> = self.keys.iter().map(|key| key.jwk()).collect();
        if self.faults.keys_without_names {
            keys.reverse();
            for key in &mut keys {
                key.as_object_mut().expect("a key is an object").remove("kid");
            }
        }
        match self.faults.jwks {
            None => {}
            Some(JwksFault::UnusableKeysBesideGood) => keys.splice(0..0, unusable_keys()).for_each(drop),
            Some(JwksFault::Html) => return page(StatusCode::OK, HTML),
            Some(JwksFault::ServerError) => return page(StatusCode::INTERNAL_SERVER_ERROR, HTML),
            Some(JwksFault::Empty) => keys.clear(),
            Some(JwksFault::FiveMegabytes) => keys.push(json!({ "kty": "oct", "k": "x".repeat(FIVE_MEGABYTES) })),
        }
        json_answer(StatusCode::OK, &json!({ "keys": keys }))
    }

    /// OpenID Federation 1.0 §5.2.1.
    fn signed_key_set(&self) -> Answer {
        let Some(signer) = &self.key_set_key else { return page(StatusCode::NOT_FOUND, "nothing here") };
        let keys: Vec<Value> = self.keys.iter().map(|key| key.jwk()).collect();
        let now = self.clock.unix();
        let claims = json!({ "iss": self.issuer, "sub": self.issuer, "iat": now, "exp": now + 600, "keys": keys });
        let header = json!({ "alg": signer.alg().name(), "kid": signer.kid(), "typ": "jwk-set+jwt" });
        respond(StatusCode::OK, "application/jwk-set+jwt", signer.token_with_header(&header, &claims))
    }

    /// Core §3.1.2: approves at once.
    fn authorize(&mut self, request: &ProviderRequest, fetched: Option<Result<String, &'static str>>) -> Answer {
        let asked = match self.asked(request.query(), fetched) {
            Ok(asked) => asked,
            Err(why) => return page(StatusCode::BAD_REQUEST, why),
        };
        let parameter = |name: &str| asked.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        // RFC 8707 §2: a resource each.
        let mut names: Vec<String> =
            asked.iter().map(|(name, _)| name.clone()).filter(|name| name != "resource").collect();
        let count = names.len();
        names.sort();
        names.dedup();
        let Some(redirect_uri) = parameter("redirect_uri").and_then(|uri| Url::parse(&uri).ok()) else {
            return page(StatusCode::BAD_REQUEST, "no redirect_uri");
        };
        let well_made = names.len() == count
            && parameter("client_id").as_deref() == Some(self.client_id.as_str())
            && parameter("response_type").is_some_and(|kind| kind == "code" || kind == "code id_token")
            && parameter("scope").is_some_and(|scope| scope.split(' ').any(|word| word == "openid"))
            && parameter("code_challenge_method").as_deref() == Some("S256");
        if !well_made {
            return page(StatusCode::BAD_REQUEST, "not an authorization request of the test client");
        }
        let grant = Grant {
            redirect_uri: redirect_uri.to_string(),
            challenge: parameter("code_challenge"),
            nonce: parameter("nonce"),
            jkt: parameter("dpop_jkt"),
            user: self.person(parameter("login_hint")),
            acr: parameter("acr_values").and_then(|wanted| {
                wanted.split(' ').find(|one| self.offered_acr.iter().any(|own| own == one)).map(str::to_owned)
            }),
            authenticated_at: self.clock.unix(),
            redeemed: false,
        };
        for name in ["state", "nonce"] {
            trace::secret(name, &parameter(name).unwrap_or_default());
        }
        let is_hybrid = parameter("response_type").as_deref() == Some("code id_token");
        let is_silent = parameter("prompt").as_deref() == Some("none");
        // Whoever is asked signs in.
        self.knows_the_person |= !is_silent;
        let answer = self.authorization_response(grant, parameter("state"), (is_hybrid, is_silent));
        self.deliver(redirect_uri, answer, parameter("response_mode").as_deref())
    }

    fn person(&self, hint: Option<String>) -> Map<String, Value> {
        let mut user = self.user.clone();
        if let Some(hint) = hint.filter(|_| self.by_hint) {
            user.insert("sub".to_owned(), hint.into());
        }
        user
    }

    fn authorization_response(
        &mut self,
        grant: Grant,
        state: Option<String>,
        (is_hybrid, is_silent): (bool, bool),
    ) -> Vec<(String, String)> {
        let fault = self.faults.authorize;
        let error = match fault {
            Some(AuthorizeFault::AccessDenied | AuthorizeFault::ErrorWithoutState) => Some("access_denied"),
            Some(AuthorizeFault::TemporarilyUnavailable) => Some("temporarily_unavailable"),
            // Core §3.1.2.1, `prompt=none`.
            None if is_silent && !self.knows_the_person => Some("login_required"),
            Some(
                AuthorizeFault::ServerError | AuthorizeFault::ErrorWithMarkup | AuthorizeFault::ErrorFromWrongIssuer,
            ) => Some("server_error"),
            _ => None,
        };
        let issuer = match fault {
            Some(AuthorizeFault::WrongIssuer | AuthorizeFault::ErrorFromWrongIssuer) => {
                Some("https://other.example.com".to_owned())
            }
            Some(AuthorizeFault::MissingIssuer) => None,
            _ => Some(self.issuer.clone()),
        };
        let issuer = self.faults.callback_issuer.clone().unwrap_or(issuer);
        let state = state
            .filter(|_| !matches!(fault, Some(AuthorizeFault::ErrorWithoutState | AuthorizeFault::CodeWithoutState)));
        let mut answer = Vec::new();
        let mut put = |name: &str, value: &str| answer.push((name.to_owned(), value.to_owned()));
        match error {
            Some(error) => {
                put("error", error);
            }
            None => {
                let code = random_text(24);
                trace::secret("authorization code", &code);
                let mut grant = grant;
                if fault == Some(AuthorizeFault::CodeOfAnotherTransaction) {
                    grant.challenge = Some(encode(digest::digest(&digest::SHA256, b"another verifier").as_ref()));
                }
                put("code", &code);
                if is_hybrid && let Some(id_token) = self.front_channel_id_token(&grant, &code) {
                    put("id_token", &id_token);
                }
                self.grants.insert(code, grant);
            }
        }
        if fault == Some(AuthorizeFault::ErrorWithMarkup) {
            put("error_description", "<script>alert(\"marked up\")</script>");
        }
        if let Some(state) = state {
            put("state", &state);
        }
        if let Some(issuer) = issuer {
            put("iss", &issuer);
        }
        answer
    }

    fn token(&mut self, request: &ProviderRequest) -> Answer {
        let form = request.form();
        for (_, verifier) in form.iter().filter(|(name, _)| name == "code_verifier") {
            trace::secret("PKCE verifier", verifier);
        }
        let outcome = match self.faults.token {
            None
            | Some(
                TokenFault::UnknownTokenType
                | TokenFault::BearerInstead
                | TokenFault::FiveMegabytes
                | TokenFault::Doubled,
            ) => self.redeem(&form, &request.headers),
            Some(TokenFault::InvalidClient) => Err("invalid_client"),
            Some(_) => Err("invalid_grant"),
        };
        self.token_calls.push(TokenCall { form, accepted: outcome.is_ok(), refusal: outcome.as_ref().err().copied() });
        match self.faults.token {
            Some(TokenFault::ServerError) => return page(StatusCode::INTERNAL_SERVER_ERROR, HTML),
            Some(TokenFault::Unavailable) => return page(StatusCode::SERVICE_UNAVAILABLE, HTML),
            Some(TokenFault::Html) => return page(StatusCode::OK, HTML),
            _ => {}
        }
        match outcome {
            Ok(tokens) if self.faults.token == Some(TokenFault::Doubled) => {
                let text = tokens.to_string().replacen('{', "{\"access_token\":\"another\",", 1);
                respond(StatusCode::OK, "application/json", text)
            }
            Ok(tokens) => json_answer(StatusCode::OK, &tokens),
            Err("invalid_grant") if self.faults.denies => {
                json_answer(StatusCode::UNAUTHORIZED, &json!({ "error": "access_denied" }))
            }
            Err("invalid_client") => json_answer(StatusCode::UNAUTHORIZED, &json!({ "error": "invalid_client" })),
            Err(error) => json_answer(
                StatusCode::BAD_REQUEST,
                &json!({ "error": error, "error_description": "said by the fake provider" }),
            ),
        }
    }

    /// RFC 6749 §4.1.3 and RFC 7636 §4.6.
    fn redeem(&mut self, form: &[(String, String)], headers: &HeaderMap) -> Result<Value, &'static str> {
        let field = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        self.authenticate(form, headers)?;
        let url = format!("{}/token", self.issuer);
        let jkt = self.possession(headers, ("POST", &url), None)?;
        if field("grant_type") != Some("authorization_code") {
            return self.grant(form, jkt);
        }
        let code = field("code").ok_or("invalid_request")?;
        let grant = self.grants.get_mut(code).ok_or("invalid_grant")?;
        let verifier = field("code_verifier").ok_or("invalid_grant")?;
        let challenge = encode(digest::digest(&digest::SHA256, verifier.as_bytes()).as_ref());
        let fits = !grant.redeemed
            && field("redirect_uri") == Some(&grant.redirect_uri)
            && grant.challenge.as_deref() == Some(&challenge)
            && (43..=128).contains(&verifier.len())
            // RFC 9449 §10.
            && (grant.jkt.is_none() || grant.jkt == jkt);
        // RFC 6749 §4.1.2: a code is spent by the first try, and a second try is an attack.
        grant.redeemed = true;
        if !fits {
            return Err("invalid_grant");
        }
        let grant = grant.clone();
        let tokens = self.tokens(&grant, jkt);
        if self.faults.spoil_sign_ins()
            && let Some(token) = tokens["access_token"].as_str()
        {
            self.spoiled.insert(code.to_owned(), token.to_owned());
        }
        Ok(tokens)
    }

    pub(super) fn tokens(&mut self, grant: &Grant, jkt: Option<String>) -> Value {
        let (access_token, refresh_token) = match &self.jwt_claims {
            Some(claims) => (self.keys[0].token(claims), self.refresh_jwt()),
            None => {
                let opaque = |kind| format!("{kind}-{}", random_text(24 + self.token_padding * 3 / 4));
                (opaque("at"), opaque("rt"))
            }
        };
        self.access_tokens.insert(access_token.clone(), grant.user.clone());
        let token_type = match self.faults.token {
            Some(TokenFault::UnknownTokenType) => "riddle",
            Some(TokenFault::BearerInstead) => "Bearer",
            _ if jkt.is_some() => "dpop",
            _ => "Bearer",
        };
        self.bound.extend(jkt.map(|jkt| (access_token.clone(), jkt)));
        trace::secret("access token", &access_token);
        trace::secret("refresh token", &refresh_token);
        self.issued_tokens.extend([access_token.clone(), refresh_token.clone()]);
        self.issued_at.insert(access_token.clone(), Instant::now());
        let mut tokens = json!({
            "access_token": access_token,
            "token_type": token_type,
            "expires_in": self.token_life,
            "refresh_token": refresh_token,
            "scope": "openid profile email",
        });
        self.refreshable.insert(refresh_token, Refreshable::of(grant));
        if self.faults.id_token.is_some_and(|fault| fault.is_never_good()) {
            self.forbidden.insert(access_token.clone(), 0);
        }
        if let Some(id_token) = self.id_token(grant, &access_token) {
            tokens["id_token"] = json!(id_token);
        }
        if self.faults.no_refresh_tokens {
            tokens.as_object_mut().expect("an object").remove("refresh_token");
        }
        if self.faults.token == Some(TokenFault::FiveMegabytes) {
            tokens["padding"] = json!("x".repeat(FIVE_MEGABYTES));
        }
        tokens
    }

    /// A refresh token that is a JWT for the provider's own eyes: HS512, so 64 bytes of signature.
    fn refresh_jwt(&self) -> String {
        let header = json!({ "alg": "HS512", "typ": "JWT", "kid": random_text(27) });
        let claims = json!({
            "exp": self.clock.unix() + 1800, "iat": self.clock.unix(), "jti": random_text(27), "iss": self.issuer,
            "aud": self.issuer, "sub": self.user.get("sub"), "typ": "Refresh", "azp": self.client_id, "sid": random_text(27),
            "scope": "openid web-origins roles basic acr profile email", "reuse_id": random_text(27),
        });
        [header.to_string().into_bytes(), claims.to_string().into_bytes()]
            .iter()
            .map(|part| encode(part))
            .chain([random_text(64)])
            .collect::<Vec<_>>()
            .join(".")
    }

    fn userinfo(&mut self, headers: &HeaderMap) -> Answer {
        let token = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix(if self.demands.dpop { "DPoP " } else { "Bearer " }))
            .unwrap_or_default()
            .to_owned();
        if let Some(uses) = self.forbidden.get_mut(&token) {
            *uses += 1;
        }
        let url = format!("{}/userinfo", self.issuer);
        let refused = |error: &str| {
            let mut answer = json_answer(StatusCode::UNAUTHORIZED, &json!({ "error": error }));
            let challenge = format!("DPoP algs=\"ES256\", error=\"{error}\"");
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge.parse().expect("plain text"));
            answer
        };
        let jkt = match self.possession(headers, ("GET", &url), Some(&token)) {
            Ok(jkt) => jkt,
            Err(error) => return refused(error),
        };
        let user = self.access_tokens.get(&token).filter(|_| self.bound.get(&token) == jkt.as_ref());
        let Some(user) = user else { return refused("invalid_token") };
        let mut claims: Map<String, Value> = user.clone();
        match self.faults.userinfo {
            None => {}
            Some(UserinfoFault::OtherSubject) => {
                claims.insert("sub".to_owned(), json!("somebody-else"));
            }
            Some(UserinfoFault::MissingSubject) => {
                claims.remove("sub");
            }
            Some(UserinfoFault::JsonArray) => return json_answer(StatusCode::OK, &json!([claims])),
            Some(UserinfoFault::Html) => return page(StatusCode::OK, HTML),
            Some(UserinfoFault::ServerError) => return page(StatusCode::INTERNAL_SERVER_ERROR, HTML),
        }
        if self.userinfo_key.is_some() {
            // Core §5.3.2.
            claims.extend([("iss".to_owned(), json!(self.issuer)), ("aud".to_owned(), json!(self.client_id))]);
        }
        claims.extend(self.faults.userinfo_claims.clone());
        claims.retain(|_, value| !value.is_null());
        let claims = Value::Object(claims);
        let text = match &self.userinfo_key {
            _ if self.faults.userinfo_is_none => forge::unsigned(&claims),
            Some(key) => key.token(&claims),
            None => claims.to_string(),
        };
        let body = self.encrypted(text, &claims);
        let kind = if body.starts_with('{') { "application/json" } else { "application/jwt" };
        respond(StatusCode::OK, kind, body)
    }

    /// RFC 7009 §2.
    fn revoke(&mut self, request: &ProviderRequest) -> Answer {
        let form = request.form();
        let field = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        if !self.is_our_client(&request.headers, field("client_id"), field("client_secret")) {
            return json_answer(StatusCode::UNAUTHORIZED, &json!({ "error": "invalid_client" }));
        }
        let Some(token) = field("token") else {
            return json_answer(StatusCode::BAD_REQUEST, &json!({ "error": "invalid_request" }));
        };
        self.access_tokens.remove(token);
        self.revoked_tokens.push(token.to_owned());
        page(StatusCode::OK, "")
    }

    /// RFC 6749 §2.3.1: Basic with both parts form-encoded, or both in the body; never both ways at once.
    pub(super) fn is_our_client(&self, headers: &HeaderMap, id: Option<&str>, secret: Option<&str>) -> bool {
        let Some(basic) = headers.get(header::AUTHORIZATION) else {
            return id == Some(self.client_id.as_str()) && secret == Some(self.client_secret.as_str());
        };
        let pair = basic
            .to_str()
            .ok()
            .and_then(|value| value.strip_prefix("Basic "))
            .and_then(|value| STANDARD.decode(value).ok())
            .and_then(|value| String::from_utf8(value).ok());
        let Some((basic_id, basic_secret)) = pair.as_deref().and_then(|pair| pair.split_once(':')) else {
            return false;
        };
        secret.is_none()
            && id.is_none_or(|id| id == self.client_id)
            && form_decode(basic_id) == self.client_id
            && form_decode(basic_secret) == self.client_secret
    }

    fn end_session(&self, request: &ProviderRequest) -> Answer {
        let parameter = |name: &str| request.query_value(name);
        let Some(mut back) = parameter("post_logout_redirect_uri").and_then(|uri| Url::parse(&uri).ok()) else {
            return page(StatusCode::OK, "signed out at the provider");
        };
        if let Some(state) = parameter("state") {
            back.query_pairs_mut().append_pair("state", &state);
        }
        found(back.as_str())
    }
}

fn form_decode(text: &str) -> String {
    let as_pair = format!("x={text}");
    form_urlencoded::parse(as_pair.as_bytes()).next().map(|(_, value)| value.into_owned()).unwrap_or_default()
}

/// Keys that are broken, too small, of an unknown kind, or not for signatures.
fn unusable_keys() -> Vec<Value> {
    vec![
        json!({ "kty": "RSA", "use": "sig", "kid": "no-modulus", "e": "AQAB" }),
        json!({ "kty": "RSA", "use": "sig", "kid": "tiny", "n": encode(&[0xff; 64]), "e": "AQAB" }),
        json!({ "kty": "EC", "crv": "P-256", "use": "sig", "kid": "off-curve", "x": encode(&[1; 32]), "y": encode(&[1; 32]) }),
        json!({ "kty": "EC", "crv": "P-1024", "use": "sig", "kid": "unknown-curve", "x": "AA", "y": "AA" }),
        json!({ "kty": "LATTICE", "use": "sig", "kid": "unknown-type" }),
        json!({ "kty": "RSA", "use": "enc", "kid": "for-encryption", "n": encode(&[0xff; 256]), "e": "AQAB" }),
        json!({ "kty": 7, "kid": ["not", "text"] }),
        json!("not even an object"),
    ]
}

pub(super) fn json_answer(status: StatusCode, value: &Value) -> Answer {
    respond(status, "application/json", value.to_string())
}

pub(super) fn page(status: StatusCode, text: &'static str) -> Answer {
    respond(status, "text/html; charset=utf-8", text)
}

pub(super) fn respond(status: StatusCode, content_type: &str, body: impl Into<Bytes>) -> Answer {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, content_type)
        .header(header::CACHE_CONTROL, "no-store")
        .body(Full::new(body.into()).map_err(|never: Infallible| match never {}).boxed_unsync())
        .expect("an answer")
}

pub(super) fn found(location: &str) -> Answer {
    Response::builder()
        .status(StatusCode::FOUND)
        .header(header::LOCATION, location)
        .body(Full::new(Bytes::new()).map_err(|never: Infallible| match never {}).boxed_unsync())
        .expect("an answer")
}
