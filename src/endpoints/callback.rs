//! The provider's answer (OpenID Connect Core §3.1.2.5, RFC 6749 §4.1.2, RFC 9207): verified, turned into a session, and the
//! person sent where they wanted to go. Whatever can't be redeemed helps the person on instead of ending on a dead page.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use serde_json::{Map, Value};
use tokio::sync::oneshot;
use tracing::{info, warn};
use url::form_urlencoded;

use super::Endpoints;
use super::form;
use crate::authn::oidc::id_token::{Expected, IdTokenError, Nonce, VerifiedClaims};
use crate::authn::oidc::login::{LoginTransaction, MAX_ATTEMPTS, Recognised, Redeemed, Start, StrayCause};
use crate::authn::oidc::response::{AuthorizationResponse, ResponseError, ResponseType, needs_the_person};
use crate::authn::oidc::token_endpoint::{TokenError, Tokens};
use crate::authn::oidc::{Provider, Wish};
use crate::authn::session::record::StoredTokens;
use crate::authn::session::renewing::Renewing;
use crate::authn::session::stored::Away;
use crate::authn::session::{SignedIn, set_cookies};
use crate::message::{Body, Inbound, OwnCookies, ReturnTo};
use crate::reply::{ClientFault, ProviderFault, Rejection, Replies, redirect};
use crate::secret::SecretString;
use crate::telemetry::chain;

/// Error codes after which a new start is what the person would do anyway (Core §3.1.2.6, and providers whose own sign-in
/// page expired).
const RESTARTABLE: [&str; 3] = ["temporarily_unavailable", "login_required", "interaction_required"];
/// The most that is logged of the provider's words, in characters.
const MAX_LOGGED: usize = 256;

/// Whose answer it is, and the cookies that came with it.
#[derive(Clone, Copy)]
struct Answer<'a> {
    provider: &'a Arc<Provider>,
    cookies: &'a OwnCookies,
    /// In a frame, to which it may have come without us.
    is_embedded: bool,
}

/// A callback that is not redeemed.
struct Stray<'a> {
    return_to: Option<&'a str>,
    attempts: u8,
    cause: StrayCause,
    wish: &'a Wish,
}

/// What every ID token of one sign-in is held against.
#[derive(Clone, Copy)]
struct Asked<'a> {
    nonce: &'a str,
    wish: &'a Wish,
    /// Who says that it is their answer.
    issuer: Option<&'a str>,
    /// What came back with the code.
    state: Option<&'a str>,
    /// The code.
    code: &'a str,
}

impl Endpoints {
    pub(super) async fn callback(
        self: &Arc<Self>,
        provider: &Arc<Provider>,
        inbound: Inbound,
        replies: &Replies,
    ) -> Result<Response<Body>, Rejection> {
        let cookies = inbound.cookies().clone();
        let is_embedded = inbound.is_embedded_elsewhere();
        let outcome = match read(provider, inbound).await {
            Ok(response) => self.finish_login(Answer { provider, cookies: &cookies, is_embedded }, response).await,
            Err(fault) => Err(fault.into()),
        };
        replies.metrics().sign_in(match &outcome {
            Ok(_) => "ok",
            Err(rejection) => rejection.notice().code,
        });
        outcome
    }

    async fn finish_login(
        self: &Arc<Self>,
        answer: Answer<'_>,
        response: AuthorizationResponse,
    ) -> Result<Response<Body>, Rejection> {
        let Answer { provider, cookies, is_embedded } = answer;
        let state = response.state.as_deref().ok_or(ClientFault::Parameters("callback_state_missing"))?;
        let login = match self.logins.recognise(provider, state, cookies) {
            Recognised::Fresh(login) => login,
            Recognised::Stray { return_to, attempts, cause } => {
                let wish = &Wish::default();
                // Anybody can frame one: it has no try left that calls the provider.
                let attempts = if is_embedded && provider.pushes() { MAX_ATTEMPTS } else { attempts };
                return self.help_on(answer, Stray { return_to: return_to.as_deref(), attempts, cause, wish }).await;
            }
        };
        is_issuer(provider, &response)?;
        if let Some(error) = response.error {
            return self.provider_error(answer, &login, error, response.description).await;
        }
        let renewing = login.wish().renewing;
        let return_to = login.return_to().to_owned();
        match (self.redeem_to_the_end(answer, response, login).await, renewing) {
            // The session is as good as it was; the next try comes by itself.
            (Err(rejection), Some(renewing)) if self.sessions.is_live(&renewing) => {
                warn!(reason = rejection.notice().code, "a session could not be renewed; it goes on as it is for now");
                Ok(self.land(&self.checked(&return_to)))
            }
            (outcome, _) => outcome,
        }
    }

    /// A code is good for once, so that a redemption that has begun is not cut off in the middle, neither by a client that goes away
    /// nor by a stop: a session that lies in the store is renewed all the same.
    async fn redeem_to_the_end(
        self: &Arc<Self>,
        Answer { provider, cookies, is_embedded }: Answer<'_>,
        response: AuthorizationResponse,
        login: Box<LoginTransaction>,
    ) -> Result<Response<Body>, Rejection> {
        let (this, provider, cookies) = (Arc::clone(self), Arc::clone(provider), cookies.clone());
        // Goes away with this future.
        let (asker, _here) = oneshot::channel();
        let redeeming = async move {
            let answer = Answer { provider: &provider, cookies: &cookies, is_embedded };
            this.redeem_answer(answer, response, login, &asker).await
        };
        self.sessions.detached(redeeming).await.ok_or(Away)?
    }

    async fn redeem_answer(
        &self,
        answer: Answer<'_>,
        response: AuthorizationResponse,
        login: Box<LoginTransaction>,
        asker: &oneshot::Sender<()>,
    ) -> Result<Response<Body>, Rejection> {
        let Answer { provider, cookies, .. } = answer;
        let code = response.code.ok_or(ClientFault::Parameters("callback_code_missing"))?;
        let (return_to, attempts) = (login.return_to().to_owned(), login.attempts());
        let Redeemed { nonce, pkce_verifier, wish } = login.redeem();
        let (state, code_sent) = (response.state.as_deref(), code.expose_secret());
        let asked = Asked { nonce: &nonce, wish: &wish, issuer: response.issuer.as_deref(), state, code: code_sent };
        let in_front = verify_in_front(provider, response.id_token.as_ref(), asked).await?;
        let mut tokens = match provider.redeem_code(code.expose_secret(), &pkce_verifier).await {
            Ok(tokens) => tokens,
            // Another replica was faster, or the person took too long on the way back.
            Err(TokenError::InvalidGrant) => {
                let (return_to, cause) = (Some(return_to.as_str()), StrayCause::CodeSpent);
                return self.help_on(answer, Stray { return_to, attempts, cause, wish: &wish }).await;
            }
            Err(error) => return Err(ProviderFault::Token(error).into()),
        };
        let tokens_at = self.logins.now();
        tokens.id_token = provider.open_id_token(tokens.id_token).map_err(ProviderFault::IdToken)?;
        let claims = verify(provider, &tokens, asked, in_front).await?;
        if let Some(renewing) = wish.renewing.filter(|one| !self.sessions.is_to_renew(one, &claims)) {
            return self.start_anew(answer, &renewing, &return_to, attempts).await;
        }
        let userinfo = userinfo(provider, &tokens, &claims).await?;
        // Signed out while userinfo was asked.
        if let Some(renewing) = wish.renewing.filter(|one| !self.sessions.is_live(one)) {
            if let Some((_, provider)) = self.providers.by_party(renewing.party()) {
                provider.revoke(tokens.refresh_token, Some(tokens.access_token));
            }
            return self.start_anew(answer, &renewing, &return_to, attempts).await;
        }
        if asker.is_closed() && !wish.renewing.is_some_and(|one| one.is_of_the_store()) {
            // A session that nobody would have; the one that the browser has stays. These tokens are left to expire: with them some
            // providers would revoke those that the same person's next attempt brings.
            info!(provider = provider.settings().id, "nobody is signed in: the browser has gone away meanwhile");
            return Ok(self.land(&self.checked(&return_to)));
        }
        let signed_in = SignedIn {
            party: provider.settings().party(),
            claims: &claims,
            userinfo: userinfo.as_ref(),
            tokens: stored(&tokens),
            tokens_at,
            clock_skew: provider.settings().clock_skew,
            renewing: wish.renewing,
            replaces: wish.replaces,
        };
        let mut set = self.sessions.create(&signed_in, cookies).await?;
        let how = if wish.renewing.is_some() { "renewed" } else { "signed in" };
        info!(provider = provider.settings().id, subject = claims.subject(), "{how}");
        let mut response = self.land(&self.checked(&return_to));
        if wish.renewing.is_none() {
            set.push(self.logins.succeeded(attempts));
        }
        set_cookies(response.headers_mut(), set);
        Ok(response)
    }

    async fn provider_error(
        &self,
        answer: Answer<'_>,
        login: &LoginTransaction,
        error: String,
        description: Option<String>,
    ) -> Result<Response<Body>, Rejection> {
        if let Some(renewing) = login.wish().renewing {
            if needs_the_person(&error) {
                return self.start_anew(answer, &renewing, login.return_to(), login.attempts()).await;
            }
            // The session is as good as it was; the next try comes by itself.
            warn!(error = cut(error), "the provider did not renew a session; it goes on as it is for now");
            return Ok(self.land(&self.checked(login.return_to())));
        }
        if error == "access_denied" {
            return Err(ClientFault::AccessDenied.into());
        }
        if RESTARTABLE.contains(&error.as_str()) {
            let (return_to, attempts) = (Some(login.return_to()), login.attempts());
            let stray = Stray { return_to, attempts, cause: StrayCause::ProviderRestart, wish: login.wish() };
            return self.help_on(answer, stray).await;
        }
        Err(ProviderFault::Authorization { error: cut(error), description: description.map(cut) }.into())
    }

    /// The provider does not vouch for the session any more, or for somebody else: it ends, and a sign-in begins.
    async fn start_anew(
        &self,
        answer: Answer<'_>,
        renewing: &Renewing,
        return_to: &str,
        attempts: u8,
    ) -> Result<Response<Body>, Rejection> {
        self.sessions.end_renewing(renewing).await;
        info!(reason = "session_ended", "the provider does not vouch for the session any more");
        let (return_to, wish) = (self.checked(return_to), Wish::default());
        let attempts = attempts.saturating_add(1);
        self.start(answer.provider, answer.cookies, Start { return_to: return_to.as_str(), attempts, wish: &wish })
            .await
    }

    /// A callback that is not redeemed: with a session that is enough the person goes to the application, else a fresh
    /// sign-in starts, until the third in a chain ends on the page that names the cause.
    async fn help_on(
        &self,
        answer: Answer<'_>,
        Stray { return_to, attempts, cause, wish }: Stray<'_>,
    ) -> Result<Response<Body>, Rejection> {
        info!(reason = cause.code(), attempts, "callback not redeemed");
        let return_to = return_to.map_or_else(ReturnTo::root, |return_to| self.checked(return_to));
        // A session that is to become stronger would only be sent back here.
        if !wish.asks_for_proof() && self.sessions.read(answer.cookies).await.is_ok() {
            return Ok(redirect(StatusCode::SEE_OTHER, return_to.as_str()));
        }
        let attempts = attempts.saturating_add(1);
        if attempts >= MAX_ATTEMPTS {
            return Err(ClientFault::Chain(cause).into());
        }
        self.start(answer.provider, answer.cookies, Start { return_to: return_to.as_str(), attempts, wish }).await
    }

    /// A return address from a seal, held against today's rules.
    fn checked(&self, return_to: &str) -> ReturnTo {
        ReturnTo::parse(return_to, &self.rules).unwrap_or_else(|_| ReturnTo::root())
    }
}

/// The provider's answer, in the response mode that was asked for and in no other. An error may come in the query all the same.
async fn read(provider: &Provider, inbound: Inbound) -> Result<AuthorizationResponse, ClientFault> {
    let mode = provider.settings().response_mode;
    let is_post = *inbound.method() == Method::POST;
    let text = match is_post {
        true => form::read(inbound.into_request()).await?,
        false => Bytes::copy_from_slice(inbound.query().unwrap_or_default().as_bytes()),
    };
    let pairs = form_urlencoded::parse(&text);
    let response = if mode.is_jwt() {
        let signed = AuthorizationResponse::signed(pairs).map_err(ClientFault::Response)?;
        let verified = provider.verify_response(signed.jwt.expose_secret()).await;
        let verified = verified.map_err(|error| ClientFault::Response(ResponseError::Jwt(error)))?;
        signed.agrees_with(&verified).map_err(ClientFault::Response)?;
        verified
    } else {
        AuthorizationResponse::read(pairs).map_err(ClientFault::Response)?
    };
    if mode.is_post() && !is_post && response.error.is_none() {
        return Err(ClientFault::Response(ResponseError::Mode));
    }
    Ok(response)
}

/// The ID token of the hybrid flow (Core §3.3.2.12), before the code is redeemed.
async fn verify_in_front(
    provider: &Provider,
    id_token: Option<&SecretString>,
    Asked { nonce, wish, state, code, .. }: Asked<'_>,
) -> Result<Option<VerifiedClaims>, ProviderFault> {
    if provider.settings().response_type == ResponseType::Code {
        return Ok(None);
    }
    let id_token = id_token.ok_or(ProviderFault::IdToken(IdTokenError::Malformed))?;
    let nonce = Nonce::Sent(nonce);
    let expected = Expected { nonce, access_token: None, code: Some(code), state, in_front: true, wish };
    let id_token = provider.open_id_token(id_token.clone()).map_err(ProviderFault::IdToken)?;
    provider.verify_id_token(id_token.expose_secret(), expected).await.map(Some).map_err(ProviderFault::IdToken)
}

/// The ID token first, which must say what the one `in_front` did, if there was one.
async fn verify(
    provider: &Provider,
    tokens: &Tokens,
    Asked { nonce, wish, issuer, state, code }: Asked<'_>,
    in_front: Option<VerifiedClaims>,
) -> Result<VerifiedClaims, ProviderFault> {
    let nonce = Nonce::Sent(nonce);
    let access_token = Some(tokens.access_token.expose_secret());
    let expected = Expected { nonce, access_token, code: Some(code), state, in_front: false, wish };
    let claims =
        provider.verify_id_token(tokens.id_token.expose_secret(), expected).await.map_err(ProviderFault::IdToken)?;
    if let Some(in_front) = &in_front {
        claims.agrees_with(in_front).map_err(ProviderFault::IdToken)?;
    }
    // RFC 9207 §2.4, where a provider has several issuers: the one that answered is the one whose token it is.
    if issuer.is_some_and(|issuer| claims.claims().get("iss").and_then(Value::as_str) != Some(issuer)) {
        return Err(ProviderFault::CallbackIssuer);
    }
    Ok(claims)
}

/// Userinfo: asked only when the ID token is fully verified.
async fn userinfo(
    provider: &Provider,
    tokens: &Tokens,
    claims: &VerifiedClaims,
) -> Result<Option<Map<String, Value>>, ProviderFault> {
    match provider.userinfo(&tokens.access_token, claims.subject()).await {
        Ok(userinfo) => Ok(userinfo),
        Err(error) if provider.settings().userinfo_required => Err(ProviderFault::Userinfo(error)),
        Err(error) => {
            warn!(error = chain(&error), "userinfo is not to be had; going on with the ID token alone");
            Ok(None)
        }
    }
}

fn cut(text: String) -> String {
    text.chars().take(MAX_LOGGED).collect()
}

/// RFC 9207 §2.4: compared also on error answers; missing is wrong where the provider says that it sends it.
fn is_issuer(provider: &Provider, response: &AuthorizationResponse) -> Result<(), ProviderFault> {
    let right = match &response.issuer {
        Some(issuer) => provider.settings().is_issuer(issuer),
        // Core §3.3.2.12: an ID token that comes with the code, and is verified, says whose answer it is.
        None if response.id_token.is_some()
            && response.error.is_none()
            && provider.settings().response_type == ResponseType::CodeIdToken =>
        {
            true
        }
        None => !provider.settings().demands_issuer(provider.metadata().as_deref()),
    };
    if right { Ok(()) } else { Err(ProviderFault::CallbackIssuer) }
}

fn stored(tokens: &Tokens) -> StoredTokens<'_> {
    StoredTokens {
        id: tokens.id_token.expose_secret(),
        access: tokens.access_token.expose_secret(),
        refresh: tokens.refresh_token.as_ref().map(|token| token.expose_secret()),
        access_expires_in: tokens.expires_in,
    }
}
