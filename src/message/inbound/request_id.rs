//! Request ids: a random beginning per thread and a counter, so that a request costs no system call and no allocation.

use std::cell::Cell;
use std::fmt;

use crate::random::unforeseeable;

/// A number that ties the answer, the log line and the upstream's request together: 22 lower-case letters and digits.
#[derive(Clone, PartialEq, Eq)]
pub struct RequestId([u8; PREFIX + COUNT]);

const PREFIX: usize = 12;
const COUNT: usize = 10;

impl RequestId {
    /// A new one, unique in practice across processes (not a secret).
    pub fn generate() -> Self {
        SOURCE.with(Source::next)
    }

    /// As it is shown and logged.
    pub fn as_str(&self) -> &str {
        // Always letters and digits.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({})", self.as_str())
    }
}

thread_local! {
    static SOURCE: Source = Source::seeded();
}

struct Source {
    prefix: [u8; PREFIX],
    count: Cell<u64>,
}

impl Source {
    fn seeded() -> Self {
        let mut prefix = [0; PREFIX];
        write_digits(&mut prefix, unforeseeable());
        Self { prefix, count: Cell::new(unforeseeable()) }
    }

    fn next(&self) -> RequestId {
        let count = self.count.get();
        self.count.set(count.wrapping_add(1));
        let mut id = [0; PREFIX + COUNT];
        let (prefix, digits) = id.split_at_mut(PREFIX);
        prefix.copy_from_slice(&self.prefix);
        write_digits(digits, count);
        RequestId(id)
    }
}

/// Without i, l, o and u: an id may be read out on the telephone.
const DIGITS: [u8; 32] = *b"0123456789abcdefghjkmnpqrstvwxyz";

/// The lowest five bits of `number` for each place.
fn write_digits(places: &mut [u8], mut number: u64) {
    for place in places.iter_mut().rev() {
        *place = DIGITS[(number % 32) as usize];
        number /= 32;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_short_plain_and_different() {
        let make = || (0..1_000).map(|_| RequestId::generate().as_str().to_owned()).collect::<Vec<_>>();
        let other = std::thread::spawn(make).join().unwrap();
        let ids: HashSet<String> = make().into_iter().chain(other).collect();
        assert_eq!(ids.len(), 2_000);
        for id in &ids {
            assert_eq!(id.len(), 22);
            assert!(id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()), "{id}");
        }
    }
}
