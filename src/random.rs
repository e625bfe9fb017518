//! Random bytes that nobody can guess.

use std::hash::{BuildHasher as _, RandomState};

use aws_lc_rs::rand;

/// Fresh ones from the system.
///
/// # Panics
/// When the system has no randomness at all: there is nothing safe to go on with.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).expect("the system has no randomness");
    bytes
}

/// What nobody outside can foresee, for names and for the places of a table; no secret. The first draw from the cryptographic
/// generator takes tens of milliseconds to seed it, and neither the start nor a first answer has to wait for that: the standard
/// library's keys are the system's randomness too.
pub(crate) fn unforeseeable() -> u64 {
    RandomState::new().hash_one(0)
}
