//! Signed JSON Web Tokens (RFC 7515, 7518, 7519, 8037, 8725): one verifier for every kind of token, over aws-lc-rs keys.
//! The algorithm is bound to the key, never taken from the header alone. ES256K: RFC 8812 §3.2.

use std::fmt;

use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::jwks::KeySet;
use crate::secret::SecretString;

/// The signature algorithms we know. `none` is not one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "RFC 7518 §3.1 and RFC 8037 §3.1 name them")]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    ES512,
    ES256K,
    EdDSA,
    HS256,
    HS384,
    HS512,
}

impl Algorithm {
    /// Every algorithm whose verifier cannot sign.
    pub const ASYMMETRIC: [Self; 11] = [
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::ES512,
        Self::ES256K,
        Self::EdDSA,
    ];

    /// Those with the client secret as the key (Core §10.1): who can verify can sign.
    pub const SYMMETRIC: [Self; 3] = [Self::HS256, Self::HS384, Self::HS512];

    /// By its JOSE name. `Ed25519` (RFC 9864 §2.2) is the newer name of the only EdDSA variant we know.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "Ed25519" => Some(Self::EdDSA),
            _ => Self::ASYMMETRIC.into_iter().chain(Self::SYMMETRIC).find(|algorithm| algorithm.name() == name),
        }
    }

    /// Its JOSE name.
    pub fn name(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::ES512 => "ES512",
            Self::ES256K => "ES256K",
            Self::EdDSA => "EdDSA",
            Self::HS256 => "HS256",
            Self::HS384 => "HS384",
            Self::HS512 => "HS512",
        }
    }

    /// Whether its key is the client secret.
    pub fn is_symmetric(self) -> bool {
        Self::SYMMETRIC.contains(&self)
    }

    /// The MAC that it is, where it is one.
    pub(super) fn hmac(self) -> Option<hmac::Algorithm> {
        match self {
            Self::HS256 => Some(hmac::HMAC_SHA256),
            Self::HS384 => Some(hmac::HMAC_SHA384),
            Self::HS512 => Some(hmac::HMAC_SHA512),
            _ => None,
        }
    }

    /// The hash that `at_hash` uses with it (Core §3.1.3.6). Ed25519 hashes with SHA-512 inside (RFC 8032 §5.1).
    pub(super) fn digest(self) -> &'static digest::Algorithm {
        match self {
            Self::RS256 | Self::PS256 | Self::ES256 | Self::ES256K | Self::HS256 => &digest::SHA256,
            Self::RS384 | Self::PS384 | Self::ES384 | Self::HS384 => &digest::SHA384,
            Self::RS512 | Self::PS512 | Self::ES512 | Self::EdDSA | Self::HS512 => &digest::SHA512,
        }
    }
}

/// Why a signed token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JoseError {
    /// Not three base64url parts with JSON objects in the first two.
    Malformed,
    /// An algorithm we do not know, that is not allowed here, or that is not its key's.
    Algorithm,
    /// Extensions that we would have to understand (RFC 7515 §4.1.11, RFC 7797).
    Critical,
    /// No key fits; fresher keys may.
    UnknownKey,
    /// The key that the token names did not sign it.
    Signature,
}

/// What a signature is checked with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trust<'a> {
    /// The provider's keys.
    pub(super) keys: &'a KeySet,
    /// The client secret, for HS256, HS384 and HS512.
    pub(super) secret: Option<&'a SecretString>,
    /// The algorithms that are allowed here.
    pub(super) algorithms: &'a [Algorithm],
}

/// A token in three parts whose signature is not checked yet; its claims cannot be read before that.
pub(super) struct Jws<'a> {
    algorithm: Algorithm,
    kid: Option<String>,
    media_type: Option<String>,
    signed: &'a [u8],
    payload: &'a str,
    signature: Vec<u8>,
}

impl<'a> Jws<'a> {
    /// Reads the compact serialization (RFC 7515 §7.1).
    pub(super) fn parse(token: &'a str) -> Result<Self, JoseError> {
        if token.len() > MAX_TOKEN {
            return Err(JoseError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(JoseError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(JoseError::Malformed)?;
        if payload.contains('.') {
            return Err(JoseError::Malformed);
        }
        let header = json_object(&base64url(header)?)?;
        let algorithm = judge_header(&header)?;
        let text = |name| match header.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(JoseError::Malformed),
        };
        Ok(Self {
            algorithm,
            kid: text("kid")?.map(str::to_owned),
            media_type: text("typ")?.map(media_type),
            signed: signed.as_bytes(),
            payload,
            signature: base64url(signature)?,
        })
    }

    /// What kind of token the header says that it is (`typ`), in lower case and without `application/`; proven only by
    /// [`Jws::verify`].
    pub(super) fn media_type(&self) -> Option<&str> {
        self.media_type.as_deref()
    }

    /// Whether the header says that it is a kind of token that is never an ID token, userinfo or an authorization response
    /// (RFC 8725 §3.11).
    pub(super) fn is_of_another_kind(&self) -> bool {
        self.media_type().is_some_and(|kind| OTHER_KINDS.contains(&kind))
    }

    /// The claims as anybody may have written them: to refuse what needs no signature check, and to choose the keys.
    pub(super) fn unproven_claims(&self) -> Result<Map<String, Value>, JoseError> {
        json_object(&base64url(self.payload)?)
    }

    /// The algorithm that the header claims; proven only by [`Jws::verify`].
    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Checks the signature and only then opens the claims.
    pub(super) fn verify(&self, trust: Trust<'_>) -> Result<Map<String, Value>, JoseError> {
        self.verify_signature(trust)?;
        self.unproven_claims()
    }

    /// The same, where a claim may stand twice if it says the same both times.
    pub(super) fn verify_repeating(&self, trust: Trust<'_>) -> Result<Map<String, Value>, JoseError> {
        self.verify_signature(trust)?;
        json_object_repeating(&base64url(self.payload)?)
    }

    fn verify_signature(&self, trust: Trust<'_>) -> Result<(), JoseError> {
        if !trust.algorithms.contains(&self.algorithm) {
            return Err(JoseError::Algorithm);
        }
        match self.algorithm.hmac() {
            Some(mac) => self.verify_hmac(mac, trust.secret)?,
            None => trust.keys.verify(self.algorithm, self.kid.as_deref(), self.signed, &self.signature)?,
        }
        Ok(())
    }

    fn verify_hmac(&self, mac: hmac::Algorithm, secret: Option<&SecretString>) -> Result<(), JoseError> {
        // Core §10.1: the octets of the client secret are the key.
        let secret = secret.filter(|secret| !secret.expose_secret().is_empty()).ok_or(JoseError::UnknownKey)?;
        let key = hmac::Key::new(mac, secret.expose_secret().as_bytes());
        hmac::verify(&key, self.signed, &self.signature).map_err(|_| JoseError::Signature)
    }
}

/// RFC 7515 §4.1.9: case does not matter, and `application/` may be left out where no other slash follows.
fn media_type(typ: &str) -> String {
    let typ = typ.to_ascii_lowercase();
    match typ.strip_prefix("application/") {
        Some(rest) if !rest.contains('/') => rest.to_owned(),
        _ => typ,
    }
}

/// Header parameters that carry keys or point to them (`jwk`, `jku`, `x5u`, `x5c`) are never looked at: keys come from the
/// provider's key set and from nowhere else.
fn judge_header(header: &Map<String, Value>) -> Result<Algorithm, JoseError> {
    if header.contains_key("crit") || header.contains_key("b64") {
        return Err(JoseError::Critical);
    }
    // An encrypted token in the shape of a signed one.
    if header.contains_key("enc") {
        return Err(JoseError::Malformed);
    }
    match header.get("alg") {
        Some(Value::String(name)) => Algorithm::from_name(name).ok_or(JoseError::Algorithm),
        _ => Err(JoseError::Malformed),
    }
}

/// Strict: no padding, no white space, no stray bits (RFC 7515 §2).
pub(super) fn base64url(text: &str) -> Result<Vec<u8>, JoseError> {
    BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| JoseError::Malformed)
}

/// A JSON object that can be read in one way only: a name that stands twice is refused at any depth (RFC 7519 §4).
pub(super) fn json_object(bytes: &[u8]) -> Result<Map<String, Value>, JoseError> {
    one_object(bytes, OneReading { depth: 0, may_repeat: false })
}

/// The same, where a name of the object itself may stand twice with one value: that can be read in one way too.
fn json_object_repeating(bytes: &[u8]) -> Result<Map<String, Value>, JoseError> {
    one_object(bytes, OneReading { depth: 0, may_repeat: true })
}

fn one_object(bytes: &[u8], reading: OneReading) -> Result<Map<String, Value>, JoseError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = reading.deserialize(&mut json).map_err(|_| JoseError::Malformed)?;
    json.end().map_err(|_| JoseError::Malformed)?;
    match value {
        Value::Object(object) => Ok(object),
        _ => Err(JoseError::Malformed),
    }
}

/// Deserializes a [`Value`] without duplicate names and not nested too deeply.
#[derive(Clone, Copy)]
struct OneReading {
    depth: usize,
    /// Whether a name may stand twice with the same value.
    may_repeat: bool,
}

impl OneReading {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom("nested too deeply"));
        }
        Ok(Self { depth: self.depth + 1, may_repeat: false })
    }
}

impl<'de> DeserializeSeed<'de> for OneReading {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for OneReading {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inside = self.deeper()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inside)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inside = self.deeper()?;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(inside)?;
            let is_the_same = |before: &Value| self.may_repeat && *before == value;
            if object.get(&name).is_some_and(|before| !is_the_same(before)) {
                return Err(A::Error::custom("a name stands twice"));
            }
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

/// Kinds of tokens that have a media type of their own.
const OTHER_KINDS: [&str; 8] = [
    "at+jwt",
    "dpop+jwt",
    "entity-statement+jwt",
    "jwk-set+jwt",
    "logout+jwt",
    "oauth-authz-req+jwt",
    "secevent+jwt",
    "token-introspection+jwt",
];

/// The longest token that is read, in bytes.
pub(super) const MAX_TOKEN: usize = 64 * 1024;

/// The deepest nesting of claims.
const MAX_DEPTH: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_once_or_where_that_may_be_twice_with_one_value() {
        for (text, once, repeating) in [
            (r#"{"a":1,"b":2}"#, true, true),
            (r#"{"a":1,"a":1}"#, false, true),
            (r#"{"a":"x","a":"\u0078"}"#, false, true),
            (r#"{"a":1,"a":2}"#, false, false),
            (r#"{"a":1,"a":1,"a":2}"#, false, false),
            (r#"{"a":1,"a":1.0}"#, false, false),
            (r#"{"a":{"b":1,"b":1}}"#, false, false),
            (r#"{"a":[{"b":1,"b":1}]}"#, false, false),
            (r#"{"a":1,"a":1}x"#, false, false),
        ] {
            assert_eq!(json_object(text.as_bytes()).is_ok(), once, "{text}");
            assert_eq!(json_object_repeating(text.as_bytes()).is_ok(), repeating, "{text}");
        }
    }
}
