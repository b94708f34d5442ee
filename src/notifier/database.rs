//! One database: its subscriptions, its session, and how far what is listened to follows what is wanted.
//!
//! ```text
//!   registry: wanted ──┬─▶ wire: asked ──▶ heard ──▶ who waited for it is told, who was deaf gets a gap
//!                      │        ▲  └─ refused ──▶ undone
//!                      └────────┴── session lost and back: compared anew
//! ```
//!
//! It asks for nothing itself: it says what is to be asked, and is told what was answered. All of it happens under one
//! lock, so that asking is in the order of the changes.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::{Arc, Weak};

use crate::config::Config;
use crate::error::{Error, ValueError};
use crate::manager::ConnId;
use crate::notifier::entry::{Ear, Entry, Subscriber};
use crate::notifier::missed::{Missed, Reason};
use crate::notifier::promise::Promise;
use crate::notifier::queue::Queue;
use crate::notifier::registry::Registry;
use crate::proto::sql::{self, Limits};

/// The channel that every session listens to, for the notifier itself.
pub(crate) const SYSTEM_CHANNEL: &str = "PGNOTIFIER";

pub(crate) struct Database<I> {
    pub(crate) config: Config,
    pub(crate) registry: Registry<I, Arc<Entry<I>>>,
    pub(crate) session: Session,
    subscribers: HashMap<I, (Arc<Subscriber<I>>, Queue)>,
    /// Those without a subscription of whom a call may still run: who comes back meanwhile waits for it to return.
    departed: HashMap<I, Weak<Subscriber<I>>>,
    /// What the session is to listen to, as far as it was said.
    wire: HashMap<Box<str>, Wire<I>>,
    generation: u64,
    /// How far names can be checked, as the last session told.
    limits: Limits,
}

/// Where its session is.
#[derive(Debug)]
pub(crate) enum Session {
    None,
    /// To be opened, and perhaps under way already.
    Opening(Option<ConnId>),
    Open(ConnId),
    /// Lost, and being brought back.
    Away(ConnId),
    /// Lost, and not to be opened again.
    Lost(Error),
}

struct Wire<I> {
    /// Tells one listening from another, of the same channel.
    generation: u64,
    /// Whether an answer is to come.
    asked: bool,
    heard: bool,
    waiters: Vec<Waiter<I>>,
}

struct Waiter<I> {
    promise: Arc<Promise>,
    undo: Option<Undo<I>>,
}

/// How to take back what the server refuses.
pub(crate) enum Undo<I> {
    Added,
    /// A subscription, and what it took the place of.
    Subscribed(Arc<Entry<I>>, Option<Arc<Entry<I>>>),
}

impl<I> Clone for Undo<I> {
    fn clone(&self) -> Self {
        match self {
            Undo::Added => Undo::Added,
            Undo::Subscribed(entry, before) => Undo::Subscribed(Arc::clone(entry), before.clone()),
        }
    }
}

/// What is to be asked of the server.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    pub(crate) listen: Vec<(Box<str>, u64)>,
    pub(crate) unlisten: Vec<Box<str>>,
}

/// What is to be done once nothing is locked: dispatchers to be told, tickets to be resolved, the user's functions to be
/// dropped.
pub(crate) struct After<I> {
    pub(crate) schedule: Vec<Arc<Subscriber<I>>>,
    pub(crate) kept: Vec<(Arc<Promise>, Result<(), Error>)>,
    pub(crate) gone: Vec<Arc<Entry<I>>>,
}

impl<I> Default for After<I> {
    fn default() -> Self {
        Self { schedule: Vec::new(), kept: Vec::new(), gone: Vec::new() }
    }
}

impl<I> After<I> {
    pub(crate) fn miss(&mut self, entry: &Arc<Entry<I>>, missed: Missed) {
        if entry.miss(missed) {
            self.schedule.push(Arc::clone(entry.subscriber()));
        }
    }
}

impl Session {
    pub(crate) fn id(&self) -> Option<ConnId> {
        match self {
            Session::Opening(id) => *id,
            Session::Open(id) | Session::Away(id) => Some(*id),
            Session::None | Session::Lost(_) => None,
        }
    }
}

/// Changes by the user.
impl<I: Clone + Eq + Hash> Database<I> {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            registry: Registry::default(),
            session: Session::None,
            subscribers: HashMap::new(),
            departed: HashMap::new(),
            wire: HashMap::new(),
            generation: 0,
            // The stricter, until it is known: a name that is too long would keep the session from being opened.
            limits: Limits::Exact,
        }
    }

    /// Refuses a name that can't be listened to, and the one that is the notifier's own.
    pub(crate) fn check_channel(&self, channel: &str) -> Result<(), Error> {
        if channel == SYSTEM_CHANNEL {
            let message =
                format!("channel {SYSTEM_CHANNEL} is the notifier's own, and nobody can subscribe to it: take another");
            return Err(ValueError { message }.into());
        }
        sql::check_channel(channel, self.limits)
    }

    /// The subscriber of this id, made where there is none.
    pub(crate) fn subscriber(&mut self, id: &I, queue: Queue) -> Arc<Subscriber<I>> {
        if let Some((subscriber, _)) = self.subscribers.get(id) {
            return Arc::clone(subscriber);
        }
        let departed = self.departed.remove(id).and_then(|departed| departed.upgrade());
        let subscriber = departed.unwrap_or_else(|| Arc::new(Subscriber::new(queue)));
        subscriber.set_queue(queue);
        self.subscribers.insert(id.clone(), (Arc::clone(&subscriber), queue));
        subscriber
    }

    /// Changes a subscriber's queue.
    pub(crate) fn set_queue(&mut self, id: &I, queue: Queue) -> Result<(), Error> {
        let (subscriber, current) = self.subscribers.get_mut(id).ok_or(Error::UnknownSubscriber { channel: None })?;
        subscriber.set_queue(queue);
        *current = queue;
        Ok(())
    }

    /// Puts a function in its place, and gives the one that stood there.
    pub(crate) fn subscribe(&mut self, id: &I, entry: &Arc<Entry<I>>, after: &mut After<I>) -> Option<Arc<Entry<I>>> {
        let before = self.registry.subscribe(id, entry.channel(), Arc::clone(entry));
        if let Some(before) = &before {
            before.set_silent(true);
            entry.set_ear(before.ear());
        }
        self.refresh(entry.channel(), Some(entry), after);
        before
    }

    pub(crate) fn unsubscribe(&mut self, id: &I, channel: &str, after: &mut After<I>) -> Result<(), Error> {
        let ended = self.registry.unsubscribe(id, channel)?;
        self.end(id, ended, after);
        Ok(())
    }

    /// Removes a channel with its subscriptions.
    pub(crate) fn remove(&mut self, channel: &str, after: &mut After<I>) -> Result<(), Error> {
        for subscription in self.registry.remove(channel)? {
            self.end(&subscription.id, subscription.value, after);
        }
        Ok(())
    }

    /// A subscription is over.
    fn end(&mut self, id: &I, entry: Arc<Entry<I>>, after: &mut After<I>) {
        entry.set_silent(true);
        after.gone.push(entry);
        self.forget(id);
    }

    /// Lets a subscriber go that has no subscription left.
    fn forget(&mut self, id: &I) {
        if self.registry.channels_of(id).is_none()
            && let Some((subscriber, _)) = self.subscribers.remove(id)
        {
            if self.departed.len() > self.subscribers.len() {
                self.departed.retain(|_, departed| departed.strong_count() > 0);
            }
            self.departed.insert(id.clone(), Arc::downgrade(&subscriber));
        }
    }

    /// A subscriber's queue is full, and it wants to be disconnected: it gets what waits, and a gap at last.
    pub(crate) fn disconnect(&mut self, id: &I, dropped: u64, after: &mut After<I>) {
        for channel in self.registry.channels_of(id).cloned().unwrap_or_default() {
            if let Ok(entry) = self.registry.unsubscribe(id, &channel) {
                after.miss(&entry, Missed::new(Reason::Disconnected, dropped));
                after.gone.push(entry);
            }
        }
        self.forget(id);
    }

    /// Brings the subscriptions of a channel, or one of them, in line with who is muted.
    pub(crate) fn refresh(&self, channel: &str, only: Option<&Arc<Entry<I>>>, after: &mut After<I>) {
        let is_heard = self.wire.get(channel).is_some_and(|wire| wire.heard);
        let channel_muted = self.registry.is_muted(channel);
        for subscription in self.registry.subscriptions(channel) {
            let entry = &subscription.value;
            if only.is_some_and(|only| !Arc::ptr_eq(only, entry)) {
                continue;
            }
            let silent = channel_muted || subscription.muted;
            entry.set_silent(silent);
            if silent {
                entry.turns_deaf(Ear::Muted);
            } else if is_heard && let Some(missed) = entry.hears() {
                after.miss(entry, missed);
            }
        }
    }

    /// Takes back what was asked for in vain, where nothing else has happened to it since.
    pub(crate) fn undo(&mut self, channel: &str, undo: Undo<I>, after: &mut After<I>) {
        match undo {
            Undo::Added => self.registry.withdraw(channel),
            Undo::Subscribed(entry, before) => {
                let id = entry.id();
                if self.registry.get(&id, channel).is_some_and(|current| Arc::ptr_eq(current, &entry)) {
                    match before {
                        Some(before) => {
                            self.registry.subscribe(&id, channel, Arc::clone(&before));
                            self.refresh(channel, Some(&before), after);
                        }
                        None => {
                            let _ = self.registry.unsubscribe(&id, channel);
                        }
                    }
                    self.end(&id, entry, after);
                }
            }
        }
    }
}

/// What is listened to.
impl<I: Clone + Eq + Hash> Database<I> {
    /// What is to be asked so that what is listened to is what is wanted.
    pub(crate) fn sync(&mut self, after: &mut After<I>) -> Asks {
        let mut asks = Asks::default();
        let can_ask = self.session.id().is_some();
        for channel in self.registry.take_changed() {
            match (self.registry.is_wanted(&channel), self.wire.get(&channel)) {
                (true, None) => {
                    self.generation += 1;
                    let wire = Wire { generation: self.generation, asked: can_ask, heard: false, waiters: Vec::new() };
                    self.wire.insert(channel.clone(), wire);
                    asks.listen.push((channel, self.generation));
                }
                (false, Some(_)) => {
                    // Who waited for it was overtaken by another change.
                    let waiters = self.wire.remove(&channel).map(|wire| wire.waiters);
                    after.kept.extend(waiters.into_iter().flatten().map(|waiter| (waiter.promise, Ok(()))));
                    asks.unlisten.push(channel);
                }
                _ => {}
            }
        }
        if can_ask { asks } else { Asks::default() }
    }

    /// Has a promise wait until a channel is heard, if it is to be.
    pub(crate) fn wait_for(&mut self, channel: &str, promise: &Arc<Promise>, undo: Option<Undo<I>>) {
        if let Some(wire) = self.wire.get_mut(channel).filter(|wire| !wire.heard) {
            promise.wait_for_one();
            wire.waiters.push(Waiter { promise: Arc::clone(promise), undo });
        }
    }

    /// Which channels nobody has acknowledged yet.
    pub(crate) fn unheard(&self) -> Vec<Box<str>> {
        self.wire.iter().filter(|(_, wire)| !wire.heard).map(|(channel, _)| channel.clone()).collect()
    }

    /// How many channels are listened to.
    pub(crate) fn heard(&self) -> usize {
        self.wire.values().filter(|wire| wire.heard).count()
    }

    /// The server has answered. What it refused is undone; what it couldn't answer is asked again as the session is back.
    pub(crate) fn answered(&mut self, asked: Vec<(Box<str>, u64)>, answer: &Result<(), Error>, after: &mut After<I>) {
        let is_open = matches!(self.session, Session::Open(_));
        for (channel, generation) in asked {
            let Some(wire) = self.wire.get_mut(&channel).filter(|wire| wire.generation == generation) else { continue };
            wire.asked = false;
            match answer {
                Ok(()) if is_open => self.is_heard(&channel, after),
                // The word that the session is open comes next, and gaps are told before.
                Ok(()) => {}
                Err(error) if is_refusal(error) => {
                    for waiter in std::mem::take(&mut wire.waiters) {
                        if let Some(undo) = waiter.undo {
                            self.undo(&channel, undo, after);
                        }
                        after.kept.push((waiter.promise, Err(error.clone())));
                    }
                }
                Err(_) => {}
            }
        }
    }

    fn is_heard(&mut self, channel: &str, after: &mut After<I>) {
        let Some(wire) = self.wire.get_mut(channel) else { return };
        wire.heard = true;
        after.kept.extend(wire.waiters.drain(..).map(|waiter| (waiter.promise, Ok(()))));
        let entries: Vec<_> = self.registry.audience(channel).cloned().collect();
        for entry in entries {
            if let Some(missed) = entry.hears() {
                after.miss(&entry, missed);
            }
        }
    }

    /// A session begins: gives what it is to listen to.
    pub(crate) fn begin(&mut self) -> Vec<Box<str>> {
        self.registry.take_changed();
        self.wire.clear();
        for channel in self.registry.wanted() {
            self.generation += 1;
            let wire = Wire { generation: self.generation, asked: false, heard: false, waiters: Vec::new() };
            self.wire.insert(channel.into(), wire);
        }
        self.session = Session::Opening(None);
        self.wire.keys().cloned().chain([SYSTEM_CHANNEL.into()]).collect()
    }

    /// The session listens to these, and is what it is: gives what is still to be asked.
    pub(crate) fn is_open(&mut self, id: ConnId, listens: &[Box<str>], limits: Limits, after: &mut After<I>) -> Asks {
        self.session = Session::Open(id);
        self.limits = limits;
        let mut asks = Asks::default();
        let listens: BTreeMap<&str, ()> = listens.iter().map(|channel| (&**channel, ())).collect();
        let channels: Vec<_> = self.wire.keys().cloned().collect();
        for channel in channels {
            let there = listens.contains_key(&*channel);
            let Some(wire) = self.wire.get_mut(&channel).filter(|wire| !wire.asked) else { continue };
            if there {
                self.is_heard(&channel, after);
            } else {
                (wire.asked, wire.heard) = (true, false);
                asks.listen.push((channel.clone(), wire.generation));
            }
        }
        let unwanted =
            listens.keys().filter(|channel| **channel != SYSTEM_CHANNEL && !self.wire.contains_key(**channel));
        asks.unlisten = unwanted.map(|channel| (*channel).into()).collect();
        asks
    }

    /// The session is back, and these channels were unheard for a while.
    pub(crate) fn was_deaf(&self, gap: &crate::gap::Gap, after: &mut After<I>) {
        for channel in gap.channels() {
            for entry in self.registry.audience(channel).filter(|entry| entry.ear() == Ear::Hears) {
                after.miss(entry, Missed::new(Reason::Restored(gap.clone()), 0));
            }
        }
    }

    /// The session is lost for good.
    pub(crate) fn is_lost(&mut self, error: &Error, after: &mut After<I>) {
        self.session = Session::Lost(error.clone());
        for (channel, wire) in std::mem::take(&mut self.wire) {
            for waiter in wire.waiters {
                if let Some(undo) = waiter.undo {
                    self.undo(&channel, undo, after);
                }
                after.kept.push((waiter.promise, Err(error.clone())));
            }
            for entry in self.registry.audience(&channel).filter(|entry| entry.ear() == Ear::Hears) {
                entry.set_ear(Ear::Stopped);
                after.miss(entry, Missed::new(Reason::Lost(error.clone()), 0));
            }
        }
    }

    /// The notifier stops: nothing is listened to any more, and nothing waits.
    pub(crate) fn end_session(&mut self, after: &mut After<I>) {
        self.session = Session::None;
        let waiters = std::mem::take(&mut self.wire).into_values().flat_map(|wire| wire.waiters);
        after.kept.extend(waiters.map(|waiter| (waiter.promise, Err(Error::Stopped))));
        let channels: Vec<Box<str>> = self.registry.channels().into_iter().map(Into::into).collect();
        for subscription in channels.iter().flat_map(|channel| self.registry.subscriptions(channel)) {
            subscription.value.turns_deaf(Ear::Stopped);
        }
    }

    /// Empties every queue; gives what was there, to be dropped where nothing is locked.
    pub(crate) fn reset_queues(&self) -> Vec<impl Sized + use<I>> {
        let departed = self.departed.values().filter_map(Weak::upgrade).map(|it| it.reset(Queue::default()));
        self.subscribers.values().map(|(subscriber, queue)| subscriber.reset(*queue)).chain(departed).collect()
    }

    /// How many subscribers there are, and how many notifications wait for them.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        (self.registry.subscribers(), self.subscribers.values().map(|(subscriber, _)| subscriber.pending()).sum())
    }
}

/// Whether the server, or a check on this side, said no; everything else is the session's end.
fn is_refusal(error: &Error) -> bool {
    match error {
        Error::Value(_) => true,
        Error::Server(said) => said.severity() == "ERROR",
        _ => false,
    }
}
