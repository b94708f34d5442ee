//! The buffer for reading and decrypting: one for each thread, which reads one stream at a time, so that streams need
//! no buffer of their own.

use std::cell::Cell;

thread_local! {
    /// The buffer of the last read, until the thread ends.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A buffer: the thread's, unless it is in use.
pub(super) struct Scratch(Vec<u8>);

impl Scratch {
    pub(super) fn lend() -> Self {
        Self(SPARE.try_with(Cell::take).unwrap_or_default())
    }

    /// Returns the first `size` bytes.
    pub(super) fn first(&mut self, size: usize) -> &mut [u8] {
        if self.0.len() < size {
            self.0.resize(size, 0);
        }
        self.0.get_mut(..size).unwrap_or_default()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A thread that is ending keeps no buffer.
        let _ = SPARE.try_with(|spare| spare.set(std::mem::take(&mut self.0)));
    }
}
