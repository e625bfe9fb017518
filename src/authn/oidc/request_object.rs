//! The authorization request as a signed object (JAR, RFC 9101; Core §6.1).

use serde_json::{Map, Value};

use super::jws::{Fresh, Signer, SigningError};

/// Why a request cannot become an object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum RequestObjectError {
    /// §4: an object is never inside another, and what describes the object itself is no parameter.
    #[error("the parameter {0} cannot stand in a request object")]
    Reserved(String),
    /// Only `resource` (RFC 8707 §2) may be given more than once.
    #[error("the parameter {0} is given more than once")]
    Twice(String),
    /// `claims`, `authorization_details` or `max_age` is not of its type.
    #[error("the parameter {0} is not {1}")]
    Type(String, &'static str),
    /// It could not be signed.
    #[error("the request object could not be signed")]
    Signing(#[from] SigningError),
}

/// Signs the parameters of one request, `client_id` among them. `issuer` is whom it is for.
pub(super) fn request_object<'a>(
    signer: &Signer,
    client_id: &str,
    issuer: &str,
    parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
    fresh: Fresh<'_>,
) -> Result<String, RequestObjectError> {
    let mut claims: Map<_, _> = [
        ("iss", client_id.into()),
        ("aud", issuer.into()),
        ("iat", fresh.now.0.into()),
        ("nbf", fresh.now.0.into()),
        ("exp", fresh.now.0.saturating_add(LIFETIME).into()),
        ("jti", fresh.jti.into()),
    ]
    .into_iter()
    .map(|(name, value): (&str, Value)| (name.to_owned(), value))
    .collect();
    for (name, text) in parameters {
        if RESERVED.contains(&name) {
            return Err(RequestObjectError::Reserved(name.to_owned()));
        }
        add(&mut claims, name, text)?;
    }
    Ok(signer.sign_claims("oauth-authz-req+jwt", &claims)?)
}

fn add(claims: &mut Map<String, Value>, name: &str, text: &str) -> Result<(), RequestObjectError> {
    let value = typed(name, text)?;
    match claims.get_mut(name) {
        None => {
            claims.insert(name.to_owned(), value);
        }
        Some(Value::Array(several)) if name == "resource" => several.push(value),
        Some(one) if name == "resource" => *one = Value::Array(vec![one.take(), value]),
        Some(_) => return Err(RequestObjectError::Twice(name.to_owned())),
    }
    Ok(())
}

/// §4: numbers as numbers, JSON as JSON, all else as text.
fn typed(name: &str, text: &str) -> Result<Value, RequestObjectError> {
    let wrong = |wanted| RequestObjectError::Type(name.to_owned(), wanted);
    match name {
        "claims" => serde_json::from_str(text).ok().filter(Value::is_object).ok_or(wrong("a JSON object")),
        "authorization_details" => serde_json::from_str(text).ok().filter(Value::is_array).ok_or(wrong("a JSON array")),
        // `parse` would take a sign.
        "max_age" if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            text.parse::<u64>().map(Value::from).map_err(|_| wrong("a number of seconds"))
        }
        "max_age" => Err(wrong("a number of seconds")),
        _ => Ok(text.into()),
    }
}

/// How long an object may be used, in seconds: five minutes, the most that is sensible for what is sent at once.
const LIFETIME: u64 = 300;

/// Objects inside, and the claims about the object. `sub` never, so that the object is no client assertion (§10.8).
const RESERVED: [&str; 9] = ["request", "request_uri", "iss", "sub", "aud", "iat", "nbf", "exp", "jti"];

#[cfg(test)]
mod tests;
