//! The turn of a subscriber at a dispatching thread. Pure.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// The largest number of calls after which the time is read. Unit tests make few calls.
const CALLS_PER_LOOK_MAX: u32 = if cfg!(test) { 4 } else { 32 };
/// The number of looks that show quick calls, after which the next looks are half as frequent. Unit tests make few calls.
const QUICK_LOOKS: u32 = if cfg!(test) { 1 } else { QUICK_LOOKS_SHIPPED };
const QUICK_LOOKS_SHIPPED: u32 = 64;
/// The time for one subscriber after which the next is served.
const TURN: Duration = Duration::from_millis(1);

/// Finds out whether calls take long. Reading the time costs more than a quick call, so that is done seldom while calls are
/// quick, and after a slow one for many calls after each: it may belong to a subscriber that will be served again.
#[derive(Debug)]
pub(crate) struct TurnTimer {
    looked: Cell<Instant>,
    calls_before_look: Cell<u32>,
    calls_per_look: Cell<u32>,
    quick_looks: Cell<u32>,
    /// The number of quick looks after which the next looks are half as frequent.
    quick_looks_max: u32,
}

impl TurnTimer {
    pub(crate) fn new(now: Instant) -> Self {
        Self::with_quick_looks(now, QUICK_LOOKS)
    }

    fn with_quick_looks(now: Instant, quick_looks_max: u32) -> Self {
        Self {
            looked: Cell::new(now),
            calls_before_look: Cell::new(1),
            calls_per_look: Cell::new(1),
            quick_looks: Cell::new(0),
            quick_looks_max,
        }
    }

    /// Begins to count time again, after a wait.
    pub(crate) fn restart(&self, now: Instant) {
        self.looked.set(now);
    }

    /// Returns the number of calls before the next look, at least 1.
    #[inline]
    pub(crate) fn calls_before_look(&self) -> u32 {
        self.calls_before_look.get()
    }

    /// Counts calls. Returns `true` if the time is read and shows that more than a turn has passed since the last look.
    #[inline]
    pub(crate) fn is_over(&self, calls: u32, now: impl FnOnce() -> Instant) -> bool {
        let calls = self.calls_before_look.get().saturating_sub(calls);
        self.calls_before_look.set(calls);
        calls == 0 && self.is_over_at(now())
    }

    fn is_over_at(&self, now: Instant) -> bool {
        let is_over = now.saturating_duration_since(self.looked.replace(now)) > TURN;
        let quick_looks = if is_over { 0 } else { self.quick_looks.get() + 1 };
        let calls = match (is_over, quick_looks) {
            (true, _) => 1,
            (false, looks) if looks == self.quick_looks_max => CALLS_PER_LOOK_MAX.min(2 * self.calls_per_look.get()),
            (false, _) => self.calls_per_look.get(),
        };
        self.quick_looks.set(quick_looks % self.quick_looks_max);
        self.calls_per_look.set(calls);
        self.calls_before_look.set(calls);
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes calls that take a time each, until a turn is over. Returns their number.
    fn calls(timer: &TurnTimer, now: &Cell<Instant>, time: Duration, most: u32) -> u32 {
        let is_over = |_: &u32| {
            now.set(now.get() + time);
            timer.is_over(1, || now.get())
        };
        (1..=most).find(is_over).unwrap_or(most)
    }

    #[test]
    fn n07_a_slow_subscriber_is_noticed_soon_although_quick_ones_are_served_between() {
        let timer = TurnTimer::with_quick_looks(Instant::now(), QUICK_LOOKS_SHIPPED);
        let now = Cell::new(Instant::now());
        for _ in 0..10 {
            assert!(calls(&timer, &now, Duration::from_millis(20), 100) <= 2);
            assert_eq!(calls(&timer, &now, Duration::from_nanos(10), 60), 60);
        }
    }

    #[test]
    fn n07_the_time_is_read_seldom_while_calls_are_quick() {
        let timer = TurnTimer::with_quick_looks(Instant::now(), QUICK_LOOKS_SHIPPED);
        let (now, looks) = (Instant::now(), Cell::new(0));
        for _ in 0..10_000 {
            timer.is_over(1, || {
                looks.set(looks.get() + 1);
                now
            });
        }
        assert!(looks.get() <= 10_000 / CALLS_PER_LOOK_MAX + 2 * QUICK_LOOKS_SHIPPED, "{}", looks.get());
    }
}
