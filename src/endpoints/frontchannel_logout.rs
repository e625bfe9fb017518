//! The provider shows our address in a frame of its sign-out page (OpenID Connect Front-Channel Logout 1.0 §2). Nothing
//! proves who asks, so it ends a session here for whoever knows the provider's name for it, and nothing at the provider.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, PRAGMA};
use http::{HeaderMap, HeaderValue, Response};
use tracing::info;
use url::Url;

use super::query::{self, Repeated};
use super::{Endpoints, take_logout};
use crate::authn::oidc::provider::SigningOut;
use crate::authn::oidc::{Party, Provider};
use crate::authn::session::ended::Told;
use crate::authn::session::marks::NameDigest;
use crate::authn::session::record::Record;
use crate::authn::session::stored::Away;
use crate::authn::session::{Sessions, ToldOf, set_cookies};
use crate::clock::UnixTime;
use crate::message::{Body, Inbound, Origin, OwnCookies, is_frame};
use crate::rate::RateLimit;
use crate::reply::pages::protect;
use crate::reply::{ClientFault, Rejection};

const PAGE: &str = "<!doctype html><html lang=\"en\"><title>Signed out</title></html>";

impl Endpoints {
    pub(super) async fn frontchannel_logout(&self, inbound: &Inbound) -> Result<Response<Body>, Rejection> {
        let single = |name| {
            query::single(inbound.query(), name)
                .map_err(|Repeated| ClientFault::Logout("frontchannel_parameter_repeated"))
        };
        let (issuer, sid) = (single("iss")?, single("sid")?);
        let (framed_by, ended) = match (issuer, sid) {
            (Some(issuer), Some(sid)) if !sid.is_empty() => {
                let providers: Vec<_> =
                    self.providers.iter().filter(|provider| provider.settings().is_issuer(&issuer)).collect();
                if providers.is_empty() {
                    return Err(ClientFault::Logout("frontchannel_issuer").into());
                }
                let frame = Frame {
                    sessions: Arc::clone(&self.sessions),
                    limit: Arc::clone(&self.frontchannel_logouts),
                    client: inbound.client().address,
                    cookies: inbound.cookies().clone(),
                    parties: providers.iter().map(|provider| provider.settings().party()).collect(),
                    issuer: issuer.into_owned(),
                    sid: sid.into_owned(),
                };
                // A store may be slow, and the page that shows the frame be gone before it answers.
                (providers, self.sessions.detached(frame.end()).await.ok_or(Away)??)
            }
            (None, None) => {
                let ended = match is_in_a_frame(inbound.headers(), self.sessions.jar().is_partitioned()) {
                    true => self.sessions.sign_out(inbound.cookies()).await.map(|(record, _)| record),
                    false => None,
                };
                (self.providers.iter().collect(), ended)
            }
            _ => return Err(ClientFault::Logout("frontchannel_incomplete").into()),
        };
        let mut response = Response::new(Body::full(PAGE));
        protect(&mut response);
        let headers = response.headers_mut();
        if ended.is_some() {
            info!("ended by the provider, in a frame");
            set_cookies(headers, self.sessions.jar().delete_session(inbound.cookies()));
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        // §2: both words and the old field.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store"));
        headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
        headers.insert(CONTENT_SECURITY_POLICY, policy(framed_by.into_iter().map(AsRef::as_ref)));
        Ok(response)
    }
}

/// What a frame names.
struct Frame {
    sessions: Arc<Sessions>,
    limit: Arc<RateLimit>,
    client: IpAddr,
    cookies: OwnCookies,
    /// Whose issuer it is.
    parties: Vec<Party>,
    issuer: String,
    sid: String,
}

impl Frame {
    /// Ends it. Gives the session whose own cookie came along, if that is the one.
    async fn end(self) -> Result<Option<Record>, ClientFault> {
        let Self { sessions, issuer, sid, .. } = &self;
        let session = sessions.read_for_sign_out(&self.cookies).await.map(|(record, _)| record);
        let own = session.filter(|record| {
            let name = NameDigest::of_session(record.party, issuer, sid);
            self.parties.contains(&record.party) && record.marks.provider_session == Some(name)
        });
        if own.is_none() {
            take_logout(&self.limit, self.client)?;
        }
        for party in self.parties.iter().copied() {
            // Told by a browser that is there now.
            let begun_by = UnixTime(u64::MAX);
            sessions.end_told(ToldOf { party, issuer, sid: Some(sid), sub: None, begun_by }, Told::ByAnyone).await;
        }
        if let Some(record) = &own {
            sessions.end(record).await;
        }
        Ok(own)
    }
}

/// Without `sid` the cookie alone says which session, and a link on another site must not sign anybody out: browsers say
/// what they fetch a page for, and Lax cookies come into a frame only from a page of the same site. Partitioned ones come into
/// one of any site, so that the browser has to say that this one is.
fn is_in_a_frame(headers: &HeaderMap, partitioned: bool) -> bool {
    let is_near = || headers.get("sec-fetch-site").is_some_and(|site| site == "same-site" || site == "same-origin");
    headers.get("sec-fetch-dest").is_none_or(|destination| is_frame(destination.as_bytes()))
        && (!partitioned || is_near())
}

/// The only page of ours that may be framed, and only by the providers' own.
fn policy<'p>(providers: impl Iterator<Item = &'p Provider>) -> HeaderValue {
    let mut origins: Vec<String> = Vec::new();
    for provider in providers {
        let issuer = Url::parse(&provider.settings().issuer).ok();
        for origin in [issuer, provider.end_session_url(SigningOut::default())]
            .into_iter()
            .flatten()
            .filter_map(|url| Origin::of(&url))
        {
            if !origins.contains(&origin.to_string()) {
                origins.push(origin.to_string());
            }
        }
    }
    let mut policy = "default-src 'none'; base-uri 'none'; frame-ancestors".to_owned();
    origins.iter().for_each(|origin| {
        // Writing to a String does not fail.
        let _ = write!(policy, " {origin}");
    });
    // Origins are serialised, so this cannot fail; framed by nobody is the safe way out.
    HeaderValue::try_from(policy).unwrap_or_else(|_| HeaderValue::from_static("frame-ancestors 'none'"))
}
