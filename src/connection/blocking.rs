//! Calls that block until the server has answered.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use crate::clock;
use crate::connection::cancel::{Cancel, CancelProgress};
use crate::connection::link::Link;
use crate::connection::read_context::ReadContext;
use crate::connection::thread_buffer::ThreadBuffer;
use crate::error::Error;
use crate::net::{PollWaker, Reactor, Stream};
use crate::proto::{Reply, Request, RequestId};

/// The longest time that a call waits after it has asked the server to cancel.
pub(crate) const GRACE: Duration = Duration::from_secs(1);
/// The SQLSTATE of a query that was cancelled.
pub(crate) const QUERY_CANCELED: &str = "57014";
/// The pause between two attempts if there is no poller, because the process has no file descriptor left.
const PAUSE: Duration = Duration::from_millis(5);

/// A poller that exists as long as a blocking call, and waits for its one socket.
#[derive(Debug)]
pub(crate) struct BlockingPoll {
    reactor: Option<Reactor>,
}

impl BlockingPoll {
    pub(crate) fn new() -> Self {
        Self { reactor: Reactor::with_capacity(1).ok() }
    }

    /// Returns a poller that watches this socket for reading and writing.
    pub(crate) fn on(socket: &impl AsRawFd) -> Self {
        let mut poll = Self::new();
        poll.watch(socket);
        poll
    }

    /// Watches this socket for reading and writing.
    pub(crate) fn watch(&mut self, socket: &impl AsRawFd) {
        // Without a poller, `wait_until` pauses between the attempts.
        if self.reactor.as_ref().is_some_and(|reactor| reactor.register(socket, 0, true).is_err()) {
            self.reactor = None;
        }
    }

    /// Returns the waker that ends a wait from another thread. Without one, the pauses are short enough.
    pub(crate) fn waker(&self) -> Option<PollWaker> {
        self.reactor.as_ref()?.waker().ok()
    }

    /// Waits until the socket may be ready, or until the deadline.
    pub(crate) fn wait_until(&mut self, deadline: Option<Instant>) {
        let left = deadline.map(|at| at.saturating_duration_since(clock::now()));
        let waited = self.reactor.as_mut().map(|reactor| reactor.wait(left).map(drop));
        if !matches!(waited, Some(Ok(()))) {
            std::thread::sleep(left.map_or(PAUSE, |left| left.min(PAUSE)));
        }
    }
}

/// Makes a request and waits for the reply; `action` names it in errors.
///
/// After the call timeout, the server is asked to cancel it.
pub(super) fn call(link: &mut Link<Stream>, request: Request, action: &'static str) -> Result<Reply, Error> {
    if let Some(reason) = link.error() {
        return Err(reason.clone());
    }
    if link.is_paused() {
        return Err(Error::Cancelling);
    }
    let id = link.request(request);
    let deadline = link.call_timeout().and_then(|timeout| clock::now().checked_add(timeout));
    let mut call = BlockingCall { link, id, reply: None, buffer: ThreadBuffer::default(), poll: None };
    if call.wait_until(deadline) {
        return call.reply.unwrap_or(Err(Error::Disconnected));
    }

    let after = call.link.call_timeout().unwrap_or_default();
    let grace = clock::now().checked_add(after.min(GRACE));
    let is_over = call.link.begin_cancel(grace).is_none_or(finish_cancel);
    // A CancelRequest that is still on its way might cancel the next call instead.
    if !call.wait_until(grace) || !is_over {
        call.link.close_for(Error::Timeout { action, after, closed: true });
    }
    let closed = call.link.is_closed();
    match call.reply {
        // The call ended just before it could be cancelled.
        Some(Ok(reply)) => Ok(reply),
        Some(Err(error)) if error.sqlstate() != Some(QUERY_CANCELED) => Err(error),
        _ => Err(Error::Timeout { action, after, closed }),
    }
}

/// A call that is in progress.
struct BlockingCall<'c> {
    link: &'c mut Link<Stream>,
    id: RequestId,
    reply: Option<Result<Reply, Error>>,
    buffer: ThreadBuffer,
    /// Made when it is first needed, since many answers are there immediately.
    poll: Option<BlockingPoll>,
}

impl BlockingCall<'_> {
    /// Waits until the call is over, or until the deadline. Returns `true` if the call is over.
    fn wait_until(&mut self, deadline: Option<Instant>) -> bool {
        let mut is_late = false;
        loop {
            if let Some(reply) = self.link.take_reply(self.id) {
                self.reply = Some(reply);
            }
            if self.reply.is_some() && self.link.is_settled() {
                return true;
            }
            // There is one more read after the deadline. More would not end where a server sends without a pause.
            if is_late && !self.link.is_closed() {
                return false;
            }
            let now = clock::now();
            is_late = deadline.is_some_and(|deadline| deadline <= now);
            let mut cx = ReadContext::new(self.buffer.get(), now, true, None);
            if self.link.pump(&mut cx).bytes > 0 || self.link.is_closed() || is_late {
                continue;
            }
            self.poll.get_or_insert_with(|| BlockingPoll::on(self.link.stream())).wait_until(deadline);
        }
    }
}

/// Continues a CancelRequest to its end, or to its deadline. Returns `true` if it can cancel nothing any more.
pub(super) fn finish_cancel(mut cancel: Cancel<Stream>) -> bool {
    let mut poll = cancel.stream().map(BlockingPoll::on);
    loop {
        match cancel.advance(clock::now()) {
            CancelProgress::Over => return true,
            CancelProgress::Late => return false,
            CancelProgress::Wait => {}
        }
        if let Some(poll) = &mut poll {
            poll.wait_until(cancel.until);
        }
    }
}
