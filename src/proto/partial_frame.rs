//! Frames that are incomplete at the end of a read.

use crate::proto::frame::{self, Next};

/// The received part of an incomplete frame, or the number of bytes to skip of a frame of which enough was stored.
///
/// The part is copied before the next input, so that the frame is complete in the read buffer. A frame that is too long
/// for that is collected here. Of a frame that is longer than the stored limit, the rest is skipped as it arrives.
#[derive(Debug, Default)]
pub(crate) struct PartialFrame {
    pub(crate) bytes: Vec<u8>,
    pub(crate) skip: usize,
}

impl PartialFrame {
    /// Stores the rest of an input, and the number of bytes to skip.
    pub(crate) fn save(rest: &[u8], skip: usize, pool: &mut PartialFramePool) -> Box<Self> {
        let mut partial = pool.0.pop().unwrap_or_default();
        partial.bytes.extend_from_slice(rest);
        partial.skip = skip;
        partial
    }

    /// Returns the bytes to copy before the next input, if the frame fits into a buffer of `size` bytes.
    pub(crate) fn prefix(&self, size: usize) -> &[u8] {
        match self.target() {
            Some((needed, _)) if needed > size / 2 => &[],
            _ => &self.bytes,
        }
    }

    /// Returns the number of bytes with which the frame can be handled, and its length.
    pub(crate) fn target(&self) -> Option<(usize, usize)> {
        match frame::next(&self.bytes) {
            Ok(Next::Partial { known }) => known,
            _ => None,
        }
    }
}

/// Memory for incomplete frames, which connections use in turn: under load, every read ends with one.
#[derive(Debug, Default)]
#[allow(clippy::vec_box, reason = "it is the boxes that go round")]
pub(crate) struct PartialFramePool(Vec<Box<PartialFrame>>);

/// The number of frames in the pool, and the largest size of one.
const SPARES: usize = 64;
const SPARE_SIZE_MAX: usize = 16 * 1024;

impl PartialFramePool {
    pub(crate) fn give_back(&mut self, mut partial: Box<PartialFrame>) {
        if self.0.len() < SPARES && partial.bytes.capacity() <= SPARE_SIZE_MAX {
            partial.bytes.clear();
            partial.skip = 0;
            self.0.push(partial);
        }
    }
}
