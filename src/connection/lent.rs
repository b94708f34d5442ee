//! The buffer that a blocking call reads into: one for each thread, which makes one call at a time.

use std::cell::Cell;

use crate::proto::{READ_SIZE, ReadBuffer};

thread_local! {
    /// Left by the last call for the next, until the thread ends.
    static SPARE: Cell<Option<ReadBuffer>> = const { Cell::new(None) };
}

/// A read buffer that is taken from the thread's when it is first used, and left to it in the end. So asking again and
/// again whether there is something costs no memory.
#[derive(Debug, Default)]
pub(super) struct LentBuffer(Option<ReadBuffer>);

impl LentBuffer {
    pub(super) fn get(&mut self) -> &mut ReadBuffer {
        self.0.get_or_insert_with(|| {
            SPARE.try_with(Cell::take).ok().flatten().unwrap_or_else(|| ReadBuffer::new(READ_SIZE))
        })
    }
}

impl Drop for LentBuffer {
    fn drop(&mut self) {
        if let Some(buffer) = self.0.take() {
            // A thread that is ending keeps nothing.
            let _ = SPARE.try_with(|spare| spare.set(Some(buffer)));
        }
    }
}
