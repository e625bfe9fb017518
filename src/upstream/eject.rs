//! Passive ejection: an instance that fails again and again is left out for a while. Pure: time is an argument, counted
//! from whatever start the caller has.
//!
//! A failure is the instance's where no connection came about, or where another instance answered the same request. Where
//! nobody answered it, the request may be to blame; that counts too, but once for each client between two answers, so that
//! nobody can have an instance left out that serves all others well.

use std::net::IpAddr;
use std::time::Duration;

/// The longest that an instance is left out at once.
const LONGEST: Duration = Duration::from_secs(300);
/// How long one request that tries an instance out has to show how it is, before another may.
const TRIAL: Duration = Duration::from_secs(1);

/// When an instance is left out, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    /// Failures in a row; 0: never.
    pub(super) after: u32,
    /// The first time; doubled each time in a row, up to five minutes.
    pub(super) span: Duration,
}

/// What is remembered of one instance.
#[derive(Debug, Default)]
pub(super) struct Ejection {
    failures: u32,
    /// Whose requests failed for a reason that may be theirs; as many as failures at most.
    clients: Vec<IpAddr>,
    /// How often in a row it was left out.
    times: u32,
    /// For how long, the last time.
    span: Duration,
    /// When it came back.
    back: Option<Duration>,
    out: Option<Out>,
}

#[derive(Debug)]
struct Out {
    until: Duration,
    on_trial: bool,
}

impl Ejection {
    /// It failed; for how long it is left out, if that begins now.
    pub(super) fn failed(&mut self, now: Duration, rule: Rule) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1);
        match &self.out {
            // The rest of those that were on their way when it was left out, or nothing else is left to send them to.
            Some(out) if now < out.until && !out.on_trial => return None,
            Some(_) => {}
            None if rule.after == 0 || self.failures < rule.after => return None,
            None => {}
        }
        // It has been well for as long as it was away: that is over.
        if self.back.is_some_and(|back| now.saturating_sub(back) > self.span) {
            self.times = 0;
        }
        self.span = rule.span.saturating_mul(1 << self.times.min(16)).min(LONGEST.max(rule.span));
        self.times += 1;
        self.clients.clear();
        self.back = None;
        self.out = Some(Out { until: now + self.span, on_trial: false });
        Some(self.span)
    }

    /// It failed with a request of `client`, which may be to blame.
    pub(super) fn suspected(&mut self, now: Duration, rule: Rule, client: IpAddr) -> Option<Duration> {
        if self.clients.contains(&client) {
            return None;
        }
        // What is left out is counted by its trials.
        if self.out.is_none() && rule.after > 0 {
            self.clients.push(client);
        }
        self.failed(now, rule)
    }

    /// It answered; whether it had been left out until now.
    pub(super) fn succeeded(&mut self, now: Duration) -> bool {
        self.failures = 0;
        self.clients.clear();
        let was_out = self.out.take().is_some();
        if was_out {
            self.back = Some(now);
        }
        was_out
    }

    /// Its time is over and this request shall try it out; all others wait for the outcome.
    pub(super) fn begin_trial(&mut self, now: Duration) {
        if let Some(out) = self.out.as_mut().filter(|out| out.until <= now) {
            *out = Out { until: now + TRIAL, on_trial: true };
        }
    }

    /// Until when it is left out.
    pub(super) fn out_until(&self) -> Option<Duration> {
        self.out.as_ref().map(|out| out.until)
    }

    /// Whether a success would change nothing.
    pub(super) fn is_clean(&self) -> bool {
        self.failures == 0 && self.out.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule { after: 3, span: Duration::from_secs(10) };

    fn fail(ejection: &mut Ejection, now: Duration) {
        let _ = ejection.failed(now, RULE);
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn only_failures_in_a_row_count() {
        let mut ejection = Ejection::default();
        for _ in 0..5 {
            assert_eq!((ejection.failed(at(0), RULE), ejection.failed(at(0), RULE)), (None, None));
            assert!(!ejection.is_clean() && !ejection.succeeded(at(0)) && ejection.is_clean());
        }
        ejection.failed(at(1), RULE);
        ejection.failed(at(1), RULE);
        assert_eq!(ejection.failed(at(1), RULE), Some(at(10)));
        assert_eq!(ejection.out_until(), Some(at(11)));
        assert_eq!(ejection.failed(at(2), RULE), None, "what was on its way makes it no longer");
        assert!(ejection.succeeded(at(3)), "an answer is an answer");
        assert!(ejection.is_clean());
    }

    #[test]
    fn it_is_tried_out_by_one_request_and_left_out_for_twice_as_long_when_that_fails() {
        let mut ejection = Ejection::default();
        let mut now = at(0);
        (0..2).for_each(|_| assert_eq!(ejection.failed(now, RULE), None));
        let mut spans = vec![ejection.failed(now, RULE).unwrap().as_secs()];
        for _ in 0..6 {
            now = ejection.out_until().unwrap();
            ejection.begin_trial(now);
            assert_eq!(ejection.out_until(), Some(now + TRIAL));
            ejection.begin_trial(now);
            spans.push(ejection.failed(now, RULE).unwrap().as_secs());
        }
        assert_eq!(spans, [10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn a_trial_that_nobody_finished_makes_way_for_the_next() {
        let mut ejection = Ejection::default();
        (0..3).for_each(|_| fail(&mut ejection, at(0)));
        ejection.begin_trial(at(5));
        assert_eq!(ejection.out_until(), Some(at(10)), "its time is not over");
        ejection.begin_trial(at(10));
        ejection.begin_trial(at(12));
        assert_eq!(ejection.out_until(), Some(at(13)));
        assert!(ejection.succeeded(at(13)));
    }

    #[test]
    fn the_doubling_is_forgotten_after_as_long_a_time_without_trouble() {
        for (well, next) in [(5, 20), (11, 10)] {
            let mut ejection = Ejection::default();
            (0..3).for_each(|_| fail(&mut ejection, at(0)));
            ejection.begin_trial(at(10));
            ejection.succeeded(at(10));
            (0..2).for_each(|_| fail(&mut ejection, at(10 + well)));
            assert_eq!(ejection.failed(at(10 + well), RULE), Some(at(next)), "{well} s");
        }
    }

    #[test]
    fn what_may_be_the_requests_fault_counts_once_for_each_client() {
        let client = |last: u8| IpAddr::from([192, 0, 2, last]);
        let mut ejection = Ejection::default();
        for _ in 0..100 {
            assert_eq!(ejection.suspected(at(0), RULE, client(1)), None);
        }
        assert_eq!(ejection.suspected(at(0), RULE, client(2)), None);
        ejection.succeeded(at(0));
        assert_eq!(ejection.suspected(at(0), RULE, client(1)), None);
        assert_eq!(ejection.failed(at(0), RULE), None);
        assert_eq!(ejection.suspected(at(0), RULE, client(1)), None, "known already");
        assert_eq!(ejection.suspected(at(0), RULE, client(2)), Some(at(10)));
        ejection.begin_trial(at(10));
        assert_eq!(ejection.suspected(at(10), RULE, client(1)), Some(at(20)), "a trial has one request");
    }

    #[test]
    fn zero_switches_it_off() {
        let mut ejection = Ejection::default();
        let off = Rule { after: 0, ..RULE };
        (0..100).for_each(|_| assert_eq!(ejection.failed(at(0), off), None));
    }
}
