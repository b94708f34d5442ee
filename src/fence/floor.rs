//! Positions in the write-ahead log of a primary.

use std::str::FromStr;
use std::{error, fmt};

use crate::sync::atomic::{AtomicU64, Ordering::*};

/// A position in the write-ahead log of a server, PostgreSQL's type `pg_lsn`.
///
/// ```
/// use notifyman::fence::Lsn;
///
/// let lsn: Lsn = "16/B374D848".parse()?;
/// assert_eq!(lsn.to_string(), "16/B374D848");
/// assert_eq!(u64::from(lsn), 0x16_B374_D848);
/// # Ok::<(), notifyman::fence::LsnError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(u64);

/// A string that is no position in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LsnError(Box<str>);

/// The position that a standby must have replayed for its answers to be fresh: zero if any will do.
#[derive(Debug, Default)]
pub(crate) struct Floor(AtomicU64);

/// The position is not known yet.
const UNKNOWN: u64 = u64::MAX;

impl Floor {
    pub(crate) fn set(&self, lsn: Option<Lsn>) {
        self.0.store(lsn.map_or(UNKNOWN, |lsn| lsn.0), Release);
    }

    /// Returns `true` if the position is known and is not the beginning.
    pub(crate) fn is_known(&self) -> bool {
        !matches!(self.0.load(Acquire), 0 | UNKNOWN)
    }

    /// Returns `true` if a standby that has replayed the log up to a position has reached the floor.
    pub(crate) fn is_below(&self, replayed: Lsn) -> bool {
        let floor = self.0.load(Acquire);
        floor != UNKNOWN && floor <= replayed.0
    }
}

impl From<u64> for Lsn {
    fn from(lsn: u64) -> Self {
        Self(lsn)
    }
}

impl From<Lsn> for u64 {
    fn from(lsn: Lsn) -> Self {
        lsn.0
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 as u32)
    }
}

impl FromStr for Lsn {
    type Err = LsnError;

    /// Reads a position as PostgreSQL writes it: two hexadecimal numbers of up to 8 digits, with a slash between.
    fn from_str(text: &str) -> Result<Self, LsnError> {
        let half = |text: &str| {
            let is_hex = (1..=8).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            is_hex.then(|| u64::from_str_radix(text, 16).ok()).flatten()
        };
        let halves = text.split_once('/').and_then(|(high, low)| half(high).zip(half(low)));
        halves.map(|(high, low)| Self(high << 32 | low)).ok_or_else(|| LsnError(text.into()))
    }
}

impl fmt::Display for LsnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no position in a log, such as 16/B374D848", self.0)
    }
}

impl error::Error for LsnError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn f04_a_position_is_read_as_it_is_written(lsn: u64) {
            prop_assert_eq!(Lsn(lsn).to_string().parse::<Lsn>().unwrap(), Lsn(lsn));
        }
    }

    #[test]
    fn f04_other_text_is_no_position() {
        for text in ["", "/", "1/", "/1", "1/2/3", "g/1", "+1/1", "123456789/1", " 1/1"] {
            let error = text.parse::<Lsn>().unwrap_err().to_string();
            assert!(error.contains("16/B374D848"), "{error}");
        }
    }
}
