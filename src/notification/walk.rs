//! Iteration over the notifications of a batch, a part of the hot path like [`frames`](super::frames).

use super::frames::{HEADER, NOTIFICATION, channel_len, frame_len};
use super::single::NotificationRef;

/// Steps from frame to frame, for frames of any type.
#[derive(Clone, Copy, Debug, Default)]
struct Stride {
    /// The header of the last frame.
    header: [u8; HEADER],
    /// The length of the last frame.
    len: usize,
}

impl Stride {
    /// Returns the first frame of `bytes` and the rest, or `None` if the frame is incomplete.
    #[inline(always)]
    fn next<'b>(&mut self, bytes: &'b [u8]) -> Option<(&'b [u8], &'b [u8])> {
        if let Some((frame, behind)) = bytes.split_at_checked(self.len)
            && frame.first_chunk() == Some(&self.header)
        {
            return Some((frame, behind));
        }
        let header = *bytes.first_chunk()?;
        let len = frame_len(&header)?;
        let found = bytes.split_at_checked(len)?;
        *self = Self { header, len };
        Some(found)
    }
}

/// Returns the notifications in `bytes`, which must contain only complete frames that were validated when they were
/// received.
pub(crate) fn notifications_in(bytes: &[u8]) -> Frames<'_> {
    Frames::of(bytes, 0)
}

/// Iterates over validated frames and skips those that are not notifications.
#[derive(Clone, Debug)]
pub(crate) struct Frames<'b> {
    rest: &'b [u8],
    stride: Stride,
    /// The length of the channel name if all notifications have the same channel, else 0.
    common: usize,
    /// The last notification. If the channels differ, the next channel is compared with this one's.
    before: NotificationRef<'b>,
}

impl<'b> Frames<'b> {
    /// Creates the iterator. If `common` is not 0, all notifications must be on one channel whose name has `common`
    /// bytes.
    pub(super) fn of(bytes: &'b [u8], common: usize) -> Self {
        Self { rest: bytes, stride: Stride::default(), common, before: NotificationRef { frame: b"", channel_len: 0 } }
    }

    /// Returns the number of bytes after the last notification that was returned.
    pub(crate) fn bytes_left(&self) -> usize {
        self.rest.len()
    }
}

impl<'b> Iterator for Frames<'b> {
    type Item = NotificationRef<'b>;

    // Without forced inlining, the iterator's state stays in memory and a loop takes twice as long.
    #[inline(always)]
    fn next(&mut self) -> Option<NotificationRef<'b>> {
        loop {
            let (frame, behind) = self.stride.next(self.rest)?;
            self.rest = behind;
            if frame.first() == Some(&NOTIFICATION) {
                let channel_len =
                    if self.common > 0 { self.common } else { channel_len(frame, self.before.channel_bytes())? };
                self.before = NotificationRef { frame, channel_len };
                return Some(self.before);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::frame;
    use super::*;

    #[test]
    fn a_walk_finds_frames_of_equal_and_other_lengths_alike() {
        let frames: Vec<_> = [1, 1, 2, 2, 1, 0, 0, 30, 1].map(|len| frame(1, b"a", &vec![b'x'; len])).to_vec();
        let foreign = b"N\0\0\0\x09abcde".to_vec();
        for at in 0..=frames.len() {
            let mut all = frames.clone();
            // A frame that may be as long as its neighbours.
            all.insert(at, foreign.clone());
            let bytes = all.concat();
            for common in [0, 1] {
                let found: Vec<_> = Frames::of(&bytes, common).map(|n| n.frame.to_vec()).collect();
                assert_eq!(found, frames);
            }
        }
        let bytes = frames.concat();
        let mut walk = notifications_in(&bytes);
        assert_eq!((walk.next().unwrap().frame, walk.bytes_left()), (&frames[0][..], bytes.len() - frames[0].len()));
    }
}
