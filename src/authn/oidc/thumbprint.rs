//! The name of a key that follows from the key itself (RFC 7638; for OKP keys RFC 8037 §2).

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// SHA-256 over the required members, in order, base64url; `None` for a `kty` that we have no keys of, or where a member is
/// missing.
pub(super) fn thumbprint(jwk: &Map<String, Value>) -> Option<String> {
    let required: &[&str] = match jwk.get("kty")?.as_str()? {
        "RSA" => &["e", "kty", "n"],
        "EC" => &["crv", "kty", "x", "y"],
        "OKP" => &["crv", "kty", "x"],
        _ => return None,
    };
    let mut hashed = Map::new();
    for name in required {
        hashed.insert((*name).to_owned(), jwk.get(*name)?.as_str()?.into());
    }
    // §3.3: no white space, and the members in the order above.
    let hash = digest::digest(&digest::SHA256, Value::Object(hashed).to_string().as_bytes());
    Some(BASE64_URL_SAFE_NO_PAD.encode(hash))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::oidc::vectors::published;

    #[test]
    fn the_example_of_rfc_7638_has_its_thumbprint() {
        let key = published()["thumbprint"].as_object().unwrap().clone();
        assert_eq!(thumbprint(&key).unwrap(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    #[test]
    fn what_is_missing_leaves_no_thumbprint() {
        let mut key = published()["thumbprint"].as_object().unwrap().clone();
        key.remove("e");
        assert_eq!(thumbprint(&key), None);
        key.insert("kty".into(), "oct".into());
        assert_eq!(thumbprint(&key), None);
    }
}
