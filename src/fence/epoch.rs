//! The epoch of a channel and its state, in one atomic word, so that *open* is never seen before the new epoch. Pure.

use crate::sync::atomic::{AtomicU64, Ordering::*};

/// Notifications may be lost: the connection is being restored.
const AWAY: u64 = 1;
/// Nothing arrives, now or later, as far as is known.
const CLOSED: u64 = 2;
const FLAGS: u64 = AWAY | CLOSED;
/// The number of absences since the epoch began in which nothing was missed. What was stored before one of them is void for
/// readers that have bypassed it meanwhile, since they may have read later values.
const ABSENCES: u64 = 15 * ABSENCE;
const ABSENCE: u64 = 4;
/// The distance between two epochs.
const STEP: u64 = 64;

/// The state of a channel with respect to its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LinkState {
    Closed,
    Away,
    Open,
}

/// The epoch of a channel with its state.
#[derive(Debug)]
pub(crate) struct Epoch(AtomicU64);

/// The epoch at one moment, as a reader sees it that ignores some of the states. Equal stamps are of one epoch, in which
/// what was stored may be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EpochStamp(u64);

/// The use of a channel while its connection is away: [`Bypass`] or [`Serve`].
///
/// This trait is sealed.
pub trait WhenAway: sealed::Sealed {}

/// While the connection of a channel is away, nothing is served and nothing is stored: every read goes to the database. The
/// default.
#[derive(Debug, Clone, Copy)]
pub enum Bypass {}

/// While the connection of a channel is away, what was stored is served, and fills are stored: as stale as the time since
/// [`as_of`](crate::fence::FenceChannel::as_of). When the connection is back, all of it is forgotten, unless nothing was missed.
#[derive(Debug, Clone, Copy)]
pub enum Serve {}

mod sealed {
    pub trait Sealed {
        /// The flags that are ignored.
        const IGNORED: u64;
    }
}

impl sealed::Sealed for Bypass {
    const IGNORED: u64 = 0;
}
impl sealed::Sealed for Serve {
    const IGNORED: u64 = super::epoch::AWAY | super::epoch::ABSENCES;
}
impl WhenAway for Bypass {}
impl WhenAway for Serve {}

/// The number of channels that have been created in this process, which makes the epochs of each channel its own: an entry that
/// another channel stored is never fresh.
static CHANNELS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
/// The place of the number of a channel in the word.
const CHANNEL: u32 = 42;

impl Default for Epoch {
    fn default() -> Self {
        let channel = CHANNELS.fetch_add(1, Relaxed);
        Self(AtomicU64::new((channel << CHANNEL) | STEP | CLOSED))
    }
}

impl Epoch {
    #[inline]
    pub(crate) fn stamp<A: WhenAway>(&self) -> EpochStamp {
        EpochStamp(self.0.load(Acquire) & !A::IGNORED)
    }

    /// Begins a new epoch, in the same state.
    pub(crate) fn advance(&self) {
        self.change(|word| (word & !ABSENCES) + STEP);
    }

    /// Opens a channel that was away and has missed nothing. One that is closed stays closed.
    pub(crate) fn resume(&self) {
        self.change(|word| match word {
            _ if word & FLAGS != AWAY => word,
            // There are more absences than can be counted.
            _ if word & ABSENCES == ABSENCES => (word & !(FLAGS | ABSENCES)) + STEP,
            _ => (word & !FLAGS) + ABSENCE,
        });
    }

    /// Changes the state. An open channel begins a new epoch; one that goes away keeps its own, until it is back.
    pub(crate) fn set(&self, state: LinkState) {
        self.change(|word| match state {
            LinkState::Open => (word & !(FLAGS | ABSENCES)) + STEP,
            LinkState::Away if word & CLOSED == 0 => word | AWAY,
            LinkState::Away => ((word & !(FLAGS | ABSENCES)) + STEP) | AWAY,
            LinkState::Closed => word | CLOSED,
        });
    }

    fn change(&self, change: impl Fn(u64) -> u64) {
        let mut word = self.0.load(Acquire);
        while let Err(now) = self.0.compare_exchange(word, change(word), AcqRel, Acquire) {
            word = now;
        }
    }

    /// Returns the number of epochs that have ended.
    pub(crate) fn number(&self) -> u64 {
        (self.0.load(Acquire) & ((1 << CHANNEL) - 1)) / STEP
    }

    pub(crate) fn state(&self) -> LinkState {
        match self.0.load(Acquire) & FLAGS {
            0 => LinkState::Open,
            AWAY => LinkState::Away,
            _ => LinkState::Closed,
        }
    }
}

impl EpochStamp {
    /// A stamp that no epoch has.
    pub(crate) const NEVER: Self = Self(0);

    /// Returns `true` if fills may be stored.
    #[inline]
    pub(crate) fn is_open(self) -> bool {
        self.0 & FLAGS == 0
    }

    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(crate) fn bits(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Numbers up to 2 are states, 3 is an advance, and 4 is the end of an absence in which nothing was missed.
        #[test]
        fn f02_stamps_are_equal_only_if_nothing_was_forgotten_in_between(changes in vec(0..5_usize, 0..40)) {
            const STATES: [LinkState; 3] = [LinkState::Closed, LinkState::Away, LinkState::Open];
            let epoch = Epoch::default();
            let stamps = || (epoch.stamp::<Bypass>(), epoch.stamp::<Serve>());
            let mut seen = vec![stamps()];
            for change in &changes {
                match STATES.get(*change) {
                    Some(state) => epoch.set(*state),
                    None if *change == 4 => epoch.resume(),
                    None => epoch.advance(),
                }
                let now = stamps();
                prop_assert_eq!(now.0.is_open(), epoch.state() == LinkState::Open);
                prop_assert_eq!(now.1.is_open(), epoch.state() != LinkState::Closed);
                for (at, then) in seen.iter().enumerate() {
                    let between = &changes[at..seen.len()];
                    if now.0.is_open() && now.0 == then.0 {
                        // The end of an absence that there was not changes nothing.
                        prop_assert!(between.iter().all(|change| *change == 4));
                    }
                    if now.1.is_open() && now.1 == then.1 {
                        prop_assert!(between.iter().all(|change| [1, 4].contains(change)), "{:?}", between);
                    }
                }
                seen.push(now);
            }
        }
    }

    #[test]
    fn f02_an_entry_is_served_in_its_epoch_and_by_bypass_only_while_the_channel_is_open() {
        let epoch = Epoch::default();
        assert!(!epoch.stamp::<Bypass>().is_open() && !epoch.stamp::<Serve>().is_open());
        epoch.set(LinkState::Open);
        let stamps = || (epoch.stamp::<Bypass>(), epoch.stamp::<Serve>());
        let first = stamps();
        assert!(first.0.is_open() && first.1.is_open() && first.0 == first.1);
        epoch.set(LinkState::Away);
        assert!(!stamps().0.is_open() && stamps().0 != first.0);
        assert_eq!(stamps().1, first.1);
        epoch.set(LinkState::Open);
        assert!(stamps().0.is_open() && stamps().0 != first.0 && stamps().1 != first.1);
        let second = stamps();
        epoch.advance();
        assert!(stamps().0.is_open() && stamps().0 != second.0);
        let third = stamps();
        epoch.set(LinkState::Closed);
        assert!(!stamps().0.is_open() && !stamps().1.is_open());
        epoch.set(LinkState::Away);
        assert!(stamps().1.is_open() && stamps().1 != third.1, "what was stored before the end is not served again");
        assert_eq!(epoch.state(), LinkState::Away);
    }

    #[test]
    fn f02_after_an_absence_in_which_nothing_was_missed_only_bypass_begins_again() {
        let epoch = Epoch::default();
        epoch.resume();
        assert_eq!(epoch.state(), LinkState::Closed);
        epoch.set(LinkState::Open);
        let stamps = || (epoch.stamp::<Bypass>(), epoch.stamp::<Serve>());
        let mut seen = vec![stamps()];
        for absence in 1..=40 {
            epoch.set(LinkState::Away);
            epoch.resume();
            assert_eq!(epoch.state(), LinkState::Open);
            let now = stamps();
            assert!(seen.iter().all(|then| then.0 != now.0), "no stamp comes again");
            // Every sixteenth absence is forgotten, too.
            assert_eq!(seen.last().is_some_and(|then| then.1 == now.1), absence % 16 != 0, "{absence}");
            seen.push(now);
        }
        epoch.set(LinkState::Away);
        epoch.set(LinkState::Closed);
        epoch.resume();
        assert_eq!(epoch.state(), LinkState::Closed);
    }
}
