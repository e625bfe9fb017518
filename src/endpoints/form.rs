//! Forms that are POSTed to our endpoints (RFC 6749 appendix B, OAuth 2.0 Form Post Response Mode §2):
//! `application/x-www-form-urlencoded`, bounded in size and in time.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;

use crate::reply::ClientFault;

/// The largest form, in bytes.
const MAX_FORM: usize = 64 * 1024;

/// How long a form may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FormFault {
    /// Another `Content-Type`, or more than one.
    MediaType,
    /// Above [`MAX_FORM`].
    TooLarge,
    /// Not whole within [`TIMEOUT`].
    TooSlow,
    /// The client went away.
    BrokenOff,
}

impl From<FormFault> for ClientFault {
    fn from(fault: FormFault) -> Self {
        match fault {
            FormFault::MediaType => ClientFault::Parameters("form_type"),
            FormFault::TooLarge => Self::BodyTooLarge,
            FormFault::TooSlow => Self::BodyTooSlow,
            FormFault::BrokenOff => ClientFault::Parameters("form_broken_off"),
        }
    }
}

/// Reads a form whole.
pub(super) async fn read(request: Request<Incoming>) -> Result<Bytes, FormFault> {
    if !is_form(request.headers()) {
        return Err(FormFault::MediaType);
    }
    whole(&mut request.into_body(), MAX_FORM).await
}

/// Reads a body whole, of `most` bytes.
pub(super) async fn whole(body: &mut Incoming, most: usize) -> Result<Bytes, FormFault> {
    let whole = Limited::new(body, most).collect();
    match tokio::time::timeout(TIMEOUT, whole).await {
        Err(_) => Err(FormFault::TooSlow),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(FormFault::TooLarge),
        Ok(Err(_)) => Err(FormFault::BrokenOff),
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    content_type(headers).is_some_and(|(_, essence)| essence.eq_ignore_ascii_case(URL_ENCODED))
}

/// The one media type, whole and without its parameters.
pub(super) fn content_type(headers: &HeaderMap) -> Option<(&str, &str)> {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(one), None) = (types.next(), types.next()) else { return None };
    let text = one.to_str().ok()?;
    Some((text, text.split(';').next().unwrap_or_default().trim()))
}

/// What forms are sent as, unless they say otherwise.
pub(super) const URL_ENCODED: &str = "application/x-www-form-urlencoded";
