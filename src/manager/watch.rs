//! What is seldom so, and must be noticed when a connection has been served: unsent output, a transaction left open, and
//! what it might share with others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::manager::members::{ConnId, Life};
use crate::manager::timers::Why;
use crate::manager::turn::WATCHING;
use crate::manager::{Event, NotificationManager, log};
use crate::proto::TransactionStatus;

/// How long a transaction may be open before it is reported.
const TRANSACTION_MAX: Duration = Duration::from_secs(1);

/// Who has a transaction open: few at any time, so this isn't kept with each connection.
#[derive(Debug, Default)]
pub(super) struct OpenTransactions {
    since: BTreeMap<ConnId, Instant>,
    /// For whom it was too long.
    told: BTreeSet<ConnId>,
}

impl OpenTransactions {
    fn is_empty(&self) -> bool {
        self.since.is_empty()
    }
}

impl NotificationManager {
    /// Notices it. Where nothing is so, it costs a few comparisons.
    pub(super) fn keep_watch(&mut self, token: u32) {
        let Some(member) = self.members.get_mut(token) else { return };
        let Life::Good(connection) = &mut member.life else { return };
        // What was asked since the last try; once the socket takes no more, it tells when it does again.
        connection.transmit();
        if connection.is_closed() {
            return self.queue_first(token);
        }
        connection.share(&mut self.common);
        let wants_write = connection.wants_write();
        if wants_write != member.watches_write {
            member.watches_write = wants_write;
            if let Ok(reactor) = &self.reactor
                && let Err(error) = reactor.reregister(connection.any_stream(), token, wants_write)
            {
                self.close_for(token, Error::io(WATCHING, error));
                return;
            }
        }
        let is_open = connection.transaction_status() != TransactionStatus::Idle;
        if is_open || !self.in_transaction.is_empty() {
            let is_new = connection.session.take_new_transaction();
            self.watch_transaction(token, is_open, is_new);
        }
    }

    /// Reports a transaction that stays open, once, and watches it until it ends.
    fn watch_transaction(&mut self, token: u32, is_open: bool, is_new: bool) {
        let Some(id) = self.members.get(token).map(|member| member.id) else { return };
        if !is_open || is_new {
            self.forget_transaction(id);
        }
        if !is_open {
            return;
        }
        let since = *self.in_transaction.since.entry(id).or_insert(self.now);
        if self.now.saturating_duration_since(since) < TRANSACTION_MAX {
            self.set_timer(token, Why::Look, since.checked_add(TRANSACTION_MAX));
        } else if self.in_transaction.told.insert(id) {
            log::in_transaction(id);
            self.collected.push_back(Event::InTransaction(id));
            self.shared.counters.in_transaction.set(self.in_transaction.told.len());
        }
    }

    /// It has ended, or whoever had it open has gone.
    pub(super) fn forget_transaction(&mut self, id: ConnId) {
        if self.in_transaction.since.remove(&id).is_some() && self.in_transaction.told.remove(&id) {
            self.shared.counters.in_transaction.set(self.in_transaction.told.len());
        }
    }
}
