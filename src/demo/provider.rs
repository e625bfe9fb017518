//! The development OpenID provider: no passwords, everything in memory, gone at the end. Strict all the same: exact redirect
//! URIs, PKCE required, codes good once and for a minute, so that what works here works at a real provider.

mod authorization;
mod people;
mod shelf;
mod signing;
mod templates;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::error::Unspecified;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, LOCATION, ORIGIN, SET_COOKIE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use minijinja::context;
use serde_json::{Map, Value, json};

use self::authorization::{AuthorizationRequest, Params, Prompt, Refusal, params};
use self::people::Person;
use self::shelf::Shelf;
use self::signing::{SigningKey, at_hash, challenge_of};
use self::templates::{HOME, REFUSED, SIGN_IN, SIGN_OUT, SIGNED_OUT};
use super::html::{page, plain};
use super::listener::{Answer, Body};
use crate::clock::{SharedClock, UnixTime};

pub(super) use self::people::PEOPLE;
pub(super) use self::signing::random_text;

const CODE_LIFETIME: Duration = Duration::from_secs(60);
const ID_TOKEN_LIFETIME: Duration = Duration::from_secs(300);
const ACCESS_TOKEN_LIFETIME: Duration = Duration::from_secs(3600);
const SESSION_LIFETIME: Duration = Duration::from_secs(12 * 3600);
const MAX_FORM_BYTES: usize = 16 * 1024;
const FORM_TIMEOUT: Duration = Duration::from_secs(15);
const COOKIE_NAME: &str = "demo_provider_session";

/// The one registered client.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) id: String,
    pub(super) secret: String,
    pub(super) origin: String,
    pub(super) redirect_uri: String,
    pub(super) post_logout_redirect_uri: String,
    /// Where it starts a sign-in, for "switch user".
    pub(super) login_url: String,
}

/// The provider.
pub(super) struct Provider {
    issuer: String,
    client: Client,
    clock: SharedClock,
    key: SigningKey,
    state: Mutex<State>,
}

struct State {
    codes: Shelf<Grant>,
    access_tokens: Shelf<AccessToken>,
    sessions: Shelf<Session>,
}

/// What a code stands for.
struct Grant {
    request: AuthorizationRequest,
    session: Session,
    issued_at: UnixTime,
    spent: bool,
}

struct AccessToken {
    person: &'static Person,
    scope: String,
    /// The code it came from.
    code: String,
}

#[derive(Clone, Copy)]
struct Session {
    person: &'static Person,
    authenticated_at: UnixTime,
}

/// A request with its form read.
struct Call {
    method: Method,
    path: String,
    query: String,
    headers: HeaderMap,
    form: String,
}

/// An answer, or randomness failed.
type Outcome = Result<Response<Body>, Unspecified>;

impl Answer for Provider {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let form = match tokio::time::timeout(FORM_TIMEOUT, Limited::new(body, MAX_FORM_BYTES).collect()).await {
            Ok(Ok(form)) => String::from_utf8_lossy(&form.to_bytes()).into_owned(),
            _ => return self.refuse("The form is too long or did not come."),
        };
        let query = head.uri.query().unwrap_or_default().to_owned();
        let path = head.uri.path().to_owned();
        self.respond(&Call { method: head.method, path, query, headers: head.headers, form })
    }
}

impl Provider {
    /// For one client, under `issuer`, an origin.
    pub(super) fn new(issuer: String, client: Client, clock: SharedClock) -> Result<Self, Unspecified> {
        let state = State {
            // Spent codes are remembered as long as the tokens that came from them.
            codes: Shelf::new(ACCESS_TOKEN_LIFETIME),
            access_tokens: Shelf::new(ACCESS_TOKEN_LIFETIME),
            sessions: Shelf::new(SESSION_LIFETIME),
        };
        Ok(Self { issuer, client, clock, key: SigningKey::generate()?, state: Mutex::new(state) })
    }

    fn respond(&self, call: &Call) -> Response<Body> {
        // Against DNS rebinding: only our own name reaches us.
        let host = call.headers.get(HOST).and_then(|host| host.to_str().ok());
        if host != self.issuer.strip_prefix("http://") {
            return plain(StatusCode::MISDIRECTED_REQUEST, "text/plain", "another host\n".to_owned());
        }
        let outcome = match (&call.method, call.path.as_str()) {
            (&Method::GET, "/.well-known/openid-configuration") => Ok(json_answer(StatusCode::OK, &self.metadata())),
            (&Method::GET, "/jwks") => Ok(json_answer(StatusCode::OK, &self.key.jwks())),
            (&Method::GET | &Method::POST, "/authorize") => self.authorize(call),
            (&Method::POST, "/token") => self.token(call),
            (&Method::GET | &Method::POST, "/userinfo") => Ok(self.userinfo(call)),
            (&Method::GET | &Method::POST, "/end_session") => Ok(self.end_session(call)),
            (&Method::GET, "/switch") => Ok(self.forget(call, redirect(&self.client.login_url))),
            (&Method::GET, "/") => Ok(self.show(StatusCode::OK, "The demo's OpenID provider", HOME, context! {})),
            (_, "/token") => {
                let mut response = oauth_error(StatusCode::METHOD_NOT_ALLOWED, "invalid_request", "POST only");
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
                Ok(response)
            }
            _ => Ok(self.show(
                StatusCode::NOT_FOUND,
                "Nothing here",
                REFUSED,
                context! { what => "There is no such page." },
            )),
        };
        outcome.unwrap_or_else(|Unspecified| {
            plain(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", "no randomness\n".to_owned())
        })
    }

    /// OpenID Connect Discovery §3, RFC 9207 §3.
    fn metadata(&self) -> Value {
        let issuer = &self.issuer;
        json!({
            "issuer": issuer,
            "authorization_endpoint": format!("{issuer}/authorize"),
            "token_endpoint": format!("{issuer}/token"),
            "userinfo_endpoint": format!("{issuer}/userinfo"),
            "jwks_uri": format!("{issuer}/jwks"),
            "end_session_endpoint": format!("{issuer}/end_session"),
            "scopes_supported": ["openid", "profile", "email"],
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": ["authorization_code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "code_challenge_methods_supported": ["S256"],
            "prompt_values_supported": ["none", "login", "select_account"],
            "claims_supported": ["sub", "name", "preferred_username", "groups", "email", "email_verified"],
            "authorization_response_iss_parameter_supported": true,
            "request_uri_parameter_supported": false,
        })
    }

    /// Core §3.1.2: GET asks, POST is our own form (which sends the whole request again, so that nothing is kept between).
    fn authorize(&self, call: &Call) -> Outcome {
        let posted = call.method == Method::POST;
        if posted && !self.is_own_form(call) {
            return Ok(self.refuse("The form came from another site."));
        }
        let Some(params) = params(if posted { &call.form } else { &call.query }) else {
            return Ok(self.refuse("A parameter came twice."));
        };
        let request = match AuthorizationRequest::check(&params, &self.client) {
            Ok(request) => request,
            Err(Refusal::Page(what)) => return Ok(self.refuse(what)),
            Err(Refusal::Redirect(error, what)) => {
                return Ok(self.redirect_error(params.get("state"), error, what));
            }
        };
        let now = self.clock.now();
        let silent = self.session(call).filter(|session| {
            let too_old = request.max_age.is_some_and(|age| now.since(session.authenticated_at) > age);
            request.prompt != Prompt::Form && !too_old
        });
        match (posted.then(|| params.get("user")).flatten(), silent) {
            (Some(user), _) if user == "nobody" => {
                Ok(self.redirect_error(request.state.as_ref(), "access_denied", "the person went back"))
            }
            (Some(user), _) => match Person::by_login(user) {
                Some(person) => self.sign_in(request, person),
                None => Ok(self.refuse("There is no such person.")),
            },
            (None, Some(session)) => self.issue_code(request, session),
            (None, None) if request.prompt == Prompt::None => {
                Ok(self.redirect_error(request.state.as_ref(), "login_required", "nobody is signed in"))
            }
            (None, None) => Ok(self.sign_in_form(&params)),
        }
    }

    fn sign_in(&self, request: AuthorizationRequest, person: &'static Person) -> Outcome {
        let session = Session { person, authenticated_at: self.clock.now() };
        let id = random_text()?;
        self.state().sessions.put(id.clone(), session, self.clock.now());
        let mut response = self.issue_code(request, session)?;
        set_cookie(&mut response, &format!("{COOKIE_NAME}={id}; Path=/; HttpOnly; SameSite=Lax"));
        Ok(response)
    }

    fn issue_code(&self, request: AuthorizationRequest, session: Session) -> Outcome {
        let code = random_text()?;
        let state = request.state.clone();
        let now = self.clock.now();
        self.state().codes.put(code.clone(), Grant { request, session, issued_at: now, spent: false }, now);
        Ok(self.redirect_to_client(state.as_ref(), &[("code", &code)]))
    }

    fn redirect_error(&self, state: Option<&String>, error: &str, description: &str) -> Response<Body> {
        self.redirect_to_client(state, &[("error", error), ("error_description", description)])
    }

    /// RFC 9207 §2: `iss` on every answer.
    fn redirect_to_client(&self, state: Option<&String>, params: &[(&str, &str)]) -> Response<Body> {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(params).append_pair("iss", &self.issuer);
        if let Some(state) = state {
            query.append_pair("state", state);
        }
        redirect(&format!("{}?{}", self.client.redirect_uri, query.finish()))
    }

    fn sign_in_form(&self, params: &Params) -> Response<Body> {
        let hidden = hidden(params, "user");
        let people: minijinja::Value = PEOPLE
            .iter()
            .map(|person| context! { login => person.login, name => person.name, about => person.about })
            .collect();
        self.show(StatusCode::OK, "Sign in to the demo", SIGN_IN, context! { people, hidden })
    }

    /// Core §3.1.3.
    fn token(&self, call: &Call) -> Outcome {
        let content_type = call.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        if !media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Ok(oauth_error(StatusCode::BAD_REQUEST, "invalid_request", "not a form"));
        }
        let Some(params) = params(&call.form) else {
            return Ok(oauth_error(StatusCode::BAD_REQUEST, "invalid_request", "a parameter came twice"));
        };
        if !self.is_client(&call.headers, &params) {
            let mut response = oauth_error(StatusCode::UNAUTHORIZED, "invalid_client", "wrong client id or secret");
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"demo\""));
            return Ok(response);
        }
        if params.get("grant_type").is_none_or(|grant_type| grant_type != "authorization_code") {
            return Ok(oauth_error(StatusCode::BAD_REQUEST, "unsupported_grant_type", "only authorization_code"));
        }
        match self.redeem(&params) {
            Ok((code, request, session)) => self.issue_tokens(code, &request, session),
            Err(what) => Ok(oauth_error(StatusCode::BAD_REQUEST, "invalid_grant", what)),
        }
    }

    /// Spends the code, whatever else is wrong with the request.
    fn redeem(&self, params: &Params) -> Result<(String, AuthorizationRequest, Session), &'static str> {
        let get = |name: &str| params.get(name).map(String::as_str).unwrap_or_default();
        let code = get("code");
        let now = self.clock.now();
        let mut guard = self.state();
        let state = &mut *guard;
        let Some(grant) = state.codes.get(code, now) else { return Err("the code is unknown") };
        if std::mem::replace(&mut grant.spent, true) {
            // RFC 6749 §4.1.2: what the first use gave is taken back.
            state.access_tokens.remove_where(|_, token| token.code == code);
            return Err("the code was used before");
        }
        if now.since(grant.issued_at) > CODE_LIFETIME {
            return Err("the code has expired");
        }
        if get("redirect_uri") != grant.request.redirect_uri {
            return Err("redirect_uri is not the one of the authorization request");
        }
        let verifier = get("code_verifier");
        if !(43..=128).contains(&verifier.len()) || challenge_of(verifier) != grant.request.code_challenge {
            return Err("code_verifier does not fit the challenge");
        }
        Ok((code.to_owned(), grant.request.clone(), grant.session))
    }

    fn issue_tokens(&self, code: String, request: &AuthorizationRequest, session: Session) -> Outcome {
        let now = self.clock.now();
        let access_token = random_text()?;
        let mut claims = session.person.claims(&request.scope);
        for (name, value) in [
            ("iss", json!(self.issuer)),
            ("aud", json!(self.client.id)),
            ("iat", json!(now.0)),
            ("exp", json!(now.after(ID_TOKEN_LIFETIME).0)),
            ("auth_time", json!(session.authenticated_at.0)),
            ("at_hash", json!(at_hash(&access_token))),
        ] {
            claims.insert(name.to_owned(), value);
        }
        if let Some(nonce) = &request.nonce {
            claims.insert("nonce".to_owned(), nonce.as_str().into());
        }
        let answer = json!({
            "access_token": access_token,
            "token_type": "Bearer",
            "expires_in": ACCESS_TOKEN_LIFETIME.as_secs(),
            "scope": request.scope,
            "id_token": self.key.sign(&claims)?,
        });
        let token = AccessToken { person: session.person, scope: request.scope.clone(), code };
        self.state().access_tokens.put(access_token, token, now);
        Ok(json_answer(StatusCode::OK, &answer))
    }

    /// RFC 6749 §2.3.1: by header or by form, not by both.
    fn is_client(&self, headers: &HeaderMap, params: &Params) -> bool {
        let by_form = params.get("client_secret").map(|secret| (params.get("client_id").cloned(), secret.clone()));
        let by_header = headers.get(AUTHORIZATION).map(basic_credentials);
        let (id, secret) = match (by_header, by_form) {
            (Some(Some((id, secret))), None) => (id, secret),
            (None, Some((Some(id), secret))) => (id, secret),
            _ => return false,
        };
        let same_id = params.get("client_id").is_none_or(|named| *named == id);
        let right_secret = verify_slices_are_equal(secret.as_bytes(), self.client.secret.as_bytes()).is_ok();
        same_id && id == self.client.id && right_secret
    }

    /// Core §5.3.
    fn userinfo(&self, call: &Call) -> Response<Body> {
        let token = call.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (scheme, token) = token.split_once(' ').unwrap_or_default();
        let now = self.clock.now();
        match self.state().access_tokens.get(token, now) {
            Some(token_of) if scheme.eq_ignore_ascii_case("bearer") => {
                json_answer(StatusCode::OK, &token_of.person.claims(&token_of.scope).into())
            }
            _ => {
                let mut response = oauth_error(StatusCode::UNAUTHORIZED, "invalid_token", "unknown or expired");
                let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
                response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
                response
            }
        }
    }

    /// RP-Initiated Logout 1.0 §2, §3. Without a hint that fits, the person is asked.
    fn end_session(&self, call: &Call) -> Response<Body> {
        let posted = call.method == Method::POST;
        let Some(params) = params(if posted { &call.form } else { &call.query }) else {
            return self.refuse("A parameter came twice.");
        };
        let hint = match params.get("id_token_hint").map(|hint| self.key.open(hint)) {
            Some(None) => return self.refuse("The ID token hint is not a token of this provider."),
            Some(Some(claims)) => Some(claims),
            None => None,
        };
        let client_named = params.get("client_id").is_some_and(|id| *id == self.client.id)
            || hint.as_ref().is_some_and(|claims| claims.get("aud") == Some(&json!(self.client.id)));
        let back = params.get("post_logout_redirect_uri");
        if back.is_some_and(|uri| *uri != self.client.post_logout_redirect_uri || !client_named) {
            return self
                .refuse("The post-logout redirect URI is not the registered one, or the client is not known here.");
        }
        let confirmed = posted && params.contains_key("confirm") && self.is_own_form(call);
        let asked_for = |session: Session| {
            let subject = json!(session.person.subject());
            hint.as_ref().is_some_and(|claims: &Map<String, Value>| claims.get("sub") == Some(&subject))
        };
        if self.session(call).is_some_and(|session| !confirmed && !asked_for(session)) {
            let hidden = hidden(&params, "confirm");
            return self.show(StatusCode::OK, "Sign out of the demo", SIGN_OUT, context! { hidden });
        }
        let answer = match (back, params.get("state")) {
            (Some(back), Some(state)) => {
                let state: String = url::form_urlencoded::byte_serialize(state.as_bytes()).collect();
                redirect(&format!("{back}?state={state}"))
            }
            (Some(back), None) => redirect(back),
            (None, _) => self.show(StatusCode::OK, "Signed out", SIGNED_OUT, context! {}),
        };
        self.forget(call, answer)
    }

    /// Ends this browser's session here.
    fn forget(&self, call: &Call, mut answer: Response<Body>) -> Response<Body> {
        if let Some(id) = session_id(&call.headers) {
            self.state().sessions.remove_where(|held, _| held == id);
        }
        set_cookie(&mut answer, &format!("{COOKIE_NAME}=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0"));
        answer
    }

    fn session(&self, call: &Call) -> Option<Session> {
        let id = session_id(&call.headers)?;
        self.state().sessions.get(id, self.clock.now()).copied()
    }

    /// Browsers write `Origin` on every form that is posted.
    fn is_own_form(&self, call: &Call) -> bool {
        call.headers.get(ORIGIN).is_none_or(|origin| origin.as_bytes() == self.issuer.as_bytes())
    }

    fn refuse(&self, what: &str) -> Response<Body> {
        self.show(StatusCode::BAD_REQUEST, "This request is refused", REFUSED, context! { what })
    }

    fn show(
        &self,
        status: StatusCode,
        title: &str,
        template: &'static str,
        values: minijinja::Value,
    ) -> Response<Body> {
        let values = context! { title, back => self.client.origin.as_str(), ..values };
        page(status, title, template, values, &self.client.origin)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing that could panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The fields with which a form sends the same request again.
fn hidden(params: &Params, button: &str) -> minijinja::Value {
    params.iter().filter(|(name, _)| *name != button).map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

fn session_id(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|cookie| cookie.to_str().ok());
    cookies
        .flat_map(|cookie| cookie.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(COOKIE_NAME)?.strip_prefix('='))
}

/// Both parts are form-urlencoded before base64 (RFC 6749 §2.3.1).
fn basic_credentials(header: &HeaderValue) -> Option<(String, String)> {
    let (scheme, credentials) = header.to_str().ok()?.split_once(' ')?;
    let credentials = String::from_utf8(STANDARD.decode(credentials).ok()?).ok()?;
    let (id, secret) = credentials.split_once(':')?;
    let decode = |part: &str| {
        let part = format!("part={}", part.replace('&', "%26"));
        url::form_urlencoded::parse(part.as_bytes()).next().map(|(_, value)| value.into_owned())
    };
    scheme.eq_ignore_ascii_case("basic").then_some((decode(id)?, decode(secret)?))
}

fn json_answer(status: StatusCode, value: &Value) -> Response<Body> {
    plain(status, "application/json", value.to_string())
}

/// RFC 6749 §5.2.
fn oauth_error(status: StatusCode, error: &str, description: &str) -> Response<Body> {
    json_answer(status, &json!({"error": error, "error_description": description}))
}

fn redirect(to: &str) -> Response<Body> {
    let mut response = plain(StatusCode::SEE_OTHER, "text/plain", String::new());
    match HeaderValue::try_from(to) {
        Ok(to) => _ = response.headers_mut().insert(LOCATION, to),
        Err(_) => *response.status_mut() = StatusCode::BAD_REQUEST,
    }
    response
}

fn set_cookie(response: &mut Response<Body>, cookie: &str) {
    // Our own ids are base64url.
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
}

#[cfg(test)]
mod tests;
