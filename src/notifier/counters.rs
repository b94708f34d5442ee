//! Counters of a notifier, written by several threads.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a notifier has done so far, and what it holds now; over all its databases and runs.
///
/// ```
/// # fn main() -> Result<(), notifyman::Error> {
/// # let n = notifyman::Notifier::builder("host=localhost user=shop")?.autorun(false).build::<u32>();
/// let stats = n.stats();
/// println!("{} of {} delivered, {} dropped", stats.delivered, stats.heard, stats.dropped);
/// # assert_eq!(stats, Default::default());
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotifierStats {
    /// Notifications that came.
    pub heard: u64,
    /// Calls with a notification.
    pub delivered: u64,
    /// Calls that told of something missed.
    pub missed: u64,
    /// Notifications that weren't delivered to a subscriber because its queue was full; once for each subscriber.
    pub dropped: u64,
    /// Notifications that were folded into an equal one; once for each subscriber.
    pub folded: u64,
    /// Callbacks that panicked.
    pub panics: u64,
    /// Sessions lost.
    pub losses: u64,
    /// Sessions restored.
    pub restores: u64,
    /// Notifications that wait in subscribers' queues, now.
    pub waiting: u64,
    /// Subscribers, each counted once for a database, now.
    pub subscribers: u64,
    /// Channels that the servers have acknowledged, now; without the system's channel.
    pub channels: u64,
    /// Sessions that are open, now.
    pub sessions: u64,
    /// How many more sessions it would be if each subscriber had its own.
    pub sessions_saved: u64,
    /// How long the latest [canary](crate::notifier::NotifierBuilder::canary) took to the session that heard it last, in
    /// microseconds, from its sending; 0 before one has come, and where the notifier doesn't run.
    pub canary_micros: u64,
}

#[derive(Debug, Default)]
pub(crate) struct NotifierCounters {
    pub(crate) heard: AtomicCounter,
    pub(crate) delivered: AtomicCounter,
    pub(crate) missed: AtomicCounter,
    pub(crate) dropped: AtomicCounter,
    pub(crate) folded: AtomicCounter,
    pub(crate) panics: AtomicCounter,
    pub(crate) losses: AtomicCounter,
    pub(crate) restores: AtomicCounter,
}

impl NotifierCounters {
    /// What was counted; the rest is for whoever knows it.
    pub(crate) fn read(&self) -> NotifierStats {
        NotifierStats {
            heard: self.heard.get(),
            delivered: self.delivered.get(),
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
