//! The messages of the server and the requests of the client.

use std::collections::BTreeSet;
use std::mem;

use postgres_protocol::message::frontend;

use super::marks::ConversationMarks;
use super::output::{Output, TransactionStatus};
use super::pending::PendingIo;
use super::probe::CanaryProbe;
use super::requests::{InFlight, QueuedRequest, RequestCounter};
use super::state::{SessionLogin, SessionState};
use crate::config::Config;
use crate::error::{Error, ProtocolError, ServerError};
use crate::proto::auth::Binding;
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
    pub(super) key: i32,
    last_id: RequestCounter,
    pub(super) status: TransactionStatus,
    /// `true` if channels or parameters have changed since they were shared.
    pub(super) is_unshared: bool,
    pub(super) marks: ConversationMarks,
}

impl Conversation {
    pub(super) fn new(config: &Config, binding: Binding) -> Result<Self, Error> {
        let mut pending = Box::<PendingIo>::default();
        let parameters = config.startup_parameters()?;
        pending.transmit.reserve(USUAL_STARTUP);
        frontend::startup_message(parameters.iter().map(|(name, value)| (*name, &**value)), &mut pending.transmit)
            .map_err(|e| Error::io("writing the startup packet", e))?;
        pending.state = SessionState::Login(Box::new(SessionLogin::new(config, binding)));
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
            marks: ConversationMarks::default(),
        })
    }

    // ---- requests ---------------------------------------------------------------------------------------------

    /// Sends a request to the server. `Session::poll` returns the reply.
    pub(super) fn request(&mut self, request: Request) -> RequestId {
        let id = self.last_id.next();
        self.enqueue(Some(id), request);
        id
    }

    /// Sends a request to the server, and discards the reply if it has no id.
    pub(super) fn enqueue(&mut self, id: Option<RequestId>, request: Request) {
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
    pub(super) fn unanswered_requests(&self) -> impl Iterator<Item = &QueuedRequest> {
        self.pending.iter().flat_map(|pending| pending.unanswered())
    }

    // ---- state ------------------------------------------------------------------------------------------------

    #[inline]
    pub(super) fn state(&self) -> &SessionState {
        self.pending.as_ref().map_or(&SessionState::Idle, |pending| &pending.state)
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.state(), SessionState::Closed(_))
    }

    /// Returns the reason why the session is closed.
    pub(crate) fn error(&self) -> Option<&Error> {
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

    /// Returns `true` if the request in flight is one that the server answers immediately, if it is alive.
    pub(crate) fn awaits_immediate_answer(&self) -> bool {
        self.state().in_flight().is_some_and(|in_flight| in_flight.queued.request.is_answered_immediately())
    }

    /// Returns the transaction status that the server reported last.
    pub(crate) fn transaction_status(&self) -> TransactionStatus {
        self.status
    }

    /// Returns `true` if another transaction has begun since the last call.
    pub(crate) fn take_new_transaction(&mut self) -> bool {
        self.marks.take_new_transaction()
    }

    /// Returns the id of the server process.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
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

    // ---- channels ---------------------------------------------------------------------------------------------

    /// Returns the channels that the session listens to, as far as is known, in order.
    pub(crate) fn channels(&self) -> impl Iterator<Item = &str> {
        self.channels.iter()
    }

    fn is_stale(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.listens.is_stale)
    }

    // ---- the canary -------------------------------------------------------------------------------------------

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
    pub(super) fn next_canary_request(&mut self) -> Option<Request> {
        if self.is_quiet() { self.next_canary_request_outside() } else { None }
    }

    /// Returns the next request for the canary channel, if the session is outside a transaction.
    fn next_canary_request_outside(&mut self) -> Option<Request> {
        let probe = self.probe.as_mut().filter(|_| self.status == TransactionStatus::Idle)?;
        let request = probe.next_request(&self.channels);
        self.probe.take_if(|probe| probe.channel().is_none());
        request
    }

    // ---- reading and taking, which sends nothing ---------------------------------------------------------------

    /// Returns the notices that have not been taken, the oldest first.
    pub(crate) fn notices(&self) -> impl Iterator<Item = &ServerError> {
        self.pending.iter().flat_map(|pending| &pending.notices)
    }

    /// Takes all notices, the oldest first.
    pub(crate) fn take_notices(&mut self) -> Vec<ServerError> {
        self.with_pending(|pending| mem::take(&mut pending.notices)).into()
    }

    /// Takes the reply to a request, if it was answered. Other replies stay.
    pub(crate) fn take_reply(&mut self, of: RequestId) -> Option<Result<Reply, Error>> {
        self.with_pending(|pending| {
            let at = pending.outputs.iter().position(|output| matches!(output, Output::Reply(id, _) if *id == of))?;
            let Some(Output::Reply(_, reply)) = pending.outputs.remove(at) else { return None };
            Some(reply)
        })
    }

    /// Returns `true` if this request was sent and is not answered.
    pub(crate) fn is_in_flight(&self, request: RequestId) -> bool {
        self.state().in_flight().is_some_and(|in_flight| in_flight.queued.id == Some(request))
    }

    /// Returns `true` if this request has not been sent.
    pub(crate) fn is_waiting(&self, request: RequestId) -> bool {
        let mut waiting = self.pending.iter().flat_map(|pending| &pending.requests);
        waiting.any(|queued| queued.id == Some(request))
    }

    /// Withdraws a request that has not been sent. Returns `false` if it was sent.
    pub(crate) fn withdraw(&mut self, request: RequestId) -> bool {
        let Some(pending) = &mut self.pending else { return false };
        let before = pending.requests.len();
        pending.requests.retain(|queued| queued.id != Some(request));
        pending.requests.len() < before
    }

    /// Returns `true` if requests are not sent now.
    pub(crate) fn is_paused(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.is_paused)
    }

    /// Stops sending requests. The answer to the request in flight is still received.
    pub(crate) fn pause(&mut self) {
        self.pending.get_or_insert_default().is_paused = true;
    }

    // ---- channels ---------------------------------------------------------------------------------------------

    /// Returns every channel that the session may be listening to, in order: also those of LISTENs that succeeded since
    /// the server last listed the channels, and may have been rolled back.
    pub(crate) fn possible_channels(&self) -> impl Iterator<Item = &str> {
        let unconfirmed = self.pending.iter().flat_map(|pending| pending.listens.unconfirmed());
        self.channels.iter().chain(unconfirmed).collect::<BTreeSet<_>>().into_iter()
    }

    /// Returns `true` while the session reads its channels from the server, because a query may have changed them.
    pub(crate) fn is_reading_channels(&self) -> bool {
        // Only requests of the session itself are before it in the queue.
        self.unanswered_requests().take(2).any(|queued| matches!(queued.request, Request::ReadChannels))
    }

    /// Takes the channels that an audit has found missing.
    pub(crate) fn take_missed_channels(&mut self) -> Vec<Box<str>> {
        self.with_pending(|pending| mem::take(&mut pending.listens.missed))
    }

    // ---- the canary -------------------------------------------------------------------------------------------

    /// Returns the state of the canary channel, once the session has joined one.
    #[inline]
    pub(crate) fn probe(&self) -> Option<&CanaryProbe> {
        self.probe.as_deref()
    }

    pub(crate) fn probe_mut(&mut self) -> Option<&mut CanaryProbe> {
        self.probe.as_deref_mut()
    }

    /// Returns `true` if the server listens to the canary channel, and no request is in flight that may change that.
    pub(crate) fn has_joined_canary(&self) -> bool {
        self.probe.as_ref().is_some_and(|probe| probe.has_joined()) && self.is_quiet()
    }

    /// Expects a canary with this payload, if the session has joined the canary channel.
    pub(crate) fn expect_canary(&mut self, payload: &str) {
        let has_joined = self.has_joined_canary();
        if let Some(probe) = &mut self.probe {
            probe.expect(has_joined.then_some(payload));
        }
    }

    /// Marks the next request as one that is sent to an idle session, whose socket had nothing to read, after the expected
    /// canary was committed.
    pub(crate) fn begin_canary_audit(&mut self) {
        let is_idle = matches!(self.state(), SessionState::Idle);
        if let Some(probe) = &mut self.probe {
            probe.begin_audit(is_idle);
        }
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
        self.state().admit(tag)?;
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
            SessionState::Login(_) if self.needs_sql_ascii() => {
                self.request_next(Request::UseSqlAscii { at_login: true })
            }
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
        self.marks.note_transaction(is_open && (before == TransactionStatus::Idle || has_ended));
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
        let (is_undone, result) = (done.must_be_undone(), done.result(limits));
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
                self.request_next(Request::UseSqlAscii { at_login: false });
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
        let before =
            if self.marks.tracks_unlistens() { super::listens::affected(&self.channels, &request) } else { Vec::new() };
        if let Some(probe) = &mut self.probe {
            probe.handle_answer(&request, result, in_transaction);
        }
        let listens = &mut self.pending.get_or_insert_default().listens;
        match listens.learn(&mut self.channels, self.probe.as_deref_mut(), request, result, in_transaction) {
            // An audit that finds no difference does not make the channels unshared.
            Ok(has_changed) => self.is_unshared |= has_changed,
            Err(error) => self.close(error),
        }
        self.pending.get_or_insert_default().listens.note_unlistened(before, &self.channels);
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

    /// Returns the login while the server has not authenticated the client.
    pub(super) fn early_login(&mut self) -> Option<&mut SessionLogin> {
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
