//! The measurements of the loop: counts for each server, rates, latencies, and a few sample batches.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use notifyman::{Batch, ConnId, Error, NotificationRef};

use super::latency::LatencyHistogram;
use super::message::DemoMessage;
use super::writer::micros;

/// The time between two rates, and the number of rates that are kept.
pub(crate) const RATE_PERIOD: Duration = Duration::from_millis(500);
const RATES_KEPT: usize = 32;
/// The time between two sample batches, long enough to read one; and the number of samples that are shown.
const SAMPLE_PERIOD: Duration = Duration::from_millis(400);
const SAMPLES: usize = 4;

/// The counts of one server.
#[derive(Debug, Default)]
pub(crate) struct ServerCounts {
    pub(crate) received: u64,
    /// Notifications that arrived twice, after a later one, or that no writer sent.
    pub(crate) wrong: u64,
    /// Connections that are open.
    pub(crate) open: usize,
    /// Connections that are lost and not restored.
    pub(crate) lost: usize,
    /// Connections that were restored.
    pub(crate) restored: usize,
    /// The longest gap of a restored connection.
    pub(crate) gap: Duration,
    /// `true` once the lost connections are being revived.
    pub(crate) is_reviving: bool,
    /// The reason for the first loss.
    pub(crate) reason: Option<Error>,
    pub(crate) rate: Rate,
}

/// The state of one connection.
struct DemoConnection {
    cluster: usize,
    /// The last sequence number received.
    last: u64,
    is_open: bool,
}

/// A batch that is shown.
pub(crate) struct Sample {
    pub(crate) connection: ConnId,
    pub(crate) cluster: usize,
    pub(crate) len: usize,
    pub(crate) first: String,
}

/// The measurements.
pub(crate) struct Meter {
    /// The origin of the times in messages.
    pub(crate) began: Instant,
    connections: HashMap<ConnId, DemoConnection>,
    pub(crate) clusters: Vec<ServerCounts>,
    pub(crate) received: u64,
    pub(crate) batches: u64,
    pub(crate) idles: u64,
    pub(crate) rate: Rate,
    /// All latencies.
    pub(crate) latency: LatencyHistogram,
    /// The latencies of the last whole period.
    pub(crate) recent: LatencyHistogram,
    /// The latencies of the current period.
    current: LatencyHistogram,
    rates_at: Instant,
    pub(crate) samples: VecDeque<Sample>,
    sample_at: Instant,
}

impl Meter {
    /// Creates the measurements; `began` is the origin of the times in messages.
    pub(crate) fn new(clusters: usize, began: Instant) -> Self {
        Self {
            began,
            connections: HashMap::new(),
            clusters: (0..clusters).map(|_| ServerCounts::default()).collect(),
            received: 0,
            batches: 0,
            idles: 0,
            rate: Rate::default(),
            latency: LatencyHistogram::default(),
            recent: LatencyHistogram::default(),
            current: LatencyHistogram::default(),
            rates_at: began + RATE_PERIOD,
            samples: VecDeque::new(),
            sample_at: began,
        }
    }

    /// Sets the origin of the times, once the setup is complete.
    pub(crate) fn begin(&mut self, now: Instant) {
        (self.began, self.rates_at, self.sample_at) = (now, now + RATE_PERIOD, now);
    }

    pub(crate) fn add_connection(&mut self, id: ConnId, cluster: usize) {
        self.connections.insert(id, DemoConnection { cluster, last: 0, is_open: true });
        self.clusters[cluster].open += 1;
    }

    /// Counts a loss; returns the connection's server if this is the first loss there.
    pub(crate) fn remove_lost(&mut self, id: ConnId, error: Error) -> Option<usize> {
        // A connection that could not be revived is lost again.
        let connection = self.connections.get_mut(&id).filter(|connection| connection.is_open)?;
        connection.is_open = false;
        let counts = &mut self.clusters[connection.cluster];
        counts.open -= 1;
        counts.lost += 1;
        let is_first = counts.reason.is_none();
        counts.reason.get_or_insert(error);
        is_first.then_some(connection.cluster)
    }

    /// Counts a restored connection; returns its server.
    pub(crate) fn restore(&mut self, id: ConnId, gap: Duration) -> Option<usize> {
        let connection = self.connections.get_mut(&id).filter(|connection| !connection.is_open)?;
        connection.is_open = true;
        let counts = &mut self.clusters[connection.cluster];
        counts.open += 1;
        counts.lost -= 1;
        counts.restored += 1;
        counts.gap = counts.gap.max(gap);
        Some(connection.cluster)
    }

    pub(crate) fn count_batch(&mut self, id: ConnId, batch: &Batch, now: Instant) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let counts = &mut self.clusters[connection.cluster];
        let arrived_at = micros(now - self.began);
        for n in batch {
            // Sequence numbers only grow, so a repeated or late one is not greater than the last.
            match n.payload_str().ok().and_then(DemoMessage::parse) {
                Some(message) if message.number > connection.last => {
                    connection.last = message.number;
                    let latency = arrived_at.saturating_sub(message.sent_at);
                    self.latency.record(latency);
                    self.current.record(latency);
                }
                _ => counts.wrong += 1,
            }
        }
        counts.received += batch.len() as u64;
        self.received += batch.len() as u64;
        self.batches += 1;
        if now >= self.sample_at {
            self.sample_at = now + SAMPLE_PERIOD;
            let first = batch.iter().next().map(summary_of).unwrap_or_default();
            self.samples.push_front(Sample { connection: id, cluster: connection.cluster, len: batch.len(), first });
            self.samples.truncate(SAMPLES);
        }
    }

    /// Updates the rates at the end of each period.
    pub(crate) fn update_rates(&mut self, now: Instant) {
        while now >= self.rates_at {
            self.rates_at += RATE_PERIOD;
            self.rate.update(self.received);
            for counts in &mut self.clusters {
                counts.rate.update(counts.received);
            }
            self.recent = std::mem::take(&mut self.current);
        }
    }
}

/// Formats a notification for a sample: `prices_2: stale prices:4711`.
fn summary_of(n: NotificationRef<'_>) -> String {
    let payload = n.payload();
    format!("{}: {}", n.channel(), payload.split(" #").next().unwrap_or_default())
}

/// The growth of a count per time.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    count: u64,
    /// The growth in each period, oldest first.
    pub(crate) history: VecDeque<u64>,
    pub(crate) peak: u64,
}

impl Rate {
    /// Adds a period, at the end of which this is the count.
    pub(crate) fn update(&mut self, count: u64) {
        self.history.push_back(count.saturating_sub(self.count));
        self.count = count;
        if self.history.len() > RATES_KEPT {
            self.history.pop_front();
        }
        if self.history.len() > 1 {
            self.peak = self.peak.max(self.per_second());
        }
    }

    /// Returns the rate of the last second.
    pub(crate) fn per_second(&self) -> u64 {
        self.history.iter().rev().take(2).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_covers_the_last_second() {
        let mut rate = Rate::default();
        for count in [10, 30, 30, 130] {
            rate.update(count);
        }
        assert_eq!(rate.per_second(), 100);
        assert_eq!(rate.peak, 100);
        assert_eq!(rate.history, [10, 20, 0, 100]);
        rate.update(130);
        rate.update(130);
        assert_eq!(rate.per_second(), 0);
    }
}
