//! A sign-in that a third party starts, such as a portal of applications (OpenID Connect Core §4): `iss`, `target_link_uri` and
//! `login_hint`, by GET or POST. It only begins a flow, as any link to the login endpoint does, and nothing else of the
//! request gets into the authorization request.

use http::{Response, StatusCode};
use url::form_urlencoded::Serializer;

use super::Endpoints;
use super::form;
use super::query::{self, Repeated};
use crate::authn::oidc::{Provider, Settings, Wish};
use crate::message::{Body, Inbound, ReturnTo};
use crate::reply::{ClientFault, Rejection, redirect};

/// The longest hint that is passed on, in bytes.
const MAX_HINT: usize = 254;

/// Core §4: nobody is signed in unseen, in a frame or behind an image of somebody else's page. Browsers say what they fetch a
/// page for, and a page that is never shown in a frame needs no script to leave it. Where people look at frames, too, a page of ours
/// sees to it that they are those of the pages that may show them (see [`Endpoints::start`]).
pub(super) fn in_a_window(inbound: &Inbound) -> Result<(), ClientFault> {
    let mut destinations = inbound.headers().get_all("sec-fetch-dest").iter();
    let windows = inbound.windows();
    if destinations.all(|destination| windows.show(destination.as_bytes())) {
        Ok(())
    } else {
        Err(ClientFault::CrossSite)
    }
}

/// What a third party asks for.
pub(super) struct Initiated<'e> {
    pub(super) provider: &'e Provider,
    pub(super) return_to: ReturnTo,
    pub(super) wish: Wish,
}

impl Endpoints {
    /// Reads a query or form; `None` where it is no third party's.
    pub(super) fn initiated(&self, text: Option<&str>) -> Result<Option<Initiated<'_>>, ClientFault> {
        let single =
            |name| query::single(text, name).map_err(|Repeated| ClientFault::Parameters("login_parameter_repeated"));
        let (issuer, target, hint) = (single("iss")?, single("target_link_uri")?, single("login_hint")?);
        if issuer.is_none() && target.is_none() {
            return Ok(None);
        }
        // Two places to go, or two providers: one of them somebody did not mean.
        for name in ["rd", "provider", "email", "demand"] {
            if single(name)?.is_some() {
                return Err(ClientFault::Parameters("initiated_login_contradictory"));
            }
        }
        let issuer = issuer.ok_or(ClientFault::Parameters("initiated_login_issuer"))?;
        let is_of = |settings: &Settings| settings.issuer == issuer || settings.is_issuer(&issuer);
        let provider = self.providers.iter().find(|provider| is_of(provider.settings()));
        let provider = provider.ok_or(ClientFault::Parameters("initiated_login_issuer"))?;
        let return_to = match target {
            Some(target) => ReturnTo::parse(&target, &self.rules).map_err(ClientFault::ReturnTo)?,
            None => ReturnTo::root(),
        };
        let is_plain = |hint: &str| hint.len() <= MAX_HINT && !hint.chars().any(char::is_control);
        if hint.as_deref().is_some_and(|hint| !is_plain(hint)) {
            return Err(ClientFault::Parameters("initiated_login_hint"));
        }
        let wish = Wish { login_hint: hint.map(String::from).filter(|hint| !hint.is_empty()), ..Wish::default() };
        Ok(Some(Initiated { provider, return_to, wish }))
    }

    /// A POST from another site brings no cookie with `SameSite=Lax`, and must not replace the one that other tabs rely on:
    /// the same request once more, as a GET.
    pub(super) async fn initiated_by_form(&self, inbound: Inbound) -> Result<Response<Body>, Rejection> {
        in_a_window(&inbound)?;
        let form = form::read(inbound.into_request()).await.map_err(ClientFault::from)?;
        let text = std::str::from_utf8(&form).map_err(|_| ClientFault::Parameters("form_type"))?;
        let initiated = self.initiated(Some(text))?.ok_or(ClientFault::Parameters("initiated_login_issuer"))?;
        let start = format!("{}?", self.settings.login_path.as_deref().unwrap_or_default());
        let at = start.len();
        let mut location = Serializer::for_suffix(start, at);
        location.append_pair("iss", &initiated.provider.settings().issuer);
        location.append_pair("target_link_uri", initiated.return_to.as_str());
        if let Some(hint) = &initiated.wish.login_hint {
            location.append_pair("login_hint", hint);
        }
        Ok(redirect(StatusCode::SEE_OTHER, &location.finish()))
    }
}
