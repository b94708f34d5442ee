//! What each message of the server means to a session.

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use super::{Session, SessionLogin, SessionState, TransactionStatus};
use crate::config::ChannelBinding;
use crate::error::{Error, ProtocolError, ServerError};
use crate::notification::NOTIFICATION;
use crate::proto::auth::{Credentials, Progress};
use crate::proto::encoding;
use crate::proto::frame::{HEADER, MessageKind};
use crate::proto::message;
use crate::proto::request::InFlight;

impl Session {
    /// Whether a message of this type may come now.
    #[inline]
    pub(super) fn admit(&self, tag: u8) -> Result<(), ProtocolError> {
        let when = match (self.state(), tag) {
            (SessionState::Closed(_), _) | (_, b'N' | b'E') | (SessionState::Login(_), b'R' | b'v') => return Ok(()),
            (SessionState::Login(login), _) if !login.authenticated => "before the login",
            (_, NOTIFICATION | b'S') | (SessionState::Login(_), b'K' | b'Z') => return Ok(()),
            (SessionState::Login(_), _) => "before it was ready",
            (SessionState::Idle, _) => "with nothing asked",
            (SessionState::Busy(_), b'C' | b'D' | b'G' | b'H' | b'I' | b'T' | b'Z' | b'c' | b'd') => return Ok(()),
            (SessionState::Busy(_), b'W') => "to a client that doesn't replicate",
            (SessionState::Busy(_), _) => "as an answer to a query",
        };
        Err(unexpected(tag, when))
    }

    /// Handles a frame of `total` bytes, of which so many are there as are kept.
    pub(super) fn handle_message(&mut self, frame: &[u8], total: usize) {
        let Some((header, body)) = frame.split_first_chunk::<HEADER>() else { return };
        if let Err(error) = self.try_handle_message(header[0], body, total - HEADER) {
            self.fail(error);
        }
        self.drop_if_empty();
    }

    fn try_handle_message(&mut self, tag: u8, body: &[u8], size: usize) -> Result<(), Error> {
        self.admit(tag)?;
        let pending = self.pending.get_or_insert_default();
        match (tag, &mut pending.state) {
            (b'N', _) => self.handle_notice(message::server_error(body)),
            (b'R', SessionState::Login(login)) => {
                let SessionLogin { exchange, user, config, binding, authenticated, .. } = &mut **login;
                let credentials = Credentials {
                    user,
                    password: config.get_password(),
                    allowed: config.auth_methods(),
                    binding_required: config.get_channel_binding() == ChannelBinding::Require,
                    binding,
                };
                let before = pending.transmit.len();
                match exchange.handle_message(body, &credentials, &mut pending.transmit) {
                    Ok(Progress::Authenticated) => *authenticated = true,
                    Ok(Progress::Continue) => {}
                    Err(error) => {
                        pending.transmit.truncate(before);
                        return Err(error);
                    }
                }
            }
            (b'E', SessionState::Login(_)) => self.close(message::server_error(body).into()),
            (b'E', _) => self.handle_error(message::server_error(body)),
            (b'S', _) => self.handle_parameter(body)?,
            (b'K', _) => (self.pid, self.key) = message::backend_key_data(body)?,
            (b'Z', _) => self.handle_ready(body)?,
            (_, SessionState::Busy(in_flight)) => {
                handle_answer(tag, body, size, in_flight, &mut pending.transmit)?;
            }
            // A NegotiateProtocolVersion: a server without some minor version or option of ours says so and goes on;
            // we ask for none.
            _ => {}
        }
        Ok(())
    }

    fn handle_notice(&mut self, notice: ServerError) {
        let pending = self.pending.get_or_insert_default();
        if let SessionState::Busy(in_flight) = &mut pending.state {
            in_flight.note(&notice);
        }
        pending.keep_notice(notice);
    }

    fn handle_error(&mut self, error: ServerError) {
        if error.is_fatal() {
            self.close(error.into());
            return;
        }
        let pending = self.pending.get_or_insert_default();
        pending.keep_error(&error);
        if let SessionState::Busy(in_flight) = &mut pending.state {
            in_flight.error.get_or_insert(error);
        } else {
            // An error that answers nothing and ends nothing: told, like a notice.
            self.handle_notice(error);
        }
    }

    fn handle_parameter(&mut self, body: &[u8]) -> Result<(), Error> {
        let (name, value) = message::parameter_status(body)?;
        // What is quoted for one encoding is not safe in another.
        let is_safe = |value| encoding::is_utf8(value) || encoding::is_sql_ascii(value) && self.knows_no_encoding();
        if name == "client_encoding" && !is_safe(&value) {
            return Err(ProtocolError::Encoding(value.into()).into());
        }
        self.unshared = true;
        if !self.parameters.set(&name, &value) {
            let reason = "it names more, or tells more of it, than the fifteen parameters that a server reports";
            return Err(ProtocolError::Malformed { message: "ParameterStatus", reason }.into());
        }
        Ok(())
    }

    fn handle_ready(&mut self, body: &[u8]) -> Result<(), Error> {
        if let Some(pending) = &mut self.pending {
            pending.forget_error();
        }
        let before = self.status;
        self.status = match body {
            b"I" => TransactionStatus::Idle,
            b"T" => TransactionStatus::InTransaction,
            b"E" => TransactionStatus::Failed,
            _ => {
                return Err(ProtocolError::Malformed {
                    message: "ReadyForQuery",
                    reason: "its transaction status is none of I, T and E",
                }
                .into());
            }
        };
        match self.pending.as_mut().map(|pending| std::mem::take(&mut pending.state)).unwrap_or_default() {
            SessionState::Login(_) if self.must_take_bytes() => self.take_bytes(),
            SessionState::Login(_) => self.become_ready(),
            SessionState::Busy(in_flight) => self.finish(*in_flight, before),
            // Refused as it came.
            SessionState::Idle => {}
            // After the end.
            closed @ SessionState::Closed(_) => self.pending.get_or_insert_default().state = closed,
        }
        self.send_next();
        Ok(())
    }
}

/// What a server answers to a query, up to its ReadyForQuery: a message of `size` bytes, of which `body` was kept.
fn handle_answer(
    tag: u8,
    body: &[u8],
    size: usize,
    in_flight: &mut InFlight,
    transmit: &mut BytesMut,
) -> Result<(), Error> {
    match tag {
        b'T' => in_flight.columns = Some(message::row_description(body)?),
        b'D' => {
            let columns = in_flight.columns.ok_or_else(|| unexpected(tag, "before a RowDescription"))?;
            if size == body.len() {
                in_flight.push_row(message::data_row(body, columns)?);
            } else {
                in_flight.pass_over_row(size);
            }
        }
        b'C' => {
            in_flight.columns = None;
            let (tag, affected) = message::command_complete(body)?;
            in_flight.note_tag(tag);
            in_flight.reply.affected = in_flight.reply.affected.saturating_add(affected);
        }
        b'G' => {
            // The refusal fails the query, so nothing of it comes after.
            if std::mem::replace(&mut in_flight.copy_refused, true) {
                return Err(unexpected(tag, "again after it was refused").into());
            }
            frontend::copy_fail("this client sends no COPY data", transmit)
                .map_err(|e| Error::io("refusing to send COPY data", e))?;
        }
        // An empty query; and COPY TO STDOUT, whose data nobody asked to keep.
        _ => {}
    }
    Ok(())
}

fn unexpected(tag: u8, when: &'static str) -> ProtocolError {
    let message = MessageKind::of(tag).map_or("a message", |kind| kind.name);
    ProtocolError::Unexpected { message, when }
}
