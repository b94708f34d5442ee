//! The means with which a connection is served.

use std::io;
use std::time::Instant;

use super::permit::Permit;
use super::ready_queue::Schedule;
use super::services::Services;
use super::timers::Timer;
use crate::config::Config;
use crate::connection::{Cancel, Link, ReadContext, Transport};
use crate::error::Error;
use crate::manager::conn_id::ConnId;
use crate::manager::event::Event;
use crate::proto::Request;

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

/// The means with which a connection is served, or a task on its behalf.
pub(super) struct Turn<'t, S: Transport> {
    /// The connection.
    pub(super) id: ConnId,
    /// The token of the stream in the poll.
    pub(super) token: u32,
    pub(super) read: ReadContext<'t>,
    pub(super) poller: &'t mut dyn Poller<S>,
    pub(super) services: &'t mut Services,
    pub(super) schedule: &'t mut Schedule,
    /// The tasks that connections start.
    pub(super) tasks: &'t mut Vec<NewTask<S>>,
    /// The connections whose CancelRequests end, because they are removed.
    pub(super) ended_cancels: &'t mut Vec<ConnId>,
}

/// A connection that the fleet will open for itself, on behalf of one of its connections.
pub(super) struct NewTask<S> {
    pub(super) owner: ConnId,
    pub(super) purpose: TaskPurpose<S>,
}

pub(super) enum TaskPurpose<S> {
    /// A CancelRequest that has begun, and its place among those in progress.
    Cancel(Cancel<S>, Permit),
    /// A session that sends a canary by this request.
    SendCanary(Config, Request),
}

impl<'t, S: Transport> Turn<'t, S> {
    pub(super) fn now(&self) -> Instant {
        self.read.now
    }

    /// Starts a task on behalf of the connection.
    pub(super) fn start(&mut self, purpose: TaskPurpose<S>) {
        self.tasks.push(NewTask { owner: self.id, purpose });
    }

    /// Returns the means of a read of the connection's stream.
    pub(super) fn read_context(&mut self) -> &mut ReadContext<'t> {
        self.read.until_empty = self.schedule.peer_closed;
        &mut self.read
    }

    /// Reports channels that the session does not listen to any more, before anything that was received later.
    #[inline]
    pub(super) fn report_unlistened(&mut self, link: &mut Link<S>) {
        let channels = link.take_unlistened();
        if !channels.is_empty() {
            self.services.events.push_back(Event::Unlistened(self.id, channels.into()));
        }
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

    /// Watches a stream that is being opened, for writing only as long as that is needed for its first time.
    pub(super) fn watch(&mut self, stream: &S, is_new: bool, wants_write: bool) -> Result<(), Error> {
        let watched = match (is_new, wants_write && !self.schedule.watches_write) {
            (true, _) => {
                (self.schedule.watches_write, self.schedule.peer_closed) = (wants_write, false);
                self.poller.register(stream, self.token, wants_write)
            }
            (false, true) => {
                self.schedule.watches_write = true;
                self.poller.reregister(stream, self.token, true)
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
        self.poller.reregister(stream, self.token, wants_write).map_err(watch_error)
    }
}

/// Returns the error for a stream that the poll cannot watch.
fn watch_error(error: io::Error) -> Error {
    Error::io("watching the socket", error)
}
