//! The threads that call callbacks.
//!
//! ```text
//!   loop ──▶ ready subscribers ──▶ dispatcher: some calls for one subscriber, then the next ──▶ callbacks
//! ```
//!
//! Only one thread serves a subscriber at a time, so its callbacks are called one at a time and in order. No lock of the
//! notifier is held while a callback runs.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

#[cfg(feature = "tracing")]
use crate::error::Escaped;
use crate::notifier::counters::NotifierCounters;
use crate::notifier::deferred_drop::{DeferredDrop, drop_caught};
use crate::notifier::queue::{PendingContent, PendingItem};
use crate::notifier::subscription::{Subscriber, Subscription, SubscriptionRef};

/// The number of calls for one subscriber before the next is served.
const CALLS_PER_TURN: usize = 32;
/// The number of panics that are kept. The oldest are dropped first.
const PANICS_MAX: usize = 64;

/// The dispatching threads of one run, from a start to a stop.
pub(crate) struct Dispatcher<I: 'static> {
    state: Mutex<DispatcherState<I>>,
    changed: Condvar,
}

struct DispatcherState<I: 'static> {
    ready: VecDeque<Arc<Subscriber<I>>>,
    is_halted: bool,
    /// The threads that have not ended, with that of the loop.
    threads: usize,
    /// The callbacks that run now, with the number of the thread.
    calls: Vec<(usize, Arc<Subscription<I>>)>,
}

impl<I: 'static> Dispatcher<I> {
    pub(crate) fn new(threads: usize) -> Self {
        let state = DispatcherState { ready: VecDeque::new(), is_halted: false, threads, calls: Vec::new() };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, DispatcherState<I>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds subscribers that have queued items.
    pub(crate) fn schedule(&self, subscribers: impl IntoIterator<Item = Arc<Subscriber<I>>>) {
        let mut state = self.lock();
        let before = state.ready.len();
        state.ready.extend(subscribers);
        match state.ready.len() - before {
            0 => {}
            1 => self.changed.notify_one(),
            _ => self.changed.notify_all(),
        }
    }

    /// Ends all threads, each after its current call.
    pub(crate) fn halt(&self) {
        self.lock().is_halted = true;
        self.changed.notify_all();
    }

    /// Records the end of a thread. Returns `true` if it was the last.
    pub(crate) fn leave(&self) -> bool {
        let mut state = self.lock();
        state.threads -= 1;
        state.threads == 0
    }

    /// Returns the id and the channel of a callback that runs.
    pub(crate) fn running_call(&self) -> Option<(I, Box<str>)>
    where
        I: Clone,
    {
        self.lock().calls.first().map(|(_, subscription)| (subscription.id(), subscription.channel().into()))
    }

    /// Waits for a ready subscriber. Returns `None` once the dispatcher is halted.
    fn next(&self) -> Option<Arc<Subscriber<I>>> {
        let mut state = self.lock();
        loop {
            if state.is_halted {
                return None;
            }
            if let Some(subscriber) = state.ready.pop_front() {
                return Some(subscriber);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Records the beginning of a call. Returns `false` if the dispatcher is halted.
    fn begin_call(&self, thread: usize, subscription: &Arc<Subscription<I>>) -> bool {
        let mut state = self.lock();
        if !state.is_halted {
            state.calls.push((thread, Arc::clone(subscription)));
        }
        !state.is_halted
    }

    fn end_call(&self, thread: usize) {
        self.lock().calls.retain(|(number, _)| *number != thread);
    }
}

impl<I: Clone + 'static> Dispatcher<I> {
    /// Calls callbacks until the dispatcher is halted.
    pub(crate) fn run(
        &self,
        thread: usize,
        counters: &NotifierCounters,
        panics: &PanicLog<I>,
        deferred_drop: &DeferredDrop,
    ) {
        while let Some(subscriber) = self.next() {
            let mut left = CALLS_PER_TURN;
            while let Some(item) = subscriber.take() {
                self.deliver(thread, item, counters, panics);
                // The item may have held the last reference to a subscription that has ended.
                deferred_drop.drop_all();
                left -= 1;
                if left == 0 {
                    self.schedule([subscriber]);
                    break;
                }
            }
        }
    }

    fn deliver(
        &self,
        thread: usize,
        item: PendingItem<SubscriptionRef<I>>,
        counters: &NotifierCounters,
        panics: &PanicLog<I>,
    ) {
        let PendingItem { to: SubscriptionRef(subscription), content } = item;
        let is_notification = matches!(content, PendingContent::Notification { .. });
        let Some(subscription) = subscription.current().filter(|current| !current.is_silent()) else { return };
        if !self.begin_call(thread, &subscription) {
            // The item was taken after the stop, and counts like those that still wait.
            counters.dropped.add(u64::from(is_notification));
            return;
        }
        let called = catch_unwind(AssertUnwindSafe(|| subscription.call(&content)));
        let counter = if is_notification { &counters.delivered } else { &counters.missed };
        counter.add(1);
        if let Err(panic) = called {
            // The panic is kept before it is counted, so a program that sees the count finds the panic.
            panics.add(subscription.id(), subscription.channel(), message(&*panic));
            counters.panics.add(1);
            drop_caught(panic);
        }
        self.end_call(thread);
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a message")
}

/// A panic of a callback. The panic was caught, and the subscription continues: see
/// [`Notifier::take_panics`](crate::Notifier::take_panics).
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/for_docs.rs"));
/// # fn main() -> Result<(), notifyman::Error> {
/// # let conf = database();
/// # let n: notifyman::Notifier<u32> = notifyman::Notifier::new(conf)?;
/// n.subscribe(7, "prices", |_| panic!("no price today"))?;
/// n.notify("prices", "42");
/// # while n.stats().panics == 0 { std::thread::yield_now() }
/// let panic = &n.take_panics()[0];
/// assert_eq!((panic.id, &*panic.message), (7, "no price today"));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallbackPanic<I> {
    /// The id of the subscriber.
    pub id: I,
    /// The channel of the callback.
    pub channel: Box<str>,
    /// The message of the panic, if it is a string.
    pub message: Box<str>,
}

/// The latest panics of callbacks, until they are taken.
#[derive(Debug)]
pub(crate) struct PanicLog<I>(Mutex<VecDeque<CallbackPanic<I>>>);

impl<I> Default for PanicLog<I> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<I> PanicLog<I> {
    fn add(&self, id: I, channel: &str, message: &str) {
        #[cfg(feature = "tracing")]
        tracing::error!(
            target: "notifyman",
            channel = %Escaped(channel),
            panic = %Escaped(message),
            "a callback panicked"
        );
        let mut panics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if panics.len() == PANICS_MAX {
            panics.pop_front();
        }
        panics.push_back(CallbackPanic { id, channel: channel.into(), message: message.into() });
    }

    pub(crate) fn take(&self) -> Vec<CallbackPanic<I>> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).into()
    }
}
