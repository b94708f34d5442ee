//! The buffer that ciphertext is read into and decrypted in: one for each thread, which reads one stream at a time. So
//! streams need none of their own.

use std::cell::Cell;

thread_local! {
    /// Left by the last read for the next, until the thread ends.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A buffer, the thread's if nobody has it.
pub(super) struct Scratch(Vec<u8>);

impl Scratch {
    pub(super) fn lend() -> Self {
        Self(SPARE.try_with(Cell::take).unwrap_or_default())
    }

    /// Its first bytes, as many as are asked for.
    pub(super) fn first(&mut self, size: usize) -> &mut [u8] {
        if self.0.len() < size {
            self.0.resize(size, 0);
        }
        self.0.get_mut(..size).unwrap_or_default()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A thread that is ending keeps nothing.
        let _ = SPARE.try_with(|spare| spare.set(std::mem::take(&mut self.0)));
    }
}
