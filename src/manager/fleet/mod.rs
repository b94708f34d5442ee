//! The fleet: the connections of a manager, what they are doing, and what happens next.
//!
//! ```text
//!   event loop ── readiness, time, commands ──▶ Fleet ──▶ events, deadlines, streams to watch
//!                                                 │
//!                      Roster: ids, slots ──▶ Member: one life ──▶ Live, or on the way to it
//!                                                 │
//!              Services: ready queue, timers, dial budgets, canary and audit schedules, settings
//! ```
//!
//! The fleet does no I/O of its own: the streams are of any type, the time is an argument, and the poll is lent to it. So
//! tests drive the same code with simulated streams and time. The one exception is the time of day at which a gap begins
//! and ends: `manager/dead.rs` reads it from the clock, for display, and no decision depends on it.
//!
//! One turn serves each connection that is ready, with one read. The fleet refuses to look at a connection that is not
//! ready, to wait for a server, to stop reading because a consumer is slow, and to fail: single connections do.

mod audit;
mod backoff;
mod canary;
mod describe;
mod dial_budget;
mod edits;
mod heartbeat;
mod jitter;
mod live;
mod log;
mod member;
mod members;
#[cfg(feature = "metrics")]
mod meter_table;
mod metered;
mod meters;
mod permit;
mod ready_queue;
mod reconnect;
mod roster;
mod services;
#[cfg(test)]
mod simulation;
mod task;
mod timers;
mod turn;
mod unsettled;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::audit::AuditSchedule;
pub use self::backoff::Backoff;
use self::canary::CanaryDue;
pub(crate) use self::canary::{Canaries, CanaryPace};
use self::describe::FleetView;
pub(crate) use self::heartbeat::Heartbeat;
pub(crate) use self::jitter::Jitter;
use self::live::{Live, ServeMode};
use self::log::SharedTimer;
use self::member::Member;
use self::members::{Members, ServeReason};
use self::metered::ConnectionSet;
use self::timers::Timer;
use self::turn::TaskPurpose;
pub(crate) use self::turn::{FleetIo, Poller};
use self::unsettled::RequestOrigin;
use crate::config::Config;
use crate::connection::Linked;
use crate::connection::idle::Idle;
use crate::error::Error;
use crate::manager::command::{Command, RequestTicket};
use crate::manager::conn_id::ConnId;
use crate::manager::dead::Dead;
use crate::manager::event::Event;
use crate::manager::stats::Counters;
use crate::proto::{Request, sql};

/// The connections of a manager.
pub(crate) struct Fleet<C: Linked> {
    members: Members<C>,
    idle: Idle,
    phase: IdlePhase,
    /// `true` if the gap of a connection is an event of its own, and `false` if it is part of its batch.
    pub(crate) has_gap_events: bool,
}

/// The progress towards an idle event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IdlePhase {
    NotDue,
    /// The idle event is due. The sockets must be polled once more before it.
    Due,
    /// The sockets have been polled since the idle event became due. It follows when the turn is over.
    Polled,
}

/// The result of the end of a turn.
#[derive(Debug)]
pub(crate) enum TurnEnd {
    /// The idle event must be reported.
    Idle,
    /// A connection that the loop's body may have changed must be [served](Fleet::serve_changed) first.
    ServeChanged,
    /// There is no connection left.
    NoConnections,
    /// Poll the sockets, for no longer than until this time; `None` for as long as it takes.
    Poll(Option<Instant>),
}

impl<C: Linked> Fleet<C> {
    pub(crate) fn new(counters: Arc<Counters>, jitter: Jitter) -> Self {
        Self {
            members: Members::new(counters, jitter),
            idle: Idle::default(),
            phase: IdlePhase::NotDue,
            has_gap_events: true,
        }
    }

    // ---- settings ---------------------------------------------------------------------------------------------------

    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.idle.period()
    }

    /// Sets the period of idle events; zero for a pass over the sockets, which ends.
    pub(crate) fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.idle = Idle::new(timeout);
        self.phase = IdlePhase::NotDue;
        self.end_pass();
    }

    /// Returns `true` if the timeout is zero.
    pub(crate) fn is_pass(&self) -> bool {
        self.idle.is_zero()
    }

    pub(crate) fn set_backoff(&mut self, backoff: Backoff) {
        self.members.services.backoff = Some(backoff);
    }

    pub(crate) fn set_heartbeat(&mut self, heartbeat: Heartbeat, io: &mut FleetIo<'_, C::Stream>) {
        self.members.services.heartbeat = Some(heartbeat);
        self.members.for_each_live(io, Live::start_heartbeat);
    }

    /// Reports each canary that is received as an event.
    pub(crate) fn report_canaries(&mut self) {
        self.members.services.reports_canaries = true;
    }

    pub(crate) fn set_canary(&mut self, canaries: Canaries, io: &mut FleetIo<'_, C::Stream>) {
        self.members.services.canary = Some(Box::new(canaries));
        self.members.for_each_live(io, Live::join_canary);
    }

    pub(crate) fn set_audit(&mut self, period: Duration, now: Instant) {
        self.members.services.audit = Some(AuditSchedule::new(period, now));
    }

    /// Returns a description of the fleet at this time, for `Debug`: one entry for each connection.
    pub(crate) fn describe(&self, now: Instant) -> impl Debug {
        FleetView { members: &self.members, idle: &self.idle, now }
    }

    // ---- connections ------------------------------------------------------------------------------------------------

    /// Adds a connection that is open.
    pub(crate) fn insert(&mut self, connection: C, io: &mut FleetIo<'_, C::Stream>) -> ConnId {
        self.members.insert(connection, io)
    }

    /// Opens a connection as soon as possible. One whose channels are invalid is added to the garbage.
    pub(crate) fn dial(
        &mut self,
        config: Config,
        channels: Result<Vec<Box<str>>, Error>,
        limits: sql::Limits,
        now: Instant,
    ) -> ConnId {
        let id = self.members.roster.new_id(&config);
        match channels {
            Ok(channels) => self.members.restore(id, Dead::unopened(config, channels, limits, now), now),
            Err(error) => {
                let mut dead = Dead::unopened(config, Vec::new(), limits, now);
                dead.fail(error.clone());
                self.members.add_garbage(id, dead);
                self.members.services.events.push_back(Event::Lost(id, error));
            }
        }
        id
    }

    /// Opens a lost connection again as soon as possible; returns its id.
    pub(crate) fn revive(&mut self, id: ConnId, dead: Dead, now: Instant) -> ConnId {
        self.members.revive(id, dead, now)
    }

    /// Removes a connection: with its undelivered notifications, or what is left of a lost one.
    pub(crate) fn remove(&mut self, id: ConnId, io: &mut FleetIo<'_, C::Stream>) -> Option<Result<C, Dead>> {
        self.members.remove(id, io)
    }

    /// Removes all live connections.
    pub(crate) fn remove_all(&mut self, io: &mut FleetIo<'_, C::Stream>) -> Vec<(ConnId, C)> {
        let ids: Vec<_> = self.connections().map(|(id, _)| id).collect();
        ids.into_iter().filter_map(|id| Some((id, self.remove(id, io)?.ok()?))).collect()
    }

    /// Returns a live connection.
    pub(crate) fn get(&self, id: ConnId) -> Option<&C> {
        Some(&self.members.roster.find(id)?.as_live()?.connection)
    }

    /// Returns a live connection for calls that may change it; the next turn serves it.
    pub(crate) fn get_mut(&mut self, id: ConnId) -> Option<&mut C> {
        let Members { roster, services, .. } = &mut self.members;
        let token = roster.token(id)?;
        let slot = roster.get_mut(token)?;
        services.ready.mark_dirty(token, &mut slot.schedule);
        Some(&mut slot.member_mut()?.as_live_mut()?.connection)
    }

    /// Returns the live connections, in the order of ids.
    pub(crate) fn connections(&self) -> impl Iterator<Item = (ConnId, &C)> {
        self.members.roster.members().filter_map(|member| Some((member.id, &member.as_live()?.connection)))
    }

    /// Returns the connections that are being restored or opened, in the order of ids.
    pub(crate) fn restoring(&self) -> impl Iterator<Item = (ConnId, &Dead)> {
        self.members.roster.members().filter_map(|member| Some((member.id, member.as_dead()?)))
    }

    /// Returns the lost connections, in the order of their losses.
    pub(crate) fn garbage(&self) -> &[(ConnId, Dead)] {
        &self.members.roster.garbage
    }

    pub(crate) fn take_garbage(&mut self) -> Vec<(ConnId, Dead)> {
        let garbage = std::mem::take(&mut self.members.roster.garbage);
        let meters = &mut self.members.services.meters;
        garbage.iter().for_each(|(id, _)| meters.moved(*id, Some(ConnectionSet::Garbage), None));
        self.members.count();
        garbage
    }

    /// Runs a command of a handle.
    pub(crate) fn run_command(
        &mut self,
        id: ConnId,
        command: Command,
        ticket: RequestTicket,
        io: &mut FleetIo<'_, C::Stream>,
    ) {
        match self.members.roster.token(id) {
            Some(token) => {
                self.members.with_member(token, io, |member, turn| member.run_command(command, ticket, turn));
            }
            None => {
                let dead = self.garbage().iter().find(|(dead, _)| *dead == id);
                ticket.resolve(Err(dead.map_or(Error::UnknownConnection, |(_, dead)| dead.error().clone())));
            }
        }
    }

    // ---- turns ------------------------------------------------------------------------------------------------------

    /// Takes the next event that has been collected.
    #[inline]
    pub(crate) fn take_event(&mut self) -> Option<Event> {
        self.members.services.events.pop_front()
    }

    /// Returns `true` if every connection of the turn has been served.
    #[inline]
    pub(crate) fn is_turn_over(&self) -> bool {
        self.members.services.ready.is_served()
    }

    /// Returns `true` if the next connection to serve depends on the time that the loop's body has taken.
    #[inline]
    pub(crate) fn needs_exact_time(&self) -> bool {
        let Members { roster, services, .. } = &self.members;
        let Some(slot) = services.ready.peek().and_then(|token| roster.get(token)) else { return false };
        let live = slot.member().and_then(Member::as_live);
        slot.schedule.is_heartbeat_due || live.is_none_or(Live::is_unsettled)
    }

    /// Serves the next connection: one read, and what it brings.
    #[inline]
    pub(crate) fn serve_next(&mut self, io: &mut FleetIo<'_, C::Stream>) -> Option<Event> {
        let token = self.members.services.ready.pop()?;
        self.members.serve(token, io, ServeReason::Ready(self.mode(true)))
    }

    fn mode(&self, reads: bool) -> ServeMode {
        ServeMode { reads, has_gap_events: self.has_gap_events, is_pass: self.idle.is_zero() }
    }

    /// Returns `true` if the end of the turn depends on the time that the turn has taken.
    #[inline]
    pub(crate) fn is_timed(&self) -> bool {
        let services = &self.members.services;
        self.idle.is_timed() || services.ready.is_empty() && services.is_timed()
    }

    /// Ends a turn, and returns what to do next; `waits` if the loop continues without a connection.
    #[inline]
    pub(crate) fn end_turn(&mut self, now: Instant, waits: bool) -> TurnEnd {
        self.idle.begin(now);
        if self.members.roster.len() == 0 && !waits {
            return TurnEnd::NoConnections;
        }
        if self.phase == IdlePhase::Polled {
            // What a call in the loop's body has received meanwhile is reported before the idle event.
            if !self.members.services.ready.dirty.is_empty() {
                return TurnEnd::ServeChanged;
            }
            self.phase = IdlePhase::NotDue;
            self.idle.restart(now);
            log::shared_timer_fired(SharedTimer::Idle);
            return TurnEnd::Idle;
        }
        let Members { roster, services, .. } = &mut self.members;
        services.ready.end_turn();
        if services.timers.is_full() {
            services.timers.remove_stale(|token| Some(roster.get(token)?.schedule.timers));
        }
        self.phase = if self.idle.is_due(now) { IdlePhase::Due } else { IdlePhase::NotDue };
        TurnEnd::Poll(if self.phase == IdlePhase::Due { Some(now) } else { self.deadline(now) })
    }

    /// Returns what a connection that the loop's body may have changed has to report, without reading.
    pub(crate) fn serve_changed(&mut self, io: &mut FleetIo<'_, C::Stream>) -> Option<Event> {
        let token = self.members.services.ready.dirty.pop()?;
        self.members.serve(token, io, ServeReason::Ready(self.mode(false)))
    }

    /// Returns the time of the next turn, if no socket becomes ready before.
    #[inline]
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        let services = &self.members.services;
        if !services.ready.is_empty() || !services.events.is_empty() || self.idle.is_zero() {
            return Some(now);
        }
        // A period that has not begun begins with the next turn.
        let idle = self.idle.due().or_else(|| now.checked_add(self.idle.period()?));
        if services.is_timed() { [idle, services.next(now)].into_iter().flatten().min() } else { idle }
    }

    /// Handles the sockets that a poll has found ready, each with its token and `true` if the peer has closed it. They are
    /// served before those that are left over from the turn before.
    #[inline]
    pub(crate) fn handle_ready(&mut self, ready: impl Iterator<Item = (u32, bool)>) -> usize {
        let Members { roster, services, .. } = &mut self.members;
        let (left_over, mut count) = (services.ready.len(), 0);
        for (token, peer_closed) in ready {
            count += 1;
            if let Some(slot) = roster.get_mut(token) {
                slot.schedule.peer_closed |= peer_closed;
                services.ready.push_ready(token, &mut slot.schedule);
            }
        }
        services.ready.move_back(left_over);
        count
    }

    /// Handles the use of the waker.
    pub(crate) fn handle_wake(&mut self) {
        for token in std::mem::take(&mut self.members.services.await_waker) {
            self.members.queue(token);
        }
    }

    /// Returns `true` if there are timers, checks or connection attempts, of which [`run_due`](Self::run_due) runs those that
    /// are due.
    #[inline]
    pub(crate) fn has_scheduled(&self) -> bool {
        self.members.services.is_timed()
    }

    /// Runs what is due, after the sockets have been polled.
    pub(crate) fn run_due(&mut self, io: &mut FleetIo<'_, C::Stream>) {
        self.fire_timers(io.read.now);
        self.fire_canaries(io);
        self.fire_audits(io);
        self.admit_dials(io);
    }

    /// Begins a turn. Returns `true` if there is something to do.
    #[inline]
    pub(crate) fn begin_turn(&mut self) -> bool {
        let ready = &mut self.members.services.ready;
        ready.serve_all();
        if self.phase == IdlePhase::Due {
            self.phase = IdlePhase::Polled;
        }
        self.phase == IdlePhase::Polled || !self.is_turn_over() || !self.members.services.events.is_empty()
    }

    fn fire_timers(&mut self, now: Instant) {
        let Members { roster, services, .. } = &mut self.members;
        while let Some((at, token, timer)) = services.timers.pop_due(now) {
            if let Some(slot) = roster.get_mut(token)
                && slot.schedule.timers.take(timer, at)
            {
                slot.schedule.is_heartbeat_due |= timer == Timer::Heartbeat;
                services.ready.push(token, &mut slot.schedule);
                roster.log_timer(token, timer);
            }
        }
    }

    /// Sends the canaries that are due, and audits the connections that have not received theirs.
    fn fire_canaries(&mut self, io: &mut FleetIo<'_, C::Stream>) {
        while let Some(canaries) = &mut self.members.services.canary
            && let Some(due) = canaries.schedule.due(io.read.now)
        {
            match due {
                CanaryDue::Send(database) => {
                    let payload = canaries.next_payload();
                    let members: Vec<_> = canaries.schedule.members(&database).collect();
                    let sender = self.expect_canary(&members, &payload);
                    if let Some(canaries) = &mut self.members.services.canary {
                        canaries.schedule.sent(&database, sender, &payload, io.read.now);
                    }
                    if let Some(id) = sender {
                        self.send_canary(id, &payload, members.len() == 1, io);
                    }
                }
                CanaryDue::Ask(database, payload) => {
                    let members: Vec<_> = canaries.schedule.members(&database).collect();
                    for token in members.into_iter().filter_map(|id| self.members.roster.token(id)).collect::<Vec<_>>()
                    {
                        self.members.with_live(token, io, |live, turn| live.audit_missed_canary(turn, &payload));
                    }
                }
            }
        }
    }

    /// Lets the connections of a database expect a canary, and returns the one that sends it.
    fn expect_canary(&mut self, members: &[ConnId], payload: &str) -> Option<ConnId> {
        let roster = &mut self.members.roster;
        let mut sender = None;
        for id in members {
            let slot = roster.token(*id).and_then(|token| roster.get_mut(token));
            if let Some(live) = slot.and_then(|slot| slot.member_mut()?.as_live_mut())
                && live.expect_canary(payload)
            {
                sender = sender.or(Some(*id));
            }
        }
        sender
    }

    fn send_canary(&mut self, id: ConnId, payload: &str, is_only: bool, io: &mut FleetIo<'_, C::Stream>) {
        let Some(token) = self.members.roster.token(id) else { return };
        self.members.with_live(token, io, |live, turn| {
            let Some(channel) = live.link().canary_channel() else { return };
            let request = Request::Notify(sql::notify_many([(channel, payload)]));
            if live.needs_canary_sender(is_only) {
                let config = live.link().config().clone();
                turn.start(TaskPurpose::SendCanary(config, request));
            } else {
                live.request(turn, request, RequestOrigin::Canary, 0);
            }
        });
    }

    /// Audits the connections that are due.
    fn fire_audits(&mut self, io: &mut FleetIo<'_, C::Stream>) {
        let count = self.members.roster.len();
        let Some(audit) = &mut self.members.services.audit else { return };
        for _ in 0..audit.due(io.read.now, count) {
            let Some(audit) = &mut self.members.services.audit else { return };
            let Some((id, token)) = self.members.roster.after(audit.last) else { return };
            audit.last = Some(id);
            self.members.with_live(token, io, |live, turn| live.audit(turn));
        }
    }

    /// Begins the connection attempts that the budgets allow.
    fn admit_dials(&mut self, io: &mut FleetIo<'_, C::Stream>) {
        loop {
            let Some((token, permit)) = self.members.services.admit_dial(io.read.now) else { return };
            let event = self.members.serve(token, io, ServeReason::Dial(permit));
            self.members.services.events.extend(event);
        }
    }

    /// Loses all connections, because the poll has failed.
    pub(crate) fn fail_all(&mut self, error: &Error, io: &mut FleetIo<'_, C::Stream>) {
        self.members.fail_all(error, io);
    }

    /// Hands over to the recorder of the feature `metrics` what has changed.
    #[inline]
    pub(crate) fn publish_metrics(&mut self) {
        self.members.services.meters.publish();
    }

    /// Ends the pass of a zero timeout.
    pub(crate) fn end_pass(&mut self) {
        let Members { roster, services, .. } = &mut self.members;
        services.ready.end_pass(|token, reset| {
            if let Some(slot) = roster.get_mut(token) {
                reset(&mut slot.schedule);
            }
        });
    }

    /// Polls the sockets before the next idle event, whether they have been polled or not.
    pub(crate) fn postpone_idle(&mut self) {
        self.phase = IdlePhase::NotDue;
    }
}
