//! `[provider]` and `[providers]`.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use url::Url;

use super::security::{Beside, needs_no_secret};
use super::{Resolver, is_loopback};
use crate::authn::oidc;
use crate::authn::oidc::ask::Ask;
use crate::authn::oidc::jose::Algorithm;
use crate::authn::oidc::response::{ResponseMode, ResponseType};
use crate::authn::oidc::security::Profile;
use crate::authn::oidc::settings::Credentials;
use crate::config::problem::shown;
use crate::config::raw::{RawAlgorithm, RawConfig, RawProvider, RawResponseMode, RawResponseType};
use crate::config::text::WebUrl;
use crate::config::walk::below;
use crate::provider_http::{self, SetupError};
use crate::secret::SecretString;

/// Stands for the provider's in `endpoints.callback`.
const PROVIDER_ID: &str = "{provider_id}";

/// What redirect URIs are made of, where they are not written: `public_url` and `endpoints.callback`.
struct PublicAddress {
    url: Url,
    callback: String,
}

/// What all providers share.
struct Surroundings {
    address: Option<PublicAddress>,
    /// Where a registration is kept.
    state_dir: Option<PathBuf>,
}

impl PublicAddress {
    fn callback_of(&self, id: &str) -> Url {
        let mut url = self.url.clone();
        url.set_path(&self.callback.replace(PROVIDER_ID, id));
        url
    }
}

impl Resolver {
    /// All providers: `[provider]`, or each of `[providers]`.
    pub(super) fn providers(&mut self, raw: &mut RawConfig) -> Option<Vec<oidc::Settings>> {
        let several = std::mem::take(&mut raw.providers);
        let address = self.public_address(raw, !several.is_empty());
        let state_dir = raw.state_dir.as_ref().map(|path| self.file("state_dir", path));
        let around = Surroundings { address, state_dir };
        let alone = std::mem::take(&mut raw.provider);
        if several.is_empty() {
            return self.provider("provider", "default", alone, &around).map(|provider| vec![provider]);
        }
        if !self.written_below("provider").is_empty() {
            let what = "stands beside [providers]";
            self.error("provider", what, "write it as one of them: [providers.NAME]");
        }
        let all: Vec<_> = several
            .into_iter()
            .map(|(id, raw)| {
                let at = below("providers", &id);
                self.provider_id(&at, &id);
                self.provider(&at, &id, raw, &around)
            })
            .collect();
        let all: Vec<_> = all.into_iter().collect::<Option<_>>()?;
        self.side_by_side(&all);
        Some(all)
    }

    /// It stands in links and paths.
    fn provider_id(&mut self, at: &str, id: &str) {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
        if id.is_empty() || id.len() > 64 || !id.bytes().all(plain) {
            self.error(at, format!("is {}, no provider_id", shown(id)), "use up to 64 of a to z, 0 to 9, - and _");
        }
    }

    /// One browser, one set of cookies: they all answer at the same origin, each at an address of its own (RFC 9700 §4.4.2.2),
    /// and a session has to tell which of them it is from.
    fn side_by_side(&mut self, all: &[oidc::Settings]) {
        for (index, one) in all.iter().enumerate() {
            let earlier = &all[..index];
            let at = below("providers", &one.id);
            if let Some(other) = earlier.iter().find(|other| other.redirect_uri == one.redirect_uri) {
                let what = format!("is that of {} too", other.id);
                self.error(&format!("{at}.redirect_uri"), what, "give each provider a callback of its own");
            } else if let Some(other) =
                earlier.iter().find(|other| other.redirect_uri.origin() != one.redirect_uri.origin())
            {
                let what = format!("is at another scheme, host or port than that of {}", other.id);
                self.error(&format!("{at}.redirect_uri"), what, "all providers send people back to the same site");
            }
            if let Some(other) = earlier.iter().find(|other| other.party() == one.party()) {
                let what = format!("is the client {:?} of {} too", one.credentials.client_id, other.id);
                self.error(&at, what, "keep one of them");
            }
            if let Some(other) =
                earlier.iter().find(|other| other.insecure_password_grant && one.insecure_password_grant)
            {
                let what = format!("is on for {} too, and a password does not say whose it is", other.id);
                self.error(&format!("{at}.insecure_password_grant"), what, "keep one of them");
            }
            let claimed = |domain: &String| earlier.iter().find(|other| other.email_domains.contains(domain));
            if let Some((domain, other)) =
                one.email_domains.iter().find_map(|domain| claimed(domain).map(|other| (domain, other)))
            {
                let what = format!("names {domain}, as {} does", other.id);
                self.error(&format!("{at}.email_domains"), what, "each domain belongs to one provider");
            }
        }
    }

    fn public_address(&mut self, raw: &mut RawConfig, several: bool) -> Option<PublicAddress> {
        let written = raw.endpoints.callback.take();
        let Some(WebUrl((url, _))) = raw.public_url.take() else {
            if written.is_some() {
                let what = "says where providers answer, but not on which site";
                self.error("endpoints.callback", what, "write public_url, or a redirect_uri for each provider");
            }
            return None;
        };
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            self.error("public_url", "is more than scheme, host and port", "for example \"https://app.example.com\"");
        }
        let prefix = raw.endpoints.prefix.as_deref().unwrap_or("/auth").trim_end_matches('/');
        let default = || format!("{prefix}/callback{}", if several { "/{provider_id}" } else { "" });
        let callback = written.unwrap_or_else(default);
        if several && !callback.contains(PROVIDER_ID) {
            let what = "is the same for all providers";
            self.error("endpoints.callback", what, format!("put {PROVIDER_ID} into it"));
        }
        Some(PublicAddress { url, callback })
    }

    fn provider(&mut self, at: &str, id: &str, mut raw: RawProvider, around: &Surroundings) -> Option<oidc::Settings> {
        let key = |leaf: &str| format!("{at}.{leaf}");
        let insecure = raw.allow_insecure_http.unwrap_or(false);
        let registration = self.registration(at, &raw, around.state_dir.as_deref());
        let registers = raw.dynamic_registration.unwrap_or(false);
        let (client_secret, secret_told) =
            if registers { (None, raw.public_client.unwrap_or(false)) } else { self.client_secret(at, &raw) };
        let http = self.provider_http(at, &raw, insecure);
        let tenants = self.tenants(at, &mut raw);
        let (mut ask, demands) = (self.ask(at, &mut raw), self.demands(at, &mut raw));
        let clock_skew = self.clock_skew(at, raw.clock_skew.take());
        let has_keys = raw.client_keys_files.as_ref().is_some_and(|files| !files.is_empty());
        let decryption = self.decryption(at, &mut raw, has_keys, client_secret.is_some() || !secret_told);
        let redirect_uri = self.redirect_uri(
            at,
            raw.redirect_uri.clone(),
            around.address.as_ref().map(|one| one.callback_of(id)),
            insecure,
        );
        let issuer = self.issuer(at, raw.issuer.take(), insecure);
        let backchannel_url = self.backchannel_url(at, raw.backchannel_url.take(), insecure);
        let post_logout_redirect_uri = self.post_logout_redirect_uri(at, raw.post_logout_redirect_uri.take(), insecure);
        // Of a client that registers itself, the provider says it.
        let client_id = if registers { Some(String::new()) } else { self.client_id(at, raw.client_id.take()) };
        let may_have_secret = client_secret.is_some() || !secret_told;
        let mut signing_algs = self.signing_algs(at, "signing_algs", raw.signing_algs.take(), may_have_secret);
        let answer_algs = self.answer_algs(at, &mut raw, may_have_secret);
        let scopes = self.scopes(at, raw.scopes.take());
        self.consent(at, &scopes, &mut ask.prompt);
        let (response_type, response_mode) = self.response(at, raw.response_type, raw.response_mode);
        if response_mode.is_post()
            && redirect_uri.as_ref().is_some_and(|uri| uri.scheme() == "http" && !is_loopback(uri))
        {
            let what = "wants a cookie that browsers take over https only";
            self.error(&key("response_mode"), what, "use https, or \"query\"");
        }
        let beside = Beside {
            has_secret: client_secret.is_some(),
            response_type,
            allow_insecure_http: insecure,
            signing_algs: &signing_algs,
        };
        let security = self.security(at, &raw, &beside);
        let profile = security.profile;
        self.answers_fit(at, profile, &answer_algs);
        if profile == Profile::Fapi2 && signing_algs.is_empty() {
            signing_algs = security.profile.algorithms().to_vec();
        }
        let authorization_params = self.authorization_params(at, raw.authorization_params);
        let logout_hint_claim = raw.logout_hint_claim.filter(|claim| !claim.is_empty());
        let logout_params = self.logout_params(at, raw.logout_params, logout_hint_claim.is_some());
        let userinfo = raw.userinfo.unwrap_or(true);
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let (refresh, refetch, stale) = (raw.refresh_interval, raw.key_refetch_interval, raw.stale_keys);
        let queue = raw.token_queue_timeout;
        let (refresh_interval, key_refetch_interval, stale_keys, token_queue_timeout) = (
            self.span(&key("refresh_interval"), refresh.as_ref(), minutes(15)),
            self.span(&key("key_refetch_interval"), refetch.as_ref(), Duration::from_secs(30)),
            self.span(&key("stale_keys"), stale.as_ref(), minutes(24 * 60)),
            self.span(&key("token_queue_timeout"), queue.as_ref(), Duration::from_secs(5)),
        );
        let access_tokens = self.access_tokens(at, raw.access_token_format, raw.introspection);
        let metadata = self.static_metadata(at, raw.discovery, raw.metadata, raw.signed_jwks_key_file.as_deref());
        let logo = raw.logo.and_then(|path| self.logo(&key("logo"), &path));
        let email_domains = self.email_domains(&key("email_domains"), raw.email_domains);
        if registers && registration.is_none() {
            return None;
        }
        let settings = oidc::Settings {
            id: id.to_owned(),
            name: raw.name.filter(|name| !name.trim().is_empty()).unwrap_or_else(|| id.to_owned()),
            logo,
            email_domains,
            http,
            issuer: issuer?,
            tenants,
            backchannel_url,
            metadata,
            registration,
            // Once the endpoints are known.
            request_objects_at: None,
            credentials: Credentials { client_id: client_id?, client_secret },
            security,
            redirect_uri: redirect_uri?,
            scopes,
            response_type,
            response_mode,
            authorization_params,
            logout_hint_claim,
            logout_params,
            ask,
            demands,
            clock_skew,
            trusted_audiences: raw.trusted_audiences.unwrap_or_default(),
            signing_algs,
            answer_algs,
            decryption,
            userinfo,
            access_tokens,
            // Name, roles and e-mail may come from it, so a sign-in must not go on without.
            userinfo_required: userinfo,
            allow_insecure_http: insecure,
            post_logout_redirect_uri,
            revoke_at_sign_out: raw.revoke_at_sign_out.unwrap_or(true),
            refresh_interval,
            key_refetch_interval,
            stale_keys,
            max_token_calls: raw.max_token_calls.unwrap_or(64) as usize,
            token_queue_timeout,
            insecure_password_grant: self.password_grant(at, raw.insecure_password_grant, profile),
        };
        self.judge_stated(at, &settings);
        Some(settings)
    }

    /// RFC 9700 §2.4: it must not be used.
    fn password_grant(&mut self, at: &str, written: Option<bool>, profile: Profile) -> bool {
        let (key, is_on) = (format!("{at}.insecure_password_grant"), written.unwrap_or(false));
        if is_on && profile == Profile::Fapi2 {
            self.error(&key, "contradicts profile = \"fapi2\": passwords are the provider's to ask for", "remove it");
        } else if is_on {
            let what =
                "lets programs send people's passwords here, which RFC 9700 forbids: whoever reads along has them";
            self.warn(&key, what, "use [api_clients] with \"device_code\", or access tokens by [bearer]");
        }
        is_on
    }

    fn response(
        &mut self,
        at: &str,
        kind: Option<RawResponseType>,
        mode: Option<RawResponseMode>,
    ) -> (ResponseType, ResponseMode) {
        let kind = match kind {
            None | Some(RawResponseType::Code) => ResponseType::Code,
            Some(RawResponseType::CodeIdToken) => ResponseType::CodeIdToken,
        };
        let hybrid = kind == ResponseType::CodeIdToken;
        let mode = match mode {
            None if hybrid => ResponseMode::FormPost,
            None | Some(RawResponseMode::Query) => ResponseMode::Query,
            Some(RawResponseMode::FormPost) => ResponseMode::FormPost,
            // JARM §2.3.4: the default way of the response type; in a fragment, hybrid's, it would never reach us.
            Some(RawResponseMode::Jwt) if hybrid => ResponseMode::FormPostJwt,
            Some(RawResponseMode::Jwt | RawResponseMode::QueryJwt) => ResponseMode::QueryJwt,
            Some(RawResponseMode::FormPostJwt) => ResponseMode::FormPostJwt,
        };
        if hybrid && !mode.is_post() {
            // OAuth 2.0 Multiple Response Types §5: no token in a query, which ends in logs and histories.
            let what = "puts an ID token into the query";
            self.error(&format!("{at}.response_mode"), what, "write \"form_post\" or \"form_post.jwt\"");
        }
        (kind, mode)
    }

    fn provider_http(&mut self, at: &str, raw: &RawProvider, allow_insecure_http: bool) -> provider_http::Settings {
        let default = provider_http::Settings::default();
        let max_response = raw.max_response.as_ref().map_or(default.max_response, |size| size.0);
        if !(64 * 1024..=64 * 1024 * 1024).contains(&max_response) {
            self.error(&format!("{at}.max_response"), "is out of range", "write a size from 64KiB to 64MiB");
        }
        let key = &format!("{at}.ca_file");
        let ca_file = raw.ca_file.as_ref().map(|path| {
            let path = self.file(key, path);
            if self.readable(key, &path)
                && let Err(SetupError::CaFile { reason, .. }) = provider_http::check_ca_file(&path)
            {
                let what = format!("names {}, which cannot be used: {reason}", path.display());
                self.error(key, what, "name a file with one or more certificates in PEM");
            }
            path
        });
        let timeout = self.span(&format!("{at}.timeout"), raw.timeout.as_ref(), default.timeout);
        // FAPI 2.0 §5.2.2.
        let recommended_suites = raw.profile.is_some();
        provider_http::Settings { ca_file, timeout, max_response, allow_insecure_http, recommended_suites }
    }

    /// The picture as a `data:` URL: pages load nothing from anywhere.
    fn logo(&mut self, key: &str, path: &Path) -> Option<String> {
        const LARGEST: usize = 32 * 1024;
        let path = self.file(key, path);
        if !self.readable(key, &path) {
            return None;
        }
        let mut bytes = Vec::new();
        let read = std::fs::File::open(&path).and_then(|file| file.take(LARGEST as u64 + 1).read_to_end(&mut bytes));
        let kind = mime_guess::from_path(&path).first_raw().unwrap_or_default();
        let what = match read {
            Err(error) => format!("cannot be read: {error}"),
            Ok(size) if size > LARGEST => "is larger than 32 KiB".to_owned(),
            Ok(_) if !["image/svg+xml", "image/png", "image/jpeg", "image/webp"].contains(&kind) => {
                "is no picture of a kind that is known".to_owned()
            }
            Ok(_) => return Some(format!("data:{kind};base64,{}", STANDARD.encode(bytes))),
        };
        self.error(key, what, "name a file that ends in .svg, .png, .jpg or .webp");
        None
    }

    fn email_domains(&mut self, key: &str, written: Option<Vec<String>>) -> Vec<String> {
        let domains: Vec<String> =
            written.unwrap_or_default().into_iter().map(|one| one.to_ascii_lowercase()).collect();
        for domain in &domains {
            if url::Host::parse(domain).is_err() || !domain.is_ascii() || domain.contains('@') || !domain.contains('.')
            {
                self.error(key, format!("names {}, no domain", shown(domain)), "for example [\"example.com\"]");
            }
        }
        domains
    }

    /// The secret, and whether its absence has been told or wanted.
    fn client_secret(&mut self, at: &str, raw: &RawProvider) -> (Option<SecretString>, bool) {
        let (key, file_key) = (&format!("{at}.client_secret"), &format!("{at}.client_secret_file"));
        let public = raw.public_client.unwrap_or(false);
        match (&raw.client_secret, &raw.client_secret_file) {
            (Some(_), Some(_)) => {
                let what = format!("is given twice: here and as client_secret ({})", self.place(key));
                self.error(file_key, what, "remove one of them");
                (None, false)
            }
            (None, None) if needs_no_secret(raw) => (None, true),
            (None, None) => {
                if !self.broken.contains(key) && !self.broken.contains(file_key) {
                    let variables = match at {
                        "provider" => "set OIDC_CLIENT_SECRET or OIDC_CLIENT_SECRET_FILE, or ",
                        _ => "",
                    };
                    let fix = format!(
                        "{variables}write client_secret_file in [{at}];\na client without a secret says so: \
                         public_client = true"
                    );
                    self.error(key, "is missing", fix);
                }
                (None, false)
            }
            _ if public => {
                let what = "contradicts the client secret, which is given too";
                self.error(&format!("{at}.public_client"), what, "remove one of them");
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

    fn client_id(&mut self, at: &str, written: Option<String>) -> Option<String> {
        let Some(id) = written else {
            self.missing(&format!("{at}.client_id"), "app");
            return None;
        };
        // RFC 6749 appendix A.1: visible ASCII and spaces.
        if id.trim().is_empty() || !id.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) {
            self.error(
                &format!("{at}.client_id"),
                "is no client id",
                "write the client id as registered at the provider",
            );
            return None;
        }
        Some(id)
    }

    fn issuer(&mut self, at: &str, written: Option<String>, insecure: bool) -> Option<String> {
        let key = &format!("{at}.issuer");
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

    fn redirect_uri(&mut self, at: &str, written: Option<WebUrl>, made: Option<Url>, insecure: bool) -> Option<Url> {
        let key = &format!("{at}.redirect_uri");
        let (url, text) = match (written, made) {
            (Some(WebUrl(written)), _) => written,
            (None, Some(url)) => (url.clone(), url.into()),
            (None, None) => {
                self.missing(key, "https://app.example.com/auth/callback");
                return None;
            }
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

    fn backchannel_url(&mut self, at: &str, written: Option<WebUrl>, insecure: bool) -> Option<Url> {
        let key = &format!("{at}.backchannel_url");
        let WebUrl((url, _)) = written?;
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            let fix = "it takes the place of the issuer's scheme, host and port; the issuer's path is kept";
            self.error(key, "is more than scheme, host and port", fix);
        }
        self.transport(key, &url, insecure);
        Some(url)
    }

    fn post_logout_redirect_uri(&mut self, at: &str, written: Option<WebUrl>, insecure: bool) -> Option<Url> {
        let key = &format!("{at}.post_logout_redirect_uri");
        let WebUrl((url, _)) = written?;
        if url.fragment().is_some() {
            self.error(key, "has a fragment", "write it without #");
        }
        self.transport(key, &url, insecure);
        Some(url)
    }

    /// http works towards loopback only, anywhere else when allowed, and then with a warning.
    fn transport(&mut self, key: &str, url: &Url, insecure: bool) {
        if url.scheme() == "https" || is_loopback(url) {
            return;
        }
        if insecure {
            self.warn(key, "is http beyond loopback: whoever is on the way can take over sign-ins", "use https");
        } else {
            let fix = "use https; in a network of your own, for a test, allow_insecure_http = true in [provider]";
            self.error(key, "is http, which works towards localhost only", fix);
        }
    }

    fn scopes(&mut self, at: &str, written: Option<Vec<String>>) -> Vec<String> {
        let mut scopes = written.unwrap_or_else(|| ["openid", "email", "profile"].map(str::to_owned).to_vec());
        // One text of several is easily written: scopes = ["openid email"].
        scopes = scopes.iter().flat_map(|scope| scope.split_whitespace()).map(str::to_owned).collect();
        // RFC 6749 §3.3.
        let token = |byte: u8| byte == 0x21 || (0x23..=0x5b).contains(&byte) || (0x5d..=0x7e).contains(&byte);
        if let Some(bad) = scopes.iter().find(|scope| !scope.bytes().all(token)) {
            self.error(
                &format!("{at}.scopes"),
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

    fn authorization_params(&mut self, at: &str, written: BTreeMap<String, String>) -> Vec<(String, String)> {
        const OURS: [&str; 13] = [
            "client_id",
            "client_secret",
            "code_challenge",
            "code_challenge_method",
            "dpop_jkt",
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
            let key = below(&format!("{at}.authorization_params"), name);
            if OURS.contains(&name.as_str()) {
                self.error(&key, "is a parameter that only Vestibule sets", "remove it");
            } else if let Some(own) = match name.as_str() {
                "scope" => Some("scopes"),
                name => Ask::NAMES.into_iter().find(|own| *own == name),
            } {
                self.error(&key, "has a key of its own", format!("write {own} in [{at}]"));
            } else if name.is_empty() {
                self.error(&key, "has no name", "remove it");
            }
        }
        written.into_iter().collect()
    }

    fn logout_params(&mut self, at: &str, written: BTreeMap<String, String>, has_hint: bool) -> Vec<(String, String)> {
        for name in written.keys() {
            let key = below(&format!("{at}.logout_params"), name);
            if ["client_id", "id_token_hint", "state"].contains(&name.as_str()) {
                self.error(&key, "is a parameter that only Vestibule sets", "remove it");
            } else if name == "post_logout_redirect_uri" {
                self.error(&key, "has a key of its own", "write post_logout_redirect_uri in [provider]");
            } else if name == "logout_hint" && has_hint {
                self.error(&key, "contradicts logout_hint_claim, which sets it", "remove one of them");
            } else if name.is_empty() {
                self.error(&key, "has no name", "remove it");
            }
        }
        written.into_iter().collect()
    }

    pub(super) fn signing_algs(
        &mut self,
        at: &str,
        leaf: &str,
        written: Option<Vec<RawAlgorithm>>,
        has_secret: bool,
    ) -> Vec<Algorithm> {
        let key = &format!("{at}.{leaf}");
        let Some(written) = written else { return Vec::new() };
        if written.is_empty() {
            self.error(key, "is an empty list: nothing could ever be accepted", "name algorithms, or remove it");
        }
        let algorithms: Vec<Algorithm> = written.into_iter().map(Algorithm::from).collect();
        if let Some(symmetric) = algorithms.iter().find(|algorithm| algorithm.is_symmetric()) {
            let name = symmetric.name();
            if algorithms.len() > 1 {
                // With both kinds allowed, a public key could serve as the shared secret (RFC 8725 §2.1).
                let what = format!("names {name} beside other algorithms");
                self.error(key, what, format!("name {name} alone, or only the others"));
            } else if !has_secret {
                let what = format!("names {name}, which needs a client secret");
                self.error(key, what, "add the client secret, or use RS256");
            }
        }
        algorithms
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
            RawAlgorithm::ES256K => Self::ES256K,
            RawAlgorithm::EdDSA => Self::EdDSA,
            RawAlgorithm::HS256 => Self::HS256,
            RawAlgorithm::HS384 => Self::HS384,
            RawAlgorithm::HS512 => Self::HS512,
        }
    }
}
