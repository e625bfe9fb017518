//! Whatever text comes as a sealed one, it does not open unless we sealed it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use url::Url;
use vestibule::authn::session::record;
use vestibule::authn::session::seal::{KeyRing, Purpose, Sealer};
use vestibule::message::Origin;
use vestibule::secret::SecretString;

fuzz_target!(|bytes: &[u8]| {
    let ring = KeyRing::new(&[SecretString::new("an obvious secret for fuzzing only".to_owned())]);
    let origin = Origin::of(&Url::parse("https://app.example/").unwrap()).unwrap();
    let sealer: Sealer<()> = ring.sealer(Purpose::Session, "__Host-v", &origin);
    assert!(sealer.open_bytes(bytes).is_err());
    let sealed = sealer.seal_bytes(bytes);
    assert_eq!(sealer.open_bytes(sealed.as_bytes()).unwrap().0, bytes);
    // What an older version, or another one with our key, may have sealed.
    if let Some((_, contents)) = record::unpack(bytes.to_vec()) {
        let _ = (contents.claims(), contents.tokens());
    }
});
