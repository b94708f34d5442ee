//! The order in which connections are served.
//!
//! A connection that has been served goes to the back of the queue, behind connections that have just become ready. So
//! whatever arrives waits for one read (64 KiB) of each busy connection during the turn in which it arrives, and for one of
//! each connection that became ready with it.

use std::collections::VecDeque;

use super::timers::TimerSet;
use crate::connection::DRAIN_MAX;

/// The capacity that the queue keeps: enough for all connections that one poll can report.
const KEPT_CAPACITY: usize = 2048;
/// The capacity that the list of changed connections keeps.
const KEPT_DIRTY: usize = 64;

/// The scheduling state of one connection.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    pub(super) timers: TimerSet,
    /// The number of bytes that the current pass of a zero timeout has read; [`DRAIN_MAX`] once the socket is empty.
    drained: u32,
    pub(super) is_queued: bool,
    /// `true` if the peer has closed the stream: then only a read that returns nothing shows the end.
    pub(super) peer_closed: bool,
    /// `true` if the stream is watched for room to write.
    pub(super) watches_write: bool,
    pub(super) is_heartbeat_due: bool,
}

impl Schedule {
    /// Begins again for the next session: its timers are not set, and the current pass has not read it.
    pub(super) fn reset(&mut self) {
        *self = Self { is_queued: self.is_queued, ..Self::default() };
    }
}

/// The connections to serve, by token.
#[derive(Debug, Default)]
pub(super) struct ReadyQueue {
    /// Each token is here at most once, unless its connection was removed and the token belongs to another one by now. That
    /// one is then served once too often, which does no harm.
    ready: VecDeque<u32>,
    /// The number of these that belong to the current turn.
    to_serve: usize,
    /// Connections that the caller may have changed in this turn.
    pub(super) dirty: Vec<u32>,
    /// Connections that have become ready after the current pass drained them.
    deferred: Vec<u32>,
    /// Connections that the current pass has read.
    drained: Vec<u32>,
    /// The server processes of connections that were removed after the current pass had drained them. If one is inserted
    /// again meanwhile, what it has received since belongs to the next pass.
    removed_drained: Vec<i32>,
}

impl ReadyQueue {
    /// Adds a connection to the back of the queue.
    pub(super) fn push(&mut self, token: u32, schedule: &mut Schedule) {
        if !std::mem::replace(&mut schedule.is_queued, true) {
            self.ready.push_back(token);
        }
    }

    /// Adds a connection to the front of the queue, in the current turn.
    pub(super) fn push_first(&mut self, token: u32, schedule: &mut Schedule) {
        if !std::mem::replace(&mut schedule.is_queued, true) {
            self.ready.push_front(token);
            self.to_serve += 1;
        }
    }

    /// Adds a connection that the caller may have changed: its socket may have been read without the loop's knowledge, and
    /// it may hold notifications.
    pub(super) fn mark_dirty(&mut self, token: u32, schedule: &mut Schedule) {
        self.push(token, schedule);
        self.dirty.push(token);
    }

    /// Adds a connection whose socket is ready.
    pub(super) fn push_ready(&mut self, token: u32, schedule: &mut Schedule) {
        if !std::mem::replace(&mut schedule.is_queued, true) {
            match schedule.drained < DRAIN_MAX {
                true => self.ready.push_back(token),
                false => self.deferred.push(token),
            }
        }
    }

    /// Moves the first connections of the queue behind all others.
    pub(super) fn move_back(&mut self, left_over: usize) {
        if left_over > 0 {
            self.ready.rotate_left(left_over);
        }
    }

    /// Lets the current turn serve all connections in the queue.
    pub(super) fn serve_all(&mut self) {
        self.to_serve = self.ready.len();
    }

    /// Returns the next connection to serve in this turn, which stays in the queue.
    pub(super) fn peek(&self) -> Option<u32> {
        if self.to_serve == 0 { None } else { self.ready.front().copied() }
    }

    /// Takes the next connection to serve in this turn.
    pub(super) fn pop(&mut self) -> Option<u32> {
        self.to_serve = self.to_serve.checked_sub(1)?;
        self.ready.pop_front()
    }

    /// Forgets which connections were changed, since the next turn serves all of them, and releases the capacity that a
    /// burst has left.
    pub(super) fn end_turn(&mut self) {
        self.dirty.clear();
        self.dirty.shrink_to(KEPT_DIRTY);
        if self.ready.is_empty() && self.ready.capacity() > KEPT_CAPACITY {
            self.ready.shrink_to(KEPT_CAPACITY);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ready.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// Returns `true` if nothing is left to serve in this turn.
    pub(super) fn is_served(&self) -> bool {
        self.to_serve == 0
    }

    /// Empties the queue.
    pub(super) fn clear(&mut self) {
        self.ready.clear();
        self.to_serve = 0;
    }

    // ---- the pass of a zero timeout --------------------------------------------------------------------------------

    /// Leaves a connection that the current pass has drained to the next pass; returns `false` if it is not drained.
    pub(super) fn defer_drained(&mut self, token: u32, schedule: &mut Schedule) -> bool {
        let is_drained = schedule.drained >= DRAIN_MAX;
        if is_drained {
            schedule.is_queued = true;
            self.deferred.push(token);
        }
        is_drained
    }

    /// Records that the current pass has read a connection, and whether its socket may hold more.
    pub(super) fn note_read(&mut self, token: u32, schedule: &mut Schedule, bytes: usize, may_have_more: bool) {
        if schedule.drained == 0 {
            self.drained.push(token);
        }
        // An empty socket is left for the next pass; the size of one read cannot overflow the sum.
        schedule.drained = if may_have_more { schedule.drained + bytes as u32 } else { DRAIN_MAX };
    }

    /// Records that a connection of this server process is removed.
    pub(super) fn note_removed(&mut self, schedule: &Schedule, pid: i32) {
        if schedule.drained > 0 {
            self.removed_drained.push(pid);
        }
    }

    /// Leaves a connection that is inserted to the next pass if the current one has drained it.
    pub(super) fn note_inserted(&mut self, token: u32, schedule: &mut Schedule, pid: i32) {
        if self.removed_drained.contains(&pid) {
            schedule.drained = DRAIN_MAX;
            self.drained.push(token);
        }
    }

    /// Ends the current pass: connections that became ready after it had drained them are ready again.
    pub(super) fn end_pass(&mut self, mut with_schedule: impl FnMut(u32, fn(&mut Schedule))) {
        while let Some(token) = self.drained.pop() {
            with_schedule(token, |schedule| schedule.drained = 0);
        }
        self.removed_drained = Vec::new();
        self.ready.extend(std::mem::take(&mut self.deferred));
    }
}
