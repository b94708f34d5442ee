//! The state that the threads of a notifier share, and the way of a change to the server.
//!
//! Every change is made under one lock, and requests are sent while it is held, so that they are in the order of the
//! changes. Code of the user (the waker of a ticket, the drop of a callback) runs after the lock is released.

mod guard;
mod state;

use std::collections::VecDeque;
use std::hash::Hash;
use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use self::guard::StateGuard;
pub(crate) use self::state::{NotifierState, RunPhase};
use crate::error::Error;
use crate::manager::{ThreadMark, Ticket};
use crate::notifier::channel::ChannelTable;
use crate::notifier::counters::{NotifierCounters, NotifierStats};
use crate::notifier::database::{Database, DatabaseSession, ListenDiff};
use crate::notifier::deferred::steps::ChannelSteps;
use crate::notifier::deferred::{AckGroup, DeferredActions, Undo};
use crate::notifier::deferred_drop::DeferredDrop;
use crate::notifier::dispatcher::Dispatcher;
#[cfg(feature = "metrics")]
use crate::notifier::meters::NotifierMeters;
use crate::notifier::panic_log::PanicLog;
use crate::notifier::settings::NotifierSettings;
use crate::notifier::source::SourceHandle;
use crate::notifier::subscription::{SubscriptionContext, SubscriptionTarget};
use crate::notifier::subscriptions;
use crate::notifier::subscriptions::disconnected::DisconnectedSubscribers;
use crate::sync::{Condvar, Mutex};

pub(crate) struct NotifierCore<I: 'static> {
    pub(crate) settings: NotifierSettings,
    pub(crate) context: Arc<SubscriptionContext>,
    pub(crate) panics: PanicLog<I>,
    /// Marks all threads of this notifier, none of which may wait for another.
    pub(crate) threads: Arc<ThreadMark>,
    state: Mutex<NotifierState<I>>,
    /// Held while waiting for the lock of the state, so that a thread that releases it cannot take it again before those
    /// that wait.
    turn: Mutex<()>,
    phase_changed: Condvar,
    /// The metrics that are published, unless a thread publishes others now.
    #[cfg(feature = "metrics")]
    meters: Mutex<Option<NotifierMeters>>,
}

/// Channels whose acknowledgement a ticket waits for, each with the way to revert its change if the server refuses it.
pub(crate) type AwaitedChannels<I> = Vec<(Box<str>, Option<Undo<I>>)>;

impl<I: 'static> NotifierCore<I> {
    pub(crate) fn new(settings: NotifierSettings) -> Self {
        Self {
            context: Arc::new(SubscriptionContext {
                counters: NotifierCounters::new(settings.workers),
                deferred_drop: DeferredDrop::default(),
            }),
            state: Mutex::new(NotifierState::new(settings.autorun)),
            settings,
            panics: PanicLog::default(),
            threads: Arc::new(ThreadMark::for_group()),
            turn: Mutex::default(),
            phase_changed: Condvar::new(),
            #[cfg(feature = "metrics")]
            meters: Mutex::new(Some(NotifierMeters::default())),
        }
    }

    pub(crate) fn lock(&self) -> StateGuard<'_, NotifierState<I>> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // The only code of the user that runs under this lock is that of the id: `Clone`, `Eq` and `Hash`.
        StateGuard::new(self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Records the failure of a session that could not even be dialled. Returns `true` if there is one.
    pub(crate) fn fail_undialled(&self) -> bool {
        let mut state = self.lock();
        let failure = state.databases.iter().find_map(|database| match &database.session {
            DatabaseSession::Lost(error) => Some(error.clone()),
            _ => None,
        });
        let has_failed = failure.is_some();
        state.failure = state.failure.take().or(failure);
        has_failed
    }

    /// Waits until the phase may have changed.
    pub(crate) fn wait<'s>(&self, state: StateGuard<'s, NotifierState<I>>) -> StateGuard<'s, NotifierState<I>> {
        state.wait(&self.phase_changed)
    }

    /// Waits until the phase may have changed, or for some time.
    pub(crate) fn wait_timeout<'s>(
        &self,
        state: StateGuard<'s, NotifierState<I>>,
        timeout: Duration,
    ) -> StateGuard<'s, NotifierState<I>> {
        state.wait_timeout(&self.phase_changed, timeout)
    }

    /// Wakes all threads that wait until the phase may have changed.
    pub(crate) fn notify_phase_changed(&self) {
        self.phase_changed.notify_all();
    }

    /// Returns `true` on a thread of this notifier, which is the case inside a callback.
    pub(crate) fn is_own_thread(&self) -> bool {
        self.threads.is_current()
    }

    /// Sends notifications by the session of a database, in one statement.
    pub(crate) fn notify(&self, at: usize, pairs: Vec<(String, String)>) -> Ticket<()> {
        let (handle, session) = {
            let state = self.lock();
            if state.is_external {
                let instead = "send in a connection to the database, in the transaction that writes";
                return Ticket::resolved(&self.threads, Err(Error::NoDatabase { action: "notify", instead }));
            }
            let session = state.databases.get(at).map(|database| match &database.session {
                DatabaseSession::Lost(error) => Err(error.clone()),
                session => session.id().ok_or(Error::Unopened),
            });
            (state.handle.clone(), session)
        };
        match (handle, session) {
            (Some(SourceHandle::Manager(handle)), Some(Ok(id))) => handle.notify_many(id, pairs),
            (Some(_), Some(Err(error))) => Ticket::resolved(&self.threads, Err(error)),
            _ => Ticket::resolved(&self.threads, Err(Error::NotRunning)),
        }
    }
}

impl<I: Clone + Eq + Hash + Send + 'static> NotifierCore<I> {
    /// Changes the state under the lock, and then runs the deferred actions.
    pub(crate) fn change<T>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut NotifierState<I>, &mut DeferredActions<I>) -> T,
    ) -> T {
        let mut actions = DeferredActions::default();
        let (result, dispatcher) = {
            let mut state = self.lock();
            let result = change(&mut state, &mut actions);
            state.answer_requests(&mut actions);
            // The dispatcher of this run, even if the next one begins before the actions run.
            (result, state.dispatcher.clone())
        };
        self.run_actions(actions, dispatcher.as_deref());
        result
    }

    /// Runs deferred actions. Those for many subscriptions take the lock for each of their steps.
    pub(crate) fn run_actions(self: &Arc<Self>, mut actions: DeferredActions<I>, dispatcher: Option<&Dispatcher<I>>) {
        actions.schedule(dispatcher);
        let mut pending = VecDeque::from(actions.take_steps());
        while let Some(mut steps) = pending.pop_front() {
            let mut is_over = false;
            while !is_over {
                let mut of_step = DeferredActions::default();
                let dispatcher = {
                    let mut state = self.lock();
                    is_over = self.step(&mut state, &mut steps, &mut of_step);
                    state.answer_requests(&mut of_step);
                    state.dispatcher.clone()
                };
                pending.extend(of_step.take_steps());
                of_step.schedule(dispatcher.as_deref());
                // One ticket may wait for several channels, all of which are reverted before it is resolved.
                actions.add_completed(of_step);
                self.context.deferred_drop.drop_all();
            }
        }
        actions.resolve();
        self.context.deferred_drop.drop_all();
    }

    /// Does a step of work for many subscriptions, and requests what follows. Returns `true` if it was the last step.
    fn step(
        self: &Arc<Self>,
        state: &mut NotifierState<I>,
        steps: &mut ChannelSteps<I>,
        actions: &mut DeferredActions<I>,
    ) -> bool {
        let is_autorun = state.is_autorun;
        let Some(database) = state.databases.get_mut(steps.at) else { return true };
        let is_over = database.step(steps, actions);
        if is_autorun && !matches!(database.session, DatabaseSession::Lost(_)) {
            self.sync(state, steps.at, actions);
        }
        is_over
    }

    /// Changes one database, and requests what follows from that.
    pub(crate) fn change_database<T>(
        self: &Arc<Self>,
        at: usize,
        change: impl FnOnce(&mut Database<I>, &mut DeferredActions<I>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.change(|state, actions| {
            let result = change(state.database(at)?, actions);
            if state.is_autorun {
                self.sync(state, at, actions);
            }
            result
        })
    }

    /// Like [`change_database`](Self::change_database), with a ticket that resolves once the server has acknowledged those
    /// of the returned channels that are wanted. The ticket resolves immediately if the notifier is not running.
    pub(crate) fn change_and_wait<T>(
        self: &Arc<Self>,
        at: usize,
        change: impl FnOnce(&mut Database<I>, &mut DeferredActions<I>) -> Result<(T, AwaitedChannels<I>), Error>,
    ) -> Result<(T, Ticket<()>), Error> {
        self.change_checked(at, |_, _| Ok(()), change)
    }

    /// Like [`change_and_wait`](Self::change_and_wait), but fails if new channels would not be listened to.
    pub(crate) fn listen_and_wait<T>(
        self: &Arc<Self>,
        at: usize,
        change: impl FnOnce(&mut Database<I>, &mut DeferredActions<I>) -> Result<(T, AwaitedChannels<I>), Error>,
    ) -> Result<(T, Ticket<()>), Error> {
        self.change_checked(at, NotifierState::check_can_listen, change)
    }

    fn change_checked<T>(
        self: &Arc<Self>,
        at: usize,
        check: impl FnOnce(&NotifierState<I>, usize) -> Result<(), Error>,
        change: impl FnOnce(&mut Database<I>, &mut DeferredActions<I>) -> Result<(T, AwaitedChannels<I>), Error>,
    ) -> Result<(T, Ticket<()>), Error> {
        let (group, ticket) = AckGroup::new(&self.threads);
        let result = self.change(|state, actions| {
            check(state, at)?;
            let (result, channels) = change(state.database(at)?, actions)?;
            if state.is_autorun {
                self.sync(state, at, actions);
                for (channel, undo) in channels {
                    state.database(at)?.wait_for(&channel, &group, undo);
                }
            }
            Ok(result)
        });
        group.complete(Ok(()));
        result.map(|result| (result, ticket))
    }

    /// Subscribes a callback. Returns how to revert that, and a ticket for the acknowledgement of its channel.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        at: usize,
        id: &I,
        channel: &str,
        target: SubscriptionTarget<I>,
    ) -> Result<(Undo<I>, Ticket<()>), Error> {
        // Taken only on success: a callback that is not used is dropped here, after the lock is released.
        let mut target = Some(target);
        self.listen_and_wait(at, |database, actions| {
            database.check_channel(channel)?;
            let is_observed = target.as_ref().is_some_and(|target| target.observer.is_some());
            if is_observed && database.subscriptions.registry.get(id, channel).is_some() {
                return Err(Error::AlreadySubscribed { channel: channel.into() });
            }
            let Some(target) = target.take() else { return Err(Error::NotRunning) };
            let subscription = database.subscriptions.create(id, channel, target, &self.settings.queue);
            let undo = database.subscribe(id, subscription, actions);
            Ok((undo.clone(), vec![(channel.into(), Some(undo))]))
        })
    }

    /// Reverts a change whose acknowledgement did not arrive in time.
    pub(crate) fn revert(self: &Arc<Self>, at: usize, channel: &str, undo: Undo<I>) {
        // The only error is that the database is unknown, and then there is nothing to revert.
        let _ = self.change_database(at, |database, actions| {
            database.undo(channel, undo, actions);
            Ok(())
        });
    }

    /// Applies all recorded changes. The ticket resolves once the servers have acknowledged all wanted channels.
    pub(crate) fn apply(self: &Arc<Self>) -> Result<Ticket<()>, Error> {
        let (group, ticket) = AckGroup::new(&self.threads);
        let result = self.change(|state, actions| {
            state.check_running()?;
            for at in 0..state.databases.len() {
                let database = state.database(at)?;
                for channel in database.unacknowledged() {
                    database.subscriptions.registry.mark_changed(&channel);
                }
                self.sync(state, at, actions);
                let database = state.database(at)?;
                for channel in database.unacknowledged() {
                    database.wait_for(&channel, &group, None);
                }
            }
            Ok(())
        });
        group.complete(Ok(()));
        result.map(|()| ticket)
    }

    /// Requests that the session of a database listens to the wanted channels.
    pub(crate) fn sync(self: &Arc<Self>, state: &mut NotifierState<I>, at: usize, actions: &mut DeferredActions<I>) {
        if let Some(diff) = state.databases.get_mut(at).map(|database| database.sync(actions)) {
            self.request(state, at, diff);
        }
    }

    pub(crate) fn request(self: &Arc<Self>, state: &mut NotifierState<I>, at: usize, diff: ListenDiff) {
        let Some(id) = state.databases.get(at).and_then(|database| database.session.id()) else { return };
        let handle = match &state.handle {
            None => return,
            Some(SourceHandle::Manager(handle)) => handle,
            Some(SourceHandle::External(_)) => {
                return state.unanswered.extend(diff.listen.into_iter().map(|channel| (at, channel)));
            }
        };
        if !diff.unlisten.is_empty() {
            // A failure ends the session, and the next one listens only to the wanted channels.
            drop(handle.unlisten(id, &diff.unlisten));
        }
        if !diff.listen.is_empty() {
            let channels = diff.listen.iter().map(|(channel, _)| channel.to_string()).collect();
            let (core, run) = (Arc::clone(self), state.run);
            handle.listen_then(id, channels, move |reply| {
                core.change_run(run, |state, actions| {
                    if let Some(database) = state.databases.get_mut(at) {
                        database.handle_reply(diff.listen, &reply, actions);
                        // A channel that was refused may not be wanted any more.
                        if state.is_autorun {
                            core.sync(state, at, actions);
                        }
                    }
                });
            });
        }
    }

    /// Changes the state on the thread of the loop, unless its run has ended.
    pub(crate) fn change_run(
        self: &Arc<Self>,
        run: u64,
        change: impl FnOnce(&mut NotifierState<I>, &mut DeferredActions<I>),
    ) {
        self.change(|state, actions| {
            if state.run == run && state.handle.is_some() {
                change(state, actions);
            }
        });
    }

    /// Reads from one database, if it exists.
    pub(crate) fn read<T>(&self, at: usize, read: impl FnOnce(&Database<I>) -> T) -> Option<T> {
        self.lock().databases.get(at).map(read)
    }

    /// Takes the metrics that are published, so that no lock is held while others are.
    #[cfg(feature = "metrics")]
    pub(crate) fn take_meters(&self) -> Option<NotifierMeters> {
        self.meters.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn return_meters(&self, meters: NotifierMeters) {
        *self.meters.lock().unwrap_or_else(PoisonError::into_inner) = Some(meters);
    }

    pub(crate) fn stats(&self) -> NotifierStats {
        let databases: Vec<_> = {
            let state = self.lock();
            let of = |Database { subscriptions: it, .. }: &Database<I>| {
                (Arc::clone(&it.channels), Arc::clone(&it.disconnected))
            };
            state.databases.iter().map(of).collect()
        };
        // Without the lock of the state. This applies the limits, and so counts what they drop.
        let waiting_of = |(channels, disconnected): &(Arc<ChannelTable<_>>, Arc<DisconnectedSubscribers<_>>)| {
            let of_disconnected = disconnected.sum(|subscriber| subscriber.waiting(&self.context.counters) as u64);
            of_disconnected + subscriptions::waiting(channels, &self.context)
        };
        let waiting = databases.iter().map(waiting_of).sum();
        // A snapshot of the receivers may have held the last reference to one.
        self.context.deferred_drop.drop_all();
        let state = self.lock();
        let mut stats = NotifierStats { waiting, ..self.context.counters.read() };
        stats.canary_time = state.handle.as_ref().and_then(SourceHandle::canary_time);
        for database in &state.databases {
            let subscribers = database.subscriptions.registry.subscribers() as u64;
            stats.subscribers += subscribers;
            stats.channels += database.acknowledged() as u64;
            if database.session.is_open() {
                stats.sessions += 1;
                stats.sessions_saved += subscribers.saturating_sub(1);
            }
        }
        stats
    }

    /// Discards all that waits, and counts it as dropped, when all threads of a run have ended.
    pub(crate) fn discard_waiting(self: &Arc<Self>) {
        let discarded = self.change(|state, actions| {
            let of = |database: &mut Database<I>| {
                database.stop_receivers(actions);
                (database.subscriptions.take_departed(), Arc::clone(&database.subscriptions.disconnected))
            };
            state.databases.iter_mut().map(of).collect::<Vec<_>>()
        });
        let counters = &self.context.counters;
        let of_disconnected = |(_, disconnected): &(_, Arc<DisconnectedSubscribers<_>>)| {
            disconnected.sum(|subscriber| {
                counters.dropped.add(subscriber.waiting(counters) as u64);
                subscriber.reset();
                0
            })
        };
        discarded.iter().for_each(|it| _ = of_disconnected(it));
        self.context.deferred_drop.drop_all();
    }

    /// Stops the current run, or only `run` if that is given. Returns `true` if its threads have not ended yet.
    pub(crate) fn halt(self: &Arc<Self>, run: Option<u64>) -> bool {
        self.change(|state, actions| {
            if run.is_some_and(|run| run != state.run) {
                return false;
            }
            let is_running = matches!(state.phase, RunPhase::Starting | RunPhase::Running);
            if is_running {
                state.phase = RunPhase::Stopping;
                // From here on nothing is requested from the manager.
                if let Some(handle) = state.handle.take() {
                    handle.stop();
                }
                for database in &mut state.databases {
                    database.end_session(actions);
                }
                if let Some(dispatcher) = &state.dispatcher {
                    dispatcher.halt();
                }
                self.notify_phase_changed();
            }
            is_running || state.phase == RunPhase::Stopping
        })
    }

    /// Stops a run because one of its threads panicked, in code of the user: that of an id or of a ticket's waker.
    pub(crate) fn fail(self: &Arc<Self>, run: u64) {
        {
            let mut state = self.lock();
            if state.run == run && state.phase != RunPhase::Stopped {
                state.failure = Some(Error::io("calling", io::Error::other("a thread of the notifier panicked")));
            }
        }
        self.halt(Some(run));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use std::thread;

    use crate::notifier::Notifier;

    #[test]
    fn n07_a_waiting_thread_gets_the_lock_before_the_thread_that_released_it() {
        let n = Notifier::builder("host=localhost user=shop").unwrap().build::<u32>();
        let core = n.core();
        let had_lock = AtomicBool::new(false);
        thread::scope(|scope| {
            let held = core.lock();
            scope.spawn(|| {
                let _state = core.lock();
                had_lock.store(true, Relaxed);
            });
            while core.turn.try_lock().is_ok() {
                thread::yield_now();
            }
            drop(held);
            drop(core.lock());
            assert!(had_lock.load(Relaxed));
        });
    }
}
