//! The loop: what is handed out next, and when to wait. The hot path of the manager.
//!
//! One turn looks at the wires once and serves each connection that was ready, each with one read:
//!
//! ```text
//!   collected ─▶ commands ─▶ serve who is ready ─▶ timers ─▶ end? idle? ─▶ wait ─▶ who woke is ready
//!       ▲                           │                                                    │
//!       └──── one event at a time ──┴────────────────────── next turn ◀──────────────────┘
//! ```
//!
//! What it may not do: look at a connection that isn't ready, allocate or count for a notification, wait for a server,
//! or let one connection keep another from its turn. What is seldom so is noticed in `watch`.
//!
//! Who is served, however much it has, stands at the end of the line again, behind those who have just woken. So whoever
//! has something waits for one read (of 64 KiB) of each who is flooded, that of the turn during which it came, and for one
//! of each who woke with it. One look at the wires takes in 1,024; where more wake at once, the others come with the looks
//! that follow, in the order in which they woke.

use std::task::Poll;
use std::time::{Duration, Instant};

use crate::clock;
use crate::connection::{Connection, DRAIN_MAX};
use crate::error::Error;
use crate::manager::audit::Rota;
use crate::manager::handle::ControlMessage;
use crate::manager::members::{ConnId, Life, Member};
use crate::manager::recovery::FIRST_DIALS;
use crate::manager::requests::LIMIT;
use crate::manager::{Check, Event, NotificationManager};
use crate::net::Ready;

/// For how many there is always room in the line of those to be served: for all that one look can wake.
const LINE: usize = 2048;
/// What is being done as a registration fails.
pub(super) const WATCHING: &str = "watching the socket";

/// How the caller wants it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    /// Whether to wait for something to happen.
    pub(super) wait: bool,
    /// Whether a gap is told by itself, before the batch, or in it.
    pub(super) gap_apart: bool,
}

impl NotificationManager {
    /// The next thing to tell; `Ready(None)` is the end, `Pending` is nothing yet.
    pub(super) fn turn(&mut self, manner: Manner) -> Poll<Option<Event>> {
        self.shared.iterating.set();
        let turned = self.go_on(manner);
        if matches!(turned, Poll::Ready(None)) {
            // After the end, whichever thread iterates next must not be waited on.
            self.shared.iterating.clear();
            // Whatever ended it: the next pass of a zero timeout reads every socket.
            self.undefer();
        }
        turned
    }

    fn go_on(&mut self, manner: Manner) -> Poll<Option<Event>> {
        loop {
            if let Some(turned) = self.collected.pop_front() {
                return Poll::Ready(Some(turned));
            }
            if self.shared.has_commands() {
                self.run_commands();
            }
            if let Some(left) = self.stops.checked_sub(1) {
                self.stops = left;
                // Whoever goes on later wants a fresh look before an idle event.
                self.looked = false;
                return Poll::Ready(None);
            }
            if self.to_serve > 0 {
                self.to_serve -= 1;
                if let Some(token) = self.ready.pop_front()
                    && let Some(turned) = self.serve(token, manner, true)
                {
                    return Poll::Ready(Some(turned));
                }
                continue;
            }

            // The turn is over. Who waits for nothing but sockets needn't know how long it took.
            let until = self.deadline();
            if self.idle.is_timed() || until.is_some_and(|until| until > self.now) {
                self.now = clock::now();
            }
            self.idle.begin(self.now);
            if self.members.is_deserted() && !self.shared.has_commands() && (!self.parks || self.idle.is_zero()) {
                return Poll::Ready(None);
            }
            if self.looked {
                // What a call of the caller's has picked up since isn't overtaken by the idle event.
                if let Some(token) = self.touched.pop() {
                    match self.serve(token, manner, false) {
                        Some(turned) => return Poll::Ready(Some(turned)),
                        None => continue,
                    }
                }
                self.looked = false;
                self.idle.restart(self.now);
                return Poll::Ready(Some(Event::Idle));
            }
            // Whoever was touched stands in the line of the turn that begins.
            self.touched.clear();
            self.give_room_back();
            let due = self.idle.is_due(self.now);
            let zero = self.idle.is_zero();
            let patience = until.map(|until| until.saturating_duration_since(self.now));
            let timeout = if due || zero || !manner.wait { Some(Duration::ZERO) } else { patience };
            if let Err(error) = self.look(timeout) {
                self.abandon(&error);
                continue;
            }
            self.fire_timers();
            self.fire_canaries();
            self.fire_audits();
            if self.first_dials.has_line() || self.dials.has_line() {
                self.admit_dials();
            }
            self.to_serve = self.ready.len();
            // An idle event that is due waits for those who were ready as it came due.
            self.looked = due;
            if self.to_serve == 0 && !due && !self.shared.has_commands() && self.collected.is_empty() {
                if zero {
                    return Poll::Ready(None);
                }
                if !manner.wait {
                    return Poll::Pending;
                }
            }
        }
    }

    /// Who was touched or ready may have been everybody; at most times they are few.
    fn give_room_back(&mut self) {
        self.touched.shrink_to(64);
        if self.ready.is_empty() && self.ready.capacity() > LINE {
            self.ready.shrink_to(LINE);
        }
    }

    /// When the loop wants its next turn, whatever the sockets do; `None` for as long as these let it wait.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if !self.ready.is_empty() || !self.collected.is_empty() || self.shared.has_commands() || self.idle.is_zero() {
            return Some(self.now);
        }
        let timer = self.timers.next();
        let canary = self.canary.as_ref().and_then(|canary| canary.next());
        let audit = self.audit.as_ref().and_then(Rota::next);
        let dial = self.dials.due(&self.backoff.unwrap_or_default(), self.now);
        let first_dial = self.first_dials.due(&FIRST_DIALS, self.now);
        // A period that hasn't begun does so with the next turn, which must come to see its end.
        let due = self.idle.due().or_else(|| self.now.checked_add(self.idle.period()?));
        [due, timer, canary, audit, dial, first_dial].into_iter().flatten().min()
    }

    /// Waits for sockets, and queues those that woke, before those of whom there was more to read than was read.
    fn look(&mut self, timeout: Option<Duration>) -> Result<(), Error> {
        let left_over = self.ready.len();
        let reactor = self.reactor.as_mut().map_err(|error| error.clone())?;
        let mut wakeups = 0;
        for Ready { token, read_closed } in reactor.wait(timeout).map_err(|e| Error::io("waiting for sockets", e))? {
            wakeups += 1;
            let Some(member) = self.members.get_mut(token) else { continue };
            member.read_closed |= read_closed;
            if !std::mem::replace(&mut member.queued, true) {
                match member.drained < DRAIN_MAX {
                    true => self.ready.push_back(token),
                    false => self.deferred.push(token),
                }
            }
        }
        if left_over > 0 {
            self.ready.rotate_left(left_over);
        }
        if !self.looking_up.is_empty() && reactor.was_woken() {
            for id in std::mem::take(&mut self.looking_up) {
                if let Some(token) = self.members.token(id) {
                    self.queue(token);
                }
            }
        }
        self.now = clock::now();
        self.shared.counters.turns.add(1);
        self.shared.counters.wakeups.add(wakeups);
        Ok(())
    }

    /// Stands it at the end of the line, unless it stands there already.
    pub(super) fn queue(&mut self, token: u32) {
        if let Some(member) = self.members.get_mut(token)
            && !std::mem::replace(&mut member.queued, true)
        {
            self.ready.push_back(token);
        }
    }

    /// The caller has touched it: its socket may have been read without the loop knowing, and it may hold something.
    pub(super) fn touch(&mut self, token: u32) {
        self.queue(token);
        self.touched.push(token);
    }

    /// Serves it before all others.
    pub(super) fn queue_first(&mut self, token: u32) {
        if let Some(member) = self.members.get_mut(token)
            && !std::mem::replace(&mut member.queued, true)
        {
            self.ready.push_front(token);
            self.to_serve += 1;
        }
    }

    /// Serves one connection: one read, or none, and what it brought.
    fn serve(&mut self, token: u32, manner: Manner, read: bool) -> Option<Event> {
        let member = self.members.get_mut(token)?;
        let id = member.id;
        let connection = match &mut member.life {
            Life::Good(connection) => connection,
            Life::Cancelling(_) => {
                self.advance_cancel(token);
                return None;
            }
            Life::Restoring(_) | Life::Messenger(_) => return self.go_on_restoring(token),
        };

        let (mut more, mut bytes) = (false, 0);
        if read {
            member.queued = false;
            connection.transmit();
            if member.drained >= DRAIN_MAX && !connection.is_closed() {
                member.queued = true;
                self.deferred.push(token);
                return None;
            }
            if let Some(received) = connection.receive_some(&mut self.buffer, self.now) {
                more = received.full || member.read_closed;
                bytes = received.bytes;
                self.shared.counters.bytes.add(received.bytes);
            }
        }

        if manner.gap_apart
            && let Some(gap) = connection.take_gap()
        {
            self.shared.counters.gaps.add(1);
            self.queue_first(token);
            return Some(Event::Restored(id, gap));
        }
        let (batch, is_closed) = (connection.take_batch(), connection.is_closed());
        if read && self.idle.is_zero() {
            if member.drained == 0 {
                self.drained.push(token);
            }
            // An empty socket is left for the next pass; the size of one read cannot overflow the sum.
            member.drained = if more { member.drained + bytes as u32 } else { DRAIN_MAX };
        }
        if is_closed {
            // What came before the end is told before the end.
            if batch.is_none() {
                return self.lose(token);
            }
            self.queue_first(token);
        } else {
            if more {
                self.queue(token);
            }
            self.look_after(token, more);
        }
        let batch = batch?;
        self.shared.counters.notifications.add(batch.len());
        self.shared.counters.gaps.add(usize::from(batch.gap().is_some()));
        Some(Event::Notifies(id, batch))
    }

    pub(super) fn close_for(&mut self, token: u32, reason: Error) {
        if let Some(Member { life: Life::Good(connection), .. }) = self.members.get_mut(token) {
            connection.close_for(reason);
            self.queue_first(token);
        }
    }

    /// Takes a good connection out of the loop.
    pub(super) fn release(&mut self, token: u32) -> Option<(ConnId, Connection)> {
        let Member { life: Life::Good(connection), drained, .. } = self.members.get(token)? else { return None };
        if *drained > 0 {
            self.taken_drained.push(connection.pid());
        }
        if let Ok(reactor) = &self.reactor {
            // It fails only for a socket that isn't watched.
            let _ = reactor.deregister(connection.any_stream());
        }
        let Member { id, life: Life::Good(mut connection), .. } = self.members.take(token)? else { return None };
        if self.forget_cancel(id) && !connection.is_closed() {
            // The CancelRequest might cancel the next request.
            let after = connection.call_timeout().unwrap_or(LIMIT);
            connection.close_for(Error::Timeout { action: "a cancelled request", after, closed: true });
        }
        self.leave_canary(id);
        for check in [Check::Canary, Check::Audit] {
            self.refused_checks.remove(&(id, check));
        }
        self.forget_transaction(id);
        self.count_members();
        Some((id, connection))
    }

    /// The same, for who goes on with it: nothing of ours is left in it.
    pub(super) fn give_back(&mut self, token: u32) -> Option<(ConnId, Connection)> {
        let (id, mut connection) = self.release(token)?;
        self.forget_asked(id);
        connection.session.discard_replies();
        connection.session.leave_canary();
        connection.transmit();
        Some((id, connection))
    }

    /// The poll itself has failed: nobody can be heard any more.
    fn abandon(&mut self, error: &Error) {
        self.backoff = None;
        for token in self.members.tokens() {
            let lost = match self.members.get_mut(token) {
                Some(Member { id, life: Life::Good(connection), .. }) => {
                    let id = *id;
                    connection.close_for(error.clone());
                    // What had come is told first.
                    if let Some(batch) = connection.take_batch() {
                        self.shared.counters.notifications.add(batch.len());
                        self.collected.push_back(Event::Notifies(id, batch));
                    }
                    self.lose(token)
                }
                Some(Member { life: Life::Restoring(_), .. }) => self.give_up(token, error),
                Some(Member { life: Life::Messenger(_), .. }) => {
                    self.messenger_back(token, Err(error.clone()));
                    None
                }
                Some(Member { life: Life::Cancelling(_), .. }) | None => None,
            };
            self.collected.extend(lost);
        }
        self.ready.clear();
        self.to_serve = 0;
        self.parks = false;
    }

    /// What there is to be noticed after a connection was served, of which there may be more to read.
    fn look_after(&mut self, token: u32, more: bool) {
        if !self.asked.is_empty() {
            self.complete_requests(token, more);
        }
        let Some(member) = self.members.get_mut(token) else { return };
        let pulse_due = std::mem::take(&mut member.pulse_due);
        if let Life::Good(connection) = &member.life
            && connection.session.has_canary_event()
        {
            self.hear_canary(token);
        }
        if pulse_due {
            // Not the turn's time: a slow body may have come between, and the server gets all of its deadline.
            self.feel_pulse(token, clock::now());
        }
        self.keep_watch(token);
    }

    /// Ends the pass of a zero timeout: connections that it has drained, and that became ready since, are ready again.
    pub(super) fn undefer(&mut self) {
        while let Some(token) = self.drained.pop() {
            if let Some(member) = self.members.get_mut(token) {
                member.drained = 0;
            }
        }
        self.taken_drained = Vec::new();
        self.ready.extend(std::mem::take(&mut self.deferred));
    }

    /// Leaves a connection to the next pass of a zero timeout.
    pub(super) fn set_drained(&mut self, token: u32) {
        if let Some(member) = self.members.get_mut(token) {
            member.drained = DRAIN_MAX;
            self.drained.push(token);
        }
    }

    /// Runs the messages of the handles.
    fn run_commands(&mut self) {
        for command in self.shared.take_commands() {
            match command {
                ControlMessage::Insert(connection, ticket) => ticket.resolve(Ok(Ok(self.insert(*connection)))),
                ControlMessage::Dial(config, channels, limits, ticket) => {
                    ticket.resolve(Ok(self.dial_within(config, channels, limits)));
                }
                ControlMessage::Remove(id, ticket) => ticket.resolve(Ok(self.remove(id))),
                ControlMessage::Request(id, command, ticket) => self.ask(id, command, ticket),
                ControlMessage::SetTimeout(timeout, ticket) => {
                    self.set_timeout(timeout);
                    ticket.resolve(Ok(()));
                }
                ControlMessage::Stop(ticket) => {
                    self.stops += 1;
                    ticket.resolve(Ok(()));
                }
            }
        }
    }

    pub(super) fn count_members(&self) {
        let counters = &self.shared.counters;
        counters.connections.set(self.members.good());
        counters.restoring.set(self.members.restoring());
        counters.garbage.set(self.members.garbage().len());
    }
}
