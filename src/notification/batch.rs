//! A batch of notifications: a slice of the read buffer that contains only complete frames, validated when they were
//! received.
//!
//! ```text
//!   buffer, shared:  … | 'A' len pid channel 0 payload 0 | 'S' … | 'A' len pid channel 0 payload 0 | …
//!   batch:           └──────────────────── start .. end, two notifications ────────────────────┘
//! ```

#[cfg(feature = "relay")]
use std::borrow::Cow;
use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;

#[cfg(feature = "relay")]
use super::frames::check_notifications;
use super::single::{Notification, NotificationRef, offset};
use super::walk::{Frames, notifications_in};
use crate::gap::Gap;

/// A batch smaller than this is copied out of the read buffer, so that keeping it does not keep the whole buffer in
/// memory.
const EXACT_BELOW: usize = 4096;

/// The notifications that one connection received in one turn of the loop, in the order in which the server sent them.
///
/// A batch is never empty, except that the first batch after a connection was restored may contain only a
/// [`gap`](Self::gap). Iterate over `&batch` to borrow the notifications, or over `batch` to own them.
///
/// A batch of less than 4 KiB owns exactly its bytes. A larger one shares the read buffer (64 KiB); while such a batch
/// is alive, the loop reads into another buffer.
#[derive(Clone)]
#[doc(alias = "notifies")]
pub struct Batch {
    slice: Slice,
    gap: Option<Gap>,
}

impl Batch {
    /// Creates a batch that contains only a gap, which [`with_gap`](Self::with_gap) adds.
    pub(crate) fn empty() -> Self {
        Slice { buffer: Arc::default(), start: 0, end: 0, len: 0, common: 0 }.into()
    }

    /// Adds a gap, for tests of code that receives some.
    ///
    /// ```
    /// use std::time::Duration;
    /// use notifyman::{Batch, Error, Gap};
    ///
    /// let gap = Gap::new(["prices"], Error::Disconnected, Duration::from_secs(3));
    /// let batch = Batch::from_iter([]).with_gap(gap);
    /// assert!(batch.is_empty() && batch.gap().is_some());
    /// ```
    #[must_use]
    pub fn with_gap(mut self, gap: Gap) -> Self {
        self.gap = Some(gap);
        self
    }

    /// Returns the number of notifications.
    pub fn len(&self) -> usize {
        self.slice.len()
    }

    /// Returns `true` if the batch contains no notifications, but only a gap.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the gap before this batch, if the connection was restored and may have missed notifications.
    pub fn gap(&self) -> Option<&Gap> {
        self.gap.as_ref()
    }

    /// Returns the number of bytes of the notifications.
    #[cfg(any(feature = "relay", feature = "stream"))]
    pub(crate) fn byte_len(&self) -> usize {
        self.slice.as_bytes().len()
    }

    /// Copies the batch out of the read buffer if it shares that, so that it owns exactly its bytes.
    #[cfg(any(feature = "relay", feature = "stream"))]
    pub(crate) fn detach(mut self) -> Self {
        if self.slice.buffer.len() > self.byte_len() {
            self.slice.buffer = self.slice.as_bytes().into();
            (self.slice.start, self.slice.end) = (0, offset(self.slice.buffer.len()));
        }
        self
    }

    /// Creates a batch of the notifications in `bytes`, which must be nothing but complete frames. They are checked as on receipt,
    /// and copied together.
    ///
    /// # Errors
    ///
    /// The offset of the first byte that begins no valid notification.
    #[cfg(feature = "relay")]
    pub(crate) fn from_frames(bytes: &[u8]) -> Result<Self, usize> {
        let (len, common) = check_notifications(bytes)?;
        let end = u32::try_from(bytes.len()).map_err(|_| 0_usize)?;
        Ok(Slice { buffer: bytes.into(), start: 0, end, len: offset(len), common: offset(common) }.into())
    }

    /// Removes the first notifications.
    #[cfg(feature = "relay")]
    pub(crate) fn without_first(mut self, mut count: usize) -> Self {
        while count > 0 && self.slice.pop_front().is_some() {
            count -= 1;
        }
        self
    }

    /// Returns the frames of the notifications, one after the other. They are copied only if the server sent other messages
    /// between them.
    #[cfg(feature = "relay")]
    pub(crate) fn notification_frames(&self) -> Cow<'_, [u8]> {
        let bytes = self.slice.as_bytes();
        let len: usize = self.iter().map(|n| n.frame().len()).sum();
        if len == bytes.len() {
            bytes.into()
        } else {
            self.iter().flat_map(|n| n.frame()).copied().collect::<Vec<_>>().into()
        }
    }

    /// Creates a batch of notifications, each with the process that sent it, its channel and its payload.
    #[cfg(all(test, feature = "stream"))]
    pub(crate) fn for_test(notifications: &[(i32, &str, &str)]) -> Self {
        let frame = |(pid, channel, payload): &(i32, &str, &str)| {
            super::tests::frame(*pid, channel.as_bytes(), payload.as_bytes())
        };
        super::tests::batch(&notifications.iter().map(frame).collect::<Vec<_>>())
    }

    /// Returns an iterator that borrows the notifications.
    pub fn iter(&self) -> Iter<'_> {
        Iter { frames: self.slice.frames(), left: self.len() }
    }
}

impl From<Slice> for Batch {
    fn from(slice: Slice) -> Self {
        Self { slice, gap: None }
    }
}

/// For tests of code that receives batches.
impl FromIterator<Notification> for Batch {
    fn from_iter<N: IntoIterator<Item = Notification>>(notifications: N) -> Self {
        let (mut frames, mut len) = (Vec::new(), 0);
        for notification in notifications {
            frames.extend_from_slice(notification.as_ref().frame());
            len += 1;
        }
        Slice { end: offset(frames.len()), buffer: frames.into(), start: 0, len, common: 0 }.into()
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("notifications", &self.iter().collect::<Vec<_>>())
            .field("gap", &self.gap)
            .finish()
    }
}

impl<'b> IntoIterator for &'b Batch {
    type Item = NotificationRef<'b>;
    type IntoIter = Iter<'b>;

    fn into_iter(self) -> Iter<'b> {
        self.iter()
    }
}

impl IntoIterator for Batch {
    type Item = Notification;
    type IntoIter = IntoIter;

    fn into_iter(self) -> IntoIter {
        IntoIter { left: self.slice }
    }
}

/// A borrowing iterator over the notifications of a [`Batch`].
#[derive(Clone, Debug)]
pub struct Iter<'b> {
    frames: Frames<'b>,
    left: usize,
}

impl<'b> Iterator for Iter<'b> {
    type Item = NotificationRef<'b>;

    #[inline(always)]
    fn next(&mut self) -> Option<NotificationRef<'b>> {
        let notification = self.frames.next()?;
        self.left = self.left.saturating_sub(1);
        Some(notification)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Iter<'_> {}
impl FusedIterator for Iter<'_> {}

/// An owning iterator over the notifications of a [`Batch`].
#[derive(Clone, Debug)]
pub struct IntoIter {
    left: Slice,
}

impl Iterator for IntoIter {
    type Item = Notification;

    #[inline]
    fn next(&mut self) -> Option<Notification> {
        self.left.pop_front()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left.len(), Some(self.left.len()))
    }
}

impl ExactSizeIterator for IntoIter {}
impl FusedIterator for IntoIter {}

/// Notifications in a shared read buffer, or in a buffer of their own.
#[derive(Clone)]
pub(crate) struct Slice {
    buffer: Arc<[u8]>,
    start: u32,
    end: u32,
    len: u32,
    /// The length of the channel name if all notifications have the same channel, else 0.
    common: u32,
}

impl Slice {
    /// Creates a slice of `buffer[start..end]`, which must contain complete, validated frames, `len` of them
    /// notifications. If `common` is not 0, all notifications must be on one channel whose name has `common` bytes.
    pub(crate) fn new(buffer: &Arc<[u8]>, start: usize, end: usize, len: usize, common: usize) -> Self {
        let bytes = buffer.get(start..end).unwrap_or_default();
        let (len, common) = (offset(len), offset(common));
        if bytes.len() < EXACT_BELOW {
            Self { end: offset(bytes.len()), buffer: bytes.into(), start: 0, len, common }
        } else {
            Self { buffer: Arc::clone(buffer), start: offset(start), end: offset(end), len, common }
        }
    }

    /// Returns the frames as they were received.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.buffer.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// Returns the number of notifications.
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    /// Removes and returns the first notification.
    #[inline]
    pub(crate) fn pop_front(&mut self) -> Option<Notification> {
        let mut frames = self.frames();
        let first = frames.next()?;
        let behind = self.end - offset(frames.bytes_left());
        let start = behind - offset(first.frame.len());
        let notification = Notification::in_buffer(&self.buffer, start, first);
        self.start = behind;
        self.len -= 1;
        Some(notification)
    }

    #[inline]
    fn frames(&self) -> Frames<'_> {
        Frames::of(self.as_bytes(), self.common as usize)
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(notifications_in(self.as_bytes())).finish()
    }
}
