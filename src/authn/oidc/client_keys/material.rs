//! What the key pairs of each kind can do, over aws-lc-rs (RFC 7518 §3 and §4, RFC 8037).

use std::fmt;

use aws_lc_rs::agreement;
use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{OaepPrivateDecryptingKey, PrivateDecryptingKey};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
    RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair, RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;
use zeroize::Zeroizing;

use crate::authn::oidc::jose::Algorithm;
use crate::authn::oidc::jwe::KeyManagement;
use crate::authn::oidc::jwks::{octets, without_leading_zeros};

/// A private key.
pub(in crate::authn::oidc) enum Material {
    Rsa { pair: RsaKeyPair, oaep: OaepPrivateDecryptingKey, n: Vec<u8>, e: Vec<u8> },
    Ec { curve: Curve, pair: EcdsaKeyPair, agreement: agreement::PrivateKey },
    Ed25519(Ed25519KeyPair),
    X25519 { agreement: agreement::PrivateKey, x: Vec<u8> },
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rsa { .. } => "RSA",
            Self::Ec { curve, .. } => curve.name(),
            Self::Ed25519(_) => "Ed25519",
            Self::X25519 { .. } => "X25519",
        })
    }
}

/// The curves of RFC 7518 §6.2.1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::authn::oidc) enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    const ALL: [Self; 3] = [Self::P256, Self::P384, Self::P521];

    pub(in crate::authn::oidc) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|curve| curve.name() == name)
    }

    pub(in crate::authn::oidc) fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        }
    }

    /// The octets of a coordinate.
    fn size(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    fn algorithm(self) -> Algorithm {
        match self {
            Self::P256 => Algorithm::ES256,
            Self::P384 => Algorithm::ES384,
            Self::P521 => Algorithm::ES512,
        }
    }

    fn signing(self) -> &'static EcdsaSigningAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
            Self::P384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
            Self::P521 => &ECDSA_P521_SHA512_FIXED_SIGNING,
        }
    }

    pub(in crate::authn::oidc) fn agreement(self) -> &'static agreement::Algorithm {
        match self {
            Self::P256 => &agreement::ECDH_P256,
            Self::P384 => &agreement::ECDH_P384,
            Self::P521 => &agreement::ECDH_P521,
        }
    }

    /// `x` and `y` of a JWK as an uncompressed point (SEC 1 §2.3.3); whether it is on the curve is for its user to see.
    pub(in crate::authn::oidc) fn point(self, jwk: &Map<String, Value>) -> Result<Vec<u8>, &'static str> {
        let (x, y) = (octets(jwk, "x")?, octets(jwk, "y")?);
        if x.len() != self.size() || y.len() != self.size() {
            return Err("its coordinates are not of the curve's length");
        }
        Ok([&[4], x.as_slice(), y.as_slice()].concat())
    }
}

/// RFC 7518 §6.3, big-endian.
pub(super) struct RsaNumbers {
    pub(super) n: Zeroizing<Vec<u8>>,
    pub(super) e: Zeroizing<Vec<u8>>,
    pub(super) d: Zeroizing<Vec<u8>>,
    pub(super) p: Zeroizing<Vec<u8>>,
    pub(super) q: Zeroizing<Vec<u8>>,
    pub(super) dp: Zeroizing<Vec<u8>>,
    pub(super) dq: Zeroizing<Vec<u8>>,
    pub(super) qi: Zeroizing<Vec<u8>>,
}

const WEAK: &str = "it is RSA of fewer than 2048 bits";
const RSA_UNUSABLE: &str = "it is no sound RSA key of 2048 to 8192 bits";

impl Material {
    pub(super) fn generate() -> Result<Self, Unspecified> {
        let pair = EcdsaKeyPair::generate(Curve::P256.signing())?;
        let der = pair.to_pkcs8v1()?;
        Self::ec_from_der(der.as_ref()).map_err(|_| Unspecified)
    }

    pub(super) fn from_pkcs8(der: &[u8]) -> Result<Self, &'static str> {
        match RsaKeyPair::from_pkcs8(der) {
            Ok(pair) => return Self::rsa(pair),
            // The only word for it that the library has.
            Err(error) if error.to_string() == "TooSmall" => return Err(WEAK),
            Err(_) => {}
        }
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8(der) {
            return Ok(Self::Ed25519(pair));
        }
        if let Some(seed) = der.strip_prefix(X25519_PKCS8) {
            return Self::x25519(seed);
        }
        Self::ec_from_der(der).map_err(|_| "it is not RSA of 2048 to 8192 bits, P-256, P-384, P-521, Ed25519 or X25519")
    }

    pub(super) fn rsa_from_der(der: &[u8]) -> Result<Self, &'static str> {
        let pair = RsaKeyPair::from_der(der)
            .map_err(|error| if error.to_string() == "TooSmall" { WEAK } else { RSA_UNUSABLE })?;
        Self::rsa(pair)
    }

    pub(super) fn rsa_from_numbers(numbers: &RsaNumbers) -> Result<Self, &'static str> {
        // Some libraries write the sign byte of their big integers.
        let (n, e) = (without_leading_zeros(&numbers.n), without_leading_zeros(&numbers.e));
        if n.first().map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize) < 2048 {
            return Err(WEAK);
        }
        let components = aws_lc_rs::rsa::KeyPairComponents {
            public_key: RsaPublicKeyComponents { n, e },
            d: numbers.d.as_slice(),
            p: numbers.p.as_slice(),
            q: numbers.q.as_slice(),
            dP: numbers.dp.as_slice(),
            dQ: numbers.dq.as_slice(),
            qInv: numbers.qi.as_slice(),
        };
        Self::rsa(RsaKeyPair::from_components(&components).map_err(|_| RSA_UNUSABLE)?)
    }

    fn rsa(pair: RsaKeyPair) -> Result<Self, &'static str> {
        let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| RSA_UNUSABLE)?;
        let decrypting = PrivateDecryptingKey::from_pkcs8(der.as_ref()).map_err(|_| RSA_UNUSABLE)?;
        let oaep = OaepPrivateDecryptingKey::new(decrypting).map_err(|_| RSA_UNUSABLE)?;
        let public = pair.public_key().as_der().map_err(|_| RSA_UNUSABLE)?;
        let (_, public) = SubjectPublicKeyInfo::from_der(public.as_ref()).map_err(|_| RSA_UNUSABLE)?;
        let Ok(PublicKey::RSA(public)) = public.parsed() else { return Err(RSA_UNUSABLE) };
        let [n, e] = [public.modulus, public.exponent].map(|number| without_leading_zeros(number).to_vec());
        Ok(Self::Rsa { pair, oaep, n, e })
    }

    /// PKCS #8 or SEC 1.
    pub(super) fn ec_from_der(der: &[u8]) -> Result<Self, &'static str> {
        for curve in Curve::ALL {
            let pair = EcdsaKeyPair::from_private_key_der(curve.signing(), der);
            let agreement = agreement::PrivateKey::from_private_key_der(curve.agreement(), der);
            if let (Ok(pair), Ok(agreement)) = (pair, agreement) {
                return Ok(Self::Ec { curve, pair, agreement });
            }
        }
        Err("it is not of P-256, P-384 or P-521")
    }

    pub(super) fn ec_from_numbers(curve: Curve, d: &[u8], point: &[u8]) -> Result<Self, &'static str> {
        if d.len() != curve.size() {
            return Err("its d is not of the curve's length");
        }
        let pair = EcdsaKeyPair::from_private_key_and_public_key(curve.signing(), d, point);
        let agreement = agreement::PrivateKey::from_private_key(curve.agreement(), d);
        match (pair, agreement) {
            (Ok(pair), Ok(agreement)) => Ok(Self::Ec { curve, pair, agreement }),
            _ => Err("its d, x and y do not belong together"),
        }
    }

    pub(super) fn ed25519_from_numbers(d: &[u8], x: &[u8]) -> Result<Self, &'static str> {
        if d.len() != 32 {
            return Err("its d is not of 32 bytes");
        }
        let pair = Ed25519KeyPair::from_seed_and_public_key(d, x);
        pair.map(Self::Ed25519).map_err(|_| "its d and x do not belong together")
    }

    pub(super) fn x25519_from_numbers(d: &[u8], x: &[u8]) -> Result<Self, &'static str> {
        match Self::x25519(d)? {
            Self::X25519 { x: own, .. } if own != x => Err("its d and x do not belong together"),
            material => Ok(material),
        }
    }

    fn x25519(d: &[u8]) -> Result<Self, &'static str> {
        let agreement = agreement::PrivateKey::from_private_key(&agreement::X25519, d);
        let agreement = agreement.map_err(|_| "its d is not of 32 bytes")?;
        let x = agreement.compute_public_key().map_err(|_| "it has no public key")?.as_ref().to_vec();
        Ok(Self::X25519 { agreement, x })
    }

    pub(super) fn signs(&self, algorithm: Algorithm) -> bool {
        match self {
            Self::Rsa { .. } => rsa_encoding(algorithm).is_some(),
            Self::Ec { curve, .. } => curve.algorithm() == algorithm,
            Self::Ed25519(_) => algorithm == Algorithm::EdDSA,
            Self::X25519 { .. } => false,
        }
    }

    pub(super) fn manages(&self, management: KeyManagement) -> bool {
        match self {
            Self::Rsa { .. } => management.is_rsa(),
            Self::Ec { .. } | Self::X25519 { .. } => management.is_agreement(),
            Self::Ed25519(_) => false,
        }
    }

    pub(super) fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Result<Vec<u8>, Unspecified> {
        // It draws its randomness itself.
        let random = SystemRandom::new();
        match self {
            Self::Rsa { pair, .. } => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(rsa_encoding(algorithm).ok_or(Unspecified)?, &random, message, &mut signature)?;
                Ok(signature)
            }
            Self::Ec { pair, .. } => Ok(pair.sign(&random, message)?.as_ref().to_vec()),
            Self::Ed25519(pair) => Ok(pair.try_sign(message)?.as_ref().to_vec()),
            Self::X25519 { .. } => Err(Unspecified),
        }
    }

    /// RFC 7518 §6.2.1 and §6.3.1, RFC 8037 §2: the members that make up the public key.
    pub(super) fn public_jwk(&self) -> Map<String, Value> {
        let members: Vec<(&str, String)> = match self {
            Self::Rsa { n, e, .. } => vec![("kty", "RSA".into()), ("n", base64url(n)), ("e", base64url(e))],
            Self::Ec { curve, pair, .. } => {
                // Uncompressed, as it was made: 4, x, y.
                let (x, y) = pair.public_key().as_ref()[1..].split_at(curve.size());
                let crv = curve.name().to_owned();
                vec![("kty", "EC".into()), ("crv", crv), ("x", base64url(x)), ("y", base64url(y))]
            }
            Self::Ed25519(pair) => okp("Ed25519", pair.public_key().as_ref()),
            Self::X25519 { x, .. } => okp("X25519", x),
        };
        members.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
    }
}

fn okp(curve: &str, x: &[u8]) -> Vec<(&'static str, String)> {
    vec![("kty", "OKP".into()), ("crv", curve.into()), ("x", base64url(x))]
}

fn base64url(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// RFC 7518 §3.3 and §3.5.
fn rsa_encoding(algorithm: Algorithm) -> Option<&'static dyn RsaEncoding> {
    Some(match algorithm {
        Algorithm::RS256 => &RSA_PKCS1_SHA256,
        Algorithm::RS384 => &RSA_PKCS1_SHA384,
        Algorithm::RS512 => &RSA_PKCS1_SHA512,
        Algorithm::PS256 => &RSA_PSS_SHA256,
        Algorithm::PS384 => &RSA_PSS_SHA384,
        Algorithm::PS512 => &RSA_PSS_SHA512,
        _ => return None,
    })
}

/// RFC 8410 §7: everything before the 32 bytes of the key; the library does not read it.
const X25519_PKCS8: &[u8] =
    &[0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x6e, 0x04, 0x22, 0x04, 0x20];
