//! The readers of the act, each with a connection of its own to the engine, and their counts.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use notifyman::relay::RelayReader;
use notifyman::{Batch, Error, Event};

use super::process::STREAM;
use crate::cli::clock;
use crate::cli::demo::latency::LatencyHistogram;
use crate::cli::demo::message::DemoMessage;
use crate::cli::demo::writer::micros;
use crate::cli::outcome::Failure;

/// The time without an entry after which a reader reports a loss: more than the period and the deadline of the relays' canary.
const SILENCE: Duration = Duration::from_secs(4);
/// The time between two looks at whether the act is over.
const PERIOD: Duration = Duration::from_millis(100);

/// The counts of all readers at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReaderCounts {
    /// The number of readers.
    pub(crate) readers: usize,
    /// The readers that have found the end of the stream.
    pub(crate) open: usize,
    pub(crate) received: u64,
    /// Notifications that arrived twice, after a later one, or that no writer sent.
    pub(crate) wrong: u64,
    /// Numbers that were neither received nor in a gap.
    pub(crate) missing: u64,
    /// Numbers that were not received, and are in a gap that was reported.
    pub(crate) in_gaps: u64,
    pub(crate) gaps: u64,
    /// The last number of the reader that is furthest behind.
    pub(crate) slowest: u64,
    /// The times from NOTIFY to a reader.
    pub(crate) latency: LatencyHistogram,
    /// The longest of these times since the leader was killed.
    pub(crate) pause: Option<u64>,
    pub(crate) error: Option<Error>,
}

/// The state that the threads share.
struct ReaderMeter {
    counts: ReaderCounts,
    began: Instant,
    /// The last number of each reader.
    last: Vec<u64>,
    is_pause_watched: bool,
}

/// The threads.
pub(crate) struct DemoReaders {
    meter: Arc<Mutex<ReaderMeter>>,
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl DemoReaders {
    pub(crate) fn start(number: usize, engine: &str, began: Instant) -> Result<Self, Failure> {
        let counts = ReaderCounts { readers: number, ..ReaderCounts::default() };
        let meter = ReaderMeter { counts, began, last: vec![0; number], is_pause_watched: false };
        let mut readers = Self { meter: Arc::new(Mutex::new(meter)), is_over: Arc::default(), threads: Vec::new() };
        for number in 0..number {
            let builder = RelayReader::builder([engine])?.stream(STREAM).silence(SILENCE).timeout(PERIOD);
            let mut reader = builder.build()?;
            let (meter, is_over) = (Arc::clone(&readers.meter), Arc::clone(&readers.is_over));
            let read = move || {
                let mut has_gap = false;
                while !is_over.load(Relaxed) {
                    let Some(event) = reader.next_event() else { break };
                    lock(&meter).record(number, event, &mut has_gap);
                }
            };
            let thread = thread::Builder::new().name("reader".into()).spawn(read);
            readers
                .threads
                .push(thread.map_err(|error| Failure::Failed(format!("could not start a reader: {error}")))?);
        }
        Ok(readers)
    }

    /// Sets the origin of the times in messages.
    pub(crate) fn begin(&self, began: Instant) {
        lock(&self.meter).began = began;
    }

    /// Begins to look for the longest time from NOTIFY to a reader.
    pub(crate) fn watch_pause(&self) {
        lock(&self.meter).is_pause_watched = true;
    }

    pub(crate) fn counts(&self) -> ReaderCounts {
        let meter = lock(&self.meter);
        let slowest = meter.last.iter().min().copied().unwrap_or_default();
        ReaderCounts { slowest, ..meter.counts.clone() }
    }

    /// Waits for the end of the threads, and returns the counts.
    pub(crate) fn finish(&mut self) -> ReaderCounts {
        self.is_over.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            // A panic was reported when it happened.
            let _ = thread.join();
        }
        self.counts()
    }
}

impl Drop for DemoReaders {
    fn drop(&mut self) {
        self.finish();
    }
}

impl ReaderMeter {
    /// Records an event of a reader. `has_gap` says whether it has reported a gap since its last notification.
    fn record(&mut self, reader: usize, event: Event, has_gap: &mut bool) {
        match event {
            Event::Opened(_) => self.counts.open += 1,
            Event::Notifies(_, batch) => self.record_batch(reader, &batch, has_gap),
            Event::Restored(_, gap) if !gap.channels().is_empty() => {
                self.counts.gaps += 1;
                *has_gap = true;
            }
            Event::Lost(_, error) => drop(self.counts.error.get_or_insert(error)),
            _ => {}
        }
    }

    fn record_batch(&mut self, reader: usize, batch: &Batch, has_gap: &mut bool) {
        let arrived_at = micros(clock::now() - self.began);
        let counts = &mut self.counts;
        counts.received += batch.len() as u64;
        for n in batch {
            let last = &mut self.last[reader];
            let Some(message) = n.payload_str().ok().and_then(DemoMessage::parse).filter(|it| it.number > *last) else {
                counts.wrong += 1;
                continue;
            };
            let skipped = message.number - *last - 1;
            let count = if std::mem::take(has_gap) { &mut counts.in_gaps } else { &mut counts.missing };
            *count += skipped;
            *last = message.number;
            let latency = arrived_at.saturating_sub(message.sent_at);
            counts.latency.record(latency);
            if self.is_pause_watched {
                counts.pause = counts.pause.max(Some(latency));
            }
        }
    }
}

fn lock(meter: &Mutex<ReaderMeter>) -> MutexGuard<'_, ReaderMeter> {
    meter.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use notifyman::{ConnId, Gap, Notification};

    #[test]
    fn each_number_is_received_missing_in_a_gap_or_wrong() {
        let counts = ReaderCounts { readers: 2, ..ReaderCounts::default() };
        let mut meter = ReaderMeter { counts, began: clock::now(), last: vec![0; 2], is_pause_watched: false };
        let id = ConnId::of_source(1, STREAM);
        let mut has_gap = false;
        let batch = |numbers: &[u64]| {
            let message = |number: &u64| DemoMessage { table: "prices", row: 1, number: *number, sent_at: 0 };
            let notification = |number| Notification::new("prices_1", message(number).to_string(), 1);
            Event::Notifies(id, numbers.iter().map(notification).collect())
        };
        let gap = |channels: &[&str]| {
            Event::Restored(id, Gap::new(channels.iter().copied(), Error::Disconnected, Duration::ZERO))
        };
        let events =
            [batch(&[1, 2]), gap(&[]), batch(&[4]), gap(&["prices_1"]), batch(&[8, 9]), batch(&[9, 11]), gap(&["a"])];
        for event in events {
            meter.record(1, event, &mut has_gap);
        }
        let counts = &meter.counts;
        let found = (counts.received, counts.missing, counts.in_gaps, counts.wrong, counts.gaps);
        assert_eq!(found, (7, 2, 3, 1, 2));
        assert_eq!(meter.last, [0, 11]);
    }
}
