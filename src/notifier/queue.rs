//! The queue of one subscriber: bounded and in order, with a report in the place of what it drops. Pure.
//!
//! ```text
//!   reports to deliver first │ notification, notification, report, notification, … │ ◀── the newest
//!               └──▶ taken from here first
//! ```
//!
//! Reports do not count towards the limits and are never dropped. Reports for one subscription with no notification
//! between them are merged, so there are never many more of them than of notifications.

use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};

use crate::notifier::missed::{MissedReport, Reason};
use crate::notifier::segment::{StoredNotification, size};

/// Limits for the notifications that wait for a subscriber, and a policy for a subscriber that is slower than its channels.
///
/// A notification counts with its channel, its payload and 64 bytes. Dropped notifications are counted
/// ([`NotifierStats::dropped`](crate::notifier::NotifierStats::dropped)), and reported to the subscriber by
/// [`Delivery::Missed`](crate::notifier::Delivery::Missed).
///
/// ```
/// use notifyman::notifier::{Policy, Queue};
///
/// let queue = Queue::new(Policy::Coalesce).items(1_000).bytes(1 << 20);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    pub(crate) policy: Policy,
    pub(crate) items: usize,
    pub(crate) bytes: usize,
}

/// The action when a subscriber's [`Queue`] has no room for a notification.
///
/// ```
/// # fn main() -> Result<(), notifyman::Error> {
/// # let n = notifyman::Notifier::builder("host=localhost user=shop")?.autorun(false).build::<u32>();
/// use notifyman::notifier::{Policy, Queue};
///
/// # n.subscribe(7, "prices", |_| ())?;
/// # n.subscribe(8, "prices", |_| ())?;
/// n.set_queue(&7, Queue::new(Policy::Coalesce))?; // a cache, which needs each key once
/// n.set_queue(&8, Queue::new(Policy::Disconnect).items(100))?; // a client that must keep up
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Policy {
    /// Drops the oldest notifications, and reports that in their place.
    #[default]
    DropOldest,
    /// Drops the new notification, and reports that in its place.
    DropNewest,
    /// Folds waiting notifications of the same channel and payload into the latest one, even if the queue is not full; if
    /// that is not enough, drops the oldest. For cache invalidation: a slow subscriber receives each key once. (A
    /// [`Batcher`](super::Batcher), which sends, folds into the first one.)
    Coalesce,
    /// Unsubscribes the subscriber from everything. It still receives what waits, and a report at the end.
    Disconnect,
}

impl Queue {
    /// Creates a queue of 10,000 notifications or 16 MiB, whichever is reached first.
    pub fn new(policy: Policy) -> Self {
        Self { policy, items: 10_000, bytes: 16 << 20 }
    }

    /// Sets the number of notifications that may wait, which is at least one.
    #[must_use]
    pub fn items(mut self, items: usize) -> Self {
        self.items = items.max(1);
        self
    }

    /// Sets the number of bytes that may wait. One notification takes at most 8,126 in a UTF8 database.
    #[must_use]
    pub fn bytes(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self::new(Policy::default())
    }
}

/// The items that wait for one subscriber; `E` identifies the subscription of an item.
#[derive(Debug)]
pub(crate) struct PendingQueue<E> {
    queue: Queue,
    items: BTreeMap<u64, PendingItem<E>>,
    /// The positions of notifications that an equal one can be folded with.
    foldable: HashMap<(E, ContentKey), u64>,
    /// Reports to deliver before all items, and the position of each subscription's report there.
    first_reports: BTreeMap<u64, (E, MissedReport)>,
    first_report_of: HashMap<E, u64>,
    /// The positions of reports that no notification follows yet.
    last_reports: HashMap<E, u64>,
    notifications: usize,
    bytes: usize,
    last_position: u64,
}

#[derive(Debug)]
pub(crate) struct PendingItem<E> {
    pub(crate) to: E,
    pub(crate) content: PendingContent,
}

#[derive(Debug)]
pub(crate) enum PendingContent {
    /// A notification, and the number of equal ones that were folded into it.
    Notification {
        notification: StoredNotification,
        folded: u64,
    },
    Missed(MissedReport),
}

/// The effect of a new notification on the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct PushOutcome {
    pub(crate) dropped: u64,
    pub(crate) is_folded: bool,
    /// The queue is full, and its policy is to disconnect the subscriber.
    pub(crate) is_disconnected: bool,
}

/// A notification, compared by channel and payload and not by sender.
#[derive(Debug)]
struct ContentKey(StoredNotification);

impl PartialEq for ContentKey {
    fn eq(&self, other: &Self) -> bool {
        (self.0.as_ref().channel_bytes(), self.0.as_ref().payload_bytes())
            == (other.0.as_ref().channel_bytes(), other.0.as_ref().payload_bytes())
    }
}

impl Eq for ContentKey {}

impl Hash for ContentKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_ref().channel_bytes().hash(state);
        self.0.as_ref().payload_bytes().hash(state);
    }
}

impl<E: Clone + Eq + Hash> PendingQueue<E> {
    pub(crate) fn new(queue: Queue) -> Self {
        Self {
            queue,
            items: BTreeMap::new(),
            foldable: HashMap::new(),
            first_reports: BTreeMap::new(),
            first_report_of: HashMap::new(),
            last_reports: HashMap::new(),
            notifications: 0,
            bytes: 0,
            last_position: 0,
        }
    }

    /// Changes the limits and the policy for later notifications. Items that wait stay.
    pub(crate) fn set_queue(&mut self, queue: Queue) {
        if queue.policy != self.queue.policy {
            self.foldable.clear();
        }
        self.queue = queue;
    }

    /// Returns the number of notifications.
    pub(crate) fn len(&self) -> usize {
        self.notifications
    }

    /// Returns the size of the notifications.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn push(&mut self, to: &E, notification: &StoredNotification) -> PushOutcome {
        let mut outcome = PushOutcome::default();
        let mut folded = 0;
        let is_coalescing = self.queue.policy == Policy::Coalesce;
        if is_coalescing
            && let Some(position) = self.foldable.remove(&(to.clone(), ContentKey(notification.clone())))
            && let Some(PendingContent::Notification { notification: old, folded: before }) =
                self.take_at(position).map(|item| item.content)
        {
            debug_assert_eq!(old.as_ref().channel_bytes(), notification.as_ref().channel_bytes());
            folded = before + 1;
            outcome.is_folded = true;
        }
        let size = size(notification.as_ref());
        while self.notifications >= self.queue.items || self.bytes.saturating_add(size) > self.queue.bytes {
            outcome.dropped += 1;
            let has_made_room = match self.queue.policy {
                Policy::Disconnect => return PushOutcome { is_disconnected: true, ..outcome },
                Policy::DropNewest => false,
                Policy::DropOldest | Policy::Coalesce => self.drop_oldest(),
            };
            if !has_made_room {
                // This includes a notification that is larger than the whole queue.
                self.push_missed(to, MissedReport::new(Reason::Overflow, 1));
                return outcome;
            }
        }
        self.restore(to, notification, folded);
        outcome
    }

    /// Adds a notification with the equal ones that were folded into it, whatever the limits.
    pub(crate) fn restore(&mut self, to: &E, notification: &StoredNotification, folded: u64) {
        let position = self.next_position();
        if self.queue.policy == Policy::Coalesce {
            self.foldable.insert((to.clone(), ContentKey(notification.clone())), position);
        }
        self.last_reports.clear();
        let content = PendingContent::Notification { notification: notification.clone(), folded };
        self.items.insert(position, PendingItem { to: to.clone(), content });
        self.notifications += 1;
        self.bytes += size(notification.as_ref());
    }

    /// Adds a report behind all items.
    pub(crate) fn push_missed(&mut self, to: &E, missed: MissedReport) {
        if let Some(position) = self.last_reports.get(to)
            && let Some(PendingContent::Missed(before)) = self.items.get_mut(position).map(|item| &mut item.content)
        {
            return before.merge(missed);
        }
        if self.items.is_empty() {
            return self.report_first(to.clone(), missed);
        }
        let position = self.next_position();
        self.last_reports.insert(to.clone(), position);
        self.items.insert(position, PendingItem { to: to.clone(), content: PendingContent::Missed(missed) });
    }

    pub(crate) fn pop(&mut self) -> Option<PendingItem<E>> {
        if let Some((_, (to, missed))) = self.first_reports.pop_first() {
            self.first_report_of.remove(&to);
            return Some(PendingItem { to, content: PendingContent::Missed(missed) });
        }
        let position = *self.items.first_key_value()?.0;
        self.take_at(position)
    }

    fn take_at(&mut self, position: u64) -> Option<PendingItem<E>> {
        let item = self.items.remove(&position)?;
        match &item.content {
            PendingContent::Notification { notification, .. } => {
                self.notifications -= 1;
                self.bytes -= size(notification.as_ref());
                if !self.foldable.is_empty() {
                    self.foldable.remove(&(item.to.clone(), ContentKey(notification.clone())));
                }
            }
            PendingContent::Missed(_) => {
                if self.last_reports.get(&item.to) == Some(&position) {
                    self.last_reports.remove(&item.to);
                }
            }
        }
        Some(item)
    }

    /// Drops the oldest notification and reports that. Returns `false` if there is none.
    fn drop_oldest(&mut self) -> bool {
        while let Some((&position, _)) = self.items.first_key_value() {
            let Some(PendingItem { to, content }) = self.take_at(position) else { return false };
            match content {
                PendingContent::Missed(missed) => self.report_first(to, missed),
                PendingContent::Notification { .. } => {
                    self.report_first(to, MissedReport::new(Reason::Overflow, 1));
                    return true;
                }
            }
        }
        false
    }

    /// Makes all items of a subscription those of another one.
    pub(crate) fn rename(&mut self, from: &E, to: &E) {
        for item in self.items.values_mut().filter(|item| item.to == *from) {
            item.to = to.clone();
        }
        self.first_reports.values_mut().filter(|(of, _)| of == from).for_each(|(of, _)| *of = to.clone());
        for positions in [&mut self.first_report_of, &mut self.last_reports] {
            if let Some(position) = positions.remove(from) {
                positions.insert(to.clone(), position);
            }
        }
        let foldable = std::mem::take(&mut self.foldable).into_iter();
        self.foldable =
            foldable.map(|((of, key), at)| ((if of == *from { to.clone() } else { of }, key), at)).collect();
    }

    /// Removes all items of a subscription.
    pub(crate) fn remove_all(&mut self, of: &E) {
        let positions: Vec<u64> = self.items.iter().filter(|(_, item)| item.to == *of).map(|(at, _)| *at).collect();
        for position in positions {
            self.take_at(position);
        }
        if let Some(position) = self.first_report_of.remove(of) {
            self.first_reports.remove(&position);
        }
    }

    /// Drops all notifications and reports that. Returns their number.
    pub(crate) fn drop_all(&mut self) -> u64 {
        let mut dropped = 0;
        while self.drop_oldest() {
            dropped += 1;
        }
        dropped
    }

    /// Adds a report in front of all items.
    pub(crate) fn report_first(&mut self, to: E, missed: MissedReport) {
        let position = self.first_report_of.get(&to);
        if let Some((_, before)) = position.and_then(|position| self.first_reports.get_mut(position)) {
            return before.merge(missed);
        }
        let position = self.next_position();
        self.first_report_of.insert(to.clone(), position);
        self.first_reports.insert(position, (to, missed));
    }

    fn next_position(&mut self) -> u64 {
        self.last_position += 1;
        self.last_position
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::notification::Notification;

    fn notification(payload: &str) -> StoredNotification {
        StoredNotification::Copied(Notification::for_test("c", payload))
    }

    /// Returns a payload with the number of folded notifications, or the number of dropped ones.
    fn text(item: PendingItem<u8>) -> String {
        match item.content {
            PendingContent::Notification { notification, folded: 0 } => notification.as_ref().payload().into_owned(),
            PendingContent::Notification { notification, folded } => {
                format!("{}+{folded}", notification.as_ref().payload())
            }
            PendingContent::Missed(missed) => format!("-{}", missed.dropped()),
        }
    }

    fn drain(mut pending: PendingQueue<u8>) -> String {
        std::iter::from_fn(|| pending.pop()).map(text).collect::<Vec<_>>().join(" ")
    }

    fn filled(queue: Queue, payloads: &str) -> PendingQueue<u8> {
        let mut pending = PendingQueue::new(queue);
        for payload in payloads.split(' ') {
            pending.push(&1, &notification(payload));
        }
        pending
    }

    #[test]
    fn n07_each_policy_reports_a_gap_where_it_dropped() {
        let of = |policy| Queue::new(policy).items(3);
        assert_eq!(drain(filled(of(Policy::DropOldest), "1 2 3 4 5")), "-2 3 4 5");
        assert_eq!(drain(filled(of(Policy::DropNewest), "1 2 3 4 5")), "1 2 3 -2");
        assert_eq!(drain(filled(of(Policy::Coalesce), "1 2 3 4 5")), "-2 3 4 5");
        let mut slow = filled(of(Policy::DropNewest), "1 2 3 4");
        assert_eq!(text(slow.pop().unwrap()), "1");
        slow.push(&1, &notification("5"));
        assert_eq!(drain(slow), "2 3 -1 5");
    }

    #[test]
    fn n07_a_full_queue_that_disconnects_takes_no_more() {
        let mut pending = filled(Queue::new(Policy::Disconnect).items(2), "1 2");
        assert!(pending.push(&1, &notification("3")).is_disconnected);
        assert_eq!(drain(pending), "1 2");
    }

    #[test]
    fn n07_equal_notifications_are_folded_into_the_latest() {
        assert_eq!(drain(filled(Queue::new(Policy::Coalesce), "a b a c a b")), "c a+2 b+1");
        assert_eq!(drain(filled(Queue::new(Policy::DropOldest), "a b a")), "a b a");
    }

    #[test]
    fn n07_bytes_are_bounded_and_a_notification_larger_than_the_queue_is_dropped() {
        let one = size(notification("1").as_ref());
        let queue = Queue::new(Policy::DropOldest).bytes(2 * one);
        assert_eq!(drain(filled(queue, "1 2 3")), "-1 2 3");
        assert_eq!(drain(filled(queue.bytes(one - 1), "1 2")), "-2");
    }

    #[test]
    fn n07_two_reports_are_merged_only_if_no_notification_lies_between() {
        let mut pending = PendingQueue::new(Queue::default());
        pending.push(&1, &notification("a"));
        for (dropped, next) in [(1, "b"), (2, "c")] {
            pending.push_missed(&1, MissedReport::new(Reason::Muted, dropped));
            pending.push_missed(&1, MissedReport::new(Reason::Stopped, 10 * dropped));
            pending.push(&1, &notification(next));
        }
        pending.push_missed(&1, MissedReport::new(Reason::Muted, 3));
        assert_eq!(drain(pending), "a -11 b -22 c -3");
    }

    #[test]
    fn n07_a_report_that_was_taken_is_not_merged_with_a_later_one() {
        let mut pending = filled(Queue::default(), "a");
        pending.push_missed(&1, MissedReport::new(Reason::Muted, 1));
        assert_eq!([pending.pop(), pending.pop()].map(|item| text(item.unwrap())), ["a", "-1"]);
        // The queue is empty, so the next item comes first.
        for dropped in [2, 3] {
            pending.push_missed(&1, MissedReport::new(Reason::Muted, dropped));
            assert_eq!(text(pending.pop().unwrap()), format!("-{dropped}"));
        }
        pending.push(&1, &notification("b"));
        pending.push_missed(&1, MissedReport::new(Reason::Muted, 4));
        assert_eq!(drain(pending), "b -4");
    }

    #[test]
    fn n07_reports_to_a_blocked_subscriber_do_not_pile_up() {
        for policy in [Policy::DropOldest, Policy::DropNewest, Policy::Coalesce] {
            let mut pending = PendingQueue::new(Queue::new(policy).items(3));
            for n in 0..1000 {
                pending.push(&1, &notification(&n.to_string()));
                for to in 0..2 {
                    pending.push_missed(&to, MissedReport::new(Reason::Stopped, 0));
                }
            }
            assert!(pending.items.len() + pending.first_reports.len() <= 3 + 2 * 5, "{policy:?}");
        }
    }

    proptest! {
        /// Sent = delivered + folded + reported as dropped, in order and within the limits.
        #[test]
        fn n07_every_drop_is_reported(
            steps in prop::collection::vec((0..12u8, 0..3u8), 0..300),
            policy in prop::sample::select(vec![Policy::DropOldest, Policy::DropNewest, Policy::Coalesce]),
        ) {
            let mut pending = PendingQueue::new(Queue::new(policy).items(5));
            let (mut sent, mut delivered, mut folded_away, mut reported, mut dropped) = (0, 0, 0, 0, 0);
            let mut take = |item: PendingItem<u8>| match item.content {
                PendingContent::Notification { folded, .. } => { delivered += 1; folded_away += folded; }
                PendingContent::Missed(missed) => reported += missed.dropped(),
            };
            for (action, to) in steps {
                match action {
                    0..8 => {
                        sent += 1;
                        dropped += pending.push(&to, &notification(&action.to_string())).dropped;
                    }
                    8 => pending.push_missed(&to, MissedReport::new(Reason::Muted, 0)),
                    _ => { pending.pop().map(&mut take); }
                }
                prop_assert!(pending.len() <= 5);
            }
            while let Some(item) = pending.pop() {
                take(item);
            }
            prop_assert!(pending.foldable.is_empty() && pending.first_report_of.is_empty());
            prop_assert!(pending.bytes == 0 && pending.notifications == 0);
            // A notification that was folded into one that was dropped later is not counted as folded.
            match policy {
                Policy::Coalesce => prop_assert!(delivered + folded_away + reported <= sent),
                _ => prop_assert_eq!(delivered + reported, sent),
            }
            prop_assert_eq!(reported, dropped);
        }
    }
}
