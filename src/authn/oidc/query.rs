//! Requests that travel as a URL through the user agent: parameters added to an endpoint.

use url::Url;

/// `endpoint` with `parameters`. The query that the endpoint already has stays (RFC 6749 §3.1), less what is set here,
/// since no parameter may be there twice.
pub(super) fn with_parameters<'a>(endpoint: &Url, parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> Url {
    let parameters: Vec<_> = parameters.into_iter().collect();
    let is_ours = |name: &str| parameters.iter().any(|(ours, _)| *ours == name);
    let mut url = endpoint.clone();
    if endpoint.query_pairs().any(|(name, _)| is_ours(&name)) {
        url.query_pairs_mut().clear().extend_pairs(endpoint.query_pairs().filter(|(name, _)| !is_ours(name)));
    }
    url.query_pairs_mut().extend_pairs(parameters);
    url
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
            let url = with_parameters(&Url::parse(endpoint).unwrap(), [("x", "1 2"), ("y", "ä&")]);
            assert_eq!(url.as_str(), expected);
        }
    }
}
