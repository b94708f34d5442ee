//! Callbacks that are no longer needed, kept until they can be dropped.
//!
//! Dropping a callback drops the values that it captured, which may call the notifier, wait or panic. So callbacks are
//! dropped only while no lock is held, whichever thread releases the last reference to their subscription.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;

use crate::sync::Mutex;

#[derive(Default)]
pub(crate) struct DeferredDrop(Mutex<Vec<Box<dyn Any + Send>>>);

impl DeferredDrop {
    pub(crate) fn add(&self, callback: impl Any + Send) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(callback));
    }

    /// Drops all values one by one, and catches their panics.
    pub(crate) fn drop_all(&self) {
        let values = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        values.into_iter().for_each(drop_caught);
    }
}

/// Drops a value of the user, and catches its panic.
pub(crate) fn drop_caught(value: Box<dyn Any + Send>) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        // Dropping the payload of the panic could panic again.
        std::mem::forget(panic);
    }
}
