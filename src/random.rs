//! Random bytes that nobody can guess.

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
