//! Our own endpoints: sign-in, callback, sign-out, claims for the front end, tokens for programs, and for the provider our keys and
//! request objects; and [`health`] on its own listener.

pub mod admin;
mod backchannel_logout;
pub mod callback;
mod choose;
mod form;
mod frontchannel_logout;
mod grants;
pub mod health;
mod hop;
mod initiated;
mod jwks;
mod kept_post;
pub mod login;
pub mod logout;
pub mod query;
mod request_object;
pub mod step_up;
pub mod userinfo;

pub use step_up::Demand;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Response};

use crate::authn::api_clients::{self, ApiClients};
use crate::authn::oidc::Providers;
use crate::authn::oidc::login::Logins;
use crate::authn::session::Sessions;
use crate::authn::session::kept::KeptPosts;
use crate::authn::session::seal::Sealer;
use crate::message::return_to::ReturnRules;
use crate::message::{Body, Inbound, Origin, ReturnTo};
use crate::rate::{Rate, RateLimit, TooMany};
use crate::reply::{ClientFault, Exchange, Rejection, Replies};
use crate::route::{Endpoint, Routes};

/// What the endpoints need to know beside the provider.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where `/auth/login` lies, for `sign_in_url`; `None` when it is switched off.
    pub login_path: Option<String>,
    /// Where `/auth/logout` lies; `None` when it is switched off.
    pub logout_path: Option<String>,
    /// Where a sign-out ends; `None` when it is switched off.
    pub signed_out_path: Option<String>,
    /// Where a form that was kept is sent after all; `None` where none is kept.
    pub kept_post_path: Option<String>,
    /// Further origins people may be sent back to.
    pub return_origins: Vec<Origin>,
    /// Access tokens are taken on guarded routes, so a challenge says so.
    pub accepts_bearer: bool,
    /// What API clients get tokens by.
    pub api_clients: api_clients::Settings,
    /// How often one client may sign in; `None`: as often as it likes.
    pub sign_in_rate: Option<Rate>,
}

/// All of them; one for all workers.
#[derive(Debug)]
#[allow(missing_docs, reason = "each field is its type")]
pub struct Endpoints {
    pub settings: Settings,
    pub providers: Providers,
    pub sessions: Arc<Sessions>,
    pub logins: Logins,
    pub api_clients: Option<ApiClients>,
    pub logout_state: Sealer<Option<String>>,
    pub demands: Sealer<Demand>,
    pub kept_posts: Option<KeptPosts>,
    pub routes: Arc<Routes>,
    pub rules: ReturnRules,
    pub sign_ins: Option<RateLimit>,
    pub backchannel_logouts: RateLimit,
    pub frontchannel_logouts: Arc<RateLimit>,
    pub request_objects: RateLimit,
}

impl Endpoints {
    /// Serves one request to one of ours.
    ///
    /// # Errors
    /// Whatever keeps it from its answer.
    pub async fn serve(
        self: &Arc<Self>,
        endpoint: Endpoint,
        inbound: Inbound,
        replies: &Replies,
        exchange: &mut Exchange<'_>,
    ) -> Result<Response<Body>, Rejection> {
        exchange.endpoint(endpoint.name());
        let allow = match endpoint {
            Endpoint::Login | Endpoint::Logout => "GET, POST",
            Endpoint::BackchannelLogout | Endpoint::Device | Endpoint::Token => "POST",
            Endpoint::Callback(provider) if self.providers.at(provider).settings().response_mode.is_post() => {
                "GET, POST"
            }
            Endpoint::Callback(_)
            | Endpoint::SignedOut
            | Endpoint::KeptPost
            | Endpoint::FrontchannelLogout
            | Endpoint::Userinfo
            | Endpoint::Jwks
            | Endpoint::RequestObject => "GET",
        };
        // Nothing of ours is a tunnel, though one asked for reads like a GET.
        if inbound.is_tunnel() || !allow.split(", ").any(|method| inbound.method().as_str() == method) {
            return Err(ClientFault::Method { allow }.into());
        }
        if matches!(endpoint, Endpoint::Login | Endpoint::Callback(_) | Endpoint::KeptPost) {
            self.take_sign_in(inbound.client().address)?;
        }
        if matches!(endpoint, Endpoint::Device | Endpoint::Token)
            && let Err(fault) = self.take_sign_in(inbound.client().address)
        {
            return Ok(grants::too_many(fault, exchange));
        }
        match endpoint {
            Endpoint::Login if *inbound.method() == Method::POST => self.initiated_by_form(inbound).await,
            Endpoint::Login => self.login(&inbound, replies, exchange).await,
            Endpoint::Callback(provider) => self.callback(self.providers.at(provider), inbound, replies).await,
            Endpoint::Logout => self.logout(&inbound, replies, exchange).await,
            Endpoint::BackchannelLogout => self.backchannel_logout(inbound, exchange).await,
            Endpoint::FrontchannelLogout => self.frontchannel_logout(&inbound).await,
            Endpoint::SignedOut => self.signed_out(&inbound, replies, exchange).await,
            Endpoint::KeptPost => self.kept_post(inbound, replies, exchange).await,
            Endpoint::Userinfo => self.userinfo(&inbound, replies, exchange).await,
            Endpoint::Jwks => self.jwks(),
            Endpoint::Device => Ok(self.device(inbound, exchange).await),
            Endpoint::Token => Ok(self.token(inbound, exchange).await),
            Endpoint::RequestObject => self.request_object(&inbound),
        }
    }

    /// How often one client may end sessions in the provider's name with a token: a provider that signs everybody out sends
    /// thousands, and each costs a signature check.
    pub const BACKCHANNEL_LOGOUTS: Rate = Rate { interval: Duration::from_millis(10), burst: 1000 };
    /// The same without one, as each browser does for itself.
    pub const FRONTCHANNEL_LOGOUTS: Rate = Rate { interval: Duration::from_millis(100), burst: 600 };

    /// How often one client may fetch request objects: a provider fetches one for each sign-in, and each costs a signature.
    pub const REQUEST_OBJECTS: Rate = Rate { interval: Duration::from_millis(10), burst: 1000 };

    /// So that nobody can spend everybody's calls of the provider.
    pub(in crate::endpoints) fn take_sign_in(&self, client: IpAddr) -> Result<(), ClientFault> {
        let turn = self.sign_ins.as_ref().map_or(Ok(()), |limit| turn_of(limit, client));
        turn.map_err(|TooMany { retry_after }| ClientFault::TooMany { reason: "too_many_sign_ins", retry_after })
    }

    /// Where the person wanted to go, from the request itself: only a GET can be repeated after a sign-in.
    pub(in crate::endpoints) fn asked_for(&self, inbound: &Inbound) -> ReturnTo {
        match *inbound.method() {
            Method::GET => ReturnTo::parse(inbound.path_and_query(), &self.rules).unwrap_or_else(|_| ReturnTo::root()),
            _ => ReturnTo::root(),
        }
    }

    /// The host of all redirect URIs: sign-ins and cookies live there and nowhere else.
    pub(in crate::endpoints) fn host(&self) -> &str {
        self.providers.first().settings().redirect_uri.host_str().unwrap_or_default()
    }

    /// Where a program can send the person to sign in.
    pub(in crate::endpoints) fn sign_in_url(&self) -> Option<String> {
        self.settings.login_path.as_ref().map(|path| format!("{}{path}", self.rules.own))
    }
}

/// So that nobody keeps others from ending sessions, or fills what remembers them.
fn take_logout(limit: &RateLimit, client: IpAddr) -> Result<(), ClientFault> {
    let turn = turn_of(limit, client);
    turn.map_err(|TooMany { retry_after }| ClientFault::TooMany { reason: "too_many_logouts", retry_after })
}

/// A proxy on this machine that is not named in `trusted_proxies` lends its address to all its clients, so loopback says
/// nothing about who asks.
fn turn_of(limit: &RateLimit, client: IpAddr) -> Result<(), TooMany> {
    if client.to_canonical().is_loopback() { Ok(()) } else { limit.client(client) }
}
