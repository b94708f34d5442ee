//! The saves of a position under a name.

use std::time::{Duration, Instant};

use super::position::Position;

/// The minimum time between two saves.
const INTERVAL: Duration = Duration::from_secs(1);

/// The acknowledged position, and the state of its saves.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone, Hash))]
pub(super) struct PositionSaves {
    /// The number of changes and gaps that the consumer has not acknowledged.
    pub(super) outstanding: usize,
    /// The last acknowledged position.
    consumed: Option<Position>,
    /// `true` if the position has moved since it was saved.
    pub(super) is_unsaved: bool,
    is_saving: bool,
    /// The time at which [`next_save`](Self::next_save) must be called.
    pub(super) next: Option<Instant>,
    /// The time at which to save a position that has moved without a change, or has not moved.
    pub(super) next_idle: Option<Instant>,
}

impl PositionSaves {
    /// Records that the consumer has acknowledged `count` more items, up to this position.
    pub(super) fn acknowledge(&mut self, position: Position, count: usize) {
        self.outstanding = self.outstanding.saturating_sub(count);
        self.consumed = Some(position);
        self.is_unsaved = true;
    }

    /// Returns the position to save now, if any, and records that the save has begun. `read` is the position up to which the
    /// log has been read. If the save `is_last`, it is due immediately.
    pub(super) fn next_save(&mut self, read: Option<&Position>, is_last: bool, now: Instant) -> Option<Position> {
        let is_due = |at: Option<Instant>| at.is_none_or(|at| at <= now);
        if self.is_saving || !is_last && !is_due(self.next) {
            return None;
        }
        self.next = now.checked_add(INTERVAL);
        // A position that is not saved for a long time does not protect its rows.
        let is_old = !is_last && is_due(self.next_idle);
        let position = match self.outstanding {
            // Everything is acknowledged, so the position may also pass batches without changes.
            0 => read.filter(|_| self.is_unsaved || is_old),
            _ => self.consumed.as_ref().filter(|_| self.is_unsaved),
        };
        let position = position.cloned();
        if position.is_some() {
            (self.is_saving, self.is_unsaved) = (true, false);
        }
        position
    }

    /// Records that the position was saved. A position that does not move is saved again after `idle`.
    pub(super) fn handle_saved(&mut self, idle: Duration, now: Instant) {
        self.is_saving = false;
        self.next_idle = now.checked_add(idle);
    }

    /// Records that a save has failed, or that its result is unknown. It is not repeated before `retry`.
    pub(super) fn handle_failed(&mut self, retry: Option<Instant>) {
        self.is_unsaved |= std::mem::take(&mut self.is_saving);
        self.next = retry.or(self.next);
    }

    /// Returns `true` if the acknowledged position is saved.
    pub(super) fn is_saved(&self) -> bool {
        let has_more = self.is_unsaved && (self.outstanding == 0 || self.consumed.is_some());
        !has_more && !self.is_saving
    }
}
