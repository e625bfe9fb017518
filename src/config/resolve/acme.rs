//! `[tls.acme]`.

use http::uri::Authority;

use super::Resolver;
use crate::acme::{Challenge, ExternalAccount, Settings};
use crate::config::problem::shown;
use crate::config::raw::{RawAcme, RawChallenge, RawConfig};
use crate::provider_http::is_protected;
use crate::secret::SecretString;
use crate::server::tls::Proofs;

const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

impl Resolver {
    pub(super) fn acme(&mut self, raw: &RawConfig) -> Option<Settings> {
        let acme = raw.tls.as_ref()?.acme.as_ref()?;
        let RawAcme { domains, contacts, directory, agree_to_terms, challenge, ca_file, .. } = acme;
        if cfg!(not(feature = "acme")) {
            let what = "is not in this build";
            self.error(
                "tls.acme",
                what,
                "build with the cargo feature acme, or name files: certificate_file and key_file",
            );
            return None;
        }
        let domains = self.domains(domains.as_deref());
        for contact in contacts.iter().flatten().filter(|contact| !contact.starts_with("mailto:")) {
            let what = format!("names {}, no mailto: address", shown(contact));
            self.error("tls.acme.contacts", what, "for example \"mailto:ops@example.com\"");
        }
        if *agree_to_terms != Some(true) {
            let what = "is not true: an authority gives certificates to those who agree to its terms of service";
            self.error("tls.acme.agree_to_terms", what, "read the terms, then write agree_to_terms = true");
        }
        let directory = match directory {
            Some(url) if !is_protected(url.0.0.scheme(), url.0.0.host_str().unwrap_or_default()) => {
                self.error("tls.acme.directory", "is not https", "write the authority's https address");
                return None;
            }
            Some(url) => url.0.0.to_string(),
            None => LETS_ENCRYPT.to_owned(),
        };
        let external_account = self.external_account(acme);
        let ca_file = ca_file.as_ref().map(|path| self.file("tls.acme.ca_file", path));
        if let Some(path) = &ca_file {
            self.readable("tls.acme.ca_file", path);
        }
        let Some(state_dir) = &raw.state_dir else {
            let what = "is missing: account and certificate have to outlive a restart";
            self.error("state_dir", what, "name a folder that this process may write, such as \"/var/lib/vestibule\"");
            return None;
        };
        Some(Settings {
            domains: domains?,
            contacts: contacts.clone().unwrap_or_default(),
            external_account,
            directory,
            challenge: match challenge {
                Some(RawChallenge::Http01) => Challenge::Http01,
                Some(RawChallenge::TlsAlpn01) | None => Challenge::TlsAlpn01,
            },
            ca_file,
            proofs: Proofs::default(),
            folder: self.file("state_dir", state_dir).join("acme"),
        })
    }

    fn external_account(&mut self, RawAcme { eab_key_id, eab_hmac_key_file, .. }: &RawAcme) -> Option<ExternalAccount> {
        const ID: &str = "tls.acme.eab_key_id";
        const KEY: &str = "tls.acme.eab_hmac_key_file";
        let (key_id, file) = match (eab_key_id, eab_hmac_key_file) {
            (None, None) => return None,
            (Some(id), Some(file)) => (id, file),
            (Some(_), None) => {
                self.error(
                    KEY,
                    "is missing beside eab_key_id",
                    "name the file with the key that the authority gave you",
                );
                return None;
            }
            (None, Some(_)) => {
                self.error(ID, "is missing beside eab_hmac_key_file", "write the key's id that the authority gave you");
                return None;
            }
        };
        if key_id.is_empty() {
            self.error(ID, "is empty", "write the key's id that the authority gave you");
        }
        let hmac_key = self.secret_file(KEY, file)?;
        if ExternalAccount::decode(&hmac_key).is_none() {
            self.error(
                KEY,
                "names a file that is not base64url",
                "write the key as the authority gave it, and nothing else",
            );
            return None;
        }
        Some(ExternalAccount { key_id: key_id.clone(), hmac_key: SecretString::new(hmac_key) })
    }

    fn domains(&mut self, written: Option<&[String]>) -> Option<Vec<String>> {
        let key = "tls.acme.domains";
        let example = "for example [\"app.example.com\"]";
        let Some(domains) = written.filter(|domains| !domains.is_empty()) else {
            self.error(key, "names no domain", example);
            return None;
        };
        let is_name = |domain: &str| {
            domain.parse::<Authority>().is_ok_and(|authority| authority.as_str() == authority.host())
                && domain.parse::<std::net::IpAddr>().is_err()
                && domain.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
        };
        for domain in domains.iter().filter(|domain| !is_name(domain)) {
            // RFC 8555 §7.1.3: a wildcard needs a proof by DNS.
            let what = format!("names {}, which is no host name that can be proven by http or TLS", shown(domain));
            self.error(key, what, example);
        }
        Some(domains.to_vec())
    }
}
