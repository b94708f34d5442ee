//! A subscriber, which the loop, the dispatching threads and the callers of the notifier share.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, PoisonError};

use crate::notifier::channel::FanoutChannel;
use crate::notifier::counters::{NotifierCounters, held_work};
use crate::notifier::cursor::{Cursor, PAUSED, SubscriptionRef};
use crate::notifier::missed::MissedReport;
use crate::notifier::queue::{Policy, Queue};
use crate::notifier::subscriber_queue::SubscriberQueue;
use crate::notifier::visit::{FOLDED, SegmentReader, Taken, Visit};
use crate::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Relaxed, Release},
};
use crate::sync::{Mutex, MutexGuard};

/// A subscriber, which receives one call at a time and in order, over all of its channels; `S` is a subscription.
#[derive(Debug)]
pub(crate) struct Subscriber<S> {
    queue: Mutex<SubscriberQueue<S>>,
    /// The index of the next notification, or [`FOLDED`] with that of the next folded one, while a thread takes
    /// notifications without the lock: at the only cursor, or the only one of several that has unread notifications.
    unlocked: AtomicU64,
}

/// The value of `unlocked` while notifications are taken under the lock.
const LOCKED: u64 = u64::MAX;

impl<S> Subscriber<S> {
    pub(crate) fn new(queue: impl Into<Arc<Queue>>) -> Self {
        let queue = SubscriberQueue::new(queue.into());
        Self { queue: Mutex::new(queue), unlocked: AtomicU64::new(LOCKED) }
    }

    fn lock(&self) -> MutexGuard<'_, SubscriberQueue<S>> {
        held_work::count();
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if self.unlocked.load(Relaxed) != LOCKED {
            // The thread that takes notifications without the lock continues with it.
            match self.unlocked.swap(LOCKED, AcqRel) {
                folded if folded & FOLDED != 0 => queue.continue_folded((folded & !FOLDED) as usize),
                next => queue.cursors.last_only_unread().into_iter().for_each(|cursor| cursor.next = next),
            }
        }
        queue
    }

    /// Adds a cursor, which reads nothing before it [receives](Self::receive). The channel must have the subscription
    /// among its receivers.
    pub(crate) fn attach(&self, subscription: &Arc<S>, channel: &Arc<FanoutChannel<S>>, counters: &NotifierCounters) {
        let mut it = self.lock();
        channel.add_limits(it.limits());
        let (subscription, channel) = (Arc::downgrade(subscription), Arc::clone(channel));
        it.insert(Cursor { subscription, channel, next: PAUSED, check: None }, counters);
    }

    /// Makes a subscription take the place of another one of the same channel, also for what waits.
    pub(crate) fn replace(&self, replaced: &Arc<S>, subscription: &Arc<S>, counters: &NotifierCounters) {
        self.lock().replace(replaced, subscription, counters);
    }

    /// Removes the cursor of a subscription. What it has not read waits for it nevertheless.
    pub(crate) fn detach(&self, subscription: &Arc<S>, counters: &NotifierCounters) {
        let mut it = self.lock();
        if let Some(cursor) = it.remove(subscription, counters) {
            cursor.channel.remove_limits(it.limits());
        }
        if it.cursors.is_empty()
            && let Some(pending) = &mut it.pending
        {
            pending.refused = None;
        }
    }

    /// Removes everything that waits for a subscription.
    pub(crate) fn discard(&self, subscription: &Arc<S>) {
        if let Some(pending) = &mut self.lock().pending {
            pending.items.remove_all(&SubscriptionRef(Arc::clone(subscription)));
        }
    }

    /// Lets a subscription receive later notifications, after a report. Returns `true` if the subscriber must be handed to
    /// a dispatcher.
    pub(crate) fn receive(
        &self,
        subscription: &Arc<S>,
        report: Option<MissedReport>,
        counters: &NotifierCounters,
    ) -> bool {
        let mut it = self.lock();
        let is_limited = it.queue.policy != Policy::DropOldest;
        if let Some(cursor) = it.cursor(subscription).filter(|cursor| cursor.is_paused()) {
            if is_limited {
                // Before the head is read, so that the loop checks for all that follows.
                cursor.watch();
            }
            cursor.next = cursor.channel.head();
            it.plan_check(subscription);
        }
        report.is_some_and(|report| it.push_missed(subscription, report, counters))
    }

    /// Lets a subscription receive nothing. What it has not read waits for it nevertheless.
    pub(crate) fn pause(&self, subscription: &S, counters: &NotifierCounters) {
        let mut it = self.lock();
        it.move_unread(counters);
        it.pause(subscription);
    }

    /// Discards what waits for a silent subscription of which an item has been discarded, so that the report of its mute comes
    /// before all that it receives later. Returns `false` if the subscription is no longer silent.
    pub(crate) fn discard_silent(
        &self,
        subscription: &Arc<S>,
        is_silent: impl FnOnce() -> bool,
        counters: &NotifierCounters,
    ) -> bool {
        let mut it = self.lock();
        if !is_silent() {
            return false;
        }
        it.move_unread(counters);
        if let Some(pending) = &mut it.pending {
            pending.items.remove_all(&SubscriptionRef(Arc::clone(subscription)));
        }
        it.pause(subscription);
        true
    }

    /// Queues a report behind all notifications. Returns `true` if the subscriber must be handed to a dispatcher.
    pub(crate) fn push_missed(&self, subscription: &Arc<S>, report: MissedReport, counters: &NotifierCounters) -> bool {
        self.lock().push_missed(subscription, report, counters)
    }

    pub(crate) fn set_queue(&self, queue: impl Into<Arc<Queue>>, counters: &NotifierCounters) {
        let queue = queue.into();
        let mut it = self.lock();
        if queue == it.queue {
            return;
        }
        if queue.policy != Policy::DropOldest {
            // The loop checks for all that follows, so what it has not checked for waits already.
            it.cursors.iter_mut().for_each(Cursor::watch);
        }
        it.move_unread(counters);
        let before = it.limits();
        it.queue = Arc::clone(&queue);
        for cursor in it.cursors.iter() {
            // First, so that meanwhile the log keeps what is within the limits.
            cursor.channel.add_limits(it.limits());
            cursor.channel.remove_limits(before);
        }
        if let Some(pending) = &mut it.pending {
            pending.items.set_queue(*queue);
        }
        it.plan_checks();
    }

    /// Applies the limits, and returns the number of notifications that wait.
    pub(crate) fn waiting(&self, counters: &NotifierCounters) -> usize {
        let mut it = self.lock();
        if it.queue.policy == Policy::Coalesce {
            it.move_unread(counters);
        }
        it.apply_limits(counters);
        it.len()
    }

    /// Returns `true` if a subscription is the first of its subscriber.
    pub(crate) fn is_first(&self, subscription: &S) -> bool {
        self.lock().cursors.first().is_some_and(|cursor| cursor.is_of(subscription))
    }

    /// Records that notifications were added to the log of one of many subscriptions.
    pub(crate) fn add_unread(&self, subscription: &S) {
        self.lock().note_unread(subscription);
    }

    /// Applies the limits before logs drop what the subscriber has not read. Returns the notifications of each channel that
    /// were dropped, if the subscriber must be disconnected.
    pub(crate) fn check(&self, counters: &NotifierCounters) -> Option<HashMap<Box<str>, u64>> {
        let mut it = self.lock();
        it.apply_limits(counters);
        it.plan_checks();
        it.pending.as_ref().and_then(|pending| pending.refused.as_deref().cloned())
    }

    /// Discards what waits, and no longer counts as scheduled.
    pub(crate) fn reset(&self) {
        let mut it = self.lock();
        it.clear_behind();
        (it.pending, it.folded) = (None, None);
        it.is_scheduled = false;
        it.cursors.clear_unread();
        for cursor in it.cursors.iter_mut().filter(|cursor| !cursor.is_paused()) {
            cursor.next = cursor.channel.head();
        }
    }

    /// Takes the next item for a thread that begins to serve the subscriber.
    pub(crate) fn begin(&self, visit: &mut Visit<'_, S>, reader: &mut SegmentReader) -> Taken<S> {
        let mut it = self.lock();
        if it.is_scheduled {
            it.is_revisited = true;
            it.leave(visit.counters);
            return Taken::Busy;
        }
        it.is_scheduled = true;
        let taken = it.take(visit, reader);
        self.unlock(&it, &taken, visit);
        taken
    }

    /// Takes the next item for the thread that serves the subscriber.
    pub(crate) fn take(&self, visit: &mut Visit<'_, S>, reader: &mut SegmentReader) -> Taken<S> {
        let mut it = self.lock();
        let taken = it.take(visit, reader);
        self.unlock(&it, &taken, visit);
        taken
    }

    /// Takes the next notifications that the reader has, at most `most`, without the lock, if only those of the log or of the
    /// folded window can follow. They no longer wait, so the caller must deliver all of them.
    #[inline]
    pub(crate) fn take_unlocked(&self, visit: &Visit<'_, S>, reader: &SegmentReader, most: u64) -> Option<Range<u64>> {
        let next = self.unlocked.load(Relaxed);
        let mut end = reader.end(next).min(next.saturating_add(most));
        if next & FOLDED == 0 {
            let is_within = next < visit.until
                && visit.channel.head() - next <= visit.limits.items
                && visit.channel.bytes() - reader.entry(next)?.bytes_before <= visit.limits.bytes;
            end = if is_within { end.min(visit.until) } else { next };
        }
        let is_taken = next < end && self.unlocked.compare_exchange(next, end, AcqRel, Relaxed).is_ok();
        is_taken.then_some(next..end)
    }

    /// Returns `true` if nothing has changed the subscriber since notifications up to an index were taken without the lock.
    #[inline]
    pub(crate) fn is_unlocked_at(&self, end: u64) -> bool {
        self.unlocked.load(Relaxed) == end
    }

    /// Lets [`take_unlocked`](Self::take_unlocked) continue after a notification from the log or from the folded window.
    /// No other cursor has an older one then. If a log is being folded, a notification from it is the last of a visit.
    fn unlock(&self, it: &SubscriberQueue<S>, taken: &Taken<S>, visit: &mut Visit<'_, S>) {
        let next = match taken {
            Taken::Logged(index) => index + 1,
            Taken::Folded(at) if it.folded.is_some() => FOLDED | (*at as u64 + 1),
            _ => return,
        };
        visit.limits = it.limits();
        self.unlocked.store(next, Release);
    }

    /// Records that the thread that serves the subscriber will come back to it later.
    pub(crate) fn postpone(&self, counters: &NotifierCounters) {
        self.lock().leave(counters);
    }

    /// Returns the index of the next notification that the subscriber reads in the log of a channel, after a visit that has
    /// left it something to read. The cursor may be that of the former subscription, which the visited one replaces. A
    /// subscriber of several channels has moved what was published before, and the index is the maximum.
    pub(crate) fn next_index(&self, channel: &FanoutChannel<S>) -> u64 {
        match &*self.lock().cursors {
            [cursor] if std::ptr::eq(&*cursor.channel, channel) => cursor.next,
            _ => u64::MAX,
        }
    }
}
