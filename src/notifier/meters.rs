//! The metrics of a notifier, for the feature `metrics`: what the recorder already has, and the times of callbacks, which the
//! dispatching threads record.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use crate::clock;
use crate::notifier::counters::NotifierStats;
use crate::recorder::{
    CALLBACK, DELIVERIES, DROPPED, FOLDED, Metric, MetricSeries, PANICS, QUEUED, REPORTS, Recording, SUBSCRIBERS,
    record,
};

/// The number of visits of which one is timed.
const VISITS_PER_SAMPLE: u32 = 64;

const COUNTERS: [&Metric; 5] = [DELIVERIES, REPORTS, DROPPED, FOLDED, PANICS];
const GAUGES: [&Metric; 2] = [QUEUED, SUBSCRIBERS];

/// The values that the recorder already has of a notifier.
#[derive(Debug, Default)]
pub(crate) struct NotifierMeters {
    counted: [u64; COUNTERS.len()],
    gauges: [u64; GAUGES.len()],
    /// The recorder that has the gauges.
    recorder: usize,
}

impl NotifierMeters {
    /// Publishes what has changed. The caller holds no lock. Once `is_over`, the notifier leaves the gauges. Returns `true` if
    /// nothing waits, and nothing has changed since the last time.
    pub(crate) fn publish(&mut self, stats: &NotifierStats, is_over: bool) -> bool {
        let counts = [stats.delivered, stats.missed, stats.dropped, stats.folded, stats.panics];
        let gauges = if is_over { [0, 0] } else { [stats.waiting, stats.subscribers] };
        let is_quiet = stats.waiting == 0 && self.counted == counts && self.gauges == gauges;
        record(|recording| self.publish_to(recording, counts, gauges));
        is_quiet
    }

    fn publish_to(&mut self, recording: &Recording<'_>, counts: [u64; COUNTERS.len()], gauges: [u64; GAUGES.len()]) {
        if std::mem::replace(&mut self.recorder, recording.address()) != recording.address() {
            self.gauges = Default::default();
        }
        for ((count, counted), metric) in counts.into_iter().zip(&mut self.counted).zip(COUNTERS) {
            let n = count.saturating_sub(*counted);
            *counted = count;
            if n > 0 {
                recording.add(&MetricSeries::new(metric, &[]), n);
            }
        }
        for ((value, published), metric) in gauges.into_iter().zip(&mut self.gauges).zip(GAUGES) {
            let by = value.cast_signed() - published.cast_signed();
            *published = value;
            if by != 0 {
                recording.change(&MetricSeries::new(metric, &[]), by);
            }
        }
    }
}

/// The times of callbacks on one thread, until no lock is held.
#[derive(Debug, Default)]
pub(crate) struct CallbackTimes {
    visits: Cell<u32>,
    times: RefCell<Vec<Duration>>,
}

impl CallbackTimes {
    /// Returns the time, if the visit to a subscriber that begins is timed.
    #[inline]
    pub(crate) fn begin(&self) -> Option<Instant> {
        let visits = self.visits.get();
        self.visits.set(visits.wrapping_add(1));
        visits.is_multiple_of(VISITS_PER_SAMPLE).then(clock::now)
    }

    /// Records the mean of the calls of a visit that is timed.
    #[inline]
    pub(crate) fn end(&self, began: Option<Instant>, calls: u64) {
        if let (Some(began), Ok(calls @ 1..)) = (began, u32::try_from(calls)) {
            let time = clock::now().saturating_duration_since(began);
            self.times.borrow_mut().push(time / calls);
        }
    }

    /// Hands over the times to the recorder. The caller holds no lock. The next visit is timed again.
    pub(crate) fn publish(&self) {
        self.visits.set(0);
        let times = std::mem::take(&mut *self.times.borrow_mut());
        if !times.is_empty() {
            let series = MetricSeries::new(CALLBACK, &[]);
            record(|recording| times.iter().for_each(|time| recording.observe(&series, *time)));
        }
    }
}
