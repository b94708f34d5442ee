//! Connections that the fleet opens for itself, which no user sees: for a CancelRequest, and to send a canary.

use super::log::{self, SharedTimer};
use super::permit::Permit;
use super::timers::Timer;
use super::turn::{NewTask, TaskPurpose, Turn};
use crate::config::Config;
use crate::connection::{Cancel, CancelProgress, Dial, Opening, OpeningProgress, Transport};
use crate::error::Error;
use crate::manager::conn_id::ConnId;
use crate::proto::Request;

/// A connection that the fleet opens for itself.
#[derive(Debug)]
pub(super) struct Task<S: Transport> {
    /// The connection on whose behalf it is opened.
    pub(super) owner: ConnId,
    kind: TaskKind<S>,
}

#[derive(Debug)]
enum TaskKind<S: Transport> {
    Cancel(CancelTask<S>),
    SendCanary(CanarySender<S>),
}

/// The result of a task.
#[derive(Debug)]
pub(super) enum TaskEnd {
    /// A CancelRequest has ended; `true` if it can cancel nothing any more.
    Cancel(bool),
    /// A canary has been sent, or could not be sent.
    Canary(Result<(), Error>),
}

impl<S: Transport> Task<S> {
    pub(super) fn new(NewTask { owner, purpose }: NewTask<S>) -> Self {
        let kind = match purpose {
            TaskPurpose::Cancel(cancel, permit) => {
                TaskKind::Cancel(CancelTask { cancel, _permit: permit, is_watched: false })
            }
            TaskPurpose::SendCanary(config, request) => {
                TaskKind::SendCanary(CanarySender { config, request: Some(request), phase: SenderPhase::New })
            }
        };
        Self { owner, kind }
    }

    /// Continues as far as possible; returns the result if the task has ended.
    pub(super) fn on_ready(&mut self, turn: &mut Turn<'_, S>) -> Option<TaskEnd> {
        match &mut self.kind {
            TaskKind::Cancel(cancel) => cancel.advance(turn).map(TaskEnd::Cancel),
            TaskKind::SendCanary(sender) => sender.advance(turn).map(TaskEnd::Canary),
        }
    }

    /// Begins a connection attempt for which there is a permit; returns the result if the task has ended.
    pub(super) fn begin_dial(&mut self, permit: Permit, turn: &mut Turn<'_, S>) -> Option<TaskEnd> {
        let TaskKind::SendCanary(sender) = &mut self.kind else { return None };
        sender.begin_dial(permit, turn).map(TaskEnd::Canary)
    }

    /// Returns `true` if a permit for a connection attempt is held; `None` for a CancelRequest, which needs none.
    #[cfg(test)]
    pub(super) fn holds_permit(&self) -> Option<bool> {
        match &self.kind {
            TaskKind::Cancel(_) => None,
            TaskKind::SendCanary(sender) => Some(matches!(sender.phase, SenderPhase::Opening { .. })),
        }
    }

    /// Returns `true` for a CancelRequest.
    pub(super) fn is_cancel(&self) -> bool {
        matches!(self.kind, TaskKind::Cancel(_))
    }
}

/// A CancelRequest on behalf of a connection.
#[derive(Debug)]
struct CancelTask<S> {
    cancel: Cancel<S>,
    /// Counts the CancelRequests in progress.
    _permit: Permit,
    is_watched: bool,
}

impl<S: Transport> CancelTask<S> {
    /// Continues as far as possible; returns `true` if the request can cancel nothing any more, and `false` if it may.
    fn advance(&mut self, turn: &mut Turn<'_, S>) -> Option<bool> {
        if let Some(stream) = self.cancel.stream()
            && !std::mem::replace(&mut self.is_watched, true)
            && turn.watch(stream, true, true).is_err()
        {
            return Some(true);
        }
        match self.cancel.advance(turn.now()) {
            CancelProgress::Wait => {
                turn.set_timer(Timer::Cancel, self.cancel.until);
                None
            }
            progress => Some(progress == CancelProgress::Over),
        }
    }
}

/// A session that sends one canary on behalf of a connection, and is closed.
#[derive(Debug)]
struct CanarySender<S: Transport> {
    config: Config,
    /// The canary, until it is sent.
    request: Option<Request>,
    phase: SenderPhase<S>,
}

#[derive(Debug)]
enum SenderPhase<S: Transport> {
    New,
    /// Waiting for the permit for an attempt.
    Queued,
    Opening {
        opening: Box<Opening<S>>,
        _permit: Permit,
    },
}

impl<S: Transport> CanarySender<S> {
    /// Begins to connect.
    fn begin_dial(&mut self, permit: Permit, turn: &mut Turn<'_, S>) -> Option<Result<(), Error>> {
        log::timer_fired(turn.id, Some(&self.config), SharedTimer::DialPermit);
        match Dial::new(&self.config, turn.now()) {
            Ok(dial) => self.phase = SenderPhase::Opening { opening: Box::new(Opening::new(dial)), _permit: permit },
            Err(error) => return Some(Err(error)),
        }
        self.advance(turn)
    }

    /// Continues as far as possible; returns the result once the canary is committed, or cannot be sent.
    fn advance(&mut self, turn: &mut Turn<'_, S>) -> Option<Result<(), Error>> {
        let opening = match &mut self.phase {
            SenderPhase::New => {
                self.phase = SenderPhase::Queued;
                turn.services.dials.enqueue(turn.token);
                return None;
            }
            SenderPhase::Queued => return None,
            SenderPhase::Opening { opening, .. } => opening,
        };
        let request = &mut self.request;
        match opening.advance(turn.read_context(), "sending a canary", |_| Ok(request.take())) {
            OpeningProgress::Wait(until) => {
                if opening.awaits_waker() {
                    turn.services.await_waker.push(turn.token);
                }
                if let Some(stream) = opening.take_unwatched()
                    && let Err(error) = turn.watch(stream, true, true)
                {
                    return Some(Err(error));
                }
                turn.set_timer(Timer::Dial, until);
                None
            }
            OpeningProgress::Open(_) => Some(Ok(())),
            OpeningProgress::Failed(error) => Some(Err(error)),
        }
    }
}
