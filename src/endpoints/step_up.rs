//! An application that answers `insufficient_user_authentication` (RFC 9470 §4): a person on the way through its pages goes to
//! sign in as it demands and comes back; a program gets the answer, and the address where its person can do so.
//!
//! The demand goes to the login endpoint sealed, and counts there for the session that it was made for: nobody can put one into a
//! link that sends others to sign in anew. Nothing of the application's answer is
//! shown to a person. One that is never content ends on a page, since sign-ins in a row are counted.

use http::{HeaderValue, Response, StatusCode, header};
use serde::{Deserialize, Serialize};
use url::form_urlencoded;

use super::Endpoints;
use super::query::{self, Repeated};
use crate::authn::oidc::login::LIFETIME;
use crate::authn::oidc::{Party, Provider, Wish};
use crate::authn::session::SessionId;
use crate::clock::UnixTime;
use crate::message::{Body, Inbound, RequestPath, ReturnTo};
use crate::reply::{ClientFault, Exchange, redirect};
use crate::route::{Route, Target};
use crate::upstream::UpstreamError;

/// What an application demanded, of which session, at which provider, and when.
#[derive(Debug, Serialize, Deserialize)]
pub struct Demand {
    session: SessionId,
    party: Party,
    wish: Wish,
    made_at: UnixTime,
}

impl Endpoints {
    /// The upstream's answer, or the way to the sign-in that it demands; `signed_in_at` is the session, and the provider of it.
    ///
    /// # Errors
    /// The upstream's own.
    pub fn or_step_up(
        &self,
        outcome: Result<Response<Body>, UpstreamError>,
        signed_in_at: Option<(SessionId, usize)>,
        exchange: &mut Exchange<'_>,
    ) -> Result<Response<Body>, UpstreamError> {
        let mut response = outcome?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let wish = response.extensions_mut().remove::<Wish>();
        let (Some(wish), Some((session, at)), Some(sign_in)) = (wish, signed_in_at, self.sign_in_url()) else {
            return Ok(response);
        };
        let party = self.providers.at(at).settings().party();
        let demand = self.demands.seal(&Demand { session, party, wish, made_at: self.logins.now() });
        let start = sign_in.len() + 1;
        let mut url = form_urlencoded::Serializer::for_suffix(format!("{sign_in}?"), start);
        url.append_pair("demand", &demand);
        match exchange.repeatable() {
            Some(address) => {
                let back = ReturnTo::parse(address, &self.rules).unwrap_or_else(|_| ReturnTo::root());
                exchange.refused("insufficient_proof");
                Ok(redirect(StatusCode::FOUND, &url.append_pair("rd", back.as_str()).finish()))
            }
            None => {
                let challenge = HeaderValue::try_from(format!("Vestibule sign_in_url=\"{}\"", url.finish()));
                // Made of a URL, so this cannot fail.
                response.headers_mut().extend(challenge.ok().map(|challenge| (header::WWW_AUTHENTICATE, challenge)));
                Ok(response)
            }
        }
    }

    /// The demand that a request to the login endpoint carries. One of the past, of another session, or none of ours, is none:
    /// whoever comes with it signs in, and the application says again what it wants.
    pub(super) async fn demanded(&self, inbound: &Inbound) -> Result<Option<(&Provider, Wish)>, ClientFault> {
        let single = query::single(inbound.query(), "demand");
        let text = single.map_err(|Repeated| ClientFault::Parameters("login_parameter_repeated"))?;
        let demand = text.and_then(|text| self.demands.open(text.as_bytes()).ok());
        let demand = demand.map(|(demand, _)| demand);
        let demand = demand.filter(|demand| self.logins.now().since(demand.made_at) <= LIFETIME);
        let Some(demand) = demand else { return Ok(None) };
        let session = self.sessions.read(inbound.cookies()).await;
        if session.is_ok_and(|(record, _)| record.marks.id == demand.session) {
            let provider = self.providers.by_party(demand.party);
            Ok(provider.map(|(_, provider)| (&**provider, demand.wish)))
        } else {
            Ok(None)
        }
    }

    /// The guarded route that a return address lies on: what it demands, a sign-in for it had better ask for at once.
    pub(super) fn route_of(&self, return_to: &str) -> Option<&Route> {
        let shared = self.shared_address(return_to);
        let (host, path) = match &shared {
            Some(url) => (url.host_str()?, url.path()),
            // Any other absolute address is not ours.
            None => (self.host(), return_to.split('?').next().filter(|path| path.starts_with('/'))?),
        };
        let path = RequestPath::parse(path).ok()?;
        match self.routes.resolve_parts(host, &http::Method::GET, &path).ok()? {
            Target::Guarded(route) => Some(route.route()),
            _ => None,
        }
    }
}
