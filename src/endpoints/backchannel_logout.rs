//! The provider says, without the person's browser, that a session has ended (OpenID Connect Back-Channel Logout 1.0 §2.5 to
//! §2.8). The token is what proves it: there is no cookie, no origin and no address to believe.

use http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;
use tracing::info;

use super::form::{self, FormFault};
use super::{Endpoints, take_logout};
use crate::authn::oidc::decryption::is_encrypted;
use crate::authn::oidc::logout_token::{LogoutTokenError, UnprovenLogout};
use crate::authn::session::ToldOf;
use crate::authn::session::ended::Told;
use crate::message::{Body, Inbound};
use crate::reply::pages::protect;
use crate::reply::{ClientFault, Exchange, Rejection, json_answer};

/// Why nothing ended. The texts are told to the provider.
#[derive(Debug, thiserror::Error)]
enum LogoutFault {
    #[error("the request is not a form")]
    MediaType,
    #[error("the request body is too large, too slow or broken off")]
    Body,
    #[error("the parameter logout_token is missing")]
    Missing,
    #[error("the parameter logout_token is repeated")]
    Repeated,
    #[error(transparent)]
    Token(#[from] LogoutTokenError),
    #[error(transparent)]
    TooMany(ClientFault),
}

impl LogoutFault {
    fn of(fault: FormFault) -> Self {
        match fault {
            FormFault::MediaType => Self::MediaType,
            FormFault::TooLarge | FormFault::TooSlow | FormFault::BrokenOff => Self::Body,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::MediaType => "logout_media_type",
            Self::Body => "logout_body",
            Self::Missing => "logout_token_missing",
            Self::Repeated => "logout_token_twice",
            Self::Token(error) => error.code(),
            Self::TooMany(_) => "too_many_logouts",
        }
    }
}

impl Endpoints {
    /// 200 where it has ended, whether there was such a session or not; 400 where it was not the provider who asked.
    pub(super) async fn backchannel_logout(
        &self,
        inbound: Inbound,
        exchange: &mut Exchange<'_>,
    ) -> Result<Response<Body>, Rejection> {
        let fault = match self.end_for_provider(inbound).await {
            Ok(()) => {
                let mut response = Response::new(Body::Empty);
                protect(&mut response);
                return Ok(response);
            }
            Err(LogoutFault::TooMany(fault)) => return Err(fault.into()),
            Err(fault) => fault,
        };
        exchange.refused(fault.code());
        info!(reason = fault.code(), request = exchange.id(), cause = %fault, "logout refused");
        let error = json!({ "error": "invalid_request", "error_description": fault.to_string() });
        let mut response = json_answer(StatusCode::BAD_REQUEST, "application/json", &error);
        if matches!(fault, LogoutFault::MediaType | LogoutFault::Body) {
            // What was not read of the body is no next request.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }

    async fn end_for_provider(&self, inbound: Inbound) -> Result<(), LogoutFault> {
        let client = inbound.client().address;
        let form = form::read(inbound.into_request()).await.map_err(LogoutFault::of)?;
        let token = logout_token(&form)?;
        let take_turn = || take_logout(&self.backchannel_logouts, client).map_err(LogoutFault::TooMany);
        let was_encrypted = is_encrypted(&token);
        // As dear as a signature of our own.
        if was_encrypted {
            take_turn()?;
        }
        let token = self.providers.open_logout_token(&token)?;
        let unproven = UnprovenLogout::read(&token)?;
        let provider = self.providers.addressed_by(&unproven)?;
        if !was_encrypted {
            if provider.settings().decryption.required {
                return Err(LogoutTokenError::NotEncrypted.into());
            }
            // What comes now is dear: signatures, and perhaps a call for keys.
            take_turn()?;
        }
        let logout = provider.verify_logout_token(&unproven, self.sessions.remembered_for()).await?;
        let (sid, sub) = (logout.session.as_deref(), logout.subject.as_deref());
        let (party, begun_by) = (provider.settings().party(), logout.begun_by);
        let names = ToldOf { party, issuer: &logout.issuer, sid, sub, begun_by };
        self.sessions.end_told(names, Told::ByProvider).await;
        let what = if sid.is_some() { "session" } else { "every session of the subject" };
        info!(provider = provider.settings().id, what, "ended by the provider");
        Ok(())
    }
}

/// Exactly one; other parameters are ignored (§2.5).
fn logout_token(form: &[u8]) -> Result<String, LogoutFault> {
    let mut tokens = url::form_urlencoded::parse(form).filter(|(name, _)| name == "logout_token");
    let (_, token) = tokens.next().ok_or(LogoutFault::Missing)?;
    if tokens.next().is_some() { Err(LogoutFault::Repeated) } else { Ok(token.into_owned()) }
}
