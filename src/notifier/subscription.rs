//! A subscription: a subscriber's callback for one channel.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use crate::notification::NotificationRef;
use crate::notifier::channel::FanoutChannel;
use crate::notifier::counters::{NotifierCounters, held_work};
use crate::notifier::deferred_drop::DeferredDrop;
use crate::notifier::delivery::Delivery;
use crate::notifier::missed::{MissedReport, Reason};
use crate::notifier::observer::{ObservedReception, PassingCanaries, ReceptionChange, ReceptionObserver};
use crate::notifier::subscriber::Subscriber;
use crate::sync::atomic::{AtomicU32, Ordering::Relaxed};
use crate::sync::{Mutex, MutexGuard};

pub(crate) struct Subscription<I: 'static> {
    channel: Arc<FanoutChannel<Self>>,
    subscriber: Arc<Subscriber<Self>>,
    /// A copy of the id in `callback`, which is locked while the callback runs.
    id: Mutex<I>,
    callback: Mutex<BoundCallback<I>>,
    /// The place among the receivers of the channel, which are less than 2^32.
    place: AtomicU32,
    /// The flag [`SILENT`], a [`Reception`] in the next three bits, and the lower bits of the generation of the LISTEN by which
    /// the subscription has begun to receive. Changed only under the lock of the notifier's state.
    state: AtomicU32,
    context: Arc<ReceptionContext>,
}

/// The bit of the state of a subscription that is muted or has ended: items that still wait for it are not delivered.
const SILENT: u32 = 1;
/// The place of the generation in the state of a subscription.
const GENERATION: u32 = 4;

/// The parts of a notifier that subscriptions need.
#[derive(Default)]
pub(crate) struct SubscriptionContext {
    pub(crate) counters: NotifierCounters,
    pub(crate) deferred_drop: DeferredDrop,
}

/// The context of subscriptions, which those without an observer share.
pub(crate) struct ReceptionContext {
    notifier: Arc<SubscriptionContext>,
    observed: Option<ObservedReception>,
}

impl ReceptionContext {
    pub(crate) fn new(notifier: &Arc<SubscriptionContext>, observer: Option<Arc<dyn ReceptionObserver>>) -> Arc<Self> {
        Arc::new(Self { notifier: Arc::clone(notifier), observed: observer.map(ObservedReception::new) })
    }
}

struct BoundCallback<I> {
    id: I,
    call: Box<Callback<I>>,
}

pub(crate) type Callback<I> = dyn FnMut(&Delivery<'_, I>) + Send;

/// The callback of a new subscription, and its observer.
pub(crate) struct SubscriptionTarget<I> {
    pub(crate) call: Box<Callback<I>>,
    pub(crate) observer: Option<Arc<dyn ReceptionObserver>>,
}

impl<I> From<Box<Callback<I>>> for SubscriptionTarget<I> {
    fn from(call: Box<Callback<I>>) -> Self {
        Self { call, observer: None }
    }
}

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
        self.context.notifier.deferred_drop.add(std::mem::replace(&mut callback.call, Box::new(|_| ())));
    }
}

impl<I: Clone + 'static> Subscription<I> {
    pub(crate) fn new(
        id: &I,
        channel: Arc<FanoutChannel<Self>>,
        subscriber: Arc<Subscriber<Self>>,
        call: Box<Callback<I>>,
        context: Arc<ReceptionContext>,
    ) -> Arc<Self> {
        Arc::new(Self {
            channel,
            subscriber,
            id: Mutex::new(id.clone()),
            callback: Mutex::new(BoundCallback { id: id.clone(), call }),
            place: AtomicU32::new(0),
            state: AtomicU32::new((Reception::Never as u32) << 1),
            context,
        })
    }

    pub(crate) fn id(&self) -> I {
        self.with_id(I::clone)
    }
}

impl<I: 'static> Subscription<I> {
    /// Calls a function with the id, which is not cloned.
    pub(crate) fn with_id<T>(&self, call: impl FnOnce(&I) -> T) -> T {
        call(&self.id.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the subscription that receives in the place of this one, if it has been replaced.
    pub(crate) fn current(self: &Arc<Self>) -> Arc<Self> {
        let current = self.channel.receivers().get(self.place()).cloned();
        current.filter(|it| Arc::ptr_eq(&it.subscriber, &self.subscriber)).unwrap_or_else(|| Arc::clone(self))
    }

    pub(crate) fn channel(&self) -> &FanoutChannel<Self> {
        &self.channel
    }

    pub(crate) fn subscriber(&self) -> &Arc<Subscriber<Self>> {
        &self.subscriber
    }

    fn place(&self) -> usize {
        self.place.load(Relaxed) as usize
    }

    fn set_place(&self, place: usize) {
        self.place.store(place as u32, Relaxed);
    }

    /// Adds the subscription to the receivers of its channel, in the place of another one if that is given.
    pub(crate) fn attach(self: &Arc<Self>, replaced: Option<&Arc<Self>>) {
        let mut receivers = self.channel.lock_receivers();
        let Some(replaced) = replaced else {
            self.set_place(receivers.add(Arc::clone(self)));
            drop(receivers);
            return self.subscriber.attach(self, &self.channel, &self.context.notifier.counters);
        };
        let place = replaced.place();
        self.set_place(place);
        receivers.replace(place, Some(Arc::clone(self)));
        drop(receivers);
        replaced.inform_observer(ReceptionChange::Ended);
        self.state.store(replaced.state.load(Relaxed) & !SILENT, Relaxed);
        self.subscriber.replace(replaced, self, &self.context.notifier.counters);
    }

    /// Removes the subscription from the receivers of its channel. What waits stays in the queue of the subscriber.
    pub(crate) fn detach(self: &Arc<Self>) {
        self.inform_observer(ReceptionChange::Ended);
        // First, so that no pass removes from the log what the cursor has not read.
        self.subscriber.detach(self, &self.context.notifier.counters);
        let mut receivers = self.channel.lock_receivers();
        receivers.replace(self.place(), None);
        receivers.compact(Self::set_place);
    }

    /// Queues a report. Returns `true` if the subscriber must be handed to a dispatcher.
    pub(crate) fn push_missed(self: &Arc<Self>, missed: MissedReport) -> bool {
        self.subscriber.push_missed(self, missed, &self.context.notifier.counters)
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.state.load(Relaxed) & SILENT != 0
    }

    fn set_silent(&self, is_silent: bool) {
        self.state.store(self.state.load(Relaxed) & !SILENT | u32::from(is_silent), Relaxed);
    }

    /// Discards all that waits for the subscription, if it is silent. Returns `false` if it is not.
    pub(crate) fn discard_if_silent(self: &Arc<Self>) -> bool {
        self.is_silent() && self.subscriber.discard_silent(self, || self.is_silent(), &self.context.notifier.counters)
    }

    pub(crate) fn reception(&self) -> Reception {
        held_work::count();
        match self.state.load(Relaxed) >> 1 & 7 {
            1 => Reception::Opening,
            2 => Reception::Receiving,
            3 => Reception::Muted,
            4 => Reception::Stopped,
            _ => Reception::Never,
        }
    }

    pub(crate) fn set_reception(&self, reception: Reception) {
        self.state.store(self.state.load(Relaxed) & !(7 << 1) | (reception as u32) << 1, Relaxed);
    }

    /// Sets the state to `reason`, if the subscription was receiving. The observer learns that before anything is left out.
    pub(crate) fn stop_receiving(&self, reason: Reception) {
        if self.reception() == Reception::Receiving {
            self.set_reception(reason);
            self.inform_observer(ReceptionChange::Silenced);
        }
    }

    pub(crate) fn inform_observer(&self, change: ReceptionChange) {
        if let Some(observed) = &self.context.observed {
            observed.inform(change);
        }
    }

    pub(crate) fn is_observed(&self) -> bool {
        self.context.observed.is_some()
    }

    /// Records that a canary has arrived. Returns `true` if a visit can prove that it has been passed.
    pub(crate) fn pass_canary(&self, sent: Instant) -> bool {
        let Some(observed) = self.context.observed.as_ref().filter(|_| self.reception() == Reception::Receiving) else {
            return false;
        };
        observed.pass_canary(sent, self.channel.head());
        true
    }

    /// Returns the canaries that a visit can prove, at its beginning.
    #[inline]
    pub(crate) fn waiting_canaries(&self) -> Option<PassingCanaries> {
        self.context.observed.as_ref()?.waiting_canaries()
    }

    /// Reports that a visit has handed out everything up to the head `until`.
    pub(crate) fn catch_up(&self, arrived: PassingCanaries, until: u64) {
        if let Some(observed) = &self.context.observed {
            observed.catch_up(arrived, until);
        }
    }

    /// Ends the subscription: what waits for it is not delivered.
    pub(crate) fn end(self: &Arc<Self>) {
        self.inform_observer(ReceptionChange::Ended);
        self.set_silent(true);
        self.detach();
        self.subscriber.discard(self);
    }

    /// Mutes the subscription: what arrives is not for it, and what waits is not delivered before it is unmuted.
    pub(crate) fn mute(self: &Arc<Self>) {
        self.stop_receiving(Reception::Muted);
        self.set_silent(true);
        self.subscriber.pause(self, &self.context.notifier.counters);
    }

    /// Unmutes the subscription. One that had been receiving must wait for
    /// [`start_receiving`](Self::start_receiving).
    pub(crate) fn unmute(self: &Arc<Self>) {
        self.set_silent(false);
        if self.reception() != Reception::Muted {
            self.subscriber.receive(self, None, &self.context.notifier.counters);
        }
    }

    /// Receives from now on, after the report that is due, by a LISTEN of this generation. Returns `true` if the subscriber must
    /// be handed to a dispatcher.
    pub(crate) fn start_receiving(self: &Arc<Self>, generation: u32) -> bool {
        let before = self.state.load(Relaxed);
        let state = generation << GENERATION | before & !(u32::MAX << GENERATION);
        self.state.store(state, Relaxed);
        let reason = match self.reception() {
            Reception::Never => None,
            // The channel was muted, and unmuted before the subscription was.
            Reception::Receiving => (before != state).then_some(Reason::Muted),
            Reception::Opening => Some(Reason::Opened),
            Reception::Muted => Some(Reason::Muted),
            Reception::Stopped => Some(Reason::Stopped),
        };
        self.set_reception(Reception::Receiving);
        let report = reason.map(|reason| MissedReport::new(reason, 0));
        let is_scheduled = self.subscriber.receive(self, report, &self.context.notifier.counters);
        // From here on the callback is called for everything.
        self.inform_observer(ReceptionChange::Listening);
        is_scheduled
    }

    /// Returns the callback for calls in a row, which may panic.
    pub(crate) fn callback(&self) -> LockedCallback<'_, I> {
        // A call that panicked left only its own captured values in an unknown state.
        LockedCallback {
            bound: self.callback.lock().unwrap_or_else(PoisonError::into_inner),
            channel: self.channel.name(),
        }
    }
}

/// A callback that no other thread calls.
pub(crate) struct LockedCallback<'s, I: 'static> {
    bound: MutexGuard<'s, BoundCallback<I>>,
    channel: &'s str,
}

impl<I: 'static> LockedCallback<'_, I> {
    pub(crate) fn notify(&mut self, notification: NotificationRef<'_>, folded: u64) {
        let BoundCallback { id, call } = &mut *self.bound;
        call(&Delivery::notification(id, self.channel, notification, folded));
    }

    pub(crate) fn report(&mut self, report: &MissedReport) {
        let BoundCallback { id, call } = &mut *self.bound;
        call(&Delivery::missed(id, self.channel, report));
    }
}
