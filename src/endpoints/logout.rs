//! Signing out, here and at the provider (OpenID Connect RP-Initiated Logout 1.0), protected against cross-site requests.

use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use tracing::info;
use url::form_urlencoded;

use super::Endpoints;
use super::query::{self, Repeated};
use crate::authn::oidc::provider::SigningOut;
use crate::authn::session::set_cookies;
use crate::message::{Body, Inbound, Initiator, Origin, ReturnTo, Windows};
use crate::policy::Denial;
use crate::reply::pages::Page;
use crate::reply::{ClientFault, Exchange, Notice, Rejection, Replies, redirect};

impl Endpoints {
    pub(super) async fn logout(
        &self,
        inbound: &Inbound,
        replies: &Replies,
        exchange: &Exchange<'_>,
    ) -> Result<Response<Body>, Rejection> {
        let return_to = self.return_after_logout(inbound)?;
        let is_ours = Initiator::of(inbound.headers(), &self.rules.own, &[]) == Initiator::Own
            && (inbound.method() == Method::POST || is_meant(inbound.headers(), inbound.windows()));
        match (is_ours, inbound.method()) {
            (true, _) => Ok(self.sign_out(inbound, return_to).await),
            (false, &Method::POST) => Err(ClientFault::CrossSite.into()),
            (false, _) => Ok(self.ask(inbound, replies, exchange)),
        }
    }

    /// Where a sign-out ends; with the `state` of one that this browser began and that had a place to return to, goes there
    /// (RP-Initiated Logout §3). Once.
    pub(super) async fn signed_out(
        &self,
        inbound: &Inbound,
        replies: &Replies,
        exchange: &Exchange<'_>,
    ) -> Result<Response<Body>, Rejection> {
        let begun = self.begun_here(inbound);
        if begun.is_none()
            && let Some(path) = &self.settings.signed_out_path
            && let Some(hop) = self.once_more(inbound, path)
        {
            return Ok(hop);
        }
        let return_to = begun.as_ref().and_then(Option::as_ref);
        let mut response = match return_to.and_then(|return_to| ReturnTo::parse(return_to, &self.rules).ok()) {
            Some(return_to) => redirect(StatusCode::SEE_OTHER, return_to.as_str()),
            None => self.signed_out_page(inbound, replies, exchange).await,
        };
        let jar = self.sessions.jar();
        set_cookies(response.headers_mut(), begun.map(|_| jar.logout().delete()));
        Ok(response)
    }

    /// The place to return to of the sign-out whose `state` came back, if it went out from this browser.
    fn begun_here(&self, inbound: &Inbound) -> Option<Option<String>> {
        let state = query::single(inbound.query(), "state").ok().flatten()?;
        let expected = inbound.cookies().get(self.sessions.jar().logout().name()).ok().flatten()?;
        verify_slices_are_equal(digest_of(&state).as_bytes(), expected).ok()?;
        self.logout_state.open(state.as_bytes()).ok().map(|(return_to, _)| return_to)
    }

    async fn sign_out(&self, inbound: &Inbound, return_to: Option<ReturnTo>) -> Response<Body> {
        let session = self.sessions.sign_out(inbound.cookies()).await;
        let provider = session.as_ref().and_then(|(record, _)| self.providers.by_party(record.party));
        // With nobody signed in an only provider is still the place to sign out at; of several it is any one's guess.
        let only = Some(self.providers.first()).filter(|_| self.providers.iter().len() == 1);
        let provider = provider.map(|(_, provider)| provider).or(only);
        if session.is_some() {
            info!("signed out");
        }
        let logout_hint = session.as_ref().and_then(|(_, contents)| {
            let claim = provider?.settings().logout_hint_claim.as_ref()?;
            contents.claims()?.get(claim)?.as_str().map(str::to_owned)
        });
        let tokens = session.and_then(|(_, contents)| contents.tokens());
        let hint = tokens.and_then(|tokens| {
            provider?.revoke(tokens.refresh, tokens.access);
            tokens.id
        });
        let state = self.logout_state.seal(&return_to.as_ref().map(|return_to| return_to.as_str().to_owned()));
        let leaving = SigningOut {
            id_token: hint.as_ref().map(|hint| hint.expose_secret()),
            hint: logout_hint.as_deref(),
            state: Some(&state),
        };
        let away = provider.and_then(|provider| provider.end_session_url(leaving));
        let comes_back = away.as_ref().is_some_and(|url| url.query_pairs().any(|(_, value)| value == state));
        let location = match away {
            Some(url) => url.into(),
            None => match (return_to, &self.settings.signed_out_path) {
                (Some(return_to), _) => return_to.as_str().to_owned(),
                (None, Some(path)) => path.clone(),
                (None, None) => "/".to_owned(),
            },
        };
        let mut response = redirect(StatusCode::SEE_OTHER, &location);
        let jar = self.sessions.jar();
        let mark = comes_back.then(|| jar.logout().set(&digest_of(&state), Some(AWAY)));
        set_cookies(response.headers_mut(), jar.delete_session(inbound.cookies()).into_iter().chain(mark));
        response
    }

    fn return_after_logout(&self, inbound: &Inbound) -> Result<Option<ReturnTo>, ClientFault> {
        let asked = query::single(inbound.query(), "rd").map_err(|Repeated| ClientFault::Parameters("rd_repeated"))?;
        asked.map(|rd| ReturnTo::parse(&rd, &self.rules)).transpose().map_err(ClientFault::ReturnTo)
    }

    /// 403 by the audience; to a person whose account is not enough, with the way to use another one and come back.
    pub fn deny(
        &self,
        denial: Denial,
        inbound: &Inbound,
        replies: &Replies,
        exchange: &mut Exchange<'_>,
    ) -> Response<Body> {
        exchange.refused(denial.code());
        let notice = Notice::denial(denial);
        let notice = match (denial, &self.settings.logout_path) {
            // A link and no form: from a page of ours a GET signs out, and needs neither form-action nor a Referer.
            (Denial::MissingRole | Denial::MissingGroup, Some(path)) => {
                let rd = form_urlencoded::Serializer::for_suffix(format!("{path}?"), path.len() + 1)
                    .append_pair("rd", self.asked_for(inbound).as_str())
                    .finish();
                notice.other(rd, "Use another account")
            }
            _ => notice,
        };
        replies.notify(&notice, exchange)
    }

    /// A link on another site must not sign anybody out: a page whose button POSTs.
    fn ask(&self, inbound: &Inbound, replies: &Replies, exchange: &Exchange<'_>) -> Response<Body> {
        let message = "Do you want to sign out of this site?";
        let notice = Notice::new(StatusCode::OK, "confirm_sign_out", Page::ConfirmSignOut, "Sign out?", message);
        let notice = Notice { post: true, ..notice.action(inbound.path_and_query(), "Sign out") };
        // Chromium applies form-action to the redirect that answers the form, so the provider has to be let through.
        let urls = self.providers.iter().filter_map(|provider| provider.end_session_url(SigningOut::default()));
        let origins: Vec<_> = urls.filter_map(|url| Origin::of(&url)).map(|origin| origin.to_string()).collect();
        replies.page(&notice, exchange, &origins)
    }

    /// Whoever is still signed in is told so: anybody can link here.
    async fn signed_out_page(&self, inbound: &Inbound, replies: &Replies, exchange: &Exchange<'_>) -> Response<Body> {
        if self.sessions.read(inbound.cookies()).await.is_ok() {
            let message = "You are still signed in to this site.";
            let notice = Notice::new(StatusCode::OK, "still_signed_in", Page::SignedOut, "Still signed in", message);
            let notice = match &self.settings.logout_path {
                Some(path) => notice.action(path, "Sign out").other("/", "Go to the front page"),
                None => notice.action("/", "Go to the front page"),
            };
            return replies.page(&notice, exchange, &[]);
        }
        let message = "You have been signed out.";
        let notice = Notice::new(StatusCode::OK, "signed_out", Page::SignedOut, "Signed out", message);
        let notice = match self.sign_in_url() {
            Some(url) => notice.action(url, "Sign in again"),
            None => notice.action("/", "Go to the front page"),
        };
        replies.page(&notice, exchange, &[])
    }
}

/// How long a sign-out may be on its way through the provider.
const AWAY: Duration = Duration::from_secs(600);

/// What the browser keeps of a `state`, or of an address.
pub(super) fn digest_of(state: &str) -> String {
    URL_SAFE_NO_PAD.encode(&digest(&SHA256, state.as_bytes()).as_ref()[..16])
}

/// Whether a GET may be somebody's wish: browsers also fetch pages ahead of time and whatever a page embeds. Stricter than
/// [`is_prefetch`](crate::message::is_prefetch): a purpose that nobody knows yet signs nobody out. A frame that a page embeds looks
/// like one that somebody clicks in, but for `Sec-Fetch-User` (Fetch Metadata §2.4).
fn is_meant(headers: &HeaderMap, windows: Windows) -> bool {
    let is_clicked = || headers.get("sec-fetch-user").is_some_and(|user| user == "?1");
    let is_wish = |destination: &HeaderValue| {
        destination == "document" || destination == "empty" || (windows.show(destination.as_bytes()) && is_clicked())
    };
    !headers.contains_key("sec-purpose") && headers.get("sec-fetch-dest").is_none_or(is_wish)
}
