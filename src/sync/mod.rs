//! Locks, condition variables and atomics: those of the standard library, except in unit tests, where a scheduler can choose
//! the order of their operations.

#[cfg(test)]
pub(crate) mod explore;
#[cfg(test)]
mod scheduled;

#[cfg(test)]
pub(crate) use scheduled::{Condvar, Mutex, MutexGuard, atomic, model, model_now};
#[cfg(not(test))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, atomic};
