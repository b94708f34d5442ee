//! The settings of a fleet, and the state that all its connections share.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::audit::AuditSchedule;
use super::backoff::Backoff;
use super::canary::Canaries;
use super::dial_budget::DialBudget;
use super::heartbeat::Heartbeat;
use super::jitter::Jitter;
use super::permit::Permits;
use super::ready_queue::ReadyQueue;
use super::timers::Timers;
use crate::connection::ConnectionInterner;
use crate::manager::event::Event;
use crate::manager::stats::Counters;

/// The settings and the state that all connections share.
#[derive(Debug)]
pub(super) struct Services {
    /// The policy for reconnecting; `None` if lost connections go to the garbage.
    pub(super) backoff: Option<Backoff>,
    pub(super) heartbeat: Option<Heartbeat>,
    pub(super) canary: Option<Box<Canaries>>,
    pub(super) audit: Option<AuditSchedule>,
    pub(super) jitter: Jitter,
    pub(super) timers: Timers,
    pub(super) ready: ReadyQueue,
    /// Attempts to restore connections, and to open those whose first attempt has failed.
    pub(super) dials: DialBudget<u32>,
    /// First attempts to open connections.
    pub(super) first_dials: DialBudget<u32>,
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
}

impl Services {
    pub(super) fn new(counters: Arc<Counters>, jitter: Jitter) -> Self {
        Self {
            backoff: None,
            heartbeat: None,
            canary: None,
            audit: None,
            jitter,
            timers: Timers::default(),
            ready: ReadyQueue::default(),
            dials: DialBudget::default(),
            first_dials: DialBudget::default(),
            cancels: Permits::default(),
            await_waker: Vec::new(),
            events: VecDeque::new(),
            in_transaction: 0,
            interner: ConnectionInterner::default(),
            counters,
        }
    }

    /// Returns the time that a server has to deliver a canary before a heartbeat or an audit counts that seems to have
    /// released it: as long as possible, since a busy server may be late, but short enough that some of them count.
    pub(super) fn delivery_time(&self) -> Duration {
        let deadline = self.canary.as_ref().map_or(Duration::ZERO, |canary| canary.deadline());
        let heartbeat = self.heartbeat.map_or(Duration::MAX, |heartbeat| heartbeat.idle);
        let audit = self.audit.as_ref().map_or(Duration::MAX, |audit| audit.period);
        (deadline / 2).min(heartbeat.min(audit) / 4)
    }

    pub(super) fn count_transactions(&mut self, change: isize) {
        self.in_transaction = self.in_transaction.saturating_add_signed(change);
        self.counters.in_transaction.set(self.in_transaction);
    }
}
