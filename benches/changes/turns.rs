//! Measurement in turns: in each round every variant is measured once, in random order, so that noise affects all alike.

use std::hash::{BuildHasher, RandomState};

use crate::variants::Variant;

/// The values of one quantity in all rounds. A variant that was not measured has none.
#[derive(Debug, Clone, Default)]
pub struct Samples([Vec<f64>; Variant::ALL.len()]);

impl Samples {
    pub fn median(&self, variant: Variant) -> Option<f64> {
        median(self.0[variant as usize].clone())
    }

    /// Returns the median of the differences to the turns without a trigger.
    pub fn added(&self, variant: Variant) -> Option<f64> {
        self.compared(variant, |value, none| value - none)
    }

    /// Returns the median of the ratios to the turns without a trigger.
    pub fn relative(&self, variant: Variant) -> Option<f64> {
        self.compared(variant, |value, none| value / none)
    }

    /// Returns the added cost as a multiple of the cost that the hand-written trigger of the same kind adds.
    pub fn added_to_hand(&self, variant: Variant) -> Option<f64> {
        Some(self.added(variant)? / self.added(variant.by_hand()?)?)
    }

    fn compared(&self, variant: Variant, compare: impl Fn(f64, f64) -> f64) -> Option<f64> {
        let none = &self.0[Variant::NoTrigger as usize];
        median(self.0[variant as usize].iter().zip(none).map(|(value, none)| compare(*value, *none)).collect())
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Measures each of these variants in each round, after a round that is not counted.
pub fn take<const N: usize>(
    rounds: usize,
    variants: &[Variant],
    mut measure: impl FnMut(Variant) -> [f64; N],
) -> [Samples; N] {
    let mut samples = [(); N].map(|()| Samples::default());
    let mut order = variants.to_vec();
    for round in 0..=rounds {
        let random = RandomState::new();
        order.sort_by_key(|variant| random.hash_one(*variant as usize));
        for variant in &order {
            let values = measure(*variant);
            if round > 0 {
                samples.iter_mut().zip(values).for_each(|(samples, value)| samples.0[*variant as usize].push(value));
            }
        }
    }
    samples
}
