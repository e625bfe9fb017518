//! Active checks: each instance is asked for a path every few seconds, once for the whole process, over connections of the
//! same kind as the requests'.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, StatusCode, header};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::body::RequestBody;
use super::exchange;
use super::fleet::{Directory, Instance};
use super::pool::Pool;
use super::{UpstreamError, UpstreamSettings};
use crate::telemetry::chain;

/// How many instances are asked at a time.
const AT_ONCE: usize = 16;

/// How instances are asked, checked.
#[derive(Debug, Clone)]
pub struct HealthSettings {
    /// What they are asked for: a path, perhaps with a query.
    pub path: String,
    /// From one question to the next. Default 10 s.
    pub interval: Duration,
    /// For the answer's head, connection included. Default 2 s.
    pub timeout: Duration,
    /// Good answers in a row that bring an instance back. Default 2.
    pub healthy_after: u32,
    /// Bad ones in a row that take it out. Default 3.
    pub unhealthy_after: u32,
    /// The statuses of a good answer. Default 200 to 299.
    pub expect: RangeInclusive<u16>,
}

impl Default for HealthSettings {
    fn default() -> Self {
        Self {
            path: "/".to_owned(),
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(2),
            healthy_after: 2,
            unhealthy_after: 3,
            expect: 200..=299,
        }
    }
}

/// Why an instance is not well.
#[derive(Debug, thiserror::Error)]
enum Illness {
    #[error("it was not reached")]
    Unreached(#[source] UpstreamError),
    #[error("it took longer than the check's timeout")]
    Slow,
    #[error("it answered {0}")]
    Status(StatusCode),
}

/// What is remembered of an instance. The first answer decides alone; until then it is taken to be well.
#[derive(Debug, Default)]
struct Streak {
    is_well: Option<bool>,
    against: u32,
}

impl Streak {
    /// Whether it is well, if this answer changes that.
    fn observe(&mut self, passed: bool, settings: &HealthSettings) -> Option<bool> {
        let enough = if passed { settings.healthy_after } else { settings.unhealthy_after };
        match self.is_well {
            Some(is_well) if is_well == passed => {
                self.against = 0;
                return None;
            }
            Some(_) => {
                self.against += 1;
                if self.against < enough {
                    return None;
                }
            }
            None => {}
        }
        *self = Self { is_well: Some(passed), against: 0 };
        Some(passed)
    }
}

/// Asks every instance of `directory` again and again, for as long as the process lives.
pub(super) async fn run(directory: Arc<Directory>, settings: HealthSettings) {
    let mut listing = directory.subscribe();
    let mut known: Vec<(Arc<Instance>, Streak)> = Vec::new();
    loop {
        let begun = Instant::now();
        // The checks are a use of the name: it stays resolved.
        directory.note_use();
        if !listing.borrow().fresh {
            directory.want();
            if listing.wait_for(|listing| listing.fresh).await.is_err() {
                return;
            }
        }
        let instances = listing.borrow_and_update().instances.clone();
        known.retain(|(instance, _)| instances.iter().any(|listed| Arc::ptr_eq(listed, instance)));
        for instance in instances.iter().filter(|instance| instance.is_preferred()) {
            if !known.iter().any(|(known, _)| Arc::ptr_eq(known, instance)) {
                known.push((Arc::clone(instance), Streak::default()));
            }
        }
        for some in known.chunks_mut(AT_ONCE) {
            ask_some(&directory, &settings, some).await;
        }
        // New addresses are asked at once.
        let _ = timeout_at(begun + settings.interval, listing.changed()).await;
    }
}

async fn ask_some(directory: &Arc<Directory>, settings: &HealthSettings, some: &mut [(Arc<Instance>, Streak)]) {
    let mut asked = JoinSet::new();
    for (index, (instance, _)) in some.iter().enumerate() {
        let (directory, instance, settings) = (Arc::clone(directory), Arc::clone(instance), settings.clone());
        asked.spawn(async move { (index, ask(&directory.settings, &instance, &settings).await) });
    }
    while let Some(Ok((index, outcome))) = asked.join_next().await {
        let (instance, streak) = &mut some[index];
        let was_known = streak.is_well.is_some();
        if let Some(is_well) = streak.observe(outcome.is_ok(), settings) {
            instance.set_checks(is_well);
            tell(directory, instance, outcome, was_known);
        }
    }
}

async fn ask(upstream: &UpstreamSettings, instance: &Instance, settings: &HealthSettings) -> Result<(), Illness> {
    let deadline = Instant::now() + settings.timeout;
    let pool = Pool::new(upstream, instance.address.clone());
    let asking = async {
        // A connection of its own: one that is kept says nothing about whether there are new ones to be had.
        let mut lease = pool.connect(false, deadline).await?;
        exchange::ask(&mut lease, request(upstream, instance, settings), upstream).await
    };
    match timeout_at(deadline, asking).await {
        Ok(Ok(response)) if settings.expect.contains(&response.status().as_u16()) => Ok(()),
        Ok(Ok(response)) => Err(Illness::Status(response.status())),
        Ok(Err(UpstreamError::ConnectTimeout)) | Err(_) => Err(Illness::Slow),
        Ok(Err(error)) => Err(Illness::Unreached(error)),
    }
}

fn request(upstream: &UpstreamSettings, instance: &Instance, settings: &HealthSettings) -> Request<RequestBody> {
    let mut request = Request::new(RequestBody::empty());
    // Configuration has checked it; the front page stands in for a path that none of it let through.
    *request.uri_mut() = settings.path.parse().unwrap_or_else(|_| http::Uri::from_static("/"));
    let host = upstream.host_header.clone().unwrap_or_else(|| instance.address.authority());
    let headers = request.headers_mut();
    headers
        .insert(header::HOST, HeaderValue::from_str(&host).unwrap_or_else(|_| HeaderValue::from_static("localhost")));
    headers.insert(header::USER_AGENT, HeaderValue::from_static("vestibule-health"));
    request
}

fn tell(directory: &Directory, instance: &Instance, outcome: Result<(), Illness>, was_known: bool) {
    let (upstream, instance) = (&directory.settings.name, &instance.address);
    match outcome {
        Err(illness) => {
            tracing::warn!(
                upstream,
                %instance,
                reason = "upstream_unhealthy",
                cause = chain(&illness),
                "an instance of the upstream fails its checks and is left out; look into its log, or at upstream.health"
            );
            directory.tell_if_none_is_well();
        }
        Ok(()) if was_known => {
            tracing::info!(upstream, %instance, "an instance of the upstream passes its checks again");
        }
        Ok(()) => tracing::debug!(upstream, %instance, "an instance of the upstream passes its checks"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_answer_decides_and_later_ones_only_in_a_row() {
        let settings = HealthSettings { healthy_after: 2, unhealthy_after: 3, ..HealthSettings::default() };
        for (answers, changes) in
            [("+", "+"), ("-", "-"), ("+--+--+---", "+........-"), ("---+-+-++", "-.......+"), ("-++---", "-.+..-")]
        {
            let mut streak = Streak::default();
            let seen: String = answers
                .chars()
                .map(|answer| match streak.observe(answer == '+', &settings) {
                    Some(true) => '+',
                    Some(false) => '-',
                    None => '.',
                })
                .collect();
            assert_eq!(seen, changes, "{answers}");
        }
    }
}
