//! Forms that are POSTed to our endpoints: `application/x-www-form-urlencoded`, bounded in size and in time.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;

use crate::reply::ClientFault;

/// The largest form, in bytes.
pub(super) const MAX_FORM: usize = 128 * 1024;

/// How long a form may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Reads a form of at most `max` bytes whole.
///
/// # Errors
/// 413 for one that is too large, 408 for one that does not end, 400 for anything that is no form.
pub(super) async fn read(request: Request<Incoming>, max: usize) -> Result<Bytes, ClientFault> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Err(ClientFault::Parameters("form_type"));
    }
    let whole = Limited::new(request.into_body(), max).collect();
    match tokio::time::timeout(TIMEOUT, whole).await {
        Err(_) => Err(ClientFault::BodyTooSlow),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(ClientFault::BodyTooLarge),
        Ok(Err(_)) => Err(ClientFault::Parameters("form_broken_off")),
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
    }
}
