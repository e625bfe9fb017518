//! Whatever a file of ended sessions holds, or a replica tells, it is read to the end, and what is kept of it is written and read
//! again without a loss.
#![no_main]

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use libfuzzer_sys::fuzz_target;
use vestibule::authn::session::ended::EndedSessions;
use vestibule::clock::SystemClock;

fuzz_target!(|input: (Vec<Vec<u8>>, Vec<u8>)| {
    let (statements, rest) = input;
    let mut file = b"vestibule-end-1\n".to_vec();
    // With the right length and checksum, which nobody guesses.
    for statement in statements {
        let Ok(length) = u16::try_from(statement.len()) else { return };
        file.extend_from_slice(&length.to_le_bytes());
        file.extend_from_slice(&digest(&SHA256, &statement).as_ref()[..8]);
        file.extend_from_slice(&statement);
    }
    file.extend_from_slice(&rest);
    let (kept, _) = EndedSessions::kept_of(&file, Arc::new(SystemClock));
    let (again, is_damaged) = EndedSessions::kept_of(&kept, Arc::new(SystemClock));
    assert!(!is_damaged);
    // In any order, and less what has expired in between.
    assert!(again.len() <= kept.len());
    let _ = EndedSessions::kept_of(&rest, Arc::new(SystemClock));
});
