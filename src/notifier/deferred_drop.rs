//! Functions that are over, until they can be dropped.
//!
//! What a function has captured may do anything as it is dropped: call the notifier, wait, panic. So that happens where
//! nothing is locked, wherever the last that held the subscription let go of it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

#[derive(Default)]
pub(crate) struct DeferredDrop(Mutex<Vec<Box<dyn Any + Send>>>);

impl DeferredDrop {
    pub(crate) fn add(&self, function: impl Any + Send) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(function));
    }

    /// Drops what is there, one by one, whatever that does.
    pub(crate) fn empty(&self) {
        let dead = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        dead.into_iter().for_each(discard);
    }
}

/// Drops what is the user's, whatever that does.
pub(crate) fn discard(it: Box<dyn Any + Send>) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(it))) {
        // What it panicked with might do the same, and so on.
        std::mem::forget(panic);
    }
}
