//! A session with a server, from the startup packet to its end.
//!
//! ```text
//!   handle_input ──▶ Receiver ──frames──▶ Conversation ──▶ poll, poll_transmit
//!                        │                     ▲
//!                        ▼                     │
//!            take_notifications             request
//! ```
//!
//! The [`Receiver`] splits the input into frames and keeps the notifications. The [`Conversation`]
//! handles every other message, and the client's requests.

mod conversation;
mod listens;
mod marks;
mod output;
mod pending;
mod probe;
#[cfg(any(test, fuzzing))]
pub(crate) mod properties;
mod receive;
mod requests;
#[cfg(any(test, fuzzing))]
pub(crate) mod script;
mod state;
#[cfg(test)]
mod tests;

use std::mem;
use std::ops::{Deref, DerefMut};

pub(crate) use self::conversation::Conversation;
pub(crate) use self::output::Output;
pub use self::output::TransactionStatus;
pub(crate) use self::probe::{CanaryArrival, CanaryProbe, refuse_canary_channel};
use self::receive::Receiver;
use self::state::{SessionState, truncated_error};
use bytes::{Buf, BytesMut};
use postgres_protocol::message::frontend;

use crate::config::Config;
use crate::error::{Error, ServerError};
use crate::notification::Batch;
use crate::proto::auth::Binding;
use crate::proto::backlog::Backlog;
use crate::proto::buffer::ReadBuffer;
use crate::proto::channels::Channels;
use crate::proto::interner::Interner;
use crate::proto::parameters::Parameters;
use crate::proto::plain_error;
use crate::proto::request::{Request, RequestId};

/// Memory that equal sessions share.
#[derive(Debug, Default)]
pub(crate) struct SessionInterner {
    channels: Interner<Channels>,
    parameters: Interner<Parameters>,
}

/// The client's side of a session.
///
/// Thousands of sessions may wait for notifications, so this type contains only what each of them needs for that, about a
/// hundred bytes. State that exists only during an operation is behind a pointer and is freed when it is empty. Values
/// that are equal in many sessions can be [shared](Self::share).
///
/// A session dereferences to its [`Conversation`], as the connections of rustls do to their common part.
#[derive(Debug)]
pub(crate) struct Session {
    receiver: Receiver,
    conversation: Conversation,
}

impl Session {
    /// Creates a session whose startup packet is ready to be transmitted, and whose login can be bound to `binding`.
    pub(crate) fn new(config: &Config, binding: Binding) -> Result<Self, Error> {
        Ok(Self { receiver: Receiver::default(), conversation: Conversation::new(config, binding)? })
    }

    // ---- input ------------------------------------------------------------------------------------------------

    /// Returns the space for the next bytes from the server.
    #[inline]
    pub(crate) fn space<'b>(&self, buffer: &'b mut ReadBuffer) -> &'b mut [u8] {
        self.receiver.space(buffer)
    }

    /// Handles the `read` bytes that were written to the [`space`](Self::space).
    #[inline]
    pub(crate) fn handle_input(&mut self, buffer: &mut ReadBuffer, read: usize) {
        self.receiver.handle_input(buffer, read, &mut self.conversation);
    }

    /// Ends the session because the stream has ended, or a read or a write has failed. If the server has sent an error, that
    /// is the reason.
    pub(crate) fn handle_loss(&mut self, error: Error) {
        let reported = self.final_error();
        self.fail(reported.map_or(error, Error::from));
    }

    /// Returns the error that the server sent before the connection was lost.
    fn final_error(&mut self) -> Option<ServerError> {
        let login = self.conversation.early_login();
        let is_early = login.is_some();
        login
            .and_then(|login| login.plain_error.as_deref().map(plain_error::parse))
            .or_else(|| truncated_error(self.receiver.partial_bytes()?, is_early))
            .or_else(|| self.conversation.pending.as_ref()?.final_error.clone())
    }

    /// Ends the session for a reason that the client has found.
    pub(crate) fn fail(&mut self, reason: Error) {
        self.conversation.close(reason);
        self.receiver.partial = None;
    }

    /// Ends the session with a Terminate message, which is ready to be transmitted.
    pub(crate) fn terminate(&mut self) {
        self.conversation.terminate();
        self.receiver.partial = None;
    }

    // ---- output -----------------------------------------------------------------------------------------------

    /// Returns the bytes to send to the server.
    pub(crate) fn poll_transmit(&self) -> &[u8] {
        self.conversation.pending.as_ref().map_or(&[], |pending| &pending.transmit)
    }

    /// Returns the name of the state, for logs.
    pub(crate) fn phase(&self) -> &'static str {
        match self.conversation.state() {
            SessionState::Login(_) => "login",
            SessionState::Idle => "idle",
            SessionState::Busy(_) => "busy",
            SessionState::Closed(_) => "closed",
        }
    }

    /// Returns the number of requests without a reply.
    pub(crate) fn unanswered(&self) -> usize {
        self.conversation.unanswered_requests().count()
    }

    /// Returns `true` if nothing waits to be sent, and the last message received is complete.
    #[cfg(feature = "tracing")]
    pub(crate) fn is_between_messages(&self) -> bool {
        self.poll_transmit().is_empty() && self.receiver.partial_bytes().is_none()
    }

    /// Removes the first `sent` bytes of [`poll_transmit`](Self::poll_transmit), which were sent.
    pub(crate) fn handle_transmitted(&mut self, sent: usize) {
        self.conversation.with_pending(|pending| {
            pending.transmit.advance(sent.min(pending.transmit.len()));
            if pending.transmit.is_empty() {
                pending.transmit = BytesMut::new();
            }
        });
    }

    /// Returns the next output, if there is one. The end is not returned before all notifications have been taken.
    pub(crate) fn poll(&mut self) -> Option<Output> {
        let is_drained = self.receiver.backlog.is_empty();
        self.conversation.with_pending(|pending| pending.next_output(is_drained))
    }

    /// Takes all received notifications, in order.
    pub(crate) fn take_notifications(&mut self) -> Option<Batch> {
        self.receiver.backlog.take()
    }

    /// Returns the notifications that have not been taken.
    pub(crate) fn backlog(&self) -> &Backlog {
        &self.receiver.backlog
    }

    pub(crate) fn backlog_mut(&mut self) -> &mut Backlog {
        &mut self.receiver.backlog
    }

    /// Shares the memory of values that are equal in another session.
    pub(crate) fn share(&mut self, interner: &mut SessionInterner) {
        self.conversation.is_unshared = false;
        if !interner.parameters.contains(&self.conversation.parameters) {
            // A block that will be dropped is not shrunk, because its memory is easier to use again as a whole.
            self.conversation.parameters.shrink();
        }
        self.conversation.parameters = interner.parameters.intern(&self.conversation.parameters);
        if let Channels::Packed(_) = self.conversation.channels {
            self.conversation.channels = interner.channels.intern(&self.conversation.channels);
        }
    }

    /// Returns `true` if the server has sent anything.
    pub(crate) fn has_received_anything(&self) -> bool {
        let SessionState::Login(login) = self.conversation.state() else { return true };
        let is_empty = self.receiver.partial_bytes().is_none() && self.notices().next().is_none();
        !is_empty || !login.exchange.is_at_start() || login.plain_error.is_some()
    }

    // ---- requests ---------------------------------------------------------------------------------------------

    /// Sends a request to the server. [`poll`](Self::poll) returns the reply.
    pub(crate) fn request(&mut self, request: Request) -> RequestId {
        self.conversation.request(request)
    }

    /// Returns the message that cancels the request in flight, to be sent on another connection.
    pub(crate) fn cancel_request(&self) -> BytesMut {
        let mut request = BytesMut::new();
        frontend::cancel_request(self.conversation.pid(), self.conversation.key, &mut request);
        request
    }

    /// Sends requests again.
    pub(crate) fn resume(&mut self) {
        self.conversation.with_pending(|pending| pending.is_paused = false);
        self.conversation.send_next();
    }

    /// Discards the replies to all requests so far, including those that have not been answered.
    pub(crate) fn discard_replies(&mut self) {
        self.conversation.with_pending(|pending| {
            if let SessionState::Busy(in_flight) = &mut pending.state {
                in_flight.queued.id = None;
            }
            pending.outputs.retain(|output| !matches!(output, Output::Reply(..)));
            pending.requests.iter_mut().for_each(|queued| queued.id = None);
        });
    }

    // ---- channels ---------------------------------------------------------------------------------------------

    /// Returns `true` while channels that an audit has found missing are being restored.
    pub(crate) fn is_relistening(&self) -> bool {
        self.conversation.unanswered_requests().any(|queued| match &queued.request {
            Request::ConfirmListen(confirmation) => matches!(confirmation.request, Request::Relisten(_)),
            request => matches!(request, Request::Relisten(_)),
        })
    }

    /// Keeps the channels that the session does not listen to any more until they are taken, from now on, or no longer.
    pub(crate) fn track_unlistens(&mut self, tracks: bool) {
        self.conversation.marks.track_unlistens(tracks);
        drop(self.take_unlistened());
    }

    /// Takes the channels that the session does not listen to any more since the last call.
    #[inline]
    pub(crate) fn take_unlistened(&mut self) -> Vec<Box<str>> {
        match &self.conversation.pending {
            None => Vec::new(),
            Some(_) => self.conversation.with_pending(|pending| mem::take(&mut pending.listens.unlistened)),
        }
    }

    /// Takes the missed channels that have been restored, if there are any. If the session ended before the server
    /// answered, all of `missed` may have been.
    pub(crate) fn take_relistened(&mut self, missed: &[Box<str>]) -> Option<Vec<Box<str>>> {
        let mut relistened = self.conversation.with_pending(|pending| mem::take(&mut pending.listens.relistened));
        if relistened.is_empty() && self.conversation.is_closed() {
            relistened = missed.to_vec();
        }
        (!relistened.is_empty()).then_some(relistened)
    }

    // ---- the canary -------------------------------------------------------------------------------------------

    /// Listens to a canary channel, whose notifications are not delivered. Returns the request if it could be sent
    /// immediately.
    ///
    /// If the caller already listens to the channel, it remains the caller's.
    pub(crate) fn join_canary(&mut self, channel: &str) -> Option<RequestId> {
        self.conversation.probe.get_or_insert_default().join(channel);
        let request = self.conversation.next_canary_request()?;
        Some(self.request(request))
    }

    /// Stops listening to the canary channel. Its notifications are not delivered until the server has stopped.
    pub(crate) fn leave_canary(&mut self) {
        if let Some(probe) = &mut self.conversation.probe {
            probe.leave();
            if let Some(request) = self.conversation.next_canary_request() {
                self.conversation.enqueue(None, request);
            }
        }
    }
}

impl Deref for Session {
    type Target = Conversation;

    fn deref(&self) -> &Conversation {
        &self.conversation
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Conversation {
        &mut self.conversation
    }
}
