//! The times of a stream: how often its place is marked, and when a leader has failed.

use std::time::Duration;

/// The times of a stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RelayPace {
    /// The time between two markers of a relay.
    pub(crate) period: Duration,
    /// The time that a marker may take.
    pub(crate) deadline: Duration,
}

impl RelayPace {
    /// Returns the time without a marker after which a candidate sends one: later than the leader, and before a marker is missed,
    /// by its own times and by the silence of the leader.
    pub(crate) fn candidate_period(&self, silence: Duration) -> Duration {
        self.period.saturating_add((self.period / 4).min(self.deadline / 2)).min(silence - silence / 8)
    }

    /// Returns the time without an entry after which a leader has failed.
    pub(crate) fn silence(&self) -> Duration {
        self.period.saturating_add(self.deadline)
    }

    /// Returns the same time as readers of the stream need it, at least a millisecond.
    pub(crate) fn silence_ms(&self) -> u64 {
        u64::try_from(self.silence().as_millis()).unwrap_or(u64::MAX).max(1)
    }
}
