//! The timers of all connections, in one heap.
//!
//! For each connection at most two timers count: the nearest deadline, and the heartbeat. Setting a timer costs no search,
//! since a timer that no longer counts stays in the heap and has no effect when its time comes. When too many of these have
//! gathered, they are removed together.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use crate::clock::CompactInstant;

/// The reason for a timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The next connection attempt is due.
    Retry,
    /// A connection attempt must have made progress.
    Dial,
    /// The server must have acknowledged the LISTENs.
    Listen,
    /// The server must have answered a request.
    Request,
    /// A CancelRequest must have ended.
    Cancel,
    /// A transaction may have been open for too long.
    Transaction,
    /// A connection must be served again, although its socket reports nothing.
    Serve,
    /// The heartbeat is due.
    Heartbeat,
}

/// The timers of all connections, by token.
///
/// A timer whose token belongs to another connection by now has an effect only if that connection has a timer at the same
/// nanosecond.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(CompactInstant, u32, Timer)>>,
    /// The nearest time, since every turn asks for it.
    pub(super) next: Option<Instant>,
    /// The number of timers at which those that do not count are removed.
    full: usize,
}

/// The timers of one connection that count.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct TimerSet {
    deadline: Option<CompactInstant>,
    heartbeat: Option<CompactInstant>,
}

impl TimerSet {
    fn of(&mut self, timer: Timer) -> &mut Option<CompactInstant> {
        match timer {
            Timer::Heartbeat => &mut self.heartbeat,
            _ => &mut self.deadline,
        }
    }

    pub(super) fn has_heartbeat(&self) -> bool {
        self.heartbeat.is_some()
    }

    /// Records a timer if it is nearer than the one that counts. Returns `true` if it must be added to the heap.
    fn replace(&mut self, timer: Timer, at: CompactInstant) -> bool {
        let set = self.of(timer);
        let is_nearer = set.is_none_or(|set| at < set);
        if is_nearer {
            *set = Some(at);
        }
        is_nearer
    }

    /// Returns `true` if a timer that fires counts; from now on it does not.
    pub(super) fn take(&mut self, timer: Timer, at: CompactInstant) -> bool {
        self.of(timer).take_if(|set| *set == at).is_some()
    }
}

impl Timers {
    /// Sets a timer, unless a nearer one of this connection counts; `None` sets no timer.
    pub(super) fn set(&mut self, token: u32, set: &mut TimerSet, timer: Timer, at: Option<Instant>) {
        if let Some(at) = at.map(CompactInstant::from)
            && set.replace(timer, at)
        {
            self.heap.push(Reverse((at, token, timer)));
            self.note_next();
        }
    }

    /// Returns the next timer that is due, whether it counts or not.
    #[inline]
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(CompactInstant, u32, Timer)> {
        self.next.filter(|next| *next <= now)?;
        let due = self.heap.pop();
        self.note_next();
        due.map(|Reverse(timer)| timer)
    }

    /// Returns `true` if the timers that do not count should be removed now.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.heap.len() > self.full
    }

    /// Removes the timers that do not count. The heap has room for a quarter more then, so the cost for each timer that is
    /// set is small and constant.
    pub(super) fn remove_stale(&mut self, mut set_of: impl FnMut(u32) -> Option<TimerSet>) {
        self.heap
            .retain(|Reverse((at, token, timer))| set_of(*token).is_some_and(|mut set| *set.of(*timer) == Some(*at)));
        self.full = self.heap.len() + self.heap.len() / 4 + 64;
        self.heap.shrink_to(self.full);
        self.heap.reserve_exact(self.full - self.heap.len());
        self.note_next();
    }

    fn note_next(&mut self) {
        self.next = self.heap.peek().map(|Reverse((at, ..))| (*at).into());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    impl Timers {
        /// Returns the number of timers in the heap, and of those that are heartbeats.
        pub(in crate::manager::fleet) fn count(&self) -> (usize, usize) {
            let heartbeats = self.heap.iter().filter(|Reverse((.., timer))| *timer == Timer::Heartbeat).count();
            (self.heap.len(), heartbeats)
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn only_the_nearest_timer_counts() {
        let (start, mut timers, mut set) = (Instant::now(), Timers::default(), TimerSet::default());
        timers.set(1, &mut set, Timer::Request, Some(start + 2 * SECOND));
        timers.set(1, &mut set, Timer::Transaction, Some(start + SECOND));
        timers.set(1, &mut set, Timer::Request, Some(start + 3 * SECOND));
        timers.set(1, &mut set, Timer::Request, None);
        assert_eq!(timers.count().0, 2, "a later timer is not added");
        assert_eq!(timers.pop_due(start), None);
        let mut fired = Vec::new();
        while let Some((at, token, timer)) = timers.pop_due(start + 9 * SECOND) {
            fired.extend(set.take(timer, at).then_some((token, timer)));
        }
        assert_eq!(fired, [(1, Timer::Transaction)]);
        assert_eq!(timers.next, None);
    }

    #[test]
    fn timers_that_do_not_count_are_removed() {
        let (start, mut timers) = (Instant::now(), Timers::default());
        let mut sets = [TimerSet::default(); 100];
        for round in 0..100 {
            for token in 0..100 {
                let set = &mut sets[token as usize];
                *set = TimerSet::default();
                timers.set(token, set, Timer::Heartbeat, Some(start + round * SECOND));
                timers.set(token, set, Timer::Request, Some(start + (200 - round) * SECOND));
                if timers.is_full() {
                    timers.remove_stale(|token| sets.get(token as usize).copied());
                }
            }
        }
        assert!(timers.heap.len() <= 200 + 50 + 64 + 2, "{}", timers.heap.len());
        assert!(timers.heap.capacity() <= 2 * 200 + 64);
        for (token, mut set) in (0..).zip(sets) {
            for timer in [Timer::Heartbeat, Timer::Request] {
                let counts = Reverse((set.of(timer).unwrap(), token, timer));
                assert!(timers.heap.iter().any(|timer| *timer == counts), "a timer that counts stays");
            }
        }
    }
}
