//! The event loop: the poll, the clock and the fleet. The hot path of the manager.
//!
//! ```text
//!   collected ─▶ commands ─▶ serve what is ready ─▶ end? idle? ─▶ poll ─▶ timers, canary, audits, dials
//!       ▲                         │                                              │
//!       └── one event at a time ──┴───────────────── next turn ◀─────────────────┘
//! ```

use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::clock;
use crate::connection::{Connection, Linked, ReadContext};
use crate::error::{Error, ErrorWith};
use crate::manager::command::ControlMessage;
use crate::manager::event::Event;
use crate::manager::fleet::{Fleet, FleetIo, Jitter, Poller, TurnEnd};
use crate::manager::handle::Shared;
use crate::net::{PollWaker, Reactor, Ready, Stream};
use crate::proto::{READ_SIZE, ReadBuffer, sql};

/// The poll and the clock of a loop: those of the system, or simulated ones in tests.
pub(super) trait LoopPoll<S>: Poller<S> {
    fn now(&self) -> Instant;

    /// Waits until a stream is ready, the waker wakes the poll or the timeout is over. Returns the tokens of the streams
    /// that are ready, each with `true` if the peer has closed it.
    fn wait(&mut self, timeout: Option<Duration>) -> Result<impl Iterator<Item = (u32, bool)>, Error>;

    /// Returns `true` if the waker ended the last wait.
    fn was_woken(&self) -> bool;
}

/// The system's poll, or the reason why there is none.
pub(super) struct SocketPoll(pub(super) Result<Reactor, Error>);

impl LoopPoll<Stream> for SocketPoll {
    fn now(&self) -> Instant {
        clock::now()
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<impl Iterator<Item = (u32, bool)>, Error> {
        let reactor = self.0.as_mut().map_err(|error| error.clone())?;
        let ready = reactor.wait(timeout).map_err(|e| Error::io("polling the sockets", e))?;
        Ok(ready.map(|Ready { token, read_closed }| (token, read_closed)))
    }

    fn was_woken(&self) -> bool {
        self.0.as_ref().is_ok_and(Reactor::was_woken)
    }
}

impl Poller<Stream> for SocketPoll {
    fn register(&mut self, stream: &Stream, token: u32, writable: bool) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), |reactor| reactor.register(stream, token, writable))
    }

    fn reregister(&mut self, stream: &Stream, token: u32, writable: bool) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), |reactor| reactor.reregister(stream, token, writable))
    }

    fn deregister(&mut self, stream: &Stream) {
        if let Ok(reactor) = &self.0 {
            // This fails only for a socket that is not watched.
            let _ = reactor.deregister(stream);
        }
    }
}

/// The loop of a manager.
pub(super) struct EventLoop<C: Linked = Connection, P = SocketPoll> {
    pub(super) fleet: Fleet<C>,
    pub(super) poll: P,
    waker: Option<PollWaker>,
    pub(super) buffer: ReadBuffer,
    /// The time at which the sockets were last polled.
    now: Instant,
    /// `true` if the loop waits for commands when there is no connection.
    pub(super) parks: bool,
    /// The number of stops that have not been reported.
    stops: usize,
    pub(super) shared: Arc<Shared<C>>,
}

impl EventLoop {
    /// Creates a loop with the poll and the clock of the system.
    pub(super) fn new() -> Self {
        // Without a waker, no handle could end a wait.
        let (waker, poll) = match Reactor::with_waker() {
            Ok((reactor, waker)) => (Some(waker), Ok(reactor)),
            Err(e) => (None, Err(Error::io("creating a poller", e))),
        };
        Self::with_poll(SocketPoll(poll), waker, Jitter::random())
    }
}

impl<C: Linked, P: LoopPoll<C::Stream>> EventLoop<C, P> {
    pub(super) fn with_poll(poll: P, waker: Option<PollWaker>, jitter: Jitter) -> Self {
        let shared = Arc::new(Shared::new(waker.clone()));
        Self {
            fleet: Fleet::new(Arc::clone(&shared.counters), jitter),
            now: poll.now(),
            poll,
            waker,
            buffer: ReadBuffer::new(READ_SIZE),
            parks: false,
            stops: 0,
            shared,
        }
    }

    /// Calls a function with the fleet, at this moment.
    pub(super) fn with_fleet<R>(&mut self, action: impl FnOnce(&mut Fleet<C>, &mut FleetIo<'_, C::Stream>) -> R) -> R {
        self.at(self.poll.now(), action)
    }

    #[inline]
    fn at<R>(&mut self, now: Instant, action: impl FnOnce(&mut Fleet<C>, &mut FleetIo<'_, C::Stream>) -> R) -> R {
        let read = ReadContext::new(&mut self.buffer, now, false, self.waker.as_ref());
        action(&mut self.fleet, &mut FleetIo { read, poller: &mut self.poll })
    }

    /// Returns the next event; `Ready(None)` is the end. Returns `Pending`, unless the loop `waits`, if there is none now.
    pub(super) fn next(&mut self, waits: bool, has_gap_events: bool) -> Poll<Option<Event>> {
        self.shared.iterating.set();
        self.fleet.has_gap_events = has_gap_events;
        loop {
            if let Some(event) = self.fleet.take_event() {
                return Poll::Ready(Some(event));
            }
            if self.shared.has_commands() {
                self.run_commands();
            }
            if let Some(left) = self.stops.checked_sub(1) {
                self.stops = left;
                self.fleet.postpone_idle();
                return self.end();
            }
            if !self.fleet.is_turn_over() {
                let now = if self.fleet.needs_exact_time() { self.poll.now() } else { self.now };
                match self.at(now, |fleet, io| fleet.serve_next(io)) {
                    Some(event) => return Poll::Ready(Some(event)),
                    None => continue,
                }
            }
            if self.fleet.is_timed() {
                self.now = self.poll.now();
            }
            let has_commands = self.shared.has_commands();
            let waits_empty = has_commands || (self.parks && !self.fleet.is_pass());
            let deadline = match self.fleet.end_turn(self.now, waits_empty) {
                TurnEnd::Idle => return Poll::Ready(Some(Event::Idle)),
                TurnEnd::ServeChanged => match self.at(self.now, |fleet, io| fleet.serve_changed(io)) {
                    Some(event) => return Poll::Ready(Some(event)),
                    None => continue,
                },
                TurnEnd::NoConnections => return self.end(),
                TurnEnd::Poll(deadline) => deadline,
            };
            self.fleet.publish_metrics();
            let left = deadline.map(|deadline| deadline.saturating_duration_since(self.now));
            let timeout = if waits && !has_commands { left } else { Some(Duration::ZERO) };
            if let Err(error) = self.poll_sockets(timeout) {
                self.at(self.now, |fleet, io| fleet.fail_all(&error, io));
                self.parks = false;
                continue;
            }
            if self.fleet.has_scheduled() {
                self.at(self.now, |fleet, io| fleet.run_due(io));
            }
            let has_work = self.fleet.begin_turn();
            if !has_work && !self.shared.has_commands() {
                match (self.fleet.is_pass(), waits) {
                    (true, _) => return self.end(),
                    (false, false) => return Poll::Pending,
                    (false, true) => {}
                }
            }
        }
    }

    /// Ends the iteration. Afterwards another thread may iterate the manager.
    fn end(&mut self) -> Poll<Option<Event>> {
        self.shared.iterating.clear();
        self.fleet.end_pass();
        self.fleet.publish_metrics();
        Poll::Ready(None)
    }

    fn poll_sockets(&mut self, timeout: Option<Duration>) -> Result<(), Error> {
        let ready = self.poll.wait(timeout)?;
        let count = self.fleet.handle_ready(ready);
        if self.poll.was_woken() {
            self.fleet.handle_wake();
        }
        self.now = self.poll.now();
        self.shared.counters.turns.add(1);
        self.shared.counters.wakeups.add(count);
        Ok(())
    }

    fn run_commands(&mut self) {
        for command in self.shared.take_commands() {
            match command {
                ControlMessage::Insert(connection, ticket) => {
                    ticket.resolve(Ok(self.with_fleet(|fleet, io| fleet.insert(*connection, io))));
                }
                ControlMessage::Dial(config, channels, limits, ticket) => {
                    let channels = sql::checked_channels(channels, limits);
                    ticket.resolve(Ok(self.fleet.dial(config, channels, limits, self.poll.now())));
                }
                ControlMessage::Remove(id, ticket) => {
                    ticket.resolve(match self.with_fleet(|fleet, io| fleet.remove(id, io)) {
                        Some(Ok(connection)) => Ok(connection),
                        Some(Err(dead)) => Err(ErrorWith::new(dead.error().clone(), dead)),
                        None => Err(Error::UnknownConnection.into()),
                    });
                }
                ControlMessage::Request(id, command, ticket) => {
                    self.with_fleet(|fleet, io| fleet.run_command(id, command, ticket, io));
                }
                ControlMessage::SetTimeout(timeout, ticket) => {
                    self.fleet.set_timeout(timeout);
                    ticket.resolve(Ok(()));
                }
                ControlMessage::Stop(ticket) => {
                    self.stops += 1;
                    ticket.resolve(Ok(()));
                }
            }
        }
    }

    /// Returns the time by which the loop must run again, if no socket becomes ready before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.shared.has_commands() { Some(self.now) } else { self.fleet.deadline(self.now) }
    }
}
