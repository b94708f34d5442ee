//! Subscribers that were unsubscribed because their queues were full: notifications may still wait for them.

use std::sync::{Arc, PoisonError, Weak};

use crate::notifier::subscriber::Subscriber;
use crate::sync::{Mutex, MutexGuard};

/// Subscribers, as long as something waits for them; `S` is a subscription.
#[derive(Debug)]
pub(crate) struct DisconnectedSubscribers<S> {
    /// Held by a thread that looks at all subscribers, which the lock of the list is not.
    looking: Mutex<()>,
    list: Mutex<DisconnectedList<S>>,
}

#[derive(Debug)]
struct DisconnectedList<S> {
    subscribers: Vec<Weak<Subscriber<S>>>,
    /// The index of the subscriber that is looked at next when one is added.
    next: usize,
}

impl<S> Default for DisconnectedSubscribers<S> {
    fn default() -> Self {
        let list = DisconnectedList { subscribers: Vec::new(), next: 0 };
        Self { looking: Mutex::default(), list: Mutex::new(list) }
    }
}

impl<S> DisconnectedSubscribers<S> {
    fn lock(&self) -> MutexGuard<'_, DisconnectedList<S>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a subscriber, and removes some of those that no longer exist.
    pub(crate) fn add(&self, subscriber: &Arc<Subscriber<S>>) {
        let mut list = self.lock();
        for _ in 0..2 {
            list.next = (list.next + 1).checked_rem(list.subscribers.len()).unwrap_or_default();
            let at = list.next;
            if list.subscribers.get(at).is_some_and(|subscriber| subscriber.strong_count() == 0) {
                list.subscribers.swap_remove(at);
            }
        }
        list.subscribers.push(Arc::downgrade(subscriber));
    }

    /// Returns the sum of the results of a function for all subscribers, and removes those for which it is 0.
    pub(crate) fn sum(&self, of: impl Fn(&Subscriber<S>) -> u64) -> u64 {
        let _looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = std::mem::take(&mut self.lock().subscribers);
        let mut sum = 0;
        known.retain(|subscriber| {
            let of_one = subscriber.upgrade().map_or(0, |subscriber| of(&subscriber));
            sum += of_one;
            of_one > 0
        });
        let mut list = self.lock();
        let added = std::mem::replace(&mut list.subscribers, known);
        list.subscribers.extend(added);
        sum
    }
}
