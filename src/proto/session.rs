//! One conversation with a server, from the start-up packet to the end. SessionLogin is just its first states.
//!
//! ```text
//!   SessionLogin ──ReadyForQuery──▶ Idle ──request──▶ Busy
//!     │                       ▲ │               │
//!     │                       │ └──FATAL, EOF───┤
//!     │                       └──ReadyForQuery──┤
//!     └──────────────▶ Closed ◀─────────────────┘
//! ```

mod final_error;
mod messages;
mod partial_frame;
mod pending;
mod probe;
#[cfg(any(test, fuzzing))]
pub(crate) mod properties;
mod receive;
mod requests;
#[cfg(any(test, fuzzing))]
pub(crate) mod script;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io;

use bytes::{Buf, BytesMut};
use postgres_protocol::message::frontend;

pub(crate) use self::partial_frame::PartialFrame;
use self::pending::PendingIo;
use self::probe::CanaryProbe;
pub(crate) use self::probe::{CanaryArrival, refuse_canary_channel};
use crate::config::{ChannelBinding, Config};
use crate::error::{Error, ServerError};
use crate::notification::{Batch, Notification};
use crate::proto::auth::{AuthExchange, Binding};
use crate::proto::backlog::Backlog;
use crate::proto::channels::Channels;
use crate::proto::encoding;
use crate::proto::interner::Interner;
use crate::proto::parameters::Parameters;
use crate::proto::request::{InFlight, QueuedRequest, Reply, Request, RequestId};
use crate::proto::sql;

/// Whether the session is in a transaction, as the last ReadyForQuery said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionStatus {
    /// In none: notifications are delivered.
    Idle,
    /// In one: the server delivers nothing until it ends.
    InTransaction,
    /// In one that failed, and must be rolled back.
    Failed,
}

/// What comes out of a session, besides notifications.
#[derive(Debug)]
pub(crate) enum Output {
    /// The login is done.
    Ready,
    /// A request was answered.
    Reply(RequestId, Result<Reply, Error>),
    /// The end, and its reason: the last output, after the last notification was taken.
    Closed(Error),
}

/// Where the conversation is. A listener is hardly ever anywhere but in `Idle`, so the others are kept apart.
#[derive(Debug, Default)]
enum SessionState {
    Login(Box<SessionLogin>),
    #[default]
    Idle,
    Busy(Box<InFlight>),
    Closed(Box<SessionEnd>),
}

/// A login under way.
#[derive(Debug)]
struct SessionLogin {
    exchange: AuthExchange,
    user: String,
    config: Config,
    binding: Binding,
    authenticated: bool,
    /// The part received of an error in plain text.
    plain_error: Option<Vec<u8>>,
}

/// The end of a conversation.
#[derive(Debug)]
struct SessionEnd {
    reason: Error,
    told: bool,
}

/// The client's end of one conversation.
///
/// There may be thousands that wait for news, so what lies here is what each of them needs for that: some hundred bytes.
/// What is there only while something is under way lies behind a pointer, and goes when it is empty; what is equal in
/// many sessions can be [shared](Self::share).
#[derive(Debug)]
pub(crate) struct Session {
    /// What is under way; nothing in `Idle`, when everything is said and heard.
    pending: Option<Box<PendingIo>>,
    /// The frame at the end of the last input, as far as it came.
    partial: Option<Box<PartialFrame>>,
    backlog: Backlog,
    /// What is listened to, as far as is known.
    channels: Channels,
    parameters: Parameters,
    /// The channel that is listened to for our own sake.
    private: Option<Box<CanaryProbe>>,
    pid: i32,
    key: i32,
    status: TransactionStatus,
    /// Whether the server must be asked for the channels, once it is in no transaction.
    channels_stale: bool,
    /// Whether the login is done.
    ready: bool,
    /// Whether channels or parameters have changed since they were shared.
    unshared: bool,
    /// Whether something has happened on the private channel.
    canary_event: bool,
    /// `true` once another transaction has begun.
    new_transaction: bool,
}

/// What many sessions have in common.
#[derive(Debug, Default)]
pub(crate) struct SessionInterner {
    channels: Interner<Channels>,
    parameters: Interner<Parameters>,
}

/// A start-up packet hardly takes more, in bytes.
const USUAL_STARTUP: usize = 256;

impl Session {
    /// Begins a conversation: the start-up packet is ready to be transmitted.
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let mut pending = Box::<PendingIo>::default();
        let parameters = config.startup_parameters()?;
        pending.transmit.reserve(USUAL_STARTUP);
        frontend::startup_message(parameters.iter().map(|(name, value)| (*name, &**value)), &mut pending.transmit)
            .map_err(|e| Error::io("writing the start-up packet", e))?;
        pending.state = SessionState::Login(Box::new(SessionLogin {
            exchange: AuthExchange::new(),
            user: config.effective_user()?.into(),
            config: config.clone(),
            binding: Binding::InClear,
            authenticated: false,
            plain_error: None,
        }));
        Ok(Self {
            pending: Some(pending),
            partial: None,
            backlog: Backlog::Empty,
            channels: Channels::default(),
            parameters: Parameters::default(),
            private: None,
            pid: 0,
            key: 0,
            status: TransactionStatus::Idle,
            channels_stale: false,
            ready: false,
            unshared: true,
            canary_event: false,
            new_transaction: false,
        })
    }

    /// Tells what the login can be bound to.
    pub(crate) fn with_binding(mut self, end_point: Binding) -> Self {
        if let Some(SessionState::Login(login)) = self.pending.as_mut().map(|pending| &mut pending.state) {
            let disabled = login.config.get_channel_binding() == ChannelBinding::Disable;
            login.binding = if disabled { Binding::Disabled } else { end_point };
        }
        self
    }

    // ---- told -------------------------------------------------------------------------------------------------

    /// Asks the server for something; the reply comes out of [`poll`](Self::poll).
    pub(crate) fn request(&mut self, ask: Request) -> RequestId {
        let pending = self.pending.get_or_insert_default();
        let id = pending.next_id();
        if let SessionState::Closed(end) = &pending.state {
            pending.outputs.push_back(Output::Reply(id, Err(end.reason.clone())));
        } else {
            pending.requests.push_back(QueuedRequest { id: Some(id), ask, healed: false });
            self.send_next();
        }
        id
    }

    /// Asks the server for something of which nobody wants to hear the answer.
    pub(crate) fn request_discarding_reply(&mut self, ask: Request) {
        if !self.is_closed() {
            self.pending.get_or_insert_default().requests.push_back(QueuedRequest { id: None, ask, healed: false });
            self.send_next();
        }
    }

    /// Says goodbye and ends the conversation; what is to be transmitted is the farewell.
    pub(crate) fn terminate(&mut self) {
        if !self.is_closed() {
            frontend::terminate(&mut self.pending.get_or_insert_default().transmit);
            self.close(Error::Closed);
        }
    }

    // ---- ends -------------------------------------------------------------------------------------------------

    /// The peer will send no more.
    pub(crate) fn handle_eof(&mut self) {
        self.lose(Error::Disconnected);
    }

    /// Reading or writing failed.
    pub(crate) fn handle_io_error(&mut self, action: &'static str, error: io::Error) {
        self.lose(Error::io(action, error));
    }

    /// The link broke. If the server had said why, that is the reason.
    fn lose(&mut self, error: Error) {
        let words = self.truncated_error().or_else(|| self.pending.as_ref()?.final_error.clone());
        self.close(words.map_or(error, Error::from));
    }

    /// Ends the conversation for a reason of our own.
    pub(crate) fn fail(&mut self, reason: Error) {
        self.close(reason);
    }

    fn close(&mut self, reason: Error) {
        if self.is_closed() {
            return;
        }
        self.pending.get_or_insert_default().end(reason);
        self.partial = None;
    }

    // ---- output -----------------------------------------------------------------------------------------------

    /// What is to be sent to the server.
    pub(crate) fn poll_transmit(&self) -> &[u8] {
        self.pending.as_ref().map_or(&[], |pending| &pending.transmit)
    }

    /// The first `sent` bytes of it were sent.
    pub(crate) fn handle_transmitted(&mut self, sent: usize) {
        let Some(pending) = &mut self.pending else { return };
        pending.transmit.advance(sent.min(pending.transmit.len()));
        if pending.transmit.is_empty() {
            pending.transmit = BytesMut::new();
        }
        self.drop_if_empty();
    }

    /// The next output, if there is one. The end isn't given while notifications that came before it are untaken.
    pub(crate) fn poll(&mut self) -> Option<Output> {
        let pending = self.pending.as_mut()?;
        if let Some(output) = pending.outputs.pop_front() {
            self.drop_if_empty();
            return Some(output);
        }
        match &mut pending.state {
            SessionState::Closed(end) if !end.told && self.backlog.is_empty() => {
                end.told = true;
                Some(Output::Closed(end.reason.clone()))
            }
            _ => None,
        }
    }

    /// The reply to one request, if it has come; those to others stay.
    pub(crate) fn take_reply(&mut self, of: RequestId) -> Option<Result<Reply, Error>> {
        let reply = self.pending.as_mut()?.take_reply(of);
        self.drop_if_empty();
        reply
    }

    /// Returns `true` if this request was sent and is unanswered.
    pub(crate) fn is_in_flight(&self, request: RequestId) -> bool {
        matches!(self.state(), SessionState::Busy(in_flight) if in_flight.request.id == Some(request))
    }

    /// Returns `true` if this request has not been sent.
    pub(crate) fn is_waiting(&self, request: RequestId) -> bool {
        self.pending.iter().flat_map(|pending| &pending.requests).any(|waiting| waiting.id == Some(request))
    }

    /// Withdraws a request that has not been sent; returns `false` if it has been.
    pub(crate) fn withdraw(&mut self, request: RequestId) -> bool {
        let Some(pending) = &mut self.pending else { return false };
        let before = pending.requests.len();
        pending.requests.retain(|waiting| waiting.id != Some(request));
        pending.requests.len() < before
    }

    /// Stops sending requests; the answer to one that was sent is still received.
    pub(crate) fn pause(&mut self) {
        self.pending.get_or_insert_default().paused = true;
    }

    /// Sends requests again.
    pub(crate) fn resume(&mut self) {
        if let Some(pending) = &mut self.pending {
            pending.paused = false;
        }
        self.send_next();
        self.drop_if_empty();
    }

    /// Drops what nothing is in any more.
    fn drop_if_empty(&mut self) {
        if self.pending.as_ref().is_some_and(|pending| pending.is_empty()) {
            self.pending = None;
        }
    }

    /// Nobody waits for the answers any more, neither for those that have come nor for those to come.
    pub(crate) fn discard_replies(&mut self) {
        if let Some(pending) = &mut self.pending {
            pending.discard_replies();
        }
        self.drop_if_empty();
    }

    /// All notifications that came, in order.
    pub(crate) fn take_notifications(&mut self) -> Option<Batch> {
        self.backlog.take()
    }

    /// The first notification of those that came.
    pub(crate) fn pop_notification(&mut self) -> Option<Notification> {
        self.backlog.pop()
    }

    /// Returns the number of notifications that have not been taken.
    pub(crate) fn backlog_len(&self) -> usize {
        self.backlog.len()
    }

    /// How many bytes of notifications are untaken.
    pub(crate) fn backlog_size(&self) -> usize {
        self.backlog.size()
    }

    /// Whether one on `channel` is among those behind the first `from` bytes.
    pub(crate) fn has_received_on(&self, from: usize, channel: &str) -> bool {
        self.backlog.has_from(from, channel)
    }

    /// Takes out those on one channel, which was ours alone and is no news to anybody.
    pub(crate) fn remove_notifications(&mut self, channel: &str) {
        self.backlog.remove(channel);
    }

    // ---- state ------------------------------------------------------------------------------------------------

    #[cfg(any(test, fuzzing))]
    pub(crate) fn has_notifications(&self) -> bool {
        !self.backlog.is_empty()
    }

    #[inline]
    fn state(&self) -> &SessionState {
        self.pending.as_ref().map_or(&SessionState::Idle, |pending| &pending.state)
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.state(), SessionState::Closed(_))
    }

    /// Whether nothing is under way: the session can wait, and what it believes is what the server has.
    pub(crate) fn is_settled(&self) -> bool {
        matches!(self.state(), SessionState::Idle | SessionState::Closed(_))
            && self.pending.as_ref().is_none_or(|pending| pending.requests.is_empty())
    }

    /// Returns `true` if the server has sent anything.
    pub(crate) fn has_received_anything(&self) -> bool {
        match self.state() {
            SessionState::Login(login) => {
                let has_notices = self.pending.as_ref().is_some_and(|pending| !pending.notices.is_empty());
                !login.exchange.is_at_start() || has_notices || self.partial.is_some() || login.plain_error.is_some()
            }
            _ => true,
        }
    }

    /// Returns `true` while the session reads its channels from the server, because a query may have changed them.
    pub(crate) fn is_reading_channels(&self) -> bool {
        let in_flight = match self.state() {
            SessionState::Busy(in_flight) => Some(&in_flight.request),
            _ => None,
        };
        let next = self.pending.as_ref().and_then(|pending| pending.requests.front());
        in_flight.into_iter().chain(next).any(|request| matches!(request.ask, Request::ReadChannels))
    }

    /// Whether the server owes an answer that nothing can keep it from giving, if it is there.
    pub(crate) fn awaits_immediate_answer(&self) -> bool {
        matches!(self.state(), SessionState::Busy(in_flight) if in_flight.request.ask.is_answered_immediately())
    }

    /// Why it ended.
    pub(crate) fn reason(&self) -> Option<&Error> {
        match self.state() {
            SessionState::Closed(end) => Some(&end.reason),
            _ => None,
        }
    }

    pub(crate) fn status(&self) -> TransactionStatus {
        self.status
    }

    /// Returns `true` if another transaction has begun since the last call.
    pub(crate) fn take_new_transaction(&mut self) -> bool {
        std::mem::take(&mut self.new_transaction)
    }

    /// What is listened to, sorted.
    pub(crate) fn channels(&self) -> &Channels {
        &self.channels
    }

    /// Returns every channel that this session may be listening to, sorted: also those of LISTENs that succeeded since
    /// the server last listed the channels, and may have been rolled back.
    pub(crate) fn possible_channels(&self) -> impl Iterator<Item = &str> {
        let unconfirmed = self.pending.iter().flat_map(|pending| &pending.unconfirmed).map(AsRef::as_ref);
        self.channels.iter().chain(unconfirmed).collect::<BTreeSet<_>>().into_iter()
    }

    /// Whether something has changed since it was last shared.
    #[inline]
    pub(crate) fn is_unshared(&self) -> bool {
        self.unshared
    }

    /// Shares the memory of what equals another session's.
    pub(crate) fn share(&mut self, common: &mut SessionInterner) {
        self.unshared = false;
        if !common.parameters.knows(&self.parameters) {
            // Those that are about to go are left whole: in pieces, their memory is of less use to whoever comes next.
            self.parameters.shrink();
        }
        self.parameters = common.parameters.share(&self.parameters);
        if self.channels.is_packed() {
            self.channels = common.channels.share(&self.channels);
        }
    }

    /// The server's process.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// What tells the server, on a connection of its own, to cancel what it is doing for this session.
    pub(crate) fn cancel_request(&self) -> BytesMut {
        let mut request = BytesMut::new();
        frontend::cancel_request(self.pid, self.key, &mut request);
        request
    }

    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name)
    }

    /// How far names and payloads can be checked on this side: where the server counts the bytes that we count.
    pub(crate) fn limits(&self) -> sql::Limits {
        match self.parameter("server_encoding") {
            Some(name) if encoding::is_utf8(name) || encoding::is_sql_ascii(name) => sql::Limits::Exact,
            _ => sql::Limits::ServerDecides,
        }
    }

    /// The notices that nobody has taken yet, oldest first.
    pub(crate) fn notices(&self) -> impl Iterator<Item = &ServerError> {
        self.pending.iter().flat_map(|pending| &pending.notices)
    }

    pub(crate) fn take_notices(&mut self) -> Vec<ServerError> {
        let notices = self.pending.as_mut().map(|pending| std::mem::take(&mut pending.notices)).unwrap_or_default();
        self.drop_if_empty();
        notices.into()
    }

    /// How much is held of what the server said, and of what it made us say.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn held_bytes(&self) -> usize {
        let partial = self.partial.as_ref().map_or(0, |partial| partial.held_bytes());
        let pending = self.pending.as_ref().map_or(0, |pending| pending.held_bytes());
        partial
            + pending
            + self.plain_error_bytes()
            + self.backlog.size()
            + self.parameters.size()
            + self.channels.size()
    }
}
