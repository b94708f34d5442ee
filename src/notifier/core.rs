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
use crate::gap::Gap;
use crate::manager::{ConnId, Handle, ThreadMark, Ticket};
use crate::notification::Batch;
use crate::notifier::builder::Settings;
use crate::notifier::crew::{Crew, discard};
use crate::notifier::database::{After, Asks, Database, Session, Undo};
use crate::notifier::panics::Panics;
use crate::notifier::promise::Promise;
use crate::notifier::tally::Tally;
use crate::proto::sql::Limits;

pub(crate) struct Inner<I> {
    pub(crate) settings: Settings,
    pub(crate) tally: Tally,
    pub(crate) panics: Panics<I>,
    /// All threads of this notifier: none of them may wait for another.
    pub(crate) crew_mark: Arc<ThreadMark>,
    world: Mutex<World<I>>,
    /// Tells that the phase has changed.
    pub(crate) changed: Condvar,
}

pub(crate) struct World<I> {
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Stopped,
    Starting,
    Running,
    Stopping,
}

impl<I> Inner<I> {
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
            crew_mark: Arc::new(ThreadMark::crew()),
            world: Mutex::new(world),
            changed: Condvar::new(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, World<I>> {
        // Nothing of the user's runs while it is locked, but for the id's own `Clone`, `Eq` and `Hash`.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this is one of the notifier's own threads: inside a callback, as far as anybody can tell.
    pub(crate) fn is_inside(&self) -> bool {
        self.crew_mark.is_current()
    }
}

impl<I: Clone + Eq + Hash + Send + 'static> Inner<I> {
    /// Changes something of one database, and has the server follow.
    pub(crate) fn change<T>(
        self: &Arc<Self>,
        at: usize,
        change: impl FnOnce(&mut Database<I>, &mut After<I>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.change_and_wait(at, |database, after| Ok((change(database, after)?, Vec::new()))).map(|(done, _)| done)
    }

    /// The same, with a ticket that resolves once these channels are heard that are to be.
    pub(crate) fn change_and_wait<T>(
        self: &Arc<Self>,
        at: usize,
        change: impl FnOnce(&mut Database<I>, &mut After<I>) -> Result<(T, Vec<(Box<str>, Option<Undo<I>>)>), Error>,
    ) -> Result<(T, Ticket<()>), Error> {
        let mut after = After::default();
        let (promise, ticket) = Promise::new(&self.crew_mark);
        let changed = {
            let mut world = self.lock();
            let autorun = world.autorun;
            if autorun && !matches!(world.phase, Phase::Starting | Phase::Running) {
                return Err(Error::NotRunning);
            }
            let database = world.databases.get_mut(at).ok_or(Error::NotRunning)?;
            if autorun && let Session::Lost(error) = &database.session {
                return Err(error.clone());
            }
            let changed = change(database, &mut after);
            if autorun {
                self.sync(&mut world, at, &mut after);
            }
            changed.map(|(done, channels)| {
                if autorun && let Some(database) = world.databases.get_mut(at) {
                    for (channel, undo) in channels {
                        database.wait_for(&channel, &promise, undo);
                    }
                }
                done
            })
        };
        self.finish(after);
        promise.kept(Ok(()));
        changed.map(|done| (done, ticket))
    }

    /// Takes back what couldn't be waited for, also where the notifier has been stopped meanwhile.
    pub(crate) fn take_back(self: &Arc<Self>, at: usize, channel: &str, undo: Undo<I>) {
        let mut after = After::default();
        {
            let mut world = self.lock();
            if let Some(database) = world.databases.get_mut(at) {
                database.undo(channel, undo, &mut after);
                if world.autorun {
                    self.sync(&mut world, at, &mut after);
                }
            }
        }
        self.finish(after);
    }

    /// Has the servers follow all that was changed, and gives a ticket for what they haven't acknowledged yet.
    pub(crate) fn apply(self: &Arc<Self>) -> Result<Ticket<()>, Error> {
        let mut after = After::default();
        let (promise, ticket) = Promise::new(&self.crew_mark);
        {
            let mut world = self.lock();
            if !matches!(world.phase, Phase::Starting | Phase::Running) {
                return Err(Error::NotRunning);
            }
            for at in 0..world.databases.len() {
                self.sync(&mut world, at, &mut after);
                let Some(database) = world.databases.get_mut(at) else { continue };
                for channel in database.unheard() {
                    database.wait_for(&channel, &promise, None);
                }
            }
        }
        self.finish(after);
        promise.kept(Ok(()));
        Ok(ticket)
    }

    /// Asks the server for what has changed.
    fn sync(self: &Arc<Self>, world: &mut World<I>, at: usize, after: &mut After<I>) {
        if let Some(asks) = world.databases.get_mut(at).map(|database| database.sync(after)) {
            self.ask(world, at, asks);
        }
    }

    fn ask(self: &Arc<Self>, world: &World<I>, at: usize, asks: Asks) {
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
        let mut after = After::default();
        {
            let mut world = self.lock();
            if world.run == run && world.handle.is_some() {
                act(self, &mut world, &mut after);
            }
        }
        self.finish(after);
    }

    /// Does what had to wait until nothing is locked.
    pub(crate) fn finish(&self, after: After<I>) {
        if !after.schedule.is_empty()
            && let Some(crew) = self.lock().crew.clone()
        {
            crew.schedule(after.schedule);
        }
        for (promise, result) in after.kept {
            promise.kept(result);
        }
        discard(after.gone);
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
                let (channels, config) = (database.begin(), database.config.clone());
                let (inner, run) = (Arc::clone(self), world.run);
                handle.open_then(config, channels, move |id| {
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

/// What the loop tells.
impl<I: Clone + Eq + Hash + Send + 'static> Inner<I> {
    fn on_event(self: &Arc<Self>, id: ConnId, act: impl FnOnce(&Arc<Self>, &mut World<I>, usize, &mut After<I>)) {
        let mut after = After::default();
        {
            let mut world = self.lock();
            if let Some(at) = world.by_connection.get(&id).copied() {
                act(self, &mut world, at, &mut after);
            }
        }
        self.finish(after);
    }

    /// A batch came: everybody's share goes into their queues.
    pub(crate) fn heard(self: &Arc<Self>, id: ConnId, batch: &Batch) {
        self.tally.heard.add(batch.len() as u64);
        self.on_event(id, |inner, world, at, after| {
            let Some(database) = world.databases.get_mut(at) else { return };
            let mut too_slow = HashMap::new();
            for n in batch {
                let Ok(channel) = std::str::from_utf8(n.channel_bytes()) else { continue };
                // One copy for all, which keeps nothing of the buffer that it came in.
                let mut copy = None;
                for entry in database.registry.audience(channel) {
                    let (pushed, schedule) = entry.push(copy.get_or_insert_with(|| n.to_owned()));
                    if schedule {
                        after.schedule.push(Arc::clone(entry.subscriber()));
                    }
                    if pushed.dropped > 0 {
                        inner.tally.dropped.add(pushed.dropped);
                    }
                    if pushed.folded {
                        inner.tally.folded.add(1);
                    }
                    if pushed.disconnects {
                        *too_slow.entry(entry.id()).or_insert(0) += 1;
                    }
                }
            }
            let disconnects = !too_slow.is_empty();
            for (id, dropped) in too_slow {
                database.disconnect(&id, dropped, after);
            }
            if disconnects && world.autorun {
                inner.sync(world, at, after);
            }
        });
    }

    /// A session is open for the first time, or once more with a gap.
    pub(crate) fn opened(self: &Arc<Self>, id: ConnId, gap: Option<Gap>, channels: &[Box<str>], limits: Limits) {
        self.on_event(id, |inner, world, at, after| {
            let Some(database) = world.databases.get_mut(at) else { return };
            if let Some(gap) = gap {
                inner.tally.restores.add(1);
                database.was_deaf(&gap, after);
            }
            let asks = database.is_open(id, channels, limits, after);
            inner.ask(world, at, asks);
        });
    }

    /// A session is lost; for good, if it doesn't come back by itself.
    pub(crate) fn lost(self: &Arc<Self>, id: ConnId, error: &Error, comes_back: bool) {
        self.tally.losses.add(1);
        self.on_event(id, |_, world, at, after| {
            let Some(database) = world.databases.get_mut(at) else { return };
            if comes_back {
                database.session = Session::Away(id);
            } else {
                database.is_lost(error, after);
                world.by_connection.remove(&id);
            }
        });
    }
}
