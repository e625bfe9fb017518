//! Where sign-ins start: the login endpoint (`?rd=` the place to return to; or a third party's, see `initiated`), and challenges on
//! guarded routes.

use std::sync::Arc;

use http::{Method, Response, StatusCode};
use tracing::warn;
use url::Url;

use super::Endpoints;
use super::choose::{Choosing, Named};
use super::initiated::{Initiated, in_a_window};
use super::kept_post::told;
use super::query::{self, Repeated};
use crate::admission::Challenge;
use crate::authn::oidc::login::{MAX_ATTEMPTS, Start, StrayCause};
use crate::authn::oidc::{Provider, Wish};
use crate::authn::session::renewing::Renewing;
use crate::authn::session::set_cookies;
use crate::message::{Body, Inbound, Origin, OwnCookies, ReturnTo};
use crate::reply::pages::Page;
use crate::reply::{ClientFault, Exchange, Notice, ProviderFault, Rejection, Replies, onward, redirect};
use crate::route::Route;

/// On the page with several providers.
const CHOOSE: &str = "Choose how you want to sign in.";

impl Endpoints {
    pub(super) async fn login(
        &self,
        inbound: &Inbound,
        replies: &Replies,
        exchange: &Exchange<'_>,
    ) -> Result<Response<Body>, Rejection> {
        if let Some(Initiated { provider, return_to, wish }) = self.initiated(inbound.query())? {
            in_a_window(inbound)?;
            if let Some(first) = self.shown_first(provider, inbound, inbound.path_and_query(), (replies, exchange)) {
                return Ok(first);
            }
            let start = Start { return_to: return_to.as_str(), attempts: 0, wish: &wish };
            return self.start(provider, inbound.cookies(), start).await;
        }
        let asked = query::single(inbound.query(), "rd").map_err(|Repeated| ClientFault::Parameters("rd_repeated"))?;
        let return_to = match asked {
            Some(rd) => ReturnTo::parse(&rd, &self.rules).map_err(ClientFault::ReturnTo)?,
            None => ReturnTo::root(),
        };
        let return_to = return_to.as_str();
        let demanded = self.demanded(inbound).await?;
        // What may send the browser here again by itself.
        let is_in_a_row = demanded.is_some() || self.shared_address(return_to).is_some();
        let attempts = if is_in_a_row { self.logins.finished_in_a_row(inbound.cookies()) } else { 0 };
        if attempts >= MAX_ATTEMPTS {
            let cause = if demanded.is_some() { StrayCause::NotSufficient } else { StrayCause::SessionLost };
            return Err(ClientFault::Chain(cause).into());
        }
        let candidates = self.candidates(self.route_of(return_to));
        let (provider, wish) = match (self.named(inbound)?, demanded, &*candidates) {
            (Named::One(provider, login_hint), demanded, _) => {
                let demanded = demanded.map(|(_, wish)| wish).unwrap_or_default();
                (&**provider, Wish { login_hint, ..demanded })
            }
            (Named::None, Some((provider, wish)), _) => (provider, wish),
            (Named::None, None, &[only]) => (&**only, Wish::default()),
            (unnamed, _, candidates) => {
                let message = match unnamed {
                    Named::UnknownDomain => "No sign-in service is known for that e-mail address.",
                    _ => CHOOSE,
                };
                let asked = Choosing { candidates, return_to, status: StatusCode::OK, message };
                return Ok(self.choose(asked, replies, exchange));
            }
        };
        if let Some(first) = self.shown_first(provider, inbound, inbound.path_and_query(), (replies, exchange)) {
            return Ok(first);
        }
        self.start(provider, inbound.cookies(), Start { return_to, attempts, wish: &wish }).await
    }

    /// Where people may sign in for a route: at the providers that it names, or else at any.
    fn candidates(&self, route: Option<&Route>) -> Vec<&Arc<Provider>> {
        match route {
            Some(route) if !route.providers.is_empty() => {
                route.providers.iter().map(|&index| self.providers.at(index)).collect()
            }
            _ => self.providers.iter().collect(),
        }
    }

    /// Asks whoever is not signed in to sign in: a person by a redirect to the provider, everyone else by 401 with the
    /// sign-in address, no cookie and no redirect.
    ///
    /// # Errors
    /// [`ProviderFault::Start`] while a sign-in can't start; [`ClientFault::TooMany`] where a start calls the provider and the
    /// client has no turn left.
    pub async fn challenge(
        &self,
        challenge: Challenge<'_>,
        mut inbound: Inbound,
        replies: &Replies,
        exchange: &mut Exchange<'_>,
    ) -> Result<Response<Body>, Rejection> {
        exchange.refused(challenge.reason);
        let kept = self.keep(&challenge, &mut inbound, replies).await;
        let inbound = &inbound;
        let not_kept = match kept {
            Ok(Some(response)) => return Ok(response),
            Ok(None) => "",
            Err(not_kept) => told(not_kept),
        };
        if !inbound.is_navigation() {
            let notice = self.unauthorized(challenge.reason, inbound).advice(not_kept);
            let step_up = challenge.is_step_up.then(|| Box::new(challenge.route.require.proof.clone()));
            return Ok(replies.notify(&Notice { step_up, ..notice }, exchange));
        }
        let return_to = self.asked_for(inbound);
        if let Some(hop) = self.once_more(inbound, return_to.as_str()) {
            return Ok(hop);
        }
        let candidates = match challenge.renews_at {
            // Another one would make another person of them.
            Some(provider) => vec![self.providers.at(provider)],
            None => self.candidates(Some(challenge.route)),
        };
        if inbound.host() != self.host() {
            return Ok(redirect(StatusCode::FOUND, &self.away_from_alias(inbound.host(), return_to, &candidates)));
        }
        let finished = match challenge.has_session && !challenge.is_step_up {
            true => 0,
            false => self.logins.finished_in_a_row(inbound.cookies()),
        };
        if finished >= MAX_ATTEMPTS {
            let cause = if challenge.is_step_up { StrayCause::NotSufficient } else { StrayCause::SessionLost };
            return Err(ClientFault::Chain(cause).into());
        }
        if let Some(renewing) = challenge.silently {
            let started = self.renew(renewing, inbound, return_to.as_str()).await;
            // The session is as good as it was. The browser has had its turn, so the page is not asked for it again.
            return started.or_else(|rejection| {
                warn!(reason = rejection.notice().code, "a session could not be renewed; it goes on as it is for now");
                Ok(redirect(StatusCode::FOUND, return_to.as_str()))
            });
        }
        if let &[provider] = candidates.as_slice() {
            if let Some(first) = self.shown_first(provider, inbound, return_to.as_str(), (replies, exchange)) {
                return Ok(first);
            }
            self.take_turn_of_start(provider, inbound)?;
            let wish = Wish::default().and(&challenge.route.require.proof);
            let start = Start { return_to: return_to.as_str(), attempts: finished, wish: &wish };
            return self.start(provider, inbound.cookies(), start).await;
        }
        let status = StatusCode::UNAUTHORIZED;
        let asked = Choosing { candidates: &candidates, return_to: return_to.as_str(), status, message: CHOOSE };
        Ok(self.choose(asked, replies, exchange))
    }

    /// On an alias host the cookies of a sign-in would never be seen: it starts at the redirect URI's host. At the login
    /// endpoint, because a proxy in front that puts a host of its own into every request (as nginx does unless told
    /// otherwise) makes each page there look like an alias again, and the browser would go round in a circle. The provider that
    /// the alias names goes along. Where the session is shown to the alias, too, and people may be sent there, they come back.
    fn away_from_alias(&self, alias: &str, return_to: ReturnTo, candidates: &[&Arc<Provider>]) -> String {
        let back = |origin| ReturnTo::parse(&format!("{origin}{}", return_to.as_str()), &self.rules).ok();
        let shared = self.shared_origin(alias).and_then(back);
        let return_to = shared.as_ref().unwrap_or(&return_to).as_str();
        let only = match candidates {
            [only] if self.providers.iter().len() > 1 => Some(("provider", only.settings().id.as_str())),
            _ => None,
        };
        let parameters = || [("rd", return_to)].into_iter().chain(only);
        match self.sign_in_url().and_then(|url| Url::parse_with_params(&url, parameters()).ok()) {
            Some(url) => url.into(),
            None => format!("{}{return_to}", self.rules.own),
        }
    }

    /// The origin of another host that the session is shown to, where people may be sent back to it. Of our own scheme: a
    /// session over https is not shown over http.
    fn shared_origin(&self, host: &str) -> Option<&Origin> {
        let scheme = |origin: &Origin| origin.as_str().starts_with("https:");
        let has_host = |origin: &&Origin| Url::parse(origin.as_str()).is_ok_and(|url| url.host_str() == Some(host));
        let ours = |origin: &&Origin| scheme(origin) == scheme(&self.rules.own);
        self.rules.allowed.iter().filter(|_| self.sessions.jar().is_shared_with(host)).filter(ours).find(has_host)
    }

    /// A return address on such a host.
    pub(super) fn shared_address(&self, return_to: &str) -> Option<Url> {
        let url = Url::parse(return_to).ok()?;
        self.shared_origin(url.host_str()?)?;
        Some(url)
    }

    /// Sends the browser of somebody who is signed in to their provider and back, without a word to them.
    async fn renew(&self, renewing: Renewing, inbound: &Inbound, return_to: &str) -> Result<Response<Body>, Rejection> {
        let provider =
            self.providers.by_party(renewing.party()).map_or(self.providers.first(), |(_, provider)| provider);
        self.take_turn_of_start(provider, inbound)?;
        let wish = Wish { renewing: Some(renewing), ..Wish::default() };
        self.start(provider, inbound.cookies(), Start { return_to, attempts: 0, wish: &wish }).await
    }

    /// Of a sign-in that begins on any page: only where requests are pushed does a start call the provider.
    fn take_turn_of_start(&self, provider: &Provider, inbound: &Inbound) -> Result<(), ClientFault> {
        if provider.pushes() { self.take_sign_in(inbound.client().address) } else { Ok(()) }
    }

    /// Sends the browser to the provider, to sign in as the page behind it demands, too. Where people are signed in inside frames, by
    /// way of a page of ours: a browser shows that in no frame of somebody else's page, and so nobody comes to the provider there.
    pub(super) async fn start(
        &self,
        provider: &Provider,
        cookies: &OwnCookies,
        start: Start<'_>,
    ) -> Result<Response<Body>, Rejection> {
        // A session that is only renewed is no worse for the page: what that demands besides is asked for afterwards.
        let route = self.route_of(start.return_to).filter(|_| start.wish.renewing.is_none());
        let mut wish = route.map_or_else(|| start.wish.clone(), |route| start.wish.and(&route.require.proof));
        wish.replaces = self.sessions.shown_id(cookies).or(wish.replaces).filter(|_| wish.renewing.is_none());
        let start = Start { wish: &wish, ..start };
        let started = self.logins.start(provider, cookies, start).await.map_err(ProviderFault::Start)?;
        let mut response = match self.sessions.jar().is_partitioned() {
            true => onward(&started.location),
            false => redirect(StatusCode::FOUND, &started.location),
        };
        set_cookies(response.headers_mut(), [started.cookie]);
        Ok(response)
    }

    pub(super) fn unauthorized(&self, reason: &'static str, inbound: &Inbound) -> Notice<'static> {
        let message = if *inbound.method() == Method::GET {
            "You are not signed in."
        } else {
            "You are not signed in (any more), so what you sent was not passed on."
        };
        let sign_in_url = self.sign_in_url();
        let notice = Notice::new(StatusCode::UNAUTHORIZED, reason, Page::Error, "Please sign in", message);
        let notice = match &sign_in_url {
            Some(url) => notice.action(url, "Sign in"),
            None => notice,
        };
        Notice { sign_in_url, bearer: self.settings.accepts_bearer.then_some(""), ..notice }
    }
}
