//! The examples of RFC 9449, and our proofs verified by the key that they bring along.

use serde_json::json;

use super::*;
use crate::authn::oidc::jose::base64url;
use crate::authn::oidc::jwks::KeySet;
use crate::authn::oidc::vectors::ed25519;
use crate::clock::UnixTime;

const ACCESS_TOKEN: &str = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";

/// Header and claims of a proof, which the key in its header has signed.
fn open(proof: &str) -> (Value, Value) {
    let (signed, signature) = proof.rsplit_once('.').unwrap();
    let mut parts = signed.split('.').map(|part| serde_json::from_slice::<Value>(&base64url(part).unwrap()).unwrap());
    let (header, claims) = (parts.next().unwrap(), parts.next().unwrap());
    let keys = KeySet::parse(json!({"keys": [header["jwk"]]}).to_string().as_bytes()).unwrap();
    let algorithm = Algorithm::from_name(header["alg"].as_str().unwrap()).unwrap();
    keys.verify(algorithm, None, signed.as_bytes(), &base64url(signature).unwrap()).unwrap();
    (header, claims)
}

fn proof(key: &DpopKey, url: &str, access_token: Option<&str>, nonce: Option<&str>) -> (Value, Value) {
    let bound = Bound { method: &Method::POST, url: &Url::parse(url).unwrap(), access_token, nonce };
    open(&key.proof(&bound, Fresh { now: UnixTime(1_562_262_616), jti: "-BwC3ESc6acc2lTc" }).unwrap())
}

#[test]
fn the_example_of_section_4_1_verifies_and_has_the_thumbprint_of_section_6_1() {
    let (header, claims) = open(
        "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJo\
         RjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJq\
         dGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0Ijox\
         NTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg",
    );
    let jkt = thumbprint(header["jwk"].as_object().unwrap()).unwrap();
    assert_eq!(jkt, "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
    // The same request gives the same claims with us.
    let (_, ours) = proof(&DpopKey::generate().unwrap(), "https://server.example.com/token", None, None);
    assert_eq!(ours, claims);
}

#[test]
fn the_access_token_of_section_7_1_has_its_hash() {
    assert_eq!(token_hash(ACCESS_TOKEN), "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo");
}

#[test]
fn a_proof_names_its_request_token_and_nonce() {
    let key = DpopKey::generate().unwrap();
    let url = "https://user:pass@api.example:8443/a/b?c=d#e";
    let (header, claims) = proof(&key, url, Some(ACCESS_TOKEN), Some("eyJ7S_zG.eyJH0-Z.HX4w-7v"));
    assert_eq!(
        claims,
        json!({
            "jti": "-BwC3ESc6acc2lTc", "htm": "POST", "htu": "https://api.example:8443/a/b", "iat": 1_562_262_616,
            "ath": "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo", "nonce": "eyJ7S_zG.eyJH0-Z.HX4w-7v"
        })
    );
    assert_eq!((&header["typ"], &header["alg"]), (&json!("dpop+jwt"), &json!("ES256")));
    let members: Vec<_> = header["jwk"].as_object().unwrap().keys().collect();
    assert_eq!(members, ["kty", "crv", "x", "y"]);
    assert_eq!(thumbprint(header["jwk"].as_object().unwrap()).as_deref(), Some(key.jkt()));
}

#[test]
fn a_key_from_a_file_gives_proofs_with_what_the_server_takes() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), ed25519().to_string()).unwrap();
    let keys = ClientKeys::read(&[file.path().to_owned()]).unwrap();
    let all = DpopKey::all(&keys, &[Algorithm::ES256, Algorithm::EdDSA]).unwrap();
    let names = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    for (offered, taken) in [
        (&[][..], Some("EdDSA")),
        (&["ES256", "EdDSA"], Some("EdDSA")),
        (&["Ed25519"], Some("Ed25519")),
        (&["ES256", "RS256"], None),
    ] {
        let key = all.iter().find(|key| key.is_among(&names(offered)));
        assert_eq!(key.map(DpopKey::algorithm), taken, "{offered:?}");
    }
    let (header, _) = proof(&all[0], "https://id.example/token", None, None);
    assert_eq!(header["alg"], "EdDSA");
    assert_eq!(header["jwk"].get("d"), None);
    assert_eq!(DpopKey::all(&keys, &[Algorithm::ES256]).unwrap_err(), SigningError::NoKey);
}

#[test]
fn each_process_has_a_key_of_its_own() {
    assert_ne!(DpopKey::generate().unwrap().jkt(), DpopKey::generate().unwrap().jkt());
}
