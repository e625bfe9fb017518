//! How we prove who we are and what our tokens are bound to, as it is configured; with `profile = "fapi2"` as the FAPI 2.0
//! Security Profile §5.3.3 asks of a client.

use std::path::PathBuf;

use super::capabilities::Capabilities;
use super::client_auth::ClientAuthMethod;
use super::discovery::Unsupported;
use super::jose::Algorithm;
use super::settings::Settings;

/// What `[provider]` says about it.
#[derive(Debug, Clone, Default)]
pub struct Security {
    /// How we authenticate; `None`: the first that fits what is configured and what the metadata offer.
    pub method: Option<ClientAuthMethod>,
    /// Our private keys: the first that fits signs, all are published.
    pub key_files: Vec<PathBuf>,
    /// What our assertions and requests are signed with; `None`: the first that key, provider and profile agree on.
    pub signing_alg: Option<Algorithm>,
    /// A client assertion that somebody else signs for us and keeps fresh.
    pub assertion_file: Option<PathBuf>,
    /// Whom our own assertions are for.
    pub audience: Audience,
    /// Our certificate chain and its key, PEM. The key is missing where the certificate is only told (`insecure_x_cert`).
    pub certificate: Option<(PathBuf, Option<PathBuf>)>,
    /// Whether authorization requests are pushed (RFC 9126); `None`: where the provider demands it.
    pub pushed_requests: Option<bool>,
    /// Whether they are signed objects (RFC 9101), and how those travel.
    pub signed_requests: Option<RequestObject>,
    /// Whether tokens are bound to a key of ours (RFC 9449).
    pub dpop: Option<DpopSource>,
    /// What all of this has to keep to.
    pub profile: Profile,
}

/// How a signed authorization request travels (RFC 9101 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestObject {
    /// In the parameter `request`.
    Value,
    /// The provider fetches it from us: `request_uri`.
    Reference,
}

impl RequestObject {
    /// As it is configured.
    pub fn name(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::Reference => "reference",
        }
    }
}

/// `aud` of our assertions: always one string, since a second one would be good somewhere else, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Audience {
    /// The issuer (RFC 7523bis, FAPI 2.0 §5.3.3).
    #[default]
    Issuer,
    /// The token endpoint, for servers that know nothing newer than RFC 7523 §3.
    TokenEndpoint,
}

/// The key that tokens are bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DpopSource {
    /// Made anew by each process.
    Process,
    /// The same at every replica and after a restart.
    File(PathBuf),
}

/// How access tokens are used (RFC 6749 §7.1). An enum, since no borrow can be followed through the library's generic future.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenType {
    /// RFC 6750.
    Bearer,
    /// RFC 9449 §5.
    Dpop,
}

impl TokenType {
    /// As it stands in answers, in any case, and in requests.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bearer => "Bearer",
            Self::Dpop => "DPoP",
        }
    }
}

/// A set of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// None beyond the specifications.
    #[default]
    Standard,
    /// FAPI 2.0 Security Profile.
    Fapi2,
}

impl Profile {
    /// What may sign in it (FAPI 2.0 §5.4.1).
    pub fn algorithms(self) -> &'static [Algorithm] {
        match self {
            Self::Standard => &Algorithm::ASYMMETRIC,
            Self::Fapi2 => &[Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA],
        }
    }
}

impl Security {
    /// What our keys may sign with.
    pub fn algorithms(&self) -> &[Algorithm] {
        match &self.signing_alg {
            Some(only) => std::slice::from_ref(only),
            None => self.profile.algorithms(),
        }
    }

    /// The type of the tokens that we take.
    pub(super) fn token_type(&self) -> TokenType {
        if self.dpop.is_some() { TokenType::Dpop } else { TokenType::Bearer }
    }

    /// Whether a certificate of ours is shown where tokens are bound to it (RFC 8705 §3).
    pub fn binds_by_tls(&self) -> bool {
        self.dpop.is_none() && matches!(self.certificate, Some((_, Some(_))))
    }

    /// Whether the authorization request is pushed.
    pub(super) fn pushes(&self, capabilities: &Capabilities) -> bool {
        self.pushed_requests.unwrap_or(capabilities.requires_pushed_requests)
    }

    /// Whether the provider offers what is wanted, and wants nothing that is switched off.
    pub(super) fn is_supported(&self, settings: &Settings, capabilities: &Capabilities) -> Result<(), Unsupported> {
        let refused = |key, value: &str, offered: &[&str]| {
            let offered = offered.iter().map(|&one| one.to_owned()).collect();
            Err(Unsupported { provider: settings.id.clone(), key, value: value.to_owned(), offered })
        };
        if self.pushes(capabilities) && capabilities.pushed_request_endpoint.is_none() {
            return refused("pushed_authorization_requests", "true", &[]);
        }
        if self.pushed_requests == Some(false) && capabilities.requires_pushed_requests {
            return refused("pushed_authorization_requests", "false", &["true"]);
        }
        let offered: &[&str] = if capabilities.takes_request_objects == Some(false) { &[] } else { &["value"] };
        match self.signed_requests {
            None if capabilities.requires_signed_requests => refused("request_object", "", &["value"]),
            // RFC 9126 §2.1 takes no reference of ours.
            Some(RequestObject::Reference) if self.pushes(capabilities) => {
                refused("request_object", "reference", &["value"])
            }
            // Discovery §3: it is taken unless the metadata say otherwise.
            Some(RequestObject::Reference) if capabilities.takes_request_uris == Some(false) => {
                refused("request_object", "reference", offered)
            }
            Some(RequestObject::Value) if offered.is_empty() && !self.pushes(capabilities) => {
                refused("request_object", "value", &[])
            }
            _ => Ok(()),
        }
    }
}
