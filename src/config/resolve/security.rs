//! How a provider's client proves who it is, and what its tokens are bound to: parts of `[provider]`.

use std::path::{Path, PathBuf};

use super::Resolver;
use crate::authn::oidc::client_auth::ClientAuthMethod;
use crate::authn::oidc::client_keys::ClientKeys;
use crate::authn::oidc::jose::Algorithm;
use crate::authn::oidc::response::ResponseType;
use crate::authn::oidc::security::{Audience, DpopSource, Profile, RequestObject, Security};
use crate::authn::oidc::tls_client;
use crate::config::raw::{RawAudience, RawClientAuthMethod, RawProfile, RawProvider, RawRequestObject};

/// What the rest of `[provider]` says that this has to agree with.
pub(super) struct Beside<'a> {
    pub(super) has_secret: bool,
    pub(super) response_type: ResponseType,
    pub(super) allow_insecure_http: bool,
    pub(super) signing_algs: &'a [Algorithm],
}

/// Whether a client secret is none of the things that are needed.
pub(super) fn needs_no_secret(raw: &RawProvider) -> bool {
    match raw.client_auth_method {
        Some(method) => !ClientAuthMethod::from(method).needs_secret(),
        None => {
            raw.public_client == Some(true)
                || raw.profile.is_some()
                || raw.client_keys_files.is_some()
                || raw.client_assertion_file.is_some()
                || raw.client_certificate_file.is_some()
        }
    }
}

impl Resolver {
    pub(super) fn security(&mut self, at: &str, raw: &RawProvider, beside: &Beside<'_>) -> Security {
        let key = |leaf: &str| format!("{at}.{leaf}");
        let profile = if raw.profile == Some(RawProfile::Fapi2) { Profile::Fapi2 } else { Profile::Standard };
        let certificate = self.certificate(at, raw);
        let mut security = Security {
            method: raw.client_auth_method.map(Into::into),
            key_files: self.key_files(&key("client_keys_files"), raw.client_keys_files.as_deref()),
            signing_alg: raw.client_signing_alg.map(Algorithm::from),
            assertion_file: self.existing(&key("client_assertion_file"), raw.client_assertion_file.as_deref()),
            audience: match raw.client_assertion_audience {
                Some(RawAudience::TokenEndpoint) => Audience::TokenEndpoint,
                Some(RawAudience::Issuer) | None => Audience::Issuer,
            },
            certificate,
            pushed_requests: raw.pushed_authorization_requests,
            signed_requests: raw.request_object.map(Into::into),
            dpop: self.dpop(at, raw, profile),
            profile,
        };
        if raw.public_client == Some(true) {
            if security.method.is_some_and(|method| method != ClientAuthMethod::None) {
                self.error(&key("public_client"), "contradicts client_auth_method", "remove one of them");
            }
            security.method = Some(ClientAuthMethod::None);
        }
        if security.signed_requests == Some(RequestObject::Reference) && security.pushed_requests == Some(true) {
            let what = "is \"reference\", but pushed requests hold no reference (RFC 9126 §2.1)";
            self.error(&key("request_object"), what, "write \"value\", or push no requests");
        }
        self.method_has_what_it_needs(at, raw, &security, beside);
        self.keys_can_sign(at, &security);
        if profile == Profile::Fapi2 {
            self.fapi2(at, raw, &mut security, beside);
        }
        security
    }

    fn method_has_what_it_needs(&mut self, at: &str, raw: &RawProvider, security: &Security, beside: &Beside<'_>) {
        use ClientAuthMethod as Method;
        let key = |leaf: &str| format!("{at}.{leaf}");
        let assertion = raw.client_assertion_file.is_some();
        let Some(method) = security.method else {
            if assertion && (beside.has_secret || raw.client_keys_files.is_some()) {
                let what = "stands beside another proof of who the client is";
                self.error(&key("client_assertion_file"), what, "say which one in client_auth_method");
            }
            return;
        };
        let name = method.name();
        let missing = match method {
            Method::PrivateKeyJwt if raw.client_keys_files.is_none() => Some("client_keys_files"),
            Method::TlsClientAuth | Method::SelfSignedTlsClientAuth | Method::InsecureXCert
                if raw.client_certificate_file.is_none() =>
            {
                Some("client_certificate_file")
            }
            Method::KubernetesServiceAccount if !assertion => Some("client_assertion_file"),
            _ => None,
        };
        if let Some(leaf) = missing {
            let what = format!("is missing, which client_auth_method = \"{name}\" needs");
            self.error(&key(leaf), what, format!("write {leaf} in [{at}]"));
        }
        if assertion && method != Method::KubernetesServiceAccount {
            let what = format!("is not used by client_auth_method = \"{name}\"");
            self.error(&key("client_assertion_file"), what, "remove one of them");
        }
        // An HMAC over the ID token is the other thing that a secret is for.
        let symmetric = beside.signing_algs.iter().any(|algorithm| algorithm.is_symmetric());
        if beside.has_secret && !method.needs_secret() && !symmetric && raw.public_client != Some(true) {
            let what = format!("contradicts the client secret, which \"{name}\" does not use");
            self.error(&key("client_auth_method"), what, "remove one of them");
        }
        let is_hmac = security.signing_alg.map(Algorithm::is_symmetric);
        if method == Method::ClientSecretJwt && is_hmac == Some(false) {
            let what = "is no algorithm for a secret";
            self.error(&key("client_signing_alg"), what, "use HS256, HS384 or HS512, or remove it");
        }
        if method == Method::InsecureXCert {
            let what = "proves nothing: whoever has seen the certificate can be this client";
            self.warn(&key("client_auth_method"), what, "use \"tls_client_auth\" or \"private_key_jwt\"");
        }
    }

    fn keys_can_sign(&mut self, at: &str, security: &Security) {
        // Without a certificate, the profile leaves nothing but a key.
        let by_profile = security.profile == Profile::Fapi2 && security.certificate.is_none();
        let by_method = security.method == Some(ClientAuthMethod::PrivateKeyJwt);
        let needed = by_method || by_profile || security.signed_requests.is_some();
        if security.signed_requests.is_some() && security.key_files.is_empty() {
            let what = "asks for signatures, but there are no keys";
            self.error(&format!("{at}.request_object"), what, format!("write client_keys_files in [{at}]"));
        } else if needed && !security.key_files.is_empty() {
            self.can_sign(&format!("{at}.client_keys_files"), &security.key_files, security.algorithms());
        }
    }

    /// A problem with the files themselves has been told.
    fn can_sign(&mut self, key: &str, files: &[PathBuf], algorithms: &[Algorithm]) {
        if ClientKeys::read(files).is_ok_and(|keys| !keys.can_sign_with(algorithms)) {
            let names: Vec<_> = algorithms.iter().map(|algorithm| algorithm.name()).collect();
            let what = format!("holds no key that signs with one of {}", names.join(", "));
            self.error(key, what, "add one, for example P-256 for ES256");
        }
    }

    fn key_files(&mut self, key: &str, written: Option<&[PathBuf]>) -> Vec<PathBuf> {
        let Some(written) = written else { return Vec::new() };
        if written.is_empty() {
            self.error(key, "is an empty list", "name files with private keys, PEM or JWK, or remove it");
        }
        let files: Vec<_> = written.iter().map(|path| self.file(key, path)).collect();
        if let Err(error) = ClientKeys::read(&files) {
            for problem in error.problems {
                let what = format!("names {}, which {}", problem.file.display(), problem.what);
                self.error(key, what, "name files with private keys, PEM or JWK");
            }
        }
        files
    }

    fn existing(&mut self, key: &str, written: Option<&Path>) -> Option<PathBuf> {
        let path = self.file(key, written?);
        self.readable(key, &path);
        Some(path)
    }

    fn certificate(&mut self, at: &str, raw: &RawProvider) -> Option<(PathBuf, Option<PathBuf>)> {
        let (chain_key, key_key) =
            (&format!("{at}.client_certificate_file"), &format!("{at}.client_certificate_key_file"));
        let told_only = raw.client_auth_method == Some(RawClientAuthMethod::InsecureXCert);
        let chain = self.existing(chain_key, raw.client_certificate_file.as_deref());
        let key = self.existing(key_key, raw.client_certificate_key_file.as_deref());
        match (chain, key) {
            (None, None) => None,
            (None, Some(_)) => {
                self.error(key_key, "is a key without its certificate", "write client_certificate_file, too");
                None
            }
            (Some(_), None) if !told_only => {
                self.error(chain_key, "is a certificate without its key", "write client_certificate_key_file, too");
                None
            }
            (Some(chain), key) => {
                let readable = [Some(&chain), key.as_ref()].into_iter().flatten().all(|path| path.is_file());
                if readable && let Err(why) = tls_client::check(&chain, key.as_deref()) {
                    let what = format!("names {}, which cannot be used: {why}", chain.display());
                    self.error(chain_key, what, "name a PEM file with the certificate, then its chain");
                }
                Some((chain, key))
            }
        }
    }

    fn dpop(&mut self, at: &str, raw: &RawProvider, profile: Profile) -> Option<DpopSource> {
        let key = &format!("{at}.dpop_key_file");
        // The profile wants one kind of binding, and a certificate is the other.
        let by_profile = profile == Profile::Fapi2 && raw.client_certificate_file.is_none();
        let file = raw.dpop_key_file.as_ref().map(|path| self.file(key, path));
        if !raw.dpop.unwrap_or(by_profile) {
            if file.is_some() {
                self.error(key, "is a key for DPoP, which is off", "write dpop = true, or remove it");
            }
            return None;
        }
        let Some(file) = file else { return Some(DpopSource::Process) };
        match ClientKeys::read(std::slice::from_ref(&file)) {
            Ok(_) => self.can_sign(key, std::slice::from_ref(&file), profile.algorithms()),
            Err(error) => self.error(key, format!("cannot be used: {error}"), "name a file with a private key"),
        }
        Some(DpopSource::File(file))
    }

    /// FAPI 2.0 Security Profile (final) §5.2, §5.3.3 and §5.4, and where each clause about clients is kept:
    ///
    /// | clause | kept by |
    /// |---|---|
    /// | §5.2.1 TLS 1.2 and later, server certificates checked | `provider_http`; `allow_insecure_http` is refused here |
    /// | §5.2.2 of TLS 1.2 the suites of BCP 195 only | `provider_http::Settings::recommended_suites` |
    /// | §5.2.2.1 `use_mtls_endpoint_aliases` | never registered: aliases are for where a certificate is shown, `ourselves` |
    /// | §5.3.3.1 sender-constrained access tokens: mTLS or DPoP | `dpop` is on without a certificate, and not to be switched off |
    /// | §5.3.3.1 mTLS or `private_key_jwt` | other methods, secrets and foreign assertions are refused here |
    /// | §5.3.3.1 access tokens in the header | `userinfo`, which knows no other way |
    /// | §5.3.3.1 no open redirector | `message::return_to` |
    /// | §5.3.3.1 `aud` of assertions: the issuer, one string | `assertion`; `client_assertion_audience` is refused here |
    /// | §5.3.3.1 refresh tokens and their rotation | `refresh`, `session::renewing` |
    /// | §5.3.3.1 `mtls_endpoint_aliases` | `capabilities` |
    /// | §5.3.3.1 nonces of the server with DPoP | `dpop::nonces` |
    /// | §5.3.3.1 metadata from the issuer's document only | `discovery = false` and `[provider.metadata]` are refused here |
    /// | §5.3.3.1 that document's issuer is the configured one | `discovery` |
    /// | §5.3.3.1 no sign-in without the person's doing | navigations only (`message::inbound`), `state` bound to the browser |
    /// | §5.3.3.2 authorization code | `response_type` is refused here |
    /// | §5.3.3.2 pushed requests, and nothing but `client_id` and `request_uri` beside | set here; `par` |
    /// | §5.3.3.2 PKCE with S256, of each request its own and bound to the browser | `login` |
    /// | §5.3.3.2 `iss` of the answer | `Settings::demands_issuer` |
    /// | §5.3.3.2 a nonce of 64 characters at most | `login`: 43 |
    /// | §5.4.1 PS256, ES256, EdDSA with Ed25519, never `none`; RFC 8725 | `Profile::algorithms`, for our keys and for what is signed for us; `jose` |
    /// | §5.4.1 RSA of 2048 bits, curves of 224 and more | `client_keys`, `jwks`: no others are read |
    /// | §5.4.1 128 bits of chance in what is made here | `login`, `client_auth::unguessable` |
    /// | §5.4.3 keys of one name told apart by kind and use | `jwks` |
    ///
    /// Message Signing: signed requests (`request_object = "value"`) live five minutes, with `nbf`, `exp` and the issuer as `aud`;
    /// signed answers by `response_mode`.
    fn fapi2(&mut self, at: &str, raw: &RawProvider, security: &mut Security, beside: &Beside<'_>) {
        const BECAUSE: &str = "contradicts profile = \"fapi2\"";
        let mut refuse = |leaf: &str, why: &str, fix: &str| {
            self.error(&format!("{at}.{leaf}"), format!("{BECAUSE}: {why}"), fix);
        };
        let strong = |method: ClientAuthMethod| method == ClientAuthMethod::PrivateKeyJwt || method.is_tls();
        if security.method.is_some_and(|method| !strong(method)) {
            let leaf = if raw.public_client == Some(true) { "public_client" } else { "client_auth_method" };
            refuse(leaf, "clients prove a private key (§5.3.3.1)", "use \"private_key_jwt\" or \"tls_client_auth\"");
        } else if security.method.is_none() && security.key_files.is_empty() && security.certificate.is_none() {
            refuse("profile", "there is no private key", "write client_keys_files or client_certificate_file");
        }
        if beside.has_secret {
            refuse("client_secret", "a shared secret proves nothing (§5.3.3.1)", "remove it");
        }
        if raw.client_assertion_file.is_some() {
            refuse("client_assertion_file", "clients sign for themselves (§5.3.3.1)", "remove it");
        }
        if security.dpop.is_none() && !security.binds_by_tls() {
            refuse("dpop", "tokens are bound to a key (§5.3.3.1)", "remove it, or write a client certificate");
        }
        if security.audience != Audience::Issuer {
            refuse("client_assertion_audience", "assertions are for the issuer (§5.3.3.1)", "remove it");
        }
        if security.pushed_requests == Some(false) {
            refuse("pushed_authorization_requests", "requests are pushed (§5.3.3.2)", "remove it");
        }
        if security.signed_requests == Some(RequestObject::Reference) {
            refuse("request_object", "requests are pushed, which takes no reference (§5.3.3.2)", "write \"value\"");
        }
        if beside.response_type != ResponseType::Code {
            refuse("response_type", "there is only \"code\" (§5.3.3.2)", "remove it");
        }
        if raw.discovery == Some(false) {
            refuse("discovery", "metadata are what the issuer's document says (§5.3.3.1)", "remove it");
        }
        if raw.metadata.is_some() {
            refuse("metadata", "metadata are what the issuer's document says (§5.3.3.1)", "remove the section");
        }
        if beside.allow_insecure_http {
            refuse("allow_insecure_http", "everything goes by TLS (§5.2)", "remove it");
        }
        if let Some(weak) =
            beside.signing_algs.iter().find(|algorithm| !Profile::Fapi2.algorithms().contains(algorithm))
        {
            let why = format!("{} is not among PS256, ES256 and EdDSA (§5.4.1)", weak.name());
            refuse("signing_algs", &why, "name only those, or remove it");
        }
        if let Some(weak) = security.signing_alg.filter(|alg| !Profile::Fapi2.algorithms().contains(alg)) {
            let why = format!("{} is not among PS256, ES256 and EdDSA (§5.4.1)", weak.name());
            refuse("client_signing_alg", &why, "name one of those, or remove it");
        }
        security.pushed_requests = Some(true);
    }
}

impl From<RawRequestObject> for RequestObject {
    fn from(raw: RawRequestObject) -> Self {
        match raw {
            RawRequestObject::Value => Self::Value,
            RawRequestObject::Reference => Self::Reference,
        }
    }
}

impl From<RawClientAuthMethod> for ClientAuthMethod {
    fn from(raw: RawClientAuthMethod) -> Self {
        match raw {
            RawClientAuthMethod::None => Self::None,
            RawClientAuthMethod::ClientSecretBasic => Self::ClientSecretBasic,
            RawClientAuthMethod::ClientSecretPost => Self::ClientSecretPost,
            RawClientAuthMethod::ClientSecretJwt => Self::ClientSecretJwt,
            RawClientAuthMethod::PrivateKeyJwt => Self::PrivateKeyJwt,
            RawClientAuthMethod::TlsClientAuth => Self::TlsClientAuth,
            RawClientAuthMethod::SelfSignedTlsClientAuth => Self::SelfSignedTlsClientAuth,
            RawClientAuthMethod::KubernetesServiceAccount => Self::KubernetesServiceAccount,
            RawClientAuthMethod::InsecureXCert => Self::InsecureXCert,
        }
    }
}
