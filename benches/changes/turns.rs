//! Measuring in turns: in each round every way is measured once, in random order, so that noise affects all alike.

use std::hash::{BuildHasher, RandomState};

use crate::ways::Way;

/// One quantity, as measured in each round; without values for a way that was not measured.
#[derive(Debug, Clone, Default)]
pub struct Samples([Vec<f64>; Way::ALL.len()]);

impl Samples {
    pub fn median(&self, way: Way) -> Option<f64> {
        median(self.0[way as usize].clone())
    }

    /// The median of the differences to the turns without a trigger.
    pub fn added(&self, way: Way) -> Option<f64> {
        self.compared(way, |value, none| value - none)
    }

    /// The median of the ratios to the turns without a trigger.
    pub fn relative(&self, way: Way) -> Option<f64> {
        self.compared(way, |value, none| value / none)
    }

    /// The added cost as a multiple of what the hand-written trigger of the same kind adds.
    pub fn added_to_hand(&self, way: Way) -> Option<f64> {
        Some(self.added(way)? / self.added(way.by_hand()?)?)
    }

    fn compared(&self, way: Way, compare: impl Fn(f64, f64) -> f64) -> Option<f64> {
        let none = &self.0[Way::NoTrigger as usize];
        median(self.0[way as usize].iter().zip(none).map(|(value, none)| compare(*value, *none)).collect())
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Measures each of these ways in each round; a first round warms up and is not counted.
pub fn take<const N: usize>(rounds: usize, ways: &[Way], mut measure: impl FnMut(Way) -> [f64; N]) -> [Samples; N] {
    let mut samples = [(); N].map(|()| Samples::default());
    let mut order = ways.to_vec();
    for round in 0..=rounds {
        let random = RandomState::new();
        order.sort_by_key(|way| random.hash_one(*way as usize));
        for way in &order {
            let values = measure(*way);
            if round > 0 {
                samples.iter_mut().zip(values).for_each(|(samples, value)| samples.0[*way as usize].push(value));
            }
        }
    }
    samples
}
