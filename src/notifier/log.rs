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
use crate::notifier::queue;

/// Consecutive notifications of a channel.
#[derive(Debug)]
pub(crate) struct Segment {
    /// The index of the first entry.
    first: u64,
    entries: SegmentEntries,
    /// The size of all entries of the channel before the segment.
    bytes_before: u64,
}

/// The notifications of a segment, as they were received, in one buffer.
#[derive(Debug)]
pub(crate) struct SegmentEntries {
    /// The length of the name of the channel.
    channel_len: usize,
    frames: Vec<u8>,
    places: Vec<EntryPlace>,
    /// The position of the first entry.
    position: u64,
    /// The size of all entries with respect to the limits of queues.
    bytes: u64,
}

/// The place of an entry in its segment, whose size 32 bits can express.
#[derive(Debug)]
struct EntryPlace {
    start: u32,
    len: u32,
    /// The size of all entries of the segment before this one.
    bytes_before: u32,
    /// The difference from the position of the first entry.
    position: u32,
}

/// A notification in a log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogEntry<'s> {
    /// The position among the notifications of all channels.
    pub(crate) position: u64,
    pub(crate) notification: NotificationRef<'s>,
}

impl Segment {
    fn end(&self) -> u64 {
        self.first + self.entries.places.len() as u64
    }

    /// Returns the size of all entries of the channel before the segment, and with it.
    fn bytes_after(&self) -> u64 {
        self.bytes_before + self.entries.bytes
    }

    #[inline]
    fn place(&self, index: u64) -> Option<&EntryPlace> {
        self.entries.places.get(usize::try_from(index.wrapping_sub(self.first)).ok()?)
    }

    #[inline]
    pub(crate) fn get(&self, index: u64) -> Option<LogEntry<'_>> {
        self.entries.at(self.place(index)?)
    }

    /// Returns the size of all entries of the channel before an index.
    fn bytes_before(&self, index: u64) -> Option<u64> {
        Some(self.bytes_before + u64::from(self.place(index)?.bytes_before))
    }

    /// Returns the entries with an index in a range, each with its index.
    fn range(&self, from: u64, to: u64) -> impl DoubleEndedIterator<Item = (u64, LogEntry<'_>)> {
        let (from, to) = (from.max(self.first), to.min(self.end()));
        (from..to).filter_map(|index| Some((index, self.get(index)?)))
    }
}

impl SegmentEntries {
    /// Creates a list for the notifications of a channel whose name has this length.
    pub(crate) fn new(channel_len: usize) -> Self {
        Self { channel_len, frames: Vec::new(), places: Vec::new(), position: 0, bytes: 0 }
    }

    /// Adds a notification with its position. There may be at most 1,024 of at most 256 KiB.
    pub(crate) fn push(&mut self, position: u64, notification: NotificationRef<'_>) {
        if self.places.is_empty() {
            self.position = position;
        }
        self.places.push(EntryPlace {
            start: self.frames.len() as u32,
            len: notification.frame().len() as u32,
            bytes_before: self.bytes as u32,
            position: (position - self.position) as u32,
        });
        self.frames.extend_from_slice(notification.frame());
        self.bytes += queue::size(notification) as u64;
    }

    #[inline]
    fn at(&self, place: &EntryPlace) -> Option<LogEntry<'_>> {
        let frame = self.frames.get(place.start as usize..)?.get(..place.len as usize)?;
        let notification = NotificationRef::in_frame(frame, self.channel_len);
        Some(LogEntry { position: self.position(place), notification })
    }

    #[inline]
    fn position(&self, place: &EntryPlace) -> u64 {
        self.position + u64::from(place.position)
    }
}

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
        self.segments.front().map_or(self.head, |segment| segment.first)
    }

    /// Returns the size of the notifications that are kept.
    pub(crate) fn kept_bytes(&self) -> u64 {
        self.bytes_from(self.base())
    }

    pub(crate) fn push(&mut self, mut entries: SegmentEntries) {
        if entries.places.is_empty() {
            return;
        }
        entries.frames.shrink_to_fit();
        entries.places.shrink_to_fit();
        let segment = Segment { first: self.head, entries, bytes_before: self.bytes };
        self.bytes = segment.bytes_after();
        self.head = segment.end();
        self.segments.push_back(Arc::new(segment));
    }

    /// Removes segments that end before an index.
    pub(crate) fn trim_to(&mut self, index: u64) {
        while self.segments.front().is_some_and(|segment| segment.end() <= index) {
            self.segments.pop_front();
        }
        if self.segments.is_empty() {
            self.segments.shrink_to(8);
        }
    }

    /// Removes segments of which every entry is outside of the limits.
    pub(crate) fn trim(&mut self, limits: LogLimits) {
        let is_outside = |segment: &Arc<Segment>| {
            self.head - segment.end() >= limits.items || self.bytes - segment.bytes_after() >= limits.bytes
        };
        let outside = self.segments.iter().take_while(|segment| is_outside(segment)).count();
        self.segments.drain(..outside);
    }

    /// Returns the index after the last notification up to a position.
    pub(crate) fn end_at(&self, position: u64) -> u64 {
        let at = self.segments.partition_point(|segment| segment.entries.position <= position);
        match at.checked_sub(1).and_then(|at| self.segments.get(at)) {
            Some(segment) => {
                let is_before = |it: &EntryPlace| segment.entries.position(it) <= position;
                segment.first + segment.entries.places.partition_point(is_before) as u64
            }
            None => self.base(),
        }
    }

    /// Returns the segment that holds an index.
    pub(crate) fn segment(&self, index: u64) -> Option<&Arc<Segment>> {
        let at = self.segments.partition_point(|segment| segment.end() <= index);
        self.segments.get(at).filter(|segment| segment.first <= index)
    }

    /// Returns the entries from an index on.
    pub(crate) fn entries_from(&self, index: u64) -> impl Iterator<Item = LogEntry<'_>> {
        let at = self.segments.partition_point(|segment| segment.end() <= index);
        self.segments.iter().skip(at).flat_map(move |segment| segment.range(index, u64::MAX)).map(|(_, entry)| entry)
    }

    /// Returns the size of the entries from an index on, as far as they are kept.
    pub(crate) fn bytes_from(&self, index: u64) -> u64 {
        let index = index.max(self.base());
        let before = self.segment(index).and_then(|segment| segment.bytes_before(index));
        self.bytes - before.unwrap_or(self.bytes)
    }

    /// Returns the smallest index from which on all entries are kept and within the limits.
    pub(crate) fn first_within(&self, limits: LogLimits) -> u64 {
        let by_items = self.head.saturating_sub(limits.items).max(self.base());
        if self.bytes_from(by_items) <= limits.bytes {
            return by_items;
        }
        let is_outside = |bytes_before: u64| self.bytes - bytes_before > limits.bytes;
        let at = self.segments.partition_point(|segment| is_outside(segment.bytes_after()));
        let by_bytes = self.segments.get(at).map_or(self.head, |segment| {
            let is_outside = |it: &EntryPlace| is_outside(segment.bytes_before + u64::from(it.bytes_before));
            segment.first + segment.entries.places.partition_point(is_outside) as u64
        });
        by_items.max(by_bytes)
    }

    /// Folds the entries of a window, which the log must keep.
    pub(crate) fn fold(&self, from: u64, to: u64) -> FoldedWindow {
        let mut latest: HashMap<&[u8], usize> = HashMap::new();
        let mut entries: Vec<FoldedEntry> = Vec::new();
        let at = self.segments.partition_point(|segment| segment.end() <= from);
        let segments = self.segments.iter().skip(at).take_while(|segment| segment.first < to);
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

#[derive(Debug)]
pub(crate) struct FoldedEntry {
    segment: Arc<Segment>,
    index: u64,
    /// The number of earlier notifications with the same payload.
    pub(crate) folded: u64,
}

impl FoldedEntry {
    pub(crate) fn notification(&self) -> Option<NotificationRef<'_>> {
        self.segment.get(self.index).map(|entry| entry.notification)
    }
}
