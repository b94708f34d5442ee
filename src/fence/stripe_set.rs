//! Sets of stripes, with a bit for each. Pure.

/// Indexes of stripes.
#[derive(Debug, Default)]
pub(crate) struct StripeSet(Vec<u64>);

impl StripeSet {
    pub(crate) fn insert(&mut self, at: usize) {
        let (word, bit) = (at / 64, at % 64);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << bit;
    }

    /// Adds the stripes of another set.
    pub(crate) fn extend(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word |= other);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Returns the stripes that another set does not have.
    pub(crate) fn difference<'s>(&'s self, other: &'s Self) -> impl Iterator<Item = usize> + 's {
        let words = self.0.iter().enumerate();
        let rest = words.map(|(at, word)| (at, word & !other.0.get(at).copied().unwrap_or_default()));
        rest.flat_map(|(at, word)| (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| at * 64 + bit))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn f04_a_set_of_stripes_is_a_set(
            all: BTreeSet<usize>,
            more in proptest::collection::btree_set(0_usize..300, 0..100),
            other in proptest::collection::btree_set(0_usize..300, 0..100),
        ) {
            let set_of = |indexes: &BTreeSet<usize>| {
                let mut set = StripeSet::default();
                indexes.iter().for_each(|at| set.insert(*at));
                set
            };
            let all: BTreeSet<usize> = all.into_iter().map(|at| at % 300).collect();
            let mut set = set_of(&all);
            prop_assert_eq!(set.is_empty(), all.is_empty());
            set.extend(&set_of(&more));
            let expected: Vec<usize> = all.union(&more).copied().filter(|at| !other.contains(at)).collect();
            prop_assert_eq!(set.difference(&set_of(&other)).collect::<Vec<_>>(), expected);
        }
    }
}
