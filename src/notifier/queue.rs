//! What waits for one subscriber: bounded, in order, and honest about what it drops. Pure.
//!
//! ```text
//!   owed gaps │ heard, heard, gap, heard, … │ ◀── the newest
//!        └──▶ taken from here first
//! ```
//!
//! A gap takes no place of the limits, and can't be dropped: those that nothing lies between are made one, so that
//! there are never many more of them than of notifications.

use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};

use crate::notification::Notification;
use crate::notifier::missed::{Missed, Reason};

/// How much may wait for a subscriber that is slower than its channels, and what becomes of the rest.
///
/// A notification counts with its channel, its payload and 64 bytes. Whatever is dropped is counted
/// ([`NotifierStats::dropped`](crate::notifier::NotifierStats::dropped)), and the subscriber is told of it by a
/// [`Missed`].
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

/// What becomes of notifications for which there is no room in a subscriber's [`Queue`].
///
/// ```
/// # fn main() -> Result<(), notifyman::Error> {
/// # let n = notifyman::Notifier::builder("host=localhost user=shop")?.autorun(false).build::<u32>();
/// use notifyman::notifier::{Policy, Queue};
///
/// # n.subscribe(7, "prices", |_| ())?;
/// # n.subscribe(8, "prices", |_| ())?;
/// n.set_queue(&7, Queue::new(Policy::Coalesce))?; // a cache, which wants each key once
/// n.set_queue(&8, Queue::new(Policy::Disconnect).items(100))?; // one that isn't worth waiting for
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Policy {
    /// The oldest make room, and a gap stands in their place.
    #[default]
    DropOldest,
    /// The newest aren't taken, and a gap stands in their place.
    DropNewest,
    /// Whatever waits on the same channel with the same payload is folded into the latest, always; beyond that, the
    /// oldest make room. For cache invalidation: a slow subscriber sees each key once.
    Coalesce,
    /// The subscriber is unsubscribed from everything. It still gets what waits, and a gap at last.
    Disconnect,
}

impl Queue {
    /// A queue of 10,000 notifications or 16 MiB, whichever is reached first.
    pub fn new(policy: Policy) -> Self {
        Self { policy, items: 10_000, bytes: 16 << 20 }
    }

    /// How many notifications may wait; at least one.
    #[must_use]
    pub fn items(mut self, items: usize) -> Self {
        self.items = items.max(1);
        self
    }

    /// How many bytes may wait; one notification of the longest payload takes 8,190.
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

/// What a notification takes beside its channel and payload, about.
const OVERHEAD: usize = 64;

/// What waits for one subscriber; `E` names the subscription that it is for.
#[derive(Debug)]
pub(crate) struct PendingQueue<E> {
    queue: Queue,
    items: BTreeMap<u64, PendingItem<E>>,
    /// Where each waits that another could be folded into.
    same: HashMap<(E, ContentKey), u64>,
    /// Gaps that come before everything else, and where each subscription's is there.
    owed: BTreeMap<u64, (E, Missed)>,
    owed_at: HashMap<E, u64>,
    /// Gaps behind which no notification waits yet.
    last_gaps: HashMap<E, u64>,
    heard: usize,
    bytes: usize,
    next: u64,
}

/// What comes out.
#[derive(Debug)]
pub(crate) enum PendingItem<E> {
    /// A notification, and how many equal ones were folded into it.
    Heard(E, Notification, u64),
    Missed(E, Missed),
}

/// What became of a notification that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct PushOutcome {
    pub(crate) dropped: u64,
    pub(crate) folded: bool,
    /// It was one too many for a subscriber that is to be disconnected.
    pub(crate) disconnects: bool,
}

/// Compares by channel and payload, whoever sent it.
#[derive(Debug)]
struct ContentKey(Notification);

impl PartialEq for ContentKey {
    fn eq(&self, other: &Self) -> bool {
        (self.0.channel_bytes(), self.0.payload_bytes()) == (other.0.channel_bytes(), other.0.payload_bytes())
    }
}

impl Eq for ContentKey {}

impl Hash for ContentKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.channel_bytes().hash(state);
        self.0.payload_bytes().hash(state);
    }
}

impl<E: Clone + Eq + Hash> PendingQueue<E> {
    pub(crate) fn new(queue: Queue) -> Self {
        Self {
            queue,
            items: BTreeMap::new(),
            same: HashMap::new(),
            owed: BTreeMap::new(),
            owed_at: HashMap::new(),
            last_gaps: HashMap::new(),
            heard: 0,
            bytes: 0,
            next: 0,
        }
    }

    /// Changes the limits and the policy for what is to come; what waits stays.
    pub(crate) fn set_queue(&mut self, queue: Queue) {
        if queue.policy != self.queue.policy {
            self.same.clear();
        }
        self.queue = queue;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty() && self.owed.is_empty()
    }

    /// How many notifications wait.
    pub(crate) fn len(&self) -> usize {
        self.heard
    }

    /// A notification has come.
    pub(crate) fn push(&mut self, to: &E, notification: &Notification) -> PushOutcome {
        let mut pushed = PushOutcome::default();
        let mut folded = 0;
        let coalesces = self.queue.policy == Policy::Coalesce;
        if coalesces
            && let Some(place) = self.same.remove(&(to.clone(), ContentKey(notification.clone())))
            && let Some(PendingItem::Heard(_, old, before)) = self.take_at(place)
        {
            debug_assert_eq!(old.channel_bytes(), notification.channel_bytes());
            folded = before + 1;
            pushed.folded = true;
        }
        let size = size(notification);
        while self.heard >= self.queue.items || self.bytes.saturating_add(size) > self.queue.bytes {
            pushed.dropped += 1;
            let makes_room = match self.queue.policy {
                Policy::Disconnect => return PushOutcome { disconnects: true, ..pushed },
                Policy::DropNewest => false,
                Policy::DropOldest | Policy::Coalesce => self.drop_oldest(),
            };
            if !makes_room {
                // Also where it is larger than all the room there is.
                self.miss(to, Missed::new(Reason::Overflow, 1));
                return pushed;
            }
        }
        let place = self.place();
        if coalesces {
            self.same.insert((to.clone(), ContentKey(notification.clone())), place);
        }
        self.last_gaps.clear();
        self.items.insert(place, PendingItem::Heard(to.clone(), notification.clone(), folded));
        self.heard += 1;
        self.bytes += size;
        pushed
    }

    /// Something was missed after all that waits.
    pub(crate) fn miss(&mut self, to: &E, missed: Missed) {
        if let Some(place) = self.last_gaps.get(to)
            && let Some(PendingItem::Missed(_, before)) = self.items.get_mut(place)
        {
            return before.merge(missed);
        }
        if self.items.is_empty() {
            return self.owe(to.clone(), missed);
        }
        let place = self.place();
        self.last_gaps.insert(to.clone(), place);
        self.items.insert(place, PendingItem::Missed(to.clone(), missed));
    }

    /// The next.
    pub(crate) fn pop(&mut self) -> Option<PendingItem<E>> {
        if let Some((_, (to, missed))) = self.owed.pop_first() {
            self.owed_at.remove(&to);
            return Some(PendingItem::Missed(to, missed));
        }
        let place = *self.items.first_key_value()?.0;
        self.take_at(place)
    }

    /// Takes what waits at a place.
    fn take_at(&mut self, place: u64) -> Option<PendingItem<E>> {
        let item = self.items.remove(&place)?;
        match &item {
            PendingItem::Heard(to, notification, _) => {
                self.heard -= 1;
                self.bytes -= size(notification);
                if !self.same.is_empty() {
                    self.same.remove(&(to.clone(), ContentKey(notification.clone())));
                }
            }
            PendingItem::Missed(to, _) if self.last_gaps.get(to) == Some(&place) => {
                self.last_gaps.remove(to);
            }
            PendingItem::Missed(..) => {}
        }
        Some(item)
    }

    /// Drops the oldest notification, if there is one, and owes its subscription a gap.
    fn drop_oldest(&mut self) -> bool {
        while let Some((&place, _)) = self.items.first_key_value() {
            match self.take_at(place) {
                Some(PendingItem::Missed(to, missed)) => self.owe(to, missed),
                Some(PendingItem::Heard(to, ..)) => {
                    self.owe(to, Missed::new(Reason::Overflow, 1));
                    return true;
                }
                None => return false,
            }
        }
        false
    }

    fn owe(&mut self, to: E, missed: Missed) {
        if let Some((_, before)) = self.owed_at.get(&to).and_then(|place| self.owed.get_mut(place)) {
            return before.merge(missed);
        }
        let place = self.place();
        self.owed_at.insert(to.clone(), place);
        self.owed.insert(place, (to, missed));
    }

    fn place(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

fn size(notification: &Notification) -> usize {
    notification.channel_bytes().len() + notification.payload_bytes().len() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn heard(payload: &str) -> Notification {
        Notification::for_test("c", payload)
    }

    /// As text: a payload with what was folded into it, or how many are missing.
    fn shown(item: PendingItem<u8>) -> String {
        match item {
            PendingItem::Heard(_, n, 0) => n.payload().into_owned(),
            PendingItem::Heard(_, n, folded) => format!("{}+{folded}", n.payload()),
            PendingItem::Missed(_, missed) => format!("-{}", missed.dropped()),
        }
    }

    fn all(mut pending: PendingQueue<u8>) -> String {
        std::iter::from_fn(|| pending.pop()).map(shown).collect::<Vec<_>>().join(" ")
    }

    fn pushed(queue: Queue, payloads: &str) -> PendingQueue<u8> {
        let mut pending = PendingQueue::new(queue);
        for payload in payloads.split(' ') {
            pending.push(&1, &heard(payload));
        }
        pending
    }

    #[test]
    fn n07_each_policy_leaves_a_gap_where_it_dropped() {
        let of = |policy| Queue::new(policy).items(3);
        assert_eq!(all(pushed(of(Policy::DropOldest), "1 2 3 4 5")), "-2 3 4 5");
        assert_eq!(all(pushed(of(Policy::DropNewest), "1 2 3 4 5")), "1 2 3 -2");
        assert_eq!(all(pushed(of(Policy::Coalesce), "1 2 3 4 5")), "-2 3 4 5");
        let mut slow = pushed(of(Policy::DropNewest), "1 2 3 4");
        assert_eq!(shown(slow.pop().unwrap()), "1");
        slow.push(&1, &heard("5"));
        assert_eq!(all(slow), "2 3 -1 5");
    }

    #[test]
    fn n07_one_that_is_to_be_disconnected_takes_no_more() {
        let mut pending = pushed(Queue::new(Policy::Disconnect).items(2), "1 2");
        assert!(pending.push(&1, &heard("3")).disconnects);
        assert_eq!(all(pending), "1 2");
    }

    #[test]
    fn n07_equal_ones_are_folded_into_the_latest() {
        assert_eq!(all(pushed(Queue::new(Policy::Coalesce), "a b a c a b")), "c a+2 b+1");
        assert_eq!(all(pushed(Queue::new(Policy::DropOldest), "a b a")), "a b a");
    }

    #[test]
    fn n07_bytes_are_bounded_too_and_one_that_is_larger_than_all_room_is_dropped() {
        let one = size(&heard("1"));
        let queue = Queue::new(Policy::DropOldest).bytes(2 * one);
        assert_eq!(all(pushed(queue, "1 2 3")), "-1 2 3");
        assert_eq!(all(pushed(queue.bytes(one - 1), "1 2")), "-2");
    }

    #[test]
    fn n07_two_gaps_are_one_only_if_no_notification_lies_between() {
        let mut pending = PendingQueue::new(Queue::default());
        pending.push(&1, &heard("a"));
        for (dropped, next) in [(1, "b"), (2, "c")] {
            pending.miss(&1, Missed::new(Reason::Muted, dropped));
            pending.miss(&1, Missed::new(Reason::Stopped, 10 * dropped));
            pending.push(&1, &heard(next));
        }
        pending.miss(&1, Missed::new(Reason::Muted, 3));
        assert_eq!(all(pending), "a -11 b -22 c -3");
    }

    #[test]
    fn n07_a_gap_that_was_taken_is_not_joined_with_a_later_one() {
        let mut pending = pushed(Queue::default(), "a");
        pending.miss(&1, Missed::new(Reason::Muted, 1));
        assert_eq!([pending.pop(), pending.pop()].map(|item| shown(item.unwrap())), ["a", "-1"]);
        // The queue is empty, so the next item comes first.
        for dropped in [2, 3] {
            pending.miss(&1, Missed::new(Reason::Muted, dropped));
            assert_eq!(shown(pending.pop().unwrap()), format!("-{dropped}"));
        }
        pending.push(&1, &heard("b"));
        pending.miss(&1, Missed::new(Reason::Muted, 4));
        assert_eq!(all(pending), "b -4");
    }

    #[test]
    fn n07_gaps_of_a_blocked_subscriber_do_not_pile_up() {
        for policy in [Policy::DropOldest, Policy::DropNewest, Policy::Coalesce] {
            let mut pending = PendingQueue::new(Queue::new(policy).items(3));
            for n in 0..1000 {
                pending.push(&1, &heard(&n.to_string()));
                for to in 0..2 {
                    pending.miss(&to, Missed::new(Reason::Stopped, 0));
                }
            }
            assert!(pending.items.len() + pending.owed.len() <= 3 + 2 * 5, "{policy:?}");
        }
    }

    proptest! {
        /// The law: sent = delivered + folded + told as dropped, in order, within the limits.
        #[test]
        fn n07_nothing_is_dropped_that_is_not_told(
            doing in prop::collection::vec((0..12u8, 0..3u8), 0..300),
            policy in prop::sample::select(vec![Policy::DropOldest, Policy::DropNewest, Policy::Coalesce]),
        ) {
            let mut pending = PendingQueue::new(Queue::new(policy).items(5));
            let (mut sent, mut delivered, mut folded, mut told, mut dropped) = (0, 0, 0, 0, 0);
            let mut take = |item| match item {
                PendingItem::Heard(_, _, more) => { delivered += 1; folded += more; }
                PendingItem::Missed(_, missed) => told += missed.dropped(),
            };
            for (what, who) in doing {
                match what {
                    0..8 => {
                        sent += 1;
                        dropped += pending.push(&who, &heard(&what.to_string())).dropped;
                    }
                    8 => pending.miss(&who, Missed::new(Reason::Muted, 0)),
                    _ => { pending.pop().map(&mut take); }
                }
                prop_assert!(pending.len() <= 5);
            }
            while let Some(item) = pending.pop() {
                take(item);
            }
            prop_assert!(pending.same.is_empty() && pending.owed_at.is_empty());
            prop_assert!(pending.bytes == 0 && pending.heard == 0);
            // What was folded into one that was dropped later went with it.
            match policy {
                Policy::Coalesce => prop_assert!(delivered + folded + told <= sent),
                _ => prop_assert_eq!(delivered + told, sent),
            }
            prop_assert_eq!(told, dropped);
        }
    }
}
