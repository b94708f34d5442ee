//! The times at which a reader polls, rotates and takes part in the election.

use std::time::{Duration, Instant};

/// The time without a change after which a log is quiet.
const QUIET_AFTER: Duration = Duration::from_secs(10);
/// The interval of elections.
const LEAD: Duration = Duration::from_secs(10);
/// The longest interval of saves and rotations while there are no changes.
const IDLE: Duration = Duration::from_secs(30);
/// The interval of rotations while there are changes.
const KEEP: Duration = Duration::from_secs(1);

/// The schedule of a reader. Of several readers of a database, the elected leader polls and wakes the others.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone, Hash))]
pub(super) struct PollSchedule {
    /// The poll interval, and the poll interval of a quiet log.
    intervals: (Duration, Duration),
    /// `None` if a poll is due.
    pub(super) next_poll: Option<Instant>,
    last_change: Option<Instant>,
    /// The time for which rows are kept, if known.
    pub(super) keep_for: Option<Duration>,
    /// `true` if this reader polls and wakes the others.
    is_leader: bool,
    has_followers: bool,
    /// `true` if the other readers must be woken now.
    pub(super) must_wake: bool,
    pub(super) next_election: Option<Instant>,
    pub(super) next_rotation: Option<Instant>,
    /// `true` if there were changes since the last rotation.
    has_found: bool,
}

impl PollSchedule {
    pub(super) fn new(interval: Duration, quiet_interval: Duration) -> Self {
        Self { intervals: (interval, quiet_interval), ..Self::default() }
    }

    /// Returns the interval of saves without a change, and of rotations of a quiet log.
    pub(super) fn idle(&self) -> Duration {
        self.keep_for.map_or(IDLE, |time| IDLE.min(time / 4)).max(Duration::from_millis(100))
    }

    /// Returns the current poll interval.
    fn interval(&self, now: Instant) -> Duration {
        let is_quiet = self.last_change.is_none_or(|at| now.saturating_duration_since(at) >= QUIET_AFTER);
        let interval = if is_quiet { self.intervals.1 } else { self.intervals.0 };
        // The leader wakes the others, so they rarely need to poll by themselves.
        if self.is_leader { interval } else { interval * 2 }
    }

    /// Returns the interval of rotations. It is longer for other readers than the leader.
    fn rotation_interval(&self) -> Duration {
        if self.is_leader { KEEP } else { KEEP * 5 }
    }

    /// Returns the time of the next poll, election or rotation. Only a reader that has begun rotates.
    pub(super) fn next_timer(&self, has_begun: bool) -> Option<Instant> {
        [self.next_poll, self.next_election, self.next_rotation.filter(|_| has_begun)].into_iter().flatten().min()
    }

    /// Records that a poll or a page has found changes.
    pub(super) fn handle_changes(&mut self, now: Instant) {
        self.last_change = Some(now);
        self.has_found = true;
        self.must_wake = self.is_leader && self.has_followers;
        let soon = now + self.rotation_interval();
        self.next_rotation = self.next_rotation.map(|at| at.min(soon));
    }

    /// Schedules the next poll, because all rows have been read.
    pub(super) fn wait(&mut self, now: Instant) {
        self.next_poll = now.checked_add(self.interval(now));
    }

    /// Makes a poll due.
    pub(super) fn poll_now(&mut self) {
        self.next_poll = None;
    }

    /// Records the result of an election.
    pub(super) fn handle_elected(&mut self, is_leader: bool, has_followers: bool, now: Instant) {
        (self.is_leader, self.has_followers) = (is_leader, has_followers);
        self.next_election = now.checked_add(LEAD);
    }

    /// Records a rotation.
    pub(super) fn handle_rotated(&mut self, now: Instant) {
        let is_idle = !std::mem::take(&mut self.has_found);
        self.next_rotation = now.checked_add(if is_idle { self.idle() } else { self.rotation_interval() });
    }

    /// Records that an election or a rotation has failed. Neither is repeated before this time.
    pub(super) fn handle_failed(&mut self, until: Instant) {
        self.next_election = self.next_election.max(Some(until));
        self.next_rotation = self.next_rotation.max(Some(until));
    }

    /// Records that the session was lost, and its advisory lock with it.
    pub(super) fn handle_lost(&mut self) {
        self.is_leader = false;
        (self.next_election, self.next_poll) = (None, None);
    }
}
