//! When a reader looks, and which of several readers of a database does.

use std::time::{Duration, Instant};

/// Without a change for this time a log is quiet.
const QUIET_AFTER: Duration = Duration::from_secs(10);
/// The time between two attempts to become the leader.
const LEAD: Duration = Duration::from_secs(10);
/// The longest time between two saves, and two rotations, while none comes.
const IDLE: Duration = Duration::from_secs(30);
/// The time between two rotations of the tables while changes come.
const KEEP: Duration = Duration::from_secs(1);

/// The times at which a reader looks, rotates the tables, and takes part in the election.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, Hash))]
pub(super) struct PollSchedule {
    /// The time between two looks, and that while the log is quiet.
    intervals: (Duration, Duration),
    /// `None` if a look is due.
    pub(super) next_poll: Option<Instant>,
    last_change: Option<Instant>,
    /// Rows are kept for this time.
    keep_for: Duration,
    /// This reader looks, and wakes the others.
    is_leader: bool,
    has_followers: bool,
    must_wake: bool,
    pub(super) next_election: Option<Instant>,
    pub(super) next_rotation: Option<Instant>,
    /// `true` if changes have come since the last rotation.
    has_found: bool,
}

impl PollSchedule {
    pub(super) fn new(interval: Duration, quiet_interval: Duration) -> Self {
        Self {
            intervals: (interval, quiet_interval),
            next_poll: None,
            last_change: None,
            keep_for: Duration::MAX,
            is_leader: false,
            has_followers: false,
            must_wake: false,
            next_election: None,
            next_rotation: None,
            has_found: false,
        }
    }

    /// Sets the time for which rows are kept.
    pub(super) fn set_keep_for(&mut self, time: Duration) {
        self.keep_for = time;
    }

    /// The time between two saves of a position that has moved without a change, and between two rotations of a quiet log.
    pub(super) fn idle(&self) -> Duration {
        IDLE.min(self.keep_for / 4).max(Duration::from_millis(100))
    }

    /// The time between two looks.
    fn interval(&self, now: Instant) -> Duration {
        let is_quiet = self.last_change.is_none_or(|at| now.saturating_duration_since(at) >= QUIET_AFTER);
        let interval = if is_quiet { self.intervals.1 } else { self.intervals.0 };
        // The leader wakes the others, which look by themselves only if it does not.
        if self.is_leader { interval } else { interval * 2 }
    }

    /// The time between two rotations. Readers that do not lead only make sure of it.
    fn rotation_interval(&self) -> Duration {
        if self.is_leader { KEEP } else { KEEP * 5 }
    }

    /// Returns when to look, to take part in the election or to rotate, if time is needed for it. Only a reader that has
    /// begun rotates.
    pub(super) fn next_timer(&self, has_begun: bool) -> Option<Instant> {
        [self.next_poll, self.next_election, self.next_rotation.filter(|_| has_begun)].into_iter().flatten().min()
    }

    /// A look or a page has found changes.
    pub(super) fn handle_changes(&mut self, now: Instant) {
        self.last_change = Some(now);
        self.has_found = true;
        self.must_wake = self.is_leader && self.has_followers;
        let soon = now + self.rotation_interval();
        self.next_rotation = self.next_rotation.map(|at| at.min(soon));
    }

    /// Nothing is left to be read now.
    pub(super) fn wait(&mut self, now: Instant) {
        self.next_poll = now.checked_add(self.interval(now));
    }

    /// Makes a look due.
    pub(super) fn poll_now(&mut self) {
        self.next_poll = None;
    }

    /// Returns `true` if the other readers must be woken, which counts as begun.
    pub(super) fn take_wake(&mut self) -> bool {
        std::mem::take(&mut self.must_wake)
    }

    /// The election was held.
    pub(super) fn handle_elected(&mut self, is_leader: bool, has_followers: bool, now: Instant) {
        (self.is_leader, self.has_followers) = (is_leader, has_followers);
        self.next_election = now.checked_add(LEAD);
    }

    /// The tables were rotated.
    pub(super) fn handle_rotated(&mut self, now: Instant) {
        let is_idle = !std::mem::take(&mut self.has_found);
        self.next_rotation = now.checked_add(if is_idle { self.idle() } else { self.rotation_interval() });
    }

    /// An election or a rotation has failed: neither is tried before this time.
    pub(super) fn handle_failed(&mut self, until: Instant) {
        self.next_election = self.next_election.max(Some(until));
        self.next_rotation = self.next_rotation.max(Some(until));
    }

    /// The session was lost, and its lock with it.
    pub(super) fn handle_lost(&mut self) {
        self.is_leader = false;
        (self.next_election, self.next_poll) = (None, None);
    }
}
