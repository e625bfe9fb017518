//! The two clocks of a connection: one for idling, one for a head that has begun. hyper's own one timer starts when the last
//! answer ends, and would count idling as a slow head.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::connection::Wait;
use crate::message::EarlyHints;

/// How long a client is silent before it is expected to remain so.
const SILENT: Duration = Duration::from_secs(1);

/// What a connection is doing; written by its IO and its service, read by its clock, all on one task, so nothing is ordered.
#[derive(Debug, Default)]
pub(super) struct Activity {
    state: AtomicU32,
    /// What its handler says before the answer.
    pub(super) hints: EarlyHints,
}

/// A request is with the handler, or its answer is not all with hyper.
const BUSY: u32 = 1;
/// Bytes came since the last request.
const HEARD: u32 = 2;
/// The kernel would not take bytes.
const UNWRITTEN: u32 = 4;
/// The last request had a body.
const BODY: u32 = 8;
/// The first bytes were those of HTTP/2.
const HTTP2: u32 = 16;
/// The client waits for a 100 before it sends the last request's body (RFC 9110 §10.1.1), and was told nothing.
const EXPECTS: u32 = 32;
/// The same, and what hyper writes next may belong to the answer before.
const BEHIND: u32 = 64;
/// What is above counts every step forward, so that two looks tell a whole request, or a slow reader, from silence.
const STEP: u32 = 128;

impl Activity {
    pub(super) fn new(hints: EarlyHints) -> Self {
        Self { state: AtomicU32::new(0), hints }
    }

    /// Bytes came.
    pub(super) fn heard(&self) {
        self.store(self.get() | HEARD);
    }

    /// The kernel took bytes, or would not.
    pub(super) fn written(&self, taken: bool) {
        match (taken, self.get()) {
            (true, now) if now & UNWRITTEN != 0 => self.store((now & !UNWRITTEN).wrapping_add(STEP)),
            (true, _) => {}
            (false, now) => self.store(now | UNWRITTEN),
        }
    }

    /// A request's head is complete.
    pub(super) fn begin(&self, has_body: bool) {
        let body = if has_body { BODY } else { 0 };
        self.store((self.get() & !(HEARD | BODY | EXPECTS | BEHIND) | BUSY | body).wrapping_add(STEP));
    }

    /// The client of the request that has begun waits for a 100.
    pub(super) fn expects(&self) {
        let behind = if self.get() & UNWRITTEN == 0 { 0 } else { BEHIND };
        self.store(self.get() | EXPECTS | behind);
    }

    /// hyper writes: a 100 or an answer.
    pub(super) fn tells(&self) {
        if self.get() & (EXPECTS | BEHIND) == EXPECTS {
            self.store(self.get() & !EXPECTS);
        }
    }

    /// Whether the client waits and was told nothing: who gets an answer now may send the body or keep it, so that what comes next
    /// could be that as well as a request.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.get() & EXPECTS != 0
    }

    /// hyper has the whole answer.
    pub(super) fn end(&self) {
        self.store(self.get() & !(BUSY | HEARD));
    }

    /// Whether the last request had a body, which may not have been read.
    pub(super) fn had_body(&self) -> bool {
        self.get() & BODY != 0
    }

    /// The first bytes are those of HTTP/2.
    pub(super) fn speaks_http2(&self) {
        self.store(self.get() | HTTP2);
    }

    /// Whether the first bytes were those of HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        self.get() & HTTP2 != 0
    }

    /// Whether the kernel takes no bytes; and a number that changes when it has taken some again.
    pub(super) fn unwritten(&self) -> (bool, u32) {
        (self.get() & UNWRITTEN != 0, self.get() / STEP)
    }

    fn get(&self) -> u32 {
        self.state.load(Ordering::Relaxed)
    }

    fn store(&self, state: u32) {
        self.state.store(state, Ordering::Relaxed);
    }
}

/// Why a clock ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expired {
    /// No request came.
    Idle,
    /// No request came for a while, and there is room to save.
    Silent,
    /// A head did not end.
    Head,
    /// The client does not read.
    Unread,
    /// It does not read one stream of HTTP/2.
    UnreadStream,
    /// Frames of HTTP/2 came that ask for nothing, and too many of them.
    Flood,
    /// The client speaks HTTP/2.
    NotHttp1,
}

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Until its next request.
    pub(super) idle: Duration,
    /// For a head.
    pub(super) head: Duration,
    /// Until it reads on.
    pub(super) unread: Duration,
}

/// The limits of a connection and since when the present one runs.
#[derive(Debug)]
pub(super) struct Clock {
    patience: Patience,
    seen: u32,
    since: Instant,
}

impl Clock {
    pub(super) fn new(patience: Patience) -> Self {
        Self { patience, seen: 0, since: Instant::now() }
    }

    /// What a connection of HTTP/1.1 may wait for now. It is [`Expired::Silent`] only where the next byte begins a request: not
    /// behind one with a body, of which some may still come.
    pub(super) fn wait(&mut self, activity: &Activity) -> Wait {
        if activity.is_http2() {
            return Wait::Over(Expired::NotHttp1);
        }
        match self.look(activity) {
            None => Wait::Long,
            Some((_, Expired::Idle)) if SILENT < self.patience.idle && !activity.had_body() => {
                Wait::Until(self.since + SILENT, Some(Expired::Silent))
            }
            Some((deadline, expired)) => Wait::Until(deadline, Some(expired)),
        }
    }

    /// Takes note of what the connection does now; gives until when it may, `None`: as long as the handler takes.
    pub(super) fn look(&mut self, activity: &Activity) -> Option<(Instant, Expired)> {
        let now = activity.get() & !(BODY | EXPECTS | BEHIND);
        if now != self.seen {
            self.seen = now;
            self.since = Instant::now();
        }
        let (limit, expired) = match (now & UNWRITTEN != 0, now & BUSY != 0, now & HEARD != 0) {
            (true, _, _) => (self.patience.unread, Expired::Unread),
            (false, true, _) => return None,
            (false, false, true) => (self.patience.head, Expired::Head),
            (false, false, false) => (self.patience.idle, Expired::Idle),
        };
        Some((self.since + limit, expired))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(idle: u64) -> Clock {
        let seconds = Duration::from_secs;
        Clock::new(Patience { idle: seconds(idle), head: seconds(15), unread: seconds(300) })
    }

    #[test]
    fn silence_is_told_only_where_the_next_byte_begins_a_request() {
        let activity = Activity::default();
        let kind = |idle: u64, activity: &Activity| match clock(idle).wait(activity) {
            Wait::Until(_, expired) => expired,
            Wait::Long | Wait::Over(_) => None,
        };
        assert_eq!(kind(75, &activity), Some(Expired::Silent));
        assert_eq!(kind(1, &activity), Some(Expired::Idle), "there is nothing to save");
        activity.heard();
        assert_eq!(kind(75, &activity), Some(Expired::Head));
        activity.begin(true);
        assert_eq!(kind(75, &activity), None);
        activity.end();
        assert_eq!(kind(75, &activity), Some(Expired::Idle), "some of the body may still come");
        activity.begin(false);
        activity.end();
        assert_eq!(kind(75, &activity), Some(Expired::Silent));
        activity.written(false);
        assert_eq!(kind(75, &activity), Some(Expired::Unread));
    }

    #[test]
    fn a_client_that_waits_is_in_doubt_until_something_is_written_that_is_surely_for_it() {
        let activity = Activity::default();
        activity.begin(true);
        assert!(!activity.is_in_doubt());
        activity.expects();
        assert!(activity.is_in_doubt());
        activity.tells();
        assert!(!activity.is_in_doubt());
        // The answer before is not all with the kernel, and may take more than one write.
        activity.written(false);
        activity.begin(true);
        activity.expects();
        activity.tells();
        activity.written(true);
        activity.tells();
        assert!(activity.is_in_doubt());
        activity.begin(true);
        assert!(!activity.is_in_doubt());
    }

    #[test]
    fn idling_heads_and_answers_have_their_own_limits() {
        let activity = Activity::default();
        let mut clock = clock(75);
        let kind = |clock: &mut Clock| clock.look(&activity).map(|(_, expired)| expired);
        assert_eq!(kind(&mut clock), Some(Expired::Idle));
        activity.heard();
        assert_eq!(kind(&mut clock), Some(Expired::Head));
        let (first, _) = clock.look(&activity).unwrap();
        activity.heard();
        assert_eq!(clock.look(&activity).unwrap().0, first, "a head that drips has one deadline");
        activity.begin(true);
        assert_eq!(kind(&mut clock), None);
        activity.heard();
        activity.written(false);
        assert_eq!(kind(&mut clock), Some(Expired::Unread));
        activity.written(true);
        activity.end();
        assert_eq!(kind(&mut clock), Some(Expired::Idle));
        assert!(activity.had_body());
        let idle_since = clock.since;
        std::thread::sleep(Duration::from_millis(2));
        activity.heard();
        activity.begin(false);
        activity.end();
        assert_eq!(kind(&mut clock), Some(Expired::Idle));
        assert!(clock.since > idle_since, "a request between two looks ends the silence");
        activity.written(false);
        assert_eq!(kind(&mut clock), Some(Expired::Unread));
        let unread_since = clock.since;
        std::thread::sleep(Duration::from_millis(2));
        activity.written(true);
        activity.written(false);
        assert_eq!(kind(&mut clock), Some(Expired::Unread));
        assert!(clock.since > unread_since, "a slow reader is not one that does not read");
    }
}
