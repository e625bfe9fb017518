//! Header fields that an operator removes or sets on the way through: static text, checked at start.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::headers::{HOP_BY_HOP, IdentityNames, OVERRIDES, eq_folded, fold, is_forwarding, remove_where};

/// What is changed on the way there and on the way back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edits {
    /// Towards the upstream.
    pub request: HeaderEdits,
    /// Towards the client.
    pub response: HeaderEdits,
}

impl Edits {
    /// Whether anything is changed.
    pub fn is_empty(&self) -> bool {
        self.request.is_empty() && self.response.is_empty()
    }
}

/// Fields to remove and to set. A name stands for all its spellings: to a CGI application `X_Key` is `X-Key`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Folded: of what is removed and of what is set.
    cleared: Vec<String>,
    set: Vec<(HeaderName, HeaderValue)>,
}

impl HeaderEdits {
    /// Removes `removed`, sets `set`.
    pub fn new(removed: &[HeaderName], set: Vec<(HeaderName, HeaderValue)>) -> Self {
        let cleared = removed.iter().chain(set.iter().map(|(name, _)| name)).map(|name| fold(name.as_str())).collect();
        Self { cleared, set }
    }

    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.cleared.is_empty()
    }

    /// Whether `name` is set.
    pub fn sets(&self, name: &HeaderName) -> bool {
        self.set.iter().any(|(set, _)| set == name)
    }

    /// Whether whatever has `name` goes, for good or for what is set.
    pub fn clears(&self, name: &HeaderName) -> bool {
        self.cleared.iter().any(|gone| eq_folded(gone.as_bytes(), name.as_str().as_bytes()))
    }

    /// Changes `headers`: afterwards each field that is set is there once, with that value.
    pub fn apply(&self, headers: &mut HeaderMap) {
        if self.is_empty() {
            return;
        }
        remove_where(headers, |name| self.cleared.iter().any(|gone| eq_folded(gone.as_bytes(), name.as_bytes())));
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
    }
}

/// Which way a field goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Towards the upstream.
    Request,
    /// Towards the client.
    Response,
}

impl Way {
    /// Why `name` can only be removed, as part of a sentence.
    pub fn unsettable(self, name: &HeaderName) -> Option<&'static str> {
        match (self, name.as_str()) {
            (_, "cookie" | "set-cookie") => Some("is a cookie, and cookies belong to one person"),
            (_, "expect") => Some("is up to the client"),
            _ => None,
        }
    }
}

/// Why an operator cannot set or remove `name`, as the end of a sentence, and what to do instead.
pub fn refusal(name: &HeaderName, way: Way, identity: &IdentityNames) -> Option<(&'static str, &'static str)> {
    let folded = fold(name.as_str());
    let is_framing = HOP_BY_HOP.contains(&folded.as_str())
        || ["content-length", "trailer"].contains(&folded.as_str())
        || folded.starts_with("sec-websocket-");
    if is_framing {
        return Some(("which is written anew for each connection", "remove it"));
    }
    if way == Way::Response {
        return None;
    }
    if folded == "host" {
        return Some(("which has a key of its own", "write host in the upstream"));
    }
    if identity.covers(name.as_str()) {
        return Some(("which only an identity may fill", "see [identity.headers]"));
    }
    if is_forwarding(name.as_str()) {
        return Some(("which is written from what is known of the client", "remove it"));
    }
    let changes = OVERRIDES.contains(&folded.as_str());
    changes.then_some(("which would change the request after it was judged", "see pass_headers of a route"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ours_or_the_connections_cannot_be_touched() {
        let identity = IdentityNames::new(["X-Department"]);
        let told = |text: &'static str, way| refusal(&HeaderName::from_static(text), way, &identity).is_some();
        for (text, request, response) in [
            ("connection", true, true),
            ("transfer-encoding", true, true),
            ("transfer_encoding", true, true),
            ("content-length", true, true),
            ("trailer", true, true),
            ("expect", false, false),
            ("te", true, true),
            ("upgrade", true, true),
            ("sec-websocket-protocol", true, true),
            ("host", true, false),
            ("x-forwarded-for", true, false),
            ("x-forwarded-prefix", true, false),
            ("forwarded", true, false),
            ("x-forwarded-user", true, false),
            ("x_forwarded_user", true, false),
            ("x-department", true, false),
            ("remote-user", true, false),
            ("x-request-id", true, false),
            ("x-http-method-override", true, false),
            ("x-original-url", true, false),
            ("cookie", false, false),
            ("authorization", false, false),
            ("cache-control", false, false),
            ("x-environment", false, false),
        ] {
            assert_eq!((told(text, Way::Request), told(text, Way::Response)), (request, response), "{text}");
        }
        assert!(
            Way::Request.unsettable(&name("cookie")).is_some() && Way::Response.unsettable(&name("etag")).is_none()
        );
        assert!(!told("expect", Way::Request) && Way::Request.unsettable(&name("expect")).is_some());
    }

    fn name(text: &'static str) -> HeaderName {
        HeaderName::from_static(text)
    }

    #[test]
    fn every_spelling_gives_way_to_the_one_that_is_set() {
        let set = vec![(name("x-key"), HeaderValue::from_static("ours"))];
        let edits = HeaderEdits::new(&[name("x-gone")], set);
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("x-key", "1"), ("x-key", "2"), ("x_key", "3"), ("x.gone", "4"), ("x-gone", "5"), ("x-kept", "6")]
        {
            headers.append(name, HeaderValue::from_static(value));
        }
        edits.apply(&mut headers);
        let mut left: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        left.sort_unstable();
        assert_eq!(left, [("x-kept", "6"), ("x-key", "ours")]);
        assert!(edits.sets(&name("x-key")) && !edits.sets(&name("x-gone")) && !edits.is_empty());
        assert!(Edits::default().is_empty());
    }
}
