//! The counts of the two caches.

use std::sync::atomic::{AtomicU64, Ordering::*};

/// The counts of one cache, which its readers add to.
#[derive(Debug, Default)]
pub(crate) struct CacheMeter {
    hits: AtomicU64,
    misses: AtomicU64,
    stale: AtomicU64,
    refused: AtomicU64,
    /// The result of the latest read: 0 for a miss, else twice the version, and 1 more if it is stale.
    latest: AtomicU64,
}

/// The result of a read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum CacheRead {
    #[default]
    Miss,
    Fresh(u64),
    Stale(u64),
}

impl CacheMeter {
    /// Counts a hit. `handled` is the latest version whose invalidation had been handled before the read began.
    pub(crate) fn count_hit(&self, version: u64, handled: u64) {
        let is_stale = u64::from(version < handled);
        self.hits.fetch_add(1, Relaxed);
        self.stale.fetch_add(is_stale, Relaxed);
        self.latest.store(version * 2 + is_stale, Relaxed);
    }

    pub(crate) fn count_miss(&self) {
        self.misses.fetch_add(1, Relaxed);
        self.latest.store(0, Relaxed);
    }

    /// Counts a fill that the fence refused.
    pub(crate) fn count_refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    pub(crate) fn counts(&self) -> CacheCounts {
        let [hits, misses, stale, refused, latest] =
            [&self.hits, &self.misses, &self.stale, &self.refused, &self.latest].map(|count| count.load(Relaxed));
        let latest = match (latest / 2, latest % 2) {
            (0, _) => CacheRead::Miss,
            (version, 0) => CacheRead::Fresh(version),
            (version, _) => CacheRead::Stale(version),
        };
        CacheCounts { hits, misses, stale, refused, latest }
    }
}

/// The counts of one cache at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CacheCounts {
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) stale: u64,
    /// Fills that the fence refused.
    pub(crate) refused: u64,
    pub(crate) latest: CacheRead,
}

impl CacheCounts {
    pub(crate) fn reads(&self) -> u64 {
        self.hits + self.misses
    }

    /// Returns the share of hits in all reads, in percent.
    pub(crate) fn hit_rate(&self) -> u64 {
        self.hits * 100 / self.reads().max(1)
    }
}

/// The counts of both caches.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SceneCounts {
    /// The version that was committed last.
    pub(crate) written: u64,
    pub(crate) plain: CacheCounts,
    pub(crate) fenced: CacheCounts,
}

impl SceneCounts {
    /// Returns `true` if the fence kept its promise, and its cache was used.
    pub(crate) fn is_right(&self) -> bool {
        self.fenced.stale == 0 && self.fenced.hits > 0
    }
}
