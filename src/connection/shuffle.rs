//! The random order of `load_balance_hosts`. It spreads load, and is not cryptographically random.

use std::hash::{BuildHasher, RandomState};

/// Shuffles the items; every order is equally likely (Fisher-Yates).
pub(super) fn shuffle<T>(items: &mut [T]) {
    // Each `RandomState` of a process has different keys.
    shuffle_by(items, |place| RandomState::new().hash_one(place));
}

fn shuffle_by<T>(items: &mut [T], mut random: impl FnMut(usize) -> u64) {
    for last in (1..items.len()).rev() {
        let other = random(last) % (last as u64 + 1);
        items.swap(last, usize::try_from(other).unwrap_or(last));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_order_occurs() {
        let mut orders = BTreeSet::new();
        for _ in 0..1000 {
            let mut items = [1, 2, 3];
            shuffle(&mut items);
            orders.insert(items);
        }
        // The probability that one of six orders is missing after a thousand draws is about 10^-78.
        assert_eq!(orders.len(), 6);
    }

    #[test]
    fn empty_and_single_items_are_unchanged() {
        shuffle::<u8>(&mut []);
        shuffle_by(&mut [1], |_| 7);
    }
}
