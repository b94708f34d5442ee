//! Converts times of an engine's clock into instants that are never too late.
//!
//! ```text
//!   request ──▶ TIME ──▶ answer         the engine's clock is ahead of the request by more than of the moment of TIME
//!      └─ offset ─┘
//! ```

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The number of measurements whose largest offset is used.
const KEPT_MAX: usize = 8;

/// Measurements of an engine's clock.
///
/// A canary was sent at a time of the engine's clock, by a relay that does not know the reader's. The largest of the last
/// offsets is used, so that the instant is not too late if the engine's clock is set back or forward once in between, or if another
/// server with another clock has become the master.
#[derive(Debug)]
pub(super) struct EngineClock {
    origin: Instant,
    /// The time of the engine's clock, minus the time since the origin at which it was requested, in microseconds.
    offsets: VecDeque<i128>,
}

impl EngineClock {
    pub(super) fn new(origin: Instant) -> Self {
        Self { origin, offsets: VecDeque::new() }
    }

    /// Adds a measurement: the engine answered with this time since 1970, when it was requested at `requested`.
    pub(super) fn measure(&mut self, requested: Instant, answer: Duration) {
        if self.offsets.len() == KEPT_MAX {
            self.offsets.pop_front();
        }
        self.offsets.push_back(micros(answer) - micros(requested.saturating_duration_since(self.origin)));
    }

    /// Converts a time of the engine's clock, in milliseconds since 1970, to an instant that is not later. It is never later than
    /// `received`. Returns `None` if there is no measurement, or the time is before the origin.
    pub(super) fn convert(&self, unix_ms: u64, received: Instant) -> Option<Instant> {
        let since_origin = i128::from(unix_ms) * 1000 - self.offsets.iter().max()?;
        let since_origin = Duration::from_micros(u64::try_from(since_origin).ok()?);
        self.origin.checked_add(since_origin).map(|at| at.min(received))
    }
}

fn micros(time: Duration) -> i128 {
    i128::try_from(time.as_micros()).unwrap_or(i128::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIX: Duration = Duration::from_secs(1_800_000_000);

    fn ms(time: Duration) -> u64 {
        time.as_millis() as u64
    }

    #[test]
    fn r03_a_canary_is_never_dated_later_than_it_was_sent() {
        let origin = Instant::now();
        let at = |seconds| origin + Duration::from_secs(seconds);
        let mut clock = EngineClock::new(origin);
        assert_eq!(clock.convert(ms(UNIX), at(9)), None);
        // The engine's clock shows 1.8e9 s at the origin. The request takes 2 s.
        clock.measure(at(10), UNIX + Duration::from_secs(12));
        assert_eq!(clock.convert(ms(UNIX) + 20_000, at(30)), Some(at(18)));
        // A faster answer does not make it later, because the clock may have been set between.
        clock.measure(at(40), UNIX + Duration::from_secs(40));
        assert_eq!(clock.convert(ms(UNIX) + 20_000, at(50)), Some(at(18)));
        // Set forward by 100 s before the canary, and back after it.
        clock.measure(at(60), UNIX + Duration::from_secs(160));
        clock.measure(at(70), UNIX + Duration::from_secs(70));
        assert_eq!(clock.convert(ms(UNIX) + 161_000, at(71)), Some(at(61)));
        // A wrong time is not in the future, and one before the reader began certifies nothing.
        assert_eq!(clock.convert(ms(UNIX) + 900_000, at(71)), Some(at(71)));
        assert_eq!(clock.convert(0, at(71)), None);
        for second in 0..KEPT_MAX as u64 {
            clock.measure(at(80 + second), UNIX + Duration::from_secs(80 + second));
        }
        assert_eq!(clock.convert(ms(UNIX) + 85_000, at(90)), Some(at(85)), "old measurements are forgotten");
    }
}
