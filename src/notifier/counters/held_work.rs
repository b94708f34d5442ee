//! The work that a thread does while it holds the lock of the notifier's state, counted only in unit tests.

/// The time from taking the lock to its release.
pub(crate) struct HeldWork(());

impl HeldWork {
    pub(crate) fn begin() -> Self {
        #[cfg(test)]
        counts::WORK.set(Some(0));
        Self(())
    }
}

#[cfg(test)]
impl Drop for HeldWork {
    fn drop(&mut self) {
        if let Some(work) = counts::WORK.take() {
            counts::LARGEST.set(counts::LARGEST.get().max(work));
        }
    }
}

/// Counts work for one subscription.
#[inline]
pub(crate) fn count() {
    #[cfg(test)]
    counts::WORK.set(counts::WORK.get().map(|work| work + 1));
}

/// Returns the most work of one hold of the lock in a function.
#[cfg(test)]
pub(crate) fn largest(run: impl FnOnce()) -> usize {
    counts::LARGEST.set(0);
    run();
    counts::LARGEST.get()
}

#[cfg(test)]
mod counts {
    use std::cell::Cell;

    thread_local! {
        pub(super) static WORK: Cell<Option<usize>> = const { Cell::new(None) };
        pub(super) static LARGEST: Cell<usize> = const { Cell::new(0) };
    }
}
