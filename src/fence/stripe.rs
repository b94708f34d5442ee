//! The stripes of a fence: each is a lock, and a stamp that every invalidation of one of its keys advances. Pure.
//!
//! ```text
//!   begin:       note the stamp ──▶ query ──▶ admit:  lock ─▶ same stamp? ─▶ insert ─▶ unlock
//!   invalidate:                                lock ─▶ advance the stamp ─▶ remove ─▶ unlock
//! ```
//!
//! Of a fill and an invalidation that overlap, either the fill is refused, or what it inserts is removed.

use std::marker::PhantomData;
use std::sync::PoisonError;

use crate::sync::atomic::{AtomicU64, Ordering::*};
use crate::sync::{Mutex, MutexGuard, mark_thread};

/// Some of the keys of a fence.
#[derive(Debug, Default)]
pub(crate) struct Stripe {
    lock: Mutex<()>,
    /// The number of invalidations.
    stamp: AtomicU64,
    /// Of the removals that take time, the number that has ended and, in the lower half, of those that have not.
    removals: AtomicU64,
}

/// A removal that has begun, and one that has ended, in [`Stripe::removals`].
const REMOVAL: u64 = 1;
const ENDED: u64 = 1 << 32;

/// The removals of a stripe at one moment. If none was in progress, and they are the same later, none has been in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RemovalStamp(u64);

impl RemovalStamp {
    pub(crate) fn is_quiet(self) -> bool {
        self.0.is_multiple_of(ENDED)
    }
}

/// The lock of a stripe. A thread holds at most one.
#[derive(Debug)]
pub(crate) struct LockedStripe<'s> {
    stripe: &'s Stripe,
    _guard: MutexGuard<'s, ()>,
    /// Dropped on the thread that has the lock.
    not_send: PhantomData<*const ()>,
}

/// The thread holds the lock of a stripe already: a closure that runs under it uses the fence.
#[derive(Debug)]
pub(crate) struct Reentered;

impl Drop for LockedStripe<'_> {
    fn drop(&mut self) {
        mark_thread(false);
    }
}

impl Stripe {
    pub(crate) fn lock(&self) -> Result<LockedStripe<'_>, Reentered> {
        if mark_thread(true) {
            return Err(Reentered);
        }
        // A closure that panicked has left no state of the stripe in between.
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(LockedStripe { stripe: self, _guard: guard, not_send: PhantomData })
    }

    /// Returns the stamp, which a fill notes before its query.
    pub(crate) fn stamp(&self) -> u64 {
        self.stamp.load(Acquire)
    }

    pub(crate) fn removals(&self) -> RemovalStamp {
        RemovalStamp(self.removals.load(Acquire))
    }

    /// Ends a removal.
    pub(crate) fn end_removal(&self) {
        self.removals.fetch_add(ENDED - REMOVAL, AcqRel);
    }
}

impl LockedStripe<'_> {
    /// Refuses the fills that have begun.
    pub(crate) fn advance(&self) {
        self.stripe.stamp.fetch_add(1, Release);
    }

    /// Begins a removal that ends later, after the stamp was advanced.
    pub(crate) fn begin_removal(&self) {
        self.stripe.removals.fetch_add(REMOVAL, AcqRel);
    }
}
