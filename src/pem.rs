//! Certificates and keys in PEM (RFC 7468). No error tells what a file holds: it may be another than was meant.

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

/// What a file lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lack {
    /// It is not PEM.
    Pem,
    /// It is, and holds no certificate.
    Certificate,
    /// It holds no list of revoked certificates.
    RevocationList,
    /// It holds no private key that can be used without a password.
    Key,
}

/// Every certificate, of which there is at least one, in the file's order.
pub(crate) fn certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, Lack> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(Lack::Certificate),
        Err(_) => Err(Lack::Pem),
    }
}

/// Every list of revoked certificates, of which there is at least one, in the file's order.
pub(crate) fn revocation_lists(bytes: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, Lack> {
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(Lack::RevocationList),
        Err(_) => Err(Lack::Pem),
    }
}

/// The first private key.
pub(crate) fn private_key(bytes: &[u8]) -> Result<PrivateKeyDer<'static>, Lack> {
    PrivateKeyDer::from_pem_slice(bytes).map_err(|_| Lack::Key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_lacks_is_told_apart() {
        for (bytes, certificates_lack) in [
            (&b""[..], Lack::Certificate),
            (b"-----BEGIN whisper\n", Lack::Pem),
            (b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", Lack::Pem),
            (b"-----BEGIN CERTIFICATE-----\nwhisper", Lack::Pem),
        ] {
            assert_eq!(certificates(bytes).unwrap_err(), certificates_lack);
            assert_eq!(private_key(bytes).unwrap_err(), Lack::Key);
            let lists_lack = if certificates_lack == Lack::Pem { Lack::Pem } else { Lack::RevocationList };
            assert_eq!(revocation_lists(bytes).unwrap_err(), lists_lack);
        }
    }
}
