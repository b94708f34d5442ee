//! What a read has cut: the part of a frame that must wait for the rest of it.
//!
//! It stands before the next read, so that the frame is whole in the read buffer. A frame that is too long for that is gathered
//! here; of one that is longer than anybody keeps, the rest is passed over as it comes.

use std::sync::Arc;

use super::Session;
use crate::proto::buffer::PartialFramePool;
use crate::proto::frame::{self, Next};

/// A frame as far as it came; or how much is still to come of one of which enough has been kept.
#[derive(Debug, Default)]
pub(crate) struct PartialFrame {
    bytes: Vec<u8>,
    skip: usize,
}

impl PartialFrame {
    /// What stands before the space that is lent, in a buffer of `size` bytes.
    pub(super) fn prefix(&self, size: usize) -> &[u8] {
        match self.target() {
            Some((needed, _)) if needed > size / 2 => &[],
            _ => &self.bytes,
        }
    }

    /// With how many bytes the frame can be handed on, and how many it has.
    fn target(&self) -> Option<(usize, usize)> {
        match frame::next(&self.bytes) {
            Ok(Next::Partial { known }) => known,
            _ => None,
        }
    }

    /// Returns the part of the frame that was received.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets it all, and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.skip = 0;
    }

    /// How much memory it takes.
    pub(crate) fn held_bytes(&self) -> usize {
        self.bytes.capacity()
    }
}

impl Session {
    /// Keeps what is left over of a read, and how much of the frame is still to be passed over.
    pub(super) fn tear(&mut self, rest: &[u8], skip: usize, spares: &mut PartialFramePool) {
        let mut partial = spares.take();
        partial.bytes.extend_from_slice(rest);
        partial.skip = skip;
        self.partial = Some(partial);
    }

    /// Goes on with the frame that was partial, now that `read` more bytes are in the read buffer. Gives where in the read buffer begins
    /// and ends what isn't part of it, or is it as a whole.
    pub(super) fn mend(
        &mut self,
        mut partial: Box<PartialFrame>,
        read_buffer: &Arc<[u8]>,
        read: usize,
        spares: &mut PartialFramePool,
    ) -> (usize, usize) {
        let prefix = partial.prefix(read_buffer.len()).len();
        let end = prefix + read;
        let mut start = 0;
        if prefix < partial.bytes.len()
            && let Some((needed, total)) = partial.target()
        {
            start = read.min(needed.saturating_sub(partial.bytes.len()));
            partial.bytes.extend_from_slice(read_buffer.get(..start).unwrap_or_default());
            if partial.bytes.len() < needed {
                self.partial = Some(partial);
                return (end, end);
            }
            partial.skip = total - needed;
            let whole: Arc<[u8]> = std::mem::take(&mut partial.bytes).into();
            if needed == total {
                self.handle_frames(&whole, 0, total);
            } else {
                self.handle_message(&whole, total);
            }
        }
        let skipped = partial.skip.min(end - start);
        partial.skip -= skipped;
        partial.bytes.clear();
        if partial.skip > 0 && !self.is_closed() {
            self.partial = Some(partial);
        } else {
            spares.give_back(partial);
        }
        (start + skipped, end)
    }
}
