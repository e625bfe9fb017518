//! `[identity]`.

use std::collections::BTreeMap;

use http::HeaderName;

use super::Resolver;
use crate::authn::oidc;
use crate::authn::oidc::tenants::Tenants;
use crate::authn::roles::{self, ClaimPath, HeaderSource, ListFormat};
use crate::config::problem::shown;
use crate::config::raw::{OneOrMany, RawBuiltin, RawHeaderSource, RawIdentity, RawListFormat};
use crate::config::walk::below;
use crate::message::headers::{fold, is_functional};
use crate::server::tls::CertificateField;

/// Headers that are filled from client certificates.
type CertificateHeaders = Vec<(HeaderName, CertificateField)>;

impl Resolver {
    pub(super) fn identity(&mut self, raw: RawIdentity) -> (Option<roles::Settings>, CertificateHeaders) {
        let mut of_certificates = Vec::new();
        let identity = self.identity_of_claims(raw, &mut of_certificates);
        (identity, of_certificates)
    }

    fn identity_of_claims(
        &mut self,
        raw: RawIdentity,
        of_certificates: &mut CertificateHeaders,
    ) -> Option<roles::Settings> {
        let default = roles::Settings::default();
        let name_claim = match raw.name_claim {
            Some(written) => self.claim("identity.name_claim", written),
            None => Some(default.name_claim),
        };
        let roles_claims = match raw.roles_claims {
            Some(written) => written
                .into_iter()
                .enumerate()
                .map(|(index, claim)| self.claim(&format!("identity.roles_claims[{index}]"), claim))
                .collect(),
            None => Some(default.roles_claims),
        };
        let headers = match raw.headers {
            Some(written) => self.headers(written, of_certificates),
            None => default.headers,
        };
        let role_mapping = raw.role_mapping.map(several);
        if role_mapping.as_ref().is_some_and(BTreeMap::is_empty) {
            let what = "is empty, so no claim gives any role";
            self.warn("identity.role_mapping", what, "remove it, and the claims' values are the roles");
        }
        let trust_unverified_email = raw.trust_unverified_email.unwrap_or(false);
        if trust_unverified_email {
            let what = "believes whatever e-mail address the provider passes on, verified or not";
            self.warn(
                "identity.trust_unverified_email",
                what,
                "only for providers where people cannot choose their address",
            );
        }
        Some(roles::Settings {
            name_claim: name_claim?,
            roles_claims: roles_claims?,
            role_mapping,
            individual_roles: several(raw.individual_roles),
            several_providers: false,
            default_roles: raw.default_roles.unwrap_or_default(),
            headers,
            list_format: match raw.list_format {
                Some(RawListFormat::Comma) => ListFormat::Comma,
                Some(RawListFormat::Json) => ListFormat::Json,
                None => default.list_format,
            },
            trust_unverified_email,
            userinfo_claims: raw.userinfo_claims.unwrap_or(default.userinfo_claims),
        })
    }

    /// A name is somebody's only at one provider: with several, whoever calls themselves so at another must get nothing.
    pub(super) fn names_of_several(&mut self, identity: &mut roles::Settings, providers: &[oidc::Settings]) {
        identity.several_providers = providers.len() > 1;
        for name in identity.individual_roles.keys() {
            self.whose(name, providers);
        }
        if !identity.several_providers {
            return;
        }
        let tells = |source: &HeaderSource| match source {
            HeaderSource::Provider => true,
            HeaderSource::Claim(ClaimPath(path)) => *path == ["iss"],
            _ => false,
        };
        if !identity.headers.iter().any(|(_, source)| tells(source)) {
            let what = "do not tell the application at which of several providers somebody signed in";
            self.warn(
                "identity.headers",
                what,
                "a name or address may be another person's at each: add \"X-Forwarded-Provider\" = \"provider\"",
            );
        }
    }

    /// Whether a key of `individual_roles` says whose name it is.
    fn whose(&mut self, name: &str, providers: &[oidc::Settings]) {
        let key = below("identity.individual_roles", name);
        let (provider, rest) = match providers {
            [] => return,
            [only] => (only, name),
            several => {
                let of = |provider: &oidc::Settings| name.strip_prefix(&format!("{}:", provider.id));
                let found = several.iter().find_map(|provider| Some((provider, of(provider)?)));
                let Some(found) = found else {
                    let fix = format!("with several providers, write \"{}:{name}\"", several[0].id);
                    return self.error(&key, "does not say at which provider", fix);
                };
                found
            }
        };
        let Some(tenants) = &provider.tenants else { return };
        let is_allowed = |tenant: &str| match tenants.named() {
            Some(named) => named.iter().any(|one| one == tenant),
            None => Tenants::is_tenant(tenant),
        };
        if !rest.split_once(':').is_some_and(|(tenant, _)| is_allowed(tenant)) {
            let tenant = tenants.named().and_then(|named| named.first()).map_or("TENANT", String::as_str);
            let fix = format!("a name is somebody's in one tenant only: write \"{tenant}:{rest}\" there");
            self.error(&key, "does not say in which tenant", fix);
        }
    }

    fn claim(&mut self, key: &str, written: OneOrMany) -> Option<ClaimPath> {
        let path = written.into_vec();
        if path.is_empty() || path.iter().any(String::is_empty) {
            self.error(key, "names no claim", "write a name, or a path such as [\"realm_access\", \"roles\"]");
            return None;
        }
        Some(ClaimPath(path))
    }

    /// Setting headers replaces the default ones; their names stay stripped from requests all the same. Those that come from
    /// the connection, not from a sign-in, go to `of_certificates`.
    fn headers(
        &mut self,
        written: BTreeMap<String, RawHeaderSource>,
        of_certificates: &mut CertificateHeaders,
    ) -> Vec<(HeaderName, HeaderSource)> {
        let mut headers = Vec::new();
        let mut folded: BTreeMap<String, String> = BTreeMap::new();
        for (name, source) in written {
            let key = below("identity.headers", &name);
            let field = match source {
                RawHeaderSource::Builtin(RawBuiltin::ClientCertificateSubject) => Some(CertificateField::Subject),
                RawHeaderSource::Builtin(RawBuiltin::ClientCertificateSan) => Some(CertificateField::AlternativeNames),
                _ => None,
            };
            let source = match source {
                RawHeaderSource::Builtin(RawBuiltin::ClientCertificateSubject | RawBuiltin::ClientCertificateSan) => {
                    None
                }
                RawHeaderSource::Builtin(RawBuiltin::Name) => Some(HeaderSource::Name),
                RawHeaderSource::Builtin(RawBuiltin::Roles) => Some(HeaderSource::Roles),
                RawHeaderSource::Builtin(RawBuiltin::Groups) => Some(HeaderSource::Groups),
                RawHeaderSource::Builtin(RawBuiltin::Email) => Some(HeaderSource::Email),
                RawHeaderSource::Builtin(RawBuiltin::Provider) => Some(HeaderSource::Provider),
                RawHeaderSource::Builtin(RawBuiltin::Subject) => {
                    Some(HeaderSource::Claim(ClaimPath(vec!["sub".to_owned()])))
                }
                RawHeaderSource::Claim(claim) => {
                    self.claim(&below(&key, "claim"), claim.claim).map(HeaderSource::Claim)
                }
            };
            let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
                self.error(&key, format!("{} is no header name", shown(&name)), "use letters, digits and -");
                continue;
            };
            if is_functional(&name) {
                let what = "is a header that does something of its own, so no identity can stand in it";
                self.error(&key, what, "choose another name, such as \"X-Auth-Name\"");
                continue;
            }
            if let Some(earlier) = folded.insert(fold(&name), name.clone()) {
                let what = format!(
                    "is the same name as {earlier:?} for many applications (case and punctuation do not count)"
                );
                self.error(&key, what, "choose another name");
                continue;
            }
            of_certificates.extend(field.map(|field| (header.clone(), field)));
            headers.extend(source.map(|source| (header, source)));
        }
        headers
    }
}

fn several(written: BTreeMap<String, OneOrMany>) -> BTreeMap<String, Vec<String>> {
    written.into_iter().map(|(key, values)| (key, values.into_vec())).collect()
}
