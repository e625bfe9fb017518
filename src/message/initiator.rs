//! Which page asked: `Origin` where there is one, else `Sec-Fetch-Site` (Fetch Metadata). Both are written by the user
//! agent, never by a page's script.

use http::{HeaderMap, header};

use super::Origin;

/// Who made the user agent send a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Initiator {
    /// A page of ours, or the person (an address typed in).
    Own,
    /// Somebody else's page.
    Foreign,
    /// No page, or a user agent that does not say.
    Unknown,
}

impl Initiator {
    /// Reads it from the headers; `allowed` origins count as ours.
    pub fn of(headers: &HeaderMap, own: &Origin, allowed: &[Origin]) -> Self {
        let site = headers.get("sec-fetch-site");
        let site_is = |name: &str| site.is_some_and(|site| site == name);
        let mut origins = headers.get_all(header::ORIGIN).iter().peekable();
        if origins.peek().is_some() {
            let known = |text: &[u8]| {
                let is = |origin: &Origin| origin.as_str().as_bytes() == text;
                // A form on a page with `Referrer-Policy: no-referrer` is sent with `Origin: null` (Fetch §3.2), also to its
                // own origin; a sandboxed frame's is `null` too, but its site is not.
                is(own) || allowed.iter().any(is) || (text == b"null" && site_is("same-origin"))
            };
            return if origins.all(|origin| known(origin.as_bytes())) { Self::Own } else { Self::Foreign };
        }
        match site {
            None => Self::Unknown,
            Some(_) if site_is("same-origin") || site_is("none") => Self::Own,
            Some(_) => Self::Foreign,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_decides_and_the_site_fills_in() {
        let origin = |text: &str| Origin::of(&url::Url::parse(text).unwrap()).unwrap();
        let (own, partner) = (origin("https://app.example"), origin("https://partner.example"));
        let cases: [(&[(&str, &str)], Initiator); 13] = [
            (&[], Initiator::Unknown),
            (&[("origin", "https://app.example")], Initiator::Own),
            (&[("origin", "https://partner.example")], Initiator::Own),
            (&[("origin", "https://app.example"), ("sec-fetch-site", "cross-site")], Initiator::Own),
            (&[("origin", "https://evil.example"), ("sec-fetch-site", "same-origin")], Initiator::Foreign),
            (&[("origin", "http://app.example")], Initiator::Foreign),
            (&[("origin", "null")], Initiator::Foreign),
            (&[("origin", "null"), ("sec-fetch-site", "cross-site")], Initiator::Foreign),
            (&[("origin", "null"), ("sec-fetch-site", "same-origin")], Initiator::Own),
            (&[("origin", "https://app.example"), ("origin", "https://evil.example")], Initiator::Foreign),
            (&[("sec-fetch-site", "none")], Initiator::Own),
            (&[("sec-fetch-site", "same-site")], Initiator::Foreign),
            (&[("sec-fetch-site", "cross-site")], Initiator::Foreign),
        ];
        for (fields, expected) in cases {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, value.parse().unwrap());
            }
            assert_eq!(Initiator::of(&headers, &own, std::slice::from_ref(&partner)), expected, "{fields:?}");
        }
    }
}
