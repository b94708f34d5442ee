//! Converts times of an engine's clock into instants that are never too late.
//!
//! ```text
//!   request ──▶ TIME ──▶ answer         the engine's clock is ahead of the request by more than of the moment of TIME
//!      └─ offset ─┘
//! ```

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::relay::engine_time::EngineTime;

/// The number of measurements whose largest offset is used.
const KEPT_MAX: usize = 8;

/// Measurements of an engine's clock.
///
/// A canary was sent at a time of the engine's clock, by a relay that does not know the reader's. The largest of the last
/// offsets is used, so that the instant is not too late if the engine's clock is set back or forward once in between. The clock of
/// another engine shows other times, so its measurements are not used.
#[derive(Debug)]
pub(super) struct EngineClock {
    origin: Instant,
    /// The run id of the engine.
    engine: Box<str>,
    /// The time of the engine's clock, minus the time since the origin at which it was requested, in microseconds.
    offsets: VecDeque<i128>,
}

impl EngineClock {
    pub(super) fn new(origin: Instant) -> Self {
        Self { origin, engine: Box::default(), offsets: VecDeque::new() }
    }

    /// Adds a measurement: the engine with this run id answered with this time since 1970, when it was requested at `requested`.
    pub(super) fn measure(&mut self, engine: &str, requested: Instant, answer: Duration) {
        if *self.engine != *engine {
            self.engine = engine.into();
            self.offsets.clear();
        }
        if self.offsets.len() == KEPT_MAX {
            self.offsets.pop_front();
        }
        self.offsets.push_back(micros(answer) - micros(requested.saturating_duration_since(self.origin)));
    }

    /// Converts a time of the engine's clock to an instant that is not later. It is never later than `received`. Returns `None` if
    /// there is no measurement, the time is that of another engine, or the time is before the origin.
    pub(super) fn convert(&self, time: &EngineTime, received: Instant) -> Option<Instant> {
        if time.engine.is_empty() || time.engine != self.engine {
            return None;
        }
        let since_origin = i128::from(time.unix_ms) * 1000 - self.offsets.iter().max()?;
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

    fn time(engine: &str, unix_ms: u64) -> EngineTime {
        EngineTime { unix_ms, engine: engine.into() }
    }

    fn ms(time: Duration) -> u64 {
        time.as_millis() as u64
    }

    #[test]
    fn r03_a_canary_is_never_dated_later_than_it_was_sent() {
        let origin = Instant::now();
        let at = |seconds| origin + Duration::from_secs(seconds);
        let mut clock = EngineClock::new(origin);
        assert_eq!(clock.convert(&time("a", ms(UNIX)), at(9)), None);
        // The engine's clock shows 1.8e9 s at the origin. The request takes 2 s.
        clock.measure("a", at(10), UNIX + Duration::from_secs(12));
        assert_eq!(clock.convert(&time("a", ms(UNIX) + 20_000), at(30)), Some(at(18)));
        // A faster answer does not make it later, because the clock may have been set between.
        clock.measure("a", at(40), UNIX + Duration::from_secs(40));
        assert_eq!(clock.convert(&time("a", ms(UNIX) + 20_000), at(50)), Some(at(18)));
        // Set forward by 100 s before the canary, and back after it.
        clock.measure("a", at(60), UNIX + Duration::from_secs(160));
        clock.measure("a", at(70), UNIX + Duration::from_secs(70));
        assert_eq!(clock.convert(&time("a", ms(UNIX) + 161_000), at(71)), Some(at(61)));
        // A wrong time is not in the future, and one before the reader began certifies nothing.
        assert_eq!(clock.convert(&time("a", ms(UNIX) + 900_000), at(71)), Some(at(71)));
        assert_eq!(clock.convert(&time("a", 0), at(71)), None);
        for second in 0..KEPT_MAX as u64 {
            clock.measure("a", at(80 + second), UNIX + Duration::from_secs(80 + second));
        }
        assert_eq!(
            clock.convert(&time("a", ms(UNIX) + 85_000), at(90)),
            Some(at(85)),
            "old measurements are forgotten"
        );
    }

    #[test]
    fn r03_a_time_of_another_engine_certifies_nothing() {
        let origin = Instant::now();
        let at = |seconds| origin + Duration::from_secs(seconds);
        let mut clock = EngineClock::new(origin);
        clock.measure("a", at(10), UNIX + Duration::from_secs(10));
        let unix_ms = ms(UNIX) + 20_000;
        let converted = |clock: &EngineClock, engine| clock.convert(&time(engine, unix_ms), at(30));
        assert_eq!(["a", "b", ""].map(|engine| converted(&clock, engine)), [Some(at(20)), None, None]);
        // The clock of the next one is behind, so an offset of the first one would make its times earlier.
        clock.measure("b", at(40), UNIX + Duration::from_secs(35));
        assert_eq!(["a", "b", ""].map(|engine| converted(&clock, engine)), [None, Some(at(25)), None]);
        // One that does not report its run id.
        clock.measure("", at(50), UNIX);
        assert_eq!(["a", "b", ""].map(|engine| converted(&clock, engine)), [None, None, None]);
    }
}
