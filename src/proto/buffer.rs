//! Where a loop reads to: one slab for all its connections.
//!
//! A batch is a slice of the slab. While one is alive, the next read goes to a fresh slab; once it has been dropped,
//! the slab is used again, with nothing allocated or cleared. A connection owns no buffer: all that is kept of a read
//! with it is the part of a frame at its end.

use std::sync::Arc;

use crate::proto::session::Torn;

/// How much is read at once.
pub(crate) const READ_SIZE: usize = 64 * 1024;

/// A slab to read into, and what has been read into it.
#[derive(Debug)]
pub(crate) struct ReadBuffer {
    slab: Arc<[u8]>,
    size: usize,
    spares: Spares,
}

/// Memory for frames that reads cut, going round among those who need it: under load every read cuts one.
#[derive(Debug, Default)]
#[allow(clippy::vec_box, reason = "it is the boxes that go round")]
pub(crate) struct Spares(Vec<Box<Torn>>);

/// How many spares are kept, and how large they may be.
const SPARES: usize = 64;
const SPARE_SIZE_MAX: usize = 16 * 1024;

impl Spares {
    pub(crate) fn take(&mut self) -> Box<Torn> {
        self.0.pop().unwrap_or_default()
    }

    pub(crate) fn give_back(&mut self, mut torn: Box<Torn>) {
        if self.0.len() < SPARES && torn.held_bytes() <= SPARE_SIZE_MAX {
            torn.clear();
            self.0.push(torn);
        }
    }
}

impl ReadBuffer {
    /// An empty buffer of `size` bytes, which it takes with its first use.
    pub(crate) fn new(size: usize) -> Self {
        Self { slab: Arc::from([].as_slice()), size, spares: Spares::default() }
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// The whole slab, to be written to.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        // To look at the count is cheaper than to ask for the slab twice.
        if Arc::strong_count(&self.slab) > 1 || self.slab.is_empty() {
            self.slab = std::iter::repeat_n(0, self.size).collect();
        }
        // Nobody else has it, or has seen the one made above, so there is always one to lend.
        Arc::get_mut(&mut self.slab).unwrap_or_default()
    }

    /// The slab, to be read and shared; and spares for what is torn in it.
    pub(crate) fn parts(&mut self) -> (&Arc<[u8]>, &mut Spares) {
        (&self.slab, &mut self.spares)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slab_is_used_again_once_nobody_holds_it() {
        let mut buffer = ReadBuffer::new(8);
        buffer.space()[0] = 1;
        let first = Arc::as_ptr(&buffer.slab);
        assert_eq!(buffer.space()[0], 1);

        let held = Arc::clone(&buffer.slab);
        buffer.space()[0] = 2;
        assert_ne!(Arc::as_ptr(&buffer.slab), first);
        assert_eq!(held[0], 1, "what a batch holds is not written to");
    }
}
