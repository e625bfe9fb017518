//! Query parameters, each at most once: what comes twice can be read two ways (attack class: last value wins).

use std::borrow::Cow;

/// The value of `name`, form-decoded.
///
/// # Errors
/// [`Repeated`] when it comes more than once.
pub fn single<'q>(query: Option<&'q str>, name: &str) -> Result<Option<Cow<'q, str>>, Repeated> {
    let mut values = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .filter_map(|(key, value)| (key == name).then_some(value));
    let first = values.next();
    if values.next().is_some() { Err(Repeated) } else { Ok(first) }
}

/// A parameter came more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a query parameter is repeated")]
pub struct Repeated;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_parameter_has_no_value() {
        assert_eq!(single(Some("a=1&b=2"), "a"), Ok(Some("1".into())));
        assert_eq!(single(Some("a=1&b=2&a=1"), "a"), Err(Repeated));
        assert_eq!(single(Some("a=1&%61=2"), "a"), Err(Repeated));
        assert_eq!(single(Some("b=%26+x"), "b"), Ok(Some("& x".into())));
        assert_eq!(single(None, "a"), Ok(None));
    }
}
