//! Counted permits that return themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The number of permits that are held.
#[derive(Debug, Default)]
pub(super) struct Permits(Arc<AtomicUsize>);

/// The permission for one action. Dropping it returns it.
#[derive(Debug)]
pub(super) struct Permit(Arc<AtomicUsize>);

impl Permits {
    pub(super) fn take(&self) -> Permit {
        self.0.fetch_add(1, Relaxed);
        Permit(Arc::clone(&self.0))
    }

    pub(super) fn held(&self) -> usize {
        self.0.load(Relaxed)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
