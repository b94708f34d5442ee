//! The read buffer of blocking calls: one for each thread, which makes one call at a time.

use std::cell::Cell;

use crate::proto::{READ_SIZE, ReadBuffer};

thread_local! {
    /// The buffer that the last call of the thread has returned.
    static SPARE: Cell<Option<ReadBuffer>> = const { Cell::new(None) };
}

/// A read buffer that is taken from the thread when it is first used, and returned when it is dropped. Therefore polling
/// a connection allocates nothing.
#[derive(Debug, Default)]
pub(super) struct ThreadBuffer(Option<ReadBuffer>);

impl ThreadBuffer {
    pub(super) fn get(&mut self) -> &mut ReadBuffer {
        self.0.get_or_insert_with(|| {
            SPARE.try_with(Cell::take).ok().flatten().unwrap_or_else(|| ReadBuffer::new(READ_SIZE))
        })
    }
}

impl Drop for ThreadBuffer {
    fn drop(&mut self) {
        if let Some(buffer) = self.0.take() {
            // This fails only for a thread that is ending.
            let _ = SPARE.try_with(|spare| spare.set(Some(buffer)));
        }
    }
}
