//! What the fake provider can be told to do wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

/// The provider's endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// `/.well-known/openid-configuration`.
    Discovery,
    /// The key set.
    Jwks,
    /// The key set as a signed token, where there is one.
    SignedJwks,
    /// The authorization endpoint.
    Authorize,
    /// The token endpoint.
    Token,
    /// The userinfo endpoint.
    Userinfo,
    /// The introspection endpoint.
    Introspect,
    /// The client registration endpoint, and what lies below it.
    Register,
    /// The end-session endpoint.
    EndSession,
    /// The revocation endpoint (RFC 7009).
    Revocation,
    /// The endpoint for pushed authorization requests.
    Push,
    /// The device authorization endpoint (RFC 8628).
    Device,
    /// Anything else.
    Unknown,
}

/// All faults; the default is none. They hold from the next request on.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// What is wrong with ID tokens.
    pub id_token: Option<IdTokenFault>,
    /// Claims of ID tokens that are otherwise; `null`: left out.
    pub id_token_claims: Map<String, Value>,
    /// Claims of the ID token that comes with a code that are otherwise; `null`: left out.
    pub front_claims: Map<String, Value>,
    /// Claims of userinfo that are otherwise; `null`: left out.
    pub userinfo_claims: Map<String, Value>,
    /// Good answers of an endpoint with another `Content-Type`; empty: with none.
    pub content_type: BTreeMap<Endpoint, &'static str>,
    /// Userinfo lies unsigned in a token that says `none`.
    pub userinfo_is_none: bool,
    /// Another `iss` of authorization responses, or none.
    pub callback_issuer: Option<Option<String>>,
    /// What is wrong with encryption.
    pub encryption: Option<EncryptionFault>,
    /// What is wrong with the discovery document.
    pub discovery: Option<DiscoveryFault>,
    /// What is wrong with the key set.
    pub jwks: Option<JwksFault>,
    /// Neither the key set nor ID tokens name a key, and the one in use stands last (RFC 7515 §4.1.4).
    pub keys_without_names: bool,
    /// What is wrong with userinfo.
    pub userinfo: Option<UserinfoFault>,
    /// What is wrong with introspection.
    pub introspection: Option<IntrospectionFault>,
    /// What is wrong with the token endpoint.
    pub token: Option<TokenFault>,
    /// What ought to be `invalid_grant` is `access_denied` with 401.
    pub denies: bool,
    /// No refresh tokens are given.
    pub no_refresh_tokens: bool,
    /// What is wrong with the answer to a pushed authorization request.
    pub push: Option<PushFault>,
    /// Whoever asks for a device too soon, and who does not, is told to slow down.
    pub slow_down: bool,
    /// No nonce is ever the right one.
    pub endless_nonces: bool,
    /// What is wrong with the authorization response.
    pub authorize: Option<AuthorizeFault>,
    /// What is wrong with the way the authorization response comes back.
    pub response: Option<ResponseFault>,
    /// How long an endpoint takes before it answers.
    pub delay: BTreeMap<Endpoint, Duration>,
    /// Endpoints that answer with a 302 to a copy of themselves, which would answer well.
    pub redirect: Vec<Endpoint>,
}

impl Faults {
    /// Whether what comes for a code is spoiled, and userinfo is not.
    pub(super) fn spoil_sign_ins(&self) -> bool {
        let spoils = self.id_token.is_some()
            || !self.id_token_claims.is_empty()
            || self.token.is_some()
            || self.encryption.is_some()
            || self.response.is_some()
            || self.authorize.is_some()
            || self.callback_issuer.is_some();
        let userinfo = self.userinfo.is_some()
            || !self.userinfo_claims.is_empty()
            || self.userinfo_is_none
            || self.content_type.contains_key(&Endpoint::Userinfo);
        spoils && !userinfo
    }
}

/// One thing wrong with the answer of the introspection endpoint; the signed ones where a signed answer is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntrospectionFault {
    /// Plain JSON where a signed answer was asked for.
    NotSigned,
    /// `typ` of the signed answer is `JWT`.
    OtherType,
    /// `iss` of the signed answer is another.
    OtherIssuer,
    /// `aud` of the signed answer is another client.
    OtherAudience,
    /// Signed with a key that is not in the key set.
    WrongKey,
    /// `alg: none`.
    Unsigned,
    /// 500.
    ServerError,
    /// A page.
    Html,
    /// 401, as if we were nobody.
    Unauthorized,
}

/// One thing wrong with the way an authorization response comes back, or with the ID token in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseFault {
    /// In the query, whatever was asked for.
    OtherMode,
    /// A good signed answer beside the `iss` of another issuer.
    JwtBesideOtherIssuer,
    /// A good signed answer beside its own `iss`.
    JwtBesideIssuer,
    /// A signed answer of another issuer.
    JwtIssuer,
    /// A signed answer of nobody.
    JwtNoIssuer,
    /// A signed answer for another client.
    JwtAudience,
    /// A signed answer for nobody.
    JwtNoAudience,
    /// A signed answer for us and another client.
    JwtAudiences,
    /// A signed answer that has expired.
    JwtExpired,
    /// A signed answer that never expires.
    JwtNoExpiry,
    /// A signed answer with `alg: none`.
    JwtUnsigned,
    /// A signed answer that somebody else signed.
    JwtWrongKey,
    /// The hybrid flow without its ID token.
    MissingIdToken,
    /// `c_hash` is missing.
    MissingCodeHash,
    /// `c_hash` of another code.
    WrongCodeHash,
    /// The ID token that comes with the code is about somebody else.
    OtherSubjectInFront,
    /// The ID token that comes with the code has another nonce.
    WrongNonceInFront,
}

/// One thing wrong with the encryption of ID tokens and userinfo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncryptionFault {
    /// Not encrypted.
    Plain,
    /// The claims lie in it unsigned, as JSON.
    Unsigned,
    /// The claims lie in it in a token that says `none`.
    AlgNone,
    /// Encrypted twice.
    Twice,
    /// One bit of the tag is flipped.
    Tampered,
    /// By RSA-OAEP with SHA-1.
    Sha1,
    /// Whatever is inside is no text.
    Empty,
}

/// One thing wrong with an ID token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdTokenFault {
    /// Signed with a key that is not in the key set, under the id of one that is.
    WrongKey,
    /// One bit of the signature is flipped.
    TamperedSignature,
    /// `alg: none`, no signature.
    AlgNone,
    /// HS256 with the public key's PEM as the secret.
    Hs256WithPublicKey,
    /// HS256 with the client secret, for which this client is not registered.
    Hs256WithClientSecret,
    /// Signed with a key whose id is not in the key set.
    UnknownKeyId,
    /// A `crit` header that nobody knows.
    CriticalHeader,
    /// Another `iss`.
    WrongIssuer,
    /// The issuer with a slash at its end.
    IssuerWithSlash,
    /// Another `aud`.
    WrongAudience,
    /// `aud` is missing.
    MissingAudience,
    /// An audience beside ours.
    ExtraAudience,
    /// `azp` is another client.
    WrongAuthorizedParty,
    /// Another `nonce`.
    WrongNonce,
    /// `nonce` is missing.
    MissingNonce,
    /// `at_hash` of another access token.
    WrongAccessTokenHash,
    /// `exp` is five minutes ago.
    Expired,
    /// `exp` is missing.
    MissingExpiry,
    /// `exp` is not a number.
    ExpiryIsText,
    /// `iat` lies ten minutes ahead.
    IssuedInTheFuture,
    /// `iat` is missing.
    MissingIssuedAt,
    /// `nbf` lies ten minutes ahead.
    NotYetValid,
    /// `sub` is missing.
    MissingSubject,
    /// `sub` is empty.
    EmptySubject,
    /// `sub` is a number.
    SubjectIsNumber,
    /// Not a token at all.
    Garbage,
    /// The token answer has no ID token.
    Missing,
}

impl IdTokenFault {
    /// Whether nothing that comes with such a token is of any use, whatever the settings are and whatever was asked for.
    pub(super) fn is_never_good(self) -> bool {
        // Trusted by name, registered, and left out by a renewal.
        !matches!(self, Self::ExtraAudience | Self::Hs256WithClientSecret | Self::Missing | Self::MissingNonce)
    }

    /// All of them; each must be refused.
    pub const ALL: [IdTokenFault; 27] = [
        IdTokenFault::WrongKey,
        IdTokenFault::TamperedSignature,
        IdTokenFault::AlgNone,
        IdTokenFault::Hs256WithPublicKey,
        IdTokenFault::Hs256WithClientSecret,
        IdTokenFault::UnknownKeyId,
        IdTokenFault::CriticalHeader,
        IdTokenFault::WrongIssuer,
        IdTokenFault::IssuerWithSlash,
        IdTokenFault::WrongAudience,
        IdTokenFault::MissingAudience,
        IdTokenFault::ExtraAudience,
        IdTokenFault::WrongAuthorizedParty,
        IdTokenFault::WrongNonce,
        IdTokenFault::MissingNonce,
        IdTokenFault::WrongAccessTokenHash,
        IdTokenFault::Expired,
        IdTokenFault::MissingExpiry,
        IdTokenFault::ExpiryIsText,
        IdTokenFault::IssuedInTheFuture,
        IdTokenFault::MissingIssuedAt,
        IdTokenFault::NotYetValid,
        IdTokenFault::MissingSubject,
        IdTokenFault::EmptySubject,
        IdTokenFault::SubjectIsNumber,
        IdTokenFault::Garbage,
        IdTokenFault::Missing,
    ];
}

/// One thing wrong with the discovery document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiscoveryFault {
    /// Its `issuer` is another.
    OtherIssuer,
    /// Its `issuer` has a slash at the end.
    IssuerWithSlash,
    /// An HTML page with status 200.
    Html,
    /// A well-made document of 5 MB.
    FiveMegabytes,
    /// A JSON array.
    JsonArray,
    /// The token endpoint is missing.
    NoTokenEndpoint,
    /// 500.
    ServerError,
    /// 404.
    NotFound,
}

/// One thing wrong with the key set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JwksFault {
    /// Keys that nobody can use stand before the good one; a client must go on.
    UnusableKeysBesideGood,
    /// An HTML page with status 200.
    Html,
    /// 500.
    ServerError,
    /// No key at all.
    Empty,
    /// 5 MB.
    FiveMegabytes,
}

/// One thing wrong with userinfo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserinfoFault {
    /// Another `sub`.
    OtherSubject,
    /// `sub` is missing.
    MissingSubject,
    /// A JSON array around the claims.
    JsonArray,
    /// An HTML page with status 200.
    Html,
    /// 500.
    ServerError,
}

/// One thing wrong with the token endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFault {
    /// `invalid_grant` (RFC 6749 §5.2).
    InvalidGrant,
    /// `invalid_client` with 401.
    InvalidClient,
    /// 500.
    ServerError,
    /// 503.
    Unavailable,
    /// An HTML page with status 200.
    Html,
    /// `token_type` is something that nobody knows.
    UnknownTokenType,
    /// `token_type` is Bearer, whatever was asked for.
    BearerInstead,
    /// 5 MB.
    FiveMegabytes,
    /// `access_token` stands twice.
    Doubled,
}

/// One thing wrong with the answer to a pushed authorization request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushFault {
    /// `invalid_request`.
    Refused,
    /// 500.
    ServerError,
    /// An HTML page with status 201.
    Html,
    /// 5 MB.
    Megabytes,
    /// A reference at another place.
    ForeignReference,
    /// No URI.
    RelativeReference,
    /// A line break in the reference.
    ReferenceWithLineBreak,
    /// `request_uri` is missing.
    NoReference,
    /// `expires_in` is missing.
    NoExpiry,
}

/// One thing wrong with the authorization response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthorizeFault {
    /// `error=access_denied` with state and iss: the person said no.
    AccessDenied,
    /// `error=server_error` with state and iss.
    ServerError,
    /// `error=temporarily_unavailable` with state and iss: its own sign-in page expired.
    TemporarilyUnavailable,
    /// `error=access_denied` without a state.
    ErrorWithoutState,
    /// An error whose description is markup.
    ErrorWithMarkup,
    /// A code without a state.
    CodeWithoutState,
    /// `iss` is another provider.
    WrongIssuer,
    /// `iss` is missing though the metadata promises it (RFC 9207 §2.4).
    MissingIssuer,
    /// An error whose `iss` is another provider.
    ErrorFromWrongIssuer,
    /// The code of somebody else's sign-in at the same client.
    CodeOfAnotherTransaction,
}
