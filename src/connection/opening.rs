//! Opens a connection and makes one request on it, without blocking.

use std::time::Instant;

use crate::connection::dial::{Dial, DialProgress};
use crate::connection::link::{Exchange, Link};
use crate::connection::read_context::ReadContext;
use crate::error::Error;
use crate::net::Transport;
use crate::proto::{Request, RequestId};

/// A connection that is being opened to make one request.
#[derive(Debug)]
pub(crate) struct Opening<S: Transport> {
    phase: OpeningPhase<S>,
    /// The number of the dial's stream that is being watched.
    watched: Option<u32>,
}

#[derive(Debug)]
enum OpeningPhase<S: Transport> {
    Dialling(Box<Dial<S>>),
    Requesting { link: Box<Link<S>>, request: RequestId, until: Option<Instant> },
    Over,
}

/// The progress of an opening.
#[derive(Debug)]
pub(crate) enum OpeningProgress<S: Transport> {
    /// Advance again when the stream is ready, when the waker has been used, and at this time.
    Wait(Option<Instant>),
    /// The connection is open, and the server has acknowledged the request. The stream is being watched.
    Open(Box<Link<S>>),
    Failed(Error),
}

impl<S: Transport> Opening<S> {
    pub(crate) fn new(dial: Dial<S>) -> Self {
        Self { phase: OpeningPhase::Dialling(Box::new(dial)), watched: None }
    }

    /// Continues as far as possible. Once the connection is open, `request` returns the request to make, if any; `action`
    /// names it in errors.
    pub(crate) fn advance(
        &mut self,
        cx: &mut ReadContext<'_>,
        action: &'static str,
        request: impl FnOnce(&Link<S>) -> Result<Option<Request>, Error>,
    ) -> OpeningProgress<S> {
        match std::mem::replace(&mut self.phase, OpeningPhase::Over) {
            OpeningPhase::Dialling(mut dial) => match dial.advance(cx) {
                DialProgress::Wait(until) => {
                    self.phase = OpeningPhase::Dialling(dial);
                    OpeningProgress::Wait(until)
                }
                DialProgress::Failed(error) => OpeningProgress::Failed(error),
                DialProgress::Open(mut link, _) => match request(&link) {
                    Err(error) => OpeningProgress::Failed(error),
                    Ok(None) => OpeningProgress::Open(link),
                    Ok(Some(request)) => {
                        let request = link.request(request);
                        let until = link.call_timeout().and_then(|timeout| cx.now.checked_add(timeout));
                        self.await_reply(cx, action, link, request, until)
                    }
                },
            },
            OpeningPhase::Requesting { link, request, until } => self.await_reply(cx, action, link, request, until),
            OpeningPhase::Over => OpeningProgress::Failed(Error::Disconnected),
        }
    }

    fn await_reply(
        &mut self,
        cx: &mut ReadContext<'_>,
        action: &'static str,
        mut link: Box<Link<S>>,
        request: RequestId,
        until: Option<Instant>,
    ) -> OpeningProgress<S> {
        match link.await_reply(cx, request) {
            Exchange::Done(Ok(_), _) => OpeningProgress::Open(link),
            Exchange::Done(Err(error), _) => OpeningProgress::Failed(error),
            Exchange::Pending(_) if until.is_some_and(|until| until <= cx.now) => {
                let after = link.call_timeout().unwrap_or_default();
                OpeningProgress::Failed(Error::Timeout { action, after, closed: true })
            }
            Exchange::Pending(at) => {
                self.phase = OpeningPhase::Requesting { link, request, until };
                OpeningProgress::Wait(at.or(until))
            }
        }
    }

    /// Returns `true` if the opening waits for the waker.
    pub(crate) fn awaits_waker(&self) -> bool {
        matches!(&self.phase, OpeningPhase::Dialling(dial) if dial.awaits_waker())
    }

    /// Returns a stream that is not being watched; from now on it counts as watched.
    pub(crate) fn take_unwatched(&mut self) -> Option<&S> {
        let OpeningPhase::Dialling(dial) = &self.phase else { return None };
        let (number, stream) = dial.stream()?;
        (self.watched.replace(number) != Some(number)).then_some(stream)
    }
}
