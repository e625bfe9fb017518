//! Challenges of `WWW-Authenticate` (RFC 9110 §11.3 and §11.6.1): a list in which commas stand between challenges and between
//! their parameters alike. Read to the letter: what does not follow the grammar is no list at all.

use std::borrow::Cow;

use super::headers::is_token;

/// One challenge. Names have no case; they stand here as they came.
#[derive(Debug, PartialEq, Eq)]
pub struct Challenge<'l> {
    /// The scheme, such as `Bearer`.
    pub scheme: &'l str,
    /// Its parameters; none where there is a `token68`.
    pub parameters: Vec<(&'l str, Cow<'l, str>)>,
}

impl Challenge<'_> {
    /// Whether it is of this scheme.
    pub fn is(&self, scheme: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme)
    }

    /// The value of a parameter.
    ///
    /// # Errors
    /// [`Twice`] where it stands more than once (RFC 9110 §11.2: only once).
    pub fn parameter(&self, name: &str) -> Result<Option<&str>, Twice> {
        let mut values = self.parameters.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name));
        let first = values.next().map(|(_, value)| &**value);
        if values.next().is_some() { Err(Twice) } else { Ok(first) }
    }
}

/// A parameter stands twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a parameter of a challenge is repeated")]
pub struct Twice;

/// The challenges of one field line; `None` where it is no list of challenges.
pub fn challenges(line: &str) -> Option<Vec<Challenge<'_>>> {
    let mut rest = Rest(line);
    let mut read: Vec<Challenge<'_>> = Vec::new();
    while rest.skip_to_element() {
        let before = Rest(rest.0);
        let word = rest.token()?;
        match read.last_mut() {
            // A parameter goes on with the challenge before it, if that has begun with one.
            Some(open) if Rest(rest.0.trim_start_matches(BLANK)).0.starts_with('=') => {
                if open.parameters.is_empty() {
                    return None;
                }
                rest = before;
                open.parameters.push(rest.parameter()?);
            }
            _ => {
                let mut challenge = Challenge { scheme: word, parameters: Vec::new() };
                if rest.0.starts_with(' ') {
                    rest.0 = rest.0.trim_start_matches(BLANK);
                    if !rest.at_end_of_element() && !rest.skip_token68() {
                        challenge.parameters.push(rest.parameter()?);
                    }
                }
                read.push(challenge);
            }
        }
        rest.0 = rest.0.trim_start_matches(BLANK);
        if !rest.at_end_of_element() {
            return None;
        }
    }
    Some(read)
}

const BLANK: [char; 2] = [' ', '\t'];

/// What is still to be read.
struct Rest<'l>(&'l str);

impl<'l> Rest<'l> {
    /// Goes over empty elements (RFC 9110 §5.6.1.2); tells whether there is another one.
    fn skip_to_element(&mut self) -> bool {
        self.0 = self.0.trim_start_matches([' ', '\t', ',']);
        !self.0.is_empty()
    }

    fn at_end_of_element(&self) -> bool {
        self.0.is_empty() || self.0.starts_with(',')
    }

    /// RFC 9110 §5.6.2.
    fn token(&mut self) -> Option<&'l str> {
        let end = self.0.bytes().position(|byte| !is_token(byte)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        (!token.is_empty()).then_some(token)
    }

    /// RFC 9110 §11.2, where the element ends with it; else nothing is gone over.
    fn skip_token68(&mut self) -> bool {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
        let plain = self.0.bytes().take_while(|byte| is_plain(*byte)).count();
        let rest = Rest(self.0[plain..].trim_start_matches('=').trim_start_matches(BLANK));
        let is_there = plain > 0 && rest.at_end_of_element();
        if is_there {
            self.0 = rest.0;
        }
        is_there
    }

    /// `name = value`, blanks around the sign (RFC 9110 §11.2).
    fn parameter(&mut self) -> Option<(&'l str, Cow<'l, str>)> {
        let name = self.token()?;
        self.0 = self.0.trim_start_matches(BLANK).strip_prefix('=')?.trim_start_matches(BLANK);
        let value = if self.0.starts_with('"') { self.quoted()? } else { self.token()?.into() };
        Some((name, value))
    }

    /// RFC 9110 §5.6.4.
    fn quoted(&mut self) -> Option<Cow<'l, str>> {
        let inner = self.0.strip_prefix('"')?;
        let mut escaped = false;
        let is_end = |(_, byte): &(usize, u8)| {
            let ends = *byte == b'"' && !escaped;
            escaped = *byte == b'\\' && !escaped;
            ends
        };
        let (end, _) = inner.bytes().enumerate().find(is_end)?;
        self.0 = &inner[end + 1..];
        let text = &inner[..end];
        if !text.contains('\\') {
            return Some(text.into());
        }
        let mut plain = String::with_capacity(text.len());
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            plain.push(if letter == '\\' { letters.next()? } else { letter });
        }
        Some(plain.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(line: &str) -> Option<String> {
        let show = |challenge: &Challenge<'_>| {
            let parameters = challenge.parameters.iter().map(|(name, value)| format!("{name}={value}"));
            format!("{}({})", challenge.scheme, parameters.collect::<Vec<_>>().join("|"))
        };
        challenges(line).map(|all| all.iter().map(show).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn challenges_and_their_parameters_are_told_apart() {
        for (line, expected) in [
            ("", ""),
            (" , ,", ""),
            ("Basic", "Basic()"),
            ("Bearer error=x", "Bearer(error=x)"),
            ("Bearer  error = \"x y\" ,\tb=\"\"", "Bearer(error=x y|b=)"),
            ("Basic realm=\"a, Bearer error=x\", Bearer error=\"y\"", "Basic(realm=a, Bearer error=x) Bearer(error=y)"),
            ("Negotiate, Bearer a=b, c=d, Digest e=f", "Negotiate() Bearer(a=b|c=d) Digest(e=f)"),
            ("Newauth abc==, Bearer a=b", "Newauth() Bearer(a=b)"),
            ("Negotiate a/b+c==", "Negotiate()"),
            ("Bearer a=\"x\\\"y\\\\z\\q\"", "Bearer(a=x\"y\\zq)"),
            ("Bearer error=, Basic", "Bearer() Basic()"),
        ] {
            assert_eq!(shown(line).as_deref(), Some(expected), "{line}");
        }
    }

    #[test]
    fn what_does_not_follow_the_grammar_is_no_list() {
        for line in [
            "=",
            "error=x",
            "Bearer error=\"x",
            "Bearer error=\"x\\\"",
            "Bearer error=\"x\"y",
            "Bearer a=b c=d",
            "Bearer a=b, c=",
            "Bearer a=b,c=d e",
            "Bearer, a=b",
            "Negotiate abc==, a=b",
            "Bearer \"x\"",
            "Bearer a==b",
            "Bearer a=b;c=d",
            "(",
        ] {
            assert_eq!(shown(line), None, "{line}");
        }
    }

    #[test]
    fn a_parameter_that_stands_twice_has_no_value() {
        let read = challenges("Bearer a=1, A=2, b=3").unwrap();
        assert!(read[0].is("bearer"));
        assert_eq!(read[0].parameter("a"), Err(Twice));
        assert_eq!(read[0].parameter("B"), Ok(Some("3")));
        assert_eq!(read[0].parameter("c"), Ok(None));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_not_and_what_was_written_comes_back(line in "[ -~]{0,60}", value in "[ -~]{0,20}") {
            let _ = challenges(&line);
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
            let written = format!("A b=\"{quoted}\", C d=\"{quoted}\"");
            let read = challenges(&written).unwrap();
            prop_assert_eq!(read.len(), 2);
            prop_assert_eq!(read[1].parameter("d"), Ok(Some(&*value)));
        }
    }
}
