//! A subscription, and the subscriber that it belongs to: what the loop fills and the dispatchers empty.

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::notification::Notification;
use crate::notifier::deferred_drop::DeferredDrop;
use crate::notifier::delivery::{Delivery, What};
use crate::notifier::missed::{Missed, Reason};
use crate::notifier::queue::{PendingItem, PendingQueue, PushOutcome, Queue};

/// Who is called, one call at a time and in order, whatever the channel.
pub(crate) struct Subscriber<I: 'static> {
    line: Mutex<SubscriberQueue<I>>,
}

struct SubscriberQueue<I: 'static> {
    pending: PendingQueue<SubscriptionRef<I>>,
    /// Whether a dispatcher has it, or will.
    scheduled: bool,
}

/// A subscriber's function for one channel.
pub(crate) struct Subscription<I: 'static> {
    channel: Box<str>,
    subscriber: Arc<Subscriber<I>>,
    /// Apart from the function, so that it can be read while that runs.
    id: Mutex<I>,
    function: Mutex<BoundCallback<I>>,
    /// Whether it is muted or has ended: what still waits for it isn't delivered.
    silent: AtomicBool,
    /// Changed under the lock of the notifier's state only.
    reception: AtomicU8,
    deferred_drop: Arc<DeferredDrop>,
    place: CurrentSubscription<I>,
}

/// Which of the functions that one subscriber had for one channel is called, also for what came in another's time.
type CurrentSubscription<I> = Arc<Mutex<Weak<Subscription<I>>>>;

struct BoundCallback<I> {
    id: I,
    call: Box<Callback<I>>,
}

pub(crate) type Callback<I> = dyn FnMut(&Delivery<'_, I>) + Send;

/// How far a subscription has come to hear something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Reception {
    /// Never so far.
    Never,
    /// Not since the start: the notifier is running, but its session has never been open.
    Opening,
    Receiving,
    /// Not any more, and is to be told so.
    Muted,
    Stopped,
}

impl<I: 'static> Drop for Subscription<I> {
    /// This may be anywhere, under any lock: the function is dropped later.
    fn drop(&mut self) {
        let function = self.function.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.deferred_drop.add(std::mem::replace(&mut function.call, Box::new(|_| ())));
    }
}

/// An entry that is equal to itself alone.
pub(crate) struct SubscriptionRef<I: 'static>(pub(crate) Arc<Subscription<I>>);

impl<I: 'static> Subscriber<I> {
    pub(crate) fn new(queue: Queue) -> Self {
        Self { line: Mutex::new(SubscriberQueue { pending: PendingQueue::new(queue), scheduled: false }) }
    }

    fn lock(&self) -> MutexGuard<'_, SubscriberQueue<I>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_queue(&self, queue: Queue) {
        self.lock().pending.set_queue(queue);
    }

    /// How many notifications wait.
    pub(crate) fn pending(&self) -> usize {
        self.lock().pending.len()
    }

    /// What is next; with nothing, nobody has it any more.
    pub(crate) fn take(&self) -> Option<PendingItem<SubscriptionRef<I>>> {
        let mut line = self.lock();
        let item = line.pending.pop();
        line.scheduled = item.is_some();
        item
    }

    /// Begins anew, with nothing in the queue.
    pub(crate) fn reset(&self, queue: Queue) {
        *self.lock() = SubscriberQueue { pending: PendingQueue::new(queue), scheduled: false };
    }
}

impl<I: Clone + 'static> Subscription<I> {
    /// One that takes the place of another, if there is one.
    pub(crate) fn new(
        id: &I,
        channel: &str,
        subscriber: Arc<Subscriber<I>>,
        call: Box<Callback<I>>,
        deferred_drop: &Arc<DeferredDrop>,
        before: Option<&Arc<Self>>,
    ) -> Arc<Self> {
        let entry = Self {
            channel: channel.into(),
            subscriber,
            id: Mutex::new(id.clone()),
            function: Mutex::new(BoundCallback { id: id.clone(), call }),
            silent: AtomicBool::new(false),
            reception: AtomicU8::new(Reception::Never as u8),
            deferred_drop: Arc::clone(deferred_drop),
            place: before.map_or_else(CurrentSubscription::default, |before| Arc::clone(&before.place)),
        };
        entry.set_reception(before.map_or(Reception::Never, |before| before.reception()));
        let entry = Arc::new(entry);
        entry.make_current();
        entry
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
        self.silent.load(Relaxed)
    }

    pub(crate) fn set_silent(&self, silent: bool) {
        self.silent.store(silent, Relaxed);
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

    /// It doesn't hear any more.
    pub(crate) fn stop_receiving(&self, why: Reception) {
        if self.reception() == Reception::Receiving {
            self.set_reception(why);
        }
    }

    /// It hears from now on; what it has missed to be told before.
    pub(crate) fn start_receiving(&self) -> Option<Missed> {
        let reason = match self.reception() {
            Reception::Never | Reception::Receiving => None,
            Reception::Opening => Some(Reason::Opened),
            Reception::Muted => Some(Reason::Muted),
            Reception::Stopped => Some(Reason::Stopped),
        };
        self.set_reception(Reception::Receiving);
        reason.map(|reason| Missed::new(reason, 0))
    }

    /// Calls the function, whatever it does.
    pub(crate) fn call(&self, what: What<'_>) {
        // A call that panicked has left its own captures as they were then, and they are its own.
        let mut function = self.function.lock().unwrap_or_else(PoisonError::into_inner);
        let BoundCallback { id, call } = &mut *function;
        call(&Delivery { id, channel: &self.channel, what });
    }
}

impl<I: 'static> Subscription<I> {
    /// From now on it is the one that is called.
    pub(crate) fn make_current(self: &Arc<Self>) {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(self);
    }

    /// The one that is called now, if any is.
    pub(crate) fn current(&self) -> Option<Arc<Self>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }
}

/// Fills the queue; says whether the subscriber is to be handed to a dispatcher.
impl<I: 'static> Subscription<I> {
    pub(crate) fn push(self: &Arc<Self>, notification: &Notification) -> (PushOutcome, bool) {
        let mut line = self.subscriber.lock();
        let pushed = line.pending.push(&SubscriptionRef(Arc::clone(self)), notification);
        (pushed, line.schedule())
    }

    pub(crate) fn miss(self: &Arc<Self>, missed: Missed) -> bool {
        let mut line = self.subscriber.lock();
        line.pending.miss(&SubscriptionRef(Arc::clone(self)), missed);
        line.schedule()
    }
}

impl<I: 'static> SubscriberQueue<I> {
    fn schedule(&mut self) -> bool {
        !self.pending.is_empty() && !std::mem::replace(&mut self.scheduled, true)
    }
}

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
