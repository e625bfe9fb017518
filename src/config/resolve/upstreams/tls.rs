//! `[upstream.tls]`.

use std::sync::Arc;

use rustls_pki_types::ServerName;

use super::super::Resolver;
use crate::config::problem::shown;
use crate::config::raw::RawUpstreamTls;
use crate::upstream::{Place, Tls, TlsSettings};

impl Resolver {
    /// `place` with whether it is https.
    pub(super) fn upstream_tls(
        &mut self,
        key: &str,
        written: Option<RawUpstreamTls>,
        place: Option<&(Place, bool)>,
    ) -> Option<Arc<Tls>> {
        let (place, is_https) = place?;
        if !is_https {
            if written.is_some() {
                self.error(key, "is set, and the url is not https", "write the url with https://, or leave this out");
            }
            return None;
        }
        let Place::Host { host, .. } = place else { return None };
        let raw = written.unwrap_or_default();
        let name = raw.server_name.unwrap_or_else(|| host.clone());
        let server_name = ServerName::try_from(name.clone());
        if server_name.is_err() {
            let what = format!("is {}, no name that a certificate can have", shown(&name));
            self.error(&format!("{key}.server_name"), what, "write a DNS name or an IP address");
        }
        let mut path = |leaf: &str, path: Option<std::path::PathBuf>| {
            let (key, path) = (format!("{key}.{leaf}"), path?);
            let path = self.file(&key, &path);
            Some(self.readable(&key, &path).then_some(path))
        };
        let ca_file = path("ca_file", raw.ca_file);
        let certificate = path("client_certificate_file", raw.client_certificate_file);
        let private_key = path("client_key_file", raw.client_key_file);
        let client_certificate = match (certificate, private_key) {
            (Some(certificate), Some(private_key)) => Some(certificate.zip(private_key)),
            (None, None) => None,
            (Some(_), None) => {
                self.missing(&format!("{key}.client_key_file"), "/run/secrets/client-key.pem");
                return None;
            }
            (None, Some(_)) => {
                self.missing(&format!("{key}.client_certificate_file"), "/run/secrets/client.pem");
                return None;
            }
        };
        // What could not be read has been told.
        if ca_file == Some(None) || client_certificate == Some(None) {
            return None;
        }
        let (ca_file, client_certificate) = (ca_file.flatten(), client_certificate.flatten());
        let reload_interval = TlsSettings::RELOAD_INTERVAL;
        match Tls::load(TlsSettings { ca_file, server_name: server_name.ok()?, client_certificate, reload_interval }) {
            Ok(tls) => Some(Arc::new(tls)),
            Err(error) => {
                let cause = crate::telemetry::chain(&error).to_string();
                self.error(key, format!("cannot be used: {cause}"), "name files in PEM that belong together");
                None
            }
        }
    }
}
