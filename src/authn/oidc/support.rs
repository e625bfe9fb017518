//! What the settings ask for and a provider's metadata deny (OpenID Connect Discovery 1.0 §3, RFC 8414 §2, RFC 9396 §10): said at
//! the start, and at use in the place of a request that could only fail. Where metadata say nothing, the provider is asked.

use serde_json::Value;

use super::access_token::AccessTokens;
use super::algorithms::Kind;
use super::client_auth;
use super::discovery::{Metadata, Unsupported};
use super::jose::Algorithm;
use super::settings::Settings;

/// One setting against one list; an empty list says nothing.
struct Judge<'a> {
    provider: &'a str,
}

impl Judge<'_> {
    fn offers(&self, key: &'static str, value: &str, offered: &[String]) -> Result<(), Unsupported> {
        if offered.is_empty() || offered.iter().any(|one| one == value) {
            return Ok(());
        }
        self.refuse(key, value, offered)
    }

    fn refuse(&self, key: &'static str, value: &str, offered: &[String]) -> Result<(), Unsupported> {
        Err(Unsupported { provider: self.provider.to_owned(), key, value: value.to_owned(), offered: offered.to_vec() })
    }

    /// One of those named is enough; of none named there is nothing to judge.
    fn offers_one(&self, key: &'static str, named: &[Algorithm], offered: &[String]) -> Result<(), Unsupported> {
        let known: Vec<_> = offered.iter().filter_map(|name| Algorithm::from_name(name)).collect();
        if named.is_empty() || known.is_empty() || named.iter().any(|one| known.contains(one)) {
            return Ok(());
        }
        let names: Vec<_> = named.iter().map(|one| one.name()).collect();
        self.refuse(key, &names.join(" "), offered)
    }
}

impl Metadata {
    /// Whether the provider offers what the settings ask for; where it does not say, it is asked.
    pub(crate) fn supports(&self, settings: &Settings) -> Result<(), Unsupported> {
        let judge = Judge { provider: &settings.id };
        let offers = &self.capabilities;
        judge.offers("response_type", settings.response_type.name(), &self.response_types)?;
        match settings.response_mode.name() {
            // `jwt` alone is what some metadata say for both ways (JARM §2.3.4).
            Some("query.jwt" | "form_post.jwt") if self.response_modes.iter().any(|mode| mode == "jwt") => {}
            mode => judge.offers("response_mode", mode.unwrap_or("query"), &self.response_modes)?,
        }
        judge.offers("grant_type", "authorization_code", &offers.grant_types)?;
        // RFC 7636 §4.2; `plain` is never used.
        judge.offers("code_challenge_method", "S256", &offers.challenge_methods)?;
        self.supports_what_is_asked(settings, &judge)?;
        self.supports_what_is_demanded(settings, &judge)?;
        settings.security.is_supported(settings, offers)?;
        client_auth::choose(settings, offers).map(drop)
    }

    fn supports_what_is_asked(&self, settings: &Settings, judge: &Judge<'_>) -> Result<(), Unsupported> {
        let (ask, offers) = (&settings.ask, &self.capabilities);
        if let Some(claims) = ask.claims.as_ref().filter(|_| offers.takes_claims == Some(false)) {
            judge.refuse("claims", &Value::Object(claims.clone()).to_string(), &[])?;
        }
        for word in ask.prompt.as_deref().unwrap_or_default().split(' ').filter(|word| !word.is_empty()) {
            judge.offers("prompt", word, &offers.prompts)?;
        }
        let details =
            ask.authorization_details.as_deref().and_then(|text| serde_json::from_str::<Vec<Value>>(text).ok());
        for kind in details.iter().flatten().filter_map(|detail| detail.get("type")?.as_str()) {
            judge.offers("authorization_details", kind, &offers.details_types)?;
        }
        Ok(())
    }

    fn supports_what_is_demanded(&self, settings: &Settings, judge: &Judge<'_>) -> Result<(), Unsupported> {
        // Providers that sign with a client's secret do not always say so.
        if !settings.is_symmetric() {
            let offered: Vec<_> = self.id_token_signing_algs.iter().map(|one| one.name().to_owned()).collect();
            judge.offers_one("signing_algs", &settings.signing_algs, &offered)?;
        }
        let answers = &settings.answer_algs;
        let signed = |kind: AccessTokens| kind == AccessTokens::Introspection { signed: true };
        for (is_used, key, named, kind) in [
            (settings.userinfo, "userinfo_signing_algs", &answers.userinfo, Kind::Userinfo),
            (
                settings.response_mode.is_jwt(),
                "authorization_signing_algs",
                &answers.authorization,
                Kind::Authorization,
            ),
            (signed(settings.access_tokens), "introspection_signing_algs", &answers.introspection, Kind::Introspection),
        ] {
            if is_used {
                judge.offers_one(key, named, kind.offered(&self.capabilities))?;
            }
        }
        let decryption = &settings.decryption;
        let algs = &self.capabilities.id_token_encryption_algs;
        if decryption.required && !algs.is_empty() && !decryption.names().any(|name| algs.iter().any(|alg| alg == name))
        {
            let names: Vec<_> = decryption.names().collect();
            judge.refuse("decryption_algs", &names.join(" "), algs)?;
        }
        Ok(())
    }
}
