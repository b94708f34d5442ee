//! The limits on connection attempts: how many may be in progress, and how many may begin in a second.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::permit::{Permit, Permits};

/// The attempts in progress, and the queue of those that wait for a permit, in the order of their arrival.
#[derive(Default)]
pub(super) struct DialBudget {
    in_progress: Permits,
    /// The earliest time at which the next attempt may begin.
    next: Option<Instant>,
    queue: VecDeque<u32>,
}

impl fmt::Debug for DialBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in progress, {} waiting", self.in_progress.held(), self.queue.len())
    }
}

impl DialBudget {
    /// Adds an attempt to the end of the queue.
    pub(super) fn enqueue(&mut self, token: u32) {
        self.queue.push_back(token);
    }

    /// Removes an attempt from the queue, so that it delays no other.
    pub(super) fn remove(&mut self, token: u32) {
        self.queue.retain(|queued| *queued != token);
    }

    #[inline]
    pub(super) fn has_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Returns the first attempt of the queue with its permit; `None` if the queue is empty, if as many attempts as
    /// allowed are in progress, or if it is too early.
    pub(super) fn admit(&mut self, backoff: &Backoff, now: Instant) -> Option<(u32, Permit)> {
        if self.due(backoff, now)? > now {
            return None;
        }
        let first = self.queue.pop_front()?;
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        self.next = now.checked_add(Duration::from_secs(1) / backoff.per_second);
        Some((first, self.in_progress.take()))
    }

    /// Returns the time at which the next attempt can begin; `None` if that needs more than time.
    #[inline]
    pub(super) fn due(&self, backoff: &Backoff, now: Instant) -> Option<Instant> {
        let is_possible = self.has_waiting() && self.in_progress.held() < backoff.at_once;
        is_possible.then(|| self.next.map_or(now, |next| next.max(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl DialBudget {
        pub(in crate::manager::fleet) fn in_progress(&self) -> usize {
            self.in_progress.held()
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn m13_attempts_are_limited_in_number_and_per_second_and_begin_in_the_order_of_arrival() {
        let backoff = Backoff::default().at_once(2).per_second(10);
        let (mut dials, start) = (DialBudget::default(), Instant::now());
        let admit = |dials: &mut DialBudget, now| dials.admit(&backoff, now);
        assert_eq!(dials.due(&backoff, start), None, "the queue is empty");
        [1, 2, 3].into_iter().for_each(|token| dials.enqueue(token));
        let (first, permit) = admit(&mut dials, start).unwrap();
        assert_eq!(first, 1);
        assert!(admit(&mut dials, start).is_none());
        let next = start + SECOND / 10;
        assert_eq!(dials.due(&backoff, start), Some(next));
        let (second, _kept) = admit(&mut dials, next).unwrap();
        assert_eq!(second, 2);
        assert!(admit(&mut dials, next + SECOND).is_none(), "two are in progress");
        assert_eq!(dials.due(&backoff, next + SECOND), None, "waiting does not help");
        drop(permit);
        assert_eq!(admit(&mut dials, next + SECOND).map(|(token, _)| token), Some(3));
    }
}
