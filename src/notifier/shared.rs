//! What the threads of a notifier share, and how a change reaches the server.
//!
//! Everything that changes does so under one lock, and what is asked of the servers is asked under it: so it is asked in
//! the order of the changes. What may run somebody else's code (a ticket's waker, a function that is dropped) waits
//! until the lock is free.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::config::Config;
use crate::error::Error;
use crate::manager::{ConnId, Handle, ThreadMark, Ticket};
use crate::notifier::ack_group::AckGroup;
use crate::notifier::builder::NotifierSettings;
use crate::notifier::counters::NotifierCounters;
use crate::notifier::database::{Database, DatabaseSession};
use crate::notifier::deferred::{DeferredActions, Undo};
use crate::notifier::deferred_drop::DeferredDrop;
use crate::notifier::dispatcher::Dispatcher;
use crate::notifier::listening::ListenDiff;
use crate::notifier::panics::PanicLog;

pub(crate) struct NotifierCore<I: 'static> {
    pub(crate) settings: NotifierSettings,
    pub(crate) counters: NotifierCounters,
    pub(crate) panics: PanicLog<I>,
    pub(crate) deferred_drop: Arc<DeferredDrop>,
    /// All threads of this notifier: none of them may wait for another.
    pub(crate) threads: Arc<ThreadMark>,
    state: Mutex<NotifierState<I>>,
    /// Held by who waits for the state, so that who wants it back at once comes after.
    turn: Mutex<()>,
    /// Tells that the phase has changed.
    pub(crate) changed: Condvar,
}

pub(crate) struct NotifierState<I: 'static> {
    pub(crate) phase: RunPhase,
    /// Counts the starts, so that what comes late from one run is known in the next.
    pub(crate) run: u64,
    /// The latest run that came to be running.
    pub(crate) started: u64,
    /// The loop, while there is one.
    pub(crate) handle: Option<Handle>,
    pub(crate) crew: Option<Arc<Dispatcher<I>>>,
    /// Why it isn't running, where it stopped by itself.
    pub(crate) failure: Option<Error>,
    /// Whether changes reach the servers by themselves.
    pub(crate) autorun: bool,
    pub(crate) databases: Vec<Database<I>>,
    pub(crate) by_connection: HashMap<ConnId, usize>,
}

/// Channels that are to be heard, and how to take them back where the server refuses.
pub(crate) type Awaited<I> = Vec<(Box<str>, Option<Undo<I>>)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunPhase {
    Stopped,
    Starting,
    Running,
    Stopping,
}

impl<I: 'static> NotifierState<I> {
    /// Returns `true` if notifications can arrive, now or after a session is restored.
    pub(crate) fn can_receive(&self) -> bool {
        let is_lost = |database: &Database<I>| matches!(database.session, DatabaseSession::Lost(_));
        self.phase == RunPhase::Running && (self.databases.is_empty() || !self.databases.iter().all(is_lost))
    }
}

impl<I: 'static> NotifierCore<I> {
    pub(crate) fn new(settings: NotifierSettings) -> Self {
        let state = NotifierState {
            phase: RunPhase::Stopped,
            run: 0,
            started: 0,
            handle: None,
            crew: None,
            failure: None,
            autorun: settings.autorun,
            databases: Vec::new(),
            by_connection: HashMap::new(),
        };
        Self {
            settings,
            counters: NotifierCounters::default(),
            panics: PanicLog::default(),
            deferred_drop: Arc::default(),
            threads: Arc::new(ThreadMark::crew()),
            state: Mutex::new(state),
            turn: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, NotifierState<I>> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // Nothing of the user's runs while it is locked, but for the id's own `Clone`, `Eq` and `Hash`.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this is one of the notifier's own threads: inside a callback, as far as anybody can tell.
    pub(crate) fn is_inside(&self) -> bool {
        self.threads.is_current()
    }
}

impl<I: Clone + Eq + Hash + Send + 'static> NotifierCore<I> {
    /// Does something under the lock, and what follows from it once that is free.
    pub(crate) fn act<T>(&self, act: impl FnOnce(&mut NotifierState<I>, &mut DeferredActions<I>) -> T) -> T {
        let mut after = DeferredActions::default();
        let (done, crew) = {
            let mut state = self.lock();
            let done = act(&mut state, &mut after);
            // Whom it is for, should another run have begun a moment later.
            (done, state.crew.clone())
        };
        if let Some(crew) = crew.filter(|_| !after.schedule.is_empty()) {
            crew.schedule(after.schedule);
        }
        for (group, result) in after.kept {
            group.complete(result);
        }
        self.deferred_drop.empty();
        done
    }

    /// Changes something of one database, and has the server follow.
    pub(crate) fn change<T>(
        self: &Arc<Self>,
        at: usize,
        change: impl FnOnce(&mut Database<I>, &mut DeferredActions<I>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.act(|state, after| {
            let done = change(state.database(at)?, after);
            if state.autorun {
                self.sync(state, at, after);
            }
            done
        })
    }

    /// Changes what needs a server that follows, with a ticket for what is to be heard.
    pub(crate) fn follow<T>(
        self: &Arc<Self>,
        at: usize,
        change: impl FnOnce(&mut Database<I>, &mut DeferredActions<I>) -> Result<(T, Awaited<I>), Error>,
    ) -> Result<(T, Ticket<()>), Error> {
        self.change_checked(at, NotifierState::check_follows, change)
    }

    /// Changes something, with a ticket that resolves once these channels are heard that are to be; at once, where it
    /// doesn't run.
    pub(crate) fn change_and_wait<T>(
        self: &Arc<Self>,
        at: usize,
        change: impl FnOnce(&mut Database<I>, &mut DeferredActions<I>) -> Result<(T, Awaited<I>), Error>,
    ) -> Result<(T, Ticket<()>), Error> {
        self.change_checked(at, |_, _| Ok(()), change)
    }

    fn change_checked<T>(
        self: &Arc<Self>,
        at: usize,
        check: impl FnOnce(&mut NotifierState<I>, usize) -> Result<(), Error>,
        change: impl FnOnce(&mut Database<I>, &mut DeferredActions<I>) -> Result<(T, Awaited<I>), Error>,
    ) -> Result<(T, Ticket<()>), Error> {
        let (group, ticket) = AckGroup::new(&self.threads);
        let done = self.act(|state, after| {
            check(state, at)?;
            let (done, channels) = change(state.database(at)?, after)?;
            if state.autorun {
                self.sync(state, at, after);
                for (channel, undo) in channels {
                    state.database(at)?.wait_for(&channel, &group, undo);
                }
            }
            Ok(done)
        });
        group.complete(Ok(()));
        done.map(|done| (done, ticket))
    }

    /// Takes back what couldn't be waited for.
    pub(crate) fn revert(self: &Arc<Self>, at: usize, channel: &str, undo: Undo<I>) {
        // It fails for a database only that isn't there.
        let _ = self.change(at, |database, after| {
            database.undo(channel, undo, after);
            Ok(())
        });
    }

    /// Has the servers follow all that was changed, and gives a ticket for what they haven't acknowledged yet.
    pub(crate) fn apply(self: &Arc<Self>) -> Result<Ticket<()>, Error> {
        let (group, ticket) = AckGroup::new(&self.threads);
        let applied = self.act(|state, after| {
            state.check_runs()?;
            for at in 0..state.databases.len() {
                let database = state.database(at)?;
                database.unacknowledged().iter().for_each(|channel| database.registry.mark_changed(channel));
                self.sync(state, at, after);
                let database = state.database(at)?;
                for channel in database.unacknowledged() {
                    database.wait_for(&channel, &group, None);
                }
            }
            Ok(())
        });
        group.complete(Ok(()));
        applied.map(|()| ticket)
    }

    /// ListenDiff the server for what has changed.
    pub(super) fn sync(self: &Arc<Self>, state: &mut NotifierState<I>, at: usize, after: &mut DeferredActions<I>) {
        if let Some(asks) = state.databases.get_mut(at).map(|database| database.sync(after)) {
            self.ask(state, at, asks);
        }
    }

    pub(super) fn ask(self: &Arc<Self>, state: &NotifierState<I>, at: usize, asks: ListenDiff) {
        let Some(handle) = &state.handle else { return };
        let Some(id) = state.databases.get(at).and_then(|database| database.session.id()) else { return };
        if !asks.unlisten.is_empty() {
            // Nobody waits for it, and what goes wrong is mended as the session is back.
            drop(handle.unlisten(id, &asks.unlisten));
        }
        if !asks.listen.is_empty() {
            let channels = asks.listen.iter().map(|(channel, _)| channel.to_string()).collect();
            let (core, run) = (Arc::clone(self), state.run);
            handle.listen_then(id, channels, move |answer| {
                core.on_loop(run, |core, state, after| {
                    if let Some(database) = state.databases.get_mut(at) {
                        database.answered(asks.listen, &answer, after);
                        // What was refused may be wanted no more.
                        if state.autorun {
                            core.sync(state, at, after);
                        }
                    }
                });
            });
        }
    }

    /// Does something on the loop's thread, as long as it is that of this run.
    fn on_loop(
        self: &Arc<Self>,
        run: u64,
        act: impl FnOnce(&Arc<Self>, &mut NotifierState<I>, &mut DeferredActions<I>),
    ) {
        self.act(|state, after| {
            if state.run == run && state.handle.is_some() {
                act(self, state, after);
            }
        });
    }

    /// Adds a database, or finds the one that shares its session; opens that where the notifier runs.
    pub(crate) fn database(self: &Arc<Self>, config: Config) -> usize {
        let mut state = self.lock();
        let known = state.databases.iter().position(|database| database.config.shares_session_with(&config));
        known.unwrap_or_else(|| {
            let at = state.databases.len();
            state.databases.push(Database::new(config));
            if let Some(handle) = state.handle.clone()
                && let Some(database) = state.databases.get_mut(at)
            {
                let (channels, config) = (database.begin(self.settings.own_channel(), true), database.config.clone());
                let (core, run) = (Arc::clone(self), state.run);
                handle.dial_then(config, channels, move |id| {
                    core.on_loop(run, |_, state, _| {
                        if let (Ok(id), Some(database)) = (id, state.databases.get_mut(at)) {
                            database.session = DatabaseSession::Opening(Some(id));
                            state.by_connection.insert(id, at);
                        }
                    });
                });
            }
            at
        })
    }
}

impl<I: Clone + Eq + Hash + 'static> NotifierState<I> {
    pub(crate) fn database(&mut self, at: usize) -> Result<&mut Database<I>, Error> {
        self.databases.get_mut(at).ok_or(Error::NotRunning)
    }

    /// Refuses what needs a notifier that runs.
    fn check_runs(&self) -> Result<(), Error> {
        match self.phase {
            RunPhase::Starting | RunPhase::Running => Ok(()),
            RunPhase::Stopped | RunPhase::Stopping => Err(Error::NotRunning),
        }
    }

    /// Refuses a subscription that nobody would carry out.
    pub(crate) fn check_follows(&mut self, at: usize) -> Result<(), Error> {
        if !self.autorun {
            return Ok(());
        }
        self.check_runs()?;
        match &self.database(at)?.session {
            DatabaseSession::Lost(error) => Err(error.clone()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use std::thread;

    use crate::notifier::Notifier;

    #[test]
    fn n07_who_waits_for_the_lock_comes_before_who_wants_it_back() {
        let n = Notifier::builder("host=localhost user=shop").unwrap().build::<u32>();
        let core = n.core();
        let had_it = AtomicBool::new(false);
        thread::scope(|scope| {
            let held = core.lock();
            scope.spawn(|| {
                let _world = core.lock();
                had_it.store(true, Relaxed);
            });
            while core.turn.try_lock().is_ok() {
                thread::yield_now();
            }
            drop(held);
            drop(core.lock());
            assert!(had_it.load(Relaxed));
        });
    }
}
