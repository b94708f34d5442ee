//! The subscriptions of one database with the queues of their subscribers.

pub(crate) mod disconnected;

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::{Arc, Weak};

use self::disconnected::DisconnectedSubscribers;
use crate::error::Error;
use crate::notifier::channel::ChannelTable;
use crate::notifier::deferred::steps::{ChannelSteps, ReceiverChange, ReceiverSteps, STEP, StepWork};
use crate::notifier::deferred::{DeferredActions, Undo};
use crate::notifier::missed::{MissedReport, Reason};
use crate::notifier::queue::Queue;
use crate::notifier::receivers::ReceiverSnapshot;
use crate::notifier::registry::Registry;
use crate::notifier::subscriber::Subscriber;
use crate::notifier::subscription::{
    Reception, ReceptionContext, Subscription, SubscriptionContext, SubscriptionTarget,
};

pub(crate) struct Subscriptions<I: 'static> {
    pub(crate) registry: Registry<I, Arc<Subscription<I>>>,
    /// The channels of all subscriptions, which the loop publishes to.
    pub(crate) channels: Arc<ChannelTable<Subscription<I>>>,
    context: Arc<SubscriptionContext>,
    /// The subscriptions that have an observer.
    observed: Vec<Weak<Subscription<I>>>,
    /// The context of all others.
    unobserved: Arc<ReceptionContext>,
    /// Subscribers without a subscription whose callback may still run. One that subscribes again waits for it to return.
    departed: HashMap<I, Weak<Subscriber<Subscription<I>>>>,
    /// The number of departed subscribers from which on those without a callback that may run are removed.
    departed_max: usize,
    /// Subscribers that were unsubscribed because their queues were full.
    pub(crate) disconnected: Arc<DisconnectedSubscribers<Subscription<I>>>,
}

impl<I: 'static> Drop for Subscriptions<I> {
    /// Channels and subscriptions refer to each other.
    fn drop(&mut self) {
        self.channels.all().iter().for_each(|channel| *channel.lock_receivers() = Default::default());
    }
}

impl<I: Clone + Eq + Hash + 'static> Subscriptions<I> {
    pub(crate) fn new(context: &Arc<SubscriptionContext>) -> Self {
        Self {
            registry: Registry::default(),
            channels: Arc::default(),
            context: Arc::clone(context),
            observed: Vec::new(),
            unobserved: ReceptionContext::new(context, None),
            departed: HashMap::new(),
            departed_max: 16,
            disconnected: Arc::default(),
        }
    }

    /// Creates a subscription of the subscriber with this id, and the subscriber if there is none.
    pub(crate) fn create(
        &mut self,
        id: &I,
        channel: &str,
        target: SubscriptionTarget<I>,
        queue: &Arc<Queue>,
    ) -> Arc<Subscription<I>> {
        let subscriber = match self.registry.any_of(id) {
            Some(subscription) => Arc::clone(subscription.subscriber()),
            None => {
                let departed = self.departed.remove(id).and_then(|departed| departed.upgrade());
                if let Some(departed) = &departed {
                    departed.set_queue(Arc::clone(queue), &self.context.counters);
                }
                departed.unwrap_or_else(|| Arc::new(Subscriber::new(Arc::clone(queue))))
            }
        };
        let SubscriptionTarget { call, observer } = target;
        let context = match observer {
            Some(_) => ReceptionContext::new(&self.context, observer),
            None => Arc::clone(&self.unobserved),
        };
        let subscription = Subscription::new(id, self.channels.channel(channel), subscriber, call, context);
        if subscription.is_observed() {
            self.observed.retain(|observed| observed.strong_count() > 0);
            self.observed.push(Arc::downgrade(&subscription));
        }
        subscription
    }

    /// Adds a subscription. Returns the one that it replaces.
    pub(crate) fn subscribe(&mut self, id: &I, subscription: &Arc<Subscription<I>>) -> Option<Arc<Subscription<I>>> {
        let replaced = self.registry.subscribe(id, subscription.channel().name(), Arc::clone(subscription));
        subscription.attach(replaced.as_ref());
        replaced
    }

    pub(crate) fn set_queue(&self, id: &I, queue: Queue) -> Result<(), Error> {
        let subscription = self.registry.any_of(id).ok_or(Error::UnknownSubscriber { channel: None })?;
        subscription.subscriber().set_queue(queue, &self.context.counters);
        Ok(())
    }

    pub(crate) fn unsubscribe(&mut self, id: &I, channel: &str) -> Result<(), Error> {
        let removed = self.registry.unsubscribe(id, channel)?;
        self.end(id, &removed);
        Ok(())
    }

    /// Removes this subscription, unless it has been removed or replaced.
    #[cfg(feature = "stream")]
    pub(crate) fn unsubscribe_this(&mut self, id: &I, subscription: &Arc<Subscription<I>>) {
        if self.is_current(id, subscription) {
            // It exists, so this does not fail.
            let _ = self.unsubscribe(id, subscription.channel().name());
        }
    }

    /// Returns `true` if a subscription has been neither removed nor replaced.
    fn is_current(&self, id: &I, subscription: &Arc<Subscription<I>>) -> bool {
        let current = self.registry.get(id, subscription.channel().name());
        current.is_some_and(|current| Arc::ptr_eq(current.value, subscription))
    }

    /// Removes a channel, or some of its subscriptions if it has very many. Returns `true` if the channel is removed.
    pub(crate) fn remove_some(&mut self, channel: &str) -> Result<bool, Error> {
        if self.registry.subscriptions_of(channel) > STEP {
            for id in self.registry.last_ids(channel, STEP) {
                self.unsubscribe(&id, channel)?;
            }
            return Ok(false);
        }
        for (id, subscription) in self.registry.remove(channel)? {
            self.end(&id, &subscription);
        }
        Ok(true)
    }

    /// Unsubscribes a subscriber whose queue is full. It still receives what waits, and then a report.
    pub(crate) fn disconnect(&mut self, id: &I, dropped: &HashMap<Box<str>, u64>, actions: &mut DeferredActions<I>) {
        let channels = self.registry.channels_of(id).into_iter().flatten();
        for channel in channels.cloned().collect::<Vec<_>>() {
            if let Ok(subscription) = self.registry.unsubscribe(id, &channel) {
                let dropped = dropped.get(&*channel).copied().unwrap_or_default();
                subscription.detach();
                self.remove_unused(id, &subscription);
                self.disconnected.add(subscription.subscriber());
                actions.report(&subscription, MissedReport::new(Reason::Unsubscribed, dropped));
            }
        }
    }

    /// Applies mutes to a subscription, with the generation of the LISTEN that the server has acknowledged.
    pub(crate) fn refresh(&self, id: &I, channel: &str, listening: Option<u32>, actions: &mut DeferredActions<I>) {
        let Some(entry) = self.registry.get(id, channel) else { return };
        let subscription = entry.value;
        if entry.is_muted || self.registry.is_muted(channel) {
            return subscription.mute();
        }
        subscription.unmute();
        if let Some(generation) = listening {
            actions.start_receiving(subscription, generation);
        }
    }

    /// Changes the subscriptions of a channel of the database with this index, in steps.
    pub(crate) fn change_receivers(
        &self,
        at: usize,
        channel: &str,
        change: ReceiverChange,
        actions: &mut DeferredActions<I>,
    ) {
        let receivers = self.channels.lock().get(channel).map(|channel| channel.receivers());
        if let Some(receivers) = receivers {
            let work = StepWork::Change(ReceiverSteps::new(receivers), change);
            actions.add_steps(ChannelSteps { at, channel: channel.into(), work });
        }
    }

    /// Reverts a change, unless another one has followed it.
    pub(crate) fn undo(
        &mut self,
        channel: &str,
        undo: Undo<I>,
        listening: Option<u32>,
        actions: &mut DeferredActions<I>,
    ) {
        match undo {
            Undo::Added => self.registry.revert_add(channel),
            Undo::Subscribed(subscription, replaced) => {
                let id = subscription.id();
                if !self.is_current(&id, &subscription) {
                    return;
                }
                match replaced {
                    Some(replaced) => {
                        self.subscribe(&id, &replaced);
                        self.refresh(&id, channel, listening, actions);
                    }
                    None => {
                        if self.registry.unsubscribe(&id, channel).is_ok() {
                            self.end(&id, &subscription);
                        }
                    }
                }
            }
        }
    }

    /// Returns the subscriptions of each channel.
    pub(crate) fn receivers(&self) -> BTreeMap<String, ReceiverSnapshot<Subscription<I>>> {
        let channels = self.channels.lock();
        channels.iter().map(|(name, channel)| (name.to_string(), channel.receivers())).collect()
    }

    /// Returns the subscriptions that have an observer: all, or those of one channel.
    pub(crate) fn observed(&self, channel: Option<&str>) -> impl Iterator<Item = Arc<Subscription<I>>> {
        let observed = self.observed.iter().filter_map(Weak::upgrade);
        observed.filter(move |it| channel.is_none_or(|channel| it.channel().name() == channel))
    }

    /// Discards what waits for a subscription, and counts it as dropped. The next start is reported.
    pub(crate) fn stop(&self, subscription: &Subscription<I>) {
        subscription.stop_receiving(Reception::Stopped);
        let counters = &self.context.counters;
        counters.dropped.add(subscription.subscriber().waiting(counters) as u64);
        subscription.subscriber().reset();
    }

    /// Removes all notifications of a channel, when no thread reads them.
    pub(crate) fn clear_log(&self, channel: &str) {
        let channel = self.channels.lock().get(channel).cloned();
        channel.iter().for_each(|channel| channel.clear());
    }

    /// Forgets the subscribers without a subscription, when no callback runs.
    pub(crate) fn take_departed(&mut self) -> impl Sized + use<I> {
        self.departed_max = 16;
        std::mem::take(&mut self.departed)
    }

    fn end(&mut self, id: &I, subscription: &Arc<Subscription<I>>) {
        subscription.end();
        self.remove_unused(id, subscription);
    }

    /// Removes the channel and the subscriber of a removed subscription, if they have no other.
    fn remove_unused(&mut self, id: &I, subscription: &Arc<Subscription<I>>) {
        self.channels.remove_if_unused(subscription.channel());
        if !self.registry.has_subscriber(id) {
            if self.departed.len() >= self.departed_max {
                self.departed.retain(|_, departed| departed.strong_count() > 0);
                // The others are looked at again only once as many have departed since.
                self.departed_max = 2 * self.departed.len() + 16;
            }
            self.departed.insert(id.clone(), Arc::downgrade(subscription.subscriber()));
        }
    }
}

/// Returns the number of notifications that wait for the subscribers of channels.
pub(crate) fn waiting<I>(channels: &ChannelTable<Subscription<I>>, context: &SubscriptionContext) -> u64 {
    let mut waiting = 0;
    for channel in channels.all() {
        for subscription in channel.receivers().iter() {
            let subscriber = subscription.subscriber();
            if subscriber.is_first(subscription) {
                waiting += subscriber.waiting(&context.counters) as u64;
            }
        }
    }
    waiting
}

#[cfg(test)]
mod tests {
    use crate::notifier::Notifier;

    #[test]
    fn n07_subscribers_that_departed_during_a_call_are_not_looked_at_each_time() {
        let n = Notifier::builder("host=localhost user=shop").unwrap().autorun(false).build::<u32>();
        for id in 0..1_000 {
            n.subscribe(id, "prices", |_| ()).unwrap();
        }
        // A pass keeps its receivers.
        let receivers = n.core().lock().databases[0].subscriptions.channels.channel("prices").receivers();
        for id in 0..1_000 {
            n.unsubscribe(&id, "prices").unwrap();
        }
        let departed = || {
            let state = n.core().lock();
            let subscriptions = &state.databases[0].subscriptions;
            (subscriptions.departed.len(), subscriptions.departed_max)
        };
        assert_eq!(departed().0, 1_000);
        assert!(departed().1 > 1_000);
        drop(receivers);
        for id in 0..2_000 {
            n.subscribe(id, "prices", |_| ()).unwrap();
            n.unsubscribe(&id, "prices").unwrap();
        }
        assert!(departed().0 < 100);
    }
}
