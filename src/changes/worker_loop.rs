//! The one loop of a worker: a manager of all databases, on a thread of its own.
//!
//! ```text
//!   NotificationManager ──events──> ┐                      ┌──> queue ──> Changes
//!   Mailbox: answers, consumer ───> ├─> DatabaseFollower ──┤
//!   timers ───────────────────────> ┘    (each database)   └──> requests by the manager's handle
//! ```

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::context::LoopContext;
use super::database::DatabaseFollower;
use super::filter::TableFilter;
use super::mailbox::{LoopMessage, Mailbox};
use super::queue::EventQueue;
use crate::clock;
use crate::error::Error;
use crate::manager::{ConnId, Event, Handle, NotificationManager};

/// The time after which the first attempts to connect are looked at again, until each is reported.
const FIRST_LOOK: Duration = Duration::from_millis(100);
/// The longest that ending may take where a server does not answer.
const END_LIMIT: Duration = Duration::from_secs(5);
/// A zero timeout would end the manager's iteration.
const TIMEOUT_MIN: Duration = Duration::from_millis(1);

pub(crate) struct WorkerLoop {
    manager: NotificationManager,
    handle: Handle,
    queue: Arc<EventQueue>,
    mailbox: Arc<Mailbox>,
    filter: TableFilter,
    keep_spilled: Duration,
    /// In the order of their numbers, which begin with 1.
    databases: Vec<DatabaseFollower>,
    /// The indexes of the databases.
    indexes: HashMap<ConnId, usize>,
    /// The databases that wait for time to pass, by their indexes; and the time of each.
    timers: BTreeSet<(Instant, usize)>,
    timer_of: Vec<Option<Instant>>,
    /// The number of databases whose first attempt to connect is not over.
    unreported: usize,
    next_look: Instant,
    /// The time for which the manager's timeout is set.
    armed: Option<Instant>,
    /// When to give up waiting for servers; `None` until the worker is stopped.
    end_by: Option<Instant>,
    /// `true` once the consumer has gone. What it had acknowledged before is known by then.
    is_closed: bool,
}

/// Finishes the queue in any case, so that its consumer never waits in vain.
struct Finish(Arc<EventQueue>);

impl Drop for Finish {
    fn drop(&mut self) {
        self.0.finish();
    }
}

impl WorkerLoop {
    pub(crate) fn new(
        manager: NotificationManager,
        databases: Vec<DatabaseFollower>,
        (queue, mailbox): (Arc<EventQueue>, Arc<Mailbox>),
        filter: TableFilter,
        keep_spilled: Duration,
    ) -> Self {
        Self {
            handle: manager.handle(),
            // There is something to do without a connection: a lost one to wait for, an acknowledgement to read.
            manager: manager.park_when_empty(true),
            queue,
            mailbox,
            filter,
            keep_spilled,
            indexes: databases.iter().enumerate().map(|(index, database)| (database.id, index)).collect(),
            timers: BTreeSet::new(),
            timer_of: vec![None; databases.len()],
            unreported: databases.len(),
            databases,
            next_look: clock::now(),
            armed: None,
            end_by: None,
            is_closed: false,
        }
    }

    /// Runs until it is stopped and has done what the consumer has acknowledged, or until every database is lost.
    pub(crate) fn run(mut self) {
        let _finish = Finish(Arc::clone(&self.queue));
        while !self.is_over() {
            self.set_timeout();
            match self.manager.next_event() {
                // The answers to a session that is lost are stale.
                Some(Event::Lost(id, error)) => {
                    self.handle_lost(id, error);
                    self.read_messages();
                }
                event => {
                    self.read_messages();
                    self.handle_event(event);
                }
            }
            self.run_timers();
            self.look_at_first_attempts();
        }
    }

    /// Has one database handle something.
    fn with(&mut self, index: usize, handle: impl FnOnce(&mut DatabaseFollower, &LoopContext<'_>)) {
        let Some(database) = self.databases.get_mut(index) else { return };
        let cx = LoopContext {
            handle: &self.handle,
            queue: &self.queue,
            mailbox: &self.mailbox,
            filter: &self.filter,
            keep_spilled: self.keep_spilled,
            databases: self.indexes.len(),
            now: clock::now(),
        };
        let was_unreported = database.is_unreported();
        handle(database, &cx);
        if was_unreported && !database.is_unreported() {
            self.unreported = self.unreported.saturating_sub(1);
        }
        let next = database.next_timer();
        if let Some(timer) = self.timer_of.get_mut(index)
            && *timer != next
        {
            if let Some(at) = timer.take() {
                self.timers.remove(&(at, index));
            }
            *timer = next;
            self.timers.extend(next.map(|at| (at, index)));
        }
    }

    fn handle_event(&mut self, event: Option<Event>) {
        let index = |id: ConnId| self.indexes.get(&id).copied().unwrap_or(usize::MAX);
        match event {
            Some(Event::Notifies(id, batch)) => self.with(index(id), |database, cx| {
                batch.iter().for_each(|n| database.handle_notification(n.channel_bytes(), n.payload_bytes(), cx));
            }),
            Some(Event::Opened(id)) => self.with(index(id), DatabaseFollower::handle_opened),
            Some(Event::Restored(id, gap)) => {
                self.with(index(id), |database, cx| database.handle_restored(gap, cx));
            }
            Some(Event::Lost(id, error)) => self.handle_lost(id, error),
            // The timeout has passed, and the period of the next is another.
            Some(Event::Idle) => self.armed = None,
            Some(Event::InTransaction(_) | Event::CheckRefused(..)) | None => {}
        }
    }

    fn handle_lost(&mut self, id: ConnId, error: Error) {
        let Some(index) = self.indexes.get(&id).copied() else { return };
        let is_final = !self.manager.restoring().any(|(restoring, _)| restoring == id);
        self.with(index, |database, cx| database.handle_lost(error, is_final, cx));
    }

    fn read_messages(&mut self) {
        for message in self.mailbox.take() {
            match message {
                LoopMessage::Reply(answer) => {
                    self.with(answer.database.wrapping_sub(1), |database, cx| database.handle_answer(answer, cx));
                }
                LoopMessage::Room | LoopMessage::Acknowledged => self.handle_consumer(),
                LoopMessage::Stop => {
                    self.end_by = self.end_by.or_else(|| clock::now().checked_add(END_LIMIT));
                    self.handle_consumer();
                }
                LoopMessage::Close => {
                    self.end_by = clock::now().checked_add(END_LIMIT);
                    self.is_closed = true;
                    self.handle_consumer();
                }
            }
        }
    }

    /// The consumer has taken something, dealt with something, or stopped.
    fn handle_consumer(&mut self) {
        (0..self.databases.len()).for_each(|index| self.with(index, DatabaseFollower::handle_consumer));
    }

    // ---- time -------------------------------------------------------------------------------------------------------

    fn run_timers(&mut self) {
        let now = clock::now();
        while let Some((at, index)) = self.timers.first().copied()
            && at <= now
        {
            self.with(index, DatabaseFollower::handle_timer);
            // A timer that is still due comes again with the next turn.
            if self.timers.first() == Some(&(at, index)) {
                break;
            }
        }
        if self.end_by.is_some_and(|at| at <= now) {
            (0..self.databases.len()).for_each(|index| self.with(index, DatabaseFollower::handle_impatience));
        }
    }

    /// Reports the first attempts to connect that have failed: the manager repeats them without an event.
    fn look_at_first_attempts(&mut self) {
        let now = clock::now();
        if self.unreported == 0 || now < self.next_look {
            return;
        }
        self.next_look = now + FIRST_LOOK;
        let failed = self.manager.restoring().filter(|(_, dead)| !matches!(dead.error(), Error::Unopened));
        let failed: Vec<_> = failed.map(|(id, dead)| (id, dead.error().clone())).collect();
        for (id, error) in failed {
            if let Some(index) = self.indexes.get(&id).copied() {
                self.with(index, |database, cx| database.handle_first_failure(error, cx));
            }
        }
    }

    /// Has the manager's wait end when something is due here.
    fn set_timeout(&mut self) {
        let timer = self.timers.first().map(|(at, _)| *at);
        let look = (self.unreported > 0).then_some(self.next_look);
        let now = clock::now();
        let end = self.end_by.filter(|at| *at > now);
        let next = [timer, look, end].into_iter().flatten().min();
        if next != self.armed {
            self.armed = next;
            self.manager.set_timeout(next.map(|at| at.saturating_duration_since(now).max(TIMEOUT_MIN)));
        }
    }

    /// Returns `true` if there is nothing left to do.
    fn is_over(&self) -> bool {
        let is_late = self.end_by.is_some_and(|at| at <= clock::now());
        self.databases.iter().all(DatabaseFollower::is_ended)
            || self.is_closed && (is_late || self.databases.iter().all(DatabaseFollower::is_clear))
            || self.end_by.is_some() && self.databases.iter().all(DatabaseFollower::is_drained)
    }
}
