//! What goes onto the answer: a later time of the last request, a newer form of the session.

use std::sync::Arc;

use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};

use super::SessionId;
use super::ended::EndedSessions;
use super::marks::Marks;
use super::renewing::DueSession;
use super::successors::Successors;
use crate::authn::oidc::Party;
use crate::clock::SharedClock;
use crate::message::OwnCookies;

const SURROGATE_CONTROL: HeaderName = HeaderName::from_static("surrogate-control");

/// What has to be renewed on the answer, whatever the upstream said.
#[must_use = "a renewal that is not attached to the answer is lost"]
#[derive(Debug, Default)]
pub struct Renewal(pub(super) Option<Box<Attachment>>);

#[derive(Debug)]
pub(super) struct Attachment {
    pub(super) idle: Option<HeaderValue>,
    pub(super) session: Option<Newer>,
    /// The session, where it is time to renew it.
    pub(super) due: Option<DueSession>,
    pub(super) marks: Marks,
    pub(super) party: Party,
    pub(super) ended: Arc<EndedSessions>,
}

/// A newer form of the session, if there is one by the time the answer goes.
#[derive(Debug)]
pub(super) struct Newer {
    pub(super) successors: Arc<Successors>,
    pub(super) shown: (SessionId, u32),
    pub(super) present: OwnCookies,
    pub(super) clock: SharedClock,
}

impl Renewal {
    /// Nothing to renew.
    pub fn none() -> Self {
        Self(None)
    }

    /// Whether it is time to renew the session itself.
    pub fn is_due(&self) -> bool {
        self.0.as_ref().is_some_and(|attachment| attachment.due.is_some())
    }

    /// Puts the renewed cookies on the answer, unless the session has ended in the meantime: a late answer never revives it.
    pub fn attach<B>(self, mut response: Response<B>) -> Response<B> {
        if let Some(attachment) = self.0
            && !attachment.ended.contains(&attachment.marks, attachment.party)
        {
            let newer = attachment
                .session
                .and_then(|newer| newer.successors.cookies(newer.shown, &newer.present, newer.clock.now()));
            set_cookies(response.headers_mut(), newer.into_iter().flatten().chain(attachment.idle));
        }
        response
    }
}

/// Puts cookies of ours on an answer, and keeps every cache away from it.
pub fn set_cookies(headers: &mut HeaderMap, cookies: impl IntoIterator<Item = HeaderValue>) {
    let mut any = false;
    for cookie in cookies {
        headers.append(SET_COOKIE, cookie);
        any = true;
    }
    if any {
        // Some caches prefer fields of their own (RFC 9213, and Surrogate-Control before it).
        let is_targeted = |name: &&HeaderName| name.as_str().ends_with("-cache-control") || *name == SURROGATE_CONTROL;
        let targeted: Vec<_> = headers.keys().filter(is_targeted).cloned().collect();
        for name in targeted {
            headers.remove(name);
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    }
}
