//! The counters of a notifier, which several threads write.

pub(crate) mod held_work;

use std::time::Duration;

use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counters of a notifier over all its databases and runs, and its present state.
///
/// ```
/// # fn main() -> Result<(), notifyman::Error> {
/// # let n = notifyman::Notifier::builder("host=localhost user=shop")?.autorun(false).build::<u32>();
/// let stats = n.stats();
/// println!("{} of {} delivered", stats.delivered, stats.received);
/// println!("{} dropped", stats.dropped);
/// # assert_eq!(stats, Default::default());
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotifierStats {
    /// Notifications received.
    pub received: u64,
    /// Calls with a notification.
    pub delivered: u64,
    /// Calls with a report of missed notifications.
    pub missed: u64,
    /// Notifications not delivered to a subscriber because its queue was full; one for each subscriber.
    pub dropped: u64,
    /// Notifications folded into an equal one; one for each subscriber.
    pub folded: u64,
    /// Panics of callbacks.
    pub panics: u64,
    /// Sessions lost.
    pub losses: u64,
    /// Sessions restored.
    pub restores: u64,
    /// Notifications in subscribers' queues now. Those of one subscriber that a dispatching thread is handing over are not counted
    /// any more, up to eight.
    pub waiting: u64,
    /// Subscribers now, one for each database that they use.
    pub subscribers: u64,
    /// Channels that the servers have acknowledged and still listen to, without the system channel.
    pub channels: u64,
    /// Open sessions now.
    pub sessions: u64,
    /// Sessions that would be needed in addition if each subscriber had its own.
    pub sessions_saved: u64,
    /// Time from the sending of the latest [canary](crate::notifier::NotifierBuilder::canary) to the last session that
    /// received it; `None` before the first, and while the notifier is not running.
    pub canary_time: Option<Duration>,
}

#[derive(Debug, Default)]
pub(crate) struct NotifierCounters {
    pub(crate) received: AtomicCounter,
    /// For each dispatching thread.
    pub(crate) delivered: Box<[ThreadCounter]>,
    pub(crate) missed: AtomicCounter,
    pub(crate) dropped: AtomicCounter,
    pub(crate) folded: AtomicCounter,
    pub(crate) panics: AtomicCounter,
    pub(crate) losses: AtomicCounter,
    pub(crate) restores: AtomicCounter,
    /// The position of the last notification that was published.
    pub(crate) published: AtomicU64,
}

impl NotifierCounters {
    pub(crate) fn new(workers: usize) -> Self {
        Self { delivered: (0..workers).map(|_| ThreadCounter::default()).collect(), ..Self::default() }
    }

    /// Returns the counters; the other fields are 0.
    pub(crate) fn read(&self) -> NotifierStats {
        NotifierStats {
            received: self.received.get(),
            delivered: self.delivered.iter().map(|counter| counter.0.get()).sum(),
            missed: self.missed.get(),
            dropped: self.dropped.get(),
            folded: self.folded.get(),
            panics: self.panics.get(),
            losses: self.losses.get(),
            restores: self.restores.get(),
            ..NotifierStats::default()
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct AtomicCounter(AtomicU64);

impl AtomicCounter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A counter that one thread writes, in a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct ThreadCounter(AtomicCounter);

impl ThreadCounter {
    #[cfg(feature = "metrics")]
    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.get()
    }

    #[inline]
    pub(crate) fn add_one(&self) {
        let counter = &self.0.0;
        counter.store(counter.load(Relaxed) + 1, Relaxed);
    }
}
