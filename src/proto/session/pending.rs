//! What a session has to say, and what it has been told and nobody has heard yet: nothing, while it waits for news.

use std::collections::{BTreeSet, VecDeque};

use bytes::BytesMut;

use super::{Output, SessionEnd, SessionState};
use crate::error::{Error, ServerError};
use crate::proto::listen_scan;
use crate::proto::request::{QueuedRequest, Reply, Request, RequestId, Requests};

/// How many notices are kept until somebody takes them; the oldest go first.
const NOTICES_MAX: usize = 64;

/// The cold part of a [`Session`](super::Session).
#[derive(Debug, Default)]
pub(super) struct PendingIo {
    pub(super) state: SessionState,
    /// What is to be sent.
    pub(super) transmit: BytesMut,
    /// What is to be asked after the request that is under way.
    pub(super) requests: Requests,
    pub(super) outputs: VecDeque<Output>,
    pub(super) notices: VecDeque<ServerError>,
    /// The reason of a loss, if the connection ends before the server sends more: the last error, or the WARNING 57P0x
    /// of a server that is shutting down.
    pub(super) final_error: Option<ServerError>,
    /// Of what is listened to, what an audit has found missing; and what of it is listened to again.
    pub(super) lost: Vec<Box<str>>,
    pub(super) relistened: Vec<Box<str>>,
    /// Channels of LISTENs in the open transaction, which count if it is committed.
    pub(super) uncommitted: BTreeSet<Box<str>>,
    /// Channels of LISTENs by a query, or in a transaction that may have been committed: whether they count is not known
    /// until the server has been asked.
    pub(super) unconfirmed: BTreeSet<Box<str>>,
    /// `true` while no request may be sent.
    pub(super) paused: bool,
    last_id: u64,
}

impl PendingIo {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self.state, SessionState::Idle)
            && self.transmit.is_empty()
            && self.requests.is_empty()
            && self.outputs.is_empty()
            && self.notices.is_empty()
            && self.final_error.is_none()
            && self.lost.is_empty()
            && self.relistened.is_empty()
            && self.uncommitted.is_empty()
            && self.unconfirmed.is_empty()
            && !self.paused
    }

    /// A number that no other request has as long as there is anything here.
    pub(super) fn next_id(&mut self) -> RequestId {
        self.last_id += 1;
        RequestId(self.last_id)
    }

    /// The reply to one request, if it has come; those to others stay.
    pub(super) fn take_reply(&mut self, of: RequestId) -> Option<Result<Reply, Error>> {
        let is_it = |output: &Output| matches!(output, Output::Reply(id, _) if *id == of);
        match self.outputs.remove(self.outputs.iter().position(is_it)?) {
            Some(Output::Reply(_, reply)) => Some(reply),
            _ => None,
        }
    }

    /// Ends it for this reason, which is the answer to whatever is unanswered.
    pub(super) fn end(&mut self, reason: Error) {
        let closed = SessionState::Closed(Box::new(SessionEnd { reason: reason.clone(), told: false }));
        let in_flight = match std::mem::replace(&mut self.state, closed) {
            SessionState::Busy(in_flight) => Some(in_flight.request),
            _ => None,
        };
        let commits =
            |request: &QueuedRequest| matches!(&request.ask, Request::Query(text) if listen_scan::may_commit(text));
        if in_flight.as_ref().is_some_and(commits) {
            self.unconfirmed.append(&mut self.uncommitted);
        }
        for request in in_flight.into_iter().chain(std::mem::take(&mut self.requests)) {
            if let Some(id) = request.id {
                self.outputs.push_back(Output::Reply(id, Err(reason.clone())));
            }
        }
    }

    /// Nobody waits for the answers any more.
    pub(super) fn discard_replies(&mut self) {
        if let SessionState::Busy(in_flight) = &mut self.state {
            in_flight.request.id = None;
        }
        self.outputs.retain(|output| !matches!(output, Output::Reply(..)));
        self.requests.iter_mut().for_each(|request| request.id = None);
    }

    /// Keeps a notice, and remembers the last words of a server before the link breaks: crash_shutdown and friends.
    pub(super) fn keep_notice(&mut self, notice: ServerError) {
        if is_shutdown(&notice) {
            self.final_error = Some(notice.clone());
        }
        if self.notices.len() == NOTICES_MAX {
            self.notices.pop_front();
        }
        self.notices.push_back(notice);
    }

    /// Keeps an error, which is the reason of the loss if the connection ends before a ReadyForQuery.
    pub(super) fn keep_error(&mut self, error: &ServerError) {
        self.final_error = Some(ServerError { was_last: true, ..error.clone() });
    }

    /// Drops the error at a ReadyForQuery. The warning of a server that is shutting down stays.
    pub(super) fn forget_error(&mut self) {
        self.final_error = self.final_error.take().filter(is_shutdown);
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn held_bytes(&self) -> usize {
        let replies = self.outputs.iter().filter_map(|output| match output {
            Output::Reply(_, Ok(reply)) => Some(reply),
            _ => None,
        });
        let in_flight = match &self.state {
            SessionState::Busy(in_flight) => Some(&in_flight.reply),
            _ => None,
        };
        let replies = replies.chain(in_flight);
        let rows = replies.flat_map(|reply| &reply.rows).map(crate::row::Row::held_bytes);
        let notices = self.notices.iter().chain(&self.final_error).map(ServerError::held_bytes);
        self.transmit.len() + rows.chain(notices).sum::<usize>()
    }
}

fn is_shutdown(notice: &ServerError) -> bool {
    notice.severity() == "WARNING" && notice.code().starts_with("57P0")
}
