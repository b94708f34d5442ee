//! Saving a position under a name: when, and which.

use std::time::{Duration, Instant};

use super::position::Position;

/// The shortest time between two saves.
const INTERVAL: Duration = Duration::from_secs(1);

/// The position up to which the consumer has dealt with what was read, and its saves.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone, Hash))]
pub(super) struct PositionSaves {
    /// The number of changes and gaps that the consumer has not acknowledged.
    outstanding: usize,
    /// The position up to which it has.
    consumed: Option<Position>,
    /// `true` if that has moved since it was saved.
    is_unsaved: bool,
    is_saving: bool,
    next: Option<Instant>,
    /// When to save a position that has moved without a change, or not at all.
    next_idle: Option<Instant>,
}

impl PositionSaves {
    /// The first position is known, and is to be kept.
    pub(super) fn begin(&mut self) {
        self.is_unsaved = true;
    }

    /// So many changes and gaps were handed out.
    pub(super) fn add(&mut self, count: usize) {
        self.outstanding += count;
    }

    /// The consumer has dealt with so many more, up to this position.
    pub(super) fn acknowledge(&mut self, position: Position, count: usize) {
        self.outstanding = self.outstanding.saturating_sub(count);
        self.consumed = Some(position);
        self.is_unsaved = true;
    }

    /// Returns the position to save now, if any; its save counts as begun. `read` is the position up to which was read,
    /// and nothing more is read if the save `is_last`.
    pub(super) fn next_save(&mut self, read: Option<&Position>, is_last: bool, now: Instant) -> Option<Position> {
        let is_due = |at: Option<Instant>| at.is_none_or(|at| at <= now);
        if self.is_saving || !is_last && !is_due(self.next) {
            return None;
        }
        self.next = now.checked_add(INTERVAL);
        // A position that is not moved for as long as rows are kept does not keep them.
        let is_old = !is_last && is_due(self.next_idle);
        let position = match self.outstanding {
            // What was read and held no change has been dealt with.
            0 => read.filter(|_| self.is_unsaved || is_old),
            _ => self.consumed.as_ref().filter(|_| self.is_unsaved),
        };
        let position = position.cloned();
        if position.is_some() {
            (self.is_saving, self.is_unsaved) = (true, false);
        }
        position
    }

    /// Returns when to ask for the next save.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.next
    }

    /// The position was saved; one that does not move is saved again after this time.
    pub(super) fn handle_saved(&mut self, idle: Duration, now: Instant) {
        self.is_saving = false;
        self.next_idle = now.checked_add(idle);
    }

    /// Makes the next save due at this time at the earliest.
    pub(super) fn wait(&mut self, until: Instant) {
        self.next = Some(until);
    }

    /// A save has failed, or nothing is known of it.
    pub(super) fn handle_failed(&mut self) {
        self.is_unsaved |= std::mem::take(&mut self.is_saving);
    }

    /// Makes the next save due at this time.
    #[cfg(test)]
    pub(super) fn set_timers(&mut self, at: Option<Instant>) {
        (self.next, self.next_idle) = (at, at);
    }

    /// Returns `true` if the consumer has dealt with everything that was read.
    pub(super) fn is_empty(&self) -> bool {
        self.outstanding == 0
    }

    /// Returns `true` if everything is saved that the consumer has dealt with.
    pub(super) fn is_saved(&self) -> bool {
        let has_more = self.is_unsaved && (self.outstanding == 0 || self.consumed.is_some());
        !has_more && !self.is_saving
    }
}
