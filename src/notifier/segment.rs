//! A segment: notifications of one channel that were published together, as they were received.
//!
//! ```text
//!   frames   A … price 1 A … price 22 A … price 3      one buffer
//!   places   └───────────└────────────└──────────      one for each notification
//! ```

use std::sync::{Arc, PoisonError};

use crate::notification::{Notification, NotificationRef};
use crate::sync::Mutex;

/// Consecutive notifications of a channel.
#[derive(Debug)]
pub(crate) struct Segment {
    /// The index of the first entry.
    first: u64,
    entries: SegmentEntries,
    /// The size of all entries of the channel before the segment.
    bytes_before: u64,
}

/// The notifications of a segment, which are added one by one.
#[derive(Debug, Default)]
pub(crate) struct SegmentEntries {
    /// The length of the name of the channel.
    channel_len: usize,
    frames: Vec<u8>,
    places: Vec<EntryPlace>,
    /// The position of the first entry.
    position: u64,
    /// The size of all entries with respect to the limits of queues, and that of the largest.
    bytes: u64,
    largest: u64,
}

/// The place of an entry in its segment, whose size 32 bits can express.
#[derive(Debug, Clone)]
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
    /// The size of all entries of the channel before this one.
    pub(crate) bytes_before: u64,
    pub(crate) notification: NotificationRef<'s>,
}

/// A notification that waits for one subscriber: in its segment, which all of them share, or as a copy, which keeps no
/// other notification alive.
#[derive(Debug, Clone)]
pub(crate) enum StoredNotification {
    Shared(Arc<Segment>, u64),
    Copied(Notification),
}

impl StoredNotification {
    pub(crate) fn as_ref(&self) -> NotificationRef<'_> {
        match self {
            Self::Shared(segment, index) => {
                segment.get(*index).map_or(NotificationRef::in_frame(b"", 0), |entry| entry.notification)
            }
            Self::Copied(notification) => notification.as_ref(),
        }
    }
}

/// Consecutive notifications of a segment, which wait for one subscriber.
#[derive(Debug, Clone)]
pub(crate) struct SegmentRange {
    segment: Arc<Segment>,
    from: u64,
    end: u64,
}

impl SegmentRange {
    pub(crate) fn new(segment: &Arc<Segment>, from: u64, end: u64) -> Self {
        Self { segment: Arc::clone(segment), from, end }
    }

    pub(crate) fn len(&self) -> usize {
        (self.end - self.from) as usize
    }

    /// Returns the size of the notifications with respect to the limits of queues.
    pub(crate) fn bytes(&self) -> u64 {
        self.size_before(self.end) - self.size_before(self.from)
    }

    /// Removes notifications at the beginning, and returns them.
    pub(crate) fn take(&mut self, count: usize) -> Self {
        let from = self.from;
        self.from = self.end.min(from + count as u64);
        Self { segment: Arc::clone(&self.segment), from, end: self.from }
    }

    /// Returns the number of notifications at the beginning that take at most this many bytes.
    pub(crate) fn fitting(&self, bytes: u64) -> usize {
        self.count_while(|size| size <= bytes)
    }

    /// Returns the number of notifications at the beginning that take this many bytes, or the number of all.
    pub(crate) fn reaching(&self, bytes: u64) -> usize {
        match bytes {
            0 => 0,
            _ => self.len().min(self.count_while(|size| size < bytes) + 1),
        }
    }

    /// Returns the number of notifications at the beginning for which `is_it` returns `true`, with the size up to each.
    fn count_while(&self, is_it: impl Fn(u64) -> bool) -> usize {
        let before = self.size_before(self.from);
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if is_it(self.size_before(self.from + middle as u64 + 1) - before) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Returns the size of all entries of the channel before an index.
    fn size_before(&self, index: u64) -> u64 {
        self.segment.get(index).map_or(self.segment.bytes_after(), |entry| entry.bytes_before)
    }

    /// Adds the notifications of another range, if they follow. Returns `false` if they do not.
    pub(crate) fn extend(&mut self, next: &Self) -> bool {
        let follows = self.end == next.from && Arc::ptr_eq(&self.segment, &next.segment);
        if follows {
            self.end = next.end;
        }
        follows
    }

    /// Removes the first notification.
    pub(crate) fn pop(&mut self) -> StoredNotification {
        self.from += 1;
        StoredNotification::Shared(Arc::clone(&self.segment), self.from - 1)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = StoredNotification> {
        (self.from..self.end).map(|index| StoredNotification::Shared(Arc::clone(&self.segment), index))
    }

    /// Returns the position of the first notification, if there is one.
    pub(crate) fn position(&self) -> Option<u64> {
        (self.from < self.end).then(|| self.segment.get(self.from).map(|entry| entry.position))?
    }

    pub(crate) fn channel(&self) -> Box<str> {
        let first = self.segment.get(self.from);
        first.map_or_else(Box::default, |entry| String::from_utf8_lossy(entry.notification.channel_bytes()).into())
    }
}

/// The approximate size of a notification in a queue without its channel and payload.
const OVERHEAD: usize = 64;

/// Returns the size of a notification with respect to the limits of a queue.
pub(crate) fn size(notification: NotificationRef<'_>) -> usize {
    notification.channel_bytes().len() + notification.payload_bytes().len() + OVERHEAD
}

impl Segment {
    /// Creates a segment of a log that had this head and this size before.
    pub(crate) fn new(head: u64, bytes: u64, entries: SegmentEntries) -> Self {
        Self { first: head, entries, bytes_before: bytes }
    }

    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// Returns the position of the first entry.
    pub(crate) fn position(&self) -> u64 {
        self.entries.position
    }

    /// Returns the index after the last entry.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.entries.places.len() as u64
    }

    /// Returns the index after the last entry up to a position.
    pub(crate) fn end_at(&self, position: u64) -> u64 {
        self.first + self.entries.places.partition_point(|it| self.entries.position(it) <= position) as u64
    }

    /// Returns the index of the first entry for which `is_it` returns `true` with the size of all entries of the channel
    /// before it.
    pub(crate) fn first_where(&self, is_it: impl Fn(u64) -> bool) -> u64 {
        let is_before = |it: &EntryPlace| !is_it(self.bytes_before + u64::from(it.bytes_before));
        self.first + self.entries.places.partition_point(is_before) as u64
    }

    /// Returns the size of all entries of the channel up to the end of the segment.
    pub(crate) fn bytes_after(&self) -> u64 {
        self.bytes_before + self.entries.bytes
    }

    #[inline]
    pub(crate) fn get(&self, index: u64) -> Option<LogEntry<'_>> {
        let entries = &self.entries;
        let place = entries.places.get(usize::try_from(index.wrapping_sub(self.first)).ok()?)?;
        let frame = entries.frames.get(place.start as usize..)?.get(..place.len as usize)?;
        Some(LogEntry {
            position: entries.position(place),
            bytes_before: self.bytes_before + u64::from(place.bytes_before),
            notification: NotificationRef::in_frame(frame, entries.channel_len),
        })
    }

    /// Returns the entries with an index in a range, each with its index.
    pub(crate) fn range(&self, from: u64, to: u64) -> impl DoubleEndedIterator<Item = (u64, LogEntry<'_>)> {
        let (from, to) = (from.max(self.first), to.min(self.end()));
        (from..to).filter_map(|index| Some((index, self.get(index)?)))
    }
}

impl SegmentEntries {
    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
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
        let size = size(notification) as u64;
        self.bytes += size;
        self.largest = self.largest.max(size);
    }

    pub(crate) fn largest(&self) -> u64 {
        self.largest
    }

    fn clear(&mut self) {
        self.frames.clear();
        self.places.clear();
        (self.bytes, self.largest) = (0, 0);
    }

    #[inline]
    fn position(&self, place: &EntryPlace) -> u64 {
        self.position + u64::from(place.position)
    }
}

/// Buffers of former segments for later ones, so that a flood does not return memory to the system and take it again.
#[derive(Debug, Default)]
pub(crate) struct SegmentPool(Mutex<Vec<SegmentEntries>>);

/// The number of segments whose buffers a pool keeps.
const POOLED_MAX: usize = 16;
/// The largest buffer that a pool keeps, in bytes. A batch of the manager is seldom larger.
const POOLED_BYTES_MAX: usize = 128 * 1024;

impl SegmentPool {
    /// Returns an empty list for notifications of a channel whose name has this length.
    pub(crate) fn take(&self, channel_len: usize) -> SegmentEntries {
        let pooled = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        SegmentEntries { channel_len, ..pooled.unwrap_or_default() }
    }

    /// Adds the buffers of a segment that nothing else refers to.
    pub(crate) fn add(&self, segment: Arc<Segment>) {
        if let Some(segment) = Arc::into_inner(segment) {
            self.add_entries(segment.entries);
        }
    }

    fn add_entries(&self, mut entries: SegmentEntries) {
        if entries.frames.capacity() <= POOLED_BYTES_MAX {
            entries.clear();
            let mut pooled = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if pooled.len() < POOLED_MAX {
                pooled.push(entries);
            }
        }
    }

    /// Returns entries with buffers that are at most twice as large as needed.
    pub(crate) fn fit(&self, entries: SegmentEntries) -> SegmentEntries {
        if entries.frames.len() >= entries.frames.capacity() / 2 {
            return entries;
        }
        let fitted = SegmentEntries { frames: entries.frames.clone(), places: entries.places.clone(), ..entries };
        self.add_entries(entries);
        fitted
    }
}

#[cfg(test)]
impl Segment {
    /// Returns the size of the buffer for the frames.
    pub(crate) fn buffer_size(&self) -> usize {
        self.entries.frames.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(pool: &SegmentPool, payloads: impl IntoIterator<Item = String>) -> SegmentEntries {
        let mut entries = pool.take(1);
        for (position, payload) in (7..).step_by(3).zip(payloads) {
            entries.push(position, Notification::for_test("c", &payload).as_ref());
        }
        pool.fit(entries)
    }

    fn payloads(segment: &Segment) -> Vec<(u64, String)> {
        segment.range(0, u64::MAX).map(|(_, it)| (it.position, it.notification.payload().into_owned())).collect()
    }

    #[test]
    fn n07_a_buffer_is_used_again_once_nothing_reads_it() {
        let pool = SegmentPool::default();
        let first = Arc::new(Segment::new(0, 0, entries(&pool, ["a".into(), "bb".into()])));
        let reader = Arc::clone(&first);
        let buffer = first.entries.frames.as_ptr();
        pool.add(first);
        assert_ne!(entries(&pool, ["x".into()]).frames.as_ptr(), buffer);
        assert_eq!(payloads(&reader), [(7, "a".into()), (10, "bb".into())]);
        pool.add(reader);
        let second = Segment::new(2, 0, entries(&pool, ["c".into(), "d".into()]));
        assert_eq!(second.entries.frames.as_ptr(), buffer);
        assert_eq!(payloads(&second), [(7, "c".into()), (10, "d".into())]);
    }

    #[test]
    fn n07_a_short_segment_does_not_keep_a_long_buffer() {
        let pool = SegmentPool::default();
        pool.add(Arc::new(Segment::new(0, 0, entries(&pool, vec!["x".repeat(1_000); 100]))));
        let short = entries(&pool, ["y".into()]);
        assert!(short.frames.capacity() < 100, "{}", short.frames.capacity());
        assert!(entries(&pool, vec!["z".repeat(1_000); 100]).frames.capacity() < 250_000);
    }

    #[test]
    fn n07_a_pool_is_bounded() {
        let pool = SegmentPool::default();
        let many: Vec<_> = (0..POOLED_MAX + 1).map(|_| entries(&pool, ["x".into()])).collect();
        many.into_iter().for_each(|entries| pool.add_entries(entries));
        assert_eq!(pool.0.lock().unwrap().len(), POOLED_MAX);
        let pool = SegmentPool::default();
        pool.add_entries(entries(&pool, ["x".repeat(POOLED_BYTES_MAX + 1)]));
        assert!(pool.0.lock().unwrap().is_empty());
    }
}
