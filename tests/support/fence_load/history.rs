//! The versions of items, as they were committed and as their invalidations were handled.

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The commits of an item that are kept, and at least the number of threads that add them.
const COMMITS: usize = 1_024;
const THREADS: usize = 32;

/// The history of an item.
#[derive(Debug, Default)]
pub struct ItemHistory {
    /// The latest version whose invalidation was handled.
    pub handled: AtomicU64,
    /// The times after commits, with the versions.
    commits: Mutex<VecDeque<(Instant, u64)>>,
}

impl ItemHistory {
    pub fn add_commit(&self, version: u64) {
        let mut commits = lock(&self.commits);
        commits.push_back((Instant::now(), version));
        if commits.len() > COMMITS {
            commits.pop_front();
        }
    }

    /// Returns a version that was committed before a time, or zero if none is known.
    pub fn committed_before(&self, time: Instant) -> u64 {
        let commits = lock(&self.commits);
        // Threads may have added commits out of order, but hardly by more than their number.
        let before = commits.iter().rev().filter(|(at, _)| *at < time).take(THREADS);
        before.map(|(_, version)| *version).max().unwrap_or_default()
    }
}

/// A change of an item, as its notification says.
pub struct Change {
    pub item: u64,
    pub version: u64,
}

pub fn changes(payload: &str) -> Vec<Change> {
    let change = |text: &str| {
        let (item, version) = text.split_once('=')?;
        Some(Change { item: item.parse().ok()?, version: version.parse().ok()? })
    };
    payload.split(' ').map(|text| change(text).unwrap()).collect()
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Numbers that depend only on the seed.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    pub fn up_to(&mut self, longest: Duration) -> Duration {
        longest * self.below(1_000) as u32 / 1_000
    }
}
