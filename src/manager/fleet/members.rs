//! The connections of a fleet, and the means to serve them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use super::jitter::Jitter;
use super::live::{Live, ServeMode};
use super::member::{Member, Served};
use super::metered::ConnectionSet;
use super::permit::Permit;
use super::reconnect::Absence;
use super::roster::{Occupant, Roster, Slot};
use super::services::Services;
use super::task::{Task, TaskEnd};
use super::turn::{FleetIo, NewTask, Turn};
use crate::connection::{Linked, TraceLabel};
use crate::error::Error;
use crate::manager::conn_id::ConnId;
use crate::manager::dead::Dead;
use crate::manager::event::Event;
use crate::manager::stats::Counters;

/// The reason for which a connection is served.
pub(super) enum ServeReason {
    /// Its stream is ready, a timer has fired, or something has been requested.
    Ready(ServeMode),
    /// It may make a connection attempt.
    Dial(Permit),
}

/// The connections, and what they share.
pub(super) struct Members<C: Linked> {
    pub(super) roster: Roster<C>,
    pub(super) services: Services,
    /// Tasks that connections have started, and that are not in the roster yet.
    tasks: Vec<NewTask<C::Stream>>,
    /// Connections whose CancelRequests end, because the connections have left.
    ended_cancels: Vec<ConnId>,
    /// A number that differs between the managers of a process.
    number: u64,
}

static LAST_NUMBER: AtomicU64 = AtomicU64::new(0);

impl<C: Linked> Members<C> {
    pub(super) fn new(counters: Arc<Counters>, jitter: Jitter) -> Self {
        Self {
            roster: Roster::default(),
            services: Services { counters, jitter, ..Services::default() },
            tasks: Vec::new(),
            ended_cancels: Vec::new(),
            number: LAST_NUMBER.fetch_add(1, Relaxed),
        }
    }

    /// Adds a connection that is open.
    pub(super) fn insert(&mut self, mut connection: C, io: &mut FleetIo<'_, C::Stream>) -> ConnId {
        let link = connection.link_mut();
        link.history.set_pass(None);
        link.share(&mut self.services.interner);
        let (id, pid) = (self.roster.new_id(link.config()), link.pid());
        let token = self.roster.add(Member::live(id, connection));
        self.services.meters.moved(id, None, Some(ConnectionSet::Open));
        self.with_live(token, io, |live, turn| {
            turn.services.ready.note_inserted(token, turn.schedule, pid);
            turn.services.ready.mark_dirty(token, turn.schedule);
            let link = live.link_mut();
            if !link.is_closed()
                && let Err(error) = turn.watch(link.stream(), true, false)
            {
                link.close_for(error);
            }
            live.settle_earlier_request(turn);
            live.start_heartbeat(turn);
            live.join_canary(turn);
        });
        self.count();
        id
    }

    /// Opens a lost connection again as soon as possible: under its id, unless that id is, or was, another connection's.
    pub(super) fn revive(&mut self, id: ConnId, dead: Dead, now: Instant) -> ConnId {
        let is_own = dead.is_from(self.number, id) && self.roster.is_vacant(id);
        let id = if is_own { id } else { self.roster.new_id(dead.config()) };
        self.restore(id, dead, now);
        id
    }

    /// Opens a connection as soon as possible.
    pub(super) fn restore(&mut self, id: ConnId, dead: Dead, now: Instant) {
        let absence = Absence::new(dead, 0, self.services.backoff.is_some());
        let token = self.roster.add(Member::absent(id, absence, now));
        self.services.meters.moved(id, None, Some(ConnectionSet::Restoring));
        self.queue(token);
        self.count();
    }

    /// Removes a connection: with its undelivered notifications, or what is left of a lost one.
    pub(super) fn remove(&mut self, id: ConnId, io: &mut FleetIo<'_, C::Stream>) -> Option<Result<C, Dead>> {
        let removed = match self.roster.token(id) {
            Some(token) => self.remove_member(token, io),
            None => self.roster.remove_garbage(id).map(|dead| {
                self.services.meters.moved(id, Some(ConnectionSet::Garbage), None);
                Err(dead)
            }),
        };
        self.count();
        removed
    }

    fn remove_member(&mut self, token: u32, io: &mut FleetIo<'_, C::Stream>) -> Option<Result<C, Dead>> {
        let Slot { mut schedule, occupant: Occupant::Member(member) } = self.roster.remove(token)? else { return None };
        let id = member.id;
        self.services.meters.moved(id, Some(ConnectionSet::of(member.as_live().is_some())), None);
        let Self { services, tasks, ended_cancels, .. } = self;
        let FleetIo { read, poller } = io;
        let (read, poller, schedule) = (read.labelled(TraceLabel::new(id.number())), &mut **poller, &mut schedule);
        let mut removed =
            member.remove(&mut Turn { id, token, read, poller, services, schedule, tasks, ended_cancels });
        let channels: Arc<[Box<str>]> = match &mut removed {
            Some(Ok(connection)) => connection.link().channels().map(Box::from).collect(),
            Some(Err(dead)) => {
                dead.set_origin(self.number, id);
                dead.channels().into()
            }
            None => Arc::default(),
        };
        if !channels.is_empty() {
            self.services.events.push_back(Event::Unlistened(id, channels));
        }
        self.end_cancels();
        removed
    }

    /// Adds a lost connection to the garbage.
    pub(super) fn add_garbage(&mut self, id: ConnId, mut dead: Dead) {
        dead.set_origin(self.number, id);
        self.services.meters.moved(id, None, Some(ConnectionSet::Garbage));
        self.roster.garbage.push((id, dead));
        self.count();
    }

    pub(super) fn count(&self) {
        let counters = &self.services.counters;
        let restoring = self.roster.restoring;
        counters.connections.set(self.roster.len() - restoring);
        counters.restoring.set(restoring);
        counters.garbage.set(self.roster.garbage.len());
    }

    // ---- serving ----------------------------------------------------------------------------------------------------

    /// Serves the connection after those that are ready.
    pub(super) fn queue(&mut self, token: u32) {
        if let Some(slot) = self.roster.get_mut(token) {
            self.services.ready.push(token, &mut slot.schedule);
        }
    }

    /// Serves one connection, and returns what it has to report.
    #[inline]
    pub(super) fn serve(&mut self, token: u32, io: &mut FleetIo<'_, C::Stream>, reason: ServeReason) -> Option<Event> {
        let (occupant, mut turn) = self.turn(token, io)?;
        if matches!(reason, ServeReason::Ready(ServeMode { reads: true, .. })) {
            turn.schedule.is_queued = false;
        }
        match occupant {
            Occupant::Member(member) => {
                let was_live = member.as_live().is_some();
                let served = match reason {
                    ServeReason::Ready(mode) => member.on_ready(&mut turn, mode),
                    ServeReason::Dial(permit) => member.begin_dial(permit, &mut turn),
                };
                let (id, is_live) = (member.id, member.as_live().is_some());
                self.complete(token, id, served, was_live, is_live)
            }
            Occupant::Task(task) => {
                let end = match reason {
                    ServeReason::Ready(_) => task.on_ready(&mut turn),
                    ServeReason::Dial(permit) => task.begin_dial(permit, &mut turn),
                };
                let owner = task.owner;
                self.end_task(token, owner, end?, io);
                None
            }
        }
    }

    /// Returns a connection or a task, and the means to serve it.
    #[inline]
    fn turn<'t>(
        &'t mut self,
        token: u32,
        io: &'t mut FleetIo<'_, C::Stream>,
    ) -> Option<(&'t mut Occupant<C>, Turn<'t, C::Stream>)> {
        let Self { roster, services, tasks, ended_cancels, .. } = self;
        let Slot { schedule, occupant } = roster.get_mut(token)?;
        let (id, label) = match occupant {
            Occupant::Member(member) => (member.id, TraceLabel::new(member.id.number())),
            Occupant::Task(task) => (task.owner, TraceLabel::default()),
        };
        let FleetIo { read, poller } = io;
        let turn = Turn {
            id,
            token,
            read: read.labelled(label),
            poller: &mut **poller,
            services,
            schedule,
            tasks,
            ended_cancels,
        };
        Some((occupant, turn))
    }

    /// Loses all connections, because the poll has failed.
    pub(super) fn fail_all(&mut self, error: &Error, io: &mut FleetIo<'_, C::Stream>) {
        self.services.backoff = None;
        for token in self.roster.tasks() {
            self.roster.remove(token);
        }
        for token in self.roster.tokens() {
            let Some(member) = self.roster.get(token).and_then(Slot::member) else { continue };
            let (id, was_live) = (member.id, member.as_live().is_some());
            let served = self.with_member(token, io, |member, turn| member.on_poll_error(error, turn));
            let event = served.and_then(|served| self.complete(token, id, served, was_live, false));
            self.services.events.extend(event);
        }
        self.services.ready.clear();
    }

    /// Completes the service of a member.
    #[inline]
    fn complete(&mut self, token: u32, id: ConnId, served: Served, was_live: bool, is_live: bool) -> Option<Event> {
        if !self.tasks.is_empty() || !self.ended_cancels.is_empty() {
            self.add_tasks();
            self.end_cancels();
        }
        match served {
            Served::Stays(event) => {
                if was_live != is_live {
                    self.roster.restoring += usize::from(was_live);
                    self.roster.restoring -= usize::from(is_live);
                    let sets = [was_live, is_live].map(|is_live| Some(ConnectionSet::of(is_live)));
                    self.services.meters.moved(id, sets[0], sets[1]);
                    self.count();
                }
                event
            }
            Served::Lost(dead) => {
                let error = dead.error().clone();
                // A lost connection is no longer live, so that the roster counts it as restoring until it is removed.
                self.roster.restoring += usize::from(was_live);
                self.roster.remove(token);
                self.services.meters.moved(id, Some(ConnectionSet::of(was_live)), None);
                self.add_garbage(id, dead);
                Some(Event::Lost(id, error))
            }
        }
    }

    fn add_tasks(&mut self) {
        for task in std::mem::take(&mut self.tasks) {
            let token = self.roster.occupy(Occupant::Task(Box::new(Task::new(task))));
            self.queue(token);
        }
    }

    fn end_cancels(&mut self) {
        for owner in std::mem::take(&mut self.ended_cancels) {
            self.roster.remove_cancels(owner);
        }
    }

    fn end_task(&mut self, token: u32, owner: ConnId, end: TaskEnd, io: &mut FleetIo<'_, C::Stream>) {
        self.roster.remove(token);
        let Some(token) = self.roster.token(owner) else { return };
        self.with_live(token, io, |live, turn| match end {
            TaskEnd::Cancel(is_over) => live.on_cancel_end(turn, is_over),
            TaskEnd::Canary(result) => live.on_canary_sent(turn, result),
        });
    }

    // ---- access -----------------------------------------------------------------------------------------------------

    /// Calls a function with a member.
    pub(super) fn with_member<R>(
        &mut self,
        token: u32,
        io: &mut FleetIo<'_, C::Stream>,
        action: impl FnOnce(&mut Member<C>, &mut Turn<'_, C::Stream>) -> R,
    ) -> Option<R> {
        let (Occupant::Member(member), mut turn) = self.turn(token, io)? else { return None };
        let result = action(member, &mut turn);
        self.add_tasks();
        Some(result)
    }

    /// Calls a function with a live member.
    pub(super) fn with_live(
        &mut self,
        token: u32,
        io: &mut FleetIo<'_, C::Stream>,
        action: impl FnOnce(&mut Live<C>, &mut Turn<'_, C::Stream>),
    ) {
        self.with_member(token, io, |member, turn| member.as_live_mut().map(|live| action(live, turn)));
    }

    /// Calls a function with each live member.
    pub(super) fn for_each_live(
        &mut self,
        io: &mut FleetIo<'_, C::Stream>,
        mut action: impl FnMut(&mut Live<C>, &mut Turn<'_, C::Stream>),
    ) {
        for token in self.roster.tokens() {
            self.with_live(token, io, &mut action);
        }
    }
}
