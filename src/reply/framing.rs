//! Whose pages may show ours, and the application's, in a frame (CSP3 §6.4.2 `frame-ancestors`): with `cookie.partitioned`, those of
//! `cookie.framed_by`. It is we who let a session into frames, so the application is protected from every other page around it,
//! whatever it says itself; where it has a policy, too, browsers heed both (CSP3 §8.1), and do without its `X-Frame-Options`.

use http::header::{CONTENT_SECURITY_POLICY, X_FRAME_OPTIONS};
use http::{HeaderValue, Response, StatusCode};

use super::pages::Ours;
use crate::message::Origin;

/// What an answer of ours says by itself.
const NOBODY: &str = "frame-ancestors 'none'";
const DIRECTIVE: &str = "frame-ancestors ";

/// The pages around a frame.
#[derive(Debug, Clone)]
pub struct Framing {
    /// As sources of the directive: ourselves, and the origins.
    sources: String,
    /// The directive, for an answer of the application.
    policy: HeaderValue,
}

impl Framing {
    /// By these origins and ourselves; `None` where there are none.
    pub fn by(origins: &[Origin]) -> Option<Self> {
        if origins.is_empty() {
            return None;
        }
        let sources = origins.iter().fold("'self'".to_owned(), |sources, origin| format!("{sources} {origin}"));
        // Origins are checked with the configuration, so this cannot fail; framed by nobody is the safe way out.
        let policy = HeaderValue::try_from(format!("{DIRECTIVE}{sources}"));
        Some(Self { policy: policy.unwrap_or_else(|_| HeaderValue::from_static(NOBODY)), sources })
    }

    /// Lets them show an answer of ours, and keeps everybody else from showing the application's.
    pub(super) fn put<B>(&self, response: &mut Response<B>) {
        if response.extensions().get::<Ours>().is_some() {
            return self.open(response);
        }
        let status = response.status();
        // A 304 has the header fields that the browser is to have from now on (RFC 9111 §3.2): one of these would take the
        // place of all that the application said when it sent the page.
        if status != StatusCode::NOT_MODIFIED && !status.is_informational() {
            response.headers_mut().append(CONTENT_SECURITY_POLICY, self.policy.clone());
        }
    }

    fn open<B>(&self, response: &mut Response<B>) {
        let headers = response.headers_mut();
        let Some(policy) = headers.get(CONTENT_SECURITY_POLICY).and_then(|policy| policy.to_str().ok()) else { return };
        let directives: Vec<_> = policy.split("; ").map(|directive| self.opened(directive)).collect();
        // Made of header values: it stays framed by nobody, were it ever none.
        let Ok(policy) = HeaderValue::try_from(directives.join("; ")) else { return };
        headers.insert(CONTENT_SECURITY_POLICY, policy);
        // It knows no origins.
        headers.remove(X_FRAME_OPTIONS);
    }

    fn opened(&self, directive: &str) -> String {
        match directive.strip_prefix(DIRECTIVE) {
            None => directive.to_owned(),
            Some("'none'") => format!("{DIRECTIVE}{}", self.sources),
            // The page that the provider's own frames.
            Some(others) => format!("{DIRECTIVE}{} {others}", self.sources),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pages::protect;
    use super::*;

    fn framing() -> Framing {
        let origin = |text: &str| Origin::of(&url::Url::parse(text).unwrap()).unwrap();
        Framing::by(&[origin("https://portal.example"), origin("https://b.example:8443")]).unwrap()
    }

    fn policies<B>(response: &Response<B>) -> Vec<&str> {
        response.headers().get_all(CONTENT_SECURITY_POLICY).iter().map(|policy| policy.to_str().unwrap()).collect()
    }

    #[test]
    fn ours_names_them_in_the_place_of_nobody_and_beside_others() {
        const THEM: &str = "frame-ancestors 'self' https://portal.example https://b.example:8443";
        let mut response = Response::new(());
        protect(&mut response);
        response.headers_mut().insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        framing().put(&mut response);
        assert_eq!(policies(&response), [format!("default-src 'none'; {THEM}; base-uri 'none'")]);
        assert!(!response.headers().contains_key(X_FRAME_OPTIONS));

        let own = HeaderValue::from_static("default-src 'none'; frame-ancestors https://id.example");
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, own);
        framing().put(&mut response);
        assert_eq!(policies(&response), [format!("default-src 'none'; {THEM} https://id.example")]);
    }

    #[test]
    fn the_applications_gets_it_beside_what_it_says_itself() {
        const THEM: &str = "frame-ancestors 'self' https://portal.example https://b.example:8443";
        let mut response = Response::new(());
        framing().put(&mut response);
        assert_eq!(policies(&response), [THEM]);
        let mut response = Response::new(());
        let own = HeaderValue::from_static("frame-ancestors 'none'");
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, own.clone());
        response.headers_mut().insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        framing().put(&mut response);
        assert_eq!(policies(&response), ["frame-ancestors 'none'", THEM]);
        assert_eq!(response.headers()[X_FRAME_OPTIONS], "DENY");
        for status in [304, 101] {
            let mut response = Response::builder().status(status).body(()).unwrap();
            framing().put(&mut response);
            assert!(policies(&response).is_empty(), "{status}");
        }
        assert!(Framing::by(&[]).is_none());
    }
}
