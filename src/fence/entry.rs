//! The values that a cache keeps.

use std::sync::Arc;

use crate::fence::epoch::EpochStamp;
use crate::sync::atomic::{AtomicU64, Ordering::*};

/// A value with the epoch in which it was read: what a cache keeps. [`FenceChannel::fresh`] returns the value.
///
/// [`FenceChannel::fresh`]: crate::fence::FenceChannel::fresh
#[derive(Debug, Clone)]
pub struct Entry<V> {
    value: V,
    pub(crate) stamp: EpochStamp,
}

/// A value that a cache keeps whose calls are awaited: fresh once it is
/// [confirmed](crate::fence::UnconfirmedLease::confirm). [`Lease::fresh`](crate::fence::Lease::fresh) returns the value.
///
/// A clone is the same entry: if one is confirmed, both are.
#[derive(Debug, Clone)]
pub struct AwaitedEntry<V> {
    value: V,
    confirmation: Arc<Confirmation>,
}

/// The stamp of an entry, once it is confirmed.
#[derive(Debug)]
pub(crate) struct Confirmation(AtomicU64);

impl Confirmation {
    pub(crate) fn confirm(&self, stamp: EpochStamp) {
        self.0.store(stamp.bits(), Release);
    }
}

impl<V> Entry<V> {
    pub(crate) fn new(value: V, stamp: EpochStamp) -> Self {
        Self { value, stamp }
    }

    /// Returns the value, which may be stale.
    pub fn value(&self) -> &V {
        &self.value
    }

    /// Returns the value, which may be stale.
    pub fn into_value(self) -> V {
        self.value
    }
}

impl<V> AwaitedEntry<V> {
    /// Creates an entry that is not confirmed.
    pub(crate) fn new(value: V) -> (Self, Arc<Confirmation>) {
        let confirmation = Arc::new(Confirmation(AtomicU64::new(EpochStamp::NEVER.bits())));
        (Self { value, confirmation: Arc::clone(&confirmation) }, confirmation)
    }

    pub(crate) fn stamp(&self) -> EpochStamp {
        EpochStamp::from_bits(self.confirmation.0.load(Acquire))
    }

    /// Returns the value, which may be stale.
    pub fn value(&self) -> &V {
        &self.value
    }

    /// Returns the value, which may be stale.
    pub fn into_value(self) -> V {
        self.value
    }
}
