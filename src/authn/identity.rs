//! Who somebody is, and how we know.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::lifetime::Lifetime;
use super::oidc::Party;
use super::proof::Proof;
use super::session::SessionId;
use super::session::marks::{Marks, NameDigest};
use crate::clock::UnixTime;
use crate::secret::SecretString;

/// How an identity became known. `grep 'Evidence::'` lists every way in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// A sealed session that began with a verified ID token.
    Session {
        /// What it can be ended by.
        marks: Marks,
        /// The provider and client that it is of.
        party: Party,
    },
    /// A verified access token that came with the request.
    AccessToken {
        /// Its issuer.
        issuer: std::sync::Arc<str>,
        /// Whose it is.
        subject: NameDigest,
    },
    /// A name and a password that came with the request, and the verified ID token that the provider gave for them.
    Password {
        /// Its issuer.
        issuer: std::sync::Arc<str>,
        /// Whose it is.
        subject: NameDigest,
    },
}

/// A list of names (roles, groups) as it lies in the opened session: no allocation per request and name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names(Bytes);

impl Names {
    /// From text in which every name ends with NUL.
    pub(in crate::authn) fn from_terminated(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// Every name followed by NUL; a name that holds NUL itself is left out, because it could pass for two.
    pub fn terminated<S: AsRef<str>>(names: &[S]) -> String {
        let mut text = String::new();
        for name in names.iter().map(AsRef::as_ref).filter(|name| !name.contains('\0')) {
            text.push_str(name);
            text.push('\0');
        }
        text
    }

    /// The names in their order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.split_inclusive(|byte| *byte == 0).filter_map(|name| std::str::from_utf8(name.strip_suffix(&[0])?).ok())
    }

    /// Whether `name` is among them.
    pub fn contains(&self, name: &str) -> bool {
        self.iter().any(|one| one == name)
    }
}

/// The identity headers for the upstream, encoded: the names as they are configured, and the values as they lie in the opened
/// session, so that a request makes nothing of its own.
#[derive(Debug, Clone, Default)]
pub struct IdentityHeaders {
    names: &'static [HeaderName],
    values: Arc<[Option<HeaderValue>]>,
}

impl IdentityHeaders {
    /// `names` and `values` in the same order; `None` where the claim is absent.
    pub(in crate::authn) fn new(names: &'static [HeaderName], values: Arc<[Option<HeaderValue>]>) -> Self {
        Self { names, values }
    }

    /// For tests of what becomes of them.
    #[cfg(test)]
    pub(crate) fn for_test(fields: Vec<(HeaderName, Option<HeaderValue>)>) -> Self {
        let (names, values): (Vec<_>, Vec<_>) = fields.into_iter().unzip();
        Self::new(names.leak(), values.into())
    }

    /// Every name, with its value; one without must be absent at the upstream.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, Option<&HeaderValue>)> {
        let value = |at: usize| self.values.get(at).and_then(Option::as_ref);
        self.names.iter().enumerate().map(move |(at, name)| (name, value(at)))
    }
}

/// A verified end user, ready for policy and for the upstream.
#[derive(Debug, Clone)]
pub struct Identity {
    pub(in crate::authn) name: Bytes,
    pub(in crate::authn) roles: Names,
    pub(in crate::authn) groups: Names,
    pub(in crate::authn) headers: IdentityHeaders,
    pub(in crate::authn) authenticated_at: UnixTime,
    pub(in crate::authn) expires_at: UnixTime,
    pub(in crate::authn) proof: Proof,
    pub(in crate::authn) access_token: Option<SecretString>,
    /// Index of the provider.
    pub(in crate::authn) provider: usize,
    pub(in crate::authn) evidence: Evidence,
}

impl Identity {
    /// The value of `name_claim`.
    pub fn name(&self) -> &str {
        std::str::from_utf8(&self.name).unwrap_or_default()
    }

    /// The same as shared bytes, for the log.
    pub fn name_bytes(&self) -> Bytes {
        self.name.clone()
    }

    /// The roles after mapping.
    pub fn roles(&self) -> &Names {
        &self.roles
    }

    /// The `groups` claim, unmapped.
    pub fn groups(&self) -> &Names {
        &self.groups
    }

    /// The identity headers for the upstream.
    pub fn into_headers(self) -> IdentityHeaders {
        self.headers
    }

    /// When the person last signed in at the provider through us.
    pub fn authenticated_at(&self) -> UnixTime {
        self.authenticated_at
    }

    /// When the session ends, whatever happens.
    pub fn expires_at(&self) -> UnixTime {
        self.expires_at
    }

    /// How and when the person proved who they are at the provider.
    pub fn proof(&self) -> Proof {
        self.proof
    }

    /// The provider's access token, present only while it has not expired and `upstream.access_token` asks for it.
    pub fn access_token(&self) -> Option<&SecretString> {
        self.access_token.as_ref()
    }

    /// Where the person signed in: an index into the providers.
    pub fn provider(&self) -> usize {
        self.provider
    }

    /// Who it is: issuer and subject, the same by session and by token.
    pub fn subject(&self) -> &NameDigest {
        match &self.evidence {
            Evidence::Session { marks, .. } => &marks.subject,
            Evidence::AccessToken { subject, .. } | Evidence::Password { subject, .. } => subject,
        }
    }

    /// The session that it is known by; `None` where it is known by what came with one request.
    pub fn session(&self) -> Option<SessionId> {
        match &self.evidence {
            Evidence::Session { marks, .. } => Some(marks.id),
            Evidence::AccessToken { .. } | Evidence::Password { .. } => None,
        }
    }

    /// How long it holds.
    pub fn lifetime(&self) -> Lifetime {
        let session = match self.evidence {
            Evidence::Session { marks, party } => Some((marks, party)),
            Evidence::AccessToken { .. } | Evidence::Password { .. } => None,
        };
        Lifetime { session, ends_at: self.expires_at }
    }

    /// How we know.
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// For tests of what comes after verification: a session's identity without headers, good for an hour.
    #[cfg(test)]
    pub(crate) fn for_test(name: &str, roles: &[&str], groups: &[&str], authenticated_at: UnixTime) -> Self {
        let names = |items: &[&str]| Names(Names::terminated(items).into());
        Self {
            name: name.to_owned().into(),
            roles: names(roles),
            groups: names(groups),
            headers: IdentityHeaders::default(),
            authenticated_at,
            expires_at: authenticated_at.after(std::time::Duration::from_secs(3600)),
            proof: Proof::default(),
            access_token: None,
            provider: 0,
            evidence: Evidence::Session { marks: Marks::for_test(7), party: Party::of("https://id.example", "app") },
        }
    }
}
