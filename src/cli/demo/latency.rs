//! A histogram of times with a relative error of 1/16, in a few kilobytes.

/// The number of steps into which each doubling of the time is divided.
const STEPS: u64 = 16;
const STEP_BITS: u32 = STEPS.trailing_zeros();

/// Counts times in microseconds.
#[derive(Debug, Clone, Default)]
pub(crate) struct LatencyHistogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl LatencyHistogram {
    pub(crate) fn record(&mut self, micros: u64) {
        let slot = slot(micros);
        if self.counts.len() <= slot {
            self.counts.resize(slot + 1, 0);
        }
        self.counts[slot] += 1;
        self.total += 1;
        self.max = self.max.max(micros);
    }

    /// Returns the time that this share of a thousand did not exceed, rounded up to the end of its step; `None` without
    /// any times.
    pub(crate) fn permille(&self, share: u64) -> Option<u64> {
        let rank = (self.total * share).div_ceil(1000).max(1);
        let mut seen = 0;
        let slot = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some(end_of(slot).min(self.max))
    }

    pub(crate) fn max(&self) -> Option<u64> {
        (self.total > 0).then_some(self.max)
    }
}

/// Returns the slot of a time. Small times have a slot each; a larger time's slot is determined by its first bits and
/// the number of bits that follow.
fn slot(micros: u64) -> usize {
    let extra = (u64::BITS - micros.leading_zeros()).saturating_sub(STEP_BITS + 1);
    (u64::from(extra) * STEPS + (micros >> extra)) as usize
}

/// Returns the largest time of a slot.
fn end_of(slot: usize) -> u64 {
    let extra = (slot as u64 / STEPS).saturating_sub(1);
    let head = u128::from(slot as u64 - extra * STEPS) + 1;
    u64::try_from((head << extra) - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_in_a_slot_whose_end_is_close() {
        for exponent in 0..64 {
            for around in [-1_i64, 0, 1, 5] {
                let time = (1_u64 << exponent).wrapping_add_signed(around);
                let end = end_of(slot(time));
                assert!(end >= time && end - time <= time / STEPS, "{time} {end}");
                assert!(slot(time) == 0 || end_of(slot(time) - 1) < time, "{time}");
            }
        }
    }

    #[test]
    fn shares_are_computed_from_the_recorded_times() {
        let mut latency = LatencyHistogram::default();
        assert_eq!((latency.permille(500), latency.max()), (None, None));
        (1..=1000).for_each(|micros| latency.record(micros));
        let half = latency.permille(500).unwrap();
        assert!((500..=500 + 500 / STEPS).contains(&half), "{half}");
        assert_eq!(latency.permille(1000), Some(1000));
        assert_eq!(latency.max(), Some(1000));
    }
}
