//! What a sealed session holds, and how little room it takes.
//!
//! Three layers behind the fixed [`Record`]: what every request needs (name, roles, encoded header values; LZ4, which opens
//! in a quarter of a microsecond), what only sign-out and a changed `[identity]` section need (the tokens' JSON; Brotli
//! with the first layer as its dictionary, never touched on the request path), and what must not be compressed beside
//! text that others choose (signatures, refresh and opaque tokens). JWTs lie decoded; one that would not re-encode byte
//! for byte is kept verbatim.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use brotli::enc::{BrotliEncoderParams, StandardAlloc};
use brotli::{IoReaderWrapper, IoWriterWrapper};
use bytes::Bytes;
use http::HeaderValue;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::marks::Marks;
use crate::authn::identity::Names;
use crate::authn::oidc::Party;
use crate::authn::oidc::claims::ID_TOKEN_ONLY;
use crate::authn::proof::Proof;
use crate::authn::roles::Mapped;
use crate::clock::UnixTime;
use crate::secret::SecretString;

/// The most that either compressed layer may inflate to, in bytes.
const MAX_INFLATED: usize = 256 * 1024;

/// What tokens usually say, in the order and spelling that providers write it: the beginning of the cold layer's dictionary.
/// Part of the sealed format: another text here makes older sessions unreadable.
const COMMON: &[u8] = br#"{"alg":"RS256","kid":"","typ":"JWT"}{"alg":"RS256","typ" : "JWT","kid" : "{"exp":1,"iat":1,"auth_time":1,"jti":"","iss":"https://","aud":["account"],"sub":"","typ":"ID","azp":"","nonce":"","sid":"","at_hash":"","acr":"1","amr":["pwd"],"typ":"Bearer","allowed-origins":["https://"],"realm_access":{"roles":["offline_access","uma_authorization","default-roles-"]},"resource_access":{"account":{"roles":["manage-account","manage-account-links","view-profile"]}},"scope":"openid email profile","email_verified":true,"name":"","roles":["groups":["/","],"preferred_username":"","given_name":"","family_name":"","email":"@"}"#;

/// The fixed part.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(from = "Short", into = "Short")]
pub struct Record {
    /// What it can be ended by.
    pub marks: Marks,
    /// When the person signed in.
    pub issued_at: UnixTime,
    /// The end of the absolute lifetime.
    pub expires_at: UnixTime,
    /// The provider, and who we are there.
    pub party: Party,
    /// The fingerprint of the `[identity]` settings that mapped the contents.
    pub mapping: [u8; 8],
    /// When the access token expires, where the provider said so.
    pub access_expires_at: Option<UnixTime>,
    /// How and when the person proved who they are.
    pub proof: Proof,
    /// How often it was renewed.
    pub generation: u32,
    /// When to renew it, where that can be done.
    pub due: Option<Due>,
    /// When to take its claims anew, where there is a bound for that.
    pub anew: Option<Anew>,
}

/// When a session has to be renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// From here on ahead of time, while requests go on with what there is.
    pub at: UnixTime,
    /// From here on requests wait for it.
    pub stale_at: UnixTime,
}

/// When the claims of a session have to be taken anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anew {
    /// From here on they are too old.
    pub at: UnixTime,
    /// The last refresh token brought none, so only the browser can.
    pub by_browser: bool,
}

impl Record {
    /// Whether it is time to renew it.
    pub fn is_due(&self, now: UnixTime) -> bool {
        self.asks_for_tokens(now) || self.asks_for_browser(now)
    }

    /// Whether it is time for its refresh token, if it has one.
    pub fn asks_for_tokens(&self, now: UnixTime) -> bool {
        self.due.is_some_and(|due| now >= due.at)
    }

    /// Whether its claims are too old, and its refresh token brings no others.
    pub fn asks_for_browser(&self, now: UnixTime) -> bool {
        self.anew.is_some_and(|anew| anew.by_browser && now >= anew.at)
    }

    /// Whether requests wait until it is renewed.
    pub fn is_stale(&self, now: UnixTime) -> bool {
        self.due.is_some_and(|due| now >= due.stale_at)
    }

    /// Whether the access token has expired.
    pub fn has_expired_token(&self, now: UnixTime) -> bool {
        self.access_expires_at.is_some_and(|expiry| now >= expiry)
    }

    /// The access token, unless it has expired.
    pub fn live_access_token(&self, contents: &Contents, now: UnixTime) -> Option<SecretString> {
        if self.has_expired_token(now) {
            return None;
        }
        contents.tokens().and_then(|tokens| tokens.access)
    }
}

/// A record as it is sealed: moments as seconds after the sign-in, which take two bytes instead of five.
#[derive(Serialize, Deserialize)]
struct Short {
    marks: Marks,
    issued_at: UnixTime,
    life: u64,
    party: Party,
    mapping: [u8; 8],
    access_life: Option<u64>,
    proof: Proof,
    generation: u32,
    due: Option<(u64, u64)>,
    anew: Option<(u64, bool)>,
}

impl From<Record> for Short {
    fn from(record: Record) -> Self {
        let Record { marks, issued_at, expires_at, party, mapping, access_expires_at, proof, generation, due, anew } =
            record;
        let after = |moment: UnixTime| moment.since(issued_at).as_secs();
        Self {
            marks,
            issued_at,
            life: after(expires_at),
            party,
            mapping,
            access_life: access_expires_at.map(after),
            proof,
            generation,
            due: due.map(|due| (after(due.at), due.stale_at.since(due.at).as_secs())),
            anew: anew.map(|anew| (after(anew.at), anew.by_browser)),
        }
    }
}

impl From<Short> for Record {
    fn from(short: Short) -> Self {
        let Short { marks, issued_at, life, party, mapping, access_life, proof, generation, due, anew } = short;
        let at = |seconds: u64| issued_at.after(Duration::from_secs(seconds));
        Self {
            marks,
            issued_at,
            expires_at: at(life),
            party,
            mapping,
            access_expires_at: access_life.map(at),
            proof,
            generation,
            due: due.map(|(due, lead)| Due { at: at(due), stale_at: at(due.saturating_add(lead)) }),
            anew: anew.map(|(after, by_browser)| Anew { at: at(after), by_browser }),
        }
    }
}

/// The tokens of a sign-in, as they came.
#[derive(Debug, Clone, Copy)]
pub struct StoredTokens<'a> {
    /// The ID token, for `id_token_hint`.
    pub id: &'a str,
    /// The access token.
    pub access: &'a str,
    /// The refresh token.
    pub refresh: Option<&'a str>,
    /// The access token's life.
    pub access_expires_in: Option<Duration>,
}

impl StoredTokens<'_> {
    /// The moment the access token expires.
    pub fn access_expires_at(&self, now: UnixTime) -> Option<UnixTime> {
        self.access_expires_in.map(|span| now.after(span))
    }
}

/// The tokens of a session, put together again.
#[derive(Debug)]
pub struct Tokens {
    /// The ID token.
    pub id: Option<SecretString>,
    /// The access token.
    pub access: Option<SecretString>,
    /// The refresh token.
    pub refresh: Option<SecretString>,
}

/// The session does not fit into its cookies.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the session needs {total} bytes; its largest claim is {claim:?} with {bytes} bytes")]
pub struct PackError {
    /// The claim to make smaller at the provider.
    pub claim: String,
    /// Its size as JSON.
    pub bytes: usize,
    /// The size of the sealed session.
    pub total: usize,
}

impl PackError {
    /// Names the largest claim.
    pub fn largest_of(claims: &Map<String, Value>, total: usize) -> Self {
        let sizes = claims.iter().map(|(name, value)| (value.to_string().len(), name));
        let (bytes, claim) = sizes.max().map_or((0, String::new()), |(bytes, name)| (bytes, name.clone()));
        Self { claim, bytes, total }
    }
}

/// What is opened on every request. Text, but read as bytes: whoever needs text of it checks that it is.
#[derive(Serialize, Deserialize)]
struct Hot<'a> {
    name: &'a [u8],
    roles: &'a [u8],
    groups: &'a [u8],
    #[serde(borrow)]
    headers: Vec<Option<&'a [u8]>>,
}

/// What is opened rarely: the JSON of tokens and userinfo.
#[derive(Default, Serialize, Deserialize)]
struct Cold<'a> {
    #[serde(borrow)]
    id: Option<(&'a [u8], &'a [u8])>,
    #[serde(borrow)]
    access: Option<(&'a [u8], &'a [u8])>,
    userinfo: Option<&'a str>,
}

/// What is never compressed.
#[derive(Default, Serialize, Deserialize)]
struct Plain<'a> {
    #[serde(borrow)]
    id: Piece<'a>,
    #[serde(borrow)]
    access: Piece<'a>,
    #[serde(borrow)]
    refresh: Piece<'a>,
}

#[derive(Default, Clone, Copy, Serialize, Deserialize)]
enum Piece<'a> {
    #[default]
    Absent,
    /// The token as it came.
    Verbatim(&'a str),
    /// A JWT whose header and payload lie in the cold layer.
    Signature(&'a [u8]),
    /// A JWT in its three parts.
    Jwt(&'a [u8], &'a [u8], &'a [u8]),
}

#[derive(Serialize, Deserialize)]
struct Layers<'a> {
    hot_size: u32,
    hot: &'a [u8],
    cold: &'a [u8],
    #[serde(borrow)]
    plain: Plain<'a>,
}

/// The ID token's claims with those of userinfo.
pub fn merged(claims: &Map<String, Value>, userinfo: Option<&Map<String, Value>>) -> Map<String, Value> {
    let mut merged = claims.clone();
    let Some(userinfo) = userinfo else { return merged };
    // `email_verified` speaks of the address it came with.
    if userinfo.contains_key("email") && userinfo.get("email") != claims.get("email") {
        merged.remove("email_verified");
    }
    for (name, value) in userinfo {
        if !ID_TOKEN_ONLY.contains(&name.as_str()) {
            merged.insert(name.clone(), value.clone());
        }
    }
    merged
}

/// The record with its contents, ready to be sealed.
///
/// # Errors
/// [`PackError`] when a layer is larger than what would be opened again.
pub fn pack(
    record: &Record,
    mapped: &Mapped,
    userinfo: Option<&Map<String, Value>>,
    tokens: &StoredTokens<'_>,
) -> Result<Vec<u8>, PackError> {
    let hot = pack_hot(mapped);
    let (id, access, refresh) = (Split::of(tokens.id), Split::of(tokens.access), tokens.refresh.map(Split::of));
    let userinfo = userinfo.map(|claims| Value::Object(claims.clone()).to_string());
    let cold = Cold { id: id.text(), access: access.text(), userinfo: userinfo.as_deref() };
    let cold = to_bytes(&cold);
    if hot.len() > MAX_INFLATED || cold.len() > MAX_INFLATED {
        return Err(PackError { claim: "(all)".to_owned(), bytes: cold.len(), total: hot.len() + cold.len() });
    }
    let layers = Layers {
        hot_size: u32::try_from(hot.len()).unwrap_or(u32::MAX),
        hot: &lz4_flex::block::compress(&hot),
        cold: &deflate(&cold, &hot),
        plain: Plain {
            id: id.rest(),
            access: access.rest(),
            refresh: refresh.as_ref().map_or(Piece::Absent, Split::whole),
        },
    };
    let mut bytes = to_bytes(record);
    bytes.extend_from_slice(&to_bytes(&layers));
    Ok(bytes)
}

/// The same session without its refresh token, as one form later.
pub(super) fn without_refresh_token(record: &Record, contents: &Contents) -> Option<Vec<u8>> {
    let mut layers = read_layers(&contents.layers)?;
    layers.plain.refresh = Piece::Absent;
    let mut bytes = to_bytes(&Record { generation: record.generation.saturating_add(1), ..record.clone() });
    bytes.extend_from_slice(&to_bytes(&layers));
    Some(bytes)
}

fn pack_hot(mapped: &Mapped) -> Vec<u8> {
    to_bytes(&Hot {
        name: mapped.name.as_bytes(),
        roles: Names::terminated(&mapped.roles).as_bytes(),
        groups: Names::terminated(&mapped.groups).as_bytes(),
        headers: mapped.headers.iter().map(|value| value.as_deref().map(str::as_bytes)).collect(),
    })
}

/// What a session's claims come from.
#[derive(Debug, Default)]
pub struct Sources {
    /// The ID token's.
    pub claims: Map<String, Value>,
    /// Those of userinfo.
    pub userinfo: Option<Map<String, Value>>,
}

/// The contents of an opened session.
#[derive(Debug, Clone)]
pub struct Contents {
    name: Bytes,
    roles: Names,
    groups: Names,
    headers: Arc<[Option<HeaderValue>]>,
    layers: Bytes,
}

/// Reads what [`pack`] wrote; `None` for any other shape.
pub fn unpack(bytes: impl Into<Bytes>) -> Option<(Record, Contents)> {
    let bytes = bytes.into();
    let (record, rest) = postcard::take_from_bytes::<Record>(&bytes).ok()?;
    let layers = bytes.slice_ref(rest);
    let parsed = read_layers(&layers)?;
    let hot = Bytes::from(inflate_hot(&parsed)?);
    let contents = Contents::read(&hot, layers.clone())?;
    Some((record, contents))
}

impl Contents {
    fn read(hot: &Bytes, layers: Bytes) -> Option<Self> {
        let (parsed, rest) = postcard::take_from_bytes::<Hot<'_>>(hot).ok()?;
        let text = |text: &[u8]| if text.is_empty() { Bytes::new() } else { hot.slice_ref(text) };
        // How many there are cannot be known from an iterator that may stop.
        let mut headers = Vec::with_capacity(parsed.headers.len());
        for value in parsed.headers {
            headers.push(value.map(|value| HeaderValue::from_maybe_shared(text(value))).transpose().ok()?);
        }
        rest.is_empty().then_some(())?;
        Some(Self {
            name: text(parsed.name),
            roles: Names::from_terminated(text(parsed.roles)),
            groups: Names::from_terminated(text(parsed.groups)),
            headers: headers.into(),
            layers,
        })
    }

    /// The value of `name_claim`.
    pub fn name(&self) -> Bytes {
        self.name.clone()
    }

    /// The roles after mapping.
    pub fn roles(&self) -> Names {
        self.roles.clone()
    }

    /// The groups.
    pub fn groups(&self) -> Names {
        self.groups.clone()
    }

    /// The encoded values of the identity headers, in the order of the configuration.
    pub fn headers(&self) -> Arc<[Option<HeaderValue>]> {
        Arc::clone(&self.headers)
    }

    /// All claims: those of the ID token and of userinfo.
    pub fn claims(&self) -> Option<Map<String, Value>> {
        let Sources { claims, userinfo } = self.sources()?;
        Some(merged(&claims, userinfo.as_ref()))
    }

    /// The tokens, encoded as they came.
    pub fn tokens(&self) -> Option<Tokens> {
        let cold = self.cold()?;
        let cold = read::<Cold<'_>>(&cold)?;
        let plain = read_layers(&self.layers)?.plain;
        Some(Tokens {
            id: encode(plain.id, cold.id),
            access: encode(plain.access, cold.access),
            refresh: encode(plain.refresh, None),
        })
    }

    /// The claims of the ID token, and those of userinfo, each as they came.
    pub fn sources(&self) -> Option<Sources> {
        let cold = self.cold()?;
        let cold = read::<Cold<'_>>(&cold)?;
        let claims = serde_json::from_slice(cold.id?.1).ok()?;
        let userinfo = cold.userinfo.map(serde_json::from_str).transpose().ok()?;
        Some(Sources { claims, userinfo })
    }

    /// Whether there is a refresh token.
    pub fn has_refresh_token(&self) -> bool {
        read_layers(&self.layers).is_some_and(|layers| !matches!(layers.plain.refresh, Piece::Absent))
    }

    /// The same session under other settings.
    pub(super) fn remapped(self, mapped: &Mapped) -> Self {
        let hot = Bytes::from(pack_hot(mapped));
        let layers = self.layers.clone();
        Self::read(&hot, layers).unwrap_or(self)
    }

    fn cold(&self) -> Option<Vec<u8>> {
        let layers = read_layers(&self.layers)?;
        inflate(layers.cold, &inflate_hot(&layers)?)
    }
}

/// A token taken apart as far as it can be put together again byte for byte.
enum Split<'a> {
    Verbatim(&'a str),
    Jwt(Vec<u8>, Vec<u8>, Vec<u8>),
}

impl<'a> Split<'a> {
    fn of(token: &'a str) -> Self {
        let part = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
        let parts = token.split('.').map(part).collect::<Option<Vec<_>>>();
        let Some(Ok([header, payload, signature])) = parts.map(<[Vec<u8>; 3]>::try_from) else {
            return Self::Verbatim(token);
        };
        if joined(&header, &payload, &signature) != token {
            return Self::Verbatim(token);
        }
        Self::Jwt(header, payload, signature)
    }

    fn text(&self) -> Option<(&[u8], &[u8])> {
        match self {
            Self::Verbatim(_) => None,
            Self::Jwt(header, payload, _) => Some((header, payload)),
        }
    }

    fn rest(&self) -> Piece<'_> {
        match self {
            Self::Verbatim(token) => Piece::Verbatim(token),
            Self::Jwt(_, _, signature) => Piece::Signature(signature),
        }
    }

    fn whole(&self) -> Piece<'_> {
        match self {
            Self::Verbatim(token) => Piece::Verbatim(token),
            Self::Jwt(header, payload, signature) => Piece::Jwt(header, payload, signature),
        }
    }
}

fn encode(piece: Piece<'_>, text: Option<(&[u8], &[u8])>) -> Option<SecretString> {
    match (piece, text) {
        (Piece::Absent, _) | (Piece::Signature(_), None) => None,
        (Piece::Verbatim(token), _) => Some(SecretString::new(token.to_owned())),
        (Piece::Signature(signature), Some((header, payload))) | (Piece::Jwt(header, payload, signature), _) => {
            Some(SecretString::new(joined(header, payload, signature)))
        }
    }
}

fn joined(header: &[u8], payload: &[u8], signature: &[u8]) -> String {
    let mut token = String::new();
    for (index, part) in [header, payload, signature].into_iter().enumerate() {
        if index > 0 {
            token.push('.');
        }
        URL_SAFE_NO_PAD.encode_string(part, &mut token);
    }
    token
}

fn to_bytes<T: Serialize>(value: &T) -> Vec<u8> {
    // Infallible for plain structs: no map of unknown length, no custom serializer.
    postcard::to_stdvec(value).expect("a plain record")
}

fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Some(value),
        _ => None,
    }
}

fn read_layers(bytes: &[u8]) -> Option<Layers<'_>> {
    read(bytes)
}

fn inflate_hot(layers: &Layers<'_>) -> Option<Vec<u8>> {
    let size = usize::try_from(layers.hot_size).ok().filter(|size| *size <= MAX_INFLATED)?;
    lz4_flex::block::decompress(layers.hot, size).ok()
}

/// Groups and roles lie in the hot layer already: with it as the dictionary they cost next to nothing a second time.
///
/// Quality 9 would save two bytes of 370 and go through tables of 32 MB, of which each session touches thousands of pages:
/// milliseconds instead of a tenth of one. So do windows of less than 17 bits, whose own tables the crate lacks; and from
/// quality 6 on it writes what it cannot read where dictionary and text are one, of a quarter of a megabyte.
fn deflate(bytes: &[u8], hot: &[u8]) -> Vec<u8> {
    let params = BrotliEncoderParams { quality: 5, lgwin: 17, size_hint: bytes.len(), ..Default::default() };
    let mut out = Vec::new();
    let (mut input, mut output) = ([0; 4096], [0; 4096]);
    brotli::BrotliCompressCustomIoCustomDict(
        &mut IoReaderWrapper(&mut &bytes[..]),
        &mut IoWriterWrapper(&mut out),
        &mut input,
        &mut output,
        &params,
        StandardAlloc::default(),
        &mut |_, _, _, _| (),
        &dictionary(hot),
        std::io::Error::from(std::io::ErrorKind::UnexpectedEof),
    )
    // Infallible: both ends are memory.
    .expect("compression in memory");
    out
}

fn inflate(bytes: &[u8], hot: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let limit = MAX_INFLATED as u64 + 1;
    let reader = brotli::Decompressor::new_with_custom_dict(bytes, 4096, dictionary(hot).into());
    reader.take(limit).read_to_end(&mut out).ok()?;
    (out.len() <= MAX_INFLATED).then_some(out)
}

fn dictionary(hot: &[u8]) -> Vec<u8> {
    [COMMON, hot].concat()
}

#[cfg(test)]
mod tests;
