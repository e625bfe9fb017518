//! A short hash of everything that changes what [`Settings`] make of the same claims.

use aws_lc_rs::digest;

use super::{ClaimPath, HeaderSource, ListFormat, Settings};

/// Bytes of a fingerprint: it tells configurations of one operator apart, and is no secret.
pub const FINGERPRINT_BYTES: usize = 8;

/// The fingerprint changes with this too: raise it with every change to what the same settings make of the same claims.
const MAPPING_VERSION: u64 = 1;

pub(super) fn of(settings: &Settings) -> [u8; FINGERPRINT_BYTES] {
    // Taken apart in full, so that a new setting cannot be forgotten here.
    let Settings {
        name_claim,
        roles_claims,
        role_mapping,
        individual_roles,
        several_providers,
        default_roles,
        headers,
        list_format,
        trust_unverified_email,
        userinfo_claims,
    } = settings;
    let mut hash = Fingerprint(digest::Context::new(&digest::SHA256));
    hash.number(MAPPING_VERSION);
    hash.path(name_claim);
    hash.each(roles_claims.iter(), Fingerprint::path);
    hash.each(role_mapping.iter(), |hash, mapping| hash.each(mapping.iter(), Fingerprint::entry));
    hash.each(individual_roles.iter(), Fingerprint::entry);
    hash.each(default_roles.iter(), |hash, role| hash.text(role));
    hash.each(headers.iter(), |hash, (name, source)| {
        hash.text(name.as_str());
        hash.source(source);
    });
    hash.number(match list_format {
        ListFormat::Comma => 0,
        ListFormat::Json => 1,
    });
    hash.number(u64::from(*trust_unverified_email));
    hash.each(userinfo_claims.iter(), |hash, name| hash.text(name));
    if *several_providers {
        hash.number(1);
    }
    hash.finish()
}

/// Length-delimited, so that no two settings feed it the same bytes.
struct Fingerprint(digest::Context);

impl Fingerprint {
    fn number(&mut self, number: u64) {
        self.0.update(&number.to_be_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.update(text.as_bytes());
    }

    fn each<T>(&mut self, items: impl ExactSizeIterator<Item = T>, mut add: impl FnMut(&mut Self, T)) {
        self.number(items.len() as u64);
        items.for_each(|item| add(self, item));
    }

    fn path(&mut self, path: &ClaimPath) {
        self.each(path.0.iter(), |hash, name| hash.text(name));
    }

    fn entry(&mut self, (key, roles): (&String, &Vec<String>)) {
        self.text(key);
        self.each(roles.iter(), |hash, role| hash.text(role));
    }

    fn source(&mut self, source: &HeaderSource) {
        match source {
            HeaderSource::Name => self.number(0),
            HeaderSource::Roles => self.number(1),
            HeaderSource::Groups => self.number(2),
            HeaderSource::Email => self.number(3),
            HeaderSource::Provider => self.number(5),
            HeaderSource::Claim(path) => {
                self.number(4);
                self.path(path);
            }
        }
    }

    fn finish(self) -> [u8; FINGERPRINT_BYTES] {
        let digest = self.0.finish();
        let mut fingerprint = [0; FINGERPRINT_BYTES];
        for (byte, from) in fingerprint.iter_mut().zip(digest.as_ref()) {
            *byte = *from;
        }
        fingerprint
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use http::HeaderName;

    use super::*;

    fn path(names: &[&str]) -> ClaimPath {
        ClaimPath(names.iter().map(|&name| name.to_owned()).collect())
    }

    fn roles(key: &str, roles: &[&str]) -> BTreeMap<String, Vec<String>> {
        BTreeMap::from([(key.to_owned(), roles.iter().map(|&role| role.to_owned()).collect())])
    }

    #[test]
    fn the_same_settings_have_the_same_fingerprint_on_every_machine() {
        assert_eq!(of(&Settings::default()), of(&Settings::default()));
        // Written down: another value here means that every session in the field is mapped anew.
        assert_eq!(of(&Settings::default()), [152, 185, 50, 2, 28, 81, 205, 33]);
    }

    #[test]
    fn every_setting_changes_the_fingerprint() {
        let changes: [fn(&mut Settings); 19] = [
            |_| (),
            |s| s.name_claim = path(&["email"]),
            |s| s.roles_claims = vec![],
            |s| s.roles_claims = vec![path(&["ab", "c"])],
            |s| s.roles_claims = vec![path(&["a", "bc"])],
            |s| s.roles_claims = vec![path(&["ab"]), path(&["c"])],
            |s| s.role_mapping = Some(BTreeMap::new()),
            |s| s.role_mapping = Some(roles("a", &["b"])),
            |s| s.role_mapping = Some(roles("a", &["b", "c"])),
            |s| s.individual_roles = roles("a", &["b"]),
            |s| s.default_roles = vec!["a".to_owned()],
            |s| s.headers.truncate(1),
            |s| s.headers[0].0 = HeaderName::from_static("x-user"),
            |s| s.headers[0].1 = HeaderSource::Claim(path(&["sub"])),
            |s| s.list_format = ListFormat::Json,
            |s| s.headers[0].1 = HeaderSource::Provider,
            |s| s.several_providers = true,
            |s| s.trust_unverified_email = true,
            |s| s.userinfo_claims.truncate(1),
        ];
        let mut seen = std::collections::HashSet::new();
        for (index, change) in changes.into_iter().enumerate() {
            let mut settings = Settings::default();
            change(&mut settings);
            assert!(seen.insert(of(&settings)), "change {index} made no difference");
        }
    }
}
