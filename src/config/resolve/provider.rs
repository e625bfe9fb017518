//! `[provider]`.

use std::collections::BTreeMap;
use std::time::Duration;

use url::Url;

use super::Resolver;
use crate::authn::oidc;
use crate::authn::oidc::jose::Algorithm;
use crate::config::problem::shown;
use crate::config::raw::{RawAlgorithm, RawProvider};
use crate::config::text::WebUrl;
use crate::provider_http::{self, SetupError};
use crate::secret::SecretString;

impl Resolver {
    pub(super) fn provider(&mut self, raw: RawProvider) -> Option<(oidc::Settings, provider_http::Settings)> {
        let insecure = raw.allow_insecure_http.unwrap_or(false);
        let (client_secret, secret_told) = self.client_secret(&raw);
        let redirect_uri = self.redirect_uri(raw.redirect_uri, insecure);
        let issuer = self.issuer(raw.issuer, insecure);
        let backchannel_url = self.backchannel_url(raw.backchannel_url, insecure);
        let post_logout_redirect_uri = self.post_logout_redirect_uri(raw.post_logout_redirect_uri, insecure);
        let client_id = self.client_id(raw.client_id);
        let signing_algs = self.signing_algs(raw.signing_algs, client_secret.is_some() || !secret_told);
        let http = provider_http::Settings::default();
        let max_response = raw.max_response.map_or(http.max_response, |size| size.0);
        if !(64 * 1024..=64 * 1024 * 1024).contains(&max_response) {
            self.error("provider.max_response", "is out of range", "write a size from 64KiB to 64MiB");
        }
        let http = provider_http::Settings {
            ca_file: raw.ca_file.map(|path| {
                let path = self.file("provider.ca_file", &path);
                if self.readable("provider.ca_file", &path)
                    && let Err(SetupError::CaFile { reason, .. }) = provider_http::check_ca_file(&path)
                {
                    let what = format!("names {}, which cannot be used: {reason}", path.display());
                    self.error("provider.ca_file", what, "name a file with one or more certificates in PEM");
                }
                path
            }),
            timeout: self.span("provider.timeout", raw.timeout.as_ref(), http.timeout),
            max_response,
            allow_insecure_http: insecure,
        };
        let scopes = self.scopes(raw.scopes);
        let authorization_params = self.authorization_params(raw.authorization_params);
        let userinfo = raw.userinfo.unwrap_or(true);
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let (refresh, refetch, stale) = (raw.refresh_interval, raw.key_refetch_interval, raw.stale_keys);
        let queue = raw.token_queue_timeout;
        let (refresh_interval, key_refetch_interval, stale_keys, token_queue_timeout) = (
            self.span("provider.refresh_interval", refresh.as_ref(), minutes(15)),
            self.span("provider.key_refetch_interval", refetch.as_ref(), Duration::from_secs(30)),
            self.span("provider.stale_keys", stale.as_ref(), minutes(24 * 60)),
            self.span("provider.token_queue_timeout", queue.as_ref(), Duration::from_secs(5)),
        );
        let settings = oidc::Settings {
            issuer: issuer?,
            backchannel_url,
            client_id: client_id?,
            client_secret,
            redirect_uri: redirect_uri?,
            scopes,
            authorization_params,
            trusted_audiences: raw.trusted_audiences.unwrap_or_default(),
            signing_algs,
            userinfo,
            // Name, roles and e-mail may come from it, so a sign-in must not go on without.
            userinfo_required: userinfo,
            allow_insecure_http: insecure,
            post_logout_redirect_uri,
            refresh_interval,
            key_refetch_interval,
            stale_keys,
            max_token_calls: raw.max_token_calls.unwrap_or(64) as usize,
            token_queue_timeout,
        };
        Some((settings, http))
    }

    /// The secret, and whether its absence has been told or wanted.
    fn client_secret(&mut self, raw: &RawProvider) -> (Option<SecretString>, bool) {
        let (key, file_key) = ("provider.client_secret", "provider.client_secret_file");
        let public = raw.public_client.unwrap_or(false);
        match (&raw.client_secret, &raw.client_secret_file) {
            (Some(_), Some(_)) => {
                let what = format!("is given twice: here and as client_secret ({})", self.place(key));
                self.error(file_key, what, "remove one of them");
                (None, false)
            }
            (None, None) if public => (None, true),
            (None, None) => {
                if !self.broken.contains(key) && !self.broken.contains(file_key) {
                    let fix = "set OIDC_CLIENT_SECRET or OIDC_CLIENT_SECRET_FILE, or write client_secret_file in [provider];\n\
                               a client without a secret says so: public_client = true";
                    self.error(key, "is missing", fix);
                }
                (None, false)
            }
            _ if public => {
                let what = "contradicts the client secret, which is given too";
                self.error("provider.public_client", what, "remove one of them");
                (None, false)
            }
            (Some(secret), None) => {
                let secret = secret.expose_secret();
                let secret = secret.strip_suffix('\n').map_or(secret, |line| line.strip_suffix('\r').unwrap_or(line));
                if secret.trim().is_empty() {
                    self.error(key, "is empty", "write the secret that the provider gave to this client");
                    return (None, false);
                }
                (Some(SecretString::new(secret.to_owned())), false)
            }
            (None, Some(path)) => {
                let text = self.secret_file(file_key, path);
                let secret = text.map(|text| {
                    let line = text.strip_suffix('\n').unwrap_or(&text);
                    SecretString::new(line.strip_suffix('\r').unwrap_or(line).to_owned())
                });
                (secret, false)
            }
        }
    }

    fn client_id(&mut self, written: Option<String>) -> Option<String> {
        let Some(id) = written else {
            self.missing("provider.client_id", "app");
            return None;
        };
        // RFC 6749 appendix A.1: visible ASCII and spaces.
        if id.trim().is_empty() || !id.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) {
            self.error("provider.client_id", "is no client id", "write the client id as registered at the provider");
            return None;
        }
        Some(id)
    }

    fn issuer(&mut self, written: Option<String>, insecure: bool) -> Option<String> {
        let key = "provider.issuer";
        let Some(issuer) = written else {
            self.missing(key, "https://id.example.com/realms/demo");
            return None;
        };
        let Some(url) = WebUrl::parse(&issuer).map(|url| url.0.0) else {
            let what = format!("is {}, no absolute http or https URL", shown(&issuer));
            self.error(
                key,
                what,
                "write it as the provider's discovery document does, such as \"https://id.example.com/realms/demo\"",
            );
            return None;
        };
        // OpenID Connect Discovery §3: no query or fragment component.
        if url.query().is_some() || url.fragment().is_some() {
            self.error(key, "has a query or a fragment", "write it without ? and #");
        }
        if issuer.ends_with("/.well-known/openid-configuration") {
            let what = "is the address of the discovery document";
            self.error(key, what, "leave out /.well-known/openid-configuration");
        }
        self.transport(key, &url, insecure);
        Some(issuer)
    }

    fn redirect_uri(&mut self, written: Option<WebUrl>, insecure: bool) -> Option<Url> {
        let key = "provider.redirect_uri";
        let Some(WebUrl((url, text))) = written else {
            self.missing(key, "https://app.example.com/auth/callback");
            return None;
        };
        // RFC 6749 §3.1.2: no fragment.
        if url.fragment().is_some() || url.query().is_some() {
            self.error(key, "has a query or a fragment", "write it without ? and #");
        }
        if url.path() == "/" {
            let what = "has no path of its own: the application's front page would be the callback";
            let origin = url.origin().ascii_serialization();
            self.error(key, what, format!("write \"{origin}/auth/callback\", and register that at the provider"));
        } else if super::endpoints::unusable(url.path()) {
            self.error(
                key,
                "has a path that can be read in more than one way",
                "use letters, digits, -, _, . and / only",
            );
        } else if url.as_str() != text {
            let what = format!("is sent to the provider as {:?}", url.as_str());
            self.warn(key, what, "providers compare it character by character: write and register it like that");
        }
        self.transport(key, &url, insecure);
        if url.scheme() == "http" {
            let what = "is http, so our cookies are not Secure and have no __Host- name";
            self.warn(key, what, "fine while developing; people's sign-ins need https");
        }
        Some(url)
    }

    fn backchannel_url(&mut self, written: Option<WebUrl>, insecure: bool) -> Option<Url> {
        let key = "provider.backchannel_url";
        let WebUrl((url, _)) = written?;
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            let fix = "it takes the place of the issuer's scheme, host and port; the issuer's path is kept";
            self.error(key, "is more than scheme, host and port", fix);
        }
        self.transport(key, &url, insecure);
        Some(url)
    }

    fn post_logout_redirect_uri(&mut self, written: Option<WebUrl>, insecure: bool) -> Option<Url> {
        let key = "provider.post_logout_redirect_uri";
        let WebUrl((url, _)) = written?;
        if url.fragment().is_some() {
            self.error(key, "has a fragment", "write it without #");
        }
        self.transport(key, &url, insecure);
        Some(url)
    }

    /// http works towards loopback only, anywhere else when allowed, and then with a warning.
    fn transport(&mut self, key: &str, url: &Url, insecure: bool) {
        if url.scheme() == "https" || super::is_loopback(url) {
            return;
        }
        if insecure {
            self.warn(key, "is http beyond loopback: whoever is on the way can take over sign-ins", "use https");
        } else {
            let fix = "use https; in a network of your own, for a test, allow_insecure_http = true in [provider]";
            self.error(key, "is http, which works towards localhost only", fix);
        }
    }

    fn scopes(&mut self, written: Option<Vec<String>>) -> Vec<String> {
        let mut scopes = written.unwrap_or_else(|| ["openid", "email", "profile"].map(str::to_owned).to_vec());
        // One text of several is easily written: scopes = ["openid email"].
        scopes = scopes.iter().flat_map(|scope| scope.split_whitespace()).map(str::to_owned).collect();
        // RFC 6749 §3.3.
        let token = |byte: u8| byte == 0x21 || (0x23..=0x5b).contains(&byte) || (0x5d..=0x7e).contains(&byte);
        if let Some(bad) = scopes.iter().find(|scope| !scope.bytes().all(token)) {
            self.error(
                "provider.scopes",
                format!("names {}, no scope", shown(bad)),
                "for example [\"openid\", \"email\"]",
            );
        }
        // Core §3.1.2.1: without it the answer holds no ID token.
        if !scopes.iter().any(|scope| scope == "openid") {
            scopes.insert(0, "openid".to_owned());
        }
        scopes
    }

    fn authorization_params(&mut self, written: BTreeMap<String, String>) -> Vec<(String, String)> {
        const OURS: [&str; 12] = [
            "client_id",
            "client_secret",
            "code_challenge",
            "code_challenge_method",
            "id_token_hint",
            "nonce",
            "redirect_uri",
            "request",
            "request_uri",
            "response_mode",
            "response_type",
            "state",
        ];
        for name in written.keys() {
            let key = crate::config::walk::below("provider.authorization_params", name);
            if OURS.contains(&name.as_str()) {
                self.error(&key, "is a parameter that only Vestibule sets", "remove it");
            } else if name == "scope" {
                self.error(&key, "has a key of its own", "write scopes in [provider]");
            } else if name.is_empty() {
                self.error(&key, "has no name", "remove it");
            }
        }
        written.into_iter().collect()
    }

    fn signing_algs(&mut self, written: Option<Vec<RawAlgorithm>>, has_secret: bool) -> Vec<Algorithm> {
        let key = "provider.signing_algs";
        let Some(written) = written else { return Vec::new() };
        if written.is_empty() {
            self.error(key, "is an empty list: no ID token could ever be accepted", "name algorithms, or remove it");
        }
        if written.contains(&RawAlgorithm::HS256) {
            if written.len() > 1 {
                // With both kinds allowed, a public key could serve as the shared secret (RFC 8725 §2.1).
                self.error(key, "names HS256 beside other algorithms", "name HS256 alone, or only the others");
            } else if !has_secret {
                self.error(key, "names HS256, which needs a client secret", "add the client secret, or use RS256");
            }
        }
        written.into_iter().map(Algorithm::from).collect()
    }
}

impl From<RawAlgorithm> for Algorithm {
    fn from(raw: RawAlgorithm) -> Self {
        match raw {
            RawAlgorithm::RS256 => Self::RS256,
            RawAlgorithm::RS384 => Self::RS384,
            RawAlgorithm::RS512 => Self::RS512,
            RawAlgorithm::PS256 => Self::PS256,
            RawAlgorithm::PS384 => Self::PS384,
            RawAlgorithm::PS512 => Self::PS512,
            RawAlgorithm::ES256 => Self::ES256,
            RawAlgorithm::ES384 => Self::ES384,
            RawAlgorithm::ES512 => Self::ES512,
            RawAlgorithm::EdDSA => Self::EdDSA,
            RawAlgorithm::HS256 => Self::HS256,
        }
    }
}
