//! How long what was admitted may go on. A stream outlives the check that let it in, so it carries its own end and asks
//! again.

use std::sync::Arc;
use std::time::Duration;

use super::oidc::Party;
use super::session::ended::EndedSessions;
use super::session::marks::Marks;
use crate::clock::{SharedClock, UnixTime};

/// When an admission ends: at a fixed time, or as soon as the session behind it is ended.
#[derive(Debug, Clone, Copy)]
pub struct Lifetime {
    /// With its provider.
    pub(in crate::authn) session: Option<(Marks, Party)>,
    pub(in crate::authn) ends_at: UnixTime,
}

impl Lifetime {
    /// For tests of what streams: no session, a fixed end.
    #[cfg(test)]
    pub(crate) fn for_test(ends_at: UnixTime) -> Self {
        Self { session: None, ends_at }
    }

    /// The same, but over at `end` at the latest.
    pub fn until(self, end: UnixTime) -> Self {
        Self { ends_at: self.ends_at.min(end), ..self }
    }
}

/// Tells whether lifetimes are over. Whatever ends sessions before their time adds to the same set.
#[derive(Debug, Clone)]
pub struct Lifetimes {
    pub(in crate::authn) ended: Arc<EndedSessions>,
    pub(in crate::authn) clock: SharedClock,
    /// How long what other replicas end may go unheard.
    pub(in crate::authn) grace: Duration,
}

impl Lifetimes {
    /// For tests of what streams: nothing has ended.
    #[cfg(test)]
    pub(crate) fn for_test() -> Self {
        let clock: SharedClock = Arc::new(crate::clock::SystemClock);
        Self { ended: Arc::new(EndedSessions::new(Arc::clone(&clock))), clock, grace: Duration::ZERO }
    }

    /// Asked now. An open stream counts as use, so the idle time has no say in it.
    pub fn is_over(&self, lifetime: &Lifetime) -> bool {
        let has_ended = |(marks, party): (Marks, Party)| {
            self.ended.contains(&marks, party) || self.ended.is_current(self.grace) == Some(false)
        };
        self.clock.now() >= lifetime.ends_at || lifetime.session.is_some_and(has_ended)
    }
}
