//! A channel with subscribers: the log of its notifications, and the subscriptions that read it.
//!
//! ```text
//!   loop ──publish──▶ log ◀──read── dispatching threads, for each of the receivers
//!          └─▶ checks: subscribers that the loop must look at before the log drops what they have not read
//! ```

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, Weak};

use crate::notifier::log::{Log, LogLimits};
use crate::notifier::receivers::{CHUNK, ReceiverList, ReceiverSnapshot};
use crate::notifier::segment::{SegmentEntries, SegmentPool};
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use crate::sync::{Mutex, MutexGuard};

/// A channel; `S` is a subscription.
#[derive(Debug)]
pub(crate) struct FanoutChannel<S> {
    name: Box<str>,
    log: Mutex<LimitedLog>,
    pool: Arc<SegmentPool>,
    /// Copies of values of the log, to be read without its lock.
    head: AtomicU64,
    bytes: AtomicU64,
    receivers: Mutex<ReceiverList<S>>,
    checks: Mutex<Checks<S>>,
    /// A size that no notification has exceeded. Changed under the lock of the checks.
    largest: AtomicU64,
    /// The number of subscribers that have not read all that the last complete pass handed out.
    laggards: AtomicUsize,
    /// The channel waits for a pass. Changed under the lock of the dispatcher.
    pub(crate) is_ready: AtomicBool,
}

#[derive(Debug, Default)]
struct LimitedLog {
    log: Log,
    /// The limits of the subscribers, each with the number of those that have it.
    limits: BTreeMap<LogLimits, usize>,
    /// The head when the last complete pass began.
    passed: u64,
}

/// Subscriptions whose subscribers the loop must check.
#[derive(Debug)]
struct Checks<S> {
    /// By the head after which they are checked, and a number.
    by_head: BTreeMap<(u64, u64), Weak<S>>,
    /// Whenever there are new notifications.
    always: BTreeMap<u64, Weak<S>>,
    last_number: u64,
    /// The checks were planned for smaller notifications than the largest one.
    is_outdated: bool,
}

/// A planned check, to cancel it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum PlannedCheck {
    AfterHead(u64, u64),
    Always(u64),
}

impl LimitedLog {
    /// Returns limits within which no subscriber's limits are exceeded.
    fn widest(&self) -> LogLimits {
        let widest = |of: fn(&LogLimits) -> u64| self.limits.keys().map(of).max().unwrap_or_default();
        LogLimits { items: widest(|it| it.items), bytes: widest(|it| it.bytes) }
    }
}

impl<S> FanoutChannel<S> {
    pub(crate) fn new(name: &str, pool: &Arc<SegmentPool>) -> Self {
        Self {
            name: name.into(),
            log: Mutex::default(),
            pool: Arc::clone(pool),
            head: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            receivers: Mutex::default(),
            checks: Mutex::new(Checks {
                by_head: BTreeMap::new(),
                always: BTreeMap::new(),
                last_number: 0,
                is_outdated: false,
            }),
            largest: AtomicU64::new(1),
            laggards: AtomicUsize::new(0),
            is_ready: AtomicBool::new(false),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn lock(&self) -> MutexGuard<'_, LimitedLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the index of the next notification.
    pub(crate) fn head(&self) -> u64 {
        self.head.load(Acquire)
    }

    /// Returns the size of all notifications that were published.
    #[inline]
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Reads the log under its lock.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Log) -> T) -> T {
        read(&self.lock().log)
    }

    fn change_log(&self, change: impl FnOnce(&mut LimitedLog)) {
        let mut log = self.lock();
        change(&mut log);
        self.bytes.store(log.log.bytes(), Relaxed);
        self.head.store(log.log.head(), Release);
    }

    /// Returns an empty list for notifications to [publish](Self::publish).
    pub(crate) fn entries(&self) -> SegmentEntries {
        self.pool.take(self.name.len())
    }

    /// Adds notifications to the log.
    pub(crate) fn publish(&self, entries: SegmentEntries) {
        if entries.largest() > self.largest.load(Relaxed) {
            let mut checks = self.lock_checks();
            // A power of two, so that this happens seldom.
            self.largest.store(entries.largest().next_power_of_two(), Relaxed);
            checks.is_outdated = true;
        }
        let entries = self.pool.fit(entries);
        self.change_log(|it| it.log.push(entries));
    }

    /// Removes what no subscriber reads any more because of its limits. The subscriptions that were
    /// [due](Self::due) must have been checked.
    pub(crate) fn trim(&self) {
        self.change_log(|it| it.log.trim(it.widest(), &self.pool));
    }

    /// Records that all receivers were visited since the head was at `until`, and have read what is before `read`.
    pub(crate) fn complete_pass(&self, until: u64, read: u64) {
        self.change_log(|it| {
            it.passed = it.passed.max(until);
            let is_read = self.laggards.load(Acquire) == 0;
            it.log.trim_to(if is_read { it.passed } else { until.min(read) }, &self.pool);
        });
    }

    pub(crate) fn add_laggard(&self) {
        self.laggards.fetch_add(1, AcqRel);
    }

    /// Records that a laggard has read all that was handed out. After the last one, that is removed.
    pub(crate) fn remove_laggard(&self) {
        // Under the lock, so that no pass with a new laggard is completed in between.
        self.change_log(|it| {
            if self.laggards.fetch_sub(1, AcqRel) == 1 {
                it.log.trim_to(it.passed, &self.pool);
            }
        });
    }

    /// Removes all notifications, when no pass will follow.
    pub(crate) fn clear(&self) {
        self.is_ready.store(false, Relaxed);
        self.change_log(|it| it.log.trim_to(u64::MAX, &self.pool));
    }

    pub(crate) fn add_limits(&self, limits: LogLimits) {
        *self.lock().limits.entry(limits).or_default() += 1;
    }

    pub(crate) fn remove_limits(&self, limits: LogLimits) {
        let mut log = self.lock();
        if let Some(count) = log.limits.get_mut(&limits) {
            *count -= 1;
            if *count == 0 {
                log.limits.remove(&limits);
            }
        }
    }

    // ---- receivers and checks -------------------------------------------------------------------------------------

    pub(crate) fn receivers(&self) -> ReceiverSnapshot<S> {
        self.lock_receivers().snapshot()
    }

    pub(crate) fn lock_receivers(&self) -> MutexGuard<'_, ReceiverList<S>> {
        self.receivers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Plans a check of a subscription for the time when its share of the room may be exceeded, or without one, for the next
    /// notification, if it is beyond `head` or was the last.
    pub(crate) fn check_after(&self, head: u64, room: Option<LogLimits>, subscription: &Weak<S>) -> PlannedCheck {
        let mut checks = self.lock_checks();
        let after = match room {
            Some(room) => head.saturating_add(room.items.min(room.bytes / self.largest.load(Relaxed))),
            None => head.saturating_sub(1),
        };
        checks.last_number += 1;
        let number = checks.last_number;
        checks.by_head.insert((after, number), Weak::clone(subscription));
        PlannedCheck::AfterHead(after, number)
    }

    /// Plans a check of a subscription whenever there are new notifications.
    pub(crate) fn check_always(&self, subscription: &Weak<S>) -> PlannedCheck {
        let mut checks = self.lock_checks();
        checks.last_number += 1;
        let number = checks.last_number;
        checks.always.insert(number, Weak::clone(subscription));
        PlannedCheck::Always(number)
    }

    pub(crate) fn cancel_check(&self, check: PlannedCheck) {
        let mut checks = self.lock_checks();
        match check {
            PlannedCheck::AfterHead(head, number) => drop(checks.by_head.remove(&(head, number))),
            PlannedCheck::Always(number) => drop(checks.always.remove(&number)),
        }
    }

    /// Returns the subscriptions that are checked whenever there are new notifications.
    pub(crate) fn always_checked(&self) -> DueSubscriptions<'_, S> {
        DueSubscriptions::new(self, &self.lock_checks(), 0)
    }

    /// Returns the subscriptions that must be checked now, also those that became one of many meanwhile.
    pub(crate) fn due(&self) -> DueSubscriptions<'_, S> {
        let mut checks = self.lock_checks();
        let head = if std::mem::take(&mut checks.is_outdated) { u64::MAX } else { self.head() };
        DueSubscriptions::new(self, &checks, head)
    }

    /// Returns the number of checks that have been planned.
    #[cfg(test)]
    pub(crate) fn planned_checks(&self) -> u64 {
        self.lock_checks().last_number
    }

    fn lock_checks(&self) -> MutexGuard<'_, Checks<S>> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Subscriptions to check. The lock of the checks is held only to find some of them, and not while one is checked.
///
/// A check that is planned again meanwhile, in another way, may be missed. The thread that plans it has moved all notifications but
/// those that have just been published, and these stay in the log until the next look.
#[derive(Debug)]
pub(crate) struct DueSubscriptions<'c, S> {
    channel: &'c FanoutChannel<S>,
    /// Checks before this head are due.
    head: u64,
    /// Checks with a later number have been planned since, perhaps because of a check in this round.
    last_number: u64,
    /// The checks to look at next.
    next: (u64, u64),
    next_always: u64,
    found: std::vec::IntoIter<Arc<S>>,
}

impl<'c, S> DueSubscriptions<'c, S> {
    fn new(channel: &'c FanoutChannel<S>, checks: &Checks<S>, head: u64) -> Self {
        let last_number = checks.last_number;
        let mut due = Self { channel, head, last_number, next: (0, 0), next_always: 0, found: Vec::new().into_iter() };
        due.find(checks);
        due
    }

    /// Finds the next ones. Returns `false` if all have been looked at.
    fn find(&mut self, checks: &Checks<S>) -> bool {
        let mut found = Vec::new();
        let mut left = CHUNK;
        if self.next < (self.head, 0) {
            for ((head, number), subscription) in checks.by_head.range(self.next..(self.head, 0)).take(CHUNK) {
                self.next = (*head, number + 1);
                left -= 1;
                found.extend(subscription.upgrade().filter(|_| *number <= self.last_number));
            }
        }
        for (number, subscription) in checks.always.range(self.next_always..).take(left) {
            self.next_always = number + 1;
            left -= 1;
            found.extend(subscription.upgrade());
        }
        self.found = found.into_iter();
        left < CHUNK
    }
}

impl<S> Iterator for DueSubscriptions<'_, S> {
    type Item = Arc<S>;

    fn next(&mut self) -> Option<Arc<S>> {
        let channel = self.channel;
        loop {
            if let Some(subscription) = self.found.next() {
                return Some(subscription);
            }
            if !self.find(&channel.lock_checks()) {
                return None;
            }
        }
    }
}

/// The channels of a database that have subscribers.
#[derive(Debug)]
pub(crate) struct ChannelTable<S> {
    channels: Mutex<HashMap<Box<str>, Arc<FanoutChannel<S>>>>,
    pool: Arc<SegmentPool>,
}

impl<S> Default for ChannelTable<S> {
    fn default() -> Self {
        Self { channels: Mutex::default(), pool: Arc::default() }
    }
}

impl<S> ChannelTable<S> {
    pub(crate) fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Arc<FanoutChannel<S>>>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a channel, and creates it if there is none.
    pub(crate) fn channel(&self, name: &str) -> Arc<FanoutChannel<S>> {
        let mut channels = self.lock();
        if let Some(channel) = channels.get(name) {
            return Arc::clone(channel);
        }
        let channel = Arc::new(FanoutChannel::new(name, &self.pool));
        channels.insert(name.into(), Arc::clone(&channel));
        channel
    }

    /// Removes a channel that has no receiver.
    pub(crate) fn remove_if_unused(&self, channel: &FanoutChannel<S>) {
        let mut channels = self.lock();
        if channel.lock_receivers().is_empty()
            && channels.get(&channel.name).is_some_and(|known| std::ptr::eq(&**known, channel))
        {
            channels.remove(&channel.name);
        }
    }

    /// Returns all channels.
    pub(crate) fn all(&self) -> Vec<Arc<FanoutChannel<S>>> {
        self.lock().values().cloned().collect()
    }
}
