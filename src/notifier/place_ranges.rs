//! The places of a pass, divided among the threads of a dispatcher. Pure.
//!
//! ```text
//!   thread 1  ▐███████░░░░▌        each takes its own range, place by place: in most passes
//!   thread 2  ▐█████████▌░░◀──┐    the same subscribers, which are then in its cache
//!                    └────────┴─   one that has finished takes the back half of what another has left
//! ```

use std::sync::PoisonError;

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering::*};

#[derive(Debug)]
pub(crate) struct PlaceRanges {
    /// Not in the list, so that one thread needs no allocation.
    first: PlaceRange,
    others: Box<[PlaceRange]>,
    /// Held while places move from one range to another, which is seen nowhere in between.
    stealing: Mutex<()>,
}

/// The places that a thread has left, in a cache line of its own: the next one, and the end in the upper half.
#[derive(Debug)]
#[repr(align(128))]
struct PlaceRange(AtomicU64);

impl PlaceRange {
    fn new(next: u64, end: u64) -> Self {
        Self(AtomicU64::new(Self::packed(next, end)))
    }

    fn packed(next: u64, end: u64) -> u64 {
        end << 32 | next
    }

    /// Returns the next place and the end.
    fn get(&self) -> (u64, u64) {
        let packed = self.0.load(Relaxed);
        (packed & u64::from(u32::MAX), packed >> 32)
    }

    fn len(&self) -> u64 {
        let (next, end) = self.get();
        end.saturating_sub(next)
    }

    /// Replaces the range, if it is still the same.
    fn change(&self, (next, end): (u64, u64), (new_next, new_end): (u64, u64)) -> bool {
        let (known, new) = (Self::packed(next, end), Self::packed(new_next, new_end));
        self.0.compare_exchange(known, new, Relaxed, Relaxed).is_ok()
    }

    #[inline]
    fn take_first(&self) -> Option<u64> {
        loop {
            let (next, end) = self.get();
            if next >= end {
                return None;
            }
            if self.change((next, end), (next + 1, end)) {
                return Some(next);
            }
        }
    }

    /// Removes the back half, at least one place.
    fn take_back(&self) -> Option<(u64, u64)> {
        loop {
            let (next, end) = self.get();
            if next >= end {
                return None;
            }
            let middle = next + (end - next) / 2;
            if self.change((next, end), (next, middle)) {
                return Some((middle, end));
            }
        }
    }
}

impl PlaceRanges {
    /// Divides places, which are less than 2^32, among a number of threads.
    pub(crate) fn new(places: usize, threads: usize) -> Self {
        let (places, threads) = (places as u64, threads.max(1) as u64);
        let range = |thread| PlaceRange::new(places * thread / threads, places * (thread + 1) / threads);
        Self { first: range(0), others: (1..threads).map(range).collect(), stealing: Mutex::default() }
    }

    fn all(&self) -> impl Iterator<Item = &PlaceRange> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// Takes the next place for a thread, from its own range or from that of another one.
    #[inline]
    pub(crate) fn next(&self, thread: usize) -> Option<usize> {
        let own = thread.checked_sub(1).map_or(Some(&self.first), |at| self.others.get(at))?;
        loop {
            if let Some(place) = own.take_first() {
                return Some(place as usize);
            }
            if !self.steal(own) {
                return None;
            }
        }
    }

    /// Moves half of the longest range to an empty one. Returns `false` if all are empty.
    fn steal(&self, own: &PlaceRange) -> bool {
        let _stealing = self.stealing.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let Some(longest) = self.all().max_by_key(|range| range.len()).filter(|range| range.len() > 0) else {
                return false;
            };
            // The range may have become empty meanwhile. An empty one changes only here.
            if let Some((next, end)) = longest.take_back() {
                own.0.store(PlaceRange::packed(next, end), Relaxed);
                return true;
            }
        }
    }

    /// Returns `true` if all places have been taken: no further thread is needed, however long the others take.
    pub(crate) fn is_over(&self) -> bool {
        let _stealing = self.stealing.lock().unwrap_or_else(PoisonError::into_inner);
        self.all().all(|range| range.len() == 0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn n07_threads_take_the_same_places_in_each_pass() {
        for _ in 0..2 {
            let ranges = PlaceRanges::new(10, 3);
            assert_eq!([0, 1, 2].map(|thread| ranges.next(thread)), [Some(0), Some(3), Some(6)]);
            assert_eq!([0, 1, 2].map(|thread| ranges.next(thread)), [Some(1), Some(4), Some(7)]);
        }
    }

    #[test]
    fn n07_one_thread_takes_all_places_that_others_leave() {
        for (places, threads) in [(0, 1), (1, 1), (1, 3), (2, 3), (100, 1), (100, 7)] {
            for thread in 0..threads {
                let ranges = PlaceRanges::new(places, threads);
                // Another thread stays at its first place.
                let stays = ranges.next((thread + 1) % threads);
                let mut taken: BTreeSet<usize> = std::iter::from_fn(|| ranges.next(thread)).collect();
                assert!(ranges.is_over());
                assert!(stays.is_none_or(|place| taken.insert(place)));
                assert_eq!(taken.into_iter().collect::<Vec<_>>(), (0..places).collect::<Vec<_>>());
            }
        }
    }
}
