//! What was opened of the cookies that came last on one connection. Opening them anew costs a fifth of all that a small
//! request costs, and the same bytes under the same keys always open to the same record.
//!
//! Only what a cookie says is remembered. Whether that holds (lifetime, idle time, sign-outs, today's settings) is asked on
//! every request.

use aws_lc_rs::constant_time::verify_slices_are_equal;

use super::record::{Contents, Record};
use super::{LastSeen, NoSession};
use crate::message::Recall;

/// Both cookies of a session.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    /// Of the secrets that it was opened with.
    epoch: u64,
    pub(super) session: Slot<(Record, Contents)>,
    pub(super) seen: Slot<LastSeen>,
}

impl Remembered {
    /// What a connection has; to be [put back](Recall::put) when it has served.
    pub(super) fn of(recall: &Recall, epoch: u64) -> Box<Self> {
        let mut remembered: Box<Self> = recall.take().unwrap_or_default();
        if remembered.epoch != epoch {
            *remembered = Self { epoch, ..Self::default() };
        }
        remembered
    }
}

/// One cookie's value, and what it opened to.
#[derive(Debug)]
pub(super) struct Slot<T>(Option<(Box<[u8]>, T)>);

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Clone> Slot<T> {
    /// What `text` opens to: what is remembered if it is the very same text, else what `open` says, and that is remembered.
    ///
    /// # Errors
    /// That of `open`.
    pub(super) fn open(
        &mut self,
        text: &[u8],
        open: impl FnOnce(&[u8]) -> Result<T, NoSession>,
    ) -> Result<T, NoSession> {
        if let Some((known, opened)) = &self.0
            // Behind a gateway a connection carries many people's requests: how far two cookies agree is nobody's to learn.
            && verify_slices_are_equal(known, text).is_ok()
        {
            return Ok(opened.clone());
        }
        self.0 = None;
        let opened = open(text)?;
        self.0 = Some((text.into(), opened.clone()));
        Ok(opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_opened_once_until_another_one_comes() {
        let (mut slot, mut opened) = (Slot::default(), Vec::new());
        for text in ["a", "a", "b", "b", "a", "ab"] {
            let length = slot.open(text.as_bytes(), |bytes| {
                opened.push(text);
                Ok(bytes.len())
            });
            assert_eq!(length, Ok(text.len()));
        }
        assert_eq!(opened, ["a", "b", "a", "ab"]);
    }

    #[test]
    fn what_does_not_open_is_not_remembered_and_nothing_older_is() {
        let mut slot = Slot::default();
        assert_eq!(slot.open(b"good", |_| Ok(1)), Ok(1));
        assert_eq!(slot.open(b"bad", |_| Err(NoSession::Expired)), Err(NoSession::Expired));
        assert_eq!(slot.open(b"bad", |_| Ok(2)), Ok(2), "it is tried again");
        assert_eq!(slot.open(b"bad", |_| Ok(3)), Ok(2));
        slot.open(b"other", |_| Err(NoSession::Expired)).unwrap_err();
        assert_eq!(slot.open(b"bad", |_| Ok(4)), Ok(4));
    }
}
