//! Whole configurations: layers, derivations, and every rule across keys.

mod cookie;
mod examples;
mod identity;
mod layers;
mod provider;
mod routes;
mod secrets;
mod server;
mod upstreams;

use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::authn::oidc::jose::Algorithm;
use crate::authn::roles::{ClaimPath, HeaderSource};
use crate::route::{Access, Endpoint};
use crate::upstream::{Place, Protocol};

const SECRET: &str = "k7Rw2vXq9LmTz4NcYb8HfJd3GsPa6Ue1";
const OTHER: &str = "Zt5Bn8Wq1Xc4Vm7Lk0Jh3Gf6Ds9Ap2Oy";

/// A whole configuration in which one section can be replaced or added.
fn minimal() -> Vec<(&'static str, String)> {
    vec![
        (
            "provider",
            "issuer = \"https://id.example.com\"\nclient_id = \"app\"\nclient_secret = \"s3cr3t\"\n\
             redirect_uri = \"https://app.example.com/auth/callback\"\n"
                .to_owned(),
        ),
        ("session", format!("secret = \"{SECRET}\"\n")),
        ("upstream", "url = \"http://127.0.0.1:3000\"\n".to_owned()),
    ]
}

fn with(changes: &[(&str, &str)]) -> String {
    let mut sections: Vec<(String, String)> =
        minimal().into_iter().map(|(name, text)| (name.to_owned(), text)).collect();
    let mut top = String::new();
    for (name, lines) in changes {
        if name.is_empty() {
            top += lines;
        } else if let Some((_, text)) = sections.iter_mut().find(|(section, _)| section == name) {
            // A line replaces the one of the same key.
            for line in lines.lines() {
                let key = line.split('=').next().unwrap_or_default().trim();
                let others = text.lines().filter(|old| old.split('=').next().unwrap_or_default().trim() != key);
                *text = others.map(|line| format!("{line}\n")).collect::<String>() + line + "\n";
            }
        } else {
            sections.push(((*name).to_owned(), (*lines).to_owned()));
        }
    }
    let header = |name: &str| if name == "routes" { "[[routes]]".to_owned() } else { format!("[{name}]") };
    top + "\n" + &sections.iter().map(|(name, text)| format!("{}\n{text}\n", header(name))).collect::<String>()
}

/// Without compiling routes and templates: those have tests of their own.
fn read(sources: &Sources) -> Result<Loaded, Vec<ConfigProblem>> {
    load_with(sources, |_, _| Vec::new())
}

fn settings(changes: &[(&str, &str)]) -> Settings {
    match read(&Sources::toml(&with(changes))) {
        Ok(loaded) => loaded.settings,
        Err(problems) => panic!("{}", all(&problems)),
    }
}

fn warnings(changes: &[(&str, &str)]) -> String {
    match read(&Sources::toml(&with(changes))) {
        Ok(loaded) => all(&loaded.warnings),
        Err(problems) => panic!("{}", all(&problems)),
    }
}

fn errors(changes: &[(&str, &str)]) -> String {
    match read(&Sources::toml(&with(changes))) {
        Ok(_) => panic!("no error from {changes:?}"),
        Err(problems) => all(&problems),
    }
}

fn all(problems: &[ConfigProblem]) -> String {
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

const ENOUGH: [(&str, &str); 6] = [
    ("OIDC_ISSUER", "https://id.example.com"),
    ("OIDC_CLIENT_ID", "12345"),
    ("OIDC_CLIENT_SECRET", "67890"),
    ("OIDC_REDIRECT_URI", "https://app.example.com/auth/callback"),
    ("SESSION_SECRET", SECRET),
    ("VESTIBULE_UPSTREAM", "http://app:3000"),
];

/// A folder of its own for one test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let name = format!("vestibule-config-{}", generate_secret().unwrap());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A folder with a certificate, its key, and another key.
fn tls_files() -> &'static Path {
    static FOLDER: std::sync::OnceLock<tempfile::TempDir> = std::sync::OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["app.example.com".to_owned()]).unwrap();
        let other = rcgen::KeyPair::generate().unwrap();
        let mut expired = rcgen::CertificateParams::new(["app.example.com".to_owned()]).unwrap();
        expired.not_after = rcgen::date_time_ymd(2020, 1, 1);
        let expired = expired.self_signed(&made.signing_key).unwrap();
        let revoked = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2020, 1, 1),
            next_update: rcgen::date_time_ymd(2020, 2, 1),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        let issuer = rcgen::Issuer::new(rcgen::CertificateParams::default(), &made.signing_key);
        let revoked = revoked.signed_by(&issuer).unwrap();
        for (name, text) in [
            ("tls.crt", made.cert.pem()),
            ("tls.key", made.signing_key.serialize_pem()),
            ("www.crt", made.cert.pem()),
            ("www.key", made.signing_key.serialize_pem()),
            ("clients.crt", made.cert.pem()),
            ("clients.crl", revoked.pem().unwrap()),
            ("expired.crt", expired.pem()),
            ("other.key", other.serialize_pem()),
            ("open.key", made.signing_key.serialize_pem()),
            ("empty", String::new()),
        ] {
            use std::os::unix::fs::PermissionsExt as _;
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            let mode = if name == "open.key" { 0o644 } else { 0o600 };
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        folder
    });
    folder.path()
}
