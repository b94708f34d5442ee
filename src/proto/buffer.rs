//! The read buffer that all connections of a loop share.
//!
//! A batch is a slice of the read buffer. While a batch is alive, the next read uses a new buffer; once it was dropped,
//! the buffer is used again without an allocation. A connection owns no buffer, and stores only the incomplete frame at
//! the end of a read.

use std::sync::Arc;

use crate::proto::partial_frame::PartialFramePool;

/// The size of a read buffer in bytes.
pub(crate) const READ_SIZE: usize = 64 * 1024;

/// A buffer for reads, and a pool for incomplete frames.
#[derive(Debug)]
pub(crate) struct ReadBuffer {
    buffer: Arc<[u8]>,
    pub(super) size: usize,
    spares: PartialFramePool,
}

impl ReadBuffer {
    /// Creates a buffer of `size` bytes, which is allocated when it is first used.
    pub(crate) fn new(size: usize) -> Self {
        Self { buffer: Arc::from([].as_slice()), size, spares: PartialFramePool::default() }
    }

    /// Returns the whole buffer for writing.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        // Checking the count is cheaper than calling `get_mut` twice.
        if Arc::strong_count(&self.buffer) > 1 || self.buffer.is_empty() {
            self.buffer = std::iter::repeat_n(0, self.size).collect();
        }
        // The buffer is not shared: either the count was 1, or the buffer is new.
        Arc::get_mut(&mut self.buffer).unwrap_or_default()
    }

    /// Returns the buffer for reading and sharing, and the pool.
    pub(crate) fn parts(&mut self) -> (&Arc<[u8]>, &mut PartialFramePool) {
        (&self.buffer, &mut self.spares)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_once_it_is_not_shared() {
        let mut buffer = ReadBuffer::new(8);
        buffer.space()[0] = 1;
        let first = Arc::as_ptr(&buffer.buffer);
        assert_eq!(buffer.space()[0], 1);

        let held = Arc::clone(&buffer.buffer);
        buffer.space()[0] = 2;
        assert_ne!(Arc::as_ptr(&buffer.buffer), first);
        assert_eq!(held[0], 1, "what a batch holds is not written to");
    }
}
