//! The lock of the notifier's state, while a thread holds it.

use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;
use std::time::Duration;

use crate::notifier::counters::held_work::HeldWork;
use crate::sync::{Condvar, MutexGuard};

pub(crate) struct StateGuard<'s, T> {
    state: MutexGuard<'s, T>,
    _work: HeldWork,
}

impl<'s, T> StateGuard<'s, T> {
    pub(crate) fn new(state: MutexGuard<'s, T>) -> Self {
        Self { state, _work: HeldWork::begin() }
    }

    /// Releases the lock, and takes it again when a condition may hold.
    pub(crate) fn wait(self, condition: &Condvar) -> Self {
        Self::new(condition.wait(self.state).unwrap_or_else(PoisonError::into_inner))
    }

    /// Like [`wait`](Self::wait), with a limit of time.
    pub(crate) fn wait_timeout(self, condition: &Condvar, timeout: Duration) -> Self {
        Self::new(condition.wait_timeout(self.state, timeout).unwrap_or_else(PoisonError::into_inner).0)
    }
}

impl<T> Deref for StateGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.state
    }
}

impl<T> DerefMut for StateGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.state
    }
}
