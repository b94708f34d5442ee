//! The state of a channel of a fence: its epoch, its sources, and the rules by which fills are admitted.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use crate::error::Error;
use crate::fence::entry::{AwaitedEntry, Entry};
use crate::fence::epoch::{Epoch, EpochStamp, LinkState, WhenAway};
use crate::fence::fill::{Admission, FillStamps};
use crate::fence::floor::Floor;
use crate::fence::floors::{Floors, QuestionSink};

use crate::fence::source::{SourceId, Sources};
use crate::fence::stripe::{LockedStripe, Reentered, Stripe};
use crate::manager::ConnId;
use crate::sync::atomic::{AtomicU64, Ordering::*};
use crate::sync::{Mutex, MutexGuard};

/// The parts of a fence that its channels share.
#[derive(Debug)]
pub(crate) struct FenceCore {
    /// Their number is a power of two.
    pub(crate) stripes: Box<[Stripe]>,
    pub(crate) floors: Option<Arc<Floors>>,
    hasher: RandomState,
}

/// A channel of a fence.
#[derive(Debug)]
pub(crate) struct ChannelCore {
    pub(crate) fence: Arc<FenceCore>,
    pub(crate) name: Box<str>,
    /// Distinguishes the channels that share the stripes.
    number: usize,
    pub(crate) epoch: Epoch,
    /// The number of invalidations of keys that are not known one by one: each refuses all fills that have begun.
    sweeps: AtomicU64,
    /// The floor of all keys.
    floor: Arc<Floor>,
    sources: Mutex<Sources>,
    pub(crate) counters: ChannelCounters,
}

/// The counters of a channel.
#[derive(Debug, Default)]
pub(crate) struct ChannelCounters {
    pub(crate) invalidated: AtomicU64,
    pub(crate) refused: AtomicU64,
}

/// Begins a new epoch of a channel when it is dropped, unless the invalidation that it guards has ended.
struct ForgetOnDrop<'c>(Option<&'c ChannelCore>);

impl Drop for ForgetOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(channel) = self.0 {
            // Without a question to the primary: this may be during a panic.
            channel.advance_epoch();
        }
    }
}

impl FenceCore {
    /// Creates the state of a fence. The number of stripes is a power of two.
    pub(crate) fn new(stripes: usize, ask: Option<Box<QuestionSink>>) -> Self {
        let floors = ask.map(|ask| Arc::new(Floors::new(stripes, ask)));
        Self { stripes: (0..stripes).map(|_| Stripe::default()).collect(), floors, hasher: RandomState::new() }
    }

    #[inline]
    pub(crate) fn stripe(&self, at: usize) -> &Stripe {
        // The index is a remainder, or that of a fill.
        &self.stripes[at & (self.stripes.len() - 1)]
    }
}

impl ChannelCore {
    pub(crate) fn new(fence: &Arc<FenceCore>, name: &str, number: usize) -> Self {
        Self {
            fence: Arc::clone(fence),
            name: name.into(),
            number,
            epoch: Epoch::default(),
            sweeps: AtomicU64::new(0),
            floor: Arc::default(),
            sources: Mutex::default(),
            counters: ChannelCounters::default(),
        }
    }

    /// Returns the index of a key's stripe.
    #[inline]
    pub(crate) fn stripe_of(&self, key: &(impl Hash + ?Sized)) -> usize {
        let hash = self.fence.hasher.hash_one((self.number, key));
        hash as usize & (self.fence.stripes.len() - 1)
    }

    // ---- fills ------------------------------------------------------------------------------------------------------

    #[inline]
    pub(crate) fn begin<A: WhenAway>(&self, stripe: usize) -> FillStamps {
        let it = self.fence.stripe(stripe);
        FillStamps {
            stripe,
            stamp: it.stamp(),
            removals: it.removals(),
            sweeps: self.sweeps.load(Acquire),
            epoch: self.epoch.stamp::<A>(),
            replayed: None,
        }
    }

    /// Calls `store` with the epoch under the lock of the stripe, if nothing was invalidated since the fill began.
    pub(crate) fn admit<A: WhenAway>(&self, fill: &FillStamps, store: impl FnOnce(EpochStamp)) -> Admission {
        let admission = match self.fence.stripe(fill.stripe).lock() {
            Err(Reentered) => Admission::Reentrant,
            Ok(stripe) => match self.check::<A>(fill) {
                Admission::Stored => {
                    store(fill.epoch);
                    drop(stripe);
                    return Admission::Stored;
                }
                refused => {
                    drop(stripe);
                    refused
                }
            },
        };
        self.counters.refused.fetch_add(1, Relaxed);
        if admission == Admission::Behind {
            // A question that failed is asked again when its answer is needed.
            self.ask_for_floors();
        }
        admission
    }

    /// Judges a fill, under the lock of its stripe.
    fn check<A: WhenAway>(&self, fill: &FillStamps) -> Admission {
        let stripe = self.fence.stripe(fill.stripe);
        let now = self.epoch.stamp::<A>();
        if !fill.epoch.is_open() || !now.is_open() {
            return Admission::Away;
        }
        if stripe.stamp() != fill.stamp || self.sweeps.load(Acquire) != fill.sweeps || now != fill.epoch {
            return Admission::Invalidated;
        }
        let is_replayed = |replayed| {
            // Without a way to ask the primary, there is no floor to compare with.
            let floors = self.fence.floors.as_ref();
            floors.is_some_and(|it| it.is_below(fill.stripe, replayed)) && self.floor.is_below(replayed)
        };
        match fill.replayed {
            Some(replayed) if !is_replayed(replayed) => Admission::Behind,
            _ => Admission::Stored,
        }
    }

    /// Returns the value of an entry of this epoch.
    #[inline]
    pub(crate) fn fresh<'e, A: WhenAway, V>(&self, entry: &'e Entry<V>) -> Option<&'e V> {
        (entry.stamp == self.epoch.stamp::<A>()).then(|| entry.value())
    }

    /// Returns the value of an entry of this epoch that was read from the cache since a fill began, unless its removal may have
    /// been in progress.
    pub(crate) fn fresh_since<'e, A: WhenAway, V>(
        &self,
        fill: &FillStamps,
        entry: &'e AwaitedEntry<V>,
    ) -> Option<&'e V> {
        let is_fresh = entry.stamp() == self.epoch.stamp::<A>();
        let is_quiet = fill.removals.is_quiet() && self.fence.stripe(fill.stripe).removals() == fill.removals;
        (is_fresh && is_quiet).then(|| entry.value())
    }

    // ---- invalidations ----------------------------------------------------------------------------------------------

    /// Refuses the fills of a stripe's keys that have begun, and then calls `remove` under its lock. If that is not possible,
    /// or `remove` panics, forgets everything.
    pub(crate) fn invalidate(&self, at: usize, remove: impl FnOnce(&LockedStripe<'_>)) -> Result<(), Error> {
        let stripe = self.fence.stripe(at);
        let mut unless_removed = ForgetOnDrop(Some(self));
        self.counters.invalidated.fetch_add(1, Relaxed);
        if let Some(floors) = &self.fence.floors {
            floors.mark_stripe(at);
        }
        let locked = stripe.lock().map_err(|Reentered| Error::InsideFence)?;
        // First the stamp: a fill that is admitted before has inserted what is removed now.
        locked.advance();
        remove(&locked);
        drop(locked);
        unless_removed.0 = None;
        self.ask_for_floors();
        Ok(())
    }

    /// Refuses all fills of the channel that have begun, waits until none is being inserted, and calls `remove`.
    pub(crate) fn sweep(&self, remove: impl FnOnce()) -> Result<(), Error> {
        let mut unless_removed = ForgetOnDrop(Some(self));
        self.counters.invalidated.fetch_add(1, Relaxed);
        self.sweeps.fetch_add(1, AcqRel);
        self.set_floor_unknown();
        for stripe in &self.fence.stripes {
            drop(stripe.lock().map_err(|Reentered| Error::InsideFence)?);
        }
        remove();
        unless_removed.0 = None;
        self.ask_for_floors();
        Ok(())
    }

    /// Forgets everything that is stored or being read.
    pub(crate) fn forget(&self) {
        self.counters.invalidated.fetch_add(1, Relaxed);
        self.advance_epoch();
        self.ask_for_floors();
    }

    fn advance_epoch(&self) {
        // First the floor, so that a fill of the new epoch cannot be compared with the former one.
        self.set_floor_unknown();
        self.epoch.advance();
    }

    // ---- sources ----------------------------------------------------------------------------------------------------

    fn sources(&self) -> MutexGuard<'_, Sources> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a source, from which nothing arrives yet.
    pub(crate) fn add_source(&self, conn: Option<ConnId>) -> SourceId {
        let mut sources = self.sources();
        let id = sources.add(conn);
        self.epoch.set(sources.state());
        id
    }

    pub(crate) fn remove_source(&self, id: SourceId) {
        let mut sources = self.sources();
        let before = sources.state();
        sources.remove(id);
        if sources.state() != before {
            self.set_state(sources.state());
        }
    }

    /// Changes the state of a source, and with it that of the channel.
    pub(crate) fn set_source(&self, id: SourceId, state: LinkState) {
        let mut sources = self.sources();
        let before = sources.state();
        if !sources.set(id, state) {
            return;
        }
        let now = sources.state();
        if now != before || now == LinkState::Open {
            self.set_state(now);
        } else if state == LinkState::Open {
            // Another source is not back: what this one has missed is forgotten already.
            self.advance_epoch();
        }
    }

    /// Opens a source again that was away and has missed nothing. What was stored is served on where it was served meanwhile.
    pub(crate) fn resume_source(&self, id: SourceId) {
        let mut sources = self.sources();
        if sources.resume(id) && sources.state() == LinkState::Open {
            // What arrives late has no floor yet.
            self.set_floor_unknown();
            self.epoch.resume();
        }
    }

    fn set_state(&self, state: LinkState) {
        if state == LinkState::Open {
            // Before the first fill of the new epoch can begin.
            self.set_floor_unknown();
        }
        self.epoch.set(state);
    }

    /// Records that everything committed before a time has been applied, or that this is not certain any more.
    pub(crate) fn prove(&self, id: SourceId, as_of: Option<Instant>) {
        self.sources().prove(id, as_of);
    }

    pub(crate) fn as_of(&self) -> Option<Instant> {
        self.sources().as_of()
    }

    // ---- standbys ---------------------------------------------------------------------------------------------------

    fn set_floor_unknown(&self) {
        if let Some(floors) = &self.fence.floors {
            floors.mark_channel(self.number, &self.floor);
        }
    }

    /// Lets the program ask the primary, if that is due. Outside of closures, no lock is held.
    pub(crate) fn ask_for_floors(&self) {
        if let Some(floors) = &self.fence.floors {
            floors.ask();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::epoch::{Bypass, Serve};

    #[test]
    fn f02_a_source_that_is_back_forgets_also_while_another_one_is_away() {
        let channel = ChannelCore::new(&Arc::new(FenceCore::new(1, None)), "prices", 0);
        let (a, b) = (channel.add_source(None), channel.add_source(None));
        [a, b].iter().for_each(|source| channel.set_source(*source, LinkState::Open));
        [a, b].iter().for_each(|source| channel.set_source(*source, LinkState::Away));
        let mut entry = None;
        channel.admit::<Serve>(&channel.begin::<Serve>(0), |stamp| entry = Some(Entry::new(1, stamp)));
        let entry = entry.unwrap();
        assert!(channel.fresh::<Serve, _>(&entry).is_some());
        channel.set_source(a, LinkState::Open);
        assert_eq!(channel.epoch.state(), LinkState::Away);
        assert!(channel.fresh::<Serve, _>(&entry).is_none());
        channel.set_source(b, LinkState::Open);
        assert!(channel.begin::<Bypass>(0).epoch.is_open());
    }
}
