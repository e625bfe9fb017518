//! Which provider a person signs in at, where several are configured: by name (`?provider=`), by the domain of an e-mail
//! address (`?email=`), or by their own choice on a page.

use std::borrow::Cow;
use std::sync::Arc;

use http::{Response, StatusCode};
use url::Url;
use url::form_urlencoded;

use super::Endpoints;
use super::query::{self, Repeated};
use crate::authn::oidc::Provider;
use crate::message::{Body, Inbound, Origin};
use crate::reply::pages::{Choice, Page};
use crate::reply::{ClientFault, Exchange, Notice, Replies};

/// The longest e-mail address that is looked at, in bytes (RFC 5321 §4.5.3.1.3, less the brackets).
const MAX_EMAIL: usize = 254;

/// What the request itself says of the provider.
pub(super) enum Named<'e> {
    /// This one, with the hint of who it is that came along.
    One(&'e Arc<Provider>, Option<String>),
    /// Nothing.
    None,
    /// An address whose domain no provider is configured for.
    UnknownDomain,
}

/// What is to be chosen from, and why.
pub(super) struct Choosing<'a> {
    pub(super) candidates: &'a [&'a Arc<Provider>],
    pub(super) return_to: &'a str,
    pub(super) status: StatusCode,
    pub(super) message: &'static str,
}

impl Endpoints {
    /// Reads `provider` and `email` of a request to the login endpoint.
    pub(super) fn named(&self, inbound: &Inbound) -> Result<Named<'_>, ClientFault> {
        let single = |name| {
            query::single(inbound.query(), name).map_err(|Repeated| ClientFault::Parameters("login_parameter_repeated"))
        };
        if let Some(id) = single("provider")? {
            let (_, provider) = self.providers.by_id(&id).ok_or(ClientFault::Parameters("provider_unknown"))?;
            return Ok(Named::One(provider, None));
        }
        let Some(email) = single("email")? else { return Ok(Named::None) };
        let Some((provider, email)) = self.by_email(&email) else { return Ok(Named::UnknownDomain) };
        Ok(Named::One(provider, Some(email)))
    }

    /// The provider of an address with exactly one `@`, and the address.
    fn by_email(&self, email: &str) -> Option<(&Arc<Provider>, String)> {
        let email = email.trim_ascii();
        let (local, domain) = email.split_once('@')?;
        let sound = !local.is_empty() && email.len() <= MAX_EMAIL && email.bytes().all(|byte| byte.is_ascii_graphic());
        let domain = Some(domain).filter(|domain| sound && !domain.contains('@'))?;
        let has = |provider: &&Arc<Provider>| {
            provider.settings().email_domains.iter().any(|own| own.eq_ignore_ascii_case(domain))
        };
        Some((self.providers.iter().find(has)?, email.to_owned()))
    }

    /// The page with one link for each candidate.
    pub(super) fn choose(&self, asked: Choosing<'_>, replies: &Replies, exchange: &Exchange<'_>) -> Response<Body> {
        let Choosing { candidates, return_to, status, message } = asked;
        let login = self.settings.login_path.as_deref().unwrap_or_default();
        let link = |pairs: &[(&str, &str)]| {
            let start = format!("{login}?");
            let at = start.len();
            form_urlencoded::Serializer::for_suffix(start, at).extend_pairs(pairs).finish()
        };
        let choices = candidates.iter().map(|provider| {
            let settings = provider.settings();
            Choice {
                url: link(&[("provider", &settings.id), ("rd", return_to)]),
                label: settings.name.clone(),
                logo: settings.logo.clone(),
            }
        });
        let asks_email = candidates.iter().any(|provider| !provider.settings().email_domains.is_empty());
        let notice = Notice::new(status, "choose_provider", Page::ChooseProvider, "Sign in", Cow::from(message));
        let notice = Notice {
            choices: choices.collect(),
            email_form: asks_email.then(|| (login.to_owned(), return_to.to_owned())),
            ..notice
        };
        // Chromium applies form-action to the redirect that answers the form.
        let endpoints = candidates.iter().filter_map(|provider| provider.authorization_endpoint());
        let origins: Vec<_> =
            endpoints.filter_map(|url: Url| Origin::of(&url)).map(|origin| origin.to_string()).collect();
        replies.page(&notice, exchange, &origins)
    }
}
