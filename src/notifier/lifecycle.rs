//! From a start to a stop: the threads of one run.
//!
//! ```text
//!   start ─▶ loop's thread: manager ──▶ queues ──▶ dispatchers
//!   stop ──▶ the loop ends, the dispatchers end after the call they are in, the last thread says so
//! ```

use std::hash::Hash;
use std::io;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::Duration;

use crate::clock;
use crate::error::Error;
use crate::manager::{Event, NotificationManager};
use crate::notifier::StillRunning;
use crate::notifier::database::DatabaseSession;
use crate::notifier::dispatcher::Dispatcher;
use crate::notifier::shared::{NotifierCore, NotifierState, RunPhase};

/// How long to wait for threads to end that have nothing left to do, before looking again.
const MOMENT: Duration = Duration::from_millis(1);

impl<I: Clone + Eq + Hash + Send + 'static> NotifierCore<I> {
    pub(crate) fn start(self: &Arc<Self>) -> Result<(), Error> {
        let mut state = self.lock();
        while state.phase == RunPhase::Stopping && !self.is_inside() {
            if let Some((_, channel)) = state.crew.as_ref().and_then(|crew| crew.calling()) {
                return Err(Error::StillRunning { channel });
            }
            // Its threads are about to end.
            state = self.changed.wait_timeout(state, MOMENT).unwrap_or_else(PoisonError::into_inner).0;
        }
        let run = match state.phase {
            // With every session lost for good, only the notifier's threads still run, and callbacks that were called.
            RunPhase::Running if !state.can_receive() && !self.is_inside() => {
                drop(state);
                // Without a limit there is no error.
                let _ = self.stop_within(None);
                return self.start();
            }
            RunPhase::Running => return Ok(()),
            _ if self.is_inside() => {
                return Err(Error::InsideCallback { instead: "start it from another thread" });
            }
            // Somebody else starts it: the outcome is the same for both.
            RunPhase::Starting | RunPhase::Stopping => {
                let run = state.run;
                drop(state);
                run
            }
            RunPhase::Stopped => {
                let launch = self.prepare(&mut state);
                drop(state);
                self.launch(launch)?
            }
        };
        self.wait_for_start(run)
    }

    /// Says that it starts, and gives what the threads are to have.
    fn prepare(self: &Arc<Self>, state: &mut NotifierState<I>) -> RunThreads<I> {
        let mut manager = self.settings.manager();
        if self.settings.keep_trying {
            manager.supervise(self.settings.backoff, self.settings.heartbeat);
        }
        let crew = Arc::new(Dispatcher::new(self.settings.workers + 1));
        state.run += 1;
        state.phase = RunPhase::Starting;
        if self.settings.keep_trying {
            (state.phase, state.started) = (RunPhase::Running, state.run);
        }
        state.failure = None;
        state.handle = Some(manager.handle());
        state.crew = Some(Arc::clone(&crew));
        state.by_connection.clear();
        for (at, database) in state.databases.iter_mut().enumerate() {
            let channels = database.begin(self.settings.own_channel(), !self.settings.keep_trying);
            let id = manager.dial_within(database.config.clone(), channels, database.limits);
            database.session = DatabaseSession::Opening(Some(id));
            state.by_connection.insert(id, at);
        }
        RunThreads { manager, crew, run: state.run }
    }

    /// Starts the threads. Those that can't be started count as ended, and the others follow.
    fn launch(self: &Arc<Self>, RunThreads { manager, crew, run }: RunThreads<I>) -> Result<u64, Error> {
        let leaving = || ThreadExit { core: Arc::clone(self), crew: Arc::clone(&crew), run };
        let name = |what: &str| thread::Builder::new().name(format!("notifier {what}"));
        let mut spawned = Ok(());
        for number in 0..self.settings.workers {
            let leaving = leaving();
            if spawned.is_ok() {
                let work = move || {
                    leaving.core.threads.join();
                    let NotifierCore { counters, panics, deferred_drop, .. } = &*leaving.core;
                    leaving.crew.work(number, counters, panics, deferred_drop);
                };
                spawned = name("dispatcher").spawn(work).map(drop);
            }
        }
        let (leaving, core) = (leaving(), Arc::clone(self));
        let turning = NotifierLoop { core: Arc::clone(self), manager, run };
        if spawned.is_ok() {
            let turn = move || {
                // It has left only when the manager is gone.
                let (_leaving, mut turning) = (leaving, turning);
                turning.core.threads.join();
                turning.turn();
            };
            spawned = name("loop").spawn(turn).map(drop);
        }
        spawned.map(|()| run).map_err(|error| {
            core.halt(Some(run));
            Error::io("starting a thread", error)
        })
    }

    /// Waits until every session is open, or the first can't be opened.
    fn wait_for_start(&self, run: u64) -> Result<(), Error> {
        let mut state = self.lock();
        while state.run == run && state.phase == RunPhase::Starting {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        // A start that failed is over when its threads are.
        while state.run == run && state.phase == RunPhase::Stopping && state.failure.is_some() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        match &state.failure {
            // It may have been stopped since.
            _ if state.started >= run => Ok(()),
            Some(error) if state.run == run => Err(error.clone()),
            _ => Err(Error::Stopped),
        }
    }

    /// Has everything end, or one run if that is the current one; says whether there was anything to end.
    pub(crate) fn halt(&self, run: Option<u64>) -> bool {
        self.act(|state, after| {
            if run.is_some_and(|run| run != state.run) {
                return false;
            }
            let runs = matches!(state.phase, RunPhase::Starting | RunPhase::Running);
            if runs {
                state.phase = RunPhase::Stopping;
                // From here on nobody asks the loop for anything.
                if let Some(handle) = state.handle.take() {
                    drop(handle.stop());
                }
                for database in &mut state.databases {
                    database.end_session(after);
                }
                if let Some(crew) = &state.crew {
                    crew.halt();
                }
                self.changed.notify_all();
            }
            runs || state.phase == RunPhase::Stopping
        })
    }

    /// Ends a run because of a fault that isn't the notifier's: an id's, or that of what waits for a ticket.
    fn fail(&self, run: u64) {
        {
            let mut state = self.lock();
            if state.run == run && state.phase != RunPhase::Stopped {
                state.failure = Some(Error::io("calling", io::Error::other("a thread of the notifier panicked")));
            }
        }
        self.halt(Some(run));
    }

    pub(crate) fn stop_within(&self, limit: Option<Duration>) -> Result<(), StillRunning<I>> {
        if !self.halt(None) || self.is_inside() {
            return Ok(());
        }
        let deadline = limit.and_then(|limit| clock::now().checked_add(limit));
        let mut state = self.lock();
        let run = state.run;
        while state.run == run && state.phase == RunPhase::Stopping {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(clock::now()));
            state = match left {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    let calling = state.crew.as_ref().and_then(|crew| crew.calling());
                    if left.is_zero()
                        && let Some((id, channel)) = calling
                    {
                        return Err(StillRunning { id, channel });
                    }
                    // Without a call there is nothing to wait for but the threads' own ends.
                    let left = left.max(MOMENT);
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        Ok(())
    }
}

/// What the threads of a run are given.
struct RunThreads<I: 'static> {
    manager: NotificationManager,
    crew: Arc<Dispatcher<I>>,
    run: u64,
}

/// The loop, which stops everything as it ends, however it ends: first nobody asks the manager for anything any more,
/// then it goes.
struct NotifierLoop<I: Clone + Eq + Hash + Send + 'static> {
    core: Arc<NotifierCore<I>>,
    manager: NotificationManager,
    run: u64,
}

impl<I: Clone + Eq + Hash + Send + 'static> NotifierLoop<I> {
    fn turn(&mut self) {
        let Self { core, manager, .. } = self;
        let mut starting = !core.settings.keep_trying;
        loop {
            if starting && core.lock().phase != RunPhase::Starting {
                starting = false;
                manager.supervise(core.settings.backoff, core.settings.heartbeat);
            }
            match manager.next_event() {
                Some(Event::Notifies(id, batch)) => core.share_out(id, batch.iter()),
                Some(Event::Opened(id)) => {
                    if let Some(db) = manager.get(id) {
                        core.opened(id, None, &db.session.channels().iter().collect(), db.session.limits());
                    }
                }
                Some(Event::Restored(id, gap)) => {
                    if let Some(db) = manager.get(id) {
                        core.opened(id, Some(gap), &db.session.channels().iter().collect(), db.session.limits());
                    }
                }
                Some(Event::Lost(_, error)) if starting => {
                    core.lock().failure = Some(error);
                    return;
                }
                Some(Event::Lost(id, error)) => {
                    let comes_back = manager.restoring().any(|(restoring, _)| restoring == id);
                    core.lost(id, &error, comes_back);
                }
                // The manager logs a refused check.
                Some(Event::Idle | Event::InTransaction(_) | Event::CheckRefused(..)) => {}
                None => {
                    // Nobody is left only where the poller itself has failed.
                    let failed = manager.take_garbage().pop().map(|(_, dead)| dead.error().clone());
                    let mut state = core.lock();
                    if state.phase != RunPhase::Stopping {
                        state.failure = failed;
                    }
                    return;
                }
            }
        }
    }
}

impl<I: Clone + Eq + Hash + Send + 'static> Drop for NotifierLoop<I> {
    fn drop(&mut self) {
        self.core.halt(Some(self.run));
    }
}

/// A thread of the notifier, which has ended when this is dropped, however it ended.
struct ThreadExit<I: Clone + Eq + Hash + Send + 'static> {
    core: Arc<NotifierCore<I>>,
    crew: Arc<Dispatcher<I>>,
    run: u64,
}

impl<I: Clone + Eq + Hash + Send + 'static> Drop for ThreadExit<I> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.core.fail(self.run);
        }
        if !self.crew.leave() {
            return;
        }
        let mut state = self.core.lock();
        if state.run == self.run {
            // What still waits isn't delivered any more; each subscriber is told so at the next start.
            let waiting: usize = state.databases.iter().map(|database| database.waiting().1).sum();
            self.core.counters.dropped.add(waiting as u64);
            state.databases.iter().for_each(|database| database.reset_queues());
            state.phase = RunPhase::Stopped;
            state.crew = None;
            self.core.changed.notify_all();
            drop(state);
            self.core.deferred_drop.empty();
        }
    }
}
