//! What a read has cut: the part of a frame that must wait for the rest of it.
//!
//! It stands before the next read, so that the frame is whole in the slab. A frame that is too long for that is gathered
//! here; of one that is longer than anybody keeps, the rest is passed over as it comes.

use std::sync::Arc;

use super::Session;
use crate::proto::buffer::Spares;
use crate::proto::frame::{self, Next};

/// A frame as far as it came; or how much is still to come of one of which enough has been kept.
#[derive(Debug, Default)]
pub(crate) struct Torn {
    bytes: Vec<u8>,
    skip: usize,
}

impl Torn {
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
            Ok(Next::Torn { known }) => known,
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
    pub(super) fn tear(&mut self, rest: &[u8], skip: usize, spares: &mut Spares) {
        let mut torn = spares.take();
        torn.bytes.extend_from_slice(rest);
        torn.skip = skip;
        self.torn = Some(torn);
    }

    /// Goes on with the frame that was torn, now that `read` more bytes are in the slab. Gives where in the slab begins
    /// and ends what isn't part of it, or is it as a whole.
    pub(super) fn mend(
        &mut self,
        mut torn: Box<Torn>,
        slab: &Arc<[u8]>,
        read: usize,
        spares: &mut Spares,
    ) -> (usize, usize) {
        let prefix = torn.prefix(slab.len()).len();
        let end = prefix + read;
        let mut start = 0;
        if prefix < torn.bytes.len()
            && let Some((needed, total)) = torn.target()
        {
            start = read.min(needed.saturating_sub(torn.bytes.len()));
            torn.bytes.extend_from_slice(slab.get(..start).unwrap_or_default());
            if torn.bytes.len() < needed {
                self.torn = Some(torn);
                return (end, end);
            }
            torn.skip = total - needed;
            let whole: Arc<[u8]> = std::mem::take(&mut torn.bytes).into();
            if needed == total {
                self.handle_frames(&whole, 0, total);
            } else {
                self.handle_message(&whole, total);
            }
        }
        let skipped = torn.skip.min(end - start);
        torn.skip -= skipped;
        torn.bytes.clear();
        if torn.skip > 0 && !self.is_closed() {
            self.torn = Some(torn);
        } else {
            spares.give_back(torn);
        }
        (start + skipped, end)
    }
}
