//! Private keys in PEM (RFC 7468): PKCS #8 (RFC 5958), PKCS #1 (RFC 8017 A.1.2) and SEC 1 (RFC 5915). Certificates and
//! parameters that stand beside them are passed over.

use rustls_pki_types::pem::{PemObject, SectionKind};
use zeroize::Zeroizing;

use super::Described;
use super::material::Material;

/// What is wrong is the rest of a sentence that begins with the file's name.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<Described>, String> {
    let mut keys = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(bytes) {
        // The parser's own words could show what it read.
        let (kind, der) = section.map_err(|_| "is neither PEM nor JSON")?;
        let der = Zeroizing::new(der);
        let material = match kind {
            SectionKind::PrivateKey => Material::from_pkcs8(&der),
            SectionKind::RsaPrivateKey => Material::rsa_from_der(&der),
            SectionKind::EcPrivateKey => Material::ec_from_der(&der),
            _ => continue,
        };
        keys.push(material.map_err(|why| format!("holds a private key that cannot be used: {why}"))?.into());
    }
    if keys.is_empty() {
        return Err(
            "holds no private key: name a PEM file with an unencrypted -----BEGIN PRIVATE KEY-----, or a JWK".into()
        );
    }
    Ok(keys)
}
