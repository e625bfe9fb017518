//! Turns a verified set of claims into a name, roles and identity headers. Pure: no IO, no clock.

mod encoding;
mod fingerprint;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use http::HeaderName;
use serde_json::{Map, Value};

pub use encoding::{decode, decode_list, encode_item, encode_list, encode_value};
pub use fingerprint::FINGERPRINT_BYTES;

/// The longest identity header, in bytes. Upstreams commonly take 8 KiB for a whole request head.
pub const MAX_HEADER_BYTES: usize = 8 * 1024;

/// A claim: a plain name (which may itself be a URL) or a path into nested claims.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClaimPath(pub Vec<String>);

/// What an identity header is filled from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderSource {
    /// The value of `name_claim`.
    Name,
    /// The roles after mapping, as a list.
    Roles,
    /// The `groups` claim, as a list.
    Groups,
    /// The `email` claim, only with `email_verified: true` (or `trust_unverified_email`).
    Email,
    /// The `provider_id` of where the person signed in.
    Provider,
    /// Any claim.
    Claim(ClaimPath),
}

/// How lists are written into one header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ListFormat {
    /// Items percent-encoded and joined by `,`.
    #[default]
    Comma,
    /// A JSON array (ASCII, other characters as `\u` escapes).
    Json,
}

/// The `[identity]` section, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Default `sub`.
    pub name_claim: ClaimPath,
    /// Default `groups`, `roles`, `realm_access.roles`.
    pub roles_claims: Vec<ClaimPath>,
    /// Claim value → roles. `None`: the values are the roles. `Some`: values it does not name give no role.
    pub role_mapping: Option<BTreeMap<String, Vec<String>>>,
    /// Name → roles, beside the mapped ones; with several providers `PROVIDER_ID:NAME`, with tenants `TENANT:NAME`, with both
    /// `PROVIDER_ID:TENANT:NAME` → roles, for a name is somebody's only in one of them.
    pub individual_roles: BTreeMap<String, Vec<String>>,
    /// Whether there are several providers.
    pub several_providers: bool,
    /// For everyone signed in.
    pub default_roles: Vec<String>,
    /// Header name → source, in the order they are written.
    pub headers: Vec<(HeaderName, HeaderSource)>,
    /// How lists are written.
    pub list_format: ListFormat,
    /// Believe `email` without `email_verified: true`.
    pub trust_unverified_email: bool,
    /// The claims that `/auth/userinfo` shows.
    pub userinfo_claims: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        let claim = |name: &str| ClaimPath(vec![name.to_owned()]);
        Self {
            name_claim: claim("sub"),
            roles_claims: vec![
                claim("groups"),
                claim("roles"),
                ClaimPath(vec!["realm_access".to_owned(), "roles".to_owned()]),
            ],
            role_mapping: None,
            individual_roles: BTreeMap::new(),
            several_providers: false,
            default_roles: Vec::new(),
            headers: vec![
                (HeaderName::from_static("x-forwarded-user"), HeaderSource::Name),
                (HeaderName::from_static("x-forwarded-email"), HeaderSource::Email),
                (
                    HeaderName::from_static("x-forwarded-preferred-username"),
                    HeaderSource::Claim(claim("preferred_username")),
                ),
                (HeaderName::from_static("x-forwarded-groups"), HeaderSource::Groups),
                (HeaderName::from_static("x-forwarded-roles"), HeaderSource::Roles),
            ],
            list_format: ListFormat::Comma,
            trust_unverified_email: false,
            userinfo_claims: [
                "sub",
                "name",
                "given_name",
                "family_name",
                "preferred_username",
                "email",
                "email_verified",
                "picture",
                "locale",
                "groups",
            ]
            .map(str::to_owned)
            .to_vec(),
        }
    }
}

/// Where a name is somebody's.
#[derive(Debug, Clone, Copy, Default)]
pub struct Whose<'a> {
    /// The `provider_id` of where the person signed in.
    pub provider: &'a str,
    /// The tenant, at a provider that has an issuer for each; empty where it is none that is allowed.
    pub tenant: Option<&'a str>,
}

impl Whose<'_> {
    /// `name` as the settings write it. Neither an id nor a tenant has a colon, so no name can pass for another's.
    fn key<'n>(&self, name: &'n str, several_providers: bool) -> Cow<'n, str> {
        match (several_providers, self.tenant) {
            (false, None) => Cow::Borrowed(name),
            (false, Some(tenant)) => format!("{tenant}:{name}").into(),
            (true, None) => format!("{}:{name}", self.provider).into(),
            (true, Some(tenant)) => format!("{}:{tenant}:{name}", self.provider).into(),
        }
    }
}

/// What the claims say about a person, ready for an identity and its headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapped {
    /// The value of `name_claim`, as it stands in the claim; never empty.
    pub name: String,
    /// The `groups` claim, as it stands there.
    pub groups: Vec<String>,
    /// Without repeats, in the order of first appearance: by `roles_claims`, then `individual_roles`, then `default_roles`.
    pub roles: Vec<String>,
    /// Encoded values in the order of [`Settings::headers`]; `None`: the header must be absent.
    pub headers: Vec<Option<String>>,
}

/// Why claims give no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// `name_claim` is absent, empty, or neither a string nor a number.
    #[error("the claim that name_claim names is missing, empty, or neither a string nor a number")]
    NameMissing,
    /// `name_claim` is the e-mail address, and the provider does not say that it is verified.
    #[error("the user's name is the claim email, and the provider does not say that it is verified")]
    NameUnverifiedEmail,
    /// A header would be longer than [`MAX_HEADER_BYTES`].
    #[error(
        "the claim {claim} is too big: the header {header} would have {bytes} bytes, and {MAX_HEADER_BYTES} is the limit"
    )]
    TooLarge {
        /// The header.
        header: HeaderName,
        /// What it is filled from.
        claim: String,
        /// How long it would be.
        bytes: usize,
    },
}

impl MapError {
    /// The constant reason code for the log.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NameMissing => "name_claim_missing",
            Self::NameUnverifiedEmail => "name_email_unverified",
            Self::TooLarge { .. } => "identity_header_too_large",
        }
    }
}

/// The mapping that [`Settings`] describe. The same claims always give the same result.
#[derive(Debug, Clone)]
pub struct Mapper {
    settings: Settings,
    fingerprint: [u8; FINGERPRINT_BYTES],
    header_names: &'static [HeaderName],
}

impl Mapper {
    /// Takes `settings` over.
    pub fn new(settings: Settings) -> Self {
        let fingerprint = fingerprint::of(&settings);
        // Names come from the configuration, so the leak is bounded by it.
        let names: Vec<_> = settings.headers.iter().map(|(name, _)| cheap_to_clone(name)).collect();
        Self { settings, fingerprint, header_names: names.leak() }
    }

    /// The names of the identity headers, in the order of [`Mapped::headers`].
    pub fn header_names(&self) -> &'static [HeaderName] {
        self.header_names
    }

    /// What it maps by.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The same for two mappers exactly when they map every set of claims alike; the same on every replica. A session that
    /// carries another one was mapped by another configuration and is mapped anew.
    pub fn fingerprint(&self) -> [u8; FINGERPRINT_BYTES] {
        self.fingerprint
    }

    /// Maps the verified claims of a person.
    ///
    /// # Errors
    /// [`MapError`].
    pub fn map(&self, claims: &Map<String, Value>, whose: Whose<'_>) -> Result<Mapped, MapError> {
        let provider = whose.provider;
        let name = self.name(claims)?;
        let roles = self.roles(claims, &name, whose);
        let groups: Vec<String> = claims.get("groups").map(list_values).unwrap_or_default();
        let mut mapped = Mapped { name, groups, roles, headers: Vec::with_capacity(self.settings.headers.len()) };
        for (header, source) in &self.settings.headers {
            let value = self.header_value(source, claims, &mapped, provider);
            if let Some(bytes) = value.as_ref().map(String::len).filter(|&bytes| bytes > MAX_HEADER_BYTES) {
                return Err(MapError::TooLarge { header: header.clone(), claim: self.source_name(source), bytes });
            }
            mapped.headers.push(value);
        }
        Ok(mapped)
    }

    /// What `/auth/userinfo` shows: the allowed claims as they are, in the order of the settings, and the mapped `roles`.
    /// Claims that belong to the protocol, tokens above all, stay out even when the settings name them.
    pub fn userinfo_view(&self, claims: &Map<String, Value>, mapped: &Mapped) -> Map<String, Value> {
        let mut view: Map<String, Value> = self
            .settings
            .userinfo_claims
            .iter()
            .filter(|name| !NEVER_SHOWN.contains(&name.as_str()))
            .filter_map(|name| claims.get(name).map(|value| (name.clone(), value.clone())))
            .collect();
        view.insert("roles".to_owned(), mapped.roles.clone().into());
        view
    }

    fn name(&self, claims: &Map<String, Value>) -> Result<String, MapError> {
        let path = &self.settings.name_claim;
        if path.is_email() && !self.email_counts(claims) && claims.contains_key(EMAIL) {
            return Err(MapError::NameUnverifiedEmail);
        }
        match path.find(claims).and_then(scalar) {
            Some(name) if !name.is_empty() => Ok(name),
            _ => Err(MapError::NameMissing),
        }
    }

    fn roles(&self, claims: &Map<String, Value>, name: &str, whose: Whose<'_>) -> Vec<String> {
        let values =
            self.settings.roles_claims.iter().filter_map(|path| self.claim(path, claims)).flat_map(list_values);
        let mut roles = Distinct::default();
        match &self.settings.role_mapping {
            None => values.for_each(|value| roles.push(Cow::Owned(value))),
            Some(mapping) => {
                let named = values.filter_map(|value| mapping.get(&value)).flatten();
                named.for_each(|role| roles.push(Cow::Borrowed(role)));
            }
        }
        let key = whose.key(name, self.settings.several_providers);
        let individual = self.settings.individual_roles.get(&*key).into_iter().flatten();
        individual.chain(&self.settings.default_roles).for_each(|role| roles.push(Cow::Borrowed(role)));
        roles.into_vec()
    }

    fn header_value(
        &self,
        source: &HeaderSource,
        claims: &Map<String, Value>,
        mapped: &Mapped,
        provider: &str,
    ) -> Option<String> {
        match source {
            HeaderSource::Provider => Some(encode_value(provider)),
            HeaderSource::Name => Some(encode_value(&mapped.name)),
            HeaderSource::Roles => self.list(&mapped.roles),
            HeaderSource::Groups => self.list(&mapped.groups),
            HeaderSource::Email => {
                let email = claims.get(EMAIL).filter(|_| self.email_counts(claims))?.as_str()?;
                (!email.is_empty()).then(|| encode_value(email))
            }
            HeaderSource::Claim(path) => self.claim_value(self.claim(path, claims)?),
        }
    }

    /// A claim of any type: text as it is, a list as a list, anything else as JSON text; `null` counts as absent.
    fn claim_value(&self, value: &Value) -> Option<String> {
        match value {
            Value::Null => None,
            Value::String(text) => Some(encode_value(text)),
            Value::Array(items) if items.is_empty() => None,
            Value::Array(_) if self.settings.list_format == ListFormat::Json => Some(encoding::ascii_json(value)),
            Value::Array(items) => self.list(&items.iter().map(text_of).collect::<Vec<_>>()),
            Value::Bool(_) | Value::Number(_) | Value::Object(_) => Some(encode_value(&encoding::ascii_json(value))),
        }
    }

    fn list(&self, items: &[String]) -> Option<String> {
        match self.settings.list_format {
            ListFormat::Comma => encode_list(items.iter().map(String::as_str)),
            ListFormat::Json => (!items.is_empty()).then(|| encoding::ascii_json(&items.into())),
        }
    }

    /// The claim, unless it is an e-mail address that does not count.
    fn claim<'a>(&self, path: &ClaimPath, claims: &'a Map<String, Value>) -> Option<&'a Value> {
        if path.is_email() && !self.email_counts(claims) { None } else { path.find(claims) }
    }

    // Core §5.7: only iss and sub identify; anybody may claim an address that nobody verified. Some providers write the
    // boolean as a string.
    fn email_counts(&self, claims: &Map<String, Value>) -> bool {
        let verified = match claims.get("email_verified") {
            Some(Value::Bool(verified)) => *verified,
            Some(Value::String(text)) => text == "true",
            _ => false,
        };
        verified || self.settings.trust_unverified_email
    }

    /// What an operator would look for.
    fn source_name(&self, source: &HeaderSource) -> String {
        match source {
            HeaderSource::Name => self.settings.name_claim.to_string(),
            HeaderSource::Roles => {
                let claims: Vec<_> = self.settings.roles_claims.iter().map(ClaimPath::to_string).collect();
                format!("for roles ({})", claims.join(", "))
            }
            HeaderSource::Groups => "groups".to_owned(),
            HeaderSource::Email => EMAIL.to_owned(),
            HeaderSource::Provider => "provider".to_owned(),
            HeaderSource::Claim(path) => path.to_string(),
        }
    }
}

const EMAIL: &str = "email";

/// Never in [`Mapper::userinfo_view`].
const NEVER_SHOWN: [&str; 7] = ["access_token", "refresh_token", "id_token", "nonce", "at_hash", "c_hash", "s_hash"];

impl ClaimPath {
    fn is_email(&self) -> bool {
        self.0 == [EMAIL]
    }

    /// Follows the path through nested objects. A name is never taken apart, whatever dots or slashes it has.
    fn find<'a>(&self, claims: &'a Map<String, Value>) -> Option<&'a Value> {
        let (last, parents) = self.0.split_last()?;
        parents.iter().try_fold(claims, |object, name| object.get(name)?.as_object())?.get(last)
    }
}

impl std::fmt::Display for ClaimPath {
    /// A plain name as it is, a path as it is written in the configuration.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.as_slice() {
            [name] => f.write_str(name),
            path => write!(f, "{path:?}"),
        }
    }
}

/// The values of a claim that is a list: a string is one value, spaces and commas included; an array gives its strings and
/// numbers; anything else has none.
fn list_values(claim: &Value) -> Vec<String> {
    match claim {
        Value::String(value) => vec![value.clone()],
        Value::Array(items) => items.iter().filter_map(scalar).collect(),
        _ => Vec::new(),
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| encoding::ascii_json(value), str::to_owned)
}

/// A list without repeats, in the order of first appearance.
#[derive(Default)]
struct Distinct<'a> {
    seen: HashSet<Cow<'a, str>>,
    list: Vec<Cow<'a, str>>,
}

impl<'a> Distinct<'a> {
    fn push(&mut self, item: Cow<'a, str>) {
        if self.seen.insert(item.clone()) {
            self.list.push(item);
        }
    }

    fn into_vec(self) -> Vec<String> {
        self.list.into_iter().map(Cow::into_owned).collect()
    }
}

/// A custom header name holds shared bytes, and each clone would count them up and down for all cores; one from a static
/// text holds none.
fn cheap_to_clone(name: &HeaderName) -> HeaderName {
    HeaderName::from_static(name.as_str().to_owned().leak())
}

#[cfg(test)]
mod tests;
