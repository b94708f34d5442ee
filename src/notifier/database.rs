//! One database: who subscribes to what there, and its session. How what is listened to follows is in `listening`.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};

use crate::config::Config;
use crate::error::{Error, ValueError};
use crate::manager::ConnId;
use crate::notifier::deferred::{DeferredActions, Undo};
use crate::notifier::listening::ChannelState;
use crate::notifier::missed::{Missed, Reason};
use crate::notifier::queue::Queue;
use crate::notifier::registry::{Registry, RegistryEntry};
use crate::notifier::subscription::{Reception, Subscriber, Subscription};
use crate::proto::sql::{self, Limits};

/// The channel that every session listens to, for the notifier itself; the canary's, where there is one.
pub(crate) const SYSTEM_CHANNEL: &str = "PGNOTIFIER";

pub(crate) struct Database<I: 'static> {
    pub(crate) config: Config,
    pub(crate) registry: Registry<I, Arc<Subscription<I>>>,
    pub(crate) session: DatabaseSession,
    subscribers: HashMap<I, (Arc<Subscriber<I>>, Queue)>,
    /// Those without a subscription of whom a call may still run: who comes back meanwhile waits for it to return.
    departed: HashMap<I, Weak<Subscriber<I>>>,
    /// What the session is to listen to, as far as it was said.
    pub(super) channel_states: HashMap<Box<str>, ChannelState<I>>,
    pub(super) generation: u64,
    /// How far names can be checked, as the last session told.
    pub(super) limits: Limits,
}

/// Where its session is.
#[derive(Debug)]
pub(crate) enum DatabaseSession {
    None,
    /// To be opened, and perhaps under way already.
    Opening(Option<ConnId>),
    Open(ConnId),
    /// Lost, and being brought back.
    Away(ConnId),
    /// Lost, and not to be opened again.
    Lost(Error),
}

impl DatabaseSession {
    pub(crate) fn id(&self) -> Option<ConnId> {
        match self {
            DatabaseSession::Opening(id) => *id,
            DatabaseSession::Open(id) | DatabaseSession::Away(id) => Some(*id),
            DatabaseSession::None | DatabaseSession::Lost(_) => None,
        }
    }
}

/// Changes by the user.
impl<I: Clone + Eq + Hash + 'static> Database<I> {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            registry: Registry::default(),
            session: DatabaseSession::None,
            subscribers: HashMap::new(),
            departed: HashMap::new(),
            channel_states: HashMap::new(),
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
    pub(crate) fn subscribe(
        &mut self,
        id: &I,
        entry: &Arc<Subscription<I>>,
        after: &mut DeferredActions<I>,
    ) -> Option<Arc<Subscription<I>>> {
        let before = self.registry.subscribe(id, entry.channel(), Arc::clone(entry));
        self.refresh(entry.channel(), Some(id), after);
        before
    }

    pub(crate) fn unsubscribe(&mut self, id: &I, channel: &str) -> Result<(), Error> {
        let ended = self.registry.unsubscribe(id, channel)?;
        self.end(id, &ended);
        Ok(())
    }

    /// Removes a channel with its subscriptions.
    pub(crate) fn remove(&mut self, channel: &str) -> Result<(), Error> {
        for subscription in self.registry.remove(channel)? {
            self.end(&subscription.id, &subscription.value);
        }
        Ok(())
    }

    /// A subscription is over.
    fn end(&mut self, id: &I, entry: &Arc<Subscription<I>>) {
        entry.set_silent(true);
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
    pub(crate) fn disconnect(&mut self, id: &I, dropped: &HashMap<Box<str>, u64>, after: &mut DeferredActions<I>) {
        for channel in self.registry.channels_of(id).cloned().unwrap_or_default() {
            if let Ok(entry) = self.registry.unsubscribe(id, &channel) {
                let dropped = dropped.get(&channel).copied().unwrap_or_default();
                after.miss(&entry, Missed::new(Reason::Unsubscribed, dropped));
            }
        }
        self.forget(id);
    }

    /// Brings the subscriptions of a channel, or that of one subscriber, in line with who is muted.
    pub(crate) fn refresh(&self, channel: &str, only: Option<&I>, after: &mut DeferredActions<I>) {
        let is_heard = self.channel_states.get(channel).is_some_and(|channel_states| channel_states.heard);
        let channel_muted = self.registry.is_muted(channel);
        let refresh = |subscription: &RegistryEntry<I, Arc<Subscription<I>>>| {
            let entry = &subscription.value;
            let silent = channel_muted || subscription.muted;
            entry.set_silent(silent);
            if silent {
                entry.stop_receiving(Reception::Muted);
            } else if is_heard && let Some(missed) = entry.start_receiving() {
                after.miss(entry, missed);
            }
        };
        match only {
            Some(id) => self.registry.get(id, channel).into_iter().for_each(refresh),
            None => self.registry.subscriptions(channel).for_each(refresh),
        }
    }

    /// Takes back what was asked for in vain, where nothing else has happened to it since.
    pub(crate) fn undo(&mut self, channel: &str, undo: Undo<I>, after: &mut DeferredActions<I>) {
        match undo {
            Undo::Added => self.registry.withdraw(channel),
            Undo::Subscribed(entry, before) => {
                let id = entry.id();
                if self.registry.get(&id, channel).is_some_and(|current| Arc::ptr_eq(&current.value, &entry)) {
                    match before {
                        Some(before) => {
                            before.make_current();
                            self.registry.subscribe(&id, channel, Arc::clone(&before));
                            self.refresh(channel, Some(&id), after);
                        }
                        None => {
                            let _ = self.registry.unsubscribe(&id, channel);
                        }
                    }
                    self.end(&id, &entry);
                }
            }
        }
    }

    /// Empties every queue.
    pub(crate) fn reset_queues(&self) {
        self.subscribers.values().for_each(|(subscriber, queue)| subscriber.reset(*queue));
        self.departed.values().filter_map(Weak::upgrade).for_each(|it| it.reset(Queue::default()));
    }

    /// How many subscribers there are, and how many notifications wait for them.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        (self.registry.subscribers(), self.subscribers.values().map(|(subscriber, _)| subscriber.pending()).sum())
    }
}
