//! A page that leads on by itself and without a script: HTML, "Refresh state" (`http-equiv=refresh`), with a link for whoever
//! does not follow it. What comes next is asked for by a page of ours and no longer by another site, so that cookies with
//! `SameSite=Strict` come along (RFC 6265bis §5.2). Browsers ask who may frame what they show, and never who may frame a redirect:
//! what is to happen in no stranger's frame begins with such a page, too.

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};

use super::pages::protect;
use crate::message::Body;

/// Leads on to a path of ours, or to an address that people may be sent to. A Content-Security-Policy says nothing about where
/// a page leads; ours lets it load nothing.
pub fn onward(location: &str) -> Response<Body> {
    let location = escaped(location);
    let page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"color-scheme\" content=\"light dark\">\
         <meta name=\"robots\" content=\"noindex\"><meta http-equiv=\"refresh\" content=\"0;url={location}\">\
         <title>One moment</title><p><a href=\"{location}\">Continue</a></p></html>\n"
    );
    let mut response = Response::new(Body::full(page));
    protect(&mut response);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response
}

/// For an attribute in double quotes.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn it_leads_on_and_whatever_the_address_holds_stays_an_address() {
        let response = onward("/a?b=1&c=\"><script>x</script>'");
        assert_eq!(response.status(), 200);
        for (name, value) in [
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'"),
            ("content-type", "text/html; charset=utf-8"),
        ] {
            assert_eq!(response.headers()[name], value, "{name}");
        }
        let page = response.into_body().collect().await.unwrap().to_bytes();
        let page = std::str::from_utf8(&page).unwrap();
        let address = "/a?b=1&amp;c=&quot;&gt;&lt;script&gt;x&lt;/script&gt;&#39;";
        assert!(page.contains(&format!("content=\"0;url={address}\"")), "{page}");
        assert!(page.contains(&format!("<a href=\"{address}\">")) && !page.contains("<script"), "{page}");
    }
}
