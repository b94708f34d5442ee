//! Reading an outbox: a plain value that decides what to do next, without a connection and a clock.
//!
//! ```text
//!   Lock ──> Read ──> the consumer ──acknowledges──> Clear ──> Read ..
//!    ▲ │              (the cursor outlives the session)
//!    └─┘ refused: another worker reads; asks again after a while
//! ```

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// The time after which an outbox that was empty, or is read by another worker, is looked at again.
pub(crate) const POLL: Duration = Duration::from_millis(500);

/// The next thing to do about an outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OutboxAction {
    /// Ask for the lock, which goes with the session: one worker at a time reads.
    Lock,
    /// Read the first payloads.
    Read,
    /// Delete the payloads under these numbers.
    Clear(Vec<i64>),
}

/// The payloads that have been read and not yet deleted.
#[derive(Debug, Default)]
struct OutboxCursor {
    /// All of them, by number.
    given: BTreeSet<i64>,
    /// Those of them that the consumer has dealt with.
    done: Vec<i64>,
    /// Those that are being deleted.
    clearing: Vec<i64>,
}

/// Reads one outbox in order, each payload once as long as the session lasts.
#[derive(Debug, Default)]
pub(crate) struct OutboxPoller {
    cursor: OutboxCursor,
    is_locked: bool,
    /// `true` while an action has not been answered.
    is_busy: bool,
    /// When to look again.
    next: Option<Instant>,
}

impl OutboxPoller {
    /// Returns the next action, which counts as begun. Only deletes unless `reads`.
    pub(crate) fn next_action(&mut self, reads: bool, now: Instant) -> Option<OutboxAction> {
        if self.is_busy || self.next.is_some_and(|next| next > now) {
            return None;
        }
        self.next = None;
        let cursor = &mut self.cursor;
        let action = if !cursor.done.is_empty() {
            cursor.clearing = std::mem::take(&mut cursor.done);
            OutboxAction::Clear(cursor.clearing.clone())
        } else if !reads || !cursor.given.is_empty() {
            return None;
        } else if self.is_locked {
            OutboxAction::Read
        } else {
            OutboxAction::Lock
        };
        self.is_busy = true;
        Some(action)
    }

    /// Returns when to ask for the next action, if time is needed for one.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        self.next.filter(|_| !self.is_busy)
    }

    /// The lock was granted or refused.
    pub(crate) fn handle_locked(&mut self, is_granted: bool, now: Instant) {
        self.is_busy = false;
        self.is_locked = is_granted;
        self.next = if is_granted { None } else { now.checked_add(POLL) };
    }

    /// The read has ended with so many payloads.
    pub(crate) fn handle_read(&mut self, count: usize, now: Instant) {
        self.is_busy = false;
        self.next = if count > 0 { None } else { now.checked_add(POLL) };
    }

    /// Notes a payload that was read; returns `false` if it has been read before and not been deleted since.
    pub(crate) fn add(&mut self, number: i64) -> bool {
        self.cursor.given.insert(number)
    }

    /// The consumer has dealt with a payload.
    pub(crate) fn acknowledge(&mut self, number: i64) {
        if self.cursor.given.contains(&number) {
            self.cursor.done.push(number);
        }
    }

    /// The payloads were deleted.
    pub(crate) fn handle_cleared(&mut self) {
        self.is_busy = false;
        for number in std::mem::take(&mut self.cursor.clearing) {
            self.cursor.given.remove(&number);
        }
    }

    /// An action has failed, and is tried again after a while.
    pub(crate) fn handle_failed(&mut self, now: Instant) {
        self.is_busy = false;
        self.next = now.checked_add(POLL);
        let failed = std::mem::take(&mut self.cursor.clearing);
        self.cursor.done.extend(failed);
    }

    /// The session was lost, and its lock with it.
    pub(crate) fn handle_lost(&mut self, now: Instant) {
        self.handle_failed(now);
        self.is_locked = false;
        self.next = None;
    }

    /// Returns `true` if nothing that was read is left to be deleted.
    pub(crate) fn is_empty(&self) -> bool {
        self.cursor.given.is_empty()
    }

    /// Returns `true` if everything is deleted that the consumer has dealt with.
    pub(crate) fn is_clear(&self) -> bool {
        self.cursor.done.is_empty() && self.cursor.clearing.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn an_outbox_is_locked_read_and_cleared_in_turns() {
        let (mut outbox, now) = (OutboxPoller::default(), clock::now());
        assert_eq!(outbox.next_action(true, now), Some(OutboxAction::Lock));
        assert_eq!(outbox.next_action(true, now), None, "one thing at a time");
        outbox.handle_locked(false, now);
        assert_eq!((outbox.next_action(true, now), outbox.next_look()), (None, now.checked_add(POLL)));
        let now = now + POLL;
        assert_eq!(outbox.next_action(true, now), Some(OutboxAction::Lock));
        outbox.handle_locked(true, now);
        assert_eq!(outbox.next_action(true, now), Some(OutboxAction::Read));
        assert!(outbox.add(1) && outbox.add(2) && !outbox.add(1));
        outbox.handle_read(2, now);
        assert_eq!((outbox.next_action(true, now), outbox.next_look()), (None, None), "the consumer has them");
        outbox.acknowledge(1);
        outbox.acknowledge(77);
        assert_eq!(outbox.next_action(false, now), Some(OutboxAction::Clear(vec![1])));
        outbox.acknowledge(2);
        outbox.handle_cleared();
        assert_eq!(outbox.next_action(true, now), Some(OutboxAction::Clear(vec![2])));
        outbox.handle_cleared();
        assert_eq!(outbox.next_action(false, now), None);
        assert_eq!(outbox.next_action(true, now), Some(OutboxAction::Read), "more may be there");
        outbox.handle_read(0, now);
        assert_eq!((outbox.next_action(true, now), outbox.next_look()), (None, now.checked_add(POLL)));
    }

    #[test]
    fn a_lost_session_loses_the_lock_and_nothing_that_was_acknowledged() {
        let (mut outbox, now) = (OutboxPoller::default(), clock::now());
        outbox.next_action(true, now);
        outbox.handle_locked(true, now);
        outbox.next_action(true, now);
        assert!(outbox.add(1) && outbox.add(2));
        outbox.handle_read(2, now);
        outbox.acknowledge(1);
        outbox.next_action(true, now);
        outbox.handle_lost(now);
        assert!(!outbox.is_clear() && !outbox.is_empty());
        assert_eq!(outbox.next_action(true, now), Some(OutboxAction::Clear(vec![1])));
        outbox.handle_cleared();
        assert!(outbox.is_clear() && !outbox.is_empty());
        outbox.acknowledge(2);
        outbox.next_action(true, now);
        outbox.handle_cleared();
        assert_eq!(outbox.next_action(true, now), Some(OutboxAction::Lock));
    }
}
