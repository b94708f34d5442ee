//! Shares the memory of equal values.

use std::collections::VecDeque;

/// The values that were interned last, so that an equal value can share their memory, as in thousands of connections to a
/// few servers.
///
/// The number of values is small, so that a lookup is cheap if all values differ, and values are not kept for long. A value
/// is a reference to shared memory that is cheap to clone.
#[derive(Debug)]
pub(crate) struct Interner<T>(VecDeque<T>);

/// The number of different values that are kept.
const CAPACITY: usize = 16;

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T: Clone + PartialEq> Interner<T> {
    /// Returns `true` if an equal value is kept.
    pub(crate) fn contains(&self, value: &T) -> bool {
        self.0.contains(value)
    }

    /// Returns the kept value that is equal, or keeps and returns this one.
    pub(crate) fn intern(&mut self, value: &T) -> T {
        let known = self.0.iter().position(|known| known == value).and_then(|at| self.0.remove(at));
        let shared = known.unwrap_or_else(|| value.clone());
        self.0.truncate(CAPACITY - 1);
        self.0.push_front(shared.clone());
        shared
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn equal_values_are_shared_until_too_many_others_were_interned() {
        let mut interner = Interner::default();
        let first = interner.intern(&Arc::new(0));
        for other in 1..CAPACITY {
            interner.intern(&Arc::new(other));
            assert!(Arc::ptr_eq(&first, &interner.intern(&Arc::new(0))));
        }
        (1..=CAPACITY).for_each(|other| drop(interner.intern(&Arc::new(other))));
        assert!(!Arc::ptr_eq(&first, &interner.intern(&Arc::new(0))));
        assert_eq!(Arc::strong_count(&first), 1, "a value that was not used for long is dropped");
        assert_eq!(interner.0.len(), CAPACITY);
    }
}
