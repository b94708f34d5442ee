//! The time at which an idle event is due.

use std::time::{Duration, Instant};

/// The period of idle events, and the end of the current one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Idle {
    period: Option<Duration>,
    due: Option<Instant>,
}

impl Idle {
    /// Returns a timer with this period, which starts with the next [`begin`](Self::begin). With `None`, no idle event is due.
    pub(crate) fn new(period: Option<Duration>) -> Self {
        Self { period, due: None }
    }

    pub(crate) fn period(&self) -> Option<Duration> {
        self.period
    }

    /// Returns `true` if the caller never waits.
    pub(crate) fn is_zero(&self) -> bool {
        self.period == Some(Duration::ZERO)
    }

    /// Returns `true` if there are idle events.
    pub(crate) fn is_timed(&self) -> bool {
        self.period.is_some_and(|period| !period.is_zero())
    }

    /// Starts the period, unless it has been started.
    pub(crate) fn begin(&mut self, now: Instant) {
        if self.due.is_none() && !self.is_zero() {
            self.restart(now);
        }
    }

    /// Starts the next period, because the end of the current one was reported at `now`. Therefore two idle events are never
    /// closer than a period.
    pub(crate) fn restart(&mut self, now: Instant) {
        // A period beyond the range of the clock never ends.
        self.due = self.period.and_then(|period| now.checked_add(period));
    }

    /// Returns the end of the period.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m03_idle_events_are_never_early_and_come_once_per_period() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut idle = Idle::new(Some(second));
        idle.begin(start);
        assert!(!idle.is_due(start + second - Duration::from_nanos(1)));
        assert!(idle.is_due(start + second));
        // After a slow body the idle event is reported late, and the next period begins then.
        idle.restart(start + 5 * second);
        idle.begin(start + 5 * second);
        assert!(!idle.is_due(start + 6 * second - Duration::from_nanos(1)));
        assert!(idle.is_due(start + 6 * second));
    }

    #[test]
    fn m02_without_a_finite_period_no_idle_event_is_due() {
        let start = Instant::now();
        for period in [None, Some(Duration::MAX), Some(Duration::ZERO)] {
            let mut idle = Idle::new(period);
            idle.begin(start);
            assert_eq!(idle.due(), None, "{period:?}");
        }
    }
}
