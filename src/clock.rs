//! The clocks. Only this file reads them; pure functions take `now` as an argument.

use std::num::NonZeroU64;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

/// Reads the monotonic clock, for deadlines and durations.
pub(crate) fn now() -> Instant {
    #[cfg(test)]
    if let Some(now) = crate::sync::model_now() {
        return now;
    }
    Instant::now()
}

/// Reads the wall clock, for display. It may be set forward or back.
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}

/// A point on the monotonic clock in nanoseconds. It has half the size of an `Instant`, and `Option` does not enlarge
/// it, so that each connection can store several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CompactInstant(NonZeroU64);

/// The origin of compact instants: before any instant that is used, and 584 years before the last that can be
/// represented.
static ORIGIN: LazyLock<Instant> = LazyLock::new(|| {
    let now = now();
    now.checked_sub(Duration::from_secs(3600)).unwrap_or(now)
});

impl CompactInstant {
    /// Rounds up to a multiple of `part`; returns `self` if `part` is zero.
    pub(crate) fn round_up_to(self, part: Duration) -> Self {
        let part = u64::try_from(part.as_nanos()).unwrap_or(u64::MAX);
        let late = (self.0.get() - 1).checked_rem(part).unwrap_or_default();
        Self(self.0.saturating_add(if late > 0 { part - late } else { 0 }))
    }
}

impl From<Instant> for CompactInstant {
    #[inline]
    fn from(instant: Instant) -> Self {
        let since = instant.saturating_duration_since(*ORIGIN);
        let nanos = since.as_secs().saturating_mul(1_000_000_000).saturating_add(since.subsec_nanos().into());
        Self(NonZeroU64::MIN.saturating_add(nanos))
    }
}

impl From<CompactInstant> for Instant {
    #[inline]
    fn from(moment: CompactInstant) -> Self {
        let since = Duration::from_nanos(moment.0.get() - 1);
        // The system's clock can represent every compact instant.
        ORIGIN.checked_add(since).unwrap_or(*ORIGIN)
    }
}

/// A point on the monotonic clock, rounded down to tenths of a second. It has half the size of a [`CompactInstant`],
/// and does not change after 13 years.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CoarseInstant(u32);

impl From<Instant> for CoarseInstant {
    fn from(instant: Instant) -> Self {
        let since = instant.saturating_duration_since(*ORIGIN);
        Self(u32::try_from(since.as_millis() / 100).unwrap_or(u32::MAX))
    }
}

impl From<CoarseInstant> for Instant {
    fn from(tenth: CoarseInstant) -> Self {
        ORIGIN.checked_add(Duration::from_millis(100) * tenth.0).unwrap_or(*ORIGIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl CompactInstant {
        /// A constant for reproducible histories.
        pub(crate) const FIRST: Self = Self(NonZeroU64::MIN);
    }

    #[test]
    fn a_compact_instant_is_exact() {
        for offset in [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(100 * 365 * 24 * 3600)] {
            let instant = now() + offset;
            assert_eq!(Instant::from(CompactInstant::from(instant)), instant);
        }
        assert!(
            CompactInstant::from(now() + Duration::from_nanos(1_000_000))
                > CompactInstant::from(now() - Duration::from_secs(9))
        );
        assert_eq!(size_of::<Option<CompactInstant>>(), 8);
    }

    #[test]
    fn rounding_is_the_same_for_all_instants() {
        let part = Duration::from_millis(10);
        for late in [0, 1, 5_000_000, 10_000_000] {
            let moment =
                CompactInstant::from(Instant::from(CompactInstant::FIRST) + Duration::from_nanos(30_000_000 + late));
            let end = moment.round_up_to(part);
            assert_eq!((end.round_up_to(part), end.round_up_to(Duration::ZERO)), (end, end));
            assert!(end >= moment && Instant::from(end) - Instant::from(moment) < part);
        }
        assert!(CompactInstant::FIRST.round_up_to(Duration::MAX) == CompactInstant::FIRST);
        assert!(CompactInstant::from(now()).round_up_to(Duration::MAX) > CompactInstant::from(now()));
    }

    #[test]
    fn a_coarse_instant_is_rounded_down_to_a_tenth_of_a_second() {
        for offset in [Duration::ZERO, Duration::from_millis(99), Duration::from_secs(12 * 365 * 24 * 3600)] {
            let instant = now() + offset;
            let tenth = Instant::from(CoarseInstant::from(instant));
            assert!(tenth <= instant && instant - tenth < Duration::from_millis(100));
        }
        let (far, end) = (now() + Duration::from_secs(20 * 365 * 24 * 3600), Duration::from_millis(100) * u32::MAX);
        assert_eq!(Instant::from(CoarseInstant::from(far)), *ORIGIN + end);
    }
}
