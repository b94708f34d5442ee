//! The settings of a fleet, and the state that all its connections share.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::audit::AuditSchedule;
use super::backoff::{Backoff, FIRST_DIALS};
use super::canary::Canaries;
use super::dial_budget::DialBudget;
use super::heartbeat::Heartbeat;
use super::jitter::Jitter;
use super::metered::ConnectionCount;
use super::meters::FleetMeters;
use super::permit::{Permit, Permits};
use super::ready_queue::ReadyQueue;
use super::timers::Timers;
use crate::connection::ConnectionInterner;
use crate::manager::conn_id::ConnId;
use crate::manager::event::Event;
use crate::manager::stats::Counters;

/// The settings and the state that all connections share.
#[derive(Debug, Default)]
pub(super) struct Services {
    /// The policy for reconnecting; `None` if lost connections go to the garbage.
    pub(super) backoff: Option<Backoff>,
    pub(super) heartbeat: Option<Heartbeat>,
    pub(super) canary: Option<Box<Canaries>>,
    /// Canaries that are received are reported as events.
    pub(super) reports_canaries: bool,
    pub(super) audit: Option<AuditSchedule>,
    pub(super) jitter: Jitter,
    pub(super) timers: Timers,
    pub(super) ready: ReadyQueue,
    /// Attempts to restore connections, and to open those whose first attempt has failed.
    pub(super) dials: DialBudget,
    /// First attempts to open connections.
    pub(super) first_dials: DialBudget,
    /// CancelRequests in progress.
    pub(super) cancels: Permits,
    /// Connections that wait for the waker, because a name is being resolved or a file is being read.
    pub(super) await_waker: Vec<u32>,
    /// The events to report next.
    pub(super) events: VecDeque<Event>,
    /// The number of transactions that have been reported as open for too long, and are still open.
    pub(super) in_transaction: usize,
    pub(super) interner: ConnectionInterner,
    pub(super) counters: Arc<Counters>,
    pub(super) meters: FleetMeters,
}

impl Services {
    /// Returns the time that a server has to deliver a canary before a heartbeat or an audit counts that seems to have
    /// released it: as long as possible, since a busy server may be late, but short enough that some of them count.
    pub(super) fn delivery_time(&self) -> Duration {
        let deadline = self.canary.as_ref().map_or(Duration::ZERO, |canary| canary.schedule.pace.deadline);
        let heartbeat = self.heartbeat.map_or(Duration::MAX, |heartbeat| heartbeat.idle);
        let audit = self.audit.as_ref().map_or(Duration::MAX, |audit| audit.period);
        (deadline / 2).min(heartbeat.min(audit) / 4)
    }

    /// Returns `true` if anything may be due at some time.
    #[inline]
    pub(super) fn is_timed(&self) -> bool {
        self.timers.next.is_some() || self.canary.is_some() || self.audit.is_some() || self.has_dials()
    }

    /// Returns `true` if connections wait for a permit to make an attempt.
    #[inline]
    fn has_dials(&self) -> bool {
        self.dials.has_waiting() || self.first_dials.has_waiting()
    }

    /// Returns the time at which something is due next.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let canary = self.canary.as_ref().and_then(|canaries| canaries.schedule.next);
        let audit = self.audit.as_ref().and_then(|audit| audit.next);
        let [dial, first_dial] = match self.has_dials() {
            true => [self.dials.due(&self.backoff.unwrap_or_default(), now), self.first_dials.due(&FIRST_DIALS, now)],
            false => [None, None],
        };
        [self.timers.next, canary, audit, dial, first_dial].into_iter().flatten().min()
    }

    /// Returns the next connection that may make an attempt, with its permit.
    #[inline]
    pub(super) fn admit_dial(&mut self, now: Instant) -> Option<(u32, Permit)> {
        if !self.has_dials() {
            return None;
        }
        let backoff = self.backoff.unwrap_or_default();
        self.first_dials.admit(&FIRST_DIALS, now).or_else(|| self.dials.admit(&backoff, now))
    }

    /// Counts notifications that a connection delivers.
    #[inline]
    pub(super) fn count_notifications(&mut self, id: ConnId, n: usize) {
        self.counters.notifications.add(n);
        self.meters.add(id, ConnectionCount::Notifications, n);
    }

    pub(super) fn count_gaps(&mut self, id: ConnId, n: usize) {
        self.counters.gaps.add(n);
        self.meters.add(id, ConnectionCount::Gaps, n);
    }

    pub(super) fn count_losses(&mut self, id: ConnId, n: usize) {
        self.counters.losses.add(n);
        self.meters.add(id, ConnectionCount::Losses, n);
    }

    pub(super) fn count_transactions(&mut self, change: isize) {
        self.in_transaction = self.in_transaction.saturating_add_signed(change);
        self.counters.in_transaction.set(self.in_transaction);
        self.meters.set_in_transaction(self.in_transaction);
    }
}
