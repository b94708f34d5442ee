//! Locks, condition variables and atomics: those of the standard library, except in unit tests, where a scheduler can choose
//! the order of their operations.

#[cfg(test)]
pub(crate) mod explore;
#[cfg(test)]
mod scheduled;

#[cfg(test)]
pub(crate) use scheduled::{Condvar, Mutex, MutexGuard, atomic, mark_thread, model, model_now};
#[cfg(not(test))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, atomic};

/// Marks the current thread, for locks of which it may hold one at a time. Returns the former mark.
#[cfg(not(test))]
#[inline]
pub(crate) fn mark_thread(mark: bool) -> bool {
    use std::cell::Cell;
    thread_local! {
        static MARK: Cell<bool> = const { Cell::new(false) };
    }
    MARK.replace(mark)
}
