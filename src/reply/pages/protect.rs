//! The headers that every answer of our own carries, pages, redirects and JSON alike.

use http::Response;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderValue, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};

/// Everything that decides which answer a signed-out request gets: a shared cache must not mix them up.
const VARY_BY: &str = "Cookie, Accept, Sec-Fetch-Mode, Sec-Fetch-Dest, X-Requested-With";

/// For answers that show nothing of their own.
const NO_CONTENT_POLICY: &str = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'";

/// Among an answer's extensions: it is our own, and not the application's.
#[derive(Debug, Clone, Copy)]
pub struct Ours;

/// Sets what keeps an answer of our own from being cached, framed, sniffed, or named in a `Referer` (whose query may carry
/// a code or a state). Replaces what is there, and marks the answer as [`Ours`].
pub fn protect<B>(response: &mut Response<B>) {
    response.extensions_mut().insert(Ours);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(NO_CONTENT_POLICY));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(VARY, HeaderValue::from_static(VARY_BY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}
