//! Which of several: the less loaded one of two that chance picks. That spreads nearly as well as asking all of them, and
//! unlike asking all it does not send everything to the one that has just come up (or answers errors the fastest).

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};

/// How often two are drawn before all are looked at.
const DRAWS: usize = 3;

/// Chance enough to spread load: xorshift64. Belongs to one worker.
#[derive(Debug)]
pub(super) struct Dice(AtomicU64);

impl Dice {
    /// Seeded by the process's random hash keys, so that replicas and workers draw differently.
    pub(super) fn new() -> Self {
        Self::seeded(std::hash::RandomState::new().hash_one(0))
    }

    fn seeded(seed: u64) -> Self {
        Self(AtomicU64::new(seed | 1))
    }

    /// Below `bound`, which is not 0.
    fn below(&self, bound: usize) -> usize {
        // A number that two threads draw at the same time is as good as any.
        let mut state = self.0.load(Ordering::Relaxed);
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.0.store(state, Ordering::Relaxed);
        // The high bits are the better ones; the remainder's bias is nothing at these sizes.
        (state >> 32) as usize % bound
    }
}

/// One of `count` that is `usable`: of two different ones drawn by chance the one with less `load`; `None` where none is.
pub(super) fn choose(
    count: usize,
    dice: &Dice,
    usable: impl Fn(usize) -> bool,
    load: impl Fn(usize) -> usize,
) -> Option<usize> {
    if count < 2 {
        return (count == 1 && usable(0)).then_some(0);
    }
    for _ in 0..DRAWS {
        let first = dice.below(count);
        let second = (first + 1 + dice.below(count - 1)) % count;
        match (usable(first), usable(second)) {
            (true, true) if load(second) < load(first) => return Some(second),
            (true, _) => return Some(first),
            (false, true) => return Some(second),
            (false, false) => {}
        }
    }
    let left: Vec<usize> = (0..count).filter(|one| usable(*one)).collect();
    let drawn = |_| left.get(dice.below(left.len())).copied();
    (!left.is_empty()).then(|| (0..2).filter_map(drawn).min_by_key(|one| load(*one)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(count: usize, draws: usize, usable: impl Fn(usize) -> bool, loads: &[usize]) -> Vec<usize> {
        let dice = Dice::seeded(42);
        let mut taken = vec![0; count];
        for _ in 0..draws {
            taken[choose(count, &dice, &usable, |one| loads[one]).unwrap()] += 1;
        }
        taken
    }

    #[test]
    fn equal_ones_get_equal_shares() {
        for count in [2, 3, 10] {
            let taken = spread(count, 10_000, |_| true, &vec![0; count]);
            let fair = 10_000 / count;
            assert!(taken.iter().all(|one| one.abs_diff(fair) < fair / 5), "{taken:?}");
        }
    }

    #[test]
    fn the_most_loaded_is_never_taken_and_the_least_loaded_most() {
        let taken = spread(4, 10_000, |_| true, &[3, 0, 9, 5]);
        assert_eq!(taken[2], 0);
        assert!(taken[1] > taken[0] && taken[0] > taken[3], "{taken:?}");
    }

    #[test]
    fn what_is_not_usable_is_never_taken_and_the_only_usable_one_always_found() {
        let taken = spread(100, 1_000, |one| one == 77, &[0; 100]);
        assert_eq!(taken[77], 1_000);
        let two = spread(3, 1_000, |one| one != 1, &[1, 0, 2]);
        assert!(two[1] == 0 && two[0] > two[2], "{two:?}");
        for count in 0..4 {
            assert_eq!(choose(count, &Dice::seeded(7), |_| false, |_| 0), None);
        }
        assert_eq!(choose(1, &Dice::seeded(7), |_| true, |_| 0), Some(0));
    }
}
