//! The subscriptions of a channel, for threads that go through all of them while others add and remove some.
//!
//! ```text
//!   ReceiverList ─▶ chunk ─▶ chunk ─▶ chunk       a snapshot shares the chunks: a change copies one of them
//! ```

use std::sync::Arc;

/// The number of places in a chunk. A change copies one chunk, and the list of chunks, if a snapshot shares them. Unit tests
/// have few subscriptions.
pub(crate) const CHUNK: usize = if cfg!(test) { 2 } else { 128 };

/// References in the order in which they were added. A removed one leaves an empty place.
#[derive(Debug)]
pub(crate) struct ReceiverList<T> {
    snapshot: ReceiverSnapshot<T>,
    places: usize,
    used: usize,
}

/// The references at one time.
#[derive(Debug)]
pub(crate) struct ReceiverSnapshot<T>(Arc<Vec<Arc<Chunk<T>>>>);

type Chunk<T> = Vec<Option<Arc<T>>>;

impl<T> Clone for ReceiverSnapshot<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> ReceiverSnapshot<T> {
    /// Returns the number of places.
    pub(crate) fn places(&self) -> usize {
        self.0.last().map_or(0, |last| (self.0.len() - 1) * CHUNK + last.len())
    }

    /// Returns what is at a place, if it is not empty.
    pub(crate) fn get(&self, place: usize) -> Option<&Arc<T>> {
        self.0.get(place / CHUNK)?.get(place % CHUNK)?.as_ref()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.0.iter().flat_map(|chunk| chunk.iter().flatten())
    }

    /// Returns the references in one of the parts of the snapshot, which have at most [`CHUNK`] places each.
    pub(crate) fn chunk(&self, at: usize) -> Option<impl Iterator<Item = &Arc<T>>> {
        self.0.get(at).map(|chunk| chunk.iter().flatten())
    }
}

impl<T> Default for ReceiverList<T> {
    fn default() -> Self {
        Self { snapshot: ReceiverSnapshot(Arc::default()), places: 0, used: 0 }
    }
}

impl<T> ReceiverList<T> {
    pub(crate) fn snapshot(&self) -> ReceiverSnapshot<T> {
        self.snapshot.clone()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Adds a reference, and returns its place.
    pub(crate) fn add(&mut self, receiver: Arc<T>) -> usize {
        let chunks = Arc::make_mut(&mut self.snapshot.0);
        if self.places.is_multiple_of(CHUNK) {
            chunks.push(Arc::default());
        }
        if let Some(last) = chunks.last_mut() {
            Arc::make_mut(last).push(Some(receiver));
        }
        self.used += 1;
        self.places += 1;
        self.places - 1
    }

    /// Replaces the reference at a place.
    pub(crate) fn replace(&mut self, place: usize, receiver: Option<Arc<T>>) {
        let chunks = Arc::make_mut(&mut self.snapshot.0);
        let at = chunks.get_mut(place / CHUNK).and_then(|chunk| Arc::make_mut(chunk).get_mut(place % CHUNK));
        if let Some(at) = at {
            self.used -= usize::from(at.is_some() && receiver.is_none());
            *at = receiver;
        }
        // So that the removal of all references from the last one on moves none.
        while let Some(last) = chunks.last_mut().filter(|last| last.last().is_none_or(Option::is_none)) {
            if Arc::make_mut(last).pop().is_some() {
                self.places -= 1;
            } else {
                chunks.pop();
            }
        }
    }

    /// Removes the empty places, if they are most of them. Calls `moved` with the new place of each reference.
    pub(crate) fn compact(&mut self, moved: impl Fn(&T, usize)) {
        if self.places < 2 * CHUNK || self.used > self.places / 2 {
            return;
        }
        let all: Vec<Arc<T>> = self.snapshot.iter().cloned().collect();
        *self = Self::default();
        for receiver in all {
            moved(&receiver, self.places);
            self.add(receiver);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The list agrees with a vector, and a snapshot does not change.
        #[test]
        fn n07_receivers_stay_in_order_and_a_snapshot_stays_as_it_was(
            steps in prop::collection::vec(any::<u16>(), 0..1500),
        ) {
            let mut list = ReceiverList::default();
            let places: RefCell<Vec<(u16, usize)>> = RefCell::default();
            let mut snapshot = (list.snapshot(), Vec::new());
            let text = |snapshot: &ReceiverSnapshot<u16>| snapshot.iter().map(|it| **it).collect::<Vec<_>>();
            for (number, step) in (0u16..).zip(steps) {
                let count = places.borrow().len();
                if step % 5 < 2 && count > 0 {
                    let (_, place) = places.borrow_mut().remove(usize::from(step) % count);
                    list.replace(place, None);
                    list.compact(|receiver, place| {
                        places.borrow_mut().iter_mut().filter(|it| it.0 == *receiver).for_each(|it| it.1 = place);
                    });
                } else {
                    let place = list.add(Arc::new(number));
                    places.borrow_mut().push((number, place));
                }
                if step % 97 == 0 {
                    snapshot = (list.snapshot(), text(&list.snapshot()));
                }
                prop_assert_eq!(text(&snapshot.0), snapshot.1.clone());
            }
            prop_assert_eq!(text(&list.snapshot()), places.borrow().iter().map(|it| it.0).collect::<Vec<_>>());
            prop_assert_eq!(list.is_empty(), places.borrow().is_empty());
            for (number, place) in places.borrow().iter() {
                prop_assert_eq!(list.snapshot().get(*place).map(|it| **it), Some(*number));
            }
        }
    }
}
