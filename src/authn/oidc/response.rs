//! The authorization response (RFC 6749 §4.1.2, OpenID Connect Core §3.1.2.5 and §3.3.2.5): how it is asked for, how it comes
//! back, and what is in it.

use serde_json::{Map, Value};

use super::claims::{self, Rules};
use super::id_token::IdTokenError;
use super::jose::{JoseError, Jws, Trust};
use crate::clock::UnixTime;
use crate::secret::SecretString;

/// What is asked for (RFC 6749 §3.1.1, OAuth 2.0 Multiple Response Types).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResponseType {
    /// `code`.
    #[default]
    Code,
    /// `code id_token`, the hybrid flow whose tokens all come from the token endpoint but one.
    CodeIdToken,
}

impl ResponseType {
    /// As it stands in the request and in metadata.
    pub fn name(self) -> &'static str {
        match self {
            Self::Code => "code",
            Self::CodeIdToken => "code id_token",
        }
    }
}

/// How the answer comes back (OAuth 2.0 Multiple Response Types §2.1, Form Post Response Mode, JARM §2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResponseMode {
    /// In the query, the default for `code`, so that it is not asked for.
    #[default]
    Query,
    /// In a form that the user agent POSTs.
    FormPost,
    /// In a signed token, in the query.
    QueryJwt,
    /// In a signed token, in a form.
    FormPostJwt,
}

impl ResponseMode {
    /// As it stands in the request; `None` for the default.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Query => None,
            Self::FormPost => Some("form_post"),
            Self::QueryJwt => Some("query.jwt"),
            Self::FormPostJwt => Some("form_post.jwt"),
        }
    }

    /// Whether the answer is a POST from the provider's site, which brings no cookie with `SameSite=Lax`.
    pub fn is_post(self) -> bool {
        matches!(self, Self::FormPost | Self::FormPostJwt)
    }

    /// Whether the answer is a signed token.
    pub fn is_jwt(self) -> bool {
        matches!(self, Self::QueryJwt | Self::FormPostJwt)
    }
}

/// What came back, none of it twice.
#[derive(Debug, Default)]
pub struct AuthorizationResponse {
    /// Ours, unopened.
    pub state: Option<String>,
    /// The authorization code.
    pub code: Option<SecretString>,
    /// Whoever answers (RFC 9207 §2); in a signed answer the token's own, which is verified.
    pub issuer: Option<String>,
    /// The error code.
    pub error: Option<String>,
    /// For the log only.
    pub description: Option<String>,
    /// The ID token of the hybrid flow, unverified.
    pub id_token: Option<SecretString>,
}

/// A signed answer, unverified.
#[derive(Debug)]
pub struct Signed {
    /// The token.
    pub jwt: SecretString,
    /// The `iss` that stands beside it, where one does.
    issuer: Option<String>,
}

impl Signed {
    /// RFC 9207 §2.4: JARM needs no `iss` outside of the token; where there is one, it is another's unless it is the same.
    ///
    /// # Errors
    /// [`ResponseError::Contradictory`].
    pub fn agrees_with(&self, verified: &AuthorizationResponse) -> Result<(), ResponseError> {
        let agrees = self.issuer.is_none() || self.issuer == verified.issuer;
        if agrees { Ok(()) } else { Err(ResponseError::Contradictory) }
    }
}

/// Why an answer is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// A parameter comes twice.
    #[error("a parameter of the answer comes twice")]
    Repeated,
    /// A code and an error, or a signed answer beside an unsigned one.
    #[error("the answer contradicts itself")]
    Contradictory,
    /// Another way back than was asked for.
    #[error("the answer did not come in the response mode that was asked for")]
    Mode,
    /// The signed answer is not the provider's, not for us, or too old (JARM §2.4).
    #[error("the signed answer is refused")]
    Jwt(#[source] IdTokenError),
}

impl ResponseError {
    /// The constant reason code for the log.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Repeated => "callback_parameter_repeated",
            Self::Contradictory => "callback_contradictory",
            Self::Mode => "callback_mode",
            Self::Jwt(_) => "callback_jwt",
        }
    }
}

impl AuthorizationResponse {
    /// Reads parameters, form-decoded already.
    ///
    /// # Errors
    /// [`ResponseError`].
    pub fn read<K: AsRef<str>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, ResponseError> {
        let (mut answer, mut jwt) = (Self::default(), None);
        for (name, value) in pairs {
            let put = |place: &mut Option<String>, value: String| match place.replace(value) {
                None => Ok(()),
                Some(_) => Err(ResponseError::Repeated),
            };
            let put_secret = |place: &mut Option<SecretString>, value: String| match place.replace(value.into()) {
                None => Ok(()),
                Some(_) => Err(ResponseError::Repeated),
            };
            match name.as_ref() {
                "state" => put(&mut answer.state, value.into())?,
                "code" => put_secret(&mut answer.code, value.into())?,
                "iss" => put(&mut answer.issuer, value.into())?,
                "error" => put(&mut answer.error, value.into())?,
                "error_description" => put(&mut answer.description, value.into())?,
                "id_token" => put_secret(&mut answer.id_token, value.into())?,
                "response" => put(&mut jwt, value.into())?,
                _ => {}
            }
        }
        // What is signed comes alone; whoever did not ask for it must not be handed one.
        if jwt.is_some() || (answer.code.is_some() && answer.error.is_some()) {
            return Err(ResponseError::Contradictory);
        }
        Ok(answer)
    }

    /// Takes the one `response` of a signed answer (JARM §2.3) out of its parameters.
    ///
    /// # Errors
    /// [`ResponseError`].
    pub fn signed<K: AsRef<str>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Signed, ResponseError> {
        let (mut jwt, mut issuer): (Option<SecretString>, Option<String>) = (None, None);
        for (name, value) in pairs {
            match name.as_ref() {
                "response" if jwt.is_some() => return Err(ResponseError::Repeated),
                "response" => jwt = Some(value.into().into()),
                "iss" if issuer.is_some() => return Err(ResponseError::Repeated),
                "iss" => issuer = Some(value.into()),
                // Unsigned parameters could be anybody's.
                "code" | "error" | "state" | "id_token" => return Err(ResponseError::Contradictory),
                _ => {}
            }
        }
        jwt.map(|jwt| Signed { jwt, issuer }).ok_or(ResponseError::Mode)
    }

    /// Verifies a signed answer (JARM §2.4) and reads it: signature, then `iss`, `aud` and `exp`, all of which it must have.
    pub(super) fn verify(jwt: &str, trust: Trust<'_>, rules: Rules<'_>, now: UnixTime) -> Result<Self, IdTokenError> {
        let token = Jws::parse(jwt)?;
        // Some providers write `iss` twice: as the token's own (JARM §2.1) and as the answer's (RFC 9207 §2).
        let claims = token.verify_repeating(trust)?;
        if token.is_of_another_kind() {
            return Err(IdTokenError::Kind);
        }
        rules.judge_issuer(&claims)?;
        // JARM §2.1: `aud` is the client id, and nothing else.
        if claims.get("aud").and_then(single_audience) != Some(rules.client_id) {
            return Err(IdTokenError::Audience);
        }
        claims::judge_expiry(&claims, rules.leeway, now)?;
        claims::judge_begin(&claims, rules.leeway, now)?;
        Self::from_claims(&claims)
    }

    fn from_claims(claims: &Map<String, Value>) -> Result<Self, IdTokenError> {
        let text = |name: &'static str| match claims.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(IdTokenError::ClaimType(name)),
        };
        let answer = Self {
            state: text("state")?,
            code: text("code")?.map(SecretString::new),
            issuer: text("iss")?,
            error: text("error")?,
            description: text("error_description")?,
            id_token: text("id_token")?.map(SecretString::new),
        };
        if answer.code.is_some() && answer.error.is_some() {
            return Err(JoseError::Malformed.into());
        }
        Ok(answer)
    }
}

fn single_audience(audience: &Value) -> Option<&str> {
    match audience {
        Value::Array(several) => match several.as_slice() {
            [one] => one.as_str(),
            _ => None,
        },
        one => one.as_str(),
    }
}

/// Whether an error says that the person has to do something, so nothing that happens behind their back can help (Core
/// §3.1.2.6; RFC 6749 §5.2 leaves room for it at the token endpoint).
pub fn needs_the_person(error: &str) -> bool {
    matches!(error, "login_required" | "interaction_required" | "consent_required" | "account_selection_required")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<AuthorizationResponse, ResponseError> {
        AuthorizationResponse::read(url::form_urlencoded::parse(query.as_bytes()).into_owned())
    }

    #[test]
    fn what_comes_twice_or_contradicts_itself_is_no_answer() {
        for name in ["state", "code", "iss", "error", "error_description", "id_token"] {
            assert_eq!(read(&format!("{name}=1&{name}=1")).unwrap_err(), ResponseError::Repeated, "{name}");
        }
        assert_eq!(read("code=1&error=x&state=s").unwrap_err(), ResponseError::Contradictory);
        assert_eq!(read("code=1&state=s&response=a.b.c").unwrap_err(), ResponseError::Contradictory);
        assert_eq!(read("response=a.b.c").unwrap_err(), ResponseError::Contradictory);
        let answer = read("code=c%20d&state=s&iss=https%3A%2F%2Fid.example&session_state=x&x=1&x=2").unwrap();
        assert_eq!(answer.code.unwrap().expose_secret(), "c d");
        assert_eq!(answer.issuer.as_deref(), Some("https://id.example"));
    }

    #[test]
    fn a_signed_answer_comes_alone() {
        let signed = |query: &str| {
            AuthorizationResponse::signed(url::form_urlencoded::parse(query.as_bytes()).into_owned())
                .map(|signed| signed.jwt.expose_secret().to_owned())
        };
        assert_eq!(signed("response=a.b.c&x=1"), Ok("a.b.c".to_owned()));
        assert_eq!(signed("response=a&response=b"), Err(ResponseError::Repeated));
        assert_eq!(signed("response=a&iss=x&iss=x"), Err(ResponseError::Repeated));
        assert_eq!(signed("code=c&state=s"), Err(ResponseError::Contradictory));
        assert_eq!(signed("response=a&state=s"), Err(ResponseError::Contradictory));
        assert_eq!(signed("iss=x"), Err(ResponseError::Mode));
    }
}
