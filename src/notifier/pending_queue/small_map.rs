//! Maps of few values, which take little memory: most queues have one or two items. Pure.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// The number of values up to which they are in a list.
const FEW: usize = 8;

/// Values by increasing positions.
#[derive(Debug)]
pub(crate) enum PositionMap<V> {
    Few(Vec<(u64, V)>),
    Many(BTreeMap<u64, V>),
}

impl<V> Default for PositionMap<V> {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl<V> PositionMap<V> {
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Few(few) => few.is_empty(),
            Self::Many(many) => many.is_empty(),
        }
    }

    /// Adds a value at a position that has none.
    pub(crate) fn insert(&mut self, position: u64, value: V) {
        match self {
            Self::Few(few) if few.len() < FEW => {
                let at = few.partition_point(|(before, _)| *before < position);
                if few.len() == few.capacity() {
                    // By less than a vector does, since there may be very many subscribers.
                    few.reserve_exact(few.len().max(1));
                }
                few.insert(at, (position, value));
            }
            Self::Few(few) => {
                let mut many: BTreeMap<u64, V> = std::mem::take(few).into_iter().collect();
                many.insert(position, value);
                *self = Self::Many(many);
            }
            Self::Many(many) => _ = many.insert(position, value),
        }
    }

    pub(crate) fn remove(&mut self, position: u64) -> Option<V> {
        match self {
            Self::Few(few) => {
                let at = few.binary_search_by_key(&position, |(at, _)| *at).ok()?;
                Some(few.remove(at).1)
            }
            Self::Many(many) => {
                let removed = many.remove(&position);
                if many.is_empty() {
                    *self = Self::default();
                }
                removed
            }
        }
    }

    pub(crate) fn get_mut(&mut self, position: u64) -> Option<&mut V> {
        match self {
            Self::Few(few) => {
                let at = few.binary_search_by_key(&position, |(at, _)| *at).ok()?;
                few.get_mut(at).map(|(_, value)| value)
            }
            Self::Many(many) => many.get_mut(&position),
        }
    }

    /// Returns the position of the first value.
    pub(crate) fn first(&self) -> Option<u64> {
        match self {
            Self::Few(few) => few.first().map(|(position, _)| *position),
            Self::Many(many) => many.first_key_value().map(|(position, _)| *position),
        }
    }

    pub(crate) fn first_mut(&mut self) -> Option<&mut V> {
        self.get_mut(self.first()?)
    }

    pub(crate) fn last_mut(&mut self) -> Option<&mut V> {
        match self {
            Self::Few(few) => few.last_mut().map(|(_, value)| value),
            Self::Many(many) => many.last_entry().map(|last| last.into_mut()),
        }
    }

    pub(crate) fn pop_first(&mut self) -> Option<V> {
        self.remove(self.first()?)
    }

    /// Returns all values with their positions, in the order of these.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &V)> {
        let (few, many) = match self {
            Self::Few(few) => (Some(few), None),
            Self::Many(many) => (None, Some(many)),
        };
        let few = few.into_iter().flatten().map(|(position, value)| (*position, value));
        few.chain(many.into_iter().flatten().map(|(position, value)| (*position, value)))
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        let (few, many) = match self {
            Self::Few(few) => (Some(few), None),
            Self::Many(many) => (None, Some(many)),
        };
        let few = few.into_iter().flatten().map(|(_, value)| value);
        few.chain(many.into_iter().flatten().map(|(_, value)| value))
    }
}

/// Positions by keys.
#[derive(Debug)]
#[expect(clippy::box_collection, reason = "most queues have none, which takes 8 bytes")]
pub(crate) enum KeyMap<K> {
    Few(Vec<(K, u64)>),
    Many(Box<HashMap<K, u64>>),
}

impl<K> Default for KeyMap<K> {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl<K: Eq + Hash> KeyMap<K> {
    pub(crate) fn clear(&mut self) {
        match self {
            Self::Few(few) => few.clear(),
            Self::Many(_) => *self = Self::default(),
        }
    }

    pub(crate) fn get(&self, key: &K) -> Option<u64> {
        match self {
            Self::Few(few) => few.iter().find(|(known, _)| known == key).map(|(_, position)| *position),
            Self::Many(many) => many.get(key).copied(),
        }
    }

    /// Adds a key, or changes its position.
    pub(crate) fn insert(&mut self, key: K, position: u64) {
        match self {
            Self::Few(few) => {
                if let Some((_, before)) = few.iter_mut().find(|(known, _)| *known == key) {
                    *before = position;
                } else if few.len() < FEW {
                    if few.len() == few.capacity() {
                        few.reserve_exact(few.len().max(1));
                    }
                    few.push((key, position));
                } else {
                    let mut many: HashMap<K, u64> = std::mem::take(few).into_iter().collect();
                    many.insert(key, position);
                    *self = Self::Many(Box::new(many));
                }
            }
            Self::Many(many) => _ = many.insert(key, position),
        }
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<u64> {
        match self {
            Self::Few(few) => {
                let at = few.iter().position(|(known, _)| known == key)?;
                Some(few.swap_remove(at).1)
            }
            Self::Many(many) => many.remove(key),
        }
    }
}

#[cfg(test)]
impl<K> KeyMap<K> {
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Few(few) => few.is_empty(),
            Self::Many(many) => many.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The maps agree with those of the standard library, also where the list becomes too long.
        #[test]
        fn n07_small_maps_agree_with_large_ones(steps in prop::collection::vec((0..24u64, 0..5u8), 0..200)) {
            let (mut by_position, mut by_key) = (PositionMap::default(), KeyMap::default());
            let (mut positions, mut keys) = (BTreeMap::new(), HashMap::new());
            for (number, (at, step)) in (0u64..).zip(steps) {
                match step {
                    0 => {
                        prop_assert_eq!(by_position.remove(at), positions.remove(&at));
                        prop_assert_eq!(by_key.remove(&at), keys.remove(&at));
                    }
                    1 => prop_assert_eq!(by_position.pop_first(), positions.pop_first().map(|(_, value)| value)),
                    _ => {
                        if positions.insert(at, number).is_some() {
                            *by_position.get_mut(at).unwrap() = number;
                        } else {
                            by_position.insert(at, number);
                        }
                        by_key.insert(at, number);
                        keys.insert(at, number);
                    }
                }
                prop_assert!(by_position.iter().eq(positions.iter().map(|(at, value)| (*at, value))));
                prop_assert_eq!(by_position.is_empty(), positions.is_empty());
                prop_assert_eq!(by_position.first(), positions.first_key_value().map(|(at, _)| *at));
                prop_assert_eq!(by_position.first_mut().copied(), positions.values().next().copied());
                prop_assert_eq!(by_position.last_mut().copied(), positions.values().next_back().copied());
                by_position.values_mut().for_each(|value| *value += 1);
                positions.values_mut().for_each(|value| *value += 1);
                prop_assert!((0..24).all(|at| by_key.get(&at) == keys.get(&at).copied()));
            }
            by_key.clear();
            prop_assert!((0..24).all(|at| by_key.get(&at).is_none()));
        }
    }
}
