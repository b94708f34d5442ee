//! What the listening side saw: counts for each server, rates, times, and a few batches to look at.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use notifyman::{Batch, ConnId, Error, NotificationRef};

use super::latency::Latency;
use super::message::Message;
use super::writer::micros;

/// How often rates are taken, and how many of them are kept.
pub(crate) const RATE_PERIOD: Duration = Duration::from_millis(500);
const RATES_KEPT: usize = 32;
/// How often a batch is picked to be shown, slow enough to be read; and how many are.
const SAMPLE_PERIOD: Duration = Duration::from_millis(400);
const SAMPLES: usize = 4;

/// What came from one server.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) received: u64,
    /// Notifications that came twice or after a later one, or that nobody had sent.
    pub(crate) wrong: u64,
    pub(crate) good: usize,
    pub(crate) lost: usize,
    /// How many have come back, and after how long at most.
    pub(crate) revived: usize,
    pub(crate) gap: Duration,
    /// Whether those that are lost are being brought back.
    pub(crate) reviving: bool,
    /// Why the first of its connections was lost.
    pub(crate) reason: Option<Error>,
    pub(crate) rate: Rate,
}

/// A connection's server, and the last number that it heard.
struct Ear {
    cluster: usize,
    last: u64,
    good: bool,
}

/// A batch that was picked to be shown.
pub(crate) struct Sample {
    pub(crate) connection: ConnId,
    pub(crate) cluster: usize,
    pub(crate) len: usize,
    pub(crate) first: String,
}

/// See the module.
pub(crate) struct Meter {
    began: Instant,
    ears: HashMap<ConnId, Ear>,
    pub(crate) clusters: Vec<Tally>,
    pub(crate) received: u64,
    pub(crate) batches: u64,
    pub(crate) idles: u64,
    pub(crate) rate: Rate,
    /// Of all, and of the latest period.
    pub(crate) latency: Latency,
    pub(crate) recent: Latency,
    gathering: Latency,
    rates_at: Instant,
    pub(crate) samples: VecDeque<Sample>,
    sample_at: Instant,
}

impl Meter {
    /// Begins at this time, from which the messages count theirs.
    pub(crate) fn new(clusters: usize, began: Instant) -> Self {
        Self {
            began,
            ears: HashMap::new(),
            clusters: (0..clusters).map(|_| Tally::default()).collect(),
            received: 0,
            batches: 0,
            idles: 0,
            rate: Rate::default(),
            latency: Latency::default(),
            recent: Latency::default(),
            gathering: Latency::default(),
            rates_at: began + RATE_PERIOD,
            samples: VecDeque::new(),
            sample_at: began,
        }
    }

    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// The clock begins only now, after everything was set up.
    pub(crate) fn begin(&mut self, now: Instant) {
        (self.began, self.rates_at, self.sample_at) = (now, now + RATE_PERIOD, now);
    }

    pub(crate) fn connected(&mut self, id: ConnId, cluster: usize) {
        self.ears.insert(id, Ear { cluster, last: 0, good: true });
        self.clusters[cluster].good += 1;
    }

    /// Gives the server whose first connection this was to be lost.
    pub(crate) fn lost(&mut self, id: ConnId, error: Error) -> Option<usize> {
        // One that couldn't be revived is lost again.
        let ear = self.ears.get_mut(&id).filter(|ear| ear.good)?;
        ear.good = false;
        let tally = &mut self.clusters[ear.cluster];
        tally.good -= 1;
        tally.lost += 1;
        let first = tally.reason.is_none();
        tally.reason.get_or_insert(error);
        first.then_some(ear.cluster)
    }

    /// Gives the server of a connection that is back.
    pub(crate) fn restored(&mut self, id: ConnId, gap: Duration) -> Option<usize> {
        let ear = self.ears.get_mut(&id).filter(|ear| !ear.good)?;
        ear.good = true;
        let tally = &mut self.clusters[ear.cluster];
        tally.good += 1;
        tally.lost -= 1;
        tally.revived += 1;
        tally.gap = tally.gap.max(gap);
        Some(ear.cluster)
    }

    pub(crate) fn batch(&mut self, id: ConnId, batch: &Batch, now: Instant) {
        let Some(ear) = self.ears.get_mut(&id) else { return };
        let tally = &mut self.clusters[ear.cluster];
        let came_at = micros(now - self.began);
        for n in batch {
            // Each server's numbers grow, so what comes twice, or too late, is not larger than the last.
            match n.payload_str().ok().and_then(Message::read) {
                Some(message) if message.number > ear.last => {
                    ear.last = message.number;
                    let took = came_at.saturating_sub(message.sent_at);
                    self.latency.record(took);
                    self.gathering.record(took);
                }
                _ => tally.wrong += 1,
            }
        }
        tally.received += batch.len() as u64;
        self.received += batch.len() as u64;
        self.batches += 1;
        if now >= self.sample_at {
            self.sample_at = now + SAMPLE_PERIOD;
            let first = batch.iter().next().map(shown).unwrap_or_default();
            self.samples.push_front(Sample { connection: id, cluster: ear.cluster, len: batch.len(), first });
            self.samples.truncate(SAMPLES);
        }
    }

    /// Takes the rates, where that is due.
    pub(crate) fn take_rates(&mut self, now: Instant) {
        while now >= self.rates_at {
            self.rates_at += RATE_PERIOD;
            self.rate.take(self.received);
            for tally in &mut self.clusters {
                tally.rate.take(tally.received);
            }
            self.recent = std::mem::take(&mut self.gathering);
        }
    }
}

/// `prices_2: stale prices:4711`.
fn shown(n: NotificationRef<'_>) -> String {
    let payload = n.payload();
    format!("{}: {}", n.channel(), payload.split(" #").next().unwrap_or_default())
}

/// How fast a count grows.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    count: u64,
    history: VecDeque<u64>,
    pub(crate) peak: u64,
}

impl Rate {
    fn take(&mut self, count: u64) {
        self.history.push_back(count.saturating_sub(self.count));
        self.count = count;
        if self.history.len() > RATES_KEPT {
            self.history.pop_front();
        }
        if self.history.len() > 1 {
            self.peak = self.peak.max(self.per_second());
        }
    }

    /// Over the last second.
    pub(crate) fn per_second(&self) -> u64 {
        self.history.iter().rev().take(2).sum()
    }

    /// What came in each period, the oldest first.
    pub(crate) fn history(&self) -> impl Iterator<Item = u64> {
        self.history.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_the_last_second() {
        let mut rate = Rate::default();
        for count in [10, 30, 30, 130] {
            rate.take(count);
        }
        assert_eq!(rate.per_second(), 100);
        assert_eq!(rate.peak, 100);
        assert_eq!(rate.history().collect::<Vec<_>>(), [10, 20, 0, 100]);
        rate.take(130);
        rate.take(130);
        assert_eq!(rate.per_second(), 0);
    }
}
