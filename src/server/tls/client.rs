//! What a client's certificate says, as header values.

use std::fmt::Write as _;
use std::net::IpAddr;

use http::{HeaderName, HeaderValue};
use x509_parser::asn1_rs::{Any, Tag, ToDer as _};
use x509_parser::error::X509Error;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use crate::authn::roles::{MAX_HEADER_BYTES, encode_list, encode_value};

/// What of a certificate can stand in a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateField {
    /// The subject's distinguished name as RFC 4514 writes it.
    Subject,
    /// The subject alternative names as a list: `DNS:`, `email:`, `URI:`, `IP:` and `dirName:`; other kinds are left out.
    AlternativeNames,
}

/// Why a certificate that its CA signed is refused all the same.
#[derive(Debug, thiserror::Error)]
pub(in crate::server) enum Unreadable {
    /// It is not X.509, or an extension of it is not.
    #[error("the certificate cannot be read")]
    Malformed,
    /// A header would be longer than [`MAX_HEADER_BYTES`].
    #[error("the certificate's names are longer than {MAX_HEADER_BYTES} bytes")]
    TooLong,
}

/// Reads a certificate whose chain was verified: the headers that tell of it.
pub(in crate::server) fn read(
    der: &[u8],
    wanted: &[(HeaderName, CertificateField)],
) -> Result<Vec<(HeaderName, HeaderValue)>, Unreadable> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| Unreadable::Malformed)?;
    let mut headers = Vec::with_capacity(wanted.len());
    for (name, field) in wanted {
        let value = match field {
            CertificateField::Subject => {
                let subject = distinguished_name(certificate.subject());
                (!subject.is_empty()).then(|| encode_value(&subject))
            }
            CertificateField::AlternativeNames => {
                let names = alternative_names(&certificate).map_err(|_| Unreadable::Malformed)?;
                encode_list(names.iter().map(String::as_str))
            }
        };
        let Some(value) = value else { continue };
        if value.len() > MAX_HEADER_BYTES {
            return Err(Unreadable::TooLong);
        }
        // Encoded values are visible ASCII.
        headers.push((name.clone(), HeaderValue::try_from(value).map_err(|_| Unreadable::Malformed)?));
    }
    Ok(headers)
}

/// The DNS names of a server's certificate, lower case.
pub(super) fn dns_names(certificate: &X509Certificate<'_>) -> Result<Vec<String>, X509Error> {
    let names = general_names(certificate)?;
    let dns = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    };
    Ok(names.iter().filter_map(dns).collect())
}

fn general_names<'a>(certificate: &'a X509Certificate<'a>) -> Result<&'a [GeneralName<'a>], X509Error> {
    let extension = certificate.subject_alternative_name()?;
    Ok(extension.map_or(&[], |extension| &extension.value.general_names))
}

fn alternative_names(certificate: &X509Certificate<'_>) -> Result<Vec<String>, X509Error> {
    let text = |name: &GeneralName<'_>| {
        Ok(Some(match name {
            GeneralName::DNSName(name) => format!("DNS:{name}"),
            GeneralName::RFC822Name(name) => format!("email:{name}"),
            GeneralName::URI(name) => format!("URI:{name}"),
            GeneralName::DirectoryName(name) => format!("dirName:{}", distinguished_name(name)),
            GeneralName::IPAddress(bytes) => format!("IP:{}", address(bytes).ok_or(X509Error::InvalidExtensions)?),
            GeneralName::OtherName(..)
            | GeneralName::X400Address(_)
            | GeneralName::EDIPartyName(_)
            | GeneralName::RegisteredID(_) => return Ok(None),
            // Nobody can say what it was meant to be.
            GeneralName::Invalid(..) => return Err(X509Error::InvalidExtensions),
        }))
    };
    general_names(certificate)?.iter().filter_map(|name| text(name).transpose()).collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// RFC 4514 §2: the last part first.
fn distinguished_name(name: &X509Name<'_>) -> String {
    let parts: Vec<_> = name.iter_rdn().collect();
    let part = |attributes: Vec<String>| attributes.join("+");
    parts.into_iter().rev().map(|rdn| part(rdn.iter().map(attribute).collect())).collect::<Vec<_>>().join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid = attribute.attr_type().to_id_string();
    let name = SHORT_NAMES.iter().find(|(known, _)| *known == oid).map(|(_, name)| *name);
    let text = name.and_then(|_| text(attribute.attr_value()));
    match (name, text) {
        (Some(name), Some(text)) => format!("{name}={}", escaped(&text)),
        // §2.4: whatever has no name, or is no text, is written as the bytes that stand there.
        (name, _) => {
            let der = attribute.attr_value().to_der_vec().unwrap_or_default();
            let mut hex = String::with_capacity(der.len() * 2);
            for byte in der {
                // Writing to a String cannot fail.
                let _ = write!(hex, "{byte:02x}");
            }
            format!("{}=#{hex}", name.unwrap_or(&oid))
        }
    }
}

/// RFC 4514 §3.
const SHORT_NAMES: [(&str, &str); 9] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
];

fn text(value: &Any<'_>) -> Option<String> {
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString | Tag::VisibleString => {
            std::str::from_utf8(value.data).ok().map(str::to_owned)
        }
        Tag::BmpString => {
            let (units, rest) = value.data.as_chunks::<2>();
            let units: Vec<u16> = units.iter().map(|unit| u16::from_be_bytes(*unit)).collect();
            String::from_utf16(&units).ok().filter(|_| rest.is_empty())
        }
        _ => None,
    }
}

/// RFC 4514 §2.4. A NUL is written out, as everything is: nothing ends a name early (CVE-2026-47778).
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let last = text.len().saturating_sub(1);
    for (at, character) in text.char_indices() {
        match character {
            '\0' => escaped.push_str("\\00"),
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => escaped.extend(['\\', character]),
            ' ' if at == 0 || at == last => escaped.push_str("\\ "),
            '#' if at == 0 => escaped.push_str("\\#"),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, SanType};

    use super::*;

    fn values(change: impl FnOnce(&mut CertificateParams)) -> Vec<Option<String>> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        change(&mut params);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let wanted = [
            (HeaderName::from_static("x-subject"), CertificateField::Subject),
            (HeaderName::from_static("x-san"), CertificateField::AlternativeNames),
        ];
        let read = read(certificate.der(), &wanted).unwrap();
        let find = |wanted: &HeaderName| {
            let found = read.iter().find(|(name, _)| name == wanted);
            found.map(|(_, value)| value.to_str().unwrap().to_owned())
        };
        wanted.iter().map(|(name, _)| find(name)).collect()
    }

    #[test]
    fn a_subject_is_written_as_rfc_4514_says() {
        let [subject, names] = values(|params| {
            let name = &mut params.distinguished_name;
            name.push(DnType::CountryName, "DE");
            name.push(DnType::OrganizationName, "Müller, Söhne + \"Co\"");
            name.push(DnType::OrganizationalUnitName, DnValue::BmpString("R<&D>".try_into().unwrap()));
            name.push(DnType::CommonName, " #ada\\ ");
            name.push(DnType::CustomDnType(vec![1, 2, 840, 113549, 1, 9, 1]), "a@b");
        })
        .try_into()
        .unwrap();
        assert_eq!(
            subject.unwrap(),
            "1.2.840.113549.1.9.1=#0c03614062,CN=\\ #ada\\\\\\ ,OU=R\\<&D\\>,O=M%C3%BCller\\, S%C3%B6hne \\+ \\\"Co\\\",C=DE"
        );
        assert_eq!(names, None);
    }

    #[test]
    fn nul_and_control_bytes_neither_end_a_name_nor_add_a_line() {
        let [subject, names] = values(|params| {
            params.distinguished_name.push(DnType::CommonName, "admin\0.evil\r\nX-Role: root");
            params.subject_alt_names = vec![
                SanType::DnsName("admin\0.evil.example".try_into().unwrap()),
                SanType::Rfc822Name("a,b\r\n@example.com".try_into().unwrap()),
            ];
        })
        .try_into()
        .unwrap();
        assert_eq!(subject.unwrap(), "CN=admin\\00.evil%0D%0AX-Role: root");
        assert_eq!(names.unwrap(), "DNS:admin%00.evil.example,email:a%2Cb%0D%0A@example.com");
    }

    #[test]
    fn alternative_names_say_their_kind() {
        let [subject, names] = values(|params| {
            params.subject_alt_names = vec![
                SanType::DnsName("a.example.com".try_into().unwrap()),
                SanType::URI("spiffe://example.com/app".try_into().unwrap()),
                SanType::IpAddress("192.0.2.1".parse().unwrap()),
                SanType::IpAddress("2001:db8::1".parse().unwrap()),
                SanType::OtherName((vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3], "upn".into())),
            ];
        })
        .try_into()
        .unwrap();
        assert_eq!(subject, None, "an empty subject is no header");
        assert_eq!(names.unwrap(), "DNS:a.example.com,URI:spiffe://example.com/app,IP:192.0.2.1,IP:2001:db8::1");
    }

    #[test]
    fn what_is_no_certificate_or_too_long_is_refused() {
        assert!(matches!(read(b"nonsense", &[]), Err(Unreadable::Malformed)));
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "x".repeat(MAX_HEADER_BYTES));
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let wanted = [(HeaderName::from_static("x-subject"), CertificateField::Subject)];
        assert!(matches!(read(certificate.der(), &wanted), Err(Unreadable::TooLong)));
    }
}
