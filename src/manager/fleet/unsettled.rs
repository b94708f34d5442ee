//! The unsettled state of a live connection: requests without an answer, a CancelRequest, an open transaction. An idle
//! connection has none.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::canary::MissedCanary;
use super::timers::Timer;
use super::turn::{TaskPurpose, Turn};
use crate::connection::{GRACE, Link, QUERY_CANCELED, Transport};
use crate::error::Error;
use crate::manager::command::RequestTicket;
use crate::proto::{Reply, RequestId};

/// The time limit of the fleet's own requests if calls have none.
pub(super) const LIMIT: Duration = Duration::from_secs(30);
/// The most CancelRequests in progress. A server with so many late requests is overloaded, and must not receive more
/// connections.
const CANCELS_MAX: usize = 64;

/// The origin of a request.
pub(super) enum RequestOrigin {
    Handle(RequestTicket),
    /// The fleet, to limit the time of a request that was in flight when the connection was inserted.
    Settle,
    /// The fleet, for the heartbeat.
    Heartbeat,
    /// The fleet, to listen to the canary's channel.
    JoinCanary,
    /// The fleet, to send a canary.
    Canary,
    /// The fleet, to listen again to channels that the server had forgotten.
    Relisten,
    /// The fleet, for an audit: the time at which it began, and the canary that should have arrived.
    Audit(Instant, Option<MissedCanary>),
}

impl RequestOrigin {
    /// Returns `true` if the request may have changed the channels in a way that only the server knows.
    fn is_query(&self) -> bool {
        matches!(self, RequestOrigin::Handle(RequestTicket::Rows(_)))
    }

    /// Returns the purpose of the request, for errors.
    fn action(&self) -> &'static str {
        match self {
            RequestOrigin::Handle(_) => "a request by the handle",
            RequestOrigin::Settle => "a request from before the insert",
            RequestOrigin::Heartbeat => "the answer to a heartbeat",
            RequestOrigin::JoinCanary => "listening to the canary's channel",
            RequestOrigin::Canary => "sending a canary",
            RequestOrigin::Relisten => "listening again",
            RequestOrigin::Audit(..) => "an audit of the channels",
        }
    }
}

/// A request that has not been answered.
struct PendingReply {
    id: RequestId,
    origin: RequestOrigin,
    until: Option<Instant>,
    /// `true` once a CancelRequest has been sent for the request.
    is_cancelled: bool,
}

impl PendingReply {
    fn is_by_handle(&self) -> bool {
        matches!(self.origin, RequestOrigin::Handle(_))
    }

    fn is_late(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// Returns the error for a request whose time has passed; `closed` if the session is.
    fn timeout<S: Transport>(&self, link: &Link<S>, closed: bool) -> Error {
        timeout(link, self.origin.action(), closed)
    }
}

impl std::fmt::Debug for PendingReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self.origin.action(), f)
    }
}

/// A transaction that is open.
#[derive(Debug, Clone, Copy)]
pub(super) enum OpenTransaction {
    Since(Instant),
    /// Reported as open for too long.
    Reported,
}

/// The requests without an answer, the CancelRequest and the open transaction of a live connection.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    /// In the order of the requests, which is the order of the answers.
    requests: VecDeque<PendingReply>,
    /// `true` while a CancelRequest may still cancel something. The session sends no request meanwhile.
    pub(super) is_cancelling: bool,
    pub(super) transaction: Option<OpenTransaction>,
}

impl Unsettled {
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty() && !self.is_cancelling && self.transaction.is_none()
    }

    pub(super) fn push(&mut self, id: RequestId, origin: RequestOrigin, until: Option<Instant>) {
        self.requests.push_back(PendingReply { id, origin, until, is_cancelled: false });
    }

    /// Takes the requests that have been answered. Cancels a late one, unless the stream may hold more data.
    pub(super) fn take_answered<S: Transport>(
        &mut self,
        link: &mut Link<S>,
        turn: &mut Turn<'_, S>,
        may_have_more: bool,
    ) -> Vec<(RequestOrigin, Result<Reply, Error>)> {
        let mut answered = Vec::new();
        // A CancelRequest in progress may still affect these requests.
        if !self.is_cancelling || link.is_closed() {
            while let Some(pending) = self.requests.front() {
                // A query that may have changed the channels is complete once they are known again.
                if pending.origin.is_query() && link.is_reading_channels() {
                    break;
                }
                let Some(reply) = link.take_reply(pending.id) else { break };
                answered.extend(self.requests.pop_front().map(|pending| (pending, reply)));
            }
        }
        if let Some(next) = self.requests.front() {
            let (late, until) = (!may_have_more && next.is_late(turn.now()), next.until);
            // A silent server is found by the timer of the heartbeat.
            if !matches!(next.origin, RequestOrigin::Heartbeat) {
                turn.set_timer(Timer::Request, until);
            }
            if late {
                self.time_out(link, turn);
            }
        }
        let result = |(pending, reply): (PendingReply, Result<Reply, Error>)| {
            let reply = reply.map_err(|error| match pending.is_cancelled && error.sqlstate() == Some(QUERY_CANCELED) {
                true => pending.timeout(link, link.is_closed()),
                false => error,
            });
            (pending.origin, reply)
        };
        answered.into_iter().map(result).collect()
    }

    /// Handles the timeout of the first request.
    fn time_out<S: Transport>(&mut self, link: &mut Link<S>, turn: &mut Turn<'_, S>) {
        let Some(first) = self.requests.front_mut() else { return };
        let timeout = first.timeout(link, true);
        if first.is_cancelled || !first.is_by_handle() {
            return link.close_for(timeout);
        }
        if link.is_waiting(first.id) {
            self.withdraw_late(link, turn.now());
            return turn.queue();
        }
        if !link.is_in_flight(first.id) || turn.services.cancels.held() >= CANCELS_MAX {
            return link.close_for(timeout);
        }
        let until = turn.now().checked_add(link.call_timeout().unwrap_or(LIMIT).min(GRACE));
        (first.is_cancelled, first.until) = (true, until);
        turn.set_timer(Timer::Request, until);
        if let Some(cancel) = link.begin_cancel(until) {
            link.pause();
            self.is_cancelling = true;
            let permit = turn.services.cancels.take();
            turn.start(TaskPurpose::Cancel(cancel, permit));
        }
    }

    /// Ends a CancelRequest. The session continues, unless the request may still cancel something.
    pub(super) fn end_cancel<S: Transport>(&mut self, link: &mut Link<S>, is_over: bool, now: Instant) {
        self.is_cancelling = false;
        if is_over {
            self.withdraw_late(link, now);
            link.resume();
        } else {
            link.close_for(cancel_timeout(link));
        }
    }

    /// Withdraws the requests of handles that are late and have not been sent.
    fn withdraw_late<S: Transport>(&mut self, link: &mut Link<S>, now: Instant) {
        let is_withdrawn =
            |pending: &PendingReply| pending.is_by_handle() && pending.is_late(now) && link.withdraw(pending.id);
        let (withdrawn, kept): (VecDeque<_>, _) =
            std::mem::take(&mut self.requests).into_iter().partition(is_withdrawn);
        self.requests = kept;
        for pending in withdrawn {
            let timeout = pending.timeout(link, false);
            if let RequestOrigin::Handle(ticket) = pending.origin {
                ticket.resolve(Err(timeout));
            }
        }
    }

    /// Ends what is unsettled on a connection that leaves the fleet: each ticket resolves.
    pub(super) fn end<S: Transport>(self, link: &mut Link<S>) {
        let error = link.error().cloned().unwrap_or(Error::UnknownConnection);
        for pending in self.requests {
            if let RequestOrigin::Handle(ticket) = pending.origin {
                // A reply that has arrived counts more than the end.
                ticket.resolve(link.take_reply(pending.id).unwrap_or_else(|| Err(error.clone())));
            }
        }
    }
}

/// Returns the error for a connection whose CancelRequest may still cancel the next request.
pub(super) fn cancel_timeout<S: Transport>(link: &Link<S>) -> Error {
    timeout(link, "a cancelled request", true)
}

fn timeout<S: Transport>(link: &Link<S>, action: &'static str, closed: bool) -> Error {
    Error::Timeout { action, after: link.call_timeout().unwrap_or(LIMIT), closed }
}
