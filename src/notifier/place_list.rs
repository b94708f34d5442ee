//! A list whose values keep their places while others are removed. Pure.

/// Values in the order in which they were added. A removed one leaves an empty place.
#[derive(Debug)]
pub(crate) struct PlaceList<T> {
    places: Vec<Option<T>>,
    used: usize,
}

impl<T> Default for PlaceList<T> {
    fn default() -> Self {
        Self { places: Vec::new(), used: 0 }
    }
}

impl<T> PlaceList<T> {
    /// Returns the number of values.
    pub(crate) fn len(&self) -> usize {
        self.used
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.places.iter().flatten()
    }

    pub(crate) fn into_values(self) -> impl Iterator<Item = T> {
        self.places.into_iter().flatten()
    }

    pub(crate) fn get(&self, place: usize) -> Option<&T> {
        self.places.get(place)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, place: usize) -> Option<&mut T> {
        self.places.get_mut(place)?.as_mut()
    }

    /// Adds a value, and returns its place.
    pub(crate) fn add(&mut self, value: T) -> usize {
        let places = self.places.len();
        if places == self.places.capacity() {
            // By less than a vector does, since there may be very many values.
            self.places.reserve_exact(1 + places / 8);
        }
        self.places.push(Some(value));
        self.used += 1;
        places
    }

    /// Removes and returns the value at a place. If most places are empty then, removes these and calls `moved` with the
    /// new place of each value.
    pub(crate) fn remove(&mut self, place: usize, mut moved: impl FnMut(&T, usize)) -> Option<T> {
        let removed = self.places.get_mut(place)?.take()?;
        self.used -= 1;
        // So that the removal of all values from the last one on moves none.
        while let Some(None) = self.places.last() {
            self.places.pop();
        }
        if self.used <= self.places.len() / 2 {
            self.places.retain(Option::is_some);
            self.places.shrink_to_fit();
            self.iter().enumerate().for_each(|(place, value)| moved(value, place));
        }
        Some(removed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The list agrees with a vector, and at most half of its places are empty.
        #[test]
        fn values_stay_in_order_at_known_places(steps in prop::collection::vec(any::<u16>(), 0..500)) {
            let (mut list, mut model, mut places) = (PlaceList::default(), Vec::new(), HashMap::new());
            for (number, step) in (0u16..).zip(steps) {
                if step % 5 < 2 && !model.is_empty() {
                    let value = model.remove(usize::from(step) % model.len());
                    let removed = list.remove(places[&value], |value, place| _ = places.insert(*value, place));
                    prop_assert_eq!(removed, Some(value));
                } else {
                    places.insert(number, list.add(number));
                    model.push(number);
                }
                prop_assert!(list.iter().eq(&model));
                prop_assert_eq!(list.len(), model.len());
                prop_assert!(list.places.len() <= 2 * list.len());
                prop_assert!(model.iter().all(|value| list.get(places[value]) == Some(value)));
            }
            prop_assert!(list.into_values().eq(model));
        }
    }
}
