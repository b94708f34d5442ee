//! Random numbers that spread load over time.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash, RandomState};
use std::time::Duration;

/// A generator of pseudo-random numbers (SplitMix64): good enough to spread load, and reproducible from its seed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns a generator with a seed that differs between processes and between managers.
    pub(crate) fn random() -> Self {
        Self::new(RandomState::new().hash_one(0))
    }

    /// Returns the generator that belongs to a value: equal values have equal generators.
    pub(crate) fn of(value: impl Hash) -> Self {
        Self::new(BuildHasherDefault::<DefaultHasher>::default().hash_one(value))
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a duration from zero up to, but not including, `ceiling`.
    pub(crate) fn up_to(&mut self, ceiling: Duration) -> Duration {
        // With `f64::from(u32::MAX)` as the divisor, the longest duration would be rounded up beyond what fits.
        let part = f64::from((self.number() >> 32) as u32) / (f64::from(u32::MAX) + 1.0);
        ceiling.mul_f64(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m15_the_longest_duration_can_be_a_ceiling() {
        let mut largest = Jitter::new(0x3162_8af6_7b21_31ab);
        assert_eq!(largest.clone().number(), u64::MAX);
        assert!(largest.up_to(Duration::MAX) > Duration::MAX / 2);
    }
}
