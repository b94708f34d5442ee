//! Where a loop reads to: one read buffer for all its connections.
//!
//! A batch is a slice of the read buffer. While one is alive, the next read goes to a fresh read buffer; once it has been dropped,
//! the read buffer is used again, with nothing allocated or cleared. A connection owns no buffer: all that is kept of a read
//! with it is the part of a frame at its end.

use std::sync::Arc;

use crate::proto::session::PartialFrame;

/// How much is read at once.
pub(crate) const READ_SIZE: usize = 64 * 1024;

/// A read buffer to read into, and what has been read into it.
#[derive(Debug)]
pub(crate) struct ReadBuffer {
    read_buffer: Arc<[u8]>,
    size: usize,
    spares: PartialFramePool,
}

/// Memory for frames that reads cut, going round among those who need it: under load every read cuts one.
#[derive(Debug, Default)]
#[allow(clippy::vec_box, reason = "it is the boxes that go round")]
pub(crate) struct PartialFramePool(Vec<Box<PartialFrame>>);

/// How many spares are kept, and how large they may be.
const SPARES: usize = 64;
const SPARE_SIZE_MAX: usize = 16 * 1024;

impl PartialFramePool {
    pub(crate) fn take(&mut self) -> Box<PartialFrame> {
        self.0.pop().unwrap_or_default()
    }

    pub(crate) fn give_back(&mut self, mut partial: Box<PartialFrame>) {
        if self.0.len() < SPARES && partial.held_bytes() <= SPARE_SIZE_MAX {
            partial.clear();
            self.0.push(partial);
        }
    }
}

impl ReadBuffer {
    /// An empty buffer of `size` bytes, which it takes with its first use.
    pub(crate) fn new(size: usize) -> Self {
        Self { read_buffer: Arc::from([].as_slice()), size, spares: PartialFramePool::default() }
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// The whole read buffer, to be written to.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        // To look at the count is cheaper than to ask for the read buffer twice.
        if Arc::strong_count(&self.read_buffer) > 1 || self.read_buffer.is_empty() {
            self.read_buffer = std::iter::repeat_n(0, self.size).collect();
        }
        // Nobody else has it, or has seen the one made above, so there is always one to lend.
        Arc::get_mut(&mut self.read_buffer).unwrap_or_default()
    }

    /// The read buffer, to be read and shared; and spares for what is partial in it.
    pub(crate) fn parts(&mut self) -> (&Arc<[u8]>, &mut PartialFramePool) {
        (&self.read_buffer, &mut self.spares)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slab_is_used_again_once_nobody_holds_it() {
        let mut buffer = ReadBuffer::new(8);
        buffer.space()[0] = 1;
        let first = Arc::as_ptr(&buffer.read_buffer);
        assert_eq!(buffer.space()[0], 1);

        let held = Arc::clone(&buffer.read_buffer);
        buffer.space()[0] = 2;
        assert_ne!(Arc::as_ptr(&buffer.read_buffer), first);
        assert_eq!(held[0], 1, "what a batch holds is not written to");
    }
}
