//! Counts by the names of connections, and what of them the recorder already has.

use std::time::Duration;

use super::metered::{ConnectionCount, ConnectionSet};
use crate::manager::conn_id::ConnId;
use crate::recorder::{
    ATTEMPTS, CANARY, CONNECTIONS, FAILED_ATTEMPTS, GAPS, IN_TRANSACTION, LOSSES, Metric, MetricSeries, NOTIFICATIONS,
    RECEIVED_BYTES, RESTORES, Recording, record,
};

/// The metrics of the counts, in the order of [`ConnectionCount`].
const COUNTERS: [&Metric; 7] = [NOTIFICATIONS, RECEIVED_BYTES, LOSSES, RESTORES, GAPS, ATTEMPTS, FAILED_ATTEMPTS];
/// The values of the label `state`, in the order of [`ConnectionSet`].
const STATES: [&str; 3] = ["open", "restoring", "lost"];
/// The value of the label `connection` for connections without a name.
const UNNAMED: &str = "other";

#[derive(Debug, Default)]
pub(super) struct MeterTable {
    /// By the number of the name.
    names: Vec<Option<Box<NameMeter>>>,
    /// The names of which something has changed.
    changed: Vec<u16>,
    in_transaction: GaugeMeter,
    /// The recorder that has the published values of gauges.
    recorder: usize,
}

/// The counts of all connections with one name.
#[derive(Debug)]
struct NameMeter {
    name: &'static str,
    is_changed: bool,
    /// Counted since the last publication.
    counts: [u64; COUNTERS.len()],
    counters: [Option<MetricSeries>; COUNTERS.len()],
    sets: [GaugeMeter; STATES.len()],
    canaries: Vec<Duration>,
    canary: Option<MetricSeries>,
}

/// A value of a gauge, which is a part of what the recorder has.
#[derive(Debug, Default)]
struct GaugeMeter {
    value: i64,
    published: i64,
    series: Option<MetricSeries>,
}

impl MeterTable {
    /// Returns the counts of the connections with the name of this one.
    #[inline]
    fn change(&mut self, id: ConnId) -> &mut NameMeter {
        let number = id.name_number();
        let index = usize::from(number);
        if index >= self.names.len() {
            self.names.resize_with(index + 1, || None);
        }
        let place = &mut self.names[index];
        let meter = place.get_or_insert_with(|| Box::new(NameMeter::new(id.name().unwrap_or(UNNAMED))));
        if !std::mem::replace(&mut meter.is_changed, true) {
            self.changed.push(number);
        }
        meter
    }

    #[inline]
    pub(super) fn add(&mut self, id: ConnId, count: ConnectionCount, n: u64) {
        if n > 0 {
            self.change(id).counts[count as usize] += n;
        }
    }

    pub(super) fn moved(&mut self, id: ConnId, from: Option<ConnectionSet>, to: Option<ConnectionSet>) {
        let sets = &mut self.change(id).sets;
        from.into_iter().for_each(|from| sets[from as usize].value -= 1);
        to.into_iter().for_each(|to| sets[to as usize].value += 1);
    }

    pub(super) fn add_canary(&mut self, id: ConnId, time: Duration) {
        self.change(id).canaries.push(time);
    }

    pub(super) fn set_in_transaction(&mut self, count: usize) {
        self.in_transaction.value = count as i64;
    }

    #[inline]
    pub(super) fn publish(&mut self) {
        if !self.changed.is_empty() || self.in_transaction.is_changed() {
            record(|recording| self.publish_to(recording));
        }
    }

    fn publish_to(&mut self, recording: &Recording<'_>) {
        if self.recorder != recording.address() {
            self.recorder = recording.address();
            self.in_transaction.published = 0;
            self.changed.clear();
            for (number, meter) in (0..).zip(&mut self.names) {
                if let Some(meter) = meter {
                    meter.is_changed = true;
                    meter.sets.iter_mut().for_each(|set| set.published = 0);
                    self.changed.push(number);
                }
            }
        }
        self.in_transaction.publish(recording, || MetricSeries::new(IN_TRANSACTION, &[]));
        while let Some(number) = self.changed.pop() {
            if let Some(Some(meter)) = self.names.get_mut(usize::from(number)) {
                meter.publish(recording);
            }
        }
    }

    /// Returns the sizes of the sets, over all names.
    #[cfg(test)]
    pub(super) fn set_sizes(&self) -> [i64; STATES.len()] {
        let of = |set: usize| self.names.iter().flatten().map(|meter| meter.sets[set].value).sum();
        [0, 1, 2].map(of)
    }
}

/// The connections of a manager leave the gauges with it.
impl Drop for MeterTable {
    fn drop(&mut self) {
        let Self { names, changed, in_transaction, recorder } = self;
        for (number, meter) in (0..).zip(names) {
            if let Some(meter) = meter {
                meter.sets.iter_mut().for_each(|set| set.value = 0);
                if !std::mem::replace(&mut meter.is_changed, true) {
                    changed.push(number);
                }
            }
        }
        in_transaction.value = 0;
        let last = *recorder;
        record(|recording| {
            if recording.address() == last {
                self.publish_to(recording);
            }
        });
    }
}

impl NameMeter {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            is_changed: false,
            counts: Default::default(),
            counters: Default::default(),
            sets: Default::default(),
            canaries: Vec::new(),
            canary: None,
        }
    }

    fn publish(&mut self, recording: &Recording<'_>) {
        let Self { name, is_changed, counts, counters, sets, canaries, canary } = self;
        *is_changed = false;
        for ((count, series), metric) in counts.iter_mut().zip(counters).zip(COUNTERS) {
            // What a recorder that panics has not taken is not offered again.
            let n = std::mem::take(count);
            if n > 0 {
                recording.add(series.get_or_insert_with(|| MetricSeries::new(metric, &[name])), n);
            }
        }
        for (set, state) in sets.iter_mut().zip(STATES) {
            set.publish(recording, || MetricSeries::new(CONNECTIONS, &[name, state]));
        }
        for time in std::mem::take(canaries) {
            recording.observe(canary.get_or_insert_with(|| MetricSeries::new(CANARY, &[name])), time);
        }
    }
}

impl GaugeMeter {
    fn is_changed(&self) -> bool {
        self.value != self.published
    }

    fn publish(&mut self, recording: &Recording<'_>, series: impl FnOnce() -> MetricSeries) {
        let by = self.value - std::mem::replace(&mut self.published, self.value);
        if by != 0 {
            recording.change(self.series.get_or_insert_with(series), by);
        }
    }
}
