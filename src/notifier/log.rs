//! The notifications of one channel, stored once for all its subscribers. Pure.
//!
//! ```text
//!   base ◀── Segment ── Segment ── Segment ──▶ head
//!               └ a subscriber's cursor is an index, which only grows
//! ```
//!
//! A segment is immutable and holds the notifications of the channel that were published together. Readers keep the
//! segment that they read from, so that they need the lock of the log only from one segment to the next.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::notification::NotificationRef;
use crate::notifier::segment::{Segment, SegmentEntries, SegmentPool, SegmentRange, size};

/// Limits of the entries that a log keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LogLimits {
    pub(crate) items: u64,
    pub(crate) bytes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Log {
    segments: VecDeque<Arc<Segment>>,
    head: u64,
    bytes: u64,
}

impl Log {
    /// Returns the index of the next notification.
    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    /// Returns the index of the oldest notification that is kept.
    pub(crate) fn base(&self) -> u64 {
        self.segments.front().map_or(self.head, |segment| segment.first())
    }

    /// Returns the size of all notifications that were added.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds a segment, unless there are no entries.
    pub(crate) fn push(&mut self, entries: SegmentEntries) {
        if entries.is_empty() {
            return;
        }
        let segment = Segment::new(self.head, self.bytes, entries);
        self.bytes = segment.bytes_after();
        self.head = segment.end();
        self.segments.push_back(Arc::new(segment));
    }

    /// Removes segments that end before an index.
    pub(crate) fn trim_to(&mut self, index: u64, pool: &SegmentPool) {
        let ended = self.segments.iter().take_while(|segment| segment.end() <= index).count();
        self.segments.drain(..ended).for_each(|segment| pool.add(segment));
        if self.segments.is_empty() {
            self.segments.shrink_to(8);
        }
    }

    /// Removes segments of which every entry is outside of the limits.
    pub(crate) fn trim(&mut self, limits: LogLimits, pool: &SegmentPool) {
        let is_outside = |segment: &Arc<Segment>| {
            self.head - segment.end() >= limits.items || self.bytes - segment.bytes_after() >= limits.bytes
        };
        let outside = self.segments.iter().take_while(|segment| is_outside(segment)).count();
        self.segments.drain(..outside).for_each(|segment| pool.add(segment));
    }

    /// Returns the index after the last notification up to a position.
    pub(crate) fn end_at(&self, position: u64) -> u64 {
        let at = self.segments.partition_point(|segment| segment.position() <= position);
        match at.checked_sub(1).and_then(|at| self.segments.get(at)) {
            Some(segment) => segment.end_at(position),
            None => self.base(),
        }
    }

    /// Returns the segment that holds an index.
    pub(crate) fn segment(&self, index: u64) -> Option<&Arc<Segment>> {
        let at = self.segments.partition_point(|segment| segment.end() <= index);
        self.segments.get(at).filter(|segment| segment.first() <= index)
    }

    /// Returns the entries with an index in a range, by segment.
    pub(crate) fn ranges(&self, from: u64, to: u64) -> impl Iterator<Item = SegmentRange> {
        let at = self.segments.partition_point(|segment| segment.end() <= from);
        let segments = self.segments.iter().skip(at).take_while(move |segment| from.max(segment.first()) < to);
        segments.map(move |it| SegmentRange::new(it, from.max(it.first()), to.min(it.end())))
    }

    /// Returns the size of the entries from an index on, as far as they are kept.
    pub(crate) fn bytes_from(&self, index: u64) -> u64 {
        let index = index.max(self.base());
        let entry = self.segment(index).and_then(|segment| segment.get(index));
        self.bytes - entry.map_or(self.bytes, |entry| entry.bytes_before)
    }

    /// Returns the smallest index from which on all entries are kept and within the limits.
    pub(crate) fn first_within(&self, limits: LogLimits) -> u64 {
        let by_items = self.head.saturating_sub(limits.items).max(self.base());
        if self.bytes_from(by_items) <= limits.bytes {
            return by_items;
        }
        let is_outside = |bytes_before: u64| self.bytes - bytes_before > limits.bytes;
        let at = self.segments.partition_point(|segment| is_outside(segment.bytes_after()));
        let by_bytes =
            self.segments.get(at).map_or(self.head, |segment| segment.first_where(|bytes| !is_outside(bytes)));
        by_items.max(by_bytes)
    }

    /// Folds the entries of a window, which the log must keep.
    pub(crate) fn fold(&self, from: u64, to: u64) -> FoldedWindow {
        let mut latest: HashMap<&[u8], usize> = HashMap::new();
        let mut entries: Vec<FoldedEntry> = Vec::new();
        let at = self.segments.partition_point(|segment| segment.end() <= from);
        let segments = self.segments.iter().skip(at).take_while(|segment| segment.first() < to);
        for segment in segments.collect::<Vec<_>>().into_iter().rev() {
            for (index, entry) in segment.range(from, to).rev() {
                match latest.get(entry.notification.payload_bytes()) {
                    Some(&at) => entries.get_mut(at).into_iter().for_each(|entry| entry.folded += 1),
                    None => {
                        latest.insert(entry.notification.payload_bytes(), entries.len());
                        entries.push(FoldedEntry { segment: Arc::clone(segment), index, folded: 0 });
                    }
                }
            }
        }
        entries.reverse();
        FoldedWindow { from, to, entries }
    }
}

/// The latest of equal notifications in a part of a log.
#[derive(Debug)]
pub(crate) struct FoldedWindow {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) entries: Vec<FoldedEntry>,
}

impl FoldedWindow {
    /// Returns the size of the entries from an index on, with respect to the limits of queues.
    pub(crate) fn bytes_from(&self, at: usize) -> u64 {
        self.entries.iter().skip(at).filter_map(FoldedEntry::notification).map(|it| size(it) as u64).sum()
    }
}

#[derive(Debug)]
pub(crate) struct FoldedEntry {
    segment: Arc<Segment>,
    index: u64,
    /// The number of earlier notifications with the same payload.
    pub(crate) folded: u64,
}

impl FoldedEntry {
    #[inline]
    pub(crate) fn notification(&self) -> Option<NotificationRef<'_>> {
        self.segment.get(self.index).map(|entry| entry.notification)
    }
}
