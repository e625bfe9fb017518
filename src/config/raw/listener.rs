//! The listeners and their TLS, as they are written.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::text::{Network, Place, WebUrl};

/// One more place where requests are taken.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawListener {
    /// An address and port, or unix: and the path of a socket.
    pub address: Place,
    /// Who may connect to a unix socket, in octal digits. Default 0660.
    #[schemars(example = &"0660")]
    pub mode: Option<String>,
    /// TLS as in [tls], none, or a section of its own. Default: as in [tls], where there is one.
    #[schemars(example = false)]
    pub tls: Option<RawListenerTls>,
    /// Networks whose connections begin with a PROXY protocol header (version 1 or 2). Default none.
    #[schemars(example = ["10.0.0.0/8"])]
    pub proxy_protocol_from: Option<Vec<Network>>,
}

/// A listener's TLS.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::config) enum RawListenerTls {
    /// As in [tls], or none.
    Switch(bool),
    /// Its own.
    Own(Box<RawTls>),
}

/// TLS towards clients.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawTls {
    /// The certificate and those that lead to its root (PEM).
    #[schemars(example = &"/run/secrets/tls/tls.crt")]
    pub certificate_file: Option<PathBuf>,
    /// The certificate's key (PEM).
    #[schemars(example = &"/run/secrets/tls/tls.key")]
    pub key_file: Option<PathBuf>,
    /// Get the certificate from an authority that speaks ACME, such as Let's Encrypt, instead of from files.
    pub acme: Option<RawAcme>,
    /// Further certificates, for clients that ask for a name in them.
    #[serde(default)]
    pub certificates: Vec<RawPair>,
    /// Who signs the certificates of clients (PEM). Default: clients are not asked for one.
    #[schemars(example = &"/run/secrets/clients/ca.crt")]
    pub client_ca_file: Option<PathBuf>,
    /// Which of those certificates are revoked (PEM): a list of each CA that signs them. Default: none are.
    #[schemars(example = &"/run/secrets/clients/ca.crl")]
    pub client_crl_file: Option<PathBuf>,
    /// Whether a client may come without a certificate. Default required, where there is a client_ca_file.
    #[schemars(example = &"required")]
    pub client_certificate: Option<RawClientCertificate>,
    /// The oldest version of TLS. Default 1.2.
    #[schemars(example = &"1.2")]
    pub min_version: Option<RawTlsVersion>,
}

/// A certificate from an authority that speaks ACME (RFC 8555).
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawAcme {
    /// The names in the certificate. Each must lead to this process.
    #[schemars(example = ["app.example.com"])]
    pub domains: Option<Vec<String>>,
    /// Where the authority sends warnings.
    #[schemars(example = ["mailto:ops@example.com"])]
    pub contacts: Option<Vec<String>>,
    /// The name of a key that the authority gave you, where it takes nobody whom it does not know (external account binding).
    #[schemars(example = &"kid-1")]
    pub eab_key_id: Option<String>,
    /// That key, as the authority wrote it (base64url).
    #[schemars(example = &"/run/secrets/acme/eab")]
    pub eab_hmac_key_file: Option<PathBuf>,
    /// The authority's directory. Default: Let's Encrypt's.
    #[schemars(example = &"https://acme-v02.api.letsencrypt.org/directory")]
    pub directory: Option<WebUrl>,
    /// You agree to the authority's terms of service.
    #[schemars(example = true)]
    pub agree_to_terms: Option<bool>,
    /// How the authority looks whether the names are yours: by TLS on port 443, or by http on port 80. Default tls-alpn-01.
    #[schemars(example = &"tls-alpn-01")]
    pub challenge: Option<RawChallenge>,
    /// Extra roots (PEM) for connections to the authority, beside the system's.
    #[schemars(example = &"/etc/ssl/company.pem")]
    pub ca_file: Option<PathBuf>,
}

/// How the authority looks whether a name is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub(in crate::config) enum RawChallenge {
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
    #[serde(rename = "http-01")]
    Http01,
}

/// One more certificate.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawPair {
    /// The certificate and those that lead to its root (PEM).
    #[schemars(example = &"/run/secrets/www/tls.crt")]
    pub certificate_file: Option<PathBuf>,
    /// The certificate's key (PEM).
    #[schemars(example = &"/run/secrets/www/tls.key")]
    pub key_file: Option<PathBuf>,
}

/// Whether clients need a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum RawClientCertificate {
    Optional,
    Required,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub(in crate::config) enum RawTlsVersion {
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}
