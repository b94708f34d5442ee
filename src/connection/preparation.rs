//! Executes the SQL of `after_connect` in a new session.

use std::sync::Arc;
use std::time::Instant;

use crate::connection::link::{Exchange, Link};
use crate::connection::read_context::ReadContext;
use crate::error::Error;
use crate::net::Transport;
use crate::proto::{Request, RequestId, TransactionStatus};

/// A session that executes SQL before it is used.
#[derive(Debug)]
pub(super) struct Preparation<S: Transport> {
    pub(super) link: Box<Link<S>>,
    request: RequestId,
    until: Option<Instant>,
}

/// The progress of a preparation.
pub(super) enum PreparationProgress {
    /// Advance again when the stream is ready, and at this time.
    Wait(Option<Instant>),
    /// The session can be used; `true` if its stream may hold more data, which it will not report again.
    Done(bool),
    Failed(Error),
}

impl<S: Transport> Preparation<S> {
    pub(super) fn begin(mut link: Box<Link<S>>, sql: &str, now: Instant) -> Self {
        let request = link.request(Request::Query(sql.into()));
        let until = link.config().get_call_timeout().and_then(|timeout| now.checked_add(timeout));
        Self { link, request, until }
    }

    /// Continues as far as possible.
    pub(super) fn advance(&mut self, cx: &mut ReadContext<'_>) -> PreparationProgress {
        let error = match self.link.await_reply(cx, self.request) {
            Exchange::Done(Ok(_), may_have_more) if self.link.transaction_status() == TransactionStatus::Idle => {
                return PreparationProgress::Done(may_have_more);
            }
            Exchange::Done(Ok(_), _) => return PreparationProgress::Failed(Error::LeftInTransaction),
            Exchange::Done(Err(e), _) => e,
            Exchange::Pending(_) if self.until.is_some_and(|until| until <= cx.now) => Error::Timeout {
                action: "executing it",
                after: self.link.config().get_call_timeout().unwrap_or_default(),
                closed: true,
            },
            Exchange::Pending(at) => return PreparationProgress::Wait(at.or(self.until)),
        };
        PreparationProgress::Failed(Error::AfterConnect(Arc::new(error)))
    }
}
