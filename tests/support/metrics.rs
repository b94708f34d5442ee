//! Metrics as a recorder has received them.

use std::collections::BTreeMap;

use metrics_util::debugging::{DebugValue, Snapshotter};

/// The values of all metrics, each by its name with its labels: `name{label=value}`.
#[derive(Debug, Default)]
pub struct Metrics {
    counters: BTreeMap<String, u64>,
    gauges: BTreeMap<String, f64>,
    histograms: BTreeMap<String, Vec<f64>>,
    /// The names of the metrics that have no description.
    pub undescribed: Vec<String>,
}

impl Metrics {
    /// Adds what has been recorded since the last call.
    pub fn update(&mut self, snapshotter: &Snapshotter) {
        for (key, _, description, value) in snapshotter.snapshot().into_vec() {
            let (name, labels) = key.key().clone().into_parts();
            let labels: Vec<_> = labels.iter().map(|label| format!("{}={}", label.key(), label.value())).collect();
            if description.is_none() {
                self.undescribed.push(name.as_str().to_owned());
            }
            let key = match labels.is_empty() {
                true => name.as_str().to_owned(),
                false => format!("{}{{{}}}", name.as_str(), labels.join(",")),
            };
            match value {
                DebugValue::Counter(n) => *self.counters.entry(key).or_default() += n,
                // A snapshot sets the values of the recorder to zero.
                DebugValue::Gauge(value) => *self.gauges.entry(key).or_default() += value.into_inner(),
                DebugValue::Histogram(values) => {
                    self.histograms.entry(key).or_default().extend(values.into_iter().map(|value| value.into_inner()));
                }
            }
        }
    }

    pub fn counter(&self, key: &str) -> u64 {
        self.counters.get(key).copied().unwrap_or_default()
    }

    pub fn gauge(&self, key: &str) -> f64 {
        self.gauges.get(key).copied().unwrap_or_default()
    }

    pub fn histogram(&self, key: &str) -> &[f64] {
        self.histograms.get(key).map_or(&[], Vec::as_slice)
    }

    /// Returns the number of metrics with their labels.
    pub fn len(&self) -> usize {
        self.counters.len() + self.gauges.len() + self.histograms.len()
    }
}
