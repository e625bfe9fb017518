//! `[provider.metadata]`.

use std::path::Path;

use serde_json::{Map, Value};

use super::Resolver;
use crate::authn::oidc;
use crate::authn::oidc::discovery::{DiscoveryError, Metadata};
use crate::authn::oidc::static_metadata::{KeySource, StaticMetadata, check_keys};
use crate::config::raw::RawMetadata;
use crate::telemetry::chain;

impl Resolver {
    pub(super) fn static_metadata(
        &mut self,
        at: &str,
        discovery: Option<bool>,
        raw: Option<RawMetadata>,
        key_set_key: Option<&Path>,
    ) -> StaticMetadata {
        let raw = raw.unwrap_or_default();
        let key = |leaf: &str| format!("{at}.metadata.{leaf}");
        let members = match serde_json::to_value(&raw) {
            Ok(Value::Object(members)) => members,
            // Texts, lists of texts and switches are JSON.
            _ => Map::new(),
        };
        let written = [("jwks_uri", raw.jwks_uri.is_some()), ("jwks_file", raw.jwks_file.is_some())];
        let mut written: Vec<_> = written.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect();
        if raw.jwks.is_some() {
            written.push("jwks");
        }
        if let [first, second, ..] = *written {
            self.error(&key(second), format!("stands beside {first}: keys are in one place"), "remove one of them");
        }
        let (leaf, keys) = match (raw.jwks_file, raw.jwks) {
            (Some(path), _) => ("jwks_file", Some(KeySource::File(self.file(&key("jwks_file"), &path)))),
            (None, Some(text)) => ("jwks", Some(KeySource::Inline(text))),
            (None, None) => ("", None),
        };
        if let Some(Err(error)) = keys.as_ref().map(check_keys) {
            let what = format!("cannot be used: {}", chain(&error));
            self.error(
                &key(leaf),
                what,
                "it is a JSON Web Key Set: {\"keys\": [ … ]}, with the provider's public keys",
            );
        }
        let key_set_keys = self.key_set_keys(&format!("{at}.signed_jwks_key_file"), key_set_key, &written);
        StaticMetadata { discovery: discovery.unwrap_or(true), members, keys, key_set_keys }
    }

    fn key_set_keys(&mut self, key: &str, path: Option<&Path>, written: &[&str]) -> Option<KeySource> {
        let source = KeySource::File(self.file(key, path?));
        if let Some(leaf) = written.first() {
            let what = format!("stands beside metadata.{leaf}, which nobody signed");
            self.error(key, what, "remove one of them; a signed key set is at metadata.signed_jwks_uri");
        }
        if let Err(error) = check_keys(&source) {
            let what = format!("cannot be used: {}", chain(&error));
            self.error(key, what, "it is a JSON Web Key Set: {\"keys\": [ … ]}, with the key that signs the key set");
        }
        Some(source)
    }

    /// Reads what is stated as a discovered document would be read, so that it is told before anybody signs in.
    pub(super) fn judge_stated(&mut self, at: &str, settings: &oidc::Settings) {
        let stated = if settings.metadata.discovery {
            // What is not stated will be discovered: https there, as the issuer need not be.
            let mut settings = settings.clone();
            for name in ["authorization_endpoint", "token_endpoint", "jwks_uri"] {
                let members = &mut settings.metadata.members;
                members.entry(name).or_insert_with(|| Value::from("https://discovered.example/"));
            }
            Metadata::stated(&settings)
        } else {
            Metadata::stated(settings)
        };
        let error = match stated {
            Ok(stated) => {
                // With discovery the rest is not known yet.
                if !settings.metadata.discovery
                    && let Err(unsupported) = stated.supports(settings)
                {
                    let what = format!("cannot be: {unsupported}");
                    let fix = "write what the provider offers, or correct what is stated about it";
                    self.error(&format!("{at}.{}", unsupported.key), what, fix);
                }
                None
            }
            Err(error) => Some(error),
        };
        let (field, what, fix) = match error {
            None => return,
            Some(DiscoveryError::Field { field }) if !settings.metadata.members.contains_key(field) => {
                let fix =
                    "write it, or leave out discovery = false: the provider is then asked for what is not written";
                (field, "is missing", fix)
            }
            Some(DiscoveryError::Insecure { field }) => {
                let fix = "use https; http works towards localhost only, and only for a provider that is there too";
                (field, "is not https", fix)
            }
            Some(DiscoveryError::Field { field }) => {
                (field, "is no absolute URL without fragment, user or password", "write it in full, with https")
            }
            // Nothing is fetched here, and the issuer is the configured one.
            Some(_) => ("", "cannot be used", ""),
        };
        self.error(&format!("{at}.metadata.{field}"), what, fix);
    }
}
