//! What many sessions have in common, kept once.

use std::collections::VecDeque;

/// Values that were seen of late, so that one that equals another can share its memory: thousands of connections to a
/// few servers.
///
/// It knows no more than a few, so it costs little where all are different, and keeps nothing for long. A value is a
/// handle of something shared, cheap to clone.
#[derive(Debug)]
pub(crate) struct Interner<T>(VecDeque<T>);

/// How many different values are known.
const KNOWN: usize = 16;

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T: Clone + PartialEq> Interner<T> {
    /// Whether an equal one was seen.
    pub(crate) fn knows(&self, value: &T) -> bool {
        self.0.contains(value)
    }

    /// The value to keep instead of an equal one.
    pub(crate) fn share(&mut self, value: &T) -> T {
        let known = self.0.iter().position(|known| known == value).and_then(|at| self.0.remove(at));
        let shared = known.unwrap_or_else(|| value.clone());
        self.0.truncate(KNOWN - 1);
        self.0.push_front(shared.clone());
        shared
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn equal_values_become_one_as_long_as_not_too_many_others_come_between() {
        let mut recent = Interner::default();
        let first = recent.share(&Arc::new(0));
        for other in 1..KNOWN {
            recent.share(&Arc::new(other));
            assert!(Arc::ptr_eq(&first, &recent.share(&Arc::new(0))));
        }
        (1..=KNOWN).for_each(|other| drop(recent.share(&Arc::new(other))));
        assert!(!Arc::ptr_eq(&first, &recent.share(&Arc::new(0))));
        assert_eq!(Arc::strong_count(&first), 1, "and what has long not been seen isn't held");
        assert_eq!(recent.0.len(), KNOWN);
    }
}
