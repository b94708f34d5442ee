//! Executes the SQL of `after_connect` in a new session, and cancels it if it takes too long.

use std::sync::Arc;
use std::time::Instant;

use crate::connection::blocking::GRACE;
use crate::connection::cancel::{Cancel, CancelProgress};
use crate::connection::link::{Exchange, Link};
use crate::connection::read_context::ReadContext;
use crate::error::Error;
use crate::net::Transport;
use crate::proto::{Request, RequestId, TransactionStatus};

/// A session that executes SQL before it is used.
#[derive(Debug)]
pub(super) struct Preparation<S: Transport>(PreparationPhase<S>);

#[derive(Debug)]
enum PreparationPhase<S: Transport> {
    Executing(Box<Link<S>>, RequestId, Option<Instant>),
    /// The SQL took too long, which is the error, and the session is closed.
    Cancelling(Box<Cancel<S>>, Error),
    Over,
}

/// The progress of a preparation.
pub(super) enum PreparationProgress<S: Transport> {
    /// Advance again when the stream is ready, and at this time.
    Wait(Option<Instant>),
    /// The session can be used; `true` if its stream may hold more data, which it will not report again.
    Done(Box<Link<S>>, bool),
    Failed(Error),
}

impl<S: Transport> Preparation<S> {
    pub(super) fn begin(mut link: Box<Link<S>>, sql: &str, now: Instant) -> Self {
        let request = link.request(Request::Query(sql.into()));
        let until = link.config().get_call_timeout().and_then(|timeout| now.checked_add(timeout));
        Self(PreparationPhase::Executing(link, request, until))
    }

    /// Returns the stream to watch, and its number: that of the session, or 1 for that of the CancelRequest.
    pub(super) fn stream(&self) -> Option<(u32, &S)> {
        match &self.0 {
            PreparationPhase::Executing(link, ..) if !link.is_closed() => Some((0, link.stream())),
            PreparationPhase::Cancelling(cancel, _) => Some((1, cancel.stream()?)),
            _ => None,
        }
    }

    /// Returns `true` if the stream must be watched for room to write.
    pub(super) fn wants_write(&self) -> bool {
        if let PreparationPhase::Executing(link, ..) = &self.0 { link.wants_write() } else { true }
    }

    /// Continues as far as possible.
    pub(super) fn advance(&mut self, cx: &mut ReadContext<'_>) -> PreparationProgress<S> {
        let error = match std::mem::replace(&mut self.0, PreparationPhase::Over) {
            PreparationPhase::Executing(mut link, request, until) => match link.await_reply(cx, request) {
                Exchange::Done(Ok(_), more) if link.transaction_status() == TransactionStatus::Idle => {
                    return PreparationProgress::Done(link, more);
                }
                Exchange::Done(Ok(_), _) => Error::LeftInTransaction,
                Exchange::Done(Err(error), _) => Error::AfterConnect(Arc::new(error)),
                Exchange::Pending(_) if until.is_some_and(|until| until <= cx.now) => {
                    let after = link.config().get_call_timeout().unwrap_or_default();
                    let error = Error::Timeout { action: "executing it", after, closed: true };
                    let error = Error::AfterConnect(Arc::new(error));
                    match link.begin_cancel(cx.now.checked_add(after.min(GRACE))) {
                        Some(cancel) => {
                            let until = cancel.until;
                            self.0 = PreparationPhase::Cancelling(Box::new(cancel), error);
                            return PreparationProgress::Wait(until);
                        }
                        None => error,
                    }
                }
                Exchange::Pending(at) => {
                    self.0 = PreparationPhase::Executing(link, request, until);
                    return PreparationProgress::Wait(at.or(until));
                }
            },
            PreparationPhase::Cancelling(mut cancel, error) => match cancel.advance(cx.now) {
                CancelProgress::Over | CancelProgress::Late => error,
                CancelProgress::Wait => {
                    let until = cancel.until;
                    self.0 = PreparationPhase::Cancelling(cancel, error);
                    return PreparationProgress::Wait(until);
                }
            },
            PreparationPhase::Over => Error::Disconnected,
        };
        PreparationProgress::Failed(error)
    }
}
