//! Cancels requests of handles that were not answered in time, without blocking the loop.
//!
//! ```text
//!   late ──in the queue of its session──▶ withdrawn: the ticket resolves, and the connection stays
//!    └──at the server──▶ CancelRequest ──answered within the grace──▶ the ticket resolves, and the connection stays
//!                                      └──not answered──▶ the connection is closed
//! ```
//!
//! As long as a CancelRequest may still cancel something, its session sends no other request.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock;
use crate::connection::{Cancel, CancelProgress, GRACE};
use crate::error::Error;
use crate::manager::NotificationManager;
use crate::manager::members::{ConnId, Life, Member};
use crate::manager::requests::{LIMIT, PendingReply};
use crate::manager::timers::Why;
use crate::proto::RequestId;

/// The most CancelRequests in progress. A server with so many late requests is overloaded, and must not receive more
/// connections.
const CANCELS_AT_ONCE: usize = 64;

/// The CancelRequests in progress, each a member of its own.
#[derive(Debug, Default)]
pub(super) struct Cancels(BTreeMap<ConnId, u32>);

impl Cancels {
    /// Returns `true` if a request of this connection may still be cancelled.
    pub(super) fn contains(&self, id: ConnId) -> bool {
        self.0.contains_key(&id)
    }
}

/// A CancelRequest on behalf of a connection.
#[derive(Debug)]
pub(crate) struct Cancelling {
    on_behalf_of: ConnId,
    cancel: Cancel,
}

impl NotificationManager {
    /// Handles the timeout of the first unanswered request of a connection.
    pub(super) fn time_out(&mut self, token: u32, request: RequestId) {
        let Some(Member { id, life: Life::Good(connection), .. }) = self.members.get_mut(token) else { return };
        let id = *id;
        let Some(pending) = self.asked.get_mut(&(id, request)) else { return };
        let after = connection.call_timeout().unwrap_or(LIMIT);
        let timeout = |closed| Error::Timeout { action: pending.action(), after, closed };
        if pending.is_cancelled() || !pending.is_by_handle() {
            return connection.close_for(timeout(true));
        }
        if connection.session.is_waiting(request) {
            self.withdraw_late(token);
            return self.queue(token);
        }
        if !connection.session.is_in_flight(request) || self.cancels.0.len() >= CANCELS_AT_ONCE {
            return connection.close_for(timeout(true));
        }
        let until = clock::now().checked_add(after.min(GRACE));
        pending.cancel(until);
        self.set_timer(token, Why::Look, until);
        self.send_cancel(token, id, after.min(GRACE));
    }

    fn send_cancel(&mut self, token: u32, id: ConnId, grace: Duration) {
        let Some(Member { life: Life::Good(connection), .. }) = self.members.get_mut(token) else { return };
        let Some(cancel) = connection.begin_cancel(clock::now().checked_add(grace)) else { return };
        connection.session.pause();
        let hidden = self.members.new_messenger_id();
        let life = Life::Cancelling(Box::new(Cancelling { on_behalf_of: id, cancel }));
        let cancel_token = self.members.add(hidden, life);
        self.cancels.0.insert(id, cancel_token);
        if let (Ok(reactor), Some(Member { life: Life::Cancelling(it), .. })) =
            (&self.reactor, self.members.get(cancel_token))
            && let Some(stream) = it.cancel.stream()
            && reactor.register(stream, cancel_token, true).is_err()
        {
            return self.end_cancel(cancel_token, true);
        }
        self.queue(cancel_token);
    }

    /// Continues with a CancelRequest.
    pub(super) fn advance_cancel(&mut self, token: u32) {
        let Some(Member { life: Life::Cancelling(it), queued, .. }) = self.members.get_mut(token) else { return };
        *queued = false;
        match it.cancel.step(clock::now()) {
            CancelProgress::Wait => {
                let until = it.cancel.until();
                self.set_timer(token, Why::Look, until);
            }
            progress => self.end_cancel(token, progress == CancelProgress::Over),
        }
    }

    /// Ends a CancelRequest. The session continues, unless the request may still cancel something.
    fn end_cancel(&mut self, token: u32, is_over: bool) {
        let Some(Member { life: Life::Cancelling(it), .. }) = self.members.take(token) else { return };
        if let (Ok(reactor), Some(stream)) = (&self.reactor, it.cancel.stream()) {
            // This fails only for a socket that is not watched.
            let _ = reactor.deregister(stream);
        }
        self.cancels.0.remove(&it.on_behalf_of);
        let Some(token) = self.members.token(it.on_behalf_of) else { return };
        let Some(Member { life: Life::Good(connection), .. }) = self.members.get_mut(token) else { return };
        if is_over {
            self.withdraw_late(token);
            self.resume(token);
        } else {
            let after = connection.call_timeout().unwrap_or(LIMIT);
            connection.close_for(Error::Timeout { action: "a cancelled request", after, closed: true });
        }
        self.queue(token);
    }

    /// Withdraws the requests of a connection that are late and have not been sent.
    fn withdraw_late(&mut self, token: u32) {
        let Some(Member { id, life: Life::Good(connection), .. }) = self.members.get_mut(token) else { return };
        let (now, after) = (clock::now(), connection.call_timeout().unwrap_or(LIMIT));
        let of_this = (*id, RequestId::FIRST)..=(*id, RequestId::LAST);
        let is_late = |pending: &PendingReply| pending.is_by_handle() && pending.is_late(now);
        let late = self.asked.range(of_this).filter(|(_, pending)| is_late(pending)).map(|(key, _)| *key);
        let withdrawn: Vec<_> = late.filter(|(_, request)| connection.session.withdraw(*request)).collect();
        for pending in withdrawn.iter().filter_map(|key| self.asked.remove(key)) {
            let error = Error::Timeout { action: pending.action(), after, closed: false };
            pending.fail(error);
        }
    }

    fn resume(&mut self, token: u32) {
        if let Some(Member { life: Life::Good(connection), .. }) = self.members.get_mut(token) {
            connection.session.resume();
        }
    }

    /// Drops the CancelRequest of a connection that leaves the loop. Returns `true` if there was one.
    pub(super) fn forget_cancel(&mut self, id: ConnId) -> bool {
        let token = self.cancels.0.remove(&id);
        token.and_then(|token| self.members.take(token)).is_some()
    }
}
