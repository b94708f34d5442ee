//! One conversation with a server, from the start-up packet to the end. Login is just its first states.
//!
//! ```text
//!   Login ──ReadyForQuery──▶ Idle ──request──▶ Busy
//!     │                       ▲ │               │
//!     │                       │ └──FATAL, EOF───┤
//!     │                       └──ReadyForQuery──┤
//!     └──────────────▶ Closed ◀─────────────────┘
//! ```

mod asking;
mod intake;
#[cfg(any(test, fuzzing))]
pub(crate) mod laws;
mod messages;
mod private;
#[cfg(any(test, fuzzing))]
pub(crate) mod script;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use postgres_protocol::message::frontend;

use crate::config::{ChannelBinding, Config};
use crate::error::{Error, ServerError};
use crate::notification::{Batch, Notification};
use crate::proto::auth::{Binding, Exchange};
use crate::proto::backlog::Backlog;
use crate::proto::request::{Ask, InFlight, Reply, Request, RequestId, Requests};
use crate::proto::session::private::Private;
pub(crate) use crate::proto::session::private::refuse as refuse_private;
use crate::proto::sql;

/// How many notices are kept until somebody takes them; the oldest go first.
const NOTICES_MAX: usize = 64;

/// How many parameters are kept, and how long they may be together. A server reports some fifteen, and each that an
/// extension adds.
const PARAMETERS_MAX: usize = 256;
const PARAMETERS_SIZE_MAX: usize = 1024 * 1024;

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

#[derive(Debug)]
enum State {
    Login { exchange: Exchange, user: String, config: Config, binding: Binding, authenticated: bool },
    Idle,
    Busy(Box<InFlight>),
    Closed { reason: Error, told: bool },
}

/// The client's end of one conversation.
#[derive(Debug)]
pub(crate) struct Session {
    state: State,
    status: TransactionStatus,
    /// The frame at the end of the last input, as far as it came.
    torn: Vec<u8>,
    /// How many bytes to come belong to a frame of which enough has been kept.
    skip: usize,
    backlog: Backlog,
    transmit: BytesMut,
    outputs: VecDeque<Output>,
    requests: Requests,
    last_id: u64,
    /// What is listened to, sorted, as far as is known.
    channels: Vec<Box<str>>,
    /// Whether the server must be asked for that, once it is in no transaction.
    channels_stale: bool,
    /// What an audit has found missing there; and what of it is listened to again.
    lost: Vec<Box<str>>,
    relistened: Vec<Box<str>>,
    /// The channel that is listened to for our own sake; and whether something has happened there.
    private: Option<Box<Private>>,
    private_news: bool,
    parameters: Arc<Vec<(Box<str>, Box<str>)>>,
    /// Whether the login is done.
    ready: bool,
    pid: i32,
    key: i32,
    notices: VecDeque<ServerError>,
    /// The last word of a server that is going down: WARNING 57P0x.
    warning: Option<Box<ServerError>>,
}

impl Session {
    /// Begins a conversation: the start-up packet is ready to be transmitted.
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let mut transmit = BytesMut::new();
        let parameters = config.startup_parameters()?;
        frontend::startup_message(parameters.iter().map(|(k, v)| (k.as_str(), v.as_str())), &mut transmit)
            .map_err(|e| Error::io("writing the start-up packet", e))?;
        Ok(Self {
            state: State::Login {
                exchange: Exchange::new(),
                user: config.effective_user()?,
                config: config.clone(),
                binding: Binding::InClear,
                authenticated: false,
            },
            status: TransactionStatus::Idle,
            torn: Vec::new(),
            skip: 0,
            backlog: Backlog::Empty,
            transmit,
            outputs: VecDeque::new(),
            requests: Requests::new(),
            last_id: 0,
            channels: Vec::new(),
            channels_stale: false,
            lost: Vec::new(),
            relistened: Vec::new(),
            private: None,
            private_news: false,
            parameters: Arc::default(),
            ready: false,
            pid: 0,
            key: 0,
            notices: VecDeque::new(),
            warning: None,
        })
    }

    /// Tells what the login can be bound to.
    pub(crate) fn bound_to(mut self, end_point: Binding) -> Self {
        if let State::Login { binding, config, .. } = &mut self.state {
            let disabled = config.get_channel_binding() == ChannelBinding::Disable;
            *binding = if disabled { Binding::Disabled } else { end_point };
        }
        self
    }

    // ---- told -------------------------------------------------------------------------------------------------

    /// Asks the server for something; the reply comes out of [`poll`](Self::poll).
    pub(crate) fn request(&mut self, ask: Ask) -> RequestId {
        self.last_id += 1;
        let id = RequestId(self.last_id);
        if let State::Closed { reason, .. } = &self.state {
            self.outputs.push_back(Output::Reply(id, Err(reason.clone())));
        } else {
            self.requests.push_back(Request { id: Some(id), ask, healed: false });
            self.send_next();
        }
        id
    }

    /// Asks the server for something of which nobody wants to hear the answer.
    pub(crate) fn request_unheard(&mut self, ask: Ask) {
        if !self.is_closed() {
            self.requests.push_back(Request { id: None, ask, healed: false });
            self.send_next();
        }
    }

    /// Says goodbye and ends the conversation; what is to be transmitted is the farewell.
    pub(crate) fn terminate(&mut self) {
        if !self.is_closed() {
            frontend::terminate(&mut self.transmit);
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
        let reason = self.warning.as_deref().cloned().map_or(error, Error::from);
        self.close(reason);
    }

    /// Ends the conversation for a reason of our own.
    pub(crate) fn fail(&mut self, reason: Error) {
        self.close(reason);
    }

    fn close(&mut self, reason: Error) {
        if self.is_closed() {
            return;
        }
        let state = std::mem::replace(&mut self.state, State::Closed { reason: reason.clone(), told: false });
        let in_flight = match state {
            State::Busy(in_flight) => Some(in_flight.request),
            _ => None,
        };
        for request in in_flight.into_iter().chain(std::mem::take(&mut self.requests)) {
            if let Some(id) = request.id {
                self.outputs.push_back(Output::Reply(id, Err(reason.clone())));
            }
        }
        self.torn = Vec::new();
    }

    // ---- output -----------------------------------------------------------------------------------------------

    /// What is to be sent to the server.
    pub(crate) fn poll_transmit(&self) -> &[u8] {
        &self.transmit
    }

    /// The first `sent` bytes of it were sent.
    pub(crate) fn handle_transmitted(&mut self, sent: usize) {
        self.transmit.advance(sent.min(self.transmit.len()));
        if self.transmit.is_empty() {
            self.transmit = BytesMut::new();
        }
    }

    /// The next output, if there is one. The end isn't given while notifications that came before it are untaken.
    pub(crate) fn poll(&mut self) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        match &mut self.state {
            State::Closed { reason, told } if !*told && self.backlog.is_empty() => {
                *told = true;
                Some(Output::Closed(reason.clone()))
            }
            _ => None,
        }
    }

    /// The reply to one request, if it has come; those to others stay.
    pub(crate) fn take_reply(&mut self, of: RequestId) -> Option<Result<Reply, Error>> {
        let is_it = |output: &Output| matches!(output, Output::Reply(id, _) if *id == of);
        match self.outputs.remove(self.outputs.iter().position(is_it)?) {
            Some(Output::Reply(_, reply)) => Some(reply),
            _ => None,
        }
    }

    /// Nobody waits for the answers any more, neither for those that have come nor for those to come.
    pub(crate) fn disown_requests(&mut self) {
        self.outputs.retain(|output| !matches!(output, Output::Reply(..)));
        if let State::Busy(in_flight) = &mut self.state {
            in_flight.request.id = None;
        }
        self.requests.iter_mut().for_each(|request| request.id = None);
    }

    /// All notifications that came, in order.
    pub(crate) fn take_notifications(&mut self) -> Option<Batch> {
        self.backlog.take()
    }

    /// The first notification of those that came.
    pub(crate) fn pop_notification(&mut self) -> Option<Notification> {
        self.backlog.pop()
    }

    /// How many bytes of notifications are untaken.
    pub(crate) fn backlog_size(&self) -> usize {
        self.backlog.size()
    }

    /// Whether one on `channel` is among those behind the first `from` bytes.
    pub(crate) fn has_heard(&self, from: usize, channel: &str) -> bool {
        self.backlog.has_from(from, channel)
    }

    /// Takes out those on one channel, which was ours alone and is no news to anybody.
    pub(crate) fn forget(&mut self, channel: &str) {
        self.backlog.remove(channel);
    }

    // ---- state ------------------------------------------------------------------------------------------------

    #[cfg(any(test, fuzzing))]
    pub(crate) fn has_notifications(&self) -> bool {
        !self.backlog.is_empty()
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// Whether nothing is under way: the session can wait, and what it believes is what the server has.
    pub(crate) fn is_settled(&self) -> bool {
        matches!(self.state, State::Idle | State::Closed { .. }) && self.requests.is_empty()
    }

    /// Whether the server owes an answer that nothing can keep it from giving, if it is there.
    pub(crate) fn awaits_prompt_answer(&self) -> bool {
        matches!(&self.state, State::Busy(in_flight) if in_flight.request.ask.is_answered_at_once())
    }

    /// Why it ended.
    pub(crate) fn reason(&self) -> Option<&Error> {
        match &self.state {
            State::Closed { reason, .. } => Some(reason),
            _ => None,
        }
    }

    pub(crate) fn status(&self) -> TransactionStatus {
        self.status
    }

    /// What is listened to, sorted.
    pub(crate) fn channels(&self) -> &[Box<str>] {
        &self.channels
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
        self.parameters.iter().find(|(known, _)| &**known == name).map(|(_, value)| &**value)
    }

    /// How far names and payloads can be checked on this side: where the server counts the bytes that we count.
    pub(crate) fn limits(&self) -> sql::Limits {
        match self.parameter("server_encoding") {
            Some("UTF8" | "SQL_ASCII") => sql::Limits::Exact,
            _ => sql::Limits::ServerDecides,
        }
    }

    /// The notices that nobody has taken yet, oldest first.
    pub(crate) fn notices(&self) -> impl Iterator<Item = &ServerError> {
        self.notices.iter()
    }

    pub(crate) fn take_notices(&mut self) -> Vec<ServerError> {
        std::mem::take(&mut self.notices).into()
    }

    /// How much is held of what the server said, and of what it made us say.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn held_bytes(&self) -> usize {
        let replies = self.outputs.iter().filter_map(|output| match output {
            Output::Reply(_, Ok(reply)) => Some(reply),
            _ => None,
        });
        let in_flight = match &self.state {
            State::Busy(in_flight) => Some(&in_flight.reply),
            _ => None,
        };
        let rows = replies.chain(in_flight).flat_map(|reply| &reply.rows).map(crate::row::Row::held);
        let parameters = self.parameters.iter().flat_map(|(name, value)| [name.len(), value.len()]);
        let notices = self.notices.iter().chain(self.warning.as_deref()).map(|notice| notice.to_string().len());
        let channels = self.channels.iter().map(|channel| channel.len());
        let held = [self.torn.capacity(), self.backlog.size(), self.transmit.len()];
        held.into_iter().chain(rows).chain(parameters).chain(notices).chain(channels).sum()
    }
}
