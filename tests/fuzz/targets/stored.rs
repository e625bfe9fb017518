//! Whatever a store answers, it is a session only if it was sealed under this very ticket, and then it is read without a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vestibule::authn::session::stored;
use vestibule::clock::UnixTime;

fuzz_target!(|input: ([u8; 32], Vec<u8>, Vec<u8>)| {
    let (key, packed, answer) = input;
    // Whatever a cookie that is ours may hold.
    let _ = stored::open(&answer, packed.clone());
    // A session begins with its id, and so does its ticket.
    let mut ticket = packed.clone();
    ticket.resize(16, 0);
    ticket.extend_from_slice(&key);
    assert!(stored::open(&ticket, answer).is_none());
    let sealed = stored::seal(&ticket, &packed).expect("a ticket of 48 bytes");
    let mut other = ticket.clone();
    other[47] ^= 1;
    assert!(stored::open(&other, sealed.clone()).is_none());
    if let Some((record, contents)) = stored::open(&ticket, sealed) {
        let now = UnixTime(1_800_000_000);
        let _ = (record.is_due(now), record.is_stale(now), record.live_access_token(&contents, now));
        let _ = (contents.claims(), contents.sources(), contents.tokens(), contents.has_refresh_token());
        let _ = (contents.name(), contents.roles().iter().count(), contents.groups().contains("/admins"));
        let _ = contents.headers().count();
    }
});
