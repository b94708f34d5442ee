//! The threads that call: who is next, who is being called, and how they stop.
//!
//! ```text
//!   loop ──▶ ready subscribers ──▶ dispatcher: some calls for one, then the next ──▶ callbacks
//! ```
//!
//! A subscriber is with one dispatcher at a time, so its calls come one by one and in order. No lock of the notifier is
//! held while a callback runs.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::notifier::counters::NotifierCounters;
use crate::notifier::deferred_drop::{DeferredDrop, discard};
use crate::notifier::delivery::What;
use crate::notifier::panics::PanicLog;
use crate::notifier::queue::PendingItem;
use crate::notifier::subscription::{Subscriber, Subscription, SubscriptionRef};

/// How many calls one subscriber gets before the next one has its turn.
const TURN: usize = 32;

/// The dispatchers of one run, from a start to a stop.
pub(crate) struct Dispatcher<I: 'static> {
    state: Mutex<DispatcherState<I>>,
    ready: Condvar,
}

struct DispatcherState<I: 'static> {
    line: VecDeque<Arc<Subscriber<I>>>,
    halted: bool,
    /// The loop's thread included.
    threads: usize,
    /// What is being called now, by each thread's number.
    calling: Vec<(usize, Arc<Subscription<I>>)>,
}

impl<I: 'static> Dispatcher<I> {
    /// Of so many threads that are going to run.
    pub(crate) fn new(threads: usize) -> Self {
        let state = DispatcherState { line: VecDeque::new(), halted: false, threads, calling: Vec::new() };
        Self { state: Mutex::new(state), ready: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, DispatcherState<I>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These have something to be called for.
    pub(crate) fn schedule(&self, subscribers: impl IntoIterator<Item = Arc<Subscriber<I>>>) {
        let mut state = self.lock();
        let before = state.line.len();
        state.line.extend(subscribers);
        match state.line.len() - before {
            0 => {}
            1 => self.ready.notify_one(),
            _ => self.ready.notify_all(),
        }
    }

    /// Has every thread end, after the call that it is in.
    pub(crate) fn halt(&self) {
        self.lock().halted = true;
        self.ready.notify_all();
    }

    /// One of the threads ends; says whether it is the last.
    pub(crate) fn leave(&self) -> bool {
        let mut state = self.lock();
        state.threads -= 1;
        state.threads == 0
    }

    /// Whom a callback belongs to that runs, and its channel.
    pub(crate) fn calling(&self) -> Option<(I, Box<str>)>
    where
        I: Clone,
    {
        self.lock().calling.first().map(|(_, entry)| (entry.id(), entry.channel().into()))
    }

    /// The next subscriber, once there is one; none when it is time to end.
    fn next(&self) -> Option<Arc<Subscriber<I>>> {
        let mut state = self.lock();
        loop {
            if state.halted {
                return None;
            }
            if let Some(subscriber) = state.line.pop_front() {
                return Some(subscriber);
            }
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Notes that a call begins, unless no more may.
    fn begin(&self, number: usize, entry: &Arc<Subscription<I>>) -> bool {
        let mut state = self.lock();
        if !state.halted {
            state.calling.push((number, Arc::clone(entry)));
        }
        !state.halted
    }

    fn end(&self, number: usize) {
        self.lock().calling.retain(|(who, _)| *who != number);
    }
}

impl<I: Clone + 'static> Dispatcher<I> {
    /// What a dispatcher does until it is halted.
    pub(crate) fn work(
        &self,
        number: usize,
        counters: &NotifierCounters,
        panics: &PanicLog<I>,
        deferred_drop: &DeferredDrop,
    ) {
        while let Some(subscriber) = self.next() {
            let mut left = TURN;
            while let Some(item) = subscriber.take() {
                self.deliver(number, item, counters, panics);
                // What was unsubscribed meanwhile has gone with the call.
                deferred_drop.empty();
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
        number: usize,
        item: PendingItem<SubscriptionRef<I>>,
        counters: &NotifierCounters,
        panics: &PanicLog<I>,
    ) {
        let (entry, what) = match &item {
            PendingItem::Heard(SubscriptionRef(entry), n, folded) => (entry, What::Heard(n, *folded)),
            PendingItem::Missed(SubscriptionRef(entry), missed) => (entry, What::Missed(missed)),
        };
        let Some(entry) = entry.current().filter(|entry| !entry.is_silent()) else { return };
        if !self.begin(number, &entry) {
            // It was taken too late, and counts like what still waits.
            counters.dropped.add(u64::from(matches!(what, What::Heard(..))));
            return;
        }
        let called = catch_unwind(AssertUnwindSafe(|| entry.call(what)));
        match what {
            What::Heard(..) => counters.delivered.add(1),
            What::Missed(_) => counters.missed.add(1),
        }
        if let Err(panic) = called {
            // Who sees it counted finds it among those that are kept.
            panics.keep(entry.id(), entry.channel(), &message(&*panic));
            counters.panics.add(1);
            discard(panic);
        }
        self.end(number);
    }
}

fn message(panic: &(dyn Any + Send)) -> Box<str> {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a message").into()
}
