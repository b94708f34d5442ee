//! The life of one connection.
//!
//! ```text
//!                 ┌─────────────────── an attempt failed ◀──┬───────────┐
//!                 ▼                                         │           │
//!   lost ──▶ Backoff ──▶ Queued ──permit──▶ Dialling ──▶ Listening ──▶ Live ──▶ Ended ──▶ lost
//!                                                                       ▲
//!   insert ─────────────────────────────────────────────────────────────┘
//! ```
//!
//! Each state owns what belongs to it, and hands on what outlives it: the lost connection with its channels and tickets
//! moves from state to state in an [`Absence`], and the permit for the attempt is held from `Dialling` to the end of
//! `Listening`. `Ended` is a session that has ended, and whose last notifications are reported before the loss.

use std::collections::BTreeSet;
use std::fmt::DebugStruct;
use std::time::Instant;

use super::backoff::{failed_before, is_final_attempt, is_final_loss};
use super::live::{Live, ServeMode};
use super::log::{self, SharedTimer};
use super::metered::ConnectionCount;
use super::permit::Permit;
use super::reconnect::{Absence, Attempt, Dialling, Listening};
use super::timers::{Timer, TimerSet};
use super::turn::Turn;
use super::unsettled::RequestOrigin;
use crate::config::Config;
use crate::connection::{Link, Linked};
use crate::error::Error;
use crate::manager::command::{Command, RequestTicket};
use crate::manager::conn_id::ConnId;
use crate::manager::dead::Dead;
use crate::manager::event::Event;
use crate::proto::{Reply, Request, refuse_canary_channel};

/// A connection of the fleet.
pub(super) struct Member<C: Linked> {
    pub(super) id: ConnId,
    state: MemberState<C>,
}

#[allow(clippy::large_enum_variant, reason = "nearly all members are live, and nearly always")]
enum MemberState<C: Linked> {
    /// Waiting for the time of the next attempt.
    Backoff(Box<Absence>, Instant),
    /// Waiting for the permit for an attempt.
    Queued(Box<Absence>),
    /// Connecting, and logging in.
    Dialling(Box<Dialling<C::Stream>>),
    /// Waiting for the acknowledgement of the LISTENs.
    Listening(Box<Listening<C::Stream>>),
    Live(Live<C>),
    /// The session has ended. Its last notifications are reported before the loss.
    Ended(Box<Live<C>>),
    /// Between two states: the name of the former one.
    Moving(&'static str),
}

impl<C: Linked> MemberState<C> {
    /// Returns the name of the state, for logs.
    fn name(&self) -> &'static str {
        match self {
            MemberState::Backoff(..) => "backoff",
            MemberState::Queued(_) => "queued",
            MemberState::Dialling(_) => "dialling",
            MemberState::Listening(_) => "listening",
            MemberState::Live(_) => "live",
            MemberState::Ended(_) => "ended",
            MemberState::Moving(name) => name,
        }
    }

    /// Returns the session, or else what is left of the connection without one; `None` between two states.
    fn end(self) -> Option<Result<Live<C>, Absence>> {
        Some(match self {
            MemberState::Live(live) => Ok(live),
            MemberState::Ended(live) => Ok(*live),
            MemberState::Backoff(absence, _) | MemberState::Queued(absence) => Err(*absence),
            MemberState::Dialling(dialling) => Err(*dialling.absence),
            MemberState::Listening(listening) => Err(*listening.absence),
            MemberState::Moving(_) => return None,
        })
    }
}

// Names for what comes before the first state and after the last, for logs.
const NEW: &str = "new";
const LOST: &str = "lost";
const REMOVED: &str = "removed";

/// The consequences of serving a member.
pub(super) enum Served {
    /// The member stays in the fleet.
    Stays(Option<Event>),
    /// The member is lost for good, or could not be opened.
    Lost(Dead),
}

impl<C: Linked> Member<C> {
    /// Returns a member that is open.
    pub(super) fn live(id: ConnId, connection: C) -> Self {
        Self::new(id, MemberState::Live(Live::new(connection)))
    }

    /// Returns a member that will be opened as soon as possible.
    pub(super) fn absent(id: ConnId, absence: Absence, now: Instant) -> Self {
        Self::new(id, MemberState::Backoff(Box::new(absence), now))
    }

    fn new(id: ConnId, state: MemberState<C>) -> Self {
        let mut member = Self { id, state: MemberState::Moving(NEW) };
        member.enter(state);
        member
    }

    /// Returns the connection of a member that is open, or whose loss has not been reported.
    #[inline]
    pub(super) fn as_live(&self) -> Option<&Live<C>> {
        match &self.state {
            MemberState::Live(live) => Some(live),
            MemberState::Ended(live) => Some(live),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn as_live_mut(&mut self) -> Option<&mut Live<C>> {
        match &mut self.state {
            MemberState::Live(live) => Some(live),
            MemberState::Ended(live) => Some(live),
            _ => None,
        }
    }

    /// Returns the lost connection of a member that is being restored or opened.
    pub(super) fn as_dead(&self) -> Option<&Dead> {
        Some(&self.absence()?.dead)
    }

    /// Adds the state to a description; times are relative to `now`.
    pub(super) fn describe(&self, entry: &mut DebugStruct<'_, '_>, now: Instant) {
        entry.field("id", &self.id.number()).field("state", &self.state.name());
        if let MemberState::Backoff(_, at) = &self.state {
            entry.field("next_attempt", &at.saturating_duration_since(now));
        }
        if let MemberState::Dialling(dialling) = &self.state {
            entry.field("phase", &dialling.phase());
        }
        match (self.as_live(), self.absence()) {
            (Some(live), _) => live.describe(entry),
            (None, Some(absence)) => absence.describe(entry),
            (None, None) => {}
        }
    }

    /// Returns the configuration of the connection.
    pub(super) fn config(&self) -> Option<&Config> {
        self.as_live().map(|live| live.link().config()).or_else(|| self.as_dead().map(Dead::config))
    }

    fn absence(&self) -> Option<&Absence> {
        match &self.state {
            MemberState::Backoff(absence, _) | MemberState::Queued(absence) => Some(absence),
            MemberState::Dialling(dialling) => Some(&dialling.absence),
            MemberState::Listening(listening) => Some(&listening.absence),
            MemberState::Live(_) | MemberState::Ended(_) | MemberState::Moving(_) => None,
        }
    }

    /// Returns `true` if a dial or a login is in progress.
    #[cfg(test)]
    pub(super) fn holds_permit(&self) -> bool {
        matches!(self.state, MemberState::Dialling(_) | MemberState::Listening(_))
    }

    /// Serves the member: the stream is ready, a timer has fired, or something has been requested.
    #[inline]
    pub(super) fn on_ready(&mut self, turn: &mut Turn<'_, C::Stream>, mode: ServeMode) -> Served {
        let Some(live) = self.as_live_mut() else { return self.advance(turn) };
        let event = live.on_ready(turn, mode);
        if live.link().is_closed() { self.on_end(turn, event) } else { Served::Stays(event) }
    }

    /// Handles the end of a session: what it has received is reported before the loss.
    fn on_end(&mut self, turn: &mut Turn<'_, C::Stream>, event: Option<Event>) -> Served {
        let Some(Ok(live)) = self.take().end() else { return Served::Stays(event) };
        if event.is_some() {
            self.enter(MemberState::Ended(Box::new(live)));
            turn.queue_first();
            return Served::Stays(event);
        }
        self.on_loss(live, turn)
    }

    /// Reports the loss of a session. The member is restored, if the fleet reconnects.
    fn on_loss(&mut self, live: Live<C>, turn: &mut Turn<'_, C::Stream>) -> Served {
        let established = live.link().history.established();
        let dead = live.into_dead(turn);
        let error = dead.error().clone();
        turn.services.count_losses(self.id, 1);
        let backoff = turn.services.backoff.filter(|_| !is_final_loss(&error));
        log::lost(self.id, dead.config(), &error, backoff.is_some());
        let Some(backoff) = backoff else {
            self.leave(dead.config(), LOST);
            return Served::Lost(dead);
        };
        // A connection whose sessions never last is restored with growing delays.
        let failed = failed_before(established, &error, turn.now());
        let at = turn.now() + backoff.delay(failed, &mut turn.services.jitter);
        turn.schedule.reset();
        self.back_off(Box::new(Absence::new(dead, failed, true)), at, turn);
        Served::Stays(Some(Event::Disconnected(self.id, error)))
    }

    fn back_off(&mut self, absence: Box<Absence>, at: Instant, turn: &mut Turn<'_, C::Stream>) {
        turn.set_timer(Timer::Retry, Some(at));
        self.enter(MemberState::Backoff(absence, at));
    }

    /// Takes the state, which another one must follow.
    fn take(&mut self) -> MemberState<C> {
        let name = self.state.name();
        std::mem::replace(&mut self.state, MemberState::Moving(name))
    }

    /// Moves the member into a state.
    fn enter(&mut self, state: MemberState<C>) {
        let from = std::mem::replace(&mut self.state, state).name();
        if let Some(config) = self.config()
            && from != self.state.name()
        {
            log::state_changed(self.id, config, from, self.state.name());
        }
    }

    /// Logs that the member leaves the fleet.
    fn leave(&self, config: &Config, to: &'static str) {
        log::state_changed(self.id, config, self.state.name(), to);
    }

    /// Continues to open the connection, as far as possible.
    fn advance(&mut self, turn: &mut Turn<'_, C::Stream>) -> Served {
        let state = match self.take() {
            MemberState::Backoff(absence, at) if turn.now() < at => {
                turn.set_timer(Timer::Retry, Some(at));
                MemberState::Backoff(absence, at)
            }
            MemberState::Backoff(absence, _) => {
                match absence.is_first() {
                    true => turn.services.first_dials.enqueue(turn.token),
                    false => turn.services.dials.enqueue(turn.token),
                }
                MemberState::Queued(absence)
            }
            MemberState::Dialling(dialling) => return self.on_progress(dialling.advance(turn), turn),
            MemberState::Listening(listening) => return self.on_progress(listening.advance(turn), turn),
            state
            @ (MemberState::Queued(_) | MemberState::Live(_) | MemberState::Ended(_) | MemberState::Moving(_)) => state,
        };
        self.enter(state);
        Served::Stays(None)
    }

    fn on_progress(&mut self, attempt: Attempt<C::Stream>, turn: &mut Turn<'_, C::Stream>) -> Served {
        match attempt {
            Attempt::Dialling(dialling) => self.enter(MemberState::Dialling(dialling)),
            Attempt::Listening(listening) => self.enter(MemberState::Listening(listening)),
            Attempt::LoggedIn(listening) => {
                self.enter(MemberState::Listening(listening));
                return self.advance(turn);
            }
            Attempt::Acknowledged(absence, link, may_have_more) => {
                return Served::Stays(self.on_acknowledged(*absence, *link, may_have_more, turn));
            }
            Attempt::Failed(absence, error) => return self.on_failed_attempt(absence, error, turn),
        }
        Served::Stays(None)
    }

    /// Begins a connection attempt, if the member waits for its permit.
    pub(super) fn begin_dial(&mut self, permit: Permit, turn: &mut Turn<'_, C::Stream>) -> Served {
        match self.take() {
            MemberState::Queued(absence) => {
                log::timer_fired(self.id, Some(absence.dead.config()), SharedTimer::DialPermit);
                turn.services.meters.add(self.id, ConnectionCount::Attempts, 1);
                match Dialling::new(absence, permit, turn.now()) {
                    Ok(dialling) => {
                        self.enter(MemberState::Dialling(Box::new(dialling)));
                        self.advance(turn)
                    }
                    Err((absence, error)) => self.on_failed_attempt(absence, error, turn),
                }
            }
            state => {
                self.enter(state);
                Served::Stays(None)
            }
        }
    }

    /// The server has acknowledged the LISTENs: the member is live.
    fn on_acknowledged(
        &mut self,
        mut absence: Absence,
        mut link: Link<C::Stream>,
        may_have_more: bool,
        turn: &mut Turn<'_, C::Stream>,
    ) -> Option<Event> {
        let is_restored = link.history.gap().is_some();
        match link.history.gap() {
            Some(gap) => {
                log::restored(self.id, link.config(), gap, absence.failed + 1);
                turn.services.counters.restores.add(1);
                turn.services.meters.add(self.id, ConnectionCount::Restores, 1);
            }
            None => log::opened(self.id, link.config(), absence.failed + 1),
        }
        // If nothing follows it, the gap is an event of its own, also in the plain loop.
        let is_quiet = !may_have_more && link.backlog().size() == 0;
        let gap = if is_quiet { link.take_gap(turn.now()) } else { None };
        turn.services.count_gaps(self.id, usize::from(gap.is_some()));
        turn.schedule.timers = TimerSet::default();
        let mut live = Live::new(C::from(link));
        absence.edits.take_tickets().into_iter().for_each(|ticket| ticket.resolve(Ok(())));
        if !is_quiet {
            // Before anything else queues the connection: what it holds must be delivered in this turn.
            turn.queue_first();
        }
        live.start_heartbeat(turn);
        live.join_canary(turn);
        if is_quiet {
            live.after_change(turn);
        }
        self.enter(MemberState::Live(live));
        match gap {
            Some(gap) => Some(Event::Restored(self.id, gap)),
            // A restored connection is reported by its gap.
            None => (!is_restored).then_some(Event::Opened(self.id)),
        }
    }

    /// Tries again later, or gives up.
    fn on_failed_attempt(&mut self, mut absence: Box<Absence>, error: Error, turn: &mut Turn<'_, C::Stream>) -> Served {
        turn.services.meters.add(self.id, ConnectionCount::FailedAttempts, 1);
        let backoff = turn.services.backoff.unwrap_or_default();
        let is_final = is_final_attempt(&error, !absence.dead.is_unopened());
        if !absence.persists || (is_final && !backoff.retry_all) {
            return self.fail(*absence, error, turn);
        }
        // The first failure is reported; the next ones follow with growing delays until one succeeds.
        let is_first = absence.is_first();
        let event = is_first.then(|| Event::Disconnected(self.id, error.clone()));
        log::attempt_failed(self.id, absence.dead.config(), &error, absence.failed.saturating_add(1), is_first);
        absence.fail(error);
        let delay = match is_final {
            true => backoff.slow_delay(&mut turn.services.jitter),
            false => backoff.delay(absence.failed, &mut turn.services.jitter),
        };
        turn.schedule.reset();
        let at = turn.now() + delay;
        self.back_off(absence, at, turn);
        Served::Stays(event)
    }

    /// Gives up to open the connection.
    fn fail(&mut self, absence: Absence, error: Error, turn: &mut Turn<'_, C::Stream>) -> Served {
        log::restore_failed(self.id, absence.dead.config(), &error, absence.failed.saturating_add(1));
        self.leave(absence.dead.config(), LOST);
        // A session that had been open was counted when it was lost.
        turn.services.count_losses(self.id, usize::from(absence.dead.is_unopened()));
        let mut dead = absence.end(&error);
        dead.fail(error);
        Served::Lost(dead)
    }

    /// Loses the member, because the poll has failed.
    pub(super) fn on_poll_error(&mut self, error: &Error, turn: &mut Turn<'_, C::Stream>) -> Served {
        if let Some(live) = self.as_live_mut() {
            live.link_mut().close_for(error.clone());
            // What had been received is reported first.
            if let Some(batch) = live.link_mut().take_batch(turn.now()) {
                turn.services.count_notifications(self.id, batch.len());
                turn.services.events.push_back(Event::Notifies(turn.id, batch));
            }
        }
        match self.take().end() {
            Some(Ok(live)) => self.on_loss(live, turn),
            Some(Err(absence)) => self.fail(absence, error.clone(), turn),
            None => Served::Stays(None),
        }
    }

    /// Runs a command of a handle.
    pub(super) fn run_command(&mut self, command: Command, ticket: RequestTicket, turn: &mut Turn<'_, C::Stream>) {
        let limits = match (self.as_live(), self.as_dead()) {
            (Some(live), _) => live.link().limits(),
            (None, Some(dead)) => dead.limits(),
            (None, None) => return ticket.resolve(Err(Error::UnknownConnection)),
        };
        let reserved = turn.services.canary.as_ref().map(|canaries| &*canaries.channel);
        let request = command.into_request(limits).and_then(|request| {
            if let Some(Request::Listen(names)) = &request {
                refuse_canary_channel(reserved, names)?;
            }
            Ok(request)
        });
        match request {
            Ok(Some(request)) => self.request(request, ticket, turn),
            Ok(None) => ticket.resolve(Ok(Reply::default())),
            Err(error) => ticket.resolve(Err(error)),
        }
    }

    /// Makes a request to the server; while the connection is being restored, changes the channels.
    fn request(&mut self, request: Request, ticket: RequestTicket, turn: &mut Turn<'_, C::Stream>) {
        if let Some(live) = self.as_live_mut() {
            // If the server has forgotten a channel, another LISTEN would hide from the next audit that notifications are
            // missing.
            if let Request::Listen(names) = &request
                && turn.services.audit.is_some()
                && is_any_in(names, live.link().channels())
            {
                live.audit(turn);
            }
            return live.request(turn, request, RequestOrigin::Handle(ticket), 0);
        }
        let ticket = match ticket {
            RequestTicket::Done(ticket) if !matches!(request, Request::Notify(_)) => ticket,
            ticket => {
                let error = self.as_dead().map_or(&Error::UnknownConnection, Dead::error);
                return ticket.resolve(Err(error.clone()));
            }
        };
        let (absence, link) = match &mut self.state {
            MemberState::Backoff(absence, _) | MemberState::Queued(absence) => (absence, None),
            MemberState::Dialling(dialling) => (&mut dialling.absence, None),
            MemberState::Listening(listening) => (&mut listening.absence, Some(&mut *listening.link)),
            MemberState::Live(_) | MemberState::Ended(_) | MemberState::Moving(_) => return,
        };
        let Absence { edits, dead, .. } = &mut **absence;
        let unlistened = match &request {
            Request::Unlisten(names) => names.clone(),
            Request::UnlistenAll => edits.channels().into_iter().chain(dead.channels().iter().cloned()).collect(),
            _ => Vec::new(),
        };
        if !unlistened.is_empty() {
            turn.services.events.push_back(Event::Unlistened(self.id, unlistened.into()));
        }
        edits.add(request, ticket, dead, link);
    }

    /// Takes the connection out of the fleet: with its undelivered notifications, or what is left of a lost one.
    pub(super) fn remove(self, turn: &mut Turn<'_, C::Stream>) -> Option<Result<C, Dead>> {
        if let Some(config) = self.config() {
            self.leave(config, REMOVED);
        }
        if let MemberState::Queued(_) = self.state {
            turn.services.first_dials.remove(turn.token);
            turn.services.dials.remove(turn.token);
        }
        Some(match self.state.end()? {
            Ok(live) => Ok(live.into_connection(turn)),
            Err(absence) => Err(absence.end(&Error::UnknownConnection)),
        })
    }
}

/// Returns `true` if one of these names is among the channels.
fn is_any_in<'c>(names: &[Box<str>], channels: impl Iterator<Item = &'c str>) -> bool {
    let channels: BTreeSet<&str> = channels.collect();
    names.iter().any(|name| channels.contains(&**name))
}
