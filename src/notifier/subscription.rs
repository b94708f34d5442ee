//! A subscription, and the subscriber that it belongs to: the loop adds to the subscriber's queue, a dispatcher takes
//! from it.

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::notification::Notification;
use crate::notifier::deferred_drop::DeferredDrop;
use crate::notifier::delivery::Delivery;
use crate::notifier::missed::{MissedReport, Reason};
use crate::notifier::queue::{PendingContent, PendingItem, PendingQueue, PushOutcome, Queue};

/// A subscriber, which receives one call at a time and in order, over all of its channels.
pub(crate) struct Subscriber<I: 'static> {
    queue: Mutex<SubscriberQueue<I>>,
}

struct SubscriberQueue<I: 'static> {
    pending: PendingQueue<SubscriptionRef<I>>,
    /// A dispatcher serves the subscriber now, or will.
    is_scheduled: bool,
}

/// A subscriber's callback for one channel.
pub(crate) struct Subscription<I: 'static> {
    channel: Box<str>,
    subscriber: Arc<Subscriber<I>>,
    /// A copy of the id in `callback`, which is locked while the callback runs.
    id: Mutex<I>,
    callback: Mutex<BoundCallback<I>>,
    /// The subscription is muted or has ended: items that still wait for it are not delivered.
    is_silent: AtomicBool,
    /// A [`Reception`], changed only under the lock of the notifier's state.
    reception: AtomicU8,
    deferred_drop: Arc<DeferredDrop>,
    current: CurrentSubscription<I>,
}

/// The subscription that an id has for a channel now. Subscriptions that replace each other share it, so that the latest
/// also receives items that were queued for its predecessors.
type CurrentSubscription<I> = Arc<Mutex<Weak<Subscription<I>>>>;

struct BoundCallback<I> {
    id: I,
    call: Box<Callback<I>>,
}

pub(crate) type Callback<I> = dyn FnMut(&Delivery<'_, I>) + Send;

/// Progress of a subscription towards receiving notifications. The reason of the report that follows depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Reception {
    /// The channel has never been listened to.
    Never,
    /// The notifier is running, but its session has not been open since the start.
    Opening,
    Receiving,
    Muted,
    Stopped,
}

impl<I: 'static> Drop for Subscription<I> {
    /// A lock may be held here, so the callback is dropped later.
    fn drop(&mut self) {
        let callback = self.callback.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.deferred_drop.add(std::mem::replace(&mut callback.call, Box::new(|_| ())));
    }
}

impl<I: 'static> Subscriber<I> {
    pub(crate) fn new(queue: Queue) -> Self {
        Self { queue: Mutex::new(SubscriberQueue { pending: PendingQueue::new(queue), is_scheduled: false }) }
    }

    fn lock(&self) -> MutexGuard<'_, SubscriberQueue<I>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_queue(&self, queue: Queue) {
        self.lock().pending.set_queue(queue);
    }

    /// Returns the number of notifications in the queue.
    pub(crate) fn pending(&self) -> usize {
        self.lock().pending.len()
    }

    /// Takes the next item. With the queue empty, the subscriber is no longer scheduled.
    pub(crate) fn take(&self) -> Option<PendingItem<SubscriptionRef<I>>> {
        let mut queue = self.lock();
        let item = queue.pending.pop();
        queue.is_scheduled = item.is_some();
        item
    }

    /// Replaces the queue by an empty one.
    pub(crate) fn reset(&self, queue: Queue) {
        *self.lock() = SubscriberQueue { pending: PendingQueue::new(queue), is_scheduled: false };
    }
}

impl<I: 'static> SubscriberQueue<I> {
    /// Returns `true` if the subscriber must be handed to a dispatcher, which it then counts as.
    fn schedule(&mut self) -> bool {
        !self.pending.is_empty() && !std::mem::replace(&mut self.is_scheduled, true)
    }
}

impl<I: Clone + 'static> Subscription<I> {
    /// Creates a subscription, which takes the place of `replaced`.
    pub(crate) fn new(
        id: &I,
        channel: &str,
        subscriber: Arc<Subscriber<I>>,
        call: Box<Callback<I>>,
        deferred_drop: &Arc<DeferredDrop>,
        replaced: Option<&Arc<Self>>,
    ) -> Arc<Self> {
        let reception = replaced.map_or(Reception::Never, |replaced| replaced.reception());
        let subscription = Arc::new(Self {
            channel: channel.into(),
            subscriber,
            id: Mutex::new(id.clone()),
            callback: Mutex::new(BoundCallback { id: id.clone(), call }),
            is_silent: AtomicBool::new(false),
            reception: AtomicU8::new(reception as u8),
            deferred_drop: Arc::clone(deferred_drop),
            current: replaced.map_or_else(Arc::default, |replaced| Arc::clone(&replaced.current)),
        });
        subscription.make_current();
        subscription
    }

    pub(crate) fn id(&self) -> I {
        self.id.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<I: 'static> Subscription<I> {
    pub(crate) fn channel(&self) -> &str {
        &self.channel
    }

    pub(crate) fn subscriber(&self) -> &Arc<Subscriber<I>> {
        &self.subscriber
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.is_silent.load(Relaxed)
    }

    pub(crate) fn set_silent(&self, is_silent: bool) {
        self.is_silent.store(is_silent, Relaxed);
    }

    pub(crate) fn reception(&self) -> Reception {
        match self.reception.load(Relaxed) {
            1 => Reception::Opening,
            2 => Reception::Receiving,
            3 => Reception::Muted,
            4 => Reception::Stopped,
            _ => Reception::Never,
        }
    }

    pub(crate) fn set_reception(&self, reception: Reception) {
        self.reception.store(reception as u8, Relaxed);
    }

    /// Sets the state to `reason`, if the subscription was receiving.
    pub(crate) fn stop_receiving(&self, reason: Reception) {
        if self.reception() == Reception::Receiving {
            self.set_reception(reason);
        }
    }

    /// Receives from now on. Returns what must be reported first.
    pub(crate) fn start_receiving(&self) -> Option<MissedReport> {
        let reason = match self.reception() {
            Reception::Never | Reception::Receiving => None,
            Reception::Opening => Some(Reason::Opened),
            Reception::Muted => Some(Reason::Muted),
            Reception::Stopped => Some(Reason::Stopped),
        };
        self.set_reception(Reception::Receiving);
        reason.map(|reason| MissedReport::new(reason, 0))
    }

    /// Makes this subscription the one whose callback is called.
    pub(crate) fn make_current(self: &Arc<Self>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(self);
    }

    /// Returns the subscription whose callback is called, if there still is one.
    pub(crate) fn current(&self) -> Option<Arc<Self>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    /// Queues a notification. Returns `true` as well if the subscriber must be handed to a dispatcher.
    pub(crate) fn push(self: &Arc<Self>, notification: &Notification) -> (PushOutcome, bool) {
        let mut queue = self.subscriber.lock();
        let outcome = queue.pending.push(&SubscriptionRef(Arc::clone(self)), notification);
        (outcome, queue.schedule())
    }

    /// Queues a report. Returns `true` if the subscriber must be handed to a dispatcher.
    pub(crate) fn push_missed(self: &Arc<Self>, missed: MissedReport) -> bool {
        let mut queue = self.subscriber.lock();
        queue.pending.push_missed(&SubscriptionRef(Arc::clone(self)), missed);
        queue.schedule()
    }

    /// Calls the callback, which may panic.
    pub(crate) fn call(&self, content: &PendingContent) {
        // A call that panicked left only its own captured values in an unknown state.
        let mut callback = self.callback.lock().unwrap_or_else(PoisonError::into_inner);
        let BoundCallback { id, call } = &mut *callback;
        call(&Delivery::new(id, &self.channel, content));
    }
}

/// A subscription that is equal only to itself.
pub(crate) struct SubscriptionRef<I: 'static>(pub(crate) Arc<Subscription<I>>);

impl<I: 'static> Clone for SubscriptionRef<I> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<I: 'static> PartialEq for SubscriptionRef<I> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<I: 'static> Eq for SubscriptionRef<I> {}

impl<I: 'static> Hash for SubscriptionRef<I> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}
