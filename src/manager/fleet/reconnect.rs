//! The way of a connection from lost, or not yet opened, to live.
//!
//! Notifications that the new session receives before the server has acknowledged the LISTENs are kept in it, and are
//! delivered after the gap.

use std::fmt::DebugStruct;
use std::time::Instant;

use super::edits::Edits;
use super::permit::Permit;
use super::timers::Timer;
use super::turn::Turn;
use crate::connection::{Dial, DialProgress, Link, READS_PER_TURN, Transport};
use crate::error::Error;
use crate::manager::dead::Dead;
use crate::proto::{CHANNELS_PER_REQUEST, Output, Request, RequestId};

/// Everything that a connection keeps while it has no session.
pub(super) struct Absence {
    pub(super) dead: Dead,
    /// The changes of its channels since it was lost.
    pub(super) edits: Edits,
    /// The number of failed attempts.
    pub(super) failed: u32,
    /// `true` if another attempt follows a failed one.
    pub(super) persists: bool,
}

impl Absence {
    pub(super) fn new(dead: Dead, failed: u32, persists: bool) -> Self {
        Self { dead, edits: Edits::default(), failed, persists }
    }

    /// Adds the state to a description.
    pub(super) fn describe(&self, entry: &mut DebugStruct<'_, '_>) {
        entry
            .field("to", &format_args!("{}", self.dead.config()))
            .field("channels", &self.dead.channels().len())
            .field("edits", &self.edits)
            .field("failed_attempts", &self.failed);
        if !self.is_first() {
            entry.field("last_error", &format_args!("{:#}", self.dead.error()));
        }
    }

    /// Returns `true` before the first attempt to open a connection that has never been open.
    pub(super) fn is_first(&self) -> bool {
        self.dead.is_unopened() && self.failed == 0
    }

    /// Records a failed attempt.
    pub(super) fn fail(&mut self, error: Error) {
        self.edits.end_attempt(&mut self.dead);
        self.dead.fail(error);
        self.failed = self.failed.saturating_add(1);
    }

    /// Ends the absence without a session: the tickets of the changes resolve to the error.
    pub(super) fn end(mut self, error: &Error) -> Dead {
        self.edits.fail(error, &mut self.dead);
        self.dead
    }
}

/// A connection that is being opened: connecting, TLS and login.
pub(super) struct Dialling<S: Transport> {
    pub(super) absence: Box<Absence>,
    dial: Dial<S>,
    permit: Permit,
    /// The number of the dial's stream that is being watched.
    watched: Option<u32>,
}

/// The progress of a connection attempt.
pub(super) enum Attempt<S: Transport> {
    /// Continue when the stream is ready, and at the time of the timer.
    Dialling(Box<Dialling<S>>),
    /// The login is done.
    LoggedIn(Box<Listening<S>>),
    /// Continue when the stream is ready, and at the time of the timer.
    Listening(Box<Listening<S>>),
    /// The connection is live, and its stream is being watched.
    Acknowledged(Box<Absence>, Box<Link<S>>, bool),
    Failed(Box<Absence>, Error),
}

impl<S: Transport> Dialling<S> {
    pub(super) fn new(absence: Box<Absence>, permit: Permit, now: Instant) -> Result<Self, (Box<Absence>, Error)> {
        match Dial::new(absence.dead.config(), now) {
            Ok(dial) => Ok(Self { absence, dial, permit, watched: None }),
            Err(error) => Err((absence, error)),
        }
    }

    /// Returns the name of the phase, for logs.
    pub(super) fn phase(&self) -> &'static str {
        self.dial.phase()
    }

    /// Continues as far as possible.
    pub(super) fn advance(mut self: Box<Self>, turn: &mut Turn<'_, S>) -> Attempt<S> {
        match self.dial.advance(turn.read_context()) {
            DialProgress::Wait(until) => {
                if self.dial.awaits_waker() {
                    turn.services.await_waker.push(turn.token);
                }
                if let Some((number, stream)) = self.dial.stream() {
                    let is_new = self.watched.replace(number) != Some(number);
                    if let Err(error) = turn.watch(stream, is_new, self.dial.wants_write()) {
                        return Attempt::Failed(self.absence, error);
                    }
                }
                turn.set_timer(Timer::Dial, until);
                Attempt::Dialling(self)
            }
            DialProgress::Open(link, may_have_more) => {
                let Self { absence, permit, .. } = *self;
                let listening = Listening::begin(absence, permit, link, may_have_more, turn.now());
                Attempt::LoggedIn(Box::new(listening))
            }
            DialProgress::Failed(error) => Attempt::Failed(self.absence, error),
        }
    }
}

/// A connection whose server must acknowledge the LISTENs.
pub(super) struct Listening<S: Transport> {
    pub(super) absence: Box<Absence>,
    pub(super) link: Box<Link<S>>,
    /// Held until the LISTENs are acknowledged.
    _permit: Permit,
    /// The last request for the channels of the lost session.
    last: RequestId,
    /// `true` once that request has been answered.
    is_acknowledged: bool,
    /// The deadline for the next answer.
    until: Option<Instant>,
    /// `true` if the stream may hold data that it will not report again.
    may_have_more: bool,
}

impl<S: Transport> Listening<S> {
    /// Requests all channels, up to 10,000 by each request.
    fn begin(
        mut absence: Box<Absence>,
        permit: Permit,
        mut link: Box<Link<S>>,
        may_have_more: bool,
        now: Instant,
    ) -> Self {
        // The answer ends the gap, so a request is needed even without channels.
        let mut chunks = absence.dead.channels().chunks(CHANNELS_PER_REQUEST);
        let mut last = link.request(Request::Listen(chunks.next().unwrap_or_default().to_vec()));
        for chunk in chunks {
            last = link.request(Request::Listen(chunk.to_vec()));
        }
        absence.edits.request(&mut link);
        let until = link.config().get_call_timeout().and_then(|timeout| now.checked_add(timeout));
        Self { absence, link, _permit: permit, last, is_acknowledged: false, until, may_have_more }
    }

    /// Continues as far as possible.
    pub(super) fn advance(mut self: Box<Self>, turn: &mut Turn<'_, S>) -> Attempt<S> {
        for _ in 0..READS_PER_TURN {
            // A stream that the login has emptied reports more.
            if self.may_have_more {
                self.may_have_more = self.link.pump(turn.read_context()).may_have_more;
            }
            match self.handle_replies(turn.now()) {
                Ok(false) => {}
                Ok(true) => {
                    let Self { absence, link, may_have_more, .. } = *self;
                    return Attempt::Acknowledged(absence, link, may_have_more);
                }
                Err(error) => return Attempt::Failed(self.absence, error),
            }
            if let Some(error) = self.link.error() {
                let error = error.clone();
                return Attempt::Failed(self.absence, error);
            }
            if self.until.is_some_and(|until| until <= turn.now()) {
                let after = self.link.config().get_call_timeout().unwrap_or_default();
                let error = Error::Timeout { action: "listening again", after, closed: true };
                return Attempt::Failed(self.absence, error);
            }
            if !self.may_have_more {
                return self.wait(turn);
            }
        }
        // However much the server sends, other connections have their turn.
        turn.set_timer(Timer::Serve, Some(turn.now()));
        Attempt::Listening(self)
    }

    fn wait(mut self: Box<Self>, turn: &mut Turn<'_, S>) -> Attempt<S> {
        if let Err(error) = turn.watch(self.link.stream(), false, self.link.wants_write()) {
            return Attempt::Failed(self.absence, error);
        }
        turn.set_timer(Timer::Listen, self.until);
        // The stream reports when it is ready again.
        self.may_have_more = true;
        Attempt::Listening(self)
    }

    /// Returns `true` once the server has acknowledged the channels, and all changes since.
    fn handle_replies(&mut self, now: Instant) -> Result<bool, Error> {
        let was_acknowledged = self.is_acknowledged;
        while let Some(output) = self.link.poll() {
            match output {
                Output::Reply(id, reply) => {
                    // Each request has its full time.
                    self.until = self.link.config().get_call_timeout().and_then(|timeout| now.checked_add(timeout));
                    if let Some(reply) = self.absence.edits.take_reply(id, reply, self.link.is_closed()) {
                        reply?;
                    }
                    self.is_acknowledged |= id == self.last;
                }
                Output::Closed(error) => return Err(error),
                Output::Ready => {}
            }
        }
        if self.is_acknowledged && !was_acknowledged {
            // The gap also covers the channels that have been requested since.
            let added = self.absence.edits.channels();
            self.absence.dead.mark_successor(&mut self.link, now, self.absence.failed, added);
        }
        Ok(self.is_acknowledged && self.link.is_settled())
    }
}
