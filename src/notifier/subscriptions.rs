//! The subscriptions of one database with the queues of their subscribers.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::{Arc, Weak};

use crate::error::Error;
use crate::notifier::deferred::{DeferredActions, Undo};
use crate::notifier::missed::{MissedReport, Reason};
use crate::notifier::queue::Queue;
use crate::notifier::registry::{Registry, RegistryEntry};
use crate::notifier::subscription::{Reception, Subscriber, Subscription};

pub(crate) struct Subscriptions<I: 'static> {
    pub(crate) registry: Registry<I, Arc<Subscription<I>>>,
    subscribers: HashMap<I, (Arc<Subscriber<I>>, Queue)>,
    /// Subscribers without a subscription whose callback may still run. One that subscribes again waits for it to return.
    departed: HashMap<I, Weak<Subscriber<I>>>,
}

impl<I: 'static> Default for Subscriptions<I> {
    fn default() -> Self {
        Self { registry: Registry::default(), subscribers: HashMap::new(), departed: HashMap::new() }
    }
}

impl<I: Clone + Eq + Hash + 'static> Subscriptions<I> {
    /// Returns the subscriber with this id, and creates it if there is none.
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

    pub(crate) fn set_queue(&mut self, id: &I, queue: Queue) -> Result<(), Error> {
        let (subscriber, current) = self.subscribers.get_mut(id).ok_or(Error::UnknownSubscriber { channel: None })?;
        subscriber.set_queue(queue);
        *current = queue;
        Ok(())
    }

    pub(crate) fn unsubscribe(&mut self, id: &I, channel: &str) -> Result<(), Error> {
        let removed = self.registry.unsubscribe(id, channel)?;
        self.end(id, &removed);
        Ok(())
    }

    /// Removes a channel with its subscriptions.
    pub(crate) fn remove(&mut self, channel: &str) -> Result<(), Error> {
        for entry in self.registry.remove(channel)? {
            self.end(&entry.id, &entry.value);
        }
        Ok(())
    }

    /// Unsubscribes a subscriber whose queue is full. It still receives what waits, and then a report.
    pub(crate) fn disconnect(&mut self, id: &I, dropped: &HashMap<Box<str>, u64>, actions: &mut DeferredActions<I>) {
        for channel in self.registry.channels_of(id).cloned().unwrap_or_default() {
            if let Ok(subscription) = self.registry.unsubscribe(id, &channel) {
                let dropped = dropped.get(&channel).copied().unwrap_or_default();
                actions.report(&subscription, MissedReport::new(Reason::Unsubscribed, dropped));
            }
        }
        self.remove_if_unused(id);
    }

    /// Applies mutes to the subscriptions of a channel, or to that of one subscriber. `is_listening` says that the server
    /// has acknowledged the channel.
    pub(crate) fn refresh(
        &self,
        channel: &str,
        only: Option<&I>,
        is_listening: bool,
        actions: &mut DeferredActions<I>,
    ) {
        let is_channel_muted = self.registry.is_muted(channel);
        let refresh = |entry: &RegistryEntry<I, Arc<Subscription<I>>>| {
            let subscription = &entry.value;
            let is_silent = is_channel_muted || entry.is_muted;
            subscription.set_silent(is_silent);
            if is_silent {
                subscription.stop_receiving(Reception::Muted);
            } else if is_listening && let Some(missed) = subscription.start_receiving() {
                actions.report(subscription, missed);
            }
        };
        match only {
            Some(id) => self.registry.get(id, channel).into_iter().for_each(refresh),
            None => self.registry.subscriptions(channel).for_each(refresh),
        }
    }

    /// Reverts a change, unless another one has followed it.
    pub(crate) fn undo(&mut self, channel: &str, undo: Undo<I>, is_listening: bool, actions: &mut DeferredActions<I>) {
        match undo {
            Undo::Added => self.registry.revert_add(channel),
            Undo::Subscribed(subscription, replaced) => {
                let id = subscription.id();
                let current = self.registry.get(&id, channel);
                if !current.is_some_and(|current| Arc::ptr_eq(&current.value, &subscription)) {
                    return;
                }
                match replaced {
                    Some(replaced) => {
                        replaced.make_current();
                        self.registry.subscribe(&id, channel, replaced);
                        self.refresh(channel, Some(&id), is_listening, actions);
                    }
                    None => {
                        let _ = self.registry.unsubscribe(&id, channel);
                    }
                }
                self.end(&id, &subscription);
            }
        }
    }

    /// Returns, for each channel that has any, the ids of its subscribers of which `is_wanted(is_muted)` is true.
    pub(crate) fn ids(&self, is_wanted: impl Fn(bool) -> bool) -> BTreeMap<String, Vec<I>> {
        let ids_on = |channel: &str| {
            let entries = self.registry.subscriptions(channel).filter(|entry| is_wanted(entry.is_muted));
            entries.map(|entry| entry.id.clone()).collect::<Vec<_>>()
        };
        let channels = self.registry.channels().into_iter();
        channels.map(|channel| (channel.to_owned(), ids_on(channel))).filter(|(_, ids)| !ids.is_empty()).collect()
    }

    /// Empties all queues.
    pub(crate) fn reset_queues(&self) {
        self.subscribers.values().for_each(|(subscriber, queue)| subscriber.reset(*queue));
        self.departed.values().filter_map(Weak::upgrade).for_each(|it| it.reset(Queue::default()));
    }

    /// Returns the number of notifications in all queues.
    pub(crate) fn waiting(&self) -> usize {
        self.subscribers.values().map(|(subscriber, _)| subscriber.pending()).sum()
    }

    fn end(&mut self, id: &I, subscription: &Arc<Subscription<I>>) {
        subscription.set_silent(true);
        self.remove_if_unused(id);
    }

    /// Removes a subscriber that has no subscription left.
    fn remove_if_unused(&mut self, id: &I) {
        if self.registry.channels_of(id).is_none()
            && let Some((subscriber, _)) = self.subscribers.remove(id)
        {
            if self.departed.len() > self.subscribers.len() {
                self.departed.retain(|_, departed| departed.strong_count() > 0);
            }
            self.departed.insert(id.clone(), Arc::downgrade(&subscriber));
        }
    }
}
