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

    /// Resolves the ticket of the request to an error.
    fn fail(self, error: Error) {
        if let RequestOrigin::Handle(ticket) = self.origin {
            ticket.resolve(Err(error));
        }
    }

    /// Resolves the ticket of the request to its reply if that has arrived, and else to the error.
    fn end<S: Transport>(self, link: &mut Link<S>, error: &Error) {
        if let RequestOrigin::Handle(ticket) = self.origin {
            ticket.resolve(link.take_reply(self.id).unwrap_or_else(|| Err(error.clone())));
        }
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
#[derive(Default)]
pub(super) struct Unsettled {
    /// In the order of the requests, which is the order of the answers.
    replies: VecDeque<PendingReply>,
    /// `true` while a CancelRequest may still cancel something. The session sends no request meanwhile.
    pub(super) is_cancelling: bool,
    pub(super) transaction: Option<OpenTransaction>,
}

impl Unsettled {
    pub(super) fn is_empty(&self) -> bool {
        self.replies.is_empty() && !self.is_cancelling && self.transaction.is_none()
    }

    pub(super) fn push(&mut self, id: RequestId, origin: RequestOrigin, until: Option<Instant>) {
        self.replies.push_back(PendingReply { id, origin, until, is_cancelled: false });
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
            while let Some(pending) = self.replies.front() {
                // A query that may have changed the channels is complete once they are known again.
                if pending.origin.is_query() && link.is_reading_channels() {
                    break;
                }
                let Some(reply) = link.take_reply(pending.id) else { break };
                answered.extend(self.replies.pop_front().map(|pending| (pending, reply)));
            }
        }
        if let Some(next) = self.replies.front() {
            let (late, until) = (!may_have_more && next.is_late(turn.now()), next.until);
            // A silent server is found by the timer of the heartbeat.
            if !matches!(next.origin, RequestOrigin::Heartbeat) {
                turn.set_timer(Timer::Request, until);
            }
            if late {
                self.time_out(link, turn);
            }
        }
        let after = link.call_timeout().unwrap_or(LIMIT);
        let is_closed = link.is_closed();
        let result = |pending: PendingReply, reply: Result<Reply, Error>| {
            let reply = match reply {
                Err(error) if pending.is_cancelled && error.sqlstate() == Some(QUERY_CANCELED) => {
                    Err(Error::Timeout { action: pending.origin.action(), after, closed: is_closed })
                }
                reply => reply,
            };
            (pending.origin, reply)
        };
        answered.into_iter().map(|(pending, reply)| result(pending, reply)).collect()
    }

    /// Handles the timeout of the first request.
    fn time_out<S: Transport>(&mut self, link: &mut Link<S>, turn: &mut Turn<'_, S>) {
        let Some(first) = self.replies.front_mut() else { return };
        let after = link.call_timeout().unwrap_or(LIMIT);
        let timeout = Error::Timeout { action: first.origin.action(), after, closed: true };
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
        let until = turn.now().checked_add(after.min(GRACE));
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
        let after = link.call_timeout().unwrap_or(LIMIT);
        let (mut kept, mut withdrawn) = (VecDeque::new(), Vec::new());
        for pending in self.replies.drain(..) {
            match pending.is_by_handle() && pending.is_late(now) && link.withdraw(pending.id) {
                true => withdrawn.push(pending),
                false => kept.push_back(pending),
            }
        }
        self.replies = kept;
        for pending in withdrawn {
            let action = pending.origin.action();
            pending.fail(Error::Timeout { action, after, closed: false });
        }
    }

    /// Ends what is unsettled on a connection that leaves the fleet: each ticket resolves.
    pub(super) fn end<S: Transport>(self, link: &mut Link<S>) {
        let error = link.error().cloned().unwrap_or(Error::UnknownConnection);
        self.replies.into_iter().for_each(|pending| pending.end(link, &error));
    }
}

/// Returns the error for a connection whose CancelRequest may still cancel the next request.
pub(super) fn cancel_timeout<S: Transport>(link: &Link<S>) -> Error {
    let after = link.call_timeout().unwrap_or(LIMIT);
    Error::Timeout { action: "a cancelled request", after, closed: true }
}

impl std::fmt::Debug for Unsettled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let requests: Vec<_> = self.replies.iter().map(|pending| pending.origin.action()).collect();
        f.debug_struct("Unsettled")
            .field("requests", &requests)
            .field("is_cancelling", &self.is_cancelling)
            .field("transaction", &self.transaction)
            .finish()
    }
}
