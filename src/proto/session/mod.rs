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

use std::collections::BTreeSet;
use std::io;
use std::mem;
use std::ops::{Deref, DerefMut};

use self::conversation::Conversation;
pub(crate) use self::output::Output;
pub use self::output::TransactionStatus;
use self::pending::PendingIo;
pub(crate) use self::probe::{CanaryArrival, CanaryProbe, refuse_canary_channel};
use self::receive::Receiver;
use self::state::SessionState;
use bytes::{Buf, BytesMut};

use crate::config::Config;
use crate::error::{Error, ServerError};
use crate::notification::Batch;
use crate::proto::auth::Binding;
use crate::proto::backlog::Backlog;
use crate::proto::buffer::ReadBuffer;
use crate::proto::channels::Channels;
use crate::proto::interner::Interner;
use crate::proto::parameters::Parameters;
use crate::proto::request::{Reply, Request, RequestId};

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
    /// Creates a session whose startup packet is ready to be transmitted.
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        Ok(Self { receiver: Receiver::default(), conversation: Conversation::new(config)? })
    }

    /// Sets what the login can be bound to.
    pub(crate) fn with_binding(mut self, binding: Binding) -> Self {
        if let Some(SessionState::Login(login)) = self.conversation.pending.as_mut().map(|pending| &mut pending.state) {
            login.set_binding(binding);
        }
        self
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

    /// Handles the end of the stream.
    pub(crate) fn handle_eof(&mut self) {
        self.handle_loss(Error::Disconnected);
    }

    /// Handles an error of reading or writing.
    pub(crate) fn handle_io_error(&mut self, action: &'static str, error: io::Error) {
        self.handle_loss(Error::io(action, error));
    }

    /// Ends the session because the connection was lost. If the server has sent an error, that is the reason.
    fn handle_loss(&mut self, error: Error) {
        let reported = self.conversation.final_error(self.receiver.partial_bytes());
        self.fail(reported.map_or(error, Error::from));
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
        self.conversation.unanswered().count()
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

    /// Returns the notices that have not been taken, the oldest first.
    pub(crate) fn notices(&self) -> impl Iterator<Item = &ServerError> {
        self.conversation.pending.iter().flat_map(|pending| &pending.notices)
    }

    /// Takes all notices, the oldest first.
    pub(crate) fn take_notices(&mut self) -> Vec<ServerError> {
        self.conversation.with_pending(|pending| mem::take(&mut pending.notices)).into()
    }

    /// Shares the memory of values that are equal in another session.
    pub(crate) fn share(&mut self, interner: &mut SessionInterner) {
        self.conversation.is_unshared = false;
        if !interner.parameters.contains(&self.conversation.parameters) {
            // A block that will be dropped is not shrunk, because its memory is easier to use again as a whole.
            self.conversation.parameters.shrink();
        }
        self.conversation.parameters = interner.parameters.intern(&self.conversation.parameters);
        if self.conversation.channels.is_packed() {
            self.conversation.channels = interner.channels.intern(&self.conversation.channels);
        }
    }

    /// Returns `true` if the server has sent anything.
    pub(crate) fn has_received_anything(&self) -> bool {
        self.receiver.partial_bytes().is_some() || self.conversation.has_received_message()
    }

    /// Returns the number of bytes that are stored because of what the server sent.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn held_bytes(&self) -> usize {
        self.receiver.held_bytes() + self.conversation.held_bytes()
    }

    // ---- requests ---------------------------------------------------------------------------------------------

    /// Takes the reply to a request, if it was answered. Other replies stay.
    pub(crate) fn take_reply(&mut self, of: RequestId) -> Option<Result<Reply, Error>> {
        self.conversation.with_pending(|pending| pending.take_reply(of))
    }

    /// Returns `true` if this request was sent and is not answered.
    pub(crate) fn is_in_flight(&self, request: RequestId) -> bool {
        self.conversation.in_flight().is_some_and(|in_flight| in_flight.queued.id == Some(request))
    }

    /// Returns `true` if this request has not been sent.
    pub(crate) fn is_waiting(&self, request: RequestId) -> bool {
        let mut waiting = self.conversation.pending.iter().flat_map(|pending| &pending.requests);
        waiting.any(|queued| queued.id == Some(request))
    }

    /// Withdraws a request that has not been sent. Returns `false` if it was sent.
    pub(crate) fn withdraw(&mut self, request: RequestId) -> bool {
        self.conversation.pending.as_mut().is_some_and(|pending| pending.withdraw(request))
    }

    /// Returns `true` if requests are not sent now.
    pub(crate) fn is_paused(&self) -> bool {
        self.conversation.pending.as_ref().is_some_and(|pending| pending.is_paused)
    }

    /// Stops sending requests. The answer to the request in flight is still received.
    pub(crate) fn pause(&mut self) {
        self.conversation.pending.get_or_insert_default().is_paused = true;
    }

    /// Sends requests again.
    pub(crate) fn resume(&mut self) {
        self.conversation.with_pending(|pending| pending.is_paused = false);
        self.conversation.send_next();
    }

    /// Discards the replies to all requests so far, including those that have not been answered.
    pub(crate) fn discard_replies(&mut self) {
        self.conversation.with_pending(PendingIo::discard_replies);
    }

    // ---- channels ---------------------------------------------------------------------------------------------

    /// Returns every channel that the session may be listening to, in order: also those of LISTENs that succeeded since
    /// the server last listed the channels, and may have been rolled back.
    pub(crate) fn possible_channels(&self) -> impl Iterator<Item = &str> {
        let unconfirmed = self.conversation.pending.iter().flat_map(|pending| pending.listens.unconfirmed());
        self.conversation.channels.iter().chain(unconfirmed).collect::<BTreeSet<_>>().into_iter()
    }

    /// Returns `true` while the session reads its channels from the server, because a query may have changed them.
    pub(crate) fn is_reading_channels(&self) -> bool {
        // Only requests of the session itself are before it in the queue.
        self.conversation.unanswered().take(2).any(|queued| matches!(queued.request, Request::ReadChannels))
    }

    /// Returns `true` while channels that an audit has found missing are being restored.
    pub(crate) fn is_relistening(&self) -> bool {
        self.conversation.unanswered().any(|queued| match &queued.request {
            Request::ConfirmListen(confirmation) => matches!(confirmation.request, Request::Relisten(_)),
            request => matches!(request, Request::Relisten(_)),
        })
    }

    /// Takes the channels that an audit has found missing.
    pub(crate) fn take_missed_channels(&mut self) -> Vec<Box<str>> {
        self.conversation.with_pending(|pending| mem::take(&mut pending.listens.missed))
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

    /// Returns the state of the canary channel, once the session has joined one.
    #[inline]
    pub(crate) fn probe(&self) -> Option<&CanaryProbe> {
        self.conversation.probe.as_deref()
    }

    pub(crate) fn probe_mut(&mut self) -> Option<&mut CanaryProbe> {
        self.conversation.probe.as_deref_mut()
    }

    /// Returns `true` if the server listens to the canary channel, and no request is in flight that may change that.
    pub(crate) fn has_joined_canary(&self) -> bool {
        self.conversation.probe.as_ref().is_some_and(|probe| probe.has_joined()) && self.is_quiet()
    }

    /// Expects a canary with this payload, if the session has joined the canary channel.
    pub(crate) fn expect_canary(&mut self, payload: &str) {
        let has_joined = self.has_joined_canary();
        if let Some(probe) = &mut self.conversation.probe {
            probe.expect(has_joined.then_some(payload));
        }
    }

    /// Marks the next request as one that is sent to an idle session, whose socket had nothing to read, after the expected
    /// canary was committed.
    pub(crate) fn begin_canary_audit(&mut self) {
        let is_idle = matches!(self.conversation.state(), SessionState::Idle);
        if let Some(probe) = &mut self.conversation.probe {
            probe.begin_audit(is_idle);
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
