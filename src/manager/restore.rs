//! Bringing a dead connection back inside the loop, or opening one there for the first time, without stalling anybody:
//! wait, dial, log in, listen.
//!
//! ```text
//!   Waiting ──▶ InLine ──▶ Admitted ──▶ Dialling ──▶ Listening ──▶ restored
//!      ▲                                   │             │
//!      └─────── failed, and worth another try ───────────┘ else over
//! ```
//!
//! What the new session says before the server has acknowledged the LISTENs is held in it, and comes after the gap.

use std::time::Instant;

use crate::connection::{Connection, Dial, Ear, READS_AT_ONCE, Step};
use crate::error::Error;
use crate::manager::edits::Edits;
use crate::manager::members::{ConnId, Dead};
use crate::manager::ticket::Resolver;
use crate::net::{PollWaker, Stream};
use crate::proto::{CHANNELS_PER_REQUEST, Output, Request, RequestId, Session};

/// A connection that is being brought back.
pub(crate) struct Restore {
    dead: Dead,
    phase: Phase,
    /// Which of the dial's streams is being watched.
    watched: Option<u32>,
    /// How many attempts have failed.
    pub(crate) failed: u32,
    /// Whether another attempt follows one that failed.
    pub(crate) persists: bool,
    /// Changes of the channels since the connection was lost.
    edits: Edits,
    /// Not to listen again, but to ask this one thing on behalf of another connection, and to be closed.
    errand: Option<(ConnId, Option<Request>)>,
}

enum Phase {
    Waiting(Instant),
    /// For a place among the dials; and with one.
    InLine,
    Admitted,
    Dialling(Box<Dial>),
    Listening {
        connection: Box<Connection>,
        relisten: Relisten,
        until: Option<Instant>,
    },
    Over,
}

/// How far it has come.
pub(crate) enum Progress {
    /// Step again when the stream is ready, and at the latest at this time.
    Wait(Option<Instant>),
    /// It is back, and its stream is being watched; and whether more may have come, of which that won't tell again.
    Restored(Box<Connection>, bool),
    /// This attempt failed.
    Failed(Error),
}

impl Restore {
    /// Of what is dead; the first attempt is at `at`.
    pub(crate) fn new(dead: Dead, at: Instant) -> Self {
        let (watched, failed, persists, edits, errand) = (None, 0, false, Edits::default(), None);
        Self { dead, phase: Phase::Waiting(at), watched, failed, persists, edits, errand }
    }

    /// One that asks this on behalf of a connection, and is closed.
    pub(crate) fn messenger(dead: Dead, at: Instant, on_behalf_of: ConnId, ask: Request) -> Self {
        Self { errand: Some((on_behalf_of, Some(ask))), ..Self::new(dead, at) }
    }

    pub(crate) fn is_messenger(&self) -> bool {
        self.errand.is_some()
    }

    pub(crate) fn on_behalf_of(&self) -> Option<ConnId> {
        self.errand.as_ref().map(|(id, _)| *id)
    }

    /// When the next attempt is, while none is under way.
    pub(crate) fn waits_until(&self) -> Option<Instant> {
        match self.phase {
            Phase::Waiting(at) => Some(at),
            _ => None,
        }
    }

    /// Whether this is the first attempt to open one that has never been.
    pub(crate) fn is_first(&self) -> bool {
        self.dead.is_unopened() && self.failed == 0
    }

    /// Whether it has a place among the dials.
    pub(crate) fn has_place(&self) -> bool {
        matches!(self.phase, Phase::Admitted | Phase::Dialling(_) | Phase::Listening { .. })
    }

    /// Waits for a place among the dials.
    pub(crate) fn stand_in_line(&mut self) {
        self.phase = Phase::InLine;
    }

    /// Takes a place, if it stands in line for one.
    pub(crate) fn admit(&mut self) -> bool {
        let stands = matches!(self.phase, Phase::InLine);
        if stands {
            self.phase = Phase::Admitted;
        }
        stands
    }

    /// Whether it may begin to dial.
    pub(crate) fn is_admitted(&self) -> bool {
        matches!(self.phase, Phase::Admitted)
    }

    /// An attempt has failed, and the next is at this time.
    pub(crate) fn try_again(&mut self, error: Error, at: Instant) {
        self.edits.end_attempt(&mut self.dead);
        self.dead.fail_again(error);
        self.phase = Phase::Waiting(at);
    }

    /// Begins an attempt.
    pub(crate) fn dial(&mut self, now: Instant) -> Result<(), Error> {
        self.phase = Phase::Dialling(Box::new(Dial::new(self.dead.config(), now)?));
        self.watched = None;
        Ok(())
    }

    /// Goes on as far as it can.
    pub(crate) fn step(&mut self, now: Instant, waker: Option<&PollWaker>, ear: &mut Ear<'_>) -> Progress {
        let mut reads = 0;
        // A socket that a login has read empty tells when there is more.
        let mut may_hear = true;
        loop {
            match std::mem::replace(&mut self.phase, Phase::Over) {
                Phase::Dialling(mut dial) => match dial.step(now, waker, ear) {
                    Step::Wait(until) => {
                        self.phase = Phase::Dialling(dial);
                        return Progress::Wait(until);
                    }
                    Step::Failed(error) => return Progress::Failed(error),
                    Step::Done(mut connection, more) => {
                        may_hear = more;
                        let relisten = match self.errand.as_mut().and_then(|(_, ask)| ask.take()) {
                            Some(ask) => Relisten::of(connection.session.request(ask)),
                            None => Relisten::begin(&mut connection.session, self.dead.channels()),
                        };
                        self.edits.send(&mut connection.session);
                        let until = now.checked_add(connection.config().get_call_timeout());
                        self.phase = Phase::Listening { connection, relisten, until };
                    }
                },
                Phase::Listening { mut connection, mut relisten, mut until } => {
                    connection.transmit();
                    let more = may_hear && ear.hear(&mut connection, now);
                    let answered = relisten.answered;
                    match self.is_listening(&mut connection, &mut relisten) {
                        Ok(true) => return Progress::Restored(connection, more),
                        Ok(false) => {}
                        Err(error) => return Progress::Failed(error),
                    }
                    // Each answer lets the next request go, the session's own among them; and those that were asked for
                    // meanwhile have all of their time.
                    connection.transmit();
                    if relisten.answered > answered {
                        until = now.checked_add(connection.config().get_call_timeout());
                    }
                    if connection.is_closed() {
                        return Progress::Failed(connection.error().cloned().unwrap_or(Error::Closed));
                    }
                    if until.is_some_and(|until| until <= now) {
                        let after = connection.config().get_call_timeout();
                        return Progress::Failed(Error::Timeout { action: "listening again", after, closed: true });
                    }
                    self.phase = Phase::Listening { connection, relisten, until };
                    if !more {
                        return Progress::Wait(until);
                    }
                    // One that never stops talking takes turns with the others.
                    reads += 1;
                    if reads == READS_AT_ONCE {
                        return Progress::Wait(Some(now));
                    }
                }
                waiting @ Phase::Waiting(at) => {
                    self.phase = waiting;
                    return Progress::Wait(Some(at));
                }
                idle @ (Phase::InLine | Phase::Admitted) => {
                    self.phase = idle;
                    return Progress::Wait(None);
                }
                Phase::Over => return Progress::Failed(Error::Disconnected),
            }
        }
    }

    /// Returns `true` once the server has acknowledged the channels, and the changes since.
    fn is_listening(&mut self, connection: &mut Connection, relisten: &mut Relisten) -> Result<bool, Error> {
        if relisten.poll(&mut connection.session, &mut self.edits)? {
            // Whoever asked for a channel meanwhile may count on it from then on.
            self.dead.mark_successor(connection, self.failed, self.edits.channels());
        }
        Ok(relisten.is_done(&connection.session))
    }

    /// Whether it is to be stepped when the waker wakes the poll.
    pub(crate) fn awaits_alarm(&self) -> bool {
        matches!(&self.phase, Phase::Dialling(dial) if dial.is_looking_up())
    }

    /// The stream to be watched, and whether nobody does so yet; from now on it counts as watched.
    pub(crate) fn stream(&mut self) -> Option<(&Stream, bool)> {
        match &self.phase {
            Phase::Dialling(dial) => {
                let (number, stream) = dial.stream()?;
                Some((stream, self.watched.replace(number) != Some(number)))
            }
            Phase::Listening { connection, .. } => Some((connection.any_stream(), false)),
            Phase::Waiting(_) | Phase::InLine | Phase::Admitted | Phase::Over => None,
        }
    }

    /// Whether the stream is to be watched for room to write, too.
    pub(crate) fn wants_write(&self) -> bool {
        match &self.phase {
            Phase::Dialling(dial) => dial.wants_write(),
            Phase::Listening { connection, .. } => connection.wants_write(),
            Phase::Waiting(_) | Phase::InLine | Phase::Admitted | Phase::Over => false,
        }
    }

    /// Changes the channels. The ticket resolves once the connection is restored, or with the server's refusal.
    pub(crate) fn edit(&mut self, ask: Request, ticket: Resolver<()>) {
        let session = match &mut self.phase {
            Phase::Listening { connection, .. } => Some(&mut connection.session),
            _ => None,
        };
        self.edits.add(ask, ticket, &mut self.dead, session);
    }

    /// Takes the tickets of the changes that the server has acknowledged.
    pub(crate) fn take_tickets(&mut self) -> Vec<Resolver<()>> {
        self.edits.take_tickets()
    }

    /// Gives up, for this reason.
    pub(crate) fn fail(mut self, error: &Error) -> Dead {
        self.edits.fail(error, &mut self.dead);
        self.dead.again(error.clone())
    }

    /// Ends the restore, and returns the lost connection.
    pub(crate) fn cancel(mut self) -> Dead {
        self.edits.fail(&Error::UnknownConnection, &mut self.dead);
        self.dead
    }

    /// What is being brought back.
    pub(crate) fn dead(&self) -> &Dead {
        &self.dead
    }
}

/// The requests for the channels of a lost session, in the new session.
///
/// The session's notifications are kept until the last request is acknowledged, so that they are delivered after the
/// gap.
#[derive(Debug)]
pub(crate) struct Relisten {
    /// The last of the requests.
    last: RequestId,
    acknowledged: bool,
    /// The number of requests that have been answered.
    answered: usize,
}

impl Relisten {
    /// Requests all channels, up to 10,000 by each request.
    pub(crate) fn begin(session: &mut Session, channels: &[Box<str>]) -> Self {
        // The answer ends the gap, so a request is needed even without channels.
        let mut chunks = channels.chunks(CHANNELS_PER_REQUEST);
        let mut last = session.request(Request::Listen(chunks.next().unwrap_or_default().to_vec()));
        for chunk in chunks {
            last = session.request(Request::Listen(chunk.to_vec()));
        }
        Self::of(last)
    }

    fn of(last: RequestId) -> Self {
        Self { last, acknowledged: false, answered: 0 }
    }

    /// Returns `true` if the last read brought the acknowledgement of all channels; an error ends the attempt.
    pub(crate) fn poll(&mut self, session: &mut Session, edits: &mut Edits) -> Result<bool, Error> {
        let before = self.acknowledged;
        while let Some(output) = session.poll() {
            match output {
                Output::Reply(id, reply) => {
                    self.answered += 1;
                    if let Some(reply) = edits.take_reply(id, reply, session) {
                        reply?;
                    }
                    self.acknowledged |= id == self.last;
                }
                Output::Closed(error) => return Err(error),
                Output::Ready => {}
            }
        }
        Ok(self.acknowledged && !before)
    }

    /// Whether that, and whatever was asked since, is answered.
    pub(crate) fn is_done(&self, session: &Session) -> bool {
        self.acknowledged && session.is_settled()
    }
}

impl std::fmt::Debug for Restore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Restore").field("dead", &self.dead).field("failed", &self.failed).finish()
    }
}
