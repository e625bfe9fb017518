//! Requests that travel as a URL through the user agent (RFC 6749 §3.1): parameters added to an endpoint.

use url::Url;

/// A `request` that was made by adding parameters to `endpoint`. The query that the endpoint already has stays (RFC 6749
/// §3.1), less what was added, since no parameter may be there twice.
pub(super) fn without_doubles(endpoint: &Url, mut request: Url) -> Url {
    let pairs: Vec<_> = request.query_pairs().into_owned().collect();
    let (own, added) = pairs.split_at(endpoint.query_pairs().count());
    let is_added = |name: &str| added.iter().any(|(added, _)| added == name);
    if own.iter().any(|(name, _)| is_added(name)) {
        let own = own.iter().filter(|(name, _)| !is_added(name));
        request.query_pairs_mut().clear().extend_pairs(own.chain(added));
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoints_own_query_stays_and_nothing_stands_twice() {
        let cases = [
            ("https://id.example/a", "https://id.example/a?x=1+2&y=%C3%A4%26"),
            ("https://id.example/a?", "https://id.example/a?x=1+2&y=%C3%A4%26"),
            ("https://id.example/a?p=b%20c", "https://id.example/a?p=b%20c&x=1+2&y=%C3%A4%26"),
            ("https://id.example/a?x=evil&p=b", "https://id.example/a?p=b&x=1+2&y=%C3%A4%26"),
        ];
        for (endpoint, expected) in cases {
            let endpoint = Url::parse(endpoint).unwrap();
            let mut request = endpoint.clone();
            request.query_pairs_mut().extend_pairs([("x", "1 2"), ("y", "ä&")]);
            assert_eq!(without_doubles(&endpoint, request).as_str(), expected);
        }
    }
}
