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
use crate::notifier::core::{Inner, Phase, World};
use crate::notifier::crew::Crew;
use crate::notifier::database::Session;

/// How long to wait for threads to end that have nothing left to do, before looking again.
const MOMENT: Duration = Duration::from_millis(1);

impl<I: Clone + Eq + Hash + Send + 'static> Inner<I> {
    pub(crate) fn start(self: &Arc<Self>) -> Result<(), Error> {
        let mut world = self.lock();
        while world.phase == Phase::Stopping && !self.is_inside() {
            if let Some((_, channel)) = world.crew.as_ref().and_then(|crew| crew.calling()) {
                return Err(Error::StillRunning { channel });
            }
            // Its threads are about to end.
            world = self.changed.wait_timeout(world, MOMENT).unwrap_or_else(PoisonError::into_inner).0;
        }
        let run = match world.phase {
            // With every session lost for good, only the notifier's threads still run, and callbacks that were called.
            Phase::Running if !world.can_receive() && !self.is_inside() => {
                drop(world);
                // Without a limit there is no error.
                let _ = self.stop_within(None);
                return self.start();
            }
            Phase::Running => return Ok(()),
            _ if self.is_inside() => {
                return Err(Error::InsideCallback { instead: "start it from another thread" });
            }
            // Somebody else starts it: the outcome is the same for both.
            Phase::Starting | Phase::Stopping => {
                let run = world.run;
                drop(world);
                run
            }
            Phase::Stopped => {
                let launch = self.prepare(&mut world);
                drop(world);
                self.launch(launch)?
            }
        };
        self.wait_for_start(run)
    }

    /// Says that it starts, and gives what the threads are to have.
    fn prepare(self: &Arc<Self>, world: &mut World<I>) -> Launch<I> {
        let mut manager = self.settings.manager();
        if self.settings.keep_trying {
            manager.supervise(self.settings.backoff, self.settings.heartbeat);
        }
        let crew = Arc::new(Crew::new(self.settings.workers + 1));
        world.run += 1;
        world.phase = Phase::Starting;
        if self.settings.keep_trying {
            (world.phase, world.started) = (Phase::Running, world.run);
        }
        world.failure = None;
        world.handle = Some(manager.handle());
        world.crew = Some(Arc::clone(&crew));
        world.by_connection.clear();
        for (at, database) in world.databases.iter_mut().enumerate() {
            let channels = database.begin(self.settings.own_channel(), !self.settings.keep_trying);
            let id = manager.dial_within(database.config.clone(), channels, database.limits);
            database.session = Session::Opening(Some(id));
            world.by_connection.insert(id, at);
        }
        Launch { manager, crew, run: world.run }
    }

    /// Starts the threads. Those that can't be started count as ended, and the others follow.
    fn launch(self: &Arc<Self>, Launch { manager, crew, run }: Launch<I>) -> Result<u64, Error> {
        let leaving = || Leaving { inner: Arc::clone(self), crew: Arc::clone(&crew), run };
        let name = |what: &str| thread::Builder::new().name(format!("notifier {what}"));
        let mut spawned = Ok(());
        for number in 0..self.settings.workers {
            let leaving = leaving();
            if spawned.is_ok() {
                let work = move || {
                    leaving.inner.crew_mark.join();
                    let Inner { tally, panics, graveyard, .. } = &*leaving.inner;
                    leaving.crew.work(number, tally, panics, graveyard);
                };
                spawned = name("dispatcher").spawn(work).map(drop);
            }
        }
        let (leaving, inner) = (leaving(), Arc::clone(self));
        let turning = Turning { inner: Arc::clone(self), manager, run };
        if spawned.is_ok() {
            let turn = move || {
                // It has left only when the manager is gone.
                let (_leaving, mut turning) = (leaving, turning);
                turning.inner.crew_mark.join();
                turning.turn();
            };
            spawned = name("loop").spawn(turn).map(drop);
        }
        spawned.map(|()| run).map_err(|error| {
            inner.halt(Some(run));
            Error::io("starting a thread", error)
        })
    }

    /// Waits until every session is open, or the first can't be opened.
    fn wait_for_start(&self, run: u64) -> Result<(), Error> {
        let mut world = self.lock();
        while world.run == run && world.phase == Phase::Starting {
            world = self.changed.wait(world).unwrap_or_else(PoisonError::into_inner);
        }
        // A start that failed is over when its threads are.
        while world.run == run && world.phase == Phase::Stopping && world.failure.is_some() {
            world = self.changed.wait(world).unwrap_or_else(PoisonError::into_inner);
        }
        match &world.failure {
            // It may have been stopped since.
            _ if world.started >= run => Ok(()),
            Some(error) if world.run == run => Err(error.clone()),
            _ => Err(Error::Stopped),
        }
    }

    /// Has everything end, or one run if that is the current one; says whether there was anything to end.
    pub(crate) fn halt(&self, run: Option<u64>) -> bool {
        self.act(|world, after| {
            if run.is_some_and(|run| run != world.run) {
                return false;
            }
            let runs = matches!(world.phase, Phase::Starting | Phase::Running);
            if runs {
                world.phase = Phase::Stopping;
                // From here on nobody asks the loop for anything.
                if let Some(handle) = world.handle.take() {
                    drop(handle.stop());
                }
                for database in &mut world.databases {
                    database.end_session(after);
                }
                if let Some(crew) = &world.crew {
                    crew.halt();
                }
                self.changed.notify_all();
            }
            runs || world.phase == Phase::Stopping
        })
    }

    /// Ends a run because of a fault that isn't the notifier's: an id's, or that of what waits for a ticket.
    fn fail(&self, run: u64) {
        {
            let mut world = self.lock();
            if world.run == run && world.phase != Phase::Stopped {
                world.failure = Some(Error::io("calling", io::Error::other("a thread of the notifier panicked")));
            }
        }
        self.halt(Some(run));
    }

    pub(crate) fn stop_within(&self, limit: Option<Duration>) -> Result<(), StillRunning<I>> {
        if !self.halt(None) || self.is_inside() {
            return Ok(());
        }
        let deadline = limit.and_then(|limit| clock::now().checked_add(limit));
        let mut world = self.lock();
        let run = world.run;
        while world.run == run && world.phase == Phase::Stopping {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(clock::now()));
            world = match left {
                None => self.changed.wait(world).unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    let calling = world.crew.as_ref().and_then(|crew| crew.calling());
                    if left.is_zero()
                        && let Some((id, channel)) = calling
                    {
                        return Err(StillRunning { id, channel });
                    }
                    // Without a call there is nothing to wait for but the threads' own ends.
                    let left = left.max(MOMENT);
                    self.changed.wait_timeout(world, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        Ok(())
    }
}

/// What the threads of a run are given.
struct Launch<I: 'static> {
    manager: NotificationManager,
    crew: Arc<Crew<I>>,
    run: u64,
}

/// The loop, which stops everything as it ends, however it ends: first nobody asks the manager for anything any more,
/// then it goes.
struct Turning<I: Clone + Eq + Hash + Send + 'static> {
    inner: Arc<Inner<I>>,
    manager: NotificationManager,
    run: u64,
}

impl<I: Clone + Eq + Hash + Send + 'static> Turning<I> {
    fn turn(&mut self) {
        let Self { inner, manager, .. } = self;
        let mut starting = !inner.settings.keep_trying;
        loop {
            if starting && inner.lock().phase != Phase::Starting {
                starting = false;
                manager.supervise(inner.settings.backoff, inner.settings.heartbeat);
            }
            match manager.next_event() {
                Some(Event::Notifies(id, batch)) => inner.share_out(id, batch.iter()),
                Some(Event::Opened(id)) => {
                    if let Some(db) = manager.get(id) {
                        inner.opened(id, None, &db.session.channels().iter().collect(), db.session.limits());
                    }
                }
                Some(Event::Restored(id, gap)) => {
                    if let Some(db) = manager.get(id) {
                        inner.opened(id, Some(gap), &db.session.channels().iter().collect(), db.session.limits());
                    }
                }
                Some(Event::Lost(_, error)) if starting => {
                    inner.lock().failure = Some(error);
                    return;
                }
                Some(Event::Lost(id, error)) => {
                    let comes_back = manager.restoring().any(|(restoring, _)| restoring == id);
                    inner.lost(id, &error, comes_back);
                }
                // The manager logs a refused check.
                Some(Event::Idle | Event::InTransaction(_) | Event::CheckRefused(..)) => {}
                None => {
                    // Nobody is left only where the poller itself has failed.
                    let failed = manager.take_garbage().pop().map(|(_, dead)| dead.error().clone());
                    let mut world = inner.lock();
                    if world.phase != Phase::Stopping {
                        world.failure = failed;
                    }
                    return;
                }
            }
        }
    }
}

impl<I: Clone + Eq + Hash + Send + 'static> Drop for Turning<I> {
    fn drop(&mut self) {
        self.inner.halt(Some(self.run));
    }
}

/// A thread of the notifier, which has ended when this is dropped, however it ended.
struct Leaving<I: Clone + Eq + Hash + Send + 'static> {
    inner: Arc<Inner<I>>,
    crew: Arc<Crew<I>>,
    run: u64,
}

impl<I: Clone + Eq + Hash + Send + 'static> Drop for Leaving<I> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.inner.fail(self.run);
        }
        if !self.crew.leave() {
            return;
        }
        let mut world = self.inner.lock();
        if world.run == self.run {
            // What still waits isn't delivered any more; each subscriber is told so at the next start.
            let waiting: usize = world.databases.iter().map(|database| database.waiting().1).sum();
            self.inner.tally.dropped.add(waiting as u64);
            world.databases.iter().for_each(|database| database.reset_queues());
            world.phase = Phase::Stopped;
            world.crew = None;
            self.inner.changed.notify_all();
            drop(world);
            self.inner.graveyard.empty();
        }
    }
}
