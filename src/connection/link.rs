//! The driver: a session on a stream, and the only code that moves bytes between the two.
//!
//! ```text
//!              request, join_canary, ..            pump: write, read once, write
//!   caller ───────────────────────────▶ Session ◀──────────────────────────────▶ stream
//!              poll, take_reply, take_batch
//! ```
//!
//! Every change that may leave bytes to send also sends them, as far as the stream accepts them. So no caller can forget
//! to: blocking calls, [`wait`](super::wait), connecting, reconnecting and the loop all drive a session by [`Link::pump`].

use std::fmt::{self, Debug, DebugStruct, Formatter};
use std::io;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use crate::clock::CompactInstant;
use crate::config::Config;
use crate::connection::cancel::Cancel;
use crate::connection::history::ConnectionHistory;
use crate::connection::read_context::ReadContext;
use crate::connection::transcript::{MessageLog, TraceLabel};
use crate::error::Error;
use crate::gap::Gap;
use crate::net::Transport;
use crate::notification::Batch;
use crate::proto::{
    Backlog, Conversation, Direction, Interner, Output, Reply, Request, RequestId, Session, SessionInterner,
};

/// The number of reads in a row after which another connection has its turn, however much one server sends.
pub(crate) const READS_PER_TURN: u32 = 64;

/// The result of [`Link::pump`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pumped {
    /// The number of bytes read.
    pub(crate) bytes: usize,
    /// `true` if the stream may hold more, which it will not report again.
    pub(crate) may_have_more: bool,
}

/// The progress of an exchange with the server.
pub(super) enum Exchange<T> {
    /// The wanted output, or the error that ended the session; and `true` if the stream may hold more.
    Done(Result<T, Error>, bool),
    /// Call again when the stream is ready, or at this time: now, if the limit of reads in a row is reached.
    Pending(Option<Instant>),
}

/// The data that many connections share.
#[derive(Debug, Default)]
pub(crate) struct ConnectionInterner {
    configs: Interner<Config>,
    sessions: SessionInterner,
}

/// A session on a stream.
pub(crate) struct Link<S: Transport> {
    session: Session,
    stream: S,
    config: Config,
    last_read: CompactInstant,
    pub(crate) history: ConnectionHistory,
}

impl<S: Transport> Link<S> {
    /// Begins a session on a stream that is connected.
    pub(crate) fn new(session: Session, stream: S, config: Config, now: Instant, label: TraceLabel) -> Self {
        let mut link = Self { session, stream, config, last_read: now.into(), history: ConnectionHistory::default() };
        link.history.begin_transcript(&link.config, label);
        link.flush();
        link
    }

    // ---- driving --------------------------------------------------------------------------------------------------

    /// Writes, reads once, and writes again, as far as each is possible without waiting.
    ///
    /// A fault of the stream or the server closes the session.
    #[inline]
    pub(crate) fn pump(&mut self, cx: &mut ReadContext<'_>) -> Pumped {
        self.history.update_transcript(&self.session, &self.config, cx.label);
        self.flush();
        let pumped = self.read(cx);
        self.flush();
        pumped
    }

    #[inline]
    fn read(&mut self, cx: &mut ReadContext<'_>) -> Pumped {
        let mut pumped = Pumped { bytes: 0, may_have_more: false };
        if self.is_closed() {
            return pumped;
        }
        let space = self.session.space(cx.buffer);
        let room = space.len();
        match self.stream.read(space) {
            Ok(0) => self.session.handle_loss(Error::Disconnected),
            Ok(bytes) => {
                self.last_read = cx.now.into();
                self.history.record(Direction::Backend, space.get(..bytes).unwrap_or_default());
                self.session.handle_input(cx.buffer, bytes);
                let is_full = bytes == room || !self.stream.short_read_means_drained();
                pumped = Pumped { bytes, may_have_more: is_full || cx.until_empty };
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => self.session.handle_loss(Error::io("reading from the server", e)),
        }
        if self.is_closed() {
            self.stream.shut_down();
            pumped.may_have_more = false;
        }
        pumped
    }

    /// Writes as far as possible without waiting.
    #[inline]
    pub(crate) fn flush(&mut self) {
        if !self.session.poll_transmit().is_empty() {
            self.write();
        }
    }

    fn write(&mut self) {
        while !self.session.poll_transmit().is_empty() && !self.is_closed() {
            match self.stream.write(self.session.poll_transmit()) {
                Ok(sent) => {
                    self.history
                        .record(Direction::Frontend, self.session.poll_transmit().get(..sent).unwrap_or_default());
                    self.session.handle_transmitted(sent);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                // The server's last message may still be there to be read: reading finds the end.
                Err(e) if is_disconnected(&e) => {
                    let pending = self.session.poll_transmit().len();
                    self.session.handle_transmitted(pending);
                }
                Err(e) => self.session.handle_loss(Error::io("writing to the server", e)),
            }
        }
    }

    /// Continues the login.
    pub(super) fn log_in(&mut self, cx: &mut ReadContext<'_>) -> Exchange<()> {
        self.exchange(cx, |output| matches!(output, Output::Ready).then_some(Ok(())))
    }

    /// Continues to wait for the reply to a request.
    pub(super) fn await_reply(&mut self, cx: &mut ReadContext<'_>, request: RequestId) -> Exchange<Reply> {
        self.exchange(cx, |output| match output {
            Output::Reply(id, reply) if id == request => Some(reply),
            _ => None,
        })
    }

    /// Pumps until the session returns a wanted output, or ends.
    fn exchange<T>(
        &mut self,
        cx: &mut ReadContext<'_>,
        wanted: impl Fn(Output) -> Option<Result<T, Error>>,
    ) -> Exchange<T> {
        for _ in 0..READS_PER_TURN {
            let Pumped { may_have_more, .. } = self.pump(cx);
            while let Some(output) = self.session.poll() {
                match output {
                    Output::Closed(reason) => return Exchange::Done(Err(reason), false),
                    output => {
                        if let Some(result) = wanted(output) {
                            return Exchange::Done(result, may_have_more);
                        }
                    }
                }
            }
            if let Some(reason) = self.error() {
                return Exchange::Done(Err(reason.clone()), false);
            }
            if !may_have_more {
                return Exchange::Pending(None);
            }
        }
        Exchange::Pending(Some(cx.now))
    }

    // ---- requests -------------------------------------------------------------------------------------------------

    /// Makes a request; the reply comes from [`poll`](Self::poll) or [`take_reply`](Conversation::take_reply).
    pub(crate) fn request(&mut self, request: Request) -> RequestId {
        let id = self.session.request(request);
        self.flush();
        id
    }

    /// Returns the next output; the end comes after the last notification has been taken.
    pub(crate) fn poll(&mut self) -> Option<Output> {
        self.session.poll()
    }

    /// Sends requests again.
    pub(crate) fn resume(&mut self) {
        self.session.resume();
        self.flush();
    }

    /// Begins a CancelRequest for the running query; returns `None` if the server cannot be reached.
    pub(crate) fn begin_cancel(&self, until: Option<Instant>) -> Option<Cancel<S>> {
        let log = MessageLog::new(&self.config, self.history.trace_label());
        let (like, request) = (self.stream.encryption(), self.session.cancel_request());
        Cancel::begin(&self.stream.peer().ok()?, &self.config, like, request, until, log)
    }

    /// Prepares the connection for its return to the user: discards the replies to the manager's requests, and leaves the
    /// canary channel.
    pub(crate) fn release(&mut self) {
        self.session.discard_replies();
        self.session.leave_canary();
        self.session.track_unlistens(false);
        self.flush();
    }

    // ---- the end --------------------------------------------------------------------------------------------------

    /// Closes the session for a reason on the client's side.
    pub(crate) fn close_for(&mut self, reason: Error) {
        self.session.fail(reason);
        self.stream.shut_down();
    }

    /// Sends Terminate and closes the session.
    pub(super) fn terminate(&mut self) -> io::Result<()> {
        self.session.terminate();
        let bytes = self.session.poll_transmit();
        let sent = if bytes.is_empty() { Ok(0) } else { self.stream.write(bytes) };
        let sent = sent.map(|sent| self.history.record(Direction::Frontend, bytes.get(..sent).unwrap_or_default()));
        self.stream.send_close_notify();
        sent
    }

    // ---- notifications --------------------------------------------------------------------------------------------

    /// Takes all notifications, with the gap before them.
    #[inline]
    pub(crate) fn take_batch(&mut self, now: Instant) -> Option<Batch> {
        if self.history.is_recorded() && !self.finish_relisten(now) {
            return None;
        }
        let batch = self.session.take_notifications();
        match self.history.take_gap() {
            None => batch,
            Some(gap) => Some(batch.unwrap_or_else(Batch::empty).with_gap(gap)),
        }
    }

    /// Takes the gap, if the server listens to all its channels again.
    pub(crate) fn take_gap(&mut self, now: Instant) -> Option<Gap> {
        self.finish_relisten(now);
        self.history.take_gap()
    }

    /// Returns the notifications that have not been taken.
    pub(crate) fn backlog(&self) -> &Backlog {
        self.session.backlog()
    }

    pub(super) fn backlog_mut(&mut self) -> &mut Backlog {
        self.session.backlog_mut()
    }

    /// Ends the gap of channels that the server had forgotten, once it listens to them again. Returns `false` while
    /// notifications must be held back, because the server may send them before it acknowledges the LISTEN.
    fn finish_relisten(&mut self, now: Instant) -> bool {
        if self.history.relistening().is_none() {
            return true;
        }
        if self.session.is_relistening() {
            return false;
        }
        self.history.finish_relisten(now, &mut self.session);
        true
    }

    // ---- state ----------------------------------------------------------------------------------------------------

    pub(crate) fn stream(&self) -> &S {
        &self.stream
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Sets the label of the connection, also for the sessions that succeed this one.
    pub(crate) fn set_label(&mut self, label: String) {
        self.config = self.config.clone().label(label);
    }

    /// Returns `true` if the stream must be watched for room to write.
    pub(crate) fn wants_write(&self) -> bool {
        !self.is_closed() && !self.session.poll_transmit().is_empty()
    }

    pub(crate) fn last_read(&self) -> Instant {
        self.last_read.into()
    }

    /// Returns `true` if the server has sent anything.
    pub(super) fn has_received_anything(&self) -> bool {
        self.session.has_received_anything()
    }

    /// Shares the memory of data that equals another connection's.
    #[inline]
    pub(crate) fn share(&mut self, interner: &mut ConnectionInterner) {
        if self.session.is_unshared() {
            self.config = interner.configs.intern(&self.config);
            self.session.share(&mut interner.sessions);
        }
    }

    /// Adds the state to a description on one line, without the names of the channels, of which there may be thousands.
    pub(crate) fn describe(&self, entry: &mut DebugStruct<'_, '_>) {
        entry
            .field("to", &format_args!("{}", self.config()))
            .field("pid", &self.pid())
            .field("session", &self.session.phase())
            .field("channels", &self.channels().count())
            .field("transaction", &self.transaction_status())
            .field("unanswered", &self.session.unanswered())
            .field("undelivered", &self.backlog().len());
        if let Some(gap) = self.history.gap().or(self.history.relistening()) {
            entry.field("gap_channels", &gap.channels().len());
        }
        if let Some(error) = self.error() {
            entry.field("error", &format_args!("{error:#}"));
        }
    }

    // ---- the canary and the audit ---------------------------------------------------------------------------------

    /// Listens to the canary's channel; returns `None` if the session listens to it already.
    pub(crate) fn join_canary(&mut self, channel: &str) -> Option<RequestId> {
        let request = self.session.join_canary(channel);
        self.flush();
        request
    }

    /// Keeps the channels that the session does not listen to any more until they are taken.
    pub(crate) fn track_unlistens(&mut self) {
        self.session.track_unlistens(true);
    }

    /// Takes the channels that the session does not listen to any more since the last call.
    #[inline]
    pub(crate) fn take_unlistened(&mut self) -> Vec<Box<str>> {
        self.session.take_unlistened()
    }

    // ---- history --------------------------------------------------------------------------------------------------

    /// Returns the time limit of each call.
    pub(crate) fn call_timeout(&self) -> Option<Duration> {
        let own = self.history.audit().and_then(|audit| audit.call_timeout);
        own.unwrap_or_else(|| self.config.get_call_timeout())
    }

    /// Returns the time since which no notification can have been lost silently because of failing delivery.
    pub(crate) fn delivery_proven(&self) -> Instant {
        self.history.proven(|audit| audit.delivery_proven).unwrap_or(self.stream.opened())
    }

    /// Returns the time since which no notification can have been lost silently because of a forgotten channel.
    pub(crate) fn channels_proven(&self) -> Instant {
        self.history.proven(|audit| audit.channels_proven).unwrap_or(self.stream.opened())
    }
}

impl<S: Transport> Debug for Link<S> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut entry = f.debug_struct("Link");
        self.describe(&mut entry);
        entry.finish()
    }
}

/// A connection as the layers above drive it: a link, in whatever form its user sees it.
pub(crate) trait Linked: From<Link<Self::Stream>> + Debug {
    type Stream: Transport;

    fn link(&self) -> &Link<Self::Stream>;

    fn link_mut(&mut self) -> &mut Link<Self::Stream>;
}

/// A link dereferences to the part of its session that can be read and changed without sending anything.
impl<S: Transport> Deref for Link<S> {
    type Target = Conversation;

    fn deref(&self) -> &Conversation {
        &self.session
    }
}

impl<S: Transport> DerefMut for Link<S> {
    fn deref_mut(&mut self) -> &mut Conversation {
        &mut self.session
    }
}

/// Returns `true` if a write failed because the peer has closed the stream.
fn is_disconnected(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionReset | ConnectionAborted)
}

impl<S: Transport> Drop for Link<S> {
    fn drop(&mut self) {
        if !self.is_closed() {
            // A failure cannot be reported here.
            let _ = self.terminate();
        }
    }
}
