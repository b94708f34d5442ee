//! Notifications of several subscriptions that wait for one subscriber, in the order of their positions. Pure.
//!
//! ```text
//!   channel a   1 ─── 3 4 ───── 7      a range of a segment for each, not an item for each notification
//!   channel b   ── 2 ───── 5 6 ──
//! ```

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use crate::notifier::segment::{SegmentRange, StoredNotification};

/// Ranges of segments, of which the one with the oldest notification is first. `E` identifies the subscription of a range.
#[derive(Debug)]
pub(crate) struct MergedRanges<E>(BinaryHeap<PositionedRange<E>>);

#[derive(Debug)]
struct PositionedRange<E> {
    /// The position of the first notification.
    position: u64,
    to: E,
    range: SegmentRange,
}

impl<E> PartialEq for PositionedRange<E> {
    fn eq(&self, other: &Self) -> bool {
        self.position == other.position
    }
}

impl<E> Eq for PositionedRange<E> {}

impl<E> PartialOrd for PositionedRange<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for PositionedRange<E> {
    /// The greatest is the one with the smallest position.
    fn cmp(&self, other: &Self) -> Ordering {
        Reverse(self.position).cmp(&Reverse(other.position))
    }
}

impl<E> FromIterator<(E, SegmentRange)> for MergedRanges<E> {
    fn from_iter<R: IntoIterator<Item = (E, SegmentRange)>>(ranges: R) -> Self {
        let positioned =
            |(to, range): (E, SegmentRange)| Some(PositionedRange { position: range.position()?, to, range });
        Self(ranges.into_iter().filter_map(positioned).collect())
    }
}

impl<E> MergedRanges<E> {
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|it| it.range.len()).sum()
    }

    /// Returns the size of the notifications with respect to the limits of queues.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.iter().map(|it| it.range.bytes()).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds others.
    pub(crate) fn append(&mut self, mut others: Self) {
        self.0.append(&mut others.0);
    }

    /// Returns each notification by itself, in their order.
    pub(crate) fn split(mut self) -> impl Iterator<Item = (E, SegmentRange)>
    where
        E: Clone,
    {
        std::iter::from_fn(move || self.take_first())
    }

    /// Removes the oldest notification.
    pub(crate) fn pop(&mut self) -> Option<(E, StoredNotification)>
    where
        E: Clone,
    {
        self.take_first().map(|(to, mut range)| (to, range.pop()))
    }

    fn take_first(&mut self) -> Option<(E, SegmentRange)>
    where
        E: Clone,
    {
        let PositionedRange { to, mut range, .. } = self.0.pop()?;
        let first = range.take(1);
        if let Some(position) = range.position() {
            self.0.push(PositionedRange { position, to: to.clone(), range });
        }
        Some((to, first))
    }

    /// Removes the notifications of a subscription.
    pub(crate) fn remove_all(&mut self, of: &E)
    where
        E: Eq,
    {
        self.0.retain(|it| it.to != *of);
    }

    /// Makes the notifications of a subscription those of another one.
    pub(crate) fn rename(&mut self, from: &E, to: &E)
    where
        E: Clone + Eq,
    {
        let mut ranges = std::mem::take(&mut self.0).into_vec();
        ranges.iter_mut().filter(|it| it.to == *from).for_each(|it| it.to = to.clone());
        self.0 = ranges.into();
    }
}
