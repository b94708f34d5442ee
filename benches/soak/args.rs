//! The command line, and random numbers from its seed.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The command-line arguments.
pub struct Args {
    pub seconds: u64,
    pub seed: u64,
    pub connections: usize,
    pub clusters: usize,
}

impl Args {
    pub fn read() -> Result<Self, String> {
        let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| u64::from(since.subsec_nanos()));
        let mut args = Self { seconds: 5, seed, connections: 40, clusters: 2 };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            if word == "--bench" {
                continue; // cargo passes this to every bench
            }
            let mut number = || {
                let value = words.next().ok_or_else(|| format!("{word} takes a number"))?;
                value.parse::<u64>().map_err(|_| format!("{word} takes a number, got {value}"))
            };
            match word.as_str() {
                "--seconds" => args.seconds = number()?.max(1),
                "--seed" => args.seed = number()?,
                "--connections" => args.connections = number()?.max(1) as usize,
                "--clusters" => args.clusters = number()?.max(1) as usize,
                _ => {
                    return Err(format!(
                        "unknown option {word}; options are --seconds, --seed, --connections, --clusters"
                    ));
                }
            }
        }
        Ok(args)
    }

    /// Returns the time after which memory is measured for the first time.
    pub fn warm_up(&self) -> Duration {
        Duration::from_secs(self.seconds) / 3
    }
}

impl fmt::Display for Args {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seconds, seed, connections, clusters } = self;
        write!(f, "--seconds {seconds} --seed {seed} --connections {connections} --clusters {clusters}")
    }
}

/// Random numbers from a seed: SplitMix64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number less than `limit`, which must not be 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.next() % (to - from))
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        if from.is_empty() { None } else { from.get(self.below(from.len())) }
    }
}
