//! The threads that call callbacks.
//!
//! ```text
//!   loop ──▶ ready channels, subscribers ──▶ pass: each receiver of a channel in turn ──▶ callbacks
//! ```
//!
//! Several threads share a pass. Only one thread serves a subscriber at a time, so its callbacks are called one at a time
//! and in order. No lock of the notifier is held while a callback runs.

use std::any::Any;
use std::cell::Cell;
use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};

use crate::clock;
use crate::notifier::channel::FanoutChannel;
use crate::notifier::counters::ThreadCounter;
use crate::notifier::cursor::SubscriptionRef;
use crate::notifier::deferred_drop::drop_caught;
use crate::notifier::log::LogLimits;
#[cfg(feature = "metrics")]
use crate::notifier::meters::CallbackTimes;
use crate::notifier::panic_log::PanicLog;
use crate::notifier::pending_queue::{PendingContent, PendingItem};
use crate::notifier::place_ranges::PlaceRanges;
use crate::notifier::receivers::ReceiverSnapshot;
use crate::notifier::subscription::{LockedCallback, Subscription, SubscriptionContext};
use crate::notifier::turn_timer::TurnTimer;
use crate::notifier::visit::{SegmentReader, Taken, Visit};
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// The largest number of notifications that a subscriber with quick calls takes together. To take one costs more than to call
/// an empty callback, and what has been taken no longer counts as waiting.
const TAKEN_TOGETHER_MAX: u32 = 8;

/// The dispatching threads of one run, from a start to a stop.
pub(crate) struct Dispatcher<I: 'static> {
    state: Mutex<DispatcherState<I>>,
    changed: Condvar,
    is_halted: AtomicBool,
    /// The call of each thread.
    calls: Box<[ThreadCall<I>]>,
}

/// The call that a thread makes, in a cache line of its own.
#[repr(align(128))]
struct ThreadCall<I: 'static> {
    /// The subscription whose callback the thread calls now, or called last in its present job.
    subscription: Mutex<Option<Arc<Subscription<I>>>>,
    is_running: AtomicBool,
}

struct DispatcherState<I: 'static> {
    ready: VecDeque<Job<I>>,
    /// The number of threads that wait for a job. They are woken after the lock is released, which they take first.
    idle: usize,
    /// The position of the last notification that was published.
    published: u64,
    /// The threads that have not ended, with that of the loop.
    threads: usize,
}

enum Job<I: 'static> {
    /// A channel with new notifications.
    Channel(Arc<FanoutChannel<Subscription<I>>>),
    /// A pass that another thread has begun.
    Pass(Arc<Pass<I>>),
    /// A subscriber with items that wait, by one of its subscriptions.
    Subscriber(Arc<Subscription<I>>),
    /// A subscription for which perhaps nothing waits.
    Visit(Arc<Subscription<I>>),
}

/// A visit of each receiver of a channel, for the notifications that were published before.
struct Pass<I: 'static> {
    channel: Arc<FanoutChannel<Subscription<I>>>,
    /// The index after the last of these notifications.
    until: u64,
    receivers: ReceiverSnapshot<Subscription<I>>,
    places: PlaceRanges,
    visited: AtomicUsize,
    /// All receivers that were visited have read what is before this index.
    read: AtomicU64,
}

impl<I: 'static> Dispatcher<I> {
    /// Creates a dispatcher for a number of dispatching threads.
    pub(crate) fn new(workers: usize) -> Self {
        // The loop counts as a thread.
        let state = DispatcherState { ready: VecDeque::new(), idle: 0, published: 0, threads: workers + 1 };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            is_halted: AtomicBool::new(false),
            calls: (0..workers).map(|_| ThreadCall::default()).collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, DispatcherState<I>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands out the notifications that were added to the logs of channels, up to a position.
    pub(crate) fn publish(
        &self,
        position: u64,
        channels: impl IntoIterator<Item = Arc<FanoutChannel<Subscription<I>>>>,
    ) {
        let mut state = self.lock();
        state.published = position;
        let ready = channels.into_iter().filter(|channel| !channel.is_ready.swap(true, Relaxed));
        self.schedule(state, ready.map(Job::Channel));
    }

    /// Serves subscribers with items that wait, each by one of its subscriptions.
    pub(crate) fn resume(&self, subscriptions: Vec<Arc<Subscription<I>>>) {
        if !subscriptions.is_empty() {
            self.schedule(self.lock(), subscriptions.into_iter().map(Job::Subscriber));
        }
    }

    /// Visits subscriptions, for which perhaps nothing waits.
    pub(crate) fn visit(&self, subscriptions: Vec<Arc<Subscription<I>>>) {
        if !subscriptions.is_empty() {
            self.schedule(self.lock(), subscriptions.into_iter().map(Job::Visit));
        }
    }

    fn schedule(&self, mut state: MutexGuard<'_, DispatcherState<I>>, jobs: impl Iterator<Item = Job<I>>) {
        let before = state.ready.len();
        state.ready.extend(jobs);
        let woken = state.idle.min(state.ready.len() - before);
        drop(state);
        (0..woken).for_each(|_| self.changed.notify_one());
    }

    /// Ends all threads, each after its current call.
    pub(crate) fn halt(&self) {
        let _state = self.lock();
        self.is_halted.store(true, SeqCst);
        self.changed.notify_all();
    }

    fn is_halted(&self) -> bool {
        self.is_halted.load(SeqCst)
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
        let mut running = self.calls.iter().filter(|call| call.is_running.load(Relaxed));
        running.find_map(|call| call.lock().as_ref().map(|it| (it.id(), it.channel().name().into())))
    }

    /// Waits for a job. Returns `None` once the dispatcher is halted.
    fn next(&self) -> Option<RunnableJob<I>> {
        let mut state = self.lock();
        loop {
            if self.is_halted() {
                return None;
            }
            let pass = match state.ready.pop_front() {
                Some(Job::Channel(channel)) => {
                    channel.is_ready.store(false, Relaxed);
                    Arc::new(Pass::new(channel, state.published, self.calls.len()))
                }
                Some(Job::Pass(pass)) => pass,
                Some(Job::Subscriber(subscription)) => {
                    return Some(RunnableJob::Subscriber(subscription, false));
                }
                Some(Job::Visit(subscription)) => {
                    return Some(RunnableJob::Subscriber(subscription, true));
                }
                None => {
                    state.idle += 1;
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                    state.idle -= 1;
                    continue;
                }
            };
            // Another thread can take part in a pass. One that is over is dropped without the lock.
            if self.calls.len() > 1 && pass.receivers.places() > 1 && !pass.places.is_over() {
                state.ready.push_front(Job::Pass(Arc::clone(&pass)));
                if state.idle > 0 {
                    drop(state);
                    self.changed.notify_one();
                }
            }
            return Some(RunnableJob::Pass(pass));
        }
    }
}

impl<I: 'static> Default for ThreadCall<I> {
    fn default() -> Self {
        Self { subscription: Mutex::default(), is_running: AtomicBool::new(false) }
    }
}

impl<I: 'static> ThreadCall<I> {
    fn lock(&self) -> MutexGuard<'_, Option<Arc<Subscription<I>>>> {
        self.subscription.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum RunnableJob<I: 'static> {
    Pass(Arc<Pass<I>>),
    /// `true` for a visit that must begin: the subscriber may be served by another thread, or be idle.
    Subscriber(Arc<Subscription<I>>, bool),
}

impl<I: 'static> Pass<I> {
    fn new(channel: Arc<FanoutChannel<Subscription<I>>>, published: u64, threads: usize) -> Self {
        // The notifications up to the position were in the log before, so a receiver that is added later does not read them.
        let until = channel.read(|log| log.end_at(published));
        let receivers = channel.receivers();
        Self {
            channel,
            until,
            places: PlaceRanges::new(receivers.places(), threads),
            receivers,
            visited: AtomicUsize::new(0),
            read: AtomicU64::new(u64::MAX),
        }
    }

    /// Records visits. After the last one, the log is trimmed.
    fn complete(&self, visited: usize, read: u64) {
        self.read.fetch_min(read, AcqRel);
        if visited > 0 && self.visited.fetch_add(visited, AcqRel) + visited == self.receivers.places() {
            self.channel.complete_pass(self.until, self.read.load(Acquire));
        }
    }
}

/// One of the threads of a dispatcher.
struct DispatchingThread<'d, I: 'static> {
    number: usize,
    dispatcher: &'d Dispatcher<I>,
    call: &'d ThreadCall<I>,
    delivered: &'d ThreadCounter,
    context: &'d SubscriptionContext,
    panics: &'d PanicLog<I>,
    /// The address of the subscription in `call`.
    called: Cell<*const Subscription<I>>,
    timer: TurnTimer,
    #[cfg(feature = "metrics")]
    times: CallbackTimes,
}

impl<I: Clone + 'static> Dispatcher<I> {
    /// Calls callbacks until the dispatcher is halted.
    pub(crate) fn run(&self, number: usize, context: &SubscriptionContext, panics: &PanicLog<I>) {
        let (Some(call), Some(delivered)) = (self.calls.get(number), context.counters.delivered.get(number)) else {
            return;
        };
        let called = Cell::new(std::ptr::null());
        let timer = TurnTimer::new(clock::now());
        let thread = DispatchingThread {
            number,
            dispatcher: self,
            call,
            delivered,
            context,
            panics,
            called,
            timer,
            #[cfg(feature = "metrics")]
            times: CallbackTimes::default(),
        };
        while let Some(job) = self.next() {
            thread.timer.restart(clock::now());
            match job {
                RunnableJob::Pass(pass) => thread.pass(&pass),
                RunnableJob::Subscriber(subscription, is_first) => thread.serve_subscriber(&subscription, is_first),
            }
            thread.set_called(None);
            context.deferred_drop.drop_all();
            #[cfg(feature = "metrics")]
            thread.times.publish();
        }
    }
}

impl<I: Clone + 'static> DispatchingThread<'_, I> {
    fn pass(&self, pass: &Pass<I>) {
        let mut reader = SegmentReader::default();
        let (mut visited, mut read) = (0, u64::MAX);
        while !self.dispatcher.is_halted() {
            let Some(place) = pass.places.next(self.number) else { break };
            visited += 1;
            if let Some(subscription) = pass.receivers.get(place) {
                let visit = Visit {
                    subscription,
                    channel: subscription.channel(),
                    until: pass.until,
                    limits: LogLimits::default(),
                    counters: &self.context.counters,
                };
                read = read.min(self.visit(visit, true, &mut reader));
            }
        }
        // First, so that the last thread has the only references to segments that are removed from the log.
        drop(reader);
        pass.complete(visited, read);
    }

    fn serve_subscriber(&self, subscription: &Arc<Subscription<I>>, is_first: bool) {
        let channel = subscription.channel();
        let counters = &self.context.counters;
        let until = channel.head();
        self.visit(
            Visit { subscription, channel, until, limits: LogLimits::default(), counters },
            is_first,
            &mut SegmentReader::default(),
        );
    }

    /// Serves a subscriber for a while. Returns the index before which the subscription has read everything.
    fn visit(&self, visit: Visit<'_, Subscription<I>>, is_first: bool, reader: &mut SegmentReader) -> u64 {
        #[cfg(feature = "metrics")]
        let (began, delivered) = (self.times.begin(), self.delivered.get());
        let read = self.serve(visit, is_first, reader);
        #[cfg(feature = "metrics")]
        self.times.end(began, self.delivered.get() - delivered);
        read
    }

    fn serve(&self, mut visit: Visit<'_, Subscription<I>>, is_first: bool, reader: &mut SegmentReader) -> u64 {
        let subscriber = visit.subscription.subscriber();
        let canaries = visit.subscription.waiting_canaries();
        let mut taken = match is_first {
            true => subscriber.begin(&mut visit, reader),
            false => subscriber.take(&mut visit, reader),
        };
        let mut callback: Option<LockedCallback<'_, I>> = None;
        let mut read = visit.until;
        loop {
            let subscription = visit.subscription;
            match taken {
                Taken::Idle => {
                    if let Some(canaries) = canaries {
                        subscription.catch_up(canaries, visit.until);
                    }
                    break;
                }
                Taken::Busy => {
                    read = subscriber.next_index(visit.channel);
                    break;
                }
                Taken::Logged(index) => {
                    // Everything before it has been handed out, also if there is always more.
                    if let Some(canaries) = canaries {
                        subscription.catch_up(canaries, index);
                    }
                    if let Some(entry) = reader.entry(index) {
                        let callback = callback.get_or_insert_with(|| subscription.callback());
                        self.deliver(subscription, true, || callback.notify(entry.notification, 0));
                    }
                }
                Taken::Folded(at) => {
                    if let Some((notification, folded)) = reader.folded(at) {
                        let callback = callback.get_or_insert_with(|| subscription.callback());
                        self.deliver(subscription, true, || callback.notify(notification, folded));
                    }
                }
                Taken::Pending(item) => {
                    callback = None;
                    self.deliver_pending(item);
                }
            }
            // Usually all that follows is in the log, or folded.
            let mut calls = 1;
            let is_over = loop {
                if self.timer.is_over(calls, clock::now) {
                    subscriber.postpone(visit.counters);
                    read = subscriber.next_index(visit.channel);
                    self.dispatcher.resume(vec![Arc::clone(subscription)]);
                    break true;
                }
                let Some(callback) = &mut callback else { break false };
                let most = self.timer.calls_before_look().min(TAKEN_TOGETHER_MAX);
                let Some(taken) = subscriber.take_unlocked(&visit, reader, u64::from(most)) else { break false };
                calls = (taken.end - taken.start) as u32;
                self.deliver_together(subscription, callback, taken, reader);
            };
            if is_over {
                break;
            }
            taken = subscriber.take(&mut visit, reader);
        }
        read
    }

    /// Delivers notifications that were taken without the lock.
    fn deliver_together(
        &self,
        subscription: &Arc<Subscription<I>>,
        callback: &mut LockedCallback<'_, I>,
        taken: Range<u64>,
        reader: &SegmentReader,
    ) {
        let subscriber = subscription.subscriber();
        for (notification, folded) in taken.clone().filter_map(|index| reader.taken(index)) {
            // Another callback may have taken the place of this one.
            let current = (!subscriber.is_unlocked_at(taken.end)).then(|| subscription.current());
            let is_delivered = match current.filter(|current| !Arc::ptr_eq(current, subscription)) {
                None => self.deliver(subscription, true, || callback.notify(notification, folded)),
                Some(current) => self.deliver(&current, true, || current.callback().notify(notification, folded)),
            };
            if !is_delivered {
                return;
            }
        }
    }

    fn deliver_pending(&self, item: PendingItem<SubscriptionRef<Subscription<I>>>) {
        let PendingItem { to: SubscriptionRef(subscription), content } = item;
        match &content {
            PendingContent::Notification { notification, folded } => {
                self.deliver(&subscription, true, || subscription.callback().notify(notification.as_ref(), *folded));
            }
            PendingContent::Missed(report) => {
                self.deliver(&subscription, false, || subscription.callback().report(report));
            }
        }
        drop((subscription, content));
        // The item may have held the last reference to a subscription that has ended.
        self.context.deferred_drop.drop_all();
    }

    /// Calls a callback. Returns `false` if the subscription is silent, and all that waits for it has been discarded.
    fn deliver(&self, subscription: &Arc<Subscription<I>>, is_notification: bool, call: impl FnOnce()) -> bool {
        if subscription.discard_if_silent() {
            return false;
        }
        if self.called.get() != Arc::as_ptr(subscription) {
            self.set_called(Some(subscription));
        }
        let counters = &self.context.counters;
        if self.dispatcher.is_halted() {
            // The item was taken after the stop, and counts like those that still wait.
            counters.dropped.add(u64::from(is_notification));
            return true;
        }
        self.call.is_running.store(true, Relaxed);
        let called = catch_unwind(AssertUnwindSafe(call));
        self.call.is_running.store(false, Relaxed);
        match is_notification {
            true => self.delivered.add_one(),
            false => counters.missed.add(1),
        }
        if let Err(panic) = called {
            // The panic is kept before it is counted, so a program that sees the count finds the panic.
            self.panics.add(subscription.id(), subscription.channel().name(), message(&*panic));
            counters.panics.add(1);
            drop_caught(panic);
        }
        true
    }

    fn set_called(&self, subscription: Option<&Arc<Subscription<I>>>) {
        self.called.set(subscription.map_or(std::ptr::null(), Arc::as_ptr));
        *self.call.lock() = subscription.cloned();
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a message")
}
