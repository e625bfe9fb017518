//! `provider.dynamic_registration`.

use std::path::Path;

use super::Resolver;
use crate::authn::oidc::registration::RegistrationSettings;
use crate::config::raw::RawProvider;

impl Resolver {
    /// `None` where a client id is written, and where something is wrong.
    pub(super) fn registration(
        &mut self,
        at: &str,
        raw: &RawProvider,
        state_dir: Option<&Path>,
    ) -> Option<RegistrationSettings> {
        let key = |leaf: &str| format!("{at}.{leaf}");
        if !raw.dynamic_registration.unwrap_or(false) {
            let for_registration = [
                ("registration_token_file", raw.registration_token_file.is_some()),
                ("client_name", raw.client_name.is_some()),
            ];
            for (leaf, _) in for_registration.into_iter().filter(|(_, written)| *written) {
                let what = "is for a client that registers itself";
                self.error(&key(leaf), what, "add dynamic_registration = true, or remove it");
            }
            return None;
        }
        let written = [
            ("client_id", raw.client_id.is_some()),
            ("client_secret", raw.client_secret.is_some()),
            ("client_secret_file", raw.client_secret_file.is_some()),
        ];
        for (leaf, _) in written.into_iter().filter(|(_, written)| *written) {
            let what = "contradicts dynamic_registration: the provider gives it";
            self.error(&key(leaf), what, "remove one of them");
        }
        let token_file = raw.registration_token_file.as_ref().map(|path| {
            let path = self.file(&key("registration_token_file"), path);
            self.readable(&key("registration_token_file"), &path);
            path
        });
        let Some(state_dir) = state_dir else {
            let what = "is missing: the registration has to outlive a restart";
            self.error("state_dir", what, "name a folder that this process may write, such as \"/var/lib/vestibule\"");
            return None;
        };
        Some(RegistrationSettings {
            state_dir: state_dir.to_owned(),
            token_file,
            client_name: raw.client_name.clone().filter(|name| !name.trim().is_empty()),
            is_public: raw.public_client.unwrap_or(false),
        })
    }
}
