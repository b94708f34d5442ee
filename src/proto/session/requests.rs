//! The requests in the queue, and the one that was sent.
//!
//! Only one request is in flight at a time, because the answer to a LISTEN determines what is sent next.

use std::mem;

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use crate::error::{Error, ServerError, ValueError};
use crate::proto::frame::{ROW_MAX, unexpected};
use crate::proto::message;
use crate::proto::request::{ListenConfirmation, Reply, Request, RequestId};
use crate::proto::sql;
use crate::row::Row;

/// The largest answer to a query that is stored, in bytes.
pub(super) const ANSWER_MAX: usize = 64 * 1024 * 1024;

/// The SQLSTATE of a statement that a standby rejects.
const READ_ONLY: &str = "25006";
/// The SQLSTATE of a channel name that is too long.
const TOO_LONG: &str = "22023";

/// A request in the queue or in flight.
#[derive(Debug, Default)]
pub(super) struct QueuedRequest {
    /// The id to report the reply with. `None` if the reply is discarded.
    pub(super) id: Option<RequestId>,
    pub(super) request: Request,
    /// `true` for the second attempt of a LISTEN that failed.
    pub(super) is_retry: bool,
}

impl QueuedRequest {
    /// Creates a request of the session itself, whose reply is discarded.
    pub(super) fn own(request: Request) -> Self {
        Self { request, ..Self::default() }
    }
}

/// The number of the last request, in 40 bits to keep an idle session small. A connection with 50,000 requests a second
/// reaches the end after 250 days; an id is then used again, long after the request was answered.
#[derive(Debug, Default)]
pub(super) struct RequestCounter([u8; 5]);

impl RequestCounter {
    pub(super) fn next(&mut self) -> RequestId {
        let [a, b, c, d, e] = self.0;
        let next = u64::from_le_bytes([a, b, c, d, e, 0, 0, 0]) + 1;
        let [a, b, c, d, e, ..] = next.to_le_bytes();
        self.0 = [a, b, c, d, e];
        RequestId(next)
    }
}

/// The request in flight, and the part of its answer that has been received.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    pub(super) queued: QueuedRequest,
    pub(super) reply: Reply,
    /// The number of columns that the last RowDescription announced.
    columns: Option<usize>,
    /// The size of the rows in memory.
    answer_size: usize,
    /// The reason why the answer is not stored.
    too_long: Option<String>,
    is_copy_refused: bool,
    /// The first error. The server skips the rest of the request after it.
    error: Option<ServerError>,
    /// The notice that the server truncated a channel name (42622).
    name_cut: Option<ServerError>,
    /// `true` if, by the command tags, a transaction was committed or rolled back, or began after a rollback.
    commits: bool,
    rolls_back: bool,
    begins_again: bool,
    /// A warning in answer to LISTEN: the server may not listen.
    warning: Option<ServerError>,
    /// The warning, once it is certain that the server does not listen.
    ignored: Option<ServerError>,
}

impl InFlight {
    pub(super) fn new(queued: QueuedRequest) -> Self {
        Self { queued, ..Self::default() }
    }

    // ---- the answer -------------------------------------------------------------------------------------------

    /// Handles a message of `size` bytes in the answer, of which `body` was stored.
    pub(super) fn handle_message(
        &mut self,
        tag: u8,
        body: &[u8],
        size: usize,
        transmit: &mut BytesMut,
    ) -> Result<(), Error> {
        match tag {
            b'T' => self.columns = Some(message::row_description(body)?),
            b'D' => {
                let columns = self.columns.ok_or_else(|| unexpected(tag, "before a RowDescription"))?;
                if size == body.len() {
                    self.push_row(message::data_row(body, columns)?);
                } else {
                    self.drop_answer(format!("has a row of {size} bytes, but the limit is {ROW_MAX}"));
                }
            }
            b'C' => {
                self.columns = None;
                let (tag, affected) = message::command_complete(body)?;
                self.note_tag(tag);
                self.reply.affected = self.reply.affected.saturating_add(affected);
            }
            b'G' => {
                // The refusal makes the query fail, so nothing of it may follow.
                if mem::replace(&mut self.is_copy_refused, true) {
                    return Err(unexpected(tag, "again after it was refused").into());
                }
                frontend::copy_fail("this client sends no COPY data", transmit)
                    .map_err(|e| Error::io("refusing to send COPY data", e))?;
            }
            // An empty query, or COPY TO STDOUT, whose data is not stored.
            _ => {}
        }
        Ok(())
    }

    /// Records the first error of the answer.
    pub(super) fn handle_error(&mut self, error: &ServerError) {
        self.error.get_or_insert_with(|| error.clone());
    }

    /// Records a notice in answer to LISTEN.
    pub(super) fn handle_notice(&mut self, notice: &ServerError) {
        if self.queued.request.listens_to().is_none() {
            return;
        }
        if notice.code() == "42622" {
            self.name_cut = Some(notice.clone());
        } else if is_unsupported(notice) || notice.severity() == "WARNING" && !notice.code().starts_with("57") {
            self.warning.get_or_insert_with(|| notice.clone());
        }
    }

    /// Records the tag of a completed command.
    fn note_tag(&mut self, tag: &[u8]) {
        match tag {
            b"COMMIT" | b"PREPARE TRANSACTION" => self.commits = true,
            // ROLLBACK TO SAVEPOINT has the same tag.
            b"ROLLBACK" => self.rolls_back = true,
            b"BEGIN" | b"START TRANSACTION" => self.begins_again |= self.rolls_back,
            _ => {}
        }
    }

    /// Stores a row, unless the answer is too long.
    fn push_row(&mut self, row: Row) {
        self.answer_size = self.answer_size.saturating_add(row.held_bytes());
        if self.answer_size > ANSWER_MAX {
            self.drop_answer(format!("takes more than {ANSWER_MAX} bytes, which is the limit"));
        } else if self.too_long.is_none() {
            self.reply.rows.push(row);
        }
    }

    fn drop_answer(&mut self, reason: String) {
        self.reply.rows = Vec::new();
        self.too_long.get_or_insert(reason);
    }

    // ---- after the answer -------------------------------------------------------------------------------------

    /// Returns `true` if every transaction that has ended was rolled back.
    pub(super) fn is_rolled_back(&self) -> bool {
        self.rolls_back && !self.commits
    }

    /// Returns `true` if a transaction that is open now began after the request.
    pub(super) fn has_ended_transaction(&self) -> bool {
        let chains =
            || matches!(&self.queued.request, Request::Query(text) if text.to_ascii_uppercase().contains("CHAIN"));
        self.commits || self.begins_again || self.rolls_back && chains()
    }

    /// Returns `true` if the request is a LISTEN that failed for the first time with the server's bug 58P01.
    pub(super) fn can_be_retried(&self) -> bool {
        !self.queued.is_retry
            && matches!(self.queued.request, Request::Listen(_) | Request::Relisten(_) | Request::ListenCanary(_))
            && self.error.as_ref().is_some_and(|error| error.code() == "58P01")
    }

    /// Handles a LISTEN that was answered with a warning. Returns the request that checks whether the server listens, if
    /// that is necessary and possible.
    pub(super) fn check_warning(&mut self, in_transaction: bool) -> Option<Request> {
        let warning = self.warning.take().filter(|_| self.error.is_none() && self.name_cut.is_none())?;
        if is_unsupported(&warning) {
            self.ignored = Some(warning);
        } else if !in_transaction {
            let request = mem::take(&mut self.queued.request);
            let reply = mem::take(&mut self.reply);
            return Some(Request::ConfirmListen(Box::new(ListenConfirmation { request, reply, warning })));
        }
        None
    }

    /// Completes a LISTEN with its own reply after the check whether the server listens.
    pub(super) fn confirm(&mut self) {
        let Request::ConfirmListen(confirmation) = &mut self.queued.request else { return };
        let ListenConfirmation { request, reply, warning } = mem::take(&mut **confirmation);
        let listed = mem::replace(&mut self.reply, reply).rows;
        let is_listed = |name: &str| listed.iter().any(|row| row.get(0).is_some_and(|listed| listed == name));
        if self.error.take().is_some() || !request.listens_to().unwrap_or_default().iter().all(|name| is_listed(name)) {
            self.ignored = Some(warning);
        }
        self.queued.request = request;
    }

    /// Returns `true` if the LISTEN must be undone: the server truncated a name, or ignored the LISTEN. A request that
    /// failed needs no undo.
    pub(super) fn must_be_undone(&self) -> bool {
        self.error.is_none() && (self.name_cut.is_some() || self.ignored.is_some())
    }

    /// Takes the result of the request.
    pub(super) fn result(&mut self, limits: sql::Limits) -> Result<Reply, Error> {
        if let Some(error) = self.error.take() {
            return Err(explained(&self.queued.request, error, limits));
        }
        if let Some(warning) = self.ignored.take() {
            let hint =
                warning.hint.or_else(|| Some("the server does not support LISTEN: connect to one that does".into()));
            return Err(ServerError { hint, ..warning }.into());
        }
        if let Some(notice) = self.name_cut.take() {
            let message = format!(
                "a channel name is too long in the server's encoding ({}); the limit is 63 bytes: this call listens to \
                 no channel",
                notice.message()
            );
            return Err(ValueError { message }.into());
        }
        if let Some(reason) = self.too_long.take() {
            let message = format!("the query was executed, but its answer {reason}: query less at a time");
            return Err(Error::AnswerTooLong(message.into()));
        }
        Ok(mem::take(&mut self.reply))
    }
}

/// Adds the remedy to the error of a standby that rejects LISTEN, and the name to the error for one that is too long.
fn explained(request: &Request, error: ServerError, limits: sql::Limits) -> Error {
    match request {
        Request::Listen(names) | Request::Unlisten(names) if error.code() == TOO_LONG => {
            sql::too_long_for_server(names, limits)
        }
        Request::Listen(_) if error.code() == READ_ONLY && error.hint().is_none() => {
            let hint = "this server is a standby, which cannot LISTEN: set all servers as hosts, and \
                        target_session_attrs=primary";
            ServerError { hint: Some(hint.into()), ..error }.into()
        }
        _ => error.into(),
    }
}

/// Returns `true` if a server or proxy reports that a feature is not supported (class 0A).
fn is_unsupported(notice: &ServerError) -> bool {
    notice.code().starts_with("0A")
}
