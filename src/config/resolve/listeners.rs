//! `listen`, `[[listeners]]` and `[tls]`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::HeaderName;

use super::Resolver;
use crate::acme::{Challenge, pair_file};
use crate::config::problem::shown;
use crate::config::raw::{
    RawClientCertificate, RawConfig, RawListener, RawListenerTls, RawPair, RawTls, RawTlsVersion,
};
use crate::config::walk::below;
use crate::server::tls::{self, CertificateField, Pair};
use crate::server::{Address, DEFAULT_MODE, Listener, Settings};

/// What the upstream gets to know of client certificates.
pub(super) type CertificateHeaders = [(HeaderName, CertificateField)];

impl Resolver {
    /// Where requests are taken: `listen`, then `[[listeners]]`; the default only where neither is written.
    pub(super) fn listeners(
        &mut self,
        raw: &RawConfig,
        headers: &CertificateHeaders,
        acme: Option<&crate::acme::Settings>,
    ) -> Vec<Listener> {
        let common = raw.tls.as_ref().and_then(|written| self.tls("tls", written, headers, acme));
        let has_common = raw.tls.is_some();
        let mut listeners = Vec::new();
        if let Some(address) = &raw.listen {
            listeners.push(Listener { tls: common.clone(), ..Listener::plain(Address::Tcp(address.0)) });
        } else if raw.listeners.is_empty() {
            let mut default = Settings::default().listeners;
            default.iter_mut().for_each(|listener| listener.tls = common.clone());
            listeners.append(&mut default);
        }
        for (index, written) in raw.listeners.iter().enumerate() {
            let key = format!("listeners[{index}]");
            let tls = match &written.tls {
                None | Some(RawListenerTls::Switch(true)) if has_common => common.clone(),
                None | Some(RawListenerTls::Switch(false)) => None,
                Some(RawListenerTls::Switch(true)) => {
                    let what = "is true, but there is no [tls] section that says with which certificate";
                    self.error(&below(&key, "tls"), what, "add [tls] with certificate_file and key_file");
                    None
                }
                Some(RawListenerTls::Own(own)) => self.tls(&below(&key, "tls"), own, headers, None),
            };
            let listener = self.listener(&key, written, tls);
            let repeated = |other: &&Listener| other.address == listener.address && !any_port(&listener.address);
            if listeners.iter().find(repeated).is_some() {
                let what = format!("is {}, where another listener is", listener.address);
                self.error(&below(&key, "address"), what, "give each listener an address of its own");
            }
            listeners.push(listener);
        }
        let used = |tls: &Arc<tls::Settings>| listeners.iter().any(|listener| listener.tls.as_ref() == Some(tls));
        if common.as_ref().is_some_and(|common| !used(common)) {
            self.warn("tls", "is used by no listener", "remove it, or write tls = true in one of [[listeners]]");
        }
        let asks = |listener: &Listener| listener.tls.as_ref().is_some_and(|tls| tls.client_ca_file.is_some());
        let written = raw.tls.iter().any(|tls| tls.client_ca_file.is_some());
        if let Some((name, _)) = headers.first().filter(|_| !written && !listeners.iter().any(asks)) {
            let key = self.identity_header_key(name);
            let what = "is filled from client certificates, and no listener asks for one";
            self.error(&key, what, "name the CA of your clients: client_ca_file in [tls]");
        }
        listeners
    }

    fn listener(&mut self, key: &str, written: &RawListener, tls: Option<Arc<tls::Settings>>) -> Listener {
        let address = match &written.address.0 {
            // Relative as every other path is.
            Address::Unix(path) => Address::Unix(self.file(&below(key, "address"), path)),
            tcp => tcp.clone(),
        };
        let mode_key = below(key, "mode");
        let mode = match &written.mode {
            None => DEFAULT_MODE,
            Some(_) if address.tcp().is_some() => {
                self.error(&mode_key, "says who may connect to a unix socket, and this is none", "remove it");
                DEFAULT_MODE
            }
            Some(text) => octal(text).unwrap_or_else(|| {
                let what = format!("is {}, no file permissions", shown(text));
                self.error(&mode_key, what, "write three or four octal digits, such as \"0660\"");
                DEFAULT_MODE
            }),
        };
        let networks = written.proxy_protocol_from.iter().flatten();
        let proxy_protocol_from: Vec<_> = networks.map(|network| network.0.trunc()).collect();
        if proxy_protocol_from.iter().any(|network| network.prefix_len() == 0) {
            self.warn(
                &below(key, "proxy_protocol_from"),
                "trusts every address: whoever connects can claim any client address",
                "name the networks of your balancers",
            );
        }
        Listener { address, mode, tls, proxy_protocol_from }
    }

    /// `acme`: where the first certificate comes from an authority.
    fn tls(
        &mut self,
        key: &str,
        written: &RawTls,
        headers: &CertificateHeaders,
        acme: Option<&crate::acme::Settings>,
    ) -> Option<Arc<tls::Settings>> {
        let RawTls {
            certificate_file,
            key_file,
            certificates,
            client_ca_file,
            client_crl_file,
            client_certificate,
            min_version,
            ..
        } = written;
        let first = match &written.acme {
            None => self.pair(key, certificate_file.as_ref(), key_file.as_ref()),
            // Told where it is read.
            Some(_) if acme.is_none() && key == "tls" => return None,
            Some(_) => {
                for (leaf, _) in [("certificate_file", certificate_file), ("key_file", key_file)]
                    .iter()
                    .filter(|(_, file)| file.is_some())
                {
                    let what = "contradicts acme, which gets the first certificate from an authority";
                    self.error(&below(key, leaf), what, "remove one of them, or move the file into certificates");
                }
                if key != "tls" {
                    let what = "is for the section [tls] alone";
                    self.error(
                        &below(key, "acme"),
                        what,
                        "write [tls.acme]; listeners use it unless they say otherwise",
                    );
                }
                acme.map(|acme| {
                    let file = pair_file(&acme.folder);
                    Pair { certificate_file: file.clone(), key_file: file }
                })
            }
        };
        let mut pairs = vec![first];
        for (index, RawPair { certificate_file, key_file }) in certificates.iter().enumerate() {
            let key = format!("{}[{index}]", below(key, "certificates"));
            pairs.push(self.pair(&key, certificate_file.as_ref(), key_file.as_ref()));
        }
        if client_certificate.is_some() && client_ca_file.is_none() {
            let what = "asks for client certificates, and nothing says who signs them";
            self.error(&below(key, "client_certificate"), what, "name the CA's certificate in client_ca_file");
        }
        if client_crl_file.is_some() && client_ca_file.is_none() {
            let what = "tells of revoked client certificates, and nothing says who signs them";
            self.error(&below(key, "client_crl_file"), what, "name the CA's certificate in client_ca_file");
        }
        let client_crl_file = client_crl_file.as_ref().map(|path| self.file(&below(key, "client_crl_file"), path));
        let client_ca_file = client_ca_file.as_ref().map(|path| self.file(&below(key, "client_ca_file"), path));
        let settings = tls::Settings {
            certificates: pairs.into_iter().collect::<Option<Vec<_>>>()?,
            client_ca_file,
            client_crl_file,
            client_certificate_required: *client_certificate != Some(RawClientCertificate::Optional),
            only_tls13: *min_version == Some(RawTlsVersion::Tls13),
            proofs: acme.and_then(|acme| (acme.challenge == Challenge::TlsAlpn01).then(|| acme.proofs.clone())),
            headers: headers.to_vec(),
        };
        // An authority's certificate may still have to be ordered.
        if acme.is_none() {
            self.check_files(key, &settings);
        }
        Some(Arc::new(settings))
    }

    fn pair(&mut self, key: &str, certificate: Option<&PathBuf>, private: Option<&PathBuf>) -> Option<Pair> {
        let (certificate_key, private_key) = (below(key, "certificate_file"), below(key, "key_file"));
        if certificate.is_none() {
            self.missing(&certificate_key, "/run/secrets/tls/tls.crt");
        }
        if private.is_none() {
            self.missing(&private_key, "/run/secrets/tls/tls.key");
        }
        let certificate_file = self.file(&certificate_key, certificate?);
        Some(Pair { certificate_file, key_file: self.file(&private_key, private?) })
    }

    fn check_files(&mut self, key: &str, settings: &tls::Settings) {
        for pair in &settings.certificates {
            self.warn_of_readers(key, &pair.key_file);
        }
        match tls::check(settings) {
            Err(problems) => {
                for problem in problems {
                    let what = format!("names {}, which {}", problem.file.display(), problem.what);
                    self.error(&format!("{key}.{}", problem.key), what, problem.fix);
                }
            }
            Ok(certificates) => {
                // A clock before 1970 is nobody's certificate's fault.
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                for certificate in certificates.iter().filter(|certificate| certificate.expires_at <= now) {
                    let what = "names a certificate that has expired: clients will refuse it";
                    self.warn(
                        &format!("{key}.{}", certificate.key),
                        what,
                        "renew it; it is taken in without a restart",
                    );
                }
            }
        }
    }

    fn warn_of_readers(&mut self, key: &str, file: &Path) {
        let Ok(found) = std::fs::metadata(file) else { return };
        if found.permissions().mode() & 0o004 != 0 {
            let what = format!("can be read by every user of this machine: {}", file.display());
            self.warn(&below(key, "key_file"), what, "chmod 0640, or defaultMode: 0440 of a Kubernetes secret volume");
        }
    }

    /// As it was written: TOML keeps the case that a header name has not.
    fn identity_header_key(&self, name: &HeaderName) -> String {
        let is_it = |key: &&String| {
            key.strip_prefix("identity.headers.")
                .is_some_and(|rest| rest.trim_matches('"').eq_ignore_ascii_case(name.as_str()))
        };
        self.places.keys().find(is_it).cloned().unwrap_or_else(|| "identity.headers".to_owned())
    }
}

fn any_port(address: &Address) -> bool {
    address.tcp().is_some_and(|address| address.port() == 0)
}

fn octal(text: &str) -> Option<u32> {
    let digits = (3..=4).contains(&text.len()) && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    digits.then(|| u32::from_str_radix(text, 8).ok()).flatten().filter(|mode| *mode <= 0o777)
}
