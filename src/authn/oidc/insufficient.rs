//! What an application demands of a sign-in with its own answer (RFC 9470 §3): `error="insufficient_user_authentication"`, and
//! how (`acr_values`) or how recently (`max_age`) the person has to prove who they are. What it says is bounded and has one
//! reading, or it is no demand.

use http::{HeaderMap, HeaderValue, header};

use super::Wish;
use crate::message::challenge::{Challenge, Twice, challenges};

/// The code (RFC 9470 §7.1).
const ERROR: &str = "insufficient_user_authentication";
/// The longest field line that is looked at, in bytes.
const MAX_LINE: usize = 4096;
/// The most field lines.
const MAX_LINES: usize = 8;
/// The longest list of classes, in bytes.
const MAX_ACR_VALUES: usize = 512;
/// The most digits of an age: 30 years.
const MAX_DIGITS: usize = 9;

/// What the answer demands; `None` where it demands nothing, or can be read in two ways.
pub fn demand_of(headers: &HeaderMap) -> Option<Wish> {
    let lines = headers.get_all(header::WWW_AUTHENTICATE);
    let names_it = |line: &HeaderValue| line.as_bytes().windows(12).any(|part| part == b"insufficient");
    // Most answers are about something else altogether.
    if lines.iter().count() > MAX_LINES || !lines.iter().any(names_it) {
        return None;
    }
    let mut demanded: Option<Wish> = None;
    for line in lines {
        let line = line.to_str().ok().filter(|line| line.len() <= MAX_LINE)?;
        for challenge in challenges(line)?.iter().filter(|one| one.is("bearer") || one.is("dpop")) {
            let Some(error) = challenge.parameter("error").ok()? else { continue };
            let wish = (error == ERROR).then(|| wish(challenge)).flatten()?;
            if demanded.as_ref().is_some_and(|other| *other != wish) {
                return None;
            }
            demanded = Some(wish);
        }
    }
    demanded
}

fn wish(challenge: &Challenge<'_>) -> Option<Wish> {
    let Ok((acr_values, max_age)) = parameters(challenge) else { return None };
    Some(Wish {
        login_hint: None,
        acr_values: acr_values.map(|values| words(values).ok_or(())).transpose().ok()?,
        max_age: max_age.map(|age| seconds(age).ok_or(())).transpose().ok()?,
        ..Wish::default()
    })
}

fn parameters<'c>(challenge: &'c Challenge<'_>) -> Result<(Option<&'c str>, Option<&'c str>), Twice> {
    Ok((challenge.parameter("acr_values")?, challenge.parameter("max_age")?))
}

/// As they travel on: between single spaces, nothing in them that would have to be escaped anywhere.
fn words(values: &str) -> Option<String> {
    let is_plain = |byte: u8| byte == b' ' || (byte.is_ascii_graphic() && byte != b'"' && byte != b'\\');
    if values.len() > MAX_ACR_VALUES || !values.bytes().all(is_plain) {
        return None;
    }
    let words = values.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    (!words.is_empty()).then_some(words)
}

fn seconds(age: &str) -> Option<u32> {
    let is_number = (1..=MAX_DIGITS).contains(&age.len()) && age.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| age.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Option<(Option<String>, Option<u32>)> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::WWW_AUTHENTICATE, HeaderValue::from_str(line).unwrap());
        }
        demand_of(&headers).map(|wish| (wish.acr_values, wish.max_age))
    }

    #[test]
    fn the_examples_of_the_specification_are_read() {
        let first = "Bearer error=\"insufficient_user_authentication\", \
                     error_description=\"A different authentication level is required\", acr_values=\"myACR\"";
        assert_eq!(read(&[first]), Some((Some("myACR".into()), None)));
        let second = "Bearer error=\"insufficient_user_authentication\", \
                      error_description=\"More recent authentication is required\", max_age=\"5\"";
        assert_eq!(read(&[second]), Some((None, Some(5))));
    }

    #[test]
    fn one_demand_in_several_places_is_one_and_two_are_none() {
        let one = "DPoP error=insufficient_user_authentication, acr_values=\"a  b\", max_age=0";
        let same = "bearer max_age=\"0\", acr_values=\" a b\", error=\"insufficient_user_authentication\"";
        let wanted = Some((Some("a b".to_owned()), Some(0)));
        assert_eq!(read(&[one]), wanted);
        assert_eq!(read(&["Basic realm=x", one, same, "Bearer realm=x"]), wanted);
        for other in [
            "Bearer error=insufficient_user_authentication, acr_values=\"b a\", max_age=0",
            "Bearer error=insufficient_user_authentication",
            "Bearer error=invalid_token",
            "Bearer a=b c",
        ] {
            assert_eq!(read(&[one, other]), None, "{other}");
        }
        assert_eq!(read(&[one; 9]), None);
        assert_eq!(read(&["Bearer error=Insufficient_user_authentication"]), None);
        assert_eq!(read(&["Bearer error=insufficient_user_authentication"]), Some((None, None)));
        assert_eq!(read(&[]), None);
    }
}
