//! The loop of a worker: one manager for all databases, on a thread of its own.
//!
//! ```text
//!   NotificationManager ──events──────> ┐                      ┌──> queue ──> Changes
//!   Mailbox: replies, consumer ───────> ├─> DatabaseFollower ──┤
//!   timers ───────────────────────────> ┘    (each database)   └──> requests by the manager's handle
//! ```

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::context::LoopContext;
use super::database::DatabaseFollower;
use super::mailbox::LoopMessage;
use super::queue::FinishGuard;
use crate::clock;
use crate::manager::{ConnId, Event, NotificationManager};

/// The longest time that ending may take while a server does not reply.
const END_LIMIT: Duration = Duration::from_secs(5);
/// The shortest timeout, since a zero timeout would end the manager's iteration.
const TIMEOUT_MIN: Duration = Duration::from_millis(1);

/// Drives the followers of all databases.
pub(crate) struct WorkerLoop {
    manager: NotificationManager,
    cx: LoopContext,
    /// In the order of their numbers, which begin with 1.
    databases: Vec<DatabaseFollower>,
    /// The index of each database.
    indexes: HashMap<ConnId, usize>,
    /// The timers of databases, with their indexes.
    timers: BTreeSet<(Instant, usize)>,
    /// The time for which the manager's timeout is set.
    armed: Option<Instant>,
    /// The time from which on the loop does not wait for servers. It is set once the worker was stopped.
    end_by: Option<Instant>,
    /// `true` if the consumer acknowledges nothing more.
    is_closing: bool,
}

impl WorkerLoop {
    pub(crate) fn new(manager: NotificationManager, databases: Vec<DatabaseFollower>, cx: LoopContext) -> Self {
        Self {
            // Without a connection the loop still waits for lost connections and for acknowledgements.
            manager: manager.park_when_empty(true),
            cx,
            indexes: databases.iter().enumerate().map(|(index, database)| (database.id, index)).collect(),
            timers: BTreeSet::new(),
            databases,
            armed: None,
            end_by: None,
            is_closing: false,
        }
    }

    /// Runs until every database is lost, or until the worker is stopped and has saved the acknowledged position.
    pub(crate) fn run(mut self) {
        let _finish = FinishGuard(Arc::clone(&self.cx.queue));
        while !self.is_over() {
            self.set_timeout();
            match self.manager.next_event() {
                // Replies of the lost session, which are read after this, are then ignored.
                event @ Some(Event::Disconnected(..) | Event::Lost(..)) => {
                    self.handle_event(event);
                    self.read_messages();
                }
                event => {
                    self.read_messages();
                    self.handle_event(event);
                }
            }
            self.run_timers();
        }
    }

    /// Calls `handle` for one database, and sets its timer.
    fn with(&mut self, index: usize, handle: impl FnOnce(&mut DatabaseFollower, &LoopContext)) {
        let Some(database) = self.databases.get_mut(index) else { return };
        (self.cx.database, self.cx.now) = (index + 1, clock::now());
        handle(database, &self.cx);
        let next = database.next_timer();
        let before = std::mem::replace(&mut database.timer, next);
        if before != next {
            if let Some(at) = before {
                self.timers.remove(&(at, index));
            }
            self.timers.extend(next.map(|at| (at, index)));
        }
    }

    fn with_each(&mut self, handle: impl Fn(&mut DatabaseFollower, &LoopContext)) {
        (0..self.databases.len()).for_each(|index| self.with(index, &handle));
    }

    fn handle_event(&mut self, event: Option<Event>) {
        let index = |id: ConnId| self.indexes.get(&id).copied().unwrap_or(usize::MAX);
        match event {
            Some(Event::Notifies(id, batch)) => self.with(index(id), |database, cx| {
                batch.iter().for_each(|n| database.handle_notification(n.channel_bytes(), n.payload_bytes(), cx));
            }),
            Some(Event::Opened(id)) => self.with(index(id), DatabaseFollower::handle_opened),
            Some(Event::Restored(id, gap)) => self.with(index(id), |database, cx| database.handle_restored(gap, cx)),
            Some(Event::Disconnected(id, error)) => {
                self.with(index(id), |database, cx| database.handle_disconnected(error, cx))
            }
            Some(Event::Lost(id, error)) => self.with(index(id), |database, cx| database.handle_lost(error, cx)),
            // The timeout has passed, so the next one must be set again.
            Some(Event::Idle) => self.armed = None,
            Some(Event::CanaryReceived(id, _)) => {
                self.with(index(id), |_, cx| cx.watch.set_proven(cx.database, cx.now));
            }
            Some(Event::InTransaction(_) | Event::CheckRefused(..) | Event::Unlistened(..)) | None => {}
        }
    }

    fn read_messages(&mut self) {
        for message in self.cx.queue.mailbox.take() {
            match message {
                LoopMessage::Reply(reply) => {
                    self.with(reply.database.wrapping_sub(1), |database, cx| database.handle_reply(reply, cx));
                    continue;
                }
                LoopMessage::Stop => self.end_by = self.end_by.or(Some(clock::now() + END_LIMIT)),
                LoopMessage::Close => (self.end_by, self.is_closing) = (Some(clock::now() + END_LIMIT), true),
                LoopMessage::Room | LoopMessage::Acknowledged => {}
            }
            self.with_each(DatabaseFollower::handle_consumer);
        }
    }

    // ---- time -------------------------------------------------------------------------------------------------------

    fn run_timers(&mut self) {
        let now = clock::now();
        while let Some((at, index)) = self.timers.first().copied()
            && at <= now
        {
            self.with(index, DatabaseFollower::handle_timer);
            // A timer that is still due is handled again in the next turn.
            if self.timers.first() == Some(&(at, index)) {
                break;
            }
        }
        if self.end_by.is_some_and(|at| at <= now) {
            // The worker ends, and waits no longer for spilled payloads.
            self.with_each(|database, cx| database.spilled.release_all(cx));
        }
    }

    /// Sets the manager's timeout to the next time at which something is due here.
    fn set_timeout(&mut self) {
        let timer = self.timers.first().map(|(at, _)| *at);
        let now = clock::now();
        let end = self.end_by.filter(|at| *at > now);
        let next = [timer, end].into_iter().flatten().min();
        if next != self.armed {
            self.armed = next;
            self.manager.set_timeout(next.map(|at| at.saturating_duration_since(now).max(TIMEOUT_MIN)));
        }
    }

    fn is_over(&self) -> bool {
        let all = |is: fn(&DatabaseFollower) -> bool| self.databases.iter().all(is);
        all(DatabaseFollower::is_ended)
            || match self.end_by {
                None => false,
                Some(end_by) if self.is_closing => end_by <= clock::now() || all(DatabaseFollower::is_saved),
                Some(_) => all(DatabaseFollower::is_drained),
            }
    }
}
