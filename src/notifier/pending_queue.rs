//! The queue of one subscriber: bounded and in order, with a report in the place of what it drops. Pure.
//!
//! ```text
//!   reports to deliver first │ notification, notification, report, notification, … │ ◀── the newest
//!               └──▶ taken from here first
//! ```
//!
//! Reports do not count towards the limits and are never dropped. Reports for one subscription with no notification
//! between them are merged, so there are never many more of them than of notifications.

mod small_map;

use std::collections::HashMap;
use std::hash::{Hash, Hasher};

use self::small_map::{KeyMap, PositionMap};
use crate::notifier::log::LogLimits;
use crate::notifier::merged_ranges::MergedRanges;
use crate::notifier::missed::{MissedReport, Reason};
use crate::notifier::queue::{Policy, Queue};
use crate::notifier::segment::{SegmentRange, StoredNotification, size};

/// The items that wait for one subscriber; `E` identifies the subscription of an item.
#[derive(Debug)]
#[expect(clippy::box_collection, reason = "most queues have none, which takes 8 bytes")]
pub(crate) struct PendingQueue<E> {
    queue: Queue,
    items: PositionMap<PendingEntry<E>>,
    /// The positions of notifications that an equal one can be folded with, if the policy has folded any.
    foldable: Option<Box<HashMap<(E, ContentKey), u64>>>,
    /// Reports to deliver before all items, and the position of each subscription's report there.
    first_reports: PositionMap<Box<(E, MissedReport)>>,
    first_report_of: KeyMap<E>,
    /// The positions of reports that no notification follows yet.
    last_reports: KeyMap<E>,
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

/// Items that are next to each other.
#[derive(Debug)]
enum PendingEntry<E> {
    Range(E, SegmentRange),
    Merged(MergedRanges<E>),
    /// Boxed, so that ranges take little memory.
    One(Box<(E, PendingContent)>),
}

impl<E> PendingEntry<E> {
    fn report(&mut self) -> Option<&mut MissedReport> {
        match self {
            Self::One(one) => match &mut one.1 {
                PendingContent::Missed(report) => Some(report),
                PendingContent::Notification { .. } => None,
            },
            Self::Range(..) | Self::Merged(_) => None,
        }
    }
}

/// The effect of new notifications on the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct PushOutcome {
    pub(crate) dropped: u64,
    pub(crate) folded: u64,
    /// The number of notifications that were not taken, because the policy is to disconnect the subscriber.
    pub(crate) refused: u64,
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
            items: PositionMap::default(),
            foldable: None,
            first_reports: PositionMap::default(),
            first_report_of: KeyMap::default(),
            last_reports: KeyMap::default(),
            notifications: 0,
            bytes: 0,
            last_position: 0,
        }
    }

    /// Changes the limits and the policy for later notifications. Items that wait stay.
    pub(crate) fn set_queue(&mut self, queue: Queue) {
        if queue.policy != self.queue.policy {
            self.foldable = None;
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

    /// Adds notifications, of which `is_copied` keeps no others of their segment.
    pub(crate) fn push(&mut self, to: &E, range: &SegmentRange, is_copied: bool) -> PushOutcome {
        let mut outcome = PushOutcome::default();
        match self.queue.policy {
            Policy::DropOldest => {
                self.add(to, range.clone(), is_copied);
                outcome.dropped = self.shrink_to(self.limits());
            }
            Policy::Coalesce => {
                for notification in range.iter() {
                    outcome.folded += u64::from(self.fold(to, &notification));
                    outcome.dropped += self.shrink_to(self.limits());
                }
            }
            Policy::DropNewest => {
                let mut rest = range.clone();
                while rest.len() > 0 {
                    let admitted = rest.take(self.fitting(&rest));
                    self.add(to, admitted, is_copied);
                    // A smaller one may have room, unless there is none for any.
                    let is_full = self.notifications >= self.queue.items;
                    let dropped = rest.take(if is_full { rest.len() } else { 1 }).len() as u64;
                    if dropped > 0 {
                        self.push_missed(to, MissedReport::new(Reason::Overflow, dropped));
                    }
                    outcome.dropped += dropped;
                }
            }
            Policy::Disconnect => {
                let mut rest = range.clone();
                let admitted = rest.take(self.fitting(&rest));
                self.add(to, admitted, is_copied);
                outcome.refused = rest.len() as u64;
            }
        }
        outcome
    }

    /// Returns `true` if most of some notifications of this number and size will be dropped or folded, so that those which
    /// are kept should be copied.
    pub(crate) fn is_copying(&self, notifications: usize, bytes: u64) -> bool {
        let LogLimits { items, bytes: limit } = self.limits();
        let (items, room) = (items.saturating_sub(self.notifications as u64), limit.saturating_sub(self.bytes as u64));
        match self.queue.policy {
            Policy::Coalesce => true,
            Policy::DropNewest => 8 * items < notifications as u64 || 8 * room < bytes,
            Policy::DropOldest | Policy::Disconnect => false,
        }
    }

    fn limits(&self) -> LogLimits {
        LogLimits { items: self.queue.items as u64, bytes: self.queue.bytes as u64 }
    }

    /// Returns the number of notifications at the beginning of a range for which there is room.
    fn fitting(&self, range: &SegmentRange) -> usize {
        let items = self.queue.items.saturating_sub(self.notifications);
        items.min(range.fitting(self.queue.bytes.saturating_sub(self.bytes) as u64))
    }

    /// Adds a notification, with those that are equal to it. Returns `true` if there are some.
    fn fold(&mut self, to: &E, shared: &StoredNotification) -> bool {
        let notification = StoredNotification::Copied(shared.as_ref().to_owned());
        let key = (to.clone(), ContentKey(notification.clone()));
        let equal = self.foldable.as_mut().and_then(|foldable| foldable.remove(&key));
        let before = match equal.and_then(|position| self.take_at(position)) {
            Some(PendingEntry::One(one)) => match one.1 {
                PendingContent::Notification { folded, .. } => Some(folded),
                PendingContent::Missed(_) => None,
            },
            _ => None,
        };
        self.add_one(to, notification, before.map_or(0, |folded| folded + 1));
        before.is_some()
    }

    /// Adds notifications, whatever the limits.
    fn add(&mut self, to: &E, range: SegmentRange, is_copied: bool) {
        if is_copied {
            for shared in range.iter() {
                self.add_one(to, StoredNotification::Copied(shared.as_ref().to_owned()), 0);
            }
            return;
        }
        if range.len() == 0 {
            return;
        }
        self.last_reports.clear();
        self.notifications += range.len();
        self.bytes += range.bytes() as usize;
        let is_extended = self.items.last_mut().is_some_and(|last| match last {
            PendingEntry::Range(of, before) => of == to && before.extend(&range),
            _ => false,
        });
        if !is_extended {
            self.add_entry(PendingEntry::Range(to.clone(), range));
        }
    }

    /// Adds notifications of several subscriptions in the order of their positions, which come after all others, if they are
    /// within the limits together or make the oldest ones be dropped.
    ///
    /// # Errors
    ///
    /// The notifications, if they must be [pushed](Self::push) one by one.
    pub(crate) fn push_merged(&mut self, ranges: MergedRanges<E>) -> Result<PushOutcome, MergedRanges<E>> {
        let (notifications, bytes) = (self.notifications + ranges.len(), self.bytes + ranges.bytes() as usize);
        let is_added = match self.queue.policy {
            Policy::DropOldest => true,
            Policy::DropNewest | Policy::Disconnect => notifications <= self.queue.items && bytes <= self.queue.bytes,
            Policy::Coalesce => false,
        };
        if !is_added {
            return Err(ranges);
        }
        self.last_reports.clear();
        (self.notifications, self.bytes) = (notifications, bytes);
        if let Some(PendingEntry::Merged(before)) = self.items.last_mut() {
            before.append(ranges);
        } else {
            self.add_entry(PendingEntry::Merged(ranges));
        }
        Ok(PushOutcome { dropped: self.shrink_to(self.limits()), ..PushOutcome::default() })
    }

    /// Adds a notification with the equal ones that were folded into it, whatever the limits.
    pub(crate) fn add_one(&mut self, to: &E, notification: StoredNotification, folded: u64) {
        self.last_reports.clear();
        self.notifications += 1;
        self.bytes += size(notification.as_ref());
        let key = (self.queue.policy == Policy::Coalesce).then(|| (to.clone(), ContentKey(notification.clone())));
        let content = PendingContent::Notification { notification, folded };
        let position = self.add_entry(PendingEntry::One(Box::new((to.clone(), content))));
        if let Some(key) = key {
            self.foldable.get_or_insert_default().insert(key, position);
        }
    }

    fn add_entry(&mut self, entry: PendingEntry<E>) -> u64 {
        let position = self.next_position();
        self.items.insert(position, entry);
        position
    }

    /// Adds a report behind all items.
    pub(crate) fn push_missed(&mut self, to: &E, missed: MissedReport) {
        if let Some(position) = self.last_reports.get(to)
            && let Some(before) = self.items.get_mut(position).and_then(PendingEntry::report)
        {
            return before.merge(missed);
        }
        if self.items.is_empty() {
            return self.report_first(to.clone(), missed);
        }
        let position = self.add_entry(PendingEntry::One(Box::new((to.clone(), PendingContent::Missed(missed)))));
        self.last_reports.insert(to.clone(), position);
    }

    pub(crate) fn pop(&mut self) -> Option<PendingItem<E>> {
        if let Some(report) = self.first_reports.pop_first() {
            let (to, missed) = *report;
            self.first_report_of.remove(&to);
            return Some(PendingItem { to, content: PendingContent::Missed(missed) });
        }
        let popped = match self.items.first_mut()? {
            PendingEntry::Range(to, range) if range.len() > 1 => Some((to.clone(), range.pop())),
            PendingEntry::Merged(ranges) => Some(ranges.pop()?),
            PendingEntry::Range(..) | PendingEntry::One(_) => None,
        };
        if let Some((to, notification)) = popped {
            self.count_popped(size(notification.as_ref()));
            return Some(PendingItem { to, content: PendingContent::Notification { notification, folded: 0 } });
        }
        let (to, content) = match self.take_at(self.items.first()?)? {
            PendingEntry::One(one) => *one,
            PendingEntry::Range(to, mut range) => {
                (to, PendingContent::Notification { notification: range.pop(), folded: 0 })
            }
            PendingEntry::Merged(_) => return None,
        };
        Some(PendingItem { to, content })
    }

    /// Counts a notification that was taken out of the first entry, and removes that if it is empty.
    fn count_popped(&mut self, size: usize) {
        self.notifications -= 1;
        self.bytes -= size;
        if let Some(PendingEntry::Merged(ranges)) = self.items.first_mut()
            && ranges.is_empty()
        {
            self.items.pop_first();
        }
    }

    fn take_at(&mut self, position: u64) -> Option<PendingEntry<E>> {
        let entry = self.items.remove(position)?;
        match &entry {
            PendingEntry::Range(_, range) => {
                self.notifications -= range.len();
                self.bytes -= range.bytes() as usize;
            }
            PendingEntry::Merged(ranges) => {
                self.notifications -= ranges.len();
                self.bytes -= ranges.bytes() as usize;
            }
            PendingEntry::One(one) => match &**one {
                (to, PendingContent::Notification { notification, .. }) => {
                    self.notifications -= 1;
                    self.bytes -= size(notification.as_ref());
                    if let Some(foldable) = self.foldable.as_mut().filter(|foldable| !foldable.is_empty()) {
                        let key = (to.clone(), ContentKey(notification.clone()));
                        // An equal one may be foldable that came after a change of the policy.
                        if foldable.get(&key) == Some(&position) {
                            foldable.remove(&key);
                        }
                    }
                }
                (to, PendingContent::Missed(_)) => {
                    if self.last_reports.get(to) == Some(position) {
                        self.last_reports.remove(to);
                    }
                }
            },
        }
        Some(entry)
    }

    /// Drops all notifications, and reports that before everything that is added later. Returns their number.
    pub(crate) fn drop_all(&mut self) -> u64 {
        let dropped = self.shrink_to(LogLimits::default());
        while let Some(position) = self.items.first()
            && let Some(PendingEntry::One(one)) = self.take_at(position)
            && let (to, PendingContent::Missed(missed)) = *one
        {
            self.report_first(to, missed);
        }
        dropped
    }

    /// Drops the oldest notifications until the others are within limits, and reports that. Returns their number.
    fn shrink_to(&mut self, limits: LogLimits) -> u64 {
        let before = self.notifications;
        loop {
            let items = (self.notifications as u64).saturating_sub(limits.items) as usize;
            let bytes = (self.bytes as u64).saturating_sub(limits.bytes);
            let Some(position) = self.items.first().filter(|_| items > 0 || bytes > 0) else { break };
            if let Some(PendingEntry::Merged(ranges)) = self.items.get_mut(position) {
                let Some((to, notification)) = ranges.pop() else { break };
                self.count_popped(size(notification.as_ref()));
                self.report_first(to, MissedReport::new(Reason::Overflow, 1));
                continue;
            }
            if let Some(PendingEntry::Range(to, range)) = self.items.get_mut(position)
                && let count = items.max(range.reaching(bytes))
                && count < range.len()
            {
                let (to, dropped) = (to.clone(), range.take(count));
                self.notifications -= count;
                self.bytes -= dropped.bytes() as usize;
                self.report_first(to, MissedReport::new(Reason::Overflow, count as u64));
                continue;
            }
            let (to, missed) = match self.take_at(position) {
                Some(PendingEntry::Range(to, range)) => (to, MissedReport::new(Reason::Overflow, range.len() as u64)),
                Some(PendingEntry::One(one)) => match *one {
                    (to, PendingContent::Notification { folded, .. }) => {
                        (to, MissedReport::new(Reason::Overflow, 1 + folded))
                    }
                    (to, PendingContent::Missed(missed)) => (to, missed),
                },
                Some(PendingEntry::Merged(_)) | None => break,
            };
            self.report_first(to, missed);
        }
        (before - self.notifications) as u64
    }

    /// Makes all items of a subscription those of another one.
    pub(crate) fn rename(&mut self, from: &E, to: &E) {
        for entry in self.items.values_mut() {
            match entry {
                PendingEntry::Range(of, _) if of == from => *of = to.clone(),
                PendingEntry::One(one) if one.0 == *from => one.0 = to.clone(),
                PendingEntry::Merged(ranges) => ranges.rename(from, to),
                _ => {}
            }
        }
        self.first_reports.values_mut().filter(|it| it.0 == *from).for_each(|it| it.0 = to.clone());
        for positions in [&mut self.first_report_of, &mut self.last_reports] {
            if let Some(position) = positions.remove(from) {
                positions.insert(to.clone(), position);
            }
        }
        if let Some(foldable) = &mut self.foldable {
            let all = std::mem::take(&mut **foldable).into_iter();
            **foldable = all.map(|((of, key), at)| ((if of == *from { to.clone() } else { of }, key), at)).collect();
        }
    }

    /// Removes all items of a subscription.
    pub(crate) fn remove_all(&mut self, of: &E) {
        let is_affected = |entry: &PendingEntry<E>| match entry {
            PendingEntry::Range(to, _) => to == of,
            PendingEntry::One(one) => one.0 == *of,
            PendingEntry::Merged(_) => true,
        };
        let positions: Vec<u64> = self.items.iter().filter(|(_, it)| is_affected(it)).map(|(at, _)| at).collect();
        for position in positions {
            if let Some(PendingEntry::Merged(mut ranges)) = self.take_at(position) {
                ranges.remove_all(of);
                if !ranges.is_empty() {
                    self.notifications += ranges.len();
                    self.bytes += ranges.bytes() as usize;
                    self.items.insert(position, PendingEntry::Merged(ranges));
                }
            }
        }
        if let Some(position) = self.first_report_of.remove(of) {
            self.first_reports.remove(position);
        }
    }

    /// Adds a report in front of all items.
    pub(crate) fn report_first(&mut self, to: E, missed: MissedReport) {
        let position = self.first_report_of.get(&to);
        if let Some(before) = position.and_then(|position| self.first_reports.get_mut(position)) {
            return before.1.merge(missed);
        }
        let position = self.next_position();
        self.first_report_of.insert(to.clone(), position);
        self.first_reports.insert(position, Box::new((to, missed)));
    }

    fn next_position(&mut self) -> u64 {
        self.last_position += 1;
        self.last_position
    }
}

#[cfg(test)]
pub(crate) mod naive;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::naive::NaiveQueue;
    use super::*;
    use crate::notification::Notification;
    use crate::notifier::segment::{Segment, SegmentPool};

    /// Returns all notifications of a segment.
    fn range<T: ToString>(payloads: impl IntoIterator<Item = T>) -> SegmentRange {
        range_at((1..).zip(payloads))
    }

    /// Returns all notifications of a segment, each with its position.
    fn range_at<T: ToString>(payloads: impl IntoIterator<Item = (u64, T)>) -> SegmentRange {
        let mut entries = SegmentPool::default().take(1);
        for (position, payload) in payloads {
            entries.push(position, Notification::for_test("c", &payload.to_string()).as_ref());
        }
        let segment = Arc::new(Segment::new(0, 0, entries));
        SegmentRange::new(&segment, 0, segment.end())
    }

    /// Pushes notifications one by one, up to the first that is refused.
    fn push_each(
        naive: &mut NaiveQueue<u8>,
        notifications: impl Iterator<Item = (u8, StoredNotification)>,
    ) -> PushOutcome {
        let mut outcome = PushOutcome::default();
        for (to, one) in notifications {
            let PushOutcome { dropped, folded, refused } = match outcome.refused {
                0 => naive.push(&to, &one),
                _ => PushOutcome { refused: 1, ..PushOutcome::default() },
            };
            outcome.dropped += dropped;
            outcome.folded += folded;
            outcome.refused += refused;
        }
        outcome
    }

    fn push(pending: &mut PendingQueue<u8>, to: u8, payload: &str) -> PushOutcome {
        pending.push(&to, &range([payload]), false)
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
            push(&mut pending, 1, payload);
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
        push(&mut slow, 1, "5");
        assert_eq!(drain(slow), "2 3 -1 5");
    }

    #[test]
    fn n07_a_full_queue_that_disconnects_takes_no_more() {
        let mut pending = filled(Queue::new(Policy::Disconnect).items(2), "1 2");
        assert_eq!(push(&mut pending, 1, "3").refused, 1);
        assert_eq!(drain(pending), "1 2");
    }

    #[test]
    fn n07_equal_notifications_are_folded_into_the_latest() {
        assert_eq!(drain(filled(Queue::new(Policy::Coalesce), "a b a c a b")), "c a+2 b+1");
        assert_eq!(drain(filled(Queue::new(Policy::DropOldest), "a b a")), "a b a");
    }

    #[test]
    fn n07_bytes_are_bounded_and_a_notification_larger_than_the_queue_is_dropped() {
        let one = range(["1"]).bytes() as usize;
        let queue = Queue::new(Policy::DropOldest).bytes(2 * one);
        assert_eq!(drain(filled(queue, "1 2 3")), "-1 2 3");
        assert_eq!(drain(filled(queue.bytes(one - 1), "1 2")), "-2");
    }

    #[test]
    fn n07_two_reports_are_merged_only_if_no_notification_lies_between() {
        let mut pending = PendingQueue::new(Queue::default());
        push(&mut pending, 1, "a");
        for (dropped, next) in [(1, "b"), (2, "c")] {
            pending.push_missed(&1, MissedReport::new(Reason::Muted, dropped));
            pending.push_missed(&1, MissedReport::new(Reason::Stopped, 10 * dropped));
            push(&mut pending, 1, next);
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
        push(&mut pending, 1, "b");
        pending.push_missed(&1, MissedReport::new(Reason::Muted, 4));
        assert_eq!(drain(pending), "b -4");
    }

    #[test]
    fn n07_reports_to_a_blocked_subscriber_do_not_pile_up() {
        for policy in [Policy::DropOldest, Policy::DropNewest, Policy::Coalesce] {
            let mut pending = PendingQueue::new(Queue::new(policy).items(3));
            for n in 0..1000 {
                push(&mut pending, 1, &n.to_string());
                for to in 0..2 {
                    pending.push_missed(&to, MissedReport::new(Reason::Stopped, 0));
                }
            }
            assert!(pending.items.iter().count() + pending.first_reports.iter().count() <= 3 + 2 * 5, "{policy:?}");
        }
    }

    proptest! {
        /// Sent = delivered + folded + reported as dropped, as in a plain list of notifications.
        #[test]
        fn n07_notifications_pushed_together_are_queued_like_single_ones(
            steps in prop::collection::vec(step(), 0..80),
            queue in queue(),
            is_copied in any::<bool>(),
        ) {
            let (mut pending, mut naive) = (PendingQueue::new(queue), NaiveQueue::new(queue));
            let (mut sent, mut received, mut position) = (0, 0, 1);
            let mut pop = |pending: &mut PendingQueue<u8>, naive: &mut NaiveQueue<u8>| {
                let item = pending.pop();
                received += item.as_ref().map_or(0, |item| match &item.content {
                    PendingContent::Notification { folded, .. } => 1 + folded,
                    PendingContent::Missed(missed) => missed.dropped(),
                });
                let expected = naive.pop().map(|(to, content)| PendingItem { to, content });
                (item.map(|item| (item.to, text(item))), expected.map(|item| (item.to, text(item))))
            };
            for step in steps {
                match step {
                    Step::Push(to, payloads) => {
                        let range = range(payloads);
                        let outcome = pending.push(&to, &range, is_copied);
                        let expected = push_each(&mut naive, range.iter().map(|one| (to, one)));
                        prop_assert_eq!(outcome, expected);
                        sent += range.len() as u64 - outcome.refused;
                    }
                    Step::PushMerged(notifications) => {
                        let ranges = [0, 1, 2].map(|to| (to, range_at(notifications.iter().zip(position..)
                            .filter(|((of, _), _)| *of == to).map(|((_, payload), position)| (position, payload)))));
                        // Later ones are merged with these, and come after them.
                        position += notifications.len() as u64;
                        let each = MergedRanges::from_iter(ranges.clone()).split().map(|(to, mut one)| (to, one.pop()));
                        let expected = push_each(&mut naive, each);
                        let outcome = match pending.push_merged(ranges.into_iter().collect()) {
                            Ok(outcome) => outcome,
                            Err(ranges) => {
                                let mut outcome = PushOutcome::default();
                                for (to, one) in ranges.split() {
                                    if outcome.refused > 0 {
                                        outcome.refused += 1;
                                        continue;
                                    }
                                    let PushOutcome { dropped, folded, refused } = pending.push(&to, &one, is_copied);
                                    outcome.dropped += dropped;
                                    outcome.folded += folded;
                                    outcome.refused += refused;
                                }
                                outcome
                            }
                        };
                        prop_assert_eq!(outcome, expected);
                        sent += notifications.len() as u64 - outcome.refused;
                    }
                    Step::Report(to) => {
                        pending.push_missed(&to, MissedReport::new(Reason::Muted, 0));
                        naive.push_missed(&to, MissedReport::new(Reason::Muted, 0));
                    }
                    Step::Pop => {
                        let (item, expected) = pop(&mut pending, &mut naive);
                        prop_assert_eq!(item, expected);
                    }
                    Step::DropAll => {
                        let dropped = pending.drop_all();
                        prop_assert_eq!(dropped, naive.drop_all());
                    }
                    Step::SetQueue(queue) => {
                        pending.set_queue(queue);
                        naive.set_queue(queue);
                    }
                }
                prop_assert_eq!((pending.len(), pending.bytes()), (naive.len(), naive.bytes()));
            }
            loop {
                let (item, expected) = pop(&mut pending, &mut naive);
                prop_assert_eq!(&item, &expected);
                if item.is_none() {
                    break;
                }
            }
            prop_assert_eq!(received, sent);
            prop_assert!(pending.foldable.as_ref().is_none_or(|it| it.is_empty()) && pending.first_report_of.is_empty());
            prop_assert!(pending.last_reports.is_empty() && pending.bytes == 0 && pending.notifications == 0);
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// Notifications whose payload has a length of its own.
        Push(u8, Vec<String>),
        PushMerged(Vec<(u8, String)>),
        Report(u8),
        Pop,
        DropAll,
        SetQueue(Queue),
    }

    fn step() -> impl Strategy<Value = Step> {
        let payload = || (0..6usize).prop_map(|n| "x".repeat(n * 7));
        let payloads = prop::collection::vec(payload(), 1..8);
        let merged = prop::collection::vec((0..3u8, payload()), 1..8);
        prop_oneof![
            3 => (0..3u8, payloads).prop_map(|(to, payloads)| Step::Push(to, payloads)),
            3 => merged.prop_map(Step::PushMerged),
            2 => (0..3u8).prop_map(Step::Report),
            5 => Just(Step::Pop),
            1 => Just(Step::DropAll),
            1 => queue().prop_map(Step::SetQueue),
        ]
    }

    fn queue() -> impl Strategy<Value = Queue> {
        let policies = [Policy::DropOldest, Policy::DropNewest, Policy::Coalesce, Policy::Disconnect];
        let bytes = prop_oneof![1 => Just(1 << 20), 1 => 60..800usize];
        (prop::sample::select(policies.to_vec()), 1..12usize, bytes)
            .prop_map(|(policy, items, bytes)| Queue::new(policy).items(items).bytes(bytes))
    }

    #[test]
    fn n07_what_is_kept_of_many_dropped_notifications_is_copied() {
        let mut pending = PendingQueue::<u8>::new(Queue::new(Policy::DropNewest).items(100));
        assert!(!pending.is_copying(800, 1) && pending.is_copying(801, 1));
        assert!(pending.is_copying(1, 8 * (16 << 20) + 1));
        let many = range(0..1_000);
        pending.push(&1, &many, true);
        assert!(matches!(
            pending.pop().unwrap().content,
            PendingContent::Notification { notification: StoredNotification::Copied(_), .. }
        ));
        assert!(!PendingQueue::<u8>::new(Queue::default().items(1)).is_copying(1_000, 1));
    }
}
