//! The means with which a connection is served.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::audit::AuditSchedule;
use super::backoff::Backoff;
use super::canary::Canaries;
use super::dial_budget::DialBudget;
use super::heartbeat::Heartbeat;
use super::jitter::Jitter;
use super::permit::Permits;
use super::ready_queue::{ReadyQueue, Schedule};
use super::task::Task;
use super::timers::{Timer, Timers};
use crate::connection::Transport;
use crate::connection::{ConnectionInterner, ReadContext};
use crate::error::Error;
use crate::manager::conn_id::ConnId;
use crate::manager::event::Event;
use crate::manager::stats::Counters;

/// The poll that reports which streams are ready.
pub(crate) trait Poller<S> {
    fn register(&mut self, stream: &S, token: u32, writable: bool) -> io::Result<()>;
    fn reregister(&mut self, stream: &S, token: u32, writable: bool) -> io::Result<()>;
    fn deregister(&mut self, stream: &S);
}

/// The means that the event loop lends to the fleet: the time, the read buffer and the poll.
pub(crate) struct FleetIo<'a, S> {
    pub(crate) read: ReadContext<'a>,
    pub(crate) poller: &'a mut dyn Poller<S>,
}

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

/// The means with which one connection is served.
pub(super) struct Turn<'t, 'io, S: Transport> {
    pub(super) token: u32,
    pub(super) io: &'t mut FleetIo<'io, S>,
    pub(super) services: &'t mut Services,
    pub(super) schedule: &'t mut Schedule,
    /// The tasks that the connection starts.
    pub(super) tasks: &'t mut Vec<Task<S>>,
    /// The connections whose CancelRequests end, because they are removed.
    pub(super) ended_cancels: &'t mut Vec<ConnId>,
}

impl<'io, S: Transport> Turn<'_, 'io, S> {
    pub(super) fn now(&self) -> Instant {
        self.io.read.now
    }

    /// Returns the means of a read of the connection's stream.
    pub(super) fn read_context(&mut self) -> &mut ReadContext<'io> {
        self.io.read.until_empty = self.schedule.peer_closed;
        &mut self.io.read
    }

    pub(super) fn set_timer(&mut self, timer: Timer, at: Option<Instant>) {
        self.services.timers.set(self.token, &mut self.schedule.timers, timer, at);
    }

    /// Serves the connection again, after those that are ready.
    pub(super) fn queue(&mut self) {
        self.services.ready.push(self.token, self.schedule);
    }

    /// Serves the connection again, before all others.
    pub(super) fn queue_first(&mut self) {
        self.services.ready.push_first(self.token, self.schedule);
    }

    /// Serves the connection again when the waker has been used.
    pub(super) fn await_waker(&mut self) {
        self.services.await_waker.push(self.token);
    }

    /// Watches a stream that is being opened, for writing only as long as that is needed for its first time.
    pub(super) fn watch(&mut self, stream: &S, is_new: bool, wants_write: bool) -> Result<(), Error> {
        let watched = match (is_new, wants_write && !self.schedule.watches_write) {
            (true, _) => {
                (self.schedule.watches_write, self.schedule.peer_closed) = (wants_write, false);
                self.io.poller.register(stream, self.token, wants_write)
            }
            (false, true) => {
                self.schedule.watches_write = true;
                self.io.poller.reregister(stream, self.token, true)
            }
            (false, false) => Ok(()),
        };
        watched.map_err(watch_error)
    }

    /// Watches the stream of a live connection for writing, or no longer.
    pub(super) fn rewatch(&mut self, stream: &S, wants_write: bool) -> Result<(), Error> {
        if wants_write == self.schedule.watches_write {
            return Ok(());
        }
        self.schedule.watches_write = wants_write;
        self.io.poller.reregister(stream, self.token, wants_write).map_err(watch_error)
    }
}

/// Returns the error for a stream that the poll cannot watch.
pub(super) fn watch_error(error: io::Error) -> Error {
    Error::io(WATCHING, error)
}

/// The action of a registration, for errors.
pub(super) const WATCHING: &str = "watching the socket";
