//! What this release writes, as it lay there when it was made, and what the one before wrote. A record of a store outlives the
//! process that wrote it, and a new release comes while people are signed in: one that reads another form says so by raising the
//! format, and then the older one is no session, and its person signs in anew. A change that fails here has to raise it.

use serde_json::json;
use url::Url;

use super::*;
use crate::authn::proof::Proof;
use crate::authn::roles::Mapped;
use crate::authn::session::marks::{Marks, Turn};
use crate::authn::session::record::{Anew, Due, StoredTokens};
use crate::authn::session::seal::{KeyRing, Purpose};
use crate::message::Origin;
use crate::secret::SecretString;

const ID: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxIiwiZW1haWwiOiJhZGFAZXhhbXBsZS5jb20ifQ.c2lnbmVk";

fn tokens() -> StoredTokens<'static> {
    StoredTokens { id: ID, access: "an opaque access token", refresh: Some("a refresh token"), access_expires_in: None }
}

pub(in crate::authn::session) fn record() -> Record {
    let claims = json!({ "acr": "gold", "auth_time": 1_700_000_000, "amr": ["pwd", "otp"] });
    Record {
        marks: Marks {
            id: SessionId([7; 16]),
            provider_session: Some(NameDigest([8; 16])),
            subject: NameDigest([9; 16]),
            begun: Turn(1_700_000_001_000_002),
        },
        issued_at: UnixTime(1_700_000_001),
        expires_at: UnixTime(1_700_086_401),
        party: Party::of("https://id.example.com", "app"),
        mapping: [3; 8],
        access_expires_at: Some(UnixTime(1_700_000_301)),
        proof: Proof::of(claims.as_object().unwrap(), UnixTime(1_700_000_001), Duration::from_secs(30)),
        generation: 5,
        due: Some(Due { at: UnixTime(1_700_000_241), stale_at: UnixTime(1_700_000_301) }),
        anew: Some(Anew { at: UnixTime(1_700_003_601), by_browser: true }),
    }
}

pub(in crate::authn::session) fn packed() -> Vec<u8> {
    let mapped = Mapped {
        name: "ada".to_owned(),
        groups: vec!["/admins".to_owned(), "/staff".to_owned()],
        roles: vec!["admin".to_owned()],
        headers: vec![Some("ada".to_owned()), None, Some(String::new())],
    };
    let userinfo = json!({ "sub": "1", "name": "Ada Lovelace" });
    record::pack(&record(), &mapped, userinfo.as_object(), &tokens()).unwrap()
}

pub(in crate::authn::session) fn ticket_of_record() -> Ticket {
    Ticket { id: SessionId([7; 16]), key: [1; 32] }
}

fn ticket() -> Vec<u8> {
    postcard::to_stdvec(&ticket_of_record()).unwrap()
}

fn ring() -> KeyRing {
    KeyRing::new(&[SecretString::new("a secret of samples and of nothing else".to_owned())])
}

pub(in crate::authn::session) fn sealers() -> (Sealer<()>, Sealer<Ticket>) {
    let origin = Origin::of(&Url::parse("https://app.example.com").unwrap()).unwrap();
    let ring = ring();
    (
        ring.sealer(Purpose::Session, "__Host-vestibule", &origin),
        ring.sealer(Purpose::Ticket, "__Host-vestibule", &origin),
    )
}

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// That it says what [`record`] and [`packed`] were made of.
#[track_caller]
fn assert_is_sample((opened, contents): (Record, Contents)) {
    assert_eq!(format!("{opened:?}"), format!("{:?}", record()));
    assert_eq!((contents.name().as_ref(), contents.roles().iter().collect::<Vec<_>>()), (&b"ada"[..], vec!["admin"]));
    assert!(contents.groups().contains("/admins") && contents.groups().contains("/staff"));
    let claims = json!({ "sub": "1", "email": "ada@example.com", "name": "Ada Lovelace" });
    assert_eq!(contents.claims().as_ref(), claims.as_object());
    let back = contents.tokens().unwrap();
    let text = |token: Option<SecretString>| token.map(|token| token.expose_secret().to_owned());
    assert_eq!(text(back.id).as_deref(), Some(tokens().id));
    assert_eq!(text(back.access).as_deref(), Some(tokens().access));
    assert_eq!(text(back.refresh).as_deref(), tokens().refresh);
    let headers: Vec<_> =
        contents.headers().iter().map(|value| value.as_ref().map(|value| value.to_str().unwrap().to_owned())).collect();
    assert_eq!(headers, [Some("ada".to_owned()), None, Some(String::new())]);
}

#[test]
fn what_this_release_writes_it_reads() {
    assert_is_sample(open(&ticket(), seal(&ticket(), &packed()).unwrap()).unwrap());
}

#[test]
fn a_record_of_a_store_in_this_format_opens() {
    assert_is_sample(open(&ticket(), bytes(RECORD_4)).unwrap());
}

#[test]
fn a_session_cookie_and_a_ticket_in_this_format_open() {
    let (sessions, tickets) = sealers();
    let (packed, _) = sessions.open_bytes(COOKIE_4.as_bytes()).unwrap();
    assert_is_sample(record::unpack(packed).unwrap());
    let (opened, _) = tickets.open(TICKET_4.as_bytes()).unwrap();
    assert_eq!(postcard::to_stdvec(&opened).unwrap(), ticket());
}

#[test]
fn a_record_of_the_release_before_is_no_session() {
    assert!(open(&ticket(), bytes(RECORD_3)).is_none());
}

#[test]
fn a_record_opens_for_its_own_ticket_alone() {
    let sealed = bytes(RECORD_4);
    for at in [0, 47] {
        let mut other = ticket();
        other[at] ^= 1;
        assert!(open(&other, sealed.clone()).is_none());
    }
    // The record of another session, under this one's name and key.
    let other = Ticket { id: SessionId([6; 16]), key: [1; 32] };
    assert!(other.open(Version::FIRST, other.sealer(Version::FIRST).seal(&packed())).is_none());
    assert!(open(&ticket()[1..], sealed).is_none());
}

const RECORD_4: &str = "0400000000512861b18c3deb0de3544982f8d780cf7b3cd054eb8632c3bc80bc8961562f61e2bbe68f9fdfc1767483a67fda1de19c4f92e7\
     5cfcdbfc73d6793d1cc2e2a094b141b727ab8be047e5c2e3b50e722ecaba8e5582d285d1e646088a3ca5dc9179f017b18f36fbaffb690977\
     329795967a0ccca2008be26b3136421b25339e975f51ad03d2b2b2fc445e870c1a4d28e8c52253027ea887fcf85190331bc45abfc7bfc4d1\
     58c0a61bfbfd441fcff7b01a3f7f3d2778486255efe1d3d164bec5fad92e25ff3e4828fa3be924355846bd3b146d70b5427420532a85d827\
     619ab9a012e3916b3809e3f4e7cc91fd12519eb64a7a6d7227f06b406df3034113957951ff453afc8d8374727d0f1964b65a04cad35c689f\
     fdbe12cd1a7711efbea0d44b51d5e2fe1950bc10e7fb8a9af5ab720ada6bc0624368e5ab62bfccfc05f98df8f30ab8a4c389d0fc4ad83d3c\
     29a89a13d718999819749da1b447045cc1";
const COOKIE_4: &str = "BPEhcAqTLky-UN09uw7poHje_gJKSUbbDbhC-lIf1c_SZWMdni7dsGhnwV9l6U3czNrDXA9_wvLZ0RUsMviFlu_YuNmAxba2r5X8yEBaUx5nvSwf\
     Q6B0Rb11fQnrps3g-B1_r7oNlhQYpKWBdIzOAoXMaToJxxQ30BPIEsthEMXxViVii2uRGHVgHOdD01O5GLXYsjJZGxBFrZ7nLmG6UuOKeu7ZkDP7\
     e3i3bX1339uxP3jbvgu8b0LcB6F9azY4JbR2GZy0Mx0oCBnzF3mE1MsXFV8JKkqrKKUgxvH252dqWI5IVFxR_7EOH8WTlY30ZcGcP4aoxPlfdxWd\
     Vb8r5msnY0p57L44jb53YIjGiNgShhfsJch_7lJnQWm8OmMEjGEZW6E0z5kYwwl2LSVSJkvxP8GvnPtODPPH_lXfVziLMCprdDZ66OntKFyUkntX\
     YEwIeUh7cRfhTgs6aUxShCw";
const TICKET_4: &str = "BPEhcAqVF_o22yZlN5hl23VRk55U4XEqPfOHjRErnzoK3ifobk5BTquG7_cYvtEm8EO9QqmGlclhD7rQNzyISLqcXbbFLSbJ5VICasOqIRekCR5c\
     zUJXqnKk3CEI0xIS-g";
const RECORD_3: &str = "03000000005e9c59b27ef658423ad846cbbc2c22b24703f86f866934638ed9068f879dfcde935dc3f29a009ba8320044e79ed82f9aea96\
     d3ed0150cf1c863178a2b0b13698e944b185ccb67d8d875ecafc9c88e1e52a22a2cc184f49dc925062706d86ea6a84690bd2d1cefc0f42\
     c4f566458761fd341abf696bd659136c63bbb211bf111957484f466a1ca5cb868e9c8fb41c7ac8c3138d3d4690bb5094b9a7b143623265\
     53380279553bdbc01c56a95d979628bcb95f8c9c1ddd649beb5d73068c4775d2223002fb74d74564e2b2e816eb5ae59915048af780fe83\
     d323d3131d99fc1a1d9ed53b1d387a32d02ba4bd887c091ea5f11fc3159544d676e96efdd3d61e755184505bc44956a30678b8a2641f61\
     dc8cc6c689d5ad22586c6d2da8e4381b9f11cfece2f2b9fe506275f7f9552ac62872c45e29dde73b5778fe0215929e6ab483b17551c0da\
     e4c90ff10db84ba7cfe9339fe1c57ee90f5a42197c91d4";
