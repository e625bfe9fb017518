//! What our private keys at a provider open.

use super::Resolver;
use crate::authn::oidc::decryption::Decryption;
use crate::config::problem::{nearest, shown};
use crate::config::raw::RawProvider;
use crate::config::shape::one_of;

impl Resolver {
    pub(super) fn decryption(
        &mut self,
        at: &str,
        raw: &mut RawProvider,
        has_keys: bool,
        has_secret: bool,
    ) -> Decryption {
        let key = format!("{at}.decryption_algs");
        let mut decryption = Decryption::default();
        if let Some(names) = raw.decryption_algs.take() {
            if names.is_empty() {
                self.error(&key, "is an empty list: nothing could ever be decrypted", "name algorithms, or remove it");
            }
            match decryption.clone().with_algorithms(&names) {
                Ok(named) => decryption = named,
                Err(unknown) => {
                    let known = Decryption::known_algorithms();
                    let fix = match nearest(unknown, known.iter().copied()) {
                        Some(near) => format!("did you mean {near:?}?"),
                        None => format!("write {}", one_of(&known)),
                    };
                    self.error(&key, format!("names {}, which is not known", shown(unknown)), fix);
                }
            }
            if decryption.uses_the_secret() && !has_secret {
                self.error(
                    &key,
                    "names an algorithm that needs a client secret",
                    "add the client secret, or remove it",
                );
            }
        }
        decryption.required = raw.require_encrypted_id_token.unwrap_or(false);
        if decryption.required && !has_keys && !decryption.uses_the_secret() {
            let what = "asks for encryption that nothing here could open";
            self.error(&format!("{at}.require_encrypted_id_token"), what, "add client_keys_files");
        }
        decryption
    }
}
