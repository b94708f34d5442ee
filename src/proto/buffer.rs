//! Where a loop reads to: one slab for all its connections.
//!
//! A batch is a slice of the slab. While one is alive, the next read goes to a fresh slab; once it has been dropped,
//! the slab is used again, with nothing allocated or cleared.

use std::sync::Arc;

/// How much is read at once.
pub(crate) const READ_SIZE: usize = 64 * 1024;

/// A slab to read into, and what has been read into it.
#[derive(Debug)]
pub(crate) struct ReadBuffer {
    slab: Arc<[u8]>,
    size: usize,
}

impl ReadBuffer {
    /// An empty buffer of `size` bytes, which it takes with its first use.
    pub(crate) fn new(size: usize) -> Self {
        Self { slab: Arc::from([].as_slice()), size }
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// The whole slab, to be written to.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        if Arc::get_mut(&mut self.slab).is_none_or(|slab| slab.is_empty()) {
            self.slab = std::iter::repeat_n(0, self.size).collect();
        }
        // Nobody else has seen the slab made above, so there is always one to lend.
        Arc::get_mut(&mut self.slab).unwrap_or_default()
    }

    /// The slab, to be read and shared.
    pub(crate) fn slab(&self) -> &Arc<[u8]> {
        &self.slab
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slab_is_used_again_once_nobody_holds_it() {
        let mut buffer = ReadBuffer::new(8);
        buffer.space()[0] = 1;
        let first = Arc::as_ptr(buffer.slab());
        assert_eq!(buffer.space()[0], 1);

        let held = Arc::clone(buffer.slab());
        buffer.space()[0] = 2;
        assert_ne!(Arc::as_ptr(buffer.slab()), first);
        assert_eq!(held[0], 1, "what a batch holds is not written to");
    }
}
