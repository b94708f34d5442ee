//! The messages of the server and the requests of the client.

use std::mem;

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use super::output::{Output, TransactionStatus};
use super::pending::PendingIo;
use super::probe::CanaryProbe;
use super::requests::{InFlight, QueuedRequest};
use super::state::{SessionLogin, SessionState, truncated_error};
use crate::config::Config;
use crate::error::{Error, ProtocolError, ServerError};
use crate::proto::channels::Channels;
use crate::proto::encoding;
use crate::proto::frame::HEADER;
use crate::proto::message;
use crate::proto::parameters::Parameters;
use crate::proto::plain_error;
use crate::proto::request::{Reply, Request, RequestId};
use crate::proto::sql;

/// The usual size of a startup packet in bytes.
const USUAL_STARTUP: usize = 256;

/// A session except for its notifications.
#[derive(Debug)]
pub(crate) struct Conversation {
    /// The state during an operation. `None` while the session is idle, with nothing to send or to report.
    pub(super) pending: Option<Box<PendingIo>>,
    /// The channels that the session listens to, as far as is known.
    pub(super) channels: Channels,
    pub(super) parameters: Parameters,
    pub(super) probe: Option<Box<CanaryProbe>>,
    pid: i32,
    key: i32,
    last_id: RequestCounter,
    pub(super) status: TransactionStatus,
    /// `true` if channels or parameters have changed since they were shared.
    pub(super) is_unshared: bool,
    /// `true` if another transaction has begun.
    has_new_transaction: bool,
}

/// The number of the last request, in 40 bits to keep an idle session small. A connection with 50,000 requests a second
/// reaches the end after 250 days; an id is then used again, long after the request was answered.
#[derive(Debug, Default)]
struct RequestCounter([u8; 5]);

impl RequestCounter {
    fn next(&mut self) -> RequestId {
        let [a, b, c, d, e] = self.0;
        let next = u64::from_le_bytes([a, b, c, d, e, 0, 0, 0]) + 1;
        let [a, b, c, d, e, ..] = next.to_le_bytes();
        self.0 = [a, b, c, d, e];
        RequestId(next)
    }
}

impl Conversation {
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        let mut pending = Box::<PendingIo>::default();
        let parameters = config.startup_parameters()?;
        pending.transmit.reserve(USUAL_STARTUP);
        frontend::startup_message(parameters.iter().map(|(name, value)| (*name, &**value)), &mut pending.transmit)
            .map_err(|e| Error::io("writing the startup packet", e))?;
        pending.state = SessionState::Login(Box::new(SessionLogin::new(config)?));
        Ok(Self {
            pending: Some(pending),
            channels: Channels::default(),
            parameters: Parameters::default(),
            probe: None,
            pid: 0,
            key: 0,
            last_id: RequestCounter::default(),
            status: TransactionStatus::Idle,
            is_unshared: true,
            has_new_transaction: false,
        })
    }

    // ---- requests ---------------------------------------------------------------------------------------------

    /// Sends a request to the server. `Session::poll` returns the reply.
    pub(crate) fn request(&mut self, request: Request) -> RequestId {
        let id = self.last_id.next();
        self.enqueue(Some(id), request);
        id
    }

    /// Sends a request to the server and discards the reply.
    pub(crate) fn request_discarding_reply(&mut self, request: Request) {
        self.enqueue(None, request);
    }

    fn enqueue(&mut self, id: Option<RequestId>, request: Request) {
        let pending = self.pending.get_or_insert_default();
        match &pending.state {
            SessionState::Closed(end) => {
                pending.outputs.extend(id.map(|id| Output::Reply(id, Err(end.reason.clone()))));
            }
            _ => pending.requests.push_back(QueuedRequest { id, request, is_retry: false }),
        }
        self.send_next();
    }

    pub(super) fn send_next(&mut self) {
        let limits = self.limits();
        if let Some(pending) = &mut self.pending {
            pending.send_next(&self.channels, limits);
        }
        self.drop_if_empty();
    }

    /// Changes the pending state if there is one, and frees it if that has emptied it.
    pub(super) fn with_pending<T: Default>(&mut self, change: impl FnOnce(&mut PendingIo) -> T) -> T {
        let result = self.pending.as_deref_mut().map(change).unwrap_or_default();
        self.drop_if_empty();
        result
    }

    fn drop_if_empty(&mut self) {
        self.pending.take_if(|pending| pending.is_empty());
    }

    /// Returns the request in flight and the queued requests, in order.
    pub(super) fn unanswered(&self) -> impl Iterator<Item = &QueuedRequest> {
        self.pending.iter().flat_map(|pending| pending.unanswered())
    }

    // ---- state ------------------------------------------------------------------------------------------------

    #[inline]
    pub(super) fn state(&self) -> &SessionState {
        self.pending.as_ref().map_or(&SessionState::Idle, |pending| &pending.state)
    }

    pub(super) fn in_flight(&self) -> Option<&InFlight> {
        self.state().in_flight()
    }

    /// Checks that a message of this type is allowed now.
    #[inline]
    pub(super) fn admit(&self, tag: u8) -> Result<(), ProtocolError> {
        self.state().admit(tag)
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.state(), SessionState::Closed(_))
    }

    /// Returns the reason of the end, if the session has ended.
    pub(crate) fn reason(&self) -> Option<&Error> {
        match self.state() {
            SessionState::Closed(end) => Some(&end.reason),
            _ => None,
        }
    }

    /// Returns `true` if no request is in flight or waiting, and the login is complete.
    pub(crate) fn is_settled(&self) -> bool {
        matches!(self.state(), SessionState::Idle | SessionState::Closed(_))
            && self.pending.as_ref().is_none_or(|pending| pending.requests.is_empty())
    }

    /// Returns `true` if the session is settled outside a transaction, and its channels are known.
    pub(crate) fn is_quiet(&self) -> bool {
        let is_idle = self.status == TransactionStatus::Idle && matches!(self.state(), SessionState::Idle);
        is_idle && self.is_settled() && !self.is_stale()
    }

    /// Returns `true` if a message of the server has been received.
    pub(super) fn has_received_message(&self) -> bool {
        let SessionState::Login(login) = self.state() else { return true };
        let has_notices = || self.pending.as_ref().is_some_and(|pending| !pending.notices.is_empty());
        !login.exchange.is_at_start() || login.plain_error.is_some() || has_notices()
    }

    /// Returns `true` if the request in flight is one that the server answers immediately, if it is alive.
    pub(crate) fn awaits_immediate_answer(&self) -> bool {
        self.in_flight().is_some_and(|in_flight| in_flight.queued.request.is_answered_immediately())
    }

    /// Returns the transaction status that the server reported last.
    pub(crate) fn status(&self) -> TransactionStatus {
        self.status
    }

    /// Returns `true` if another transaction has begun since the last call.
    pub(crate) fn take_new_transaction(&mut self) -> bool {
        mem::take(&mut self.has_new_transaction)
    }

    /// Returns the id of the server process.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Returns the message that cancels the request in flight, to be sent on another connection.
    pub(crate) fn cancel_request(&self) -> BytesMut {
        let mut request = BytesMut::new();
        frontend::cancel_request(self.pid, self.key, &mut request);
        request
    }

    /// Returns the value of a parameter that the server reported.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name)
    }

    /// Returns where the limits of names and payloads can be checked: on the client only if the server counts the same
    /// bytes.
    pub(crate) fn limits(&self) -> sql::Limits {
        match self.parameter("server_encoding") {
            Some(name) if encoding::is_utf8(name) || encoding::is_sql_ascii(name) => sql::Limits::Exact,
            _ => sql::Limits::ServerDecides,
        }
    }

    /// Returns `true` if channels or parameters have changed since they were shared.
    #[inline]
    pub(crate) fn is_unshared(&self) -> bool {
        self.is_unshared
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn held_bytes(&self) -> usize {
        let pending = self.pending.as_ref().map_or(0, |pending| pending.held_bytes());
        pending + self.parameters.size() + self.channels.size()
    }

    // ---- channels ---------------------------------------------------------------------------------------------

    /// Returns the channels that the session listens to, in order.
    pub(crate) fn channels(&self) -> &Channels {
        &self.channels
    }

    fn is_stale(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.listens.is_stale)
    }

    // ---- the canary -------------------------------------------------------------------------------------------

    /// Listens to a canary channel, whose notifications are not delivered. Returns the request if it could be sent
    /// immediately.
    ///
    /// If the caller already listens to the channel, it remains the caller's.
    pub(crate) fn join_canary(&mut self, channel: &str) -> Option<RequestId> {
        self.probe.get_or_insert_default().join(channel);
        let request = self.next_canary_request()?;
        Some(self.request(request))
    }

    /// Stops listening to the canary channel. Its notifications are not delivered until the server has stopped.
    pub(crate) fn leave_canary(&mut self) {
        if let Some(probe) = &mut self.probe {
            probe.leave();
            if let Some(request) = self.next_canary_request() {
                self.request_discarding_reply(request);
            }
        }
    }

    /// Returns the channel whose notifications are not delivered.
    pub(crate) fn canary_channel(&self) -> Option<&str> {
        self.probe.as_ref()?.channel()
    }

    /// Returns `true` if notifications on this channel are not delivered.
    pub(super) fn is_canary(&self, channel: &[u8]) -> bool {
        self.canary_channel().is_some_and(|canary| canary.as_bytes() == channel)
    }

    /// Handles a notification on the canary channel.
    pub(super) fn receive_canary_frame(&mut self, from: i32, payload: &[u8]) {
        let is_idle = matches!(self.state(), SessionState::Idle);
        if let Some(probe) = &mut self.probe {
            probe.receive(from, payload, is_idle);
        }
    }

    /// Returns the next request for the canary channel, if it can be sent now.
    fn next_canary_request(&mut self) -> Option<Request> {
        if self.is_quiet() { self.next_canary_request_outside() } else { None }
    }

    /// Returns the next request for the canary channel, if the session is outside a transaction.
    fn next_canary_request_outside(&mut self) -> Option<Request> {
        let probe = self.probe.as_mut().filter(|_| self.status == TransactionStatus::Idle)?;
        let request = probe.next_request(&self.channels);
        self.probe.take_if(|probe| probe.channel().is_none());
        request
    }

    // ---- messages ---------------------------------------------------------------------------------------------

    /// Handles a frame of `total` bytes, of which `frame` is the stored part.
    pub(super) fn handle_message(&mut self, frame: &[u8], total: usize) {
        let Some((header, body)) = frame.split_first_chunk::<HEADER>() else { return };
        if let Err(error) = self.try_handle_message(header[0], body, total - HEADER) {
            self.close(error);
        }
        self.drop_if_empty();
    }

    fn try_handle_message(&mut self, tag: u8, body: &[u8], size: usize) -> Result<(), Error> {
        self.admit(tag)?;
        let pending = self.pending.get_or_insert_default();
        match (tag, &mut pending.state) {
            (b'N', _) => pending.handle_notice(message::server_error(body)),
            (b'R', SessionState::Login(login)) => login.handle_request(body, &mut pending.transmit)?,
            (b'E', state) => {
                let error = message::server_error(body);
                if error.is_fatal() || matches!(state, SessionState::Login(_)) {
                    self.close(error.into());
                } else {
                    pending.handle_error(error);
                }
            }
            (b'S', _) => self.handle_parameter(body)?,
            (b'K', _) => (self.pid, self.key) = message::backend_key_data(body)?,
            (b'Z', _) => self.handle_ready(body)?,
            (_, SessionState::Busy(in_flight)) => in_flight.handle_message(tag, body, size, &mut pending.transmit)?,
            // NegotiateProtocolVersion: the server does not support a minor version or an option. The client uses none.
            _ => {}
        }
        Ok(())
    }

    fn handle_parameter(&mut self, body: &[u8]) -> Result<(), Error> {
        let (name, value) = message::parameter_status(body)?;
        // Text that is quoted for one encoding is not safe in another.
        let is_safe = |value| encoding::is_utf8(value) || encoding::is_sql_ascii(value) && self.is_sql_ascii();
        if name == "client_encoding" && !is_safe(&value) {
            return Err(ProtocolError::Encoding(value.into()).into());
        }
        self.is_unshared = true;
        if !self.parameters.set(&name, &value) {
            let reason = "it exceeds the limit for the number or the size of parameters";
            return Err(ProtocolError::Malformed { message: "ParameterStatus", reason }.into());
        }
        Ok(())
    }

    fn handle_ready(&mut self, body: &[u8]) -> Result<(), Error> {
        self.pending.get_or_insert_default().forget_error();
        let before = self.status;
        self.status = match body {
            b"I" => TransactionStatus::Idle,
            b"T" => TransactionStatus::InTransaction,
            b"E" => TransactionStatus::Failed,
            _ => {
                let reason = "its transaction status is not I, T or E";
                return Err(ProtocolError::Malformed { message: "ReadyForQuery", reason }.into());
            }
        };
        match mem::take(&mut self.pending.get_or_insert_default().state) {
            SessionState::Busy(in_flight) => self.finish(*in_flight, before),
            SessionState::Login(_) if self.needs_sql_ascii() => self.request_sql_ascii(true),
            SessionState::Login(_) => self.pending.get_or_insert_default().outputs.push_back(Output::Ready),
            // `admit` has rejected the message.
            SessionState::Idle => {}
            closed @ SessionState::Closed(_) => self.pending.get_or_insert_default().state = closed,
        }
        self.send_next();
        Ok(())
    }

    /// Completes a request whose answer has been received: updates the state and reports the reply.
    fn finish(&mut self, mut done: InFlight, before: TransactionStatus) {
        let is_open = self.status != TransactionStatus::Idle;
        let in_transaction = before != TransactionStatus::Idle || is_open;
        let (has_ended, is_rolled_back) = (!is_open || done.has_ended_transaction(), done.is_rolled_back());
        self.has_new_transaction |= is_open && (before == TransactionStatus::Idle || has_ended);
        let limits = self.limits();
        let requests = &mut self.pending.get_or_insert_default().requests;
        if !in_transaction && done.can_be_retried() {
            requests.push_front(QueuedRequest { is_retry: true, ..done.queued });
            requests.push_front(QueuedRequest::own(Request::ReadQueueTail));
            return;
        }
        if let Some(request) = done.check_warning(in_transaction) {
            requests.push_front(QueuedRequest { id: done.queued.id, request, is_retry: true });
            return;
        }
        done.confirm();
        let is_undone = done.must_be_undone();
        let result = done.result(limits);
        let QueuedRequest { id, request, .. } = done.queued;
        let completes_login = matches!(request, Request::UseSqlAscii { at_login: true });
        let is_own = matches!(request, Request::ReadChannels | Request::UseSqlAscii { .. });
        match request {
            Request::Listen(names) if is_undone => self.undo_listen(names),
            request => self.learn(request, &result, in_transaction),
        }
        if has_ended && let Some(pending) = &mut self.pending {
            pending.listens.end_transaction(is_rolled_back);
        }
        // At most once for each request of the caller, because the server may reject them every time.
        if !is_own && !is_undone && !is_open {
            if self.is_stale() {
                self.request_next(Request::ReadChannels);
            }
            // A reset of all settings, or a rollback, has changed the encoding.
            if self.needs_sql_ascii() {
                self.request_sql_ascii(false);
            }
        }
        if !self.is_stale()
            && let Some(request) = self.next_canary_request_outside()
        {
            self.request_next(request);
        }
        let outputs = &mut self.pending.get_or_insert_default().outputs;
        outputs.extend(completes_login.then_some(Output::Ready));
        outputs.extend(id.map(|id| Output::Reply(id, result)));
    }

    /// Updates channels and canary after a request was answered.
    fn learn(&mut self, request: Request, result: &Result<Reply, Error>, in_transaction: bool) {
        let mut probe = self.probe.as_deref_mut();
        if let Some(probe) = &mut probe {
            probe.handle_answer(&request, result, in_transaction);
        }
        let listens = &mut self.pending.get_or_insert_default().listens;
        match listens.learn(&mut self.channels, probe, request, result, in_transaction) {
            // An audit that finds no difference does not make the channels unshared.
            Ok(has_changed) => self.is_unshared |= has_changed,
            Err(error) => self.close(error),
        }
    }

    /// Undoes a LISTEN of which the server has truncated a name, or which it has ignored.
    fn undo_listen(&mut self, names: Vec<Box<str>>) {
        let wrong = names.into_iter().filter(|name| !self.channels.contains(name)).collect();
        let right = self.channels.iter().map(Box::from).collect();
        self.request_next(Request::UndoListen(wrong, right));
    }

    /// Queues a request of the session itself before all others.
    fn request_next(&mut self, request: Request) {
        self.pending.get_or_insert_default().requests.push_front(QueuedRequest::own(request));
    }

    fn is_sql_ascii(&self) -> bool {
        self.parameter("server_encoding").is_some_and(encoding::is_sql_ascii)
    }

    /// Returns `true` if the client's encoding must be set to SQL_ASCII, as the database's: otherwise a notification that
    /// is not UTF-8 would end the session.
    fn needs_sql_ascii(&self) -> bool {
        self.is_sql_ascii() && !self.parameter("client_encoding").is_some_and(encoding::is_sql_ascii)
    }

    fn request_sql_ascii(&mut self, at_login: bool) {
        self.request_next(Request::UseSqlAscii { at_login });
    }

    // ---- the end ----------------------------------------------------------------------------------------------

    /// Ends the session.
    pub(super) fn close(&mut self, reason: Error) {
        if !self.is_closed() {
            self.pending.get_or_insert_default().close(reason);
        }
    }

    /// Ends the session with a Terminate message.
    pub(super) fn terminate(&mut self) {
        if !self.is_closed() {
            frontend::terminate(&mut self.pending.get_or_insert_default().transmit);
            self.close(Error::Closed);
        }
    }

    /// Returns the error that the server sent before the connection was lost. `partial` is an incomplete frame.
    pub(super) fn final_error(&mut self, partial: Option<&[u8]>) -> Option<ServerError> {
        let login = self.early_login();
        let is_early = login.is_some();
        login
            .and_then(|login| login.plain_error.as_deref().map(plain_error::parse))
            .or_else(|| truncated_error(partial?, is_early))
            .or_else(|| self.pending.as_ref()?.final_error.clone())
    }

    /// Returns the login while the server has not authenticated the client.
    fn early_login(&mut self) -> Option<&mut SessionLogin> {
        match &mut self.pending.as_mut()?.state {
            SessionState::Login(login) if !login.exchange.is_authenticated() => Some(login),
            _ => None,
        }
    }

    /// Handles `rest` if an error in plain text begins there, which can only be the first thing that the server sends.
    /// Returns `false` if none does.
    pub(super) fn begin_plain_error(&mut self, rest: &[u8]) -> bool {
        let (Some((b'E', text)), Some(login)) = (rest.split_first(), self.early_login()) else { return false };
        if !plain_error::is_text(text) {
            return false;
        }
        login.plain_error = Some(Vec::new());
        self.continue_plain_error(text)
    }

    /// Handles `rest` if an error in plain text has begun. Returns `false` if none has.
    #[inline]
    pub(super) fn continue_plain_error(&mut self, rest: &[u8]) -> bool {
        let Some(text) = self.early_login().and_then(|login| login.plain_error.as_mut()) else { return false };
        text.extend_from_slice(rest);
        if let Some(error) = plain_error::whole(text) {
            self.close(error.into());
        }
        true
    }
}
