//! Prometheus metrics: counters per worker, summed when they are scraped, so that no request writes a line that another
//! core reads.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

/// The media type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Upper bounds of the duration buckets, in microseconds; one more bucket holds the rest.
const BOUNDS: [u64; 11] = [500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 1_000_000, 5_000_000];

/// Everything that is counted, all workers.
pub struct Metrics {
    started: SystemTime,
    workers: Mutex<Vec<Arc<Cells>>>,
    families: Mutex<Vec<Family>>,
}

/// One worker's counters.
#[derive(Debug, Clone)]
pub struct WorkerMetrics {
    cells: Arc<Cells>,
}

/// Of nobody's scrape.
#[cfg(test)]
impl Default for WorkerMetrics {
    fn default() -> Self {
        Self { cells: Arc::default() }
    }
}

/// Written by one worker, so that adding costs a few nanoseconds; still added atomically, so that nothing is lost where a
/// task moves to another thread. Aligned, so that two workers' cells never share a cache line (or a prefetched pair).
#[derive(Debug, Default)]
#[repr(align(128))]
struct Cells {
    classes: [AtomicU64; CLASSES.len()],
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
    /// Keys are constants of the program, so both tables are bounded by it.
    refusals: Mutex<Table>,
    sign_ins: Mutex<Table>,
    kept_posts: Mutex<Table>,
    cuts: Mutex<Table>,
}

type Table = BTreeMap<&'static str, u64>;

/// What is kept elsewhere and read at each scrape.
struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    read: Box<dyn Fn() -> Vec<Sample> + Send + Sync>,
}

/// One value of a family that is told apart by labels.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Names and values; as many at a time as the configuration and the world around it are bounded to.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: u64,
}

impl Metrics {
    /// A fresh set.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { started: SystemTime::now(), workers: Mutex::default(), families: Mutex::default() })
    }

    /// Counters for one more worker.
    pub fn worker(self: &Arc<Self>) -> WorkerMetrics {
        let cells = Arc::<Cells>::default();
        lock(&self.workers).push(Arc::clone(&cells));
        WorkerMetrics { cells }
    }

    /// Adds a value that is read at each scrape, such as the number of open connections. `name` without our prefix, in
    /// the base unit.
    pub fn gauge(&self, name: &'static str, help: &'static str, read: impl Fn() -> u64 + Send + Sync + 'static) {
        self.gauges(name, help, move || vec![Sample { labels: Vec::new(), value: read() }]);
    }

    /// As [`Metrics::gauge`], one for each set of labels.
    pub fn gauges(
        &self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> Vec<Sample> + Send + Sync + 'static,
    ) {
        lock(&self.families).push(Family { name, help, kind: MetricType::Gauge, read: Box::new(read) });
    }

    /// As [`Metrics::gauge`], for a value that only grows.
    pub fn counter(&self, name: &'static str, help: &'static str, read: impl Fn() -> u64 + Send + Sync + 'static) {
        self.counters(name, help, move || vec![Sample { labels: Vec::new(), value: read() }]);
    }

    /// As [`Metrics::gauges`], for values that only grow.
    pub fn counters(
        &self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> Vec<Sample> + Send + Sync + 'static,
    ) {
        lock(&self.families).push(Family { name, help, kind: MetricType::Counter, read: Box::new(read) });
    }

    /// The exposition text ([`CONTENT_TYPE`]).
    pub fn render(self: &Arc<Self>) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Arc::clone(self)));
        let mut text = String::with_capacity(8 * 1024);
        // Writing to a String can't fail; what is there is whole lines in any case.
        let _ = text::encode(&mut text, &registry);
        text
    }

    fn sum(&self) -> Totals {
        let mut totals = Totals::default();
        for cells in lock(&self.workers).iter() {
            let add = |totals: &mut [u64], cells: &[AtomicU64]| {
                totals.iter_mut().zip(cells).for_each(|(total, cell)| *total += cell.load(Ordering::Relaxed));
            };
            add(&mut totals.classes, &cells.classes);
            add(&mut totals.buckets, &cells.buckets);
            totals.micros += cells.micros.load(Ordering::Relaxed);
            merge(&mut totals.refusals, &cells.refusals);
            merge(&mut totals.sign_ins, &cells.sign_ins);
            merge(&mut totals.kept_posts, &cells.kept_posts);
            merge(&mut totals.cuts, &cells.cuts);
        }
        totals
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("workers", &self.workers).finish_non_exhaustive()
    }
}

impl WorkerMetrics {
    /// One finished request: status class, and the reason code where it was refused.
    pub fn request(&self, status: u16, reason: Option<&'static str>, duration: Duration) {
        self.class(status);
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.iter().take_while(|bound| micros > **bound).count();
        self.cells.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.cells.micros.fetch_add(micros, Ordering::Relaxed);
        if let Some(reason) = reason {
            count(&self.cells.refusals, reason);
        }
    }

    /// One request that was refused before it could be read: it has no duration, since no head of it ever ended.
    pub fn unread(&self, status: u16, reason: &'static str) {
        self.class(status);
        count(&self.cells.refusals, reason);
    }

    /// One connection that was closed for a reason, whatever was counted of its requests.
    pub fn cut(&self, reason: &'static str) {
        count(&self.cells.refusals, reason);
    }

    /// One stream that ended before its end: an answer's body whose head was out, or a tunnel.
    pub fn stream_cut(&self, reason: &'static str) {
        count(&self.cells.cuts, reason);
    }

    fn class(&self, status: u16) {
        let class = usize::from(status / 100).clamp(1, CLASSES.len()) - 1;
        self.cells.classes[class].fetch_add(1, Ordering::Relaxed);
    }

    /// One finished sign-in: `ok` or a reason code.
    pub fn sign_in(&self, outcome: &'static str) {
        count(&self.cells.sign_ins, outcome);
    }

    /// One post whose session was over: `kept`, `sent` after all, or the reason code of why not.
    pub fn kept_post(&self, outcome: &'static str) {
        count(&self.cells.kept_posts, outcome);
    }
}

/// All workers together.
#[derive(Debug, Default)]
struct Totals {
    classes: [u64; CLASSES.len()],
    buckets: [u64; BOUNDS.len() + 1],
    micros: u64,
    refusals: Table,
    sign_ins: Table,
    kept_posts: Table,
    cuts: Table,
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let totals = self.sum();
        let classes = CLASSES.into_iter().zip(totals.classes);
        let requests = "Requests answered, by class of their status.";
        encode_counters(&mut encoder, ("vestibule_requests", requests), "status", classes)?;
        let refusals = "Requests and connections refused, by reason code.";
        encode_counters(&mut encoder, ("vestibule_refusals", refusals), "reason", totals.refusals)?;
        let sign_ins = "Sign-ins finished, by outcome: ok, or a reason code.";
        encode_counters(&mut encoder, ("vestibule_sign_ins", sign_ins), "outcome", totals.sign_ins)?;
        let kept_posts = "Forms whose session was over, by outcome: kept, sent, or a reason code.";
        encode_counters(&mut encoder, ("vestibule_kept_posts", kept_posts), "outcome", totals.kept_posts)?;
        let cuts = "Answers and tunnels that ended before their end, by reason code.";
        encode_counters(&mut encoder, ("vestibule_streams_cut", cuts), "reason", totals.cuts)?;

        let help = "Time from a request's head to its answer's head.";
        let kind = MetricType::Histogram;
        let bounds = BOUNDS.iter().map(|micros| *micros as f64 / 1e6).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(totals.buckets).collect();
        encoder
            .encode_descriptor("vestibule_request_duration", help, Some(&Unit::Seconds), kind)?
            .encode_histogram::<NoLabelSet>(totals.micros as f64 / 1e6, totals.buckets.iter().sum(), &buckets, None)?;

        let help = "Log lines lost because their reader was too slow.";
        encoder
            .encode_descriptor("vestibule_log_lines_dropped", help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, f64>(&super::dropped_lines(), None)?;
        for family in lock(&self.families).iter() {
            family.encode(&mut encoder)?;
        }
        self.encode_process(encoder)
    }
}

impl Family {
    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let name = format!("vestibule_{}", self.name);
        let mut family = encoder.encode_descriptor(&name, self.help, None, self.kind)?;
        for Sample { labels, value } in (self.read)() {
            match (self.kind, labels.is_empty()) {
                (MetricType::Counter, true) => family.encode_counter::<NoLabelSet, _, f64>(&value, None)?,
                (MetricType::Counter, false) => {
                    family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&value, None)?;
                }
                (_, true) => family.encode_gauge(&value)?,
                (_, false) => family.encode_family(&labels)?.encode_gauge(&value)?,
            }
        }
        Ok(())
    }
}

impl Metrics {
    fn encode_process(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        encoder
            .encode_descriptor("vestibule_build", "This program.", None, MetricType::Info)?
            .encode_info(&[("version", env!("CARGO_PKG_VERSION"))])?;
        let started = self.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let help = "When this process started, since the Unix epoch.";
        encoder
            .encode_descriptor("process_start_time", help, Some(&Unit::Seconds), MetricType::Gauge)?
            .encode_gauge(&started.as_secs_f64())
    }
}

/// One counter for each value of one label.
fn encode_counters(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    label: &'static str,
    values: impl IntoIterator<Item = (&'static str, u64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (value, count) in values {
        family.encode_family(&[(label, value)])?.encode_counter::<NoLabelSet, _, f64>(&count, None)?;
    }
    Ok(())
}

fn count(table: &Mutex<Table>, key: &'static str) {
    *lock(table).entry(key).or_default() += 1;
}

fn merge(totals: &mut Table, table: &Mutex<Table>) {
    for (key, count) in lock(table).iter() {
        *totals.entry(key).or_default() += count;
    }
}

/// A panic elsewhere leaves counters that are still counters.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str, sample: &str) -> Option<f64> {
        let line = text.lines().find(|line| line.strip_prefix(sample).is_some_and(|rest| rest.starts_with(' ')))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    #[test]
    fn workers_are_summed() {
        let metrics = Metrics::new();
        let workers = [metrics.worker(), metrics.worker()];
        for worker in &workers {
            worker.request(200, None, Duration::from_micros(400));
            worker.request(403, Some("missing_role"), Duration::from_micros(500));
            worker.sign_in("ok");
        }
        workers[0].request(502, Some("upstream_unreachable"), Duration::from_secs(60));
        workers[0].request(101, None, Duration::from_millis(3));
        workers[1].request(0, None, Duration::ZERO);
        workers[1].request(999, None, Duration::ZERO);
        workers[1].sign_in("nonce_mismatch");
        let text = metrics.render();
        for (sample, expected) in [
            (r#"vestibule_requests_total{status="1xx"}"#, 2.0),
            (r#"vestibule_requests_total{status="2xx"}"#, 2.0),
            (r#"vestibule_requests_total{status="3xx"}"#, 0.0),
            (r#"vestibule_requests_total{status="4xx"}"#, 2.0),
            (r#"vestibule_requests_total{status="5xx"}"#, 2.0),
            (r#"vestibule_refusals_total{reason="missing_role"}"#, 2.0),
            (r#"vestibule_refusals_total{reason="upstream_unreachable"}"#, 1.0),
            (r#"vestibule_sign_ins_total{outcome="ok"}"#, 2.0),
            (r#"vestibule_sign_ins_total{outcome="nonce_mismatch"}"#, 1.0),
            ("vestibule_request_duration_seconds_count", 8.0),
            ("vestibule_request_duration_seconds_sum", 60.0048),
            (r#"vestibule_request_duration_seconds_bucket{le="0.0005"}"#, 6.0),
            (r#"vestibule_request_duration_seconds_bucket{le="0.0025"}"#, 6.0),
            (r#"vestibule_request_duration_seconds_bucket{le="0.005"}"#, 7.0),
            (r#"vestibule_request_duration_seconds_bucket{le="5.0"}"#, 7.0),
            (r#"vestibule_request_duration_seconds_bucket{le="+Inf"}"#, 8.0),
        ] {
            assert_eq!(value(&text, sample), Some(expected), "{sample} in\n{text}");
        }
    }

    #[test]
    fn a_request_that_was_never_read_has_a_class_and_a_reason_and_no_duration() {
        let metrics = Metrics::new();
        metrics.worker().unread(431, "head_too_large");
        let text = metrics.render();
        assert_eq!(value(&text, r#"vestibule_requests_total{status="4xx"}"#), Some(1.0));
        assert_eq!(value(&text, r#"vestibule_refusals_total{reason="head_too_large"}"#), Some(1.0));
        assert_eq!(value(&text, "vestibule_request_duration_seconds_count"), Some(0.0));
    }

    #[test]
    fn the_text_is_openmetrics() {
        let metrics = Metrics::new();
        metrics.worker().sign_in("ok");
        metrics.gauge("connections", "Open connections.", || 17);
        let sample = |labels: &[(&'static str, &str)]| {
            let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
            vec![Sample { labels, value: 1 }]
        };
        metrics.gauges("up", "What is up.", move || sample(&[("upstream", "a"), ("instance", "b\"c")]));
        metrics.counters("retries", "Second tries.", move || sample(&[("upstream", "a")]));
        let text = metrics.render();
        assert!(text.ends_with("# EOF\n"));
        assert_eq!(value(&text, "vestibule_connections"), Some(17.0));
        for sample in [r#"vestibule_up{upstream="a",instance="b\"c"}"#, r#"vestibule_retries_total{upstream="a"}"#] {
            assert_eq!(value(&text, sample), Some(1.0), "{sample} in\n{text}");
        }
        assert_eq!(
            value(&text, &format!("vestibule_build_info{{version={:?}}}", env!("CARGO_PKG_VERSION"))),
            Some(1.0)
        );
        assert!(value(&text, "process_start_time_seconds").is_some_and(|started| started > 1.6e9));
        for family in
            ["vestibule_requests counter", "vestibule_request_duration_seconds histogram", "vestibule_build info"]
        {
            assert_eq!(text.matches(&format!("# TYPE {family}\n")).count(), 1, "{family} in\n{text}");
        }
        // OpenMetrics 1.0: no blank line, and every sample belongs to a family that was announced.
        let mut families = Vec::new();
        for line in text.lines().filter(|line| *line != "# EOF") {
            match line.strip_prefix("# TYPE ") {
                Some(rest) => families.push(rest.split(' ').next().unwrap()),
                None => {
                    assert!(line.starts_with("# ") || families.iter().any(|family| line.starts_with(family)), "{line}")
                }
            }
        }
    }

    #[test]
    fn counting_from_many_threads_loses_nothing() {
        let metrics = Metrics::new();
        let shared = metrics.worker();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1_000).for_each(|_| shared.request(200, Some("x"), Duration::ZERO)));
            }
        });
        let text = metrics.render();
        assert_eq!(value(&text, r#"vestibule_requests_total{status="2xx"}"#), Some(4000.0));
        assert_eq!(value(&text, r#"vestibule_refusals_total{reason="x"}"#), Some(4000.0));
    }
}
