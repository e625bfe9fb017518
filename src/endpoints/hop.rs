//! Where the session's cookies are `SameSite=Strict`, a browser holds them back when another site leads here (RFC 6265bis
//! §5.2): the provider after a sign-in, and whoever links to a page. One step over a page of ours brings them. And what is to begin in
//! no stranger's frame begins behind such a step.

use http::{Response, StatusCode};

use super::Endpoints;
use super::logout::digest_of;
use crate::authn::oidc::Provider;
use crate::authn::session::set_cookies;
use crate::message::{Body, Inbound, ReturnTo};
use crate::reply::{Exchange, Replies, onward, redirect};

/// For as long a step to the same address is not taken again, should it have brought nothing.
const ONCE: std::time::Duration = std::time::Duration::from_secs(10);

impl Endpoints {
    /// To where a sign-in leads.
    pub(super) fn land(&self, return_to: &ReturnTo) -> Response<Body> {
        match self.sessions.jar().is_strict() {
            true => onward(return_to.as_str()),
            false => redirect(StatusCode::SEE_OTHER, return_to.as_str()),
        }
    }

    /// The same page once more, asked for by ourselves, where another site has led here and the session may have been held
    /// back. Bounded twice: what a page of ours asks for is not from another site, and a cookie tells that it was tried.
    pub(super) fn once_more(&self, inbound: &Inbound, same_address: &str) -> Option<Response<Body>> {
        let jar = self.sessions.jar();
        if !jar.is_strict() || !came_from_another_site(inbound) {
            return None;
        }
        if inbound.cookies().get(jar.session_name()) != Ok(None) {
            return None;
        }
        self.step(inbound, same_address)
    }

    /// A page of ours that leads to the same address; `None` where one did so just now.
    fn step(&self, inbound: &Inbound, same_address: &str) -> Option<Response<Body>> {
        let (hop, mark) = (self.sessions.jar().hop(), digest_of(same_address));
        if inbound.cookies().get(hop.name()) == Ok(Some(mark.as_bytes())) {
            return None;
        }
        let mut response = onward(same_address);
        set_cookies(response.headers_mut(), [hop.set(&mark, Some(ONCE))]);
        Some(response)
    }

    /// Where a sign-in begins with a call of the provider (RFC 9126), what another site's page embeds gets a page of ours first, which
    /// leads here once more: browsers show that in no frame of a page that may not have one (CSP3 §6.4.2), and so nobody has the
    /// provider work for frames that no one sees. Whoever comes again by another site's word (the
    /// frame was loaded once more, or is in a sandbox where every page is another site's) goes on by a link, if at all.
    pub(super) fn shown_first(
        &self,
        provider: &Provider,
        inbound: &Inbound,
        same_address: &str,
        (replies, exchange): (&Replies, &Exchange<'_>),
    ) -> Option<Response<Body>> {
        if !provider.pushes() || !inbound.is_embedded_elsewhere() {
            return None;
        }
        let step = self.step(inbound, same_address);
        Some(step.unwrap_or_else(|| replies.notify(&self.unauthorized("no_session", inbound), exchange)))
    }
}

/// By the word of the browser (Fetch Metadata). Strict cookies travel within a site, so `same-site` does not count.
fn came_from_another_site(inbound: &Inbound) -> bool {
    let mut sites = inbound.headers().get_all("sec-fetch-site").iter();
    sites.next().is_some_and(|site| site == "cross-site") && sites.next().is_none()
}
