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
use crate::notifier::after::{After, Undo};
use crate::notifier::builder::Settings;
use crate::notifier::crew::Crew;
use crate::notifier::database::{Database, Session};
use crate::notifier::graveyard::Graveyard;
use crate::notifier::listening::Asks;
use crate::notifier::panics::Panics;
use crate::notifier::promise::Promise;
use crate::notifier::tally::Tally;

pub(crate) struct Inner<I: 'static> {
    pub(crate) settings: Settings,
    pub(crate) tally: Tally,
    pub(crate) panics: Panics<I>,
    pub(crate) graveyard: Arc<Graveyard>,
    /// All threads of this notifier: none of them may wait for another.
    pub(crate) crew_mark: Arc<ThreadMark>,
    world: Mutex<World<I>>,
    /// Held by who waits for the world, so that who wants it back at once comes after.
    turn: Mutex<()>,
    /// Tells that the phase has changed.
    pub(crate) changed: Condvar,
}

pub(crate) struct World<I: 'static> {
    pub(crate) phase: Phase,
    /// Counts the starts, so that what comes late from one run is known in the next.
    pub(crate) run: u64,
    /// The latest run that came to be running.
    pub(crate) started: u64,
    /// The loop, while there is one.
    pub(crate) handle: Option<Handle>,
    pub(crate) crew: Option<Arc<Crew<I>>>,
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
pub(crate) enum Phase {
    Stopped,
    Starting,
    Running,
    Stopping,
}

impl<I: 'static> World<I> {
    /// Returns `true` if notifications can arrive, now or after a session is restored.
    pub(crate) fn can_receive(&self) -> bool {
        let is_lost = |database: &Database<I>| matches!(database.session, Session::Lost(_));
        self.phase == Phase::Running && (self.databases.is_empty() || !self.databases.iter().all(is_lost))
    }
}

impl<I: 'static> Inner<I> {
    pub(crate) fn new(settings: Settings) -> Self {
        let world = World {
            phase: Phase::Stopped,
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
            tally: Tally::default(),
            panics: Panics::default(),
            graveyard: Arc::default(),
            crew_mark: Arc::new(ThreadMark::crew()),
            world: Mutex::new(world),
            turn: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, World<I>> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // Nothing of the user's runs while it is locked, but for the id's own `Clone`, `Eq` and `Hash`.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this is one of the notifier's own threads: inside a callback, as far as anybody can tell.
    pub(crate) fn is_inside(&self) -> bool {
        self.crew_mark.is_current()
    }
}

impl<I: Clone + Eq + Hash + Send + 'static> Inner<I> {
    /// Does something under the lock, and what follows from it once that is free.
    pub(crate) fn act<T>(&self, act: impl FnOnce(&mut World<I>, &mut After<I>) -> T) -> T {
        let mut after = After::default();
        let (done, crew) = {
            let mut world = self.lock();
            let done = act(&mut world, &mut after);
            // Whom it is for, should another run have begun a moment later.
            (done, world.crew.clone())
        };
        if let Some(crew) = crew.filter(|_| !after.schedule.is_empty()) {
            crew.schedule(after.schedule);
        }
        for (promise, result) in after.kept {
            promise.kept(result);
        }
        self.graveyard.empty();
        done
    }

    /// Changes something of one database, and has the server follow.
    pub(crate) fn change<T>(
        self: &Arc<Self>,
        at: usize,
        change: impl FnOnce(&mut Database<I>, &mut After<I>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.act(|world, after| {
            let done = change(world.database(at)?, after);
            if world.autorun {
                self.sync(world, at, after);
            }
            done
        })
    }

    /// Changes what needs a server that follows, with a ticket for what is to be heard.
    pub(crate) fn follow<T>(
        self: &Arc<Self>,
        at: usize,
        change: impl FnOnce(&mut Database<I>, &mut After<I>) -> Result<(T, Awaited<I>), Error>,
    ) -> Result<(T, Ticket<()>), Error> {
        self.change_checked(at, World::check_follows, change)
    }

    /// Changes something, with a ticket that resolves once these channels are heard that are to be; at once, where it
    /// doesn't run.
    pub(crate) fn change_and_wait<T>(
        self: &Arc<Self>,
        at: usize,
        change: impl FnOnce(&mut Database<I>, &mut After<I>) -> Result<(T, Awaited<I>), Error>,
    ) -> Result<(T, Ticket<()>), Error> {
        self.change_checked(at, |_, _| Ok(()), change)
    }

    fn change_checked<T>(
        self: &Arc<Self>,
        at: usize,
        check: impl FnOnce(&mut World<I>, usize) -> Result<(), Error>,
        change: impl FnOnce(&mut Database<I>, &mut After<I>) -> Result<(T, Awaited<I>), Error>,
    ) -> Result<(T, Ticket<()>), Error> {
        let (promise, ticket) = Promise::new(&self.crew_mark);
        let done = self.act(|world, after| {
            check(world, at)?;
            let (done, channels) = change(world.database(at)?, after)?;
            if world.autorun {
                self.sync(world, at, after);
                for (channel, undo) in channels {
                    world.database(at)?.wait_for(&channel, &promise, undo);
                }
            }
            Ok(done)
        });
        promise.kept(Ok(()));
        done.map(|done| (done, ticket))
    }

    /// Takes back what couldn't be waited for.
    pub(crate) fn take_back(self: &Arc<Self>, at: usize, channel: &str, undo: Undo<I>) {
        // It fails for a database only that isn't there.
        let _ = self.change(at, |database, after| {
            database.undo(channel, undo, after);
            Ok(())
        });
    }

    /// Has the servers follow all that was changed, and gives a ticket for what they haven't acknowledged yet.
    pub(crate) fn apply(self: &Arc<Self>) -> Result<Ticket<()>, Error> {
        let (promise, ticket) = Promise::new(&self.crew_mark);
        let applied = self.act(|world, after| {
            world.check_runs()?;
            for at in 0..world.databases.len() {
                let database = world.database(at)?;
                database.unheard().iter().for_each(|channel| database.registry.look_again(channel));
                self.sync(world, at, after);
                let database = world.database(at)?;
                for channel in database.unheard() {
                    database.wait_for(&channel, &promise, None);
                }
            }
            Ok(())
        });
        promise.kept(Ok(()));
        applied.map(|()| ticket)
    }

    /// Asks the server for what has changed.
    pub(super) fn sync(self: &Arc<Self>, world: &mut World<I>, at: usize, after: &mut After<I>) {
        if let Some(asks) = world.databases.get_mut(at).map(|database| database.sync(after)) {
            self.ask(world, at, asks);
        }
    }

    pub(super) fn ask(self: &Arc<Self>, world: &World<I>, at: usize, asks: Asks) {
        let Some(handle) = &world.handle else { return };
        let Some(id) = world.databases.get(at).and_then(|database| database.session.id()) else { return };
        if !asks.unlisten.is_empty() {
            // Nobody waits for it, and what goes wrong is mended as the session is back.
            drop(handle.unlisten(id, &asks.unlisten));
        }
        if !asks.listen.is_empty() {
            let channels = asks.listen.iter().map(|(channel, _)| channel.to_string()).collect();
            let (inner, run) = (Arc::clone(self), world.run);
            handle.listen_then(id, channels, move |answer| {
                inner.on_loop(run, |inner, world, after| {
                    if let Some(database) = world.databases.get_mut(at) {
                        database.answered(asks.listen, &answer, after);
                        // What was refused may be wanted no more.
                        if world.autorun {
                            inner.sync(world, at, after);
                        }
                    }
                });
            });
        }
    }

    /// Does something on the loop's thread, as long as it is that of this run.
    fn on_loop(self: &Arc<Self>, run: u64, act: impl FnOnce(&Arc<Self>, &mut World<I>, &mut After<I>)) {
        self.act(|world, after| {
            if world.run == run && world.handle.is_some() {
                act(self, world, after);
            }
        });
    }

    /// Adds a database, or finds the one that shares its session; opens that where the notifier runs.
    pub(crate) fn database(self: &Arc<Self>, config: Config) -> usize {
        let mut world = self.lock();
        let known = world.databases.iter().position(|database| database.config.shares_session_with(&config));
        known.unwrap_or_else(|| {
            let at = world.databases.len();
            world.databases.push(Database::new(config));
            if let Some(handle) = world.handle.clone()
                && let Some(database) = world.databases.get_mut(at)
            {
                let (channels, config) = (database.begin(self.settings.own_channel(), true), database.config.clone());
                let (inner, run) = (Arc::clone(self), world.run);
                handle.dial_then(config, channels, move |id| {
                    inner.on_loop(run, |_, world, _| {
                        if let (Ok(id), Some(database)) = (id, world.databases.get_mut(at)) {
                            database.session = Session::Opening(Some(id));
                            world.by_connection.insert(id, at);
                        }
                    });
                });
            }
            at
        })
    }
}

impl<I: Clone + Eq + Hash + 'static> World<I> {
    pub(crate) fn database(&mut self, at: usize) -> Result<&mut Database<I>, Error> {
        self.databases.get_mut(at).ok_or(Error::NotRunning)
    }

    /// Refuses what needs a notifier that runs.
    fn check_runs(&self) -> Result<(), Error> {
        match self.phase {
            Phase::Starting | Phase::Running => Ok(()),
            Phase::Stopped | Phase::Stopping => Err(Error::NotRunning),
        }
    }

    /// Refuses a subscription that nobody would carry out.
    pub(crate) fn check_follows(&mut self, at: usize) -> Result<(), Error> {
        if !self.autorun {
            return Ok(());
        }
        self.check_runs()?;
        match &self.database(at)?.session {
            Session::Lost(error) => Err(error.clone()),
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
        let inner = n.inner();
        let had_it = AtomicBool::new(false);
        thread::scope(|scope| {
            let held = inner.lock();
            scope.spawn(|| {
                let _world = inner.lock();
                had_it.store(true, Relaxed);
            });
            while inner.turn.try_lock().is_ok() {
                thread::yield_now();
            }
            drop(held);
            drop(inner.lock());
            assert!(had_it.load(Relaxed));
        });
    }
}
