//! The batch: a slice of the very bytes that were read, whole frames only, checked once as they came in.
//!
//! ```text
//!   slab, shared:  … | 'A' len pid channel 0 payload 0 | 'S' … | 'A' len pid channel 0 payload 0 | …
//!   batch:           └──────────────────── start .. end, two notifications ────────────────────┘
//! ```

use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;

use super::frames::{Frames, notifications_in};
use super::{Notification, NotificationRef};
use crate::gap::Gap;

/// A batch smaller than this is copied out of the slab that it was read into, so that keeping it keeps nothing else.
const EXACT_BELOW: usize = 4096;

/// What one connection had in one turn of the loop, in the order in which the server sent it.
///
/// Never empty, except that a restored connection's may hold nothing but its [`gap`](Self::gap). Iterate `&batch` to
/// borrow, or the batch itself to own.
///
/// A batch under 4 KiB owns exactly its bytes; a larger one shares the buffer it was read into (64 KiB), and while it
/// is alive the loop must read into another.
#[derive(Clone)]
pub struct Batch {
    slice: Slice,
    gap: Option<Gap>,
}

impl Batch {
    /// A batch that holds nothing but a gap.
    pub(crate) fn empty() -> Self {
        Slice { slab: Arc::default(), start: 0, end: 0, len: 0, common: 0 }.into()
    }

    pub(crate) fn with_gap(mut self, gap: Gap) -> Self {
        self.gap = Some(gap);
        self
    }

    /// How many notifications there are.
    pub fn len(&self) -> usize {
        self.slice.len()
    }

    /// Whether there is none: only for a restored connection's first batch.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What may have been missed just before this batch, if its connection has just been restored.
    pub fn gap(&self) -> Option<&Gap> {
        self.gap.as_ref()
    }

    /// The notifications, borrowed.
    pub fn iter(&self) -> Iter<'_> {
        Iter { frames: self.slice.frames(), left: self.len() }
    }
}

impl From<Slice> for Batch {
    fn from(slice: Slice) -> Self {
        Self { slice, gap: None }
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

/// The notifications of a [`Batch`], borrowed.
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

/// The notifications of a [`Batch`], owned.
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

/// Notifications as they lie in the slab that they were read into, or in their own.
#[derive(Clone)]
pub(crate) struct Slice {
    slab: Arc<[u8]>,
    start: u32,
    end: u32,
    len: u32,
    /// How long the name of their channel is, if that is one and the same; else 0.
    common: u32,
}

impl Slice {
    /// `slab[start..end]` must hold whole frames that were checked at intake, `len` of them notifications, all on one
    /// channel if that has a name of `common` bytes; with 0 the channels may differ.
    pub(crate) fn new(slab: &Arc<[u8]>, start: usize, end: usize, len: usize, common: usize) -> Self {
        let bytes = slab.get(start..end).unwrap_or_default();
        let (len, common) = (offset(len), offset(common));
        if bytes.len() < EXACT_BELOW {
            Self { end: offset(bytes.len()), slab: bytes.into(), start: 0, len, common }
        } else {
            Self { slab: Arc::clone(slab), start: offset(start), end: offset(end), len, common }
        }
    }

    /// The frames, as they came.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.slab.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// How many notifications there are.
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    /// The first notification, taken out.
    #[inline]
    pub(crate) fn pop_front(&mut self) -> Option<Notification> {
        let mut frames = self.frames();
        let first = frames.next()?;
        let behind = self.end - offset(frames.bytes_left());
        let start = behind - offset(first.frame.len());
        let notification = Notification::in_slab(&self.slab, start, first);
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

/// A place in a slab, which is far from having 4 GiB.
#[inline]
pub(super) fn offset(place: usize) -> u32 {
    place as u32
}
