//! The state of a session that exists only during an operation.

use std::collections::{BTreeSet, VecDeque};
use std::mem;

use bytes::BytesMut;

use super::listens::PendingListens;
use super::output::Output;
use super::requests::{InFlight, QueuedRequest};
use super::state::{SessionEnd, SessionState};
use crate::error::{Error, ServerError};
use crate::proto::channels::Channels;
use crate::proto::listen_scan;
use crate::proto::request::{Reply, Request};
use crate::proto::sql;

/// The largest number of notices that are kept until they are taken. The oldest are dropped first.
const NOTICES_MAX: usize = 64;

/// The part of a session that is empty while the session waits for notifications.
#[derive(Debug, Default)]
pub(super) struct PendingIo {
    pub(super) state: SessionState,
    /// The bytes to send.
    pub(super) transmit: BytesMut,
    /// The requests that have not been sent, in order.
    pub(super) requests: VecDeque<QueuedRequest>,
    /// `true` while no requests are sent.
    pub(super) is_paused: bool,
    pub(super) outputs: VecDeque<Output>,
    pub(super) notices: VecDeque<ServerError>,
    /// The reason of a loss, if the connection ends before the server sends anything else: the last error, or the warning
    /// 57P0x of a server that is shutting down.
    pub(super) final_error: Option<ServerError>,
    pub(super) listens: PendingListens,
}

impl PendingIo {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self.state, SessionState::Idle)
            && self.transmit.is_empty()
            && self.requests.is_empty()
            && !self.is_paused
            && self.outputs.is_empty()
            && self.notices.is_empty()
            && self.final_error.is_none()
            && self.listens.is_empty()
    }

    // ---- requests ---------------------------------------------------------------------------------------------

    /// Sends the next request, if none is in flight.
    pub(super) fn send_next(&mut self, channels: &Channels, limits: sql::Limits) {
        while matches!(self.state, SessionState::Idle)
            && !self.is_paused
            && let Some(mut queued) = self.requests.pop_front()
        {
            if let Request::Relisten(names) = &mut queued.request {
                // An earlier request may have removed some of them.
                let wanted: BTreeSet<&str> = channels.iter().collect();
                names.retain(|name| wanted.contains(&**name));
                if names.is_empty() {
                    self.outputs.extend(queued.id.map(|id| Output::Reply(id, Ok(Reply::default()))));
                    continue;
                }
            }
            let before = self.transmit.len();
            if let Err(error) = queued.request.encode(limits, &mut self.transmit) {
                // Only a query of the caller with a NUL, or of 2 GiB, cannot be encoded.
                self.transmit.truncate(before);
                self.outputs.extend(queued.id.map(|id| Output::Reply(id, Err(Error::io("writing a query", error)))));
            } else {
                self.state = SessionState::Busy(Box::new(InFlight::new(queued)));
            }
        }
    }

    /// Returns the next output; the end only if `is_drained`, that is if all notifications have been taken.
    pub(super) fn next_output(&mut self, is_drained: bool) -> Option<Output> {
        match &mut self.state {
            SessionState::Closed(end) if self.outputs.is_empty() && is_drained && !end.is_reported => {
                end.is_reported = true;
                Some(Output::Closed(end.reason.clone()))
            }
            _ => self.outputs.pop_front(),
        }
    }

    /// Returns the request in flight and the queued requests, in order.
    pub(super) fn unanswered(&self) -> impl Iterator<Item = &QueuedRequest> {
        self.state.in_flight().map(|in_flight| &in_flight.queued).into_iter().chain(self.requests.iter())
    }

    /// Ends the session. The reason is the reply to all unanswered requests.
    pub(super) fn close(&mut self, reason: Error) {
        let closed = SessionState::Closed(Box::new(SessionEnd { reason: reason.clone(), is_reported: false }));
        if let SessionState::Busy(in_flight) = mem::replace(&mut self.state, closed) {
            if matches!(&in_flight.queued.request, Request::Query(text) if listen_scan::may_commit(text)) {
                self.listens.end_transaction(false);
            }
            self.requests.push_front(in_flight.queued);
        }
        let ids = mem::take(&mut self.requests).into_iter().filter_map(|queued| queued.id);
        self.outputs.extend(ids.map(|id| Output::Reply(id, Err(reason.clone()))));
    }

    // ---- errors and notices -----------------------------------------------------------------------------------

    /// Stores a notice, and records the last words of a server that is shutting down.
    pub(super) fn handle_notice(&mut self, notice: ServerError) {
        if let SessionState::Busy(in_flight) = &mut self.state {
            in_flight.handle_notice(&notice);
        }
        if is_shutdown(&notice) {
            self.final_error = Some(notice.clone());
        }
        if self.notices.len() == NOTICES_MAX {
            self.notices.pop_front();
        }
        self.notices.push_back(notice);
    }

    /// Records an error that is not fatal. It is the reason of the loss if the connection ends before a ReadyForQuery.
    pub(super) fn handle_error(&mut self, error: ServerError) {
        self.final_error = Some(ServerError { was_last: true, ..error.clone() });
        match &mut self.state {
            SessionState::Busy(in_flight) => in_flight.handle_error(&error),
            // An error without a request is reported like a notice.
            _ => self.handle_notice(error),
        }
    }

    /// Drops the last error at a ReadyForQuery. The warning of a server that is shutting down stays.
    pub(super) fn forget_error(&mut self) {
        self.final_error = self.final_error.take().filter(is_shutdown);
    }
}

fn is_shutdown(notice: &ServerError) -> bool {
    notice.severity() == "WARNING" && notice.code().starts_with("57P0")
}
