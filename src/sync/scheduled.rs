//! Stand-ins for the primitives of the standard library. While the current thread runs a [`model`], `shuttle` decides at
//! each of their operations which thread continues; otherwise they only forward.
//!
//! All threads of a model run on one thread of the operating system, so its thread-local flag applies to all of them.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::ops::{Deref, DerefMut};
use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult};
use std::time::{Duration, Instant};

thread_local! {
    static IS_MODEL: Cell<bool> = const { Cell::new(false) };
    static CLOCK: Cell<Option<ModelClock>> = const { Cell::new(None) };
    /// The marked threads: of a model, or this thread.
    static MARKED: RefCell<HashSet<Option<usize>>> = RefCell::default();
}

/// The clock of a model: `step` returns the time from one look at it to the next.
#[derive(Clone, Copy)]
struct ModelClock {
    now: Instant,
    step: fn() -> Duration,
}

/// Runs a function whose scheduling points are decided by `shuttle`, inside of one of its executions. `step` returns the time
/// that passes between two looks at the clock.
pub(crate) fn model(step: fn() -> Duration, run: impl FnOnce()) {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            IS_MODEL.set(false);
            CLOCK.set(None);
        }
    }
    CLOCK.set(Some(ModelClock { now: Instant::now(), step }));
    IS_MODEL.set(true);
    let _reset = Reset;
    run();
}

/// Reads the clock of the model that runs, if there is one.
pub(crate) fn model_now() -> Option<Instant> {
    let mut clock = CLOCK.get()?;
    clock.now += (clock.step)();
    CLOCK.set(Some(clock));
    Some(clock.now)
}

/// Marks the current thread. Returns the former mark.
pub(crate) fn mark_thread(mark: bool) -> bool {
    let thread = IS_MODEL.get().then(|| shuttle::thread::current().id().into());
    MARKED.with_borrow_mut(|marked| if mark { !marked.insert(thread) } else { marked.remove(&thread) })
}

/// Returns `true` if other threads may be scheduled here. They are not while a panic unwinds: another thread would take it
/// for its own.
fn is_scheduled() -> bool {
    IS_MODEL.get() && !std::thread::panicking()
}

/// Like [`std::sync::Mutex`].
#[derive(Debug, Default)]
pub(crate) struct Mutex<T> {
    /// Taken before the value in a model, so that the lock of the value is always free.
    permit: shuttle::sync::Mutex<()>,
    value: std::sync::Mutex<T>,
}

/// Like [`std::sync::MutexGuard`]. The value is released before the permit to lock it.
#[derive(Debug)]
pub(crate) struct MutexGuard<'m, T> {
    value: std::sync::MutexGuard<'m, T>,
    permit: Option<shuttle::sync::MutexGuard<'m, ()>>,
    mutex: &'m Mutex<T>,
}

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { permit: shuttle::sync::Mutex::new(()), value: std::sync::Mutex::new(value) }
    }

    fn guard<'m>(&'m self, permit: Option<shuttle::sync::MutexGuard<'m, ()>>) -> LockResult<MutexGuard<'m, T>> {
        match self.value.lock() {
            Ok(value) => Ok(MutexGuard { value, permit, mutex: self }),
            Err(error) => Err(PoisonError::new(MutexGuard { value: error.into_inner(), permit, mutex: self })),
        }
    }

    pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let permit = IS_MODEL.get().then(|| self.permit.lock().unwrap_or_else(PoisonError::into_inner));
        self.guard(permit)
    }

    pub(crate) fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        let permit = match IS_MODEL.get().then(|| self.permit.try_lock()) {
            Some(Err(TryLockError::WouldBlock)) => return Err(TryLockError::WouldBlock),
            Some(Err(TryLockError::Poisoned(error))) => Some(error.into_inner()),
            Some(Ok(permit)) => Some(permit),
            None => None,
        };
        match self.value.try_lock() {
            Ok(value) => Ok(MutexGuard { value, permit, mutex: self }),
            Err(TryLockError::Poisoned(error)) => {
                Err(PoisonError::new(MutexGuard { value: error.into_inner(), permit, mutex: self }).into())
            }
            Err(TryLockError::WouldBlock) => Err(TryLockError::WouldBlock),
        }
    }

    pub(crate) fn get_mut(&mut self) -> LockResult<&mut T> {
        self.value.get_mut()
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

/// Like [`std::sync::Condvar`]. In a model, no time limit is ever reached.
#[derive(Debug, Default)]
pub(crate) struct Condvar {
    of_model: shuttle::sync::Condvar,
    of_std: std::sync::Condvar,
}

impl Condvar {
    pub(crate) const fn new() -> Self {
        Self { of_model: shuttle::sync::Condvar::new(), of_std: std::sync::Condvar::new() }
    }

    pub(crate) fn wait<'m, T>(&self, guard: MutexGuard<'m, T>) -> LockResult<MutexGuard<'m, T>> {
        let MutexGuard { value, permit, mutex } = guard;
        match permit {
            Some(permit) => {
                drop(value);
                mutex.guard(Some(self.of_model.wait(permit).unwrap_or_else(PoisonError::into_inner)))
            }
            None => {
                let value = self.of_std.wait(value).unwrap_or_else(PoisonError::into_inner);
                Ok(MutexGuard { value, permit: None, mutex })
            }
        }
    }

    pub(crate) fn wait_timeout<'m, T>(
        &self,
        guard: MutexGuard<'m, T>,
        limit: Duration,
    ) -> LockResult<(MutexGuard<'m, T>, bool)> {
        if guard.permit.is_some() {
            let guard = self.wait(guard).unwrap_or_else(PoisonError::into_inner);
            return Ok((guard, false));
        }
        let MutexGuard { value, mutex, .. } = guard;
        let (value, result) = self.of_std.wait_timeout(value, limit).unwrap_or_else(PoisonError::into_inner);
        Ok((MutexGuard { value, permit: None, mutex }, result.timed_out()))
    }

    pub(crate) fn notify_one(&self) {
        if IS_MODEL.get() { self.of_model.notify_one() } else { self.of_std.notify_one() }
    }

    pub(crate) fn notify_all(&self) {
        if IS_MODEL.get() { self.of_model.notify_all() } else { self.of_std.notify_all() }
    }
}

/// Like [`std::sync::atomic`]. In a model, other threads may run before each operation, and all operations are sequentially
/// consistent.
pub(crate) mod atomic {
    #![allow(dead_code, reason = "the notifier may use any of them")]

    pub(crate) use std::sync::atomic::Ordering;

    /// Lets other threads run before an operation.
    fn schedule() {
        if super::is_scheduled() {
            // Not a yield, which would be a hint to run another thread.
            shuttle::sync::atomic::AtomicBool::new(false).load(Ordering::SeqCst);
        }
    }

    macro_rules! atomic {
        ($name:ident: $value:ty, $(fn $operation:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
            /// Like that of [`std::sync::atomic`].
            #[derive(Debug, Default)]
            #[repr(transparent)]
            pub(crate) struct $name(std::sync::atomic::$name);

            impl $name {
                pub(crate) const fn new(value: $value) -> Self {
                    Self(std::sync::atomic::$name::new(value))
                }

                pub(crate) fn get_mut(&mut self) -> &mut $value {
                    self.0.get_mut()
                }

                $(pub(crate) fn $operation(&self, $($argument: $type),*) -> $result {
                    schedule();
                    self.0.$operation($($argument),*)
                })*
            }
        };
    }

    macro_rules! atomics {
        ($($name:ident: $value:ty { $($more:ident)* })*) => {$(
            atomic! { $name: $value,
                fn load(order: Ordering) -> $value;
                fn store(value: $value, order: Ordering) -> ();
                fn compare_exchange(from: $value, to: $value, success: Ordering, failure: Ordering) -> Result<$value, $value>;
                fn swap(value: $value, order: Ordering) -> $value;
                fn fetch_and(value: $value, order: Ordering) -> $value;
                fn fetch_or(value: $value, order: Ordering) -> $value;
                $(fn $more(value: $value, order: Ordering) -> $value;)*
            }
        )*};
    }

    atomics! {
        AtomicBool: bool {}
        AtomicU8: u8 { fetch_add fetch_sub fetch_max fetch_min }
        AtomicU32: u32 { fetch_add fetch_sub fetch_max fetch_min }
        AtomicU64: u64 { fetch_add fetch_sub fetch_max fetch_min }
        AtomicUsize: usize { fetch_add fetch_sub fetch_max fetch_min }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::atomic::{AtomicU64, Ordering::*};
    use super::*;

    /// Returns the results of all schedules of two threads that both run a function.
    fn results<S: Default + Send + Sync + 'static>(run: fn(&S), result: fn(&S) -> u64) -> BTreeSet<u64> {
        let results = Arc::new(std::sync::Mutex::new(BTreeSet::new()));
        let found = Arc::clone(&results);
        let program = move || {
            model(
                || Duration::ZERO,
                || {
                    let shared = Arc::new(S::default());
                    let other = Arc::clone(&shared);
                    let thread = shuttle::thread::spawn(move || run(&other));
                    run(&shared);
                    thread.join().unwrap();
                    found.lock().unwrap().insert(result(&shared));
                },
            );
        };
        shuttle::check_dfs(program, None);
        std::mem::take(&mut *results.lock().unwrap())
    }

    #[test]
    fn operations_of_atomics_are_scheduling_points() {
        let increment = |value: &AtomicU64| value.store(value.load(Relaxed) + 1, Relaxed);
        assert_eq!(results(increment, |value| value.load(Relaxed)), BTreeSet::from([1, 2]));
    }

    #[test]
    fn a_mutex_excludes_other_threads() {
        let increment = |shared: &(Mutex<()>, AtomicU64)| {
            let _guard = shared.0.lock().unwrap();
            shared.1.store(shared.1.load(Relaxed) + 1, Relaxed);
        };
        assert_eq!(results(increment, |shared| shared.1.load(Relaxed)), BTreeSet::from([2]));
    }

    #[test]
    fn a_lock_that_is_held_is_not_taken_by_a_try() {
        let increment = |shared: &(Mutex<()>, AtomicU64)| {
            let Ok(_guard) = shared.0.try_lock() else { return };
            shared.1.fetch_add(1, Relaxed);
        };
        assert_eq!(results(increment, |shared| shared.1.load(Relaxed)), BTreeSet::from([1, 2]));
    }

    #[test]
    fn a_condition_variable_releases_the_lock_while_it_waits() {
        let meet = |shared: &(Mutex<u64>, Condvar)| {
            let mut guard = shared.0.lock().unwrap();
            *guard += 1;
            shared.1.notify_all();
            while *guard < 2 {
                guard = shared.1.wait(guard).unwrap();
            }
        };
        assert_eq!(results(meet, |shared| *shared.0.lock().unwrap()), BTreeSet::from([2]));
    }
}
