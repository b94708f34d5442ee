//! The metrics of the crate, and the way to the recorder of the feature `metrics`.
//!
//! A recorder is code of the user: it may panic, block or call this crate. So it is called only while no lock is held, and its
//! panics are caught. Counts are collected without it, and handed over once for each turn of a loop.
//!
//! Handles of metrics are not kept, since a recorder may be installed at any time, and may remove metrics that are idle.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use metrics::{Key, KeyName, Label, Level, Metadata, Recorder, Unit};

/// A metric that the crate records.
#[derive(Debug)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) kind: MetricKind,
    unit: Option<Unit>,
    /// The names of its labels.
    pub(crate) labels: &'static [&'static str],
    pub(crate) description: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

/// Declares the metrics, each as a constant, and the list of them all.
macro_rules! metrics {
    ($($constant:ident = $kind:ident $name:literal $unit:expr, $labels:expr, $description:literal;)*) => {
        $(
            pub(crate) const $constant: &Metric = &Metric {
                name: $name,
                kind: MetricKind::$kind,
                unit: $unit,
                labels: &$labels,
                description: $description,
            };
        )*

        pub(crate) const ALL: &[&Metric] = &[$($constant),*];
    };
}

const CONNECTION: &str = "connection";

metrics! {
    CONNECTIONS = Gauge "notifyman_connections" None, [CONNECTION, "state"],
        "Connections: open, restoring, or lost and kept in the garbage";
    IN_TRANSACTION = Gauge "notifyman_connections_in_transaction" None, [],
        "Connections that receive nothing, because their transaction has been open for more than a second";
    NOTIFICATIONS = Counter "notifyman_notifications_total" None, [CONNECTION],
        "Notifications received";
    RECEIVED_BYTES = Counter "notifyman_received_bytes_total" Some(Unit::Bytes), [CONNECTION],
        "Bytes read from servers";
    LOSSES = Counter "notifyman_losses_total" None, [CONNECTION],
        "Connections lost, and connections that could not be opened";
    RESTORES = Counter "notifyman_restores_total" None, [CONNECTION],
        "Connections restored";
    GAPS = Counter "notifyman_gaps_total" None, [CONNECTION],
        "Gaps reported, in which notifications may have been missed";
    ATTEMPTS = Counter "notifyman_connection_attempts_total" None, [CONNECTION],
        "Attempts to open or restore a connection";
    FAILED_ATTEMPTS = Counter "notifyman_failed_connection_attempts_total" None, [CONNECTION],
        "Attempts to open or restore a connection that failed";
    CANARY = Histogram "notifyman_canary_delivery_seconds" Some(Unit::Seconds), [CONNECTION],
        "Time from the sending of a canary to its arrival";
    DELIVERIES = Counter "notifyman_deliveries_total" None, [],
        "Calls of callbacks with a notification";
    REPORTS = Counter "notifyman_missed_reports_total" None, [],
        "Calls of callbacks with a report of missed notifications";
    DROPPED = Counter "notifyman_dropped_notifications_total" None, [],
        "Notifications not delivered to a subscriber because its queue was full";
    FOLDED = Counter "notifyman_folded_notifications_total" None, [],
        "Notifications folded into an equal one in the queue of a subscriber";
    PANICS = Counter "notifyman_callback_panics_total" None, [],
        "Panics of callbacks";
    QUEUED = Gauge "notifyman_queued_notifications" None, [],
        "Notifications in the queues of subscribers";
    SUBSCRIBERS = Gauge "notifyman_subscribers" None, [],
        "Subscribers, one for each database that they use";
    CALLBACK = Histogram "notifyman_callback_seconds" Some(Unit::Seconds), [],
        "Time of a callback, of a sample of the calls";
}

/// A metric with the values of its labels.
#[derive(Debug)]
pub(crate) struct MetricSeries(Key);

impl MetricSeries {
    /// Returns the series of a metric with these values, in the order of its labels.
    pub(crate) fn new(metric: &Metric, values: &[&'static str]) -> Self {
        let labels = metric.labels.iter().zip(values).map(|(name, value)| Label::from_static_parts(name, value));
        Self(Key::from_parts(metric.name, labels.collect::<Vec<_>>()))
    }
}

/// The recorder, for a while.
pub(crate) struct Recording<'r> {
    recorder: &'r dyn Recorder,
    address: usize,
}

const METADATA: Metadata<'static> = Metadata::new("notifyman", Level::INFO, Some("notifyman"));

impl Recording<'_> {
    /// Returns a number that differs between recorders. Gauges begin at zero in each.
    pub(crate) fn address(&self) -> usize {
        self.address
    }

    /// Increments a counter.
    pub(crate) fn add(&self, series: &MetricSeries, n: u64) {
        self.recorder.register_counter(&series.0, &METADATA).increment(n);
    }

    /// Changes a gauge, which is the sum over all managers or notifiers of the process.
    pub(crate) fn change(&self, series: &MetricSeries, by: i64) {
        let gauge = self.recorder.register_gauge(&series.0, &METADATA);
        let size = by.unsigned_abs() as f64;
        if by < 0 { gauge.decrement(size) } else { gauge.increment(size) }
    }

    /// Adds a time to a histogram.
    pub(crate) fn observe(&self, series: &MetricSeries, time: Duration) {
        self.recorder.register_histogram(&series.0, &METADATA).record(time.as_secs_f64());
    }

    fn describe(&self, metric: &Metric) {
        let (name, unit) = (KeyName::from_const_str(metric.name), metric.unit);
        let description = metric.description.into();
        match metric.kind {
            MetricKind::Counter => self.recorder.describe_counter(name, unit, description),
            MetricKind::Gauge => self.recorder.describe_gauge(name, unit, description),
            MetricKind::Histogram => self.recorder.describe_histogram(name, unit, description),
        }
    }
}

/// The address of the recorder to which the metrics were last described.
static DESCRIBED: AtomicUsize = AtomicUsize::new(0);
/// The address of a recorder that has panicked. It is not called again.
static BROKEN: AtomicUsize = AtomicUsize::new(0);

/// Calls a function with the recorder of this thread or process, while the caller holds no lock. If the recorder panics, that
/// is logged, and from then on this recorder is not called by the crate any more.
pub(crate) fn record(write: impl FnOnce(&Recording<'_>)) {
    let address = Cell::new(0);
    let call = || {
        metrics::with_recorder(|recorder| {
            address.set(std::ptr::from_ref(recorder).cast::<()>().addr());
            let recording = Recording { recorder, address: address.get() };
            if BROKEN.load(Relaxed) == recording.address {
                return;
            }
            if DESCRIBED.load(Relaxed) != recording.address {
                DESCRIBED.store(recording.address, Relaxed);
                ALL.iter().for_each(|metric| recording.describe(metric));
            }
            write(&recording);
        });
    };
    if let Err(panic) = catch_unwind(AssertUnwindSafe(call)) {
        BROKEN.store(address.get(), Relaxed);
        #[cfg(feature = "tracing")]
        tracing::error!(target: "notifyman", "the metrics recorder panicked: no more metrics are recorded by it");
        // Dropping the payload of the panic could panic again.
        std::mem::forget(panic);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the rows of the table in the documentation: name, type, unit and labels.
    fn documented() -> Vec<[String; 4]> {
        let (page, _) = include_str!("docs/metrics.md").split_once("# The program").unwrap();
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `notifyman_"));
        rows.map(|row| {
            let cells: Vec<_> =
                format!("notifyman_{row}").split('|').map(|cell| cell.trim().replace('`', "")).collect();
            [0, 1, 2, 3].map(|at| cells[at].clone())
        })
        .collect()
    }

    #[test]
    fn the_page_lists_each_metric_with_its_type_unit_and_labels() {
        let unit = |metric: &Metric| metric.unit.map_or("", |unit| unit.as_str()).to_owned();
        let defined: Vec<_> = ALL
            .iter()
            .map(|it| [it.name.into(), format!("{:?}", it.kind).to_lowercase(), unit(it), it.labels.join(", ")])
            .collect();
        assert_eq!(documented(), defined);
    }

    #[test]
    fn names_follow_the_conventions() {
        for metric in ALL {
            let is_counter = metric.kind == MetricKind::Counter;
            assert_eq!(metric.name.ends_with("_total"), is_counter, "{}", metric.name);
            let base = metric.name.trim_end_matches("_total");
            for (unit, word) in [(Unit::Seconds, "_seconds"), (Unit::Bytes, "_bytes")] {
                assert_eq!(metric.unit == Some(unit), base.ends_with(word), "{}", metric.name);
            }
            assert!(!metric.description.ends_with('.') && !metric.description.is_empty());
        }
    }
}
