//! The schedule of the audit: one timer for all connections, which are audited in turn.

use std::time::{Duration, Instant};

use super::log::{self, SharedTimer};
use crate::manager::conn_id::ConnId;

/// The shortest period.
const PERIOD_MIN: Duration = Duration::from_secs(1);
/// The shortest time between two steps.
const STEP_MIN: Duration = Duration::from_millis(10);

/// The time of the next step, and the connection that was audited last.
#[derive(Debug)]
pub(super) struct AuditSchedule {
    pub(super) period: Duration,
    pub(super) next: Option<Instant>,
    pub(super) last: Option<ConnId>,
}

impl AuditSchedule {
    pub(super) fn new(period: Duration, now: Instant) -> Self {
        Self { period: period.max(PERIOD_MIN), next: now.checked_add(PERIOD_MIN), last: None }
    }

    /// Returns how many of `count` connections are due. Audits that were missed in a long pause are not made up for.
    pub(super) fn due(&mut self, now: Instant, count: usize) -> usize {
        if self.next.is_none_or(|next| now < next) {
            return 0;
        }
        log::shared_timer_fired(SharedTimer::Audit);
        let each = self.period / u32::try_from(count.max(1)).unwrap_or(u32::MAX);
        let step = each.max(STEP_MIN);
        self.next = now.checked_add(step);
        if each.is_zero() { count } else { step.div_duration_f64(each).ceil() as usize }.min(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m16_each_connection_is_audited_once_a_period_and_never_all_together() {
        for count in [1, 7, 100, 5_000] {
            let start = Instant::now();
            let (period, mut now) = (Duration::from_secs(10), start);
            let mut schedule = AuditSchedule::new(period, start);
            let (mut audited, mut most) = (0, 0);
            while now < start + 10 * period {
                now = schedule.next.unwrap();
                let due = schedule.due(now, count);
                (audited, most) = (audited + due, most.max(due));
                assert!(schedule.next.unwrap() > now, "the time advances");
            }
            assert!((count * 9..=count * 11 + 1).contains(&audited), "{audited} of {count} in ten periods");
            assert!(most <= 1 + count / 900, "{most} of {count} together");
        }
    }

    #[test]
    fn m16_audits_missed_in_a_long_pause_are_not_made_up_for() {
        let start = Instant::now();
        let mut schedule = AuditSchedule::new(Duration::from_secs(10), start);
        assert_eq!(schedule.due(start + Duration::from_secs(3600), 100), 1);
        assert_eq!(schedule.due(start + Duration::from_secs(3600), 100), 0);
    }

    #[test]
    fn m16_a_period_is_at_least_a_second() {
        assert_eq!(AuditSchedule::new(Duration::ZERO, Instant::now()).period, Duration::from_secs(1));
    }
}
